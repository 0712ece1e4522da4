# index.py: what is true of mathematical integers: intervals, and the normal form of sums, quotients, remainders and
# comparisons. In: kernel form. Out: the same positions, with every term once, outermost range first, the constant last.
# A quotient is rewritten only where bounds() proves its operand non-negative, since IDIV and MOD truncate as C does.
# The second half removes ranges that only look something up or count: a one-hot sum becomes a load.
from __future__ import annotations
import math, zlib
from typing import Any, Callable, Iterable, NamedTuple
from weakref import WeakKeyDictionary
from picograd.dtype import DType, dtypes, truncate
from picograd.helpers import dedup
from picograd.ops.fold import MANTISSA, fold, is_integer, is_machine_integer, number
from picograd.ops.match import Pat, Rules, rewrite
from picograd.ops.ops import ALU, INFO, Ops, idiv, imod
from picograd.ops.uop import UOp, toposort

Interval = tuple[Any, Any]                                 # (least, largest), both inclusive

# ---- bounds: one row per op, on the intervals of the sources ---------------------------------------------------------

def limits(dt: DType) -> Interval: return (dt.min, dt.max)
def hull(*values: Any) -> Interval: return (min(values), max(values))
def corners(op: Ops, a: Interval, b: Interval) -> Interval:
  """For an op that is monotone in each operand: its extremes are at the ends."""
  meaning: Any = INFO[op].meaning
  return hull(*(meaning(p, q) for p in a for q in b))

def bound_range(u: UOp, n: Interval) -> Interval: return (0, max(0, n[1] - 1))
def bound_quotient(u: UOp, a: Interval, b: Interval) -> Interval:
  if b[0] > 0 or b[1] < 0: return corners(Ops.IDIV, a, b)
  return hull(*a, *(-p for p in a), 0)
def bound_remainder(u: UOp, a: Interval, b: Interval) -> Interval:
  if b[0] == b[1] != 0 and idiv(a[0], b[0]) == idiv(a[1], b[0]) and (a[0] >= 0 or a[1] <= 0):
    return (imod(a[0], b[0]), imod(a[1], b[0]))
  if b[0] <= 0 <= b[1]: return hull(*a, 0)
  largest = max(abs(b[0]), abs(b[1])) - 1
  return (max(min(a[0], 0), -largest), min(max(a[1], 0), largest))
def bound_and(u: UOp, a: Interval, b: Interval) -> Interval:
  if u.dtype.kind == "b": return (a[0] and b[0], a[1] and b[1])
  largest = [high for low, high in (a, b) if low >= 0]
  return (0, min(largest)) if largest else limits(u.dtype)
def bound_or(u: UOp, a: Interval, b: Interval) -> Interval:
  return (a[0] or b[0], a[1] or b[1]) if u.dtype.kind == "b" else limits(u.dtype)
def bound_shift(u: UOp, a: Interval, b: Interval) -> Interval:
  safe = 0 <= b[0] and b[1] < 64
  return corners(u.op, a, b) if safe else limits(u.dtype)
def bound_less(u: UOp, a: Interval, b: Interval) -> Interval:
  if u.src[0].dtype.is_floating_point: return (False, True)
  return (a[1] < b[0], a[0] < b[1])
def bound_differ(u: UOp, a: Interval, b: Interval) -> Interval:
  if u.src[0].dtype.is_floating_point: return (False, True)
  return (a[1] < b[0] or b[1] < a[0], not a[0] == a[1] == b[0] == b[1])
def bound_where(u: UOp, c: Interval, a: Interval, b: Interval) -> Interval:
  if c[0] == c[1]: return a if c[0] else b
  return hull(*a, *b)
def bound_cast(u: UOp, a: Interval) -> Interval:
  if u.dtype.kind == "b": return (a[0] > 0 or a[1] < 0, a[0] != 0 or a[1] != 0)
  return (int(a[0]), int(a[1])) if is_integer(u.src[0].dtype) else limits(u.dtype)

BOUNDS: dict[Ops, Callable[..., Interval]] = {
  Ops.RANGE: bound_range,
  Ops.ADD: lambda u, a, b: (a[0] + b[0], a[1] + b[1]),
  Ops.MUL: lambda u, a, b: corners(Ops.MUL, a, b),
  Ops.MAX: lambda u, a, b: (max(a[0], b[0]), max(a[1], b[1])),
  Ops.IDIV: bound_quotient, Ops.MOD: bound_remainder,
  Ops.AND: bound_and, Ops.OR: bound_or, Ops.SHL: bound_shift, Ops.SHR: bound_shift,
  Ops.CMPLT: bound_less, Ops.CMPNE: bound_differ, Ops.WHERE: bound_where, Ops.CAST: bound_cast,
  Ops.STACK: lambda u, *lanes: (min(low for low, _ in lanes), max(high for _, high in lanes)),
}
known_bounds: "WeakKeyDictionary[UOp, Interval]" = WeakKeyDictionary()

def bounds(u: UOp) -> Interval:
  """The least and the largest value of an integer, bool or index node, both inclusive; of a float (-inf, inf)."""
  known = known_bounds.get(u)
  if known is not None: return known
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
  is_loop = u.op is Ops.RANGE and u.arg is not None
  ranges = {r for s in below for r in s[0]} | ({(int(u.axis), u.arg[0])} if is_loop else set())
  arg = "" if is_loop or u.op is Ops.BUFFER else repr(u.arg)
  text = f"{u.op} {u.dtype} {arg} {[digest for _, digest in below]}"
  return (tuple(sorted(ranges, reverse=True)), zlib.crc32(text.encode()))

# ---- sums ------------------------------------------------------------------------------------------------------------

class Sum(NamedTuple):
  """constant + the sum of factor * node: the normal form of index arithmetic."""
  terms: dict[UOp, int]
  constant: int

def sum_of(u: UOp) -> Sum:
  """u as a sum: additions and multiplications by constants are taken apart, like terms are combined."""
  terms: dict[UOp, int] = {}
  constant, stack = 0, [(u, 1)]
  while stack:
    node, factor = stack.pop()
    if node.op is Ops.ADD: stack.extend(((node.src[1], factor), (node.src[0], factor)))
    elif node.op is Ops.MUL and node.src[1].op is Ops.CONST: stack.append((node.src[0], factor * node.src[1].arg))
    elif node.op is Ops.MUL and node.src[0].op is Ops.CONST: stack.append((node.src[1], factor * node.src[0].arg))
    else:
      low, high = bounds(node)
      if low == high: constant += factor * low
      else: terms[node] = terms.get(node, 0) + factor
  return Sum({node: factor for node, factor in terms.items() if factor}, constant)

def plus(a: Sum, b: Sum, factor: int = 1) -> Sum:
  """a + b * factor."""
  terms = dict(a.terms)
  for node, f in b.terms.items(): terms[node] = terms.get(node, 0) + f * factor
  return Sum({node: f for node, f in terms.items() if f}, a.constant + b.constant * factor)

def span(a: Sum) -> tuple[int, int]:
  """The bounds of a sum."""
  low = high = a.constant
  for node, factor in a.terms.items():
    ends = [factor * end for end in bounds(node)]
    low, high = low + min(ends), high + max(ends)
  return low, high

def build(a: Sum) -> UOp:
  total = None
  for node in sorted(a.terms, key=order):
    term = node if a.terms[node] == 1 else node * a.terms[node]
    total = term if total is None else total + term
  if total is None: return UOp.const(dtypes.index, a.constant)
  return total + a.constant if a.constant else total

def divisor(u: UOp, op: Ops) -> int:
  """c where u is `op(x, c)` with a constant c > 0, else 0."""
  return max(0, u.src[1].arg) if u.op is op and u.src[1].op is Ops.CONST else 0

def recombine(a: Sum) -> Sum:
  """(x//c) * c + x%c = x, and (x//c % d) * c + x%c = x % (c*d); both times any factor."""
  for node, factor in a.terms.items():
    c = divisor(node, Ops.MOD)
    if c == 0: continue
    x = node.src[0]
    upper = quotient_node(x, c) if bounds(x)[0] >= 0 else x // c
    if a.terms.get(upper) == factor * c:
      return recombine_rest(a, (node, upper), Sum({x: factor}, 0))
    for other, f in a.terms.items():
      d = divisor(other, Ops.MOD)
      if d and other.src[0] is upper and f == factor * c:
        return recombine_rest(a, (node, other), Sum({x % (c * d): factor}, 0))
  return a

def recombine_rest(a: Sum, gone: tuple[UOp, UOp], instead: Sum) -> Sum:
  rest = Sum({node: f for node, f in a.terms.items() if node not in gone}, a.constant)
  (node, factor), = instead.terms.items()
  return plus(rest, sum_of(node), factor)

def normalise_sum(u: UOp) -> UOp:
  before = sum_of(u)
  while (after := recombine(before)) is not before: before = after
  return build(after)

# ---- quotient and remainder ------------------------------------------------------------------------------------------

def take_multiples(a: Sum, d: int) -> tuple[Sum, Sum]:
  """(whole, rest) with a = d * whole + rest and rest >= 0, and the least such constant in rest."""
  whole = {node: idiv(f, d) for node, f in a.terms.items() if abs(f) >= d}
  rest = {node: imod(f, d) for node, f in a.terms.items() if f % d}
  least = span(Sum(rest, a.constant))[0]
  return Sum(whole, least // d), Sum(rest, a.constant - d * (least // d))

def split(a: Sum, d: int) -> tuple[Sum, Sum]:
  """Quotient and remainder of a sum a >= 0 by d > 0. With a = g * whole + rest, 0 <= rest < g and g dividing d:
  a // d = whole // (d/g) and a % d = g * (whole % (d/g)) + rest."""
  quotient, remainder, scale = Sum({}, 0), Sum({}, 0), 1
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
  return plus(quotient, Sum({quotient_node(node, d): 1}, 0)), plus(remainder, Sum({remainder_node(node, d): scale}, 0))

def quotient_node(x: UOp, d: int) -> UOp:
  """x // d for x >= 0, with nested quotients in one."""
  inner, constant = (x.src[0], x.src[1].arg) if x.op is Ops.ADD and x.src[1].op is Ops.CONST else (x, 0)
  c = divisor(inner, Ops.IDIV)
  if c and bounds(inner.src[0])[0] >= 0: return build(plus(sum_of(inner.src[0]), Sum({}, constant * c))) // (c * d)
  c = divisor(x, Ops.MOD)
  if c and c % d == 0 and bounds(x.src[0])[0] >= 0: return (x.src[0] // d) % (c // d)         # x%(c*d)//d = x//d%c
  return x // d

def remainder_node(x: UOp, d: int) -> UOp:
  """x % d for x >= 0: x%(c*d)%d = x%d."""
  c = divisor(x, Ops.MOD)
  return x.src[0] % d if c and c % d == 0 and bounds(x.src[0])[0] >= 0 else x % d

def divide(u: UOp) -> UOp | None:
  """x // d and x % d by a constant, where x is never negative."""
  x, d = u.src[0], u.src[1]
  if d.op is not Ops.CONST or d.arg <= 0: return undivided(u)
  a = sum_of(x)
  if span(a)[0] < 0: return None
  quotient, remainder = split(a, d.arg)
  return build(quotient if u.op is Ops.IDIV else remainder)

def undivided(u: UOp) -> UOp | None:
  """x % d = x for 0 <= x < d; x // d is then a constant."""
  low, high = bounds(u.src[0])
  below = 0 <= low and high < bounds(u.src[1])[0]
  return u.src[0] if below and u.op is Ops.MOD else None

# ---- comparisons -----------------------------------------------------------------------------------------------------

def sides(a: Sum) -> tuple[Sum, Sum]:
  """(left, right) with a = left - right and only positive factors on each side; the constant is on neither."""
  left = {node: f for node, f in a.terms.items() if f > 0}
  right = {node: -f for node, f in a.terms.items() if f < 0}
  return Sum(left, 0), Sum(right, 0)

def less(u: UOp) -> UOp:
  """x < y as left < right + k, with the terms of a positive factor on the left, the others on the right."""
  x, y = u.src
  if x.op is Ops.RANGE and x.bound is y: return u.like(True)
  a = plus(sum_of(x), sum_of(y), -1)
  k = -a.constant
  a, k = coarsen(Sum(a.terms, 0), k)
  left, right = sides(a)
  if left.terms: return build(left) < build(Sum(right.terms, k))
  return UOp.const(dtypes.index, -k) < build(right)

def coarsen(a: Sum, k: int) -> tuple[Sum, int]:
  """a < k with a = g * whole + rest, 0 <= rest < g, k = g*q + t: whole < q where rest >= t, whole < q+1 where rest < t;
  and x // c < k is x < k * c."""
  factors = {abs(f) for f in a.terms.values()}
  for g in sorted((factors | {math.gcd(*factors)}) - {0, 1}, reverse=True):
    rest = Sum({node: f for node, f in a.terms.items() if f % g}, 0)
    low, high = span(rest)
    if high - low >= g: continue
    q, t = divmod(k - low, g)
    if high - low < t: q += 1
    elif t > 0: continue
    return coarsen_quotient(Sum({node: f // g for node, f in a.terms.items() if f % g == 0}, 0), q)
  return coarsen_quotient(a, k)

def coarsen_quotient(a: Sum, k: int) -> tuple[Sum, int]:
  """x // c < k = x < k*c, and -(x // c) < k = -x < k*c - (c - 1) where x >= 0."""
  if len(a.terms) != 1: return a, k
  (node, factor), = a.terms.items()
  c = divisor(node, Ops.IDIV)
  if c == 0 or abs(factor) != 1 or bounds(node.src[0])[0] < 0: return a, k
  x = sum_of(node.src[0])
  limit = k * c if factor == 1 else (k - 1) * c + 1
  return Sum({n: f * factor for n, f in x.terms.items()}, 0), limit - factor * x.constant

def differ(u: UOp) -> UOp:
  """x != y as left != right + k with the innermost term on the left; k * x != c is True where k does not divide c."""
  a = plus(sum_of(u.src[0]), sum_of(u.src[1]), -1)
  g = math.gcd(*a.terms.values())
  if g == 0: return u.like(a.constant != 0)
  if a.constant % g: return u.like(True)
  innermost = max(a.terms, key=order)
  scale = g if a.terms[innermost] > 0 else -g
  left, right = sides(Sum({node: f // scale for node, f in a.terms.items()}, 0))
  return build(left).ne(build(Sum(right.terms, -a.constant // scale)))

def not_less(x: UOp, y: UOp) -> UOp:
  """not x < y = y < x + 1."""
  return y < x + 1

def conjuncts(u: UOp) -> list[UOp]:
  """Conditions that together are u: a and b; not (a or b) = not a and not b."""
  out, stack = [], [u]
  while stack:
    c = stack.pop()
    denied = negated(c)
    if c.op is Ops.AND: stack.extend((c.src[1], c.src[0]))
    elif denied is not None and denied.op is Ops.OR: stack.extend((denied.src[1].not_(), denied.src[0].not_()))
    else: out.append(c)
  return dedup(out)

def negated(u: UOp) -> UOp | None:
  """x where u is not x."""
  is_not = u.op is Ops.CMPNE and u.src[0].dtype.kind == "b" and number(u.src[1]) is True
  return u.src[0] if is_not else None

def join(conditions: Iterable[UOp]) -> UOp:
  total = None
  for c in conditions: total = c if total is None else total & c
  return UOp.const(dtypes.bool, True) if total is None else total

def conjunction(u: UOp) -> UOp | None:
  """Each condition once, in order; x < 3 and x < 5 is x < 3; x and not x, and c1 < x < c2 with no room, are False."""
  conditions = [c for c in conjuncts(u) if not (c.op is Ops.CONST and c.arg)]
  present = set(conditions)
  if any(c.op is Ops.CONST for c in conditions): return u.like(False)
  if any(negated(c) in present for c in conditions): return u.like(False)
  below = [c for c in conditions if c.op is Ops.CMPLT and c.src[1].op is Ops.CONST]
  above = [c for c in conditions if c.op is Ops.CMPLT and c.src[0].op is Ops.CONST]
  lowest, highest = {c.src[0]: c for c in below}, {c.src[1]: c for c in above}
  for c in below: lowest[c.src[0]] = min(lowest[c.src[0]], c, key=lambda c: c.src[1].arg)
  for c in above: highest[c.src[1]] = max(highest[c.src[1]], c, key=lambda c: c.src[0].arg)
  for x in lowest:
    room = x not in highest or not is_integer(x.dtype) or lowest[x].src[1].arg - highest[x].src[0].arg > 1
    if not room: return u.like(False)
  weaker = (set(below) | set(above)) - set(lowest.values()) - set(highest.values())
  return join(sorted((c for c in conditions if c not in weaker), key=order))

# ---- casts: machine integers that cannot wrap are index arithmetic ---------------------------------------------------

def fits(u: UOp, dt: DType) -> bool:
  low, high = bounds(u)
  return dt is dtypes.index or (dt.min <= low and high <= dt.max)

def lifted(u: UOp) -> UOp | None:
  """The index node that the machine integer u is a cast of, where the cast keeps each value."""
  if u.op is Ops.CONST: return UOp.const(dtypes.index, u.arg)
  is_cast = u.op is Ops.CAST and u.src[0].dtype is dtypes.index
  return u.src[0] if is_cast and fits(u.src[0], u.dtype) else None

def lifted_sources(u: UOp) -> list[UOp] | None:
  values = u.src[1:] if u.op is Ops.WHERE else u.src
  new = [x for s in values if (x := lifted(s)) is not None]
  same = len(new) == len(values) and any(s.op is Ops.CAST for s in values)
  return [*u.src[:len(u.src) - len(values)], *new] if same else None

def lift(u: UOp) -> UOp | None:
  """op(cast x, cast y) = cast op(x, y) where that cannot wrap."""
  src = lifted_sources(u)
  if src is None or (u.op in (Ops.IDIV, Ops.MOD) and 0 in bounds(src[1])): return None
  on_index = src[0].alu(u.op, *src[1:])
  return on_index.cast(u.dtype) if fits(on_index, u.dtype) else None

def lift_comparison(u: UOp) -> UOp | None:
  """cast x < cast y = x < y."""
  src = lifted_sources(u)
  return None if src is None else src[0].alu(u.op, src[1])

def cast_between(u: UOp, x: UOp, between: UOp) -> UOp | None:
  """cast(cast(x, b), c) = cast(x, c) for integers, where b holds every value of x."""
  return x.cast(u.dtype) if is_integer(x.dtype) and fits(x, between.dtype) else None

def decide(u: UOp) -> UOp | None:
  """A node with one possible value is a constant."""
  if not is_integer(u.dtype): return None
  low, high = bounds(u)
  return u.like(low) if low == high else None

def larger(u: UOp, x: UOp, y: UOp) -> UOp | None:
  """max(x, y) = x where x is never below y."""
  if bounds(x)[0] >= bounds(y)[1]: return x
  return y if bounds(y)[0] >= bounds(x)[1] else None

def load_again_gated(c: UOp, x: UOp, gate: UOp, zero: UOp) -> UOp | None:
  """where(c, x, 0) = x for a load that is gated by c and maybe more: gated off, it is 0."""
  return x if zero is x.like(0) and set(conjuncts(c)) <= set(conjuncts(gate)) else None

index = dtypes.index
CAST_INTEGER = Pat(Ops.CAST, (Pat.var("x"),), dtype=is_integer, name="between")
GATED_LOAD = Pat(Ops.LOAD, (Pat(Ops.INDEX, (Pat(), Pat(), Pat.var("gate"))),), name="x")
x, y = Pat.var("x", index), Pat.var("y", index)
ARITHMETIC = (Ops.ADD, Ops.MUL, Ops.IDIV, Ops.MOD, Ops.MAX, Ops.WHERE)

simplify_index = Rules([
  (Pat(ALU - {Ops.BITCAST}, name="u"), decide),                                          # bounds leave one value
  (Pat((Ops.ADD, Ops.MUL), dtype=index, name="u"), normalise_sum),                       # like terms are combined
  (Pat((Ops.IDIV, Ops.MOD), dtype=index, name="u"), divide),                             # (3i + j) // 3 = i for j < 3
  (Pat(Ops.MAX, (x, y), name="u"), larger),                                              # max(x, y) = x for x >= y
  (Pat(Ops.CMPLT, (x, y), name="u"), lambda u, x, y: less(u)),                           # 3i + j < 3n is i < n
  (Pat(Ops.CMPNE, (x, y), name="u"), lambda u, x, y: differ(u)),                         # 3i + 3 != 3j is i + 1 != j
  (Pat(Ops.CMPNE, (Pat(Ops.CMPLT, (x, y)), Pat.const(value=True))), not_less),           # not x < y = y < x + 1
  (Pat(Ops.AND, dtype=dtypes.bool, name="u"), conjunction),                              # x and y and x = x and y
  (Pat(Ops.CAST, (CAST_INTEGER,), dtype=is_integer, name="u"), cast_between),            # cast(cast x) = cast x
  (Pat(ARITHMETIC, dtype=is_machine_integer, name="u"), lift),                           # cast x + cast y = cast(x + y)
  (Pat((Ops.CMPLT, Ops.CMPNE), (Pat.var("x", is_machine_integer), Pat.var("y")), name="u"),
   lambda u, x, y: lift_comparison(u)),                                                  # cast x < cast y = x < y
  (Pat(Ops.WHERE, (Pat.var("c"), GATED_LOAD, Pat.var("zero"))), load_again_gated),       # gated off, a load is 0
]) + fold

# ---- reductions that only look something up or count: kernel form ----------------------------------------------------

class Gated(NamedTuple):
  """A value that is zero unless all conditions hold; the conditions have been taken out of it."""
  conditions: list[UOp]
  value: UOp

def gated(u: UOp) -> Gated:
  """Takes the conditions out of where(c, value, 0), through casts and products that keep a zero a zero."""
  conditions: list[UOp] = []
  outer: list[Callable[[UOp], UOp]] = []
  while (step := ungate(u)) is not None:
    condition, u, around = step
    conditions += conjuncts(condition)
    outer.append(around)
  for around in reversed(outer): u = around(u)
  return Gated(dedup(c for c in conditions if c is not UOp.const(dtypes.bool, True)), u)

MAY_BE_GATED = (Ops.WHERE, Ops.CAST, Ops.MUL)

def ungate(u: UOp) -> tuple[UOp, UOp, Callable[[UOp], UOp]] | None:
  """(condition, x, around) with u = around(where(condition, x, 0)), one node at a time."""
  always = UOp.const(dtypes.bool, True)
  if u.op is Ops.WHERE and is_zero(u.src[2]): return u.src[0], u.src[1], lambda x: x
  if u.op is Ops.WHERE and is_zero(u.src[1]): return u.src[0].not_(), u.src[2], lambda x: x
  if u.op is Ops.CAST and u.src[0].dtype is dtypes.bool and is_condition(u.src[0]):
    return u.src[0], UOp.const(u.dtype, 1), lambda x: x
  if u.op is Ops.CAST and u.src[0].op in MAY_BE_GATED: return always, u.src[0], lambda x: x.cast(u.dtype)
  if u.op is Ops.MUL:
    for s, factor in sorted((u.src, u.src[::-1]), key=lambda pair: pair[0].op is not Ops.WHERE):
      if s.op in MAY_BE_GATED and keeps_zero(factor): return always, s, lambda x: x * factor
  return None

def is_zero(u: UOp) -> bool: return number(u) == 0
def is_condition(u: UOp) -> bool: return u.op in (Ops.AND, Ops.CMPLT, Ops.CMPNE)
def keeps_zero(u: UOp) -> bool:
  """0 * u = 0: u is an integer, a finite constant or the cast of an integer; a loaded float may be infinite or NaN."""
  value = number(u)
  if value is not None: return math.isfinite(value)
  return is_integer(u.dtype) or (u.op is Ops.CAST and is_integer(u.src[0].dtype) and u.dtype.bits >= 32)

def simplified(u: UOp) -> UOp: return rewrite(u, simplify_index)
def depends(u: UOp, r: UOp) -> bool: return r in u.toposort()

def equation(condition: UOp, r: UOp) -> Sum | None:
  """a with a = 0 where the condition is an equality of integers, linear in r and r nowhere else in it."""
  differs = negated(condition)
  if differs is None or differs.op is not Ops.CMPNE: return None
  return linear_in(differs.src[0], differs.src[1], r)

def linear_in(x: UOp, y: UOp, r: UOp) -> Sum | None:
  """x - y as a sum in which r is a term of its own and in no other, else None."""
  machine = is_integer(x.dtype) and x.dtype.count == 1 and x.dtype.kind != "b"
  if not machine or not (depends(x, r) or depends(y, r)): return None
  a = sum_of(rewrite(x.cast(dtypes.index) - y.cast(dtypes.index), simplify_index))
  return a if r in a.terms and not any(depends(node, r) for node in a.terms if node is not r) else None

def solve(a: Sum, r: UOp) -> tuple[UOp, list[UOp]]:
  """The r with a = 0, and the conditions under which the range has it."""
  factor = a.terms[r]
  rest = Sum({node: f for node, f in a.terms.items() if node is not r}, a.constant)
  e = build(plus(Sum({}, 0), rest, -1 if factor > 0 else 1))              # abs(factor) * r = e
  k = abs(factor)
  within = [(e < 0).not_(), e < r.bound * k, (e % k).eq(0)]
  return simplified(e // k), [simplified(c) for c in within]

def choose(u: UOp, r: UOp, e: UOp, within: UOp) -> UOp:
  """u with e for r; an element whose position depended on r is touched only where e is in the range."""
  new = {r: e}
  for node in u.toposort():
    if node in new: continue
    src = tuple([new[s] for s in node.src])
    if node.op is Ops.INDEX and src[1] is not node.src[1] and within.op is not Ops.CONST:
      src = (*src[:2], within & src[2] if len(src) > 2 else within)
    new[node] = node.with_src(src)
  return new[u]

def collapse_equal(u: UOp) -> UOp | None:
  """sum over r of where(r == e and c(r), value(r), 0) = where(0 <= e < n and c(e), value(e), 0)."""
  value, *ranges = u.src
  conditions, value = gated(value)
  for r in ranges:
    for condition in conditions:
      a = equation(condition, r)
      if a is None: continue
      e, limits_of_e = solve(a, r)
      within = simplified(join(limits_of_e))
      others = [choose(c, r, e, within) for c in conditions if c is not condition]
      chosen = choose(value, r, e, within)
      return reduce_over(simplified(join([within, *others])).where(chosen, 0), u, [r])
  return None

def reduce_over(value: UOp, u: UOp, done: list[UOp]) -> UOp:
  """The reduction u of value over the ranges that are left."""
  left = tuple(r for r in u.src[1:] if r not in done)
  return u.with_src((value, *left)) if left else value

def collapse_constant(u: UOp) -> UOp | None:
  """The sum over r of a value without r is value * n; its largest is the value."""
  value, *ranges = u.src
  below = set(value.toposort())
  absent = [r for r in ranges if r not in below and bounds(r.bound)[0] > 0]
  n = UOp.const(dtypes.index, 1)
  for r in absent: n = simplified(n * r.bound)
  if not absent or u.arg[0] is Ops.MUL or (u.arg[0] is Ops.ADD and not counts_exactly(u.dtype, n)): return None
  once = value * n.cast(u.dtype) if u.arg[0] is Ops.ADD else value
  return reduce_over(once, u, absent)

def counts_exactly(dt: DType, n: UOp) -> bool:
  """Whether dt holds n, or wraps as a sum of n values would."""
  return dt.kind in "uix" or (dt.kind == "f" and n.op is Ops.CONST and truncate(n.arg, dt) == n.arg)

def adds_exactly(u: UOp, n: UOp) -> bool:
  """Whether up to n values u add up to u * n bit for bit."""
  value = number(u)
  if u.dtype.kind in "uix": return True
  whole = u.dtype.kind == "f" and value is not None and math.isfinite(value) and value == int(value)
  return whole and abs(value) * bounds(n)[1] <= 2 ** MANTISSA[u.dtype.name]

class Ends(NamedTuple):
  """first <= r < stop for each of both."""
  firsts: list[UOp]
  stops: list[UOp]

def ends_of(condition: UOp, r: UOp) -> Ends | None:
  """The condition as an end of r: r + e < 0 is r < -e, e - r < 0 is e + 1 <= r, and their opposites."""
  denied = negated(condition)
  comparison = condition if denied is None else denied
  if comparison.op is not Ops.CMPLT: return None
  a = linear_in(comparison.src[0], comparison.src[1], r)
  if a is None or abs(a.terms[r]) != 1: return None
  rest = Sum({node: f for node, f in a.terms.items() if node is not r}, a.constant)
  if a.terms[r] > 0: end = build(plus(Sum({}, 0), rest, -1))
  else: end = build(plus(rest, Sum({}, 1)))
  is_stop = (a.terms[r] > 0) == (denied is None)
  return Ends([], [end]) if is_stop else Ends([end], [])

def collapse_count(u: UOp) -> UOp | None:
  """sum over r of where(first <= r < stop, c, 0) = c * max(0, min(n, stop) - max(0, first)) for an integer c."""
  value, *ranges = u.src
  conditions, value = gated(value)
  for r in ranges:
    touching = [c for c in conditions if depends(c, r)]
    if not touching or depends(value, r) or not adds_exactly(value, r.bound): continue
    ends = [e for c in touching if (e := ends_of(c, r)) is not None]
    if len(ends) < len(touching): continue
    first, stop = UOp.const(dtypes.index, 0), r.bound
    for e in ends:
      for end in e.firsts: first = first.maximum(end)
      for end in e.stops: stop = stop.minimum(end)
    count = simplified((stop - first).maximum(0)).cast(value.dtype)
    others = [c for c in conditions if c not in touching]
    return reduce_over(join(others).where(value * count, 0), u, [r])
  return None

def of_kernel(arg: Any) -> bool: return arg[1] == ()
def adds(arg: Any) -> bool: return arg == (Ops.ADD, ())

collapse_onehot = Rules([(Pat(Ops.REDUCE, arg=adds, name="u"), collapse_equal)])     # a one-hot sum is a load

collapse_range = Rules([
  (Pat(Ops.REDUCE, arg=of_kernel, name="u"), collapse_constant),                              # n times x is x * n
  (Pat(Ops.REDUCE, arg=adds, name="u"), collapse_count),                             # how many r < e is e
])

# ---- strides ---------------------------------------------------------------------------------------------------------

def stride_of(position: UOp, r: UOp) -> int | None:
  """How far position moves when r grows by one; None where that is no constant."""
  if position is r: return 1
  if r not in position.toposort(): return 0
  if position.op is Ops.ADD:
    strides = [stride_of(s, r) for s in position.src]
    return None if None in strides else sum(s for s in strides if s is not None)
  if position.op is Ops.MUL and position.src[1].op is Ops.CONST:
    stride = stride_of(position.src[0], r)
    return None if stride is None else stride * position.src[1].arg
  return None
