# test_c2r5_riscv.py: the programs of test/c2r5 on RISC-V, linked with glibc and run by qemu, do as when the cross gcc
# compiles them.
import io, shutil, subprocess
from pathlib import Path
import pytest
from extra.c2r5.compile import Settings, compile_module, platform
from extra.c2r5.lex import Diagnostics
from extra.c2r5.riscv import object_code

GCC, QEMU = "riscv64-linux-gnu-gcc", "qemu-riscv64"
pytestmark = pytest.mark.skipif(None in (shutil.which(GCC), shutil.which(QEMU)), reason=f"needs {GCC} and {QEMU}")
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
  assert run(tmp_path, tmp_path / "t.o") == run(tmp_path, path)
