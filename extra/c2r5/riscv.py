# riscv.py: a Module -> a RISC-V object file that GNU ld links: code by the back end that kernels use
# (picograd/codegen/riscv.py), objects as bytes and relocations. What that back end has no instruction for is written out
# here in others: tables of jumps as comparisons, barriers as nothing, since it keeps the order of accesses anyway.
from __future__ import annotations
from dataclasses import replace
from typing import Iterable
from picograd.codegen.flat import Blocks, Data, Function, Module, forward, mem2reg, new_label
from picograd.codegen.riscv import assemble
from picograd.codegen.rvobject import Assembled, Section, write_object
from picograd.dtype import dtypes
from picograd.ops.ops import Ops
from picograd.ops.uop import Table, UOp

def object_code(module: Module, level: int) -> bytes:
  """The object file. Functions that call setjmp keep their variables in memory."""
  functions = [fn if fn.returns_twice or not level else mem2reg(fn) for fn in map(legal, module.functions)]
  constant = [d for d in module.data if d.is_constant]
  changing = [d for d in module.data if not d.is_constant]
  return write_object([assemble(functions), data_section(".rodata", constant), data_section(".data", changing)])

def data_section(name: str, objects: Iterable[Data]) -> Assembled:
  section = Section(name)
  for data in objects:
    section.align(data.align)
    if data.is_local: section.label(data.name)
    else: section.export(data.name)
    at = 0
    for offset, symbol, extra in data.pieces:
      section.data(bytes_between(data, at, offset))
      section.pointer(symbol, extra)
      at = offset + 8
    section.data(bytes_between(data, at, data.size))
  return section.finish()

def bytes_between(data: Data, start: int, end: int) -> bytes:
  return data.contents[start:end].ljust(end - start, b"\0")

# ---- what the back end does not know ---------------------------------------------------------------------------------

def legal(fn: Function) -> Function: return without_barriers(without_switches(fn))

def without_barriers(fn: Function) -> Function:
  table: Table = {u: u.src[-1] for block in fn.blocks.values() for u in block if u.op is Ops.BARRIER}
  if not table: return fn
  blocks = {label: [u for u in block if u not in table] for label, block in fn.blocks.items()}
  return forward(replace(fn, blocks=blocks), table)

def without_switches(fn: Function) -> Function:
  """Each SWITCH as a tree of BRANCHes; a block in between for every edge, as BRANCH wants it."""
  blocks: Blocks = {}
  for label, block in fn.blocks.items():
    blocks[label] = block
    if block[-1].op is not Ops.SWITCH: continue
    index, *targets = block[-1].src
    blocks[label] = block[:-1] + choose(index, 0, targets, blocks)
  return replace(fn, blocks=blocks)

def choose(index: UOp, first: int, targets: list[UOp], blocks: Blocks) -> list[UOp]:
  """The end of a block that goes to targets[index - first]."""
  if all(t is targets[0] for t in targets): return [UOp(Ops.JUMP, dtypes.void, (targets[0],))]
  middle = len(targets) // 2
  below, above = new_label(), new_label()
  is_below = UOp(Ops.CMPLT, dtypes.bool, (index, UOp.const(dtypes.int64, first + middle)))
  blocks[below] = choose(index, first, targets[:middle], blocks)
  blocks[above] = choose(index, first + middle, targets[middle:], blocks)
  return [UOp(Ops.BRANCH, dtypes.void, (is_below, below, above))]
