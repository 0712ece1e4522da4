# selecting.py: elements at positions that a tensor names, and values put or added up there.
from __future__ import annotations
import functools, weakref
from typing import Any, Sequence
import numpy as np
from picograd.arithmetic import convert, iota_along, stretch
from picograd.common import axis_of
from picograd.dtype import dtypes, promote
from picograd.helpers import argsort, prod
from picograd.indexing import before_last, flat_rows, from_start, gather_axis, index_error, linear_index, outside
from picograd.indexing import over_last, take, take_along, touched
from picograd.library.joining import stack
from picograd.ops.ops import Ops, identity
from picograd.ops.shape import broadcast
from picograd.ops.uop import UOp
from picograd.storage import check_later, host_copy, merged
from picograd.tensor import Tensor, constant_of, full, positions, result, tensor, zeros

# ---- index tensors in brackets ---------------------------------------------------------------------------------------

class Place:
  """The positions that index tensors name in the dimensions `at`. order: these dimensions first, then the others.
  before: how many other dimensions stand before theirs in the result; index tensors with gaps between them go first."""
  def __init__(self, x: Tensor, at: Sequence[int], tensors: Sequence[Tensor]):
    self.index = joint_index(x, at, tensors)
    others = [d for d in range(x.ndim) if d not in at]
    adjacent = at[-1] - at[0] + 1 == len(at)
    self.order = (*at, *others)
    self.before = at[0] if adjacent else 0

  def moves(self) -> tuple[range, range]:
    """The result's dimensions that the index tensors gave: where they are first, and where they belong."""
    rank = len(self.index.shape)
    return range(rank), range(self.before, self.before + rank)

def joint_index(x: Tensor, at: Sequence[int], tensors: Sequence[Tensor]) -> UOp:
  """The positions in the dimensions `at` taken as one."""
  sizes = [x.sizes[d] for d in at]
  try:
    shape = broadcast(*(t.sizes for t in tensors))
  except ValueError:
    shapes = ", ".join(map(str, (list(t.shape) for t in tensors)))
    raise IndexError(f"shape mismatch: indexing tensors could not be broadcast together with shapes {shapes}") from None
  indices = [checked_index(t, n, d) for t, n, d in zip(tensors, sizes, at)]
  dtype = functools.reduce(promote, (i.dtype for i in indices))
  return linear_index([stretch(i.cast(dtype), shape) for i in indices], sizes)

bounds_known: weakref.WeakKeyDictionary[UOp, tuple[int, int]] = weakref.WeakKeyDictionary()     # BUFFER -> min, max

def checked_index(index: Tensor, n: int, dim: int) -> UOp:
  """index as positions 0..n-1. IndexError outside: at once where the values are in memory, else with realize()."""
  u = index.uop
  if index.dtype not in (dtypes.int32, dtypes.int64):
    u = u.cast(dtypes.int64)
  if not index.numel():
    return u
  memory = index.storage.memory if index.storage.is_known() else None
  constant = constant_of(u)
  if memory is None and constant is None:
    error = IndexError(f"index is out of bounds for dimension {dim} with size {n}")
    check_later(outside(u, n), index.storage.device, error)
    return from_start(u, n)
  if memory is not None and memory not in bounds_known:
    bounds_known[memory] = extremes_of(host_copy(index.storage, ()))
  low, high = (0, n) if memory is None else bounds_known[memory]
  if low >= 0 and high < n:
    return u                                                           # a view may see fewer than the memory holds
  low, high = (constant, constant) if constant is not None else extremes_of(index.host())
  for i in (low, high):
    if not -n <= i < n:
      raise index_error(i, dim, n)
  return u if low >= 0 else from_start(u, n)

def extremes_of(data: np.ndarray) -> tuple[int, int]:
  return int(data.min()), int(data.max())

def gather_at(self: Tensor, at: Sequence[int], tensors: Sequence[Tensor]) -> Tensor:
  """Elements at the positions that tensors name in the dimensions `at`."""
  place = Place(self, at, tensors)
  rows = flat_rows(self.uop.permute(place.order), len(at))
  out = result(take(rows, place.index), self, *tensors, device=self.storage.device)
  return out.movedim(*place.moves()) if place.before else out

def put_at(self: Tensor, at: Sequence[int], tensors: Sequence[Tensor], value) -> Tensor:
  """Myself with the elements that index tensors name replaced by value."""
  place = Place(self, at, tensors)
  index, before = place.index, place.before
  moved = self.uop.permute(place.order)
  rest = moved.shape[len(at):]
  if not isinstance(value, Tensor):
    value = full((), value, dtype=self.dtype, device=self.device)
  shape = rest[:before] + index.shape + rest[before:]
  while value.ndim > len(shape) and value.shape[0] == 1:
    value = value.squeeze(0)
  first, there = place.moves()
  spread = value.cast(self.dtype).expand(shape).movedim(there, first)
  count = prod(index.shape)
  values = spread.uop.reshape((count,) + rest)
  rows = put(flat_rows(moved, len(at)), index.reshape((count,)), values)
  out = rows.reshape(moved.shape).permute(argsort(place.order))
  return result(out, self, value, device=self.storage.device)

# ---- selection -------------------------------------------------------------------------------------------------------

def gather(self: Tensor, dim, index: Tensor) -> Tensor:
  """out[.., k, ..] = self[.., index[.., k, ..], ..]"""
  if not index.numel(): return zeros(tuple(index.shape), dtype=self.dtype, device=self.device)
  if not self.ndim or not index.ndim:
    return gather(at_least_1d(self), dim, at_least_1d(index)).reshape(index.shape)
  axis, x = axis_of(dim, self.ndim), self.uop
  place = checked_index(index, x.shape[axis], axis)
  return result(gather_axis(x, axis, place), self)

def at_least_1d(x: Tensor) -> Tensor:
  return x if x.ndim else x.reshape(1)

def index_select(self: Tensor, dim, index: Tensor) -> Tensor:
  if not self.ndim: return index_select(self.reshape(1), dim, index).reshape(())
  return self.gather_at([axis_of(dim, self.ndim)], [index])

def masked_select(self: Tensor, mask: Tensor) -> Tensor:
  shape = broadcast(self.sizes, mask.sizes, (1,))
  return self.expand(shape)[mask.expand(shape)]

def nonzero(self: Tensor, as_tuple=False) -> Any:
  """The positions of elements that are not zero: a row each, or a tensor per dimension."""
  columns = positions(self)
  if as_tuple:
    return columns
  if not columns:
    return zeros(1 if self else 0, 0, dtype=dtypes.int64)
  return stack(columns, 1)

def unique(self: Tensor, sorted=True, return_inverse=False, return_counts=False) -> Any:
  """The different elements in ascending order; the number of them has to be known, so this computes."""
  values, inverse, counts = np.unique(self.host(), return_inverse=True, return_counts=True)
  out = [tensor(values, dtype=self.dtype, device=self.device)]
  if return_inverse:
    out.append(tensor(inverse.reshape(self.shape), device=self.device))
  if return_counts:
    out.append(tensor(counts, device=self.device))
  return out[0] if len(out) == 1 else tuple(out)

# ---- scatter ---------------------------------------------------------------------------------------------------------

COMBINE = {"add": Ops.ADD, "sum": Ops.ADD, "multiply": Ops.MUL, "prod": Ops.MUL}

def hits(index: UOp, n: int) -> UOp:
  """(rows, n, count): whether index[row, k] names the place."""
  rows, count = index.shape
  shape = (rows, n, count)
  here = stretch(before_last(index), shape)
  return here.eq(iota_along(shape, 1, index.dtype))

def last_writer(index: UOp, n: int) -> UOp:
  """For each row and place 0..n-1: one plus the largest k with index[row, k] == place, 0 where there is none."""
  hit = hits(index, n)
  return over_last(hit.where(iota_along(hit.shape, -1) + 1, 0), Ops.MAX)

def put(x: UOp, index: UOp, values: UOp) -> UOp:
  """x with x[index[b], r..] = values[b, r..]; of several values for one place the last counts."""
  if 0 in index.shape: return x
  n, *rest = x.shape
  if index.shape == (1,):
    chosen = iota_along(x.shape, 0, index.dtype).eq(stretch(index.reshape((1,) * len(x.shape)), x.shape))
    return chosen.where(stretch(values, x.shape), x)
  row = index.reshape((1,) + index.shape)
  last = last_writer(row, n).reshape((n,))
  written = last.ne(0).reshape((n,) + (1,) * len(rest))
  return stretch(written, x.shape).where(take(values, last - 1), x)

def put_along(x: UOp, index: UOp, values: UOp) -> UOp:
  """x with x[row, index[row, k]] = values[row, k]; of several values for one place the last counts."""
  last = last_writer(index, x.shape[1])
  return last.ne(0).where(take_along(values, last - 1), x)

def combine_along(x: UOp, index: UOp, values: UOp, op: Ops) -> UOp:
  """x[row, place] combined by op with every values[row, k] where index[row, k] == place."""
  hit = hits(index, x.shape[1])                                        # (rows, n, k)
  candidates = stretch(before_last(values), hit.shape)
  chosen = hit.where(candidates, identity(op, x.dtype))
  return x.alu(op, over_last(chosen, op))

def scatter(self: Tensor, dim, index: Tensor, src=None, value=None, reduce: str | None = None) -> Tensor:
  """Myself with [.., index[.., k, ..], ..] replaced by src[.., k, ..]; reduce='add' or 'multiply' combines them."""
  if src is None:
    src = value
  if not isinstance(src, Tensor):
    src = full(tuple(index.shape), src, dtype=self.dtype, device=self.device)
  if not self.ndim or not index.ndim:
    line = scatter(at_least_1d(self), dim, at_least_1d(index), at_least_1d(src), reduce=reduce)
    return line.reshape(self.shape)
  axis, x = axis_of(dim, self.ndim), self.uop
  place = checked_index(index, x.shape[axis], axis)
  if 0 in place.shape:
    return self.clone()
  bounds = touched(x.shape, place.shape, axis)
  used = tuple((0, n) for n in place.shape)
  values = convert(src.uop, self.dtype).shrink(used)
  part = x.shrink(bounds).movedim(axis, -1)
  to = in_rows(place.movedim(axis, -1))
  new = in_rows(values.movedim(axis, -1))
  if reduce is None:
    out = put_along(in_rows(part), to, new)
  else:
    out = combine_along(in_rows(part), to, new, COMBINE[reduce])
  steps = () if x.shrink(bounds) is x else ((Ops.SHRINK, bounds),)
  changed = out.reshape(part.shape).movedim(-1, axis)
  return result(merged(x, steps, changed), self, src)

def in_rows(x: UOp) -> UOp:
  return x.reshape((prod(x.shape[:-1]), x.shape[-1]))

def scatter_(self: Tensor, dim, index: Tensor, src=None, value=None, reduce: str | None = None) -> Tensor:
  return self.update(scatter(self, dim, index, src, value, reduce))
def scatter_add(self: Tensor, dim, index: Tensor, src: Tensor) -> Tensor:
  return self.scatter(dim, index, src, reduce="add")
def scatter_add_(self: Tensor, dim, index: Tensor, src: Tensor) -> Tensor:
  return self.update(scatter_add(self, dim, index, src))

def index_add_(self: Tensor, dim, index: Tensor, source: Tensor, alpha=1) -> Tensor:
  at = axis_of(dim, self.ndim)
  spread = index.reshape((-1,) + (1,) * (self.ndim - at - 1)).expand(source.shape)
  return scatter_add_(self, at, spread, source * alpha)
def index_copy_(self: Tensor, dim, index: Tensor, source: Tensor) -> Tensor:
  self[(slice(None),) * axis_of(dim, self.ndim) + (index,)] = source
  return self
