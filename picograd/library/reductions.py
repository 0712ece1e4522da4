# reductions.py: statistics, norms, the softmax family and running sums. Formulas take (UOp, axes) and keep the axes
# with size 1; 16-bit floats are added up in float32.
from __future__ import annotations
import math
from picograd.arithmetic import Axes, accumulator, convert, detach, in_float32, iota_along, mean_over, stored, stretch
from picograd.common import axes_of, axis_of, for_sums
from picograd.dtype import DType
from picograd.helpers import ceildiv, prod
from picograd.indexing import after_last, before_last, over_last
from picograd.library.formulas import is_inf, log, rsqrt, scaled_exp2, with_slope
from picograd.library.movement import pad_with
from picograd.ops.ops import Ops
from picograd.ops.uop import UOp
from picograd.tensor import Tensor, float_dtype, result, where

def var_over(x: UOp, axes: Axes, count: int, correction: float) -> UOp:
  """Two passes: the mean of squared distances from the mean."""
  wide = x.cast(accumulator(x.dtype))
  mean = mean_over(wide, axes, count)
  distance = wide - mean.expand(wide.shape)
  freedom = max(count - correction, 0)
  return mean_over(distance * distance, axes, freedom).cast(x.dtype)

def standardised(x: UOp, axes: Axes, eps: float) -> UOp:
  """x with mean 0 and variance 1 over axes."""
  count = prod(x.shape[a] for a in axes)
  centred = x - mean_over(x, axes, count).expand(x.shape)
  scale = rsqrt(mean_over(centred * centred, axes, count) + eps)
  return with_slope("standardised", centred * scale.expand(x.shape), x, axes, (UOp.const(x.dtype, eps),))

def var(self: Tensor, dim=None, unbiased=True, keepdim=False, correction=None) -> Tensor:
  """The mean squared distance from the mean, over n - correction (1 by default)."""
  self.floats("var")
  if isinstance(dim, bool):
    dim, unbiased = None, dim
  if correction is None: correction = 1 if unbiased else 0
  count = prod(self.sizes[a] for a in axes_of(dim, self.ndim))
  return self.over(lambda x, axes: var_over(x, axes, count, correction), dim, keepdim)
def std(self: Tensor, dim=None, unbiased=True, keepdim=False, correction=None) -> Tensor:
  return var(self, dim, unbiased, keepdim, correction).sqrt()

def count_nonzero(self: Tensor, dim=None) -> Tensor:
  return self.ne(0).sum(dim)

@in_float32
def root(x: UOp) -> UOp:
  """sqrt(x) with derivative 0 at zero."""
  zero = x.eq(0)
  safe = zero.where(1, x)
  return zero.where(0, safe.alu(Ops.SQRT))

def norm(self: Tensor, p=2, dim=None, keepdim=False) -> Tensor:
  """(sum |x|^p)^(1/p); the largest or smallest |x| for p = inf or -inf."""
  self.floats("norm")
  if p in ("fro", 2):
    return (self * self).sum(dim, keepdim).map(root)
  if isinstance(p, str): raise RuntimeError(f"norm of order {p!r}: 'fro' or a number is expected; see linalg.norm")
  if p == 0: return self.ne(0).cast(self.dtype).sum(dim, keepdim)
  size = self.abs()
  if p == 1: return size.sum(dim, keepdim)
  if math.isinf(p): return size.amax(dim, keepdim) if p > 0 else size.amin(dim, keepdim)
  zero = self == 0                                                     # where a power has no derivative
  powers = where(zero, 0.0 if p > 0 else math.inf, where(zero, 1.0, size) ** p)
  total = powers.sum(dim, keepdim)
  return where(total == 0, 0.0, where(total == 0, 1.0, total) ** (1 / p))

# ---- softmax ---------------------------------------------------------------------------------------------------------

def shifted(x: UOp, axis: int) -> UOp:
  """x minus its maximum, which carries no gradient because softmax does not depend on it."""
  top = detach(x.reduce(Ops.MAX, (axis,)))
  return x - top.expand(x.shape)

def softmax_along(x: UOp, axis: int) -> UOp:
  wide = shifted(x.cast(accumulator(x.dtype)), axis)
  e = scaled_exp2(wide)
  total = e.reduce(Ops.ADD, (axis,))
  value = e * (total.like(1) / total).expand(e.shape)                            # one division a row
  return with_slope("softmax", value.cast(x.dtype), x, (axis,))

def log_softmax_along(x: UOp, axis: int) -> UOp:
  wide = shifted(x.cast(accumulator(x.dtype)), axis)
  total = scaled_exp2(wide).reduce(Ops.ADD, (axis,))
  out = wide - log(total).expand(wide.shape)
  return out.cast(x.dtype)

def along(x: Tensor, formula, dim, dtype: DType | None) -> Tensor:
  """formula along one dimension of floats; a scalar counts as a vector of one."""
  line = for_sums(x)[0] if dtype is None else x.cast(dtype)
  if not x.ndim: line = line.reshape(1)
  axis = axis_of(dim, x.ndim)
  out = line.map_float(lambda u: formula(u, axis))
  return out if x.ndim else out.reshape(())
def softmax(self: Tensor, dim=-1, dtype: DType | None = None) -> Tensor:
  return along(self, softmax_along, dim, dtype)
def log_softmax(self: Tensor, dim=-1, dtype: DType | None = None) -> Tensor:
  return along(self, log_softmax_along, dim, dtype)

def log_sum_exp(x: UOp, axes: Axes) -> UOp:
  """log(sum(exp(x - m))) + m, m the maximum where it is finite."""
  wide = x.cast(accumulator(x.dtype))
  top = detach(wide.reduce(Ops.MAX, axes))
  top = is_inf(top).where(0, top)
  e = scaled_exp2(wide - top.expand(wide.shape))
  total = e.reduce(Ops.ADD, axes)
  return with_slope("logsumexp", (log(total) + top).cast(x.dtype), x)
def logsumexp(self: Tensor, dim, keepdim=False) -> Tensor:
  return self.cast(float_dtype(self.dtype, self)).over(log_sum_exp, dim, keepdim)

# ---- scans -----------------------------------------------------------------------------------------------------------

BLOCK = 256          # a scan over more elements than this goes in blocks, then over the blocks' totals

def scan(x: UOp, op: Ops, neutral: float) -> UOp:
  """op over all elements up to each one, along the last axis."""
  *rows, n = x.shape
  if n <= BLOCK: return scan_triangle(x, op, neutral)
  blocks = ceildiv(n, BLOCK)
  missing = blocks * BLOCK - n
  padded = pad_last(x, 0, missing, neutral)
  inside = stored(scan_triangle(padded.reshape((*rows, blocks, BLOCK)), op, neutral))
  totals = pad_last(inside, 1 - BLOCK, 0, neutral).reshape((*rows, blocks))
  before = pad_last(scan(totals, op, neutral), 1, -1, neutral)
  earlier = stretch(after_last(before), inside.shape)
  joined = inside.alu(op, earlier)
  return pad_last(joined.reshape(padded.shape), 0, -missing, neutral)

def pad_last(x: UOp, before: int, after: int, value: float) -> UOp:
  """The last axis longer, or shorter where a width is negative."""
  widths = [(0, 0)] * len(x.shape)
  widths[-1] = (before, after)
  return pad_with(x, widths, value)

def scan_triangle(x: UOp, op: Ops, neutral: float) -> UOp:
  """out[i] = op over j <= i of x[j]."""
  shape = x.shape + x.shape[-1:]                                       # (.., i, j)
  later = iota_along(shape, -2) < iota_along(shape, -1)
  inputs = stretch(before_last(x), shape)
  return over_last(later.where(neutral, inputs), op)

def scanned(x: Tensor, dim, op: Ops, neutral: float, dtype: DType | None) -> Tensor:
  wide = dtype or x.total_dtype()
  source = convert(x.uop, wide)
  if not x.ndim: return result(source, x)
  axis = axis_of(dim, x.ndim)
  line = source.cast(accumulator(wide)).movedim(axis, -1)
  return result(scan(line, op, neutral).movedim(-1, axis).cast(wide), x)
def cumsum(self: Tensor, dim, dtype: DType | None = None) -> Tensor:
  return scanned(self, dim, Ops.ADD, 0, dtype)
def cumprod(self: Tensor, dim, dtype: DType | None = None) -> Tensor:
  return scanned(self, dim, Ops.MUL, 1, dtype)
