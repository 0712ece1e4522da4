# stream.py: what a kernel tells the caches. In and out: a kernel after expand. After: a vector store of an output that
# is too large to be found in a cache later has the arg Streaming.STORE: memory then need not be read before it is
# written, and what is in the caches stays there. Loads of what is read once have a Fetch as arg: how many bytes away
# something is that will be wanted soon, in which cache, and comes while the processor computes. A FETCH asks for what
# will be copied next.   (chapter 3)
from __future__ import annotations
from typing import NamedTuple
from picograd.codegen.optimize import stores_of
from picograd.codegen.target import Target
from picograd.dtype import dtypes
from picograd.helpers import ceildiv, prod
from picograd.ops.index import Sum, bounds, longest, stride_of, sum_of
from picograd.ops.ops import Axis, Fetch, Ops, Streaming
from picograd.ops.uop import Table, UOp, memory_of, ranges_inside, toposort

LINE = 64                                      # bytes: parts of a line would each cost as much as a line
SHORTEST = 16                                  # bytes of a vector that can be stored so

def place_of(access: UOp) -> Sum: return sum_of(access.src[0].src[1])

def advise_caches(kernel: UOp, target: Target) -> UOp:
  kernel = fetch_ahead(stream_large_outputs(kernel, target), target)
  return panels_ahead(kernel, target) if target.l2_bytes else kernel

def stream_large_outputs(kernel: UOp, target: Target) -> UOp:
  read = {u.src[0].src[0] for u in toposort([kernel]) if u.op is Ops.LOAD}
  groups: dict[tuple, list[UOp]] = {}          # stores to one buffer in one nest
  for store, loops in stores_of(kernel): groups.setdefault((store.src[0].src[0], loops), []).append(store)
  table: Table = {}
  for (buffer, loops), stores in groups.items():
    steps = prod(map(longest, loops))
    nbytes = steps * sum(s.src[1].dtype.itemsize for s in stores)
    if buffer in read or nbytes < target.stream_bytes or not fill_lines(stores, loops): continue
    table.update({s: s.replace(arg=Streaming.STORE) for s in stores})
  return kernel.substitute(table)

def fill_lines(stores: list[UOp], loops: tuple[UOp, ...]) -> bool:
  """Whether the stores are aligned vectors of one length that write whole lines, in one step of the innermost loop or
  in successive ones."""
  if not loops or any(len(s.src[0].src) > 2 or s.src[1].dtype.itemsize < SHORTEST for s in stores): return False
  if any(s.src[1].dtype is not stores[0].src[1].dtype for s in stores): return False
  lanes, item = stores[0].src[1].dtype.count, stores[0].src[1].dtype.scalar.itemsize
  places = [place_of(s) for s in stores]
  if any(f % lanes for place in places for f in (*place.terms.values(), place.constant)): return False
  if any(place.terms != places[0].terms for place in places): return False
  runs = runs_of(sorted(place.constant for place in places), lanes)
  in_line = LINE // item
  if all(start % in_line == 0 and length % in_line == 0 for start, length in runs):
    return all(f % in_line == 0 for f in places[0].terms.values())
  return len(runs) == 1 and stride_of(stores[0].src[0].src[1], loops[-1]) == runs[0][1]

def runs_of(starts: list[int], lanes: int) -> list[tuple[int, int]]:
  """Vectors that touch, as stretches: (start, length)."""
  runs: list[tuple[int, int]] = []
  for at in starts:
    if runs and sum(runs[-1]) == at: runs[-1] = (runs[-1][0], runs[-1][1] + lanes)
    else: runs.append((at, lanes))
  return runs

# ---- what will be read soon ------------------------------------------------------------------------------------------

LONGEST_ROW = 1 << 15                          # bytes: two rows have to fit into the nearer caches
LONG_STEP = 8                                  # vectors that one step of a loop takes, at most
LONG_ROW = 1 << 13                             # bytes: two pages of memory, after which a processor has seen a pattern
NEAR, FURTHER = 6 << 10, 10 << 10              # bytes ahead for the first cache; and so many more for the second
SMALL_ROW = 3 << 9                             # bytes: a model with shorter ones most likely lies in the third cache
NOTHING = Fetch(0)
ROOM = 0.4                                     # of the second cache, for a panel that is fetched while another is used
SELDOM_CACHED = 1 << 18                        # bytes of a matrix that other kernels' data displace between two uses

class Pass(NamedTuple):
  """Loads of one memory, by a loop that goes along it."""
  memory: UOp
  loop: UOp
  others: tuple[UOp, ...]                      # the loops around it, outermost first
  loads: list[UOp]

def fetch_ahead(kernel: UOp, target: Target) -> UOp:
  """What is read from memory once is fetched early: the next row of several passes, or what is a little ahead. And what
  a tile adds to, while the one before is computed."""
  found = passes_of(kernel)
  table = rows_ahead(kernel, found, target)
  written = {store.src[0].src[0] for store, _ in stores_of(kernel)}
  read = {memory for u in toposort([kernel]) if u.op is Ops.LOAD and (memory := memory_of(u)).op is Ops.PARAM}
  for p in found:
    if reach(p.loads[0]) < SELDOM_CACHED: continue
    if p.memory in written and not is_read_once(p): table.update(bytes_ahead(p, Fetch(1)))
    again = sum(q.memory is p.memory for q in found) > 1
    if again or not is_read_once(p): continue
    table.update(bytes_ahead(p, fetch_of(p, target, alone=read == {p.memory})))
  return kernel.substitute(table)

def passes_of(kernel: UOp) -> list[Pass]:
  found: dict[tuple[UOp, UOp, tuple[UOp, ...]], list[UOp]] = {}
  for u, inside in ranges_inside(kernel).items():
    if u.op is not Ops.LOAD or u.src[0].src[0].op is not Ops.PARAM or u.dtype.count == 1: continue
    place = place_of(u)
    along = [r for r in inside if 0 < place.terms.get(r, 0) <= u.dtype.count * LONG_STEP and r.axis is not Axis.THREAD]
    others = tuple(sorted(inside - set(along), key=lambda r: r.arg))
    if len(along) == 1: found.setdefault((u.src[0].src[0], along[0], others), []).append(u)
  return [Pass(*key, loads) for key, loads in found.items()]

def stride(p: Pass, r: UOp) -> int: return place_of(p.loads[0]).terms.get(r, 0)

def is_read_once(p: Pass) -> bool: return all(stride(p, r) for r in p.others)

def reach(load: UOp) -> int:
  """Bytes of the memory up to the last that is loaded."""
  return bounds(load.src[0].src[1])[1] * memory_of(load).dtype.itemsize

def fetch_of(p: Pass, target: Target, alone: bool) -> Fetch:
  """How early memory is best asked for. Not at all where rows side by side are read in part: what lies behind that will
  not be wanted. Long ones a processor sees by itself; only products of wide numbers have gained from some help. Of
  short rows whole groups come, into the second cache and from there into the first; of small ones into the first only,
  because they come from a nearer cache."""
  places = {place_of(u).constant for u in p.loads}
  rows = [start for start, _ in runs_of(sorted(places), p.loads[0].dtype.count)]
  if len(rows) == 1 or not target.fetches_rows: return Fetch(target.fetch_bytes)
  length = bounds(p.loop.bound)[1] * stride(p, p.loop)
  if rows[1] - rows[0] >= 2 * length: return NOTHING
  nbytes = length * p.memory.dtype.itemsize
  if nbytes >= LONG_ROW: return NOTHING if alone or p.memory.dtype.itemsize < 4 else Fetch(0, target.fetch_bytes)
  group = len(rows) * nbytes
  near = ceildiv(NEAR, group) * group
  return Fetch(near + ceildiv(FURTHER, group) * group if nbytes >= SMALL_ROW else 0, near)

def bytes_ahead(p: Pass, fetch: Fetch) -> Table:
  step = stride(p, p.loop) * p.memory.dtype.itemsize                 # nearer than that is being read
  fetch = Fetch(*[max(distance, step) if distance else 0 for distance in fetch])
  return {u: u.replace(arg=fetch) for u in p.loads if fetch != NOTHING and begins_line(u)}

def rows_ahead(kernel: UOp, found: list[Pass], target: Target) -> Table:
  """Where several loops in sequence pass over each row: the next row is fetched in the second of them, while the row is
  in the nearest cache."""
  ends = {r: k for k, u in enumerate(toposort([kernel])) if u.op is Ops.END for r in u.src}
  rows: dict[tuple[UOp, UOp, int], list[Pass]] = {}                  # (memory, loop over rows, a row's length)
  for p in found:
    around = [r for r in p.others if r.axis is Axis.LOOP and stride(p, r) > p.loads[0].dtype.count * LONG_STEP]
    if len(around) == 1: rows.setdefault((p.memory, around[0], stride(p, around[0])), []).append(p)
  table: Table = {}
  for (memory, loop, length), passes in rows.items():
    row = length * memory.dtype.itemsize
    if len(passes) < 2 or row > LONGEST_ROW or reach(passes[0].loads[0]) < target.stream_bytes: continue
    second = sorted(passes, key=lambda p: ends[p.loop])[1]           # a loop that needs another's result ends after it
    table.update({u: u.replace(arg=Fetch(row)) for u in second.loads if begins_line(u)})
  return table

def begins_line(load: UOp) -> bool:
  """One load of each line is enough to fetch it."""
  in_line = LINE // load.dtype.scalar.itemsize
  return place_of(load).constant % in_line == 0

# ---- the next panel --------------------------------------------------------------------------------------------------

class Panel(NamedTuple):
  """A part of a matrix that a nest copies, row by row."""
  first: UOp                                   # of its loads
  copy: UOp
  depth: UOp                                   # the loop of the copy over its rows
  step: int                                    # from row to row of the copy, in elements
  lines: int                                   # that a row is in
  block: UOp                                   # the loop whose next step copies the next one

def panels_ahead(kernel: UOp, target: Target) -> UOp:
  """While loops read a panel that was copied, the next one is fetched from where it lies."""
  copies = [u for u in toposort([kernel]) if u.op is Ops.END and is_copy(u)]
  inside = ranges_inside(kernel) if copies else {}
  coming = [panel for copy in copies if (panel := panel_of(copy, inside)) and finds_room(panel, target)]
  if not coming: return kernel
  new: Table = {}
  for u in inside:                                                     # a loop may come after others that fetch, too
    new[u] = u.with_src(tuple([new[s] for s in u.src]))
    for panel in coming if u.op is Ops.END else ():
      fetch = fetch_in(panel, u, inside)
      if fetch: new[u] = new[u].with_src((fetch, *new[u].src))
  return new[kernel]

def is_copy(end: UOp) -> bool:
  """Whether a nest does nothing but copy vectors from a PARAM to LOCAL memory."""
  stores = [s for s in end.src if s.op is not Ops.RANGE]
  if any(s.op is not Ops.STORE or memory_of(s).op is not Ops.BUFFER for s in stores): return False
  loads = [copied(s) for s in stores]
  return all(u.op is Ops.LOAD and memory_of(u).op is Ops.PARAM and u.dtype.count > 1 for u in loads)

def copied(store: UOp) -> UOp:
  """The load whose value a store copies, as it is or widened."""
  value = store.src[1]
  return value.src[0] if value.op is Ops.CAST else value

def panel_of(copy: UOp, inside: dict[UOp, frozenset[UOp]]) -> Panel | None:
  """What a nest copies, if it is rows of few lines, and there is another to come."""
  stores = [s for s in copy.src if s.op is Ops.STORE]
  loops = [r for r in copy.src if r.op is Ops.RANGE and longest(r) > 1]
  first = min(map(copied, stores), key=lambda load: place_of(load).constant)
  start, last = place_of(first), max(place_of(copied(s)).constant for s in stores)
  lanes, in_line = first.dtype.count, LINE // memory_of(first).dtype.itemsize
  deep = [r for r in loops if start.terms.get(r, 0) > lanes * LONG_STEP]
  blocks = [r for r in inside[copy] if r.axis is not Axis.THREAD and start.terms.get(r)]
  if len(deep) != 1 or not blocks: return None
  length = last - start.constant + lanes + sum(start.terms.get(r, 0) * (longest(r) - 1) for r in loops if r not in deep)
  lines = ceildiv(length, in_line) + any(f % in_line for f in (*start.terms.values(), start.constant))
  step = place_of(stores[0]).terms.get(deep[0], 0)
  return Panel(first, copy, deep[0], step, lines, innermost(blocks))

def innermost(ranges: list[UOp]) -> UOp: return max(ranges, key=lambda r: (r.axis, r.arg[0]))

def finds_room(panel: Panel, target: Target) -> bool:
  """Whether the next panel, if the second cache does not hold all of them, can wait there beside what is used
  meanwhile. The sets of a cache are counted by lines: rows a power of two apart meet in few of them."""
  stride = place_of(panel.first).terms[panel.depth] * memory_of(panel.first).dtype.itemsize
  share = min(1, panel.lines * LINE / (stride & -stride))
  fits = longest(panel.depth) * panel.lines * LINE <= target.l2_bytes * share * ROOM
  return fits and panel.lines <= LONG_STEP and reach(panel.first) >= target.l2_bytes // 2

def fetch_in(panel: Panel, end: UOp, inside: dict[UOp, frozenset[UOp]]) -> UOp | None:
  """What a loop over the rows of a panel fetches, if tiles follow each other in a loop around it: one line of each row
  of the next panel in each of the last tiles. Behind the last panel lies what nobody reads: to fetch it is no harm."""
  loads = [u for u in toposort([end], lambda u: u.op is Ops.END and u is not end) if u.op is Ops.LOAD]
  reads = [u for u in loads if panel.copy in u.src[0].src[0].src]
  if not reads: return None
  along = [r for r, step in place_of(reads[0]).terms.items() if step == panel.step and r in end.src]
  tiles = [r for r in inside[end] - inside[panel.copy] if r not in place_of(reads[0]).terms]
  if len(along) != 1 or not tiles: return None
  tile = innermost(tiles)
  line = tile + panel.lines - tile.bound                               # the last tile's is the last
  here = {r: r.like(0) for r in panel.copy.src if r.op is Ops.RANGE}
  memory, position = panel.first.src[0].src[:2]
  start = position.substitute({**here, panel.depth: along[0], panel.block: panel.block + 1})
  place = start + (line < 0).where(0, line) * (LINE // memory.dtype.itemsize)
  return UOp(Ops.FETCH, dtypes.void, (memory.index(place),))
