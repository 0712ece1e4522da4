# nn against torch: values and gradients of every function, layers with torch's weights, names, texts and errors.
import itertools, math
import numpy as np
import pytest
import picograd
from picograd import nn
from picograd.nn import functional as F

torch = pytest.importorskip("torch")
TF = torch.nn.functional
rng = np.random.default_rng(0)

def uniform(*shape): return rng.uniform(-2, 2, shape).astype(np.float32)

def compare(function, reference, *arrays, atol=1e-5):
  """function on picograd tensors equals reference on torch's, and so do the gradients of a weighted sum."""
  ours = [picograd.tensor(a, requires_grad=a.dtype.kind == "f") for a in arrays]
  theirs = [torch.tensor(a, requires_grad=a.dtype.kind == "f") for a in arrays]
  out, expected = function(*ours), reference(*theirs)
  assert tuple(out.shape) == tuple(expected.shape)
  np.testing.assert_allclose(out.detach().numpy(), expected.detach().numpy(), atol=atol, rtol=1e-4)
  weights = uniform(*expected.shape)
  (out * picograd.tensor(weights)).sum().backward()
  (expected * torch.tensor(weights)).sum().backward()
  for a, b in zip(ours, theirs):
    if not a.requires_grad: continue
    expected_grad = np.zeros(a.shape) if b.grad is None else b.grad.numpy()
    np.testing.assert_allclose(a.grad.numpy(), expected_grad, atol=1e-4, rtol=1e-3)

# ---- functional ------------------------------------------------------------------------------------------------------

ACTIVATIONS = "relu sigmoid tanh silu softplus leaky_relu elu gelu logsigmoid".split()
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation(name): compare(getattr(F, name), getattr(TF, name), uniform(3, 7))

def test_gelu_tanh(): compare(lambda x: F.gelu(x, "tanh"), lambda x: TF.gelu(x, approximate="tanh"), uniform(3, 7))
def test_gelu_rejects_other_names():
  with pytest.raises(ValueError, match="approximate='fast'"): F.gelu(picograd.ones(2), "fast")

def test_erf_without_torch():
  x = np.linspace(-5, 5, 1001).astype(np.float32)
  expected = np.array([math.erf(v) for v in x.tolist()])
  assert np.abs(picograd.tensor(x).erf().numpy() - expected).max() < 2e-7

def test_large_inputs_have_finite_gradients():
  x = picograd.tensor([-1000.0, 1000.0], requires_grad=True)
  (F.elu(x) + F.softplus(x) + F.gelu(x) + F.silu(x)).sum().backward()
  assert np.isfinite(x.grad.numpy()).all()

def test_softmax():
  compare(lambda x: F.softmax(x, 0), lambda x: TF.softmax(x, 0), uniform(4, 5))
  compare(lambda x: F.log_softmax(x, -1), lambda x: TF.log_softmax(x, -1), uniform(4, 5))

CONVOLUTIONS = [  # stride, padding, dilation, groups, kernel
  (1, 0, 1, 1, (3, 3)), (2, 1, 1, 1, (3, 3)), (1, 2, 2, 2, (3, 3)), (3, 1, 1, 1, (2, 2)),
  (2, (1, 2), (2, 1), 2, (3, 2)),
  (1, "same", 2, 1, (2, 3)), (1, "valid", 1, 4, (3, 3)), (2, 0, 1, 1, (1, 1)), (4, 3, 3, 1, (3, 3))]
@pytest.mark.parametrize("stride,padding,dilation,groups,kernel", CONVOLUTIONS)
def test_conv2d(stride, padding, dilation, groups, kernel):
  arrays = uniform(2, 4, 9, 8), uniform(4, 4 // groups, *kernel), uniform(4)
  options = stride, padding, dilation, groups
  compare(lambda x, w, b: F.conv2d(x, w, b, *options), lambda x, w, b: TF.conv2d(x, w, b, *options), *arrays, atol=1e-4)

def test_conv2d_without_torch():
  x, w = uniform(1, 2, 5, 5), uniform(3, 2, 3, 3)
  views = np.lib.stride_tricks.sliding_window_view(x, (3, 3), (2, 3))                     # (1, 2, 3, 3, 3, 3)
  expected = np.einsum("nchwij,ocij->nohw", views, w)
  np.testing.assert_allclose(F.conv2d(picograd.tensor(x), picograd.tensor(w)).numpy(), expected, atol=1e-4)

def test_conv1d():
  compare(lambda x, w: F.conv1d(x, w, None, 2, 1, 1, 2), lambda x, w: TF.conv1d(x, w, None, 2, 1, 1, 2),
          uniform(2, 4, 9), uniform(6, 2, 3))

def test_conv_errors_name_the_shapes():
  with pytest.raises(RuntimeError, match="to have 4 channels, but got 3 channels"):
    F.conv2d(picograd.ones(1, 3, 5, 5), picograd.ones(2, 4, 3, 3))
  with pytest.raises(RuntimeError, match="Kernel size can't be greater"):
    F.conv2d(picograd.ones(1, 4, 2, 2), picograd.ones(2, 4, 3, 3))

TRANSPOSED = [(1, 0, 0, 1, 1), (2, 1, 1, 1, 1), (3, 0, 2, 2, 1), (2, 1, 0, 1, 2), (1, 2, 0, 1, 1)]
@pytest.mark.parametrize("options", TRANSPOSED)
def test_conv_transpose2d(options):
  arrays = uniform(2, 4, 5, 6), uniform(4, 3, 3, 2), uniform(3 * options[3])
  compare(lambda x, w, b: F.conv_transpose2d(x, w, b, *options),
          lambda x, w, b: TF.conv_transpose2d(x, w, b, *options), *arrays, atol=1e-4)

POOLS = [(2, None, 0, 1, False), (3, 2, 1, 1, False), (3, 2, 1, 1, True), ((3, 2), (2, 3), (1, 0), 2, True),
         (2, 3, 1, 1, True), (3, 1, 1, 2, False)]
@pytest.mark.parametrize("options", POOLS)
def test_max_pool2d(options):
  x = rng.integers(0, 4, (2, 3, 11, 10)).astype(np.float32)                              # many ties
  compare(lambda x: F.max_pool2d(x, *options), lambda x: TF.max_pool2d(x, *options), x)

AVERAGES = [(2, None, 0, False, True), (3, 2, 1, False, True), (3, 2, 1, True, True), (3, 2, 1, False, False),
            ((3, 2), (2, 3), (1, 0), True, False), (2, 3, 1, True, True)]
@pytest.mark.parametrize("options", AVERAGES)
def test_avg_pool2d(options):
  compare(lambda x: F.avg_pool2d(x, *options), lambda x: TF.avg_pool2d(x, *options), uniform(2, 3, 11, 10))

RESIZES = [{"size": (7, 13)}, {"scale_factor": 2}, {"scale_factor": 1.5}, {"size": (22, 5), "mode": "bilinear"},
           {"scale_factor": 2, "mode": "bilinear", "align_corners": True}, {"scale_factor": 1.5, "mode": "bilinear"}]
@pytest.mark.parametrize("options", RESIZES)
def test_interpolate(options):
  compare(lambda x: F.interpolate(x, **options), lambda x: TF.interpolate(x, **options), uniform(2, 3, 6, 5))

PADS = [((1, 2), "constant", 0), ((1, 2, 3, 0), "constant", 2.5), ((-1, 2, 0, -2), "constant", 1),
        ((1, 2, 3, 0), "reflect", None), ((1, 2, 3, 0), "replicate", None), ((1, 2, 3, 0), "circular", None)]
@pytest.mark.parametrize("widths,mode,value", PADS)
def test_pad(widths, mode, value):
  compare(lambda x: F.pad(x, widths, mode, value), lambda x: TF.pad(x, widths, mode, value), uniform(2, 3, 5, 4))

@pytest.mark.parametrize("shape,smoothing,weighted,ignored", list(itertools.product(
  [(6, 5), (2, 5, 3)], [0.0, 0.1], [False, True], [-100, 2])))
def test_cross_entropy(shape, smoothing, weighted, ignored):
  x, t, w = uniform(*shape), rng.integers(0, 5, (shape[0], *shape[2:])), np.abs(uniform(5)) + 0.1
  t[0] = 1                                                                                # not all are ignored
  def loss(module, function, reduction):
    return function(module.tensor(x), module.tensor(t), module.tensor(w) if weighted else None, ignore_index=ignored,
                    reduction=reduction, label_smoothing=smoothing).numpy()
  for reduction in ("mean", "sum", "none"):
    expected = loss(torch, TF.cross_entropy, reduction)
    np.testing.assert_allclose(loss(picograd, F.cross_entropy, reduction), expected, atol=1e-5, rtol=1e-4)

@pytest.mark.parametrize("shape", [(6, 5), (2, 5, 3), (5,)])
def test_cross_entropy_gradient(shape):
  t = rng.integers(0, 5, (shape[0], *shape[2:]) if len(shape) > 1 else ())
  compare(lambda x: F.cross_entropy(x, picograd.tensor(t), label_smoothing=0.1),
          lambda x: TF.cross_entropy(x, torch.tensor(t), label_smoothing=0.1), uniform(*shape))

def test_cross_entropy_without_torch():
  x, t = uniform(4, 3), np.array([0, 2, 1, 1])
  expected = (np.log(np.exp(x).sum(1)) - x[np.arange(4), t]).mean()
  assert F.cross_entropy(picograd.tensor(x), picograd.tensor(t)).item() == pytest.approx(expected, rel=1e-5)

def test_cross_entropy_of_probabilities():
  compare(lambda x, p: F.cross_entropy(x, p, label_smoothing=0.2),
          lambda x, p: TF.cross_entropy(x, p, label_smoothing=0.2), uniform(4, 5, 2), np.abs(uniform(4, 5, 2)))

def test_cross_entropy_of_an_unknown_class_is_nan():
  assert math.isnan(F.cross_entropy(picograd.zeros(2, 3), picograd.tensor([1, 3])).item())
def test_cross_entropy_names_shapes():
  with pytest.raises(ValueError, match=r"Expected target size \[2\], got \[3\]"):
    F.cross_entropy(picograd.zeros(2, 3), picograd.tensor([1, 1, 1]))

def test_other_losses():
  probabilities = rng.uniform(0.01, 0.99, (4, 3)).astype(np.float32), rng.uniform(0, 1, (4, 3)).astype(np.float32)
  compare(F.binary_cross_entropy, TF.binary_cross_entropy, *probabilities)
  compare(F.binary_cross_entropy_with_logits, TF.binary_cross_entropy_with_logits, uniform(4, 3), probabilities[1])
  for name in ("mse_loss", "l1_loss"): compare(getattr(F, name), getattr(TF, name), uniform(4, 3), uniform(4, 3))
  logp = np.log(probabilities[0])
  target = np.array([0, 2, 1, 1])
  compare(lambda x: F.nll_loss(x, picograd.tensor(target)), lambda x: TF.nll_loss(x, torch.tensor(target)), logp)

def test_norms():
  x, w, b = uniform(4, 6, 5), uniform(6), uniform(6)
  compare(lambda x, w, b: F.group_norm(x, 3, w, b), lambda x, w, b: TF.group_norm(x, 3, w, b), x, w, b)
  compare(lambda x: F.layer_norm(x, (6, 5)), lambda x: TF.layer_norm(x, (6, 5)), x)
  compare(lambda x, w: F.rms_norm(x, (5,), w), lambda x, w: TF.rms_norm(x, (5,), w), x, uniform(5))
  with pytest.raises(RuntimeError, match=r"normalized_shape=\[4\]"): F.layer_norm(picograd.tensor(x), (4,))

@pytest.mark.parametrize("training", [True, False])
def test_batch_norm(training):
  mean, var = uniform(6), np.abs(uniform(6)) + 1
  ours, theirs = [picograd.tensor(mean), picograd.tensor(var)], [torch.tensor(mean), torch.tensor(var)]
  compare(lambda x, w, b: F.batch_norm(x, *ours, w, b, training),
          lambda x, w, b: TF.batch_norm(x, *theirs, w, b, training), uniform(4, 6, 5), uniform(6), uniform(6))
  for a, e in zip(ours, theirs): np.testing.assert_allclose(a.numpy(), e.numpy(), atol=1e-5)

def test_embedding_and_one_hot():
  index = np.array([[1, 2, 0], [6, 2, 2]])
  ours, theirs = picograd.tensor(index), torch.tensor(index)
  compare(lambda w: F.embedding(ours, w), lambda w: TF.embedding(theirs, w), uniform(7, 3))
  compare(lambda w: F.embedding(ours, w, 2), lambda w: TF.embedding(theirs, w, 2), uniform(7, 3))
  assert np.array_equal(F.one_hot(picograd.tensor(index)).numpy(), TF.one_hot(torch.tensor(index)).numpy())

def test_dropout():
  picograd.manual_seed(0)
  x = picograd.ones(100, 100, requires_grad=True)
  out = F.dropout(x, 0.25)
  out.sum().backward()
  values = out.detach().numpy()
  assert set(np.unique(values).tolist()) == {0.0, np.float32(1 / 0.75)}
  assert abs((values == 0).mean() - 0.25) < 0.02
  assert np.array_equal(values, x.grad.numpy())                                          # the same mask backwards
  assert F.dropout(x, 0.5, training=False) is x
  with pytest.raises(ValueError, match="between 0 and 1, but got 2"): F.dropout(x, 2)

@pytest.mark.parametrize("options", [{}, {"is_causal": True}, {"scale": 0.3}])
def test_attention(options):
  arrays = uniform(2, 4, 5, 8), uniform(2, 2, 7, 8), uniform(2, 2, 7, 6)
  compare(lambda q, k, v: F.scaled_dot_product_attention(q, k, v, enable_gqa=True, **options),
          lambda q, k, v: TF.scaled_dot_product_attention(q, k, v, enable_gqa=True, **options), *arrays)

@pytest.mark.parametrize("kept", [True, False])
def test_attention_masks(kept):
  mask = (rng.random((5, 7)) > 0.3) | (np.arange(7) == 0) if kept else uniform(5, 7)
  compare(lambda q, k, v: F.scaled_dot_product_attention(q, k, v, picograd.tensor(mask)),
          lambda q, k, v: TF.scaled_dot_product_attention(q, k, v, torch.tensor(mask)),
          uniform(2, 4, 5, 8), uniform(2, 4, 7, 8), uniform(2, 4, 7, 6))

# ---- layers ----------------------------------------------------------------------------------------------------------

def with_weights_of(ours, theirs):
  ours.load_state_dict({name: picograd.tensor(value.numpy()) for name, value in theirs.state_dict().items()})
  return ours

def same(a, b):
  if isinstance(a, tuple): return [same(x, y) for x, y in zip(a, b, strict=True)]
  if b is None: assert a is None
  else: np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), atol=1e-5, rtol=1e-4)

def check_layer(make, *inputs):
  theirs = make(torch.nn)
  ours = make(nn)
  assert list(ours.state_dict()) == list(theirs.state_dict())
  assert [(n, tuple(p.shape)) for n, p in ours.named_parameters()] == \
         [(n, tuple(p.shape)) for n, p in theirs.named_parameters()]
  with_weights_of(ours, theirs)
  for training in (True, False):
    ours.train(training), theirs.train(training)
    same(ours(*map(picograd.tensor, inputs)), theirs(*map(torch.tensor, inputs)))
  for name, value in theirs.state_dict().items():
    np.testing.assert_allclose(ours.state_dict()[name].numpy(), value.numpy(), atol=1e-5)
  return ours, theirs

def test_mlp_layers():
  ours, theirs = check_layer(lambda n: n.Sequential(n.Linear(4, 5), n.ReLU(), n.Linear(5, 3, bias=False), n.Tanh(),
                                                    n.GELU(), n.SiLU(), n.Sigmoid(), n.Softmax(dim=-1)), uniform(2, 4))
  assert repr(ours) == repr(theirs)

def test_image_layers():
  check_layer(lambda n: n.Sequential(n.Conv2d(3, 4, 3, padding=1, bias=False), n.BatchNorm2d(4), n.MaxPool2d(2),
                                     n.ConvTranspose2d(4, 2, 3, stride=2, output_padding=1), n.AvgPool2d(2),
                                     n.GroupNorm(1, 2), n.Flatten(), n.Dropout(0.0)), uniform(2, 3, 8, 8))
def test_norm_layers():
  for make in (lambda n: n.BatchNorm1d(4), lambda n: n.BatchNorm1d(4, momentum=None), lambda n: n.LayerNorm(4),
               lambda n: n.RMSNorm(4)): check_layer(make, uniform(5, 4))
def test_embedding_layer(): check_layer(lambda n: n.Embedding(7, 3), np.array([[1, 2]]))
def test_conv1d_layer():
  check_layer(lambda n: n.Conv1d(4, 4, 3, groups=2, dilation=2, padding="same"), uniform(2, 4, 9))

@pytest.mark.parametrize("name", ["RNN", "GRU", "LSTM"])
def test_recurrent_layers(name):
  check_layer(lambda n: getattr(n, name)(3, 4, num_layers=2, bidirectional=True), uniform(5, 2, 3))
  ours, theirs = check_layer(lambda n: getattr(n, name)(3, 4, batch_first=True, bias=False), uniform(5, 2, 3))
  assert repr(ours) == repr(theirs)
  check_layer(lambda n: getattr(n, name)(3, 4), uniform(5, 3))

@pytest.mark.parametrize("name", ["RNNCell", "GRUCell"])
def test_cells(name): check_layer(lambda n: getattr(n, name)(3, 4), uniform(2, 3), uniform(2, 4))
def test_lstm_cell_without_state(): check_layer(lambda n: n.LSTMCell(3, 4), uniform(2, 3))

def test_multihead_attention():
  x = uniform(5, 2, 8)
  ours, theirs = check_layer(lambda n: n.MultiheadAttention(8, 2), x, x, x)
  mask = np.triu(np.ones((5, 5), bool), 1)
  q, t = picograd.tensor(x), torch.tensor(x)
  for needed in (True, False):
    same(ours(q, q, q, attn_mask=picograd.tensor(mask), need_weights=needed),
         theirs(t, t, t, attn_mask=torch.tensor(mask), need_weights=needed))
  padding = np.array([[False] * 5, [True] * 2 + [False] * 3])
  x = uniform(2, 5, 8)
  check_layer(lambda n: n.MultiheadAttention(8, 2, batch_first=True), uniform(2, 3, 8), x, x, padding)

def test_loss_layers():
  x, t = uniform(4, 3), np.array([0, 1, 2, 1])
  same(nn.CrossEntropyLoss(label_smoothing=0.1)(picograd.tensor(x), picograd.tensor(t)),
       torch.nn.CrossEntropyLoss(label_smoothing=0.1)(torch.tensor(x), torch.tensor(t)))
  same(nn.MSELoss(reduction="sum")(picograd.tensor(x), picograd.tensor(x * 2)),
       torch.nn.MSELoss(reduction="sum")(torch.tensor(x), torch.tensor(x * 2)))

# ---- Module ----------------------------------------------------------------------------------------------------------

class Net(nn.Module):
  def __init__(self):
    super().__init__()
    self.embed = nn.Embedding(5, 3)
    self.blocks = nn.ModuleList([nn.Linear(3, 3) for _ in range(2)])
    self.named = nn.ModuleDict({"x": nn.Linear(3, 2)})
    self.head = nn.Linear(3, 5, bias=False)
    self.head.weight = self.embed.weight
    self.register_buffer("steps", picograd.zeros(1))
    self.register_buffer("scratch", picograd.zeros(1), persistent=False)
    self.note = "plain"

def test_module_tree():
  net = Net()
  names = ["embed.weight", "blocks.0.weight", "blocks.0.bias", "blocks.1.weight", "blocks.1.bias", "named.x.weight",
           "named.x.bias"]
  assert [name for name, _ in net.named_parameters()] == names                           # the tied weight once
  assert list(net.state_dict()) == ["steps", *names, "head.weight"]                      # but saved under both names
  assert [name for name, _ in net.named_buffers()] == ["steps", "scratch"]
  assert len(list(net.modules())) == 8 and [n for n, _ in net.named_children()] == ["embed", "blocks", "named", "head"]
  assert not any(m.training for m in net.eval().modules())
  visited = []
  net.apply(lambda m: visited.append(type(m).__name__))
  assert visited[-1] == "Net" and len(visited) == 8
  with pytest.raises(AttributeError, match="'Net' object has no attribute 'nothing'"): net.nothing
  with pytest.raises(TypeError, match="cannot assign 'int' as parameter 'weight'"): net.head.weight = 3
  del net.head
  assert not hasattr(net, "head")

def test_assignment_before_init_is_an_error():
  class Early(nn.Module):
    def __init__(self): self.layer = nn.Linear(2, 2)
  with pytest.raises(AttributeError, match="before Module.__init__"): Early()

def test_load_state_dict_reports_everything():
  net = Net()
  state = {**net.state_dict(), "extra": picograd.ones(1), "steps": picograd.ones(3)}
  del state["blocks.0.bias"]
  with pytest.raises(RuntimeError) as error: net.load_state_dict(state)
  assert str(error.value).split("\n\t") == [
    "Error(s) in loading state_dict for Net:", 'Missing key(s) in state_dict: "blocks.0.bias". ',
    'Unexpected key(s) in state_dict: "extra". ', "size mismatch for steps: copying a param with shape (3,) from "
    "checkpoint, the shape in current model is (1,)."]
  del state["steps"]
  result = net.load_state_dict(state, strict=False)
  assert result.missing_keys == ["steps", "blocks.0.bias"] and result.unexpected_keys == ["extra"]

def test_load_state_dict_keeps_the_parameters():
  source, target = nn.Linear(3, 2), nn.Linear(3, 2)
  before = list(target.parameters())
  target.load_state_dict(source.state_dict())
  assert all(a is b for a, b in zip(before, target.parameters()))
  assert np.array_equal(target.weight.detach().numpy(), source.weight.detach().numpy()) and target.weight.requires_grad

def test_load_state_dict_can_share_the_memory():
  state = {"weight": picograd.ones(2, 3).half(), "bias": picograd.zeros(2).half()}
  layer = nn.Linear(3, 2)
  before = list(layer.parameters())
  layer.load_state_dict(state, assign=True)
  assert all(a is b for a, b in zip(before, layer.parameters()))
  state["weight"][0] = 5
  assert np.array_equal(layer.weight.detach().numpy(), [[5] * 3, [1] * 3])
  assert layer.weight.dtype is picograd.float16 and layer.weight.requires_grad

def test_module_to_changes_floats_only():
  layer = nn.BatchNorm1d(3).to(picograd.bfloat16)
  assert layer.weight.dtype is picograd.bfloat16 and layer.num_batches_tracked.dtype is picograd.int64
  assert layer.half().weight.dtype is picograd.float16 and layer.weight.requires_grad

def test_zero_grad():
  layer = nn.Linear(3, 2)
  layer(picograd.ones(1, 3)).sum().backward()
  layer.zero_grad(set_to_none=False)
  assert not layer.weight.grad.numpy().any()
  layer.zero_grad()
  assert layer.weight.grad is None

def test_default_initialisation_has_torchs_spread():
  layers = {"Linear": (64, 300), "Conv2d": (16, 64, 3), "Embedding": (500, 40), "LSTMCell": (40, 80)}
  for name, arguments in layers.items():
    for (_, ours), (_, theirs) in zip(getattr(nn, name)(*arguments).named_parameters(),
                                      getattr(torch.nn, name)(*arguments).named_parameters()):
      a, b = ours.detach().numpy(), theirs.detach().numpy()
      assert abs(a.std() / b.std() - 1) < 0.2
      if name != "Embedding": assert abs(np.abs(a).max() / np.abs(b).max() - 1) < 0.1

def test_init_functions():
  w = picograd.empty(200, 300)
  for name, bound in (("kaiming_uniform_", math.sqrt(6 / 300)), ("xavier_uniform_", math.sqrt(6 / 500))):
    values = getattr(nn.init, name)(w).numpy()
    assert 0.99 * bound < np.abs(values).max() <= bound
  for name, std in (("kaiming_normal_", math.sqrt(2 / 300)), ("xavier_normal_", math.sqrt(2 / 500)), ("normal_", 1.0)):
    assert getattr(nn.init, name)(w).numpy().std() == pytest.approx(std, rel=0.02)
  assert nn.init.ones_(w).numpy().all() and not nn.init.zeros_(w).numpy().any()
  with pytest.raises(ValueError, match="fewer than 2 dimensions"): nn.init.xavier_normal_(picograd.empty(3))

@pytest.mark.parametrize("kind", [2.0, 1.0, math.inf])
def test_clip_grad_norm(kind):
  arrays = [uniform(3, 4), uniform(5)]
  ours, theirs = [picograd.zeros(a.shape, requires_grad=True) for a in arrays], [torch.zeros(a.shape) for a in arrays]
  for p, q, a in zip(ours, theirs, arrays): p.grad, q.grad = picograd.tensor(a), torch.tensor(a)
  norms = nn.utils.clip_grad_norm_(ours, 1.5, kind), torch.nn.utils.clip_grad_norm_(theirs, 1.5, kind)
  assert norms[0].item() == pytest.approx(norms[1].item(), rel=1e-5)
  for p, q in zip(ours, theirs): np.testing.assert_allclose(p.grad.numpy(), q.grad.numpy(), rtol=1e-5)

@pytest.mark.parametrize("name", ["softplus", "logsigmoid"])
def test_gradient_at_zero_is_half(name):
  x = picograd.zeros(3, requires_grad=True)
  getattr(F, name)(x).sum().backward()
  assert x.grad.tolist() == [0.5] * 3

def test_gradient_of_a_logit_of_zero():
  x = picograd.zeros(2, requires_grad=True)
  F.binary_cross_entropy_with_logits(x, picograd.tensor([0.0, 1.0]), reduction="sum").backward()
  assert x.grad.tolist() == [0.5, -0.5]
