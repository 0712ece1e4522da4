# harness.py: the course's comparison of an operation with a reference. A Case is an expression in torch's names and the
# inputs it reads; it runs once with lib=picograd and once with the reference, and every output and every gradient must
# agree in shape, dtype and value. The reference is torch where it is installed; else oracle.py, which computes in
# float64 with NumPy, and central differences for the gradients. DEVICE selects the device of picograd as always.
from __future__ import annotations
import ast, importlib, importlib.util, math
from typing import Any, Callable, NamedTuple, Sequence
import numpy as np
import pytest
import oracle

HAS_TORCH = importlib.util.find_spec("torch") is not None

# ---- inputs ----------------------------------------------------------------------------------------------------------

class Uniform(NamedTuple):
  """Values uniform in [low, high). A bare shape stands for Uniform(shape): the course's inputs."""
  shape: tuple[int, ...]
  low: float = -2.0
  high: float = 2.0
  dtype: str = "float32"
  def make(self, rng: np.random.Generator) -> np.ndarray:
    return rng.uniform(self.low, self.high, self.shape).astype(numpy_dtype(self.dtype))

class Ints(NamedTuple):
  """Integers in [low, high)."""
  shape: tuple[int, ...]
  low: int = -5
  high: int = 6
  dtype: str = "int64"
  def make(self, rng: np.random.Generator) -> np.ndarray:
    return rng.integers(self.low, self.high, self.shape).astype(numpy_dtype(self.dtype))

class Data(NamedTuple):
  """Values written out, as nested lists."""
  values: Any
  dtype: str = "float32"
  def make(self, rng: np.random.Generator) -> np.ndarray:
    return np.array(self.values, dtype=np.float64 if is_float(self.dtype) else None).astype(numpy_dtype(self.dtype))

def is_float(dtype: str) -> bool: return "float" in dtype
def numpy_dtype(dtype: str) -> np.dtype: return np.dtype("float32" if dtype == "bfloat16" else dtype)
def dtype_name(dtype: Any) -> str: return str(dtype).split(".")[-1]

# ---- cases -----------------------------------------------------------------------------------------------------------

class Tolerance(NamedTuple):
  absolute: float
  relative: float

FORWARD, BACKWARD, EXACT = Tolerance(1e-6, 1e-3), Tolerance(1e-4, 1e-3), Tolerance(0.0, 0.0)

# what an operation in a narrow type may be off by: a unit or two in its last place
NARROW = {"float16": Tolerance(2e-3, 4e-3), "bfloat16": Tolerance(1.6e-2, 3e-2)}
NAMES = "xyzuvw"

class Case(NamedTuple):
  """text: an expression over lib, F (lib.nn.functional), inf, nan and the inputs x, y, z, u, v, w, in order; statements
  before it are separated by semicolons. backward None: values only."""
  text: str
  inputs: tuple[Any, ...]
  forward: Tolerance = FORWARD
  backward: Tolerance | None = BACKWARD

  def __str__(self) -> str: return self.text + " | " + " ".join(input_name(spec) for spec in self.inputs)

def input_name(spec: Any) -> str:
  if isinstance(spec, Data): return f"{spec.dtype}{list(np.shape(spec.values))}"
  dtype = getattr(spec, "dtype", "float32")
  return ("" if dtype == "float32" else dtype) + str(list(getattr(spec, "shape", spec)))

def cases(*rows: Sequence[Any], backward: Tolerance | None = BACKWARD, forward: Tolerance = FORWARD) -> list[Case]:
  """Cases from rows (text, input, input, ..); a bare tuple is a shape of uniform float32 values."""
  return [Case(row[0], tuple(row[1:]), forward, backward) for row in rows]

def values_only(*rows: Sequence[Any], forward: Tolerance = FORWARD) -> list[Case]:
  return cases(*rows, backward=None, forward=forward)

def crossed(texts: Sequence[str], inputs: Sequence[Any], backward: Tolerance | None = BACKWARD) -> list[Case]:
  """Every text with every list of inputs."""
  return [Case(t, tuple(i) if isinstance(i, list) else (i,), FORWARD, backward) for t in texts for i in inputs]

def function_of(text: str) -> Callable[..., Any]:
  """The function (lib, *inputs) that a case's text describes."""
  body = ast.parse(text).body
  assert isinstance(body[-1], ast.Expr), f"{text} does not end in an expression"
  before = compile(ast.Module(body[:-1], []), text, "exec")
  last = compile(ast.Expression(body[-1].value), text, "eval")

  def function(lib: Any, *inputs: Any) -> Any:
    names = {"lib": lib, "F": lib.nn.functional, "inf": math.inf, "nan": math.nan, **dict(zip(NAMES, inputs))}
    exec(before, names)
    return eval(last, names)
  return function

def make_inputs(case: Case) -> list[np.ndarray]:
  rng = np.random.default_rng(0)
  return [spec.make(rng) if hasattr(spec, "make") else Uniform(spec).make(rng) for spec in case.inputs]

def input_dtypes(case: Case) -> list[str]: return [getattr(spec, "dtype", "float32") for spec in case.inputs]

# ---- running a case --------------------------------------------------------------------------------------------------

class Value(NamedTuple):
  """One output or gradient. array: float64 for floats. dtype: torch's name; the type's name of a plain Python value."""
  array: Any
  dtype: str

class Outcome(NamedTuple):
  outputs: list[Value]
  gradients: list[Value | None]            # per floating input; None where no gradient arrived

def is_tensor(x: Any) -> bool: return hasattr(x, "detach")

def flatten(result: Any) -> list[Any]:
  """The tensors and plain values in a result; tuples and lists are opened if they hold tensors."""
  if isinstance(result, (tuple, list)) and any(is_tensor(r) or isinstance(r, (tuple, list)) for r in result):
    return [leaf for part in result for leaf in flatten(part)]
  return [result]

def value_of(x: Any) -> Value:
  if isinstance(x, (tuple, list)): return Value(tuple(x), "list" if isinstance(x, list) else "tuple")
  if not is_tensor(x): return Value(x, type(x).__name__)
  dtype = dtype_name(x.dtype)
  array = np.asarray((x.detach().float() if dtype == "bfloat16" else x.detach()).numpy())
  assert tuple(array.shape) == tuple(x.shape), f"numpy() has shape {array.shape}, the tensor says {tuple(x.shape)}"
  return Value(array.astype(np.float64) if is_float(dtype) else array, dtype)

def weights_for(shape: Sequence[int], k: int) -> np.ndarray:
  """What the k-th output is multiplied with before the sum that is differentiated."""
  return np.random.default_rng(k + 1).uniform(0.5, 1.5, tuple(shape))

def run(lib: Any, case: Case) -> Outcome:
  """The case's values and gradients in a library with autograd."""
  inputs = []
  for array, dtype in zip(make_inputs(case), input_dtypes(case)):
    wants_grad = is_float(dtype) and case.backward is not None
    inputs.append(lib.tensor(array, dtype=getattr(lib, dtype), requires_grad=wants_grad))
  outputs = flatten(function_of(case.text)(lib, *inputs))
  values = [value_of(out) for out in outputs]
  if case.backward is None: return Outcome(values, [])
  parts = []
  for k, out in enumerate(outputs):
    if not is_tensor(out) or not is_float(dtype_name(out.dtype)): continue
    parts.append((out * lib.tensor(weights_for(out.shape, k), dtype=out.dtype)).sum())
  total = parts[0]
  for part in parts[1:]: total = total + part
  total.backward()
  floats = [x for x, dtype in zip(inputs, input_dtypes(case)) if is_float(dtype)]
  return Outcome(values, [None if x.grad is None else value_of(x.grad) for x in floats])

def run_oracle(case: Case) -> Outcome:
  """The case's values in float64 with NumPy, and its gradients by central differences."""
  function, dtypes = function_of(case.text), input_dtypes(case)
  arrays = [a.astype(np.float64) if is_float(dt) else a for a, dt in zip(make_inputs(case), dtypes)]

  def outputs_at(values: list[np.ndarray]) -> list[Any]:
    inputs = [oracle.Array(np.array(a), dt) for a, dt in zip(values, dtypes)]
    return flatten(function(oracle.lib, *inputs))

  def loss_at(values: list[np.ndarray]) -> float:
    total = 0.0
    for k, out in enumerate(outputs_at(values)):
      if is_tensor(out) and is_float(out.dtype): total += float((out.value * weights_for(out.shape, k)).sum())
    return total

  with np.errstate(all="ignore"):
    outcome = [rounded(value_of(out)) for out in outputs_at(arrays)]
    if case.backward is None: return Outcome(outcome, [])
    chosen = [i for i, dt in enumerate(dtypes) if is_float(dt)]
    return Outcome(outcome, [Value(difference_quotient(loss_at, arrays, i), dtypes[i]) for i in chosen])

def rounded(value: Value) -> Value:
  """A value as its dtype would hold it: what is too large becomes infinite."""
  if value.dtype not in ("float16", "float32"): return value
  return Value(value.array.astype(value.dtype).astype(np.float64), value.dtype)

STEP = 1e-5

def difference_quotient(f: Callable[[list[np.ndarray]], float], arrays: list[np.ndarray], i: int,
                        width: float = STEP) -> np.ndarray:
  """df/d(arrays[i]), by central differences, element by element."""
  out = np.zeros(arrays[i].shape)
  for at in np.ndindex(arrays[i].shape):
    ends = []
    for step in (width, -width):
      moved = arrays[i].copy()
      moved[at] += step
      ends.append(f([*arrays[:i], moved, *arrays[i + 1:]]))
    out[at] = (ends[0] - ends[1]) / (2 * width)
  return out

# ---- comparing -------------------------------------------------------------------------------------------------------

def assert_equal_value(got: Value, want: Value, tolerance: Tolerance, what: str) -> None:
  if not isinstance(want.array, np.ndarray):
    assert got.array == pytest.approx(want.array, rel=1e-5, abs=1e-6) and got.dtype == want.dtype, what
    return
  assert got.array.shape == want.array.shape, f"{what}: shape {got.array.shape}, expected {want.array.shape}"
  assert got.dtype == want.dtype, f"{what}: dtype {got.dtype}, expected {want.dtype}"
  if not is_float(want.dtype): absolute, relative = 0.0, 0.0
  else:
    narrow = NARROW.get(want.dtype, tolerance)
    absolute, relative = max(tolerance.absolute, narrow.absolute), max(tolerance.relative, narrow.relative)
  np.testing.assert_allclose(got.array, want.array, relative, absolute, equal_nan=True, err_msg=what)

def assert_agree(got: Outcome, want: Outcome, case: Case) -> None:
  assert len(got.outputs) == len(want.outputs), f"{case}: {len(got.outputs)} outputs, expected {len(want.outputs)}"
  for k, (mine, other) in enumerate(zip(got.outputs, want.outputs)):
    assert_equal_value(mine, other, case.forward, f"{case}, output {k}")
  for k, (g, w) in enumerate(zip(got.gradients, want.gradients)):
    what = f"{case}, gradient of floating input {k}"
    if w is None: assert g is None or not np.any(g.array), f"{what}: expected none"
    elif g is None: assert not np.any(w.array), f"{what}: none arrived"
    else: assert_equal_value(g, w, case.backward or BACKWARD, what)

def reference(case: Case) -> Outcome:
  """What torch says; without torch, what the float64 oracle says, or a skip where it lacks the operation."""
  if HAS_TORCH: return run(importlib.import_module("torch"), case)
  try: return run_oracle(case)
  except oracle.Missing as e: pytest.skip(f"{e} needs torch")

def oracle_reference(case: Case) -> Outcome:
  """What the float64 oracle says: for dtypes that torch computes little in."""
  return run_oracle(case)

def check(case: Case, expected: Callable[[Case], Outcome] = reference) -> None:
  """Fails unless picograd agrees with the reference on a case."""
  assert_agree(run(picograd(), case), expected(case), case)

def picograd() -> Any: return importlib.import_module("picograd")

# ---- random numbers --------------------------------------------------------------------------------------------------

def assert_distributed(sample: np.ndarray, cumulative: Callable[[np.ndarray], np.ndarray]) -> None:
  """A Kolmogorov-Smirnov test at the 0.1% level: the sample's empirical distribution against the true one."""
  x = np.sort(np.asarray(sample, dtype=np.float64).ravel())
  n = len(x)
  expected = cumulative(x)
  steps = np.arange(n + 1) / n
  distance = max(np.max(steps[1:] - expected), np.max(expected - steps[:-1]))
  assert distance < 1.95 / math.sqrt(n), f"Kolmogorov-Smirnov distance {distance:.4f} for {n} samples"

def normal_cumulative(mean: float, std: float) -> Callable[[np.ndarray], np.ndarray]:
  return np.vectorize(lambda x: 0.5 * (1 + math.erf((x - mean) / (std * math.sqrt(2)))))
def uniform_cumulative(low: float, high: float) -> Callable[[np.ndarray], np.ndarray]:
  return lambda x: np.clip((x - low) / (high - low), 0, 1)

