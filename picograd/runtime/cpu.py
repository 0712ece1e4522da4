# cpu.py: the host processor. In: LLVM IR text (codegen/llvmir.py). Out: object code, and programs loaded into one long-lived
# engine. Nothing here needs a compiler installed: llvmlite brings LLVM. Chapter "flat" tells it.
# A binary is the name of its entry, a space, its number of threads, a newline, and an object file: it is all that loading needs.
from __future__ import annotations
import ctypes, hashlib, re
from typing import Any
import numpy as np
from picograd.codegen import llvmir
from picograd.codegen.flat import Function
from picograd.codegen.target import llvm_target
from picograd.helpers import THREADS
from picograd.runtime.device import HostDevice

class CompileError(Exception):
  """LLVM refused a kernel: the message names the kernel, what is wrong and the line of the source."""

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

  def new_machine(self) -> Any:
    """Position-independent code whose constants lie within reach: each object gets one contiguous piece of memory."""
    target = self.llvm.Target.from_triple(self.llvm.get_process_triple())
    return target.create_target_machine(cpu=self.cpu, features=self.features, opt=2, reloc="pic", codemodel="small", jit=True)

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
    address = self.engine.get_function_address(symbol)
    if not address:
      self.engine.add_object_file(self.llvm.ObjectFileRef.from_data(code))
      self.engine.finalize_object()
      address = self.engine.get_function_address(symbol)
    if not address: raise CompileError(f"kernel {name}: its binary does not define {symbol}")
    return CPUProgram(name, address, int(threads))

def complaint(source: str, message: str) -> str:
  """LLVM's message with the kernel's name and the source line it points at."""
  named = re.search(r'define \S+ @"([^"]+)"', source)
  at = re.search(r"<string>:(\d+):", message)
  line = f"\n  line {at[1]}: {source.splitlines()[int(at[1]) - 1].strip()}" if at else ""
  return f"kernel {named[1] if named else '?'}: LLVM refuses this code: {message.strip()}{line}"

ENTRY_TYPE = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64)

class CPUProgram:
  """A loaded kernel: entry(table of addresses, thread) for each thread."""
  def __init__(self, name: str, address: int, threads: int):
    self.name, self.address, self.threads = name, address, threads
    self.entry = ENTRY_TYPE(address)

  def __call__(self, memory: list[np.ndarray]) -> None:
    table = np.array([m.ctypes.data for m in memory], np.uint64)
    for thread in range(self.threads): self.entry(table.ctypes.data, thread)
