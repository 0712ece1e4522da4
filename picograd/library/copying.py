# copying.py: copy.deepcopy and pickle of tensors.
from __future__ import annotations
from typing import Any
import numpy as np
from picograd.dtype import DType
from picograd.storage import Storage
from picograd.tensor import Tensor, tensor

OWN_STATE = ("grad", "requires", "leaf", "detached", "looked", "storage", "steps", "known_strides")

def __deepcopy__(self: Tensor, memo: dict) -> Tensor:
  if not self.is_leaf: raise RuntimeError("Only Tensors created explicitly by the user support the deepcopy protocol")
  copy = type(self).__new__(type(self))
  copy.attach(Storage(self.detach().uop, self.storage.device), (), None)
  copy.__dict__.update({name: value for name, value in self.__dict__.items() if name not in OWN_STATE})
  if self.requires: copy.requires_grad_()
  memo[id(self)] = copy
  return copy

def __reduce__(self: Tensor) -> Any:
  data = self.detach().numpy()
  return rebuild, (type(self), data, self.dtype.name, str(self.device), self.requires_grad)

def rebuild(cls, data: np.ndarray, dtype: str, home: str, requires_grad: bool) -> Tensor:
  """The tensor that was pickled."""
  source = tensor(data, dtype=DType.rows[dtype], device=home)
  t = cls.__new__(cls)
  t.attach(source.storage, (), None)
  return t.requires_grad_(requires_grad)
