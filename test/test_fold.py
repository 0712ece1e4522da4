# fold.py: what folds equals what NumPy computes in each dtype, bit for bit but for which NaN; identities keep every
# value, the hard ones (-0.0, infinity, NaN, the limits) included; what a machine must decide stays.
import math
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from picograd.dtype import dtypes, truncate
from picograd.ops.fold import fold, holds, number
from picograd.ops.match import rewrite
from picograd.ops.ops import COMPARE, INFO, Ops
from picograd.ops.uop import UOp

NUMPY_TYPES = [dt for dt in dtypes.all if dt is not dtypes.bfloat16]
FLOATS = [dtypes.float16, dtypes.float32, dtypes.float64]
HARD = [0.0, -0.0, 1.0, -1.0, 0.5, 3.0, -7.25, 1e-5, 6e-8, 1e-45, 5e-324, 6.5e4, 3e38, 1e308,
        math.inf, -math.inf, math.nan]

def simplified(u): return rewrite(u, fold)
def leaf(dt): return UOp(Ops.PARAM, dt, (), 0)
def numpy_type(dt): return np.dtype("bool" if dt is dtypes.bool else dt.name).type
def values(dt):
  """Numbers of dt to try: small ones, the limits, and for floats the hard ones."""
  if dt.kind == "f": return sorted({repr(truncate(x, dt)): truncate(x, dt) for x in HARD}.values(), key=repr)
  return sorted({truncate(x, dt) for x in (0, 1, 2, 3, 7, -1, -2, -8, dt.min, dt.max, dt.max // 2)})

def same(a, b, dt):
  """Equal bit for bit; any NaN equals any."""
  a, b = numpy_type(dt)(a), numpy_type(dt)(b)
  return a.tobytes() == b.tobytes() or (dt.kind == "f" and bool(np.isnan(a)) and bool(np.isnan(b)))

# ---- constants -------------------------------------------------------------------------------------------------------

BY_NUMPY = {
  Ops.ADD: np.add, Ops.MUL: np.multiply, Ops.FDIV: np.divide, Ops.MAX: np.maximum,
  Ops.CMPLT: np.less, Ops.CMPNE: np.not_equal,
  Ops.AND: np.bitwise_and, Ops.OR: np.bitwise_or, Ops.XOR: np.bitwise_xor,
}
def defined(op, dt):
  if op is Ops.FDIV: return dt.kind == "f"
  return dt.kind != "f" if op in (Ops.AND, Ops.OR, Ops.XOR) else True

@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("dt", NUMPY_TYPES, ids=str)
@pytest.mark.parametrize("op", BY_NUMPY, ids=str)
def test_constants_fold_to_what_numpy_computes(op, dt):
  if not defined(op, dt): return
  for x in values(dt):
    for y in values(dt):
      u = UOp.const(dt, x).alu(op, UOp.const(dt, y))
      if op is Ops.MAX and x == y == 0: continue                        # NumPy's choice of zero depends on the machine
      expected = BY_NUMPY[op](numpy_type(dt)(x), numpy_type(dt)(y))
      assert same(simplified(u).arg, expected, u.dtype), (x, y)

@pytest.mark.parametrize("dt", dtypes.signed + dtypes.unsigned, ids=str)
def test_integer_division_truncates_as_c_does(dt):
  for x in values(dt):
    for y in values(dt):
      quotient = simplified(UOp.const(dt, x) // UOp.const(dt, y))
      remainder = simplified(UOp.const(dt, x) % UOp.const(dt, y))
      if y == 0:
        assert quotient.op is Ops.IDIV and remainder.op is Ops.MOD
        continue
      toward_zero = abs(x) // abs(y) * (1 if (x < 0) == (y < 0) else -1)
      assert quotient.arg == truncate(toward_zero, dt)
      assert remainder.arg == x - toward_zero * y

@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("source", NUMPY_TYPES, ids=str)
@pytest.mark.parametrize("target", NUMPY_TYPES, ids=str)
def test_casts_of_constants(source, target):
  for x in values(source):
    made = simplified(UOp.const(source, x).cast(target))
    to_integer = source.kind == "f" and target.kind in "ui"
    if to_integer and not (math.isfinite(x) and target.min <= int(x) <= target.max): assert made.op is Ops.CAST
    elif made.op is Ops.CAST: assert float(x) != x or int(float(x)) != x
    else: assert same(made.arg, numpy_type(source)(x).astype(numpy_type(target)), target), x

@pytest.mark.parametrize("source", [dt for dt in NUMPY_TYPES if dt.kind != "b"], ids=str)
def test_bitcasts_of_constants(source):
  for target in NUMPY_TYPES:
    if target.bits != source.bits: continue
    for x in values(source):
      made = simplified(UOp.const(source, x).bitcast(target))
      if made.op is Ops.CONST: assert same(made.arg, numpy_type(source)(x).view(numpy_type(target)), target)
      else: assert math.isnan(x) or np.isnan(numpy_type(source)(x).view(numpy_type(target)))

def test_a_shift_beyond_the_width_is_left_to_the_machine():
  for count in (32, -1, 2 ** 31 - 1):
    assert simplified(UOp.const(dtypes.int32, 5) << count).op is Ops.SHL
    assert simplified(UOp.const(dtypes.int32, 5) >> count).op is Ops.SHR
  assert simplified(UOp.const(dtypes.int32, -5) >> 1).arg == -3

@pytest.mark.parametrize("op", [Ops.EXP2, Ops.LOG2, Ops.SIN, Ops.SQRT], ids=str)
def test_transcendental_constants(op):
  by_numpy = {Ops.EXP2: np.exp2, Ops.LOG2: np.log2, Ops.SIN: np.sin, Ops.SQRT: np.sqrt}[op]
  with np.errstate(all="ignore"):
    for x in values(dtypes.float32):
      made = simplified(UOp.const(dtypes.float32, x).alu(op)).arg
      np.testing.assert_allclose(made, by_numpy(np.float32(x)), rtol=3e-7, atol=1e-44)

def test_repeated_constants_fold_in_every_form():
  vector = UOp.const(dtypes.float32.vec(4), 2.0)
  assert simplified(vector * vector) is UOp.const(dtypes.float32.vec(4), 4.0)
  tensor = UOp.const(dtypes.int32, 2).spread((2, 3))
  assert simplified((tensor + tensor).cast(dtypes.float32)) is UOp.const(dtypes.float32, 4.0).spread((2, 3))
  assert simplified(tensor.permute((1, 0)).reshape((6,)).shrink(((1, 4),))) is UOp.const(dtypes.int32, 2).spread((3,))
  assert number(tensor.pad(((1, 0), (0, 0)))) is None

# ---- identities: each expression of one unknown keeps its value for every number and dtype ---------------------------

def expressions(x):
  """Expressions in x, with constants where rules look for them, on either side."""
  dt, out = x.dtype, []
  constants = [0, 1, -1, 2, 3, dt.min, dt.max] + ([-0.0, 0.5, 4.0, -2.0 ** 14] if dt.kind == "f" else [])
  for op in (Ops.ADD, Ops.MUL, Ops.MAX, Ops.CMPLT, Ops.CMPNE, Ops.AND, Ops.OR, Ops.XOR, Ops.FDIV):
    if not defined(op, dt): continue
    out.append(x.alu(op, x))
    for c in constants: out += [x.alu(op, x.like(c)), x.like(c).alu(op, x)]
    out += [x.alu(op, x.like(c)).alu(op, x.like(d)) for c in constants for d in constants if op not in COMPARE]
  truth = UOp.const(dtypes.bool, True)
  for c in [x < x.like(1), truth, x.ne(x), x.ne(0).cast(dtypes.int8).ne(0)]:
    out += [d.where(x, x.like(1)) for d in (c, c.not_())]
    out += [c.where(x.like(1), x.like(0)), c.where(x, x), c.not_().not_(), c.where(c, c.not_())]
  return out

def run(u, x, value):
  """u with this value for x, each op rounded to its dtype."""
  done = {x: value}
  for node in u.toposort():
    if node in done: continue
    if node.op is Ops.CONST: done[node] = node.arg
    else: done[node] = truncate(INFO[node.op].meaning(*(done[s] for s in node.src)), node.dtype)
  return done[u]

@pytest.mark.parametrize("dt", NUMPY_TYPES, ids=str)
def test_identities_keep_every_value(dt):
  x = leaf(dt)
  for u in expressions(x):
    after = simplified(u)
    for value in values(dt): assert same(run(u, x, value), run(after, x, value), u.dtype), (u, after, value)

@pytest.mark.parametrize("first", NUMPY_TYPES, ids=str)
def test_a_cast_of_a_cast_keeps_every_value(first):
  x = leaf(first)
  for between in NUMPY_TYPES:
    for last in NUMPY_TYPES:
      u = x.cast(between).cast(last)
      after = simplified(u)
      if after is u: continue
      for value in values(first):
        to_integer = isinstance(value, float) and {between.kind, last.kind} & {"u", "i"}
        if to_integer and not 0 <= value <= 127: continue                 # what a machine makes of it differs
        assert same(run(u, x, value), run(after, x, value), last), (between, last, value)

def test_lossless_casts():
  assert holds(dtypes.int32, dtypes.uint16) and not holds(dtypes.uint32, dtypes.int8)
  assert holds(dtypes.float32, dtypes.int16) and not holds(dtypes.float32, dtypes.int32)
  assert holds(dtypes.float64, dtypes.uint32) and not holds(dtypes.bfloat16, dtypes.float16)
  x = leaf(dtypes.int64)
  assert simplified(x.cast(dtypes.int32).cast(dtypes.int8)) is x.cast(dtypes.int8)
  assert simplified(x.cast(dtypes.int8).cast(dtypes.int32)) is x.cast(dtypes.int8).cast(dtypes.int32)

# ---- known forms -----------------------------------------------------------------------------------------------------

def test_float_identities_that_do_not_hold_stay():
  x = leaf(dtypes.float32)
  for u in [x + 0.0, x * 0.0, x.ne(x), (x + 1.0) + 2.0, (x * 3.0) * 5.0, x / 3.0, x / 0.0, x / 2.0 ** 127]:
    assert simplified(u) is u
  assert simplified(x + -0.0) is x
  assert simplified(x - 0.0) is x
  assert simplified(x / 8.0) is x * 0.125
  assert simplified(x / -1.0) is x * -1.0
  assert simplified(-(-x)) is x
  assert simplified(x.maximum(-math.inf)) is x

def test_integer_identities():
  x = leaf(dtypes.int32)
  assert simplified((x + 3) + 4) is x + 7
  assert simplified(3 * (x * 5)) is x * 15
  assert simplified(x ^ x) is x.like(0)
  p, eight = leaf(dtypes.ptr), UOp.const(dtypes.int64, 8)
  assert simplified(p + eight + eight) is p + UOp.const(dtypes.int64, 16)
  assert simplified(x & -1) is x
  assert simplified(x.maximum(-2 ** 31)) is x
  assert simplified(leaf(dtypes.uint8) & 255) is leaf(dtypes.uint8)
  shifted = leaf(dtypes.uint32) >> 15
  assert simplified(shifted & 0x1ffff) is shifted and simplified(shifted & 0xffff).op is Ops.AND
  assert simplified((leaf(dtypes.int32) >> 15) & 0x1ffff).op is Ops.AND
  assert simplified(leaf(dtypes.uint8) < 0) is UOp.const(dtypes.bool, False)

def test_a_lane_of_a_vector_of_lanes():
  x, y = leaf(dtypes.float32), UOp(Ops.PARAM, dtypes.float32, (), 1)
  vector = UOp(Ops.STACK, dtypes.float32.vec(2), (x, y))
  assert simplified(UOp(Ops.INDEX, dtypes.float32, (vector, UOp.const(dtypes.index, 1)))) is y

def test_movement_of_movement():
  x = UOp.buffer(dtypes.float32, 24, "CPU").reshape((2, 3, 4))
  assert simplified(x.reshape((6, 4)).reshape((2, 3, 4))) is x
  assert simplified(x.permute((2, 0, 1)).permute((1, 2, 0))) is x
  assert simplified(x.flip((0, 1)).flip((1, 0))) is x
  twice = x.shrink(((0, 2), (1, 3), (1, 4))).shrink(((0, 1), (1, 2), (0, 2)))
  assert simplified(twice) is x.shrink(((0, 1), (2, 3), (1, 3)))
  assert simplified(x.pad(((1, 0), (0, 0), (0, 2))).pad(((1, 0), (3, 0), (0, 0)))) is x.pad(((2, 0), (3, 0), (0, 2)))
  for op, arg in [(Ops.PERMUTE, (0, 1, 2)), (Ops.EXPAND, (2, 3, 4)), (Ops.PAD, ((0, 0),) * 3), (Ops.FLIP, ())]:
    assert simplified(UOp(op, dtypes.float32, (x,), arg)) is x

def test_long_chains_need_no_recursion():
  u = x = leaf(dtypes.int32)
  for k in range(20_000): u = (u ^ x) + k
  assert simplified(u).op is Ops.ADD

@settings(max_examples=200, deadline=None)
@given(st.integers(-2 ** 63, 2 ** 63 - 1), st.sampled_from([dtypes.float16, dtypes.float32, dtypes.float64]))
def test_integer_to_float_rounds_once(x, target):
  made = simplified(UOp.const(dtypes.int64, x).cast(target))
  with np.errstate(all="ignore"):
    if made.op is Ops.CONST: assert same(made.arg, np.int64(x).astype(numpy_type(target)), target)
