# lower.py: kernel -> kernel in the target's own terms. After: no dtype index, no THREAD range, no op or dtype that the
# target lacks, products added to sums are fused multiply-adds.   (chapter 3)
from __future__ import annotations
from picograd.codegen.grid import meet_together, to_grid
from picograd.codegen.target import Target
from picograd.dtype import DType, dtypes
from picograd.ops.decompose import lower_operations, make_defined
from picograd.ops.fold import fold
from picograd.ops.index import bounds, simplify_index
from picograd.ops.match import rewrite, rewrite_top_down
from picograd.ops.ops import Axis, Ops
from picograd.ops.uop import Table, UOp, toposort

def lower(kernel: UOp, target: Target) -> UOp:
  kernel = rewrite_top_down(kernel, make_defined(target.missing_ops, target.division_traps))
  kernel = threads_to_special(kernel)
  if target.local_bytes: kernel = meet_together(rewrite(to_grid(kernel), simplify_index))
  kernel = index_to_int(kernel, position_type(kernel, target))
  kernel = fuse_products(rewrite(kernel, fold))
  return rewrite(kernel, lower_operations(target.missing_ops, target.missing_dtypes, target.casts_by_bits))

def position_type(kernel: UOp, target: Target) -> DType:
  """The target's machine integer for positions, or a wide one where some position needs it."""
  most = target.position.max
  fits = all(-most <= end <= most for u in toposort([kernel]) if u.dtype is dtypes.index for end in bounds(u))
  return target.position if fits else dtypes.int64

def threads_to_special(kernel: UOp) -> UOp:
  """THREAD ranges are not loops: each thread runs the kernel with its own number."""
  new: Table = {}
  threads: set[UOp] = set()
  for u in toposort([kernel]):
    closes = u.op in (Ops.END, Ops.AFTER)
    src = tuple([new[s] for s in u.src if not (closes and s in threads)])
    new[u] = u.with_src(src)
    if u.op is not Ops.RANGE or u.axis is not Axis.THREAD: continue
    new[u] = UOp(Ops.SPECIAL, dtypes.index, (), ("thread", u.bound.arg))
    threads.add(u)
  return new[kernel]

def index_to_int(kernel: UOp, integer: DType) -> UOp:
  """Index arithmetic in the machine integer of the target."""
  new: Table = {}
  for u in toposort([kernel]):
    src = tuple([new[s] for s in u.src])
    dtype = integer.vec(u.dtype.count) if u.dtype.scalar is dtypes.index else u.dtype
    needless = u.op is Ops.CAST and src[0].dtype is dtype
    new[u] = src[0] if needless else UOp(u.op, dtype, src, u.arg)
  return new[kernel]

def fuse_products(kernel: UOp) -> UOp:
  """a*b + c rounded once, where nothing else uses the product: so a value does not depend on what shares its kernel."""
  users: dict[UOp, int] = {}
  new: Table = {}
  order = toposort([kernel])
  for s in [s for u in order for s in u.src]: users[s] = users.get(s, 0) + 1
  for u in order:
    product = next((s for s in u.src if s.op is Ops.MUL and users[s] == 1 and not negates(s)), None)
    new[u] = u.with_src(tuple([new[s] for s in u.src]))
    if u.op is not Ops.ADD or product is None or u.dtype.scalar not in REAL: continue
    rest = u.src[u.src[0] is product]
    new[u] = UOp(Ops.MULACC, u.dtype, (*new[product].src, new[rest]))
  return new[kernel]

REAL = (dtypes.float32, dtypes.float64)

def negates(product: UOp) -> bool:
  """Whether a product is by -1: then the sum is a difference, which needs no product."""
  factors = [s.src[0] if s.op is Ops.STACK else s for s in product.src]
  return any(s.op is Ops.CONST and s.arg == -1 for s in factors)
