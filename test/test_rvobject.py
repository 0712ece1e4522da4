# rvobject.py: constants, compressed forms and branches as GNU as makes them; objects link with C, images run.
import random, shutil, subprocess
import pytest
from picograd.codegen.rvasm import ROWS, X, decode
from picograd.codegen.rvobject import Section, disassemble, link, load_number, signed, write_object
from test_rvasm import PER_ROW, assemble, needs_gnu, random_operand

def of_code(*steps):
  section = Section(".text")
  for name, *operands in steps: section.emit(name, *operands)
  return section.finish()

@needs_gnu
def test_compressed_forms_are_chosen_as_gnu_as_does(tmp_path):
  """Operands that a compressed form could hold, and some that it just cannot."""
  rng, chosen = random.Random(3), []
  for row in ROWS.values():
    if row.expands is None or row.name in ("c.jr", "c.jalr"): continue         # GNU as leaves jalr as it is written
    whole, operands = row.expands
    for _ in range(PER_ROW):
      fields = dict(zip(row.names, map(lambda f: random_operand(rng, f), row.fields)))
      values = [fields[o] if o in fields else int(o) for o in operands]
      if values and rng.random() < 0.4:
        k = rng.randrange(len(values))
        values[k] = random_operand(rng, whole.fields[k])
      if not any(f.kind == "p" for f in whole.fields): chosen.append((whole, tuple(values)))
  want = assemble([row.text(ops) for row, ops in chosen], tmp_path, option="rvc")
  got = of_code(*[(row.name, *ops) for row, ops in chosen]).data
  assert [text for _, text in disassemble(got)] == [text for _, text in disassemble(want)]

def run_number(steps):
  """What the steps of load_number leave in a register."""
  x = 0
  for name, operands in steps:
    if name == "lui": x = operands[1] << 12
    elif name == "slli": x = signed(x << operands[2], 64)
    else: x = signed((0 if operands[1] == 0 else x) + operands[2], 32 if name == "addiw" else 64)
  return x

def test_numbers():
  rng = random.Random(4)
  numbers = [0, -1, 2047, 2048, -2049, 1 << 31, (1 << 31) - 1, (1 << 63) - 1, -1 << 63, 0xfffff800, 0x7ffff800]
  numbers += [signed(rng.getrandbits(rng.randint(1, 64)), 64) for _ in range(500)]
  for value in numbers:
    steps = load_number(5, value)
    assert run_number(steps) == value and len(steps) <= 8, value

@needs_gnu
def test_branches_of_every_distance(tmp_path):
  """As GNU as relaxes them: short, long, inverted over a jump."""
  rng = random.Random(5)
  section, lines = Section(".text"), []
  for k in range(60):
    section.label(k)
    lines.append(f"L{k}:")
    for _ in range(rng.choice([1, 10, 100, 1000])):
      section.emit("add", 5, 6, 7)
      lines.append("add t0, t1, t2")
    for _ in range(4):
      target, name = rng.randrange(60), rng.choice(["beq", "bne", "blt", "bgeu"])
      rs1, rs2 = rng.choice([8, 9, 20]), rng.choice([0, 0, 9])
      section.branch(name, rs1, rs2, target)
      section.jump(target)
      lines += [f"{name} {X[rs1]}, {X[rs2]}, L{target}", f"j L{target}"]
  assert disassemble(section.finish().data) == disassemble(assemble(lines, tmp_path, option="rvc"))

def test_a_jump_beyond_a_mebibyte():
  section = Section(".text")
  section.jump("end")
  section.branch("beq", 8, 0, "end")
  section.call("end")
  section.data(bytes(3 << 20))
  section.label("end")
  code = section.finish()
  texts = [decode(code.data, at)[0].text(decode(code.data, at)[1]) for at in (0, 4, 8, 12, 20, 24)]
  assert [t.split()[0] for t in texts[:2]] == ["auipc", "jalr"] and code.labels["end"] == (3 << 20) + 8 + 12 + 8

# ---- objects and images ----------------------------------------------------------------------------------------------

def example():
  """A function that calls C, reads a table through a pointer in .data, and one that is called within the object."""
  text, data, rodata = Section(".text"), Section(".data"), Section(".rodata")
  text.export("weigh")                                     # long weigh(long x) { return table[1] + twice(scale(x)); }
  text.emit("addi", 2, 2, -16)
  text.emit("sd", 1, 8, 2)
  text.call("scale")
  text.call("twice")
  text.address(5, "where")
  text.emit("ld", 5, 0, 5)
  text.emit("ld", 5, 0, 5)
  text.emit("add", 10, 10, 5)
  text.emit("ld", 1, 8, 2)
  text.emit("addi", 2, 2, 16)
  text.emit("jalr", 0, 0, 1)
  text.label("twice")
  text.emit("add", 10, 10, 10)
  text.emit("jalr", 0, 0, 1)
  data.label("where")
  data.pointer("table", 8)
  rodata.align(8)
  rodata.label("table")
  rodata.data((1).to_bytes(8, "little") + (1000).to_bytes(8, "little"))
  return [section.finish() for section in (text, data, rodata)]

@needs_gnu
def test_an_object_links_with_c(tmp_path):
  if shutil.which("qemu-riscv64") is None: pytest.skip("needs qemu-user")
  (tmp_path / "ours.o").write_bytes(write_object(example()))
  (tmp_path / "main.c").write_text("#include <stdio.h>\nlong weigh(long); long scale(long x) { return 7 * x; }\n"
                                   'int main(void) { printf("%ld", weigh(3)); return 0; }\n')
  subprocess.run(["riscv64-linux-gnu-gcc", "-static", "-o", "a.out", "main.c", "ours.o"], check=True, cwd=tmp_path)
  out = subprocess.run(["qemu-riscv64", tmp_path / "a.out"], check=True, capture_output=True, text=True).stdout
  assert out == "1042"
  warned = subprocess.run(["riscv64-linux-gnu-ld", "-r", "-o", tmp_path / "again.o", tmp_path / "ours.o"],
                          check=True, capture_output=True, text=True)
  assert warned.stderr == ""

def test_an_image_runs():
  unicorn = pytest.importorskip("unicorn")
  from unicorn import riscv_const
  base = 0x10000
  text, *rest = example()
  scale = Section(".text")
  scale.label("scale")
  scale.number(5, 7)
  scale.emit("mul", 10, 10, 5)
  scale.emit("jalr", 0, 0, 1)
  image, symbols = link([text, scale.finish(), *rest], base, {})
  machine = unicorn.Uc(unicorn.UC_ARCH_RISCV, unicorn.UC_MODE_RISCV64)
  machine.mem_map(base, 0x10000)
  machine.mem_write(base, image)
  for register, value in ((riscv_const.UC_RISCV_REG_SP, base + 0x8000), (riscv_const.UC_RISCV_REG_RA, base + 0x9000),
                          (riscv_const.UC_RISCV_REG_A0, 3)): machine.reg_write(register, value)
  machine.emu_start(symbols["weigh"], base + 0x9000)
  assert machine.reg_read(riscv_const.UC_RISCV_REG_A0) == 1042

def test_a_symbol_that_nothing_defines():
  section = Section(".text")
  section.call("nowhere")
  with pytest.raises(ValueError, match="nothing defines the symbol nowhere"): link([section.finish()], 0, {})
