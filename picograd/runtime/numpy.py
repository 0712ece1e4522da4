# numpy.py: the device that evaluates a tensor graph op by op, one NumPy call each: chapter 1's interpreter, our oracle.
# In: tensor-form nodes and a function that gives each BUFFER leaf its memory. Out: an array each, stores done in place.
# Movement ops are views, so an EXPAND costs nothing and a REDUCE of a MUL of expanded operands is one matrix product.
# Between ops a bfloat16 value is a float32 array that holds only bfloat16 values.
from __future__ import annotations
from collections import Counter
from functools import partial
from itertools import permutations
from typing import Any, Callable, Iterable
import numpy as np
from picograd.dtype import DType, dtypes
from picograd.helpers import argsort, prod
from picograd.ops.ops import ALU, Ops, identity
from picograd.ops.uop import Table, UOp, consumers, toposort
from picograd.runtime.device import HostDevice, numpy_dtype

Array = np.ndarray
Step = tuple[tuple[UOp, ...], Callable[..., Array]]      # how a node's value is made: function(*values of the sources)

def open_device(name: str) -> NumpyDevice: return NumpyDevice(name)

class NumpyDevice(HostDevice):
  """Interprets tensor graphs, hence has no target: nothing is compiled."""

  def run(self, roots: list[UOp], read: Callable[[UOp], Array]) -> list[Array]:
    """The values of the roots in numpy_dtype. read(leaf) is a leaf's memory, flat and writable; a result may be a view
    of it. NotImplementedError names an op that a tensor graph cannot have."""
    order = in_order(roots)
    alone = {u for u, by in consumers(order).items() if len(by) == 1} - set(roots)       # wanted by one node only
    steps = {u: choose_step(u, alone) for u in order}
    uses = Counter(roots)                                                # how often a value is still wanted
    for u in reversed(order):
      if uses[u] or u.op is Ops.STORE: uses.update(steps[u][0])
    memory = {u: read(u) for u in order if u.op is Ops.BUFFER}
    values: dict[UOp, Array] = {}
    with np.errstate(all="ignore"):
      for u in order:
        if not uses[u] and u.op is not Ops.STORE: continue
        sources, function = steps[u]
        arguments = [values[s] for s in sources]
        uses.subtract(sources)
        for s in sources:
          if not uses[s]: values.pop(s, None)
        if u.op is Ops.STORE: store(u, arguments[0], memory[base(u)], values)
        elif u.op in (Ops.BUFFER, Ops.AFTER): values[u] = unpacked(view(u, memory[base(u)]), u.dtype)
        else: values[u] = function(*arguments)
    return [packed(values[u], u.dtype) for u in roots]

# ---- order and assignment --------------------------------------------------------------------------------------------

def base(u: UOp) -> UOp:
  """The BUFFER below a view, a STORE or an AFTER."""
  while u.op is not Ops.BUFFER:
    assert u.op in MOVES or u.op in (Ops.STORE, Ops.AFTER), f"an assignment goes into a view of a buffer, not into {u}"
    u = u.src[0]
  return u

def view(u: UOp, memory: Array) -> Array:
  """The part of a buffer's memory that u names, as a NumPy view where there is one, else as a copy."""
  path = []
  while u.op is not Ops.BUFFER:
    path.append(u)
    u = u.src[0]
  for step in reversed(path):
    if step.op in MOVES: memory = MOVES[step.op](memory, step)
  return memory

def store(u: UOp, value: Array, memory: Array, values: dict[UOp, Array]) -> None:
  """Writes value into the view that the STORE u names. Live values that look at the old content are copied first."""
  for other, array in values.items():
    if np.may_share_memory(array, memory): values[other] = array.copy()
  target, content = view(u.src[0], memory), packed(value, u.src[0].dtype)
  if np.may_share_memory(target, memory): target[...] = content
  else: memory[view(u.src[0], np.arange(memory.size))] = content

def in_order(roots: list[UOp]) -> list[UOp]:
  """Sources before users, and who reads a buffer's old content before the STORE that replaces it. A reader that depends
  on some STORE itself cannot always come first: for it `store` makes a copy."""
  nodes = toposort(roots)
  stores = [u for u in nodes if u.op is Ops.STORE]
  written = {base(u) for u in stores}
  after_store: set[UOp] = set()                                   # nodes above any STORE
  old: Table = {u: u for u in written}                   # view of old content -> its buffer
  readers: dict[UOp, list[UOp]] = {u: [] for u in written}
  for u in nodes:
    if u.op is Ops.STORE or not after_store.isdisjoint(u.src): after_store.add(u)
    elif u.op in MOVES:
      if u.src[0] in old: old[u] = old[u.src[0]]
    else:
      for s in u.src:
        if s in old: readers[old[s]].append(u)
  first = [u for s in stores for u in (*readers[base(s)], s)]
  return toposort(first + roots)

# ---- from a node to a NumPy call -------------------------------------------------------------------------------------

def choose_step(u: UOp, alone: set[UOp]) -> Step:
  if u.op in (Ops.BUFFER, Ops.AFTER): return (), np.empty                # `run` looks into memory instead
  if u.op is Ops.STORE: return (u.src[1],), np.empty
  if u.op is Ops.CONST: return (), lambda: fit(u.arg, u.dtype)
  if u.op is Ops.RANGE: return (), lambda: fit(np.arange(u.src[0].arg), u.dtype)
  if u.op is Ops.REDUCE:
    fused = fused_sum(u) if u.src[0] in alone else None
    return fused or (u.src, partial(reduce_array, u))
  if u.op in MOVES: return u.src[:1], lambda x: MOVES[u.op](x, u)
  if u.op in ALU: return u.src, partial(once, partial(elementwise, u))
  raise NotImplementedError(f"{u.op} has no meaning in a tensor graph: the NUMPY device cannot evaluate {u}")

def fused_sum(u: UOp) -> Step | None:
  """The sum of a product, of a gather or of a masked value, without the array that is summed."""
  summed = u.src[0]
  if u.arg[0] is not Ops.ADD: return None
  if summed.op is Ops.MUL: return summed.src, partial(contract, u)
  if summed.op is not Ops.WHERE or not is_zero(summed.src[2]): return None
  condition, x = summed.src[:2]
  if condition.op is Ops.CMPNE and condition.src[0].op is Ops.CMPNE and len(u.arg[1]) == 1:        # not (iota != index)
    for iota, index in permutations(condition.src[0].src):
      if leaf_of_view(iota).op is Ops.RANGE: return (iota, index, x), partial(gather, u)
  return (condition, x), partial(sum_masked, u)

def leaf_of_view(u: UOp) -> UOp:
  while u.op in (Ops.RESHAPE, Ops.EXPAND, Ops.PERMUTE, Ops.CAST): u = u.src[0]
  return u
def is_zero(u: UOp) -> bool:
  return leaf_of_view(u).op is Ops.CONST and leaf_of_view(u).arg == 0

# ---- dtypes ----------------------------------------------------------------------------------------------------------

def held_dtype(dt: DType) -> np.dtype:
  """The type of a value's array between ops."""
  return np.dtype(np.float32) if dt is dtypes.bfloat16 else numpy_dtype(dt)

def fit(x: Any, dt: DType) -> Array:
  """x as an array of values of dt: floats round, ints wrap."""
  out = np.asarray(x).astype(held_dtype(dt), copy=False)
  return round_to_bfloat16(out) if dt is dtypes.bfloat16 else out

def round_to_bfloat16(x: Array) -> Array:
  """Nearest, ties to even: half a last place is added to the bits and the lower 16 are dropped. A NaN stays one."""
  bits: Array = x.view(np.uint32)
  half = np.uint32(0x7fff) + ((bits >> 16) & 1)
  rounded = np.asarray((bits + half) >> 16, np.uint16)
  return np.where(np.isnan(x), np.float32(np.nan), unpacked(rounded, dtypes.bfloat16))

def packed(x: Array, dt: DType) -> Array:
  """A value as memory has it: bfloat16 as its 16 bits."""
  return (x.view(np.uint32) >> 16).astype(np.uint16) if dt is dtypes.bfloat16 else x
def unpacked(x: Array, dt: DType) -> Array:
  return (x.astype(np.uint32) << 16).view(np.float32) if dt is dtypes.bfloat16 else x

def convert(x: Array, source: DType, target: DType) -> Array:
  """CAST. Floats become integers by truncation: out of range gives the nearest integer in range, NaN gives 0."""
  if target is dtypes.bool: return x != 0
  if not (source.is_floating_point and target.is_int): return x
  exact = np.where(np.isnan(x), 0, x.astype(np.float64))
  low, high = float(target.min), float(target.max)
  whole = exact.clip(low, high).astype(held_dtype(target))
  return np.where(exact >= high, target.max, whole)         # float(2**63 - 1) is 2**63 and does not fit

# ---- elementwise ops -------------------------------------------------------------------------------------------------

def remainder(x: Array, y: Array) -> Array:
  """x - trunc(x/y)*y, and x where y is 0."""
  return np.where(y == 0, x, np.fmod(x, np.where(y == 0, 1, y)))
def quotient(x: Array, y: Array) -> Array:
  """trunc(x/y), and 0 where y is 0: x - remainder is a multiple of y, so rounding downwards changes nothing."""
  return np.where(y == 0, 0, (x - remainder(x, y)) // np.where(y == 0, 1, y))

FUNCTIONS: dict[Ops, Any] = {
  Ops.EXP2: lambda x: np.exp2(x.astype(np.float64)),       # in float64, so that `fit` rounds the exact result once
  Ops.LOG2: lambda x: np.log2(x.astype(np.float64)),
  Ops.SIN: lambda x: np.sin(x.astype(np.float64)),
  Ops.SQRT: np.sqrt, Ops.ADD: np.add, Ops.MUL: np.multiply, Ops.FDIV: np.true_divide, Ops.MAX: np.maximum,
  Ops.IDIV: quotient, Ops.MOD: remainder, Ops.CMPLT: np.less, Ops.CMPNE: np.not_equal, Ops.WHERE: np.where,
  Ops.AND: np.bitwise_and, Ops.OR: np.bitwise_or, Ops.XOR: np.bitwise_xor,
  Ops.SHL: np.left_shift, Ops.SHR: np.right_shift,
}

def elementwise(u: UOp, *arrays: Array) -> Array:
  source = u.src[0].dtype
  if u.op is Ops.CAST: return fit(convert(arrays[0], source, u.dtype), u.dtype)
  if u.op is Ops.BITCAST: return unpacked(packed(arrays[0], source).view(numpy_dtype(u.dtype)), u.dtype)
  return fit(FUNCTIONS[u.op](*arrays), u.dtype)

def varies(x: Array, axis: int) -> bool:
  return x.shape[axis] > 1 and x.strides[axis] != 0

def distinct(axes: Iterable[int], *arrays: Array) -> list[Array]:
  """The arrays with one element left of each of the axes on which all of them repeat."""
  shape = arrays[0].shape
  repeated = [d for d in axes if shape[d] and not any(varies(x, d) for x in arrays)]
  window = window_on(repeated, len(shape))
  return [x[window] for x in arrays]

def window_on(axes: Iterable[int], ndim: int) -> tuple[slice, ...]:
  """What selects the first element along the axes and everything along the others."""
  return tuple([slice(0, 1) if d in axes else slice(None) for d in range(ndim)])

def once(function: Callable[..., Array], *arrays: Array) -> Array:
  """function of arrays of equal shape, computed once, not n times, along an axis on which all of them repeat."""
  shape = arrays[0].shape
  return np.broadcast_to(function(*distinct(range(len(shape)), *arrays)), shape)

# ---- views: a RESHAPE is one where NumPy has one; a PAD never is -----------------------------------------------------

MOVES: dict[Ops, Callable[[Array, UOp], Array]] = {
  Ops.RESHAPE: lambda x, u: x.reshape(u.arg),
  Ops.PERMUTE: lambda x, u: x.transpose(u.arg),
  Ops.EXPAND: lambda x, u: np.broadcast_to(x, u.arg),
  Ops.SHRINK: lambda x, u: x[tuple([slice(low, high) for low, high in u.arg])],
  Ops.FLIP: lambda x, u: np.flip(x, u.arg),
  Ops.PAD: lambda x, u: np.pad(x, u.arg),
  **dict.fromkeys((Ops.CONTIGUOUS, Ops.DETACH, Ops.COPY), lambda x, u: x),
}

# ---- reductions ------------------------------------------------------------------------------------------------------

def reduce_array(u: UOp, x: Array) -> Array:
  """op over the axes; a half type accumulates in float32 and rounds once."""
  op, axes = u.arg
  start = identity(op, u.dtype)
  found = FUNCTIONS[op].reduce(x, axes, wide_dtype(u.dtype), keepdims=True, initial=start)
  return fit(found, u.dtype)

def wide_dtype(dt: DType) -> np.dtype:
  return np.dtype(np.float32) if dt is dtypes.float16 else held_dtype(dt)

def contract(u: UOp, a: Array, b: Array) -> Array:
  """The sum of a*b over the axes. Where a or b repeats it is a product of matrices (batch, m, k) @ (batch, k, n): m are
  the kept axes on which only a varies, n those of b, batch the other kept axes, k the summed ones."""
  k = list(u.arg[1])
  kept = [d for d in range(a.ndim) if d not in k]
  in_a = {d for d in kept if varies(a, d)}
  in_b = {d for d in kept if varies(b, d)}
  m, n = sorted(in_a - in_b), sorted(in_b - in_a)
  if not m and not n: return reduce_array(u, once(lambda x, y: fit(x * y, u.dtype), a, b))
  batch = [d for d in kept if d not in m and d not in n]
  a, b = [x.astype(wide_dtype(u.dtype), copy=False) for x in distinct(batch, a, b)]
  order = batch + m + n + k
  sizes = [a.shape[d] for d in batch + m] + [b.shape[d] for d in n] + [1 for _ in k]
  out = np.matmul(matrices(a, batch, m, k, n), matrices(b, batch, k, n, m))
  return np.broadcast_to(fit(out, u.dtype).reshape(sizes).transpose(argsort(order)), u.shape)

def matrices(x: Array, batch: list[int], rows: list[int], columns: list[int], repeated: list[int]) -> Array:
  """x as (batch.., rows, columns), with the axes on which it repeats dropped."""
  ordered = x[window_on(repeated, x.ndim)].transpose(batch + rows + columns + repeated)
  def sizes(axes: list[int]) -> list[int]:
    return [x.shape[d] for d in axes]
  return ordered.reshape(*sizes(batch), prod(sizes(rows)), prod(sizes(columns)))

def sum_masked(u: UOp, condition: Array, x: Array) -> Array:
  """The sum of x where condition holds: the contraction of both, but only if x is finite, because 0*inf is NaN."""
  if np.isfinite(distinct(range(x.ndim), x)[0]).all():
    return contract(u, once(lambda c: c.astype(x.dtype), condition), x)
  return reduce_array(u, once(np.where, condition, x, np.zeros_like(x)))

def gather(u: UOp, iota: Array, index: Array, x: Array) -> Array:
  """The sum over i of (x[i] where i == index, else 0) is x[index], and 0 where index is outside."""
  axis, n = u.arg[1][0], u.src[0].shape[u.arg[1][0]]
  places = distinct(range(iota.ndim), iota)[0]                           # 0..n-1 along the axis
  counts = places.shape[axis] == n > 0 and np.array_equal(places.reshape(-1), np.arange(n))
  if not counts or varies(index, axis): return sum_masked(u, once(np.equal, iota, index), x)
  index = distinct([axis], index)[0]
  inside = (index >= 0) & (index < n)
  taken = np.take_along_axis(x, np.where(inside, index, 0).astype(np.int64), axis)
  return np.where(inside, taken, np.zeros_like(taken))
