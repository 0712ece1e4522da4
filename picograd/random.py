# random.py: torch's random functions from a counter-based generator: word i of draw c is Threefry-2x32-20(key = seed,
# counter = (i, c)), so every element is computed on its own and a seed gives the same bits on every device. In: sizes
# and a Generator. Out: lazy tensors. Seed and draw number enter a graph as a leaf's data: no draw compiles a kernel.
# Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (2011).
from __future__ import annotations
import math, os
from typing import Any, Sequence
import numpy as np
from picograd.common import sizes_of
from picograd.dtype import DType, dtypes
from picograd.helpers import prod
from picograd.ops.decompose import threefry
from picograd.ops.uop import UOp
from picograd.library import Tensor, no_grad, tensor
from picograd.runtime.jit import feed
from picograd.runtime.realize import strip

# ---- generators ------------------------------------------------------------------------------------------------------

class Generator:
  """A stream of draws: a seed of 64 bits and the number of the next draw."""
  def __init__(self, device: Any = None):
    self.device = device
    self.manual_seed(67280421310721)                      # torch's seed of a new generator

  def manual_seed(self, seed: int) -> "Generator":
    """Starts the stream of this seed; negative seeds count from 2**64 down. RuntimeError beyond 64 bits."""
    if not -(1 << 63) <= seed < 1 << 64: raise RuntimeError(f"Overflow when unpacking long: {seed} needs over 64 bits")
    self.seed_value, self.draws = seed % (1 << 64), 0
    return self

  def seed(self) -> int:
    """Starts the stream of a seed from the operating system, and returns it."""
    self.manual_seed(int.from_bytes(os.urandom(8), "little"))
    return self.seed_value

  def initial_seed(self) -> int: return self.seed_value
  def get_state(self) -> Tensor:
    """(2,) int64: seed and number of draws, for set_state."""
    return tensor([signed(self.seed_value), self.draws], dtype=dtypes.int64, device="CPU")
  def set_state(self, state: Tensor) -> "Generator":
    seed, draws = state.tolist()
    self.manual_seed(seed)
    self.draws = draws
    return self

  def next_draw(self, device: Any) -> UOp:
    """(3,) uint32: low and high word of the seed, number of the draw."""
    leaf = tensor(self.draw_words(), dtype=dtypes.uint32, device=device).uop
    feed(strip(leaf), self.draw_words, self.rewind)
    return leaf

  def rewind(self) -> None: self.draws -= 1
  def draw_words(self) -> Any:
    """Low and high word of the seed and the number of the draw, which is counted."""
    self.draws += 1
    return np.array([self.seed_value & 0xffffffff, self.seed_value >> 32, (self.draws - 1) & 0xffffffff], np.uint32)

def signed(x: int) -> int: return x - (1 << 64) if x >> 63 else x

default_generator = Generator()
default_generator.seed()

def manual_seed(seed: int) -> Generator:
  """Seeds the generator that is used where none is passed."""
  return default_generator.manual_seed(seed)
def initial_seed() -> int: return default_generator.initial_seed()
def seed() -> int: return default_generator.seed()
def get_rng_state() -> Tensor: return default_generator.get_state()
def set_rng_state(state: Tensor) -> None: default_generator.set_state(state)

# ---- words and numbers -----------------------------------------------------------------------------------------------

def words(shape: Sequence[int], generator: Generator | None, device: Any) -> tuple[Tensor, Tensor]:
  """Two independent random words (uint32) for each element of shape: one draw."""
  n = prod(shape)
  if n >= 1 << 32: raise ValueError(f"a random tensor of shape {tuple(shape)} has more than 2**32 elements")
  draw = (generator or default_generator).next_draw(device)
  low, high, number = [draw.shrink(((i, i + 1),)).expand((n,)) for i in range(3)]
  first, second = threefry(UOp.iota(n, dtypes.uint32), number, low, high)
  return Tensor(first).reshape(tuple(shape)), Tensor(second).reshape(tuple(shape))

def fraction(shape: Sequence[int], generator: Generator | None, device: Any, dtype: DType) -> Tensor:
  """Multiples of 2**-bits in [0, 1), as many bits as dtype represents exactly: no rounding, so never 1."""
  first, second = words(shape, generator, device)
  if not dtype.is_floating_point:
    raise RuntimeError(f"random numbers of dtype {dtype}: a floating point dtype is expected")
  if dtype is dtypes.float64: return ((first >> 5).to(dtype) * 2.0 ** 26 + (second >> 6).to(dtype)) * 2.0 ** -53
  return ((first >> (32 - dtype.digits)).to(dtypes.float32) * 2.0 ** -dtype.digits).to(dtype)

def gaussian(shape: Sequence[int], generator: Generator | None, device: Any, dtype: DType) -> Tensor:
  """Normal values by Box and Muller: sqrt(-2 ln u) cos(2 pi v), with u in (0, 1] of 32 bits: tails up to 6.6."""
  first, second = words(shape, generator, device)
  work = dtypes.float64 if dtype is dtypes.float64 else dtypes.float32
  u = (first.to(work) + 1) * 2.0 ** -32
  v = (second >> 8).to(work) * 2.0 ** -24
  return ((u.log() * -2).sqrt() * (v * (2 * math.pi)).cos()).to(dtype)

def integers(low: int, high: int, shape: Sequence[int], generator: Generator | None, device: Any,
             dtype: DType) -> Tensor:
  """Whole numbers in [low, high): the high half of word * span, or 64 bits modulo span where it needs over 32 bits.
  A number is off its probability by span/2**32 (2**64) of it at most."""
  if low >= high: raise RuntimeError(f"random_ expects 'from' to be less than 'to', but got from={low} >= to={high}")
  first, second = [w.to(dtypes.uint64) for w in words(shape, generator, device)]
  span = high - low
  offset = (first * span) >> 32 if span <= 1 << 32 else ((first << 32) | second) % span
  return (offset.to(dtypes.int64) + low).to(dtype)

# ---- torch's functions -----------------------------------------------------------------------------------------------

def rand(*size: Any, generator: Generator | None = None, dtype: DType | None = None, device: Any = None,
         requires_grad: bool = False) -> Tensor:
  """Uniform in [0, 1)."""
  return fraction(sizes_of(size), generator, device, dtype or dtypes.float32).requires_grad_(requires_grad)

def randn(*size: Any, generator: Generator | None = None, dtype: DType | None = None, device: Any = None,
          requires_grad: bool = False) -> Tensor:
  """Normal with mean 0 and deviation 1."""
  return gaussian(sizes_of(size), generator, device, dtype or dtypes.float32).requires_grad_(requires_grad)

def randint(*args: Any, size: Sequence[int] | None = None, low: int = 0, high: int | None = None,
            generator: Generator | None = None, dtype: DType | None = None, device: Any = None) -> Tensor:
  """randint(high, size) or randint(low, high, size): whole numbers in [low, high)."""
  values = list(args)
  shape = values.pop() if size is None else size
  if high is None: high = values.pop()
  if values: low = values.pop()
  return integers(low, high, tuple(shape), generator, device, dtype or dtypes.int64)

def randperm(n: int, generator: Generator | None = None, dtype: DType | None = None, device: Any = None) -> Tensor:
  """(n,): 0 .. n-1 in random order, the order of n random keys."""
  keys = integers(0, 1 << 63, (n,), generator, device, dtypes.int64)
  return keys.argsort().to(dtype or dtypes.int64)

def rand_like(input: Tensor, generator: Generator | None = None, dtype: DType | None = None,
              device: Any = None) -> Tensor:
  """Uniform in [0, 1) in input's shape."""
  return rand(*input.shape, generator=generator, dtype=dtype or input.dtype, device=device or input.device)

def randn_like(input: Tensor, generator: Generator | None = None, dtype: DType | None = None,
               device: Any = None) -> Tensor:
  """Normal values with mean 0 and deviation 1 in input's shape."""
  return randn(*input.shape, generator=generator, dtype=dtype or input.dtype, device=device or input.device)

def randint_like(input: Tensor, low: int, high: int | None = None, generator: Generator | None = None,
                 dtype: DType | None = None, device: Any = None) -> Tensor:
  """Whole numbers in [low, high); in [0, low) where low alone is given."""
  start, end = (0, low) if high is None else (low, high)
  return integers(int(start), int(end), input.shape, generator, device or input.device, dtype or input.dtype)

def normal(mean: float | Tensor = 0.0, std: float | Tensor = 1.0, size: Sequence[int] | None = None,
           generator: Generator | None = None, dtype: DType | None = None, device: Any = None) -> Tensor:
  """Normal values; without a size, of the shape of mean and std broadcast."""
  if size is not None: return randn(*size, generator=generator, dtype=dtype, device=device) * std + mean
  like = next((x for x in (mean, std) if isinstance(x, Tensor)), None)
  if like is None: raise TypeError("normal() of two numbers needs a size")
  pattern = like * 0 + mean + std
  return randn_like(pattern.detach(), generator) * std + mean

def bernoulli(input: Tensor, generator: Generator | None = None) -> Tensor:
  """1 with probability input, else 0, in input's dtype."""
  return (rand(*input.shape, generator=generator, device=input.device) < input).to(input.dtype)

# ---- multinomial -----------------------------------------------------------------------------------------------------

def check_probabilities(rows: Tensor, num_samples: int, replacement: bool) -> None:
  """torch's checks of rows (m, n). The values are read: the tensor is realised."""
  if not rows.dtype.is_floating_point:
    raise RuntimeError(f"multinomial only supports floating-point dtypes for input, got: {rows.dtype}")
  if num_samples <= 0: raise RuntimeError("cannot sample n_sample <= 0 samples")
  if not replacement and num_samples > rows.shape[-1]:
    raise RuntimeError("cannot sample n_sample > prob_dist.size(-1) samples without replacement")
  if not bool(((rows >= 0) & (rows < math.inf)).all().item()):
    raise RuntimeError("probability tensor contains either `inf`, `nan` or element < 0")
  needed = 1 if replacement else num_samples
  if int((rows > 0).sum(-1).min().item()) >= needed: return
  if replacement or needed == 1: raise RuntimeError("invalid multinomial distribution (sum of probabilities <= 0)")
  raise RuntimeError("invalid multinomial distribution (with replacement=False, not enough non-negative category to "
                     "sample)")

def multinomial(input: Tensor, num_samples: int, replacement: bool = False,
                generator: Generator | None = None) -> Tensor:
  """Indices of categories, int64: weights (n,) or (m, n), whatever their sum -> (num_samples,) or (m, num_samples).
  RuntimeError for weights that are negative or not finite, and for rows without enough positive ones."""
  if input.ndim not in (1, 2): raise RuntimeError("prob_dist must be 1 or 2 dim")
  if input.ndim == 1: return multinomial(input.unsqueeze(0), num_samples, replacement, generator).squeeze(0)
  rows = input.detach()
  check_probabilities(rows, num_samples, replacement)
  rows = (rows / rows.amax(-1, keepdim=True)).to(dtypes.float32)                             # sums cannot overflow
  draw = sample_again if replacement or num_samples == 1 else sample_once
  return draw(rows, num_samples, generator)

def sample_again(rows: Tensor, num_samples: int, generator: Generator | None) -> Tensor:
  """With replacement: the first category with a positive weight whose cumulative weight exceeds u * total."""
  heights = rows.cumsum(-1).unsqueeze(1)                                                     # (m, 1, n)
  u = rand(rows.shape[0], num_samples, 1, generator=generator, device=rows.device) * heights[..., -1:]
  return ((heights > u) & (rows > 0).unsqueeze(1)).to(dtypes.int32).argmax(-1)

def sample_once(rows: Tensor, num_samples: int, generator: Generator | None) -> Tensor:
  """Without replacement: each category runs a race of exponential duration, its weight the rate; the first arrive."""
  u = 1 - rand(*rows.shape, generator=generator, device=rows.device)                         # (0, 1]
  speed = rows / (u.log() * -1 + 2.0 ** -40)
  return speed.topk(num_samples, -1)[1]

# ---- in place --------------------------------------------------------------------------------------------------------

def fill(self: Tensor, value: Tensor) -> Tensor:
  with no_grad(): return self.copy_(value)

def uniform_(self: Tensor, a: float = 0.0, b: float = 1.0, generator: Generator | None = None) -> Tensor:
  """Fills with uniform values in [a, b)."""
  return fill(self, rand_like(self, generator) * (b - a) + a)

def normal_(self: Tensor, mean: float = 0.0, std: float = 1.0, generator: Generator | None = None) -> Tensor:
  """Fills with normal values."""
  return fill(self, randn_like(self, generator) * std + mean)

def bernoulli_(self: Tensor, p: float | Tensor = 0.5, generator: Generator | None = None) -> Tensor:
  """Fills with 1 with probability p, else 0."""
  return fill(self, rand(*self.shape, generator=generator, device=self.device) < p)

def random_(self: Tensor, low: int, high: int, generator: Generator | None = None) -> Tensor:
  """Fills with whole numbers in [low, high)."""
  return fill(self, integers(low, high, self.shape, generator, self.device, self.dtype))

for method in (uniform_, normal_, bernoulli_, random_, multinomial, bernoulli): setattr(Tensor, method.__name__, method)
