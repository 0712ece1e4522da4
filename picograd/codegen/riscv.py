# riscv.py: a flat function as RISC-V machine code: legalise, select instructions by rules, place, allocate registers,
# emit. In registers an int32 or uint32 is sign-extended, narrower types are extended by their sign, a bool is 0 or 1, a
# 16-bit float is its bits: as the calling convention (lp64d) passes them. Numbers are as PYTHON defines them. Kernels
# and C functions alike: MULACC is a fused multiply-add, ADD of MUL never is.   (RISC-V Unprivileged ISA; ELF psABI)
from __future__ import annotations
import functools, struct
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Any, Callable, Iterable, NamedTuple
from picograd.codegen.flat import Flow, Function, STATEFUL, every_node, forward, operands, phi, successors
from picograd.codegen.flatopt import reduce_strength
from picograd.codegen.place import place
from picograd.codegen.regalloc import (Allocation, Bank, Hints, Place, Slot, allocate, bank_of, coalescing_hints,
                                       in_sequence)
from picograd.codegen.rvasm import DYNAMIC, ROWS, TO_ZERO, Row, decode
from picograd.codegen.rvobject import Assembled, FAR, INVERSE, RA, SP, Section, disassemble, signed
from picograd.codegen.rvv import Lanes, VectorSelection, has_lanes, legalise_vectors, vector_type
from picograd.codegen.rvvalue import INT, ZERO, class_of, in_float, ins
from picograd.dtype import DType, dtypes
from picograd.helpers import dedup
from picograd.ops.decompose import is_within_int64
from picograd.ops.ops import Ops, TERMINATORS
from picograd.ops.uop import Table, UOp

# ---- legalise: ops that no instruction has, in ops that have one -----------------------------------------------------

UNSIGNED = {dt.bits: dt for dt in dtypes.unsigned}

def is_below(u: UOp, limit: int) -> bool:
  """Whether a shift count is known to be in [0, limit)."""
  mask = u.src[1] if u.op is Ops.AND else u
  return mask.op is Ops.CONST and 0 <= mask.arg < limit

def shift(u: UOp) -> UOp | None:
  """A count that is not below the width shifts everything out; the instruction looks at its low bits alone."""
  x, count = u.src
  bits = u.dtype.bits
  if is_below(count, bits): return None
  if count.op is Ops.CONST: count = count.like(bits)
  within = count.bitcast(UNSIGNED[bits]) < bits
  if u.op is Ops.SHR and u.dtype.kind == "i": return x >> (within.where(count, bits - 1) & (bits - 1))
  return within.where(x.alu(u.op, count & (bits - 1)), 0)

def maximum(u: UOp) -> UOp | None:
  """The first if they are equal, NaN if either is."""
  x, y = u.src
  if u.dtype.kind == "b": return x | y
  if u.dtype.kind != "f" or (y.op is Ops.CONST and y.arg == y.arg): return (x < y).where(y, x)
  less, number = (x < y).cast(INT), y.eq(y).cast(INT)
  return (less < number).where(x, y)

def clamp(x: UOp, dtype: DType) -> UOp:
  low = (x < dtype.min).where(x.like(dtype.min), x)
  return (low > dtype.max).where(low.like(dtype.max), low)

def cast(u: UOp) -> UOp | None:
  source, to = u.src[0].dtype, u.dtype
  x = u.src[0]
  if source is dtypes.float16: return half_to_single(x).cast(to)
  if to.kind == "b": return x.ne(0) if source.kind != "b" else x
  if to is dtypes.float16: return single_to_half(x.cast(dtypes.float32))
  if source.kind == "f" and to.is_int and to.bits < 32: return clamp(x.cast(INT), to).cast(to)
  return None

def half_to_single(x: UOp) -> UOp:
  """The fraction and exponent as a float32 that is 2^112 times smaller; infinities and NaN get its largest exponent."""
  bits = x.bitcast(dtypes.uint16).cast(dtypes.uint32)
  magnitude = (bits & 0x7fff) << 13
  number = (magnitude.bitcast(dtypes.float32) * 2.0**112).bitcast(dtypes.uint32)
  special = magnitude | 0x7f800000
  return ((magnitude < 0x0f800000).where(number, special) | (bits & 0x8000) << 16).bitcast(dtypes.float32)

def single_to_half(x: UOp) -> UOp:
  """Rounded to nearest even. Small numbers are rounded by adding 1/2, whose last bit is that of the smallest half."""
  bits = x.bitcast(dtypes.uint32)
  magnitude = bits & 0x7fffffff
  tiny = (magnitude.bitcast(dtypes.float32) + 0.5).bitcast(dtypes.uint32) - 0x3f000000
  normal = (magnitude + 0xc8000fff + (magnitude >> 13 & 1)) >> 13
  huge = (magnitude > 0x7f800000).where(magnitude.like(0x7e00), 0x7c00)
  finite = (magnitude < 0x38800000).where(tiny, normal)
  half = (magnitude < 0x47800000).where(finite, huge)
  return (half | bits >> 16 & 0x8000).cast(dtypes.uint16).bitcast(dtypes.float16)

LEGAL: dict[Ops, Callable[[UOp], UOp | None]] = {Ops.SHL: shift, Ops.SHR: shift, Ops.MAX: maximum, Ops.CAST: cast}

def legalise(fn: Function) -> Function:
  """What was put in place of an op may itself need that."""
  while True:
    found = [(u, LEGAL[u.op](u)) for u in every_node(fn) if u.op in LEGAL and u.dtype.count == 1]
    table = {u: new for u, new in found if new is not None}
    if not table: return fn
    fn = forward(fn, table)

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
def minus_one(u: UOp) -> Shaped | None: return ((), None) if u.op is Ops.CONST and u.arg == -1 else None
def whole(u: UOp) -> Shaped | None:
  """A value in an integer register."""
  return ((u,), None) if class_of(u.dtype) is INT else None

def negated(u: UOp) -> Shaped | None:
  """-x, which is x * -1: the x."""
  if u.op is not Ops.MUL or u.src[1].op is not Ops.CONST or u.src[1].arg != -1: return None
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
  return ((u.src[0],), None) if u.op is Ops.XOR and u.src[1].op is Ops.CONST and u.src[1].arg == -1 else None
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
    Rule("pi", (reg, product(1)), "sh1add b a", "zba"), Rule("pi", (reg, product(2)), "sh2add b a", "zba"),
    Rule("pi", (reg, product(3)), "sh3add b a", "zba"),
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

# ---- selection -------------------------------------------------------------------------------------------------------

class Step(NamedTuple):
  """One instruction of a rule for a dtype: letters name registers; a number is n, or stands in the rule."""
  row: str
  letters: tuple[str, ...]
  number: str
  dtype: DType                                                       # of the result

@functools.cache
def steps_of(code: str, dtype: DType) -> list[Step]:
  words = {"w": "w" if dtype.bits <= 32 else "", "f": "d" if dtype.bits == 64 else "s",
           "u": "u" if dtype.is_unsigned else ""}
  out = []
  for text in filter(None, code.format(**words).split(";")):
    row, *names = text.split()
    takes_number = any(name in NUMBERS for name in ROWS[row].names)
    letters = tuple(names[:-1] if takes_number else names)
    out.append(Step(row, letters, names[-1] if takes_number else "", result_class(row)))
  return out

NUMBERS = frozenset({"imm", "store", "shift", "shiftw", "upper"})
class Selector(VectorSelection):
  """new: flat node -> what stands for it: an INS, or a leaf that needs none."""
  def __init__(self, fn: Function, extensions: frozenset[str]):
    self.fn, self.extensions = fn, extensions
    self.new: Table = {}
    self.state: Table = {}                                           # effect -> the state after it, a label
    self.results: dict[UOp, list[UOp]] = {}                          # call -> its results, of several, that are used
    for u in every_node(fn): self.new[u] = self.select(u)

  def function(self) -> Function:
    """Loads that were different may have become one. A call's several results are taken right after it."""
    blocks = {label: dedup(v for u in block for v in (self.new[u], *self.results.get(u, ())))
              for label, block in self.fn.blocks.items()}
    return replace(self.fn, blocks=blocks)

  def select(self, u: UOp) -> UOp:
    if has_lanes(u): return self.select_vector(u)
    made = self.by_rule(u) if u.op in RULES else None
    if made is not None: return made
    if u.op not in self.specials: raise ValueError(f"{self.fn.name}: {u.op} of {u.dtype} has no RISC-V instruction")
    return self.specials[u.op](self, u)

  def by_rule(self, u: UOp) -> UOp | None:
    kind = "p" if u.src[0].op is Ops.BUFFER else u.src[0].dtype.kind
    for rule in usable_rules(u.op, kind, self.extensions):
      found = match_shapes(rule.shapes, u.src)
      if found is not None: return self.build(rule, u, *found)
    return None

  def build(self, rule: Rule, u: UOp, registers: list[UOp], number: int | None) -> UOp:
    steps = steps_of(rule.code, deciding_dtype(u))
    operand = dict(zip("abc", [self.new[r] for r in registers]))
    operand["0"], made = ZERO, operand["a"]
    for row, letters, text, dtype in steps:
      n = number if text == "n" else int(text) if text else None
      made = UOp(Ops.INS, dtype, tuple([operand[letter] for letter in letters]), (row, n))
      operand["."] = made
    narrow = u.dtype.is_int and u.dtype.bits < 32 and u.op in CAN_OVERFLOW
    return self.cut(made, u.dtype) if narrow else made

  def cut(self, x: UOp, dtype: DType) -> UOp:
    """The low bits of x as a narrow integer stands in a register."""
    if dtype.bits == 8 and dtype.kind != "i": return ins("andi", x, number=255)
    if "zbb" in self.extensions: return ins(f"{'s' if dtype.kind == 'i' else 'z'}ext.{'bh'[dtype.bits == 16]}", x)
    up = ins("slli", x, number=64 - dtype.bits)
    return ins("srai" if dtype.kind == "i" else "srli", up, number=64 - dtype.bits)

  # ops whose instructions depend on more than shapes

  def const(self, u: UOp) -> UOp:
    leaf = self.repeated(u)
    if leaf is ZERO: return ZERO
    if leaf.dtype is INT: return ins("li", number=leaf.arg)
    code, pseudo = ("<d", "float.d") if u.dtype.bits == 64 else ("<f", "float.s")
    return ins(pseudo, number=int.from_bytes(struct.pack(code, u.arg), "little"), dtype=u.dtype)

  def repeated(self, u: UOp) -> UOp:
    """A constant as moves and x0 take it: computed again wherever it is wanted."""
    if u.dtype.kind != "f": return UOp.const(INT, signed(int(u.arg), min(64, max(32, u.dtype.bits))))
    if u.dtype.bits == 16: return UOp.const(INT, half_bits(u))
    return u

  def passed(self, u: UOp) -> UOp:
    """A value that moves to where a call, a jump or a return wants it."""
    cheap = u.op is Ops.CONST and (class_of(u.dtype) is INT or is_positive_zero(u))
    return self.repeated(u) if cheap else self.new[u]

  def leaf(self, u: UOp) -> UOp: return u.replace(dtype=class_of(u.dtype))
  def phi(self, u: UOp) -> UOp: return phi(u.src[0], u.arg, class_of(u.dtype))
  def buffer(self, u: UOp) -> UOp: return ins("frame", number=u)
  def symbol(self, u: UOp) -> UOp: return ins("la", number=u.arg)
  def label(self, u: UOp) -> UOp: return u

  def where(self, u: UOp) -> UOp:
    condition, yes, no = u.src
    name, a, b = self.condition(condition)
    return ins("select " + name, a, b, self.new[yes], self.new[no], dtype=class_of(u.dtype))

  def condition(self, u: UOp) -> tuple[str, UOp, UOp]:
    """The branch that is taken if u holds, and what it compares."""
    for shape, name in BRANCHES:
      found = shape(u)
      if found is None: continue
      a, b = found[0]
      return name, self.new[a], self.new[b]
    inverse = opposite(Ops.CMPLT, "f")(u)
    if inverse is not None: return "beq", self.new[u.src[0]], ZERO
    if compared(Ops.CMPNE, "f")(u) is not None: return "beq", self.new[u].src[0], ZERO     # what xori turned around
    return "bne", self.new[u], ZERO

  def cast(self, u: UOp) -> UOp:
    x, source, to = self.new[u.src[0]], u.src[0].dtype, u.dtype
    if in_float(source) and in_float(to):
      if source is to: return x
      return ins("fcvt.d.s" if to.bits == 64 else "fcvt.s.d", x, dtype=to)
    if in_float(to): return ins(f"fcvt.{float_letter(to)}.{integer_letters(source)}", x, dtype=to)
    if in_float(source): return self.float_to_int(u, x, float_letter(source))
    return self.extend(x, source, to)

  def float_to_int(self, u: UOp, x: UOp, letter: str) -> UOp:
    """Towards zero; the instruction gives the nearest in range, as we want, but NaN should give 0."""
    converted = ins(f"fcvt.{integer_letters(u.dtype)}.{letter}", x, number=TO_ZERO)
    if is_within_int64(u.src[0]): return converted
    return ins("and", converted, ins("sub", ZERO, ins(f"feq.{letter}", x, x)))

  def extend(self, x: UOp, source: DType, to: DType) -> UOp:
    if to.bits == 64:
      if source is not dtypes.uint32: return x
      if "zba" in self.extensions: return ins("add.uw", x, ZERO)
      return ins("srli", ins("slli", x, number=32), number=32)
    if to.bits == 32: return ins("addiw", x, number=0) if source.bits == 64 else x
    fits = source.kind == "b" or (source.bits <= to.bits if source.kind == to.kind else
                                  source.bits < to.bits and source.kind == "u")
    return x if fits else self.cut(x, to)

  def bitcast(self, u: UOp) -> UOp:
    x, source, to = self.new[u.src[0]], u.src[0].dtype, u.dtype
    width = "d" if to.bits == 64 else "w"
    if in_float(source) == in_float(to):
      return self.cut(x, to) if source.bits in (8, 16) and source.kind != to.kind else x
    return ins(f"fmv.{width}.x", x, dtype=to) if in_float(to) else ins(f"fmv.x.{width}", x)

  def address(self, u: UOp) -> tuple[UOp, int]:
    """(base, offset): an offset beyond 12 bits leaves its upper part with the base, which neighbours share."""
    offset = 0
    if u.op is Ops.ADD and is_number(u.src[1]): u, offset = u.src[0], u.src[1].arg
    if u.op is Ops.BUFFER: return u, offset
    low = signed(offset, 12)
    base = self.new[u]
    return (base if low == offset else ins("add", base, ins("li", number=offset - low))), low

  def after(self, effect: UOp) -> UOp:
    """The state that an effect leaves behind, as a label: so INS names its state by a label, last."""
    if effect.op is Ops.LABEL: return effect
    if effect not in self.state: self.state[effect] = UOp(Ops.LABEL, dtypes.void, (), ("after", len(self.state)))
    return self.state[effect]

  def load(self, u: UOp) -> UOp:
    pointer, state = u.src
    base, offset = self.address(pointer)
    value = ins(LOADS[u.dtype.name], base, self.after(state), number=offset, dtype=class_of(u.dtype))
    return ins("sltu", ZERO, value) if u.dtype.kind == "b" else value

  def store(self, u: UOp) -> UOp:
    pointer, value, state = u.src
    base, offset = self.address(pointer)
    integer = class_of(value.dtype) is INT or is_positive_zero(value)
    row = STORES[value.dtype.itemsize] if integer else {4: "fsw", 8: "fsd"}[value.dtype.itemsize]
    source = ZERO if is_positive_zero(value) else self.new[value]
    return ins(row, source, base, self.after(state), number=offset, dtype=dtypes.void)

  def call(self, u: UOp) -> UOp:
    callee, *arguments, state = u.src
    target = callee if callee.op is Ops.SYM else self.new[callee]
    return UOp(Ops.CALL, class_of(u.dtype), (target, *map(self.passed, arguments), self.after(state)), u.arg)

  def result(self, u: UOp) -> UOp:
    """The k-th result of a call that has several."""
    call, k = u.src
    made = ins("result", self.after(call), number=k.arg, dtype=class_of(u.dtype))
    self.results.setdefault(call, []).append(made)
    return made

  def jump(self, u: UOp) -> UOp:
    label, *values = u.src
    return u.with_src((label, *map(self.passed, values)))
  def branch(self, u: UOp) -> UOp:
    condition, yes, no = u.src
    name, a, b = self.condition(condition)
    return UOp(Ops.BRANCH, dtypes.void, (a, b, yes, no), name)
  def ret(self, u: UOp) -> UOp: return u.with_src(tuple(map(self.passed, u.src)))

  specials: dict[Ops, Callable[[Selector, UOp], UOp]] = {
    Ops.CONST: const, Ops.PARAM: leaf, Ops.PHI: phi, Ops.BUFFER: buffer, Ops.SYM: symbol, Ops.LABEL: label,
    Ops.WHERE: where, Ops.CAST: cast, Ops.BITCAST: bitcast, Ops.LOAD: load, Ops.STORE: store, Ops.CALL: call,
    Ops.INDEX: result,
    Ops.JUMP: jump, Ops.BRANCH: branch, Ops.RET: ret}

def float_letter(dtype: DType) -> str: return "d" if dtype is dtypes.float64 else "s"
def integer_letters(dtype: DType) -> str:
  """How fcvt names an integer type; what is narrower is an int32 in a register."""
  return ("l" if dtype.bits == 64 else "w") + ("u" if dtype.kind in "up" and dtype.bits >= 32 else "")
def half_bits(u: UOp) -> int:
  if u.dtype is dtypes.float16: return int.from_bytes(struct.pack("<e", u.arg), "little")
  return int.from_bytes(struct.pack("<f", u.arg)[2:], "little")
def is_positive_zero(u: UOp) -> bool:
  return u.op is Ops.CONST and in_float(u.dtype) and struct.pack("<d", u.arg) == bytes(8)

def deciding_dtype(u: UOp) -> DType:
  """The dtype that a rule's letters speak of: of a comparison's operands."""
  if u.op not in (Ops.CMPLT, Ops.CMPNE): return u.dtype
  inner = u.src[0]
  return inner.src[0].dtype if inner.op is Ops.CMPNE and inner.src[0].dtype.kind == "f" else inner.dtype

def match_shapes(shapes: tuple[Shape, ...], sources: Iterable[UOp]) -> tuple[list[UOp], int | None] | None:
  registers: list[UOp] = []
  number = None
  for shape, s in zip(shapes, sources):
    found = shape(s)
    if found is None: return None
    registers += found[0]
    if found[1] is not None: number = found[1]
  return registers, number

@functools.cache
def usable_rules(op: Ops, kind: str, extensions: frozenset[str]) -> list[Rule]:
  return [rule for rule in RULES[op] if kind in rule.kinds and (not rule.needs or rule.needs in extensions)]

@functools.cache
def result_class(row: str) -> DType:
  if ROWS[row].names[0] != "fd": return INT
  return dtypes.float64 if row.endswith(".d") else dtypes.float32

# ---- the calling convention ------------------------------------------------------------------------------------------

F0 = 32                                    # the first float register: 0..31 are the integer registers
V0 = 64                                    # and the first vector register
T1, T4, T5, T6 = 6, 29, 30, FAR
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

# ---- emission --------------------------------------------------------------------------------------------------------

def arrangement(row: Row) -> Callable[..., list[int]]:
  """(result, sources, number) -> the row's operands in their order. Rounding is as the mode says unless number does."""
  letters, source = [], 0
  for name, f in zip(row.names, row.fields):
    if name in ("rd", "fd"): letters.append("d")
    elif name == "vd": letters.append("d")
    elif f.kind == "m": letters.append("1")                          # all lanes
    elif f.kind in "xfv":
      letters.append(f"s[{source}]")
      source += 1
    else: letters.append(f"({DYNAMIC} if n is None else n)" if f.kind == "r" else "n")
  return eval(f"lambda d, s, n: [{', '.join(letters)}]")

ARRANGE = {name: arrangement(row) for name, row in ROWS.items() if row.expands is None}
REPEATABLE = frozenset({"li", "float.s", "float.d", "frame", "la"})
def is_repeatable(u: UOp) -> bool: return u.op is Ops.INS and u.arg[0] in REPEATABLE

def cycle_breaker(place: Place) -> Place:
  """Where a value waits while the others of its cycle move."""
  if not isinstance(place, int) or place < F0: return T6
  return FT11 if place < V0 else V30

class Frame:
  """Offsets from the stack pointer, from below: stack arguments of calls, saved registers, slots, arrays."""
  def __init__(self, fn: Function, allocation: Allocation):
    nodes = [u for block in fn.blocks.values() for u in block]
    calls = [u for u in nodes if u.op is Ops.CALL]
    arguments = [argument_places([a.dtype for a in operands(u)[1:]], Outgoing, u.arg.fixed) for u in calls]
    outgoing = max([sum(isinstance(p, Outgoing) for p in places) for places in arguments], default=0)
    used = {p for p in allocation.places.values() if isinstance(p, int)}
    saved = [r for r in INT_SAVED + FLOAT_SAVED if r in used] + ([RA] if calls else [])
    self.saved = {r: 8 * (outgoing + k) for k, r in enumerate(saved)}
    self.slots = 8 * (outgoing + len(saved))
    self.size = self.slots + 8 * allocation.slots
    self.arrays: dict[UOp, int] = {}
    for u in nodes:
      if u.op is not Ops.INS: continue
      if u.arg[0] in ("frame", "lanes"): self.add_array(u.arg[1])
      for s in u.src:
        if s.op is Ops.BUFFER: self.add_array(s)
    self.size = -(-self.size // 16) * 16

  def add_array(self, u: UOp) -> None:
    if u in self.arrays: return
    self.size = -(-self.size // 16) * 16
    self.arrays[u] = self.size
    self.size += u.arg.size * u.dtype.itemsize

  def offset(self, place: Place | Outgoing | Incoming) -> int:
    if isinstance(place, Slot): return self.slots + 8 * place.number
    if isinstance(place, Outgoing): return 8 * place.number
    assert isinstance(place, Incoming)
    return self.size + 8 * place.number

def following_results(body: list[UOp], call: UOp) -> list[UOp]:
  """The nodes that take a call's several results."""
  rest = body[body.index(call) + 1:] if call.arg.results else []
  return list(takewhile(lambda u: u.op is Ops.INS and u.arg[0] == "result", rest))

class Emitter:
  """Writes a selected, placed function into a section. notes: what to say, as a label, before an instruction's code."""
  def __init__(self, fn: Function, section: Section, notes: dict[UOp, str]):
    self.fn, self.section, self.notes = fn, section, notes
    flow = Flow(fn)
    hints = abi_hints(fn, coalescing_hints(fn))
    self.allocation = allocate(fn, flow, banks(frozenset()), hints, is_repeatable)
    if any(not isinstance(p, int) for p in self.allocation.places.values()):
      self.allocation = allocate(fn, flow, banks(SPILLING), hints, is_repeatable)
    self.places = self.allocation.places
    self.frame = Frame(fn, self.allocation)
    self.moves = {label: self.jump_moves(block[-1]) for label, block in fn.blocks.items()}
    self.names = {label: (fn.name, k) for k, label in enumerate(fn.blocks)}

  def write(self) -> None:
    if self.fn.is_local: self.section.label(self.fn.name)
    else: self.section.export(self.fn.name)
    self.prologue()
    written = [label for label in self.fn.blocks if self.destination(label) is label]
    for label, following in zip(written, [*written[1:], None]):
      *body, last = self.fn.blocks[label]
      self.section.label(self.names[label])
      self.lanes: Lanes | None = None                                # what vl and vtype are set for
      for u in body:
        if u in self.notes: self.section.label(("note", self.notes[u]))
        if u.op is Ops.CALL: self.call(u, following_results(body, u))
        elif u.arg[0] != "result": self.instruction(u, self.places.get(u))
      self.all_moves(self.moves[label])
      self.terminators[last.op](self, last, following)

  def destination(self, label: UOp) -> UOp:
    """Where a jump to a block ends up: blocks that do nothing but jump on are left out."""
    passed: set[UOp] = set()
    while label not in passed:                                       # a loop may do nothing
      passed.add(label)
      *body, last = self.fn.blocks[label]
      if body or last.op is not Ops.JUMP or self.moves[label]: break
      label = last.src[0]
    return label

  # addresses and moves

  def access(self, row: str, register: int, offset: int) -> None:
    """A load or store at sp + offset. t6 helps where the offset is large: it may be what is loaded, but not stored."""
    if -2048 <= offset < 2048: return self.section.emit(row, register & 31, offset, SP)
    self.section.number(T6, offset)
    self.section.emit("add", T6, T6, SP)
    self.section.emit(row, register & 31, 0, T6)

  def load(self, register: int, place: Any) -> None:
    if register >= V0: return self.access_vector("vle32.v", register, place)
    self.access("ld" if register < F0 else "fld", register, self.frame.offset(place))
  def store(self, register: int, place: Any) -> None:
    if register >= V0: return self.access_vector("vse32.v", register, place)
    self.access("sd" if register < F0 else "fsd", register, self.frame.offset(place))

  def access_vector(self, row: str, register: int, place: Any) -> None:
    """A whole group of the least size."""
    self.configure(Lanes(8, 32))
    self.section.number(T6, self.frame.offset(place))
    self.section.emit("add", T6, T6, SP)
    self.section.emit(row, register & 31, T6, 1)

  def configure(self, lanes: Lanes) -> None:
    """The instructions that follow work on so many lanes."""
    if self.lanes == lanes: return
    self.lanes = lanes
    if lanes.number < 32: return self.section.emit("vsetivli", 0, lanes.number, vector_type(lanes.bits))
    self.section.number(T6, lanes.number)
    self.section.emit("vsetvli", 0, T6, vector_type(lanes.bits))

  def move(self, to: Any, source: Any) -> None:
    """Between registers of either class, places of the frame, and from what is computed again."""
    if isinstance(to, int):
      if isinstance(source, int): self.copy(to, source)
      elif isinstance(source, UOp): self.compute(source, to)
      else: self.load(to, source)
    elif isinstance(source, int): self.store(source, to)
    else:
      through = T6 if isinstance(source, UOp) else T5 if getattr(source, "size", 1) == 1 else V30
      if isinstance(source, UOp) and in_float(source.dtype): through = FT11
      self.move(through, source)
      self.store(through, to)

  def copy(self, to: int, source: int) -> None:
    if to >= V0: self.section.emit("vmv2r.v", to - V0, source - V0)
    elif to < F0 and source < F0: self.section.emit("addi", to, source, 0)
    elif to >= F0 and source >= F0: self.section.emit("fsgnj.d", to - F0, source - F0, source - F0)
    elif to < F0: self.section.emit("fmv.x.d", to, source - F0)
    else: self.section.emit("fmv.d.x", to - F0, source)

  def compute(self, u: UOp, to: int) -> None:
    """What a repeatable node or a constant is, into a register."""
    if u.op is Ops.CONST and u.dtype is INT: self.section.number(to, u.arg)
    elif u.op is Ops.CONST: self.float_bits(0, u.dtype.bits, to)                          # only +0.0 is one
    else: self.instruction(u, to)

  def all_moves(self, moves: Iterable[tuple[Any, Any]]) -> None:
    for to, source in in_sequence(moves, cycle_breaker): self.move(to, source)

  def place(self, u: UOp) -> Place: return u if u.op is Ops.CONST else self.places[u]

  def jump_moves(self, u: UOp) -> list[tuple[Place, Place]]:
    if u.op is not Ops.JUMP: return []
    label, *values = u.src
    pairs = [(self.places.get(phi(label, k, v.dtype)), self.place(v)) for k, v in enumerate(values)]
    return [(to, source) for to, source in pairs if to is not None and to != source]

  # instructions

  def fetch(self, place: Any, scratch: int) -> int:
    """The register that holds what was in a slot, or is computed again."""
    self.move(scratch, place)
    return scratch & 31

  def read_all(self, sources: Iterable[UOp]) -> list[int]:
    """The registers in which an instruction finds its operands."""
    free = {"i": iter((T4, T5)), "f": iter((FT9, FT10, FT11)), "v": iter((V24, V26, V28))}
    out = []
    for s in sources:
      place = self.places.get(s)
      if isinstance(place, int): out.append(place & 31)
      elif s.op is Ops.CONST: out.append(0)
      else: out.append(self.fetch(place, next(free[bank_of(s)])))
    return out

  def instruction(self, u: UOp, place: Place | None) -> None:
    """An instruction whose result goes to a place, if it has one."""
    if place is u: return                                            # computed where it is used
    row, number, *lanes = u.arg
    sources = operands(u)
    to = place if isinstance(place, int) else {"i": T6, "f": FT11}.get(bank_of(u), V30)
    if lanes: self.vector_row(row, sources, number, to, lanes[0])
    elif row in ARRANGE: self.machine_row(row, sources, number, to)
    elif row.startswith("select"): self.select(row.removeprefix("select "), sources, to)
    else: self.pseudos[row](self, number, to)
    if isinstance(place, Slot): self.store(to, place)

  def machine_row(self, row: str, sources: list[UOp], number: Any, to: int) -> None:
    if sources and sources[-1].op is Ops.BUFFER: return self.array_access(row, sources, number, to)
    self.section.emit(row, *ARRANGE[row](to & 31, self.read_all(sources), number))

  def vector_row(self, row: str, sources: list[UOp], number: Any, to: int, lanes: Lanes) -> None:
    if row == "lanes": return self.build_lanes(sources, number, to, lanes)
    registers = self.read_all(sources)
    self.configure(lanes)
    if row == "merge":
      self.section.emit("vmv1r.v", 0, registers[0])
      self.section.emit("vmerge.vvm", to & 31, *registers[1:])
    elif row.startswith("vfmacc"): self.multiply_add(row.removeprefix("vfmacc"), registers, to & 31)
    else: self.section.emit(row, *ARRANGE[row](to & 31, registers, number))

  def multiply_add(self, form: str, registers: list[int], to: int) -> None:
    """to = a*b + c, by the instruction that overwrites c or the one that overwrites a factor."""
    a, b, c = registers
    if to == c: return self.section.emit("vfmacc" + form, c, a, b, 1)
    if to == b: return self.section.emit("vfmadd" + form, b, a, c, 1)
    if to == a and form == ".vv": return self.section.emit("vfmadd.vv", a, b, c, 1)
    self.copy(to + V0, c + V0)
    self.section.emit("vfmacc" + form, to, a, b, 1)

  def build_lanes(self, sources: list[UOp], array: UOp, to: int, lanes: Lanes) -> None:
    """A vector from scalars, through memory."""
    offset, size = self.frame.arrays[array], lanes.bits // 8
    for k, s in enumerate(sources):
      register, = self.read_all([s])
      row = ("fsw" if size == 4 else "fsd") if in_float(s.dtype) else {1: "sb", 2: "sh", 4: "sw", 8: "sd"}[size]
      self.access(row, register, offset + k * size)
    self.configure(lanes)
    self.section.number(T6, offset)
    self.section.emit("add", T6, T6, SP)
    self.section.emit(f"vle{lanes.bits}.v", to & 31, T6, 1)

  def array_access(self, row: str, sources: list[UOp], number: int, to: int) -> None:
    """A load or store in an array of the frame."""
    value = self.read_all(sources[:-1])
    offset, base = self.frame.arrays[sources[-1]] + number, SP
    if not -2048 <= offset < 2048:
      self.section.number(T6, offset)
      self.section.emit("add", T6, T6, SP)
      offset, base = 0, T6
    self.section.emit(row, *ARRANGE[row](to & 31, [*value, base], offset))

  def select(self, branch: str, sources: list[UOp], to: int) -> None:
    """to = yes if the branch is taken, else no. What is not there yet is moved before or after the branch."""
    a, b = self.read_all(sources[:2])
    yes, no = map(self.place, sources[2:])
    end: Any = ("select", len(self.section.items))
    if yes == no: return self.move(to, yes) if to != yes else None
    if to == no: branch, yes, no = INVERSE[branch], no, yes
    if to != yes and to < F0 and to in (a, b):                       # what is compared must stay until it was
      other: Any = ("other", len(self.section.items))
      self.section.branch(branch, a, b, other)
      self.move(to, no)
      self.section.jump(end)
      self.section.label(other)
      self.move(to, yes)
    else:
      if to != yes: self.move(to, yes)
      self.section.branch(branch, a, b, end)
      self.move(to, no)
    self.section.label(end)

  def number(self, value: int, to: int) -> None: self.section.number(to, value)
  def address_of_array(self, array: UOp, to: int) -> None:
    offset = self.frame.arrays[array]
    if offset < 2048: return self.section.emit("addi", to, SP, offset)
    self.section.number(to, offset)
    self.section.emit("add", to, to, SP)
  def address_of_symbol(self, name: str, to: int) -> None: self.section.address(to, name)
  def single(self, bits: int, to: int) -> None: self.float_bits(bits, 32, to)
  def double(self, bits: int, to: int) -> None: self.float_bits(bits, 64, to)
  def float_bits(self, bits: int, width: int, to: int) -> None:
    if bits: self.section.number(T6, signed(bits, width))
    self.section.emit("fmv.w.x" if width == 32 else "fmv.d.x", to - F0, T6 if bits else 0)

  pseudos: dict[str, Callable[[Emitter, Any, int], None]] = {
    "li": number, "frame": address_of_array, "la": address_of_symbol, "float.s": single, "float.d": double}

  # calls and the ends of blocks

  def call(self, u: UOp, results: list[UOp]) -> None:
    target, *arguments = operands(u)
    to = argument_places([a.dtype for a in arguments], Outgoing, u.arg.fixed)
    moves = list(zip(to, map(self.place, arguments)))
    if target.op is not Ops.SYM: moves.append((T1, self.place(target)))
    self.all_moves(moves)
    if target.op is Ops.SYM: self.section.call(target.arg)
    else: self.section.emit("jalr", RA, 0, T1)
    if u in self.places: results = [u]
    kinds = u.arg.results or [r.dtype for r in results]
    sources = argument_places([class_of(dtype) for dtype in kinds], Slot, None)
    numbers = [r.arg[1] if r is not u else 0 for r in results]
    self.all_moves((self.places[r], sources[k]) for r, k in zip(results, numbers))

  def jump(self, u: UOp, following: UOp | None) -> None: self.go(u.src[0], following)
  def go(self, label: UOp, following: UOp | None) -> None:
    if self.destination(label) is not following: self.section.jump(self.names[self.destination(label)])

  def branch(self, u: UOp, following: UOp | None) -> None:
    a, b = self.read_all(operands(u))
    yes, no = map(self.destination, successors([u]))
    if yes is following: self.section.branch(INVERSE[u.arg], a, b, self.names[no])
    else:
      self.section.branch(u.arg, a, b, self.names[yes])
      self.go(no, following)

  def ret(self, u: UOp, following: UOp | None) -> None:
    self.all_moves(zip(result_places(u.src), map(self.place, u.src)))
    self.epilogue()

  terminators = {Ops.JUMP: jump, Ops.BRANCH: branch, Ops.RET: ret}

  def adjust_stack(self, by: int) -> None:
    if not by: return
    if -2048 <= by < 2048: return self.section.emit("addi", SP, SP, by)
    self.section.number(T6, by)
    self.section.emit("add", SP, SP, T6)

  def prologue(self) -> None:
    self.adjust_stack(-self.frame.size)
    for r, offset in self.frame.saved.items(): self.access("sd" if r < F0 else "fsd", r, offset)
    params = parameters(self.fn)
    places = argument_places([p.dtype for p in params], Incoming, None)
    pairs = [(p, source) for p, source in zip(params, places) if p in self.places]
    self.all_moves((self.places[p], source) for p, source in pairs)
    for p, source in pairs:
      if p.dtype is dtypes.float32 and not (isinstance(source, int) and source >= F0): self.box(self.places[p])

  def box(self, place: Place) -> None:
    """A float32 that did not come in a float register: callers leave its upper half open."""
    if isinstance(place, int):
      self.section.emit("fmv.x.w", T6, place - F0)
      self.section.emit("fmv.w.x", place - F0, T6)
    else:
      self.access("flw", FT11, self.frame.offset(place))
      self.store(FT11, place)

  def epilogue(self) -> None:
    for r, offset in self.frame.saved.items(): self.access("ld" if r < F0 else "fld", r, offset)
    self.adjust_stack(self.frame.size)
    self.section.emit("jalr", 0, 0, RA)

# ---- functions -> code -----------------------------------------------------------------------------------------------

EXTENSIONS = frozenset({"zba", "zbb"})

def prepare(fn: Function) -> Function:
  """A flat function, placed or not, in operations that selection knows."""
  return reduce_strength(legalise(legalise_vectors(without_pure(fn))))

def select(fn: Function, extensions: frozenset[str] = frozenset()) -> Function:
  """A flat function, placed or not, as machine instructions in blocks, placed."""
  return place(Selector(prepare(fn), extensions).function())

def without_pure(fn: Function) -> Function:
  """The blocks list effects only, as before placing."""
  blocks = {label: [u for u in block if u.op in STATEFUL or u.op in TERMINATORS] for label, block in fn.blocks.items()}
  return replace(fn, blocks=blocks)

def assemble(functions: Iterable[Function], extensions: frozenset[str] = frozenset()) -> Assembled:
  """The functions as one section of code."""
  section = Section(".text")
  for fn in functions: Emitter(select(fn, extensions), section, {}).write()
  return section.finish()

def listing(fn: Function, extensions: frozenset[str] = frozenset()) -> str:
  """A kernel as lines: offset, code in hexadecimal, assembly, and the operation it came from."""
  section, selector = Section(".text"), Selector(prepare(fn), extensions)
  Emitter(place(selector.function()), section, origins(selector)).write()
  code = section.finish()
  lines, said = [f"# {fn.name} {fn.threads}"], starting(code)
  for at, text in disassemble(code.data):
    size = decode(code.data, at)[0].size
    lines += [f"L{k}:" for kind, k in said.get(at, ()) if kind == fn.name]
    notes = [note for kind, note in said.get(at, ()) if kind == "note"]
    line = f"{at:6x}: {code.data[at:at + size][::-1].hex():8}  {text}"
    lines.append(f"{line:58}# {notes[-1]}" if notes else line)
  return "\n".join(lines)

def starting(code: Assembled) -> dict[int, list[tuple[str, Any]]]:
  """Offset -> the labels of blocks and notes there."""
  found: dict[int, list[tuple[str, Any]]] = {}
  for label, at in code.labels.items():
    if isinstance(label, tuple): found.setdefault(at, []).append(label[:2])
  return found

def origins(selector: Selector) -> dict[UOp, str]:
  """Instruction -> the operation it stands for, its operands numbered."""
  number: dict[UOp, str] = {}
  out: dict[UOp, str] = {}
  for u, made in selector.new.items():
    number[u] = str(u.arg) if u.op is Ops.CONST else f"%{len(number)}"
    sources = " ".join(number[s] for s in operands(u))
    if made.op is Ops.INS: out[made] = f"{number[u]} = {u.op} {u.dtype.name} {sources}".rstrip()
  return out
