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
  shuffles = [sum(u.op is Ops.STACK and len(set(u.src)) == 16 for u in block) for block in fn.blocks.values()]
  assert max(shuffles) == 16 * 4                                       # log2(16) steps of 16 vectors
