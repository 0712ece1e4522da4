# grid.py: loops that GPU threads run side by side. In: kernel with GLOBAL, LOCAL and GROUP ranges. Out: kernel where
# those are positions of a block in the grid and of a thread in its block, where a REDUCE over a GROUP range is one over
# threads, with (op, (), stride, size) as its arg; where a store that does not run over some threads is the first one's,
# and where all threads have written what is shared before one reads it.   (chapter 3)
from __future__ import annotations
from typing import Container, Iterable
from picograd.codegen.optimize import stores_of
from picograd.dtype import dtypes
from picograd.helpers import prod
from picograd.ops.ops import Axis, Ops, Space
from picograd.ops.uop import Table, UOp, ranges_inside, substitute, toposort, without_after

IN_BLOCK = (Axis.LOCAL, Axis.GROUP)

def groups_apart(kernel: UOp) -> UOp:
  """Every reduction over threads as one of what each thread has reduced by itself; 16-bit floats travel as float32."""
  new: Table = {}
  for u in toposort([kernel]):
    src = tuple([new[s] for s in u.src])
    new[u] = u.with_src(src)
    groups = [r for r in src[1:] if u.op is Ops.REDUCE and r.axis is Axis.GROUP]
    if not groups: continue
    own = [r for r in src[1:] if r not in groups]
    value = UOp(Ops.REDUCE, u.dtype, (src[0], *own), u.arg) if own else src[0]
    if u.dtype.bits == 16 and u.dtype.kind == "f": value = value.cast(dtypes.float32)
    for r in groups: value = UOp(Ops.REDUCE, value.dtype, (value, r), u.arg)
    new[u] = value.cast(u.dtype)
  return new[kernel]

class Dimension:
  """Ranges of one size that never run at the same time, and the positions that stand for them."""
  def __init__(self, r: UOp):
    self.size, self.ranges = r.bound.arg, [r]
    self.stride, self.position = 1, r

def dimensions(ranges: Iterable[UOp], together: set[frozenset[UOp]]) -> list[Dimension]:
  """A dimension for each range; a range shares one that has its size with ranges that it never meets."""
  found: list[Dimension] = []
  for r in ranges:
    free = [d for d in found if d.size == r.bound.arg and not any(frozenset((r, q)) in together for q in d.ranges)]
    if free: free[0].ranges.append(r)
    else: found.append(Dimension(r))
  return sorted(found, key=lambda d: min(r.arg[0] for r in d.ranges))

def number(dims: list[Dimension], name: str, total: int) -> None:
  """Positions in one linear count of `total`, the range with the lowest number innermost; it starts again where they
  need fewer."""
  every = UOp(Ops.SPECIAL, dtypes.index, (), (name, total))
  needed = prod(d.size for d in dims)
  index, total = every % needed if needed < total else every, needed
  stride = 1
  for d in dims:
    d.stride = stride
    shifted = index // stride if stride > 1 else index
    stride *= d.size
    d.position = shifted % d.size if stride < total else shifted

def parties(ranges: list[UOp], together: set[frozenset[UOp]]) -> list[list[UOp]]:
  """Ranges that run at the same time, directly or by way of others: those of one nest."""
  found: list[list[UOp]] = []
  for r in ranges:
    met = [p for p in found if any(frozenset((r, q)) in together for q in p)]
    found = [p for p in found if p not in met] + [[*[q for p in met for q in p], r]]
  return found

def pairs_together(kernel: UOp) -> set[frozenset[UOp]]:
  """Ranges that run at the same time."""
  inside = ranges_inside(kernel)
  sets = {frozenset(inside[u]) | {r for r in u.src if r.op is Ops.RANGE} for u in inside}
  sets.update(loops_of(kernel).values())
  return {frozenset((a, b)) for found in sets for a in found for b in found if a is not b}

def loops_of(kernel: UOp) -> dict[UOp, frozenset[UOp]]:
  """The loops around each store; around one that another nest waits for, those of its own nest, and of those around
  both the ones that it needs."""
  own = {store: loops for end in toposort([kernel]) if end.op is Ops.END for store, loops in stores_of(end)}
  inside = ranges_inside(kernel)
  return {store: inside[store].union(loops) for store, loops in own.items()}

class Party:
  """The dimensions of one nest, and how many of a block's threads it needs."""
  def __init__(self, dims: list[Dimension]):
    self.dims, self.threads = dims, prod(d.size for d in dims)

def nests_in_block(kernel: UOp, together: set[frozenset[UOp]]) -> list[Party]:
  """The nests that the threads of a block share, those with ranges in common as one. together: pairs_together."""
  local = [u for u in toposort([kernel]) if u.op is Ops.RANGE and u.axis in IN_BLOCK]
  local.sort(key=lambda r: (r.axis, r.arg[0]))                         # GROUPs join LOCALs
  return [Party(dimensions(party, together)) for party in parties(local, together)]

def threads_of(kernel: UOp) -> int:
  """How many threads a block needs."""
  return max([nest.threads for nest in nests_in_block(kernel, pairs_together(kernel))], default=1)

def to_grid(kernel: UOp) -> UOp:
  ranges = sorted([u for u in toposort([kernel]) if u.op is Ops.RANGE], key=lambda r: r.arg[0])
  together = pairs_together(kernel)
  blocks = dimensions([r for r in ranges if r.axis is Axis.GLOBAL], together)
  number(blocks, "block", prod(d.size for d in blocks))
  nests = nests_in_block(kernel, together)
  total = max([nest.threads for nest in nests], default=1)
  for nest in nests: number(nest.dims, "thread", total)
  home = {r: d for d in (*blocks, *[d for nest in nests for d in nest.dims]) for r in d.ranges}
  if not home: return kernel
  gates = {store: idle_threads(loops, nests, total) for store, loops in loops_of(kernel).items() if is_seen(store)}
  for store, loops in stores_of(kernel): gates[store] = others(loops, blocks) + gates.get(store, [])
  new: Table = {}
  for u in toposort([kernel]):
    if u in home:
      new[u] = home[u].position
      continue
    closes = u.op in (Ops.END, Ops.AFTER)
    src = [new[s] for s in u.src if not (closes and s in home)]
    if u.op is Ops.AFTER and is_memory(src[0]): src = [src[0], UOp(Ops.BARRIER, dtypes.void, tuple(src[1:]))]
    if u.op is Ops.REDUCE and any(s in home for s in u.src[1:]): new[u] = over_threads(u, src[0], home[u.src[1]])
    elif u.op is Ops.END and all(s.op is not Ops.RANGE for s in src) and len(src) == 1: new[u] = src[0]
    else: new[u] = u.with_src(tuple(src))
    if gates.get(u): new[u] = gated_store(new[u], gates[u])
  return new[kernel]

def is_memory(u: UOp) -> bool:
  """Whether the threads of a block see each other's stores to it."""
  return u.op is Ops.PARAM or u.op is Ops.BUFFER and u.arg.space is Space.LOCAL
def is_seen(store: UOp) -> bool: return store.op is Ops.STORE and is_memory(without_after(store.src[0].src[0]))

def others(loops: Container[UOp], dims: Iterable[Dimension]) -> list[UOp]:
  """What holds where the positions are first in dimensions that a store does not run over."""
  return [d.position < 1 for d in dims if not any(r in loops for r in d.ranges)]

def idle_threads(loops: Container[UOp], nests: list[Party], total: int) -> list[UOp]:
  """What holds for one thread of those that would store the same."""
  every = UOp(Ops.SPECIAL, dtypes.index, (), ("thread", total))
  own = [nest for nest in nests if any(r in loops for d in nest.dims for r in d.ranges)]
  if not own: return [every < 1] if total > 1 else []
  return [gate for nest in own for gate in others(loops, nest.dims) + [every < nest.threads] * (nest.threads < total)]

def gated_store(store: UOp, first: list[UOp]) -> UOp:
  address, value = store.src
  gate = first[0]
  for g in first[1:]: gate = gate & g
  memory, position, *gates = address.src
  if gates: gate = gate.stack(gates[0].dtype.count) & gates[0]
  elif value.dtype.count > 1: gate = gate.stack(value.dtype.count)
  return store.with_src((address.with_src((memory, position, gate)), value))

def over_threads(u: UOp, value: UOp, d: Dimension) -> UOp:
  total = next(s for s in toposort([d.position]) if s.op is Ops.SPECIAL)
  return UOp(Ops.REDUCE, u.dtype, (value, total), (u.arg[0], (), d.stride, d.size))

# ---- threads meet once for several reductions ------------------------------------------------------------------------

MOST_LANES = 16          # results of one meeting

def meet_together(kernel: UOp) -> UOp:
  """The kernel where reductions over the same threads that do not depend on one another are one, of a vector: a block's
  threads wait for one another once, and what each computes for it before that is not kept in order by waiting."""
  inside = ranges_inside(kernel)
  depth: dict[UOp, int] = {}                      # how many meetings one after the other a node needs
  groups: dict[tuple, list[UOp]] = {}
  for u in toposort([kernel]):
    depth[u] = max([depth[s] for s in u.src], default=0)
    if not is_meeting(u) or u.dtype.count > 1: continue
    depth[u] += 1
    groups.setdefault((depth[u], inside[u], u.dtype, u.src[1:], u.arg), []).append(u)
  lanes: Table = {}
  for _, members in sorted(groups.items(), key=lambda group: group[0][0]):
    for k in range(0, len(members), MOST_LANES): lanes.update(joined(members[k:k + MOST_LANES], lanes))
  return kernel.substitute(lanes)

def is_meeting(u: UOp) -> bool: return u.op is Ops.REDUCE and any(s.op is Ops.SPECIAL for s in u.src[1:])

def joined(members: list[UOp], lanes: Table) -> Table:
  """Reductions -> lanes of one of a vector, whose operands know of earlier ones."""
  if len(members) == 1: return {}
  first, values = members[0], substitute([u.src[0] for u in members], lanes)
  dtype = first.dtype.vec(len(members))
  every = UOp(Ops.REDUCE, dtype, (UOp(Ops.STACK, dtype, tuple(values)), *first.src[1:]), first.arg)
  return {u: UOp(Ops.INDEX, u.dtype, (every, UOp.const(dtypes.index, k))) for k, u in enumerate(members)}
