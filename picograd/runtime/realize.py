# realize.py: make values exist. In: nodes of a tensor graph. Out: for each the BUFFER leaf that holds its value.
# A graph is brought into a form that does not name particular buffers; graphs of equal form share one schedule, one memory
# plan and their programs. Nothing here edits a user's graph: what has run is remembered beside it.   (chapter 3)
from __future__ import annotations
import hashlib, time, weakref
from typing import Any, Callable, NamedTuple
import numpy as np
from picograd import codegen
from picograd.codegen.memory import plan_memory
from picograd.codegen.schedule import Kernel, bytes_moved, operations, schedule
from picograd.helpers import Counters, DEBUG, DEVICE, cache_get, cache_put, colour, prod, size_text
from picograd.ops.ops import Ops, identity
from picograd.ops.show import show
from picograd.ops.uop import UOp, toposort
from picograd.runtime.device import Buffer, Device, Program, buffer_of, buffers, device, numpy_dtype, to_host

finished: "weakref.WeakKeyDictionary[UOp, UOp]" = weakref.WeakKeyDictionary()   # AFTER that has run -> BUFFER, a version later
computed: "weakref.WeakKeyDictionary[UOp, UOp]" = weakref.WeakKeyDictionary()   # value -> the BUFFER that holds it

def resolve(u: UOp) -> UOp:
  """u with every assignment that has run replaced by the buffer it assigned to."""
  return rebuild([u], finished.get)[u]

def rebuild(roots: list[UOp], replacement: Callable[[UOp], UOp | None]) -> dict[UOp, UOp]:
  """The graph with nodes replaced, as a table from each old node reached. What lies below a replaced node is not entered."""
  new: dict[UOp, UOp] = {}
  def known(u: UOp) -> bool:
    found = replacement(u)
    if found is not None: new[u] = found
    return found is not None
  for u in toposort(roots, stop=known):
    if u not in new: new[u] = u.with_src(tuple([new[s] for s in u.src]))
  return new

def value_of(u: UOp) -> UOp | None:
  """What already exists of u: the buffer after an assignment that has run, or the stored value in u's shape."""
  if u in finished: return finished[u]
  leaf = computed.get(u)
  if leaf is None or buffer_of(leaf).version != leaf.arg.version: return None
  return shaped(leaf, u)

def shaped(leaf: UOp, u: UOp) -> UOp: return leaf.reshape(u.shape) if prod(u.shape) == leaf.arg.size else leaf

def strip(u: UOp) -> UOp:
  """u without the RESHAPEs around it: the same elements in the same order."""
  while u.op is Ops.RESHAPE: u = u.src[0]
  return u

# ---- from any graph to buffers ---------------------------------------------------------------------------------------

def realize(values: list[UOp]) -> list[UOp]:
  """For each value a flat BUFFER leaf that holds it, computing what does not exist yet. Assignments (AFTER) run once.
  RuntimeError where a value needs what an assignment has overwritten since."""
  roots = [strip(v) for v in values]
  new = rebuild(roots, value_of)
  copy_between_devices(roots, new)
  missing = [r for r in dict.fromkeys(roots) if strip(new[r]).op is not Ops.BUFFER]
  check_versions([new[r] for r in missing])
  for r in missing:
    if prod(new[r].shape) == 0 and new[r].op is not Ops.AFTER: remember(r, UOp.buffer(r.dtype, 0, device_of(r)), new)
  missing = [r for r in missing if strip(new[r]).op is not Ops.BUFFER]
  for name in dict.fromkeys(device_of(new[r]) for r in missing):
    run_on(device(name), [r for r in missing if device_of(new[r]) == name], new)
  return [strip(new[r]) for r in roots]

def remember(root: UOp, leaf: UOp, new: dict[UOp, UOp]) -> None:
  computed[root] = leaf
  new[root] = leaf

def device_of(u: UOp) -> str: return u.device or DEVICE.value

def check_versions(roots: list[UOp]) -> None:
  for u in toposort(roots):
    if u.op is Ops.BUFFER and u in buffers and buffers[u].version != u.arg.version:
      raise RuntimeError(f"a value of {u.arg.size} x {u.dtype.name} that this computation needs has been overwritten: one of the "
                         "variables needed for gradient computation has been modified by an inplace operation")

def copy_between_devices(roots: list[UOp], new: dict[UOp, UOp]) -> None:
  """Runs every COPY of the graph, sources first, and puts the copied buffers in its place."""
  copies = [u for u in toposort([new[r] for r in roots]) if u.op is Ops.COPY]
  table: dict[UOp, UOp] = {}
  for u in copies:
    source = realize([rebuild([u.src[0]], table.get)[u.src[0]]])[0]
    target = UOp.buffer(u.dtype, source.arg.size, u.arg)
    buffer = buffer_of(target)
    if source.arg.size: buffer.device.copy_in(buffer.memory, to_host(source))
    table[u] = target.reshape(u.shape)
  if copies:
    again = rebuild([new[r] for r in roots], table.get)
    for r in roots: new[r] = again[new[r]]

def run_on(where: Device, roots: list[UOp], new: dict[UOp, UOp]) -> None:
  """Computes the roots, all on one device, and records what now exists."""
  order = toposort([new[r] for r in roots])
  results = interpret(where, [new[r] for r in roots]) if where.target is None else run_kernels(where, [new[r] for r in roots], order)
  assigned = next_versions(order)
  known = {v: k for k, v in new.items() if k.op is Ops.AFTER}
  for u, leaf in assigned.items():
    finished[u] = leaf
    if u in known: finished[known[u]] = leaf
  for r in roots:
    if new[r].op is Ops.AFTER: new[r] = assigned[new[r]]
    else: remember(r, results[new[r]], new)

def next_versions(order: list[UOp]) -> dict[UOp, UOp]:
  """AFTER -> the BUFFER leaf that names its memory from now on."""
  out: dict[UOp, UOp] = {}
  for u in order:
    if u.op is not Ops.AFTER: continue
    before = out.get(u.src[0], u.src[0])
    buffer = buffer_of(before)
    after = before.replace(arg=before.arg._replace(version=before.arg.version + 1))
    buffers[after] = buffer
    buffer.version = after.arg.version
    out[u] = after
  return out

# ---- the graph interpreter -------------------------------------------------------------------------------------------

def interpret(where: Any, roots: list[UOp]) -> dict[UOp, UOp]:
  """The roots by a device that evaluates tensor graphs op by op."""
  def read(leaf: UOp) -> np.ndarray: return buffer_of(leaf).memory.view(numpy_dtype(leaf.dtype))
  results: dict[UOp, UOp] = {}
  for u, value in zip(roots, where.run(roots, read)):
    if u.op is Ops.AFTER: continue
    leaf = results[u] = UOp.buffer(u.dtype, prod(u.shape), where.name)
    where.copy_in(buffer_of(leaf).memory, np.ascontiguousarray(value))
  return results

# ---- kernels ---------------------------------------------------------------------------------------------------------

class Launch(NamedTuple):
  """A kernel ready to run."""
  name: str
  program: Program
  kernel: Kernel
  operations: int
  bytes: int

class Plan:
  """The schedule of a graph form: launches, where each temporary lies, which leaf holds each result."""
  def __init__(self, where: Device, roots: list[UOp]):
    made = schedule(roots, where.name)
    self.results = made.results
    self.arena = plan_memory([k.buffers for k in made.kernels], made.temporary)
    self.launches = [prepare(where, k) for k in made.kernels]

PLAN_LIMIT = 512
plans: dict[tuple[str, UOp], Plan] = {}

def run_kernels(where: Device, roots: list[UOp], order: list[UOp]) -> dict[UOp, UOp]:
  """Schedules (or finds the schedule of) the roots' form and runs it on the buffers that the graph names."""
  leaves = [u for u in order if u.op is Ops.BUFFER]
  forms = without_names(roots, order, leaves)
  plan = plans.get((where.name, UOp.sink(*forms)))
  if plan is None:
    if len(plans) >= PLAN_LIMIT: plans.pop(next(iter(plans)))
    plan = plans[where.name, UOp.sink(*forms)] = Plan(where, forms)
  bound: dict[UOp, Buffer] = {form_leaf(number, leaf): buffer_of(leaf) for number, leaf in enumerate(leaves)}
  results: dict[UOp, UOp] = {}
  for root, leaf in zip(roots, plan.results):
    if leaf is None: continue
    results[root] = UOp.buffer(leaf.dtype, leaf.arg.size, where.name)
    bound[leaf] = buffer_of(results[root])
  run_plan(where, plan, bound)
  return results

def form_leaf(number: int, leaf: UOp) -> UOp: return leaf.replace(arg=leaf.arg._replace(id=-1 - number, version=0))

def without_names(roots: list[UOp], order: list[UOp], leaves: list[UOp]) -> list[UOp]:
  """The graph with buffers and unique marks numbered by first use: equal computations become the same node."""
  table = {leaf: form_leaf(number, leaf) for number, leaf in enumerate(leaves)}
  marks: dict[Any, int] = {}
  new: dict[UOp, UOp] = {}
  for u in order:
    if u in table: new[u] = table[u]
    elif u.op is Ops.CONTIGUOUS and u.arg is not None:
      new[u] = UOp(u.op, u.dtype, (new[u.src[0]],), marks.setdefault(u.arg, len(marks)))
    elif u.op is Ops.DETACH: new[u] = new[u.src[0]]
    elif u.op in (Ops.REDUCE, Ops.PAD) and prod(u.src[0].shape) == 0:                 # of no elements
      start = identity(u.arg[0], u.dtype) if u.op is Ops.REDUCE else 0
      new[u] = UOp.const(u.dtype, start).spread(u.shape)
    else: new[u] = u.with_src(tuple([new[s] for s in u.src]))
  return [new[r] for r in roots]

def run_plan(where: Device, plan: Plan, bound: dict[UOp, Buffer]) -> None:
  arena = Buffer(where, plan.arena.size) if plan.arena.size else None
  def memory(leaf: UOp) -> Any:
    if leaf not in plan.arena.offsets: return bound[leaf].memory
    assert arena is not None, "a temporary has an offset only in an arena"
    return where.slice(arena.memory, plan.arena.offsets[leaf], leaf.arg.size * leaf.dtype.itemsize)
  for launch in plan.launches:
    arguments = [memory(leaf) for leaf in launch.kernel.buffers]
    start = time.perf_counter()
    launch.program(arguments)
    Counters.kernels += 1
    Counters.operations += launch.operations
    Counters.bytes_moved += launch.bytes
    if DEBUG >= 2: report(where, launch, start)

def report(where: Device, launch: Launch, start: float) -> None:
  where.synchronize()
  seconds = max(time.perf_counter() - start, 1e-9)
  print(f"{colour(where.name, 'green')} {Counters.kernels:5d} {launch.name:40s} {seconds * 1e6:10.1f} us "
        f"{launch.operations / seconds / 1e9:8.2f} GFLOP/s {launch.bytes / seconds / 1e9:7.2f} GB/s {size_text(launch.bytes):>10s}")

programs: dict[tuple[str, UOp], Launch] = {}

def prepare(where: Device, kernel: Kernel) -> Launch:
  """The launch of a kernel; its program comes from memory, from the disk cache, or from the compiler."""
  known = programs.get((where.name, kernel.ast))
  if known is not None: return known._replace(kernel=kernel)
  assert where.target is not None
  ast = codegen.prepared(kernel.ast)
  opts = codegen.opts_for(ast, where.target)
  name = kernel_name(kernel.ast)
  if DEBUG >= 3: print(f"{name}: {opts}")
  if DEBUG >= 5: print(show(ast))
  source = where.render(codegen.compile(name, ast, where.target, opts))
  if DEBUG >= 4: print(source)
  launch = Launch(name, where.load(name, binary_of(where, source)), kernel, operations(kernel), bytes_moved(kernel))
  programs[where.name, kernel.ast] = launch
  return launch

def binary_of(where: Device, source: str) -> bytes:
  key = where.cache_key(source)
  binary = cache_get("kernels", key)
  if binary is None:
    Counters.compiled += 1
    binary = cache_put("kernels", key, where.compile(source))
  return binary

def kernel_name(ast: UOp) -> str:
  """A name that says what the kernel loops over, and ends in a digest of its structure: equal names mean equal kernels."""
  nodes = toposort([ast])
  numbers = {u: i for i, u in enumerate(nodes)}
  lines = [f"{u.op} {u.dtype} {[numbers[s] for s in u.src]} {u.arg!r}" for u in nodes]
  digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()[:8]
  extents = [str(u.bound.arg) for u in nodes if u.op is Ops.RANGE]
  kind = "reduce" if any(u.op is Ops.REDUCE for u in nodes) else "map"
  return "_".join([kind, *extents, digest])
