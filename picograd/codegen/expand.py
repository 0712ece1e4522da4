# expand.py: kernel -> kernel without UPCAST, UNROLL or VECTOR ranges and without REDUCE over ranges.
# UPCAST and UNROLL ranges are written out: one copy of the expression per step, equal parts shared because nodes are
# hash-consed. A VECTOR range becomes the lanes of vector values. Loop nests in sequence get edges that say so. A REDUCE
# becomes an accumulator in a register, a loop that updates it and a load after the loop; reductions over the same
# ranges share one loop.   (chapter 3)
from __future__ import annotations
import itertools
from functools import reduce as fold_left
from typing import Iterable
from picograd.codegen.grid import groups_apart
from picograd.codegen.optimize import Nested, inner_part, nests_of, next_number, stores_of
from picograd.codegen.shuffle import columns_to_rows, rows_to_columns
from picograd.dtype import dtypes
from picograd.helpers import dedup, prod
from picograd.ops.index import Sum, build, longest, plus, simplify_index, stride_of, sum_of
from picograd.ops.match import rewrite
from picograd.ops.movement import linear
from picograd.ops.ops import ALU, Axis, Buf, Ops, Space, TRANSCENDENTAL, identity
from picograd.ops.uop import Table, UOp, ranges_inside, substitute, toposort

def expand(kernel: UOp) -> UOp:
  kernel = write_out(groups_apart(kernel))
  kernel = rewrite(kernel, simplify_index)
  kernel = rewrite(vectorize(kernel), simplify_index)
  kernel = rows_to_columns(kernel)
  is_ordered = any(u.op is Ops.AFTER for u in toposort([kernel]))    # by the Opts that made its nests
  return accumulate(kernel if is_ordered else in_sequence(kernel))

# ---- UPCAST and UNROLL -----------------------------------------------------------------------------------------------

def write_out(kernel: UOp) -> UOp:
  """Copies for each point of the UPCAST ranges of a store and of the UNROLL ranges of a reduction. Stores of one loop
  nest are gathered in one END."""
  new: Table = {}
  for u in toposort([kernel]):
    src = tuple([new[s] for s in u.src])
    if u.op is Ops.AFTER: src = (src[0], *[nest for effect in src[1:] for nest in written_out(effect)])
    new[u] = combine_copies(u, src) if u.op is Ops.REDUCE else u.with_src(src)
  return UOp.sink(*written_out(new[kernel]))

def written_out(nest: UOp) -> list[UOp]:
  """Loop nests without UPCAST ranges. One that keeps no loop of its own stays apart from those beside it, as an END of
  no ranges: they may read what it stores."""
  nests = [(loops, list(group)) for loops, group in itertools.groupby(stores_of(nest), lambda nested: nested[1])]
  left = [tuple([r for r in loops if not is_written_out(r)]) for loops, _ in nests]
  copies: list[Nested] = []
  for k, (loops, stores) in enumerate(nests):
    own = [copy for store, _ in stores for copy, _ in copies_of((store, *loops))]
    is_beside = any(other[:len(left[k])] == left[k] for other in left[:k] + left[k + 1:])
    if is_beside and left[k] != loops: own = [UOp(Ops.END, dtypes.void, tuple(own))]
    copies += [(copy, left[k]) for copy in own]
  return nests_of(copies)

def combine_copies(u: UOp, src: tuple[UOp, ...]) -> UOp:
  """A reduction with UNROLL ranges as one with several accumulators, which are combined at the end. Accumulators of a
  strip lie in memory: there the values are combined first."""
  copies = copies_of(src)
  loops = copies[0][1]
  if not any(r.axis is Axis.STRIP for r in toposort(src[:1]) if r.op is Ops.RANGE):
    return joined([UOp(Ops.REDUCE, u.dtype, (value, *loops), u.arg) if loops else value for value, loops in copies],
                  u.arg[0])
  return UOp(Ops.REDUCE, u.dtype, (joined([value for value, _ in copies], u.arg[0]), *loops), u.arg)

def joined(values: list[UOp], op: Ops) -> UOp:
  """The values under an operation, in pairs: the shortest chain."""
  while len(values) > 1:
    pairs = [a.alu(op, b) for a, b in zip(values[::2], values[1::2])]
    values = pairs + values[2 * len(pairs):]
  return values[0]

def is_written_out(r: UOp): return r.axis in (Axis.UPCAST, Axis.UNROLL)

def copies_of(src: tuple[UOp, ...]) -> list[tuple[UOp, tuple[UOp, ...]]]:
  """(value, ranges) -> the value at each point of the ranges to be written out, with the ranges that stay loops."""
  value, *ranges = src
  written = [r for r in ranges if is_written_out(r)]
  loops = tuple(r for r in ranges if not is_written_out(r))
  copies = []
  moving = depending(value, written)
  for point in itertools.product(*[range(r.bound.arg) for r in written]):
    here = {r: r.like(i) for r, i in zip(written, point)}
    for u in moving: here[u] = u.with_src(tuple([here.get(s, s) for s in u.src]))
    copies.append((here.get(value, value), loops))
  return copies

def depending(value: UOp, ranges: list[UOp]) -> list[UOp]:
  """The nodes of a value that depend on the ranges, sources first."""
  found = set(ranges)
  out: list[UOp] = []
  for u in toposort([value], stop=lambda u: u.op is Ops.END):
    if u in found or found.isdisjoint(u.src): continue
    found.add(u)
    out.append(u)
  return out

# ---- VECTOR ----------------------------------------------------------------------------------------------------------

def vectorize(kernel: UOp) -> UOp:
  """Every value that depends on a VECTOR range as one vector value."""
  lanes: dict[UOp, UOp | None] = {}            # node -> the VECTOR range it depends on
  new: Table = {}
  for u in toposort([kernel]):
    found = {lanes[s] for s in u.src} - {None}
    if u.op is Ops.RANGE and u.axis is Axis.VECTOR: found = {u}
    if u.op in (Ops.REDUCE, Ops.END): found -= set(u.src)
    if len(found) > 1: raise ValueError(f"{u.op} depends on two VECTOR ranges: {found}")
    lanes[u] = next(iter(found), None)
    new[u] = end_in_lanes(u, lanes, new) if u.op is Ops.END else in_lanes(u, lanes[u], new)
  return new[kernel]

def in_lanes(u: UOp, r: UOp | None, new: Table) -> UOp:
  """u with one lane for each value of r."""
  src = tuple([new[s] for s in u.src])
  if u.op is Ops.REDUCE: return reduce_in_lanes(u, src)
  if r is None: return joined_lanes(u.op, src) or u.with_src(src)
  if u.op is Ops.INDEX: return u.with_src(src)
  if u is r: return UOp(Ops.STACK, u.dtype.vec(width(r)), tuple([r.like(i) for i in range(width(r))]))
  if u.op is Ops.LOAD: return load_in_lanes(u, r, new)
  if u.op is Ops.STORE: return store_in_lanes(u, r, new)
  assert u.op in ALU, f"{u.op} cannot be vectorised"
  return UOp(u.op, u.dtype.vec(width(r)), tuple([spread(s, r) for s in src]), u.arg)

def width(r: UOp): return r.bound.arg
def spread(s: UOp, r: UOp):
  return s if s.dtype.count > 1 else s.stack(width(r))
def is_lanes(s: UOp): return s.op is Ops.STACK

def end_in_lanes(u: UOp, lanes: dict[UOp, UOp | None], new: Table) -> UOp:
  """The loop without its VECTOR range; of stores whose lanes do not lie side by side there are several."""
  src = [new[s] for s in u.src if not is_lanes(new[s])]
  r = next((s for s in u.src if is_lanes(new[s])), None)
  if r is None: return u.with_src(tuple(src))
  scattered = [new[s] for s in u.src if lanes[s] is r and s.op is Ops.STORE and new[s].src[0] is s.src[0]]
  return u.with_src((*columns_to_rows(scattered, lambda index: each_address(index, r, new)),
                     *[s for s in src if s not in scattered]))

def reduce_in_lanes(u: UOp, src: tuple[UOp, ...]) -> UOp:
  """A reduction over a VECTOR range accumulates lane by lane and reduces the lanes once at the end."""
  loops = [s for s in src[1:] if not is_lanes(s)]
  across = next((r for r in u.src[1:] if r.axis is Axis.VECTOR), None)
  value = src[0] if across is None else spread(src[0], across)
  if loops: value = UOp(Ops.REDUCE, value.dtype, (value, *loops), u.arg)
  return value if across is None else UOp(Ops.REDUCE, u.dtype, (value,), u.arg)

def joined_lanes(op: Ops, src: tuple[UOp, ...]) -> UOp | None:
  """sum(a) + sum(b) = sum(a + b) for vectors a and b of equal width, and so for the other reductions: lanes are
  combined once, however many accumulators there are."""
  if any(s.op is not Ops.REDUCE or len(s.src) > 1 or s.arg[0] is not op for s in src): return None
  vectors = [s.src[0] for s in src]
  if len(vectors) != 2 or vectors[0].dtype is not vectors[1].dtype: return None
  return UOp(Ops.REDUCE, src[0].dtype, (vectors[0].alu(op, vectors[1]),), src[0].arg)

def vector_address(access: UOp, r: UOp, new: Table) -> UOp | None:
  """The address of lane 0 with a gate per lane, if the lanes lie side by side in memory; else None."""
  buffer, position, *gates = access.src[0].src
  if stride_of(position, r) != 1: return None
  start, = at_lanes(position, r, range(1))
  return UOp(Ops.INDEX, buffer.dtype, (new[buffer], start, *[spread(new[g], r) for g in gates]))

def at_lanes(position: UOp, r: UOp, lanes: range) -> list[UOp]:
  """What a position, or a gate, is in some lanes."""
  stride = None if position.dtype.kind == "b" else stride_of(position, r)
  if stride is None: return [rewrite(position.substitute({r: r.like(lane)}), simplify_index) for lane in lanes]
  rest = plus(sum_of(position), Sum({r: -stride}))                   # each lane is a constant away from the first
  return [build(plus(rest, Sum({}, lane * stride))) for lane in lanes]

def each_address(index: UOp, r: UOp, new: Table) -> list[UOp]:
  buffer, *rest = index.src
  return [index.with_src((new[buffer], *at)) for at in zip(*[at_lanes(s, r, range(width(r))) for s in rest])]

def load_in_lanes(u: UOp, r: UOp, new: Table) -> UOp:
  address, vector = vector_address(u, r, new), u.dtype.vec(width(r))
  if address is None:
    return UOp(Ops.STACK, vector, tuple([at.load(*u.src[1:]) for at in each_address(u.src[0], r, new)]))
  return UOp(Ops.LOAD, vector, (address, *u.src[1:]))

def store_in_lanes(u: UOp, r: UOp, new: Table) -> UOp:
  """Where lanes do not lie side by side, the address stays as it is: end_in_lanes looks at all such stores."""
  return u.with_src((vector_address(u, r, new) or u.src[0], spread(new[u.src[1]], r)))

# ---- loop nests in sequence ------------------------------------------------------------------------------------------

def in_sequence(u: UOp) -> UOp:
  """Loop nests inside one loop happen in the order in which they are listed: an access to memory that an earlier nest
  has written, or a store to what it reads, has an edge to it. Stores of one nest come together, after all it reads.
  What several nests write is written in each step of the loop, whatever it depends on: the others change it."""
  parts = [in_sequence(s) if s.op is Ops.END else s for s in inner_part(u)]
  loops = u.src[len(parts):]
  groups = together(parts)
  if len(groups) == 1 and parts[0].op is not Ops.END: return u         # the stores of one nest
  touched = [{u for u in toposort([nest]) if is_memory(u)} for nest in groups]
  written = [{m for u in toposort([nest]) if u.op is Ops.STORE for m in toposort(u.src[0].src[:1])} for nest in groups]
  nests: list[UOp] = []
  needed: set[UOp] = set()
  for j, nest in enumerate(groups):
    edges: Table = {}
    for m in touched[j]:
      before = [n for i, n in enumerate(nests) if m in touched[i] and m in written[i] | written[j]]
      is_changed = m in written[j] and sum(m in memory for memory in written) > 1
      edges[m] = m.after(*before, *(loops if is_changed else ()))
      needed.update(before)
    nests.append(nest.substitute(edges))
  return u.with_src((*[n for n in nests if n not in needed], *loops))

def together(parts: list[UOp]) -> list[UOp]:
  """Stores that are in no loop of their own, one after the other, as one nest without loops."""
  groups: list[UOp] = []
  for is_nest, run in itertools.groupby(parts, lambda s: s.op is Ops.END):
    groups += run if is_nest else [UOp(Ops.END, dtypes.void, tuple(run))]
  return groups

def is_memory(u: UOp) -> bool: return u.op is Ops.PARAM or u.op is Ops.BUFFER and u.arg.space is not Space.REG

# ---- REDUCE ----------------------------------------------------------------------------------------------------------

Nest = tuple[UOp, ...]                         # the ranges that some reductions run over

def accumulate(kernel: UOp) -> UOp:
  """Accumulators for the reductions. Those over the same ranges are one loop. Where results of a strip advance together
  each has an accumulator, and the loop over the strip is inside the reductions' loops. What is long to compute and
  wanted in a later loop over the same row is kept."""
  inside = ranges_inside(kernel)
  numbers = itertools.count()                  # registers numbered by kernel: equal kernels have equal code
  loop_numbers = itertools.count(next_number(kernel))
  table: Table = {}
  repeated = {r for u in inside if u.op is Ops.END for r in u.src if r.op is Ops.RANGE}     # by a loop around stores
  for loops, members in nests_in_order(kernel):
    around = sorted(union(inside[u] for u in members), key=lambda r: r.arg)
    strip = [r for r in around if r.axis is Axis.STRIP]
    kept = {} if strip else again_in_later_loops(kernel, loops, members, table)     # each point of a strip has its own
    row = row_of(kept, loops, next(numbers))
    own = {r: r.replace(arg=(next(loop_numbers), r.axis)) for r in loops if r in repeated}
    loops = tuple([own.get(r, r) for r in loops])
    values = with_ranges(substitute([u.src[0] for u in members], table), own)
    wanted = with_ranges(substitute(kept, table), own)
    outer = [r for r in around if r.axis is not Axis.STRIP]
    clearing, folding = [{r: r.replace(arg=(next(loop_numbers), r.axis)) for r in strip} for _ in range(2)]
    registers = [accumulator(u, next(numbers), strip) for u in members]
    starts = [element(register.after(*outer), strip, clearing).store(neutral(u))
              for u, register in zip(members, registers)]
    if strip: starts = [UOp(Ops.END, dtypes.void, (*starts, *clearing.values()))]
    updates = []
    for u, register, value in zip(members, registers, values):
      before = element(register.after(*starts, *loops), strip, folding).load()
      updates.append(element(register, strip, folding).store(before.alu(u.arg[0], value.substitute(folding))))
    updates += [row.index(loops[0] * len(kept) + k).store(v) for k, v in enumerate(wanted)]
    end = UOp(Ops.END, dtypes.void, (*updates, *loops, *folding.values()))
    for k, again in enumerate(kept.values()):
      for later, r in again: table[later] = row.after(end).index(r * len(kept) + k).load()
    for register, u in zip(registers, members): table[u] = element(register.after(end), strip, {}).load()
  return kernel.substitute(table)

def with_ranges(values: list[UOp], own: Table) -> list[UOp]:
  """The values where ranges are replaced, but not in nests that end with them: those are loops of their own."""
  if not own: return values
  closed = {u: u for u in toposort(values) if u.op is Ops.END and not own.keys().isdisjoint(u.src)}
  return substitute(values, {**own, **closed})

LONGEST_ROW = 1 << 17    # bytes of a value that is kept from one loop for the next: a part of the nearer caches

def again_in_later_loops(kernel: UOp, loops: Nest, members: list[UOp],
                         table: Table) -> dict[UOp, list[tuple[UOp, UOp]]]:
  """Values of a loop with transcendental functions that some other loop, equally long, computes again at each step ->
  (the same value there, that loop's range)."""
  if len(loops) != 1 or loops[0].bound.op is not Ops.CONST: return {}
  computed = toposort([u.src[0] for u in members])
  if all(u.op not in TRANSCENDENTAL for u in computed): return {}
  r, nodes = loops[0], toposort([kernel])
  known, inside = set(nodes), ranges_inside(kernel)
  earlier = {q for u in table for q in u.src if u.op is Ops.REDUCE}
  around = union(inside[u] for u in members)
  others = [q for q in nodes if q.op is Ops.RANGE and q is not r and q.bound is r.bound and q.axis is not Axis.STRIP]
  loops_over = {q: [u for u in nodes if u.op in (Ops.REDUCE, Ops.END) and q in u.src] for q in others}
  others = [q for q in others if all(around <= loops_around(u, q, inside) for u in loops_over[q])]
  found: dict[UOp, list[tuple[UOp, UOp]]] = {}
  below: set[UOp] = set()                      # a kept value
  for u in reversed(toposort([u.src[0] for u in members])):
    if u in below: below.update(u.src)
    elif u.op in TRANSCENDENTAL and r in inside[u] and u not in table:
      there = [(later, q) for q in others if q not in earlier and (later := u.substitute({r: q})) in known]
      if there and all(u.dtype is v.dtype for v in found):
        found[u] = there
        below.update(u.src)
  return found if r.bound.arg * sum(v.dtype.itemsize for v in found) <= LONGEST_ROW else {}

def loops_around(u: UOp, q: UOp, inside: dict[UOp, frozenset[UOp]]) -> frozenset[UOp]:
  """Those that the loop of a REDUCE or END over q stands in; q is one of its ranges, outermost first."""
  loops = u.src[len(inner_part(u)):]
  return inside[u] | frozenset(loops[:loops.index(q)])

def row_of(kept: Iterable[UOp], loops: Nest, number: int) -> UOp:
  """Memory for the kept values of a loop, those of one step side by side."""
  kept = list(kept)
  size = loops[0].bound.arg * len(kept) if kept else 1
  return UOp(Ops.BUFFER, kept[0].dtype if kept else dtypes.float32, (), Buf(number, size, Space.REG))

def accumulator(u: UOp, number: int, strip: list[UOp]) -> UOp:
  return UOp(Ops.BUFFER, u.dtype, (), Buf(number, prod(longest(r) for r in strip), Space.REG))

def neutral(u: UOp): return UOp.const(u.dtype, identity(u.arg[0], u.dtype.scalar))

def element(register: UOp, strip: list[UOp], loops: Table) -> UOp:
  """The accumulator of one point of a strip, whose ranges have other names in some loops."""
  at = [loops.get(r, r) for r in strip]
  return register.index(linear(tuple(at), tuple([longest(r) for r in strip])))

def nests_in_order(kernel: UOp) -> list[tuple[Nest, list[UOp]]]:
  """The reductions by the ranges they run over, each nest after those that its values need."""
  below: dict[UOp, frozenset[Nest]] = {}       # node -> the nests it depends on
  members: dict[Nest, list[UOp]] = {}
  for u in toposort([kernel]):
    below[u] = union(below[s] for s in u.src)
    if u.op is not Ops.REDUCE or len(u.src) == 1 or u.src[1].axis is Axis.GROUP: continue
    members.setdefault(u.src[1:], []).append(u)
    below[u] |= {u.src[1:]}
  needs = closed({nest: union(below[u] for u in reductions) for nest, reductions in members.items()})
  nests = [(nest, in_tile_order(reductions)) for nest, reductions in members.items()]
  return sorted(nests, key=lambda item: len(needs[item[0]]))                # what a nest needs, needs less

def in_tile_order(members: list[UOp]) -> list[UOp]:
  """Sums of products by the factor of which there are more different ones: of a register tile's operands the fewer ones
  stay in registers, and each of the others is used up before the next."""
  values = [u.src[0] for u in members]
  if any(value.op is not Ops.MUL for value in values): return members
  first, second = (dedup(value.src[k] for value in values) for k in (0, 1))
  k = int(len(second) > len(first))
  rank = {factor: i for i, factor in enumerate(second if k else first)}
  return sorted(members, key=lambda u: rank[u.src[0].src[k]])

def closed(needs: dict[Nest, frozenset[Nest]]) -> dict[Nest, frozenset[Nest]]:
  """With all that is needed by what is needed: one reduction of a nest may need more than another does."""
  wider = {nest: union([own, *[needs[n] for n in own]]) for nest, own in needs.items()}
  return needs if wider == needs else closed(wider)

def union(sets: Iterable[frozenset]) -> frozenset: return fold_left(frozenset.union, sets, frozenset())
