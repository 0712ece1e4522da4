# dlpack.py: torch.utils.dlpack: see library/sharing.py.
from __future__ import annotations
from typing import Any
from picograd.library import Tensor, from_dlpack as from_dlpack

def to_dlpack(tensor: Tensor) -> Any:
  """A capsule over the tensor's memory, which from_dlpack of another library takes once."""
  return tensor.__dlpack__()
