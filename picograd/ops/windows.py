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
  first = len(x.shape) - len(size)
  for d, (k, stride, dilation) in enumerate(zip(size, *steps), first):
    x = windows_along(x, d, k, stride, dilation).movedim(d + 1, -1)
  return x

def windows_along(x: UOp, dim: int, size: int, stride: int, dilation: int) -> UOp:
  """Dimension dim of size i -> (o, size). The row of length i, repeated and cut into rows one dilation longer than a
  multiple of i, starts each row k at element k*dilation; every stride-th element of a row is one output."""
  i = x.shape[dim]
  outputs = (i - dilation * (size - 1) - 1) // stride + 1
  if not overlap(size, stride, dilation):
    x = crop(x, dim, 0, min(i, outputs * stride))
    x = widened(x, dim, 0, outputs * stride - x.shape[dim])
    return crop(split(x, dim, outputs, stride), dim + 1, 0, size)
  multiple = max(1, ceildiv(outputs * stride - dilation, i))
  row = multiple * i + dilation
  x = repeated(x, dim, ceildiv(size * row, i))
  x = split(crop(x, dim, 0, size * row), dim, size, row)
  x = split(crop(x, dim + 1, 0, outputs * stride), dim + 1, outputs, stride)
  x = split(crop(x, dim + 2, 0, 1), dim + 2)
  return x.movedim(dim, dim + 1)

def overlap(size: int, stride: int, dilation: int) -> bool:
  """Whether windows share elements, or lie between each other's."""
  return size > 1 and (dilation > 1 or size > stride)

def crop(x: UOp, dim: int, start: int, end: int) -> UOp:
  return x.shrink(tuple([(start, end) if d == dim else (0, n) for d, n in enumerate(x.shape)]))

def widened(x: UOp, dim: int, low: int, high: int) -> UOp:
  return x.pad(tuple([(low, high) if d == dim else (0, 0) for d in range(len(x.shape))]))

def split(x: UOp, dim: int, *sizes: int) -> UOp:
  """One dimension as several; a dimension of size 1 as none."""
  return x.reshape((*x.shape[:dim], *sizes, *x.shape[dim + 1:]))

def joined(x: UOp, dim: int) -> UOp:
  """A dimension and the next one as one."""
  return x.reshape((*x.shape[:dim], x.shape[dim] * x.shape[dim + 1], *x.shape[dim + 2:]))

def repeated(x: UOp, dim: int, times: int) -> UOp:
  """All of dimension dim, several times."""
  many = split(x, dim, 1, x.shape[dim])
  return joined(many.expand((*many.shape[:dim], times, *many.shape[dim + 1:])), dim)

def with_zeros_between(x: UOp, dim: int, stride: int) -> UOp:
  """stride-1 zeros between neighbours along dim: size i -> (i-1)*stride + 1."""
  i = x.shape[dim]
  x = widened(split(x, dim, i, 1), dim + 1, 0, stride - 1)
  return crop(joined(x, dim), dim, 0, (i - 1) * stride + 1)

# ---- windows times weights -------------------------------------------------------------------------------------------
# N: batch; G: groups, each with weights of its own; C: channels of a group; O: what becomes of them.

def correlate(x: UOp, w: UOp, steps: Steps) -> UOp:
  """x (N, G, C, i_1 ..) with w (G, O, C, k_1 ..) -> (N, G, O, o_1 ..), y[o] = the sum over C and k of
  x[o*stride + k*dilation] * w[k]."""
  first = 2 + len(steps.stride)                                                # of the dimensions that are summed
  seen = seen_by(x, w.shape, steps)                                            # (N, G, o_1 .., C, k_1 .., O)
  products = seen * weights_at(w, seen.shape[:first])
  total = products.reduce(Ops.ADD, tuple(range(first, len(seen.shape) - 1)))
  value = total.reshape((*total.shape[:first], w.shape[1])).movedim(-1, 2)
  if not any(map(overlap, w.shape[3:], *steps)): return value
  return UOp(Ops.DETACH, value.dtype, (value, x, w), (CORRELATION, steps))

def seen_by(x: UOp, weights: tuple[int, ...], steps: Steps) -> UOp:
  """(N, G, C, i_1 ..) -> (N, G, o_1 .., C, k_1 .., O): what each weight is multiplied by. Of the results, which the
  weights' gradient is stored like, the last dimension is the one that lanes divide best."""
  x = windows(x, weights[3:], steps).movedim(2, 2 + len(steps.stride))
  return x.reshape((*x.shape, 1)).expand((*x.shape, weights[1]))

def weights_at(w: UOp, outputs: tuple[int, ...]) -> UOp:
  """(G, O, C, k_1 ..) -> (N, G, o_1 .., C, k_1 .., O), for outputs (N, G, o_1 ..)"""
  w = w.movedim(1, -1)                                                         # (G, C, k_1 .., O)
  ones = (1,) * (len(outputs) - 2)
  return w.reshape((1, w.shape[0], *ones, *w.shape[1:])).expand((*outputs, *w.shape[1:]))

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
  backward = w.movedim(2, 1).flip(tuple(range(3, len(w.shape))))
  return correlate(g, backward, Steps((1,) * len(steps.stride), steps.dilation))

def by_weights(g: UOp, x: UOp, weights: tuple[int, ...], steps: Steps) -> UOp:
  """dw[k] = the sum over N and o of x[o*stride + k*dilation] * g[o]."""
  n = len(steps.stride)
  seen = seen_by(x, weights, steps)                                            # (N, G, o_1 .., C, k_1 .., O)
  g = g.movedim(2, -1)                                                         # (N, G, o_1 .., O)
  g = split(g, len(g.shape) - 1, *(1,) * (1 + n), g.shape[-1]).expand(seen.shape)
  total = (seen * g).reduce(Ops.ADD, (0, *range(2, 2 + n)))
  total = total.reshape((weights[0], *weights[2:], weights[1]))                # (G, C, k_1 .., O)
  return total.movedim(-1, 1)
