# schedule.py: stores -> kernels in an order that respects every read and write, stores over the same ranges merged into one
# kernel. In: a Plan of rangeify. Out: Kernels; each names its buffers by slot, and two kernels of equal structure are the
# same UOp, so that identical layers compile once.   (chapter 3)
from __future__ import annotations
from typing import NamedTuple
from picograd.codegen.rangeify import Plan, Store, rangeify, storage_id
from picograd.helpers import dedup, prod
from picograd.ops.collapse import collapse_onehot
from picograd.ops.index import simplify_index
from picograd.ops.match import rewrite
from picograd.ops.ops import Ops
from picograd.ops.uop import UOp, substitute, toposort

class Kernel(NamedTuple):
  ast: UOp                     # SINK(END(STORE(INDEX(PARAM(slot), position), value), *ranges), ...)
  buffers: tuple[UOp, ...]     # the BUFFER leaf of each slot
  outputs: frozenset[int]      # the slots that are written

class Access(NamedTuple):
  """What one store touches: PARAM numbers, each at the positions where it is read."""
  reads: dict[int, list[UOp]]
  writes: int

def access_of(store: Store) -> Access:
  reads: dict[int, list[UOp]] = {}
  for u in toposort([store.value, store.position]):
    if u.op is Ops.INDEX: reads.setdefault(u.src[0].arg, []).append(u)
  return Access(reads, store.target.arg)

# ---- order -----------------------------------------------------------------------------------------------------------

def dependencies(plan: Plan) -> list[set[int]]:
  """For each store, the stores that must run before it: the writers of what it reads, and the readers of what it overwrites."""
  accesses = [access_of(s) for s in plan.stores]
  writer: dict[UOp, int] = {}                     # leaf as its readers know it -> the store that makes it
  for i, s in enumerate(plan.stores): writer[s.node if s.node.op is Ops.STORE else plan.leaves[s.target.arg]] = i
  def writers_of(leaf: UOp) -> list[int]:
    if leaf.op is Ops.AFTER: return [writer[effect] for effect in leaf.src[1:]]
    return [writer[leaf]] if leaf in writer else []
  readers: dict[int, list[int]] = {}
  for i, access in enumerate(accesses):
    for k in access.reads: readers.setdefault(k, []).append(i)
  needs: list[set[int]] = []
  for i, (s, access) in enumerate(zip(plan.stores, accesses)):
    need = {w for k in access.reads for w in writers_of(plan.leaves[k])}
    if s.node.op is Ops.STORE:
      need.update(writers_of(plan.leaves[access.writes]))
      need.update(readers.get(access.writes, ()))
    needs.append(need - {i})
  return needs

def sort_by_need(needs: list[set[int]]) -> list[int] | None:
  """An order in which each comes after what it needs, earlier numbers first; None if there is none."""
  done: set[int] = set()
  order: list[int] = []
  for start in range(len(needs)):
    stack, path = [start], set()
    while stack:
      i = stack[-1]
      if i in done:
        stack.pop()
        continue
      missing = sorted(j for j in needs[i] if j not in done)
      if not missing:
        done.add(i)
        order.append(i)
        path.discard(i)
        stack.pop()
        continue
      path.add(i)
      if any(j in path for j in missing): return None
      stack.extend(reversed(missing))
  return order

# ---- merging ---------------------------------------------------------------------------------------------------------

class Group:
  """Stores that share one loop nest, and the memory they touch."""
  def __init__(self, plan: Plan):
    self.plan = plan
    self.stores: list[Store] = []
    self.memory: set[int] = set()
    self.nodes = 0

  def add(self, store: Store) -> None:
    self.stores.append(store)
    self.memory |= memory_of(store, self.plan)
    self.nodes += len(toposort([store.value]))

LARGEST_GROUP = 1000     # nodes of a kernel beyond which it takes no more stores: compilers take more than linear time

def memory_of(store: Store, plan: Plan) -> set[int]:
  """The memory that a store reads or writes."""
  access = access_of(store)
  return {storage_id(plan.leaves[k]) for k in (access.writes, *access.reads)}

def extents(store: Store) -> tuple[int, ...]: return tuple(r.bound.arg for r in store.index if r.op is Ops.RANGE)

def over_ranges_of(store: Store, first: Store) -> Store:
  """The same store written over another store's ranges, matched dimension by dimension."""
  mine, theirs = ([r for r in s.index if r.op is Ops.RANGE] for s in (store, first))
  value, position = substitute([store.value, store.position], dict(zip(mine, theirs)))
  return store._replace(value=value, position=position, index=first.index, ranges=first.ranges)

def joined(store: Store, group: Group, plan: Plan) -> Store | None:
  """store as a member of group, or None if that would be wrong or useless. Right: both touch memory that either writes only
  at the very element that is written. Useful: they share a load, or one's result need not be loaded again."""
  moved = over_ranges_of(store, group.stores[0])
  access, memory = access_of(moved), storage_id(plan.leaves[moved.target.arg])
  useful = False
  forward: dict[UOp, UOp] = {}                       # LOAD of what the group stores -> the value itself
  for member in group.stores:
    theirs, written = access_of(member), storage_id(plan.leaves[member.target.arg])
    if written == memory and member.position is not moved.position: return None
    for k, places in access.reads.items():
      if storage_id(plan.leaves[k]) != written: continue
      if any(u.src[1] is not member.position or len(u.src) > 2 for u in places): return None
      made_here = plan.leaves[k].op is not Ops.AFTER or member.node in plan.leaves[k].src
      if made_here and not is_older(plan.leaves[k], member, plan): forward[places[0].load()] = member.value
      useful = True
    for k, places in theirs.reads.items():
      if storage_id(plan.leaves[k]) == memory and any(u.src[1] is not moved.position or len(u.src) > 2 for u in places): return None
      useful = useful or any(u in places for u in access.reads.get(k, ()))
  if not useful: return None
  return moved._replace(value=moved.value.substitute(forward))

def is_older(leaf: UOp, member: Store, plan: Plan) -> bool:
  """Whether leaf names the memory as it was before member assigned to it."""
  return member.node.op is Ops.STORE and plan.leaves[member.target.arg] is leaf

NEARBY = 64              # how many groups back a store looks for one to join

def merge(plan: Plan, order: list[int], needs: list[set[int]]) -> list[Group]:
  """Groups in order. A store without a reduction joins the latest group over equal extents that it may join; all that it
  needs is in that group or before it, so the order of the groups stays right."""
  groups: list[Group] = []
  home: dict[int, int] = {}
  for i in order:
    store, earliest = plan.stores[i], max((home[j] for j in needs[i]), default=0)
    nearby = range(len(groups) - 1, max(earliest, len(groups) - NEARBY) - 1, -1)
    home[i] = len(groups)
    member = store
    for g in [] if has_reduce(store) else [g for g in nearby if may_join(store, groups[g])]:
      found = joined(store, groups[g], plan)
      if found is not None:
        home[i], member = g, found
        break
    if home[i] == len(groups): groups.append(Group(plan))
    groups[home[i]].add(member)
  return groups

def may_join(store: Store, group: Group) -> bool:
  """Whether it is worth looking closer: equal extents, common memory, room."""
  if extents(group.stores[0]) != extents(store) or group.nodes > LARGEST_GROUP: return False
  return not group.memory.isdisjoint(memory_of(store, group.plan))

def has_reduce(store: Store) -> bool: return any(u.op is Ops.REDUCE for u in toposort([store.value]))

simplify_kernel = collapse_onehot + simplify_index

# ---- kernels ---------------------------------------------------------------------------------------------------------

def kernel_of(group: Group, plan: Plan) -> Kernel:
  """The kernel of a group: PARAMs numbered by slot, ranges numbered from 0, indices simplified."""
  ends = [s.target.index(s.position).store(s.value).end(*s.ranges) for s in group.stores]
  nodes = toposort(ends)
  numbers = {storage_id(plan.leaves[u.arg]): u for u in reversed(nodes) if u.op is Ops.PARAM}
  slots = {memory: slot for slot, memory in enumerate(reversed(numbers))}
  table: dict[UOp, UOp] = {}
  for u in nodes:
    if u.op is Ops.PARAM: table[u] = u.replace(arg=slots[storage_id(plan.leaves[u.arg])])
  ranges = dedup([r for s in group.stores for r in s.ranges] + [u for u in nodes if u.op is Ops.RANGE])
  for number, r in enumerate(ranges): table[r] = r.replace(arg=(number, r.axis))
  ast = rewrite(UOp.sink(*substitute(ends, table)), simplify_kernel)
  buffers = [UOp(Ops.BUFFER)] * len(slots)
  for u in nodes:
    if u.op is Ops.PARAM:
      memory = storage_id(plan.leaves[u.arg])
      buffers[slots[memory]] = base_leaf(plan.leaves[u.arg])
  outputs = frozenset(slots[storage_id(plan.leaves[s.target.arg])] for s in group.stores)
  return Kernel(ast, tuple(buffers), outputs)

def base_leaf(leaf: UOp) -> UOp:
  while leaf.op is not Ops.BUFFER: leaf = leaf.src[0]
  return leaf

class Schedule(NamedTuple):
  kernels: list[Kernel]
  results: list[UOp | None]     # for each root the BUFFER leaf that holds it; None for an assignment
  temporary: set[UOp]           # leaves that hold neither input nor result

def schedule(roots: list[UOp], device: str) -> Schedule:
  """The kernels that compute the roots."""
  plan = rangeify(roots, device)
  needs = dependencies(plan)
  order = sort_by_need(needs)
  if order is None:
    plan = rangeify(with_old_versions_copied(roots), device)
    needs = dependencies(plan)
    order = sort_by_need(needs)
    assert order is not None, "copies of old versions leave no cycle"
  kernels = [kernel_of(group, plan) for group in merge(plan, order, needs)]
  stored = {s.node: plan.leaves[s.target.arg] for s in plan.stores if s.node.op is not Ops.STORE}
  results = [stored.get(r) for r in plan.roots]
  return Schedule(kernels, results, set(stored.values()) - set(results))

def with_old_versions_copied(roots: list[UOp]) -> list[UOp]:
  """The roots where each leaf that is assigned to is read from a copy: needed when one kernel reads a value from before and
  after an assignment, as in `y = x * 2; x += 1; y + x`."""
  assigned = {u.src[0] for u in toposort(roots) if u.op is Ops.AFTER and u.src[0].op is Ops.BUFFER}
  copies = {leaf: UOp(Ops.CONTIGUOUS, leaf.dtype, (leaf,)) for leaf in assigned}
  new: dict[UOp, UOp] = {}
  for u in toposort(roots):
    if u.op is Ops.AFTER: new[u] = u.with_src((new_target(u.src[0], new), *(new[e] for e in u.src[1:])))
    elif u.op is Ops.STORE: new[u] = u.with_src((new_target(u.src[0], new), new[u.src[1]]))
    else: new[u] = copies.get(u) or u.with_src(tuple([new[s] for s in u.src]))
  return [new[u] for u in roots]

def new_target(view: UOp, new: dict[UOp, UOp]) -> UOp:
  """The view that an assignment writes through: over the memory itself, not over its copy."""
  chain = []
  while view.op not in (Ops.BUFFER, Ops.AFTER):
    chain.append(view)
    view = view.src[0]
  base = view if view.op is Ops.BUFFER else new[view]
  for step in reversed(chain): base = step.with_src((base,))
  return base

def operations(kernel: Kernel) -> int:
  """Arithmetic operations of one run: each ALU node as often as the ranges it depends on go round."""
  inside: dict[UOp, frozenset[UOp]] = {}
  total = 0
  for u in toposort([kernel.ast]):
    ranges = frozenset().union(*(inside[s] for s in u.src)) if u.src else frozenset()
    times = prod(r.bound.arg for r in ranges if r.bound.op is Ops.CONST)
    if u.op is Ops.RANGE: ranges |= {u}
    elif u.op is Ops.REDUCE: total, ranges = total + times, ranges - set(u.src[1:])
    elif u.dtype.kind == "f" and u.op not in (Ops.LOAD, Ops.INDEX, Ops.WHERE, Ops.CAST, Ops.CONST): total += times
    inside[u] = ranges
  return total

def bytes_moved(kernel: Kernel) -> int:
  """The least a run must move: every buffer once, written ones that are also read twice."""
  loaded = {u.src[0].src[0].arg for u in toposort([kernel.ast]) if u.op is Ops.LOAD}
  sizes = {slot: leaf.arg.size * leaf.dtype.itemsize for slot, leaf in enumerate(kernel.buffers)}
  return sum(sizes[slot] for slot in loaded) + sum(sizes[slot] for slot in kernel.outputs)

