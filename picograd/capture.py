# capture.py: `jit` and `compile`: a function is run once for each signature, what it made the device do is recorded
# (runtime/jit.py), and later calls of that signature replay it. In: a function of tensors. Out: a callable with equal
# results and equal effects on the tensors it can reach. Nothing is assumed that a guard does not check: see Walk.
# What a replay cannot repeat is an error, or never replayed and said so at DEBUG=1.   (chapter 3)
from __future__ import annotations
import contextlib, copy, dis, enum, functools, os, types, weakref
from operator import attrgetter, is_not
from pathlib import Path
from sys import getrefcount
from typing import Any, Callable, Iterator, NamedTuple
import numpy as np
from picograd.common import Autocast, Default, GradMode, Precision
from picograd.dtype import DType
from picograd.helpers import DEBUG, DEVICE, EAGER, JIT_CHECK, dedup
from picograd.nn.module import Module
from picograd.ops.uop import UOp
from picograd.runtime import realize as runtime
from picograd.runtime.device import Buffer, Device, LARGE, buffer_of, device, to_host
from picograd.runtime.jit import Captured, CaptureError, Tape
from picograd.storage import Form, Steps, Storage, changes, readers_of_old, realize
from picograd.tensor import Tensor

# ---- the walk: all that a call may depend on -------------------------------------------------------------------------

ATOMS = frozenset({int, float, complex, bool, str, bytes, type(None), type(Ellipsis), range, slice})
NAMES = frozenset({type, types.BuiltinFunctionType, DType})          # equal if they are the same object
LARGEST_ARRAY = 1 << 16          # bytes of a NumPy array that every call compares
HERE = str(Path(__file__).parent)
INSTALLED = (HERE, str(Path(os.__file__).parent), "<frozen")         # the standard library has site-packages below it

def is_installed(file: str) -> bool:
  """Whether code of this file is a library's: its globals are taken to stay as they are."""
  return file.startswith(INSTALLED) or "site-packages" in file

class Spot(NamedTuple):
  """Where a tensor was found: container[key], or an attribute of it."""
  container: Any
  key: Any
  tensor: Tensor

class Reads(NamedTuple):
  """What a walk looked at, as flat lists: while all of it is the same, so is what the walk found. Tensors need no look
  while storage.changes stands still."""
  functions: list[tuple[types.FunctionType, Any, Any]]               # with their code and defaults
  names: list[tuple[dict, str, Any]]                                 # of namespaces
  attributes: list[tuple[Any, str, Any]]
  items: list[tuple[Any, tuple]]                                     # of lists, and keys and values of dicts
  trees: list["Tree"]
  tensors: list[tuple]
  others: list[Any]                                                  # what can only be read again

  def hold(self) -> bool:
    if self.others or not Guards([self]).hold(): return False
    for t, storage, history, steps, requires, leaf, detached in self.tensors:
      if t.storage is not storage or storage.history is not history or t.steps is not steps: return False
      if t.requires is not requires or t.leaf is not leaf or t.detached is not detached: return False
    return True

class Guards:
  """The reads of several walks, but for those of tensors, each once and in columns, which are compared without a step
  of Python for each: it runs while the data of the last call fill the caches. Functions, which are few, go singly."""
  def __init__(self, parts: list[Reads]):
    self.functions = [read for part in parts for read in part.functions]
    spaces: dict[int, tuple[dict, dict[str, Any]]] = {}
    for space, name, value in [read for part in parts for read in part.names]:
      spaces.setdefault(id(space), (space, {}))[1][name] = value
    self.names = [(space.get, tuple(found), (ABSENT,) * len(found), tuple(found.values()))
                  for space, found in spaces.values()]
    attributes: dict[str, tuple[list[Any], list[Any]]] = {}
    for x, name, value in [read for part in parts for read in part.attributes]:
      for column, entry in zip(attributes.setdefault(name, ([], [])), (x, value)): column.append(entry)
    self.attributes = [(attrgetter(name), *columns) for name, columns in attributes.items()]
    items = [read for part in parts for read in part.items]
    self.items = [(x, found) for x, found in items if found]
    self.empty = [x for x, found in items if not found]
    self.versions = {tree.changes for part in parts for tree in part.trees}

  def hold(self) -> bool:
    for f, code, defaults in self.functions:
      if f.__code__ is not code or f.__defaults__ is not defaults: return False
    for get, names, absent, values in self.names:
      if any(map(is_not, map(get, names, absent), values)): return False
    for look, objects, seen in self.attributes:
      if any(map(is_not, map(look, objects), seen)): return False
    for x, items in self.items:
      now = flat_items(x)
      if len(now) != len(items) or any(map(is_not, now, items)): return False
    return not any(self.empty) and (not self.versions or self.versions == {Module.changes})

ABSENT = object()
def flat_items(x: list | dict) -> list: return [*x, *x.values()] if isinstance(x, dict) else x

def modes() -> list[Any]:
  """What a call depends on besides what it reaches."""
  return [GradMode.recording, EAGER.value, DEVICE.value, Default.dtype, Autocast.dtype, Precision.float32_matmul]

class Walk:
  """Everything reachable from a function: closures and globals of Python functions, modules, optimizers, containers,
  attributes; then from the arguments of a call. key: the structure, every value that is no tensor, and what each tensor
  is. Two walks of equal key differ only in the contents of tensors. Gradients come last: a call may set them."""
  def __init__(self, function: Any):
    self.key: list[Any] = []
    self.spots: list[Spot] = []
    self.tensors: list[Tensor] = []                                  # each once
    self.storages: dict[Storage, int] = {}                           # theirs, numbered
    self.seen: dict[int, int] = {}                                   # object -> how many were seen before it
    self.kept: list[Any] = []                                        # objects whose identity is in the key
    self.reads = Reads([], [], [], [], [], [], [])
    self.visit(function, None, None)
    self.facts = tuple(self.key)                                     # about the function, however it is called

  def with_call(self, number: int, args: Any, kwargs: Any) -> Walk:
    """This walk, of a function whose facts have a number, continued over the arguments of a call."""
    self = copy.copy(self)
    self.spots, self.tensors, self.kept = self.spots[:], self.tensors[:], self.kept[:]
    self.storages, self.seen = dict(self.storages), dict(self.seen)
    self.reads = Reads([], [], [], [], [], [], [])
    self.key = [number, *modes()]
    self.visit(args, None, None)
    if kwargs: self.visit(kwargs, None, None)
    self.length = len(self.key)
    self.owners, self.named = self.tensors[:], self.spots[:]
    self.grads = [t.grad for t in self.owners]
    if any(g is not None for g in self.grads):
      for g in self.grads: self.visit(g, None, None)
    return self

  @property
  def structure(self) -> tuple: return (*self.facts, *self.key[1:self.length])

  def find_memory(self) -> list[Buffer]:
    """The memory of each storage, computed now where it has to be. The key says which of them share memory."""
    waiting = [s for s in self.storages if s.buffer is None and s.memory is None]
    if waiting: realize(waiting)
    memory = [memory_of_storage(s) for s in self.storages]
    if len(set(memory)) < len(memory): self.key.append(tuple(memory.index(m) for m in memory))
    return memory

  def visit(self, x: Any, container: Any, name: Any) -> None:
    kind = type(x)
    if kind in ATOMS:
      self.key.append(kind)
      self.key.append(repr(x) if kind is slice else x)
      return
    if kind in NAMES or isinstance(x, types.ModuleType): return self.key.append(x)
    if isinstance(x, Tensor): self.spots.append(Spot(container, name, x))
    known = self.seen.setdefault(id(x), len(self.seen))
    self.key += (kind, known)
    if known != len(self.seen) - 1: return                           # visited before
    self.kept.append(x)
    VISITORS.get(kind, Walk.visit_object)(self, x)

  def visit_all(self, container: Any, names: Any) -> None:
    for name in names: self.visit(container[name], container, name)

  def visit_list(self, x: list) -> None:
    self.reads.items.append((x, tuple(x)))
    self.visit_sequence(x)
  def visit_sequence(self, x: Any) -> None:
    self.key.append(len(x))
    self.visit_all(x, range(len(x)))
  def visit_dict(self, x: dict) -> None:
    names = tuple(x)
    self.reads.items.append((x, tuple(flat_items(x))))
    self.key.append(tuple(k if type(k) in ATOMS else id(k) for k in names))
    self.visit_all(x, names)
  def visit_set(self, x: Any) -> None:
    self.reads.others.append(x)
    self.key.append(frozenset(x))

  def visit_tensor(self, t: Tensor) -> None:
    storage = t.storage
    self.tensors.append(t)
    number = self.storages.setdefault(storage, len(self.storages))
    if number == len(self.storages) - 1:
      self.key += (storage.shape, storage.dtype, storage.device)
    found = (storage.history, t.steps, t.requires, t.leaf, t.detached)
    self.key += (number, found)
    self.reads.tensors.append((t, storage, *found))

  def visit_function(self, f: types.FunctionType) -> None:
    self.key.append(id(f))
    if is_installed(f.__code__.co_filename): return
    space = f.__globals__
    self.reads.functions.append((f, f.__code__, f.__defaults__))
    for cell in f.__closure__ or ():
      try: content = cell.cell_contents
      except ValueError:
        self.key.append("an empty cell")
        self.reads.others.append(cell)
        continue
      self.reads.attributes.append((cell, "cell_contents", content))
      self.visit(content, cell, "cell_contents")
    for name in global_names(f.__code__):
      self.reads.names.append((space, name, space.get(name, ABSENT)))
      if name in space: self.visit(space[name], space, name)
    self.visit_sequence(f.__defaults__ or ())
  def visit_method(self, m: types.MethodType) -> None:
    self.visit(m.__func__, None, None)
    self.visit(m.__self__, None, None)
  def visit_partial(self, p: functools.partial) -> None:
    for part in (p.func, p.args, p.keywords): self.visit(part, None, None)
  def visit_array(self, a: np.ndarray) -> None:
    """Host data is compiled in: the guard compares all of it."""
    if a.nbytes > LARGEST_ARRAY:
      raise CaptureError(f"a captured function reaches a NumPy array of {a.nbytes} bytes: give it a tensor instead")
    self.reads.others.append(a)
    self.key.append((a.shape, a.dtype.str, a.tobytes()))
  def visit_name(self, x: Any) -> None: self.key.append(id(x))

  def visit_object(self, x: Any) -> None:
    kind = type(x)
    if isinstance(x, Tensor): self.visit_tensor(x)
    elif isinstance(x, (np.generic, enum.Enum)): self.key.append(x)
    elif isinstance(x, list): self.visit_list(x)
    elif isinstance(x, tuple): self.visit_sequence(x)
    elif isinstance(x, dict): self.visit_dict(x)
    elif isinstance(x, type): self.visit_name(x)
    elif isinstance(x, Module): self.visit_module(x)
    elif isinstance(x, Jit): self.visit(x.function, None, None)
    elif hasattr(kind, "__guards__"):
      self.reads.others.append(x)
      self.visit(x.__guards__(), None, None)
    else: self.visit_attributes(x)

  def visit_module(self, m: Module) -> None:
    """A tree of modules is read again only after some module has changed."""
    tree = trees.get(m)
    if tree is None or tree.changes != Module.changes: tree = trees[m] = read_tree(m)
    self.key.append(tree.number)
    self.reads.trees.append(tree)
    for container, name, t in tree.tensors: self.visit(t, container, name)
    for value in tree.others: self.visit(value, None, None)

  def visit_attributes(self, x: Any) -> None:
    kind: Any = type(x)
    for function in user_methods(kind): self.visit(function, None, None)
    slots = [name for c in type(x).__mro__ for name in getattr(c, "__slots__", ()) if hasattr(x, name)]
    table = getattr(x, "__dict__", {})
    attributes = {**{name: getattr(x, name) for name in slots}, **table}
    self.reads.attributes.extend((x, name, attributes[name]) for name in slots)
    self.reads.items.append((table, tuple(flat_items(table))))
    if not attributes: self.visit_name(x)
    for name, value in attributes.items():
      self.key.append(name)
      self.visit(value, x, name)

VISITORS: dict[type, Callable[[Walk, Any], None]] = {
  list: Walk.visit_list, tuple: Walk.visit_sequence, dict: Walk.visit_dict, set: Walk.visit_set,
  frozenset: Walk.visit_set, types.FunctionType: Walk.visit_function, types.MethodType: Walk.visit_method,
  functools.partial: Walk.visit_partial, np.ndarray: Walk.visit_array, Tensor: Walk.visit_tensor,
}

class Tree(NamedTuple):
  """What a tree of modules consists of. number: equal for trees that differ in their tensors and in `others` alone."""
  changes: int
  number: int
  tensors: list[Spot]
  others: list[Any]              # what may change without a module's knowing: containers, objects, methods' globals

trees: "weakref.WeakKeyDictionary[Module, Tree]" = weakref.WeakKeyDictionary()
numbers: dict[tuple, int] = {}   # the facts of a tree -> its number

def read_tree(root: Module) -> Tree:
  modules = [m for _, m in root.named_modules()]
  places = {m: i for i, m in enumerate(modules)}
  facts: list[Any] = []
  tensors: list[Spot] = []
  others: list[Any] = []
  for m in modules:
    facts.append(type(m))
    kind: Any = type(m)
    others += user_methods(kind)
    for table in (m.__dict__, m._parameters, m._buffers, m._modules):
      facts.append(tuple(table))
      for name, value in table.items():
        if isinstance(value, Tensor): tensors.append(Spot(m, name, value))
        elif isinstance(value, Module) and value in places: facts.append(places[value])
        elif type(value) in ATOMS: facts += (type(value), repr(value) if type(value) is slice else value)
        elif name not in TABLES: others.append(value)
  return Tree(Module.changes, numbers.setdefault(tuple(facts), len(numbers)), tensors, others)
TABLES = ("_parameters", "_buffers", "_modules", "_transient")

@functools.lru_cache(maxsize=None)
def global_names(code: types.CodeType) -> tuple[str, ...]:
  """The global names that a function's code, or code nested in it, may read."""
  mine = [i.argval for i in dis.get_instructions(code) if i.opname in ("LOAD_GLOBAL", "LOAD_NAME")]
  inner = [name for c in code.co_consts if isinstance(c, types.CodeType) for name in global_names(c)]
  return tuple(dict.fromkeys([*mine, *inner]))

@functools.lru_cache(maxsize=None)
def user_methods(kind: Any) -> tuple[types.FunctionType, ...]:
  """The Python methods of a class that is the user's: what they read of their module may change."""
  methods = [f for c in kind.__mro__ for f in vars(c).values() if isinstance(f, types.FunctionType)]
  return tuple(f for f in methods if not is_installed(f.__code__.co_filename))

def difference(old: tuple, new: tuple) -> str:
  """The first place where two keys differ, for a reader."""
  pairs = [(a, b) for a, b in zip(old, new) if a is not b and a != b]
  if not pairs: return f"{len(old)} facts about it are now {len(new)}"
  return f"{short(pairs[0][0])} is now {short(pairs[0][1])}"
def short(x: Any) -> str:
  text = repr(x)
  return text if len(text) <= 80 else text[:77] + "..."

# ---- tensors as descriptions -----------------------------------------------------------------------------------------

class Found(NamedTuple):
  """The storage, or the memory of it, that a walk numbers so."""
  number: int

class Made(NamedTuple):
  """A storage that the call made: its value lies in an output, or in the memory of a storage of before."""
  serial: int
  memory: "Found | int"
  shape: tuple[int, ...]
  device: str

class Seen(NamedTuple):
  """A tensor: a view of a storage."""
  source: "Found | Made"
  steps: Steps
  strides: Any

def memory_of_storage(storage: Storage) -> Buffer:
  buffer = storage.in_memory()
  assert buffer is not None, "every storage of a capture is in memory"
  return buffer

def leaf_of(storage: Storage) -> UOp:
  """The node of a storage's memory."""
  assert storage.memory is not None, "every storage of a capture is in memory"
  return storage.memory

# ---- one signature ---------------------------------------------------------------------------------------------------

class Replay:
  """A recorded call: its program, and what it does to the user's objects. memory: of each storage, before the call."""
  def __init__(self, tape: Tape, before: Walk, memory: list[UOp], after: Walk, result: Any):
    self.tape, self.storages, self.kept = tape, before.storages, before.kept
    self.inputs = {buffer_of(m): i for i, m in enumerate(memory)}
    self.aliased = len(self.inputs) < len(memory)
    self.outputs: dict[Buffer, int] = {}                             # made anew by each call
    self.leaves: list[UOp] = []                                      # their BUFFERs in the recorded call
    self.rebuild, tensors = flatten(result)
    self.moved: list[tuple[int, Any]] = []                           # storage, where its value lies afterwards
    self.assigned: list[tuple[int, int]] = []                        # storage, how many assignments its memory has had
    for (storage, i), m in zip(before.storages.items(), memory):
      now = leaf_of(storage)
      if buffer_of(now) is not buffer_of(m): self.moved.append((i, self.place(now)))
      elif now.arg.version > m.arg.version: self.assigned.append((i, now.arg.version - m.arg.version))
    changed = [i for i, (old, new) in enumerate(zip(before.named, after.named)) if old.tensor is not new.tensor]
    self.sets = [(i, self.seen(after.named[i].tensor)) for i in changed]
    regraded = [i for i, t in enumerate(before.owners) if t.grad is not before.grads[i]]
    self.grads = [(i, None if (g := before.owners[i].grad) is None else self.seen(g)) for i in regraded]
    self.returned: list[Any] = [self.seen(t) for t in tensors]
    self.program = Captured(tape, [*self.inputs, *self.outputs])
    self.sizes = [(b.device, b.nbytes) for b in self.outputs]
    only_new = all(isinstance(source, Made) and isinstance(source.memory, int) for source, _, _ in self.returned)
    self.is_short = only_new and not (self.aliased or self.moved or self.sets or self.grads)
    del self.tape

  def place(self, memory: UOp) -> "Found | int":
    """Where a value lies: in the memory of a storage of before, or in an output."""
    buffer = buffer_of(memory)
    if buffer in self.inputs: return Found(self.inputs[buffer])
    if buffer not in self.tape.written:
      raise CaptureError("a result is data that the host made, which a replay could not make anew")
    if buffer not in self.outputs:
      self.outputs[buffer] = len(self.outputs)
      self.leaves.append(memory)
    return self.outputs[buffer]

  def seen(self, t: Tensor) -> Seen:
    s = t.storage
    source = Found(self.storages[s]) if s in self.storages else (
      Made(s.serial, self.place(leaf_of(s)), s.uop.shape, s.device))
    return Seen(source, t.steps, t.known_strides)

  # ---- a later call --------------------------------------------------------------------------------------------------

  def __call__(self, walk: Walk, memory: list[Buffer]) -> Any:
    """memory: what prepared() has returned."""
    storages = list(walk.storages)
    leaves = self.new_leaves()
    inputs = dict.fromkeys(memory) if self.aliased else memory
    self.program.run([b.memory for b in [*inputs, *map(buffer_of, leaves)]])
    return self.apply(walk, storages, leaves)

  def new_leaves(self) -> list[UOp]:
    return [UOp.buffer(u.dtype, u.arg.size, u.arg.device) for u in self.leaves]

  def prepared(self, walk: Walk, memory: list[Buffer]) -> list[Buffer]:
    """The memory of each storage, where what will be overwritten is nobody else's: copies of what is shared are made,
    and values that wait and need it are computed."""
    if not self.assigned: return memory
    storages = list(walk.storages)
    written = [storages[i] for i, _ in self.assigned]
    for s in written:
      if not s.owns_memory(): s.settle()
    if Storage.waiting:
      readers = readers_of_old([], {leaf_of(s) for s in written}, set())
      found = runtime.realize([u for _, u in readers])
      for (storage, _), leaf in zip(readers, found): storage.land(leaf)
    return memory if self.aliased else [memory_of_storage(s) for s in storages]

  def apply(self, walk: Walk, storages: list[Storage], leaves: list[UOp]) -> Any:
    """The effects of the call on the user's objects, and its result."""
    for i, count in self.assigned: storages[i].overwritten(count)
    before = [leaf_of(s) for s in storages] if self.moved else []
    for i, place in self.moved:
      leaf = before[place.number] if isinstance(place, Found) else leaves[place]
      storages[i].set(leaf.reshape(storages[i].uop.shape))
    made: dict[int, Storage] = {}
    def storage(source: "Found | Made") -> Storage:
      if isinstance(source, Found): return storages[source.number]
      if source.serial in made: return made[source.serial]
      at = source.memory
      leaf = leaf_of(storages[at.number]) if isinstance(at, Found) else leaves[at]
      return made.setdefault(source.serial, Storage(leaf.reshape(source.shape), source.device))
    def tensor(seen: Seen) -> Tensor: return Tensor.on(storage(seen.source), seen.steps, seen.strides)
    for i, value in self.grads: walk.owners[i].grad = None if value is None else tensor(value)
    for i, value in self.sets: put(walk.named[i], tensor(value))
    return self.rebuild(iter([tensor(seen) for seen in self.returned]))

def put(spot: Spot, value: Tensor) -> None:
  """The container holds value where it held the tensor of the spot."""
  if isinstance(spot.container, (list, dict)): spot.container[spot.key] = value
  else: setattr(spot.container, spot.key, value)

# ---- results ---------------------------------------------------------------------------------------------------------

def flatten(x: Any) -> tuple[Callable[[Iterator[Tensor]], Any], list[Tensor]]:
  """How to make a result like x of other tensors, and x's own."""
  if isinstance(x, Tensor): return next, [x]
  if type(x) in ATOMS or isinstance(x, (DType, enum.Enum)): return lambda found: x, []
  if not isinstance(x, (list, tuple, dict)):
    raise CaptureError(f"a captured function returns a {type(x).__name__}: tensors, numbers, and lists, tuples and "
                       "dicts of them can be returned")
  parts = [flatten(v) for v in (x.values() if isinstance(x, dict) else x)]
  make = dict_of(list(x)) if isinstance(x, dict) else getattr(x, "_make", type(x))
  return lambda found: make([rebuild(found) for rebuild, _ in parts]), [t for _, tensors in parts for t in tensors]

def dict_of(names: list[Any]) -> Callable[[list[Any]], dict]: return lambda values: dict(zip(names, values))

# ---- the short way: nothing has changed since the last call but the memory of the arguments --------------------------

class Shortcut:
  """A recording for calls with other tensors of the same description as direct arguments, while all else that a walk
  would look at is the same: objects are compared, of other tensors it is known whether any has changed. A call makes
  new tensors and overwrites memory that is not an argument's; it does nothing else. memory: of each storage, given: of
  the arguments'. storages, tensors: what a call makes, a storage with the number of its output, a tensor with that of
  its storage."""
  def __init__(self, replay: Replay, guards: Guards, memory: list[Buffer], given: list[Buffer]):
    self.replay, self.guards, self.program = replay, guards, replay.program
    self.rebuild = replay.rebuild
    self.places = [memory.index(b) for b in given]
    new = {*self.places, *range(len(memory), len(memory) + len(replay.sizes))}
    self.changed = sorted(new.intersection(self.program.every))
    self.others = frozenset(memory).difference(given)
    self.memory = [b.memory for b in memory]
    self.assigned = [(memory[i], count) for i, count in replay.assigned]
    made = dedup(source for source, _, _ in replay.returned)
    self.storages = [(s.memory, Form(s.shape, replay.leaves[s.memory].dtype), s.device) for s in made]
    self.tensors = [(made.index(source), steps, strides) for source, steps, strides in replay.returned]
    self.single = (*self.storages[0][1:], *self.tensors[0][1:]) if self.rebuild is next else None
    self.shelves = [Shelf(where, nbytes) for where, nbytes in replay.sizes]
    self.changes = changes.count

  def holds(self, given: list[Buffer]) -> bool:
    if self.others and (self.changes != changes.count or not self.others.isdisjoint(given)): return False
    if self.assigned and Storage.waiting: return False               # somebody may need what will be overwritten
    return self.guards.hold()

  def run(self, given: list[Buffer]) -> Any:
    memory, program = self.memory.copy(), self.program
    outputs: list[Buffer] = []
    for place, buffer in zip(self.places, given):
      memory[place] = buffer.memory if buffer.allocated is None else buffer.allocated
    with program.busy:
      for shelf in self.shelves:
        buffer = shelf.take()
        outputs.append(buffer)
        memory.append(buffer.memory if buffer.allocated is None else buffer.allocated)
      program.run_alone(memory, self, self.changed)
    for buffer, count in self.assigned: buffer.version += count
    if self.single:
      form, home, steps, strides = self.single
      return Tensor.on(Storage.holding(outputs[0], form, home), steps, strides)
    storages = [Storage.holding(outputs[k], form, home) for k, form, home in self.storages]
    return self.rebuild(iter([Tensor.on(storages[k], steps, strides) for k, steps, strides in self.tensors]))

class Shelf:
  """Buffers for one result of each call: those of the last two calls, if they are small and nobody has them any more,
  or new ones. Whoever takes one holds the lock of the program that fills it."""
  def __init__(self, where: Device, nbytes: int):
    self.where, self.nbytes = where, nbytes
    self.made: list[Buffer] = []

  def take(self) -> Buffer:
    made = self.made
    if made:
      if getrefcount(made[-1]) != UNUSED: made.reverse()
      if getrefcount(made[-1]) == UNUSED:
        made[-1].version = 0
        return made[-1]
    buffer = Buffer(self.where, self.nbytes)
    if self.nbytes < LARGE: self.made = [*made[:1], buffer]
    return buffer

UNUSED = 2         # references to what a list alone has: its own, and that of him who counts

def short_key(args: tuple) -> tuple[Any, list[Buffer]]:
  """(key, memory of the tensors), or (None, []) where the arguments need a walk. Objects that are no tensors are named
  by their identity."""
  key: list[Any] = modes()
  memory: list[Buffer] = []
  for x in args:
    kind = type(x)
    if kind is Tensor:
      storage = x.storage
      buffer = storage.buffer or storage.in_memory()
      if buffer is None or storage.history or x.kept_grad is not None or buffer in memory: return None, []
      memory.append(buffer)
      key += (storage.form, storage.device, x.steps, x.requires, x.leaf, x.detached)
    elif isinstance(x, Tensor) or kind is slice: return None, []
    else: key += (kind, x if kind in ATOMS else id(x))
  return tuple(key), memory

# ---- the user's object -----------------------------------------------------------------------------------------------

class Jit:
  """A function whose calls are recorded, once for each signature, and replayed. `captures`: how many recordings there
  are. The signature is all that Walk finds: shapes, dtypes, numbers, modes, what closures, globals and attributes hold.
  Python's other effects (print, files, random.random()) happen in recorded calls only. CaptureError where the function
  asks for a tensor's value. A call whose result has a graph of its own, or that changes what it depends on, such as a
  counter in Python, is run each time as if there were no jit: DEBUG=1 says why."""
  def __init__(self, function: Callable[..., Any]):
    functools.update_wrapper(self, function)
    self.function = function
    self.name = getattr(function, "__name__", type(function).__name__)
    self.replays: dict[tuple, Replay] = {}
    self.refused: dict[tuple, str] = {}                              # signature -> why it is never replayed
    self.short: dict[tuple, Shortcut] = {}                           # short_key -> ..; all with the same other memory
    self.known: Walk | None = None                                   # the last walk over the function
    self.numbers: dict[tuple, int] = {}                              # what such walks found, numbered

  @property
  def captures(self) -> int: return len(self.replays)
  def __get__(self, instance: Any, owner: Any = None) -> Any:
    return self if instance is None else types.MethodType(self, instance)
  def __getattr__(self, name: str) -> Any:
    """What a module offers: parameters(), train(), .."""
    return getattr(self.__dict__["function"], name)

  def __call__(self, *args: Any, **kwargs: Any) -> Any:
    if self.short and not kwargs and not runtime.watchers and not JIT_CHECK.value:
      key, given = short_key(args)
      short = self.short.get(key)
      if short is not None and short.holds(given): return short.run(given)
    return self.call(args, kwargs)

  def call(self, args: Any, kwargs: Any) -> Any:
    if runtime.watchers or device(DEVICE.value).target is None: return self.function(*args, **kwargs)
    walk = self.walk(args, kwargs)
    memory = walk.find_memory()
    key = tuple(walk.key)
    replay = self.replays.get(key)
    if replay is not None:
      memory = replay.prepared(walk, memory)
      if JIT_CHECK: return check(self, replay, walk, args, kwargs)
      result = replay(walk, memory)
      if replay.is_short and not kwargs: self.remember(replay, walk, memory, args)
      return result
    return self.function(*args, **kwargs) if key in self.refused else self.record(key, walk, args, kwargs)

  def walk(self, args: Any, kwargs: Any) -> Walk:
    """A walk over the function, or what the last one found while all that it read is the same, and the arguments."""
    if self.known is None or not self.known.reads.hold(): self.known = Walk(self.function)
    return self.known.with_call(self.numbers.setdefault(self.known.facts, len(self.numbers)), args, kwargs)

  def remember(self, replay: Replay, walk: Walk, memory: list[Buffer], args: Any) -> None:
    """Opens the short way to a recording that has just been replayed, if it leads there."""
    assert self.known is not None
    key, given = short_key(args)
    reads = [self.known.reads, walk.reads]
    written = [memory[i] for i, _ in replay.assigned]
    if key is None or any(r.others for r in reads) or not set(given).isdisjoint(written): return
    short = Shortcut(replay, Guards(reads), memory, given)
    if any(other.others != short.others for other in self.short.values()): self.short.clear()
    self.short[key] = short

  def record(self, key: tuple, walk: Walk, args: Any, kwargs: Any) -> Any:
    """A first call of its signature: runs, and is recorded if that can be."""
    memory = [leaf_of(s) for s in walk.storages]
    if DEBUG >= 1: print(f"jit {self.name}: recording {len(self.replays) + 1}: {self.why(key)}")
    if GradMode.recording and any(s.history for s in walk.storages):
      return self.refuse(key, "an argument has a graph of its own", self.function(*args, **kwargs))
    with Tape() as tape, computing_anew():
      result = self.function(*args, **kwargs)
      after = self.walk(args, kwargs)
      realize([t.storage for t in [*flatten(result)[1], *after.tensors]])
    reason = unrepeatable(tape, walk, after, result)
    if reason: return self.refuse(key, reason, result)
    for t in flatten(result)[1]:
      if not t.is_leaf: t.detach_()                                  # its graph has been used; a replay makes none
    try: self.replays[key] = Replay(tape, walk, memory, after, result)
    except CaptureError as e: return self.refuse(key, str(e), result)
    return result

  def refuse(self, key: tuple, reason: str, result: Any) -> Any:
    if DEBUG >= 1: print(f"jit {self.name}: calls like this one are never replayed: {reason}")
    self.refused[key] = reason
    return result

  def why(self, key: tuple) -> str:
    known = [*self.replays, *self.refused]
    facts = list(self.numbers)
    def whole(key: tuple) -> tuple: return (*facts[key[0]], *key[1:])
    return difference(whole(known[-1]), whole(key)) if known else "the first call"

@contextlib.contextmanager
def computing_anew() -> Iterator[None]:
  """Nothing counts as computed before: a replay computes on other data."""
  known = dict(runtime.computed)
  runtime.computed.clear()
  try: yield
  finally:
    for u, leaf in known.items(): runtime.computed.setdefault(u, leaf)

def unrepeatable(tape: Tape, before: Walk, after: Walk, result: Any) -> str:
  """Why a replay could not do what the call did; "" if it can."""
  if after.structure != before.structure:
    return f"the call changes what it depends on: {difference(before.structure, after.structure)}"
  if not tape.differentiated and any(not t.is_leaf for t in flatten(result)[1]):
    return "a result has a graph of its own; a function that calls backward() itself is replayed"
  if any(all(t is not owner for owner in after.owners) for t in tape.differentiated):
    return "backward() sets the gradient of a tensor that the guards do not see"
  if any(s.serial < tape.began and s not in before.storages for s in tape.overwritten):
    return "the call writes into a tensor that the guards do not see"
  return ""

def jit(function: Any = None, **_: Any) -> Any:
  """The function with its calls recorded and replayed: see Jit. Also a decorator."""
  return Jit(function) if function is not None else Jit

def compile(model: Any = None, **options: Any) -> Any:
  """torch.compile: a function or module with its calls recorded and replayed. torch's options change nothing."""
  return jit(model, **options)

# ---- JIT_CHECK=1 -----------------------------------------------------------------------------------------------------

class ReplayMismatch(AssertionError):
  """A replay differs from the same call uncaptured."""

def check(jitted: Jit, replay: Replay, walk: Walk, args: Any, kwargs: Any) -> Any:
  """Replays the call, takes its effects back, and runs it uncaptured: ReplayMismatch where anything differs."""
  saved = [(s, to_host(leaf_of(s))) for s in walk.storages]
  replayed = values_of(replay(walk, [memory_of_storage(s) for s in walk.storages]), walk)
  for feed in replay.program.feeds: feed.rewind()
  for t, g in zip(walk.owners, walk.grads): t.grad = g
  for spot in walk.named:
    if spot.container is not None and not isinstance(spot.container, tuple): put(spot, spot.tensor)
  for s, data in saved:
    memory = memory_of_storage(s)
    memory.device.copy_in(memory.memory, data)
  result = jitted.function(*args, **kwargs)
  for (what, data), (_, again) in zip(replayed, values_of(result, walk)):
    if np.allclose(data, again, rtol=1e-5, atol=1e-6, equal_nan=True): continue
    raise ReplayMismatch(f"jit {jitted.name}: {what} is off by {np.max(np.abs(data - again))} after a replay")
  return result

def values_of(result: Any, walk: Walk) -> list[tuple[str, np.ndarray]]:
  """Copies of all that a call leaves behind."""
  found = [(f"result {i}", t) for i, t in enumerate(flatten(result)[1])]
  found += [(f"tensor {i} that it reaches", t) for i, t in enumerate(walk.owners)]
  found += [(f"the gradient of tensor {i}", t.grad) for i, t in enumerate(walk.owners) if t.grad is not None]
  return [(what, t.host().astype(np.float64)) for what, t in found]
