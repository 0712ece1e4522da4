# checkpoint.py: torch.utils.checkpoint: a part of a network whose values are not kept for the backward pass, which
# computes them again. In: a function of tensors. Out: its results, as without it. (Chen et al., Training deep nets
# with sublinear memory cost, 2016)
from __future__ import annotations
from typing import Any, Callable, Sequence
from picograd.func import leaves, mapped
from picograd.library import Tensor
from picograd.library.formulas import with_slope
from picograd.ops.gradient import BY_VALUE
from picograd.ops.uop import substitute
from picograd.storage import unique_leaf
from picograd.tensor import result

BY_VALUE["checkpoint"] = lambda u, g: g

def checkpoint(function: Callable[..., Any], *args: Any, use_reentrant: bool | None = None,
               preserve_rng_state: bool = True, **kwargs: Any) -> Any:
  """function(*args, **kwargs), whose gradient starts from copies of the tensors in args: the graph between them and the
  result is there twice, and the second one runs in the backward pass. Random numbers are the same in both."""
  output = function(*args, **kwargs)
  again = {x.uop: unique_leaf(x.uop) for x in leaves(args) if isinstance(x, Tensor)}
  def recomputed(x: Any) -> Any:
    if not isinstance(x, Tensor) or not x.requires_grad: return x
    return result(with_slope("checkpoint", x.uop, substitute([x.uop], again)[0]), x)
  return mapped(recomputed, output)

def checkpoint_sequential(functions: Sequence[Callable[..., Any]], segments: int, input: Any, **options: Any) -> Any:
  """The functions one after the other, in so many checkpointed segments; the last one keeps its values."""
  layers = list(functions)
  size = max(1, len(layers) // segments)
  while len(layers) >= 2 * size:
    input = checkpoint(composed(layers[:size]), input, **options)
    layers = layers[size:]
  return composed(layers)(input)

def composed(layers: Sequence[Callable[..., Any]]) -> Callable[..., Any]:
  def run(x: Any) -> Any:
    for layer in layers: x = layer(x)
    return x
  return run
