# arithmetic.py: torch's operators in the ops of the first bank. In: UOps of equal shape and dtype (tensor.py promotes
# and broadcasts). Out: one UOp. Formulas are written so that value and derivative by the chain rule are both accurate.
from __future__ import annotations
import functools, math
from typing import Callable
from picograd.dtype import DType, dtypes
from picograd.ops.ops import Ops, ROUGH
from picograd.ops.shape import Shape
from picograd.ops.uop import UOp, from_memory

Formula = Callable[..., UOp]

# ---- shapes and dtypes of operands -----------------------------------------------------------------------------------

def stretch(u: UOp, shape: Shape) -> UOp:
  """u repeated to a shape it broadcasts to."""
  if u.shape == shape: return u
  ones = (1,) * (len(shape) - len(u.shape))
  return u.reshape(ones + u.shape).expand(shape)

def convert(u: UOp, dtype: DType) -> UOp:
  """u in another dtype; a number becomes True unless it is zero."""
  if dtype is dtypes.bool and u.dtype is not dtypes.bool: return u.ne(0)
  return u.cast(dtype)

def accumulator(dtype: DType) -> DType:
  """The type in which many values of dtype are added up."""
  return dtypes.float32 if dtype in dtypes.halves else dtype

def in_float32(formula: Formula) -> Formula:
  """The formula, computed in float32 for 16-bit floats and rounded once."""
  @functools.wraps(formula)
  def wide(x: UOp, *rest: UOp) -> UOp:
    dtype = accumulator(x.dtype)
    operands = [u.cast(dtype) for u in (x, *rest)]
    return formula(*operands).cast(x.dtype)
  return wide

def detach(u: UOp) -> UOp:
  return UOp(Ops.DETACH, u.dtype, (u,))
def stored(u: UOp) -> UOp:
  return UOp(Ops.CONTIGUOUS, u.dtype, (u,))
def never(u: UOp) -> UOp:
  return UOp.const(dtypes.bool, False).spread(u.shape)

def iota_along(shape: Shape, axis: int, dtype: DType = dtypes.int32) -> UOp:
  """The position along one axis (-1: the last), in a shape."""
  line = UOp.iota(shape[axis], dtype)
  after = (1,) * (-axis - 1 if axis < 0 else len(shape) - axis - 1)
  return stretch(line.reshape((shape[axis],) + after), shape)

# ---- operators -------------------------------------------------------------------------------------------------------

def is_nan(x: UOp) -> UOp:
  return x.ne(x) if x.dtype.is_floating_point else never(x)

def less_equal(x: UOp, y: UOp) -> UOp:
  """x <= y; for floats not the negation of x > y, because of NaN."""
  return (x < y) | x.eq(y) if x.dtype.is_floating_point else (y < x).not_()
def greater_equal(x: UOp, y: UOp) -> UOp:
  return less_equal(y, x)

def add(x: UOp, y: UOp) -> UOp:
  return x | y if x.dtype is dtypes.bool else x + y
def multiply(x: UOp, y: UOp) -> UOp:
  return x & y if x.dtype is dtypes.bool else x * y
def multiply_roughly(x: UOp, y: UOp) -> UOp:
  """x * y for a sum of products, whose operands a matrix unit may round to tf32."""
  return UOp(Ops.MUL, x.dtype, (x, y), ROUGH)
def subtract(x: UOp, y: UOp) -> UOp:
  if x.dtype is not dtypes.bool: return x - y
  raise RuntimeError("Subtraction, the `-` operator, with a bool tensor is not supported: use ^ or ~")

def invert(x: UOp) -> UOp:
  if x.dtype.is_floating_point: raise TypeError(f"~ (bitwise_not) needs an integer or bool tensor, not {x.dtype.name}")
  return x.not_() if x.dtype is dtypes.bool else x ^ -1

def opposite(x: UOp) -> UOp:
  """A value of x's dtype in the reverse order: min(x) is the opposite of max(opposite of x). Integers: ~x, not -x."""
  return -x if x.dtype.is_floating_point else invert(x)

def maximum(x: UOp, y: UOp) -> UOp:
  return x | y if x.dtype is dtypes.bool else x.maximum(y)
def minimum(x: UOp, y: UOp) -> UOp:
  return opposite(maximum(opposite(x), opposite(y)))

def magnitude(x: UOp) -> UOp:
  """|x| with derivative 1 at zero: for formulas that are smooth there."""
  return (x < 0).where(-x, x)

def absolute(x: UOp) -> UOp:
  """|x|; the zero added makes -0 positive."""
  if x.dtype.is_unsigned: return x
  return x.maximum(-x) + 0.0 if x.dtype.is_floating_point else x.maximum(-x)

def floor_divide(x: UOp, y: UOp) -> UOp:
  """The quotient rounded down: the truncated one, less 1 where the signs differ."""
  if x.dtype.is_floating_point:
    whole, rest = quotient(x, y)
    return without_slope(opposite_signs(rest, y).where(whole - 1, whole), x, y)
  if x.dtype.is_unsigned: return x // y
  return opposite_remainder(x, y).where(x // y - 1, x // y)

def remainder(x: UOp, y: UOp) -> UOp:
  """x - floor(x/y)*y: the divisor's sign."""
  if x.dtype.is_floating_point:
    rest = quotient(x, y)[1]
    return opposite_signs(rest, y).where(rest + y.cast(rest.dtype), rest).cast(x.dtype)
  if x.dtype.is_unsigned: return x % y
  return opposite_remainder(x, y).where(x % y + y, x % y)

def opposite_remainder(x: UOp, y: UOp) -> UOp:
  """Whether C's remainder is not zero and has not the divisor's sign."""
  r = x % y
  return r.ne(0) & (r ^ y < 0)

def truncated_quotient(x: UOp, y: UOp) -> UOp:
  return without_slope(quotient(x, y)[0], x, y) if x.dtype.is_floating_point else x // y
def fmod(x: UOp, y: UOp) -> UOp:
  return quotient(x, y)[1].cast(x.dtype) if x.dtype.is_floating_point else x % y

def quotient(x: UOp, y: UOp) -> tuple[UOp, UOp]:
  """Of floats the truncated quotient and what it leaves of x, in float64, in which both are exact for narrower floats:
  a quotient that rounds up to a whole number would leave nothing (1 % 0.1). The derivative of the first is zero."""
  x, y = x.cast(dtypes.float64), y.cast(dtypes.float64)
  whole = trunc(detach(x / y))
  return whole, whole.eq(0).where(x, x - whole * y)

def opposite_signs(rest: UOp, y: UOp) -> UOp: return rest.ne(0) & (rest < 0).ne(y < 0)

def without_slope(value: UOp, x: UOp, y: UOp) -> UOp:
  """A value in x's dtype whose derivatives by x and y are zero."""
  return never(x).where(x + y, detach(value.cast(x.dtype)))

# ---- rounding: through an integer, below the size from which on every float is integral ------------------------------

def rounded(x: UOp, nearest: Callable[[UOp, UOp], UOp]) -> UOp:
  """nearest(x, trunc(x)), where x is small enough to have a fraction; else x itself (also for inf and NaN)."""
  if not x.dtype.is_floating_point: return x
  wide = x.cast(accumulator(x.dtype))
  double = wide.dtype is dtypes.float64
  small = magnitude(wide) < (2.0**52 if double else 2.0**23)
  inside = small.where(wide, 0)
  whole = inside.cast(dtypes.int64 if double else dtypes.int32).cast(wide.dtype)
  found = nearest(inside, whole)
  signed = found.eq(0).where(inside * 0, found)                        # x*0 is the zero of x's sign
  return small.where(signed, wide).cast(x.dtype)

def trunc(x: UOp) -> UOp:
  return rounded(x, lambda x, t: t)
def floor(x: UOp) -> UOp:
  return rounded(x, lambda x, t: (x < t).where(t - 1, t))
def ceil(x: UOp) -> UOp:
  return rounded(x, lambda x, t: (t < x).where(t + 1, t))
def round_half_even(x: UOp) -> UOp:
  return rounded(x, nearest_even)
def nearest_even(x: UOp, t: UOp) -> UOp:
  """t = trunc(x) moved away from zero where the fraction is above a half, or a half and t is odd."""
  fraction = magnitude(x - t)
  half = t * 0.5
  odd = half.ne(half.cast(dtypes.int64).cast(t.dtype))
  away = t + (x < 0).where(t.like(-1), t.like(1))
  return ((fraction > 0.5) | (fraction.eq(0.5) & odd)).where(away, t)

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

def needs_no_logarithm(y: float) -> bool:
  return abs(y) == 0.5 or abs(y) <= 64 and y == int(y)

def power_const(x: UOp, y: float) -> UOp:
  """x^y for a number y that needs no logarithm."""
  if y == 0: return never(x).where(x, x.like(1))                              # 1, and a derivative of zero
  whole = x.alu(Ops.SQRT) if abs(y) == 0.5 else power_of(x, abs(int(y)))
  return whole if y > 0 else x.like(1) / whole

@in_float32
def power(x: UOp, y: UOp) -> UOp:
  """2^(y log2|x|); a negative x has a power only for whole y, negative where y is odd."""
  zero = x.eq(0)
  logarithm = zero.where(x.like(1), magnitude(x)).alu(Ops.LOG2)
  size = (y * logarithm).alu(Ops.EXP2)
  odd = (trunc(y * 0.5) * 2).ne(y)
  negative = x < 0
  fractional = trunc(y).ne(y)
  signed = (negative & odd).where(-size, size) * (negative & fractional).where(y.like(math.nan), 1)
  at_zero = y.eq(0).where(y.like(1), (y < 0).where(y.like(math.inf), y.like(0)))
  undefined = negative.where(y.like(math.nan), 1)       # by y there is no derivative where x is negative
  return zero.where(detach(at_zero), never(x).where(y * undefined, signed))

def power_int(x: UOp, y: UOp) -> UOp:
  """x^y over integers modulo 2^bits, by the bits of y; a negative power is 0 unless |x| is 1."""
  result, square = x.like(1), x
  for bit in range(y.dtype.bits - (not y.dtype.is_unsigned)):
    result = result * ((y >> bit) & 1).ne(0).where(square, 1)
    square = square * square
  if y.dtype.is_unsigned: return result
  unit = x.eq(1) | x.eq(-1)
  return (y < 0).where(unit.where(result, 0), result)

# ---- reductions: x -> the axes reduced to size 1 ---------------------------------------------------------------------

Axes = tuple[int, ...]

def sum_over(x: UOp, axes: Axes) -> UOp:
  return x.cast(accumulator(x.dtype)).reduce(Ops.ADD, axes).cast(x.dtype)
def prod_over(x: UOp, axes: Axes) -> UOp:
  return x.cast(accumulator(x.dtype)).reduce(Ops.MUL, axes).cast(x.dtype)
def mean_over(x: UOp, axes: Axes, count: float) -> UOp:
  total = x.cast(accumulator(x.dtype)).reduce(Ops.ADD, axes)
  return (total / count).cast(x.dtype)

def max_over(x: UOp, axes: Axes) -> UOp:
  """The largest; of no booleans, False."""
  if x.dtype is dtypes.bool: return x.cast(dtypes.int32).reduce(Ops.MAX, axes) > 0
  return x.reduce(Ops.MAX, axes)
def min_over(x: UOp, axes: Axes) -> UOp:
  return opposite(max_over(opposite(x), axes))

def arg_max(x: UOp, axis: int) -> UOp:
  """The smallest position of the maximum; NaN counts as the largest. int64."""
  x = from_memory(x)
  n = x.shape[axis]
  top = max_over(x, (axis,)).expand(x.shape)
  found = x.eq(top) | is_nan(x)
  from_end = UOp.const(dtypes.int32, n - 1).spread(x.shape) - iota_along(x.shape, axis)
  best = found.where(from_end, 0).reduce(Ops.MAX, (axis,))
  return (n - 1 - best).cast(dtypes.int64)
def arg_min(x: UOp, axis: int) -> UOp:
  return arg_max(opposite(x), axis)
