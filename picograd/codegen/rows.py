# rows.py: loop nests that pass rows to one another become one kernel: attention's scores, softmax and weighted sum,
# head by head. In: the loop nests of a plan and what each needs. Out: runs of nests that share their outer loops; in
# each step of these the nests happen in order. What only one run reads is a row of scratch memory, which every step
# overwrites and which stays in the nearest cache.   (chapter 3)
from __future__ import annotations
import functools
from typing import NamedTuple, Sequence
from picograd.codegen.rangeify import Plan, Store, reads_of, storage_id
from picograd.codegen.target import Target
from picograd.helpers import prod
from picograd.ops.fold import number
from picograd.ops.index import Sum, build, conjuncts, plus, span, sum_of
from picograd.ops.movement import simplify
from picograd.ops.ops import Axis, Ops
from picograd.ops.uop import UOp, toposort

Nest = list[Store]                                # stores over the same ranges

LONGEST_RUN = 24         # nests of one run: compilers take more than linear time
BLOCK_WORK = 1 << 19     # steps of loops for one block of GPU threads: some microseconds
SMALL_WORK = 1 << 15     # points of a loop nest under which one thread is always best

def join_rows(nests: list[Nest], needs: list[set[int]], plan: Plan, target: Target) -> list[Run]:
  """The nests in runs, each after those that it needs. needs: for each nest, others that come before it."""
  return Rows(nests, needs, plan, target).join()

# ---- rows ------------------------------------------------------------------------------------------------------------

class Row(NamedTuple):
  """The position of an address is the sum of strides * outer ranges, + base + place, with 0 <= place < size: no two
  steps of the outer ranges reach the same element."""
  strides: tuple[int, ...]
  base: int
  place: UOp
  size: int

def row_of(address: UOp, outer: Sequence[UOp]) -> Row | None:
  """An address as a row and a place in it; None where steps of the outer ranges may share elements."""
  return find_row(address, tuple(outer))

@functools.lru_cache(4096)
def find_row(address: UOp, outer: tuple[UOp, ...]) -> Row | None:
  _, position, *gates = address.src
  a = sum_of(simplify([position])[0])
  strides = tuple([a.terms.get(r, 0) for r in outer])
  inside = plus(a, Sum(dict(zip(outer, strides))), -1)
  if min(strides) <= 0 or any(r in toposort(inside.terms) for r in outer): return None
  low, high = span(sum_of(bounded(build(inside), gates)))
  base = low // min(strides) * min(strides)
  reach = high - base + 1
  for stride, r in sorted(zip(strides, outer), key=lambda pair: pair[0]):
    if stride < reach: return None
    reach = stride * r.bound.arg
  return Row(strides, base, build(plus(inside, Sum({}, base), -1)), high - base + 1)

def bounded(u: UOp, gates: Sequence[UOp]) -> UOp:
  """u with a range for each x that 0 <= x < n of the gates holds within."""
  conditions = [c for gate in gates for c in conjuncts(gate) if c.op is Ops.CMPLT]
  above = {c.src[1] for c in conditions if number(c.src[0]) == -1}
  table = {c.src[0]: UOp.range(n, Axis.LOOP) for c in conditions if c.src[0] in above and (n := number(c.src[1]))}
  return u.substitute(table)

# ---- what runs are made of -------------------------------------------------------------------------------------------

class Access(NamedTuple):
  nest: int
  address: UOp
  is_write: bool

class Run(NamedTuple):
  nests: list[Nest]        # in order
  shared: int              # outer loops that they have in common; 0 for a single nest
  scratch: set[UOp]        # leaves of which a row at a time is enough

class Rows:
  """The nests of a plan while they are joined. home: nest -> its run; members: run -> its nests, in order; shared: run
  -> its outer loops."""
  def __init__(self, nests: list[Nest], needs: list[set[int]], plan: Plan, target: Target):
    self.nests, self.needs, self.plan, self.target = nests, needs, plan, target
    self.home = list(range(len(nests)))
    self.members = {i: [i] for i in self.home}
    self.shared = dict.fromkeys(self.home, 0)
    self.accesses = [accesses_of(i, nest, plan) for i, nest in enumerate(nests)]
    self.users: dict[UOp, set[int]] = {}       # leaf -> the nests that read it or write to it
    for i, nest in enumerate(nests):
      for store in nest:
        for k in (store.target.arg, *reads_of(store)): self.users.setdefault(plan.leaves[k], set()).add(i)
    stored = {s.node: plan.leaves[s.target.arg] for s in plan.stores if s.node.op is not Ops.STORE}
    self.temporary = set(stored.values()) - {stored.get(r) for r in plan.roots}

  def join(self) -> list[Run]:
    for i in range(len(self.nests)) if self.target.scratch_bytes else ():
      while self.join_a_source(self.home[i]): pass
    return [self.run(self.members[run]) for run in self.in_order()]

  def in_order(self) -> list[int]:
    """The runs, each after those that it needs."""
    order: dict[int, None] = {}
    stack = sorted(self.members, reverse=True)
    while stack:
      missing = self.sources(stack[-1]) - order.keys()
      if missing: stack.extend(sorted(missing, reverse=True))
      else: order[stack.pop()] = None
    return list(order)

  def sources(self, run: int) -> set[int]:
    """The runs that a run needs."""
    return {self.home[j] for i in self.members[run] for j in self.needs[i]} - {run}

  def join_a_source(self, run: int) -> bool:
    """Joins a run with one that it reads from, where that pays and leaves an order."""
    for source in sorted(self.sources(run), reverse=True):
      members = sorted(self.members[source] + self.members[run])
      if len(members) > LONGEST_RUN or not self.passes_memory(source, run): continue
      shared = self.loops_to_share(members)
      if not shared or self.leads_around(source, run): continue
      self.members[run], self.shared[run] = members, shared
      del self.members[source]
      for i in members: self.home[i] = run
      return True
    return False

  def passes_memory(self, source: int, run: int) -> bool:
    written = {storage_id(self.plan.leaves[s.target.arg]) for i in self.members[source] for s in self.nests[i]}
    return any(not written.isdisjoint(self.accesses[i]) for i in self.members[run])

  def leads_around(self, source: int, run: int) -> bool:
    """Whether run needs source by way of a third run: that one could come neither before nor after both."""
    waiting = list(self.sources(run) - {source})
    seen = set(waiting)
    while waiting:
      found = self.sources(waiting.pop())
      if source in found: return True
      waiting.extend(found - seen)
      seen |= found
    return False

  # ---- whether nests may share their outer loops ---------------------------------------------------------------------

  def loops_to_share(self, members: list[int]) -> int:
    """The most outer loops that the nests can share with profit; 0 if none."""
    loops = [self.nests[i][0].ranges for i in members]
    extents = [[r.bound.arg for r in ranges] for ranges in loops]
    for n in range(min(map(len, loops)), 0, -1):
      if any(e[:n] != extents[0][:n] for e in extents): continue
      if sum(len(e) == n for e in extents) > 1: continue               # nests without a loop of their own have no order
      if self.keeps_threads_busy(members, extents, n) and self.is_right(members, n) and self.fits(members, n): return n
    return 0

  def keeps_threads_busy(self, members: list[int], extents: list[list[int]], n: int) -> bool:
    """Whether there is a step for every thread, or little work. On GPUs each step is a block of threads: it has to be
    done before other kernels would have begun."""
    if self.target.local_bytes: return sum(map(self.work, members)) <= BLOCK_WORK * prod(extents[0][:n])
    return prod(extents[0][:n]) >= self.target.threads or sum(map(prod, extents)) <= SMALL_WORK

  def work(self, nest: int) -> int:
    """Steps of a nest's loops and of its reductions'."""
    total = 0
    for store in self.nests[nest]:
      total += prod(r.bound.arg for r in store.ranges)
      for u in toposort([store.value]):
        if u.op is Ops.REDUCE: total += prod(r.bound.arg for r in {*u.src[1:], *store.ranges} & set(toposort([u])))
    return total

  def is_right(self, members: list[int], n: int) -> bool:
    """Whether all that passes from one nest to another stays in a step of the outer loops, and no nest is a contraction
    that reads one matrix in every step: its tiles go across the steps."""
    if any(reuses_a_matrix(store, n) for i in members for store in self.nests[i]): return False
    memories = {m for i in members for m in self.accesses[i]}
    return all(self.stays_in_row([a for i in members for a in self.accesses[i].get(m, ())], n) for m in memories)

  def stays_in_row(self, accesses: list[Access], n: int) -> bool:
    """Whether the accesses to one memory from different nests meet in the same row only, if one of them writes."""
    if not any(a.is_write for a in accesses) or len({a.nest for a in accesses}) == 1: return True
    rows = [self.row(a, n) for a in accesses]
    return None not in rows and len({(row.strides, row.base) for row in rows if row is not None}) == 1

  def row(self, access: Access, n: int) -> Row | None:
    return row_of(access.address, self.nests[access.nest][0].ranges[:n])

  def fits(self, members: list[int], n: int) -> bool:
    rows = self.scratch(members, n)
    return sum(size * leaf.dtype.itemsize for leaf, size in rows.items()) <= self.target.scratch_bytes

  def scratch(self, members: list[int], n: int) -> dict[UOp, int]:
    """The leaves that only these nests read and write -> the size of a row."""
    found: dict[UOp, int] = {}
    for i in members:
      for store in self.nests[i]:
        leaf = self.plan.leaves[store.target.arg]
        if leaf not in self.temporary or not self.users[leaf] <= set(members): continue
        row = row_of(store.address, store.ranges[:n])
        if row is not None: found[leaf] = row.size
    return found

  def run(self, members: list[int]) -> Run:
    n = self.shared[self.home[members[0]]]
    return Run([self.nests[i] for i in members], n, set(self.scratch(members, n)) if n else set())

def accesses_of(number: int, nest: Nest, plan: Plan) -> dict[int, list[Access]]:
  """The memories that a nest touches -> where."""
  found: dict[int, list[Access]] = {}
  for store in nest:
    reads = [(k, Access(number, u, False)) for k, places in reads_of(store).items() for u in places]
    for k, access in [*reads, (store.target.arg, Access(number, store.address, True))]:
      found.setdefault(storage_id(plan.leaves[k]), []).append(access)
  return found

def reuses_a_matrix(store: Store, n: int) -> bool:
  """Whether a reduction reads, again in each step of an outer loop, what varies with its own loops and an inner one."""
  outer, inner = set(store.ranges[:n]), set(store.ranges[n:])
  for u in toposort([store.value]):
    if u.op is not Ops.REDUCE: continue
    for load in toposort([u]):
      if load.op is not Ops.LOAD: continue
      moved = {r for r in toposort([load.src[0].src[1]]) if r.op is Ops.RANGE}
      if not outer <= moved and moved & set(u.src[1:]) and moved & inner: return True
  return False
