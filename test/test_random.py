# Random numbers: the bits of the published generator, distributions, reproducibility, torch's signatures and errors.
import math
import numpy as np
import pytest
import picograd
from picograd.helpers import Counters
from picograd.random import words

def threefry(x0, x1, k0, k1):
  """Threefry-2x32-20 of Salmon et al. (2011) in plain integers: the oracle."""
  mask, turns = 0xffffffff, ((13, 15, 26, 6), (17, 29, 16, 24))
  keys = (k0, k1, k0 ^ k1 ^ 0x1bd11bda)
  x0, x1 = (x0 + k0) & mask, (x1 + k1) & mask
  for i in range(5):
    for r in turns[i % 2]:
      x0 = (x0 + x1) & mask
      x1 = ((x1 << r | x1 >> (32 - r)) & mask) ^ x0
    x0, x1 = (x0 + keys[(i + 1) % 3]) & mask, (x1 + keys[(i + 2) % 3] + i + 1) & mask
  return x0, x1

def test_the_oracle_has_the_published_values():
  assert threefry(0, 0, 0, 0) == (0x6b200159, 0x99ba4efe)
  assert threefry(0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344) == (0xc4923a9c, 0x483df7a0)

def test_words_are_threefry():
  generator = picograd.Generator().manual_seed(0x123456789abcdef)
  for draw in range(2):
    first, second = [w.numpy().tolist() for w in words((2, 3), generator, None)]
    expected = [threefry(i, draw, 0x89abcdef, 0x1234567) for i in range(6)]
    assert list(zip(sum(first, []), sum(second, []))) == expected

def test_seeds_reproduce():
  picograd.manual_seed(7)
  a = [picograd.rand(3).tolist(), picograd.randn(3).tolist()]
  picograd.manual_seed(7)
  assert [picograd.rand(3).tolist(), picograd.randn(3).tolist()] == a
  generator = picograd.Generator()
  assert picograd.rand(3, generator=generator.manual_seed(7)).tolist() == a[0]
  state = generator.get_state()
  b = picograd.rand(3, generator=generator).tolist()
  assert picograd.rand(3, generator=generator.set_state(state)).tolist() == b != a[0]
  with pytest.raises(RuntimeError, match="over 64 bits"): picograd.manual_seed(1 << 64)

def test_a_draw_compiles_once():
  compiled = []
  for _ in range(3):
    picograd.rand(5, 7).numpy()
    compiled.append(Counters.compiled)
  assert compiled[1] == compiled[2]

def distance(samples, cdf):
  """The Kolmogorov-Smirnov statistic times sqrt(n): above 1.95 with probability 0.1%."""
  x = np.sort(samples.ravel())
  levels = np.arange(len(x) + 1) / len(x)
  expected = cdf(x)
  return max(np.abs(levels[1:] - expected).max(), np.abs(levels[:-1] - expected).max()) * math.sqrt(len(x))

def normal_cdf(x): return np.array([0.5 * (1 + math.erf(v / math.sqrt(2))) for v in x.tolist()])

def test_uniform():
  picograd.manual_seed(1)
  x = picograd.rand(100, 100).numpy()
  assert x.dtype == np.float32 and 0 <= x.min() and x.max() < 1 and distance(x, lambda v: v) < 1.95
  x = picograd.empty(100, 100).uniform_(-2, 3).numpy()
  assert distance(x, lambda v: (v + 2) / 5) < 1.95

def test_normal():
  picograd.manual_seed(2)
  assert distance(picograd.randn(100, 100).numpy(), normal_cdf) < 1.95
  assert distance((picograd.normal(3.0, 2.0, (100, 100)).numpy() - 3) / 2, normal_cdf) < 1.95
  x = picograd.normal(picograd.full((50, 1), 3.0), picograd.full((1, 50), 2.0)).numpy()
  assert x.shape == (50, 50) and distance((x - 3) / 2, normal_cdf) < 1.95
  assert distance(picograd.empty(50, 50).normal_(1.0, 3.0).numpy() / 3 - 1 / 3, normal_cdf) < 1.95

@pytest.mark.parametrize("name", ["float16", "bfloat16", "float32", "float64"])
def test_dtypes(name):
  dtype = getattr(picograd, name)
  for draw in (picograd.rand, picograd.randn):
    x = draw(2000, dtype=dtype)
    assert x.dtype is dtype
  assert picograd.rand(2000, dtype=dtype).float().max().item() < 1
  assert picograd.rand_like(x).dtype is dtype and picograd.randn_like(x).shape == x.shape

def test_randint():
  picograd.manual_seed(3)
  x = picograd.randint(10, (1000,))
  counts = np.bincount(x.numpy(), minlength=10)
  assert x.dtype is picograd.int64 and counts.min() > 60 and counts.sum() == 1000 and len(counts) == 10
  x = picograd.randint(-5, 3, (1000,)).numpy()
  assert x.min() == -5 and x.max() == 2
  x = picograd.randint(low=-1 << 40, high=1 << 40, size=(1000,)).numpy()
  assert x.min() < -1 << 39 and x.max() > 1 << 39
  with pytest.raises(RuntimeError, match="from=5 >= to=5"): picograd.randint(5, 5, (1,))

def test_randperm():
  picograd.manual_seed(4)
  assert sorted(picograd.randperm(100).tolist()) == list(range(100))
  assert len({tuple(picograd.randperm(3).tolist()) for _ in range(60)}) == 6

def test_bernoulli():
  picograd.manual_seed(5)
  x = picograd.bernoulli(picograd.full((1000,), 0.3))
  assert abs(x.mean().item() - 0.3) < 0.05 and set(x.tolist()) == {0.0, 1.0}
  assert abs(picograd.empty(1000).bernoulli_(0.7).mean().item() - 0.7) < 0.05

def test_multinomial_with_replacement():
  picograd.manual_seed(6)
  weights = picograd.tensor([[0.0, 1.0, 3.0, 0.0], [5.0, 0.0, 0.0, 5.0]])
  x = picograd.multinomial(weights, 2000, replacement=True)
  assert x.shape == (2, 2000) and x.dtype is picograd.int64
  first, second = [np.bincount(row, minlength=4) / 2000 for row in x.numpy()]
  assert np.abs(first - [0, 0.25, 0.75, 0]).max() < 0.05 and np.abs(second - [0.5, 0, 0, 0.5]).max() < 0.05
  assert first[0] == first[3] == second[1] == 0

def test_multinomial_without_replacement():
  picograd.manual_seed(7)
  weights = picograd.tensor([1.0, 0.0, 2.0, 4.0])
  draws = [tuple(picograd.multinomial(weights, 3).tolist()) for _ in range(40)]
  assert all(sorted(d) == [0, 2, 3] for d in draws) and len(set(draws)) > 2
  rows = picograd.multinomial(picograd.ones(500, 1) * picograd.tensor([1.0, 3.0]), 1).numpy()
  assert abs((rows == 1).mean() - 0.75) < 0.07

def test_multinomial_errors():
  draw = picograd.multinomial
  cases = [([1.0, -1.0], 1, "element < 0"), ([1.0, math.nan], 1, "nan"), ([0.0, 0.0], 1, "sum of prob"),
           ([1.0, 0.0], 2, "not enough non-negative"), ([1.0, 1.0], 3, r"n_sample > prob_dist"),
           ([1.0], 0, "n_sample <= 0"), ([[[1.0]]], 1, "1 or 2 dim"), ([1, 2], 1, "floating-point")]
  for weights, count, message in cases:
    with pytest.raises(RuntimeError, match=message): draw(picograd.tensor(weights), count)
