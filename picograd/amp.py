# amp.py: torch.amp: autocast and the scaling of losses that it needs with float16, whose gradients vanish below 6e-8.
# In: a loss, an optimizer. Out: steps with the gradients of the loss, left out where they overflow.
from __future__ import annotations
import math
from typing import Any, Sequence
from picograd.common import Autocast, changed
from picograd.dtype import DType, dtypes
from picograd.library import Tensor, no_grad, stack

class autocast(changed):
  """A block in which matrix products and attention compute with 16-bit operands (by default float16 on a GPU, bfloat16
  on a CPU), and norms, softmax and losses in float32, whatever dtype the parameters have."""
  def __init__(self, device_type: str, dtype: DType | None = None, enabled: bool = True, cache_enabled: bool = True):
    usual = dtypes.bfloat16 if device_type == "cpu" else dtypes.float16
    super().__init__(Autocast, "dtype", (dtype or usual) if enabled else None)

def all_finite(gradients: Sequence[Tensor]) -> bool:
  """Whether no element of any is infinite or NaN: one value is asked for."""
  if not gradients: return True
  return bool(stack([g.isfinite().all().to(device=gradients[0].device) for g in gradients]).all())

class GradScaler:
  """Multiplies losses, and divides gradients, by a scale that grows while gradients stay finite. (Micikevicius et al.,
  Mixed precision training, 2018) step() asks for a value, so that a step cannot be captured as a whole."""
  def __init__(self, device: str = "cuda", init_scale: float = 2.0 ** 16, growth_factor: float = 2.0,
               backoff_factor: float = 0.5, growth_interval: int = 2000, enabled: bool = True):
    if growth_factor <= 1: raise ValueError("The growth factor must be > 1.0.")
    if not 0 < backoff_factor < 1: raise ValueError("The backoff factor must be between 0 and 1.")
    self.factor, self.growth, self.backoff, self.interval = init_scale, growth_factor, backoff_factor, growth_interval
    self.enabled, self.good_steps = enabled, 0
    self.finite: dict[int, bool] = {}                      # id of an optimizer -> whether its gradients are, unscaled

  def is_enabled(self) -> bool: return self.enabled
  def get_scale(self) -> float: return self.factor if self.enabled else 1.0

  def scale(self, outputs: Any) -> Any:
    """A loss, or a list of them, times the scale."""
    if isinstance(outputs, (list, tuple)): return type(outputs)(self.scale(x) for x in outputs)
    return outputs * self.factor if self.enabled else outputs

  def unscale_(self, optimizer: Any) -> None:
    """Divides the gradients of an optimizer's parameters by the scale: before they are clipped, say. RuntimeError where
    that has been done since the last update()."""
    if not self.enabled: return
    if id(optimizer) in self.finite:
      raise RuntimeError("unscale_() has already been called on this optimizer since the last update().")
    parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    with no_grad():
      for p in parameters: p.grad = p.grad * (1 / self.factor)
      self.finite[id(optimizer)] = all_finite([p.grad for p in parameters])

  def step(self, optimizer: Any, *args: Any, **kwargs: Any) -> Any:
    """optimizer.step(), unless a gradient is infinite or NaN."""
    if not self.enabled: return optimizer.step(*args, **kwargs)
    if id(optimizer) not in self.finite: self.unscale_(optimizer)
    return optimizer.step(*args, **kwargs) if self.finite[id(optimizer)] else None

  def update(self, new_scale: float | None = None) -> None:
    """The scale of the next iteration: smaller after a step that was left out, larger after growth_interval others."""
    if not self.enabled: return
    if not self.finite: raise RuntimeError("No inf checks were recorded prior to update.")
    overflow = not all(self.finite.values())
    self.good_steps = 0 if overflow else self.good_steps + 1
    if overflow: self.factor *= self.backoff
    elif self.good_steps == self.interval:
      grown = self.factor * self.growth
      self.factor, self.good_steps = (grown if math.isfinite(grown) else self.factor), 0
    if new_scale is not None: self.factor = float(new_scale)
    self.finite.clear()

  def state_dict(self) -> dict[str, Any]:
    if not self.enabled: return {}
    return {"scale": self.factor, "growth_factor": self.growth, "backoff_factor": self.backoff,
            "growth_interval": self.interval, "_growth_tracker": self.good_steps}
  def load_state_dict(self, state: dict[str, Any]) -> None:
    if not self.enabled: return
    self.factor, self.growth, self.backoff = state["scale"], state["growth_factor"], state["backoff_factor"]
    self.interval, self.good_steps = state["growth_interval"], state["_growth_tracker"]
