# The CPU device: compiled kernels compute what NumPy computes.
import numpy as np, pytest
pytest.importorskip("llvmlite")
from picograd.codegen.flat import flatten, mem2reg
from picograd.codegen.place import place
from picograd.dtype import dtypes
from picograd.ops.ops import Axis, Ops
from picograd.ops.uop import UOp, fresh, toposort
from picograd.runtime.device import device

def param(slot, dtype): return UOp(Ops.PARAM, dtype, (), slot)
def loop(bound): return UOp(Ops.RANGE, dtypes.int64, (UOp.const(dtypes.int64, bound),), (next(fresh), Axis.LOOP))

def run(linear, *arrays):
  cpu = device("CPU")
  fn = place(mem2reg(flatten("k", linear)))
  cpu.load("k", cpu.compile(cpu.render(fn)))([a.reshape(-1).view(np.uint8) for a in arrays])

def test_elementwise_add():
  out, a, b = (param(k, dtypes.float32) for k in range(3))
  i = loop(100)
  store = out.index(i).store(a.index(i).load() + b.index(i).load())
  x, y, z = np.arange(100, dtype=np.float32), np.full(100, 3, np.float32), np.zeros(100, np.float32)
  run(toposort((store.end(i),)), z, x, y)
  assert (z == x + y).all()
