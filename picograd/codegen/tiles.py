# tiles.py: Opts of GPUs that rewrite more than one range. Turn: tiles of a transposed copy by way of shared memory.
# Contract: a sum of products in tiles of a matrix unit: the ranges of a tile's rows and columns are split into threads
# and registers as the unit's results lie, and the reduction becomes a WMMA that fills those registers. What is done with
# the sums stays as it is, on ranges: any epilogue, any layout, any batch.   (chapter 3)
from __future__ import annotations
import itertools
from typing import NamedTuple
from picograd.codegen.heuristic import KernelShape, size, stride
from picograd.codegen.optimize import Opt, apply_opt, next_number, range_numbered, replace_range, split_inner
from picograd.codegen.target import Target
from picograd.dtype import DType, dtypes
from picograd.helpers import ceildiv, prod
from picograd.ops.index import simplify_index, stride_of, sum_of
from picograd.ops.match import rewrite
from picograd.ops.ops import Axis, Buf, Operand, Ops, Space, Tile
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
  def __repr__(self) -> str: return f"{self.unit.upper()}(r{self.m} {self.rows}, r{self.n} {self.columns}, {self.depth}x{self.stages})"
  def applied(self, kernel: UOp) -> UOp: return contract(kernel, self)

class Split(NamedTuple):
  """A part of a tile's side, innermost first. register: how far apart its neighbours are in a thread's results."""
  side: str
  axis: Axis
  amount: int
  register: int = 0

def splits_of(opt: Contract) -> list[Split]:
  """How the results of a unit lie in threads and registers. (PTX ISA, figures of the fragments of D.)"""
  wm, wn = opt.warp
  if opt.unit == "fma": return [
    Split("n", Axis.VECTOR, 4, 1), Split("m", Axis.UPCAST, 4, 8), Split("m", Axis.LOCAL, 8), Split("n", Axis.LOCAL, 4),
    Split("n", Axis.UPCAST, 2, 4), Split("m", Axis.UPCAST, 2, 32), Split("m", Axis.LOCAL, 2), Split("n", Axis.LOCAL, 4)]
  quad = [Split("n", Axis.VECTOR, 2, 1), Split("n", Axis.LOCAL, 4), Split("m", Axis.LOCAL, 8),
          Split("n", Axis.UPCAST, wn // 8, 4), Split("m", Axis.UPCAST, 2, 2)]
  if opt.unit == "mma": return [
    *quad, Split("m", Axis.UPCAST, wm // 16, wn // 2), Split("m", Axis.LOCAL, opt.rows // wm),
    Split("n", Axis.LOCAL, opt.columns // wn)]
  return [*quad, Split("m", Axis.LOCAL, 4), Split("m", Axis.UPCAST, wm // 64, wn // 2),
          Split("m", Axis.LOCAL, opt.rows // wm)]

class Product(NamedTuple):
  """A sum of products: the REDUCE, the loads of its operands, the range that it reduces."""
  reduce: UOp
  a: UOp
  b: UOp
  k: UOp

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
  return Product(reduce, a, b, reduce.src[1])

def contract(kernel: UOp, opt: Contract) -> UOp:
  product = product_of(kernel)
  if product is None: raise ValueError(f"{opt}: the kernel is no contraction")
  m, n = range_numbered(kernel, opt.m), range_numbered(kernel, opt.n)
  a, b = (product.a, product.b) if stride(product.a, m) else (product.b, product.a)
  sides: dict[str, UOp] = {"m": m, "n": n}                 # side -> its range in terms of the new ones
  places = {"a": a.src[0], "b": b.src[0]}                  # operand -> the address of an element, likewise
  left = {"m": m, "n": n}
  parts: list[UOp] = []
  register = UOp.const(dtypes.index, 0)
  for split in splits_of(opt):
    r, step = left[split.side], Opt(split.axis, left[split.side].arg[0], split.amount)
    if split.amount == 1: continue
    fresh = next_number(kernel)
    value, inside = split_inner(r, step, fresh)
    kernel = replace_range(kernel, r, value, inside)
    inner = next(u for u in toposort([value]) if u.op is Ops.RANGE and u.arg[0] == fresh)
    sides = {side: u.substitute({r: value}) for side, u in sides.items()}
    places = {name: u.substitute({r: value}) for name, u in places.items()}
    left[split.side] = next((u for u in toposort([value]) if u.op is Ops.RANGE and u is not inner), r.replace(src=(r.like(1),)))
    parts.append(inner)
    register = register + inner * split.register
  start = {r: r.like(0) for r in (*parts, product.k)}
  def at_start(u: UOp) -> UOp: return rewrite(u.substitute(start), simplify_index)
  tile = Tile(opt.unit, a.dtype.name, a.dtype.itemsize, size(m), size(n), size(product.k), opt.rows, opt.columns,
              opt.depth, opt.stages, opt.warp, opt.threads,
              operand_of(a, m, product.k), operand_of(b, n, product.k))
  count = prod(split.amount for split in splits_of(opt) if split.axis in (Axis.UPCAST, Axis.VECTOR))
  registers = UOp(Ops.BUFFER, dtypes.float32, (), Buf(0, count, Space.REG))
  first = [without_gates(at_start(places["a"])), without_gates(at_start(places["b"]))]
  # the tile's own rows are added by the unit: addresses start at row 0 and column 0
  first = [rewrite(u.substitute({left["m"]: m.like(0), left["n"]: n.like(0)}), simplify_index) for u in first]
  filled = UOp(Ops.WMMA, dtypes.void, (registers, *first, at_start(sides["m"]), at_start(sides["n"])), tile)
  now, = [u for u in toposort([kernel]) if u.op is Ops.REDUCE]
  return kernel.substitute({now: registers.after(filled).index(register).load()})

def without_gates(address: UOp) -> UOp: return address.with_src(address.src[:2])

def operand_of(load: UOp, side: UOp, k: UOp) -> Operand:
  outer, inner = stride(load, side), stride(load, k)
  assert outer is not None and inner is not None, "the operand of a contraction is linear in its ranges"
  return Operand(outer, inner, aligned(load, side, k))

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

CHOICES: dict[str, list[Choice]] = {
  "wgmma": [Choice(128, 256, 128, 4, (64, 256), 256, 1.0), Choice(128, 128, 128, 4, (64, 128), 256, 0.8),
            Choice(64, 128, 128, 4, (64, 128), 128, 0.7), Choice(64, 64, 128, 4, (64, 64), 128, 0.5)],
  "mma": [Choice(128, 128, 64, 4, (64, 64), 128, 1.0), Choice(64, 128, 64, 4, (32, 64), 128, 0.8),
          Choice(64, 64, 64, 4, (32, 32), 128, 0.6)],
  "fma": [Choice(128, 128, 32, 2, (0, 0), 256, 1.0)],
}
FEWEST = 16                    # rows or columns under which no tile pays
SMALLEST = 1 << 20             # products under which no tile pays

def choose_contract(kernel: UOp, target: Target) -> Contract | None:
  """Tiles for a kernel that is a contraction large enough for them."""
  product = product_of(kernel)
  if product is None: return None
  unit = "fma" if product.a.dtype is dtypes.float32 else target.matrix if is_half(product.a.dtype) else ""
  sides = sides_of(KernelShape(kernel), product)
  if not unit or sides is None: return None
  m, n = sides
  others = prod(size(r) for r in KernelShape(kernel).outputs) // (size(m) * size(n))
  if min(size(m), size(n)) < FEWEST or size(m) * size(n) * size(product.k) * others < SMALLEST: return None
  def cost(choice: Choice) -> float:
    tiles = ceildiv(size(m), choice.rows) * ceildiv(size(n), choice.columns) * others
    return ceildiv(tiles, target.units) * choice.rows * choice.columns / choice.speed
  best = min(CHOICES[unit], key=cost)
  depth = best.depth // product.a.dtype.itemsize
  return Contract(m.arg[0], n.arg[0], unit, best.rows, best.columns, depth, best.stages, best.warp, best.threads)

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
