# Plans on disk: a second process schedules and compiles nothing, and finds nothing that another compiler, machine or
# flag has made. Compiling several kernels: errors and interrupts reach the caller.
import shutil, sys, time
import numpy as np
import picograd
import pytest
from picograd import codegen, storage
from picograd.codegen.schedule import schedule
from picograd.dtype import dtypes
from picograd.helpers import BEAM, CACHE, CACHE_DIR, Counters, NOOPT, SPEC, THREADS
from picograd.ops.ops import Ops
from picograd.ops.uop import UOp
from picograd.runtime import plan, process
from picograd.runtime.cuda import CudaCompiler
from picograd.runtime.device import Device, device
from test_cuda import needs_nvrtc

@pytest.fixture
def cache(tmp_path, monkeypatch):
  """An empty disk cache, and no kernel or plan in memory."""
  with CACHE_DIR.set(str(tmp_path)), CACHE.set(1), SPEC.set(0):
    forget(monkeypatch)
    yield tmp_path

def forget(monkeypatch) -> None:
  """What a new process does not know."""
  monkeypatch.setattr(plan, "plans", {})
  monkeypatch.setattr(plan, "binaries", {})

def refuse(monkeypatch) -> None:
  """From now on nothing may be scheduled."""
  def fail(*_): raise AssertionError("a plan that is on disk is made again")
  monkeypatch.setattr(plan, "schedule", fail)

def steps() -> list[np.ndarray]:
  """A few kernels: temporaries, several results, an assignment, equal layers."""
  rng = np.random.default_rng(0)
  x, w = picograd.tensor(rng.normal(size=(9, 40))), picograd.tensor(rng.normal(size=(40, 40)))
  counter = picograd.tensor(np.zeros(3))
  y = ((x @ w).softmax(1) @ w).softmax(1)
  counter += y.sum()
  z = y.sum(0)
  storage.realize([t.storage for t in (y, z, counter)])
  return [y.numpy(), z.numpy(), counter.numpy()]

def test_a_kept_plan_gives_the_same_values(cache, monkeypatch):
  first = steps()
  assert list((cache / "plans").iterdir())
  forget(monkeypatch)
  refuse(monkeypatch)
  for a, b in zip(first, steps()): assert np.array_equal(a, b)

@pytest.mark.parametrize("change", ["compiler", "flag", "threads", "name"])
def test_the_key_names_all_that_a_plan_depends_on(cache, monkeypatch, change):
  roots, where = [picograd.tensor([1.0, 2.0]).uop * 3], device("CPU")
  before = plan.plan_key(where, roots)
  assert plan.plan_key(where, roots) == before
  if change == "compiler": monkeypatch.setattr(codegen, "compiler", lambda: b"another")
  if change == "threads": monkeypatch.setattr(where, "target", where.target._replace(threads=77))
  if change == "name": monkeypatch.setattr(where, "name", "CPU:1")
  with NOOPT.set(int(change == "flag")): assert plan.plan_key(where, roots) != before

def test_opts_of_ones_own_are_used_whatever_the_disk_has(cache, monkeypatch):
  """And what they made is not kept in the place of the compiler's choice."""
  first, chosen = steps(), []
  kept = {f.name: f.read_bytes() for f in (cache / "plans").iterdir()}
  forget(monkeypatch)
  with monkeypatch.context() as patch:
    patch.setattr(codegen, "opts_for", lambda kernel, target: chosen.append(kernel) or [])
    for a, b in zip(first, steps()): np.testing.assert_allclose(a, b, rtol=1e-12)
  assert len(chosen) > 3
  assert {f.name: f.read_bytes() for f in (cache / "plans").iterdir()} == kept

def test_forms_that_differ_have_different_keys():
  x = picograd.tensor([1.0, 2.0]).uop
  forms = [x * 3, x * -0.0, x * 0.0, x + 3, x.reshape((2, 1)), x.cast(picograd.float64), x.reduce(Ops.ADD, (0,))]
  assert len({plan.structure([u]) for u in forms}) == len(forms)

def test_a_damaged_plan_is_made_again(cache, monkeypatch):
  first = steps()
  for path in (cache / "plans").iterdir(): path.write_bytes(path.read_bytes()[:-40])
  forget(monkeypatch)
  for a, b in zip(first, steps()): assert np.array_equal(a, b)

def test_an_error_of_the_compiler_reaches_the_caller(cache, monkeypatch):
  def fail(source): raise RuntimeError("no such instruction")
  monkeypatch.setattr(device("CPU"), "compile", fail)
  x = picograd.tensor(np.ones((30, 30)))
  with pytest.raises(RuntimeError, match="no such instruction"): ((x @ x).softmax(1) @ x).numpy()

def test_an_interrupt_reaches_the_caller(cache, monkeypatch): interrupt(monkeypatch, 3)

def interrupt(monkeypatch, kernel):
  """Interrupts when this process begins with a kernel, 1 is the first; afterwards the same tensor has its values."""
  calls = []
  def interrupted(*_):
    calls.append(1)
    if len(calls) == kernel: raise KeyboardInterrupt
    return original(*_)
  original = plan.source_of
  monkeypatch.setattr(plan, "source_of", interrupted)
  x = picograd.tensor(np.ones((31, 31)))
  y = (((x @ x).softmax(1) @ x).softmax(0) @ x).softmax(1)
  with pytest.raises(KeyboardInterrupt): y.numpy()
  assert np.allclose(y.numpy(), 1 / 31)

# ---- other processes that compile ------------------------------------------------------------------------------------

@pytest.fixture
def helpers(cache, monkeypatch):
  """Every kernel but the first is worth another process. The processes that were started, and what they were asked."""
  started, asked = [], []
  class Recorded(process.Process):
    def __init__(self):
      super().__init__()
      started.append(self)
    def call(self, limit, function, *arguments):
      asked.append(arguments[2])
      return super().call(limit, function, *arguments)
  monkeypatch.setattr(plan, "Process", Recorded)
  monkeypatch.setattr(plan, "START", 1e-9)
  with THREADS.set(3): yield started, asked
  assert not any(p.is_running for p in started)

def slow_passes(monkeypatch):
  """Others have time to start."""
  plain = plan.source_of
  def source_of(*arguments):
    time.sleep(0.7)
    return plain(*arguments)
  monkeypatch.setattr(plan, "source_of", source_of)

def test_other_processes_compile_the_same_binaries(helpers, monkeypatch):
  """Whoever compiles: so many kernels are compiled, with this code."""
  monkeypatch.setattr(device("CPU"), "target", device("CPU").target._replace(threads=3))
  with monkeypatch.context() as patch:
    patch.setattr(plan, "START", 1e9)
    before = Counters.compiled
    first, alone = steps(), {b.name: b for b in plan.binaries.values()}
    compiled = Counters.compiled - before
  forget(monkeypatch)
  for kind in ("plans", "kernels"): shutil.rmtree(CACHE_DIR.value + "/" + kind)
  slow_passes(monkeypatch)
  for a, b in zip(first, steps()): assert np.array_equal(a, b)
  started, asked = helpers
  assert len(started) == 2 and asked and set(asked) < alone.keys()
  assert {b.name: b for b in plan.binaries.values()} == alone and Counters.compiled == before + 2 * compiled

@pytest.mark.parametrize("what", ["die", "are of other flags"])
def test_what_other_processes_cannot_compile_is_compiled_here(helpers, monkeypatch, what):
  if what == "die": monkeypatch.setattr(process, "COMMAND", [sys.executable, "-c", "raise SystemExit(1)"])
  else: monkeypatch.setattr(device("CPU"), "target", device("CPU").target._replace(threads=2, l2_bytes=123 << 10))
  slow_passes(monkeypatch)
  steps()
  assert helpers[1]

def test_an_interrupt_ends_other_processes(helpers, monkeypatch):
  """Which have taken one kernel each when this one begins with its second."""
  interrupt(monkeypatch, 2)
  assert helpers[0]

def test_as_many_processes_as_have_work_for_longer_than_they_take_to_start():
  """But no more than threads are allowed, and none for devices that compile nothing elsewhere, or where somebody
  watches."""
  where, start = device("CPU"), plan.START
  with THREADS.set(4), SPEC.set(0):
    assert [plan.helpful(where, n * start) for n in (0, 0.9, 1.1, 2.5, 100)] == [0, 0, 1, 2, 3]
    assert plan.helpful(Device(), 100 * start) == 0
    with BEAM.set(2): assert plan.helpful(where, 100 * start) == 0
    with SPEC.set(1): assert plan.helpful(where, 100 * start) == 0
  with THREADS.set(1): assert plan.helpful(where, 100 * start) == 0

@needs_nvrtc
def test_kernels_for_a_gpu_are_compiled_in_other_processes_without_one(helpers, monkeypatch):
  where = CudaCompiler("CUDA", (9, 0), 132)
  inputs = [UOp.buffer(dtypes.float32, 64 * n, "CUDA").reshape((n, 64)) for n in range(60, 65)]
  kernels = schedule([UOp(Ops.CONTIGUOUS, x.dtype, (x * 2,)) for x in inputs], "CUDA", where.target).kernels
  slow_passes(monkeypatch)
  there = plan.compile_all(where, kernels)
  assert len(there) == 5 and helpers[1]
  forget(monkeypatch)
  monkeypatch.setattr(plan, "START", 1e9)
  assert plan.compile_all(where, kernels) == there
