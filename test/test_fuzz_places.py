# test_fuzz_places.py: random programs that take from places and add to places: gathers, scatters, assignments through
# views and lists, and their gradients. All values are small integers, in floats too, so that every order of additions
# gives the same, and results must be equal to torch's. EXAMPLES in the environment is the number of programs, SEED the
# first one's; a failure prints the program.
import os, random
import numpy as np
import pytest
import picograd
from picograd.helpers import DEVICE
from test_fuzz_large import pick, pick_axis, run

torch = pytest.importorskip("torch")
EXAMPLES, SEED = int(os.environ.get("EXAMPLES", "120")), int(os.environ.get("SEED", "0"))
SIZES = (1, 2, 3, 5, 8, 16, 17, 33, 40, 64, 100, 130)
MOST, LARGEST = 1 << 16, 1 << 18      # elements of a value, its magnitude: float32 holds integers up to 1 << 24

# ---- making programs: a maker gets the generator and the values so far, and returns an expression or None ------------

def places_in(r, size, most=7): return [r.randrange(size) for _ in range(r.randint(1, most))]
def at(axis, place): return (slice(None),) * axis + (place,)
def grid(r, shape, axis, size):
  """Places along an axis for each element of a shape: torch.gather's index."""
  return f"places(lib, {r.randrange(1 << 20)}, {shape}, {size})"

def taken(r, values):
  name, axis, size = pick_axis(r, values)
  if name is None: return None
  rows, shape = places_in(r, size), list(values[name].shape)
  index = grid(r, tuple(shape[:axis] + [r.randint(1, 6)] + shape[axis + 1:]), axis, size)
  list_of = f"{axis}, lib.tensor({rows})"
  return r.choice((f"{name}.index_select({list_of})", f"({name} + {name}).index_select({list_of})",
                   f"take({name}, {list_of})", f"{name}.gather({axis}, {index})"))

def added(r, values):
  name, axis, size = pick_axis(r, values)
  if name is None: return None
  rows, shape = places_in(r, size), tuple(values[name].shape)
  other = pick(r, {n: v for n, v in values.items() if tuple(v.shape) == shape})
  list_of = f"{axis}, lib.tensor({rows})"
  index = grid(r, shape, axis, size)
  return r.choice((f"{name}.clone().index_add_({list_of}, {other}.index_select({list_of}))",
                   f"twice({name}, {list_of}, {other}.index_select({list_of}))",
                   f"{name}.clone().scatter_add_({axis}, {index}, {other})",
                   f"{name}.scatter_add({axis}, {index}, {other}).index_select({list_of})",
                   f"spread({name}, {axis}, {index}) + spread({other}, {axis}, {index})"))

def put(r, values):
  name, axis, size = pick_axis(r, values)
  if name is None: return None
  low = r.randrange(size)
  high, rows = r.randrange(low, size) + 1, sorted(set(places_in(r, size)))
  other = pick(r, {n: v for n, v in values.items() if v.shape == values[name].shape})
  part, few = at(axis, slice(low, high)), f"{axis}, {rows}"
  return r.choice((f"put({name}, {part}, {other}[{part}] * 2)", f"put({name}, {part}, 3)",
                   f"put_rows(lib, {name}, {few}, {other}.index_select({axis}, lib.tensor({rows})))",
                   f"add_rows(lib, {name}, {few}, {other}.index_select({axis}, lib.tensor({rows})))",
                   f"{name}.clone().add_({other}).mul_(2)"))

def arithmetic(r, values):
  a = pick(r, values)
  def fits(v):
    try: return np.prod(np.broadcast_shapes(values[a].shape, v.shape)) <= MOST
    except ValueError: return False
  b = pick(r, {n: v for n, v in values.items() if fits(v)})
  return r.choice(("{0} + {1}", "{0} - {1}", "{0} * {1}", "lib.where({0} > {1}, {0}, {1} * 2)", "{0}.relu() - {1}",
                   "({0} == {1}) * {0}", "-{0}")).format(a, b)

def along(r, values):
  name, axis, _ = pick_axis(r, values)
  return name and r.choice(("{0}.sum({1}, keepdim={2})", "{0}.cumsum({1})", "{0}.flip({1})", "{0}.roll(3, {1})",
                            "lib.cat([{0}, {0} - 1], {1})", "{0}.sum({1}, keepdim={2})", "{0}.unsqueeze({1})")).format(
    name, axis, r.random() < 0.6)

def moved(r, values):
  name = pick(r, values, lambda v: v.ndim > 1)
  if name is None: return None
  n, order = values[name].numel(), r.sample(range(values[name].ndim), values[name].ndim)
  rows = r.choice([k for k in range(1, min(n, 400) + 1) if n % k == 0])
  return r.choice((f"{name}.permute({', '.join(map(str, order))})", f"{name}.reshape({rows}, {n // rows})",
                   f"{name}.tril({r.randint(-2, 2)})", f"{name} @ {name}.transpose(-1, -2)"))

def ordered(r, values):
  name, axis, size = pick_axis(r, values)
  if name is None: return None
  return r.choice((f"{name}.amax({axis})", f"{name}.sort({axis})[0]", f"{name}.amin({axis}, keepdim=True)",
                   f"({name}.argmax({axis}, keepdim=True) == 1) * {name}",
                   f"{name}.topk({r.randint(1, size)}, {axis})[0]"))

SMOOTH = (taken, taken, taken, added, added, added, put, put, arithmetic, arithmetic, along, along, moved)

# what the expressions call
def places(lib, seed, shape, size): return lib.tensor(np.random.default_rng(seed).integers(0, size, shape).tolist())
def take(t, axis, rows): return t[at(axis, rows)]
def put_in(t, place, value):
  t = t.clone()
  t[place] = value
  return t
def put_rows(lib, t, axis, rows, value): return put_in(t, at(axis, lib.tensor(rows)), value)
def add_rows(lib, t, axis, rows, value):
  t = t.clone()
  t[at(axis, lib.tensor(rows))] += value
  return t
def twice(t, axis, rows, value):
  t = t.clone()
  for _ in range(2): t.index_add_(axis, rows, value)
  return t
def spread(t, axis, index): return (t * 0).scatter_add(axis, index, t)
CALLED = {"places": places, "take": take, "put": put_in, "put_rows": put_rows, "add_rows": add_rows, "twice": twice,
          "spread": spread}

def evaluate(lib, text, values): return eval(text, {"lib": lib, **CALLED, **values})

def is_tame(v): return 0 < v.numel() <= MOST and v.ndim < 6 and float(v.abs().max()) < LARGEST

def program_of(seed):
  """(shapes of x, y, .. by name; steps "v0 = x + y"; names of the results; dtype; whether gradients are wanted)"""
  r = random.Random(seed)
  gradients = seed % 2 == 0
  base = [r.choice(SIZES) for _ in range(r.choice((1, 2, 2, 3)))]
  while np.prod(base) > MOST // 4: base[r.randrange(len(base))] = r.choice(SIZES[:6])
  shapes = {name: tuple(1 if r.random() < 0.1 else n for n in base) for name in "xyz"[:r.randint(1, 3)]}
  values, steps, unread = {n: torch.from_numpy(a) for n, a in inputs_of(shapes, seed).items()}, [], []
  for _ in range(r.randint(2, 8)):
    text = r.choice(SMOOTH if gradients else (*SMOOTH, ordered, ordered))(r, values)
    value = None if text is None else evaluate(torch, text, values)
    if value is None or not is_tame(value): continue
    steps.append(f"v{len(steps)} = {text}")
    values[f"v{len(steps) - 1}"] = value
    unread = [n for n in unread if n not in compile(text, "step", "eval").co_names] + [f"v{len(steps) - 1}"]
  dtype = "float32" if gradients else r.choice(("float32", "int32", "int64"))
  return shapes, steps, unread[-r.choice((1, 1, 2, 3)):], dtype, gradients

def inputs_of(shapes, seed):
  generator = np.random.default_rng(seed)
  return {name: generator.integers(-3, 4, shape).astype(np.float64) for name, shape in shapes.items()}

# ---- running them ----------------------------------------------------------------------------------------------------

def weighted(lib, outs, seed):
  """A scalar whose gradients are small integers."""
  generator = np.random.default_rng(seed)
  weights = [generator.integers(-2, 3, tuple(out.shape)).astype(np.float32) for out in outs]
  return sum((out * lib.tensor(w)).sum() for out, w in zip(outs, weights) if out.requires_grad)

def found(lib, program, arrays, dtype, function, seed):
  """The results, and the gradients, by name."""
  shapes, _, results, _, gradients = program
  inputs = {n: lib.tensor(a.astype(dtype), requires_grad=gradients) for n, a in arrays.items()}
  outs = function(*inputs.values())
  if any(out.requires_grad for out in outs): weighted(lib, outs, seed).backward()
  named = dict(zip(results, outs)) | {f"gradient of {n}": x.grad for n, x in inputs.items() if x.grad is not None}
  return {name: t.detach().numpy().astype(np.float64) for name, t in named.items()}

def check(seed):
  program = shapes, steps, results, dtype, gradients = program_of(seed)
  text = f"seed {seed} on {DEVICE.value}: {dtype} {shapes}; {'; '.join(steps)}; {', '.join(results)}"
  def on(lib): return lambda *tensors: run(lib, steps, results, dict(zip(shapes, tensors)), evaluate)
  ours = on(picograd) if gradients else picograd.jit(on(picograd))
  for k in range(1 if gradients else 2):
    arrays = inputs_of(shapes, seed + k)
    try: want = found(torch, program, arrays, dtype if dtype != "float32" else "float64", on(torch), seed)
    except RuntimeError:                       # torch wants the same type where cumsum has made int64 of int32
      if dtype == "int32": return
      raise
    try: got = found(picograd, program, arrays, dtype, ours, seed)
    except Exception as error: raise AssertionError(text) from error
    for name, exact in want.items():
      if np.abs(exact).max(initial=0) >= 1 << 22: continue             # float32 may have rounded on the way
      assert got[name].shape == exact.shape, f"{text}: call {k}, {name} has shape {got[name].shape}"
      wrong = got[name] != exact
      assert not wrong.any(), f"{text}: call {k}, {name} differs at {wrong.sum()} of {wrong.size} places"

@pytest.mark.parametrize("part", range(4))
def test_programs_of_places_agree_with_torch(part):
  for seed in range(SEED + part, SEED + EXAMPLES, 4): check(seed)

def test_memory_that_another_kernel_has_written_is_no_scratch():
  """A copy that is stored with what it copies, and added to in a kernel with others: so on GPUs."""
  for seed in (51000396, 50600116, 50900346, 51100018): check(seed)

@pytest.mark.parametrize("dtype", ["int32", "int64", "uint8", "float32"])
def test_extremes_of_negated_integers(dtype):
  """A maximum of three numbers, two of them negated, is one instruction of some GPUs, which ptxas gets wrong."""
  x = np.random.default_rng(0).integers(0, 7, (3, 17, 16)).astype(dtype)
  np.testing.assert_array_equal((-picograd.tensor(x)).amax(1).numpy(), (-x).max(1))
  np.testing.assert_array_equal(picograd.tensor(x).amin(1).numpy(), x.min(1))
  a, b, c = [picograd.tensor(part) for part in x]
  m = picograd.where(-a < -b, -b, -a)
  np.testing.assert_array_equal(picograd.where(m < c, c, m).numpy(), np.maximum(np.maximum(-x[0], -x[1]), x[2]))

def test_values_that_nobody_reads_any_more():
  """A term that simplification made 0 leaves a store of what it read: nothing is to be scheduled for that."""
  check(80500158)

def test_places_in_a_loop_whose_threads_are_more_than_its_steps():
  """Three values added to one row, on GPUs by four threads."""
  check(80600060)
