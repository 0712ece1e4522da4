# rvobject.py: RISC-V instructions become code: sections with labels whose jumps are as short as they can be, constants
# and addresses in registers, relocatable ELF objects that GNU ld links, flat images for emulation.   (System V ABI,
# chapter 4; RISC-V ELF psABI)
from __future__ import annotations
import struct
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, Container, Iterable, Iterator, NamedTuple, Sequence
from picograd.codegen.rvasm import ROWS, Row, decode

# ---- numbers into registers ------------------------------------------------------------------------------------------

RA, SP, TP, FAR = 1, 2, 4, 31              # FAR: what jumps beyond 1 MiB go through; code generators keep it free there

def signed(value: int, bits: int) -> int:
  """The number that the low bits of value are, in two's complement."""
  return (value & (1 << bits) - 1) - ((value & 1 << (bits - 1)) << 1)

def split_offset(value: int) -> tuple[int, int]:
  """(upper, lower) with value = upper*4096 + lower modulo 2**32: what lui or auipc and then a 12-bit immediate add."""
  lower = signed(value, 12)
  return signed((value - lower) >> 12, 20), lower

Step = tuple[str, tuple[int, ...]]         # a row's name and operands

def load_number(rd: int, value: int) -> list[Step]:
  """Puts a 64-bit number into a register (the pseudo-instruction li): lui and addiw for 32 bits; else the number
  without its low 12 bits and the zeros above them, shifted, and the low bits added."""
  value = signed(value, 64)
  if -2048 <= value < 2048: return [("addi", (rd, 0, value))]
  if value == signed(value, 32):
    upper, lower = split_offset(value)
    return [("lui", (rd, upper))] + ([("addiw", (rd, rd, lower))] if lower else [])
  lower = signed(value, 12)
  rest = signed(value - lower, 64)
  zeros = (rest & -rest).bit_length() - 1
  add = [("addi", (rd, rd, lower))] if lower else []
  return [*load_number(rd, rest >> zeros), ("slli", (rd, rd, zeros)), *add]

# ---- assembling ------------------------------------------------------------------------------------------------------

Label = Any                                # a str names a symbol; anything else is known to its section alone

class Relocation(NamedTuple):
  """A place that only linking can fill. kind: the psABI's number."""
  at: int
  kind: int
  symbol: str
  addend: int = 0

# R_RISCV_64, CALL_PLT, TLS_GOT_HI20, PCREL_HI20, PCREL_LO12_I, PCREL_LO12_S
ABSOLUTE, CALL, HIGH_THREAD, HIGH, LOW, LOW_STORE = 2, 19, 21, 23, 24, 25

INVERSE = {"beq": "bne", "bne": "beq", "blt": "bge", "bge": "blt", "bltu": "bgeu", "bgeu": "bltu"}

NO_BITS = frozenset({".bss", ".tbss"})       # sections of zeros, which take no room in the file
STORES = frozenset({"sb", "sh", "sw", "sd", "fsw", "fsd"})

class Jump(NamedTuple):
  """A branch, a jump or a call whose length depends on how far away its label is. size: the least it may have, in
  bytes; is_entry: whether it must have that."""
  row: Row
  operands: tuple[int, ...]                # without the distance
  label: Label
  size: int = 2
  is_entry: bool = False

  def code(self, distance: int, least: int) -> bytes:
    """The shortest form of at least that many bytes that reaches."""
    for form in self.row.forms:
      short = form(*self.operands, distance)
      if short is not None and least <= 2: return short
    if self.row.fields[-1].allows(distance) and least <= 4: return self.row.encode(*self.operands, distance)
    if self.row.name == "jal": return self.far_code(distance)
    skip = ROWS[INVERSE[self.row.name]]
    shorts = [short for form in skip.forms if (short := form(*self.operands, 6)) is not None and least <= 6]
    over = shorts[0] if shorts else skip.encode(*self.operands, 8)
    if ROWS["jal"].fields[-1].allows(distance - len(over)) and least <= 8:
      return over + ROWS["jal"].encode(0, distance - len(over))
    over = skip.encode(*self.operands, 12)
    return over + Jump(ROWS["jal"], (0,), self.label).far_code(distance - 4)

  def far_code(self, distance: int) -> bytes:
    """auipc and jalr."""
    (link,), (upper, lower) = self.operands, split_offset(distance)
    through = link or FAR
    return ROWS["auipc"].encode(through, upper) + ROWS["jalr"].encode(link, lower, through)

@dataclass
class Section:
  """Code or data in the making. items: bytes, with jumps between them; labels: where each stands, as (item, offset);
  wanted: relocations in items; exported: the symbols that other objects see."""
  name: str
  items: list[bytearray | Jump] = field(default_factory=lambda: [bytearray()])
  labels: dict[Label, tuple[int, int]] = field(default_factory=dict)
  wanted: list[tuple[int, Relocation]] = field(default_factory=list)
  exported: list[str] = field(default_factory=list)
  alignment: int = 16
  zeros: int = 0                           # bytes of a section that holds nothing else
  constants: Section | None = None         # where code finds numbers that would take it many instructions

  @property
  def last(self) -> bytearray: return self.items[-1]                 # type: ignore[return-value]

  def emit(self, name: str, *operands: int) -> None:
    """An instruction, in its compressed form if it has one that holds the operands."""
    row = ROWS[name]
    for form in row.forms:
      short = form(*operands)
      if short is not None:
        self.last.extend(short)
        return
    self.last.extend(row.encode(*operands))

  def label(self, label: Label) -> None:
    if label in self.labels: raise ValueError(f"{label} is defined twice")
    self.labels[label] = (len(self.items) - 1, len(self.last) + self.zeros)
  def export(self, name: str) -> None:
    """A label that other objects see."""
    self.label(name)
    self.exported.append(name)

  def branch(self, name: str, *operands: Any) -> None:
    """A branch (rs1, rs2, label) or jal (rd, label) of any distance."""
    self.items += [Jump(ROWS[name], operands[:-1], operands[-1]), bytearray()]
  def jump(self, label: Label) -> None: self.branch("jal", 0, label)
  def table(self, labels: Iterable[Label]) -> None:
    """A jump of four bytes to each label."""
    for label in labels: self.items += [Jump(ROWS["jal"], (0,), label, 4, True), bytearray()]
  def call(self, symbol: str) -> None: self.branch("jal", RA, symbol)

  def relocate(self, kind: int, symbol: str, addend: int = 0) -> None:
    self.wanted.append((len(self.items) - 1, Relocation(len(self.last), kind, symbol, addend)))
  def number(self, rd: int, value: int) -> None:
    steps = load_number(rd, value)
    if len(steps) > 3 and self.constants is not None: return self.access("ld", rd, rd, self.constants.constant(value))
    for name, operands in steps: self.emit(name, *operands)
  def constant(self, value: int) -> str:
    """The label of eight bytes that hold a number."""
    label = f".Lnumber{value & (1 << 64) - 1:x}"
    if label not in self.labels:
      self.label(label)
      self.data(struct.pack("<Q", value & (1 << 64) - 1))
    return label
  def upper(self, kind: int, rd: int, symbol: str, addend: int = 0) -> str:
    """auipc: all but the low 12 bits of the distance to a symbol, or to what holds it. The label that the instruction
    with the low bits needs."""
    here = f".Lhigh{len(self.labels)}"
    self.label(here)
    self.relocate(kind, symbol, addend)
    self.last.extend(ROWS["auipc"].encode(rd, 0))
    return here
  def address(self, rd: int, symbol: str, addend: int = 0) -> None:
    """rd = the address of a symbol (the pseudo-instruction la)."""
    self.relocate(LOW, self.upper(HIGH, rd, symbol, addend))
    self.last.extend(ROWS["addi"].encode(rd, rd, 0))
  def access(self, row: str, register: int, through: int, symbol: str, addend: int = 0) -> None:
    """A load or store at the address of a symbol."""
    self.relocate(LOW_STORE if row in STORES else LOW, self.upper(HIGH, through, symbol, addend))
    self.last.extend(ROWS[row].encode(register, 0, through))
  def thread_address(self, rd: int, symbol: str) -> None:
    """rd = the address of a symbol of this thread's (la.tls.ie, then tp added)."""
    self.relocate(LOW, self.upper(HIGH_THREAD, rd, symbol))
    self.last.extend(ROWS["ld"].encode(rd, 0, rd))
    self.emit("add", rd, rd, TP)

  def data(self, data: bytes) -> None: self.last.extend(data)
  def pointer(self, symbol: str, addend: int = 0) -> None:
    """Eight bytes that hold the address of a symbol."""
    self.relocate(ABSOLUTE, symbol, addend)
    self.data(bytes(8))
  def align(self, n: int) -> None:
    """Only where no jump comes before, as in data."""
    assert len(self.items) == 1, "a place behind jumps is not known yet"
    self.alignment = max(self.alignment, n)
    self.fill(-(len(self.last) + self.zeros) % n)
  def fill(self, n: int) -> None:
    """Zeros, which a section that holds nothing else only counts."""
    if self.name in NO_BITS: self.zeros += n
    else: self.data(bytes(n))

  def finish(self) -> Assembled:
    """Jumps start at their shortest and grow until all reach; what grew stays."""
    jumps = [(k, item) for k, item in enumerate(self.items) if isinstance(item, Jump)]
    size = [item.size if isinstance(item, Jump) else len(item) for item in self.items]
    for k, jump in jumps:
      if jump.label not in self.labels: size[k] = 8                  # another object's: for the linker
    near = [(k, jump, *self.labels[jump.label]) for k, jump in jumps if jump.label in self.labels]
    while True:
      start = positions(size)
      codes = [(k, jump.code(start[item] + offset - start[k], size[k])) for k, jump, item, offset in near]
      grown = [(k, code) for k, code in codes if len(code) > size[k]]
      if not grown: break
      for k, code in grown: size[k] = len(code)
      if any(self.items[k].is_entry for k, _ in grown):  # type: ignore
        raise ValueError("a table jumps further than 1 MiB")
    relocations = [r._replace(at=r.at + start[item]) for item, r in self.wanted]
    pieces = [b"" if isinstance(item, Jump) else bytes(item) for item in self.items]
    for k, jump in jumps:
      if jump.label in self.labels: continue
      pieces[k] = jump.far_code(0)
      relocations.append(Relocation(start[k], CALL, jump.label))
    for k, code in codes: pieces[k] = code
    labels = {label: start[item] + offset for label, (item, offset) in self.labels.items()}
    return Assembled(self.name, b"".join(pieces), labels, relocations, self.exported, self.alignment, self.zeros)

def positions(sizes: Iterable[int]) -> list[int]:
  """Where each of the pieces starts that follow each other, and where the last one ends."""
  return [0, *accumulate(sizes)]

class Assembled(NamedTuple):
  """A section whose code is final. labels: label -> offset. zeros: bytes of a section without data."""
  name: str
  data: bytes
  labels: dict[Label, int]
  relocations: list[Relocation]
  exported: list[str]
  alignment: int
  zeros: int = 0

  def symbols(self) -> dict[str, int]: return {label: at for label, at in self.labels.items() if isinstance(label, str)}

def instructions(code: bytes) -> Iterator[tuple[int, Row, tuple[int, ...]]]:
  """(offset, row, operands) of each instruction."""
  at = 0
  while at < len(code):
    row, operands = decode(code, at)
    yield at, row, operands
    at += row.size

def disassemble(code: bytes, base: int = 0) -> list[tuple[int, str]]:
  """(address, text) of each instruction."""
  return [(base + at, row.text(operands)) for at, row, operands in instructions(code)]

# ---- an image for emulation ------------------------------------------------------------------------------------------

def patch(code: bytearray, at: int, name: str, value: int) -> None:
  """ORs an immediate into the instruction of this row."""
  bits = ROWS[name].encode(0, *IMMEDIATE[name](value))
  word = int.from_bytes(code[at:at + 4], "little") | int.from_bytes(bits, "little")
  code[at:at + 4] = word.to_bytes(4, "little")

IMMEDIATE = {"auipc": lambda v: (split_offset(v)[0],), "addi": lambda v: (0, split_offset(v)[1]),
             "sd": lambda v: (split_offset(v)[1], 0), "jalr": lambda v: (split_offset(v)[1], 0)}

def link(sections: Sequence[Assembled], base: int, outside: dict[str, int]) -> tuple[bytes, dict[str, int]]:
  """The sections in one piece at an address, and where their symbols are. outside: symbols defined elsewhere."""
  image, starts = bytearray(), []
  for s in sections:
    image.extend(bytes(-len(image) % s.alignment))
    starts.append(base + len(image))
    image.extend(s.data)
  symbols = {name: start + at for start, s in zip(starts, sections) for name, at in s.symbols().items()}
  known = {**outside, **symbols}
  for start, s in zip(starts, sections):
    highs = {at: r for r in s.relocations if r.kind == HIGH for at in [start + r.at]}
    for r in s.relocations:
      if r.symbol not in known: raise ValueError(f"nothing defines the symbol {r.symbol}")
      here, target = start + r.at, known[r.symbol] + r.addend
      at = here - base
      if r.kind == ABSOLUTE: image[at:at + 8] = (target & (1 << 64) - 1).to_bytes(8, "little")
      elif r.kind in (LOW, LOW_STORE):
        high = highs[target]
        patch(image, at, "addi" if r.kind == LOW else "sd", known[high.symbol] + high.addend - target)
      else:
        patch(image, at, "auipc", target - here)
        if r.kind == CALL: patch(image, at + 4, "jalr", target - here)
  return bytes(image), symbols

# ---- a relocatable object --------------------------------------------------------------------------------------------

# SHF_WRITE 1, ALLOC 2, EXECINSTR 4, TLS 0x400
FLAGS = {".text": 6, ".rodata": 2, ".rodata.cst8": 2, ".tdata": 0x403, ".tbss": 0x403}
WRITABLE = 3                                                         # any other section
PROGBITS, SYMTAB, STRTAB, RELA, NOBITS = 1, 2, 3, 4, 8
FUNCTION, THREAD_LOCAL = 2, 6                                        # STT_FUNC, STT_TLS
GLOBAL, WEAK = 1, 2                                                  # STB_GLOBAL, STB_WEAK
RVC_DOUBLE = 5                                                       # e_flags: compressed code, floats in registers

class Strings:
  """A string table: add gives the offset of a name."""
  def __init__(self) -> None: self.data = bytearray(1)
  def add(self, name: str) -> int:
    self.data.extend(name.encode() + b"\0")
    return len(self.data) - len(name.encode()) - 1

class Body(NamedTuple):
  """A section of the file. link, info, entry: as its kind needs."""
  name: str
  kind: int
  flags: int
  data: bytes
  link: int = 0
  info: int = 0
  align: int = 1
  entry: int = 0
  zeros: int = 0

def body_of(s: Assembled) -> Body:
  return Body(s.name, NOBITS if s.zeros else PROGBITS, FLAGS.get(s.name, WRITABLE), s.data, align=s.alignment,
              zeros=s.zeros)

def write_object(sections: Sequence[Assembled], weak: Container[str] = (), thread_local: Container[str] = ()) -> bytes:
  """An ELF64 relocatable object that GNU ld links. weak, thread_local: symbols that are so."""
  names, symbol_names = Strings(), Strings()
  rows = symbol_rows(sections, weak, thread_local)
  local_count = 1 + sum(not row.binding for row in rows)
  n = len(sections)
  bodies = [body_of(s) for s in sections]
  number = {row.name: k + 1 for k, row in enumerate(rows)}
  table = bytes(24) + b"".join(row.entry(symbol_names.add(row.name)) for row in rows)
  for k, s in enumerate(sections):
    places = [struct.pack("<QQq", r.at, number[r.symbol] << 32 | r.kind, r.addend) for r in s.relocations]
    bodies.append(Body(".rela" + s.name, RELA, 0x40, b"".join(places), 2 * n + 1, k + 1, 8, 24))
  bodies.append(Body(".symtab", SYMTAB, 0, table, 2 * n + 2, local_count, 8, 24))
  bodies.append(Body(".strtab", STRTAB, 0, bytes(symbol_names.data)))
  offsets = [names.add(body.name) for body in bodies] + [names.add(".shstrtab")]
  bodies.append(Body(".shstrtab", STRTAB, 0, bytes(names.data)))
  out, headers = bytearray(64), [bytes(64)]
  for offset, b in zip(offsets, bodies):
    out.extend(bytes(-len(out) % b.align))
    place = (len(out), b.zeros or len(b.data))
    headers.append(struct.pack("<IIQQQQIIQQ", offset, b.kind, b.flags, 0, *place, b.link, b.info, b.align, b.entry))
    out.extend(b.data)
  out.extend(bytes(-len(out) % 8))
  ident = b"\x7fELF\2\1\1" + bytes(9)
  out[:64] = ident + struct.pack("<HHIQQQIHHHHHH", 1, 243, 1, 0, 0, len(out), RVC_DOUBLE, 64, 0, 0, 64, len(headers),
                                 len(headers) - 1)
  return bytes(out) + b"".join(headers)

class Symbol(NamedTuple):
  """section: its number, 0 for what another object defines. binding: 0 if only this object sees it."""
  name: str
  section: int
  at: int
  binding: int
  kind: int

  def entry(self, name: int) -> bytes:
    return struct.pack("<IBBHQQ", name, self.binding << 4 | self.kind, 0, self.section, self.at, 0)

def symbol_rows(sections: Sequence[Assembled], weak: Container[str], thread_local: Container[str]) -> list[Symbol]:
  """The symbols that sections define and mention, local ones first."""
  def symbol(name: str, section: int, at: int, is_global: bool) -> Symbol:
    in_text = section and sections[section - 1].name == ".text" and not name.startswith(".L")
    kind = THREAD_LOCAL if name in thread_local else FUNCTION if in_text else 0
    return Symbol(name, section, at, 0 if not is_global else WEAK if name in weak else GLOBAL, kind)
  exported = {name for s in sections for name in s.exported}
  rows = {name: symbol(name, k + 1, at, name in exported)
          for k, s in enumerate(sections) for name, at in s.symbols().items()}
  for s in sections:
    for r in s.relocations:
      if r.symbol not in rows: rows[r.symbol] = symbol(r.symbol, 0, 0, True)
  return sorted(rows.values(), key=lambda row: row.binding > 0)
