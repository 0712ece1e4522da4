# func: torch.func: functions of functions. In: a function of tensors, or of dicts, lists and tuples of them. Out:
# another one. A function is traced: it is called with stand-ins for its arguments, the graph that it built is
# differentiated (ops/gradient.py) or batched (batching.py), and the arguments take the stand-ins' places. So they
# compose in any order.
from __future__ import annotations
import functools
from typing import Any, Callable, Iterator, Sequence
from picograd.arithmetic import detach
from picograd.common import GradMode, axis_of, set_mode
from picograd.func.batching import TRACED, batch, placeholder
from picograd.helpers import prod
from picograd.library import Tensor
from picograd.library.creation import identity_mask
from picograd.ops import gradient as chain_rule
from picograd.ops.ops import Ops
from picograd.ops.uop import Table, UOp, substitute, toposort
from picograd.random import default_generator
from picograd.storage import Storage, checks, current, is_traced, unique_leaf
from picograd.tensor import derivatives

__all__ = ["functional_call", "grad", "hessian", "jacfwd", "jacrev", "jvp", "value_and_grad", "vjp", "vmap"]

Function = Callable[..., Any]

# ---- trees: dicts, lists and tuples of tensors -----------------------------------------------------------------------

def leaves(tree: Any) -> list[Any]:
  """What a tree consists of, in order."""
  if isinstance(tree, dict): return [leaf for branch in tree.values() for leaf in leaves(branch)]
  if isinstance(tree, (list, tuple)): return [leaf for branch in tree for leaf in leaves(branch)]
  return [tree]

def rebuilt(tree: Any, values: Iterator[Any]) -> Any:
  """The same tree with other leaves."""
  if isinstance(tree, dict): return {name: rebuilt(branch, values) for name, branch in tree.items()}
  if isinstance(tree, (list, tuple)):
    branches = [rebuilt(branch, values) for branch in tree]
    return type(tree)(*branches) if hasattr(tree, "_fields") else type(tree)(branches)
  return next(values)

def mapped(function: Function, tree: Any, *others: Any) -> Any:
  """function of corresponding leaves."""
  return rebuilt(tree, iter([function(*row) for row in zip(*map(leaves, (tree, *others)), strict=True)]))

# ---- stand-ins -------------------------------------------------------------------------------------------------------

active: set[UOp] = set()           # stand-ins of functions that are being traced

def stand_in(uop: UOp, like: Tensor, history: Any) -> Tensor:
  return Tensor.on(Storage(uop, like.storage.device, bool(history)), (), None)

class Trace:
  """Stand-ins for tensors by which is differentiated. Whatever is computed from them records its history."""
  def __init__(self, tree: Any):
    self.originals = leaves(tree)
    for x in self.originals:
      if not isinstance(x, Tensor) or not x.dtype.is_floating_point:
        kind = getattr(x, "dtype", type(x).__name__)
        raise ValueError(f"only tensors of floats can be differentiated by, not {kind}")
    self.tensors = [stand_in(unique_leaf(x.uop), x, True) for x in self.originals]
    self.tree = rebuilt(tree, iter(self.tensors))
    self.nodes = [t.uop for t in self.tensors]

  def call(self, function: Function, has_aux: bool) -> tuple[Any, list[Any]]:
    """The output of the function, called while gradients are recorded, and with has_aux what it returns beside it."""
    active.update(self.nodes)
    try:
      with set_mode(True): returned = function(self.tree)
    finally: active.difference_update(self.nodes)
    output, *aux = returned if has_aux else (returned,)
    return output, [self.outside(x) for x in aux]

  def finished(self, uops: Sequence[UOp], like: Sequence[Tensor]) -> list[Tensor]:
    """Results as tensors: what the stand-ins stood for is in their places."""
    table: Table = {u: x.uop for u, x in zip(self.nodes, self.originals)}
    return [tensor_of(u, x) for u, x in zip(substitute(uops, table), like)]

  def outside(self, tree: Any) -> Any:
    """A tree that the function returned, its tensors freed of the trace."""
    return mapped(lambda x: self.finished([x.uop], [x])[0] if isinstance(x, Tensor) else x, tree)

def tensor_of(u: UOp, like: Tensor) -> Tensor:
  """A value on the device of a tensor. It requires grad if it depends on what does."""
  wanted = {t.uop for t in Tensor.wanting.values() if t.requires_grad} | active
  history = u.dtype.is_floating_point and not wanted.isdisjoint(toposort([u], stop=chain_rule.is_constant))
  if history and not GradMode.recording: u, history = detach(u), False
  return stand_in(u, like, history)

# ---- reverse mode ----------------------------------------------------------------------------------------------------

def chosen(args: tuple, argnums: int | Sequence[int]) -> Any:
  return args[argnums] if isinstance(argnums, int) else tuple(args[i] for i in argnums)

def with_chosen(args: tuple, argnums: int | Sequence[int], values: Any) -> list[Any]:
  """The arguments with those of some numbers replaced."""
  pairs = {argnums: values} if isinstance(argnums, int) else dict(zip(argnums, values))
  return [pairs.get(i, x) for i, x in enumerate(args)]

def traced(func: Function, argnums: int | Sequence[int], has_aux: bool,
           derive: Callable[[Trace, Any], Any]) -> Function:
  """derive(trace, func's output) as a function of func's arguments, of which argnums names those that are traced."""
  @functools.wraps(func)
  def derived(*args: Any, **kwargs: Any) -> Any:
    trace = Trace(chosen(args, argnums))
    output, aux = trace.call(lambda values: func(*with_chosen(args, argnums, values), **kwargs), has_aux)
    found = derive(trace, output)
    return (found, *aux) if has_aux else found
  return derived

def value_and_grad(func: Function, argnums: int | Sequence[int] = 0, has_aux: bool = False) -> Function:
  """(value, gradient) of a function that returns a tensor of one element, by the arguments that argnums names; each may
  be a tree. With has_aux the function returns (value, anything), and so does value: RuntimeError where the value is no
  scalar."""
  def both(trace: Trace, value: Any) -> tuple[Any, Any]:
    if not isinstance(value, Tensor) or value.ndim:
      shape = list(value.shape) if isinstance(value, Tensor) else type(value).__name__
      raise RuntimeError(f"Expected the function to return a scalar tensor, but it returned {shape}")
    total, *found = trace.finished([value.uop, *gradients(value, None, trace)], [value, *trace.originals])
    return total, rebuilt(trace.tree, iter(found))
  derived = traced(func, argnums, has_aux, both)
  @functools.wraps(func)
  def paired(*args: Any, **kwargs: Any) -> Any:
    (value, slopes), aux = derived(*args, **kwargs)
    return (value, aux), slopes
  return paired if has_aux else derived

def gradients(output: Tensor, seed: Tensor | None, trace: Trace) -> list[UOp]:
  """By each stand-in; zeros where the output does not depend on it."""
  zero = [x.uop.like(0) for x in trace.originals]
  if not output.requires_grad: return zero
  with set_mode(True): found = derivatives(output, seed, trace.tensors)
  return [z if g is None else g for z, g in zip(zero, found)]

def grad(func: Function, argnums: int | Sequence[int] = 0, has_aux: bool = False) -> Function:
  """The gradient of a function that returns a tensor of one element, by the arguments that argnums names."""
  both = value_and_grad(func, argnums, has_aux)
  @functools.wraps(func)
  def slope(*args: Any, **kwargs: Any) -> Any:
    value, found = both(*args, **kwargs)
    return (found, value[1]) if has_aux else found
  return slope

def vjp(func: Function, *primals: Any, has_aux: bool = False) -> Any:
  """(func(*primals), a function from a weight for each output to the gradients by primals)[, auxiliary]."""
  trace = Trace(primals)
  output, aux = trace.call(lambda values: func(*values), has_aux)
  def pulled(*cotangents: Any) -> Any:
    """The gradients, weighted by cotangents of the shapes of the outputs."""
    pairs = zip(leaves(output), leaves(cotangents), strict=True)
    of_outputs = [gradients(out, weight, trace) for out, weight in pairs]
    totals = [functools.reduce(UOp.__add__, by_one) for by_one in zip(*of_outputs)]
    return rebuilt(primals, iter(trace.finished(totals, trace.originals)))
  return trace.outside(output), pulled, *aux

# ---- forward mode ----------------------------------------------------------------------------------------------------

def jvp(func: Function, primals: Sequence[Any], tangents: Sequence[Any], has_aux: bool = False) -> Any:
  """(func(*primals), its derivative when the primals move by the tangents)[, auxiliary]."""
  trace = Trace(tuple(primals))
  moves = leaves(tuple(tangents))
  for x, t in zip(trace.originals, moves, strict=True):
    if x.shape != t.shape: raise RuntimeError(f"a tangent of shape {list(t.shape)} for a primal of {list(x.shape)}")
  output, aux = trace.call(lambda values: func(*values), has_aux)
  tangent_of = {u: t.cast(x.dtype).uop for u, x, t in zip(trace.nodes, trace.originals, moves)}
  slopes = mapped(lambda out: trace.finished([pushed(out, tangent_of)], [out])[0], output)
  return trace.outside(output), slopes, *aux

def pushed(output: Tensor, tangent_of: Table) -> UOp:
  """The derivative of an output when stand-ins move."""
  root, *nodes = current([output.uop, *tangent_of])
  slope = chain_rule.jvp(root, dict(zip(nodes, tangent_of.values()))) if output.requires_grad else None
  return output.uop.like(0) if slope is None else slope

# ---- matrices of derivatives -----------------------------------------------------------------------------------------

def identity(shape: Sequence[int], like: UOp) -> UOp:
  """(n, *shape): the n arrays that are 1 at one place."""
  n = prod(shape)
  return identity_mask(n, n).cast(like.dtype).reshape((n, *shape))

def at_units(x: Tensor, derive: Callable[[UOp], list[UOp]]) -> list[UOp]:
  """What derive makes of a node of x's shape and dtype, for each array that is 1 at one place: (n, ..)."""
  seed, known = placeholder(x.shape, x.dtype), len(checks)
  sources = {seed: identity(x.sizes, x.uop)}
  many = batch(derive(seed), sources, x.numel())
  batch_checks(known, sources, x.numel())
  return many

def jacrev(func: Function, argnums: int | Sequence[int] = 0, has_aux: bool = False) -> Function:
  """All derivatives of all outputs, (*output's shape, *argument's shape), by reverse mode: one walk back, batched over
  the outputs' elements."""
  def jacobian(trace: Trace, output: Any) -> Any:
    def rows(out: Tensor) -> Any:
      many = at_units(out, lambda seed: gradients(out, stand_in(seed, out, False), trace))
      shaped = [u.reshape((*out.shape, *u.shape[1:])) for u in many]
      return rebuilt(trace.tree, iter(trace.finished(shaped, trace.originals)))
    return mapped(rows, output)
  return traced(func, argnums, has_aux, jacobian)

def jacfwd(func: Function, argnums: int | Sequence[int] = 0, has_aux: bool = False) -> Function:
  """All derivatives, as jacrev's, by forward mode: batched over the elements of the argument."""
  def jacobian(trace: Trace, output: Any) -> Any:
    def columns(out: Tensor, node: UOp, x: Tensor) -> Tensor:
      many, = at_units(x, lambda seed: [pushed(out, {node: seed})])
      last = many.movedim(0, -1).reshape((*out.shape, *x.shape))
      return trace.finished([last], [out])[0]
    def row(out: Tensor) -> Any:
      return rebuilt(trace.tree, iter([columns(out, u, x) for u, x in zip(trace.nodes, trace.originals)]))
    return mapped(row, output)
  return traced(func, argnums, has_aux, jacobian)

def hessian(func: Function, argnums: int | Sequence[int] = 0) -> Function:
  """The second derivatives of a scalar function, (*argument's shape, *argument's shape)."""
  return jacfwd(jacrev(func, argnums), argnums)

# ---- vmap ------------------------------------------------------------------------------------------------------------

def dims_of(dims: Any, tree: Any) -> list[Any]:
  """in_dims or out_dims for each leaf of a tree: an int or None stands for all leaves below it."""
  if dims is None or isinstance(dims, int): return [dims] * len(leaves(tree))
  branches = list(tree.values()) if isinstance(tree, dict) else list(tree)
  parts = list(dims.values()) if isinstance(dims, dict) else list(dims)
  if len(parts) != len(branches): raise ValueError(f"vmap: {len(parts)} dims for {len(branches)} values")
  return [d for part, branch in zip(parts, branches) for d in dims_of(part, branch)]

def vmap(func: Function, in_dims: Any = 0, out_dims: Any = 0, randomness: str = "error",
         chunk_size: int | None = None) -> Function:
  """A function of one example as a function of a batch of them: the dimensions in_dims of the arguments (None: the same
  for all) count examples, and the dimension out_dims of each output will. randomness 'same' lets examples share random
  numbers, 'error' refuses any. RuntimeError where the function asks for a value or sizes differ. chunk_size has no
  effect: nothing is computed before it is needed."""
  @functools.wraps(func)
  def over_batch(*args: Any, **kwargs: Any) -> Any:
    inputs, dims = leaves(args), dims_of(in_dims, args)
    sizes = {x.shape[axis_of(d, x.ndim)] for x, d in zip(inputs, dims) if d is not None and isinstance(x, Tensor)}
    if len(sizes) != 1: raise ValueError(f"vmap: examples are counted by dimensions of sizes {sorted(sizes)}")
    size, = sizes
    sources: Table = {}
    given = [x if d is None else example(x, d, sources) for x, d in zip(inputs, dims)]
    output = called(lambda: func(*rebuilt(args, iter(given)), **kwargs), sources, size, randomness)
    found = leaves(output)
    many = batch([x.uop for x in found], sources, size)
    outs = [stand_in(u, x, x.requires_grad).movedim(0, d) for u, x, d in zip(many, found, dims_of(out_dims, output))]
    return rebuilt(output, iter(outs))
  return over_batch

def example(x: Any, dim: int, sources: Table) -> Tensor:
  """A stand-in for one of the examples that a tensor holds."""
  if not isinstance(x, Tensor):
    raise ValueError(f"vmap: in_dims says {dim} for a {type(x).__name__}, which is no tensor")
  moved = x.movedim(axis_of(dim, x.ndim), 0)
  node = placeholder(moved.shape[1:], x.dtype)
  sources[node] = moved.uop
  return stand_in(node, x, x.requires_grad)

def called(function: Callable[[], Any], sources: Table, size: int, randomness: str) -> Any:
  """What a function of stand-ins returns. The checks that it asked for are asked of all examples."""
  known, draws = len(checks), default_generator.draws
  try: output = function()
  except ValueError as error:
    del checks[known:]
    if TRACED not in str(error): raise
    raise RuntimeError("vmap: the function asks for a value (item(), bool() or print of a tensor), which one example "
                       "of many does not have: choose with where()") from None
  if default_generator.draws != draws and randomness != "same":
    raise RuntimeError(f"vmap: the function draws random numbers and randomness is {randomness!r}: only 'same' may")
  if any(not isinstance(x, Tensor) for x in leaves(output)): raise ValueError("vmap: the function must return tensors")
  batch_checks(known, sources, size)
  return output

def batch_checks(known: int, sources: Table, size: int) -> None:
  """The checks that came after those known before are asked of all examples."""
  for i in range(known, len(checks)):
    bad, error = checks[i]
    if is_traced(bad): checks[i] = batch([bad], sources, size)[0].reduce(Ops.MAX, (0,)).reshape((1,)), error

# ---- modules ---------------------------------------------------------------------------------------------------------

def functional_call(module: Any, parameters: dict[str, Tensor], args: Any = (),
                    kwargs: dict[str, Any] | None = None) -> Any:
  """module(*args) with tensors in the places of the parameters and buffers that they are named after."""
  places = {path: (m, table, name) for prefix, m in module.named_modules()
            for table in (m._parameters, m._buffers) for name in table
            for path in [f"{prefix}.{name}" if prefix else name]}
  unknown = [path for path in parameters if path not in places]
  if unknown: raise KeyError(f"functional_call: the module has no {', '.join(unknown)}")
  def enter(values: dict[str, Tensor]) -> None:
    for path, value in values.items():
      owner, table, name = places[path]
      owner.enter(table, name, value)
  before = {path: table[name] for path, (_, table, name) in places.items() if path in parameters}
  try:
    enter(parameters)
    return module(*(args if isinstance(args, tuple) else (args,)), **(kwargs or {}))
  finally: enter(before)
