# device.py: the protocols of a device and of its memory, the registry, and the table that gives each BUFFER leaf its
# memory. In: names such as "CPU" or "CUDA:1". Out: Device objects, opened once, on first use. Memory is freed when the
# last BUFFER node that names it dies; freed blocks wait for the next request of their size: fresh pages are slow.
from __future__ import annotations
import contextlib, ctypes, importlib, math, mmap, sys, time, threading, weakref
from typing import Any, Callable, Protocol, Sequence
import numpy as np
from picograd.codegen.target import Target
from picograd.dtype import DType, dtypes
from picograd.helpers import Counters, DEBUG
from picograd.ops.shape import Shape
from picograd.ops.uop import UOp

class Program(Protocol):
  """A loaded kernel. Called with one memory address (or array) per PARAM, in slot order."""
  def __call__(self, memory: list[Any]) -> None: ...

class Device:
  """What a back end must offer. A device without a target interprets tensor graphs (runtime/numpy.py)."""
  name: str
  target: Target | None = None
  stream: Any = None                    # what work is queued in, where other libraries queue theirs elsewhere
  is_behind = False                     # work is queued: errors are found when somebody looks at results
  alignment = 1                         # bytes: kernels need memory that begins at a multiple of it

  def compiler(self) -> tuple[Any, ...] | None:
    """A function and its arguments, by which another process gets what has my target, render, compile and cache_key.
    None: only this process can compile for me."""
    return None
  def allocate(self, nbytes: int) -> Any: raise NotImplementedError
  def free(self, memory: Any, nbytes: int) -> None: pass
  def slice(self, memory: Any, offset: int, nbytes: int) -> Any:
    """A part of an allocation, as memory of its own that the allocation outlives."""
    raise NotImplementedError
  def copy_in(self, memory: Any, data: np.ndarray) -> None: raise NotImplementedError
  def copy_out(self, memory: Any, data: np.ndarray) -> None: raise NotImplementedError
  def copy(self, memory: Any, source: Any, nbytes: int) -> None: raise NotImplementedError
  def is_same(self, memory: Any, other: Any) -> bool:
    """Whether the bytes of two allocations are equal; False where to look would take longer than a copy."""
    return False
  def memory_at(self, address: int, nbytes: int) -> Any:
    """Memory that somebody else has allocated on this device."""
    raise NotImplementedError
  def render(self, kernel: Any) -> str:
    """Source text of a kernel in the target's form (flat Function or linear list)."""
    raise NotImplementedError
  def compile(self, source: str) -> bytes:
    """The binary of a source; the caller caches it on disk."""
    raise NotImplementedError
  def cache_key(self, source: str) -> bytes:
    """What the binary of a source depends on."""
    raise NotImplementedError
  def load(self, name: str, binary: bytes) -> Program: raise NotImplementedError
  def capture(self, calls: "Sequence[tuple[Any, list[Any]]]") -> "Callable[[Sequence[Any], Sequence[int]], None]":
    """The calls, in order, as one: (program, arguments), where an argument is memory, or a number: that of the moving
    argument which the result is called with. It is told, too, which of those may not be what they were in the call
    before."""
    def run(moving: Sequence[Any], changed: Sequence[int]) -> None:
      for program, arguments in calls: program([moving[a] if isinstance(a, int) else a for a in arguments])
    return run
  def synchronize(self) -> None: pass
  def timed(self, work: Callable[[], None]) -> float:
    """Seconds that the device spends on what work launches."""
    start = time.perf_counter()
    work()
    self.synchronize()
    return time.perf_counter() - start
  def limits(self) -> Any:
    """What the machine can do at best, as something with seconds(operations, bytes read, bytes written); None: not
    known."""
  def check(self, flags: "Buffer", errors: Sequence[Exception]) -> None:
    """Raises the error of a flag, an int32 for each, that is set. A device that runs behind its caller does so later,
    but before anything that it computed is looked at."""
    found: np.ndarray = np.zeros(len(errors), np.int32)
    self.synchronize()
    self.copy_out(flags.memory, found)
    raise_first(found, errors)

def raise_first(flags: np.ndarray, errors: Sequence[Exception]) -> None:
  """Raises the error of the first flag that is set."""
  for flag, error in zip(flags, errors):
    if flag: raise error

ALIGNMENT = 64       # bytes: a cache line, and what non-temporal stores need

LARGE = 1 << 16      # bytes from which on requests of nearly one size share memory
CHUNK = 1 << 25      # bytes that are asked of the system at once
PAGE = 1 << 21       # bytes of a large page

def aligned(nbytes: int) -> np.ndarray:
  raw: np.ndarray = np.empty(nbytes + ALIGNMENT, np.uint8)
  start = -host_address(raw) % ALIGNMENT
  return raw[start:start + nbytes]

def large_pages(nbytes: int) -> np.ndarray:
  """Memory that the system gives this time, in large pages where it has them: over what malloc has given before, in
  pages of 4 KB, weights are read up to 1.5 times slower."""
  whole = mmap.mmap(-1, nbytes + PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANON)
  with contextlib.suppress(AttributeError, OSError): whole.madvise(mmap.MADV_HUGEPAGE)         # where there are such
  raw: np.ndarray = np.frombuffer(whole, np.uint8)
  start = -host_address(raw) % PAGE
  return raw[start:start + nbytes]

class HostDevice(Device):
  """Memory is a NumPy array of bytes, aligned to a cache line. Freed arrays wait in `spare` for the next request of
  their size; those that have waited longest go when there are too many."""
  spare_limit = 1 << 30

  def __init__(self, name: str):
    self.name = name
    self.spare: dict[int, list[np.ndarray]] = {}       # room -> arrays of that many bytes; last used last
    self.spare_bytes = 0
    self.chunk: np.ndarray = np.empty(0, np.uint8)     # what is left of the last one
    self.busy = threading.Lock()

  def compiler(self) -> tuple[Any, ...]: return device, self.name

  def room(self, nbytes: int) -> int:
    """What is allocated for a request: a large one is rounded up, by an eighth at most."""
    if nbytes < LARGE: return nbytes
    step = 1 << nbytes.bit_length() - 4
    return -(-nbytes // step) * step

  def allocate(self, nbytes: int) -> Any:
    room = nbytes if nbytes < LARGE else self.room(nbytes)
    waiting = self.spare.get(room)
    if waiting:
      self.spare_bytes -= room
      block = waiting.pop()
    else: block = self.fresh(room)
    return block if len(block) == nbytes else self.beginning(block, nbytes)

  def fresh(self, nbytes: int) -> np.ndarray:
    """Memory of its own, or a piece of a chunk."""
    if nbytes < LARGE: return aligned(nbytes)
    if nbytes > CHUNK // 8: return large_pages(nbytes)
    with self.busy:
      if len(self.chunk) < nbytes: self.chunk = large_pages(CHUNK)
      piece, self.chunk = self.chunk[:nbytes], self.chunk[-(-nbytes // ALIGNMENT) * ALIGNMENT:]
    return piece

  def free(self, memory: np.ndarray, nbytes: int) -> None:
    room = nbytes if nbytes < LARGE else self.room(nbytes)
    if room > nbytes and len(allocation(memory)) < room: return        # it came from elsewhere
    waiting = self.spare.pop(room, None) or []
    waiting.append(memory)
    self.spare[room] = waiting
    self.spare_bytes += room
    while self.spare_bytes > self.spare_limit: self.drop_oldest()

  def beginning(self, block: np.ndarray, nbytes: int) -> np.ndarray:
    """So many bytes from where block begins, which may have been cut shorter before."""
    if len(block) > nbytes: return self.slice(block, 0, nbytes)
    raw = allocation(block)
    return self.slice(raw, host_address(block) - host_address(raw), nbytes)

  def drop_oldest(self) -> None:
    room, waiting = next(iter(self.spare.items()))
    if waiting:
      waiting.pop()
      self.spare_bytes -= room
    else: del self.spare[room]

  def check(self, flags: "Buffer", errors: Sequence[Exception]) -> None:
    if any(flags.memory.tobytes()): raise_first(flags.memory.view(np.int32), errors)

  def slice(self, memory: np.ndarray, offset: int, nbytes: int) -> np.ndarray:
    return memory[offset:offset + nbytes]
  def copy_in(self, memory: np.ndarray, data: np.ndarray) -> None:
    np.ndarray(data.shape, data.dtype, memory)[...] = data
  def copy_out(self, memory: np.ndarray, data: np.ndarray) -> None:
    data[...] = np.ndarray(data.shape, data.dtype, memory)
  def copy(self, memory: np.ndarray, source: np.ndarray, nbytes: int) -> None: memory[:] = source
  def is_same(self, memory: np.ndarray, other: np.ndarray) -> bool:
    word = f"u{math.gcd(len(memory), 8)}"              # NumPy compares by elements: the fewer, the faster
    return np.array_equal(memory.view(word), other.view(word))
  def memory_at(self, address: int, nbytes: int) -> np.ndarray:
    return np.frombuffer((ctypes.c_uint8 * nbytes).from_address(address), np.uint8)

def allocation(memory: np.ndarray) -> np.ndarray:
  """What memory is a part of."""
  raw = memory
  while isinstance(raw.base, np.ndarray): raw = raw.base               # NumPy skips views, but not those of a subclass
  return raw

def host_address(data: np.ndarray) -> int:
  """Where an array begins, without an import: memory may be freed while the interpreter ends."""
  return data.__array_interface__["data"][0]

# ---- memory of BUFFER leaves -----------------------------------------------------------------------------------------

class Buffer:
  """Device memory of nbytes bytes, allocated on first use; frees itself with its last reference."""
  __slots__ = ("device", "nbytes", "version", "allocated", "__weakref__")
  def __init__(self, device: Device, nbytes: int):
    self.device, self.nbytes = device, nbytes
    self.version = 0                      # assignments that have run on this memory
    self.allocated: Any = None

  @property
  def memory(self) -> Any: return self.allocate() if self.allocated is None else self.allocated

  def allocate(self) -> Any:
    self.allocated = self.device.allocate(self.nbytes)
    live = Counters.bytes_live = Counters.bytes_live + self.nbytes
    if live > Counters.bytes_peak: Counters.bytes_peak = live
    return self.allocated

  def __del__(self) -> None:
    if self.allocated is None or Counters is None or sys.is_finalizing(): return
    Counters.bytes_live -= self.nbytes
    self.device.free(self.allocated, self.nbytes)

buffers: "weakref.WeakKeyDictionary[UOp, Buffer]" = weakref.WeakKeyDictionary()   # BUFFER leaf -> its memory

def buffer_of(leaf: UOp) -> Buffer:
  """The memory of a BUFFER leaf, made on first use."""
  found = buffers.get(leaf)
  if found is None:
    nbytes = leaf.arg.size * leaf.dtype.itemsize
    found = buffers[leaf] = Buffer(device(leaf.arg.device), nbytes)
  return found

def buffer_named(buffer: Buffer, dtype: DType) -> UOp:
  """A new BUFFER leaf that names memory, as it is now."""
  leaf = UOp.buffer(dtype, buffer.nbytes // dtype.itemsize, buffer.device.name)
  if buffer.version: leaf = leaf.replace(arg=leaf.arg._replace(version=buffer.version))
  buffers[leaf] = buffer
  return leaf

HOST_DTYPES: dict[DType, Any] = {dt: np.dtype("uint16" if dt is dtypes.bfloat16 else dt.name) for dt in dtypes.all}
def numpy_dtype(dtype: DType) -> Any:
  """NumPy's type for a host copy; bfloat16, which NumPy lacks, travels as its 16 bits."""
  return HOST_DTYPES[dtype]

def buffer_holding(data: np.ndarray, device_name: str) -> Buffer:
  """Memory on a device with a copy of data."""
  buffer = Buffer(device(device_name), data.nbytes)
  if data.size: buffer.device.copy_in(buffer.memory, data)
  return buffer

def buffer_from_host(data: np.ndarray, dtype: DType, device_name: str) -> UOp:
  """A new flat BUFFER leaf on a device, filled with a copy of data (bfloat16 as uint16 bits)."""
  return buffer_named(buffer_holding(data.astype(numpy_dtype(dtype), copy=False), device_name), dtype)

def to_host(leaf: UOp) -> np.ndarray: return copy_of(buffer_of(leaf), (leaf.arg.size,), leaf.dtype)
def copy_of(buffer: Buffer, shape: Shape, dtype: DType) -> np.ndarray:
  """A buffer's elements as an array of the host's (bfloat16 as uint16 bits)."""
  out = np.empty(shape, numpy_dtype(dtype))
  if not out.size: return out
  buffer.device.synchronize()
  buffer.device.copy_out(buffer.memory, out)
  return out

# ---- registry --------------------------------------------------------------------------------------------------------

# device kind -> module of picograd.runtime
MODULES = {"CPU": "cpu", "NUMPY": "numpy", "PYTHON": "python", "RISCV": "riscv", "CUDA": "cuda"}
opened: dict[str, Device] = {}

def device(name: str) -> Device:
  """The device of this name, opened on first use. ValueError lists the known names."""
  if name in opened: return opened[name]
  kind = name.split(":")[0]
  if kind not in MODULES: raise ValueError(f"unknown device {name!r}: known are {', '.join(MODULES)}")
  module = importlib.import_module(f"picograd.runtime.{MODULES[kind]}")
  opened[name] = module.open_device(name)
  if DEBUG >= 1: print(f"opened {name}" + (f": {opened[name].target}" if opened[name].target else ""))
  return opened[name]

