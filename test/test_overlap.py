# A loop that copies joins the one that reads the copy where each step reads what the same step has copied, only there.
import numpy as np, pytest
from graphs import leaf, matmul, random
from picograd import codegen
from picograd.codegen.flat import Builder, mem2reg, new_label
from picograd.codegen.optimize import Opt, Stage
from picograd.codegen.overlap import join_copies
from picograd.codegen.place import place
from picograd.codegen.schedule import schedule
from picograd.codegen.target import PYTHON
from picograd.codegen.unroll import block_loop
from picograd.dtype import dtypes
from picograd.ops.ops import Axis, Buf, Ops, Space
from picograd.ops.spec import verify
from picograd.ops.uop import UOp
from picograd.runtime.python import PythonProgram

i32, i64 = dtypes.int32, dtypes.int64

def loops_of(fn): return [loop for head in fn.blocks if (loop := block_loop(fn, head))]

def at(memory, position): return UOp(Ops.ADD, dtypes.ptr, (memory, position))

def counting(b, n, step, body):
  """for k in range(0, n, step): body(k)"""
  k, head, out = b.var(i64), new_label(), new_label()
  b.set(k, UOp.const(i64, 0))
  b.start(head)
  before = b.get(k)
  body(before)
  b.set(k, before + step)
  b.branch(b.get(k) < UOp.const(i64, n), head, out)
  b.start(out)
  return before

def program(copied=8, read=8, step=1, stride=4, ahead=0, between=False, writes=False, uses_counter=False,
            reads_copy=False, wide=False):
  """Numbers of p0 are copied, and numbers of the copy added up: the result, with the counter's last value if wanted."""
  b = Builder("f", [dtypes.ptr, dtypes.ptr], i64)
  panel = UOp(Ops.BUFFER, i32, (), Buf(0, 64, Space.LOCAL))
  total = b.var(i64)
  b.set(total, UOp.const(i64, 0))
  def copy(k):
    value = b.load(at(b.param(0), k * 4), i32)
    b.store(at(panel, k * stride), value + b.load(at(panel, k * stride), i32) if reads_copy else value)
  def read_one(k):
    value = b.load(at(panel, k * stride + ahead), i64 if wide else i32)
    if writes: b.store(b.param(1), value)
    b.set(total, b.get(total) * 3 + (value if wide else value.cast(i64)))
  last = counting(b, copied, step, copy)
  if between: b.store(at(panel, UOp.const(i64, 0)), UOp.const(i32, 77))
  counting(b, read, step, read_one)
  b.ret(b.get(total) + last if uses_counter else b.get(total))
  return mem2reg(b.finish())

def results(fn):
  memory = [np.arange(1, 17, dtype=np.int32), np.zeros(4, np.int32)]
  verify("placed", placed := place(fn))
  return PythonProgram("test", [placed]).run(*[m.view(np.uint8) for m in memory]), memory[1].tolist()

@pytest.mark.parametrize("kind", [{}, {"step": 2}, {"copied": 1, "read": 1}, {"stride": 12}])
def test_the_same_steps_are_one_loop(kind):
  fn = program(**kind)
  once = join_copies(fn)
  assert (len(loops_of(fn)), len(loops_of(once))) == (2, 1)
  assert results(once) == results(fn)

@pytest.mark.parametrize("kind", [
  {"read": 7}, {"copied": 7}, {"ahead": 4}, {"ahead": 8, "stride": 8}, {"stride": 0}, {"stride": 2}, {"between": True},
  {"writes": True}, {"uses_counter": True}, {"reads_copy": True}, {"wide": True, "stride": 8}], ids=str)
def test_other_loops_stay_apart(kind):
  fn = program(**kind)
  once = join_copies(fn)
  assert len(loops_of(once)) == len(loops_of(fn)) == 2
  assert results(once) == results(fn)

@pytest.mark.parametrize("depth", [5, 16, 18])
def test_a_product_with_copied_operands(depth):
  """The tile of the rows that are left over comes first, and reads the operand itself."""
  a, b = random(20, depth), random(depth, 24, seed=1)
  kernel, = schedule([matmul(leaf(a), leaf(b))], "CPU").kernels
  opts = [Opt(Axis.TILE, 1, 8), Opt(Axis.VECTOR, 3, 4), Opt(Axis.UPCAST, 3, 2), Opt(Axis.TILE, 0, 6),
          Opt(Axis.UPCAST, 6, 6), Opt(Axis.UPCAST, 7, 2), Opt(Axis.BLOCK, 1, 1), Stage(2, 4)]
  fn = codegen.compile("product", codegen.prepared(kernel.ast), PYTHON._replace(written_out=4), opts)
  got = np.zeros((20, 24), np.float32)
  PythonProgram("product", [fn])([m.view(np.uint8).ravel() for m in (got, a, b)])
  np.testing.assert_allclose(got, a.astype(np.float64) @ b, rtol=1e-5, atol=1e-5)
  blocks = [{u.op for u in block} for block in fn.blocks.values()]
  assert any({Ops.MULACC, Ops.STORE, Ops.BRANCH} <= ops for ops in blocks)
