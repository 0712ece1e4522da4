# test_jit.py: recorded calls do what the calls would have done: results, effects, guards. Each failure that users of
# other capturing compilers meet silently is reproduced here and must be caught.
import functools, gc, threading
from typing import NamedTuple
import numpy as np
import pytest
import picograd as torch
from picograd import nn, optim
from picograd.capture import CaptureError, ReplayMismatch
from picograd.helpers import Counters, DEBUG, JIT_CHECK
from picograd.runtime.device import Buffer

def counted(function):
  """The function as a Jit, and a list that grows with each call that really runs it."""
  runs = []
  def call(*args, **kwargs):
    runs.append(1)                                  # the list is not walked: see below
    return function(*args, **kwargs)
  return call, runs

def randn(*shape, seed=0):
  return torch.tensor(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))

# ---- results ---------------------------------------------------------------------------------------------------------

def test_a_replay_computes_on_the_new_data():
  @torch.jit
  def f(a, b): return (a @ b).relu().sum(1)
  for seed in range(4):
    a, b = randn(5, 7, seed=seed), randn(7, 3, seed=seed + 10)
    np.testing.assert_allclose(f(a, b).numpy(), np.maximum(a.numpy() @ b.numpy(), 0).sum(1), rtol=1e-5)
  assert f.captures == 1

def scaled(x): return x * factor
factor = 2.0

def test_facts_are_those_of_every_function_that_is_reached(monkeypatch):
  """The short way is open to a partial over a function that calls another, until what that one reads changes."""
  f = torch.jit(functools.partial(lambda library, x: scaled(library.relu(x)), torch))
  x = torch.tensor([-1.0, 3.0])
  for _ in range(3): assert f(x).tolist() == [0.0, 6.0]
  assert f.short and f.captures == 1
  monkeypatch.setitem(globals(), "factor", 5.0)
  for _ in range(3): assert f(x).tolist() == [0.0, 15.0]
  monkeypatch.setitem(globals(), "scaled", lambda x: x - 1)
  for _ in range(3): assert f(x).tolist() == [-1.0, 2.0]
  assert f.captures == 3

def test_keywords_of_a_partial_may_change():
  f = functools.partial(lambda x, by: x * by, by=2.0)
  jitted, x = torch.jit(f), torch.tensor([1.0, 3.0])
  for _ in range(3): assert jitted(x).tolist() == [2.0, 6.0]
  f.keywords["by"] = 4.0
  assert jitted(x).tolist() == [4.0, 12.0]

def test_what_was_empty_may_be_filled():
  f, extra = functools.partial(lambda x, by=1.0: x * by + len(extra)), []
  jitted, x = torch.jit(f), torch.tensor([1.0, 3.0])
  for _ in range(3): assert jitted(x).tolist() == [1.0, 3.0]
  assert jitted.short
  extra.append(1)
  for _ in range(3): assert jitted(x).tolist() == [2.0, 4.0]
  f.keywords["by"] = 4.0
  for _ in range(3): assert jitted(x).tolist() == [5.0, 13.0]
  assert jitted.captures == 3

def test_a_replay_compiles_and_schedules_nothing():
  @torch.jit
  def f(a): return (a * 2).exp().sum()
  f(randn(8))
  Counters.reset()
  f(randn(8, seed=1))
  assert Counters.compiled == 0 and Counters.kernels >= 1

def test_what_was_computed_before_the_recording_is_computed_again():
  w, x = randn(4, 4), randn(4, 4, seed=1)
  kept = (x @ w).realize()
  f = torch.jit(lambda x: x @ w)
  f(x)
  y = randn(4, 4, seed=2)
  np.testing.assert_allclose(f(y).numpy(), y.numpy() @ w.numpy(), rtol=1e-5)
  np.testing.assert_allclose(kept.numpy(), x.numpy() @ w.numpy(), rtol=1e-5)

class Pair(NamedTuple):
  total: object
  parts: list

def test_results_may_be_nested():
  @torch.jit
  def f(batch, scale): return Pair(batch["x"] + batch["y"][0], [batch["x"] * scale, None, {"n": 3}])
  for seed in range(3):
    x, y = randn(3, seed=seed), randn(3, seed=seed + 5)
    out = f({"x": x, "y": [y]}, 2)
    assert type(out) is Pair and out.parts[1:] == [None, {"n": 3}]
    np.testing.assert_allclose(out.total.numpy(), x.numpy() + y.numpy())
    np.testing.assert_allclose(out.parts[0].numpy(), x.numpy() * 2)

def test_results_never_share_memory_with_earlier_ones():
  @torch.jit
  def f(x): return x + 1
  held = [f(torch.full((4,), float(i))) for i in range(6)]
  for i, h in enumerate(held): assert h.tolist() == [i + 1.0] * 4
  held[4].add_(100)
  assert held[5].tolist() == [6.0] * 4 and f(torch.zeros(4)).tolist() == [1.0] * 4

def test_an_argument_may_be_returned_and_stays_itself():
  @torch.jit
  def f(x): return x, x.T
  for seed in range(3):
    x = randn(2, 3, seed=seed)
    same, turned = f(x)
    np.testing.assert_array_equal(turned.numpy(), x.numpy().T)
    same.add_(1)
    np.testing.assert_array_equal(x.numpy(), same.numpy())

def test_views_and_lazy_arguments():
  @torch.jit
  def f(x): return x.sum(0)
  base = randn(6, 4)
  for rows in (slice(0, 3), slice(3, 6), slice(0, 3)):
    np.testing.assert_allclose(f(base[rows]).numpy(), base.numpy()[rows].sum(0), rtol=1e-6)
    np.testing.assert_allclose(f(base[rows] * 2).numpy(), base.numpy()[rows].sum(0) * 2, rtol=1e-6)

# ---- guards ----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("first, second", [
  ((4,), (5,)), ((2, 2), (4,)), ((1, 4), (4, 1)),
])
def test_another_shape_is_another_recording(first, second):
  f = torch.jit(lambda x: x * 2 + x.shape[0])
  for shape in (first, second, first):
    x = randn(*shape)
    np.testing.assert_allclose(f(x).numpy(), x.numpy() * 2 + shape[0], rtol=1e-6)
  assert f.captures == 2

def test_dtypes_numbers_and_modes_are_guarded():
  f = torch.jit(lambda x, k: x * k)
  assert f(torch.tensor([1, 2]), 3).tolist() == [3, 6]
  assert f(torch.tensor([1., 2.]), 3).tolist() == [3.0, 6.0]
  assert f(torch.tensor([1, 2]), 4).tolist() == [4, 8]
  assert f(torch.tensor([1, 2]), True).dtype is torch.int64
  assert f(torch.tensor([1, 2]), 1.0).dtype is torch.float32
  assert f.captures == 5
  with torch.no_grad(): f(torch.tensor([1, 2]), 3)
  assert f.captures == 6

SCALE = 2.0
def scaled_by_a_global(x): return helper(x) * SCALE
def helper(x): return x + OFFSET
OFFSET = 1.0

def test_globals_closures_defaults_and_attributes_are_guarded(monkeypatch):
  f, x = torch.jit(scaled_by_a_global), torch.ones(2)
  assert f(x).tolist() == [4.0, 4.0] == f(x).tolist()
  monkeypatch.setitem(globals(), "SCALE", 3.0)
  assert f(x).tolist() == [6.0, 6.0]
  monkeypatch.setitem(globals(), "OFFSET", 2.0)
  assert f(x).tolist() == [9.0, 9.0]
  factor = 1.0
  g = torch.jit(lambda x: x * factor)
  assert g(x).tolist() == [1.0, 1.0] == g(x).tolist()
  factor = 5.0
  assert g(x).tolist() == [5.0, 5.0]

def test_a_tensor_bound_to_a_name_again_is_the_one_that_is_used():
  w = torch.ones(2)
  f = torch.jit(lambda x: x + w)
  f(torch.zeros(2))
  w = torch.full((2,), 7.0)
  assert f(torch.zeros(2)).tolist() == [7.0, 7.0] and f.captures == 1

def test_arguments_that_share_memory_are_not_those_that_do_not():
  @torch.jit
  def f(a, b):
    a.add_(1)
    return a * b
  x, y = torch.ones(2), torch.ones(2)
  assert f(x, y).tolist() == [2.0, 2.0] and f(x, y).tolist() == [3.0, 3.0]
  assert f(x, x).tolist() == [16.0, 16.0] and f(x, x).tolist() == [25.0, 25.0]

def test_numpy_data_is_guarded_by_its_content():
  table = np.array([1.0, 2.0], np.float32)
  f = torch.jit(lambda x: x + torch.tensor(table))
  assert f(torch.zeros(2)).tolist() == [1.0, 2.0]
  table[0] = 5
  assert f(torch.zeros(2)).tolist() == [5.0, 2.0]

def test_a_recording_says_why(capsys):
  f = torch.jit(lambda x, k: x * k)
  with DEBUG.set(1):
    f(torch.ones(2), 3)
    f(torch.ones(2), 4)
    f(torch.ones(3), 4)
  said = capsys.readouterr().out
  assert "recording 1: the first call" in said and "3 is now 4" in said and "(3,)" in said

def test_many_signatures_are_all_recorded():
  f = torch.jit(lambda x, k: x + k)
  for k in range(20): assert f(torch.zeros(1), k).tolist() == [k]
  for k in range(20): assert f(torch.zeros(1), k).tolist() == [k]
  assert f.captures == 20

# ---- effects ---------------------------------------------------------------------------------------------------------

def test_arguments_and_caches_that_are_written_are_written_by_replays():
  cache = torch.zeros(4, 2)
  @torch.jit
  def f(position, row):
    cache[position] = row
    return cache.sum(1)
  for i in range(4):
    out = f(torch.tensor([i]), torch.full((1, 2), i + 1.0))
    assert out.tolist() == [2.0 * (k + 1) if k <= i else 0.0 for k in range(4)]
  assert cache[:, 0].tolist() == [1.0, 2.0, 3.0, 4.0]

def test_values_that_wait_keep_what_a_replay_overwrites():
  x = torch.zeros(2)
  @torch.jit
  def f(): x.add_(1)
  f()
  for i in range(1, 4):
    doubled, copy = x * 2, x.clone()
    f()
    assert doubled.tolist() == [2.0 * i] * 2 and copy.tolist() == [float(i)] * 2 and x.tolist() == [i + 1.0] * 2

def test_what_changes_its_own_guards_is_never_replayed(capsys):
  class Counter:
    n = 0
  counter, seen = Counter(), []
  @torch.jit
  def f(x):
    counter.n += 1
    return x + counter.n
  assert [f(torch.zeros(1)).item() for _ in range(4)] == [1.0, 2.0, 3.0, 4.0]
  @torch.jit
  def g(x):
    seen.append(x * 2)
    return x
  for i in range(3): g(torch.full((1,), float(i)))
  assert [s.item() for s in seen] == [0.0, 2.0, 4.0] and f.captures == g.captures == 0

def test_random_numbers_are_fresh_and_those_of_the_seed():
  def f(x): return torch.nn.functional.dropout(x, 0.5) + torch.rand(8)
  jitted = torch.jit(f)
  torch.manual_seed(3)
  expected = [f(torch.ones(8)).numpy() for _ in range(4)]
  torch.manual_seed(3)
  for want in expected: np.testing.assert_array_equal(jitted(torch.ones(8)).numpy(), want)

def test_batchnorm_keeps_its_statistics():
  def run(wrap):
    torch.manual_seed(0)
    norm = nn.BatchNorm1d(3)
    step = wrap(lambda x: norm(x).detach())
    with torch.no_grad(): outs = [step(randn(5, 3, seed=i)).numpy() for i in range(4)]
    return outs, norm.running_mean.numpy(), norm.num_batches_tracked.item()
  (outs, mean, count), (want, want_mean, want_count) = run(torch.jit), run(lambda f: f)
  for a, b in zip(outs, want): np.testing.assert_allclose(a, b, rtol=1e-6)
  np.testing.assert_allclose(mean, want_mean, rtol=1e-6)
  assert count == want_count == 4

# ---- training --------------------------------------------------------------------------------------------------------

def trained(wrap, make, steps=6, accumulate=False, schedule=False):
  torch.manual_seed(1)
  model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))
  optimizer = make(model.parameters())
  def step(x, y):
    if not accumulate: optimizer.zero_grad()
    loss = nn.functional.cross_entropy(model(x), y)
    loss.backward()
    optimizer.step()
    return loss
  step = wrap(step)
  losses = []
  for i in range(steps):
    if schedule:
      for group in optimizer.param_groups: group["lr"] = 0.1 / (i + 1)
    losses.append(step(randn(6, 4, seed=i), torch.tensor([0, 1, 2, 0, 1, 2])).item())
  return losses, [p.numpy() for p in map(lambda p: p.detach(), model.parameters())], step

@pytest.mark.parametrize("make", [
  lambda p: optim.SGD(p, lr=0.1), lambda p: optim.SGD(p, lr=0.1, momentum=0.9), lambda p: optim.AdamW(p, lr=0.05),
], ids=["sgd", "momentum", "adamw"])
@pytest.mark.parametrize("accumulate", [False, True])
def test_a_training_step_is_one_recording(make, accumulate):
  losses, params, step = trained(torch.jit, make, accumulate=accumulate, schedule=True)
  want, want_params, _ = trained(lambda f: f, make, accumulate=accumulate, schedule=True)
  np.testing.assert_allclose(losses, want, rtol=1e-5)
  for a, b in zip(params, want_params): np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
  assert step.captures >= 1

def test_gradients_of_replays_do_not_overwrite_those_that_are_held():
  w = torch.ones(2).requires_grad_()
  @torch.jit
  def f(x):
    w.grad = None
    (w * x).sum().backward()
  held = []
  for i in range(5):
    f(torch.full((2,), float(i)))
    held.append(w.grad)
  assert [g.tolist() for g in held] == [[float(i)] * 2 for i in range(5)]

def test_a_module_is_compiled_and_trained_through():
  model = nn.Linear(3, 2)
  compiled = torch.compile(model)
  x = randn(4, 3)
  for _ in range(3):
    model.weight.grad = None
    compiled(x).sum().backward()
    np.testing.assert_allclose(model.weight.grad.numpy(), np.tile(x.numpy().sum(0), (2, 1)), rtol=1e-5)
  with torch.no_grad():
    first = compiled(x)
    model.weight.add_(1)
    np.testing.assert_allclose(compiled(x).numpy(), model(x).numpy(), rtol=1e-5)
    assert not np.allclose(first.numpy(), model(x).numpy())
  assert len(list(compiled.parameters())) == 2

# ---- what cannot be captured -----------------------------------------------------------------------------------------

def test_asking_for_a_value_is_an_error_that_says_what_to_do():
  @torch.jit
  def f(x): return x * 2 if x.sum().item() > 0 else x
  with pytest.raises(CaptureError, match="where()"): f(torch.ones(2))
  x = torch.ones(2)
  assert (x + 1).tolist() == [2.0, 2.0]                                # the process goes on

def test_checks_of_the_data_are_made_by_replays():
  table = torch.arange(10).float()
  f = torch.jit(lambda i: table[i])
  assert f(torch.tensor([1, 2])).tolist() == [1.0, 2.0] == f(torch.tensor([1, 2])).tolist()
  with pytest.raises(IndexError): f(torch.tensor([1, 10])).tolist()          # at the latest when it is looked at
  d = torch.jit(lambda a, b: a // b)
  assert d(torch.tensor([6]), torch.tensor([2])).tolist() == [3]
  with pytest.raises(ZeroDivisionError): d(torch.tensor([6]), torch.tensor([0])).tolist()
  assert d(torch.tensor([6]), torch.tensor([3])).tolist() == [2]             # an error is raised once

def test_a_check_that_failed_is_not_forgotten_by_later_replays():
  f = torch.jit(lambda a, b: (a // b, a[b]))
  a, wrong = torch.tensor([6, 7]), [torch.tensor([0]), torch.tensor([2])]
  for _ in range(3): f(a, torch.tensor([1]))
  for b, error in zip(wrong, (ZeroDivisionError, IndexError)):
    with pytest.raises(error):
      f(a, b)
      f(a, torch.tensor([1]))[0].tolist()
  assert f(a, torch.tensor([1]))[0].tolist() == [6, 7]

def test_a_result_of_another_kind_and_large_arrays():
  f = torch.jit(lambda x: object())
  with pytest.raises(CaptureError, match="object"): f(torch.ones(1))
  with pytest.raises(CaptureError, match="NumPy"): torch.jit(lambda a: torch.tensor(a))(np.zeros(1 << 20))

def test_an_exception_of_the_function_leaves_no_recording():
  @torch.jit
  def f(x, bad):
    if bad: raise KeyError("mine")
    return x + 1
  with pytest.raises(KeyError): f(torch.ones(1), True)
  assert f(torch.ones(1), False).tolist() == [2.0] == f(torch.ones(1), False).tolist()

def test_jit_check_finds_what_a_replay_does_differently(monkeypatch):
  w = torch.ones(3).requires_grad_()
  optimizer = optim.Adam([w], lr=0.1)
  @torch.jit
  def f(x):
    optimizer.zero_grad()
    loss = (torch.nn.functional.dropout(w * x, 0.5) ** 2).sum()
    loss.backward()
    optimizer.step()
    return loss
  with JIT_CHECK.set(1):
    for i in range(5): f(torch.full((3,), float(i)))
    assert f.captures
    hidden = {"k": 1.0}
    class Opaque:
      __slots__ = ()
      def value(self): return hidden["k"]
    monkeypatch.setattr("picograd.capture.Walk.visit_attributes", lambda self, x: None)
    opaque = Opaque()
    g = torch.jit(lambda x: x * opaque.value())
    g(torch.ones(1))
    hidden["k"] = 2.0
    with pytest.raises(ReplayMismatch, match="result 0"): g(torch.ones(1))

def test_threads_may_share_a_recording():
  f = torch.jit(lambda x: x * 2 + 1)
  f(torch.zeros(1000))
  wrong = []
  def work(k):
    for _ in range(50):
      if f(torch.full((1000,), float(k)).realize()).numpy().tolist() != [k * 2.0 + 1] * 1000: wrong.append(k)
  threads = [threading.Thread(target=work, args=(k,)) for k in range(3)]
  for t in threads: t.start()
  for t in threads: t.join()
  assert not wrong

def test_memory_does_not_grow():
  f = torch.jit(lambda x: x + 1)
  x = torch.zeros(1 << 16).realize()
  f(x)
  gc.collect()
  before = Counters.bytes_live
  for _ in range(50): x = f(x)
  assert Counters.bytes_live <= before + (1 << 18) and x[0].item() == 50.0

def test_changes_of_a_module_are_seen():
  class Net(nn.Module):
    def __init__(self):
      super().__init__()
      self.first, self.second, self.scale, self.extra = nn.Linear(2, 2), nn.Linear(2, 2), 1.0, {"k": 1.0}
    def forward(self, x): return self.second(self.first(x)) * self.scale * self.extra["k"]
  net = Net()
  f, x = torch.jit(net), randn(3, 2)
  def agree():
    with torch.no_grad():
      for _ in range(2): np.testing.assert_allclose(f(x).numpy(), net(x).numpy(), rtol=1e-5)
  agree()
  net.scale = 2.0
  agree()
  net.extra["k"] = 3.0
  agree()
  net.second = net.first
  agree()
  net.first.weight = nn.Parameter(randn(2, 2, seed=4))
  agree()
  net.first.bias.data = torch.ones(2)
  agree()
  net.first = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
  agree()
  net.first[1] = nn.Tanh()
  agree()

# ---- what is known of a function is compared, not walked again -------------------------------------------------------

class Settings:
  def __init__(self): self.scale, self.shifts, self.table = 2.0, [1.0, 2.0], {"bias": 10.0}

settings, cell_of = Settings(), []

class Scaled(nn.Module):
  def __init__(self):
    super().__init__()
    self.linear = nn.Linear(3, 3, bias=False)
    self.gain = 3.0
  def forward(self, x, rows=slice(None)):
    y = self.linear(x)[rows] * settings.scale * self.gain + settings.shifts[-1]
    return y + settings.table["bias"] + sum(cell_of)

CHANGES = {
  "attribute": lambda model: setattr(settings, "scale", 5.0),
  "list item": lambda model: settings.shifts.__setitem__(1, 7.0),
  "longer list": lambda model: settings.shifts.append(8.0),
  "dict": lambda model: settings.table.update(bias=-1.0),
  "global list": lambda model: cell_of.append(4.0),
  "module's number": lambda model: setattr(model, "gain", 0.5),
  "other parameter": lambda model: setattr(model.linear, "weight", nn.Parameter(torch.ones(3, 3))),
  "parameter in place": lambda model: model.linear.weight.data.mul_(2),
  "defaults": lambda model: setattr(Scaled.forward, "__defaults__", (slice(1, 2),)),
  "gradients wanted": lambda model: model.linear.weight.requires_grad_(False),
}

@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_what_is_known_is_seen(change, monkeypatch):
  monkeypatch.setitem(globals(), "settings", Settings())
  monkeypatch.setitem(globals(), "cell_of", [])
  monkeypatch.setattr(Scaled.forward, "__defaults__", Scaled.forward.__defaults__)
  model, x = Scaled(), randn(4, 3)
  f = torch.jit(model)
  with torch.no_grad():
    for _ in range(3): np.testing.assert_allclose(f(x).numpy(), model(x).numpy(), rtol=1e-5)
    assert f.known.reads.hold()
    CHANGES[change](model)
    for _ in range(3): np.testing.assert_allclose(f(x).numpy(), model(x).numpy(), rtol=1e-5)

def test_memory_that_replays_overwrite_can_be_used_between_them():
  """Its node is made anew: graphs of before keep the old value, graphs of after see the new one."""
  state, x = torch.zeros(4), torch.ones(4)
  @torch.jit
  def f(x):
    state.add_(x)
    return state * 2
  for n in range(1, 6):
    later = state + 100                            # waits, and reads what the call overwrites
    assert f(x).tolist() == [2.0 * n] * 4
    assert later.tolist() == [99.0 + n] * 4
    assert state.tolist() == [float(n)] * 4 and (state + 1).tolist() == [n + 1.0] * 4
  state.mul_(3)
  assert f(x).tolist() == [32.0] * 4 and state.tolist() == [16.0] * 4
  assert f.captures == 1

def test_a_copy_that_replays_overwrite_is_no_longer_the_original():
  f = torch.jit(lambda x, rows: rows[0].add_(x).sum())
  state, x = torch.zeros(3), torch.ones(3)
  for n in range(4): assert f(x, [state]).item() == 3 * n + 3
  copy = state.clone()
  for n in range(4):
    assert f(x, [copy]).item() == 3 * n + 15 and state.tolist() == [4.0] * 3 and copy.tolist() == [n + 5.0] * 3

# ---- the short way to a function that reaches other tensors ----------------------------------------------------------

class Memory:
  """Rows that calls fill in place, and what they are multiplied with."""
  def __init__(self):
    self.rows = [(torch.tensor(np.zeros((4, 3), np.float32)), torch.tensor(np.ones((4, 3), np.float32)))]
    self.weight = randn(3)
  def step(self, at, x, scale, rows):
    total, last = rows[0]
    total += x * self.weight * scale
    last[at] = x
    return total.sum(0) + last.sum(0)

def after_each(change):
  """What a captured and an uncaptured run of six steps with a change in the midst return and leave behind."""
  def run(wrap):
    memory = Memory()
    step, out, kept = wrap(memory.step), [], []
    for n in range(8):
      if n == 5: change(memory, kept)
      x = memory.extra if hasattr(memory, "extra") and n == 5 else torch.tensor(np.full(3, n, np.float32))
      out.append(step(torch.tensor(np.array([n % 4])), x, 2, memory.rows).numpy())
    return [*out, *[t.numpy() for t in memory.rows[0]], *[k.numpy() for k in kept]]
  return run

class Later:
  """Views, copies and lazy values of the memory, as a user may hold them."""
  change = {
    "nothing": lambda m, kept: None,
    "another tensor in the list": lambda m, kept: m.rows.__setitem__(0, (m.rows[0][0], randn(4, 3, seed=7))),
    "another list": lambda m, kept: setattr(m, "rows", [tuple(t.clone() for t in m.rows[0])]),
    "another weight": lambda m, kept: setattr(m, "weight", randn(3, seed=9)),
    "weight in place": lambda m, kept: m.weight.mul_(3),
    "weight's data": lambda m, kept: setattr(m.weight, "data", randn(3, seed=11)),
    "memory in place": lambda m, kept: m.rows[0][0].zero_(),
    "memory's data": lambda m, kept: setattr(m.rows[0][1], "data", randn(4, 3, seed=8)),
    "a lazy reader": lambda m, kept: kept.append(m.rows[0][0] * 2),
    "a copy": lambda m, kept: kept.append(m.rows[0][0].clone()),
    "a view": lambda m, kept: kept.append(m.rows[0][0][1]),
    "memory as an argument": lambda m, kept: setattr(m, "extra", m.rows[0][1][2]),
    "the weight as an argument": lambda m, kept: setattr(m, "extra", m.weight),
    "a gradient": lambda m, kept: setattr(m.weight, "grad", randn(3, seed=5)),
  }

@pytest.mark.parametrize("change", Later.change)
def test_the_short_way_sees_what_has_changed(change):
  run = after_each(Later.change[change])
  for got, want in zip(run(torch.jit), run(lambda f: f), strict=True): np.testing.assert_allclose(got, want, rtol=1e-5)

def test_state_in_arguments_takes_the_short_way():
  """A call that differs from the last one in the arguments' values walks over nothing."""
  memory, runs = Memory(), []
  f = torch.jit(memory.step)
  call = f.call
  f.call = lambda *args: [runs.append(1), call(*args)][1]
  for n in range(6):
    f(torch.tensor(np.array([n % 4])), torch.tensor(np.full(3, n, np.float32)), 2, memory.rows).numpy()
  assert len(runs) == 2 and f.captures == 1
  np.testing.assert_allclose(memory.rows[0][0].numpy(), np.tile(memory.weight.numpy() * 30, (4, 1)), rtol=1e-5)

def test_arguments_may_go_unused():
  total = torch.zeros(2)
  f = torch.jit(lambda x, unused: total.add_(x).sum())
  @torch.jit
  def g(x, unused): total.add_(x)
  for n in range(4): assert f(torch.ones(2), torch.ones(5)).item() == 4 * n + 2 and g(torch.ones(2), randn(3)) is None
  assert total.tolist() == [8.0] * 2 and f.captures == g.captures == 1

def test_requiring_a_gradient_of_what_is_reached_is_seen():
  weight, x = randn(3), randn(3, seed=1)
  f = torch.jit(lambda x: (x * weight).sum())
  for _ in range(3): assert not f(x).requires_grad
  weight.requires_grad_()
  assert f(x).requires_grad

# ---- the memory of small results ------------------------------------------------------------------------------------

def buffers_of(monkeypatch):
  """A list that grows with each Buffer that a replay makes."""
  made = []
  def make(*args):
    made.append(args)
    return Buffer(*args)
  monkeypatch.setattr("picograd.capture.Buffer", make)
  return made

def test_a_result_lies_where_one_did_that_nobody_has(monkeypatch):
  """Of `x = f(x)` two lie side by side."""
  f, x = torch.jit(lambda x: x + 1), torch.zeros(3)
  for _ in range(3): f(x)
  made = buffers_of(monkeypatch)
  for n in range(8): x = f(x)
  assert len(made) <= 2 and x.tolist() == [8.0] * 3

@pytest.mark.parametrize("keep", {
  "the tensor": lambda t: t, "a view": lambda t: t[1:], "what is detached": lambda t: t.detach(),
  "a lazy value": lambda t: t * 1, "a NumPy view": lambda t: np.asarray(t), "a node": lambda t: torch.Tensor(t.uop),
  "a copy": lambda t: t.clone(), "one overwritten": lambda t: t.add_(0),
}.items(), ids=lambda item: item[0])
def test_results_that_somebody_has_stay_as_they_are(keep):
  f, kept = torch.jit(lambda x: (x * 2, x + 1)), []
  for n in range(8): kept += [keep[1](t) for t in f(torch.tensor(np.full(4, n, np.float32)))]
  for n, (double, more) in enumerate(zip(kept[::2], kept[1::2])):
    assert set(double.tolist()) == {2.0 * n} and set(more.tolist()) == {n + 1.0}

def test_large_results_wait_nowhere(monkeypatch):
  f, x = torch.jit(lambda x: x + 1), torch.zeros(1 << 14)
  for _ in range(3): f(x)
  made = buffers_of(monkeypatch)
  for _ in range(4): f(x)
  assert len(made) == 4
