# stream.py: stores that go around the caches. In and out: a kernel after expand. After: a vector store of an output that
# is too large to be found in a cache later has the arg STREAM. Memory then need not be read before it is written, and
# what is in the caches stays there.   (chapter 3)
from __future__ import annotations
from picograd.codegen.optimize import stores_of
from picograd.codegen.target import Target
from picograd.helpers import prod
from picograd.ops.index import bounds, stride_of, sum_of
from picograd.ops.ops import Ops, Streaming
from picograd.ops.uop import Table, UOp, toposort

LINE = 64                                      # bytes: parts of a line would each cost as much as a line
SHORTEST = 16                                  # bytes of a vector that can be stored so

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
