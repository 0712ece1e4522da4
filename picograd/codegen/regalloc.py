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
from typing import Callable, Iterable, Iterator, NamedTuple
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
  each value is defined and last read. enters, leaves: the blocks, as bits, at whose start and end it is alive; last:
  block -> where it is last read there. weight: how often it is written and read, ten times as often for each loop
  around. calls: their positions; call_blocks: the blocks that have some."""
  def __init__(self, fn: Function, flow: Flow):
    self.start: dict[UOp, int] = {}
    self.end: dict[UOp, int] = {}
    self.weight: Counter[UOp] = Counter()
    self.calls: list[int] = []
    self.call_blocks = 0
    self.home: dict[UOp, int] = {}                                   # value -> the block that defines it
    self.enters: dict[UOp, int] = {}
    self.leaves: dict[UOp, int] = {}
    self.last: dict[UOp, dict[int, int]] = {}
    index = {label: k for k, label in enumerate(fn.blocks)}
    self.before = [[index[p] for p in flow.before[label]] for label in fn.blocks]
    parameters = defaultdict(list)
    for p in incoming(fn): parameters[p.src[0]].append(p)
    self.weights = weights = [10 ** min(flow.depth[label], 6) for label in fn.blocks]
    self.bounds = self.number(fn, weights, parameters)               # (start, end) of each block
    for k, block in enumerate(fn.blocks.values()):
      position = self.bounds[k][0]
      for u in block:
        position += 2
        for s in operands(u): self.use(s, k, position, weights[k])
    self.order = sorted(self.start, key=self.start.__getitem__)
    self.spans = {u: Span(self, u) for u in self.order}

  def number(self, fn: Function, weights: list[int], parameters: dict[UOp, list[UOp]]) -> list[tuple[int, int]]:
    position, bounds = 0, []
    for k, (label, block) in enumerate(fn.blocks.items()):
      first = position
      for p in parameters[label]: self.define(p, k, position, weights[k])
      for u in block:
        position += 2
        if u.op is Ops.CALL:
          self.calls.append(position)
          self.call_blocks |= 1 << k
        if u.dtype is not dtypes.void: self.define(u, k, position + 1, weights[k])
      position += 2
      bounds.append((first, position))
    return bounds

  def frequency(self, u: UOp) -> int: return self.weights[self.home[u]]

  def define(self, u: UOp, block: int, position: int, weight: int) -> None:
    self.home[u], self.start[u], self.end[u] = block, position, position + 1
    self.last[u] = {block: position + 1}
    self.enters[u] = self.leaves[u] = 0
    self.weight[u] += weight

  def use(self, u: UOp, block: int, position: int, weight: int) -> None:
    if u.op in NO_VALUES: return
    if u not in self.home: self.define(u, 0, 0, 1)                   # a PARAM
    self.weight[u] += weight
    if self.end[u] < position: self.end[u] = position
    self.last[u][block] = position
    if self.home[u] != block and not self.enters[u] >> block & 1: self.extend(u, block)

  def extend(self, u: UOp, block: int) -> None:
    """u is read in a block that does not define it: it is alive on all ways to it from its definition."""
    home, waiting = self.home[u], [block]
    enters, leaves, end = self.enters[u], self.leaves[u], self.end[u]
    while waiting:
      b = waiting.pop()
      if enters >> b & 1: continue
      enters |= 1 << b
      for p in self.before[b]:
        leaves |= 1 << p
        end = max(end, self.bounds[p][1])
        if p != home: waiting.append(p)
    self.enters[u], self.leaves[u], self.end[u] = enters, leaves, end

class Span:
  """Where a value is alive: all through some blocks, as bits, and in others, as bits too, from .. to."""
  __slots__ = ("through", "touched", "parts", "length")
  def __init__(self, live: Liveness, u: UOp):
    enters, leaves, home = live.enters[u], live.leaves[u], live.home[u]
    self.through = enters & leaves
    self.touched = (enters | 1 << home) & ~self.through
    self.parts: dict[int, tuple[int, int]] = {}
    self.length = 0
    if not enters:
      self.parts[home] = start, end = live.start[u], live.bounds[home][1] if leaves else live.last[u][home]
      self.length = end - start
      return
    for b in bits_of(self.touched):
      start = live.start[u] if b == home else live.bounds[b][0]
      end = live.bounds[b][1] if leaves >> b & 1 else live.last[u][b]
      self.parts[b] = start, end
      self.length += end - start
    for b in bits_of(self.through): self.length += live.bounds[b][1] - live.bounds[b][0]

  def meets(self, other: Span) -> bool:
    if self.through & (other.through | other.touched) or self.touched & other.through: return True
    for b in bits_of(self.touched & other.touched):
      (s, e), (t, f) = self.parts[b], other.parts[b]
      if s < f and t < e: return True
    return False

  def crosses_call(self, live: Liveness) -> bool:
    """Whether a call begins while the value is alive and ends before it does."""
    if self.through & live.call_blocks: return True
    for b in bits_of(self.touched & live.call_blocks):
      start, end = self.parts[b]
      k = bisect_right(live.calls, start)
      if k < len(live.calls) and live.calls[k] < end: return True
    return False

def bits_of(mask: int) -> Iterator[int]:
  while mask:
    low = mask & -mask
    yield low.bit_length() - 1
    mask ^= low

# ---- linear scan -----------------------------------------------------------------------------------------------------

class Register:
  """What the values that a register holds take of it. ends: block -> where the last part ends of those that are not
  alive all through it. As values come in the order of their starts, no part before that matters."""
  __slots__ = ("through", "touched", "ends", "held")
  def __init__(self) -> None:
    self.through = self.touched = 0
    self.ends: dict[int, int] = {}
    self.held: list[UOp] = []

  def is_free(self, span: Span) -> bool:
    if self.through & (span.through | span.touched) or self.touched & span.through: return False
    common = self.touched & span.touched
    return not common or all(self.ends[b] <= span.parts[b][0] for b in bits_of(common))

  def take(self, u: UOp, span: Span) -> None:
    self.through |= span.through
    self.touched |= span.touched
    for b, (_, end) in span.parts.items(): self.ends[b] = end
    self.held.append(u)

  def drop(self, u: UOp, span: Span) -> None:
    self.through &= ~span.through
    self.touched &= ~span.touched
    self.held.remove(u)

class Scan:
  """Goes through the values by their starts."""
  def __init__(self, live: Liveness, banks: dict[str, Bank], hints: Hints, repeatable: Callable[[UOp], bool]):
    self.live, self.banks, self.hints, self.repeatable = live, banks, hints, repeatable
    self.places: dict[UOp, Place] = {}
    self.registers = {r: Register() for bank in banks.values() for r in bank.registers}
    self.saved = {kind: tuple([r for r in bank.registers if r in bank.saved]) for kind, bank in banks.items()}
    self.idle_slots: list[tuple[int, int]] = []                      # (end of what it held, number)
    self.slots = 0
    for u in sorted(live.order, key=self.turn): self.visit(u)

  def turn(self, u: UOp) -> tuple[int, bool]:
    """By their starts; of a block's parameters first those that would like the register of what is passed."""
    start = self.live.start[u]
    known = [h for h in self.hints.get(u, ()) if isinstance(h, int) or self.live.start.get(h, start) < start]
    return start, not known

  def visit(self, u: UOp) -> None:
    kind = bank_of(u)
    span = self.live.spans[u]
    usable = self.saved[kind] if span.crosses_call(self.live) else self.banks[kind].registers
    chosen = self.choose(u, self.saved[kind], span) if self.passes_calls(u, span) else None
    if chosen is None: chosen = self.choose(u, usable, span)
    if chosen is None: chosen = self.evict(u, usable, span)
    if chosen is None: return self.spill(u)
    self.registers[chosen].take(u, span)
    self.places[u] = chosen

  def passes_calls(self, u: UOp, span: Span) -> bool:
    """Whether what comes later, as deep in loops, and would like u's register is kept across calls."""
    live = self.live
    later = [h for h in self.hints.get(u, ()) if h in live.spans and h not in self.places]
    return any(live.frequency(h) >= live.frequency(u) and live.spans[h].crosses_call(live) and
               not span.meets(live.spans[h]) for h in later)

  def choose(self, u: UOp, usable: tuple[int, ...], span: Span) -> int | None:
    """A free register: one that saves a move, that of the first operand, else the first. A value that no jump passes
    leaves a parameter's register, if it can, to what jumps pass for that."""
    hints = self.hints.get(u, ())
    wanted = {self.places.get(s) for s in u.src if s.op is Ops.PHI and not hints}
    for hint in (*hints, *u.src[:1]):
      place = self.places.get(hint) if isinstance(hint, UOp) else hint
      if not isinstance(place, int) or place not in usable or hint in u.src and place in wanted: continue
      if self.registers[place].is_free(span): return place
    free = [r for r in usable if self.registers[r].is_free(span)]
    return next((r for r in free if r not in wanted), free[0] if free else None)

  def density(self, u: UOp) -> float:
    """How much a register is worth to u: uses for each position that it would hold it."""
    worth = self.live.weight[u] / self.live.spans[u].length
    return worth / 2 if self.repeatable(u) else worth

  def evict(self, u: UOp, usable: tuple[int, ...], span: Span) -> int | None:
    """The register whose values that are in the way need it least, if less than u does; they lose it."""
    now, best, least = self.live.start[u], None, self.density(u)
    losers: list[UOp] = []
    for r in usable:
      register = self.registers[r]
      register.held = [v for v in register.held if self.live.end[v] > now]
      rivals = [v for v in register.held if self.live.spans[v].meets(span)]
      needed = sum(map(self.density, rivals))
      if needed < least: best, least, losers = r, needed, rivals
    if best is None: return None
    for v in losers:
      self.registers[best].drop(v, self.live.spans[v])
      self.spill(v)
    return best

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

def allocate(live: Liveness, banks: dict[str, Bank], hints: Hints, repeatable: Callable[[UOp], bool]) -> Allocation:
  """Places for the values of a placed function. repeatable: whether a node may be computed again at each use."""
  scan = Scan(live, banks, hints, repeatable)
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
