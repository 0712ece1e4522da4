# linearize.py: kernel DAG -> structured list. In: a kernel after lower. Out: every node once, sources before users,
# each in the innermost loop whose variable it depends on, and RANGE .. END properly nested.   (chapter 3)
from __future__ import annotations
from picograd.ops.ops import Ops
from picograd.ops.uop import UOp, ranges_inside, toposort

SILENT = frozenset({Ops.SINK, Ops.AFTER})           # order and nothing else
Regions = dict["UOp | None", list[UOp]]             # innermost loop -> its nodes, sub-loops as their END

def linearize(kernel: UOp) -> list[UOp]:
  order = toposort([kernel])
  inside = ranges_inside(kernel)
  depth = loop_depths(order, inside)
  ended = {s for u in order if u.op is Ops.END for s in u.src}       # loops, and the stores at the end of each
  regions: Regions = {None: []}
  for u in order:
    innermost = max(inside[u], key=depth.__getitem__, default=None)
    if u not in ended: regions.setdefault(innermost, []).append(u)
  return emit(regions)

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

def emit(regions: Regions) -> list[UOp]:
  """Regions nested into one list. A loop's own stores come last in it: what they overwrite has been read by then."""
  out: list[UOp] = []
  todo = regions[None][::-1]
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
    for r in reversed(u.src):
      if r.op is not Ops.RANGE: continue
      todo.extend(reversed(regions.get(r, [])))
      todo.append(r)
  return out
