# init.py: torch.nn.init. Each function fills a tensor in place, outside the gradient's graph, and returns it.
from __future__ import annotations
import math
from picograd.helpers import prod
from picograd.random import Generator, normal_ as fill_normal, uniform_ as fill_uniform
from picograd.library import Tensor, no_grad

GAINS = {"linear": 1.0, "conv1d": 1.0, "conv2d": 1.0, "sigmoid": 1.0, "tanh": 5 / 3, "relu": math.sqrt(2), "selu": 0.75}

def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
  """By how much a nonlinearity's input must be scaled to keep the variance; param is the slope of leaky_relu."""
  if nonlinearity == "leaky_relu": return math.sqrt(2 / (1 + (0.01 if param is None else param) ** 2))
  if nonlinearity not in GAINS: raise ValueError(f"Unsupported nonlinearity {nonlinearity}")
  return GAINS[nonlinearity]

def fans(tensor: Tensor) -> tuple[int, int]:
  """(fan in, fan out) of a weight (out, in, *kernel)."""
  if tensor.ndim < 2: raise ValueError("Fan in and fan out can not be computed for tensor with fewer than 2 dimensions")
  receptive = prod(tensor.shape[2:])
  return tensor.shape[1] * receptive, tensor.shape[0] * receptive

def chosen_fan(tensor: Tensor, mode: str) -> int:
  if mode not in ("fan_in", "fan_out"): raise ValueError(f"Mode {mode} not supported, please use fan_in or fan_out")
  return fans(tensor)[mode == "fan_out"]

def uniform_(tensor: Tensor, a: float = 0.0, b: float = 1.0, generator: Generator | None = None) -> Tensor:
  """Uniform in [a, b)."""
  with no_grad(): return fill_uniform(tensor, a, b, generator=generator)

def normal_(tensor: Tensor, mean: float = 0.0, std: float = 1.0, generator: Generator | None = None) -> Tensor:
  """Normal values of a mean and a standard deviation."""
  with no_grad(): return fill_normal(tensor, mean, std, generator=generator)

def constant_(tensor: Tensor, val: float) -> Tensor:
  with no_grad(): return tensor.fill_(val)

def zeros_(tensor: Tensor) -> Tensor:
  """All elements become 0."""
  return constant_(tensor, 0.0)
def ones_(tensor: Tensor) -> Tensor:
  """All elements become 1."""
  return constant_(tensor, 1.0)

def kaiming_uniform_(tensor: Tensor, a: float = 0.0, mode: str = "fan_in", nonlinearity: str = "leaky_relu",
                     generator: Generator | None = None) -> Tensor:
  """Uniform in +-gain*sqrt(3/fan): He et al. (2015)."""
  bound = calculate_gain(nonlinearity, a) * math.sqrt(3 / max(1, chosen_fan(tensor, mode)))
  return uniform_(tensor, -bound, bound, generator)

def kaiming_normal_(tensor: Tensor, a: float = 0.0, mode: str = "fan_in", nonlinearity: str = "leaky_relu",
                    generator: Generator | None = None) -> Tensor:
  """Normal with deviation gain/sqrt(fan)."""
  return normal_(tensor, 0.0, calculate_gain(nonlinearity, a) / math.sqrt(max(1, chosen_fan(tensor, mode))), generator)

def xavier_uniform_(tensor: Tensor, gain: float = 1.0, generator: Generator | None = None) -> Tensor:
  """Uniform in +-gain*sqrt(6/(fan in + fan out)): Glorot and Bengio (2010)."""
  bound = gain * math.sqrt(6 / sum(fans(tensor)))
  return uniform_(tensor, -bound, bound, generator)

def xavier_normal_(tensor: Tensor, gain: float = 1.0, generator: Generator | None = None) -> Tensor:
  """Normal with deviation gain*sqrt(2/(fan in + fan out))."""
  return normal_(tensor, 0.0, gain * math.sqrt(2 / sum(fans(tensor))), generator)
