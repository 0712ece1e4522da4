# formulas.py: functions of one number (atan2: of two) in the ops of the first bank. In: UOps of floats. Out: one UOp.
# Formulas are written so that value and derivative by the chain rule are both accurate; those whose derivative follows
# from the value name it (ops/gradient.py), so that nothing but the value need be kept.
from __future__ import annotations
import math
from typing import Sequence
from picograd.arithmetic import in_float32, magnitude, never
from picograd.dtype import dtypes
from picograd.ops.ops import Ops
from picograd.ops.uop import UOp

def is_inf(x: UOp) -> UOp:
  if not x.dtype.is_floating_point: return never(x)
  return x.eq(math.inf) | x.eq(-math.inf)

def sign(x: UOp) -> UOp:
  if x.dtype is dtypes.bool: return x
  negative = x.like(0) if x.dtype.is_unsigned else (x < 0).where(x.like(-1), 0)
  return (x > 0).where(x.like(1), negative)

def relu(x: UOp) -> UOp:
  """max(x,0) with derivative 0 at zero, NaN kept."""
  return ((x < 0) | x.eq(0)).where(x.like(0), x)

def with_sign_of(x: UOp, size: UOp) -> UOp:
  """An odd function from its value at |x|."""
  return (x < 0).where(-size, size)

def with_slope(name: str, value: UOp, x: UOp, axes: Sequence[int] = (), known: Sequence[UOp] = ()) -> UOp:
  """value, whose derivative by x is the named function of value (and of what else is known): the chain rule does not
  look into it."""
  return UOp(Ops.DETACH, value.dtype, (value, x, *known), (name, *axes))

# ---- exponentials, logarithms, roots ---------------------------------------------------------------------------------

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
  near = magnitude(x) < 0.25
  small = near.where(x, 0)
  s = small / (small + 2)
  series = polynomial(s * s, [2 / n for n in range(19, 0, -2)]) * s
  return near.where(series, (x + 1).alu(Ops.LOG2) * math.log(2))

@in_float32
def expm1(x: UOp) -> UOp:
  """exp(x)-1 = 2t/(1-t), t = tanh(x/2), near zero."""
  near = magnitude(x) < 1
  t = tanh(near.where(x, 0) * 0.5)
  return near.where(t * 2 / (1 - t), scaled_exp2(x) - 1)

# Cephes' tanh near zero: x + x^3 P(x^2) / Q(x^2)
TANH_P = (-9.64399179425052238628e-1, -9.92877231001918586564e1, -1.61468768441708447952e3)
TANH_Q = (1.0, 1.12811678491632931402e2, 2.23548839060100448583e3, 4.84406305325125486048e3)

@in_float32
def tanh(x: UOp) -> UOp:
  """A rational function near zero; else sign(x) (1-e)/(1+e), e = exp(-2|x|), which cannot overflow."""
  near = magnitude(x) < 0.625
  small = near.where(x, 0)
  z = small * small
  centre = small * (1 + z * (polynomial(z, TANH_P) / polynomial(z, TANH_Q)))              # a product keeps -0
  e = scaled_exp2(magnitude(x) * -2)
  tail = (1 - e) / (1 + e)
  return with_slope("tanh", near.where(centre, with_sign_of(x, tail)), x)

@in_float32
def sigmoid(x: UOp) -> UOp:
  """1/(1+e) or e/(1+e), e = exp(-|x|): neither the value nor the derivative overflows."""
  e = scaled_exp2(-magnitude(x))
  return with_slope("sigmoid", (x < 0).where(e, e.like(1)) / (1 + e), x)

def halves(x: UOp) -> tuple[UOp, UOp]:
  """e^|x|/2 and e^-|x|/2, by e^(|x|/2): the first is infinite only where sinh and cosh are."""
  root = scaled_exp2(magnitude(x) * 0.5)
  return root * 0.5 * root, root.like(0.5) / root / root

@in_float32
def sinh(x: UOp) -> UOp:
  near = magnitude(x) < 1
  small = near.where(x, 0)
  large, rest = halves(x)
  return near.where((expm1(small) - expm1(-small)) * 0.5, with_sign_of(x, large - rest))

@in_float32
def cosh(x: UOp) -> UOp:
  large, rest = halves(x)
  return large + rest

# Minimax polynomials of N. Juffa's erff: below 0.93 erf(x) = x + x P(x^2), above 1 - exp(t Q(t) - t) with t = |x|
ERF_P = (-5.96761703e-4, 4.99119423e-3, -2.67681349e-2, 1.12819925e-1, -3.76125336e-1, 1.28379166e-1)
ERF_Q = (-1.72853470e-5, 3.83197126e-4, -3.88396438e-3, 2.42546219e-2, -1.06777877e-1, -6.34846687e-1, -1.28717512e-1)

@in_float32
def erf(x: UOp) -> UOp:
  """Within 1e-7; 1 from 6 on, where the derivative is zero."""
  near = magnitude(x) < 0.927734375
  small = near.where(x, 0)
  centre = small + small * polynomial(small * small, ERF_P)
  t = magnitude(near.where(x.like(1), x))
  t = (t > 6).where(6, t)
  outside = 1 - scaled_exp2(t * polynomial(t, ERF_Q) - t)
  return near.where(centre, with_sign_of(x, outside))

# log2 P(|x|) = |x| T(|x|) - 1 for the part P of a normal distribution that lies beyond |x|: a minimax polynomial for
# 0..6, which falls to minus infinity from there on
NORMAL_T = (-3.42328010e-8, 9.69624790e-7, -1.18690354e-5, 8.01308144e-5, -2.87297371e-4, 6.60170177e-6, 6.94832791e-3,
            -5.24472991e-2, -4.59217688e-1, -1.15110462)

@in_float32
def normal(x: UOp) -> UOp:
  """The part of a normal distribution that lies below x. Within 1e-7, and below -1 within 1e-5 of itself down to -5."""
  t = magnitude(x)
  beyond = (t * polynomial(t, NORMAL_T) - 1).alu(Ops.EXP2)
  return with_slope("normal", (x < 0).where(beyond, 1 - beyond), x)

# (1 + tanh(u))/2 for the tanh formula's u: 1/(1 + e^-2u), 2u = x (a + b x^2)
TANH_A, TANH_B = math.sqrt(8 / math.pi), math.sqrt(8 / math.pi) * 0.044715

@in_float32
def normal_by_tanh(x: UOp) -> UOp:
  """The same by the tanh formula of Hendrycks and Gimpel (2016), as a sigmoid of powers of 2: a product less."""
  square, log2_e = x * x, 1 / math.log(2)
  e = (magnitude(x) * (square * (-TANH_B * log2_e) + -TANH_A * log2_e)).alu(Ops.EXP2)
  return with_slope("sigmoid", (x < 0).where(e, e.like(1)) / (1 + e), x * (square * TANH_B + TANH_A))

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
  return with_sign_of(x, angle)

asin = in_float32(lambda x: atan(x / (1 - x * x).alu(Ops.SQRT)))
acos = in_float32(lambda x: math.pi / 2 - asin(x))

@in_float32
def atan2(y: UOp, x: UOp) -> UOp:
  """The angle of the point (x, y)."""
  origin = x.eq(0) & y.eq(0)
  angle = atan(y / origin.where(x.like(1), x))
  turn = (y < 0).where(x.like(-math.pi), x.like(math.pi))
  return (x < 0).where(angle + turn, angle)
