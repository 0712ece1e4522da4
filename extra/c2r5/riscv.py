# riscv.py: a Module -> a RISC-V object file that GNU ld links: code by the back end that kernels use
# (picograd/codegen/riscv.py), objects as bytes and relocations. What that back end has no instruction for is written
# out here in others: tables of jumps as comparisons, barriers as nothing, since it keeps the order of accesses anyway.
from __future__ import annotations
from dataclasses import replace
from typing import Iterable
from picograd.codegen.flat import Blocks, Data, Function, Module, PLAIN, forward, mem2reg, new_label
from picograd.codegen.riscv import assemble
from picograd.codegen.rvobject import Assembled, Section, write_object
from picograd.dtype import dtypes
from picograd.ops.ops import Ops
from picograd.ops.uop import Table, UOp

def object_code(module: Module, level: int) -> bytes:
  """The object file. Functions that call setjmp keep their variables in memory."""
  entries = Section(".text")
  for fn in module.functions:
    if is_variadic(fn): write_entry(entries, fn)
  functions = [fn if fn.returns_twice or not level else mem2reg(fn) for fn in map(legal, module.functions)]
  constant = [d for d in module.data if d.is_constant]
  changing = [d for d in module.data if not d.is_constant]
  code = assemble(functions)
  for name, target in module.aliases:
    code.labels[name] = code.labels[target]
    code.exported.append(name)
  lists = [list_section(name, listed) for name, listed in
           ((".init_array", module.startup), (".fini_array", module.shutdown)) if listed]
  objects = [data_section(".rodata", constant), data_section(".data", changing)]
  return write_object([code, entries.finish(), *lists, *objects])

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

def list_section(name: str, functions: Iterable[str]) -> Assembled:
  """Functions that run before main, or after it."""
  section = Section(name, alignment=8)
  for function in functions: section.pointer(function)
  return section.finish()

def bytes_between(data: Data, start: int, end: int) -> bytes:
  return data.contents[start:end].ljust(end - start, b"\0")

# ---- what the back end does not know ---------------------------------------------------------------------------------

def legal(fn: Function) -> Function:
  return without_barriers(without_switches(body_of_variadic(fn) if is_variadic(fn) else fn))

# ---- functions with variable arguments: an entry lays them in a row and calls the body with the address of that row --

SP, RA, A0 = 2, 1, 10
SAVED = 80                             # bytes below the stack arguments: ra, nothing, a0 .. a7

def is_variadic(fn: Function) -> bool:
  """Whether it asks for its variable arguments; one that does not is like any other."""
  return fn.convention.fixed is not None and any(is_va_start(u) for block in fn.blocks.values() for u in block)

def is_va_start(u: UOp) -> bool:
  return u.op is Ops.CALL and u.src[0].op is Ops.SYM and u.src[0].arg == "__builtin_va_start"

def body_name(fn: Function) -> str: return fn.name + ".body"

def integers_before(fn: Function) -> int:
  """How many integer registers the fixed arguments take."""
  floats = sum(dtype.kind == "f" for dtype in fn.params)
  count = len(fn.params) - floats
  if count >= 8 or floats > 8: raise NotImplementedError(f"{fn.name}: variable arguments after eight fixed ones")
  return count

def write_entry(section: Section, fn: Function) -> None:
  """Saves a0 .. a7 right below the stack arguments, so that all lie in a row, and passes the address of the first
  variable one as one more argument."""
  count = integers_before(fn)
  if fn.is_local: section.label(fn.name)
  else: section.export(fn.name)
  section.emit("addi", SP, SP, -SAVED)
  section.emit("sd", RA, 0, SP)
  for k in range(8): section.emit("sd", A0 + k, 16 + 8 * k, SP)
  section.emit("addi", A0 + count, SP, 16 + 8 * count)
  section.call(body_name(fn))
  section.emit("ld", RA, 0, SP)
  section.emit("addi", SP, SP, SAVED)
  section.emit("jalr", 0, 0, RA)

def body_of_variadic(fn: Function) -> Function:
  """The function with one more parameter, the address, which va_start stores."""
  row = UOp(Ops.PARAM, dtypes.ptr, (), len(fn.params))
  calls = [u for block in fn.blocks.values() for u in block if is_va_start(u)]
  table: Table = {u: UOp(Ops.STORE, dtypes.void, (u.src[1], row, u.src[-1])) for u in calls}
  params = [*fn.params, dtypes.ptr]
  return replace(forward(fn, table), name=body_name(fn), params=params, convention=PLAIN, is_local=True)

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
