# test_api.py: every name that programs of the course use exists and says what it does; keywords have both spellings;
# every differentiable operation has a gradient in the 16-bit floats that is the one of float32, as exactly as they are.
import numpy as np
import pytest
import picograd
from harness import Case, Uniform, function_of, make_inputs, weights_for

# ---- names -----------------------------------------------------------------------------------------------------------

MODULE = """
  tensor as_tensor zeros ones full empty arange linspace eye rand randn randint randperm multinomial normal zeros_like
  ones_like rand_like randn_like full_like manual_seed Generator tanh exp log log2 log10 sin cos tan sqrt rsqrt pow abs
  sign floor ceil round clamp minimum maximum where sigmoid relu softmax cat stack roll tril triu topk sort argsort
  gather scatter dot matmul bmm einsum outer diag trace allclose isnan isinf cumsum prod no_grad inference_mode
  enable_grad autocast compile set_float32_matmul_precision save load from_dlpack Tensor
  linalg.svd linalg.eig linalg.inv linalg.norm linalg.lstsq linalg.solve linalg.cholesky linalg.qr linalg.det
  cuda.is_available cuda.synchronize cuda.device_count cuda.manual_seed cuda.manual_seed_all
  distributions.Normal distributions.Categorical distributions.Bernoulli distributions.Uniform
  func.grad func.value_and_grad func.vmap func.jvp func.vjp func.jacrev func.hessian
  amp.autocast amp.GradScaler utils.checkpoint.checkpoint utils.dlpack.to_dlpack"""
FUNCTIONAL = """
  softmax log_softmax cross_entropy nll_loss mse_loss binary_cross_entropy binary_cross_entropy_with_logits one_hot
  sigmoid tanh relu gelu silu leaky_relu elu softplus dropout embedding linear layer_norm rms_norm batch_norm group_norm
  conv1d conv2d conv_transpose2d max_pool2d avg_pool2d interpolate pad scaled_dot_product_attention"""
NN = """
  Module Parameter Linear Embedding LayerNorm RMSNorm BatchNorm1d BatchNorm2d GroupNorm Conv1d Conv2d ConvTranspose2d
  MaxPool2d AvgPool2d Dropout Flatten Tanh ReLU GELU SiLU Sigmoid Softmax Sequential ModuleList ModuleDict RNN GRU LSTM
  MultiheadAttention CrossEntropyLoss MSELoss init.normal_ init.uniform_ init.zeros_ init.ones_ init.kaiming_uniform_
  init.kaiming_normal_ init.xavier_uniform_ init.xavier_normal_ utils.clip_grad_norm_ Module.forward Module.parameters
  Module.named_parameters Module.children Module.modules Module.state_dict Module.load_state_dict
  Module.register_buffer Module.register_parameter Module.apply Module.train Module.eval Module.to Module.zero_grad"""
OPTIM = """
  SGD Adam AdamW Muon LAMB lr_scheduler.LambdaLR lr_scheduler.CosineAnnealingLR lr_scheduler.OneCycleLR
  lr_scheduler.StepLR lr_scheduler.LinearLR"""
DATA = "Dataset TensorDataset DataLoader RandomSampler random_split"
TENSOR = """
  view reshape permute transpose T t squeeze unsqueeze expand repeat split chunk flatten unflatten contiguous movedim
  flip sum mean var std max min argmax argmin prod any all logsumexp norm masked_fill masked_select tril triu topk sort
  argsort gather scatter_ scatter_add_ index_select cumsum backward grad retain_grad requires_grad requires_grad_ detach
  data item tolist numpy float half bfloat16 long int bool type to cpu cuda size shape ndim stride dtype device numel
  nelement is_floating_point copy_ clone add_ mul_ zero_ fill_ normal_ uniform_ __array__ __dlpack__ __buffer__"""

ROOTS = {"": MODULE, "nn.functional.": FUNCTIONAL, "nn.": NN, "optim.": OPTIM, "utils.data.": DATA, "Tensor.": TENSOR}
PATHS = [prefix + name for prefix, names in ROOTS.items() for name in names.split()]

def found(path):
  x = picograd
  for name in path.split("."): x = getattr(x, name) if not isinstance(x, type) else inherited(x, name)
  return x

def inherited(kind, name):
  """A member of a class as it is written there: a property is not asked for its value."""
  return next(vars(c)[name] for c in kind.__mro__ if name in vars(c))

@pytest.mark.parametrize("path", PATHS)
def test_every_name_exists_and_is_documented(path):
  if path == "Tensor.grad":                                            # an attribute: None until backward()
    assert picograd.tensor(1.0).grad is None
    return
  x = found(path)
  text = vars(x).get("__doc__") if isinstance(x, type) else x.__doc__
  assert text and len(text) > 3, f"{path} says nothing"

# ---- keywords --------------------------------------------------------------------------------------------------------

SPELLINGS = [
  "sum mean std var amax amin max min argmax argmin prod any all logsumexp norm softmax log_softmax cumsum sort argsort"
  " cumprod count_nonzero", "sum mean std var amax amin max min argmax argmin prod any all logsumexp norm"]

def plain(result): return [plain(r) for r in result] if isinstance(result, tuple) else result.tolist()

@pytest.mark.parametrize("name", SPELLINGS[0].split())
def test_axis_is_dim(name):
  x = picograd.tensor([[1.0, 5, 3], [4, 2, 6]])
  want = plain(getattr(x, name)(dim=1))
  assert plain(getattr(x, name)(axis=1)) == want
  if hasattr(picograd, name): assert plain(getattr(picograd, name)(x, axis=1)) == want == plain(
    getattr(picograd, name)(input=x, dim=1))

@pytest.mark.parametrize("name", SPELLINGS[1].split())
def test_keepdims_is_keepdim(name):
  x = picograd.tensor([[1.0, 5, 3], [4, 2, 6]])
  assert plain(getattr(x, name)(axis=1, keepdims=True)) == plain(getattr(x, name)(dim=1, keepdim=True))

def test_sizes_come_as_a_tuple_or_one_by_one():
  assert picograd.zeros(2, 3).shape == picograd.zeros((2, 3)).shape == picograd.zeros([2, 3]).size() == (2, 3)
  x = picograd.arange(6)
  for method in (x.view, x.reshape): assert method(2, 3).tolist() == method((2, 3)).tolist()
  y = x.reshape(2, 3)
  assert y.permute(1, 0).tolist() == y.permute((1, 0)).tolist() == y.T.tolist()
  assert y.expand(2, 2, 3).shape == y.expand((2, 2, 3)).shape and y.size(1) == y.shape[1] == 3
  assert picograd.cat([y, y], axis=1).shape == picograd.concat((y, y), dim=1).shape == (2, 6)
  assert picograd.stack([y, y], axis=2).shape == (2, 3, 2)

# ---- values that torch's database showed to be wrong once ------------------------------------------------------------

NAN, INF = float("nan"), float("inf")
@pytest.mark.parametrize("text, want", [
  ("arange(0.0, -8.000001, -4.0, dtype=lib.int64)", [0, -4]), ("arange(-0.9, 2.1, 2.0, dtype=lib.int64)", [0]),
  ("linspace(-2, 1, 5, dtype=lib.int64)", [-2, -1, 0, 0, 1]), ("linspace(lib.tensor(0), 10, 3)", [0.0, 5.0, 10.0]),
  ("tensor(7).gather(0, lib.tensor(0))", 7), ("tensor(7).scatter(0, lib.tensor(0), 3)", 3),
  ("tensor(7).index_select(0, lib.tensor([0]))", 7), ("tensor([1, 2]).gather(0, lib.zeros(2, 0).long()).shape", (2, 0)),
  ("tensor(5).masked_select(lib.tensor(True))", [5]), ("tensor([2, 3]).logsumexp(0).dtype", picograd.float32),
  ("zeros(1, 1).squeeze(()).shape", (1, 1)), ("rsub(lib.tensor([1, 2]), 10, alpha=2)", [8, 6]),
  ("nn.functional.pad(lib.arange(4).reshape(1, 1, 4), (-1, 1), 'circular')", [[[1, 2, 3, 1]]]),
  ("nn.functional.group_norm(lib.zeros(0, 4), 2).shape", (0, 4)),
  ("nn.functional.avg_pool2d(lib.arange(4).reshape(1, 2, 2), 2)", [[[1]]]),
  ("nn.functional.max_pool2d(lib.tensor([[[[1., 9], [3, 4]]]]), 2, return_indices=True)[1]", [[[[1]]]]),
  ("nn.functional.conv_transpose2d(lib.ones(1, 2, 2), lib.ones(1, 1, 1, 1)).shape", (1, 2, 2)),
  ("nn.functional.interpolate(lib.arange(4.).reshape(1, 1, 4), 2, mode='area')", [[[0.5, 2.5]]]),
  ("nn.functional.interpolate(lib.arange(4.).reshape(1, 1, 4), 2, mode='nearest-exact')", [[[1, 3]]]),
  ("zeros(3).norm(0.5)", 0.0), ("einsum('i,i', lib.ones(2).int(), lib.ones(2).int()).dtype", picograd.int32),
  ("tensor([1, 0], dtype=lib.uint8).any().dtype", picograd.uint8), ("tensor(1.0) // 0.1", 9.0),
  ("tensor([5.0, -5.0]) % float('inf')", [5.0, INF]), ("tensor([5.0, -5.0]) // float('inf')", [0.0, -1.0]),
  ("tensor([1.0, -1.0]) // 0.0", [INF, -INF]), ("tensor([13.0, -13.0]).bfloat16() % 1.0078125", [0.90625, 0.1015625]),
])
def test_value(text, want):
  got = eval("lib." + text, {"lib": picograd})
  assert (got.tolist() if isinstance(got, picograd.Tensor) else got) == want

def test_remainders_are_exact():
  """Of float32 as of exact numbers: the quotient is not rounded before it is cut."""
  rng = np.random.default_rng(0)
  x = np.concatenate([rng.uniform(-9, 9, 500), np.arange(1, 500)]).astype(np.float32)
  y = np.concatenate([rng.uniform(-3, 3, 500), np.full(499, 0.1)]).astype(np.float32)
  a, b = picograd.tensor(x), picograd.tensor(y)
  np.testing.assert_allclose(a.fmod(b).numpy(), np.fmod(x, y), rtol=1e-6)
  np.testing.assert_allclose((a % b).numpy(), np.remainder(x, y), rtol=1e-6)
  np.testing.assert_array_equal((a // b).numpy(), np.floor_divide(x, y))

def test_whole_quotients_have_no_slope():
  x, y = (picograd.tensor([1e10, 3.0], requires_grad=True) for _ in range(2))
  (x.div(y * 3, rounding_mode="trunc") + x // y + (x % 7.0) * 2).sum().backward()
  assert x.grad.tolist() == [2.0, 2.0] and y.grad.tolist() == [0.0, 0.0]

@pytest.mark.parametrize("base, exponent, by_base, by_exponent", [
  (-2.0, 3.0, 12.0, NAN), (-2.0, 0.5, NAN, NAN), (2.0, 3.0, 12.0, 8 * np.log(2)), (0.0, 2.0, 0.0, 0.0)])
def test_gradients_of_powers(base, exponent, by_base, by_exponent):
  x, y = (picograd.tensor(v, requires_grad=True) for v in (base, exponent))
  (x ** y).backward()
  np.testing.assert_allclose([x.grad.item(), y.grad.item()], [by_base, by_exponent], rtol=1e-5)

def test_gradients_of_norms_of_zeros_are_zero():
  for p in (0.5, 1, 2, 3, -1, float("inf")):
    x = picograd.zeros(3, requires_grad=True)
    x.norm(p).backward()
    assert x.grad.isfinite().all().item()

# ---- gradients in 16 bits --------------------------------------------------------------------------------------------

X = (3, 4)
POSITIVE = Uniform(X, 0.5, 2.0)
OPERATIONS = {
  "x * y + x / (y + 3)": (X, X), "x - y": (X, X), "x.maximum(y) + x.minimum(y)": (X, X), "x.abs().sqrt()": (POSITIVE,),
  "x ** 3 + x ** -2": (POSITIVE,), "x ** y": (POSITIVE, X), "x.exp() + x.exp2()": (X,), "x.expm1()": (X,),
  "x.log() + x.log2() + x.log10() + x.log1p()": (POSITIVE,), "x.sin() + x.cos()": (X,), "x.tan()": (Uniform(X, -1, 1),),
  "x.tanh() + x.sigmoid()": (X,), "x.sinh() + x.cosh()": (X,), "x.asin() + x.acos()": (Uniform(X, -.9, .9),),
  "x.atan()": (X,), "x.erf()": (X,), "x.rsqrt() + x.reciprocal()": (POSITIVE,), "x.relu() + x.clamp(-1, 1)": (X,),
  "x.sum(0) + x.mean(0)": (X,), "x.var(0)": (X,), "x.std(1)": (X,), "x.prod(1)": (POSITIVE,), "x.amax(1)": (X,),
  "x.max(0).values + x.min(0).values": (X,), "x.max()": (X,), "x.norm()": (X,), "x.logsumexp(1)": (X,),
  "x.softmax(1)": (X,), "x.log_softmax(1)": (X,), "x.cumsum(1)": (X,), "x.cumprod(1)": (POSITIVE,),
  "x @ y": (X, (4, 2)), "lib.einsum('ij,kj->ik', x, y)": (X, X), "lib.outer(x[0], y[0])": (X, X), "x.trace()": (X,),
  "x.permute(1, 0).reshape(2, 6)": (X,), "x.expand(2, 3, 4)": (X,), "x[1:, ::2]": (X,), "x[[0, 2, 0]]": (X,),
  "x.flip(0) * 2": (X,), "x.roll(1, 0) * x": (X,), "lib.cat([x, y], 1)": (X, X), "lib.stack([x, y])": (X, X),
  "x.gather(1, lib.tensor([[0, 1], [2, 2], [3, 0]]))": (X,), "x.tril() + x.triu()": (X,), "x.diagonal()": (X,),
  "x.scatter_add(1, lib.tensor([[0, 1], [2, 2], [3, 0]]), y)": (X, (3, 2)), "x.sort(1).values": (X,),
  "x.topk(2, 1).values": (X,), "lib.where(x > 0, x, y)": (X, X), "x.masked_fill(x > 0, 1.0)": (X,),
  "x.repeat(2, 2)": (X,),
  "x.lerp(y, 0.3)": (X, X), "F.gelu(x)": (X,), "F.gelu(x, approximate='tanh')": (X,), "F.silu(x)": (X,),
  "F.elu(x)": (X,),
  "F.softplus(x)": (X,), "F.leaky_relu(x)": (X,), "F.layer_norm(x, (4,))": (X,), "F.rms_norm(x, (4,))": (X,),
  "F.linear(x, y)": (X, (2, 4)), "F.mse_loss(x, y)": (X, X), "F.cross_entropy(x, lib.tensor([1, 0, 3]))": (X,),
  "F.nll_loss(x, lib.tensor([1, 0, 3]))": (X,), "F.binary_cross_entropy_with_logits(x, y)": (X, Uniform(X, 0, 1)),
  "F.embedding(lib.tensor([0, 2, 0]), x)": (X,), "F.conv1d(x, y)": ((1, 2, 6), (3, 2, 3)),
  "F.conv2d(x, y, padding=1)": ((1, 2, 4, 4), (3, 2, 3, 3)), "F.max_pool2d(x, 2)": ((1, 1, 4, 4),),
  "F.avg_pool2d(x, 2)": ((1, 1, 4, 4),), "F.group_norm(x, 2)": ((2, 4, 3),),
  "F.interpolate(x, scale_factor=2, mode='bilinear')": ((1, 1, 2, 2),), "F.pad(x, (1, 1), mode='reflect')": (X,),
  "F.scaled_dot_product_attention(x, y, z)": (X, X, X), "F.batch_norm(x, None, None, training=True)": ((4, 3),),
}

def gradients(text, dtype, arrays):
  """Of the weighted sum of the result, computed in dtype from inputs that dtype holds exactly, in float64."""
  tensors = [picograd.tensor(a).to(dtype).requires_grad_() for a in arrays]
  out = function_of(text)(picograd, *tensors)
  weights = picograd.tensor(weights_for(out.shape, 0)).to(picograd.bfloat16).to(dtype)
  (out * weights).sum().backward()
  return [t.grad.double().numpy() for t in tensors]

@pytest.mark.parametrize("name", ["float16", "bfloat16"])
@pytest.mark.parametrize("text", OPERATIONS)
def test_gradients_in_16_bits(text, name):
  """Within a few units in the last place of the largest gradient: each operation on the way rounds once."""
  dtype = getattr(picograd, name)
  case = Case(text, OPERATIONS[text])
  arrays = [picograd.tensor(a).to(dtype).float().numpy() for a in make_inputs(case)]
  got, want = (gradients(text, dt, arrays) for dt in (dtype, picograd.float64))
  unit = 2.0 ** -10 if name == "float16" else 2.0 ** -7
  for g, w in zip(got, want):
    assert np.isfinite(g).all()
    np.testing.assert_allclose(g, w, rtol=4 * unit, atol=4 * unit * max(1.0, np.abs(w).max()))
