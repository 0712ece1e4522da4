# tiles.py: Opts of GPUs that rewrite more than one range. Turn: tiles of a transposed copy by way of shared memory.
# Contract: a sum of products in tiles of a matrix unit: the ranges of a tile's rows and columns are split into threads
# and registers as the unit's results lie, and the reduction becomes a WMMA that fills the registers. What is done with
# the sums stays as it is, on ranges: any epilogue, any layout, any batch.   (chapter 3)
from __future__ import annotations
import itertools
from typing import NamedTuple
from picograd.codegen.heuristic import KernelShape, size, stride
from picograd.codegen.matrix import by_registers, results_pitch, room
from picograd.codegen.optimize import Opt, apply_opt, next_number, range_numbered, replace_range, split_inner
from picograd.codegen.target import Target
from picograd.dtype import DType, dtypes
from picograd.helpers import ceildiv, prod
from picograd.ops.index import bounds, simplify_index, stride_of, sum_of
from picograd.ops.match import rewrite
from picograd.ops.ops import Axis, Buf, Operand, Ops, ROUGH, Space, Tile
from picograd.ops.uop import Table, UOp, toposort

# ---- transposed copies -----------------------------------------------------------------------------------------------

class Turn(NamedTuple):
  """Square tiles of `along` and `row`, each copied to LOCAL memory by threads along `row`, in which loads have their
  neighbours, and read from there along `along`, in which stores have theirs."""
  along: int
  row: int
  side: int = 32
  threads: int = 8
  def __repr__(self) -> str: return f"TURN(r{self.along}, r{self.row})"
  def applied(self, kernel: UOp) -> UOp: return turn(kernel, self)

def turn(kernel: UOp, opt: Turn) -> UOp:
  """A thread has a lane along `along`, and every `threads`-th row. It copies as many elements as it reads, but with the
  roles of the ranges exchanged. Rows of the copy are one element longer: no two lanes meet in a bank."""
  numbers = itertools.count(next_number(kernel))
  lane, thread, copy = [next(numbers) for _ in range(3)]
  for number, axis, amount in ((opt.along, Axis.LOCAL, opt.side), (opt.row, Axis.LOCAL, opt.threads),
                               (opt.row, Axis.UPCAST, opt.side // opt.threads)):
    kernel = apply_opt(kernel, Opt(axis, number, amount))
  x, y, step = [range_numbered(kernel, number) for number in (lane, thread, copy)]
  again = step.replace(arg=(next_number(kernel), Axis.UPCAST))
  exchanged = {x: again * opt.threads + y, step: x // opt.threads, y: x % opt.threads}
  table: Table = {}
  for u in toposort([kernel]):
    if u.op is not Ops.LOAD or stride_of(u.src[0].src[1], y) != 1: continue
    panel = UOp(Ops.BUFFER, u.dtype, (), Buf(len(table), opt.side * (opt.side + 1), Space.LOCAL))
    store = panel.index((again * opt.threads + y) * (opt.side + 1) + x).store(u.substitute(exchanged))
    copied = panel.after(UOp(Ops.END, dtypes.void, (store, again)))
    table[u] = copied.index(x * (opt.side + 1) + step * opt.threads + y).load()
  return kernel.substitute(table)

# ---- contractions ----------------------------------------------------------------------------------------------------

class Contract(NamedTuple):
  """The contraction over output ranges m and n in tiles of rows x columns, `depth` steps of the reduction at a time,
  `stages` of them in shared memory; warp: the part of a tile that the threads of one instruction multiply."""
  m: int
  n: int
  unit: str
  rows: int
  columns: int
  depth: int
  stages: int
  warp: tuple[int, int]
  threads: int
  def __repr__(self) -> str:
    return f"{self.unit.upper()}(r{self.m} {self.rows}, r{self.n} {self.columns}, {self.depth}x{self.stages})"
  def applied(self, kernel: UOp) -> UOp: return contract(kernel, self)

class Split(NamedTuple):
  """A part of a tile's side, innermost first. place: how far apart its neighbours are among the results."""
  side: str
  axis: Axis
  amount: int
  place: int

def splits_of(opt: Contract, lanes: int, pitch: int) -> list[Split]:
  """Who stores which results. Those of fma are where they were computed, in a thread's 64 registers; others are rows of
  shared memory, of which threads side by side take vectors."""
  if opt.unit == "fma": return [
    Split("n", Axis.VECTOR, 4, 1), Split("m", Axis.UPCAST, 4, 8), Split("m", Axis.LOCAL, 8, 0),
    Split("n", Axis.LOCAL, 4, 0), Split("n", Axis.UPCAST, 2, 4), Split("m", Axis.UPCAST, 2, 32),
    Split("m", Axis.LOCAL, 2, 0), Split("n", Axis.LOCAL, 4, 0)]
  across = opt.columns // lanes
  down = opt.threads // across
  rows = opt.rows // down
  return [Split("n", Axis.VECTOR, lanes, 1), Split("n", Axis.LOCAL, across, lanes), Split("m", Axis.LOCAL, down, pitch),
          Split("m", Axis.UPCAST, min(rows, AT_ONCE), down * pitch),
          Split("m", Axis.LOOP, ceildiv(rows, AT_ONCE), down * AT_ONCE * pitch)]

AT_ONCE = 4                    # rows that a thread stores at once: what else it reads for them is under way together

class Product(NamedTuple):
  """A sum of products: the REDUCE, the loads of its operands, the range that it reduces; whether operands may be
  rounded."""
  reduce: UOp
  a: UOp
  b: UOp
  k: UOp
  is_rough: bool

def product_of(kernel: UOp) -> Product | None:
  """The contraction that a kernel is, if it is one: one reduction, over one range, of a product of two loads that have
  one dtype and no gates."""
  reduces = [u for u in toposort([kernel]) if u.op is Ops.REDUCE]
  if len(reduces) != 1: return None
  reduce, = reduces
  if reduce.arg[0] is not Ops.ADD or reduce.dtype is not dtypes.float32 or len(reduce.src) != 2: return None
  value = reduce.src[0]
  if value.op is not Ops.MUL: return None
  a, b = [s.src[0] if s.op is Ops.CAST else s for s in value.src]
  if a is b or a.op is not Ops.LOAD or b.op is not Ops.LOAD or a.dtype is not b.dtype: return None
  if any(len(u.src) > 1 or len(u.src[0].src) > 2 for u in (a, b)): return None
  return Product(reduce, a, b, reduce.src[1], value.arg == ROUGH)

def contract(kernel: UOp, opt: Contract) -> UOp:
  product = product_of(kernel)
  if product is None: raise ValueError(f"{opt}: the kernel is no contraction")
  m, n = range_numbered(kernel, opt.m), range_numbered(kernel, opt.n)
  a, b = (product.a, product.b) if stride(product.a, m) else (product.b, product.a)
  operands = operand_of(a, m, product.k), operand_of(b, n, product.k)
  pitch = results_pitch(opt.columns, by_registers(a.dtype.itemsize, *operands) if opt.unit == "wgmma" else "")
  sums = summed(kernel, product.reduce) if opt.unit != "fma" else product.reduce
  splits = splits_of(opt, WIDEST // max(sums.dtype.itemsize, widest_store(kernel)), pitch)
  start: Table = {product.k: m.like(0)}
  sides: dict[str, UOp] = {}                               # side -> where in it a tile begins
  inside: dict[str, UOp] = {}                              # side -> what is left of it within a tile
  for side, r, amount in (("m", m, opt.rows), ("n", n, opt.columns)):
    fresh = next_number(kernel)
    value, gate = split_inner(r, Opt(Axis.LOOP, r.arg[0], amount), fresh)
    kernel = replace_range(kernel, r, value, gate)
    inside[side] = range_numbered(kernel, fresh)
    sides[side] = rewrite(value.substitute({inside[side]: r.like(0)}), simplify_index)
    start[r] = r.like(0)
  place = UOp.const(dtypes.index, 0)
  for split in splits:
    if split.amount == 1: continue
    r, fresh = inside[split.side], next_number(kernel)
    value, _ = split_inner(r, Opt(split.axis, r.arg[0], split.amount), fresh)
    kernel = replace_range(kernel, r, value, None)
    inner = range_numbered(kernel, fresh)
    place = place + inner * split.place
    inside[split.side] = next((u for u in toposort([value]) if u.op is Ops.RANGE and u is not inner), inner)
  matrices = all(is_matrix(o, a.dtype.itemsize) for o in operands)
  bulk = opt.unit == "wgmma" and matrices and has_exact_ends(operands, size(product.k), opt.depth)
  tile = Tile(opt.unit, bulk, a.dtype.name, a.dtype.itemsize, size(m), size(n), size(product.k),
              opt.rows, opt.columns, opt.depth, opt.stages, opt.warp, opt.threads, *operands, pitch, sums.dtype.name)
  results = UOp(Ops.BUFFER, sums.dtype, (), results_of(opt, pitch))
  addresses = [rewrite(u.src[0].substitute(start), simplify_index) for u in (a, b)]
  filled = UOp(Ops.WMMA, dtypes.void, (results, *addresses, sides["m"], sides["n"]), tile)
  now, = [u for u in toposort([kernel]) if u.op is Ops.REDUCE]
  if opt.unit != "fma": now = summed(kernel, now)
  return kernel.substitute({now: results.after(filled).index(place).load()})

def summed(kernel: UOp, reduce: UOp) -> UOp:
  """The sums as the tile hands them on: rounded to 16 bits where nothing else is done with them."""
  users = [u for u in toposort([kernel]) if reduce in u.src]
  is_rounded = len(users) == 1 and users[0].op is Ops.CAST and is_half(users[0].dtype)
  return users[0] if is_rounded else reduce

def results_of(opt: Contract, pitch: int) -> Buf:
  return Buf(0, 64, Space.REG) if opt.unit == "fma" else Buf(0, opt.rows * pitch, Space.LOCAL)

def widest_store(kernel: UOp) -> int:
  """Bytes of the widest element that is stored."""
  return max(s.src[1].dtype.itemsize for s in toposort([kernel]) if s.op is Ops.STORE)

def is_matrix(operand: Operand, itemsize: int) -> bool:
  """Whether bulk tensor copies can read it: rows of a pitch of whole 16 bytes."""
  return 1 in (operand.outer, operand.inner) and operand.pitch * itemsize % WIDEST == 0

def has_exact_ends(operands: tuple[Operand, Operand], k: int, depth: int) -> bool:
  """Whether bulk copies past the end of k read zeros: they do past the end of a matrix, not past the end of a part."""
  return k % depth == 0 or all(k == (o.width if o.is_along_k else o.length) for o in operands)

def operand_of(load: UOp, side: UOp, k: UOp) -> Operand:
  outer, inner = stride(load, side), stride(load, k)
  assert outer is not None and inner is not None, "the operand of a contraction is linear in its ranges"
  last = bounds(load.src[0].src[1])[1]
  pitch = max(1, outer if inner == 1 else inner)
  near, far = (k, side) if inner == 1 else (side, k)
  place = sum_of(load.src[0].src[1])
  others = [place.constant, *[factor for node, factor in place.terms.items() if node not in (near, far)]]
  width = pitch if any(factor % pitch for factor in others) else min(size(near), pitch)
  return Operand(load.src[0].src[0].arg, outer, inner, aligned(load, side, k), last // pitch + 1, width)

def aligned(load: UOp, side: UOp, k: UOp) -> int:
  """How many neighbours along the nearer of two ranges can be read together: all else moves by multiples of them."""
  near, far = (k, side) if stride(load, k) == 1 else (side, k)
  if stride(load, near) != 1: return 1
  place = sum_of(load.src[0].src[1])
  others = [factor for node, factor in place.terms.items() if node is not near]
  lanes = WIDEST // load.dtype.itemsize
  while any(f % lanes for f in (*others, place.constant, size(near))): lanes //= 2
  return lanes

WIDEST = 16

# ---- which tiles -----------------------------------------------------------------------------------------------------

class Choice(NamedTuple):
  """A tile, and the share of the unit's speed that it reaches once there are enough of them (measured on an H100)."""
  rows: int
  columns: int
  depth: int                   # bytes of k
  stages: int
  warp: tuple[int, int]
  threads: int
  speed: float
  def shared_bytes(self) -> int:
    return room(self.stages, (self.rows + self.columns) * self.depth, 4 * self.rows * results_pitch(self.columns, ""))
  def turned(self) -> Choice:
    """The same, with rows and columns exchanged."""
    return self._replace(rows=self.columns, columns=self.rows, warp=self.warp[::-1])

CHOICES: dict[str, list[Choice]] = {
  "wgmma": [Choice(128, 256, 128, 4, (64, 256), 256, 1.0), Choice(128, 128, 128, 4, (64, 128), 256, 0.8),
            Choice(64, 128, 128, 8, (64, 128), 128, 0.7), Choice(64, 64, 128, 8, (64, 64), 128, 0.5)],
  "mma": [Choice(128, 256, 128, 3, (64, 64), 256, 1.0), Choice(128, 128, 64, 4, (64, 64), 128, 0.97),
          Choice(64, 128, 64, 4, (32, 64), 128, 0.8), Choice(64, 64, 64, 4, (32, 32), 128, 0.6)],
  "fma": [Choice(128, 128, 32, 2, (0, 0), 256, 1.0)],
}
FEWEST = 16                    # rows or columns under which no tile pays
SMALLEST = 1 << 20             # products under which no tile pays

def choose_contract(kernel: UOp, target: Target) -> Contract | None:
  """Tiles for a kernel that is a contraction large enough for them."""
  product = product_of(kernel)
  if product is None: return None
  unit = unit_for(product, target)
  sides = sides_of(KernelShape(kernel), product)
  if not unit or sides is None: return None
  m, n = sides
  others = prod(size(r) for r in KernelShape(kernel).outputs) // (size(m) * size(n))
  if min(size(m), size(n)) < FEWEST or size(m) * size(n) * size(product.k) * others < SMALLEST: return None
  def cost(choice: Choice) -> float:
    tiles = ceildiv(size(m), choice.rows) * ceildiv(size(n), choice.columns) * others
    return ceildiv(tiles, target.units) * choice.rows * choice.columns / choice.speed
  choices = [c for c in CHOICES[unit] if unit == "fma" or c.shared_bytes() <= target.local_bytes]
  if unit == "wgmma" and is_turned(product, n): choices = [c.turned() for c in choices]
  best = min(choices, key=cost)
  depth = best.depth // product.a.dtype.itemsize
  return Contract(m.arg[0], n.arg[0], unit, best.rows, best.columns, depth, best.stages, best.warp, best.threads)

def unit_for(product: Product, target: Target) -> str:
  """Who multiplies; "" for what no unit can. wgmma alone reads tf32, one operand at least in rows along k."""
  if is_half(product.a.dtype): return target.matrix
  if product.a.dtype is not dtypes.float32: return ""
  along = any(stride(u, product.k) == 1 for u in (product.a, product.b))
  return "wgmma" if product.is_rough and along and target.matrix == "wgmma" else "fma"

def is_turned(product: Product, n: UOp) -> bool:
  """Whether the operand whose rows become columns of the product comes from registers (codegen/matrix.py)."""
  b = product.b if stride(product.b, n) else product.a
  return b.dtype.itemsize == 4 and stride(b, product.k) != 1

def is_half(dtype: DType) -> bool: return dtype in (dtypes.float16, dtypes.bfloat16)

def sides_of(shape: KernelShape, product: Product) -> tuple[UOp, UOp] | None:
  """The output ranges that become rows and columns: each moves one operand only. Columns are those along which results
  lie side by side; of several, the longest are taken."""
  a_only = [r for r in shape.outputs if stride(product.a, r) and stride(product.b, r) == 0]
  b_only = [r for r in shape.outputs if stride(product.b, r) and stride(product.a, r) == 0]
  if not a_only or not b_only or None in (stride(product.a, product.k), stride(product.b, product.k)): return None
  if any(stride(u, r) is None for u in (product.a, product.b) for r in shape.outputs): return None
  def preferred(r: UOp) -> tuple[bool, int]: return (all(stride(s, r) == 1 for s in shape.stores), size(r))
  x, y = max(a_only, key=preferred), max(b_only, key=preferred)
  return (y, x) if preferred(x)[0] else (x, y)
