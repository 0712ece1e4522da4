# unit.py: a parsed file -> a Module (picograd/codegen/flat.py). In: a Unit and its Definitions. Out: the functions that
# can be reached from outside the file, lowered; the objects that they and each other mention, as bytes and pointers.
from __future__ import annotations
import struct
from typing import Iterable
from picograd.codegen.flat import Data, Function, Module, every_node
from picograd.helpers import dedup
from picograd.ops.ops import Ops
from .constant import NotConstant, Value, bytes_of_long_double, constant_value
from .ctype import Floating, Machine, is_const_array
from .declare import Leaf
from .lex import Diagnostics, Failure, doing
from .lower import Lowering
from .parse import Definition, Unit
from .tree import Address, Object

class Image:
  """The bytes of an object, and the pointers in it."""
  def __init__(self, size: int):
    self.bytes = bytearray(size)
    self.pieces: dict[int, tuple[str, int]] = {}

  def put(self, offset: int, data: bytes) -> None:
    end = offset + len(data)
    if end > len(self.bytes): self.bytes.extend(bytes(end - len(self.bytes)))         # a flexible member
    self.bytes[offset:end] = data
    for at in [at for at in self.pieces if offset < at + 8 and at < end]: del self.pieces[at]

  def value(self, leaf: Leaf, value: Value) -> None:
    t = leaf.type
    if leaf.member is not None: return self.bits(leaf, int(value))
    if isinstance(value, Address):
      self.put(leaf.offset, bytes(8))
      self.pieces[leaf.offset] = (value.object.symbol, value.offset)
    elif isinstance(t, Floating):
      if t.size == 16: self.put(leaf.offset, bytes_of_long_double(t, value))
      else: self.put(leaf.offset, struct.pack("<f" if t.size == 4 else "<d", value))
    else: self.put(leaf.offset, (int(value) & (1 << 8 * (t.size or 0)) - 1).to_bytes(t.size or 0, "little"))

  def bits(self, leaf: Leaf, value: int) -> None:
    assert leaf.member is not None and leaf.member.width is not None, "callers have a bit-field"
    first = 8 * (leaf.offset - leaf.member.offset) + leaf.member.bit
    for k in range(leaf.member.width):
      byte, bit = divmod(first + k, 8)
      self.bytes[byte] = self.bytes[byte] & ~(1 << bit) | (value >> k & 1) << bit

def image_of(object: Object) -> Image:
  image = Image(object.type.size or 0)
  if isinstance(object.data, bytes): image.put(0, object.data)
  else: fill(image, object.data or [], 0)
  return image

def fill(image: Image, leaves: Iterable[Leaf], base: int) -> None:
  for leaf in leaves:
    leaf = leaf._replace(offset=leaf.offset + base)
    node = leaf.node
    if node.kind == "bytes": image.put(leaf.offset, node.arg)
    elif node.kind == "compound" and not node.type.is_scalar:                          # GNU: a constant of record type
      image.put(leaf.offset, bytes(node.type.size or 0))
      fill(image, node.arg[1], leaf.offset)
    else:
      try: image.value(leaf, constant_value(node))
      except NotConstant: raise Failure(node.token, "initializer element is not constant") from None

def symbols_of(fn: Function) -> list[str]: return [u.arg for u in every_node(fn) if u.op is Ops.SYM]

class UnitLowering:
  def __init__(self, unit: Unit, definitions: list[Definition], machine: Machine, diagnostics: Diagnostics,
               lines: bool):
    self.unit, self.machine, self.diagnostics, self.lines = unit, machine, diagnostics, lines
    self.definitions = {d.object.symbol: d for d in definitions if not only_declared(d.object)}
    self.objects = {o.symbol: o for o in unit.objects}
    self.constants: dict[bytes, str] = {}
    self.functions: dict[str, Function] = {}
    self.data: dict[str, Data] = {}

  def lower(self) -> Module:
    waiting = [s for s, o in self.objects.items() if is_root(o, s in self.definitions)]
    reached = set(waiting)
    for name in waiting:                                      # it grows
      found = [symbol for symbol in dedup(self.add(name)) if symbol not in reached]
      reached.update(found)
      waiting += found
    for object in self.objects.values():                      # a wrong initialiser is wrong in what nobody uses
      if object.symbol not in reached and isinstance(object.data, list): self.check(object)
    mentioned = [self.objects[s] for s in self.objects if s in reached]
    for contents, name in self.constants.items():
      self.data[name] = Data(name, contents, len(contents), 16, (), True, True)
    constructors = {word: tuple([o.symbol for o in mentioned if word in o.attributes and o.symbol in self.functions])
                    for word in ("constructor", "destructor")}
    return Module(list(self.functions.values()), list(self.data.values()),
                  frozenset(o.symbol for o in mentioned if "_Thread_local" in o.attributes),
                  frozenset(o.symbol for o in mentioned if "weak" in o.attributes),
                  tuple([(o.symbol, o.alias) for o in mentioned if o.alias is not None]),
                  constructors["constructor"], constructors["destructor"], tuple(self.unit.assembly))

  def add(self, name: str) -> list[str]:
    """Lowers what a symbol stands for; gives the symbols that it mentions."""
    object = self.objects.get(name)
    try:
      if object is not None and object.alias is not None and not self.is_here(object.alias):
        raise Failure(object.token, f"'{name}' aliased to undefined symbol '{object.alias}'")
      if name in self.definitions:
        lowering = Lowering(self.definitions[name], self.machine, self.constants, self.lines)
        with doing(lambda: f"in function '{name}', {lowering.at.where}"): self.functions[name] = lowering.lower()
        return symbols_of(self.functions[name])
      if object is not None and object.is_defined and not object.type.is_function and object.alias is None:
        return self.add_data(object)
    except Failure as e: self.diagnostics.error(e.token, e.message)
    return [object.alias] if object is not None and object.alias is not None else []

  def is_here(self, name: str) -> bool:
    return name in self.definitions or name in self.objects and self.objects[name].is_defined

  def check(self, object: Object) -> None:
    try: image_of(object)
    except Failure as e: self.diagnostics.error(e.token, e.message)

  def add_data(self, object: Object) -> list[str]:
    image = image_of(object)
    pieces = tuple(sorted((at, *piece) for at, piece in image.pieces.items()))
    contents = bytes(image.bytes).rstrip(b"\0") if not pieces else bytes(image.bytes)
    constant = is_const_array(object.type) or "string" in object.attributes
    self.data[object.symbol] = Data(
      object.symbol, contents, len(image.bytes), max(object.align, object.type.align, 1), pieces,
      object.is_local_symbol, constant, "_Thread_local" in object.attributes, object.section)
    return [symbol for _, symbol, _ in pieces]

def only_declared(object: Object) -> bool:
  """GNU: an `extern inline` function with gnu_inline is there to be inlined; its definition is elsewhere."""
  return "gnu_inline" in object.attributes and "extern inline" in object.attributes

def is_root(object: Object, has_body: bool) -> bool:
  """Whether others may need it: what is visible from outside, or marked."""
  if object.attributes & {"used", "constructor", "destructor"}: return True
  if not object.is_defined or object.is_local_symbol: return False
  if object.type.is_function: return object.alias is not None or (has_body and not is_inline_only(object))
  return True

def is_inline_only(object: Object) -> bool:
  """C99: an inline definition without `extern` makes no symbol. We make a local one if it is used."""
  if "inline" not in object.attributes: return False
  inline_only = not object.attributes & {"external definition", "extern inline"}
  if inline_only: object.is_local_symbol = True
  return inline_only
