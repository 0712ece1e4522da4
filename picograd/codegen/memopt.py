# memopt.py: loads whose value is known are not loads; loads that every round of a loop repeats stand before it; stores
# that later ones overwrite are none. In and out: a Function after mem2reg, not placed. Addresses are a root and
# constants: two private arrays are apart, so are two symbols, a private array whose address nobody took is apart from
# whatever a pointer leads to, and an object is from what would not fit into it.
from __future__ import annotations
import math
from dataclasses import replace
from typing import Mapping, NamedTuple
from picograd.codegen.flat import Flow, Function, every_node, forward, homes, phi, successors
from picograd.codegen.flatopt import constant_last, simplified
from picograd.dtype import DType, dtypes
from picograd.ops.ops import EFFECTS, Ops
from picograd.ops.uop import Table, UOp, toposort

class Address(NamedTuple):
  """base + offset; root: what base is computed from, as far as pointers are added to."""
  base: UOp
  offset: int
  size: int
  root: UOp

def address_of(pointer: UOp, size: int) -> Address:
  base, offset = pointer, 0
  while base.op is Ops.ADD and base.src[1].op is Ops.CONST: base, offset = base.src[0], offset + base.src[1].arg
  root = base
  while root.op is Ops.ADD: root = root.src[0]
  return Address(base, offset, size, root)

class Sizes(NamedTuple):
  """Symbol -> bytes of the object that it names; the symbols whose object may have several names."""
  bytes: Mapping[str, int]
  shared: frozenset[str] = frozenset()

GIVEN = frozenset({Ops.PARAM, Ops.LOAD, Ops.PHI, Ops.CALL})          # pointers that the program itself computes

class Aliases:
  """What may overlap in a function. taken: the private arrays whose address is used for more than loads and stores."""
  def __init__(self, fn: Function, sizes: Sizes):
    self.sizes = sizes
    self.taken: set[UOp] = set()
    for u in every_node(fn):
      leads_on = u.op in (Ops.LOAD, Ops.STORE) or u.op is Ops.ADD and u.dtype is dtypes.ptr
      for s in u.src[1:] if leads_on else u.src:
        if s.op is Ops.BUFFER or s.dtype is dtypes.ptr: self.taken.add(address_of(s, 0).root)

  def is_private(self, root: UOp) -> bool: return root.op is Ops.BUFFER and root not in self.taken

  def apart(self, a: Address, b: Address) -> bool:
    if a.base is b.base: return a.offset + a.size <= b.offset or b.offset + b.size <= a.offset
    if a.root is b.root: return are_other_parts(a, b)
    named = (Ops.BUFFER, Ops.SYM)
    if a.root.op in named and b.root.op in named: return not {a.root.arg, b.root.arg} <= self.sizes.shared
    if Ops.PARAM in (a.root.op, b.root.op) and Ops.BUFFER in (a.root.op, b.root.op): return True
    return self.is_private(a.root) or self.is_private(b.root) or self.is_outside(a, b) or self.is_outside(b, a)

  def is_outside(self, a: Address, b: Address) -> bool:
    """Whether a is so far from a pointer of the program that the pointer would not be to b's object."""
    if a.base.op not in GIVEN: return False
    if b.root.op is Ops.BUFFER: size = b.root.arg.size * b.root.dtype.itemsize
    else: size = self.sizes.bytes.get(b.root.arg, 0) if b.root.op is Ops.SYM else 0
    return size > 0 and not -size <= a.offset <= size - a.size

  def changes(self, effect: UOp, read: Address) -> bool:
    """Whether an effect may change what is read."""
    if effect.op is Ops.CALL: return not self.is_private(read.root)
    if effect.op is Ops.STORE: return not self.apart(access(effect), read)
    return effect.op is Ops.BARRIER

def are_other_parts(a: Address, b: Address) -> bool:
  """Whether the places are different parts of what repeats from a root on: fields in an array of structures."""
  step = math.gcd(step_of(a), step_of(b)) or 1
  distance = (b.offset - a.offset) % step
  return a.size <= distance <= step - b.size

def step_of(a: Address) -> int:
  """What divides the distance from a's root to its base."""
  step, base = 0, a.base
  while base is not a.root:
    base, term = base.src
    factor = term.src[1] if term.op in (Ops.MUL, Ops.SHL) else term
    if factor.op is not Ops.CONST: return 1
    step = math.gcd(step, 1 << factor.arg if term.op is Ops.SHL else factor.arg)
  return step

def access(u: UOp) -> Address:
  """What a load or store touches."""
  return address_of(u.src[0], (u.dtype if u.op is Ops.LOAD else u.src[1].dtype).itemsize)

Known = dict[tuple[UOp, DType], UOp]       # (address, dtype) -> the value there
MANY = 64
CHANGING = frozenset({Ops.PHI, Ops.LOAD, Ops.CALL})                  # what may be another value each time

def is_plain(u: UOp) -> bool: return u.arg is None and len(u.src) == (2 if u.op is Ops.LOAD else 3)

def improve_memory(fn: Function, sizes: Sizes) -> Function:
  """What this file is about, in order. The blocks and where they lead stay the same."""
  flow = Flow(fn)
  return hoist_loads(drop_stores(forward_loads(fn, flow, sizes), flow, sizes), flow, sizes)

def forward_loads(fn: Function, flow: Flow, sizes: Sizes) -> Function:
  """A load of what was stored or loaded there before, on all ways to it, is that value."""
  while True:
    known = KnownLoads(fn, flow, sizes)
    if not known.table: return fn
    blocks = {label: [u for u in block if u not in known.table] for label, block in fn.blocks.items()}
    for label, values in known.passed.items():
      blocks[label][-1] = blocks[label][-1].with_src((*blocks[label][-1].src, *values))
    fn = forward(replace(fn, blocks=blocks), known.table)

Start = tuple[UOp, UOp]                    # (block, address): what is there when the block begins
Ways = dict[Start, list[UOp | Start]]      # the same, for each block before it

class KnownLoads:
  """table: load -> the value that is known. passed: block -> values that its jump passes in addition."""
  def __init__(self, fn: Function, flow: Flow, sizes: Sizes):
    self.fn, self.flow, self.aliases = fn, flow, Aliases(fn, sizes)
    self.at_end: dict[UOp, Known] = {}
    self.table: Table = {}
    self.passed: dict[UOp, list[UOp]] = {}
    self.unknown: list[tuple[UOp, UOp]] = []                       # (load, its block), where nothing there changes it
    for label in self.flow.order: self.enter(label)
    if self.unknown and not self.table: self.join()

  def enter(self, label: UOp) -> None:
    before = self.flow.before[label]
    known = dict(self.at_end[before[0]]) if len(before) == 1 and before[0] in self.at_end else {}
    effects: list[UOp] = []
    for u in self.fn.blocks[label]:
      if u.op is Ops.LOAD and is_plain(u):
        key = u.src[0], u.dtype
        if key in known: self.table[u] = known[key]
        else:
          known[key] = u
          if not self.is_changed(effects, *key): self.unknown.append((u, label))
      elif u.op in EFFECTS:
        effects.append(u)
        known = {(p, dt): v for (p, dt), v in known.items() if not self.aliases.changes(u, address_of(p, dt.itemsize))}
        if u.op is Ops.STORE and is_plain(u): known[u.src[0], u.src[1].dtype] = u.src[1]
      if len(known) > MANY: del known[next(iter(known))]
    self.at_end[label] = known

  def is_changed(self, effects: list[UOp], pointer: UOp, dtype: DType) -> bool:
    read = address_of(pointer, dtype.itemsize)
    return any(self.aliases.changes(e, read) for e in effects)

  def join(self) -> None:
    """A load whose value is known on all ways to it is a parameter where these join."""
    self.home = homes(self.fn, self.flow)
    self.effects = {label: [u for u in block if u.op in EFFECTS] for label, block in self.fn.blocks.items()}
    self.made: dict[tuple[Start, DType], UOp] = {}                   # parameters
    self.parts: dict[UOp, list[UOp]] = {}                            # pointer -> what in it may change
    self.there: dict[tuple[UOp, UOp], UOp] = {}                      # passed_by, as far as that was asked
    for u, label in self.unknown:
      start = label, u.src[0]
      ways = {} if (start, u.dtype) in self.made else self.ways_to(start, u.dtype)
      if ways: self.add_parameters(ways, u.dtype)
      if ways or (start, u.dtype) in self.made: self.table[u] = self.value(start, u.dtype, ways)

  def add_parameters(self, ways: Ways, dtype: DType) -> None:
    joins = [start for start, values in ways.items() if len(values) > 1]
    for start in joins: self.made[start, dtype] = self.new_parameter(start[0], dtype)
    for start in joins:
      for p, v in zip(self.flow.before[start[0]], ways[start]): self.passed[p].append(self.value(v, dtype, ways))

  def value(self, v: UOp | Start, dtype: DType, ways: Ways) -> UOp:
    while not isinstance(v, UOp): v = self.made[v, dtype] if (v, dtype) in self.made else ways[v][0]
    return v

  def ways_to(self, start: Start, dtype: DType) -> Ways:
    """What is at an address when a block begins: for each block before it a value, or what is at an address when that
    one begins, and so on. Nothing if a way is unknown."""
    ways: Ways = {}
    waiting = [start]
    while waiting:
      label, pointer = start = waiting.pop()
      if start in ways: continue
      before = self.flow.before[label]
      if not before or len(ways) > MANY or not self.is_ahead(pointer, label): return {}
      ways[start] = []
      for p in before:
        there = self.passed_by(p, pointer)
        known: UOp | Start | None = self.at_end[p].get((there, dtype))
        if known is None:
          if self.is_changed(self.effects[p], there, dtype): return {}
          known = p, there
          if (known, dtype) not in self.made: waiting.append(known)
        ways[start].append(known)
    return ways

  def parts_of(self, pointer: UOp) -> list[UOp]:
    """The values in a pointer that may be others each time."""
    if pointer not in self.parts:
      self.parts[pointer] = [u for u in toposort([pointer], stop=lambda u: u.op in CHANGING) if u.op in CHANGING]
    return self.parts[pointer]

  def is_ahead(self, pointer: UOp, label: UOp) -> bool:
    """Whether a pointer is made of the parameters of a block and of what stands before it."""
    return all(u in self.home and self.flow.dominates(self.home[u], label) and
               (self.home[u] is not label or u.op is Ops.PHI) for u in self.parts_of(pointer))

  def passed_by(self, label: UOp, pointer: UOp) -> UOp:
    """A pointer in terms of the block that jumps to where it is made of parameters."""
    last = self.fn.blocks[label][-1]
    if last.op is not Ops.JUMP or all(u.src[0] is not last.src[0] for u in self.parts_of(pointer)): return pointer
    if (label, pointer) not in self.there:
      passed = simplified(pointer.substitute({phi(last.src[0], k, v.dtype): v for k, v in enumerate(last.src[1:])}))
      self.there[label, pointer] = simplified(constant_last(self.fn, passed))
    return self.there[label, pointer]

  def new_parameter(self, label: UOp, dtype: DType) -> UOp:
    before = self.flow.before[label]
    k = len(self.fn.blocks[before[0]][-1].src) - 1 + len(self.passed.setdefault(before[0], []))
    for p in before[1:]: self.passed.setdefault(p, [])
    return phi(label, k, dtype)

# ---- loads that a loop repeats ---------------------------------------------------------------------------------------

class Loop(NamedTuple):
  head: UOp
  enter: UOp                               # the only block outside that jumps to the head
  body: list[UOp]
  ends: list[UOp]                          # blocks of the body with a way out, or back to the head

def loops_of(fn: Function, flow: Flow) -> list[Loop]:
  """Inner loops last."""
  found = []
  for head in flow.order:
    backs = [p for p in flow.before[head] if flow.dominates(head, p)]
    outside = [p for p in flow.before[head] if p not in backs]
    if not backs or len(outside) != 1: continue
    body, waiting = {head}, backs
    while waiting:
      label = waiting.pop()
      if label not in body: waiting.extend(flow.before[label])
      body.add(label)
    ends = [b for b in body if any(s is head or s not in body for s in fn.blocks[b][-1].src if s.op is Ops.LABEL)]
    found.append(Loop(head, outside[0], [b for b in flow.order if b in body], ends))
  return found

def hoist_loads(fn: Function, flow: Flow, sizes: Sizes) -> Function:
  """A load that each round of a loop does, of what nothing in the loop changes, stands before the loop."""
  if not flow.head: return fn
  aliases = Aliases(fn, sizes)
  blocks = {label: list(block) for label, block in fn.blocks.items()}
  home = homes(fn, flow)
  table: Table = {}
  for loop in reversed(loops_of(fn, flow)):
    effects = [u for b in loop.body for u in blocks[b] if u.op in EFFECTS]
    for b in loop.body:
      for u in blocks[b]:
        if u.op is not Ops.LOAD or not is_plain(u) or u in table: continue
        ahead = home[u.src[0]]
        if ahead in loop.body or not flow.dominates(ahead, loop.enter): continue
        read = access(u)
        if any(aliases.changes(e, read) for e in effects) or not is_certain(effects, read, b, loop, flow): continue
        entering = blocks[loop.enter]
        state = next((e for e in reversed(entering) if e.op in EFFECTS), loop.enter)
        table[u] = u.with_src((u.src[0], state))
        if table[u] not in entering: entering.insert(len(entering) - 1, table[u])
        home[u] = home[table[u]] = loop.enter
  if not table: return fn
  kept = {label: [u for u in block if u not in table] for label, block in blocks.items()}
  return forward(replace(fn, blocks=kept), table)

def is_certain(effects: list[UOp], read: Address, label: UOp, loop: Loop, flow: Flow) -> bool:
  """Whether a load may be done before the loop: its first round does it, as no call ends the program, or it cannot go
  wrong."""
  if read.base.op is Ops.BUFFER: return 0 <= read.offset <= read.base.arg.size * read.base.dtype.itemsize - read.size
  return all(e.op is not Ops.CALL for e in effects) and all(flow.dominates(label, end) for end in loop.ends)

# ---- stores that nothing reads ---------------------------------------------------------------------------------------

Places = set[tuple[UOp, int]]              # (address, size)

def drop_stores(fn: Function, flow: Flow, sizes: Sizes) -> Function:
  """Without stores to what is stored again, on all ways from there, before anything may read it."""
  aliases = Aliases(fn, sizes)
  at_start: dict[UOp, Places] = {}           # block -> what it writes before it may be read
  table: Table = {}
  for label in reversed(flow.order):
    after = [at_start.get(s, set()) for s in successors(fn.blocks[label])]
    written = set.intersection(*after) if after else set()
    for u in reversed(fn.blocks[label]):
      place = (u.src[0], access(u).size) if u.op in (Ops.LOAD, Ops.STORE) else None
      if u.op is Ops.STORE and is_plain(u) and place in written: table[u] = u.src[-1]
      elif u.op is Ops.STORE and is_plain(u) and place is not None: written.add(place)
      elif u.op in (Ops.CALL, Ops.BARRIER): written = set()
      elif place is not None: written = {w for w in written if aliases.apart(access(u), address_of(*w))}
    at_start[label] = written
  if not table: return fn
  return forward(replace(fn, blocks={k: [u for u in block if u not in table] for k, block in fn.blocks.items()}), table)
