# beam.py: BEAM=n searches Opts for each kernel by timing. In: a kernel and the sizes of its buffers. Out: the Opts that
# ran fastest, never slower than the heuristic's. Candidates are estimated, compiled, checked and timed in a process of
# their own, which is ended when one takes too long or crashes; what a search found is kept on the disk under the
# kernel, the machine and the compiler, that of an interrupted one too.   (chapter 3)
from __future__ import annotations
import contextlib, sys, time
from typing import Any, Iterator, NamedTuple
import numpy as np
from picograd import codegen
from picograd.codegen.optimize import Opt, ranges_in
from picograd.codegen.target import Target, text_of
from picograd.dtype import DType, dtypes
from picograd.helpers import BEAM, cache_get, cache_put, ceildiv
from picograd.ops.index import bounds
from picograd.ops.ops import ALU, Axis, Ops, Space
from picograd.ops.uop import UOp, from_rows, rows_of, toposort, without_after
from picograd.runtime.device import Device, device
from picograd.runtime.numpy import fit, packed, unpacked
from picograd.runtime.process import Failed, Process

Opts = list[Any]           # of Opt, Stage and what else optimize.py applies

ROUNDS = 8               # at most: each adds, changes or removes one Opt
TIMED = 6                # candidates of a round that are timed, for each that is kept
GAIN = 0.98              # of the time: less than this is noise
ESTIMATE_LIMIT = 2.0     # seconds for the passes of one candidate
TIME_LIMIT = 10.0        # seconds to compile, check and time one
BEGIN_LIMIT = 60.0       # seconds to start a process, and to run the heuristic's choice there
SEARCH_LIMIT = 120.0     # seconds for a kernel
SHORTEST = 2e-3          # seconds of runs that make a measurement
DUELS = 5                # rounds between the best candidate and the heuristic's choice

# ---- candidates ------------------------------------------------------------------------------------------------------

AMOUNTS: dict[Axis, tuple[int, ...]] = {
  Axis.VECTOR: (2, 4, 8, 16, 32),
  Axis.UPCAST: (2, 3, 4, 6, 8, 12),
  Axis.UNROLL: (2, 4, 8),
  Axis.STRIP: (16, 64, 256),
  Axis.BLOCK: (32, 64, 128, 256, 512),
  Axis.TILE: (4, 6, 8, 12, 16, 24, 32, 48),   # of those that the heuristic chose
}
OF_OUTPUTS = (Axis.VECTOR, Axis.UPCAST, Axis.STRIP, Axis.BLOCK)
OF_REDUCTIONS = (Axis.VECTOR, Axis.UNROLL, Axis.BLOCK)

def neighbours(kernel: UOp, opts: Opts, target: Target) -> Iterator[Opts]:
  """The lists that differ from opts in one Opt. Threads stay last: they take what is left of a range."""
  for k in range(len(opts)): yield opts[:k] + opts[k + 1:]
  for k, opt in enumerate(opts):
    if isinstance(opt, Opt):
      for amount in AMOUNTS.get(opt.axis, ()): yield opts[:k] + [opt._replace(amount=amount)] + opts[k + 1:]
  inner = [o for o in opts if not (isinstance(o, Opt) and o.axis is Axis.THREAD)]
  threads = opts[len(inner):]
  for r in ranges_in(kernel):
    number, most = r.arg[0], bounds(r.bound)[1]
    for axis in OF_REDUCTIONS if r.axis is Axis.REDUCE else OF_OUTPUTS:
      added = [Opt(axis, number, amount) for amount in AMOUNTS[axis] if amount <= most]
      for opt in added:
        if not any(isinstance(o, Opt) and o[:2] == opt[:2] for o in opts): yield inner + [opt] + threads
    if r.axis is not Axis.LOOP or target.threads == 1 or threads: continue
    yield opts + [Opt(Axis.THREAD, number, target.threads)]

# ---- the cost model --------------------------------------------------------------------------------------------------

WEIGHTS = {Ops.FDIV: 5.0, Ops.SQRT: 5.0, Ops.IDIV: 20.0, Ops.MOD: 20.0, Ops.RANGE: 1.0, Ops.LOAD: 1.0, Ops.STORE: 1.0}
SPILL = 2.0              # reading and writing an accumulator that has no register
ADDRESS = 0.25           # arithmetic on positions, which runs beside, or folds into loads and stores

def cost(code: list[UOp], target: Target) -> float:
  """Instructions that one thread runs through, of a structured list: those in a loop count as often as it goes round,
  wide vectors as often as there are registers in them."""
  accumulators = {u for u in code if u.op is Ops.BUFFER and u.arg.space is Space.REG}
  spilled = sum(registers(u.dtype, target) for u in accumulators) > target.registers
  total, times = 0.0, [1.0]
  for u in code:
    if u.op is Ops.END: del times[len(times) - sum(s.op is Ops.RANGE for s in u.src):]
    elif u.op is Ops.RANGE: times.append(times[-1] * max(1, bounds(u.src[0])[1]))
    memory = u.src[0].src[0] if u.op in (Ops.LOAD, Ops.STORE) else None
    if memory is not None and without_after(memory) in accumulators: weight = SPILL if spilled else 0.0
    elif u.op in ALU and u.dtype == target.position: weight = ADDRESS
    else: weight = WEIGHTS.get(u.op, 1.0 if u.op in ALU else 0.0)
    dtype = u.src[1].dtype if u.op is Ops.STORE else u.dtype
    total += times[-1] * weight * registers(dtype, target)
  return total

def registers(dtype: DType, target: Target) -> int:
  return ceildiv(dtype.itemsize, target.vector_bytes) if target.vector_bytes else dtype.count

# ---- in the process that runs candidates -----------------------------------------------------------------------------

class Bench:
  """One kernel with buffers of random data, and the results of the heuristic's choice."""
  def __init__(self, name: str, kernel: UOp, sizes: tuple[int, ...], baseline: Opts):
    self.where, self.kernel = device(name), kernel
    assert self.where.target is not None
    self.target = self.where.target
    self.programs: dict[str, Any] = {}
    params = {u.arg: u for u in toposort([kernel]) if u.op is Ops.PARAM}
    self.types = [params[slot].dtype if slot in params else dtypes.uint8 for slot in range(len(sizes))]
    random = np.random.default_rng(0)
    self.inputs = [random_data(random, size, dtype) for size, dtype in zip(sizes, self.types)]
    self.memory = [self.where.allocate(data.nbytes) for data in self.inputs]
    self.expected = self.results(self.program(baseline))

  def program(self, opts: Opts) -> Any:
    key = repr(opts)
    if key not in self.programs:
      code = codegen.compile("candidate", self.kernel, self.target, opts)
      self.programs[key] = self.where.load("candidate", self.where.compile(self.where.render(code)))
    return self.programs[key]

  def results(self, program: Any) -> list[np.ndarray]:
    for memory, data in zip(self.memory, self.inputs): self.where.copy_in(memory, data)
    program(self.memory)
    self.where.synchronize()
    found = [np.empty_like(data) for data in self.inputs]
    for memory, out in zip(self.memory, found): self.where.copy_out(memory, out)
    return found

  def estimate(self, opts: Opts) -> float:
    return cost(codegen.structured("candidate", self.kernel, self.target, opts), self.target)

  def check(self, opts: Opts) -> None:
    for got, want, dtype in zip(self.results(self.program(opts)), self.expected, self.types):
      if not agree(got, want, dtype): raise Failed("its results differ from the heuristic's")

  def time(self, opts: Opts) -> float:
    """The least seconds of a run."""
    program, least, spent = self.program(opts), float("inf"), 0.0
    while spent < SHORTEST:
      start = time.perf_counter()
      program(self.memory)
      self.where.synchronize()
      seconds = time.perf_counter() - start
      least, spent = min(least, seconds), spent + seconds
    return least

def random_data(random: np.random.Generator, size: int, dtype: DType) -> np.ndarray:
  """Integers are 0 or 1: they may be positions, and every dimension worth a search has these two."""
  values = random.random(size, np.float32) * 2 - 1 if dtype.is_floating_point else random.integers(0, 2, size)
  return packed(fit(values, dtype), dtype)

def agree(got: np.ndarray, want: np.ndarray, dtype: DType) -> bool:
  """Whether two results differ by no more than another order of additions explains."""
  if not dtype.is_floating_point: return bool(np.array_equal(got, want))
  got, want = (unpacked(a, dtype).astype(np.float64) for a in (got, want))
  finite = want[np.isfinite(want)]
  typical = float(np.sqrt(np.mean(finite * finite))) if finite.size else 0.0
  allowed = 500 * dtype.eps
  return bool(np.allclose(got, want, allowed, allowed * typical, equal_nan=True))

current: "Bench | None" = None

def begin(name: str, rows: list[Any], *arguments: Any) -> None:
  global current
  current = Bench(name, from_rows(rows), *arguments)

def ask(method: str, *arguments: Any) -> Any: return getattr(current, method)(*arguments)

# ---- the other end ---------------------------------------------------------------------------------------------------

class Worker:
  """A process that runs candidates of one kernel. One that is stuck or has died is replaced."""
  def __init__(self, *kernel: Any):
    self.kernel = kernel                      # of begin
    self.process = Process()

  def ask(self, limit: float, method: str, *arguments: Any) -> Any:
    """The answer. Failed where there is none within so many seconds."""
    if not self.process.is_running: self.process.call(BEGIN_LIMIT, begin, *self.kernel)
    return self.process.call(limit, ask, method, *arguments)

  def close(self) -> None: self.process.close()

# ---- the search ------------------------------------------------------------------------------------------------------

class Found(NamedTuple):
  opts: Opts
  seconds: float

def best_opts(where: Device, kernel: UOp, sizes: tuple[int, ...], name: str) -> Opts:
  """The Opts to compile a kernel with: from the disk, or from a search. sizes: elements of each slot's buffer."""
  assert where.target is not None
  baseline: Opts = [*codegen.opts_for(kernel, where.target)]
  key = codegen.compiler() + where.cache_key(f"{BEAM} {text_of(where.target)} {sizes} {name}")
  known = cache_get("beam", key)
  if known is not None: return known
  worker = Worker(where.name, rows_of(kernel), sizes, baseline)
  kept = [Found(baseline, 0.0)]
  try: search(worker, kernel, where.target, kept, Progress(name))
  except KeyboardInterrupt: print(f"BEAM: {name}: interrupted, goes on with the best so far", file=sys.stderr)
  finally: worker.close()
  return cache_put("beam", key, kept[0].opts)

def search(worker: Worker, kernel: UOp, target: Target, kept: list[Found], progress: Progress) -> None:
  """Leaves in kept the best lists, fastest first. kept begins as the heuristic's choice, which stays first unless
  another one beats it in turns."""
  baseline, end = kept[0].opts, time.perf_counter() + SEARCH_LIMIT
  try: front = [Found(baseline, worker.ask(TIME_LIMIT, "time", baseline))]
  except Failed: return                       # nothing to compare with
  seen = {repr(baseline)}
  for turn in range(ROUNDS):
    near = {repr(opts): opts for found in front for opts in [[], *neighbours(kernel, found.opts, target)]}
    timed = timed_best(worker, [near[key] for key in near if key not in seen], front[0].seconds, end, progress)
    seen.update(near)
    best = min([front[0].seconds, *[found.seconds for found in timed]])
    done = best > front[0].seconds * GAIN
    front = sorted([*front, *timed], key=lambda found: found.seconds)[:int(BEAM)]
    if front[0].opts != baseline and wins(worker, front[0].opts, baseline): kept[:] = front
    if done or time.perf_counter() > end: break
  progress.close(kept[0].opts)

def timed_best(worker: Worker, candidates: list[Opts], seconds: float, end: float, progress: Progress) -> list[Found]:
  """The candidates that the cost model likes best, checked and timed."""
  estimates: list[tuple[float, Opts]] = []
  for opts in candidates:
    if time.perf_counter() > end: break
    progress.step("estimated", seconds)
    with contextlib.suppress(Failed): estimates.append((worker.ask(ESTIMATE_LIMIT, "estimate", opts), opts))
  estimates.sort(key=lambda pair: pair[0])
  timed: list[Found] = []
  for _, opts in estimates[:TIMED * int(BEAM)]:
    if time.perf_counter() > end: break
    progress.step("timed", min([seconds, *[found.seconds for found in timed]]))
    with contextlib.suppress(Failed):
      worker.ask(TIME_LIMIT + 50 * seconds, "check", opts)
      timed.append(Found(opts, worker.ask(TIME_LIMIT + 50 * seconds, "time", opts)))
  return timed

def wins(worker: Worker, opts: Opts, baseline: Opts) -> bool:
  """Whether opts are faster than the heuristic's choice in turns, so that both meet the machine in the same state."""
  try: times = [[worker.ask(TIME_LIMIT, "time", each) for each in (opts, baseline)] for _ in range(DUELS)]
  except Failed: return False
  ours, theirs = (min(column) for column in zip(*times))
  return ours < theirs * GAIN

class Progress:
  """One line on standard error, by tqdm where it is installed."""
  def __init__(self, name: str):
    self.name, self.counts = name, {"estimated": 0, "timed": 0}
    self.bar: Any = None
    with contextlib.suppress(ImportError):
      from tqdm import tqdm
      self.bar = tqdm(desc=f"BEAM {name}", unit=" candidates", leave=False, file=sys.stderr)

  def step(self, kind: str, seconds: float) -> None:
    self.counts[kind] += 1
    if self.bar is None: return
    self.bar.update(1)
    self.bar.set_postfix_str(f"{self.counts['timed']} timed, best {seconds * 1e6:.1f} us", refresh=False)

  def close(self, opts: Opts) -> None:
    if self.bar is not None: self.bar.close()
    print(f"BEAM {self.name}: {self.counts['timed']} of {self.counts['estimated']} timed: {opts}", file=sys.stderr)
