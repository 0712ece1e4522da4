# autograd.py: torch.autograd's names. The work is done in tensor.py and ops/gradient.py.
from __future__ import annotations
from picograd.library import Tensor, enable_grad, inference_mode, no_grad, set_grad_enabled
from picograd.ops.uop import UOp
from picograd.tensor import derivatives, gradient_tensor

__all__ = ["backward", "enable_grad", "grad", "inference_mode", "no_grad", "set_grad_enabled"]

def as_list(x) -> list[Tensor]: return [x] if isinstance(x, Tensor) else list(x)
def with_seeds(outputs, seeds) -> list[tuple[Tensor, Tensor | None]]:
  """Each output with the tensor that weights its derivatives."""
  roots = as_list(outputs)
  return list(zip(roots, [None] * len(roots) if seeds is None else as_list(seeds)))

def backward(tensors, grad_tensors=None, retain_graph=None, create_graph: bool = False) -> None:
  """tensor.backward() for each of the tensors."""
  for root, seed in with_seeds(tensors, grad_tensors): root.backward(seed, retain_graph, create_graph)

def grad(outputs, inputs, grad_outputs=None, retain_graph=None, create_graph: bool = False,
         allow_unused: bool = False) -> tuple[Tensor | None, ...]:
  """The gradients of the sum of outputs with respect to inputs."""
  wanted = as_list(inputs)
  found: list[list[UOp]] = [[] for _ in wanted]
  for output, seed in with_seeds(outputs, grad_outputs):
    for terms, g in zip(found, derivatives(output, seed, wanted)):
      if g is not None: terms.append(g)
  if not all(found) and not allow_unused:
    raise RuntimeError("One of the differentiated Tensors appears to not have been used in the graph. Set "
                       "allow_unused=True if this is the desired behavior.")
  return tuple(gradient_tensor(total(terms), t, create_graph) if terms else None for t, terms in zip(wanted, found))

def total(terms: list[UOp]) -> UOp:
  first, *rest = terms
  for term in rest: first = first + term
  return first
