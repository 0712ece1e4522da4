# numba_kernels.py: what a user of numba would write for the rows that are limited by memory: loops over threads whose
# bodies LLVM may vectorise. The key is the workload's name, or its beginning.
from __future__ import annotations
import math
from typing import Any, Callable
import numba
import numpy as np
from numba import prange

parallel = numba.njit(parallel=True, fastmath=True)

def elementwise(formula: Callable[..., Any]) -> Callable[..., Any]:
  one = numba.njit(formula, fastmath=True, inline="always")
  @parallel
  def kernel(x: Any) -> Any:
    out = np.empty_like(x)
    for i in prange(x.size): out[i] = one(x[i])
    return out
  return kernel

@parallel
def relu_of_sum(a: Any, b: Any, c: Any) -> Any:
  out = np.empty_like(a)
  for i in prange(a.size): out[i] = max(a[i] * b[i] + c[i], np.float32(0))
  return out

@parallel
def softmax(x: Any) -> Any:
  out = np.empty_like(x)
  for i in prange(x.shape[0]):
    most, total = x[i].max(), np.float32(0)
    for j in range(x.shape[1]):
      out[i, j] = math.exp(x[i, j] - most)
      total += out[i, j]
    scale = np.float32(1) / total
    for j in range(x.shape[1]): out[i, j] *= scale
  return out

@parallel
def layernorm(x: Any, weight: Any, bias: Any) -> Any:
  out = np.empty_like(x)
  n = np.float32(x.shape[1])
  for i in prange(x.shape[0]):
    total, squares = np.float32(0), np.float32(0)
    for j in range(x.shape[1]): total += x[i, j]
    mean = total / n
    for j in range(x.shape[1]): squares += (x[i, j] - mean) ** 2
    scale = np.float32(1) / math.sqrt(squares / n + np.float32(1e-5))
    for j in range(x.shape[1]): out[i, j] = (x[i, j] - mean) * scale * weight[j] + bias[j]
  return out

@parallel
def rmsnorm(x: Any, weight: Any) -> Any:
  out = np.empty_like(x)
  for i in prange(x.shape[0]):
    squares = np.float32(0)
    for j in range(x.shape[1]): squares += x[i, j] * x[i, j]
    scale = np.float32(1) / math.sqrt(squares / np.float32(x.shape[1]) + np.float32(1e-5))
    for j in range(x.shape[1]): out[i, j] = x[i, j] * scale * weight[j]
  return out

@parallel
def sum_all(x: Any) -> Any:
  rows = np.empty(x.shape[0], np.float32)
  for i in prange(x.shape[0]): rows[i] = x[i].sum()
  return rows.sum()

@parallel
def sum_down(x: Any) -> Any:
  """Every thread adds the rows of its part of the columns."""
  columns = x.shape[1]
  out = np.zeros(columns, np.float32)
  width = (columns + numba.get_num_threads() - 1) // numba.get_num_threads()
  for part in prange(numba.get_num_threads()):
    for i in range(x.shape[0]):
      for j in range(part * width, min(columns, (part + 1) * width)): out[j] += x[i, j]
  return out

@parallel
def sum_across(x: Any) -> Any:
  out = np.empty(x.shape[0], np.float32)
  for i in prange(x.shape[0]): out[i] = x[i].sum()
  return out

@parallel
def transpose(x: Any) -> Any:
  """In blocks that fit the first cache."""
  out = np.empty((x.shape[1], x.shape[0]), x.dtype)
  for block in prange((x.shape[1] + 31) // 32):
    for i0 in range(0, x.shape[0], 32):
      for j in range(block * 32, min(x.shape[1], block * 32 + 32)):
        for i in range(i0, min(x.shape[0], i0 + 32)): out[j, i] = x[i, j]
  return out

@parallel
def matvec(x: Any, w: Any) -> Any:
  """x: (1, n), w: (m, n)"""
  out = np.empty((1, w.shape[0]), np.float32)
  for i in prange(w.shape[0]):
    total = np.float32(0)
    for j in range(w.shape[1]): total += x[0, j] * w[i, j]
    out[0, i] = total
  return out

SCALE = np.float32(math.sqrt(2 / math.pi))
KERNELS: dict[str, Callable[..., Any]] = {
  "relu(a * b + c)": relu_of_sum,
  "gelu (tanh)": elementwise(
    lambda x: np.float32(0.5) * x * (np.float32(1) + math.tanh(SCALE * (x + np.float32(0.044715) * x * x * x)))),
  "exp": elementwise(lambda x: math.exp(x)),
  "log": elementwise(lambda x: math.log(x)),
  "sin": elementwise(lambda x: math.sin(x)),
  "softmax": softmax,
  "layernorm": layernorm,
  "rmsnorm": rmsnorm,
  "sum": sum_all,
  "sum, axis 0": sum_down,
  "sum, axis 1": sum_across,
  "transpose, copied": transpose,
}

def kernel_for(name: str) -> Callable[..., Any] | None:
  is_matvec = name.startswith("1x") and name.endswith(".T")
  return matvec if is_matvec else KERNELS.get(name)
