# printing.py: a tensor as torch prints it. In: a tensor, whose value is computed. Out: text. Four decimals, one width
# for all elements, whole numbers as `1.`, scientific notation where the magnitudes differ by more than 1000, `...` for
# the middle of more than 1000 elements.
from __future__ import annotations
from typing import Any, Callable
import numpy as np
from picograd.common import Default
from picograd.dtype import dtypes
from picograd.helpers import DEVICE
from picograd.tensor import Tensor

LINE_WIDTH, THRESHOLD, EDGE, DIGITS = 80, 1000, 3, 4
Format = Callable[[Any], str]

def __repr__(self: Tensor) -> str:
  data = self.host()
  notes = [array_text(data, len("tensor(")) if data.size else "[]"]
  if not data.size and self.ndim != 1: notes.append(f"size={tuple(self.shape)}")
  if self.dtype not in (Default.dtype, dtypes.int64, dtypes.bool): notes.append(f"dtype=picograd.{self.dtype.name}")
  if self.storage.device != DEVICE.value: notes.append(f"device='{self.device}'")
  if self.requires_grad: notes.append("requires_grad=True")
  return f"tensor({', '.join(notes)})"

def array_text(data: np.ndarray, indent: int) -> str:
  """The nested brackets of an array; lines after the first are indented."""
  edge = EDGE if data.size > THRESHOLD else data.size                    # how many elements show at each end of an axis
  return nested(data, indent, choose_format(corners(data, edge)), edge)

def corners(data: np.ndarray, edge: int) -> np.ndarray:
  """The elements that are shown."""
  for axis, n in enumerate(data.shape):
    if n > 2 * edge: data = np.take(data, [*range(edge), *range(n - edge, n)], axis)
  return data

def choose_format(data: np.ndarray) -> Format:
  """One format for all elements, right-aligned to the widest (of floats: the widest that is finite and not zero)."""
  one: Format = str
  sized = data.reshape(-1)
  if data.dtype.kind == "f":
    sized = data[np.isfinite(data) & (data != 0)]
    one = choose_float_format(np.abs(sized.astype(np.float64)))
  width = max((len(one(v)) for v in sized), default=0)
  return lambda v: one(v).rjust(width)

def choose_float_format(sizes: np.ndarray) -> Format:
  """The format for floats of these magnitudes."""
  if not sizes.size: return whole
  low, high = sizes.min(), sizes.max()
  is_whole = bool((sizes == np.ceil(sizes)).all())
  if high / low > 1000 or high > 1e8: return scientific
  if is_whole: return whole
  return scientific if low < 1e-4 else fixed

def whole(v) -> str: return f"{v:.0f}." if np.isfinite(v) else f"{v:.0f}"
def fixed(v) -> str: return f"{v:.{DIGITS}f}"
def scientific(v) -> str: return f"{v:.{DIGITS}e}"

def nested(data: np.ndarray, indent: int, one: Format, edge: int) -> str:
  if data.ndim == 0: return one(data[()]).strip()
  n = len(data)
  hidden = n > 2 * edge
  shown = [*data[:edge], *data[n - edge:]] if hidden else list(data)
  if data.ndim == 1:
    items = [one(v) for v in shown]
    if hidden: items.insert(edge, " ...")
    return "[" + row_text(items, indent) + "]"
  parts = [nested(part, indent + 1, one, edge) for part in shown]
  if hidden: parts.insert(edge, "...")
  separator = "," + "\n" * (data.ndim - 1) + " " * (indent + 1)
  return "[" + separator.join(parts) + "]"

def row_text(items: list[str], indent: int) -> str:
  """Elements between commas, as many on a line as fit."""
  width = max((len(item) for item in items), default=0) + 2
  per_line = max(1, (LINE_WIDTH - indent) // width)
  lines = [", ".join(items[k:k + per_line]) for k in range(0, len(items), per_line)]
  separator = ",\n" + " " * (indent + 1)
  return separator.join(lines)
