# oracle.py: what operations mean, in float64 with NumPy and under torch's names. `lib` stands where a test says torch:
# lib.exp(x), lib.nn.functional.conv2d(x, w), x.sum(1). An Array keeps the dtype that torch would give and computes
# floats in float64. Written to be plainly right, not fast; what is not written here raises Missing.
from __future__ import annotations
import itertools, math
from typing import Any, Callable, Sequence
import numpy as np

class Missing(AttributeError):
  """An operation that the oracle does not know."""

INTS = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64")
FLOATS = ("float16", "bfloat16", "float32", "float64")
DTYPES = ("bool",) + INTS + FLOATS
ALIASES = {"half": "float16", "float": "float32", "double": "float64",
           "short": "int16", "int": "int32", "long": "int64"}

def is_float(dtype: str) -> bool: return dtype in FLOATS
def storage(dtype: str) -> np.dtype: return np.dtype("float64" if is_float(dtype) else dtype)

# ---- promotion -------------------------------------------------------------------------------------------------------

def category(dtype: str) -> int: return 0 if dtype == "bool" else 2 if is_float(dtype) else 1

def promote(a: str, b: str) -> str:
  """The smallest dtype that holds both; a signed with an unsigned integer needs the next larger signed one."""
  low, high = sorted((a, b), key=DTYPES.index)
  if {a, b} == {"float16", "bfloat16"}: return "float32"
  if low == high or low == "bool" or is_float(high) or low[0] == high[0]: return high
  if high[0] == "i" and storage(high).itemsize > storage(low).itemsize: return high
  return {1: "int16", 2: "int32", 4: "int64"}.get(storage(high).itemsize, "float32")

def scalar_dtype(x: Any) -> str: return "bool" if isinstance(x, bool) else "int64" if isinstance(x, int) else "float32"

def result_dtype(*operands: Any) -> str:
  """Tensors with dimensions decide; a 0-dim tensor, and then a Python number, only if its category is higher."""
  groups = [[x.dtype for x in operands if isinstance(x, Array) and x.value.ndim > 0],
            [x.dtype for x in operands if isinstance(x, Array) and x.value.ndim == 0],
            [scalar_dtype(x) for x in operands if not isinstance(x, Array)]]
  out: str | None = None
  for group in groups:
    if not group: continue
    joint = group[0]
    for dtype in group[1:]: joint = promote(joint, dtype)
    if out is None or category(joint) > category(out): out = joint
  assert out is not None
  return out

def floating(dtype: str) -> str: return dtype if is_float(dtype) else "float32"

# ---- the array -------------------------------------------------------------------------------------------------------

def raw(x: Any) -> Any:
  """The NumPy value of an Array, a number, or a sequence or index that holds Arrays."""
  if isinstance(x, Array): return x.value
  if isinstance(x, (tuple, list)): return type(x)(raw(part) for part in x)
  return x

def sizes(args: tuple) -> tuple[int, ...]:
  """Sizes given as one tuple or as separate integers."""
  return tuple(args[0]) if len(args) == 1 and not isinstance(args[0], int) else args

def spelled(method: Callable) -> Callable:
  """The method with NumPy's spellings of its keywords, axis and keepdims, as torch has them too."""
  names = {"axis": "dim", "keepdims": "keepdim"}
  return lambda self, *args, **named: method(self, *args, **{names.get(k, k): v for k, v in named.items()})

class Array:
  def __init__(self, value: Any, dtype: str):
    self.dtype = dtype
    self.value: np.ndarray = np.asarray(value).astype(storage(dtype), copy=False)

  def __getattr__(self, name: str) -> Any: raise Missing(f"Tensor.{name}")
  def new(self, value: Any) -> "Array": return Array(value, self.dtype)
  def floats(self, value: Any) -> "Array": return Array(value, floating(self.dtype))

  @property
  def shape(self) -> tuple[int, ...]: return self.value.shape
  @property
  def ndim(self) -> int: return self.value.ndim
  @property
  def T(self) -> "Array": return self.new(self.value.T)
  def size(self, dim: int | None = None) -> Any: return self.shape if dim is None else self.shape[dim]
  def dim(self) -> int: return self.ndim
  def numel(self) -> int: return self.value.size
  def numpy(self) -> np.ndarray: return self.value
  def tolist(self) -> Any: return self.value.tolist()
  def item(self) -> Any: return self.value.item()
  def detach(self) -> "Array": return self
  def clone(self) -> "Array": return self.new(self.value.copy())
  def contiguous(self) -> "Array": return self
  def is_floating_point(self) -> bool: return is_float(self.dtype)

  def to(self, dtype: str) -> "Array":
    if is_float(dtype):
      value = self.value.astype("float64")
      if dtype == "float16": value = np.where(np.abs(value) < 65520, value, value * np.inf)
      return Array(value, dtype)
    if dtype == "bool" or not is_float(self.dtype): return Array(self.value.astype(dtype), dtype)
    return Array(np.trunc(self.value).astype("int64").astype(dtype), dtype)
  type = to
  def float(self) -> "Array": return self.to("float32")
  def half(self) -> "Array": return self.to("float16")
  def bfloat16(self) -> "Array": return self.to("bfloat16")
  def double(self) -> "Array": return self.to("float64")
  def long(self) -> "Array": return self.to("int64")
  def int(self) -> "Array": return self.to("int32")
  def bool(self) -> "Array": return self.to("bool")

  # indexing
  def __getitem__(self, index: Any) -> "Array": return self.new(self.value[raw(index)])
  def __setitem__(self, index: Any, value: Any) -> None: self.value[raw(index)] = raw(value)
  def __bool__(self): return self.value.item() != 0
  def __float__(self): return float(self.value)
  def __int__(self): return int(self.value)
  def __len__(self): return len(self.value)
  def index_select(self, dim: int, index: "Array") -> "Array": return self.new(np.take(self.value, index.value, dim))
  def gather(self, dim: int, index: "Array") -> "Array":
    where = np.indices(index.shape)
    where[dim] = index.value
    return self.new(self.value[tuple(where)])
  def scatter(self, dim, index, src): return self.scattered(dim, index, src, np.ndarray.__setitem__)
  def scatter_add(self, dim, index, src): return self.scattered(dim, index, src, np.add.at)
  def scattered(self, dim: int, index: "Array", src: Any, put: Callable) -> "Array":
    where = np.indices(index.shape)
    where[dim] = index.value
    out = self.value.copy()
    value = raw(src)
    put(out, tuple(where), value[tuple(map(slice, index.shape))] if isinstance(src, Array) else value)
    return self.new(out)
  def masked_fill(self, mask, value): return self.new(np.where(mask.value, raw(value), self.value))
  def masked_select(self, mask: "Array") -> "Array":
    both = np.broadcast_arrays(self.value, mask.value)
    return self.new(both[0][both[1]])
  def nonzero(self) -> "Array": return Array(np.argwhere(self.value), "int64")

  # movement
  def reshape(self, *shape: Any) -> "Array": return self.new(self.value.reshape(sizes(shape)))
  view = reshape
  def permute(self, *axes: Any) -> "Array": return self.new(self.value.transpose(sizes(axes)))
  def transpose(self, a: int, b: int) -> "Array": return self.new(np.swapaxes(self.value, a, b))
  def t(self) -> "Array": return self.new(self.value.T)
  def movedim(self, a: Any, b: Any) -> "Array": return self.new(np.moveaxis(self.value, a, b))
  def flip(self, *dims: Any) -> "Array": return self.new(np.flip(self.value, sizes(dims)))
  def unsqueeze(self, dim: int) -> "Array": return self.new(np.expand_dims(self.value, dim))
  def squeeze(self, dim: int | None = None) -> "Array":
    if dim is None: return self.new(self.value.squeeze())
    return self.new(self.value.squeeze(dim)) if self.shape[dim] == 1 else self
  def expand(self, *shape: Any) -> "Array":
    wanted = sizes(shape)
    own = (1,) * (len(wanted) - self.ndim) + self.shape
    return self.new(np.broadcast_to(self.value, [m if n == -1 else n for n, m in zip(wanted, own)]))
  def repeat(self, *times: Any) -> "Array": return self.new(np.tile(self.value, sizes(times)))
  def flatten(self, start_dim: int = 0, end_dim: int = -1) -> "Array":
    if self.ndim == 0: return self.reshape(1)
    end = end_dim % self.ndim + 1
    return self.reshape(*self.shape[:start_dim], math.prod(self.shape[start_dim:end]), *self.shape[end:])
  def unflatten(self, dim: int, shape: Sequence[int]) -> "Array":
    dim = dim % self.ndim
    return self.reshape(*self.shape[:dim], *shape, *self.shape[dim + 1:])
  def split(self, size: Any, dim: int = 0) -> list["Array"]:
    n = self.shape[dim]
    lengths = [min(size, n - i) for i in range(0, n, size)] if isinstance(size, int) else list(size)
    ends = list(itertools.accumulate(lengths))[:-1]
    return [self.new(part) for part in np.split(self.value, ends, dim)]
  def chunk(self, n: int, dim: int = 0) -> list["Array"]: return self.split(-(-self.shape[dim] // n), dim)
  def unbind(self, dim: int = 0) -> list["Array"]: return [self.new(part) for part in np.moveaxis(self.value, dim, 0)]
  def roll(self, shifts: Any, dims: Any = None) -> "Array": return self.new(np.roll(self.value, shifts, dims))
  def tril(self, k: int = 0) -> "Array": return self.new(np.tril(self.value, k))
  def triu(self, k: int = 0) -> "Array": return self.new(np.triu(self.value, k))
  def diag(self, k: int = 0) -> "Array": return self.new(np.diag(self.value, k))
  def trace(self) -> "Array": return self.new(np.trace(self.value))

  # reductions
  @spelled
  def sum(self, dim=None, keepdim=False, dtype=None):
    out = dtype or (self.dtype if is_float(self.dtype) else "int64")
    return Array(self.value.astype(storage(out)).sum(dim, keepdims=keepdim), out)
  @spelled
  def prod(self, dim=None, keepdim=False):
    out = self.dtype if is_float(self.dtype) else "int64"
    return Array(self.value.astype(storage(out)).prod(dim, keepdims=keepdim), out)
  @spelled
  def mean(self, dim=None, keepdim=False): return self.new(self.value.mean(dim, keepdims=keepdim))
  @spelled
  def var(self, dim=None, unbiased=True, keepdim=False, correction=None):
    freedom = (1 if unbiased else 0) if correction is None else correction
    return self.new(self.value.var(dim, ddof=freedom, keepdims=keepdim))
  def std(self, *args, **named): return self.new(np.sqrt(self.var(*args, **named).value))
  def extreme(self, f: Callable, arg: Callable, other: Any, keepdim: Any) -> Any:
    if other is None: return self.new(f(self.value))
    return self.new(f(self.value, other, keepdims=keepdim)), Array(arg(self.value, other, keepdims=keepdim), "int64")
  @spelled
  def max(self, dim=None, keepdim=False): return self.extreme(np.max, np.argmax, dim, keepdim)
  @spelled
  def min(self, dim=None, keepdim=False): return self.extreme(np.min, np.argmin, dim, keepdim)
  @spelled
  def amax(self, dim=None, keepdim=False): return self.new(np.max(self.value, dim, keepdims=keepdim))
  @spelled
  def amin(self, dim=None, keepdim=False): return self.new(np.min(self.value, dim, keepdims=keepdim))
  @spelled
  def argmax(self, dim=None, keepdim=False): return Array(np.argmax(self.value, dim, keepdims=keepdim), "int64")
  @spelled
  def argmin(self, dim=None, keepdim=False): return Array(np.argmin(self.value, dim, keepdims=keepdim), "int64")
  @spelled
  def any(self, dim=None, keepdim=False): return Array(self.value.any(dim, keepdims=keepdim), "bool")
  @spelled
  def all(self, dim=None, keepdim=False): return Array(self.value.all(dim, keepdims=keepdim), "bool")
  @spelled
  def logsumexp(self, dim, keepdim=False):
    top = np.max(self.value, dim, keepdims=True)
    top = np.where(np.isfinite(top), top, 0.0)
    out = np.log(np.exp(self.value - top).sum(dim, keepdims=True)) + top
    return self.new(out if keepdim else out.squeeze(dim))
  @spelled
  def norm(self, p=2, dim=None, keepdim=False):
    return self.new((np.abs(self.value) ** p).sum(dim, keepdims=keepdim) ** (1 / p))
  def cumsum(self, dim): return Array(np.cumsum(self.value, dim), self.dtype if is_float(self.dtype) else "int64")
  def cumprod(self, dim): return Array(np.cumprod(self.value, dim), self.dtype if is_float(self.dtype) else "int64")
  def sort(self, dim=-1, descending=False, stable=True):
    keys = -self.value.astype("float64") if descending else self.value
    order = np.argsort(keys, dim, kind="stable")
    return self.new(np.take_along_axis(self.value, order, dim)), Array(order, "int64")
  def argsort(self, dim=-1, descending=False, stable=True): return self.sort(dim, descending)[1]
  def topk(self, k, dim=-1, largest=True):
    values, order = self.sort(dim, largest)
    first = [slice(None)] * self.ndim
    first[dim] = slice(k)
    return values[tuple(first)], order[tuple(first)]

  # in place
  def put(self, value: Any) -> "Array":
    self.value[...] = raw(value)
    return self
  def add_(self, other: Any) -> "Array": return self.put(self.value + raw(other))
  def mul_(self, other: Any) -> "Array": return self.put(self.value * raw(other))
  def fill_(self, value: Any) -> "Array": return self.put(value)
  def zero_(self) -> "Array": return self.put(0)
  def copy_(self, other: "Array") -> "Array": return self.put(other)
  def scatter_(self, *args: Any) -> "Array": return self.put(self.scatter(*args))
  def scatter_add_(self, *args: Any) -> "Array": return self.put(self.scatter_add(*args))
  @property
  def data(self) -> "Array": return self

  # elementwise with options
  def clamp(self, min: Any = None, max: Any = None) -> "Array":
    bounds = [b for b in (min, max) if b is not None]
    out = np.clip(self.value, raw(min), raw(max))
    return Array(out, result_dtype(self, *bounds))
  clip = clamp
  def round(self) -> "Array": return self.new(np.round(self.value))
  def softmax(self, dim: int) -> "Array":
    shifted = np.exp(self.value - self.value.max(dim, keepdims=True)) if self.value.size else self.value
    return self.new(shifted / shifted.sum(dim, keepdims=True))
  def log_softmax(self, dim: int) -> "Array": return self.new(self.value - self.logsumexp(dim, keepdim=True).value)
  def where(self, condition: "Array", other: Any) -> "Array": return where(condition, self, other)
  def matmul(self, other: "Array") -> "Array": return Array(self.value @ other.value, result_dtype(self, other))
  mm = bmm = dot = mv = __matmul__ = matmul
  def outer(self, other: "Array") -> "Array": return Array(np.outer(self.value, other.value), result_dtype(self, other))

# ---- elementwise operations as tables --------------------------------------------------------------------------------

def erf(x: np.ndarray) -> np.ndarray: return np.vectorize(math.erf, otypes=[float])(x)
def sigmoid(x: np.ndarray) -> np.ndarray: return 1 / (1 + np.exp(-x))

SAME_DTYPE = {
  "neg": np.negative,
  "abs": np.abs,
  "sign": lambda x: np.nan_to_num(np.sign(x)),
  "floor": np.floor,
  "ceil": np.ceil,
  "trunc": np.trunc,
  "square": np.square,
  "relu": lambda x: np.maximum(x, 0)}
TO_FLOAT = {
  "exp": np.exp,
  "exp2": np.exp2,
  "log": np.log,
  "log2": np.log2,
  "log10": np.log10,
  "log1p": np.log1p,
  "expm1": np.expm1,
  "sin": np.sin,
  "cos": np.cos,
  "tan": np.tan,
  "tanh": np.tanh,
  "sqrt": np.sqrt,
  "rsqrt": lambda x: 1 / np.sqrt(x),
  "reciprocal": lambda x: 1 / x,
  "sigmoid": sigmoid,
  "erf": erf}
TO_BOOL = {"isnan": np.isnan, "isinf": np.isinf, "isfinite": np.isfinite, "logical_not": np.logical_not}
ARITHMETIC = {"add": np.add, "sub": np.subtract, "mul": np.multiply, "floordiv": np.floor_divide, "mod": np.remainder,
              "pow": np.power, "and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor,
              "lshift": np.left_shift, "rshift": np.right_shift}
COMPARISONS = {
  "lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal, "eq": np.equal, "ne": np.not_equal}

def operand(x: Any, dtype: str) -> Any:
  return raw(x).astype(storage(dtype)) if isinstance(x, Array) else storage(dtype).type(x)

def binary(f: Callable, a: Any, b: Any, out: str | None = None) -> Array:
  """f in the dtype of both; an integer division by zero raises."""
  dtype = result_dtype(a, b)
  x, y = operand(a, dtype), operand(b, dtype)
  if f in (np.floor_divide, np.remainder) and not is_float(dtype) and np.any(np.equal(y, 0)): raise ZeroDivisionError
  return Array(f(x, y), out or dtype)

def divide(a: Any, b: Any) -> Array:
  dtype = floating(result_dtype(a, b))
  return Array(np.divide(operand(a, dtype), operand(b, dtype)), dtype)

def install_operations() -> None:
  """Gives Array one method for each row of the tables."""
  for name, f in SAME_DTYPE.items(): setattr(Array, name, lambda self, f=f: self.new(f(self.value)))
  for name, f in TO_FLOAT.items(): setattr(Array, name, lambda self, f=f: self.floats(f(self.value.astype("float64"))))
  for name, f in TO_BOOL.items(): setattr(Array, name, lambda self, f=f: Array(f(self.value), "bool"))
  for name, f in ARITHMETIC.items():
    setattr(Array, f"__{name}__", lambda self, other, f=f: binary(f, self, other))
    setattr(Array, f"__r{name}__", lambda self, other, f=f: binary(f, other, self))
  for name, f in COMPARISONS.items():
    for method in (name, f"__{name}__"): setattr(Array, method, lambda self, other, f=f: binary(f, self, other, "bool"))
  for name in ("add", "sub", "mul", "pow"): setattr(Array, name, getattr(Array, f"__{name}__"))
  for name in ("add", "sub", "mul"):
    setattr(Array, f"__i{name}__", lambda self, other, f=ARITHMETIC[name]: self.put(binary(f, self, other)))
  setattr(Array, "__itruediv__", lambda self, other: self.put(divide(self, other)))
  setattr(Array, "__truediv__", lambda self, other: divide(self, other))
  setattr(Array, "__rtruediv__", lambda self, other: divide(other, self))
  setattr(Array, "div", lambda self, other: divide(self, other))
  setattr(Array, "__neg__", lambda self: self.new(-self.value))
  setattr(Array, "__abs__", lambda self: self.new(np.abs(self.value)))
  setattr(Array, "__invert__", lambda self: self.new(np.invert(self.value)))
  for name, f in (("minimum", np.minimum), ("maximum", np.maximum)):
    setattr(Array, name, lambda self, other, f=f: binary(f, self, other))

install_operations()

# ---- functions of the module -----------------------------------------------------------------------------------------

def joined(arrays: Sequence[Array]) -> str:
  out = arrays[0].dtype
  for a in arrays[1:]: out = promote(out, a.dtype)
  return out

def cat(arrays: Sequence[Array], dim: int = 0) -> Array:
  return Array(np.concatenate(raw(list(arrays)), dim), joined(arrays))
def stack(arrays: Sequence[Array], dim: int = 0) -> Array:
  return Array(np.stack(raw(list(arrays)), dim), joined(arrays))
def where(condition: Array, yes: Any, no: Any) -> Array:
  return Array(np.where(condition.value, raw(yes), raw(no)), result_dtype(yes, no))
def einsum(text: str, *arrays: Array) -> Array: return Array(np.einsum(text, *raw(list(arrays))), joined(arrays))

def tensor(data: Any, dtype: str | None = None, requires_grad: bool = False) -> Array:
  value = np.asarray(data)
  inferred = "float32" if value.dtype == np.float64 and not isinstance(data, np.ndarray) else str(value.dtype)
  return Array(value, inferred).to(dtype or inferred)
def filled(value: Any, shape: tuple, dtype: str | None) -> Array:
  return Array(np.full(sizes(shape), value), dtype or scalar_dtype(value))
def zeros(*shape: Any, dtype: str | None = None) -> Array: return filled(0.0, shape, dtype)
def ones(*shape: Any, dtype: str | None = None) -> Array: return filled(1.0, shape, dtype)
def full(shape: Any, value: Any, dtype: str | None = None) -> Array: return filled(value, (shape,), dtype)
def zeros_like(x: Array, dtype: str | None = None) -> Array: return filled(0, (x.shape,), dtype or x.dtype)
def ones_like(x: Array, dtype: str | None = None) -> Array: return filled(1, (x.shape,), dtype or x.dtype)
def full_like(x: Array, value: Any, dtype: str | None = None) -> Array:
  return filled(value, (x.shape,), dtype or x.dtype)
def eye(n: int, m: int | None = None, dtype: str | None = None) -> Array: return Array(np.eye(n, m), dtype or "float32")
def linspace(start: float, stop: float, n: int, dtype: str | None = None) -> Array:
  return Array(np.linspace(start, stop, n), dtype or "float32")
def arange(*bounds: Any, dtype: str | None = None) -> Array:
  inferred = "int64" if all(isinstance(b, int) for b in bounds) else "float32"
  return Array(np.arange(*bounds), dtype or inferred)

# ---- nn.functional ---------------------------------------------------------------------------------------------------

def pair(x: Any, n: int) -> tuple[int, ...]: return (x,) * n if isinstance(x, int) else tuple(x)

def gelu(x: Array, approximate: str = "none") -> Array:
  v = x.value
  if approximate == "tanh": return x.new(0.5 * v * (1 + np.tanh(math.sqrt(2 / math.pi) * (v + 0.044715 * v ** 3))))
  return x.new(0.5 * v * (1 + erf(v / math.sqrt(2))))
def silu(x: Array) -> Array: return x.new(x.value * sigmoid(x.value))
def leaky_relu(x: Array, negative_slope: float = 0.01) -> Array:
  return x.new(np.where(x.value > 0, x.value, negative_slope * x.value))
def elu(x: Array, alpha: float = 1.0) -> Array: return x.new(np.where(x.value > 0, x.value, alpha * np.expm1(x.value)))
def softplus(x: Array, beta: float = 1.0) -> Array: return x.new(np.logaddexp(0, beta * x.value) / beta)
def dropout(x: Array, p: float = 0.5, training: bool = True) -> Array:
  if training and p > 0: raise Missing("a random operation")
  return x

def averaged(value: np.ndarray, reduction: str) -> np.ndarray:
  return {"mean": np.mean, "sum": np.sum, "none": lambda v: v}[reduction](value)
def mse_loss(x: Array, y: Array, reduction: str = "mean") -> Array:
  return x.new(averaged((x.value - y.value) ** 2, reduction))
def binary_cross_entropy(x: Array, y: Array, reduction: str = "mean") -> Array:
  p, t = x.value, y.value
  return x.new(averaged(-(t * np.log(p) + (1 - t) * np.log(1 - p)), reduction))
def binary_cross_entropy_with_logits(x: Array, y: Array, reduction: str = "mean") -> Array:
  return x.new(averaged(np.logaddexp(0, x.value) - y.value * x.value, reduction))

def nll_loss(x: Array, target: Array, weight: Array | None = None, ignore_index: int = -100,
             reduction: str = "mean") -> Array:
  """x: (N, C, ..) log-probabilities; target: (N, ..) classes, or () and (C,)."""
  return smoothed_loss(x, target, weight, ignore_index, reduction, 0.0)

def smoothed_loss(logp: Array, target: Array, weight: Array | None, ignore_index: int, reduction: str,
                  smoothing: float) -> Array:
  rows = np.moveaxis(logp.value, 1, -1).reshape(-1, logp.shape[1]) if logp.ndim > 1 else logp.value[None]
  classes = target.value.reshape(-1)
  kept = classes != ignore_index
  scale = np.ones(rows.shape[1]) if weight is None else weight.value
  safe = np.where(kept, classes, 0)
  hit = -rows[np.arange(len(safe)), safe] * scale[safe]
  losses = np.where(kept, (1 - smoothing) * hit + smoothing * (-rows * scale).sum(1) / rows.shape[1], 0.0)
  if reduction == "mean": return logp.new(losses.sum() / np.where(kept, scale[safe], 0.0).sum())
  return logp.new(losses.sum() if reduction == "sum" else losses.reshape(target.shape))

def cross_entropy(x: Array, target: Array, weight: Array | None = None, ignore_index: int = -100,
                  reduction: str = "mean", label_smoothing: float = 0.0) -> Array:
  logp = x.log_softmax(1 if x.ndim > 1 else 0)
  if not is_float(target.dtype): return smoothed_loss(logp, target, weight, ignore_index, reduction, label_smoothing)
  if weight is not None: raise Missing("cross_entropy with weights and probabilities")
  classes = x.shape[1] if x.ndim > 1 else x.shape[0]
  goal = target.value * (1 - label_smoothing) + label_smoothing / classes
  losses = -(goal * logp.value).sum(1 if x.ndim > 1 else 0)
  return x.new(averaged(losses, reduction))

def one_hot(x: Array, num_classes: int = -1) -> Array:
  n = num_classes if num_classes > 0 else int(x.value.max()) + 1
  return Array(np.eye(n)[x.value], "int64")
def embedding(index: Array, weight: Array) -> Array: return weight.new(weight.value[index.value])
def linear(x: Array, weight: Array, bias: Array | None = None) -> Array:
  return x.new(x.value @ weight.value.T + (0 if bias is None else bias.value))

def normalised(x: np.ndarray, axes: tuple[int, ...], eps: float) -> np.ndarray:
  return (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + eps)
def affine(x: np.ndarray, weight: Array | None, bias: Array | None, shape: Sequence[int]) -> np.ndarray:
  if weight is not None: x = x * weight.value.reshape(shape)
  return x if bias is None else x + bias.value.reshape(shape)
def layer_norm(x: Array, shape: Sequence[int], weight: Array | None = None, bias: Array | None = None,
               eps: float = 1e-5) -> Array:
  return x.new(affine(normalised(x.value, tuple(range(-len(shape), 0)), eps), weight, bias, shape))
def rms_norm(x: Array, shape: Sequence[int], weight: Array | None = None, eps: float | None = None) -> Array:
  axes = tuple(range(-len(shape), 0))
  small = 2.0 ** -23 if eps is None else eps
  return x.new(affine(x.value / np.sqrt((x.value ** 2).mean(axes, keepdims=True) + small), weight, None, shape))
def group_norm(x: Array, groups: int, weight: Array | None = None, bias: Array | None = None,
               eps: float = 1e-5) -> Array:
  split = x.value.reshape(x.shape[0], groups, -1)
  return x.new(affine(normalised(split, (2,), eps).reshape(x.shape), weight, bias, (1, -1) + (1,) * (x.ndim - 2)))
def batch_norm(x: Array, mean: Array | None, var: Array | None, weight: Array | None = None, bias: Array | None = None,
               training: bool = False, momentum: float = 0.1, eps: float = 1e-5) -> Array:
  per_channel = (1, -1) + (1,) * (x.ndim - 2)
  if training or mean is None or var is None: scaled = normalised(x.value, (0,) + tuple(range(2, x.ndim)), eps)
  else: scaled = (x.value - mean.value.reshape(per_channel)) / np.sqrt(var.value.reshape(per_channel) + eps)
  return x.new(affine(scaled, weight, bias, per_channel))

def windows(x: np.ndarray, kernel: tuple[int, ...], stride: tuple[int, ...], dilation: tuple[int, ...]) -> np.ndarray:
  """(.., *spatial) -> (.., *outputs, *kernel)."""
  n = len(kernel)
  reach = [d * (k - 1) + 1 for k, d in zip(kernel, dilation)]
  view = np.lib.stride_tricks.sliding_window_view(x, reach, tuple(range(-n, 0)))
  strided = tuple(slice(None, None, s) for s in stride)
  dilated = tuple(slice(None, None, d) for d in dilation)
  return view[(..., *strided, *dilated)]

def zero_padded(x: np.ndarray, padding: tuple[int, ...], value: float = 0.0) -> np.ndarray:
  return np.pad(x, [(0, 0)] * (x.ndim - len(padding)) + [(p, p) for p in padding], constant_values=value)

def convolve(n: int) -> Callable:
  def conv(x: Array, weight: Array, bias: Array | None = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1,
           groups: int = 1) -> Array:
    kernel = weight.shape[2:]
    if padding == "same": raise Missing("padding by name")
    view = windows(zero_padded(x.value, pair(padding, n)), kernel, pair(stride, n), pair(dilation, n))
    letters = "hij"[:n]
    text = f"bc{letters}{letters.upper()},oc{letters.upper()}->bo{letters}"
    parts = zip(np.split(view, groups, 1), np.split(weight.value, groups, 0))
    out = np.concatenate([np.einsum(text, v, w) for v, w in parts], 1)
    return x.new(out if bias is None else out + bias.value.reshape((1, -1) + (1,) * n))
  return conv

def conv_transpose2d(x: Array, weight: Array, bias: Array | None = None, stride: Any = 1, padding: Any = 0,
                     output_padding: Any = 0, groups: int = 1, dilation: Any = 1) -> Array:
  s, p, o, d = pair(stride, 2), pair(padding, 2), pair(output_padding, 2), pair(dilation, 2)
  kernel = weight.shape[2:]
  full = [(n - 1) * s[i] + d[i] * (kernel[i] - 1) + 1 + o[i] for i, n in enumerate(x.shape[2:])]
  out = np.zeros((x.shape[0], weight.shape[1] * groups, *full))
  for i, j in np.ndindex(*kernel):
    parts = zip(np.split(x.value, groups, 1), np.split(weight.value[:, :, i, j], groups, 0))
    term = np.concatenate([np.einsum("bchw,co->bohw", v, w) for v, w in parts], 1)
    rows = slice(i * d[0], i * d[0] + (x.shape[2] - 1) * s[0] + 1, s[0])
    columns = slice(j * d[1], j * d[1] + (x.shape[3] - 1) * s[1] + 1, s[1])
    out[:, :, rows, columns] += term
  out = out[:, :, p[0]:full[0] - p[0], p[1]:full[1] - p[1]]
  return x.new(out if bias is None else out + bias.value.reshape(1, -1, 1, 1))

def max_pool2d(x: Array, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1) -> Array:
  k = pair(kernel_size, 2)
  padded = zero_padded(x.value, pair(padding, 2), -np.inf)
  return x.new(windows(padded, k, pair(stride or k, 2), pair(dilation, 2)).max((-2, -1)))
def avg_pool2d(x: Array, kernel_size: Any, stride: Any = None, padding: Any = 0) -> Array:
  k = pair(kernel_size, 2)
  return x.new(windows(zero_padded(x.value, pair(padding, 2)), k, pair(stride or k, 2), (1, 1)).mean((-2, -1)))

def pad(x: Array, widths: Sequence[int], mode: str = "constant", value: float = 0.0) -> Array:
  """widths: (last low, last high, next to last low, ..); negative ones cut."""
  if mode != "constant": raise Missing(f"pad with mode {mode}")
  out = x.value
  for i in range(len(widths) // 2):
    low, high = widths[2 * i], widths[2 * i + 1]
    axis = out.ndim - 1 - i
    out = np.take(out, range(max(0, -low), out.shape[axis] - max(0, -high)), axis)
    sides = [(0, 0)] * out.ndim
    sides[axis] = (max(0, low), max(0, high))
    out = np.pad(out, sides, constant_values=value)
  return x.new(out)

def interpolate(x: Array, size: Any = None, scale_factor: Any = None, mode: str = "nearest") -> Array:
  if mode != "nearest": raise Missing(f"interpolate with mode {mode}")
  spatial = x.shape[2:]
  target = pair(size, len(spatial)) if size is not None else tuple(int(n * scale_factor) for n in spatial)
  out = x.value
  for i, (n, m) in enumerate(zip(spatial, target)): out = np.take(out, np.arange(m) * n // m, 2 + i)
  return x.new(out)

def scaled_dot_product_attention(q: Array, k: Array, v: Array, attn_mask: Array | None = None,
                                 dropout_p: float = 0.0, is_causal: bool = False, scale: float | None = None,
                                 enable_gqa: bool = False) -> Array:
  keys, values = k.value, v.value
  if enable_gqa: keys, values = (np.repeat(a, q.shape[-3] // a.shape[-3], -3) for a in (keys, values))
  scores = q.value @ np.swapaxes(keys, -1, -2) * (q.shape[-1] ** -0.5 if scale is None else scale)
  if is_causal: scores = np.where(np.tri(*scores.shape[-2:], dtype=bool), scores, -np.inf)
  if attn_mask is not None:
    scores = np.where(attn_mask.value, scores, -np.inf) if attn_mask.dtype == "bool" else scores + attn_mask.value
  return q.new(q.new(scores).softmax(-1).value @ values)

# ---- the namespace ---------------------------------------------------------------------------------------------------

class Library:
  """Functions by name; what is not written as a function is the method of its first argument."""
  def __init__(self, functions: dict[str, Any]): self.functions = functions
  def __getattr__(self, name: str) -> Any:
    if name in self.functions: return self.functions[name]
    if name in DTYPES: return name
    if name in ALIASES: return ALIASES[name]
    method = getattr(Array, name, None)
    if method is None or name.startswith("_"): raise Missing(name)
    return lambda x, *args, **named: method(x, *args, **named)

functional = Library(
  {
    f.__name__: f for f in (
      gelu, silu, leaky_relu, elu, softplus, dropout, mse_loss, binary_cross_entropy, binary_cross_entropy_with_logits,
      nll_loss, cross_entropy, one_hot, embedding, linear, layer_norm, rms_norm, group_norm, batch_norm,
      conv_transpose2d, max_pool2d, avg_pool2d, pad, interpolate, scaled_dot_product_attention)} | {
    "conv1d": convolve(1), "conv2d": convolve(2)})
lib = Library({f.__name__: f for f in (
  cat, stack, where, einsum, tensor, zeros, ones, full, zeros_like, ones_like, full_like, eye, linspace, arange)}
  | {"nn": Library({"functional": functional})})
