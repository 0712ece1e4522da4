# heuristic.py: choose Opts by hand-written rules: which range becomes the lanes of a vector, which make a register tile,
# which is shared out to threads. In: kernel and target. Out: a list of Opts.   (chapter 3)
from __future__ import annotations
from picograd.codegen.optimize import Opt, ranges_in
from picograd.codegen.target import Target
from picograd.helpers import prod
from picograd.ops.index import stride_of
from picograd.ops.ops import Axis, Ops
from picograd.ops.uop import UOp, toposort

THREAD_WORK = 1 << 16            # loop iterations under which starting a second thread costs more than it gains
TILE_ROWS = (12, 8, 6, 4, 3, 2)  # rows of a register tile, best first

def choose_opts(kernel: UOp, target: Target) -> list[Opt]:
  """Opts for a kernel: lanes, then a register tile where a contraction reuses its operands, then threads."""
  shape = KernelShape(kernel)
  opts = vector_opts(shape, target)
  opts += tile_opts(shape, target, opts)
  return opts + thread_opts(shape, target, opts)

class KernelShape:
  """What the rules look at: loops, reductions, and how far each access moves with each range."""
  def __init__(self, kernel: UOp):
    nodes = toposort([kernel])
    self.ends = [u for u in nodes if u.op is Ops.END]
    self.stores = [u for u in nodes if u.op is Ops.STORE]
    self.reduces = [u for u in nodes if u.op is Ops.REDUCE]
    self.loads = [u for u in nodes if u.op is Ops.LOAD]
    self.ranges = ranges_in(kernel)
    self.outputs = [r for r in (self.ends[0].src[1:] if self.ends else ())]     # outermost first
    self.below = {u: frozenset(v for v in toposort([u]) if v.op in (Ops.RANGE, Ops.LOAD)) for u in self.reduces}

  def size(self, r: UOp) -> int: return r.bound.arg
  def stride(self, access: UOp, r: UOp) -> int | None: return stride_of(access.src[0].src[1], r)
  def loads_below(self, reduce: UOp) -> list[UOp]: return [u for u in self.loads if u in self.below[reduce]]
  def free_ranges(self, reduce: UOp) -> list[UOp]:
    """The output ranges that a reduction's value depends on."""
    return [r for r in self.outputs if r in self.below[reduce]]

# ---- lanes -----------------------------------------------------------------------------------------------------------

def vector_opts(shape: KernelShape, target: Target) -> list[Opt]:
  """One output range whose neighbours lie next to each other in memory, and for each reduction that does not depend on it
  one of its own ranges."""
  chosen: list[Opt] = []
  output = output_lanes(shape, target)
  if output is not None: chosen.append(output)
  for reduce in shape.reduces:
    if output is not None and any(r.arg[0] == output.number for r in shape.below[reduce] if r.op is Ops.RANGE): continue
    lanes = reduce_lanes(shape, reduce, target)
    if lanes is not None and lanes not in chosen: chosen.append(lanes)
  return chosen

def output_lanes(shape: KernelShape, target: Target) -> Opt | None:
  for r in reversed(shape.outputs):
    if any(shape.stride(s, r) != 1 for s in shape.stores): continue
    strides = [shape.stride(u, r) for u in shape.loads]
    if any(s not in (0, 1) for s in strides): continue
    if shape.reduces and all(r not in shape.below[u] for u in shape.reduces) and not worth_lanes(shape.size(r)): continue
    return lanes_of(r, shape, target)
  return None

def worth_lanes(size: int) -> bool: return size >= 4

def reduce_lanes(shape: KernelShape, reduce: UOp, target: Target) -> Opt | None:
  for r in reversed(reduce.src[1:]):
    strides = [shape.stride(u, r) for u in shape.loads_below(reduce)]
    if any(s not in (0, 1) for s in strides) or 1 not in strides: continue
    return lanes_of(r, shape, target)
  return None

def lanes_of(r: UOp, shape: KernelShape, target: Target) -> Opt | None:
  """As many lanes as the widest type in the kernel's memory has in one register; fewer for a short range."""
  accesses = [u.dtype for u in shape.loads] + [s.src[1].dtype for s in shape.stores]
  lanes = target.lanes(max(accesses, key=lambda dt: dt.itemsize))
  while lanes > 1 and (lanes > shape.size(r) or (not target.masked_vectors and shape.size(r) % lanes)): lanes //= 2
  return Opt(Axis.VECTOR, r.arg[0], lanes) if lanes > 1 else None

# ---- register tile ---------------------------------------------------------------------------------------------------

def tile_opts(shape: KernelShape, target: Target, opts: list[Opt]) -> list[Opt]:
  """For a kernel that is one contraction: several vectors along the lanes' range and several rows, as many accumulators as
  registers allow, so that each loaded value is used more than once."""
  if len(shape.reduces) != 1 or not opts or len(shape.loads_below(shape.reduces[0])) < 2: return []
  reduce, lanes = shape.reduces[0], opts[0]
  free = shape.free_ranges(reduce)
  if not reuses(shape, reduce, free): return []
  along = [r for r in free if r.arg[0] == lanes.number]
  rows = [r for r in free if r not in along and any(shape.stride(u, r) == 0 for u in shape.loads_below(reduce))]
  budget = target.registers - 8
  tile: list[Opt] = []
  for r in along:
    if shape.size(r) % (2 * lanes.amount) == 0 and shape.size(r) > 2 * lanes.amount:
      tile.append(Opt(Axis.UPCAST, r.arg[0], 2))
      budget //= 2
  side = budget if along else 4
  for r in reversed(rows):
    amount = next((n for n in TILE_ROWS if n <= side and shape.size(r) % n == 0), 1)
    if amount == 1: continue
    tile.append(Opt(Axis.UPCAST, r.arg[0], amount))
    if along: break
    budget //= amount
    side = min(side, budget)
  return tile

def reuses(shape: KernelShape, reduce: UOp, free: list[UOp]) -> bool:
  """Whether some load of the reduction stands still while an output range moves."""
  return any(shape.stride(u, r) == 0 for u in shape.loads_below(reduce) for r in free)

# ---- threads ---------------------------------------------------------------------------------------------------------

def thread_opts(shape: KernelShape, target: Target, opts: list[Opt]) -> list[Opt]:
  if target.threads < 2 or not shape.outputs: return []
  work = max(prod(shape.size(r) for r in shape.outputs), *(reduce_work(shape, u) for u in shape.reduces), 0)
  if work < THREAD_WORK: return []
  allowed = [r for r in shape.outputs if sum(reduce_work(shape, u) for u in shape.reduces if r not in shape.below[u]) <= work // 16]
  split = {opt.number: prod(o.amount for o in opts if o.number == opt.number) for opt in opts}
  for r in allowed[:2]:
    steps = -(-shape.size(r) // split.get(r.arg[0], 1))
    if steps >= target.threads: return [Opt(Axis.THREAD, r.arg[0], target.threads)]
  return []

def reduce_work(shape: KernelShape, reduce: UOp) -> int:
  return prod(shape.size(r) for r in shape.below[reduce] if r.op is Ops.RANGE)
