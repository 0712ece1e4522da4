# riscv.py: a RISC-V processor: the host if it is one, else in process under unicorn. In: flat functions. Out: machine
# code by codegen/riscv.py, programs that run on the callers' memory itself, at its own addresses. Under unicorn a
# kernel sees its buffers and its stack and nothing else: a stray access, an illegal instruction and a loop without end
# are Python exceptions that name the kernel and the place in its code. A binary is the name, the number of threads and
# of parameters, a newline, and the code.
from __future__ import annotations
import contextlib, ctypes, mmap, os, platform, re, shutil, struct, subprocess, tempfile
from collections import Counter
from pathlib import Path
from typing import Any, Iterator, NamedTuple
import numpy as np
from picograd.codegen import riscv
from picograd.codegen.flat import Function
from picograd.codegen.rvobject import RA, SP, Section, disassemble
from picograd.codegen.target import RISCV, RISCV_V
from picograd.helpers import RISCV_ARCH
from picograd.runtime.device import HostDevice

def open_device(name: str) -> HostDevice:
  if platform.machine() == "riscv64": return NativeDevice(name)
  if RISCV_ARCH.value == "rv64gcv": return VectorDevice(name)
  try: import unicorn
  except ImportError as e: raise RuntimeError(f"DEVICE={name} needs unicorn: pip install unicorn ({e})") from None
  return RiscvDevice(name, unicorn)

PAGE = mmap.PAGESIZE
CODE, CODE_BYTES = 1 << 48, 64 << 20       # guest addresses that no host address has
STACK, STACK_BYTES = 1 << 49, 1 << 20
END = CODE                                 # where a kernel returns to

class Pages(NamedTuple):
  """Host pages [start, end) that a kernel may touch."""
  start: int
  end: int

def pages_of(memory: list[np.ndarray]) -> set[Pages]:
  """The pages of all arrays; where they touch they are one piece."""
  spans = sorted((m.ctypes.data // PAGE * PAGE, -(-(m.ctypes.data + len(m)) // PAGE) * PAGE) for m in memory if len(m))
  out: list[Pages] = []
  for start, end in spans:
    if out and start <= out[-1].end: out[-1] = Pages(out[-1].start, max(end, out[-1].end))
    else: out.append(Pages(start, end))
  return set(out)

def code_of(listing: str) -> bytes:
  """The hexadecimal column of a listing."""
  header, *lines = listing.split("\n")
  words = [re.match(r" *[0-9a-f]+: ([0-9a-f]+)", line) for line in lines]
  return header.removeprefix("# ").encode() + b"\n" + b"".join(bytes.fromhex(w[1])[::-1] for w in words if w)

class RiscvDevice(HostDevice):
  target = RISCV
  seconds = 600.0                          # how long a kernel may run
  def __init__(self, name: str, unicorn: Any):
    super().__init__(name)
    self.unicorn = unicorn
    self.machine = unicorn.Uc(unicorn.UC_ARCH_RISCV, unicorn.UC_MODE_RISCV64)
    self.machine.mem_map(CODE, CODE_BYTES, unicorn.UC_PROT_READ | unicorn.UC_PROT_EXEC)
    self.machine.mem_map(STACK, STACK_BYTES)
    self.registers = unicorn.riscv_const
    self.machine.reg_write(self.registers.UC_RISCV_REG_MSTATUS, 0x6000)                   # floats are switched on
    self.free_code = CODE + 16
    self.mapped: set[Pages] = set()
    self.fault: tuple[str, int, int] | None = None
    self.blocks: Counter[tuple[int, int]] | None = None              # (address, bytes) -> executions, while counting
    self.machine.hook_add(unicorn.UC_HOOK_MEM_INVALID, self.note_fault)

  def room(self, nbytes: int) -> int: return nbytes
  def fresh(self, nbytes: int) -> np.ndarray:
    """Ends at the end of a page, unmapped pages around it: the first byte behind it is out of reach."""
    size = -(-max(nbytes, 1) // PAGE) * PAGE
    raw: np.ndarray = np.empty(size + 3 * PAGE, np.uint8)
    end = PAGE + -raw.ctypes.data % PAGE + size
    return raw[end - nbytes:end]

  def cache_key(self, source: str) -> bytes: return source.encode()
  def render(self, kernel: Function) -> str: return riscv.listing(kernel)

  def compile(self, source: str) -> bytes: return code_of(source)

  def load(self, name: str, binary: bytes) -> RiscvProgram:
    header, code = binary.split(b"\n", 1)
    start = self.free_code
    self.free_code += -(-len(code) // 16) * 16
    if self.free_code > CODE + CODE_BYTES: raise MemoryError(f"kernel {name}: no room for more RISC-V code")
    self.machine.mem_write(start, code)
    self.machine.ctl_remove_cache(start, start + len(code))          # what other code was translated to there
    return RiscvProgram(self, name, start, code, int(header.split()[-1]))

  def show_memory(self, memory: list[np.ndarray]) -> None:
    """Maps the pages of these arrays at their own addresses, and no other host memory."""
    wanted = pages_of(memory)
    for pages in self.mapped - wanted: self.machine.mem_unmap(pages.start, pages.end - pages.start)
    data = self.unicorn.UC_PROT_READ | self.unicorn.UC_PROT_WRITE
    for start, end in wanted - self.mapped: self.machine.mem_map_ptr(start, end - start, data, start)
    self.mapped = wanted

  def note_fault(self, machine: Any, access: int, address: int, size: int, value: int, data: Any) -> bool:
    kinds = {self.unicorn.UC_MEM_WRITE_UNMAPPED: "write", self.unicorn.UC_MEM_FETCH_UNMAPPED: "fetch"}
    self.fault = kinds.get(access, "read"), address, size
    return False

  @contextlib.contextmanager
  def counting(self) -> Iterator[Counter[tuple[int, int]]]:
    """Inside, every executed block is counted: (address, bytes) -> how often."""
    blocks = self.blocks = Counter()
    def note(machine: Any, address: int, size: int, data: Any) -> None: blocks[address, size] += 1
    hook = self.machine.hook_add(self.unicorn.UC_HOOK_BLOCK, note)
    try: yield blocks
    finally: self.machine.hook_del(hook)

  def instructions(self, blocks: Counter[tuple[int, int]]) -> int:
    """How many instructions the counted blocks are."""
    return sum(times * len(disassemble(bytes(self.machine.mem_read(address, size))))
               for (address, size), times in blocks.items())

class RiscvProgram:
  """A loaded kernel: (a pointer per buffer, the thread number)."""
  def __init__(self, device: RiscvDevice, name: str, start: int, code: bytes, threads: int):
    self.device, self.name, self.start, self.code, self.threads = device, name, start, code, threads

  def __call__(self, memory: list[np.ndarray]) -> None:
    self.device.show_memory(memory)
    for thread in range(self.threads): self.run(memory, [*(m.ctypes.data for m in memory), thread])

  def run(self, memory: list[np.ndarray], arguments: list[int]) -> None:
    """Arguments beyond the eighth go on the stack."""
    machine, registers = self.device.machine, self.device.registers
    stack = STACK + STACK_BYTES - 16 - 8 * len(arguments) // 16 * 16
    for k, value in enumerate(arguments[:8]): machine.reg_write(registers.UC_RISCV_REG_A0 + k, value)
    machine.mem_write(stack, b"".join(value.to_bytes(8, "little") for value in arguments[8:]))
    machine.reg_write(registers.UC_RISCV_REG_SP, stack)
    machine.reg_write(registers.UC_RISCV_REG_RA, END)
    self.device.fault = None
    try: machine.emu_start(self.start, END, timeout=int(self.device.seconds * 1e6))
    except self.device.unicorn.UcError as e: self.complain(memory, str(e))
    at = machine.reg_read(registers.UC_RISCV_REG_PC)
    if at != END: raise RuntimeError(f"kernel {self.name} did not end within {self.device.seconds} s: {self.place(at)}")

  def complain(self, memory: list[np.ndarray], message: str) -> None:
    at = self.device.machine.reg_read(self.device.registers.UC_RISCV_REG_PC)
    if self.device.fault is None:                                    # unicorn has gone four bytes on by now
      raise RuntimeError(f"kernel {self.name}: {message}, {self.place(at - 4)}")
    kind, address, size = self.device.fault
    what = f"{kind} of {size} bytes at address {address:#x}, {nearest(memory, address)}"
    raise IndexError(f"kernel {self.name}: {what}, {self.place(at)}")

  def place(self, at: int) -> str:
    """An address in the code, and the instruction there."""
    offset = at - self.start
    if not 0 <= offset < len(self.code): return f"at {at:#x}, outside of its code"
    try: (_, text), *_ = disassemble(self.code[offset:offset + 4])
    except ValueError: text = "no instruction"
    return f"at {offset:#x}: {text}"

def nearest(memory: list[np.ndarray], address: int) -> str:
  """Where an address lies beside the buffer that is closest to it."""
  def distance(m: np.ndarray) -> int: return max(m.ctypes.data - address, address - (m.ctypes.data + len(m)) + 1, 0)
  if not memory: return "there are no buffers"
  k = min(range(len(memory)), key=lambda k: distance(memory[k]))
  return f"byte {address - memory[k].ctypes.data} of buffer {k}, which has {len(memory[k])} bytes"

# ---- vectors: a process under qemu-user for each call, as unicorn has no RVV 1.0 -------------------------------------

BASE = 0x100000                            # where its image lies
WRITE, EXIT = 64, 93                       # system calls

class VectorDevice(HostDevice):
  target = RISCV_V
  seconds = 600.0                          # how long a kernel may run
  vlen = 128                               # bits of a vector register
  def __init__(self, name: str):
    super().__init__(name)
    self.qemu = shutil.which("qemu-riscv64")
    if self.qemu is None: raise RuntimeError(f"DEVICE={name} with RISCV_ARCH=rv64gcv needs qemu-user's qemu-riscv64")
    self.count_instructions = False
    self.executed = 0
  def cache_key(self, source: str) -> bytes: return source.encode()
  def render(self, kernel: Function) -> str: return riscv.listing(kernel, frozenset({"v"}))
  def compile(self, source: str) -> bytes: return code_of(source)
  def load(self, name: str, binary: bytes) -> VectorProgram:
    header, code = binary.split(b"\n", 1)
    return VectorProgram(self, name, code, int(header.split()[-1]))

class VectorProgram:
  def __init__(self, device: VectorDevice, name: str, code: bytes, threads: int):
    self.device, self.name, self.code, self.threads = device, name, code, threads

  def __call__(self, memory: list[np.ndarray]) -> None:
    for thread in range(self.threads): self.run(memory, thread)

  def run(self, memory: list[np.ndarray], thread: int) -> None:
    """The process holds a copy of the buffers and writes them out at its end."""
    image, start, data = self.image(memory, thread)
    with tempfile.TemporaryDirectory() as folder:
      path, log = Path(folder, "kernel"), Path(folder, "log")
      path.write_bytes(executable(image, BASE))
      path.chmod(0o700)
      traced = ["-singlestep", "-d", "exec,nochain", "-D", str(log), "-dfilter", f"{start:#x}+{len(self.code):#x}"]
      flags = traced if self.device.count_instructions else []
      environment = {**os.environ, "QEMU_CPU": f"rv64,v=true,vext_spec=v1.0,vlen={self.device.vlen}"}
      command = [str(self.device.qemu), *flags, str(path)]
      try: done = subprocess.run(command, capture_output=True, env=environment, timeout=self.device.seconds)
      except subprocess.TimeoutExpired:
        raise RuntimeError(f"kernel {self.name} under qemu did not end within {self.device.seconds} s") from None
      if flags: self.device.executed += log.read_text().count("Trace ")
    if done.returncode: raise RuntimeError(f"kernel {self.name} under qemu: {done.returncode}, {done.stderr.decode()}")
    for m, offset in zip(memory, data): m[:] = np.frombuffer(done.stdout, np.uint8, len(m), offset - data[0])

  def image(self, memory: list[np.ndarray], thread: int) -> tuple[bytes, int, list[int]]:
    """(code and data, the address of the kernel, the offset of each buffer): its first instructions call the kernel."""
    starts, position = [], 2048 + -(-len(self.code) // 64) * 64
    for m in memory:
      starts.append(position)
      position += -(-len(m) // 64) * 64
    arguments = [*(BASE + start for start in starts), thread]
    entry = Section(".text")
    entry.number(SP, BASE + position + 65536)
    for k, value in enumerate(arguments[8:]):
      entry.number(5, value)
      entry.emit("sd", 5, 8 * k, SP)
    for k, value in enumerate(arguments[:8]): entry.number(10 + k, value)
    entry.number(5, BASE + 2048)
    entry.emit("jalr", RA, 0, 5)
    for number, *values in ((WRITE, 1, BASE + starts[0], position - starts[0]), (EXIT, 0)):
      for k, value in enumerate(values): entry.number(10 + k, value)
      entry.number(17, number)
      entry.emit("ecall")
    image = bytearray(position + 131072)
    first = entry.finish().data
    image[:len(first)] = first
    image[2048:2048 + len(self.code)] = self.code
    for m, start in zip(memory, starts): image[start:start + len(m)] = m.tobytes()
    return bytes(image), BASE + 2048, starts

def executable(image: bytes, base: int) -> bytes:
  """An ELF64 program of one segment that starts at its first byte."""
  header = b"\x7fELF\2\1\1" + bytes(9) + struct.pack("<HHIQQQIHHHHHH", 2, 243, 1, base, 64, 0, 5, 64, 56, 1, 64, 0, 0)
  segment = struct.pack("<IIQQQQQQ", 1, 7, 4096, base, base, len(image), len(image), 4096)
  return (header + segment).ljust(4096, b"\0") + image

# ---- on a riscv64 host ----------------------------------------------------------------------------------------------

class NativeDevice(HostDevice):
  def __init__(self, name: str):
    super().__init__(name)
    has_vectors = RISCV_ARCH.value == "rv64gcv"
    self.target = RISCV_V if has_vectors else RISCV
    self.extensions = frozenset({"v"} if has_vectors else ())
  def cache_key(self, source: str) -> bytes: return source.encode()
  def render(self, kernel: Function) -> str: return riscv.listing(kernel, self.extensions)
  def compile(self, source: str) -> bytes: return code_of(source)
  def load(self, name: str, binary: bytes) -> NativeProgram:
    header, code = binary.split(b"\n", 1)
    return NativeProgram(code, int(header.split()[-1]))

class NativeProgram:
  """A kernel in executable pages of its own."""
  def __init__(self, code: bytes, threads: int):
    self.pages = mmap.mmap(-1, max(len(code), 1), prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    self.pages[:len(code)] = code
    self.start = ctypes.addressof(ctypes.c_char.from_buffer(self.pages))
    self.threads = threads
    flush = getattr(ctypes.CDLL(None), "__riscv_flush_icache", None)
    if flush is not None: flush(ctypes.c_void_p(self.start), ctypes.c_void_p(self.start + len(code)), ctypes.c_ulong(0))

  def __call__(self, memory: list[np.ndarray]) -> None:
    function = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * (len(memory) + 1))(self.start)
    for thread in range(self.threads): function(*[m.ctypes.data for m in memory], thread)
