# Long reductions by parts: the same values for every length, however the axes lie and whatever the operation.
import numpy as np
import pytest
import picograd
from graphs import close, leaf, random, total, value
from picograd.codegen.partial import split_long_reductions
from picograd.codegen.schedule import PLAIN, schedule
from picograd.ops.ops import Ops

@pytest.mark.parametrize("shape, axes", [
  ((1 << 18,), (0,)), ((1000003,), (0,)), ((512, 513), (0, 1)), ((3, 100003), (1,)), ((100003, 3), (0,)),
  ((3, 4, 50000), (0, 2)), ((4, 70000), (0, 1)), ((131071 + 64,), (0,))], ids=str)
def test_sums(shape, axes):
  x = random(*shape)
  close(value(total(leaf(x), *axes)), x.astype(np.float64).sum(axes, keepdims=True))
  assert np.array_equal(value(leaf(x).reduce(Ops.MAX, axes)), x.max(axes, keepdims=True))
  assert len(schedule([total(leaf(x), *axes)], "CPU").kernels) == 2

def test_short_or_many_are_left_alone():
  for x, axes in ((leaf(random(1 << 12)), (0,)), (leaf(random(512, 512)), (0,)), (leaf(random(512, 512)), (1,))):
    u = total(x, *axes)
    assert split_long_reductions([u], PLAIN) == [u]

def test_integers_and_gradients():
  n = picograd.arange(200000)
  assert n.sum().item() == 199999 * 100000 and n.max().item() == 199999
  x = picograd.tensor(random(300000), requires_grad=True)
  (x * x).mean().backward()
  np.testing.assert_allclose(x.grad.numpy(), 2 * x.detach().numpy() / 300000, rtol=1e-6)

def test_maxima_of_narrow_floats():
  for dtype in (picograd.float16, picograd.bfloat16):
    x = picograd.tensor(random(50, 100)).to(dtype)
    assert np.array_equal(x.amax(1).float().numpy(), x.float().numpy().max(1))
    assert x.amax(1).dtype is dtype
