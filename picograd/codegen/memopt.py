# memopt.py: loads whose value is known are not loads; loads that every round of a loop repeats stand before it. In and
# out: a Function after mem2reg, not placed. Addresses are a root and constants: two private arrays are apart, so are
# two symbols, and a private array whose address nobody took is apart from whatever a pointer leads to.
from __future__ import annotations
from dataclasses import replace
from typing import NamedTuple
from picograd.codegen.flat import Flow, Function, every_node, forward, homes
from picograd.dtype import DType, dtypes
from picograd.ops.ops import EFFECTS, Ops
from picograd.ops.uop import Table, UOp

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

class Aliases:
  """What may overlap in a function. taken: the private arrays whose address is used for more than loads and stores."""
  def __init__(self, fn: Function):
    self.taken: set[UOp] = set()
    for u in every_node(fn):
      for k, s in enumerate(u.src):
        is_access = u.op in (Ops.LOAD, Ops.STORE) and k == 0
        is_sum = u.op is Ops.ADD and u.dtype is dtypes.ptr and k == 0
        is_address = s.op is Ops.BUFFER or s.dtype is dtypes.ptr
        if is_address and not is_access and not is_sum: self.taken.add(address_of(s, 0).root)

  def is_private(self, root: UOp) -> bool: return root.op is Ops.BUFFER and root not in self.taken

  def apart(self, a: Address, b: Address) -> bool:
    if a.base is b.base: return a.offset + a.size <= b.offset or b.offset + b.size <= a.offset
    if a.root is b.root: return False
    named = (Ops.BUFFER, Ops.SYM)
    if a.root.op in named and b.root.op in named: return True
    if Ops.PARAM in (a.root.op, b.root.op) and Ops.BUFFER in (a.root.op, b.root.op): return True
    return self.is_private(a.root) or self.is_private(b.root)

  def changes(self, effect: UOp, read: Address) -> bool:
    """Whether an effect may change what is read."""
    if effect.op is Ops.CALL: return not self.is_private(read.root)
    if effect.op is Ops.STORE: return not self.apart(access(effect), read)
    return effect.op is Ops.BARRIER

def access(u: UOp) -> Address:
  """What a load or store touches."""
  return address_of(u.src[0], (u.dtype if u.op is Ops.LOAD else u.src[1].dtype).itemsize)

Known = dict[tuple[UOp, DType], UOp]       # (address, dtype) -> the value there
MANY = 64

def is_plain(u: UOp) -> bool: return u.arg is None and len(u.src) == (2 if u.op is Ops.LOAD else 3)

def forward_loads(fn: Function) -> Function:
  """A load of what was stored or loaded there before, on the only way to it, is that value."""
  while True:
    table = known_loads(fn)
    if not table: return fn
    blocks = {label: [u for u in block if u not in table] for label, block in fn.blocks.items()}
    fn = forward(replace(fn, blocks=blocks), table)

def known_loads(fn: Function) -> Table:
  flow, aliases = Flow(fn), Aliases(fn)
  at_end: dict[UOp, Known] = {}
  table: Table = {}
  for label in flow.order:
    before = flow.before[label]
    known = dict(at_end[before[0]]) if len(before) == 1 and before[0] in at_end else {}
    for u in fn.blocks[label]:
      if u.op is Ops.LOAD and is_plain(u):
        key = u.src[0], u.dtype
        if key in known: table[u] = known[key]
        else: known[key] = u
      elif u.op in EFFECTS:
        known = {(p, dt): v for (p, dt), v in known.items() if not aliases.changes(u, address_of(p, dt.itemsize))}
        if u.op is Ops.STORE and is_plain(u): known[u.src[0], u.src[1].dtype] = u.src[1]
      if len(known) > MANY: del known[next(iter(known))]
    at_end[label] = known
  return table

# ---- loads that a loop repeats ---------------------------------------------------------------------------------------

class Loop(NamedTuple):
  head: UOp
  enter: UOp                               # the only block outside that jumps to the head
  body: list[UOp]
  leaves: list[UOp]                        # blocks of the body with a way out

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
    leaves = [b for b in body if any(s not in body for s in fn.blocks[b][-1].src if s.op is Ops.LABEL)]
    found.append(Loop(head, outside[0], [b for b in flow.order if b in body], leaves))
  return found

def hoist_loads(fn: Function) -> Function:
  """A load that each round of a loop does, of what nothing in the loop changes, stands before the loop."""
  flow, aliases = Flow(fn), Aliases(fn)
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
        if not is_certain(u, read, b, loop, flow) or any(aliases.changes(e, read) for e in effects): continue
        entering = blocks[loop.enter]
        state = next((e for e in reversed(entering) if e.op in EFFECTS), loop.enter)
        table[u] = u.with_src((u.src[0], state))
        if table[u] not in entering: entering.insert(len(entering) - 1, table[u])
        home[u] = home[table[u]] = loop.enter
  if not table: return fn
  kept = {label: [u for u in block if u not in table] for label, block in blocks.items()}
  return forward(replace(fn, blocks=kept), table)

def is_certain(u: UOp, read: Address, label: UOp, loop: Loop, flow: Flow) -> bool:
  """Whether a load may be done before the loop: the loop would do it anyway, or it cannot go wrong."""
  if read.base.op is Ops.BUFFER: return 0 <= read.offset <= read.base.arg.size * read.base.dtype.itemsize - read.size
  return all(flow.dominates(label, leave) for leave in loop.leaves)
