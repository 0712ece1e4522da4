# riscv.py: a flat function as RISC-V machine code, by these steps: what has no instruction is put in other terms
# (rvlegal, rvv), addresses grow with loops (flatopt), instructions are selected (rvselect), placed, get registers and
# are written (rvemit). Kernels and C functions alike.   (RISC-V Unprivileged ISA; ELF psABI)
from __future__ import annotations
from dataclasses import replace
from typing import Any, Iterable
from picograd.codegen.flat import STATEFUL, Function, operands
from picograd.codegen.flatopt import reduce_strength
from picograd.codegen.rvasm import decode
from picograd.codegen.rvemit import Emitter
from picograd.codegen.rvlegal import legalise
from picograd.codegen.rvobject import Assembled, Section, disassemble
from picograd.codegen.rvselect import Selector
from picograd.codegen.rvv import legalise_vectors
from picograd.helpers import collector_paused
from picograd.ops.ops import EFFECTS, TERMINATORS, Ops
from picograd.ops.uop import UOp

EXTENSIONS = frozenset({"zba", "zbb"})

def prepare(fn: Function, extensions: frozenset[str]) -> Function:
  """A flat function, placed or not, in operations that selection knows."""
  fn = without_pure(fn)
  if "v" in extensions: fn = legalise_vectors(fn)
  return reduce_strength(legalise(fn))

def select(fn: Function, extensions: frozenset[str] = frozenset(), thread_local: frozenset[str] = frozenset()
           ) -> Function:
  """A flat function, placed or not, as machine instructions: those with effects in blocks, the others below them."""
  return Selector(prepare(fn, extensions), extensions, thread_local).function()

def without_pure(fn: Function) -> Function:
  """The blocks list effects only, as before placing."""
  kept = STATEFUL | EFFECTS | TERMINATORS
  blocks = {label: [u for u in block if u.op in kept] for label, block in fn.blocks.items()}
  return replace(fn, blocks=blocks)

def assemble(functions: Iterable[Function], extensions: frozenset[str] = frozenset(),
             thread_local: frozenset[str] = frozenset(), constants: Section | None = None) -> Assembled:
  """The functions as one section of code. thread_local: symbols of which each thread has its own. constants: a section
  for large numbers, if they are to be loaded."""
  section = Section(".text", constants=constants)
  with collector_paused():
    for fn in functions: Emitter(select(fn, extensions, thread_local), section, {}).write()
  return section.finish()

def listing(fn: Function, extensions: frozenset[str] = frozenset()) -> str:
  """A kernel as lines: offset, code in hexadecimal, assembly, and the operation it came from."""
  section, selector = Section(".text"), Selector(prepare(fn, extensions), extensions)
  Emitter(selector.function(), section, origins(selector)).write()
  code = section.finish()
  lines, said = [f"# {fn.name} {fn.threads}"], starting(code)
  for at, text in disassemble(code.data):
    size = decode(code.data, at)[0].size
    lines += [f"L{k}:" for kind, k in said.get(at, ()) if kind == fn.name]
    notes = [note for kind, note in said.get(at, ()) if kind == "note"]
    line = f"{at:6x}: {code.data[at:at + size][::-1].hex():8}  {text}"
    lines.append(f"{line:58}# {notes[-1]}" if notes else line)
  return "\n".join(lines)

def starting(code: Assembled) -> dict[int, list[tuple[str, Any]]]:
  """Offset -> the labels of blocks and notes there."""
  found: dict[int, list[tuple[str, Any]]] = {}
  for label, at in code.labels.items():
    if isinstance(label, tuple): found.setdefault(at, []).append(label[:2])
  return found

def origins(selector: Selector) -> dict[UOp, str]:
  """Instruction -> the operation it stands for, its operands numbered."""
  number: dict[UOp, str] = {}
  out: dict[UOp, str] = {}
  for u, made in selector.new.items():
    number[u] = str(u.arg) if u.op is Ops.CONST else f"%{len(number)}"
    sources = " ".join(number[s] for s in operands(u))
    if made.op is Ops.INS: out[made] = f"{number[u]} = {u.op} {u.dtype.name} {sources}".rstrip()
  return out
