# dynamo.py: torch.compile(model, backend="picograd"): a forward graph that torch's tracer found runs here. In: a graph
# of torch's functions. Out: a callable of torch's tensors, whose memory is read, and returned, without copies. torch is
# there already: it calls this. What needs a gradient, and a function that does not exist here, stays torch's, and a
# warning says so.
from __future__ import annotations
import importlib, operator, warnings
from typing import Any, Callable, Sequence
from picograd import library
from picograd.capture import compile as capture
from picograd.common import set_mode
from picograd.dtype import DType
from picograd.func import mapped
from picograd.library import Tensor, from_dlpack
from picograd.nn import functional

class Missing(Exception):
  """A function of torch that has no counterpart here."""

def function_of(target: Any) -> Any:
  """picograd's function of the name of one of torch's."""
  name = getattr(target, "__name__", str(target))
  if getattr(operator, name, None) is target: return target
  homes = (functional, library, Tensor) if "functional" in (getattr(target, "__module__", None) or "") \
    else (Tensor, library, functional)
  for home in homes:
    found: Any = getattr(home, name, None)
    if callable(found) and not isinstance(found, type): return found
  raise Missing(name)

def step_of(node: Any) -> Callable[..., Any]:
  """What a node of the graph does with its arguments."""
  if node.op == "call_function": return function_of(node.target)
  if node.op == "call_method" and hasattr(Tensor, node.target): return getattr(Tensor, node.target)
  raise Missing(f"{node.op} {node.target}")

GIVEN = ("placeholder", "get_attr")

def compile_graph(module: Any, example_inputs: Sequence[Any]) -> Callable[..., Any]:
  """The callable for a torch.fx.GraphModule: what torch._dynamo asks of a backend."""
  nodes = list(module.graph.nodes)
  try: steps = {node: step_of(node) for node in nodes if node.op not in (*GIVEN, "output")}
  except Missing as e: return left_to_torch(module, f"it has no {e}")

  def program(*inputs: Any) -> Any:
    values = dict(zip([node for node in nodes if node.op in GIVEN], inputs))
    def value(x: Any) -> Any: return values[x] if isinstance(x, type(nodes[0])) else translated(x)
    for node in nodes:
      if node.op in GIVEN: continue
      args, kwargs = (arguments_of(part, value) for part in (tuple(node.args), dict(node.kwargs)))
      if node.op == "output": return args[0]
      if node in steps: values[node] = steps[node](*args, **{k: v for k, v in kwargs.items() if k != "_stacklevel"})
    raise AssertionError("a graph ends with its output")
  replayed = capture(program)
  kept: list[Callable[..., Any]] = []                    # torch's own, once something has turned out not to work here

  def call(*inputs: Any) -> Any:
    if kept: return kept[0](*inputs)
    given = iter(inputs)
    found = [next(given) if node.op == "placeholder" else attribute(module, node.target)
             for node in nodes if node.op in GIVEN]
    if any(needs_gradient(x) for x in found):
      kept.append(left_to_torch(module, "it needs a gradient: call it under torch.no_grad()"))
      return kept[0](*inputs)
    try:
      with set_mode(False): out = replayed(*[from_dlpack(x.detach()) if hasattr(x, "__dlpack__") else x for x in found])
    except (TypeError, NotImplementedError, AttributeError, BufferError) as e:
      kept.append(left_to_torch(module, f"{type(e).__name__}: {e}"))
      return kept[0](*inputs)
    return mapped(lambda x: to_torch(x) if isinstance(x, Tensor) else x, out)
  return call

def left_to_torch(module: Any, why: str) -> Callable[..., Any]:
  warnings.warn(f"picograd leaves a graph of {len(list(module.graph.nodes))} nodes to torch: {why}", stacklevel=2)
  return module.forward

def needs_gradient(x: Any) -> bool:
  return bool(getattr(x, "requires_grad", False)) and importlib.import_module("torch").is_grad_enabled()

def attribute(module: Any, path: str) -> Any:
  for name in path.split("."): module = getattr(module, name)
  return module

def arguments_of(x: Any, value: Callable[[Any], Any]) -> Any:
  """The arguments of a node, its sources replaced by their values."""
  if isinstance(x, slice): return slice(*(value(bound) for bound in (x.start, x.stop, x.step)))
  if isinstance(x, dict): return {name: arguments_of(part, value) for name, part in x.items()}
  if isinstance(x, (tuple, list)): return type(x)([arguments_of(part, value) for part in x])
  return value(x)

def translated(x: Any) -> Any:
  """torch's dtypes and devices as picograd's; anything else as it is."""
  kind = f"{type(x).__module__}.{type(x).__name__}"
  if kind == "torch.dtype": return DType.rows[str(x).removeprefix("torch.")]
  return str(x) if kind == "torch.device" else x

def to_torch(x: Tensor) -> Any: return importlib.import_module("torch").from_dlpack(x.detach().contiguous())
