# partial.py: long reductions to few results as two kernels, so that all threads have work whatever is reduced, the sums
# are those of any number of threads, and rounding errors stay small; maxima of 16-bit floats in float32, which no step
# has to round. In and out: roots of a tensor graph. (chapter 3)
from __future__ import annotations
from picograd.codegen.target import Target
from picograd.dtype import dtypes
from picograd.helpers import prod
from picograd.ops.ops import Ops
from picograd.ops.uop import Table, UOp, toposort

LONG = 1 << 17           # elements under which one kernel on one thread is best
LONG_FOR_A_BLOCK = 1 << 16       # the same for one block of a GPU's threads
FEW_RESULTS = 16
COLUMNS = 32             # for each processor: with several threads for each column they are enough
PARTS = 64               # of each result; a number near it that divides the axis, if there is one

def split_long_reductions(roots: list[UOp], target: Target) -> list[UOp]:
  """Graphs of the same values."""
  new: Table = {}
  for u in toposort(roots):
    new[u] = u.with_src(tuple([new[s] for s in u.src]))
    if u.op is not Ops.REDUCE: continue
    if is_long(u, target) or is_narrow(u, target): new[u] = by_parts(new[u])
    elif u.dtype in dtypes.halves and u.arg[0] is Ops.MAX:
      new[u] = new[u].src[0].cast(dtypes.float32).reduce(*u.arg).cast(u.dtype)
  return [new[r] for r in roots]

def is_long(u: UOp, target: Target) -> bool:
  """Whether a reduction to few results is worth two kernels. (Parts in 16 bits would be rounded.)"""
  long = LONG if target.units == 1 else LONG_FOR_A_BLOCK
  if prod(u.src[0].shape) < long or u.dtype in dtypes.halves: return False
  return prod(u.shape) <= FEW_RESULTS and longest_axis(u)[1] >= PARTS

def is_narrow(u: UOp, target: Target) -> bool:
  """Whether a reduction of columns, whose neighbours are other columns', has too few of them for all processors."""
  shape = u.src[0].shape
  if len(shape) - 1 in u.arg[1] or shape[-1] == 1 or u.dtype in dtypes.halves: return False
  many = prod(shape) >= 1 << 20 and longest_axis(u)[1] >= PARTS
  return many and prod(u.shape) < COLUMNS * (target.units - 1)

def longest_axis(u: UOp) -> tuple[int, int]:
  """Of those that u reduces: which, and its length."""
  shape = u.src[0].shape
  axis = max(u.arg[1], key=lambda a: shape[a])
  return axis, shape[axis]

def by_parts(u: UOp) -> UOp:
  """(.., n, ..) -> (.., parts, n/parts, ..) -> (.., parts, 1, ..), stored -> (.., 1, ..); then what is left over."""
  op, axes = u.arg
  x, (axis, n) = u.src[0], longest_axis(u)
  parts = next((p for p in sorted(range(PARTS // 2, 2 * PARTS), key=lambda p: abs(p - PARTS)) if n % p == 0), PARTS)
  whole = n - n % parts
  shape = (*x.shape[:axis], parts, whole // parts, *x.shape[axis + 1:])
  inner = tuple([a + (a >= axis) for a in axes])
  partial = part_of(x, axis, 0, whole).reshape(shape).reduce(op, inner)
  total = UOp(Ops.CONTIGUOUS, u.dtype, (partial,)).reduce(op, (axis,)).reshape(u.shape)
  return total if whole == n else total.alu(op, part_of(x, axis, whole, n).reduce(op, axes))

def part_of(x: UOp, axis: int, start: int, end: int) -> UOp:
  return x.shrink(tuple([(start, end) if a == axis else (0, n) for a, n in enumerate(x.shape)]))
