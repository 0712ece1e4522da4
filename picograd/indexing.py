# indexing.py: selecting by position. In: what stands between the brackets, or index tensors as UOps. Out: movement
# steps for ints, slices, None and Ellipsis (a view), one-hot formulas for everything else. A gather is
#   sum over n of where(n == index, x[n], 0)
# which the index rules collapse into a load.
from __future__ import annotations
from typing import Any, NamedTuple, Sequence
from picograd.arithmetic import iota_along, less_equal, stretch
from picograd.dtype import dtypes
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
  view = Basic(strided_steps(shape, spans), [], [], [])
  dim = 0
  for entry in index:
    if entry is None:
      view.shape.append(1)
      view.strides.append(shape[dim] * strides[dim] if dim < len(shape) else 1)
      continue
    if isinstance(entry, slice):
      if spans[dim].step < 0:
        view.flips.append(len(view.shape))
      view.shape.append(spans[dim].length)
      view.strides.append(strides[dim] * abs(spans[dim].step))
    dim += 1
  if view.shape != [s.length for s in spans]:
    view.steps.append((Ops.RESHAPE, tuple(view.shape)))
  return view

class Span(NamedTuple):
  """length elements, every |step|-th from the lowest; a negative step reads them backwards."""
  low: int
  length: int
  step: int

def span(entry, dim: int, n: int) -> Span:
  if not isinstance(entry, slice):
    i = int(entry)
    if not -n <= i < n:
      raise index_error(i, dim, n)
    return Span(i % n, 1, 1)
  if entry.step == 0: raise ValueError("slice step cannot be zero")
  bounds = [None if b is None else int(b) for b in (entry.start, entry.stop, entry.step)]
  r = range(n)[slice(*bounds)]
  return Span(min(r[0], r[-1]) if len(r) else 0, len(r), r.step)

def strided_steps(shape: Shape, spans: Sequence[Span]) -> list[Step]:
  """Steps that leave of each dimension its span. Every s-th element is column 0 of the rows of length s."""
  strides = [abs(s.step) if s.length > 1 else 1 for s in spans]
  lengths = tuple(s.length for s in spans)
  wanted = [n * step for n, step in zip(lengths, strides)]
  bounds = tuple((s.low, min(n, s.low + m)) for s, n, m in zip(spans, shape, wanted))
  steps: list[Step] = []
  if bounds != tuple((0, n) for n in shape):
    steps.append((Ops.SHRINK, bounds))
  if all(step == 1 for step in strides): return steps
  missing = tuple((0, m - (high - low)) for m, (low, high) in zip(wanted, bounds))
  if any(high for _, high in missing):
    steps.append((Ops.PAD, missing))
  rows = tuple(m for pair in zip(lengths, strides) for m in pair)
  columns = tuple(b for n in lengths for b in ((0, n), (0, 1)))
  return steps + [(Ops.RESHAPE, rows), (Ops.SHRINK, columns), (Ops.RESHAPE, lengths)]

# ---- index tensors ---------------------------------------------------------------------------------------------------

def from_start(index: UOp, n: int) -> UOp:
  """index with negative positions counted from the end."""
  return (index < 0).where(index + n, index)

def outside(index: UOp, n: int) -> UOp:
  return (index < -n) | less_equal(index.like(n), index)

def linear_index(indices: Sequence[UOp], sizes: Sequence[int]) -> UOp:
  """The position in row-major order that several indices name together."""
  position = indices[0]
  for index, n in zip(indices[1:], sizes[1:]):
    position = position * n + index
  return position

def flat_rows(x: UOp, axes: int) -> UOp:
  """The first axes of x as one."""
  return x.reshape((prod(x.shape[:axes]),) + x.shape[axes:])

def before_last(x: UOp) -> UOp:
  """x with an axis of size 1 before its last."""
  return x.reshape(x.shape[:-1] + (1,) + x.shape[-1:])

def after_last(x: UOp) -> UOp:
  """x with an axis of size 1 after its last."""
  return x.reshape(x.shape + (1,))

def over_last(x: UOp, op: Ops) -> UOp:
  """op over the last axis, which goes."""
  last = len(x.shape) - 1
  return x.reduce(op, (last,)).reshape(x.shape[:-1])

def take(x: UOp, index: UOp) -> UOp:
  """out[b.., r..] = x[index[b..], r..]: the sum over n of where(n == index, x[n], 0)."""
  if x.dtype is dtypes.bool: return take(x.cast(dtypes.uint8), index).ne(0)
  n, rest = x.shape[0], x.shape[1:]
  shape = index.shape + (n,) + rest
  at = len(index.shape)
  here = index.reshape(index.shape + (1,) * (1 + len(rest)))
  chosen = iota_along(shape, at, index.dtype).eq(stretch(here, shape))
  found = chosen.where(stretch(x, shape), 0).reduce(Ops.ADD, (at,))
  return found.reshape(index.shape + rest)

def take_along(x: UOp, index: UOp) -> UOp:
  """out[.., k] = x[.., index[.., k]] for equal leading dimensions."""
  if x.dtype is dtypes.bool:
    return take_along(x.cast(dtypes.uint8), index).ne(0)
  shape = index.shape + x.shape[-1:]                                   # (.., k, n)
  here = stretch(after_last(index), shape)
  chosen = iota_along(shape, -1, index.dtype).eq(here)
  source = stretch(before_last(x), shape)
  return over_last(chosen.where(source, 0), Ops.ADD)

# ---- one axis of several ---------------------------------------------------------------------------------------------

def gather_axis(x: UOp, axis: int, index: UOp) -> UOp:
  """out[.., k, ..] = x[.., index[.., k, ..], ..] along one axis; index may be shorter along the others."""
  part = x.shrink(touched(x.shape, index.shape, axis))
  return take_along(part.movedim(axis, -1), index.movedim(axis, -1)).movedim(-1, axis)

def touched(shape: Shape, index_shape: Shape, axis: int) -> tuple[tuple[int, int], ...]:
  """The part of a shape that an index along one axis can name."""
  sizes = list(index_shape)
  sizes[axis] = shape[axis]
  return tuple((0, n) for n in sizes)
