# test_windows.py: convolutions of random shapes, and their first and second derivatives, equal torch's in float64.
import numpy as np
import pytest
import picograd
import picograd.nn.functional as F

torch = pytest.importorskip("torch")

def shapes(seed: int):
  """(x, w, stride, padding, dilation, groups) of a convolution over one to three dimensions."""
  r = np.random.default_rng(seed)
  n, groups = int(r.integers(1, 4)), int(r.choice([1, 1, 2, 3]))
  kernel, stride, dilation, padding = ([int(v) for v in r.integers(low, high, n)]
                                       for low, high in ((1, 5), (1, 4), (1, 4), (0, 3)))
  sizes = [max(1, d * (k - 1) + 1 - 2 * p) + int(r.integers(0, 6)) for k, d, p in zip(kernel, dilation, padding)]
  inner, out = int(r.integers(1, 4)), groups * int(r.integers(1, 4))
  return (int(r.integers(1, 4)), groups * inner, *sizes), (out, inner, *kernel), stride, padding, dilation, groups

def derivatives(library, conv, arrays, options):
  """The result, its derivatives by x and w, and the derivatives of a function of those."""
  x, w, g = (library.tensor(a, requires_grad=True) for a in arrays)
  y = conv(x, w, None, *options)
  first = library.autograd.grad((y * g).sum(), (x, w), create_graph=True)
  total = sum((d * d).sum() for d in first)
  return [y, *first, *library.autograd.grad(total, (x, w, g))]

@pytest.mark.parametrize("seed", range(24))
def test_derivatives_equal_torchs(seed):
  x, w, *options = shapes(seed)
  r = np.random.default_rng(100 + seed)
  def conv(library): return getattr(library.nn.functional, f"conv{len(x) - 2}d")
  y = conv(torch)(torch.zeros(x), torch.zeros(w), None, *options).shape
  arrays = [r.standard_normal(shape) for shape in (x, w, tuple(y))]
  if len(x) == 5: found = derivatives(picograd, lambda *a: F.conv(*a), arrays, options)
  else: found = derivatives(picograd, conv(picograd), arrays, options)
  for mine, theirs in zip(found, derivatives(torch, conv(torch), arrays, options), strict=True):
    np.testing.assert_allclose(mine.detach().numpy(), theirs.detach().numpy(), rtol=1e-9, atol=1e-9)
