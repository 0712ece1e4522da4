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

def tiles(count=3, uses=False, known=True, starts=0):
  """Numbers of p0 are copied; for each of several tiles numbers of the copy are added up and stored in p1."""
  b = Builder("f", [dtypes.ptr, dtypes.ptr], i64)
  panel = UOp(Ops.BUFFER, i32, (), Buf(0, 8, Space.LOCAL))
  limit = UOp.const(i64, count) if known else b.load(b.param(1), i32).cast(i64) + count
  counting(b, 8, 1, lambda k: b.store(at(panel, k * 4), b.load(at(b.param(0), k * 4), i32)))
  tile, head, out = b.var(i64), new_label(), new_label()
  b.set(tile, UOp.const(i64, starts))
  b.start(head)
  t, total = b.get(tile), b.var(i32)
  b.set(total, t.cast(i32))
  counting(b, 8, 1, lambda k: b.set(total, b.get(total) * 3 + b.load(at(panel, k * 4), i32)))
  b.store(at(b.param(1), t * 4), b.get(total))
  b.set(tile, t + 1)
  b.branch(b.get(tile) < limit, head, out)
  b.start(out)
  b.ret(b.get(tile) if uses else UOp.const(i64, 5))
  return mem2reg(b.finish())

@pytest.mark.parametrize("kind", [{}, {"count": 2}, {"count": 4}, {"starts": 1}], ids=str)
def test_the_first_of_few_tiles_copies(kind):
  fn = tiles(**kind)
  once = join_copies(fn)
  assert (len(loops_of(fn)), len(loops_of(once))) == (2, 2)            # one copies and adds, one adds
  assert [len([u for u in once.blocks[loop.head] if u.op is Ops.STORE]) for loop in loops_of(once)] == [1, 0]
  assert results(once) == results(fn)

@pytest.mark.parametrize("kind", [{"uses": True}, {"known": False}, {"count": 1}, {"count": 17}], ids=str)
def test_other_tiles_stay_in_their_loop(kind):
  fn = tiles(**kind)
  assert join_copies(fn).blocks == fn.blocks

@pytest.mark.parametrize("rows", [12, 18, 96, 102])
def test_a_product_of_several_tiles(rows):
  a, b = random(rows, 16), random(16, 24, seed=1)
  kernel, = schedule([matmul(leaf(a), leaf(b))], "CPU").kernels
  opts = [Opt(Axis.TILE, 1, 8), Opt(Axis.VECTOR, 3, 4), Opt(Axis.UPCAST, 3, 2), Opt(Axis.TILE, 0, 6),
          Opt(Axis.UPCAST, 6, 6), Opt(Axis.BLOCK, 1, 1), Stage(2, 4)]
  fn = codegen.compile("product", codegen.prepared(kernel.ast), PYTHON._replace(written_out=4), opts)
  got = np.zeros((rows, 24), np.float32)
  PythonProgram("product", [fn])([m.view(np.uint8).ravel() for m in (got, a, b)])
  np.testing.assert_allclose(got, a.astype(np.float64) @ b, rtol=1e-5, atol=1e-5)
  blocks = [{u.op for u in block} for block in fn.blocks.values()]
  assert sum({Ops.MULACC, Ops.BRANCH} <= ops for ops in blocks) == (2 if rows <= 96 else 1)
  assert any({Ops.MULACC, Ops.STORE, Ops.BRANCH} <= ops for ops in blocks) == (rows <= 96)

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
