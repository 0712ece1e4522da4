# compat.py: switches of torch that programs set and that change nothing here: all graphs are compiled, float32 stays.
from __future__ import annotations
import contextlib
from typing import Any
from picograd.library import Tensor

class autocast(contextlib.ContextDecorator):
  """Accepted and ignored: a tensor computes in its own dtype, and sums of 16-bit floats in float32."""
  def __init__(self, *args: Any, **kwargs: Any): pass
  def __enter__(self) -> "autocast": return self
  def __exit__(self, *_: Any) -> None: pass

class Precision:
  float32_matmul = "highest"
def set_float32_matmul_precision(precision: str) -> None: Precision.float32_matmul = precision
def get_float32_matmul_precision() -> str: return Precision.float32_matmul

def is_tensor(x: Any) -> bool: return isinstance(x, Tensor)
def numel(x: Tensor) -> int: return x.numel()
