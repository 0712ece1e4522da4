# realize.py: make values exist. In: nodes of a tensor graph. Out: for each the BUFFER leaf that holds its value.
# A graph is brought into a form that does not name particular buffers; graphs of equal form share one schedule, one
# memory plan and their programs. Nothing here edits a user's graph: what has run is remembered beside it.   (chapter 3)
from __future__ import annotations
import time, weakref
from typing import Any, Callable
import numpy as np
from picograd.codegen.schedule import over_memory
from picograd.helpers import Counters, DEBUG, DEVICE, dedup, prod, size_text
from picograd.ops.ops import Buf, Ops, identity
from picograd.ops.uop import Table, UOp, toposort
from picograd.runtime import profile
from picograd.runtime.device import Buffer, Device, buffer_of, buffers, device, numpy_dtype, to_host
from picograd.runtime.plan import Launch, Plan, find_plan

Remembered = weakref.WeakKeyDictionary
finished: "Remembered[UOp, UOp]" = Remembered()     # AFTER that has run -> its BUFFER, a version later
computed: "Remembered[UOp, UOp]" = Remembered()     # value -> the BUFFER that holds it
watchers: list[Any] = []                            # tapes (jit.py) that record what runs

def resolve(uops: list[UOp]) -> list[UOp]:
  """The graphs with every assignment that has run replaced by the buffer it assigned to. One that has not run stays the
  node that it is: a copy of it, over other nodes, would run a second time."""
  new = rebuild(uops, lambda u: finished.get(u, u) if u.op is Ops.AFTER else None)
  return [new[u] for u in uops]

def rebuild(roots: list[UOp], replacement: Callable[[UOp], UOp | None]) -> Table:
  """The graph with nodes replaced, as a table from each old node reached. Below a replaced node nothing is entered."""
  new: Table = {}
  def is_replaced(u: UOp) -> bool:
    found = replacement(u)
    if found is not None: new[u] = found
    return found is not None
  for u in toposort(roots, is_replaced):
    if u in new: continue
    src = [new[s] for s in u.src]
    if u.op is Ops.STORE: src[0] = over_memory(u.src[0], lambda base: new.get(base) or finished.get(base, base))
    new[u] = u.with_src(tuple(src))
  return new

def value_of(u: UOp) -> UOp | None:
  """What already exists of u: the buffer after an assignment that has run, or the stored value in u's shape."""
  if u in finished: return finished[u]
  leaf = computed.get(strip(u))
  if leaf is None or buffer_of(leaf).version != leaf.arg.version: return None
  return leaf.reshape(u.shape)

def strip(u: UOp) -> UOp:
  """u without what leaves it the same elements in the same order."""
  while u.op in (Ops.RESHAPE, Ops.DETACH): u = u.src[0]
  return u

# ---- from any graph to buffers ---------------------------------------------------------------------------------------

def realize(values: list[UOp], device_of_none: str = "") -> list[UOp]:
  """For each value a flat BUFFER leaf that holds it, computing what does not exist yet: on the named device, by default
  the default one, where nothing below it lies anywhere. Assignments (AFTER) run once. RuntimeError where a value needs
  what an assignment has overwritten since."""
  roots = [strip(v) for v in values]
  new = rebuild(roots, value_of)
  if any(u.op is Ops.COPY for u in new.values()): copy_between_devices(roots, new)
  for r in dedup(roots):
    if 0 in r.shape: new[r] = UOp.buffer(r.dtype, 0, home(r))
  missing = [r for r in dedup(roots) if strip(new[r]).op is not Ops.BUFFER]
  if any(is_overwritten(u) for u in new.values()): check_versions([new[r] for r in missing])
  homes = {r: new[r].device or device_of_none or DEVICE.value for r in missing}
  for name in dedup(homes.values()): run_on(device(name), [r for r in missing if homes[r] == name], new)
  return [strip(new[r]) for r in roots]

def home(u: UOp) -> str: return u.device or DEVICE.value

def check_versions(roots: list[UOp]) -> None:
  u = overwritten(roots)
  if u is None: return
  raise RuntimeError(f"a value of {u.arg.size} x {u.dtype.name} that this computation needs is overwritten: one "
                     "of the variables needed for gradient computation has been modified by an inplace operation")

def overwritten(roots: list[UOp]) -> UOp | None:
  """A BUFFER below the roots whose memory holds something else by now."""
  return next((u for u in toposort(roots) if is_overwritten(u)), None)

def is_overwritten(u: UOp) -> bool:
  return u.op is Ops.BUFFER and u in buffers and buffers[u].version != u.arg.version

def can_exist(u: UOp) -> bool:
  """Whether all that u needs is still in memory."""
  return overwritten([rebuild([u], value_of)[u]]) is None

def copy_between_devices(roots: list[UOp], new: Table) -> None:
  """Runs every COPY of the graph, sources first, and puts the copied buffers in its place."""
  done: Table = {}
  for u in toposort([new[r] for r in roots]):
    if u.op is not Ops.COPY: continue
    below = u.src[0]
    source, = realize([rebuild([below], done.get)[below]], u.arg)
    if source.arg.device == u.arg:                      # it has been computed where it is wanted
      done[u] = source.reshape(u.shape)
      continue
    for w in watchers: w.copied(source.arg.device, u.arg)
    target = UOp.buffer(u.dtype, source.arg.size, u.arg)
    buffer = buffer_of(target)
    if source.arg.size: buffer.device.copy_in(buffer.memory, to_host(source))
    done[u] = target.reshape(u.shape)
  again = rebuild([new[r] for r in roots], done.get) if done else {}
  for r in roots: new[r] = again.get(new[r], new[r])

def run_on(where: Device, roots: list[UOp], new: Table) -> None:
  """Computes the roots, all on one device, and records what now exists."""
  graph = [new[r] for r in roots]
  order = toposort(graph)
  run = interpret if where.target is None else run_kernels
  results = run(where, graph, order)
  assigned = next_versions(order)
  finished.update(assigned)
  for u, made in new.items():
    if made in assigned: finished[u] = assigned[made]
  for r in roots:
    if new[r] not in assigned and r.device: computed[r] = results[new[r]]     # a constant may be wanted elsewhere too
    new[r] = assigned.get(new[r]) or results[new[r]]

def next_versions(order: list[UOp]) -> Table:
  """AFTER -> the BUFFER leaf that names its memory from now on."""
  out: Table = {}
  for u in order:
    if u.op is not Ops.AFTER: continue
    before = out.get(u.src[0], u.src[0])
    after = before.replace(arg=before.arg._replace(version=before.arg.version + 1))
    buffers[after] = buffer_of(before)
    buffers[after].version = after.arg.version
    out[u] = after
  return out

# ---- the graph interpreter -------------------------------------------------------------------------------------------

def interpret(where: Any, roots: list[UOp], order: list[UOp]) -> Table:
  """The roots by a device that evaluates tensor graphs op by op."""
  for w in watchers: w.interpreted(where.name)
  def read(leaf: UOp) -> np.ndarray:
    return buffer_of(leaf).memory.view(numpy_dtype(leaf.dtype))
  results: Table = {}
  for u, value in zip(roots, where.run(roots, read)):
    if u.op is Ops.AFTER: continue
    leaf = results[u] = UOp.buffer(u.dtype, prod(u.shape), where.name)
    if value.size: where.copy_in(buffer_of(leaf).memory, np.ascontiguousarray(value))
  return results

# ---- kernels ---------------------------------------------------------------------------------------------------------

def run_kernels(where: Device, roots: list[UOp], order: list[UOp]) -> Table:
  """Schedules (or finds the schedule of) the roots' form and runs it on the buffers that the graph names."""
  leaves = [u for u in order if u.op is Ops.BUFFER]
  form = without_names(order, leaves)
  plan = find_plan(where, [form[r] for r in roots])
  bound = {form[leaf]: buffer_of(leaf) for leaf in leaves}
  made: Table = {}                                # roots of equal form share a leaf
  for leaf in dedup(leaf for leaf in plan.results if leaf is not None):
    made[leaf] = UOp.buffer(leaf.dtype, leaf.arg.size, where.name)
    bound[leaf] = buffer_of(made[leaf])
  run_plan(where, plan, bound)
  for w in watchers: w.ran(where, plan, bound)
  return {root: made[leaf] for root, leaf in zip(roots, plan.results) if leaf is not None}

def without_names(order: list[UOp], leaves: list[UOp]) -> Table:
  """The graph with buffers and unique marks numbered by first use: equal computations become the same node."""
  new: Table = {}
  for number, leaf in enumerate(leaves):
    new[leaf] = UOp(Ops.BUFFER, leaf.dtype, (), Buf(-1 - number, leaf.arg.size, leaf.arg.space, leaf.arg.device))
  marks: dict[Any, int] = {}
  for u in order:
    if u in new: continue
    form = u.with_src(tuple([new[s] for s in u.src]))
    if u.op is Ops.DETACH or assigns_nothing(u): form = form.src[0]
    elif u.op is Ops.CONTIGUOUS and u.arg is not None: form = form.replace(arg=marks.setdefault(u.arg, len(marks)))
    elif u.op in (Ops.REDUCE, Ops.PAD) and 0 in u.src[0].shape: form = of_nothing(u)
    new[u] = form
  return new

def assigns_nothing(u: UOp) -> bool:
  return u.op is Ops.AFTER and all(0 in s.src[1].shape for s in u.src[1:])

def of_nothing(u: UOp) -> UOp:
  """What reducing, or padding, no elements gives."""
  value = identity(u.arg[0], u.dtype) if u.op is Ops.REDUCE else 0
  return UOp.const(u.dtype, value).spread(u.shape)

def run_plan(where: Device, plan: Plan, bound: dict[UOp, Buffer]) -> None:
  arena = Buffer(where, plan.arena.size)
  def memory(leaf: UOp) -> Any:
    offset = plan.arena.offsets.get(leaf)
    if offset is None: return bound[leaf].memory
    return where.slice(arena.memory, offset, leaf.arg.size * leaf.dtype.itemsize)
  for launch in plan.launches:
    arguments = [memory(leaf) for leaf in launch.kernel.buffers]
    if profile.is_wanted(): profiled(where, launch, arguments)
    else: launch.program(arguments)
    Counters.kernels += 1
    Counters.operations += launch.operations
    Counters.bytes_moved += launch.bytes
  if DEBUG >= 1: print(f"{where.name}: {len(plan.launches)} kernels, {size_text(Counters.bytes_peak)} at most")

def profiled(where: Device, launch: Launch, arguments: list[Any]) -> None:
  where.synchronize()
  start = time.perf_counter()
  seconds = where.timed(lambda: launch.program(arguments))
  profile.record(where, launch.name, start, seconds, launch.operations, launch.bytes)
