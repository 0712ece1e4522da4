# workloads.py: what is timed, as tables. Each row has an expression for every library with torch's names, the same in
# NumPy, which in float64 is the reference, and the work that it is. A peer (peers.py) makes a Task of a row: a call
# to time, and an answer to compare. Sizes come from Sizes, so that a test can run the same rows in no time.
from __future__ import annotations
import math
from typing import Any, Callable, NamedTuple
import numpy as np

Array = np.ndarray
Call = Callable[[], Any]

class WrongResult(Exception):
  """A library's answer differs from the float64 reference by more than the workload allows."""

class Task(NamedTuple):
  call: Call                                  # what is timed
  answer: Array
  reference: Array                            # float64

def check(task: Task, tolerance: float) -> None:
  """WrongResult where an element is further off than tolerance, relative to itself and to the typical element."""
  got, want = np.asarray(task.answer), task.reference
  if got.shape != want.shape: raise WrongResult(f"the result has shape {got.shape}, not {want.shape}")
  typical = math.sqrt(float(np.mean(want * want))) + np.finfo(np.float32).tiny
  worst = float(np.max(np.abs(got - want) / (np.abs(want) + typical)))
  if not worst <= tolerance: raise WrongResult(f"the result is off by {worst:.1e}, and {tolerance:.0e} is allowed")

# ---- units -----------------------------------------------------------------------------------------------------------

class Unit(NamedTuple):
  name: str
  figure: Callable[[float, float], float]     # (work, seconds) -> the number to print

GFLOPS = Unit("GFLOP/s", lambda work, seconds: work / seconds / 1e9)
GBYTES = Unit("GB/s", lambda work, seconds: work / seconds / 1e9)
TOKENS = Unit("tok/s", lambda work, seconds: work / seconds)
MILLISECONDS = Unit("ms", lambda work, seconds: seconds * 1e3)
MICROSECONDS = Unit("us", lambda work, seconds: seconds * 1e6)

class Workload(NamedTuple):
  name: str
  unit: Unit
  task: Callable[[Any], Task | None]          # peer -> its task, None if the peer cannot do it
  work: float = 0                             # operations or bytes of the unit
  tolerance: float = 2e-5
  flops: float = 0                            # what cannot be avoided: operations, bytes read, bytes written
  read: float = 0
  written: float = 0

class Sizes(NamedTuple):
  elements: int                               # of the fused elementwise rows
  side: int                                   # of the square matrices that rows, sums and transposes go over
  matmuls: tuple[int, ...]
  thin: int                                   # width of the matrices that few rows are multiplied with
  images: int
  tokens: int                                 # of one timed decoding, and of a test sequence

FULL = Sizes(1 << 24, 4096, (256, 512, 1024, 2048), 4096, 8, 64)
QUICK = Sizes(1 << 22, 2048, (256, 512, 1024), 4096, 4, 32)
TINY = Sizes(1 << 10, 32, (16,), 32, 1, 4)                            # for tests

# ---- single expressions ----------------------------------------------------------------------------------------------

Draw = Callable[[np.random.Generator, tuple[int, ...]], Array]
def normal(random: np.random.Generator, shape: tuple[int, ...]) -> Array:
  return random.standard_normal(shape, np.float32)
def positive(random: np.random.Generator, shape: tuple[int, ...]) -> Array:
  return random.random(shape, np.float32) + np.float32(0.01)

class Expression(NamedTuple):
  name: str
  shapes: tuple[tuple[int, ...], ...]
  torch: Callable[..., Any]                   # (library with torch's names, *tensors) -> tensor
  numpy: Callable[..., Any]                   # (*arrays) -> array
  result: tuple[int, ...]
  flops: float = 0                            # 0: the memory's speed is what matters
  draw: Draw = normal
  unit: Unit | None = None
  tolerance: float = 2e-5

  def task(self, peer: Any) -> Task:
    random = np.random.default_rng(0)
    arrays = [self.draw(random, shape) for shape in self.shapes]
    call = peer.bind(self.torch, self.numpy, arrays)
    reference = self.numpy(*[a.astype(np.float64) for a in arrays])
    return Task(call, peer.array(call()), np.asarray(reference))

  def workload(self) -> Workload:
    read = 4 * sum(math.prod(shape) for shape in self.shapes)
    written = 4 * math.prod(self.result)
    unit = self.unit or (GFLOPS if self.flops else GBYTES)
    work = self.flops or read + written
    limits = (self.flops, read, written) if self.unit is None else (0, 0, 0)
    return Workload(self.name, unit, self.task, work, self.tolerance, *limits)

def matmul(name: str, m: int, k: int, n: int) -> Expression:
  return Expression(name, ((m, k), (k, n)), lambda t, a, b: a @ b, lambda a, b: a @ b, (m, n), 2 * m * k * n)

def matmuls(s: Sizes) -> list[Expression]:
  n, w, edge = s.matmuls[-1] if len(s.matmuls) < 3 else s.matmuls[2], s.thin, s.matmuls[0]
  times_transposed = lambda t, a, b: a @ b.T
  transposed_times = lambda t, a, b: a.T @ b
  rows = [matmul(f"matmul {size}", size, size, size) for size in s.matmuls]
  rows += [matmul("matmul 1000", 1000, 1000, 1000), matmul("matmul 512x768x3072", 512, 768, 3072)] if n > 100 else []
  rows += [
    matmul("matmul 77x513x1025", 77, 513, 1025),
    Expression(f"A @ B.T, {n}", ((n, n), (n, n)), times_transposed, lambda a, b: a @ b.T, (n, n), 2 * n ** 3),
    Expression(f"A.T @ B, {n}", ((n, n), (n, n)), transposed_times, lambda a, b: a.T @ b, (n, n), 2 * n ** 3),
    Expression(f"matmul 16 of {edge}", ((16, edge, edge), (16, edge, edge)), lambda t, a, b: a @ b,
               lambda a, b: a @ b, (16, edge, edge), 32 * edge ** 3),
    matmul(f"1x{w} @ {w}x{w}", 1, w, w),
    matmul(f"8x{w} @ {w}x{w}", 8, w, w),
    Expression(f"1x{w} @ ({w}x{w}).T", ((1, w), (w, w)), times_transposed, lambda a, b: a @ b.T, (1, w), 2 * w * w),
  ]
  return rows

def gelu(x: Array) -> Array: return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)))

def elementwise(s: Sizes) -> list[Expression]:
  one = (s.elements,)
  return [
    Expression("relu(a * b + c)", (one, one, one), lambda t, a, b, c: (a * b + c).relu(),
               lambda a, b, c: np.maximum(a * b + c, 0), one),
    Expression("gelu (tanh)", (one,), lambda t, x: t.nn.functional.gelu(x, approximate="tanh"), gelu, one),
    Expression("exp", (one,), lambda t, x: x.exp(), np.exp, one),
    Expression("log", (one,), lambda t, x: x.log(), np.log, one, draw=positive),
    Expression("sin", (one,), lambda t, x: x.sin(), np.sin, one),
  ]

def softmax(x: Array) -> Array:
  e = np.exp(x - x.max(-1, keepdims=True))
  return e / e.sum(-1, keepdims=True)

def layernorm(x: Array, weight: Array, bias: Array) -> Array:
  centred = x - x.mean(-1, keepdims=True)
  return centred / np.sqrt((centred * centred).mean(-1, keepdims=True) + 1e-5) * weight + bias

def rmsnorm(x: Array, weight: Array) -> Array: return x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-5) * weight

def convolution(x: Array, w: Array) -> Array:
  """x: (N, C, H, W), w: (K, C, 3, 3), one pixel of zeros around -> (N, K, H, W)"""
  padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
  windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))     # (N, C, H, W, 3, 3)
  return np.tensordot(windows, w, ((1, 4, 5), (1, 2, 3))).transpose(0, 3, 1, 2)

def over_rows(s: Sizes) -> list[Expression]:
  n, square, row = s.side, (s.side, s.side), (s.side,)
  images = (s.images, 64, 56, 56)
  return [
    Expression("softmax", (square,), lambda t, x: x.softmax(-1), softmax, square),
    Expression("layernorm", (square, row, row), lambda t, x, w, b: t.nn.functional.layer_norm(x, (n,), w, b),
               layernorm, square),
    Expression("rmsnorm", (square, row), lambda t, x, w: t.nn.functional.rms_norm(x, (n,), w, 1e-5), rmsnorm, square),
    Expression("sum", (square,), lambda t, x: x.sum(), lambda x: x.sum(), (), draw=positive, tolerance=1e-4),
    Expression("sum, axis 0", (square,), lambda t, x: x.sum(0), lambda x: x.sum(0), row, draw=positive, tolerance=1e-4),
    Expression("sum, axis 1", (square,), lambda t, x: x.sum(1), lambda x: x.sum(1), row, draw=positive, tolerance=1e-4),
    Expression("transpose, copied", (square,), lambda t, x: x.T.contiguous(), lambda x: np.ascontiguousarray(x.T),
               square),
    Expression("conv2d 3x3, 64 to 64", (images, (64, 64, 3, 3)),
               lambda t, x, w: t.nn.functional.conv2d(x, w, padding=1), convolution, images,
               2 * 9 * 64 * math.prod(images)),
  ]

def chain(x: Any, y: Any) -> Any:
  for _ in range(10): x = (x + y) * y
  return x

def overhead() -> list[Expression]:
  tiny = (10, 10)
  return [
    Expression("10x10 add", (tiny, tiny), lambda t, a, b: a + b, lambda a, b: a + b, tiny, unit=MICROSECONDS),
    Expression("10x10, chain of 20", (tiny, tiny), lambda t, a, b: chain(a, b), chain, tiny, draw=positive,
               unit=MICROSECONDS),
  ]

# ---- models and starts, which each peer knows how to build -----------------------------------------------------------

def others(s: Sizes) -> list[Workload]:
  tokens = s.tokens
  return [
    Workload("training step, small llama", MILLISECONDS, lambda peer: peer.training(tokens), tolerance=1e-4),
    Workload("decode, llama 15M", TOKENS, lambda peer: peer.decoding(tokens), tokens, tolerance=2e-4),
    Workload("import", MILLISECONDS, lambda peer: peer.importing()),
    Workload("first result, cold", MILLISECONDS, lambda peer: peer.cold_start(), tolerance=1e-4),
    Workload("first result, warm", MILLISECONDS, lambda peer: peer.warm_start(), tolerance=1e-4),
  ]

def workloads(s: Sizes) -> dict[str, Workload]:
  rows = [row.workload() for row in matmuls(s) + elementwise(s) + over_rows(s) + overhead()] + others(s)
  return {row.name: row for row in rows}
