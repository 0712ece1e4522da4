# tensor.py: the user's object, with torch's names and semantics. A Tensor is a view of a Storage, whose value is a UOp
# graph: every method only builds nodes; item(), numpy(), print and realize() compute. In: Python and NumPy data. Out:
# the same, and gradients. Below: storage.py (memory and assignment), formulas.py (arithmetic), indexing.py (selection).
from __future__ import annotations
import functools, inspect, itertools, math, weakref
from typing import TYPE_CHECKING, Any, Callable, Iterable, Iterator, NamedTuple, Sequence
import numpy as np
from picograd import formulas as fm, indexing, storage as st
from picograd.common import (Default, GradMode, Size, axes_of, axis_of, device, device_name, either_spelling,
                             enable_grad, get_default_dtype, inference_mode, is_grad_enabled, no_grad, number_dtype,
                             reshaped_strides, set_default_dtype, set_grad_enabled, set_mode, sizes_of, strides_of)
from picograd.dtype import DType, dtypes, promote
from picograd.einsum import einsum
from picograd.formulas import Formula, accumulator, convert, stretch
from picograd.helpers import DEVICE, EAGER, prod
from picograd.ops.gradient import gradient
from picograd.ops.ops import Ops
from picograd.ops.shape import broadcast
from picograd.ops.uop import UOp, toposort
from picograd.printing import array_text
from picograd.runtime.device import buffer_from_host, numpy_dtype
from picograd.storage import Steps, Storage

__all__ = ["Tensor", "device", "einsum", "enable_grad", "get_default_dtype", "inference_mode", "is_grad_enabled",
           "no_grad", "set_default_dtype", "set_grad_enabled"]

# ---- results ---------------------------------------------------------------------------------------------------------

def result(uop: UOp, *inputs: "Tensor", device: str | None = None) -> "Tensor":
  """A new tensor of this value. It requires grad if operations are recorded and an input requires grad."""
  history = uop.dtype.is_floating_point and any(t.requires_grad for t in inputs)
  if history and not GradMode.recording: uop, history = fm.detach(uop), False
  if device is None: device = inputs[0].storage.device if inputs else DEVICE.value
  return Tensor.on(Storage(uop, device, history), (), None)

def common_device(tensors: Sequence["Tensor"]) -> str:
  """Where the result of an operation on tensors lives: scalars join any device."""
  homes = list(dict.fromkeys(t.storage.device for t in tensors if t.ndim)) or [tensors[0].storage.device]
  if len(homes) > 1:
    raise RuntimeError("Expected all tensors to be on the same device, but found at least two devices, " +
                       " and ".join(device(h) for h in homes))
  return homes[0]

CATEGORY = {"b": 0, "u": 1, "i": 1, "f": 2}

def result_type(*operands: Any) -> DType:
  """torch's promotion: tensors with dimensions first; a scalar tensor, then a number, only raises the category."""
  tensors = [x for x in operands if isinstance(x, Tensor)]
  groups = [[t.dtype for t in tensors if t.ndim], [t.dtype for t in tensors if not t.ndim],
            [number_dtype(x) for x in operands if not isinstance(x, Tensor)]]
  found: DType | None = None
  for group in groups:
    if not group: continue
    dtype = functools.reduce(promote, group)
    if found is None: found = dtype
    elif CATEGORY[dtype.kind] > CATEGORY[found.kind]: found = promote(found, dtype)
  assert found is not None, "at least one operand"
  return found

def elementwise(formula: Formula, dtype: DType, *operands: Any) -> "Tensor":
  """formula of the operands, each converted to dtype and stretched to the common shape."""
  tensors = [x for x in operands if isinstance(x, Tensor)]
  home = common_device(tensors)
  shape = broadcast(*(t.uop.shape for t in tensors))
  uops = [stretch(convert(moved_to(x, home), dtype) if isinstance(x, Tensor) else UOp.const(dtype, x), shape)
          for x in operands]
  return result(formula(*uops), *tensors, device=home)

def moved_to(t: "Tensor", home: str) -> UOp:
  return t.uop if t.storage.device == home else UOp(Ops.COPY, t.dtype, (t.uop,), home)

def is_operand(x: Any) -> bool: return isinstance(x, (Tensor, bool, int, float, np.generic, np.ndarray))
def operand(x: Any) -> Any:
  """What an operator accepts, as a Tensor or a Python number."""
  if isinstance(x, (Tensor, bool, int, float)): return x
  if isinstance(x, np.generic): return x.item()
  return as_tensor(x)

def binary(formula: Formula, x: Any, y: Any) -> "Tensor":
  x, y = operand(x), operand(y)
  return elementwise(formula, result_type(x, y), x, y)
def binary_float(formula: Formula, x: Any, y: Any) -> "Tensor":
  """Integers count as floats."""
  x, y = operand(x), operand(y)
  dtype = result_type(x, y)
  return elementwise(formula, dtype if dtype.is_floating_point else Default.dtype, x, y)
def binary_check_zero(formula: Formula, x: Any, y: Any) -> "Tensor":
  """Division, of which integers have none by zero."""
  x, y = operand(x), operand(y)
  dtype = result_type(x, y)
  if not dtype.is_floating_point: check_divisor(y)
  return elementwise(formula, dtype, x, y)

def check_divisor(y: Any) -> None:
  """ZeroDivisionError now if y's value is known, else with the next realize()."""
  error = ZeroDivisionError("integer division or modulo by zero")
  if not isinstance(y, Tensor): known = y == 0
  elif y.storage.memory is not None: known = bool((y.numpy() == 0).any())
  else:
    if not is_constant(y.uop): st.check_later(y.uop.eq(0), error)
    known = is_constant(y.uop) and y.numel() > 0 and y.item() == 0
  if known: raise error

def is_constant(u: UOp) -> bool:
  """Whether u is one number, repeated."""
  while u.op in (Ops.RESHAPE, Ops.EXPAND): u = u.src[0]
  return u.op is Ops.CONST

class Extremes(NamedTuple):
  """The result of a reduction that also says where: max, min, sort, topk."""
  values: "Tensor"
  indices: "Tensor"

# ---- Tensor ----------------------------------------------------------------------------------------------------------

class Tensor:
  """A view of a storage. grad: the gradient that backward() has added up so far."""
  storage: Storage
  steps: Steps
  known_strides: tuple[int, ...] | None      # None: contiguous
  grad: "Tensor | None" = None
  requires = False                           # requires grad on its own account: a leaf, or a view of one
  leaf = False
  detached = False                           # reads the storage without its history
  looked: tuple[UOp, UOp] | None = None      # (storage's value, what this view sees of it)
  __array_priority__ = 1000

  if TYPE_CHECKING:                          # what the tables below this class add
    def __getattr__(self, name: str) -> Any: ...
    def operator_with(self, other: Any) -> "Tensor": ...
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = operator_with
    __floordiv__ = __rfloordiv__ = __mod__ = __rmod__ = __pow__ = __rpow__ = __matmul__ = __rmatmul__ = operator_with
    __and__ = __or__ = __xor__ = __lshift__ = __rshift__ = operator_with
    __rand__ = __ror__ = __rxor__ = __lt__ = __gt__ = __le__ = __ge__ = operator_with
    def __eq__(self, other: Any) -> Any: ...
    def __ne__(self, other: Any) -> Any: ...

  wanting: "weakref.WeakValueDictionary[int, Tensor]" = weakref.WeakValueDictionary()   # who gets a .grad in backward()

  def __init__(self, *data: Any, dtype: DType | None = None, device: Any = None, requires_grad: bool = False):
    """Shares the memory of a Tensor, names a UOp's value, or copies host data; several ints are the sizes of zeros."""
    source = data[0] if len(data) == 1 else np.zeros(data, np.float32) if data else []
    if isinstance(source, UOp): self.attach(Storage(source, source.device or device_name(device)), (), None)
    else:
      if not isinstance(source, Tensor): source = tensor(source, dtype=dtype or Default.dtype, device=device)
      self.attach(source.storage, source.steps, source.known_strides)
      self.detached = source.detached
    if requires_grad: self.requires_grad_()

  def attach(self, storage: Storage, steps: Steps, strides: tuple[int, ...] | None) -> None:
    self.storage, self.steps, self.known_strides = storage, steps, strides
    if len(storage.users) >= 8: storage.users = [user for user in storage.users if user() is not None]
    storage.users.append(weakref.ref(self))

  @classmethod
  def on(cls, storage: Storage, steps: Steps, strides: tuple[int, ...] | None) -> "Tensor":
    t = Tensor.__new__(Tensor)
    t.attach(storage, steps, strides)
    return t

  def see(self, steps: Sequence[st.Step], strides: tuple[int, ...] | None) -> "Tensor":
    """A view of this view."""
    view = Tensor.on(self.storage, self.steps + tuple(steps), strides)
    mine = self.requires_grad
    view.requires = mine and GradMode.recording
    view.detached = self.detached or mine and not GradMode.recording
    return view

  # ---- what it is ----------------------------------------------------------------------------------------------------

  @property
  def uop(self) -> UOp:
    """The node of my value."""
    source = self.storage.uop if self.requires_grad else self.storage.plain()
    if not self.steps: return source
    if self.looked is None or self.looked[0] is not source: self.looked = (source, st.look(source, self.steps))
    return self.looked[1]
  @property
  def shape(self) -> Size: return Size(self.uop.shape)
  @property
  def dtype(self) -> DType: return self.storage.uop.dtype
  @property
  def device(self) -> device: return device(self.storage.device)
  @property
  def ndim(self) -> int: return len(self.uop.shape)
  @property
  def is_leaf(self) -> bool: return self.leaf or not self.requires_grad
  @property
  def is_cuda(self) -> bool: return self.device.type == "cuda"
  @property
  def itemsize(self) -> int: return self.dtype.itemsize
  @property
  def nbytes(self) -> int: return self.numel() * self.itemsize

  def size(self, dim: int | None = None) -> Any:
    return self.shape if dim is None else self.shape[axis_of(dim, self.ndim)]
  def dim(self) -> int: return self.ndim
  def numel(self) -> int: return prod(self.uop.shape)
  nelement = numel
  ndimension = dim
  def element_size(self) -> int: return self.dtype.itemsize
  def is_floating_point(self) -> bool: return self.dtype.is_floating_point
  def stride(self, dim: int | None = None) -> Any:
    strides = self.known_strides if self.known_strides is not None else strides_of(self.uop.shape)
    return strides if dim is None else strides[axis_of(dim, self.ndim)]
  def is_contiguous(self) -> bool:
    wanted = strides_of(self.uop.shape)
    return all(n == 1 or s == w for n, s, w in zip(self.uop.shape, self.stride(), wanted))

  # ---- values on the host --------------------------------------------------------------------------------------------

  def realize(self) -> "Tensor":
    """Puts my value into memory now."""
    st.realize([self.storage])
    return self
  def host(self) -> np.ndarray: return st.host_copy(self.storage, self.steps, self.dtype)
  def numpy(self) -> np.ndarray:
    """A copy as a NumPy array; bfloat16, which NumPy lacks, as float32."""
    if self.requires_grad and GradMode.recording:
      raise RuntimeError("Can't call numpy() on Tensor that requires grad. Use tensor.detach().numpy() instead.")
    return np.array(self.host())
  def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
    return self.numpy().astype(dtype or self.host().dtype)
  def item(self) -> Any:
    if self.numel() != 1: raise RuntimeError(f"a Tensor with {self.numel()} elements cannot be converted to Scalar")
    return self.host().reshape(-1)[0].item()
  def tolist(self) -> Any: return self.host().tolist()
  def __float__(self) -> float: return float(self.item())
  def __int__(self) -> int: return int(self.item())
  def __index__(self) -> int:
    if self.dtype.is_floating_point:
      raise TypeError("only integer tensors of a single element can be converted to an index")
    return int(self.item())
  def __bool__(self) -> bool:
    if self.numel() > 1: raise RuntimeError("Boolean value of Tensor with more than one value is ambiguous")
    return bool(self.item()) if self.numel() else False
  def __len__(self) -> int:
    if not self.ndim: raise TypeError("len() of a 0-d tensor")
    return self.uop.shape[0]
  def __iter__(self) -> "Iterator[Tensor]":
    if not self.ndim: raise TypeError("iteration over a 0-d tensor")
    return iter(self.unbind(0))
  def __contains__(self, x: Any) -> bool: return bool((self == x).any())
  def __hash__(self) -> int: return id(self)
  def __format__(self, spec: str) -> str:
    return format(self.item(), spec) if not self.ndim else format(repr(self), spec)
  def __repr__(self) -> str:
    data = self.host()
    text = array_text(data, len("tensor(")) if data.size else "[]"
    notes = [text]
    if not data.size and self.ndim != 1: notes.append(f"size={tuple(self.shape)}")
    if self.dtype not in (Default.dtype, dtypes.int64, dtypes.bool): notes.append(f"dtype=picograd.{self.dtype.name}")
    if self.storage.device != DEVICE.value: notes.append(f"device='{self.device}'")
    if self.requires_grad: notes.append("requires_grad=True")
    return f"tensor({', '.join(notes)})"

  # ---- dtype, device, memory -----------------------------------------------------------------------------------------

  def cast(self, dtype: DType) -> "Tensor":
    return self if dtype is self.dtype else result(convert(self.uop, dtype), self)
  def to(self, *args: Any, dtype: DType | None = None, device: Any = None, copy: bool = False, **_: Any) -> "Tensor":
    """In another dtype, on another device, or like another tensor."""
    for arg in args:
      if isinstance(arg, DType): dtype = arg
      elif isinstance(arg, Tensor): dtype, device = arg.dtype, arg.device
      elif isinstance(arg, (str, int)) and not isinstance(arg, bool): device = arg
    moved = self.cast(dtype or self.dtype)
    name = device_name(device) if device is not None else self.storage.device
    if name != moved.storage.device: return result(UOp(Ops.COPY, moved.dtype, (moved.uop,), name), moved, device=name)
    return moved.clone() if copy and moved is self else moved
  def type(self, dtype: DType | None = None) -> Any:
    return self.cast(dtype) if dtype is not None else f"picograd.{self.dtype.name}"
  def type_as(self, other: "Tensor") -> "Tensor": return self.to(other.dtype)
  def cpu(self) -> "Tensor": return self.to(device="cpu")
  def cuda(self, index: int | None = None) -> "Tensor": return self.to(device=device("cuda", index))
  def bitcast(self, dtype: DType) -> "Tensor": return result(self.uop.bitcast(dtype), self)
  def contiguous(self) -> "Tensor":
    return self if self.is_contiguous() else result(UOp(Ops.CONTIGUOUS, self.dtype, (self.uop,)), self)
  def clone(self) -> "Tensor":
    """A copy, made when either is overwritten; the gradient of the copy is the original's."""
    return result(UOp(Ops.CONTIGUOUS, self.dtype, (self.uop,)) if self.requires_grad else self.uop, self)
  def pin_memory(self) -> "Tensor": return self
  def __deepcopy__(self, memo: dict) -> "Tensor":
    if not self.is_leaf: raise RuntimeError("Only Tensors created explicitly by the user support the deepcopy protocol")
    copy = type(self).__new__(type(self))
    copy.attach(Storage(self.detach().uop, self.storage.device), (), None)
    copy.__dict__.update({k: v for k, v in self.__dict__.items()
                          if k not in Tensor.__annotations__ and k not in OWN_STATE})
    if self.requires: copy.requires_grad_()
    memo[id(self)] = copy
    return copy
  def __reduce__(self) -> Any:
    return (rebuild, (type(self), self.detach().numpy(), self.dtype.name, str(self.device), self.requires_grad))

  # ---- autograd ------------------------------------------------------------------------------------------------------

  @property
  def requires_grad(self) -> Any: return self.requires or (self.storage.history and not self.detached)
  @requires_grad.setter
  def requires_grad(self, value: Any) -> None: self.requires_grad_(value)

  def requires_grad_(self, requires_grad: Any = True) -> "Tensor":
    if requires_grad == self.requires_grad: return self
    if not requires_grad:
      if not self.leaf: raise RuntimeError("you can only change requires_grad flags of leaf variables.")
      self.requires = self.leaf = False
      return self
    if not self.dtype.is_floating_point:
      raise RuntimeError(f"only Tensors of floating point dtype can require gradients, not {self.dtype.name}")
    self.become_leaf()
    return self

  def become_leaf(self) -> None:
    """From now on my node is one that no other tensor's graph contains."""
    if self.storage.history or not st.sees_all(self.steps):
      self.steps += ((Ops.DETACH, None), (Ops.CONTIGUOUS, next(st.unique)))
      self.storage.leaf = True
    else: self.storage.claim_leaf()
    self.requires = self.leaf = True
    Tensor.wanting[id(self)] = self

  def retain_grad(self) -> None:
    """backward() shall fill my .grad although I am not a leaf."""
    if not self.requires_grad: raise RuntimeError("can't retain_grad on Tensor that has requires_grad=False")
    Tensor.wanting[id(self)] = self

  def detach(self) -> "Tensor":
    """The same memory without history."""
    view = Tensor.on(self.storage, self.steps, self.known_strides)
    view.detached = True
    return view
  def detach_(self) -> "Tensor":
    self.requires, self.leaf, self.detached = False, False, True
    return self
  @property
  def data(self) -> "Tensor": return self.detach()
  @data.setter
  def data(self, value: "Tensor") -> None:
    """I become a view of value's memory, and stay a leaf if I was one."""
    was_leaf, self.requires = self.leaf, False
    self.attach(value.storage, value.steps, value.known_strides)
    self.detached, self.looked = True, None
    if was_leaf: self.become_leaf()
  @property
  def grad_fn(self) -> Any: return None if self.is_leaf else self.uop

  def backward(self, gradient: "Tensor | None" = None, retain_graph: Any = None, create_graph: Any = False,
               inputs: "Tensor | Sequence[Tensor] | None" = None) -> None:
    """Adds d self / d leaf to the .grad of every leaf that requires grad (or of inputs)."""
    if inputs is None: inputs = list(Tensor.wanting.values())
    wanted = [t for t in ([inputs] if isinstance(inputs, Tensor) else inputs) if t.requires_grad]
    for t, g in zip(wanted, derivatives(self, gradient, wanted)):
      if g is None: continue
      new = gradient_tensor(g, t, create_graph)
      with set_mode(create_graph): t.grad = new if t.grad is None else t.grad + new

  # ---- in place ------------------------------------------------------------------------------------------------------

  def assign(self, value: Any) -> "Tensor":
    """My elements become value's, converted and stretched. RuntimeError for a leaf whose gradient is recorded."""
    if GradMode.recording and self.requires_grad and (self.leaf or self.storage.leaf and not self.storage.history):
      which = "a leaf Variable" if self.leaf else "a view of a leaf Variable"
      raise RuntimeError(f"{which} that requires grad is being used in an in-place operation.")
    if not isinstance(value, Tensor): value = full((), value, dtype=self.dtype, device=self.device)
    shape = self.uop.shape
    uop = value.uop
    while len(uop.shape) > len(shape) and uop.shape[0] == 1: uop = uop.reshape(uop.shape[1:])
    if broadcast(shape, uop.shape) != shape:
      raise RuntimeError(f"shape mismatch: a value of shape {tuple(value.shape)} does not broadcast to {tuple(shape)}")
    uop = stretch(convert(moved_to(value, self.storage.device) if uop is value.uop else uop, self.dtype), shape)
    if GradMode.recording and (value.requires_grad or self.requires_grad) and self.dtype.is_floating_point:
      before = self.storage.uop if self.requires_grad else self.storage.plain()
      self.storage.set(st.merged(before, self.steps, uop))
      self.storage.history, self.detached = True, False
    else: self.storage.write(self.steps, uop if not value.requires_grad else fm.detach(uop))
    return self

  def update(self, value: "Tensor") -> "Tensor":
    """assign the result of my own arithmetic, which must not need a larger kind of number."""
    if CATEGORY[value.dtype.kind] > CATEGORY[self.dtype.kind]:
      raise RuntimeError(f"result type {value.dtype.name} can't be cast to the desired output type {self.dtype.name}")
    if value.shape != self.shape:
      raise RuntimeError(f"output with shape {list(self.shape)} doesn't match the broadcast shape {list(value.shape)}")
    return self.assign(value)

  def copy_(self, src: "Tensor", non_blocking: Any = False) -> "Tensor": return self.assign(operand(src))
  def fill_(self, value: Any) -> "Tensor": return self.assign(value)
  def zero_(self) -> "Tensor": return self.assign(0)
  # ---- arithmetic ----------------------------------------------------------------------------------------------------

  def map(self, formula: Formula) -> "Tensor": return result(formula(self.uop), self)
  def map_float(self, formula: Formula) -> "Tensor":
    """formula of me as floats."""
    return result(formula(self.uop if self.dtype.is_floating_point else self.uop.cast(Default.dtype)), self)
  def map_flat(self, formula: Formula) -> "Tensor":
    """formula of me, whose derivative is zero wherever it exists."""
    if not self.requires_grad: return self.map(formula)
    x = self.uop
    return result(fm.detach(formula(x)) + fm.never(x).where(x, 0), self)

  def add(self, other: Any, alpha: Any = 1) -> "Tensor":
    return binary(fm.add, self, other if isinstance(alpha, int) and alpha == 1 else operand(other) * alpha)
  def sub(self, other: Any, alpha: Any = 1) -> "Tensor":
    return binary(subtract, self, other if isinstance(alpha, int) and alpha == 1 else operand(other) * alpha)
  def mul(self, other: Any) -> "Tensor": return binary(fm.multiply, self, other)
  def div(self, other: Any, rounding_mode: str | None = None) -> "Tensor":
    if rounding_mode == "floor": return self // other
    if rounding_mode == "trunc": return binary_check_zero(truncated_quotient, self, other)
    return binary_float(UOp.__truediv__, self, other)
  subtract, multiply, divide, true_divide = sub, mul, div, div
  def floor_divide(self, other: Any) -> "Tensor": return binary_check_zero(fm.floor_divide, self, other)
  def remainder(self, other: Any) -> "Tensor": return binary_check_zero(fm.remainder, self, other)
  def fmod(self, other: Any) -> "Tensor": return binary_check_zero(fm.fmod, self, other)
  def neg(self) -> "Tensor": return self.map(fm.negate)
  def pow(self, exponent: Any) -> "Tensor": return power(self, exponent)
  def square(self) -> "Tensor": return self * self
  def maximum(self, other: Any) -> "Tensor": return binary(fm.maximum, self, other)
  def minimum(self, other: Any) -> "Tensor": return binary(fm.minimum, self, other)
  def atan2(self, other: Any) -> "Tensor": return binary_float(fm.atan2, self, other)
  def lerp(self, end: "Tensor", weight: Any) -> "Tensor": return self + (end - self) * weight

  def addcmul(self, x: Any, y: Any, value: Any = 1) -> "Tensor": return self + x * y * value
  def addcdiv(self, x: Any, y: Any, value: Any = 1) -> "Tensor": return self + x / y * value
  def __neg__(self) -> "Tensor": return self.neg()
  def __pos__(self) -> "Tensor": return self
  def __abs__(self) -> "Tensor": return self.abs()

  # ---- comparison and logic ------------------------------------------------------------------------------------------

  def eq(self, other: Any) -> "Tensor": return binary(UOp.eq, self, other)
  def ne(self, other: Any) -> "Tensor": return binary(UOp.ne, self, other)
  def lt(self, other: Any) -> "Tensor": return binary(UOp.__lt__, self, other)
  def gt(self, other: Any) -> "Tensor": return binary(UOp.__gt__, self, other)
  def le(self, other: Any) -> "Tensor": return binary(fm.less_equal, self, other)
  def ge(self, other: Any) -> "Tensor": return binary(lambda x, y: fm.less_equal(y, x), self, other)
  def logical_not(self) -> "Tensor": return self.map(lambda x: convert(x, dtypes.bool).not_())
  def logical_and(self, other: Any) -> "Tensor": return binary(fm.logical(Ops.AND), self, other)
  def logical_or(self, other: Any) -> "Tensor": return binary(fm.logical(Ops.OR), self, other)
  def logical_xor(self, other: Any) -> "Tensor": return binary(fm.logical(Ops.XOR), self, other)
  def bitwise_and(self, other: Any) -> "Tensor": return binary_bits(Ops.AND, self, other)
  def bitwise_or(self, other: Any) -> "Tensor": return binary_bits(Ops.OR, self, other)
  def bitwise_xor(self, other: Any) -> "Tensor": return binary_bits(Ops.XOR, self, other)
  def bitwise_left_shift(self, other: Any) -> "Tensor": return binary_bits(Ops.SHL, self, other)
  def bitwise_right_shift(self, other: Any) -> "Tensor": return binary_bits(Ops.SHR, self, other)
  def __invert__(self) -> "Tensor": return self.bitwise_not()
  def bitwise_not(self) -> "Tensor":
    if self.dtype.is_floating_point:
      raise TypeError(f"~ (bitwise_not) needs an integer or bool tensor, not {self.dtype.name}")
    return self.map(UOp.not_ if self.dtype is dtypes.bool else lambda x: x ^ -1)
  def isnan(self) -> "Tensor": return self.map(fm.is_nan)
  def isinf(self) -> "Tensor": return self.map(fm.is_inf)
  def isfinite(self) -> "Tensor": return self.map(lambda x: (fm.is_nan(x) | fm.is_inf(x)).not_())
  def isclose(self, other: "Tensor", rtol: Any = 1e-5, atol: Any = 1e-8, equal_nan: Any = False) -> "Tensor":
    near = ((self - other).abs() <= other.abs() * rtol + atol) & self.isfinite() & other.isfinite() | (self == other)
    return near | (self.isnan() & other.isnan()) if equal_nan else near
  def allclose(self, other: "Tensor", rtol: Any = 1e-5, atol: Any = 1e-8, equal_nan: Any = False) -> Any:
    return bool(self.isclose(other, rtol, atol, equal_nan).all())
  def equal(self, other: "Tensor") -> Any: return self.shape == other.shape and bool((self == other).all())

  # ---- one number from one -------------------------------------------------------------------------------------------

  def relu(self) -> "Tensor": return self.map(fm.relu)
  def abs(self) -> "Tensor": return self.map(fm.absolute)
  absolute = abs
  def round(self, decimals: Any = 0) -> "Tensor":
    """To the nearest, ties to even."""
    if decimals: return (self * 10.0**decimals).round() / 10.0**decimals
    return self.map_flat(fm.round_half_even)
  def frac(self) -> "Tensor": return self - self.trunc()
  def clamp(self, min: Any = None, max: Any = None) -> "Tensor":
    """Limited to [min, max]; the gradient passes where the limits are not exceeded."""
    if min is None and max is None: raise RuntimeError("clamp: at least one of min or max must not be None")
    low = self if min is None else binary(lambda x, y: (x < y).where(y, x), self, min)
    return low if max is None else binary(lambda x, y: (y < x).where(y, x), low, max)
  clip = clamp
  def nan_to_num(self, nan: Any = 0.0) -> "Tensor": return self.masked_fill(self.isnan(), nan)

  # ---- selection by condition ----------------------------------------------------------------------------------------

  def where(self, condition: "Tensor", other: Any) -> "Tensor": return where(condition, self, other)
  def masked_fill(self, mask: "Tensor", value: Any) -> "Tensor":
    filled = where(mask, value, self)
    return filled if filled.dtype is self.dtype else filled.cast(self.dtype)
  def masked_select(self, mask: "Tensor") -> "Tensor":
    shape = broadcast(self.uop.shape, mask.uop.shape)
    return self.expand(shape)[mask.expand(shape)]
  def nonzero(self, as_tuple: Any = False) -> Any:
    """Where my elements are not zero; the number of them has to be known, so this computes."""
    columns = [tensor(column, device=self.device) for column in np.nonzero(self.host())]
    if as_tuple: return tuple(columns)
    return stack(columns, 1) if columns else zeros(1 if self else 0, 0, dtype=dtypes.int64)
  def unique(self, sorted: Any = True, return_inverse: Any = False, return_counts: Any = False) -> Any:
    found = np.unique(self.host(), return_inverse=return_inverse, return_counts=return_counts)
    if not (return_inverse or return_counts): return tensor(found, dtype=self.dtype, device=self.device)
    inverse = [found[1].reshape(self.shape)] if return_inverse else []
    counts = [found[-1]] if return_counts else []
    return tuple(tensor(part, device=self.device) for part in (found[0], *inverse, *counts))

  # ---- movement: views -----------------------------------------------------------------------------------------------

  def new_shape(self, sizes: Sequence[Any]) -> tuple[int, ...]:
    """Sizes with -1 filled in."""
    shape = sizes_of(sizes)
    if shape.count(-1) > 1: raise RuntimeError("only one dimension can be inferred")
    known = -prod(shape) if -1 in shape else prod(shape)
    count = self.numel()
    if -1 in shape and known and count % known == 0: shape = tuple(count // known if n == -1 else n for n in shape)
    if prod(shape) != count or any(n < 0 for n in shape):
      raise RuntimeError(f"shape '{list(shape)}' is invalid for input of size {count}: this tensor's shape is "
                         f"{list(self.shape)}")
    return shape
  def view(self, *sizes: Any) -> "Tensor":
    """The same memory in another shape, or the same bits in another dtype."""
    if len(sizes) == 1 and isinstance(sizes[0], DType): return self.bitcast(sizes[0])
    shape = self.new_shape(sizes)
    strides = reshaped_strides(self.uop.shape, self.stride(), shape)
    if strides is None:
      raise RuntimeError("view size is not compatible with input tensor's size and stride (at least one dimension "
                         "spans across two contiguous subspaces). Use .reshape(...) instead.")
    return self if shape == self.uop.shape else self.see([(Ops.RESHAPE, shape)], strides)
  def reshape(self, *sizes: Any) -> "Tensor":
    shape = self.new_shape(sizes)
    if reshaped_strides(self.uop.shape, self.stride(), shape) is not None: return self.view(shape)
    return result(self.uop.reshape(shape), self)
  def view_as(self, other: "Tensor") -> "Tensor": return self.view(other.shape)
  def reshape_as(self, other: "Tensor") -> "Tensor": return self.reshape(other.shape)
  def permute(self, *dims: Any) -> "Tensor":
    axes = tuple(axis_of(d, self.ndim) for d in sizes_of(dims))
    if sorted(axes) != list(range(self.ndim)):
      raise RuntimeError(f"permute(dims={axes}) of a tensor of shape {list(self.shape)}: each dimension must appear "
                         "once")
    return self.see([(Ops.PERMUTE, axes)], tuple(self.stride(a) for a in axes))
  def transpose(self, dim0: Any, dim1: Any) -> "Tensor":
    axes = list(range(self.ndim))
    if not axes: return self
    a, b = axis_of(dim0, self.ndim), axis_of(dim1, self.ndim)
    axes[a], axes[b] = axes[b], axes[a]
    return self.permute(axes)
  swapaxes = swapdims = transpose
  def t(self) -> "Tensor":
    if self.ndim > 2: raise RuntimeError(f"t() expects a tensor with <= 2 dimensions, but self is {self.ndim}D")
    return self.permute(tuple(reversed(range(self.ndim))))
  @property
  def T(self) -> "Tensor": return self.permute(tuple(reversed(range(self.ndim))))
  @property
  def mT(self) -> "Tensor": return self.transpose(-1, -2)
  def movedim(self, source: Any, destination: Any) -> "Tensor":
    sources = [axis_of(d, self.ndim) for d in ([source] if isinstance(source, int) else source)]
    targets = [axis_of(d, self.ndim) for d in ([destination] if isinstance(destination, int) else destination)]
    rest = iter(d for d in range(self.ndim) if d not in sources)
    return self.permute([sources[targets.index(d)] if d in targets else next(rest) for d in range(self.ndim)])
  moveaxis = movedim
  def squeeze(self, dim: Any = None) -> "Tensor":
    axes = {a for a in axes_of(dim, self.ndim) if self.uop.shape[a] == 1}
    kept = [d for d in range(self.ndim) if d not in axes]
    if not axes: return self
    return self.see([(Ops.RESHAPE, tuple(self.uop.shape[d] for d in kept))], tuple(self.stride(d) for d in kept))
  def unsqueeze(self, dim: Any) -> "Tensor":
    at = axis_of(dim, self.ndim + 1)
    shape, strides = list(self.uop.shape), list(self.stride())
    shape.insert(at, 1)
    strides.insert(at, 1 if at == self.ndim else strides[at] * self.uop.shape[at])
    return self.see([(Ops.RESHAPE, tuple(shape))], tuple(strides))
  def expand(self, *sizes: Any) -> "Tensor":
    """Repeated along dimensions of size 1 without copying; -1 keeps a size."""
    wanted = sizes_of(sizes)
    missing = len(wanted) - self.ndim
    ones = (1,) * missing + self.uop.shape
    shape = tuple(n if m == -1 else m for n, m in zip(ones, wanted))
    if missing < 0 or -1 in wanted[:missing] or any(n not in (1, m) for n, m in zip(ones, shape)):
      raise RuntimeError(f"The expanded size of the tensor {list(wanted)} must match the existing size "
                         f"{list(self.shape)} at every dimension that is not 1")
    kept = [s if n == m else 0 for s, n, m in zip(self.stride(), self.uop.shape, shape[missing:])]
    strides = (0,) * missing + tuple(kept)
    steps = [(Ops.RESHAPE, ones)] if missing else []
    return self.see([*steps, (Ops.EXPAND, shape)], strides) if shape != self.uop.shape else self
  def expand_as(self, other: "Tensor") -> "Tensor": return self.expand(other.shape)
  def broadcast_to(self, size: Any) -> "Tensor": return self.expand(size)
  def flatten(self, start_dim: Any = 0, end_dim: Any = -1) -> "Tensor":
    first, last = axis_of(start_dim, self.ndim), axis_of(end_dim, self.ndim)
    shape = self.uop.shape
    return self.reshape(shape[:first] + (prod(shape[first:last + 1]),) + shape[last + 1:])
  def ravel(self) -> "Tensor": return self.reshape(-1)
  def unflatten(self, dim: Any, sizes: Sequence[Any]) -> "Tensor":
    at, shape = axis_of(dim, self.ndim), self.uop.shape
    inner = list(sizes)
    if -1 in inner: inner[inner.index(-1)] = shape[at] // -prod(inner)
    return self.reshape(shape[:at] + tuple(inner) + shape[at + 1:])
  def narrow(self, dim: Any, start: Any, length: Any) -> "Tensor":
    at = axis_of(dim, self.ndim)
    low = int_of(start) % max(1, self.uop.shape[at]) if int_of(start) < 0 else int_of(start)
    if low + length > self.uop.shape[at]:
      raise RuntimeError(f"start ({low}) + length ({length}) exceeds dimension size ({self.uop.shape[at]}).")
    bounds = tuple((low, low + length) if d == at else (0, n) for d, n in enumerate(self.uop.shape))
    return self.see([(Ops.SHRINK, bounds)], tuple(self.stride()))
  def select(self, dim: Any, index: Any) -> "Tensor":
    return self[(slice(None),) * axis_of(dim, self.ndim) + (index,)]
  def unbind(self, dim: Any = 0) -> "tuple[Tensor, ...]":
    return tuple(self.select(dim, i) for i in range(self.size(dim)))
  def split(self, split_size_or_sections: Any, dim: Any = 0) -> "tuple[Tensor, ...]":
    """Parts of one size (the last may be smaller), or of the given sizes."""
    n, sizes = self.size(dim), split_size_or_sections
    if isinstance(sizes, int): sizes = [min(sizes, n - low) for low in range(0, max(n, 1), sizes)]
    if sum(sizes) != n:
      raise RuntimeError(f"split_with_sizes expects split_sizes to sum exactly to {n} (input tensor's size at "
                         f"dimension {dim}), but got split_sizes={list(sizes)}")
    starts = itertools.accumulate(sizes, initial=0)
    return tuple(self.narrow(dim, low, size) for low, size in zip(starts, sizes))
  def chunk(self, chunks: Any, dim: Any = 0) -> "tuple[Tensor, ...]":
    return self.split(max(1, -(-self.size(dim) // chunks)), dim)
  def diagonal(self, offset: Any = 0, dim1: Any = 0, dim2: Any = 1) -> "Tensor":
    """The elements [i, i+offset] of the last two of dims, as the last dimension."""
    x = self.movedim((dim1, dim2), (-2, -1))
    rows, columns = x.shape[-2:]
    low, high = max(0, -offset), max(0, offset)
    n = max(0, min(rows - low, columns - high))
    x = x[..., low:low + n, high:high + n]
    on = stretch(indexing.identity_mask(n, n), x.uop.shape)
    return result(on.where(x.uop, 0).reduce(Ops.ADD, (x.ndim - 1,)).reshape(x.uop.shape[:-1]), x)

  # ---- movement: copies ----------------------------------------------------------------------------------------------

  def flip(self, *sizes: Any, dims: Any = None) -> "Tensor":
    axes = sizes_of(sizes if dims is None else (dims,))
    return result(self.uop.flip(axes_of(axes, self.ndim) if axes else ()), self)
  def repeat(self, *sizes: Any) -> "Tensor":
    counts = sizes_of(sizes)
    shape = (1,) * (len(counts) - self.ndim) + self.uop.shape
    if len(counts) < self.ndim:
      raise RuntimeError("Number of dimensions of repeat dims can not be smaller than number of dimensions of tensor")
    pairs = tuple(m for n in shape for m in (1, n))
    grown = tuple(m for n, count in zip(shape, counts) for m in (count, n))
    return result(self.uop.reshape(pairs).expand(grown).reshape(tuple(n * c for n, c in zip(shape, counts))), self)
  def tile(self, *sizes: Any) -> "Tensor":
    counts = sizes_of(sizes)
    return self.repeat((1,) * (self.ndim - len(counts)) + counts)
  def repeat_interleave(self, repeats: Any, dim: Any = None) -> "Tensor":
    if dim is None: return self.flatten().repeat_interleave(repeats, 0)
    at, shape = axis_of(dim, self.ndim), self.uop.shape
    if isinstance(repeats, Tensor):
      return self.index_select(at, tensor(np.repeat(np.arange(shape[at]), repeats.host()), device=self.device))
    before, after = shape[:at + 1], shape[at + 1:]
    grown = self.uop.reshape(before + (1,) + after).expand(before + (repeats,) + after)
    return result(grown.reshape(shape[:at] + (shape[at] * repeats,) + shape[at + 1:]), self)
  def roll(self, shifts: Any, dims: Any = None) -> "Tensor":
    if dims is None: return self.flatten().roll(shifts, 0).reshape(self.shape)
    out = self
    for shift, dim in zip([shifts] if isinstance(shifts, int) else shifts, [dims] if isinstance(dims, int) else dims):
      n = self.size(dim)
      low = -shift % n if n else 0
      if low: out = cat([out.narrow(dim, low, n - low), out.narrow(dim, 0, low)], dim)
    return out
  def pad(self, widths: Sequence[tuple[Any, Any]], value: Any = 0) -> "Tensor":
    """(before, after) for each dimension; a negative width cuts off."""
    return result(fm.pad_with(self.uop, widths, value), self)
  def unfold(self, dimension: Any, size: Any, step: Any) -> "Tensor":
    """Windows of `size` elements, every `step`, as a new last dimension."""
    at = axis_of(dimension, self.ndim)
    count = (self.uop.shape[at] - size) // step + 1
    starts = arange(count, device=self.device).unsqueeze(1) * step + arange(size, device=self.device)
    return self.index_select(at, starts.flatten()).unflatten(at, (count, size)).movedim(at + 1, -1)
  def tril(self, diagonal: Any = 0) -> "Tensor": return self.map(lambda x: fm.triangle(x, diagonal).where(x, 0))
  def triu(self, diagonal: Any = 0) -> "Tensor": return self.map(lambda x: fm.triangle(x, diagonal - 1).where(0, x))

  # ---- indexing ------------------------------------------------------------------------------------------------------

  def __getitem__(self, index: Any) -> "Tensor":
    entries = index_entries(self, index)
    view = self.basic(entries)
    at, tensors = tensor_entries(entries)
    return view.gather_at(at, tensors) if tensors else view

  def basic(self, entries: Sequence[Any]) -> "Tensor":
    """The view that ints, slices and None select; an index tensor keeps its whole dimension."""
    plain = [slice(None) if isinstance(e, Tensor) else e for e in entries]
    found = indexing.basic_index(self.uop.shape, self.stride(), plain)
    view = self.see(found.steps, tuple(found.strides))
    return view.flip(found.flips) if found.flips else view

  def front(self, at: Sequence[int]) -> tuple[int, ...]:
    """The permutation that brings these dimensions to the front."""
    return tuple(at) + tuple(d for d in range(self.ndim) if d not in at)

  def gather_at(self, at: Sequence[int], tensors: Sequence["Tensor"]) -> "Tensor":
    """Elements at the positions that tensors name in the dimensions `at`."""
    index = joint_index(self, at, tensors)
    rank = len(index.shape)
    rows = indexing.flat_rows(self.uop.permute(self.front(at)), len(at))
    out = result(indexing.take(rows, index), self, *tensors, device=self.storage.device)
    adjacent = list(at) == list(range(at[0], at[0] + len(at)))
    return out.movedim(tuple(range(rank)), tuple(range(at[0], at[0] + rank))) if adjacent and at[0] and rank else out

  def __setitem__(self, index: Any, value: Any) -> None:
    value = operand(value)
    if isinstance(value, Tensor) and value.numel() == 1: value = value.reshape(())
    if isinstance(index, Tensor) and index.dtype is dtypes.bool and not (isinstance(value, Tensor) and value.ndim):
      mask = index.reshape(tuple(index.shape) + (1,) * (self.ndim - index.ndim))
      self.assign(where(mask, value, self).cast(self.dtype))
      return
    entries = index_entries(self, index)
    at, tensors = tensor_entries(entries)
    flips = [e for e in entries if isinstance(e, slice) and e.step is not None and e.step < 0]
    if flips: raise NotImplementedError("assignment to a slice with a negative step: flip the value instead")
    view = self.basic(entries)
    view.assign(view.put_at(at, tensors, value) if tensors else value)
    if view.storage.history: self.detached = False

  def put_at(self, at: Sequence[int], tensors: Sequence["Tensor"], value: Any) -> "Tensor":
    """Myself with the elements that index tensors name replaced by value."""
    index = joint_index(self, at, tensors)
    rank, order = len(index.shape), self.front(at)
    moved = self.uop.permute(order)
    adjacent = list(at) == list(range(at[0], at[0] + len(at)))
    rest = moved.shape[len(at):]
    before = at[0] if adjacent else 0
    shape = rest[:before] + index.shape + rest[before:]
    if not isinstance(value, Tensor): value = full((), value, dtype=self.dtype, device=self.device)
    while value.ndim > len(shape) and value.shape[0] == 1: value = value.squeeze(0)
    spread = value.cast(self.dtype).expand(shape)
    if rank: spread = spread.movedim(tuple(range(before, before + rank)), tuple(range(rank)))
    values = convert(stretch(spread.uop, index.shape + rest), self.dtype).reshape((prod(index.shape),) + rest)
    put = indexing.put(indexing.flat_rows(moved, len(at)), index.reshape((prod(index.shape),)), values)
    return result(put.reshape(moved.shape).permute(st.argsort(order)), self, value, device=self.storage.device)

  def index_select(self, dim: Any, index: "Tensor") -> "Tensor":
    return self.gather_at([axis_of(dim, self.ndim)], [index])
  def gather(self, dim: Any, index: "Tensor") -> "Tensor":
    """out[.., k, ..] = self[.., index[.., k, ..], ..]"""
    at = axis_of(dim, self.ndim)
    place = checked_index(index, self.uop.shape[at], at)
    x = self.uop.shrink(tuple((0, n if d == at else m) for d, (n, m) in enumerate(zip(self.uop.shape, place.shape))))
    out = indexing.take_along(last_axis(x, at), last_axis(place, at))
    return result(axis_back(out, at), self)
  def scatter(self, dim: Any, index: "Tensor", src: Any = None, value: Any = None,
              reduce: str | None = None) -> "Tensor":
    """Myself with [.., index[.., k, ..], ..] replaced by src[.., k, ..]; reduce='add' or 'multiply' combines them."""
    return scattered(self, dim, index, src if src is not None else value, SCATTER[reduce])
  def scatter_(self, dim: Any, index: "Tensor", src: Any = None, value: Any = None,
               reduce: str | None = None) -> "Tensor":
    return self.assign(self.scatter(dim, index, src if src is not None else value, reduce=reduce))
  def scatter_add(self, dim: Any, index: "Tensor", src: "Tensor") -> "Tensor":
    return self.scatter(dim, index, src, reduce="add")
  def scatter_add_(self, dim: Any, index: "Tensor", src: "Tensor") -> "Tensor":
    return self.assign(self.scatter_add(dim, index, src))
  def index_add_(self, dim: Any, index: "Tensor", source: "Tensor", alpha: Any = 1) -> "Tensor":
    at = axis_of(dim, self.ndim)
    spread = index.reshape((-1,) + (1,) * (self.ndim - at - 1)).expand(source.shape)
    return self.scatter_add_(at, spread, source * alpha)
  def index_copy_(self, dim: Any, index: "Tensor", source: "Tensor") -> "Tensor":
    self[(slice(None),) * axis_of(dim, self.ndim) + (index,)] = source
    return self

  # ---- reductions ----------------------------------------------------------------------------------------------------

  def reduced(self, uop: UOp, axes: tuple[int, ...], keepdim: Any) -> "Tensor":
    """A result whose reduced axes have size 1: they stay or go."""
    if not keepdim: uop = uop.reshape(tuple(n for d, n in enumerate(uop.shape) if d not in axes))
    return result(uop, self)
  def floats(self, what: str) -> None:
    if not self.dtype.is_floating_point:
      raise RuntimeError(f"{what}(): a floating point dtype is expected, got {self.dtype.name}: call .float() first")

  def sum(self, dim: Any = None, keepdim: Any = False, dtype: DType | None = None) -> "Tensor":
    axes = axes_of(dim, self.ndim)
    wide = dtype or (self.dtype if self.dtype.is_floating_point else dtypes.int64)
    return self.reduced(fm.sum_over(convert(self.uop, wide), axes), axes, keepdim)
  def mean(self, dim: Any = None, keepdim: Any = False, dtype: DType | None = None) -> "Tensor":
    x = self if dtype is None else self.cast(dtype)
    x.floats("mean")
    axes = axes_of(dim, x.ndim)
    count = prod(x.uop.shape[a] for a in axes)
    return x.reduced(fm.mean_over(x.uop, axes, count), axes, keepdim)
  def var(self, dim: Any = None, unbiased: Any = True, keepdim: Any = False, correction: Any = None) -> "Tensor":
    """The mean squared distance from the mean, over n - correction (1 by default)."""
    self.floats("var")
    if isinstance(dim, bool): dim, unbiased = None, dim
    axes = axes_of(dim, self.ndim)
    if correction is None: correction = 1 if unbiased else 0
    count = prod(self.uop.shape[a] for a in axes)
    return self.reduced(fm.var_over(self.uop, axes, count, correction), axes, keepdim)
  def std(self, dim: Any = None, unbiased: Any = True, keepdim: Any = False, correction: Any = None) -> "Tensor":
    return self.var(dim, unbiased, keepdim, correction).sqrt()
  def prod(self, dim: Any = None, keepdim: Any = False, dtype: DType | None = None) -> "Tensor":
    axes = axes_of(dim, self.ndim)
    wide = dtype or (self.dtype if self.dtype.is_floating_point else dtypes.int64)
    x = convert(self.uop, wide)
    return self.reduced(x.cast(accumulator(wide)).reduce(Ops.MUL, axes).cast(wide), axes, keepdim)
  def extreme(self, formula: Formula, where_is: Callable[[UOp, int], UOp], dim: Any, keepdim: Any, other: Any) -> Any:
    """max and min: of two tensors, of all elements, or along dim with positions."""
    if isinstance(dim, Tensor): return dim
    if self.numel() == 0: raise RuntimeError("max and min need at least one element, but the tensor is empty")
    if dim is None: return self.reduced(formula(self.uop, axes_of(None, self.ndim)), axes_of(None, self.ndim), False)
    if not self.ndim: return Extremes(self, zeros(dtype=dtypes.int64, device=self.device))
    axis = axis_of(dim, self.ndim)
    where_it_is = self.reduced(where_is(self.uop, axis), (), True)
    if self.requires_grad: values = self.gather(axis, where_it_is)       # ties: the gradient goes to the first alone
    else: values = self.reduced(formula(self.uop, (axis,)), (), True)
    return Extremes(*(t if keepdim else t.squeeze(axis) for t in (values, where_it_is)))
  def max(self, dim: Any = None, keepdim: Any = False, other: Any = None) -> Any:
    if isinstance(dim, Tensor) or other is not None: return self.maximum(other if other is not None else dim)
    return self.extreme(fm.max_over, fm.arg_max, dim, keepdim, None)
  def min(self, dim: Any = None, keepdim: Any = False, other: Any = None) -> Any:
    if isinstance(dim, Tensor) or other is not None: return self.minimum(other if other is not None else dim)
    return self.extreme(fm.min_over, arg_min, dim, keepdim, None)
  def amax(self, dim: Any = (), keepdim: Any = False) -> "Tensor":
    return self.reduced(fm.max_over(self.uop, axes_of(dim, self.ndim)), axes_of(dim, self.ndim), keepdim)
  def amin(self, dim: Any = (), keepdim: Any = False) -> "Tensor":
    return self.reduced(fm.min_over(self.uop, axes_of(dim, self.ndim)), axes_of(dim, self.ndim), keepdim)
  def position(self, where_is: Callable[[UOp, int], UOp], dim: Any, keepdim: Any) -> "Tensor":
    if self.numel() == 0: raise IndexError("argmax() and argmin() need at least one element, but the tensor is empty")
    if dim is None: return self.flatten().position(where_is, 0, False).reshape((1,) * self.ndim if keepdim else ())
    if not self.ndim: return zeros(dtype=dtypes.int64, device=self.device)
    axis = axis_of(dim, self.ndim)
    return self.reduced(where_is(self.uop, axis), (axis,), keepdim)
  def argmax(self, dim: Any = None, keepdim: Any = False) -> "Tensor": return self.position(fm.arg_max, dim, keepdim)
  def argmin(self, dim: Any = None, keepdim: Any = False) -> "Tensor": return self.position(arg_min, dim, keepdim)
  def any(self, dim: Any = None, keepdim: Any = False) -> "Tensor":
    axes = axes_of(dim, self.ndim)
    return self.reduced(fm.max_over(convert(self.uop, dtypes.bool), axes), axes, keepdim)
  def all(self, dim: Any = None, keepdim: Any = False) -> "Tensor":
    axes = axes_of(dim, self.ndim)
    return self.reduced(fm.min_over(convert(self.uop, dtypes.bool), axes), axes, keepdim)
  def count_nonzero(self, dim: Any = None) -> "Tensor": return self.bool().sum(dim)
  def logsumexp(self, dim: Any, keepdim: Any = False) -> "Tensor":
    axes = axes_of(dim, self.ndim)
    return self.reduced(fm.log_sum_exp(self.uop, axes), axes, keepdim)
  def softmax(self, dim: Any = -1, dtype: DType | None = None) -> "Tensor":
    x = self if dtype is None else self.cast(dtype)
    return x.map_float(lambda u: fm.softmax(u, axis_of(dim, self.ndim))) if x.ndim else ones_like(x) * x.exp() / x.exp()
  def log_softmax(self, dim: Any = -1, dtype: DType | None = None) -> "Tensor":
    x = self if dtype is None else self.cast(dtype)
    return x.map_float(lambda u: fm.log_softmax(u, axis_of(dim, self.ndim)))
  def norm(self, p: Any = 2, dim: Any = None, keepdim: Any = False) -> "Tensor":
    """(sum |x|^p)^(1/p); the largest or smallest |x| for p = inf or -inf."""
    self.floats("norm")
    if p in ("fro", 2): return (self * self).sum(dim, keepdim).sqrt()
    if p == math.inf: return self.abs().amax(dim, keepdim)
    if p == -math.inf: return self.abs().amin(dim, keepdim)
    if p == 0: return self.ne(0).cast(self.dtype).sum(dim, keepdim)
    return (self.abs() ** p).sum(dim, keepdim) ** (1 / p) if p != 1 else self.abs().sum(dim, keepdim)
  def scanned(self, dim: Any, op: Ops, neutral: Any, dtype: DType | None) -> "Tensor":
    wide = dtype or (self.dtype if self.dtype.is_floating_point else dtypes.int64)
    x = convert(self.uop, wide)
    if not self.ndim: return result(x, self)
    axis = axis_of(dim, self.ndim)
    return result(axis_back(fm.scan(last_axis(x.cast(accumulator(wide)), axis), op, neutral), axis).cast(wide), self)
  def cumsum(self, dim: Any, dtype: DType | None = None) -> "Tensor": return self.scanned(dim, Ops.ADD, 0, dtype)
  def cumprod(self, dim: Any, dtype: DType | None = None) -> "Tensor": return self.scanned(dim, Ops.MUL, 1, dtype)

  # ---- sorting -------------------------------------------------------------------------------------------------------

  def ordered(self, count: int, dim: Any, descending: Any) -> Extremes:
    """The first `count` elements along dim in sorted order, and where they were."""
    if not self.ndim: return Extremes(self, zeros(dtype=dtypes.int64, device=self.device))
    axis = axis_of(dim, self.ndim)
    places = result(axis_back(indexing.order(last_axis(self.uop, axis), count, descending), axis),
                    device=self.storage.device)
    values = indexing.take_along(last_axis(self.uop, axis), last_axis(places.uop, axis))
    return Extremes(result(axis_back(values, axis), self), places)
  def sort(self, dim: Any = -1, descending: Any = False, stable: Any = True) -> Extremes:
    return self.ordered(self.size(dim) if self.ndim else 1, dim, descending)
  def argsort(self, dim: Any = -1, descending: Any = False, stable: Any = True) -> "Tensor":
    return self.sort(dim, descending).indices
  def topk(self, k: Any, dim: Any = -1, largest: Any = True, sorted: Any = True) -> Extremes:
    if self.ndim and not 0 <= k <= self.size(dim):
      raise RuntimeError(f"selected index k out of range: k is {k} and dimension {dim} has size {self.size(dim)}")
    return self.ordered(k, dim, largest)

  # ---- linear algebra ------------------------------------------------------------------------------------------------

  def matmul(self, other: "Tensor") -> "Tensor": return matmul(as_tensor(self), as_tensor(other))
  def mm(self, other: "Tensor") -> "Tensor": return matmul(self, other)
  def bmm(self, other: "Tensor") -> "Tensor":
    if self.ndim != 3 or other.ndim != 3:
      raise RuntimeError(f"bmm needs two 3-D tensors, not {list(self.shape)} and {list(other.shape)}")
    return matmul(self, other)
  def mv(self, vector: "Tensor") -> "Tensor": return matmul(self, vector)
  def dot(self, other: "Tensor") -> "Tensor":
    if self.ndim != 1 or other.ndim != 1:
      raise RuntimeError(f"1D tensors expected, but got {self.ndim}D and {other.ndim}D tensors")
    return matmul(self, other)
  def outer(self, other: "Tensor") -> "Tensor": return self.unsqueeze(1) * other.unsqueeze(0)
  def trace(self) -> "Tensor": return self.diagonal().sum()
  def diag(self, diagonal: Any = 0) -> "Tensor":
    """The diagonal of a matrix, or the matrix with this diagonal."""
    if self.ndim == 2: return self.diagonal(diagonal)
    n, down, right = len(self), max(0, -diagonal), max(0, diagonal)
    column = stretch(self.uop.reshape((n, 1)), (n, n))
    square = result(indexing.identity_mask(n, n).where(column, 0), self)
    return square.pad([(down, right), (right, down)])

  # ---- like me -------------------------------------------------------------------------------------------------------

  def new_zeros(self, *sizes: Any, **options: Any) -> "Tensor": return self.new_full(sizes_of(sizes), 0, **options)
  def new_ones(self, *sizes: Any, **options: Any) -> "Tensor": return self.new_full(sizes_of(sizes), 1, **options)
  new_empty = new_zeros
  def new_full(self, size: Any, value: Any, dtype: DType | None = None, device: Any = None,
               requires_grad: Any = False) -> "Tensor":
    return full(size, value, dtype=dtype or self.dtype, device=device or self.device, requires_grad=requires_grad)
  def new_tensor(self, data: Any, dtype: DType | None = None, device: Any = None,
                 requires_grad: Any = False) -> "Tensor":
    return tensor(data, dtype=dtype or self.dtype, device=device or self.device, requires_grad=requires_grad)

OWN_STATE = ("grad", "requires", "leaf", "detached", "looked", "storage", "steps", "known_strides")

def rebuild(cls: Any, data: np.ndarray, dtype: str, where_: str, requires_grad: bool) -> Tensor:
  """The tensor that was pickled."""
  source = tensor(data, dtype=DType.rows[dtype], device=where_)
  t = cls.__new__(cls)
  t.attach(source.storage, (), None)
  return t.requires_grad_(requires_grad)

# ---- formulas that need tensors --------------------------------------------------------------------------------------

def subtract(x: UOp, y: UOp) -> UOp:
  if x.dtype is dtypes.bool:
    raise RuntimeError("Subtraction, the `-` operator, with a bool tensor is not supported: use ^ or ~")
  return x - y
def truncated_quotient(x: UOp, y: UOp) -> UOp: return fm.trunc(x / y) if x.dtype.is_floating_point else x // y
def arg_min(x: UOp, axis: int) -> UOp:
  return fm.arg_max(x.not_() if x.dtype is dtypes.bool else x ^ -1 if x.dtype.is_int else -x, axis)
def int_of(x: Any) -> int: return int(x)

def binary_bits(op: Ops, x: Any, y: Any) -> Tensor:
  x, y = operand(x), operand(y)
  dtype = result_type(x, y)
  if dtype.is_floating_point: raise RuntimeError(f"bitwise {op} needs integer or bool tensors, not {dtype.name}")
  return elementwise(lambda a, b: a.alu(op, b), dtype, x, y)

def power(x: Any, y: Any) -> Tensor:
  """x ** y: a known exponent without logarithms where it can be, integers exactly."""
  x, y = operand(x), operand(y)
  dtype = result_type(x, y)
  if not isinstance(y, Tensor):
    if not dtype.is_floating_point and y < 0: raise RuntimeError("Integers to negative integer powers are not allowed.")
    if fm.needs_no_logarithm(y): return elementwise(fm.in_float32(lambda u: fm.power_const(u, y)), dtype, x)
    if not dtype.is_floating_point: return elementwise(lambda u: fm.power_of(u, y), dtype, x)
  return elementwise(fm.power if dtype.is_floating_point else fm.power_int, dtype, x, y)

def where(condition: Tensor, x: Any = None, y: Any = None) -> Any:
  """x where condition holds, else y. With the condition alone: the indices where it holds."""
  if x is None: return condition.nonzero(as_tuple=True)
  x, y = operand(x), operand(y)
  tensors = [t for t in (condition, x, y) if isinstance(t, Tensor)]
  dtype = result_type(x, y)
  home = common_device(tensors)
  shape = broadcast(*(t.uop.shape for t in tensors))
  yes, no = (stretch(convert(moved_to(t, home), dtype) if isinstance(t, Tensor) else UOp.const(dtype, t), shape)
             for t in (x, y))
  return result(stretch(convert(moved_to(condition, home), dtypes.bool), shape).where(yes, no), *tensors, device=home)

def matmul(a: Tensor, b: Tensor) -> Tensor:
  """The product over a's last and b's last but one dimension; the dimensions before broadcast. 1-D: a row, a column."""
  if not a.ndim or not b.ndim: raise RuntimeError("both arguments to matmul need to be at least 1D, but they are "
                                                  f"{a.ndim}D and {b.ndim}D")
  left = a if a.ndim > 1 else a.unsqueeze(0)                           # (.., m, k)
  right = b if b.ndim > 1 else b.unsqueeze(1)                          # (.., k, n)
  if left.shape[-1] != right.shape[-2]:
    raise RuntimeError(f"mat1 and mat2 shapes cannot be multiplied: {list(a.shape)} @ {list(b.shape)}, "
                       f"{left.shape[-1]} is not {right.shape[-2]}")
  if a.dtype is not b.dtype:
    raise RuntimeError(f"expected m1 and m2 to have the same dtype, but got: {a.dtype.name} != {b.dtype.name}")
  rows, columns = left.unsqueeze(-2), right.mT.unsqueeze(-3)           # (.., m, 1, k), (.., 1, n, k)
  wide = accumulator(a.dtype)
  product = elementwise(UOp.__mul__, wide, rows, columns) if a.dtype is not dtypes.bool else rows & columns
  last = product.ndim - 1
  out = result(product.uop.reduce(Ops.ADD, (last,)).reshape(product.uop.shape[:-1]).cast(a.dtype), product)
  if a.ndim == 1: out = out.squeeze(-2)
  return out.squeeze(-1) if b.ndim == 1 else out

def last_axis(x: UOp, axis: int) -> UOp:
  """One axis last, the others in order before it."""
  return x.permute(tuple(d for d in range(len(x.shape)) if d != axis) + (axis,))

def axis_back(x: UOp, axis: int) -> UOp:
  """The last axis back at its place."""
  rank = len(x.shape)
  return x.permute(tuple(d if d < axis else rank - 1 if d == axis else d - 1 for d in range(rank)))

# ---- index tensors ---------------------------------------------------------------------------------------------------

def index_entries(x: Tensor, index: Any) -> list[Any]:
  """What stands in the brackets, one entry per dimension besides the Nones; a mask becomes the indices of its Trues."""
  given: list[Any] = []
  for entry in index if isinstance(index, tuple) else (index,): given.extend(index_entry(entry, x))
  used = sum(1 for e in given if e is not None and e is not Ellipsis)
  if used > x.ndim: raise IndexError(f"too many indices for tensor of dimension {x.ndim}")
  at = next((i for i, e in enumerate(given) if e is Ellipsis), len(given))
  rest = [e for e in given[at + 1:]]
  if any(e is Ellipsis for e in rest): raise IndexError("an index can only have a single ellipsis ('...')")
  return given[:at] + [slice(None)] * (x.ndim - used) + rest

def index_entry(entry: Any, x: Tensor) -> list[Any]:
  if entry is None or entry is Ellipsis or isinstance(entry, (int, slice)) and not isinstance(entry, bool):
    return [entry]
  if isinstance(entry, np.integer): return [int(entry)]
  if isinstance(entry, (list, tuple, np.ndarray, range)):
    entry = tensor(np.asarray(entry) if len(entry) else np.zeros(0, np.int64), device=x.device)
  if not isinstance(entry, Tensor):
    raise IndexError("only integers, slices (`:`), ellipsis (`...`), None and long or bool tensors are valid indices "
                     f"(got {type(entry).__name__})")
  if entry.dtype is dtypes.bool: return list(entry.nonzero(as_tuple=True))
  if entry.dtype.is_floating_point:
    raise IndexError(f"tensors used as indices must be long, int or bool tensors, not {entry.dtype.name}")
  return [entry]

def tensor_entries(entries: Sequence[Any]) -> tuple[list[int], list[Tensor]]:
  """The index tensors, and the dimension each stands in once ints have gone and Nones have come."""
  kept = [e for e in entries if not isinstance(e, int)]
  at = [d for d, e in enumerate(kept) if isinstance(e, Tensor)]
  return at, [kept[d] for d in at]

def joint_index(x: Tensor, at: Sequence[int], tensors: Sequence[Tensor]) -> UOp:
  """The positions that index tensors name in the dimensions `at` taken as one."""
  sizes = [x.uop.shape[d] for d in at]
  try: shape = broadcast(*(t.uop.shape for t in tensors))
  except ValueError:
    raise IndexError("shape mismatch: indexing tensors could not be broadcast together with shapes " +
                     ", ".join(str(list(t.shape)) for t in tensors)) from None
  indices = [stretch(checked_index(t, n, d), shape) for t, n, d in zip(tensors, sizes, at)]
  dtype = functools.reduce(promote, (i.dtype for i in indices))
  return indexing.linear_index([i.cast(dtype) for i in indices], sizes)

bounds_known: "weakref.WeakKeyDictionary[UOp, tuple[int, int]]" = weakref.WeakKeyDictionary()   # BUFFER -> min, max

def checked_index(index: Tensor, n: int, dim: int) -> UOp:
  """index as positions 0..n-1. IndexError outside: at once where the values are in memory, else with realize()."""
  u = index.uop if index.dtype in (dtypes.int32, dtypes.int64) else index.uop.cast(dtypes.int64)
  if not index.numel(): return u
  memory = index.storage.memory
  if memory is None:
    if not is_constant(u):
      st.check_later(indexing.outside(u, n), IndexError(f"index is out of bounds for dimension {dim} with size {n}"))
      return indexing.from_start(u, n)
  elif memory not in bounds_known:
    values = st.host_copy(index.storage, (), index.dtype)
    bounds_known[memory] = (int(values.min()), int(values.max()))
  low, high = bounds_known[memory] if memory is not None else (0, n)
  if low < 0 or high >= n:
    values = index.host()
    low, high = int(values.min()), int(values.max())
    for i in (low, high):
      if not -n <= i < n: raise indexing.index_error(i, dim, n)
  return u if low >= 0 else indexing.from_start(u, n)

SCATTER: dict[str | None, tuple[Ops, float] | None] = {None: None, "add": (Ops.ADD, 0), "sum": (Ops.ADD, 0),
                                                      "multiply": (Ops.MUL, 1), "prod": (Ops.MUL, 1)}

def scattered(x: Tensor, dim: Any, index: Tensor, src: Any, combine: tuple[Ops, float] | None) -> Tensor:
  """x with src put at, or combined into, the places that index names along dim."""
  axis = axis_of(dim, x.ndim)
  place = checked_index(index, x.uop.shape[axis], axis)
  if not isinstance(src, Tensor): src = full(index.shape, src, dtype=x.dtype, device=x.device)
  values = convert(src.uop, x.dtype).shrink(tuple((0, n) for n in place.shape))
  touched = tuple((0, n if d == axis else m) for d, (n, m) in enumerate(zip(x.uop.shape, place.shape)))
  part = last_axis(x.uop.shrink(touched), axis)
  rows = prod(part.shape[:-1])
  old, to, add = [u.reshape((rows, u.shape[-1])) for u in (part, last_axis(place, axis), last_axis(values, axis))]
  new = indexing.put_along(old, to, add) if combine is None else indexing.combine_along(old, to, add, *combine)
  steps = ((Ops.SHRINK, touched),) if touched != tuple((0, n) for n in x.uop.shape) else ()
  return result(st.merged(x.uop, steps, axis_back(new.reshape(part.shape), axis)), x, src)

# ---- autograd --------------------------------------------------------------------------------------------------------

def derivatives(output: Tensor, seed: Tensor | None, wanted: Sequence[Tensor]) -> list[UOp | None]:
  """d output / d t for each t, weighted by seed; None for a t that output does not depend on."""
  if not output.requires_grad:
    raise RuntimeError("element 0 of tensors does not require grad and does not have a grad_fn")
  if seed is None and output.numel() != 1: raise RuntimeError("grad can be implicitly created only for scalar outputs, "
                                                             f"not for shape {list(output.shape)}: pass gradient=")
  if seed is not None and seed.shape != output.shape:
    raise RuntimeError(f"Mismatch in shape: gradient has a shape of {list(seed.shape)} and the output has "
                       f"{list(output.shape)}.")
  first = UOp.const(output.dtype, 1).spread(output.uop.shape) if seed is None else convert(seed.uop, output.dtype)
  root, *targets = st.current([output.uop, *(t.uop for t in wanted)])
  inside = set(toposort([root]))
  found = gradient(root, first, list(dict.fromkeys(t for t in targets if t in inside)))
  return [found.get(t) for t in targets]

def grad(outputs: Any, inputs: Any, grad_outputs: Any = None, retain_graph: Any = None, create_graph: bool = False,
         allow_unused: bool = False) -> tuple[Tensor | None, ...]:
  """torch.autograd.grad: the gradients of the sum of outputs with respect to inputs."""
  outs = [outputs] if isinstance(outputs, Tensor) else list(outputs)
  ins = [inputs] if isinstance(inputs, Tensor) else list(inputs)
  seeds = [grad_outputs] if isinstance(grad_outputs, Tensor) else list(grad_outputs or [None] * len(outs))
  totals: list[UOp | None] = [None] * len(ins)
  for output, seed in zip(outs, seeds):
    for i, g in enumerate(derivatives(output, seed, ins)):
      old = totals[i]
      if g is not None: totals[i] = g if old is None else old + g
  if None in totals and not allow_unused:
    raise RuntimeError("One of the differentiated Tensors appears to not have been used in the graph. Set "
                       "allow_unused=True if this is the desired behavior.")
  return tuple(None if g is None else gradient_tensor(g, t, create_graph) for t, g in zip(ins, totals))

def gradient_tensor(g: UOp, of: Tensor, create_graph: bool) -> Tensor:
  """A gradient as a tensor, which itself can be differentiated if create_graph."""
  return result(g, of, device=of.storage.device) if create_graph else result(fm.detach(g), device=of.storage.device)

# ---- creation --------------------------------------------------------------------------------------------------------

NUMPY_DTYPES = {np.dtype(numpy_dtype(dt)): dt for dt in dtypes.all if dt is not dtypes.bfloat16}

def host_array(data: Any) -> np.ndarray:
  """Python data as an array: whole numbers int64, other numbers of the default dtype."""
  if isinstance(data, (np.ndarray, np.generic)): return np.asarray(data)
  if isinstance(data, (list, tuple)) and any(isinstance(x, (Tensor, np.ndarray)) for x in data):
    return np.array([x.host() if isinstance(x, Tensor) else np.asarray(x) for x in data])
  try: array = np.array(data)
  except ValueError as error: raise ValueError(f"expected sequences of equal length: {error}") from None
  if array.dtype == np.float64 or not array.size: return array.astype(numpy_dtype(Default.dtype))
  if array.dtype.kind in "OUS":
    raise TypeError(f"cannot make a tensor of {type(data).__name__} data: numbers are expected")
  return array

def tensor(data: Any, dtype: DType | None = None, device: Any = None, requires_grad: bool = False,
           pin_memory: bool = False) -> Tensor:
  """A copy of Python or NumPy data."""
  if isinstance(data, Tensor):
    return data.detach().clone().to(dtype or data.dtype, device=device).requires_grad_(requires_grad)
  array = host_array(data)
  if array.dtype not in NUMPY_DTYPES: raise TypeError(f"cannot make a tensor of NumPy's dtype {array.dtype}")
  dtype = dtype or NUMPY_DTYPES[array.dtype]
  home = device_name(device)
  with np.errstate(all="ignore"):
    bits = st.bfloat16_bits(array.astype(np.float32)) if dtype is dtypes.bfloat16 else array.astype(numpy_dtype(dtype))
  leaf = buffer_from_host(bits, dtype, home).reshape(array.shape)
  return result(leaf, device=home).requires_grad_(requires_grad)

def as_tensor(data: Any, dtype: DType | None = None, device: Any = None) -> Tensor:
  return data.to(dtype or data.dtype, device=device) if isinstance(data, Tensor) else tensor(data, dtype, device)
def from_numpy(data: np.ndarray) -> Tensor: return tensor(data)

def full(size: Any, fill_value: Any, dtype: DType | None = None, device: Any = None,
         requires_grad: bool = False) -> Tensor:
  value = fill_value.item() if isinstance(fill_value, (Tensor, np.generic)) else fill_value
  shape = sizes_of((size,))
  uop = UOp.const(dtype or number_dtype(value), value).spread(shape)
  return result(uop, device=device_name(device)).requires_grad_(requires_grad)
def zeros(*size: Any, dtype: DType | None = None, device: Any = None, requires_grad: bool = False) -> Tensor:
  return full(sizes_of(size), 0, dtype or Default.dtype, device, requires_grad)
def ones(*size: Any, dtype: DType | None = None, device: Any = None, requires_grad: bool = False) -> Tensor:
  return full(sizes_of(size), 1, dtype or Default.dtype, device, requires_grad)
empty = zeros
def full_like(x: Tensor, fill_value: Any, dtype: DType | None = None, device: Any = None,
              requires_grad: bool = False) -> Tensor:
  return full(tuple(x.shape), fill_value, dtype or x.dtype, device or x.device, requires_grad)
def zeros_like(x: Tensor, **options: Any) -> Tensor: return full_like(x, 0, **options)
def ones_like(x: Tensor, **options: Any) -> Tensor: return full_like(x, 1, **options)
empty_like = zeros_like

def arange(start: Any, end: Any = None, step: Any = 1, dtype: DType | None = None, device: Any = None,
           requires_grad: bool = False) -> Tensor:
  """start, start+step, .. below end."""
  if end is None: start, end = 0, start
  start, end, step = (x.item() if isinstance(x, (Tensor, np.generic)) else x for x in (start, end, step))
  if step == 0: raise RuntimeError("step must be nonzero")
  count = max(0, math.ceil((end - start) / step))
  dtype = dtype or (Default.dtype if any(isinstance(x, float) for x in (start, end, step)) else dtypes.int64)
  counter = dtype if dtype.is_int else dtypes.int64 if dtype is dtypes.float64 else dtypes.int32
  line = UOp.iota(count, counter).cast(dtype)
  return result(line * step + start, device=device_name(device)).requires_grad_(requires_grad)

def linspace(start: Any, end: Any, steps: int, dtype: DType | None = None, device: Any = None,
             requires_grad: bool = False) -> Tensor:
  """steps numbers from start to end, both included; each half counts from its own end."""
  dtype = dtype or Default.dtype
  step = (end - start) / max(1, steps - 1)
  line = UOp.iota(steps, dtypes.int32).cast(dtype)
  rising, falling = line * step + start, end - (steps - 1 - line) * step
  values = (line < steps // 2).where(rising, falling) if steps > 1 else line.like(start)
  return result(values, device=device_name(device)).requires_grad_(requires_grad)

def eye(n: int, m: int | None = None, dtype: DType | None = None, device: Any = None,
        requires_grad: bool = False) -> Tensor:
  uop = indexing.identity_mask(n, n if m is None else m).cast(dtype or Default.dtype)
  return result(uop, device=device_name(device)).requires_grad_(requires_grad)

def meshgrid(*tensors: Any, indexing: str = "ij") -> tuple[Tensor, ...]:
  lines = list(tensors[0]) if len(tensors) == 1 and not isinstance(tensors[0], Tensor) else list(tensors)
  shape = [len(x) for x in lines]
  grids = [x.reshape([-1 if d == i else 1 for d in range(len(lines))]).expand(shape) for i, x in enumerate(lines)]
  return tuple(g.transpose(0, 1) for g in grids) if indexing == "xy" and len(grids) > 1 else tuple(grids)

# ---- several tensors -------------------------------------------------------------------------------------------------

@either_spelling
def cat(tensors: Iterable[Tensor], dim: int = 0) -> Tensor:
  """One after the other along dim: each padded to its place, all added up in a balanced tree."""
  parts = [t for t in tensors]
  if not parts: raise RuntimeError("torch.cat(): expected a non-empty list of Tensors")
  parts = [t for t in parts if tuple(t.shape) != (0,)] or parts[:1]
  axis = axis_of(dim, parts[0].ndim)
  for t in parts:
    if t.ndim != parts[0].ndim or any(n != m for d, (n, m) in enumerate(zip(t.shape, parts[0].shape)) if d != axis):
      raise RuntimeError(f"Sizes of tensors must match except in dimension {axis}: {list(t.shape)} and "
                         f"{list(parts[0].shape)}")
  home = common_device(parts)
  dtype = result_type(*parts)
  sizes = [t.shape[axis] for t in parts]
  total, starts = sum(sizes), itertools.accumulate(sizes, initial=0)
  padded: list[UOp] = []
  for t, n, low in zip(parts, sizes, starts):
    widths = tuple((low, total - low - n) if d == axis else (0, 0) for d in range(t.ndim))
    padded.append(convert(moved_to(t, home), dtype).pad(widths))
  while len(padded) > 1: padded = [fm.add(*pair) if len(pair) == 2 else pair[0] for pair in by_two(padded)]
  return result(padded[0], *parts, device=home)
concat = concatenate = cat

def by_two(xs: Sequence[UOp]) -> list[Sequence[UOp]]: return [xs[i:i + 2] for i in range(0, len(xs), 2)]

@either_spelling
def stack(tensors: Iterable[Tensor], dim: int = 0) -> Tensor:
  parts = list(tensors)
  shapes = dict.fromkeys(t.shape for t in parts)
  if len(shapes) > 1:
    raise RuntimeError("stack expects each tensor to be equal size, but got " + " and ".join(map(str, shapes)))
  return cat([t.unsqueeze(dim) for t in parts], axis_of(dim, parts[0].ndim + 1))
def hstack(tensors: Sequence[Tensor]) -> Tensor: return cat(tensors, 0 if tensors[0].ndim < 2 else 1)
def vstack(tensors: Sequence[Tensor]) -> Tensor: return cat([t if t.ndim > 1 else t.reshape(1, -1) for t in tensors], 0)
def broadcast_tensors(*tensors: Tensor) -> tuple[Tensor, ...]:
  shape = broadcast(*(t.uop.shape for t in tensors))
  return tuple(t.expand(shape) for t in tensors)

# ---- methods that are one row of a table -----------------------------------------------------------------------------

OF_FLOATS = """exp exp2 expm1 log log2 log10 log1p sqrt rsqrt reciprocal sin cos tan asin acos atan sinh cosh tanh
  sigmoid erf""".split()
FLAT = "sign floor ceil trunc".split()
CASTS = {"float": "float32", "double": "float64", "half": "float16", "bfloat16": "bfloat16", "int": "int32",
         "long": "int64", "short": "int16", "byte": "uint8", "char": "int8", "bool": "bool"}
IN_PLACE = """add sub mul div pow clamp sqrt rsqrt reciprocal exp log neg abs relu tanh sigmoid lerp addcmul addcdiv
  masked_fill tril triu floor ceil round floor_divide remainder logical_not""".split()
OPERATORS = {"add": "add", "sub": "sub", "mul": "mul", "truediv": "div", "floordiv": "floor_divide", "mod": "remainder",
             "pow": "pow", "matmul": "matmul", "and": "bitwise_and", "or": "bitwise_or", "xor": "bitwise_xor",
             "lshift": "bitwise_left_shift", "rshift": "bitwise_right_shift"}
COMPARISONS = "eq ne lt gt le ge".split()
TWO_SPELLINGS = """roll index_select gather scatter sum mean var std prod max min amax amin argmax argmin any all
  count_nonzero logsumexp softmax log_softmax norm cumsum cumprod sort argsort topk""".split()

def of_floats(formula: Formula) -> Callable[[Tensor], Tensor]: return lambda self: self.map_float(formula)
def flat(formula: Formula) -> Callable[[Tensor], Tensor]: return lambda self: self.map_flat(formula)
def to_dtype(dtype: DType) -> Callable[..., Tensor]: return lambda self: self.cast(dtype)
def in_place(method: Callable[..., Tensor]) -> Callable[..., Tensor]:
  return lambda self, *args, **options: self.update(method(self, *args, **options))
def operator(method: Callable[..., Tensor]) -> Callable[..., Any]:
  return lambda self, other: method(self, other) if is_operand(other) else NotImplemented
def reflected(method: Callable[..., Tensor]) -> Callable[..., Any]:
  """other op self, where other is no Tensor."""
  return lambda self, other: method(operand(other), self) if is_operand(other) else NotImplemented

def define_methods() -> None:
  """Gives Tensor what the tables say."""
  def define(name: str, method: Callable[..., Any]) -> None:
    method.__name__ = name
    setattr(Tensor, name, method)
  for name in OF_FLOATS: define(name, of_floats(getattr(fm, name)))
  for name in FLAT: define(name, flat(getattr(fm, name)))
  for name, dtype in CASTS.items(): define(name, to_dtype(getattr(dtypes, dtype)))
  for name in IN_PLACE: define(name + "_", in_place(getattr(Tensor, name)))
  for name in COMPARISONS: define(f"__{name}__", operator(getattr(Tensor, name)))
  for symbol, name in OPERATORS.items():
    define(f"__{symbol}__", operator(getattr(Tensor, name)))
    define(f"__r{symbol}__", reflected(getattr(Tensor, name)))
    if symbol != "matmul": define(f"__i{symbol}__", in_place(getattr(Tensor, name)))
  for name in TWO_SPELLINGS: setattr(Tensor, name, either_spelling(getattr(Tensor, name)))

define_methods()

# ---- EAGER=1: every public operation computes before it returns ------------------------------------------------------

def eager(function: Callable[..., Any]) -> Callable[..., Any]:
  """function, whose results are realised when the outermost of nested calls returns."""
  @functools.wraps(function)
  def computed(*args: Any, **kwargs: Any) -> Any:
    computed_depth[0] += 1
    try: out = function(*args, **kwargs)
    finally: computed_depth[0] -= 1
    if computed_depth[0] == 0:
      found = [t for t in (out if isinstance(out, tuple) else (out,)) if isinstance(t, Tensor)]
      st.realize([t.storage for t in found])
    return out
  return computed

computed_depth = [0]
SILENT = {"attach", "on", "see", "requires_grad_", "become_leaf", "assign", "update"}

EAGER_OPERATORS = {*OPERATORS, *COMPARISONS, "neg", "getitem", "setitem"}

def make_eager() -> None:
  for name, member in list(vars(Tensor).items()):
    operates = name.strip("_").removeprefix("r").removeprefix("i") in EAGER_OPERATORS
    if inspect.isfunction(member) and name not in SILENT and (operates or not name.startswith("__")):
      setattr(Tensor, name, eager(member))

if EAGER: make_eager()
