# elementwise.py: functions of one element at a time that are composed of operators on tensors.
from __future__ import annotations
from typing import Any
from picograd.arithmetic import Formula, convert, is_nan, round_half_even
from picograd.dtype import dtypes
from picograd.library import formulas
from picograd.ops.ops import Ops
from picograd.ops.uop import UOp
from picograd.tensor import Tensor, binary, float_dtype

def rsub(self: Tensor, other, alpha=1) -> Tensor:
  """other - alpha * self"""
  return other - self * alpha
def square(self: Tensor) -> Tensor: return self * self
def sign(self: Tensor) -> Tensor:
  return self.map_flat(formulas.sign)
def frac(self: Tensor) -> Tensor: return self - self.trunc()
def round(self: Tensor, decimals=0) -> Tensor:
  """To the nearest, ties to even."""
  if not decimals: return self.map_flat(round_half_even)
  return (self * 10.0**decimals).round() / 10.0**decimals
def atan2(self: Tensor, other) -> Tensor:
  return binary(formulas.atan2, self, other, float_dtype)
def lerp(self: Tensor, end: Tensor, weight) -> Tensor:
  return self + (end - self) * weight
def addcmul(self: Tensor, x, y, value=1) -> Tensor:
  return self + x * y * value
def addcdiv(self: Tensor, x, y, value=1) -> Tensor:
  return self + x / y * value

def raised(x: UOp, y: UOp) -> UOp:
  return (x < y).where(y, x)
def lowered(x: UOp, y: UOp) -> UOp:
  return (y < x).where(y, x)
def clamp(self: Tensor, min=None, max=None) -> Tensor:
  """Limited to [min, max]; the gradient passes where the limits are not exceeded."""
  if min is None and max is None: raise RuntimeError("clamp: at least one of min or max must not be None")
  low = self if min is None else binary(raised, self, min)
  return low if max is None else binary(lowered, low, max)

def truth(x: UOp) -> UOp:
  return convert(x, dtypes.bool)
def of_truth(op: Ops) -> Formula:
  return lambda x, y: truth(x).alu(op, truth(y))
def logical_not(self: Tensor) -> Tensor:
  return self.map(lambda x: truth(x).not_())
def logical_and(self: Tensor, other) -> Tensor:
  return binary(of_truth(Ops.AND), self, other)
def logical_or(self: Tensor, other) -> Tensor:
  return binary(of_truth(Ops.OR), self, other)
def logical_xor(self: Tensor, other) -> Tensor:
  return binary(of_truth(Ops.XOR), self, other)

def isfinite(self: Tensor) -> Tensor:
  return self.map(lambda x: (is_nan(x) | formulas.is_inf(x)).not_())
def nan_to_num(self: Tensor, nan=0.0) -> Tensor:
  return self.masked_fill(self.isnan(), nan)

def isclose(self: Tensor, other: Tensor, rtol=1e-5, atol=1e-8, equal_nan=False) -> Tensor:
  distance, allowed = (self - other).abs(), other.abs() * rtol + atol
  near = (distance <= allowed) & self.isfinite() & other.isfinite() | (self == other)
  return near | (self.isnan() & other.isnan()) if equal_nan else near
def allclose(self: Tensor, other: Tensor, rtol=1e-5, atol=1e-8, equal_nan=False) -> Any:
  return bool(isclose(self, other, rtol, atol, equal_nan).all())
def equal(self: Tensor, other: Tensor) -> Any:
  return self.shape == other.shape and bool((self == other).all())
