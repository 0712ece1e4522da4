# index.py: what is true of mathematical integers: intervals, and the normal form of sums, quotients, remainders and
# comparisons. In: kernel form. Out: the same positions, with every term once, outermost range first, the constant last.
# A quotient is rewritten only where bounds() proves its operand non-negative, since IDIV and MOD truncate as C does.
from __future__ import annotations
import math, zlib
from typing import Any, Callable, NamedTuple
from weakref import WeakKeyDictionary
from picograd.dtype import dtypes
from picograd.helpers import dedup
from picograd.ops.fold import fold, is_integer, is_machine_integer, number
from picograd.ops.match import Pat, Rules
from picograd.ops.ops import ALU, COMPARE, INFO, Ops, idiv, imod
from picograd.ops.uop import Table, UOp, toposort

Interval = tuple[Any, Any]                                 # (least, largest), both inclusive

# ---- bounds: one row per op, on the node and the intervals of its sources --------------------------------------------

def limits(dt): return (dt.min, dt.max)
def hull(*values): return (min(values), max(values))

def corners(u, a, b):
  """Of an op that is monotone in each operand: its extremes are at the ends."""
  meaning: Any = INFO[u.op].meaning
  return hull(*(meaning(p, q) for p in a for q in b))

def bound_quotient(u, a, b):
  if b[0] > 0 or b[1] < 0: return corners(u, a, b)
  return hull(*a, *(-p for p in a), 0)

def bound_remainder(u, a, b):
  if b[0] <= 0 <= b[1]: return hull(*a, 0)
  one_sign = a[0] >= 0 or a[1] <= 0
  if b[0] == b[1] and one_sign and idiv(a[0], b[0]) == idiv(a[1], b[0]):
    return (imod(a[0], b[0]), imod(a[1], b[0]))
  largest = max(abs(b[0]), abs(b[1])) - 1
  return (max(min(a[0], 0), -largest), min(max(a[1], 0), largest))

def bound_bits(u, a, b):
  """On bools, and for shifts by less than 64, monotone; x & y is at most a y that is not negative."""
  is_shift = u.op in (Ops.SHL, Ops.SHR) and 0 <= b[0] and b[1] < 64
  if u.dtype.kind == "b" or is_shift: return corners(u, a, b)
  largest = [high for low, high in (a, b) if low >= 0 and u.op is Ops.AND]
  return (0, min(largest)) if largest else limits(u.dtype)

def bound_less(u, a, b):
  return (a[1] < b[0], a[0] < b[1])                        # of floats: -inf < inf may be either

def bound_differ(u, a, b):
  return (a[1] < b[0] or b[1] < a[0], not a[0] == a[1] == b[0] == b[1])

def bound_where(u, c, a, b):
  if c[0] == c[1]: return a if c[0] else b
  return hull(*a, *b)

def bound_cast(u, a):
  if u.dtype.kind == "b": return (a[0] > 0 or a[1] < 0, a[0] != 0 or a[1] != 0)
  return (int(a[0]), int(a[1])) if is_integer(u.src[0].dtype) else limits(u.dtype)

BOUNDS: dict[Ops, Callable[..., Interval]] = {
  Ops.RANGE: lambda u, n: (0, max(0, n[1] - 1)),
  Ops.ADD: lambda u, a, b: (a[0] + b[0], a[1] + b[1]),
  Ops.MUL: corners,
  Ops.MAX: corners,
  Ops.IDIV: bound_quotient,
  Ops.MOD: bound_remainder,
  Ops.AND: bound_bits,
  Ops.OR: bound_bits,
  Ops.SHL: bound_bits,
  Ops.SHR: bound_bits,
  Ops.CMPLT: bound_less,
  Ops.CMPNE: bound_differ,
  Ops.WHERE: bound_where,
  Ops.CAST: bound_cast,
  Ops.STACK: lambda u, *lanes: hull(*(end for lane in lanes for end in lane)),
}
known_bounds: "WeakKeyDictionary[UOp, Interval]" = WeakKeyDictionary()

def bounds(u: UOp) -> Interval:
  """The least and the largest value of an integer, bool or index node, both inclusive; of a float (-inf, inf)."""
  known = known_bounds.get(u)
  if known is not None: return known
  if all(s in known_bounds for s in u.src):
    known_bounds[u] = bounds_here(u)
    return known_bounds[u]
  for node in toposort([u], stop=lambda n: n in known_bounds or not is_integer(n.dtype) or n.op not in BOUNDS):
    if node not in known_bounds: known_bounds[node] = bounds_here(node)
  return known_bounds[u]

def bounds_here(u: UOp) -> Interval:
  """bounds(u) when those of its sources are known."""
  if not is_integer(u.dtype): return (-math.inf, math.inf)
  if u.op is Ops.CONST: return (u.arg, u.arg)
  if u.op is Ops.SPECIAL: return (0, u.arg[1] - 1)
  if u.op not in BOUNDS: return limits(u.dtype)
  low, high = BOUNDS[u.op](u, *(known_bounds[s] for s in u.src))
  fits = u.dtype is dtypes.index or (u.dtype.min <= low and high <= u.dtype.max)
  return (low, high) if fits else limits(u.dtype)             # it may wrap

# ---- order: equal terms stand in one order, outermost ranges first, so that outer loops hold prefixes ----------------

Order = tuple[tuple[tuple[int, int], ...], int]               # (ranges below, innermost first; a digest of the rest)
known_order: "WeakKeyDictionary[UOp, Order]" = WeakKeyDictionary()

def order(u: UOp) -> Order:
  known = known_order.get(u)
  if known is not None: return known
  for node in toposort([u], stop=known_order.__contains__):
    if node not in known_order: known_order[node] = order_here(node)
  return known_order[u]

def order_here(u: UOp) -> Order:
  """Ids count only by how they compare, so two kernels of one structure get one order."""
  below = [known_order[s] for s in u.src]
  ranges = {r for s in below for r in s[0]}
  arg = repr(u.arg)
  if u.op is Ops.RANGE: ranges.add((int(u.axis), u.arg[0]))
  if u.op in (Ops.RANGE, Ops.BUFFER): arg = ""
  text = f"{u.op} {u.dtype} {arg} {[digest for _, digest in below]}"
  return (tuple(sorted(ranges, reverse=True)), zlib.crc32(text.encode()))

# ---- sums ------------------------------------------------------------------------------------------------------------

class Sum(NamedTuple):
  """constant + the sum of factor * node: the normal form of index arithmetic."""
  terms: dict[UOp, int]
  constant: int = 0

def constant_of(u: UOp, op: Ops) -> int:
  """c where u is `op(x, c)` with a constant, else 0."""
  return u.src[1].arg if u.op is op and u.src[1].op is Ops.CONST else 0

def sum_of(u: UOp) -> Sum:
  """u as a sum: additions and multiplications by constants are taken apart, like terms are combined."""
  terms: dict[UOp, int] = {}
  constant, stack = 0, [(u, 1)]
  while stack:
    node, factor = stack.pop()
    if node.op is Ops.ADD: stack += [(s, factor) for s in node.src[::-1]]
    elif c := constant_of(node, Ops.MUL): stack.append((node.src[0], factor * c))
    elif node.op is Ops.CONST: constant += factor * node.arg
    else: terms[node] = terms.get(node, 0) + factor
  return Sum({node: factor for node, factor in terms.items() if factor}, constant)

def plus(a: Sum, b: Sum, factor: int = 1) -> Sum:
  """a + b * factor."""
  terms = dict(a.terms)
  for node, f in b.terms.items(): terms[node] = terms.get(node, 0) + f * factor
  return Sum({node: f for node, f in terms.items() if f}, a.constant + b.constant * factor)

def difference(x: UOp, y: UOp) -> Sum:
  return plus(sum_of(x), sum_of(y), -1)

def span(a: Sum) -> Interval:
  """The bounds of a sum."""
  low = high = a.constant
  for node, factor in a.terms.items():
    ends = [factor * end for end in bounds(node)]
    low, high = low + min(ends), high + max(ends)
  return low, high

def build(a: Sum) -> UOp:
  terms = [node if a.terms[node] == 1 else node * a.terms[node] for node in sorted(a.terms, key=order)]
  if a.constant or not terms: terms.append(UOp.const(dtypes.index, a.constant))
  total = terms[0]
  for term in terms[1:]: total = total + term
  return total

def recombine(a: Sum) -> Sum:
  """(x//c) * c + x%c = x, and (x//c % d) * c + x%c = x % (c*d); both times any factor."""
  for node, factor in a.terms.items():
    c = constant_of(node, Ops.MOD)
    if c <= 0: continue
    x = node.src[0]
    upper = quotient_node(x, c)
    for other, f in a.terms.items():
      d = constant_of(other, Ops.MOD)
      whole = x if other is upper else x % (c * d) if d > 0 and other.src[0] is upper else None
      if whole is None or f != factor * c: continue
      rest = plus(a, Sum({node: factor, other: f}), -1)
      return plus(rest, sum_of(whole), factor)
  return a

def normalise_sum(u: UOp) -> UOp | None:
  x = u.src[0]                                             # the rules have been applied to it
  if constant_of(u, Ops.ADD) and x.op is not Ops.CONST and not constant_of(x, Ops.ADD): return None
  before = sum_of(u)
  while (after := recombine(before)) is not before: before = after
  return build(after)

# ---- quotient and remainder ------------------------------------------------------------------------------------------

def take_multiples(a: Sum, d: int) -> tuple[Sum, Sum]:
  """(whole, rest) with a = d * whole + rest and rest >= 0, and the least such constant in rest."""
  whole = {node: idiv(f, d) for node, f in a.terms.items() if abs(f) >= d}
  rest = {node: imod(f, d) for node, f in a.terms.items() if f % d}
  least = span(Sum(rest, a.constant))[0] // d
  return Sum(whole, least), Sum(rest, a.constant - d * least)

def split(a: Sum, d: int) -> tuple[Sum, Sum]:
  """Quotient and remainder of a sum a >= 0 by d > 0. With a = g * whole + rest, 0 <= rest < g and g dividing d:
  a // d = whole // (d/g) and a % d = g * (whole % (d/g)) + rest."""
  quotient, remainder, scale = Sum({}), Sum({}), 1
  while True:
    whole, a = take_multiples(a, d)
    quotient = plus(quotient, whole)
    if span(a)[1] < d: return quotient, plus(remainder, a, scale)
    for g in sorted({math.gcd(f, d) for f in a.terms.values()} - {1}, reverse=True):
      whole, rest = take_multiples(a, g)
      if span(rest)[1] < g: break
    else: break
    remainder = plus(remainder, rest, scale)
    a, d, scale = whole, d // g, scale * g
  node = build(a)
  quotient = plus(quotient, Sum({quotient_node(node, d): 1}))
  return quotient, plus(remainder, Sum({remainder_node(node, d): scale}))

def non_negative(x: UOp) -> bool: return bounds(x)[0] >= 0

def quotient_node(x: UOp, d: int) -> UOp:
  """x // d, for x >= 0 with nested quotients in one."""
  if not non_negative(x): return x // d
  constant = constant_of(x, Ops.ADD)
  inner = x.src[0] if constant else x
  c = constant_of(inner, Ops.IDIV)
  if c > 0 and non_negative(inner.src[0]):                 # (x//c + k) // d = (x + k*c) // (c*d)
    return build(plus(sum_of(inner.src[0]), Sum({}, constant * c))) // (c * d)
  c = constant_of(x, Ops.MOD)
  if c > 0 and c % d == 0 and non_negative(x.src[0]):      # x%(c*d)//d = x//d%c
    return (x.src[0] // d) % (c // d)
  return x // d

def remainder_node(x: UOp, d: int) -> UOp:
  """x % d for x >= 0: x%(c*d)%d = x%d."""
  c = constant_of(x, Ops.MOD)
  return x.src[0] % d if c > 0 and c % d == 0 and non_negative(x.src[0]) else x % d

def divide(u, x, y):
  """x // d and x % d by a constant, where x is never negative; x % y = x for 0 <= x < y."""
  low, high = bounds(x)
  if 0 <= low and high < bounds(y)[0]: return x if u.op is Ops.MOD else u.like(0)
  a = sum_of(x)
  if y.op is not Ops.CONST or y.arg <= 0 or span(a)[0] < 0: return None
  quotient, remainder = split(a, y.arg)
  return build(quotient if u.op is Ops.IDIV else remainder)

# ---- comparisons -----------------------------------------------------------------------------------------------------

def compare(op: Ops, terms: dict[UOp, int], k: int) -> UOp:
  """The sum of the terms op k, with those of a positive factor on the left, the others and k on the right."""
  left = Sum({node: f for node, f in terms.items() if f > 0})
  right = Sum({node: -f for node, f in terms.items() if f < 0}, k)
  if not left.terms: left, right = Sum({}, -k), Sum(right.terms)
  return build(left).alu(op, build(right))

def less(u, x, y):
  """x < y with its terms sorted and its constant as small as can be."""
  if x.op is Ops.RANGE and x.bound is y: return u.like(True)
  a = difference(x, y)
  return compare(Ops.CMPLT, *coarsen(a.terms, -a.constant))

def coarsen(terms: dict[UOp, int], k: int) -> tuple[dict[UOp, int], int]:
  """a < k with a = g * whole + rest, 0 <= rest < g, k = g*q + t: whole < q where rest >= t, whole < q+1 where rest < t;
  and x // c < k is x < k * c."""
  factors = {abs(f) for f in terms.values()}
  for g in sorted((factors | {math.gcd(*factors)}) - {0, 1}, reverse=True):
    low, high = span(Sum({node: f for node, f in terms.items() if f % g}))
    q, t = divmod(k - low, g)
    if high - low >= max(g, 1) or 0 < t <= high - low: continue
    whole = {node: f // g for node, f in terms.items() if f % g == 0}
    return coarsen_quotient(whole, q + (high - low < t))
  return coarsen_quotient(terms, k)

def coarsen_quotient(terms: dict[UOp, int], k: int) -> tuple[dict[UOp, int], int]:
  """x // c < k = x < k*c, and -(x // c) < k = -x < k*c - (c - 1) where x >= 0."""
  if len(terms) != 1: return terms, k
  (node, factor), = terms.items()
  c = constant_of(node, Ops.IDIV)
  if c <= 0 or abs(factor) != 1 or not non_negative(node.src[0]): return terms, k
  x = plus(Sum({}), sum_of(node.src[0]), factor)
  limit = k * c if factor == 1 else (k - 1) * c + 1
  return x.terms, limit - x.constant

def differ(u, x, y):
  """x != y as left != right + k with the innermost term on the left; k * x != c is True where k does not divide c."""
  a = difference(x, y)
  g = math.gcd(*a.terms.values())
  if g == 0 or a.constant % g: return u.like(a.constant != 0)
  innermost = max(a.terms, key=order)
  scale = g if a.terms[innermost] > 0 else -g
  return compare(Ops.CMPNE, {node: f // scale for node, f in a.terms.items()}, -a.constant // scale)

def negated(u: UOp) -> UOp | None:
  """x where u is not x."""
  is_not = u.op is Ops.CMPNE and u.src[0].dtype.kind == "b" and number(u.src[1]) is True
  return u.src[0] if is_not else None

def conjuncts(u: UOp) -> list[UOp]:
  """Conditions that together are u: a and b; not (a or b) = not a and not b."""
  out, stack = [], [u]
  while stack:
    c = stack.pop()
    denied = negated(c)
    if c.op is Ops.AND: stack += c.src[::-1]
    elif denied is not None and denied.op is Ops.OR: stack += [s.not_() for s in denied.src[::-1]]
    else: out.append(c)
  return dedup(out)

def join(conditions: list[UOp]) -> UOp:
  total = conditions[0] if conditions else UOp.const(dtypes.bool, True)
  for c in conditions[1:]: total = total & c
  return total

def tightest(conditions, side, best):
  """x -> the strongest of its conditions x < constant (side 1) or constant < x (side 0)."""
  out: Table = {}
  for c in conditions:
    if c.op is not Ops.CMPLT or c.src[side].op is not Ops.CONST: continue
    x = c.src[1 - side]
    out[x] = best(out.get(x, c), c, key=lambda c: c.src[side].arg)
  return out

def conjunction(u):
  """Each condition once, in order; x < 3 and x < 5 is x < 3; x and not x, and c1 < x < c2 with no room, are False."""
  conditions = [c for c in conjuncts(u) if number(c) is not True]
  below, above = tightest(conditions, 1, min), tightest(conditions, 0, max)
  for c in conditions:
    if number(c) is False or negated(c) in conditions: return u.like(False)
  for x in below.keys() & above.keys():
    if is_integer(x.dtype) and below[x].src[1].arg - above[x].src[0].arg <= 1: return u.like(False)
  strongest = {*below.values(), *above.values()}
  def is_implied(c):
    return c.op is Ops.CMPLT and c not in strongest and any(s.op is Ops.CONST for s in c.src)
  return join(sorted((c for c in conditions if not is_implied(c)), key=order))

# ---- casts: machine integers that cannot wrap are index arithmetic ---------------------------------------------------

def fits(u, dt):
  low, high = bounds(u)
  return dt is dtypes.index or (dt.min <= low and high <= dt.max)

def lifted(u):
  """The index node that the machine integer u is a cast of, where the cast keeps each value."""
  if u.op is Ops.CONST: return UOp.const(dtypes.index, u.arg)
  is_cast = u.op is Ops.CAST and u.src[0].dtype is dtypes.index
  return u.src[0] if is_cast and fits(u.src[0], u.dtype) else None

def lift(u):
  """op(cast x, cast y) = cast op(x, y) where that cannot wrap."""
  condition, values = u.src[:-2], u.src[-2:]
  src = [*condition, *map(lifted, values)]
  if None in src or all(s.op is Ops.CONST for s in values): return None
  if u.op in (Ops.IDIV, Ops.MOD) and 0 in bounds(src[1]): return None
  on_index = src[0].alu(u.op, *src[1:])
  return on_index.cast(u.dtype) if fits(on_index, u.dtype) else None

def cast_between(u, x, between):
  """cast(cast(x, b), c) = cast(x, c) for integers, where b holds every value of x."""
  return x.cast(u.dtype) if is_integer(x.dtype) and fits(x, between.dtype) else None

def decide(u):
  """A node with one possible value is a constant."""
  low, high = bounds(u)
  return u.like(low) if low == high else None

def larger(u, x, y):
  """max(x, y) = x where x is never below y."""
  if bounds(x)[0] >= bounds(y)[1]: return x
  return y if bounds(y)[0] >= bounds(x)[1] else None

def load_again_gated(c, x, gate, zero):
  """where(c, x, 0) = x for a load that is gated by c and maybe more: gated off, it is 0."""
  return x if zero is x.like(0) and set(conjuncts(c)) <= set(conjuncts(gate)) else None

MACHINE = Pat(dtype=is_machine_integer)
CAST_INTEGER = Pat(Ops.CAST, (Pat.var("x"),), dtype=is_integer, name="between")
GATED_LOAD = Pat(Ops.LOAD, (Pat(Ops.INDEX, (Pat(), Pat(), Pat.var("gate"))),), name="x")
x, y = Pat.var("x", dtypes.index), Pat.var("y", dtypes.index)
ARITHMETIC = (Ops.ADD, Ops.MUL, Ops.IDIV, Ops.MOD, Ops.MAX, Ops.WHERE)

simplify_index = Rules([
  (Pat(ALU - {Ops.BITCAST}, dtype=is_integer, name="u"), decide),                # bounds leave one value
  (Pat((Ops.ADD, Ops.MUL), dtype=dtypes.index, name="u"), normalise_sum),        # like terms are combined
  (Pat((Ops.IDIV, Ops.MOD), (x, y), name="u"), divide),                          # (3i + j) // 3 = i for j < 3
  (Pat(Ops.MAX, (x, y), name="u"), larger),                                      # max(x, y) = x for x >= y
  (Pat(Ops.CMPLT, (x, y), name="u"), less),                                      # 3i + j < 3n is i < n
  (Pat(Ops.CMPNE, (x, y), name="u"), differ),                                    # 3i + 3 != 3j is i + 1 != j
  ((x < y).ne(True), lambda x, y: y < x + 1),                                    # not x < y = y < x + 1
  (Pat(Ops.AND, dtype=dtypes.bool, name="u"), conjunction),                      # x and y and x = x and y
  (Pat(Ops.CAST, (CAST_INTEGER,), dtype=is_integer, name="u"), cast_between),    # cast(cast x) = cast x
  (Pat(ARITHMETIC, dtype=is_machine_integer, name="u"), lift),                   # cast x + cast y = cast(x + y)
  (Pat(COMPARE, (MACHINE, MACHINE), name="u"), lift),                            # cast x < cast y = x < y
  (Pat.var("c").where(GATED_LOAD, Pat.var("zero")), load_again_gated),           # gated off, a load is 0
]) + fold

# ---- strides ---------------------------------------------------------------------------------------------------------

def longest(r: UOp) -> int:
  """The most steps of a RANGE, whose bound may depend on others."""
  return bounds(r.bound)[1]

def stride_of(position: UOp, r: UOp) -> int | None:
  """How far position moves when r grows by one; None where that is no constant."""
  a = sum_of(position)
  others = [node for node in a.terms if node is not r]
  return None if r in toposort(others) else a.terms.get(r, 0)
