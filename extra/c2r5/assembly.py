# assembly.py: sections of code and data -> assembly that GNU as makes the same bytes and relocations of (-S).
# (psABI, chapter 6: assembly syntax; GNU as, RISC-V dependent features)
from __future__ import annotations
import os, re
from typing import Any, Container, Iterator, Sequence
from picograd.codegen.flat import Module
from picograd.codegen.rvobject import (ABSOLUTE, Assembled, CALL, FAR, FLAGS, HIGH, HIGH_THREAD, LOW, LOW_STORE,
                                       Relocation, WRITABLE, instructions)

OPERATORS = {HIGH: "%pcrel_hi", HIGH_THREAD: "%tls_ie_pcrel_hi", LOW: "%pcrel_lo", LOW_STORE: "%pcrel_lo"}
LETTERS = {1: "w", 2: "a", 4: "x", 0x400: "T"}                       # of the bits in a section's flags
LAST_NUMBER = re.compile(r"[.+\-\d]+(?=(\(\w+\))?$)")                # an immediate or a distance

def assembly_of(sections: Sequence[Assembled], module: Module) -> str:
  """A whole file."""
  lines = ["\t.option norelax", *[f"\t.weak {name}" for name in sorted(module.weak)]]
  debug = Debug(sections[0], module) if module.source is not None else None
  if debug is not None: lines += [f"\t.file {k} {quoted(file)}" for file, k in debug.files.items()]
  for section in sections: lines += section_lines(section, module.weak, debug)
  if debug is not None: lines += debug.sections()
  return "\n".join([*lines, *module.assembly]) + "\n"

def section_lines(section: Assembled, weak: Container[str], debug: Debug | None) -> Iterator[str]:
  bits = FLAGS.get(section.name, WRITABLE)
  flags = "".join(letter for bit, letter in LETTERS.items() if bits & bit)
  kind = section.name[1:] if section.name.endswith("_array") else "nobits" if section.zeros else "progbits"
  yield f'\t.section {section.name},"{flags}",@{kind}'
  yield f"\t.balign {section.alignment}"
  if section.name == ".text": yield ".Lcode:"
  yield from (f"\t.globl {name}" for name in section.exported if name not in weak)
  labels: dict[int, list[str]] = {}
  for name, at in section.symbols().items(): labels.setdefault(at, []).append(name)
  is_code = section.name == ".text"
  if is_code:
    for name in section.symbols():
      if not name.startswith(".L"): yield f"\t.type {name}, @function"
    for target in jump_targets(section.data): labels.setdefault(target, []).append(f".L{target:x}")
  pieces = code_lines(section, labels) if is_code else data_lines(section, labels)
  begins = debug.begins if debug is not None and is_code else {}
  done: set[int] = set()
  for at, line in pieces:
    if at not in done: yield from (f"{name}:" for name in labels.get(at, ()))
    if at not in done and at in begins: yield f"\t.loc {begins[at]}"
    done.add(at)
    yield "\t" + line
  if is_code: yield ".Lend:"

def is_jump(row: Any) -> bool: return bool(row.fields) and row.fields[-1].kind == "p"
def jump_targets(code: bytes) -> set[int]:
  return {at + operands[-1] for at, row, operands in instructions(code) if is_jump(row)}

def code_lines(section: Assembled, labels: dict[int, list[str]]) -> Iterator[tuple[int, str]]:
  """Instructions, each as the table prints it; what the linker fills and where jumps go by name."""
  wanted = {r.at: r for r in section.relocations}
  called = -1                                                        # where the second half of a call is
  for at, row, operands in instructions(section.data):
    text = row.text(operands)
    r = wanted.get(at)
    if at == called: continue
    if r is not None and r.kind == CALL:
      called = at + row.size
      text = f"jump {r.symbol}, t6" if operands[0] == FAR else f"call {r.symbol}"
    elif r is not None: text = LAST_NUMBER.sub(f"{OPERATORS[r.kind]}({sum_text(r)})", text)
    elif is_jump(row): text = LAST_NUMBER.sub(labels[at + operands[-1]][0], text)
    if is_jump(row) and row.size == 4:                               # it may be four bytes of a table
      yield at, ".option norvc"
      yield at, text
      text = ".option rvc"
    yield at, text

def sum_text(r: Relocation) -> str: return f"{r.symbol}{r.addend:+d}" if r.addend else r.symbol

def data_lines(section: Assembled, labels: dict[int, list[str]]) -> Iterator[tuple[int, str]]:
  """Bytes as text, addresses by name, zeros by their number, cut where labels are."""
  pointers = {r.at: r for r in section.relocations}
  assert all(r.kind == ABSOLUTE for r in section.relocations), "data holds whole addresses"
  size = section.zeros or len(section.data)
  cuts = sorted({0, *labels, *pointers, *[at + 8 for at in pointers], size})
  for at, end in zip(cuts, cuts[1:]):
    if at in pointers:
      yield at, f".dword {sum_text(pointers[at])}"
      continue
    contents = section.data[at:end].rstrip(b"\0")
    if contents: yield at, f".ascii {quoted(contents)}"
    if len(contents) < end - at: yield at, f".zero {end - at - len(contents)}"
  if size in labels: yield size, ""

def quoted(text: str | bytes) -> str:
  if isinstance(text, str): text = os.fsencode(text)
  return '"' + "".join(chr(b) if 32 <= b < 127 and chr(b) not in '"\\' else f"\\{b:03o}" for b in text) + '"'

# ---- what debuggers read ---------------------------------------------------------------------------------------------

# DWARF 4's abbreviations: number, tag, whether there are children, then attributes with their forms
UNIT, FUNCTION = 1, 2
ABBREVIATIONS = (UNIT, 0x11, 1, 0x13, 0x0b, 0x03, 0x08, 0x1b, 0x08, 0x10, 0x17, 0x11, 0x01, 0x12, 0x07, 0, 0,
                 FUNCTION, 0x2e, 0, 0x03, 0x08, 0x3a, 0x0b, 0x3b, 0x06, 0x11, 0x01, 0x12, 0x07, 0, 0, 0)
C99 = 12

class Debug:
  """The lines of code: the assembler writes the table of them, we the unit and its functions, without which debuggers
  do not look at it. begins: offset -> file's number and line."""
  def __init__(self, code: Assembled, module: Module):
    self.source = module.source or ""
    self.functions = [fn for fn in module.functions if fn.name in code.labels]
    places = {code.labels[fn.name]: fn.line for fn in self.functions if fn.line is not None}
    for label, at in code.labels.items():
      if label[0] == "line": places[at] = label[1]
    files = [line.file for line in places.values()]
    self.files = {file: k for k, file in enumerate(dict.fromkeys(files), 1)}
    self.begins = {at: f"{self.files[line.file]} {line.number}" for at, line in places.items()}
    starts = sorted((code.labels[fn.name], fn.name) for fn in self.functions)
    self.ends = {name: after for (_, name), (_, after) in zip(starts, starts[1:])}

  def sections(self) -> Iterator[str]:
    yield '\t.section .debug_abbrev,"",@progbits\n.Labbreviations:'
    yield f"\t.byte {', '.join(map(str, ABBREVIATIONS))}"
    yield '\t.section .debug_line,"",@progbits\n.Llines:'
    yield '\t.section .debug_info,"",@progbits\n\t.4byte .Linfo_end - .Linfo\n.Linfo:\n\t.2byte 4'
    yield f"\t.4byte .Labbreviations\n\t.byte 8, {UNIT}, {C99}"
    yield f"\t.string {quoted(self.source)}, {quoted(os.getcwd())}\n\t.4byte .Llines\n\t.8byte .Lcode, .Lend - .Lcode"
    for fn in self.functions:
      if fn.line is None: continue
      yield f'\t.byte {FUNCTION}\n\t.string "{fn.name}"\n\t.byte {self.files[fn.line.file]}'
      yield f"\t.4byte {fn.line.number}\n\t.8byte {fn.name}, {self.ends.get(fn.name, '.Lend')} - {fn.name}"
    yield "\t.byte 0\n.Linfo_end:"
