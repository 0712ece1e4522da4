# rvselect.py: instruction selection. In: a legal flat function. Out: the same blocks, their nodes machine instructions
# (Ops.INS), still without registers. In registers an int32 or uint32 is sign-extended, narrower types are extended by
# their sign, a bool is 0 or 1, a 16-bit float is its bits: as the calling convention lp64d passes them.
from __future__ import annotations
import functools, struct
from dataclasses import replace
from typing import Callable, Iterable, NamedTuple
from picograd.codegen.flat import Function, every_node, phi
from picograd.codegen.rvasm import ROWS, TO_ZERO
from picograd.codegen.rvobject import signed
from picograd.codegen.rvrules import (BRANCHES, CAN_OVERFLOW, LOADS, RULES, STORES, Rule, Shape, compared, is_number,
                                      opposite, true)
from picograd.codegen.rvv import VectorSelection, has_lanes
from picograd.codegen.rvvalue import INT, VARIABLE_ARGUMENTS, ZERO, class_of, in_float, ins
from picograd.dtype import DType, dtypes
from picograd.helpers import dedup
from picograd.ops.decompose import is_within_int64
from picograd.ops.ops import Ops
from picograd.ops.uop import Table, UOp

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
  def __init__(self, fn: Function, extensions: frozenset[str], thread_local: frozenset[str] = frozenset()):
    self.fn, self.extensions, self.thread_local = fn, extensions, thread_local
    self.new: Table = {}
    self.state: Table = {}                                           # effect -> the state after it, a label
    self.results: dict[UOp, list[UOp]] = {}                          # call -> its results, of several, that are used
    nodes = every_node(fn)
    self.has_vectors = any(u.dtype.count > 1 for u in nodes)
    if self.has_vectors and "v" not in extensions: raise ValueError(f"{fn.name} has vectors, this RISC-V has none")
    for u in nodes: self.new[u] = self.select(u)

  def function(self) -> Function:
    """Loads that were different may have become one. A call's several results are taken right after it."""
    blocks = {label: dedup(v for u in block for v in (self.new[u], *self.results.get(u, ())))
              for label, block in self.fn.blocks.items()}
    return replace(self.fn, blocks=blocks)

  def select(self, u: UOp) -> UOp:
    if self.has_vectors and has_lanes(u): return self.select_vector(u)
    if u.op is Ops.OR and is_less_or_equal(u):
      return ins("fle." + float_letter(u.src[0].src[0].dtype), *[self.new[s] for s in u.src[0].src])
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
  def symbol(self, u: UOp) -> UOp: return ins("la.tls" if u.arg in self.thread_local else "la", number=u.arg)
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
    return x if to.bits == 64 and is_small(u.src[0]) else self.extend(x, source, to)

  def float_to_int(self, u: UOp, x: UOp, letter: str) -> UOp:
    """Towards zero; the instruction gives the nearest in range, as we want, but NaN should give 0."""
    converted = ins(f"fcvt.{integer_letters(u.dtype)}.{letter}", x, number=TO_ZERO)
    if self.fn.is_lenient or is_within_int64(u.src[0]): return converted
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
    """Only the low bits of a value matter."""
    pointer, value, state = u.src
    while value.op is Ops.CAST and keeps_bits(value): value = value.src[0]
    base, offset = self.address(pointer)
    integer = class_of(value.dtype) is INT or is_positive_zero(value)
    row = STORES[u.src[1].dtype.itemsize] if integer else {4: "fsw", 8: "fsd"}[value.dtype.itemsize]
    source = ZERO if is_positive_zero(value) else self.new[value]
    return ins(row, source, base, self.after(state), number=offset, dtype=dtypes.void)

  def call(self, u: UOp) -> UOp:
    callee, *arguments, state = u.src
    if callee.op is Ops.SYM and callee.arg in STACK_CALLS: return self.stack_call(u, callee.arg.removeprefix(BUILTIN))
    target = callee if callee.op is Ops.SYM else self.new[callee]
    return UOp(Ops.CALL, class_of(u.dtype), (target, *map(self.passed, arguments), self.after(state)), u.arg)

  def stack_call(self, u: UOp, name: str) -> UOp:
    """What looks like a call and is about this function's frame."""
    _, *arguments, state = u.src
    if name == "va_start":
      base, offset = self.address(arguments[0])
      return ins("sd", VARIABLE_ARGUMENTS, base, self.after(state), number=offset, dtype=dtypes.void)
    if name in ("frame_address", "return_address"): return ins(name if arguments[0].arg == 0 else "li", number=0)
    return ins(name, *[self.new[s] for s in arguments], self.after(state), dtype=class_of(u.dtype))

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
  def switch(self, u: UOp) -> UOp:
    """A table of jumps of four bytes. arg: how far before it the index 0 would be, or the table's name."""
    index, *labels = u.src
    if u.arg is not None: return UOp(Ops.SWITCH, dtypes.void, (self.new[index], *labels), u.arg)
    offset = 0
    if index.op is Ops.ADD and is_number(index.src[1]) and abs(index.src[1].arg) < 256:
      index, offset = index.src[0], 4 * index.src[1].arg
    return UOp(Ops.SWITCH, dtypes.void, (ins("slli", self.new[index], number=2), *labels), offset)
  def barrier(self, u: UOp) -> UOp: return ins("barrier", self.after(u.src[-1]), number=u.arg, dtype=dtypes.void)
  def ret(self, u: UOp) -> UOp: return u.with_src(tuple(map(self.passed, u.src)))

  specials: dict[Ops, Callable[[Selector, UOp], UOp]] = {
    Ops.CONST: const, Ops.PARAM: leaf, Ops.PHI: phi, Ops.BUFFER: buffer, Ops.SYM: symbol, Ops.LABEL: label,
    Ops.WHERE: where, Ops.CAST: cast, Ops.BITCAST: bitcast, Ops.LOAD: load, Ops.STORE: store, Ops.CALL: call,
    Ops.INDEX: result,
    Ops.JUMP: jump, Ops.BRANCH: branch, Ops.SWITCH: switch, Ops.BARRIER: barrier,
    Ops.RET: ret}

BUILTIN = "__builtin_"
STACK_CALLS = frozenset(BUILTIN + name for name in ("va_start", "alloca", "stack_save", "stack_restore",
                                                    "frame_address", "return_address"))

def is_small(u: UOp) -> bool:
  """Whether an unsigned number is below 2^31, so that its sign extension is itself."""
  if u.op is Ops.CAST: return u.src[0].dtype.kind in "ub" and u.src[0].dtype.bits < 32
  if u.op is Ops.SHR: return u.dtype.is_unsigned and is_number(u.src[1]) and u.src[1].arg > 0
  return u.op is Ops.AND and is_number(u.src[1]) and 0 <= u.src[1].arg < 1 << 31

def keeps_bits(u: UOp) -> bool:
  """Whether a cast leaves as many low bits as it has alone."""
  return u.dtype.is_int and u.src[0].dtype.is_int and u.src[0].dtype.bits >= u.dtype.bits

def is_less_or_equal(u: UOp) -> bool:
  """x < y or x = y, of floats."""
  less, same = u.src
  if less.op is not Ops.CMPLT or not in_float(less.src[0].dtype) or not true(same.src[-1]): return False
  return same.op is Ops.CMPNE and same.src[0].op is Ops.CMPNE and set(same.src[0].src) == set(less.src)

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
