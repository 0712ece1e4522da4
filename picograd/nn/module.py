# module.py: what every model is made of. A Module is a tree of modules whose leaves are parameters and buffers; names
# are the paths in that tree, and a state dict is the flat table of them. Containers hold modules by position or name.
from __future__ import annotations
from typing import Any, Callable, Iterable, Iterator, Mapping, NamedTuple
from picograd.dtype import DType, dtypes
from picograd.library import Tensor, no_grad, zeros

class Parameter(Tensor):
  """A tensor that a Module it is assigned to lists among its parameters. It shares the memory of data."""
  def __init__(self, data: Tensor, requires_grad: bool = True):
    super().__init__(data.detach(), requires_grad=requires_grad)
  def __repr__(self) -> str: return "Parameter containing:\n" + super().__repr__()

class LoadResult(NamedTuple):
  """What load_state_dict(strict=False) passed over."""
  missing_keys: list[str]
  unexpected_keys: list[str]

# ---- Module ----------------------------------------------------------------------------------------------------------

class Module:
  """The base of all layers and models. Assigning a Parameter or a Module to an attribute registers it by that name."""
  training: bool
  _parameters: dict[str, Parameter | None]
  _buffers: dict[str, Tensor | None]
  _modules: dict[str, "Module | None"]
  _transient: set[str]                    # buffers that state_dict leaves out
  changes = 0                             # of any module: while it stands still, no tree has changed

  def __init__(self) -> None:
    self.__dict__.update(_parameters={}, _buffers={}, _modules={}, _transient=set(), training=True)

  def forward(self, *args: Any, **kwargs: Any) -> Any:
    """What calling the module does: a subclass says."""
    raise NotImplementedError(f'Module [{type(self).__name__}] is missing the required "forward" function')
  def __call__(self, *args: Any, **kwargs: Any) -> Any: return self.forward(*args, **kwargs)

  # attributes
  def __setattr__(self, name: str, value: Any) -> None:
    Module.changes += 1
    if "_modules" not in self.__dict__ and isinstance(value, (Parameter, Module)):
      raise AttributeError(f"cannot assign {type(value).__name__} {name!r} before Module.__init__() call")
    tables: list[dict[str, Any]] = [self.__dict__.get(t, {}) for t in ("_parameters", "_modules", "_buffers")]
    home = next((table for table in tables if name in table), self.__dict__)
    if isinstance(value, Parameter): home = tables[0]
    elif isinstance(value, Module): home = tables[1]
    elif home is tables[0] and value is not None:
      raise TypeError(f"cannot assign '{type(value).__name__}' as parameter '{name}' (nn.Parameter or None expected)")
    for table in (*tables, self.__dict__):
      if table is not home: table.pop(name, None)
    home[name] = value

  def __getattr__(self, name: str) -> Any:
    for table in ("_parameters", "_buffers", "_modules"):
      if name in self.__dict__.get(table, ()): return self.__dict__[table][name]
    raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

  def __delattr__(self, name: str) -> None:
    Module.changes += 1
    for table in (self._parameters, self._buffers, self._modules, self.__dict__):
      if name in table:
        del table[name]
        return
    raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

  def register_parameter(self, name: str, param: Parameter | None) -> None:
    """Enters a parameter, or None, under a name."""
    self.enter(self._parameters, name, param)
  def add_module(self, name: str, module: "Module | None") -> None: self.enter(self._modules, name, module)
  def enter(self, table: dict[str, Any], name: str, value: Any) -> None:
    """Every change of a table comes through here or through __setattr__."""
    Module.changes += 1
    table[name] = value
  def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
    """A tensor that moves and is saved with the module but is not trained."""
    self.enter(self._buffers, name, tensor)
    if not persistent: self._transient.add(name)

  # the tree
  def named_modules(self, prefix: str = "") -> Iterator[tuple[str, "Module"]]:
    """(path, module) of the tree, each module once, a parent before its children."""
    seen: set[int] = set()
    stack: list[tuple[str, Module]] = [(prefix, self)]
    while stack:
      path, module = stack.pop()
      if id(module) in seen: continue
      seen.add(id(module))
      yield path, module
      children = [(join(path, name), child) for name, child in module._modules.items() if child is not None]
      stack.extend(reversed(children))

  def modules(self) -> Iterator["Module"]:
    """All modules of the tree, this one first, each once."""
    return (m for _, m in self.named_modules())
  def named_children(self) -> Iterator[tuple[str, "Module"]]:
    return ((name, m) for name, m in self._modules.items() if m is not None)
  def children(self) -> Iterator["Module"]:
    """The modules directly below this one."""
    return (m for _, m in self.named_children())

  def named_parameters(self, prefix: str = "", recurse: bool = True) -> Iterator[tuple[str, Parameter]]:
    """(path, parameter), each parameter once: one that is tied under two names has the first."""
    return named_members(self, "_parameters", prefix, recurse)
  def named_buffers(self, prefix: str = "", recurse: bool = True) -> Iterator[tuple[str, Tensor]]:
    return named_members(self, "_buffers", prefix, recurse)
  def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
    """The parameters of the tree, each once."""
    return (p for _, p in self.named_parameters("", recurse))
  def buffers(self, recurse: bool = True) -> Iterator[Tensor]:
    """The buffers of the tree, each once."""
    return (b for _, b in self.named_buffers("", recurse))

  # state
  def state_tensors(self) -> dict[str, Tensor]:
    """Every parameter and persistent buffer under every path it has."""
    out: dict[str, Tensor] = {}
    stack: list[tuple[str, Module]] = [("", self)]
    while stack:
      path, module = stack.pop()
      kept = {name: b for name, b in module._buffers.items() if name not in module._transient}
      for name, value in {**module._parameters, **kept}.items():
        if value is not None: out[join(path, name)] = value
      stack.extend(reversed([(join(path, name), child) for name, child in module.named_children()]))
    return out

  def state_dict(self) -> dict[str, Tensor]:
    """Path -> tensor that shares memory with the parameter or buffer."""
    return {name: value.detach() for name, value in self.state_tensors().items()}

  def load_state_dict(self, state_dict: Mapping[str, Tensor], strict: bool = True, assign: bool = False) -> LoadResult:
    """Copies the tensors into the parameters and buffers of the same path; with assign these share the tensors' memory
    instead, and have their dtypes. RuntimeError lists every path that is missing or unexpected (if strict) and every
    shape that differs; nothing is loaded then."""
    own = self.state_tensors()
    missing = [name for name in own if name not in state_dict]
    unexpected = [name for name in state_dict if name not in own]
    problems = []
    if strict and missing: problems.append(f"Missing key(s) in state_dict: {quoted(missing)}. ")
    if strict and unexpected: problems.append(f"Unexpected key(s) in state_dict: {quoted(unexpected)}. ")
    for name, value in own.items():
      if name in state_dict and tuple(state_dict[name].shape) != tuple(value.shape):
        problems.append(f"size mismatch for {name}: copying a param with shape {tuple(state_dict[name].shape)} from "
                        f"checkpoint, the shape in current model is {tuple(value.shape)}.")
    title = f"Error(s) in loading state_dict for {type(self).__name__}:"
    if problems: raise RuntimeError("\n\t".join([title, *problems]))
    with no_grad():
      for name, value in own.items():
        if name not in state_dict: continue
        if assign: value.data = state_dict[name]
        else: value.copy_(state_dict[name])
    return LoadResult(missing, unexpected)

  # what is done to a whole tree
  def apply(self, fn: Callable[["Module"], Any]) -> "Module":
    """Calls fn on every module, children first."""
    for module in reversed(list(self.modules())): fn(module)
    return self
  def train(self, mode: bool = True) -> "Module":
    """All modules of the tree are training, or not."""
    for module in self.modules(): module.training = mode
    return self
  def eval(self) -> "Module":
    """All modules of the tree stop training."""
    return self.train(False)
  def requires_grad_(self, requires_grad: bool = True) -> "Module":
    for p in self.parameters(): p.requires_grad_(requires_grad)
    return self
  def zero_grad(self, set_to_none: bool = True) -> None:
    """The gradients of all parameters become None, or zeros."""
    clear_grads(self.parameters(), set_to_none)

  def to(self, *args: Any, device: Any = None, dtype: DType | None = None) -> "Module":
    """Moves every parameter and buffer to a device, a dtype, or both, in place; a dtype changes floats only."""
    for a in args:
      if isinstance(a, DType): dtype = a
      else: device = a
    for tensor in (*self.parameters(), *self.buffers()):
      moved = tensor.data if device is None else tensor.data.to(device)
      if dtype is not None and tensor.dtype.is_floating_point: moved = moved.to(dtype)
      if moved.dtype is tensor.dtype and moved.device == tensor.device: continue
      tensor.data = moved
      if tensor.grad is not None: tensor.grad = tensor.grad.to(moved.device).to(moved.dtype)
    return self
  def float(self) -> "Module": return self.to(dtypes.float32)
  def double(self) -> "Module": return self.to(dtypes.float64)
  def half(self) -> "Module": return self.to(dtypes.float16)
  def bfloat16(self) -> "Module": return self.to(dtypes.bfloat16)
  def cpu(self) -> "Module": return self.to("cpu")
  def cuda(self) -> "Module": return self.to("cuda")

  # text
  def extra_repr(self) -> str: return ""
  def __repr__(self) -> str:
    lines = self.extra_repr().split("\n") if self.extra_repr() else []
    inner = [f"({name}): " + repr(child).replace("\n", "\n  ") for name, child in self._modules.items()]
    if len(lines) == 1 and not inner: return f"{type(self).__name__}({lines[0]})"
    if not lines and not inner: return f"{type(self).__name__}()"
    return f"{type(self).__name__}(\n  " + "\n  ".join(lines + inner) + "\n)"

def join(path: str, name: str) -> str: return f"{path}.{name}" if path else name
def quoted(names: Iterable[str]) -> str: return ", ".join(f'"{name}"' for name in names)

def named_members(root: Module, table: str, prefix: str, recurse: bool) -> Iterator[tuple[str, Any]]:
  """(path, tensor) of the tables _parameters or _buffers in a tree, each tensor once."""
  seen: set[int] = set()
  for path, module in root.named_modules(prefix) if recurse else [(prefix, root)]:
    for name, value in getattr(module, table).items():
      if value is None or id(value) in seen: continue
      seen.add(id(value))
      yield join(path, name), value

def clear_grads(parameters: Iterable[Tensor], set_to_none: bool) -> None:
  for p in parameters:
    if set_to_none: p.grad = None
    elif p.grad is not None: p.grad = zeros(*p.shape, dtype=p.dtype, device=p.device)

# ---- containers ------------------------------------------------------------------------------------------------------

class ModuleList(Module):
  """Modules by position, registered as "0", "1", ..."""
  def __init__(self, modules: Iterable[Module] = ()):
    super().__init__()
    self.extend(modules)
  def __len__(self) -> int: return len(self._modules)
  def __iter__(self) -> Iterator[Any]: return iter(list(self._modules.values()))
  def __getitem__(self, i: int | slice) -> Any:
    items = list(self)
    return type(self)(items[i]) if isinstance(i, slice) else items[i]
  def __setitem__(self, i: int, module: Module) -> None: self.enter(self._modules, list(self._modules)[i], module)
  def append(self, module: Module) -> "ModuleList":
    self.enter(self._modules, str(len(self._modules)), module)
    return self
  def extend(self, modules: Iterable[Module]) -> "ModuleList":
    for m in modules: self.append(m)
    return self

class ModuleDict(Module):
  """Modules by name."""
  def __init__(self, modules: Mapping[str, Module] | Iterable[tuple[str, Module]] = ()):
    super().__init__()
    self.update(modules)
  def __len__(self) -> int: return len(self._modules)
  def __iter__(self) -> Iterator[str]: return iter(self._modules)
  def __contains__(self, name: str) -> bool: return name in self._modules
  def __getitem__(self, name: str) -> Any: return self._modules[name]
  def __setitem__(self, name: str, module: Module) -> None: self.enter(self._modules, name, module)
  def keys(self) -> Iterable[str]: return self._modules.keys()
  def values(self) -> Iterable[Any]: return self._modules.values()
  def items(self) -> Iterable[tuple[str, Any]]: return self._modules.items()
  def update(self, modules: Mapping[str, Module] | Iterable[tuple[str, Module]]) -> None:
    for name, module in dict(modules).items(): self.enter(self._modules, name, module)

class Sequential(ModuleList):
  """Each module applied to the output of the one before. Takes modules, or one dict of them."""
  def __init__(self, *modules: Any):
    named = dict(modules[0]) if len(modules) == 1 and isinstance(modules[0], Mapping) else None
    super().__init__(() if named is not None else modules)
    for name, module in (named or {}).items(): self.add_module(name, module)
  def __getitem__(self, i: int | slice) -> Any:
    if not isinstance(i, slice): return super().__getitem__(i)
    return Sequential(*list(self)[i])
  def forward(self, input: Any) -> Any:
    for module in self: input = module(input)
    return input
