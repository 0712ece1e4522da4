# place.py: where pure nodes are computed. In: a Function whose blocks list effects only. Out: the same Function whose
# blocks also list every pure node once, after its operands and before its uses, in the shallowest loop it may live in
# (Click: Global Code Motion, Global Value Numbering, 1995). CONST, PARAM, BUFFER, SYM and PHI have no place: back ends
# name them. Where a target looks ahead little, like chains alternate. The order depends on the graph alone.
from __future__ import annotations
from dataclasses import replace
from typing import Iterable
from picograd.dtype import dtypes
from picograd.helpers import dedup
from picograd.ops.ops import EFFECTS, Ops
from picograd.ops.uop import Table, UOp
from picograd.codegen.flat import Flow, Function, LEAVES, every_node, incoming, operands

def place(fn: Function, flow: Flow | None = None, abreast: int = 1) -> Function:
  """flow: what is known of fn's control flow already. abreast: what so many stores in sequence need is computed in
  alternation, if it is alike."""
  flow = flow or Flow(fn)
  listed = {u: label for label, block in fn.blocks.items() for u in block}
  pure = [u for u in every_node(fn) if u not in listed and u.op not in LEAVES]       # operands first
  early = earliest_blocks(flow, listed, pure)
  where = best_blocks(fn, flow, pure, early)
  waiting: dict[UOp, list[UOp]] = {label: [] for label in fn.blocks}                 # pure nodes of each block
  for u in pure:
    if u in where: waiting[where[u]].append(u)
  last_uses = uses_before(fn, where)
  blocks = {label: order_block(block, label, waiting[label], where, last_uses) for label, block in fn.blocks.items()}
  if abreast > 1: blocks = {label: alternating(block, abreast) for label, block in blocks.items()}
  return replace(fn, blocks=blocks)

def uses_before(fn: Function, where: Table) -> dict[UOp, list[UOp]]:
  """What a loop passes for a parameter -> what uses the parameter in the same block, and should come first: then both
  can be in one register."""
  users: dict[UOp, list[UOp]] = {}
  for u in where:
    for s in operands(u):
      if s.op is Ops.PHI and u not in users.setdefault(s, []): users[s].append(u)
  out: dict[UOp, list[UOp]] = {}
  for p, passed in incoming(fn).items():
    for v in dedup(passed):
      near = [u for u in users.get(p, ()) if v in where and where[u] is where[v] and u is not v and v not in u.src]
      if near: out.setdefault(v, []).extend(near)
  return out

def earliest_blocks(flow: Flow, listed: Table, pure: list[UOp]) -> Table:
  """The first block where all operands exist: the operands' blocks dominate each other, the deepest one decides."""
  entry = flow.order[0]
  early: Table = {}
  def home(u: UOp) -> UOp:
    if u in early: return early[u]
    return u.src[0] if u.op is Ops.PHI else listed.get(u, entry)
  for u in pure: early[u] = max((home(s) for s in operands(u)), key=flow.index.__getitem__, default=entry)
  return early

def best_blocks(fn: Function, flow: Flow, pure: list[UOp], early: Table) -> Table:
  """Starts at the lowest block that dominates all uses and leaves loops as long as the operands allow."""
  late: Table = {}
  where: Table = {}
  def use(u: UOp, label: UOp) -> None:
    if u in early: late[u] = flow.meet(late[u], label) if u in late else label
  for label, block in fn.blocks.items():
    at = flow.idom[label] if is_way_back(flow, label, block) else label
    for u in block:
      for s in operands(u): use(s, at)
  for u in reversed(pure):
    if u not in late: continue
    where[u] = late[u] if stays(u) else leave_loops(flow, late[u], early[u])
    for s in operands(u): use(s, where[u])
  return where

# ---- what some ways need ---------------------------------------------------------------------------------------------

def separate_cases(fn: Function, flow: Flow) -> Function:
  """What several cases of a switch need, and others do not, is computed in these cases, not before the switch; so is
  what both sides of a branch need, but not always. In and out: instructions. Copies differ by a label among their
  sources, which says nothing."""
  return Separator(fn, flow).function()

class Separator:
  """where: (pure node, case) -> its block; case is None for what is in one place."""
  def __init__(self, fn: Function, flow: Flow):
    self.fn, self.flow = fn, flow
    self.listed = {u for block in fn.blocks.values() for u in block}
    self.where: dict[tuple[UOp, UOp | None], UOp] = {}
    self.switch: Table = {}                                          # node that is copied -> the block before its cases
    self.new: dict[tuple[UOp, UOp | None], UOp] = {}
    self.locate()

  def locate(self) -> None:
    uses: dict[UOp, list[UOp]] = {}
    nodes = every_node(self.fn)
    early = earliest_blocks(self.flow, {u: label for label, block in self.fn.blocks.items() for u in block},
                            [u for u in nodes if u not in self.listed and u.op not in LEAVES])
    for label, block in self.fn.blocks.items():
      for u in block:
        for s in operands(u): uses.setdefault(s, []).append(label)
    for u in reversed(nodes):
      if u in self.listed or u.op in LEAVES or u not in uses: continue
      late = uses[u][0]
      for label in uses[u]: late = self.flow.meet(late, label)
      blocks = dict.fromkeys(uses[u])
      is_fixed = leave_loops(self.flow, late, early[u]) is not late           # computed before the loop around
      cases = {} if late in blocks or is_fixed else self.cases_of(late, blocks)
      if cases:
        self.switch[u] = late
        self.where.update(((u, case), label) for case, label in cases.items())
        places = list(cases.values())
      else:
        self.where[u, None] = late
        places = [late]
      for s in operands(u): uses.setdefault(s, []).extend(dict.fromkeys(places))

  def cases_of(self, late: UOp, blocks: Iterable[UOp]) -> Table:
    """Each case of a switch, or side of a branch -> the block in it before what uses a node. None if that is no better
    than one place."""
    last = self.fn.blocks[late][-1]
    cases: Table = {}
    if last.op not in (Ops.SWITCH, Ops.BRANCH): return cases
    for label in blocks:
      case = self.case_of(late, label)
      cases[case] = self.flow.meet(cases.get(case, label), label)
    if last.op is Ops.SWITCH: return cases
    is_better = any(case is not label for case, label in cases.items())
    is_possible = all(case in last.src and not is_way_back(self.flow, case, self.fn.blocks[case]) for case in cases)
    return cases if is_better and is_possible else {}

  def case_of(self, switch: UOp, label: UOp) -> UOp:
    while self.flow.idom[label] is not switch: label = self.flow.idom[label]
    return label

  def function(self) -> Function:
    blocks = {label: [self.rebuilt(u, label) for u in block] for label, block in self.fn.blocks.items()}
    return replace(self.fn, blocks=blocks)

  def rebuilt(self, root: UOp, label: UOp) -> UOp:
    """A listed node with the copies of its operands that its block uses."""
    stack = [(root, label)]
    while stack:
      u, at = stack[-1]
      key, inside = self.key(u, at)
      if key in self.new:
        stack.pop()
        continue
      missing = [(s, inside) for s in operands(u) if s.op not in LEAVES and self.key(s, inside)[0] not in self.new]
      stack.extend(missing)
      if missing: continue
      stack.pop()
      made = u.with_src(tuple([self.new.get(self.key(s, inside)[0], s) for s in u.src]))
      self.new[key] = made if key[1] is None else made.with_src((*made.src, key[1]))
    return self.new[root, None]

  def key(self, u: UOp, at: UOp) -> tuple[tuple[UOp, UOp | None], UOp]:
    """The copy of u that a block uses, and the block where that is."""
    case = self.case_of(self.switch[u], at) if u in self.switch else None
    return (u, case), self.where.get((u, case), at)

def is_way_back(flow: Flow, label: UOp, block: list[UOp]) -> bool:
  """A block after a branch that only jumps back to its loop's head: empty, the branch can go to the head itself."""
  head = flow.head.get(label)
  if block[0].op is not Ops.JUMP or block[0].src[0] is not head or len(flow.before[label]) != 1: return False
  return flow.head.get(flow.idom[label]) is head

def stays(u: UOp) -> bool:
  """Nodes that must not move up. pointer + constant is free at its use, where a load or store folds it; a division by
  an unknown number may trap where the program would not have divided."""
  if u.op in (Ops.IDIV, Ops.MOD) and u.dtype.kind != "f": return u.src[1].op is not Ops.CONST
  return u.op is Ops.ADD and u.dtype is dtypes.ptr and u.src[1].op is Ops.CONST

def leave_loops(flow: Flow, label: UOp, early: UOp) -> UOp:
  """The last block before the outermost loop around label that begins after `early`."""
  while label in flow.head and flow.index[flow.head[label]] > flow.index[early]: label = flow.idom[flow.head[label]]
  return label

def order_block(block: list[UOp], label: UOp, waiting: list[UOp], where: Table, first: dict[UOp, list[UOp]]
                ) -> list[UOp]:
  """Pure nodes right before their first use; those that only later blocks use stand before the terminator. first: node
  -> others that should come before it, if they can."""
  out: list[UOp] = []
  done: set[UOp] = set()
  entered: set[UOp] = set()
  def before(u: UOp) -> list[tuple[UOp, bool]]:
    wanted = [*operands(u)[::-1], *(first.get(u, ()) if u not in entered else ())]
    entered.add(u)
    return [(s, False) for s in wanted]
  def emit_operands(root: UOp) -> None:
    stack = before(root)
    while stack:
      u, ready = stack.pop()
      if u in done or where.get(u) is not label: continue
      if ready:
        done.add(u)
        out.append(u)
      else:
        stack.append((u, True))
        stack += before(u)
  for u in block[:-1]:
    emit_operands(u)
    out.append(u)
  for u in waiting:
    if u not in done: emit_operands(u)
    if u not in done:
      done.add(u)
      out.append(u)
  emit_operands(block[-1])
  out.append(block[-1])
  return out

LONG_CHAIN = 8           # operations that a processor may not look past to those for the next store

def alternating(block: list[UOp], most: int) -> list[UOp]:
  """A placed block in which stores whose values take the same operations come together, `most` of them at once, after
  these operations in alternation: a processor that looks ahead little then finds some that do not wait for others."""
  out: list[UOp] = []
  rows: list[list[UOp]] = []                                         # alike, of one operation or more and a store
  at = 0
  for k, u in enumerate(block):
    if u.op is not Ops.STORE: continue
    row = block[at:k + 1]
    at = k + 1
    if rows and len(row) > LONG_CHAIN and are_alike(rows[0][-len(row):], row) and len(rows) < most: rows.append(row)
    else:
      out += in_alternation(rows)
      rows = [row]
  return out + in_alternation(rows) + block[at:]

def are_alike(a: list[UOp], b: list[UOp]) -> bool:
  """Whether two sequences, each of pure nodes and a store, have the same operations."""
  return [u.op for u in a] == [u.op for u in b] and not any(u.op in EFFECTS or u.op is Ops.LOAD for u in b[:-1])

def in_alternation(rows: list[list[UOp]]) -> list[UOp]:
  """The first of each row, the second of each, ..; unless a row needs what comes too late in one before it. What the
  first row has more comes before."""
  if len(rows) < 2: return [u for row in rows for u in row]
  more = len(rows[0]) - len(rows[1])
  out = rows[0][:more] + [u for step in zip(rows[0][more:], *rows[1:]) for u in step]
  place = {u: k for k, u in enumerate(out)}
  in_order = all(place.get(s, -1) < k for k, u in enumerate(out) for s in operands(u) if s is not u)
  return out if in_order else [u for row in rows for u in row]
