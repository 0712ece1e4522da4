# Contractions in tiles and blocks give NumPy's float64 values: any shape, layout, dtype and epilogue, with caches so
# small that every loop is blocked.
import re
from typing import NamedTuple
import numpy as np
import pytest
pytest.importorskip("llvmlite")
import picograd.nn.functional as F
from graphs import leaf, matmul, random, value
from picograd import Tensor, codegen, tensor, where
from picograd.codegen import llvmir
from picograd.codegen.optimize import Opt, Stage, apply_opts, stores_of
from picograd.codegen.schedule import schedule
from picograd.codegen.target import Caches, llvm_target
from picograd.codegen.tiling import contraction_opts
from picograd.dtype import dtypes
from picograd.helpers import prod
from picograd.ops.ops import Axis, Ops
from picograd.ops.uop import UOp, ranges_inside, toposort
from picograd.runtime.device import device
from picograd.runtime.plan import binaries, plans

AVX2, AVX512 = frozenset({"avx", "avx2"}), frozenset({"avx", "avx2", "avx512f"})
CACHES = [Caches(256, 1024), Caches(1024, 4096), Caches(1024, 1 << 14), Caches(4096, 1024)]

@pytest.fixture
def small(monkeypatch):
  """Compile every kernel for caches of these sizes."""
  def use(caches: Caches, threads: int = 1) -> None:
    forget()
    target = device("CPU").target._replace(l1_bytes=caches.l1, l2_bytes=caches.l2, threads=threads)
    monkeypatch.setattr(codegen, "opts_for", lambda kernel, _: codegen.choose_opts(kernel, target))
  yield use
  forget()

def forget() -> None:
  plans.clear()
  binaries.clear()

def near(got: Tensor, want: np.ndarray, tolerance: float = 1e-5) -> None:
  np.testing.assert_allclose(got.detach().numpy(), want, rtol=tolerance, atol=tolerance * max(1.0, np.abs(want).max()))

def exact(*arrays: np.ndarray) -> list[np.ndarray]: return [a.astype(np.float64) for a in arrays]

@pytest.mark.parametrize("caches", CACHES, ids=str)
@pytest.mark.parametrize("seed", range(3))
def test_matmul_in_any_layout(small, caches, seed):
  small(caches)
  draw = np.random.default_rng(seed)
  for left, right in ((0, 0), (0, 1), (1, 0), (1, 1)):
    m, k, n = draw.integers(1, 90, 3)
    a, b = random(*((k, m) if left else (m, k)), seed=seed), random(*((n, k) if right else (k, n)), seed=seed + 9)
    x, y = [leaf(z).permute((1, 0)) if turned else leaf(z) for z, turned in ((a, left), (b, right))]
    p, q = exact(a.T if left else a, b.T if right else b)
    np.testing.assert_allclose(value(matmul(x, y)), p @ q, rtol=1e-5, atol=1e-4)

@pytest.mark.parametrize("m, k, n", [(12, 40, 256), (77, 51, 129), (130, 33, 8), (6, 90, 700), (64, 64, 64)])
def test_two_threads(small, m, k, n):
  for caches in CACHES[:2]:
    small(caches, threads=2)
    a, b = random(m, k), random(k, n, seed=1)
    near(tensor(a) @ tensor(b), np.matmul(*exact(a, b)))

def test_each_tile_of_a_matrix_read_once_serves_all_rows():
  """Eight rows fit no register tile of AVX2, and no copy pays for them: columns are outside of rows."""
  target = llvm_target(AVX2, "x86_64", 1)
  a, b = [UOp.buffer(dtypes.float32, prod(s), "CPU").reshape(s) for s in ((8, 4096), (4096, 4096))]
  ast = codegen.prepared(schedule([matmul(a, b)], "CPU", target).kernels[0].ast)
  *_, last = contraction_opts(ast, target) or ()
  assert last == Opt(Axis.BLOCK, 1, 1)

@pytest.mark.parametrize("dtype", [dtypes.float16, dtypes.bfloat16])
@pytest.mark.parametrize("features", [AVX2, AVX512], ids=["AVX2", "AVX512"])
def test_what_is_copied_is_widened_once(dtype, features):
  """No step of the product widens a number: both operands are copied as float32."""
  target = llvm_target(features, "x86_64", 1)
  a, b = [UOp.buffer(dtype, prod(s), "CPU").reshape(s).cast(dtypes.float32) for s in ((256, 768), (768, 768))]
  ast = codegen.prepared(schedule([matmul(a, b)], "CPU", target).kernels[0].ast)
  inside = ranges_inside(apply_opts(ast, contraction_opts(ast, target) or []))
  assert [u for u, loops in inside.items() if u.op is Ops.BUFFER and u.dtype.scalar is dtypes.float32]
  for u, loops in inside.items():
    if u.op is Ops.CAST and u.dtype.scalar is dtypes.float32: assert all(r.axis is not Axis.REDUCE for r in loops)

def test_epilogues_see_the_whole_sum(small):
  """A bias, a residual and relu, over a reduction in several blocks."""
  for caches in CACHES:
    small(caches)
    a, b, bias, rest = random(35, 61), random(61, 45, seed=1), random(45, seed=2), random(35, 45, seed=3)
    p, q, r, s = exact(a, b, bias, rest)
    near((tensor(a) @ tensor(b) + tensor(bias)).relu() + tensor(rest), np.maximum(p @ q + r, 0) + s)
    near((tensor(a) @ tensor(b)).exp(), np.exp(p @ q), 1e-3)

def test_a_sum_is_not_kept_where_it_is_read(small):
  """x += a @ b reads what it overwrites: partial sums must not lie there."""
  small(CACHES[0])
  a, b, c = random(30, 50), random(50, 40, seed=1), random(30, 40, seed=2)
  x = tensor(c)
  x += tensor(a) @ tensor(b)
  near(x, np.add(exact(c)[0], np.matmul(*exact(a, b))))

def test_batches(small):
  for caches in CACHES[:3]:
    small(caches, threads=2)
    a, b, shared = random(3, 21, 34), random(3, 34, 50, seed=1), random(34, 50, seed=2)
    near(tensor(a) @ tensor(b), np.matmul(*exact(a, b)))
    near(tensor(a) @ tensor(shared), np.matmul(*exact(a, shared)))
    near(tensor(a).permute(0, 2, 1) @ tensor(a), np.matmul(*exact(a.transpose(0, 2, 1), a)))

@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.int32])
def test_dtypes(small, dtype):
  small(CACHES[1])
  a, b = [(random(*shape, seed=k) * 4).astype(dtype) for k, shape in enumerate([(29, 40), (40, 37)])]
  near(tensor(a) @ tensor(b), np.matmul(*exact(a, b)), 1e-2 if dtype is np.float16 else 1e-6)
  if dtype is np.float16: near(tensor(random(29, 40)) @ tensor(b).float(), np.matmul(*exact(random(29, 40), b)))

def windows(x: np.ndarray) -> np.ndarray:
  """(N, C, H, W) -> (N, C, H, W, 3, 3), with a border of zeros."""
  padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
  return np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))

@pytest.mark.parametrize("shape, channels", [((2, 5, 13, 21), 9), ((1, 3, 8, 8), 16), ((2, 8, 6, 35), 7)])
def test_convolution_and_its_gradients(small, shape, channels):
  for caches in CACHES[:3]:
    small(caches, threads=2)
    a, b = random(*shape), random(channels, shape[1], 3, 3, seed=1)
    x, w = tensor(a, requires_grad=True), tensor(b, requires_grad=True)
    y = F.conv2d(x, w, padding=1)
    want = np.tensordot(windows(exact(a)[0]), exact(b)[0], ((1, 4, 5), (1, 2, 3))).transpose(0, 3, 1, 2)
    near(y, want)
    y.sum().backward()
    near(w.grad, np.broadcast_to(windows(exact(a)[0]).sum((0, 2, 3)), b.shape))

@pytest.mark.parametrize("shape, channels", [((2, 5, 13, 21), 9), ((1, 3, 8, 8), 16), ((2, 8, 6, 35), 7)])
def test_no_two_nests_close_one_loop(shape, channels):
  """Where threads, edges and blocks meet, each version of a nest has loops of its own."""
  x, w = tensor(random(*shape), requires_grad=True), tensor(random(channels, shape[1], 3, 3), requires_grad=True)
  F.conv2d(x, w, padding=1).sum().backward()
  blocked = 0
  for caches in CACHES:
    for threads in (2, 3):
      target = llvm_target(AVX512, "x86_64", threads, caches)
      for kernel in schedule([x.grad.uop, w.grad.uop, F.conv2d(x, w).uop], "CPU", target).kernels:
        ast = codegen.prepared(kernel.ast)
        opts = contraction_opts(ast, target) or []
        blocked += any(isinstance(o, Opt) and o.axis is Axis.BLOCK for o in opts)
        ends = [u for u in toposort([apply_opts(ast, opts)]) if u.op is Ops.END]
        closed = [r for u in ends for r in u.src if r.op is Ops.RANGE and r.axis is not Axis.THREAD]
        assert len(closed) == len(set(closed))
  assert blocked > 0

def test_what_no_thread_divides_is_one_threads_work():
  """Two threads share 1000 columns in tiles; the columns at the edge are computed by one of them."""
  target = llvm_target(AVX512, "x86_64", 2, Caches(1 << 15, 1 << 20))
  kernel, = schedule([matmul(leaf(random(120, 50)), leaf(random(50, 1000)))], "CPU", target).kernels
  ast = codegen.prepared(kernel.ast)
  opts = contraction_opts(ast, target)
  columns = max((u for u in toposort([ast]) if u.op is Ops.RANGE), key=lambda r: r.bound.arg).arg[0]
  assert Opt(Axis.THREAD, columns, 2) in opts
  nests = stores_of(apply_opts(ast, opts))
  assert len(nests) > 1
  for store, loops in nests:
    decides = toposort([store.src[0], *(r.bound for r in loops)])
    assert any(r.op is Ops.RANGE and r.axis is Axis.THREAD for r in decides)

def test_gradients_of_a_product(small):
  """Those of weights are products of transposed operands over a long batch."""
  small(CACHES[1])
  a, b, g = random(70, 33), random(33, 41, seed=1), random(70, 41, seed=2)
  x, w = tensor(a, requires_grad=True), tensor(b, requires_grad=True)
  ((x @ w) * tensor(g)).sum().backward()
  p, q, r = exact(a, b, g)
  near(w.grad, p.T @ r)
  near(x.grad, r @ q.T)

def test_nothing_outside_of_an_operand_matters(small):
  """Operands in the middle of NaNs and infinities, sizes that no tile divides."""
  for caches in CACHES[:2]:
    small(caches)
    a, b = np.full((40, 60), np.nan, np.float32), np.full((60, 50), np.inf, np.float32)
    a[3:34, 5:48], b[7:50, 2:39] = random(31, 43), random(43, 37, seed=1)
    near(tensor(a)[3:34, 5:48] @ tensor(b)[7:50, 2:39], np.matmul(*exact(random(31, 43), random(43, 37, seed=1))))

def test_one_bad_row_spoils_one_row(small):
  small(CACHES[0])
  a, b = random(20, 30), random(30, 25, seed=1)
  a[7, 3] = np.nan
  got = (tensor(a) @ tensor(b)).numpy()
  assert np.isnan(got[7]).all() and np.isfinite(np.delete(got, 7, 0)).all()

# ---- what LLVM makes of it -------------------------------------------------------------------------------------------

class Machine(NamedTuple):
  triple: str
  cpu: str
  features: frozenset[str]
  register: str            # as operands of multiply-adds are printed

MACHINES = [Machine("x86_64-unknown-linux-gnu", "x86-64-v4", AVX512, r"%zmm\d+"),
            Machine("x86_64-unknown-linux-gnu", "x86-64-v3", AVX2, r"%ymm\d+"),
            Machine("aarch64-unknown-linux-gnu", "neoverse-n1", frozenset(), r"v\d+\.4s")]

def innermost_loops(u: UOp, machine: Machine) -> list[list[str]]:
  """The instructions of the loops with multiply-adds in a kernel's assembly for a machine."""
  llvm = pytest.importorskip("llvmlite.binding")
  llvm.initialize_all_targets()
  llvm.initialize_all_asmprinters()
  kernel, = schedule([u], "CPU").kernels
  ast = codegen.prepared(kernel.ast)
  target = llvm_target(machine.features, machine.triple.split("-")[0], 1, Caches(1 << 15, 1 << 20))
  source = llvmir.render(codegen.compile("product", ast, target, codegen.choose_opts(ast, target)))
  backend = llvm.Target.from_triple(machine.triple).create_target_machine(cpu=machine.cpu, opt=2, reloc="pic")
  module = llvm.parse_assembly(source)
  module.triple, module.data_layout = machine.triple, str(backend.target_data)
  passes = llvm.create_new_module_pass_manager()
  passes.add_instruction_combine_pass()
  passes.run(module, llvm.create_pass_builder(backend, llvm.create_pipeline_tuning_options()))
  loops = []
  for block in re.split(r"\n(?=\.L\w+:)", backend.emit_assembly(module)):
    label, *lines = block.splitlines()
    back = [k for k, line in enumerate(lines) if re.search(rf"\s(j|b)\S*\s.*{label.partition(':')[0]}$", line)]
    if back and re.search("vfm|fmla", block): loops.append(lines[:back[0]])
  return loops

@pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine.cpu)
@pytest.mark.parametrize("m, k, n", [(256, 256, 256), (131, 77, 133), (8, 64, 512)])
def test_the_tile_stays_in_registers(machine, m, k, n):
  loops = innermost_loops(matmul(leaf(random(m, k)), leaf(random(k, n))), machine)
  sums = [[line for line in loop if re.search("vfm|fmla", line)] for loop in loops]
  assert max(map(len, sums)) >= 8
  assert all(re.search(machine.register, line) for lines in sums for line in lines)
  assert not [line for loop in loops for line in loop if re.search(r"%rsp|\[sp", line)]

@pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine.cpu)
@pytest.mark.parametrize("m, k, n", [(32, 768, 3072), (64, 768, 768), (16, 100, 96)])
def test_a_tile_that_is_stored_as_rows_stays_in_registers(machine, m, k, n):
  """In whatever order it is stored: the operands of which it has fewer are those that stay."""
  loops = innermost_loops(matmul(leaf(random(m, k)), leaf(random(n, k)).permute((1, 0))), machine)
  assert max(sum(bool(re.search("vfm|fmla", line)) for line in loop) for loop in loops) >= 8
  assert not [line for loop in loops for line in loop if re.search(r"%rsp|\[sp", line)]

@pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine.cpu)
def test_a_convolution_with_an_epilogue_stays_in_registers(machine):
  """Many rows by few vectors; and what the sums are multiplied with is loaded after the loop."""
  x, w, mask = tensor(random(2, 32, 28, 28)), tensor(random(32, 32, 5, 5)), tensor(random(2, 32, 24, 24))
  loops = innermost_loops((F.conv2d(x, w) * (mask > 0)).uop, machine)
  assert max(sum(bool(re.search("vfm|fmla", line)) for line in loop) for loop in loops) >= 8
  assert not [line for loop in loops for line in loop if re.search(r"%rsp|\[sp", line)]

def test_what_no_loop_needs_is_loaded_after_the_loop():
  x, w, mask = tensor(random(2, 32, 28, 28)), tensor(random(32, 32, 5, 5)), tensor(random(2, 32, 24, 24))
  kernel, = schedule([where(mask > 0, F.conv2d(x, w), 0.0).uop], "CPU").kernels
  ast, target = codegen.prepared(kernel.ast), llvm_target(AVX512, "x86_64", 1, Caches(1 << 15, 1 << 20))
  code = codegen.structured("product", ast, target, codegen.choose_opts(ast, target))
  last_sum = max(k for k, u in enumerate(code) if u.op is Ops.MULACC)
  loads = [(k, u.src[0].src[0]) for k, u in enumerate(code) if u.op is Ops.LOAD and u.src[0].src[0].op is Ops.PARAM]
  late = {memory for k, memory in loads if k > last_sum}
  assert late and late.isdisjoint(memory for k, memory in loads if k < last_sum)

@pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine.cpu)
def test_a_dot_product_stays_in_registers(machine):
  loop, *_ = innermost_loops(matmul(leaf(random(1, 512)), leaf(random(512, 512)).permute((1, 0))), machine)
  assert sum(bool(re.search(rf"(vfm|fmla).*{machine.register}", line)) for line in loop) == 8
  assert not [line for line in loop if re.search(r"%rsp|\[sp", line)]

def test_sums_are_added_to_one_after_the_other():
  """A tile of several blocks of the reduction: each sum is read, added to and stored before the next is read."""
  kernel, = schedule([matmul(leaf(random(96, 2048)), leaf(random(2048, 128)))], "CPU").kernels
  ast, target = codegen.prepared(kernel.ast), llvm_target(AVX512, "x86_64", 1, Caches(1 << 15, 1 << 20))
  code = codegen.structured("product", ast, target, codegen.choose_opts(ast, target))
  to_output = [u.op for u in code if u.op in (Ops.LOAD, Ops.STORE) and u.src[0].src[0].op is Ops.PARAM
               and u.src[0].src[0].arg == 0]
  assert len(to_output) >= 48 and to_output == [Ops.LOAD, Ops.STORE] * (len(to_output) // 2)

# ---- what is chosen --------------------------------------------------------------------------------------------------

def opts_of(u: UOp, features: frozenset[str], caches: Caches, threads: int = 1) -> list[Opt | Stage]:
  kernel, = schedule([u], "CPU").kernels
  return contraction_opts(codegen.prepared(kernel.ast), llvm_target(features, "x86_64", threads, caches))

def test_the_tile_follows_from_the_registers():
  """And from the rows, if one is about as fast as another: no tile of its own, as much code again, for the last."""
  def tile(rows: int, features: frozenset[str]) -> list[int]:
    opts = opts_of(matmul(leaf(random(rows, 64)), leaf(random(64, 192))), features, Caches(1 << 15, 1 << 19))
    return [o.amount for o in opts if isinstance(o, Opt) and o.axis is Axis.TILE]
  assert tile(96, AVX2) == [16, 6] and tile(99, AVX512) == [48, 9] and tile(96, AVX512) == [64, 6]
  assert tile(512, AVX512) == [48, 8]

def test_rows_side_by_side_are_staged_in_blocks():
  """Of a product whose left operand is transposed: what one step of the reduction reads is in lines of its own."""
  x, y = leaf(random(600, 500)), leaf(random(600, 700, seed=1))
  caches = Caches(1 << 15, 1 << 19)
  turned, plain = matmul(x.permute((1, 0)), y), matmul(leaf(random(500, 600)), y)
  assert [sum(isinstance(o, Stage) for o in opts_of(product, AVX2, caches)) for product in (turned, plain)] == [2, 1]

@pytest.mark.parametrize("m, k, n", [(100, 70, 200), (97, 64, 210), (64, 128, 256)])
@pytest.mark.parametrize("threads", [1, 2])
def test_staged_rows_with_edges(small, m, k, n, threads):
  """A copy of one block is not made again for all blocks of other loops."""
  small(Caches(1024, 1 << 14), threads)
  a, b = random(k, m), random(k, n, seed=1)
  near(tensor(a).T @ tensor(b), np.matmul(*exact(a.T, b)))

def test_large_operands_are_staged():
  large, small = [matmul(leaf(random(n, n)), leaf(random(n, n))) for n in (600, 40)]
  caches = Caches(1 << 15, 1 << 18)
  assert {o.slot for o in opts_of(large, AVX2, caches) if isinstance(o, Stage)} == {2}
  assert not any(isinstance(o, Stage) for o in opts_of(small, AVX2, caches))

@pytest.mark.parametrize("dtype", [dtypes.float16, dtypes.bfloat16, dtypes.float32])
def test_numbers_to_be_widened_are_staged_however_few_columns_there_are(dtype):
  """Both operands of x @ w.T have rows along the reduction: one is turned, and the other one widened if it must be."""
  x, w = leaf(random(16, 768)), UOp.buffer(dtype, 2304 * 768, "CPU").reshape((2304, 768)).cast(dtypes.float32)
  staged = [o for o in opts_of(matmul(x, w.permute((1, 0))), AVX512, Caches(1 << 15, 1 << 20)) if isinstance(o, Stage)]
  assert len(staged) == (1 if dtype is dtypes.float32 else 2)

def test_what_a_tile_adds_to_is_fetched_before():
  kernel, = schedule([matmul(leaf(random(256, 2048)), leaf(random(2048, 512)))], "CPU").kernels
  ast, target = codegen.prepared(kernel.ast), llvm_target(AVX512, "x86_64", 1, Caches(48 << 10, 2 << 20))
  code = codegen.structured("product", ast, target, codegen.choose_opts(ast, target))
  sums = [u for u in code if u.op is Ops.LOAD and u.src[0].src[0].op is Ops.PARAM and u.src[0].src[0].arg == 0]
  distances = {u.arg.ahead for u in sums if u.arg is not None}
  assert distances and min(distances) >= 64 and max(distances) <= 256          # the next tile's columns

@pytest.mark.parametrize("rows, is_near", [(77, True), (250, True), (700, False)])
def test_rows_that_come_again_soon_are_multiplied_while_a_panel_is_copied(rows, is_near):
  product = matmul(leaf(random(rows, 513)), leaf(random(513, 1025)))
  opts = opts_of(product, AVX512, Caches(48 << 10, 2 << 20))
  assert (Opt(Axis.BLOCK, 1, 1) in opts) == is_near and any(isinstance(o, Stage) for o in opts)
