# cuda.py: NVIDIA GPUs. In: CUDA C (codegen/cuda.py). Out: cubins by NVRTC, run by PyCUDA on one stream of a device's
# context. Memory comes from a pool; freed blocks may be given out at once, because everything runs in the stream's
# order. A captured program is a CUDA graph, which PyCUDA lacks: cuda-bindings make it and launch it on the stream.
# The first line of a source says how a kernel is launched; a binary keeps that line before the cubin.   (chapter 3)
from __future__ import annotations
import atexit, ctypes, re
from typing import Any, Callable, NamedTuple, Sequence
import numpy as np
from picograd.codegen import cuda
from picograd.codegen.target import GPUS, cuda_target
from picograd.runtime import nvrtc
from picograd.runtime.device import Buffer, Device, raise_first

HEAD = re.compile(r"// (?P<entry>\w+) grid (?P<grid>\d+) block (?P<block>\d+) shared (?P<shared>\d+) "
                  r"arguments (?P<arguments>\d+) writes (?P<writes>[\d,]*)(?: in turn (?P<turns>\d+))?"
                  r"(?: early (?P<early>[\d,]+))?")
MAP = re.compile(r"// map slot (\d+) type (\w+) pitch (\d+) width (\d+) length (\d+) box (\d+) (\d+)")
HEAD_LINES = 3           # that say how a kernel is launched
GRAPHS = 8               # executable graphs that a captured program keeps, one for each set of addresses
PROGRAMMATIC_PORT = 1    # of a graph's kernel: where its dependents may be launched (CU_GRAPH_KERNEL_NODE_PORT_..)

def open_device(name: str) -> CudaDevice:
  try: import pycuda.driver as driver
  except ImportError as e: raise RuntimeError(f"DEVICE={name} needs PyCUDA: pip install pycuda ({e})") from None
  try: driver.init()
  except Exception as e: raise RuntimeError(f"DEVICE={name} needs an NVIDIA GPU and its driver: {e}") from None
  count = driver.Device.count()
  number = int(name.partition(":")[2] or 0)
  if number >= count: raise RuntimeError(f"DEVICE={name}: this machine has {count} GPUs, numbered from 0")
  nvrtc.library()
  return CudaDevice(name, driver, number, count)

class GpuLimits(NamedTuple):
  """Operations and bytes per second."""
  flops: float
  bandwidth: float
  def seconds(self, flops: float, read: float, written: float) -> float:
    return max(flops / self.flops, (read + written) / self.bandwidth)

COPIED = 256 << 20       # bytes of the copy that measures a GPU's memory

class Memory(NamedTuple):
  """A part of a device's memory."""
  address: int
  nbytes: int
  def overlaps(self, other: Memory) -> bool:
    return self.address < other.address + other.nbytes and other.address < self.address + self.nbytes

class CudaCompiler(Device):
  """What compiles for GPUs of one kind, without one."""
  def __init__(self, name: str, capability: tuple[int, int], units: int):
    self.name, self.capability, self.units = name, capability, units
    self.target = cuda_target(capability, units)
    self.arch = self.target.name.removeprefix("cuda-")

  def compiler(self) -> tuple[Any, ...]: return CudaCompiler, self.name, self.capability, self.units
  def render(self, kernel: Any) -> str: return cuda.render(kernel)
  def compile(self, source: str) -> bytes:
    head = [line for line in source.split("\n")[:HEAD_LINES] if line.startswith("// ")]
    return "\n".join(head).encode() + b"\n\n" + nvrtc.compile_cubin(source, self.arch)
  def cache_key(self, source: str) -> bytes: return f"{self.arch} {nvrtc.version()}\n{source}".encode()

class CudaDevice(CudaCompiler):
  is_behind = True
  alignment = 16                       # of wide accesses and of the matrices that bulk copies read
  def __init__(self, name: str, driver: Any, number: int, count: int):
    gpu = driver.Device(number)
    units, self.kilohertz = [gpu.get_attribute(getattr(driver.device_attribute, name))
                             for name in ("MULTIPROCESSOR_COUNT", "CLOCK_RATE")]
    super().__init__(name, gpu.compute_capability(), units)
    self.driver, self.count = driver, count
    self.context = gpu.retain_primary_context()                    # the one that other libraries use too
    self.context.push()
    from pycuda.tools import DeviceMemoryPool
    self.pool, self.stream = DeviceMemoryPool(), driver.Stream()
    self.overlaps = self.capability >= (9, 0)                      # kernels that wait by themselves for earlier ones
    self.context.pop()
    self.blocks: dict[int, Any] = {}                               # address -> what keeps it allocated
    self.programs: list[CudaProgram] = []
    self.checks: dict[Buffer, Sequence[Exception]] = {}            # flags that nobody has looked at since they were set
    atexit.register(self.close)

  def __enter__(self) -> None: self.context.push()
  def __exit__(self, *_: Any) -> None: self.driver.Context.pop()

  def allocate(self, nbytes: int) -> Memory:
    with self: block = self.pool.allocate(max(nbytes, 1))
    self.blocks[int(block)] = block
    return Memory(int(block), nbytes)
  def free(self, memory: Memory, nbytes: int) -> None:
    if memory.address not in self.blocks: return                   # the device has been closed
    with self: del self.blocks[memory.address]
  def slice(self, memory: Memory, offset: int, nbytes: int) -> Memory: return Memory(memory.address + offset, nbytes)
  def copy_in(self, memory: Memory, data: np.ndarray) -> None:
    """Data that is not pinned may change once this returns: the driver has a copy of it."""
    with self: self.driver.memcpy_htod_async(memory.address, np.ascontiguousarray(data), self.stream)
  def copy_out(self, memory: Memory, data: np.ndarray) -> None:
    with self:
      self.driver.memcpy_dtoh_async(data, memory.address, self.stream)
      self.stream.synchronize()
    self.look()
  def copy(self, memory: Memory, source: Memory, nbytes: int) -> None:
    with self: self.driver.memcpy_dtod_async(memory.address, source.address, nbytes, self.stream)
  def memory_at(self, address: int, nbytes: int) -> Memory: return Memory(address, nbytes)
  def synchronize(self) -> None:
    with self: self.stream.synchronize()
    self.look()

  def check(self, flags: Buffer, errors: Sequence[Exception]) -> None: self.checks[flags] = errors
  def look(self) -> None:
    """Raises the error of a flag that is set, once: no flag is set afterwards."""
    waiting, self.checks = self.checks, {}
    for flags, errors in waiting.items():
      found: np.ndarray = np.zeros(len(errors), np.int32)
      with self: self.driver.memcpy_dtoh(found, flags.memory.address)
      if found.any(): self.copy_in(flags.memory, np.zeros_like(found))
      raise_first(found, errors)

  def load(self, name: str, binary: bytes) -> CudaProgram:
    head, _, code = binary.partition(b"\n\n")
    found = HEAD.match(head.decode())
    maps = [MatrixMap(int(m[1]), m[2], *map(int, m.groups()[2:])) for m in MAP.finditer(head.decode())]
    assert found, f"{head!r} does not say how {name} is launched"
    grid, block, shared, arguments = [int(found[name]) for name in ("grid", "block", "shared", "arguments")]
    if found["turns"]: grid = min(grid, int(found["turns"]) * self.units)
    how = Launched((grid, 1, 1), (block, 1, 1), shared, arguments, maps, slots(found["writes"]), slots(found["early"]))
    with self:
      module = self.driver.module_from_buffer(code)
      function = module.get_function(found["entry"])
      function.prepare("P" * (arguments + bool(maps) + bool(how.early)))
      if shared > 48 << 10:
        function.set_attribute(self.driver.function_attribute.MAX_DYNAMIC_SHARED_SIZE_BYTES, shared)
    self.programs.append(CudaProgram(self, found["entry"], code, function, how))
    return self.programs[-1]

  def timed(self, work: Callable[[], None]) -> float:
    """Seconds that the device spends on what work launches."""
    with self:
      start, end = self.driver.Event(), self.driver.Event()
      start.record(self.stream)
      work()
      end.record(self.stream)
      end.synchronize()
      return end.time_since(start) / 1e3

  def limits(self) -> GpuLimits:
    """The speed of a copy, measured, and of the matrix units, from their clock."""
    target, source = [Buffer(self, COPIED) for _ in range(2)]
    to, at = target.memory.address, source.memory.address
    def copy() -> None:
      for _ in range(8): self.driver.memcpy_dtod_async(to, at, COPIED, self.stream)
    seconds = min(self.timed(copy) for _ in range(4)) / 8
    return GpuLimits(GPUS[self.capability].flops * self.units * self.kilohertz * 1e3, 2 * COPIED / seconds)

  def capture(self, calls: Sequence[tuple[CudaProgram, list[Any]]]) -> Replay: return Replay(self, calls)

  def close(self) -> None:
    """Gives everything back while the context is there: PyCUDA ends the process if it has to do so later."""
    with self:
      self.stream.synchronize()
      for program in self.programs:
        program.function = None
        program.encoded.clear()
      self.blocks.clear()
      self.checks.clear()
      del self.pool, self.stream
    self.context.detach()

class MatrixMap(NamedTuple):
  """A matrix as bulk copies see it: `length` rows that are `pitch` elements apart, of which the
  first `width` belong to it; a box is copied at once, its rows of 128 bytes swizzled."""
  slot: int
  dtype: str
  pitch: int
  width: int
  length: int
  across: int
  down: int

  def encoded(self, address: int) -> bytes:
    """The 128 bytes of a tensor map. (CUDA driver API, cuTensorMapEncodeTiled.)"""
    library = ctypes.CDLL("libcuda.so.1")
    raw = ctypes.create_string_buffer(192)
    at = ctypes.addressof(raw) + -ctypes.addressof(raw) % 64
    kind, itemsize = MAP_TYPES[self.dtype]
    ones, rest = (ctypes.c_uint32 * 2)(1, 1), [ctypes.c_int(n) for n in (0, SWIZZLE_128, PROMOTE_128, 0)]
    code = library.cuTensorMapEncodeTiled(
      ctypes.c_void_p(at), ctypes.c_int(kind), ctypes.c_uint32(2), ctypes.c_void_p(address),
      (ctypes.c_uint64 * 2)(self.width, self.length), (ctypes.c_uint64 * 1)(self.pitch * itemsize),
      (ctypes.c_uint32 * 2)(self.across, self.down), ones, *rest)
    if code: raise RuntimeError(f"cuTensorMapEncodeTiled refuses {self}: error {code}")
    return ctypes.string_at(at, 128)

SWIZZLE_128, PROMOTE_128 = 3, 2
MAP_TYPES = {"float16": (6, 2), "bfloat16": (9, 2), "float32": (11, 4)}      # type and bytes; 11 rounds to tf32
MAPS = 64                # sets of addresses for which a program keeps its tensor maps

def slots(text: str | None) -> tuple[int, ...]: return tuple(map(int, text.split(","))) if text else ()

class Launched(NamedTuple):
  """How a kernel is launched: the first line of its source, and those that describe tensor maps."""
  grid: tuple[int, int, int]
  block: tuple[int, int, int]
  shared: int
  arguments: int
  maps: list[MatrixMap]
  writes: tuple[int, ...]
  early: tuple[int, ...]

class CudaProgram:
  def __init__(self, device: CudaDevice, entry: str, code: bytes, function: Any, how: Launched):
    self.device, self.entry, self.code, self.function = device, entry, code, function
    self.found: Any = None                                         # the function for cuda-bindings
    self.grid, self.block, self.shared, self.arguments, self.maps, self.writes, self.early = how
    self.encoded: dict[tuple[int, ...], Any] = {}                  # addresses -> tensor maps in device memory

  def tensor_maps(self, memory: Sequence[Memory]) -> list[Any]:
    """The Buffer with the maps of some memory: they hold addresses, so there is one for each."""
    if not self.maps: return []
    key = tuple([memory[m.slot].address for m in self.maps])
    if key not in self.encoded:
      if len(self.encoded) >= MAPS: self.encoded.pop(next(iter(self.encoded)))
      data = b"".join([m.encoded(at) for m, at in zip(self.maps, key)])
      block = self.encoded[key] = Buffer(self.device, len(data))
      self.device.driver.memcpy_htod(block.memory.address, data)
    return [self.encoded[key]]

  def handle(self, driver: Any) -> Any:
    """The function for cuda-bindings: PyCUDA does not show its own."""
    if self.found is None:
      module = checked(driver.cuModuleLoadData(self.code))
      self.found = checked(driver.cuModuleGetFunction(module, self.entry.encode()))
      attribute = driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
      checked(driver.cuFuncSetAttribute(self.found, attribute, self.shared))
    return self.found

  def __call__(self, memory: Sequence[Memory]) -> None:
    """A kernel may read fewer slots than it was scheduled with: simplification can find that it needs no more."""
    with self.device:
      maps = [block.memory.address for block in self.tensor_maps(memory)]
      addresses = [m.address for m in memory[:self.arguments]] + maps + [0] * bool(self.early)
      stream, shared = self.device.stream, self.shared
      self.function.prepared_async_call(self.grid, self.block, stream, *addresses, shared_size=shared)

class Ready(NamedTuple):
  """An executable graph, and the tensor maps that it refers to."""
  graph: Any
  maps: list[Any]

class Replay:
  """Calls in order as one launch. An argument is memory, or the number of one that each call names anew. An executable
  graph holds addresses, so there is one for each set of them, made on first use; there are GRAPHS at most, of which the
  oldest then gets new addresses. Kernels wait by themselves for the one before (codegen/cuda.py, where the GPU can), so
  that they are launched while it runs."""
  def __init__(self, device: CudaDevice, calls: Sequence[tuple[CudaProgram, list[Any]]]):
    try: from cuda.bindings import driver
    except ImportError as e:
      raise RuntimeError(f"captured programs need cuda-bindings: pip install cuda-bindings ({e})") from None
    self.device, self.calls, self.driver = device, list(calls), driver
    self.moving = [bool(program.early) or any(isinstance(a, int) for a in arguments) for program, arguments in calls]
    self.nodes: list[Any] = []
    self.graph: Any = None
    self.fixed: list[Any] = []                                       # tensor maps that the graph refers to
    self.ready: dict[tuple[int, ...], Ready] = {}                    # by addresses

  def __call__(self, memory: Sequence[Any] = (), changed: Sequence[int] = ()) -> None:
    key = tuple([m.address for m in memory])
    with self.device:
      if key not in self.ready: self.ready[key] = self.made(memory) if len(self.ready) < GRAPHS else self.moved(memory)
      checked(self.driver.cuGraphLaunch(self.ready[key].graph, self.device.stream.handle))

  def made(self, memory: Sequence[Any]) -> Ready:
    """A new executable graph."""
    maps: list[Any] = []
    if self.graph is None: self.record(memory)
    for node, params in self.moving_nodes(memory, maps):
      checked(self.driver.cuGraphKernelNodeSetParams(node, params))
    return Ready(checked(self.driver.cuGraphInstantiate(self.graph, 0)), maps)

  def moved(self, memory: Sequence[Any]) -> Ready:
    """The oldest executable graph with other addresses: launches of it that still wait keep theirs."""
    oldest = self.ready.pop(next(iter(self.ready))).graph
    maps: list[Any] = []
    for node, params in self.moving_nodes(memory, maps):
      checked(self.driver.cuGraphExecKernelNodeSetParams(oldest, node, params))
    return Ready(oldest, maps)

  def moving_nodes(self, memory: Sequence[Any], maps: list[Any]) -> list[tuple[Any, Any]]:
    """What is launched with arguments that change, and how."""
    rows = [(node, *call) for node, call, moves in zip(self.nodes, self.calls, self.moving) if moves]
    return [(node, self.params(program, arguments, memory, maps)) for node, program, arguments in rows]

  def record(self, memory: Sequence[Any]) -> None:
    """The graph: a chain of kernels."""
    self.graph = checked(self.driver.cuGraphCreate(0))
    for program, arguments in self.calls:
      params = self.params(program, arguments, memory, self.fixed)
      self.nodes.append(checked(self.driver.cuGraphAddKernelNode(self.graph, None, 0, params)))
    edges = [self.edge() for _ in self.nodes[1:]]
    checked(self.driver.cuGraphAddDependencies(self.graph, self.nodes[:-1], self.nodes[1:], edges, len(edges)))

  def edge(self) -> Any:
    data, kinds = self.driver.CUgraphEdgeData(), self.driver.CUgraphDependencyType
    if self.device.overlaps:
      data.type = kinds.CU_GRAPH_DEPENDENCY_TYPE_PROGRAMMATIC
      data.from_port = PROGRAMMATIC_PORT
    return data

  def is_written(self, some: Sequence[Memory], memory: Sequence[Any]) -> bool:
    """Whether a call writes to some memory."""
    written = [arguments[k] for program, arguments in self.calls for k in program.writes]
    places = [memory[a] if isinstance(a, int) else a for a in dict.fromkeys(written)]
    return any(m.overlaps(place) for m in some for place in places)

  def params(self, program: CudaProgram, arguments: Sequence[Any], memory: Sequence[Any], maps: list[Any]) -> Any:
    """How a kernel is launched. The tensor maps that it refers to join `maps`."""
    bound = [memory[a] if isinstance(a, int) else a for a in arguments]
    own = program.tensor_maps(bound)
    maps += own
    early = [int(not self.is_written([bound[k] for k in program.early], memory))] if program.early else []
    values = tuple([m.address for m in bound[:program.arguments]] + [block.memory.address for block in own] + early)
    out = self.driver.CUDA_KERNEL_NODE_PARAMS()
    out.func = program.handle(self.driver)
    out.gridDimX, out.blockDimX, out.sharedMemBytes = program.grid[0], program.block[0], program.shared
    out.gridDimY = out.gridDimZ = out.blockDimY = out.blockDimZ = 1
    out.kernelParams = (values, (ctypes.c_void_p,) * len(values))
    return out

def checked(results: tuple) -> Any:
  """What a call of cuda-bindings returns beside its error code."""
  code, *values = results
  if int(code) != 0: raise RuntimeError(f"CUDA graphs: {code.name}")
  return values[0] if values else None
