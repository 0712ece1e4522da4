# test_autocast.py: which operations compute with 16-bit floats inside `autocast`, beside torch on the CPU.
import numpy as np
import pytest
import picograd as pg
import picograd.nn.functional as F

torch = pytest.importorskip("torch")

def pair(*shape):
  data = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
  return pg.tensor(data), torch.tensor(data)

def same(ours, theirs):
  assert str(theirs.dtype).removeprefix("torch.") == ours.dtype.name
  np.testing.assert_allclose(ours.float().numpy(), theirs.float().detach().numpy(), rtol=2e-2, atol=2e-2)

CASES = {
  "product": lambda l, f, x, w: x @ w.T,
  "linear": lambda l, f, x, w: f.linear(x, w, w[:, 0]),
  "sum of a product and a float": lambda l, f, x, w: x @ w.T + x[0, 0],
  "relu of a product": lambda l, f, x, w: (x @ w.T).relu(),
  "attention": lambda l, f, x, w: f.scaled_dot_product_attention(x[None], x[None], x[None], is_causal=True),
  "a product of doubles": lambda l, f, x, w: x.double() @ w.double().T,
  "cross entropy": lambda l, f, x, w: f.cross_entropy(x @ w.T, l.tensor([1, 2, 3, 0])),
  "mse": lambda l, f, x, w: f.mse_loss(x @ w.T, x[:, :5]),
}

@pytest.mark.parametrize("name", CASES)
def test_dtypes_and_values_are_as_in_torch(name):
  (x, X), (w, W) = pair(4, 8), pair(5, 8)
  with pg.autocast("cpu", dtype=pg.bfloat16): ours = CASES[name](pg, F, x, w)
  with torch.autocast("cpu", dtype=torch.bfloat16): theirs = CASES[name](torch, torch.nn.functional, X, W)
  same(ours, theirs)

def test_gradients_have_the_dtype_of_their_parameters():
  (x, X), (w, W) = pair(4, 8), pair(5, 8)
  for leaf in (w, W): leaf.requires_grad_(True)
  with pg.autocast("cpu"): ours = F.cross_entropy(F.linear(x, w), pg.tensor([1, 2, 3, 0]))
  T = torch.nn.functional
  with torch.autocast("cpu"): theirs = T.cross_entropy(T.linear(X, W), torch.tensor([1, 2, 3, 0]))
  ours.backward()
  theirs.backward()
  assert w.grad.dtype is pg.float32
  np.testing.assert_allclose(w.grad.numpy(), W.grad.numpy(), rtol=3e-2, atol=3e-3)

def test_norms_and_softmax_are_exact_as_in_torch_on_a_gpu():
  (x, _), (w, _) = pair(4, 8), pair(5, 8)
  with pg.autocast("cuda", dtype=pg.bfloat16):
    assert F.layer_norm(x @ w.T, (5,)).dtype is pg.float32
    assert (x @ w.T).softmax(-1).dtype is pg.float32

def test_it_ends_with_its_block_and_can_be_switched_off():
  x, _ = pair(4, 4)
  with pg.autocast("cuda"):
    assert (x @ x).dtype is pg.float16
    with pg.autocast("cuda", enabled=False): assert (x @ x).dtype is pg.float32
    assert (x @ x).dtype is pg.float16
  assert (x @ x).dtype is pg.float32

def test_a_captured_function_knows_the_mode():
  x, _ = pair(4, 4)
  f = pg.jit(lambda a: a @ a)
  for _ in range(2):
    assert f(x).dtype is pg.float32
    with pg.autocast("cpu"): assert f(x).dtype is pg.bfloat16
