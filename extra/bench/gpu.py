# gpu.py: kernels of picograd and of torch timed side by side on one GPU. Both sides become CUDA graphs of several calls,
# which are replayed in turn; a time is the median over the rounds, by device events. Data is random and results are
# compared by the caller.
from __future__ import annotations
import statistics
from typing import Any, Callable, NamedTuple
from picograd.runtime import cuda
from picograd.runtime.device import device

class Pair(NamedTuple):
  """Seconds of one call of ours and of one of theirs."""
  ours: float
  theirs: float
  @property
  def ratio(self) -> float: return self.theirs / self.ours

class Recorder:
  """What CUDA programs are called with inside a `with` block."""
  def __init__(self) -> None: self.calls: list[tuple[Any, list[Any]]] = []
  def __enter__(self) -> "Recorder":
    self.original = cuda.CudaProgram.__call__
    def record(program: Any, memory: Any) -> None:
      self.calls.append((program, list(memory)))
      self.original(program, memory)
    setattr(cuda.CudaProgram, "__call__", record)
    return self
  def __exit__(self, *_: Any) -> None: setattr(cuda.CudaProgram, "__call__", self.original)

def recorded(work: Callable[[], Any]) -> list[tuple[Any, list[Any]]]:
  """The launches of one call of work, which keep their memory alive."""
  with Recorder() as recorder: work()
  return recorder.calls

def graph_of_torch(torch: Any, work: Callable[[], Any], count: int) -> Callable[[], None]:
  side = torch.cuda.Stream()
  torch.cuda.synchronize()
  with torch.cuda.stream(side):
    for _ in range(3): work()
  torch.cuda.synchronize()
  graph = torch.cuda.CUDAGraph()
  with torch.cuda.graph(graph):
    for _ in range(count): work()
  return graph.replay

def torch_seconds(torch: Any, replay: Callable[[], None]) -> float:
  start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
  start.record()
  replay()
  end.record()
  end.synchronize()
  return start.elapsed_time(end) / 1e3

def side_by_side(torch: Any, calls: list[tuple[Any, list[Any]]], theirs: Callable[[], Any], count: int = 10,
                 rounds: int = 7) -> Pair:
  """Medians of alternate replays of `count` calls each."""
  where: Any = device("CUDA")
  ours = where.capture(calls * count)
  replay = graph_of_torch(torch, theirs, count)
  for warm in (ours, replay): warm()
  where.synchronize()
  torch.cuda.synchronize()
  mine, other = [], []
  for _ in range(rounds):
    mine.append(where.timed(ours))
    other.append(torch_seconds(torch, replay))
  return Pair(statistics.median(mine) / count, statistics.median(other) / count)
