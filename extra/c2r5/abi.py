# abi.py: how C's types travel between functions: the System V ABI of x86-64 and the lp64d ABI of RISC-V (psABI,
# "Procedure Calling Convention"). In: types, in the order of the arguments. Out: for each a Passing: the scalars it is
# passed as. What the back end must know beyond scalars is that integers and floats each have their registers.
from __future__ import annotations
from typing import Iterator, NamedTuple
from picograd.dtype import DType, dtypes
from .ctype import Array, Floating, Integer, Machine, Record, Type, round_up

class Piece(NamedTuple):
  offset: int
  dtype: DType

class Passing(NamedTuple):
  """pieces: the scalars, and where in the object each stands. by_reference: the one piece is the address of a copy.
  on_stack: the one piece is the address of an object that the back end copies to the stack. padding: registers to skip
  before it."""
  pieces: tuple[Piece, ...]
  by_reference: bool = False
  on_stack: bool = False
  padding: int = 0

NOTHING = Passing(())
REFERENCE = Passing((Piece(0, dtypes.ptr),), by_reference=True)
ON_STACK = Passing((Piece(0, dtypes.ptr),), on_stack=True)

def scalar_dtype(t: Type) -> DType:
  """The dtype that a scalar is passed as: small integers as int."""
  if isinstance(t, Integer) and t.size < 4: return dtypes.int32
  dtype = t.dtype                                                       # type: ignore[attr-defined]
  assert dtype is not None, f"{t} is no scalar of this machine"
  return dtype

def scalars(t: Type, offset: int = 0) -> Iterator[tuple[int, Type]]:
  """(offset, scalar type) of everything in an object, bit-fields by their units; members of unions overlap."""
  if isinstance(t, Array):
    for k in range(t.length or 0): yield from scalars(t.of, offset + k * (t.of.size or 0))
  elif isinstance(t, Record):
    for m in t.members: yield from scalars(m.type, offset + m.offset)
  else: yield offset, t

def has_union(t: Type) -> bool:
  if isinstance(t, Array): return has_union(t.of)
  return isinstance(t, Record) and (t.is_union or any(has_union(m.type) for m in t.members))

class Assigner:
  """Gives each argument of one call its place, in order."""
  integers, floats = 8, 8
  def __init__(self) -> None:
    self.free_integers, self.free_floats = self.integers, self.floats

  def result(self, t: Type) -> Passing:
    """by_reference: the caller passes an address, first of all, where the result goes."""
    return self.place(t, False) if not t.is_void else NOTHING
  def argument(self, t: Type, is_variable: bool) -> Passing:
    passing = self.place(t, is_variable)
    self.free_integers -= passing.padding
    for piece in passing.pieces:
      if piece.dtype.kind == "f" and not is_variable and self.free_floats: self.free_floats -= 1
      else: self.free_integers -= 1                          # below zero: eight bytes of the stack each
    return passing
  def place(self, t: Type, is_variable: bool) -> Passing: raise NotImplementedError

class Lp64d(Assigner):
  def place(self, t: Type, is_variable: bool) -> Passing:
    size = t.size or 0
    if size == 0: return NOTHING
    if not t.is_record and not (isinstance(t, Floating) and t.dtype is None):
      return Passing((Piece(0, scalar_dtype(t)),))
    if size > 16: return REFERENCE
    flat = () if is_variable or not t.is_record else self.in_floats(t)
    if flat: return Passing(flat)
    wide = is_variable and t.align == 16 and self.free_integers % 2 == 1           # an even register begins a pair
    return Passing(tuple([Piece(k, dtypes.int64) for k in range(0, size, 8)]), padding=int(wide))

  def in_floats(self, t: Type) -> tuple[Piece, ...]:
    """A structure of one or two scalars, at least one of them floating, goes as these, if registers are free."""
    found = [] if has_union(t) else list(scalars(t))
    kinds = ["f" if isinstance(s, Floating) and s.dtype is not None else "i" for _, s in found]
    if not 1 <= len(found) <= 2 or "f" not in kinds or any((s.size or 0) > 8 for _, s in found): return ()
    if kinds.count("f") > self.free_floats or kinds.count("i") > self.free_integers: return ()
    return tuple([Piece(offset, s.dtype) for offset, s in found])                  # type: ignore[attr-defined]

class SystemV(Assigner):
  integers, floats = 6, 8
  def argument(self, t: Type, is_variable: bool) -> Passing:
    passing = self.place(t, is_variable)
    floats = sum(piece.dtype.kind == "f" for piece in passing.pieces)
    if passing.on_stack: return passing
    needed = len(passing.pieces) - floats
    if t.is_record and (needed > self.free_integers or floats > self.free_floats): return ON_STACK
    self.free_integers, self.free_floats = max(0, self.free_integers - needed), max(0, self.free_floats - floats)
    return passing
  def result(self, t: Type) -> Passing:
    if t.is_void: return NOTHING
    found = list(scalars(t))
    if len(found) == 1 and found[0][1].is_floating: return Passing((Piece(0, scalar_dtype(found[0][1])),))
    passing = self.place(t, False)
    return REFERENCE if passing.on_stack else passing

  def place(self, t: Type, is_variable: bool) -> Passing:
    size = t.size or 0
    if size == 0: return NOTHING
    if not t.is_record: return ON_STACK if size > 8 else Passing((Piece(0, scalar_dtype(t)),))
    found = list(scalars(t))
    if size > 16 or any(offset % (s.size or 1) or (s.size or 0) > 8 for offset, s in found): return ON_STACK
    pieces = []
    for k in range(0, size, 8):
      inside = [s for offset, s in found if k <= offset < k + 8]
      if not all(s.is_floating for s in inside): pieces.append(Piece(k, dtypes.int64))
      else: pieces.append(Piece(k, dtypes.float32 if size - k == 4 else dtypes.float64))
    return Passing(tuple(pieces))

def assigner(machine: Machine) -> Assigner: return Lp64d() if machine.name == "riscv64" else SystemV()

def stack_size(t: Type) -> tuple[int, int]:
  """(bytes, alignment) of an object that is passed on the stack."""
  return round_up(t.size or 0, 8), max(8, t.align)
