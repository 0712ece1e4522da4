# riscv.py and runtime/riscv.py: every op and cast gives PYTHON's bits; objects link with C; a matmul tile has the code
# that it should; what a kernel must not do is a Python exception.
import itertools, platform, re, shutil, subprocess
from collections import Counter
import numpy as np, pytest
pytest.importorskip("unicorn")
from picograd.codegen import riscv
from picograd.codegen.flat import Builder, new_label, phi
from picograd.codegen.place import place
from picograd.codegen.rvobject import Section, write_object
from picograd.dtype import dtypes
from picograd.helpers import DEVICE
from picograd.ops.ops import Ops
from picograd.ops.spec import verify
from picograd.ops.uop import UOp, toposort
from picograd.runtime.device import device, numpy_dtype
from picograd.runtime.python import PythonProgram
from picograd.runtime.riscv import NativeDevice, NativeProgram, open_device
import linear_kernels as kernels
import riscv_counts
from test_llvmir import BINARY_CASES, array, edge_values, is_lowered
from test_riscv_fuzz import run_riscv

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
    if y == y: agree(lambda x, y=y: x.alu(op, x.like(y)), out, (edge_values(dtype), dtype))

@pytest.mark.parametrize("dtype", (f32, f64, *dtypes.ints), ids=lambda dt: dt.name)
def test_comparisons_choose_and_branch(dtype):
  pairs = list(itertools.product(edge_values(dtype), repeat=2))
  columns = [([x for x, _ in pairs], dtype), ([y for _, y in pairs], dtype)]
  for test in (lambda x, y: x < y, lambda x, y: x >= y, lambda x, y: x.ne(y), lambda x, y: x.eq(y)):
    check_comparison(test, dtype, columns)

def check_comparison(test, dtype, columns):
  agree(lambda x, y: test(x, y).where(x, y), dtype, *columns)
  agree(lambda x, y: test(x, y).where(x, 0) + test(y, x).where(y.like(1), y), dtype, *columns)
  agree(lambda x, y: (test(x, y) & x.ne(0)).cast(i32) + test(y, y).cast(i32), i32, *columns)

@pytest.mark.parametrize("dtype", [f32, f64], ids=lambda dt: dt.name)
def test_multiply_add_rounds_once(dtype):
  few = [1 + 2.0**-10, 1 - 2.0**-10, -1 - 2.0**-12, 0.0, -0.0, 1e30, np.inf, np.nan, 3.0]
  triples = list(itertools.product(few, repeat=3))
  columns = [(list(column), dtype) for column in zip(*triples)]
  for signs in itertools.product([1, -1], repeat=3):
    agree(lambda *values, signs=signs: multiply_add(values, signs), dtype, *columns)

def multiply_add(values, signs):
  x, y, z = [-v if sign < 0 else v for v, sign in zip(values, signs)]
  return x.alu(Ops.MULACC, y, z)

@pytest.mark.parametrize("dtype", [f32, f64], ids=lambda dt: dt.name)
def test_square_root(dtype): agree(lambda x: x.alu(Ops.SQRT), dtype, (edge_values(dtype), dtype))

def test_bitcasts():
  for a, b in itertools.permutations([*dtypes.ints, f32, f64, dtypes.float16], 2):
    if a.bits != b.bits: continue
    values = [x for x in edge_values(a) if x == x]
    agree(lambda x, b=b: x.bitcast(b), b, (values, a))

def test_a_loop_that_two_ways_go_back_in():
  """What the jump back needs may depend on which way was taken."""
  b = Builder("f", [i64, i64], i64)
  head, body, odd, even, join, out = [new_label() for _ in range(6)]
  b.jump(head, UOp.const(i64, 0))
  b.begin(head)
  i = phi(head, 0, i64)
  b.branch(i < b.param(0), body, out)
  b.begin(body)
  b.branch((i & 1).ne(0), odd, even)
  for label, step in ((odd, 1), (even, 3)):
    b.begin(label)
    b.jump(join, UOp.const(i64, step))
  b.begin(join)
  b.jump(head, i * 2 + phi(join, 0, i64))
  b.begin(out)
  b.ret(i)
  fn = place(b.finish())
  verify("placed", fn)
  assert PythonProgram("f", [fn]).run(100, 0) == 127

# ---- objects ---------------------------------------------------------------------------------------------------------

MAIN = """#include <stdio.h>
void tile(float *c, const float *a, const float *b, long thread);
int main(void) {
  static float a[64], b[64], c[64];
  int bad = 0;
  for (int i = 0; i < 64; i++) { a[i] = i % 7 - 3; b[i] = i % 5 - 2; }
  tile(c, a, b, 0);
  for (int i = 0; i < 8; i++) for (int j = 0; j < 8; j++) {
    float s = 0;
    for (int k = 0; k < 8; k++) s += a[8*i + k] * b[8*k + j];
    bad += s != c[8*i + j];
  }
  printf("%d wrong\\n", bad);
  return 0;
}
"""

def test_a_kernel_links_with_a_c_program(tmp_path):
  if shutil.which("qemu-riscv64") is None: pytest.skip("needs qemu-user")
  fn = kernels.flat("tile", kernels.scalar_matmul_kernel(8, 8, 8))
  (tmp_path / "tile.o").write_bytes(write_object([riscv.assemble([fn])]))
  (tmp_path / "main.c").write_text(MAIN)
  subprocess.run(["riscv64-linux-gnu-gcc", "-static", "-o", "main", "main.c", "tile.o"], check=True, cwd=tmp_path)
  out = subprocess.run(["qemu-riscv64", tmp_path / "main"], check=True, capture_output=True, text=True).stdout
  assert out == "0 wrong\n"

def test_the_inner_loop_of_a_matmul_tile():
  """16 accumulators in registers, each step 8 loads with folded offsets and 16 fused multiply-adds."""
  text = riscv.listing(kernels.flat("tile", kernels.scalar_matmul_kernel(64, 64, 64)))
  loop = next(part for part in re.split(r"^L\d+:$", text, flags=re.M) if "fmadd" in part)
  names = Counter(line.split()[2] for line in loop.split("\n") if ":" in line)
  assert names["fmadd.s"] == 16 and names["flw"] + names["c.lw"] == 8
  assert sum(names.values()) <= 16 + 8 + 4 and "sp" not in loop

@pytest.mark.parametrize("name", ["matmul", "softmax", "layernorm", "convolution", "elementwise", "total"])
def test_executed_instructions_and_code_size_beside_llvm(name):
  """At most 1.25 and 1.4 times those of LLVM's back end at O2, from the same flat form."""
  if shutil.which("riscv64-linux-gnu-ld") is None: pytest.skip("needs binutils-riscv64-linux-gnu")
  with DEVICE.set("RISCV"): instructions, size = riscv_counts.totals(riscv_counts.compare(riscv_counts.WORKLOADS[name]))
  assert instructions <= 1.25 and size <= 1.4

def test_a_listing_says_where_the_code_comes_from():
  texts = [riscv.listing(kernels.flat("tile", kernels.scalar_matmul_kernel(8, 8, 8))) for _ in range(2)]
  assert texts[0] == texts[1]
  assert re.search(r"fmadd.s f\w+, f\w+, f\w+, f\w+, dyn +# %\d+ = MULACC float32 %\d+ %\d+ %\d+\n", texts[0])

def test_many_values_that_change_places_in_slots():
  """More slots than an offset of 12 bits reaches, and cycles of moves between them."""
  b = Builder("f", [i64, i64], i64)
  n, head, out = 400, new_label(), new_label()
  b.jump(head, UOp.const(i64, 0), *[b.param(0) + k * k for k in range(n)])
  b.begin(head)
  counter, *values = [phi(head, k, i64) for k in range(n + 1)]
  back = new_label()
  following = [values[k ^ 1] + (values[k ^ 1] >> 3) if k % 7 == 0 else values[k ^ 1] for k in range(n)]
  b.branch(counter < b.param(1), back, out)
  b.begin(back)
  b.jump(head, counter + 1, *following)
  b.begin(out)
  total = UOp.const(i64, 0)
  for v in values: total = total * 31 + v
  b.ret(total)
  fn = b.finish()
  want = PythonProgram("f", [place(fn)]).run(12345, 13)
  assert run_riscv([fn], [12345, 13])[0] == want % (1 << 64)

def test_compiling_takes_time_in_proportion_to_size():
  short, long = riscv_counts.seconds_and_instructions(30), riscv_counts.seconds_and_instructions(120)
  assert long[0] / long[1] < 2.5 * short[0] / short[1]

# ---- what must not be done -------------------------------------------------------------------------------------------

def load_code(name, *lines):
  section = Section(".text")
  for row, *operands in lines: section.emit(row, *operands)
  return device("RISCV").load(name, b"code 1\n" + section.finish().data)

RETURN = ("jalr", 0, 0, 1)
def buffer(nbytes): return device("RISCV").allocate(nbytes)

@pytest.mark.parametrize("nbytes", [4, 12, 64, 400, 4096, 5000])
def test_the_byte_behind_a_buffer_is_out_of_reach(nbytes):
  memory = buffer(nbytes)
  load_code("inside", ("lb", 5, 0, 11), RETURN)([memory, memory[-1:]])
  step = load_code("stray", ("addi", 11, 11, 1), ("lb", 5, 0, 11), RETURN)
  what = rf"read of 1 bytes at address 0x[0-9a-f]+, byte {nbytes} of buffer 0, which has {nbytes} bytes"
  with pytest.raises(IndexError, match=rf"kernel stray: {what}, at 0x2: lb t0, 0\(a1\)"): step([memory, memory[-1:]])

def test_other_buffers_are_out_of_reach():
  mine, other = buffer(64), buffer(64)
  other[:] = 7
  offset = other.ctypes.data - mine.ctypes.data
  code = Section(".text")
  code.number(5, offset)
  code.emit("add", 10, 10, 5)
  code.emit("sd", 0, 0, 10)
  code.emit(*RETURN)
  program = device("RISCV").load("greedy", b"greedy 1\n" + code.finish().data)
  with pytest.raises(IndexError, match="kernel greedy: write of 8 bytes"): program([mine])
  assert (other == 7).all()

def test_an_illegal_instruction():
  program = device("RISCV").load("broken", b"broken 1\n" + bytes(8))
  with pytest.raises(RuntimeError, match="kernel broken: .*, at 0x0: no instruction"): program([buffer(8)])

def test_an_endless_loop(monkeypatch):
  monkeypatch.setattr(device("RISCV"), "seconds", 0.2)
  program = load_code("endless", ("jal", 0, 0), RETURN)
  with pytest.raises(RuntimeError, match="kernel endless did not end within 0.2 s: at 0x0: c.j"): program([buffer(8)])
  load_code("fine", RETURN)([buffer(8)])                             # and the device still works

def test_a_jump_out_of_the_code():
  with pytest.raises(IndexError, match="kernel wild: fetch of"): load_code("wild", ("jalr", 0, 0, 0))([buffer(8)])

# ---- on a riscv64 host ----------------------------------------------------------------------------------------------

@pytest.mark.skipif(platform.machine() != "x86_64", reason="its bytes are x86-64's")
def test_a_native_kernel_gets_its_buffers_and_each_thread():
  """The way of a riscv64 host, with code of this one: ((char *)first)[thread] = 7."""
  memory = np.zeros(4, np.uint8)
  NativeProgram(bytes.fromhex("c6043707c3"), 3)([memory])
  assert memory.tolist() == [7, 7, 7, 0]

def test_a_riscv64_host_runs_its_own_code(monkeypatch):
  monkeypatch.setattr(platform, "machine", lambda: "riscv64")
  dev = open_device("RISCV")
  text = dev.render(kernels.flat("tile", kernels.scalar_matmul_kernel(8, 8, 8)))
  assert isinstance(dev, NativeDevice) and dev.compile(text) == device("RISCV").compile(text)
