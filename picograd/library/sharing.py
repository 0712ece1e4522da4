# sharing.py: memory that another library sees too, by DLPack, by NumPy's protocols and by Python's buffers. In: a
# tensor, or an object that exports memory. Out: a capsule or an array over the tensor's memory, or a tensor over
# theirs; nothing is copied. A tensor whose memory others see reads it as it is at the time of each operation, and
# writes to it at once: they may write whenever they like, and no graph can know. (The DLPack specification, 1.0)
from __future__ import annotations
import ctypes, weakref
from typing import Any, Callable, NamedTuple, Sequence
import numpy as np
from picograd.arithmetic import detach
from picograd.common import Ints, device_name, reshaped_strides, strides_of
from picograd.dtype import DType, dtypes
from picograd.helpers import argsort, prod
from picograd.ops.ops import Ops
from picograd.ops.uop import UOp
from picograd.runtime import realize as runtime
from picograd.runtime.device import Buffer, buffer_holding, buffer_named, buffer_of, device, numpy_dtype
from picograd.storage import Form, Steps, Storage, buffer_under, realize
from picograd.tensor import Tensor, over, zeros

# ---- storages whose memory others see --------------------------------------------------------------------------------

class Shared(Storage):
  """A storage whose memory is seen by others too. Readers get a copy of what it holds now; a capture reads the memory
  itself, each time it runs."""
  __slots__ = ()

  def plain(self) -> UOp:
    if runtime.watchers: return super().plain()
    return detach(self.now()) if self.leaf else self.now()
  def recorded(self) -> UOp:
    if runtime.watchers: return super().recorded()
    copy = self.now()
    self.remember([copy])
    return copy

  def now(self) -> UOp:
    """What the memory holds, in memory of its own: the copy that was made last, if somebody still needs it and nobody
    has written since. An operation that looks several times at its operand becomes a kernel that reads it once."""
    buffer, form = in_memory(self)
    last = copies.get(self)
    copy = last() if last is not None else None
    if copy is None or not holds_the_same(copy, buffer):
      copy = copy_of(buffer, form)
      copies[self] = weakref.ref(copy)
    return copy.reshape(form.shape)

  def is_known(self) -> bool: return False               # what was known of the values may be true no more
  def write(self, steps: Steps, value: UOp) -> None:
    super().write(steps, value)
    if not runtime.watchers: realize([self])
  def set(self, uop: UOp) -> None:
    super().set(uop)
    if buffer_under(uop) is not None: return
    raise RuntimeError("memory that another library shares cannot change in a recorded operation: clone() it first")

copies: "weakref.WeakKeyDictionary[Storage, weakref.ref[UOp]]" = weakref.WeakKeyDictionary()    # made last, of each

def copy_of(buffer: Buffer, form: Form) -> UOp:
  """A BUFFER leaf with what the memory holds now."""
  copy = Buffer(buffer.device, buffer.nbytes)
  if copy.nbytes: copy.device.copy(copy.memory, buffer.memory, copy.nbytes)
  return buffer_named(copy, form.dtype)

def holds_the_same(leaf: UOp, buffer: Buffer) -> bool:
  """Whether a copy is, bit by bit, what the memory holds now."""
  if runtime.is_overwritten(leaf): return False
  return buffer.device.is_same(buffer_of(leaf).memory, buffer.memory)

def in_memory(storage: Storage) -> tuple[Buffer, Form]:
  buffer, form = storage.in_memory(), storage.form
  assert buffer is not None and form is not None, "what is shared is in memory"
  return buffer, form

users: "weakref.WeakKeyDictionary[Storage, int]" = weakref.WeakKeyDictionary()       # how many others see its memory

def share(storage: Storage) -> Buffer:
  """The memory of a storage, which others see from now on, until as many have called unshare."""
  if storage not in users: storage.settle()
  storage.__class__ = Shared
  users[storage] = users.get(storage, 0) + 1
  buffer, _ = in_memory(storage)
  buffer.device.synchronize()
  return buffer

def unshare(storage: Storage) -> None:
  left = users.pop(storage, 1) - 1                     # the entry is gone where a cycle dies with storage and window
  if left: users[storage] = left
  else: storage.__class__ = Storage

class Borrowed(Buffer):
  """Memory of somebody else, which lives as long as `owner` does."""
  __slots__ = ("owner",)
  owner: Any
  def __del__(self) -> None: self.owner = None

# ---- where a view lies -----------------------------------------------------------------------------------------------

class Place(NamedTuple):
  """Where a view's elements are, in elements from the start of the memory."""
  offset: int
  shape: Ints
  strides: Ints

def place_of(steps: Steps, shape: Ints) -> Place:
  """Where a view of contiguous memory lies. BufferError where it has no strides."""
  at = Place(0, shape, strides_of(shape))
  for op, arg in steps: at = VIEWS[op](at, arg) if op in VIEWS else at
  return at

def reshaped(at: Place, shape: Ints) -> Place:
  strides = reshaped_strides(at.shape, at.strides, shape)
  if strides is None: raise BufferError("this view of a tensor has no strides: share its clone()")
  return Place(at.offset, shape, strides)

def expanded(at: Place, shape: Ints) -> Place:
  kept = zip(at.strides, at.shape, shape)
  return Place(at.offset, shape, tuple(s if n == m else 0 for s, n, m in kept))

def bounded(at: Place, bounds: Sequence[tuple[int, int]]) -> Place:
  """From low to high along each dimension: also beyond what there is, for a view that drops it again."""
  offset = at.offset + sum(low * s for (low, _), s in zip(bounds, at.strides))
  return Place(offset, tuple(high - low for low, high in bounds), at.strides)

VIEWS: dict[Ops, Callable[[Place, Any], Place]] = {
  Ops.RESHAPE: reshaped,
  Ops.EXPAND: expanded,
  Ops.PERMUTE: lambda at, axes: Place(at.offset, tuple(at.shape[a] for a in axes), tuple(at.strides[a] for a in axes)),
  Ops.SHRINK: bounded,
  Ops.PAD: lambda at, widths: bounded(at, [(-low, n + high) for n, (low, high) in zip(at.shape, widths)]),
}

class Window:
  """The memory that a tensor sees: address, shape and strides. It is shared as long as this object lives."""
  def __init__(self, t: Tensor):
    if t.requires_grad: raise BufferError("Can't export tensors that require gradient, use tensor.detach()")
    self.dtype = t.dtype
    offset, self.shape, self.strides = place_of(t.steps, t.storage.uop.shape)
    self.buffer = share(t.storage)
    self.storage = t.storage
    start = address_of(self.buffer.memory) if self.buffer.nbytes else 0
    self.address = start + offset * self.dtype.itemsize
  def __del__(self) -> None:
    if hasattr(self, "storage"): unshare(self.storage)

  @property
  def __array_interface__(self) -> dict[str, Any]:
    if self.dtype is dtypes.bfloat16: raise BufferError("NumPy has no bfloat16: call float() first")
    if device_code(self.buffer.device.name)[0] != HOST:
      raise BufferError(f"NumPy cannot see the memory of {self.buffer.device.name}: call cpu() first")
    kind = numpy_dtype(self.dtype)
    return {"version": 3, "typestr": kind.str, "shape": self.shape, "data": (self.address, False),
            "strides": tuple(s * kind.itemsize for s in self.strides)}

def address_of(memory: Any) -> int:
  return memory.__array_interface__["data"][0] if isinstance(memory, np.ndarray) else memory.address

# ---- NumPy's protocol and Python's -----------------------------------------------------------------------------------

def __array__(self: Tensor, dtype=None, copy=None) -> np.ndarray:
  """A copy for NumPy; with copy=False the memory itself. BufferError where that cannot be."""
  if copy is not False:
    data = self.numpy()
    return data.astype(dtype or data.dtype)
  data = np.asarray(Window(self))
  if dtype is None or np.dtype(dtype) == data.dtype: return data
  raise ValueError(f"Unable to avoid a copy: the tensor's dtype is {self.dtype.name}, not {np.dtype(dtype)}")

def __buffer__(self: Tensor, flags: int) -> memoryview:
  """My memory, for memoryview() and whatever else takes buffers (Python 3.12)."""
  return memoryview(np.asarray(Window(self)))

# ---- DLPack ----------------------------------------------------------------------------------------------------------

HOST, CUDA = 1, 2                      # kDLCPU, kDLCUDA
KINDS = {"i": 0, "u": 1, "f": 2, "b": 6}               # kDLInt, kDLUInt, kDLFloat, kDLBool; kDLBfloat is 4
BFLOAT = 4

class DLDevice(ctypes.Structure):
  _fields_ = [("kind", ctypes.c_int32), ("number", ctypes.c_int32)]
class DLDataType(ctypes.Structure):
  _fields_ = [("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16)]
class DLTensor(ctypes.Structure):
  _fields_ = [("data", ctypes.c_void_p), ("device", DLDevice), ("ndim", ctypes.c_int32), ("dtype", DLDataType),
              ("shape", ctypes.POINTER(ctypes.c_int64)), ("strides", ctypes.POINTER(ctypes.c_int64)),
              ("byte_offset", ctypes.c_uint64)]

Deleter = ctypes.CFUNCTYPE(None, ctypes.c_void_p)

class Managed(ctypes.Structure):
  """DLManagedTensor, of before version 1"""
  _fields_ = [("tensor", DLTensor), ("context", ctypes.c_void_p), ("deleter", Deleter)]
class ManagedVersioned(ctypes.Structure):
  """DLManagedTensorVersioned"""
  _fields_ = [("major", ctypes.c_uint32), ("minor", ctypes.c_uint32), ("context", ctypes.c_void_p),
              ("deleter", Deleter), ("flags", ctypes.c_uint64), ("tensor", DLTensor)]

READ_ONLY = 1                          # a flag: the memory must not be written to
FORMS: dict[bytes, Any] = {b"dltensor_versioned": ManagedVersioned, b"dltensor": Managed}     # capsule's name -> form
USED = {name: b"used_" + name for name in FORMS}        # its name once that has been taken

api = ctypes.pythonapi
Destructor = ctypes.PYFUNCTYPE(None, ctypes.c_void_p)
new_capsule = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, Destructor)(("PyCapsule_New", api))
holds = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p)(("PyCapsule_IsValid", api))
content = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)(("PyCapsule_GetPointer", api))
rename = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p)(("PyCapsule_SetName", api))

exported: dict[int, tuple] = {}        # address of a managed tensor -> what it needs until its deleter is called

@Deleter
def forget(address: int) -> None: exported.pop(address, None)

@Destructor
def drop_unused(capsule: int) -> None:
  """A capsule goes that nobody has taken the tensor out of."""
  for name in FORMS:
    if holds(capsule, name): forget(content(capsule, name))

def device_code(name: str) -> tuple[int, int]:
  """A device as DLPack numbers it."""
  kind, _, number = name.partition(":")
  return (CUDA if kind == "CUDA" else HOST), int(number or 0)

def __dlpack_device__(self: Tensor) -> tuple[int, int]: return device_code(self.storage.device)

def __dlpack__(self: Tensor, *, stream=None, max_version=None, dl_device=None, copy=None) -> Any:
  """A capsule over my memory. BufferError where I require a gradient, or another device is asked for."""
  if dl_device is not None and tuple(dl_device) != __dlpack_device__(self):
    raise BufferError(f"the tensor is on {self.device}: move it with to() first")
  window = Window(self.detach().clone().realize() if copy else self)
  name = b"dltensor_versioned" if max_version is not None and max_version[0] >= 1 else b"dltensor"
  rank = len(window.shape)
  shape, strides = (ctypes.c_int64 * rank)(*window.shape), (ctypes.c_int64 * rank)(*window.strides)
  code = BFLOAT if window.dtype is dtypes.bfloat16 else KINDS[window.dtype.kind]
  managed = FORMS[name]()
  managed.tensor = DLTensor(window.address, DLDevice(*device_code(window.buffer.device.name)), rank,
                            DLDataType(code, window.dtype.itemsize * 8, 1), shape, strides, 0)
  managed.deleter = forget
  if name == b"dltensor_versioned": managed.major, managed.minor = 1, 0
  address = ctypes.addressof(managed)
  exported[address] = (managed, shape, strides, window)
  return new_capsule(address, name, drop_unused)

class Owner:
  """A managed tensor that was taken out of a capsule: its deleter is called when nobody here needs it."""
  def __init__(self, managed: Any): self.managed = managed
  def __del__(self) -> None:
    if self.managed.deleter: self.managed.deleter(ctypes.addressof(self.managed))

def taken(capsule: Any) -> Owner:
  """What a capsule holds, which is empty from now on."""
  address = id(capsule)                # CPython: where the object is
  for name, form in FORMS.items():
    if not holds(address, name): continue
    managed = form.from_address(content(address, name))
    rename(address, USED[name])
    return Owner(managed)
  raise BufferError("a capsule that holds a DLPack tensor is expected: it may have been used before")

def dtype_of(code: DLDataType) -> DType:
  for dtype in dtypes.all:
    kind = BFLOAT if dtype is dtypes.bfloat16 else KINDS[dtype.kind]
    if (kind, dtype.itemsize * 8, 1) == (code.code, code.bits, code.lanes): return dtype
  raise BufferError(f"there is no dtype of kind {code.code} with {code.bits} bits and {code.lanes} lanes")

def from_dlpack(x: Any, device=None, copy: bool | None = None) -> Tensor:
  """A tensor over the memory of an object that has __dlpack__ (of NumPy, torch, JAX, ..), or of a capsule: a write on
  either side is seen on the other. Memory that has gaps, that may not be written to, or that begins where the device's
  kernels cannot read vectors is copied. BufferError for dtypes and devices that do not exist here, and where copy=False
  cannot be kept."""
  owner = taken(capsule_of(x) if hasattr(x, "__dlpack__") else x)
  source = owner.managed.tensor
  dtype, home = dtype_of(source.dtype), home_of(source.device)
  shape = tuple(source.shape[:source.ndim])
  strides = tuple(source.strides[:source.ndim]) if source.strides else strides_of(shape)
  order = tuple(sorted(range(len(shape)), key=lambda d: (-strides[d], d)))     # from the outermost to the innermost
  base = tuple(shape[d] for d in order)
  dense = all(n == 1 or strides[d] == wanted for d, n, wanted in zip(order, base, strides_of(base)))
  if not dense or getattr(owner.managed, "flags", 0) & READ_ONLY or not prod(shape):
    if copy is False: raise BufferError("Unable to avoid a copy: the memory has gaps or may not be written to")
    return copied(owner, shape, strides, dtype, home)
  t = seen(owner, base, dtype, home)
  buffer, _ = in_memory(t.storage)
  is_aligned = address_of(buffer.memory) % buffer.device.alignment == 0
  if not is_aligned and copy is False:
    raise BufferError(f"Unable to avoid a copy: {home} needs memory that begins at a multiple of "
                      f"{buffer.device.alignment} bytes")
  t = t.permute(argsort(order))
  if copy or not is_aligned: t = t.clone().realize()
  return t if device is None else t.to(device=device)

def capsule_of(x: Any) -> Any:
  """With our stream, which waits for what has been asked of the memory."""
  where = device(home_of(DLDevice(*map(int, x.__dlpack_device__()))))
  options = {} if where.stream is None else {"stream": where.stream.handle}
  try: return x.__dlpack__(max_version=(1, 0), **options)
  except TypeError: return x.__dlpack__(**options)

def home_of(where: DLDevice) -> str:
  if where.kind == CUDA: return f"CUDA:{where.number}".removesuffix(":0")
  if where.kind == HOST: return device_name("cpu")
  raise BufferError(f"there is no device for DLPack's kind {where.kind}")

def seen(owner: Owner, shape: Ints, dtype: DType, home: str) -> Tensor:
  """A tensor over contiguous memory of somebody else."""
  where, source, nbytes = device(home), owner.managed.tensor, prod(shape) * dtype.itemsize
  buffer = Borrowed(where, nbytes)
  buffer.allocated, buffer.owner = where.memory_at(source.data + source.byte_offset, nbytes), owner
  storage = Shared.holding(buffer, Form(shape, dtype), home)
  users[storage] = 1
  return Tensor.on(storage, (), None)

def copied(owner: Owner, shape: Ints, strides: Ints, dtype: DType, home: str) -> Tensor:
  """A tensor with the values of memory that has gaps."""
  if not prod(shape): return zeros(*shape, dtype=dtype, device=home)
  source = owner.managed.tensor
  low = sum(min(0, (n - 1) * s) for n, s in zip(shape, strides))
  high = sum(max(0, (n - 1) * s) for n, s in zip(shape, strides)) + 1
  where = device(home)
  data: np.ndarray = np.empty(high - low, numpy_dtype(dtype))
  where.copy_out(where.memory_at(source.data + source.byte_offset + low * dtype.itemsize, data.nbytes), data)
  picked = np.lib.stride_tricks.as_strided(data[-low:], shape, [s * dtype.itemsize for s in strides])
  return over(buffer_holding(np.ascontiguousarray(picked), home), Form(shape, dtype))
