# peers.py: the libraries that are timed, as a table of classes. A peer binds a workload to its own tensors and gives a
# call to time, which ends when the result is in memory. Libraries are imported when a peer is made: a worker imports
# only its own. Everything that a peer cannot do, it answers with None.
from __future__ import annotations
import functools, importlib.util, math, os, subprocess, sys, tempfile, time
from pathlib import Path
from typing import Any, Callable
import numpy as np
from . import dialects, llamas
from .workloads import Array, Call, Expression

CACHES = ("CACHE_DIR", "XDG_CACHE_HOME", "TORCHINDUCTOR_CACHE_DIR", "JAX_COMPILATION_CACHE_DIR")
BYTECODE = {"PYTHONDONTWRITEBYTECODE": ""}      # on the disk, where installed libraries have it
JAX_CACHES_ALL = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0", "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1"}

def output(arguments: list[str], environment: dict[str, str]) -> str:
  done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, env=os.environ | environment)
  if done.returncode: raise RuntimeError(done.stderr.strip().splitlines()[-1])
  return done.stdout

class Peer:
  """What every peer answers."""
  name = ""
  needs = "numpy"                             # what must be installed
  imports = ""                                # statements for a fresh process
  compiles = False                            # whether a first call differs from the others
  def bind(self, e: Expression, arrays: list[Array]) -> Call | None:
    """The workload's expression over these inputs, as a function without arguments."""
    return None
  def array(self, result: Any) -> Array: return np.asarray(result)
  def llama(self, name: str, dtype: str) -> Any: return None         # llamas.py's model
  def words(self) -> Any: return None                                # dialects.py's, where models run
  def jitted(self, function: Callable[..., Any]) -> Callable[..., Any]: return function
  def kernel_clock(self) -> float: return math.nan                   # seconds in kernels so far, where that is known
  def launched(self) -> int: return 0                                # kernels so far, where that is known

  def importing(self) -> Call | None:
    return (lambda: output(["-c", self.imports], BYTECODE)) if self.imports else None

  def first_call(self, what: str, cold: int) -> Call | None:
    """Runs first.py in a new process, which prints its seconds."""
    if not self.compiles: return None
    kept = Path(tempfile.mkdtemp())
    def call() -> float:
      directory = tempfile.mkdtemp() if cold else str(kept)
      caches = {name: directory for name in CACHES}
      return float(output(["-m", "extra.bench.first", self.name, what], caches | JAX_CACHES_ALL | BYTECODE).split()[-1])
    if not cold: call()
    return call

class Numpy(Peer):
  name, imports = "numpy", "import numpy"
  def bind(self, e: Expression, arrays: list[Array]) -> Call:
    return lambda: e.numpy(np, *arrays)

class Torch(Peer):
  name, needs, imports = "torch", "torch", "import torch"
  def __init__(self) -> None:
    import torch
    self.torch = torch
    torch.set_num_threads(int(os.environ["THREADS"]))
    torch.manual_seed(0)

  def bind(self, e: Expression, arrays: list[Array]) -> Call:
    run = self.jitted(functools.partial(e.torch, self.torch))
    tensors = [self.torch.from_numpy(a) for a in arrays]
    return lambda: run(*tensors)
  def llama(self, name: str, dtype: str) -> Any: return llamas.TorchModel(name, dtype, self.jitted)
  def words(self) -> Any: return dialects.TorchLike(self.torch)

class CompiledTorch(Torch):
  name, compiles = "torch.compile", True
  def jitted(self, function: Callable[..., Any]) -> Callable[..., Any]:
    self.torch._dynamo.reset()
    return self.torch.compile(function)

class Jax(Peer):
  name, needs, imports, compiles = "jax", "jax", "import jax", True
  def __init__(self) -> None:
    import jax
    self.jax = jax
  def bind(self, e: Expression, arrays: list[Array]) -> Call:
    given, names = (e.jax, self.jax) if e.jax else (e.numpy, self.jax.numpy)
    compiled = self.jax.jit(functools.partial(given, names))
    tensors = [self.jax.numpy.asarray(a) for a in arrays]
    return lambda: compiled(*tensors).block_until_ready()
  def llama(self, name: str, dtype: str) -> Any: return llamas.JaxModel(name) if dtype == "fp32" else None
  def words(self) -> Any: return dialects.JaxWords()
  def jitted(self, function: Callable[..., Any]) -> Callable[..., Any]: return self.jax.jit(function)

class Numba(Peer):
  name, needs, imports = "numba", "numba", "import numba"
  def __init__(self) -> None:
    import numba
    numba.set_num_threads(int(os.environ["THREADS"]))
  def bind(self, e: Expression, arrays: list[Array]) -> Call | None:
    from . import numba_kernels
    kernel = numba_kernels.kernel_for(e.name)
    return None if kernel is None else lambda: kernel(*arrays)

class TorchNames:
  """The functions of torch.nn.functional that rows use, for tinygrad's tensors."""
  def __init__(self) -> None:
    self.nn = self.functional = self
  def gelu(self, x: Any, approximate: str) -> Any: return x.gelu()
  def conv2d(self, x: Any, w: Any, padding: int) -> Any: return x.conv2d(w, padding=padding)
  def layer_norm(self, x: Any, shape: Any, w: Any, b: Any) -> Any: return x.layernorm() * w + b
  def rms_norm(self, x: Any, shape: Any, w: Any, eps: float) -> Any:
    return x * (x.square().mean(-1, keepdim=True) + eps).rsqrt() * w

class Tinygrad(Peer):
  """It needs a clang, or an LLVM library, beside itself."""
  name, needs, imports, compiles = "tinygrad", "tinygrad", "import tinygrad", True
  def __init__(self) -> None:
    import tinygrad
    self.tinygrad, self.device = tinygrad, tinygrad.Device[tinygrad.Device.DEFAULT]
  def finished(self, result: Any) -> Any:
    self.device.synchronize()
    return result
  def bind(self, e: Expression, arrays: list[Array]) -> Call:
    tensors = [self.tinygrad.Tensor(a).contiguous().realize() for a in arrays]
    run = self.tinygrad.TinyJit(lambda *given: e.torch(TorchNames(), *given).contiguous().realize())
    for _ in range(2): run(*tensors)          # the first run is eager, the second is captured
    return lambda: self.finished(run(*tensors))
  def array(self, result: Any) -> Array: return result.numpy()
  def llama(self, name: str, dtype: str) -> Any: return llamas.TinygradModel(name) if dtype == "fp32" else None
  def words(self) -> Any: return dialects.TinygradWords()
  def jitted(self, function: Callable[..., Any]) -> Callable[..., Any]: return self.tinygrad.TinyJit(function)
  def launched(self) -> int: return self.tinygrad.helpers.GlobalCounters.kernel_count

class EagerPicograd(Peer):
  """Each call builds the expression anew."""
  name, needs, imports = "picograd, no jit", "picograd", "import picograd; picograd.Tensor"
  def __init__(self) -> None:
    import picograd
    from picograd.runtime import realize
    self.picograd, self.spent = picograd, 0.0
    setattr(realize, "run_plan", self.timed(realize.run_plan))

  def timed(self, run_plan: Callable[..., None]) -> Callable[..., None]:
    """run_plan, which launches the kernels of one realize, with a clock that adds up."""
    def run(*arguments: Any) -> None:
      start = time.perf_counter()
      run_plan(*arguments)
      self.spent += time.perf_counter() - start
    return run

  def kernel_clock(self) -> float: return self.spent
  def launched(self) -> int: return self.picograd.helpers.Counters.kernels

  def bind(self, e: Expression, arrays: list[Array]) -> Call | None:
    tensors = [self.picograd.tensor(a).realize() for a in arrays]
    return lambda: e.torch(self.picograd, *tensors).realize()
  def array(self, result: Any) -> Array: return result.numpy()

class Picograd(EagerPicograd):
  """With its jit, whose replays no clock looks into."""
  name, compiles = "picograd", True
  def timed(self, run_plan: Callable[..., None]) -> Callable[..., None]: return run_plan
  def kernel_clock(self) -> float: return math.nan
  def jitted(self, function: Callable[..., Any]) -> Callable[..., Any]:
    return getattr(self.picograd, "jit", lambda f: f)(function)
  def bind(self, e: Expression, arrays: list[Array]) -> Call:
    tensors = [self.picograd.tensor(a).realize() for a in arrays]
    run = self.jitted(functools.partial(e.torch, self.picograd))
    return lambda: run(*tensors)
  def llama(self, name: str, dtype: str) -> Any: return llamas.PicogradModel(name, dtype)
  def words(self) -> Any: return dialects.TorchLike(self.picograd)

class Llama2C(Peer):
  name = "llama2.c"
  def llama(self, name: str, dtype: str) -> Any: return llamas.Llama2C(name) if dtype == "fp32" else None

class LlamaCpp(Peer):
  name, needs = "llama.cpp", "llama_cpp"
  def llama(self, name: str, dtype: str) -> Any: return llamas.LlamaCpp(name, dtype)

EVERY = (Picograd, EagerPicograd, Numpy, Torch, CompiledTorch, Jax, Numba, Tinygrad, Llama2C, LlamaCpp)
PEERS: dict[str, type[Peer]] = {peer.name: peer for peer in EVERY}
OURS, NO_RIVALS = "picograd", ("picograd", "picograd, no jit")
SLOW_TO_START = ("torch.compile",)            # only where asked for

def installed() -> list[str]:
  found = [name for name, peer in PEERS.items() if importlib.util.find_spec(peer.needs)]
  return [name for name in found if name != "llama2.c" or os.environ.get("LLAMA2C")]
