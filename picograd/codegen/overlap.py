# overlap.py: a loop that copies joins the one that reads the copy in its order. In and out: a Function whose blocks
# list effects only. So the first tile of a product computes while memory answers, and has in registers what it stores
# for the others; where these are few, it is taken out of their loop for that.   (chapter 3)
from __future__ import annotations
from dataclasses import replace
from typing import NamedTuple
from picograd.codegen.flat import (Function, in_order, natural_loop, new_label, phi, predecessors, split_sum,
                                   successors)
from picograd.codegen.unroll import BlockLoop, block_loop, steps_of
from picograd.dtype import DType, dtypes
from picograd.helpers import dedup
from picograd.ops.ops import Ops, Space
from picograd.ops.uop import Table, UOp, substitute, toposort

MOST_STEPS = 16          # of a loop over tiles whose first is taken out: it is as much code again

def join_copies(fn: Function) -> Function:
  for head in list(fn.blocks):
    copy = block_loop(fn, head) if head in fn.blocks else None
    if copy is None or all(u.op is not Ops.STORE for u in fn.blocks[head]): continue             # it copies nothing
    fn = joined(fn, copy) or joined(first_step_apart(fn, copy), copy) or fn
  return fn

def loop_after(fn: Function, loop: BlockLoop) -> BlockLoop | None:
  """The loop that follows when another is done, and only then, with nothing between them."""
  before, label = predecessors(fn), fn.blocks[loop.head][-1].src[2]
  while len(before[label]) == len(fn.blocks[label]) == 1 and fn.blocks[label][0].op is Ops.JUMP:
    target = fn.blocks[label][0].src[0]
    found = block_loop(fn, target)
    if found: return found if found.before is label else None
    label = target
  return None

def first_step_apart(fn: Function, copy: BlockLoop) -> Function | None:
  """fn where the first step of the loop that follows another comes before it: a loop of several blocks and few steps,
  whose values nobody else uses."""
  before, label = predecessors(fn), fn.blocks[copy.head][-1].src[2]
  while len(before[label]) == len(fn.blocks[label]) == 1 and fn.blocks[label][0].op is Ops.JUMP:
    head, *start = fn.blocks[label][0].src
    if len(before[head]) == 2: return with_first_step(fn, label, head, start, before)
    label = head
  return None

def with_first_step(fn: Function, entry: UOp, head: UOp, start: list[UOp],
                    before: dict[UOp, list[UOp]]) -> Function | None:
  """fn with a copy of a loop's blocks for its first step; entry: the block that enters it."""
  back, = [p for p in before[head] if p is not entry]
  inside = natural_loop(before, head, [back])
  body = [label for label in fn.blocks if label in inside]
  ends = [label for label in body if not inside.issuperset(successors(fn.blocks[label]))]
  last, at_first = fn.blocks[ends[0]][-1], {phi(head, k, v.dtype): v for k, v in enumerate(start)}
  if len(ends) > 1 or last.op is not Ops.BRANCH or last.src[1] is not back: return None
  steps = steps_of(last.src[0], at_first)
  if steps is None or not 1 < steps <= MOST_STEPS: return None
  others = [u for label, block in fn.blocks.items() if label not in inside and label is not entry for u in block]
  if not inside.isdisjoint(toposort(others)): return None
  new: Table = {**{label: new_label() for label in body}, **at_first}
  blocks = {**fn.blocks, entry: [UOp(Ops.JUMP, dtypes.void, (new[head],))]}
  for label in body: blocks[new[label]] = substitute(fn.blocks[label], new)
  blocks[new[ends[0]]][-1] = UOp(Ops.JUMP, dtypes.void, (new[back],))       # there is a second step,
  jump = blocks[new[back]][-1]
  blocks[new[back]][-1] = jump.with_src((head, *jump.src[1:]))              # with which the loop begins
  return in_order(replace(fn, blocks=blocks))

class Place(NamedTuple):
  """Where a load or store is: a kernel's own memory, if it is there; the variables of the address; a constant."""
  memory: UOp | None
  terms: frozenset[tuple[UOp, int]]
  start: int
  dtype: DType

def place_of(u: UOp) -> Place:
  terms, start = split_sum(u.src[0])
  memory = next((t for t in terms if t.op is Ops.BUFFER and t.arg.space is Space.LOCAL), None)
  return Place(memory, frozenset(terms.items()), start, u.dtype if u.op is Ops.LOAD else u.src[1].dtype)

def joined(fn: Function | None, copy: BlockLoop) -> Function | None:
  """One loop of two in sequence; None where there are no two, or where a step of the second reads other copies than
  those of the same step."""
  reader = loop_after(fn, copy) if fn else None
  if fn is None or reader is None: return None
  first, second = fn.blocks[copy.head][:-1], fn.blocks[reader.head][:-1]
  others = [u for label, block in fn.blocks.items() if label is not copy.head and label is not copy.back for u in block]
  if not steps_are_alike(copy, reader) or not {copy.counter, *first}.isdisjoint(toposort(others)): return None
  table: Table = {copy.counter: reader.counter}
  block: list[UOp] = []
  stored: dict[Place, UOp] = {}
  for u in first:
    if u.op not in (Ops.LOAD, Ops.STORE): return None
    place = place_of(new := again(u, table, block, reader.head))
    is_store = u.op is Ops.STORE
    if is_store is (place.memory is None) or (is_store and len(u.src) > 3): return None     # it copies, and all of it
    if is_store: stored[place] = new.src[1]
  if not stored or not are_apart(stored, reader): return None
  for u in second:
    if u.op is Ops.FETCH:
      block += substitute([u], table)
      continue
    if u.op is not Ops.LOAD: return None
    place = place_of(u)
    if all(place.memory is not s.memory for s in stored): again(u, table, block, reader.head)
    elif place not in stored or len(u.src) > 2: return None
    else: table[u] = stored[place]
  blocks = {label: substitute(old, table) for label, old in fn.blocks.items() if label is not copy.head}
  blocks[reader.head] = [*dedup(block), blocks[reader.head][-1]]
  blocks[copy.before][-1] = blocks[copy.before][-1].with_src((reader.before,))
  return in_order(replace(fn, blocks=blocks))

def steps_are_alike(copy: BlockLoop, reader: BlockLoop) -> bool:
  """Whether both count the same, and the first passes nothing else on."""
  steps = [(loop.steps, loop.start[loop.counter.arg], loop.following.src[1]) for loop in (copy, reader)]
  return steps[0] == steps[1] and len(copy.passed) == 1

def again(u: UOp, table: Table, block: list[UOp], head: UOp) -> UOp:
  """A load or store in the block of a loop, after what it lists so far."""
  new, = substitute([u], table)
  state = next((v for v in reversed(block) if v.op is Ops.STORE), head)
  table[u] = new.with_src((*new.src[:-1], state))
  block.append(table[u])
  return table[u]

def are_apart(stored: dict[Place, UOp], loop: BlockLoop) -> bool:
  """Whether no two stores of a loop, in one step or several, write the same bytes."""
  first = min(stored, key=lambda place: place.start)
  at = first.start
  for place in sorted(stored, key=lambda place: place.start):
    if place.memory is not first.memory or place.terms != first.terms or place.start < at: return False
    at = place.start + place.dtype.itemsize
  return dict(first.terms).get(loop.counter, 0) * loop.following.src[1].arg >= at - first.start
