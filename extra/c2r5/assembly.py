# assembly.py: sections of code and data -> assembly that GNU as makes the same bytes and relocations of (-S).
# (psABI, chapter 6: assembly syntax; GNU as, RISC-V dependent features)
from __future__ import annotations
import re
from typing import Any, Collection, Container, Iterable, Iterator, Sequence
from picograd.codegen.rvasm import decode
from picograd.codegen.rvobject import (ABSOLUTE, Assembled, CALL, FAR, FLAGS, HIGH, HIGH_THREAD, LOW, Relocation,
                                       WRITABLE)

OPERATORS = {HIGH: "%pcrel_hi", HIGH_THREAD: "%tls_ie_pcrel_hi", LOW: "%pcrel_lo"}
LETTERS = {1: "w", 2: "a", 4: "x", 0x400: "T"}                       # of the bits in a section's flags
LAST_NUMBER = re.compile(r"[.+\-\d]+(?=(\(\w+\))?$)")                # an immediate or a distance

def assembly_of(sections: Sequence[Assembled], weak: Collection[str], outside: Iterable[str]) -> str:
  """A whole file. weak: symbols that are so, here or elsewhere. outside: assembly that the program brought along."""
  lines = ["\t.option norelax", *[f"\t.weak {name}" for name in weak]]
  for section in sections: lines += section_lines(section, weak)
  return "\n".join([*lines, *outside]) + "\n"

def section_lines(section: Assembled, weak: Container[str]) -> Iterator[str]:
  bits = FLAGS.get(section.name, WRITABLE)
  flags = "".join(letter for bit, letter in LETTERS.items() if bits & bit)
  kind = section.name[1:] if section.name.endswith("_array") else "nobits" if section.zeros else "progbits"
  yield f'\t.section {section.name},"{flags}",@{kind}'
  yield f"\t.balign {section.alignment}"
  yield from (f"\t.globl {name}" for name in section.exported if name not in weak)
  labels: dict[int, list[str]] = {}
  for name, at in section.symbols().items(): labels.setdefault(at, []).append(name)
  is_code = section.name == ".text"
  if is_code:
    for name in section.symbols():
      if not name.startswith(".L"): yield f"\t.type {name}, @function"
    for target in jump_targets(section.data): labels.setdefault(target, []).append(f".L{target:x}")
  pieces = code_lines(section, labels) if is_code else data_lines(section, labels)
  done: set[int] = set()
  for at, line in pieces:
    if at not in done: yield from (f"{name}:" for name in labels.get(at, ()))
    done.add(at)
    yield "\t" + line

def instructions(code: bytes) -> Iterator[tuple[int, Any, tuple[int, ...]]]:
  at = 0
  while at < len(code):
    row, operands = decode(code, at)
    yield at, row, operands
    at += row.size

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
    if contents: yield at, f'.ascii "{"".join(map(escaped, contents))}"'
    if len(contents) < end - at: yield at, f".zero {end - at - len(contents)}"
  yield size, ""

def escaped(byte: int) -> str:
  return chr(byte) if 32 <= byte < 127 and chr(byte) not in '"\\' else f"\\{byte:03o}"
