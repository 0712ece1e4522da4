# declare.py: the grammar of declarations (C11 6.7): specifiers, structures, enumerations, declarators, initialisers.
# In: tokens. Out: types and Objects in scopes; an initialiser as a flat list of Leafs, in the order they were written.
from __future__ import annotations
from dataclasses import dataclass, field as default, replace
from functools import partial
from typing import Any, Callable, Container, NamedTuple
from .constant import NotConstant, constant_value
from .ctype import (Array, BOOL, DOUBLE, Enum, FLOAT, Field, FunctionType, INT, Integer, LONG, LONG_LONG, Machine,
                    Member, Pointer, Record, SHORT, SIGNED_CHAR, Type, UNSIGNED, UNSIGNED_CHAR, UNSIGNED_LONG,
                    UNSIGNED_LONG_LONG, UNSIGNED_SHORT, VOID, compatible, decayed, lay_out)
from .express import BASIC, Constant, Expressions, QUALIFIERS, RESERVED, STORAGE, Scope, Typedef
from .lex import Diagnostics, END, Failure, IDENTIFIER, PRAGMA, STRING, Token
from .literal import WIDTHS, code_units, split_prefix
from .tree import Node, Object

# ---- what a declaration is made of -----------------------------------------------------------------------------------

@dataclass
class Attributes:
  """What __attribute__, _Alignas and asm("name") say."""
  align: int | None = None
  words: set[str] = default(default_factory=set)      # packed, weak, constructor ..; inline, _Thread_local ..
  section: str | None = None
  alias: str | None = None
  symbol: str | None = None
  cleanup: Token | None = None
  mode: Token | None = None

  def for_declarator(self) -> "Attributes":
    """What each declarator starts from; the mode is in the specifiers' type already."""
    return replace(self, words=set(self.words), mode=None)

class Specifiers(NamedTuple):
  type: Type
  storage: str                                        # one of STORAGE without _Thread_local, or ''
  attributes: Attributes

class Signature(NamedTuple):
  """The parameters of a function declarator."""
  params: list[Object]                                # without a name: ''
  variadic: bool
  names: list[Token]                                  # of a K&R definition
  scope: Scope
  has_prototype: bool

class Declarator(NamedTuple):
  name: Token | None
  type: Type
  signature: Signature | None                         # if it is a function's

Wrap = Callable[[Type], Type]                         # one step of a declarator: pointer to, array of, function giving

class Leaf(NamedTuple):
  """One scalar, or whole record, that an initialiser sets: at byte `offset`; of a bit-field, `member` says where."""
  offset: int
  type: Type
  node: Node
  member: Member | None = None

# words -> (signed, unsigned)
PAIRS = {("short",): (SHORT, UNSIGNED_SHORT), (): (INT, UNSIGNED), ("long",): (LONG, UNSIGNED_LONG),
         ("long", "long"): (LONG_LONG, UNSIGNED_LONG_LONG)}
# specifier words, sorted -> type
TYPES: dict[tuple[str, ...], Type] = {
  ("void",): VOID, ("_Bool",): BOOL, ("char", "signed"): SIGNED_CHAR, ("char", "unsigned"): UNSIGNED_CHAR,
  ("float",): FLOAT, ("double",): DOUBLE,
  **{tuple(sorted([*words, *extra.split()])): pair["unsigned" in extra] for words, pair in PAIRS.items()
     for extra in ("", "int", "signed", "signed int", "unsigned", "unsigned int")}}
MODES = {**dict.fromkeys(("QI", "byte"), (SIGNED_CHAR, UNSIGNED_CHAR)), "HI": PAIRS["short",], "SI": PAIRS[()],
         **dict.fromkeys(("DI", "word", "pointer"), PAIRS["long",])}

class Declarations(Expressions):
  def __init__(self, tokens: list[Token], machine: Machine, diagnostics: Diagnostics):
    super().__init__(tokens, machine, diagnostics)
    self.pack: list[int | None] = [None]              # of #pragma pack, the innermost last
    self.types = TYPES | {("char",): self.char, ("double", "long"): machine.long_double}
    words = dict(zip(("_Float128", "__float128", "_Float64x"), 3 * [machine.long_double])) | {
      "_Float32": FLOAT, "_Float32x": DOUBLE, "_Float64": DOUBLE, "__auto_type": AUTO}
    self.scopes[0].names.update((word, Typedef(t)) for word, t in words.items())

  # ---- specifiers ----

  def specifiers(self) -> Specifiers:
    """specifiers = { storage-class | qualifier | function-specifier | alignment | attribute | type-specifier }"""
    words: list[str] = []
    flags: set[str] = set()
    storage, found, attributes = "", None, Attributes()
    start = self.token
    while self.token.kind is IDENTIFIER:
      text = self.text
      if text in BASIC: words.append(self.advance().text)
      elif text in FLAGS:
        flags.add(self.advance().text)
        if text == "_Atomic" and self.text == "(": found = self.parenthesized(self.type_name)
      elif text in STORAGE:
        if storage not in ("", text): raise Failure(self.token, "multiple storage classes in declaration specifiers")
        storage = self.advance().text
      elif self.accept("_Alignas"):
        self.set_alignment(attributes, self.parenthesized(self.alignment))
        attributes.words.add("_Alignas")
      elif self.accept("__attribute__"): self.attribute(attributes)
      elif text in ("struct", "union"): found = self.record()
      elif text == "enum": found = self.enumeration()
      elif text in ("typeof", "__typeof_unqual__"): found = self.type_of()
      else:
        meaning = None if found is not None or words else self.find(text)
        if type(meaning) is not Typedef: break
        found = meaning.type
        self.advance()
    t = in_mode(self.basic_type(words, found, start), attributes.mode)
    attributes.words |= flags - QUALIFIERS
    return Specifiers(qualified_by(flags, t), storage, attributes)

  def basic_type(self, words: list[str], found: Type | None, start: Token) -> Type:
    if found is not None:
      if words: raise Failure(start, "two or more data types in declaration specifiers")
      return found
    if not words:
      self.trees.warn(start, "type defaults to 'int' in declaration")
      return INT
    if "_Complex" in words: raise Failure(start, "complex numbers are not supported")
    t = self.types.get(tuple(sorted(words)))
    if t is None: raise Failure(start, f"'{' '.join(words)}' is not a type")
    return t

  def type_of(self) -> Type:
    """typeof = ( "typeof" | "__typeof_unqual__" ) "(" ( type-name | expression ) ")" """
    word = self.advance().text
    t = self.parenthesized(lambda: self.type_name() if self.starts_type(self.token) else self.expression().type)
    return t if word == "typeof" else t.plain

  def alignment(self) -> int:
    """alignment = "_Alignas" "(" ( type-name | constant-expression ) ")" """
    return self.type_name().align if self.starts_type(self.token) else self.constant_expression("alignment")

  def set_alignment(self, attributes: Attributes, align: int) -> None:
    if align < 0 or align & (align - 1) or align > 1 << 28:
      raise Failure(self.token, f"requested alignment '{align}' is not a positive power of 2")
    attributes.align = max(attributes.align or 0, align) or None

  def attributes(self, into: Attributes) -> Attributes:
    """attributes = { "__attribute__" "(" "(" [ attribute { "," attribute } ] ")" ")" | "asm" "(" string ")" }"""
    while True:
      if self.accept("__attribute__"): self.attribute(into)
      elif self.text == "asm" and self.peek().text == "(":
        self.advance()
        into.symbol = self.parenthesized(self.text_of_strings)
      else: return into

  def text_of_strings(self) -> str:
    units: list[int] = []
    if self.token.kind is not STRING: raise self.unexpected("expected string literal")
    while self.token.kind is STRING: units += code_units(self.advance(), 1)
    return bytes(units).decode("utf-8", "surrogateescape")

  def attribute(self, into: Attributes) -> None:
    self.parenthesized(lambda: self.parenthesized(lambda: self.attribute_list(into)))

  def attribute_list(self, into: Attributes) -> None:
    while self.text != ")":
      if self.accept(","): continue
      name = self.advance().text.strip("_")
      into.words.add(name)
      if self.text == "(": self.parenthesized(partial(self.attribute_argument, name, into))

  def attribute_argument(self, name: str, into: Attributes) -> None:
    if name == "aligned": self.set_alignment(into, self.constant_expression("alignment"))
    elif name in ("section", "alias"): setattr(into, name, self.text_of_strings())
    elif name == "cleanup": into.cleanup = self.advance()
    elif name == "mode": into.mode = self.advance()
    elif name == "vector_size": raise Failure(self.token, "vector types are not supported")
    else: self.skip_balanced()

  def skip_balanced(self) -> None:
    """Up to the parenthesis that closes the one just read."""
    depth = 0
    while self.token.kind is not END and (depth or self.text != ")"):
      depth += {"(": 1, ")": -1}.get(self.text, 0)
      self.advance()

  # ---- structures, unions, enumerations ----

  def record(self) -> Type:
    """record = ( "struct" | "union" ) { attribute } ( [ name ] "{" { member-declaration } "}" { attribute } | name )"""
    kind = self.advance().text
    t, attributes = self.tagged(kind, lambda tag: Record(kind, tag))
    assert isinstance(t, Record), "what is tagged is of its kind"
    if not self.accept("{"): return t
    fields: list[Field] = []
    while self.text != "}": self.members(t, fields)
    self.check_flexible(t, fields)
    self.expect("}")
    self.attributes(attributes)
    t.body.transparent = "transparent_union" in attributes.words
    lay_out(t, fields, "packed" in attributes.words, attributes.align or 1, self.pack[-1])
    return t

  def tagged(self, kind: str, make: Callable[[str | None], Type]) -> tuple[Type, Attributes]:
    """{ attribute } [ name ]: a type with a tag, or a new one. The innermost scope gets its own where it is defined."""
    attributes = self.attributes(Attributes())
    if self.token.kind is not IDENTIFIER:
      if self.text != "{": raise self.unexpected(f"expected '{{' or a tag after '{kind}'")
      return make(None), attributes
    tag = self.advance().text
    scopes = self.scopes[-1:] if self.text in ("{", ";") else self.scopes[::-1]
    known = next((scope.tags[tag] for scope in scopes if tag in scope.tags), None)
    t = known or self.scopes[-1].tags.setdefault(tag, make(tag))
    if str(t) != f"{kind} {tag}": raise Failure(self.token, f"'{t}' defined as wrong kind of tag")
    if self.text == "{" and t.is_complete: raise Failure(self.token, f"redefinition of '{t}'")
    return t, attributes

  def members(self, record: Record, fields: list[Field]) -> None:
    """member-declaration = specifiers [ member { "," member } ] ";" | static-assertion"""
    if self.text == "_Static_assert": return self.static_assertion()
    if self.token.kind is PRAGMA: return self.pragma()
    if self.accept(";"): return
    if self.token.kind is END: raise Failure(self.token, f"expected '}}' at the end of '{record}'")
    if not self.starts_type(self.token): raise self.unexpected("expected specifier-qualifier-list")
    base = self.specifiers()
    if self.text == ";" and isinstance(base.type, Record) and base.type.body.tag is None:
      self.check_names(fields, list(base.type.body.fields))
      fields.append(Field(None, base.type))
    if self.text not in (";", "}"):
      self.listed(lambda: fields.append(self.one_member(base, fields)))
    if self.text == "}": self.trees.warn(self.token, "no semicolon at end of struct or union")
    else: self.expect(";")

  def check_names(self, fields: list[Field], names: list[str]) -> None:
    """Members that come with a record without a name are the outer one's too."""
    taken = {name for f in fields for name in (f.type.body.fields if f.name is None and isinstance(f.type, Record)
                                               else (f.name,))}
    for name in names:
      if name in taken: raise Failure(self.token, f"duplicate member '{name}'")

  def check_flexible(self, record: Record, fields: list[Field]) -> None:
    for k, field in enumerate(fields):
      if not isinstance(field.type, Array) or field.type.length is not None: continue
      if record.is_union or k < len(fields) - 1: raise Failure(self.token, "flexible array member not at end of struct")
      if k == 0: raise Failure(self.token, "flexible array member in a struct with no other members")

  def one_member(self, base: Specifiers, fields: list[Field]) -> Field:
    """member = declarator [ ":" constant-expression ] | ":" constant-expression"""
    start = self.token
    declared = Declarator(None, base.type, None) if self.text == ":" else self.declarator(base.type)
    name = declared.name.text if declared.name is not None else None
    width = None
    if self.accept(":"): width = self.bit_field_width(declared, start)
    attributes = self.attributes(base.attributes.for_declarator())
    t = in_mode(declared.type, attributes.mode)
    if t.is_function: raise Failure(start, f"field '{name}' declared as a function")
    if not t.is_complete and not (isinstance(t, Array) and t.length is None and t.of.is_complete):
      raise Failure(start, f"field '{name}' has incomplete type '{t}'")
    if t.is_variable: raise Failure(start, f"field '{name}' has a variable size")
    if name is not None: self.check_names(fields, [name])
    elif width is None: raise self.unexpected("expected identifier")
    return Field(name, t, width, attributes.align, "packed" in attributes.words)

  def bit_field_width(self, declared: Declarator, start: Token) -> int:
    width = self.constant_expression("bit-field width")
    if not isinstance(declared.type, Integer): raise Failure(start, "bit-field has invalid type")
    limit = 1 if declared.type.is_bool else 8 * declared.type.size
    if not 0 <= width <= limit: raise Failure(start, f"width of bit-field ({width} bits) exceeds the width of its type")
    if width == 0 and declared.name is not None:
      raise Failure(start, f"zero width for bit-field '{declared.name.text}'")
    return width

  def enumeration(self) -> Type:
    """enumeration = "enum" { attribute } ( [ name ] "{" enumerator { "," enumerator } [ "," ] "}" | name )"""
    t, attributes = self.tagged(self.advance().text, Enum)
    assert isinstance(t, Enum), "what is tagged is of its kind"
    if not self.accept("{"): return t
    values: list[int] = []
    while not values or self.text != "}":
      values.append(self.enumerator(values[-1] + 1 if values else 0))
      if not self.accept(","): break
    self.expect("}")
    self.attributes(attributes)
    base = next(b for b in (UNSIGNED, INT, LONG, UNSIGNED_LONG) if all(b.least <= v <= b.largest for v in values) or
                b is UNSIGNED_LONG)
    t.is_complete = True
    t.name, t.size, t.align, t.signed = base.name, base.size, base.align, base.signed
    t.rank, t.dtype = base.rank, base.dtype
    return t

  def enumerator(self, value: int) -> int:
    """enumerator = name { attribute } [ "=" constant-expression ]"""
    name = self.word()
    self.attributes(Attributes())
    if self.accept("="): value = self.constant_expression(f"enumerator value for '{name.text}'")
    t = next((b for b in (INT, UNSIGNED, LONG) if b.least <= value <= b.largest), UNSIGNED_LONG)
    self.check_new(name)
    self.scopes[-1].names[name.text] = Constant(value, t)
    return value

  def check_new(self, name: Token) -> None:
    is_parameter = self.function is not None and len(self.scopes) == 3 and name.text in self.scopes[1].names
    if is_parameter or name.text in self.scopes[-1].names: raise Failure(name, f"redeclaration of '{name.text}'")

  def static_assertion(self) -> None:
    """static-assertion = "_Static_assert" "(" constant-expression [ "," string ] ")" ";" """
    token = self.advance()
    self.expect("(")
    holds = self.constant_expression("expression in static assertion")
    message = f': "{self.text_of_strings()}"' if self.accept(",") else ""
    self.expect(")")
    self.expect(";")
    if not holds: raise Failure(token, f"static assertion failed{message}")

  def pragma(self) -> None:
    words = self.advance().text.split()
    if words[:1] != ["pack"]: return
    inside = [w for w in words[1:] if w not in "(),"]
    numbers = [int(w) for w in inside if w.isdigit()]
    if "push" in inside: self.pack.append(self.pack[-1])
    if "pop" in inside:
      if len(self.pack) > 1: self.pack.pop()
    elif numbers or not inside: self.pack[-1] = numbers[0] if numbers else None

  # ---- declarators ----

  def declarator(self, base: Type) -> Declarator:
    """declarator = { "*" { qualifier } } ( name | "(" declarator ")" | ) { "[" .. "]" | "(" parameters ")" }"""
    name, steps, signature = self.declarator_steps()
    for step in steps: base = step(base)
    return Declarator(name, base, signature)

  def declarator_steps(self) -> tuple[Token | None, list[Wrap], Signature | None]:
    """(name, the steps that lead from the specifiers' type to the declared one, the parameters of the function that the
    name is, if it is one)"""
    pointers: list[Wrap] = []
    while self.text in ("*", "__attribute__"):
      if self.accept("__attribute__"): self.attribute(Attributes())
      else: pointers.append(self.pointer())
    name, signature = None, None
    inner: list[Wrap] = []
    if self.text == "(" and self.opens_declarator():
      name, inner, signature = self.nested(lambda: self.parenthesized(self.declarator_steps))
    elif self.token.kind is IDENTIFIER and self.text not in RESERVED: name = self.advance()
    suffixes: list[Wrap] = []
    while self.text in ("[", "("):
      if self.text == "[": suffixes.append(self.array_suffix())
      else:
        own = self.parameters()
        if not inner and not suffixes: signature = own
        suffixes.append(self.function_suffix(own))
    return name, [*pointers, *reversed(suffixes), *inner], signature

  def opens_declarator(self) -> bool:
    """Whether a parenthesis is around a declarator, not around parameters."""
    following = self.peek()
    if following.text in ("*", "(", "[", "__attribute__"): return True
    return following.kind is IDENTIFIER and not self.starts_type(following)

  def pointer(self) -> Wrap:
    self.advance()
    found = set()
    while self.text in QUALIFIERS: found.add(self.advance().text)
    return lambda t: qualified_by(found, Pointer(t))

  def array_suffix(self) -> Wrap:
    """"[" { "static" | qualifier } [ assignment | "*" ] "]" """
    token = self.expect("[")
    while self.text == "static" or self.text in QUALIFIERS: self.advance()
    if self.peek().text == "]": self.accept("*")
    if self.accept("]"): return lambda t: self.array_of(t, None, token)
    node = self.trees.value(self.assignment())
    self.expect("]")
    if not node.type.is_integer: raise Failure(token, f"size of array has non-integer type '{node.type}'")
    try: length: Any = constant_value(node)
    except NotConstant: length = None
    if isinstance(length, int):
      if length < 0: raise Failure(token, "size of array is negative")
      if length >= 1 << 62: raise Failure(token, "size of array is too large")
      return lambda t: self.array_of(t, length, token)
    if self.function is None and len(self.scopes) == 1: raise Failure(token, "variable array size at file scope")
    count = self.trees.cast(node, UNSIGNED_LONG)
    return lambda t: self.array_of(t, None, token, count)

  def array_of(self, t: Type, length: int | None, token: Token, count: Node | None = None) -> Type:
    if t.is_function or t.is_void or not (t.is_complete or t.is_variable):
      raise Failure(token, f"array has incomplete element type '{t}'")
    if t.is_variable and count is None and length is not None: count = self.trees.number(length, UNSIGNED_LONG, token)
    return Array(t, length, count)

  def parameters(self) -> Signature:
    """parameters = "(" [ parameter { "," parameter } [ "," "..." ] | name { "," name } | "void" ] ")" """
    self.expect("(")
    scope = Scope()
    found: list[Object] = []
    names: list[Token] = []
    variadic = False
    self.scopes.append(scope)
    if self.text == "void" and self.peek().text == ")": self.advance()
    elif self.text != ")" and not self.starts_type(self.token) and self.token.kind is IDENTIFIER:
      names = self.listed(self.advance)
    elif self.text != ")":
      found.append(self.parameter(scope))
      while not variadic and self.accept(","):
        variadic = self.accept("...")
        if not variadic: found.append(self.parameter(scope))
    is_empty = self.tokens[self.at - 1].text == "("
    self.scopes.pop()
    self.expect(")")
    return Signature(found, variadic, names, scope, not is_empty and not names)

  def parameter(self, scope: Scope) -> Object:
    """parameter = specifiers declarator"""
    if not self.starts_type(self.token): raise self.unexpected("expected declaration specifiers or '...'")
    base = self.specifiers()
    if base.storage not in ("", "register"): raise Failure(self.token, "storage class specified for parameter")
    declared = self.declarator(base.type)
    self.attributes(Attributes())
    t = decayed(declared.type)
    if t.is_void: raise Failure(self.token, "'void' must be the only parameter")
    token = declared.name or self.token
    object = Object(token.text if declared.name else "", t, token, "automatic")
    object.is_register = base.storage == "register"
    if object.name in scope.names: raise Failure(token, f"redefinition of parameter '{object.name}'")
    if object.name: scope.names[object.name] = object
    return object

  def function_suffix(self, signature: Signature) -> Wrap:
    params = tuple(p.type for p in signature.params)
    token = self.token
    def wrap(t: Type) -> Type:
      if t.is_function or t.is_array: raise Failure(token, f"function returns '{t}'")
      return FunctionType(t.qualified(), params, signature.variadic, signature.has_prototype)
    return wrap

  def type_name(self) -> Type:
    """type-name = specifiers declarator-without-name"""
    token = self.token
    base = self.specifiers()
    if base.storage: raise Failure(token, "storage class in type name")
    declared = self.declarator(base.type)
    if declared.name is not None: raise Failure(declared.name, "unexpected name in type name")
    return declared.type

  # ---- initialisers ----

  def initializer(self, t: Type) -> tuple[Type, list[Leaf]]:
    """(t, its length completed; what it is initialised with)"""
    if t.is_variable and t.is_array: raise Failure(self.token, "variable-sized object may not be initialized")
    if t.plain is AUTO:
      node = self.trees.value(self.assignment())
      t = node.type.qualified(t.const, t.volatile)
      return t, [Leaf(0, t, node)]
    reader = Initializers(self)
    reader.element(t, 0)
    if isinstance(t, Array) and t.length is None and not t.is_variable:
      t = Array(t.of, reader.extent // max(t.of.size or 1, 1))
    return t, reader.leaves

class Initializers:
  """Reads one initialiser (C11 6.7.9). extent: how many bytes, from the start, it has named."""
  def __init__(self, parser: Declarations):
    self.parser = parser
    self.leaves: list[Leaf] = []
    self.extent = 0

  def put(self, offset: int, t: Type, node: Node, member: Member | None = None) -> None:
    self.leaves.append(Leaf(offset, t, node, member))
    self.extent = max(self.extent, offset + (t.size or 0))

  def element(self, t: Type, offset: int, member: Member | None = None) -> None:
    """initializer = assignment | "{" [ elements ] "}" | string, for an object of type t at offset"""
    token = self.parser.token
    if token.text == "{": return self.parser.nested(lambda: self.braced(t, offset, member))
    if isinstance(t, Array) and self.starts_string(t): return self.string(t, offset)
    node = self.parser.assignment()
    if t.is_array and node.kind == "compound" and compatible(t, node.type): return self.put(offset, node.type, node)
    if t.is_array: raise Failure(token, "invalid initializer")
    self.value(t, offset, node, token, member)

  def value(self, t: Type, offset: int, node: Node, token: Token, member: Member | None = None) -> None:
    self.put(offset, t, self.parser.trees.assigned(node, t, token, "initializing"), member)

  def starts_string(self, t: Type) -> bool:
    """Whether an array is initialised by a string, perhaps in parentheses, and not by what a string is part of."""
    p = self.parser
    first = p.at
    while p.tokens[first].text == "(": first += 1
    if p.tokens[first].kind is not STRING or not isinstance(t, Array) or not isinstance(t.of, Integer): return False
    after = next(k for k in range(first, len(p.tokens)) if p.tokens[k].kind is not STRING)
    if p.tokens[min(after + first - p.at, len(p.tokens) - 1)].text not in (",", ";", "}"): return False
    return WIDTHS[split_prefix(p.tokens[first].text)[0]] == t.of.size

  def string(self, t: Array, offset: int) -> None:
    p = self.parser
    if p.text == "(": return p.parenthesized(lambda: self.string(t, offset))
    token = p.token
    data, size = p.string().arg.data, t.of.size or 1
    if t.length is not None:
      if len(data) > (t.length + 1) * size: p.trees.warn(token, "initializer-string is too long for its array")
      data = data[:t.length * size]
    whole = Array(t.of.plain, len(data) // size)
    self.put(offset, whole, Node("bytes", whole, token, (), data))

  def braced(self, t: Type, offset: int, member: Member | None = None) -> None:
    p = self.parser
    token = p.expect("{")
    if isinstance(t, (Array, Record)):
      if isinstance(t, Array) and self.starts_string(t):
        self.string(t, offset)
        if p.text == "," and p.peek().text != "}": raise Failure(p.token, "excess elements in array initializer")
      else: self.elements(t, offset, 0, True)
    elif p.text == "}": self.value(t, offset, p.trees.number(0, INT, token), token, member)
    else: self.element(t, offset, member)
    if p.accept(",") and p.text != "}": self.excess()
    elif p.text != "}": raise p.unexpected("expected '}'")
    p.expect("}")

  def excess(self) -> None:
    p = self.parser
    p.trees.warn(p.token, "excess elements in initializer")
    while p.text != "}" and p.token.kind is not END:
      Initializers(p).element(INT, 0) if p.text == "{" else p.assignment()
      if not p.accept(","): break

  def parts(self, t: Type, offset: int, k: int) -> tuple[Type, int, Member | None] | None:
    """The k-th part of an array or record: (type, offset, the member if it is a bit-field)."""
    if isinstance(t, Array):
      return None if t.length is not None and k >= t.length else (t.of, offset + k * (t.of.size or 0), None)
    assert isinstance(t, Record), "only arrays and records have parts"
    if k >= (min(1, len(t.members)) if t.is_union else len(t.members)): return None
    return self.part_of_member(t.members[k], offset)

  def part_of_member(self, member: Member, offset: int) -> tuple[Type, int, Member | None]:
    return member.type, offset + member.offset, member if member.width is not None else None

  def elements(self, t: Type, offset: int, k: int, in_braces: bool, first: Node | None = None) -> None:
    """elements = [ designation "=" ] initializer { "," .. }, from the k-th part on. Without braces of its own it ends
    with the last part, or where a designator speaks of something outside. first: the first value, read already."""
    p = self.parser
    while p.text != "}" or first is not None:
      if in_braces and first is None and p.text in (".", "[") or (in_braces and self.old_designator()):
        k = self.designated(t, offset) + 1
      else:
        part = self.parts(t, offset, k)
        if part is None: return self.excess() if in_braces else None
        self.undesignated(*part, first)
        k, first = k + 1, None
      at_end = not in_braces and self.parts(t, offset, k) is None
      following = p.peek().text
      if p.text != "," or at_end or following == "}" or (not in_braces and following in (".", "[")): return
      p.advance()

  def old_designator(self) -> bool:
    """GNU: name: value"""
    return self.parser.token.kind is IDENTIFIER and self.parser.peek().text == ":"

  def undesignated(self, t: Type, offset: int, member: Member | None, first: Node | None) -> None:
    """The next part: in braces, a value of its type, or its own parts without braces."""
    p = self.parser
    self.extent = max(self.extent, offset + (t.size or 0))
    if first is None and (p.text == "{" or (isinstance(t, Array) and self.starts_string(t)) or t.is_scalar):
      return self.element(t, offset, member)
    if first is None and self.starts_string(self.innermost(t)): return self.elements(t, offset, 0, False)
    token = p.token
    node = first if first is not None else p.assignment()
    if t.is_scalar or (t.is_record and compatible(t, node.type)): return self.value(t, offset, node, token, member)
    if isinstance(t, Record) and not t.members: return p.trees.warn(token, "excess elements in initializer")
    self.elements(t, offset, 0, False, node)

  def innermost(self, t: Type) -> Type:
    """Of the arrays and structures that t starts with."""
    while isinstance(t, (Array, Record)) and (part := self.parts(t, 0, 0)) and not part[0].is_scalar: t = part[0]
    return t

  def designated(self, t: Type, offset: int) -> int:
    """designation = { "." name | "[" constant [ "..." constant ] "]" } [ "=" ] ; gives the number of the last part."""
    p = self.parser
    token = p.token
    if isinstance(t, Array) and p.accept("["): return self.designated_index(t, offset, token)
    if not isinstance(t, Record) or p.text == "[": raise Failure(token, f"designator does not fit '{t}'")
    p.accept(".")
    path = t.body.fields.get(p.text)
    if path is None: raise Failure(p.token, f"'{t}' has no member named '{p.text}'")
    p.advance()
    for outer in path[:-1]: offset += outer.offset
    self.rest_of_designation(*self.part_of_member(path[-1], offset))
    return len(t.members) if t.is_union else t.members.index(path[0])

  def designated_index(self, t: Array, offset: int, token: Token) -> int:
    p = self.parser
    low = high = p.constant_expression("array index in initializer")
    if p.accept("..."): high = p.constant_expression("array index in initializer")
    p.expect("]")
    if low < 0 or high < low or (t.length is not None and high >= t.length):
      raise Failure(token, "array index in initializer exceeds array bounds")
    size, before = t.of.size or 0, len(self.leaves)
    self.rest_of_designation(t.of, offset + low * size, None)
    written = self.leaves[before:]
    for k in range(1, high - low + 1):
      for leaf in written: self.put(leaf.offset + k * size, leaf.type, leaf.node, leaf.member)
    self.extent = max(self.extent, offset + (high + 1) * size)
    return high

  def rest_of_designation(self, t: Type, offset: int, member: Member | None) -> None:
    p = self.parser
    if p.text in (".", "["):
      k = self.designated(t, offset)
      if p.text == "," and p.peek().text not in (".", "[", "}") and self.parts(t, offset, k + 1) is not None:
        p.advance()
        self.elements(t, offset, k + 1, False)
      return
    p.accept("=") or p.accept(":")
    self.undesignated(t, offset, member, None)

AUTO = Integer("__auto_type", 4, True, 4)
FLAGS = QUALIFIERS | {"inline", "_Noreturn", "_Thread_local"}

def in_mode(t: Type, mode: Token | None) -> Type:
  """GNU: an integer of another size."""
  if mode is None or not isinstance(t, Integer): return t
  pair = MODES.get(mode.text.strip("_"))
  if pair is None: raise Failure(mode, f"unknown machine mode '{mode.text}'")
  return pair[not t.signed].qualified(t.const, t.volatile, t.atomic)

def qualified_by(words: Container[str], t: Type) -> Type:
  atomic = "_Atomic" in words
  return t.qualified("const" in words, atomic or "volatile" in words, atomic)
