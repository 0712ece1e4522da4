# flat.py: the flat form of a program, LABEL -> [effects.., terminator], and what every back end asks of it. DESIGN.md
# has the table of ops. In: a structured kernel (list of UOps, RANGE..END nested), or a front end's calls of Builder.
# Out: a Function whose blocks list effects in order; pure nodes hang below them. True afterwards: the first block has
# no predecessors; both targets of a BRANCH have exactly one predecessor; definitions dominate uses; PHI(label, k) is
# the k-th value that every JUMP to label passes; the last source of LOAD, STORE and CALL is the memory state: the last
# STORE or CALL before it in its block, else its LABEL.
from __future__ import annotations
import math
from collections import Counter
from dataclasses import dataclass, replace
from typing import Callable, Iterable, NamedTuple
from picograd.dtype import DType, dtypes
from picograd.helpers import dedup
from picograd.ops.ops import ALU, EFFECTS, Lifetime, Fetch, Odds, Ops, Space, Streaming
from picograd.ops.uop import Table, UOp, fresh, substitute, toposort, without_after

Blocks = dict[UOp, list[UOp]]

class Convention(NamedTuple):
  """What an ABI says of a function or a call, beyond its parameters and its result. fixed: of a variadic one, how many
  arguments come before the variable ones. results: if there are several, their dtypes; RET has them all, the CALL is
  void, INDEX(call, k) is the k-th. memory: (k, bytes, alignment) of arguments that are the address of an object which
  is passed on the stack (x86-64 alone does that)."""
  fixed: int | None = None
  results: tuple[DType, ...] = ()
  memory: tuple[tuple[int, int, int], ...] = ()

PLAIN = Convention()

class Line(NamedTuple):
  """Of a program's text. A BARRIER whose arg it is says that what follows was written there."""
  file: str
  number: int

@dataclass
class Function:
  """name(params) -> result. A kernel takes a ptr per PARAM slot, then its thread number as int64, and runs `threads`
  times."""
  name: str
  params: list[DType]
  blocks: Blocks
  result: DType = dtypes.void
  threads: int = 1
  convention: Convention = PLAIN
  is_local: bool = False                       # no other module sees it
  returns_twice: bool = False                  # it calls setjmp: its variables must stay in memory
  is_lenient: bool = False                     # signed overflow, and floats that no integer is near, mean nothing (C)
  line: Line | None = None                     # where the program defines it

class Data(NamedTuple):
  """An object in memory. pieces: (offset, symbol, bytes beyond it) of the pointers in it; contents has zeros there.
  size: at least len(contents); the rest is zeros."""
  name: str
  contents: bytes
  size: int
  align: int
  pieces: tuple[tuple[int, str, int], ...] = ()
  is_local: bool = False
  is_constant: bool = False
  is_thread_local: bool = False
  section: str | None = None

class Module(NamedTuple):
  """All that one object file is made of. thread_local, weak: names, defined here or not, that are so. aliases: name ->
  what it is another name of. assembly: text for the assembler."""
  functions: list[Function]
  data: list[Data]
  thread_local: frozenset[str] = frozenset()
  weak: frozenset[str] = frozenset()
  aliases: tuple[tuple[str, str], ...] = ()
  startup: tuple[str, ...] = ()                # functions that run before main
  shutdown: tuple[str, ...] = ()               # and after it
  assembly: tuple[str, ...] = ()
  source: str | None = None                    # the C file, if debuggers are to know its lines
  wraps: bool = False                          # signed overflow does mean something: -fwrapv

STATEFUL = frozenset({Ops.LOAD, Ops.STORE, Ops.CALL})        # their last source is the memory state
LEAVES = frozenset({Ops.CONST, Ops.PARAM, Ops.BUFFER, Ops.SYM, Ops.LABEL, Ops.PHI})   # are in no block's list

def new_label() -> UOp: return UOp(Ops.LABEL, dtypes.void, (), next(fresh))
def phi(label: UOp, k: int, dtype: DType) -> UOp:
  return UOp(Ops.PHI, dtype, (label,), k)
def operands(u: UOp) -> list[UOp]:
  """The sources of a flat node that are values: neither labels nor the memory state."""
  src = u.src[:-1] if u.op in STATEFUL else u.src
  return [s for s in src if s.op is not Ops.LABEL]

# ---- building --------------------------------------------------------------------------------------------------------

class Builder:
  """Writes a Function block by block. Code after a terminator goes to a block nobody reaches, which finish() drops."""
  def __init__(self, name: str, params: Iterable[DType], result: DType = dtypes.void):
    self.function = Function(name, list(params), {}, result)
    self.begin(new_label())

  def begin(self, label: UOp) -> None:
    self.block: list[UOp] = []
    self.state = label
    self.function.blocks[label] = self.block
  def start(self, label: UOp) -> None:
    """What follows belongs to label; an unfinished block before it falls through."""
    self.jump(label)
    self.begin(label)
  def emit(self, u: UOp) -> UOp:
    self.block.append(u)
    if u.op in EFFECTS: self.state = u
    return u
  def finish(self) -> Function:
    """The Function, with a RET at the end if one is missing, every edge split that needs it, in reverse postorder."""
    self.ret()
    blocks = {label: dedup(block) for label, block in self.function.blocks.items()}     # equal loads are one node
    return split_edges(in_order(replace(self.function, blocks=blocks)))

  def param(self, k: int) -> UOp:
    return UOp(Ops.PARAM, self.function.params[k], (), k)
  def var(self, dtype: DType, size: int = 1) -> UOp:
    """A stack slot of size elements: its address. get and set read and write its first element."""
    return UOp.register(dtype, size)
  def load(self, pointer: UOp, dtype: DType, *gate: UOp, hint: Fetch | int | None = None) -> UOp:
    return self.emit(UOp(Ops.LOAD, dtype, (pointer, *gate, self.state), hint))
  def store(self, pointer: UOp, value: UOp, *gate: UOp, hint: Streaming | Lifetime | int | None = None) -> UOp:
    return self.emit(UOp(Ops.STORE, dtypes.void, (pointer, value, *gate, self.state), hint))
  def get(self, variable: UOp) -> UOp: return self.load(variable, variable.dtype)
  def set(self, variable: UOp, value: UOp) -> UOp: return self.store(variable, value)
  def call(self, callee: "UOp | str", *arguments: UOp, dtype: DType = dtypes.void,
           convention: Convention = PLAIN) -> UOp:
    """A call of a function by name or address."""
    target = UOp(Ops.SYM, dtypes.ptr, (), callee) if isinstance(callee, str) else callee
    return self.emit(UOp(Ops.CALL, dtype, (target, *arguments, self.state), convention))
  def terminate(self, op: Ops, *src: UOp, arg: str | None = None) -> None:
    self.emit(UOp(op, dtypes.void, src, arg))
    self.begin(new_label())
  def jump(self, label: UOp, *values: UOp) -> None: self.terminate(Ops.JUMP, label, *values)
  def branch(self, condition: UOp, yes: UOp, no: UOp) -> None: self.terminate(Ops.BRANCH, condition, yes, no)
  def switch(self, index: UOp, labels: Iterable[UOp], table: str | None = None) -> None:
    """To the index-th label; with a table, index is the address of one of the jumps of four bytes in the table of that
    name, which the program may ask for."""
    self.terminate(Ops.SWITCH, index, *labels, arg=table)
  def ret(self, *values: UOp) -> None: self.terminate(Ops.RET, *values)

# ---- a structured kernel becomes blocks ------------------------------------------------------------------------------

class Loop(NamedTuple):
  range: UOp
  bound: UOp
  out: UOp             # the label of what follows the loop

class Flattener:
  """Reads the list once. new: linear node -> flat node. depth: flat node -> how many loops it depends on, at most."""
  def __init__(self, name: str, linear: list[UOp]):
    slots = [u.arg for u in linear if u.op is Ops.PARAM]
    self.thread = max(slots, default=-1) + 1                         # the slot of the thread number
    self.build = Builder(name, [dtypes.ptr] * self.thread + [dtypes.int64])
    counts = [u.arg[1] for u in linear if u.op is Ops.SPECIAL]
    self.build.function.threads = max(counts, default=1)
    self.new: Table = {}
    self.depth: dict[UOp, int] = {}
    self.open: list[Loop] = []
    for u in linear:
      if u.op in self.steps: self.steps[u.op](self, u)
      elif u.op in COPIED: self.keep(u)
      elif u.op not in SILENT: raise ValueError(f"{u} cannot be flattened: it is no linear operation")

  def value(self, u: UOp) -> UOp: return self.new[without_after(u)]
  def define(self, u: UOp, value: UOp) -> None:
    self.new[u] = value
    below = [self.depth.get(s, 0) for s in value.src]
    self.depth.setdefault(value, max(below, default=0))
  def keep(self, u: UOp) -> None: self.define(u, u.with_src(tuple([self.value(s) for s in u.src])))
  def param(self, u: UOp) -> None: self.define(u, UOp(Ops.PARAM, dtypes.ptr, (), u.arg))
  def special(self, u: UOp) -> None: self.define(u, UOp(Ops.PARAM, dtypes.int64, (), self.thread))

  def index(self, u: UOp) -> None:
    """An element's address; of a value in a register, the lane."""
    base = without_after(u.src[0])
    if base.op not in (Ops.PARAM, Ops.BUFFER): return self.keep(u)
    self.define(u, self.address(self.new[base], self.value(u.src[1]), base.dtype.itemsize))

  def address(self, base: UOp, position: UOp, itemsize: int) -> UOp:
    """base + position*itemsize. Terms that change in outer loops are added first, so that inner loops need not add them
    again; the constant is added last, where loads and stores fold it."""
    terms, constant = split_sum(position)
    by_depth: dict[int, dict[UOp, int]] = {}
    for term, c in terms.items():
      group = by_depth.setdefault(self.depth.get(term, 0), {})
      group[term] = c * itemsize
    offsets = [sum_of(by_depth[depth]) for depth in sorted(by_depth)]
    if constant: offsets.append(UOp.const(dtypes.int64, constant * itemsize))
    pointer = base
    for offset in offsets: pointer = UOp(Ops.ADD, dtypes.ptr, (pointer, offset))
    return pointer

  def gates(self, index: UOp, dtype: DType) -> list[UOp]:
    """The gate of an access, one lane per lane of dtype, if it has one."""
    found = [self.value(gate) for gate in index.src[2:]]
    return [gate if gate.dtype.count == dtype.count else gate.stack(dtype.count) for gate in found]

  def load(self, u: UOp) -> None:
    index = without_after(u.src[0])
    pointer, gates = self.new[index], self.gates(index, u.dtype)
    if gates and u.dtype.count == 1:                                 # element 0 may always be read: read it and drop it
      gate, = gates
      loaded = self.build.load(UOp(Ops.WHERE, dtypes.ptr, (gate, pointer, self.value(index.src[0]))), u.dtype)
      value = gate.where(loaded, 0)
    else: loaded = value = self.build.load(pointer, u.dtype, *gates, hint=u.arg)
    self.depth[loaded] = len(self.open)
    self.define(u, value)

  def store(self, u: UOp) -> None:
    index, value = without_after(u.src[0]), self.value(u.src[1])
    gates, join = self.gates(index, value.dtype), new_label()
    guarded = gates and value.dtype.count == 1
    if guarded:
      yes = new_label()
      self.build.branch(gates.pop(), yes, join)
      self.build.start(yes)
    self.build.store(self.new[index], value, *gates, hint=u.arg)
    if guarded: self.build.start(join)

  def fetch(self, u: UOp) -> None: self.build.emit(u.with_src((self.value(u.src[0]),)))

  def where(self, u: UOp) -> None:
    """A choice; where one side is rare, a branch around it, taken unless some lane needs it."""
    if u.arg is not Odds.RARE: return self.keep(u)
    condition, seldom, often = map(self.value, u.src)
    any_lane = condition
    if condition.dtype.count > 1: any_lane = UOp(Ops.REDUCE, dtypes.bool, (condition,), (Ops.MAX, ()))
    yes, no, join = new_label(), new_label(), new_label()
    self.build.branch(any_lane, yes, no)
    for label, value in ((yes, condition.where(seldom, often)), (no, often)):
      self.build.start(label)
      self.build.jump(join, value)
    self.build.start(join)
    chosen = phi(join, 0, u.dtype)
    self.depth[chosen] = len(self.open)
    self.define(u, chosen)

  def range(self, u: UOp) -> None:
    """A rotated loop: the head is the body, the test stands at its end. A bound that may be 0 is tested before."""
    loop, zero = Loop(u, self.value(u.src[0]), new_label()), UOp.const(u.dtype, 0)
    least = loop.bound.arg if loop.bound.op is Ops.CONST else 0
    if least == 1: return self.define(u, zero)                       # no loop at all
    enter, head = new_label(), new_label()
    if least < 1: self.build.branch(zero < loop.bound, enter, loop.out)
    self.build.start(enter)
    self.build.jump(head, zero)
    self.build.start(head)
    self.open.append(loop)
    variable = phi(head, 0, u.dtype)
    self.depth[variable] = len(self.open)
    self.define(u, variable)

  def end(self, u: UOp) -> None:
    ranges = [s for s in u.src if s.op is Ops.RANGE and self.new[s].op is Ops.PHI]
    for _ in ranges:
      r, bound, out = self.open.pop()
      assert r in ranges, f"END closes {[s.arg for s in ranges]}, but the innermost open range is {r.arg}"
      variable, back = self.new[r], new_label()
      self.build.branch(variable + 1 < bound, back, out)
      self.build.start(back)
      self.build.jump(variable.src[0], variable + 1)
      self.build.start(out)

  steps: dict[Ops, Callable[["Flattener", UOp], None]] = {
    Ops.PARAM: param, Ops.SPECIAL: special, Ops.INDEX: index, Ops.LOAD: load, Ops.STORE: store, Ops.RANGE: range,
    Ops.END: end, Ops.WHERE: where, Ops.FETCH: fetch}

COPIED = ALU | {Ops.CONST, Ops.BUFFER, Ops.STACK, Ops.REDUCE}
SILENT = frozenset({Ops.BARRIER, Ops.SINK, Ops.AFTER})               # order and nothing else

def flatten(name: str, linear: list[UOp]) -> Function:
  """A kernel as blocks: one ptr parameter per PARAM slot, then the thread number."""
  flat = Flattener(name, linear)
  assert not flat.open, f"range {flat.open[-1].range.arg} is never closed"
  return flat.build.finish()

def parts_of_sum(u: UOp) -> list[tuple[UOp, int]]:
  """[(x, c), ..] where u is the sum of x*c, one step down; nothing where u is a term by itself."""
  if u.op is Ops.ADD: return [(s, 1) for s in u.src]
  if u.op not in (Ops.MUL, Ops.SHL): return []
  x, c = u.src
  if c.op is not Ops.CONST: return []
  return [(x, c.arg if u.op is Ops.MUL else 1 << c.arg)]

def split_sum(position: UOp) -> tuple[dict[UOp, int], int]:
  """({term: coefficient}, constant) with position = sum of coefficient*term + constant (modulo 2**64)."""
  coefficients = Counter({position: 1})
  terms: dict[UOp, int] = {}
  constant = 0
  additive = toposort((position,), stop=lambda u: not parts_of_sum(u))
  for u in reversed(additive):                                       # users first: a coefficient is complete when read
    c, parts = coefficients[u], parts_of_sum(u)
    for x, factor in parts: coefficients[x] += c * factor
    if u.op is Ops.CONST: constant += c * u.arg
    elif c != 0 and not parts: terms[u] = c
  return dict(reversed(terms.items())), constant

def sum_of(terms: dict[UOp, int]) -> UOp:
  """The sum of coefficient*term, the common divisor taken out: (8*i + 4*j) = (2*i + j)*4."""
  common = math.gcd(*terms.values())
  products = [term if c == common else term * (c // common) for term, c in terms.items()]
  total = products[0]
  for product in products[1:]: total = total + product
  return total if common == 1 else total * common

# ---- the control flow graph ------------------------------------------------------------------------------------------

def successors(block: list[UOp]) -> list[UOp]:
  last = block[-1]
  return [last.src[0]] if last.op is Ops.JUMP else [s for s in last.src if s.op is Ops.LABEL]

def entry(fn: Function) -> UOp: return next(iter(fn.blocks))

def every_node(fn: Function) -> list[UOp]:
  return toposort([u for block in fn.blocks.values() for u in block])

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
      stack.extend((s, False) for s in successors(fn.blocks[label]))                    # the last one is walked first
  return order[::-1]

def in_order(fn: Function) -> Function:
  """fn without the blocks that cannot be reached, in reverse postorder."""
  return replace(fn, blocks={label: fn.blocks[label] for label in reverse_postorder(fn)})

def predecessors(fn: Function) -> dict[UOp, list[UOp]]:
  out: dict[UOp, list[UOp]] = {label: [] for label in fn.blocks}
  for label, block in fn.blocks.items():
    for s in dict.fromkeys(successors(block)): out[s].append(label)
  return out

def split_edges(fn: Function) -> Function:
  """Puts an empty block on each edge from a BRANCH or SWITCH to a block with other predecessors."""
  before = predecessors(fn)
  blocks = dict(fn.blocks)
  for label, block in fn.blocks.items():
    if block[-1].op not in (Ops.BRANCH, Ops.SWITCH): continue
    edges: Table = {}
    for target in successors(block):
      if len(before[target]) == 1 or target in edges: continue
      edges[target] = new_label()
      blocks[edges[target]] = [UOp(Ops.JUMP, dtypes.void, (target,))]
    blocks[label] = [*block[:-1], block[-1].with_src(tuple([edges.get(s, s) for s in block[-1].src]))]
  return in_order(replace(fn, blocks=blocks))

class Flow:
  """Facts about a function's control flow. Blocks are named by their labels.
  order: reverse postorder; index: label -> place in it, larger for a block than for those that dominate it; before:
  predecessors; idom: the last block on every path from the entry (the entry's is itself); head: the head of the
  innermost loop that contains the block, if any; depth: how many loops contain it."""
  def __init__(self, fn: Function):
    self.order = reverse_postorder(fn)
    self.index = {label: i for i, label in enumerate(self.order)}
    self.before = predecessors(fn)
    self.idom = self.find_dominators()
    self.below = self.number_tree()
    self.head: Table = {}
    self.depth = Counter[UOp]()
    for label in self.order: self.enter_loop(label)

  def find_dominators(self) -> Table:
    """Cooper, Harvey, Kennedy: A Simple, Fast Dominance Algorithm. Blocks are their places in order."""
    before = [[self.index[p] for p in self.before[label] if p in self.index] for label in self.order]
    idom = [0] + [-1] * (len(before) - 1)                            # -1: not known yet
    changed = True
    while changed:
      changed = False
      for k in range(1, len(before)):
        known = [p for p in before[k] if idom[p] >= 0]
        found = known[0]
        for p in known[1:]:
          while found != p:
            if found > p: found = idom[found]
            else: p = idom[p]
        if idom[k] != found: idom[k], changed = found, True
    return {label: self.order[k] for label, k in zip(self.order, idom)}

  def number_tree(self) -> dict[UOp, range]:
    """The dominator tree in preorder: a block's range holds the numbers of the blocks that it dominates."""
    size = Counter(self.order)
    for label in reversed(self.order[1:]): size[self.idom[label]] += size[label]
    below = {self.order[0]: range(len(self.order))}
    free = {self.order[0]: 1}                                        # the next number for a child
    for label in self.order[1:]:
      start = free[self.idom[label]]
      free[self.idom[label]] += size[label]
      free[label] = start + 1
      below[label] = range(start, start + size[label])
    return below

  def dominates(self, a: UOp, b: UOp) -> bool:
    return self.below[b].start in self.below[a]
  def meet(self, a: UOp, b: UOp) -> UOp:
    """The lowest block that dominates both."""
    while not self.dominates(a, b): a = self.idom[a]
    return a

  def enter_loop(self, head: UOp) -> None:
    """Marks the blocks of the natural loop with this head, if there is one. Outer loops come first, so inner ones have
    the last word. Loops with two entries are none."""
    back = [p for p in self.before[head] if self.dominates(head, p)]
    body = natural_loop(self.before, head, back) if back else set()
    for label in body: self.head[label] = head
    self.depth.update(body)

def natural_loop(before: dict[UOp, list[UOp]], head: UOp, back: list[UOp]) -> set[UOp]:
  """The blocks of a loop: those from which the blocks that jump back to its head are reached without passing it."""
  body, waiting = {head}, back[:]
  while waiting:
    label = waiting.pop()
    if label not in body: waiting += before[label]
    body.add(label)
  return body

def homes(fn: Function, flow: Flow) -> Table:
  """Node -> the first block in which it can be computed."""
  home: Table = {u: label for label, block in fn.blocks.items() for u in block}
  first = flow.order[0]
  for u in every_node(fn):
    if u in home: continue
    if u.op is Ops.PHI: home[u] = u.src[0]
    else: home[u] = max((home[s] for s in operands(u)), key=flow.index.__getitem__, default=first)
  return home

# ---- stack slots become values ---------------------------------------------------------------------------------------

def offset_of(address: UOp) -> int:
  return 0 if address.op is Ops.BUFFER else address.src[1].arg

def slot_of(address: UOp) -> UOp | None:
  """The private BUFFER in which an address is a constant place."""
  if address.op is Ops.ADD and address.src[1].op is Ops.CONST: address = address.src[0]
  return address if address.op is Ops.BUFFER and address.arg.space is Space.REG else None

def accessed(u: UOp) -> DType | None:
  """What a load or store without a gate reads or writes at its first source. A volatile one has a number as arg."""
  if u.arg not in (None, Lifetime.BEGINS): return None
  if u.op is Ops.LOAD and len(u.src) == 2: return u.dtype
  return u.src[1].dtype if u.op is Ops.STORE and len(u.src) == 3 else None

def promotable(fn: Function) -> dict[UOp, DType]:
  """Address -> dtype of each part of a private BUFFER that is only loaded and stored, always whole and as one dtype."""
  parts: dict[UOp, dict[UOp, DType]] = {}                            # BUFFER -> address in it -> what is there
  escaped: set[UOp] = set()
  for u in every_node(fn):
    dtype = accessed(u)
    for i, s in enumerate(u.src):
      buffer = slot_of(s)
      if buffer is None: continue
      if dtype is not None and i == 0:
        if parts.setdefault(buffer, {}).setdefault(s, dtype) is not dtype: escaped.add(buffer)
      elif slot_of(u) is None: escaped.add(buffer)
  found: dict[UOp, DType] = {}
  for buffer, inside in parts.items():
    if buffer not in escaped and are_apart(buffer, inside): found.update(inside)
  return found

def are_apart(buffer: UOp, parts: dict[UOp, DType]) -> bool:
  """Whether the parts of a BUFFER do not overlap and lie within it."""
  end = 0
  for address in sorted(parts, key=offset_of):
    if offset_of(address) < end: return False
    end = offset_of(address) + parts[address].itemsize
  return end <= buffer.arg.size * buffer.dtype.itemsize

class Slots:
  """What stack slots hold, found on demand (Braun et al.: Simple and Efficient Construction of SSA Form, 2013).
  value: (block, slot) -> its value at the end of the block, as far as that is known."""
  def __init__(self, fn: Function, slots: dict[UOp, DType]):
    self.slots, self.before = slots, predecessors(fn)
    self.value: dict[tuple[UOp, UOp], UOp] = {}
    self.params: list[tuple[UOp, UOp]] = []                          # (block, slot) that became a new parameter
    self.count = Counter(p.src[0] for p in incoming(fn))             # parameters of each block

  def read(self, label: UOp, slot: UOp) -> UOp:
    passed = []
    while (label, slot) not in self.value and len(self.before[label]) == 1:
      passed.append(label)
      label, = self.before[label]
    if (label, slot) not in self.value: self.value[label, slot] = self.at_start(label, slot)
    for p in passed: self.value[p, slot] = self.value[label, slot]
    return self.value[label, slot]

  def at_start(self, label: UOp, slot: UOp) -> UOp:
    """A new parameter where control flow joins; 0 at the entry."""
    if not self.before[label]: return UOp.const(self.slots[slot], 0)
    self.params.append((label, slot))
    self.count[label] += 1
    return phi(label, self.count[label] - 1, self.slots[slot])

def mem2reg(fn: Function) -> Function:
  """C locals and kernel accumulators alike become block parameters where control flow joins, values elsewhere. A slot
  that is read before it was written holds 0."""
  slots = Slots(fn, promotable(fn))
  table: Table = {}
  for label, block in fn.blocks.items():
    for u in block:
      if u.op not in (Ops.LOAD, Ops.STORE) or u.src[0] not in slots.slots: continue
      if u.op is Ops.LOAD: table[u] = slots.read(label, u.src[0])
      else:
        slots.value[label, u.src[0]] = u.src[1]
        table[u] = u.src[-1]                                         # the state is what it was
  passed: dict[UOp, list[UOp]] = {label: [] for label in fn.blocks}
  for label, slot in slots.params:                                   # which grows as predecessors need parameters too
    for p in slots.before[label]: passed[p].append(slots.read(p, slot))
  blocks: Blocks = {}
  for label, block in fn.blocks.items():
    last = block[-1].with_src((*block[-1].src, *passed[label]))
    blocks[label] = [u for u in block[:-1] if u not in table] + [last]
  return prune(without_beginnings(forward(replace(fn, blocks=blocks), table)))

def without_beginnings(fn: Function) -> Function:
  """Variables in memory hold something from the start."""
  table: Table = {u: u.src[-1] for block in fn.blocks.values() for u in block if u.arg is Lifetime.BEGINS}
  if not table: return fn
  return forward(replace(fn, blocks={k: [u for u in block if u not in table] for k, block in fn.blocks.items()}), table)

# ---- cleaning up -----------------------------------------------------------------------------------------------------

def forward(fn: Function, table: Table) -> Function:
  """fn with each key of table replaced by its value, and keys within values likewise. Values must dominate keys."""
  if not table: return fn
  new: Table = {}                                                    # what changes
  entered: set[UOp] = set()
  stack: list[UOp | None] = [u for block in fn.blocks.values() for u in block]
  while stack:
    u = stack.pop()
    if u is None:                                                    # all sources of what lies below are done
      u = stack.pop()
      assert u is not None
      if u in table: new[u] = new.get(table[u], table[u])
      elif not new.keys().isdisjoint(u.src): new[u] = u.with_src(tuple([new.get(s, s) for s in u.src]))
    elif u not in entered:
      entered.add(u)
      stack += (u, None)
      stack += [s for s in ((table[u],) if u in table else u.src) if s not in entered]
  return replace(fn, blocks={label: dedup(new.get(u, u) for u in block) for label, block in fn.blocks.items()})

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
  table: Table = {}
  def final(u: UOp) -> UOp:
    while u in table: u = table[u]
    return u
  values = incoming(fn)
  readers: dict[UOp, list[UOp]] = {}
  for p, passed in values.items():
    for v in passed: readers.setdefault(v, []).append(p)
  waiting = list(reversed(values))                                   # the first block first: chains stay short
  while waiting:
    p = waiting.pop()
    different = {final(v) for v in values[p]} - {p}
    if p in table or len(different) != 1: continue
    table[p], = different
    readers.setdefault(table[p], []).extend(readers.get(p, ()))
    waiting.extend(readers.get(p, ()))
  return forward(fn, table)

def needed_nodes(fn: Function, values: dict[UOp, list[UOp]]) -> set[UOp]:
  """What stores, calls, branches and returns depend on. values: what jumps pass for each parameter."""
  needed: set[UOp] = set()
  waiting = [u for block in fn.blocks.values() for u in block if u.op not in (Ops.LOAD, Ops.JUMP) or u.arg is not None]
  while waiting:
    u = waiting.pop()
    if u in needed: continue
    needed.add(u)
    waiting.extend(values.get(u, ()) if u.op is Ops.PHI else operands(u))
  return needed

def drop_dead(fn: Function) -> Function:
  """Keeps what is needed; renumbers the parameters that stay."""
  values = incoming(fn)
  needed = needed_nodes(fn, values)
  table: Table = {}
  kept = Counter[UOp]()                                              # label -> parameters kept so far
  for p in sorted(values, key=lambda p: p.arg):
    if p not in needed: continue
    label = p.src[0]
    if p.arg != kept[label]: table[p] = phi(label, kept[label], p.dtype)
    kept[label] += 1
  blocks: Blocks = {}
  for label, block in fn.blocks.items():
    last = block[-1]
    if last.op is Ops.JUMP:
      target, *passed = last.src
      useful = [v for k, v in enumerate(passed) if phi(target, k, v.dtype) in needed]
      last = last.with_src((target, *useful))
    stays = [u for u in block[:-1] if u.op is not Ops.LOAD or u in needed]
    blocks[label] = dedup(substitute([*stays, last], table)) if table else [*stays, last]
  return replace(fn, blocks=blocks)
