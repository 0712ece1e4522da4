# nn: torch.nn on top of Tensor. A Module is a tree of modules whose leaves are parameters and buffers; names are the
# paths in that tree, and a state dict is the flat table of them. Layers hold parameters and call nn.functional. Layers
# take device= and dtype= for their parameters: `**kind` below.
from __future__ import annotations
import math
from typing import Any, Callable, Iterable, Iterator, Mapping, NamedTuple, Sequence
from picograd.dtype import DType, dtypes
from picograd.nn import functional, init
from picograd.nn import utils as utils
from picograd.nn.functional import Ints, as_tuple
from picograd.tensor import Tensor, cat, no_grad, ones, stack, zeros

F = functional

class Parameter(Tensor):
  """A tensor that a Module it is assigned to lists among its parameters. It shares the memory of data."""
  def __init__(self, data: Tensor, requires_grad: bool = True):
    super().__init__(data.detach(), requires_grad=requires_grad)

class LoadResult(NamedTuple):
  """What load_state_dict(strict=False) passed over."""
  missing_keys: list[str]
  unexpected_keys: list[str]

# ---- Module ----------------------------------------------------------------------------------------------------------

class Module:
  """The base of all layers and models. Assigning a Parameter or a Module to an attribute registers it by that name."""
  training: bool
  _parameters: dict[str, Parameter | None]
  _buffers: dict[str, Tensor | None]
  _modules: dict[str, "Module | None"]
  _transient: set[str]                    # buffers that state_dict leaves out

  def __init__(self) -> None:
    self.__dict__.update(_parameters={}, _buffers={}, _modules={}, _transient=set(), training=True)

  def forward(self, *args: Any, **kwargs: Any) -> Any:
    raise NotImplementedError(f'Module [{type(self).__name__}] is missing the required "forward" function')
  def __call__(self, *args: Any, **kwargs: Any) -> Any: return self.forward(*args, **kwargs)

  # attributes
  def __setattr__(self, name: str, value: Any) -> None:
    tables = self.__dict__.get("_parameters"), self.__dict__.get("_modules"), self.__dict__.get("_buffers")
    if None in tables:
      if isinstance(value, (Parameter, Module)):
        raise AttributeError(f"cannot assign {type(value).__name__} {name!r} before Module.__init__() call")
      return object.__setattr__(self, name, value)
    parameters, modules, buffers = tables
    if isinstance(value, Parameter): home = parameters
    elif isinstance(value, Module): home = modules
    elif name in parameters and value is not None:
      raise TypeError(f"cannot assign '{type(value).__name__}' as parameter '{name}' (nn.Parameter or None expected)")
    else: home = next((table for table in tables if name in table), self.__dict__)
    for table in (*tables, self.__dict__):
      if table is not home: table.pop(name, None)
    home[name] = value

  def __getattr__(self, name: str) -> Any:
    for table in ("_parameters", "_buffers", "_modules"):
      if name in self.__dict__.get(table, ()): return self.__dict__[table][name]
    raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

  def __delattr__(self, name: str) -> None:
    for table in (self._parameters, self._buffers, self._modules, self.__dict__):
      if name in table:
        del table[name]
        return
    raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

  def register_parameter(self, name: str, param: Parameter | None) -> None: self._parameters[name] = param
  def add_module(self, name: str, module: "Module | None") -> None: self._modules[name] = module
  def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
    """A tensor that moves and is saved with the module but is not trained."""
    self._buffers[name] = tensor
    if not persistent: self._transient.add(name)

  # the tree
  def named_modules(self, prefix: str = "") -> Iterator[tuple[str, "Module"]]:
    """(path, module) of the tree, each module once, a parent before its children."""
    seen: set[int] = set()
    stack: list[tuple[str, Module]] = [(prefix, self)]
    while stack:
      path, module = stack.pop()
      if id(module) in seen: continue
      seen.add(id(module))
      yield path, module
      children = [(join(path, name), child) for name, child in module._modules.items() if child is not None]
      stack.extend(reversed(children))

  def modules(self) -> Iterator["Module"]: return (m for _, m in self.named_modules())
  def named_children(self) -> Iterator[tuple[str, "Module"]]:
    return ((name, m) for name, m in self._modules.items() if m is not None)
  def children(self) -> Iterator["Module"]: return (m for _, m in self.named_children())

  def named_parameters(self, prefix: str = "", recurse: bool = True) -> Iterator[tuple[str, Parameter]]:
    """(path, parameter), each parameter once: one that is tied under two names has the first."""
    return named_members(self, "_parameters", prefix, recurse)
  def named_buffers(self, prefix: str = "", recurse: bool = True) -> Iterator[tuple[str, Tensor]]:
    return named_members(self, "_buffers", prefix, recurse)
  def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
    return (p for _, p in self.named_parameters("", recurse))
  def buffers(self, recurse: bool = True) -> Iterator[Tensor]: return (b for _, b in self.named_buffers("", recurse))

  # state
  def state_tensors(self) -> dict[str, Tensor]:
    """Every parameter and persistent buffer under every path it has."""
    out: dict[str, Tensor] = {}
    stack: list[tuple[str, Module]] = [("", self)]
    while stack:
      path, module = stack.pop()
      kept = {name: b for name, b in module._buffers.items() if name not in module._transient}
      for name, value in {**module._parameters, **kept}.items():
        if value is not None: out[join(path, name)] = value
      stack.extend(reversed([(join(path, name), child) for name, child in module.named_children()]))
    return out

  def state_dict(self) -> dict[str, Tensor]:
    """Path -> tensor that shares memory with the parameter or buffer."""
    return {name: value.detach() for name, value in self.state_tensors().items()}

  def load_state_dict(self, state_dict: Mapping[str, Tensor], strict: bool = True) -> LoadResult:
    """Copies the tensors into the parameters and buffers of the same path. RuntimeError lists every path that is
    missing or unexpected (if strict) and every shape that differs; nothing is copied then."""
    own = self.state_tensors()
    missing = [name for name in own if name not in state_dict]
    unexpected = [name for name in state_dict if name not in own]
    problems = []
    if strict and missing: problems.append(f"Missing key(s) in state_dict: {quoted(missing)}. ")
    if strict and unexpected: problems.append(f"Unexpected key(s) in state_dict: {quoted(unexpected)}. ")
    for name, value in own.items():
      if name in state_dict and tuple(state_dict[name].shape) != tuple(value.shape):
        problems.append(f"size mismatch for {name}: copying a param with shape {tuple(state_dict[name].shape)} from "
                        f"checkpoint, the shape in current model is {tuple(value.shape)}.")
    title = f"Error(s) in loading state_dict for {type(self).__name__}:"
    if problems: raise RuntimeError("\n\t".join([title, *problems]))
    with no_grad():
      for name, value in own.items():
        if name in state_dict: value.copy_(state_dict[name])
    return LoadResult(missing, unexpected)

  # what is done to a whole tree
  def apply(self, fn: Callable[["Module"], Any]) -> "Module":
    """Calls fn on every module, children first."""
    for module in reversed(list(self.modules())): fn(module)
    return self
  def train(self, mode: bool = True) -> "Module":
    for module in self.modules(): module.training = mode
    return self
  def eval(self) -> "Module": return self.train(False)
  def requires_grad_(self, requires_grad: bool = True) -> "Module":
    for p in self.parameters(): p.requires_grad_(requires_grad)
    return self
  def zero_grad(self, set_to_none: bool = True) -> None: clear_grads(self.parameters(), set_to_none)

  def to(self, *args: Any, device: Any = None, dtype: DType | None = None) -> "Module":
    """Moves every parameter and buffer to a device, a dtype, or both, in place; a dtype changes floats only."""
    for a in args:
      if isinstance(a, DType): dtype = a
      else: device = a
    for tensor in (*self.parameters(), *self.buffers()):
      moved = tensor.data if device is None else tensor.data.to(device)
      if dtype is not None and tensor.dtype.is_floating_point: moved = moved.to(dtype)
      tensor.data = moved
      if tensor.grad is not None: tensor.grad = tensor.grad.to(moved.device).to(moved.dtype)
    return self
  def float(self) -> "Module": return self.to(dtypes.float32)
  def double(self) -> "Module": return self.to(dtypes.float64)
  def half(self) -> "Module": return self.to(dtypes.float16)
  def bfloat16(self) -> "Module": return self.to(dtypes.bfloat16)
  def cpu(self) -> "Module": return self.to("cpu")
  def cuda(self) -> "Module": return self.to("cuda")

  # text
  def extra_repr(self) -> str: return ""
  def __repr__(self) -> str:
    lines = self.extra_repr().split("\n") if self.extra_repr() else []
    inner = [f"({name}): " + repr(child).replace("\n", "\n  ") for name, child in self._modules.items()]
    if len(lines) == 1 and not inner: return f"{type(self).__name__}({lines[0]})"
    if not lines and not inner: return f"{type(self).__name__}()"
    return f"{type(self).__name__}(\n  " + "\n  ".join(lines + inner) + "\n)"

def join(path: str, name: str) -> str: return f"{path}.{name}" if path else name
def quoted(names: Iterable[str]) -> str: return ", ".join(f'"{name}"' for name in names)

def named_members(root: Module, table: str, prefix: str, recurse: bool) -> Iterator[tuple[str, Any]]:
  """(path, tensor) of the tables _parameters or _buffers in a tree, each tensor once."""
  seen: set[int] = set()
  for path, module in root.named_modules(prefix) if recurse else [(prefix, root)]:
    for name, value in getattr(module, table).items():
      if value is None or id(value) in seen: continue
      seen.add(id(value))
      yield join(path, name), value

def clear_grads(parameters: Iterable[Tensor], set_to_none: bool) -> None:
  for p in parameters:
    if set_to_none: p.grad = None
    elif p.grad is not None: p.grad = zeros(*p.shape, dtype=p.dtype, device=p.device)

# ---- containers ------------------------------------------------------------------------------------------------------

class ModuleList(Module):
  """Modules by position, registered as "0", "1", ..."""
  def __init__(self, modules: Iterable[Module] = ()):
    super().__init__()
    self.extend(modules)
  def __len__(self) -> int: return len(self._modules)
  def __iter__(self) -> Iterator[Any]: return iter(list(self._modules.values()))
  def __getitem__(self, i: int | slice) -> Any:
    items = list(self._modules.values())
    return type(self)(items[i]) if isinstance(i, slice) else items[i]
  def __setitem__(self, i: int, module: Module) -> None: self._modules[list(self._modules)[i]] = module
  def append(self, module: Module) -> "ModuleList":
    self._modules[str(len(self._modules))] = module
    return self
  def extend(self, modules: Iterable[Module]) -> "ModuleList":
    for m in modules: self.append(m)
    return self

class ModuleDict(Module):
  """Modules by name."""
  def __init__(self, modules: Mapping[str, Module] | Iterable[tuple[str, Module]] = ()):
    super().__init__()
    self.update(modules)
  def __len__(self) -> int: return len(self._modules)
  def __iter__(self) -> Iterator[str]: return iter(self._modules)
  def __contains__(self, name: str) -> bool: return name in self._modules
  def __getitem__(self, name: str) -> Any: return self._modules[name]
  def __setitem__(self, name: str, module: Module) -> None: self._modules[name] = module
  def keys(self) -> Iterable[str]: return self._modules.keys()
  def values(self) -> Iterable[Any]: return self._modules.values()
  def items(self) -> Iterable[tuple[str, Any]]: return self._modules.items()
  def update(self, modules: Mapping[str, Module] | Iterable[tuple[str, Module]]) -> None:
    self._modules.update(dict(modules))

class Sequential(ModuleList):
  """Each module applied to the output of the one before. Takes modules, or one dict of them."""
  def __init__(self, *modules: Any):
    named = dict(modules[0]) if len(modules) == 1 and isinstance(modules[0], Mapping) else None
    super().__init__(() if named is not None else modules)
    for name, module in (named or {}).items(): self.add_module(name, module)
  def __getitem__(self, i: int | slice) -> Any:
    if not isinstance(i, slice): return super().__getitem__(i)
    return Sequential(*list(self._modules.values())[i])
  def forward(self, input: Any) -> Any:
    for module in self: input = module(input)
    return input

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

class BatchNorm1d(BatchNorm): ranks = (2, 3)
class BatchNorm2d(BatchNorm): ranks = (4,)

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
  def __init__(self, kernel_size: Ints, stride: Ints | None = None, padding: Ints = 0, dilation: Ints = 1,
               ceil_mode: bool = False):
    super().__init__(kernel_size=kernel_size, stride=kernel_size if stride is None else stride, padding=padding,
                     dilation=dilation, ceil_mode=ceil_mode)
  def forward(self, input: Tensor) -> Tensor: return F.max_pool2d(input, **self.options())

class AvgPool2d(Options):
  def __init__(self, kernel_size: Ints, stride: Ints | None = None, padding: Ints = 0, ceil_mode: bool = False,
               count_include_pad: bool = True, divisor_override: int | None = None):
    super().__init__(kernel_size=kernel_size, stride=kernel_size if stride is None else stride, padding=padding)
    self.rest = {"ceil_mode": ceil_mode, "count_include_pad": count_include_pad, "divisor_override": divisor_override}
  def forward(self, input: Tensor) -> Tensor: return F.avg_pool2d(input, **self.options(), **self.rest)

class Dropout(Options):
  """Zeroes elements with probability p in training."""
  def __init__(self, p: float = 0.5, inplace: bool = False):
    if not 0 <= p <= 1: raise ValueError(f"dropout probability has to be between 0 and 1, but got {p}")
    super().__init__(p=p, inplace=inplace)
  def forward(self, input: Tensor) -> Tensor: return F.dropout(input, self.p, self.training)

class Flatten(Options):
  def __init__(self, start_dim: int = 1, end_dim: int = -1): super().__init__(start_dim=start_dim, end_dim=end_dim)
  def forward(self, input: Tensor) -> Tensor: return input.flatten(self.start_dim, self.end_dim)

class Tanh(Module):
  def forward(self, input: Tensor) -> Tensor: return F.tanh(input)
class Sigmoid(Module):
  def forward(self, input: Tensor) -> Tensor: return F.sigmoid(input)
class ReLU(Module):
  def __init__(self, inplace: bool = False): super().__init__()
  def forward(self, input: Tensor) -> Tensor: return F.relu(input)
class SiLU(Module):
  def __init__(self, inplace: bool = False): super().__init__()
  def forward(self, input: Tensor) -> Tensor: return F.silu(input)
class GELU(Options):
  def __init__(self, approximate: str = "none"): super().__init__(approximate=approximate)
  def forward(self, input: Tensor) -> Tensor: return F.gelu(input, self.approximate)
class LeakyReLU(Options):
  def __init__(self, negative_slope: float = 0.01, inplace: bool = False):
    super().__init__(negative_slope=negative_slope)
  def forward(self, input: Tensor) -> Tensor: return F.leaky_relu(input, self.negative_slope)
class Softmax(Options):
  def __init__(self, dim: int = -1): super().__init__(dim=dim)
  def forward(self, input: Tensor) -> Tensor: return F.softmax(input, self.dim)

class MSELoss(Module):
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
      out, last = self.forward(input.unsqueeze(0 if self.batch_first else 1), given)
      return out.squeeze(0 if self.batch_first else 1), self.unpacked(tuple(s.squeeze(1) for s in self.packed(last)))
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
  def __init__(self, *args: Any, nonlinearity: str = "tanh", **kwargs: Any):
    super().__init__(*args, **kwargs)
    self.nonlinearity = nonlinearity
class GRU(GRUSteps, Layers): pass
class LSTM(LSTMSteps, Layers): pass

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
