# rangeify.py: tensor graph -> stores over ranges. One backward walk gives every node the places where it is read and decides
# which nodes are stored in memory of their own ("cut"); one forward walk then builds each store's expression.
# In: roots of a tensor graph, all on one device. Out: Store records, sources first, and the leaves they touch. After: no
# movement op is left; every value is an expression over RANGEs that LOADs from PARAMs, numbered by leaf.   (chapter 3)
from __future__ import annotations
from collections import defaultdict
from typing import NamedTuple
from picograd.dtype import dtypes
from picograd.helpers import prod
from picograd.ops.movement import linear, push
from picograd.ops.ops import ALU, Axis, MOVEMENT, Ops, TRANSCENDENTAL
from picograd.ops.uop import UOp, consumers, substitute, toposort

TRUE = UOp.const(dtypes.bool, True)
ZERO = UOp.const(dtypes.index, 0)

class Request(NamedTuple):
  """One way in which a node is read: at this index, where gate holds, by the kernel that computes root."""
  index: tuple[UOp, ...]
  gate: UOp
  root: UOp

class Scope(NamedTuple):
  """What is around a read: all ranges of the kernel that enclose it, whether one of them is a contraction's, and how many
  operations lie on the longest way from the kernel's root."""
  ranges: frozenset[UOp]
  contraction: bool
  distance: int

  def join(self, other: "Scope") -> "Scope":
    return Scope(self.ranges | other.ranges, self.contraction or other.contraction, max(self.distance, other.distance))

class Store(NamedTuple):
  """`target[position] = value` for every point of ranges."""
  node: UOp                    # the tensor node that this computes: a value, or a STORE
  target: UOp                  # the PARAM that is written
  position: UOp
  value: UOp
  index: tuple[UOp, ...]       # one RANGE per dimension of the value; a constant 0 where its size is 1
  ranges: tuple[UOp, ...]      # the RANGEs of index, outermost loop first

class Plan(NamedTuple):
  roots: list[UOp]             # the graph that the stores compute: the one asked for, or one of equal values
  stores: list[Store]
  leaves: list[UOp]            # PARAM(k) stands for leaves[k]: a BUFFER, or the AFTER that names a buffer after an assignment

FREE = MOVEMENT | {Ops.CONST, Ops.BUFFER, Ops.RANGE, Ops.AFTER, Ops.DETACH}     # reading these twice costs nothing
LEAVES = frozenset({Ops.BUFFER, Ops.AFTER})

ROW_LIMIT = 1 << 17            # elements of a row that several loops of one kernel may pass over
FEW_ROWS = 4                   # with fewer rows than this, long rows are split over kernels to keep all threads busy
SMALL_WORK = 1 << 15           # elements under which one kernel on one thread is always best
ROW_PASSES = 4                 # loops over one row in which a value may be computed again
LONGEST_CHAIN = 400            # operations in sequence in one kernel: compilers take more than linear time
CHEAP_OPS = 8                  # operations that are cheaper to repeat than to store

class Rangeifier:
  """The state of the two walks over one graph."""
  def __init__(self, roots: list[UOp], device: str):
    self.roots, self.device = roots, device
    self.order = toposort(roots)
    self.users = consumers(self.order)
    self.requests: dict[UOp, dict[Request, Scope]] = defaultdict(dict)
    self.own: dict[UOp, Request] = {}                       # stored node -> the request it answers with its own ranges
    self.asked: dict[tuple[UOp, Request], list[Request | None]] = {}   # how each source of (node, request) is read
    self.rows: dict[UOp, list[frozenset[UOp]]] = defaultdict(list)     # root -> range sets of its row reductions, nested
    self.reduce_ranges: dict[tuple, tuple[UOp, ...]] = {}
    self.depth = reduce_depths(self.order)
    self.epilogues = epilogues(self.order, self.users)
    self.forced = {u for u in roots if u.op is not Ops.AFTER} | {u for u in self.order if u.op in (Ops.CONTIGUOUS, Ops.STORE)}

  # ---- backward: who reads what where, and what is stored ------------------------------------------------------------

  def walk_back(self) -> None:
    for u in reversed(self.order):
      wanted = self.requests[u]
      if u in self.forced or (u.op not in FREE and wanted and self.must_store(u, wanted)):
        ranges = tuple(loop_range(n) for n in (u.src[1] if u.op is Ops.STORE else u).shape)
        own = self.own[u] = Request(ranges, TRUE, u)
        wanted = {own: Scope(frozenset(r for r in ranges if r.op is Ops.RANGE), False, 0)}
      for request, scope in wanted.items(): self.ask_sources(u, request, scope)

  def ask_sources(self, u: UOp, request: Request, scope: Scope) -> None:
    """Passes a read of u on to its sources."""
    asked: list[Request | None] = [request] * len(u.src)
    if u.op in LEAVES or u.op is Ops.RANGE: asked = [None] * len(u.src)
    elif u.op is Ops.STORE: asked[0] = None
    elif u.op in MOVEMENT:
      index, valid = push(u, request.index)
      asked = [Request(index, both(request.gate, valid), request.root)]
    elif u.op is Ops.REDUCE:
      index, ranges = self.open_reduce(u, request)
      asked = [request._replace(index=index)]
      scope = scope._replace(ranges=scope.ranges | ranges, contraction=scope.contraction or is_contraction(u))
    self.asked[u, request] = asked
    scope = scope._replace(distance=scope.distance + 1)
    for s, r in zip(u.src, asked):
      if r is not None: self.requests[s][r] = self.requests[s][r].join(scope) if r in self.requests[s] else scope

  def open_reduce(self, u: UOp, request: Request) -> tuple[tuple[UOp, ...], frozenset[UOp]]:
    """The index at which u's source is read: new ranges for the reduced axes. Reductions of one shape that are read at
    one place and do not depend on each other share ranges, so they become one loop."""
    axes, shape = u.arg[1], u.src[0].shape
    key = (request, axes, shape, self.depth[u])
    if key not in self.reduce_ranges:
      self.reduce_ranges[key] = tuple(UOp.range(shape[a], Axis.REDUCE) if shape[a] > 1 else ZERO for a in axes)
    new = dict(zip(axes, self.reduce_ranges[key]))
    index = tuple(new.get(d, i) for d, i in enumerate(request.index))
    return index, frozenset(r for r in new.values() if r.op is Ops.RANGE)

  # ---- what is cut ---------------------------------------------------------------------------------------------------

  def must_store(self, u: UOp, wanted: dict[Request, Scope]) -> bool:
    if u.op is Ops.REDUCE:
      if len(wanted) > 1: return True                                   # its readers disagree
      (request, scope), = wanted.items()
      return self.reduce_must_store(u, request, scope)
    if u.op is Ops.CAST and u.src[0].op in FREE: return False
    if any(scope.distance > LONGEST_CHAIN for scope in wanted.values()): return True
    if len(wanted) > 1: return u in self.epilogues or not (self.is_cheap(u) or passes_over_a_row(wanted))
    (request, scope), = wanted.items()
    inside = ranges_of(request.index)
    if any(r.axis is Axis.REDUCE for r in inside) and u in self.epilogues: return True
    return scope.contraction and self.wasteful_operand(u, inside, scope)

  def reduce_must_store(self, u: UOp, request: Request, scope: Scope) -> bool:
    inside = ranges_of(request.index)
    if any(r.axis is Axis.REDUCE for r in inside): return True          # it would run again in another reduction's loop
    if request.gate is not TRUE and is_contraction(u): return True     # a part of a larger result: the rest would wait for it
    repeated = [r for r in scope.ranges if r.axis is Axis.LOOP and r not in inside]
    if not repeated and not scope.contraction: return False             # one result per element: nothing is repeated
    if is_contraction(u): return True
    rows, row = prod(range_size(r) for r in inside), prod(u.src[0].shape[a] for a in u.arg[1])
    if scope.contraction and rows > 1: return True                      # a norm before a matmul of many rows
    if rows * row > SMALL_WORK and (row > ROW_LIMIT or rows < FEW_ROWS): return True
    chain = self.rows[request.root]
    if any(not (inside <= other or other <= inside) for other in chain): return True    # rows and columns cannot nest
    chain.append(inside)
    return False

  def is_cheap(self, u: UOp) -> bool:
    """Whether computing u again costs no more than storing and loading it: few plain operations on little memory."""
    operations, elements = 0, 0
    for v in self.inside_kernel(u):
      if v.op in (Ops.REDUCE, Ops.CONTIGUOUS) or v.op in TRANSCENDENTAL: return False
      if v.op in LEAVES or v is not u and self.is_shared_epilogue(v): elements += prod(v.shape)
      elif v.op in ALU and v.op is not Ops.CAST: operations += 1
      if operations > CHEAP_OPS or elements > 1.25 * prod(u.shape) + 64: return False
    return True

  def inside_kernel(self, u: UOp) -> list[UOp]:
    """u and what a kernel that computes it computes too, as far as can be said before u's sources are decided."""
    def stop(v: UOp) -> bool:
      return v.op in LEAVES or v.op in (Ops.REDUCE, Ops.CONTIGUOUS) or v is not u and self.is_shared_epilogue(v)
    return toposort([u], stop)

  def is_shared_epilogue(self, v: UOp) -> bool:
    """Whether v will be stored for certain: several readers of the end of a reduction, such as a residual stream."""
    return len(self.users[v]) > 1 and v.op in ALU and v in self.epilogues

  def wasteful_operand(self, u: UOp, inside: frozenset[UOp], scope: Scope) -> bool:
    """Whether u is real work on an operand of a contraction that the contraction's loops would repeat. A vector operand
    (one row times a matrix) with little work is left in: the matrix has to be read anyway."""
    repeated = prod(range_size(r) for r in scope.ranges if r not in inside and r.axis is Axis.LOOP)
    if repeated == 1: return False
    rows = prod(range_size(r) for r in inside if r.axis is Axis.LOOP)
    work = [v for v in self.inside_kernel(u) if v.op in ALU and v.op is not Ops.CAST and (v is u or not self.is_shared_epilogue(v))]
    if rows == 1: return len(work) > CHEAP_OPS or any(v.op in TRANSCENDENTAL for v in work)
    return bool(work)

  # ---- forward: the expression of each store -------------------------------------------------------------------------

  def build(self) -> Plan:
    values: dict[tuple[UOp, Request], UOp] = {}
    places: dict[UOp, UOp] = {}                              # stored node -> its BUFFER leaf
    params: dict[UOp, UOp] = {}                              # leaf -> PARAM, in order of first use
    stores: list[Store] = []

    def param(leaf: UOp) -> UOp: return params.setdefault(leaf, UOp(Ops.PARAM, leaf.dtype, (), len(params)))
    def read(s: UOp, request: Request | None) -> UOp:
      if request is None: return s
      leaf = places.get(s, s if s.op in LEAVES else None)
      if leaf is None: return values[s, request]
      position = linear(request.index, s.shape)
      return param(leaf).index(position, None if request.gate is TRUE else request.gate).load()

    for u in self.order:
      if u.op in LEAVES: continue
      own = self.own.get(u)
      for request in ([own] if own else list(self.requests[u])):
        values[u, request] = self.build_value(u, request, [read(s, r) for s, r in zip(u.src, self.asked[u, request])])
      if own is None: continue
      if u.op is Ops.STORE: target, position = follow_view(u.src[0], own.index)
      else:
        target = places[u] = UOp.buffer(u.dtype, prod(u.shape), self.device)
        position = linear(own.index, u.shape)
      stores.append(Store(u, param(target), position, values[u, own], own.index, self.loop_order(u, own)))
    return Plan(self.roots, stores, list(params))

  def build_value(self, u: UOp, request: Request, src: list[UOp]) -> UOp:
    """The value of u at a request, from the values of its sources there."""
    if u.op is Ops.CONST: return u
    if u.op is Ops.RANGE: return request.index[0].cast(u.dtype)
    if u.op is Ops.STORE: return src[1]
    if u.op is Ops.PAD:
      _, valid = push(u, request.index)
      return src[0] if valid is None else valid.where(src[0], UOp.const(u.dtype, 0))
    if u.op in MOVEMENT or u.op in (Ops.CONTIGUOUS, Ops.DETACH): return src[0]
    if u.op is Ops.REDUCE:
      ranges = [r for r in self.reduce_ranges[request, u.arg[1], u.src[0].shape, self.depth[u]] if r.op is Ops.RANGE]
      return UOp(Ops.REDUCE, u.dtype, (src[0], *ranges), (u.arg[0], ())) if ranges else src[0]
    return UOp(u.op, u.dtype, tuple(src), u.arg)

  def loop_order(self, root: UOp, own: Request) -> tuple[UOp, ...]:
    """The store's ranges, outermost first: those that row reductions depend on enclose those they do not."""
    chain = self.rows[root]
    ranges = [r for r in own.index if r.op is Ops.RANGE]
    return tuple(sorted(ranges, key=lambda r: -sum(r in inside for inside in chain)))

def rangeify(roots: list[UOp], device: str) -> Plan:
  """The stores that compute the roots, each after those it reads from."""
  state = Rangeifier(roots, device)
  state.walk_back()
  plan = state.build()
  clashing = [s for s in plan.stores if s.node.op is Ops.STORE and overwrites_what_it_reads(s, plan.leaves)]
  if not clashing: return plan
  separate = {}                           # x[1:] = x[:-1]: the value is stored elsewhere before the assignment begins
  for s in clashing:
    view, value = s.node.src
    separate[s.node] = UOp(Ops.STORE, dtypes.void, (view, UOp(Ops.CONTIGUOUS, value.dtype, (value,))))
  return rangeify(substitute(roots, separate), device)

# ---- small facts -----------------------------------------------------------------------------------------------------

def loop_range(n: int) -> UOp: return UOp.range(n, Axis.LOOP) if n > 1 else ZERO
def range_size(r: UOp) -> int: return r.bound.arg if r.bound.op is Ops.CONST else 1
def passes_over_a_row(wanted: dict[Request, Scope]) -> bool:
  """Whether all reads come from one kernel that passes over the same row several times, as softmax does: the row is in the
  nearest cache, and computing the value again costs less than another kernel."""
  if len(wanted) > ROW_PASSES or len({r.root for r in wanted}) > 1: return False
  return all(len(set(at)) == 1 or all(i.op is Ops.RANGE for i in at) for at in zip(*(r.index for r in wanted)))

def both(a: UOp, b: UOp | None) -> UOp: return a if b is None else b if a is TRUE else a & b
def ranges_of(index: tuple[UOp, ...]) -> frozenset[UOp]:
  return frozenset(u for u in toposort(index) if u.op is Ops.RANGE)

def is_contraction(u: UOp) -> bool:
  """A sum of products of two values that vary along different axes: matmul, convolution."""
  if u.op is not Ops.REDUCE or u.arg[0] is not Ops.ADD: return False
  product = u.src[0]
  while product.op is Ops.CAST: product = product.src[0]
  if product.op is not Ops.MUL: return False
  a, b = (constant_axes(s) for s in product.src)
  return a != b

def constant_axes(u: UOp) -> frozenset[int]:
  """The axes along which u is known to be stretched from one element."""
  while u.op is Ops.CAST: u = u.src[0]
  if u.op is Ops.CONST: return frozenset()
  order = list(range(len(u.shape)))
  while u.op is Ops.PERMUTE:
    order = [u.arg[a] for a in order]
    u = u.src[0]
  if u.op is not Ops.EXPAND: return frozenset()
  return frozenset(d for d, a in enumerate(order) if u.src[0].shape[a] == 1 and u.shape[a] > 1)

def reduce_depths(order: list[UOp]) -> dict[UOp, int]:
  """How many reductions lie on the longest way down from each node; equal depths cannot depend on each other."""
  depth: dict[UOp, int] = {}
  for u in order: depth[u] = max((depth[s] for s in u.src), default=0) + (u.op is Ops.REDUCE)
  return depth

def epilogues(order: list[UOp], users: dict[UOp, list[UOp]]) -> set[UOp]:
  """The nodes that are elementwise work on the results of a reduction that nothing else reads."""
  found: set[UOp] = set()
  for u in order:
    if u.op not in ALU and u.op not in MOVEMENT: continue
    same = [s for s in u.src if prod(s.shape) == prod(u.shape) and len(users[s]) == 1]
    if any(s.op is Ops.REDUCE or s in found for s in same): found.add(u)
  return found

def follow_view(view: UOp, index: tuple[UOp, ...]) -> tuple[UOp, UOp]:
  """The buffer under a chain of movement ops, and the position in it of the view's element at index."""
  while view.op in MOVEMENT:
    index, _ = push(view, index)
    view = view.src[0]
  return view, linear(index, view.shape)

def storage_id(leaf: UOp) -> int:
  """The memory that a BUFFER, or any AFTER of it, names."""
  while leaf.op is Ops.AFTER or leaf.op in MOVEMENT: leaf = leaf.src[0]
  return leaf.arg.id

def overwrites_what_it_reads(store: Store, leaves: list[UOp]) -> bool:
  """Whether the value reads the assigned memory anywhere but at the very element it is about to assign."""
  memory = storage_id(leaves[store.target.arg])
  reads = [u for u in toposort([store.value]) if u.op is Ops.INDEX]
  return any(storage_id(leaves[u.src[0].arg]) == memory and u.src[1] is not store.position for u in reads)
