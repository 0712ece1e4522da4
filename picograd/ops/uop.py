# uop.py: the one node type. A UOp is immutable and hash-consed: equal (op, dtype, src, arg) is the same object, so `is`
# is equality and a dict keyed by UOp is a table of common subexpressions. Nothing here simplifies: rules do (fold.py).
# Every walk is iterative, because chains are as long as programs.
from __future__ import annotations
import itertools, struct, weakref
from typing import Any, Callable, Iterable, Iterator, Mapping
from picograd.dtype import DType, dtypes, truncate
from picograd.ops.ops import Axis, Buf, COMPARE, MOVEMENT, Ops, Space
from picograd.ops.shape import SHAPED, Shape, shape_of

def intern_key(op: Ops, dtype: DType, src: tuple, arg: Any) -> tuple:
  """What makes two nodes equal. Floats compare by their bits: 0.0 is not -0.0, and NaN is itself."""
  return (op, dtype, src, arg if type(arg) is not float else struct.pack("d", arg))

class UOp:
  __slots__ = ("op", "dtype", "src", "arg", "shape", "__weakref__")
  pool: dict[tuple, "weakref.ref[UOp]"] = {}
  op: Ops
  dtype: DType
  src: tuple["UOp", ...]
  arg: Any
  shape: Shape                    # of a tensor node; () for everything below the tensor form

  def __new__(cls, op: Ops, dtype: DType = dtypes.void, src: tuple["UOp", ...] = (), arg: Any = None) -> "UOp":
    key = (op, dtype, src, arg) if type(arg) is not float else intern_key(op, dtype, src, arg)
    known = UOp.pool.get(key)
    if known is not None:
      node = known()
      if node is not None: return node
    node = object.__new__(cls)
    node.op, node.dtype, node.src, node.arg = op, dtype, src, arg
    if op in LEAF_SHAPES: node.shape = leaf_shape(op, src, arg)
    else: node.shape = shape_of(op, [s.shape for s in src], arg) if op in SHAPED else ()
    UOp.pool[key] = weakref.ref(node)
    return node

  def __del__(self) -> None:
    try: key = intern_key(self.op, self.dtype, self.src, self.arg)
    except (AttributeError, TypeError): return                        # construction failed, or the interpreter ends
    known = UOp.pool.get(key)           # a newer node's, if the collector had cleared mine before that was made
    if known is not None and known() in (None, self): del UOp.pool[key]

  def __reduce__(self): return (UOp, (self.op, self.dtype, self.src, self.arg))
  def __repr__(self) -> str:
    sources = "".join(f", {s.op}" for s in self.src)
    return f"UOp({self.op}, {self.dtype}{sources}{'' if self.arg is None else f', arg={self.arg}'})"

  # ---- construction: these only build; the dtype follows from the sources --------------------------------------------

  @staticmethod
  def const(dtype: DType, value: Any) -> "UOp":
    """A scalar constant, or for a vector dtype a STACK that repeats it."""
    scalar = UOp(Ops.CONST, dtype.scalar, (), truncate(value, dtype.scalar))
    return scalar if dtype.count == 1 else scalar.stack(dtype.count)

  def alu(self, op: Ops, *others: Any) -> "UOp":
    """op of me and others; numbers become constants of my dtype. Comparisons give bool, WHERE its branches' dtype."""
    src = (self, *[o if isinstance(o, UOp) else self.like(o) for o in others])
    if op in COMPARE: return UOp(op, dtypes.bool.vec(self.dtype.count), src)
    return UOp(op, src[1].dtype if op is Ops.WHERE else self.dtype, src)

  def like(self, value: Any) -> "UOp":
    """value as a constant of my dtype and shape; a UOp is returned as it is."""
    if isinstance(value, UOp): return value
    scalar = UOp.const(self.dtype, value)
    return scalar.spread(self.shape) if self.shape else scalar

  def spread(self, shape: Shape) -> "UOp":
    """A scalar repeated to a shape."""
    return self if self.shape == shape else self.reshape((1,) * len(shape)).expand(shape)

  def cast(self, dtype: DType) -> "UOp": return self.retyped(Ops.CAST, dtype)
  def bitcast(self, dtype: DType) -> "UOp": return self.retyped(Ops.BITCAST, dtype)
  def retyped(self, op: Ops, dtype: DType) -> "UOp":
    dtype = dtype.vec(self.dtype.count)
    return self if dtype is self.dtype else UOp(op, dtype, (self,))
  def where(self, yes: Any, no: Any) -> "UOp":
    """yes where self is true, else no; a Python number takes the dtype of the other branch."""
    if not isinstance(yes, UOp): yes = no.like(yes)
    return self.alu(Ops.WHERE, yes, yes.like(no))
  def stack(self, n: int) -> "UOp":
    """A vector of n equal lanes."""
    return self if n == 1 else UOp(Ops.STACK, self.dtype.vec(n), (self,) * n)

  def __add__(self, other): return self.alu(Ops.ADD, other)
  def __radd__(self, other): return self.like(other) + self
  def __mul__(self, other): return self.alu(Ops.MUL, other)
  def __rmul__(self, other): return self.like(other) * self
  def __neg__(self): return self * -1
  def __sub__(self, other): return self + -self.like(other)
  def __rsub__(self, other): return self.like(other) + -self
  def __truediv__(self, other): return self.alu(Ops.FDIV, other)
  def __floordiv__(self, other): return self.alu(Ops.IDIV, other)      # truncates, as C does
  def __mod__(self, other): return self.alu(Ops.MOD, other)            # sign of the dividend, as C does
  def __and__(self, other): return self.alu(Ops.AND, other)
  def __or__(self, other): return self.alu(Ops.OR, other)
  def __xor__(self, other): return self.alu(Ops.XOR, other)
  def __lshift__(self, other): return self.alu(Ops.SHL, other)
  def __rshift__(self, other): return self.alu(Ops.SHR, other)
  def __lt__(self, other): return self.alu(Ops.CMPLT, other)
  def __gt__(self, other): return self.like(other) < self
  def __ge__(self, other): return (self < other).not_()
  def __le__(self, other): return (self > other).not_()
  def ne(self, other): return self.alu(Ops.CMPNE, other)
  def eq(self, other): return self.ne(other).not_()
  def not_(self): return self.alu(Ops.CMPNE, True)
  def maximum(self, other): return self.alu(Ops.MAX, other)
  def minimum(self, other): return (self < other).where(self, other)

  # movement and reduction: the shape of the result is computed, and checked, by shape.py
  def moved(self, op: Ops, arg: Any) -> "UOp":
    """A movement op of me, or me where it changes no shape."""
    u = UOp(op, self.dtype, (self,), arg)
    return self if u.shape == self.shape else u
  def reshape(self, shape: Shape) -> "UOp": return self.moved(Ops.RESHAPE, shape)
  def expand(self, shape: Shape) -> "UOp": return self.moved(Ops.EXPAND, shape)
  def pad(self, widths: tuple[tuple[int, int], ...]) -> "UOp":
    return self.moved(Ops.PAD, widths)
  def shrink(self, bounds: tuple[tuple[int, int], ...]) -> "UOp":
    return self.moved(Ops.SHRINK, bounds)
  def permute(self, axes: tuple[int, ...]) -> "UOp":
    return self if axes == tuple(range(len(self.shape))) else UOp(Ops.PERMUTE, self.dtype, (self,), axes)
  def movedim(self, dim: int, to: int) -> "UOp":
    """One dimension at another place, the rest in order; -1 is the last."""
    axes = list(range(len(self.shape)))
    axes.insert(to % len(axes), axes.pop(dim))
    return self.permute(tuple(axes))
  def flip(self, axes: tuple[int, ...]) -> "UOp":
    return UOp(Ops.FLIP, self.dtype, (self,), axes) if axes else self
  def reduce(self, op: Ops, axes: tuple[int, ...]) -> "UOp":
    """op over the axes, which stay with size 1."""
    return UOp(Ops.REDUCE, self.dtype, (self,), (op, axes)) if axes else self

  # data and memory
  @staticmethod
  def buffer(dtype: DType, size: int, device: str) -> "UOp":
    """A new leaf of `size` elements in device memory; no two are equal."""
    return UOp(Ops.BUFFER, dtype, (), Buf(next(fresh), size, Space.GLOBAL, device))
  @staticmethod
  def register(dtype: DType, size: int = 1) -> "UOp":
    """A new private array: an accumulator."""
    return UOp(Ops.BUFFER, dtype, (), Buf(next(fresh), size, Space.REG))
  @staticmethod
  def iota(n: int, dtype: DType) -> "UOp":
    """The tensor 0, 1, .. n-1."""
    return UOp(Ops.RANGE, dtype, (UOp.const(dtypes.index, n),))
  @staticmethod
  def range(bound: "int | UOp", axis: Axis) -> "UOp":
    """A new loop variable 0 <= r < bound of a kernel."""
    if not isinstance(bound, UOp): bound = UOp.const(dtypes.index, bound)
    return UOp(Ops.RANGE, dtypes.index, (bound,), (next(fresh), axis))
  def index(self, position: "UOp", gate: "UOp | None" = None) -> "UOp":
    """The address of my element at position; where gate is false nothing is touched and a load gives 0."""
    return UOp(Ops.INDEX, self.dtype, (self, position) if gate is None else (self, position, gate))
  def load(self, *after: "UOp") -> "UOp":
    return UOp(Ops.LOAD, self.dtype, (self, *after))
  def store(self, value: "UOp") -> "UOp":
    return UOp(Ops.STORE, dtypes.void, (self, value))
  def after(self, *effects: "UOp") -> "UOp":
    return UOp(Ops.AFTER, self.dtype, (self, *effects)) if effects else self
  def end(self, *ranges: "UOp") -> "UOp":
    return UOp(Ops.END, dtypes.void, (self, *ranges)) if ranges else self
  @staticmethod
  def sink(*src: "UOp") -> "UOp": return UOp(Ops.SINK, dtypes.void, src)

  # ---- reading -------------------------------------------------------------------------------------------------------

  def replace(self, **fields: Any) -> "UOp":
    """The same node with some of op, dtype, src, arg changed."""
    return UOp(**{"op": self.op, "dtype": self.dtype, "src": self.src, "arg": self.arg, **fields})
  def with_src(self, src: tuple["UOp", ...]) -> "UOp":
    return self if src == self.src else UOp(self.op, self.dtype, src, self.arg)
  @property
  def axis(self) -> Axis:
    """The axis kind of a RANGE of a kernel."""
    return self.arg[1]
  @property
  def bound(self) -> "UOp": return self.src[0]
  @property
  def device(self) -> str:
    """Where a tensor node's value lives: the device of a buffer or copy below it; '' where there is none."""
    u = self
    while u.src and u.op is not Ops.COPY: u = u.src[-1]
    if u.op is Ops.BUFFER: return u.arg.device                       # most often
    stack, seen = [self], {self}
    while stack:
      u = stack.pop()
      if u.op is Ops.COPY: return u.arg
      if u.op is Ops.BUFFER: return u.arg.device
      stack.extend(s for s in u.src if s not in seen)
      seen.update(u.src)
    return ""

  def toposort(self, stop: Callable[["UOp"], bool] | None = None) -> list["UOp"]:
    """Every node below and including me, sources first. Where stop(u) holds, u is listed but not entered."""
    return toposort((self,), stop)
  def substitute(self, table: Mapping["UOp", "UOp"]) -> "UOp":
    """Me with each key of table replaced by its value; values are not entered again."""
    return substitute((self,), table)[0]

LEAF_SHAPES = frozenset({Ops.BUFFER, Ops.RANGE})
def leaf_shape(op: Ops, src: tuple[UOp, ...], arg: Any) -> Shape:
  """A buffer is flat; a RANGE without arg is the tensor 0..n-1, one with arg a kernel's loop variable."""
  if op is Ops.BUFFER: return (arg.size,) if isinstance(arg, Buf) and arg.space is Space.GLOBAL else ()
  return (src[0].arg,) if arg is None else ()

Table = dict[UOp, UOp]               # node -> what stands for it

fresh: Iterator[int] = itertools.count(1)

def toposort(roots: Iterable[UOp], stop: Callable[[UOp], bool] | None = None) -> list[UOp]:
  """Every node reachable from the roots, sources before users, in a fixed order."""
  entered: set[UOp] = set()
  done: list[UOp] = []
  waiting: list[tuple[UOp | None, Iterator[UOp]]] = []               # nodes above, and their sources that come later
  user: UOp | None = None
  sources = iter(roots)
  while True:
    for u in sources:
      if u in entered: continue
      entered.add(u)
      if u.src and (stop is None or not stop(u)):
        waiting.append((user, sources))
        user, sources = u, iter(u.src)
        break
      done.append(u)
    else:                                                            # all sources of the user are done
      if user is None: return done
      done.append(user)
      user, sources = waiting.pop()

def substitute(roots: Iterable[UOp], table: Mapping[UOp, UOp]) -> list[UOp]:
  """The roots with each key of table replaced by its value, common parts shared."""
  roots = list(roots)
  if not table: return roots
  new: Table = dict(table)
  for u in toposort(roots, stop=table.__contains__):
    if u not in new: new[u] = u.with_src(tuple([new[s] for s in u.src]))
  return [new[u] for u in roots]

Row = tuple[Ops, DType, list[int], Any]                               # op, dtype, which rows are the sources, arg

def rows_of(root: UOp) -> list[Row]:
  """A graph as a list, for pickle, which cannot take deep graphs."""
  nodes = toposort([root])
  numbers = {u: i for i, u in enumerate(nodes)}
  return [(u.op, u.dtype, [numbers[s] for s in u.src], u.arg) for u in nodes]

def from_rows(rows: list[Row]) -> UOp:
  nodes: list[UOp] = []
  for op, dtype, src, arg in rows: nodes.append(UOp(op, dtype, tuple([nodes[i] for i in src]), arg))
  return nodes[-1]

def consumers(nodes: Iterable[UOp]) -> dict[UOp, list[UOp]]:
  """For each node of a list, the nodes of the list that have it as a source, in order, each once."""
  out: dict[UOp, list[UOp]] = {u: [] for u in nodes}
  for u in out:
    for s in dict.fromkeys(u.src):
      if s in out: out[s].append(u)
  return out

def without_after(u: UOp) -> UOp:
  """What an AFTER puts in order."""
  while u.op is Ops.AFTER: u = u.src[0]
  return u

def shuffled(u: UOp, k: int) -> tuple[UOp, int]:
  """The vector, and its lane, that lane k of a STACK with an arg is."""
  source, lane = divmod(u.arg[k], u.src[0].dtype.count)
  return u.src[source], lane

def view_of(view: UOp) -> tuple[UOp, list[UOp]]:
  """The node below a chain of movement ops, and the chain, lowest first."""
  chain: list[UOp] = []
  while view.op in MOVEMENT:
    chain.insert(0, view)
    view = view.src[0]
  return view, chain

def from_memory(x: UOp) -> UOp:
  """x from memory, for who compares it with itself. Computed twice, a value may round in two ways: nothing would equal
  the maximum, and no order would be one."""
  return x if view_of(x)[0].op is Ops.BUFFER else UOp(Ops.CONTIGUOUS, x.dtype, (x,))

def memory_of(access: UOp) -> UOp:
  """The PARAM or BUFFER of a LOAD or STORE."""
  return without_after(without_after(access.src[0]).src[0])

def ranges_inside(kernel: UOp) -> dict[UOp, frozenset[UOp]]:
  """For each node the ranges whose loops it stands in: those it depends on and that no REDUCE or END has closed."""
  inside: dict[UOp, frozenset[UOp]] = {}
  for u in toposort([kernel]):
    found: frozenset[UOp] = frozenset()
    for s in u.src:                                                  # most have the ranges of one source
      more = inside[s]
      if found <= more: found = more
      elif not more <= found: found |= more
    if u.op is Ops.RANGE: found |= {u}
    if u.op in (Ops.REDUCE, Ops.END): found -= frozenset(s for s in u.src if s.op is Ops.RANGE)
    inside[u] = found
  return inside
