# heuristic.py: choose Opts by hand-written rules: which range becomes the lanes of a vector, which make a register
# tile, which is shared out to threads. In: kernel and target. Out: a list of Opts.   (chapter 3)
from __future__ import annotations
from picograd.codegen.optimize import (AnyOpt, Opt, Precompute, common_start, computed_again, nests_of, ranges_in,
                                      stores_of)
from picograd.codegen.target import Target
from picograd.codegen.tiling import contraction_opts
from picograd.helpers import ceildiv, dedup, prod
from picograd.ops.index import stride_of
from picograd.ops.ops import Axis, Ops, TRANSCENDENTAL
from picograd.ops.uop import UOp, ranges_inside, toposort

THREAD_WORK = 1 << 15            # loop iterations under which starting a second thread costs more than it gains
TILE_ROWS = (12, 8, 6, 4, 3, 2)  # rows of a register tile, best first
DOT_SIDE = 4                     # rows and columns of a tile of dot products
SPARE_REGISTERS = 8              # for operands, beside the accumulators
SHORTEST_LANES = 4               # a shorter output row is left to the reductions' lanes
ACCUMULATORS = 8                 # additions under way at once: as many as hide how long one takes
LONG_LOOP = 16                   # rounds of a loop after which a few scalar steps do not count
STRIP_BYTES = 1 << 14            # accumulators that leave room in the nearest cache
LINE = 64                        # bytes of memory that are written at once
SHUFFLED = 16                    # bytes within which every machine can move elements about
PAGE = 4096                      # bytes
SHORTEST_STRIP = 8               # vectors
WINDOW = 16                      # elements that are reduced without a loop

def choose_opts(kernel: UOp, target: Target) -> list[AnyOpt]:
  """Opts for a kernel: those of a contraction, or those of each of its loop nests, then threads."""
  contraction = contraction_opts(kernel, target)
  if contraction is not None: return contraction
  around = loops_around(kernel)
  opts: list[Opt] = []
  for nest in nests_of([(store, loops[len(around):]) for store, loops in stores_of(kernel)]):
    chosen, shape = {opt.number for opt in opts}, KernelShape(UOp.sink(nest))
    opts += [opt for opt in nest_opts(shape, target) if opt.number not in chosen]
  return [*opts, *precompute_opts(kernel, target), *thread_opts(KernelShape(kernel), target, opts)]

def precompute_opts(kernel: UOp, target: Target) -> list[AnyOpt]:
  """What several rows of one nest would compute again is computed before them, if it stays in the nearest cache."""
  most = min(target.l1_bytes // 2, target.scratch_bytes)
  return [Precompute(most)] if len(stores_of(kernel)) == 1 and computed_again(kernel, most) else []

def loops_around(kernel: UOp) -> tuple[UOp, ...]:
  """The loops that several nests of a kernel are in; of a kernel that is one nest, none."""
  nests = dedup(loops for _, loops in stores_of(kernel))
  return common_start(nests) if len(nests) > 1 else ()

def nest_opts(shape: KernelShape, target: Target) -> list[Opt]:
  """Opts for a loop nest: lanes, then a register tile where a contraction reuses its operands."""
  if not target.vector_bytes: return scalar_opts(shape, target)
  turned = transpose_opts(shape, target)
  if turned: return turned
  opts = vector_opts(shape, target)
  tile = tile_opts(shape, target, opts)
  if not tile: opts = stream_opts(shape, target, opts)
  elif not target.masked_vectors: opts = [o for opt in opts for o in (*rest_apart(shape, opt.number, opt.amount), opt)]
  return opts + [opt for opt in tile if opt not in opts]

class KernelShape:
  """What the rules look at: loops, reductions, and how far each access moves with each range."""
  def __init__(self, kernel: UOp):
    nodes = toposort([kernel])
    ends = [u for u in nodes if u.op is Ops.END]
    self.nests = stores_of(kernel)
    self.stores = [u for u in nodes if u.op is Ops.STORE]
    self.reduces = [u for u in nodes if u.op is Ops.REDUCE]
    self.loads = [u for u in nodes if u.op is Ops.LOAD]
    self.transcendental = {u.op for u in nodes if u.op in TRANSCENDENTAL}
    self.ranges = ranges_in(kernel)
    loops = [s for s in ends[-1].src if s.op is Ops.RANGE] if ends else []
    self.outputs = [r for r in loops if r.axis is Axis.LOOP]             # outermost first; others keep their order
    self.below = {u: frozenset(toposort([u])) for u in self.reduces}
    self.inside = ranges_inside(kernel)

  def loads_below(self, reduce: UOp) -> list[UOp]:
    return [u for u in self.loads if u in self.below[reduce]]
  def depends(self, reduce: UOp, number: int) -> bool:
    return any(r.arg[0] == number and r in self.below[reduce] for r in self.ranges)
  def repeats(self, number: int, reduce: UOp) -> bool:
    """Whether a loop goes over a whole reduction again and again, with other values."""
    return any(r.arg[0] == number for r in self.inside[reduce])
  def stands_still(self, reduce: UOp, r: UOp) -> bool:
    """Whether a reduction gives the same in every step of r: it reads nothing that a step has stored, either."""
    stored = {s.src[0].src[0] for s in self.stores}
    return r not in self.below[reduce] and all(u.src[0].src[0] not in stored for u in self.loads_below(reduce))
  def work(self, reduce: UOp) -> int:
    """Loop iterations of a reduction."""
    return prod(size(r) for r in self.ranges if r in self.below[reduce])

def size(r: UOp): return r.bound.arg
def stride(access: UOp, r: UOp) -> int | None:
  return stride_of(access.src[0].src[1], r)

# ---- lanes -----------------------------------------------------------------------------------------------------------

def vector_opts(shape: KernelShape, target: Target) -> list[Opt]:
  """One output range whose neighbours lie next to each other in memory, and for each reduction that does not depend
  on it one of its own ranges. A reduction of a few elements that fill no vector is written out instead."""
  output = output_lanes(shape, target)
  chosen = [] if output is None else [output]
  across: list[UOp] = []                                               # reductions that have lanes of their own
  for reduce in shape.reduces:
    if output is not None and shape.depends(reduce, output.number): continue
    lanes = reduce_lanes(shape, reduce, target)
    if lanes is None: continue
    if is_window(reduce): chosen += written_out(reduce)
    elif not any(has_two(u, [*chosen, lanes]) or any(shape.repeats(opt.number, u) for opt in [*chosen, lanes])
                 for u in [*across, reduce]):
      chosen.append(lanes)
      across.append(reduce)
  return dedup(chosen)

def has_two(reduce: UOp, opts: list[Opt]) -> bool:
  """Whether the Opts make lanes of two of its ranges."""
  return len({opt.number for opt in opts if opt.axis is Axis.VECTOR} & {r.arg[0] for r in reduce.src[1:]}) > 1

def is_window(reduce: UOp) -> bool:
  """Whether a reduction has few elements, and of those that may be neighbours fewer still: a window of pooling."""
  sizes = [size(r) for r in reduce.src[1:]]
  return max(sizes) < SHORTEST_LANES and prod(sizes) <= WINDOW

def written_out(reduce: UOp) -> list[Opt]: return [Opt(Axis.UNROLL, r.arg[0], size(r)) for r in reduce.src[1:]]

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
  while lanes > size(r): lanes //= 2
  return Opt(Axis.VECTOR, r.arg[0], lanes) if lanes > 1 else None


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
  if along is None: return [] if any(all(stride(u, r) for r in free) for u in loads) else dot_tile(rows, target)
  across = [r for r in rows if r is not along]
  return outer_tile(along, across, lanes[0].amount, target) if across else []

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

def scalar_opts(shape: KernelShape, target: Target) -> list[Opt]:
  """Without SIMD: a square of accumulators for a contraction, short reductions written out."""
  if len(shape.reduces) != 1: return []
  reduce = shape.reduces[0]
  loads = shape.loads_below(reduce)
  rows = [r for r in shape.outputs if r in shape.below[reduce] and any(stride(u, r) == 0 for u in loads)]
  tile = dot_tile(rows, target) if len(loads) > 1 else []
  steps = prod(opt.amount for opt in tile)
  for r in reversed(reduce.src[1:]):
    steps *= size(r)                                                 # each of them adds to a register of its own
    if steps > target.registers - SPARE_REGISTERS: break
    tile.append(Opt(Axis.UNROLL, r.arg[0], size(r)))
  return tile

# ---- kernels whose speed is the memory's -----------------------------------------------------------------------------

def stream_opts(shape: KernelShape, target: Target, lanes: list[Opt]) -> list[Opt]:
  """The lanes' Opts with what keeps memory busy: several accumulators for sums along memory, a strip of them for sums
  across it. Steps that fill no vector are set apart."""
  inner = {opt.number: 1 for opt in lanes}                 # lanes' range -> vectors that one step of its loop takes
  tile: list[Opt] = []
  at_once = max(1, target.registers // 8) if shape.transcendental else ACCUMULATORS      # such a loop has constants
  for reduce in shape.reduces:
    along = next((r for r in reduce.src[1:] if r.arg[0] in inner), None)
    if along is None: tile += across_memory(shape, reduce, target, lanes)
    else:
      lane_count = next(opt.amount for opt in lanes if opt.number == along.arg[0])
      room = (target.registers - SPARE_REGISTERS) // ceildiv(lane_count, target.lanes(reduce.dtype))
      rows = rows_at_once(shape, reduce, target)
      tile += rows
      vectors = unrolled(size(along) // lane_count, min(at_once, room) // prod(opt.amount for opt in rows))
      inner[along.arg[0]] = vectors
      if vectors > 1: tile.append(Opt(Axis.UNROLL, along.arg[0], vectors))
      tile += in_step(shape, along, lanes, vectors)
  if not shape.reduces: tile += abreast(shape, target, lanes)
  tile = first_of_each(tile)
  inner.update({opt.number: opt.amount for opt in tile if opt.axis is Axis.UPCAST and opt.number in inner})
  rests = [rest for opt in lanes for rest in rest_apart(shape, opt.number, opt.amount * inner[opt.number])]
  return rests + lanes + tile

def first_of_each(opts: list[Opt]) -> list[Opt]:
  """Of what several reductions want for a range, the first; and what is set apart for it."""
  return list({(opt.axis is Axis.LOOP, opt.number): opt for opt in reversed(opts)}.values())[::-1]

def rows_at_once(shape: KernelShape, reduce: UOp, target: Target) -> list[Opt]:
  """Several rows that are reduced side by side, where each is read once: memory answers many places sooner. Reductions
  of other rows beside it take their share of places."""
  loads = shape.loads_below(reduce)
  rows = [r for r in shape.outputs if any(stride(u, r) for u in loads)]
  if not rows or not shape.transcendental.isdisjoint(u.op for u in shape.below[reduce]): return []
  if any(r not in shape.below[reduce] for r in shape.outputs): return []               # it goes over a row again
  beside = [u for u in shape.reduces if rows[-1] in shape.below[u]]
  if any(a is not b and a in shape.below[b] for a in beside for b in beside): return []
  amount = tile_side(rows[-1], target.streams // len(beside))
  return [Opt(Axis.UPCAST, rows[-1].arg[0], amount)] if amount > 1 else []

def abreast(shape: KernelShape, target: Target, lanes: list[Opt]) -> list[Opt]:
  """Several vectors of a long chain of operations at once. Logarithms and sines have branches to their rare cases."""
  if shape.transcendental != {Ops.EXP2}: return []
  steps = {opt.number: size(r) // opt.amount for opt in lanes for r in shape.outputs if r.arg[0] == opt.number}
  amounts = {number: unrolled(n, target.abreast) for number, n in steps.items()}
  return [Opt(Axis.UPCAST, number, amount) for number, amount in amounts.items() if amount > 1]

def rest_apart(shape: KernelShape, number: int, amount: int) -> list[Opt]:
  r = next(r for r in shape.ranges if r.arg[0] == number)
  return [Opt(Axis.LOOP, number, amount)] if size(r) % amount else []

def unrolled(steps: int, most: int) -> int:
  """How many steps to write out: a divisor near the most wanted; for a long loop just that many."""
  divisor = next(n for n in range(min(most, steps), 0, -1) if steps % n == 0) if steps else 1
  return most if 2 * divisor < most and steps >= LONG_LOOP * most else divisor

def in_step(shape: KernelShape, along: UOp, lanes: list[Opt], vectors: int) -> list[Opt]:
  """A loop over the results that is as long as a reduction's takes as large steps: what both compute is found equal."""
  same = [r for r in shape.outputs if size(r) == size(along) and any(r.arg[0] == opt.number for opt in lanes)]
  return [Opt(Axis.UPCAST, r.arg[0], vectors) for r in same if vectors > 1]

def across_memory(shape: KernelShape, reduce: UOp, target: Target, lanes: list[Opt]) -> list[Opt]:
  """A reduction whose steps are far apart in memory passes over several rows at once, and over as many columns as have
  room for their accumulators: all of them in registers where rows are short, else a strip in the nearest cache."""
  r = reduce.src[-1]
  column = next((c for c in shape.outputs if c in shape.below[reduce] and lanes and c.arg[0] == lanes[0].number), None)
  if column is None or r.axis is not Axis.REDUCE: return []
  vectors = size(column) // lanes[0].amount
  is_narrow = 1 < vectors <= ACCUMULATORS
  rows = unrolled(size(r), ACCUMULATORS // vectors if is_narrow else ACCUMULATORS)
  opts = rest_apart(shape, r.arg[0], rows) + ([Opt(Axis.UNROLL, r.arg[0], rows)] if rows > 1 else [])
  if is_narrow: return [*opts, Opt(Axis.UPCAST, column.arg[0], vectors)]
  strip = min(vectors // target.threads, STRIP_BYTES // target.vector_bytes)
  total = shape.work(reduce) * max((u.dtype.itemsize for u in shape.loads_below(reduce)), default=0)
  if strip < SHORTEST_STRIP or total < target.l2_bytes: return opts
  return [*opts, Opt(Axis.STRIP, column.arg[0], strip)]

# ---- copies across memory --------------------------------------------------------------------------------------------

def transpose_opts(shape: KernelShape, target: Target) -> list[Opt]:
  """Where neighbours of the result are no neighbours in some operand: square register tiles, which make whole lines of
  the result, along the operand's rows. Of a large operand whole lines are read too, if registers suffice, since they do
  not stay in a cache; and two lines are written together where every row is a page of its own, one after the other if a
  tile of both has no room in registers."""
  if shape.reduces or target.vector_bytes == 0: return []
  r = next((r for r in reversed(shape.outputs) if all(stride(s, r) == 1 for s in shape.stores)), None)
  if r is None: return []
  across = [u for u in shape.loads if stride(u, r) not in (0, 1)]
  rows = [c for c in shape.outputs if c is not r and all(stride(u, c) == 1 for u in across)]
  if not across or not rows or any(stride(u, r) is None for u in across): return []
  lanes, row = lanes_of(r, shape, target), rows[-1]
  if lanes is None: return []
  item = min(u.dtype.itemsize for u in across)
  is_large = prod(map(size, shape.outputs)) * item >= target.stream_bytes
  width = min(lanes.amount, (LINE if is_large else SHUFFLED) // item, size(row), target.registers // 2)
  jump = min(stride(u, c) or 0 for accesses, c in ((across, r), (shape.stores, row)) for u in accesses) * item
  vectors, lines = max(1, LINE // (lanes.amount * item)), 1
  if is_large and jump >= PAGE: lines = 2
  if size(r) < vectors * lines * lanes.amount: vectors = lines = 1
  if vectors * lines * width <= target.registers: vectors, lines = vectors * lines, 1
  steps = size(row) // width
  opts = rest_apart(shape, row.arg[0], width) + [Opt(Axis.UPCAST, row.arg[0], width)]
  opts += [*rest_apart(shape, r.arg[0], vectors * lanes.amount), lanes]
  if vectors > 1: opts.append(Opt(Axis.UPCAST, r.arg[0], vectors))
  if lines > 1: opts.append(Opt(Axis.STRIP, r.arg[0], lines))
  return opts + [Opt(Axis.STRIP, row.arg[0], steps)] if steps > 1 else opts

# ---- threads ---------------------------------------------------------------------------------------------------------

def thread_opts(shape: KernelShape, target: Target, opts: list[Opt]) -> list[Opt]:
  """The outermost range with a step for every thread, unless more than a little work would run in each of them."""
  if target.threads < 2 or not shape.outputs: return []
  works = {u: shape.work(u) for u in shape.reduces}
  total = sum([*[prod(map(size, loops)) for loops in {loops for _, loops in shape.nests}], *works.values()])
  if total < THREAD_WORK: return []
  for r in shape.outputs[:2]:
    repeated = sum(work for u, work in works.items() if shape.stands_still(u, r))
    steps = ceildiv(size(r), prod(opt.amount for opt in opts if opt.number == r.arg[0]))
    if steps >= target.threads and repeated <= total // 16: return [Opt(Axis.THREAD, r.arg[0], target.threads)]
  return []
