# test_windows.py: convolutions of random shapes, and their first and second derivatives, equal torch's in float64.
import numpy as np
import pytest
import picograd
import picograd.nn.functional as F
from picograd.codegen.schedule import schedule
from picograd.ops.ops import Ops

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

# ---- what becomes of convolutions ------------------------------------------------------------------------------------

def kernels_of(*roots: picograd.Tensor):
  return [k.ast.toposort() for k in schedule([r.uop for r in roots], "CPU").kernels]

def random(*shape: int, **options) -> picograd.Tensor: return picograd.rand(*shape, **options).realize()

def contractions(kernels): return [nodes for nodes in kernels if any(u.op is Ops.REDUCE for u in nodes)]

def test_borders_are_stored_once():
  """A convolution asks in no step whether an element lies in the border of zeros, nor does its gradient."""
  x, w = random(2, 3, 9, 9), random(4, 3, 3, 3)
  x.requires_grad_(True)
  y = F.conv2d(x, w, padding=1)
  dx, = picograd.autograd.grad(y.sum(), (x,))
  for kernels in (kernels_of(y), kernels_of(dx)):
    conv, = contractions(kernels)
    assert all(len(u.src) == 2 for u in conv if u.op is Ops.INDEX)

def test_work_on_an_operand_is_done_once():
  """relu(x), read by two products, is computed by neither."""
  x, a, b = random(40, 30), random(30, 20), random(30, 10)
  y = x.relu()
  products = contractions(kernels_of(y @ a, y @ b))
  assert len(products) == 2 and not any(u.op is Ops.WHERE for nodes in products for u in nodes)

@pytest.mark.parametrize("depth, stores", [(40, 3), (400, 1)])
def test_deep_contractions_have_a_kernel_of_their_own(depth, stores):
  """What is computed in blocks of its depth shares its loops with nobody."""
  x, g = random(depth, 20), random(depth, 30)
  d = x.T @ g
  product, = contractions(kernels_of(d, d * 2, d + 1))
  assert sum(u.op is Ops.STORE for u in product) == stores
