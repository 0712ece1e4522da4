# plan.py: what has to run for a graph. In: the form of a graph (realize.py), which names no particular buffer, and a
# device. Out: a Plan: loaded kernels in order, which memory each works on, where the temporaries lie. A plan is found
# in memory, on disk, or made; its key on disk is the form, the machine and the sources of this compiler.   (chapter 3)
from __future__ import annotations
import functools, hashlib, importlib, os, time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from threading import Thread
from typing import Any, Callable, Iterable, Iterator, NamedTuple, TypeVar
from picograd import codegen
from picograd.codegen.memory import Arena, plan_memory
from picograd.codegen.schedule import PLAIN, Kernel, bytes_moved, operations, schedule
from picograd.codegen.target import text_of
from picograd.dtype import DType
from picograd.helpers import (BEAM, Counters, DEBUG, DUMP, Flag, SPEC, THREADS, cache_get, cache_put, collector_paused,
                              dedup)
from picograd.ops.ops import Ops
from picograd.ops.show import show
from picograd.ops.uop import UOp, from_rows, intern_key, rows_of, toposort
from picograd.runtime.device import Device, Program
from picograd.runtime.process import Failed, Process

class Binary(NamedTuple):
  """A compiled kernel, and the work of one run."""
  name: str
  code: bytes
  operations: int
  bytes: int

class Call(NamedTuple):
  """What a kernel works on: the BUFFER leaf of each slot, and the slots that it writes."""
  buffers: tuple[UOp, ...]
  outputs: frozenset[int]

class Launch(NamedTuple):
  """A kernel ready to run."""
  name: str
  program: Program
  kernel: Call
  operations: int
  bytes: int

class Plan(NamedTuple):
  """The schedule of a graph form: which leaf holds each result (None: an assignment), where each temporary lies."""
  launches: list[Launch]
  arena: Arena
  results: list[UOp | None]

PLAN_LIMIT = 512
plans: dict[tuple[str, UOp], Plan] = {}

def find_plan(where: Device, roots: list[UOp]) -> Plan:
  """The plan that computes the roots of a form."""
  key = (where.name, UOp.sink(*roots))
  if key not in plans:
    if len(plans) >= PLAN_LIMIT: plans.pop(next(iter(plans)))
    with collector_paused(): plans[key] = kept_plan(where, roots) or new_plan(where, roots)
  return plans[key]

def new_plan(where: Device, roots: list[UOp]) -> Plan:
  """Schedules and compiles a form, and keeps the result on disk."""
  made = schedule(roots, where.name, where.target or PLAIN)
  arena = plan_memory([k.buffers for k in made.kernels], made.temporary)
  binaries = compile_all(where, made.kernels)
  calls = [(binaries[k.ast], Call(k.buffers, k.outputs)) for k in made.kernels]
  keep(where, roots, calls, arena, made.results)
  return Plan([launch(where, *call) for call in calls], arena, made.results)

def launch(where: Device, binary: Binary, call: Call) -> Launch:
  return Launch(binary.name, load(where, binary), call, binary.operations, binary.bytes)

programs: dict[tuple[str, str, bytes], Program] = {}

def load(where: Device, binary: Binary) -> Program:
  """A kernel's program, loaded once."""
  key = (where.name, binary.name, binary.code)
  if key not in programs: programs[key] = where.load(binary.name, binary.code)
  return programs[key]

# ---- plans on disk ---------------------------------------------------------------------------------------------------

class Kept(NamedTuple):
  """A plan as the disk has it. A leaf is a number: the leaves of the form come first, then those that the plan adds."""
  added: list[tuple[DType, int]]                                 # dtype and size
  binaries: list[Binary]
  calls: list[tuple[int, tuple[int, ...], frozenset[int]]]       # which binary, the leaf of each slot, slots it writes
  arena_bytes: int
  offsets: dict[int, int]
  results: list[int | None]

CHOICE = codegen.opts_for

def is_watched() -> bool:
  """Whether somebody wants to see the passes at work, or Opts of their own: the disk has neither."""
  return DEBUG >= 3 or bool(SPEC) or bool(DUMP.value) or codegen.opts_for is not CHOICE

def keep(where: Device, roots: list[UOp], calls: list[tuple[Binary, Call]], arena: Arena,
         results: list[UOp | None]) -> None:
  """Puts a plan on the disk."""
  if is_watched(): return
  inputs = leaves_of(roots)
  used = [leaf for _, call in calls for leaf in call.buffers]
  leaves = dedup([*inputs, *used, *[r for r in results if r is not None]])
  numbers = {leaf: i for i, leaf in enumerate(leaves)}
  binaries = dedup(binary for binary, _ in calls)
  kept = Kept([(leaf.dtype, leaf.arg.size) for leaf in leaves[len(inputs):]], binaries,
              [(binaries.index(b), tuple([numbers[leaf] for leaf in c.buffers]), c.outputs) for b, c in calls],
              arena.size, {numbers[leaf]: offset for leaf, offset in arena.offsets.items()},
              [None if r is None else numbers[r] for r in results])
  cache_put("plans", plan_key(where, roots), kept)

def kept_plan(where: Device, roots: list[UOp]) -> Plan | None:
  """The plan of a form, if it is on disk."""
  found = None if is_watched() else cache_get("plans", plan_key(where, roots))
  if not isinstance(found, Kept): return None
  leaves = leaves_of(roots) + [UOp.buffer(dtype, size, where.name) for dtype, size in found.added]
  calls = [(found.binaries[k], Call(tuple([leaves[n] for n in slots]), outputs)) for k, slots, outputs in found.calls]
  arena = Arena(found.arena_bytes, {leaves[n]: offset for n, offset in found.offsets.items()})
  results = [None if n is None else leaves[n] for n in found.results]
  return Plan([launch(where, *call) for call in calls], arena, results)

def leaves_of(roots: list[UOp]) -> list[UOp]: return [u for u in toposort(roots) if u.op is Ops.BUFFER]

def plan_key(where: Device, roots: list[UOp]) -> bytes:
  """All that a plan depends on."""
  flags = [flag for name, flag in Flag.table.items() if name not in CHANGE_NO_CODE]
  machine = where.cache_key(f"{text_of(where.target)} {where.name} {flags}")
  return b"\n".join([codegen.compiler(), machine, structure([UOp.sink(*roots)]).encode()])

CHANGE_NO_CODE = frozenset({"DEBUG", "PROFILE", "DEVICE", "EAGER", "SPEC", "DUMP", "CACHE", "CACHE_DIR"})

def structure(roots: list[UOp]) -> str:
  """A graph as text, equal for equal graphs."""
  nodes = toposort(roots)
  numbers = {u: i for i, u in enumerate(nodes)}
  return "\n".join([f"{u.op} {u.dtype} {[numbers[s] for s in u.src]} {intern_key(u.op, u.dtype, (), u.arg)[3]!r}"
                    for u in nodes])

# ---- compiling -------------------------------------------------------------------------------------------------------

binaries: dict[tuple[str, UOp], Binary] = {}

def compile_all(where: Device, kernels: Iterable[Kernel]) -> dict[UOp, Binary]:
  """The binary of each different kernel, from memory, from the disk cache or from the compiler. While a library
  compiles one source, on a thread of its own, the passes in Python make the next; that thread builds no nodes. Where
  much is left to do, other processes take kernels from the end: the passes cannot run side by side in one. A search,
  which times kernels, runs alone."""
  different = {k.ast: k for k in kernels}
  names = {ast: kernel_name(ast) for ast in different if (where.name, ast) not in binaries}
  waiting, jobs = deque(names), dict[UOp, Future]()
  library = ThreadPoolExecutor(1) if len(names) > 1 and not BEAM else None
  helpers = Helpers(where, names, waiting)
  start = time.perf_counter()
  def compile_here(ast: UOp) -> None:
    source = source_of(where, names[ast], different[ast])
    jobs[ast] = (library.submit if library else immediately)(binary_of, where, source)
  try:
    for done, ast in enumerate(taken(waiting.popleft), 1):
      compile_here(ast)
      helpers.grow(helpful(where, (time.perf_counter() - start) / done * len(waiting)))
    helpers.join()
    for ast in names:                                                # what a process has failed to compile is left
      if ast not in jobs and ast not in helpers.made: compile_here(ast)
    for ast, name in names.items():
      code = jobs[ast].result() if ast in jobs else helpers.made[ast][1]
      binaries[where.name, ast] = Binary(name, code, operations(different[ast]), bytes_moved(different[ast]))
    Counters.compiled += sum(compiled for compiled, _ in helpers.made.values())
  finally:
    helpers.end()
    if library: library.shutdown(cancel_futures=True)
  return {ast: binaries[where.name, ast] for ast in different}

T = TypeVar("T")

def taken(take: Callable[[], T]) -> Iterator[T]:
  """What take gives, until there is nothing left: others take, too."""
  with suppress(IndexError):
    while True: yield take()

START = 0.5           # seconds of work that are worth another process: it takes more than half of it to start
MOST_PROCESSES = 8
SLOWEST = 300.0       # seconds for one kernel

def helpful(where: Device, seconds: float) -> int:
  """How many other processes are worth their start when the kernels that wait would take so long."""
  if seconds < START or where.compiler() is None or BEAM or is_watched() or os.name != "posix": return 0
  return min(int(seconds / START), int(THREADS) - 1, MOST_PROCESSES)

class Helpers:
  """Other processes, each asked by a thread of its own, that take kernels from the end of those that wait. What fails
  there is left to the caller, who meets its error.
  made: kernel -> how many the library compiled for it (0: the disk had it), and its binary."""
  def __init__(self, where: Device, names: dict[UOp, str], waiting: deque[UOp]):
    self.where, self.names, self.waiting = where, names, waiting
    self.made: dict[UOp, tuple[int, bytes]] = {}
    self.running: list[tuple[Process, Thread]] = []

  def grow(self, count: int) -> None:
    while len(self.running) < count:
      process = Process()
      thread = Thread(target=self.work, args=(process,))
      self.running.append((process, thread))
      thread.start()

  def work(self, process: Process) -> None:
    with suppress(Failed):
      for ast in taken(self.waiting.pop):
        request = (self.where.compiler(), text_of(self.where.target), self.names[ast], rows_of(ast))
        self.made[ast] = process.call(SLOWEST, compiled_alone, *request)
    process.close()

  def join(self) -> None:
    for _, thread in self.running: thread.join()

  def end(self) -> None:
    """Nothing waits any more, and no process runs."""
    self.waiting.clear()
    for process, _ in self.running: process.end()
    self.join()

@functools.cache
def compiler_of(function: Callable[..., Device], *arguments: Any) -> Device: return function(*arguments)

def compiled_alone(compiler: tuple[Any, ...], target: str, name: str, rows: list[Any]) -> tuple[int, bytes]:
  """In another process: how many kernels the library compiled, and the binary of this one."""
  where, before = compiler_of(*compiler), Counters.compiled
  if text_of(where.target) != target: raise Failed("the flags have changed since the device was opened")
  with collector_paused(): binary = binary_of(where, rendered(where, name, codegen.prepared(from_rows(rows))))
  return Counters.compiled - before, binary

def immediately(function: Callable[..., Any], *args: Any) -> Future:
  """What a single job is run by: no thread is started for it."""
  done: Future = Future()
  done.set_result(function(*args))
  return done

def source_of(where: Device, name: str, kernel: Kernel) -> str:
  ast = codegen.prepared(kernel.ast)
  return rendered(where, name, ast, tuned(where, name, ast, kernel) if BEAM else None)

def rendered(where: Device, name: str, ast: UOp, opts: list[Any] | None = None) -> str:
  """The source of a prepared kernel; without Opts it has the heuristic's."""
  assert where.target is not None, "a graph interpreter compiles nothing"
  if opts is None: opts = codegen.opts_for(ast, where.target)
  if DEBUG >= 3: print(f"{name}: {opts}")
  if DEBUG >= 5: print(show(ast))
  source = where.render(codegen.compile(name, ast, where.target, opts))
  if DEBUG >= 4: print(source)
  return source

def tuned(where: Device, name: str, ast: UOp, kernel: Kernel) -> list[Any]:
  """The Opts that a search finds. What it needs takes long to import."""
  beam = importlib.import_module("picograd.runtime.beam")
  return beam.best_opts(where, ast, tuple([leaf.arg.size for leaf in kernel.buffers]), name)

def binary_of(where: Device, source: str) -> bytes:
  key = where.cache_key(source)
  binary = cache_get("kernels", key)
  if binary is not None: return binary
  Counters.compiled += 1
  return cache_put("kernels", key, where.compile(source))

def kernel_name(ast: UOp) -> str:
  """A name that says what the kernel loops over, and ends in a digest of its structure: equal names, equal kernels."""
  digest = hashlib.sha256(structure([ast]).encode()).hexdigest()[:8]
  nodes = toposort([ast])
  extents = [str(u.bound.arg) for u in nodes if u.op is Ops.RANGE]
  kind = "reduce" if any(u.op is Ops.REDUCE for u in nodes) else "map"
  return "_".join([kind, *extents, digest])
