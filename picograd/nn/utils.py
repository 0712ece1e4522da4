# utils.py: torch.nn.utils: what is done to the gradients of all parameters at once.
from __future__ import annotations
import math
from typing import Iterable
from picograd.library import Tensor, no_grad, zeros

def total_norm(grads: list[Tensor], norm_type: float) -> Tensor:
  """The norm of all gradients as one vector: the largest magnitude for inf, else (sum of |g|^p)^(1/p)."""
  if norm_type == math.inf:
    largest = [g.abs().max() for g in grads]
    out = largest[0]
    for other in largest[1:]: out = out.maximum(other)
    return out
  powers = [(g * g).sum() if norm_type == 2 else (g.abs() ** norm_type).sum() for g in grads]
  out = powers[0]
  for other in powers[1:]: out = out + other
  return out.sqrt() if norm_type == 2 else out ** (1 / norm_type)

def clip_grad_norm_(parameters: Tensor | Iterable[Tensor], max_norm: float, norm_type: float = 2.0,
                    error_if_nonfinite: bool = False) -> Tensor:
  """Scales the gradients in place so that their common norm is at most max_norm; returns the norm before, a scalar."""
  with no_grad():
    params = [parameters] if isinstance(parameters, Tensor) else list(parameters)
    grads = [p.grad for p in params if p.grad is not None]
    if not grads: return zeros(())
    norm = total_norm(grads, float(norm_type))
    if error_if_nonfinite and not math.isfinite(norm.item()):
      raise RuntimeError(f"The total norm of order {norm_type} for gradients from `parameters` is non-finite, so it "
                         f"cannot be clipped")
    factor = (max_norm / (norm + 1e-6)).clamp(max=1.0)
    for g in grads: g.mul_(factor.to(g.dtype))
    return norm

def clip_grad_value_(parameters: Tensor | Iterable[Tensor], clip_value: float) -> None:
  """Clamps every element of every gradient to [-clip_value, clip_value], in place."""
  params = [parameters] if isinstance(parameters, Tensor) else list(parameters)
  with no_grad():
    for p in params:
      if p.grad is not None: p.grad.copy_(p.grad.clamp(-clip_value, clip_value))
