# decompose.py: operations in terms of simpler ones. In: value nodes of any shape or vector width. Out: nodes of ADD,
# MUL, MULACC, casts, integer ops, comparisons and WHERE only, so that every device computes the same bits. Accuracy
# rests on MULACC being one rounding and on nobody reassociating floats. Also: divisions that cannot trap, 16-bit floats
# by way of float32, and the Threefry random function.
from __future__ import annotations
import functools, math
from fractions import Fraction
from typing import Callable, NamedTuple
from picograd.dtype import DType, dtypes, truncate
from picograd.ops.fold import is_machine_integer, number
from picograd.ops.match import Pat, Rules
from picograd.ops.ops import ALU, COMPARE, Odds, Ops
from picograd.ops.uop import UOp

# ---- constants, exact ------------------------------------------------------------------------------------------------

def pi_to(bits: int) -> Fraction:
  """floor(pi * 2**bits) / 2**bits by Machin's formula, pi/4 = 4 atan(1/5) - atan(1/239)."""
  one = 1 << (bits + 32)
  def arctan(n: int) -> int:                                       # sum of (-1)^k / ((2k+1) n^(2k+1))
    terms = [one // ((2 * k + 1) * n ** (2 * k + 1)) for k in range(bits // 2)]
    return sum(terms[0::2]) - sum(terms[1::2])
  return Fraction((16 * arctan(5) - 4 * arctan(239)) >> 32, 1 << bits)

PI = pi_to(256)
LN2 = Fraction(0x2c5c85fdf473de6af278ece600fcbdabd03cd0c99ca62d8b628345d6e, 1 << 226)
LOG2_E = 1 / LN2

def parts(x, dt, bits):
  """Numbers of dt with so many leading bits each that add up to x."""
  out = []
  for n in bits:
    scale = Fraction(2) ** (n - math.frexp(float(x))[1])
    out.append(truncate(float(round(x * scale) / scale), dt))
    x -= Fraction(out[-1])
  return out

class Format(NamedTuple):
  """An IEEE format, and the coefficients that are exact enough for it (weighted minimax fits, lowest power first)."""
  real: DType
  signed: DType                       # integers of the same width
  unsigned: DType
  mantissa: int                       # stored bits
  bias: int
  exp: tuple[float, ...]              # e^r = sum c_k r^k           for |r| <= ln(2)/2
  exp2: tuple[float, ...]             # 2^r = sum c_k r^k           for |r| <= 1/2
  log: tuple[float, ...]              # log(1+z) = z - z^2/2 + z^3 sum c_k z^k     for sqrt(1/2) <= 1+z <= sqrt(2)
  sin: tuple[float, ...]              # sin(r) = r + r^3 sum c_k r^2k              for |r| <= 1.03 pi/2
  ln2: list[float]                    # two parts; the first times an exponent is exact
  pi: list[float]                     # three parts
  large: float                        # from here on a sine needs more bits of pi than three parts have

SINGLE = Format(dtypes.float32, dtypes.int32, dtypes.uint32, 23, 127,
  exp=(1, 1, 0.49999994, 0.166665211, 0.0416682698, 0.00836867746, 0.00138204114),
  exp2=(1, 0.693147182, 0.240226477, 0.0555035956, 0.00961850304, 0.00133909972, 0.000153278408),
  log=(0.333333135, -0.250000089, 0.200020745, -0.166679993, 0.142202795, -0.124059126, 0.118838929, -0.116725259,
       0.0675154179),
  sin=(-0.166666672, 0.0083333496, -0.000198428854, 2.76131436e-06, -2.52154031e-08),
  ln2=parts(LN2, dtypes.float32, (12, 24)), pi=parts(PI, dtypes.float32, (24, 24, 24)), large=2.0**20)

DOUBLE = Format(dtypes.float64, dtypes.int64, dtypes.uint64, 52, 1023,
  exp=(1, 1, 0.5000000000000011, 0.1666666666666641, 0.04166666666652955, 0.008333333333494834, 0.001388888894380215,
       0.00019841269506226596, 2.4801492909280827e-05, 2.755758631281781e-06, 2.7630319641478013e-07,
       2.5000193786193652e-08),
  exp2=(1, 0.6931471805599453, 0.2402265069591011, 0.05550410866482171, 0.009618129107600874, 0.0013333558146549351,
        0.0001540353044993851, 1.5252733632330921e-05, 1.3215438390674214e-06, 1.0178160190626493e-07,
        7.0733092487897885e-09, 4.4389167677593524e-10),
  log=(0.33333333333333454, -0.24999999999998915, 0.1999999999994576, -0.16666666666915686, 0.1428571429388845,
       -0.124999999819469, 0.11111110513142586, -0.10000000383770283, 0.0909093360468219, -0.08333345845244731,
       0.07691712539426837, -0.07141996746354295, 0.06675169129390872, -0.06269855195378092, 0.058176778963370174,
       -0.05326361907882492, 0.054159671601530346, -0.06276264433361663, 0.05698176263473633, -0.02427885126586552),
  sin=(-0.16666666666666666, 0.008333333333333122, -0.00019841269841182915, 2.755731920664886e-06,
       -2.505210646424634e-08, 1.6058919317267768e-10, -7.642465347276971e-13, 2.7156870261857525e-15),
  ln2=parts(LN2, dtypes.float64, (40, 53)), pi=parts(PI, dtypes.float64, (53, 53, 53)), large=2.0**40)

FORMATS = {dtypes.float32: SINGLE, dtypes.float64: DOUBLE}

# ---- building blocks -------------------------------------------------------------------------------------------------

def fma(x, y, z):
  return x.alu(Ops.MULACC, x.like(y), x.like(z))

def horner(x, coefficients):
  """c0 + c1 x + c2 x^2 + .., one rounding a step."""
  total = x.like(coefficients[-1])
  for c in coefficients[-2::-1]: total = fma(total, x, c)
  return total

def in_halves(x, coefficients):
  """The same as two polynomials in x^2: half as long a chain of operations, and a rounding more."""
  square = x * x
  return fma(horner(square, coefficients[1::2]), x, horner(square, coefficients[0::2]))

def round_to_integer(x, scale, offset, f):
  """x*scale + offset rounded to the nearest integer n with |n| < 2^(mantissa-1), as a float and as a signed integer.
  Adding 1.5 * 2^mantissa pushes the fraction out; what is left in the low bits is n."""
  magic = 1.5 * 2.0**f.mantissa
  pushed = fma(x, scale, offset) + magic if offset else fma(x, scale, magic)
  bits = pushed.bitcast(f.signed)
  return pushed + -magic, bits - (((f.bias + f.mantissa) << f.mantissa) | (1 << (f.mantissa - 1)))

def by_float32(function: Callable[[UOp, Format], UOp]) -> Callable[[UOp], UOp]:
  """The function for every float dtype: 16-bit floats go by way of float32."""
  def general(x: UOp) -> UOp:
    if x.dtype.scalar in FORMATS: return function(x, FORMATS[x.dtype.scalar])
    return function(x.cast(dtypes.float32), SINGLE).cast(x.dtype)
  return general

# ---- exponential: x = n ln2 + r, e^x = 2^n e^r -----------------------------------------------------------------------

def clamp(x, low, high):
  """x within bounds; NaN stays NaN."""
  x = (x < low).where(low, x)
  return x if high == math.inf else (x > high).where(high, x)

def sign_of(x: UOp, depth: int = 8) -> int:
  """1 for what is never below zero, -1 for what is never above, NaN aside; 0 where that is not plain to see."""
  known = number(x)
  if known is not None: return (known > 0) - (known < 0)
  if depth == 0: return 0
  if x.op is Ops.EXP2 or x.op is Ops.MUL and x.src[0] is x.src[1] or is_magnitude(x): return 1
  values = x.src[1:] if x.op is Ops.WHERE else x.src
  if x.op not in (Ops.MUL, Ops.ADD, Ops.MULACC, Ops.WHERE): return 0
  signs = [sign_of(s, depth - 1) for s in values]
  if x.op in (Ops.MUL, Ops.MULACC): signs = [signs[0] * signs[1], *signs[2:]]
  return signs[0] if len(set(signs)) == 1 else 0

def is_magnitude(x: UOp) -> bool:
  """x where it is not below zero, else -x."""
  return x.op is Ops.WHERE and x.src[0] is (x.src[2] < 0) and x.src[1] is -x.src[2]

def masked(x: UOp, f: Format, depth: int = 8) -> UOp:
  """x, but for the sign of zeros: magnitudes in sums and products by a mask, one operation."""
  if is_magnitude(x):
    bits = x.src[2].bitcast(f.unsigned)
    return (bits & (1 << f.unsigned.bits - 1) - 1).bitcast(f.real)
  if depth == 0 or x.op not in (Ops.MUL, Ops.ADD, Ops.MULACC): return x
  return x.with_src(tuple([masked(s, f, depth - 1) for s in x.src]))

def in_powers(x, unit, reduced, coefficients, f):
  """2^n p(reduced(x, n)) for the integer n that is nearest to x/unit. As in round_to_integer, but biases are added too:
  moved up, the low bits of a number that has n as its lowest are powers of two. In general they are the sum of two
  biased exponents, of 2^(n//2) and 2^(n - n//2): the first product is exact. Where x <= 0, there is one power, and what
  it lacks to be normal is in the coefficients. The last product rounds once, so that denormal and infinite results come
  out right."""
  low, high = exp_bounds(f)
  is_one = sign_of(x) < 0
  if is_one: x = masked(x, f)
  x = clamp(x, float(low * unit), math.inf if is_one else float(high * unit))
  lift = f.mantissa + 1 if is_one else f.bias
  magic = 1.5 * 2.0**f.mantissa + f.bias + lift
  pushed = fma(x, float(1 / unit), magic)
  bits = pushed.bitcast(f.signed)
  p, half = reduced(x, pushed + -magic), bits >> 1
  if is_one: return horner(p, [c * 2.0**-lift for c in coefficients]) * (bits << f.mantissa).bitcast(f.real)
  powers = [(n << f.mantissa).bitcast(f.real) for n in (half, bits - half)]
  return horner(p, coefficients) * powers[0] * powers[1]

def exp_bounds(f: Format) -> tuple[int, int]:
  """Beyond these powers of two the result is surely 0 or infinite."""
  return -f.bias - f.mantissa - 1, f.bias + 3

@by_float32
def exp2_polynomial(x, f):
  """2^x, within 1 ulp; exact for integers."""
  return in_powers(x, Fraction(1), lambda x, n: x - n, f.exp2, f)

@by_float32
def exp_polynomial(x, f):
  """e^x, within 1 ulp: x*log2(e) is never rounded."""
  return in_powers(x, LN2, lambda x, n: fma(n, -f.ln2[1], fma(n, -f.ln2[0], x)), f.exp, f)

@by_float32
def exp_by_exp2(x, f):
  """e^x = 2^y by the machine's power, y = x log2(e), with what rounding took from y: within 4 ulp. (y as a sum: this is
  what becomes of 2^(x log2(e)).)"""
  low, high = exp_bounds(f)
  x = clamp(x, low * math.log(2), high * math.log(2))
  log2_e, rest = parts(LOG2_E, f.real, (f.mantissa + 1, f.mantissa + 1))
  y = fma(x, log2_e, 0.0)
  lost = fma(x, rest, fma(x, log2_e, -y))
  return y.alu(Ops.EXP2) * fma(lost, math.log(2), 1.0)

# ---- logarithm: x = m 2^e with sqrt(1/2) <= m < sqrt(2), log(x) = e ln2 + log(1 + (m-1)) ----------------------------

def exponent_and_fraction(x, f):
  """(e, m-1) of a positive normal x, both as floats."""
  bits = x.bitcast(f.signed)
  root_half = (f.bias - 1 << f.mantissa) + int((math.sqrt(2) - 1) * 2**f.mantissa)        # bits of sqrt(1/2)
  e = (bits - root_half) >> f.mantissa
  m = (bits - (e << f.mantissa)).bitcast(f.real)
  return e.cast(f.real), m + -1.0

def with_all_numbers(x, logarithm, f):
  """logarithm(x, e) is that of x 2^e for a positive normal x. What else there is, is rare: a denormal is scaled up,
  log(0) = -inf, log(x<0) = NaN, log(inf) = inf, log(NaN) = NaN."""
  bits, lift = x.bitcast(f.signed), f.mantissa + 1
  unusual = (bits < 1 << f.mantissa) | (bits > (2 * f.bias + 1 << f.mantissa) - 1)        # signed: below 0 too
  finite = (x < math.inf).where(logarithm(x * 2.0**lift, -lift), x)
  rest = (x > 0).where(finite, x.ne(0).where(x.like(math.nan), -math.inf))
  return UOp(Ops.WHERE, x.dtype, (unusual, rest, logarithm(x, 0)), Odds.RARE)

def log_tail(z, f):
  """log(1+z) - z."""
  square = z * z
  return square * fma(in_halves(z, f.log), z, -0.5)

@by_float32
def log2_polynomial(x, f):
  """log2(x), within 1 ulp; exact for powers of two."""
  high, low = parts(LOG2_E, f.real, (f.mantissa + 1, f.mantissa + 1))
  def logarithm(x, lifted):
    e, z = exponent_and_fraction(x, f)
    if lifted: e = e + lifted
    lost = fma(z, z, -(z * z))                                                 # what rounding took from the square
    tail = fma(log_tail(z, f), high, fma(lost, -high / 2, z * low))
    return e + fma(z, high, tail)
  return with_all_numbers(x, logarithm, f)

@by_float32
def log_polynomial(x, f):
  """The natural logarithm, within 1 ulp."""
  def logarithm(x, lifted):
    e, z = exponent_and_fraction(x, f)
    if lifted: e = e + lifted
    return fma(e, f.ln2[0], z + fma(e, f.ln2[1], log_tail(z, f)))
  return with_all_numbers(x, logarithm, f)

# ---- sine: x = n pi + r, sin(x) = (-1)^n sin(r) ----------------------------------------------------------------------

def reduce_by_pi(x: UOp, quarters: int, f: Format) -> tuple[UOp, UOp]:
  """For 0 <= x < large: r and n with x + quarters*pi/2 = n pi + r, by Cody and Waite. The first step is exact, since x
  and n*pi[0] are multiples of one small number; the two others are rounded relative to what is left."""
  n, integer = round_to_integer(x, float(1 / PI), quarters / 2, f)
  if quarters: n = n + -quarters / 2
  for part in f.pi: x = fma(n, -part, x)
  return x, integer.bitcast(f.unsigned)

def multiply_high(x, y):
  """The upper word of a product of two unsigned words."""
  if x.dtype.bits == 32: return ((x.cast(dtypes.uint64) * y.cast(dtypes.uint64)) >> 32).cast(x.dtype)
  low = (1 << 32) - 1
  xh, xl, yh, yl = x >> 32, x & low, y >> 32, y & low
  cross = xh * yl + ((xl * yl) >> 32)                                          # cannot overflow: (2^32-1)^2 + 2^32-1
  return xh * yh + (cross >> 32) + ((xl * yh + (cross & low)) >> 32)

def window(words: list[int], shift: UOp) -> tuple[UOp, UOp]:
  """Two words of a long bit string (words, first bit first) from bit `shift` on. The words are found by halving."""
  width = shift.dtype.bits
  chosen = [shift.like(w) for w in words]
  step = (len(words) - 2) // 2
  while step:
    far = (shift & step * width).ne(0)
    chosen = [far.where(chosen[j + step], chosen[j]) for j in range(step + 2)]
    step //= 2
  inside = shift & width - 1
  def join(a: UOp, b: UOp) -> UOp:
    return (a << inside) | ((b >> 1) >> (inside ^ width - 1))
  return join(chosen[0], chosen[1]), join(chosen[1], chosen[2])

def reduce_by_bits(x: UOp, quarters: int, f: Format) -> tuple[UOp, UOp]:
  """For finite x >= large: r and the parity of n as above, by Payne and Hanek (1983). x = m 2^e, and of 1/2pi only the
  bits from 2^-e on matter: those above give whole turns. r is right to 2^-(width-2)."""
  width, lead = f.unsigned.bits, 16
  count = 2 ** math.ceil(math.log2((f.bias + lead) / width)) + 2               # enough words for the largest exponent
  turns = int(Fraction(1 << (count * width - lead)) / (2 * pi_to(1280)))       # 1/2pi with `lead` zeros before it
  words = [turns >> (count - 1 - k) * width & (1 << width) - 1 for k in range(count)]
  bits = x.bitcast(f.unsigned)
  m = (bits & (1 << f.mantissa) - 1) | 1 << f.mantissa
  high, low = window(words, (bits >> f.mantissa) - (f.bias + f.mantissa - lead))
  turn = m * high + multiply_high(m, low) + (quarters << (width - 2))          # a fraction of a turn, in 2^-width
  parity = (turn + (1 << (width - 2))) >> (width - 1)                          # in which half turn
  rest = (turn ^ (parity << (width - 1))).bitcast(f.signed)
  return rest.cast(f.real) * float(PI / 2 ** (width - 1)), parity

def sine(x: UOp, quarters: int, f: Format) -> UOp:
  """sin(x + quarters*pi/2) for quarters 0 and 1."""
  top = f.unsigned.bits - 1
  bits = x.bitcast(f.unsigned)
  size = (bits & (1 << top) - 1).bitcast(f.real)
  def value(r: UOp, n: UOp) -> UOp:
    square = r * r
    p = fma(horner(square, f.sin), r * square, r).bitcast(f.unsigned) ^ (n << top)
    if not quarters: p = p ^ (bits & 1 << top)                                 # sin(-x) = -sin(x), cos(-x) = cos(x)
    return p.bitcast(f.real)
  near = value(*reduce_by_pi(size, quarters, f))
  far = (size < math.inf).where(value(*reduce_by_bits(size, quarters, f)), math.nan)
  return UOp(Ops.WHERE, x.dtype, (size > f.large, far, near), Odds.RARE)

@by_float32
def sin_polynomial(x, f):
  """sin(x) within 3 ulp up to `large`, within 4 ulp or an absolute 2^-(mantissa+1) beyond."""
  return sine(x, 0, f)

@by_float32
def cos_polynomial(x, f): return sine(x, 1, f)

# ---- functions that a user composes of these: to be applied top down, before anything inside is rewritten ------------

def is_number(c, value):
  return c.dtype.kind == "f" and number(c) == truncate(value, c.dtype)

def double_angle(x, a, b, c, d):
  """1 - 2 sin(x/2)^2 = cos(x): as it stands it would lose all digits where the cosine is near zero."""
  return cos_polynomial(x) if all(map(is_number, (a, b, c, d), (0.5, 2, -1, 1))) else None

x, y, c = Pat.var("x"), Pat.var("y"), Pat.var("c")
half = Pat(Ops.SIN, (x * Pat.var("a"),)).named("half")

def exponential(by: Callable[[UOp], UOp]) -> Rules:
  """2^(x log2(e)) = e^x"""
  return Rules([(Pat(Ops.EXP2, (x * c,)), lambda x, c: by(x) if is_number(c, float(LOG2_E)) else None)])

composed_functions = Rules([
  # log2(x) ln(2) = log(x);  sin(x + pi/2) = cos(x)
  (Pat(Ops.LOG2, (x,)) * c, lambda x, c: log_polynomial(x) if is_number(c, float(LN2)) else None),
  (Pat(Ops.SIN, (x + c,)), lambda x, c: cos_polynomial(x) if is_number(c, math.pi / 2) else None),
  (half * half * Pat.var("b") * c + Pat.var("d"), lambda x, half, a, b, c, d: double_angle(x, a, b, c, d)),
])

POLYNOMIALS = {Ops.EXP2: exp2_polynomial, Ops.LOG2: log2_polynomial, Ops.SIN: sin_polynomial}

# ---- 16-bit floats: arithmetic in float32, rounded back after each operation -----------------------------------------

def is_half(dt): return dt.kind == "f" and dt.bits == 16

def in_float32(u):
  """The sources of u as float32, which holds every 16-bit float and keeps their order."""
  return u.with_src(tuple([s.cast(dtypes.float32) for s in u.src]))

def rounded_back(u):
  return in_float32(u).replace(dtype=dtypes.float32.vec(u.dtype.count)).cast(u.dtype)

def cast_by_float32(u, x):
  """To or from a 16-bit float: float32 lies between, as in torch."""
  if dtypes.float32 in (x.dtype.scalar, u.dtype.scalar) or not (is_half(x.dtype) or is_half(u.dtype)): return None
  return x.cast(dtypes.float32).cast(u.dtype)

half = Pat(dtype=is_half)
half_by_float32 = Rules([
  (Pat(ALU - COMPARE - {Ops.CAST, Ops.BITCAST, Ops.WHERE}, dtype=is_half, name="u"), rounded_back),
  (Pat(Ops.REDUCE, (half,), name="u"), rounded_back),                           # f(x) = round(f(float32(x)))
  (Pat(COMPARE, (half, half), name="u"), in_float32),
  (x.cast("u"), cast_by_float32),
])

def float32_to_bfloat16(x):
  """The upper half of the bits, rounded to nearest even; a NaN stays one."""
  bits = x.bitcast(dtypes.uint32)
  rounded = bits + 0x7FFF + ((bits >> 16) & 1)
  kept = x.ne(x).where(bits | 0x400000, rounded)
  return (kept >> 16).cast(dtypes.uint16).bitcast(dtypes.bfloat16)

def bfloat16_to_float32(x):
  return (x.bitcast(dtypes.uint16).cast(dtypes.uint32) << 16).bitcast(dtypes.float32)

def cast_bfloat16(u, x):
  source, target = x.dtype.scalar, u.dtype.scalar
  if (source, target) == (dtypes.float32, dtypes.bfloat16): return float32_to_bfloat16(x)
  if (source, target) == (dtypes.bfloat16, dtypes.float32): return bfloat16_to_float32(x)
  return None

bfloat16_by_bits = Rules([(x.cast("u"), cast_bfloat16)])

# ---- conversions -----------------------------------------------------------------------------------------------------

def within_int64(x):
  """x where an int64 can hold it, else 0."""
  fits = (x >= -(2.0**63)) & (x < 2.0**63)
  return fits.where(x, 0)

def is_within_int64(x): return x.op is Ops.WHERE and x is within_int64(x.src[1])

def float_to_int(u, x):
  """Truncated to int64, of which narrower types take the low bits; what int64 cannot hold (NaN too) gives 0, but uint64
  holds the numbers up to 2^64. An instruction out of range would trap, be undefined or differ between machines."""
  if not (x.dtype.kind == "f" and u.dtype.kind in "iu"): return None
  if is_half(x.dtype): return x.cast(dtypes.float32).cast(u.dtype)
  if is_within_int64(x): return None if u.dtype.scalar is dtypes.int64 else x.cast(dtypes.int64).cast(u.dtype)
  low = within_int64(x).cast(dtypes.int64).cast(u.dtype)
  if u.dtype.scalar is not dtypes.uint64: return low
  high = within_int64(x - 2.0**63).cast(dtypes.int64).cast(u.dtype) ^ 1 << 63
  return ((x >= 2.0**63) & (x < 2.0**64)).where(high, low)

casts_defined = Rules([(x.cast("u"), float_to_int)])

# ---- division --------------------------------------------------------------------------------------------------------

def safe_divisor(y):
  """y, but 1 where a division by y could trap: y = 0, and for signed types y = -1."""
  risky = y.eq(0) if y.dtype.is_unsigned else y.eq(0) | y.eq(-1)
  return risky.where(1, y)

def is_safe(y):
  known = number(y)
  if known is not None: return known not in (0, -1)
  return y.op is Ops.WHERE and y is safe_divisor(y.src[2])

def guarded_quotient(x, y):
  """x/0 = 0; x/-1 = -x, which wraps for the smallest integer."""
  if is_safe(y): return None
  quotient = x // safe_divisor(y)
  if not y.dtype.is_unsigned: quotient = y.eq(-1).where(-x, quotient)
  return y.eq(0).where(0, quotient)

def guarded_remainder(x, y):
  """x%0 = x; x%-1 = x%1 = 0."""
  return None if is_safe(y) else y.eq(0).where(x, x % safe_divisor(y))

guard_division = Rules([
  (Pat(Ops.IDIV, (x, y), dtype=is_machine_integer), guarded_quotient),
  (Pat(Ops.MOD, (x, y), dtype=is_machine_integer), guarded_remainder),
])

def divide(x, d):
  """x/d truncated, by shifts and a 64-bit product; None where the type is too wide for that."""
  size = abs(d)
  if size <= 1: return x * d
  power = size & (size - 1) == 0
  if x.dtype.bits > 32 and not power: return None
  quotient = shift_quotient(x, size.bit_length() - 1) if power else product_quotient(x, size)
  return -quotient if d < 0 else quotient

def shift_quotient(x: UOp, k: int) -> UOp:
  """x/2^k = (x + (2^k - 1 if x < 0 else 0)) >> k."""
  if x.dtype.is_unsigned: return x >> k
  return (x + ((x >> x.dtype.bits - 1) & (1 << k) - 1)) >> k

def product_quotient(x: UOp, d: int) -> UOp:
  """floor(x/d) = floor(x m / 2^(n+s)) with s = ceil(log2(d)), m = floor(2^(n+s)/d) + 1, for 0 <= x < 2^n (Granlund and
  Montgomery, 1994). Signed, n = 31 and m < 2^32: the product fits; a negative x is off by one, as the shift rounds
  down. Unsigned, n = 32 and m = 2^32 + m': x m / 2^32 = x + x m' / 2^32."""
  s = (d - 1).bit_length()
  if x.dtype.is_unsigned:
    wide = x.cast(dtypes.uint64)
    m = (1 << 32 + s) // d + 1 - (1 << 32)
    return ((((wide * m) >> 32) + wide) >> s).cast(x.dtype)
  wide = x.cast(dtypes.int64)
  m = (1 << 31 + s) // d + 1
  return (((wide * m) >> 31 + s) - (wide >> 63)).cast(x.dtype)

def quotient_by_constant(x, y):
  d = number(y)
  return None if d is None else divide(x, d)

def remainder_by_constant(x, y):
  """x % d = x - (x/d) d; unsigned by a power of two: x & (d-1)."""
  d = number(y)
  if d is None: return None
  if d > 0 and d & (d - 1) == 0 and x.dtype.is_unsigned: return x & d - 1
  quotient = divide(x, d)
  return None if quotient is None else x - quotient * d

division_by_constant = Rules([
  (Pat(Ops.IDIV, (x, y), dtype=is_machine_integer), quotient_by_constant),
  (Pat(Ops.MOD, (x, y), dtype=is_machine_integer), remainder_by_constant),
])

# ---- what else a target may lack -------------------------------------------------------------------------------------

def max_by_where(x, y):
  """The larger; NaN if either is NaN."""
  larger = (x < y).where(y, x)
  return y.ne(y).where(y, larger) if y.dtype.kind == "f" else larger

max_by_comparison = Rules([(Pat(Ops.MAX, (x, y)), max_by_where)])

product_then_sum = x.alu(Ops.MULACC, y, Pat.var("z"))
integer_mulacc = Rules([(product_then_sum, lambda x, y, z: x * y + z if x.dtype.kind != "f" else None)])
mulacc_in_two = Rules([(product_then_sum, lambda x, y, z: x * y + z)])          # two roundings: polynomials lose 1 ulp

@functools.cache
def make_defined(missing_ops: frozenset[Ops], division_traps: bool) -> Rules:
  """The first step, top down, without other rules beside it: functions composed of EXP2, LOG2 and SIN are still whole,
  and conversions and divisions by variables get a result for every operand."""
  rules = exponential(exp_polynomial if Ops.EXP2 in missing_ops else exp_by_exp2) + composed_functions + casts_defined
  return rules + guard_division if division_traps else rules

@functools.cache
def lower_operations(missing_ops: frozenset[Ops], missing_dtypes: frozenset[DType],
                     casts_by_bits: frozenset[DType] = frozenset({dtypes.bfloat16})) -> Rules:
  """The second step: the rules that leave only what a target has. missing_dtypes: 16-bit floats without arithmetic,
  which are then only loaded, stored and converted. casts_by_bits: those without an instruction that converts them."""
  rules = integer_mulacc
  rules += Rules([(Pat(op, (x,)), polynomial) for op, polynomial in POLYNOMIALS.items() if op in missing_ops])
  if missing_dtypes: rules += half_by_float32
  if dtypes.bfloat16 in missing_dtypes & casts_by_bits: rules += bfloat16_by_bits
  if Ops.IDIV in missing_ops: rules += division_by_constant
  if Ops.MAX in missing_ops: rules += max_by_comparison
  if Ops.MULACC in missing_ops: rules += mulacc_in_two
  return rules

# ---- random numbers --------------------------------------------------------------------------------------------------

ROTATIONS = (13, 15, 26, 6, 17, 29, 16, 24)

def threefry(x0: UOp, x1: UOp, k0: UOp, k1: UOp) -> tuple[UOp, UOp]:
  """Threefry-2x32-20: two uint32 of random bits from a counter (x0, x1) and a key (k0, k1), all of one shape. Salmon,
  Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3" (SC'11)."""
  keys = (k0, k1, k0 ^ k1 ^ 0x1BD11BDA)
  x0, x1 = x0 + k0, x1 + k1
  for r in range(20):
    turn = ROTATIONS[r % 8]
    x0 = x0 + x1
    x1 = ((x1 << turn) | (x1 >> (32 - turn))) ^ x0
    if r % 4 == 3:
      injected = r // 4 + 1
      x0 = x0 + keys[injected % 3]
      x1 = x1 + keys[(injected + 1) % 3] + injected
  return x0, x1
