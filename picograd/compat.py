# compat.py: switches of torch that programs set.
from __future__ import annotations
from typing import Any
from picograd.common import Autocast, Precision, changed
from picograd.dtype import DType, dtypes
from picograd.library import Tensor

class autocast(changed):
  """A block in which matrix products and attention compute with 16-bit operands (by default float16 on a GPU, bfloat16
  on a CPU), and norms, softmax and losses in float32, whatever dtype the parameters have."""
  def __init__(self, device_type: str, dtype: DType | None = None, enabled: bool = True, cache_enabled: bool = True):
    usual = dtypes.bfloat16 if device_type == "cpu" else dtypes.float16
    super().__init__(Autocast, "dtype", (dtype or usual) if enabled else None)

def set_float32_matmul_precision(precision: str) -> None:
  """Of float32 products. 'highest': they are exact. 'high', 'medium': matrix units may round operands to tf32."""
  if precision not in ("highest", "high", "medium"):
    raise ValueError(f"precision {precision!r}: 'highest', 'high' or 'medium' is expected")
  Precision.float32_matmul = precision
def get_float32_matmul_precision() -> str: return Precision.float32_matmul

def is_tensor(x: Any) -> bool: return isinstance(x, Tensor)
def numel(x: Tensor) -> int: return x.numel()
