# unroll.py: several steps of a loop, one after the other, in one. In and out: a Function. Loops of few steps become
# none, before what is pure has a place; afterwards a loop that adds products to many registers, a register tile, gets
# several steps between two branches: a processor that takes in hardly more operations than it can multiply would count
# instead. Sums stay in their order.   (chapter 3)
from __future__ import annotations
from dataclasses import replace
from typing import NamedTuple
from picograd.codegen.flat import Function, in_order, phi, predecessors
from picograd.helpers import ceildiv, dedup
from picograd.ops.ops import EFFECTS, Ops
from picograd.ops.uop import Table, UOp, substitute

FEWEST_SUMS = 12         # registers that are added to: with fewer, memory or the sum before is what a step waits for
MOST_EFFECTS = 8         # loads and stores of a loop of few steps

class BlockLoop(NamedTuple):
  """A loop of one block that runs a known number of times."""
  head: UOp
  before: UOp                                    # the block that enters it
  back: UOp                                      # and the one that leads from its end to its start
  counter: UOp
  following: UOp                                 # the counter of the next step
  start: list[UOp]                               # what it is entered with
  passed: list[UOp]                              # what a step passes to the next
  steps: int

def write_out_short_loops(fn: Function, most: int) -> Function:
  """fn, whose blocks list effects only, without loops of at most so many steps."""
  for head in list(fn.blocks):
    loop = block_loop(fn, head) if head in fn.blocks else None
    if loop is None or len(fn.blocks[head]) > MOST_EFFECTS + 1: continue
    if 1 < loop.steps <= most: fn = written_out(fn, loop, loop.steps)
  return fn

def write_out_tiles(fn: Function, most: int) -> Function:
  """fn, whose blocks list everything, where a step of a tile's loop is up to so many."""
  for head in fn.blocks:
    loop = block_loop(fn, head)
    if loop is None or sum(u.op is Ops.MULACC and u.dtype.count > 1 for u in loop.passed) < FEWEST_SUMS: continue
    times = max(n for n in range(1, most + 1) if loop.steps % n == 0)
    if 1 < times < loop.steps: fn = written_out(fn, loop, times)
  return fn

def block_loop(fn: Function, head: UOp) -> BlockLoop | None:
  last = fn.blocks[head][-1]
  if last.op is not Ops.BRANCH: return None
  again, back = last.src[:2]
  jump = fn.blocks[back][-1]
  if len(fn.blocks[back]) > 1 or jump.op is not Ops.JUMP or jump.src[0] is not head: return None
  outside = [p for p in predecessors(fn)[head] if p is not back]
  start, passed = list(fn.blocks[outside[0]][-1].src[1:]), list(jump.src[1:])
  steps = steps_of(again, {phi(head, k, v.dtype): v for k, v in enumerate(start)})
  if len(outside) > 1 or steps is None: return None
  following = again.src[0]
  counter = following.src[0]
  if following is not passed[counter.arg]: return None
  return BlockLoop(head, outside[0], back, counter, following, start, passed, steps)

def steps_of(again: UOp, start: Table) -> int | None:
  """How often a loop runs that goes on while counter + step < limit, where these numbers are known. start: what its
  parameters are at first."""
  if again.op is not Ops.CMPLT or again.src[0].op is not Ops.ADD: return None
  (counter, step), limit = again.src[0].src, again.src[1]
  if counter not in start or any(u.op is not Ops.CONST for u in (start[counter], step, limit)): return None
  return ceildiv(limit.arg - start[counter].arg, step.arg) if step.arg > 0 else None

def written_out(fn: Function, loop: BlockLoop, times: int) -> Function:
  """The loop with so many steps in one; where that is all of them, their effects are those of the block before it."""
  head, (*body, branch) = loop.head, fn.blocks[loop.head]
  params = [phi(head, k, v.dtype) for k, v in enumerate(loop.passed)]
  is_whole = times == loop.steps
  values: Table = dict(zip(params, loop.start if is_whole else params))
  counter = values[loop.counter]
  home = block_before(fn, loop) if is_whole else head
  block = fn.blocks[home][:-1] if is_whole else []
  step = loop.following.src[1].arg
  for on in range(step, times * step + 1, step):
    values[loop.following] = counter.like(counter.arg + on) if counter.op is Ops.CONST else counter + on
    new = substitute([*body, *loop.passed], {**values, head: state_after(block, home)})
    last = {**values, **dict(zip(body, new))}
    block += new[:len(body)]
    values = dict(zip(params, new[len(body):]))
  if is_whole: last[branch.src[2]] = state_after(block, home)
  end = fn.blocks[branch.src[2]] if is_whole else [branch]
  blocks = {label: [] if label is home else substitute(old, last) for label, old in fn.blocks.items()}
  blocks[home] = [*dedup(block), *substitute(end, last)]
  return in_order(replace(fn, blocks=blocks))

def state_after(block: list[UOp], label: UOp) -> UOp:
  """The memory state at the end of what a block lists so far."""
  return next((u for u in reversed(block) if u.op in EFFECTS), label)

def block_before(fn: Function, loop: BlockLoop) -> UOp:
  """The block that leads to a loop and nowhere else, with those that do nothing but lead to it."""
  home, before = loop.before, predecessors(fn)
  while len(fn.blocks[home]) == 1 and len(before[home]) == 1 and len(fn.blocks[before[home][0]][-1].src) == 1:
    home, = before[home]
  return home
