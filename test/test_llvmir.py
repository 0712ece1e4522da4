# LLVM IR of every op and every cast, scalar and in vectors: the CPU gives PYTHON's bits.
import itertools
import numpy as np, pytest
pytest.importorskip("llvmlite")
from picograd.codegen.llvmir import render
from picograd.dtype import dtypes
from picograd.ops.ops import Ops
from picograd.ops.uop import UOp, toposort
from picograd.runtime.device import device, numpy_dtype
import linear_kernels as kernels

ARITHMETIC = dtypes.ints + (dtypes.float32, dtypes.float64)      # 16-bit floats are only moved and converted

def edge_values(dtype):
  """Numbers where an implementation may go wrong."""
  if dtype is dtypes.bool: return [False, True]
  if dtype.kind == "f":
    return [0.0, -0.0, 1.0, -1.0, 0.5, -2.5, 3.0, 127.0, 128.0, -129.0, 255.5, 256.0, 2049.0, 65503.0, 65519.0, 65520.0,
            2.0**31, -2.0**31, 2.0**31 - 128, 2.0**32, 2.0**63, -2.0**63, 2.0**64, 1e30, 1e-8, 1 + 2.0**-11,
            1 + 2.0**-11 + 2.0**-40, 6e-8, 1e-40, 5e-324, np.inf, -np.inf, np.nan]
  numbers = {0, 1, 2, 3, 7, 100, dtype.max, dtype.max - 1, dtype.min, dtype.min + 1, dtype.max // 3, dtype.min // 5}
  if dtype.bits == 64: numbers |= {2**53 + 1, 2**24 + 1, 2**62 + 2**38 + 1}
  return sorted(numbers)

def array(values, dtype):
  with np.errstate(over="ignore"): return np.array(values).astype(numpy_dtype(dtype)) if dtype.kind == "f" else \
                                          np.array(values, numpy_dtype(dtype))

def both(name, linear, out, *arrays):
  """The kernel's output on the CPU and on PYTHON."""
  fn, results = kernels.flat(name, linear), []
  for where in ("CPU", "PYTHON"):
    dev, result = device(where), out.copy()
    dev.load(name, dev.compile(dev.render(fn)))([a.reshape(-1).view(np.uint8) for a in (result, *arrays)])
    results.append(result)
  return results

def elementwise(function, out_dtype, *columns, lanes):
  """function over the columns, which hold (values, dtype), in loads of `lanes` lanes: on the CPU and on PYTHON."""
  n = -(-len(columns[0][0]) // lanes) * lanes
  arrays = [array([*values, *[values[0]] * (n - len(values))], dtype) for values, dtype in columns]
  i = kernels.loop(n // lanes)
  loads = [kernels.load(UOp(Ops.PARAM, dtype, (), 1 + k).index(i * lanes), dtype=dtype.vec(lanes))
           for k, (_, dtype) in enumerate(columns)]
  store = UOp(Ops.PARAM, out_dtype, (), 0).index(i * lanes).store(function(*loads))
  return both("edge", toposort((store.end(i),)), np.zeros(n, numpy_dtype(out_dtype)), *arrays), arrays

def agree(function, out_dtype, *columns):
  for lanes in (1, 4):
    (cpu, python), arrays = elementwise(function, out_dtype, *columns, lanes=lanes)
    equal = (cpu == python) | ((cpu != cpu) & (python != python))
    if out_dtype.kind == "f": equal &= (np.signbit(cpu) == np.signbit(python)) | (cpu != cpu)
    wrong = np.flatnonzero(~equal)
    for k in wrong[:1]: pytest.fail(f"{lanes} lanes: {[a[k] for a in arrays]} gives {cpu[k]}, not {python[k]}")

def is_lowered(a, b): return dtypes.bfloat16 in (a, b) or (b is dtypes.float16 and a is not dtypes.float32)
CASTS = [(a, b) for a in dtypes.all for b in dtypes.all if a is not b and not is_lowered(a, b)]
@pytest.mark.parametrize("source, to", CASTS, ids=lambda dt: dt.name)
def test_cast(source, to): agree(lambda x: x.cast(to), to, (edge_values(source), source))

BINARY = [Ops.ADD, Ops.MUL, Ops.MAX, Ops.CMPLT, Ops.CMPNE]
BITS = [Ops.AND, Ops.OR, Ops.XOR]
FLOATS = (dtypes.float32, dtypes.float64)
BINARY_CASES = [*itertools.product(BINARY, ARITHMETIC + (dtypes.bool,)),
                *itertools.product(BITS, dtypes.ints + (dtypes.bool,)), *itertools.product([Ops.FDIV], FLOATS),
                *itertools.product([Ops.SHL, Ops.SHR], dtypes.ints),
                *itertools.product([Ops.IDIV, Ops.MOD], dtypes.ints)]
@pytest.mark.parametrize("op, dtype", BINARY_CASES, ids=str)
def test_binary(op, dtype):
  pairs = list(itertools.product(edge_values(dtype), repeat=2))
  if op in (Ops.IDIV, Ops.MOD): pairs = [(x, y) for x, y in pairs if y != 0 and (x, y) != (dtype.min, -1)]  # traps
  if op in (Ops.SHL, Ops.SHR):
    counts = (0, 1, 5, dtype.bits - 1, dtype.bits, dtype.max)
    pairs = list(itertools.product(edge_values(dtype), counts))
  out = dtypes.bool if op in (Ops.CMPLT, Ops.CMPNE) else dtype
  agree(lambda x, y: x.alu(op, y), out, ([x for x, _ in pairs], dtype), ([y for _, y in pairs], dtype))

@pytest.mark.parametrize("dtype", ARITHMETIC, ids=lambda dt: dt.name)
def test_multiply_add_rounds_once(dtype):
  few = edge_values(dtype)[-9:] + edge_values(dtype)[:3]
  if dtype.kind == "f": few += [1 + 2.0**-10, 1 - 2.0**-10, -1 - 2.0**-12]
  triples = list(itertools.product(few, repeat=3))
  agree(lambda x, y, z: x.alu(Ops.MULACC, y, z), dtype, *[(list(column), dtype) for column in zip(*triples)])

@pytest.mark.parametrize("dtype", [dtypes.float32, dtypes.float64], ids=lambda dt: dt.name)
def test_square_root(dtype): agree(lambda x: x.alu(Ops.SQRT), dtype, (edge_values(dtype), dtype))

def test_where_and_bitcast():
  values = edge_values(dtypes.float32)
  agree(lambda c, x, y: c.where(x, y), dtypes.float32, ([k % 3 == 0 for k in range(len(values))], dtypes.bool),
        (values, dtypes.float32), (values[::-1], dtypes.float32))
  agree(lambda x: x.bitcast(dtypes.int32), dtypes.int32, (values[:-1], dtypes.float32))
  agree(lambda x: x.bitcast(dtypes.float64), dtypes.float64, (edge_values(dtypes.int64)[2:-2], dtypes.int64))

def test_bfloat16_is_moved_as_bits():
  bits = [0, 0x8000, 0x3f80, 0xc0a0, 0x7f80, 1]
  agree(lambda x: x.bitcast(dtypes.uint16), dtypes.uint16, (bits, dtypes.bfloat16))
  gates = [True, False] * 3
  agree(lambda c, x: c.where(x, UOp.const(x.dtype, -2.5)), dtypes.bfloat16,
        (gates, dtypes.bool), (bits, dtypes.bfloat16))

@pytest.mark.parametrize("op", [Ops.ADD, Ops.MUL, Ops.MAX], ids=str)
@pytest.mark.parametrize("dtype", [dtypes.float32, dtypes.float64, dtypes.int32, dtypes.uint8], ids=lambda dt: dt.name)
def test_lanes_are_reduced_in_one_order(op, dtype):
  numbers = np.random.default_rng(1).integers(-30, 130, 16)
  data = array(numbers / 3 if dtype.kind == "f" else abs(numbers), dtype)
  vector = kernels.load(UOp(Ops.PARAM, dtype, (), 1).index(kernels.integer(0)), dtype=dtype.vec(16))
  store = UOp(Ops.PARAM, dtype, (), 0).index(kernels.integer(0)).store(UOp(Ops.REDUCE, dtype, (vector,), (op, ())))
  cpu, python = both("lanes", toposort((store,)), array([0], dtype), data)
  assert cpu == python

def test_stack_and_lanes():
  f32 = dtypes.float32
  vector = kernels.load(kernels.param(1).index(kernels.integer(0)), dtype=f32.vec(4))
  lanes = [UOp(Ops.INDEX, f32, (vector, kernels.integer(k))) for k in (2, 0, 3)]
  mixed = UOp(Ops.STACK, f32.vec(4), (*lanes, UOp.const(f32, 9)))
  store = kernels.param(0).index(kernels.integer(0)).store(mixed)
  cpu, python = both("stack", toposort((store,)), array([0] * 4, f32), array([1, 2, 3, 4], f32))
  np.testing.assert_array_equal(cpu, [3, 1, 4, 9])
  np.testing.assert_array_equal(cpu, python)

def test_masked_bool_and_half():
  for dtype in (dtypes.bool, dtypes.float16, dtypes.bfloat16, dtypes.int64):
    n = 8
    gate = kernels.lane_numbers(n) < kernels.integer(5).stack(n)
    x = kernels.load(UOp(Ops.PARAM, dtype, (), 1).index(kernels.integer(0), gate), dtype=dtype.vec(n))
    store = UOp(Ops.PARAM, dtype, (), 0).index(kernels.integer(0), gate).store(x)
    cpu, python = both("masked", toposort((store,)), array([0] * n, dtype), array([1] * 5 + [0] * 3, dtype)[:5])
    np.testing.assert_array_equal(cpu, [1] * 5 + [0] * 3)
    np.testing.assert_array_equal(cpu, python)

def test_equal_kernels_have_equal_text():
  texts = [render(kernels.flat("k", kernels.matmul_kernel(8, 32, 12))) for _ in range(2)]
  assert texts[0] == texts[1]
