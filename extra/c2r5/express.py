# express.py: the grammar of expressions (C11 6.5), read by recursive descent; binary operators by precedence. In:
# tokens. Out: typed nodes (tree.py). What an expression contains of types, initialisers and statements is read by the
# classes that build on this one: declare.py and parse.py. Above each function stands the rule it reads.
from __future__ import annotations
from typing import Any, Callable, NamedTuple, TypeVar
from .abi import assigner
from .constant import NotConstant, constant_value, integer_constant, round_to
from .ctype import (Array, CHAR_SIGNED, CHAR_UNSIGNED, DOUBLE, FLOAT, INT, Integer, LONG, LONG_LONG, Machine, Pointer,
                    Type, UNSIGNED, UNSIGNED_LONG, UNSIGNED_LONG_LONG, UNSIGNED_SHORT, VOID, compatible,
                    same_qualifiers)
from .lex import CHARACTER, Diagnostics, Failure, IDENTIFIER, NUMBER, STRING, Token
from .literal import Number, WIDTHS, code_units, read_character, read_number, split_prefix
from .tree import JUMPS, Label, Node, Object, Trees, bit_width

# ---- words -----------------------------------------------------------------------------------------------------------

SPELLINGS = {
  **{f"__{word}{end}": word for end in ("", "__")
     for word in ("const", "volatile", "inline", "restrict", "signed", "asm", "typeof")},
  "__attribute": "__attribute__", "__alignof": "_Alignof", "__alignof__": "_Alignof", "__thread": "_Thread_local",
  "__real": "__real__", "__imag": "__imag__"}
STORAGE = frozenset({"typedef", "extern", "static", "auto", "register"})
QUALIFIERS = frozenset({"const", "volatile", "restrict", "_Atomic"})
BASIC = frozenset({"void", "_Bool", "char", "short", "int", "long", "float", "double", "signed", "unsigned",
                   "_Complex"})
TYPE_WORDS = STORAGE | QUALIFIERS | BASIC | {
  "struct", "union", "enum", "typeof", "__typeof_unqual__", "inline", "_Noreturn", "_Alignas", "_Thread_local",
  "__attribute__", "_Static_assert"}
STATEMENT_WORDS = frozenset({"if", "else", "while", "do", "for", "switch", "case", "default", "break", "continue",
                             "goto", "return", "asm"})
RESERVED = TYPE_WORDS | STATEMENT_WORDS | {"sizeof", "_Alignof", "_Generic"}

class Typedef(NamedTuple):
  type: Type
class Constant(NamedTuple):
  """An enumeration constant."""
  value: int
  type: Type
Meaning = Typedef | Constant | Object           # of a name

class Scope:
  def __init__(self) -> None:
    self.names: dict[str, Meaning] = {}
    self.tags: dict[str, Type] = {}

def respelled(t: Token) -> Token:
  """A new token: those of headers serve several programs."""
  return Token(t.kind, SPELLINGS[t.text], t.file, t.at, t.space)

T = TypeVar("T")

# ---- reading tokens --------------------------------------------------------------------------------------------------

class Reader:
  """The tokens, the one that is next, and what names mean here."""
  MAX_DEPTH = 1000

  def __init__(self, tokens: list[Token], machine: Machine, diagnostics: Diagnostics):
    self.tokens = [respelled(t) if t.text in SPELLINGS else t for t in tokens if t.text != "__extension__"]
    self.at, self.token, self.text = 0, self.tokens[0], self.tokens[0].text
    self.depth = 0
    self.machine, self.diagnostics = machine, diagnostics
    self.trees = Trees(machine, diagnostics)
    self.char = CHAR_SIGNED if machine.char_is_signed else CHAR_UNSIGNED
    self.scopes = [Scope()]

  def advance(self) -> Token:
    """Steps over a token and returns it. The END stays."""
    passed = self.token
    if self.at < len(self.tokens) - 1: self.at += 1
    self.token = self.tokens[self.at]
    self.text = self.token.text
    return passed
  def go_to(self, at: int) -> None:
    self.at, self.token = at, self.tokens[at]
    self.text = self.token.text
  def peek(self) -> Token: return self.tokens[min(self.at + 1, len(self.tokens) - 1)]
  def accept(self, text: str) -> bool:
    if self.text != text: return False
    self.advance()
    return True
  def expect(self, text: str) -> Token:
    if self.text != text: raise self.unexpected(f"expected '{text}'")
    return self.advance()
  def parenthesized(self, read: Callable[[], T]) -> T:
    """"(" .. ")" """
    self.expect("(")
    found = read()
    self.expect(")")
    return found
  def listed(self, read: Callable[[], T]) -> list[T]:
    """.. { "," .. }"""
    found = [read()]
    while self.accept(","): found.append(read())
    return found
  def unexpected(self, wanted: str) -> Failure:
    """At the end of the line before, where it is usually missing."""
    what = f"'{self.text}'" if self.text else self.token.kind
    return Failure(self.token, f"{wanted} before {what}")

  def word(self) -> Token:
    if self.token.kind is not IDENTIFIER: raise self.unexpected("expected identifier")
    return self.advance()

  def nested(self, read: Callable[[], T]) -> T:
    """Reads what may contain its like: up to so many levels."""
    self.depth += 1
    if self.depth > self.MAX_DEPTH: raise Failure(self.token, "nested too deeply")
    found = read()
    self.depth -= 1
    return found

  def find(self, name: str) -> Meaning | None:
    for scope in reversed(self.scopes):
      if name in scope.names: return scope.names[name]
    return None
  def starts_type(self, token: Token) -> bool:
    if token.kind is not IDENTIFIER: return False
    if token.text in TYPE_WORDS: return token.text != "_Static_assert"
    return type(self.find(token.text)) is Typedef

# ---- expressions -----------------------------------------------------------------------------------------------------

LEVELS = {"||": 1, "&&": 2, "|": 3, "^": 4, "&": 5, "==": 6, "!=": 6, "<": 7, "<=": 7, ">": 7, ">=": 7, "<<": 8,
          ">>": 8, "+": 9, "-": 9, "*": 10, "/": 10, "%": 10}
ASSIGNMENTS = frozenset({"=", "+=", "-=", "*=", "/=", "%=", "<<=", ">>=", "&=", "|=", "^="})
INTEGERS = (INT, UNSIGNED, LONG, UNSIGNED_LONG, LONG_LONG, UNSIGNED_LONG_LONG)
FLOATINGS = {"": DOUBLE, "f": FLOAT, "f32": FLOAT, "f64": DOUBLE, "f32x": DOUBLE}

class Expressions(Reader):
  def __init__(self, tokens: list[Token], machine: Machine, diagnostics: Diagnostics):
    super().__init__(tokens, machine, diagnostics)
    self.strings: dict[tuple, Object] = {}
    self.statics: list[Object] = []                # objects without a name of their own, and static locals
    self.function: Object | None = None            # whose body is being read
    self.labels: dict[str, Label] = {}
    self.addressed: list[Label] = []               # labels whose address is taken
    self.tables: dict[Object, Object] = {}         # function -> its jumps to them, where code has such a table
    self.characters = {"": self.char, "u8": self.char, "L": INT, "u": UNSIGNED_SHORT, "U": UNSIGNED}

  # what the classes above know how to read
  def type_name(self) -> Type: raise NotImplementedError
  def compound_statement(self) -> Node: raise NotImplementedError
  def compound_literal(self, type: Type, token: Token) -> Node: raise NotImplementedError
  def declare_implicitly(self, name: Token) -> Object: raise NotImplementedError

  def expression(self) -> Node:
    """expression = assignment { "," assignment }"""
    node = self.assignment()
    while self.text == ",":
      token = self.advance()
      right = self.trees.value(self.assignment())
      node = Node("comma", right.type.plain, token, (self.trees.value(node), right))
    return node

  def assignment(self) -> Node:
    """assignment = unary assignment-operator assignment | conditional"""
    left = self.conditional()
    if self.text not in ASSIGNMENTS: return left
    token = self.advance()
    right = self.nested(self.assignment)
    if token.text == "=": return self.trees.assign(left, right, token)
    self.trees.modifiable(left, token, "left operand of assignment")
    return self.trees.updated("update", token.text[:-1], left, right, token)

  def conditional(self) -> Node:
    """conditional = binary [ "?" [ expression ] ":" conditional ]"""
    test = self.binary(1)
    if self.text != "?": return test
    token = self.advance()
    if self.text != ":": yes = self.nested(self.expression)
    else:                                                                # GNU: x ?: y
      test = self.trees.value(test)
      yes = test = Node("once", test.type, token, (test,))
    self.expect(":")
    return self.trees.conditional(test, yes, self.nested(self.conditional), token)

  def constant_expression(self, what: str) -> int:
    """constant-expression = conditional"""
    token = self.token
    return integer_constant(self.trees.value(self.conditional()), token, what)

  def binary(self, level: int) -> Node:
    """binary = cast { operator binary-of-a-higher-level }"""
    left = self.cast()
    while LEVELS.get(self.text, 0) >= level:
      token = self.advance()
      left = self.trees.binary(token.text, left, self.binary(LEVELS[token.text] + 1), token)
    return left

  def cast(self) -> Node:
    """cast = "(" type-name ")" ( cast | compound-literal ) | unary"""
    if self.text != "(" or not self.starts_type(self.peek()): return self.unary()
    token = self.token
    t = self.nested(lambda: self.parenthesized(self.type_name))
    if self.text == "{": return self.postfix(self.compound_literal(t, token))
    return self.trees.explicit_cast(self.nested(self.cast), t, token)

  def unary(self) -> Node:
    """unary = postfix | ("++" | "--") unary | ("&" | "*" | "+" | "-" | "~" | "!") cast | "&&" label
    | ("sizeof" | "_Alignof") ( unary | "(" type-name ")" )"""
    token = self.token
    if token.text not in UNARY: return self.postfix(self.primary())
    operator = self.advance().text
    if operator in ("sizeof", "_Alignof"): return self.measure(token)
    if operator == "&&": return self.label_address(token)
    if operator in ("++", "--"): return self.trees.step("update", operator[0], self.nested(self.unary), token)
    node = self.nested(self.cast)
    if operator == "*": return self.trees.dereference(node, token)
    if operator == "&": return self.trees.address(node, token)
    if operator in ("__real__", "__imag__"): raise Failure(token, "complex numbers are not supported")
    return self.trees.unary(operator, node, token)

  def measure(self, token: Token) -> Node:
    if self.text == "(" and self.starts_type(self.peek()):
      t = self.parenthesized(self.type_name)
      if self.text == "{": t = self.postfix(self.compound_literal(t, token)).type
    else:
      node = self.nested(self.unary)
      if bit_width(node) is not None: raise Failure(token, f"'{token.text}' applied to a bit-field")
      t = node.type
      own = node.arg.align if node.kind == "variable" else 0
      if token.text == "_Alignof" and own: return self.trees.number(own, UNSIGNED_LONG, token)
    if token.text == "sizeof": return self.trees.size_of(t, token)
    if t.is_record and not t.is_complete:
      raise Failure(token, f"invalid application of '_Alignof' to incomplete type '{t}'")
    return self.trees.number(t.align, UNSIGNED_LONG, token)

  def label_address(self, token: Token) -> Node:
    """GNU: the address of a label: of a jump to it, or where LLVM makes the code a number that `goto *` understands."""
    name = self.word()
    if self.function is None: raise Failure(token, "label address outside of a function")
    label = self.labels.setdefault(name.text, Label(name.text, name))
    if label not in self.addressed:
      self.addressed.append(label)
      label.number = len(self.addressed)
    if not self.machine.has_jump_tables: return Node("number", Pointer(VOID), token, (), label.number)
    table = self.tables.setdefault(self.function, Object(JUMPS + self.function.symbol, self.char, token, "static"))
    first, after = self.trees.variable(table, token), self.trees.number(4 * (label.number - 1), LONG, token)
    place = self.trees.offset("pointer_add", self.trees.address(first, token), after, token)
    return self.trees.cast(place, Pointer(VOID))

  def postfix(self, node: Node) -> Node:
    """postfix = primary { "[" expression "]" | "(" [ arguments ] ")" | ("." | "->") name | "++" | "--" }"""
    while self.text in POSTFIX:
      token = self.advance()
      if token.text == "[":
        node = self.trees.index(node, self.nested(self.expression), token)
        self.expect("]")
      elif token.text == "(": node = self.trees.call(node, self.arguments(), token)
      elif token.text in ("++", "--"): node = self.trees.step("postfix", token.text[0], node, token)
      else:
        if token.text == "->": node = self.trees.dereference(node, token)
        node = self.trees.member(node, self.word(), token)
    return node

  def arguments(self) -> list[Node]:
    """arguments = [ assignment { "," assignment } ] ")" """
    given = [] if self.text == ")" else self.listed(lambda: self.nested(self.assignment))
    self.expect(")")
    return given

  # ---- primary expressions ----

  def primary(self) -> Node:
    """primary = identifier | number | character | string { string } | "(" expression ")" | "(" "{" .. "}" ")"
    | generic"""
    token = self.token
    if token.kind is IDENTIFIER:
      if token.text in PRIMARY_WORDS: return PRIMARY_WORDS[token.text](self)
      return self.identifier(self.advance())
    if token.kind is NUMBER: return self.number(self.advance())
    if token.kind is STRING: return self.string()
    if token.kind is CHARACTER:
      prefix, value = read_character(self.advance())
      if prefix: return self.trees.number(self.characters[prefix].wrap(value), self.characters[prefix], token)
      return self.trees.number(self.char.wrap(value) if value < 256 else INT.wrap(value), INT, token)
    if token.text != "(": raise self.unexpected("expected expression")
    read = self.statement_expression if self.peek().text == "{" else self.expression
    return self.nested(lambda: self.parenthesized(read))

  def statement_expression(self) -> Node:
    """GNU: ({ statements }) has the value of its last expression."""
    token = self.token
    if self.function is None: raise Failure(token, "braced-group within expression allowed only inside a function")
    block = self.compound_statement()
    last = block.arg[-1] if block.arg else None
    while last is not None and last.kind == "label": last = last.src[0]
    if last is None or last.kind != "expression": return Node("statements", VOID, token, (), block.arg)
    value = self.trees.value(last.src[0])
    last.kind, last.src = "empty", ()
    return Node("statements", value.type.plain, token, (value,), block.arg)

  def identifier(self, name: Token) -> Node:
    if name.text in RESERVED: raise Failure(name, f"expected expression before '{name.text}'")
    meaning = self.find(name.text)
    if isinstance(meaning, Object): return self.trees.variable(meaning, name)
    if isinstance(meaning, Constant): return self.trees.number(meaning.value, meaning.type, name)
    if meaning is not None: raise Failure(name, f"expected expression before '{name.text}'")
    if name.text in FUNCTION_NAMES and self.function is not None: return self.function_name(name)
    if self.text == "(": return self.trees.variable(self.declare_implicitly(name), name)
    where = " (first use in this function)" if self.function else " here (not in a function)"
    raise Failure(name, f"'{name.text}' undeclared{where}")

  def function_name(self, name: Token) -> Node:
    assert self.function is not None, "only functions have a name"
    text = [*self.function.name.encode(), 0]
    return self.trees.variable(self.string_object(text, self.char.qualified(const=True), name), name)

  def number(self, token: Token) -> Node:
    number = read_number(token)
    if isinstance(number.value, int): return self.integer(number, token)
    t = FLOATINGS.get(number.suffix, self.machine.long_double)
    return self.trees.number(round_to(t, number.value), t, token)

  def integer(self, number: Number, token: Token) -> Node:
    least, is_unsigned = INT.rank + number.suffix.count("l"), "u" in number.suffix
    for t in INTEGERS:                                                   # C11 6.4.4.1p5
      fits = t.rank >= least and number.value <= t.largest
      if fits and (not is_unsigned if t.signed else is_unsigned or not number.decimal):
        return self.trees.number(int(number.value), t, token)
    if number.value > UNSIGNED_LONG.largest: self.trees.warn(token, "integer constant is too large for its type")
    return self.trees.number(UNSIGNED_LONG.wrap(int(number.value)), UNSIGNED_LONG, token)

  def string(self) -> Node:
    """string = string-literal { string-literal }"""
    parts = []
    while self.token.kind is STRING: parts.append(self.advance())
    prefix = next((p for p in (split_prefix(t.text)[0] for t in parts) if p), "")
    units = [unit for t in parts for unit in code_units(t, WIDTHS[prefix])]
    return self.trees.variable(self.string_object([*units, 0], self.characters[prefix], parts[0]), parts[0])

  def string_object(self, units: list[int], of: Type, token: Token) -> Object:
    """The object that holds a string; equal strings share it."""
    assert isinstance(of, Integer), "strings are made of characters"
    key = (of.name, of.const, tuple(units))
    if key not in self.strings:
      data = b"".join((unit & (1 << 8 * of.size) - 1).to_bytes(of.size, "little") for unit in units)
      self.strings[key] = self.static_object("", ".str", Array(of, len(units)), token, data)
      self.strings[key].attributes.add("string")
    return self.strings[key]

  def static_object(self, name: str, symbol: str, t: Type, token: Token, data: Any = None) -> Object:
    """What is in the object file under a name of ours."""
    object = Object(name, t, token, "static")
    object.symbol, object.is_local_symbol = f"{symbol}.{len(self.statics)}", True
    object.data, object.is_defined = data, data is not None
    self.statics.append(object)
    return object

  def generic(self) -> Node:
    """generic = "_Generic" "(" assignment { "," ( type-name | "default" ) ":" assignment } ")" """
    token = self.advance()
    self.expect("(")
    t = self.trees.value(self.assignment()).type.plain
    listed: list[tuple[Type | None, Node]] = []                          # None: default
    while self.accept(","):
      candidate = None if self.accept("default") else self.type_name()
      self.expect(":")
      node = self.assignment()
      if any(candidate is other or candidate and other and same_qualifiers(candidate, other) and
             compatible(candidate, other) for other, _ in listed):
        raise Failure(token, "'_Generic' has two associations for one type")
      if candidate and not candidate.is_complete:
        raise Failure(token, f"'_Generic' association has incomplete type '{candidate}'")
      listed.append((candidate, node))
    self.expect(")")
    fitting = [node for candidate, node in listed if candidate and compatible(candidate, t) and not candidate.const]
    fitting += [node for candidate, node in listed if candidate is None]
    if not fitting: raise Failure(token, f"'_Generic' selector of type '{t}' is not compatible with any association")
    return fitting[0]

  # ---- builtins that are no functions: they take types, or are part of the machine ----

  def argument_class(self) -> Node:
    """"__builtin_va_class" "(" type-name ")": a letter for each register that a variable argument of the type takes, f
    for floats, i for others; nothing if it goes on the stack."""
    token = self.advance()
    passing = assigner(self.machine).argument(self.parenthesized(self.type_name), True)
    letters = [] if passing.on_stack else ["f" if p.dtype.kind == "f" else "i" for p in passing.pieces]
    return self.trees.variable(self.string_object([*map(ord, letters), 0], self.char, token), token)

  def choose(self) -> Node:
    """"__builtin_choose_expr" "(" constant "," assignment "," assignment ")" """
    token = self.advance()
    given = self.parenthesized(lambda: self.listed(self.assignment))
    if len(given) != 3: raise Failure(token, "'__builtin_choose_expr' takes three arguments")
    return given[1 if integer_constant(self.trees.value(given[0]), token, "what '__builtin_choose_expr' tests") else 2]

  def is_constant(self) -> Node:
    """"__builtin_constant_p" "(" expression ")" """
    token = self.advance()
    node = self.trees.value(self.parenthesized(self.expression))
    try: known = isinstance(constant_value(node), (int, float)) or node.type.is_floating
    except (NotConstant, Failure): known = False
    return self.trees.number(int(known), INT, token)

UNARY = frozenset({"++", "--", "&", "*", "+", "-", "~", "!", "&&", "sizeof", "_Alignof", "__real__", "__imag__"})
POSTFIX = frozenset({"[", "(", ".", "->", "++", "--"})
FUNCTION_NAMES = frozenset({"__func__", "__FUNCTION__", "__PRETTY_FUNCTION__"})
PRIMARY_WORDS = {
  "_Generic": Expressions.generic, "__builtin_choose_expr": Expressions.choose,
  "__builtin_constant_p": Expressions.is_constant, "__builtin_va_class": Expressions.argument_class}
