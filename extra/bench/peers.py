# peers.py: the libraries that are timed, as a table of classes. A peer binds a workload to its own tensors and gives a
# call to time: picograd realises inside the call, so its figure includes what Python does; torch runs eagerly.
# Libraries are imported when a peer is made: a worker imports only its own.
from __future__ import annotations
import functools, importlib.util, math, os, subprocess, sys, tempfile, time
from typing import Any, Callable
import numpy as np
from .workloads import Array, Call, Task

FIRST_RESULT = """import numpy
{imports}
random = numpy.random.default_rng(0)
a, b = (random.standard_normal((1024, 1024), numpy.float32) for _ in "ab")
print(float({result}))"""

def run_python(code: str) -> float:
  """What a fresh Python prints, as a number; nan if it prints nothing."""
  done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
  if done.returncode: raise RuntimeError(done.stderr.strip().splitlines()[-1])
  return float(done.stdout or "nan")

@functools.cache
def first_result() -> Array:
  random = np.random.default_rng(0)
  a, b = (random.standard_normal((1024, 1024), np.float32).astype(np.float64) for _ in "ab")
  return np.maximum(a @ b, 0).sum()

class Peer:
  """What every peer answers; None where a library has no such thing."""
  needs = "numpy"                             # what must be installed
  imports = ""                                # statements for a fresh process
  result = ""                                 # of FIRST_RESULT
  def bind(self, torch: Callable[..., Any], numpy: Callable[..., Any], arrays: list[Array]) -> Call:
    """The workload's expression over these inputs, as a function without arguments."""
    raise NotImplementedError
  def array(self, result: Any) -> Array: return np.asarray(result)
  def training(self, length: int) -> Task | None: return None
  def decoding(self, length: int) -> Task | None: return None
  def kernel_clock(self) -> float: return math.nan                   # seconds in kernels so far, where that is known

  def importing(self) -> Task:
    return Task(lambda: run_python(self.imports), np.zeros(()), np.zeros(()))

  def warm_start(self) -> Task:
    """A process from nothing to the first number; what an earlier one compiled may lie on the disk."""
    call = lambda: run_python(FIRST_RESULT.format(imports=self.imports, result=self.result))
    return Task(call, np.array(call()), first_result())

  def cold_start(self) -> Task: return self.warm_start()

class Numpy(Peer):
  imports, result = "import numpy", "numpy.maximum(a @ b, 0).sum()"
  def bind(self, torch: Callable[..., Any], numpy: Callable[..., Any], arrays: list[Array]) -> Call:
    return lambda: numpy(*arrays)

class Torch(Peer):
  needs, imports = "torch", "import torch"
  result = "(torch.from_numpy(a) @ torch.from_numpy(b)).relu().sum()"
  def __init__(self) -> None:
    import torch
    self.torch = torch
    torch.set_num_threads(int(os.environ["THREADS"]))
    torch.manual_seed(0)

  def bind(self, torch: Callable[..., Any], numpy: Callable[..., Any], arrays: list[Array]) -> Call:
    tensors = [self.torch.from_numpy(a) for a in arrays]
    return lambda: torch(self.torch, *tensors)

  def training(self, length: int) -> Task | None:
    from . import models
    return models.torch_training(length)

  def decoding(self, length: int) -> Task | None:
    from . import models
    return models.torch_decoding(length)

class CompiledTorch(Torch):
  def bind(self, torch: Callable[..., Any], numpy: Callable[..., Any], arrays: list[Array]) -> Call:
    self.torch._dynamo.reset()
    compiled = self.torch.compile(functools.partial(torch, self.torch))
    tensors = [self.torch.from_numpy(a) for a in arrays]
    return lambda: compiled(*tensors)
  def training(self, length: int) -> Task | None: return None
  def decoding(self, length: int) -> Task | None: return None

class Picograd(Peer):
  imports = "import picograd; picograd.Tensor"                       # which is when it imports anything
  result = "(picograd.tensor(a) @ picograd.tensor(b)).relu().sum().item()"
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

  def bind(self, torch: Callable[..., Any], numpy: Callable[..., Any], arrays: list[Array]) -> Call:
    tensors = [self.picograd.tensor(a).realize() for a in arrays]
    return lambda: torch(self.picograd, *tensors).realize()

  def array(self, result: Any) -> Array: return result.numpy()

  def training(self, length: int) -> Task:
    from . import models
    return models.picograd_training(length)

  def decoding(self, length: int) -> Task:
    from . import models
    return models.picograd_decoding(length)

  def cold_start(self) -> Task:
    """Every process finds an empty cache of its own."""
    code = FIRST_RESULT.format(imports=self.imports, result=self.result)
    def call() -> float:
      with tempfile.TemporaryDirectory() as directory:
        return run_python(f"import os\nos.environ['CACHE_DIR'] = {directory!r}\n{code}")
    return Task(call, np.array(call()), first_result())

PEERS: dict[str, type[Peer]] = {
  "picograd": Picograd,
  "numpy": Numpy,
  "torch": Torch,
  "torch.compile": CompiledTorch,
}
OURS = "picograd"
SLOW_TO_START = ("torch.compile",)            # only where asked for

def installed() -> list[str]: return [name for name, peer in PEERS.items() if importlib.util.find_spec(peer.needs)]
