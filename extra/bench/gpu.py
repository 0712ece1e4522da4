# gpu.py: kernels of picograd and of torch timed side by side on a GPU. Both sides become CUDA graphs of several calls,
# which are replayed in turn; a time is the median over the rounds, by device events. Data is random and results are
# compared by the caller.
from __future__ import annotations
import statistics
from functools import partial
from operator import matmul
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

# ---- `DEVICE=CUDA python -m extra.bench.gpu`: ours, torch's and the ratio -----------------------------------

SIDE = 8192
SIZES = (1024, 2048, 4096, 8192)

def tensors(torch: Any, pg: Any, *shapes: tuple[int, ...], dtype: str = "float32") -> tuple[list[Any], list[Any]]:
  """Fresh random tensors of torch and the same ones of picograd."""
  theirs = [torch.randn(*shape, device="cuda").to(getattr(torch, dtype)) for shape in shapes]
  ours = [pg.tensor(t.float().cpu().numpy(), dtype=getattr(pg, dtype), device="CUDA").realize() for t in theirs]
  return ours, theirs

def error(torch: Any, ours: Any, theirs: Any) -> float:
  """Relative Frobenius distance."""
  got, want = torch.from_numpy(ours.float().numpy()).double(), theirs.double().cpu()
  return float((got - want).norm() / want.norm())

def measured(torch: Any, name: str, ours: Callable[[], Any], theirs: Callable[[], Any], tolerance: float,
             count: int = 10) -> Pair:
  """The times of both sides. RuntimeError where the results differ."""
  off = error(torch, ours(), theirs())
  if not off < tolerance: raise RuntimeError(f"{name}: the result is off by {off:.1e}")
  return side_by_side(torch, recorded(lambda: ours().realize()), theirs, count)

def memory_bound(torch: Any, pg: Any) -> None:
  """Kernels at the speed of memory, as a share of a copy's, 8192 x 8192 float32."""
  F, T = pg.nn.functional, torch.nn.functional
  (x, w, b), (X, W, B) = tensors(torch, pg, (SIDE, SIDE), (SIDE,), (SIDE,))
  Y = torch.empty_like(X)
  rows: list[tuple[str, Callable[[], Any], Callable[[], Any], int]] = [
    ("scale", lambda: x * 1.5, lambda: X * 1.5, 2),
    ("add, mul, relu", lambda: (x * 2 + 1).relu(), lambda: (X * 2 + 1).relu(), 2),
    ("gelu", lambda: F.gelu(x), lambda: T.gelu(X), 2),
    ("softmax", lambda: x.softmax(-1), lambda: X.softmax(-1), 2),
    ("log_softmax", lambda: F.log_softmax(x, dim=-1), lambda: T.log_softmax(X, -1), 2),
    ("rms_norm", lambda: F.rms_norm(x, (SIDE,), w), lambda: T.rms_norm(X, (SIDE,), W), 2),
    ("layer_norm", lambda: F.layer_norm(x, (SIDE,), w, b), lambda: T.layer_norm(X, (SIDE,), W, B), 2),
    ("sum of rows", lambda: x.sum(1), lambda: X.sum(1), 1),
    ("sum of columns", lambda: x.sum(0), lambda: X.sum(0), 1),
    ("sum", lambda: x.sum(), lambda: X.sum(), 1),
    ("transpose", lambda: x.T.contiguous(), lambda: X.T.contiguous(), 2)]
  copy = side_by_side(torch, recorded(lambda: (x * 1.5).realize()), lambda: Y.copy_(X)).theirs
  print(f"copy by torch {copy * 1e6:.1f} us, {2 * X.nbytes / copy / 1e12:.2f} TB/s")
  for name, ours, theirs, passes in rows:
    pair = measured(torch, name, ours, theirs, 1e-5)
    print(f"{name:16s} {pair.ours * 1e6:8.1f} us, {passes / 2 * copy / pair.ours:.3f} of copy; torch "
          f"{pair.theirs * 1e6:8.1f} us, ratio {pair.ratio:.2f}", flush=True)

def products(torch: Any, pg: Any) -> None:
  """Square products against cuBLAS: B as N x K, then as K x N."""
  for dtype, sizes, tolerance in (("bfloat16", SIZES, 1e-2), ("float16", SIZES[1:], 2e-3), ("float32", (4096,), 1e-5)):
    for n in sizes:
      (a, b), (A, B) = tensors(torch, pg, (n, n), (n, n), dtype=dtype)
      for layout, y, Y in (("NxK", b.T, B.T), ("KxN", b, B)):
        ours, theirs = partial(matmul, a, y), partial(matmul, A, Y)
        pair = measured(torch, f"{dtype} {n}", ours, theirs, tolerance, 3 if n == 8192 else 10)
        print(f"{dtype} {n} {layout} {2e-12 * n**3 / pair.ours:6.1f} TFLOP/s, cuBLAS "
              f"{2e-12 * n**3 / pair.theirs:6.1f}, ratio {pair.ratio:.3f}", flush=True)

def main() -> None:
  import torch
  import picograd as pg
  memory_bound(torch, pg)
  products(torch, pg)

if __name__ == "__main__": main()
