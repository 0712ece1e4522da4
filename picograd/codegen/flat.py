# flat.py: the flat form of a program, LABEL -> [effects.., terminator], and what every back end asks of it. DESIGN.md
# has the table of ops. In: a structured kernel (list of UOps, RANGE..END nested), or a front end's calls of Builder.
# Out: a Function whose blocks list effects in order; pure nodes hang below them. True afterwards: the first block has
# no predecessors; both targets of a BRANCH have exactly one predecessor; definitions dominate uses; PHI(label, k) is
# the k-th value that every JUMP to label passes; the last source of LOAD, STORE and CALL is the memory state: the last
# STORE or CALL before it in its block, else its LABEL.
from __future__ import annotations
import math
from dataclasses import dataclass, replace
from typing import Callable, Iterable, NamedTuple
from picograd.dtype import DType, dtypes
from picograd.helpers import dedup
from picograd.ops.ops import ALU, EFFECTS, Ops, Space
from picograd.ops.uop import UOp, fresh, toposort

Blocks = dict[UOp, list[UOp]]

@dataclass
class Function:
  """name(params) -> result. A kernel takes a ptr per PARAM slot, then its thread number as int64, and runs `threads`
  times."""
  name: str
  params: list[DType]
  blocks: Blocks
  result: DType = dtypes.void
  threads: int = 1

STATEFUL = frozenset({Ops.LOAD, Ops.STORE, Ops.CALL})        # their last source is the memory state
LEAVES = frozenset({Ops.CONST, Ops.PARAM, Ops.BUFFER, Ops.SYM, Ops.LABEL, Ops.PHI})   # are in no block's list

def new_label() -> UOp: return UOp(Ops.LABEL, dtypes.void, (), next(fresh))
def phi(label: UOp, k: int, dtype: DType) -> UOp: return UOp(Ops.PHI, dtype, (label,), k)
def operands(u: UOp) -> list[UOp]:
  """The sources of a flat node that are values: neither labels nor the memory state."""
  src = u.src[:-1] if u.op in STATEFUL else u.src
  return [s for s in src if s.op is not Ops.LABEL]

# ---- building --------------------------------------------------------------------------------------------------------

class Builder:
  """Writes a Function block by block. Code after a terminator goes to a block nobody reaches, which finish() drops."""
  def __init__(self, name: str, params: Iterable[DType], result: DType = dtypes.void):
    self.function = Function(name, list(params), {}, result)
    self.block: list[UOp] | None = None
    self.start(new_label())

  def start(self, label: UOp) -> None:
    """What follows belongs to label; an unfinished block before it falls through."""
    if self.block is not None: self.jump(label)
    self.block = self.function.blocks[label] = []
    self.listed: set[UOp] = set()                                    # equal loads are one node, listed once
    self.state = label
  def emit(self, u: UOp) -> UOp:
    if self.block is None: self.start(new_label())
    assert self.block is not None
    if u not in self.listed: self.block.append(u)
    self.listed.add(u)
    if u.op in EFFECTS: self.state = u
    return u
  def finish(self) -> Function:
    """The Function, with a RET at the end if one is missing, every edge split that needs it, in reverse postorder."""
    if self.block is not None: self.ret()
    return split_edges(self.function)

  def param(self, k: int) -> UOp: return UOp(Ops.PARAM, self.function.params[k], (), k)
  def var(self, dtype: DType, size: int = 1) -> UOp:
    """A stack slot of size elements: its address. get and set read and write its first element."""
    return UOp.register(dtype, size)
  def load(self, pointer: UOp, dtype: DType, gate: UOp | None = None) -> UOp:
    if self.block is None: self.start(new_label())
    gates = () if gate is None else (gate,)
    return self.emit(UOp(Ops.LOAD, dtype, (pointer, *gates, self.state)))
  def store(self, pointer: UOp, value: UOp, gate: UOp | None = None) -> UOp:
    if self.block is None: self.start(new_label())
    gates = () if gate is None else (gate,)
    return self.emit(UOp(Ops.STORE, dtypes.void, (pointer, value, *gates, self.state)))
  def get(self, variable: UOp) -> UOp: return self.load(variable, variable.dtype)
  def set(self, variable: UOp, value: UOp) -> UOp: return self.store(variable, value)
  def call(self, callee: "UOp | str", *arguments: UOp, dtype: DType = dtypes.void, fixed: int | None = None) -> UOp:
    """A call of a function by name or address. fixed: how many arguments come before the variable ones."""
    if self.block is None: self.start(new_label())
    target = UOp(Ops.SYM, dtypes.ptr, (), callee) if isinstance(callee, str) else callee
    return self.emit(UOp(Ops.CALL, dtype, (target, *arguments, self.state), fixed))
  def terminate(self, u: UOp) -> None:
    self.emit(u)
    self.block = None
  def jump(self, label: UOp, *values: UOp) -> None: self.terminate(UOp(Ops.JUMP, dtypes.void, (label, *values)))
  def branch(self, condition: UOp, yes: UOp, no: UOp) -> None:
    self.terminate(UOp(Ops.BRANCH, dtypes.void, (condition, yes, no)))
  def ret(self, *values: UOp) -> None: self.terminate(UOp(Ops.RET, dtypes.void, values))

# ---- a structured kernel becomes blocks ------------------------------------------------------------------------------

class Loop(NamedTuple):
  head: UOp            # the label of the body; its parameter 0 is the loop variable
  bound: UOp
  skip: UOp | None     # where an empty loop goes; None: it runs at least once

class Flattener:
  """Reads the list once. new: linear node -> flat node. depth: flat node -> how many loops it depends on, at most."""
  def __init__(self, name: str, linear: list[UOp]):
    slots = [u.arg for u in linear if u.op is Ops.PARAM]
    self.thread = max(slots, default=-1) + 1                         # the slot of the thread number
    self.build = Builder(name, [dtypes.ptr] * self.thread + [dtypes.int64])
    counts = [u.arg[1] for u in linear if u.op is Ops.SPECIAL]
    self.build.function.threads = max(counts, default=1)
    self.new: dict[UOp, UOp] = {}
    self.depth: dict[UOp, int] = {}
    self.open: list[tuple[UOp, Loop | None]] = []                    # None: a range of one turn
    for u in linear:
      if u.op in self.steps: self.steps[u.op](self, u)
      elif u.op in ALU or u.op in (Ops.STACK, Ops.REDUCE): self.keep(u)
      elif u.op not in (Ops.BARRIER, Ops.SINK): raise ValueError(f"{u} cannot be flattened: it is no linear operation")

  def define(self, u: UOp, value: UOp, depth: int | None = None) -> None:
    self.new[u] = value
    if value not in self.depth:
      below = [self.depth.get(s, 0) for s in value.src]
      self.depth[value] = max(below, default=0) if depth is None else depth
  def keep(self, u: UOp) -> None:
    self.define(u, UOp(u.op, u.dtype, tuple([self.new[without_after(s)] for s in u.src]), u.arg))
  def alias(self, u: UOp) -> None:
    if u.src[0] in self.new: self.new[u] = self.new[u.src[0]]
  def param(self, u: UOp) -> None: self.define(u, UOp(Ops.PARAM, dtypes.ptr, (), u.arg))
  def special(self, u: UOp) -> None: self.define(u, UOp(Ops.PARAM, dtypes.int64, (), self.thread))

  def index(self, u: UOp) -> None:
    """An element's address; of a value in a register, the lane."""
    base = without_after(u.src[0])
    if base.op not in (Ops.PARAM, Ops.BUFFER): return self.keep(u)
    self.define(u, self.address(self.new[base], self.new[without_after(u.src[1])], base.dtype.itemsize))

  def address(self, base: UOp, position: UOp, itemsize: int) -> UOp:
    """base + position*itemsize. Terms that change in outer loops are added first, so that inner loops need not add them
    again; the constant is added last, where loads and stores fold it."""
    terms, constant = split_sum(position)
    pointer = base
    for depth in sorted({self.depth.get(t, 0) for t in terms}):
      group = {t: c * itemsize for t, c in terms.items() if self.depth.get(t, 0) == depth}
      pointer = UOp(Ops.ADD, dtypes.ptr, (pointer, sum_of(group)))
    if constant: pointer = UOp(Ops.ADD, dtypes.ptr, (pointer, UOp.const(dtypes.int64, constant * itemsize)))
    return pointer

  def load(self, u: UOp) -> None:
    index = without_after(u.src[0])
    pointer, gate = self.new[index], self.gate_of(index, u.dtype)
    if gate is None: value = loaded = self.build.load(pointer, u.dtype)
    elif u.dtype.count > 1: value = loaded = self.build.load(pointer, u.dtype, gate)
    else:                                                            # element 0 may always be read: read it and drop it
      first = self.new[without_after(index.src[0])]
      loaded = self.build.load(UOp(Ops.WHERE, dtypes.ptr, (gate, pointer, first)), u.dtype)
      value = gate.where(loaded, UOp.const(u.dtype, 0))
    self.depth[loaded] = len(self.open)
    self.define(u, value)

  def store(self, u: UOp) -> None:
    index, value = without_after(u.src[0]), self.new[without_after(u.src[1])]
    pointer, gate = self.new[index], self.gate_of(index, value.dtype)
    if gate is None or value.dtype.count > 1:
      self.build.store(pointer, value, gate)
      return
    yes, join = new_label(), new_label()
    self.build.branch(gate, yes, join)
    self.build.start(yes)
    self.build.store(pointer, value)
    self.build.start(join)

  def gate_of(self, index: UOp, dtype: DType) -> UOp | None:
    """The gate of an access, one lane per lane of dtype; None where there is none or it is always open."""
    if len(index.src) == 2: return None
    gate = self.new[index.src[2]]
    if gate.op is Ops.CONST and gate.arg: return None
    return gate if gate.dtype.count == dtype.count else gate.stack(dtype.count)

  def range(self, u: UOp) -> None:
    """A rotated loop: the head is the body, the test stands at its end. A bound that may be 0 is tested before."""
    bound, head = self.new[without_after(u.src[0])], new_label()
    zero = UOp.const(u.dtype, 0)
    if bound.op is Ops.CONST and bound.arg == 1:                     # no loop at all
      self.open.append((u, None))
      return self.define(u, zero)
    skip = None
    if bound.op is not Ops.CONST or bound.arg < 1:
      enter, skip = new_label(), new_label()
      self.build.branch(zero < bound, enter, skip)
      self.build.start(enter)
    self.build.jump(head, zero)
    self.build.start(head)
    self.open.append((u, Loop(head, bound, skip)))
    self.define(u, phi(head, 0, u.dtype), depth=len(self.open))

  def end(self, u: UOp) -> None:
    ranges = [s for s in u.src if s.op is Ops.RANGE]
    for _ in ranges:
      r, loop = self.open.pop()
      assert r in ranges, f"END closes {[s.arg for s in ranges]}, but the innermost open range is {r.arg}"
      if loop is None: continue
      following = self.new[r] + 1
      back, out = new_label(), new_label()
      self.build.branch(following < loop.bound, back, out)
      self.build.start(back)
      self.build.jump(loop.head, following)
      self.build.start(out)
      if loop.skip is not None: self.build.start(loop.skip)

  steps: dict[Ops, Callable[["Flattener", UOp], None]] = {
    Ops.PARAM: param, Ops.CONST: keep, Ops.BUFFER: keep, Ops.SPECIAL: special, Ops.INDEX: index, Ops.LOAD: load,
    Ops.STORE: store, Ops.RANGE: range, Ops.END: end, Ops.AFTER: alias}

def flatten(name: str, linear: list[UOp]) -> Function:
  """A kernel as blocks: one ptr parameter per PARAM slot, then the thread number."""
  flat = Flattener(name, linear)
  assert not flat.open, f"range {flat.open[-1][0].arg} is never closed"
  return flat.build.finish()

def without_after(u: UOp) -> UOp:
  while u.op is Ops.AFTER: u = u.src[0]
  return u

def factor(u: UOp) -> tuple[UOp, int] | None:
  """(x, c) where u is x*c with a constant c."""
  if u.op is Ops.MUL and u.src[1].op is Ops.CONST: return u.src[0], u.src[1].arg
  if u.op is Ops.MUL and u.src[0].op is Ops.CONST: return u.src[1], u.src[0].arg
  if u.op is Ops.SHL and u.src[1].op is Ops.CONST: return u.src[0], 1 << u.src[1].arg
  return None

def split_sum(position: UOp) -> tuple[dict[UOp, int], int]:
  """({term: coefficient}, constant) with position = sum of coefficient*term + constant (modulo 2**64)."""
  coefficients: dict[UOp, int] = {position: 1}
  terms: dict[UOp, int] = {}
  constant = 0
  additive = toposort((position,), stop=lambda u: u.op is not Ops.ADD and factor(u) is None)
  for u in reversed(additive):                                       # users first: a coefficient is complete when read
    c = coefficients.pop(u, 0)
    product = factor(u)
    if c == 0: continue
    if u.op is Ops.CONST: constant += c * u.arg
    elif u.op is Ops.ADD:
      for s in u.src: coefficients[s] = coefficients.get(s, 0) + c
    elif product is not None: coefficients[product[0]] = coefficients.get(product[0], 0) + c * product[1]
    else: terms[u] = c
  return dict(reversed(terms.items())), constant

def sum_of(terms: dict[UOp, int]) -> UOp:
  """The sum of coefficient*term, the common divisor taken out: (8*i + 4*j) = (2*i + j)*4."""
  common = math.gcd(*terms.values())
  total = None
  for term, c in terms.items():
    product = term if c == common else term * (c // common)
    total = product if total is None else total + product
  assert total is not None
  return total if common == 1 else total * common

# ---- the control flow graph ------------------------------------------------------------------------------------------

def successors(block: list[UOp]) -> list[UOp]: return [s for s in block[-1].src if s.op is Ops.LABEL]

def entry(fn: Function) -> UOp: return next(iter(fn.blocks))

def reverse_postorder(fn: Function) -> list[UOp]:
  """The blocks that can be reached, each before its successors except over back edges; of two successors the first
  comes first."""
  order: list[UOp] = []
  seen: set[UOp] = set()
  stack = [(entry(fn), False)]
  while stack:
    label, done = stack.pop()
    if done: order.append(label)
    elif label not in seen:
      seen.add(label)
      stack.append((label, True))
      stack.extend((s, False) for s in successors(fn.blocks[label]) if s not in seen)   # the last one is walked first
  return order[::-1]

def predecessors(fn: Function) -> dict[UOp, list[UOp]]:
  out: dict[UOp, list[UOp]] = {label: [] for label in fn.blocks}
  for label, block in fn.blocks.items():
    for s in successors(block): out[s].append(label)
  return out

def in_order(fn: Function, blocks: Blocks) -> Function:
  """fn with these blocks: those that can be reached, in reverse postorder."""
  made = replace(fn, blocks=blocks)
  return replace(fn, blocks={label: blocks[label] for label in reverse_postorder(made)})

def split_edges(fn: Function) -> Function:
  """Puts an empty block on each edge from a BRANCH to a block with other predecessors, and before an entry that has
  any."""
  start = new_label()
  blocks: Blocks = {start: [UOp(Ops.JUMP, dtypes.void, (entry(fn),))]}
  blocks.update((label, list(block)) for label, block in fn.blocks.items())
  fn = in_order(fn, blocks)
  before = predecessors(fn)
  blocks = dict(fn.blocks)
  for label, block in fn.blocks.items():
    if block[-1].op is not Ops.BRANCH: continue
    condition, *targets = block[-1].src
    for i, target in enumerate(targets):
      if len(before[target]) == 1: continue
      targets[i] = new_label()
      blocks[targets[i]] = [UOp(Ops.JUMP, dtypes.void, (target,))]
    block[-1] = UOp(Ops.BRANCH, dtypes.void, (condition, *targets))
  first = blocks[start][0].src[0]
  if len(before[first]) == 1:  # nothing jumps back to the entry: no block before it
    del blocks[start]
    blocks = {first: blocks[first], **blocks}
  return in_order(fn, blocks)

class Flow:
  """Facts about a function's control flow. Blocks are named by their labels.
  order: reverse postorder; index: label -> place in it; before: predecessors; idom: the last block on every path from
  the entry (the entry's is itself); level: depth in that tree; loop: the head of the innermost loop around a block that
  is not its head; depth: how many loops a block is in."""
  def __init__(self, fn: Function):
    self.order = reverse_postorder(fn)
    self.index = {label: i for i, label in enumerate(self.order)}
    self.before = predecessors(fn)
    self.idom = self.find_dominators()
    self.level: dict[UOp, int] = {self.order[0]: 0}
    self.leap: dict[UOp, UOp] = {self.order[0]: self.order[0]}       # an ancestor further up, for walks in log time
    for label in self.order[1:]: self.enter_tree(label)
    self.loop, self.depth = self.find_loops()

  def find_dominators(self) -> dict[UOp, UOp]:
    """Cooper, Harvey, Kennedy: A Simple, Fast Dominance Algorithm."""
    idom = {self.order[0]: self.order[0]}
    changed = True
    while changed:
      changed = False
      for label in self.order[1:]:
        known = [p for p in self.before[label] if p in idom]
        closest = known[0]
        for p in known[1:]:
          while closest is not p:
            if self.index[closest] > self.index[p]: closest = idom[closest]
            else: p = idom[p]
        if idom.get(label) is not closest:
          idom[label], changed = closest, True
    return idom

  def enter_tree(self, label: UOp) -> None:
    """Skew-binary jump pointers (Myers 1983): two leaps of equal length are joined into one."""
    up = self.idom[label]
    first = self.leap[up]
    second = self.leap[first]
    self.level[label] = self.level[up] + 1
    equal = self.level[up] - self.level[first] == self.level[first] - self.level[second]
    self.leap[label] = second if equal else up

  def ancestor(self, label: UOp, level: int) -> UOp:
    """The dominator of label at this level of the tree."""
    while self.level[label] > level:
      label = self.leap[label] if self.level[self.leap[label]] >= level else self.idom[label]
    return label
  def dominates(self, a: UOp, b: UOp) -> bool: return self.ancestor(b, self.level[a]) is a
  def meet(self, a: UOp, b: UOp) -> UOp:
    """The lowest block that dominates both."""
    a, b = self.ancestor(a, self.level[b]), self.ancestor(b, self.level[a])
    while a is not b:
      if self.leap[a] is not self.leap[b]: a, b = self.leap[a], self.leap[b]
      else: a, b = self.idom[a], self.idom[b]
    return a

  def find_loops(self) -> tuple[dict[UOp, UOp], dict[UOp, int]]:
    """Natural loops, inner ones first; a loop met inside another counts as its head. Loops with two entries are
    none."""
    loop: dict[UOp, UOp] = {}
    heads: set[UOp] = set()
    for head in reversed(self.order):
      waiting = [p for p in self.before[head] if self.index[p] >= self.index[head] and self.dominates(head, p)]
      if waiting: heads.add(head)
      while waiting:
        label = waiting.pop()
        while label in loop and label is not head: label = loop[label]
        if label is head: continue
        loop[label] = head
        waiting.extend(self.before[label])
    depth: dict[UOp, int] = {}
    for label in self.order: depth[label] = (label in heads) + (depth[loop[label]] if label in loop else 0)
    self.heads = heads
    return loop, depth

  def head_of(self, label: UOp) -> UOp | None:
    """The head of the innermost loop that contains the block."""
    return label if label in self.heads else self.loop.get(label)

def liveness(fn: Function, reads: dict[UOp, int], writes: dict[UOp, int]) -> dict[UOp, int]:
  """Which things are alive at the start of each block. Sets are bit masks of a Python int: reads[label] holds what
  the block reads before it writes it, writes[label] what it writes."""
  order, before = reverse_postorder(fn), predecessors(fn)
  live = {label: 0 for label in order}
  waiting, queued = list(order), set(order)                          # from the end: a stack of reverse postorder
  while waiting:
    label = waiting.pop()
    queued.discard(label)
    after = 0
    for s in successors(fn.blocks[label]): after |= live[s]
    now = reads[label] | (after & ~writes[label])
    if now == live[label]: continue
    live[label] = now
    for p in before[label]:
      if p not in queued:
        queued.add(p)
        waiting.append(p)
  return live

# ---- stack slots become values ---------------------------------------------------------------------------------------

def rebuild(u: UOp, new: dict[UOp, UOp]) -> UOp:
  """u with every node in new replaced; new learns every node on the way."""
  if u in new: return new[u]
  for node in toposort((u,), stop=new.__contains__):
    if node not in new: new[node] = node.with_src(tuple([new[s] for s in node.src]))
  return new[u]

def slot_of(address: UOp) -> tuple[UOp, int] | None:
  """(stack slot, byte offset) of an address that is constant within a private BUFFER."""
  if address.op is Ops.BUFFER and address.arg.space is Space.REG: return address, 0
  if address.op is not Ops.ADD or address.src[1].op is not Ops.CONST: return None
  base, offset = address.src
  return (base, offset.arg) if base.op is Ops.BUFFER and base.arg.space is Space.REG else None

def every_node(fn: Function) -> list[UOp]: return toposort([u for block in fn.blocks.values() for u in block])

def promotable(fn: Function) -> dict[UOp, DType]:
  """Address -> dtype of each part of a private BUFFER that is only loaded and stored, always whole and as one dtype."""
  nodes = every_node(fn)
  parts: dict[UOp, dict[int, tuple[UOp, DType]]] = {}                # BUFFER -> offset -> its address and dtype
  escaped: set[UOp] = set()
  for u in nodes:
    for i, s in enumerate(u.src):
      place = slot_of(s)
      if place is None: continue
      buffer, offset = place
      accessed = u.dtype if u.op is Ops.LOAD else u.src[1].dtype if u.op is Ops.STORE else None
      plain = i == 0 and len(u.src) == (2 if u.op is Ops.LOAD else 3)
      if accessed is not None and plain:
        known = parts.setdefault(buffer, {}).setdefault(offset, (s, accessed))
        if known[1] is not accessed: escaped.add(buffer)
      elif slot_of(u) is None: escaped.add(buffer)
  found: dict[UOp, DType] = {}
  for buffer, by_offset in parts.items():
    if buffer in escaped: continue
    end = 0
    for offset in sorted(by_offset):
      if offset < end: break
      end = offset + by_offset[offset][1].itemsize
    else:
      if end <= buffer.arg.size * buffer.dtype.itemsize: found.update(by_offset.values())
  return found

def mem2reg(fn: Function) -> Function:
  """C locals and kernel accumulators alike become block parameters where control flow joins, values elsewhere. A slot
  that is read before it was written holds 0."""
  slots = promotable(fn)
  if not slots: return prune(fn)
  flow = Flow(fn)
  params = join_slots(fn, flow, slots)
  blocks = Renamer(fn, flow, slots, params).run()
  return prune(in_order(fn, blocks))

def join_slots(fn: Function, flow: Flow, slots: dict[UOp, DType]) -> dict[UOp, list[UOp]]:
  """Label -> slots that need a parameter there: the iterated dominance frontier of their stores, where they are
  alive."""
  number = {slot: k for k, slot in enumerate(slots)}
  reads, writes = {}, {}
  stored: dict[UOp, list[UOp]] = {slot: [] for slot in slots}
  for label in flow.order:
    read = written = 0
    for u in fn.blocks[label]:
      if u.op not in (Ops.LOAD, Ops.STORE) or u.src[0] not in slots: continue
      bit = 1 << number[u.src[0]]
      if u.op is Ops.LOAD: read |= bit & ~written
      elif not written & bit:
        written |= bit
        stored[u.src[0]].append(label)
    reads[label], writes[label] = read, written
  live = liveness(fn, reads, writes)
  frontier: dict[UOp, dict[UOp, None]] = {label: {} for label in flow.order}
  for label in flow.order:
    if len(flow.before[label]) < 2: continue
    for p in flow.before[label]:
      while p is not flow.idom[label]:
        frontier[p][label] = None
        p = flow.idom[p]
  params: dict[UOp, list[UOp]] = {label: [] for label in flow.order}
  for slot, waiting in stored.items():
    done: set[UOp] = set()
    while waiting:
      for label in frontier[waiting.pop()]:
        if label in done or not live[label] >> number[slot] & 1: continue
        done.add(label)
        params[label].append(slot)
        waiting.append(label)
  return params

class Renamer:
  """Walks the dominator tree with the current value of each slot; leaving a block restores what it changed."""
  def __init__(self, fn: Function, flow: Flow, slots: dict[UOp, DType], params: dict[UOp, list[UOp]]):
    self.fn, self.flow, self.slots, self.params = fn, flow, slots, params
    self.value: dict[UOp, UOp] = {slot: UOp.const(dtype, 0) for slot, dtype in slots.items()}
    self.new: dict[UOp, UOp] = {}
    self.undo: list[tuple[UOp, UOp]] = []

  def run(self) -> Blocks:
    children: dict[UOp, list[UOp]] = {label: [] for label in self.flow.order}
    for label in self.flow.order[1:]: children[self.flow.idom[label]].append(label)
    blocks: Blocks = {label: [] for label in self.flow.order}
    stack: list[tuple[UOp, int | None]] = [(self.flow.order[0], None)]
    while stack:
      label, mark = stack.pop()
      if mark is None:
        stack.append((label, len(self.undo)))
        stack.extend((child, None) for child in reversed(children[label]))
        blocks[label] = self.block(label)
      else:
        while len(self.undo) > mark:
          slot, before = self.undo.pop()
          self.value[slot] = before
    return blocks

  def assign(self, slot: UOp, value: UOp) -> None:
    self.undo.append((slot, self.value[slot]))
    self.value[slot] = value

  def block(self, label: UOp) -> list[UOp]:
    already = parameter_count(self.fn, self.flow.before, label)
    for k, slot in enumerate(self.params[label]): self.assign(slot, phi(label, already + k, self.slots[slot]))
    out = []
    for u in self.fn.blocks[label]:
      known = u.op in (Ops.LOAD, Ops.STORE) and u.src[0] in self.slots
      if known and u.op is Ops.LOAD: self.new[u] = self.value[u.src[0]]
      elif known:
        self.assign(u.src[0], rebuild(u.src[1], self.new))
        self.new[u] = rebuild(u.src[-1], self.new)                   # the state is what it was
      else: out.append(rebuild(u, self.new))
    out = dedup(out)  # loads with only slot writes between them are equal now
    last = out[-1]
    if last.op is Ops.JUMP:
      passed = [self.value[slot] for slot in self.params[last.src[0]]]
      out[-1] = last.with_src((*last.src, *passed))
    return out

def parameter_count(fn: Function, before: dict[UOp, list[UOp]], label: UOp) -> int:
  jumps = [fn.blocks[p][-1] for p in before[label]]
  return len(jumps[0].src) - 1 if jumps and jumps[0].op is Ops.JUMP else 0

# ---- cleaning up -----------------------------------------------------------------------------------------------------

def forward(fn: Function, table: dict[UOp, UOp]) -> Function:
  """fn with each key of table replaced by its value, and keys within values likewise. Values must dominate keys."""
  new: dict[UOp, UOp] = {}
  def finish(root: UOp) -> UOp:
    stack = [root]
    while stack:
      u = stack[-1]
      needed = (table[u],) if u in table else u.src
      missing = [s for s in needed if s not in new]
      if missing: stack.extend(missing)
      else:
        stack.pop()
        new[u] = new[table[u]] if u in table else u.with_src(tuple([new[s] for s in u.src]))
    return new[root]
  return replace(fn, blocks={label: dedup(finish(u) for u in block) for label, block in fn.blocks.items()})

def prune(fn: Function) -> Function:
  """Without block parameters that always get one value or that nothing reads, and without loads that nothing reads."""
  return drop_dead(drop_trivial(fn))

def incoming(fn: Function) -> dict[UOp, list[UOp]]:
  """Each block parameter -> the values that jumps pass for it."""
  out: dict[UOp, list[UOp]] = {}
  for block in fn.blocks.values():
    if block[-1].op is not Ops.JUMP: continue
    label, *values = block[-1].src
    for k, value in enumerate(values): out.setdefault(phi(label, k, value.dtype), []).append(value)
  return out

def drop_trivial(fn: Function) -> Function:
  """Parameters whose jumps all pass the same value, or the parameter itself, are that value."""
  table: dict[UOp, UOp] = {}
  def final(u: UOp) -> UOp:
    while u in table: u = table[u]
    return u
  values = incoming(fn)
  readers: dict[UOp, list[UOp]] = {}
  for p, passed in values.items():
    for v in passed: readers.setdefault(v, []).append(p)
  waiting = list(values)
  while waiting:
    p = waiting.pop()
    if p in table: continue
    different = {final(v) for v in values[p]} - {p}
    if len(different) != 1: continue
    table[p] = different.pop()
    readers.setdefault(table[p], []).extend(readers.get(p, ()))
    waiting.extend(readers.get(p, ()))
  return forward(fn, table) if table else fn

def drop_dead(fn: Function) -> Function:
  """Keeps what stores, calls, branches and returns need; renumbers the parameters that stay."""
  values = incoming(fn)
  roots = [u for block in fn.blocks.values() for u in block if u.op not in (Ops.LOAD, Ops.JUMP)]
  needed: set[UOp] = set()
  waiting = list(roots)
  while waiting:
    u = waiting.pop()
    if u in needed: continue
    needed.add(u)
    waiting.extend(values.get(u, ()) if u.op is Ops.PHI else operands(u))
  table: dict[UOp, UOp] = {}
  kept: dict[UOp, int] = {}                                          # label -> parameters kept so far
  for p in sorted(values, key=lambda p: p.arg):
    if p not in needed: continue
    label = p.src[0]
    table[p] = phi(label, kept.get(label, 0), p.dtype)
    kept[label] = kept.get(label, 0) + 1
  blocks: Blocks = {}
  new = dict(table)
  for label, block in fn.blocks.items():
    out = [rebuild(u, new) for u in block[:-1] if u.op is not Ops.LOAD or u in needed]
    last = block[-1]
    if last.op is Ops.JUMP:
      target, *passed = last.src
      last = last.with_src((target, *[v for k, v in enumerate(passed) if phi(target, k, v.dtype) in needed]))
    blocks[label] = dedup(out) + [rebuild(last, new)]
  return replace(fn, blocks=blocks)
