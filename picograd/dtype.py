# dtype.py: the element types as rows, how two of them promote, and what a Python number becomes in each.
# A DType is interned: compare with `is`. `dt.vec(n)` is the type of n lanes in a register.
from __future__ import annotations
import math, struct
from fractions import Fraction
from typing import Any

class DType:
  """One element type. kind: b bool, u unsigned, i signed, f float, x index (any integer), p pointer, v void."""
  __slots__ = ("name", "kind", "bits", "rank", "count", "_vectors")
  rows: dict[str, "DType"] = {}

  def __init__(self, name: str, kind: str, bits: int, rank: int, count: int = 1):
    self.name, self.kind, self.bits, self.rank, self.count = name, kind, bits, rank, count
    self._vectors: dict[int, DType] = {}
    if count == 1: DType.rows[name] = self

  def __repr__(self) -> str: return f"dtypes.{self.name}" + (f".vec({self.count})" if self.count > 1 else "")
  def __reduce__(self): return (lookup, (self.name, self.count))

  @property
  def itemsize(self) -> int: return max(1, self.bits // 8) * self.count
  @property
  def scalar(self) -> "DType": return DType.rows[self.name]
  @property
  def is_floating_point(self) -> bool: return self.kind == "f"
  @property
  def is_int(self) -> bool: return self.kind in "uix"
  @property
  def is_unsigned(self) -> bool: return self.kind in "ub"

  def vec(self, n: int) -> "DType":
    """The type of n lanes of this element type; vec(1) is the element type itself."""
    if n == 1: return self.scalar
    if self.count > 1: return self.scalar.vec(n)
    if n not in self._vectors: self._vectors[n] = DType(self.name, self.kind, self.bits, self.rank, n)
    return self._vectors[n]

  @property
  def min(self) -> Any:
    if self.kind == "f": return -math.inf
    if self.kind == "b": return False
    return 0 if self.kind == "u" else -(1 << (self.bits - 1))
  @property
  def max(self) -> Any:
    if self.kind == "f": return math.inf
    if self.kind == "b": return True
    return (1 << self.bits) - 1 if self.kind == "u" else (1 << (self.bits - 1)) - 1
  @property
  def digits(self) -> int:
    """How many binary digits a float holds."""
    return {"float16": 11, "bfloat16": 8, "float32": 24, "float64": 53}[self.name]
  @property
  def eps(self) -> float:
    """From 1 to the next float."""
    return 2.0 ** (1 - self.digits)

def lookup(name: str, count: int) -> DType: return DType.rows[name].vec(count)

class dtypes:
  """The rows. rank orders promotion: between two of a kind, the higher rank wins."""
  void = DType("void", "v", 0, -1)
  ptr = DType("ptr", "p", 64, -1)
  index = DType("index", "x", 64, -1)
  bool = DType("bool", "b", 1, 0)
  uint8 = DType("uint8", "u", 8, 1)
  int8 = DType("int8", "i", 8, 2)
  uint16 = DType("uint16", "u", 16, 3)
  int16 = DType("int16", "i", 16, 4)
  uint32 = DType("uint32", "u", 32, 5)
  int32 = DType("int32", "i", 32, 6)
  uint64 = DType("uint64", "u", 64, 7)
  int64 = DType("int64", "i", 64, 8)
  float16 = DType("float16", "f", 16, 9)
  bfloat16 = DType("bfloat16", "f", 16, 10)
  float32 = DType("float32", "f", 32, 11)
  float64 = DType("float64", "f", 64, 12)
  float80 = DType("float80", "f", 80, 13)                  # x87: long double in a C program on x86, nowhere else
  half, float, double = float16, float32, float64          # torch's other names
  short, int, long = int16, int32, int64
  signed = (int8, int16, int32, int64)
  unsigned = (uint8, uint16, uint32, uint64)
  halves = (float16, bfloat16)
  floats = halves + (float32, float64)
  ints = signed + unsigned
  all = (bool,) + ints + floats

def promote(a: DType, b: DType) -> DType:
  """The smallest type that holds both, by torch's rules; float16 with bfloat16 gives float32 and a signed with an
  unsigned type the next larger signed type (for 64 bits float32)."""
  if a is b: return a
  low, high = sorted((a, b), key=lambda dt: dt.rank)
  if {a, b} == {dtypes.float16, dtypes.bfloat16}: return dtypes.float32
  if high.kind == "f" or low.kind == "b" or low.kind == high.kind: return high
  signed, unsigned = (low, high) if low.kind == "i" else (high, low)
  if signed.bits > unsigned.bits: return signed
  wider = {8: dtypes.int16, 16: dtypes.int32, 32: dtypes.int64}
  return wider.get(unsigned.bits, dtypes.float32)

# ---- a Python number as a value of a type ----------------------------------------------------------------------------

FORMATS = {"bool": "?", "int8": "b", "uint8": "B", "int16": "h", "uint16": "H", "int32": "i", "uint32": "I",
           "int64": "q", "uint64": "Q", "float16": "e", "float32": "f", "float64": "d", "ptr": "Q"}

def pack(value: Any, dt: DType) -> bytes:
  """The bytes in memory of a value of dt."""
  if dt.name == "bfloat16": return struct.pack("<f", value)[2:]
  return struct.pack("<" + FORMATS[dt.name], value)
def unpack(data: Any, dt: DType) -> Any:
  if dt.name == "bfloat16": return struct.unpack("<f", b"\0\0" + bytes(data))[0]
  return struct.unpack("<" + FORMATS[dt.name], data)[0]

def round_bits(x: float, code: str) -> float:
  try: return struct.unpack(code, struct.pack(code, x))[0]
  except OverflowError: return math.copysign(math.inf, x)

def to_bfloat16(x: float) -> float:
  """x rounded to the nearest bfloat16, ties to even; rounds from float64 in one step."""
  if not math.isfinite(x) or x == 0: return x
  mantissa, exponent = math.frexp(x)                              # x = mantissa * 2**exponent, 0.5 <= |mantissa| < 1
  digits = max(0, min(8, exponent + 133))                              # fewer for denormals: the last bit is 2**-133
  rounded = math.ldexp(round(math.ldexp(mantissa, digits)), exponent - digits)
  return math.copysign(math.inf, x) if abs(rounded) > 3.3895313892515355e38 else rounded

def sticky(x: int) -> int:
  """x with 50 leading bits, the last of them set if any after it was: rounds to fewer bits as x does. A float64."""
  shift = max(0, abs(x).bit_length() - 50)
  leading = abs(x) >> shift << shift
  odd = leading | (1 << shift) if leading != abs(x) else leading
  return odd if x > 0 else -odd

def truncate(x: Any, dt: DType) -> Any:
  """What the number x becomes when stored as dt: ints wrap, floats round once, bool tests for zero. A float becomes
  an integer towards zero; out of range it gives the nearest in range, NaN gives 0."""
  if dt.kind == "b": return bool(x)
  if dt.kind == "f":
    if dt.bits >= 64: return float(x)
    x = float(sticky(x)) if isinstance(x, int) else float(x)
    if dt.name == "bfloat16": return to_bfloat16(x)
    return round_bits(x, FORMATS[dt.name])
  if dt.kind == "x": return int(x)
  if isinstance(x, float): return 0 if x != x else int(max(dt.min, min(dt.max, x)))
  wrapped = int(x) & ((1 << dt.bits) - 1)
  return wrapped - (1 << dt.bits) if dt.kind == "i" and wrapped >> (dt.bits - 1) else wrapped

def fused_multiply_add(x: float, y: float, z: float, dt: DType) -> float:
  """x*y + z for numbers of a float type dt, rounded once to dt: what MULACC means."""
  if not (math.isfinite(x) and math.isfinite(y) and math.isfinite(z)):
    return z if math.isfinite(x) and math.isfinite(y) else x * y + z
  exact = Fraction(x) * Fraction(y) + Fraction(z)
  if exact == 0: return x * y + z if x == 0 or y == 0 else 0.0                    # the sign of a zero sum; x - x is +0
  return truncate(round_to_odd(exact), dt) if dt.bits < 64 else nearest(exact)

def nearest(x: Fraction) -> float:
  try: return float(x)
  except OverflowError: return math.inf if x > 0 else -math.inf

def round_to_odd(x: Fraction) -> float:
  """A float64 that rounds to a narrower type as x does: where inexact, the neighbour whose last bit is 1."""
  near = nearest(x)
  if not math.isfinite(near) or Fraction(near) == x: return near
  bits = struct.unpack("q", struct.pack("d", near))[0]
  return near if bits & 1 else math.nextafter(near, math.inf if x > Fraction(near) else -math.inf)
