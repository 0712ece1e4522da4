# test_func.py: torch.func's transformations and their compositions against torch.func, on 30 functions.
import functools, importlib
import numpy as np
import pytest
import picograd
from harness import HAS_TORCH

def weight(lib, *shape): return lib.tensor(np.random.default_rng(1).uniform(-1, 1, shape).astype(np.float32))

# functions (lib, x) of x (2, 3) -> a tensor; smooth where they are looked at
FUNCTIONS = {
  "sin": lambda L, x: (x.sin() * x).sum(),
  "exp": lambda L, x: (x * 0.5).exp(),
  "log": lambda L, x: (x * x + 1).log(),
  "tanh": lambda L, x: x.tanh(),
  "sigmoid": lambda L, x: x.sigmoid(),
  "power": lambda L, x: (x.abs() + 1) ** 1.5,
  "quotient": lambda L, x: x / (x * x + 2),
  "sqrt": lambda L, x: (x * x + 1).sqrt(),
  "rsqrt": lambda L, x: (x * x + 1).rsqrt(),
  "erf": lambda L, x: x.erf(),
  "product": lambda L, x: (x + 3).prod(-1),
  "mean": lambda L, x: (x * x).mean(),
  "variance": lambda L, x: (x ** 3).var(-1),
  "softmax": lambda L, x: x.softmax(-1),
  "log_softmax": lambda L, x: x.log_softmax(-1),
  "logsumexp": lambda L, x: x.logsumexp(-1),
  "norm": lambda L, x: (x + 4).norm(),
  "matmul": lambda L, x: x @ x.mT @ x,
  "linear": lambda L, x: L.nn.functional.linear(x, weight(L, 4, 3)).tanh(),
  "einsum": lambda L, x: L.einsum("ij,kj->ik", x, x * x),
  "outer": lambda L, x: L.outer(x[0], x[1] ** 2),
  "cumsum": lambda L, x: x.cumsum(-1) ** 2,
  "gather": lambda L, x: (x * x).gather(-1, L.tensor([[0, 2], [1, 1]])),
  "index": lambda L, x: x[:, [2, 0]] ** 3,
  "cat": lambda L, x: L.cat([x, x.flip((-1,)) * x], -1),
  "where": lambda L, x: L.where(x > 0, x * x, x.exp()),
  "layer_norm": lambda L, x: L.nn.functional.layer_norm(x, (3,)),
  "gelu": lambda L, x: L.nn.functional.gelu(x),
  "conv1d": lambda L, x: L.nn.functional.conv1d(x.reshape(1, 2, 3), weight(L, 2, 2, 2), padding=1) ** 2,
  "attention": lambda L, x: L.nn.functional.scaled_dot_product_attention(x, x * 2, x * x),
  "cross_entropy": lambda L, x: L.nn.functional.cross_entropy(x, L.tensor([2, 0])),
  "silu": lambda L, x: L.nn.functional.silu(x) * L.nn.functional.softplus(x),
}
assert len(FUNCTIONS) >= 30

def total(lib, f): return lambda x: (f(lib, x) ** 2).sum()
def slope_sum(lib, f): return lambda x: (lib.func.grad(total(lib, f))(x) ** 2).sum()

# composition -> (lib, function, x (2, 3), a batch of x (4, 2, 3), a tangent) -> a tensor
COMPOSITIONS = {
  "grad of grad": lambda L, f, x, xs, t: L.func.grad(slope_sum(L, f))(x),
  "vmap of grad": lambda L, f, x, xs, t: L.func.vmap(L.func.grad(total(L, f)))(xs),
  "jvp": lambda L, f, x, xs, t: L.func.jvp(functools.partial(f, L), (x,), (t,))[1],
  "vmap": lambda L, f, x, xs, t: L.func.vmap(functools.partial(f, L))(xs),
}

def result(name, lib, composition):
  rng = np.random.default_rng(0)
  x, xs, t = (lib.tensor(rng.uniform(-2, 2, s).astype(np.float32)) for s in ((2, 3), (4, 2, 3), (2, 3)))
  return np.asarray(COMPOSITIONS[composition](lib, FUNCTIONS[name], x, xs, t).detach().numpy())

@pytest.mark.skipif(not HAS_TORCH, reason="torch.func is the reference")
@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("composition", COMPOSITIONS)
def test_agrees_with_torch(name, composition):
  want = result(name, importlib.import_module("torch"), composition)
  got = result(name, picograd, composition)
  assert got.shape == want.shape
  np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-4 * max(1, np.abs(want).max()))

MORE = {
  "jacrev": lambda L, f, x: L.func.jacrev(f)(x),
  "jacfwd": lambda L, f, x: L.func.jacfwd(f)(x),
  "hessian": lambda L, f, x: L.func.hessian(lambda x: f(x).sum())(x),
  "jvp of grad": lambda L, f, x: L.func.jvp(L.func.grad(lambda x: f(x).sum()), (x,), (x * x,))[1],
  "vmap of hessian": lambda L, f, x: L.func.vmap(L.func.hessian(lambda x: f(x).sum()))(x),
  "grad of vmap": lambda L, f, x: L.func.grad(lambda x: L.func.vmap(f)(x).sum())(x),
  "vmap of jacrev": lambda L, f, x: L.func.vmap(L.func.jacrev(f))(x),
}
SIMPLE = {"cube": lambda x: x ** 3, "softmax": lambda x: x.softmax(-1), "sin": lambda x: (x * x.flip((0,))).sin()}

@pytest.mark.skipif(not HAS_TORCH, reason="torch.func is the reference")
@pytest.mark.parametrize("name", SIMPLE)
@pytest.mark.parametrize("composition", MORE)
def test_jacobians_agree_with_torch(name, composition):
  data = np.random.default_rng(0).uniform(-2, 2, (2, 3)).astype(np.float32)
  got, want = (MORE[composition](lib, SIMPLE[name], lib.tensor(data)).detach().numpy()
               for lib in (picograd, importlib.import_module("torch")))
  np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)

# ---- what the transformations take and refuse ------------------------------------------------------------------------

def near(got, want): np.testing.assert_allclose(np.asarray(got.detach()), want, rtol=1e-5)

def test_value_and_grad_of_trees_with_auxiliary_results():
  x, w = picograd.tensor([1.0, 2.0]), {"a": picograd.tensor([3.0, 4.0]), "b": picograd.tensor(5.0)}
  def loss(p, x): return ((p["a"] * x).sum() * p["b"]), x * 2
  slopes, (value, aux) = picograd.func.grad(lambda p, x: loss(p, x)[0])(w, x), picograd.func.value_and_grad(
    loss, has_aux=True)(w, x)[0]
  near(value, 55.0)
  near(aux, [2.0, 4.0])
  near(slopes["a"], [5.0, 10.0])
  near(slopes["b"], 11.0)
  by_both = picograd.func.grad(lambda a, b: (a * b).sum(), argnums=(0, 1))(x, x + 1)
  near(by_both[0], [2.0, 3.0])
  near(by_both[1], [1.0, 2.0])

def test_results_lead_to_leaves_outside():
  w = picograd.tensor([2.0, 3.0], requires_grad=True)
  g = picograd.func.grad(lambda x: (w * x * x).sum())(picograd.tensor([1.0, 2.0]))
  assert g.requires_grad
  g.sum().backward()
  near(w.grad, [2.0, 4.0])
  assert not picograd.func.grad(lambda x: (x * x).sum())(picograd.tensor([1.0])).requires_grad

def test_vjp_and_jvp_of_several_outputs():
  x = picograd.tensor([1.0, 2.0])
  (a, b), pull = picograd.func.vjp(lambda x: (x * x, x.sum()), x)
  near(pull((picograd.ones(2), picograd.tensor(3.0)))[0], [5.0, 7.0])
  (a, b), (da, db) = picograd.func.jvp(lambda x: (x * x, x.sum()), (x,), (picograd.ones(2),))
  near(da, [2.0, 4.0])
  near(db, 2.0)

def test_dimensions_of_vmap():
  x, y = picograd.arange(6).reshape(2, 3), picograd.tensor([1, 10])
  dot = picograd.func.vmap(lambda a, b: (a * b).sum(), in_dims=(1, None))
  assert dot(x, y).tolist() == [30, 41, 52]
  assert picograd.func.vmap(lambda a: a * 2, in_dims=1, out_dims=1)(x).tolist() == (x * 2).tolist()
  both = picograd.func.vmap(picograd.func.vmap(lambda a, b: a * b, (0, None)), (None, 0))(y, y)
  assert both.tolist() == [[1, 10], [10, 100]]
  tree = picograd.func.vmap(lambda d: {"s": d["x"].sum(), "one": picograd.ones(2)})({"x": x})
  assert tree["s"].tolist() == [3, 12] and tree["one"].shape == (2, 2)

def test_assignment_and_convolution_in_vmap():
  def place(x):
    out = picograd.zeros(2, 3)
    out[0] = x
    out[1, 1] += x.sum()
    return out
  assert picograd.func.vmap(place)(picograd.ones(2, 3)).tolist() == [[[1, 1, 1], [0, 3, 0]]] * 2
  rng = np.random.default_rng(0)
  x = picograd.tensor(rng.normal(size=(4, 2, 3, 5, 5)).astype(np.float32))
  w = picograd.tensor(rng.normal(size=(4, 6, 3, 3, 3)).astype(np.float32))
  conv = functools.partial(picograd.nn.functional.conv2d, padding=1)
  for dims, each in (((0, None), lambda i: conv(x[i], w[0])), ((0, 0), lambda i: conv(x[i], w[i])),
                     ((None, 0), lambda i: conv(x[0], w[i]))):
    got = picograd.func.vmap(conv, dims)(x if dims[0] == 0 else x[0], w if dims[1] == 0 else w[0])
    np.testing.assert_allclose(got.numpy(), np.stack([each(i).numpy() for i in range(4)]), rtol=1e-4, atol=1e-4)

def test_gradients_of_each_example_of_a_module():
  model = picograd.nn.Linear(3, 2)
  parameters = {name: p.detach() for name, p in model.named_parameters()}
  def loss(p, x): return (picograd.func.functional_call(model, p, (x,)) ** 2).sum()
  x = picograd.randn(4, 3)
  each = picograd.func.vmap(picograd.func.grad(loss), in_dims=(None, 0))(parameters, x)
  for i in range(4):
    model.zero_grad()
    (model(x[i]) ** 2).sum().backward()
    np.testing.assert_allclose(each["weight"][i].numpy(), model.weight.grad.numpy(), rtol=1e-4, atol=1e-5)
  with pytest.raises(KeyError, match="no such"):
    picograd.func.functional_call(model, {"no such": x}, (x,))

@pytest.mark.parametrize("call, error, message", [
  (lambda f, x: f.vmap(lambda x: x if x.sum() > 0 else -x)(x), RuntimeError, "asks for a value"),
  (lambda f, x: f.vmap(lambda x: x + picograd.rand(3))(x), RuntimeError, "random"),
  (lambda f, x: f.vmap(lambda x, y: x)(x, picograd.ones(3)), ValueError, "sizes"),
  (lambda f, x: f.vmap(lambda x: 3)(x), ValueError, "must return tensors"),
  (lambda f, x: f.grad(lambda x: x)(x), RuntimeError, "scalar"),
  (lambda f, x: f.grad(lambda x: x.sum())(x.long()), ValueError, "floats"),
  (lambda f, x: f.jvp(lambda x: x, (x,), (x[0],)), RuntimeError, "tangent"),
], ids=lambda v: v if isinstance(v, str) else "")
def test_what_cannot_be_is_refused(call, error, message):
  with pytest.raises(error, match=message): call(picograd.func, picograd.ones(2, 3))
  assert (picograd.ones(2) + 1).tolist() == [2, 2]                     # nothing is left behind

def test_an_index_out_of_range_in_vmap_is_an_error():
  table = picograd.arange(5)
  assert picograd.func.vmap(lambda i: table[i])(picograd.tensor([1, 4])).tolist() == [1, 4]
  with pytest.raises(IndexError): picograd.func.vmap(lambda i: table[i])(picograd.tensor([1, 7])).tolist()
