# sz.py: how large the code is. For each Python file: the lines that hold code (no blank lines, comments or docstrings)
# and the tokens per such line, then folders and totals. With a git revision as argument, also the change against it:
#   python extra/sz.py [REV]
from __future__ import annotations
import io, subprocess, sys, token, tokenize
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("picograd", "extra", "test")
SINGLE_FILES = ("llama.py", "setup.py")

# torch-shaped namespaces on top of Tensor: what is below them is the core
NAMESPACES = ("library", "nn", "optim", "random", "io", "utils", "linalg", "distributions", "func", "cuda", "autograd",
              "amp", "dynamo")

NO_CODE = frozenset({token.NEWLINE, token.INDENT, token.DEDENT, token.ENDMARKER, tokenize.NL, tokenize.COMMENT,
                     tokenize.ENCODING})

class Size(NamedTuple):
  lines: int          # lines that hold at least one token of code
  tokens: int

  @property
  def density(self) -> float: return self.tokens / self.lines if self.lines else 0.0
  def plus(self, other: "Size") -> "Size": return Size(self.lines + other.lines, self.tokens + other.tokens)

NOTHING = Size(0, 0)

def measure(source: str) -> Size:
  """The size of a Python source text. A statement that is only a string is a docstring and does not count."""
  lines: set[int] = set()
  tokens = 0
  statement: list[tokenize.TokenInfo] = []
  for t in tokenize.generate_tokens(io.StringIO(source).readline):
    if t.type not in NO_CODE: statement.append(t)
    if t.type not in (token.NEWLINE, token.ENDMARKER): continue
    if any(part.type != token.STRING for part in statement):
      tokens += len(statement)
      for part in statement: lines.update(range(part.start[0], part.end[0] + 1))
    statement = []
  return Size(len(lines), tokens)

# ---- the files of the work tree and of a revision --------------------------------------------------------------------

def is_counted(path: str) -> bool:
  return path.endswith(".py") and (path.split("/")[0] in FOLDERS or path in SINGLE_FILES)

def git(*arguments: str) -> str:
  """What git prints; SystemExit with git's own last line where it fails."""
  done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True)
  if done.returncode != 0: raise SystemExit("sz.py: git: " + done.stderr.strip().splitlines()[-1])
  return done.stdout

def sizes_now() -> dict[str, Size]:
  """Path below the repository -> size, for the files as they are on disk."""
  found = [p for folder in FOLDERS for p in (ROOT / folder).rglob("*.py")]
  found += [ROOT / name for name in SINGLE_FILES if (ROOT / name).exists()]
  return {p.relative_to(ROOT).as_posix(): measure(p.read_text(encoding="utf-8")) for p in sorted(found)}

def sizes_at(revision: str) -> dict[str, Size]:
  """Path below the repository -> size, for the files as they were committed in a revision."""
  paths = git("ls-tree", "-r", "--name-only", "--full-tree", "--end-of-options", revision).splitlines()
  return {p: measure(git("show", f"{revision}:{p}")) for p in sorted(paths) if is_counted(p)}

# ---- totals ----------------------------------------------------------------------------------------------------------

def folder_of(path: str) -> str:
  return path.rsplit("/", 1)[0] + "/" if "/" in path else "./"

def is_core(path: str) -> bool:
  """Whether a file belongs to picograd/ without the namespaces on top of Tensor."""
  parts = path.removesuffix(".py").split("/")
  return parts[0] == "picograd" and parts[1] not in NAMESPACES

def total(sizes: dict[str, Size], keep=lambda path: True) -> Size:
  out = NOTHING
  for path, size in sizes.items():
    if keep(path): out = out.plus(size)
  return out

def grouped(now: dict[str, Size], before: dict[str, Size]) -> dict[str, list[str]]:
  """Folder -> its files that exist in either, both in order."""
  groups: dict[str, list[str]] = {}
  for path in sorted(now.keys() | before.keys(), key=lambda p: (folder_of(p), p)):
    groups.setdefault(folder_of(path), []).append(path)
  return groups

# ---- the table -------------------------------------------------------------------------------------------------------

def row(name: str, size: Size, before: Size | None) -> str:
  text = f"{name:<44} {size.lines:>7} {size.density:>9.1f}"
  if before is None: return text
  change = size.lines - before.lines
  return text + (f" {change:>+7}" if change else "")

def table(now: dict[str, Size], before: dict[str, Size] | None = None) -> str:
  """The readable table; with the sizes of another revision, a column says by how many lines each row grew."""
  old = before if before is not None else {}
  def then(size: Size) -> Size | None: return None if before is None else size
  rule = "-" * (62 if before is None else 70)
  out = [f"{'file':<44} {'lines':>7} {'tok/line':>9}" + ("" if before is None else f" {'change':>7}"), rule]
  for folder, paths in grouped(now, old).items():
    for path in paths: out.append(row(path, now.get(path, NOTHING), then(old.get(path, NOTHING))))
    inside = set(paths)
    out.append(row(f"  {folder}", total(now, inside.__contains__), then(total(old, inside.__contains__))))
    out.append("")
  out.append(rule)
  for name, keep in TOTALS.items(): out.append(row(name, total(now, keep), then(total(old, keep))))
  return "\n".join(line.rstrip() for line in out)

TOTALS = {
  "picograd/ without nn-like namespaces": is_core,
  "picograd/": lambda path: path.startswith("picograd/"),
  "extra/": lambda path: path.startswith("extra/"),
  "test/": lambda path: path.startswith("test/"),
  "everything": lambda path: True,
}

def main(arguments: list[str]) -> None:
  if len(arguments) > 1: raise SystemExit("usage: python extra/sz.py [REV]")
  before = sizes_at(arguments[0]) if arguments else None
  print(table(sizes_now(), before))

if __name__ == "__main__": main(sys.argv[1:])
