# ctype.py: the types of C (C11 6.2.5, 6.2.7, 6.3.1): what they are, how large, which are compatible, what operands of
# mixed types become, and how structures are laid out. Types are compared by `compatible`; a qualified type is a copy of
# the plain one. Nothing here knows tokens or trees, but for the length of a variable array, which is a tree.
from __future__ import annotations
import copy
from typing import Any, Iterable, NamedTuple
from picograd.dtype import DType, dtypes

class Machine(NamedTuple):
  """What C leaves to the implementation, where our two targets differ."""
  name: str
  char_is_signed: bool
  long_double: "Floating"
  last_argument_first: bool              # the order in which gcc evaluates the arguments of a call
  has_jump_tables: bool                  # whether the address of a label is that of a jump to it

# ---- types -----------------------------------------------------------------------------------------------------------

class Type:
  """size is None while a type is incomplete."""
  const = volatile = atomic = False
  size: int | None = None
  align = 1
  plain: "Type"

  def __init__(self) -> None: self.plain = self
  def qualified(self, const: bool = False, volatile: bool = False, atomic: bool = False) -> "Type":
    """The same type, with these qualifiers added."""
    if const <= self.const and volatile <= self.volatile and atomic <= self.atomic: return self
    other = copy.copy(self)
    other.const, other.volatile, other.atomic = self.const or const, self.volatile or volatile, self.atomic or atomic
    return other
  def aligned(self, align: int) -> "Type":
    if align == self.align: return self
    other = copy.copy(self)
    other.align = align
    return other
  def __str__(self) -> str: return spell(self)
  def __repr__(self) -> str: return f"<{self}>"

  # questions that the grammar of types asks often
  is_integer = is_floating = is_pointer = is_array = is_function = is_record = is_void = is_bool = False
  is_variable = False                                         # a variable length array, or an array of them
  @property
  def is_arithmetic(self) -> bool: return self.is_integer or self.is_floating
  @property
  def is_scalar(self) -> bool: return self.is_integer or self.is_floating or self.is_pointer
  @property
  def is_complete(self) -> bool: return self.size is not None

class Void(Type):
  is_void = True
  size = 1                                                    # GNU: so that pointers to it can be counted up
  is_complete = False                                         # type: ignore[assignment]

class Integer(Type):
  is_integer = True
  def __init__(self, name: str, size: int, signed: bool, rank: int):
    super().__init__()
    self.name, self.size, self.align, self.signed, self.rank = name, size, size, signed, rank
    self.is_bool = name == "_Bool"
    self.dtype = DType.rows[f"{'int' if signed else 'uint'}{8 * size}"]
  size: int
  @property
  def least(self) -> int: return -(1 << 8 * self.size - 1) if self.signed else 0
  @property
  def largest(self) -> int: return 1 if self.is_bool else (1 << 8 * self.size - self.signed) - 1
  def wrap(self, value: int) -> int:
    """value as this type holds it."""
    if self.is_bool: return int(value != 0)
    value &= (1 << 8 * self.size) - 1
    return value - (1 << 8 * self.size) if value > self.largest else value

class Enum(Integer):
  """An enumeration: an unsigned int unless a constant is negative, as gcc has it."""
  is_complete = False                                         # type: ignore[assignment]
  def __init__(self, tag: str | None):
    super().__init__("unsigned int", 4, False, 4)
    self.tag = tag

class Floating(Type):
  is_floating = True
  def __init__(self, name: str, size: int, rank: int, dtype: DType | None, digits: int):
    super().__init__()
    self.name, self.size, self.align, self.rank = name, size, size, rank
    self.dtype = dtype                                        # None: a value is 16 bytes in memory, computed by calls
    self.digits = digits                                      # binary digits of the significand
  size: int

class Pointer(Type):
  is_pointer = True
  size = align = 8
  dtype = dtypes.ptr
  def __init__(self, to: Type):
    super().__init__()
    self.to = to

class Array(Type):
  """length is None while it is unknown, or where `count`, a tree, computes it at run time."""
  is_array = True
  def __init__(self, of: Type, length: int | None, count: Any = None):
    super().__init__()
    self.of, self.length, self.count, self.align = of, length, count, of.align
    self.slot: Any = None                                     # lower.py: where a variable array's size is kept
  @property
  def is_variable(self) -> bool: return self.count is not None or self.of.is_variable          # type: ignore[override]
  @property
  def size(self) -> int | None:                               # type: ignore[override]
    if self.length is None or self.of.size is None or self.is_variable: return None
    return self.length * self.of.size
  def qualified(self, const: bool = False, volatile: bool = False, atomic: bool = False) -> "Type":
    """Qualifiers of an array are its elements' (C11 6.7.3p9)."""
    of, other = self.of.qualified(const, volatile, atomic), copy.copy(self)
    other.of = of
    return self if of is self.of else other

def is_modified(t: Type) -> bool:
  """Whether a variable array is in a type: what C calls variably modified."""
  return t.is_variable or isinstance(t, (Pointer, Array)) and is_modified(t.to if isinstance(t, Pointer) else t.of)

class FunctionType(Type):
  """has_prototype: parameters were declared. Without, any arguments may be given."""
  is_function = True
  size = 1
  def __init__(self, result: Type, params: tuple[Type, ...], variadic: bool, has_prototype: bool):
    super().__init__()
    self.result, self.params, self.variadic, self.has_prototype = result, params, variadic, has_prototype

class Member(NamedTuple):
  """A member without name is an anonymous structure or union, whose members count as mine. A bit-field starts at bit
  `bit`, counted from the record's start."""
  name: str | None
  type: Type
  offset: int
  bit: int = 0
  width: int | None = None

class Body:
  """What all qualified copies of a structure or union share."""
  members: list[Member]
  def __init__(self, kind: str, tag: str | None):
    self.kind, self.tag, self.members = kind, tag, []
    self.size: int | None = None
    self.align = 1
    self.fields: dict[str, tuple[Member, ...]] = {}           # name -> the members to go through to reach it
    self.transparent = False

class Record(Type):
  is_record = True
  def __init__(self, kind: str, tag: str | None):
    super().__init__()
    self.body = Body(kind, tag)
  @property
  def size(self) -> int | None: return self.body.size         # type: ignore[override]
  @property
  def align(self) -> int: return max(self.body.align, self.__dict__.get("own_align", 1))       # type: ignore[override]
  @align.setter
  def align(self, n: int) -> None: self.__dict__["own_align"] = n
  @property
  def members(self) -> list[Member]: return self.body.members
  @property
  def is_union(self) -> bool: return self.body.kind == "union"

VOID = Void()
BOOL = Integer("_Bool", 1, False, 1)
SIGNED_CHAR, UNSIGNED_CHAR = Integer("signed char", 1, True, 2), Integer("unsigned char", 1, False, 2)
SHORT, UNSIGNED_SHORT = Integer("short int", 2, True, 3), Integer("short unsigned int", 2, False, 3)
INT, UNSIGNED = Integer("int", 4, True, 4), Integer("unsigned int", 4, False, 4)
LONG, UNSIGNED_LONG = Integer("long int", 8, True, 5), Integer("long unsigned int", 8, False, 5)
LONG_LONG, UNSIGNED_LONG_LONG = Integer("long long int", 8, True, 6), Integer("long long unsigned int", 8, False, 6)
CHAR_SIGNED, CHAR_UNSIGNED = Integer("char", 1, True, 2), Integer("char", 1, False, 2)
FLOAT, DOUBLE = Floating("float", 4, 1, dtypes.float32, 24), Floating("double", 8, 2, dtypes.float64, 53)
LONG_DOUBLE_X87 = Floating("long double", 16, 3, dtypes.float80, 64)
LONG_DOUBLE_QUAD = Floating("long double", 16, 3, None, 113)
UNSIGNED_OF = {4: UNSIGNED, 5: UNSIGNED_LONG, 6: UNSIGNED_LONG_LONG}          # by rank

RISCV64 = Machine("riscv64", False, LONG_DOUBLE_QUAD, False, True)
X86_64 = Machine("x86_64", True, LONG_DOUBLE_X87, True, False)

# ---- conversions -----------------------------------------------------------------------------------------------------

def promoted(t: Type, width: int | None = None) -> Type:
  """Integer promotion; width is a bit-field's (C11 6.3.1.1)."""
  if not isinstance(t, Integer): return t.plain
  if t.rank < 4 or (width is not None and width < 32 + t.signed): return INT
  if width == 32: return UNSIGNED
  if t.rank == 4: return INT if t.signed else UNSIGNED
  return t.plain

def common(a: Type, b: Type) -> Type:
  """The usual arithmetic conversions of promoted types (C11 6.3.1.8)."""
  if isinstance(a, Floating) or isinstance(b, Floating):
    floats = [t for t in (a, b) if isinstance(t, Floating)]
    return max(floats, key=lambda t: t.rank).plain
  assert isinstance(a, Integer) and isinstance(b, Integer), "only arithmetic types have a common type"
  if a.signed == b.signed: return a if a.rank >= b.rank else b
  signed, unsigned = (a, b) if a.signed else (b, a)
  if unsigned.rank >= signed.rank: return unsigned
  return signed if signed.size > unsigned.size else UNSIGNED_OF[signed.rank]

def target_of(t: Type) -> Type:
  """What a pointer points to."""
  assert isinstance(t, Pointer), f"{t} is no pointer"
  return t.to

def decayed(t: Type) -> Type:
  """What an array or function is as a value."""
  if isinstance(t, Array): return Pointer(t.of)
  return Pointer(t) if t.is_function else t

# ---- compatibility (C11 6.2.7) ---------------------------------------------------------------------------------------

def compatible(a: Type, b: Type) -> bool:
  """Qualifiers at the top are not compared."""
  if a.plain is b.plain: return True
  if isinstance(a, Pointer) and isinstance(b, Pointer): return same_qualifiers(a.to, b.to) and compatible(a.to, b.to)
  if isinstance(a, Array) and isinstance(b, Array):
    return compatible(a.of, b.of) and (None in (a.length, b.length) or a.length == b.length)
  if isinstance(a, FunctionType) and isinstance(b, FunctionType): return compatible_functions(a, b)
  if isinstance(a, Record) and isinstance(b, Record): return a.body is b.body
  if not isinstance(a, Integer) or not isinstance(b, Integer): return False
  return isinstance(a, Enum) is not isinstance(b, Enum) and (a.signed, a.rank) == (b.signed, b.rank)

def same_qualifiers(a: Type, b: Type) -> bool: return (a.const, a.volatile) == (b.const, b.volatile)

def compatible_functions(a: FunctionType, b: FunctionType) -> bool:
  if not compatible(a.result, b.result): return False
  if not a.has_prototype or not b.has_prototype:                        # a definition of K&R's has parameters without
    return a.has_prototype is b.has_prototype or not (a.params and b.params) or len(a.params) == len(b.params)
  if len(a.params) != len(b.params) or a.variadic != b.variadic: return False
  return all(map(compatible, a.params, b.params))

def composite(a: Type, b: Type) -> Type:
  """A type compatible with both that knows what either knows."""
  if isinstance(a, Array) and isinstance(b, Array):
    return Array(composite(a.of, b.of), a.length if a.length is not None else b.length, a.count or b.count)
  if isinstance(a, FunctionType) and isinstance(b, FunctionType):
    if not a.has_prototype: return b
    if not b.has_prototype: return a
    return FunctionType(composite(a.result, b.result), tuple(map(composite, a.params, b.params)), a.variadic, True)
  if isinstance(a, Pointer) and isinstance(b, Pointer):
    return Pointer(composite(a.to, b.to)).qualified(a.const, a.volatile)
  return a

# ---- records ---------------------------------------------------------------------------------------------------------

class Field(NamedTuple):
  """A member before it is laid out. align: what _Alignas or an attribute asks for."""
  name: str | None
  type: Type
  width: int | None = None
  align: int | None = None
  packed: bool = False

def round_up(n: int, align: int) -> int: return -(-n // align) * align

def lay_out(record: Record, fields: Iterable[Field], packed: bool, least: int, pack: int | None) -> None:
  """Completes a record as the System V ABIs do. least: the alignment asked for; pack: the limit of #pragma pack."""
  body = record.body
  bit, end, align = 0, 0, least
  for field in fields:
    own = 1 if packed or field.packed else field.type.align
    own = max(own, field.align or 1)
    if pack is not None: own = min(own, pack)
    size = field.type.size or 0
    if record.is_union: bit = 0
    if field.width is None:
      bit = round_up(bit, 8 * own)
      member = Member(field.name, field.type, bit // 8)
      bit += 8 * size
    else:
      tight = packed or field.packed or pack is not None
      if field.width == 0: bit = round_up(bit, 8 * field.type.align)
      elif field.align: bit = round_up(bit, 8 * own)
      elif not tight and bit // (8 * size) != (bit + field.width - 1) // (8 * size): bit = round_up(bit, 8 * size)
      member = Member(field.name, field.type, bit // (8 * size) * size, bit, field.width)
      bit += field.width
    end = max(end, bit)
    if field.name is None and field.width is not None: continue           # padding
    align = max(align, own)
    body.members.append(member)
  body.align = align
  body.size = round_up(round_up(end, 8) // 8, align)
  body.fields = dict(named_members(body.members))

def named_members(members: list[Member]) -> Iterable[tuple[str, tuple[Member, ...]]]:
  for member in members:
    if member.name is not None: yield member.name, (member,)
    elif isinstance(member.type, Record):
      for name, path in member.type.body.fields.items(): yield name, (member, *path)

# ---- types in messages -----------------------------------------------------------------------------------------------

def spell(t: Type, inner: str = "") -> str:
  """The type as a program writes it, around a declarator."""
  words = (("const", t.const), ("volatile", t.volatile), ("_Atomic", t.atomic))
  qualifiers = "".join(word + " " for word, on in words if on)
  if isinstance(t, Pointer):
    inner = "*" + (f" {qualifiers.strip()} " if qualifiers and inner else qualifiers.strip()) + inner
    return spell(t.to, f"({inner})" if t.to.is_array or t.to.is_function else inner)
  if isinstance(t, Array): return spell(t.of, f"{inner}[{'' if t.length is None else t.length}]")
  if isinstance(t, FunctionType):
    params = [spell(p) for p in t.params] + ["..."] * t.variadic
    return spell(t.result, f"{inner}({', '.join(params) or ('void' if t.has_prototype else '')})")
  return (qualifiers + name_of(t) + " " + inner).rstrip()

def name_of(t: Type) -> str:
  if isinstance(t, Record): return f"{t.body.kind} {t.body.tag or '<anonymous>'}"
  if isinstance(t, Enum): return f"enum {t.tag or '<anonymous>'}"
  return "void" if isinstance(t, Void) else t.name            # type: ignore[attr-defined]

def is_const_array(t: Type) -> bool:
  """Whether a static object of the type may be in read-only memory."""
  return is_const_array(t.of) if isinstance(t, Array) else t.const and not t.volatile
