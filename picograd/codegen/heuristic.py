# heuristic.py: choose Opts by hand-written rules: which range becomes the lanes of a vector, which make a register
# tile, which is shared out to threads. In: kernel and target. Out: a list of Opts.   (chapter 3)
from __future__ import annotations
from picograd.codegen.optimize import Opt, ranges_in
from picograd.codegen.target import Target
from picograd.codegen.tiling import AnyOpt, contraction_opts
from picograd.helpers import ceildiv, prod
from picograd.ops.index import stride_of
from picograd.ops.ops import Axis, Ops
from picograd.ops.uop import UOp, toposort

THREAD_WORK = 1 << 16            # loop iterations under which starting a second thread costs more than it gains
TILE_ROWS = (12, 8, 6, 4, 3, 2)  # rows of a register tile, best first
DOT_SIDE = 4                     # rows and columns of a tile of dot products
SPARE_REGISTERS = 8              # for operands, beside the accumulators
SHORTEST_LANES = 4               # a shorter output row is left to the reductions' lanes

def choose_opts(kernel: UOp, target: Target) -> list[AnyOpt]:
  """Opts for a kernel: lanes, then a register tile where a contraction reuses its operands, then threads."""
  contraction = contraction_opts(kernel, target)
  if contraction is not None: return contraction
  shape = KernelShape(kernel)
  opts = vector_opts(shape, target)
  opts += tile_opts(shape, target, opts)
  return opts + thread_opts(shape, target, opts)

class KernelShape:
  """What the rules look at: loops, reductions, and how far each access moves with each range."""
  def __init__(self, kernel: UOp):
    nodes = toposort([kernel])
    ends = [u for u in nodes if u.op is Ops.END]
    self.stores = [u for u in nodes if u.op is Ops.STORE]
    self.reduces = [u for u in nodes if u.op is Ops.REDUCE]
    self.loads = [u for u in nodes if u.op is Ops.LOAD]
    self.ranges = ranges_in(kernel)
    self.outputs = list(ends[0].src[1:]) if ends else []                 # outermost first
    self.below = {u: frozenset(toposort([u])) for u in self.reduces}

  def loads_below(self, reduce: UOp) -> list[UOp]:
    return [u for u in self.loads if u in self.below[reduce]]
  def depends(self, reduce: UOp, number: int) -> bool:
    return any(r.arg[0] == number and r in self.below[reduce] for r in self.ranges)
  def work(self, reduce: UOp) -> int:
    """Loop iterations of a reduction."""
    return prod(size(r) for r in self.ranges if r in self.below[reduce])

def size(r: UOp): return r.bound.arg
def stride(access: UOp, r: UOp) -> int | None:
  return stride_of(access.src[0].src[1], r)

# ---- lanes -----------------------------------------------------------------------------------------------------------

def vector_opts(shape: KernelShape, target: Target) -> list[Opt]:
  """One output range whose neighbours lie next to each other in memory, and for each reduction that does not depend
  on it one of its own ranges."""
  output = output_lanes(shape, target)
  chosen = [] if output is None else [output]
  for reduce in shape.reduces:
    if output is not None and shape.depends(reduce, output.number): continue
    lanes = reduce_lanes(shape, reduce, target)
    if lanes is not None and lanes not in chosen: chosen.append(lanes)
  return chosen

def output_lanes(shape: KernelShape, target: Target) -> Opt | None:
  for r in reversed(shape.outputs):
    if any(stride(s, r) != 1 for s in shape.stores): continue
    if any(stride(u, r) not in (0, 1) for u in shape.loads): continue
    reduced = any(r in shape.below[u] for u in shape.reduces)
    if shape.reduces and not reduced and size(r) < SHORTEST_LANES: continue
    return lanes_of(r, shape, target)
  return None

def reduce_lanes(shape: KernelShape, reduce: UOp, target: Target) -> Opt | None:
  for r in reversed(reduce.src[1:]):
    strides = {stride(u, r) for u in shape.loads_below(reduce)}
    if 1 in strides and strides <= {0, 1}: return lanes_of(r, shape, target)
  return None

def lanes_of(r: UOp, shape: KernelShape, target: Target) -> Opt | None:
  """As many lanes as the widest type in the kernel's memory has in one register; fewer for a short range."""
  accessed = [u.dtype for u in shape.loads] + [s.src[1].dtype for s in shape.stores]
  lanes = min(target.lanes(dt) for dt in accessed)
  while lanes > 1 and not fits(lanes, size(r), target): lanes //= 2
  return Opt(Axis.VECTOR, r.arg[0], lanes) if lanes > 1 else None

def fits(lanes: int, n: int, target: Target):
  return lanes <= n and (target.masked_vectors or n % lanes == 0)

# ---- register tile ---------------------------------------------------------------------------------------------------

def tile_opts(shape: KernelShape, target: Target, lanes: list[Opt]) -> list[Opt]:
  """For a kernel that is one contraction: as many accumulators as registers allow, so that each loaded value is used
  more than once."""
  if len(shape.reduces) != 1 or not lanes: return []
  reduce = shape.reduces[0]
  loads = shape.loads_below(reduce)
  free = [r for r in shape.outputs if r in shape.below[reduce]]
  rows = [r for r in free if any(stride(u, r) == 0 for u in loads)]         # some operand stands still while r moves
  if len(loads) < 2 or not rows: return []
  along = next((r for r in free if r.arg[0] == lanes[0].number), None)
  if along is None: return dot_tile(rows, target)
  return outer_tile(along, [r for r in rows if r is not along], lanes[0].amount, target)

def outer_tile(along: UOp, rows: list[UOp], lanes: int, target: Target) -> list[Opt]:
  """Two vectors along the lanes' range, and rows of another range."""
  two = size(along) % (2 * lanes) == 0 and size(along) > 2 * lanes
  tile = [Opt(Axis.UPCAST, along.arg[0], 2)] if two else []
  budget = (target.registers - SPARE_REGISTERS) // (1 + two)
  for r in reversed(rows):
    amount = tile_side(r, budget)
    if amount > 1: return tile + [Opt(Axis.UPCAST, r.arg[0], amount)]
  return tile

def dot_tile(rows: list[UOp], target: Target) -> list[Opt]:
  """Where the lanes run along the reduction: a square of dot products."""
  tile: list[Opt] = []
  budget = target.registers - SPARE_REGISTERS
  for r in reversed(rows):
    amount = tile_side(r, min(DOT_SIDE, budget))
    budget //= amount
    if amount > 1: tile.append(Opt(Axis.UPCAST, r.arg[0], amount))
  return tile

def tile_side(r: UOp, most: int):
  return next((n for n in TILE_ROWS if n <= most and size(r) % n == 0), 1)

# ---- threads ---------------------------------------------------------------------------------------------------------

def thread_opts(shape: KernelShape, target: Target, opts: list[Opt]) -> list[Opt]:
  """The outermost range with a step for every thread, unless more than a little work would run in each of them."""
  if target.threads < 2 or not shape.outputs: return []
  works = {u: shape.work(u) for u in shape.reduces}
  total = max([prod(size(r) for r in shape.outputs), *works.values()])
  if total < THREAD_WORK: return []
  for r in shape.outputs[:2]:
    repeated = sum(work for u, work in works.items() if r not in shape.below[u])
    steps = ceildiv(size(r), prod(opt.amount for opt in opts if opt.number == r.arg[0]))
    if steps >= target.threads and repeated <= total // 16: return [Opt(Axis.THREAD, r.arg[0], target.threads)]
  return []
