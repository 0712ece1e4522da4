# regalloc.py: a register or a stack slot for every value of a placed function, by linear scan (Poletto, Sarkar, 1999).
# It knows no machine: a `Bank` says which registers there are and which of them survive calls. In: blocks after
# selection, whose values are of int64 or float64, the two classes; hints. Out: for each value its place: a register, a
# Slot, or for what is cheaper computed again than kept the node itself. True afterwards: two values that are alive at
# one time never share a place; what is alive across a call is in no register that the call may change.
from __future__ import annotations
import heapq
from bisect import bisect_right
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import Callable, Iterable, NamedTuple
from picograd.codegen.flat import Flow, Function, incoming, operands
from picograd.dtype import dtypes
from picograd.ops.ops import Ops
from picograd.ops.uop import UOp

@dataclass(frozen=True)
class Slot:
  """Places of eight bytes in the frame, from one on. No tuple: an equal tuple would be the same place."""
  number: int
  size: int = 1

Place = int | Slot | UOp                   # a register, a slot, or a node to compute again
Hints = dict[UOp, list[int | UOp]]         # value -> registers, or values whose register it would like to have

NO_VALUES = frozenset({Ops.CONST, Ops.BUFFER, Ops.SYM})              # the machine's code names them where it wants them

class Bank(NamedTuple):
  """The registers of a class, the preferred ones first. saved: those that calls preserve."""
  registers: tuple[int, ...]
  saved: frozenset[int]

def bank_of(u: UOp) -> str: return u.dtype.kind if u.dtype.count == 1 else "v"

class Allocation(NamedTuple):
  places: dict[UOp, Place]
  slots: int

# ---- where values are alive ------------------------------------------------------------------------------------------

class Liveness:
  """Blocks in layout order are numbered through: an instruction at p reads at p and writes at p+1. start, end: where
  each value is defined and last read; it counts as alive everywhere in between. weight: how often it is written and
  read, ten times as often for each loop around. calls: their positions."""
  def __init__(self, fn: Function, flow: Flow):
    self.start: dict[UOp, int] = {}
    self.end: dict[UOp, int] = {}
    self.weight: Counter[UOp] = Counter()
    self.calls: list[int] = []
    self.home: dict[UOp, UOp] = {}                                   # value -> the block that defines it
    self.first: dict[UOp, int] = {}
    self.last: dict[UOp, int] = {}
    self.before = flow.before
    self.live_in: dict[UOp, set[UOp]] = {label: set() for label in fn.blocks}
    parameters = defaultdict(list)
    for p in incoming(fn): parameters[p.src[0]].append(p)
    self.number(fn, flow, parameters)
    for label, block in fn.blocks.items():
      position, weight = self.first[label], 10 ** min(flow.depth[label], 6)
      for u in block:
        position += 2
        for s in operands(u): self.use(s, label, position, weight)

  def number(self, fn: Function, flow: Flow, parameters: dict[UOp, list[UOp]]) -> None:
    position = 0
    for label, block in fn.blocks.items():
      self.first[label], weight = position, 10 ** min(flow.depth[label], 6)
      for p in parameters[label]: self.define(p, label, position, weight)
      for u in block:
        position += 2
        if u.op is Ops.CALL: self.calls.append(position)
        if u.dtype is not dtypes.void: self.define(u, label, position + 1, weight)
      position += 2
      self.last[label] = position

  def define(self, u: UOp, label: UOp, position: int, weight: int) -> None:
    self.home[u], self.start[u], self.end[u] = label, position, position + 1
    self.weight[u] += weight

  def use(self, u: UOp, label: UOp, position: int, weight: int) -> None:
    if u.op in NO_VALUES: return
    if u not in self.home: self.define(u, next(iter(self.first)), 0, 1)                    # a PARAM
    self.weight[u] += weight
    if self.end[u] < position: self.end[u] = position
    if self.home[u] is not label and u not in self.live_in[label]: self.extend(u, label)

  def extend(self, u: UOp, label: UOp) -> None:
    """u is read in a block that does not define it: it is alive on all ways to it from its definition."""
    home, waiting = self.home[u], [label]
    while waiting:
      b = waiting.pop()
      if u in self.live_in[b]: continue
      self.live_in[b].add(u)
      if self.first[b] < self.start[u]: self.start[u] = self.first[b]
      for p in self.before[b]:
        if self.end[u] < self.last[p]: self.end[u] = self.last[p]
        if p is not home: waiting.append(p)

  def crosses_call(self, u: UOp) -> bool:
    """Whether a call begins while u is alive and ends before u does."""
    if not self.calls: return False
    k = bisect_right(self.calls, self.start[u])
    return k < len(self.calls) and self.calls[k] < self.end[u]

# ---- linear scan -----------------------------------------------------------------------------------------------------

class Scan:
  """Goes through the spans by their starts. free: the registers of each class that nothing alive holds."""
  def __init__(self, live: Liveness, banks: dict[str, Bank], hints: Hints, repeatable: Callable[[UOp], bool]):
    self.live, self.banks, self.hints, self.repeatable = live, banks, hints, repeatable
    self.places: dict[UOp, Place] = {}
    self.free = {kind: set(bank.registers) for kind, bank in banks.items()}
    self.active: dict[str, list[tuple[int, int, UOp]]] = {kind: [] for kind in banks}      # heaps of (end, tie, value)
    self.idle_slots: list[tuple[int, int]] = []                      # (end of what it held, number)
    self.slots = 0
    order = sorted(live.start, key=live.start.__getitem__)
    for tie, u in enumerate(order): self.visit(u, tie)

  def visit(self, u: UOp, tie: int) -> None:
    kind = bank_of(u)
    active, free, start = self.active[kind], self.free[kind], self.live.start[u]
    while active and active[0][0] <= start:
      _, _, ended = heapq.heappop(active)
      place = self.places[ended]
      if isinstance(place, int): free.add(place)                     # else it lost its register before
    usable: Iterable[int] = self.banks[kind].registers
    if self.live.crosses_call(u): usable = [r for r in usable if r in self.banks[kind].saved]
    chosen = self.choose(u, usable, free)
    if chosen is None: chosen = self.evict(u, usable)
    if chosen is None: return self.spill(u)
    free.discard(chosen)
    self.places[u] = chosen
    heapq.heappush(active, (self.live.end[u], tie, u))

  def choose(self, u: UOp, usable: Iterable[int], free: set[int]) -> int | None:
    """A free register: one that saves a move, that of the first operand, else the first."""
    for hint in (*self.hints.get(u, ()), *u.src[:1]):
      place = self.places.get(hint) if isinstance(hint, UOp) else hint
      if isinstance(place, int) and place in free and place in usable: return place
    return next((r for r in usable if r in free), None)

  def density(self, u: UOp) -> float:
    """How much a register is worth to u: uses for each position that it would hold it."""
    worth = self.live.weight[u] / (self.live.end[u] - self.live.start[u])
    return worth / 2 if self.repeatable(u) else worth

  def evict(self, u: UOp, usable: Iterable[int]) -> int | None:
    """Takes the register of the value that needs it least, if that needs it less than u."""
    places = set(usable)
    rivals = [a for _, _, a in self.active[bank_of(u)] if self.places[a] in places]
    loser = min(rivals, key=self.density, default=u)
    if self.density(loser) >= self.density(u): return None
    taken = self.places[loser]
    assert isinstance(taken, int)
    self.spill(loser)
    return taken

  def spill(self, u: UOp) -> None:
    if self.repeatable(u):
      self.places[u] = u
      return
    if bank_of(u) == "v":                                            # four slots in a row
      self.places[u] = Slot(self.slots, 4)
      self.slots += 4
      return
    if self.idle_slots and self.idle_slots[0][0] <= self.live.start[u]: _, number = heapq.heappop(self.idle_slots)
    else:
      number = self.slots
      self.slots += 1
    self.places[u] = Slot(number)
    heapq.heappush(self.idle_slots, (self.live.end[u], number))

def allocate(fn: Function, flow: Flow, banks: dict[str, Bank], hints: Hints, repeatable: Callable[[UOp], bool]
             ) -> Allocation:
  """Places for the values of a placed function. repeatable: whether a node may be computed again at each use."""
  scan = Scan(Liveness(fn, flow), banks, hints, repeatable)
  return Allocation(scan.places, scan.slots)

def coalescing_hints(fn: Function) -> Hints:
  """Values that jumps pass, and the parameters that get them, want one register."""
  hints: Hints = defaultdict(list)
  for p, passed in incoming(fn).items():
    for v in passed:
      hints[p].append(v)
      hints[v].append(p)
  return hints

# ---- moves that happen at once ---------------------------------------------------------------------------------------

Move = tuple[Place, Place]                 # (to, from)

def in_sequence(moves: Iterable[Move], scratch: Callable[[Place], Place]) -> list[Move]:
  """The moves one after the other: each target is written when no other move reads it any more; a cycle goes through a
  scratch place of its kind."""
  waiting = {to: source for to, source in moves if to != source}
  readers = Counter(waiting.values())
  ready = [to for to in waiting if not readers[to]]
  out: list[Move] = []
  while waiting:
    if not ready:
      to = next(iter(waiting))                                       # only cycles are left: each is read once
      out.append((scratch(to), to))
      reader = next(t for t, source in waiting.items() if source == to)
      waiting[reader] = scratch(to)
      ready.append(to)
      readers[to] = 0
      continue
    to = ready.pop()
    source = waiting.pop(to)
    out.append((to, source))
    readers[source] -= 1
    if not readers[source] and source in waiting: ready.append(source)
  return out
