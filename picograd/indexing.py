# indexing.py: selecting by position. In: what stands between the brackets, or index tensors as UOps. Out: movement
# steps for ints, slices, None and Ellipsis (a view), one-hot formulas for everything else. A gather is
#   sum over n of where(n == index, x[n], 0)
# which the index rules collapse into a load. Sorting is by rank: how many elements come before each one.
from __future__ import annotations
from typing import Any, NamedTuple, Sequence
from picograd.dtype import dtypes
from picograd.formulas import iota_along, is_nan, less_equal, stretch
from picograd.helpers import prod
from picograd.ops.ops import Ops
from picograd.ops.shape import Shape
from picograd.ops.uop import UOp
from picograd.storage import Step

# ---- basic indexing: a view ------------------------------------------------------------------------------------------

class Basic(NamedTuple):
  """What a basic index does to a tensor: steps of a view, its shape and strides, and the axes that run backwards."""
  steps: list[Step]
  shape: list[int]
  strides: list[int]
  flips: list[int]

def index_error(i: int, dim: int, n: int) -> IndexError:
  return IndexError(f"index {i} is out of bounds for dimension {dim} with size {n}")

def basic_index(shape: Shape, strides: Sequence[int], index: Sequence[Any]) -> Basic:
  """The view that an index of ints, slices and None selects; it has one entry per dimension, besides the Nones."""
  entries = [i for i in index if i is not None]
  assert len(entries) == len(shape), "one entry per dimension"
  spans = [span(entry, dim, n) for dim, (entry, n) in enumerate(zip(entries, shape))]
  steps = strided_steps(shape, spans)
  view = Basic(steps, [], [], [])
  dim = 0
  for entry in index:
    if entry is None:
      view.shape.append(1)
      view.strides.append(shape[dim] * strides[dim] if dim < len(shape) else 1)
      continue
    if isinstance(entry, slice):
      if spans[dim].step < 0: view.flips.append(len(view.shape))
      view.shape.append(spans[dim].length)
      view.strides.append(strides[dim] * abs(spans[dim].step))
    dim += 1
  if tuple(view.shape) != tuple(s.length for s in spans): steps.append((Ops.RESHAPE, tuple(view.shape)))
  return view

class Span(NamedTuple):
  """length elements, every |step|-th from the lowest; a negative step reads them backwards."""
  low: int
  length: int
  step: int

def span(entry: Any, dim: int, n: int) -> Span:
  if isinstance(entry, slice):
    if entry.step == 0: raise ValueError("slice step cannot be zero")
    r = range(n)[slice(*(None if b is None else int(b) for b in (entry.start, entry.stop, entry.step)))]
    return Span(min(r[0], r[-1]) if len(r) else 0, len(r), r.step)
  i = int(entry)
  if not -n <= i < n: raise index_error(i, dim, n)
  return Span(i % n, 1, 1)

def strided_steps(shape: Shape, spans: Sequence[Span]) -> list[Step]:
  """Steps that leave of each dimension its span. Every s-th element is column 0 of the rows of length s."""
  steps: list[Step] = []
  strides = [abs(s.step) if s.length > 1 else 1 for s in spans]
  bounds = tuple((s.low, min(n, s.low + s.length * step)) for s, n, step in zip(spans, shape, strides))
  if bounds != tuple((0, n) for n in shape): steps.append((Ops.SHRINK, bounds))
  if all(step == 1 for step in strides): return steps
  missing = tuple((0, s.length * step - (hi - lo)) for s, step, (lo, hi) in zip(spans, strides, bounds))
  if any(hi for _, hi in missing): steps.append((Ops.PAD, missing))
  rows = tuple(m for s, step in zip(spans, strides) for m in (s.length, step))
  columns = tuple(b for s, step in zip(spans, strides) for b in ((0, s.length), (0, 1)))
  return steps + [(Ops.RESHAPE, rows), (Ops.SHRINK, columns), (Ops.RESHAPE, tuple(s.length for s in spans))]

# ---- index tensors ---------------------------------------------------------------------------------------------------

def from_start(index: UOp, n: int) -> UOp:
  """index with negative positions counted from the end."""
  return (index < 0).where(index + n, index)

def linear_index(indices: Sequence[UOp], sizes: Sequence[int]) -> UOp:
  """The position in row-major order that several indices name together."""
  position = indices[0]
  for index, n in zip(indices[1:], sizes[1:]): position = position * n + index
  return position

def take(x: UOp, index: UOp) -> UOp:
  """out[b.., r..] = x[index[b..], r..]: the sum over n of where(n == index, x[n], 0)."""
  if x.dtype is dtypes.bool: return take(x.cast(dtypes.uint8), index).ne(0)
  n, rest = x.shape[0], x.shape[1:]
  shape = index.shape + (n,) + rest
  at = len(index.shape)
  here = stretch(index.reshape(index.shape + (1,) * (1 + len(rest))), shape)
  chosen = iota_along(shape, at, index.dtype).eq(here)
  return chosen.where(stretch(x, shape), 0).reduce(Ops.ADD, (at,)).reshape(index.shape + rest)

def take_along(x: UOp, index: UOp) -> UOp:
  """out[.., k] = x[.., index[.., k]] for equal leading dimensions."""
  if x.dtype is dtypes.bool: return take_along(x.cast(dtypes.uint8), index).ne(0)
  shape = index.shape + x.shape[-1:]                                   # (.., k, n)
  chosen = iota_along(shape, len(shape) - 1, index.dtype).eq(stretch(index.reshape(index.shape + (1,)), shape))
  source = stretch(x.reshape(x.shape[:-1] + (1,) + x.shape[-1:]), shape)
  return chosen.where(source, 0).reduce(Ops.ADD, (len(shape) - 1,)).reshape(index.shape)

def put(x: UOp, index: UOp, values: UOp) -> UOp:
  """x with x[index[b], r..] = values[b, r..]; of several values for one place the last counts."""
  if 0 in index.shape: return x
  n, rest = x.shape[0], x.shape[1:]
  last = last_writer(index.reshape((1,) + index.shape), n).reshape((n,))
  written = stretch(last.ne(0).reshape((n,) + (1,) * len(rest)), x.shape)
  return written.where(take(values, (last - 1)), x)

def last_writer(index: UOp, n: int) -> UOp:
  """For each row and place 0..n-1: one plus the largest k with index[row, k] == place, 0 where there is none."""
  rows, count = index.shape
  shape = (rows, n, count)
  hit = stretch(index.reshape((rows, 1, count)), shape).eq(iota_along(shape, 1, index.dtype))
  return hit.where(iota_along(shape, 2) + 1, 0).reduce(Ops.MAX, (2,)).reshape((rows, n))

def put_along(x: UOp, index: UOp, values: UOp) -> UOp:
  """x with x[row, index[row, k]] = values[row, k]; of several values for one place the last counts."""
  if 0 in index.shape: return x
  last = last_writer(index, x.shape[1])
  return last.ne(0).where(take_along(values, last - 1), x)

def combine_along(x: UOp, index: UOp, values: UOp, op: Ops, neutral: float) -> UOp:
  """x[row, place] combined by op with every values[row, k] where index[row, k] == place."""
  if 0 in index.shape: return x
  shape = x.shape + index.shape[-1:]                                   # (rows, n, k)
  hit = stretch(index.reshape((index.shape[0], 1, index.shape[1])), shape).eq(iota_along(shape, 1, index.dtype))
  candidates = stretch(values.reshape((values.shape[0], 1, values.shape[1])), shape)
  return x.alu(op, hit.where(candidates, neutral).reduce(op, (2,)).reshape(x.shape))

# ---- sorting ---------------------------------------------------------------------------------------------------------

def less(x: UOp, y: UOp) -> UOp:
  """x before y in ascending order; NaN comes last."""
  if x.dtype is dtypes.bool: return x.not_() & y
  return (x < y) | (is_nan(y) & is_nan(x).not_()) if x.dtype.is_floating_point else x < y

def rank(x: UOp, descending: bool) -> UOp:
  """For each element of the last axis its place in sorted order; equal elements keep their order."""
  shape = x.shape + x.shape[-1:]                                       # (.., i, j): does j come before i
  mine = stretch(x.reshape(x.shape + (1,)), shape)
  theirs = stretch(x.reshape(x.shape[:-1] + (1,) + x.shape[-1:]), shape)
  earlier = iota_along(shape, len(shape) - 1) < iota_along(shape, len(shape) - 2)
  first, second = (mine, theirs) if descending else (theirs, mine)
  before = less(first, second) | (less(second, first).not_() & earlier)
  return before.cast(dtypes.int32).reduce(Ops.ADD, (len(shape) - 1,)).reshape(x.shape)

def order(x: UOp, count: int, descending: bool) -> UOp:
  """The positions of the first `count` elements of the last axis in sorted order. int64."""
  place = UOp(Ops.CONTIGUOUS, dtypes.int32, (rank(x, descending),))
  shape = x.shape[:-1] + (count,) + x.shape[-1:]                       # (.., place, i)
  at = stretch(place.reshape(x.shape[:-1] + (1,) + x.shape[-1:]), shape).eq(iota_along(shape, len(shape) - 2))
  found = at.where(iota_along(shape, len(shape) - 1), 0).reduce(Ops.ADD, (len(shape) - 1,))
  return found.reshape(shape[:-1]).cast(dtypes.int64)

# ---- conditions for checks -------------------------------------------------------------------------------------------

def outside(index: UOp, n: int) -> UOp: return (index < -n) | less_equal(index.like(n), index)

def identity_mask(n: int, m: int) -> UOp:
  """True where row == column."""
  return iota_along((n, m), 0).eq(iota_along((n, m), 1))

def flat_rows(x: UOp, axes: int) -> UOp:
  """The first axes of x as one."""
  return x.reshape((prod(x.shape[:axes]),) + x.shape[axes:])
