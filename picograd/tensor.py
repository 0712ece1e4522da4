# tensor.py: the user's object, with torch's names and semantics. A Tensor is a view of a Storage, whose value is a UOp
# graph: every method only builds nodes; item(), numpy(), print and realize() compute. In: Python and NumPy data. Out:
# the same, and gradients. Below: storage.py (memory, assignment), arithmetic.py (operators), indexing.py (positions).
# Above: library/ (what is composed of these methods).
from __future__ import annotations
import functools, math, weakref
from typing import TYPE_CHECKING, Any, Callable, Iterator, NamedTuple, Sequence
import numpy as np
from picograd import arithmetic as ar, indexing, storage as st
from picograd.arithmetic import Formula, accumulator, convert, stretch
from picograd.common import Default, GradMode, Ints, Precision, Size, axes_of, axis_of, device, device_name
from picograd.common import for_product, number_dtype, reshaped_strides, set_mode, sizes_of, strides_of
from picograd.dtype import DType, dtypes, promote
from picograd.helpers import DEVICE, prod
from picograd.ops.gradient import gradient
from picograd.ops.ops import Ops
from picograd.ops.shape import broadcast
from picograd.ops.uop import UOp, toposort
from picograd.runtime import realize as runtime
from picograd.runtime.device import Buffer, buffer_holding, numpy_dtype
from picograd.storage import Steps, Storage

# ---- results ---------------------------------------------------------------------------------------------------------

def result(uop: UOp, *inputs: Tensor, device: str | None = None) -> Tensor:
  """A new tensor of this value. It requires grad if operations are recorded and an input requires grad."""
  history = uop.dtype.is_floating_point and any(t.requires_grad for t in inputs)
  if history and not GradMode.recording: uop, history = ar.detach(uop), False
  if device is None: device = inputs[0].storage.device if inputs else DEVICE.value
  return Tensor.on(Storage(uop, device, history), (), None)

def common_device(tensors: Sequence[Tensor]) -> str:
  """Where the result of an operation on tensors lives: scalars join any device."""
  homes = list(dict.fromkeys(t.storage.device for t in tensors if t.ndim))
  if len(homes) < 2: return homes[0] if homes else tensors[0].storage.device
  names = " and ".join(device(h) for h in homes)
  raise RuntimeError(f"Expected all tensors to be on the same device, but found at least two devices, {names}")

CATEGORY = {"b": 0, "u": 1, "i": 1, "f": 2}

def result_type(*operands) -> DType:
  """torch's promotion: tensors with dimensions first; a scalar tensor, then a number, only raises the category."""
  tensors = [x for x in operands if isinstance(x, Tensor)]
  numbers = [x for x in operands if not isinstance(x, Tensor)]
  of_tensors = [t.dtype for t in tensors if t.ndim]
  of_scalars = [t.dtype for t in tensors if not t.ndim]
  groups = [of_tensors, of_scalars, [number_dtype(x) for x in numbers]]
  found, *others = [functools.reduce(promote, group) for group in groups if group]
  for dtype in others:
    if CATEGORY[dtype.kind] > CATEGORY[found.kind]: found = promote(found, dtype)
  return found

def combined(formula: Formula, operands: Sequence[Any], kinds: Sequence[DType]) -> Tensor:
  """formula of the operands, each converted to its dtype and stretched to the common shape."""
  tensors = [x for x in operands if isinstance(x, Tensor)]
  home = common_device(tensors)
  shape = broadcast(*(t.sizes for t in tensors))
  uops = [stretch(operand_uop(x, dtype, home), shape) for x, dtype in zip(operands, kinds)]
  return result(formula(*uops), *tensors, device=home)

def operand_uop(x, dtype: DType, home: str) -> UOp:
  return convert(moved_to(x, home), dtype) if isinstance(x, Tensor) else UOp.const(dtype, x)

def moved_to(t: Tensor, home: str) -> UOp:
  return t.uop if t.storage.device == home else UOp(Ops.COPY, t.dtype, (t.uop,), home)

def is_operand(x) -> bool:
  return isinstance(x, (Tensor, bool, int, float, np.generic, np.ndarray))

def operand(x) -> Any:
  """What an operator accepts, as a Tensor or a Python number."""
  if isinstance(x, (Tensor, bool, int, float)): return x
  return x.item() if isinstance(x, np.generic) else as_tensor(x)

# ---- two operands: the dtype they are computed in, given the promoted one and the second operand ---------------------

DtypeRule = Callable[[DType, Any], DType]

def any_dtype(dtype: DType, y) -> DType: return dtype
def float_dtype(dtype: DType, y) -> DType: return dtype if dtype.is_floating_point else Default.dtype

def whole_dtype(dtype: DType, y) -> DType:
  if not dtype.is_floating_point: return dtype
  raise RuntimeError(f"a bitwise operation needs integer or bool tensors, not {dtype.name}")

def division_dtype(dtype: DType, y) -> DType:
  """Integers cannot be divided by zero: ZeroDivisionError now if y's value is known, else with the next realize()."""
  if not dtype.is_floating_point: check_divisor(y)
  return dtype

def check_divisor(y) -> None:
  error = ZeroDivisionError("integer division or modulo by zero")
  if not isinstance(y, Tensor): known = y == 0
  elif y.storage.is_known(): known = bool((y.host() == 0).any())
  elif constant_of(y.uop) is not None: known = constant_of(y.uop) == 0
  else:
    st.check_later(y.uop.eq(0), y.storage.device, error)
    known = False
  if known: raise error

def constant_of(u: UOp) -> Any:
  """The number that u repeats; None where u is no constant."""
  while u.op in (Ops.RESHAPE, Ops.EXPAND): u = u.src[0]
  return u.arg if u.op is Ops.CONST else None

def binary(formula: Formula, x, y, rule: DtypeRule = any_dtype) -> Tensor:
  x, y = operand(x), operand(y)
  dtype = rule(result_type(x, y), y)
  return combined(formula, (x, y), (dtype, dtype))

def scaled(x, alpha) -> Any:
  return x if isinstance(alpha, int) and alpha == 1 else operand(x) * alpha

def power(x, y) -> Tensor:
  """x ** y: a known exponent without logarithms where it can be, integers exactly."""
  x, y = operand(x), operand(y)
  dtype = result_type(x, y)
  if isinstance(y, Tensor):
    return combined(ar.power if dtype.is_floating_point else ar.power_int, (x, y), (dtype, dtype))
  if dtype.is_floating_point and not ar.needs_no_logarithm(y):
    return combined(ar.power, (x, y), (dtype, dtype))
  if not dtype.is_floating_point and y < 0:
    raise RuntimeError("Integers to negative integer powers are not allowed.")
  if ar.needs_no_logarithm(y):
    return combined(ar.in_float32(lambda u: ar.power_const(u, y)), (x,), (dtype,))
  return combined(lambda u: ar.power_of(u, y), (x,), (dtype,))

def where(condition: Tensor, x=None, y=None) -> Any:
  """x where condition holds, else y. With the condition alone: the indices where it holds."""
  if x is None: return positions(condition)
  x, y = operand(x), operand(y)
  dtype = result_type(x, y)
  return combined(UOp.where, (condition, x, y), (dtypes.bool, dtype, dtype))

def positions(mask: Tensor) -> tuple[Tensor, ...]:
  """Where the elements are not zero; the number of them has to be known, so this computes."""
  return tuple(tensor(column, device=mask.device) for column in np.nonzero(mask.host()))

class Extremes(NamedTuple):
  """The result of a reduction that also says where: max, min, sort, topk."""
  values: Tensor
  indices: Tensor

# ---- Tensor ----------------------------------------------------------------------------------------------------------

class Tensor:
  """A view of a storage. grad: the gradient that backward() has added up so far."""
  storage: Storage
  steps: Steps
  known_strides: Ints | None      # None: contiguous
  kept_grad: Tensor | None = None
  requires = False                           # requires grad on its own account: a leaf, or a view of one
  leaf = False
  detached = False                           # reads the storage without its history
  looked: tuple[UOp, UOp] | None = None      # (storage's value, what this view sees of it)
  __array_priority__ = 1000

  if TYPE_CHECKING:                          # what the tables below this class and in library/ add
    def __getattr__(self, name: str) -> Any: ...
    def operator_with(self, other) -> Tensor: ...
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = operator_with
    __floordiv__ = __rfloordiv__ = __mod__ = __rmod__ = __pow__ = __rpow__ = __matmul__ = __rmatmul__ = operator_with
    __and__ = __or__ = __xor__ = __lshift__ = __rshift__ = operator_with
    __rand__ = __ror__ = __rxor__ = __lt__ = __gt__ = __le__ = __ge__ = operator_with
    def __neg__(self) -> Tensor: ...
    def __invert__(self) -> Tensor: ...
    def __eq__(self, other) -> Any: ...
    def __ne__(self, other) -> Any: ...

  wanting: weakref.WeakValueDictionary[int, Tensor] = weakref.WeakValueDictionary()     # who gets a .grad in backward()

  def __init__(self, *data, dtype: DType | None = None, device=None, requires_grad: bool = False):
    """Shares the memory of a Tensor, names a UOp's value, or copies host data; several ints are the sizes of zeros."""
    source = data[0] if len(data) == 1 else np.zeros(data, np.float32) if data else []
    if isinstance(source, UOp): source = result(source, device=source.device or device_name(device))
    if not isinstance(source, Tensor): source = tensor(source, dtype=dtype or Default.dtype, device=device)
    self.attach(source.storage, source.steps, source.known_strides)
    self.detached = source.detached
    if requires_grad: self.requires_grad_()

  def attach(self, storage: Storage, steps: Steps, strides: Ints | None) -> None:
    self.storage = storage
    self.steps = steps
    self.known_strides = strides
    users = storage.users
    users.append(weakref.ref(self))
    if len(users) > 8: storage.users = [user for user in users if user() is not None]

  @classmethod
  def on(cls, storage: Storage, steps: Steps, strides: Ints | None) -> Tensor:
    t = Tensor.__new__(Tensor)
    t.attach(storage, steps, strides)
    return t

  def see(self, steps: Sequence[st.Step], strides: Ints | None) -> Tensor:
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
    source = self.storage.recorded() if self.requires_grad else self.storage.plain()
    if not self.steps: return source
    if self.looked is None or self.looked[0] is not source: self.looked = (source, st.look(source, self.steps))
    return self.looked[1]

  @property
  def sizes(self) -> Ints:
    if not self.steps: return self.storage.shape
    if self.looked is None: self.looked = (self.storage.uop, st.look(self.storage.uop, self.steps))
    return self.looked[1].shape
  @property
  def shape(self) -> Size: return Size(self.sizes)
  @property
  def dtype(self) -> DType: return self.storage.dtype
  @property
  def device(self) -> device: return device(self.storage.device)
  @property
  def ndim(self) -> int: return len(self.sizes)
  @property
  def is_leaf(self) -> bool: return self.leaf or not self.requires_grad
  @property
  def itemsize(self) -> int: return self.dtype.itemsize
  @property
  def nbytes(self) -> int: return self.numel() * self.itemsize

  def size(self, dim: int | None = None) -> Any:
    return self.shape if dim is None else self.shape[axis_of(dim, self.ndim)]
  def dim(self) -> int: return self.ndim
  def numel(self) -> int: return prod(self.sizes)
  def is_floating_point(self) -> bool: return self.dtype.is_floating_point

  def stride(self, dim: int | None = None) -> Any:
    strides = strides_of(self.sizes) if self.known_strides is None else self.known_strides
    return strides if dim is None else strides[axis_of(dim, self.ndim)]
  def is_contiguous(self) -> bool:
    shape = self.sizes
    return all(n == 1 or s == wanted for n, s, wanted in zip(shape, self.stride(), strides_of(shape)))

  # ---- values on the host --------------------------------------------------------------------------------------------

  def realize(self) -> Tensor:
    """Puts my value into memory now."""
    st.realize([self.storage])
    return self

  def host(self) -> np.ndarray:
    return st.host_copy(self.storage, self.steps)
  def numpy(self) -> np.ndarray:
    """A copy as a NumPy array; bfloat16, which NumPy lacks, as float32."""
    if self.requires_grad and GradMode.recording:
      raise RuntimeError("Can't call numpy() on Tensor that requires grad. Use tensor.detach().numpy() instead.")
    data = self.host()
    return np.array(data) if self.steps else data

  def item(self) -> Any:
    if self.numel() != 1:
      raise RuntimeError(f"a Tensor with {self.numel()} elements cannot be converted to Scalar")
    return self.host().reshape(-1)[0].item()
  def tolist(self) -> Any: return self.host().tolist()
  def __float__(self) -> float: return float(self.item())
  def __int__(self) -> int: return int(self.item())
  def __index__(self) -> int:
    if not self.dtype.is_floating_point: return int(self.item())
    raise TypeError("only integer tensors of a single element can be converted to an index")
  def __bool__(self) -> bool:
    if self.numel() > 1:
      raise RuntimeError("Boolean value of Tensor with more than one value is ambiguous")
    return bool(self.item()) if self.numel() else False
  def __len__(self) -> int:
    if not self.ndim: raise TypeError("len() of a 0-d tensor")
    return self.sizes[0]
  def __iter__(self) -> Iterator[Tensor]:
    if not self.ndim: raise TypeError("iteration over a 0-d tensor")
    return iter(self.unbind(0))
  def __contains__(self, x) -> bool: return bool((self == x).any())
  def __hash__(self) -> int: return id(self)
  def __format__(self, spec: str) -> str:
    return format(repr(self) if self.ndim else self.item(), spec)

  # ---- dtype, device, memory -----------------------------------------------------------------------------------------

  def cast(self, dtype: DType) -> Tensor:
    return self if dtype is self.dtype else result(convert(self.uop, dtype), self)

  def to(self, *args, dtype: DType | None = None, device=None, copy: bool = False, **_) -> Tensor:
    """In another dtype, on another device, or like another tensor."""
    for arg in args:
      if isinstance(arg, DType): dtype = arg
      elif isinstance(arg, Tensor): dtype, device = arg.dtype, arg.device
      elif isinstance(arg, (str, int)) and not isinstance(arg, bool): device = arg
    moved = self.cast(dtype or self.dtype)
    home = self.storage.device if device is None else device_name(device)
    if home != moved.storage.device:
      return result(moved_to(moved, home), moved, device=home)
    return moved.clone() if copy and moved is self else moved

  def type(self, dtype: DType | None = None) -> Any:
    return f"picograd.{self.dtype.name}" if dtype is None else self.cast(dtype)
  def bitcast(self, dtype: DType) -> Tensor:
    return result(self.uop.bitcast(dtype), self)
  def contiguous(self) -> Tensor:
    return self if self.is_contiguous() else self.map(ar.stored)
  def clone(self) -> Tensor:
    """A copy, made when either is overwritten; the gradient of the copy is the original's."""
    return self.map(ar.stored) if self.requires_grad else result(self.uop, self)

  # ---- autograd ------------------------------------------------------------------------------------------------------

  @property
  def grad(self) -> Tensor | None: return self.kept_grad
  @grad.setter
  def grad(self, value: Tensor | None) -> None:
    st.changes.count += 1
    self.kept_grad = value

  @property
  def requires_grad(self) -> Any:
    return self.requires or (self.storage.history and not self.detached)
  @requires_grad.setter
  def requires_grad(self, value) -> None: self.requires_grad_(value)

  def requires_grad_(self, requires_grad=True) -> Tensor:
    if requires_grad == self.requires_grad: return self
    if not requires_grad:
      if not self.leaf:
        raise RuntimeError("you can only change requires_grad flags of leaf variables.")
      self.requires = self.leaf = False
      st.changes.count += 1
      return self
    if not self.dtype.is_floating_point:
      raise RuntimeError(f"only Tensors of floating point dtype can require gradients, not {self.dtype.name}")
    self.become_leaf()
    return self

  def become_leaf(self) -> None:
    """From now on my node is one that no other tensor's graph contains."""
    if self.storage.history or self.storage.has_leaf() or not st.sees_all(self.steps):
      self.steps += ((Ops.DETACH, None), (Ops.CONTIGUOUS, next(st.unique)))
      self.storage.leaf = True
    else: self.storage.claim_leaf()
    self.requires = self.leaf = True
    st.changes.count += 1
    Tensor.wanting[id(self)] = self

  def former_nodes(self) -> list[UOp]:
    """What I was, as a leaf, before I was overwritten: results from then still depend on it."""
    return [st.look(u, self.steps) for u in self.storage.former] if self.leaf else []

  def retain_grad(self) -> None:
    """backward() shall fill my .grad although I am not a leaf."""
    if not self.requires_grad:
      raise RuntimeError("can't retain_grad on Tensor that has requires_grad=False")
    Tensor.wanting[id(self)] = self

  def detach(self) -> Tensor:
    """The same memory without history."""
    view = Tensor.on(self.storage, self.steps, self.known_strides)
    view.detached = True
    return view
  def detach_(self) -> Tensor:
    self.requires, self.leaf, self.detached = False, False, True
    st.changes.count += 1
    return self

  @property
  def data(self) -> Tensor: return self.detach()
  @data.setter
  def data(self, value: Tensor) -> None:
    """I become a view of value's memory, and stay a leaf if I was one."""
    if self.leaf and not value.steps: value.storage.remember([self.uop, *self.former_nodes()])
    was_leaf, self.requires, self.leaf = self.leaf, False, False
    self.attach(value.storage, value.steps, value.known_strides)
    self.detached, self.looked = True, None
    st.changes.count += 1
    if was_leaf: self.become_leaf()
  @property
  def grad_fn(self) -> Any: return None if self.is_leaf else self.uop

  def backward(self, gradient: Tensor | None = None, retain_graph=None, create_graph=False,
               inputs: Tensor | Sequence[Tensor] | None = None) -> None:
    """Adds d self / d leaf to the .grad of every leaf that requires grad (or of inputs)."""
    if inputs is None: inputs = sorted(Tensor.wanting.values(), key=lambda t: t.storage.serial)
    wanted = [t for t in ([inputs] if isinstance(inputs, Tensor) else inputs) if t.requires_grad]
    for t, g in zip(wanted, derivatives(self, gradient, wanted)):
      if g is None: continue
      new = gradient_tensor(g, t, create_graph)
      for w in runtime.watchers: w.differentiated.append(t)
      with set_mode(create_graph): t.grad = new if t.grad is None else t.grad + new

  # ---- in place ------------------------------------------------------------------------------------------------------

  def assign(self, value) -> Tensor:
    """My elements become value's, converted and stretched; what was there before has a gradient of zero."""
    self.refuse_recorded_leaf()
    new = self.fitted(value)
    if self.requires_grad and GradMode.recording and st.sees_all(self.steps):
      new = result(ar.never(new.uop).where(self.uop, new.uop), self, new)
    return self.become(new)

  def fitted(self, value) -> Tensor:
    """value in my shape and dtype, on my device."""
    if not isinstance(value, Tensor): value = full((), value, dtype=self.dtype, device=self.device)
    uop, shape = moved_to(value, self.storage.device), self.sizes
    while len(uop.shape) > len(shape) and uop.shape[0] == 1:
      uop = uop.reshape(uop.shape[1:])
    if broadcast(shape, uop.shape) != shape:
      raise RuntimeError(f"shape mismatch: a value of shape {tuple(value.shape)} does not broadcast to {tuple(shape)}")
    return result(stretch(convert(uop, self.dtype), shape), value, device=self.storage.device)

  def become(self, value: Tensor) -> Tensor:
    """The elements that I see are replaced by value's, with value's history if operations are recorded."""
    recorded = GradMode.recording and self.dtype.is_floating_point and (value.requires_grad or self.requires_grad)
    if not recorded:
      self.storage.write(self.steps, ar.detach(value.uop) if value.requires_grad else value.uop)
      return self
    before = self.storage.uop if self.requires_grad else self.storage.plain()
    self.storage.set(st.merged(before, self.steps, value.uop))
    self.storage.history, self.detached = True, False
    st.changes.count += 1
    return self

  def refuse_recorded_leaf(self) -> None:
    """RuntimeError where a leaf would change whose gradient is recorded."""
    if not GradMode.recording or not self.requires_grad: return
    if not self.leaf and (self.storage.history or not self.storage.leaf): return
    which = "a leaf Variable" if self.leaf else "a view of a leaf Variable"
    raise RuntimeError(f"{which} that requires grad is being used in an in-place operation.")

  def update(self, value: Tensor) -> Tensor:
    """assign the result of my own arithmetic, which must not need a larger kind of number."""
    if CATEGORY[value.dtype.kind] > CATEGORY[self.dtype.kind]:
      raise RuntimeError(f"result type {value.dtype.name} can't be cast to the desired output type {self.dtype.name}")
    if value.shape != self.shape:
      raise RuntimeError(f"output with shape {list(self.shape)} doesn't match the broadcast shape {list(value.shape)}")
    self.refuse_recorded_leaf()
    return self.become(self.fitted(value))

  def copy_(self, src: Tensor, non_blocking=False) -> Tensor:
    return self.assign(operand(src))
  def fill_(self, value) -> Tensor: return self.assign(value)
  def zero_(self) -> Tensor: return self.assign(0)

  # ---- arithmetic: the tables below this class add the rest ----------------------------------------------------------

  def map(self, formula: Formula) -> Tensor:
    return result(formula(self.uop), self)
  def map_float(self, formula: Formula) -> Tensor:
    """formula of me as floats."""
    return result(formula(self.uop.cast(float_dtype(self.dtype, self))), self)
  def map_flat(self, formula: Formula) -> Tensor:
    """formula of me, whose derivative is zero wherever it exists."""
    if not self.requires_grad: return self.map(formula)
    x = self.uop
    return result(ar.never(x).where(x, ar.detach(formula(x))), self)

  def add(self, other, alpha=1) -> Tensor:
    return binary(ar.add, self, scaled(other, alpha))
  def sub(self, other, alpha=1) -> Tensor:
    return binary(ar.subtract, self, scaled(other, alpha))
  def div(self, other, rounding_mode: str | None = None) -> Tensor:
    if rounding_mode == "floor": return self // other
    if rounding_mode == "trunc":
      return binary(ar.truncated_quotient, self, other, division_dtype)
    return binary(UOp.__truediv__, self, other, float_dtype)
  def pow(self, exponent) -> Tensor: return power(self, exponent)
  def matmul(self, other) -> Tensor: return matmul(as_tensor(self), as_tensor(other))
  def where(self, condition: Tensor, other) -> Tensor:
    return where(condition, self, other)
  def masked_fill(self, mask: Tensor, value) -> Tensor:
    return where(mask, value, self).cast(self.dtype)
  def __pos__(self) -> Tensor: return self

  # ---- movement: views -----------------------------------------------------------------------------------------------

  def new_shape(self, sizes: Sequence[Any]) -> Ints:
    """Sizes with -1 filled in."""
    shape, count = sizes_of(sizes), self.numel()
    if shape.count(-1) > 1:
      raise RuntimeError("only one dimension can be inferred")
    known = prod(n for n in shape if n != -1)
    if known and count % known == 0: shape = tuple(count // known if n == -1 else n for n in shape)
    if prod(shape) == count and all(n >= 0 for n in shape): return shape
    raise RuntimeError(f"shape '{list(shape)}' is invalid for input of size {count}: this tensor's shape is "
                       f"{list(self.shape)}")

  def view(self, *sizes) -> Tensor:
    """The same memory in another shape, or the same bits in another dtype."""
    if len(sizes) == 1 and isinstance(sizes[0], DType):
      return self.bitcast(sizes[0])
    shape = self.new_shape(sizes)
    strides = reshaped_strides(self.sizes, self.stride(), shape)
    if strides is not None: return self.see([(Ops.RESHAPE, shape)], strides)
    raise RuntimeError("view size is not compatible with input tensor's size and stride (at least one dimension "
                       "spans across two contiguous subspaces). Use .reshape(...) instead.")

  def reshape(self, *sizes) -> Tensor:
    shape = self.new_shape(sizes)
    if reshaped_strides(self.sizes, self.stride(), shape) is not None:
      return self.view(shape)
    return result(self.uop.reshape(shape), self)

  def permute(self, *dims) -> Tensor:
    axes = tuple(axis_of(d, self.ndim) for d in sizes_of(dims))
    if sorted(axes) == list(range(self.ndim)):
      return self.see([(Ops.PERMUTE, axes)], self.strides_at(axes))
    raise RuntimeError(f"permute(dims={axes}) of a tensor of shape {list(self.shape)}: each dimension must appear once")
  def strides_at(self, axes: Sequence[int]) -> Ints:
    return tuple(self.stride(a) for a in axes)

  def transpose(self, dim0, dim1) -> Tensor:
    axes = list(range(self.ndim))
    if not axes: return self
    a, b = axis_of(dim0, self.ndim), axis_of(dim1, self.ndim)
    axes[a], axes[b] = axes[b], axes[a]
    return self.permute(axes)

  @property
  def T(self) -> Tensor:
    return self.permute(tuple(reversed(range(self.ndim))))
  @property
  def mT(self) -> Tensor: return self.transpose(-1, -2)

  def squeeze(self, dim=None) -> Tensor:
    shape = self.sizes
    named = () if dim == () else axes_of(dim, self.ndim)
    axes = {a for a in named if shape[a] == 1}
    kept = [d for d in range(self.ndim) if d not in axes]
    return self.see([(Ops.RESHAPE, tuple(shape[d] for d in kept))], self.strides_at(kept))

  def unsqueeze(self, dim) -> Tensor:
    at = axis_of(dim, self.ndim + 1)
    shape, strides = list(self.sizes), list(self.stride())
    strides.insert(at, 1 if at == self.ndim else strides[at] * shape[at])
    shape.insert(at, 1)
    return self.see([(Ops.RESHAPE, tuple(shape))], tuple(strides))

  def expand(self, *sizes) -> Tensor:
    """Repeated along dimensions of size 1 without copying; -1 keeps a size."""
    wanted = sizes_of(sizes)
    missing = len(wanted) - self.ndim
    ones = (1,) * missing + self.sizes
    shape = tuple(n if m == -1 else m for n, m in zip(ones, wanted))
    if missing < 0 or -1 in wanted[:missing] or any(n not in (1, m) for n, m in zip(ones, shape)):
      raise RuntimeError(f"The expanded size of the tensor {list(wanted)} must match the existing size "
                         f"{list(self.shape)} at every dimension that is not 1")
    kept = [s if n == m else 0 for s, n, m in zip(self.stride(), self.sizes, shape[missing:])]
    steps = [(Ops.RESHAPE, ones)] if missing else []
    return self.see([*steps, (Ops.EXPAND, shape)], (0,) * missing + tuple(kept))

  def flatten(self, start_dim=0, end_dim=-1) -> Tensor:
    first, last = axis_of(start_dim, self.ndim), axis_of(end_dim, self.ndim)
    if first > last:
      raise RuntimeError(f"flatten(): start_dim {start_dim} comes after end_dim {end_dim}")
    if self.ndim and first == last: return self
    shape = self.sizes
    return self.reshape(shape[:first] + (prod(shape[first:last + 1]),) + shape[last + 1:])

  def narrow(self, dim, start, length) -> Tensor:
    at, low = axis_of(dim, self.ndim), int(start)
    n = self.sizes[at]
    if low < 0: low %= max(1, n)
    if low + length > n:
      raise RuntimeError(f"start ({low}) + length ({length}) exceeds dimension size ({n}).")
    bounds = tuple((low, low + length) if d == at else (0, m) for d, m in enumerate(self.sizes))
    return self.see([(Ops.SHRINK, bounds)], tuple(self.stride()))

  def select(self, dim, index) -> Tensor:
    return self[(slice(None),) * axis_of(dim, self.ndim) + (index,)]
  def unbind(self, dim=0) -> tuple[Tensor, ...]:
    return tuple(self.select(dim, i) for i in range(self.size(dim)))

  def flip(self, *sizes, dims=None) -> Tensor:
    axes = sizes_of(sizes if dims is None else (dims,))
    return result(self.uop.flip(axes_of(axes, self.ndim) if axes else ()), self)

  # ---- indexing ------------------------------------------------------------------------------------------------------

  def __getitem__(self, index) -> Tensor:
    entries = index_entries(self, index)
    view = self.basic(entries)
    at, tensors = tensor_entries(entries)
    return view.gather_at(at, tensors) if tensors else view

  def basic(self, entries: Sequence[Any]) -> Tensor:
    """The view that ints, slices and None select; an index tensor keeps its whole dimension."""
    plain = [slice(None) if isinstance(e, Tensor) else e for e in entries]
    found = indexing.basic_index(self.sizes, self.stride(), plain)
    view = self.see(found.steps, tuple(found.strides))
    return view.flip(found.flips) if found.flips else view

  def __setitem__(self, index, value) -> None:
    value = operand(value)
    if isinstance(value, Tensor) and value.numel() == 1: value = value.reshape(())
    is_scalar = not isinstance(value, Tensor) or not value.ndim
    if is_scalar and isinstance(index, Tensor) and index.dtype is dtypes.bool:
      mask = index.reshape(tuple(index.shape) + (1,) * (self.ndim - index.ndim))
      self.assign(self.masked_fill(mask, value))
      return
    entries = index_entries(self, index)
    if any(isinstance(e, slice) and e.step is not None and e.step < 0 for e in entries):
      raise NotImplementedError("assignment to a slice with a negative step: flip the value instead")
    at, tensors = tensor_entries(entries)
    view = self.basic(entries)
    view.assign(view.put_at(at, tensors, value) if tensors else value)
    if view.storage.history and self.detached:
      self.detached = False
      st.changes.count += 1

  # ---- reductions ----------------------------------------------------------------------------------------------------

  def reduced(self, uop: UOp, axes: Ints, keepdim) -> Tensor:
    """A result whose reduced axes have size 1: they stay or go."""
    if not keepdim: uop = uop.reshape(tuple(n for d, n in enumerate(uop.shape) if d not in axes))
    return result(uop, self)

  def over(self, formula: Formula, dim, keepdim, dtype: DType | None = None) -> Tensor:
    """formula over the axes that dim names, of me converted to dtype."""
    axes = axes_of(dim, self.ndim)
    return self.reduced(formula(convert(self.uop, dtype or self.dtype), axes), axes, keepdim)

  def total_dtype(self) -> DType: return self.dtype if self.dtype.is_floating_point else dtypes.int64
  def sum(self, dim=None, keepdim=False, dtype: DType | None = None) -> Tensor:
    return self.over(ar.sum_over, dim, keepdim, dtype or self.total_dtype())
  def prod(self, dim=None, keepdim=False, dtype: DType | None = None) -> Tensor:
    return self.over(ar.prod_over, dim, keepdim, dtype or self.total_dtype())
  def amax(self, dim=(), keepdim=False) -> Tensor:
    return self.over(ar.max_over, dim, keepdim)
  def amin(self, dim=(), keepdim=False) -> Tensor:
    return self.over(ar.min_over, dim, keepdim)
  def any(self, dim=None, keepdim=False) -> Tensor:
    return self.over(ar.max_over, dim, keepdim, dtypes.bool).cast(self.truth_dtype())
  def all(self, dim=None, keepdim=False) -> Tensor:
    return self.over(ar.min_over, dim, keepdim, dtypes.bool).cast(self.truth_dtype())
  def truth_dtype(self) -> DType:
    """Of any() and all(): torch's are uint8 for uint8."""
    return dtypes.uint8 if self.dtype is dtypes.uint8 else dtypes.bool

  def mean(self, dim=None, keepdim=False, dtype: DType | None = None) -> Tensor:
    x = self.cast(dtype or self.dtype)
    x.floats("mean")
    count = prod(x.sizes[a] for a in axes_of(dim, x.ndim))
    return x.over(lambda u, axes: ar.mean_over(u, axes, count), dim, keepdim)
  def floats(self, what: str) -> None:
    if self.dtype.is_floating_point: return
    raise RuntimeError(f"{what}(): a floating point dtype is expected, got {self.dtype.name}: call .float() first")

  def max(self, dim=None, keepdim=False, other=None) -> Any:
    if other is None and not isinstance(dim, Tensor):
      return self.extreme(ar.max_over, ar.arg_max, dim, keepdim)
    return self.maximum(dim if other is None else other)
  def min(self, dim=None, keepdim=False, other=None) -> Any:
    if other is None and not isinstance(dim, Tensor):
      return self.extreme(ar.min_over, ar.arg_min, dim, keepdim)
    return self.minimum(dim if other is None else other)

  def extreme(self, formula: Formula, where_is: Formula, dim, keepdim) -> Any:
    """max and min: of all elements, or along dim with positions. Of ties the first alone gets the gradient."""
    if self.numel() == 0:
      raise RuntimeError("max and min need at least one element, but the tensor is empty")
    if dim is None: return self.over(formula, None, False)
    if not self.ndim:
      return Extremes(self, zeros(dtype=dtypes.int64, device=self.device))
    axis = axis_of(dim, self.ndim)
    indices = self.map(lambda x: where_is(x, axis))
    if self.requires_grad: values = result(indexing.gather_axis(self.uop, axis, indices.uop), self)
    else: values = self.over(formula, axis, True)
    return Extremes(values, indices) if keepdim else Extremes(values.squeeze(axis), indices.squeeze(axis))

  def argmax(self, dim=None, keepdim=False) -> Tensor:
    return self.position(ar.arg_max, dim, keepdim)
  def argmin(self, dim=None, keepdim=False) -> Tensor:
    return self.position(ar.arg_min, dim, keepdim)
  def position(self, where_is: Formula, dim, keepdim) -> Tensor:
    if self.numel() == 0:
      raise IndexError("argmax() and argmin() need at least one element, but the tensor is empty")
    if dim is None:
      return self.flatten().position(where_is, 0, False).reshape((1,) * self.ndim if keepdim else ())
    if not self.ndim: return zeros(dtype=dtypes.int64, device=self.device)
    axis = axis_of(dim, self.ndim)
    return self.reduced(where_is(self.uop, axis), (axis,), keepdim)

# ---- matrix products -------------------------------------------------------------------------------------------------

def matmul(a: Tensor, b: Tensor) -> Tensor:
  """The product over a's last and b's last but one dimension; the dimensions before broadcast. 1-D: a row, a column."""
  a, b = for_product(a, b)
  check_factors(a, b)
  left = a if a.ndim > 1 else a.unsqueeze(0)                           # (.., m, k)
  right = b if b.ndim > 1 else b.unsqueeze(1)                          # (.., k, n)
  rows, columns = left.unsqueeze(-2), right.mT.unsqueeze(-3)           # (.., m, 1, k), (.., 1, n, k)
  wide = accumulator(a.dtype)
  exact = wide is not dtypes.float32 or Precision.float32_matmul == "highest"
  multiply = ar.multiply if exact else ar.multiply_roughly
  product = combined(multiply, (rows, columns), (wide, wide))          # (.., m, n, k)
  last = product.ndim - 1
  out = product.reduced(product.uop.reduce(Ops.ADD, (last,)).cast(a.dtype), (last,), False)
  if a.ndim == 1: out = out.squeeze(-2)
  return out.squeeze(-1) if b.ndim == 1 else out

def check_factors(a: Tensor, b: Tensor) -> None:
  if not a.ndim or not b.ndim:
    raise RuntimeError(f"both arguments to matmul need to be at least 1D, but they are {a.ndim}D and {b.ndim}D")
  n, m = a.shape[-1], b.shape[max(0, b.ndim - 2)]
  if n != m:
    raise RuntimeError(f"mat1 and mat2 shapes cannot be multiplied: {list(a.shape)} @ {list(b.shape)}, {n} is not {m}")
  if a.dtype is not b.dtype:
    raise RuntimeError(f"expected m1 and m2 to have the same dtype, but got: {a.dtype.name} != {b.dtype.name}")

# ---- index tensors ---------------------------------------------------------------------------------------------------

def index_entries(x: Tensor, index) -> list[Any]:
  """What stands in the brackets, one entry per dimension besides the Nones; a mask becomes the indices of its Trues."""
  given: list[Any] = []
  for entry in index if isinstance(index, tuple) else (index,): given.extend(index_entry(entry, x))
  used = sum(1 for e in given if e is not None and e is not Ellipsis)
  if used > x.ndim:
    raise IndexError(f"too many indices for tensor of dimension {x.ndim}")
  at = next((i for i, e in enumerate(given) if e is Ellipsis), len(given))
  rest = given[at + 1:]
  if any(e is Ellipsis for e in rest):
    raise IndexError("an index can only have a single ellipsis ('...')")
  return given[:at] + [slice(None)] * (x.ndim - used) + rest

def index_entry(entry, x: Tensor) -> list[Any]:
  if entry is None or entry is Ellipsis or isinstance(entry, slice):
    return [entry]
  if isinstance(entry, (int, np.integer)) and not isinstance(entry, bool):
    return [int(entry)]
  if isinstance(entry, (list, tuple, np.ndarray, range)):
    entry = tensor(np.asarray(entry) if len(entry) else np.zeros(0, np.int64), device=x.device)
  if not isinstance(entry, Tensor):
    raise IndexError("only integers, slices (`:`), ellipsis (`...`), None and long or bool tensors are valid indices "
                     f"(got {type(entry).__name__})")
  if entry.dtype is dtypes.bool: return list(positions(entry))
  if not entry.dtype.is_floating_point: return [entry]
  raise IndexError(f"tensors used as indices must be long, int or bool tensors, not {entry.dtype.name}")

def tensor_entries(entries: Sequence[Any]) -> tuple[list[int], list[Tensor]]:
  """The index tensors, and the dimension each stands in once ints have gone and Nones have come."""
  kept = [e for e in entries if not isinstance(e, int)]
  at = [d for d, e in enumerate(kept) if isinstance(e, Tensor)]
  return at, [kept[d] for d in at]

# ---- autograd --------------------------------------------------------------------------------------------------------

def derivatives(output: Tensor, seed: Tensor | None, wanted: Sequence[Tensor]) -> list[UOp | None]:
  """d output / d t for each t, weighted by seed; None for a t that output does not depend on."""
  check_output(output, seed)
  first = UOp.const(output.dtype, 1).spread(output.sizes) if seed is None else convert(seed.uop, output.dtype)
  nodes = [(t, u) for t in wanted for u in (t.uop, *t.former_nodes())]
  root, *targets = st.current([output.uop, *(u for _, u in nodes)])
  inside = set(toposort([root]))
  pairs = dict.fromkeys((t, u) for (t, _), u in zip(nodes, targets) if u in inside)
  found = gradient(root, first, [u for _, u in pairs], {u for t, u in pairs if t.leaf})
  totals: dict[Tensor, UOp] = {}
  for t, u in pairs:
    if u in found: totals[t] = totals[t] + found[u] if t in totals else found[u]
  return [totals.get(t) for t in wanted]

def check_output(output: Tensor, seed: Tensor | None) -> None:
  shape = list(output.shape)
  if not output.requires_grad:
    raise RuntimeError("element 0 of tensors does not require grad and does not have a grad_fn")
  if seed is None and output.numel() != 1:
    raise RuntimeError(f"grad can be implicitly created only for scalar outputs, not for shape {shape}: pass gradient=")
  if seed is not None and seed.shape != output.shape:
    raise RuntimeError(f"Mismatch in shape: gradient has a shape of {list(seed.shape)} and the output has {shape}.")

def gradient_tensor(g: UOp, of: Tensor, create_graph) -> Tensor:
  """A gradient as a tensor, which itself can be differentiated if create_graph."""
  home = of.storage.device
  return result(g, of, device=home) if create_graph else result(ar.detach(g), device=home)

# ---- creation --------------------------------------------------------------------------------------------------------

NUMPY_DTYPES = {np.dtype(numpy_dtype(dt)): dt for dt in dtypes.all if dt is not dtypes.bfloat16}

def host_array(data) -> np.ndarray:
  """Python data as an array: whole numbers int64, other numbers of the default dtype."""
  if isinstance(data, (np.ndarray, np.generic)): return np.asarray(data)
  if isinstance(data, (list, tuple)) and any(isinstance(x, (Tensor, np.ndarray)) for x in data):
    return np.array([x.host() if isinstance(x, Tensor) else np.asarray(x) for x in data])
  try: array = np.array(data)
  except ValueError as error: raise ValueError(f"expected sequences of equal length: {error}") from None
  if array.dtype == np.float64 or not array.size: return array.astype(numpy_dtype(Default.dtype))
  if array.dtype.kind not in "OUS": return array
  raise TypeError(f"cannot make a tensor of {type(data).__name__} data: numbers are expected")

def tensor(data, dtype: DType | None = None, device=None, requires_grad: bool = False,
           pin_memory: bool = False) -> Tensor:
  """A copy of Python or NumPy data."""
  if isinstance(data, Tensor):
    return data.detach().clone().to(dtype or data.dtype, device=device).requires_grad_(requires_grad)
  array = host_array(data)
  if array.dtype not in NUMPY_DTYPES: raise TypeError(f"cannot make a tensor of NumPy's dtype {array.dtype}")
  dtype, home = dtype or NUMPY_DTYPES[array.dtype], device_name(device)
  t = over(buffer_holding(st.host_bits(array, dtype), home), st.Form(array.shape, dtype))
  return t.requires_grad_(requires_grad)

def over(buffer: Buffer, form: st.Form) -> Tensor:
  """A tensor of what lies in memory that nobody else has seen."""
  return Tensor.on(Storage.holding(buffer, form, buffer.device.name), (), None)

def created(uop: UOp, device=None, requires_grad: bool = False) -> Tensor:
  return result(uop, device=device_name(device)).requires_grad_(requires_grad)

def as_tensor(data, dtype: DType | None = None, device=None) -> Tensor:
  """data itself if it is a tensor of this dtype on this device, else a tensor of it."""
  return data.to(dtype or data.dtype, device=device) if isinstance(data, Tensor) else tensor(data, dtype, device)

def full(size, fill_value, dtype: DType | None = None, **options) -> Tensor:
  """options, here and below: device, requires_grad."""
  value = fill_value.item() if isinstance(fill_value, (Tensor, np.generic)) else fill_value
  number = UOp.const(dtype or number_dtype(value), value)
  return created(number.spread(sizes_of((size,))), **options)
def zeros(*size, dtype: DType | None = None, **options) -> Tensor:
  """Zeros of a shape, given as separate sizes or as one tuple. options: device, requires_grad."""
  return full(sizes_of(size), 0, dtype or Default.dtype, **options)
def ones(*size, dtype: DType | None = None, **options) -> Tensor:
  """Ones of a shape, given as separate sizes or as one tuple. options: device, requires_grad."""
  return full(sizes_of(size), 1, dtype or Default.dtype, **options)

def arange(start, end=None, step=1, dtype: DType | None = None, **options) -> Tensor:
  """start, start+step, .. below end."""
  if end is None: start, end = 0, start
  start, end, step = (x.item() if isinstance(x, (Tensor, np.generic)) else x for x in (start, end, step))
  if dtype is not None and dtype.is_int: start, end, step = int(start), int(end), int(step)
  if step == 0: raise RuntimeError("step must be nonzero")
  count = max(0, math.ceil((end - start) / step))
  any_float = any(isinstance(x, float) for x in (start, end, step))
  dtype = dtype or (Default.dtype if any_float else dtypes.int64)
  counter = dtype if dtype.is_int else dtypes.int64 if dtype is dtypes.float64 else dtypes.int32
  return created(UOp.iota(count, counter).cast(dtype) * step + start, **options)

# ---- methods that are one row of a table -----------------------------------------------------------------------------

BINARY: dict[str, tuple[Formula, DtypeRule]] = {
  "mul": (ar.multiply, any_dtype),
  "floor_divide": (ar.floor_divide, division_dtype),
  "remainder": (ar.remainder, division_dtype),
  "fmod": (ar.fmod, division_dtype),
  "maximum": (ar.maximum, any_dtype),
  "minimum": (ar.minimum, any_dtype),
  "eq": (UOp.eq, any_dtype),
  "ne": (UOp.ne, any_dtype),
  "lt": (UOp.__lt__, any_dtype),
  "gt": (UOp.__gt__, any_dtype),
  "le": (ar.less_equal, any_dtype),
  "ge": (ar.greater_equal, any_dtype),
  "bitwise_and": (UOp.__and__, whole_dtype),
  "bitwise_or": (UOp.__or__, whole_dtype),
  "bitwise_xor": (UOp.__xor__, whole_dtype),
  "bitwise_left_shift": (UOp.__lshift__, whole_dtype),
  "bitwise_right_shift": (UOp.__rshift__, whole_dtype),
}
UNARY: dict[str, Formula] = {"neg": UOp.__neg__, "abs": ar.absolute, "bitwise_not": ar.invert, "isnan": ar.is_nan}
FLAT: dict[str, Formula] = {"floor": ar.floor, "ceil": ar.ceil, "trunc": ar.trunc}

# Python's operator -> the method it is
OPERATORS = {
  "add": "add", "sub": "sub", "mul": "mul", "truediv": "div", "floordiv": "floor_divide", "mod": "remainder",
  "pow": "pow", "matmul": "matmul", "and": "bitwise_and", "or": "bitwise_or", "xor": "bitwise_xor",
  "lshift": "bitwise_left_shift", "rshift": "bitwise_right_shift"}
COMPARISONS = ("eq", "ne", "lt", "gt", "le", "ge")
PREFIXES = {"neg": "neg", "abs": "abs", "invert": "bitwise_not"}

Method = Callable[..., Any]
def define(name: str, method: Method) -> None:
  """Gives Tensor a method."""
  method.__name__ = name
  setattr(Tensor, name, method)

def of_two(formula: Formula, rule: DtypeRule) -> Method:
  return lambda self, other: binary(formula, self, other, rule)
def of_one(formula: Formula) -> Method: return lambda self: self.map(formula)
def of_floats(formula: Formula) -> Method: return lambda self: self.map_float(formula)
def flat(formula: Formula) -> Method: return lambda self: self.map_flat(formula)
def in_place(method: Method) -> Method:
  return lambda self, *args, **options: self.update(method(self, *args, **options))
def operator(method: Method) -> Method:
  return lambda self, other: method(self, other) if is_operand(other) else NotImplemented
def reflected(method: Method) -> Method:
  """other op self, where other is no Tensor."""
  return lambda self, other: method(operand(other), self) if is_operand(other) else NotImplemented

def define_operators() -> None:
  for name, row in BINARY.items(): define(name, of_two(*row))
  for name, formula in UNARY.items(): define(name, of_one(formula))
  for name, formula in FLAT.items(): define(name, flat(formula))
  for symbol, name in PREFIXES.items(): setattr(Tensor, f"__{symbol}__", getattr(Tensor, name))
  for name in COMPARISONS: define(f"__{name}__", operator(getattr(Tensor, name)))
  for symbol, name in OPERATORS.items():
    method = getattr(Tensor, name)
    define(f"__{symbol}__", operator(method))
    define(f"__r{symbol}__", reflected(method))
    if symbol != "matmul": define(f"__i{symbol}__", in_place(method))

define_operators()
