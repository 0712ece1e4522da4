# jit.py: what a function made the devices do, as one program. In: everything realize.py runs between the tape's start
# and its end. Out: a Captured: the same launches on other input and output buffers, with no Python between kernels.
# Who decides when that is right, and what the buffers mean to the user, is picograd/capture.py.   (chapter 3)
from __future__ import annotations
import threading, time
from typing import Any, Callable, NamedTuple, Sequence
import numpy as np
from picograd.dtype import dtypes
from picograd.helpers import Counters, DEBUG, PROFILE
from picograd.ops.ops import Buf, Ops
from picograd.ops.uop import UOp, fresh
from picograd.runtime import profile
from picograd.runtime.device import Buffer, Device, buffer_of
from picograd.runtime.plan import Launch, Plan, find_plan
from picograd.runtime.realize import watchers

class CaptureError(RuntimeError):
  """A captured function does what cannot be replayed; the message says what to do instead."""

class Part(NamedTuple):
  """A piece of an arena."""
  offset: int
  nbytes: int

class Feed(NamedTuple):
  """Data that the host makes anew for each replay: make() counts on, rewind() takes one make() back."""
  buffer: Buffer
  make: Callable[[], np.ndarray]
  rewind: Callable[[], None]

class Tape:
  """A recording. Buffers that it names stay alive, so that no two of them share memory."""
  def __init__(self) -> None:
    self.where: Device | None = None
    self.launches: list[tuple[Launch, list[Any]]] = []          # with a Place for each slot
    self.written: dict[Buffer, None] = {}
    self.arena_bytes = 0
    self.feeds: list[Feed] = []
    self.differentiated: list[Any] = []                         # tensors whose .grad was set
    self.overwritten: list[Any] = []                            # storages that were written in place
    self.began = next(fresh)                                    # what is made from now on has a larger number
    self.checks: list[tuple[UOp, Exception]] = []               # a flag that must be zero, and what to raise

  def __enter__(self) -> "Tape":
    if watchers: raise CaptureError("a captured function captures another: call the inner one uncaptured")
    watchers.append(self)
    return self
  def __exit__(self, *_: Any) -> None: watchers.remove(self)

  def ran(self, where: Device, plan: Plan, bound: dict[UOp, Buffer]) -> None:
    """realize.py has run a plan."""
    if self.where not in (None, where): raise CaptureError("a captured function computes on one device")
    self.where = where
    self.arena_bytes = max(self.arena_bytes, plan.arena.size)
    def place(leaf: UOp) -> Any:
      offset = plan.arena.offsets.get(leaf)
      return bound[leaf] if offset is None else Part(offset, leaf.arg.size * leaf.dtype.itemsize)
    for launch in plan.launches:
      places = [place(leaf) for leaf in launch.kernel.buffers]
      self.launches.append((launch, places))
      for k in launch.kernel.outputs:
        if isinstance(places[k], Buffer): self.written[places[k]] = None

  def copied(self, source: str, target: str) -> None:
    raise CaptureError(f"a captured function copies from {source} to {target}: move tensors before the call")
  def interpreted(self, where: str) -> None:
    raise CaptureError(f"nothing can be captured on {where}, which interprets graphs")
  def looked(self) -> None:
    raise CaptureError("a captured function asks for a value (item(), numpy(), bool() or print of a tensor), which a "
                       "replay could not: return the tensor and look at it outside, or choose with where()")
  def checked(self, flag: UOp, error: Exception) -> None: self.checks.append((flag, error))

def feed(leaf: UOp, make: Callable[[], np.ndarray], rewind: Callable[[], None]) -> None:
  """leaf holds data that the host made for this call. Replays of a function that is being captured call make() for
  theirs; without a capture nothing happens."""
  for tape in watchers: tape.feeds.append(Feed(buffer_of(leaf), make, rewind))

def nothing_to_run(memory: Sequence[Any], changed: Sequence[int]) -> None:
  """The program of a tape without launches."""

FLAG = 4                 # bytes of a flag: an int32

def keeping(where: Device, kept: Buffer, flags: Buffer) -> list[tuple[Any, list[Any]]]:
  """Calls after which `kept` has the flags that were ever set: who looks late sees those of all replays."""
  leaves = [UOp(Ops.BUFFER, dtypes.int32, (), Buf(-1 - k, flags.nbytes // FLAG, device=where.name)) for k in range(2)]
  own, new = leaves
  plan = find_plan(where, [own.after(own.store(own.alu(Ops.MAX, new)))])
  memory = {own: kept.memory, new: flags.memory}
  return [(launch.program, [memory[leaf] for leaf in launch.kernel.buffers]) for launch in plan.launches]

class Captured:
  """The launches of a tape, to be run with the memory of each moving buffer. (A method is called sooner than an object
  that can be called.)"""
  def __init__(self, tape: Tape, moving: Sequence[Buffer]):
    numbers = {buffer: i for i, buffer in enumerate(moving)}
    self.busy = threading.Lock()
    self.feeds = tape.feeds
    checks = {buffer_of(flag): error for flag, error in reversed(tape.checks)}          # of one flag, the first error
    self.errors = list(checks.values())
    launches = [launch for launch, _ in tape.launches]
    self.kernels, self.operations = len(launches), sum(launch.operations for launch in launches)
    self.bytes = sum(launch.bytes for launch in launches)
    self.fixed = [p for _, places in tape.launches for p in places if isinstance(p, Buffer) and p not in numbers]
    self.every = sorted({numbers[p] for _, places in tape.launches for p in places if p in numbers})     # that is used
    self.caller: Any = None
    self.where = tape.where
    self.launch = nothing_to_run if tape.where is None else self.program(tape.where, tape, numbers, list(checks))

  def program(self, where: Device, tape: Tape, numbers: dict[Buffer, int], checks: list[Buffer]) -> Any:
    self.arena = Buffer(where, tape.arena_bytes)
    self.flags = self.kept = Buffer(where, FLAG * len(checks))         # side by side: they are looked at together
    flags = {flag: where.slice(self.flags.memory, FLAG * k, FLAG) for k, flag in enumerate(checks)}
    def argument(place: Any) -> Any:
      if place in flags: return flags[place]
      if isinstance(place, Part): return where.slice(self.arena.memory, place.offset, place.nbytes)
      return numbers[place] if place in numbers else place.memory
    calls = [(launch.program, [argument(p) for p in places]) for launch, places in tape.launches]
    if flags and where.is_behind:
      self.kept = Buffer(where, self.flags.nbytes)
      where.copy_in(self.kept.memory, np.zeros(len(flags), np.int32))
      calls += keeping(where, self.kept, self.flags)
    return where.capture(calls)

  def report(self, where: Device, memory: Sequence[Any], changed: Sequence[int]) -> None:
    """Kernels of one program cannot be told apart by a clock outside."""
    start = time.perf_counter()
    seconds = where.timed(lambda: self.launch(memory, changed))
    profile.record(where, f"replay of {self.kernels} kernels", start, seconds, self.operations, self.bytes)

  def run(self, memory: Sequence[Any]) -> None:
    """Runs the program; raises the error of a check that fails."""
    with self.busy: self.run_alone(memory, None, ())

  def run_alone(self, memory: Sequence[Any], caller: Any, changed: Sequence[int]) -> None:
    """The same for a caller who holds the lock, and who may say which of the moving buffers can differ from those of
    its last call."""
    if caller is None or caller is not self.caller: self.caller, changed = caller, self.every
    for feed in self.feeds: feed.buffer.device.copy_in(feed.buffer.memory, feed.make())
    if (DEBUG.value >= 2 or PROFILE.value) and self.where: self.report(self.where, memory, changed)
    else: self.launch(memory, changed)
    Counters.kernels += self.kernels
    Counters.operations += self.operations
    Counters.bytes_moved += self.bytes
    if self.errors and self.where: self.where.check(self.kept, self.errors)
