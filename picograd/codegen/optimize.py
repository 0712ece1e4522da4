# optimize.py: Opts as data, applied to the ranges of a kernel. An Opt splits one range in two and says what the inner
# part becomes; the heuristic, a search and a user's hand all write the same list. In: kernel. Out: kernel with THREAD,
# STRIP, UPCAST, UNROLL and VECTOR ranges.   (chapter 3)
from __future__ import annotations
import functools, itertools, math
from typing import Any, Iterable, Iterator, NamedTuple, Protocol, Sequence
from picograd.dtype import dtypes
from picograd.helpers import ceildiv, dedup, prod
from picograd.ops.index import longest, simplify_index, stride_of
from picograd.ops.match import rewrite
from picograd.ops.ops import ALU, Axis, Buf, Ops, Space, identity
from picograd.ops.uop import Table, UOp, ranges_inside, substitute, toposort

class Opt(NamedTuple):
  """Split range `number` into an outer loop and `amount` inner steps of kind `axis`; for THREAD, into chunks; for LOOP,
  into the steps up to the last multiple of `amount` and a loop for the rest."""
  axis: Axis
  number: int
  amount: int
  def __repr__(self) -> str: return f"{self.axis.name}(r{self.number}, {self.amount})"

class Stage(NamedTuple):
  """Copy what the loads from PARAM `slot` read inside the THREAD, GLOBAL and BLOCK loops, and in the ranges numbered
  in `outside`, to LOCAL memory, `lanes` elements at once, in the order in which it is read; the loads read the copy.
  What is widened for its use is copied wide."""
  slot: int
  lanes: int = 1
  outside: tuple[int, ...] = ()
  def __repr__(self) -> str: return f"STAGE(p{self.slot})"

class Precompute(NamedTuple):
  """Compute what reductions do with their own ranges alone once, into LOCAL memory of at most so many bytes, where the
  loops over outputs would compute it again and again: the normalised vector that each row of a matrix is multiplied
  with."""
  most: int
  def __repr__(self) -> str: return "PRECOMPUTE"
  def applied(self, kernel: UOp) -> UOp: return precompute(kernel, self.most)

AnyOpt = Opt | Stage | Precompute

class Rewrite(Protocol):
  """An Opt that rewrites more than a range (also in codegen/tiles.py)."""
  def applied(self, kernel: UOp) -> UOp: ...
  def __hash__(self) -> int: ...

@functools.lru_cache(64)
def ranges_in(kernel: UOp) -> tuple[UOp, ...]:
  return tuple([u for u in toposort([kernel]) if u.op is Ops.RANGE])
def next_number(kernel: UOp) -> int:
  return 1 + max((r.arg[0] for r in ranges_in(kernel)), default=-1)

def numbered(size: int, number: int, axis: Axis) -> UOp:
  return UOp(Ops.RANGE, dtypes.index, (UOp.const(dtypes.index, size),), (number, axis))

def range_numbered(kernel: UOp, number: int) -> UOp:
  known = ranges_in(kernel)
  for r in known:
    if r.arg[0] == number: return r
  listed = ", ".join(f"r{r.arg[0]}" for r in known)
  raise ValueError(f"the kernel has no range r{number}; it has {listed}")

def apply_opts(kernel: UOp, opts: Sequence[Opt | Stage | Rewrite]) -> UOp:
  for opt in opts: kernel = apply_opt(kernel, opt)
  if any(isinstance(opt, Stage) or (isinstance(opt, Opt) and opt.axis in (Axis.TILE, Axis.BLOCK)) for opt in opts):
    kernel = with_own_loops(kernel)
  return rewrite(kernel, simplify_index)

@functools.lru_cache(maxsize=64)               # the rules apply what they choose to look at what it makes
def apply_opt(kernel: UOp, opt: Any) -> UOp:
  """The kernel after an Opt, a Stage or a Rewrite."""
  if isinstance(opt, Stage): return stage(kernel, opt)
  if not isinstance(opt, Opt): return opt.applied(kernel)
  if opt.amount < 1: raise ValueError(f"{opt}: the amount must be positive")
  r, fresh = range_numbered(kernel, opt.number), next_number(kernel)
  if opt.axis is Axis.LOOP: return set_rest_apart(kernel, r, opt.amount)
  if opt.axis is Axis.TILE: return cut_tiles(kernel, r, opt.amount)
  if opt.axis is Axis.BLOCK and r.axis is Axis.REDUCE: return block_reduction(kernel, r, opt.amount)
  if opt.axis is Axis.BLOCK:                   # in a nest of one thread, r is a range of its own
    for r in ranges_in(kernel):
      if r.arg[0] == opt.number: kernel = block_outputs(kernel, r, opt.amount)
    return kernel
  if opt.axis is Axis.THREAD: return once(replace_range(kernel, r, *split_outer(r, opt, fresh)), fresh)
  return replace_range(kernel, r, *split_inner(r, opt, fresh))

def split_inner(r: UOp, opt: Opt, fresh: int) -> tuple[UOp, UOp | None]:
  """r = outer * amount + inner, and the condition r < size where the amount does not divide it. The outer loop keeps
  r's number. A strip is as long as what is left."""
  size = r.bound.arg
  steps = ceildiv(size, opt.amount)
  inner = numbered(opt.amount, fresh, opt.axis)
  if opt.axis is Axis.STRIP and 1 < steps and size % opt.amount:           # the last strip is shorter
    outer = numbered(steps, *r.arg)
    left = size - outer * opt.amount
    return outer * opt.amount + inner.with_src(((left < opt.amount).where(left, opt.amount),)), None
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
  """The kernel whose nests that no thread range divides have results of the last thread alone, whose chunk is the
  shortest: their first loop has no steps in the others. But scratch memory is each thread's own, so what fills it runs
  in all threads, and results that are stored in the same loops, or in none, are left out by a condition."""
  thread = range_numbered(kernel, number)
  is_last = thread > thread.bound.arg - 2
  stores = stores_of(kernel)
  divided = [loops for _, loops in stores if is_divided(loops)]
  in_all = {r for store, loops in stores if not is_divided(loops) and not is_result(store) for r in loops}
  out: list[Nested] = []
  for store, loops in stores:
    shared = max([len(common_start([loops, other])) for other in divided], default=0)
    if not is_divided(loops):
      first = next((r for r in loops if r.axis is Axis.LOOP), None)
      if first and not shared and first not in in_all:
        own = {first: first.with_src((is_last.where(first.bound, 0),))}
        store, loops = store.substitute(own), replaced(loops, own)
      elif is_result(store): store = stored_where(store, is_last)
      loops = (*loops[:shared], thread, *loops[shared:])
    out.append((store, loops))
  return UOp.sink(*nests_of(out))

def is_result(store: UOp) -> bool: return store.src[0].src[0].op is Ops.PARAM

def stored_where(store: UOp, condition: UOp) -> UOp:
  address, *rest = store.src
  return store.with_src((address.with_src((*address.src[:2], gated(list(address.src[2:]), condition))), *rest))

def is_divided(loops: Iterable[UOp]) -> bool: return any(r.axis is Axis.THREAD for r in loops)

def replace_range(kernel: UOp, r: UOp, value: UOp, inside: UOp | None) -> UOp:
  """The kernel with r computed as value from new ranges; outside of `inside` nothing is read, written or reduced."""
  new: Table = {r: value}
  depends = {r}
  nodes = toposort([kernel])
  written = {s.src[0] for u in nodes if u.op is Ops.END and r in u.src for s, _ in stores_of(u)}
  for u in nodes:
    if u in new: continue
    src = [new[s] for s in u.src]
    closes = u.op in (Ops.END, Ops.REDUCE) and r in u.src[1:]
    if not closes and any(s in depends for s in u.src): depends.add(u)
    if u.op in (Ops.END, Ops.REDUCE):
      inner = len(inner_part(u))
      src = [*src[:inner], *flat_ranges(src[inner:])]
    if inside is not None and u.op is Ops.INDEX and (u in written or u.src[1] in depends):
      src = [*src[:2], gated(src[2:], inside)]
    if inside is not None and u.op is Ops.REDUCE and closes:
      src[0] = inside.where(src[0], UOp.const(u.dtype, identity(u.arg[0], u.dtype)))
    new[u] = UOp(u.op, u.dtype, tuple(src), u.arg)
  return new[kernel]

def gated(gates: list[UOp], inside: UOp) -> UOp: return gates[0] & inside if gates else inside

def flat_ranges(values: list[UOp]) -> list[UOp]:
  """The ranges that ranges, and expressions over new ranges, stand for, but for those that their bounds look at: THREAD
  first, then BLOCK in order of number, STRIP last, else in order of mention."""
  found = dedup(u for v in values for u in toposort([v], lambda u: u.op is Ops.RANGE) if u.op is Ops.RANGE)
  return sorted(found, key=lambda u: (PLACES.get(u.axis, 2), u.arg[0] if u.axis is Axis.BLOCK else 0))

PLACES = {Axis.THREAD: 0, Axis.GLOBAL: 0, Axis.BLOCK: 1, Axis.STRIP: 3}

# ---- loop nests ------------------------------------------------------------------------------------------------------

Nested = tuple[UOp, tuple[UOp, ...]]           # a store and the loops around it, outermost first

def inner_part(u: UOp) -> tuple[UOp, ...]:
  """What an END or a REDUCE repeats: its sources before the ranges."""
  return tuple([s for s in u.src if s.op is not Ops.RANGE])

def stores_of(u: UOp, around: tuple[UOp, ...] = ()) -> list[Nested]:
  """The stores of a kernel, or of a loop nest in it."""
  if u.op in (Ops.STORE, Ops.WMMA): return [(u, around)]
  inner = inner_part(u)
  return [found for s in inner for found in stores_of(s, around + u.src[len(inner):])]

def nests_of(stores: list[Nested]) -> list[UOp]:
  """Loop nests around stores: those that begin with the same loops share them. Those without loops stay where they are:
  what runs between them may write what they read."""
  groups: dict[Any, list[Nested]] = {}
  for k, (store, loops) in enumerate(stores): groups.setdefault(loops[:1] or k, []).append((store, loops))
  nests: list[UOp] = []
  for group in groups.values():
    first = group[0][1][:1]
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

# ---- tiles and blocks ------------------------------------------------------------------------------------------------
# Versions of a loop nest share their ranges until all Opts are applied, so that an Opt is applied to every version.

def cut_tiles(kernel: UOp, r: UOp, amount: int) -> UOp:
  """r = outer * amount + tile in one version of the loops over r; in another r runs over the rest, one smaller tile."""
  whole, rest = divmod(r.bound.arg, amount)
  fresh = next_number(kernel)
  tile, edge = numbered(amount, fresh, Axis.TILE), numbered(rest, fresh + 1, Axis.TILE)
  values = [numbered(whole, *r.arg) * amount + tile if whole > 1 else tile] if whole else []
  if rest: values.append(edge + whole * amount)
  stores: list[Nested] = []
  for store, loops in stores_of(kernel):
    for value in values if r in loops else [r]:
      stores += stores_of(replace_range(UOp.sink(UOp(Ops.END, dtypes.void, (store, *loops))), r, value, None))
  return sink_of(stores)

def sink_of(stores: list[Nested]) -> UOp:
  """A kernel of one perfect nest for each store."""
  return UOp.sink(*[UOp(Ops.END, dtypes.void, (store, *loops)) for store, loops in stores])

def block_outputs(kernel: UOp, r: UOp, amount: int) -> UOp:
  """r = block * amount + inner. The last block may be smaller."""
  size, most = r.bound, longest(r)
  if amount >= most: return kernel
  block = numbered(ceildiv(most, amount), next_number(kernel), Axis.BLOCK)
  left = size - block * amount
  fills = size.op is Ops.CONST and most % amount == 0
  bound = r.like(amount) if fills else (left < amount).where(left, amount)
  return replace_range(kernel, r, block * amount + UOp(Ops.RANGE, dtypes.index, (bound,), r.arg), None)

def block_reduction(kernel: UOp, r: UOp, amount: int) -> UOp:
  """The reduction over r in blocks outside the loops over outputs. All blocks but the last leave their sums in the
  output; the last adds to them and does what the kernel does with a sum."""
  blocks, rest = ceildiv(r.bound.arg, amount), r.bound.arg % amount
  if blocks == 1: return kernel
  fresh, start = next_number(kernel), (blocks - 1) * amount
  block = numbered(blocks - 1, fresh, Axis.BLOCK) if blocks > 2 else r.like(0)
  last = numbered(r.bound.arg - start, fresh + 1, Axis.REDUCE)
  stores: list[Nested] = []
  for store, loops in stores_of(kernel):
    reduce = next((u for u in toposort([store]) if u.op is Ops.REDUCE and r in u.src), None)
    if reduce is None: raise ValueError(f"a store does not depend on the reduction over r{r.arg[0]}")
    target = store.src[0]
    if store.src[1] is reduce and not rest:                          # the last block is as the others
      every = numbered(blocks, fresh, Axis.BLOCK)
      before = (r.like(0) < every).where(target.load(every), 0)
      total = over_part(reduce, r, every * amount, numbered(amount, *r.arg)) + before
      stores.append((target.store(total), tuple(flat_ranges([*loops, every]))))
      continue
    total = over_part(reduce, r, block * amount, numbered(amount, *r.arg))
    if block.op is Ops.RANGE: total = total + (r.like(0) < block).where(target.load(block), 0)
    nest = UOp(Ops.END, dtypes.void, (target.store(total), *flat_ranges([*loops, block])))
    so_far = target.with_src((target.src[0].after(nest), *target.src[1:])).load()
    rest = over_part(reduce, r, r.like(start), last) + so_far
    stores.append((store.with_src((target, store.src[1].substitute({reduce: rest}))), loops))
  return sink_of(stores)

def over_part(reduce: UOp, r: UOp, start: UOp, part: UOp) -> UOp:
  """A reduction with r = start + part."""
  value, *loops = reduce.src
  inner = [part if q is r else q for q in loops]
  return UOp(reduce.op, reduce.dtype, (value.substitute({r: start + part}), *inner), reduce.arg)

OUTER = (Axis.THREAD, Axis.GLOBAL, Axis.BLOCK)

def stage(kernel: UOp, opt: Stage) -> UOp:
  """The kernel whose loads from a PARAM read a copy in LOCAL memory."""
  nodes = toposort([kernel])
  fresh = itertools.count(next_number(kernel))
  names = itertools.count(sum(u.op is Ops.BUFFER for u in nodes))
  table: Table = {}
  for u in nodes:
    if u.op is not Ops.LOAD or u.src[0].src[0].op is not Ops.PARAM or u.src[0].src[0].arg != opt.slot: continue
    found = [r for r in toposort(u.src[0].src[1:]) if r.op is Ops.RANGE]
    tile = [r for r in found if r.axis not in OUTER and r.arg[0] not in opt.outside]
    along = next((r for r in tile if r.axis is Axis.REDUCE and step(u, r) == 1), None)     # the memory, not the lanes
    by_lanes = any(r.axis is Axis.VECTOR for r in tile)
    tile.sort(key=lambda r: (r is along and not by_lanes, r.axis, r.arg))
    copied: Table = {}
    for r in sorted(tile, key=lambda r: (max(r.axis, Axis.REDUCE), -abs(step(u, r) or 0))):     # in the memory's order
      lanes = math.gcd(opt.lanes, r.bound.arg) if r is along else 1
      copied[r] = copying(r, lanes, Axis.UPCAST if by_lanes else Axis.VECTOR, fresh)
    value = widened(u, nodes)
    panel = UOp(Ops.BUFFER, value.dtype, (), Buf(next(names), length_of(tile), Space.LOCAL))
    store = panel.index(place_in_tile(tile, copied)).store(value.substitute(copied))
    copy = UOp(Ops.END, dtypes.void, (store, *dedup(q for value in copied.values() for q in own_ranges(value))))
    table[value] = panel.after(copy).index(place_in_tile(tile, {})).load()
  return kernel.substitute(table)

def widened(load: UOp, nodes: Sequence[UOp]) -> UOp:
  """A load, or the wider number that all who use it make of it: a copy spares them that."""
  users = [u for u in nodes if load in u.src]
  is_widened = len(users) == 1 and users[0].op is Ops.CAST and users[0].dtype.itemsize > load.dtype.itemsize
  return users[0] if is_widened else load

def step(load: UOp, r: UOp) -> int | None: return stride_of(load.src[0].src[1], r)

def copying(r: UOp, lanes: int, axis: Axis, fresh: Iterator[int]) -> UOp:
  """r as a copy's own loop, `lanes` steps of it at once. A copy that transposes has registers for one tile."""
  if r.axis is Axis.VECTOR or (r.axis is Axis.UPCAST and axis is Axis.VECTOR):
    return r.replace(arg=(next(fresh), r.axis))
  if lanes == 1: return r.replace(arg=(next(fresh), Axis.LOOP))
  inner = numbered(lanes, next(fresh), axis)
  return numbered(r.bound.arg // lanes, next(fresh), Axis.LOOP) * lanes + inner if r.bound.arg > lanes else inner

def precompute(kernel: UOp, most: int) -> UOp:
  """The kernel whose reductions read copies of what they would compute for each output again."""
  fresh = itertools.count(next_number(kernel))
  inside = ranges_inside(kernel)
  table: Table = {}
  for number, u in enumerate(computed_again(kernel, most)):
    row = sorted(inside[u], key=lambda r: (r.axis, r.arg))
    copied = {r: copying(r, 1, Axis.VECTOR, fresh) for r in row}
    panel = UOp(Ops.BUFFER, u.dtype, (), Buf(number, length_of(row), Space.LOCAL))
    store = panel.index(place_in_tile(row, copied)).store(u.substitute(copied))
    copy = UOp(Ops.END, dtypes.void, (store, *copied.values()))
    table[u] = panel.after(copy).index(place_in_tile(row, {})).load()
  return kernel.substitute(table)

def computed_again(kernel: UOp, most: int) -> list[UOp]:
  """The largest float expressions of a reduction's ranges alone, of at most so many bytes each, that loops over outputs
  around the reduction repeat."""
  inside = ranges_inside(kernel)
  found: list[UOp] = []
  for reduce in toposort([kernel]):
    if reduce.op is not Ops.REDUCE or all(r.axis is not Axis.LOOP for r in inside[reduce]): continue
    own, waiting = frozenset(reduce.src[1:]), [reduce.src[0]]
    seen: set[UOp] = set()
    while waiting:
      u = waiting.pop()
      if u in seen: continue
      seen.add(u)
      is_own = bool(inside[u]) and inside[u] <= own and u.op in ALU and u.dtype.kind == "f"
      if is_own and length_of(inside[u]) * u.dtype.itemsize <= most: found.append(u)
      elif not inside[u].isdisjoint(own): waiting += [s for s in u.src if s.op in ALU]
  return dedup(found)

def length_of(ranges: Iterable[UOp]) -> int: return prod(map(longest, ranges))

def own_ranges(value: UOp) -> list[UOp]:
  """The ranges that a loop's value is made of, but for those that its bound looks at; outermost first."""
  found = toposort([value], stop=lambda u: u.op is Ops.RANGE)
  return sorted([u for u in found if u.op is Ops.RANGE], key=lambda r: r.axis)

def place_in_tile(tile: list[UOp], table: Table) -> UOp:
  """The place of an element in the copy of a tile: the ranges counted as digits."""
  place = UOp.const(dtypes.index, 0)
  for r in tile: place = place * longest(r) + table.get(r, r)
  return place

def with_own_loops(kernel: UOp) -> UOp:
  """Each version of a nest with loops of its own; versions in the same blocks share the loops over those."""
  orders = [u for u in toposort([kernel]) if u.op is Ops.AFTER and u.src[0].op is Ops.PARAM]
  earlier = dedup(s for u in orders for s in u.src[1:])
  names = Names(itertools.count(next_number(kernel)))
  done = nests_of(names.renamed([found for end in earlier for found in stores_of(end)], []))
  kernel = kernel.substitute({u: u.src[0].after(*done) for u in orders})
  return UOp.sink(*nests_of(names.renamed(stores_of(kernel), done)))

class Names:
  """Gives a range a new number where an earlier nest has taken it."""
  def __init__(self, fresh: Iterator[int]):
    self.fresh = fresh
    self.taken: set[UOp] = set()

  def renamed(self, stores: list[Nested], done: list[UOp]) -> list[Nested]:
    """The stores of nests that may share their outermost loops, with ranges of their own. done: complete nests."""
    self.known: dict[object, UOp] = {}         # path of loops, or nest and range -> the range that stands for it
    out: list[Nested] = []
    for store, mixed in stores:
      loops = flat_ranges(list(mixed))
      outer = [r for r in loops if r.axis in OUTER]
      table = {r: self.own(tuple(loops[:loops.index(r) + 1]), r) for r in outer}
      closed = {u: u for u in done}
      copies = {u: self.copy(u, table) for u in ends_below(store, done)}
      store, *within = substitute([store, *loops], {**table, **closed, **copies})
      closed = {u: u for u in ends_below(store, [])}
      inner = [r for r in dedup([*toposort([store], closed.__contains__), *within]) if is_inner(r)]
      table = {r: self.own((*within, r), r) for r in inner}
      store, *within = substitute([store, *within], {**table, **closed})
      out.append((store, tuple(within)))
    self.taken.update(r for r in self.known.values() if r.op is Ops.RANGE)
    return out

  def own(self, key: object, r: UOp) -> UOp:
    if key not in self.known:
      is_free = r not in self.taken or r.axis is Axis.THREAD
      self.known[key] = r if is_free else r.replace(arg=(next(self.fresh), r.axis))
      self.taken.add(r)
    return self.known[key]

  def copy(self, end: UOp, table: Table) -> UOp:
    """The nest that fills a panel, with ranges of its own if it stands in other loops than before."""
    moved = end.substitute(table)
    if moved not in self.known:
      loops = [r for r in end.src if r.op is Ops.RANGE]
      self.known[moved] = moved.substitute({r: self.own((moved, r), r) for r in loops})
    return self.known[moved]

def is_inner(u: UOp) -> bool: return u.op is Ops.RANGE and u.axis not in OUTER

def ends_below(store: UOp, done: list[UOp]) -> list[UOp]:
  """The nests that a store comes after, but for those that are done."""
  found = toposort([store], stop=lambda u: u.op is Ops.END)
  return [u for u in found if u.op is Ops.END and u not in done]

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
