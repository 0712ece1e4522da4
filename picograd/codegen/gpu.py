# gpu.py: choose Opts for targets whose processors run blocks of threads sharing memory. In: kernel and target. Out: a
# list of Opts: which range becomes the lanes of a wide access, which the threads of a block, which its blocks; which
# reductions are split over threads; what each thread writes out so that a row is read once and kept in registers.
# Opts come in order: the first LOCAL or GROUP range is the innermost, whose threads are neighbours.   (chapter 3)
from __future__ import annotations
from typing import Sequence
from picograd.codegen.grid import IN_BLOCK, threads_of
from picograd.codegen.heuristic import KernelShape, loops_around, size, stride
from picograd.codegen.optimize import Opt, apply_opts, nests_of, stores_of
from picograd.codegen.tiles import Contract, Turn, choose_contract
from picograd.codegen.ring import PIECES
from picograd.codegen.target import Target
from picograd.helpers import ceildiv, prod
from picograd.ops.index import sum_of
from picograd.ops.ops import Axis
from picograd.ops.uop import UOp

WARP = 32
GROUPED = 8              # rows of tiles that a wave of blocks walks down before it steps to the next column
TILE = 32                # side of a tile that is turned in shared memory
THREADS = 256            # of a block, where nothing asks for more
NEST_THREADS = 512       # of a block that runs several nests
AT_ONCE = 20             # results of a thread of such a block, or twice the loads for one
MOST_THREADS = 1024      # of any block (CUDA C++ Programming Guide, compute capabilities)
IN_REGISTERS = 64        # elements of a row that one thread keeps
PER_THREAD = 40          # elements of rows that one thread reads, or reads and writes, if threads suffice
LONG_ROW = 1 << 12       # elements of a row of which a rest of some lanes does not matter
SHORT_ROW = 16           # elements that one thread reduces alone
IN_FLIGHT = 8            # loads under way at once in a thread
RESIDENT = 2048          # threads that one processor holds
COPIES = 4               # vectors that a thread of a map writes, so that loads overlap

def choose_gpu_opts(kernel: UOp, target: Target) -> list[Opt | Turn | Contract]:
  """Opts for a kernel: lanes, threads for its reductions, threads and blocks for its outputs. Where nests share outer
  loops each step of these is a block, all of whose threads each nest uses."""
  around = loops_around(kernel)
  if not around: return Chooser(kernel, target).choose()
  opts: list[Opt | Turn | Contract] = [Opt(Axis.GLOBAL, r.arg[0], size(r)) for r in reversed(around)]
  for nest in nests_of([(store, loops[len(around):]) for store, loops in stores_of(kernel)]):
    more = NestChooser(UOp.sink(nest), target, opts).choose()
    if threads_of(apply_opts(kernel, [*opts, *more])) > MOST_THREADS:   # with those of nests that it shares a loop with
      more = [opt for opt in more if not isinstance(opt, Opt) or opt.axis not in IN_BLOCK]
    opts += more
  return opts

class Chooser:
  """The Opts so far, and how much of each range they leave."""
  most = THREADS                                  # of a block, where nothing asks for more
  tallest = MOST_THREADS                          # of a block that sums up columns
  def __init__(self, kernel: UOp, target: Target):
    self.kernel, self.shape, self.target = kernel, KernelShape(kernel), target
    shape = self.shape
    self.opts: list[Opt | Turn | Contract] = []
    self.left = {r.arg[0]: size(r) for r in shape.ranges}
    self.block = 1                                # threads so far

  def take(self, axis: Axis, r: UOp, amount: int) -> None:
    """An Opt, unless it would change nothing: earlier ones may have left nothing of the range."""
    if self.left[r.arg[0]] > 1 and (amount > 1 or axis is Axis.GLOBAL):
      self.opts.append(Opt(axis, r.arg[0], amount))
      self.left[r.arg[0]] = ceildiv(self.left[r.arg[0]], amount)

  def choose(self) -> list[Opt | Turn | Contract]:
    if not self.shape.outputs and not self.shape.reduces: return []
    contract = self.contract()
    if contract is not None: return self.contraction(contract)
    if self.shape.reduces: self.reductions()
    else: self.turn()
    self.outputs()
    return self.opts

  def contract(self) -> Contract | None: return choose_contract(self.kernel, self.target)

  # ---- contractions --------------------------------------------------------------------------------------------------

  def contraction(self, contract: Contract) -> list[Opt | Turn | Contract]:
    """Tiles, in an order in which blocks that run at the same time share operands: down some rows, then to the next
    column."""
    self.opts.append(contract)
    for number, side in ((contract.m, contract.rows), (contract.n, contract.columns)):
      self.left[number] = ceildiv(self.left[number], side)
    m, n = [next(r for r in self.shape.outputs if r.arg[0] == number) for number in (contract.m, contract.n)]
    group = next(g for g in range(GROUPED, 0, -1) if self.left[contract.m] % g == 0)
    self.take(Axis.GLOBAL, m, group)
    for r in (n, m, *reversed(self.shape.outputs)): self.take(Axis.GLOBAL, r, self.left[r.arg[0]])
    return self.opts

  # ---- reductions ----------------------------------------------------------------------------------------------------

  def reductions(self) -> None:
    along = {u: self.along_memory(u) for u in self.shape.reduces}
    rows = [u for u in self.shape.reduces if along[u] is not None and not self.few_elements(u)]
    columns = [u for u in self.shape.reduces if along[u] is None and not self.few_elements(u)]
    if rows: self.rows(self.apart([r for r in dict.fromkeys(along[u] for u in self.outermost(rows)) if r is not None]))
    elif columns: self.columns(self.outermost(columns))

  def apart(self, ranges: list[UOp]) -> list[UOp]:
    """The ranges, without the shorter of two that a reduction runs over together: its lanes go along one."""
    kept: list[UOp] = []
    for r in sorted(ranges, key=size, reverse=True):
      if not any(r in u.src and q in u.src for u in self.shape.reduces for q in kept): kept.append(r)
    return [r for r in ranges if r in kept]

  def outermost(self, reduces: list[UOp]) -> list[UOp]:
    """The reductions that are not done in each step of another: threads for both would multiply."""
    steps = {r for u in reduces for r in u.src[1:]}
    return [u for u in reduces if steps.isdisjoint(self.shape.inside[u])]

  def along_memory(self, reduce: UOp) -> UOp | None:
    """The range of a reduction whose neighbours lie side by side in memory, where none of the outputs' do better."""
    loads = self.shape.loads_below(reduce)
    for r in reduce.src[:0:-1]:
      strides = {stride(u, r) for u in loads}
      if 1 in strides and strides <= {0, 1}: return r
    return None

  def few_elements(self, reduce: UOp) -> bool: return prod(size(r) for r in reduce.src[1:]) <= SHORT_ROW

  def rows(self, ranges: list[UOp]) -> None:
    """Threads side by side along rows. A row that several loops read, or that is also written, stays in registers."""
    longest = max(size(r) for r in ranges)
    again = [r for r in self.shape.outputs if size(r) == longest and self.is_free(r) and self.is_plain(r)]
    parallel = prod(size(r) for r in self.shape.outputs if not self.is_free(r))
    for r in [*ranges, *again]: self.take(Axis.VECTOR, r, self.lanes(r))
    kept = [u for reduce in self.shape.reduces for u in self.shape.loads_below(reduce)] if again else []
    arrays = {u.src[0].src[0] for u in kept if any(stride(u, r) == 1 for r in ranges)}
    threads = self.threads_for(longest, max(len(arrays), 2 if again else 1), parallel)
    useful = {r: min(threads, power_of_two_above(self.left[r.arg[0]])) for r in [*ranges, *again]}
    if parallel > 1: useful = dict.fromkeys(useful, max(useful.values()))    # the same threads: grid.dimensions
    for r in ranges: self.take(Axis.GROUP, r, useful[r])
    for r in again: self.take(Axis.LOCAL, r, useful[r])
    self.block = self.threads_taken(threads)
    keep = ceildiv(longest, threads) <= IN_REGISTERS
    if not again: self.rows_at_once(ranges)
    for r in ranges: self.take(Axis.UNROLL, r, self.left[r.arg[0]] if keep else IN_FLIGHT // 2)
    for r in again: self.take(Axis.UPCAST, r, self.left[r.arg[0]] if keep else 1)

  def rows_at_once(self, ranges: list[UOp]) -> None:
    """Where rows of matrices that come through a ring (codegen/ring.py) are multiplied by a vector, threads have as
    many rows as are copied at once, and meet once for all. Each processor has work."""
    loads = {u for reduce in self.shape.reduces for u in self.shape.loads_below(reduce)}
    along = {u for u in loads if any(stride(u, r) for r in ranges)}
    moved = {u: [r for r in self.shape.outputs if stride(u, r) != 0] for u in along}
    rows = {r for found in moved.values() for r in found}
    if not self.target.bulk_copies or len(rows) != 1 or all(moved.values()): return
    row, = rows
    row_bytes = sum(u.dtype.itemsize * max(map(size, ranges)) for u, found in moved.items() if found)
    beside = max(1, self.most // self.block)                 # rows of a block whose threads have one each
    most = min(PIECES // (row_bytes * beside), size(row) // (beside * self.target.units))
    amount = power_of_two_below(max(1, most))
    while size(row) % (amount * beside) and amount > 1: amount //= 2
    self.take(Axis.UPCAST, row, amount)

  def threads_for(self, length: int, arrays: int, parallel: int) -> int:
    """A warp for a short row; more for a long one, for rows of several arrays, and where there are few rows."""
    wanted = power_of_two_above(ceildiv(length * arrays, PER_THREAD))
    if parallel * wanted < self.target.units * RESIDENT // 4:
      wanted = max(wanted, power_of_two_above(ceildiv(length, 8)))
    return max(min(wanted, MOST_THREADS), min(WARP, power_of_two_above(length)))

  def threads_taken(self, offered: int) -> int:
    """How many threads count as taken by rows that were offered some: other rows are for other blocks."""
    return offered

  def is_free(self, r: UOp) -> bool:
    """Whether no reduction depends on an output range."""
    return not any(r in self.shape.below[u] for u in self.shape.reduces)
  def is_plain(self, r: UOp) -> bool:
    """Whether neighbours of an output range lie side by side in what is written."""
    return all(stride(s, r) in (0, 1) for s in self.shape.stores)

  def columns(self, reduces: list[UOp]) -> None:
    """Threads side by side across columns, and several down each column where there are few."""
    column = next((r for r in reversed(self.shape.outputs) if self.moves_by_one(r)), None)
    if column is None: return
    self.take(Axis.VECTOR, column, self.column_lanes(column))
    across = min(WARP, power_of_two_above(self.left[column.arg[0]]))
    self.take(Axis.LOCAL, column, across)
    self.block *= across
    loops = list(dict.fromkeys(r for u in reduces for r in u.src[-1:]))
    steps = max(size(r) for r in loops)
    outputs = prod(size(r) for r in self.shape.outputs) // self.column_lanes(column)
    wanted = self.threads_wanted() // max(1, outputs)
    useful = power_of_two_above(ceildiv(steps, IN_FLIGHT))
    down = min(power_of_two_above(max(1, wanted)), max(1, self.tallest // self.block), useful)
    if len(set(map(size, loops))) == 1:
      for r in loops: self.take(Axis.GROUP, r, down)
      self.block *= down
    for r in loops: self.take(Axis.UNROLL, r, self.steps_at_once(r))

  def column_lanes(self, column: UOp) -> int: return 1
  def threads_wanted(self) -> int: return self.target.units * RESIDENT

  def steps_at_once(self, r: UOp) -> int: return min(IN_FLIGHT, self.left[r.arg[0]])

  # ---- transposed copies ---------------------------------------------------------------------------------------------

  def turn(self) -> None:
    """Tiles by way of shared memory, where neighbours of the result are no neighbours in an operand."""
    along = next((r for r in reversed(self.shape.outputs) if self.moves_by_one(r) and size(r) >= TILE), None)
    if along is None: return
    across = [u for u in self.shape.loads if stride(u, along) not in (0, 1)]
    if not across or any(stride(u, along) is None for u in across): return
    rows = [r for r in self.shape.outputs if r is not along and all(stride(u, r) == 1 for u in across)]
    if not rows or size(rows[0]) < TILE: return
    self.opts.append(Turn(along.arg[0], rows[0].arg[0]))
    for r in (along, rows[0]): self.left[r.arg[0]] = ceildiv(self.left[r.arg[0]], TILE)
    self.block = THREADS

  # ---- outputs -------------------------------------------------------------------------------------------------------

  def outputs(self) -> None:
    """Lanes along memory, threads until a block is full, blocks for the rest."""
    taken = {opt.number for opt in self.opts if isinstance(opt, Opt) and opt.axis is Axis.LOCAL}
    order = self.shape.outputs[::-1]
    along = next((r for r in order if self.moves_by_one(r)), None)
    if along is not None:
      order = [along, *[r for r in order if r is not along]]
      if self.block == 1 and not self.shape.reduces: self.take(Axis.VECTOR, along, self.lanes(along))
    total = prod(self.left[r.arg[0]] for r in order)
    for r in order:
      room = self.most // self.block
      if room <= 1: break
      if self.shape.reduces and not self.is_free(r) and r is not along and self.block >= WARP:
        room = min(room, self.rows_in_block(total))
      threads = min(power_of_two_below(room), power_of_two_above(self.left[r.arg[0]]))
      if self.left[r.arg[0]] > 1 and r.arg[0] not in taken:
        self.take(Axis.LOCAL, r, threads)
        self.block *= threads
    if along is not None and not self.shape.reduces and not any(isinstance(opt, Turn) for opt in self.opts):
      self.copies(along)
    for r in self.shape.outputs:
      if not (self.shape.reduces and self.is_free(r)): self.finish(r)

  def finish(self, r: UOp) -> None:
    """What neither lanes nor threads have taken."""
    self.take(Axis.GLOBAL, r, self.left[r.arg[0]])

  def rows_in_block(self, total: int) -> int:
    """Rows of one block, where blocks abound."""
    return max(1, total // (4 * self.target.units))

  def copies(self, along: UOp) -> None:
    """Several vectors for each thread, where blocks remain for every processor."""
    total = prod(self.left[r.arg[0]] for r in self.shape.outputs)
    left = self.left[along.arg[0]]
    amount = next((n for n in (COPIES, 2) if left % n == 0 and total // n >= 8 * self.target.units), 1)
    self.take(Axis.UPCAST, along, amount)

  def moves_by_one(self, r: UOp) -> bool:
    return all(stride(s, r) == 1 for s in self.shape.stores)

  def lanes(self, r: UOp) -> int:
    """As many lanes as make one wide access of the widest type, if some access is theirs, and if they divide the range
    or it is long and its rows are aligned."""
    accessed = [u for u in self.shape.loads if stride(u, r) == 1] + [s for s in self.shape.stores if stride(s, r) == 1]
    dtypes = [u.dtype if u in self.shape.loads else u.src[1].dtype for u in accessed]
    lanes = min((self.target.lanes(dt) for dt in dtypes), default=1)
    if size(r) >= LONG_ROW and all(has_aligned_rows(u, r, lanes) for u in accessed): return lanes
    while size(r) % lanes: lanes //= 2
    return lanes

class NestChooser(Chooser):
  """For a nest that is run by the threads of one block: all its rows are theirs, several at once for each thread."""
  most = NEST_THREADS
  tallest = THREADS
  def __init__(self, kernel: UOp, target: Target, earlier: list[Opt | Turn | Contract]):
    """earlier: Opts for other nests. What both compute is computed as those say."""
    super().__init__(kernel, target)
    shared = [opt for opt in earlier if isinstance(opt, Opt) and opt.number in self.left]
    self.left.update({opt.number: 1 for opt in shared})
    self.block = most_threads(shared)

  def threads_taken(self, offered: int) -> int: return max(self.block, most_threads(self.opts))

  def rows_in_block(self, total: int) -> int: return total
  def column_lanes(self, column: UOp) -> int: return self.lanes(column)
  def threads_wanted(self) -> int: return self.most
  def threads_for(self, length: int, arrays: int, parallel: int) -> int:
    return min(self.most, power_of_two_above(ceildiv(length, SHORT_ROW)))
  def steps_at_once(self, r: UOp) -> int: return largest_divisor(self.left[r.arg[0]], AT_ONCE // 2)
  def contract(self) -> Contract | None: return None
  def rows_at_once(self, ranges: list[UOp]) -> None: pass
  def turn(self) -> None: pass

  def finish(self, r: UOp) -> None:
    left = self.left[r.arg[0]]
    written = prod(opt.amount for opt in self.opts if isinstance(opt, Opt) and opt.axis is Axis.UPCAST)
    self.take(Axis.UPCAST, r, largest_divisor(left, AT_ONCE // written))

def most_threads(opts: Sequence[Opt | Turn | Contract]) -> int:
  """Of one range."""
  return max([opt.amount for opt in opts if isinstance(opt, Opt) and opt.axis in IN_BLOCK], default=1)

def largest_divisor(n: int, most: int) -> int:
  return max([k for k in range(1, min(n, most) + 1) if n % k == 0], default=1)

def has_aligned_rows(access: UOp, r: UOp, lanes: int) -> bool:
  place = sum_of(access.src[0].src[1])
  return all(factor % lanes == 0 for factor in (place.constant, *[f for u, f in place.terms.items() if u is not r]))

def power_of_two_above(n: int) -> int: return 1 << max(0, n - 1).bit_length()
def power_of_two_below(n: int) -> int: return 1 << (n.bit_length() - 1)
