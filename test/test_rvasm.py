# rvasm.py against GNU as: every row of the table, printed with random operands, assembles to the bytes that we encode,
# and decodes back.
import random, shutil, subprocess
import pytest
from picograd.codegen.rvasm import ROWS, decode

AS = shutil.which("riscv64-linux-gnu-as")
needs_gnu = pytest.mark.skipif(AS is None, reason="needs binutils-riscv64-linux-gnu")
PER_ROW = 60

def random_operand(rng, field):
  """Often an end of the field's domain, or near zero."""
  domain = field.domain
  while True:
    value = rng.choice([domain[0], domain[-1], rng.choice(domain), rng.choice(domain), domain[min(1, len(domain) - 1)]])
    if field.allows(value): return value

def random_instructions(rng, row):
  return [tuple(random_operand(rng, f) for f in row.fields) for _ in range(PER_ROW if row.fields else 1)]

def assemble(lines, folder, arch="rv64gcv_zba_zbb", option="norvc"):
  """The bytes of a text section, by GNU as."""
  source, out, raw = folder / "a.s", folder / "a.o", folder / "a.bin"
  source.write_text(f".option norelax\n.option {option}\n" + "\n".join(lines) + "\n")
  subprocess.run([AS, f"-march={arch}", "-o", out, source], check=True)
  subprocess.run(["riscv64-linux-gnu-objcopy", "-O", "binary", "-j", ".text", out, raw], check=True)
  return raw.read_bytes()

@needs_gnu
@pytest.mark.parametrize("size", [2, 4])
def test_every_row_is_what_gnu_as_makes(size, tmp_path):
  rng = random.Random(size)
  chosen = [(row, ops) for row in ROWS.values() if row.size == size for ops in random_instructions(rng, row)]
  data = assemble([row.text(ops) for row, ops in chosen], tmp_path, option="rvc" if size == 2 else "norvc")
  assert len(data) == size * len(chosen)
  for k, (row, ops) in enumerate(chosen):
    theirs, ours = data[k * size:k * size + size], row.encode(*ops)
    assert ours == theirs, f"{row.text(ops)}: {ours[::-1].hex()}, GNU as makes {theirs[::-1].hex()}"

@pytest.mark.parametrize("name", sorted(ROWS))
def test_decoding_gives_back_what_was_encoded(name):
  for ops in random_instructions(random.Random(name), ROWS[name]):
    code = ROWS[name].encode(*ops)
    assert decode(code) == (ROWS[name], ops), ROWS[name].text(ops)

def test_rows_do_not_overlap():
  """No word belongs to two rows, except where an operand is forbidden in one of them."""
  rows = list(ROWS.values())
  for a in rows:
    for b in rows:
      if a is b or a.size != b.size or any(f.forbidden for f in a.fields + b.fields): continue
      assert (a.match ^ b.match) & a.mask & b.mask, f"{a.name} and {b.name}"

@pytest.mark.parametrize("name, operands, message", [
  ("addi", (1, 2, 2048), "addi cannot hold 2048 as imm"), ("beq", (1, 2, 3), "beq cannot hold 3 as branch"),
  ("lui", (1, 1 << 20), "lui cannot hold 1048576 as upper"), ("c.mv", (0, 3), "c.mv cannot hold 0 as cd"),
  ("add", (32, 0, 0), "add cannot hold 32 as rd")])
def test_operands_out_of_range(name, operands, message):
  with pytest.raises(ValueError, match=message): ROWS[name].encode(*operands)
