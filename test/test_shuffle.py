# Copies across memory: every permutation of every dtype keeps its elements, whatever the sizes leave over.
import itertools
import numpy as np
import pytest
import picograd
from graphs import leaf, random
from picograd import codegen
from picograd.codegen.heuristic import choose_opts
from picograd.codegen.optimize import Opt, Stage
from picograd.codegen.schedule import schedule
from picograd.codegen.target import llvm_target
from picograd.ops.ops import Axis, Fetch, Ops, Streaming
from picograd.ops.uop import UOp, toposort

AVX2 = llvm_target(frozenset(["avx", "avx2"]), "x86_64", 1)
AVX512 = llvm_target(frozenset(["avx", "avx2", "avx512f"]), "x86_64", 1)

@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int8", "bool"])
@pytest.mark.parametrize("shape", [(64, 64), (37, 53), (130, 3), (3, 130), (2, 40, 65)], ids=str)
def test_permutations(shape, dtype):
  a = np.random.default_rng(0).integers(-50, 50, shape).astype(dtype)
  x = picograd.tensor(a)
  for axes in itertools.permutations(range(len(shape))):
    assert np.array_equal(x.permute(axes).contiguous().numpy(), a.transpose(axes))

def test_four_dimensions(): test_permutations((5, 6, 7, 8), "float32")

def test_with_an_operand_along_the_result():
  a, b = random(100, 203), random(203, 100, seed=1)
  assert np.array_equal((picograd.tensor(a).T + picograd.tensor(b)).numpy(), a.T + b)

@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int8"])
def test_large_matrices(dtype):
  """Tiles of whole lines, and what they leave over."""
  side = int((20 << 20) / np.dtype(dtype).itemsize) ** 0.5
  shape = (int(side) // 32 * 32 + 5, int(side) // 32 * 32 + 19)
  a = np.random.default_rng(0).integers(-50, 50, shape).astype(dtype)
  assert np.array_equal(picograd.tensor(a).T.contiguous().numpy(), a.T)

@pytest.mark.parametrize("side, target, width", [(256, AVX2, 4), (256, AVX512, 4), (4096, AVX2, 8), (4096, AVX512, 16)])
def test_rows_are_loaded_as_vectors(side, target, width):
  x = UOp.buffer(leaf(random(1)).dtype, side * side, "CPU").reshape((side, side)).permute((1, 0))
  kernel, = schedule([UOp(Ops.CONTIGUOUS, x.dtype, (x,))], "CPU").kernels
  ast = codegen.prepared(kernel.ast)
  fn = codegen.compile("k", ast, target, choose_opts(ast, target))
  loads = [u for u in toposort([u for block in fn.blocks.values() for u in block]) if u.op is Ops.LOAD]
  assert loads and all(u.dtype.count == width for u in loads)

@pytest.mark.parametrize("target", [AVX2, AVX512], ids=["AVX2", "AVX512"])
def test_lines_are_written_one_after_the_other_as_registers_allow(target):
  """A step holds no more vectors than registers."""
  x = UOp.buffer(leaf(random(1)).dtype, 4096 * 4096, "CPU").reshape((4096, 4096)).permute((1, 0))
  kernel, = schedule([UOp(Ops.CONTIGUOUS, x.dtype, (x,))], "CPU").kernels
  ast = codegen.prepared(kernel.ast)
  fn = codegen.compile("k", ast, target, choose_opts(ast, target))
  loads = [u for block in fn.blocks.values() for u in block if u.op is Ops.LOAD]
  stores = [u for block in fn.blocks.values() for u in block if u.op is Ops.STORE]
  assert len(loads) == len(stores) * stores[0].src[1].dtype.count // loads[0].dtype.count
  assert len(stores) == target.registers and {u.arg for u in stores} == {Streaming.STORE}
  assert {u.arg for u in loads} == {None if target.fetches_rows else Fetch(target.fetch_bytes)}

def test_a_staged_copy_transposes_one_tile_at_a_time():
  """However many vectors wide a product's tile is: the copy is a loop over square tiles of registers."""
  a, b = (UOp.buffer(leaf(random(1)).dtype, 512 * 512, "CPU").reshape(shape).expand((512, 512, 512))
          for shape in ((512, 1, 512), (1, 512, 512)))
  kernel, = schedule([(a * b).reduce(Ops.ADD, (2,))], "CPU").kernels
  ast = codegen.prepared(kernel.ast)
  opts = choose_opts(ast, AVX512)
  vector = next(opt for opt in opts if isinstance(opt, Opt) and opt.axis is Axis.VECTOR)
  assert any(isinstance(opt, Stage) for opt in opts)
  assert any(opt.axis is Axis.UPCAST and opt.number == vector.number for opt in opts if isinstance(opt, Opt))
  fn = codegen.compile("k", ast, AVX512, opts)
  shuffles = [sum(u.op is Ops.STACK and u.arg is not None for u in block) for block in fn.blocks.values()]
  assert max(shuffles) == 16 * 4                                       # log2(16) steps of 16 vectors

# ---- products whose lanes go along the outer dimension of the result -------------------------------------------------

def product_of_rows(m, n, k, dtype="float32"):
  """The kernel of x @ w.T."""
  x = UOp.buffer(leaf(random(1).astype(dtype)).dtype, m * k, "CPU").reshape((m, 1, k)).expand((m, n, k))
  w = UOp.buffer(leaf(random(1).astype(dtype)).dtype, n * k, "CPU").reshape((1, n, k)).expand((m, n, k))
  kernel, = schedule([(x * w).reduce(Ops.ADD, (2,))], "CPU").kernels
  return codegen.prepared(kernel.ast)

def stored_widths(kernel, target):
  fn = codegen.compile("k", kernel, target, choose_opts(kernel, target))
  return [u.src[1].dtype.count for block in fn.blocks.values() for u in block if u.op is Ops.STORE]

@pytest.mark.parametrize("target", [AVX2, AVX512], ids=["AVX2", "AVX512"])
def test_results_are_stored_as_rows(target):
  """The lanes are rows of the result; a register tile has several of its columns: each row is stored as vectors."""
  widths = stored_widths(product_of_rows(64, 3072, 768), target)
  assert 1 not in widths and len(set(widths)) > 1                      # the copy's, and those of the results

@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int32"])
@pytest.mark.parametrize("m, n, k", [(64, 96, 40), (16, 6, 32), (37, 61, 53), (130, 5, 48), (48, 1, 64), (9, 200, 300)])
def test_products_with_rows(m, n, k, dtype):
  """With an operand that is read where the result is written, and an assignment to a part of a larger tensor."""
  rng = np.random.default_rng(0)
  x, w, b = (rng.integers(-4, 5, shape).astype(dtype) for shape in ((m, k), (n, k), (m, n)))
  expected = x.astype(np.float64) @ w.T.astype(np.float64) * 2 + b
  tx, tw, tb = map(picograd.tensor, (x, w, b))
  assert np.array_equal((tx @ tw.T * 2 + tb).numpy(), expected)
  whole = picograd.zeros(m + 2, n + 3, dtype=tx.dtype)
  whole[1:-1, 2:-1] = tx @ tw.T * 2 + tb
  assert np.array_equal(whole.numpy(), np.pad(expected, ((1, 1), (2, 1))))

def test_a_mask_of_a_product_with_rows():
  rng = np.random.default_rng(0)
  x, w = (rng.integers(-4, 5, shape).astype(np.float32) for shape in ((64, 48), (96, 48)))
  assert np.array_equal((picograd.tensor(x) @ picograd.tensor(w).T > 3).numpy(), x @ w.T > 3)
