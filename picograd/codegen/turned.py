# turned.py: operands of products that a matrix unit cannot read. wgmma turns no elements of 4 bytes: of a product whose
# operands may be rounded, one at least has to lie in memory in rows along what is summed up. Where none does, the
# smaller one is copied so. In and out: roots of a tensor graph. (chapter 3)
from __future__ import annotations
from picograd.codegen.target import Target
from picograd.dtype import dtypes
from picograd.helpers import argsort, prod
from picograd.ops.index import stride_of
from picograd.ops.movement import linear, push, simplify
from picograd.ops.ops import Axis, MOVEMENT, Ops, ROUGH
from picograd.ops.uop import Table, UOp, toposort

FEWEST_READS = 64        # of each element, from which on a copy costs less than products without a matrix unit

def with_rows_to_read(roots: list[UOp], target: Target) -> list[UOp]:
  """Graphs of the same values."""
  if target.matrix != "wgmma": return roots
  new: Table = {}
  for u in toposort(roots):
    new[u] = u.with_src(tuple([new[s] for s in u.src]))
    if is_rough_sum(u): new[u] = new[u].with_src((with_rows(new[u].src[0], *u.arg[1]),))
  return [new[r] for r in roots]

def is_rough_sum(u: UOp) -> bool:
  """Whether u sums up, along one axis, products of float32 that may be rounded first."""
  if u.op is not Ops.REDUCE or u.arg[0] is not Ops.ADD or len(u.arg[1]) != 1: return False
  return u.dtype is dtypes.float32 and u.src[0].arg == ROUGH and all(s.op is Ops.EXPAND for s in u.src[0].src)

def with_rows(product: UOp, axis: int) -> UOp:
  """The product, one of whose operands has rows along the axis, if many products read each of its elements."""
  operands = [s.src[0] for s in product.src]
  often = all(prod(product.shape) >= FEWEST_READS * prod(y.shape) for y in operands)
  if not often or any(has_rows(y, axis) for y in operands): return product
  smaller = min(operands, key=lambda y: prod(y.shape))
  copied = in_rows(smaller, axis)
  return product.with_src(tuple([s.with_src((copied,)) if s.src[0] is smaller else s for s in product.src]))

def has_rows(x: UOp, axis: int) -> bool:
  """Whether neighbours along an axis are neighbours in memory, or will be once x is computed."""
  at = tuple([UOp.range(n, Axis.LOOP) for n in x.shape])
  r = at[axis]
  while x.op in MOVEMENT:
    at, _ = push(x, at)
    x = x.src[0]
  place, = simplify([linear(at, x.shape)])
  return stride_of(place, r) == 1

def in_rows(x: UOp, axis: int) -> UOp:
  """x, copied in an order in which the axis is the last."""
  order = tuple([*[a for a in range(len(x.shape)) if a != axis], axis])
  return UOp(Ops.CONTIGUOUS, x.dtype, (x.permute(order),)).permute(tuple(argsort(order)))
