# test_c2r5_main.py: the command behaves as cc does: what it preprocesses, which rules for make it writes, what it
# refuses. Compared with this machine's gcc.
import os, shutil, subprocess, sys
from pathlib import Path
import pytest

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc to compare with")
OURS = [sys.executable, "-m", "extra.c2r5", "--host"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parent.parent)}

def run(folder, command, *arguments, text=None):
  """(status, what it printed, messages)"""
  done = subprocess.run([*command, *arguments], cwd=folder, capture_output=True, text=True, input=text, env=ENVIRONMENT)
  return done.returncode, done.stdout, done.stderr

@pytest.fixture
def folder(tmp_path):
  for name in ("inc", "sys", "out"): (tmp_path / name).mkdir()
  (tmp_path / "inc" / "a b.h").write_text("#define A 1\n")
  (tmp_path / "sys" / "s.h").write_text("#define S 2\nstatic int *warned = 5;\n")
  (tmp_path / "pre.h").write_text("#define PRE 3\n")
  (tmp_path / "x.c").write_text('#include "a b.h"\n#include <s.h>\nint main(void) { return A + S; }\n')
  return tmp_path

def rules(folder):
  """What files for make say, and takes them away."""
  found = {}
  for path in [*folder.glob("*.d"), *folder.glob("out/*.d")]:
    found[str(path.relative_to(folder))] = path.read_text().replace("\\\n", " ").split()
    path.unlink()
  return found

DEPENDENCIES = ["-MMD -c x.c", "-MMD -c x.c -o out/y.o", "-MMD x.c", "-MMD x.c -o out/program", "-MM x.c",
                "-MM -MP x.c -MT name", "-E -MMD x.c -o out/z.i", "-MM -MF out/f.d -MQ a$b x.c", "-MMD -S x.c",
                "-MMD -MP -MF out/e.d -c x.c -o out/q.o", "-M x.c"]
@pytest.mark.parametrize("arguments", DEPENDENCIES)
def test_rules_for_make(arguments, folder):
  words = ["-Iinc", "-isystem", "sys", *arguments.split()]
  def written(command):
    status, printed, _ = run(folder, command, *words)
    printed = [w for w in printed.replace("\\\n", " ").split() if "stdc-predef" not in w]
    return status, printed if "-E" not in words else [], rules(folder)
  assert written(OURS) == written(["gcc"])

PREPROCESSED = [
  "-DX", "-DX=4", "-D X=5 -UX", "-UX -DX=6", "-DF(x)=x+1", "-include pre.h", "-include inc/../pre.h -DX", "-std=c99",
  "-std=gnu99", "-std=c89", "-std=gnu89", "-ansi", "-std=c11", "-std=gnu11", "-std=c17", "-std=iso9899:1999",
  "-O2", "-O0"]
@pytest.mark.parametrize("arguments", PREPROCESSED)
def test_preprocessed_as_by_gcc(arguments, folder):
  (folder / "t.c").write_text("X F(2) PRE __STDC_VERSION__ __STRICT_ANSI__ linux unix __OPTIMIZE__ __linux__\n")
  def text(command):
    status, printed, messages = run(folder, command, "-E", *arguments.split(), "t.c")
    assert status == 0, messages
    return "".join(w for line in printed.splitlines() if not line.startswith("#") for w in line.split())
  assert text(OURS) == text(["gcc"])

def test_standard_input(folder):
  status, printed, _ = run(folder, OURS, "-E", "-", text="int x = __LINE__;\n")
  assert status == 0 and "int x = 1;" in printed

def test_warnings_and_errors(folder):
  (folder / "w.c").write_text("int *f(void) { return 5; }\n")
  assert run(folder, OURS, "-fsyntax-only", "w.c")[0] == 0 and not (folder / "w.o").exists()
  status, _, messages = run(folder, OURS, "-Werror", "-c", "w.c")
  assert status == 1 and "w.c:1:16: error: " in messages and "[-Werror]" in messages
  assert run(folder, OURS, "-w", "-c", "w.c")[2] == "" and (folder / "w.o").exists()

@pytest.mark.parametrize("arguments, message", [
  ("-c nothing.c", "nothing.c: No such file or directory"), ("-frobnicate --what x.c", "option '--what'"),
  ("-std=c12 x.c", "option '-std=c12'"), ("x.c -o", "missing argument to '-o'"), ("-c", "no input files"),
  ("-c inc", "inc: is a directory"), ("-c x.c pre.h -o y.o", "with multiple files"),
  ("-Iinc -isystem sys -c x.c -o no/x.o", "cannot write no/x.o"), ("-include none.h -c x.c", "none.h: No such file"),
  ("-Iinc -c x.c", "x.c:2:10: error: s.h: No such file")])
def test_refusals(arguments, message, folder):
  status, _, messages = run(folder, OURS, *arguments.split())
  assert status == 1 and message in messages and "Traceback" not in messages and "internal" not in messages

def test_objects_and_archives(folder):
  (folder / "one.c").write_text("int one(void) { return 40; }\n")
  (folder / "two.s").write_text("\t.globl two\ntwo:\n\tmovl $2, %eax\n\tret\n")
  (folder / "m.c").write_text("int one(void), two(void);\nint main(void) { return one() + two(); }\n")
  assert run(folder, OURS, "-c", "one.c", "two.s")[0] == 0
  subprocess.run(["ar", "rc", "libone.a", "one.o"], cwd=folder, check=True)
  assert run(folder, OURS, "--run", "m.c", "two.o", "-L.", "-lone")[0] == 42
