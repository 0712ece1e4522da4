# rvrules.py: which instructions an operation becomes: a table with a section per op, and the shapes of operands that
# its rules ask for. Numbers are as PYTHON defines them. MULACC is a fused multiply-add, ADD of MUL never is.
from __future__ import annotations
from typing import Callable, NamedTuple
from picograd.codegen.rvvalue import INT, class_of
from picograd.ops.ops import Ops
from picograd.ops.uop import UOp

# ---- operand shapes: what a rule wants a source to be. Each gives the registers and the number it becomes ------------

Shaped = tuple[tuple[UOp, ...], "int | None"]
Shape = Callable[[UOp], "Shaped | None"]

def reg(u: UOp) -> Shaped | None: return (u,), None
def is_number(u: UOp) -> bool: return u.op is Ops.CONST and u.dtype.kind != "f"

def number_within(low: int, high: int) -> Shape:
  def shape(u: UOp) -> Shaped | None: return ((), int(u.arg)) if is_number(u) and low <= u.arg <= high else None
  return shape
imm12 = number_within(-2048, 2047)
positive = number_within(0, 2047)
zero = number_within(0, 0)
one = number_within(1, 1)

def minus_imm12(u: UOp) -> Shaped | None: return ((), -int(u.arg)) if is_number(u) and -2048 < u.arg <= 2048 else None
def power(u: UOp) -> Shaped | None:
  """A power of two: its exponent."""
  if not is_number(u) or u.arg <= 0 or u.arg & u.arg - 1: return None
  return (), int(u.arg).bit_length() - 1
def low_bits(u: UOp) -> Shaped | None:
  """A power of two: what to AND with for the remainder."""
  return ((), int(u.arg) - 1) if power(u) and u.arg <= 2048 else None
def number(u: UOp) -> Shaped | None: return ((), int(u.arg)) if is_number(u) else None
def is_minus_one(u: UOp) -> bool:
  return u.op is Ops.CONST and u.arg == (u.dtype.max if u.dtype.is_unsigned else -1)
def minus_one(u: UOp) -> Shaped | None: return ((), None) if is_minus_one(u) else None
def whole(u: UOp) -> Shaped | None:
  """A value in an integer register."""
  return ((u,), None) if class_of(u.dtype) is INT else None

def negated(u: UOp) -> Shaped | None:
  """-x, which is x * -1: the x."""
  if u.op is not Ops.MUL or not is_minus_one(u.src[1]): return None
  return (u.src[0],), None
def product(k: int) -> Shape:
  """x * 2^k: the x."""
  def shape(u: UOp) -> Shaped | None:
    if u.op not in (Ops.MUL, Ops.SHL) or not is_number(u.src[1]): return None
    scale = u.src[1].arg if u.op is Ops.MUL else 1 << u.src[1].arg
    return ((u.src[0],), None) if scale == 1 << k else None
  return shape
def masked(u: UOp) -> Shaped | None:
  """A shift count AND the width less 1: the instruction does that."""
  return ((u.src[0],), None) if u.op is Ops.AND and is_number(u.src[1]) and u.src[1].arg in (31, 63) else None
def inverted(u: UOp) -> Shaped | None:
  return ((u.src[0],), None) if u.op is Ops.XOR and is_minus_one(u.src[1]) else None
def compared(op: Ops, kinds: str, right: Shape = reg) -> Shape:
  """A comparison of such operands: they."""
  def shape(u: UOp) -> Shaped | None:
    if u.op is not op or u.src[0].dtype.kind not in kinds: return None
    found = right(u.src[1])
    return None if found is None else ((u.src[0], *found[0]), None)
  return shape
def true(u: UOp) -> Shaped | None: return ((), None) if u.op is Ops.CONST and u.arg is True else None
def opposite(op: Ops, kinds: str) -> Shape:
  """not(a comparison of such operands): they."""
  inner = compared(op, kinds)
  def shape(u: UOp) -> Shaped | None: return inner(u.src[0]) if u.op is Ops.CMPNE and true(u.src[1]) else None
  return shape

# ---- selection rules -------------------------------------------------------------------------------------------------

class Rule(NamedTuple):
  """For operands of these kinds (of the first source: i signed, u unsigned, b bool, p pointer, f float) and shapes,
  these instructions: a b c are the registers that the shapes gave, n is the number, . the result of the instruction
  before. {w} is w for at most 32 bits, {f} s or d, {u} u for unsigned."""
  kinds: str
  shapes: tuple[Shape, ...]
  code: str
  needs: str = ""                                                    # an extension

# sections per op, the specific first, the base case last
RULES: dict[Ops, tuple[Rule, ...]] = {
  Ops.ADD: (
    Rule("iu", (reg, imm12), "addi{w} a n"), Rule("p", (reg, imm12), "addi a n"),
    Rule("p", (reg, product(1)), "sh1add b a", "zba"), Rule("p", (reg, product(2)), "sh2add b a", "zba"),
    Rule("p", (reg, product(3)), "sh3add b a", "zba"),
    Rule("iu", (reg, negated), "sub{w} a b"), Rule("iu", (negated, reg), "sub{w} b a"),
    Rule("f", (reg, negated), "fsub.{f} a b"), Rule("f", (negated, reg), "fsub.{f} b a"),
    Rule("iu", (reg, reg), "add{w} a b"), Rule("p", (reg, reg), "add a b"), Rule("f", (reg, reg), "fadd.{f} a b"),
    Rule("b", (reg, reg), "or a b")),
  Ops.MUL: (
    Rule("iu", (reg, power), "slli{w} a n"), Rule("iu", (reg, minus_one), "sub{w} 0 a"),
    Rule("iu", (reg, reg), "mul{w} a b"), Rule("f", (reg, minus_one), "fsgnjn.{f} a a"),
    Rule("f", (reg, reg), "fmul.{f} a b"), Rule("b", (reg, reg), "and a b")),
  Ops.MULACC: (
    Rule("f", (negated, reg, negated), "fnmadd.{f} a b c"), Rule("f", (reg, negated, negated), "fnmadd.{f} a b c"),
    Rule("f", (negated, reg, reg), "fnmsub.{f} a b c"), Rule("f", (reg, negated, reg), "fnmsub.{f} a b c"),
    Rule("f", (reg, reg, negated), "fmsub.{f} a b c"), Rule("f", (reg, reg, reg), "fmadd.{f} a b c")),
  Ops.FDIV: (Rule("f", (reg, reg), "fdiv.{f} a b"),),
  Ops.SQRT: (Rule("f", (reg,), "fsqrt.{f} a"),),
  Ops.IDIV: (Rule("u", (reg, power), "srli{w} a n"), Rule("iu", (reg, reg), "div{u}{w} a b")),
  Ops.MOD: (Rule("u", (reg, low_bits), "andi a n"), Rule("iu", (reg, reg), "rem{u}{w} a b")),
  Ops.AND: (
    Rule("iub", (reg, imm12), "andi a n"), Rule("iu", (reg, inverted), "andn a b", "zbb"),
    Rule("iub", (reg, reg), "and a b")),
  Ops.OR: (
    Rule("iub", (reg, imm12), "ori a n"), Rule("iu", (reg, inverted), "orn a b", "zbb"),
    Rule("iub", (reg, reg), "or a b")),
  Ops.XOR: (Rule("iub", (reg, imm12), "xori a n"), Rule("iub", (reg, reg), "xor a b")),
  Ops.SHL: (
    Rule("iu", (reg, number), "slli{w} a n"), Rule("iu", (reg, masked), "sll{w} a b"),
    Rule("iu", (reg, reg), "sll{w} a b")),
  Ops.SHR: (
    Rule("i", (reg, number), "srai{w} a n"), Rule("i", (reg, masked), "sra{w} a b"),
    Rule("i", (reg, reg), "sra{w} a b"),
    Rule("u", (reg, number), "srli{w} a n"), Rule("u", (reg, masked), "srl{w} a b"),
    Rule("u", (reg, reg), "srl{w} a b")),
  Ops.CMPLT: (
    Rule("i", (reg, imm12), "slti a n"), Rule("ubp", (reg, positive), "sltiu a n"), Rule("i", (reg, reg), "slt a b"),
    Rule("ubp", (reg, reg), "sltu a b"), Rule("f", (reg, reg), "flt.{f} a b")),
  Ops.CMPNE: (
    Rule("b", (compared(Ops.CMPNE, "iup", zero), true), "sltiu a 1"),
    Rule("b", (compared(Ops.CMPNE, "iubp"), true), "xor a b; sltiu . 1"),
    Rule("b", (compared(Ops.CMPNE, "f"), true), "feq.{f} a b"),
    Rule("b", (reg, true), "xori a 1"), Rule("b", (reg, reg), "xor a b"),
    Rule("iup", (reg, zero), "sltu 0 a"), Rule("iup", (reg, minus_imm12), "addi a n; sltu 0 ."),
    Rule("iup", (reg, reg), "xor a b; sltu 0 ."), Rule("f", (reg, reg), "feq.{f} a b; xori . 1")),
  Ops.WHERE: (
    Rule("b", (reg, one, zero), ""), Rule("b", (reg, whole, zero), "sub 0 a; and . b"),
    Rule("b", (reg, zero, whole), "addi a -1; and . b")),
}
CAN_OVERFLOW = frozenset({Ops.ADD, Ops.MUL, Ops.SHL, Ops.IDIV})      # narrow types are computed wide, then cut

# a condition -> the branch that is taken if it holds
BRANCHES: tuple[tuple[Shape, str], ...] = (
  (opposite(Ops.CMPLT, "i"), "bge"), (opposite(Ops.CMPLT, "ubp"), "bgeu"), (opposite(Ops.CMPNE, "iubp"), "beq"),
  (compared(Ops.CMPLT, "i"), "blt"), (compared(Ops.CMPLT, "ubp"), "bltu"), (compared(Ops.CMPNE, "iubp"), "bne"),
)

LOADS = {"bool": "lbu", "uint8": "lbu", "int8": "lb", "uint16": "lhu", "int16": "lh", "float16": "lhu", "uint32": "lw",
         "bfloat16": "lhu", "int32": "lw", "uint64": "ld", "int64": "ld", "ptr": "ld", "float32": "flw",
         "float64": "fld"}
STORES = {1: "sb", 2: "sh", 4: "sw", 8: "sd"}
