# cuda.py: torch.cuda's names for programs that ask what the machine has: true where the registry has a CUDA device.
from __future__ import annotations
from typing import Any
from picograd.runtime import device

def is_available() -> bool:
  """Whether there is a GPU and its driver."""
  return "CUDA" in device.MODULES and device_count() > 0
def device_count() -> int:
  """How many devices answer; 0 where the driver is missing."""
  if "CUDA" not in device.MODULES: return 0
  try: return int(getattr(device.device("CUDA"), "count", 1))
  except (ImportError, RuntimeError, OSError): return 0
def synchronize(_: Any = None) -> None:
  """Waits until everything that was launched has run."""
  for opened in device.opened.values(): opened.synchronize()
def manual_seed(seed: int) -> None:
  """One generator serves all devices: torch.manual_seed."""
def manual_seed_all(seed: int) -> None:
  """One generator serves all devices: torch.manual_seed."""
def empty_cache() -> None:
  """Freed memory serves later requests of its size; nothing has to be given back."""
def is_bf16_supported() -> bool: return True
