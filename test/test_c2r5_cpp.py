# test_c2r5_cpp.py: tokens and preprocessing, by example (most from C11 6.10.3.5) and against the host's gcc.
import io, shutil, subprocess
import pytest
from extra.c2r5.cpp import Options, Preprocessor, print_tokens
from extra.c2r5.lex import Diagnostics, FIRST, Halt, SourceFile
from extra.c2r5.literal import read_character, read_number

def tokens_of(text): return [t.text for t in SourceFile("t.c", text).tokens[:-1]]

def preprocess(text, **options):
  """(the token texts, the messages)"""
  out = io.StringIO()
  cpp = Preprocessor(Diagnostics(out), Options(**options))
  try: tokens = cpp.run([SourceFile("t.c", text)])
  except Halt: return [], out.getvalue()
  return [t.text for t in tokens[:-1]], out.getvalue()

def test_tokens():
  assert tokens_of("a=.5+1.e+3;a...b /*x\n*/ ..") == ["a", "=", ".5", "+", "1.e+3", ";", "a", "...", "b", ".", "."]
  assert tokens_of('L"a" u8"b" PRI"c" \'\\\'\' <: %:') == ['L"a"', 'u8"b"', "PRI", '"c"', "'\\''", "[", "#"]
  assert tokens_of("a >>= b // c \\\n d\ne+++f") == ["a", ">>=", "b", "e", "++", "+", "f"]

def test_places_survive_spliced_lines():
  file = SourceFile("t.c", "#define x \\\n  y\n\n  z\n")
  place = file.place(file.tokens[-2].at)
  assert (place.line, place.column, place.text) == (4, 3, "  z")
  assert [t.text for t in file.tokens if t.space == FIRST] == ["#", "z", ""]

def test_numbers_are_exact():
  def value(text): return read_number(SourceFile("t.c", text).tokens[0])
  assert value("0x1FuLL")[:2] == (31, "ull") and value("017").value == 15 and value("10LU").suffix == "ul"
  assert value("0x1.8p1").value == 3 and value("1e-2f") == (value(".01").value, "f", False)

def test_characters():
  def value(text): return read_character(SourceFile("t.c", text).tokens[0])
  assert value(r"'\n'") == ("", 10) and value("'ab'") == ("", 0x6162) and value(r"L'\u20ac'") == ("L", 0x20ac)

EXAMPLES = [
  ("#define x 2\n#define f(a) f(x * (a))\n#define z z[0]\nf(f(z))", "f(2 * (f(2 * (z[0]))))"),
  ("#define t(a) a\n#define g f\n#define f(a) f(a)\nt(t(g)(0) + t)(1);", "f(0) + t(1);"),
  ("#define r(x,y) x ## y\nr(2,3), r(4,), r(,5), r(,)", "23, 4, 5,"),
  ("#define s(x) #x\ns( a  b \"c\\n\" '\\4' )", '"a b \\"c\\\\n\\" \'\\\\4\'"'),
  ("#define h # ## #\n#define m(a) #a\n#define i(a) m(a)\n#define j(c, d) i(c h d)\nj(x, y)", '"x ## y"'),
  ("#define F(a,...) f(a __VA_OPT__(,) __VA_ARGS__)\n#define E\nF(1,2,3) F(1) F(1,E)", "f(1,2,3) f(1) f(1)"),
  ("#define F(a,...) x __VA_OPT__(a) ## b #__VA_OPT__(a, y)\nF(1) F(1, 2)", 'x b "" x 1b "1, y"'),
  ("#define F(a) a a\n#define G(a,...) a __VA_OPT__(a)\nF(__COUNTER__) G(__COUNTER__, x)", "0 0 1 1"),
  ("#define e(fmt, args...) p(fmt, ## args)\ne(a) e(a, 1, 2)", "p(a) p(a, 1, 2)"),
  ("#define f() bar\nf\n( )\nf", "bar f"),
  ("#define f(x) x\nf(1\n#undef f\n+ 2) f(3)", "1 + 2 f(3)"),
  ("#if 0\ndon't\n#elif (1 ? -1 : 0u) > 0 && defined f == 0\nyes\n#else\nno\n#endif", "yes"),
  ("#if 0\n#if 1\na\n#elif 1/0\n#foo\n#else\nb\n#endif\n#elif 1\nc\n#ifdef X\nd\n#else\ne\n#endif\n#elif 1\nf\n#endif",
   "c e"),
  ("#if 1 || 1/0\na\n#endif\n#if 0x7fffffffffffffff + 1 < 0 && '\\377' == 255\nb\n#endif", "a b"),
  ("#if 0 && 1/0 || (1 < 2) << 40 > 1 << 30 && ~!1 == -1 && -1 > 0u && sizeof == 0 && !(1 ? 2 : 3, 0)\na\n#endif", "a"),
  ("__LINE__\n#line 40 \"u.c\"\n__LINE__ __FILE__", '1 40 "u.c"'),
  ("__COUNTER__ __COUNTER__", "0 1"),
  ("#ifdef __has_include\n#if __has_include(\"nothing.h\")\na\n#else\nb\n#endif\n#endif", "b"),
]
@pytest.mark.parametrize("source, expected", EXAMPLES)
def test_examples(source, expected):
  found, messages = preprocess(source)
  assert found == tokens_of(expected) and messages == ""

def test_include_next_and_guards(tmp_path):
  for name in ("a", "b"): (tmp_path / name).mkdir()
  (tmp_path / "a" / "x.h").write_text("#ifndef X\n#define X\nfirst\n#include_next <x.h>\n#endif\n")
  (tmp_path / "b" / "x.h").write_text("#pragma once\nsecond\n")
  directories = (str(tmp_path / "a"), str(tmp_path / "b"))
  found, messages = preprocess("#include <x.h>\n#include <x.h>\n#include <../b/x.h>\nend", angled=directories)
  assert found == ["first", "second", "end"] and messages == ""

BAD = [("#if\n#endif", 1), ("#define", 1), ("#else", 1), ("#if 1", 1), ("#include <no.h>", 1), ("#foo", 1),
       ("#define f(x) x\nf(1", 2), ("#define f(x) x\nf(1,2)", 2), ("#if (1\n#endif", 1), ("#error no", 1),
       ("#define a ## b", 1), ("#define f(x) #y", 1), ("#define f(x,x)", 1), ("#if 1 +\n#endif", 1),
       ("#if 1.0\n#endif", 1), ("#if 1/0\n#endif", 1), ("#if sizeof(int)\n#endif", 1), ("#if (int)1\n#endif", 1),
       ("#if x = 1\n#endif", 1), ('#if "a"\n#endif', 1), ("#if x++\n#endif", 1), ("#if !\"a\"\n#endif", 1),
       ("#if defined\n#endif", 1), ("#if defined(X\n#endif", 1), ("#if defined 1\n#endif", 1), ("#undef 1", 1),
       ("#if &x\n#endif", 1),
       ("#define f(...) __VA_OPT__(a ##)\nf(1)", 2), ("#define f(...) __VA_OPT__(\nf(1)", 2), ("#if 0[1]\n#endif", 1),
       ("#if 1.0 < 2\n#endif", 1), ("#if f(1)\n#endif", 1)]
@pytest.mark.parametrize("source, line", BAD)
def test_errors_are_located(source, line):
  assert f"t.c:{line}:" in preprocess(source)[1]

@pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc")
def test_standard_headers_as_gcc(tmp_path):
  path = tmp_path / "t.c"
  path.write_text("".join(f"#include <{h}.h>\n" for h in ("stdio", "stdlib", "string", "math", "errno", "signal")))
  def gcc(*arguments): return subprocess.run(["gcc", *arguments], capture_output=True, text=True, check=True).stdout
  defined = SourceFile("<built-in>", gcc("-dM", "-E", "-x", "c", "/dev/null"))
  verbose = subprocess.run(["gcc", "-E", "-v", "-x", "c", "/dev/null"], capture_output=True, text=True).stderr
  folders = [line.strip() for line in verbose.split("\n") if line.startswith(" /") and " -" not in line]
  cpp = Preprocessor(Diagnostics(io.StringIO()), Options(system=tuple(folders)))
  printed = print_tokens(cpp.run([defined, SourceFile(str(path), path.read_text())]))
  def kept(text): return [t for line in text.split("\n") if not line.startswith("#") for t in tokens_of(line)]
  assert kept(printed) == kept(gcc("-E", str(path)))
