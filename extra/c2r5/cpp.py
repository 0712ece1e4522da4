# cpp.py: the preprocessor (C11 6.10, with GNU's #include_next, __VA_OPT__, named variable arguments, empty ##). In: a
# SourceFile. Out: the tokens that are left when directives are obeyed and macros replaced; a token that came out of a
# macro stands where the macro was used. Text between two directives is one list of tokens, a segment; macros are
# expanded over segments with hide sets (Prosser's algorithm, on which the standard's words are based).
from __future__ import annotations
import os, sys, time
from functools import cached_property
from itertools import count
from typing import Callable, Iterable, Iterator, NamedTuple
from .constant import integer_constant
from .ctype import INT, LONG, RISCV64, UNSIGNED_LONG
from .express import Expressions
from .lex import (ADJACENT, CHARACTER, Diagnostics, END, Failure, FIRST, Halt, IDENTIFIER, NUMBER, PRAGMA, PUNCTUATORS,
                  SourceFile, SPACED, STRING, Token)
from .literal import code_units, read_number
from .tree import Node

Tokens = list[Token]

class Argument:
  """What was given for a parameter; expanded once, however often it is used."""
  def __init__(self, given: Tokens, expand: Callable[[Tokens], Tokens]):
    self.given, self.expand = given, expand
  @cached_property
  def expanded(self) -> Tokens: return self.expand(self.given)

class Macro(NamedTuple):
  name: str
  body: Tokens
  params: tuple[str, ...] | None = None      # None: an object-like macro
  variadic: bool = False                     # the last parameter takes all arguments that are left
  dynamic: Callable[[Token], str] | None = None      # the text of a string or number that depends on the place

class Group(NamedTuple):
  """An open #if: its last directive, whether the branch after that is read, and whether one has been."""
  token: Token
  holds: bool
  taken: bool
  is_else: bool = False

OPENING = ("if", "ifdef", "ifndef")

# ---- where expansion reads from --------------------------------------------------------------------------------------

class Feed:
  """Tokens still to be read: what a macro left on the stack, then the segment, then the segments to come."""
  def __init__(self, segments: Iterable[Tokens]):
    self.stack: Tokens = []
    self.segments = iter(segments)
    self.segment: Tokens = []
    self.at = 0

  def refill(self) -> bool:
    """Whether there is another token, if need be in a later segment."""
    while self.at >= len(self.segment):
      following = next(self.segments, None)
      if following is None: return False
      self.segment, self.at = following, 0
    return True

  def take(self) -> Token | None:
    if self.stack: return self.stack.pop()
    if not self.refill(): return None
    self.at += 1
    return self.segment[self.at - 1]

  def opens_arguments(self) -> bool:
    """Whether the next token is a parenthesis."""
    if self.stack: return self.stack[-1].text == "("
    return self.refill() and self.segment[self.at].text == "("

  def push(self, tokens: Tokens) -> None: self.stack.extend(reversed(tokens))

# ---- the preprocessor ------------------------------------------------------------------------------------------------

class Options(NamedTuple):
  quoted: tuple[str, ...] = ()               # directories for #include "..", searched first (-iquote)
  angled: tuple[str, ...] = ()               # directories for both forms (-I)
  system: tuple[str, ...] = ()               # and those whose files get no warnings

class Preprocessor:
  MAX_DEPTH = 200
  loaded: dict[str, SourceFile] = {}         # path -> file: a header is scanned once per process

  def __init__(self, diagnostics: Diagnostics, options: Options):
    self.diagnostics = diagnostics
    self.directories = [*options.quoted, *options.angled, *options.system]
    self.first_angled = len(options.quoted)
    self.first_system = len(options.quoted) + len(options.angled)
    self.dependencies: list[str] = []
    self.once: set[str] = set()
    self.guards: dict[str, str] = {}         # path -> the macro that, if defined, makes the file empty
    self.found_in: dict[str, int] = {}       # path -> the directory it was found in, for #include_next
    self.includes: list[SourceFile] = []     # files that are open, the innermost last
    self.builtins: set[str] = set()          # names that have a meaning before any #include
    self.counter = count()
    self.saved: dict[str, list[Macro | None]] = {}             # by #pragma push_macro
    date, clock = time.strftime('"%b %e %Y" "%H:%M:%S"').rsplit(" ", 1)
    dynamic: dict[str, Callable[[Token], str]] = {
      "__FILE__": lambda t: quoted(t.file.place(t.at).file), "__LINE__": lambda t: str(t.line),
      "__COUNTER__": lambda t: str(next(self.counter)), "__DATE__": lambda t: date, "__TIME__": lambda t: clock,
      "__BASE_FILE__": lambda t: quoted(self.includes[0].name),
      "__INCLUDE_LEVEL__": lambda t: str(len(self.includes) - 1)}
    self.macros = {name: Macro(name, [], dynamic=text) for name, text in dynamic.items()}

  def run(self, files: Iterable[SourceFile]) -> Tokens:
    """The tokens of the files, one after the other, with an END."""
    out: Tokens = []
    last: SourceFile | None = None
    for last in files: self.expand(self.open(last), out)
    assert last is not None, "there is always a file"
    out.append(last.tokens[-1])
    return out

  # ---- directives ----

  def open(self, file: SourceFile) -> Iterator[Tokens]:
    """The segments of a file, and of the files it includes. Reading a segment obeys the directives before it."""
    self.includes.append(file)
    groups: list[Group] = []
    tokens, done = file.tokens, 0
    for start in file.hashes:
      if start < done: continue              # a # inside a directive's line
      if done < start and not skips(groups): yield tokens[done:start]
      done = end = line_end(tokens, start)
      line = tokens[start + 1:end]
      if not line: continue
      name, rest = line[0], line[1:]
      try:
        if name.text in CONDITIONAL: self.conditional(groups, name, rest)
        elif skips(groups): continue
        elif name.text in ("include", "include_next", "import"):
          included = self.find_include(name, rest)
          if included is not None: yield from self.open(included)
        elif name.text == "pragma":
          kept = self.pragma(tokens[start], rest)
          if kept is not None: yield [kept]
        else: self.directive(name, rest)
      except Failure as e: self.diagnostics.error(e.token, e.message)
    if groups: self.diagnostics.error(groups[-1].token, f"unterminated #{groups[-1].token.text}")
    if done < len(tokens) - 1 and not skips(groups): yield tokens[done:-1]
    self.includes.pop()

  def conditional(self, groups: list[Group], name: Token, rest: Tokens) -> None:
    """Obeys a directive of #if's family. Of a group inside one that is skipped, no branch is taken."""
    if name.text in OPENING:
      is_skipped = skips(groups)
      holds = not is_skipped and self.condition(name, rest)
      return groups.append(Group(name, holds, is_skipped or holds))
    if not groups: raise Failure(name, f"#{name.text} without #if")
    group = groups.pop()
    if name.text == "endif": return
    if group.is_else: raise Failure(name, f"#{name.text} after #else")
    holds = not group.taken and (name.text == "else" or self.condition(name, rest))
    groups.append(Group(name, holds, group.taken or holds, name.text == "else"))

  def condition(self, name: Token, rest: Tokens) -> bool:
    try:
      if name.text in ("if", "elif"): return Condition(self, name, rest).value()
      return self.is_macro(macro_name(name, rest).text) == (name.text in ("ifdef", "elifdef"))
    except Failure as e:
      self.diagnostics.error(e.token, e.message)
      return False

  def is_macro(self, name: str) -> bool: return name in self.macros or name in QUERIES

  def directive(self, name: Token, rest: Tokens) -> None:
    text = " ".join(t.text for t in rest)
    if name.text == "define": self.define(name, rest)
    elif name.text == "undef": self.macros.pop(macro_name(name, rest).text, None)
    elif name.text == "error":
      self.diagnostics.error(name, f"#error {text}")
      raise Halt
    elif name.text == "warning": self.diagnostics.warning(name, f"#warning {text}")
    elif name.text == "line": self.line(name, self.expanded(rest))
    elif name.kind is NUMBER: self.line(name, [name, *rest])                    # a line marker: # 12 "file" flags
    elif name.text not in ("ident", "sccs", "assert", "unassert"):
      raise Failure(name, f"invalid preprocessing directive #{name.text}")

  def line(self, name: Token, rest: Tokens) -> None:
    if not rest or not rest[0].text.isdigit(): raise Failure(name, "#line needs a line number")
    file, physical = name.file, 1 + name.file.text.count("\n", 0, name.at)
    shown = rest[1].text[1:-1] if len(rest) > 1 and rest[1].kind is STRING else file.place(name.at).file
    splices = sum(1 for cut in file.cuts if cut <= name.at)
    file.renamed.append((physical + splices, int(rest[0].text), shown))

  def define(self, name: Token, rest: Tokens) -> None:
    macro, body = macro_name(name, rest), rest[1:]
    if macro.text == "defined": raise Failure(macro, '"defined" cannot be used as a macro name')
    params, variadic = None, False
    if body and body[0].text == "(" and body[0].space == ADJACENT:
      params, variadic, body = parameters(macro, body[1:])
    body = with_space(body, ADJACENT)
    if body and "##" in (body[0].text, body[-1].text):
      raise Failure(macro, "'##' cannot appear at either end of a macro")
    if params is not None:
      for hash_sign, operand in zip(body, [*body[1:], macro]):
        if hash_sign.text == "#" and operand.text not in (*params, "__VA_OPT__"):
          raise Failure(hash_sign, "'#' is not followed by a macro parameter")
    new, old = Macro(macro.text, body, params, variadic), self.macros.get(macro.text)
    if old is not None and not same_macro(old, new): self.diagnostics.warning(macro, f'"{macro.text}" redefined')
    self.macros[macro.text] = new

  def pragma(self, at: Token, rest: Tokens) -> Token | None:
    """A token for the parser, unless it is a pragma for me."""
    words = [t.text for t in rest]
    if words == ["once"]: self.once.add(os.path.realpath(at.file.name))
    elif words[:1] == ["push_macro"] or words[:1] == ["pop_macro"]: self.save_macro(rest)
    else: return Token(PRAGMA, " ".join(words), at.file, at.at, FIRST)
    return None

  def save_macro(self, rest: Tokens) -> None:
    names = [t.text[1:-1] for t in rest if t.kind is STRING]
    for name in names:
      stack = self.saved.setdefault(name, [])
      if rest[0].text == "push_macro": stack.append(self.macros.get(name))
      elif stack:
        old = stack.pop()
        if old is None: self.macros.pop(name, None)
        else: self.macros[name] = old

  # ---- #include ----

  def find_include(self, name: Token, rest: Tokens) -> SourceFile | None:
    """The file to read, or None if it would give nothing. Failure if there is none."""
    header, is_angled = self.header_name(name, rest)
    if len(self.includes) > self.MAX_DEPTH:
      self.diagnostics.error(name, "#include nested too deeply")
      raise Halt
    path = self.search(header, is_angled, name)
    if path is None:
      self.diagnostics.error(rest[0], f"{header}: No such file or directory")
      raise Halt
    if path not in self.dependencies: self.dependencies.append(path)
    if os.path.realpath(path) in self.once or self.guards.get(path) in self.macros: return None
    system = self.found_in.get(path, 0) >= self.first_system or (path not in self.found_in and name.file.system)
    return self.load(path, system, name)

  def header_name(self, name: Token, rest: Tokens) -> tuple[str, bool]:
    if rest and rest[0].kind is not STRING and rest[0].text != "<": rest = self.expanded(rest)
    if rest and rest[0].kind is STRING: return rest[0].text[1:-1], False
    words = [t.text for t in rest]
    if words[:1] != ["<"] or ">" not in words: raise Failure(name, f'#{name.text} expects "FILENAME" or <FILENAME>')
    inside = rest[1:words.index(">")]
    return "".join((" " if t.space and i else "") + t.text for i, t in enumerate(inside)), True

  def search(self, header: str, is_angled: bool, name: Token) -> str | None:
    here = os.path.dirname(name.file.name)
    first = self.first_angled if is_angled else 0
    if name.text == "include_next": first = self.found_in.get(name.file.name, -1) + 1
    elif not is_angled or os.path.isabs(header):
      path = os.path.join(here, header)
      if os.path.isfile(path):
        if name.file.name in self.found_in: self.found_in.setdefault(path, self.found_in[name.file.name])
        return path
    for k in range(first, len(self.directories)):
      path = os.path.join(self.directories[k], header)
      if os.path.isfile(path):
        self.found_in[path] = k
        return path
    return None

  def load(self, path: str, system: bool, includer: Token | None) -> SourceFile:
    file = Preprocessor.loaded.get(path)
    if file is None:
      file = SourceFile(path, read_text(path), system, includer)
      Preprocessor.loaded[path] = file
    file.includer = includer
    guard = guard_of(file)
    if guard is not None: self.guards[path] = guard
    return file

  # ---- macro expansion ----

  def expanded(self, tokens: Tokens) -> Tokens:
    out: Tokens = []
    self.expand([tokens], out)
    return out

  def expand(self, segments: Iterable[Tokens], out: Tokens) -> None:
    """Appends the tokens of the segments with all macros replaced."""
    macros, feed, append = self.macros, Feed(segments), out.append
    while feed.refill():
      segment, at, count = feed.segment, feed.at, len(feed.segment)
      while at < count:
        token = segment[at]
        at += 1
        if token.text in macros or token.text == "_Pragma":
          feed.at = at
          self.expand_here(token, feed, out)
          if feed.segment is not segment: break
          at = feed.at
        else: append(token)
      else: feed.at = count

  def expand_here(self, token: Token | None, feed: Feed, out: Tokens) -> None:
    """Replaces one macro and whatever its replacement begins, until the stack is empty."""
    macros = self.macros
    while token is not None:
      macro = macros.get(token.text)
      try:
        if token.text == "_Pragma" and token.kind is IDENTIFIER: self.pragma_operator(token, feed, out)
        elif macro is None or token.kind is not IDENTIFIER or token.text in token.hide: out.append(token)
        elif not self.replace(token, macro, feed): out.append(token)
      except Failure as e: self.diagnostics.error(e.token, e.message)
      token = feed.stack.pop() if feed.stack else None

  def replace(self, token: Token, macro: Macro, feed: Feed) -> bool:
    """Puts what a macro stands for on the stack; false if it is a function-like one without arguments."""
    if macro.dynamic is not None:
      text = sys.intern(macro.dynamic(token))
      kind = STRING if text.startswith('"') else NUMBER
      feed.push([Token(kind, text, token.file, token.at, token.space, token.hide | {macro.name})])
    elif macro.params is None:
      hide = token.hide | {macro.name}
      body = self.substitute(macro, {}, token) if any(t.text == "##" for t in macro.body) else macro.body
      feed.push(place_at(token, body, hide))
    else:
      if not feed.opens_arguments(): return False
      arguments, close = self.arguments(token, macro, feed)
      hide = (token.hide & close.hide) | {macro.name}
      feed.push(place_at(token, self.substitute(macro, arguments, token), hide))
    return True

  def arguments(self, name: Token, macro: Macro, feed: Feed) -> tuple[dict[str, Argument], Token]:
    """Parameter -> what is given for it; and the closing parenthesis."""
    assert macro.params is not None, "only function-like macros have arguments"
    given: list[Tokens] = [[]]
    depth = 0
    while True:
      token = feed.take()
      if token is None or token.kind is END:
        raise Failure(name, f'unterminated argument list invoking macro "{name.text}"')
      if token.text == "(":
        depth += 1
        if depth == 1: continue
      elif token.text == ")":
        depth -= 1
        if depth == 0: break
      elif token.text == "," and depth == 1 and not (macro.variadic and len(given) == len(macro.params)):
        given.append([])
        continue
      given[-1].append(token)
    expected = len(macro.params)
    if expected == 0 and given == [[]]: given = []
    if macro.variadic and len(given) == expected - 1: given.append([])
    if len(given) != expected:
      word = "requires" if len(given) < expected else "takes just"
      raise Failure(name, f'macro "{name.text}" {word} {expected} arguments, but {len(given)} given')
    return dict(zip(macro.params, [Argument(tokens, self.expanded) for tokens in given])), token

  def substitute(self, macro: Macro, arguments: dict[str, Argument], use: Token) -> Tokens:
    """The macro's body with parameters replaced, # and ## done."""
    out: Tokens = []
    body, i = macro.body, 0
    while i < len(body):
      token, is_paste = body[i], body[i].text == "##"
      found, end = self.operand(macro, arguments, i + is_paste, use)
      if is_paste: self.paste(out, found, macro, body[i + 1].text, use)
      else: out += with_space(found, token.space) or [Token(PLACEMARKER, "", token.file, token.at, token.space)]
      i = end
    return [t for t in out if t.kind is not PLACEMARKER]

  def operand(self, macro: Macro, arguments: dict[str, Argument], i: int, use: Token) -> tuple[Tokens, int]:
    """What stands at a place of the body, and where that ends. Next to # and ## an argument is as it was given."""
    body, text = macro.body, macro.body[i].text
    before, following = body[i - 1].text if i else "", body[i + 1].text if i + 1 < len(body) else ""
    if text == "#" and macro.params is not None:
      inside, end = self.operand(macro, arguments, i + 1, use)
      return [stringize(body[i], inside)], end
    if text == "__VA_OPT__" and following == "(" and macro.variadic: return self.optional(macro, arguments, i + 1, use)
    if text not in arguments: return [body[i]], i + 1
    is_raw = before in ("#", "##") or following == "##"
    return arguments[text].given if is_raw else arguments[text].expanded, i + 1

  def optional(self, macro: Macro, arguments: dict[str, Argument], i: int, use: Token) -> tuple[Tokens, int]:
    """The contents of __VA_OPT__( .. ) if variable arguments were given; i is at the parenthesis."""
    assert macro.params is not None, "only function-like macros are variadic"
    body, depth, end = macro.body, 1, i + 1
    while end < len(body) and depth:
      depth += {"(": 1, ")": -1}.get(body[end].text, 0)
      end += 1
    inside = body[i + 1:end - 1]
    if depth or inside and "##" in (inside[0].text, inside[-1].text):
      raise Failure(use, "__VA_OPT__ is not closed, or '##' is at one of its ends")
    if not arguments[macro.params[-1]].expanded: return [], end
    return self.substitute(macro._replace(body=inside), arguments, use), end

  def paste(self, out: Tokens, right: Tokens, macro: Macro, name: str, use: Token) -> None:
    """Joins the last token of out with the first of right. GNU: , ## __VA_ARGS__ drops the comma if there are none."""
    if macro.variadic and macro.params is not None and name == macro.params[-1] and out and out[-1].text == ",":
      if right: out += right
      else: out.pop()
      return
    if not right: return
    if not out or out[-1].kind is PLACEMARKER:
      if out: right = with_space(right, out.pop().space)
      out += right
      return
    left = out.pop()
    text = left.text + right[0].text
    parts = SourceFile("<paste>", text).tokens
    if len(parts) != 2 and text != "":
      raise Failure(use, f'pasting "{left.text}" and "{right[0].text}" does not give a valid preprocessing token')
    out.append(Token(parts[0].kind, parts[0].text, left.file, left.at, left.space, left.hide & right[0].hide))
    out += right[1:]

  def pragma_operator(self, name: Token, feed: Feed, out: Tokens) -> None:
    """_Pragma("..")"""
    tokens = [feed.take() for _ in range(3)]
    if [t.text if t else "" for t in tokens][::2] != ["(", ")"] or tokens[1] is None or tokens[1].kind is not STRING:
      raise Failure(name, "_Pragma takes a parenthesized string literal")
    text = bytes(code_units(tokens[1], 1)).decode("utf-8", "surrogateescape")
    kept = self.pragma(name, SourceFile("<_Pragma>", text).tokens[:-1])
    if kept is not None: out.append(kept)

PLACEMARKER = "placemarker"                  # stands for an empty argument next to ##
CONDITIONAL = frozenset({"if", "ifdef", "ifndef", "elif", "elifdef", "elifndef", "else", "endif"})

def read_text(path: str) -> str:
  source = path if path != "-" else sys.stdin.fileno()
  with open(source, encoding="utf-8", errors="surrogateescape", newline="") as f: return f.read()

def line_end(tokens: Tokens, start: int) -> int:
  end = start + 1
  while tokens[end].space != FIRST: end += 1
  return end

def escaped(text: str) -> str: return text.replace("\\", "\\\\").replace('"', '\\"')
def quoted(text: str) -> str: return f'"{escaped(text)}"'

def skips(groups: list[Group]) -> bool: return bool(groups) and not groups[-1].holds

def macro_name(directive: Token, rest: Tokens) -> Token:
  if not rest: raise Failure(directive, f"no macro name given in #{directive.text} directive")
  if rest[0].kind is not IDENTIFIER: raise Failure(rest[0], "macro names must be identifiers")
  return rest[0]

def guard_of(file: SourceFile) -> str | None:
  """The X of a file that is all #ifndef X .. #endif."""
  tokens, hashes = file.tokens, file.hashes
  if not hashes or hashes[0] != 0 or tokens[1].text != "ifndef": return None
  last = hashes[-1]
  if tokens[last + 1].text != "endif" or line_end(tokens, last) != len(tokens) - 1: return None
  depth = 0
  for h in hashes:
    word = tokens[h + 1].text
    if depth == 1 and (word.startswith("el") or word == "endif" and h != last): return None
    depth += (word in OPENING) - (word == "endif")
  return tokens[2].text

def parameters(macro: Token, rest: Tokens) -> tuple[tuple[str, ...], bool, Tokens]:
  """(parameters, whether the last one is variable, the body) of a function-like macro; rest follows the parenthesis."""
  names: list[str] = []
  for i, token in enumerate(rest):
    if token.text == ")":
      if i == 0 or rest[i - 1].text != ",": return tuple(names), "..." in [t.text for t in rest[:i]], rest[i + 1:]
    if token.text == "...":
      if i == 0 or rest[i - 1].text == ",": names.append("__VA_ARGS__")
    elif token.kind is IDENTIFIER and (i == 0 or rest[i - 1].text == ","):
      if token.text in names: raise Failure(token, f'duplicate macro parameter "{token.text}"')
      names.append(token.text)
    elif token.text != "," or i == 0 or rest[i - 1].text == ",": break
  raise Failure(macro, "malformed parameter list of a macro")

def same_macro(a: Macro, b: Macro) -> bool:
  def words(macro: Macro) -> list[tuple[str, bool]]: return [(t.text, t.space != ADJACENT) for t in macro.body]
  return a.params == b.params and words(a) == words(b) and a.dynamic is None

def with_space(tokens: Tokens, space: int) -> Tokens:
  """The tokens, the first one with the space that the parameter had."""
  if not tokens or tokens[0].space == space: return tokens
  first = tokens[0]
  return [Token(first.kind, first.text, first.file, first.at, space, first.hide), *tokens[1:]]

def place_at(use: Token, body: Tokens, hide: frozenset[str]) -> Tokens:
  """The tokens as they come out of a macro used there."""
  file, at = use.file, use.at
  out = [Token(t.kind, t.text, file, at, t.space and SPACED, hide if not t.hide else t.hide | hide) for t in body]
  if out: out[0].space = use.space
  return out

def stringize(hash_sign: Token, argument: Tokens) -> Token:
  parts = []
  for i, token in enumerate(argument):
    text = escaped(token.text) if token.kind is STRING or token.kind is CHARACTER else token.text
    parts.append((" " if i and token.space else "") + text)
  return Token(STRING, sys.intern('"' + "".join(parts) + '"'), hash_sign.file, hash_sign.at, hash_sign.space)

# ---- the expressions of #if ------------------------------------------------------------------------------------------

class Condition(Expressions):
  """Parses and computes the controlling expression of an #if (C11 6.10.1): names are 0, numbers have 64 bits."""
  def __init__(self, cpp: Preprocessor, name: Token, rest: Tokens):
    self.cpp, self.name = cpp, name
    tokens = self.without_queries(cpp.expanded(self.without_queries(rest)))         # macros may bring in new ones
    if not tokens: raise Failure(name, f"#{name.text} with no expression")
    for t in tokens:
      if t.kind is STRING: raise Failure(t, f"{t.text} is not valid in preprocessor expressions")
    tokens = [Token(NUMBER, "0", t.file, t.at, t.space) if t.kind is IDENTIFIER else t for t in tokens]
    super().__init__([*tokens, Token(END, "", name.file, tokens[-1].at, ADJACENT)], RISCV64, cpp.diagnostics)

  def value(self) -> bool:
    node = self.conditional()
    if self.token.kind is not END: raise Failure(self.token, f"missing binary operator in #{self.name.text}")
    return integer_constant(node, self.name, f"expression of #{self.name.text}") != 0

  def unary(self) -> Node:
    """A comparison's int too has 64 bits."""
    node = super().unary()
    return self.trees.cast(node, LONG) if node.type is INT else node

  def number(self, token: Token) -> Node:
    number = read_number(token)
    if not isinstance(number.value, int): raise Failure(token, "floating constant in preprocessor expression")
    t = UNSIGNED_LONG if "u" in number.suffix or number.value > LONG.largest else LONG
    return self.trees.number(t.wrap(number.value), t, token)

  def without_queries(self, rest: Tokens) -> Tokens:
    """defined X, __has_include(..) and their kind, replaced by 0 and 1 before macros are."""
    out: Tokens = []
    waiting = rest[::-1]
    while waiting:
      token = waiting.pop()
      opens = bool(waiting) and waiting[-1].text == "("
      if token.text == "defined" or opens and token.text in QUERIES:
        inside = [waiting.pop()] if waiting else []
        while opens and waiting and inside[-1].text != ")": inside.append(waiting.pop())
        found = QUERIES[token.text](self.cpp, token, inside[1:-1] if opens else inside)
        token = Token(NUMBER, str(int(found)), token.file, token.at, token.space)
      out.append(token)
    return out

def has_macro(cpp: Preprocessor, name: Token, inside: Tokens) -> bool:
  if len(inside) != 1 or inside[0].kind is not IDENTIFIER:
    raise Failure(name, "operator 'defined' requires an identifier")
  return cpp.is_macro(inside[0].text)

def has_include(cpp: Preprocessor, name: Token, inside: Tokens) -> bool:
  """Whether #include of it would find a file."""
  header, is_angled = cpp.header_name(name, inside)
  word = "include_next" if name.text.endswith("next") else "include"
  return cpp.search(header, is_angled, Token(name.kind, word, name.file, name.at, name.space)) is not None

ATTRIBUTES = frozenset("""aligned packed noreturn unused used weak section alias always_inline noinline const pure
  constructor destructor visibility format malloc cold hot deprecated nonnull warn_unused_result may_alias mode
  transparent_union fallthrough cleanup""".split())
def has_attribute(cpp: Preprocessor, name: Token, inside: Tokens) -> bool:
  return bool(inside) and inside[-1].text.strip("_") in ATTRIBUTES
def has_builtin(cpp: Preprocessor, name: Token, inside: Tokens) -> bool:
  return bool(inside) and inside[0].text in cpp.builtins

def has_nothing(cpp: Preprocessor, name: Token, inside: Tokens) -> bool: return False

QUERIES = {"defined": has_macro, "__has_include": has_include, "__has_include_next": has_include,
           "__has_attribute": has_attribute, "__has_builtin": has_builtin, "__has_c_attribute": has_nothing,
           "__has_feature": has_nothing, "__has_extension": has_nothing}

# ---- -E --------------------------------------------------------------------------------------------------------------

def print_tokens(tokens: Tokens) -> str:
  """The preprocessed text, with line markers where lines do not simply follow each other."""
  lines: list[str] = []
  file, line, starts = "", 0, True
  for t in tokens:
    if t.kind is END: break
    if t.space == FIRST or t.kind is PRAGMA or starts:
      place = t.file.place(t.at)
      if place.file != file or not line <= place.line <= line + 8: lines.append(f'# {place.line} "{place.file}"')
      else: lines += [""] * (place.line - line)
      file, line = place.file, place.line + 1
      lines.append(f"#pragma {t.text}" if t.kind is PRAGMA else t.text)
      starts = t.kind is PRAGMA
    else: lines[-1] += (" " if t.space or glues(lines[-1], t.text) else "") + t.text
  return "\n".join(lines) + "\n"

def glues(before: str, text: str) -> bool:
  """Whether two tokens would read as another one without a space between them."""
  last, first = before[-1:], text[:1]
  words = (last.isalnum() or last in "_$.") and (first.isalnum() or first in "_$.\"'")
  return words or last + first in PUNCTUATORS or last + first in ("//", "/*", "..")
