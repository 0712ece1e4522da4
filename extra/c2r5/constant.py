# constant.py: the value of a constant expression (C11 6.6), exactly as the machine would compute it. In: a tree. Out:
# an int, a float (float, double), a Fraction or special float (long double), or an Address; NotConstant where there is
# none.
from __future__ import annotations
import math, operator
from fractions import Fraction
from typing import Any, Callable
from picograd.dtype import dtypes, nearest, round_to_odd, truncate
from .ctype import Floating, Integer, Pointer, Type
from .lex import Failure, Token
from .tree import Address, Label, Node, Object

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

def is_true(node: Node) -> bool | None:
  """Whether a condition is always true, or always false; None if that is not known before the program runs."""
  try: value = constant_value(node)
  except (NotConstant, Failure): return None
  if isinstance(value, Address): return None if is_weak(value) else True
  return value != 0

def is_weak(address: Address) -> bool:
  """Whether the linker may find nothing there."""
  return isinstance(address.object, Object) and address.object.is_weak and not address.object.is_defined

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
  exponent = exact.numerator.bit_length() - exact.denominator.bit_length()
  if abs(exact) < Fraction(2) ** exponent: exponent -= 1
  unit = Fraction(2) ** max(exponent - t.digits + 1, -16382 - t.digits + 1)          # of the last place; denormals
  rounded = round(exact / unit) * unit
  if abs(rounded) < Fraction(2) ** 16384: return rounded
  return math.inf if exact > 0 else -math.inf

def bytes_of_long_double(t: Floating, value: Value) -> bytes:
  """The 16 bytes of an x87 or IEEE quadruple number."""
  explicit = t.digits == 64                          # x87 stores the leading 1
  negative = math.copysign(1, value) < 0 if isinstance(value, float) else value < 0
  if isinstance(value, float) and not math.isfinite(value):
    exponent, fraction = 0x7fff, (1 << 62 if explicit else 1 << 111) if math.isnan(value) else 0
    if explicit: fraction |= 1 << 63
  elif value == 0: exponent, fraction = 0, 0
  else: exponent, fraction = split_fraction(abs(Fraction(value)), t.digits, explicit)
  if explicit: return fraction.to_bytes(8, "little") + (negative << 15 | exponent).to_bytes(2, "little") + bytes(6)
  return (negative << 127 | exponent << 112 | fraction).to_bytes(16, "little")

def split_fraction(value: Fraction, digits: int, explicit: bool) -> tuple[int, int]:
  """(biased exponent, significand as stored) of a positive finite number that the format holds."""
  power = value.numerator.bit_length() - value.denominator.bit_length()
  if value < Fraction(2) ** power: power -= 1
  power = max(power, -16382)
  significand = int(value / Fraction(2) ** (power - digits + 1))
  normal = significand >> digits - 1
  return (power + 16383) * normal, significand if explicit else significand - (normal << digits - 1)

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

def divide(node: Node, x: Value, y: Value) -> Value:
  if node.type.is_floating: return divide_floats(x, y)
  if y == 0: raise NotConstant
  quotient = abs(x) // abs(y)
  return quotient if (x < 0) == (y < 0) else -quotient

def divide_floats(x: Value, y: Value) -> Value:
  if y != 0 and isinstance(x, (Fraction, int)): return x / y
  if y != 0: return x / float(y)
  return math.nan if x == 0 or x != x else math.copysign(math.inf, x) * math.copysign(1.0, y)

def exact(f: Callable[[Any, Any], Any]) -> Callable[[Node, Value, Value], Value]:
  """An operator on numbers; of an infinity and a Fraction, as floats."""
  def apply(node: Node, x: Value, y: Value) -> Value:
    if isinstance(x, float) != isinstance(y, float) and not (math.isfinite(x) and math.isfinite(y)):
      return f(float(x), float(y))
    if node.type.is_floating and node.type.size == 16 and math.isfinite(x) and math.isfinite(y):
      return f(Fraction(x), Fraction(y))
    return f(x, y)
  return apply

ARITHMETIC: dict[str, Callable[[Node, Value, Value], Value]] = {
  "add": exact(operator.add), "sub": exact(operator.sub), "mul": exact(operator.mul), "div": divide,
  "mod": lambda node, x, y: x - divide(node, x, y) * y, "and": exact(operator.and_), "or": exact(operator.or_),
  "xor": exact(operator.xor), "shl": lambda node, x, y: x << (y & 8 * (node.type.size or 0) - 1),
  "shr": lambda node, x, y: x >> (y & 8 * (node.type.size or 0) - 1)}
COMPARE: dict[str, Callable[[Any, Any], bool]] = {
  "lt": operator.lt, "gt": operator.gt, "le": operator.le, "ge": operator.ge, "eq": operator.eq, "ne": operator.ne}

def arithmetic(node: Node) -> Value:
  x, y = [constant_value(s) for s in node.src]
  if isinstance(x, Address) or isinstance(y, Address): return address_arithmetic(node.kind, x, y)
  return converted(ARITHMETIC[node.kind](node, x, y), node.type)

def address_arithmetic(kind: str, x: Value, y: Value) -> Value:
  """Sums and differences of pointers that were cast to integers, as (char *)&x + 4 in disguise."""
  if kind == "add" and isinstance(x, Address) and isinstance(y, int): return Address(x.object, x.offset + y)
  if kind == "add" and isinstance(y, Address) and isinstance(x, int): return Address(y.object, y.offset + x)
  if kind == "sub" and isinstance(x, Address) and isinstance(y, int): return Address(x.object, x.offset - y)
  if kind == "sub" and isinstance(x, Address) and isinstance(y, Address):
    if x.object is y.object: return x.offset - y.offset
    if isinstance(x.object, Label) and isinstance(y.object, Label): return x.object.number - y.object.number
  raise NotConstant

def compare(node: Node) -> Value:
  x, y = [constant_value(s) for s in node.src]
  if isinstance(x, Address) or isinstance(y, Address):
    if isinstance(x, Address) and isinstance(y, Address) and x.object is y.object: x, y = x.offset, y.offset
    elif node.kind in ("eq", "ne") and 0 in (x, y) and not any(isinstance(a, Address) and is_weak(a) for a in (x, y)):
      return int(node.kind == "ne")       # no object is at address 0
    else: raise NotConstant
  return int(COMPARE[node.kind](x, y))

def logical(node: Node) -> Value:
  left = is_true(node.src[0])
  if left is None: raise NotConstant
  if left is (node.kind == "lor"): return int(left)
  right = is_true(node.src[1])
  if right is None: raise NotConstant
  return int(right)

def conditional(node: Node) -> Value:
  test = is_true(node.src[0])
  if test is None: raise NotConstant
  return constant_value(node.src[1] if test else node.src[2])

def negated(node: Node) -> Value:
  value = constant_value(node.src[0])
  if isinstance(value, Address): raise NotConstant
  return converted(-value, node.type)

def inverted(node: Node) -> Value:
  value = constant_value(node.src[0])
  if not isinstance(value, int): raise NotConstant
  return converted(~value, node.type)

def logical_not(node: Node) -> Value:
  value = is_true(node.src[0])
  if value is None: raise NotConstant
  return int(not value)

def offset_pointer(node: Node) -> Value:
  pointer, count = [constant_value(s) for s in node.src]
  assert isinstance(node.type, Pointer), "pointer arithmetic gives a pointer"
  if node.type.to.size is None or not isinstance(count, int): raise NotConstant
  step = count * node.type.to.size * (1 if node.kind == "pointer_add" else -1)
  return Address(pointer.object, pointer.offset + step) if isinstance(pointer, Address) else pointer + step

def pointer_difference(node: Node) -> Value:
  x, y = [constant_value(s) for s in node.src]
  difference = x - y if isinstance(x, int) and isinstance(y, int) else address_arithmetic("sub", x, y)
  assert isinstance(node.src[0].type, Pointer), "the operands are pointers"
  if not isinstance(difference, int): raise NotConstant
  return difference // (node.src[0].type.to.size or 1)

def comma(node: Node) -> Value:
  constant_value(node.src[0])
  return constant_value(node.src[1])

def address_of(node: Node) -> Value:
  """The address of a place: an Address, or an int as in offsetof."""
  if node.kind == "variable":
    if node.arg.storage == "automatic" or node.arg.is_thread_local: raise NotConstant
    return Address(node.arg, 0)
  if node.kind == "compound":
    if node.arg[0].storage == "automatic": raise NotConstant
    return Address(node.arg[0], 0)
  if node.kind == "dereference": return constant_value(node.src[0])
  if node.kind != "member": raise NotConstant
  base = address_of(node.src[0])
  return Address(base.object, base.offset + node.arg.offset) if isinstance(base, Address) else base + node.arg.offset

RULES: dict[str, Callable[[Node], Value]] = {
  "number": lambda node: node.arg,
  "cast": lambda node: converted(constant_value(node.src[0]), node.type),
  "decay": lambda node: address_of(node.src[0]), "address": lambda node: address_of(node.src[0]),
  **dict.fromkeys(ARITHMETIC, arithmetic), **dict.fromkeys(COMPARE, compare), "land": logical, "lor": logical,
  "conditional": conditional, "neg": negated, "not": inverted, "lnot": logical_not, "pointer_add": offset_pointer,
  "pointer_sub": offset_pointer, "pointer_difference": pointer_difference, "comma": comma,
  "label_address": lambda node: Address(node.arg, 0)}
