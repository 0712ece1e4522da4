# riscv_counts.py: kernels through our RISC-V back end and through LLVM's, from the same flat form: what they execute
# under unicorn, and bytes of code. LLVM compiles for rv64gc, O2.   DEVICE=RISCV CACHE=0 python test/riscv_counts.py
from __future__ import annotations
import functools, math, random, subprocess, sys, tempfile, time
from pathlib import Path
from typing import Any, Callable, NamedTuple
from unittest import mock
import numpy as np
import llama
import picograd as pg
from picograd.codegen import llvmir, riscv
from picograd.codegen.flat import Builder, Function, mem2reg, new_label
from picograd.codegen.rvobject import disassemble
from picograd.dtype import dtypes
from picograd.helpers import CACHE
from picograd.ops.ops import Ops
from picograd.ops.uop import UOp
from picograd.runtime.device import device
from picograd.runtime.plan import binaries, plans
from picograd.runtime.riscv import RiscvProgram

class Cost(NamedTuple):
  instructions: int
  bytes: int
  def plus(self, other: Cost) -> Cost: return Cost(self.instructions + other.instructions, self.bytes + other.bytes)

@functools.cache
def llvm_machine() -> Any:
  import llvmlite.binding as llvm
  llvm.initialize_all_targets()
  llvm.initialize_all_asmprinters()
  target = llvm.Target.from_triple("riscv64-unknown-linux-gnu")
  return llvm, target.create_target_machine(cpu="generic-rv64", features="+m,+a,+f,+d,+c", opt=2, reloc="pic",
                                            codemodel="small", abiname="lp64d")

def llvm_code(fn: Any, base: int) -> bytes:
  """The function's code and constants at an address, by LLVM and GNU ld; the function stands first."""
  llvm, machine = llvm_machine()
  text = llvmir.render(fn).split(f'define void @"{fn.name}_entry"')[0] + llvmir.ATTRIBUTES.replace("#0 = {", "#1 = {")
  text = text.replace("#0 {", "#1 {")
  module = llvm.parse_assembly(text)
  module.triple, module.data_layout = "riscv64-unknown-linux-gnu", str(machine.target_data)
  options = llvm.create_pipeline_tuning_options(speed_level=2)
  builder = llvm.create_pass_builder(machine, options)
  builder.getModulePassManager().run(module, builder)
  with tempfile.TemporaryDirectory() as folder:
    path = Path(folder)
    (path / "k.o").write_bytes(machine.emit_object(module))
    (path / "k.ld").write_text("SECTIONS { . = BASE; .text : { *(.text*) *(.rodata*) *(.srodata*) } }".replace(
      "BASE", hex(base)))
    subprocess.run(["riscv64-linux-gnu-ld", "-T", "k.ld", "-e", "0", "-o", "k.elf", "k.o"], check=True, cwd=path,
                   capture_output=True)
    subprocess.run(["riscv64-linux-gnu-objcopy", "-O", "binary", "-j", ".text", "k.elf", "k.bin"], check=True, cwd=path)
    return (path / "k.bin").read_bytes()

def measure(fn: Any, code: bytes, memory: list[np.ndarray]) -> Cost:
  dev = device("RISCV")
  program = dev.load(fn.name, f"{fn.name} {fn.threads}\n".encode() + code)
  with dev.counting() as blocks: run_plainly(program, memory)
  return Cost(dev.instructions(blocks), len(code))

class Costs(NamedTuple):
  name: str
  ours: Cost
  llvm: Cost

def compare(compute: Callable[[], Any]) -> list[Costs]:
  """What each kernel that compute() launches costs with our back end and with LLVM's."""
  dev, functions, out = device("RISCV"), {}, []
  def render(fn: Any) -> str:
    functions[fn.name] = fn
    return riscv.listing(fn)
  def call(program: Any, memory: list[np.ndarray]) -> None:
    fn = functions[program.name]
    theirs = measure(fn, llvm_code(fn, dev.free_code), memory)
    out.append(Costs(program.name, measure(fn, program.code, memory), theirs))
  plans.clear()                                                       # what was compiled before would not be shown
  binaries.clear()
  with CACHE.set(0), mock.patch.object(dev, "render", render), mock.patch.object(RiscvProgram, "__call__", call):
    compute()
  return out

def run_plainly(program: Any, memory: list[np.ndarray]) -> None:
  program.device.show_memory(memory)
  for thread in range(program.threads): program.run(memory, [*(m.ctypes.data for m in memory), thread])

# ---- workloads -------------------------------------------------------------------------------------------------------

def values(*shape: int) -> Any: return pg.tensor(np.random.default_rng(0).standard_normal(shape).astype(np.float32))

def matmul() -> None: (values(64, 64) @ values(64, 64)).numpy()
def softmax() -> None: values(32, 64).softmax(1).numpy()
def layernorm() -> None: pg.nn.functional.layer_norm(values(32, 64), (64,)).numpy()
def convolution() -> None: pg.nn.functional.conv2d(values(1, 4, 12, 12), values(8, 4, 3, 3), padding=1).numpy()
def elementwise() -> None: (values(64, 64) * 2 + values(64, 64).relu()).numpy()
def total() -> None: values(64, 64).sum().numpy()

def llama_layer() -> None:
  config = llama.Config(dim=32, hidden_dim=48, n_layers=1, n_heads=4, n_kv_heads=2, head_dim=8, vocab_size=11,
                        context=32, tied=False)
  model = llama.Llama(config, room=16)
  for parameter in model.parameters(): parameter.detach().numpy()
  model(pg.tensor([[3, 1, 4, 1, 5]])).detach().numpy()

WORKLOADS = {f.__name__: f for f in (matmul, softmax, layernorm, convolution, elementwise, total, llama_layer)}

def totals(costs: list[Costs]) -> tuple[float, float]:
  """(executed instructions, code size) against LLVM's."""
  ours, llvm = Cost(0, 0), Cost(0, 0)
  for c in costs: ours, llvm = ours.plus(c.ours), llvm.plus(c.llvm)
  return ours.instructions / llvm.instructions, ours.bytes / llvm.bytes

# ---- how fast functions become code ----------------------------------------------------------------------------------

def long_function(loops: int) -> Function:
  """About 65 instructions for each loop: sums, products, loads, stores and choices over twelve variables."""
  rng, i64 = random.Random(1), dtypes.int64
  b = Builder("f", [dtypes.ptr, i64], i64)
  variables = [b.var(i64) for _ in range(12)]
  for k, v in enumerate(variables): b.set(v, UOp.const(i64, k) if k else b.param(1))
  for _ in range(loops):
    head, out, counter = new_label(), new_label(), b.var(i64)
    b.set(counter, UOp.const(i64, 0))
    b.start(head)
    for _ in range(40): add_statement(b, rng, variables)
    b.set(counter, b.get(counter) + 1)
    b.branch(b.get(counter) < 5, head, out)
    b.start(out)
  b.ret(functools.reduce(lambda total, v: total * 31 + b.get(v), variables, UOp.const(i64, 0)))
  return mem2reg(b.finish())

def add_statement(b: Builder, rng: random.Random, variables: list[UOp]) -> None:
  to, x, y = rng.sample(variables, 3)
  def element(index: UOp) -> UOp: return UOp(Ops.ADD, dtypes.ptr, (b.param(0), index * 8))
  kind = rng.random()
  if kind < .3: b.set(to, b.get(x) + b.get(y))
  elif kind < .5: b.set(to, b.get(x) * b.get(y) + rng.randrange(100))
  elif kind < .7: b.set(to, b.load(element(b.get(x) & 7), dtypes.int64) ^ b.get(y))
  elif kind < .8: b.store(element(UOp.const(dtypes.int64, rng.randrange(8))), b.get(x))
  else: b.set(to, (b.get(x) < b.get(y)).where(b.get(y), b.get(x)))

def seconds_and_instructions(loops: int) -> tuple[float, int]:
  fn, best = long_function(loops), math.inf
  for _ in range(3):
    start = time.process_time()
    code = riscv.assemble([fn])
    best = min(best, time.process_time() - start)
  return best, len(disassemble(code.data))

if __name__ == "__main__":
  if sys.argv[1:] == ["speed"]:
    for loops in (30, 310):
      seconds, n = seconds_and_instructions(loops)
      print(f"{n} instructions in {seconds:.2f} s: {n / seconds:.0f} instructions/s")
    sys.exit()
  for name in sys.argv[1:] or WORKLOADS:
    costs = compare(WORKLOADS[name])
    for c in costs: print(f"  {c.name:34} {c.ours.instructions:9} {c.llvm.instructions:9}"
                          f" {c.ours.instructions / c.llvm.instructions:5.2f}"
                          f"   {c.ours.bytes:6} {c.llvm.bytes:6} {c.ours.bytes / c.llvm.bytes:5.2f}")
    print(f"{name:12} instructions {totals(costs)[0]:.2f}, bytes {totals(costs)[1]:.2f} of LLVM's")
