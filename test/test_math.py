# Functions of one number, compiled for this machine, over the whole of float32: every 4,999th bit pattern, and those
# around which functions go wrong. Errors are measured in units of the last place of the exact result.
import math
from typing import Callable, NamedTuple
import numpy as np
import picograd
import pytest

F = picograd.nn.functional
LARGEST = float(np.finfo(np.float32).max)
EDGES = [0.0, 1.0, 2.0, 0.5, 0.25, 0.625, 0.927734375, 1.1754944e-38, 1e-45, LARGEST, math.inf, 88.72284, 89.0, 103.97,
         87.33655, 104.0, 126.0, 127.0, 128.0, 149.0, 150.0, 151.0, 1e4, 2.0**20, 2.0**20 + 1, math.pi, math.pi / 2]

def patterns() -> np.ndarray:
  spread = np.arange(0, 2**32, 4999, np.uint64).astype(np.uint32)
  edges = np.array(EDGES, np.float32).view(np.uint32)
  near = (edges[:, None].astype(np.int64) + np.arange(-2, 3)).clip(0).astype(np.uint32).ravel()
  nans = np.array([0x7f800001, 0x7fc00000, 0xffc00000, 0xffffffff], np.uint32)
  return np.concatenate([spread, near, near | np.uint32(1 << 31), nans]).view(np.float32)

class Row(NamedTuple):
  function: Callable
  exact: Callable                             # float64 -> float64
  places: float                               # by how many units of the last place a result may be off
  limit: float = math.inf                     # for |x| up to here; beyond, by 2^-22, of itself if it is above 1
  tail: float = 0                             # a result below this may be off by more: by some 2^-16 of itself

def gelu(x: np.ndarray) -> np.ndarray:
  return x * 0.5 * np.vectorize(math.erfc, [float])(-x * math.sqrt(0.5))

def gelu_by_tanh(x: np.ndarray) -> np.ndarray:
  return x / (1 + np.exp(-math.sqrt(8 / math.pi) * (x + 0.044715 * x ** 3)))

ROWS = {
  "exp": Row(lambda t: t.exp(), np.exp, 1), "exp2": Row(lambda t: t.exp2(), np.exp2, 1),
  "log": Row(lambda t: t.log(), np.log, 1), "log2": Row(lambda t: t.log2(), np.log2, 1),
  "sin": Row(lambda t: t.sin(), np.sin, 3, 1e4), "cos": Row(lambda t: t.cos(), np.cos, 3, 1e4),
  "tanh": Row(lambda t: t.tanh(), np.tanh, 2), "sinh": Row(lambda t: t.sinh(), np.sinh, 3),
  "cosh": Row(lambda t: t.cosh(), np.cosh, 3), "sqrt": Row(lambda t: t.sqrt(), np.sqrt, 0.5),
  "sigmoid": Row(lambda t: t.sigmoid(), lambda x: 1 / (1 + np.exp(-x)), 3),
  "erf": Row(lambda t: t.erf(), np.vectorize(math.erf, [float]), 1), "log1p": Row(lambda t: t.log1p(), np.log1p, 4),
  "expm1": Row(lambda t: t.expm1(), np.expm1, 3),
  "gelu": Row(F.gelu, gelu, 12, 5, tail=0.05),
  "gelu by tanh": Row(lambda t: F.gelu(t, approximate="tanh"), gelu_by_tanh, 8, tail=0.05),
  "softplus": Row(F.softplus, lambda x: np.logaddexp(0, x), 6),
}

@pytest.fixture(scope="module")
def numbers() -> np.ndarray: return patterns()

@pytest.mark.parametrize("name", ROWS)
def test_accuracy(name, numbers):
  row = ROWS[name]
  got = row.function(picograd.tensor(numbers)).numpy()
  with np.errstate(all="ignore"):
    exact = row.exact(numbers.astype(np.float64))
    rounded = exact.astype(np.float32)
    in_range = np.isfinite(rounded) & np.isfinite(got)
    place = np.exp2(np.floor(np.log2(np.where(in_range, np.abs(exact), 1).clip(2.0**-126))) - 23)
    off = np.where(in_range, np.abs(got.astype(np.float64) - exact), 0) / place
  at_limit = np.abs(np.abs(exact) / LARGEST - 1) < 2.0**-23                     # what rounds to infinity, or just not
  same = (got == rounded) | (np.isnan(got) & np.isnan(rounded)) | at_limit
  assert same[~in_range].all(), f"{name} of {numbers[~in_range & ~same][:5]}"
  zero = numbers == 0
  assert np.array_equal(np.signbit(got[zero]), np.signbit(exact[zero])), f"{name}(-0) has the wrong sign"
  measured = np.abs(numbers) <= row.limit
  off = np.where(np.abs(exact) < row.tail, off / 2.0**8, off)
  worst = np.argmax(np.where(measured, off, 0))
  assert off[worst] <= row.places, f"{name}({numbers[worst]!r}) is off by {off[worst]:.2f} places"
  assert (off * place / np.abs(exact).clip(1))[in_range & ~measured].max(initial=0) < 2.0**-22
