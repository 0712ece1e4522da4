# test_riscv_fuzz.py: random flat programs, with loops, calls, stack arguments, arrays and every integer and float type,
# give on RISCV what the interpreter of the flat form gives, and keep the registers that a function must keep. A program
# is made from a list of numbers; one that fails is shown after shrinking it.  python test/test_riscv_fuzz.py COUNT SEED
import os, random, shutil, subprocess, sys
import pytest
pytest.importorskip("unicorn")
from picograd.codegen import riscv
from picograd.codegen.flat import Builder, mem2reg, new_label
from picograd.codegen.place import place
from picograd.codegen.rvobject import link, write_object
from picograd.dtype import dtypes
from picograd.ops.ops import Ops
from picograd.ops.show import show
from picograd.ops.uop import UOp
from picograd.runtime.device import device
from picograd.runtime.python import PythonProgram

TYPES = dtypes.ints + (dtypes.float32, dtypes.float64)
INTERESTING = (0, 1, -1, 2, 3, 7, 8, 255, 2047, 2048, -2048, -2049, 1 << 31, (1 << 63) - 1, -1 << 63, 0x12345678)
FLOATS = (0.0, 1.0, -1.5, 0.1, 1e10, -3e38, 1e-40, 2.5)

INTEGER_OPS = [Ops.ADD, Ops.MUL, Ops.AND, Ops.OR, Ops.XOR, Ops.SHL, Ops.SHR, Ops.IDIV, Ops.MOD, Ops.MAX, None]

class Choices:
  """The numbers a program is made from; behind their end come zeros."""
  def __init__(self, numbers): self.numbers, self.at = numbers, 0
  def below(self, n):
    value = self.numbers[self.at] if self.at < len(self.numbers) else 0
    self.at += 1
    return value % n
  def pick(self, items): return items[self.below(len(items))]

class Maker:
  """Writes one function. callees: (name, parameter dtypes, result dtype) of those it may call."""
  def __init__(self, choices, name, params, result, callees):
    self.choices, self.callees, self.result = choices, callees, result
    self.b = Builder(name, params, result)
    self.budget = 12 + choices.below(60)                             # statements
    self.variables = {dt: [self.b.var(dt) for _ in range(1 + choices.below(4))] for dt in TYPES}
    self.array = self.b.var(dtypes.int64, choices.pick([4, 16, 512]))
    for dt, variables in self.variables.items():
      for v in variables: self.b.set(v, self.constant(dt))
    for k in range(self.array.arg.size if self.array.arg.size < 100 else 4):
      self.b.store(self.element(UOp.const(dtypes.int64, k)), UOp.const(dtypes.int64, k))
    for k, dt in enumerate(params):
      if dt in TYPES: self.b.set(choices.pick(self.variables[dt]), self.b.param(k))

  def element(self, index): return UOp(Ops.ADD, dtypes.ptr, (self.array, index * 8))
  def constant(self, dt):
    if dt.kind == "f": return UOp.const(dt, self.choices.pick(FLOATS))
    return UOp.const(dt, self.choices.pick(INTERESTING))
  def variable(self, dt): return self.b.get(self.choices.pick(self.variables[dt]))

  def value(self, dt, depth=0):
    kind = self.choices.below(10) if depth < 4 else self.choices.below(2)
    if kind <= 0: return self.variable(dt)
    if kind == 1: return self.constant(dt)
    x = self.value(dt, depth + 1)
    if kind == 2: return self.value(self.choices.pick(TYPES), depth + 1).cast(dt)
    if kind == 3: return self.condition(depth + 1).where(x, self.value(dt, depth + 1))
    if kind == 4 and dt is dtypes.int64:
      return self.b.load(self.element(x & (min(self.array.arg.size, 4) - 1)), dt)
    y = self.value(dt, depth + 1)
    if dt.kind == "f":
      op = self.choices.pick([Ops.ADD, Ops.MUL, Ops.FDIV, Ops.MAX, Ops.SQRT, Ops.MULACC, Ops.ADD])
      others = [y, self.value(dt, depth + 1)] if op is Ops.MULACC else [] if op is Ops.SQRT else [y]
      return x.alu(op, *others)
    op = self.choices.pick(INTEGER_OPS)
    if op is None: return x - y
    return x.alu(op, y | 1 if op in (Ops.IDIV, Ops.MOD) else y)

  def condition(self, depth=0):
    dt = self.choices.pick(TYPES)
    x, y, kind = self.value(dt, depth + 1), self.value(dt, depth + 1), self.choices.below(5)
    if kind == 4: return (x < y) & self.condition(depth + 1) if depth < 4 else x < y
    return (x < y, x.ne(y), x.eq(y), x >= y)[kind]

  def block(self, depth):
    for _ in range(1 + self.choices.below(4)): self.statement(depth)

  def statement(self, depth):
    self.budget -= 1
    kind = self.choices.below(9) if self.budget > 0 and depth < 4 else 0
    dt = self.choices.pick(TYPES)
    if kind <= 3: self.b.set(self.choices.pick(self.variables[dt]), self.value(dt))
    elif kind == 4: self.b.store(self.element(self.value(dtypes.int64) & 3), self.value(dtypes.int64))
    elif kind == 5 and self.callees: self.call()
    elif kind == 6: self.loop(depth)
    else: self.choice(depth)

  def call(self):
    name, params, result = self.choices.pick(self.callees)
    arguments = [self.value(dt, 2) for dt in params]
    self.b.set(self.choices.pick(self.variables[result]), self.b.call(name, *arguments, dtype=result))

  def choice(self, depth):
    yes, no, join = new_label(), new_label(), new_label()
    self.b.branch(self.condition(), yes, no)
    self.b.begin(yes)
    self.block(depth + 1)
    self.b.jump(join)
    self.b.begin(no)
    if self.choices.below(2): self.block(depth + 1)
    self.b.start(join)

  def loop(self, depth):
    counter, head, body, out = self.b.var(dtypes.int32), new_label(), new_label(), new_label()
    self.b.set(counter, UOp.const(dtypes.int32, 0))
    self.b.start(head)
    self.b.branch(self.b.get(counter) < self.choices.below(4), body, out)
    self.b.begin(body)
    self.block(depth + 1)
    if self.choices.below(3) == 0:
      stay = new_label()
      self.b.branch(self.condition(), out, stay)
      self.b.begin(stay)
    self.b.set(counter, self.b.get(counter) + 1)
    self.b.jump(head)
    self.b.begin(out)

  def finish(self):
    self.block(0)
    self.block(0)
    total = self.b.load(self.element(UOp.const(dtypes.int64, 1)), dtypes.int64)
    for variables in self.variables.values():
      for v in variables: total = total * 31 + self.b.get(v).cast(dtypes.int64)
    self.b.ret(total.cast(self.result))
    return mem2reg(self.b.finish())

def make_program(numbers):
  """Functions; the first is called with two int64."""
  choices = Choices(numbers)
  callees = [(f"g{k}", [choices.pick(TYPES) for _ in range(choices.pick([1, 3, 12, 24]))], choices.pick(TYPES))
             for k in range(choices.below(4))]
  main = Maker(choices, "f", [dtypes.int64] * 2, dtypes.int64, callees).finish()
  others = [Maker(choices, name, params, result, callees[:k]).finish()
            for k, (name, params, result) in enumerate(callees)]
  return [main, *others]

SAVED = (8, 9, *range(18, 28))

def run_riscv(functions, arguments):
  dev = device("RISCV")
  code = riscv.assemble(functions)
  image, symbols = link([code], dev.free_code, {})
  assert symbols["f"] == dev.free_code
  header = b"f 1\n"
  start = dev.free_code
  program = dev.load("f", header + image)
  dev.free_code = start                                              # the next program takes its place
  machine, first, floats = dev.machine, dev.registers.UC_RISCV_REG_X0, dev.registers.UC_RISCV_REG_F0
  for r in SAVED:
    machine.reg_write(first + r, 1000 + r)
    machine.reg_write(floats + r, 2000 + r)
  program.run([], arguments)
  kept = all(machine.reg_read(first + r) == 1000 + r and machine.reg_read(floats + r) == 2000 + r for r in SAVED)
  return machine.reg_read(first + 10), kept, len(image)

def wrong(numbers):
  """What a program made from these numbers does wrong on RISCV; None if nothing."""
  functions = make_program(numbers)
  arguments = [12345, (1 << 64) - 7]
  want = PythonProgram("f", [place(fn) for fn in functions]).run(12345, -7)
  try: got, kept, _ = run_riscv(functions, arguments)
  except Exception as e: return f"{type(e).__name__}: {e}"
  if got != want % (1 << 64): return f"gives {got:#x}, not {want % (1 << 64):#x}"
  return None if kept else "changes a register that it must keep"

def shrink(numbers):
  """A shorter list that still goes wrong: without pieces, then with smaller numbers."""
  size = len(numbers) // 2
  while size:
    at = 0
    while at < len(numbers):
      shorter = numbers[:at] + numbers[at + size:]
      if wrong(shorter): numbers = shorter
      else: at += size
    size //= 2
  for at in range(len(numbers)):
    simpler = [*numbers[:at], 0, *numbers[at + 1:]]
    if numbers[at] and wrong(simpler): numbers = simpler
  return numbers

def numbers_of(seed):
  rng = random.Random(seed)
  return [rng.getrandbits(16) for _ in range(rng.choice([50, 300, 1500]))]

def check(seed):
  numbers = numbers_of(seed)
  message = wrong(numbers)
  if message is None: return
  small = shrink(numbers)
  text = "\n".join(show(fn) for fn in make_program(small))
  pytest.fail(f"seed {seed}: {message}; after shrinking: {wrong(small)}\n{text}\n{small}")

@pytest.mark.parametrize("seed", [*range(60), 3002341])           # the last passes a ninth float, a constant
def test_random_program(seed): check(seed)

@pytest.mark.skipif(shutil.which("qemu-riscv64") is None, reason="needs qemu-user")
@pytest.mark.parametrize("extensions", [(), ("zba", "zbb")], ids=["rv64gc", "bits"])
def test_programs_link_with_c_and_run_under_qemu(tmp_path, extensions):
  """qemu checks what unicorn does not, such as the upper half of a float32."""
  sections, declarations, checks = [], [], []
  for seed in range(1000, 1040):
    functions = make_program(numbers_of(seed))
    want = PythonProgram("f", [place(fn) for fn in functions]).run(12345, -7) % (1 << 64)
    (tmp_path / f"f{seed}.o").write_bytes(write_object([riscv.assemble(functions, frozenset(extensions))]))
    sections.append(f"f{seed}.o")
    renamed = [flag for fn in functions for flag in ("--redefine-sym", f"{fn.name}={fn.name}_{seed}")]
    subprocess.run(["riscv64-linux-gnu-objcopy", *renamed, f"f{seed}.o"], check=True, cwd=tmp_path)
    declarations.append(f"long f_{seed}(long, long);")
    checks.append(f"if ((unsigned long)f_{seed}(12345, -7) != {want}ul) printf(\"{seed} \");")
  text = "\n".join(["#include <stdio.h>", *declarations, "int main(void) {", *checks, "return 0; }"])
  (tmp_path / "main.c").write_text(text)
  subprocess.run(["riscv64-linux-gnu-gcc", "-static", "-o", "main", "main.c", *sections], check=True, cwd=tmp_path)
  done = subprocess.run(["qemu-riscv64", "main"], check=True, capture_output=True, cwd=tmp_path,
                        env={**os.environ, "QEMU_CPU": "rv64,zba=true,zbb=true"})
  assert done.stdout == b""

if __name__ == "__main__":
  count, first = int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0
  for seed in range(first, first + count):
    check(seed)
    if seed % 500 == 499: print(seed + 1 - first, "programs agree", flush=True)
