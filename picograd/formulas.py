# formulas.py: torch's arithmetic in the ops of the first bank. In: UOps of equal shape and dtype (tensor.py promotes
# and broadcasts). Out: one UOp. Formulas are written so that value and derivative by the chain rule are both accurate.
from __future__ import annotations
import functools, math
from typing import Callable, Sequence
from picograd.dtype import DType, dtypes
from picograd.ops.ops import Ops
from picograd.ops.shape import Shape
from picograd.ops.uop import UOp

Formula = Callable[..., UOp]
HALVES = (dtypes.float16, dtypes.bfloat16)

# ---- shapes and dtypes of operands -----------------------------------------------------------------------------------

def stretch(u: UOp, shape: Shape) -> UOp:
  """u repeated to a shape it broadcasts to."""
  if u.shape == shape: return u
  return u.reshape((1,) * (len(shape) - len(u.shape)) + u.shape).expand(shape)

def convert(u: UOp, dtype: DType) -> UOp:
  """u in another dtype; a number becomes True unless it is zero."""
  if dtype is dtypes.bool and u.dtype is not dtypes.bool: return u.ne(0)
  return u.cast(dtype)

def accumulator(dtype: DType) -> DType:
  """The type in which many values of dtype are added up."""
  return dtypes.float32 if dtype in HALVES else dtype

def in_float32(formula: Formula) -> Formula:
  """The formula, computed in float32 for 16-bit floats and rounded once."""
  @functools.wraps(formula)
  def wide(x: UOp, *rest: UOp) -> UOp:
    if x.dtype not in HALVES: return formula(x, *rest)
    return formula(x.cast(dtypes.float32), *(r.cast(dtypes.float32) for r in rest)).cast(x.dtype)
  return wide

def detach(u: UOp) -> UOp: return UOp(Ops.DETACH, u.dtype, (u,))
def never(u: UOp) -> UOp: return UOp.const(dtypes.bool, False).spread(u.shape)
def iota_along(shape: Shape, axis: int, dtype: DType = dtypes.int32) -> UOp:
  """The position along one axis, in a shape."""
  line = UOp.iota(shape[axis], dtype)
  return stretch(line.reshape((shape[axis],) + (1,) * (len(shape) - axis - 1)), shape)

# ---- comparisons -----------------------------------------------------------------------------------------------------

def is_nan(x: UOp) -> UOp: return x.ne(x) if x.dtype.is_floating_point else never(x)
def is_inf(x: UOp) -> UOp:
  if not x.dtype.is_floating_point: return never(x)
  return x.eq(math.inf) | x.eq(-math.inf)
def less_equal(x: UOp, y: UOp) -> UOp:
  """x <= y; for floats not the negation of x > y, because of NaN."""
  return (x < y) | x.eq(y) if x.dtype.is_floating_point else (y < x).not_()

# ---- arithmetic ------------------------------------------------------------------------------------------------------

def add(x: UOp, y: UOp) -> UOp: return x | y if x.dtype is dtypes.bool else x + y
def multiply(x: UOp, y: UOp) -> UOp: return x & y if x.dtype is dtypes.bool else x * y
def negate(x: UOp) -> UOp: return -x
def maximum(x: UOp, y: UOp) -> UOp: return x | y if x.dtype is dtypes.bool else x.maximum(y)
def minimum(x: UOp, y: UOp) -> UOp:
  if x.dtype is dtypes.bool: return x & y
  if x.dtype.is_int: return ((x ^ -1).maximum(y ^ -1)) ^ -1                     # min(x,y) = ~max(~x,~y)
  return -((-x).maximum(-y))                                                   # min(x,y) = -max(-x,-y)
def absolute(x: UOp) -> UOp: return x if x.dtype.is_unsigned else x.maximum(-x)
def magnitude(x: UOp) -> UOp:
  """|x| with derivative 1 at zero: for formulas that are smooth there."""
  return (x < 0).where(-x, x)
def sign(x: UOp) -> UOp:
  if x.dtype is dtypes.bool: return x
  return (x > 0).where(x.like(1), 0 if x.dtype.is_unsigned else (x < 0).where(x.like(-1), 0))

def floor_divide(x: UOp, y: UOp) -> UOp:
  """The quotient rounded down."""
  if x.dtype.is_floating_point: return floor(x / y)
  if x.dtype.is_unsigned: return x // y
  return (opposite_remainder(x, y)).where(x // y - 1, x // y)                  # floor = trunc - 1 where signs differ

def remainder(x: UOp, y: UOp) -> UOp:
  """x - floor(x/y)*y: the divisor's sign."""
  if x.dtype.is_floating_point: return x - floor(x / y) * y
  if x.dtype.is_unsigned: return x % y
  return (opposite_remainder(x, y)).where(x % y + y, x % y)

def opposite_remainder(x: UOp, y: UOp) -> UOp:
  """Whether C's remainder is not zero and has not the divisor's sign."""
  r = x % y
  return r.ne(0) & (r ^ y < 0)

def fmod(x: UOp, y: UOp) -> UOp: return x - trunc(x / y) * y if x.dtype.is_floating_point else x % y

# ---- rounding: through an integer, below the size from which on every float is integral ------------------------------

def rounded(x: UOp, nearest: Callable[[UOp, UOp], UOp]) -> UOp:
  """nearest(x, trunc(x)), where x is small enough to have a fraction; else x itself (also for inf and NaN)."""
  if not x.dtype.is_floating_point: return x
  wide = x.cast(accumulator(x.dtype))
  whole, limit = (dtypes.int64, 2.0**52) if wide.dtype is dtypes.float64 else (dtypes.int32, 2.0**23)
  small = absolute(wide) < limit
  inside = small.where(wide, 0)
  return small.where(nearest(inside, inside.cast(whole).cast(wide.dtype)), wide).cast(x.dtype)

def trunc(x: UOp) -> UOp: return rounded(x, lambda x, t: t)
def floor(x: UOp) -> UOp: return rounded(x, lambda x, t: (x < t).where(t - 1, t))
def ceil(x: UOp) -> UOp: return rounded(x, lambda x, t: (t < x).where(t + 1, t))
def round_half_even(x: UOp) -> UOp: return rounded(x, nearest_even)
def nearest_even(x: UOp, t: UOp) -> UOp:
  """t = trunc(x) moved away from zero where the fraction is above a half, or a half and t is odd."""
  fraction = absolute(x - t)
  odd = (t * 0.5).ne((t * 0.5).cast(dtypes.int64).cast(t.dtype))
  away = t + (x < 0).where(t.like(-1), t.like(1))
  return ((fraction > 0.5) | (fraction.eq(0.5) & odd)).where(away, t)

# ---- powers, exponentials, logarithms --------------------------------------------------------------------------------

def scaled_exp2(x: UOp) -> UOp: return (x * (1 / math.log(2))).alu(Ops.EXP2)     # e^x = 2^(x / ln 2)
exp = in_float32(scaled_exp2)
exp2 = in_float32(lambda x: x.alu(Ops.EXP2))
log2 = in_float32(lambda x: x.alu(Ops.LOG2))
log = in_float32(lambda x: x.alu(Ops.LOG2) * math.log(2))
log10 = in_float32(lambda x: x.alu(Ops.LOG2) * math.log10(2))
sqrt = in_float32(lambda x: x.alu(Ops.SQRT))
rsqrt = in_float32(lambda x: x.like(1) / x.alu(Ops.SQRT))
reciprocal = in_float32(lambda x: x.like(1) / x)

def polynomial(x: UOp, coefficients: Sequence[float]) -> UOp:
  """Horner's scheme, highest power first."""
  total = x.like(coefficients[0])
  for c in coefficients[1:]: total = total * x + c
  return total

@in_float32
def log1p(x: UOp) -> UOp:
  """log(1+x) = 2 artanh(s), s = x/(2+x), as a series near zero."""
  near = absolute(x) < 0.25
  small = near.where(x, 0)
  s = small / (small + 2)
  series = polynomial(s * s, [2 / n for n in range(19, 0, -2)]) * s
  return near.where(series, (x + 1).alu(Ops.LOG2) * math.log(2))

@in_float32
def expm1(x: UOp) -> UOp:
  """exp(x)-1 = 2t/(1-t), t = tanh(x/2), near zero."""
  near = absolute(x) < 1
  t = tanh(near.where(x, 0) * 0.5)
  return near.where(t * 2 / (1 - t), scaled_exp2(x) - 1)

# Cephes' tanh near zero: x + x^3 P(x^2) / Q(x^2)
TANH_P = (-9.64399179425052238628e-1, -9.92877231001918586564e1, -1.61468768441708447952e3)
TANH_Q = (1.0, 1.12811678491632931402e2, 2.23548839060100448583e3, 4.84406305325125486048e3)

@in_float32
def tanh(x: UOp) -> UOp:
  """A rational function near zero; else sign(x) (1-e)/(1+e), e = exp(-2|x|), which cannot overflow."""
  near = absolute(x) < 0.625
  small = near.where(x, 0)
  z = small * small
  centre = small + small * z * (polynomial(z, TANH_P) / polynomial(z, TANH_Q))
  e = scaled_exp2(magnitude(x) * -2)
  tail = (1 - e) / (1 + e)
  return near.where(centre, (x < 0).where(-tail, tail))

@in_float32
def sigmoid(x: UOp) -> UOp:
  """1/(1+e) or e/(1+e), e = exp(-|x|): neither the value nor the derivative overflows."""
  e = scaled_exp2(-magnitude(x))
  return (x < 0).where(e, e.like(1)) / (1 + e)

sinh = in_float32(lambda x: (expm1(x) - expm1(-x)) * 0.5)
cosh = in_float32(lambda x: (scaled_exp2(x) + scaled_exp2(-x)) * 0.5)

# Minimax polynomials of N. Juffa's erff: below 0.93 erf(x) = x + x P(x^2), above 1 - exp(t Q(t) - t) with t = |x|
ERF_P = (-5.96761703e-4, 4.99119423e-3, -2.67681349e-2, 1.12819925e-1, -3.76125336e-1, 1.28379166e-1)
ERF_Q = (-1.72853470e-5, 3.83197126e-4, -3.88396438e-3, 2.42546219e-2, -1.06777877e-1, -6.34846687e-1, -1.28717512e-1)

@in_float32
def erf(x: UOp) -> UOp:
  """Within 1e-7; 1 from 6 on, where the derivative is zero."""
  near = absolute(x) < 0.927734375
  small = near.where(x, 0)
  centre = small + small * polynomial(small * small, ERF_P)
  t = magnitude(near.where(x.like(1), x))
  t = (t > 6).where(6, t)
  outside = 1 - scaled_exp2(t * polynomial(t, ERF_Q) - t)
  return near.where(centre, (x < 0).where(-outside, outside))

# ---- trigonometry ----------------------------------------------------------------------------------------------------

sin = in_float32(lambda x: x.alu(Ops.SIN))

@in_float32
def cos(x: UOp) -> UOp:
  """1 - 2 sin(x/2)^2: the argument needs no rounding."""
  half = (x * 0.5).alu(Ops.SIN)
  return 1 - half * half * 2

tan = in_float32(lambda x: x.alu(Ops.SIN) / cos(x))

def arctan_series(z: UOp) -> UOp:
  """arctan(s)/s of z = s^2, for |s| <= tan(pi/16) after two halvings."""
  return polynomial(z, [(-1)**n / (2 * n + 1) for n in range(11, -1, -1)])

@in_float32
def atan(x: UOp) -> UOp:
  """arctan x = pi/2 - arctan 1/x beyond 1, and arctan x = 2 arctan(x / (1 + sqrt(1+x^2))), twice."""
  m = magnitude(x)
  beyond = m > 1
  inside = beyond.where(m.like(1) / beyond.where(m, 1), m)
  half = inside / ((inside * inside + 1).alu(Ops.SQRT) + 1)
  s = half / ((half * half + 1).alu(Ops.SQRT) + 1)
  angle = arctan_series(s * s) * s * 4
  angle = beyond.where(math.pi / 2 - angle, angle)
  return (x < 0).where(-angle, angle)

asin = in_float32(lambda x: atan(x / (1 - x * x).alu(Ops.SQRT)))
acos = in_float32(lambda x: math.pi / 2 - asin(x))

@in_float32
def atan2(y: UOp, x: UOp) -> UOp:
  """The angle of the point (x, y)."""
  origin = x.eq(0) & y.eq(0)
  angle = atan(y / origin.where(x.like(1), x))
  turn = (y < 0).where(x.like(-math.pi), x.like(math.pi))
  return (x < 0).where(angle + turn, angle)

# ---- powers ----------------------------------------------------------------------------------------------------------

def power_of(x: UOp, n: int) -> UOp:
  """x^n for n > 0 by repeated squaring."""
  result, square = None, x
  while n:
    if n & 1: result = square if result is None else result * square
    n >>= 1
    if n: square = square * square
  assert result is not None
  return result

def needs_no_logarithm(y: float) -> bool: return y in (0.5, -0.5) or (y == int(y) and abs(y) <= 64)
def power_const(x: UOp, y: float) -> UOp:
  """x^y for a number y that needs no logarithm."""
  if y == 0: return never(x).where(x, x.like(1))                              # 1, and a derivative of zero
  whole = x.alu(Ops.SQRT) if abs(y) == 0.5 else power_of(x, abs(int(y)))
  return whole if y > 0 else x.like(1) / whole

@in_float32
def power(x: UOp, y: UOp) -> UOp:
  """2^(y log2|x|); a negative x has a power only for whole y, negative where y is odd."""
  zero = x.eq(0)
  size = (y * zero.where(x.like(1), magnitude(x)).alu(Ops.LOG2)).alu(Ops.EXP2)
  whole = trunc(y).eq(y)
  odd = (trunc(y * 0.5) * 2).ne(y)
  signed = (x < 0).where(whole.where(odd.where(-size, size), math.nan), size)
  at_zero = y.eq(0).where(y.like(1), (y < 0).where(y.like(math.inf), y.like(0)))
  return zero.where(detach(at_zero), signed)

def power_int(x: UOp, y: UOp) -> UOp:
  """x^y over integers modulo 2^bits, by the bits of y; a negative power is 0 unless |x| is 1."""
  result, square = x.like(1), x
  for bit in range(y.dtype.bits - (0 if y.dtype.is_unsigned else 1)):
    result = result * ((y >> bit) & 1).ne(0).where(square, 1)
    square = square * square
  if y.dtype.is_unsigned: return result
  unit = x.eq(1) | x.eq(-1)
  return (y < 0).where(unit.where(result, 0), result)

# ---- activations and selection ---------------------------------------------------------------------------------------

def relu(x: UOp) -> UOp:
  """max(x,0) with derivative 0 at zero, NaN kept."""
  return (x > 0).where(x, detach(x).maximum(x.like(0)))

def logical(op: Ops) -> Formula:
  """op of the truth values of both operands."""
  return lambda x, y: convert(x, dtypes.bool).alu(op, convert(y, dtypes.bool))

# ---- reductions: x -> the axes reduced to size 1 ---------------------------------------------------------------------

def sum_over(x: UOp, axes: tuple[int, ...]) -> UOp:
  """The sum; 16-bit floats add up in float32."""
  return x.cast(accumulator(x.dtype)).reduce(Ops.ADD, axes).cast(x.dtype)

def max_over(x: UOp, axes: tuple[int, ...]) -> UOp:
  if x.dtype is dtypes.bool: return x.cast(dtypes.int32).reduce(Ops.MAX, axes).ne(0)
  return x.reduce(Ops.MAX, axes)

def min_over(x: UOp, axes: tuple[int, ...]) -> UOp:
  if x.dtype is dtypes.bool: return max_over(x.not_(), axes).not_()
  if x.dtype.is_int: return (x ^ -1).reduce(Ops.MAX, axes) ^ -1                  # min = ~max(~x)
  return -((-x).reduce(Ops.MAX, axes))

def mean_over(x: UOp, axes: tuple[int, ...], count: float) -> UOp:
  wide = x.cast(accumulator(x.dtype))
  return (wide.reduce(Ops.ADD, axes) / count).cast(x.dtype)

def var_over(x: UOp, axes: tuple[int, ...], count: int, correction: float) -> UOp:
  """Two passes: the mean of squared distances from the mean."""
  wide = x.cast(accumulator(x.dtype))
  centre = mean_over(wide, axes, count)
  distance = wide - centre.expand(wide.shape)
  return mean_over(distance * distance, axes, max(count - correction, 0)).cast(x.dtype)

def arg_max(x: UOp, axis: int) -> UOp:
  """The smallest position of the maximum; NaN counts as the largest. int64."""
  n = x.shape[axis]
  found = x.eq(max_over(x, (axis,)).expand(x.shape)) | is_nan(x)
  from_end = UOp.const(dtypes.int32, n - 1).spread(x.shape) - iota_along(x.shape, axis)
  best = found.where(from_end, 0).reduce(Ops.MAX, (axis,))
  return (n - 1 - best).cast(dtypes.int64)

def shifted(x: UOp, axis: int) -> UOp:
  """x minus its maximum, which carries no gradient because softmax does not depend on it."""
  return x - detach(x.reduce(Ops.MAX, (axis,))).expand(x.shape)

def softmax(x: UOp, axis: int) -> UOp:
  wide = x.cast(accumulator(x.dtype))
  e = scaled_exp2(shifted(wide, axis))
  return (e / e.reduce(Ops.ADD, (axis,)).expand(e.shape)).cast(x.dtype)

def log_softmax(x: UOp, axis: int) -> UOp:
  wide = shifted(x.cast(accumulator(x.dtype)), axis)
  total = scaled_exp2(wide).reduce(Ops.ADD, (axis,))
  return (wide - log(total).expand(wide.shape)).cast(x.dtype)

def log_sum_exp(x: UOp, axes: tuple[int, ...]) -> UOp:
  """log(sum(exp(x - m))) + m, m the maximum where it is finite."""
  wide = x.cast(accumulator(x.dtype))
  top = detach(wide.reduce(Ops.MAX, axes))
  top = is_inf(top).where(0, top)
  total = scaled_exp2(wide - top.expand(wide.shape)).reduce(Ops.ADD, axes)
  return (log(total) + top).cast(x.dtype)

BLOCK = 256          # a scan over more elements than this goes in blocks, then over the blocks' totals

def scan(x: UOp, op: Ops, neutral: float) -> UOp:
  """op over all elements up to each one, along the last axis."""
  *rows, n = x.shape
  if n <= BLOCK: return scan_triangle(x, op, neutral)
  blocks = -(-n // BLOCK)
  widths = ((0, 0),) * len(rows) + ((0, blocks * BLOCK - n),)
  padded = pad_with(x, widths, neutral).reshape((*rows, blocks, BLOCK))
  inside = UOp(Ops.CONTIGUOUS, x.dtype, (scan_triangle(padded, op, neutral),))
  totals = inside.shrink(tuple((0, m) for m in (*rows, blocks)) + ((BLOCK - 1, BLOCK),)).reshape((*rows, blocks))
  through = scan(totals, op, neutral)
  before = pad_with(through.shrink(tuple((0, m) for m in rows) + ((0, blocks - 1),)),
                    ((0, 0),) * len(rows) + ((1, 0),), neutral)
  joined = inside.alu(op, stretch(before.reshape((*rows, blocks, 1)), inside.shape))
  return joined.reshape((*rows, blocks * BLOCK)).shrink(tuple((0, m) for m in rows) + ((0, n),))

def scan_triangle(x: UOp, op: Ops, neutral: float) -> UOp:
  """out[i] = op over j <= i of x[j]."""
  shape = x.shape + x.shape[-1:]                                       # (.., i, j)
  inputs = stretch(x.reshape(x.shape[:-1] + (1,) + x.shape[-1:]), shape)
  past = (iota_along(shape, len(shape) - 2) < iota_along(shape, len(shape) - 1)).not_()
  return past.where(inputs, neutral).reduce(op, (len(shape) - 1,)).reshape(x.shape)

def pad_with(x: UOp, widths: Sequence[tuple[int, int]], value: float) -> UOp:
  """x with `value` around it; a negative width cuts off."""
  cut = tuple((max(0, -lo), n - max(0, -hi)) for n, (lo, hi) in zip(x.shape, widths))
  grow = tuple((max(0, lo), max(0, hi)) for lo, hi in widths)
  x = x.shrink(cut)
  if value == 0 and not math.copysign(1, value) < 0: return x.pad(grow)
  inside = UOp.const(dtypes.bool, True).spread(x.shape).pad(grow)
  return inside.where(x.pad(grow), value)

def triangle(x: UOp, diagonal: int) -> UOp:
  """Where the column is at most the row + diagonal: the lower triangle, in the shape of x."""
  rows, columns = (iota_along(x.shape, len(x.shape) - d, dtypes.int64) for d in (2, 1))
  return (rows + diagonal < columns).not_()
