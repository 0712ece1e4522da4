# expand.py: kernel -> kernel without UPCAST, UNROLL or VECTOR ranges and without REDUCE over ranges.
# UPCAST and UNROLL ranges are written out: one copy of the expression per step, equal parts shared because nodes are
# hash-consed. A VECTOR range becomes the lanes of vector values. A REDUCE becomes an accumulator in a register, a loop that
# updates it and a load after the loop; reductions over the same ranges share one loop.   (chapter 3)
from __future__ import annotations
import itertools
from functools import reduce as fold_left
from picograd.dtype import dtypes
from picograd.ops.index import simplify_index, stride_of
from picograd.ops.match import rewrite
from picograd.ops.ops import ALU, Axis, Buf, Ops, Space, identity
from picograd.ops.uop import UOp, ranges_inside, substitute, toposort

def expand(kernel: UOp) -> UOp:
  kernel = write_out(kernel)
  kernel = rewrite(kernel, simplify_index)
  kernel = vectorize(kernel)
  kernel = rewrite(kernel, simplify_index)
  return accumulate(kernel)

# ---- UPCAST and UNROLL -----------------------------------------------------------------------------------------------

def write_out(kernel: UOp) -> UOp:
  """Copies for each point of the UPCAST ranges of a store and of the UNROLL ranges of a reduction. Stores of one loop nest
  are gathered in one END."""
  new: dict[UOp, UOp] = {}
  for u in toposort([kernel]):
    src = tuple([new[s] for s in u.src])
    if u.op is Ops.REDUCE and any(is_unrolled(r) for r in u.src[1:]):
      copies = [UOp(Ops.REDUCE, u.dtype, (value, *loops), u.arg) for value, loops in copies_of(src)]
      new[u] = fold_left(lambda a, b: a.alu(u.arg[0], b), copies)
    else: new[u] = u.with_src(src)
  nests: dict[tuple[UOp, ...], list[UOp]] = {}
  for end in new[kernel].src:
    for store, loops in copies_of(end.src if end.op is Ops.END else (end,)): nests.setdefault(loops, []).append(store)
  return UOp.sink(*[UOp(Ops.END, dtypes.void, (*stores, *loops)) for loops, stores in nests.items()])

def is_unrolled(r: UOp) -> bool: return r.axis in (Axis.UPCAST, Axis.UNROLL)

def copies_of(src: tuple[UOp, ...]) -> list[tuple[UOp, tuple[UOp, ...]]]:
  """(value, ranges) -> the value at each point of the ranges that are to be written out, with the ranges that stay loops."""
  written = [r for r in src[1:] if is_unrolled(r)]
  loops = tuple(r for r in src[1:] if not is_unrolled(r))
  points = itertools.product(*[range(r.bound.arg) for r in written])
  return [(src[0].substitute({r: r.like(i) for r, i in zip(written, point)}), loops) for point in points]

# ---- VECTOR ----------------------------------------------------------------------------------------------------------

def vectorize(kernel: UOp) -> UOp:
  """Every value that depends on a VECTOR range as one vector value."""
  lanes: dict[UOp, UOp | None] = {}            # node -> the VECTOR range it depends on
  new: dict[UOp, UOp] = {}
  for u in toposort([kernel]):
    found = {lanes[s] for s in u.src} - {None}
    if u.op is Ops.RANGE and u.axis is Axis.VECTOR: found = {u}
    if u.op in (Ops.REDUCE, Ops.END): found -= set(u.src)
    if len(found) > 1: raise ValueError(f"{u.op} depends on two VECTOR ranges: {found}")
    lanes[u] = next(iter(found), None)
    new[u] = in_lanes(u, lanes, new)
  return new[kernel]

def in_lanes(u: UOp, lanes: dict[UOp, UOp | None], new: dict[UOp, UOp]) -> UOp:
  src = tuple([new[s] for s in u.src])
  r = lanes[u]
  if u.op is Ops.RANGE and r is u: return UOp(Ops.STACK, dtypes.index.vec(width(r)), tuple(r.like(i) for i in range(width(r))))
  if u.op is Ops.REDUCE: return reduce_in_lanes(u, lanes, src)
  if u.op is Ops.END: return u.with_src(tuple([s for s in flat_effects(src) if not is_lanes(s)]))
  if r is None or u.op is Ops.INDEX: return u.with_src(src)
  if u.op is Ops.LOAD: return load_in_lanes(u, r, new)
  if u.op is Ops.STORE: return store_in_lanes(u, r, new)
  assert u.op in ALU, f"{u.op} cannot be vectorised"
  return UOp(u.op, u.dtype.vec(width(r)), tuple(s if s.dtype.count > 1 else s.stack(width(r)) for s in src), u.arg)

def width(r: UOp) -> int: return r.bound.arg
def is_lanes(s: UOp) -> bool: return s.op is Ops.STACK
def flat_effects(src: tuple[UOp, ...]) -> list[UOp]: return [t for s in src for t in (s.src if s.op is Ops.SINK else (s,))]

def reduce_in_lanes(u: UOp, lanes: dict[UOp, UOp | None], src: tuple[UOp, ...]) -> UOp:
  """A reduction over a VECTOR range accumulates lane by lane and reduces the lanes once at the end."""
  loops = tuple(s for s in src[1:] if not is_lanes(s))
  across = next((r for r in u.src[1:] if r.axis is Axis.VECTOR), None)
  value = src[0] if across is None or src[0].dtype.count > 1 else src[0].stack(width(across))
  if loops: value = UOp(Ops.REDUCE, value.dtype, (value, *loops), u.arg)
  return value if across is None else UOp(Ops.REDUCE, u.dtype, (value,), u.arg)

def vector_address(access: UOp, r: UOp, new: dict[UOp, UOp]) -> UOp | None:
  """The address of lane 0 with a gate per lane, if the lanes lie side by side in memory; else None."""
  index = access.src[0]
  if stride_of(index.src[1], r) != 1: return None
  start = rewrite(index.src[1].substitute({r: r.like(0)}), simplify_index)
  gates = [new[g] if new[g].dtype.count > 1 else new[g].stack(width(r)) for g in index.src[2:]]
  return UOp(Ops.INDEX, index.dtype, (index.src[0], start, *gates))

def each_lane(u: UOp, r: UOp) -> list[UOp]:
  return [rewrite(u.substitute({r: r.like(i)}), simplify_index) for i in range(width(r))]

def load_in_lanes(u: UOp, r: UOp, new: dict[UOp, UOp]) -> UOp:
  address = vector_address(u, r, new)
  vector = u.dtype.vec(width(r))
  return UOp(Ops.LOAD, vector, (address,)) if address is not None else UOp(Ops.STACK, vector, tuple(each_lane(u, r)))

def store_in_lanes(u: UOp, r: UOp, new: dict[UOp, UOp]) -> UOp:
  address = vector_address(u, r, new)
  value = new[u.src[1]]
  if value.dtype.count == 1: value = value.stack(width(r))
  if address is not None: return address.store(value)
  targets = each_lane(u.src[0], r)
  return UOp.sink(*[t.store(UOp(Ops.INDEX, value.dtype.scalar, (value, r.like(i)))) for i, t in enumerate(targets)])

# ---- REDUCE ----------------------------------------------------------------------------------------------------------

def accumulate(kernel: UOp) -> UOp:
  """Accumulators for the reductions. Those over the same ranges are one loop."""
  inside = ranges_inside(kernel)
  numbers = itertools.count()                  # registers numbered by kernel: equal kernels have equal code
  table: dict[UOp, UOp] = {}
  for loops, members in nests_in_order(kernel):
    values = substitute([u.src[0] for u in members], table)
    outer = sorted(frozenset().union(*(inside[u] for u in members)), key=lambda r: r.arg)
    registers = [UOp(Ops.BUFFER, u.dtype, (), Buf(next(numbers), 1, Space.REG)) for u in members]
    updates = [update(register, u, value, outer, loops) for register, u, value in zip(registers, members, values)]
    end = UOp(Ops.END, dtypes.void, (*updates, *loops))
    for register, u in zip(registers, members): table[u] = element(register.after(end)).load()
  return kernel.substitute(table)

Nest = tuple[UOp, ...]                         # the ranges that some reductions run over

def nests_in_order(kernel: UOp) -> list[tuple[Nest, list[UOp]]]:
  """The reductions by the ranges they run over, each nest after those that its values need."""
  below: dict[UOp, frozenset[Nest]] = {}       # node -> the nests it depends on
  members: dict[Nest, list[UOp]] = {}
  for u in toposort([kernel]):
    below[u] = frozenset().union(*(below[s] for s in u.src)) if u.src else frozenset()
    if u.op is not Ops.REDUCE or len(u.src) == 1: continue
    members.setdefault(u.src[1:], []).append(u)
    below[u] |= {u.src[1:]}
  needs = {nest: frozenset().union(*(below[u] for u in reductions)) for nest, reductions in members.items()}
  return sorted(members.items(), key=lambda item: len(needs[item[0]]))      # needs are nested: all of theirs are its own

def element(register: UOp) -> UOp: return register.index(UOp.const(dtypes.index, 0))

def update(register: UOp, u: UOp, value: UOp, outer: list[UOp], loops: tuple[UOp, ...]) -> UOp:
  """The store that folds value into the register, which is set to the identity inside the outer ranges."""
  start = element(register.after(*outer)).store(UOp.const(u.dtype, identity(u.arg[0], u.dtype.scalar)))
  before = element(register.after(start, *loops)).load()
  return element(register).store(before.alu(u.arg[0], value))
