# rvv.py: vectors in the registers of RVV 1.0. A vector value is a group of two registers, of which its instructions use
# as many elements as it has lanes: right at every VLEN from 128 on. An instruction's arg also holds its Lanes, for
# which the emitter sets vl and vtype. In: flat nodes with lanes. Out: what a Selector puts in their place.
from __future__ import annotations
from dataclasses import replace
from typing import Any, Callable, NamedTuple
from picograd.codegen.flat import Function, every_node
from picograd.codegen.rvvalue import VECTOR, ZERO, class_of, ins
from picograd.dtype import DType, dtypes
from picograd.helpers import dedup
from picograd.ops.ops import ALU, COMPARE, Ops
from picograd.ops.uop import Table, UOp, shuffled

class Lanes(NamedTuple):
  """How many elements of how many bits."""
  number: int
  bits: int

def lanes_of(dtype: DType) -> Lanes: return Lanes(dtype.count, max(8, dtype.bits))

def vector_type(bits: int) -> int:
  """vtype: elements of that many bits, groups of two registers, what is not written may be anything."""
  return 0b11000001 | (bits.bit_length() - 4) << 3

# ---- legalise: what no vector instruction does is done lane by lane --------------------------------------------------

ARITHMETIC = (dtypes.int32, dtypes.uint32, dtypes.int64, dtypes.uint64, dtypes.float32, dtypes.float64)
BITWISE = frozenset({Ops.AND, Ops.OR, Ops.XOR, Ops.WHERE})
WITH_VECTORS = BITWISE | COMPARE | {Ops.ADD, Ops.MUL, Ops.MULACC, Ops.FDIV, Ops.SQRT, Ops.SHL, Ops.SHR, Ops.BITCAST}

def splat_of(u: UOp) -> UOp | None:
  """The scalar that is in every lane."""
  return u.src[0] if u.op is Ops.STACK and u.arg is None and all(s is u.src[0] for s in u.src) else None

GROUP = 32                                 # bytes of a group at the least VLEN
def fits(u: UOp) -> bool: return all(v.dtype.itemsize <= GROUP for v in (u, *u.src))

def has_instruction(u: UOp) -> bool:
  if u.op not in WITH_VECTORS or not fits(u): return False
  operand = u.src[-1].dtype.scalar
  if u.op in (Ops.SHL, Ops.SHR):
    count = splat_of(u.src[1])
    return operand in ARITHMETIC and count is not None and count.op is Ops.CONST and 0 <= count.arg < u.dtype.bits
  if u.op is Ops.BITCAST: return u.src[0].dtype.bits == u.dtype.bits and u.src[0].dtype.count == u.dtype.count
  if u.op is Ops.WHERE: return u.src[0].dtype.count == u.dtype.count and operand.kind != "b"
  return operand in ARITHMETIC or (operand.kind == "b" and u.op in BITWISE | {Ops.CMPNE})

def lane_of(u: UOp, k: int) -> UOp:
  if u.dtype.count == 1: return u
  if u.op is Ops.STACK: return u.src[k] if u.arg is None else lane_of(*shuffled(u, k))
  return UOp(Ops.INDEX, u.dtype.scalar, (u, UOp.const(dtypes.int64, k)))

def by_lanes(u: UOp) -> UOp:
  parts = [UOp(u.op, u.dtype.scalar, tuple([lane_of(s, k) for s in u.src]), u.arg) for k in range(u.dtype.count)]
  return UOp(Ops.STACK, u.dtype, tuple(parts))

def maximum(u: UOp) -> UOp:
  """The first if they are equal, NaN if either is."""
  x, y = u.src
  larger = x < y
  return (y.ne(y) | larger if u.dtype.kind == "f" else larger).where(y, x)

def legal(u: UOp) -> UOp:
  """A node, its sources legal, with instructions for all that has lanes."""
  if u.op is Ops.INDEX and u.src[0].op is Ops.STACK: return lane_of(u.src[0], u.src[1].arg)
  if u.op is Ops.STACK and u.arg is not None:
    return UOp(Ops.STACK, u.dtype, tuple([lane_of(u, k) for k in range(u.dtype.count)]))
  if u.op not in ALU or u.dtype.count == 1: return u
  if u.op is Ops.MAX and u.dtype.scalar in ARITHMETIC and fits(u): return maximum(u)
  return u if has_instruction(u) else by_lanes(u)

def legalise_vectors(fn: Function) -> Function:
  nodes = every_node(fn)
  if all(u.dtype.count == 1 for u in nodes): return fn
  new: Table = {}
  for u in nodes: new[u] = legal(u.with_src(tuple([new[s] for s in u.src])))
  return replace(fn, blocks={label: dedup(new[u] for u in block) for label, block in fn.blocks.items()})

# ---- selection -------------------------------------------------------------------------------------------------------

# op -> {kinds: rows}: of two vectors, of a vector and a scalar
ROWS_OF: dict[Ops, dict[str, str]] = {
  Ops.ADD: {"iu": "vadd", "f": "vfadd"}, Ops.MUL: {"iu": "vmul", "f": "vfmul"}, Ops.FDIV: {"f": "vfdiv"},
  Ops.AND: {"iu": "vand", "b": "vmand"}, Ops.OR: {"iu": "vor", "b": "vmor"}, Ops.XOR: {"iu": "vxor", "b": "vmxor"},
  Ops.SHL: {"iu": "vsll"}, Ops.SHR: {"i": "vsra", "u": "vsrl"},
  Ops.CMPLT: {"i": "vmslt", "u": "vmsltu", "f": "vmflt"}, Ops.CMPNE: {"iu": "vmsne", "f": "vmfne", "b": "vmxor"}}
SCALAR_FORM = {"vadd": "vx", "vand": "vx", "vor": "vx", "vxor": "vx", "vmslt": "vx", "vmsltu": "vx", "vmsne": "vx",
               "vfadd": "vf", "vfsub": "vf", "vfmul": "vf", "vfdiv": "vf", "vmflt": "vf", "vmfne": "vf"}

def vector(row: str, lanes: Lanes, *src: UOp, number: Any = None, dtype: DType = VECTOR) -> UOp:
  """A vector instruction on so many lanes."""
  return UOp(Ops.INS, dtype, src, (row, number, lanes))

class VectorSelection:
  """What a Selector does with nodes that have lanes. new: flat node -> what stands for it."""
  new: Table
  after: Callable[[UOp], UOp]
  cut: Callable[[UOp, DType], UOp]

  def select_vector(self, u: UOp) -> UOp:
    if not all(v.dtype.itemsize <= GROUP for v in (u, *u.src[:2])):
      raise ValueError(f"{u.op} of {u.dtype} is wider than a group of two vector registers")
    if u.op in ALU and u.op not in self.vector_specials: return self.plain(u)
    if u.op not in self.vector_specials: raise ValueError(f"{u.op} of {u.dtype} has no vector instruction")
    return self.vector_specials[u.op](self, u)

  def plain(self, u: UOp) -> UOp:
    """Two operands; the second may be one scalar for all lanes."""
    x, y = u.src
    kind, lanes = x.dtype.kind, lanes_of(x.dtype)
    row = next(row for kinds, row in ROWS_OF[u.op].items() if kind in kinds)
    if kind == "b": return vector(row + ".mm", Lanes(u.dtype.count, 8), self.new[x], self.new[y])
    scalar = splat_of(y)
    if u.op in (Ops.SHL, Ops.SHR):
      assert scalar is not None
      if scalar.arg < 32: return vector(row + ".vi", lanes, self.new[x], number=scalar.arg)
      return vector(row + ".vx", lanes, self.new[x], ins("li", number=scalar.arg))
    if u.op is Ops.ADD and kind == "f" and is_negated(y):
      return vector("vfsub.vv", lanes, self.new[x], self.new[y.src[0]])
    if scalar is not None and row in SCALAR_FORM:
      return vector(f"{row}.{SCALAR_FORM[row]}", lanes, self.new[x], self.new[scalar])
    return vector(row + ".vv", lanes, self.new[x], self.new[y])

  def root(self, u: UOp) -> UOp: return vector("vfsqrt.v", lanes_of(u.dtype), self.new[u.src[0]])
  def multiply_add(self, u: UOp) -> UOp:
    x, y, z = u.src
    if splat_of(x) is None and splat_of(y) is not None: x, y = y, x
    scalar = splat_of(x)
    if scalar is not None: return vector("vfmacc.vf", lanes_of(u.dtype), self.new[scalar], self.new[y], self.new[z])
    return vector("vfmacc.vv", lanes_of(u.dtype), self.new[x], self.new[y], self.new[z])
  def merge(self, u: UOp) -> UOp:
    mask, yes, no = u.src
    return vector("merge", lanes_of(u.dtype), self.new[mask], self.new[no], self.new[yes])
  def same_bits(self, u: UOp) -> UOp: return self.new[u.src[0]]

  def stack(self, u: UOp) -> UOp:
    """One scalar in all lanes, or a scalar for each, which goes through the frame."""
    lanes, scalar = lanes_of(u.dtype), splat_of(u)
    if scalar is None or u.dtype.kind == "b":
      parts = [self.new[s] for s in u.src]
      made = vector("lanes", lanes, *parts, number=UOp.register(dtypes.int64, u.dtype.count))
      return vector("vmsne.vx", lanes, made, ZERO) if u.dtype.kind == "b" else made
    if class_of(scalar.dtype).kind == "f": return vector("vfmv.v.f", lanes, self.new[scalar])
    return vector("vmv.v.x", lanes, self.new[scalar])

  def lane(self, u: UOp) -> UOp:
    whole, k = u.src
    lanes = lanes_of(whole.dtype)
    if whole.dtype.kind == "b":
      bits = vector("vmv.x.s", Lanes(1, 64), self.new[whole], dtype=dtypes.int64)
      return ins("andi", ins("srli", bits, number=k.arg) if k.arg else bits, number=1)
    return self.first(u.dtype, lanes, self.new[whole] if k.arg == 0 else
                      vector("vslidedown.vi", lanes, self.new[whole], number=k.arg))

  def first(self, dtype: DType, lanes: Lanes, x: UOp) -> UOp:
    """Lane 0 as a scalar."""
    if class_of(dtype).kind == "f": return vector("vfmv.f.s", lanes, x, dtype=dtype)
    made = vector("vmv.x.s", lanes, x, dtype=dtypes.int64)
    return self.cut(made, dtype) if dtype.bits < 32 and dtype.kind != "i" else made

  def reduce(self, u: UOp) -> UOp:
    """Upper half with lower half until one lane is left: as every device adds."""
    x, op = u.src[0], u.arg[0]
    count, value = x.dtype.count, self.new[x]
    while count > 1:
      count //= 2
      lanes = Lanes(count, lanes_of(x.dtype).bits)
      upper = vector("vslidedown.vi", Lanes(2 * count, lanes.bits), value, number=count)
      value = self.halves(op, u.dtype, lanes, value, upper)
    return self.first(u.dtype, Lanes(1, lanes_of(x.dtype).bits), value)

  def halves(self, op: Ops, dtype: DType, lanes: Lanes, x: UOp, y: UOp) -> UOp:
    if op is Ops.MAX and dtype.kind == "f":
      larger, strange = vector("vmflt.vv", lanes, x, y), vector("vmfne.vv", lanes, y, y)
      return vector("merge", lanes, vector("vmor.mm", lanes, larger, strange), x, y)
    if op is Ops.MAX: return vector("vmax.vv" if dtype.kind == "i" else "vmaxu.vv", lanes, x, y)
    return vector(next(row for kinds, row in ROWS_OF[op].items() if dtype.kind in kinds) + ".vv", lanes, x, y)

  def vector_load(self, u: UOp) -> UOp:
    pointer, *gate, state = u.src
    lanes = lanes_of(u.dtype)
    made = self.access(f"vle{lanes.bits}.v", lanes, gate, self.new[pointer], self.after(state))
    if gate: made = vector("merge", lanes, self.new[gate[0]], vector("vmv.v.x", lanes, ZERO), made)
    return vector("vmsne.vx", lanes, made, ZERO) if u.dtype.kind == "b" else made

  def vector_store(self, u: UOp) -> UOp:
    pointer, value, *gate, state = u.src
    lanes, source = lanes_of(value.dtype), self.new[value]
    if value.dtype.kind == "b":
      bytes_of = [vector("vmv.v.x", lanes, scalar) for scalar in (ZERO, ins("li", number=1))]
      source = vector("merge", lanes, source, *bytes_of)
    return self.access(f"vse{lanes.bits}.v", lanes, gate, source, self.new[pointer], self.after(state),
                       dtype=dtypes.void)

  def access(self, row: str, lanes: Lanes, gate: list[UOp], *src: UOp, dtype: DType = VECTOR) -> UOp:
    """A load or a store, of those elements that a gate lets through."""
    if not gate: return vector(row, lanes, *src, dtype=dtype)
    return vector(f"masked {row}", lanes, self.new[gate[0]], *src, dtype=dtype)

  vector_specials: dict[Ops, Callable[[VectorSelection, UOp], UOp]] = {
    Ops.SQRT: root, Ops.MULACC: multiply_add, Ops.WHERE: merge, Ops.BITCAST: same_bits, Ops.STACK: stack,
    Ops.INDEX: lane, Ops.REDUCE: reduce, Ops.LOAD: vector_load, Ops.STORE: vector_store}

def is_negated(u: UOp) -> bool:
  scalar = splat_of(u.src[1]) if u.op is Ops.MUL else None
  return scalar is not None and scalar.op is Ops.CONST and scalar.arg == -1

def has_lanes(u: UOp) -> bool:
  """Whether a node is about a vector: its value, or a load's, a store's or a lane's operand."""
  if u.dtype.count > 1: return u.op not in (Ops.PHI, Ops.BUFFER)
  if u.op in (Ops.INDEX, Ops.REDUCE): return u.src[0].dtype.count > 1
  return u.op is Ops.STORE and u.src[1].dtype.count > 1
