# test_c2r5_run.py: small programs, one for each part of the language (test/c2r5/*.c), compiled by c2r5 --host without
# and with optimisation. Each prints what it finds and must do as it does when gcc compiles it. Functions that pass and
# return all kinds of structures are compiled half by gcc, half by us.
import io, shutil, subprocess, sys
from pathlib import Path
import pytest
from extra.c2r5.compile import Host, Settings, compile_module, host_text, optimized, platform
from extra.c2r5.lex import Diagnostics
from picograd.ops.spec import verify

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc, to link and to compare")
PROGRAMS = sorted((Path(__file__).parent / "c2r5").glob("*.c"))

def object_of(path, level, *defines):
  out = io.StringIO()
  module = compile_module(str(path), Settings(platform("x86_64"), level, defines), Diagnostics(out))
  assert module is not None, out.getvalue()
  for fn in module.functions: verify("flat", fn)
  return module, Host(level).object_code(host_text(module, level))

def link_and_run(tmp_path, *inputs):
  program = tmp_path / "program"
  subprocess.run(["gcc", "-w", "-o", str(program), *map(str, inputs), "-lm"], check=True)
  done = subprocess.run([str(program)], capture_output=True, timeout=20)
  return done.returncode, done.stdout.decode()

@pytest.fixture(scope="session")
def expected(tmp_path_factory):
  known = {}
  def run(path):
    if path not in known: known[path] = link_and_run(tmp_path_factory.mktemp("gcc"), path)
    return known[path]
  return run

@pytest.mark.parametrize("level", [0, 2])
@pytest.mark.parametrize("path", PROGRAMS, ids=lambda p: p.stem)
def test_programs_do_as_with_gcc(path, level, tmp_path, expected):
  _, code = object_of(path, level)
  (tmp_path / "t.o").write_bytes(code)
  assert link_and_run(tmp_path, tmp_path / "t.o") == expected(path)

STRUCTS = [
  "char c", "short s; char c", "int a, b, c", "long l; char c", "float f", "double d", "float f, g", "float f, g, h",
  "float f; int i", "double d; int i", "int i; double d", "double d, e", "double d, e, f", "char c[16]", "char c[17]",
  "char c[3]", "long a, b", "long a, b, c", "union { int i; float f; } u", "struct { float f; } s; char c",
  "unsigned a : 3, b : 20; float f", "long double v", "void *p; float f; float g", "short s[5]", "float f[2]; char c"]

TYPES = """
struct s@ { MEMBERS; };
union u@ { struct s@ s; unsigned char b[sizeof(struct s@)]; };
struct s@ f@(struct s@ a, int x, struct s@ b, double y, struct s@ c, char z, struct s@ d, float w);
int v@(int n, ...);
#if WHO == 1
struct s@ f@(struct s@ a, int x, struct s@ b, double y, struct s@ c, char z, struct s@ d, float w) {
  int same = !memcmp(&b, &a, SIZE) + !memcmp(&c, &a, SIZE) + !memcmp(&d, &a, SIZE);
  printf("%d %d %g %d %g\\n", x, same, y, z, w);
  return c;
}
int v@(int n, ...) {
  va_list ap;
  struct s@ a, b;
  int same = 0, first;
  va_start(ap, n);
  first = va_arg(ap, int);
  a = va_arg(ap, struct s@);
  for (int i = 1; i < n; i++) { b = va_arg(ap, struct s@); same += !memcmp(&b, &a, SIZE); }
  return same * 100 + first + va_arg(ap, int);
}
#else
static void call@(void) {
  union u@ u;
  for (unsigned i = 0; i < sizeof u; i++) u.b[i] = i * 7 % 64;
  struct s@ a = u.s, r = f@(a, @, a, 2.5, a, 'z', a, 1.5f);
  printf("%d %d\\n", memcmp(&r, &a, SIZE), v@(5, 3, a, a, a, a, a, 4));
}
#endif
"""

def abi_program():
  """Two files in one: WHO=1 defines functions that take and give structures, WHO=2 calls them with known bytes."""
  parts = ["#include <stdio.h>\n#include <string.h>\n#include <stdarg.h>\n"]
  for k, members in enumerate(STRUCTS):
    text = TYPES.replace("MEMBERS", members).replace("SIZE", size_without_padding(members))
    parts.append(text.replace("@", str(k)).replace("\\\\", "\\"))
  calls = " ".join(f"call{k}();" for k in range(len(STRUCTS)))
  return "".join(parts) + f"#if WHO == 2\nint main(void) {{ {calls} return 0; }}\n#endif\n"

PADDED = {"short s; char c": "3", "unsigned a : 3, b : 20; float f": "2", "long double v": "10"}

def size_without_padding(members):
  """Bytes at the start that have no padding among them; of most structures of several members the first four."""
  return PADDED.get(members, "sizeof a" if ";" not in members else "4")

@pytest.mark.parametrize("level", [0, 2])
@pytest.mark.parametrize("ours", [1, 2])
def test_calls_to_and_from_gcc(ours, level, tmp_path):
  source = tmp_path / "abi.c"
  source.write_text(abi_program())
  theirs = 3 - ours
  (tmp_path / "ours.o").write_bytes(object_of(source, level, f"#define WHO {ours}")[1])
  subprocess.run(["gcc", "-w", "-c", f"-DWHO={theirs}", str(source), "-o", str(tmp_path / "theirs.o")], check=True)
  subprocess.run(["gcc", "-w", "-c", f"-DWHO={ours}", str(source), "-o", str(tmp_path / "both.o")], check=True)
  expected = link_and_run(tmp_path, tmp_path / "theirs.o", tmp_path / "both.o")
  assert link_and_run(tmp_path, tmp_path / "theirs.o", tmp_path / "ours.o") == expected

def test_blocks_are_legal_after_mem2reg():
  module, _ = object_of(PROGRAMS[0], 2)
  for fn in module.functions: verify("placed", optimized(fn, 2))

def test_command(tmp_path):
  path = tmp_path / "hello.c"
  path.write_text('#include <stdio.h>\nint main(int argc, char **argv) { printf("hello %s\\n", argv[1]); return X; }\n')
  done = subprocess.run([sys.executable, "-m", "extra.c2r5", "--host", "--run", "-DX=3", str(path), "--", "you"],
                        capture_output=True, text=True, cwd=Path(__file__).parent.parent)
  assert (done.returncode, done.stdout) == (3, "hello you\n"), done.stderr
