# linearize.py: kernel DAG -> structured list. In: a kernel after lower. Out: every node once, sources before users,
# each in the innermost loop whose variable it depends on, and RANGE .. END properly nested.   (chapter 3)
from __future__ import annotations
from typing import Iterable
from picograd.ops.index import sum_of
from picograd.ops.ops import Ops
from picograd.ops.uop import UOp, memory_of, ranges_inside, toposort

EFFECTS = frozenset({Ops.END, Ops.STORE, Ops.BARRIER, Ops.WMMA, Ops.FETCH})
SILENT = frozenset({Ops.SINK, Ops.AFTER})           # order and nothing else
Regions = dict["UOp | None", list[UOp]]             # innermost loop -> its nodes, sub-loops as their END

def linearize(kernel: UOp) -> list[UOp]:
  order = toposort([kernel])
  inside = ranges_inside(kernel)
  depth = loop_depths(order, inside)
  ends = [u for u in order if u.op is Ops.END]
  ended = {s for u in ends if not is_elementwise(u, inside) for s in u.src}          # stores at the end of a loop
  ended.update(s for u in ends for s in u.src if s.op is not Ops.STORE)
  regions: Regions = {None: []}
  for u in order:
    innermost = max(inside[u], key=depth.__getitem__, default=None)
    if u not in ended: regions.setdefault(innermost, []).append(u)
  written = {memory_of(u) for u in order if u.op is Ops.STORE}
  return emit({r: loops_first(region, written) for r, region in regions.items()})

def loops_first(region: list[UOp], written: set[UOp]) -> list[UOp]:
  """A region where operands that no loop in it needs are loaded after the loops: registers are free by then."""
  out: list[UOp] = []
  waiting: list[UOp] = []
  for u in region:
    waiting.append(u)
    if u.op is not Ops.END or not any(may_wait(v, written) for v in waiting): continue
    needed = set(toposort([v for v in waiting if v.op in EFFECTS or v.op is Ops.LOAD and not may_wait(v, written)]))
    out += [v for v in waiting if v in needed]
    waiting = [v for v in waiting if v not in needed]
  return out + waiting

def may_wait(u: UOp, written: set[UOp]) -> bool: return u.op is Ops.LOAD and memory_of(u) not in written

def loop_depths(order: list[UOp], inside: dict[UOp, frozenset[UOp]]) -> dict[UOp, int]:
  """How deep each loop is nested. An END's first range opens in the loop where the END stands, the others each in the
  one before."""
  depth: dict[UOp, int] = {}
  for u in reversed(order):
    if u.op is not Ops.END: continue
    outside = max((depth[r] for r in inside[u]), default=-1)
    loops = [r for r in u.src if r.op is Ops.RANGE]
    for at, r in enumerate(loops): depth[r] = outside + 1 + at
  return depth

def is_elementwise(end: UOp, inside: dict[UOp, frozenset[UOp]]) -> bool:
  """Whether the stores of a tile of sums may each happen before what the next adds to is read: what they overwrite is
  read for the same element only. Then no second set of registers is needed."""
  stores = [s for s in end.src if s.op is Ops.STORE]
  loops = [s for s in end.src if s.op is Ops.RANGE]
  if len(stores) < 2 or len(stores) + len(loops) < len(end.src): return False
  if any(s.src[0].src[0].op is not Ops.PARAM or not inside[s].issuperset(loops) for s in stores): return False
  places = [sum_of(s.src[0].src[1]) for s in stores]
  if any(place.terms != places[0].terms for place in places): return False
  own = {s.src[0].src[:2]: s for s in stores}
  if len(own) < len(stores): return False
  needs = needs_of(stores, {memory for memory, _ in own})
  if not all(any(map(is_end, needs[s])) for s in stores): return False
  loads = [u for u in union(needs[s] for s in stores) if u.op is Ops.LOAD]
  return all(u.src[0].src[:2] in own and u in needs[own[u.src[0].src[:2]]] for u in loads)

def needs_of(stores: list[UOp], written: set[UOp]) -> dict[UOp, frozenset[UOp]]:
  """For each node above the loops that stores come after: these loops, and loads of what is written, below it."""
  needs: dict[UOp, frozenset[UOp]] = {}
  for u in toposort(stores, is_end):
    below = toposort([u]) if is_end(u) else [u]
    found = frozenset(v for v in below if v.op is Ops.LOAD and v.src[0].src[0] in written)
    needs[u] = found | {u} if is_end(u) else union([found, *[needs[s] for s in u.src]])
  return needs

def union(sets: Iterable[frozenset[UOp]]) -> frozenset[UOp]: return frozenset().union(*sets)

def is_end(u: UOp) -> bool: return u.op is Ops.END

def emit(regions: Regions) -> list[UOp]:
  """Regions nested into one list. A loop's own stores come last in it: what they overwrite has been read by then."""
  out: list[UOp] = []
  todo = regions[None][::-1]
  opened: set[UOp] = set()
  listed = {u for region in regions.values() for u in region if u.op is Ops.STORE}
  while todo:
    u = todo.pop()
    if u.op in SILENT: continue
    if u.op is not Ops.END or u in opened:
      out.append(u)
      continue
    opened.add(u)
    todo.append(u)
    todo.extend(s for s in reversed(u.src) if s.op is not Ops.RANGE and s not in listed)
    for r in reversed(u.src):
      if r.op is not Ops.RANGE: continue
      todo.extend(reversed(regions.get(r, [])))
      todo.append(r)
  return out
