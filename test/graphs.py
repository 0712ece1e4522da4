# graphs.py: tensor-form graphs for the tests of passes, built without Tensor, and their values by NumPy in float64.
from __future__ import annotations
import numpy as np
from picograd.dtype import DType, dtypes
from picograd.ops.ops import Ops
from picograd.ops.uop import UOp
from picograd.runtime.device import buffer_from_host, to_host
from picograd.runtime.realize import realize

def random(*shape: int, seed: int = 0) -> np.ndarray:
  return np.random.default_rng(seed).uniform(-2, 2, shape).astype(np.float32)

def leaf(array: np.ndarray, device: str = "CPU") -> UOp:
  """An array as a BUFFER in its shape."""
  return buffer_from_host(array, DType.rows[array.dtype.name], device).reshape(array.shape)

def value(u: UOp) -> np.ndarray: return to_host(realize([u])[0]).reshape(u.shape)

def total(x: UOp, *axes: int) -> UOp: return x.reduce(Ops.ADD, axes)

def matmul(a: UOp, b: UOp) -> UOp:
  (m, k), n = a.shape, b.shape[1]
  left = a.reshape((m, 1, k)).expand((m, n, k))
  right = b.permute((1, 0)).reshape((1, n, k)).expand((m, n, k))
  return (left * right).reduce(Ops.ADD, (2,)).reshape((m, n))

def softmax2(x: UOp) -> UOp:
  """2**x along the rows, normalised."""
  shifted = x - x.reduce(Ops.MAX, (1,)).expand(x.shape)
  powers = shifted.alu(Ops.EXP2)
  return powers / total(powers, 1).expand(x.shape)

def softmax2_numpy(x: np.ndarray) -> np.ndarray:
  powers = np.exp2(x.astype(np.float64) - x.max(1, keepdims=True))
  return powers / powers.sum(1, keepdims=True)

def assign(target: UOp, new: UOp) -> UOp:
  """The flat buffer under `target` after target = new."""
  base = target
  while base.op not in (Ops.BUFFER, Ops.AFTER): base = base.src[0]
  return base.after(UOp(Ops.STORE, dtypes.void, (target, new)))

def close(got: np.ndarray, want: np.ndarray, tolerance: float = 1e-5) -> None:
  np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance)
