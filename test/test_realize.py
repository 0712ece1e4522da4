# Assignments in order, values computed once, versions checked, memory given back.
import gc, subprocess, sys
import numpy as np
import pytest
from graphs import assign, close, leaf, matmul, random, value
from picograd.dtype import dtypes
from picograd.helpers import Counters, DEVICE
from picograd.ops.ops import Ops
from picograd.ops.uop import UOp
from picograd.runtime.device import buffer_of, to_host
from picograd.runtime.realize import realize, resolve

def test_assignment_runs_once_and_gives_a_new_version():
  x = leaf(np.arange(4, dtype=np.float32))
  after = assign(x.reshape((4,)), x.reshape((4,)) + 1)
  result, = realize([after])
  assert result.arg.id == x.src[0].arg.id if x.op is Ops.RESHAPE else x.arg.id
  assert result.arg.version == 1 and to_host(result).tolist() == [1, 2, 3, 4]
  assert realize([after])[0] is result and to_host(result).tolist() == [1, 2, 3, 4]
  assert resolve([after * 2]) == [result * 2]

def test_reading_what_was_overwritten_is_an_error():
  x = leaf(np.zeros(4, np.float32))
  old = x * 3
  realize([assign(x, x + 1)])
  with pytest.raises(RuntimeError, match="is overwritten"): realize([old])

def test_overlapping_assignment_reads_before_it_writes():
  x = leaf(np.arange(8, dtype=np.float32))
  shifted = assign(x.shrink(((1, 8),)), x.shrink(((0, 7),)))
  assert to_host(realize([shifted])[0]).tolist() == [0, 0, 1, 2, 3, 4, 5, 6]
  y = leaf(np.arange(8, dtype=np.float32))
  assert to_host(realize([assign(y, y.flip((0,)))])[0]).tolist() == [7, 6, 5, 4, 3, 2, 1, 0]

def test_one_kernel_reads_before_and_after():
  x = leaf(np.arange(4, dtype=np.float32))
  old = x * 2
  new = assign(x, x + 10)
  assert value(new + old).tolist() == [10, 13, 16, 19]

def test_readers_of_the_old_version_run_first():
  x = leaf(np.arange(4, dtype=np.float32))
  old = matmul(x.reshape((1, 4)), x.reshape((4, 1)))
  results = realize([old, assign(x, x * 0)])
  assert to_host(results[0]).tolist() == [14] and to_host(results[1]).tolist() == [0, 0, 0, 0]

def test_chained_assignments():
  x = leaf(np.ones(3, np.float32))
  once = assign(x, x + 1)
  twice = assign(once, once * 5)
  result, = realize([twice])
  assert to_host(result).tolist() == [10, 10, 10] and result.arg.version == 2

def test_merged_updates_use_new_values():
  """m and p are updated in one kernel; p sees the new m, and the old p."""
  m, p, g = (leaf(np.full(6, v, np.float32)) for v in (1, 2, 3))
  new_m = assign(m, m * 0.5 + g)
  new_p = assign(p, p - new_m * 0.1)
  Counters.reset()
  results = realize([new_m, new_p])
  assert Counters.kernels == 1
  close(to_host(results[0]), np.full(6, 3.5))
  close(to_host(results[1]), np.full(6, 1.65))

def test_equal_forms_share_programs():
  a, b = leaf(random(6, 6)), leaf(random(6, 6, seed=1))
  realize([a * 7 + 1])
  Counters.reset()
  close(value(b * 7 + 1), random(6, 6, seed=1) * 7 + 1)
  assert Counters.kernels == 1 and Counters.compiled == 0

def test_a_process_ends_in_silence():
  """Memory that is alive at the end, of any size."""
  code = """
import picograd
picograd.kept = [(picograd.ones(n).contiguous() + 1).realize() for n in (3, 5000001)]
print(picograd.kept[1].sum().item())
"""
  done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100)
  assert done.stdout == "10000002.0\n" and not done.stderr

def test_a_value_is_computed_once():
  x = leaf(random(6, 6)) * 2
  realize([x])
  Counters.reset()
  realize([x])
  assert Counters.kernels == 0

def test_marked_leaves_do_not_share_memory():
  zeros = UOp.const(dtypes.float32, 0).spread((4,))
  a, b = (UOp(Ops.CONTIGUOUS, dtypes.float32, (zeros,), mark) for mark in (101, 102))
  first, second = realize([a, b])
  assert buffer_of(first) is not buffer_of(second)

def test_memory_is_given_back():
  gc.collect()
  before = Counters.bytes_live
  x = leaf(np.zeros(1000, np.float32))
  y, = realize([x + 1])
  assert Counters.bytes_live >= before + 8000
  del x, y
  gc.collect()
  assert Counters.bytes_live == before

def test_copies_between_devices():
  x = leaf(np.arange(4, dtype=np.float32), "NUMPY")
  there = UOp(Ops.COPY, dtypes.float32, (x * 2,), "CPU")
  assert value(there + 1).tolist() == [1, 3, 5, 7] and (there + 1).device == "CPU"

def test_empty_values():
  x = leaf(np.arange(4, dtype=np.float32))
  nothing = assign(x.shrink(((2, 2),)), x.shrink(((1, 1),)) * 5)
  assert to_host(realize([nothing])[0]).tolist() == [0, 1, 2, 3]
  assert value(leaf(np.zeros((0, 3), np.float32)) + 1).shape == (0, 3)

def test_a_constant_is_not_shared_between_devices():
  """Its graph names no device: what one device has computed of it is no value on another."""
  ones = UOp.const(dtypes.float32, 1).spread((4,))
  with DEVICE.set("CPU"): first, = realize([ones])
  with DEVICE.set("NUMPY"): second, = realize([ones])
  assert first.arg.device == "CPU" and second.arg.device == "NUMPY"
