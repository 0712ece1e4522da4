# batching.py: a graph for one example becomes the graph for all of them. In: nodes that depend on placeholders, and the
# batch that each placeholder stands for, (B, ..). Out: the same nodes with a first dimension B. A node that depends on
# no placeholder stays as it is. Every op of the tensor form has one rule, so whatever was traced can be batched.
from __future__ import annotations
from typing import Any, Callable, Sequence
from picograd.arithmetic import stretch
from picograd.dtype import DType
from picograd.helpers import prod
from picograd.ops.gradient import stores_of
from picograd.ops.ops import ALU, Buf, MOVEMENT, Ops, Space
from picograd.ops.uop import Table, UOp, fresh, toposort, view_of
from picograd.ops.windows import CORRELATION, correlate
from picograd.storage import merged, traced, unique_leaf

TRACED = "VMAP"        # the device of placeholders: it does not exist, so nobody can ask for a value

def placeholder(shape: Sequence[int], dtype: DType) -> UOp:
  """A node of a shape and dtype that has no value."""
  size = prod(shape)
  leaf = UOp(Ops.BUFFER, dtype, (), Buf(next(fresh), size, Space.GLOBAL, TRACED))
  traced.add(leaf)
  return unique_leaf(leaf.reshape(tuple(shape)))

def for_each(u: UOp, new: Table, size: int) -> UOp:
  """u for all examples, (size, ..): what the table says, else it is the same for each."""
  return new[u] if u in new else stretch(u, (size, *u.shape))

def later(axes: Sequence[int]) -> tuple[int, ...]: return tuple(a + 1 for a in axes)

# movement op -> its arg where a dimension of a size comes first
MOVES: dict[Ops, Callable[[Any, int], Any]] = {
  Ops.RESHAPE: lambda shape, size: (size, *shape),
  Ops.EXPAND: lambda shape, size: (size, *shape),
  Ops.PERMUTE: lambda axes, size: (0, *later(axes)),
  Ops.PAD: lambda widths, size: ((0, 0), *widths),
  Ops.SHRINK: lambda bounds, size: ((0, size), *bounds),
  Ops.FLIP: lambda axes, size: later(axes),
}

def batch(roots: Sequence[UOp], sources: Table, size: int) -> list[UOp]:
  """The roots for all examples, (size, ..): sources says what each placeholder stands for."""
  new: Table = dict(sources)
  for u in toposort(roots, stop=new.__contains__):
    if u in new or u.op is Ops.STORE or not any(s in new for s in below(u)): continue
    new[u] = batched(u, new, size)
  return [for_each(u, new, size) for u in roots]

def below(u: UOp) -> tuple[UOp, ...]:
  """What u is computed from; of an assignment also what is stored."""
  return u.src if u.op is not Ops.AFTER else (u.src[0], *(s.src[1] for s in stores_of(u)))

def batched(u: UOp, new: Table, size: int) -> UOp:
  """u for all examples, where a source is in the table."""
  if u.op is Ops.AFTER: return batched_assignment(u, new, size)
  if u.op is Ops.DETACH and u.arg is not None: return batched_formula(u, new, size)
  arg: Any = u.arg
  if u.op in MOVEMENT: arg = MOVES[u.op](arg, size)
  elif u.op is Ops.REDUCE: arg = (arg[0], later(arg[1]))
  elif u.op not in KEPT: raise NotImplementedError(f"vmap: {u.op} of {u.dtype} cannot be batched")
  return UOp(u.op, u.dtype, tuple(for_each(s, new, size) for s in u.src), arg)

KEPT = frozenset({*ALU, Ops.CONTIGUOUS, Ops.DETACH, Ops.COPY})

def batched_formula(u: UOp, new: Table, size: int) -> UOp:
  """DETACH(value, x, known ..) with (name, axes ..). Numbers among what is known are the same for all examples."""
  name, *axes = u.arg
  if name == CORRELATION: return batched_correlation(u, new, size)
  value, x = (for_each(s, new, size) for s in u.src[:2])
  known = [for_each(s, new, size) if s in new or s.shape else s for s in u.src[2:]]
  return UOp(Ops.DETACH, u.dtype, (value, x, *known), (name, *later(axes)))

def batched_correlation(u: UOp, new: Table, size: int) -> UOp:
  """Examples with weights of their own are groups; with common weights they are one large batch."""
  _, x, w = u.src
  batch_size, groups, *rest = x.shape
  many = for_each(x, new, size)                                                # (B, N, G, C, i_1 ..)
  if w not in new:
    y = correlate(many.reshape((size * batch_size, groups, *rest)), w, u.arg[1])
    return y.reshape((size, *u.shape))
  y = correlate(many.movedim(1, 0).reshape((batch_size, size * groups, *rest)),
                new[w].reshape((size * groups, *w.shape[1:])), u.arg[1])
  return y.reshape((batch_size, size, *u.shape[1:])).movedim(1, 0)

def batched_assignment(u: UOp, new: Table, size: int) -> UOp:
  """What memory holds after stores, as a value: nothing is written."""
  value = for_each(u.src[0], new, size)
  for store in stores_of(u):
    view, stored = store.src
    steps = tuple((m.op, MOVES[m.op](m.arg, size)) for m in view_of(view)[1])
    value = merged(value, steps, for_each(stored, new, size))
  return value
