# test_border.py: sums over windows skip the zeros around an image, and are right wherever the image lies in its border.
import numpy as np
import pytest
import picograd
import picograd.nn.functional as F
from picograd import codegen
from picograd.codegen.border import skip_borders
from picograd.codegen.schedule import schedule
from picograd.codegen.target import Target
from picograd.ops.ops import Border, Ops
from picograd.ops.uop import toposort

torch = pytest.importorskip("torch")

def image(*shape: int) -> np.ndarray: return np.random.default_rng(0).standard_normal(shape).astype(np.float32)

def windows_of(padding: int) -> list:
  """The loops over reductions of a convolution 3 x 3 over 8 x 8, after the pass: their bounds."""
  x, w = (picograd.tensor(image(*shape)).realize() for shape in ((2, 4, 8, 8), (4, 4, 3, 3)))
  kernels = schedule([F.conv2d(x, w, padding=padding).uop], "CPU", Target("plain")).kernels
  kernel = skip_borders(codegen.prepared(kernels[-1].ast))
  return [r.bound for u in toposort([kernel]) if u.op is Ops.REDUCE for r in u.src[1:]]

def test_loops_over_a_window_end_with_the_image():
  assert all(bound.op is Ops.CONST for bound in windows_of(0))
  bounds = windows_of(1)
  assert [bound.op is Ops.CONST for bound in bounds].count(False) == 2               # rows and columns

def test_what_is_stored_says_where_its_border_is():
  x, w = (picograd.tensor(image(*shape)).realize() for shape in ((2, 4, 8, 8), (4, 4, 3, 3)))
  kernels = schedule([F.conv2d(x, w, padding=(1, 2)).uop], "CPU", Target("plain")).kernels
  borders = {u.arg for u in toposort([kernels[-1].ast]) if u.op is Ops.INDEX and u.arg is not None}
  border, = borders
  assert isinstance(border, Border) and border.shape[-2:] == (10, 12) and border.inner[-2:] == ((1, 9), (2, 10))

CONVOLUTIONS = [
  ((2, 3, 9, 7), (4, 3, 3, 3), dict(padding=1)), ((1, 2, 5, 6), (3, 2, 2, 3), dict(padding=(4, 3))),
  ((2, 2, 8, 8), (2, 2, 3, 3), dict(padding=2, stride=2)), ((1, 2, 8, 9), (2, 2, 3, 3), dict(padding=3, dilation=2)),
  ((1, 4, 6, 6), (4, 2, 3, 3), dict(padding=1, groups=2)), ((1, 1, 1, 1), (1, 1, 5, 5), dict(padding=4))]
CASES = [(device, *case) for device in ("CPU", "RISCV") for case in CONVOLUTIONS] + [("PYTHON", *CONVOLUTIONS[0])]

@pytest.mark.parametrize("device,size,kernel,options", CASES)
def test_convolutions_and_their_gradients(device, size, kernel, options):
  if device == "RISCV": pytest.importorskip("unicorn")
  found = []
  for library, kind in ((picograd, dict(device=device)), (torch, {})):
    x, w = (library.tensor(image(*shape), requires_grad=True, **kind) for shape in (size, kernel))
    y = library.nn.functional.conv2d(x, w, **options)
    y.backward(library.tensor(image(*y.shape), **kind))
    found.append([t.detach().numpy() for t in (y, x.grad, w.grad)])
  for ours, theirs in zip(*found): assert np.allclose(ours, theirs, rtol=1e-4, atol=1e-4)
