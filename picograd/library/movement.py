# movement.py: other shapes of the same elements, and copies of them, composed of the core's views.
from __future__ import annotations
import math
from typing import Any, Sequence
import numpy as np
from picograd.common import axis_of, sizes_of
from picograd.dtype import dtypes
from picograd.ops.uop import UOp
from picograd.tensor import Tensor, arange, result, tensor

def view_as(self: Tensor, other: Tensor) -> Tensor:
  return self.view(other.shape)
def reshape_as(self: Tensor, other: Tensor) -> Tensor:
  return self.reshape(other.shape)
def expand_as(self: Tensor, other: Tensor) -> Tensor:
  return self.expand(other.shape)
def broadcast_to(self: Tensor, size) -> Tensor:
  return self.expand(size)
def ravel(self: Tensor) -> Tensor:
  return self.reshape(-1)

def t(self: Tensor) -> Tensor:
  if self.ndim <= 2: return self.T
  raise RuntimeError(f"t() expects a tensor with <= 2 dimensions, but self is {self.ndim}D")

def movedim(self: Tensor, source, destination) -> Tensor:
  """Dimensions moved to other places, the rest in order."""
  sources, targets = axes_at(source, self.ndim), axes_at(destination, self.ndim)
  order = [d for d in range(self.ndim) if d not in sources]
  for target, d in sorted(zip(targets, sources)):
    order.insert(target, d)
  return self.permute(order)

def axes_at(dims, rank: int) -> list[int]:
  if isinstance(dims, int):
    dims = [dims]
  return [axis_of(d, rank) for d in dims]

def unflatten(self: Tensor, dim, sizes: Sequence[Any]) -> Tensor:
  """One dimension as several."""
  at, shape = axis_of(dim, self.ndim), self.sizes
  inner = list(sizes)
  if -1 in inner:
    inner[inner.index(-1)] = shape[at] // -math.prod(inner)
  return self.reshape(*shape[:at], *inner, *shape[at + 1:])

def repeat(self: Tensor, *sizes) -> Tensor:
  """The whole tensor several times along each dimension."""
  counts = sizes_of(sizes)
  if len(counts) < self.ndim:
    raise RuntimeError("Number of dimensions of repeat dims can not be smaller than number of dimensions of tensor")
  ones = (1,) * (len(counts) - self.ndim)
  shape = ones + self.sizes
  pairs = tuple(m for n in shape for m in (1, n))
  grown = tuple(m for pair in zip(counts, shape) for m in pair)
  total = tuple(n * count for n, count in zip(shape, counts))
  return result(self.uop.reshape(pairs).expand(grown).reshape(total), self)

def tile(self: Tensor, *sizes) -> Tensor:
  counts = sizes_of(sizes)
  return repeat(self, (1,) * (self.ndim - len(counts)) + counts)

def repeat_interleave(self: Tensor, repeats, dim=None) -> Tensor:
  """Each element several times in a row."""
  if dim is None:
    return repeat_interleave(self.flatten(), repeats, 0)
  at, shape = axis_of(dim, self.ndim), self.sizes
  if isinstance(repeats, Tensor):
    places: np.ndarray = np.repeat(np.arange(shape[at]), repeats.host())
    return self.index_select(at, tensor(places, device=self.device))
  before, after = shape[:at + 1], shape[at + 1:]
  grown = self.uop.reshape((*before, 1, *after)).expand((*before, repeats, *after))
  total = (*shape[:at], shape[at] * repeats, *after)
  return result(grown.reshape(total), self)

def pad_with(x: UOp, widths: Sequence[tuple[int, int]], value: float) -> UOp:
  """x with `value` around it; a negative width cuts off."""
  kept = tuple((max(0, -low), n - max(0, -high)) for n, (low, high) in zip(x.shape, widths))
  grow = tuple((max(0, low), max(0, high)) for low, high in widths)
  x = x.shrink(kept)
  padded = x.pad(grow)
  if padded is x or value == 0 and math.copysign(1, value) > 0:
    return padded
  inside = UOp.const(dtypes.bool, True).spread(x.shape)
  return inside.pad(grow).where(padded, value)

def pad(self: Tensor, widths: Sequence[tuple[Any, Any]], value=0) -> Tensor:
  """(before, after) for each dimension; a negative width cuts off."""
  return result(pad_with(self.uop, widths, value), self)

def unfold(self: Tensor, dimension, size, step) -> Tensor:
  """Windows of `size` elements, every `step`, as a new last dimension."""
  at = axis_of(dimension, self.ndim)
  count = (self.sizes[at] - size) // step + 1
  starts = arange(count, device=self.device).unsqueeze(1) * step
  places = starts + arange(size, device=self.device)
  windows = self.index_select(at, places.flatten())
  return windows.unflatten(at, (count, size)).movedim(at + 1, -1)
