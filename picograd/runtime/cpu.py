# cpu.py: the host processor. In: LLVM IR text (codegen/llvmir.py). Out: object code, programs loaded into one long-lived engine,
# and a pool of pinned threads that runs them. Nothing needs a compiler installed: llvmlite brings LLVM. Chapter "flat" tells it.
# A binary is the name of its entry, a space, its number of threads, a newline, and an object file: it is all that loading needs.
from __future__ import annotations
import atexit, ctypes, hashlib, os, re, threading, time
from typing import Any, Sequence
import numpy as np
from picograd.codegen import llvmir
from picograd.codegen.flat import Function
from picograd.codegen.target import llvm_target
from picograd.helpers import THREADS, cache_get, cache_put
from picograd.runtime.device import HostDevice

class CompileError(Exception):
  """LLVM refused a kernel: the message names the kernel, what is wrong and the line of the source."""

class HostMemory(np.ndarray):
  """Bytes that know where they are: asking NumPy for an address takes longer than a small kernel."""
  address: int

def address_of(memory: np.ndarray) -> int:
  known = getattr(memory, "address", None)                           # a NumPy view of a HostMemory has none
  return memory.ctypes.data if known is None else known

def located(memory: np.ndarray) -> HostMemory:
  """The same bytes as a HostMemory."""
  found = memory.view(HostMemory)
  found.address = address_of(memory)
  return found

def open_device(name: str) -> CPUDevice:
  try: import llvmlite.binding as llvm
  except ImportError as e: raise RuntimeError(f"DEVICE={name} needs llvmlite: pip install llvmlite ({e})") from None
  return CPUDevice(name, llvm)

ENTRY = re.compile(r'define void @"([^"]+)_entry"\(ptr %table, i64 %thread\) #0 "threads"="(\d+)"')

class CPUDevice(HostDevice):
  def __init__(self, name: str, llvm: Any):
    super().__init__(name)
    self.llvm = llvm
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    features = llvm.get_host_cpu_features()
    triple = llvm.get_process_triple()
    enabled = frozenset(feature for feature, on in features.items() if on)
    self.target = llvm_target(enabled, triple.split("-")[0], int(THREADS))
    self.cpu, self.features = llvm.get_host_cpu_name(), features.flatten()
    self.machine = self.new_machine()
    self.layout = str(self.machine.target_data)
    self.triple = triple
    self.engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), self.new_machine(), use_lmm=True)
    self.pool: Pool | None = None
    self.pool_size = int(THREADS)
    atexit.register(self.close)
    if hasattr(os, "register_at_fork"): os.register_at_fork(after_in_child=self.forget_pool)

  def new_machine(self) -> Any:
    """Position-independent code whose constants lie within reach: each object gets one contiguous piece of memory."""
    target = self.llvm.Target.from_triple(self.llvm.get_process_triple())
    return target.create_target_machine(cpu=self.cpu, features=self.features, opt=2, reloc="pic", codemodel="small", jit=True)

  def allocate(self, nbytes: int) -> HostMemory: return located(super().allocate(nbytes))
  def slice(self, memory: np.ndarray, offset: int, nbytes: int) -> HostMemory:
    part = memory[offset:offset + nbytes].view(HostMemory)
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
    name, threads = found.groups()
    symbol = f"{name}_{hashlib.sha256(source.encode()).hexdigest()[:16]}"           # two kernels may share a name
    return f"{symbol} {threads}\n".encode() + self.object_code(source, {f"{name}_entry": symbol})

  def object_code(self, source: str, exported: dict[str, str]) -> bytes:
    """Object code in which only the exported functions can be seen, under their new names."""
    module = self.parse(source)
    module.triple, module.data_layout = self.triple, self.layout
    for function in module.functions:
      if function.is_declaration: continue
      if function.name in exported: function.name = exported[function.name]
      else: function.linkage = "internal"
    self.combine(module)
    return self.machine.emit_object(module)

  def combine(self, module: Any) -> None:
    """The one pass that pays: code generation does the rest (measured: O1 to O3 cost as much time and gain nothing)."""
    passes = self.llvm.create_new_module_pass_manager()
    passes.add_instruction_combine_pass()
    builder = self.llvm.create_pass_builder(self.machine, self.llvm.create_pipeline_tuning_options())
    passes.run(module, builder)

  def load(self, name: str, binary: bytes) -> CPUProgram:
    header, _, code = binary.partition(b"\n")
    symbol, threads = header.decode().split(" ")
    return CPUProgram(self, name, self.address(symbol, code), int(threads))

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
    """The address of a function of NATIVE."""
    pause = "call void @llvm.x86.sse2.pause()" if self.triple.startswith(("x86_64", "i386", "i686")) else "fence acquire"
    source = NATIVE.replace("PAUSE", pause)
    names = re.findall(r"define \w+ @(\w+)", source)
    key = self.cache_key(source)
    code = cache_get("kernels", key) or cache_put("kernels", key, self.object_code(source, {n: n for n in names}))
    return self.address(name, code)

  def run(self, entry: int, table: Any, threads: int) -> None:
    """entry(table, 0) .. entry(table, threads - 1), on as many threads as the pool has."""
    if self.pool is None: self.pool = Pool(self)
    self.pool.run(entry, table, threads)

  def capture(self, calls: Sequence[tuple[CPUProgram, list[np.ndarray]]]) -> Sequel:
    """The calls in order as one native call per thread, with a barrier wherever one of two neighbours has several threads."""
    return Sequel(self, calls)

  def forget_pool(self) -> None:
    """A forked child has none of the threads."""
    self.pool = None
  def close(self) -> None:
    """Ends the threads before the engine that holds their code goes away."""
    if self.pool is not None: self.pool.close()
    self.pool = None

def complaint(source: str, message: str) -> str:
  """LLVM's message with the kernel's name and the source line it points at."""
  named = re.search(r'define \S+ @"([^"]+)"', source)
  at = re.search(r"<string>:(\d+):", message)
  line = f"\n  line {at[1]}: {source.splitlines()[int(at[1]) - 1].strip()}" if at else ""
  return f"kernel {named[1] if named else '?'}: LLVM refuses this code: {message.strip()}{line}"

# ---- running ---------------------------------------------------------------------------------------------------------

ENTRY_TYPE = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64)

def address_table(memory: list[np.ndarray]) -> Any: return (ctypes.c_uint64 * len(memory))(*[address_of(m) for m in memory])

class CPUProgram:
  """A loaded kernel: entry(table of addresses, thread) for each thread."""
  def __init__(self, device: CPUDevice, name: str, address: int, threads: int):
    self.device, self.name, self.address, self.threads = device, name, address, threads
    self.entry = ENTRY_TYPE(address)

  def __call__(self, memory: list[np.ndarray]) -> None:
    table = address_table(memory)
    if self.threads == 1: self.entry(table, 0)
    else: self.device.run(self.address, table, self.threads)

class Sequel:
  """Captured calls. records: for each call its entry, its table, its number of threads and whether a barrier follows."""
  def __init__(self, device: CPUDevice, calls: Sequence[tuple[CPUProgram, list[np.ndarray]]]):
    self.device = device
    self.tables = [address_table(memory) for _, memory in calls]
    self.memory = [memory for _, memory in calls]                    # the addresses must stay valid
    counts = [program.threads for program, _ in calls]
    self.threads = 1 if max(counts, default=1) == 1 else device.pool_size
    barriers = [int(n > 1 or m > 1) for n, m in zip(counts, counts[1:] + [1])]
    rows = [(program.address, ctypes.addressof(table), n, barrier)
            for (program, _), table, n, barrier in zip(calls, self.tables, counts, barriers)]
    numbers = [0, len(calls), self.threads, *(field for row in rows for field in row)]
    self.records = (ctypes.c_uint64 * len(numbers))(*numbers)
    self.address = device.native("sequel")
    self.entry = ENTRY_TYPE(self.address)

  def __call__(self) -> None:
    self.records[0] = 0                                              # nobody has arrived at a barrier
    if self.threads == 1: self.entry(self.records, 0)
    else: self.device.run(self.address, self.records, self.threads)

class Pool:
  """Threads that wait for work: they spin for about a millisecond, then sleep until they are woken. The caller is thread 0;
  the others are pinned, because two spinning threads on one processor stop each other."""
  def __init__(self, device: CPUDevice):
    self.size, self.patience = device.pool_size, 20000
    self.control = located(np.zeros(128 + 64 * self.size, np.uint8))
    self.busy, self.wake, self.running = threading.Lock(), threading.Semaphore(0), False
    number, pointer = ctypes.c_int64, ctypes.c_void_p
    self.post = ctypes.CFUNCTYPE(number, *[pointer] * 3, *[number] * 3)(device.native("pool_run"))
    self.share = ctypes.CFUNCTYPE(None, *[pointer] * 2, *[number] * 3)(device.native("pool_share"))
    self.wait = ctypes.CFUNCTYPE(number, pointer, *[number] * 2)(device.native("pool_wait"))
    self.worker = ctypes.CFUNCTYPE(number, pointer, *[number] * 3)(device.native("pool_worker"))
    self.threads = [threading.Thread(target=self.work, args=(k,), daemon=True) for k in range(1, self.size)]
    for thread in self.threads: thread.start()

  def work(self, me: int) -> None:
    if hasattr(os, "sched_setaffinity"):
      processors = sorted(os.sched_getaffinity(0))
      os.sched_setaffinity(0, {processors[me % len(processors)]})
    while self.worker(self.control.address, me, self.size, self.patience) == ASLEEP: self.wake.acquire()

  def run(self, entry: int | None, table: Any, count: int) -> None:
    with self.busy:
      if self.running: self.wake.release(self.size)                  # an interrupt came in between: wake whoever was forgotten
      self.finish()
      self.running = True
      state = self.post(self.control.address, entry, table, count, self.size, self.patience)
      if state > 0:                                                  # so many sleep: nothing has run here yet
        self.wake.release(state)
        if entry: self.share(entry, table, 0, self.size, count)
      if state != DONE: self.finish()
      self.running = False

  def finish(self) -> None:
    """Waits for the others. A processor that is shared with strangers may keep them: give way now and then."""
    while self.wait(self.control.address, self.size, self.patience) != DONE: time.sleep(0)

  def close(self) -> None:
    self.run(None, None, 0)
    for thread in self.threads: thread.join()

# Control block: a generation that counts up with each job; at 64 the job: entry, table, number of instances; for worker k at
# 128 + 64*k the last generation it has finished, and whether it sleeps. The worker says that it sleeps before it looks at the
# generation a last time, the poster looks at sleepers after it has counted up: one of them sees the other.
ASLEEP, DONE = 0, 0
NATIVE = """
define void @pool_share(ptr %entry, ptr %table, i64 %me, i64 %size, i64 %count) #0 {
start:
  %some = icmp ult i64 %me, %count
  br i1 %some, label %run, label %out
run:
  %k = phi i64 [ %me, %start ], [ %next, %run ]
  call void %entry(ptr %table, i64 %k)
  %next = add i64 %k, %size
  %more = icmp ult i64 %next, %count
  br i1 %more, label %run, label %out
out:
  ret void
}
define i64 @pool_worker(ptr %control, i64 %me, i64 %size, i64 %patience) #0 {
start:
  %line = mul i64 %me, 64
  %base = getelementptr i8, ptr %control, i64 128
  %done = getelementptr i8, ptr %base, i64 %line
  %asleep = getelementptr i8, ptr %done, i64 8
  %entry.at = getelementptr i8, ptr %control, i64 64
  %table.at = getelementptr i8, ptr %control, i64 72
  %count.at = getelementptr i8, ptr %control, i64 80
  store atomic i64 0, ptr %asleep seq_cst, align 8
  %first = load atomic i64, ptr %done acquire, align 8
  br label %wait
wait:
  %last = phi i64 [ %first, %start ], [ %job, %work ]
  br label %spin
spin:
  %turn = phi i64 [ 0, %wait ], [ %next, %idle ]
  %now = load atomic i64, ptr %control acquire, align 8
  %new = icmp ne i64 %now, %last
  br i1 %new, label %take, label %idle
idle:
  PAUSE
  %next = add i64 %turn, 1
  %tired = icmp uge i64 %next, %patience
  br i1 %tired, label %lie.down, label %spin
lie.down:
  store atomic i64 1, ptr %asleep seq_cst, align 8
  %late = load atomic i64, ptr %control seq_cst, align 8
  %missed = icmp ne i64 %late, %last
  br i1 %missed, label %get.up, label %sleep
get.up:
  store atomic i64 0, ptr %asleep seq_cst, align 8
  br label %take
sleep:
  ret i64 0
take:
  %job = phi i64 [ %now, %spin ], [ %late, %get.up ]
  %entry = load ptr, ptr %entry.at, align 8
  %table = load ptr, ptr %table.at, align 8
  %count = load i64, ptr %count.at, align 8
  %quit = icmp eq ptr %entry, null
  br i1 %quit, label %leave, label %work
work:
  call void @pool_share(ptr %entry, ptr %table, i64 %me, i64 %size, i64 %count)
  store atomic i64 %job, ptr %done release, align 8
  br label %wait
leave:
  store atomic i64 %job, ptr %done release, align 8
  ret i64 1
}
define i64 @pool_run(ptr %control, ptr %entry, ptr %table, i64 %count, i64 %size, i64 %patience) #0 {
start:
  %entry.at = getelementptr i8, ptr %control, i64 64
  %table.at = getelementptr i8, ptr %control, i64 72
  %count.at = getelementptr i8, ptr %control, i64 80
  store ptr %entry, ptr %entry.at, align 8
  store ptr %table, ptr %table.at, align 8
  store i64 %count, ptr %count.at, align 8
  %old = load i64, ptr %control, align 8
  %job = add i64 %old, 1
  store atomic i64 %job, ptr %control seq_cst, align 8
  br label %look
look:
  %k = phi i64 [ 1, %start ], [ %next, %ask ]
  %sleepers = phi i64 [ 0, %start ], [ %sum, %ask ]
  %more = icmp ult i64 %k, %size
  br i1 %more, label %ask, label %decide
ask:
  %line = mul i64 %k, 64
  %offset = add i64 %line, 136
  %asleep = getelementptr i8, ptr %control, i64 %offset
  %was = atomicrmw xchg ptr %asleep, i64 0 seq_cst
  %sum = add i64 %sleepers, %was
  %next = add i64 %k, 1
  br label %look
decide:
  %awake = icmp eq i64 %sleepers, 0
  br i1 %awake, label %mine, label %wake
wake:
  ret i64 %sleepers
mine:
  %quit = icmp eq ptr %entry, null
  br i1 %quit, label %finish, label %work
work:
  call void @pool_share(ptr %entry, ptr %table, i64 0, i64 %size, i64 %count)
  br label %finish
finish:
  %left = call i64 @pool_wait(ptr %control, i64 %size, i64 %patience)
  ret i64 %left
}
define i64 @pool_wait(ptr %control, i64 %size, i64 %patience) #0 {
start:
  %job = load i64, ptr %control, align 8
  br label %look
look:
  %k = phi i64 [ 1, %start ], [ %next, %seen ]
  %more = icmp ult i64 %k, %size
  br i1 %more, label %spin.first, label %done
spin.first:
  %line = mul i64 %k, 64
  %offset = add i64 %line, 128
  %at = getelementptr i8, ptr %control, i64 %offset
  br label %spin
spin:
  %turn = phi i64 [ 0, %spin.first ], [ %turns, %idle ]
  %now = load atomic i64, ptr %at acquire, align 8
  %arrived = icmp eq i64 %now, %job
  br i1 %arrived, label %seen, label %idle
idle:
  PAUSE
  %turns = add i64 %turn, 1
  %tired = icmp uge i64 %turns, %patience
  br i1 %tired, label %late, label %spin
seen:
  %next = add i64 %k, 1
  br label %look
done:
  ret i64 0
late:
  ret i64 -1
}
define void @sequel(ptr %records, i64 %me) #0 {
start:
  %length.at = getelementptr i8, ptr %records, i64 8
  %size.at = getelementptr i8, ptr %records, i64 16
  %length = load i64, ptr %length.at, align 8
  %size = load i64, ptr %size.at, align 8
  %first = getelementptr i8, ptr %records, i64 24
  br label %look
look:
  %k = phi i64 [ 0, %start ], [ %k.next, %advance ]
  %record = phi ptr [ %first, %start ], [ %record.next, %advance ]
  %due = phi i64 [ 0, %start ], [ %due.next, %advance ]
  %more = icmp ult i64 %k, %length
  br i1 %more, label %work, label %out
work:
  %table.at = getelementptr i8, ptr %record, i64 8
  %count.at = getelementptr i8, ptr %record, i64 16
  %barrier.at = getelementptr i8, ptr %record, i64 24
  %entry = load ptr, ptr %record, align 8
  %table = load ptr, ptr %table.at, align 8
  %count = load i64, ptr %count.at, align 8
  %barrier = load i64, ptr %barrier.at, align 8
  call void @pool_share(ptr %entry, ptr %table, i64 %me, i64 %size, i64 %count)
  %together = icmp ne i64 %barrier, 0
  br i1 %together, label %arrive, label %advance
arrive:
  %due.now = add i64 %due, %size
  %before = atomicrmw add ptr %records, i64 1 acq_rel
  br label %spin
spin:
  %arrived = load atomic i64, ptr %records acquire, align 8
  %all = icmp uge i64 %arrived, %due.now
  br i1 %all, label %advance, label %idle
idle:
  PAUSE
  br label %spin
advance:
  %due.next = phi i64 [ %due, %work ], [ %due.now, %spin ]
  %k.next = add i64 %k, 1
  %record.next = getelementptr i8, ptr %record, i64 32
  br label %look
out:
  ret void
}
attributes #0 = { nounwind }
"""
