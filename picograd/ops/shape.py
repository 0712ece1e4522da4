# shape.py: the shape of a node from its op, its sources' shapes and its arg, and the rules of broadcasting.
# In: shapes as tuples of int. Out: a shape, or a ValueError that names the shapes. Nodes of lower forms have shape ().
from __future__ import annotations
from typing import Any, Callable, Sequence
from picograd.helpers import prod
from picograd.ops.ops import Ops, ALU

Shape = tuple[int, ...]

def broadcast(*shapes: Shape) -> Shape:
  """The common shape under NumPy's rule: align at the right, a dimension of 1 stretches. ValueError if none exists."""
  rank = max((len(s) for s in shapes), default=0)
  out = [1] * rank
  for shape in shapes:
    for d, n in zip(range(rank - len(shape), rank), shape):
      if n == out[d] or n == 1: continue
      if out[d] != 1:
        listed = " with ".join(str(s) for s in shapes)
        raise ValueError(f"cannot broadcast {listed}: dimension {d - rank} is {out[d]} and {n}")
      out[d] = n
  return tuple(out)

def permuted(shape: Shape, axes: Sequence[int]) -> Shape:
  if sorted(axes) != list(range(len(shape))): raise ValueError(f"cannot permute {shape} by axes {tuple(axes)}")
  return tuple(shape[a] for a in axes)

def reshaped(shape: Shape, new: Shape) -> Shape:
  if prod(shape) != prod(new) or any(n < 0 for n in new):
    raise ValueError(f"cannot reshape {shape} ({prod(shape)} elements) to {new} ({prod(new)} elements)")
  return new

def expanded(shape: Shape, new: Shape) -> Shape:
  if len(shape) != len(new) or any(n != m and n != 1 for n, m in zip(shape, new)):
    raise ValueError(f"cannot expand {shape} to {new}: only dimensions of size 1 stretch")
  return new

def padded(shape: Shape, widths: Sequence[tuple[int, int]]) -> Shape:
  if len(shape) != len(widths) or any(lo < 0 or hi < 0 for lo, hi in widths):
    raise ValueError(f"cannot pad {shape} by {tuple(widths)}")
  return tuple(n + lo + hi for n, (lo, hi) in zip(shape, widths))

def shrunk(shape: Shape, bounds: Sequence[tuple[int, int]]) -> Shape:
  if len(shape) != len(bounds) or any(not 0 <= lo <= hi <= n for n, (lo, hi) in zip(shape, bounds)):
    raise ValueError(f"cannot shrink {shape} to {tuple(bounds)}")
  return tuple(hi - lo for lo, hi in bounds)

def reduced(shape: Shape, axes: Sequence[int]) -> Shape:
  """Reduced axes stay, with size 1."""
  if any(not 0 <= a < len(shape) for a in axes): raise ValueError(f"cannot reduce {shape} over axes {tuple(axes)}")
  return tuple(1 if d in axes else n for d, n in enumerate(shape))

MOVED: dict[Ops, Callable[..., Shape]] = {
  Ops.RESHAPE: reshaped, Ops.PERMUTE: permuted, Ops.EXPAND: expanded,
  Ops.PAD: padded, Ops.SHRINK: shrunk,
}

SAME = frozenset({Ops.FLIP, Ops.CONTIGUOUS, Ops.DETACH, Ops.COPY, Ops.AFTER})
SHAPED = frozenset({*ALU, *MOVED, Ops.REDUCE, *SAME})          # every other node but a leaf has shape ()

def shape_of(op: Ops, src: Sequence[Shape], arg: Any) -> Shape:
  """The shape of a node. An elementwise op wants equal shapes: Tensor broadcasts before it builds."""
  if op in ALU:
    first = src[0]
    for other in src:
      if other is first or other == first: continue
      raise ValueError(f"{op} of shapes {' and '.join(map(str, src))}: shapes must be equal")
    return first
  if op in MOVED: return MOVED[op](src[0], arg)
  if op is Ops.REDUCE: return reduced(src[0], arg[1])
  if op in SAME: return src[0]
  return ()
