# places.py: loops that look for a place become stores to it. In and out: a plan of rangeify. x[e] = v comes as an
# assignment to every place, x[n] = where(n == e, v, x[n]); what is added up at places e(b), as in the gradient of an
# embedding, comes as x[n] = the sum over b of where(n == e(b), v(b), 0). Both say what e is: no n need be tried.
# (chapter 3)
from __future__ import annotations
from picograd.codegen.rangeify import Plan, Store, ZERO, storage_id
from picograd.codegen.target import Target
from picograd.ops.collapse import choose, collapse_onehot, equation, gated, solve
from picograd.ops.index import join, simplify_index
from picograd.ops.match import rewrite
from picograd.ops.ops import Axis, Ops
from picograd.ops.uop import UOp, toposort

FEWEST_PLACES = 16       # with fewer, trying every place for each value is as fast, and threads can share it

simplify_kernel = collapse_onehot + simplify_index

def find_places(plan: Plan, target: Target) -> Plan:
  """The plan with stores to computed places, where the target adds to memory in order, or by threads at once."""
  def found(store: Store) -> list[Store]:
    if target.scratch_bytes and not target.local_bytes: return added_up(one_element(store), plan)
    if store.value.dtype not in target.atomic_adds: return [one_element(store)] if target.local_bytes else [store]
    return [with_addition(s) for s in added_up(one_element(store), plan)]
  return plan._replace(stores=[s for store in plan.stores for s in found(store)])

def with_addition(store: Store) -> Store:
  """x[e(b)] += v(b) as an update of x, in any order of the b."""
  place = store.address.load()
  if store.value.op is not Ops.ADD or store.value.src[0] is not place or not reads_memory(store.address): return store
  free = {r: r.replace(arg=(r.arg[0], Axis.LOOP)) for r in store.ranges}
  ranges = tuple(free.values())
  value = store.value.src[1].substitute(free)
  return store.over(free)._replace(value=value, dims=ranges, ranges=ranges, update=Ops.ADD)

def reads_memory(address: UOp) -> bool:
  return any(u.op is Ops.LOAD for u in toposort([address]))

def one_element(store: Store) -> Store:
  """x[n] = where(n == e, v, x[n]) for every n is x[e] = v."""
  if store.node.op is not Ops.STORE or store.value.op is not Ops.WHERE or not store.ranges: return store
  nest = rewrite(store.address.store(store.value).end(*store.ranges), simplify_kernel)
  loops = nest.src[1:] if nest.op is Ops.END else ()
  if len(loops) == len(store.ranges): return store
  address, value = (nest.src[0] if nest.op is Ops.END else nest).src
  dims = tuple([r if r in loops or r.op is not Ops.RANGE else ZERO for r in store.dims])
  return store._replace(address=address, value=value, dims=dims, ranges=tuple([r for r in store.ranges if r in loops]))

def added_up(store: Store, plan: Plan) -> list[Store]:
  """x[n] = base + the sum over b of where(n == e(b), v(b), 0) is x[n] = base, then x[e(b)] += v(b), b by b."""
  terms = terms_of(store.value)
  for u in terms:
    if u.op is not Ops.REDUCE or u.arg[0] is not Ops.ADD or not chooses_by_data(u): continue
    simple = rewrite(u, simplify_kernel)
    scatter = scatter_of(simple, store, terms.count(u)) if simple.op is Ops.REDUCE else None
    if scatter is None or reads_itself(u, store, plan): continue
    rest = [term for term in terms if term is not u] or [UOp.const(u.dtype, 0)]
    if rest == [store.address.load()]: return [scatter]
    return [*added_up(store._replace(value=sum(rest[1:], rest[0])), plan), scatter]
  return [store]

def reads_itself(u: UOp, store: Store, plan: Plan) -> bool:
  """Whether a value reads the memory that is assigned to."""
  read = {storage_id(plan.leaves[v.src[0].arg]) for v in toposort([u]) if v.op is Ops.INDEX}
  return storage_id(plan.leaves[store.target.arg]) in read

def terms_of(u: UOp) -> list[UOp]:
  """u = the sum of these."""
  return [term for s in u.src for term in terms_of(s)] if u.op is Ops.ADD else [u]

def chooses_by_data(u: UOp) -> bool:
  """Whether a comparison below u is with an integer from memory."""
  tests = (c for c in toposort([u]) if c.op is Ops.CMPNE and c.src[0].dtype.is_int)
  return any(v.op is Ops.LOAD for c in tests for v in toposort([c]))

def scatter_of(u: UOp, store: Store, times: int) -> Store | None:
  """The store of x[e(b)] + v(b) * times for each b, where u is the sum over b of where(n == e(b), v(b), 0). It is in
  loops of its own: what it adds to, and what other sums over b add, are other nests."""
  conditions, value = gated(u.src[0])
  for r in store.ranges:
    if r.bound.arg < FEWEST_PLACES: continue
    for condition in conditions:
      a = equation(condition, r)
      if a is None: continue
      e, within = solve(a, r)
      others = [choose(c, r, e, within) for c in conditions if c is not condition]
      memory, position, *gates = choose(store.address, r, e, within).src
      address = memory.index(position, rewrite(join([*gates, *others]), simplify_index))
      added = choose(value, r, e, within)
      total = address.load() + (added if times == 1 else added * times)
      at = store.ranges.index(r)
      ranges = store.ranges[:at] + u.src[1:] + store.ranges[at + 1:]
      own = {q: UOp.range(q.bound.arg, q.axis) for q in ranges}
      dims = tuple(own.values())
      return store._replace(address=address, value=total).over(own)._replace(dims=dims, ranges=dims)
  return None
