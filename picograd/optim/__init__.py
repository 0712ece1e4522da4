# optim: torch.optim. In: parameters with gradients. After step(): parameters and state have their new values, in place.
# What changes from step to step (learning rate, bias corrections) enters the graph as the data of one leaf per step,
# never as constants, so that each parameter's update is compiled once: one kernel that stores it and its state.
from __future__ import annotations
import math
from typing import Any, Callable, Iterable, NamedTuple
import numpy as np
from picograd.arithmetic import accumulator
from picograd.helpers import dedup
from picograd.nn.module import clear_grads
from picograd.optim import lr_scheduler as lr_scheduler
from picograd.library import Tensor, enable_grad, no_grad, tensor, where, zeros_like
from picograd.runtime.jit import feed
from picograd.runtime.realize import strip
from picograd.storage import Storage, realize

Group = dict[str, Any]
Update = dict[str, Tensor]               # name of a state tensor, or "param" -> its new value

class Job(NamedTuple):
  """One parameter's update."""
  param: Tensor
  grad: Tensor
  group: Group
  state: dict[str, Any]

class Optimizer:
  """The base. A subclass says which state a parameter has (`state_names`), which numbers of a step its update needs
  (`numbers`), and the new values (`update`)."""
  def __init__(self, params: Iterable[Any], defaults: Group):
    groups = list(params)
    if not groups: raise ValueError("optimizer got an empty parameter list")
    if not isinstance(groups[0], dict): groups = [{"params": groups}]
    self.defaults = defaults
    self.param_groups: list[Group] = []
    self.state: dict[Tensor, dict[str, Any]] = {}
    self.written: list[Storage] = []                             # by the last step
    for group in groups: self.add_param_group(group)

  def add_param_group(self, group: Group) -> None:
    """{"params": tensors, option: value, ...}; options that are absent have the optimizer's defaults."""
    given = group["params"]
    params = [given] if isinstance(given, Tensor) else list(given)
    known = {id(p) for g in self.param_groups for p in g["params"]}
    for p in params:
      if not isinstance(p, Tensor):
        raise TypeError(f"optimizer can only optimize Tensors, but one of the params is {type(p).__name__}")
      if not p.is_leaf: raise ValueError("can't optimize a non-leaf Tensor")
      if id(p) in known: raise ValueError("some parameters appear in more than one parameter group")
    self.param_groups.append({**self.defaults, **group, "params": dedup(params)})

  def zero_grad(self, set_to_none: bool = True) -> None:
    for group in self.param_groups: clear_grads(group["params"], set_to_none)

  def step(self, closure: Callable[[], Any] | None = None) -> Any:
    """One update of every parameter that has a gradient. A closure, which computes the loss again, is called first."""
    loss = None
    if closure is not None:
      with enable_grad(): loss = closure()
    with no_grad(): self.update_all()
    return loss

  def update_all(self) -> None:
    """Computes all new values, then stores them: no value is computed from one that is stored in the same step. What
    nobody has read since the last step runs first, else the graph would grow with every step."""
    realize(self.written)
    jobs: list[Job] = []
    for group in self.param_groups:
      for p in group["params"]:
        if p.grad is None: continue
        state = self.state.setdefault(p, {"step": 0})
        for name in self.state_names(group):
          if name not in state: state[name] = zeros_like(p)
        jobs.append(Job(p, p.grad, group, state))
    stores: list[tuple[Tensor, Tensor]] = []
    for home in dedup(job.param.device for job in jobs):
      here = [job for job in jobs if job.param.device == home]
      for (p, grad, group, state), scalars in zip(here, self.next_numbers(here)):
        work = accumulator(p.dtype)
        new = self.update(p.detach().to(work), grad.detach().to(work), group, state, [s.to(work) for s in scalars])
        stores += [(p if name == "param" else state[name], value) for name, value in new.items()]
    self.written = [target.copy_(value).storage for target, value in stores]

  def next_numbers(self, jobs: list[Job]) -> list[list[Tensor]]:
    """Counts a step of each job, all on one device, and gives the numbers that its update needs. They are the data of
    one leaf: parameters of one group that have taken equally many steps share them."""
    rows: dict[tuple[int, int], Job] = {}
    places: list[int] = []
    for job in jobs:
      key = id(job.group), job.state["step"]
      rows.setdefault(key, job)
      places.append(list(rows).index(key))
    def count(steps: int) -> None:
      for job in jobs: job.state["step"] += steps
    def advance() -> np.ndarray:
      count(1)
      return np.array([self.numbers(job.group, job.state["step"]) for job in rows.values()], np.float32)
    leaf = tensor(advance(), device=jobs[0].param.device)
    feed(strip(leaf.uop), advance, lambda: count(-1))
    return [list(leaf[row].unbind()) for row in places]

  def __guards__(self) -> Any:
    """What a captured step depends on: not the learning rate and the number of steps, which each replay reads."""
    groups = [{name: value for name, value in g.items() if name not in ("lr", "initial_lr")} for g in self.param_groups]
    return [groups, [{k: v for k, v in s.items() if k != "step"} for s in self.state.values()]]

  def state_names(self, group: Group) -> tuple[str, ...]:
    """The tensors like the parameter, zeros at first, that the update keeps."""
    return ()
  def numbers(self, group: Group, step: int) -> tuple[float, ...]:
    """What the update of step 1, 2, .. needs and no kernel may contain."""
    raise NotImplementedError
  def update(self, p: Tensor, g: Tensor, group: Group, state: dict[str, Any], scalars: list[Tensor]) -> Update:
    """The new values of "param" and of state tensors, from the old ones."""
    raise NotImplementedError

  def state_dict(self) -> dict[str, Any]:
    """{"state": {i: state of parameter i}, "param_groups": options, with "params" as numbers i}."""
    order = {id(p): i for i, p in enumerate(p for g in self.param_groups for p in g["params"])}
    groups = [{**g, "params": [order[id(p)] for p in g["params"]]} for g in self.param_groups]
    return {"state": {order[id(p)]: dict(s) for p, s in self.state.items()}, "param_groups": groups}

  def load_state_dict(self, state_dict: dict[str, Any]) -> None:
    """Restores what state_dict gave. ValueError where the groups do not have the same sizes."""
    saved = state_dict["param_groups"]
    if len(saved) != len(self.param_groups):
      raise ValueError("loaded state dict has a different number of parameter groups")
    if any(len(s["params"]) != len(g["params"]) for s, g in zip(saved, self.param_groups)):
      raise ValueError("loaded state dict contains a parameter group that doesn't match the size of optimizer's group")
    self.state = {}
    for group, old in zip(self.param_groups, saved):
      for p, i in zip(group["params"], old["params"]):
        entry = state_dict["state"].get(i)
        if entry is not None: self.state[p] = {name: restored(value, p) for name, value in entry.items()}
      group.update({name: value for name, value in old.items() if name != "params"})

  def __repr__(self) -> str:
    lines = [f"{type(self).__name__} ("]
    for i, group in enumerate(self.param_groups):
      lines += [f"Parameter Group {i}", *(f"    {name}: {group[name]}" for name in sorted(group) if name != "params")]
    return "\n".join([*lines, ")"])

def restored(value: Any, p: Tensor) -> Any:
  """A copy of a state tensor for parameter p, in memory of its own; numbers as they are."""
  return value.detach().to(p.device).to(p.dtype).clone() if isinstance(value, Tensor) and value.ndim else value

def at_least_zero(**values: float) -> None:
  for name, value in values.items():
    if not value >= 0: raise ValueError(f"Invalid {name.replace('_', ' ')}: {value}")

def check_speed(options: dict[str, Any]) -> None:
  """torch's options that choose an implementation have no effect: an update is one kernel anyway."""
  for name in options:
    if name not in ("fused", "foreach", "capturable"): raise TypeError(f"got an unexpected keyword argument {name!r}")

# ---- the optimizers --------------------------------------------------------------------------------------------------

class SGD(Optimizer):
  """b = momentum*b + (1-dampening)*g (b = g at first), p -= lr*b; with nesterov p -= lr*(g + momentum*b).
  Weight decay adds weight_decay*p to g."""
  def __init__(self, params: Iterable[Any], lr: float = 1e-3, momentum: float = 0.0, dampening: float = 0.0,
               weight_decay: float = 0.0, nesterov: bool = False, **speed: Any):
    check_speed(speed)
    at_least_zero(learning_rate=lr, momentum_value=momentum, weight_decay_value=weight_decay)
    if nesterov and (momentum <= 0 or dampening != 0):
      raise ValueError("Nesterov momentum requires a momentum and zero dampening")
    super().__init__(params, {"lr": lr, "momentum": momentum, "dampening": dampening, "weight_decay": weight_decay,
                              "nesterov": nesterov})

  def state_names(self, group: Group) -> tuple[str, ...]: return ("momentum_buffer",) if group["momentum"] else ()

  def numbers(self, group: Group, step: int) -> tuple[float, ...]:
    if step == 1: return group["lr"], 0.0, 1.0
    return group["lr"], group["momentum"], 1 - group["dampening"]

  def update(self, p: Tensor, g: Tensor, group: Group, state: dict[str, Any], scalars: list[Tensor]) -> Update:
    lr, momentum, fresh = scalars
    if group["weight_decay"]: g = g + p * group["weight_decay"]
    if not group["momentum"]: return {"param": p - g * lr}
    b = state["momentum_buffer"].to(g.dtype) * momentum + g * fresh
    return {"param": p - (g + b * group["momentum"] if group["nesterov"] else b) * lr, "momentum_buffer": b}

class Adam(Optimizer):
  """m += (1-b1)*(g-m), v = b2*v + (1-b2)*g^2, p -= lr * m/(1-b1^t) / (sqrt(v/(1-b2^t)) + eps): Kingma and Ba (2015).
  Weight decay adds weight_decay*p to g."""
  decoupled = False

  def __init__(self, params: Iterable[Any], lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999),
               eps: float = 1e-8, weight_decay: float = 0.0, **speed: Any):
    check_speed(speed)
    at_least_zero(learning_rate=lr, epsilon_value=eps, weight_decay_value=weight_decay)
    for i, beta in enumerate(betas):
      if not 0 <= beta < 1: raise ValueError(f"Invalid beta parameter at index {i}: {beta}")
    super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

  def state_names(self, group: Group) -> tuple[str, ...]: return "exp_avg", "exp_avg_sq"

  def numbers(self, group: Group, step: int) -> tuple[float, ...]:
    """(lr/(1-b1^t), 1/sqrt(1-b2^t), 1-b1, factor of the decoupled decay)."""
    lr, (b1, b2) = group["lr"], group["betas"]
    return lr / (1 - b1 ** step), 1 / math.sqrt(1 - b2 ** step), 1 - b1, 1 - lr * group["weight_decay"]

  def update(self, p: Tensor, g: Tensor, group: Group, state: dict[str, Any], scalars: list[Tensor]) -> Update:
    size, correction, rate, decay = scalars
    if group["weight_decay"]:
      if self.decoupled: p = p * decay
      else: g = g + p * group["weight_decay"]
    m, v = self.moments(g, group, state, rate)
    return {"param": p - m / (v.sqrt() * correction + group["eps"]) * size, "exp_avg": m, "exp_avg_sq": v}

  def moments(self, g: Tensor, group: Group, state: dict[str, Any], rate: Tensor) -> tuple[Tensor, Tensor]:
    """The new running means of g and of its square."""
    m, v, b2 = state["exp_avg"].to(g.dtype), state["exp_avg_sq"].to(g.dtype), group["betas"][1]
    return m + (g - m) * rate, v * b2 + g * g * (1 - b2)

class AdamW(Adam):
  """Adam whose weight decay shrinks p by lr*weight_decay itself, past the moments: Loshchilov and Hutter (2019)."""
  decoupled = True

  def __init__(self, params: Iterable[Any], lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999),
               eps: float = 1e-8, weight_decay: float = 1e-2, **speed: Any):
    super().__init__(params, lr, betas, eps, weight_decay, **speed)

class LAMB(Adam):
  """Adam whose step r = m^/(sqrt(v^) + eps) + weight_decay*p is scaled to the size of the parameter,
  p -= lr * |p|/|r| * r (unscaled where either is zero): You et al. (2020)."""
  def __init__(self, params: Iterable[Any], lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999),
               eps: float = 1e-6, weight_decay: float = 0.0):
    super().__init__(params, lr, betas, eps, weight_decay)

  def numbers(self, group: Group, step: int) -> tuple[float, ...]:
    b1, b2 = group["betas"]
    return group["lr"], 1 / (1 - b1 ** step), 1 / math.sqrt(1 - b2 ** step), 1 - b1

  def update(self, p: Tensor, g: Tensor, group: Group, state: dict[str, Any], scalars: list[Tensor]) -> Update:
    lr, growth, correction, rate = scalars
    m, v = self.moments(g, group, state, rate)
    r = m * growth / (v.sqrt() * correction + group["eps"]) + p * group["weight_decay"]
    sizes = (p * p).sum().sqrt(), (r * r).sum().sqrt()
    trust = where((sizes[0] > 0) & (sizes[1] > 0), sizes[0] / sizes[1], 1.0)
    return {"param": p - r * (trust * lr), "exp_avg": m, "exp_avg_sq": v}

class Muon(Optimizer):
  """For matrices: the momentum, made nearly orthogonal by Newton and Schulz's iteration, is the step: Jordan et al.
  (2024). ValueError for a parameter that is no matrix."""
  def __init__(self, params: Iterable[Any], lr: float = 1e-3, weight_decay: float = 0.1, momentum: float = 0.95,
               nesterov: bool = True, ns_coefficients: tuple[float, float, float] = (3.4445, -4.775, 2.0315),
               eps: float = 1e-7, ns_steps: int = 5):
    at_least_zero(learning_rate=lr, momentum_value=momentum, weight_decay_value=weight_decay)
    super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum, "nesterov": nesterov,
                              "ns_coefficients": ns_coefficients, "eps": eps, "ns_steps": ns_steps})
    for p in [p for group in self.param_groups for p in group["params"]]:
      if p.ndim != 2: raise ValueError(f"Muon only supports 2D parameters, not one of size {tuple(p.shape)}")

  def state_names(self, group: Group) -> tuple[str, ...]: return ("momentum_buffer",)
  def numbers(self, group: Group, step: int) -> tuple[float, ...]:
    return group["lr"], 1 - group["lr"] * group["weight_decay"], group["momentum"]

  def update(self, p: Tensor, g: Tensor, group: Group, state: dict[str, Any], scalars: list[Tensor]) -> Update:
    lr, decay, momentum = scalars
    b = state["momentum_buffer"].to(g.dtype) * momentum + g * (1 - momentum)
    direction = g + (b - g) * momentum if group["nesterov"] else b
    step = orthogonal(direction, group["ns_coefficients"], group["ns_steps"], group["eps"])
    return {"param": p * decay - step * (lr * math.sqrt(max(1.0, p.shape[0] / p.shape[1]))), "momentum_buffer": b}

def orthogonal(x: Tensor, coefficients: tuple[float, float, float], steps: int, eps: float) -> Tensor:
  """The matrix with x's singular vectors and singular values near 1: x <- a*x + (b*G + c*G@G)@x with G = x@x^T."""
  a, b, c = coefficients
  tall = x.shape[0] > x.shape[1]
  if tall: x = x.transpose(0, 1)
  x = x / (x * x).sum().sqrt().clamp(min=eps)
  for _ in range(steps):
    gram = x @ x.transpose(0, 1)
    x = x * a + (gram * b + (gram @ gram) * c) @ x
  return x.transpose(0, 1) if tall else x
