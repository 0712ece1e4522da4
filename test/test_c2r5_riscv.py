# test_c2r5_riscv.py: the programs of test/c2r5 on RISC-V, linked with glibc and run by qemu, do as when the cross gcc
# compiles them; as objects and as assembly.
import io, os, shutil, subprocess, sys
from pathlib import Path
import pytest
from extra.bench import c
from extra.c2r5.compile import Settings, compile_module, platform
from extra.c2r5.lex import Broken, Diagnostics
from extra.c2r5.riscv import assembly, object_code, sections

GCC, QEMU = "riscv64-linux-gnu-gcc", "qemu-riscv64"
pytestmark = pytest.mark.skipif(None in (shutil.which(GCC), shutil.which(QEMU)), reason=f"needs {GCC} and {QEMU}")
ROOT = Path(__file__).resolve().parent.parent
PROGRAMS = sorted((Path(__file__).parent / "c2r5").glob("*.c"))


def run(tmp_path, given):
  program = tmp_path / "program"
  subprocess.run([GCC, "-w", "-static", "-o", str(program), str(given), "-lm"], check=True)
  done = subprocess.run([QEMU, str(program)], capture_output=True, timeout=60)
  return done.returncode, done.stdout.decode()

@pytest.mark.parametrize("level", [0, 2])
@pytest.mark.parametrize("path", PROGRAMS, ids=lambda p: p.stem)
def test_programs_do_as_with_the_cross_gcc(path, level, tmp_path):
  out = io.StringIO()
  module = compile_module(str(path), Settings(platform("riscv64"), level), Diagnostics(out))
  assert module is not None, out.getvalue()
  (tmp_path / "t.o").write_bytes(object_code(module, level))
  (tmp_path / "t.s").write_text(assembly(module, level))
  expected = run(tmp_path, path)
  assert run(tmp_path, tmp_path / "t.o") == expected
  assert run(tmp_path, tmp_path / "t.s") == expected
  subprocess.run([GCC, "-c", "-o", tmp_path / "s.o", tmp_path / "t.s"], check=True)
  assert sizes_of_sections(tmp_path / "s.o") == sizes_of_sections(tmp_path / "t.o")

def sizes_of_sections(path):
  """Sixteens of bytes of what is loaded, by name: GNU as fills sections up."""
  listed = subprocess.run(["riscv64-linux-gnu-size", "-A", path], capture_output=True, text=True, check=True).stdout
  rows = [line.split() for line in listed.splitlines() if line.startswith(".") and "attributes" not in line]
  return {name: -(-int(size) // 16) for name, size, _ in rows if int(size)}

# ---- how much code runs ----------------------------------------------------------------------------------------------

@pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc for QEMU's plugin")
@pytest.mark.parametrize("name, most", [("queens", 1.15), ("machine", 1.0), ("matmul", 1.1), ("words", 1.1),
                                        ("mandelbrot", 1.2), ("nbody", 1.05), ("sort", 1.1)])
def test_executed_instructions_beside_gcc(name, most, tmp_path):
  """Of the benchmarks' programs at -O2: at most so many times gcc's."""
  path = c.HERE / f"{name}.c"
  c.build_counter(tmp_path)
  module = compile_module(str(path), Settings(platform("riscv64"), 2), Diagnostics(io.StringIO()))
  (tmp_path / "t.o").write_bytes(object_code(module, 2))
  subprocess.run([GCC, "-static", "-o", tmp_path / "ours", tmp_path / "t.o", "-lm"], check=True)
  subprocess.run([*c.GCC, "-O2", "-o", tmp_path / "theirs", path, "-lm"], check=True)
  (ours, output), (theirs, expected) = [c.executed(tmp_path / program, tmp_path) for program in ("ours", "theirs")]
  assert output == expected and ours <= most * theirs

# ---- the command -----------------------------------------------------------------------------------------------------

def command(folder, *arguments):
  return subprocess.run([sys.executable, "-m", "extra.c2r5", *arguments], capture_output=True, text=True,
                        env={**os.environ, "PYTHONPATH": str(ROOT)}, cwd=folder)

def test_several_files_are_compiled_at_once(tmp_path):
  (tmp_path / "a.c").write_text("int twice(int);\nint main(void) { return twice(21); }\n")
  (tmp_path / "b.c").write_text("int twice(int x) { return 2 * x; }\n")
  assert command(tmp_path, "-j2", "-static", "--run", "a.c", "b.c").returncode == 42
  (tmp_path / "b.c").write_text("int twice(int x) { return 2 * y; }\n")
  failed = command(tmp_path, "-j", "-c", "a.c", "b.c")
  assert failed.returncode == 1 and "b.c:1:" in failed.stderr and (tmp_path / "a.o").exists()

@pytest.mark.parametrize("flag", ["-fwrapv", "-fno-strict-overflow"])
def test_signed_numbers_wrap_where_they_are_told_to(flag, tmp_path):
  (tmp_path / "wrap.c").write_text("""int printf(const char *, ...);
    __attribute__((noinline)) char *next(char *at, int i) { return at + (i + 1); }
    volatile int last = 2147483647;
    int main(void) { static char here; printf("%ld", (long)(next(&here, last) - &here)); }""")
  assert command(tmp_path, "-O2", flag, "-static", "--run", "wrap.c").stdout == "-2147483648"

def test_assembly_outside_of_functions_is_kept(tmp_path):
  text = 'asm(".globl five\\nfive: li a0, 5\\nret");\nint five(void);\nint main(void) { return five(); }\n'
  (tmp_path / "a.c").write_text(text)
  assert command(tmp_path, "-static", "--run", "a.c").returncode == 5
  assert command(tmp_path, "-S", "a.c").returncode == 0 and "five: li a0, 5" in (tmp_path / "a.s").read_text()

# ---- lines of code ---------------------------------------------------------------------------------------------------

STEPS = """int printf(const char *, ...);
static int square(int x) {
  return x * x;
}
int main(void) {
  int total = 0;
  for (int i = 0;
       i < 3;
       i++) {
    total += square(i);
  }
  printf("%d\\n", total);
  return 0;
}
"""

@pytest.mark.parametrize("level, lines", [(0, {2, 3, 5, 6, 7, 8, 9, 10, 12, 13}), (2, {5, 12})])
def test_line_tables(level, lines, tmp_path):
  (tmp_path / "steps.c").write_text(STEPS)
  assert command(tmp_path, f"-O{level}", "-g", "-c", "steps.c").returncode == 0
  dump = ["riscv64-linux-gnu-objdump", "--dwarf=decodedline", "steps.o"]
  printed = subprocess.run(dump, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
  found = {int(row[1]) for row in map(str.split, printed.splitlines()) if row[:1] == ["steps.c"] and row[1] != "-"}
  assert lines <= found and (level or found == lines)
  if shutil.which("gdb-multiarch") is None: return
  said = subprocess.run(["gdb-multiarch", "-batch", "-ex", "info line main", "-ex", "break steps.c:12", "steps.o"],
                        cwd=tmp_path, capture_output=True, text=True).stdout
  assert 'Line 5 of "steps.c"' in said and "file steps.c, line 12" in said

def test_faults_of_the_compiler_name_the_function_and_the_line(tmp_path, monkeypatch):
  (tmp_path / "steps.c").write_text(STEPS)
  settings, out = Settings(platform("riscv64"), 2), Diagnostics(io.StringIO())
  def fail(*arguments, **more): raise KeyError("x")
  module = compile_module(str(tmp_path / "steps.c"), settings, out)
  with monkeypatch.context() as m, pytest.raises(Broken, match=r"KeyError: 'x' \(in function 'main', .*steps.c:5\)"):
    m.setattr("extra.c2r5.riscv.assemble", fail)
    sections(module, 2)
  with monkeypatch.context() as m, pytest.raises(Broken, match=r"in function 'main', .*steps.c:10\)"):
    m.setattr("extra.c2r5.lower.Lowering.compute", fail)
    compile_module(str(tmp_path / "steps.c"), settings, out)
  with monkeypatch.context() as m, pytest.raises(Broken, match=r"reading .*steps.c:9\)"):
    m.setattr("extra.c2r5.tree.Trees.step", fail)
    compile_module(str(tmp_path / "steps.c"), settings, out)
