# test_fuzz.py: random programs of up to 30 steps give the same values on the devices CPU, NUMPY and PYTHON and in
# float64 with NumPy (oracle.py, one step at a time), and their gradients are the difference quotients. A program is
# text that reads x, y, z and makes v0, v1, ..: what hypothesis prints for a failure can be pasted into an interpreter.
# EXAMPLES in the environment says how many programs each test makes; with SHRINK=1 a failing one is made smaller first.
# Also here: second derivatives of a dozen functions against second differences.
import importlib, math, os
from typing import NamedTuple
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings, strategies as st
import harness
import oracle
from picograd.helpers import DEVICE

DEVICES = ("CPU", "NUMPY", "PYTHON")
EXAMPLES = int(os.environ.get("EXAMPLES", "25"))
LARGEST, MOST_ELEMENTS, EDGE = 1e3, 64, 0.02

class Program(NamedTuple):
  inputs: list[tuple[str, tuple[int, ...]]]      # name, shape: float32 uniform in [-2, 2], seeded by position
  steps: list[str]                               # "v3 = v1 + x"
  results: list[str]                             # the names that no step reads

  def __repr__(self): return "; ".join([f"{n}: {s}" for n, s in self.inputs] + self.steps + [", ".join(self.results)])

def input_values(program):
  return {name: np.random.default_rng(k).uniform(-2, 2, shape).astype(np.float32)
          for k, (name, shape) in enumerate(program.inputs)}

# ---- making programs -------------------------------------------------------------------------------------------------
# A maker gets draw and the values so far (name -> Array of the oracle) and returns an expression, or None where it has
# nothing to apply to. What is not continuous is applied only where every element is EDGE away from the jump.

def pick(draw, values, keep=lambda v: True):
  names = [name for name, v in values.items() if keep(v)]
  return draw(st.sampled_from(names)) if names else None

def is_real(v): return oracle.is_float(v.dtype)
def is_axed(v): return v.ndim > 0 and v.value.size > 0
def below(limit): return lambda v: is_real(v) and np.abs(v.value).max(initial=0) < limit

def unary(draw, values):
  text, limit = draw(
    st.sampled_from(
      [
        ("{}.exp()", 4),
        ("{}.sin()", 50),
        ("{}.tanh()", 50),
        ("{}.sigmoid()", 50),
        ("{}.relu()", LARGEST),
        ("{}.abs()", LARGEST),
        ("(-{})", LARGEST),
        ("({}.abs() + 0.5).sqrt()", LARGEST),
        ("{}.square()", 30),
        ("({}.abs() + 0.5).log()", LARGEST),
        ("({} * 0.75)", LARGEST),
        ("({} - 1.25)", LARGEST),
        ("(2.0 / ({}.abs() + 1.0))", LARGEST)]))
  name = pick(draw, values, below(limit))
  return name and text.format(name)

def binary(draw, values):
  a = pick(draw, values, is_real)
  b = pick(draw, values, lambda v: is_real(v) and v.dtype == values[a].dtype and fits_together(values[a], v))
  return draw(st.sampled_from(["{} + {}", "{} - {}", "{} * {}", "lib.maximum({}, {})", "lib.minimum({}, {})"])).format(
    a, b)

def fits_together(a, b):
  try: return np.prod(np.broadcast_shapes(a.shape, b.shape)) <= MOST_ELEMENTS
  except ValueError: return False

def choose(draw, values):
  condition = pick(draw, values, lambda v: is_real(v) and np.all(np.abs(v.value - 0.25) > EDGE))
  if condition is None: return None
  a = pick(draw, values, lambda v: is_real(v) and fits_together(values[condition], v))
  return a and f"lib.where({condition} > 0.25, {a}, {draw(st.sampled_from(['0.5', '-' + a, a + ' * 2']))})"

def reshape(draw, values):
  name = pick(draw, values)
  n = values[name].value.size
  factor = draw(st.sampled_from([k for k in range(1, n + 1) if n % k == 0])) if n else 0
  return f"{name}.reshape({factor}, {n // factor if factor else 0})"

def permute(draw, values):
  name = pick(draw, values, is_axed)
  return name and f"{name}.permute{tuple(draw(st.permutations(range(values[name].ndim))))}".replace(",)", ")")

def axis_of(draw, values, name): return draw(st.integers(0, values[name].ndim - 1))

def flip(draw, values):
  name = pick(draw, values, is_axed)
  return name and f"{name}.flip({axis_of(draw, values, name)})"

def shrink(draw, values):
  name = pick(draw, values, is_axed)
  if name is None: return None
  axis = axis_of(draw, values, name)
  low = draw(st.integers(0, values[name].shape[axis] - 1))
  high = draw(st.integers(low + 1, values[name].shape[axis]))
  step = draw(st.sampled_from(["", ":2"]))
  return f"{name}[{':, ' * axis}{low}:{high}{step}]"

def pad(draw, values):
  name = pick(draw, values, lambda v: is_axed(v) and is_real(v) and v.value.size <= 24)
  if name is None: return None
  widths = draw(
    st.lists(st.integers(0, 2), min_size=2, max_size=2 * values[name].ndim).filter(lambda w: len(w) % 2 == 0))
  return f"F.pad({name}, {tuple(widths)})"

def expand(draw, values):
  name = pick(draw, values, lambda v: 0 < v.value.size <= 16 and v.ndim < 4)
  return name and f"{name}.unsqueeze(0).expand{(draw(st.integers(1, 3)), *values[name].shape)}"

def reduction(draw, values):
  name = pick(draw, values, lambda v: is_axed(v) and is_real(v))
  if name is None: return None
  axis, keep = axis_of(draw, values, name), draw(st.booleans())
  return f"{name}.{draw(st.sampled_from(['sum', 'mean', 'amax', 'amin']))}({axis}, keepdim={keep})"

def softmax(draw, values):
  name = pick(draw, values, lambda v: is_axed(v) and below(30)(v))
  return name and f"{name}.{draw(st.sampled_from(['softmax', 'log_softmax']))}({axis_of(draw, values, name)})"

def product(draw, values):
  a = pick(draw, values, lambda v: is_axed(v) and is_real(v) and v.ndim == 2)
  if a is None: return None
  b = pick(draw, values, lambda v: v.ndim == 2 and v.dtype == values[a].dtype and v.shape[0] == values[a].shape[1])
  return f"{a} @ {b}" if b else f"{a} @ {a}.T"

def cast(draw, values):
  name = pick(draw, values, lambda v: not is_real(v) or np.all(np.abs(v.value - np.round(v.value)) > EDGE))
  return name and f"{name}.to(lib.{draw(st.sampled_from(['int32', 'float32', 'float64', 'bool', 'int64']))})"

def whole(draw, values):
  name = pick(draw, values, lambda v: v.dtype in ("int32", "int64") and np.abs(v.value).max(initial=0) < LARGEST)
  return name and draw(st.sampled_from(["{} * 3 + 1", "{} // 4", "{} % 5", "-{}", "{}.float()", "{} >> 1"])).format(
    name)

MAKERS = [
  unary, unary, binary, binary, binary, choose, reshape, permute, flip, shrink, pad, expand, reduction, reduction,
  softmax, product, cast, whole]

def evaluate(lib, text, values): return eval(text, {"lib": lib, "F": lib.nn.functional, **values})

def is_tame(v):
  """Small, finite, and of a size that every device computes quickly."""
  if not 0 < v.value.size <= MOST_ELEMENTS or v.ndim > 4: return False
  return np.all(np.isfinite(v.value)) and np.abs(v.value).max() < LARGEST

@st.composite
def programs(draw, makers=MAKERS, longest=30):
  shapes = draw(
    st.lists(st.sampled_from([(), (3,), (2, 3), (3, 1), (1, 3), (2, 1, 3), (4, 4)]), min_size=1, max_size=3))
  program = Program([(name, shape) for name, shape in zip("xyz", shapes)], [], [])
  values = {name: oracle.Array(array.astype(np.float64), "float32") for name, array in input_values(program).items()}
  read = set()
  for _ in range(draw(st.integers(1, longest))):
    text = draw(st.sampled_from(makers))(draw, values)
    if text is None: continue
    value = evaluate(oracle.lib, text, values)
    if not is_tame(value): continue
    read |= {name for name in values if name in names_in(text)}
    values[f"v{len(program.steps)}"] = value
    program.steps.append(f"v{len(program.steps)} = {text}")
  program.results.extend(name for name in values if name not in read)
  return program

def names_in(text): return set(compile(text, "step", "eval").co_names)

# ---- running them ----------------------------------------------------------------------------------------------------

def run_program(lib, program, inputs):
  """The values of the results by name."""
  values = dict(inputs)
  for step in program.steps:
    name, text = step.split(" = ", 1)
    values[name] = evaluate(lib, text, values)
  return {name: values[name] for name in program.results}

def run_on(device, program):
  """Values and, of the sum of all floating results, gradients on a device of picograd."""
  lib = harness.picograd()
  with DEVICE.set(device):
    inputs = {name: lib.tensor(array, requires_grad=True) for name, array in input_values(program).items()}
    results = run_program(lib, program, inputs)
    values = {name: harness.value_of(v) for name, v in results.items()}
    total = sum((v.double().sum() for v in results.values() if v.is_floating_point()), start=0.0)
    if not getattr(total, "requires_grad", False): return values, {}
    total.backward()
    return values, {name: harness.value_of(x.grad) for name, x in inputs.items() if x.grad is not None}

def oracle_arrays(arrays): return {name: oracle.Array(a.astype(np.float64), "float32") for name, a in arrays.items()}

def assert_close(got, want, what):
  assert got.dtype == want.dtype and got.array.shape == want.array.shape, f"{what}: {got} instead of {want}"
  if not oracle.is_float(want.dtype): return np.testing.assert_array_equal(got.array, want.array, what)
  scale = max(1.0, float(np.abs(want.array).max(initial=0)))
  np.testing.assert_allclose(got.array, want.array, rtol=1e-3, atol=1e-4 * scale, err_msg=what)

PHASES = (Phase.generate, Phase.shrink) if os.environ.get("SHRINK") else (Phase.generate,)
SLOWLY = settings(max_examples=EXAMPLES, deadline=None, derandomize=True, database=None, phases=PHASES,
                  suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much])

@pytest.mark.parametrize("device", DEVICES)
@SLOWLY
@given(program=programs())
def test_devices_agree_with_float64(device, program):
  expected = run_program(oracle.lib, program, oracle_arrays(input_values(program)))
  values, _ = run_on(device, program)
  for name in program.results: assert_close(values[name], harness.value_of(expected[name]), f"{name} on {device}")

@pytest.mark.parametrize("device", DEVICES[1:])
@SLOWLY
@given(program=programs())
def test_gradients_agree_across_devices(device, program):
  _, expected = run_on("CPU", program)
  _, gradients = run_on(device, program)
  assert expected.keys() == gradients.keys()
  for name in expected: assert_close(gradients[name], expected[name], f"gradient of {name} on {device}")

SMOOTH = [unary, binary, reshape, permute, flip, shrink, pad, expand, reduction, softmax, product]
@SLOWLY
@given(program=programs(SMOOTH, 12))
def test_gradients_are_difference_quotients(program):
  arrays = {name: a.astype(np.float64) for name, a in input_values(program).items()}
  names = list(arrays)
  def total_at(values):
    results = run_program(oracle.lib, program, oracle_arrays(dict(zip(names, values))))
    return sum(float(v.value.sum()) for v in results.values())
  _, gradients = run_on(DEVICE.value, program)
  for i, name in enumerate(names):
    wide, narrow = (harness.difference_quotient(total_at, list(arrays.values()), i, step) for step in (1e-4, 1e-6))
    smooth = np.abs(wide - narrow) < 1e-3 * (1 + np.abs(wide))          # a kink between the ends shows as disagreement
    got = gradients[name].array if name in gradients else np.zeros(arrays[name].shape)
    scale = max(1.0, float(np.abs(narrow).max(initial=0)))
    np.testing.assert_allclose(got[smooth], narrow[smooth], rtol=2e-3, atol=2e-4 * scale, err_msg=f"gradient of {name}")

# ---- second derivatives ----------------------------------------------------------------------------------------------

def log2_numpy(x): return np.log(x) / math.log(2)
def softmax_numpy(x): return np.exp2(x) / np.exp2(x).sum()

SECOND = {                                           # name -> (graph of x, the same in NumPy), both (2, 3) -> any shape
  "exp2": (lambda o, x: x.alu(o.EXP2), np.exp2),
  "log2": (lambda o, x: (x * x + 1).alu(o.LOG2), lambda x: log2_numpy(x * x + 1)),
  "sin": (lambda o, x: x.alu(o.SIN), np.sin),
  "sqrt": (lambda o, x: (x * x + 1).alu(o.SQRT), lambda x: np.sqrt(x * x + 1)),
  "cube": (lambda o, x: x * x * x, lambda x: x ** 3),
  "quotient": (lambda o, x: x / (x * x + 2), lambda x: x / (x * x + 2)),
  "reciprocal": (lambda o, x: x.like(1.0) / (x + 3), lambda x: 1 / (x + 3)),
  "composition": (lambda o, x: (x * x).alu(o.SIN).alu(o.EXP2), lambda x: np.exp2(np.sin(x * x))),
  "maximum": (lambda o, x: (x * x).maximum(x + 1), lambda x: np.maximum(x * x, x + 1)),
  "where": (lambda o, x: (x < 0.5).where(x * x * x, x * x), lambda x: np.where(x < 0.5, x ** 3, x * x)),
  "sum squared": (lambda o, x: squared(x.reduce(o.ADD, (0, 1))), lambda x: x.sum() ** 2),
  "product": (lambda o, x: x.reduce(o.MUL, (1,)), lambda x: x.prod(1)),
  "softmax": (lambda o, x: x.alu(o.EXP2) / x.alu(o.EXP2).reduce(o.ADD, (0, 1)).expand((2, 3)), softmax_numpy),
  "matmul": (lambda o, x: squared((x.permute((1, 0)).reshape((3, 1, 2)).expand((3, 3, 2))
                                   * x.permute((1, 0)).reshape((1, 3, 2)).expand((3, 3, 2))).reduce(o.ADD, (2,))),
             lambda x: (x.T @ x) ** 2),
  "padded and flipped": (lambda o, x: squared(x.pad(((0, 0), (1, 0))) * x.pad(((0, 0), (0, 1))).flip((0,))),
                         lambda x: (np.pad(x, ((0, 0), (1, 0))) * np.pad(x, ((0, 0), (0, 1)))[::-1]) ** 2)}

def squared(u): return u * u

def curvature(build, x, direction):
  """direction' H direction of the sum of a graph at x, by the chain rule applied twice."""
  gradient = importlib.import_module("picograd.ops.gradient").gradient
  ops = importlib.import_module("picograd.ops.ops").Ops
  graphs = importlib.import_module("graphs")
  leaf, along = (graphs.leaf(a.astype(np.float32), DEVICE.value) for a in (x, direction))
  y = build(ops, leaf)
  first = gradient(y, y.like(1.0), [leaf])[leaf]
  slope = (first * along).reduce(ops.ADD, (0, 1))
  second = gradient(slope, slope.like(1.0), [leaf])[leaf]
  return float(graphs.value((second * along).reduce(ops.ADD, (0, 1))).item())

@pytest.mark.parametrize("name", SECOND)
@pytest.mark.parametrize("seed", range(3))
def test_second_derivative(name, seed):
  build, function = SECOND[name]
  rng = np.random.default_rng(seed)
  x, direction, step = rng.uniform(-2, 2, (2, 3)), rng.uniform(-1, 1, (2, 3)), 1e-4
  at = [float(np.sum(function(x + k * step * direction))) for k in (-1, 0, 1)]
  expected = (at[0] - 2 * at[1] + at[2]) / step ** 2
  assert curvature(build, x, direction) == pytest.approx(expected, rel=2e-3, abs=2e-3)
