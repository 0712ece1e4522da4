# border.py: sums over windows skip the border of an image. In and out: a kernel after optimize. After: where a sum of
# products reads memory that holds zeros around something (a stored PAD), the loop over a window runs only as far as it
# meets something else: a transposed convolution of 3 x 3 over 8 x 8 would multiply zeros in a quarter of its steps.
# (chapter 3)
from __future__ import annotations
import itertools
from picograd.codegen.optimize import next_number
from picograd.helpers import prod
from picograd.ops.index import Sum, build, plus, span, sum_of
from picograd.ops.ops import Axis, Border, Ops
from picograd.ops.uop import Table, UOp, toposort

SERIAL = (Axis.THREAD, Axis.BLOCK, Axis.LOOP)            # loops around a sum, one step after the other

def skip_borders(kernel: UOp) -> UOp:
  numbers = itertools.count(next_number(kernel))
  shorter: dict[tuple[UOp, UOp, UOp], UOp] = {}          # (range, its first step, how many) -> the range of these
  new: Table = {}
  for u in toposort([kernel]):
    new[u] = u.with_src(tuple([new[s] for s in u.src]))
    if u.op is not Ops.REDUCE or u.arg[0] is not Ops.ADD: continue
    steps: Table = {}
    places: Table = {}
    for load in factors(u.src[0]):
      for found in steps_inside(load, u.src[1:]):
        r, first, count = found
        if r in steps: continue
        if found not in shorter: shorter[found] = UOp(Ops.RANGE, r.dtype, (count,), (next(numbers), r.axis))
        steps[r], places[r] = shorter[found], shorter[found] + first
    value, *loops = new[u].src
    if steps: new[u] = new[u].with_src((value.substitute(places), *[steps.get(r, r) for r in loops]))
  return new[kernel]

def factors(value: UOp) -> list[UOp]:
  """The loads that make a value 0 when they are 0."""
  if value.op is Ops.LOAD: return [value]
  if value.op in (Ops.MUL, Ops.CAST): return [load for s in value.src for load in factors(s)]
  return []

def steps_inside(load: UOp, loops: tuple[UOp, ...]) -> list[tuple[UOp, UOp, UOp]]:
  """Ranges of a sum, the first step in which the load meets what is inside a border, and the number of steps from there
  on, where both depend on loops around the sum alone."""
  border = load.src[0].arg
  if not isinstance(border, Border): return []
  places = coordinates(sum_of(load.src[0].src[1]), border.shape)
  found = []
  for at, n, (low, high) in zip(places or (), border.shape, border.inner):
    moving = [r for r in at.terms if r in loops]
    if (low, high) == (0, n) or len(moving) != 1 or at.terms[moving[0]] != 1: continue
    r, = moving
    others = plus(at, Sum({r: 1}), -1)
    if r.axis is not Axis.REDUCE or r.bound.op is not Ops.CONST or not all(map(is_serial, others.terms)): continue
    first = greatest(build(plus(Sum({}, low), others, -1)), r.like(0))
    end = least(build(plus(Sum({}, high), others, -1)), r.bound)
    found.append((r, first, end - first))
  return found

def is_serial(u: UOp) -> bool: return u.op is Ops.RANGE and u.axis in SERIAL

def greatest(a: UOp, b: UOp) -> UOp: return (a < b).where(b, a)
def least(a: UOp, b: UOp) -> UOp: return (a < b).where(a, b)

def coordinates(position: Sum, shape: tuple[int, ...]) -> list[Sum] | None:
  """A place in memory of this shape as a coordinate in each dimension; None where it is not a sum of such."""
  terms, constant = dict(position.terms), position.constant
  out = []
  for d, n in enumerate(shape):
    stride = prod(shape[d + 1:])
    mine = {u: factor // stride for u, factor in terms.items() if factor % stride == 0}
    terms = {u: factor for u, factor in terms.items() if u not in mine}
    at = Sum(mine, constant // stride)
    constant %= stride
    low, high = span(at)
    if low < 0 or high >= n: return None
    out.append(at)
  return out if not terms else None
