# windows.py: windows over the last dimensions of a tensor, and what convolutions are made of: the sum of windows times
# weights. In and out: tensor form. The derivative of that sum by its input is such a sum again, of the gradient with
# the flipped weights: no chain rule of movement ops would find loops as plain.
from __future__ import annotations
from typing import NamedTuple, Sequence
from picograd.helpers import ceildiv
from picograd.ops.ops import Ops
from picograd.ops.uop import UOp

CORRELATION = "correlation"        # DETACH(value, x, w) with (this, steps) is correlate(x, w, steps)

class Steps(NamedTuple):
  """From window to window, and from element to element of a window, along each dimension."""
  stride: tuple[int, ...]
  dilation: tuple[int, ...]

def windows(x: UOp, size: Sequence[int], steps: Steps) -> UOp:
  """(..., i_1 .. i_n) -> (..., o_1 .. o_n, k_1 .. k_n), y[o, k] = x[o*stride + k*dilation], by movement ops only."""
  n, kept = len(size), len(x.shape) - len(size)
  for j in range(n): x = windows_along(x, kept + 2 * j, size[j], steps.stride[j], steps.dilation[j])
  return x.permute((*range(kept), *range(kept, kept + 2 * n, 2), *range(kept + 1, kept + 2 * n, 2)))

def windows_along(x: UOp, dim: int, size: int, stride: int, dilation: int) -> UOp:
  """Dimension dim of size i -> (o, size). The row of length i, repeated and cut into rows one dilation longer than a
  multiple of i, starts each row k at element k*dilation; every stride-th element of a row is one output."""
  i = x.shape[dim]
  outputs = (i - dilation * (size - 1) - 1) // stride + 1
  before, after = x.shape[:dim], x.shape[dim + 1:]
  if not overlap(size, stride, dilation):
    x = crop(x, dim, 0, min(i, outputs * stride))
    x = widened(x, dim, 0, outputs * stride - x.shape[dim])
    return crop(x.reshape((*before, outputs, stride, *after)), dim + 1, 0, size)
  multiple = max(1, ceildiv(outputs * stride - dilation, i))
  row = multiple * i + dilation
  repeats = ceildiv(size * row, i)
  x = x.reshape((*before, 1, i, *after)).expand((*before, repeats, i, *after)).reshape((*before, repeats * i, *after))
  x = crop(x, dim, 0, size * row).reshape((*before, size, row, *after))
  x = crop(x, dim + 1, 0, outputs * stride).reshape((*before, size, outputs, stride, *after))
  x = crop(x, dim + 2, 0, 1).reshape((*before, size, outputs, *after))
  return x.permute((*range(dim), dim + 1, dim, *range(dim + 2, len(x.shape))))

def overlap(size: int, stride: int, dilation: int) -> bool:
  """Whether windows share elements, or lie between each other's."""
  return size > 1 and (dilation > 1 or size > stride)

def crop(x: UOp, dim: int, start: int, end: int) -> UOp:
  return x.shrink(tuple([(start, end) if d == dim else (0, n) for d, n in enumerate(x.shape)]))

def widened(x: UOp, dim: int, low: int, high: int) -> UOp:
  return x.pad(tuple([(low, high) if d == dim else (0, 0) for d in range(len(x.shape))]))

def with_zeros_between(x: UOp, dim: int, stride: int) -> UOp:
  """stride-1 zeros between neighbours along dim: size i -> (i-1)*stride + 1."""
  before, i, after = x.shape[:dim], x.shape[dim], x.shape[dim + 1:]
  x = widened(x.reshape((*before, i, 1, *after)), dim + 1, 0, stride - 1)
  return crop(x.reshape((*before, i * stride, *after)), dim, 0, (i - 1) * stride + 1)

# ---- windows times weights -------------------------------------------------------------------------------------------
# N: batch; G: groups, each with weights of its own; C: channels of a group; O: what becomes of them.

def correlate(x: UOp, w: UOp, steps: Steps) -> UOp:
  """x (N, G, C, i_1 ..) with w (G, O, C, k_1 ..) -> (N, G, O, o_1 ..), y[o] = the sum over C and k of
  x[o*stride + k*dilation] * w[k]."""
  n = len(steps.stride)
  products = seen_by(x, w.shape, steps) * weights_at(w, x.shape[0], outputs_of(x, w, steps))
  total = products.reduce(Ops.ADD, tuple(range(2 + n, 3 + 2 * n)))
  channels_last = total.reshape((*total.shape[:2 + n], w.shape[1]))
  value = channels_last.permute((0, 1, 2 + n, *range(2, 2 + n)))
  if not any(map(overlap, w.shape[3:], *steps)): return value
  return UOp(Ops.DETACH, value.dtype, (value, x, w), (CORRELATION, steps))

def outputs_of(x: UOp, w: UOp, steps: Steps) -> tuple[int, ...]:
  return tuple([(i - d * (k - 1) - 1) // s + 1 for i, k, s, d in zip(x.shape[3:], w.shape[3:], *steps)])

def seen_by(x: UOp, weights: tuple[int, ...], steps: Steps) -> UOp:
  """(N, G, C, i_1 ..) -> (N, G, o_1 .., C, k_1 .., O): what each weight is multiplied by. Of the results, which the
  weights' gradient is stored like, the last dimension is the one that lanes divide best."""
  n = len(steps.stride)
  x = windows(x, weights[3:], steps).permute((0, 1, *range(3, 3 + n), 2, *range(3 + n, 3 + 2 * n)))
  return x.reshape((*x.shape, 1)).expand((*x.shape, weights[1]))

def weights_at(w: UOp, batch: int, outputs: tuple[int, ...]) -> UOp:
  """(G, O, C, k_1 ..) -> (N, G, o_1 .., C, k_1 .., O)"""
  w = w.permute((0, 2, *range(3, len(w.shape)), 1))
  groups, *rest = w.shape
  w = w.reshape((1, groups, *(1,) * len(outputs), *rest))
  return w.expand((batch, groups, *outputs, *rest))

def gradients_of_correlation(u: UOp, g: UOp) -> tuple[UOp, UOp]:
  """By x and by w, for g (N, G, O, o_1 ..)."""
  (_, x, w), (_, steps) = u.src, u.arg
  return by_input(g, x.shape, w, steps), by_weights(g, x, w.shape, steps)

def by_input(g: UOp, shape: tuple[int, ...], w: UOp, steps: Steps) -> UOp:
  """dx[i] = the sum over O and k of g[(i - k*dilation) / stride] * w[k], where that is an output: a correlation of g,
  with zeros between its elements and around them, with w from its end to its start."""
  for d, (i, k, s, dilation) in enumerate(zip(shape[3:], w.shape[3:], *steps), 3):
    g = with_zeros_between(g, d, s)
    g = widened(g, d, dilation * (k - 1), i - g.shape[d])
  backward = w.permute((0, 2, 1, *range(3, len(w.shape)))).flip(tuple(range(3, len(w.shape))))
  return correlate(g, backward, Steps((1,) * len(steps.stride), steps.dilation))

def by_weights(g: UOp, x: UOp, weights: tuple[int, ...], steps: Steps) -> UOp:
  """dw[k] = the sum over N and o of x[o*stride + k*dilation] * g[o]."""
  n = len(steps.stride)
  seen = seen_by(x, weights, steps)                                            # (N, G, o_1 .., C, k_1 .., O)
  g = g.permute((0, 1, *range(3, 3 + n), 2))
  g = g.reshape((*g.shape[:-1], *(1,) * (1 + n), g.shape[-1])).expand(seen.shape)
  total = (seen * g).reduce(Ops.ADD, (0, *range(2, 2 + n)))
  total = total.reshape((weights[0], *weights[2:], weights[1]))                # (G, C, k_1 .., O)
  return total.permute((0, 2 + n, *range(1, 2 + n)))
