# tiling.py: how a contraction is computed: a register tile, the loops and copies that keep its operands in caches, and
# its shares for threads. In: kernel and target. Out: a list of Opts. After Goto and van de Geijn, Anatomy of
# High-Performance Matrix Multiplication (2008), and BLIS (2015), for any product that is summed: matrix products in any
# layout, batches, convolutions.   (chapter 3)
from __future__ import annotations
from typing import NamedTuple
from picograd.codegen.optimize import AnyOpt, Opt, Stage, apply_opt, next_number, ranges_in, step, stores_of
from picograd.codegen.target import Target
from picograd.dtype import DType
from picograd.helpers import ceildiv, dedup, prod
from picograd.ops.index import stride_of
from picograd.ops.ops import Axis, Ops
from picograd.ops.uop import UOp, toposort

FMA_LATENCY = 4          # cycles
FMA_UNITS = 2            # what x86 and ARM cores with wide vectors have, as a rule
LOAD_UNITS = 2
STREAMED_CYCLES = 0.2    # what an operand costs where arithmetic is the limit: a vector that comes from the L2 cache,
BROADCAST_CYCLES = 0.1   # and a number from the L1 cache, unless rows share its lines
LOOP_CYCLES = 0.25       # what counting and branching cost, and waiting between tiles
MOST_VECTORS = 4
LEAST_WORK = 1 << 8     # multiply-adds below which nothing is won
L1_WAY_BYTES = 1 << 12   # lines this far apart share a set of the L1 cache: a page, as in most processors
LINE = 64                # bytes of a cache's line
ELEMENT_CYCLES = 2       # for a lane that is loaded or stored by itself
EDGE = 1.01              # times the cycles that a tile of its own for the last rows may cost: it is as much code again
COPIED_TWICE = 1.05      # times the cycles where threads share rows: each copies all that streams
FAR_ROWS = 1.1           # rows of a tile that are not the innermost ones lie in more lines
SLIVER = 8               # rows of the broadcast operand that have room in its part of L1, at least
PASSING = 20 << 10       # bytes of L1 that the streamed operand and results need while they go by
MOST_PANEL = 1 << 20     # bytes of a streamed operand's panel: of a larger L2 cache other data takes its share
COPY_REUSE = 24          # how often an element must be used for a copy of it to pay
STREAMS = 16           # rows of memory that are read side by side
THREAD_WORK = 1 << 17    # multiply-adds below which starting a second thread costs more than it gains

class Contraction(NamedTuple):
  """A sum of products. The lanes of vectors go along `columns`; `streamed` operands move with them, the others are
  broadcast. Streamed operands stand still while `rows` move. `outer` are the other loops over outputs: batches, and
  what columns consist of besides."""
  reduce: UOp
  columns: UOp
  rows: list[UOp]        # outermost first
  outer: list[UOp]
  streamed: list[UOp]
  broadcast: list[UOp]
  may_block: bool        # whether partial sums may be left in the output
  scattered: int         # stores, and loads besides the operands, whose lanes do not lie side by side
  stored: list[DType]    # of the results

def size(r: UOp) -> int: return r.bound.arg
def slot(load: UOp) -> int: return load.src[0].src[0].arg

def find_contractions(kernel: UOp) -> list[Contraction]:
  """The contraction that a kernel is, if it is one and nothing else, with each loop that may be its columns."""
  nodes = toposort([kernel])
  stores = stores_of(kernel)
  reduces = [u for u in nodes if u.op is Ops.REDUCE]
  loops = stores[0][1]
  if any(around != loops for _, around in stores) or any(u.op is Ops.BUFFER for u in nodes): return []
  if len(reduces) != 1 or reduces[0].arg[0] is not Ops.ADD: return []
  if any(r.bound.op is not Ops.CONST or r.axis not in (Axis.LOOP, Axis.REDUCE) for r in ranges_in(kernel)): return []
  reduce, = reduces
  below = frozenset(toposort([reduce]))
  loads = [u for u in below if u.op is Ops.LOAD]
  loads.sort(key=nodes.index)
  free = [r for r in loops if r in below]
  if any(step(u, r) is None for u in loads for r in (*free, *reduce.src[1:])): return []
  around = [s.src[0] for s, _ in stores] + [u.src[0] for u in nodes if u.op is Ops.LOAD and u not in below]
  read = {slot(u) for u in nodes if u.op is Ops.LOAD}
  target, value = stores[0][0].src
  may_block = len(stores) == 1 and target.src[0].arg not in read and reduce.dtype is value.dtype
  found: list[Contraction] = []
  for columns in reversed(free):
    steps = [stride_of(u.src[1], columns) for u in around]
    streamed = [u for u in loads if step(u, columns) != 0]
    broadcast = [u for u in loads if step(u, columns) == 0]
    rows = [r for r in free if r is not columns and all(step(u, r) == 0 for u in streamed)]
    if None in steps or not streamed or not broadcast or not rows: continue
    outer = [r for r in loops if r is not columns and r not in rows]
    scattered = sum(n not in (0, 1) for n in steps)
    stored = [store.src[1].dtype for store, _ in stores]
    found.append(Contraction(reduce, columns, rows, outer, streamed, broadcast, may_block and not scattered, scattered,
                             stored))
  return found

# ---- the register tile -----------------------------------------------------------------------------------------------

class Tile(NamedTuple):
  rows: int
  vectors: int
  lanes: int

def tile_cycles(rows: int, vectors: int, lines: int) -> float:
  """Cycles of one step of the reduction for a tile whose rows lie in so many lines."""
  arithmetic = max(rows * vectors / FMA_UNITS, (rows + vectors) / LOAD_UNITS, FMA_LATENCY)
  return arithmetic + vectors * STREAMED_CYCLES + lines * BROADCAST_CYCLES + LOOP_CYCLES

def choose_tile(c: Contraction, target: Target) -> Tile | None:
  """As many accumulators as registers allow beside the operands, in the shape that takes the fewest cycles, those of
  the smaller tiles at the edges counted."""
  accessed = dedup([u.dtype for u in (*c.streamed, *c.broadcast)] + [c.reduce.dtype])
  if not target.wide_values: accessed += c.stored
  lanes = min(target.lanes(dt) for dt in accessed)
  m, n = size(c.rows[-1]), size(c.columns)
  while lanes > 1 and lanes > n: lanes //= 2
  if lanes < 2: return None
  most_rows = target.l1_bytes // L1_WAY_BYTES if rows_collide(c) else target.registers
  def fits(rows: int, vectors: int) -> bool:
    return rows * vectors + vectors + (2 if target.loads_fold else rows) <= target.registers
  tiles = [Tile(rows, vectors, lanes) for vectors in range(1, min(MOST_VECTORS, ceildiv(n, lanes)) + 1)
           for rows in range(1, min(m, most_rows) + 1) if fits(rows, vectors)]
  threads = threads_of(c, target)
  if any(size(r) % threads == 0 for r in (*c.outer, *c.rows[:-1])): threads = 1          # they share that loop
  def cost(tile: Tile) -> float: return shared_cycles(c, tile, threads) * (EDGE if m % tile.rows else 1)
  return min(tiles, key=lambda tile: (cost(tile), tile.rows + tile.vectors, tile.vectors))

def shared_cycles(c: Contraction, tile: Tile, threads: int) -> float:
  """step_cycles of the thread that has most to do, where threads share columns, or rows and each copy everything."""
  m, n = size(c.rows[-1]), size(c.columns)
  side_by_side = all(step(u, c.rows[-1]) in (0, 1) for u in c.broadcast)
  if threads < 2: return step_cycles(tile, m, n, side_by_side)
  return min(step_cycles(tile, m, longest_share(n, tile.vectors * tile.lanes, threads), side_by_side),
             step_cycles(tile, longest_share(m, tile.rows, threads), n, side_by_side) * COPIED_TWICE)

def longest_share(n: int, amount: int, threads: int) -> int:
  """The most of n steps that one thread has: whole tiles of this amount are dealt out, the last takes the rest."""
  chunk = ceildiv(n // amount, threads) * amount
  return max(chunk, n - chunk * (threads - 1))

def step_cycles(tile: Tile, m: int, n: int, side_by_side: bool = False) -> float:
  """Cycles of one step of the reduction for m rows and n columns. side_by_side: a tile's rows share lines."""
  parts = [(times, ceildiv(length, tile.lanes)) for times, length in cut(n, tile.vectors * tile.lanes)]
  return sum(i * j * tile_cycles(rows, vectors, 1 if side_by_side else rows)
             for i, rows in cut(m, tile.rows) for j, vectors in parts)

def rows_collide(c: Contraction) -> bool:
  """Whether rows are so far apart that a line of each would fall into one set of the L1 cache."""
  steps = [(step(u, c.rows[-1]) or 0) * u.dtype.itemsize for u in c.broadcast]
  return any(n and n % L1_WAY_BYTES == 0 for n in steps)

def cut(n: int, amount: int) -> list[tuple[int, int]]:
  """How often, and how long, the parts of n are."""
  return [(times, length) for times, length in ((n // amount, amount), (1, n % amount)) if times and length]

def cycles_of(c: Contraction, tile: Tile) -> float:
  """About how many cycles a contraction takes: tiles and what is left over at their edges, and each element that is
  not stored or copied as part of a vector."""
  results = work(c) // prod(size(r) for r in c.reduce.src[1:])
  gathered = [prod(size(r) for r in toposort([u]) if r.op is Ops.RANGE) for u in c.streamed if step(u, c.columns) != 1]
  m, n = size(c.rows[-1]), size(c.columns)
  return work(c) // (m * n) * step_cycles(tile, m, n) + (c.scattered * results + sum(gathered)) * ELEMENT_CYCLES

def by_cycles(found: list[Contraction], target: Target) -> list[tuple[Contraction, Tile]]:
  """The ways to look at a contraction that fill lanes and rows of a tile, the fastest first."""
  ways: list[tuple[float, Contraction, Tile]] = []
  for c in found:
    for r in reversed(c.rows):
      turned = c._replace(rows=[*[other for other in c.rows if other is not r], r])
      tile = choose_tile(turned, target)
      if tile is None or tile.rows < 2: continue
      ways.append((cycles_of(turned, tile) * (1 if r is c.rows[-1] else FAR_ROWS), turned, tile))
  return [(c, tile) for _, c, tile in sorted(ways, key=lambda way: way[0])]

# ---- the plan --------------------------------------------------------------------------------------------------------

class Plan:
  """Opts in the order of their application, and the kernel so far, whose ranges they name."""
  def __init__(self, kernel: UOp):
    self.kernel = kernel
    self.opts: list[AnyOpt] = []

  def add(self, opt: AnyOpt) -> int:
    """Applies an Opt; the number that its first new range gets."""
    fresh = next_number(self.kernel)
    self.kernel = apply_opt(self.kernel, opt)
    self.opts.append(opt)
    return fresh

  def has(self, number: int) -> bool: return any(r.arg[0] == number for r in ranges_in(self.kernel))

  def tile(self, r: UOp, amount: int, lanes: int) -> None:
    """Tiles of r, and what is left over as a smaller tile, written out, in vectors of so many lanes."""
    fresh = self.add(Opt(Axis.TILE, r.arg[0], amount))
    parts = [(number, n) for number, n in ((fresh, amount), (fresh + 1, size(r) % amount)) if self.has(number)]
    for number, n in parts:
      if lanes > 1: self.add(Opt(Axis.VECTOR, number, lanes))
      steps = ceildiv(n, lanes)
      if steps > 1: self.add(Opt(Axis.UPCAST, number, steps))

def contraction_opts(kernel: UOp, target: Target) -> list[AnyOpt] | None:
  """The Opts of a contraction; None for other kernels, and where the rules know nothing better than the general
  ones."""
  if target.form != "flat" or not target.vector_bytes: return None
  for c, tile in by_cycles(find_contractions(kernel), target):
    if work(c) < LEAST_WORK: return None
    opts = opts_of(c, tile, kernel, target)
    if opts is not None: return opts
  return None

def opts_of(c: Contraction, tile: Tile, kernel: UOp, target: Target) -> list[AnyOpt] | None:
  plan = Plan(kernel)
  plan.tile(c.columns, tile.vectors * tile.lanes, tile.lanes)
  plan.tile(c.rows[-1], tile.rows, 1)
  share_out(plan, c, tile, target)
  if target.l2_bytes and not block(plan, c, tile, target): return None
  if size(c.rows[-1]) % tile.rows:                     # the tiles at the edge of a row follow at once
    for r in c.rows[:-1]: plan.add(Opt(Axis.BLOCK, r.arg[0], 1))
  return plan.opts

def work(c: Contraction) -> int:
  return prod(size(r) for r in (c.columns, *c.rows, *c.outer, *c.reduce.src[1:]))

def width(r: UOp, c: Contraction, tile: Tile) -> int:
  """How many steps of r a tile has."""
  return {c.columns: tile.vectors * tile.lanes, c.rows[-1]: tile.rows}.get(r, 1)

def tiles(r: UOp, c: Contraction, tile: Tile) -> int:
  """How many steps the loop over r has outside of tiles."""
  return size(r) // width(r, c, tile)

def share_out(plan: Plan, c: Contraction, tile: Tile, target: Target) -> None:
  """Threads share the loop that they can divide best; of equal ones the first that copies nothing twice. The last
  thread has the shortest chunk, and what is left over at the edge."""
  threads = threads_of(c, target)
  if threads < 2: return
  def balance(r: UOp) -> float:
    return round(size(r) / (longest_share(size(r), width(r, c, tile), threads) * threads), 1)
  r = max((*c.outer, c.columns, *c.rows), key=balance)
  if tiles(r, c, tile) >= threads: plan.add(Opt(Axis.THREAD, r.arg[0], threads))

def threads_of(c: Contraction, target: Target) -> int:
  """How many threads share a contraction: one where starting others costs more than it gains."""
  return target.threads if work(c) >= THREAD_WORK else 1

# ---- blocks that fit caches ------------------------------------------------------------------------------------------

def block(plan: Plan, c: Contraction, tile: Tile, target: Target) -> bool:
  """Panels of the streamed operand that stay in the L2 cache while all rows go by, copied in the order in which they
  are read; a sliver of the broadcast one stays in L1 meanwhile, a shorter one of a copy. With too few rows for a copy,
  memory is read in its order, each tile for all rows. False where lanes would be gathered over and over."""
  width, itemsize = tile.vectors * tile.lanes, c.reduce.dtype.itemsize
  depth = prod(size(r) for r in c.reduce.src[1:])
  rows, columns = prod(size(r) for r in c.rows), size(c.columns)
  copied = copied_rows(c, tile)
  sliver = target.l1_bytes // 4 if copied else max(target.l1_bytes // 4, target.l1_bytes - PASSING)
  deepest = max(1, sliver // (max(tile.rows, SLIVER) * itemsize))
  is_split = c.may_block and depth > deepest
  if is_split: depth = even_part(depth, deepest, tile.lanes)
  is_gathered = any(step(u, c.columns) != 1 for u in c.streamed)
  copies_pay = rows >= COPY_REUSE and (is_gathered or depth * columns * itemsize > target.l1_bytes)
  if not copies_pay and is_gathered: return False
  if not copies_pay and c.may_block and depth * columns * itemsize > target.l2_bytes:
    block_columns(plan, c, tile, max(width, target.l2_bytes // 2 // (rows * itemsize)))     # the sums stay near
    block_depth(plan, c, STREAMS)
    if rows > tile.rows and tiles(c.columns, c, tile) > 1: plan.add(Opt(Axis.BLOCK, c.columns.arg[0], 1))
    return True
  broadcast = copied if copies_pay else []
  panel = min(target.l2_bytes * 3 // 4, MOST_PANEL)
  if not (broadcast or is_split):
    panel = min(panel, panel_for(rows * depth * itemsize, width * itemsize if copies_pay else 0, target))
  block_columns(plan, c, tile, max(width, panel // (depth * itemsize)))
  block_depth(plan, c, depth)
  if copies_pay:
    for number in dedup(slot(u) for u in c.streamed): plan.add(Stage(number, tile.lanes))
    held = max(1, target.l2_bytes // 4 // (depth * itemsize) // tile.rows)
    if broadcast and held < tiles(c.rows[-1], c, tile): plan.add(Opt(Axis.BLOCK, c.rows[-1].arg[0], held))
    for number in broadcast: plan.add(Stage(number, tile.lanes))
  return True

def panel_for(nbytes: int, copied: int, target: Target) -> int:
  """Bytes of a panel. The less all rows take of the cache, the sooner they may come again. 0: the columns of one tile,
  which the first rows' loop copies (overlap.py), where that takes enough bytes of a row at once."""
  if nbytes <= target.l2_bytes // 4: return 0 if copied >= 2 * LINE else target.l2_bytes // 16
  return target.l2_bytes * 3 // 16 if nbytes <= target.l2_bytes else target.l2_bytes

def copied_rows(c: Contraction, tile: Tile) -> list[int]:
  """What is broadcast and worth a copy in the order in which it is read: where rows lie side by side and each step of
  the reduction is in lines of its own, which would not stay in the L1 cache, if it is read often enough; and numbers
  that would be widened one by one, which pays even if they are read once."""
  r, depths = c.rows[-1], c.reduce.src[1:]
  is_reused = size(c.columns) >= COPY_REUSE * tile.lanes
  def is_far(u: UOp) -> bool:
    return step(u, r) == 1 and all((step(u, k) or 0) * u.dtype.itemsize >= LINE for k in depths)
  return dedup(slot(u) for u in c.broadcast if is_reused and is_far(u) or u.dtype.itemsize < c.reduce.dtype.itemsize)

def even_part(n: int, most: int, lanes: int) -> int:
  """The largest multiple of lanes, of at most this many steps, that divides n; else of nearly equal parts one."""
  most = max(lanes, most - most % lanes)
  parts = [part for part in range(most, most // 2, -lanes) if n % part == 0]
  return parts[0] if parts else ceildiv(ceildiv(n, ceildiv(n, most)), lanes) * lanes

def block_columns(plan: Plan, c: Contraction, tile: Tile, held: int) -> None:
  """The loops over columns, innermost last, in blocks of as many columns as are held, a tile's width at least; batches
  one by one."""
  width = tile.vectors * tile.lanes
  amounts: list[tuple[UOp, int]] = []
  steps = tiles(c.columns, c, tile)
  if held // width < steps: amounts.append((c.columns, ceildiv(steps, ceildiv(steps, held // width))))
  room = held // size(c.columns)
  for r in reversed(c.outer):
    is_batch = any(step(u, r) != 0 for u in c.broadcast)
    amount = 1 if is_batch else max(1, min(size(r), room))
    room //= size(r)
    if amount < size(r): amounts.append((r, amount))
  for r, amount in reversed(amounts): plan.add(Opt(Axis.BLOCK, r.arg[0], amount))

def block_depth(plan: Plan, c: Contraction, depth: int) -> None:
  """The first loop of the reduction in blocks, so that a block has about so many steps."""
  first, *rest = c.reduce.src[1:]
  amount = max(1, ceildiv(depth, prod(size(r) for r in rest)))
  if amount < size(first): plan.add(Opt(Axis.BLOCK, first.arg[0], amount))
