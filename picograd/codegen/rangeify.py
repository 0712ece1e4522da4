# rangeify.py: tensor graph -> stores over ranges. One backward walk gives every node the places where it is read and
# decides which nodes are stored in memory of their own ("cut"); one forward walk then builds each store's expression.
# In: roots of a tensor graph, all on one device. Out: Store records, sources first, and the leaves they touch. After:
# no movement op is left; every value is an expression over RANGEs that LOADs from PARAMs, numbered by leaf. (chapter 3)
from __future__ import annotations
import functools
from collections import defaultdict
from typing import NamedTuple
from picograd.codegen.target import Target
from picograd.dtype import dtypes
from picograd.helpers import argsort, ceildiv, prod
from picograd.ops.movement import linear, push
from picograd.ops.ops import ALU, Axis, Border, MOVEMENT, Ops, TRANSCENDENTAL
from picograd.ops.shape import Shape
from picograd.ops.uop import Table, UOp, consumers, substitute, toposort

TRUE = UOp.const(dtypes.bool, True)
ZERO = UOp.const(dtypes.index, 0)
Position = tuple[UOp, ...]                      # one index per dimension
Ranges = frozenset[UOp]

class Request(NamedTuple):
  """One way in which a node is read: at this position, where gate holds, by the kernel that computes root."""
  at: Position
  gate: UOp
  root: UOp

class Scope(NamedTuple):
  """What is around a read: all ranges of the kernel that enclose it, whether one of them is a contraction's, and how
  many operations lie on the longest way from the kernel's root."""
  ranges: Ranges
  contraction: bool
  distance: int

  def join(self, other: "Scope") -> "Scope":
    ranges = self.ranges | other.ranges
    contraction = self.contraction or other.contraction
    return Scope(ranges, contraction, max(self.distance, other.distance))

class Store(NamedTuple):
  """`address = value` for every point of ranges."""
  node: UOp                    # the tensor node that this computes: a value, or a STORE
  address: UOp                 # INDEX(PARAM, position), perhaps with a gate
  value: UOp
  dims: Position               # one RANGE per dimension of the value; a constant 0 where its size is 1
  ranges: tuple[UOp, ...]      # the RANGEs of dims, outermost loop first
  update: Ops | None = None    # ADD: the value is added to what is there, whoever else adds to it at the same time

  @property
  def effect(self) -> UOp:
    """The store itself."""
    return UOp(Ops.STORE, dtypes.void, (self.address, self.value), self.update)
  @property
  def target(self) -> UOp: return self.address.src[0]
  def over(self, ranges: dict[UOp, UOp]) -> Store:
    """The same store with ranges replaced in what it reads and writes."""
    address, value = substitute([self.address, self.value], ranges)
    return self._replace(address=address, value=value)

class Plan(NamedTuple):
  roots: list[UOp]             # the graph that the stores compute: the one asked for, or one of equal values
  stores: list[Store]
  leaves: list[UOp]            # PARAM(k) stands for leaves[k]: a BUFFER, or the AFTER that names it after an assignment

LEAVES = frozenset({Ops.BUFFER, Ops.AFTER})
FREE = MOVEMENT | LEAVES | {Ops.CONST, Ops.RANGE, Ops.DETACH}        # reading these twice costs nothing

ROW_LIMIT = 1 << 17            # elements of a row that several loops of one kernel may pass over
FEW_ROWS = 4                   # with fewer rows than this, long rows are split over kernels to keep all threads busy
SMALL_WORK = 1 << 15           # elements under which one kernel on one thread is always best
ROW_PASSES = 4                 # loops over one row in which a value may be computed again
LONG_ROW = 256                 # elements of a row that is worth aligning
MANY_BLOCKS = 1 << 12          # steps of a contraction
LONGEST_CHAIN = 400            # operations in sequence in one kernel: compilers take more than linear time
LONGEST_EPILOGUE = 64          # operations on a reduction's result that go with it
MANY_READS = 16                # of one element of a contraction's operand, from which on its narrower form is stored
SMALL_WASTE = 8                # operations on a vector operand that a contraction may repeat for each row of its matrix
TRANSCENDENTAL_COST = 16       # operations that a logarithm, a power or a sine counts for

def rangeify(roots: list[UOp], device: str, target: Target) -> Plan:
  """The stores that compute the roots, each after those it reads from."""
  state = Rangeifier(roots, device, target)
  state.walk_back()
  plan = state.build()
  separate = {}                # x[1:] = x[:-1]: the value is stored elsewhere before the assignment begins
  for store in plan.stores:
    if store.node.op is not Ops.STORE or not overwrites_what_it_reads(store, plan.leaves): continue
    view, value = store.node.src
    stored = UOp(Ops.CONTIGUOUS, value.dtype, (value,))
    separate[store.node] = store.node.with_src((view, stored))
  return rangeify(substitute(roots, separate), device, target) if separate else plan

class Rangeifier:
  """The state of the two walks over one graph."""
  def __init__(self, roots: list[UOp], device: str, target: Target):
    self.roots, self.device, self.target = roots, device, target
    self.order = toposort(roots)
    self.users = consumers(self.order)
    self.depth = reduce_depths(self.order)
    self.epilogues = epilogues(self.order, self.users)
    self.forced = {u for u in self.order if u.op in (Ops.CONTIGUOUS, Ops.STORE)}
    self.forced.update(u for u in roots if u.op is not Ops.AFTER)
    self.requests: dict[UOp, dict[Request, Scope]] = defaultdict(dict)
    self.own: dict[UOp, Request] = {}                       # stored node -> the request it answers with its own ranges
    self.asked: dict[tuple[UOp, Request], list[Request | None]] = {}   # how each source of (node, request) is read
    self.rows: dict[UOp, list[Ranges]] = defaultdict(list)  # root -> range sets of its row reductions, nested
    self.tiled: set[UOp] = set()                            # roots with a contraction that reuses both its operands
    self.reduce_ranges: dict[tuple, Position] = {}

  # ---- backward: who reads what where, and what is stored ------------------------------------------------------------

  def walk_back(self) -> None:
    for u in reversed(self.order):
      wanted = self.requests[u]
      if u in self.forced or self.must_store(u, wanted): wanted = self.open_store(u)
      for request, scope in wanted.items(): self.ask_sources(u, request, scope)

  def open_store(self, u: UOp) -> dict[Request, Scope]:
    """New ranges for a node that is stored."""
    shape = u.src[1].shape if u.op is Ops.STORE else u.shape
    at = tuple([new_range(n, Axis.LOOP) for n in shape])
    self.own[u] = Request(at, TRUE, u)
    return {self.own[u]: Scope(ranges_of(at), False, 0)}

  def ask_sources(self, u: UOp, request: Request, scope: Scope) -> None:
    """Passes a read of u on to its sources."""
    asked: list[Request | None] = [request] * len(u.src)
    if u.op in LEAVES or u.op is Ops.RANGE: asked = [None] * len(u.src)
    elif u.op is Ops.STORE: asked[0] = None
    elif u.op in MOVEMENT:
      at, valid = push(u, request.at)
      asked = [Request(at, both(request.gate, valid), request.root)]
    elif u.op is Ops.REDUCE:
      at = self.open_reduce(u, request)
      asked = [request._replace(at=at)]
      contraction = scope.contraction or is_contraction(u)
      scope = Scope(scope.ranges | ranges_of(at), contraction, scope.distance)
    self.asked[u, request] = asked
    scope = scope._replace(distance=scope.distance + 1)
    for s, r in zip(u.src, asked):
      if r is None: continue
      known = self.requests[s]
      known[r] = known[r].join(scope) if r in known else scope

  def open_reduce(self, u: UOp, request: Request) -> Position:
    """The position at which u's source is read."""
    at = list(request.at)
    for axis, r in zip(u.arg[1], self.ranges_for(u, request)): at[axis] = r
    return tuple(at)

  def ranges_for(self, u: UOp, request: Request) -> Position:
    """The ranges of a reduction's axes. Reductions of one shape that are read at one place and do not depend on each
    other share them, so they become one loop."""
    axes, shape = u.arg[1], u.src[0].shape
    key = (request, axes, shape, self.depth[u])
    if key not in self.reduce_ranges:
      self.reduce_ranges[key] = tuple([new_range(shape[a], Axis.REDUCE) for a in axes])
    return self.reduce_ranges[key]

  # ---- what is cut ---------------------------------------------------------------------------------------------------

  def must_store(self, u: UOp, wanted: dict[Request, Scope]) -> bool:
    if u.op is Ops.PERMUTE and wanted: return self.stores_in_new_order(u, wanted)
    if u.op is Ops.PAD: return any(is_border_asked_for_again(u, request, scope) for request, scope in wanted.items())
    if u.op in FREE or not wanted: return False
    if u.op is Ops.CAST and any(is_narrowed(u, request, scope) for request, scope in wanted.items()): return True
    if u.op is Ops.CAST and (u.src[0].op in FREE or is_wider(u)): return False
    scopes = list(wanted.values())
    if len(wanted) > 1 and u.op is Ops.REDUCE: return True                # its readers disagree
    if any(scope.distance > LONGEST_CHAIN for scope in scopes): return True
    if len(wanted) > 1:
      if any(self.repeats_work(u, r, scope) for r, scope in wanted.items()): return True
      return u in self.epilogues or not (self.is_cheap(u) or passes_over_a_row(list(wanted)))
    request, scope = next(iter(wanted)), scopes[0]
    if u.op is Ops.REDUCE: return self.reduce_must_store(u, request, scope)
    if u in self.epilogues and is_reduced(ranges_of(request.at)): return True
    return self.repeats_work(u, request, scope)

  def stores_in_new_order(self, u: UOp, wanted: dict[Request, Scope]) -> bool:
    """Whether to store what a PERMUTE gives instead of what it gets: that would be stored, nobody else wants it, and
    rows stay rows. Its readers then find in memory the order in which they read."""
    if u.arg[-1:] != (len(u.arg) - 1,): return False
    below = u.src[0]
    while below.op is Ops.RESHAPE and len(self.users[below]) == 1: below = below.src[0]
    if len(self.users[below]) > 1 or below in self.forced: return False
    plain = below.op in ALU and below not in self.epilogues          # the order of a product's tiles is its operands'
    return (plain or is_batched(without_casts(below))) and self.must_store(below, wanted)

  def reduce_must_store(self, u: UOp, request: Request, scope: Scope) -> bool:
    inside = ranges_of(request.at)
    if is_reduced(inside): return True                                    # it would run again in another one's loop
    repeated = loops_of(scope.ranges - inside)
    if is_contraction(u):
      if size_of(loops_of(inside)) > prod(u.shape): return True           # several loops lead to one element
      if repeated or scope.contraction or request.gate is not TRUE or self.turns_blocks(u, request): return True
      if not reuses_both(u): return False
      if request.root in self.tiled: return True                          # registers hold the tile of one at a time
      self.tiled.add(request.root)
      return False
    if not repeated and not scope.contraction: return False               # one result per element: nothing is repeated
    rows, row = size_of(inside), prod(u.src[0].shape[a] for a in u.arg[1])
    if scope.contraction and rows > 1: return True                        # a norm before a matmul of many rows
    if rows * row > SMALL_WORK and (row > ROW_LIMIT or rows < FEW_ROWS): return True
    chain = self.rows[request.root]
    if not all(inside <= other or other <= inside for other in chain): return True      # rows and columns cannot nest
    chain.append(inside)
    return False

  def turns_blocks(self, u: UOp, request: Request) -> bool:
    """Whether a contraction so deep that blocks of it leave sums in memory would leave them in another order than its
    own: a copy costs less."""
    def last(at: Position) -> UOp: return next((i for i in reversed(at) if i is not ZERO), ZERO)
    depth = prod(u.src[0].shape[a] for a in u.arg[1])
    return depth >= MANY_BLOCKS and last(request.at) is not last(self.own[request.root].at)

  def is_cheap(self, u: UOp) -> bool:
    """Whether computing u again costs no more than storing and loading it: few plain operations on little memory."""
    operations, elements = 0, 0
    for v in self.inside_kernel(u):
      if v.op in (Ops.REDUCE, Ops.CONTIGUOUS): return False
      if v.op in LEAVES or self.is_boundary(v, u): elements += prod(v.shape)
      elif is_operation(v): operations += TRANSCENDENTAL_COST if v.op in TRANSCENDENTAL else 1
    return operations <= self.target.cheap_ops and elements <= 1.25 * prod(u.shape) + 64

  def repeats_work(self, u: UOp, request: Request, scope: Scope) -> bool:
    """Whether u is real work on an operand of a contraction that the contraction's loops would repeat. A vector operand
    (one row times a matrix) with little work is left in: the matrix has to be read anyway."""
    inside = ranges_of(request.at)
    if not scope.contraction: return False
    if size_of(loops_of(scope.ranges - inside)) == 1: return False
    work = [v for v in self.inside_kernel(u) if is_operation(v) and not self.is_boundary(v, u)]
    if size_of(loops_of(inside)) > 1: return bool(work)
    return len(work) > SMALL_WASTE or any(v.op in TRANSCENDENTAL for v in work)

  def inside_kernel(self, u: UOp) -> list[UOp]:
    """u and what a kernel that computes it computes too, as far as can be said before u's sources are decided."""
    ends = (Ops.REDUCE, Ops.CONTIGUOUS, *LEAVES)
    return toposort([u], lambda v: v.op in ends or self.is_boundary(v, u))

  def is_boundary(self, v: UOp, u: UOp) -> bool:
    """Whether v below u will be stored for certain: several readers of an epilogue, such as a residual stream."""
    return v is not u and v.op in ALU and len(self.users[v]) > 1 and v in self.epilogues

  # ---- forward: the expression of each store -------------------------------------------------------------------------

  def build(self) -> Plan:
    values: dict[tuple[UOp, Request], UOp] = {}
    places: Table = {}                              # stored node -> its BUFFER leaf
    params: Table = {}                              # leaf -> PARAM, in order of first use
    stores: list[Store] = []

    def param(leaf: UOp) -> UOp:
      if leaf not in params: params[leaf] = UOp(Ops.PARAM, leaf.dtype, (), len(params))
      return params[leaf]

    def read(s: UOp, request: Request | None) -> UOp:
      if request is None: return s
      leaf = s if s.op in LEAVES else places.get(s)
      if leaf is None: return values[s, request]
      gate = None if request.gate is TRUE else request.gate
      shape = self.shape_in_memory(s)
      address = param(leaf).index(linear(request.at, shape), gate)
      return (address.replace(arg=border_of(s, shape)) if s.op is Ops.PAD else address).load()

    for u in self.order:
      if u.op in LEAVES: continue
      own = self.own.get(u)
      for request in [own] if own else list(self.requests[u]):
        src = [read(s, r) for s, r in zip(u.src, self.asked[u, request])]
        values[u, request] = self.value_of(u, request, src)
      if own is None: continue
      if u.op is Ops.STORE: target, position = follow_view(u.src[0], own.at)
      else:
        shape = self.shape_in_memory(u)
        target = places[u] = UOp.buffer(u.dtype, prod(shape), self.device)
        position = linear(own.at, shape)
      at = tuple([own.at[a] for a in argsort(u.arg)]) if u.op is Ops.PERMUTE else own.at
      stores.append(Store(u, param(target).index(position), values[u, own], own.at, self.loop_order(own.root, at)))
    return Plan(self.roots, stores, list(params))

  def shape_in_memory(self, u: UOp) -> Shape:
    """The shape of what is stored for u: operands and results of contractions that nobody outside sees may have longer
    rows, so that all of them are aligned."""
    per = self.target.row_bytes // u.dtype.itemsize
    if per <= 1 or len(u.shape) < 2 or u.shape[-1] < LONG_ROW or u.shape[-1] % per == 0: return u.shape
    if u in self.roots or u.op in (Ops.CONTIGUOUS, *LEAVES): return u.shape
    multiplied = any(scope.contraction for scope in self.requests[u].values())
    if not (multiplied or is_contraction(without_casts(u))): return u.shape
    return (*u.shape[:-1], ceildiv(u.shape[-1], per) * per)

  def value_of(self, u: UOp, request: Request, src: list[UOp]) -> UOp:
    """The value of u at a request, from the values of its sources there."""
    if u.op is Ops.CONST: return u
    if u.op is Ops.RANGE: return request.at[0].cast(u.dtype)
    if u.op is Ops.STORE: return src[1]
    if u.op is Ops.PAD:
      _, valid = push(u, request.at)
      return src[0] if valid is None else valid.where(src[0], UOp.const(u.dtype, 0))
    if u.op in MOVEMENT or u.op in (Ops.CONTIGUOUS, Ops.DETACH): return src[0]
    if u.op is not Ops.REDUCE: return UOp(u.op, u.dtype, tuple(src), u.arg)
    ranges = [r for r in self.ranges_for(u, request) if r.op is Ops.RANGE]
    return UOp(Ops.REDUCE, u.dtype, (src[0], *ranges), (u.arg[0], ())) if ranges else src[0]

  def loop_order(self, root: UOp, at: Position) -> tuple[UOp, ...]:
    """A store's ranges, outermost first: those that row reductions depend on enclose those they do not."""
    chain = self.rows[root]
    ranges = [r for r in at if r.op is Ops.RANGE]
    return tuple(sorted(ranges, key=lambda r: -sum(r in inside for inside in chain)))

# ---- small facts -----------------------------------------------------------------------------------------------------

def new_range(n: int, axis: Axis):
  return UOp.range(n, axis) if n > 1 else ZERO
def size_of(ranges: Ranges): return prod(r.bound.arg for r in ranges)
def loops_of(ranges: Ranges): return frozenset(r for r in ranges if r.axis is Axis.LOOP)
def is_reduced(ranges: Ranges): return any(r.axis is Axis.REDUCE for r in ranges)
def ranges_of(at: Position) -> Ranges:
  return frozenset(u for u in toposort(at) if u.op is Ops.RANGE)
def both(a: UOp, b: UOp | None) -> UOp:
  return a if b is None else b if a is TRUE else a & b
def is_operation(u: UOp): return u.op in ALU and u.op is not Ops.CAST

def is_border_asked_for_again(u: UOp, request: Request, scope: Scope) -> bool:
  """Whether each step of a contraction would ask whether an element of a PAD is in its border: windows of an image. The
  contraction reads it again and again; it is stored once, border and all."""
  if not scope.contraction or size_of(loops_of(scope.ranges - ranges_of(request.at))) == 1: return False
  _, valid = push(u, request.at)
  return valid is not None and is_reduced(ranges_of((valid,)))

def border_of(pad: UOp, shape: Shape) -> Border:
  """Of PADs of PADs that are stored, in this shape."""
  lows = [0] * len(shape)
  while pad.op is Ops.PAD:
    lows = [low + more for low, (more, _) in zip(lows, pad.arg)]
    pad = unshaped(pad.src[0])
  return Border(shape, tuple([(low, low + n) for low, n in zip(lows, pad.shape)]))

def unshaped(u: UOp) -> UOp:
  """u without reshapes that undo each other."""
  below = u
  while below.op is Ops.RESHAPE: below = below.src[0]
  return below if below.shape == u.shape else u

def is_narrowed(u: UOp, request: Request, scope: Scope) -> bool:
  """Whether a CAST makes a matrix narrower which a contraction's loops read again and again: matrix units read the
  narrow one from memory."""
  if not scope.contraction or u.dtype.itemsize >= u.src[0].dtype.itemsize or is_constant(u): return False
  inside = ranges_of(request.at)
  return size_of(loops_of(inside)) > 1 and size_of(loops_of(scope.ranges - inside)) >= MANY_READS

def is_wider(u: UOp) -> bool:
  """Whether a CAST takes more memory than what it casts, which is stored instead."""
  return u.dtype is not dtypes.index and u.src[0].dtype is not dtypes.index and u.dtype.bits > u.src[0].dtype.bits

def is_constant(u: UOp) -> bool:
  while u.op in MOVEMENT or u.op is Ops.CAST: u = u.src[0]
  return u.op is Ops.CONST

def passes_over_a_row(reads: list[Request]) -> bool:
  """Whether all reads come from one kernel that passes over the same row several times, as softmax does: the row is in
  the nearest cache, and computing the value again costs less than another kernel."""
  if len(reads) > ROW_PASSES or len({r.root for r in reads}) > 1: return False
  return all(len(set(i)) == 1 or all(r.op is Ops.RANGE for r in i) for i in zip(*(r.at for r in reads)))

def axes_of_reuse(u: UOp) -> list[frozenset[int]]:
  """The axes of the result along which each operand of a sum of products stays the same; [] for anything else."""
  if u.op is not Ops.REDUCE or u.arg[0] is not Ops.ADD: return []
  product = without_casts(u.src[0])
  return [stretched_axes(s) for s in product.src] if product.op is Ops.MUL else []

def is_contraction(u: UOp) -> bool:
  """A sum of products of two values that vary along different axes: matmul, convolution."""
  return len(set(axes_of_reuse(u))) == 2

def reuses_both(u: UOp) -> bool:
  """Whether a contraction uses each element of either operand several times, as a matrix times a vector does not."""
  return all(axes_of_reuse(u))

def without_casts(u: UOp) -> UOp:
  while u.op is Ops.CAST: u = u.src[0]
  return u

def is_batched(u: UOp) -> bool:
  """Whether u is many contractions, one for each step of axes on which both operands vary."""
  kept = {d for d, n in enumerate(u.shape) if n > 1}
  return is_contraction(u) and not kept <= frozenset().union(*axes_of_reuse(u))

def stretched_axes(u: UOp) -> frozenset[int]:
  """The axes along which u is known to repeat one element."""
  axes = list(range(len(u.shape)))
  while u.op in (Ops.CAST, Ops.PERMUTE):
    if u.op is Ops.PERMUTE: axes = [u.arg[a] for a in axes]
    u = u.src[0]
  if u.op is not Ops.EXPAND: return frozenset()
  before = u.src[0].shape
  return frozenset(d for d, a in enumerate(axes) if before[a] != u.shape[a])

def reduce_depths(order: list[UOp]) -> dict[UOp, int]:
  """How many reductions lie on the longest way down from each node; equal depths cannot depend on each other."""
  depth: dict[UOp, int] = {}
  for u in order:
    below = max((depth[s] for s in u.src), default=0)
    depth[u] = below + 1 if u.op is Ops.REDUCE else below
  return depth

def epilogues(order: list[UOp], users: dict[UOp, list[UOp]]) -> set[UOp]:
  """The nodes that end elementwise work on a reduction's result: every way from the reduction leads through them."""
  place = {u: i for i, u in enumerate(order)}
  found: set[UOp] = set()
  for reduce in order:
    if reduce.op is not Ops.REDUCE: continue
    size, ways = prod(reduce.shape), set(users[reduce])
    for _ in range(LONGEST_EPILOGUE):
      if not ways or not all(is_elementwise(u, size) for u in ways): break
      first = min(ways, key=place.__getitem__)
      if len(ways) == 1: found.add(first)
      ways.remove(first)
      ways.update(users[first])
  return found

def is_elementwise(u: UOp, size: int) -> bool:
  return (u.op in ALU or u.op in MOVEMENT) and prod(u.shape) == size

def follow_view(view: UOp, at: Position) -> tuple[UOp, UOp]:
  """The buffer under a chain of movement ops, and the position in it of the view's element."""
  while view.op in MOVEMENT:
    at, _ = push(view, at)
    view = view.src[0]
  return view, linear(at, view.shape)

@functools.lru_cache(4096)
def reads_of(store: Store) -> dict[int, list[UOp]]:
  """PARAM number -> the INDEXes through which a store reads it."""
  reads: dict[int, list[UOp]] = {}
  for u in toposort([store.value, *store.address.src]):
    if u.op is Ops.INDEX: reads.setdefault(u.src[0].arg, []).append(u)
  return reads

def storage_id(leaf: UOp) -> int:
  """The memory that a BUFFER, or any AFTER of it, names."""
  while leaf.op is not Ops.BUFFER: leaf = leaf.src[0]
  return leaf.arg.id

def overwrites_what_it_reads(store: Store, leaves: list[UOp]) -> bool:
  """Whether the value reads the assigned memory anywhere but at the very element it is about to assign."""
  memory = storage_id(leaves[store.target.arg])
  for u in toposort([store.value]):
    if u.op is not Ops.INDEX or u.src[1] is store.address.src[1]: continue
    if storage_id(leaves[u.src[0].arg]) == memory: return True
  return False
