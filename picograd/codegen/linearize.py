# linearize.py: kernel DAG -> structured list. In: a kernel after lower. Out: every node once, sources before users, each
# in the innermost loop whose variable it depends on, and RANGE .. END properly nested.   (chapter 3)
from __future__ import annotations
from picograd.ops.ops import Ops
from picograd.ops.uop import UOp, ranges_inside, toposort

SILENT = frozenset({Ops.SINK, Ops.AFTER})          # order and nothing else

def linearize(kernel: UOp) -> list[UOp]:
  order = toposort([kernel])
  inside = ranges_inside(kernel)
  depth = loop_depths(order, inside)
  ended = {s for u in order if u.op is Ops.END for s in u.src}       # loops, and the stores at the end of each
  regions: dict[UOp | None, list[UOp]] = {}        # innermost loop -> its nodes, sub-loops as their END
  for u in order:
    if u not in ended: regions.setdefault(innermost(inside[u], depth), []).append(u)
  return emit(regions)

def loop_depths(order: list[UOp], inside: dict[UOp, frozenset[UOp]]) -> dict[UOp, int]:
  """How deep each loop is nested. An END's first range opens in the loop where the END stands, the others in the one before."""
  depth: dict[UOp, int] = {}
  for u in reversed(order):
    if u.op is not Ops.END: continue
    at = 1 + max((depth[r] for r in inside[u]), default=-1)
    for r in u.src:
      if r.op is Ops.RANGE: depth[r], at = at, at + 1
  return depth

def innermost(ranges: frozenset[UOp], depth: dict[UOp, int]) -> UOp | None:
  return max(ranges, key=depth.__getitem__, default=None)

def emit(regions: dict[UOp | None, list[UOp]]) -> list[UOp]:
  """Regions nested into one list. A loop's own stores come last in it: what they overwrite has been read by then."""
  out: list[UOp] = []
  todo: list[UOp] = list(reversed(regions.get(None, [])))
  opened: set[UOp] = set()
  while todo:
    u = todo.pop()
    if u.op in SILENT: continue
    if u.op is not Ops.END or u in opened:
      out.append(u)
      continue
    opened.add(u)
    todo.append(u)
    todo.extend(s for s in reversed(u.src) if s.op is not Ops.RANGE)
    for r in reversed([r for r in u.src if r.op is Ops.RANGE]):
      todo.extend(reversed(regions.get(r, [])))
      todo.append(r)
  return out
