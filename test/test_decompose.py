# test_decompose.py: each decomposition against an exact reference, evaluated node by node in the node's dtype; errors
# of the polynomials are measured in units of the last place against extended precision.
import math
import numpy as np
import picograd
import pytest
from picograd.arithmetic import magnitude
from picograd.dtype import dtypes, fused_multiply_add
from picograd.ops import decompose
from picograd.ops.match import rewrite, rewrite_top_down
from picograd.ops.ops import INFO, Ops
from picograd.ops.uop import UOp, toposort
from graphs import leaf, value
from graph_eval import bfloat16_values, evaluate, fma, numpy_type

EXTENDED = np.longdouble
FLOATS = (dtypes.float32, dtypes.float64)
SIMPLE = {Ops.ADD, Ops.MUL, Ops.MULACC, Ops.CAST, Ops.BITCAST, Ops.AND, Ops.OR, Ops.XOR, Ops.SHL, Ops.SHR, Ops.CMPLT,
          Ops.CMPNE, Ops.WHERE, Ops.CONST, Ops.STACK, Ops.PARAM}

def variable(dtype, slot=0): return UOp(Ops.PARAM, dtype, (), slot)

def run(function, x, dtype):
  v = variable(dtype)
  return evaluate(function(v), {v: x})

def lowered(u, missing_ops=frozenset({Ops.EXP2, Ops.LOG2, Ops.SIN}), missing_dtypes=frozenset()):
  u = rewrite_top_down(u, decompose.make_defined(missing_ops, True))
  return rewrite(u, decompose.lower_operations(missing_ops, missing_dtypes))

def ops_of(u): return {n.op for n in toposort([u])}

# ---- polynomials -----------------------------------------------------------------------------------------------------

def last_place(reference, dtype):
  limits = np.finfo(numpy_type(dtype))
  size = np.maximum(np.abs(reference), EXTENDED(limits.tiny))
  return np.exp2(np.floor(np.log2(size))) * EXTENDED(limits.eps)

def largest_error(function, reference, x, dtype):
  x = x.astype(numpy_type(dtype))
  expected = reference(x.astype(EXTENDED))
  got = run(function, x, dtype)
  return float((np.abs(got.astype(EXTENDED) - expected) / last_place(expected, dtype)).max())

def spread(low, high, n=100_000): return np.random.default_rng(1).uniform(low, high, n)

EXPONENTS = {dtypes.float32: (-149, 127.99), dtypes.float64: (-1074, 1023.99)}

@pytest.mark.parametrize("dtype", FLOATS)
def test_exponentials_within_one_ulp(dtype):
  low, high = EXPONENTS[dtype]
  for scale in (1.0, 1 / high):
    x = spread(low * scale, high * scale)
    assert largest_error(decompose.exp2_polynomial, np.exp2, x, dtype) <= 1
    assert largest_error(decompose.exp_polynomial, np.exp, x * math.log(2), dtype) <= 1

@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("function, reference",
                         [(decompose.exp2_polynomial, np.exp2), (decompose.exp_polynomial, np.exp)])
def test_exponentials_of_what_is_never_positive(dtype, function, reference):
  """One power of two is enough where two are wanted in general; one bound; and no choice for a magnitude."""
  def power(x): return function(-magnitude(x))
  def exact(x): return reference(-np.abs(x))
  low, _ = EXPONENTS[dtype]
  for x in (spread(low, -low), spread(-1, 1), np.array([-0.0, low - 1, low - 2, 2 * low])):
    assert largest_error(power, exact, x, dtype) <= 1
  special = np.array([np.inf, -np.inf, np.nan], numpy_type(dtype))
  assert np.array_equal(run(power, special, dtype), np.array([0, 0, np.nan], special.dtype), equal_nan=True)
  v = variable(dtype)
  arguments = v, -v, -magnitude(v), magnitude(v) * -v
  shifts = [sum(u.op is Ops.SHL for u in toposort([function(x)])) for x in arguments]
  choices = [sum(u.op is Ops.WHERE for u in toposort([function(x)])) for x in arguments]
  assert shifts == [2, 2, 1, 2] and choices == [2, 2, 1, 3]

def test_signs():
  x, y = variable(dtypes.float32), variable(dtypes.float32, 1)
  up = x * x + 2.0
  for u, sign in ((x, 0), (magnitude(x), 1), (up, 1), (up * -magnitude(y), -1), (up + x, 0), (-up + 1.0, 0),
                  (-up + -1.0, -1),
                  ((x < y).where(up, y.alu(Ops.EXP2)), 1), ((x < y).where(up, -up), 0), ((x < 0).where(-y, y), 0)):
    assert decompose.sign_of(u) == sign, u

@pytest.mark.parametrize("dtype", FLOATS)
def test_exponentials_by_the_machines_powers(dtype):
  low, high = EXPONENTS[dtype]
  for scale in (1.0, 1 / high):
    x = spread(low * scale, high * scale)
    assert largest_error(decompose.exp_by_exp2, np.exp, x * math.log(2), dtype) <= 4
  got = run(decompose.exp_by_exp2, np.array([0, -np.inf, np.inf, -1e9, 1e9, np.nan], numpy_type(dtype)), dtype)
  assert np.array_equal(got, [1, 0, np.inf, 0, np.inf, np.nan], equal_nan=True)
  x = variable(dtype)
  as_power = lowered((x * math.log2(math.e)).alu(Ops.EXP2), frozenset({Ops.SIN}))
  assert Ops.EXP2 in ops_of(as_power) and Ops.EXP2 not in ops_of(lowered((x * math.log2(math.e)).alu(Ops.EXP2)))

@pytest.mark.parametrize("dtype", FLOATS)
def test_logarithms_within_one_ulp(dtype):
  low, high = EXPONENTS[dtype]
  for x in (np.exp2(spread(low, high).astype(EXTENDED)), spread(0.5, 2), spread(0.99, 1.01)):
    x = x[x != 1]
    assert largest_error(decompose.log2_polynomial, np.log2, x, dtype) <= 1
    assert largest_error(decompose.log_polynomial, np.log, x, dtype) <= 1

@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("limit", [1, 4, 100, 1e4, 1e6])
def test_sines_within_three_ulp(dtype, limit):
  x = spread(-limit, limit)
  assert largest_error(decompose.sin_polynomial, np.sin, x, dtype) <= 3
  assert largest_error(decompose.cos_polynomial, np.cos, x, dtype) <= 3

LARGE = [16367173.0 * 2.0**72, 3e38, 2.0**127, 1e22, 1048576.0, 123456789.0]      # the first is nearly a multiple of pi

@pytest.mark.parametrize("dtype", FLOATS)
def test_large_arguments_of_sine(dtype):
  mpmath = pytest.importorskip("mpmath")
  x = np.exp2(spread(18, EXPONENTS[dtype][1], 300)).astype(numpy_type(dtype))
  x = np.concatenate([x, -x, np.array(LARGE, x.dtype)])
  tolerance = 2 * np.finfo(x.dtype).eps
  with mpmath.workprec(1200):
    sines = [float(mpmath.sin(mpmath.mpf(float(v)))) for v in x]
    cosines = [float(mpmath.cos(mpmath.mpf(float(v)))) for v in x]
  assert np.abs(run(decompose.sin_polynomial, x, dtype) - sines).max() < tolerance
  assert np.abs(run(decompose.cos_polynomial, x, dtype) - cosines).max() < tolerance

INF, NAN = math.inf, math.nan
SPECIALS = {
  "exp": (decompose.exp_polynomial, [INF, -INF, NAN, 0, -0.0, 1e-45, 89, -104, -103.9],
          [INF, 0, NAN, 1, 1, 1, INF, 0, 1e-45]),
  "exp2": (decompose.exp2_polynomial, [INF, -INF, NAN, 0, 1, -3, 128, -149, -150],
           [INF, 0, NAN, 1, 2, .125, INF, 1e-45, 0]),
  "log2": (decompose.log2_polynomial, [INF, -INF, NAN, 0, -0.0, 1, 8, -1, 1e-45],
           [INF, NAN, NAN, -INF, -INF, 0, 3, NAN, -149]),
  "log": (decompose.log_polynomial, [INF, -INF, NAN, 0, -0.0, 1, -1e-45], [INF, NAN, NAN, -INF, -INF, 0, NAN]),
  "sin": (decompose.sin_polynomial, [INF, -INF, NAN, 0, -0.0, 1e-45, -1e-45], [NAN, NAN, NAN, 0, -0.0, 1e-45, -1e-45]),
  "cos": (decompose.cos_polynomial, [INF, -INF, NAN, 0, -0.0, 1e-45], [NAN, NAN, NAN, 1, 1, 1]),
}

@pytest.mark.parametrize("name", SPECIALS)
def test_special_values(name):
  function, x, expected = SPECIALS[name]
  got = run(function, np.array(x, np.float32), dtypes.float32)
  assert np.array_equal(got, np.array(expected, np.float32), equal_nan=True)
  assert np.array_equal(np.signbit(got[~np.isnan(got)]), np.signbit(np.array(expected)[~np.isnan(got)]))

@pytest.mark.parametrize("dtype", dtypes.floats)
@pytest.mark.parametrize("count", [1, 4])
def test_only_simple_ops_are_left(dtype, count):
  x = variable(dtype.vec(count))
  for function in (decompose.exp2_polynomial, decompose.exp_polynomial, decompose.log2_polynomial,
                   decompose.log_polynomial, decompose.sin_polynomial, decompose.cos_polynomial):
    u = function(x)
    assert u.dtype is x.dtype and ops_of(u) <= SIMPLE

def test_a_tensor_is_as_good_as_a_scalar():
  x = UOp.buffer(dtypes.float32, 5, "CPU")
  values = np.linspace(-3, 3, 5, dtype=np.float32)
  got = evaluate(decompose.exp_polynomial(x), {x: values})
  assert np.allclose(got, np.exp(values), rtol=2e-7)

@pytest.mark.parametrize("dtype", FLOATS)
def test_composed_functions_are_recognised(dtype):
  for lanes in (1, 4):
    x = variable(dtype.vec(lanes))
    assert lowered((x * math.log2(math.e)).alu(Ops.EXP2)) is decompose.exp_polynomial(x)
    assert lowered(x.alu(Ops.LOG2) * math.log(2)) is decompose.log_polynomial(x)
    assert lowered((math.pi / 2 + x).alu(Ops.SIN)) is decompose.cos_polynomial(x)
    assert lowered(x.alu(Ops.EXP2)) is decompose.exp2_polynomial(x)

COMPOSED = {
  "exp2": (lambda x: x.alu(Ops.EXP2), decompose.exp2_polynomial),
  "exp": (lambda x: (x * math.log2(math.e)).alu(Ops.EXP2), decompose.exp_polynomial),
  "log2": (lambda x: x.alu(Ops.LOG2), decompose.log2_polynomial),
  "log": (lambda x: x.alu(Ops.LOG2) * math.log(2), decompose.log_polynomial),
  "sin": (lambda x: x.alu(Ops.SIN), decompose.sin_polynomial),
  "cos": (lambda x: (math.pi / 2 - x).alu(Ops.SIN), decompose.cos_polynomial),
}

@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", COMPOSED)
def test_native_code_computes_the_same_bits(name, dtype):
  pytest.importorskip("llvmlite")
  build, polynomial = COMPOSED[name]
  x = np.concatenate([spread(-100, 100, 1000), np.exp2(spread(-148, 127.9, 1000)), [INF, -INF, NAN, 0, -0.0, 1e-45]])
  x = x.astype(numpy_type(dtype))
  got = np.asarray(value(build(leaf(x)))).reshape(-1)
  assert np.array_equal(got, run(polynomial, x, dtype), equal_nan=True)

# ---- the exact fused multiply-add ------------------------------------------------------------------------------------

def test_fused_multiply_add_rounds_once():
  random = np.random.default_rng(3)
  for dtype in FLOATS:
    x, y = (random.standard_normal(2000).astype(numpy_type(dtype)) for _ in range(2))
    z = (-x * y * (1 + random.integers(-2, 3, 2000) * np.finfo(x.dtype).eps)).astype(x.dtype)
    expected = fma(x, y, z, dtype)
    got = np.array([fused_multiply_add(float(a), float(b), float(c), dtype) for a, b, c in zip(x, y, z)])
    assert np.array_equal(got.astype(x.dtype), expected)

def test_fused_multiply_add_of_special_values():
  assert math.copysign(1, fused_multiply_add(-0.0, 1.0, -0.0, dtypes.float64)) == -1
  assert math.copysign(1, fused_multiply_add(2.0, 3.0, -6.0, dtypes.float64)) == 1
  assert fused_multiply_add(1e300, 1e300, -INF, dtypes.float64) == -INF
  assert math.isnan(fused_multiply_add(INF, 0.0, 1.0, dtypes.float32))
  assert fused_multiply_add(1e38, 10.0, 0.0, dtypes.float32) == INF
  tie = 1 + 2.0**-24                                        # rounded to float64 first, the sum would be a tie
  assert fused_multiply_add(tie, 1.0, 2.0**-80, dtypes.float32) == 1 + 2.0**-23

# ---- division --------------------------------------------------------------------------------------------------------

def edge_values(dtype):
  """Numbers where a division by a constant is most likely to go wrong."""
  random = np.random.default_rng(5)
  values = [0, 1, 2, 3, 7, dtype.max, dtype.max - 1, dtype.min, dtype.min + 1, dtype.max // 2, dtype.max // 2 + 1]
  drawn = random.integers(dtype.min, dtype.max, 2000, dtype=numpy_type(dtype), endpoint=True)
  return np.concatenate([np.array(values, drawn.dtype), drawn])

def around_multiples(d, dtype):
  quotients = edge_values(dtype)[:200].astype(object) // d * d
  near = [q + k for q in quotients for k in (-1, 0, 1)]
  return np.array([v for v in near if dtype.min <= v <= dtype.max], numpy_type(dtype))

DIVISORS = [1, 2, 3, 5, 6, 7, 9, 10, 11, 12, 25, 48, 64, 100, 125, 127, 641, 1000, 65535, 65536, 65537, 1000003,
            2**30, 2**31 - 1, 2**31, 2**31 + 1, 2**32 - 1]

@pytest.mark.parametrize("dtype", dtypes.ints)
@pytest.mark.parametrize("op", [Ops.IDIV, Ops.MOD])
def test_division_by_constants(dtype, op):
  x = variable(dtype)
  for size in DIVISORS:
    for d in (size, -size):
      if not dtype.min <= d <= dtype.max: continue
      u = rewrite(x.alu(op, x.like(d)), decompose.division_by_constant)
      if dtype.bits <= 32 or size & (size - 1) == 0: assert ops_of(u) <= SIMPLE
      values = np.concatenate([edge_values(dtype), around_multiples(d, dtype)])
      direct = evaluate(x.alu(op, x.like(d)), {x: values})
      assert np.array_equal(evaluate(u, {x: values}), direct), (dtype, op, d)

def test_division_by_small_constants_exhaustively():
  for dtype in (dtypes.int8, dtypes.uint8):
    x = variable(dtype)
    values = np.arange(dtype.min, dtype.max + 1, dtype=numpy_type(dtype))
    for d in range(dtype.min, dtype.max + 1):
      if d == 0: continue
      for op in (Ops.IDIV, Ops.MOD):
        expected = [INFO[op].meaning(int(v), d) for v in values]
        got = evaluate(rewrite(x.alu(op, x.like(d)), decompose.division_by_constant), {x: values})
        assert np.array_equal(got, np.array(expected).astype(got.dtype)), (dtype, d, op)

@pytest.mark.parametrize("dtype", dtypes.ints)
def test_division_by_a_variable_cannot_trap(dtype):
  x, y = variable(dtype), variable(dtype, 1)
  numbers = [0, 1, 5, dtype.max, dtype.min] + ([] if dtype.is_unsigned else [-1, -5])
  pairs = np.array([(a, b) for a in numbers for b in numbers], numpy_type(dtype))
  for op in (Ops.IDIV, Ops.MOD):
    u = lowered(x.alu(op, y))
    feed = {x: pairs[:, 0], y: pairs[:, 1]}
    division = next(n for n in toposort([u]) if n.op is op)
    divisors = evaluate(division.src[1], feed)
    assert not np.isin(divisors, [0] if dtype.is_unsigned else [0, -1]).any()
    assert np.array_equal(evaluate(u, feed), evaluate(x.alu(op, y), feed))
    assert lowered(u) is u

# ---- casts and 16-bit floats -----------------------------------------------------------------------------------------

@pytest.mark.parametrize("source", FLOATS)
@pytest.mark.parametrize("target", dtypes.ints)
def test_float_to_int_is_defined_everywhere(source, target):
  small, large = [0, -0.5, 1.9, -1.9, 300.7, -3e9], [2.0**62, 2.0**63, -(2.0**63), 1.5 * 2.0**63, 2.0**64, 1e30]
  values = np.array([*small, *large, INF, -INF, NAN]).astype(numpy_type(source))
  x = variable(source)
  u = lowered(x.cast(target))
  for cast in (n for n in toposort([u]) if n.op is Ops.CAST and n.src[0].dtype is source):
    operand = evaluate(cast.src[0], {x: values})
    assert cast.dtype is dtypes.int64 and (operand >= -(2.0**63)).all() and (operand < 2.0**63).all()
  limit = 64 if target is dtypes.uint64 else 63
  whole = [int(v) if math.isfinite(v) and -(2**63) <= int(v) < 2**limit else 0 for v in values.tolist()]
  expected = [v & (1 << target.bits) - 1 for v in whole]
  got = evaluate(u, {x: values}).astype(np.uint64) & np.uint64((1 << target.bits) - 1)
  assert got.tolist() == expected

HALVES = frozenset({dtypes.float16, dtypes.bfloat16})

@pytest.mark.parametrize("dtype", HALVES)
def test_halves_compute_in_float32(dtype):
  x, y = variable(dtype), variable(dtype, 1)
  u = lowered((x * y + 1.5).alu(Ops.SQRT).maximum(x) / y, missing_dtypes=HALVES)
  arithmetic = [n for n in toposort([u]) if n.op in (Ops.ADD, Ops.MUL, Ops.SQRT, Ops.MAX, Ops.FDIV)]
  assert arithmetic and not any(n.dtype in HALVES for n in arithmetic)
  assert lowered(x < y, missing_dtypes=HALVES).src[0].dtype is dtypes.float32
  product = lowered(x * y, missing_dtypes=frozenset({dtypes.float16}))
  a, b = (np.random.default_rng(s).standard_normal(500).astype(np.float16) for s in (1, 2))
  if dtype is dtypes.float16: assert np.array_equal(evaluate(product, {x: a, y: b}), a * b)

def test_bfloat16_casts_by_bits():
  x = variable(dtypes.float32)
  values = np.random.default_rng(9).integers(0, 2**32, 20000, dtype=np.uint32).view(np.float32)
  edges = [0, -0.0, INF, -INF, NAN, 3.4e38, 1e-45, 1.00390625, 1.01171875]
  values = np.concatenate([values, np.array(edges, np.float32)])
  values = np.concatenate([values, np.array([0x7F800001, 0xFFFFFFFF], np.uint32).view(np.float32)])
  u = rewrite(x.cast(dtypes.bfloat16), decompose.bfloat16_by_bits)
  got = evaluate(u, {x: values})
  assert np.array_equal(got, bfloat16_values(values), equal_nan=True)
  back = variable(dtypes.bfloat16)
  widened = rewrite(back.cast(dtypes.float32), decompose.bfloat16_by_bits)
  assert np.array_equal(evaluate(widened, {back: got}), got, equal_nan=True)

def test_half_functions_have_no_rounded_product():
  x = variable(dtypes.float16)
  values = np.linspace(-10, 10, 1001).astype(np.float16)
  u = lowered((x * math.log2(math.e)).alu(Ops.EXP2), missing_dtypes=HALVES)
  assert np.array_equal(evaluate(u, {x: values}), np.exp(values.astype(np.float64)).astype(np.float16))

# ---- what a target may lack ------------------------------------------------------------------------------------------

def test_maximum_by_comparison_keeps_nan():
  x, y = variable(dtypes.float32), variable(dtypes.float32, 1)
  u = lowered(x.maximum(y), missing_ops=frozenset({Ops.MAX}))
  a = np.array([1, 2, NAN, 1, INF], np.float32)
  b = np.array([2, 1, 1, NAN, -INF], np.float32)
  assert Ops.MAX not in ops_of(u)
  assert np.array_equal(evaluate(u, {x: a, y: b}), np.maximum(a, b), equal_nan=True)

def test_integer_mulacc_is_two_ops():
  x = variable(dtypes.int32)
  assert lowered(x.alu(Ops.MULACC, x, x)) is x * x + x
  f = variable(dtypes.float32)
  assert lowered(f.alu(Ops.MULACC, f, f)).op is Ops.MULACC
  assert lowered(f.alu(Ops.MULACC, f, f), missing_ops=frozenset({Ops.MULACC})) is f * f + f

# ---- threefry: the known answers that come with Random123 ------------------------------------------------------------

ANSWERS = [
  ((0, 0), (0, 0), (0x6b200159, 0x99ba4efe)),
  ((0xffffffff,) * 2, (0xffffffff,) * 2, (0x1cb996fc, 0xbb002be7)),
  ((0x243f6a88, 0x85a308d3), (0x13198a2e, 0x03707344), (0xc4923a9c, 0x483df7a0)),
]

@pytest.mark.parametrize("counter, key, answer", ANSWERS)
def test_threefry_known_answers(counter, key, answer):
  words = [UOp.const(dtypes.uint32, w) for w in counter + key]
  assert tuple(int(evaluate(u, {})) for u in decompose.threefry(*words)) == answer

def test_threefry_of_a_tensor():
  counter = UOp.iota(4, dtypes.uint32)
  zeros = counter.like(0)
  first, second = (evaluate(u, {}) for u in decompose.threefry(counter, zeros, zeros, zeros))
  assert (first[0], second[0]) == ANSWERS[0][2] and len(set(first.tolist())) == 4

def test_rare_lanes_among_usual_ones():
  """What is computed behind a branch is right whichever lanes of a vector need it."""
  usual = np.random.default_rng(2).uniform(0.1, 9, 4099).astype(np.float32)
  odd = np.array([0, -0.0, np.inf, -np.inf, np.nan, 1e-40, -1, 3e38, 1e30, 2.0**21, 1e-45], np.float32)
  for every in (1, 3, 16, 1000):
    x = usual.copy()
    x[::every] = np.resize(odd, x[::every].shape)
    with np.errstate(all="ignore"): log, sin = np.log(x.astype(np.float64)), np.sin(x.astype(np.float64))
    np.testing.assert_allclose(picograd.tensor(x).log().numpy(), log, rtol=2e-7)
    np.testing.assert_allclose(picograd.tensor(x).sin().numpy(), sin, rtol=3e-7, atol=1e-7)
