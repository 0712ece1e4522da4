# gpu.py: kernels of picograd and of torch timed side by side on a GPU. Both sides become CUDA graphs of several calls,
# which are replayed in turn; a time is the median over the rounds, by device events. Data is random and results are
# compared by the caller.
from __future__ import annotations
import contextlib, gc, math, statistics, sys, time
from functools import partial
from operator import matmul
from typing import Any, Callable, Iterator, NamedTuple
import numpy as np
from picograd.helpers import CACHE, DEVICE, Counters, size_text
from picograd.runtime import cuda, plan
from picograd.runtime.device import device
from . import gpu_llama
from .dialects import TorchLike
from .training import GPT2_124M, initial

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

# ---- the rows of `python -m extra.bench cuda` ------------------------------------------------------------------------

SIDE = 8192
SIZES = (1024, 2048, 4096, 8192)
HEADER = ("workload", "unit", "picograd", "peer", "figure", "ratio", "of a copy")
Row = list[str]

def row(name: str, unit: str, ours: float, peer: str, theirs: float, ratio: float, share: float | None = None) -> Row:
  cells = [name, unit, f"{ours:.4g}", peer, f"{theirs:.4g}", f"{ratio:.3f}", f"{share:.3f}" if share else "-"]
  print("  ".join(cells), file=sys.stderr, flush=True)
  return cells

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

def memory_bound(torch: Any, pg: Any) -> Iterator[Row]:
  """Kernels at the speed of memory, as a share of a copy's, 8192 x 8192 float32, beside torch's own kernels."""
  F, T = pg.nn.functional, torch.nn.functional
  (x, w, b), (X, W, B) = tensors(torch, pg, (SIDE, SIDE), (SIDE,), (SIDE,))
  Y = torch.empty_like(X)
  rows: list[tuple[str, Callable[[], Any], Callable[[], Any], int]] = [
    ("add, mul, relu", lambda: (x * 2 + 1).relu(), lambda: (X * 2 + 1).relu(), 2),
    ("gelu", lambda: F.gelu(x), lambda: T.gelu(X), 2),
    ("softmax", lambda: x.softmax(-1), lambda: X.softmax(-1), 2),
    ("rms_norm", lambda: F.rms_norm(x, (SIDE,), w), lambda: T.rms_norm(X, (SIDE,), W), 2),
    ("layer_norm", lambda: F.layer_norm(x, (SIDE,), w, b), lambda: T.layer_norm(X, (SIDE,), W, B), 2),
    ("sum of rows", lambda: x.sum(1), lambda: X.sum(1), 1),
    ("sum of columns", lambda: x.sum(0), lambda: X.sum(0), 1),
    ("sum", lambda: x.sum(), lambda: X.sum(), 1),
    ("transpose", lambda: x.T.contiguous(), lambda: X.T.contiguous(), 2)]
  copy = side_by_side(torch, recorded(lambda: (x * 1.5).realize()), lambda: Y.copy_(X)).theirs
  for name, ours, theirs, passes in rows:
    pair = measured(torch, name, ours, theirs, 1e-5)
    share = passes / 2 * copy / pair.ours
    yield row(f"{name}, {SIDE}x{SIDE}", "us", pair.ours * 1e6, "torch", pair.theirs * 1e6, pair.ratio, share)

def product_row(torch: Any, pg: Any, name: str, n: int, dtype: str, tolerance: float, layout: str) -> Row:
  (a, b), (A, B) = tensors(torch, pg, (n, n), (n, n), dtype=dtype)
  y, Y = (b.T, B.T) if layout == "NxK" else (b, B)
  pair = measured(torch, name, partial(matmul, a, y), partial(matmul, A, Y), tolerance, 3 if n == 8192 else 10)
  work = 2e-12 * n**3
  return row(f"{name} {n}, B {layout}", "TFLOP/s", work / pair.ours, "cuBLAS", work / pair.theirs, pair.ratio)

def products(torch: Any, pg: Any) -> Iterator[Row]:
  """Square products beside cuBLAS: B as N x K, then as K x N."""
  for dtype, sizes, tolerance in (("bfloat16", SIZES, 1e-2), ("float16", SIZES[1:], 2e-3), ("float32", (4096,), 1e-5)):
    for n in sizes:
      for layout in ("NxK", "KxN"): yield product_row(torch, pg, dtype, n, dtype, tolerance, layout)
  for library in (torch, pg): library.set_float32_matmul_precision("high")
  for n in (4096, 8192):
    for layout in ("NxK", "KxN"): yield product_row(torch, pg, "tf32", n, "float32", 1.5e-3, layout)
  for library in (torch, pg): library.set_float32_matmul_precision("highest")
  with other_unit("mma"):
    for n in (4096, 8192):
      for layout in ("NxK", "KxN"): yield product_row(torch, pg, "bfloat16 by mma.sync", n, "bfloat16", 1e-2, layout)

@contextlib.contextmanager
def other_unit(unit: str) -> Iterator[None]:
  """Kernels made anew for another matrix unit of the same GPU."""
  where: Any = device("CUDA")
  before = where.target
  where.target = before._replace(matrix=unit)
  tables: list[dict[Any, Any]] = [plan.plans, plan.binaries]
  known = [dict(table) for table in tables]
  for table in tables: table.clear()
  try:
    with CACHE.set(0): yield
  finally:
    where.target = before
    for table, old in zip(tables, known):
      table.clear()
      table.update(old)

def linear(torch: Any, pg: Any) -> Iterator[Row]:
  """A product with all that is done to it in one kernel, beside torch.compile's."""
  F, T = pg.nn.functional, torch.nn.functional
  shapes = (4096, 4096), (11008, 4096), (11008,), (4096, 11008)
  (x, w, b, r), (X, W, B, R) = tensors(torch, pg, *shapes, dtype="bfloat16")
  theirs = torch.compile(lambda: T.gelu(T.linear(X, W, B)) + R)
  pair = measured(torch, "linear", lambda: F.gelu(F.linear(x, w, b)) + r, theirs, 2e-2)
  work = 2e-12 * 4096 * 11008 * 4096
  yield row("gelu(linear) + residual, 4096x11008x4096", "TFLOP/s", work / pair.ours, "torch.compile",
            work / pair.theirs, pair.ratio)

# ---- whole models ----------------------------------------------------------------------------------------------------

def seconds_each(work: Callable[[], Any], wait: Callable[[], None], count: int) -> float:
  """Of one of `count` calls that follow each other; the best of three turns."""
  best = math.inf
  for _ in range(3):
    start = time.perf_counter()
    for _ in range(count): work()
    wait()
    best = min(best, (time.perf_counter() - start) / count)
  return best

def decoding(torch: Any, pg: Any, name: str) -> Row:
  """Tokens of a llama with random bfloat16 weights, each chosen from the logits of the one before, on the GPU."""
  gc.collect()
  torch.cuda.empty_cache()
  ours = gpu_llama.greedy(pg, name)
  for _ in range(4): ours()
  mine = seconds_each(ours, pg.cuda.synchronize, 64)
  del ours
  theirs = gpu_llama.greedy_torch(torch, name)
  for _ in range(4): theirs()
  other = seconds_each(theirs, torch.cuda.synchronize, 64)
  return row(f"decode, llama {name}, bfloat16", "tok/s", 1 / mine, "torch.compile", 1 / other, other / mine)

def training(torch: Any, pg: Any) -> Row:
  """Steps of GPT-2 124M with float32 weights: autocast to bfloat16, AdamW. The losses of three steps are compared."""
  B, T, V = 16, 1024, GPT2_124M.vocabulary
  def trainer(library: Any, **options: Any) -> Callable[[], Any]:
    words = TorchLike(library)
    weights = {name: library.tensor(array, device="cuda") for name, array in initial(GPT2_124M.shapes()).items()}
    random = np.random.default_rng(1)
    tokens, targets = [library.tensor(random.integers(0, V, (B, T)), device="cuda") for _ in range(2)]
    for weight in weights.values(): weight.requires_grad_(True)
    optimizer = library.optim.AdamW(list(weights.values()), lr=1e-3, fused=True)
    def step() -> Any:
      optimizer.zero_grad()
      with library.autocast("cuda", dtype=library.bfloat16): loss = GPT2_124M.loss(words, weights, tokens, targets)
      loss.backward()
      optimizer.step()
      return loss.detach()
    return step
  ours = pg.jit(trainer(pg))
  found = [float(ours().item()) for _ in range(3)]
  mine = seconds_each(ours, pg.cuda.synchronize, 5)
  print(f"memory in use at most: {size_text(Counters.bytes_peak)}", file=sys.stderr)
  del ours
  theirs = trainer(torch)
  wanted = [float(theirs().item()) for _ in range(3)]
  if not np.allclose(found, wanted, rtol=5e-3): raise RuntimeError(f"losses are {found}, of torch {wanted}")
  other = seconds_each(theirs, torch.cuda.synchronize, 5)
  return row("GPT-2 124M step, 16 x 1024, bfloat16", "tok/s", B * T / mine, "torch", B * T / other, other / mine)

def rows() -> list[Row]:
  import torch
  import picograd as pg
  with DEVICE.set("CUDA"):
    found = [*memory_bound(torch, pg), *products(torch, pg), *linear(torch, pg)]
    return [*found, training(torch, pg), decoding(torch, pg, "1B"), decoding(torch, pg, "8B")]
