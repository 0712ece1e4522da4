# selecting.py: elements at positions that a tensor names, and values put or added up there.
from __future__ import annotations
from typing import Any
import numpy as np
from picograd import indexing
from picograd.arithmetic import convert, stretch
from picograd.common import axis_of
from picograd.dtype import dtypes
from picograd.helpers import prod
from picograd.indexing import axis_back, before_last, last_axis
from picograd.ops.ops import Ops
from picograd.ops.shape import broadcast
from picograd.ops.uop import UOp
from picograd.storage import merged
from picograd.tensor import Tensor, checked_index, full, positions, result, tensor, zeros
from picograd.library.joining import stack

def index_select(self: Tensor, dim, index: Tensor) -> Tensor:
  return self.gather_at([axis_of(dim, self.ndim)], [index])

def masked_select(self: Tensor, mask: Tensor) -> Tensor:
  shape = broadcast(self.uop.shape, mask.uop.shape)
  return self.expand(shape)[mask.expand(shape)]

def nonzero(self: Tensor, as_tuple=False) -> Any:
  """The positions of elements that are not zero: a row each, or a tensor per dimension."""
  columns = positions(self)
  if as_tuple: return columns
  return stack(columns, 1) if columns else zeros(1 if self else 0, 0, dtype=dtypes.int64)

def unique(self: Tensor, sorted=True, return_inverse=False, return_counts=False) -> Any:
  """The different elements in ascending order; the number of them has to be known, so this computes."""
  values, inverse, counts = np.unique(self.host(), return_inverse=True, return_counts=True)
  out = [tensor(values, dtype=self.dtype, device=self.device)]
  if return_inverse: out.append(tensor(inverse.reshape(self.shape), device=self.device))
  if return_counts: out.append(tensor(counts, device=self.device))
  return tuple(out) if len(out) > 1 else out[0]

# ---- scatter ---------------------------------------------------------------------------------------------------------

ADD, MULTIPLY = (Ops.ADD, 0), (Ops.MUL, 1)           # an operation and the value that changes nothing
COMBINE = {"add": ADD, "sum": ADD, "multiply": MULTIPLY, "prod": MULTIPLY}

def put_along(x: UOp, index: UOp, values: UOp) -> UOp:
  """x with x[row, index[row, k]] = values[row, k]; of several values for one place the last counts."""
  last = indexing.last_writer(index, x.shape[1])
  return last.ne(0).where(indexing.take_along(values, last - 1), x)

def combine_along(x: UOp, index: UOp, values: UOp, op: Ops, neutral: float) -> UOp:
  """x[row, place] combined by op with every values[row, k] where index[row, k] == place."""
  hit = indexing.hits(index, x.shape[1])                               # (rows, n, k)
  candidates = stretch(before_last(values), hit.shape)
  return x.alu(op, hit.where(candidates, neutral).reduce(op, (2,)).reshape(x.shape))

def scatter(self: Tensor, dim, index: Tensor, src=None, value=None,
            reduce: str | None = None) -> Tensor:
  """Myself with [.., index[.., k, ..], ..] replaced by src[.., k, ..]; reduce='add' or 'multiply' combines them."""
  axis, x = axis_of(dim, self.ndim), self.uop
  place = checked_index(index, x.shape[axis], axis)
  if 0 in place.shape: return self.clone()
  if src is None: src = value
  if not isinstance(src, Tensor): src = full(index.shape, src, dtype=self.dtype, device=self.device)
  values = convert(src.uop, self.dtype).shrink(tuple((0, n) for n in place.shape))
  touched = tuple((0, n if d == axis else m) for d, (n, m) in enumerate(zip(x.shape, place.shape)))
  part = last_axis(x.shrink(touched), axis)
  rows = prod(part.shape[:-1])
  operands = [u.reshape((rows, u.shape[-1])) for u in (part, last_axis(place, axis), last_axis(values, axis))]
  new = put_along(*operands) if reduce is None else combine_along(*operands, *COMBINE[reduce])
  whole = touched == tuple((0, n) for n in x.shape)
  steps = () if whole else ((Ops.SHRINK, touched),)
  return result(merged(x, steps, axis_back(new.reshape(part.shape), axis)), self, src)

def scatter_(self: Tensor, dim, index: Tensor, src=None, value=None,
             reduce: str | None = None) -> Tensor:
  return self.update(self.scatter(dim, index, src, value, reduce))
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
