# optimize.py: Opts as data, applied to the ranges of a kernel. An Opt splits one range in two and says what the inner
# part becomes; the heuristic, a search and a user's hand all write the same list. In: kernel. Out: kernel with THREAD,
# STRIP, UPCAST, UNROLL and VECTOR ranges.   (chapter 3)
from __future__ import annotations
import itertools
from typing import Iterable, Iterator, NamedTuple
from picograd.dtype import dtypes
from picograd.helpers import ceildiv, dedup
from picograd.ops.index import simplify_index, stride_of
from picograd.ops.match import rewrite
from picograd.ops.ops import Axis, Ops, identity
from picograd.ops.uop import Table, UOp, ranges_inside, toposort

class Opt(NamedTuple):
  """Split range `number` into an outer loop and `amount` inner steps of kind `axis`; for THREAD, into chunks; for LOOP,
  into the steps up to the last multiple of `amount` and a loop for the rest."""
  axis: Axis
  number: int
  amount: int
  def __repr__(self) -> str: return f"{self.axis.name}(r{self.number}, {self.amount})"

def ranges_in(kernel: UOp) -> list[UOp]:
  return [u for u in toposort([kernel]) if u.op is Ops.RANGE]
def next_number(kernel: UOp) -> int:
  return 1 + max(r.arg[0] for r in ranges_in(kernel))

def numbered(size: int, number: int, axis: Axis) -> UOp:
  return UOp(Ops.RANGE, dtypes.index, (UOp.const(dtypes.index, size),), (number, axis))

def range_numbered(kernel: UOp, number: int) -> UOp:
  known = ranges_in(kernel)
  for r in known:
    if r.arg[0] == number: return r
  listed = ", ".join(f"r{r.arg[0]}" for r in known)
  raise ValueError(f"the kernel has no range r{number}; it has {listed}")

def apply_opts(kernel: UOp, opts: list[Opt]) -> UOp:
  for opt in opts: kernel = apply_opt(kernel, opt)
  return rewrite(kernel, simplify_index)

def apply_opt(kernel: UOp, opt: Opt) -> UOp:
  if opt.amount < 1: raise ValueError(f"{opt}: the amount must be positive")
  r, fresh = range_numbered(kernel, opt.number), next_number(kernel)
  if opt.axis is Axis.LOOP: return set_rest_apart(kernel, r, opt.amount)
  if opt.axis is Axis.THREAD: return once(replace_range(kernel, r, *split_outer(r, opt, fresh)), fresh)
  return replace_range(kernel, r, *split_inner(r, opt, fresh))

def split_inner(r: UOp, opt: Opt, fresh: int) -> tuple[UOp, UOp | None]:
  """r = outer * amount + inner, and the condition r < size where the amount does not divide it. The outer loop keeps
  r's number."""
  size = r.bound.arg
  steps = ceildiv(size, opt.amount)
  inner = numbered(opt.amount, fresh, opt.axis)
  value = inner if steps == 1 else numbered(steps, *r.arg) * opt.amount + inner
  return value, None if steps * opt.amount == size else value < size

def split_outer(r: UOp, opt: Opt, fresh: int) -> tuple[UOp, None]:
  """r = chunk * thread + inner. Chunks are equal but for the last, whose loop ends earlier, and those after it, which
  are empty."""
  size = r.bound.arg
  chunk = ceildiv(size, opt.amount)
  thread = numbered(opt.amount, fresh, Axis.THREAD)
  left = size - thread * chunk
  bound = r.like(chunk) if size == chunk * opt.amount else (left < chunk).where(left, chunk)
  return thread * chunk + UOp(Ops.RANGE, dtypes.index, (bound,), r.arg), None

def once(kernel: UOp, number: int) -> UOp:
  """The kernel whose nests that no thread range divides are the first thread's work."""
  thread = range_numbered(kernel, number)
  stores: list[Nested] = []
  for store, loops in stores_of(kernel):
    table: Table = {}
    if loops and not any(r.axis is Axis.THREAD for r in loops):
      first = loops[0]
      bound = (thread < 1).where(first.bound, 0)
      table = {first: first.with_src((bound,))}
      loops = (thread, *replaced(loops, table))
    stores.append((store.substitute(table), loops))
  return UOp.sink(*nests_of(stores))

def replace_range(kernel: UOp, r: UOp, value: UOp, inside: UOp | None) -> UOp:
  """The kernel with r computed as value from new ranges; outside of `inside` nothing is read, written or reduced."""
  new: Table = {r: value}
  depends = {r}
  for u in toposort([kernel]):
    if u in new: continue
    src = [new[s] for s in u.src]
    closes = u.op in (Ops.END, Ops.REDUCE) and r in u.src[1:]
    if not closes and any(s in depends for s in u.src): depends.add(u)
    if u.op in (Ops.END, Ops.REDUCE):
      inner = len(inner_part(u))
      src = [*src[:inner], *flat_ranges(src[inner:])]
    if inside is not None and u.op is Ops.INDEX and u.src[1] in depends: src = [*src[:2], gated(src[2:], inside)]
    if inside is not None and u.op is Ops.REDUCE and closes:
      src[0] = inside.where(src[0], UOp.const(u.dtype, identity(u.arg[0], u.dtype)))
    new[u] = UOp(u.op, u.dtype, tuple(src), u.arg)
  return new[kernel]

def gated(gates: list[UOp], inside: UOp) -> UOp: return gates[0] & inside if gates else inside

def flat_ranges(values: list[UOp]) -> list[UOp]:
  """The ranges that ranges, and expressions over new ranges, stand for: THREAD first, STRIP last, else in order of
  mention."""
  found = [u for v in values for u in toposort([v]) if u.op is Ops.RANGE]
  return sorted(dedup(found), key=lambda u: (u.axis is Axis.STRIP) - (u.axis is Axis.THREAD))

# ---- loop nests ------------------------------------------------------------------------------------------------------

Nested = tuple[UOp, tuple[UOp, ...]]           # a store and the loops around it, outermost first

def inner_part(u: UOp) -> tuple[UOp, ...]:
  """What an END or a REDUCE repeats: its sources before the ranges."""
  return tuple([s for s in u.src if s.op is not Ops.RANGE])

def stores_of(u: UOp, around: tuple[UOp, ...] = ()) -> list[Nested]:
  """The stores of a kernel, or of a loop nest in it."""
  if u.op is Ops.STORE: return [(u, around)]
  inner = inner_part(u)
  return [found for s in inner for found in stores_of(s, around + u.src[len(inner):])]

def nests_of(stores: list[Nested]) -> list[UOp]:
  """Loop nests around stores: those that begin with the same loops share them."""
  groups: dict[tuple[UOp, ...], list[Nested]] = {}
  for store, loops in stores: groups.setdefault(loops[:1], []).append((store, loops))
  nests: list[UOp] = []
  for first, group in groups.items():
    shared = common_start([loops for _, loops in group])
    inner = [store for store, _ in group]
    if first and any(len(loops) > len(shared) for _, loops in group):
      inner = nests_of([(store, loops[len(shared):]) for store, loops in group])
    nests += [UOp(Ops.END, dtypes.void, (*inner, *shared))] if first else inner
  return nests

def common_start(lists: list[tuple[UOp, ...]]) -> tuple[UOp, ...]:
  same = itertools.takewhile(lambda column: len(set(column)) == 1, zip(*lists))
  return tuple([column[0] for column in same])

# ---- the steps that no vector fills ----------------------------------------------------------------------------------

def set_rest_apart(kernel: UOp, r: UOp, amount: int) -> UOp:
  """The kernel where r ends at the last multiple of amount, and a new loop runs over the rest."""
  size = r.bound.arg
  whole = size - size % amount
  if whole in (0, size): return kernel
  numbers = itertools.count(next_number(kernel))
  main, rest = numbered(whole, *r.arg), numbered(size - whole, next(numbers), r.axis)
  again = {q: numbered(q.bound.arg, next(numbers), q.axis) for q in loops_inside(kernel, r)}
  parts: list[tuple[Table, Table]] = [({r: main}, {r: main}), ({r: rest + whole, **again}, {r: rest, **again})]
  new: Table = {}
  for u in toposort([kernel]):
    new[u] = u.with_src(tuple([new[s] for s in u.src]))
    if u.op is not Ops.REDUCE or r not in u.src: continue
    value, *loops = new[u].src
    totals = [UOp(u.op, u.dtype, (value.substitute(values), *replaced(loops, own)), u.arg) for values, own in parts]
    new[u] = totals[0].alu(u.arg[0], totals[1])
  stores: list[Nested] = []
  for store, nest in stores_of(new[kernel]):
    if r not in nest: stores.append((store, nest))
    else: stores += [(store.substitute(values), replaced(nest, own)) for values, own in parts]
  return UOp.sink(*nests_of(stores))

def replaced(loops: Iterable[UOp], table: Table) -> tuple[UOp, ...]: return tuple([table.get(q, q) for q in loops])

def loops_inside(kernel: UOp, r: UOp) -> list[UOp]:
  """The loops that run again for each step of r, which the rest of r needs for its own."""
  inside = ranges_inside(kernel)
  found: list[UOp] = []
  for u in toposort([kernel]):
    if u.op is not Ops.REDUCE or not (r in inside[u] or r in u.src): continue
    found += u.src[1:]
  for _, loops in stores_of(kernel):
    if r in loops: found += loops[loops.index(r):]
  return [q for q in dedup(found) if q is not r]

# ---- two loops over one stretch of memory ----------------------------------------------------------------------------

def merge_neighbours(kernel: UOp) -> UOp:
  """Loops that count through one stretch of every buffer they touch as one loop: its lanes fill a register whatever the
  last dimension is."""
  for outer, inner in neighbours(kernel):
    if not is_one_stretch(kernel, outer, inner): continue
    n = inner.bound.arg
    both = numbered(outer.bound.arg * n, *outer.arg)
    kernel = replace_range(kernel, inner, both % n, None)
    kernel = replace_range(kernel, outer, both // n, None)
    return merge_neighbours(rewrite(kernel, simplify_index))
  return kernel

def neighbours(kernel: UOp) -> Iterator[tuple[UOp, UOp]]:
  """Loops of one kind, one directly inside the other."""
  for u in toposort([kernel]):
    if u.op not in (Ops.END, Ops.REDUCE): continue
    loops = u.src[len(inner_part(u)):]
    yield from zip(loops, loops[1:])

def is_one_stretch(kernel: UOp, outer: UOp, inner: UOp) -> bool:
  """Whether a step of outer moves every access as far as all steps of inner do, and nothing else looks at either."""
  for u in toposort([kernel]):
    if u.op in (Ops.END, Ops.REDUCE):
      if (outer in u.src or inner in u.src) and (outer, inner) not in zip(u.src[1:], u.src[2:]): return False
    elif u.op is Ops.INDEX:
      far, near = stride_of(u.src[1], outer), stride_of(u.src[1], inner)
      if far is None or near is None or far != near * inner.bound.arg: return False
    elif u.dtype is not dtypes.index and any(looks_at(s, outer, inner) for s in u.src): return False
  return True

def looks_at(position: UOp, *ranges: UOp) -> bool:
  return position.dtype is dtypes.index and not set(ranges).isdisjoint(position.toposort())

# ---- ranges that are only used in parts ------------------------------------------------------------------------------

def split_divided_ranges(kernel: UOp) -> UOp:
  """A range that is used as r // c and r % c as two ranges: every position becomes a sum of multiples again, and
  neighbours in memory can be seen. Reshapes that split or merge dimensions leave such ranges behind."""
  while True:
    found = next(divided_ranges(kernel), None)
    if found is None: return kernel
    r, step = found
    inner = numbered(step, next_number(kernel), r.axis)
    outer = numbered(r.bound.arg // step, *r.arg)
    kernel = rewrite(replace_range(kernel, r, outer * step + inner, None), simplify_index)

def divided_ranges(kernel: UOp) -> Iterator[tuple[UOp, int]]:
  """(range, c) for each r // c or r % c in the kernel where c divides the range's size."""
  for u in toposort([kernel]):
    if u.op not in (Ops.IDIV, Ops.MOD): continue
    r, step = u.src
    if r.op is not Ops.RANGE or Ops.CONST not in (r.bound.op, step.op): continue
    if step.op is Ops.CONST and 1 < step.arg < r.bound.arg and r.bound.arg % step.arg == 0: yield r, step.arg
