# test_fuzz_large.py: random programs on tensors of up to a million elements, whose kernels get the Opts that the small
# ones of test_fuzz.py never reach: lanes, tiles, strips, threads, stages. The oracle is torch in float64. How far torch
# in the program's own dtype is from it says how much rounding a program magnifies. Each program runs under picograd.jit
# with several inputs, and all its results are read at the end; of every third one gradients are compared too.
# EXAMPLES in the environment is the number of programs, SEED the first one's; a failure prints the program.
import os, random
import numpy as np
import pytest
import picograd
from picograd.helpers import DEVICE

torch = pytest.importorskip("torch")
EXAMPLES, SEED = int(os.environ.get("EXAMPLES", "60")), int(os.environ.get("SEED", "0"))
SIZES = (1, 2, 3, 4, 5, 7, 8, 12, 16, 17, 31, 32, 33, 48, 64, 65, 100, 128, 130, 256, 300, 1000)
MOST, LARGEST = 1 << 20, 1e3          # elements of a value, its magnitude

# ---- making programs: a maker gets the generator and the values so far, and returns an expression or None ------------

def pick(r, values, keep=lambda v: True):
  names = [n for n in list(values)[-4:] if keep(values[n])] or [n for n in values if keep(values[n])]
  return r.choice(names) if names else None

def has_axes(v): return v.ndim > 0

def pick_axis(r, values, keep=has_axes):
  """(name, axis, its size), or None three times."""
  name = pick(r, values, keep)
  if name is None: return None, None, None
  axis = r.randrange(values[name].ndim)
  return name, axis, values[name].shape[axis]

def span(r, size):
  """First and last of some neighbours, the last excluded."""
  low = r.randrange(size)
  return low, r.randrange(low, size) + 1

UNARY = ("({}.abs() * -0.3).exp()", "({} * 0.1).exp()", "{}.sigmoid()", "{}.tanh()", "{}.relu()", "{}.abs()",
         "{}.sin()", "({} * {} + 0.1).sqrt()", "({} * {} + 0.1).log()", "(-{})", "({} * {} * 0.25)", "F.silu({})",
         "(1 / ({}.abs() + 1))", "F.gelu({}, approximate='tanh')", "F.gelu({})", "{}.clamp(-1, 0.5)",
         "({} * 0.5 - 1.25)", "{}.exp2().log1p()")

def unary(r, values):
  name = pick(r, values)
  return r.choice(UNARY).format(name, name)

def together(a, b):
  try: return np.prod(np.broadcast_shapes(a.shape, b.shape)) <= MOST
  except ValueError: return False

BINARY = ("{0} + {1}", "{0} - {1}", "{0} * {1}", "lib.maximum({0}, {1})", "{0} / ({1} * {1} + 1)",
          "lib.where({0} > {1}, {0} - {1}, ({1} - {0}) * 0.5)")
def binary(r, values):
  a = pick(r, values)
  b = pick(r, {n: v for n, v in values.items() if together(values[a], v)})
  return r.choice(BINARY).format(a, b)

ALONG = ("{0}.sum({1}, keepdim={2}) / {3}", "{0}.mean({1}, keepdim={2})", "{0}.amax({1}, keepdim={2})",
         "{0}.amin({1}, keepdim={2})", "{0}.var({1}, correction=0, keepdim={2})", "{0}.logsumexp({1}, keepdim={2})",
         "{0}.softmax({1})", "{0}.log_softmax({1})", "{0}.cumsum({1}) / {3}", "{0}.flip({1})", "{0}.roll(3, {1})",
         "lib.cat([{0}, {0} * 0.5], {1})")
def along(r, values):
  name, axis, size = pick_axis(r, values)
  return name and r.choice(ALONG).format(name, axis, r.random() < 0.6, size**0.5)

def over_several(r, values):
  name = pick(r, values, lambda v: v.ndim > 1)
  if name is None: return None
  axes = tuple(r.sample(range(values[name].ndim), 2))
  return r.choice(("{0}.sum({1}) / {2}", "{0}.mean({1}, keepdim=True)", "{0}.amax({1})")).format(
    name, axes, values[name].numel()**0.5)

def normalised(r, values):
  name = pick(r, values, has_axes)
  return name and f"F.layer_norm({name}, ({values[name].shape[-1]},), eps=0.1)"

def permute(r, values):
  name = pick(r, values, lambda v: v.ndim > 1)
  return name and f"{name}.permute({', '.join(map(str, r.sample(range(values[name].ndim), values[name].ndim)))})"

def reshape(r, values):
  name = pick(r, values)
  n = values[name].numel()
  rows = r.choice([k for k in range(1, min(n, 2000) + 1) if n % k == 0])
  return r.choice((f"{name}.reshape({rows}, {n // rows})", f"{name}.reshape(-1)", f"{name}.unsqueeze(0)"))

def slices(r, values):
  name, axis, size = pick_axis(r, values)
  if name is None: return None
  low, high = span(r, size)
  return f"{name}[{':, ' * axis}{r.choice((f'{low}:{high}', '::2', '::3', f'{low}:'))}]"

def gather(r, values):
  name, axis, size = pick_axis(r, values)
  return name and f"{name}.index_select({axis}, lib.tensor({[r.randrange(size) for _ in range(r.randint(1, 9))]}))"

def pad(r, values):
  name = pick(r, values, has_axes)
  return name and f"F.pad({name}, {tuple(r.randint(0, 3) for _ in range(2 * r.randint(1, values[name].ndim)))})"

def expand(r, values):
  name = pick(r, values, lambda v: v.ndim < 4 and v.numel() < MOST // 8)
  return name and f"{name}.unsqueeze(0).expand({r.randint(2, 8)}, {', '.join(['-1'] * values[name].ndim)})"

def triangle(r, values):
  name = pick(r, values, lambda v: v.ndim > 1)
  return name and f"{name}.{r.choice(('tril', 'triu'))}({r.randint(-2, 2)})"

def product(r, values):
  a = pick(r, values, lambda v: v.ndim > 1)
  if a is None: return None
  shape = values[a].shape
  turns = (("", -2), (".transpose(-1, -2)", -1))
  fitting = [f"{n}{turn}" for n, v in values.items() for turn, axis in turns
             if v.ndim > 1 and v.shape[axis] == shape[-1] and (v.ndim == 2 or v.shape[:-2] == shape[:-2])]
  b = r.choice(fitting) if fitting else f"{a}.transpose(-1, -2)"
  return f"{a} @ {b} / {shape[-1]**0.5}"

def ordered(r, values):
  name, axis, size = pick_axis(r, values, lambda v: v.ndim > 0 and v.numel() < MOST // 16)
  return name and r.choice((f"{name}.sort({axis})[0]", f"{name}.topk({r.randint(1, size)}, {axis})[0]"))

def changed(r, values):
  """A copy that is written to: a part of it, all of it, some of its rows several times."""
  name, axis, size = pick_axis(r, values)
  if name is None: return None
  place = (slice(None),) * axis + (slice(*span(r, size)),)
  rows = f"{axis}, lib.tensor({[r.randrange(size) for _ in range(r.randint(1, 5))]})"
  other = pick(r, {n: v for n, v in values.items() if v.shape == values[name].shape})
  return r.choice((f"put({name}, {place}, {name}[{place}] * 2)", f"put({name}, {place}, 0.5)",
                   f"{name}.clone().add_({other})", f"{name}.clone().mul_(2).add_({other} * {name})",
                   f"{name}.clone().index_add_({rows}, {name}.index_select({rows}))"))

def put(t, place, value):
  t = t.clone()
  t[place] = value
  return t

def window(r, values):
  name = pick(r, values, lambda v: v.ndim == 4 and min(v.shape[2:]) > 2)
  if name is None: return None
  n, c = values[name].shape[:2]
  return r.choice((f"F.max_pool2d({name}, 2)", f"F.avg_pool2d({name}, (2, 1))", f"F.max_pool2d({name}, 3, 2)",
                   f"F.conv2d({name}, {name}[:{min(n, 6)}, :, :3, :3], padding=1) / {(9 * c)**0.5}",
                   f"F.conv2d({name}, {name}[:2, :, :3, :3]) / {(9 * c)**0.5}",
                   f"F.conv2d({name}, {name}[:1, :, :2, :2], stride=2) / {(4 * c)**0.5}"))

MAKERS = (unary, unary, unary, binary, binary, binary, along, along, along, over_several, normalised, permute, reshape,
          slices, gather, pad, expand, triangle, product, product, window, window, ordered, changed, changed)

def evaluate(lib, text, values): return eval(text, {"lib": lib, "F": lib.nn.functional, "put": put, **values})

def is_tame(v):
  return 0 < v.numel() <= MOST and v.ndim < 6 and bool(torch.isfinite(v).all()) and float(v.abs().max()) < LARGEST

def program_of(seed):
  """(shapes of x, y, .. by name; steps "v0 = x + y"; names of the results, which no step reads; dtype)"""
  r = random.Random(seed)
  base = [r.choice(SIZES) for _ in range(r.choice((1, 2, 2, 3, 4)))]
  while np.prod(base) > MOST // 4: base[r.randrange(len(base))] = r.choice(SIZES[:8])
  shapes = {name: tuple(1 if r.random() < 0.15 else n for n in base) for name in "xyz"[:r.randint(1, 3)]}
  values, steps, unread = {n: torch.from_numpy(a) for n, a in inputs_of(shapes, seed).items()}, [], []
  for _ in range(r.randint(1, 10)):
    text = r.choice(MAKERS)(r, values)
    if text is None: continue
    value = evaluate(torch, text, values)
    if not is_tame(value): continue
    steps.append(f"v{len(steps)} = {text}")
    values[f"v{len(steps) - 1}"] = value
    unread = [n for n in unread if n not in compile(text, "step", "eval").co_names] + [f"v{len(steps) - 1}"]
  return shapes, steps, unread[-r.choice((1, 1, 2, 4)):], r.choice(("float32", "float32", "float32", "float16"))

def inputs_of(shapes, seed):
  generator = np.random.default_rng(seed)
  return {name: generator.standard_normal(shape) for name, shape in shapes.items()}

# ---- running them ----------------------------------------------------------------------------------------------------

def run(lib, steps, results, values, evaluate=evaluate):
  values = dict(values)
  for step in steps:
    name, text = step.split(" = ", 1)
    values[name] = evaluate(lib, text, values)
  return [values[name] for name in results]

def squares(outs): return sum(((out * out).sum() for out in outs if out.requires_grad), start=0.0)

def on_torch(arrays, dtype, program, gradients):
  """The results, and by name the gradients of their squares' sum, in a dtype, from inputs that were rounded."""
  _, steps, results, own = program
  rounded = {n: torch.from_numpy(a).to(getattr(torch, own)) for n, a in arrays.items()}
  inputs = {n: t.to(dtype).requires_grad_(gradients) for n, t in rounded.items()}
  outs = run(torch, steps, results, inputs)
  if any(out.requires_grad for out in outs): squares(outs).backward()
  found = {f"gradient of {n}": x.grad for n, x in inputs.items() if x.grad is not None}
  return {name: t.detach().double().numpy() for name, t in [*zip(results, outs), *found.items()]}

def on_picograd(arrays, program, function, gradients):
  _, _, results, own = program
  inputs = {n: picograd.tensor(a.astype(own), requires_grad=gradients) for n, a in arrays.items()}
  outs = function(*inputs.values())
  if any(out.requires_grad for out in outs): squares(outs).backward()
  return dict(zip(results, outs)) | {f"gradient of {n}": x.grad for n, x in inputs.items() if x.grad is not None}

USUAL = {"float16": 2e-3, "float32": 4e-5}     # of the largest element: a sum may go through one accumulator

def compare(got, want, rounded, own, what):
  """want is exact, rounded what torch makes of it in the program's own dtype."""
  assert got.shape == want.shape, f"{what}: shape {got.shape} instead of {want.shape}"
  scale = float(np.abs(want).max(initial=0))
  with np.errstate(invalid="ignore"): magnified = float(np.nanmax(np.abs(rounded - want), initial=0))
  if own == "float16" and (np.isfinite(want) > np.isfinite(rounded)).any(): return       # it cannot hold the values
  assert np.isfinite(magnified), f"{what}: torch overflows"
  error = float(np.abs(got - want).max(initial=0))
  most = USUAL[own] * max(scale, 1) + 8 * magnified
  assert error <= most, f"{what}: off by {error}, torch by {magnified}, of {scale}"

def check(seed):
  program = shapes, steps, results, own = program_of(seed)
  text = f"seed {seed} on {DEVICE.value}: {own} {shapes}; {'; '.join(steps)}; {', '.join(results)}"
  gradients = seed % 3 == 0 and own == "float32"
  function = lambda *tensors: run(picograd, steps, results, dict(zip(shapes, tensors)))
  if not gradients: function = picograd.jit(function)
  given = [inputs_of(shapes, seed + k) for k in range(1 if gradients else 3)]
  try:
    found = [on_picograd(arrays, program, function, gradients) for arrays in given]
    found = [{name: t.detach().double().numpy() for name, t in tensors.items()} for tensors in found]
  except Exception as error: raise AssertionError(text) from error
  for k, (arrays, values) in enumerate(zip(given, found)):
    want, rounded = [on_torch(arrays, dtype, program, gradients) for dtype in (torch.float64, getattr(torch, own))]
    for name, value in values.items(): compare(value, want[name], rounded[name], own, f"{text}: call {k}, {name}")

@pytest.mark.parametrize("part", range(6))
def test_large_programs_agree_with_torch(part):
  for seed in range(SEED + part, SEED + EXAMPLES, 6): check(seed)

# ---- programs that failed once ---------------------------------------------------------------------------------------

FAILED = (
  ((32, 1024), "x.softmax(0).logsumexp(0)"),                         # exponentials kept from one strip for the next
  ((65, 65), "x.logsumexp(0) - x[0].logsumexp(0)"),                  # two reductions that want to unroll one range
  ((4,), "x.sum(0) * x.amax(0)"),                                    # two reductions of the lanes of one vector
  ((1, 50, 5, 8), "F.conv2d(x, x[:, :, :2, :2], stride=2).sum((3, 1))"),     # a nest written out, and its reader
  ((12, 8, 1, 4), "F.layer_norm(x, (4,)).index_select(1, lib.tensor([5])).tril(-2)"),     # an input not read
  ((65, 12), "F.pad(F.layer_norm(x, (12,)), (1, 2)).triu(2).mean(1)"),         # lanes of a sum inside those of another
  ((1000, 7), "(x - x[:, :1].exp2()).cumsum(0)"),                    # exponentials kept in a nest for another one
  ((300,), "F.layer_norm(x, (300,)).cumsum(0)"),                     # a reduction in the steps of another
  ((130, 68), "(x / ((x[:, 4:] @ x[0, 4:]) ** 2 + 1).unsqueeze(1)).sum(1)"),     # rows of two lengths
  ((64, 1000, 5), "x.log_softmax(1).sum((1, 2))"),                   # rows that are too short for several threads
  ((17, 32, 100, 1), "F.pad(x, (1, 2)).clone().index_add_(1, lib.tensor([4, 13]), "
                     "F.pad(x, (1, 2)).index_select(1, lib.tensor([4, 13])))"),  # a nest inside the threads of another
)
@pytest.mark.parametrize("shape, text", FAILED)
def test_what_failed_once(shape, text):
  x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
  want = evaluate(torch, text, {"x": torch.from_numpy(x).double()}).numpy()
  np.testing.assert_allclose(evaluate(picograd, text, {"x": picograd.tensor(x)}).numpy(), want, rtol=1e-5, atol=1e-5)

def test_nests_written_out_stay_apart():
  """Rows that one nest stores and the next reduces, three of three at once."""
  check(9700186)

def test_reductions_of_the_same_ranges_want_lanes_of_one():
  """Of two sums over two ranges, neighbours are along one range for the first and along the other for the second."""
  check(47000673)

def test_a_scatter_has_loops_of_its_own():
  """Beside the nest that stores what it adds to, in loops that both are in."""
  def doubled(x):
    rows = picograd.tensor([3, 6])
    return x.clone().index_add_(2, rows, x.index_select(2, rows))
  x = np.random.default_rng(0).standard_normal((1, 2, 64, 130)).astype(np.float32)
  want = x.copy()
  want[:, :, [3, 6]] *= 2
  np.testing.assert_array_equal(picograd.jit(doubled)(picograd.tensor(x)).numpy(), want)

def test_a_row_of_scratch_is_cleared_for_each_row():
  """What is added twice is first added up in one row of scratch memory, which begins as zeros in each step."""
  rng = np.random.default_rng(0)
  x, v = [rng.standard_normal((50, n)).astype(np.float32) for n in (40, 3)]
  y, places, added = picograd.tensor(x).clone(), picograd.tensor([3, 3, 1]), picograd.tensor(v)
  for _ in range(2): y.index_add_(1, places, added)
  want = x.astype(np.float64)
  for _ in range(2): np.add.at(want, (slice(None), [3, 3, 1]), v)
  np.testing.assert_allclose(y.numpy(), want, rtol=1e-5, atol=1e-5)

def test_what_is_compared_with_itself_is_computed_once():
  """x * x is rounded in one place, since it is a result, and not in the other."""
  x = np.random.default_rng(13000349).standard_normal(7).astype(np.float32)
  largest, _ = picograd.jit(lambda x: ((x / (x * x + 1)).topk(4, 0)[0], x * x * 0.25))(picograd.tensor(x))
  np.testing.assert_allclose(largest.numpy(), np.sort(x / (x * x + 1))[:2:-1], rtol=1e-5)
