# printing.py: a host array as torch prints it. In: a NumPy array. Out: text. Four decimals, one width for all elements,
# whole numbers as `1.`, scientific notation where the magnitudes differ by more than 1000, `...` above 1000 elements.
from __future__ import annotations
from typing import Any, Callable
import numpy as np

LINE_WIDTH, THRESHOLD, EDGE, DIGITS = 80, 1000, 3, 4
Format = Callable[[Any], str]

def array_text(data: np.ndarray, indent: int) -> str:
  """The nested brackets of an array; lines after the first are indented."""
  summarise = data.size > THRESHOLD
  return nested(data, indent, choose_format(corners(data) if summarise else data), summarise)

def corners(data: np.ndarray) -> np.ndarray:
  """The elements that a summary shows."""
  for axis, n in enumerate(data.shape):
    if n > 2 * EDGE: data = np.take(data, [*range(EDGE), *range(n - EDGE, n)], axis)
  return data

def choose_format(data: np.ndarray) -> Format:
  """One format for all elements, right-aligned to the widest (of floats: the widest that is finite and not zero)."""
  is_float = data.dtype.kind == "f"
  one: Format = choose_float_format(data) if is_float else str
  sized = data[np.isfinite(data) & (data != 0)] if is_float else data.reshape(-1)
  width = max((len(one(v)) for v in sized), default=0)
  return lambda v: one(v).rjust(width)

def choose_float_format(data: np.ndarray) -> Format:
  sizes = np.abs(data[np.isfinite(data) & (data != 0)].astype(np.float64))
  if not sizes.size: return whole
  low, high = sizes.min(), sizes.max()
  is_whole = bool((sizes == np.ceil(sizes)).all())
  if high / low > 1000 or high > 1e8 or (low < 1e-4 and not is_whole): return lambda v: f"{v:.{DIGITS}e}"
  return whole if is_whole else lambda v: f"{v:.{DIGITS}f}"

def whole(v: Any) -> str: return f"{v:.0f}." if np.isfinite(v) else f"{v:.0f}"

def nested(data: np.ndarray, indent: int, one: Format, summarise: bool) -> str:
  if data.ndim == 0: return one(data[()]).strip()
  n = len(data)
  hidden = summarise and n > 2 * EDGE
  shown = [*data[:EDGE], *data[n - EDGE:]] if hidden else list(data)
  if data.ndim == 1: return "[" + row_text([one(v) for v in shown], indent, hidden) + "]"
  parts = [nested(part, indent + 1, one, summarise) for part in shown]
  if hidden: parts.insert(EDGE, "...")
  return "[" + ("," + "\n" * (data.ndim - 1) + " " * (indent + 1)).join(parts) + "]"

def row_text(items: list[str], indent: int, hidden: bool) -> str:
  """Elements between commas, as many on a line as fit."""
  width = max((len(item) for item in items), default=0) + 2
  if hidden: items.insert(EDGE, " ...")
  per_line = max(1, (LINE_WIDTH - indent) // width)
  lines = [", ".join(items[k:k + per_line]) for k in range(0, len(items), per_line)]
  return (",\n" + " " * (indent + 1)).join(lines)
