# stream.py: what a kernel tells the caches. In and out: a kernel after expand. After: a vector store of an output that
# is too large to be found in a cache later has the arg Streaming.STORE: memory then need not be read before it is
# written, and what is in the caches stays there. Where several loops pass over a row, loads of the second have as arg
# how many bytes away the next row is, which is fetched while the processor computes.   (chapter 3)
from __future__ import annotations
from picograd.codegen.optimize import stores_of
from picograd.codegen.target import Target
from picograd.helpers import prod
from picograd.ops.index import bounds, stride_of, sum_of
from picograd.ops.ops import Axis, Ops, Streaming
from picograd.ops.uop import Table, UOp, ranges_inside, toposort

LINE = 64                                      # bytes: parts of a line would each cost as much as a line
SHORTEST = 16                                  # bytes of a vector that can be stored so

def advise_caches(kernel: UOp, target: Target) -> UOp:
  return fetch_rows_ahead(stream_large_outputs(kernel, target), target)

def stream_large_outputs(kernel: UOp, target: Target) -> UOp:
  read = {u.src[0].src[0] for u in toposort([kernel]) if u.op is Ops.LOAD}
  groups: dict[tuple, list[UOp]] = {}          # stores to one buffer in one nest
  for store, loops in stores_of(kernel): groups.setdefault((store.src[0].src[0], loops), []).append(store)
  table: Table = {}
  for (buffer, loops), stores in groups.items():
    steps = prod(bounds(r.bound)[1] for r in loops)
    nbytes = steps * sum(s.src[1].dtype.itemsize for s in stores)
    if buffer in read or nbytes < target.stream_bytes or not fill_lines(stores, loops): continue
    table.update({s: s.replace(arg=Streaming.STORE) for s in stores})
  return kernel.substitute(table)

def fill_lines(stores: list[UOp], loops: tuple[UOp, ...]) -> bool:
  """Whether the stores are aligned vectors that write whole lines, in one step of the innermost loop or in successive
  ones."""
  if not loops or any(len(s.src[0].src) > 2 or s.src[1].dtype.itemsize < SHORTEST for s in stores): return False
  lanes, item = stores[0].src[1].dtype.count, stores[0].src[1].dtype.scalar.itemsize
  places = [sum_of(s.src[0].src[1]) for s in stores]
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

# ---- rows that several loops pass over -------------------------------------------------------------------------------

LONGEST_ROW = 1 << 15                          # bytes: two rows have to fit into the nearer caches

def fetch_rows_ahead(kernel: UOp, target: Target) -> UOp:
  passes: dict[tuple, dict[UOp, list[UOp]]] = {}         # (memory, loop over rows, a row's length) -> loops -> loads
  for u, inside in ranges_inside(kernel).items():
    if u.op is not Ops.LOAD or u.src[0].src[0].op is not Ops.PARAM or u.dtype.count == 1: continue
    loops = sorted((r for r in inside if r.axis is not Axis.THREAD), key=lambda r: r.arg)
    place = sum_of(u.src[0].src[1])
    rows = [r for r in loops if r.axis is Axis.LOOP and place.terms.get(r, 0) > u.dtype.count * LONG_ROW]
    columns = [r for r in loops if 0 < place.terms.get(r, 0) <= u.dtype.count * LONG_ROW]
    if len(rows) != 1 or len(columns) != 1: continue
    passes.setdefault((u.src[0].src[0], rows[0], place.terms[rows[0]]), {}).setdefault(columns[0], []).append(u)
  table: Table = {}
  for (memory, rows, length), loads in passes.items():
    row = length * memory.dtype.itemsize
    nbytes = bounds(rows.bound)[1] * row * target.threads
    if len(loads) < 2 or row > LONGEST_ROW or nbytes < target.stream_bytes: continue
    _, second, *_ = loads.values()
    table.update({u: u.replace(arg=row) for u in second if begins_line(u)})
  return kernel.substitute(table)

LONG_ROW = 8                                   # vectors that one step of a loop takes, at most

def begins_line(load: UOp) -> bool:
  """One load of each line is enough to fetch it."""
  in_line = LINE // load.dtype.scalar.itemsize
  return sum_of(load.src[0].src[1]).constant % in_line == 0
