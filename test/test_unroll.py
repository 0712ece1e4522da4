# Steps of a loop that are written out leave what a program computes as it is, in registers and in memory.
import numpy as np, pytest
from graphs import leaf, matmul, random
from picograd import codegen
from picograd.codegen.flat import Builder, flatten, mem2reg, new_label
from picograd.codegen.optimize import Opt
from picograd.codegen.place import place
from picograd.codegen.schedule import schedule
from picograd.codegen.target import PYTHON
from picograd.codegen.unroll import block_loop, write_out_short_loops, written_out
from picograd.dtype import dtypes
from picograd.ops.ops import Axis, Ops
from picograd.ops.spec import verify
from picograd.ops.uop import UOp
from picograd.runtime.python import PythonProgram
import linear_kernels as kernels

i32 = dtypes.int32

def run(fn, *arguments): return PythonProgram("test", [fn]).run(*arguments)
def ops_of(fn): return [u.op for block in fn.blocks.values() for u in block]
def loops_of(fn): return [loop for head in fn.blocks if (loop := block_loop(fn, head))]

def turns(n, step):
  """n / step turns of x, y = y, x + y, which add to memory. The result has x, y and the last turn's number."""
  b = Builder("turns", [dtypes.ptr], i32)
  x, y, k = b.var(i32), b.var(i32), b.var(i32)
  head, out = new_label(), new_label()
  for v, c in ((x, 1), (y, 2), (k, 0)): b.set(v, UOp.const(i32, c))
  b.start(head)
  before, sum_ = b.get(k), b.get(x) + b.get(y)
  b.store(b.param(0), b.load(b.param(0), i32) + b.get(x))
  b.set(x, b.get(y))
  b.set(y, sum_)
  b.set(k, before + step)
  b.branch(b.get(k) < UOp.const(i32, n), head, out)
  b.start(out)
  b.ret(b.get(x) * 1000 + b.get(y) * 10 + before)
  return mem2reg(b.finish())

SOME = [(12, 1, 2), (12, 1, 3), (12, 1, 4), (12, 1, 6), (12, 3, 2), (11, 3, 2)]
ALL = [(7, 1, 7), (10, 4, 3), (1, 1, 1)]

@pytest.mark.parametrize("n, step, times, is_placed", [
  *[(*s, p) for s in SOME for p in (False, True)], *[(*s, False) for s in ALL]])
def test_variables_and_memory(n, step, times, is_placed):
  plain = turns(n, step)
  fn = place(plain) if is_placed else plain
  loop, = loops_of(fn)
  assert loop.steps == -(-n // step)
  fn = written_out(fn, loop, times)
  assert len(loops_of(fn)) == (times < loop.steps)
  fn = fn if is_placed else place(fn)
  verify("placed", fn)
  assert ops_of(fn).count(Ops.STORE) == times
  got, want = np.array([5], np.int32), np.array([5], np.int32)
  assert run(fn, got.view(np.uint8)) == run(place(plain), want.view(np.uint8)) and got == want != 5

def test_short_loops_are_none():
  fn = mem2reg(flatten("add", kernels.add_kernel(4)))
  assert loops_of(fn) and not loops_of(write_out_short_loops(fn, 4)) and loops_of(write_out_short_loops(fn, 3))
  a, b, out = np.arange(4, dtype=np.float32), np.ones(4, np.float32), np.zeros(4, np.float32)
  PythonProgram("add", [place(write_out_short_loops(fn, 4))])([m.view(np.uint8) for m in (out, a, b)])
  assert out.tolist() == [1, 2, 3, 4]

@pytest.mark.parametrize("depth, steps", [(24, [6]), (27, [9]), (25, [25]), (3, [])])
def test_tiles_have_several_steps(depth, steps):
  """Sums stay in their order: the results are the same to the bit."""
  target = PYTHON._replace(written_out=4)
  a, b = random(6, depth), random(depth, 8, seed=1)
  kernel, = schedule([matmul(leaf(a), leaf(b))], "CPU").kernels
  opts = [Opt(Axis.VECTOR, 1, 4), Opt(Axis.UPCAST, 0, 6), Opt(Axis.UPCAST, 1, 2)]
  results = []
  for t in (PYTHON, target):
    fn = codegen.compile("product", codegen.prepared(kernel.ast), t, opts)
    results.append(np.zeros((6, 8), np.float32))
    PythonProgram("product", [fn])([m.view(np.uint8).ravel() for m in (results[-1], a, b)])
  assert [loop.steps for loop in loops_of(fn)] == steps
  assert np.array_equal(*results) and np.allclose(results[0], a @ b, atol=1e-5)
