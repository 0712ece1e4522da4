# graph_eval.py: the value of a pure graph, by NumPy, one call per node, each rounded to the node's dtype: what the
# tests of the ops layer compare with. In: a node and the values of its leaves. A bfloat16 is kept as an equal float32.
from __future__ import annotations
import warnings
import numpy as np
from picograd.dtype import DType, dtypes
from picograd.ops.ops import INFO, Ops
from picograd.ops.uop import UOp, toposort

NUMPY_NAMES = {"bfloat16": "float32", "index": "int64"}

def numpy_type(dt: DType) -> np.dtype: return np.dtype(NUMPY_NAMES.get(dt.name, dt.name))

def round_to(value, dt: DType) -> np.ndarray:
  value = np.asarray(value).astype(numpy_type(dt))
  return bfloat16_values(value) if dt.name == "bfloat16" else value

def bfloat16_values(x: np.ndarray) -> np.ndarray:
  bits = x.view(np.uint32).astype(np.uint64)
  rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16 << 16).astype(np.uint32).view(np.float32)
  return np.where(np.isnan(x), np.float32(np.nan), rounded)

def two_sum(a, b):
  s = a + b
  t = s - a
  return s, (a - (s - t)) + (b - t)

def two_product(a, b):
  def split(x):
    high = x * 134217729.0
    high = high - (high - x)
    return high, x - high
  p = a * b
  (ah, al), (bh, bl) = split(a), split(b)
  return p, ((ah * bh - p) + ah * bl + al * bh) + al * bl

def fma(x, y, z, dt: DType):
  """x*y + z, rounded once. float32: the product is exact in float64, the sum is rounded to odd, so that the second
  rounding is right. float64: by error-free transformations, right up to a tie while nothing over- or underflows."""
  if dt.name == "float64": return fma64(x, y, z)
  product = x.astype(np.float64) * y.astype(np.float64)
  total, error = two_sum(product, z.astype(np.float64))
  bits = total.view(np.int64)
  inexact = np.isfinite(total) & np.isfinite(error) & (error != 0) & ((bits & 1) == 0)
  toward = np.where((error > 0) == (total > 0), 1, -1)
  odd = np.where(inexact, bits + toward, bits).view(np.float64)
  return odd.astype(np.float32)

def fma64(x, y, z):
  p, e = two_product(x, y)
  s, t = two_sum(p, z)
  plain = x * y + z
  exact = s + (t + e)
  return np.where(np.isfinite(exact), exact, plain)

def integers(op: Ops):
  """A division, element by element in Python integers by the op's own definition, wrapped to the dtype."""
  def compute(x, y):
    mask = (1 << x.dtype.itemsize * 8) - 1
    wrapped = np.vectorize(lambda a, b: INFO[op].meaning(int(a), int(b)) & mask, otypes=[np.uint64])(x, y)
    return wrapped.astype(f"uint{x.dtype.itemsize * 8}").view(x.dtype)
  return compute

ELEMENTWISE = {
  Ops.EXP2: np.exp2, Ops.LOG2: np.log2, Ops.SIN: np.sin, Ops.SQRT: np.sqrt, Ops.ADD: np.add, Ops.MUL: np.multiply,
  Ops.FDIV: np.divide, Ops.IDIV: integers(Ops.IDIV), Ops.MOD: integers(Ops.MOD), Ops.MAX: np.maximum,
  Ops.CMPLT: np.less, Ops.CMPNE: np.not_equal, Ops.AND: np.bitwise_and, Ops.OR: np.bitwise_or, Ops.XOR: np.bitwise_xor,
  Ops.SHL: np.left_shift, Ops.SHR: np.right_shift, Ops.WHERE: np.where,
}

REDUCERS = {Ops.ADD: np.sum, Ops.MUL: np.prod, Ops.MAX: np.max}

def bitcast(x: np.ndarray, source: DType, dt: DType) -> np.ndarray:
  if source.name == "bfloat16": x = (x.view(np.uint32) >> 16).astype(np.uint16)
  if dt.name == "bfloat16": return (x.astype(np.uint32) << 16).view(np.float32)
  return x.view(numpy_type(dt))

def evaluate(root: UOp, leaves: dict[UOp, np.ndarray]) -> np.ndarray:
  """The value of root. A leaf may be any node; its value has the leaf's shape or, below the tensor form, any shape."""
  with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    values = dict(leaves)
    for u in toposort((root,), stop=lambda u: u in leaves):
      if u not in values and u.dtype is not dtypes.void: values[u] = value_of(u, values)
    return values[root]

def value_of(u: UOp, values: dict[UOp, np.ndarray]) -> np.ndarray:
  src = [values.get(s) for s in u.src]
  if u.op is Ops.CONST: return np.asarray(u.arg, numpy_type(u.dtype))
  if u.op is Ops.RANGE: return np.arange(u.src[0].arg, dtype=numpy_type(u.dtype))
  if u.op is Ops.CAST: return round_to(src[0], u.dtype)
  if u.op is Ops.BITCAST: return bitcast(src[0], u.src[0].dtype, u.dtype)
  if u.op is Ops.MULACC: return fma(*src, u.dtype) if u.dtype.kind == "f" else src[0] * src[1] + src[2]
  if u.op in ELEMENTWISE: return round_to(ELEMENTWISE[u.op](*src), u.dtype)
  if u.op is Ops.REDUCE: return round_to(REDUCERS[u.arg[0]](src[0], axis=u.arg[1], keepdims=True), u.dtype)
  if u.op is Ops.AFTER: return assigned(u, values)
  return moved(u, src[0])

def moved(u: UOp, x: np.ndarray) -> np.ndarray:
  if u.op is Ops.RESHAPE: return x.reshape(u.arg)
  if u.op is Ops.PERMUTE: return x.transpose(u.arg)
  if u.op is Ops.EXPAND: return np.broadcast_to(x, u.arg)
  if u.op is Ops.PAD: return np.pad(x, u.arg)
  if u.op is Ops.SHRINK: return x[tuple(slice(lo, hi) for lo, hi in u.arg)]
  if u.op is Ops.FLIP: return np.flip(x, u.arg)
  if u.op in (Ops.CONTIGUOUS, Ops.DETACH, Ops.COPY): return x
  if u.op is Ops.STACK: return x
  raise NotImplementedError(f"{u.op} is not a pure op")

def assigned(u: UOp, values: dict[UOp, np.ndarray]) -> np.ndarray:
  """The buffer's elements after the stores: a view of their numbers says which they write."""
  result = None
  for store in u.src[1:]:
    base = store.src[0]
    chain = []
    while base.op not in (Ops.BUFFER, Ops.AFTER):
      chain.append(base)
      base = base.src[0]
    result = values[base].copy() if result is None else result
    numbers = np.arange(result.size).reshape(result.shape)
    for move in reversed(chain): numbers = moved(move, numbers)
    result.reshape(-1)[numbers] = values[store.src[1]]
  return values[u.src[0]] if result is None else result
