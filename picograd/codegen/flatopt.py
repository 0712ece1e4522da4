# flatopt.py: what makes goto-shaped programs shorter. In and out: a Function without places, as mem2reg leaves it.
# Kernels do not need it: their structure is clean as they are flattened.
from __future__ import annotations
from dataclasses import replace
from picograd.codegen.flat import Blocks, Function, every_node, forward, in_order, operands, phi, predecessors, prune
from picograd.dtype import dtypes
from picograd.ops.ops import EFFECTS, Ops
from picograd.ops.uop import UOp

def simplify_flow(fn: Function) -> Function:
  """Branches on constants become jumps, jumps to an empty block go on to where it jumps, and a block that only one jump
  reaches joins the block before it."""
  blocks = {label: list(block) for label, block in fn.blocks.items()}
  for block in blocks.values():
    last = block[-1]
    if last.op is Ops.BRANCH and last.src[0].op is Ops.CONST:
      block[-1] = UOp(Ops.JUMP, dtypes.void, (last.src[1] if last.src[0].arg else last.src[2],))
  threaded = thread_jumps(in_order(replace(fn, blocks=blocks)))
  return prune(merge_blocks(in_order(threaded)))

def thread_jumps(fn: Function) -> Function:
  """JUMP to a block that only jumps on goes there itself, if nothing else reads that block's parameters."""
  reads: dict[UOp, set[UOp]] = {}                                    # block -> nodes that read its parameters
  for u in every_node(fn):
    for s in operands(u):
      if s.op is Ops.PHI: reads.setdefault(s.src[0], set()).add(u)
  empty = {label: block[0] for label, block in fn.blocks.items()
           if len(block) == 1 and block[0].op is Ops.JUMP and reads.get(label, set()) <= {block[0]}}
  blocks = {label: list(block) for label, block in fn.blocks.items()}
  for block in blocks.values():
    passed: set[UOp] = set()
    while block[-1].op is Ops.JUMP and block[-1].src[0] in empty and block[-1].src[0] not in passed:
      label, *values = block[-1].src
      passed.add(label)  # a ring of empty blocks is an endless loop: stop there
      table = {phi(label, k, v.dtype): v for k, v in enumerate(values)}
      block[-1] = empty[label].with_src(tuple([table.get(s, s) for s in empty[label].src]))
  return replace(fn, blocks=blocks)

def merge_blocks(fn: Function) -> Function:
  """A block that one JUMP alone reaches is appended to the block of that JUMP."""
  before = predecessors(fn)
  table: dict[UOp, UOp] = {}
  blocks: Blocks = {}
  merged: set[UOp] = set()
  for label in fn.blocks:
    if label in merged: continue
    out, state = [], label
    block = fn.blocks[label]
    while True:
      out += block[:-1]
      state = next((u for u in reversed(block[:-1]) if u.op in EFFECTS), state)
      last = block[-1]
      if last.op is not Ops.JUMP or len(before[last.src[0]]) > 1: break
      target, *values = last.src
      table[target] = state
      table.update((phi(target, k, v.dtype), v) for k, v in enumerate(values))
      merged.add(target)
      block = fn.blocks[target]
    blocks[label] = out + [last]
  return forward(replace(fn, blocks=blocks), table)
