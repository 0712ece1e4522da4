# test_cuda.py: DEVICE=CUDA. Without a GPU: kernels that together use every op, every Opt of GPUs and every matrix unit
# are compiled by NVRTC for each architecture, and some sources are golden (test/golden/*.cu, rewritten by
# `python test/test_cuda.py --update`). With a GPU, `pytest -m cuda` runs the tests of operations, schedules, captured
# programs and llama on it, each file in a process of its own.
import os, re, subprocess, sys
from functools import partial
from pathlib import Path
import numpy as np
import pytest
import picograd as pg
import picograd.nn.functional as F
from picograd import codegen, storage
from picograd.codegen import cuda
from picograd.codegen.gpu import choose_gpu_opts
from picograd.codegen.schedule import schedule
from picograd.codegen.target import cuda_target
from picograd.dtype import dtypes
from picograd.helpers import NOOPT, prod
from picograd.ops.ops import ALU, Ops
from picograd.ops.uop import UOp, toposort
from picograd.runtime import nvrtc
from picograd.runtime.device import device
from picograd.storage import checks
from picograd.tensor import Tensor

ROOT = Path(__file__).resolve().parents[1]
GOLDEN = ROOT / "test" / "golden"
HOPPER = cuda_target((9, 0), 132)
AMPERE = cuda_target((8, 0), 108)

@pytest.fixture(autouse=True)
def nothing_waits():
  """Checks of indices on a device that is not there would wait for the next test's realize()."""
  yield
  storage.checks.clear()

def has_nvrtc() -> bool:
  try: nvrtc.library()
  except RuntimeError: return False
  return True
needs_nvrtc = pytest.mark.skipif(not has_nvrtc(), reason="NVRTC is absent: pip install nvidia-cuda-nvrtc")

# ---- kernels without a GPU -------------------------------------------------------------------------------------------

def leaf(*shape, dtype=dtypes.float32):
  """A tensor on a device that is never opened."""
  return Tensor(UOp.buffer(dtype, prod(shape), "CUDA").reshape(shape))

@pytest.fixture(autouse=True)
def nothing_is_checked():
  """Conditions on values of these kernels, which never run."""
  yield
  checks.clear()

def half(*shape): return leaf(*shape, dtype=dtypes.bfloat16)

def listings(tensor, target=HOPPER):
  """The structured lists of the kernels that compute a tensor."""
  value = tensor.uop if hasattr(tensor, "uop") else tensor.value
  kernels = [codegen.prepared(kernel.ast) for kernel in schedule([value], "CUDA", target).kernels]
  return [codegen.compile(f"kernel{i}", ast, target, codegen.opts_for(ast, target)) for i, ast in enumerate(kernels)]

def sources(tensor, target=HOPPER): return [cuda.render(listing) for listing in listings(tensor, target)]

def opts_of(tensor, target=HOPPER):
  value = tensor.uop if hasattr(tensor, "uop") else tensor.value
  return [choose_gpu_opts(codegen.prepared(kernel.ast), target) for kernel in schedule([value], "CUDA", target).kernels]

def roughly(make):
  """What make gives where matrix products may be rounded."""
  pg.set_float32_matmul_precision("high")
  try: return make()
  finally: pg.set_float32_matmul_precision("highest")

INT, FLOATS = dtypes.int32, (dtypes.float16, dtypes.bfloat16, dtypes.float32, dtypes.float64)
CASES = {
  "elementwise": lambda: (leaf(64, 128) * 2 + 1).relu(),
  "broadcast": lambda: leaf(64, 128) * leaf(64, 1) + leaf(128),
  "odd": lambda: leaf(7, 13) - leaf(13),
  "gelu": lambda: F.gelu(leaf(64, 128)),
  "sines": lambda: leaf(64).sin() + leaf(64).cos() + leaf(64).log() + leaf(64).exp2() + leaf(64).sqrt(),
  "integers": lambda: ((leaf(64, dtype=INT) // 5) % 7 ^ leaf(64, dtype=INT)) << 3 >> leaf(64, dtype=INT),
  "bools": lambda: (leaf(64) < 0) & (leaf(64) != 1) | leaf(64, dtype=dtypes.bool),
  "narrow": lambda: leaf(64, dtype=dtypes.uint8) * leaf(64, dtype=dtypes.uint8) + leaf(64, dtype=dtypes.int8),
  "wide": lambda: leaf(64, dtype=dtypes.int64) * 3 - leaf(64, dtype=dtypes.int64),
  "casts": lambda: sum(leaf(64, dtype=dt).to(dtypes.float64) for dt in (*dtypes.ints, *FLOATS, dtypes.bool)),
  "from floats": lambda: leaf(64).to(dtypes.float16).to(dtypes.int8).to(dtypes.bfloat16).to(dtypes.uint64),
  "softmax": lambda: leaf(64, 8192).softmax(-1),
  "softmax of odd rows": lambda: leaf(77, 131).softmax(-1),
  "softmax of long rows": lambda: leaf(4, 1 << 17).softmax(-1),
  "layernorm": lambda: F.layer_norm(leaf(64, 512), (512,), leaf(512), leaf(512)),
  "sums of several sizes": lambda: sum((leaf(*shape) * 2).sum() for shape in ((384,), (65, 384), (256, 384), (3,))),
  "sum of rows": lambda: leaf(64, 8192).sum(1),
  "sum of columns": lambda: leaf(8192, 8192).sum(0),
  "sum of halves": lambda: half(64, 8192).sum(1),
  "maximum": lambda: leaf(64, 1000, dtype=INT).max(1).values,
  "product": lambda: leaf(64, 8).prod(1),
  "argmax": lambda: leaf(64, 500).argmax(1),
  "transpose": lambda: leaf(512, 256).T.contiguous(),
  "transpose of an odd matrix": lambda: (leaf(100, 70).T + leaf(70, 100)).contiguous(),
  "gather": lambda: leaf(64, 32).gather(1, pg.arange(4, device="CUDA").expand(64, 4)),
  "rows added at places": lambda: pg.where(
    pg.arange(64, device="CUDA") == leaf(100, 1, dtype=dtypes.int64), leaf(100, 1), 0).sum(0),
  "padding": lambda: F.pad(leaf(30, 30), (1, 2, 3, 4)),
  "convolution": lambda: F.conv2d(leaf(2, 3, 16, 16), leaf(8, 3, 3, 3)),
  "matvec": lambda: half(1, 4096) @ half(1024, 4096).T,
  "matvec, normed": lambda: leaf(1, 300) + F.linear(F.rms_norm(leaf(1, 4096), (4096,), leaf(4096)), leaf(300, 4096)),
  "fma": lambda: leaf(256, 128) @ leaf(128, 384),
  "fma of an odd shape": lambda: leaf(3, 130, 77) @ leaf(3, 77, 51) + 1,
  "tf32": lambda: roughly(lambda: leaf(256, 128) @ leaf(384, 128).T),
  "tf32, turned": lambda: roughly(lambda: leaf(256, 128) @ leaf(128, 384)),
  "tf32, turned, odd": lambda: roughly(lambda: leaf(5, 77, 256).transpose(1, 2) @ leaf(5, 330, 77).transpose(1, 2)),
  "tf32, both turned": lambda: roughly(lambda: leaf(128, 256).T @ leaf(128, 384)),
  "tf32 of an odd depth": lambda: roughly(lambda: leaf(256, 77) @ leaf(384, 77).T + 1),
  "matrix unit": lambda: half(256, 128) @ half(128, 384),
  "matrix unit, transposed": lambda: half(128, 256).T @ half(384, 128).T,
  "matrix unit, odd shape": lambda: half(201, 77).T @ half(201, 330),
  "matrix unit, batched": lambda: (leaf(3, 256, 5, 64, dtype=dtypes.float16).permute(0, 2, 1, 3)
                                   @ leaf(3, 5, 64, 128, dtype=dtypes.float16)),
  "matrix unit, epilogue": lambda: F.gelu(F.linear(half(4, 64, 128), half(256, 128), half(256))) + half(4, 64, 256),
}

def compiles(name, target):
  for source in sources(CASES[name](), target):
    assert nvrtc.compile_cubin(source, target.name.removeprefix("cuda-"))[:4] == b"\x7fELF"

@needs_nvrtc
@pytest.mark.parametrize("name", CASES)
def test_compiles_for_hopper(name): compiles(name, HOPPER)

OTHERS = [cuda_target(capability, 100) for capability in ((8, 0), (8, 9), (10, 0))]
@needs_nvrtc
@pytest.mark.parametrize("target", OTHERS, ids=lambda target: target.name)
def test_compiles_for_other_generations(target):
  texts = {source for name in CASES for source in sources(CASES[name](), target)}
  for source in texts: assert nvrtc.compile_cubin(source, target.name.removeprefix("cuda-"))[:4] == b"\x7fELF"

@needs_nvrtc
@pytest.mark.parametrize("name", ["softmax", "matrix unit", "transpose", "sum of columns", "convolution"])
def test_compiles_without_opts(name):
  with NOOPT.set(1):
    for source in sources(CASES[name]()): nvrtc.compile_cubin(source, "sm_90a")

MOST_THREADS = 1024      # of a block (CUDA C++ programming guide, compute capabilities)

def squared_lengths_gradient():
  """Two results of one sum, in a kernel whose blocks have a row each."""
  x = leaf(48, 1000).requires_grad_(True)
  lengths = (x * x).sum(1, keepdim=True)
  (lengths * lengths).amax(1).sum().backward()
  return x.grad

def gathered_gradient():
  """Sums over the indices in one nest, and in the next a loop over them that adds to memory."""
  x = leaf(17, 17).requires_grad_(True)
  rows = (x.expand(3, -1, -1) - x).index_select(1, pg.tensor([0, 12, 0]))
  (rows * rows).sum().backward()
  return x.grad

REDUCTIONS = {
  "one in another's steps": lambda: F.layer_norm(leaf(300), (300,)).cumsum(0),
  "rows of several lengths": lambda: (leaf(130, 68) / (leaf(130, 64) @ leaf(64, 1))).sum(1),
  "short rows in a block": lambda: leaf(64, 1000, 5).log_softmax(1).sum((1, 2)),
  "one of two nests": squared_lengths_gradient, "over the range of a loop": gathered_gradient,
}
@needs_nvrtc
@pytest.mark.parametrize("name", REDUCTIONS)
def test_threads_of_several_reductions_are_one_block(name):
  for source in sources(REDUCTIONS[name]()):
    assert int(re.match(r"// \w+ grid \d+ block (\d+)", source)[1]) <= MOST_THREADS
    assert nvrtc.compile_cubin(source, "sm_90a")[:4] == b"\x7fELF"

def test_the_list_covers_every_op():
  used = {u.op for make in CASES.values() for listing in listings(make()) for u in toposort(listing.code)}
  decomposed = {Ops.EXP2, Ops.LOG2, Ops.SIN}
  assert ALU - decomposed - used == set()
  assert {Ops.WMMA, Ops.BARRIER, Ops.SPECIAL, Ops.REDUCE, Ops.RANGE, Ops.STACK} < used

def test_the_list_covers_every_opt_and_every_matrix_unit():
  names = {repr(opt).split("(")[0] for make in CASES.values() for t in (HOPPER, AMPERE)
           for opts in opts_of(make(), t) for opt in opts}
  assert names == {"VECTOR", "LOCAL", "GROUP", "GLOBAL", "UNROLL", "UPCAST", "TURN", "FMA", "MMA", "WGMMA"}

# ---- what the sources say --------------------------------------------------------------------------------------------

def test_a_row_is_read_once():
  source, = sources(CASES["softmax"]())
  assert source[source.index("void body("):].count("load<") == 8192 // 1024 // 4
  assert "grid 64 block 1024" in source

def test_a_row_that_is_written_too_has_more_threads():
  written, = sources(F.layer_norm(leaf(8192, 8192), (8192,), leaf(8192), leaf(8192)))
  read, = sources(leaf(8192, 8192).logsumexp(1))
  assert "grid 8192 block 512" in written and "grid 8192 block 256" in read

def test_operands_of_a_matrix_unit_come_in_bulk_where_they_are_matrices():
  aligned, = sources(CASES["matrix unit, transposed"]())
  odd, = sources(CASES["matrix unit, odd shape"]())
  assert "cp.async.bulk.tensor" in aligned and "// map slot" in aligned
  assert "wgmma" in odd and "// map slot" not in odd

def test_sums_that_are_only_rounded_leave_a_tile_in_16_bits():
  for text in sources(half(512, 128) @ half(512, 128).T) + sources(F.linear(half(512, 128), half(512, 128), half(512))):
    assert "rounded_pair(low, high)" in text and "unsigned short* results" in text
  exact, = sources(CASES["tf32"]())
  assert "rounded_pair" not in exact and "float* results" in exact

def test_blocks_take_tiles_in_turn_and_copy_for_the_next_one_early():
  source, = sources(half(4096, 4096) @ half(4096, 4096).T)
  assert "grid 512 block 256" in source and "in turn 1\n" in source
  assert "block < 512; block += gridDim.x" in source and "block + gridDim.x < 512" in source
  assert "copy_stage(corner(next), i)" in source

def test_rounded_products_use_the_matrix_unit_and_exact_ones_do_not():
  (rough,), (exact,) = sources(CASES["tf32"]()), sources(CASES["fma"]())
  assert "k8.f32.tf32.tf32" in rough and "cp.async.bulk.tensor" in rough
  assert "tf32" not in exact

def test_wgmma_takes_words_that_it_cannot_turn_from_registers():
  """Of A, or of B; where neither lies along the sum, one of them is copied first."""
  turned = [roughly(lambda: leaf(256, 128) @ leaf(128, 384)), roughly(lambda: leaf(128, 256).T @ leaf(384, 128).T)]
  for tensor in turned:
    source, = sources(tensor)
    assert "load_word(sb" in source or "load_word(sa" in source
  copy, product = sources(roughly(lambda: leaf(128, 256).T @ leaf(128, 384)))
  assert "wgmma" not in copy and "= load_word(" in product
  assert len(sources(roughly(lambda: leaf(128, 16).T @ leaf(128, 384)))) == 1

def test_a_float_rounded_to_16_bits_takes_one_conversion():
  source, = sources((half(64, 128) + 1) * half(64, 128))
  body = source[source.index("void body("):]
  assert "as_bfloat16(" in body and "from_bfloat16(to_bfloat16(" not in body

def test_exponentials_are_the_machines():
  source, = sources(leaf(64).exp())
  assert "exp2(" in source[source.index("void body("):]

def gated(width, hidden):
  """Two products with matrices of bfloat16 of a vector that is normed."""
  x = F.rms_norm(leaf(width), (width,), leaf(width))
  gate, up = [half(hidden, width).to(dtypes.float32) for _ in range(2)]
  return F.silu(gate @ x) * (up @ x)

def test_threads_meet_once_for_sums_that_do_not_wait_for_each_other():
  source, = sources(gated(4096, 14336), AMPERE)
  body = source[source.index("void body("):]
  assert body.count("over_threads<") == 2                                # of the norm; of both products
  assert 0 < body[:body.index("over_threads<")].count("load<") - 8 <= 8  # some weights come while the norm is summed up

def test_rows_of_a_matrix_come_ahead_of_their_use():
  """As many blocks as processors take turns; the vector is normed once by each, before the loop."""
  source, = sources(gated(2048, 8192))
  head = source.split("\n")[0]
  assert "grid 1024 block 256 shared 131200 arguments 5 writes 0 in turn 1 early" in head
  before, loop = source[source.index("void body("):].split("for (int turn")
  assert "over_threads<" in before and loop.count("over_threads<") == 1
  assert "near0 + " in loop and "near1 + " in loop and "copy_piece(base + stage * 65536 + 32768" in source
  assert source.index("if (!early)") < source.index("i++) copy(") < source.rindex("wait_for_earlier_kernels();")

def test_pieces_are_copied_from_the_memory_they_are_named_after():
  """Not from that of each other, when they are read in another order than that of the kernel's slots."""
  source, = sources(leaf(256, 16) + leaf(256, 16) * leaf(16))
  parameters = re.search(r"void copy\(.* ready, (.*)\)", source)[1]
  given = re.search(r"copy\(next, stage, base, ready, (.*?)\)", source)[1]
  assert given == "p2, p1" and re.findall(r"p\d", parameters) == ["p2", "p1"]

def test_what_a_block_adds_is_loaded_a_turn_early():
  source, = sources(leaf(4096) + half(4096, 4096).to(dtypes.float32) @ leaf(4096))
  assert source.count("auto beside") == 4 and "if (after >= 0) value3 = beside3(after);" in source

@pytest.mark.parametrize("name", ["sum of rows", "softmax", "elementwise", "transpose"])
def test_kernels_whose_blocks_have_nothing_in_common_take_no_turns(name):
  assert all("copy_piece" not in source for source in sources(CASES[name]()))

def test_older_gpus_have_no_bulk_copies():
  source, = sources(gated(2048, 8192), AMPERE)
  assert "copy_piece" not in source and "in turn" not in source and "fetch(p" not in source

@pytest.mark.parametrize("dtype", [dtypes.int32, dtypes.uint32])
def test_the_larger_of_two_integers_is_no_maximum_of_the_compiler(dtype):
  a, b = leaf(64, dtype=dtype), leaf(64, dtype=dtype)
  chosen = pg.maximum(a, b), pg.where(a < b, b, a), pg.where(a < b, a, b), pg.where(b > a, b, a), pg.where(b >= a, b, a)
  for extreme in chosen:
    text, = sources(extreme)
    assert re.search(r"= .*(largest|picked)\(", text.partition("void body")[2])

@needs_nvrtc
def test_blocks_in_turn_compile_for_every_gpu_that_has_bulk_copies():
  for target in (HOPPER, cuda_target((10, 0), 148)):
    residual = leaf(4096) + half(4096, 14336).to(dtypes.float32) @ leaf(14336)
    for tensor in (gated(2048, 8192), gated(4096, 14336), residual):
      source, = sources(tensor, target)
      assert "copy_piece" in source
      assert nvrtc.compile_cubin(source, target.name.removeprefix("cuda-"))[:4] == b"\x7fELF"

def attention(q, k, v): return (q @ k.transpose(-1, -2)).softmax(-1) @ v

def test_nests_of_a_joined_kernel_share_the_threads_of_a_block():
  """Each uses as many as it can; what one passes on to others is not read before all threads are there."""
  source, = sources(attention(leaf(8, 4, 64), leaf(8, 320, 64), leaf(8, 320, 64)))
  body = source[source.index("void body("):]
  assert "grid 8 block 512" in source
  assert body.count("__shared__") == 2 and body.count("__syncthreads();") == 2

def test_a_long_reduction_is_no_single_block_s_work():
  """The largest of a vocabulary's logits: parts of both reductions in many blocks."""
  assert [source.split(" grid ")[1].split()[0] for source in sources(leaf(128256).argmax())] == ["64", "64", "1"]
  assert len(sources(leaf(4096).argmax())) == 1

def test_attention_of_one_token_is_one_kernel():
  """Of a llama of 8 billion parameters: 8 heads of keys for 32 of queries."""
  assert len(sources(attention(leaf(8, 4, 128), leaf(8, 320, 128), leaf(8, 320, 128)))) == 1

def test_a_pointer_to_what_other_threads_store_is_not_restricted():
  """Else its loads might be moved above the barrier, or answered by what the thread itself has stored."""
  x = leaf(6, 3)
  sums = x.exp().sum(-1, keepdim=True).contiguous()
  kernel, = schedule([sums.uop, (x * sums).uop], "CUDA", HOPPER).kernels
  ast = codegen.prepared(kernel.ast)
  text = cuda.render(codegen.compile("kernel", ast, HOPPER, codegen.opts_for(ast, HOPPER)))
  body = text[text.index("void body("):]
  assert "__syncthreads();" in body
  assert body.split("\n")[0].count("float*") == 3 and body.split("\n")[0].count("__restrict__") == 2

def test_positions_beyond_32_bits_are_wide():
  source, = sources(leaf(1 << 20, 1 << 12) * 2)
  assert "const long long" in source[source.index("void body("):]

@pytest.mark.parametrize("name", ["elementwise", "softmax of odd rows", "transpose of an odd matrix"])
def test_golden(name): assert golden_text(name) == golden_path(name).read_text(encoding="utf-8")

def golden_path(name): return GOLDEN / f"{name.replace(' ', '_')}.cu"
def golden_text(name):
  """The kernels without what is the same in all."""
  return "\n".join(source.replace(cuda.PRELUDE, "") for source in sources(CASES[name]()))

# ---- errors ----------------------------------------------------------------------------------------------------------

@needs_nvrtc
def test_a_refused_source_is_shown_with_its_line():
  source = ("// broken grid 1 block 1 shared 0 arguments 0\n"
            "extern \"C\" __global__ void broken() {\n  int x = nonsense;\n}\n")
  with pytest.raises(nvrtc.CompileError, match=r"(?s)broken.*nonsense.*line 3: int x = nonsense;"):
    nvrtc.compile_cubin(source, "sm_90a")

def test_a_missing_package_is_named(monkeypatch):
  monkeypatch.setitem(sys.modules, "pycuda", None)
  monkeypatch.setitem(sys.modules, "pycuda.driver", None)
  with pytest.raises(RuntimeError, match="needs PyCUDA: pip install pycuda"): device("CUDA:7")

def test_an_unknown_generation_is_named():
  with pytest.raises(ValueError, match="compute capability"): cuda_target((3, 5), 8)

def test_store_in_a_shared_loop_is_of_all_its_threads():
  """A clone that a later nest adds rows to, both in one loop over threads: not the first thread's alone."""
  pick = lambda: leaf(2, dtype=dtypes.int64).clamp(0, 31)
  x = F.pad(leaf(17, 32, 100, 1), (1, 2))
  text, = sources(x.clone().index_add_(1, pick(), x.index_select(1, pick())))
  assert "threadIdx.x" in text and "v0 < (long long)0x1ull" not in text

@needs_nvrtc
def test_lanes_of_a_reduction_go_along_one_range():
  """The gradient of amax looks for the largest of the values and of what they are compared with, in two layouts."""
  x = leaf(5, 2, 128).requires_grad_()
  (x.permute(0, 2, 1).sort(1)[0].amax((1, 2)) ** 2).sum().backward()
  for source in sources(x.grad): assert nvrtc.compile_cubin(source, "sm_90a")[:4] == b"\x7fELF"

# ---- on a GPU --------------------------------------------------------------------------------------------------------

def has_gpu() -> bool:
  try: device("CUDA")
  except RuntimeError: return False
  return True

@pytest.mark.cuda
@pytest.mark.parametrize("file", ["test_ops.py", "test_schedule.py", "test_jit.py", "test_llama.py", "test_tiny.py"])
def test_file_on_the_gpu(file):
  if not has_gpu(): pytest.skip("no GPU, or no PyCUDA")
  command = [sys.executable, "-m", "pytest", "-q", "-n", str(min(8, os.cpu_count() or 1)), str(ROOT / "test" / file)]
  result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env={**os.environ, "DEVICE": "CUDA"})
  assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-2000:]

@pytest.mark.cuda
@pytest.mark.parametrize("dtype, tolerance", [("float32", 1e-5), ("float16", 2e-3), ("bfloat16", 1e-2)])
@pytest.mark.parametrize("shape", [(1, 4096, 512), (17, 70, 300), (64, 4096, 2048), (1001, 1032, 1096), (130, 70, 300)])
def test_products_on_the_gpu(dtype, tolerance, shape):
  if not has_gpu(): pytest.skip("no GPU, or no PyCUDA")
  m, n, k = shape
  rng = np.random.default_rng(0)
  a, b = [pg.tensor(rng.standard_normal(s), dtype=getattr(pg, dtype), device="CUDA") for s in ((m, k), (k, n))]
  x, y = [t.float().numpy().astype(np.float64) for t in (a, b)]
  for got in (a @ b, a @ b.T.contiguous().T, a.T.contiguous().T @ b, (b.T @ a.T).T):
    error = np.linalg.norm(got.float().numpy() - x @ y) / np.linalg.norm(x @ y)
    assert error < tolerance

@pytest.mark.cuda
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
@pytest.mark.parametrize("n, k", [(3072, 2048), (2048, 8192), (300, 4096), (14336, 4096), (4096, 14336), (1001, 520)])
def test_vectors_times_matrices_on_the_gpu(n, k, dtype):
  """Launched one by one, as one program, and where the matrix is computed in the program that reads it."""
  if not has_gpu(): pytest.skip("no GPU, or no PyCUDA")
  rng = np.random.default_rng(0)
  w, v = [pg.tensor(rng.standard_normal((n, k)), dtype=getattr(pg, dtype), device="CUDA") for _ in range(2)]
  x, g, r = [pg.tensor(rng.standard_normal(s).astype(np.float32), device="CUDA") for s in ((1, k), (k,), (1, n))]
  def layers(x, v):
    a, b = w.float(), v.float()
    h = F.rms_norm(x, (k,), g)
    y = r + F.linear(h, a)
    return y, F.silu(F.linear(h, a)) * F.linear(h, b), F.linear(F.linear(F.linear(y, b.T), a), b.T)
  W, V, X, G, R = [t.float().numpy().astype(np.float64) for t in (w, v, x, g, r)]
  H = X / np.sqrt((X * X).mean() + np.finfo(np.float32).eps) * G
  A, Y = H @ W.T, R + H @ W.T
  want = Y, A / (1 + np.exp(-A)) * (H @ V.T), Y @ V @ W.T @ V
  once, doubled = pg.jit(layers), pg.jit(lambda x, v: layers(x, (v * 2).contiguous()))
  def near(got, want): assert np.linalg.norm(got.numpy() - want) / np.linalg.norm(want) < 1e-5
  for results in (layers(x, v), *(once(x, v) for _ in range(4))):
    for got, value in zip(results, want): near(got, value)
  for _ in range(4): near(doubled(x, v)[2], 4 * want[2])

@pytest.mark.cuda
@pytest.mark.parametrize("batch", [(), (3,)])
@pytest.mark.parametrize("shape", [(64, 4096, 2048), (1000, 1032, 1096), (130, 70, 300), (96, 160, 33)])
def test_rounded_products_on_the_gpu(shape, batch):
  """Each operand as it is and transposed: out of memory, out of registers, copied."""
  if not has_gpu(): pytest.skip("no GPU, or no PyCUDA")
  m, n, k = shape
  rng = np.random.default_rng(0)
  a, b = [rng.standard_normal((*batch, *s)).astype(np.float32) for s in ((m, k), (k, n))]
  want = a.astype(np.float64) @ b.astype(np.float64)
  def both(x):
    turned = pg.tensor(x.swapaxes(-1, -2).copy(), device="CUDA")
    return [pg.tensor(x, device="CUDA"), turned.transpose(-1, -2)]
  def products(x, y): return (x @ y).numpy(), (x @ y).half().numpy().astype(np.float64)
  for x in both(a):
    for y in both(b):
      for got in roughly(partial(products, x, y)): assert np.linalg.norm(got - want) / np.linalg.norm(want) < 1.5e-3

@pytest.mark.cuda
def test_the_second_gpu_computes_too():
  if not has_gpu() or device("CUDA").count < 2: pytest.skip("one GPU")
  x = pg.tensor([1.0, 2.0, 3.0], device="CUDA:1")
  y = x * 2
  assert y.numpy().tolist() == [2.0, 4.0, 6.0]
  assert (y.to("CUDA") + 1).numpy().tolist() == [3.0, 5.0, 7.0]

if __name__ == "__main__" and "--update" in sys.argv:
  GOLDEN.mkdir(exist_ok=True)
  for name in ("elementwise", "softmax of odd rows", "transpose of an odd matrix"):
    golden_path(name).write_text(golden_text(name), encoding="utf-8")
