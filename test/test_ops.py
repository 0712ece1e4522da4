# test_ops.py: every operation of Tensor and nn.functional, value and gradient, against the reference of harness.py.
# Each list is rows (expression, input, input, ..); a bare shape is float32 uniform in [-2, 2], seed 0.
import math
import numpy as np
import pytest
import harness
from harness import (BACKWARD, Case, Data, HAS_TORCH, Ints, NARROW, Tolerance, Uniform, cases, check, crossed,
                     oracle_reference, values_only)

INTS = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64")
TORCH_INTS = ("uint8", "int8", "int16", "int32", "int64")
FLOATS = ("float16", "bfloat16", "float32", "float64")
DTYPES = ("bool",) + INTS + FLOATS
SHAPES = [(), (1,), (0,), (3, 0, 2), (5, 7), (2, 3, 4, 5)]
needs_torch = pytest.mark.skipif(not HAS_TORCH, reason="the expected value is torch's own")

def over(*lists): return pytest.mark.parametrize("case", [case for rows in lists for case in rows], ids=str)

# ---- elementwise -----------------------------------------------------------------------------------------------------

ANY_SIGN = [
  "x.exp()", "x.exp2()", "x.sin()", "x.cos()", "x.tanh()", "x.sigmoid()", "x.relu()", "x.abs()", "x.square()", "-x",
  "x.sign()", "x.floor()", "x.ceil()", "x.round()", "x.trunc()", "x.erf()", "x.reciprocal()"]
POSITIVE = ["x.log()", "x.log2()", "x.log10()", "x.sqrt()", "x.rsqrt()", "x.log1p()"]
ACTIVATIONS = [
  "F.relu(x)", "F.sigmoid(x)", "F.tanh(x)", "F.silu(x)", "F.leaky_relu(x)", "F.leaky_relu(x, 0.2)", "F.elu(x)",
  "F.elu(x, alpha=1.5)", "F.softplus(x)", "F.softplus(x, beta=2.0)", "F.gelu(x)", "F.gelu(x, approximate='tanh')"]

@over(
  crossed(ANY_SIGN, [(5, 7)]),
  crossed(POSITIVE, [Uniform((5, 7), 0.1, 2.0)]),
  cases(("x.tan()", Uniform((5, 7), -1.4, 1.4))))
def test_unary(case): check(case)

@over(crossed(ACTIVATIONS, [(5, 7)]))
def test_activation(case): check(case)

@over(
  crossed([f"lib.{name}(x)" for name in ("exp", "sin", "tanh", "abs", "sign", "floor", "relu", "sigmoid")], [(3, 5)]),
  crossed([f"lib.{name}(x)" for name in ("log", "sqrt", "rsqrt", "log2", "log10")], [Uniform((3, 5), 0.1, 2.0)]))
def test_unary_function_of_the_module(case): check(case)

@over(crossed(["x.exp()", "F.relu(x)", "x * 2 + 1", "x.clone()", "F.gelu(x)"], SHAPES))
def test_unary_over_shapes(case): check(case)

@over(
  crossed(
    [
      "x + y", "x - y", "x * y", "lib.maximum(x, y)", "lib.minimum(x, y)", "x.maximum(y)", "x.add(y)", "x.mul(y)",
      "x.sub(y)"],
    [[(5, 7), (5, 7)]]),
  crossed(["x / y", "x.div(y)", "x % y", "y ** x", "lib.pow(y, x)"], [[(5, 7), Uniform((5, 7), 0.5, 2.0)]]),
  values_only(
    ("x // y", (5, 7), Uniform((5, 7), 0.5, 2.0)),
    ("x // 0.75", (4, 5)),
    ("3 // x", Uniform((4, 5), 0.5, 2.0))))
def test_binary(case): check(case)

PAIRS = [[(5, 7), (7,)], [(5, 7), (5, 1)], [(1, 7), (5, 1)], [(), (3, 4)], [(3, 4), ()], [(2, 1, 4), (3, 1)],
         [(0, 3), (1, 3)], [(2, 0), ()], [(1,), (1, 1, 1)], [(4, 1, 1, 2), (3, 5, 1)]]
@over(crossed(["x + y", "x * y", "lib.where(x < y, x * 2, y)"], PAIRS))
def test_broadcasting(case): check(case)

@over(
  crossed(
    [
      "x + 2", "2 + x", "x - 1.5", "1.5 - x", "x * 3", "3 * x", "x / 2", "x ** 2", "x ** 3", "2 ** x", "x + True",
      "x ** 0", "x ** 1", "x % 0.75", "x.clamp(-1, 1)", "x.clamp(min=0.5)", "x.clamp(max=0.5)", "x.clip(-0.5, 1.5)",
      "lib.clamp(x, -1.0, 1.0)", "x.maximum(lib.tensor(0.5))", "lib.where(x > 0, x, 0.0)", "lib.where(x > 0, 1.0, x)",
      "x.where(x > 0.5, -x)"],
    [(4, 5)]),
  crossed(["2 / x", "1 / x", "x ** 0.5", "x ** -1", "x ** -1.5", "lib.pow(x, 2.5)"], [Uniform((4, 5), 0.5, 2.0)]))
def test_scalars_on_either_side(case): check(case)

VIEWS = [
  "x.T", "x.transpose(0, 1)", "x.flip(0)", "x.flip(0, 1)", "x[::2]", "x[:, 1::3]", "x[1:-1, 2:]", "x[2]", "x[:, None]",
  "x.unsqueeze(1).expand(6, 3, 8)", "x.reshape(8, 6).T", "x.T.reshape(4, 12)", "x[:, ::2].T.reshape(-1)",
  "x.view(2, 3, 8).permute(2, 0, 1)", "x.T.flip(0)[1::2].T", "x.T.contiguous()", "x.t().flatten()[3:20].view(17)"]
@over(
  crossed(
    VIEWS + [f"{v}.exp() * 2" for v in VIEWS[:8]] + [f"{v} + {v}" for v in VIEWS[8:]] + [
      f"({v}).sum(0)" for v in VIEWS],
    [(6, 8)]))
def test_views(case): check(case)

@over(
  crossed(
    [
      "x.T.square().sum()", "(x.flip(0) * x).sum(1)", "x[::2].T @ x[::2]", "x.T.softmax(0)", "(x.T + y).T",
      "x.T.max(0)[0]"],
    [[(5, 7), (7, 5)]]),
  cases(("x.expand(4, 5).T.cumsum(0)", (5,)), ("x.permute(2, 0, 1).mean(0)", (2, 3, 4))))
def test_operations_on_views(case): check(case)

COMPARISONS = ["x < y", "x <= y", "x > y", "x >= y", "x == y", "x != y"]
SMALL = Data([[1, 2, 3], [3, 2, 1]])
@over(
  crossed(
    COMPARISONS,
     [
      [SMALL, Data([[2, 2, 2]])],
      [SMALL, Data(2.0)],
      [Ints((3, 4), -2, 3), Ints((3, 4), -2, 3)],
      [Ints((4,), 0, 3, "uint8"), Ints((4,), -1, 3, "int8")],
      [Ints((4,)), (4,)],
      [Data([True, False], "bool"), Data([True, True], "bool")],
      [Data([[math.nan, math.inf, -math.inf, -0.0]]), Data([[math.nan], [math.inf], [0.0]])]],
    backward=None),
  crossed(
    ["x < 2", "2 < x", "x >= 2.0", "x == 2", "x != 1.5", "2 >= x", "x.eq(2)", "x.ne(2)", "x.lt(2)", "x.ge(2)"],
    [SMALL],
    backward=None),
  values_only(
    ("~(x > 1)", SMALL),
    ("(x > 1) & (x < 3)", SMALL),
    ("(x > 1) | (x < 2)", SMALL),
    ("(x > 1) ^ (x > 2)", SMALL),
    ("(x > 1).sum()", SMALL),
    ("(x > 1).float().mean()", SMALL),
    ("lib.isnan(x)", Data([math.nan, 1, math.inf])),
    ("lib.isinf(x)", Data([math.nan, 1, math.inf, -math.inf])),
    ("(x > 1).any(1)", SMALL),
    ("(x > 1).all()", SMALL)))
def test_comparison(case): check(case)

EDGES = Data(
  [
    0.0, -0.0, 1.0, -1.0, math.inf, -math.inf, math.nan, 1e-38, -1e-38, 3e38, -3e38, 88.0, -88.0, 104.0, -104.0, 0.5,
    20.0])
@over(
  crossed(
    [
      "x.exp()", "x.exp2()", "x.log()", "x.log2()", "x.sqrt()", "x.rsqrt()", "x.tanh()", "x.sigmoid()", "x.relu()",
      "x.abs()", "x.sign()", "x.floor()", "x.ceil()", "x.round()", "x.trunc()", "x.reciprocal()", "x.erf()",
      "F.softplus(x)", "x * 0", "x + inf", "1 / x", "x / 0", "x.isnan()", "x.isinf()", "x.maximum(lib.tensor(0.0))",
      "x.clamp(-1, 1)", "x.minimum(lib.tensor(1.0))", "x == x", "x < 0", "x ** 2", "x ** 0", "x.max()", "x.bool()"],
    [EDGES],
    backward=None))
def test_edge_values(case): check(case)

@over(
  values_only(
    ("1 / lib.where(x == 0, x, x)", Data([-0.0, 0.0])),
    ("1 / (x * -1)", Data([0.0, -0.0])),
    ("1 / x.abs()", Data([-0.0])),
    ("1 / x.neg()", Data([0.0])),
    ("1 / (x + 0.0)", Data([-0.0])),
    ("1 / x.floor()", Data([-0.0])),
    ("1 / x.round()", Data([-0.3, 0.3])),
    ("1 / x.ceil()", Data([-0.5])),
    ("1 / x.trunc()", Data([-0.5]))))
def test_sign_of_zero(case): check(case)

@over(
  values_only(
    ("x.sin()", Data([0.0, 1.0, 10.0, 100.0, 1e3, 1e4, 1e5, 1e6, -1e5, 3.1415927, 6.2831855])),
    ("x.cos()", Data([0.0, 1.0, 10.0, 100.0, 1e3, 1e4, 1e5, 1e6, -1e5, 1.5707964, 4.712389])),
    ("x.sin()", Data([math.inf, -math.inf, math.nan])),
    ("x.exp()", Data([-87.5, -90.0, -100.0, 88.7, 1e-9])),
    ("x.log()", Data([1e-45, 1e-40, 1.1754944e-38, 1.0000001, 0.9999999, 3.4e38])),
    ("x.tanh()", Data([1e-6, -1e-6, 1e-4, 9.0, -9.0, 20.0])),
    ("x.exp2()", Data([-126.0, -127.0, -149.0, 127.0, 127.99, 128.0])),
    ("x.round()", Data([0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 0.49999997, 8388609.0]))))
def test_hard_arguments(case): check(case)

# ---- integers --------------------------------------------------------------------------------------------------------

def signed_pair(dtype):
  """Dividends and divisors of both signs where the dtype has them; no divisor is zero."""
  if dtype.startswith("u"): return [Data([0, 1, 7, 8, 100, 255], dtype), Data([1, 2, 3, 8, 7, 254], dtype)]
  return [Data([-7, 7, -7, 7, 0, -8, 100, -128], dtype), Data([2, 2, -2, -2, -3, 4, -7, 127], dtype)]

INTEGER = [
  "x + y", "x - y", "x * y", "x // y", "x % y", "x & y", "x | y", "x ^ y", "lib.maximum(x, y)", "lib.minimum(x, y)"]
@over([Case(text, tuple(signed_pair(dtype)), backward=None) for dtype in TORCH_INTS for text in INTEGER])
def test_integer_arithmetic(case): check(case)

@over(
  [
    Case(text, tuple(signed_pair(dtype)), backward=None)
    for dtype in ("uint16", "uint32", "uint64") for text in INTEGER + COMPARISONS])
def test_wide_unsigned_arithmetic(case): check(case, oracle_reference)

@over(
  [
    Case(text, (Data([0, 1, 3, 5, 100], dtype),), backward=None) for dtype in INTS for text in (
      "x << 1", "x >> 1", "x << 3", "x >> 2")])
def test_shift(case): check(case, oracle_reference)

@over(
  values_only(
    ("x >> 1", Data([-1, -2, -7, -128], "int8")),
    ("x >> 2", Data([-1, -5, -100], "int32")),
    ("x << y", Ints((4,)), Ints((4,), 0, 5)),
    ("x >> y", Ints((4,), 0, 99), Ints((4,), 0, 5)),
    ("~x", Ints((4,))),
    ("~x", Data([0, 7, 255], "uint8")),
    ("-x", Ints((4,))),
    ("abs(x)", Ints((4,))),
    ("x.sign()", Ints((4,))),
    ("x ** 2", Ints((4,))),
    ("x ** 3", Ints((4,), dtype="int32")),
    ("x / 2", Ints((4,))),
    ("x / y", Ints((4,)), Ints((4,), 1, 5)),
    ("1 / x", Ints((4,), 1, 9)),
    ("x * 2", Ints((4,), dtype="int8")),
    ("x * 1.5", Ints((4,), dtype="int8")),
    ("x + True", Ints((4,), dtype="uint8")),
    ("x + y", Data([True, False], "bool"), Ints((2,))),
    ("x + y", Data([True, True], "bool"), Data([True, False], "bool")),
    ("x * y", Data([True, True], "bool"), Data([True, False], "bool")),
    ("x.sum()", Data([True, True, False], "bool")),
    ("x.exp()", Ints((4,), 0, 3)),
    ("x.sqrt()", Ints((4,), 0, 9)),
    ("x.clamp(-1, 2)", Ints((6,))),
    ("x.clamp(0.5, 1.5)", Ints((6,))),
    ("x % 3", Ints((8,))),
    ("x // 3", Ints((8,))),
    ("x % -3", Ints((8,))),
    ("x // -3", Ints((8,))),
    ("-7 // x", Data([2, -2, 3], "int64")),
    ("-7 % x", Data([2, -2, 3], "int64")),
    ("x // 0.75", Ints((8,))),
    ("lib.where(x > 0, x, -x)", Ints((8,))),
    ("x.relu()", Ints((8,))),
    ("x.square()", Ints((8,))),
    ("x + 200", Data([100, 200], "uint8")),
    ("x - 1", Data([0], "uint8")),
    ("x * x", Data([2147483647, -5], "int32")),
    ("x + 1", Data([9223372036854775807], "int64")),
    ("x % y", (5,), Uniform((5,), -2, -0.5)),
    ("x // y", (5,), Uniform((5,), -2, -0.5)),
    ("x * 3", Data([2 ** 40 + 1, -2 ** 40], "int64")),
    ("x // 10", Data([2 ** 62, -2 ** 62], "int64")),
    ("x == y", Data([2 ** 53 + 1], "int64"), Data([2 ** 53], "int64"))))
def test_integer_details(case): check(case)

@pytest.mark.parametrize("text", ["x // y", "x % y", "x // 0", "x % 0"])
@pytest.mark.parametrize("dtype", ["int32", "int64", "uint8"])
def test_integer_division_by_zero_raises(text, dtype):
  case = Case(text, (Data([1, 2], dtype), Data([1, 0], dtype)), backward=None)
  with pytest.raises((ZeroDivisionError, RuntimeError), match="(?i)zero"): harness.run(harness.picograd(), case)

# ---- dtypes ----------------------------------------------------------------------------------------------------------

def castable(source, target):
  """Values that every pair of dtypes defines: no overflow except of integers among themselves."""
  if source == "bool": return [True, False]
  if source in FLOATS: return [0.0, 1.0, 2.5, 100.5] if target.startswith("u") else [0.0, 1.0, -1.5, 2.5, 100.5, -100.5]
  return [0, 1, 5, 127] if source.startswith("u") else [0, 1, -1, 5, 127, -128]

@over(
  [
    Case(f"x.to(lib.{target})", (Data(castable(source, target), source),), backward=None)
    for source in DTYPES for target in DTYPES])
def test_cast(case): check(case)

@over(
  values_only(
    ("x.float()", Ints((3,))),
    ("x.half()", (3,)),
    ("x.bfloat16()", (3,)),
    ("x.double()", (3,)),
    ("x.long()", (3,)),
    ("x.int()", (3,)),
    ("x.bool()", Data([0, 1, -2.5])),
    ("x.type(lib.int32)", (3,)),
    ("x.to(lib.uint8)", Data([255, 256, -1, 300], "int64")),
    ("x.to(lib.int8)", Data([127, 128, 255, 256], "int32")),
    ("x.to(lib.int32)", Data([2 ** 31, 2 ** 32 + 5], "int64"))))
def test_cast_methods(case): check(case)

@over(
  cases(
    ("x.half().float() * 2", (3, 4)),
    ("x.double().exp().float()", (3, 4)),
    ("x.to(lib.float64) * y", (3,), (3,)),
    ("x.half() * 2.0", (3,)),
    ("(x > 0).float() * x", (5,)),
    ("x * y", (4,), Ints((4,))),
    ("x + y", (4,), Data([True, False, True, True], "bool"))),
  cases(("x.bfloat16() + y.half()", (3,), (3,)), forward=NARROW["bfloat16"], backward=NARROW["bfloat16"]))
def test_gradient_through_casts(case): check(case)

@over(
  crossed(
    ["x + y", "x * y"],
     [
      [Data([1, 2], a), Data([3, 4], b)] for i,
      a in enumerate(DTYPES) for b in DTYPES[i + 1:] if not {a, b} & {"uint16", "uint32", "uint64"}],
    backward=None))
def test_promotion(case): check(case)

@over(
  values_only(
    ("x + 1", Data([1, 2], "int32")),
    ("x + 1.0", Data([1, 2], "int32")),
    ("x + 1.0", Data([1, 2], "float16")),
    ("x + 1", Data([1, 2], "bfloat16")),
    ("x + 1", Data([True], "bool")),
    ("x * 1.0", Data([True], "bool")),
    ("x + 1.0", Data([1, 2], "float64")),
    ("x + y", Data([1, 2], "float16"), Data(1.0, "float32")),
    ("x + y", Data([1, 2], "int32"), Data(1, "int64")),
    ("x + y", Data([1, 2], "int32"), Data(1.5, "float32")),
    ("lib.where(x > 1, 1.0, 0.0)", Data([1, 2], "float64")),
    ("x.mean()", Data([1, 2], "float16")),
    ("x.sum()", Data([1, 2], "int8")),
    ("x.sum()", Data([1, 2], "float16")),
    ("lib.cat([x, y])", Data([1], "int32"), Data([1.5])),
    ("lib.stack([x, y])", Data([1], "int32"), Data([1], "int64")),
    ("x.cumsum(0)", Data([1, 2], "int32")),
    ("x.prod()", Data([1, 2], "int32")),
    ("x.argmax()", Data([1, 2], "float16"))))
def test_result_dtype(case): check(case)

NARROW_OPS = [
  "x + y", "x - y", "x * y", "x / y", "x.exp()", "x.sin()", "x.tanh()", "x.sigmoid()", "F.relu(x)", "F.gelu(x)",
  "F.silu(x)", "x.abs()", "x.sqrt()", "x.log()", "x ** 2", "lib.maximum(x, y)", "lib.where(x > y, x, y)", "x.max()",
  "x.max(1)[0]", "x.amin(0)", "x.clamp(0.7, 1.5)", "x.sum(1)", "x.mean(0)", "x.softmax(1)", "x.log_softmax(1)",
  "x @ y.T", "x.logsumexp(1)", "x.T + 1", "x[1]", "-x", "1.0 - x", "x * 0.1"]
@over(
  [
    Case(
      text,
      (Uniform((4, 5), 0.5, 2.0, dtype), Uniform((4, 5), 0.5, 2.0, dtype)),
      backward=NARROW.get(dtype, BACKWARD)) for dtype in ("float16", "bfloat16", "float64") for text in NARROW_OPS])
def test_float_dtypes(case): check(case)

def test_casts_round_to_the_nearest_even():
  lib = harness.picograd()
  exact = [1 + 2 ** -11, 1 + 3 * 2 ** -11, 65519.0, 65520.0, 2 ** -25, 2 ** -24, 6e-8]
  got = lib.tensor(exact, dtype=lib.float64).half().double().tolist()
  with np.errstate(over="ignore"): assert got == np.array(exact).astype("float16").astype("float64").tolist()
  exact = [1 + 2 ** -8, 1 + 3 * 2 ** -8, 1 + 2 ** -8 + 2 ** -20, -(1 + 2 ** -8)]
  assert lib.tensor(exact).bfloat16().float().tolist() == [1.0, 1 + 2 ** -6, 1 + 2 ** -7, -1.0]

# ---- movement --------------------------------------------------------------------------------------------------------

MOVEMENT = [
  "x.reshape(4, 6)", "x.reshape(-1)", "x.reshape(2, -1, 2)", "x.reshape((6, 4))", "x.view(24)", "x.view(-1, 3)",
  "x.permute(2, 0, 1)", "x.permute((1, 2, 0))", "x.transpose(0, 2)", "x.transpose(-1, -2)", "x.unsqueeze(0)",
  "x.unsqueeze(-1)", "x.unsqueeze(2)", "x[:1].squeeze(0)", "x[:1].squeeze()", "x.squeeze(0)",
  "x.unsqueeze(1).expand(-1, 3, -1, -1)", "x.expand(2, 2, 3, 4)", "x.repeat(2, 1, 1)", "x.repeat(2, 1, 3, 1)",
  "x.flatten()", "x.flatten(1)", "x.flatten(0, 1)", "x.flatten(start_dim=1)", "x.unflatten(2, (2, 2))",
  "x.unflatten(-1, (-1, 2))", "x.movedim(0, 2)", "x.movedim(-1, 0)", "x.flip(0)", "x.flip(1, 2)", "x.flip((0, -1))",
  "x.roll(1, 0)", "x.roll(-2, 2)", "x.roll((1, 2), (0, 1))", "x.roll(3)", "x.split(2, 2)", "x.split([1, 3], 2)",
  "x.split(2, dim=1)", "x.chunk(2, 2)", "x.chunk(2, dim=-1)", "lib.cat([x, x * 2])", "lib.cat([x, x[:, :1]], 1)",
  "lib.cat((x, x, x), dim=-1)", "lib.stack([x, x + 1])", "lib.stack([x, x], -1)", "lib.stack((x, x), dim=1)",
  "x[0].tril()", "x.triu()", "x.tril(-1)", "x.triu(1)", "lib.tril(x, 1)", "x.contiguous()", "x.clone()",
  "lib.flip(x, (0,))", "lib.roll(x, 1, 1)", "x[0, 0].diag()",
  "x[:, :, :3].reshape(2, 9)[:, :4].reshape(2, 2, 2)[0].diag()", "lib.trace(x[0])", "F.pad(x, (1, 2))",
  "F.pad(x, (1, 0, 0, 2))", "F.pad(x, (1, 1, 1, 1, 1, 1), value=3.0)", "F.pad(x, (-1, 1))", "F.pad(x, (-1, -1, 2, -1))",
  "x.unbind(1)", "lib.unbind(x)"]
@over(crossed(MOVEMENT, [(2, 3, 4)]))
def test_movement(case): check(case)

@over(
  cases(
    ("x.T", (3, 4)),
    ("x.t()", (3, 4)),
    ("x.reshape(())", (1,)),
    ("x.expand(3)", ()),
    ("x.reshape(1, 1)", ()),
    ("x.reshape(0, 5)", (0, 2)),
    ("x.expand(0, 3)", (1, 3)),
    ("lib.cat([x, y])", (0, 3), (2, 3)),
    ("lib.cat([x, y, z], 1)", (2, 1), (2, 3), (2, 2)),
    ("lib.stack([x, y])", (), ()),
    ("x.repeat(0, 2)", (2, 3)),
    ("x.flatten()", ()),
    ("x.transpose(0, 1)", (0, 3)),
    ("x.flip(0)", (0, 3)),
    ("x.squeeze()", (1, 3, 1)),
    ("x.squeeze(-1)", (2, 1)),
    ("x.tril()", (5, 3)),
    ("x.triu()", (3, 5)),
    ("x.tril()", (0, 3)),
    ("x.split(3)", (7, 2)),
    ("x.chunk(4)", (6,)),
    ("lib.cat([x.T, x.T])", (2, 3)),
    ("lib.cat([x[::2], x.flip(0)])", (5, 2)),
    ("x.expand(2, 3, 4).sum(2)", (3, 1)),
    ("x.permute(1, 0).reshape(12)", (3, 4)),
    ("x.diag(1)", (4, 4)),
    ("lib.diag(x)", (3,)),
    ("F.pad(x, (0, 0))", (2, 2)),
    ("F.pad(x, (1, 1))", (0,)),
    ("x.view(2, 2).T.reshape(4, 1)[:2]", (4,))))
def test_movement_shapes(case): check(case)

@over(
  values_only(
    ("x.size()", (2, 3)),
    ("x.size(1)", (2, 3)),
    ("x.shape[0]", (2, 3)),
    ("x.ndim", (2, 3)),
    ("x.dim()", (2, 3)),
    ("x.numel()", (2, 3)),
    ("x.tolist()", Ints((2, 3))),
    ("x.item()", (1, 1)),
    ("len(x)", (3, 2)),
    ("x.is_floating_point()", (1,)),
    ("x.is_floating_point()", Ints((1,))),
    ("x.tolist()", Data(2.5)),
    ("[float(v) for v in x]", (3,)),
    ("float(x)", ()),
    ("int(x)", Ints(())),
    ("bool(x > 5)", ())))
def test_reading(case): check(case)

# ---- creation --------------------------------------------------------------------------------------------------------

CREATION = [
  "lib.zeros(2, 3)", "lib.zeros((2, 3))", "lib.ones(4)", "lib.ones(2, dtype=lib.int64)", "lib.full((2, 2), 3.5)",
  "lib.full((2,), 3)", "lib.full((2,), True)", "lib.arange(5)", "lib.arange(2, 7)", "lib.arange(1, 10, 3)",
  "lib.arange(5, 0, -2)", "lib.arange(0, 1, 0.25)", "lib.arange(3.0)", "lib.arange(4, dtype=lib.float32)",
  "lib.arange(0)", "lib.linspace(0, 1, 5)", "lib.linspace(-3, 2, 7)", "lib.eye(3)", "lib.eye(2, 4)", "lib.tensor(2)",
  "lib.tensor(2.5)", "lib.tensor(True)", "lib.tensor([1, 2])", "lib.tensor([[1.0, 2], [3, 4]])", "lib.tensor([])",
  "lib.tensor([True, False])", "lib.tensor([1, 2.5])", "lib.tensor([1, 2], dtype=lib.float16)", "lib.zeros(0, 3)",
  "lib.zeros(())", "lib.tensor([[]])", "lib.tensor(-0.0)", "lib.tensor([1, 2]) / lib.tensor([0, 0])"]
@over(
  crossed(CREATION, [[]], backward=None),
  values_only(
    ("lib.zeros_like(x)", (2, 3)),
    ("lib.ones_like(x)", Ints((2,))),
    ("lib.full_like(x, 7)", (2,)),
    ("lib.zeros_like(x, dtype=lib.int32)", (2,))))
def test_creation(case): check(case)

# ---- indexing --------------------------------------------------------------------------------------------------------

INDEXING = [
  "x[0]", "x[-1]", "x[1, 2]", "x[1, 2, 3]", "x[:, 1]", "x[..., 0]", "x[0, ..., 1]", "x[1:]", "x[:-1]", "x[1:3]",
  "x[::2]", "x[1::2, ::3]", "x[:, 1:3, 2]", "x[2:2]", "x[5:]", "x[-2:]", "x[:100]", "x[None]", "x[:, None]",
  "x[..., None]", "x[None, :, None, 1]", "x[...]", "x[:]", "x[0:1, :, -1:]", "x[lib.tensor([0, 2])]",
  "x[lib.tensor([0, -1, 0])]", "x[[0, 2]]", "x[lib.tensor([[0, 1], [2, 2]])]", "x[:, lib.tensor([1, 1, 0])]",
  "x[..., lib.tensor([3, 0])]", "x[lib.tensor([0, 1]), lib.tensor([1, 2])]",
  "x[lib.tensor([[0], [1]]), lib.tensor([1, 2])]", "x[lib.tensor([0, 1]), :, lib.tensor([1, 2])]",
  "x[:, lib.tensor([0, 1]), lib.tensor([1, 2])]", "x[0, lib.tensor([1, 0])]", "x[lib.tensor([0, 1]), 1:, 2]",
  "x[1:, lib.tensor([1, 0])]", "x[lib.tensor(1)]", "x[lib.tensor([0, 1]), None, 0]", "x[lib.arange(3), lib.arange(3)]",
  "x[x > 0]", "x[x > 5]", "x[lib.tensor([True, False, True])]", "x[:, lib.tensor([True, False, True, True])]",
  "x[0][x[0] > 0]", "x[lib.zeros(0, dtype=lib.int64)]", "x[lib.arange(3).view(3, 1), lib.arange(2).view(1, 2)]",
  "x.index_select(1, lib.tensor([2, 0]))", "x.index_select(0, lib.tensor([1, 1, 1]))", "x.masked_fill(x > 0, 9.0)",
  "x.masked_fill(x[0] > 0, -9.0)", "x.masked_select(x > 0)", "x.gather(0, lib.tensor([[[0, 1, 2, 0, 1]]]))",
  "x.gather(2, lib.tensor([[[4, 0], [1, 1]]]))", "lib.gather(x, 1, lib.tensor([[[3, 2, 1, 0, 0]]]))", "x[-3:-1, ::4]",
  "x[(0, 1)]", "x[0, 0, 0]"]
@over(crossed(INDEXING, [(3, 4, 5)]))
def test_indexing(case): check(case)

@over(
  cases(
    ("x[y]", (6,), Ints((4,), 0, 6)),
    ("x[y]", (6, 2), Ints((2, 3), -6, 6)),
    ("x[y, z]", (4, 4), Ints((5,), 0, 4), Ints((5,), 0, 4)),
    ("x[y]", (6,), Ints((4,), 0, 6, "int32")),
    ("F.embedding(y, x)", (6, 3), Ints((2, 5), 0, 6)),
    ("x[y].sum(0)", (6, 3), Ints((20,), 0, 6)),
    ("x[y].T @ x[y]", (6, 3), Ints((4,), 0, 6)),
    ("x.gather(1, y)", (4, 6), Ints((4, 3), 0, 6)),
    ("x[lib.arange(4), y]", (4, 6), Ints((4,), 0, 6)),
    ("x.exp()[lib.arange(4), y].log().mean()", (4, 6), Ints((4,), 0, 6)),
    ("x[0]", (1,)),
    ("x[None]", ()),
    ("x[...]", ()),
    ("x[:0]", (3, 2)),
    ("x[0:0, 1:]", (3, 2)),
    ("x[:, 0]", (0, 2))))
def test_indexing_by_inputs(case): check(case)

@over(
  crossed(
    ["x[::-1]", "x[::-2]", "x[3:0:-1]", "x[:, ::-1]", "x[-1:-4:-2, 1]", "x[::-1, ::-1]", "x[1:3:-1]", "x[::-1].exp()"],
    [(5, 3)]))
def test_negative_steps(case): check(case, oracle_reference)

SETITEM = [
  "x[0] = 1.0", "x[1, 2] = 5", "x[:, 1] = 0", "x[1:3] = y[1:3]", "x[::2, 1::2] = -1.0", "x[..., 0] = y[..., 0]",
  "x[0] = y[1]", "x[-1] = y[0, 0]", "x[:] = 0", "x[lib.tensor([0, 2])] = 3.0", "x[lib.tensor([0, 2])] = y[:2]",
  "x[lib.tensor([0, 2]), lib.tensor([1, 1])] = 7.0", "x[:, lib.tensor([3, 0])] = y[:, :2]", "x[x > 0] = 0.0",
  "x[x < y] = 1.5", "x[lib.tensor([True, False, True])] = 2.0", "x[1] += 1", "x[:, 0] *= 2", "x[0, 1:3] -= y[0, 1:3]",
  "x[1] = x[0] * 2", "x[0], x[1] = x[1].clone(), x[0].clone()", "x[2:] = y[:1]", "x[None, 0] = y[:1]"]
@over(crossed([f"x = x * 1; {line}; x * 2" for line in SETITEM], [[(3, 4), (3, 4)]]))
def test_setitem(case): check(case)

@over(
  values_only(
    ("x[0] = 7; x", Ints((3,))),
    ("x[1:] = x[:2].clone(); x", (3,)),
    ("x[0] = 2.7; x", Ints((3,))),
    ("z = x; z += 1; x", (3,)),
    ("y = x[1]; x[1] = 5.0; y", (3, 2)),
    ("y = x.view(6); y[0] = 9.0; x", (3, 2)),
    ("y = x[1]; y[0] = 9.0; x", (3, 2)),
    ("y = x.T; y[0] = 9.0; x", (3, 2)),
    ("x.add_(1); x", (3,)),
    ("x.mul_(2).add_(1); x", (3,)),
    ("x.zero_(); x", (3,)),
    ("x.fill_(3); x", (3,)),
    ("x.copy_(y); x", (3,), (3,)),
    ("x.copy_(y); x", (2, 3), (3,)),
    ("y = x.clone(); x.zero_(); y", (3,)),
    ("y = x.detach(); y.zero_(); x", (3,)),
    ("y = x + 1; x.zero_(); y", (3,)),
    ("x -= 1; x *= 2; x /= 4; x", (3,)),
    ("x[0].fill_(5.0); x", (2, 2)),
    ("x.data[0] = 4.0; x", (3,))))
def test_in_place_forms(case): check(case)

@over(
  cases(
    ("x.scatter(1, y, z)", (3, 5), Data([[0, 2], [1, 4], [3, 0]], "int64"), (3, 2)),
    ("x.scatter(0, y, 2.5)", (3, 2), Data([[2, 0]], "int64")),
    ("x.scatter_add(0, y, z)", (3, 4), Data([[0, 0, 2, 1], [0, 1, 2, 1]], "int64"), (2, 4)),
    ("lib.scatter(x, 1, y, z)", (2, 3), Data([[0], [2]], "int64"), (2, 1)),
    ("x = x * 1; x.scatter_(1, y, 1.0); x", (2, 3), Data([[0], [2]], "int64")),
    ("x = x * 1; x.scatter_add_(1, y, z); x", (2, 3), Data([[0, 0], [2, 1]], "int64"), (2, 2))))
def test_scatter(case): check(case)

@pytest.mark.parametrize(
  "text",
   [
    "x[3]", "x[-4]", "x[0, 9]", "x[lib.tensor([0, 5])]", "x[lib.tensor([-4])]",
    "x.gather(0, lib.tensor([[7, 0, 0, 0]]))", "F.embedding(lib.tensor([3]), x)",
    "x.index_select(0, lib.tensor([3]))"])
def test_index_out_of_range_raises(text):
  with pytest.raises((IndexError, RuntimeError)): harness.run(harness.picograd(), Case(text, ((3, 4),), backward=None))

# ---- reductions ------------------------------------------------------------------------------------------------------

REDUCTIONS = ["sum", "mean", "amax", "amin", "var", "std", "logsumexp"]
AXES = ["0", "1", "-1", "(0, 2)", "(0, 1, 2)", "-2, keepdim=True", "dim=(1, 2), keepdim=True"]
@over(
  crossed(
    [f"x.{name}({axes})" for name in REDUCTIONS for axes in AXES] + [f"x.{name}()" for name in REDUCTIONS[:-1]],
    [(3, 4, 5)]),
  crossed(
    [
      "x.sum(axis=1)", "x.sum(axis=0, keepdims=True)", "x.mean(axis=(0, 1))", "x.prod()", "x.prod(1)",
      "x.prod(-1, keepdim=True)", "lib.sum(x, 1)", "lib.mean(x, -1)", "lib.prod(x, 0)", "x.max()", "x.min()",
      "x.max(1)", "x.min(dim=0)", "x.max(-1, keepdim=True)", "x.var(1, unbiased=False)", "x.std(0, correction=0)",
      "x.var(unbiased=False)", "x.norm()", "x.norm(dim=1)", "x.norm(p=1)", "x.norm(p=3, dim=1, keepdim=True)",
      "x.cumsum(0)", "x.cumsum(-1)", "lib.cumsum(x, dim=1)", "x.sum(dtype=lib.float64)", "(x - x.mean(0)) / x.std(0)",
      "x.sum(0).sum(0)", "x.mean((0, 1)).var(0)", "x.sum().exp()"],
    [(3, 4, 5)]))
def test_reduction(case): check(case)

@over(
  cases(
    ("x.sum()", ()), ("x.sum()", (0,)), ("x.sum(0)", (0, 3)), ("x.sum(1)", (0, 3)), ("x.prod()", (0,)),
    ("x.mean()", (1,)), ("x.mean()", (0,)), ("x.max()", (1,)), ("x.sum((0, 2))", (2, 0, 3)), ("x.cumsum(0)", (1,)),
    ("x.cumsum(0)", (0,)), ("x.max(0)[0]", (1, 5)), ("x.sum(0)", (257,)), ("x.sum(1)", (3, 67)), ("x.sum(0)", (67, 3)),
    ("x.mean()", (31, 33)), ("x.max(1)[0]", (5, 129)), ("x.logsumexp(0)", (100,)), ("x.var(0)", (2, 3)),
    ("x.cumsum(0)", (70,)), ("x.cumsum(1)", (3, 130)), ("x.prod(0)", (2, 3))))
def test_reduction_shapes(case): check(case)

ONES = Data([[0.0, 1.0, 0.0], [2.0, 0.0, -1.0]])
@over(
  values_only(
    ("x.any()", ONES),
    ("x.all()", ONES),
    ("x.any(0)", ONES),
    ("x.all(1)", ONES),
    ("x.any(1, keepdim=True)", ONES),
    ("(x > 5).any()", ONES),
    ("x.bool().all(0)", ONES),
    ("x.argmax()", (4, 5)),
    ("x.argmax(0)", (4, 5)),
    ("x.argmax(-1, keepdim=True)", (4, 5)),
    ("x.argmin()", (4, 5)),
    ("x.argmin(1)", (4, 5)),
    ("lib.argmax(x, dim=1)", (4, 5)),
    ("x.argmax(1)", Data([[1, 3, 3], [2, 2, 0], [0, 0, 0]])),
    ("x.argmin(0)", Data([[1, 0], [1, 0], [2, -1]])),
    ("x.argmax()", Ints((4, 5))),
    ("x.max(1)", Data([[1, 3, 3], [2, 2, 0]])),
    ("x.max(0)", Ints((4, 5), 0, 3)),
    ("x.min(0)", Ints((4, 5), 0, 3)),
    ("x.sum()", Ints((4, 5))),
    ("x.sum(0)", Ints((4, 5), dtype="int8")),
    ("x.sum()", Ints((300,), 0, 255, "uint8")),
    ("x.max()", Data([-5, -3], "int32")),
    ("x.max()", Data([-math.inf, -math.inf])),
    ("x.min()", Data([3, 200], "uint8")),
    ("x.max()", Data([1.0, math.nan, 2.0])),
    ("x.amax(0)", Data([[1.0, math.nan], [math.nan, 2.0]])),
    ("x.sum()", Data([math.inf, -math.inf])),
    ("x.sum()", Data([math.inf, 1.0])),
    ("x.mean()", Data([1e38, 1e38])),
    ("x.prod()", Ints((6,), 1, 4)),
    ("x.all()", (0,)),
    ("x.any()", (0,)),
    ("x.sum()", Ints((0,))),
    ("x.argmax(0)", Data([math.nan, 1.0])),
    ("x.cumsum(0)", Ints((5,))),
    ("x.max()", Data([True, False], "bool"))))
def test_reduction_values(case): check(case)

EXTREMES = crossed(
  ["x.logsumexp(-1)", "x.softmax(-1)", "x.log_softmax(-1)"],
   [
    Data([[1000.0, 1000.0, 999.0], [-1000.0, -1000.0, -1001.0], [0.0, 88.0, -88.0]]),
    Data([[1e30, 0.0, -1e30]]),
    Data([[-math.inf, 0.0, 1.0]])])

@over(
  [case._replace(backward=None) for case in EXTREMES],
  values_only(
    ("x.logsumexp(0)", Data([-math.inf, -math.inf])),
    ("x.logsumexp(0)", Data([math.inf, 1.0])),
    ("x.softmax(0)", Data([math.nan, 1.0])),
    ("x.softmax(0)", Data([-math.inf, -math.inf]))))
def test_softmax_family_at_extremes(case): check(case)

@needs_torch
@over(EXTREMES, cases(("x.masked_fill(x > 0, -inf).softmax(1)", (4, 9))))
def test_softmax_gradients_at_extremes(case): check(case)

@over(
  crossed(
    [
      "x.softmax(0)", "x.softmax(-1)", "F.softmax(x, dim=1)", "lib.softmax(x, 1)", "x.log_softmax(1)",
      "F.log_softmax(x, dim=-1)", "F.softmax(x * 3, dim=-1).log()", "x.softmax(1).softmax(0)"],
    [(4, 5)]),
  cases(
    ("x.softmax(1)", (2, 3, 4)), ("x.softmax(0)", (1,)), ("x.softmax(-1)", (3, 130)), ("x.softmax(-1)", (2, 0)),
    ("x.log_softmax(-1)", (3, 65))))
def test_softmax_family(case): check(case)

@needs_torch
@over(
  cases(
    ("x.max()", Data([1, 3, 3])),
    ("x.max(0)[0]", Data([[1, 3], [1, 2]])),
    ("x.amax(0)", Data([[1, 3], [1, 3]])),
    ("x.amax()", Data([2, 2, 2, 1])),
    ("lib.maximum(x, y)", Data([1, 2]), Data([1, 3])),
    ("lib.minimum(x, y)", Data([1, 2]), Data([1, 3])),
    ("F.relu(x)", Data([0.0, -0.0, 1.0])),
    ("x.abs()", Data([0.0, -0.0])),
    ("x.clamp(-1, 1)", Data([-1, 1, 0, 2])),
    ("x.sign()", Data([0.0, 1.0])),
    ("x.sqrt()", Data([0.0, 4.0])),
    ("x ** 2", Data([0.0, -1.0])),
    ("x ** 0", Data([0.0, 2.0])),
    ("x.prod()", Data([0.0, 2.0, 3.0])),
    ("x.prod()", Data([0.0, 0.0, 3.0])),
    ("x.norm()", Data([0.0, 0.0])),
    ("x.min()", Data([1, 1, 2])),
    ("x.log()", Data([0.0, 1.0])),
    ("x / y", Data([1.0, 0.0]), Data([0.0, 0.0])),
    ("F.leaky_relu(x)", Data([0.0])),
    ("F.elu(x)", Data([0.0])),
    ("lib.where(x > 0, x.log(), x * 0)", Data([1.0, 2.0])),
    ("F.max_pool2d(x.view(1, 1, 2, 2), 2)", Data([1, 1, 1, 0])),
    ("x.max(-1)[0]", Data([[1, 1, 0]])),
    ("x.amax((0, 1))", Data([[1, 1], [0, 1]]))))
def test_gradients_at_ties_and_kinks(case): check(case)

# ---- products --------------------------------------------------------------------------------------------------------

PRODUCTS = [
  [(3,), (3,)], [(3,), (3, 4)], [(2, 3), (3,)], [(2, 3), (3, 4)], [(1, 1), (1, 1)], [(5, 7), (7, 3)],
  [(2, 3, 4), (4, 5)], [(2, 3, 4), (2, 4, 5)], [(2, 1, 3, 4), (5, 4, 2)], [(3, 4), (2, 4, 5)], [(4,), (2, 4, 3)],
  [(2, 3, 4), (4,)], [(0, 3), (3, 2)], [(2, 0), (0, 3)], [(2, 3), (3, 0)], [(1, 9), (9, 33)], [(17, 1), (1, 19)],
  [(33, 31), (31, 35)], [(16, 16), (16, 16)]]
@over(
  crossed(["x @ y"], PRODUCTS, backward=BACKWARD),
  cases(
    ("x.matmul(y)", (2, 3), (3, 2)),
    ("lib.matmul(x, y)", (2, 3), (3, 2)),
    ("lib.bmm(x, y)", (2, 3, 4), (2, 4, 2)),
    ("x.dot(y)", (5,), (5,)),
    ("lib.dot(x, y)", (5,), (5,)),
    ("x.mm(y)", (2, 3), (3, 2)),
    ("lib.outer(x, y)", (3,), (4,)),
    ("x.T @ y", (5, 3), (5, 2)),
    ("x @ y.T", (3, 5), (2, 5)),
    ("x.T @ y.T", (5, 3), (2, 5)),
    ("x.flip(0) @ y[::2]", (3, 4), (8, 2)),
    ("x @ x", (4, 4)),
    ("x @ y + z", (2, 3), (3, 4), (4,)),
    ("(x @ y).relu().sum()", (4, 5), (5, 6)),
    ("F.relu(x @ y) @ z", (2, 3), (3, 4), (4, 2)),
    ("x.transpose(1, 2) @ y", (2, 4, 3), (2, 4, 5)),
    ("F.linear(x, y)", (2, 3), (4, 3)),
    ("F.linear(x, y, z)", (2, 5, 3), (4, 3), (4,)),
    ("F.linear(x, y, z)", (3,), (4, 3), (4,)),
    ("x @ y", Uniform((3, 4), dtype="float64"), Uniform((4, 2), dtype="float64"))))
def test_product(case): check(case._replace(forward=Tolerance(1e-5, 1e-3)))

@over(
  values_only(("x @ y", Ints((3, 4)), Ints((4, 2))), ("x @ y", Ints((3, 4), dtype="int32"), Ints((4,), dtype="int32"))))
def test_integer_product(case): check(case)

@over(
  cases(
    ("lib.einsum('ij,jk->ik', x, y)", (3, 4), (4, 5)),
    ("lib.einsum('ij->ji', x)", (3, 4)),
    ("lib.einsum('ij->', x)", (3, 4)),
    ("lib.einsum('ij->j', x)", (3, 4)),
    ("lib.einsum('i,j->ij', x, y)", (3,), (4,)),
    ("lib.einsum('bij,bjk->bik', x, y)", (2, 3, 4), (2, 4, 2)),
    ("lib.einsum('ij,ij->', x, y)", (3, 4), (3, 4)),
    ("lib.einsum('ii->i', x)", (3, 3)),
    ("lib.einsum('ij,jk', x, y)", (2, 3), (3, 2)),
    ("lib.einsum('bhid,bhjd->bhij', x, y)", (1, 2, 3, 4), (1, 2, 3, 4)),
    ("lib.einsum('i,ij,j->', x, y, z)", (3,), (3, 4), (4,)),
    ("lib.einsum('...ij,...jk->...ik', x, y)", (2, 3, 4), (2, 4, 2)),
    ("lib.einsum('ii', x)", (3, 3)),
    ("lib.einsum('i j, j k -> i k', x, y)", (2, 3), (3, 2))))
def test_einsum(case): check(case._replace(forward=Tolerance(1e-5, 1e-3)))

# ---- convolution and pooling -----------------------------------------------------------------------------------------

@over(
  cases(
    ("F.conv2d(x, y)", (1, 2, 5, 6), (3, 2, 3, 3)),
    ("F.conv2d(x, y, z)", (2, 2, 5, 5), (3, 2, 3, 3), (3,)),
    ("F.conv2d(x, y, stride=2)", (1, 2, 7, 7), (2, 2, 3, 3)),
    ("F.conv2d(x, y, padding=1)", (1, 2, 4, 4), (2, 2, 3, 3)),
    ("F.conv2d(x, y, stride=2, padding=1)", (1, 1, 5, 6), (2, 1, 3, 3)),
    ("F.conv2d(x, y, dilation=2)", (1, 1, 7, 7), (1, 1, 3, 3)),
    ("F.conv2d(x, y, groups=2)", (1, 4, 4, 4), (4, 2, 2, 2)),
    ("F.conv2d(x, y, groups=3, padding=1)", (1, 3, 4, 4), (3, 1, 3, 3)),
    ("F.conv2d(x, y, stride=(2, 1), padding=(0, 1))", (1, 1, 5, 5), (1, 1, 2, 3)),
    ("F.conv2d(x, y)", (1, 2, 4, 4), (3, 2, 1, 1)),
    ("F.conv2d(x, y, padding='same')", (1, 1, 4, 4), (1, 1, 3, 3)),
    ("F.conv2d(x, y).relu().sum()", (1, 1, 5, 5), (2, 1, 3, 3)),
    ("F.conv1d(x, y)", (2, 2, 8), (3, 2, 3)),
    ("F.conv1d(x, y, z, stride=2, padding=1)", (1, 2, 9), (2, 2, 3), (2,)),
    ("F.conv1d(x, y, dilation=2, groups=2)", (1, 2, 9), (2, 1, 3)),
    ("F.conv_transpose2d(x, y)", (1, 2, 3, 3), (2, 3, 3, 3)),
    ("F.conv_transpose2d(x, y, z, stride=2)", (1, 2, 3, 3), (2, 1, 2, 2), (1,)),
    ("F.conv_transpose2d(x, y, stride=2, padding=1, output_padding=1)", (1, 1, 3, 3), (1, 2, 3, 3)),
    ("F.conv_transpose2d(x, y, groups=2)", (1, 4, 3, 3), (4, 1, 2, 2)),
    ("F.conv_transpose2d(x, y, dilation=2)", (1, 1, 3, 3), (1, 1, 2, 2)),
    forward=Tolerance(1e-5, 1e-3)))
def test_convolution(case): check(case)

@over(
  cases(
    ("F.max_pool2d(x, 2)", (1, 2, 4, 6)),
    ("F.max_pool2d(x, 2)", (1, 1, 5, 5)),
    ("F.max_pool2d(x, 3, stride=1)", (1, 1, 5, 5)),
    ("F.max_pool2d(x, 3, stride=2, padding=1)", (2, 1, 6, 6)),
    ("F.max_pool2d(x, (2, 3))", (1, 1, 4, 6)),
    ("F.max_pool2d(x, kernel_size=2, stride=2)", (1, 1, 4, 4)),
    ("F.avg_pool2d(x, 2)", (1, 2, 4, 4)),
    ("F.avg_pool2d(x, 3, stride=2)", (1, 1, 7, 7)),
    ("F.avg_pool2d(x, 3, stride=1, padding=1)", (1, 1, 4, 4)),
    ("F.avg_pool2d(x, (2, 1))", (1, 1, 4, 3)),
    ("F.interpolate(x, scale_factor=2)", (1, 2, 3, 3)),
    ("F.interpolate(x, size=(5, 7))", (1, 1, 3, 4)),
    ("F.interpolate(x, size=2)", (1, 1, 4, 4)),
    ("F.interpolate(x, scale_factor=2, mode='nearest')", (1, 1, 2, 3))))
def test_pooling(case): check(case)

@needs_torch
@over(
  cases(
    ("F.interpolate(x, scale_factor=2, mode='bilinear')", (1, 1, 3, 3)),
    ("F.interpolate(x, size=(5, 4), mode='bilinear', align_corners=True)", (1, 1, 3, 3)),
    ("F.pad(x, (1, 1), mode='reflect')", (1, 2, 4)),
    ("F.pad(x, (2, 1), mode='replicate')", (1, 2, 4)),
    ("F.pad(x, (1, 1), mode='circular')", (1, 2, 4))))
def test_modes(case): check(case)

# ---- normalisation, attention ----------------------------------------------------------------------------------------

@over(
  cases(
    ("F.layer_norm(x, (5,))", (3, 5)),
    ("F.layer_norm(x, (5,), y, z)", (2, 3, 5), (5,), (5,)),
    ("F.layer_norm(x, (3, 5), y, z)", (2, 3, 5), (3, 5), (3, 5)),
    ("F.layer_norm(x, (5,), eps=0.1)", (3, 5)),
    ("F.layer_norm(x, (65,), y)", (2, 65), (65,)),
    ("F.rms_norm(x, (5,))", (3, 5)),
    ("F.rms_norm(x, (5,), y)", (2, 3, 5), (5,)),
    ("F.rms_norm(x, (5,), y, 1e-5)", (3, 5), (5,)),
    ("F.rms_norm(x, (3, 5), eps=0.01)", (2, 3, 5)),
    ("F.group_norm(x, 2)", (2, 4, 3)),
    ("F.group_norm(x, 2, y, z)", (2, 4, 3, 2), (4,), (4,)),
    ("F.group_norm(x, 1, eps=0.1)", (2, 3)),
    ("F.batch_norm(x, None, None, training=True)", (6, 3)),
    ("F.batch_norm(x, None, None, y, z, True)", (4, 3, 2, 2), (3,), (3,)),
    ("F.batch_norm(x, lib.tensor([0.1, 0.2, 0.3]), lib.tensor([1.0, 2.0, 0.5]))", (4, 3)),
    ("F.batch_norm(x, lib.tensor([0.1, 0.2, 0.3]), lib.tensor([1.0, 2.0, 0.5]), y, z)", (4, 3, 2), (3,), (3,)),
    forward=Tolerance(1e-5, 1e-3),
    backward=Tolerance(2e-4, 2e-3)))
def test_normalisation(case): check(case)

ATTENTION = "F.scaled_dot_product_attention"
@over(
  cases(
    (f"{ATTENTION}(x, y, z)", (2, 3, 4), (2, 5, 4), (2, 5, 3)),
    (f"{ATTENTION}(x, y, z)", (1, 2, 4, 8), (1, 2, 4, 8), (1, 2, 4, 8)),
    (f"{ATTENTION}(x, y, z, is_causal=True)", (1, 2, 5, 4), (1, 2, 5, 4), (1, 2, 5, 4)),
     (
      f"{ATTENTION}(x, y, z, attn_mask=u)",
      (2, 3, 4),
      (2, 3, 4),
      (2, 3, 4),
      Data([[True, False, True], [True, True, False], [False, False, True]], "bool")),
    (f"{ATTENTION}(x, y, z, attn_mask=u)", (2, 3, 4), (2, 3, 4), (2, 3, 4), (3, 3)),
    (f"{ATTENTION}(x, y, z, enable_gqa=True)", (1, 4, 3, 4), (1, 2, 3, 4), (1, 2, 3, 4)),
    (f"{ATTENTION}(x, y, z, is_causal=True, enable_gqa=True)", (1, 4, 5, 4), (1, 2, 5, 4), (1, 2, 5, 4)),
    (f"{ATTENTION}(x, y, z, scale=0.5)", (2, 3, 4), (2, 3, 4), (2, 3, 4)),
    forward=Tolerance(1e-5, 1e-3)))
def test_attention(case): check(case)

# ---- losses ----------------------------------------------------------------------------------------------------------

CLASSES, SOME_IGNORED = Data([1, 0, 4, 2], "int64"), Data([1, -100, 4, -100], "int64")
@over(
  crossed(
    [
      "F.cross_entropy(x, y)", "F.cross_entropy(x, y, reduction='sum')", "F.cross_entropy(x, y, reduction='none')",
      "F.cross_entropy(x, y, label_smoothing=0.1)", "F.cross_entropy(x, y, ignore_index=4)",
      "F.cross_entropy(x, y, ignore_index=0, reduction='none')",
      "F.cross_entropy(x, y, label_smoothing=0.2, reduction='sum')",
      "F.cross_entropy(x, y, ignore_index=2, label_smoothing=0.1)", "F.nll_loss(F.log_softmax(x, -1), y)",
      "F.nll_loss(F.log_softmax(x, -1), y, reduction='sum')", "F.nll_loss(F.log_softmax(x, -1), y, ignore_index=1)",
      "F.nll_loss(F.log_softmax(x, -1), y, reduction='none')", "F.cross_entropy(x * 50, y)"],
    [[(4, 5), CLASSES]]),
  cases(
    ("F.cross_entropy(x, y)", (4, 5), SOME_IGNORED),
    ("F.cross_entropy(x, y, reduction='sum')", (4, 5), SOME_IGNORED),
    ("F.cross_entropy(x, y, label_smoothing=0.1)", (4, 5), SOME_IGNORED),
    ("F.cross_entropy(x, y, weight=lib.tensor([0.5, 1.0, 2.0, 1.0, 0.1]))", (4, 5), CLASSES),
    ("F.cross_entropy(x, y)", (2, 5, 3), Ints((2, 3), 0, 5)),
    ("F.cross_entropy(x, y)", (5,), Data(2, "int64")),
    ("F.cross_entropy(x, y.softmax(-1))", (4, 5), (4, 5)),
    ("F.cross_entropy(x, y.softmax(-1), label_smoothing=0.1, reduction='none')", (4, 5), (4, 5)),
    ("F.cross_entropy(x.view(-1, 5), y.view(-1))", (2, 3, 5), Ints((2, 3), 0, 5)),
    ("F.cross_entropy(x.view(-1, 5), y.view(-1), ignore_index=-1)", (2, 3, 5), Ints((2, 3), -1, 5)),
    ("F.cross_entropy(x, y)", (33, 65), Ints((33,), 0, 65)),
    ("F.nll_loss(x, y)", (2, 5, 3), Ints((2, 3), 0, 5))))
def test_cross_entropy(case): check(case)

@over(
  cases(
    ("F.mse_loss(x, y)", (3, 4), (3, 4)),
    ("F.mse_loss(x, y, reduction='sum')", (3, 4), (3, 4)),
    ("F.mse_loss(x, y, reduction='none')", (3, 4), (3, 4)),
    ("F.binary_cross_entropy(x, y)", Uniform((3, 4), 0.1, 0.9), Uniform((3, 4), 0.1, 0.9)),
    ("F.binary_cross_entropy(x, y, reduction='sum')", Uniform((3,), 0.1, 0.9), Uniform((3,), 0.1, 0.9)),
    ("F.binary_cross_entropy_with_logits(x, y)", (3, 4), Uniform((3, 4), 0, 1)),
    ("F.binary_cross_entropy_with_logits(x * 100, y, reduction='none')", (3, 4), Uniform((3, 4), 0, 1)),
    ("F.dropout(x, 0.5, training=False)", (3, 4)),
    ("F.dropout(x, 0.0)", (3, 4))),
  values_only(
    ("F.one_hot(x, 5)", Ints((2, 3), 0, 5)),
    ("F.one_hot(x, num_classes=4)", Ints((3,), 0, 4)),
    ("F.one_hot(x)", Ints((6,), 0, 4)),
    ("F.one_hot(x, 3)", Data(1, "int64"))))
def test_loss(case): check(case)

# ---- sorting ---------------------------------------------------------------------------------------------------------

@over(
  cases(
    ("x.sort()[0]", (9,)),
    ("x.sort()", (4, 7)),
    ("x.sort(0)", (4, 7)),
    ("x.sort(descending=True)", (4, 7)),
    ("x.sort(dim=1, descending=True)", (3, 5)),
    ("lib.sort(x)[0]", (16,)),
    ("x.topk(3)", (7,)),
    ("x.topk(2, dim=0)", (5, 3)),
    ("x.topk(3, largest=False)", (2, 6)),
    ("lib.topk(x, 2)", (3, 4)),
    ("x.topk(1)[0]", (2, 5)),
    ("x.sort()[0]", (1,)),
    ("x.sort()[0]", (65,)),
    ("x.sort(-1)[0].cumsum(-1)", (2, 33))),
  values_only(
    ("x.argsort()", (9,)),
    ("x.argsort(0)", (4, 7)),
    ("x.argsort(descending=True)", (4, 7)),
    ("lib.argsort(x, dim=-1)", (3, 5)),
    ("x.sort()[0]", Ints((9,))),
    ("x.sort()[0]", Data([3, 1, 2, 1, 3], "int32")),
    ("x.sort(descending=True)[0]", Data([3, 1, 2, 1, 3], "uint8")),
    ("x.sort(stable=True)[1]", Data([3, 1, 2, 1, 3, 2])),
    ("x.topk(2)[0]", Ints((6,))),
    ("x.sort()[0]", Data([1.0, math.inf, -math.inf, 0.0]))))
def test_sorting(case): check(case)

# ---- autograd --------------------------------------------------------------------------------------------------------

@over(
  cases(
    ("x + x", (3,)),
    ("x * x * x", (3,)),
    ("y = x * 2; z = y + 1; (y * z) + y", (3,)),
    ("x = x + 1; x += y; x *= 2; x", (3,), (3,)),
    ("x.sum() * x", (3,)),
    ("x / x.sum()", Uniform((3,), 0.5, 2.0)),
    ("(x - x.mean()).square().mean()", (5,)),
    ("x.relu() * (x > 0.5).float()", (9,)),
    ("a = x.split(2); a[0] * a[1]", (4,)),
    ("x[0] * x[1] + x[2:].sum()", (5,)),
    ("(x @ x.T).trace()", (3, 3)),
    ("x.expand(3, 3) * y", (3,), (3, 3)),
    ("x.reshape(2, 2) @ x.reshape(2, 2)", (4,)),
    ("x.tanh().tanh().tanh()", (4,)),
    ("lib.where(x > 0, x * 2, x * 3) * x", (6,)),
    ("x.max() - x.min()", (6,))))
def test_gradient_of_compositions(case): check(case)

@needs_torch                                                 # differences see what detach hides
@over(
  cases(
    ("x.detach() * x", (3,)),
    ("(x * 2).detach() + x", (3,)),
    ("x.exp() - x.exp().detach()", (3,)),
    ("x * y.detach()", (3,), (3,)),
    ("x.clone().detach().sum() + x.sum()", (3,))))
def test_detach(case): check(case)

@needs_torch                                                 # NumPy has no dimension 0 of a number
@over(
  cases(
    ("x.sum(0)", ()), ("x.softmax(0)", ()), ("x.max(0)[0]", ()), ("x.sum(-1, keepdim=True)", ()), ("x.mean(-1)", ()),
    ("x.cumsum(0)", ()), ("x.squeeze(0)", ()), ("x.unsqueeze(0)", ()), ("x.logsumexp(0)", ())))
def test_dimension_0_of_a_number(case): check(case)

def gradients(text, *inputs):
  """The gradients in picograd of the sum of an expression."""
  lib = harness.picograd()
  leaves = [lib.tensor(v, requires_grad=True) for v in inputs]
  harness.function_of(text)(lib, *leaves).sum().backward()
  return [None if x.grad is None else x.grad.tolist() for x in leaves]

def test_equal_leaves_have_their_own_gradients():
  assert gradients("x + y", [3.0], [3.0]) == [[1.0], [1.0]]
  assert gradients("x * y", 3.0, 3.0) == [3.0, 3.0]

def test_unused_leaves_have_no_gradient(): assert gradients("x * 2", [1.0], [1.0]) == [[2.0], None]

def test_gradients_accumulate():
  lib = harness.picograd()
  x = lib.tensor([1.0, 2.0], requires_grad=True)
  (x * 3).sum().backward()
  (x * x).sum().backward()
  assert x.grad.tolist() == [5.0, 7.0]
  x.grad = None
  x.sum().backward()
  assert x.grad.tolist() == [1.0, 1.0]

def test_requires_grad_after_creation_and_retain_grad():
  lib = harness.picograd()
  x = lib.tensor([1.0, 2.0])
  x.requires_grad = True
  y = x * 2
  y.retain_grad()
  y.square().sum().backward()
  assert y.grad.tolist() == [4.0, 8.0] and x.grad.tolist() == [8.0, 16.0]

def test_no_grad_builds_no_graph():
  lib = harness.picograd()
  x = lib.tensor([1.0], requires_grad=True)
  with lib.no_grad(): y = x * 2
  assert not y.requires_grad and (x * 2).requires_grad
  with pytest.raises(RuntimeError): y.sum().backward()

def test_backward_wants_a_scalar_or_a_seed():
  lib = harness.picograd()
  x = lib.tensor([1.0, 2.0], requires_grad=True)
  with pytest.raises(RuntimeError): (x * 2).backward()
  (x * 2).backward(lib.tensor([1.0, 10.0]))
  assert x.grad.tolist() == [2.0, 20.0]

def test_update_under_no_grad_keeps_the_leaf():
  lib = harness.picograd()
  w = lib.tensor([1.0, 2.0], requires_grad=True)
  for _ in range(3):
    w.grad = None
    (w * w).sum().backward()
    with lib.no_grad(): w -= 0.25 * w.grad
  assert w.tolist() == [0.125, 0.25] and w.requires_grad
  w.data -= 1.0
  assert w.tolist() == [-0.875, -0.75]

# ---- errors ----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(
  "text, words",
   [
    ("x + lib.zeros(3, 4)", ["2, 5", "3, 4"]),
    ("x @ lib.zeros(4, 3)", ["2, 5", "4, 3"]),
    ("x.reshape(3, 4)", ["2, 5", "3, 4"]),
    ("lib.cat([x, lib.zeros(3, 4)])", ["2, 5", "3, 4"]),
    ("x.sum(2)", ["2"]),
    ("x.permute(0, 0)", ["0"]),
    ("x.expand(3, 5)", ["3, 5"]),
    ("x.squeeze(5)", ["5"]),
    ("x.transpose(0, 3)", ["3"]),
    ("x.split([1, 3])", ["1"]),
    ("F.linear(x, lib.zeros(3, 4))", ["4"]),
    ("x.view(-1, 3)", ["3"])])
def test_wrong_shapes_are_named(text, words):
  with pytest.raises((ValueError, RuntimeError, IndexError)) as caught: harness.run(
    harness.picograd(),
    Case(text, ((2, 5),), backward=None))
  message = str(caught.value)
  assert all(w in message for w in words) and "UOp" not in message and "Ops." not in message, message

# ---- random numbers --------------------------------------------------------------------------------------------------

def sample(text):
  lib = harness.picograd()
  lib.manual_seed(0)
  return harness.value_of(harness.function_of(text)(lib))

RANDOM = {
  "lib.rand(4000)": harness.uniform_cumulative(0, 1),
  "lib.randn(4000)": harness.normal_cumulative(0, 1),
  "lib.randn(50, 80)": harness.normal_cumulative(0, 1),
  "lib.zeros(4000).uniform_(-2, 3)": harness.uniform_cumulative(-2, 3),
  "lib.zeros(4000).normal_(1.0, 2.0)": harness.normal_cumulative(1, 2),
  "lib.rand_like(lib.zeros(4000))": harness.uniform_cumulative(0, 1),
  "lib.randn_like(lib.zeros(4000))": harness.normal_cumulative(0, 1),
  "lib.normal(2.0, 0.5, (4000,))": harness.normal_cumulative(2, 0.5)}
@pytest.mark.parametrize("text", RANDOM)
def test_random_distribution(text):
  got = sample(text)
  assert got.dtype == "float32"
  harness.assert_distributed(got.array, RANDOM[text])
  assert np.array_equal(got.array, sample(text).array)
  assert len(np.unique(got.array)) > 3900

def test_random_integers_are_uniform():
  got = sample("lib.randint(-2, 5, (7000,))")
  counts = np.bincount(got.array + 2, minlength=7)
  assert got.dtype == "int64" and counts.size == 7 and np.all(np.abs(counts - 1000) < 150)
  assert sample("lib.randint(3, (4, 2))").array.max() < 3

def test_random_permutation_holds_each_number_once():
  got = sample("lib.randperm(100)")
  assert got.dtype == "int64" and sorted(got.array.tolist()) == list(range(100)) and got.array.tolist() != list(
    range(100))

def test_multinomial_follows_its_weights():
  got = sample("lib.multinomial(lib.tensor([1.0, 0.0, 3.0, 4.0]), 4000, replacement=True)")
  assert got.dtype == "int64" and np.all(np.abs(np.bincount(got.array, minlength=4) - [500, 0, 1500, 2000]) < 150)
  rows = sample("lib.multinomial(lib.tensor([[0.0, 1.0], [1.0, 0.0]]), 1)")
  assert rows.array.tolist() == [[1], [0]]
  assert sorted(sample("lib.multinomial(lib.ones(5), 5)").array.tolist()) == [0, 1, 2, 3, 4]

def test_dropout_keeps_the_mean():
  got = sample("F.dropout(lib.ones(4000), 0.25)").array
  assert set(np.round(np.unique(got), 5)) == {0.0, round(1 / 0.75, 5)} and abs(got.mean() - 1) < 0.05

def test_generators_are_independent():
  lib = harness.picograd()
  def draw(seed): return lib.rand(5, generator=lib.Generator().manual_seed(seed)).tolist()
  assert draw(1) == draw(1) != draw(2)
  lib.manual_seed(3)
  first, second = lib.rand(5).tolist(), lib.rand(5).tolist()
  assert first != second
