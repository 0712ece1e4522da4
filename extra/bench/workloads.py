# workloads.py: what is timed, as tables. Each row has an expression for every library with torch's names, the same with
# NumPy's, which in float64 is the reference, and the work that it is. A peer (peers.py) makes a Task of a row: a call
# to time, and an answer to compare. Sizes come from Sizes, so that a test can run the same rows in no time.
from __future__ import annotations
import functools, math, os, tempfile
from pathlib import Path
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
  seconds: Callable[[Any], float] | None = None                       # of what the call returns, if no clock around it

def check(task: Task, tolerance: float) -> None:
  """WrongResult where an element is further off than tolerance, relative to itself and to the typical element."""
  got, want = np.asarray(task.answer), task.reference
  if got.shape != want.shape: raise WrongResult(f"the result has shape {got.shape}, not {want.shape}")
  typical = math.sqrt(float(np.mean(want * want))) + np.finfo(np.float32).tiny
  worst = float(np.max(np.abs(got - want) / (np.abs(want) + typical)))
  if not worst <= tolerance: raise WrongResult(f"the result is off by {worst:.1e}, and {tolerance:.0e} is allowed")

# ---- what the workers share on the disk ------------------------------------------------------------------------------

def directory() -> Path:
  """Where references and models lie; the parent of the workers names it and removes it."""
  return Path(os.environ.get("BENCH_DIR") or Path(tempfile.gettempdir()) / "picograd-bench")

def remembered(name: str, make: Callable[[], Array]) -> Array:
  """A reference that the first worker computes and the others read."""
  path = directory() / ("".join(c if c.isalnum() else "_" for c in name) + ".npy")
  if "BENCH_DIR" not in os.environ: return make()
  if path.exists(): return np.load(path)
  value = np.asarray(make())
  path.parent.mkdir(exist_ok=True)
  np.save(path, value)
  return value

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
  turns: int = 6                              # with one, a peer frees its memory before the next begins

class Sizes(NamedTuple):
  elements: int                               # of the fused elementwise rows
  side: int                                   # of the square matrices that rows, sums and transposes go over
  matmuls: tuple[int, ...]
  thin: int                                   # width of the matrices that few rows are multiplied with
  images: int
  llamas: dict[str, int]                      # name in checkpoints.LLAMAS -> tokens of one timed decoding
  prompt: int                                 # tokens of one prefill
  training: str                               # of the rows in training.py

FULL = Sizes(1 << 24, 4096, (256, 512, 1024, 2048), 4096, 8, {"15M": 64, "110M": 16, "1B": 4}, 256, "full")
QUICK = Sizes(1 << 22, 2048, (256, 512, 1024), 4096, 4, {"15M": 64, "110M": 16}, 64, "full")
TINY = Sizes(1 << 10, 32, (16,), 32, 1, {"tiny": 4}, 8, "tiny")      # for tests

# ---- single expressions ----------------------------------------------------------------------------------------------

Draw = Callable[[np.random.Generator, tuple[int, ...]], Array]
def normal(random: np.random.Generator, shape: tuple[int, ...]) -> Array:
  return random.standard_normal(shape, np.float32)
def positive(random: np.random.Generator, shape: tuple[int, ...]) -> Array:
  return random.random(shape, np.float32) + np.float32(0.01)
def half(random: np.random.Generator, shape: tuple[int, ...]) -> Array:
  return random.standard_normal(shape, np.float32).astype(np.float16)

class Expression(NamedTuple):
  name: str
  shapes: tuple[tuple[int, ...], ...]
  torch: Callable[..., Any]                   # (library with torch's names, *tensors) -> tensor
  numpy: Callable[..., Any]                   # (numpy or jax.numpy, *arrays) -> array
  result: tuple[int, ...]
  flops: float = 0                            # 0: the memory's speed is what matters
  draw: Draw = normal
  unit: Unit | None = None
  tolerance: float = 2e-5
  itemsize: int = 4
  jax: Callable[..., Any] | None = None       # (jax, *arrays) -> array, where the form in numpy's names will not do

  def arrays(self) -> list[Array]:
    random = np.random.default_rng(0)
    return [self.draw(random, shape) for shape in self.shapes]

  def reference(self) -> Array:
    return np.asarray(self.numpy(np, *[a.astype(np.float64) for a in self.arrays()]))

  def task(self, peer: Any) -> Task | None:
    call = peer.bind(self, self.arrays())
    if call is None: return None
    answer = peer.array(call())
    key = f"{self.name}{self.shapes}"
    return Task(call, answer, remembered(key, self.reference))

  def workload(self) -> Workload:
    read = self.itemsize * sum(math.prod(shape) for shape in self.shapes)
    written = self.itemsize * math.prod(self.result)
    unit = self.unit or (GFLOPS if self.flops else GBYTES)
    work = self.flops or read + written
    limits = (self.flops, read, written) if self.unit is None else (0, 0, 0)
    return Workload(self.name, unit, self.task, work, self.tolerance, *limits)

def matmul(name: str, m: int, k: int, n: int) -> Expression:
  return Expression(name, ((m, k), (k, n)), lambda t, a, b: a @ b, lambda n, a, b: a @ b, (m, n), 2 * m * k * n)

def matmuls(s: Sizes) -> list[Expression]:
  n, w, edge = s.matmuls[-1] if len(s.matmuls) < 3 else s.matmuls[2], s.thin, s.matmuls[0]
  times = lambda t, a, b: a @ b
  times_transposed = lambda t, a, b: a @ b.T
  transposed_times = lambda t, a, b: a.T @ b
  rows = [matmul(f"matmul {size}", size, size, size) for size in s.matmuls]
  rows += [matmul("matmul 1000", 1000, 1000, 1000), matmul("matmul 512x768x3072", 512, 768, 3072)] if n > 100 else []
  vector = ((1, w), (w, w))
  rows += [
    matmul("matmul 77x513x1025", 77, 513, 1025),
    Expression(f"A @ B.T, {n}", ((n, n), (n, n)), times_transposed, times_transposed, (n, n), 2 * n ** 3),
    Expression(f"A.T @ B, {n}", ((n, n), (n, n)), transposed_times, transposed_times, (n, n), 2 * n ** 3),
    Expression(f"matmul 16 of {edge}", ((16, edge, edge), (16, edge, edge)), times, times, (16, edge, edge),
               32 * edge ** 3),
    matmul(f"8x{w} @ {w}x{w}", 8, w, w),
    matmul(f"1x{w} @ {w}x{w}", 1, w, w),
    Expression(f"1x{w} @ ({w}x{w}).T", vector, times_transposed, times_transposed, (1, w), 2 * w * w),
    Expression(f"fp16, 1x{w} @ {w}x{w}", vector, times, times, (1, w), 2 * w * w, half, None, 2e-3, 2),
    Expression(f"fp16, 1x{w} @ ({w}x{w}).T", vector, times_transposed, times_transposed, (1, w), 2 * w * w, half, None,
               2e-3, 2),
  ]
  return rows

def gelu(n: Any, x: Any) -> Any: return 0.5 * x * (1 + n.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)))

def elementwise(s: Sizes) -> list[Expression]:
  one = (s.elements,)
  return [
    Expression("relu(a * b + c)", (one, one, one), lambda t, a, b, c: (a * b + c).relu(),
               lambda n, a, b, c: n.maximum(a * b + c, 0), one),
    Expression("gelu (tanh)", (one,), lambda t, x: t.nn.functional.gelu(x, approximate="tanh"), gelu, one),
    Expression("exp", (one,), lambda t, x: x.exp(), lambda n, x: n.exp(x), one),
    Expression("log", (one,), lambda t, x: x.log(), lambda n, x: n.log(x), one, draw=positive),
    Expression("sin", (one,), lambda t, x: x.sin(), lambda n, x: n.sin(x), one),
  ]

def softmax(n: Any, x: Any) -> Any:
  e = n.exp(x - x.max(-1, keepdims=True))
  return e / e.sum(-1, keepdims=True)

def layernorm(n: Any, x: Any, weight: Any, bias: Any) -> Any:
  centred = x - x.mean(-1, keepdims=True)
  return centred / n.sqrt((centred * centred).mean(-1, keepdims=True) + 1e-5) * weight + bias

def rmsnorm(n: Any, x: Any, weight: Any) -> Any:
  return x / n.sqrt((x * x).mean(-1, keepdims=True) + 1e-5) * weight

def convolution(n: Any, x: Array, w: Array) -> Array:
  """x: (N, C, H, W), w: (K, C, 3, 3), one pixel of zeros around -> (N, K, H, W)"""
  padded = n.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
  windows = n.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))      # (N, C, H, W, 3, 3)
  return n.tensordot(windows, w, ((1, 4, 5), (1, 2, 3))).transpose(0, 3, 1, 2)

def over_rows(s: Sizes) -> list[Expression]:
  n, square, row = s.side, (s.side, s.side), (s.side,)
  images = (s.images, 64, 56, 56)
  def summed(name: str, total: Callable[..., Any], result: tuple[int, ...]) -> Expression:
    return Expression(name, (square,), total, total, result, draw=positive, tolerance=1e-4)
  return [
    Expression("softmax", (square,), lambda t, x: x.softmax(-1), softmax, square),
    Expression("layernorm", (square, row, row), lambda t, x, w, b: t.nn.functional.layer_norm(x, (n,), w, b),
               layernorm, square),
    Expression("rmsnorm", (square, row), lambda t, x, w: t.nn.functional.rms_norm(x, (n,), w, 1e-5), rmsnorm, square),
    summed("sum", lambda t, x: x.sum(), ()),
    summed("sum, axis 0", lambda t, x: x.sum(0), row),
    summed("sum, axis 1", lambda t, x: x.sum(1), row),
    Expression("transpose, copied", (square,), lambda t, x: x.T.contiguous(), lambda n, x: n.ascontiguousarray(x.T),
               square, jax=lambda j, x: x.T),
    Expression("conv2d 3x3, 64 to 64", (images, (64, 64, 3, 3)),
               lambda t, x, w: t.nn.functional.conv2d(x, w, padding=1), convolution, images,
               2 * 9 * 64 * math.prod(images),
               jax=lambda j, x, w: j.lax.conv_general_dilated(x, w, (1, 1), ((1, 1), (1, 1)))),
  ]

def chain(x: Any, y: Any) -> Any:
  for _ in range(10): x = (x + y) * y
  return x

def overhead() -> list[Expression]:
  tiny = (10, 10)
  return [
    Expression("10x10 add", (tiny, tiny), lambda t, a, b: a + b, lambda n, a, b: a + b, tiny, unit=MICROSECONDS),
    Expression("10x10, chain of 20", (tiny, tiny), lambda t, a, b: chain(a, b), lambda n, a, b: chain(a, b), tiny,
               draw=positive, unit=MICROSECONDS),
  ]

# ---- models and starts, which each peer knows how to build -----------------------------------------------------------

def decoding(name: str, dtype: str, tokens: int) -> Workload:
  """Tokens one after the other, each the likeliest after the last; compared: the logits after each of given tokens."""
  from . import llamas
  def task(peer: Any) -> Task | None:
    model = peer.llama(name, dtype)
    if model is None: return None
    def call() -> None:
      token = 1
      for position in range(tokens): token = int(np.argmax(model.predict([token], position)))
    given = llamas.prompt(name, tokens)
    answer = np.stack([model.predict([token], position) for position, token in enumerate(given)])
    return Task(call, answer, remembered(f"{name} {tokens}", lambda: llamas.reference(name, given)))
  return Workload(f"decode {name}, {dtype}", TOKENS, task, tokens, tolerance=llamas.TOLERANCE[dtype],
                  read=tokens * llamas.bytes_read(name, dtype), turns=1 if name == "1B" else 4)

def prefill(name: str, dtype: str, tokens: int) -> Workload:
  """A prompt at once; compared: the logits after it."""
  from . import llamas
  def task(peer: Any) -> Task | None:
    model = peer.llama(name, dtype)
    if model is None: return None
    given = llamas.prompt(name, tokens)
    call = lambda: model.predict(given, 0)
    return Task(call, call(), remembered(f"prefill {name} {tokens}", lambda: llamas.reference(name, given)[-1]))
  return Workload(f"prefill {name}, {dtype}", TOKENS, task, tokens, tolerance=llamas.TOLERANCE[dtype],
                  flops=tokens * llamas.flops(name), turns=1 if name == "1B" else 3)

def unchecked(call: Call | None, seconds: Callable[[Any], float] | None = None) -> Task | None:
  return None if call is None else Task(call, np.zeros(()), np.zeros(()), seconds)

def started(what: str, name: str) -> list[Workload]:
  """The first call of a process, without imports and the making of weights: with nothing compiled before, and again."""
  def task(cold: int, peer: Any) -> Task | None: return unchecked(peer.first_call(what, cold), float)
  return [Workload(f"first {name}, {kind}", MILLISECONDS, functools.partial(task, kind == "cold"), turns=2)
          for kind in ("cold", "warm")]

def workloads(s: Sizes) -> dict[str, Workload]:
  from . import training
  rows = [row.workload() for row in matmuls(s) + elementwise(s) + over_rows(s) + overhead()]
  for name, tokens in s.llamas.items():
    rows += [decoding(name, dtype, tokens) for dtype in ("fp32", "fp16")]
    rows += [prefill(name, dtype, s.prompt) for dtype in ("fp32", "fp16")]
  rows += training.rows(s.training)
  rows.append(Workload("import", MILLISECONDS, lambda peer: unchecked(peer.importing()), turns=3))
  starts = {"matmul": "matmul 1024", "decode": "decode 110M", "gpt2": "GPT-2 forward"} if s is FULL else {}
  for what, name in starts.items(): rows += started(what, name)
  return {row.name: row for row in rows}
