# storage.py: the mutable cell under a tensor and all its views, and when its value comes into memory. In: graphs. Out:
# graphs whose leaves are BUFFERs. A value is immutable; what changes is the node a Storage names: `t.add_(1)` makes it
# AFTER(BUFFER, STORE(view of BUFFER, value)), an assignment that runs with the next realize().
from __future__ import annotations
import itertools, weakref
from typing import Any, Callable, Iterable, NamedTuple, Sequence
import numpy as np
from picograd.dtype import DType, dtypes
from picograd.helpers import DEVICE, argsort, dedup
from picograd.ops.ops import Ops
from picograd.ops.shape import Shape
from picograd.ops.uop import UOp, fresh, substitute, toposort
from picograd.runtime.device import Buffer, buffer_named, buffer_of, copy_of, numpy_dtype, to_host
from picograd.runtime import realize as runtime

class Changes:
  """How often something has changed that a look at a tensor would show: what its storage holds, where, its view, its
  part in gradients. While it stands still, all tensors are as they were, but for new ones."""
  __slots__ = ("count",)
  def __init__(self) -> None: self.count = 0
changes = Changes()

unique = itertools.count(1)
def unique_leaf(u: UOp) -> UOp:
  """u stored in memory of its own, as a node that equals no other."""
  return UOp(Ops.CONTIGUOUS, u.dtype, (u,), next(unique))

# ---- views: movement steps from a base -------------------------------------------------------------------------------

Step = tuple[Ops, Any]
Steps = tuple[Step, ...]
IN_PLACE = frozenset({Ops.RESHAPE, Ops.PERMUTE, Ops.CONTIGUOUS})         # steps that see every element of the base once

def look(base: UOp, steps: Steps) -> UOp:
  """The base as the view sees it."""
  for op, arg in steps: base = UOp(op, base.dtype, (base,), arg)
  return base

def sees_all(steps: Steps) -> bool: return all(op in IN_PLACE for op, _ in steps)

def put_back(value: UOp, shape: Shape, steps: Steps) -> UOp:
  """The inverse of look: what the view sees, where it is in the base; zeros elsewhere."""
  shapes = [shape]
  for step in steps: shapes.append(look(UOp.const(dtypes.bool, False).spread(shapes[-1]), (step,)).shape)
  for (op, arg), before in zip(reversed(steps), reversed(shapes[:-1])):
    if op is Ops.RESHAPE: value = value.reshape(before)
    elif op is Ops.PERMUTE: value = value.permute(argsort(arg))
    elif op is Ops.SHRINK:
      value = value.pad(tuple((lo, n - hi) for n, (lo, hi) in zip(before, arg)))
    elif op is Ops.PAD:
      value = value.shrink(tuple((lo, lo + n) for n, (lo, _) in zip(before, arg)))
    elif op is Ops.EXPAND:
      raise RuntimeError(f"cannot write into a tensor expanded from {before} to {arg}: several elements share one "
                         "place in memory; call clone() first")
  return value

def merged(base: UOp, steps: Steps, value: UOp) -> UOp:
  """The base with what the view sees replaced by value."""
  if sees_all(steps): return put_back(value, base.shape, steps)
  written = put_back(UOp.const(dtypes.bool, True).spread(value.shape), base.shape, steps)
  return written.where(put_back(value, base.shape, steps), base)

NUMPY_STEPS: dict[Ops, Callable[[np.ndarray, Any], np.ndarray]] = {
  Ops.RESHAPE: lambda x, shape: x.reshape(shape),
  Ops.PERMUTE: lambda x, axes: x.transpose(axes),
  Ops.EXPAND: lambda x, shape: np.broadcast_to(x, shape),
  Ops.SHRINK: lambda x, bounds: x[tuple(slice(lo, hi) for lo, hi in bounds)],
  Ops.PAD: lambda x, widths: np.pad(x, widths),
  Ops.CONTIGUOUS: lambda x, _: x,
  Ops.DETACH: lambda x, _: x,
}

# ---- the cell --------------------------------------------------------------------------------------------------------

def memory_of(u: UOp) -> UOp | None:
  """The BUFFER that holds exactly u, in order; None where u has to be computed."""
  u = runtime.strip(u)
  return u if u.op is Ops.BUFFER else None

def buffer_under(u: UOp) -> UOp | None:
  """The BUFFER that u is, reshaped, after any number of assignments."""
  while u.op in (Ops.RESHAPE, Ops.AFTER): u = u.src[0]
  return u if u.op is Ops.BUFFER else None

def assignment_of(u: UOp) -> UOp | None:
  """The AFTER that u is, reshaped; None where u is something else."""
  u = runtime.strip(u)
  return u if u.op is Ops.AFTER else None

def place_of(u: UOp) -> UOp:
  """The BUFFER that holds u, or the assignment that will leave it there; u itself where it is neither."""
  u = runtime.strip(Storage.landed.get(u, u))
  return runtime.computed.get(u) or runtime.finished.get(u, u)

class Form(NamedTuple):
  """What a value is besides its elements."""
  shape: Shape
  dtype: DType

class Storage:
  """uop: the value, in the base tensor's shape. memory: the BUFFER that holds it, if it has been computed. history: uop
  leads to leaves that require grad. leaf: a tensor on it is such a leaf. shared: others may have built on uop. former:
  nodes that were the leaf before it was overwritten. written: changed in place since it was last in memory. users: the
  tensors on it, weakly. buffer, form: its memory and what lies there, None until somebody has asked."""
  __slots__ = ("node", "place", "history", "leaf", "shared", "former", "written", "users", "device", "serial",
               "buffer", "form", "__weakref__")
  node: UOp | None               # the two that uop and memory give
  place: UOp | None
  buffer: Buffer | None
  form: Form | None
  waiting: "weakref.WeakValueDictionary[int, Storage]" = weakref.WeakValueDictionary()   # without own memory, by serial
  owners: "weakref.WeakKeyDictionary[UOp, weakref.ref[Storage]]" = weakref.WeakKeyDictionary()
  assignments: "weakref.WeakSet[UOp]" = weakref.WeakSet()                        # all that may still have to run
  landed: "weakref.WeakKeyDictionary[UOp, UOp]" = weakref.WeakKeyDictionary()   # unique leaf -> its BUFFER, reshaped

  def __init__(self, uop: UOp, device: str, history: bool = False):
    self.device, self.history, self.leaf, self.shared, self.written = device, history, False, False, False
    self.users: list[weakref.ref] = []
    self.former: Any = ()
    self.serial = next(fresh)
    self.name(uop)

  @classmethod
  def holding(cls, buffer: Buffer, form: Form, device: str) -> Storage:
    """A storage whose value lies in memory that nobody else has seen. Its node is made when somebody asks for it."""
    self = cls.__new__(cls)
    self.history = self.leaf = self.shared = self.written = False
    self.device = device
    self.buffer = buffer
    self.form = form
    self.serial = next(fresh)
    self.users = []
    self.former = ()
    self.node = None
    return self

  @property
  def uop(self) -> UOp: return self.make_node() if self.node is None else self.node
  @property
  def shape(self) -> Shape: return (self.form or self.uop).shape
  @property
  def dtype(self) -> DType: return (self.form or self.uop).dtype
  @property
  def memory(self) -> UOp | None:
    if self.node is None: self.make_node()
    return self.place

  def make_node(self) -> UOp:
    """Of a storage that holds memory which has no node yet."""
    assert self.buffer is not None and self.form is not None, "a storage has a value or holds memory"
    if self.buffer.version: changes.count += 1                       # from now on others may share what is overwritten
    self.place = buffer_named(self.buffer, self.form.dtype)
    self.node = self.place.reshape(self.form.shape)
    Storage.owners[self.place] = weakref.ref(self)
    return self.node

  def in_memory(self) -> Buffer | None:
    """My memory, which my form describes; None where my value has to be computed."""
    if self.buffer is None and self.memory is not None:
      self.buffer, self.form = buffer_of(self.memory), Form(self.uop.shape, self.uop.dtype)
    return self.buffer

  def remember(self, nodes: Iterable[UOp]) -> None:
    """The nodes were this leaf before it was overwritten."""
    if not self.former: self.former = weakref.WeakSet()
    self.former.update(nodes)

  def set(self, uop: UOp) -> None:
    """From now on the value is uop."""
    changes.count += 1
    self.name(uop)

  def name(self, uop: UOp) -> None:
    self.node, self.buffer, self.form = uop, None, None
    self.place = memory_of(uop)
    self.shared = self.shared or self.place is not None              # whoever gave me the node may have built on it
    if self.place is not None and self.owns_memory(): Storage.waiting.pop(self.serial, None)
    else: Storage.waiting[self.serial] = self

  def overwritten(self, count: int) -> None:
    """A replay has assigned to memory of my own this many times. Its node is made when somebody asks for it."""
    buffer = self.in_memory()
    assert buffer is not None, "a replay writes into memory"
    buffer.version += count
    self.node = None

  def is_known(self) -> bool:
    """Whether the host may look at my value now: it is in memory, and what is seen is not made part of a capture."""
    return self.memory is not None and not runtime.watchers

  def owns_memory(self) -> bool:
    """Whether my memory may be overwritten: no other storage holds its value there. Unowned memory becomes mine."""
    if self.node is None: return True
    assert self.memory is not None
    owner = Storage.owners.get(self.memory)
    living = owner() if owner is not None else None
    if living is None or buffer_under(living.uop) is not self.memory and living.memory is not self.memory:
      Storage.owners[self.memory] = weakref.ref(self)
    elif living is not self: return False
    return True

  def assigns(self) -> bool:
    """Whether my value is an assignment to memory of my own: that of a clone is the original's."""
    below = buffer_under(self.uop)
    owner = Storage.owners.get(below) if below is not None else None
    return assignment_of(self.uop) is not None and owner is not None and owner() is self

  def has_history(self) -> bool:
    """Whether a gradient may still be asked of my value: there is a history, and a tensor that reads me with it."""
    return self.history and any((t := user()) is not None and not t.detached for user in self.users)

  def is_due(self) -> bool:
    """Whether the next realize() must compute my value: the graph of a state that a loop changes would grow else."""
    return self.memory is None and (self.leaf or self.written) and not self.has_history()

  def plain(self) -> UOp:
    """The value for readers that want no gradient."""
    self.shared = True
    if self.memory is not None and memory_of(self.uop) is None: return self.memory.reshape(self.uop.shape)
    if self.leaf or self.history: return UOp(Ops.DETACH, self.uop.dtype, (self.uop,))
    return self.uop

  def recorded(self) -> UOp:
    """The value for readers that record what they do."""
    return self.uop

  def has_leaf(self) -> bool:
    """Whether a living tensor on me is a leaf."""
    return self.leaf and any((t := user()) is not None and t.leaf for user in self.users)

  def claim_leaf(self) -> None:
    """From now on uop is a node that no other value shares."""
    self.leaf = True
    if self.assigns(): self.settle()
    if self.shared or self.memory is None or not self.owns_memory(): self.set(unique_leaf(self.uop))

  def land(self, memory: UOp) -> None:
    """My value is in memory. A graph that no gradient needs is dropped, so that a loop's graph does not grow."""
    if self.memory is not None: changes.count += 1                   # else nobody has looked at it
    before, self.place, self.written, self.buffer, self.form = self.uop, memory, False, None, None
    if not self.has_history():
      self.history = False
      self.node = memory.reshape(self.uop.shape)
      if before.op is Ops.CONTIGUOUS and before.arg is not None: Storage.landed[before] = self.uop
    if self.owns_memory(): Storage.waiting.pop(self.serial, None)

  def write(self, steps: Steps, value: UOp) -> None:
    """What a view sees becomes value. Memory of my own is overwritten; else I name a new value."""
    for w in runtime.watchers: w.overwritten.append(self)
    self.written = True
    if self.leaf: self.remember([self.uop])
    put_back(value, self.uop.shape, steps)                             # raises where the view repeats elements
    if self.has_history() or memory_of(self.uop) is None and not self.assigns() and sees_all(steps):
      self.set(merged(self.uop, steps, value))
      if self.leaf: self.set(unique_leaf(self.uop))
      return
    if not self.assigns(): self.settle()
    base = runtime.strip(self.uop)
    target = look(self.uop, steps)
    if any(op in (Ops.PAD, Ops.CONTIGUOUS) for op, _ in steps):
      target, value = self.uop, merged(self.uop, steps, value)
    assignment = base.after(target.store(value))
    Storage.assignments.add(assignment)
    self.set(assignment.reshape(self.uop.shape))

  def settle(self) -> None:
    """Puts the value into memory of my own."""
    if self.memory is None: realize([self])
    assert self.memory is not None
    self.land(self.memory)
    if not self.owns_memory():
      self.set(unique_leaf(self.uop))
      realize([self])
    self.written = True

def waiting_by_age() -> list[Storage]:
  """In the same order in every run: equal programs become equal graphs."""
  return sorted(Storage.waiting.values(), key=lambda s: s.serial)

# ---- checks: conditions on values that are not known yet -------------------------------------------------------------

Check = tuple[UOp, Exception]           # a bool scalar that must turn out False, and what to raise if it does not
checks: list[Check] = []

def check_later(bad: UOp, device: str, error: Exception) -> None:
  """error is raised by the next realize() if any element of bad, which is computed on the device, is true."""
  if 0 in bad.shape: return
  some = bad.cast(dtypes.int32).reduce(Ops.MAX, tuple(range(len(bad.shape))))
  checks.append((placed(some.reshape((1,)), device), error))

traced: "weakref.WeakSet[UOp]" = weakref.WeakSet()                            # leaves that stand for no value: func's
def is_traced(u: UOp) -> bool:
  """Whether u depends on a leaf that stands for no value."""
  return bool(traced) and not traced.isdisjoint(toposort([u]))

# ---- realize ---------------------------------------------------------------------------------------------------------

Request = tuple[Storage, UOp]

def realize(storages: Iterable[Storage]) -> None:
  """Puts the values of storages into memory, and runs all assignments and checks that wait. Whoever needs the value of
  a buffer from before an assignment gets its own value computed first."""
  wanted = [s for s in dedup(storages) if s.memory is None]
  due = [check for check in checks if not is_traced(check[0])]
  if not wanted and not due: return
  asked = set(wanted)
  wanted += [s for s in waiting_by_age() if s not in asked and s.is_due() and not is_traced(s.uop)]
  requests: list[Request] = [(s, s.uop) for s in wanted]
  lost = add_readers(requests)
  checks[:] = [check for check in checks if check not in due]
  values = [placed(kept(u, lost), s.device) for s, u in requests]
  memories = runtime.realize(values + [bad for bad, _ in due])
  for (storage, _), memory in zip(requests, memories): storage.land(memory)
  if lost: forget_assignments()
  for (_, error), memory in zip(due, memories[len(requests):]):
    for w in runtime.watchers: w.checked(memory, error)
    if to_host(memory)[0]: raise error

def forget_assignments() -> None:
  """What has run leaves the graphs that wait: each step of a loop would lead to all steps before it else."""
  waiting = waiting_by_age()
  for storage, uop in zip(waiting, runtime.resolve([s.uop for s in waiting])): storage.node = uop

def add_readers(requests: list[Request]) -> set[UOp]:
  """Adds who reads a buffer as it was before an assignment in the requests. Returns what is assigned to. Every graph is
  walked once."""
  lost: set[UOp] = set()
  if all(u in runtime.finished for u in Storage.assignments): return lost
  seen: set[UOp] = set()
  roots = [u for _, u in requests]
  while roots:
    nodes = toposort(roots, stop=seen.__contains__)
    seen.update(nodes)
    lost.update(u.src[0] for u in nodes if u.op is Ops.AFTER)
    readers = readers_of_old(requests, lost, seen) if lost else []
    requests += readers
    roots = [u for _, u in readers]
  return lost

def kept(u: UOp, lost: set[UOp]) -> UOp:
  """u, copied if its value lies, or will lie, where it will be overwritten."""
  return unique_leaf(u) if place_of(u) in lost else u

def placed(u: UOp, device: str) -> UOp:
  """u, copied to a device that is not the default one if nothing below it lies anywhere."""
  return u if device == DEVICE.value or u.device else UOp(Ops.COPY, u.dtype, (u,), device)

def readers_of_old(requests: Sequence[Request], lost: set[UOp], requested: set[UOp]) -> list[Request]:
  """The storages besides the requests whose value is, or depends on, one that will be overwritten. requested: the nodes
  below the requests."""
  asked = {storage for storage, _ in requests}
  others = [s for s in waiting_by_age() if s not in asked]
  old: set[UOp] = set()                        # nodes that depend on an overwritten value
  def has_run(u: UOp) -> bool:
    return u.op is Ops.AFTER and (u in requested or u in runtime.finished)
  for u in toposort([s.uop for s in others], stop=has_run):
    if place_of(u) in lost or not has_run(u) and not old.isdisjoint(u.src): old.add(u)
  found: list[Request] = []
  for s in others:
    if s.memory is None and s.uop in old and runtime.can_exist(s.uop): found.append((s, s.uop))
    if s.memory is not None and s.memory in lost: found.append((s, unique_leaf(s.memory.reshape(s.uop.shape))))
  return found

def current(uops: Sequence[UOp]) -> list[UOp]:
  """The graphs with everything that has run since they were built replaced by the memory that holds it."""
  uops = runtime.resolve(list(uops))
  landed = {u: Storage.landed[u] for u in toposort(uops) if u in Storage.landed}
  pending = {u: u for u in toposort(uops) if u.op is Ops.AFTER}       # entered by the realize that runs it alone
  return substitute(uops, {**landed, **pending})

# ---- host copies -----------------------------------------------------------------------------------------------------

def host_copy(storage: Storage, steps: Steps) -> np.ndarray:
  """What a view sees, as a NumPy array; bfloat16 as float32."""
  for w in runtime.watchers: w.looked()
  if checks or storage.buffer is None: realize([storage])
  buffer, form = storage.in_memory(), storage.form
  assert buffer is not None and form is not None
  data = copy_of(buffer, form.shape, form.dtype)
  if form.dtype is dtypes.bfloat16: data = (data.astype(np.uint32) << 16).view(np.float32)
  for op, arg in steps: data = NUMPY_STEPS[op](data, arg)
  return data

def host_bits(data: np.ndarray, dtype: DType) -> np.ndarray:
  """Host data as the elements of a buffer."""
  if data.dtype == numpy_dtype(dtype) and dtype is not dtypes.bfloat16: return data
  with np.errstate(all="ignore"):
    if dtype is dtypes.bfloat16: return bfloat16_bits(data.astype(np.float32))
    return data.astype(numpy_dtype(dtype))

def bfloat16_bits(data: np.ndarray) -> np.ndarray:
  """float32 values as the bits of the nearest bfloat16, ties to even."""
  bits = np.ascontiguousarray(data, np.float32).view(np.uint32)
  nearest = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16
  return np.where(np.isnan(data), 0x7fc0, nearest).astype(np.uint16)
