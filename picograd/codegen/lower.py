# lower.py: kernel -> kernel in the target's own terms. After: no dtype index, no THREAD range, no op or dtype that the
# target lacks, products added to sums are fused multiply-adds.   (chapter 3)
from __future__ import annotations
from picograd.codegen.target import Target
from picograd.dtype import DType, dtypes
from picograd.ops.decompose import lower_operations, make_defined
from picograd.ops.fold import fold
from picograd.ops.match import Pat, Rules, rewrite, rewrite_top_down
from picograd.ops.ops import Axis, Ops
from picograd.ops.uop import Table, UOp, toposort

def lower(kernel: UOp, target: Target) -> UOp:
  kernel = rewrite_top_down(kernel, make_defined(target.division_traps))
  kernel = threads_to_special(kernel)
  kernel = index_to_int(kernel, target.position)
  kernel = rewrite(kernel, fold_and_fuse)
  return rewrite(kernel, lower_operations(target.missing_ops, target.missing_dtypes))

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

def is_real(dt: DType) -> bool: return dt.scalar in (dtypes.float32, dtypes.float64)

def fuse(a: UOp, b: UOp, c: UOp) -> UOp | None:
  """Unless the product is a negation: then the sum is a difference, which needs no product."""
  if is_minus_one(a) or is_minus_one(b): return None
  return UOp(Ops.MULACC, c.dtype, (a, b, c))

def is_minus_one(u: UOp) -> bool:
  if u.op is Ops.STACK: u = u.src[0]
  return u.op is Ops.CONST and u.arg == -1

product = Pat(Ops.MUL, (Pat.var("a"), Pat.var("b")))
products_fused = Rules([(Pat(Ops.ADD, [product, Pat.var("c")], dtype=is_real), fuse)])      # a*b + c, rounded once
fold_and_fuse = fold + products_fused
