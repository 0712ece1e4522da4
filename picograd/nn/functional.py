# functional.py: torch.nn.functional on top of Tensor. In: tensors in torch's layouts, (N, C, ...) for images. Out: lazy
# tensors. Every function is a composition of tensor operations, so gradients, vmap and fusion follow from Tensor's.
from __future__ import annotations
import functools, math
from typing import Any, Callable, Sequence
from picograd.common import for_product, for_sums
from picograd.dtype import DType, dtypes
from picograd.arithmetic import accumulator, convert
from picograd.helpers import ceildiv, prod
from picograd.ops.windows import Steps, correlate, windows as windows_of, with_zeros_between
from picograd.tensor import common_device, moved_to, result, result_type
from picograd.random import Generator, rand
from picograd.library.formulas import normal, normal_by_tanh
from picograd.library.reductions import standardised
from picograd.library import Tensor, arange, no_grad, ones, tensor, where, zeros_like

Ints = int | Sequence[int]

def as_tuple(x: Ints, n: int, name: str) -> tuple[int, ...]:
  """x repeated n times if it is one integer, else x, which must have n."""
  if isinstance(x, int): return (x,) * n
  values = tuple(x)
  if len(values) == 1: return values * n
  if len(values) != n: raise ValueError(f"{name}={values}: one integer or {n} are expected")
  return values

# ---- activations, elementwise ----------------------------------------------------------------------------------------

def rounded_once(activation: Callable[..., Tensor]) -> Callable[..., Tensor]:
  """The same function, computed in the working dtype: 16-bit floats are rounded at the end, not at each operation."""
  @functools.wraps(activation)
  def function(input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    return activation(input.to(accumulator(input.dtype)), *args, **kwargs).to(input.dtype)
  return function

def relu(input: Tensor, inplace: bool = False) -> Tensor:
  """max(x, 0), with gradient 0 at 0."""
  return input.relu()
def sigmoid(input: Tensor) -> Tensor:
  """1/(1 + e^-x)"""
  return input.sigmoid()
def tanh(input: Tensor) -> Tensor:
  """(e^x - e^-x) / (e^x + e^-x)"""
  return input.tanh()
@rounded_once
def silu(input: Tensor, inplace: bool = False) -> Tensor:
  """x * sigmoid(x)"""
  return input * input.sigmoid()
def softmax(input: Tensor, dim: int = -1, dtype: DType | None = None) -> Tensor:
  """exp(x) / sum(exp(x)) along dim, as dtype if one is given."""
  return (input if dtype is None else input.to(dtype)).softmax(dim)

def log_softmax(input: Tensor, dim: int = -1, dtype: DType | None = None) -> Tensor:
  """x - logsumexp(x) along dim, as dtype if one is given."""
  return (input if dtype is None else input.to(dtype)).log_softmax(dim)

def leaky_relu(input: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Tensor:
  """x where x > 0, else x * negative_slope."""
  return where(input > 0, input, input * negative_slope)

def elu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
  """x where x > 0, else alpha*(exp(x) - 1). The exponent is clamped: an overflow there would make the gradient NaN."""
  return where(input > 0, input, alpha * (input.clamp(max=0).exp() - 1))

def softplus(input: Tensor, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
  """log(1 + exp(beta*x))/beta = max(x,0) + log(1 + exp(-|beta*x|))/beta; x itself where beta*x > threshold.
  The maximum shares its gradient where x is 0, as the smooth function needs."""
  smooth = input.maximum(zeros_like(input)) + (input * beta).abs().neg().exp().log1p() / beta
  return where(input * beta > threshold, input, smooth)

def logsigmoid(input: Tensor) -> Tensor: return -softplus(-input)

@rounded_once
def gelu(input: Tensor, approximate: str = "none") -> Tensor:
  """x * Phi(x), Phi the normal distribution's integral or the tanh formula of Hendrycks and Gimpel (2016)."""
  formula = {"none": normal, "tanh": normal_by_tanh}.get(approximate)
  if formula is None: raise ValueError(f"gelu(approximate={approximate!r}): 'none' or 'tanh' is expected")
  return input * input.map_float(formula)

def dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False,
            generator: Generator | None = None) -> Tensor:
  """Each element is zeroed with probability p, the others are divided by 1-p. ValueError for p outside [0, 1]."""
  if not 0 <= p <= 1: raise ValueError(f"dropout probability has to be between 0 and 1, but got {p}")
  if not training or p == 0: return input
  if p == 1: return input * 0
  keep = rand(*input.shape, generator=generator, device=input.device) >= p
  return where(keep, input * (1 / (1 - p)), 0)

# ---- linear layers ---------------------------------------------------------------------------------------------------

def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
  """(..., in) with weight (out, in) -> (..., out)."""
  input, weight, bias = for_product(input, weight, bias)
  out = input @ weight.transpose(-1, -2) if weight.ndim > 1 else input @ weight
  return out if bias is None else out + bias

def embedding(input: Tensor, weight: Tensor, padding_idx: int | None = None, max_norm: float | None = None,
              norm_type: float = 2.0, scale_grad_by_freq: bool = False, sparse: bool = False) -> Tensor:
  """Rows of weight (V, D): indices (...) -> (..., D). The row padding_idx gets no gradient. Gradients are dense,
  whatever sparse says; NotImplementedError for max_norm and scale_grad_by_freq."""
  if max_norm is not None or scale_grad_by_freq: raise NotImplementedError("embedding: max_norm, scale_grad_by_freq")
  if padding_idx is None: return weight[input]
  row = padding_idx % weight.shape[0]
  frozen = (arange(weight.shape[0], device=weight.device) == row).unsqueeze(-1)
  return where(frozen, weight.detach(), weight)[input]

def one_hot(tensor: Tensor, num_classes: int = -1) -> Tensor:
  """(...) of class numbers -> (..., num_classes) of 0 and 1, int64; num_classes=-1 reads the largest class."""
  classes = int(tensor.max().item()) + 1 if num_classes == -1 else num_classes
  if tensor.numel() and not 0 <= int(tensor.min().item()) <= int(tensor.max().item()) < classes:
    raise RuntimeError(f"one_hot(): class values must be from 0 to num_classes - 1 = {classes - 1}")
  return (tensor.unsqueeze(-1) == arange(classes, device=tensor.device)).to(dtypes.int64)

# ---- normalisation ---------------------------------------------------------------------------------------------------

def scale_and_shift(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
  if weight is not None: x = x * weight
  return x if bias is None else x + bias

def standardise(x: Tensor, dims: tuple[int, ...], eps: float) -> Tensor:
  """x with mean 0 and variance 1 over dims."""
  axes = tuple(sorted(d % x.ndim for d in dims))
  return x.map_float(lambda u: standardised(u, axes, eps))

def trailing_dims(x: Tensor, normalized_shape: Ints) -> tuple[int, ...]:
  sizes = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
  if tuple(x.shape[-len(sizes):]) != sizes:
    raise RuntimeError(f"Given normalized_shape={list(sizes)}, expected input with shape [*, "
                       f"{', '.join(map(str, sizes))}], but got input of size {list(x.shape)}")
  return tuple(range(-len(sizes), 0))

def layer_norm(input: Tensor, normalized_shape: Ints, weight: Tensor | None = None, bias: Tensor | None = None,
               eps: float = 1e-5) -> Tensor:
  """(*, *normalized_shape) standardised over the trailing dimensions. RuntimeError where they differ."""
  dims = trailing_dims(input, normalized_shape)
  input, = for_sums(input)
  x = standardise(input.to(accumulator(input.dtype)), dims, eps).to(input.dtype)
  return scale_and_shift(x, weight, bias)

def rms_norm(input: Tensor, normalized_shape: Ints, weight: Tensor | None = None, eps: float | None = None) -> Tensor:
  """(*, *normalized_shape) divided by its root mean square; eps is the dtype's spacing at 1 by default."""
  dims = trailing_dims(input, normalized_shape)
  x = input.to(accumulator(input.dtype))
  small = input.dtype.eps if eps is None else eps
  return scale_and_shift((x * ((x * x).mean(dims, keepdim=True) + small).rsqrt()).to(input.dtype), weight, None)

def per_channel(x: Tensor | None, ndim: int) -> Tensor | None:
  """(C,) -> (1, C, 1, ...) of ndim dimensions."""
  return None if x is None else x.reshape(1, -1, *(1,) * (ndim - 2))

def group_norm(input: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None,
               eps: float = 1e-5) -> Tensor:
  """(N, C, ...) standardised over each of num_groups groups of channels."""
  n, c = input.shape[:2]
  if c % num_groups:
    raise RuntimeError(f"Expected number of channels in input to be divisible by num_groups, but got input of shape "
                       f"{list(input.shape)} and num_groups={num_groups}")
  x = input.to(accumulator(input.dtype)).reshape(n, num_groups, prod(input.shape[1:]) // num_groups)
  x = standardise(x, (-1,), eps).reshape(*input.shape).to(input.dtype)
  return scale_and_shift(x, per_channel(weight, input.ndim), per_channel(bias, input.ndim))

def batch_norm(input: Tensor, running_mean: Tensor | None, running_var: Tensor | None, weight: Tensor | None = None,
               bias: Tensor | None = None, training: bool = False, momentum: float | Tensor = 0.1,
               eps: float = 1e-5) -> Tensor:
  """(N, C, ...) standardised per channel: by the batch when training, which updates the running statistics in place,
  else by the running statistics."""
  if training or running_mean is None or running_var is None:
    dims = (0, *range(2, input.ndim))
    count = prod(input.shape[d] for d in dims)
    if training and count == 1:
      raise ValueError(f"Expected more than 1 value per channel when training, got input size {list(input.shape)}")
    mean = input.mean(dims)
    centred = input - per_channel(mean, input.ndim)
    var = (centred * centred).mean(dims)
    if training and running_mean is not None: blend(running_mean, mean, momentum)
    if training and running_var is not None: blend(running_var, var * (count / (count - 1)), momentum)
  else:
    mean, var = running_mean, running_var
    centred = input - per_channel(mean, input.ndim)
  x = centred * per_channel((var + eps).rsqrt(), input.ndim)
  return scale_and_shift(x, per_channel(weight, input.ndim), per_channel(bias, input.ndim))

def blend(running: Tensor, new: Tensor, momentum: float | Tensor) -> None:
  """running = (1 - momentum)*running + momentum*new, in place."""
  with no_grad(): running.copy_(running * (1 - momentum) + new.detach() * momentum)

# ---- padding, windows, resampling ------------------------------------------------------------------------------------


def take(x: Tensor, dim: int, positions: Sequence[int]) -> Tensor:
  """x at the positions along dim >= 0."""
  return x[(slice(None),) * dim + (tensor(positions, dtype=dtypes.int32, device=x.device),)]

def reflected(i: int, n: int) -> int: return -i if i < 0 else 2 * (n - 1) - i if i >= n else i
def replicated(i: int, n: int) -> int: return min(max(i, 0), n - 1)
def wrapped(i: int, n: int) -> int: return i % n
OUTSIDE = {"reflect": reflected, "replicate": replicated, "circular": wrapped}  # what a position outside reads

def pad(input: Tensor, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Tensor:
  """torch's pad: (left, right) of the last dimension first, then of the one before; negative widths crop."""
  if len(pad) % 2 or len(pad) > 2 * input.ndim:
    raise ValueError(f"pad={tuple(pad)}: pairs of widths for at most {input.ndim} dimensions are expected")
  widths = [(0, 0)] * (input.ndim - len(pad) // 2)
  widths += [(pad[i], pad[i + 1]) for i in range(len(pad) - 2, -1, -2)]
  if mode == "constant": return input.pad(widths, value or 0)
  if mode not in OUTSIDE: raise NotImplementedError(f"Unrecognised padding mode {mode}")
  if mode == "circular":                                 # what is cut off is not wrapped around
    input = input.pad([(min(lo, 0), min(hi, 0)) for lo, hi in widths])
    widths = [(max(lo, 0), max(hi, 0)) for lo, hi in widths]
  for d, (lo, hi) in enumerate(widths):
    n = input.shape[d]
    if mode == "reflect" and (lo or hi) and max(lo, hi) >= n:
      raise ValueError(f"reflect padding {lo, hi} of dimension {d} needs more than the {n} elements it has")
    if lo or hi: input = take(input, d, [OUTSIDE[mode](i, n) for i in range(-lo, n + hi)])
  return input

def windows(x: Tensor, size: Sequence[int], stride: Sequence[int], dilation: Sequence[int]) -> Tensor:
  """(..., i_1 .. i_n) -> (..., o_1 .. o_n, k_1 .. k_n), y[o, k] = x[o*stride + k*dilation]."""
  return result(windows_of(x.uop, size, Steps(tuple(stride), tuple(dilation))), x)

Taps = list[list[tuple[int, float]]]       # for each sample along a dimension: the positions it reads, and weights

def source_positions(n: int, out: int, step: float, align_corners: bool) -> list[float]:
  """Where each of `out` samples lies on a line of n pixels; step is n/out."""
  if align_corners: return [i * (n - 1) / max(1, out - 1) for i in range(out)]
  return [(i + 0.5) * step - 0.5 for i in range(out)]

def nearest_taps(n: int, out: int, step: float, align_corners: bool) -> Taps:
  return [[(min(int(i * step), n - 1), 1.0)] for i in range(out)]
def nearest_exact_taps(n: int, out: int, step: float, align_corners: bool) -> Taps:
  return [[(min(int((i + 0.5) * step), n - 1), 1.0)] for i in range(out)]

def linear_taps(n: int, out: int, step: float, align_corners: bool) -> Taps:
  """The two neighbours, weighted by their distance."""
  places = [min(max(p, 0.0), n - 1.0) for p in source_positions(n, out, step, align_corners)]
  return [[(int(p), 1 - p % 1), (min(int(p) + 1, n - 1), p % 1)] for p in places]

def cubic(distance: float) -> float:
  """The weight of a pixel: Keys' kernel (1981) with a = -0.75."""
  t, a = abs(distance), -0.75
  if t <= 1: return ((a + 2) * t - (a + 3)) * t * t + 1
  return ((t - 5) * t + 8) * a * t - 4 * a

def cubic_taps(n: int, out: int, step: float, align_corners: bool) -> Taps:
  """The four neighbours; outside there are the pixels of the edge."""
  places = source_positions(n, out, step, align_corners)
  return [[(replicated(math.floor(p) + k, n), cubic(p - math.floor(p) - k)) for k in range(-1, 3)] for p in places]

def area_taps(n: int, out: int, step: float, align_corners: bool) -> Taps:
  """The mean of the pixels between two samples."""
  spans = [range(i * n // out, ceildiv((i + 1) * n, out)) for i in range(out)]
  return [[(k, 1 / len(span)) for k in span] for span in spans]

# mode -> taps along one dimension, and for how many dimensions it is defined
MODES = {"nearest": (nearest_taps, (1, 2, 3)), "nearest-exact": (nearest_exact_taps, (1, 2, 3)),
         "area": (area_taps, (1, 2, 3)), "linear": (linear_taps, (1,)), "bilinear": (linear_taps, (2,)),
         "trilinear": (linear_taps, (3,)), "bicubic": (cubic_taps, (2,))}

def interpolate(input: Tensor, size: Ints | None = None, scale_factor: float | Sequence[float] | None = None,
                mode: str = "nearest", align_corners: bool | None = None,
                recompute_scale_factor: bool | None = None) -> Tensor:
  """(N, C, i_1 ..) -> (N, C, o_1 ..) by mode nearest, nearest-exact, area, linear (one dimension), bilinear, bicubic
  (two) or trilinear (three). ValueError unless either size or scale_factor is given."""
  n = input.ndim - 2
  if mode not in MODES or n not in MODES[mode][1]:
    raise NotImplementedError(f"interpolate(mode={mode!r}) of {n} dimensions")
  if scale_factor is not None and size is None:
    factors = [float(scale_factor)] * n if isinstance(scale_factor, (int, float)) else [float(f) for f in scale_factor]
    sizes = tuple(math.floor(i * f) for i, f in zip(input.shape[2:], factors))
    steps = [1 / f for f in factors]
  elif size is not None and scale_factor is None: sizes, steps = as_tuple(size, n, "size"), []
  else: raise ValueError("either size or scale_factor should be defined, not both")
  if recompute_scale_factor or not steps: steps = [i / o for i, o in zip(input.shape[2:], sizes)]
  for d, (out, step) in enumerate(zip(sizes, steps), 2):
    input = resampled(input, d, MODES[mode][0](input.shape[d], out, step, bool(align_corners)))
  return input

def resampled(x: Tensor, dim: int, taps: Taps) -> Tensor:
  """x along dim >= 0 at the taps: the sum of what each reads."""
  parts = []
  for k in range(max(map(len, taps))):
    read = [row[k] if k < len(row) else (0, 0.0) for row in taps]
    part = take(x, dim, [position for position, _ in read])
    if any(w != 1 for _, w in read):
      part = part * tensor([w for _, w in read], dtype=x.dtype, device=x.device).reshape(-1, *(1,) * (x.ndim - dim - 1))
    parts.append(part)
  return functools.reduce(Tensor.add, parts)

# ---- convolution and pooling -----------------------------------------------------------------------------------------

def conv_padding(padding: Ints | str, kernel: Sequence[int], stride: Sequence[int],
                 dilation: Sequence[int]) -> list[tuple[int, int]]:
  """(low, high) per dimension. 'same' keeps the size, the odd element goes to the end; 'valid' is no padding."""
  if padding == "valid": return [(0, 0)] * len(kernel)
  if padding == "same":
    if any(s != 1 for s in stride): raise ValueError("padding='same' is not supported for strided convolutions")
    total = [d * (k - 1) for k, d in zip(kernel, dilation)]
    return [(t // 2, t - t // 2) for t in total]
  if isinstance(padding, str): raise ValueError(f"Invalid padding string {padding!r}, should be one of 'valid', 'same'")
  return [(p, p) for p in as_tuple(padding, len(kernel), "padding")]

def check_windows(x: Tensor, kernel: Sequence[int], dilation: Sequence[int], widths: Sequence[tuple[int, int]]) -> None:
  sizes = [i + lo + hi for i, (lo, hi) in zip(x.shape[-len(kernel):], widths)]
  reach = [d * (k - 1) + 1 for k, d in zip(kernel, dilation)]
  if any(r > i for r, i in zip(reach, sizes)):
    raise RuntimeError(f"Calculated padded input size per channel: {tuple(sizes)}. Kernel size: {tuple(reach)}. Kernel "
                       f"size can't be greater than actual input size")

def conv(x: Tensor, weight: Tensor, bias: Tensor | None, stride: Ints, padding: Ints | str, dilation: Ints,
         groups: int) -> Tensor:
  """x (N, C, i_1 ..) with weight (O, C/groups, k_1 ..) -> (N, O, o_1 ..): windows times weight, summed."""
  n = weight.ndim - 2
  if x.ndim == n + 1: return conv(x.unsqueeze(0), weight, bias, stride, padding, dilation, groups).squeeze(0)
  if x.ndim != n + 2:
    raise RuntimeError(f"Expected {n + 1}D (unbatched) or {n + 2}D (batched) input to conv{n}d, but got input of size: "
                       f"{list(x.shape)}")
  out, inner, *kernel = weight.shape
  if x.shape[1] != inner * groups or out % groups:
    raise RuntimeError(f"Given groups={groups}, weight of size {list(weight.shape)}, expected input{list(x.shape)} to "
                       f"have {inner * groups} channels, but got {x.shape[1]} channels instead")
  strides, dilations = as_tuple(stride, n, "stride"), as_tuple(dilation, n, "dilation")
  widths = conv_padding(padding, kernel, strides, dilations)
  check_windows(x, kernel, dilations, widths)
  x = x.pad([(0, 0), (0, 0), *widths])
  dtype, home = result_type(x, weight), common_device((x, weight))
  xs, ws = [convert(moved_to(t, home), accumulator(dtype)) for t in (x, weight)]
  xs = xs.reshape((x.shape[0], groups, inner, *x.shape[2:]))
  ys = correlate(xs, ws.reshape((groups, out // groups, inner, *kernel)), Steps(strides, dilations))
  y = result(ys.reshape((x.shape[0], out, *ys.shape[3:])).cast(dtype), x, weight, device=home)
  return y if bias is None else y + per_channel(bias, n + 2)

def conv1d(input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Ints = 1, padding: Ints | str = 0,
           dilation: Ints = 1, groups: int = 1) -> Tensor:
  """(N, C, L) with weight (O, C/groups, K) -> (N, O, L')."""
  return conv(input, weight, bias, stride, padding, dilation, groups)

def conv2d(input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Ints = 1, padding: Ints | str = 0,
           dilation: Ints = 1, groups: int = 1) -> Tensor:
  """(N, C, H, W) with weight (O, C/groups, KH, KW) -> (N, O, H', W')."""
  return conv(input, weight, bias, stride, padding, dilation, groups)

def conv_transpose2d(input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Ints = 1, padding: Ints = 0,
                     output_padding: Ints = 0, groups: int = 1, dilation: Ints = 1) -> Tensor:
  """(N, C, H, W) with weight (C, O/groups, KH, KW) -> (N, O, H', W'): the gradient of conv2d in its input, as a
  convolution of the input with stride-1 zeros between its pixels by the flipped weight."""
  if input.ndim == 3:
    return conv_transpose2d(input.unsqueeze(0), weight, bias, stride, padding, output_padding, groups,
                            dilation).squeeze(0)
  strides, pads = as_tuple(stride, 2, "stride"), as_tuple(padding, 2, "padding")
  extra, dilations = as_tuple(output_padding, 2, "output_padding"), as_tuple(dilation, 2, "dilation")
  c, out, *kernel = weight.shape
  if input.shape[1] != c:
    raise RuntimeError(f"Given transposed=1, weight of size {list(weight.shape)}, expected input{list(input.shape)} to "
                       f"have {c} channels, but got {input.shape[1]} channels instead")
  w = weight.reshape(groups, c // groups, out, *kernel).transpose(1, 2).reshape(groups * out, c // groups, *kernel)
  x = result(with_zeros_between(with_zeros_between(input.uop, 2, strides[0]), 3, strides[1]), input)
  reach = [d * (k - 1) for k, d in zip(kernel, dilations)]
  widths = [(r - p, r - p + e) for r, p, e in zip(reach, pads, extra)]
  x = x.pad([(0, 0), (0, 0), *widths])
  return conv(x, w.flip((2, 3)), bias, 1, 0, dilation, groups)

def pool_widths(size: int, kernel: int, stride: int, padding: int, dilation: int, ceil_mode: bool) -> tuple[int, int]:
  """(low, high) padding of a pooled dimension. ceil_mode adds a last window that starts inside and ends outside."""
  if 2 * padding > kernel:
    raise RuntimeError(f"pad should be at most half of effective kernel size, but got pad={padding}, kernel={kernel}")
  if not ceil_mode: return padding, padding
  reach = dilation * (kernel - 1) + 1
  outputs = ceildiv(size + 2 * padding - reach, stride) + 1
  if (outputs - 1) * stride >= size + padding: outputs -= 1
  return padding, max(padding, (outputs - 1) * stride + reach - size - padding)

def max_pool2d(input: Tensor, kernel_size: Ints, stride: Ints | None = None, padding: Ints = 0, dilation: Ints = 1,
               ceil_mode: bool = False, return_indices: bool = False) -> Any:
  """(..., H, W) -> (..., H', W'), the maximum of each window; padding counts as -inf. Of equal elements only the first
  gets the gradient. With return_indices also where each was: its place in the flattened (H, W), int64."""
  kernel, dilations = as_tuple(kernel_size, 2, "kernel_size"), as_tuple(dilation, 2, "dilation")
  strides, pads = as_tuple(stride or kernel_size, 2, "stride"), as_tuple(padding, 2, "padding")
  widths = [pool_widths(*row, ceil_mode) for row in zip(input.shape[-2:], kernel, strides, pads, dilations)]
  check_windows(input, kernel, dilations, widths)
  lowest = -math.inf if input.dtype.is_floating_point else input.dtype.min
  around = [(0, 0)] * (input.ndim - 2) + widths
  seen = windows(input.pad(around, lowest), kernel, strides, dilations).flatten(-2)
  values, chosen = seen.max(-1)
  if not return_indices: return values
  places = arange(prod(input.shape[-2:]), device=input.device).reshape(input.shape[-2:]).pad(widths)
  places = windows(places, kernel, strides, dilations).flatten(-2)                             # (H', W', KH*KW)
  return values, places.expand(*seen.shape).gather(-1, chosen.unsqueeze(-1)).squeeze(-1)

def avg_pool2d(input: Tensor, kernel_size: Ints, stride: Ints | None = None, padding: Ints = 0, ceil_mode: bool = False,
               count_include_pad: bool = True, divisor_override: int | None = None) -> Tensor:
  """(..., H, W) -> (..., H', W'), the mean of each window. Padding counts as zeros, or not at all where
  count_include_pad is False; what ceil_mode adds never counts."""
  kernel, pads = as_tuple(kernel_size, 2, "kernel_size"), as_tuple(padding, 2, "padding")
  strides = as_tuple(stride or kernel_size, 2, "stride")
  widths = [pool_widths(*row, 1, ceil_mode) for row in zip(input.shape[-2:], kernel, strides, pads)]
  check_windows(input, kernel, (1, 1), widths)
  total = windows(input.pad([(0, 0)] * (input.ndim - 2) + widths), kernel, strides, (1, 1)).sum((-2, -1))
  if not input.dtype.is_floating_point: return total.div(divisor_override or prod(kernel), rounding_mode="trunc")
  if divisor_override is not None: return total / divisor_override
  counted = [(p, p) if count_include_pad else (0, 0) for p in pads]
  if counted == widths: return total / prod(kernel)
  sizes = [n + lo + hi for n, (lo, hi) in zip(input.shape[-2:], counted)]
  present = ones(*sizes, dtype=input.dtype, device=input.device)
  rest = [(w[0] - c[0], w[1] - c[1]) for w, c in zip(widths, counted)]
  return total / windows(present.pad(rest), kernel, strides, (1, 1)).sum((-2, -1))

# ---- losses ----------------------------------------------------------------------------------------------------------

REDUCTIONS = {"none": lambda loss: loss, "mean": lambda loss: loss.mean(), "sum": lambda loss: loss.sum()}

def reduce_loss(loss: Tensor, reduction: str) -> Tensor:
  if reduction not in REDUCTIONS: raise ValueError(f"{reduction} is not a valid value for reduction")
  return REDUCTIONS[reduction](loss)

def same_shape(input: Tensor, target: Tensor) -> None:
  if tuple(input.shape) != tuple(target.shape):
    raise ValueError(f"Target size ({tuple(target.shape)}) must be the same as input size ({tuple(input.shape)})")

def mse_loss(input: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
  """The mean squared distance; reduction 'sum' or 'none' leaves the mean out."""
  input, target = for_sums(input, target)
  return reduce_loss((input - target) * (input - target), reduction)

def l1_loss(input: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
  """The mean distance; reduction 'sum' or 'none' leaves the mean out."""
  input, target = for_sums(input, target)
  return reduce_loss((input - target).abs(), reduction)

def binary_cross_entropy(input: Tensor, target: Tensor, weight: Tensor | None = None,
                         reduction: str = "mean") -> Tensor:
  """-(t*log(p) + (1-t)*log(1-p)), the logarithms at least -100. ValueError where the shapes differ."""
  same_shape(input, target)
  loss = -(target * input.log().clamp(min=-100) + (1 - target) * (1 - input).log().clamp(min=-100))
  return reduce_loss(loss if weight is None else loss * weight, reduction)

def binary_cross_entropy_with_logits(input: Tensor, target: Tensor, weight: Tensor | None = None,
                                     reduction: str = "mean", pos_weight: Tensor | None = None) -> Tensor:
  """(1-t)*x + w*softplus(-x), w = 1 + (pos_weight-1)*t and softplus(-x) = max(-x,0) + log(1 + exp(-|x|))."""
  input, target = for_sums(input, target)
  same_shape(input, target)
  softened = (-input).maximum(zeros_like(input)) + input.abs().neg().exp().log1p()
  if pos_weight is not None: softened = softened * (1 + (pos_weight - 1) * target)
  loss = (1 - target) * input + softened
  return reduce_loss(loss if weight is None else loss * weight, reduction)

def class_mask(x: Tensor, target: Tensor) -> Tensor:
  """(N, C, ...) of bool from classes (N, ...): true at the target's class. ValueError where the shapes do not fit."""
  if (*x.shape[:1], *x.shape[2:]) != tuple(target.shape):
    raise ValueError(f"Expected target size {[*x.shape[:1], *x.shape[2:]]}, got {list(target.shape)}")
  classes = arange(x.shape[1], device=x.device).reshape(1, -1, *(1,) * (x.ndim - 2))
  return classes == target.unsqueeze(1)

def class_weights(x: Tensor, target: Tensor, weight: Tensor | None, ignore_index: int) -> Tensor:
  """The weight of each target: 0 where it is ignored; NaN where it names no class: no wrong loss goes unseen."""
  if weight is None: chosen = ones(*target.shape, dtype=x.dtype, device=x.device)
  else: chosen = where(class_mask(x, target), per_channel(weight, x.ndim), 0).sum(1)
  known = (target >= 0) & (target < x.shape[1])
  return where(target == ignore_index, 0, where(known, chosen, math.nan))

def reduce_classes(loss: Tensor, weights: Tensor, reduction: str) -> Tensor:
  """loss per target, already weighted; the mean divides by the sum of the weights."""
  return loss.sum() / weights.sum() if reduction == "mean" else reduce_loss(loss, reduction)

def nll_loss(input: Tensor, target: Tensor, weight: Tensor | None = None, ignore_index: int = -100,
             reduction: str = "mean") -> Tensor:
  """-input at the target's class: log-probabilities (N, C, ...) or (C,), classes (N, ...) or ()."""
  input, = for_sums(input)
  if input.ndim == 1:
    loss = nll_loss(input.unsqueeze(0), target.unsqueeze(0), weight, ignore_index, reduction)
    return loss.squeeze(0) if reduction == "none" else loss
  weights = class_weights(input, target, weight, ignore_index)
  picked = where(class_mask(input, target), input, 0).sum(1)
  return reduce_classes(where(target == ignore_index, 0, -picked * weights), weights, reduction)

def cross_entropy(input: Tensor, target: Tensor, weight: Tensor | None = None, ignore_index: int = -100,
                  reduction: str = "mean", label_smoothing: float = 0.0) -> Tensor:
  """Logits (N, C, ...) or (C,) against classes (N, ...) or (), or probabilities of the logits' shape. By
  -log softmax(x)[t] = logsumexp(x) - x[t], the softmax itself is never formed. label_smoothing mixes in the uniform
  distribution over classes."""
  input, = for_sums(input)
  if input.ndim == 1:
    loss = cross_entropy(input.unsqueeze(0), target.unsqueeze(0), weight, ignore_index, reduction, label_smoothing)
    return loss.squeeze(0) if reduction == "none" else loss
  if target.dtype.is_floating_point: return soft_cross_entropy(input, target, weight, reduction, label_smoothing)
  total = input.logsumexp(1)                                                                   # (N, ...)
  weights = class_weights(input, target, weight, ignore_index)
  picked = where(class_mask(input, target), input, 0).sum(1)
  loss = (total - picked) * weights * (1 - label_smoothing)
  if label_smoothing:
    scale = 1.0 if weight is None else per_channel(weight, input.ndim)
    loss = loss + ((total.unsqueeze(1) - input) * scale).mean(1) * label_smoothing
  return reduce_classes(where(target == ignore_index, 0, loss), weights, reduction)

def soft_cross_entropy(x: Tensor, target: Tensor, weight: Tensor | None, reduction: str,
                       label_smoothing: float) -> Tensor:
  """-sum over classes of target * log softmax(x); the mean is over targets."""
  same_shape(x, target)
  if label_smoothing: target = target * (1 - label_smoothing) + label_smoothing / x.shape[1]
  if weight is not None: target = target * per_channel(weight, x.ndim)
  return reduce_loss(-(target * log_softmax(x, 1)).sum(1), reduction)

# ---- attention -------------------------------------------------------------------------------------------------------

def scaled_dot_product_attention(query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None,
                                 dropout_p: float = 0.0, is_causal: bool = False, scale: float | None = None,
                                 enable_gqa: bool = False) -> Tensor:
  """softmax(q @ k^T * scale + mask) @ v: query (..., H, L, E), key (..., H, S, E), value (..., H, S, Ev) ->
  (..., H, L, Ev). A bool mask keeps where it is true, a float mask is added; is_causal keeps column <= row. enable_gqa:
  key and value have fewer heads, each of which serves H/heads neighbours. scale is 1/sqrt(E) by default."""
  if attn_mask is not None and is_causal: raise RuntimeError("attn_mask and is_causal cannot both be given")
  query, key, value = for_product(query, key, value)
  if enable_gqa: key, value = share_heads(key, query.shape[-3]), share_heads(value, query.shape[-3])
  factor = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
  scores = (query @ key.transpose(-2, -1)) * factor                                            # (..., H, L, S)
  if is_causal:
    rows = arange(query.shape[-2], device=query.device).unsqueeze(-1)
    scores = where(arange(key.shape[-2], device=query.device) <= rows, scores, -math.inf)
  elif attn_mask is not None:
    scores = where(attn_mask, scores, -math.inf) if attn_mask.dtype is dtypes.bool else scores + attn_mask
  return dropout(scores.softmax(-1, dtype=scores.dtype), dropout_p) @ value

def share_heads(x: Tensor, heads: int) -> Tensor:
  """(..., h, S, E) -> (..., heads, S, E): each head repeated heads/h times in a row."""
  *batch, h, s, e = x.shape
  if heads % h: raise RuntimeError(f"enable_gqa: {heads} query heads are no multiple of {h} key heads")
  return x.unsqueeze(-3).expand(*batch, h, heads // h, s, e).reshape(*batch, heads, s, e)
