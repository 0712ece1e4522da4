# rvvalue.py: what a value is after selection: int64 in an integer register, float32 or float64 in a float register, or
# VECTOR in a group of two vector registers, whatever its lanes; and the node of a machine instruction.
from __future__ import annotations
from typing import Any
from picograd.dtype import DType, dtypes
from picograd.ops.ops import Ops
from picograd.ops.uop import UOp

INT = dtypes.int64
VECTOR = dtypes.int64.vec(4)               # 32 bytes: a group at the least VLEN, 128
ZERO = UOp.const(INT, 0)                   # the register x0

def in_float(dtype: DType) -> bool: return dtype is dtypes.float32 or dtype is dtypes.float64

def class_of(dtype: DType) -> DType:
  """The dtype after selection. float32 stays: its upper half in a register must be ones."""
  if dtype.count > 1: return VECTOR
  return dtype if dtype is dtypes.void or in_float(dtype) else INT

def ins(row: str, *src: UOp, number: Any = None, dtype: DType = INT) -> UOp:
  """A machine instruction, a row of rvasm or a pseudo-instruction: its registers, for memory accesses the state, last;
  its number."""
  return UOp(Ops.INS, dtype, src, (row, number))

VARIABLE_ARGUMENTS = ins("variable arguments")                       # the address of the first one of this function
