# schedule.py: stores -> kernels in an order that respects every read and write, stores over the same ranges merged into
# one kernel. In: a Plan of rangeify. Out: Kernels; each names its buffers by slot, and two kernels of equal structure
# are the same UOp, so that identical layers compile once.   (chapter 3)
from __future__ import annotations
import functools
from typing import Callable, NamedTuple
from picograd.codegen.partial import split_long_reductions
from picograd.codegen.rangeify import Plan, Store, rangeify, storage_id
from picograd.helpers import dedup, prod
from picograd.ops.collapse import collapse_onehot
from picograd.ops.index import simplify_index
from picograd.ops.match import rewrite
from picograd.ops.ops import ALU, Ops
from picograd.ops.uop import Table, UOp, ranges_inside, substitute, toposort

class Kernel(NamedTuple):
  ast: UOp                     # SINK(END(STORE(INDEX(PARAM(slot), position), value), *ranges), ...)
  buffers: tuple[UOp, ...]     # the BUFFER leaf of each slot
  outputs: frozenset[int]      # the slots that are written

class Schedule(NamedTuple):
  kernels: list[Kernel]
  results: list[UOp | None]    # for each root the BUFFER leaf that holds it; None for an assignment
  temporary: set[UOp]          # leaves that hold neither input nor result

def schedule(roots: list[UOp], device: str) -> Schedule:
  """The kernels that compute the roots."""
  roots = split_long_reductions(roots)
  plan = rangeify(roots, device)
  order = sort_by_need(dependencies(plan))
  if order is None:
    plan = rangeify(with_old_versions_copied(roots), device)
    order = sort_by_need(dependencies(plan))
    assert order is not None, "copies of old versions leave no cycle"
  kernels = [kernel_of(group, plan) for group in merge(plan, order)]
  stored = {s.node: plan.leaves[s.target.arg] for s in plan.stores if s.node.op is not Ops.STORE}
  results = [stored.get(r) for r in plan.roots]
  return Schedule(kernels, results, set(stored.values()) - set(results))

# ---- order -----------------------------------------------------------------------------------------------------------

def reads_of(store: Store) -> dict[int, list[UOp]]:
  """PARAM number -> the INDEXes through which a store reads it."""
  reads: dict[int, list[UOp]] = {}
  for u in toposort([store.value, store.position]):
    if u.op is Ops.INDEX: reads.setdefault(u.src[0].arg, []).append(u)
  return reads

def dependencies(plan: Plan) -> list[set[int]]:
  """For each store, those that must run before it: the writers of what it reads, the readers of what it overwrites."""
  writer = {}                                     # leaf, or STORE of an AFTER -> the store that makes it
  readers: dict[int, list[int]] = {}
  for i, s in enumerate(plan.stores):
    writer[s.node if s.node.op is Ops.STORE else plan.leaves[s.target.arg]] = i
    for k in reads_of(s): readers.setdefault(k, []).append(i)
  def writers_of(k: int) -> list[int]:
    leaf = plan.leaves[k]
    makers = leaf.src[1:] if leaf.op is Ops.AFTER else (leaf,)
    return [writer[m] for m in makers if m in writer]
  needs: list[set[int]] = []
  for i, s in enumerate(plan.stores):
    need = {w for k in reads_of(s) for w in writers_of(k)}
    if s.node.op is Ops.STORE: need.update(writers_of(s.target.arg), readers.get(s.target.arg, ()))
    needs.append(need - {i})
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
LARGEST_GROUP = 1000     # nodes of a kernel beyond which it takes no more stores: compilers take more than linear time

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

  def may_take(self, store: Store) -> bool:
    """Whether it is worth looking closer: room, equal extents, common memory."""
    if self.nodes > LARGEST_GROUP or extents(self.stores[0]) != extents(store): return False
    return not self.memory.isdisjoint(memory_of(store, self.plan))

def memory_of(store: Store, plan: Plan) -> set[int]:
  """The memory that a store reads or writes."""
  return {storage_id(plan.leaves[k]) for k in (store.target.arg, *reads_of(store))}

def loops(store: Store) -> list[UOp]:
  return [r for r in store.dims if r.op is Ops.RANGE]
def extents(store: Store) -> list[int]: return [r.bound.arg for r in loops(store)]
def has_reduce(store: Store) -> bool:
  return any(u.op is Ops.REDUCE for u in toposort([store.value]))

def merge(plan: Plan, order: list[int]) -> list[Group]:
  """Groups in order. A store without a reduction joins the latest group over equal extents that it may join; all that
  it needs is in that group or before it, so the order of the groups stays right."""
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
  return groups

def over_ranges_of(store: Store, first: Store) -> Store:
  """The same store written over another store's ranges, matched dimension by dimension."""
  table = dict(zip(loops(store), loops(first)))
  value, position = substitute([store.value, store.position], table)
  return store._replace(value=value, position=position, dims=first.dims, ranges=first.ranges)

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
    if writes(member, moved.target.arg, plan) and member.position is not moved.position: return None
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
  return any(u.src[1] is not store.position or len(u.src) > 2 for u in places)

def makes(store: Store, leaf: UOp, plan: Plan) -> bool:
  """Whether leaf is what the store has stored, not the memory before or after other assignments."""
  if store.node.op is Ops.STORE: return leaf.op is Ops.AFTER and store.node in leaf.src
  return plan.leaves[store.target.arg] is leaf

# ---- kernels ---------------------------------------------------------------------------------------------------------

simplify_kernel = collapse_onehot + simplify_index

def kernel_of(group: Group, plan: Plan) -> Kernel:
  """The kernel of a group: PARAMs numbered by slot, ranges numbered from 0, indices simplified. Of several stores to a
  place only the last counts: who needs an earlier value has been given it."""
  last = {(storage_id(plan.leaves[s.target.arg]), s.position): s for s in group.stores}
  ends = [s.target.index(s.position).store(s.value).end(*s.ranges) for s in last.values()]
  nodes = toposort(ends)
  params = [u for u in nodes if u.op is Ops.PARAM]
  memory = {u: storage_id(plan.leaves[u.arg]) for u in params}
  slots = {number: slot for slot, number in enumerate(dedup(memory.values()))}
  table = {u: u.replace(arg=slots[memory[u]]) for u in params}
  ranges = dedup([*group.stores[0].ranges, *[u for u in nodes if u.op is Ops.RANGE]])
  for number, r in enumerate(ranges): table[r] = r.replace(arg=(number, r.axis))
  ast = simplified(UOp.sink(*substitute(ends, table)))
  leaves = {slots[memory[u]]: base_leaf(plan.leaves[u.arg]) for u in params}
  outputs = frozenset(slots[memory[s.target]] for s in last.values())
  return Kernel(ast, tuple([leaves[slot] for slot in range(len(slots))]), outputs)

@functools.lru_cache(256)
def simplified(ast: UOp) -> UOp:
  """Equal layers are simplified once."""
  return rewrite(ast, simplify_kernel)

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
  slots = [*{u.src[0].src[0].arg for u in loads}, *kernel.outputs]
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
