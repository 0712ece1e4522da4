# riscv.py: a Module -> a RISC-V object file that GNU ld links, or the same as assembly: code by the back end that
# kernels use (picograd/codegen/riscv.py), objects as bytes and relocations.
from __future__ import annotations
from dataclasses import replace
from typing import Any, Callable, Iterable
from picograd.codegen.flat import Data, Function, Module, forward, mem2reg, without_beginnings
from picograd.codegen.flatopt import constants_last, simplify, thread_jumps
from picograd.codegen.inline import inline_all
from picograd.codegen.memopt import Sizes, improve_memory
from picograd.codegen.riscv import assemble
from picograd.codegen.rvobject import Assembled, NO_BITS, Section, write_object
from picograd.ops.ops import Ops
from picograd.ops.uop import Table
from .assembly import assembly_of
from .lex import doing
from .tree import JUMPS

def object_code(module: Module, level: int) -> bytes:
  return write_object(sections(module, level), module.weak, module.thread_local)

def assembly(module: Module, level: int) -> str:
  return assembly_of(sections(module, level), module)

def sections(module: Module, level: int) -> list[Assembled]:
  """Code and data. Functions that call setjmp keep their variables in memory."""
  module = module._replace(functions=[replace(fn, is_lenient=not module.wraps) for fn in module.functions])
  functions = optimized(module) if level else [without_beginnings(fn) for fn in module.functions]
  constants = Section(".rodata.cst8", alignment=8)
  try: code = assemble(functions, thread_local=module.thread_local, constants=constants)
  except Exception:
    for fn in functions: named(lambda fn: assemble([fn], thread_local=module.thread_local))(fn)
    raise
  lists = [list_section(name, listed) for name, listed in
           ((".init_array", module.startup), (".fini_array", module.shutdown)) if listed]
  grouped: dict[str, list[Data]] = {}
  for data in module.data: grouped.setdefault(section_name(data), []).append(data)
  if constants.last: lists.append(constants.finish())
  objects = [data_section(name, group) for name, group in grouped.items()]
  for r in [r for section in (code, *objects) for r in section.relocations if r.symbol.startswith(JUMPS)]:
    code.labels.setdefault(r.symbol, code.labels[r.symbol.removeprefix(JUMPS)])      # of a function that jumps nowhere
  for name, target in module.aliases:
    home = next(section for section in (code, *objects) if target in section.labels)
    home.labels[name] = home.labels[target]
    home.exported.append(name)
  return [code, *lists, *objects]

def optimized(module: Module) -> list[Function]:
  """The functions that are left, each after its callees went into it. One that calls setjmp keeps its variables in
  memory."""
  def start(fn: Function) -> Function:
    return without_beginnings(fn) if fn.returns_twice else simplify(lines_of_calls(mem2reg(fn)))
  sizes = Sizes({data.name: data.size for data in module.data if data.name not in module.weak},
                frozenset(name for pair in module.aliases for name in pair))
  def improve(fn: Function) -> Function:
    if fn.returns_twice: return fn
    return simplify(improve_memory(constants_last(thread_jumps(simplify(lines_of_calls(fn)))), sizes))
  return inline_all(list(map(named(start), module.functions)), module.weak, named(improve))

def named(work: Callable[[Function], Any]) -> Callable[[Function], Any]:
  """The same work, whose faults name the function."""
  def with_name(fn: Function) -> Any:
    where = f"{fn.line.file}:{fn.line.number}" if fn.line is not None else "the compiler's own"
    with doing(lambda: f"in function '{fn.name}', {where}"): return work(fn)
  return with_name

def lines_of_calls(fn: Function) -> Function:
  """Without the marks of lines, which keep things in their order, except those before calls, which do so too."""
  gone: Table = {}
  for block in fn.blocks.values():
    effects = [u for u in block if u.op is not Ops.LOAD]
    gone.update((u, u.src[-1]) for u, following in zip(effects, effects[1:])
                if u.op is Ops.BARRIER and u.arg is not None and following.op is not Ops.CALL)
  if not gone: return fn
  return forward(replace(fn, blocks={k: [u for u in block if u not in gone] for k, block in fn.blocks.items()}), gone)

def section_name(data: Data) -> str:
  """The section an object goes to: the one its program names, else that of its kind."""
  if data.section is not None: return data.section
  is_zero = not data.pieces and not any(data.contents)
  if data.is_thread_local: return ".tbss" if is_zero else ".tdata"
  if data.is_constant: return ".data.rel.ro" if data.pieces else ".rodata"
  return ".bss" if is_zero else ".data"

def data_section(name: str, objects: Iterable[Data]) -> Assembled:
  section = Section(name)
  for data in objects:
    section.align(data.align)
    if data.is_local: section.label(data.name)
    else: section.export(data.name)
    if name in NO_BITS:
      section.fill(max(data.size, 1))
      continue
    contents, at = data.contents.ljust(data.size, b"\0"), 0
    for offset, symbol, extra in data.pieces:
      section.data(contents[at:offset])
      section.pointer(symbol, extra)
      at = offset + 8
    section.data(contents[at:])
  return section.finish()

def list_section(name: str, functions: Iterable[str]) -> Assembled:
  """Functions that run before main, or after it."""
  section = Section(name, alignment=8)
  for function in functions: section.pointer(function)
  return section.finish()
