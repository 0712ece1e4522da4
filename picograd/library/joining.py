# joining.py: several tensors from one, and one from several.
from __future__ import annotations
import itertools
from typing import Iterable, Sequence
from picograd.arithmetic import add, convert, stored
from picograd.common import axis_of, either_spelling
from picograd.helpers import ceildiv
from picograd.ops.shape import broadcast
from picograd.ops.uop import UOp
from picograd.ops.windows import widened
from picograd.tensor import Tensor, common_device, moved_to, result, result_type

GROUP = 16           # more pieces than this are joined in groups, each of which is stored

@either_spelling
def cat(tensors: Iterable[Tensor], dim: int = 0) -> Tensor:
  """One after the other along dim."""
  given = list(tensors)
  if not given: raise RuntimeError("torch.cat(): expected a non-empty list of Tensors")
  parts = [t for t in given if tuple(t.shape) != (0,)] or given[:1]
  axis = axis_of(dim, parts[0].ndim)
  for t in parts: check_sizes(t, parts[0], axis)
  home = common_device(parts)
  dtype = result_type(*parts)
  pieces = [convert(moved_to(t, home), dtype) for t in parts]
  while len(pieces) > GROUP: pieces = [stored(joined(group, axis)) for group in in_groups(pieces, GROUP)]
  return result(joined(pieces, axis), *parts, device=home)

def check_sizes(t: Tensor, first: Tensor, axis: int) -> None:
  if t.ndim == first.ndim and all(n == m for d, (n, m) in enumerate(zip(t.shape, first.shape)) if d != axis):
    return
  raise RuntimeError(f"Sizes of tensors must match except in dimension {axis}: {list(t.shape)} and {list(first.shape)}")

def joined(pieces: Sequence[UOp], axis: int) -> UOp:
  """Each padded to its place, all added up in a balanced tree."""
  sizes = [u.shape[axis] for u in pieces]
  total, starts = sum(sizes), itertools.accumulate(sizes, initial=0)
  padded = [widened(u, axis, low, total - low - n) for u, n, low in zip(pieces, sizes, starts)]
  while len(padded) > 1:
    padded = [add(*pair) if len(pair) == 2 else pair[0] for pair in in_groups(padded, 2)]
  return padded[0]

def in_groups(xs: Sequence[UOp], n: int) -> list[Sequence[UOp]]:
  return [xs[i:i + n] for i in range(0, len(xs), n)]

@either_spelling
def stack(tensors: Iterable[Tensor], dim: int = 0) -> Tensor:
  """Tensors of one shape along a new dimension. RuntimeError where shapes differ."""
  parts = list(tensors)
  shapes = dict.fromkeys(t.shape for t in parts)
  if len(shapes) > 1:
    raise RuntimeError("stack expects each tensor to be equal size, but got " + " and ".join(map(str, shapes)))
  return cat([t.unsqueeze(dim) for t in parts], axis_of(dim, parts[0].ndim + 1))

def hstack(tensors: Sequence[Tensor]) -> Tensor:
  return cat(tensors, 0 if tensors[0].ndim < 2 else 1)
def vstack(tensors: Sequence[Tensor]) -> Tensor:
  return cat([t if t.ndim > 1 else t.reshape(1, -1) for t in tensors], 0)

def broadcast_tensors(*tensors: Tensor) -> tuple[Tensor, ...]:
  shape = broadcast(*(t.sizes for t in tensors))
  return tuple(t.expand(shape) for t in tensors)

def split(self: Tensor, split_size_or_sections, dim=0) -> tuple[Tensor, ...]:
  """Parts of one size (the last may be smaller), or of the given sizes."""
  n, sizes = self.size(dim), split_size_or_sections
  if isinstance(sizes, int):
    sizes = [min(sizes, n - low) for low in range(0, max(n, 1), sizes)]
  if sum(sizes) != n:
    raise RuntimeError(f"split_with_sizes expects split_sizes to sum exactly to {n} (input tensor's size at dimension "
                       f"{dim}), but got split_sizes={list(sizes)}")
  starts = itertools.accumulate(sizes, initial=0)
  return tuple(self.narrow(dim, low, size) for low, size in zip(starts, sizes))

def chunk(self: Tensor, chunks, dim=0) -> tuple[Tensor, ...]:
  return split(self, max(1, ceildiv(self.size(dim), chunks)), dim)

def roll(self: Tensor, shifts, dims=None) -> Tensor:
  """Elements move by shifts along dims; what leaves at the end comes in at the start."""
  if dims is None: return roll(self.flatten(), shifts, 0).reshape(self.shape)
  out = self
  for shift, dim in zip(as_list(shifts), as_list(dims)):
    n = self.size(dim)
    low = -shift % n if n else 0
    if low:
      out = cat([out.narrow(dim, low, n - low), out.narrow(dim, 0, low)], dim)
  return out
def as_list(x) -> list[int]: return [x] if isinstance(x, int) else list(x)
