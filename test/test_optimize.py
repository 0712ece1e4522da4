# Every Opt keeps the values, whether or not it divides the range.
import re
import numpy as np
import picograd
import pytest
from graphs import close, leaf, matmul, random, softmax2, softmax2_numpy, total, value
from picograd import codegen
from picograd.codegen.heuristic import choose_opts
from picograd.codegen.optimize import Opt, apply_opts, computed_again, ranges_in, stores_of
from picograd.codegen.place import alternating
from picograd.codegen.schedule import schedule
from picograd.codegen.target import Target, llvm_target
from picograd.dtype import dtypes
from picograd.helpers import DEBUG
from picograd.ops.index import stride_of
from picograd.ops.ops import Axis, Ops
from picograd.ops.spec import verify
from picograd.ops.uop import UOp, toposort
from picograd.runtime import realize
from picograd.runtime.plan import binaries, plans

@pytest.fixture
def forced(monkeypatch):
  """Compile every kernel with these Opts."""
  def use(*opts):
    plans.clear()
    binaries.clear()
    monkeypatch.setattr(codegen, "opts_for", lambda kernel, target: [o for o in opts if has_range(kernel, o.number)])
  yield use
  plans.clear()
  binaries.clear()

def has_range(kernel: UOp, number: int) -> bool: return any(r.arg[0] == number for r in ranges_in(kernel))

AVX512 = llvm_target(frozenset({"avx", "avx2", "avx512f"}), "x86_64", 1)
A, B = random(12, 20), random(20, 24, seed=1)

def up(number: int, amount: int) -> Opt: return Opt(Axis.UPCAST, number, amount)
def unroll(number: int, amount: int) -> Opt: return Opt(Axis.UNROLL, number, amount)
def vector(number: int, amount: int) -> Opt: return Opt(Axis.VECTOR, number, amount)
def thread(number: int, amount: int) -> Opt: return Opt(Axis.THREAD, number, amount)
def strip(number: int, amount: int) -> Opt: return Opt(Axis.STRIP, number, amount)
def apart(number: int, amount: int) -> Opt: return Opt(Axis.LOOP, number, amount)

MATMUL_OPTS = [
  [], [up(0, 4)], [up(0, 5)], [up(1, 3), up(0, 2)], [unroll(2, 5)], [unroll(2, 20)], [unroll(2, 7)],
  [vector(1, 8)], [vector(1, 16)], [vector(1, 24)], [vector(2, 4)], [vector(2, 8)], [thread(0, 2)], [thread(0, 5)],
  [vector(1, 8), up(1, 3), up(0, 4), thread(0, 2)], [vector(1, 8), unroll(2, 3), up(0, 7)],
  [apart(1, 16), vector(1, 16)], [apart(0, 8), up(0, 4)], [apart(2, 8), vector(2, 8)], [apart(1, 16), apart(0, 8)],
  [strip(1, 24)], [strip(1, 7)], [strip(1, 8), unroll(2, 4)], [strip(0, 5)],
  [vector(1, 8), strip(1, 3), unroll(2, 5), up(0, 2)],
  [strip(0, 4), strip(1, 6), thread(0, 2)], [apart(1, 16), vector(1, 8), strip(1, 2), unroll(2, 4), thread(0, 2)],
  [apart(0, 8), apart(1, 16), apart(2, 16), vector(1, 8), unroll(2, 4), up(0, 4), thread(0, 2)],
]

@pytest.mark.parametrize("opts", MATMUL_OPTS, ids=str)
def test_matmul(forced, opts):
  forced(*opts)
  close(value(matmul(leaf(A), leaf(B))), A.astype(np.float64) @ B.astype(np.float64))

@pytest.mark.parametrize("opts", [
  [], [vector(1, 8), vector(2, 8), vector(3, 8)], [thread(0, 3)], [up(0, 2)], [unroll(2, 4)],
  [apart(1, 16), vector(1, 8)], [apart(1, 8), apart(2, 8), apart(3, 16), vector(2, 8), vector(1, 8), thread(0, 2)],
  [apart(0, 8), apart(2, 16), up(0, 2), vector(2, 4)]], ids=str)
def test_softmax(forced, opts):
  forced(*opts)
  close(value(softmax2(leaf(A))), softmax2_numpy(A))

@pytest.mark.parametrize("amount", [2, 3, 4, 7, 16, 20])
def test_split_sums(forced, amount):
  forced(Opt(Axis.VECTOR, 0, amount))
  close(value(total(leaf(A), 0)), A.astype(np.float64).sum(0, keepdims=True))
  forced(Opt(Axis.UNROLL, 1, amount))
  close(value(total(leaf(A), 1)), A.astype(np.float64).sum(1, keepdims=True))

def test_short_rows_are_added_in_one_pass():
  """All columns have registers: memory is read once."""
  kernel, = schedule([total(leaf(random(4096, 64)), 0)], "CPU").kernels
  ast = codegen.prepared(kernel.ast)
  for lanes, target in ((16, AVX512), (8, AVX512._replace(vector_bytes=32))):
    assert Opt(Axis.UPCAST, 0, 64 // lanes) in choose_opts(ast, target)
  x = random(3001, 64)
  close(value(total(leaf(x), 0)), x.astype(np.float64).sum(0, keepdims=True), 1e-4)

def test_the_rest_is_one_threads_work(forced):
  """An assignment that ran twice would add twice."""
  for n in (19, 31, 16384 * 8 + 5):
    for opts in ([apart(0, 8), vector(0, 8), thread(0, 2)], [thread(0, 2)], [thread(0, 5)], [up(0, 4), thread(0, 3)],
                 [apart(0, 16), vector(0, 8), up(1, 16), thread(0, 2)]):
      forced(*opts)
      x = picograd.tensor(np.arange(n, dtype=np.float32))
      x += 1
      assert np.array_equal(x.numpy(), np.arange(1, n + 1, dtype=np.float32))

def test_maximum_of_padded_lanes_ignores_the_padding(forced):
  forced(Opt(Axis.VECTOR, 1, 16))
  negative = -np.abs(A) - 1
  close(value(leaf(negative).reduce(Ops.MAX, (1,))), negative.max(1, keepdims=True))

def test_padding_of_a_sum_gates_nothing_outside_the_sum():
  """out[i] = data[number of elements below data[i]]: the position is a sum over j, and j ends with the sum."""
  five = UOp.const(dtypes.index, 5)
  i, j = [UOp(Ops.RANGE, dtypes.index, (five,), arg) for arg in ((0, Axis.LOOP), (1, Axis.REDUCE))]
  out, data = [UOp(Ops.PARAM, dtypes.int32, (), slot) for slot in range(2)]
  below = (data.index(j).load() < data.index(i).load()).where(UOp.const(dtypes.int32, 1), 0)
  position = UOp(Ops.REDUCE, dtypes.int32, (below, j), (Ops.ADD, ())).cast(dtypes.index)
  kernel = UOp.sink(out.index(i).store(data.index(position).load()).end(i))
  verify("kernel", apply_opts(kernel, [Opt(Axis.VECTOR, 1, 4)]))

def loops(u: UOp) -> list[int]:
  """The sizes of the loops of u's only kernel, as Opts see them."""
  kernel, = schedule([u], "CPU").kernels
  return [r.bound.arg for r in ranges_in(codegen.prepared(kernel.ast))]

def test_loops_over_one_stretch_are_one():
  x, y = leaf(random(6, 5, 3)), leaf(random(6, 5, 3, seed=1))
  assert loops(x * y) == [90] and loops(total(x, 0, 1, 2)) == [90]
  assert loops(x.permute((1, 0, 2)) * 2) == [5, 6, 3]                    # rows of three lie apart
  assert loops(total(x, 1, 2)) == [6, 15] and loops(total(x, 0)) == [15, 6]
  assert loops(x - x.reduce(Ops.MAX, (2,)).expand((6, 5, 3))) == [30, 3, 3]
  assert loops(x.pad(((0, 0), (0, 0), (0, 1))) * 2) == [30, 4]           # the padding looks at the last loop
  close(value(total(x, 0, 1, 2)), value(x).astype(np.float64).sum().reshape(1, 1, 1))
  close(value(x.permute((1, 0, 2)) * y.permute((1, 0, 2))), (value(x) * value(y)).transpose(1, 0, 2))

def test_unknown_range_is_named():
  kernel = schedule([leaf(A) * 2], "CPU").kernels[0].ast
  with pytest.raises(ValueError, match="no range r9"): apply_opts(kernel, [Opt(Axis.UPCAST, 9, 2)])

def test_stride():
  i, j = UOp.range(8, Axis.LOOP), UOp.range(8, Axis.LOOP)
  assert stride_of(i * 24 + j + 3, i) == 24 and stride_of(i * 24 + j + 3, j) == 1
  assert stride_of(i * 24, j) == 0 and stride_of((i * 3) // 2, i) is None
  assert stride_of(UOp.const(dtypes.index, 4), i) == 0

def test_default_opts_fill_registers():
  """A 256^3 matmul gets lanes and a register tile on any target with vectors."""
  device = realize.device("CPU")
  kernel = schedule([matmul(leaf(random(256, 256)), leaf(random(256, 256)))], "CPU").kernels[0].ast
  axes = {opt.axis for opt in codegen.choose_opts(kernel, device.target) if isinstance(opt, Opt)}
  assert {Axis.VECTOR, Axis.UPCAST} <= axes

def test_threads_and_tiles_of_an_update_in_place():
  """m = 0.9 m + x.T y; w -= m: rows and columns that no tile fills are one thread's work, done once."""
  rng = np.random.default_rng(0)
  x, y, w, m = [rng.standard_normal(s).astype(np.float32) for s in ((16, 128), (16, 300), (128, 300), (128, 300))]
  a, b, c, d = map(picograd.tensor, (x, y, w, m))
  update = d * 0.9 + a.T @ b
  change = c - update
  d.copy_(update)
  c.copy_(change)
  want = m * 0.9 + x.T @ y
  np.testing.assert_allclose(d.numpy(), want, atol=1e-4)
  np.testing.assert_allclose(c.numpy(), w - want, atol=1e-4)

@pytest.mark.parametrize("op", ["sum", "amax"])
def test_lanes_are_combined_once(op, capsys):
  """However many accumulators a row has."""
  with DEBUG.set(4): getattr(picograd.tensor(random(1, 1024)), op)(1).realize()
  text = capsys.readouterr().out
  assert re.search(r"VECTOR\(r0, \d+\), UNROLL\(r0, 8\)", text)
  assert text.count("extractelement <2 x float>") == 2

def test_windows_are_reduced_without_a_loop(capsys):
  """Lanes along two elements would be combined one by one for every result."""
  x = random(5, 12, 10)
  with DEBUG.set(3): found = picograd.nn.functional.max_pool2d(picograd.tensor(x), 2).numpy()
  text = capsys.readouterr().out
  assert text.count("UNROLL") == 2 and "VECTOR" not in text
  np.testing.assert_array_equal(found, x.reshape(5, 6, 2, 5, 2).max((2, 4)))

# ---- what is computed before the loops that read it ------------------------------------------------------------------

def normed_product(rows: int, columns: int) -> UOp:
  """(x / sqrt(mean(x*x)) * w) @ m.T, x one row: (rows,)"""
  x, w, m = leaf(random(columns)), leaf(random(columns, seed=1)), leaf(random(rows, columns, seed=2))
  scale = (total(x * x, 0) * (1 / columns)).alu(Ops.SQRT)
  normed = x.alu(Ops.FDIV, scale.expand((columns,))) * w
  return (normed.reshape((1, columns)).expand((rows, columns)) * m).reduce(Ops.ADD, (1,))

@pytest.mark.parametrize("threads", [1, 2])
def test_operands_are_computed_once_for_all_rows(threads):
  """Where the matrix is read nothing is divided, and each of its elements is multiplied once."""
  target = AVX512._replace(threads=threads)
  kernel, = schedule([normed_product(4000, 288)], "CPU", target).kernels
  ast = codegen.prepared(kernel.ast)
  fn = codegen.compile("k", ast, target, choose_opts(ast, target))
  matrix = next(k for k, u in enumerate(kernel.buffers) if u.arg.size == 4000 * 288)
  def reads(u: UOp) -> bool:
    return u.op is Ops.LOAD and any(v.op is Ops.PARAM and v.arg == matrix for v in u.src[0].toposort())
  inner = [block for block in fn.blocks.values() if any(map(reads, block))]
  assert len(inner) == 1
  operations = [u.op for u in inner[0] if u.op in (Ops.MUL, Ops.FDIV, Ops.MULACC) and u.dtype.kind == "f"]
  assert operations.count(Ops.FDIV) == 0 and len(operations) == sum(map(reads, inner[0]))

@pytest.mark.parametrize("rows, columns", [(4000, 288), (300, 50), (5, 17), (1, 64)])
def test_precomputed_operands_have_the_same_values(rows, columns):
  x, w, m = random(columns).astype(np.float64), random(columns, seed=1), random(rows, columns, seed=2)
  want = m.astype(np.float64) @ (x / np.sqrt((x * x).mean()) * w)
  close(value(normed_product(rows, columns)), want.reshape(rows, 1), 1e-4)

def test_deep_sharing_is_searched_once():
  """A value of 2^60 paths: each node of it is looked at once."""
  rows, reduce_range = UOp.range(8, Axis.LOOP), UOp.range(64, Axis.REDUCE)
  x = (rows * 64 + reduce_range).cast(dtypes.int32)
  for _ in range(60): x = x * 3 + x
  total = UOp(Ops.REDUCE, dtypes.int32, (x, reduce_range), (Ops.ADD, ()))
  store = UOp(Ops.PARAM, dtypes.int32, (), 0).index(rows).store(total)
  assert computed_again(UOp.sink(UOp(Ops.END, dtypes.void, (store, rows))), 1 << 14) == []

# ---- long chains of operations ---------------------------------------------------------------------------------------

AVX2 = llvm_target(frozenset({"avx", "avx2"}), "x86_64", 1)

def inner_block(u: UOp, target: Target) -> list[UOp]:
  """The block of u's only kernel that has most in it."""
  kernel, = schedule([u], "CPU", target).kernels
  ast = codegen.prepared(kernel.ast)
  fn = codegen.compile("k", ast, target, choose_opts(ast, target))
  return max(fn.blocks.values(), key=len)

def test_long_chains_are_computed_in_alternation():
  """Four neighbours in the code never wait for each other. A processor that looks ahead far is given one vector."""
  x = leaf(random(4096)).alu(Ops.EXP2)
  steps = [u for u in inner_block(x, AVX2) if u.op is Ops.MULACC]
  groups = [steps[i:i + 4] for i in range(0, len(steps), 4)]
  assert len(groups) == 7 and all(a is b or a not in b.toposort() for group in groups for a in group for b in group)
  assert sum(u.op is Ops.STORE for u in inner_block(x, AVX512)) == 1

@pytest.mark.parametrize("n", [8, 24, 40, 250, 4096, 5003])
def test_values_of_long_chains(n):
  x = random(n)
  close(value(leaf(x).alu(Ops.EXP2) + leaf(x)), np.exp2(x.astype(np.float64)) + x)

def test_stores_that_need_each_other_stay_in_order():
  """What a later store needs late in an earlier one's operations keeps the order as it was."""
  x = [UOp(Ops.PARAM, dtypes.float32, (), k) for k in range(2)]
  chain = [x[0]]
  for k in range(12): chain.append(chain[-1] * x[1])
  other = [chain[8]]
  for k in range(12): other.append(other[-1] * x[0])
  stores = [UOp(Ops.STORE, dtypes.void, (x[k], last)) for k, last in enumerate((chain[-1], other[-1]))]
  block = [*chain[1:], stores[0], *other[1:], stores[1]]
  assert alternating(block, 4) == block

# ---- several nests in one kernel -------------------------------------------------------------------------------------

def chosen_kernel(function, *inputs) -> UOp:
  """The only kernel of some nests that a function of tensors becomes."""
  roots = [function(*[picograd.tensor(a) for a in inputs]).uop]
  kernels = schedule(roots, "CPU", AVX512).kernels
  return codegen.prepared(next(k.ast for k in kernels if len(stores_of(k.ast)) > 1))

def refuses(kernel: UOp, *opts: Opt) -> str:
  with pytest.raises(ValueError) as error: codegen.structured("k", kernel, AVX512, list(opts))
  return str(error.value)

def test_nests_that_share_loops_are_divided_among_threads_only():
  """In each step they use one row of scratch memory; a nest's own loops cannot be divided among threads."""
  kernel = chosen_kernel(lambda x: x.log_softmax(1) @ x.transpose(-1, -2), random(64, 7, 17))
  shared, own = 0, next(r.arg[0] for r in ranges_in(kernel) if r.axis is Axis.LOOP and r.arg[0] != 0)
  for opt in (up(shared, 2), vector(shared, 8), Opt(Axis.STRIP, shared, 16), Opt(Axis.BLOCK, shared, 32)):
    assert "only ranges that they share (r0)" in refuses(kernel, opt)
  assert "only ranges that they share (r0)" in refuses(kernel, Opt(Axis.THREAD, own, 2))
  assert codegen.structured("k", kernel, AVX512, [Opt(Axis.THREAD, shared, 2), vector(own, 8)])

def test_a_scatter_runs_in_order():
  """Two of its steps may add to one place."""
  kernel = chosen_kernel(scattered, random(4, 64), random(4, 5, seed=1))
  steps = next(r.arg[0] for _, loops in stores_of(kernel) for r in loops if r.axis is Axis.REDUCE)
  assert "may change what the next one reads" in refuses(kernel, unroll(steps, 2))

def scattered(x, y): return x.clone().index_add_(1, picograd.tensor([25, 28, 25, 54, 6]), y)

@pytest.mark.parametrize("opts", [(up(1, 3), up(2, 4), up(5, 4), up(6, 4)), (up(1, 3), up(2, 4)),
                                  (vector(1, 2), up(2, 4), up(6, 4))])
def test_nests_written_out_stay_in_order(forced, opts):
  """What one nest stores as a result the other reads, and no loop is left of either."""
  x = random(64, 4, 3)
  forced(*opts)
  def both(x):
    y = x.log_softmax(1)
    return y, y @ x.transpose(-1, -2)
  y, z = picograd.jit(both)(picograd.tensor(x))
  want = x.astype(np.float64) - np.log(np.exp(x.astype(np.float64)).sum(1, keepdims=True))
  close(y.numpy(), want)
  close(z.numpy(), want @ x.swapaxes(1, 2))

def test_a_place_that_is_not_of_the_range_is_not_written_beyond_its_end():
  """x[e] += v[b] for three b, in pairs: the second pair has one."""
  types = dtypes.float32, dtypes.index, dtypes.float32
  x, e, v = [UOp(Ops.PARAM, dtype, (), slot) for slot, dtype in enumerate(types)]
  b = UOp.range(3, Axis.LOOP).replace(arg=(0, Axis.LOOP))
  address = x.index(e.index(UOp.const(dtypes.index, 0)).load())
  kernel = UOp.sink(address.store(address.load() + v.index(b).load()).end(b))
  (store, loops), = stores_of(apply_opts(kernel, [up(0, 2)]))
  gates = store.src[0].src[2:]
  assert len(gates) == 1 and set(loops) <= set(toposort(gates))
