# limits.py: what the machine can do at best, measured by a few loops of LLVM IR that share no code with the compiler.
# In: a number of threads. Out: Limits, of all threads together. The loops: fused multiply-adds in registers; reading
# memory; copying memory with stores that bypass the caches.
from __future__ import annotations
import ctypes, threading, time
from typing import Any, Callable, NamedTuple, Sequence
import numpy as np

ACCUMULATORS = 12        # independent chains: more than two units of four cycles need, and 16 registers hold them
FMA_STEPS = 2_000_000
ALIGNMENT = 64
SIZES = (64 << 20, 256 << 20)                 # bytes: about what the smaller and the larger workloads touch
REPEATED = 32 << 20      # bytes that a measurement moves at least
CACHED_SIZES = (1 << 17, 1 << 20, 8 << 20)    # bytes that caches of one level or another hold
SECONDS = 0.15           # for each figure: the first calls find slow clocks and cold caches

class Bandwidth(NamedTuple):
  """Bytes per second with a given number of bytes in use."""
  size: int
  read: float
  copy: float                                 # bytes read and bytes written count

class Limits(NamedTuple):
  fma: float                                  # operations per second; a multiply-add is two
  memory: tuple[Bandwidth, ...]

  def seconds(self, flops: float, read: float, written: float) -> float:
    """The least time for so many operations and bytes, if both can overlap. What is written counts as copied."""
    found = min(self.memory, key=lambda m: abs(m.size - read - written))
    copied = min(read, written)
    return max(flops / self.fma, 2 * copied / found.copy + (read - copied) / found.read)

# ---- the loops -------------------------------------------------------------------------------------------------------

def loop(name: str, lanes: int, load: str, combine: str, store: str) -> str:
  """A function of (count, source, target): `count` turns of one step for each accumulator, whose sum is stored."""
  vector = f"<{lanes} x float>"
  each = range(ACCUMULATORS)
  lines = [f"define void @{name}(i64 %n, ptr %source, ptr %target) {{", "start:", "  br label %loop", "loop:",
           "  %i = phi i64 [ 0, %start ], [ %next, %loop ]"]
  lines += [f"  %a{k} = phi {vector} [ zeroinitializer, %start ], [ %b{k}, %loop ]" for k in each]
  lines += [f"  %at = mul i64 %i, {ACCUMULATORS}"]
  for k in each: lines += [line.format(k=k, vector=vector) for line in (load, combine, store) if line]
  lines += ["  %next = add i64 %i, 1", "  %more = icmp ult i64 %next, %n", "  br i1 %more, label %loop, label %done",
            "done:", f"  %s0 = fadd {vector} %b0, zeroinitializer"]
  lines += [f"  %s{k} = fadd {vector} %s{k - 1}, %b{k}" for k in each if k]
  lines += [f"  store {vector} %s{ACCUMULATORS - 1}, ptr %target, align {ALIGNMENT}", "  ret void", "}"]
  return "\n".join(lines)

LOAD = ("  %i{k} = add i64 %at, {k}\n  %p{k} = getelementptr {vector}, ptr %source, i64 %i{k}\n"
        "  %x{k} = load {vector}, ptr %p{k}, align 4")
ADD = "  %b{k} = fadd {vector} %a{k}, %x{k}"
STORE = ("  %q{k} = getelementptr {vector}, ptr %target, i64 %i{k}\n"
         "  store {vector} %x{k}, ptr %q{k}, align 64, !nontemporal !0")

def module_text(lanes: int) -> str:
  vector = f"<{lanes} x float>"
  fma = f"@llvm.fma.v{lanes}f32"
  factor = f"{vector} splat (float 0.5)"
  step = "  %b{k} = call {vector} " + f"{fma}({vector} %a{{k}}, {factor}, {factor})"
  keep = "  %b{k} = bitcast {vector} %x{k} to {vector}"
  return "\n".join([f"declare {vector} {fma}({vector}, {vector}, {vector})", loop("fma", lanes, "", step, ""),
                    loop("read", lanes, LOAD, ADD, ""), loop("copy", lanes, LOAD, keep, STORE), "!0 = !{i32 1}"])

class Loops:
  """The loops in machine code for this processor."""
  def __init__(self) -> None:
    import llvmlite.binding as llvm
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    features = llvm.get_host_cpu_features()
    self.lanes = 16 if features.get("avx512f") else 8 if features.get("avx2") else 4
    target = llvm.Target.from_default_triple()
    machine = target.create_target_machine(cpu=llvm.get_host_cpu_name(), features=features.flatten(), opt=2, jit=True)
    self.engine = llvm.create_mcjit_compiler(llvm.parse_assembly(module_text(self.lanes)), machine)
    self.engine.finalize_object()

  def __getitem__(self, name: str) -> Callable[[int, int, int], None]:
    """A loop as a function of (turns, address, address); it runs beside other threads of Python."""
    kind = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p)
    return kind(self.engine.get_function_address(name))

# ---- measuring -------------------------------------------------------------------------------------------------------

def aligned(nbytes: int) -> np.ndarray:
  raw: np.ndarray = np.ones(nbytes + ALIGNMENT, np.uint8)
  first = -raw.ctypes.data % ALIGNMENT
  return raw[first:first + nbytes]

def best_time(calls: Sequence[Callable[[], Any]]) -> float:
  """The least seconds in which all calls, each in its thread, are done."""
  def once() -> float:
    workers = [threading.Thread(target=call) for call in calls]
    start = time.perf_counter()
    for worker in workers: worker.start()
    for worker in workers: worker.join()
    return time.perf_counter() - start
  end, least = time.perf_counter() + SECONDS, once()
  while time.perf_counter() < end: least = min(least, once())
  return least

def measure(threads: int, sizes: Sequence[int] = SIZES) -> Limits:
  loops = Loops()
  step = ACCUMULATORS * loops.lanes           # floats in one turn
  fma, read, copy = loops["fma"], loops["read"], loops["copy"]

  def bandwidth(size: int) -> Bandwidth:
    turns = size // threads // (4 * step)
    repeats = max(1, REPEATED // size)          # of short loops: starting a thread takes longer than one of them
    moved = turns * 4 * step * threads * repeats
    whole = [aligned(size // threads) for _ in range(threads)]
    halves = [(part, aligned(size // threads // 2)) for part in whole]
    sums = [aligned(ALIGNMENT) for _ in range(threads)]
    def again(loop: Any, count: int, source: np.ndarray, target: np.ndarray) -> Callable[[], None]:
      first, second = source.ctypes.data, target.ctypes.data
      def run() -> None:
        for _ in range(repeats): loop(count, first, second)
      return run
    reading = [again(read, turns, a, s) for a, s in zip(whole, sums)]
    copying = [again(copy, turns // 2, a, b) for a, b in halves]
    return Bandwidth(size, moved / best_time(reading), moved / best_time(copying))

  flops = 2 * step * FMA_STEPS * threads
  def multiply() -> None:
    total = aligned(ALIGNMENT)
    fma(FMA_STEPS, 0, total.ctypes.data)
  peak = flops / best_time([multiply] * threads)
  return Limits(peak, tuple(bandwidth(size) for size in sizes))

def as_numbers(limits: Limits) -> list[float]: return [limits.fma, *(x for m in limits.memory for x in m)]

def from_numbers(numbers: list[float]) -> Limits:
  fma, *rest = numbers
  return Limits(fma, tuple(Bandwidth(int(a), b, c) for a, b, c in zip(rest[::3], rest[1::3], rest[2::3])))

def best_of(first: Limits, second: Limits) -> Limits:
  """The higher of each figure: other work on the machine only ever lowers them."""
  pairs = zip(first.memory, second.memory)
  memory = tuple(Bandwidth(a.size, max(a.read, b.read), max(a.copy, b.copy)) for a, b in pairs)
  return Limits(max(first.fma, second.fma), memory)
