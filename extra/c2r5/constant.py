# constant.py: the value of a constant expression (C11 6.6), exactly as the machine would compute it. In: a tree. Out:
# an int, a float (float, double), a Fraction or special float (long double), or an Address; NotConstant where there is
# none.
from __future__ import annotations
import math, operator
from fractions import Fraction
from typing import Any, Callable
from picograd.dtype import dtypes, nearest, round_to_odd, truncate
from picograd.ops.ops import fdiv, idiv
from .ctype import Floating, Integer, Pointer, Type, target_of
from .lex import Failure, Token
from .tree import Address, Node

class NotConstant(Exception): pass

Value = Any                                # int | float | Fraction | Address

def constant_value(node: Node) -> Value:
  rule = RULES.get(node.kind)
  if rule is None: raise NotConstant
  return rule(node)

def integer_constant(node: Node, token: Token, what: str) -> int:
  try: value = constant_value(node)
  except NotConstant: value = None
  if not isinstance(value, int): raise Failure(token, f"{what} is not an integer constant")
  return value

def truth(node: Node) -> bool:
  value = constant_value(node)
  if not isinstance(value, Address): return value != 0
  if is_weak(value): raise NotConstant
  return True

def is_true(node: Node) -> bool | None:
  """Whether a condition is always true, or always false; None if that is not known before the program runs."""
  try: return truth(node)
  except NotConstant: return None

def is_weak(address: Address) -> bool:
  """Whether the linker may find nothing there."""
  return "weak" in address.object.attributes and not address.object.is_defined

# ---- numbers of floating types ---------------------------------------------------------------------------------------

def round_to(t: Floating, value: Value) -> Value:
  """A number as a value of t. Zeros, infinities and NaN are floats in every type."""
  if t.digits <= 53:
    if t.digits == 53: return float(value) if not isinstance(value, Fraction) else nearest(value)
    return truncate(round_to_odd(value) if isinstance(value, Fraction) else float(value), dtypes.float32)
  if isinstance(value, float):
    if not math.isfinite(value) or value == 0: return value
  exact = Fraction(value)
  if exact == 0: return 0.0
  unit = Fraction(2) ** (power_of(exact) - t.digits + 1)                              # of the last place
  rounded = round(exact / unit) * unit
  if abs(rounded) < Fraction(2) ** 16384: return rounded
  return math.inf if exact > 0 else -math.inf

def power_of(value: Fraction) -> int:
  """The exponent of a long double's leading digit; denormals have that of the smallest normal number."""
  power = value.numerator.bit_length() - value.denominator.bit_length()
  if abs(value) < Fraction(2) ** power: power -= 1
  return max(power, -16382)

def bytes_of_long_double(t: Floating, value: Value) -> bytes:
  """The 16 bytes of an x87 or IEEE quadruple number."""
  stored = t.digits - 1                              # bits of the fraction, without the leading 1
  negative = math.copysign(1, value) < 0 if isinstance(value, float) else value < 0
  if isinstance(value, float) and not math.isfinite(value): bits = 0x7fff << stored | math.isnan(value) << stored - 1
  elif value == 0: bits = 0
  else:
    power = power_of(Fraction(value))
    significand = int(abs(Fraction(value)) / Fraction(2) ** (power - stored))
    bits = (power + 16382 << stored) + significand   # a leading 1 counts the exponent up
  if t.digits == 113: return (negative << 127 | bits).to_bytes(16, "little")
  exponent, fraction = divmod(bits, 1 << stored)
  significand = (exponent != 0) << 63 | fraction     # x87 stores the leading 1
  return (negative << 79 | exponent << 64 | significand).to_bytes(16, "little")

# ---- conversions -----------------------------------------------------------------------------------------------------

def converted(value: Value, to: Type) -> Value:
  if isinstance(value, Address):
    if isinstance(to, Integer) and to.is_bool: return 1
    if to.is_pointer or (isinstance(to, Integer) and to.size == 8): return value
    raise NotConstant
  if isinstance(to, Integer):
    if isinstance(value, float) and not math.isfinite(value): return to.least if to.signed else 0
    return to.wrap(int(value)) if not to.is_bool else int(value != 0)
  if isinstance(to, Floating): return round_to(to, value)
  if isinstance(to, Pointer): return int(value) & (1 << 64) - 1
  raise NotConstant

# ---- operators -------------------------------------------------------------------------------------------------------

def exact(f: Callable[[Any, Any], Any]) -> Callable[[Node, Value, Value], Value]:
  """An operator on numbers. Next to 0, an infinity or NaN, the sign of a Fraction says all, unless 0 is added to it."""
  def apply(node: Node, x: Value, y: Value) -> Value:
    if isinstance(x, Fraction) == isinstance(y, Fraction): return f(x, y)
    if 0 in (x, y) and f in (operator.add, operator.sub): return f(Fraction(x), Fraction(y))
    return f(*[(v > 0) - (v < 0) if isinstance(v, Fraction) else v for v in (x, y)])
  return apply

def divide(node: Node, x: Value, y: Value) -> Value:
  if node.type.is_floating: return exact(fdiv)(node, x, y)
  if y == 0: raise NotConstant
  return idiv(x, y)

def shift(f: Callable[[int, int], int]) -> Callable[[Node, Value, Value], Value]:
  return lambda node, x, y: f(x, y & 8 * (node.type.size or 0) - 1)

ARITHMETIC: dict[str, Callable[[Node, Value, Value], Value]] = {
  "add": exact(operator.add), "sub": exact(operator.sub), "mul": exact(operator.mul), "div": divide,
  "mod": lambda node, x, y: x - divide(node, x, y) * y, "and": exact(operator.and_), "or": exact(operator.or_),
  "xor": exact(operator.xor), "shl": shift(operator.lshift), "shr": shift(operator.rshift)}
COMPARE: dict[str, Callable[[Any, Any], bool]] = {
  "lt": operator.lt, "gt": operator.gt, "le": operator.le, "ge": operator.ge, "eq": operator.eq, "ne": operator.ne}
UNARY: dict[str, Callable[[Any], Any]] = {"neg": operator.neg, "not": operator.invert}

def arithmetic(node: Node) -> Value:
  x, y = [constant_value(s) for s in node.src]
  if isinstance(x, Address) or isinstance(y, Address): return address_arithmetic(node.kind, x, y)
  return converted(ARITHMETIC[node.kind](node, x, y), node.type)

def address_arithmetic(kind: str, x: Value, y: Value) -> Value:
  """Sums and differences of pointers that were cast to integers, as (char *)&x + 4 in disguise."""
  if kind == "add" and isinstance(x, int): x, y = y, x
  if kind in ("add", "sub") and isinstance(y, int): return moved(x, y if kind == "add" else -y)
  if kind == "sub" and isinstance(x, Address) and x.object is y.object: return x.offset - y.offset
  raise NotConstant

def moved(place: Value, distance: int) -> Value:
  """An address, or a pointer that is a number, some bytes further."""
  return Address(place.object, place.offset + distance) if isinstance(place, Address) else place + distance

def compare(node: Node) -> Value:
  x, y = [constant_value(s) for s in node.src]
  if isinstance(x, Address) or isinstance(y, Address):
    if isinstance(x, Address) and isinstance(y, Address) and x.object is y.object: x, y = x.offset, y.offset
    elif node.kind in ("eq", "ne") and 0 in (x, y) and not any(isinstance(a, Address) and is_weak(a) for a in (x, y)):
      return int(node.kind == "ne")       # no object is at address 0
    else: raise NotConstant
  return int(COMPARE[node.kind](x, y))

def logical(node: Node) -> Value:
  left = truth(node.src[0])
  return int(left if left is (node.kind == "lor") else truth(node.src[1]))

def unary(node: Node) -> Value:
  value = constant_value(node.src[0])
  if isinstance(value, Address): raise NotConstant
  return converted(UNARY[node.kind](value), node.type)

def offset_pointer(node: Node) -> Value:
  pointer, count = [constant_value(s) for s in node.src]
  size = target_of(node.type).size
  if size is None or not isinstance(count, int): raise NotConstant
  return moved(pointer, count * size if node.kind == "pointer_add" else -count * size)

def pointer_difference(node: Node) -> Value:
  x, y = [constant_value(s) for s in node.src]
  difference = address_arithmetic("sub", x, y)
  if not isinstance(difference, int): raise NotConstant
  return difference // (target_of(node.src[0].type).size or 1)

def comma(node: Node) -> Value:
  constant_value(node.src[0])
  return constant_value(node.src[1])

def address_of(node: Node) -> Value:
  """The address of a place: an Address, or an int as in offsetof."""
  if node.kind == "dereference": return constant_value(node.src[0])
  if node.kind == "member": return moved(address_of(node.src[0]), node.arg.offset)
  if node.kind not in ("variable", "compound"): raise NotConstant
  object = node.arg if node.kind == "variable" else node.arg[0]
  if object.storage == "automatic" or "_Thread_local" in object.attributes: raise NotConstant
  return Address(object, 0)

RULES: dict[str, Callable[[Node], Value]] = {
  "number": lambda node: node.arg,
  "cast": lambda node: converted(constant_value(node.src[0]), node.type),
  "decay": lambda node: address_of(node.src[0]), "address": lambda node: address_of(node.src[0]),
  **dict.fromkeys(ARITHMETIC, arithmetic), **dict.fromkeys(COMPARE, compare), **dict.fromkeys(UNARY, unary),
  "land": logical, "lor": logical, "lnot": lambda node: int(not truth(node.src[0])),
  "conditional": lambda node: constant_value(node.src[1] if truth(node.src[0]) else node.src[2]),
  "pointer_add": offset_pointer, "pointer_sub": offset_pointer, "pointer_difference": pointer_difference,
  "comma": comma}
