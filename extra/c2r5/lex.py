# lex.py: C text -> preprocessing tokens (C11 5.1.1.2, phases 1 to 3), and what a message about one of them looks like.
# In: the text of a file. Out: a SourceFile whose tokens lack spaces, comments and line ends; each knows whether a space
# or a line's start was before it, and where it stands: an offset, turned into line and column only when somebody asks.
# Nothing in a text stops the lexer: what is no token becomes one of kind OTHER, and whoever meets it complains.
from __future__ import annotations
import re, sys
from bisect import bisect_right
from contextlib import contextmanager
from functools import cached_property
from itertools import accumulate
from typing import Callable, Iterator, NamedTuple, TextIO

# ---- tokens ----------------------------------------------------------------------------------------------------------

IDENTIFIER, NUMBER, PUNCTUATOR, STRING, CHARACTER = "identifier", "number", "punctuator", "string", "character"
OTHER, PRAGMA, END = "stray character", "pragma", "end of input"

ADJACENT, SPACED, FIRST = 0, 1, 2            # what is before a token: another token, a space, the start of its line
NOTHING_HIDDEN: frozenset[str] = frozenset()

class Token:
  """text is interned, so that comparing it is comparing pointers. hide: the macros this token came out of, which may
  not expand it again."""
  __slots__ = ("kind", "text", "file", "at", "space", "hide")
  def __init__(self, kind: str, text: str, file: "SourceFile", at: int, space: int,
               hide: frozenset[str] = NOTHING_HIDDEN):
    self.kind, self.text, self.file, self.at, self.space, self.hide = kind, text, file, at, space, hide
  def __repr__(self) -> str: return f"Token({self.text!r}, {self.where})"

  @property
  def is_outermost(self) -> bool:
    """Whether it is not indented."""
    return self.file.text[self.at - 1:self.at] in ("", "\n")
  @property
  def line(self) -> int: return self.file.place(self.at).line
  @property
  def where(self) -> str: return f"{self.file.name}:{self.line}"

class Place(NamedTuple):
  file: str
  line: int            # as #line has it
  column: int
  text: str            # the source line

# ---- source files ----------------------------------------------------------------------------------------------------

SPLICE = re.compile(r"\\[ \t]*\n")

class SourceFile:
  """text: the contents with lines spliced. cuts[k]: the offset in text at which the k-th splice was, removed[k]: how
  many characters of the contents were removed up to it."""
  def __init__(self, name: str, contents: str, system: bool = False, includer: Token | None = None):
    self.name, self.system, self.includer = name, system, includer
    self.contents = contents.replace("\r\n", "\n") if "\r" in contents else contents
    splices = list(SPLICE.finditer(self.contents))
    self.removed = list(accumulate(m.end() - m.start() for m in splices))
    self.cuts = [m.end() - removed for m, removed in zip(splices, self.removed)]
    self.text = SPLICE.sub("", self.contents) if splices else self.contents
    # after this physical line, lines are numbered from .., in file ..
    self.renamed: list[tuple[int, int, str]] = []
    self.tokens, self.hashes = scan(self)

  @cached_property
  def starts(self) -> list[int]:
    return [0, *[m.end() for m in re.finditer("\n", self.contents)]]

  def place(self, at: int) -> Place:
    """Where an offset in text is, as the user counts."""
    splices = bisect_right(self.cuts, at)
    offset = at + (self.removed[splices - 1] if splices else 0)
    line = bisect_right(self.starts, offset)
    start = self.starts[line - 1]
    end = self.contents.find("\n", start)
    text = self.contents[start:] if end < 0 else self.contents[start:end]
    name, shown = self.name, line
    for after, number, renamed in self.renamed:
      if line > after: name, shown = renamed, number + line - after - 1
    return Place(name, shown, offset - start + 1, text)

# ---- the scanner -----------------------------------------------------------------------------------------------------

PUNCTUATORS = ("...", "<<=", ">>=", "%:%:", "->", "++", "--", "<<", ">>", "<=", ">=", "==", "!=", "&&", "||", "+=",
               "-=", "*=", "/=", "%=", "&=", "|=", "^=", "##", "<:", ":>", "<%", "%>", "%:",
               *"[](){}.&*+-~!/%<>^|?:;=,#")
DIGRAPHS = {"<:": "[", ":>": "]", "<%": "{", "%>": "}", "%:": "#", "%:%:": "##"}

KINDS = ("", IDENTIFIER, "newline", NUMBER, OTHER, PUNCTUATOR, STRING, CHARACTER, OTHER)
NEWLINE = KINDS.index("newline")
BLANK = r"(?:[ \t\f\v]+|/\*(?s:.*?)\*/|//[^\n]*)*"
TOKEN = re.compile(BLANK + "(?:" + "|".join([
  r"([A-Za-z_$\u0080-\U0010ffff][\w$\u0080-\U0010ffff]*)",
  r"(\n)",
  r"(\.?[0-9](?:[eEpP][+-]|[\w.])*)",
  r"(/\*(?s:.*))",                                     # a comment that does not end
  "(" + "|".join(map(re.escape, PUNCTUATORS)) + ")",
  r'("(?:[^"\\\n]|\\.)*")',
  r"('(?:[^'\\\n]|\\.)+')",
  r"(\S)",
]) + ")")
PREFIXES = frozenset({"L", "u", "U", "u8"})

def scan(file: SourceFile) -> tuple[list[Token], list[int]]:
  """The tokens, ended by one of kind END, and the positions of those that may start a directive."""
  tokens: list[Token] = []
  hashes: list[int] = []
  append, intern = tokens.append, sys.intern
  space = FIRST
  for m in TOKEN.finditer(file.text):
    k = m.lastindex
    if k == NEWLINE:
      space = FIRST
      continue
    assert k is not None
    text, start, kind = m[k], m.start(k), KINDS[k]
    if not space and start != m.start(): space = SPACED
    if kind is PUNCTUATOR:
      text = DIGRAPHS.get(text, text)
      if space == FIRST and text == "#": hashes.append(len(tokens))
    elif (kind is STRING or kind is CHARACTER) and not space and tokens[-1].text in PREFIXES:
      start, space, text = tokens[-1].at, tokens[-1].space, tokens.pop().text + text
    append(Token(kind, intern(text), file, start, space))
    space = ADJACENT
  append(Token(END, "", file, max(0, len(file.text.rstrip()) - 1), FIRST))
  return tokens, hashes

# ---- messages --------------------------------------------------------------------------------------------------------

class Failure(Exception):
  """An error in the program, at a token."""
  def __init__(self, token: Token, message: str):
    super().__init__(message)
    self.token, self.message = token, message

class Halt(Exception):
  """So many errors, or one so bad, that going on makes no sense."""

class Broken(Exception):
  """The compiler is at fault, not the program."""

@contextmanager
def doing(describe: Callable[[], str]) -> Iterator[None]:
  """What goes wrong in here is said together with what was being compiled."""
  try: yield
  except (Failure, Halt, Broken): raise
  except Exception as e: raise Broken(f"{type(e).__name__}: {e} ({describe()})") from e

class Diagnostics:
  """Prints messages as gcc does: file:line:col: error: text, the source line, a caret."""
  LIMIT = 50

  def __init__(self, out: TextIO):
    self.out, self.errors = out, 0
    self.shown: set[tuple[str, str, int]] = set()
    self.muted = self.strict = False                    # -w and -Werror

  def error(self, token: Token, message: str) -> None:
    self.errors += 1
    self.show("error", token, message)
    if self.errors >= self.LIMIT: raise Halt
  def warning(self, token: Token, message: str) -> None:
    if self.muted or token.file.system: return
    if self.strict: self.error(token, message + " [-Werror]")
    else: self.show("warning", token, message)

  def show(self, severity: str, token: Token, message: str) -> None:
    place = token.file.place(token.at)
    if (message, place.file, place.line) in self.shown: return
    self.shown.add((message, place.file, place.line))
    includer, seen = token.file.includer, {token.file}
    while includer is not None and includer.file not in seen:
      seen.add(includer.file)
      at = includer.file.place(includer.at)
      self.out.write(f"In file included from {at.file}:{at.line}:\n")
      includer = includer.file.includer
    self.out.write(f"{place.file}:{place.line}:{place.column}: {severity}: {message}\n{excerpt(place)}")

def excerpt(place: Place) -> str:
  """The source line with a caret below the column; of a long line, the part around it."""
  first = max(0, place.column - 60) if len(place.text) > 150 else 0
  shown = place.text[first:first + 150]
  text = "".join(c if c.isprintable() or c == "\t" else "?" for c in shown)
  indent = "".join("\t" if c == "\t" else " " for c in text[:place.column - 1 - first])
  return f"{place.line:>5} | {text}\n      | {indent}^\n"
