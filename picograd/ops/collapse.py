# collapse.py: a sum that only looks something up becomes a load, a loop that only changes one element a store. A gather
# is written as the one-hot sum over r of where(r == e, x[r], 0): solved for r, that is where(0 <= e < n, x[e], 0). An
# assignment to x[e] is written as x[r] = where(r == e, v, x[r]) for every r: that is x[e] = v where 0 <= e < n. In and
# out: kernel form.
from __future__ import annotations
import math
from picograd.dtype import dtypes
from picograd.helpers import dedup
from picograd.ops.fold import is_integer, number
from picograd.ops.index import Sum, build, conjuncts, difference, join, negated, plus, simplify_index
from picograd.ops.match import Pat, Rules, rewrite
from picograd.ops.ops import Ops
from picograd.ops.uop import UOp, toposort

def simplified(u: UOp) -> UOp: return rewrite(u, simplify_index)

# ---- conditions: a value that is zero unless they hold ---------------------------------------------------------------

MAY_BE_GATED = (Ops.WHERE, Ops.CAST, Ops.MUL)
CONDITIONS = (Ops.AND, Ops.CMPLT, Ops.CMPNE)

def gated(u: UOp) -> tuple[list[UOp], UOp]:
  """(conditions, value) with u = where(all conditions, value, 0)."""
  conditions, around = [], []
  while (step := ungate(u)) is not None:
    found, x = step
    conditions += found
    if not found: around.append((u, x))
    u = x
  for node, x in reversed(around): u = node.with_src(tuple([u if s is x else s for s in node.src]))
  return dedup(conditions), u

def ungate(u: UOp) -> tuple[list[UOp], UOp] | None:
  """(conditions, x) with u = where(conditions, x, 0); or none, and u is a cast or product, 0 where x is."""
  if u.op is Ops.WHERE:
    condition, yes, no = u.src
    if number(no) == 0: return conjuncts(condition), yes
    if number(yes) == 0: return conjuncts(condition.not_()), no
  if u.op is Ops.CAST:
    x = u.src[0]
    if x.dtype is dtypes.bool and x.op in CONDITIONS: return conjuncts(x), u.like(1)
    if x.op in MAY_BE_GATED: return [], x
  if u.op is Ops.MUL:
    for x, factor in sorted((u.src, u.src[::-1]), key=lambda pair: pair[0].op is not Ops.WHERE):
      if x.op in MAY_BE_GATED and keeps_zero(factor): return [], x
  return None

def keeps_zero(u: UOp) -> bool:
  """0 * u = 0: u is an integer, a finite constant or the cast of an integer; a loaded float may be infinite or NaN."""
  value = number(u)
  if value is not None: return math.isfinite(value)
  return is_integer(u.dtype) or (u.op is Ops.CAST and is_integer(u.src[0].dtype) and u.dtype.bits >= 32)

# ---- equations -------------------------------------------------------------------------------------------------------

def equation(condition: UOp, r: UOp) -> Sum | None:
  """a with a = 0 where the condition is an equality of integers that is linear in r."""
  differs = negated(condition)
  if differs is None or differs.op is not Ops.CMPNE or r not in differs.toposort(): return None
  if not all(s.dtype.is_int and s.dtype.count == 1 for s in differs.src): return None
  x, y = (s.cast(dtypes.index) for s in differs.src)
  a = difference(simplified(x - y), UOp.const(dtypes.index, 0))
  others = [node for node in a.terms if node is not r]
  return a if r in a.terms and r not in toposort(others) else None

def solve(a: Sum, r: UOp) -> tuple[UOp, UOp]:
  """The r with a = 0, and the condition under which the range has it."""
  k = abs(a.terms[r])
  rest = plus(a, Sum({r: a.terms[r]}), -1)
  e = build(plus(Sum({}), rest, -a.terms[r] // k))                             # k * r = e
  within = [(e < 0).not_(), e < r.bound * k, (e % k).eq(0)]
  return simplified(e // k), simplified(join(within))

def choose(u: UOp, r: UOp, e: UOp, within: UOp) -> UOp:
  """u with e for r; an element whose position depended on r is touched only where e is in the range."""
  new = {r: e}
  for node in u.toposort():
    if node in new: continue
    src = tuple([new[s] for s in node.src])
    moved = node.op is Ops.INDEX and src[1] is not node.src[1]
    if moved and number(within) is None: src = (*src[:2], join([within, *src[2:]]))
    new[node] = node.with_src(src)
  return new[u]

def collapse_equal(u: UOp) -> UOp | None:
  """sum over r of where(r == e and c(r), value(r), 0) = where(0 <= e < n and c(e), value(e), 0)."""
  conditions, value = gated(u.src[0])
  for r in u.src[1:]:
    for condition in conditions:
      a = equation(condition, r)
      if a is None: continue
      e, within = solve(a, r)
      others = [choose(c, r, e, within) for c in conditions if c is not condition]
      chosen = simplified(join([within, *others])).where(choose(value, r, e, within), 0)
      left = tuple(other for other in u.src[1:] if other is not r)
      return u.with_src((chosen, *left)) if left else chosen
  return None

def collapse_store(u: UOp) -> UOp | None:
  """x[r] = where(r == e and c(r), v(r), x[r]) for every r is x[e] = v(e) where 0 <= e < n and c(e)."""
  store, *ranges = u.src
  if store.op is not Ops.STORE: return None
  conditions, value = what_changes(*store.src)
  for r in ranges:
    for condition in conditions:
      a = equation(condition, r)
      if a is None: continue
      e, within = solve(a, r)
      memory, position, *gates = choose(store.src[0], r, e, within).src
      others = [choose(c, r, e, within) for c in conditions if c is not condition]
      address = memory.index(position, simplified(join([*gates, *others])))
      return address.store(choose(value, r, e, within)).end(*[other for other in ranges if other is not r])
  return None

def what_changes(address: UOp, value: UOp) -> tuple[list[UOp], UOp]:
  """(conditions, x) where the store of value is the store of x where all conditions hold: else what is there stays."""
  if value.op is not Ops.WHERE: return [], value
  condition, yes, no = value.src
  if no is address.load(): return conjuncts(condition), yes
  if yes is address.load(): return conjuncts(condition.not_()), no
  return [], value

collapse_onehot = Rules([
  (Pat(Ops.REDUCE, arg=(Ops.ADD, ()), name="u"), collapse_equal),                   # a one-hot sum is a load
  (Pat(Ops.END, name="u"), collapse_store),                                         # a one-hot store is a store
])
