# Stores past the caches: only of large outputs, only whole aligned lines, and the values stay. What is fetched early:
# what will be read, and nothing that would displace what is in use.
import itertools, os, subprocess, sys
import numpy as np
import pytest
from graphs import leaf, random, softmax2
import picograd
from picograd import codegen
from picograd.codegen.expand import expand
from picograd.codegen.heuristic import choose_opts
from picograd.codegen.optimize import Opt, Stage, apply_opts, ranges_in
from picograd.codegen.schedule import schedule
from picograd.codegen.stream import advise_caches
from picograd.codegen.target import Caches, llvm_target
from picograd.dtype import dtypes
from picograd.helpers import ceildiv, prod
from picograd.ops.index import simplify_index
from picograd.ops.match import rewrite
from picograd.ops.ops import Axis, Ops, Streaming
from picograd.ops.uop import UOp, toposort
from picograd.runtime.device import device, to_host
from picograd.runtime.realize import realize

LARGE = 1 << 22
MACHINES = (["avx", "avx2"], "x86_64"), (["avx", "avx2", "avx512f"], "x86_64"), ([], "aarch64")
TARGETS = [llvm_target(frozenset(features), machine, threads) for features, machine in MACHINES for threads in (1, 2)]

def streams(u: UOp, target) -> list[bool]:
  """Whether each vector store of u's only kernel goes past the caches."""
  kernel, = schedule([u], "CPU").kernels
  ast = codegen.prepared(kernel.ast)
  fn = codegen.compile("k", ast, target, choose_opts(ast, target))
  stores = [s for block in fn.blocks.values() for s in block if s.op is Ops.STORE]
  return [s.arg is Streaming.STORE for s in stores if s.src[1].dtype.count > 1]

@pytest.mark.parametrize("target", TARGETS, ids=lambda t: f"{t.name}-{t.threads}")
def test_which(target):
  x = UOp.buffer(leaf(random(1)).dtype, LARGE, "CPU")
  assert streams(x * 2, target) == [True]
  assert streams(x.shrink(((0, LARGE // 2),)) * 2, target) == [False]             # a cache may hold it
  assert streams(x.reshape((2048, 2048)).shrink(((0, 2048), (0, 2047))) * 2, target) == [False]  # rows are not aligned
  doubled = x.after(UOp(Ops.STORE, src=(x, x * 2)))
  assert streams(doubled, target) == [False]                                      # its lines are in a cache anyway

@pytest.mark.parametrize("n", [LARGE, LARGE + 1, LARGE + 13])
def test_values(n):
  x = random(n)
  out, = realize([leaf(x) * 2])
  assert np.array_equal(to_host(out), x * 2)

@pytest.mark.parametrize("offset", [0, 4, 16, 36])
def test_memory_of_others_begins_anywhere(offset):
  """NumPy's large arrays begin 16 bytes after a page: a store past the caches would end the process."""
  raw = np.zeros(4 * LARGE + 128, np.uint8)
  start = -raw.ctypes.data % 64 + offset
  a = raw[start:start + 4 * LARGE].view(np.float32)
  t, x = picograd.from_dlpack(a), picograd.tensor(random(LARGE))
  t.copy_(x * 2)
  assert np.array_equal(a, x.numpy() * 2)
  write = picograd.compile(lambda t, x: t.copy_(x * 3))
  for _ in range(3):
    a[:] = 0
    write(t, x)
    assert np.array_equal(a, x.numpy() * 3)
  assert not raw[:start].any() and not raw[start + 4 * LARGE:].any()

def test_code_is_of_the_machine():
  """LLVM has an instruction for such a store, and a fence ends the kernel."""
  kernel, = schedule([UOp.buffer(leaf(random(1)).dtype, LARGE, "CPU") * 2], "CPU").kernels
  where = device("CPU")
  text = where.render(codegen.compile("k", kernel.ast, where.target, choose_opts(kernel.ast, where.target)))
  assert "!nontemporal !0" in text and "fence seq_cst\n  ret void" in text

# ---- what is fetched early -------------------------------------------------------------------------------------------

def fetches(u: UOp, target) -> list[tuple[int, int] | int | None]:
  """How many bytes ahead each vector load of u's only kernel fetches, in the order of the program: also into the
  nearest cache, or only into the second."""
  kernel, = schedule([u], "CPU", target).kernels
  ast = codegen.prepared(kernel.ast)
  fn = codegen.compile("k", ast, target, choose_opts(ast, target))
  loads = [s for block in fn.blocks.values() for s in block if s.op is Ops.LOAD and s.dtype.count > 1]
  return [s.arg and (tuple(s.arg) if s.arg.near else s.arg.ahead) for s in loads]

def matrix(rows: int, columns: int) -> UOp:
  return UOp.buffer(dtypes.float32, rows * columns, "CPU").reshape((rows, columns))

@pytest.mark.parametrize("target", TARGETS, ids=lambda t: f"{t.name}-{t.threads}")
def test_long_streams_are_fetched_ahead(target):
  per_line = 64 // target.vector_bytes
  def each_line_once(found): return found == ([target.fetch_bytes] + [None] * (per_line - 1)) * (len(found) // per_line)
  assert target.fetch_bytes in fetches(matrix(1, 1 << 20) * 2.0, target)
  assert set(fetches(matrix(8, 4096).reduce(Ops.ADD, (1,)), target)) == {None}         # caches hold it
  along, down = [fetches(matrix(4096, 4096).reduce(Ops.ADD, (axis,)), target) for axis in (1, 0)]
  if target.fetches_rows:
    assert set(along + down) == {None}
    row = matrix(1, 4096).expand((4096, 4096))
    assert set(fetches((matrix(4096, 4096) * row).reduce(Ops.ADD, (1,)), target)) == {None, (0, target.fetch_bytes)}
    for columns, groups in (768, (2, 1)), (400, (3, 1)), (256, (0, 2)):        # for the second cache, and the first
      short = set(fetches(matrix(8192, columns).reduce(Ops.ADD, (1,)), target))
      assert short == {tuple(n * target.streams * columns * 4 for n in groups)}
  else:
    assert each_line_once(along)
    assert {ahead for ahead in down if ahead} == {target.fetch_bytes} and len(down) >= 8  # of eight rows each

@pytest.mark.parametrize("target", TARGETS, ids=lambda t: f"{t.name}-{t.threads}")
@pytest.mark.parametrize("dtype", [dtypes.float32, dtypes.float16])
def test_rows_are_read_side_by_side_where_that_is_faster(target, dtype):
  """As many as the target says, and no more accumulators than registers; also of a matrix times a vector."""
  w, x = [UOp.buffer(dtype, n, "CPU").cast(dtypes.float32) for n in (96 * 1024, 1024)]
  w, x = w.reshape((96, 1024)), x.reshape((1, 1024)).expand((96, 1024))
  for u in (w.reduce(Ops.ADD, (1,)), (w * x).reduce(Ops.ADD, (1,))):
    ast = codegen.prepared(schedule([u], "CPU", target).kernels[0].ast)
    opts = choose_opts(ast, target)
    amounts = {axis: prod(o.amount for o in opts if isinstance(o, Opt) and o.axis is axis) for axis in Axis}
    assert amounts[Axis.UPCAST] == target.streams
    registers = ceildiv(amounts[Axis.VECTOR], target.lanes(dtypes.float32))
    assert 4 <= amounts[Axis.UPCAST] * amounts[Axis.UNROLL] * registers <= target.registers - 8

@pytest.mark.parametrize("target", TARGETS, ids=lambda t: f"{t.name}-{t.threads}")
def test_a_row_that_is_used_again_stays_in_the_nearest_cache(target):
  """Several at once would not, where the squares of each are summed and then each is scaled."""
  x = matrix(4096, 4096)
  scale = (x * x).reduce(Ops.ADD, (1,)).alu(Ops.SQRT).reshape((4096, 1)).expand((4096, 4096))
  ast = codegen.prepared(schedule([x / scale], "CPU", target).kernels[0].ast)
  rows = [r.arg[0] for r in ranges_in(ast) if r.axis is Axis.LOOP and r.bound.arg == 4096][:1]
  assert not [o for o in choose_opts(ast, target) if isinstance(o, Opt) and o.axis is Axis.UPCAST and o.number in rows]

def test_the_second_pass_over_a_row_fetches_the_next():
  """Softmax reads its row for the maximum, and again for the exponentials, which take long; those it keeps."""
  found = fetches(softmax2(matrix(4096, 4096)), TARGETS[2])
  assert found == [None] * 4 + [4096 * 4] * 4 + [None] * 4

# ---- what runs again -------------------------------------------------------------------------------------------------

AGAIN = """
import resource
import numpy as np, picograd
x = picograd.tensor(np.random.default_rng(0).standard_normal((2048, 2048), np.float32))
def results():
  y = x.softmax(1)
  return [t.numpy().tobytes() for t in (x.sum(), x.sum(0), x.sum(1), x.reshape(-1).max(), y.sum(), (x * x).mean(1))]
first = results()
assert all(results() == first for _ in range(5)), "a sum depends on which thread is faster"
for _ in range(3): y = (x * 2 + 1).exp().realize()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10): y = (x * 2 + 1).exp().realize()
faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
assert faults < 100, f"{faults} page faults: results lie in fresh memory"
"""

@pytest.mark.parametrize("threads", [1, 2])
def test_results_are_the_same_and_in_the_same_memory(threads):
  """16 MB a result would be 4,096 page faults."""
  pytest.importorskip("resource")
  subprocess.run([sys.executable, "-c", AGAIN], check=True, timeout=100, env={**os.environ, "THREADS": str(threads)})

# ---- the next panel --------------------------------------------------------------------------------------------------

def product(m: int, depth: int, n: int, dtype=dtypes.float32) -> UOp:
  b = UOp.buffer(dtype, depth * n, "CPU").reshape((1, depth, n)).expand((m, depth, n))
  a = UOp.buffer(dtypes.float32, m * depth, "CPU").reshape((m, depth, 1)).expand((m, depth, n))
  return (a * (b if dtype is dtypes.float32 else b.cast(dtypes.float32))).reduce(Ops.ADD, (1,)).reshape((m, n))

XEON = llvm_target(frozenset(["avx", "avx2", "avx512f"]), "x86_64", 1, Caches(48 << 10, 2 << 20))

def panels(u: UOp, target=XEON) -> tuple[UOp, list[UOp]]:
  """A kernel with a Xeon's Opts, when the caches of a target have been told, and what its loops FETCH."""
  kernel, = schedule([u], "CPU").kernels
  ast = codegen.prepared(kernel.ast)
  advised = advise_caches(expand(apply_opts(ast, choose_opts(ast, XEON))), target)
  return advised, [f for f in toposort([advised]) if f.op is Ops.FETCH]

def lines_at(access: UOp, fixed: dict[UOp, int]) -> set[int]:
  """The lines of memory that an access touches, whatever the ranges that are not fixed are."""
  memory, position = access.src[0].src[:2]
  free = [r for r in toposort([position]) if r.op is Ops.RANGE and r not in fixed]
  item, out = memory.dtype.itemsize, set()
  for point in itertools.product(*[range(r.bound.arg) for r in free]):
    table = {r: r.like(v) for r, v in (*zip(free, point), *fixed.items())}
    start = rewrite(position.substitute(table), simplify_index).arg
    count = access.dtype.count if access.op is Ops.LOAD else 1
    out |= {(start + k) * item // 64 for k in range(count)}
  return out

@pytest.mark.parametrize("m, depth, n, dtype", [(72, 512, 1008, dtypes.float32), (77, 513, 1025, dtypes.float32),
                                                (24, 768, 1104, dtypes.float16)], ids=str)
def test_the_next_panel_is_fetched_whole(m, depth, n, dtype):
  kernel, fetches = panels(product(m, depth, n, dtype))
  fetch, = fetches
  block = max([r for r in toposort([fetch]) if r.op is Ops.RANGE and r.axis is Axis.BLOCK], key=lambda r: r.bound.arg)
  copies = [u for u in toposort([kernel]) if u.op is Ops.LOAD and u.src[0].src[0] is fetch.src[0].src[0]
            and block in toposort([u])]
  assert copies
  for step in (0, 3):
    wanted = set().union(*[lines_at(u, {block: step + 1}) for u in copies])
    got = lines_at(fetch, {block: step})
    assert wanted <= got and len(got) <= 1.5 * len(wanted)

@pytest.mark.parametrize("depth, loops", [(512, 1), (1500, 2)])
def test_each_loop_over_tiles_fetches_once_and_stays_one_loop(depth, loops):
  """Of a deep product the last part comes after the others, which fetch, too."""
  kernel, = schedule([product(24, depth, 1008)], "CPU").kernels
  opts = [Opt(Axis.TILE, 1, 48), Opt(Axis.VECTOR, 3, 16), Opt(Axis.UPCAST, 3, 3), Opt(Axis.TILE, 0, 8),
          Opt(Axis.UPCAST, 6, 8), Opt(Axis.BLOCK, 1, 1), Opt(Axis.BLOCK, 2, 512), Stage(2, 16)]
  before = expand(apply_opts(codegen.prepared(kernel.ast), opts))
  ends = [[u for u in toposort([k]) if u.op is Ops.END] for k in (before, advise_caches(before, XEON))]
  assert len(ends[0]) == len(ends[1])
  assert sorted(sum(s.op is Ops.FETCH for s in end.src) for end in ends[1])[-loops - 1:] == [0, *[1] * loops]

@pytest.mark.parametrize("m, depth, n", [(72, 512, 1024), (512, 768, 3072), (256, 256, 256), (8, 512, 1008)], ids=str)
def test_panels_that_would_displace_others_or_do_not_follow_are_not_fetched(m, depth, n):
  """Rows a power of two apart share sets of the cache; a small matrix stays in it; one tile of rows copies nothing."""
  assert panels(product(m, depth, n))[1] == []

def test_a_machine_of_unknown_caches_fetches_no_panels():
  assert panels(product(72, 512, 1008), XEON._replace(l2_bytes=0))[1] == []

def test_such_a_fetch_is_an_instruction_in_the_loop_over_tiles():
  kernel, = schedule([product(72, 512, 1008)], "CPU").kernels
  fn = codegen.compile("k", codegen.prepared(kernel.ast), XEON, choose_opts(codegen.prepared(kernel.ast), XEON))
  fetching = [block for block in fn.blocks.values() if any(u.op is Ops.FETCH for u in block)]
  assert fetching and all(any(u.op is Ops.MULACC for u in block) for block in fetching)
  count = sum(u.op is Ops.FETCH for block in fetching for u in block)
  assert device("CPU").render(fn).count("call void @llvm.prefetch") == count
