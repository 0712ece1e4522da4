# rvlegal.py: operations that no RISC-V instruction has, in operations that have one. In and out: a flat function, not
# placed. Afterwards: shift counts are below the width, there is no MAX of scalars, casts have instructions.
from __future__ import annotations
from typing import Callable
from picograd.codegen.flat import Function, every_node, forward
from picograd.codegen.rvvalue import INT
from picograd.dtype import DType, dtypes
from picograd.ops.ops import Ops
from picograd.ops.uop import UOp

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
