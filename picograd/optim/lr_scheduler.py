# lr_scheduler.py: torch.optim.lr_scheduler. A scheduler sets the "lr" of an optimizer's groups as a function of the
# number of step() calls so far and of the group's initial rate: all rates are in closed form.
from __future__ import annotations
import math
from typing import TYPE_CHECKING, Any, Callable, Sequence
if TYPE_CHECKING: from picograd.optim import Optimizer

class LRScheduler:
  """The base. A subclass defines rate(base, step, group number), the learning rate after `step` steps."""
  def __init__(self, optimizer: Optimizer, last_epoch: int = -1):
    self.optimizer = optimizer
    for group in optimizer.param_groups: group.setdefault("initial_lr", group["lr"])
    self.base_lrs = [group["initial_lr"] for group in optimizer.param_groups]
    self.last_epoch = last_epoch
    self.step()

  def rate(self, base: float, step: int, group: int) -> float: raise NotImplementedError
  def get_lr(self) -> list[float]: return [self.rate(base, self.last_epoch, i) for i, base in enumerate(self.base_lrs)]
  def get_last_lr(self) -> list[float]: return [group["lr"] for group in self.optimizer.param_groups]

  def step(self) -> None:
    self.last_epoch += 1
    for group, lr in zip(self.optimizer.param_groups, self.get_lr()): group["lr"] = lr

  def state_dict(self) -> dict[str, Any]:
    return {name: value for name, value in vars(self).items() if name != "optimizer" and not callable(value)}
  def load_state_dict(self, state_dict: dict[str, Any]) -> None: vars(self).update(state_dict)

class LambdaLR(LRScheduler):
  """base * lr_lambda(step); one function for all groups or one for each."""
  def __init__(self, optimizer: Optimizer, lr_lambda: Callable[[int], float] | Sequence[Callable[[int], float]],
               last_epoch: int = -1):
    count = len(optimizer.param_groups)
    functions = [lr_lambda] * count if callable(lr_lambda) else list(lr_lambda)
    if len(functions) != count: raise ValueError(f"Expected {count} lr_lambdas, but got {len(functions)}")
    self.scale = lambda i, step: functions[i](step)
    super().__init__(optimizer, last_epoch)
  def rate(self, base: float, step: int, group: int) -> float: return base * self.scale(group, step)

class StepLR(LRScheduler):
  """base * gamma^(step // step_size)."""
  def __init__(self, optimizer: Optimizer, step_size: int, gamma: float = 0.1, last_epoch: int = -1):
    self.step_size, self.gamma = step_size, gamma
    super().__init__(optimizer, last_epoch)
  def rate(self, base: float, step: int, group: int) -> float: return base * self.gamma ** (step // self.step_size)

class LinearLR(LRScheduler):
  """base * a factor that moves from start_factor to end_factor within total_iters steps."""
  def __init__(self, optimizer: Optimizer, start_factor: float = 1 / 3, end_factor: float = 1.0, total_iters: int = 5,
               last_epoch: int = -1):
    if not 0 < start_factor <= 1:
      raise ValueError("Starting multiplicative factor expected to be greater than 0 and less or equal to 1.")
    self.start_factor, self.end_factor, self.total_iters = start_factor, end_factor, total_iters
    super().__init__(optimizer, last_epoch)
  def rate(self, base: float, step: int, group: int) -> float:
    done = min(step, self.total_iters) / self.total_iters
    return base * (self.start_factor + (self.end_factor - self.start_factor) * done)

class CosineAnnealingLR(LRScheduler):
  """From base to eta_min along half a cosine of T_max steps, and back again: Loshchilov and Hutter (2017)."""
  def __init__(self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0, last_epoch: int = -1):
    self.T_max, self.eta_min = T_max, eta_min
    super().__init__(optimizer, last_epoch)
  def rate(self, base: float, step: int, group: int) -> float:
    return self.eta_min + (base - self.eta_min) * (1 + math.cos(math.pi * step / self.T_max)) / 2

def cosine(start: float, end: float, done: float) -> float:
  return end + (start - end) / 2 * (1 + math.cos(math.pi * done))
def straight(start: float, end: float, done: float) -> float: return start + (end - start) * done
ANNEAL = {"cos": cosine, "linear": straight}

class OneCycleLR(LRScheduler):
  """From max_lr/div_factor up to max_lr, then down to max_lr/div_factor/final_div_factor, within total_steps; the
  momentum (or the first beta) moves the other way: Smith and Topin (2018). ValueError for a step beyond the last."""
  def __init__(self, optimizer: Optimizer, max_lr: float | Sequence[float], total_steps: int | None = None,
               epochs: int | None = None, steps_per_epoch: int | None = None, pct_start: float = 0.3,
               anneal_strategy: str = "cos", cycle_momentum: bool = True, base_momentum: float = 0.85,
               max_momentum: float = 0.95, div_factor: float = 25.0, final_div_factor: float = 1e4,
               three_phase: bool = False, last_epoch: int = -1):
    if total_steps is None:
      if epochs is None or steps_per_epoch is None:
        raise ValueError("You must define either total_steps OR (epochs AND steps_per_epoch)")
      total_steps = epochs * steps_per_epoch
    if anneal_strategy not in ANNEAL: raise ValueError(f"anneal_strategy={anneal_strategy!r}: 'cos' or 'linear'")
    count = len(optimizer.param_groups)
    self.peaks = [max_lr] * count if isinstance(max_lr, (int, float)) else list(max_lr)
    self.total_steps, self.anneal_strategy = total_steps, anneal_strategy
    self.div_factor, self.final_div_factor = div_factor, final_div_factor
    self.momenta = (max_momentum, base_momentum) if cycle_momentum else None
    top, last = float(pct_start * total_steps) - 1, total_steps - 1
    self.ends = [top, 2 * pct_start * total_steps - 2, last] if three_phase else [top, last]   # of each phase, in steps
    for group, peak in zip(optimizer.param_groups, self.peaks): group["initial_lr"] = peak / div_factor
    super().__init__(optimizer, last_epoch)

  def along(self, step: int, levels: Sequence[float]) -> float:
    """The value at step of a curve through levels, one more than phases."""
    start = 0.0
    for i, end in enumerate(self.ends):
      if step <= end or end == self.ends[-1]:
        return ANNEAL[self.anneal_strategy](levels[i], levels[i + 1], (step - start) / (end - start))
      start = end
    raise AssertionError("a cycle has phases")

  def rate(self, base: float, step: int, group: int) -> float:
    if step > self.total_steps:
      raise ValueError(f"Tried to step {step} times. The specified number of total steps is {self.total_steps}")
    between = [base] if len(self.ends) == 3 else []
    return self.along(step, [base, self.peaks[group], *between, base / self.final_div_factor])

  def step(self) -> None:
    super().step()
    if self.momenta is None: return
    high, low = self.momenta
    momentum = self.along(self.last_epoch, [high, low, high, high][:len(self.ends) + 1])
    for group in self.optimizer.param_groups:
      if "betas" in group: group["betas"] = (momentum, *group["betas"][1:])
      elif "momentum" in group: group["momentum"] = momentum
