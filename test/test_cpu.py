# The CPU device: compiled kernels compute what NumPy computes; what LLVM refuses is an exception.
import os, subprocess, sys, time
import numpy as np, pytest
pytest.importorskip("llvmlite")
from picograd.runtime.cpu import CompileError
from picograd.runtime.device import device
import linear_kernels as kernels

rng = np.random.default_rng(0)
def floats(*shape): return rng.standard_normal(shape).astype(np.float32)
def bytes_of(a): return a.reshape(-1).view(np.uint8)

def run(name, linear, *arrays):
  """The kernel on both devices; the arrays hold the CPU's result, which must equal PYTHON's."""
  fn = kernels.flat(name, linear)
  copies = [a.copy() for a in arrays]
  for where, given in (("PYTHON", copies), ("CPU", arrays)):
    dev = device(where)
    dev.load(name, dev.compile(dev.render(fn)))([bytes_of(a) for a in given])
  for mine, theirs in zip(arrays, copies): np.testing.assert_array_equal(mine, theirs)

def test_add():
  out, a, b = np.zeros(100, np.float32), floats(100), floats(100)
  run("add", kernels.add_kernel(100), out, a, b)
  np.testing.assert_array_equal(out, a + b)

def test_masked_tail():
  out, a, b = np.zeros(40, np.float32), floats(40), floats(40)
  run("masked", kernels.masked_add_kernel(37), out, a, b)
  np.testing.assert_array_equal(out[:37], a[:37] + b[:37])
  assert not out[37:].any()

def test_row_sum():
  out, a = np.zeros(5, np.float32), floats(5, 32)
  run("rows", kernels.row_sum_kernel(5, 32), out, a)
  np.testing.assert_allclose(out, a.sum(1), rtol=1e-5)

def test_matmul_tile():
  c, a, b = np.zeros((8, 32), np.float32), floats(8, 12), floats(12, 32)
  run("matmul", kernels.matmul_kernel(8, 32, 12), c, a, b)
  np.testing.assert_allclose(c, a @ b, rtol=1e-4, atol=1e-5)

def test_gates():
  out, a = np.full(9, 7, np.float32), floats(9)
  run("shift", kernels.shift_kernel(9), out, a)
  expected = np.full(9, 7, np.float32)
  expected[::2] = np.concatenate([[0], a[:-1]])[::2]
  np.testing.assert_array_equal(out, expected)

def test_loop_that_may_be_empty():
  out, a = np.zeros(6, np.float32), floats(6)
  run("triangle", kernels.triangle_kernel(6), out, a)
  np.testing.assert_allclose(out, [a[:i].sum() for i in range(6)], rtol=1e-5)

def test_threads():
  out = np.zeros(12, np.int64)
  run("threads", kernels.thread_kernel(12, 3), out)
  np.testing.assert_array_equal(out, np.tile(np.arange(4), 3) + np.repeat([0, 100, 200], 4))

def test_threads_sleep_and_wake():
  cpu = device("CPU")
  program = cpu.load("threads", cpu.compile(cpu.render(kernels.flat("threads", kernels.thread_kernel(12, 3)))))
  for pause in (0, 0, 0.05, 0):
    time.sleep(pause)
    out = np.zeros(12, np.int64)
    program([bytes_of(out)])
    assert out[4] == 100 and out[11] == 203

def test_captured_calls_run_in_order():
  """out[i] = out[i] + a[i] many times, as captured calls of one and of several threads."""
  cpu = device("CPU")
  add = cpu.load("add", cpu.compile(cpu.render(kernels.flat("add", kernels.add_kernel(12)))))
  fill = cpu.load("threads", cpu.compile(cpu.render(kernels.flat("threads", kernels.thread_kernel(12, 3)))))
  out, a, numbers = (cpu.allocate(n) for n in (48, 48, 96))
  out.view(np.float32)[:], a.view(np.float32)[:] = 0, 1
  sequel = cpu.capture([(add, [out, out, a]), (fill, [numbers]), (add, [a, out, out]), (add, [out, a, a])])
  for _ in range(3): sequel([], [])
  np.testing.assert_array_equal(out.view(np.float32), [144] * 12)
  assert numbers.view(np.int64)[11] == 203

def test_a_captured_call_without_neighbours_needs_no_other_code(monkeypatch):
  """What goes through lists of calls takes as long to compile as a kernel."""
  cpu = device("CPU")
  add = cpu.load("add", cpu.compile(cpu.render(kernels.flat("add", kernels.add_kernel(12)))))
  fill = cpu.load("threads", cpu.compile(cpu.render(kernels.flat("threads", kernels.thread_kernel(12, 3)))))
  out, a, numbers = (cpu.allocate(n) for n in (48, 48, 96))
  out.view(np.float32)[:], a.view(np.float32)[:] = 0, 1
  fill([numbers])                                                    # the pool has begun
  numbers[:] = 0
  monkeypatch.setattr(cpu, "native", None)
  adding, filling = cpu.capture([(add, [0, out, a])]), cpu.capture([(fill, [numbers])])
  for _ in range(3): adding([out], [0])
  filling([], [])
  assert out.view(np.float32).tolist() == [3.0] * 12 and numbers.view(np.int64)[11] == 203

def test_threads_after_fork():
  source = """
import os, sys
import numpy as np
sys.path.insert(0, "test")
import linear_kernels as kernels
from picograd.runtime.device import device
cpu = device("CPU")
program = cpu.load("threads", cpu.compile(cpu.render(kernels.flat("threads", kernels.thread_kernel(12, 3)))))
def check():
  out = np.zeros(12, np.int64)
  program([out.view(np.uint8)])
  return int(out[11]) - 203
assert check() == 0
child = os.fork()
if child == 0: os._exit(check())
assert os.waitpid(child, 0)[1] == 0
"""
  subprocess.run([sys.executable, "-c", source], check=True, timeout=60)

def test_an_interrupt_leaves_the_threads_usable():
  """SIGINT again and again while calls run: the threads go on to compute what they should."""
  source = """
import _thread, signal, sys, threading, time
import numpy as np
sys.path.insert(0, "test")
import linear_kernels as kernels
from picograd.runtime.device import device
cpu = device("CPU")
program = cpu.load("threads", cpu.compile(cpu.render(kernels.flat("threads", kernels.thread_kernel(12, 3)))))
program([np.zeros(96, np.uint8)])
armed = False
def on_interrupt(*_):
  "Only raises where it is caught: the loop itself must go on."
  global armed
  if not armed: return
  armed = False
  raise KeyboardInterrupt
signal.signal(signal.SIGINT, on_interrupt)
def interrupt():
  while True:
    time.sleep(0.002)
    _thread.interrupt_main()
threading.Thread(target=interrupt, daemon=True).start()
interrupts = 0
while interrupts < 20:
  out = np.zeros(12, np.int64)
  try:
    armed = True
    program([out.view(np.uint8)])
    assert out[4] == 100 and out[11] == 203
    armed = False
  except KeyboardInterrupt: interrupts += 1
import os
os._exit(0)                                        # more interrupts are on their way
"""
  subprocess.run([sys.executable, "-c", source], check=True, timeout=60, env={**os.environ, "THREADS": "2"})

def test_scratch():
  out, a = np.zeros(10, np.float32), floats(10)
  run("scratch", kernels.scratch_kernel(10), out, a)
  np.testing.assert_array_equal(out, a[::-1])

def test_bad_source_is_an_exception():
  cpu = device("CPU")
  source = cpu.render(kernels.flat("broken", kernels.add_kernel(4))).replace("fadd float", "fadd double", 1)
  with pytest.raises(CompileError, match="kernel broken") as e: cpu.compile(source)
  assert "fadd double" in str(e.value)

def test_a_call_of_nothing_is_an_exception():
  cpu = device("CPU")
  source = cpu.render(kernels.flat("caller", kernels.add_kernel(4)))
  source = source.replace("  ret void\n", "  call void @no_such_function()\n  ret void\n", 1)
  source += "declare void @no_such_function()\n"
  with pytest.raises(CompileError, match="kernel caller.*no_such_function"): cpu.compile(source)

def test_equal_names_do_not_collide():
  cpu = device("CPU")
  for n in (3, 5):
    out, a, b = np.zeros(8, np.float32), floats(8), floats(8)
    cpu.load("k", cpu.compile(cpu.render(kernels.flat("k", kernels.add_kernel(n)))))([bytes_of(x) for x in (out, a, b)])
    np.testing.assert_array_equal(out, np.where(np.arange(8) < n, a + b, 0))
