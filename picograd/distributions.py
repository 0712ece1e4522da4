# distributions.py: torch.distributions: random variables with sample() and log_prob(). Parameters are tensors or
# numbers and broadcast; a sample of sample_shape has the shape (*sample_shape, *parameters' shape) and no gradient.
from __future__ import annotations
import math
from typing import Any, Sequence
from picograd.helpers import prod
from picograd.nn.functional import binary_cross_entropy_with_logits
from picograd.random import bernoulli, multinomial, rand, randn
from picograd.library import Tensor, as_tensor, broadcast_tensors, no_grad, where

class Distribution:
  """batch_shape: the shape of the parameters."""
  batch_shape: tuple[int, ...]
  def log_prob(self, value: Tensor) -> Tensor:
    """The logarithm of the density, or of the probability, at value."""
    raise NotImplementedError
  def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
    """A sample as a differentiable function of the parameters."""
    raise NotImplementedError(f"{type(self).__name__} has no rsample: use sample")
  def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
    with no_grad(): return self.rsample(sample_shape)
  def sized(self, sample_shape: Sequence[int]) -> tuple[int, ...]: return (*sample_shape, *self.batch_shape)

def check_one_given(probs: Any, logits: Any) -> None:
  if (probs is None) == (logits is None): raise ValueError("Either `probs` or `logits` must be specified, not both.")

def inside(probs: Tensor) -> Tensor:
  """Probabilities no nearer to 0 and 1 than their dtype tells apart from 1, so that their logarithms are finite."""
  return probs.clamp(probs.dtype.eps, 1 - probs.dtype.eps)

def joined(*values: Any) -> tuple[Tensor, ...]: return broadcast_tensors(*(as_tensor(v) for v in values))

class Normal(Distribution):
  """The normal distribution of a mean and a standard deviation."""
  def __init__(self, loc: Any, scale: Any):
    self.loc, self.scale = joined(loc, scale)
    self.batch_shape = tuple(self.loc.shape)
  mean = property(lambda self: self.loc)
  stddev = property(lambda self: self.scale)
  variance = property(lambda self: self.scale * self.scale)
  def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
    return self.loc + randn(*self.sized(sample_shape), device=self.loc.device) * self.scale
  def log_prob(self, value: Tensor) -> Tensor:
    z = (value - self.loc) / self.scale
    return z * z * -0.5 - self.scale.log() - 0.5 * math.log(2 * math.pi)
  def entropy(self) -> Tensor: return self.scale.log() + 0.5 * (1 + math.log(2 * math.pi))

class Uniform(Distribution):
  """Equal density from low to high, which is excluded."""
  def __init__(self, low: Any, high: Any):
    self.low, self.high = joined(low, high)
    self.batch_shape = tuple(self.low.shape)
  mean = property(lambda self: (self.low + self.high) / 2)
  def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
    return self.low + rand(*self.sized(sample_shape), device=self.low.device) * (self.high - self.low)
  def log_prob(self, value: Tensor) -> Tensor:
    return where((value >= self.low) & (value < self.high), -(self.high - self.low).log(), -math.inf)
  def entropy(self) -> Tensor: return (self.high - self.low).log()

class Bernoulli(Distribution):
  """1 with probability probs, or 1/(1 + exp(-logits)), else 0."""
  def __init__(self, probs: Any = None, logits: Any = None):
    check_one_given(probs, logits)
    if logits is None:
      self.probs = as_tensor(probs)
      p = inside(self.probs)
      self.logits = p.log() - (1 - p).log()
    else:
      self.logits = as_tensor(logits)
      self.probs = self.logits.sigmoid()
    self.batch_shape = tuple(self.probs.shape)
  mean = property(lambda self: self.probs)
  def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
    with no_grad(): return bernoulli(self.probs.expand(self.sized(sample_shape)))
  def log_prob(self, value: Tensor) -> Tensor:
    logits, value = joined(self.logits, value)
    return -binary_cross_entropy_with_logits(logits, value, reduction="none")
  def entropy(self) -> Tensor: return binary_cross_entropy_with_logits(self.logits, self.probs, reduction="none")

class Categorical(Distribution):
  """Class k of the last dimension with probability probs[k] / sum(probs), or softmax(logits)[k]."""
  def __init__(self, probs: Any = None, logits: Any = None):
    check_one_given(probs, logits)
    if logits is None:
      weights = as_tensor(probs)
      self.probs = weights / weights.sum(-1, keepdim=True)
      self.logits = inside(self.probs).log()
    else:
      self.logits = as_tensor(logits).log_softmax(-1)
      self.probs = self.logits.exp()
    self.batch_shape = tuple(self.probs.shape[:-1])
  def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
    with no_grad():
      rows = self.probs.detach().reshape(-1, self.probs.shape[-1])
      drawn = multinomial(rows, prod(sample_shape), replacement=True)                        # (rows, samples)
      return drawn.transpose(0, 1).reshape(*self.sized(sample_shape))
  def log_prob(self, value: Tensor) -> Tensor:
    shape = (*value.shape[:value.ndim - len(self.batch_shape)], *self.batch_shape) if value.ndim else self.batch_shape
    logits = self.logits.expand(*shape, self.logits.shape[-1])
    return logits.gather(-1, value.expand(*shape).unsqueeze(-1)).squeeze(-1)
  def entropy(self) -> Tensor: return -(self.probs * self.logits).sum(-1)
