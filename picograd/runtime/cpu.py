# cpu.py: the host processor. In: LLVM IR text (codegen/llvmir.py). Out: object code, programs loaded into one engine
# that lives long, and a pool of threads that runs them. No compiler need be installed: llvmlite brings LLVM.
# A binary is a line (the name of its entry, its number of threads, the bytes of scratch memory each of them needs) and
# an object file: all loading needs.
from __future__ import annotations
import atexit, contextlib, ctypes, functools, hashlib, itertools, os, re, struct, threading
from pathlib import Path
from typing import Any, Callable, Sequence
import numpy as np
from picograd.codegen import llvmir
from picograd.codegen.flat import Function
from picograd.codegen.target import Caches, USUAL_CACHES, llvm_target
from picograd.helpers import THREADS, cache_get, cache_put
from picograd.runtime.device import HostDevice, host_address

class CompileError(Exception):
  """LLVM refused a kernel: the message names the kernel, what is wrong and the line of the source."""

class HostMemory(np.ndarray):
  """Bytes that know where they are: asking NumPy for an address takes longer than a small kernel. All memory of this
  device is such; a NumPy view of it has no address."""
  address: int

def address_of(memory: np.ndarray) -> int:
  try: return memory.address                                         # type: ignore[attr-defined]
  except AttributeError: return host_address(memory)                 # a NumPy view of a HostMemory

def located(memory: np.ndarray) -> HostMemory:
  """The same bytes as a HostMemory."""
  found: Any = memory.view(HostMemory)
  found.address = address_of(memory)
  return found

def open_device(name: str) -> CPUDevice:
  try: import llvmlite.binding as llvm
  except ImportError as e: raise RuntimeError(f"DEVICE={name} needs llvmlite: pip install llvmlite ({e})") from None
  return CPUDevice(name, llvm)

def host_caches() -> Caches:
  """The sizes of a core's data caches as the system tells them; the usual ones where it does not."""
  sizes = dict(zip(("1", "2"), USUAL_CACHES))
  with contextlib.suppress(OSError, ValueError):
    for cache in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*"):
      level, kind, size = ((cache / name).read_text().strip() for name in ("level", "type", "size"))
      if kind != "Instruction" and level in sizes: sizes[level] = int(size.removesuffix("K")) << 10
  return Caches(*sizes.values())

ENTRY = re.compile(r'define void @"([^"]+)_entry"\(ptr %table, i64 %thread\) #0 "threads"="(\d+)" "scratch"="(\d+)"')

class CPUDevice(HostDevice):
  def __init__(self, name: str, llvm: Any):
    super().__init__(name)
    self.llvm = llvm
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    features = llvm.get_host_cpu_features()
    triple = llvm.get_process_triple()
    enabled = frozenset(feature for feature, on in features.items() if on)
    self.target = llvm_target(enabled, triple.split("-")[0], int(THREADS), host_caches())
    self.cpu, self.features = llvm.get_host_cpu_name(), features.flatten()
    self.machine = self.new_machine()
    self.layout = str(self.machine.target_data)
    self.triple = triple
    self.engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), self.new_machine(), use_lmm=True)
    self.pool: Pool | None = None
    self.scratch = Scratch()
    self.pool_size = int(THREADS)
    atexit.register(self.close)
    if hasattr(os, "register_at_fork"): os.register_at_fork(after_in_child=self.forget_pool)

  def new_machine(self) -> Any:
    """Position-independent code whose constants lie within reach: each object gets one contiguous piece of memory."""
    target = self.llvm.Target.from_triple(self.llvm.get_process_triple())
    return target.create_target_machine(cpu=self.cpu, features=self.features, opt=2, reloc="pic", codemodel="small",
                                        jit=True)

  def fresh(self, nbytes: int) -> HostMemory: return located(super().fresh(nbytes))
  def memory_at(self, address: int, nbytes: int) -> HostMemory: return located(super().memory_at(address, nbytes))
  def slice(self, memory: np.ndarray, offset: int, nbytes: int) -> HostMemory:
    part: Any = memory[offset:offset + nbytes].view(HostMemory)
    part.address = address_of(memory) + offset
    return part

  def cache_key(self, source: str) -> bytes:
    """What the binary of a source depends on."""
    assert self.target is not None
    parts = [self.target.name, str(self.llvm.llvm_version_info), self.cpu, self.features, source]
    return "\n".join(parts).encode()

  def render(self, kernel: Function) -> str: return llvmir.render(kernel)

  def parse(self, source: str) -> Any:
    """The verified module of a source; CompileError quotes the line that LLVM complains about."""
    try:
      module = self.llvm.parse_assembly(source)
      module.verify()
      return module
    except RuntimeError as e: raise CompileError(complaint(source, str(e))) from None

  def compile(self, source: str) -> bytes:
    found = ENTRY.search(source)
    if found is None: raise CompileError(f"no kernel in this LLVM IR: {source[:80]!r}")
    name, threads, scratch = found.groups()
    symbol = f"{name}_{hashlib.sha256(source.encode()).hexdigest()[:16]}"           # two kernels may share a name
    return f"{symbol} {threads} {scratch}\n".encode() + self.object_code(source, {f"{name}_entry": symbol})

  def object_code(self, source: str, exported: dict[str, str]) -> bytes:
    """Object code in which only the exported functions can be seen, under their new names."""
    module = self.parse(source)
    module.triple, module.data_layout = self.triple, self.layout
    for function in module.functions:
      if function.is_declaration: continue
      if function.name in exported: function.name = exported[function.name]
      else: function.linkage = "internal"
    self.combine(module)
    code = self.machine.emit_object(module)
    unknown = [name for name in undefined_symbols(code) if self.llvm.address_of_symbol(name) is None]
    if unknown: raise CompileError(complaint(source, f"no such function in this process: {', '.join(unknown)}"))
    return code

  def combine(self, module: Any) -> None:
    """The one pass that pays: code generation does the rest (measured: O1 to O3 cost as much time and gain nothing)."""
    passes = self.llvm.create_new_module_pass_manager()
    passes.add_instruction_combine_pass()
    builder = self.llvm.create_pass_builder(self.machine, self.llvm.create_pipeline_tuning_options())
    passes.run(module, builder)

  def load(self, name: str, binary: bytes) -> CPUProgram:
    header, _, code = binary.partition(b"\n")
    symbol, threads, scratch = header.decode().split(" ")
    return CPUProgram(self, name, self.address(symbol, code), int(threads), int(scratch))

  def address(self, symbol: str, code: bytes) -> int:
    """Where a function is in memory; its object code is added to the engine unless that was done before."""
    found = self.engine.get_function_address(symbol)
    if not found:
      self.engine.add_object_file(self.llvm.ObjectFileRef.from_data(code))
      self.engine.finalize_object()
      found = self.engine.get_function_address(symbol)
    if not found: raise CompileError(f"the binary does not define {symbol}")
    return found

  def native(self, name: str) -> int:
    """The address of a function of pool.ll."""
    is_x86 = self.triple.startswith(("x86_64", "i386", "i686"))
    pause = "call void @llvm.x86.sse2.pause()" if is_x86 else "fence acquire"
    source = Path(__file__).with_name("pool.ll").read_text().replace("PAUSE", pause)
    names = re.findall(r"define \w+ @(\w+)", source)
    key = self.cache_key(source)
    code = cache_get("kernels", key) or cache_put("kernels", key, self.object_code(source, {n: n for n in names}))
    return self.address(name, code)

  def scratch_memory(self, nbytes: int) -> HostMemory:
    """At least nbytes for the calling thread's kernels."""
    if self.scratch.memory is None or self.scratch.memory.nbytes < nbytes: self.scratch.memory = self.allocate(nbytes)
    return self.scratch.memory

  def run(self, entry: int, table: Any, threads: int) -> None:
    """entry(table, 0) .. entry(table, threads - 1), on as many threads as the pool has."""
    if self.pool is None: self.pool = Pool(self)
    self.pool.run(entry, table, threads)

  def capture(self, calls: Sequence[tuple[CPUProgram, list[Any]]]) -> Callable[[Sequence[Any], Sequence[int]], None]:
    """The calls in order as one native call per thread, with a barrier wherever one of two neighbours has several
    threads."""
    return Sequel(self, calls).run

  def forget_pool(self) -> None:
    """A forked child has none of the threads."""
    self.pool = None
  def close(self) -> None:
    """Ends the threads before the engine that holds their code goes away."""
    if self.pool is not None: self.pool.close()
    self.pool = None

def undefined_symbols(code: bytes) -> list[str]:
  """What a 64-bit ELF object wants from outside. LLVM ends the process if loading cannot find it. (System V ABI,
  chapter 4; other object formats are not looked into.)"""
  if code[:5] != b"\x7fELF\x02": return []
  table, = struct.unpack_from("<Q", code, 0x28)
  count, = struct.unpack_from("<H", code, 0x3c)
  sections = [struct.unpack_from("<IIQQQQII", code, table + 64 * k) for k in range(count)]
  out = []
  for _, kind, _, _, offset, size, link, _ in sections:
    if kind != 2: continue                                           # the symbol table
    names = sections[link][4]
    for at in range(offset + 24, offset + size, 24):                 # the first symbol is empty
      name, _, _, section = struct.unpack_from("<IBBH", code, at)
      if section == 0: out.append(code[names + name:code.index(0, names + name)].decode())
  return out

def complaint(source: str, message: str) -> str:
  """LLVM's message with the kernel's name and the source line it points at."""
  named = re.search(r'define \S+ @"([^"]+)"', source)
  at = re.search(r"<string>:(\d+):", message)
  line = f"\n  line {at[1]}: {source.splitlines()[int(at[1]) - 1].strip()}" if at else ""
  return f"kernel {named[1] if named else '?'}: LLVM refuses this code: {message.strip()}{line}"

# ---- running ---------------------------------------------------------------------------------------------------------

ENTRY_TYPE = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64)

def address_table(memory: list[np.ndarray]) -> Any:
  return (ctypes.c_uint64 * len(memory))(*[address_of(m) for m in memory])

class Scratch(threading.local):
  """Scratch memory of kernels, for each thread of Python its own: a kernel has done with it when it returns."""
  memory: HostMemory | None = None

class CPUProgram:
  """A loaded kernel: entry(table of addresses, thread) for each thread."""
  def __init__(self, device: CPUDevice, name: str, address: int, threads: int, scratch: int):
    self.device, self.name, self.address, self.threads = device, name, address, threads
    self.scratch = scratch * threads                                 # bytes
    self.entry = ENTRY_TYPE(address)

  def arguments(self, memory: list[np.ndarray]) -> list[np.ndarray]:
    """What the table of addresses names: scratch memory, if the kernel needs any, and its buffers. It may need fewer of
    them than the graph that it was made of."""
    return [self.device.scratch_memory(self.scratch), *memory] if self.scratch else memory

  def __call__(self, memory: list[np.ndarray]) -> None:
    table = address_table(self.arguments(memory))
    if self.threads == 1: self.entry(table, 0)
    else: self.device.run(self.address, table, self.threads)

class Sequel:
  """Captured calls. records: for each call its entry, its table, its number of threads and whether a barrier
  follows. The tables of all calls are one array, into which the addresses of moving arguments are written. A call that
  has no neighbours needs no records: its kernel is called with its table."""
  def __init__(self, device: CPUDevice, calls: Sequence[tuple[CPUProgram, list[Any]]]):
    self.device = device
    self.arguments = [program.arguments(memory) for program, memory in calls]   # the addresses must stay valid
    flat = [a for arguments in self.arguments for a in arguments]
    self.table = (ctypes.c_uint64 * max(1, len(flat)))(*[0 if isinstance(a, int) else address_of(a) for a in flat])
    self.places: list[list[int]] = [[] for _ in range(1 + max([a for a in flat if isinstance(a, int)], default=-1))]
    for at, a in enumerate(flat):
      if isinstance(a, int): self.places[a].append(at)
    self.bound = [0] * len(self.places)                              # address of each moving argument
    starts = itertools.accumulate([0, *[len(arguments) for arguments in self.arguments]])
    tables = [ctypes.addressof(self.table) + 8 * start for start in starts]
    counts = [program.threads for program, _ in calls]
    self.threads = 1 if max(counts, default=1) == 1 else device.pool_size
    barriers = [int(n > 1 or m > 1) for n, m in zip(counts, counts[1:] + [1])]
    rows = [(program.address, table, n, barrier)
            for (program, _), table, n, barrier in zip(calls, tables, counts, barriers)]
    numbers = [0, len(calls), self.threads, *(field for row in rows for field in row)]
    self.records = (ctypes.c_uint64 * len(numbers))(*numbers)
    if len(calls) == 1: self.address, self.given, self.threads = calls[0][0].address, self.table, counts[0]
    else: self.address, self.given = device.native("sequel"), self.records
    argument = ctypes.c_void_p(ctypes.addressof(self.given))         # converted here, not in each call
    self.on_one_thread = functools.partial(ctypes.CFUNCTYPE(None)(self.address), argument, ctypes.c_int64(0))

  def run(self, moving: Sequence[Any], changed: Sequence[int]) -> None:
    bound = self.bound
    for k in changed:
      address = moving[k].address
      if address != bound[k]:
        bound[k] = address
        for at in self.places[k]: self.table[at] = address
    if self.threads == 1: return self.on_one_thread()
    self.records[0] = 0                                              # nobody has arrived at a barrier
    self.device.run(self.address, self.given, self.threads)

class Pool:
  """Threads that wait for work (pool.ll). The caller is thread 0. A run is one native call: an exception, such as a
  KeyboardInterrupt, comes before it or after it."""
  def __init__(self, device: CPUDevice):
    self.size, self.busy = device.pool_size, threading.Lock()
    self.control = device.allocate(512 + 64 * self.size)
    self.control[:] = 0
    libc = ctypes.CDLL(None)
    libc.pthread_mutex_init(ctypes.c_void_p(self.control.address + 128), None)
    libc.pthread_cond_init(ctypes.c_void_p(self.control.address + 256), None)
    number, pointer = ctypes.c_int64, ctypes.c_void_p
    self.post = ctypes.CFUNCTYPE(None, pointer, pointer, pointer, number, number)(device.native("pool_run"))
    self.work = ctypes.CFUNCTYPE(None, pointer, number, number)(device.native("pool_worker"))
    self.threads = [threading.Thread(target=self.work, args=(self.control.address, k, self.size), daemon=True)
                    for k in range(1, self.size)]
    for thread in self.threads: thread.start()

  def run(self, entry: int | None, table: Any, count: int) -> None:
    with self.busy: self.post(self.control.address, entry, table, count, self.size)

  def close(self) -> None:
    self.run(None, None, 0)
    for thread in self.threads: thread.join()
