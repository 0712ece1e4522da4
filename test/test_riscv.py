# riscv.py and runtime/riscv.py: every op and cast gives PYTHON's bits; calls, stack arguments, spills, large frames; code
# that is as short as it should be; what a kernel must not do is a Python exception.
import itertools, shutil, subprocess
import numpy as np, pytest
pytest.importorskip("unicorn")
from picograd.codegen import riscv
from picograd.codegen.flat import Builder, Function, mem2reg, new_label
from picograd.codegen.place import place
from picograd.codegen.rvobject import disassemble, write_object
from picograd.dtype import dtypes
from picograd.ops.ops import Ops
from picograd.ops.uop import UOp, toposort
from picograd.runtime.device import device, numpy_dtype
import linear_kernels as kernels
from test_llvmir import ARITHMETIC, BINARY_CASES, array, edge_values, is_lowered

f32, f64, i32, i64, ptr = dtypes.float32, dtypes.float64, dtypes.int32, dtypes.int64, dtypes.ptr

def run_both(name, linear, out, *arrays):
  """The kernel's output on RISCV and on PYTHON."""
  fn, results = kernels.flat(name, linear), []
  for where in ("RISCV", "PYTHON"):
    dev, result = device(where), out.copy()
    dev.load(name, dev.compile(dev.render(fn)))([a.reshape(-1).view(np.uint8) for a in (result, *arrays)])
    results.append(result)
  return results

def agree(function, out_dtype, *columns):
  """function over columns, which hold (values, dtype)."""
  arrays = [array(values, dtype) for values, dtype in columns]
  i = kernels.loop(len(arrays[0]))
  loads = [kernels.load(UOp(Ops.PARAM, dtype, (), 1 + k).index(i), dtype=dtype) for k, (_, dtype) in enumerate(columns)]
  store = UOp(Ops.PARAM, out_dtype, (), 0).index(i).store(function(*loads))
  ours, python = run_both("edge", toposort((store.end(i),)), np.zeros(len(arrays[0]), numpy_dtype(out_dtype)), *arrays)
  equal = (ours == python) | ((ours != ours) & (python != python))
  if out_dtype.kind == "f": equal &= (np.signbit(ours) == np.signbit(python)) | (ours != ours)
  for k in np.flatnonzero(~equal)[:1]: pytest.fail(f"{[a[k] for a in arrays]} gives {ours[k]}, not {python[k]}")

CASTS = [(a, b) for a in dtypes.all for b in dtypes.all if a is not b and dtypes.bfloat16 not in (a, b)
         and not is_lowered(a, b)]
@pytest.mark.parametrize("source, to", CASTS, ids=lambda dt: dt.name)
def test_cast(source, to): agree(lambda x: x.cast(to), to, (edge_values(source), source))

@pytest.mark.parametrize("op, dtype", BINARY_CASES, ids=str)
def test_binary(op, dtype):
  pairs = list(itertools.product(edge_values(dtype), repeat=2))
  if op in (Ops.IDIV, Ops.MOD): pairs = [(x, y) for x, y in pairs if y != 0]
  if op in (Ops.SHL, Ops.SHR): pairs = list(itertools.product(edge_values(dtype), (0, 1, 5, dtype.bits - 1, dtype.bits,
                                                                                  dtype.max)))
  out = dtypes.bool if op in (Ops.CMPLT, Ops.CMPNE) else dtype
  agree(lambda x, y: x.alu(op, y), out, ([x for x, _ in pairs], dtype), ([y for _, y in pairs], dtype))

@pytest.mark.parametrize("op, dtype", BINARY_CASES, ids=str)
def test_binary_with_a_constant(op, dtype):
  """Immediate forms, and constants that have none."""
  constants = edge_values(dtype)
  if op in (Ops.IDIV, Ops.MOD): constants = [y for y in constants if y != 0] + [4, 64]
  if op in (Ops.SHL, Ops.SHR): constants = [0, 1, dtype.bits - 1, dtype.bits]
  out = dtypes.bool if op in (Ops.CMPLT, Ops.CMPNE) else dtype
  for y in array(constants, dtype).tolist():
    if y == y: agree(lambda x: x.alu(op, x.like(y)), out, (edge_values(dtype), dtype))

@pytest.mark.parametrize("dtype", (f32, f64, *dtypes.ints), ids=lambda dt: dt.name)
def test_comparisons_choose_and_branch(dtype):
  pairs = list(itertools.product(edge_values(dtype), repeat=2))
  columns = [([x for x, _ in pairs], dtype), ([y for _, y in pairs], dtype)]
  for test in (lambda x, y: x < y, lambda x, y: x >= y, lambda x, y: x.ne(y), lambda x, y: x.eq(y)):
    agree(lambda x, y: test(x, y).where(x, y), dtype, *columns)
    agree(lambda x, y: test(x, y).where(x, 0) + test(y, x).where(y.like(1), y), dtype, *columns)
    agree(lambda x, y: (test(x, y) & x.ne(0)).cast(i32) + test(y, y).cast(i32), i32, *columns)

@pytest.mark.parametrize("dtype", [f32, f64], ids=lambda dt: dt.name)
def test_multiply_add_rounds_once(dtype):
  few = [1 + 2.0**-10, 1 - 2.0**-10, -1 - 2.0**-12, 0.0, -0.0, 1e30, np.inf, np.nan, 3.0]
  triples = list(itertools.product(few, repeat=3))
  columns = [(list(column), dtype) for column in zip(*triples)]
  for signs in itertools.product([1, -1], repeat=3):
    def combined(x, y, z): return (x * signs[0] if signs[0] < 0 else x).alu(
      Ops.MULACC, y * -1 if signs[1] < 0 else y, z * -1 if signs[2] < 0 else z)
    agree(combined, dtype, *columns)

@pytest.mark.parametrize("dtype", [f32, f64], ids=lambda dt: dt.name)
def test_square_root(dtype): agree(lambda x: x.alu(Ops.SQRT), dtype, (edge_values(dtype), dtype))

def test_bitcasts():
  for a, b in itertools.permutations([*dtypes.ints, f32, f64, dtypes.float16], 2):
    if a.bits != b.bits: continue
    values = [x for x in edge_values(a) if x == x]
    agree(lambda x: x.bitcast(b), b, (values, a))
