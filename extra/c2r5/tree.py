# tree.py: the typed syntax tree of a C program, and the rules that give every node its type (C11 6.5). In: operands and
# an operator's token. Out: a Node whose operands have been converted: after this, every conversion in the program is a
# `cast`, and both operands of an arithmetic operator have its type. Failure is raised where the program is wrong.
from __future__ import annotations
from typing import Any, NamedTuple, Sequence
from .ctype import (Array, common, compatible, composite, decayed, DOUBLE, Floating, FunctionType, INT, Integer, LONG,
                    Machine, Pointer, promoted, Record, Type, UNSIGNED_LONG, VOID, target_of)
from .lex import Diagnostics, Failure, Token

class Node:
  """kind is one of the words below; src are its operands, arg what is not an operand.
    values      number(value)  decay  address  cast  neg  not  lnot  land  lor  conditional  comma  statements([..])
                add sub mul div mod and or xor shl shr  lt gt le ge eq ne  pointer_add  pointer_sub
                assign  update(op, type)  postfix(op, type)  call
    places      variable(Object)  dereference  member(Member)  compound(Object)
    statements  block([..])  expression  if  for(scope)  while  do  switch  case  label  goto  computed_goto  break
                continue  return  declare(Object)  asm  empty"""
  __slots__ = ("kind", "type", "token", "src", "arg")
  def __init__(self, kind: str, type: Type, token: Token, src: tuple["Node", ...] = (), arg: Any = None):
    self.kind, self.type, self.token, self.src, self.arg = kind, type, token, src, arg
  def __repr__(self) -> str: return f"Node({self.kind}, {self.type}, {self.arg if self.arg is not None else ''})"

class Object:
  """A variable or function. A local without `static` has automatic storage; all others are in the object file."""
  def __init__(self, name: str, type: Type, token: Token, storage: str):
    # automatic, static, extern, function
    self.name, self.type, self.token, self.storage = name, type, token, storage
    self.symbol = name                       # what the linker calls it
    self.is_local_symbol = False             # static: no other file sees it
    self.is_defined = False                  # tentatively, for variables without an initialiser
    self.is_register = False
    self.align = 0
    self.section: str | None = None
    self.alias: str | None = None
    self.cleanup: Object | None = None
    self.data: Any = None                    # what initialises it: see initial.py
    self.attributes: set[str] = set()        # those of GNU, and inline, _Thread_local, ..
    self.slot: Any = None                    # lower.py: where an automatic one is
  def __repr__(self) -> str: return f"Object({self.name}: {self.type})"

JUMPS = ".Ljumps."                          # what comes before a function's name in that of its table of jumps

class Label:
  """A label of a function. number: its place among those whose address is taken."""
  def __init__(self, name: str, token: Token):
    self.name, self.token, self.number = name, token, 0
    self.inside: list[Any] | None = None     # what is declared where it stands; None while it is not defined
    self.jumps: list[Node] = []              # that name it

ARITHMETIC = {"*": "mul", "/": "div", "%": "mod", "+": "add", "-": "sub", "&": "and", "|": "or", "^": "xor"}
SHIFTS = {"<<": "shl", ">>": "shr"}
COMPARISONS = {"<": "lt", ">": "gt", "<=": "le", ">=": "ge", "==": "eq", "!=": "ne"}
LOGICAL = {"&&": "land", "||": "lor"}
INTEGER_ONLY = frozenset({"%", "&", "|", "^", "<<", ">>"})
PLACES = frozenset({"variable", "dereference", "member", "compound"})

def bit_width(node: Node) -> int | None:
  """The width of a bit-field, as which the value of an assignment to one counts too; else None."""
  while node.kind in ("assign", "update", "postfix"): node = node.src[0]
  return node.arg.width if node.kind == "member" else None

def is_zero(node: Node) -> bool:
  """Whether it is an integer constant 0, perhaps cast to void *: a null pointer."""
  while node.kind == "cast" and (node.type.is_integer or (isinstance(node.type, Pointer) and node.type.to is VOID)):
    node = node.src[0]
  return node.kind == "number" and node.arg == 0 and node.type.is_integer

class Trees:
  """Builds nodes."""
  def __init__(self, machine: Machine, diagnostics: Diagnostics):
    self.machine, self.diagnostics = machine, diagnostics

  def warn(self, token: Token, message: str) -> None: self.diagnostics.warning(token, message)

  # ---- leaves and conversions ----

  def number(self, value: Any, type: Type, token: Token) -> Node: return Node("number", type, token, (), value)
  def variable(self, object: Object, token: Token) -> Node: return Node("variable", object.type, token, (), object)

  def value(self, node: Node) -> Node:
    """A node as an operand: arrays and functions become pointers, qualifiers go."""
    t = node.type
    if t.is_array or t.is_function: return Node("decay", decayed(t), node.token, (node,))
    return node

  def cast(self, node: Node, to: Type) -> Node:
    """A conversion that is known to be right."""
    if node.type.plain is to.plain and bit_width(node) is None: return node
    if node.kind == "number" and to.is_integer and isinstance(node.arg, int) and isinstance(to, Integer):
      return self.number(to.wrap(node.arg), to.plain, node.token)
    return Node("cast", to.plain, node.token, (node,))

  def promote(self, node: Node) -> Node:
    node = self.value(node)
    return self.cast(node, promoted(node.type, bit_width(node)))

  def explicit_cast(self, node: Node, to: Type, token: Token) -> Node:
    if to.is_void: return Node("cast", VOID, token, (self.value(node),))
    node = self.value(node)
    if to.is_record and compatible(node.type, to): return node
    if isinstance(to, Record) and to.is_union:                          # GNU: a cast to a union
      for member in to.members:
        if compatible(member.type, node.type): return Node("union_cast", to, token, (node,), member)
    if not to.is_scalar: raise Failure(token, f"conversion to non-scalar type '{to}' requested")
    if not node.type.is_scalar: raise Failure(token, f"cannot convert a '{node.type}' to '{to}'")
    if (to.is_pointer and node.type.is_floating) or (to.is_floating and node.type.is_pointer):
      raise Failure(token, f"cannot convert between '{node.type}' and '{to}'")
    converted = self.cast(node, to)
    return converted if converted is not node else Node("cast", to.plain, token, (node,))

  def condition(self, node: Node) -> Node:
    node = self.value(node)
    if not node.type.is_scalar: raise Failure(node.token, f"used '{node.type}' where scalar is required")
    return node

  def assigned(self, node: Node, to: Type, token: Token, what: str) -> Node:
    """node converted as if by assignment (C11 6.5.16.1); what names the place in messages."""
    node = self.value(node)
    have = node.type
    if have.is_arithmetic and to.is_arithmetic or have.is_pointer and to.is_bool: return self.cast(node, to)
    if to.is_record and have.is_record and compatible(to, have): return node
    if isinstance(to, Record) and to.body.transparent:
      for member in to.members:
        if compatible(member.type, have) or (member.type.is_pointer and (is_zero(node) or have.is_pointer)):
          return Node("union_cast", to, token, (self.cast(node, member.type),), member)
    if isinstance(to, Pointer) and isinstance(have, Pointer):
      if not self.pointers_fit(to, have): self.warn(token, f"{what} '{to}' from incompatible pointer type '{have}'")
      elif (have.to.const and not to.to.const) or (have.to.volatile and not to.to.volatile):
        self.warn(token, f"{what} '{to}' discards a qualifier from pointer target type")
      return self.cast(node, to)
    if to.is_pointer and have.is_integer or to.is_integer and have.is_pointer:
      makes = "pointer from integer" if to.is_pointer else "integer from pointer"
      if have.is_pointer or not is_zero(node):
        self.warn(token, f"{what} '{to}' from '{have}' makes {makes} without a cast")
      return self.cast(node, to)
    raise Failure(token, f"incompatible types: {what} '{to}' from '{have}'")

  def pointers_fit(self, a: Pointer, b: Pointer) -> bool:
    return a.to.is_void or b.to.is_void or compatible(a.to.plain, b.to.plain)

  # ---- unary operators ----

  def place(self, node: Node, token: Token, doing: str) -> Node:
    if node.type.is_function or not is_place(node):
      raise Failure(token, f"lvalue required as {doing}")
    return node

  def modifiable(self, node: Node, token: Token, doing: str) -> Node:
    self.place(node, token, doing)
    if node.type.is_array: raise Failure(token, f"array type '{node.type}' is not assignable")
    if is_const(node.type): raise Failure(token, f"{doing} is read-only: '{node.type}'")
    if not node.type.is_complete: raise Failure(token, f"'{node.type}' is incomplete or void")
    return node

  def dereference(self, node: Node, token: Token) -> Node:
    node = self.value(node)
    if not isinstance(node.type, Pointer):
      raise Failure(token, f"invalid type argument of unary '*' (have '{node.type}')")
    return Node("dereference", node.type.to, token, (node,))

  def address(self, node: Node, token: Token) -> Node:
    if node.type.is_function: return self.value(node)
    self.place(node, token, "unary '&' operand")
    if bit_width(node) is not None: raise Failure(token, f"cannot take address of bit-field '{node.arg.name}'")
    if node.kind == "variable" and node.arg.is_register:
      raise Failure(token, f"address of register variable '{node.arg.name}' requested")
    return Node("address", Pointer(node.type), token, (node,))

  def unary(self, operator: str, node: Node, token: Token) -> Node:
    """+ - ~ !"""
    node = self.value(node)
    allowed = {"+": node.type.is_arithmetic, "-": node.type.is_arithmetic, "~": node.type.is_integer,
               "!": node.type.is_scalar}[operator]
    if not allowed: raise Failure(token, f"wrong type argument to unary '{operator}' (have '{node.type}')")
    if operator == "!": return Node("lnot", INT, token, (node,))
    node = self.promote(node)
    if operator == "+": return Node("cast", node.type, token, (node,))
    return Node("neg" if operator == "-" else "not", node.type, token, (node,))

  def step(self, kind: str, operator: str, node: Node, token: Token) -> Node:
    """++ and --: kind is update or postfix."""
    self.modifiable(node, token, "increment operand" if operator == "+" else "decrement operand")
    if not node.type.is_scalar: raise Failure(token, f"wrong type argument to increment (have '{node.type}')")
    return self.updated(kind, operator, node, self.number(1, INT, token), token)

  def updated(self, kind: str, operator: str, left: Node, right: Node, token: Token) -> Node:
    """left op= right: the operation is what `left op right` would be; its place is computed once. arg: (op's kind, the
    type it computes in)."""
    done = self.binary(operator, left, right, token)
    self.assigned(done, left.type, token, "assignment to")
    return Node(kind, left.type.plain, token, (left, done.src[1]), (done, done.src[0].type))

  # ---- binary operators ----

  def binary(self, operator: str, left: Node, right: Node, token: Token) -> Node:
    if operator in LOGICAL:
      return Node(LOGICAL[operator], INT, token, (self.condition(left), self.condition(right)))
    left, right = self.value(left), self.value(right)
    a, b = left.type, right.type
    if a.is_arithmetic and b.is_arithmetic: return self.arithmetic(operator, left, right, token)
    if operator in COMPARISONS and (a.is_pointer or b.is_pointer):
      return self.compare_pointers(operator, left, right, token)
    if operator == "+" and a.is_integer and b.is_pointer: return self.offset("pointer_add", right, left, token)
    if operator in "+-" and a.is_pointer and b.is_integer:
      return self.offset("pointer_add" if operator == "+" else "pointer_sub", left, right, token)
    if operator == "-" and isinstance(a, Pointer) and isinstance(b, Pointer) and self.pointers_fit(a, b):
      self.element_size(a, token)
      return Node("pointer_difference", LONG, token, (left, right))
    raise Failure(token, f"invalid operands to binary {operator} (have '{a}' and '{b}')")

  def arithmetic(self, operator: str, left: Node, right: Node, token: Token) -> Node:
    left, right = self.promote(left), self.promote(right)
    if operator in INTEGER_ONLY and not (left.type.is_integer and right.type.is_integer):
      raise Failure(token, f"invalid operands to binary {operator} (have '{left.type}' and '{right.type}')")
    if operator in SHIFTS: return Node(SHIFTS[operator], left.type, token, (left, right))
    t = common(left.type, right.type)
    src = (self.cast(left, t), self.cast(right, t))
    if operator in COMPARISONS: return Node(COMPARISONS[operator], INT, token, src)
    return Node(ARITHMETIC[operator], t, token, src)

  def compare_pointers(self, operator: str, left: Node, right: Node, token: Token) -> Node:
    a, b = left.type, right.type
    if isinstance(a, Pointer) and isinstance(b, Pointer):
      if not self.pointers_fit(a, b): self.warn(token, f"comparison of distinct pointer types '{a}' and '{b}'")
    elif a.is_integer or b.is_integer:
      if not is_zero(left) and not is_zero(right): self.warn(token, "comparison between pointer and integer")
      left, right = (self.cast(left, b), right) if a.is_integer else (left, self.cast(right, a))
    else: raise Failure(token, f"invalid operands to binary {operator} (have '{a}' and '{b}')")
    return Node(COMPARISONS[operator], INT, token, (left, right))

  def offset(self, kind: str, pointer: Node, count: Node, token: Token) -> Node:
    """pointer +- count elements."""
    self.element_size(pointer.type, token)
    return Node(kind, pointer.type.plain, token, (pointer, self.cast(self.promote(count), LONG)))

  def element_size(self, pointer: Type, token: Token) -> None:
    t = target_of(pointer)
    if not t.is_void and not t.is_complete and not t.is_variable:
      raise Failure(token, f"invalid use of a pointer to incomplete type '{t}'")

  def index(self, node: Node, position: Node, token: Token) -> Node:
    if not self.value(node).type.is_pointer and not self.value(position).type.is_pointer:
      raise Failure(token, "subscripted value is neither array nor pointer")
    return self.dereference(self.binary("+", node, position, token), token)

  def assign(self, left: Node, right: Node, token: Token) -> Node:
    self.modifiable(left, token, "left operand of assignment")
    return Node("assign", left.type.plain, token, (left, self.assigned(right, left.type, token, "assignment to")))

  def conditional(self, test: Node, yes: Node, no: Node, token: Token) -> Node:
    """test ? yes : no (C11 6.5.15)"""
    test, yes, no = self.condition(test), self.value(yes), self.value(no)
    a, b = yes.type, no.type
    if a.is_arithmetic and b.is_arithmetic: t = common(promoted(a, bit_width(yes)), promoted(b, bit_width(no)))
    elif a.is_void or b.is_void: t = VOID
    elif a.is_record and compatible(a, b): t = a
    elif isinstance(a, Pointer) and isinstance(b, Pointer): t = self.common_pointer(yes, no, a, b, token)
    elif a.is_pointer and b.is_integer or a.is_integer and b.is_pointer:
      if not is_zero(yes) and not is_zero(no):
        self.warn(token, "pointer/integer type mismatch in conditional expression")
      t = a if a.is_pointer else b
    else: raise Failure(token, f"type mismatch in conditional expression: '{a}' and '{b}'")
    if not t.is_record: yes, no = self.cast(yes, t), self.cast(no, t)
    return Node("conditional", t.plain, token, (test, yes, no))

  def common_pointer(self, yes: Node, no: Node, a: Pointer, b: Pointer, token: Token) -> Type:
    if is_zero(yes) and a.to.is_void: return b
    if is_zero(no) and b.to.is_void: return a
    const, volatile = a.to.const or b.to.const, a.to.volatile or b.to.volatile
    if a.to.is_void or b.to.is_void: return Pointer((a if a.to.is_void else b).to.qualified(const, volatile))
    if not compatible(a.to.plain, b.to.plain):
      self.warn(token, f"pointer type mismatch in conditional expression: '{a}' and '{b}'")
      return Pointer(VOID)
    return Pointer(composite(a.to, b.to).qualified(const, volatile))

  # ---- members and calls ----

  def member(self, node: Node, name: Token, token: Token) -> Node:
    """node.name"""
    if not isinstance(node.type, Record): raise Failure(token, f"request for member '{name.text}' in something not a "
                                                               f"structure or union (have '{node.type}')")
    if not node.type.is_complete: raise Failure(token, f"invalid use of incomplete type '{node.type}'")
    path = node.type.body.fields.get(name.text)
    if path is None: raise Failure(name, f"'{node.type}' has no member named '{name.text}'")
    for member in path:
      node = Node("member", member.type.qualified(node.type.const, node.type.volatile), name, (node,), member)
    return node

  def call(self, callee: Node, arguments: Sequence[Node], token: Token) -> Node:
    callee = self.value(callee)
    if not isinstance(callee.type, Pointer) or not isinstance(callee.type.to, FunctionType):
      raise Failure(token, f"called object of type '{callee.type}' is not a function or function pointer")
    t = callee.type.to
    name = callee.src[0].arg.name if callee.kind == "decay" and callee.src[0].kind == "variable" else "function"
    if t.has_prototype and len(arguments) != len(t.params) and (len(arguments) < len(t.params) or not t.variadic):
      few = "few" if len(arguments) < len(t.params) else "many"
      count = f"{len(t.params)} expected, {len(arguments)} given"
      raise Failure(token, f"too {few} arguments to function '{name}': {count}")
    if not t.result.is_void and not t.result.is_complete: raise Failure(token, f"'{name}' returns an incomplete type")
    given = []
    for k, argument in enumerate(arguments):
      if t.has_prototype and k < len(t.params):
        what = f"passing argument {k + 1} of '{name}' to parameter of type"
        given.append(self.assigned(argument, t.params[k], argument.token, what))
      else: given.append(self.default_argument(argument))
    return Node("call", t.result.plain, token, (callee, *given), t)

  def default_argument(self, node: Node) -> Node:
    """Default argument promotions (C11 6.5.2.2p6)."""
    node = self.promote(node)
    if node.type.is_void: raise Failure(node.token, "invalid use of void expression")
    if not node.type.is_complete: raise Failure(node.token, f"argument has incomplete type '{node.type}'")
    return self.cast(node, DOUBLE) if isinstance(node.type, Floating) and node.type.rank == 1 else node

  def size_of(self, t: Type, token: Token) -> Node:
    if t.is_function or t.is_void: return self.number(1, UNSIGNED_LONG, token)
    if t.is_variable: return Node("size_of", UNSIGNED_LONG, token, (), t)
    if t.size is None: raise Failure(token, f"invalid application of 'sizeof' to incomplete type '{t}'")
    return self.number(t.size, UNSIGNED_LONG, token)

def is_place(node: Node) -> bool:
  """Whether a member belongs to something that has an address of its own."""
  while node.kind == "member": node = node.src[0]
  return node.kind in PLACES

def is_const(t: Type) -> bool:
  if t.const: return True
  if isinstance(t, Array): return is_const(t.of)
  return isinstance(t, Record) and any(is_const(m.type) for m in t.members)

class Address(NamedTuple):
  """A constant that the linker completes: the address of an object, plus bytes."""
  object: Object
  offset: int

