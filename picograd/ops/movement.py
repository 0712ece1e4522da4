# movement.py: the six movement ops as functions on positions. In: a movement node of the tensor form and the position
# of one of its elements, an index node per dimension. Out: the position of that element in the node's source,
# simplified, and the condition under which there is one: only PAD has elements that come from nowhere.
from __future__ import annotations
import functools
from typing import Callable, Sequence
from picograd.dtype import dtypes
from picograd.helpers import prod
from picograd.ops.index import join, simplify_index
from picograd.ops.match import rewrite
from picograd.ops.ops import Ops
from picograd.ops.shape import Shape
from picograd.ops.uop import UOp, substitute, toposort

Position = tuple[UOp, ...]

def constant(value: int) -> UOp: return UOp.const(dtypes.index, value)

def strides(shape: Shape) -> tuple[int, ...]:
  """How far apart in memory neighbours along each dimension are, in elements: (2, 3, 4) -> (12, 4, 1)."""
  return tuple(prod(shape[d + 1:]) for d in range(len(shape)))

def linear(position: Position, shape: Shape) -> UOp:
  """The row-major place of an element in memory. Not simplified."""
  total = constant(0)
  for p, stride in zip(position, strides(shape)): total = total + p * stride
  return total

def unravel(place: UOp, shape: Shape) -> Position:
  """The position of the element at a row-major place: the inverse of `linear`. Not simplified."""
  out = []
  for d, stride in enumerate(strides(shape)):
    quotient = place // stride
    out.append(quotient if d == 0 else quotient % shape[d])
  return tuple(out)

def simplify(nodes: Sequence[UOp]) -> Position:
  """Each node simplified, in one walk. The names of ranges count only by how they compare, so what has been answered
  for other ranges, as for an equal layer, is answered."""
  ranges = sorted([u for u in toposort(nodes) if u.op is Ops.RANGE], key=lambda r: r.arg)
  numbered = {r: r.replace(arg=(number, r.axis)) for number, r in enumerate(ranges)}
  named = {n: r for r, n in numbered.items()}
  return tuple(substitute(simplified(UOp.sink(*substitute(nodes, numbered))).src, named))

@functools.lru_cache(4096)
def simplified(sink: UOp) -> UOp: return rewrite(sink, simplify_index)

# ---- reshape ---------------------------------------------------------------------------------------------------------

Dims = list[int]

def groups(before: Shape, after: Shape) -> list[tuple[Dims, Dims]]:
  """The least runs of dimensions of equal size on both sides, without the ones: (2, 3, 4), (6, 1, 2, 2) gives
  ([0, 1], [0]), ([2], [2, 3]). What is in different runs does not mix."""
  old = [d for d, n in enumerate(before) if n != 1]
  new = [d for d, n in enumerate(after) if n != 1]
  out = []
  while old:
    left, right = [old.pop(0)], [new.pop(0)]
    m, n = before[left[0]], after[right[0]]
    while m != n:
      if m < n:
        left.append(old.pop(0))
        m *= before[left[-1]]
      else:
        right.append(new.pop(0))
        n *= after[right[-1]]
    out.append((left, right))
  return out

def push_reshape(u, position):
  """Linearised and split again, run by run."""
  before, after = u.src[0].shape, u.shape
  out = [constant(0)] * len(before)
  if 0 in before: return tuple(out)                          # no element, so any position will do
  for left, right in groups(before, after):
    if len(left) == len(right) == 1:
      out[left[0]] = position[right[0]]
      continue
    place = linear(tuple(position[d] for d in right), tuple(after[d] for d in right))
    for d, p in zip(left, unravel(place, tuple(before[d] for d in left))): out[d] = p
  return tuple(out)

# ---- the other five --------------------------------------------------------------------------------------------------

def push_expand(u, position):
  """A stretched dimension has one element, at 0."""
  return tuple(constant(0) if n == 1 else p for n, p in zip(u.src[0].shape, position))

def push_permute(u, position):
  """Dimension d of u is dimension arg[d] of its source."""
  out = list(position)
  for p, axis in zip(position, u.arg): out[axis] = p
  return tuple(out)

def push_shrink(u, position):
  return tuple(p + low for p, (low, _) in zip(position, u.arg))

def push_pad(u, position):
  return tuple(p - low for p, (low, _) in zip(position, u.arg))

def push_flip(u, position):
  return tuple(constant(n - 1) - p if d in u.arg else p for d, (n, p) in enumerate(zip(u.shape, position)))

def inside(u, position):
  """What holds where a PAD's element comes from its source: low <= p < low + n in each padded dimension."""
  out = []
  for p, n, (low, high) in zip(position, u.src[0].shape, u.arg):
    if low: out.append((p < low).not_())
    if high: out.append(p < low + n)
  return out

PUSH: dict[Ops, Callable[[UOp, Position], Position]] = {
  Ops.RESHAPE: push_reshape, Ops.EXPAND: push_expand, Ops.PERMUTE: push_permute,
  Ops.PAD: push_pad, Ops.SHRINK: push_shrink, Ops.FLIP: push_flip,
}

def push(u: UOp, position: Position) -> tuple[Position, UOp | None]:
  """The position in u.src[0] of the element of u at `position`, and when it exists; None for always."""
  moved, conditions = PUSH[u.op](u, position), inside(u, position) if u.op is Ops.PAD else []
  if not conditions and {*position, constant(0)}.issuperset(moved): return moved, None     # as simple as it was
  *source, valid = simplify([*moved, join(conditions)])
  always = valid.op is Ops.CONST and valid.arg
  return tuple(source), None if always else valid
