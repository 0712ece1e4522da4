# test_c2r5_errors.py: a hundred wrong programs. Each gives a located error and no code: never a traceback, never a
# hang. A program is wrong at the line that has `// <-`, or at the line that its row names.
import io, os, subprocess, sys
import pytest
from extra.c2r5.compile import Settings, compile_module, platform
from extra.c2r5.lex import Diagnostics

def messages_of(path):
  """(the Module or None, what was printed)"""
  out = io.StringIO()
  module = compile_module(str(path), Settings(platform("x86_64")), Diagnostics(out))
  return module, out.getvalue()

DECLARATIONS = """
int x
int;; int a[-1];
int a[2] = {1,2,3}; struct s { int x; int x; };
struct s; struct s v;
__auto_type nothing;
union u { int a; } ; union u w = 3;
int f(int a, int a) { return a; }
int f(void) { return 1; } int f(void) { return 2; }
int f(int); long f(int);
static int q; int q(void);
void v;
void a[3];
int a[]; int b[sizeof a];
enum e { A, B, A };
enum e { A = 1.5 };
int x = y;
int x = 1; int x = 2;
int f() { int a; int a; }
int g; int *p = g * 2;
int f() { static int s = f(); }
struct { int b : 40; } s;
struct { int b : -1; } s;
struct { float f : 3; } s;
struct { int b : 0; } s;
struct { void f(); int g(); } s;
int (*f(void))[3](int);
int f(void)[3];
int f(void)();
typedef int t; t t2 = { 1, .x = 2 };
struct p { int x; } p = { .y = 1 };
int a[3] = { [5] = 1 };
int a[3] = { [-1] = 1 };
int a[] = { [1 ... 0] = 1 };
extern int e = sizeof(struct unknown);
_Static_assert(1 == 2, "no");
_Static_assert(x, "no");
int _Alignas(3) x;
int register static x;
long long long x;
short double d;
unsigned float f;
signed unsigned u;
int __attribute__((mode(ZZ))) m;
char *s = "abc;
int c = 'a;
int c = '';
int n = 08;
int n = 0x;
int n = 12abc;
float f = 1.0e;
int n = 1 2;
@
int $ ` = 3;
struct s { int a
typedef struct { int a; } t; t.a = 3;
int f(x, y) int z; { return 0; }
int f(void, int);
int f(int a, ...; int b);
int a = (int){1, 2;
_Complex double z;
int f(int x) { return x; } }
int f(void) { extern int n = 1; return n; }
struct s { int a[]; int b; };
struct s { int a[]; };
union u { int a[]; };
struct s { int a, };
struct s { int a; struct { int a; }; };
char a[2] = {"ab", "c"};
int f(void) { int if = 1; return 0; }
int c = '\\x';
char *s = "\\u12";
int f(int a) { int a; return 0; }
static int x; int x;
auto int x;
register int x;
int f(static int x) { return 0; }
_Thread_local int f(void);
int f(void) { _Thread_local int x; return 0; }
unsigned long a = _Alignof(struct unknown);
int g = _Generic(1, int: 2, int: 3);
int g = _Generic(1, default: 2, default: 3);
int g = _Generic(1, void: 2, default: 1);
enum e; int f(enum e x) { return 0; }
enum e x;
enum e { };
int f(void) __attribute__((alias("nothing")));
int main(void) { return 0;
"""
STATEMENTS = """
_Alignas(2) int x;
_Alignas(char) static long x;
return x;
int x = 1 +;
int x = (1;
int x; x = ;
1 = 2;
int x; x++ = 3;
int x; &x = 0;
int x; &(x + 1);
int x; *x = 1;
int x; x.y = 1;
struct s { int a; } s; s.b = 1;
struct s { int a; } s; s->a = 1;
struct s { int a; } s; s + 1;
struct s { int a; } s; if (s) ;
struct s { int a; } s; int i = s;
struct s { int a; } s; (int)s;
struct s *p; p->a;
void *p; *p + 1;
const int c = 1; c = 2;
const struct { int a; } c; c.a = 2;
int a[2], b[2]; a = b;
int f(int); f();
int f(int); f(1, 2);
int f(void); f(1);
int x; x();
int x; x[0];
double d; d % 2;
double d; d << 1;
double d; ~d;
int *p, *q; p + q;
int *p; p * 2;
int *p; p % 2;
double d; int *p = d;
break;
continue;
case 1: ;
default: ;
switch (1) { case 1: case 1: ; }
switch (1) { default: default: ; }
switch (1.5) { }
int x; switch (1) { case x: ; }
goto nowhere;
l: ; l: ;
if 1 ;
while () ;
for (;) ;
do ; while (1)
else ;
int main;; main(void) { }
sizeof(struct unknown);
sizeof(int) = 3;
struct { int b : 3; } s; &s.b;
struct { int b : 3; } s; sizeof s.b;
register int r; &r;
_Generic(1, float: 2);
__builtin_va_arg(1);
asm("frobnicate");
int n; int a[n] = {1};
int a[2]; a.x;
(void)0 + 1;
int f(void) { return 1;
goto *1;
int n = 2; goto in; int a[n]; in: ;
int n = 2; goto in; { typedef int row[n]; in: ; }
int n = 2; switch (n) { int (*p)[n]; case 2: ; }
"""

def wrong_programs():
  for text in DECLARATIONS.strip("\n").split("\n"): yield text
  for text in STATEMENTS.strip("\n").split("\n"): yield "int main(void) { " + text + " }"

PROGRAMS = list(wrong_programs())
@pytest.mark.parametrize("number", range(len(PROGRAMS)))
def test_wrong_programs(number, tmp_path):
  path = tmp_path / "t.c"
  path.write_text("// a line before\n" + PROGRAMS[number] + "\n")
  module, printed = messages_of(path)
  assert module is None and f"{path}:2:" in printed and ": error: " in printed, printed
  assert "\n      | " in printed                                        # the caret's line

def test_there_are_a_hundred(): assert len(PROGRAMS) >= 100

def test_several_errors_in_one_run(tmp_path):
  path = tmp_path / "t.c"
  path.write_text("int f(void) {\n  int a = b;\n  c = 1;\n  return a;\n}\nint g = {;\nint h(void) { return d; }\n")
  _, printed = messages_of(path)
  for line in (2, 3, 6, 7): assert f"{path}:{line}:" in printed, printed

def run(path):
  """Status and messages of the command."""
  environment = {**os.environ, "PYTHONPATH": os.getcwd()}
  done = subprocess.run([sys.executable, "-m", "extra.c2r5", "--host", "-c", str(path), "-o", str(path) + ".o"],
                        capture_output=True, text=True, timeout=60, env=environment)
  return done.returncode, done.stderr

HOSTILE = {
  "binary": bytes(range(256)) * 40, "empty": b"\0", "long line": b"int x = " + b"1 + " * 250_000 + b";\n@\n",
  "parentheses": b"int x = " + b"(" * 10_000 + b"1" + b")" * 10_000 + b";\n", "braces": b"int f(){" + b"{" * 10_000,
  "brackets": b"int x" + b"[1" * 10_000, "stars": b"int ***" + b"(" * 10_000 + b"p;",
  "minus": b"int x=" + b"- " * 10_000,
  "quote": b'char *s = "' + b"a" * 100_000, "comment": b"int x; /* " + b"a" * 100_000, "if": b"#if 1\n" * 10_000,
  "if expression": b"#if " + b"(" * 10_000 + b"\n#endif\n", "include itself": b'#include "t.c"\n',
  "macro": b"#define f(x) x\nint a = f(" + b"(" * 10_000, "initialiser": b"int a[] = " + b"{" * 10_000,
  "conditional": b"int x = " + b"1 ? " * 10_000, "struct": b"struct {" * 10_000, "utf-8": b"int \xff\xfe = 3; $$$ @\n"}
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files(name, tmp_path):
  path = tmp_path / "t.c"
  path.write_bytes(HOSTILE[name])
  status, printed = run(path)
  assert status == 1 and "Traceback" not in printed and "error: " in printed and "t.c:" in printed, printed[-2000:]
