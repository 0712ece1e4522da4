# autograd.py: torch.autograd's names. The work is done in tensor.py and ops/gradient.py.
from __future__ import annotations
from typing import Any, Sequence
from picograd.tensor import Tensor, enable_grad, grad, inference_mode, no_grad, set_grad_enabled

def backward(tensors: "Tensor | Sequence[Tensor]", grad_tensors: Any = None, retain_graph: Any = None,
             create_graph: bool = False) -> None:
  """tensor.backward() for each of the tensors."""
  roots = [tensors] if isinstance(tensors, Tensor) else list(tensors)
  seeds = [grad_tensors] if isinstance(grad_tensors, Tensor) else list(grad_tensors or [None] * len(roots))
  for root, seed in zip(roots, seeds): root.backward(seed, retain_graph, create_graph)

__all__ = ["backward", "enable_grad", "grad", "inference_mode", "no_grad", "set_grad_enabled"]
