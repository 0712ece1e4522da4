# eager.py: EAGER=1: every public operation computes before it returns. The unit is the user's operation: one method.
from __future__ import annotations
import functools, inspect
from typing import Any, Callable
from picograd import storage
from picograd.tensor import COMPARISONS, OPERATORS, Tensor

class Depth:
  """How many computed calls are nested now."""
  calls = 0

def computed(function: Callable[..., Any]) -> Callable[..., Any]:
  """function, whose results are realised when the outermost of nested calls returns."""
  @functools.wraps(function)
  def call(*args, **kwargs) -> Any:
    Depth.calls += 1
    try: out = function(*args, **kwargs)
    finally: Depth.calls -= 1
    if Depth.calls: return out
    outputs = out if isinstance(out, tuple) else (out,)
    storage.realize([t.storage for t in outputs if isinstance(t, Tensor) and not storage.is_traced(t.uop)])
    return out
  return call

SILENT = {"attach", "on", "see", "requires_grad_", "become_leaf", "assign", "update"}
OPERATIONS = {*OPERATORS, *COMPARISONS, "neg", "getitem", "setitem"}

def is_operation(name: str) -> bool:
  if not name.startswith("__"): return name not in SILENT
  return name.strip("_").removeprefix("r").removeprefix("i") in OPERATIONS

def make_eager() -> None:
  for name, member in list(vars(Tensor).items()):
    if inspect.isfunction(member) and is_operation(name): setattr(Tensor, name, computed(member))
