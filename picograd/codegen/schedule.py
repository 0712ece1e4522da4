# schedule.py: stores -> kernels in an order that respects every read and write, stores over the same ranges merged into
# one loop nest, nests that pass rows to one another into one kernel. In: a Plan of rangeify. Out: Kernels; each names
# its buffers by slot, and two kernels of equal structure are the same UOp, so that identical layers compile once.
# (chapter 3)
from __future__ import annotations
import functools
from typing import Callable, NamedTuple
from picograd.codegen.partial import split_long_reductions
from picograd.codegen.places import find_places, simplify_kernel
from picograd.codegen.rangeify import Plan, Store, loops_of, ranges_of, rangeify, reads_of, storage_id, without_casts
from picograd.codegen.rows import Nest, Row, Run, join_rows, row_of
from picograd.codegen.target import Target
from picograd.codegen.turned import with_rows_to_read
from picograd.dtype import dtypes
from picograd.helpers import dedup, prod
from picograd.ops.match import rewrite
from picograd.ops.ops import ALU, Buf, Ops, Space
from picograd.ops.uop import Table, UOp, ranges_inside, substitute, toposort

class Kernel(NamedTuple):
  ast: UOp                     # SINK(END(STORE(INDEX(PARAM(slot), position), value), *ranges), ...)
  buffers: tuple[UOp, ...]     # the BUFFER leaf of each slot
  outputs: frozenset[int]      # the slots that are written

class Schedule(NamedTuple):
  kernels: list[Kernel]
  results: list[UOp | None]    # for each root the BUFFER leaf that holds it; None for an assignment
  temporary: set[UOp]          # leaves that hold neither input nor result

PLAIN = Target("plain")

def schedule(roots: list[UOp], device: str, target: Target = PLAIN) -> Schedule:
  """The kernels that compute the roots."""
  roots = with_rows_to_read(split_long_reductions(roots, target), target)
  plan = planned(roots, device, target)
  order = sort_by_need(dependencies(plan))
  if order is None:
    plan = planned(with_old_versions_copied(roots), device, target)
    order = sort_by_need(dependencies(plan))
    assert order is not None, "copies of old versions leave no cycle"
  groups, needs = merge(plan, order)
  results, temporary = places_of_values(plan)
  nests = without_unread([group.stores for group in groups], plan, temporary)
  runs = join_rows(nests, needs, plan, target)
  return Schedule([kernel_of(run, plan) for run in runs], results, temporary)

def planned(roots: list[UOp], device: str, target: Target) -> Plan:
  plan = find_places(rangeify(roots, device, target), target)
  stores, = without_unread([plan.stores], plan, places_of_values(plan)[1])
  return plan._replace(stores=stores)

def places_of_values(plan: Plan) -> tuple[list[UOp | None], set[UOp]]:
  """For each root the leaf that holds it, None for an assignment; and the leaves of all other values."""
  stored = {s.node: plan.leaves[s.target.arg] for s in plan.stores if s.node.op is not Ops.STORE}
  results = [stored.get(r) for r in plan.roots]
  return results, set(stored.values()) - set(results)

def without_unread(nests: list[Nest], plan: Plan, temporary: set[UOp]) -> list[Nest]:
  """The nests without stores to temporary memory that nobody reads: readers have joined them, or need no value."""
  while True:
    read = {plan.leaves[k] for nest in nests for store in nest for k in reads_of(store)}
    unread = temporary - read
    kept = [[store for store in nest if plan.leaves[store.target.arg] not in unread] for nest in nests]
    if kept == nests: return nests
    nests = kept

# ---- order -----------------------------------------------------------------------------------------------------------

def dependencies(plan: Plan) -> list[set[int]]:
  """For each store, those that must run before it: the writers of what it reads, the readers of what it overwrites, and
  earlier stores of the same node."""
  writers: dict[UOp, list[int]] = {}              # leaf, or STORE of an AFTER -> the stores that make it, in order
  readers: dict[int, list[int]] = {}
  made = [s.node if s.node.op is Ops.STORE else plan.leaves[s.target.arg] for s in plan.stores]
  for i, s in enumerate(plan.stores):
    writers.setdefault(made[i], []).append(i)
    for k in reads_of(s): readers.setdefault(k, []).append(i)
  def writers_of(k: int) -> list[int]:
    leaf = plan.leaves[k]
    makers = leaf.src[1:] if leaf.op is Ops.AFTER else (leaf,)
    return [w for m in makers for w in writers.get(m, ())]
  needs: list[set[int]] = []
  for i, s in enumerate(plan.stores):
    need = {w for k in reads_of(s) for w in writers_of(k)}
    if s.node.op is Ops.STORE: need.update(writers_of(s.target.arg), readers.get(s.target.arg, ()))
    own = writers[made[i]]
    needs.append(need - set(own) | {w for w in own if w < i})
  return needs

def sort_by_need(needs: list[set[int]]) -> list[int] | None:
  """An order in which each comes after what it needs, earlier numbers first; None if there is none."""
  order: list[int] = []
  done: set[int] = set()
  entered: set[int] = set()
  stack = list(reversed(range(len(needs))))
  while stack:
    i = stack[-1]
    missing = sorted(needs[i] - done)
    if i in done or not missing:
      stack.pop()
      if i not in done: order.append(i)
      done.add(i)
      continue
    if i in entered: return None                  # back at i while something it needs is still waiting for it
    entered.add(i)
    stack.extend(reversed(missing))
  return order

# ---- merging ---------------------------------------------------------------------------------------------------------

NEARBY = 64              # how many groups back a store looks for one to join
DEEP = 320               # steps of a contraction from which on the work of another pass over its results is little
LARGEST_GROUP = 1000     # nodes of a kernel beyond which it takes no more stores: compilers take more than linear time

class Group:
  """Stores that share one loop nest, and the memory they touch."""
  def __init__(self, plan: Plan):
    self.plan = plan
    self.stores: list[Store] = []
    self.memory: set[int] = set()
    self.nodes = 0
    self.is_deep = False

  def add(self, store: Store) -> None:
    self.stores.append(store)
    self.memory |= memory_of(store, self.plan)
    self.nodes += len(toposort([store.value]))
    self.is_deep = self.is_deep or is_deep_product(store)

  def may_take(self, store: Store) -> bool:
    """Whether it is worth looking closer: room, equal extents, common memory."""
    if self.nodes > LARGEST_GROUP or self.is_deep or extents(self.stores[0]) != extents(store): return False
    return not self.memory.isdisjoint(memory_of(store, self.plan))

def memory_of(store: Store, plan: Plan) -> set[int]:
  """The memory that a store reads or writes."""
  return {storage_id(plan.leaves[k]) for k in (store.target.arg, *reads_of(store))}

def loops(store: Store) -> list[UOp]:
  return [r for r in store.dims if r.op is Ops.RANGE]
def extents(store: Store) -> list[int]: return [r.bound.arg for r in loops(store)]
def has_reduce(store: Store) -> bool:
  return any(u.op is Ops.REDUCE for u in toposort([store.value]))

def is_deep_product(store: Store) -> bool:
  """Whether a store is a contraction so deep that it is best computed in blocks, which leave sums in its output."""
  for u in toposort([store.value]):
    if u.op is not Ops.REDUCE or prod(r.bound.arg for r in u.src[1:] if r.bound.op is Ops.CONST) < DEEP: continue
    product = without_casts(u.src[0])
    if product.op is Ops.MUL and len({loops_of(ranges_of((s,))) for s in product.src}) > 1: return True
  return False

def merge(plan: Plan, order: list[int]) -> tuple[list[Group], list[set[int]]]:
  """Groups in order, and the groups that each needs. A store without a reduction joins the latest group over equal
  extents that it may join; all that it needs is in that group or before it, so the order of the groups stays right."""
  needs = dependencies(plan)
  groups: list[Group] = []
  home: dict[int, int] = {}                       # store -> its group
  for i in order:
    store = plan.stores[i]
    home[i] = len(groups)
    first = max([len(groups) - NEARBY, 0, *[home[j] for j in needs[i]]])
    for g in [] if has_reduce(store) else range(len(groups) - 1, first - 1, -1):
      member = joined(store, groups[g]) if groups[g].may_take(store) else None
      if member is None: continue
      home[i], store = g, member
      break
    if home[i] == len(groups): groups.append(Group(plan))
    groups[home[i]].add(store)
  above: list[set[int]] = [set() for _ in groups]
  for i, g in home.items(): above[g].update({home[j] for j in needs[i]} - {g})
  return groups, above

def over_ranges_of(store: Store, first: Store) -> Store:
  """The same store written over another store's ranges, matched dimension by dimension."""
  table = dict(zip(loops(store), loops(first)))
  return store.over(table)._replace(dims=first.dims, ranges=first.ranges)

def joined(store: Store, group: Group) -> Store | None:
  """store as a member of group, or None if that would be wrong or useless. Useful: they share a load, or one's result
  need not be loaded again."""
  moved, plan = over_ranges_of(store, group.stores[0]), group.plan
  mine = reads_of(moved)
  useful = False
  forward: Table = {}                    # LOAD of what the group stores -> the value itself
  for member in group.stores:
    theirs = reads_of(member)
    if disturbs(member, mine, plan) or disturbs(moved, theirs, plan): return None
    if writes(member, moved.target.arg, plan) and not same_place(member, moved.address): return None
    for k, places in mine.items():
      shared = any(u in places for u in theirs.get(k, ()))
      useful = useful or shared or writes(member, k, plan)
      if makes(member, plan.leaves[k], plan): forward[places[0].load()] = member.value
  if not useful: return None
  return moved._replace(value=moved.value.substitute(forward))

def writes(store: Store, k: int, plan: Plan) -> bool:
  """Whether a store writes the memory behind PARAM k."""
  return storage_id(plan.leaves[store.target.arg]) == storage_id(plan.leaves[k])

def disturbs(store: Store, reads: dict[int, list[UOp]], plan: Plan) -> bool:
  """Whether a store in the same loop writes elements that are read in another step of it: reads must be plain ones of
  the very element that is written."""
  places = [u for k, found in reads.items() if writes(store, k, plan) for u in found]
  return any(not same_place(store, u) or len(u.src) > 2 for u in places)

def same_place(store: Store, address: UOp) -> bool:
  """Whether an address is the very element of the memory that a store writes, under the same gate."""
  return store.address.src[1:] == address.src[1:]

def makes(store: Store, leaf: UOp, plan: Plan) -> bool:
  """Whether leaf is what the store has stored, not the memory before or after other assignments."""
  if store.node.op is Ops.STORE: return leaf.op is Ops.AFTER and store.node in leaf.src
  return plan.leaves[store.target.arg] is leaf

# ---- kernels ---------------------------------------------------------------------------------------------------------

def kernel_of(run: Run, plan: Plan) -> Kernel:
  """The kernel of a run: PARAMs numbered by slot, ranges numbered from 0, indices simplified."""
  outer = run.nests[0][0].ranges[:run.shared]
  stores = [over_outer(s, outer) for nest in run.nests for s in last_stores(nest, plan)]
  ends = [s.effect.end(*s.ranges[len(outer):]) for s in stores]
  ends = in_scratch(ends, {k for k, leaf in enumerate(plan.leaves) if leaf in run.scratch}, outer)
  if outer: ends = [UOp(Ops.END, dtypes.void, (*ends, *outer))]
  nodes = toposort(ends)
  params = [u for u in nodes if u.op is Ops.PARAM]
  memory = {u: storage_id(plan.leaves[u.arg]) for u in params}
  slots = {number: slot for slot, number in enumerate(dedup(memory.values()))}
  table = {u: u.replace(arg=slots[memory[u]]) for u in params}
  ranges = dedup([*stores[0].ranges, *[u for u in nodes if u.op is Ops.RANGE]])
  for number, r in enumerate(ranges): table[r] = r.replace(arg=(number, r.axis))
  ast = simplified(UOp.sink(*substitute(ends, table)))
  leaves = {slots[memory[u]]: base_leaf(plan.leaves[u.arg]) for u in params}
  outputs = frozenset(slots[memory[s.target]] for s in stores if s.target in memory)
  return Kernel(ast, tuple([leaves[slot] for slot in range(len(slots))]), outputs)

@functools.lru_cache(256)
def simplified(ast: UOp) -> UOp:
  """Equal layers are simplified once."""
  return rewrite(ast, simplify_kernel)

def last_stores(nest: Nest, plan: Plan) -> list[Store]:
  """Of several stores of a nest to a place only the last counts: who needs an earlier value has been given it."""
  return list({(storage_id(plan.leaves[s.target.arg]), *s.address.src[1:]): s for s in nest}.values())

def over_outer(store: Store, outer: tuple[UOp, ...]) -> Store:
  """The store with its outer loops replaced by these."""
  return store.over(dict(zip(store.ranges, outer)))._replace(ranges=outer + store.ranges[len(outer):])

def in_scratch(ends: list[UOp], scratch: set[int], outer: tuple[UOp, ...]) -> list[UOp]:
  """The stores with the numbered PARAMs as arrays of the kernel's own, which hold one row."""
  new: Table = {}
  sizes: dict[UOp, int] = {}
  rows: dict[UOp, Row] = {}
  for u in toposort(ends):
    row = row_of(u, outer) if u.op is Ops.INDEX and u.src[0].arg in scratch else None
    if row is not None: rows[u] = row
  for u, row in rows.items(): sizes[u.src[0]] = max(row.size, sizes.get(u.src[0], 0))
  arrays = {param: UOp(Ops.BUFFER, param.dtype, (), Buf(number, sizes[param], Space.LOCAL))
            for number, param in enumerate(sizes)}
  for u in toposort(ends):
    src = tuple([new[s] for s in u.src])
    if u in rows: src = (arrays[u.src[0]], rows[u].place.substitute(new), *src[2:])
    new[u] = u.with_src(src)
  return [new[end] for end in ends]

def base_leaf(leaf: UOp) -> UOp:
  while leaf.op is not Ops.BUFFER: leaf = leaf.src[0]
  return leaf

def operations(kernel: Kernel) -> int:
  """Floating-point operations of one run: each node as often as the ranges it depends on go round."""
  total = 0
  for u, ranges in ranges_inside(kernel.ast).items():
    if u.op is Ops.REDUCE: ranges |= frozenset(u.src[1:])
    if u.dtype.kind == "f" and u.op in COUNTED: total += prod(r.bound.arg for r in ranges)
  return total

COUNTED = (ALU | {Ops.REDUCE}) - {Ops.WHERE, Ops.CAST, Ops.BITCAST}

def bytes_moved(kernel: Kernel) -> int:
  """The least a run must move: every buffer once, written ones that are also read twice."""
  loads = [u for u in toposort([kernel.ast]) if u.op is Ops.LOAD]
  read = {u.src[0].src[0] for u in loads if u.src[0].src[0].op is Ops.PARAM}
  slots = [*{param.arg for param in read}, *kernel.outputs]
  return sum(kernel.buffers[k].arg.size * kernel.buffers[k].dtype.itemsize for k in slots)

# ---- a value from before and after an assignment in one kernel -------------------------------------------------------

def with_old_versions_copied(roots: list[UOp]) -> list[UOp]:
  """The roots where each value that is assigned to is read from a copy: needed when a kernel reads a value from before
  and after an assignment, as in `y = x * 2; x += 1; y + x`."""
  order = toposort(roots)
  assigned = {u.src[0] for u in order if u.op is Ops.AFTER}
  new: Table = {}                                 # node -> what reads it
  memory: Table = {}                              # node -> where it is stored
  for u in order:
    src = [new[s] for s in u.src]
    if u.op in (Ops.AFTER, Ops.STORE): src[0] = over_memory(u.src[0], memory.__getitem__)
    new[u] = memory[u] = u.with_src(tuple(src))
    if u in assigned: new[u] = UOp(Ops.CONTIGUOUS, u.dtype, (memory[u],))
  return [memory[u] for u in roots]

def over_memory(view: UOp, memory: Callable[[UOp], UOp]) -> UOp:
  """The view that an assignment writes through: over the memory itself, not over a copy of what it sees."""
  chain = []
  while view.op not in (Ops.BUFFER, Ops.AFTER):
    chain.append(view)
    view = view.src[0]
  base = memory(view)
  for step in reversed(chain): base = step.with_src((base,))
  return base
