# fold.py: constants are computed and identities applied, bit for bit as the machine would: true for every dtype, safe
# for C. In: any form, tensor to flat. Out: the same values from fewer nodes; a commutative op has its constant second.
# What holds only for mathematical integers is index.py's. A constant may be repeated: over a shape by RESHAPE and
# EXPAND, over lanes by STACK; `number` looks through both.
from __future__ import annotations
import math
from typing import Any, Callable
from picograd.dtype import DType, dtypes, pack, unpack
from picograd.ops.match import Pat, Rules
from picograd.ops.ops import ALU, COMMUTATIVE, INFO, MOVEMENT, Ops
from picograd.ops.uop import UOp

REPEATED = frozenset({Ops.CONST, Ops.STACK, Ops.RESHAPE, Ops.EXPAND})

def number(u: UOp) -> Any:
  """The number that each element and lane of u is, where u is one constant repeated, else None."""
  while u.op is not Ops.CONST:
    if u.op not in REPEATED or len(set(u.src)) != 1: return None
    u = u.src[0]
  return u.arg

class Const(Pat):
  """Matches one constant, repeated or not; with a value, only that number (0 is also -0.0)."""
  __slots__ = ("value",)

  def __init__(self, name: str | None = None, value: Any = None):
    super().__init__(REPEATED, name=name)
    self.value = value

  def accepts(self, u: UOp) -> bool:
    value = number(u) if u.op in REPEATED else None
    return value is not None and (self.value is None or value == self.value)

# ---- the value of an op on constants ---------------------------------------------------------------------------------

def bitcast_number(value, source, target):
  """None for bool, pointers and NaN: a Python float does not keep a NaN's bits."""
  known = all(dt in dtypes.ints + dtypes.floats for dt in (source, target))
  if not known or source.bits != target.bits or math.isnan(value): return None
  result = unpack(pack(value, source), target)
  return None if math.isnan(result) else result

def cast_number(value, target):
  """None where machines differ (a float beyond the integer's limits) or where float64 would round first."""
  if target.is_int and isinstance(value, float):
    if not math.isfinite(value): return None
    value = int(value)
    return value if target is dtypes.index or target.min <= value <= target.max else None
  rounds_twice = target.is_floating_point and isinstance(value, int) and int(float(value)) != value
  return None if rounds_twice and target is not dtypes.float64 else value

def evaluate(u: UOp, values: list[Any]) -> Any | None:
  """What u is on these numbers, before it is brought into u's dtype. None: leave it to the machine."""
  if dtypes.float80 in (u.dtype, *[s.dtype for s in u.src]): return None         # float64 has too few digits
  if u.op is Ops.BITCAST: return bitcast_number(values[0], u.src[0].dtype.scalar, u.dtype.scalar)
  if u.op is Ops.CAST: return cast_number(values[0], u.dtype.scalar)
  if u.op in (Ops.IDIV, Ops.MOD) and values[1] == 0: return None
  if u.op in (Ops.SHL, Ops.SHR) and not 0 <= values[1] < u.dtype.bits: return None
  if u.op is Ops.MULACC and u.dtype.is_floating_point: return None         # float64 would round the sum twice
  meaning = INFO[u.op].meaning
  return None if meaning is None else meaning(*values)

def fold_constants(u):
  values = [number(s) for s in u.src]
  result = None if None in values else evaluate(u, values)
  return None if result is None else u.like(result)

# ---- identities that need more than a line ---------------------------------------------------------------------------

def of_kind(letters: str) -> Callable[[DType], bool]: return lambda dt: dt.kind in letters

is_integer = of_kind("buix")
is_exact = of_kind("buixp")                # sums of it may be regrouped: pointers too
is_machine_integer = of_kind("ui")
is_unsigned = of_kind("u")
is_bool = of_kind("b")
is_float = of_kind("f")

def constant_second(u, x, c):
  """c op x = x op c. MAX of two zeros gives the first, so there the order of floats is kept."""
  keep = u.op is Ops.MAX and u.dtype.is_floating_point and number(c) == 0
  return None if keep or number(x) is not None else u.with_src((x, c))

def add_negative_zero(x, c):
  """x + -0.0 = x for each float; x + 0.0 is not, since -0.0 + 0.0 = 0.0."""
  return x if math.copysign(1.0, number(c)) < 0 else None

def divide_by_power_of_two(x, c):
  """x / 2^k = x * 2^-k: both round the same real number. Not where 2^-k is denormal: a machine may flush it to zero."""
  fraction, exponent = math.frexp(number(c))
  largest = {"float16": 14, "bfloat16": 126, "float32": 126, "float64": 1022}[x.dtype.name]
  return x * (1.0 / number(c)) if abs(fraction) == 0.5 and abs(exponent - 1) <= largest else None

def holds(wide: DType, narrow: DType) -> bool:
  """Whether each value of narrow is a value of wide."""
  if wide.scalar is narrow.scalar or narrow.kind == "b": return True
  if wide.kind == "x": return narrow.is_int
  if narrow.kind == "x" or wide.kind not in "uif" or narrow.kind not in "uif": return False
  if wide.kind != "f": return narrow.kind != "f" and wide.min <= narrow.min and narrow.max <= wide.max
  if narrow.kind == "f": return wide.bits > narrow.bits
  return narrow.bits - (narrow.kind == "i") <= wide.digits

def cast_of_cast(u, x, between):
  """cast(cast(x, b), c) = cast(x, c) where b holds each x, or where both casts only drop high bits."""
  kinds = between.dtype.kind + u.dtype.kind + x.dtype.kind
  if holds(between.dtype, x.dtype):                                    # a float out of range is b's business
    same = kinds[0] != "f" or "f" in kinds[1:] or holds(u.dtype, x.dtype)
  else: same = set(kinds) <= {"u", "i"} and between.dtype.bits >= u.dtype.bits
  return x.cast(u.dtype) if same else None

def max_with_extreme(x, c):
  """max(x, least) = x, NaN included; max(x, largest) = largest for integers."""
  if number(c) == x.dtype.min: return x
  return c if x.dtype.kind != "f" and number(c) == x.dtype.max else None

def and_with_ones(x, c):
  """x & 111..1 = x; the ones are -1, the largest unsigned value or True."""
  return x if number(c) == (x.dtype.max if x.dtype.is_unsigned else -1) else None

def mask_of_shifted(u, x, c, d):
  """(x >> c) & m = x >> c where m has all the bits that an unsigned x may have left."""
  shifted = u.src[0]
  dtype = shifted.dtype.scalar
  left = dtype.max >> number(c) if 0 <= number(c) < dtype.bits else 0
  return shifted if left and number(d) & left == left else None

def below_least(u, x, c):
  """x < least = False for machine integers."""
  return u.like(False) if number(c) == x.dtype.min else None

def regroup(u, x, c, d): return u.with_src((x, c.alu(u.op, d)))          # integers wrap: their order is free

# ---- movement of movement: tensor form -------------------------------------------------------------------------------

def pad_twice(x, inner, u):
  both = zip(inner.arg, u.arg)
  return x.pad(tuple((a + lo, b + hi) for (a, b), (lo, hi) in both))

def shrink_twice(x, inner, u):
  both = zip(inner.arg, u.arg)
  return x.shrink(tuple((a + lo, a + hi) for (a, _), (lo, hi) in both))

def flip_twice(x, inner, u):
  return x.flip(tuple(sorted(set(inner.arg) ^ set(u.arg))))
def flip_of_ones(x, u):
  return x.flip(tuple(axis for axis in u.arg if x.shape[axis] > 1))

def unmoved(x, u):
  same = u.arg == tuple(range(len(x.shape))) if u.op is Ops.PERMUTE else u.shape == x.shape
  return x if same else None

def twice(op):
  return Pat(op, (Pat(op, (x,), name="inner"),), name="u")

# ---- the rules -------------------------------------------------------------------------------------------------------

x, y, z, c, d = Pat.var("x"), Pat.var("y"), Pat.var("z"), Const("c"), Const("d")
i, m = Pat.var("x", is_exact), Pat.var("x", is_machine_integer)
b, f = Pat.var("x", is_bool), Pat.var("x", is_float)
zero, one, true, false, minus = Const("c", 0), Const("c", 1), Const(None, True), Const(None, False), Const(None, -1)
not_b = Pat(Ops.CMPNE, (b, true))
ASSOCIATIVE = (Ops.ADD, Ops.MUL, Ops.AND, Ops.OR, Ops.XOR, Ops.MAX)

def lane_of_stack(x, c):
  """Unless the STACK is a shuffle: a chain of those is chosen with care."""
  return x.src[number(c)] if x.arg is None else None

fold_alu = Rules([
  (Pat(ALU, name="u"), fold_constants),                                             # op(numbers) = a number
  (Pat(COMMUTATIVE, (c, x), name="u"), constant_second),                            # c op x = x op c
  (i + zero, lambda x, c: x),                                                       # x + 0 = x
  (f + zero, add_negative_zero),                                                    # x + -0.0 = x
  (x * one, lambda x, c: x),                                                        # x * 1 = x
  (i * zero, lambda x, c: c),                                                       # x * 0 = 0
  (x * minus * minus, lambda x: x),                                                 # -(-x) = x
  (x / c, divide_by_power_of_two),                                                  # x / 2^k = x * 2^-k
  (x // one, lambda x, c: x),                                                       # x // 1 = x
  (x % one, lambda x, c: x.like(0)),                                                # x % 1 = 0
  (Pat((Ops.AND, Ops.OR, Ops.MAX), (x, x)), lambda x: x),                           # x & x = x | x = max(x, x) = x
  (Pat(Ops.XOR, (x, x)), lambda x: x.like(0)),                                      # x ^ x = 0
  (Pat((Ops.OR, Ops.XOR, Ops.SHL, Ops.SHR), (x, zero)), lambda x, c: x),            # x | 0 = x ^ 0 = x << 0 = x
  (x & zero, lambda x, c: c),                                                       # x & 0 = 0
  (x & c, and_with_ones),                                                           # x & 111..1 = x
  ((Pat(Ops.SHR, (Pat.var("x", is_unsigned), c)) & d).named("u"), mask_of_shifted),
  (b | one, lambda x, c: c),                                                        # x | True = True
  ((x < x).named("u"), lambda x, u: u.like(False)),                                 # x < x = False, NaN too
  ((m < c).named("u"), below_least),                                                # x < least = False
  (Pat(Ops.CMPNE, (i, i), name="u"), lambda x, u: u.like(False)),                   # x != x = False
  (b.ne(false), lambda x: x),                                                       # x != False = x
  (not_b.ne(true), lambda x: x),                                                    # not not x = x
  (b.cast().ne(zero), lambda x, c: x),                                              # cast(x) != 0 = x
  (x.maximum(c), max_with_extreme),                                                 # max(x, least) = x
  (c.where(x, y), lambda c, x, y: x if number(c) else y),                           # where(True, x, y) = x
  (y.where(x, x), lambda x, y: x),                                                  # where(y, x, x) = x
  (not_b.where(y, z), lambda x, y, z: x.where(z, y)),                               # where(not x, y, z) swaps y, z
  (Pat(Ops.WHERE, (b, true, false), dtype=is_bool), lambda x: x),                   # where(x, True, False) = x
  (x.cast("u"), lambda u, x: x if u.dtype is x.dtype else None),                    # cast to the same dtype
  (x.cast("between").cast("u"), cast_of_cast),                                      # cast(cast(x)) = cast(x)
  (Pat(Ops.BITCAST, (Pat(Ops.BITCAST, (x,)),), name="u"), lambda u, x: x.bitcast(u.dtype)),
  *((Pat(op, (Pat(op, (i, c)), d), name="u"), regroup) for op in ASSOCIATIVE),      # (x op c) op d = x op (c op d)
])

fold_movement = Rules([
  (Pat(MOVEMENT - {Ops.PAD}, (c,), name="u"), lambda u, c: u.like(number(c))),      # a moved constant is a constant
  (Pat(MOVEMENT - {Ops.FLIP}, (x,), name="u"), unmoved),
  (Pat(Ops.FLIP, (x,), name="u"), flip_of_ones),
  (twice(Ops.RESHAPE), lambda x, inner, u: x.reshape(u.arg)),
  (twice(Ops.EXPAND), lambda x, inner, u: x.expand(u.arg)),
  (twice(Ops.PERMUTE), lambda x, inner, u: x.permute(tuple(inner.arg[a] for a in u.arg))),
  (twice(Ops.PAD), pad_twice), (twice(Ops.SHRINK), shrink_twice), (twice(Ops.FLIP), flip_twice),
])

fold = fold_alu + fold_movement + Rules([
  (Pat(Ops.INDEX, (Pat(Ops.STACK, name="x"), c)), lane_of_stack),                # lane c of a vector of lanes
])
