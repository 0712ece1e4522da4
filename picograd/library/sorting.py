# sorting.py: sorting by rank: how many elements come before each one.
from __future__ import annotations
from picograd.arithmetic import iota_along, is_nan, stored, stretch
from picograd.common import axis_of
from picograd.dtype import dtypes
from picograd.indexing import after_last, before_last, gather_axis, over_last
from picograd.ops.ops import Ops
from picograd.ops.uop import UOp, from_memory
from picograd.tensor import Extremes, Tensor, result, zeros

def less(x: UOp, y: UOp) -> UOp:
  """x before y in ascending order; NaN comes last."""
  if x.dtype is dtypes.bool:
    return x.not_() & y
  if not x.dtype.is_floating_point:
    return x < y
  nan_last = is_nan(y) & is_nan(x).not_()
  return (x < y) | nan_last

def rank(x: UOp, descending) -> UOp:
  """For each element of the last axis its place in sorted order; equal elements keep their order. x is in memory."""
  shape = x.shape + x.shape[-1:]                                       # (.., i, j): does j come before i
  mine = stretch(after_last(x), shape)
  theirs = stretch(before_last(x), shape)
  earlier = iota_along(shape, -1) < iota_along(shape, -2)
  first, second = (mine, theirs) if descending else (theirs, mine)
  before = less(first, second) | (less(second, first).not_() & earlier)
  return over_last(before.cast(dtypes.int32), Ops.ADD)

def order(x: UOp, count: int, descending) -> UOp:
  """The positions of the first `count` elements of the last axis in sorted order. int64."""
  place = stored(rank(x, descending))
  shape = x.shape[:-1] + (count,) + x.shape[-1:]                       # (.., place, i)
  at = stretch(before_last(place), shape).eq(iota_along(shape, -2))
  found = over_last(at.where(iota_along(shape, -1), 0), Ops.ADD)
  return found.cast(dtypes.int64)

def ordered(x: Tensor, count: int, dim, descending) -> Extremes:
  """The first `count` elements along dim in sorted order, and where they were."""
  if not x.ndim:
    return Extremes(x, zeros(dtype=dtypes.int64, device=x.device))
  axis = axis_of(dim, x.ndim)
  known = from_memory(x.uop)
  places = order(known.movedim(axis, -1), count, descending).movedim(-1, axis)
  values = result(gather_axis(known, axis, places), x)
  return Extremes(values, result(places, device=x.storage.device))

def sort(self: Tensor, dim=-1, descending=False, stable=True) -> Extremes:
  return ordered(self, self.size(dim) if self.ndim else 1, dim, descending)
def argsort(self: Tensor, dim=-1, descending=False, stable=True) -> Tensor:
  return sort(self, dim, descending).indices
def topk(self: Tensor, k, dim=-1, largest=True, sorted=True) -> Extremes:
  if not self.ndim or 0 <= k <= self.size(dim):
    return ordered(self, k, dim, largest)
  raise RuntimeError(f"selected index k out of range: k is {k} and dimension {dim} has size {self.size(dim)}")
