# rvv.py: kernels with vectors run under qemu-user and are right at every VLEN, and execute fewer instructions than
# scalar code; what no vector instruction does is done lane by lane.
import shutil
import numpy as np, pytest
pytest.importorskip("unicorn")
import picograd as pg
import picograd.nn.functional as F
from picograd.dtype import dtypes
from picograd.helpers import RISCV_ARCH
from picograd.ops.ops import Ops
from picograd.ops.uop import UOp, toposort
from picograd.runtime.device import device, numpy_dtype
from test_llvmir import array, edge_values
import linear_kernels as kernels

pytestmark = pytest.mark.skipif(shutil.which("qemu-riscv64") is None, reason="needs qemu-user")
f32 = dtypes.float32

@pytest.fixture(params=[128, 256, 512])
def vectors(request):
  with RISCV_ARCH.set("rv64gcv"): where = device("RISCV:7")
  where.vlen = request.param
  return where

def values(*shape, where="RISCV:7"):
  data = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
  return data, pg.tensor(data, device=where)

def softmax(x):
  e = np.exp(x.astype(np.float64) - x.max(1, keepdims=True))
  return e / e.sum(1, keepdims=True)

CASES = {
  "matmul": (lambda x: x @ x, lambda a: a.astype(np.float64) @ a, (40, 40)),
  "softmax": (lambda x: x.softmax(1), softmax, (16, 64)),
  "elementwise": (lambda x: x.relu() * 2 - x / 3, lambda a: np.maximum(a, 0) * 2 - a / 3, (31, 33)),
  "exponential": (lambda x: x.exp(), np.exp, (64, 64)),
  "sum": (lambda x: x.sum(), np.sum, (64, 64)), "rows": (lambda x: x.sum(1), lambda a: a.sum(1), (16, 64)),
  "columns": (lambda x: x.sum(0), lambda a: a.sum(0), (64, 40)), "largest": (lambda x: x.max(), np.max, (64, 64)),
  "choice": (lambda x: pg.where(x > 0, x, x * -2), lambda a: np.where(a > 0, a, a * -2), (32, 32)),
  "transposed": (lambda x: x.T.contiguous(), lambda a: a.T, (32, 40)),
  "padded": (lambda x: F.pad(x, (3, 2)) * 2, lambda a: np.pad(a, ((0, 0), (3, 2))) * 2, (9, 17)),
  "joined": (lambda x: pg.cat([x.roll(3, 1), x.flip(0)], 1), lambda a: np.hstack([np.roll(a, 3, 1), a[::-1]]), (8, 33)),
  "part": (lambda x: F.pad(x, (-1, 4)).tril().bool(), lambda a: np.tril(np.pad(a[:, 1:], ((0, 0), (0, 4)))) != 0,
           (9, 20)),
  "half": (lambda x: (x.half() * 2).float(), lambda a: a.astype(np.float16) * 2, (16, 33)),
  "double": (lambda x: (x @ x).double(), lambda a: a.astype(np.float64) @ a, (32, 32)),
  "integers": (lambda x: (x * 100).int() % 7 + (x > 0).int(), lambda a: np.fmod((a * 100).astype(np.int32), 7) + (a > 0)
               + 7 * (np.fmod((a * 100).astype(np.int32), 7) < 0), (16, 24)),
}

@pytest.mark.parametrize("name", CASES)
def test_right_at_every_vlen(vectors, name):
  compute, expected, shape = CASES[name]
  data, x = values(*shape)
  np.testing.assert_allclose(compute(x).numpy(), expected(data), rtol=1e-4, atol=1e-4)

@pytest.mark.parametrize("name", ["softmax", "elementwise", "exponential", "sum", "rows"])
def test_executed_instructions(name):
  with RISCV_ARCH.set("rv64gcv"): fast = device("RISCV:7")
  fast.vlen, fast.count_instructions, fast.executed = 256, True, 0
  compute, _, shape = CASES[name]
  shape = (32, 64) if name == "elementwise" else shape
  try: compute(values(*shape)[1]).numpy()
  finally: fast.count_instructions = False
  scalar = device("RISCV")
  with scalar.counting() as blocks: compute(values(*shape, where="RISCV")[1]).numpy()
  ratio = fast.executed / scalar.instructions(blocks)
  print(f"{name}: {fast.executed} instructions, {ratio:.2f} of scalar's")
  assert ratio <= 0.35

ARITHMETIC = [Ops.ADD, Ops.MUL, Ops.MAX, Ops.CMPLT, Ops.CMPNE, Ops.AND, Ops.OR, Ops.XOR, Ops.FDIV, Ops.SHL, Ops.SHR]
@pytest.mark.parametrize("dtype", [f32, dtypes.float64, dtypes.int32, dtypes.uint32, dtypes.int64, dtypes.uint8],
                         ids=lambda dt: dt.name)
def test_lanes_are_what_python_says(vectors, dtype):
  """Every operation on 4 lanes, with a vector and with one scalar for all lanes."""
  numbers = array(edge_values(dtype), dtype)
  x, y = [np.resize(np.roll(numbers, k), 4 * len(numbers)) for k in (0, 3)]
  ops = [op for op in ARITHMETIC if (op is Ops.FDIV) <= (dtype.kind == "f") and
         (op in (Ops.AND, Ops.OR, Ops.XOR, Ops.SHL, Ops.SHR)) <= (dtype.kind != "f")]
  i = kernels.loop(len(x) // 4)
  loads = [kernels.load(UOp(Ops.PARAM, dtype, (), 1 + k).index(i * 4), dtype=dtype.vec(4)) for k in (0, 1)]
  results = []
  for op in ops:
    other = UOp.const(dtype.vec(4), 3) if op in (Ops.SHL, Ops.SHR) else loads[1]
    made = loads[0].alu(op, other)
    results.append(made.where(loads[0], loads[1]) if made.dtype.scalar is dtypes.bool else made)
  out = UOp(Ops.PARAM, dtype, (), 0)
  stores = [out.index(i * 4 + k * len(x)).store(value) for k, value in enumerate(results)]
  fn = kernels.flat("lanes", toposort((UOp(Ops.END, dtypes.void, (*stores, i)),)))
  got = []
  for where in (vectors, device("PYTHON")):
    got.append(np.zeros(len(x) * len(ops), numpy_dtype(dtype)))
    where.load("lanes", where.compile(where.render(fn)))([a.reshape(-1).view(np.uint8) for a in (got[-1], x, y)])
  np.testing.assert_array_equal(*got)

def test_an_endless_loop_ends():
  with RISCV_ARCH.set("rv64gcv"): where = device("RISCV:6")
  where.seconds = 0.5
  program = where.load("endless", b"endless 1\n" + bytes.fromhex("01a0"))                # c.j .
  with pytest.raises(RuntimeError, match="kernel endless under qemu did not end within 0.5 s"):
    program([where.allocate(8)])
