# matrices.py: products with a name of their own, diagonals and triangles.
from __future__ import annotations
from picograd.arithmetic import iota_along, stretch
from picograd.dtype import dtypes
from picograd.indexing import Span, strided_steps
from picograd.library.creation import identity_mask
from picograd.ops.ops import Ops
from picograd.ops.uop import UOp
from picograd.tensor import Tensor, matmul, result

def mm(self: Tensor, other: Tensor) -> Tensor:
  return matmul(self, other)
def mv(self: Tensor, vector: Tensor) -> Tensor:
  return matmul(self, vector)
def outer(self: Tensor, other: Tensor) -> Tensor:
  return self.unsqueeze(1) * other.unsqueeze(0)

def bmm(self: Tensor, other: Tensor) -> Tensor:
  if self.ndim == other.ndim == 3:
    return matmul(self, other)
  raise RuntimeError(f"bmm needs two 3-D tensors, not {list(self.shape)} and {list(other.shape)}")

def dot(self: Tensor, other: Tensor) -> Tensor:
  if self.ndim == other.ndim == 1:
    return matmul(self, other)
  raise RuntimeError(f"1D tensors expected, but got {self.ndim}D and {other.ndim}D tensors")

def diagonal(self: Tensor, offset=0, dim1=0, dim2=1) -> Tensor:
  """The elements [i, i+offset] of two dimensions, as the last dimension."""
  x = self.movedim((dim1, dim2), (-2, -1))
  rows, columns = x.shape[-2:]
  low, high = max(0, -offset), max(0, offset)
  n = max(0, min(rows - low, columns - high))
  square = x[..., low:low + n, high:high + n]
  *others, down, right = square.stride()
  flat = (*square.shape[:-2], n * n)                                   # in which it is each (n + 1)-th element
  spans = [Span(0, m, 1) for m in flat[:-1]] + [Span(0, n, n + 1)]
  return square.see([(Ops.RESHAPE, flat), *strided_steps(flat, spans)], (*others, down + right))

def trace(self: Tensor) -> Tensor:
  return diagonal(self).sum()

def diag(self: Tensor, diagonal=0) -> Tensor:
  """The diagonal of a matrix, or the matrix with this diagonal."""
  if self.ndim == 2: return self.diagonal(diagonal)
  n, down, right = len(self), max(0, -diagonal), max(0, diagonal)
  column = stretch(self.uop.reshape((n, 1)), (n, n))
  square = result(identity_mask(n, n).where(column, 0), self)
  return square.pad([(down, right), (right, down)])

def lower(x: UOp, diagonal: int) -> UOp:
  """Where the column is at most the row + diagonal, in the shape of x."""
  rows, columns = (iota_along(x.shape, len(x.shape) - d, dtypes.int64) for d in (2, 1))
  return (rows + diagonal < columns).not_()
def tril(self: Tensor, diagonal=0) -> Tensor:
  return self.map(lambda x: lower(x, diagonal).where(x, 0))
def triu(self: Tensor, diagonal=0) -> Tensor:
  return self.map(lambda x: lower(x, diagonal - 1).where(0, x))
