# rvabi.py: the calling convention lp64d: where arguments and results are, which registers calls preserve, which the
# allocator may use.   (RISC-V ELF psABI, "Procedure Calling Convention")
from __future__ import annotations
from dataclasses import dataclass
from typing import Any, Callable, Iterable
from picograd.codegen.flat import Function, operands
from picograd.codegen.regalloc import Bank, Hints, Place, Slot
from picograd.codegen.rvobject import FAR
from picograd.codegen.rvvalue import class_of, in_float
from picograd.dtype import DType, dtypes
from picograd.ops.ops import Ops
from picograd.ops.uop import UOp

F0 = 32                                    # the first float register: 0..31 are the integer registers
V0 = 64                                    # and the first vector register
T1, S0, A0, T4, T5, T6 = 6, 8, 10, 29, 30, FAR
V24, V26, V28, V30 = range(V0 + 24, V0 + 32, 2)
FT9, FT10, FT11 = F0 + 29, F0 + 30, F0 + 31

@dataclass(frozen=True)
class Outgoing:
  """A stack argument of a call: a place of eight bytes, counted from the stack pointer."""
  number: int

@dataclass(frozen=True)
class Incoming:
  """A stack argument of this function."""
  number: int

INT_ARGUMENTS, FLOAT_ARGUMENTS = range(10, 18), range(F0 + 10, F0 + 18)

def argument_places(classes: Iterable[DType], on_stack: Callable[[int], Any], fixed: int | None) -> list[Any]:
  """Where lp64d passes arguments: floats in fa0-7, the rest and all variable arguments in a0-7, then on the stack."""
  ints, floats, stack = list(INT_ARGUMENTS), list(FLOAT_ARGUMENTS), 0
  out = []
  for k, dtype in enumerate(classes):
    as_float = in_float(dtype) and (fixed is None or k < fixed)
    if as_float and floats: out.append(floats.pop(0))
    elif ints: out.append(ints.pop(0))
    else:
      out.append(on_stack(stack))
      stack += 1
  return out

def variable_arguments(params: Iterable[DType]) -> int:
  """How many places of eight bytes the fixed arguments take in the row that the eight integer registers begin."""
  places = argument_places([class_of(dtype) for dtype in params], Slot, None)
  return sum(isinstance(p, Slot) or p < F0 for p in places)

def result_places(values: Iterable[UOp]) -> list[Place]: return argument_places([v.dtype for v in values], Slot, None)

# temporaries first, those that compressed instructions reach before others; then what must be saved
INT_TEMPORARIES, INT_SAVED = (15, 14, 13, 12, 11, 10, 16, 17, 5, 6, 7, 28, T4, T5), (8, 9, *range(18, 28))
FLOAT_TEMPORARIES = tuple([F0 + r for r in (15, 14, 13, 12, 11, 10, 16, 17, *range(8), 28, 29, 30)])
FLOAT_SAVED = tuple([F0 + r for r in (8, 9, *range(18, 28))])
VECTOR_TEMPORARIES = tuple(range(V0 + 2, V30, 2))                    # v0 is for masks; groups of two

def banks(reserved: frozenset[int]) -> dict[str, Bank]:
  """The registers that values may live in. t6 and ft11 never hold one: moves and far jumps go through them."""
  def bank(temporaries: tuple[int, ...], saved: tuple[int, ...]) -> Bank:
    return Bank(tuple([r for r in temporaries + saved if r not in reserved]), frozenset(saved))
  return {"i": bank(INT_TEMPORARIES, INT_SAVED), "f": bank(FLOAT_TEMPORARIES, FLOAT_SAVED),
          "v": bank(VECTOR_TEMPORARIES, ())}

SPILLING = frozenset({T4, T5, FT9, FT10, V24, V26, V28})             # what is read from slots passes through these

def abi_hints(fn: Function, hints: Hints) -> Hints:
  """Arguments want to be where the convention puts them."""
  def want(values: Iterable[UOp], places: Iterable[Any]) -> None:
    for v, p in zip(values, places):
      if isinstance(p, int): hints[v].append(p)
  params = parameters(fn)
  want(params, argument_places([p.dtype for p in params], Incoming, None))
  for block in fn.blocks.values():
    for u in block:
      if u.op is Ops.CALL:
        arguments = operands(u)[1:]
        want(arguments, argument_places([a.dtype for a in arguments], Outgoing, u.arg.fixed))
        if u.dtype is not dtypes.void: want([u], result_places([u]))
      elif u.op is Ops.RET: want(u.src, result_places(u.src))
  return hints

def parameters(fn: Function) -> list[UOp]:
  return [UOp(Ops.PARAM, class_of(dtype), (), k) for k, dtype in enumerate(fn.params)]
