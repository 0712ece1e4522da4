# test_beam.py: searched kernels are right, whatever candidates do: those that hang, crash, or compute something else
# never win, and cost no more than their time limit. What was found is kept; the heuristic's choice loses only to what
# is faster.
import sys, time
import numpy as np
import pytest
import picograd
from picograd import codegen
from picograd.codegen.optimize import Opt
from picograd.helpers import BEAM, CACHE_DIR
from picograd.ops.ops import Axis
from picograd.runtime import beam, plan, process
from picograd.runtime.device import device

SABOTAGED = """
import os, time
from picograd.runtime import beam, process
plain = beam.Bench.{method}
def sabotaged(self, opts):
  if any(o.axis.name == "UPCAST" for o in opts): {action}
  return plain(self, opts)
beam.Bench.{method} = sabotaged
process.serve()
"""

@pytest.fixture(autouse=True)
def short_searches(monkeypatch, tmp_path):
  monkeypatch.setattr(beam, "ROUNDS", 1)
  monkeypatch.setattr(beam, "TIMED", 2)
  for table in ("programs", "binaries", "plans"): monkeypatch.setattr(plan, table, {})
  with CACHE_DIR.set(str(tmp_path)): yield

def kernel_of(compute):
  """The prepared kernel of an expression, and the elements of its buffers."""
  found = []
  plain = plan.source_of
  def record(where, name, kernel):
    found.append(kernel)
    return plain(where, name, kernel)
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(plan, "source_of", record)
    compute().realize()
  kernel = found[-1]
  return codegen.prepared(kernel.ast), tuple(leaf.arg.size for leaf in kernel.buffers)

def product():
  a, b = (picograd.tensor(np.random.default_rng(k).random((24, 24), np.float32)) for k in range(2))
  return a @ b

def sabotage(monkeypatch, method, action):
  code = SABOTAGED.format(method=method, action=action)
  monkeypatch.setattr(process, "COMMAND", [sys.executable, "-c", code])

@pytest.mark.parametrize("compute", [
  lambda x: x @ x.T, lambda x: x.softmax(-1), lambda x: x.sum(0), lambda x: (x > 0.5).sum(),
  lambda x: x[x.argmax(0)], lambda x: (x * 10).int() // 3,
  lambda x: picograd.nn.functional.pad(x, (1, 2, 3, 4)).cumsum(1), lambda x: x.half() * 2,
])
def test_results_of_searched_kernels(compute, monkeypatch):
  monkeypatch.setattr(beam, "TIMED", 1)
  data = np.random.default_rng(0).random((9, 33), np.float32)
  with BEAM.set(1): found = compute(picograd.tensor(data)).numpy()
  for table in (plan.programs, plan.binaries, plan.plans): table.clear()
  plain = compute(picograd.tensor(data)).numpy()
  np.testing.assert_allclose(found, plain, rtol=1e-3 if found.dtype == np.float16 else 1e-5)

@pytest.mark.parametrize("method", ["estimate", "check", "time"])
@pytest.mark.parametrize("action", ["time.sleep(60)", "os.kill(os.getpid(), 11)", "raise ValueError"])
def test_candidates_that_hang_crash_or_fail_do_not_win(method, action, monkeypatch):
  sabotage(monkeypatch, method, action)
  monkeypatch.setattr(beam, "ESTIMATE_LIMIT", 0.3)
  monkeypatch.setattr(beam, "TIME_LIMIT", 0.5 if "sleep" in action else 10)
  monkeypatch.setattr(beam, "SEARCH_LIMIT", 4)
  kernel, sizes = kernel_of(product)
  monkeypatch.setattr(codegen, "opts_for", lambda kernel, target: [])
  start = time.perf_counter()
  with BEAM.set(1): opts = beam.best_opts(device("CPU"), kernel, sizes, "product")
  assert not any(opt.axis is Axis.UPCAST for opt in opts)
  assert time.perf_counter() - start < 60

def test_a_wrong_candidate_does_not_win(monkeypatch):
  """One that leaves half of the output alone is fast."""
  sabotage(monkeypatch, "program", "return lambda memory: None")
  kernel, sizes = kernel_of(product)
  monkeypatch.setattr(codegen, "opts_for", lambda kernel, target: [])
  with BEAM.set(1): opts = beam.best_opts(device("CPU"), kernel, sizes, "product")
  assert not any(opt.axis is Axis.UPCAST for opt in opts)

class Scripted:
  """A worker with known times."""
  def __init__(self, *kernel): self.asked = []
  def ask(self, limit, method, *arguments):
    self.asked.append((method, *arguments))
    if method == "check": return None
    return self.seconds(arguments[0])
  def seconds(self, opts): return 1.0 / (1 + sum(opt.amount for opt in opts if opt.axis is Axis.UNROLL))
  def close(self): pass

def searched(monkeypatch, kernel, sizes, worker):
  monkeypatch.setattr(beam, "Worker", lambda *kernel: worker)
  with BEAM.set(2): return beam.best_opts(device("CPU"), kernel, sizes, "product")

def test_the_fastest_wins_and_is_remembered(monkeypatch):
  monkeypatch.setattr(beam, "ROUNDS", 4)
  kernel, sizes = kernel_of(product)
  found = searched(monkeypatch, kernel, sizes, Scripted())
  assert Opt(Axis.UNROLL, 2, 8) in found
  nobody = Scripted()
  assert searched(monkeypatch, kernel, sizes, nobody) == found and nobody.asked == []

def test_another_compiler_searches_again(monkeypatch):
  kernel, sizes = kernel_of(product)
  searched(monkeypatch, kernel, sizes, Scripted())
  monkeypatch.setattr(codegen, "compiler", lambda: b"another")
  again = Scripted()
  searched(monkeypatch, kernel, sizes, again)
  assert again.asked

def test_what_is_no_faster_does_not_win(monkeypatch):
  kernel, sizes = kernel_of(product)
  monkeypatch.setattr(Scripted, "seconds", lambda self, opts: 1.0)
  assert searched(monkeypatch, kernel, sizes, Scripted()) == codegen.opts_for(kernel, device("CPU").target)

def test_a_candidate_that_was_lucky_once_does_not_win(monkeypatch):
  """Its first time is short, but in turns with the heuristic's choice it is slower."""
  kernel, sizes = kernel_of(product)
  baseline, timed = codegen.opts_for(kernel, device("CPU").target), []
  def seconds(self, opts):
    if opts == baseline: return 1.0
    timed.append(repr(opts))
    return 0.5 if timed.count(repr(opts)) < 3 else 2.0
  monkeypatch.setattr(Scripted, "seconds", seconds)
  monkeypatch.setattr(beam, "wins", lambda worker, opts, baseline: False)
  assert searched(monkeypatch, kernel, sizes, Scripted()) == baseline

def test_an_interrupted_search_keeps_what_it_has(monkeypatch, capsys):
  monkeypatch.setattr(beam, "ROUNDS", 4)
  kernel, sizes = kernel_of(product)
  def ask(self, limit, method, *arguments):
    if method == "check" and sum(asked[0] == "time" for asked in self.asked) > 2 * beam.DUELS: raise KeyboardInterrupt
    return plain(self, limit, method, *arguments)
  plain = Scripted.ask
  monkeypatch.setattr(Scripted, "ask", ask)
  found = searched(monkeypatch, kernel, sizes, Scripted())
  assert any(opt.axis is Axis.UNROLL for opt in found) and "interrupted" in capsys.readouterr().err

def test_the_cost_model_likes_vectors_and_no_spills():
  kernel, _ = kernel_of(product)
  target = device("CPU").target
  def cost(*opts): return beam.cost(codegen.structured("k", kernel, target, list(opts)), target)
  lanes = target.lanes(picograd.float32)
  vector = Opt(Axis.VECTOR, 1, lanes)
  assert cost(vector) < cost() / 2
  assert cost(vector, Opt(Axis.UPCAST, 0, 4)) < cost(vector)
  assert cost(vector, Opt(Axis.UPCAST, 0, 24), Opt(Axis.UPCAST, 1, 3)) > cost(vector, Opt(Axis.UPCAST, 0, 4))
