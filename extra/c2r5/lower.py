# lower.py: typed trees -> flat blocks (picograd/codegen/flat.py). In: a Definition. Out: a Function in which every
# local is a stack slot (mem2reg makes values of them), every access of memory a LOAD or STORE in order, every structure
# an address. Operands are evaluated from left to right, as gcc does. What the flat form has no op for is a CALL of a
# name that begins with __builtin_; docs/ir.md lists these.
from __future__ import annotations
import operator
from collections import defaultdict
from contextlib import contextmanager
from functools import reduce
from typing import Any, Callable, Iterator, NamedTuple, Sequence
from picograd.codegen.flat import Builder, Convention, Function, Line, new_label
from picograd.dtype import DType, dtypes
from picograd.ops.ops import Lifetime, Ops
from picograd.ops.uop import UOp, fresh
from .abi import Passing, assigner, scalars, stack_size
from .constant import NotConstant, bytes_of_long_double, constant_value, is_true
from .ctype import (Array, DOUBLE, FLOAT, Floating, FunctionType, INT, Integer, Machine, Member, Pointer, Type,
                    UNSIGNED_LONG, target_of)
from .declare import Leaf
from .lex import Failure, Token
from .parse import Definition, Switch
from .tree import JUMPS, Label, Node, Object

# ---- small words -----------------------------------------------------------------------------------------------------

def const(dtype: DType, value: Any) -> UOp: return UOp.const(dtype, value)
def long(value: int) -> UOp: return UOp.const(dtypes.int64, value)
def symbol(name: str) -> UOp: return UOp(Ops.SYM, dtypes.ptr, (), name)

def add(x: UOp, y: UOp) -> UOp:
  """x + y, constants added at once: addresses stay base + offset."""
  if y.op is Ops.CONST and y.dtype.kind != "f":
    if y.arg == 0: return x
    if x.op is Ops.CONST: return const(x.dtype, x.arg + y.arg)
    if x.op is Ops.ADD and x.src[1].op is Ops.CONST: return add(x.src[0], const(y.dtype, x.src[1].arg + y.arg))
  return x + y

def negative(x: UOp) -> UOp: return x.like(-x.arg) if x.op is Ops.CONST else -x
def subtract(x: UOp, y: UOp) -> UOp: return add(x, negative(y))
def shift_left(x: UOp, n: int) -> UOp: return x << n if n else x
def shift_right(x: UOp, n: int) -> UOp: return x >> n if n else x

def low_bits(x: UOp, n: int) -> UOp:
  mask = (1 << n) - 1
  return x.like(x.arg & mask) if x.op is Ops.CONST else x & mask

def is_quad(t: Type) -> bool:
  """A long double where it is computed by calls."""
  return isinstance(t, Floating) and t.dtype is None

def scaled(count: UOp, size: UOp) -> UOp:
  if count.op is Ops.CONST and size.op is Ops.CONST: return long(count.arg * size.arg)
  return count if size is long(1) else count * size

def divide(x: UOp, y: UOp) -> UOp: return x / y if x.dtype.kind == "f" else x // y
def shift_count(x: UOp, y: UOp) -> UOp:
  """By how much y shifts x, as machines do: modulo the bits of x."""
  return low_bits(cast(y, x.dtype), x.dtype.bits.bit_length() - 1)

def distance(x: UOp, low: int) -> UOp:
  """x - low, unsigned: large where x is less."""
  return cast(subtract(x, x.like(low)), UNSIGNED_OF_SIZE[x.dtype.itemsize])

def own_number(t: Type) -> int | None:
  """What keeps an access of memory from being merged with others (docs/ir.md): a volatile type's."""
  return next(fresh) if t.volatile else None

def cast(x: UOp, to: DType) -> UOp:
  if x.dtype is to: return x
  if x.op is Ops.CONST and x.dtype.kind in "ui" and to.kind in "uip": return const(to, x.arg)
  return UOp(Ops.CAST, to, (x,))

def is_aggregate(t: Type) -> bool:
  """Whether a value of the type is the address of it: structures, and long double where the machine has no such
  registers."""
  return t.is_record or t.is_array or is_quad(t)

def dtype_of(t: Type) -> DType:
  if is_aggregate(t) or t.is_function: return dtypes.ptr
  return t.dtype                                                        # type: ignore[attr-defined]

def chunks(size: int, align: int) -> list[tuple[int, int]]:
  """(offset, width) of the widest accesses that make up an object."""
  found, offset = [], 0
  while offset < size:
    width = next(w for w in (8, 4, 2, 1) if w <= min(align, size - offset))
    found.append((offset, width))
    offset += width
  return found

class Place(NamedTuple):
  """Where an lvalue is. width: of a bit-field, or of what is not aligned, which starts at this bit of the record there,
  whose alignment is the type's."""
  address: UOp
  type: Type
  bit: int = 0
  width: int | None = None

def part_of(whole: UOp, align: int, t: Type, offset: int, field: Member | None) -> Place:
  """Where a part of a record or array is that is aligned so. field: if it is a bit-field."""
  if field is not None: return Place(whole, t.aligned(align), 8 * (offset - field.offset) + field.bit, field.width)
  place = Place(add(whole, long(offset)), t)
  if not t.is_scalar or offset % (t.size or 1) == 0: return place
  if t.size == 16: return place._replace(type=t.aligned(1))                          # a long double
  return Place(whole, t.aligned(align), 8 * offset, 8 * (t.size or 0))               # in a packed record

COPY_LIMIT = 64                         # bytes of a structure that are copied one by one; more is a call of memcpy

COMPUTE: dict[str, Callable[[UOp, UOp], UOp]] = {
  "add": add, "sub": subtract, "mul": operator.mul, "div": divide, "mod": operator.mod, "and": operator.and_,
  "or": operator.or_, "xor": operator.xor, "shl": lambda x, y: x << shift_count(x, y),
  "shr": lambda x, y: x >> shift_count(x, y)}
COMPARE: dict[str, Callable[[UOp, UOp], UOp]] = {
  "lt": operator.lt, "gt": operator.gt, "le": operator.le, "ge": operator.ge, "eq": UOp.eq, "ne": UOp.ne}
MODES: dict[tuple[bool, int | None], str] = {                       # (whether an integer, size) -> libgcc's letters
  (False, 4): "sf", (False, 8): "df", (False, 16): "tf", (True, 4): "si", (True, 8): "di"}

class Jump(NamedTuple):
  """Where break or continue goes; depth: how many cleanups are pending there."""
  label: UOp
  depth: int

class Dispatch(NamedTuple):
  """The block that jumps to the label whose number is in a slot."""
  label: UOp
  number: UOp

class Lowering:
  """Lowers one function."""
  def __init__(self, definition: Definition, machine: Machine, constants: dict[bytes, str], lines: bool):
    self.definition, self.machine, self.constants = definition, machine, constants
    object = definition.object
    assert isinstance(object.type, FunctionType), "a definition has a function type"
    self.type = object.type
    self.blocks: dict[Label | Node, UOp] = defaultdict(new_label)         # of labels and cases
    self.jumps: dict[str, Jump] = {}                      # break and continue
    self.dispatch: Dispatch | None = None
    self.once: dict[Node, UOp] = {}
    self.cleanups: list[Callable[[], UOp]] = []
    self.result = assigner(machine).result(self.type.result)
    self.lines, self.at = lines, object.token             # at: the statement that is being lowered
    self.build = Builder(object.symbol, [])
    self.build.function.line = self.line(object.token)
    self.parameters()

  def lower(self) -> Function:
    fn = self.build.function
    self.statement(self.definition.body)
    self.return_value(None)
    if self.dispatch is not None: self.write_dispatch(self.dispatch)
    results = tuple([u.dtype for u in self.no_result()])
    fn.result = results[0] if len(results) == 1 else dtypes.void
    fixed = len(fn.params) if self.type.variadic else None
    fn.convention = Convention(fixed, results if len(results) > 1 else (), tuple(self.memory_params))
    fn.is_local, fn.returns_twice = self.definition.object.is_local_symbol, self.definition.calls_setjmp
    return self.build.finish()

  # ---- parameters and results ----

  def parameter(self, dtype: DType) -> UOp:
    self.build.function.params.append(dtype)
    return self.build.param(len(self.build.function.params) - 1)

  def parameters(self) -> None:
    """Stores what was passed into slots."""
    self.memory_params: list[tuple[int, int, int]] = []
    assign = assigner(self.machine)
    self.result_address: UOp | None = None
    if self.result.by_reference:
      self.result_address = self.parameter(dtypes.ptr)
      assign.free_integers -= 1
    for object in self.definition.params:
      passed = DOUBLE if object.type.plain is FLOAT and not self.type.has_prototype else object.type
      passing = assign.argument(passed, False)
      k = len(self.build.function.params)
      values = [self.parameter(piece.dtype) for piece in passing.pieces]
      if passing.on_stack: self.memory_params.append((k, *stack_size(object.type)))
      if passing.by_reference or passing.on_stack:
        object.slot = values[0]
        if passed is not object.type:
          self.build.store(object.slot, cast(self.build.load(object.slot, dtypes.float64), dtypes.float32))
      else:
        object.slot = self.new_slot(object.type)
        self.store_pieces(object.slot, object.type, passing, values)
    for object in self.definition.params: self.measure_type(object.type)

  def new_slot(self, t: Type, align: int = 0) -> UOp:
    return self.slot(max(t.size or 0, 1), max(align, t.align))

  def slot(self, nbytes: int, align: int = 8) -> UOp:
    """A new place on the stack. Its node is a pointer. Slots are aligned to 16; for more, there is room to move."""
    if align <= 16: return self.build.var(dtypes.ptr, -(-nbytes // 8))
    base = cast(self.build.var(dtypes.ptr, -(-(nbytes + align) // 8)), dtypes.int64)
    return cast(add(base, long(align - 1)) & -align, dtypes.ptr)

  def store_pieces(self, address: UOp, t: Type, passing: Passing, values: Sequence[UOp]) -> None:
    """Puts an object together from the scalars it was passed as."""
    if not passing.pieces: return
    if not is_aggregate(t): return self.write(Place(address, t), cast(values[0], dtype_of(t)))
    target = address if self.fits(passing, t) else self.slot(16)
    for piece, value in zip(passing.pieces, values): self.build.store(add(target, long(piece.offset)), value)
    if target is not address: self.copy(address, target, t)

  def fits(self, passing: Passing, t: Type) -> bool:
    """Whether the pieces are aligned in the object and do not reach over its end."""
    return all(p.offset + p.dtype.itemsize <= (t.size or 0) and p.dtype.itemsize <= t.align for p in passing.pieces)

  def load_pieces(self, address: UOp, t: Type, passing: Passing) -> list[UOp]:
    if not self.fits(passing, t):
      source = self.slot(16)
      self.copy(source, address, t)
      address = source
    return [self.build.load(add(address, long(p.offset)), p.dtype) for p in passing.pieces]

  def pass_value(self, value: UOp, t: Type, passing: Passing) -> list[UOp]:
    """The scalars of an argument or result."""
    if passing.by_reference or passing.on_stack:
      copy = self.new_slot(t)
      self.write(Place(copy, t), value)
      return [copy]
    if is_aggregate(t): return self.load_pieces(value, t, passing)
    return [cast(value, p.dtype) for p in passing.pieces]

  def return_value(self, node: Node | None) -> None:
    result, values = self.type.result, self.no_result()
    value = self.value(node) if node is not None else None
    if value is not None and self.result_address is not None: self.write(Place(self.result_address, result), value)
    elif value is not None and not result.is_void: values = self.pass_value(value, result, self.result)
    self.run_cleanups(0)
    self.build.ret(*values)

  def no_result(self) -> list[UOp]:
    """What main returns at its end, or anything undefined. x86-64 gives back the address that the result went to."""
    if self.result_address is None: return [const(p.dtype, 0) for p in self.result.pieces]
    return [self.result_address] if self.machine.name == "x86_64" else []

  # ---- memory ----

  def read(self, place: Place) -> UOp:
    """The value at a place; of an aggregate its address."""
    t = place.type
    if place.width is not None: return self.read_bits(place, place.width)
    if is_aggregate(t): return place.address
    return self.build.load(place.address, dtype_of(t), hint=own_number(t))

  def write(self, place: Place, value: UOp) -> None:
    t = place.type
    if place.width is not None: return self.write_bits(place, place.width, value)
    if is_aggregate(t): return self.copy(place.address, value, t)
    self.build.store(place.address, value, hint=own_number(t))

  def copy(self, to: UOp, source: UOp, t: Type) -> None:
    """Copies an object: by its scalars if they fill it, so that slots stay apart; else in words; large ones by
    memcpy."""
    size = t.size or 0
    if to is source or size == 0: return
    if size > COPY_LIMIT:
      self.build.call("memcpy", to, source, long(size))
      return
    parts = self.copy_parts(t)
    values = [self.build.load(add(source, long(offset)), dtype) for offset, dtype in parts]
    for (offset, _), value in zip(parts, values): self.build.store(add(to, long(offset)), value)

  def copy_parts(self, t: Type) -> list[tuple[int, DType]]:
    size, end = t.size or 0, 0
    parts = []
    for offset, s in scalars(t):
      if offset != end or is_aggregate(s) or s.size == 16: break
      parts.append((offset, dtype_of(s)))
      end = offset + (s.size or 0)
    if end == size and t.align >= max(d.itemsize for _, d in parts): return parts
    return [(offset, UNSIGNED_OF_SIZE[width]) for offset, width in chunks(size, t.align)]

  def fill_zero(self, address: UOp, size: int, align: int) -> None:
    if size > COPY_LIMIT:
      self.build.call("memset", address, const(dtypes.int32, 0), long(size))
      return
    for offset, width in chunks(size, align):
      self.build.store(add(address, long(offset)), const(UNSIGNED_OF_SIZE[width], 0))

  # bit-fields, and members of packed structures that are not aligned

  def read_bits(self, place: Place, width: int) -> UOp:
    return from_bits(self.bits_at(place, width), width, place.type)

  def bits_at(self, place: Place, width: int) -> UOp:
    """As an unsigned number."""
    pieces = []
    for part in parts_of(place, width):
      address, dtype = add(place.address, long(part.offset)), UNSIGNED_OF_SIZE[part.size]
      word = self.build.load(address, dtype, hint=own_number(place.type))
      if part.width < dtype.bits:
        word = low_bits(shift_right(cast(word, dtypes.uint64), part.shift), part.width)
      pieces.append((word, part.position))
    if len(pieces) == 1: return pieces[0][0]
    return reduce(operator.or_, [shift_left(cast(piece, dtypes.uint64), bit) for piece, bit in pieces])

  def write_bits(self, place: Place, width: int, value: UOp) -> None:
    bits = to_bits(value)
    for part in parts_of(place, width):
      address, dtype = add(place.address, long(part.offset)), UNSIGNED_OF_SIZE[part.size]
      word = shift_right(bits, part.position)
      if part.width < dtype.bits:
        mask = (1 << part.width) - 1
        old = cast(self.build.load(address, dtype, hint=own_number(place.type)), dtypes.uint64)
        word = old & ~(mask << part.shift) | shift_left(cast(word, dtypes.uint64) & mask, part.shift)
      self.build.store(address, cast(word, dtype), hint=own_number(place.type))

  # ---- places ----

  def place(self, node: Node) -> Place:
    """Where an lvalue is, or a structure that a call has given."""
    kind = node.kind
    if kind == "variable": return Place(self.address_of_object(node.arg), node.type)
    if kind == "dereference": return Place(self.value(node.src[0]), node.type)
    if kind == "member": return self.member(node)
    if kind == "compound":
      object, leaves = node.arg
      if object.storage == "automatic":
        if object.slot is None: object.slot = self.new_slot(object.type)
        self.initialize(object.slot, object.type, leaves)
      return Place(self.address_of_object(object), node.type)
    return Place(self.value(node), node.type)

  def member(self, node: Node) -> Place:
    member, base = node.arg, self.place(node.src[0]).address
    return part_of(base, node.src[0].type.align, node.type, member.offset, member if member.width is not None else None)

  def address_of_object(self, object: Object) -> UOp:
    if object.storage == "automatic":
      assert object.slot is not None, f"{object.name} is used before its declaration was lowered"
      return object.slot
    return symbol(object.symbol)

  # ---- values ----

  def value(self, node: Node) -> UOp:
    """The value of an expression: of its type's dtype; of an aggregate the address; void gives any constant."""
    return VALUES[node.kind](self, node)

  def load(self, node: Node) -> UOp: return self.read(self.place(node))

  def number(self, node: Node) -> UOp:
    t = node.type
    if not isinstance(t, Floating) or t.size < 16: return const(dtype_of(t), node.arg)
    return self.read(Place(self.constant_bytes(bytes_of_long_double(t, node.arg)), t))

  def constant_bytes(self, contents: bytes) -> UOp:
    """The address of bytes that never change."""
    return symbol(self.constants.setdefault(contents, f".constant.{len(self.constants)}"))

  def decay(self, node: Node) -> UOp:
    place = self.place(node.src[0])
    return add(place.address, long(place.bit // 8))

  def cast(self, node: Node) -> UOp:
    return self.convert(self.value(node.src[0]), node.src[0].type, node.type)

  def convert(self, value: UOp, source: Type, to: Type) -> UOp:
    if to.is_void or to.is_record: return value
    if to.is_bool: return cast(self.truth(value, source), dtypes.uint8)
    if is_quad(source) or is_quad(to): return self.convert_quad(value, source, to)
    target = dtype_of(to)
    if source.is_floating and isinstance(to, Integer) and to.size < 4: return cast(cast(value, dtypes.int32), target)
    return cast(value, target)

  def truth(self, value: UOp, t: Type) -> UOp:
    """value != 0"""
    if value.op is Ops.CAST and value.src[0].dtype is dtypes.bool: return value.src[0]
    if is_quad(t): return self.compare_quads("ne", value, self.constant_bytes(bytes(16)), t)
    return value.ne(0)

  def condition(self, node: Node) -> UOp:
    """A scalar as a bool."""
    if node.kind in COMPARE: return self.compare(node.kind, node.src[0].type, *map(self.value, node.src))
    if node.kind == "lnot": return self.condition(node.src[0]).not_()
    return self.truth(self.value(node), node.type)

  def compare(self, kind: str, t: Type, x: UOp, y: UOp) -> UOp:
    if is_quad(t): return self.compare_quads(kind, x, y, t)
    if t.is_floating and kind in ("le", "ge"):                          # not the inverse of <, because of NaN
      if kind == "ge": x, y = y, x
      return (x < y) | x.eq(y)
    return COMPARE[kind](x, y)

  def condition_as_int(self, node: Node) -> UOp: return cast(self.condition(node), dtypes.int32)

  def logical(self, node: Node) -> UOp:
    return self.either(node, INT, lambda: const(dtypes.int32, 1), lambda: const(dtypes.int32, 0))

  def either(self, test: Node, t: Type, yes: Callable[[], UOp], no: Callable[[], UOp]) -> UOp:
    """One of two values, of which only that one is computed."""
    labels = new_label(), new_label()
    out, result = new_label(), None if t.is_void else self.slot(16 if t.is_floating else 8)
    self.branch(test, *labels)
    for label, compute in zip(labels, (yes, no)):
      self.build.begin(label)
      value = compute()
      if result is not None: self.build.store(result, value)
      self.build.jump(out)
    self.build.begin(out)
    return const(dtypes.int32, 0) if result is None else self.build.load(result, dtype_of(t))

  def arithmetic(self, node: Node) -> UOp:
    return self.compute(node.kind, node.type, *map(self.value, node.src))

  def compute(self, kind: str, t: Type, x: UOp, y: UOp) -> UOp:
    """An operator on values of type t; of pointers with an int64, in bytes."""
    return self.library(f"__{kind}tf3", t, (x, t), (y, t)) if is_quad(t) else COMPUTE[kind](x, y)

  def negate(self, node: Node) -> UOp:
    value = self.value(node.src[0])
    return self.negate_quad(value, node.type) if is_quad(node.type) else negative(value)

  def invert(self, node: Node) -> UOp:
    return self.value(node.src[0]) ^ -1

  def pointer_offset(self, node: Node) -> UOp:
    return self.moved(node.kind, node.type, *map(self.value, node.src))

  def moved(self, kind: str, t: Type, pointer: UOp, count: UOp) -> UOp:
    nbytes = scaled(count, self.size_of_type(target_of(t)))
    return add(pointer, negative(nbytes) if kind == "pointer_sub" else nbytes)

  def pointer_difference(self, node: Node) -> UOp:
    x, y = [cast(self.value(s), dtypes.int64) for s in node.src]
    size = self.size_of_type(target_of(node.src[0].type))
    return subtract(x, y) // size if size is not long(1) else subtract(x, y)

  def size_of_type(self, t: Type) -> UOp:
    """A size in bytes, as an int64; of a variable array, what its declaration has computed."""
    if not t.is_variable: return long(t.size or 1 if not t.is_record else t.size or 0)
    assert isinstance(t.plain, Array), "only arrays have variable sizes"
    slot = t.plain.slot
    return self.build.load(slot, dtypes.int64) if slot is not None else self.computed_size(t.plain)

  def computed_size(self, t: Array) -> UOp:
    count = cast(self.value(t.count), dtypes.int64) if t.count is not None else long(t.length or 0)
    return scaled(count, self.size_of_type(t.of))

  def measure_type(self, t: Type) -> None:
    """Computes and keeps the sizes of the variable arrays in a type, where it is declared."""
    t = t.plain
    if isinstance(t, Pointer): return self.measure_type(t.to)
    if not isinstance(t, Array) or t.slot is not None: return
    self.measure_type(t.of)
    if t.is_variable:
      size = self.computed_size(t)
      t.slot = self.slot(8)
      self.build.store(t.slot, size)

  def conditional(self, node: Node) -> UOp:
    test, yes, no = node.src
    known = is_true(test)
    if known is not None: return self.value(yes if known else no)
    return self.either(test, node.type, lambda: self.value(yes), lambda: self.value(no))

  def remembered(self, node: Node) -> UOp:
    """The operand of ?: that is both test and value: computed when it is first met, which is the test."""
    if node not in self.once: self.once[node] = self.value(node.src[0])
    return self.once[node]

  def comma(self, node: Node) -> UOp:
    self.value(node.src[0])
    return self.value(node.src[1])

  def assign(self, node: Node) -> UOp:
    place = self.place(node.src[0])
    value = self.value(node.src[1])
    self.write(place, value)
    return self.written(place, value)

  def written(self, place: Place, value: UOp) -> UOp:
    """The value of an assignment: what the place holds after it; of a bit-field, what fits."""
    if is_aggregate(place.type): return place.address
    return value if place.width is None else from_bits(to_bits(value), place.width, place.type)

  def update(self, node: Node) -> UOp:
    """place op= operand, ++place, place++"""
    target, operand = node.src
    done, computed = node.arg
    right = self.value(operand)                                         # before the place is read, as gcc does
    place = self.place(target)
    old = self.read(place)
    if node.kind == "postfix" and is_aggregate(target.type):
      kept = self.new_slot(target.type)
      self.copy(kept, old, target.type)
      old = kept
    left = self.convert(old, target.type, computed)
    if done.kind.startswith("pointer"): new = self.moved(done.kind, computed, left, right)
    else: new = self.convert(self.compute(done.kind, done.type, left, right), done.type, target.type)
    self.write(place, new)
    return old if node.kind == "postfix" else self.written(place, new)

  def statements(self, node: Node) -> UOp:
    """GNU: ({ .. })"""
    with self.scope():
      for s in node.arg: self.statement(s)
      return self.value(node.src[0]) if node.src else const(dtypes.int32, 0)

  def union_cast(self, node: Node) -> UOp:
    whole = self.new_slot(node.type)
    self.write(Place(whole, node.arg.type), self.value(node.src[0]))
    return whole

  def size_of(self, node: Node) -> UOp: return cast(self.size_of_type(node.arg), dtypes.uint64)

  # ---- calls ----

  def call(self, node: Node) -> UOp:
    callee, *arguments = node.src
    name = callee.src[0].arg.symbol if callee.kind == "decay" and callee.src[0].kind == "variable" else ""
    if name in BUILTINS: return BUILTINS[name](self, *self.argument_values(arguments))
    size = copied_bytes(node)
    if size is not None: return self.copy_few(arguments, size)
    target, values = self.value(callee), self.argument_values(arguments)
    return self.call_function(target, node.arg, values, [a.type for a in arguments])

  def call_function(self, target: UOp, t: FunctionType, values: Sequence[UOp], types: Sequence[Type]) -> UOp:
    """Passes the arguments as the ABI says, and puts the result together."""
    passing, assign = assigner(self.machine).result(t.result), assigner(self.machine)
    given: list[UOp] = []
    if passing.by_reference:
      given.append(self.new_slot(t.result))
      assign.free_integers -= 1
    memory: list[tuple[int, int, int]] = []
    fixed = None
    for k, (value, own) in enumerate(zip(values, types)):
      is_variable = t.variadic and k >= len(t.params)
      if is_variable and fixed is None: fixed = len(given)
      place = assign.argument(own, is_variable)
      given += [long(0)] * place.padding
      if place.on_stack: memory.append((len(given), *stack_size(own)))
      given += self.pass_value(value, own, place)
    if (t.variadic or not t.has_prototype) and fixed is None: fixed = len(given)
    results = () if passing.by_reference else tuple([p.dtype for p in passing.pieces])
    convention = Convention(fixed, results if len(results) > 1 else (), tuple(memory))
    called = self.build.call(target, *given, dtype=results[0] if len(results) == 1 else dtypes.void,
                             convention=convention)
    if passing.by_reference: return given[0]
    if not is_aggregate(t.result): return cast(called, dtype_of(t.result)) if results else const(dtypes.int32, 0)
    pieces = [called] if len(results) == 1 else [UOp(Ops.INDEX, dt, (called, long(k))) for k, dt in enumerate(results)]
    slot = self.new_slot(t.result)
    self.store_pieces(slot, t.result, passing, pieces)
    return slot

  def copy_few(self, arguments: Sequence[Node], size: int) -> UOp:
    """memcpy and memmove: all is loaded, then stored, in pieces as wide as what is known of the addresses allows."""
    to, source, _ = self.argument_values(arguments)
    own_to, own_from = [UNSIGNED_LONG.aligned(known_alignment(a)) for a in arguments[:2]]
    spans = [(8 * offset, 8 * width) for offset, width in chunks(size, max(own_to.align, own_from.align))]
    loaded = [self.bits_at(Place(source, own_from, bit), width) for bit, width in spans]
    for (bit, width), value in zip(spans, loaded): self.write_bits(Place(to, own_to, bit), width, value)
    return to

  def argument_values(self, arguments: Sequence[Node]) -> list[UOp]:
    """In gcc's order, which programs have come to rely on."""
    if self.machine.last_argument_first: return [self.value(a) for a in reversed(arguments)][::-1]
    return [self.value(a) for a in arguments]

  # ---- long double by libgcc ----

  def library(self, name: str, result: Type, *operands: tuple[UOp, Type]) -> UOp:
    values, types = zip(*operands)
    return self.call_function(symbol(name), FunctionType(result, types, False, True), values, types)

  def negate_quad(self, address: UOp, t: Type) -> UOp:
    slot = self.new_slot(t)
    self.copy(slot, address, t)
    high = add(slot, long(8))
    self.build.store(high, self.build.load(high, dtypes.int64) ^ (-1 << 63))
    return slot

  def compare_quads(self, kind: str, x: UOp, y: UOp, t: Type) -> UOp:
    return COMPARE[kind](self.library(f"__{kind}tf2", INT, (x, t), (y, t)), const(dtypes.int32, 0))

  def convert_quad(self, value: UOp, source: Type, to: Type) -> UOp:
    """Between long double and other types (libgcc's names: sf df tf are floats, si di integers)."""
    if source.size == to.size: return value
    a, b = [INT if isinstance(t, Integer) and t.size < 4 else t for t in (source, to)]
    modes = [MODES[t.is_integer, t.size] for t in (a, b)]
    if isinstance(a, Integer): name = f"__float{'' if a.signed else 'un'}{''.join(modes)}"
    elif isinstance(b, Integer): name = f"__fix{'' if b.signed else 'uns'}{''.join(modes)}"
    else: name = f"__{'extend' if is_quad(b) else 'trunc'}{''.join(modes)}2"
    return self.convert(self.library(name, b, (self.convert(value, source, a), a)), b, to)

  # ---- builtins ----

  def absolute(self, x: UOp) -> UOp:
    """|x| without its sign bit, NaN too."""
    return low_bits(to_bits(x), x.dtype.bits - 1).bitcast(x.dtype)

  def square_root(self, x: UOp) -> UOp: return UOp(Ops.SQRT, x.dtype, (x,))

  def unreachable(self) -> UOp:
    self.build.ret(*self.no_result())
    return const(dtypes.int32, 0)

  # ---- statements ----

  def statement(self, node: Node) -> None:
    self.mark(node)
    STATEMENTS[node.kind](self, node)

  def mark(self, node: Node) -> None:
    """Says that what follows is this node's."""
    self.at = node.token
    if self.lines and node.kind not in ("block", "sequence"):
      self.build.emit(UOp(Ops.BARRIER, dtypes.void, (self.build.state,), self.line(node.token)))

  def line(self, token: Token) -> Line:
    place = token.file.place(token.at)
    return Line(place.file, place.line)

  def block(self, node: Node) -> None:
    with self.scope(): self.sequence(node)
  def sequence(self, node: Node) -> None:
    for s in node.arg: self.statement(s)
  def expression(self, node: Node) -> None: self.value(node.src[0])
  def empty(self, node: Node) -> None: pass

  @contextmanager
  def scope(self) -> Iterator[None]:
    """What was declared within is cleaned up at its end."""
    depth = len(self.cleanups)
    yield
    self.run_cleanups(depth)
    del self.cleanups[depth:]

  def run_cleanups(self, depth: int) -> None:
    for clean in reversed(self.cleanups[depth:]): clean()

  def declare(self, node: Node) -> None:
    object, leaves = node.arg
    t = object.type
    self.measure_type(t)
    object.slot = self.variable_array(t) if t.is_variable else self.new_slot(t, object.align)
    if leaves is not None: self.initialize(object.slot, t, leaves)
    elif t.is_scalar and not is_aggregate(t) and object.slot.op is Ops.BUFFER:
      self.build.store(object.slot, const(dtype_of(t), 0), hint=Lifetime.BEGINS)
    cleanup = object.cleanup
    if cleanup is not None: self.cleanups.append(lambda: self.build.call(cleanup.symbol, object.slot))

  def variable_array(self, t: Type) -> UOp:
    saved = self.slot(8)
    self.build.store(saved, self.build.call("__builtin_stack_save", dtype=dtypes.ptr))
    self.cleanups.append(lambda: self.build.call("__builtin_stack_restore", self.build.load(saved, dtypes.ptr)))
    size = cast(self.size_of_type(t), dtypes.uint64)
    place = self.slot(8)
    self.build.store(place, self.build.call("__builtin_alloca", size, dtype=dtypes.ptr))
    return self.build.load(place, dtypes.ptr)

  def measure(self, node: Node) -> None: self.measure_type(node.arg)

  def initialize(self, address: UOp, t: Type, leaves: list[Leaf]) -> None:
    """Sets what the initialiser names, and everything else to zero."""
    filled = sum(leaf.type.size or 0 for leaf in {leaf.offset: leaf for leaf in leaves if leaf.member is None}.values())
    if filled != t.size: self.fill_zero(address, t.size or 0, max(8, t.align))
    for leaf in leaves:
      if leaf.node.kind == "bytes": self.store_bytes(add(address, long(leaf.offset)), leaf.node.arg)
      else: self.write(part_of(address, t.align, leaf.type, leaf.offset, leaf.member), self.value(leaf.node))

  def store_bytes(self, address: UOp, contents: bytes) -> None:
    if len(contents) > COPY_LIMIT:
      self.build.call("memcpy", address, self.constant_bytes(contents), long(len(contents)))
      return
    for k, byte in enumerate(contents): self.build.store(add(address, long(k)), const(dtypes.uint8, byte))

  # control flow

  def branch(self, node: Node, yes: UOp, no: UOp) -> None:
    """Goes to yes or no, by a condition; && and || jump as soon as they know."""
    if node.kind in ("land", "lor"):
      right = new_label()
      self.branch(node.src[0], *((right, no) if node.kind == "land" else (yes, right)))
      self.build.begin(right)
      return self.branch(node.src[1], yes, no)
    known = is_true(node)
    if known is not None: self.build.jump(yes if known else no)
    elif node.kind == "lnot": self.branch(node.src[0], no, yes)
    else: self.build.branch(self.condition(node), yes, no)

  def if_(self, node: Node) -> None:
    arms, otherwise = node.arg
    out = new_label()
    for test, body in arms:
      yes, no = new_label(), new_label()
      self.branch(test, yes, no)
      self.build.begin(yes)
      self.statement(body)
      self.build.jump(out)
      self.build.begin(no)
    if otherwise is not None: self.statement(otherwise)
    self.build.start(out)

  def for_(self, node: Node) -> None:
    with self.scope(): self.loop(node, *node.arg)

  def loop(self, node: Node, first: list[Node], test: Node | None, step: Node | None, body: Node) -> None:
    """Rotated: the test stands at the end, and a simple one also before the loop, but for `do`."""
    for s in first: self.statement(s)
    head, again, check, out = new_label(), new_label(), new_label(), new_label()
    if test is None or node.kind == "do": self.build.jump(head)
    elif is_simple(test): self.branch(test, head, out)
    else: self.build.jump(check)
    self.build.begin(head)
    self.inside(body, {"break": out, "continue": again})
    self.build.start(again)
    if step is not None:
      self.mark(step)
      self.value(step)
    self.build.start(check)
    if test is not None:
      self.mark(test)
      self.branch(test, head, out)
    else: self.build.jump(head)
    self.build.begin(out)

  def inside(self, body: Node, targets: dict[str, UOp]) -> None:
    """A loop's or switch's body, with where break and continue go in it."""
    outer, depth = self.jumps, len(self.cleanups)
    self.jumps = outer | {word: Jump(label, depth) for word, label in targets.items()}
    self.statement(body)
    self.jumps = outer

  def jump(self, node: Node) -> None:
    target = self.jumps[node.kind]
    self.run_cleanups(target.depth)
    self.build.jump(target.label)

  def label(self, node: Node) -> None:
    self.build.start(self.blocks[node.arg])
    self.statement(node.src[0])
  def goto(self, node: Node) -> None:
    label, kept = node.arg
    self.run_cleanups(sum((o.cleanup is not None) + o.type.is_variable for o in kept if isinstance(o, Object)))
    self.build.jump(self.blocks[label])

  def computed_goto(self, node: Node) -> None:
    """Labels whose address is taken are numbered from 1. All such jumps of a function share one table."""
    number = self.value(node.src[0])
    if not self.definition.addressed: raise Failure(node.token, "no label's address is taken in this function")
    if self.dispatch is None: self.dispatch = Dispatch(new_label(), self.slot(8))
    self.build.store(self.dispatch.number, cast(number, dtypes.int64))
    self.build.jump(self.dispatch.label)

  def write_dispatch(self, dispatch: Dispatch) -> None:
    self.build.begin(dispatch.label)
    number = self.build.load(dispatch.number, dtypes.int64)
    blocks = [self.blocks[label] for label in self.definition.addressed]
    if self.machine.has_jump_tables: return self.build.switch(number, blocks, JUMPS + self.definition.object.symbol)
    self.build.switch(subtract(number, long(1)), blocks)

  def switch(self, node: Node) -> None:
    switch: Switch = node.arg
    value = self.value(node.src[0])
    out = new_label()
    ranges = sorted((c.arg.low, c.arg.high, self.blocks[c]) for c in switch.cases if c.arg.low <= c.arg.high)
    default = self.blocks[switch.default] if switch.default is not None else out
    self.select(value, ranges, default)
    self.inside(node.src[1], {"break": out})
    self.build.start(out)

  def case(self, node: Node) -> None:
    self.build.start(self.blocks[node])
    self.statement(node.src[0])

  def select(self, value: UOp, ranges: list[tuple[int, int, UOp]], default: UOp) -> None:
    """Goes to the block of the range that holds the value: a table where ranges are dense, else by halves."""
    if len(ranges) <= 2:
      for low, high, block in ranges:
        following = new_label()
        self.build.branch(value.eq(low) if low == high else distance(value, low) <= high - low, block, following)
        self.build.begin(following)
      return self.build.jump(default)
    span = ranges[-1][1] - ranges[0][0] + 1
    if len(ranges) >= 4 and span <= min(4096, 4 * len(ranges) + 8): return self.table(value, ranges, default)
    middle = len(ranges) // 2
    below, above = new_label(), new_label()
    self.build.branch(value < ranges[middle][0], below, above)
    self.build.begin(below)
    self.select(value, ranges[:middle], default)
    self.build.begin(above)
    self.select(value, ranges[middle:], default)

  def table(self, value: UOp, ranges: list[tuple[int, int, UOp]], default: UOp) -> None:
    low, high = ranges[0][0], ranges[-1][1]
    targets = [default] * (high - low + 1)
    for first, last, block in ranges: targets[first - low:last - low + 1] = [block] * (last - first + 1)
    inside = new_label()
    index = distance(value, low)
    self.build.branch(index > high - low, default, inside)
    self.build.begin(inside)
    if index.dtype.bits == 32: index = cast(index, dtypes.int32)                        # small: its sign is no sign
    self.build.switch(cast(index, dtypes.int64), targets)

  def return_(self, node: Node) -> None: self.return_value(node.src[0] if node.src else None)

  def asm(self, node: Node) -> None:
    """A barrier; operands that are both read and written, or tied, keep their value."""
    template, outputs, inputs = node.arg
    if template.strip(): raise Failure(node.token, "only empty asm templates are supported")
    values = {str(k): self.value(o.node) for k, o in enumerate(inputs) if "m" not in o.constraint}
    for k, output in enumerate(outputs):
      place = self.place(output.node)
      tied = next((values[str(i)] for i, o in enumerate(inputs) if o.constraint == str(k)), None)
      if tied is not None: self.write(place, tied)
    self.build.emit(UOp(Ops.BARRIER, dtypes.void, (self.build.state,)))

SIMPLE = frozenset({"number", "variable", "dereference", "member", "decay", "cast", "lnot", "lt", "gt", "le", "ge",
                    "eq", "ne", "add", "sub", "mul", "and", "land", "lor", "pointer_add"})

def is_simple(node: Node) -> bool:
  """Whether it is cheap to compute an expression in two places."""
  nodes = [node]
  for n in nodes:                                             # it grows
    if n.kind not in SIMPLE or len(nodes) > 24: return False
    nodes += n.src
  return True

# ---- memcpy of a few bytes ---------------------------------------------------------------------------------------

MOST_PIECES = 8

def copied_bytes(node: Node) -> int | None:
  """How many bytes a call of the library's memcpy or memmove copies, if that is known and few."""
  callee, *arguments = node.src
  if callee.kind != "decay" or callee.src[0].kind != "variable": return None
  object = callee.src[0].arg
  if object.symbol not in ("memcpy", "memmove") or object.data is not None or len(arguments) != 3: return None
  try: size = constant_value(arguments[2])
  except NotConstant: return None
  width = min(8, *map(known_alignment, arguments[:2]))
  return size if isinstance(size, int) and 0 < size <= MOST_PIECES * width else None

def known_alignment(node: Node) -> int:
  """What a pointer's value is a multiple of, as far as its type before casts to void * says, or the object."""
  while node.kind == "cast" and node.type.is_pointer and node.src[0].type.is_pointer: node = node.src[0]
  if node.kind not in ("address", "decay"): return node.type.to.align if isinstance(node.type, Pointer) else 1
  inner, offset = node.src[0], 0
  while inner.kind == "member": inner, offset = inner.src[0], offset | inner.arg.offset
  base = max(inner.arg.align, inner.type.align) if inner.kind == "variable" else inner.type.align
  return min(base, offset & -offset or base)

# ---- bits of scattered members ---------------------------------------------------------------------------------------

class Part(NamedTuple):
  """`width` bits at bit `shift` of the `size` bytes at `offset` are the member's from bit `position` on."""
  offset: int
  size: int
  shift: int
  width: int
  position: int

def parts_of(place: Place, width: int) -> list[Part]:
  """The pieces of memory that hold some bits: one if an aligned word has all of them, else words that hold nothing
  else, or bytes."""
  for size in (1, 2, 4, 8):
    start = place.bit // (8 * size) * size
    if place.bit + width <= 8 * (start + size) and size <= place.type.align:
      return [Part(start, size, place.bit - 8 * start, width, 0)]
  word = max(n for n in (8, 16, 32) if n == 8 or n <= 8 * place.type.align and place.bit % n == width % n == 0)
  parts, done = [], 0
  while done < width:
    bit = place.bit + done
    n = min(word - bit % word, width - done)
    parts.append(Part(bit // word * word // 8, word // 8, bit % word, n, done))
    done += n
  return parts

def from_bits(bits: UOp, width: int, t: Type) -> UOp:
  """The low bits of an unsigned number as a value of a member's type."""
  if isinstance(t, Floating):
    return cast(bits, UNSIGNED_OF_SIZE[t.size]).bitcast(t.dtype)                       # type: ignore[arg-type]
  if isinstance(t, Integer) and t.signed:
    signed = cast(bits, dtypes.int64)
    return cast(shift_right(shift_left(signed, 64 - width), 64 - width), t.dtype)
  return cast(low_bits(bits, width) if width < bits.dtype.bits else bits, dtype_of(t))

def to_bits(value: UOp) -> UOp:
  """A value as an unsigned number of its size."""
  dtype = UNSIGNED_OF_SIZE[value.dtype.itemsize]
  return value.bitcast(dtype) if value.dtype.kind == "f" else cast(value, dtype)

UNSIGNED_OF_SIZE = {1: dtypes.uint8, 2: dtypes.uint16, 4: dtypes.uint32, 8: dtypes.uint64}

# ---- tables: kind of node -> how it is lowered -----------------------------------------------------------------------

# functions of builtins.h that are no calls
BUILTINS: dict[str, Callable[..., UOp]] = {
  "__builtin_fabs": Lowering.absolute, "__builtin_fabsf": Lowering.absolute, "__builtin_sqrt": Lowering.square_root,
  "__builtin_sqrtf": Lowering.square_root, "__builtin_unreachable": Lowering.unreachable}

VALUES: dict[str, Callable[[Lowering, Node], UOp]] = {
  "number": Lowering.number, "variable": Lowering.load, "dereference": Lowering.load, "member": Lowering.load,
  "compound": Lowering.load, "decay": Lowering.decay, "address": Lowering.decay, "cast": Lowering.cast,
  "neg": Lowering.negate, "not": Lowering.invert, "lnot": Lowering.condition_as_int, "land": Lowering.logical,
  "lor": Lowering.logical, "conditional": Lowering.conditional, "once": Lowering.remembered, "comma": Lowering.comma,
  "statements": Lowering.statements, "assign": Lowering.assign, "update": Lowering.update, "postfix": Lowering.update,
  "call": Lowering.call, "union_cast": Lowering.union_cast,
  "pointer_add": Lowering.pointer_offset, "pointer_sub": Lowering.pointer_offset, "size_of": Lowering.size_of,
  "pointer_difference": Lowering.pointer_difference, **dict.fromkeys(COMPARE, Lowering.condition_as_int),
  **dict.fromkeys(COMPUTE, Lowering.arithmetic)}

STATEMENTS: dict[str, Callable[[Lowering, Node], None]] = {
  "block": Lowering.block, "sequence": Lowering.sequence, "expression": Lowering.expression, "empty": Lowering.empty,
  "declare": Lowering.declare, "measure": Lowering.measure, "if": Lowering.if_, "for": Lowering.for_,
  "do": Lowering.for_, "switch": Lowering.switch, "case": Lowering.case, "label": Lowering.label,
  "goto": Lowering.goto, "computed_goto": Lowering.computed_goto, "break": Lowering.jump,
  "continue": Lowering.jump, "return": Lowering.return_, "asm": Lowering.asm}
