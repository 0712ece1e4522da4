# common.py: what torch has besides tensors: Size, device, the default dtype, gradient modes; and the rules by which
# arguments name dimensions and sizes. In: arguments as users write them. Out: tuples of ints, or torch's errors.
from __future__ import annotations
import contextlib, functools
from typing import Any, Callable, Sequence, TypeVar
from picograd.dtype import DType, dtypes
from picograd.helpers import DEVICE, prod

# ---- small types -----------------------------------------------------------------------------------------------------

class Size(tuple):
  """A shape: a tuple with numel()."""
  def numel(self) -> int: return prod(self)
  def __repr__(self) -> str: return f"picograd.Size({list(self)})"
  def __getitem__(self, i):
    part = tuple.__getitem__(self, i)
    return Size(part) if isinstance(i, slice) else part

class device(str):
  """A device's name in torch's spelling; equals that string in any case. 'cpu' means DEVICE where that is a host's."""
  def __new__(cls, name="cpu", index: int | None = None) -> "device":
    text = str(name).lower()
    return str.__new__(cls, text if index is None else f"{text}:{index}")
  @property
  def type(self) -> str: return self.split(":")[0]
  @property
  def index(self) -> int | None:  # type: ignore[override]
    return int(self.split(":")[1]) if ":" in self else None
  def __eq__(self, other: object) -> bool:
    return isinstance(other, str) and str.__eq__(self, other.lower())
  def __ne__(self, other: object) -> bool: return not self == other
  def __hash__(self) -> int: return str.__hash__(self)
  def __repr__(self) -> str: return f"device(type='{self.type}'{'' if self.index is None else f', index={self.index}'})"

HOST_DEVICES = ("NUMPY", "PYTHON")
def device_name(name) -> str:
  """The runtime's name of a device: 'cuda:0' -> 'CUDA', None -> DEVICE."""
  if name is None: return DEVICE.value
  if isinstance(name, int): return DEVICE.value if name == 0 else f"{DEVICE.value}:{name}"
  text = str(name)
  if text in ("cpu", "cpu:0") and DEVICE.value in HOST_DEVICES: return DEVICE.value
  return text.upper().removesuffix(":0")

class Default:
  """dtype of Python floats; set by set_default_dtype."""
  dtype: DType = dtypes.float32
def get_default_dtype() -> DType: return Default.dtype
def set_default_dtype(dtype: DType) -> None: Default.dtype = dtype

# ---- gradient modes: a `with` block, a decorator ---------------------------------------------------------------------

class GradMode:
  """Whether operations are recorded for backward()."""
  recording = True

class changed(contextlib.ContextDecorator):
  """A block, or function, during which an attribute of a class has another value."""
  def __init__(self, where: type, name: str, value: Any):
    self.where, self.name, self.value = where, name, value
    self.before: list[Any] = []
  def __enter__(self) -> "changed":
    self.before.append(getattr(self.where, self.name))
    setattr(self.where, self.name, self.value)
    return self
  def __exit__(self, *_) -> None: setattr(self.where, self.name, self.before.pop())

def set_mode(recording) -> changed: return changed(GradMode, "recording", bool(recording))

def no_grad(function: Callable[..., Any] | None = None) -> Any:
  """A block, or function, in which operations are not recorded."""
  return set_mode(False)(function) if function else set_mode(False)
def enable_grad(function: Callable[..., Any] | None = None) -> Any:
  """A block, or function, in which operations are recorded."""
  return set_mode(True)(function) if function else set_mode(True)
def inference_mode(mode: Any = True) -> Any:
  """A block, or function, in which operations are not recorded; with False, in which they are."""
  return no_grad(mode) if callable(mode) else set_mode(not mode)

class set_grad_enabled:
  """Sets the mode at once; as a context, until the end of the block; as a decorator, in the function alone."""
  def __init__(self, mode: bool):
    self.before, self.mode = GradMode.recording, bool(mode)
    GradMode.recording = self.mode
  def __enter__(self) -> None: GradMode.recording = self.mode
  def __exit__(self, *_) -> None: GradMode.recording = self.before
  def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
    GradMode.recording = self.before
    return set_mode(self.mode)(function)

def is_grad_enabled() -> bool: return GradMode.recording

class Autocast:
  """The dtype to which matrix products convert their operands; None leaves them as they are."""
  dtype: DType | None = None

class Precision:
  """How exact matrix products of float32 are: see set_float32_matmul_precision."""
  float32_matmul = "highest"
def get_float32_matmul_precision() -> str: return Precision.float32_matmul
def set_float32_matmul_precision(precision: str) -> None:
  """Of float32 products. 'highest': they are exact. 'high', 'medium': matrix units may round operands to tf32."""
  if precision not in ("highest", "high", "medium"):
    raise ValueError(f"precision {precision!r}: 'highest', 'high' or 'medium' is expected")
  Precision.float32_matmul = precision

def for_product(*tensors: Any) -> tuple[Any, ...]:
  """The operands of a matrix product (or None), floats in the dtype that autocast asks for; float64 stays."""
  return converted(tensors, (*dtypes.halves, dtypes.float32), Autocast.dtype)

def for_sums(*tensors: Any) -> tuple[Any, ...]:
  """What autocast keeps exact, such as norms and losses: 16-bit floats as float32."""
  return converted(tensors, dtypes.halves, Autocast.dtype and dtypes.float32)

def converted(tensors: Sequence[Any], of: Sequence[DType], to: DType | None) -> tuple[Any, ...]:
  """Tensors (or None), those of some dtypes in another one, if there is one."""
  return tuple(t.cast(to) if to is not None and t is not None and t.dtype in of else t for t in tensors)

def number_dtype(x) -> DType:
  if isinstance(x, bool): return dtypes.bool
  return dtypes.int64 if isinstance(x, int) else Default.dtype

# ---- dimensions, sizes, strides --------------------------------------------------------------------------------------

def axis_of(dim: int, rank: int) -> int:
  """A dimension counted from the start."""
  count = max(rank, 1)
  if not -count <= dim < count:
    raise IndexError(f"Dimension out of range (expected to be in range of [{-count}, {count - 1}], but got {dim})")
  return dim % count

Ints = tuple[int, ...]            # one number for each dimension

def axes_of(dim, rank: int) -> Ints:
  """The dimensions that dim names; None and () name all."""
  if dim is None: return tuple(range(rank))
  if isinstance(dim, int): return (axis_of(dim, rank),)[:rank]
  return tuple(sorted({axis_of(int(d), rank) for d in dim}))[:rank] or tuple(range(rank))

def sizes_of(sizes: Sequence[Any]) -> Ints:
  """Sizes given one by one or as one sequence."""
  if len(sizes) == 1 and isinstance(sizes[0], (tuple, list)): sizes = sizes[0]
  return tuple(int(n) for n in sizes)

Function = TypeVar("Function", bound=Callable[..., Any])
SPELLINGS = {"axis": "dim", "keepdims": "keepdim", "axes": "dims"}

def either_spelling(function: Function) -> Function:
  """Also takes NumPy's names for the keywords."""
  @functools.wraps(function)
  def spelled(*args, **kwargs) -> Any:
    return function(*args, **{SPELLINGS.get(name, name): value for name, value in kwargs.items()})
  return spelled  # type: ignore[return-value]

def strides_of(shape: Sequence[int]) -> Ints:
  """Elements from one index to the next in each dimension of a contiguous tensor."""
  steps = [1]
  for n in reversed(shape[1:]): steps.append(steps[-1] * max(1, n))
  return tuple(reversed(steps[:len(shape)]))

def reshaped_strides(shape: Sequence[int], strides: Sequence[int], new: Sequence[int]) -> Ints | None:
  """Strides that show the same memory in another shape; None where elements would have to move."""
  old = [(n, s) for n, s in zip(shape, strides) if n != 1]
  if prod(shape) == 0 or not old: return strides_of(new)
  runs = [list(old[0])]                                  # (elements, stride) of dimensions that are contiguous together
  for n, s in old[1:]:
    if runs[-1][1] == n * s: runs[-1] = [runs[-1][0] * n, s]
    else: runs.append([n, s])
  out: list[int] = []
  size, stride = runs.pop()
  left = size
  for n in reversed(new):
    if n != 1 and left == 1 and runs: left, stride = runs.pop()
    if n > left or left % n: return None
    out.append(stride)
    stride, left = stride * n, left // n
  return tuple(reversed(out)) if left == 1 and not runs else None
