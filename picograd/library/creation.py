# creation.py: tensors from sizes and from other tensors, beside the core's tensor, full, zeros, ones and arange.
from __future__ import annotations
import numpy as np
from picograd.arithmetic import iota_along
from picograd.common import Default, device, sizes_of
from picograd.dtype import DType, dtypes
from picograd.ops.uop import UOp
from picograd.tensor import Tensor, created, full, tensor, zeros

empty = zeros
def from_numpy(data: np.ndarray) -> Tensor:
  """A copy of an array: a write to it is not seen; from_dlpack shares memory."""
  return tensor(data)

def full_like(x: Tensor, fill_value, dtype: DType | None = None, device=None, **options) -> Tensor:
  """fill_value in x's shape, dtype and on its device, unless others are given."""
  return full(tuple(x.shape), fill_value, dtype or x.dtype, device=device or x.device, **options)
def zeros_like(x: Tensor, **options) -> Tensor:
  """Zeros in x's shape, dtype and on its device, unless others are given."""
  return full_like(x, 0, **options)
def ones_like(x: Tensor, **options) -> Tensor:
  """Ones in x's shape, dtype and on its device, unless others are given."""
  return full_like(x, 1, **options)
empty_like = zeros_like

def linspace(start, end, steps: int, dtype: DType | None = None, **options) -> Tensor:
  """steps numbers from start to end, both included; each half counts from its own end. Integers are rounded to zero."""
  dtype = dtype or Default.dtype
  start, end = (x.item() if isinstance(x, Tensor) else x for x in (start, end))
  if dtype.is_int: start, end = int(start), int(end)
  step = (end - start) / max(1, steps - 1)
  line = UOp.iota(steps, dtypes.int32).cast(dtypes.float64 if dtype.is_int else dtype)
  rising = line * step + start
  falling = end - (steps - 1 - line) * step
  values = (line < max(1, steps // 2)).where(rising, falling)
  return created(values.cast(dtype), **options)

def identity_mask(n: int, m: int) -> UOp:
  """True where row == column."""
  rows = iota_along((n, m), 0)
  columns = iota_along((n, m), 1)
  return rows.eq(columns)

def eye(n: int, m: int | None = None, dtype: DType | None = None, **options) -> Tensor:
  """(n, m), m = n by default: ones on the diagonal, zeros elsewhere."""
  mask = identity_mask(n, n if m is None else m)
  return created(mask.cast(dtype or Default.dtype), **options)

def meshgrid(*tensors, indexing: str = "ij") -> tuple[Tensor, ...]:
  alone = len(tensors) == 1 and not isinstance(tensors[0], Tensor)
  lines = list(tensors[0] if alone else tensors)
  shape = [len(x) for x in lines]
  ones = [1] * len(lines)
  columns = [x.reshape([-1, *ones[i + 1:]]) for i, x in enumerate(lines)]
  grids = [column.expand(shape) for column in columns]
  if indexing == "xy" and len(grids) > 1:
    grids = [g.transpose(0, 1) for g in grids]
  return tuple(grids)

# ---- like a tensor ---------------------------------------------------------------------------------------------------

def new_full(self: Tensor, size, value, dtype: DType | None = None, device=None, **options) -> Tensor:
  return full(size, value, dtype or self.dtype, device=device or self.device, **options)
def new_zeros(self: Tensor, *sizes, **options) -> Tensor:
  return new_full(self, sizes_of(sizes), 0, **options)
def new_ones(self: Tensor, *sizes, **options) -> Tensor:
  return new_full(self, sizes_of(sizes), 1, **options)
new_empty = new_zeros
def new_tensor(self: Tensor, data, dtype: DType | None = None, device=None, **options) -> Tensor:
  return tensor(data, dtype=dtype or self.dtype, device=device or self.device, **options)

# ---- dtype and device ------------------------------------------------------------------------------------------------

def type_as(self: Tensor, other: Tensor) -> Tensor:
  return self.to(other.dtype)
def cpu(self: Tensor) -> Tensor:
  return self.to(device="cpu")
def cuda(self: Tensor, index: int | None = None) -> Tensor:
  return self.to(device=device("cuda", index))
def is_cuda(self: Tensor) -> bool:
  return self.device.type == "cuda"
def pin_memory(self: Tensor) -> Tensor: return self
def element_size(self: Tensor) -> int:
  return self.dtype.itemsize
