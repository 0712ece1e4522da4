# nn: torch.nn on top of Tensor. Layers hold parameters and call nn.functional; all take device= and dtype= for their
# parameters: `**kind` below. Module, Parameter and the containers are in module.py.
from __future__ import annotations
import math
from typing import Any, Mapping, Sequence
from picograd.dtype import dtypes
from picograd.nn import functional, init
from picograd.nn import utils as utils
from picograd.nn.functional import Ints, as_tuple
from picograd.nn.module import Module, ModuleDict as ModuleDict, ModuleList as ModuleList, Parameter
from picograd.nn.module import Sequential as Sequential
from picograd.library import Tensor, cat, no_grad, ones, stack, zeros

F = functional

# ---- layers with weights ---------------------------------------------------------------------------------------------

def new_parameter(*shape: int, **kind: Any) -> Parameter: return Parameter(zeros(*shape, **kind))
def uniform_parameter(bound: float, *shape: int, **kind: Any) -> Parameter:
  """Uniform in +-bound."""
  p = new_parameter(*shape, **kind)
  init.uniform_(p, -bound, bound)
  return p

class Identity(Module):
  def forward(self, input: Tensor) -> Tensor: return input

class Linear(Module):
  """(..., in_features) -> (..., out_features)."""
  def __init__(self, in_features: int, out_features: int, bias: bool = True, **kind: Any):
    super().__init__()
    self.in_features, self.out_features = in_features, out_features
    bound = 1 / math.sqrt(max(1, in_features))                       # kaiming_uniform with a=sqrt(5)
    self.weight = uniform_parameter(bound, out_features, in_features, **kind)
    self.bias = uniform_parameter(bound, out_features, **kind) if bias else None
  def forward(self, input: Tensor) -> Tensor: return F.linear(input, self.weight, self.bias)
  def extra_repr(self) -> str:
    return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"

class Embedding(Module):
  """Indices (...) -> (..., embedding_dim). The row padding_idx starts as zeros and gets no gradient."""
  def __init__(self, num_embeddings: int, embedding_dim: int, padding_idx: int | None = None, **kind: Any):
    super().__init__()
    self.num_embeddings, self.embedding_dim, self.padding_idx = num_embeddings, embedding_dim, padding_idx
    self.weight = new_parameter(num_embeddings, embedding_dim, **kind)
    init.normal_(self.weight)
    if padding_idx is not None:
      with no_grad(): self.weight[padding_idx] = 0.0
  def forward(self, input: Tensor) -> Tensor: return F.embedding(input, self.weight, self.padding_idx)
  def extra_repr(self) -> str: return f"{self.num_embeddings}, {self.embedding_dim}"

class LayerNorm(Module):
  """Standardises over the trailing dimensions normalized_shape."""
  def __init__(self, normalized_shape: Ints, eps: float = 1e-5, elementwise_affine: bool = True, bias: bool = True,
               **kind: Any):
    super().__init__()
    sizes = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
    self.normalized_shape, self.eps, self.elementwise_affine = sizes, eps, elementwise_affine
    self.weight, self.bias = scale_and_shift(elementwise_affine, bias, sizes, kind)
  def forward(self, input: Tensor) -> Tensor:
    return F.layer_norm(input, self.normalized_shape, self.weight, self.bias, self.eps)
  def extra_repr(self) -> str:
    return f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}"

def scale_and_shift(scaled: bool, shifted: bool, shape: Sequence[int], kind: Mapping[str, Any]) -> tuple[Any, Any]:
  """(weight of ones, bias of zeros); None for what is not wanted."""
  weight = Parameter(ones(*shape, **kind)) if scaled else None
  return weight, new_parameter(*shape, **kind) if scaled and shifted else None

class RMSNorm(Module):
  """Divides by the root mean square over the trailing dimensions normalized_shape."""
  def __init__(self, normalized_shape: Ints, eps: float | None = None, elementwise_affine: bool = True,
               **kind: Any):
    super().__init__()
    self.normalized_shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
    self.eps, self.elementwise_affine = eps, elementwise_affine
    self.weight, _ = scale_and_shift(elementwise_affine, False, self.normalized_shape, kind)
  def forward(self, input: Tensor) -> Tensor: return F.rms_norm(input, self.normalized_shape, self.weight, self.eps)
  def extra_repr(self) -> str:
    return f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}"

class GroupNorm(Module):
  """(N, C, ...) standardised per group of channels."""
  def __init__(self, num_groups: int, num_channels: int, eps: float = 1e-5, affine: bool = True, **kind: Any):
    super().__init__()
    if num_channels % num_groups: raise ValueError("num_channels must be divisible by num_groups")
    self.num_groups, self.num_channels, self.eps, self.affine = num_groups, num_channels, eps, affine
    self.weight, self.bias = scale_and_shift(affine, affine, (num_channels,), kind)
  def forward(self, input: Tensor) -> Tensor:
    return F.group_norm(input, self.num_groups, self.weight, self.bias, self.eps)
  def extra_repr(self) -> str: return f"{self.num_groups}, {self.num_channels}, eps={self.eps}, affine={self.affine}"

class BatchNorm(Module):
  """(N, C, ...) standardised per channel by the batch, in eval mode by the running statistics. momentum=None averages
  over all batches seen."""
  ranks: tuple[int, ...] = ()

  def __init__(self, num_features: int, eps: float = 1e-5, momentum: float | None = 0.1, affine: bool = True,
               track_running_stats: bool = True, **kind: Any):
    super().__init__()
    self.num_features, self.eps, self.momentum, self.affine = num_features, eps, momentum, affine
    self.track_running_stats = track_running_stats
    self.weight, self.bias = scale_and_shift(affine, affine, (num_features,), kind)
    tracked = track_running_stats
    self.register_buffer("running_mean", zeros(num_features, **kind) if tracked else None)
    self.register_buffer("running_var", ones(num_features, **kind) if tracked else None)
    self.register_buffer("num_batches_tracked", zeros((), **{**kind, "dtype": dtypes.int64}) if tracked else None)

  def forward(self, input: Tensor) -> Tensor:
    if input.ndim not in self.ranks:
      raise ValueError(f"expected {'D or '.join(map(str, self.ranks))}D input (got {input.ndim}D input)")
    momentum: Any = self.momentum
    if self.training and self.track_running_stats:
      with no_grad(): self.num_batches_tracked.add_(1)
      if momentum is None: momentum = 1 / self.num_batches_tracked.float()
    return F.batch_norm(input, self.running_mean, self.running_var, self.weight, self.bias,
                        self.training or not self.track_running_stats, momentum, self.eps)

  def extra_repr(self) -> str:
    return (f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}, "
            f"track_running_stats={self.track_running_stats}")

class BatchNorm1d(BatchNorm):
  """(N, C) or (N, C, L), normalised per channel: see functional.batch_norm."""
  ranks = (2, 3)
class BatchNorm2d(BatchNorm):
  """(N, C, H, W), normalised per channel: see functional.batch_norm."""
  ranks = (4,)

class ConvNd(Module):
  """The parameters that every convolution has."""
  dimensions = 2
  transposed = False

  def __init__(self, in_channels: int, out_channels: int, kernel_size: Ints, stride: Ints = 1, padding: Ints | str = 0,
               dilation: Ints = 1, groups: int = 1, bias: bool = True, **kind: Any):
    super().__init__()
    if in_channels % groups: raise ValueError("in_channels must be divisible by groups")
    if out_channels % groups: raise ValueError("out_channels must be divisible by groups")
    self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
    self.kernel_size = as_tuple(kernel_size, self.dimensions, "kernel_size")
    self.stride = as_tuple(stride, self.dimensions, "stride")
    self.dilation = as_tuple(dilation, self.dimensions, "dilation")
    self.padding = padding if isinstance(padding, str) else as_tuple(padding, self.dimensions, "padding")
    rows, columns = (in_channels, out_channels) if self.transposed else (out_channels, in_channels)
    shape = (rows, columns // groups, *self.kernel_size)
    bound = 1 / math.sqrt(math.prod(shape[1:]))                      # kaiming_uniform with a=sqrt(5)
    self.weight = uniform_parameter(bound, *shape, **kind)
    self.bias = uniform_parameter(bound, out_channels, **kind) if bias else None

  def extra_repr(self) -> str:
    text = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"
    nothing = (0,) * self.dimensions
    if self.padding != nothing: text += f", padding={self.padding}"
    if self.dilation != (1,) * self.dimensions: text += f", dilation={self.dilation}"
    if getattr(self, "output_padding", nothing) != nothing: text += f", output_padding={self.output_padding}"
    if self.groups != 1: text += f", groups={self.groups}"
    return text if self.bias is not None else text + ", bias=False"

class Conv1d(ConvNd):
  """(N, C, L) -> (N, out_channels, L')."""
  dimensions = 1
  def forward(self, input: Tensor) -> Tensor:
    return F.conv1d(input, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)

class Conv2d(ConvNd):
  """(N, C, H, W) -> (N, out_channels, H', W')."""
  def forward(self, input: Tensor) -> Tensor:
    return F.conv2d(input, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)

class ConvTranspose2d(ConvNd):
  """(N, C, H, W) -> (N, out_channels, H', W'), H' = (H-1)*stride - 2*padding + dilation*(k-1) + output_padding + 1."""
  transposed = True
  padding: tuple[int, ...]
  def __init__(self, in_channels: int, out_channels: int, kernel_size: Ints, stride: Ints = 1, padding: Ints = 0,
               output_padding: Ints = 0, groups: int = 1, bias: bool = True, dilation: Ints = 1, **kind: Any):
    super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, **kind)
    self.output_padding = as_tuple(output_padding, 2, "output_padding")
  def forward(self, input: Tensor) -> Tensor:
    return F.conv_transpose2d(input, self.weight, self.bias, self.stride, self.padding, self.output_padding,
                              self.groups, self.dilation)

# ---- layers without weights ------------------------------------------------------------------------------------------

class Options(Module):
  """A layer that is a function with fixed keyword arguments."""
  def __init__(self, **options: Any):
    super().__init__()
    for name, value in options.items(): setattr(self, name, value)
    self.names = tuple(options)
  def options(self) -> dict[str, Any]: return {name: getattr(self, name) for name in self.names}
  def extra_repr(self) -> str: return ", ".join(f"{name}={value!r}" for name, value in self.options().items())

class MaxPool2d(Options):
  """The maximum of each window: see functional.max_pool2d."""
  def __init__(self, kernel_size: Ints, stride: Ints | None = None, padding: Ints = 0, dilation: Ints = 1,
               ceil_mode: bool = False):
    super().__init__(kernel_size=kernel_size, stride=kernel_size if stride is None else stride, padding=padding,
                     dilation=dilation, ceil_mode=ceil_mode)
  def forward(self, input: Tensor) -> Tensor: return F.max_pool2d(input, **self.options())

class AvgPool2d(Options):
  """The mean of each window: see functional.avg_pool2d."""
  def __init__(self, kernel_size: Ints, stride: Ints | None = None, padding: Ints = 0, ceil_mode: bool = False,
               count_include_pad: bool = True, divisor_override: int | None = None):
    super().__init__(kernel_size=kernel_size, stride=kernel_size if stride is None else stride, padding=padding)
    self.rest: dict[str, Any] = {"ceil_mode": ceil_mode, "count_include_pad": count_include_pad,
                                 "divisor_override": divisor_override}
  def forward(self, input: Tensor) -> Tensor: return F.avg_pool2d(input, **self.options(), **self.rest)

class Dropout(Options):
  """Zeroes elements with probability p in training."""
  def __init__(self, p: float = 0.5, inplace: bool = False):
    if not 0 <= p <= 1: raise ValueError(f"dropout probability has to be between 0 and 1, but got {p}")
    super().__init__(p=p, inplace=inplace)
  def forward(self, input: Tensor) -> Tensor: return F.dropout(input, self.p, self.training)

class Flatten(Options):
  """The dimensions from start_dim to end_dim as one: (N, ..) -> (N, *)."""
  def __init__(self, start_dim: int = 1, end_dim: int = -1): super().__init__(start_dim=start_dim, end_dim=end_dim)
  def forward(self, input: Tensor) -> Tensor: return input.flatten(self.start_dim, self.end_dim)

class Tanh(Module):
  """tanh(x)"""
  def forward(self, input: Tensor) -> Tensor: return F.tanh(input)
class Sigmoid(Module):
  """1/(1 + e^-x)"""
  def forward(self, input: Tensor) -> Tensor: return F.sigmoid(input)
class ReLU(Module):
  """max(x, 0)"""
  def __init__(self, inplace: bool = False): super().__init__()
  def forward(self, input: Tensor) -> Tensor: return F.relu(input)
class SiLU(Module):
  """x * sigmoid(x)"""
  def __init__(self, inplace: bool = False): super().__init__()
  def forward(self, input: Tensor) -> Tensor: return F.silu(input)
class GELU(Options):
  """x * Phi(x): see functional.gelu."""
  def __init__(self, approximate: str = "none"): super().__init__(approximate=approximate)
  def forward(self, input: Tensor) -> Tensor: return F.gelu(input, self.approximate)
class LeakyReLU(Options):
  """x where x > 0, else x * negative_slope."""
  def __init__(self, negative_slope: float = 0.01, inplace: bool = False):
    super().__init__(negative_slope=negative_slope)
  def forward(self, input: Tensor) -> Tensor: return F.leaky_relu(input, self.negative_slope)
class Softmax(Options):
  """exp(x) / sum(exp(x)) along dim."""
  def __init__(self, dim: int = -1): super().__init__(dim=dim)
  def forward(self, input: Tensor) -> Tensor: return F.softmax(input, self.dim)

class MSELoss(Module):
  """The mean squared distance: see functional.mse_loss."""
  def __init__(self, reduction: str = "mean"):
    super().__init__()
    self.reduction = reduction
  def forward(self, input: Tensor, target: Tensor) -> Tensor: return F.mse_loss(input, target, self.reduction)

class CrossEntropyLoss(Module):
  """See functional.cross_entropy."""
  def __init__(self, weight: Tensor | None = None, ignore_index: int = -100, reduction: str = "mean",
               label_smoothing: float = 0.0):
    super().__init__()
    self.register_buffer("weight", weight)
    self.ignore_index, self.reduction, self.label_smoothing = ignore_index, reduction, label_smoothing
  def forward(self, input: Tensor, target: Tensor) -> Tensor:
    return F.cross_entropy(input, target, self.weight, self.ignore_index, self.reduction, self.label_smoothing)

# ---- recurrent layers ------------------------------------------------------------------------------------------------

Gates = tuple[Tensor, ...]              # an LSTM's state is (h, c), the others' (h,); each (N, hidden_size)

def tanh_step(gates: Tensor, hidden: Tensor, state: Gates) -> Gates: return ((gates + hidden).tanh(),)
def relu_step(gates: Tensor, hidden: Tensor, state: Gates) -> Gates: return ((gates + hidden).relu(),)

def gru_step(gates: Tensor, hidden: Tensor, state: Gates) -> Gates:
  """h' = (1-z)*n + z*h; the reset gate r acts on the hidden part of n."""
  xr, xz, xn = gates.chunk(3, -1)
  hr, hz, hn = hidden.chunk(3, -1)
  z = (xz + hz).sigmoid()
  n = (xn + (xr + hr).sigmoid() * hn).tanh()
  return ((1 - z) * n + z * state[0],)

def lstm_step(gates: Tensor, hidden: Tensor, state: Gates) -> Gates:
  """c' = f*c + i*g, h' = o*tanh(c')."""
  i, f, g, o = (gates + hidden).chunk(4, -1)
  c = f.sigmoid() * state[1] + i.sigmoid() * g.tanh()
  return o.sigmoid() * c.tanh(), c

class Recurrent(Module):
  """What cells and layers share: one step function, the number of its gates and of its states."""
  gates, states = 1, 1
  hidden_size: int
  def step(self, gates: Tensor, hidden: Tensor, state: Gates) -> Gates:
    """The next state from the gates' parts due to the input and to the hidden state, each (N, gates * hidden_size)."""
    raise NotImplementedError
  def add_weights(self, suffix: str, inputs: int, hidden: int, bias: bool, kind: Mapping[str, Any]) -> None:
    bound, rows = 1 / math.sqrt(hidden), self.gates * hidden
    shapes = {"weight_ih": (rows, inputs), "weight_hh": (rows, hidden), "bias_ih": (rows,), "bias_hh": (rows,)}
    for name, shape in shapes.items():
      wanted = bias or name.startswith("weight")
      p = uniform_parameter(bound, *shape, **kind) if wanted else None
      self.register_parameter(name + suffix, p)
  def blank(self, like: Tensor, *sizes: int) -> Gates:
    """The state before the first step: zeros (*sizes, hidden_size)."""
    return (zeros(*sizes, self.hidden_size, dtype=like.dtype, device=like.device),) * self.states
  def packed(self, state: Any) -> Gates: return tuple(state) if self.states > 1 else (state,)
  def unpacked(self, state: Gates) -> Any: return state if self.states > 1 else state[0]

class TanhSteps(Recurrent):
  nonlinearity = "tanh"
  def step(self, gates: Tensor, hidden: Tensor, state: Gates) -> Gates:
    return (tanh_step if self.nonlinearity == "tanh" else relu_step)(gates, hidden, state)
class GRUSteps(Recurrent):
  gates = 3
  def step(self, gates: Tensor, hidden: Tensor, state: Gates) -> Gates: return gru_step(gates, hidden, state)
class LSTMSteps(Recurrent):
  gates, states = 4, 2
  def step(self, gates: Tensor, hidden: Tensor, state: Gates) -> Gates: return lstm_step(gates, hidden, state)

class Cell(Recurrent):
  """One step: input (N, input_size) and a state (zeros by default) -> the next state."""
  def __init__(self, input_size: int, hidden_size: int, bias: bool = True, **kind: Any):
    super().__init__()
    self.input_size, self.hidden_size = input_size, hidden_size
    self.add_weights("", input_size, hidden_size, bias, kind)
  def forward(self, input: Tensor, hx: Any = None) -> Any:
    state = self.blank(input, *input.shape[:-1]) if hx is None else self.packed(hx)
    hidden = F.linear(state[0], self.weight_hh, self.bias_hh)
    return self.unpacked(self.step(F.linear(input, self.weight_ih, self.bias_ih), hidden, state))
  def extra_repr(self) -> str: return f"{self.input_size}, {self.hidden_size}"

class RNNCell(TanhSteps, Cell):
  def __init__(self, input_size: int, hidden_size: int, bias: bool = True, nonlinearity: str = "tanh", **kind: Any):
    super().__init__(input_size, hidden_size, bias, **kind)
    self.nonlinearity = nonlinearity
class GRUCell(GRUSteps, Cell): pass
class LSTMCell(LSTMSteps, Cell): pass

class Layers(Recurrent):
  """A stack of recurrent layers. input (T, N, input_size), with batch_first (N, T, input_size), or without N;
  states (num_layers * directions, N, hidden_size). Returns (outputs of the last layer at every step, last states)."""
  def __init__(self, input_size: int, hidden_size: int, num_layers: int = 1, bias: bool = True,
               batch_first: bool = False, dropout: float = 0.0, bidirectional: bool = False, **kind: Any):
    super().__init__()
    self.input_size, self.hidden_size, self.num_layers = input_size, hidden_size, num_layers
    self.bias, self.batch_first, self.dropout, self.bidirectional = bias, batch_first, dropout, bidirectional
    self.suffixes = ("", "_reverse") if bidirectional else ("",)
    for layer in range(num_layers):
      inputs = hidden_size * len(self.suffixes) if layer else input_size
      for suffix in self.suffixes: self.add_weights(f"_l{layer}{suffix}", inputs, hidden_size, bias, kind)

  def forward(self, input: Tensor, hx: Any = None) -> tuple[Tensor, Any]:
    if input.ndim == 2:
      given = None if hx is None else self.unpacked(tuple(s.unsqueeze(1) for s in self.packed(hx)))
      batch = 0 if self.batch_first else 1
      out, end = self.forward(input.unsqueeze(batch), given)
      return out.squeeze(batch), self.unpacked(tuple(s.squeeze(1) for s in self.packed(end)))
    x = input.transpose(0, 1) if self.batch_first else input                                 # (T, N, input_size)
    rows = self.num_layers * len(self.suffixes)
    first = self.blank(x, rows, x.shape[1]) if hx is None else self.packed(hx)
    last: list[Gates] = []
    for layer in range(self.num_layers):
      if layer: x = F.dropout(x, self.dropout, self.training)
      runs = []
      for suffix in self.suffixes:
        outputs, state = self.run(x, f"_l{layer}{suffix}", tuple(s[len(last)] for s in first))
        runs.append(outputs)
        last.append(state)
      x = runs[0] if len(runs) == 1 else cat(runs, -1)
    states = tuple(stack([state[k] for state in last]) for k in range(self.states))
    return x.transpose(0, 1) if self.batch_first else x, self.unpacked(states)

  def run(self, x: Tensor, suffix: str, state: Gates) -> tuple[Tensor, Gates]:
    """One layer in one direction over (T, N, inputs) -> (T, N, hidden_size) and the last state."""
    w_ih, w_hh, b_ih, b_hh = (getattr(self, n + suffix) for n in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
    gates = F.linear(x, w_ih, b_ih)                                                  # (T, N, gates * hidden_size)
    steps = range(x.shape[0])
    outputs = []
    for t in reversed(steps) if suffix.endswith("_reverse") else steps:
      state = self.step(gates[t], F.linear(state[0], w_hh, b_hh), state)
      outputs.append(state[0])
    return stack(outputs[::-1] if suffix.endswith("_reverse") else outputs), state

  def extra_repr(self) -> str:
    usual = {"num_layers": 1, "bias": True, "batch_first": False, "dropout": 0.0, "bidirectional": False}
    chosen = [name for name, value in usual.items() if getattr(self, name) != value]
    return ", ".join([f"{self.input_size}, {self.hidden_size}", *(f"{name}={getattr(self, name)}" for name in chosen)])

class RNN(TanhSteps, Layers):
  """h = tanh(W x + b + U h + c), or relu: layers as Layers describes."""
  def __init__(self, *args: Any, nonlinearity: str = "tanh", **kwargs: Any):
    super().__init__(*args, **kwargs)
    self.nonlinearity = nonlinearity
class GRU(GRUSteps, Layers):
  """Gated recurrent units: layers as Layers describes."""
  pass
class LSTM(LSTMSteps, Layers):
  """Long short-term memory: layers as Layers describes; the state is (h, c)."""
  pass

# ---- attention -------------------------------------------------------------------------------------------------------

class MultiheadAttention(Module):
  """Attention of num_heads heads over (L, N, embed_dim), with batch_first (N, L, embed_dim). Returns (output, weights);
  the weights, averaged over heads, are None with need_weights=False, which is the fast way. A bool mask drops where it
  is true, unlike in scaled_dot_product_attention."""
  def __init__(self, embed_dim: int, num_heads: int, dropout: float = 0.0, bias: bool = True, batch_first: bool = False,
               **kind: Any):
    super().__init__()
    if embed_dim % num_heads: raise ValueError("embed_dim must be divisible by num_heads")
    self.embed_dim, self.num_heads, self.dropout, self.batch_first = embed_dim, num_heads, dropout, batch_first
    bound = math.sqrt(6 / (4 * embed_dim))                           # xavier_uniform
    self.in_proj_weight = uniform_parameter(bound, 3 * embed_dim, embed_dim, **kind)
    self.in_proj_bias = new_parameter(3 * embed_dim, **kind) if bias else None
    self.out_proj = Linear(embed_dim, embed_dim, bias, **kind)
    if self.out_proj.bias is not None: init.zeros_(self.out_proj.bias)

  def forward(self, query: Tensor, key: Tensor, value: Tensor, key_padding_mask: Tensor | None = None,
              need_weights: bool = True, attn_mask: Tensor | None = None, is_causal: bool = False) -> tuple[Any, Any]:
    if is_causal and attn_mask is None: raise RuntimeError("Need attn_mask if specifying the is_causal hint.")
    biases = (None,) * 3 if self.in_proj_bias is None else self.in_proj_bias.chunk(3)
    sources = [x if self.batch_first else x.transpose(0, 1) for x in (query, key, value)]
    parts = zip(sources, self.in_proj_weight.chunk(3), biases)
    q, k, v = (self.split(F.linear(x, w, b)) for x, w, b in parts)                           # (N, H, L, embed_dim/H)
    mask = joint_mask(attn_mask, key_padding_mask, self.num_heads)
    p = self.dropout if self.training else 0.0
    weights = None
    if need_weights:
      scores = (q @ k.transpose(-2, -1)) / math.sqrt(q.shape[-1])
      weights = (scores if mask is None else scores + mask).softmax(-1)                      # (N, H, L, S)
      out = F.dropout(weights, p) @ v
      weights = weights.mean(1)
    else: out = F.scaled_dot_product_attention(q, k, v, mask, p)
    out = self.out_proj(out.transpose(1, 2).flatten(2))
    return out if self.batch_first else out.transpose(0, 1), weights

  def split(self, x: Tensor) -> Tensor:
    """(N, L, embed_dim) -> (N, H, L, embed_dim/H)."""
    return x.reshape(*x.shape[:2], self.num_heads, -1).transpose(1, 2)

def joint_mask(attn_mask: Tensor | None, key_padding_mask: Tensor | None, heads: int) -> Tensor | None:
  """The sum of a mask (L, S) or (N*H, L, S) and one of keys (N, S), bool (true drops) or added, for (N, H, L, S)."""
  total = None
  for mask in (attn_mask, key_padding_mask):
    if mask is None: continue
    if mask is key_padding_mask: mask = mask.reshape(mask.shape[0], 1, 1, -1)
    elif mask.ndim == 3: mask = mask.reshape(-1, heads, *mask.shape[1:])
    if mask.dtype is dtypes.bool: mask = zeros(*mask.shape, device=mask.device).masked_fill(mask, -math.inf)
    total = mask if total is None else total + mask
  return total
