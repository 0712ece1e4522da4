# rvemit.py: a selected function is placed, gets registers and a frame, and is written into a section of code.
from __future__ import annotations
from collections import Counter
from itertools import takewhile
from typing import Any, Callable, Iterable
from picograd.codegen.flat import Flow, Function, operands, phi, successors
from picograd.codegen.place import place, separate_cases
from picograd.codegen.regalloc import (Allocation, Liveness, Place, Slot, allocate, bank_of, coalescing_hints,
                                       in_sequence)
from picograd.codegen.rvabi import (F0, FLOAT_SAVED, FT10, FT11, FT9, INT_SAVED, SPILLING, A0, S0, T1, T4, T5, T6, V0,
                                    V24, V26, V28, V30, Incoming, Outgoing, abi_hints, argument_places, banks,
                                    parameters, result_places, variable_arguments)
from picograd.codegen.rvasm import DYNAMIC, ROWS, Row
from picograd.codegen.rvobject import INVERSE, RA, SP, STORES, Section, load_number, signed
from picograd.codegen.rvrules import LOADS
from picograd.codegen.rvv import Lanes, vector_type
from picograd.codegen.rvvalue import INT, VARIABLE_ARGUMENTS, class_of, in_float
from picograd.dtype import dtypes
from picograd.ops.ops import Ops
from picograd.ops.uop import UOp

def arrangement(row: Row) -> Callable[..., list[int]]:
  """(result, sources, number) -> the row's operands in their order. Rounding is as the mode says unless number does."""
  letters, source = [], 0
  for name, f in zip(row.names, row.fields):
    if name in ("rd", "fd"): letters.append("d")
    elif name == "vd": letters.append("d")
    elif f.kind == "m": letters.append("1")                          # all lanes
    elif f.kind in "xfv":
      letters.append(f"s[{source}]")
      source += 1
    else: letters.append(f"({DYNAMIC} if n is None else n)" if f.kind == "r" else "n")
  return eval(f"lambda d, s, n: [{', '.join(letters)}]")

ARRANGE = {name: arrangement(row) for name, row in ROWS.items() if row.expands is None}
REPEATABLE = frozenset({"li", "float.s", "float.d", "frame", "la"})
def is_repeatable(u: UOp) -> bool: return u.op is Ops.INS and u.arg[0] in REPEATABLE

class Frame:
  """Offsets from the stack pointer, from below: stack arguments of calls, saved registers, slots, arrays; of a function
  with variable arguments, those that come in registers. base: where the stack pointer moves, s0 stays."""
  def __init__(self, fn: Function, allocation: Allocation):
    nodes = [u for block in fn.blocks.values() for u in block]
    calls = [u for u in nodes if u.op is Ops.CALL]
    arguments = [argument_places([a.dtype for a in operands(u)[1:]], Outgoing, u.arg.fixed) for u in calls]
    outgoing = max([sum(isinstance(p, Outgoing) for p in places) for places in arguments], default=0)
    used = {p for p in allocation.places.values() if isinstance(p, int)}
    rows = {u.arg[0] for u in nodes if u.op is Ops.INS}
    self.base = S0 if "alloca" in rows else SP
    if self.base == S0: used.add(S0)
    saved = [r for r in INT_SAVED + FLOAT_SAVED if r in used] + ([RA] if calls else [])
    self.outgoing = outgoing + outgoing % 2
    self.saved = {r: 8 * (self.outgoing + k) for k, r in enumerate(saved)}
    self.slots = 8 * (self.outgoing + len(saved))
    self.size = self.slots + 8 * allocation.slots
    self.arrays: dict[UOp, int] = {}
    for u in nodes:
      if u.op is not Ops.INS: continue
      if u.arg[0] in ("frame", "lanes"): self.add_array(u.arg[1])
      for s in u.src:
        if s.op is Ops.BUFFER: self.add_array(s)
    self.size = -(-self.size // 16) * 16
    taken = variable_arguments(fn.params)
    takes_row = VARIABLE_ARGUMENTS in nodes
    self.variable = range(taken, 8) if takes_row else range(0)
    if takes_row: self.size += 64
    self.first_variable = self.size - 64 + 8 * taken

  def add_array(self, u: UOp) -> None:
    if u in self.arrays: return
    self.size = -(-self.size // 16) * 16
    self.arrays[u] = self.size
    self.size += u.arg.size * u.dtype.itemsize

  def where(self, place: Place | Outgoing | Incoming) -> tuple[int, int]:
    """(offset, from which register)"""
    if isinstance(place, Slot): return self.slots + 8 * place.number, self.base
    if isinstance(place, Outgoing): return 8 * place.number, SP
    assert isinstance(place, Incoming)
    return self.size + 8 * place.number, self.base

ACCESSES = frozenset({*LOADS.values(), *STORES})

def addresses_of_accesses(fn: Function, flow: Flow) -> list[UOp]:
  """The addresses of symbols that cost no more as part of each load and store there, than in a register."""
  cost: Counter[UOp] = Counter()                                     # an instruction more for each access, two less
  for label, block in fn.blocks.items():
    weight = 10 ** min(flow.depth[label], 6)
    for u in block:
      if is_symbol(u): cost[u] -= 2 * weight
      *others, last = operands(u) or [u]
      is_access = u.op is Ops.INS and u.arg[0] in ACCESSES
      for s in operands(u):
        if is_symbol(s): cost[s] += weight if is_access and s is last and s not in others else FORBIDDEN
  return [u for u, total in cost.items() if total <= 0]

def is_symbol(u: UOp) -> bool: return u.op is Ops.INS and u.arg[0] == "la"

FORBIDDEN = 10 ** 9

def following_results(body: list[UOp], call: UOp) -> list[UOp]:
  """The nodes that take a call's several results."""
  rest = body[body.index(call) + 1:] if call.arg.results else []
  return list(takewhile(lambda u: u.op is Ops.INS and u.arg[0] == "result", rest))

class Emitter:
  """Places a selected function, allocates its registers and writes it into a section. notes: what to say, as a label,
  before an instruction's code."""
  def __init__(self, selected: Function, section: Section, notes: dict[UOp, str]):
    flow = Flow(selected)
    fn = place(separate_cases(selected, flow), flow)
    self.fn, self.section, self.notes = fn, section, notes
    hints = abi_hints(fn, coalescing_hints(fn))
    moves_stack = any(u.op is Ops.INS and u.arg[0] == "alloca" for block in fn.blocks.values() for u in block)
    fixed = frozenset({S0} if moves_stack else ())
    live = Liveness(fn, flow)
    self.allocation = allocate(live, banks(fixed), hints, is_repeatable)
    self.has_slots = any(not isinstance(p, int) for p in self.allocation.places.values())
    self.has_slots |= any(u.op is Ops.CALL and len(u.src) > 256 for block in fn.blocks.values() for u in block)
    if self.has_slots:
      self.allocation = allocate(live, banks(fixed | SPILLING), hints, is_repeatable)
    self.places = self.allocation.places
    self.places.update((u, u) for u in addresses_of_accesses(fn, flow))
    self.frame = Frame(fn, self.allocation)
    self.moves = {label: self.jump_moves(block[-1]) for label, block in fn.blocks.items()}
    self.names = {label: (fn.name, k) for k, label in enumerate(fn.blocks)}

  def write(self) -> None:
    if self.fn.is_local: self.section.label(self.fn.name)
    else: self.section.export(self.fn.name)
    self.prologue()
    written = [label for label in self.fn.blocks if self.destination(label) is label]
    for label, following in zip(written, [*written[1:], None]):
      *body, last = self.fn.blocks[label]
      self.section.label(self.names[label])
      self.lanes: Lanes | None = None                                # what vl and vtype are set for
      for u in body:
        if u in self.notes: self.section.label(("note", self.notes[u]))
        if u.op is Ops.CALL: self.call(u, following_results(body, u))
        elif u.arg[0] != "result": self.instruction(u, self.places.get(u))
      self.all_moves(self.moves[label])
      self.terminators[last.op](self, last, following)

  def destination(self, label: UOp) -> UOp:
    """Where a jump to a block ends up: blocks that do nothing but jump on are left out."""
    passed: set[UOp] = set()
    while label not in passed:                                       # a loop may do nothing
      passed.add(label)
      *body, last = self.fn.blocks[label]
      if body or last.op is not Ops.JUMP or self.moves[label]: break
      label = last.src[0]
    return label

  # addresses and moves

  def access(self, row: str, register: int, offset: int, base: int) -> None:
    """A load or store in the frame. t6 helps where the offset is large: it may be what is loaded, but not stored."""
    if -2048 <= offset < 2048: return self.section.emit(row, register & 31, offset, base)
    self.section.number(T6, offset)
    self.section.emit("add", T6, T6, base)
    self.section.emit(row, register & 31, 0, T6)

  def load(self, register: int, place: Any) -> None:
    if register >= V0: return self.access_vector("vle32.v", register, place)
    self.access("ld" if register < F0 else "fld", register, *self.frame.where(place))
  def store(self, register: int, place: Any) -> None:
    if register >= V0: return self.access_vector("vse32.v", register, place)
    self.access("sd" if register < F0 else "fsd", register, *self.frame.where(place))

  def access_vector(self, row: str, register: int, place: Any) -> None:
    """A whole group of the least size."""
    self.configure(Lanes(8, 32))
    offset, base = self.frame.where(place)
    self.section.number(T6, offset)
    self.section.emit("add", T6, T6, base)
    self.section.emit(row, register & 31, T6, 1)

  def configure(self, lanes: Lanes) -> None:
    """The instructions that follow work on so many lanes."""
    if self.lanes == lanes: return
    self.lanes = lanes
    if lanes.number < 32: return self.section.emit("vsetivli", 0, lanes.number, vector_type(lanes.bits))
    self.section.number(T6, lanes.number)
    self.section.emit("vsetvli", 0, T6, vector_type(lanes.bits))

  def move(self, to: Any, source: Any) -> None:
    """Between registers of either class, places of the frame, and from what is computed again."""
    if isinstance(to, int):
      if isinstance(source, int): self.copy(to, source)
      elif isinstance(source, UOp): self.compute(source, to)
      else: self.load(to, source)
    elif isinstance(source, int): self.store(source, to)
    else:
      through = V30 if getattr(source, "size", 1) > 1 else T5 if self.has_slots else T6
      if isinstance(source, UOp) and in_float(source.dtype): through = FT11
      self.move(through, source)
      self.store(through, to)

  def copy(self, to: int, source: int) -> None:
    if to >= V0: self.section.emit("vmv2r.v", to - V0, source - V0)
    elif to < F0 and source < F0: self.section.emit("addi", to, source, 0)
    elif to >= F0 and source >= F0: self.section.emit("fsgnj.d", to - F0, source - F0, source - F0)
    elif to < F0: self.section.emit("fmv.x.d", to, source - F0)
    else: self.section.emit("fmv.d.x", to - F0, source)

  def compute(self, u: UOp, to: int) -> None:
    """What a repeatable node or a constant is, into a register."""
    if u.op is Ops.CONST and u.dtype is INT: self.section.number(to, u.arg)
    elif u.op is Ops.CONST: self.float_bits(0, u.dtype.bits, to)                          # only +0.0 is one
    else: self.instruction(u, to)

  def all_moves(self, moves: Iterable[tuple[Any, Any]]) -> None:
    for to, source in in_sequence(moves, self.cycle_breaker): self.move(to, source)

  def cycle_breaker(self, place: Place) -> Place:
    """Where a value waits while the others of its cycle move. Slots may need t6 to be reached."""
    if not isinstance(place, int) or place < F0: return T4 if self.has_slots else T6
    return FT11 if place < V0 else V30

  def place(self, u: UOp) -> Place: return u if u.op is Ops.CONST else self.places[u]

  def jump_moves(self, u: UOp) -> list[tuple[Place, Place]]:
    if u.op is not Ops.JUMP: return []
    label, *values = u.src
    pairs = [(self.places.get(phi(label, k, v.dtype)), self.place(v)) for k, v in enumerate(values)]
    return [(to, source) for to, source in pairs if to is not None and to != source]

  # instructions

  def fetch(self, place: Any, scratch: int) -> int:
    """The register that holds what was in a slot, or is computed again."""
    self.move(scratch, place)
    return scratch & 31

  def read_all(self, sources: Iterable[UOp]) -> list[int]:
    """The registers in which an instruction finds its operands."""
    out = []
    for s in sources:
      place = self.places.get(s)
      if isinstance(place, int): out.append(place & 31)
      elif s.op is Ops.CONST: out.append(0)
      else: return self.read_slots(sources)
    return out

  def read_slots(self, sources: Iterable[UOp]) -> list[int]:
    """The same where some operand is in a slot or is computed again."""
    free = {"i": iter((T4, T5)), "f": iter((FT9, FT10, FT11)), "v": iter((V24, V26, V28))}
    out = []
    for s in sources:
      place = 0 if s.op is Ops.CONST else self.places[s]
      out.append(place & 31 if isinstance(place, int) else self.fetch(place, next(free[bank_of(s)])))
    return out

  def instruction(self, u: UOp, place: Place | None) -> None:
    """An instruction whose result goes to a place, if it has one."""
    if place is u: return                                            # computed where it is used
    row, number, *lanes = u.arg
    sources = operands(u)
    to = place if isinstance(place, int) else {"i": T5 if self.has_slots else T6, "f": FT11}.get(bank_of(u), V30)
    if lanes: self.vector_row(row, sources, number, to, lanes[0])
    elif row in ARRANGE: self.machine_row(row, sources, number, to)
    elif row.startswith("select"): self.select(row.removeprefix("select "), sources, to)
    elif row in self.stack_rows: self.stack_rows[row](self, sources, to)
    else: self.pseudos[row](self, number, to)
    if isinstance(place, Slot): self.store(to, place)

  def machine_row(self, row: str, sources: list[UOp], number: Any, to: int) -> None:
    if sources and sources[-1].op is Ops.BUFFER: return self.array_access(row, sources, number, to)
    if row in ACCESSES and self.places.get(sources[-1]) is sources[-1] and is_symbol(sources[-1]):
      value = self.read_all(sources[:-1])
      return self.section.access(row, value[0] if value else to & 31, T6, sources[-1].arg[1], number)
    self.section.emit(row, *ARRANGE[row](to & 31, self.read_all(sources), number))

  def vector_row(self, row: str, sources: list[UOp], number: Any, to: int, lanes: Lanes) -> None:
    if row == "lanes": return self.build_lanes(sources, number, to, lanes)
    registers = self.read_all(sources)
    self.configure(lanes)
    if row == "merge":
      self.section.emit("vmv1r.v", 0, registers[0])
      self.section.emit("vmerge.vvm", to & 31, *registers[1:])
    elif row.startswith("masked"):                                   # v0 is the mask; only a load writes a register
      self.section.emit("vmv1r.v", 0, registers[0])
      into = [to & 31] if row.startswith("masked vl") else []
      self.section.emit(row.removeprefix("masked "), *into, *registers[1:], 0)
    elif row.startswith("vfmacc"): self.multiply_add(row.removeprefix("vfmacc"), registers, to & 31)
    else: self.section.emit(row, *ARRANGE[row](to & 31, registers, number))

  def multiply_add(self, form: str, registers: list[int], to: int) -> None:
    """to = a*b + c, by the instruction that overwrites c or the one that overwrites a factor."""
    a, b, c = registers
    if to == c: return self.section.emit("vfmacc" + form, c, a, b, 1)
    if to == b: return self.section.emit("vfmadd" + form, b, a, c, 1)
    if to == a and form == ".vv": return self.section.emit("vfmadd.vv", a, b, c, 1)
    self.copy(to + V0, c + V0)
    self.section.emit("vfmacc" + form, to, a, b, 1)

  def build_lanes(self, sources: list[UOp], array: UOp, to: int, lanes: Lanes) -> None:
    """A vector from scalars, through memory."""
    offset, size = self.frame.arrays[array], lanes.bits // 8
    for k, s in enumerate(sources):
      register, = self.read_all([s])
      row = ("fsw" if size == 4 else "fsd") if in_float(s.dtype) else {1: "sb", 2: "sh", 4: "sw", 8: "sd"}[size]
      self.access(row, register, offset + k * size, self.frame.base)
    self.configure(lanes)
    self.section.number(T6, offset)
    self.section.emit("add", T6, T6, self.frame.base)
    self.section.emit(f"vle{lanes.bits}.v", to & 31, T6, 1)

  def array_access(self, row: str, sources: list[UOp], number: int, to: int) -> None:
    """A load or store in an array of the frame."""
    value = self.read_all(sources[:-1])
    offset, base = self.frame.arrays[sources[-1]] + number, self.frame.base
    if not -2048 <= offset < 2048:
      self.section.number(T6, offset)
      self.section.emit("add", T6, T6, base)
      offset, base = 0, T6
    self.section.emit(row, *ARRANGE[row](to & 31, [*value, base], offset))

  def select(self, branch: str, sources: list[UOp], to: int) -> None:
    """to = yes if the branch is taken, else no. What is not there yet is moved before or after the branch."""
    a, b = self.read_all(sources[:2])
    yes, no = map(self.place, sources[2:])
    end: Any = ("select", len(self.section.items))
    if yes == no: return self.move(to, yes) if to != yes else None
    if to == no: branch, yes, no = INVERSE[branch], no, yes
    if to != yes and to < F0 and to in (a, b):                       # what is compared must stay until it was
      other: Any = ("other", len(self.section.items))
      self.section.branch(branch, a, b, other)
      self.move(to, no)
      self.section.jump(end)
      self.section.label(other)
      self.move(to, yes)
    else:
      if to != yes: self.move(to, yes)
      self.section.branch(branch, a, b, end)
      self.move(to, no)
    self.section.label(end)

  def number(self, value: int, to: int) -> None: self.section.number(to, value)
  def address_of_array(self, array: UOp, to: int) -> None: self.frame_address(self.frame.arrays[array], to)
  def frame_address(self, offset: int, to: int) -> None:
    if offset < 2048: return self.section.emit("addi", to, self.frame.base, offset)
    self.section.number(to, offset)
    self.section.emit("add", to, to, self.frame.base)
  def first_variable(self, _: None, to: int) -> None: self.frame_address(self.frame.first_variable, to)
  def top_of_frame(self, _: int, to: int) -> None: self.frame_address(self.frame.size, to)
  def return_address(self, _: int, to: int) -> None:
    if RA in self.frame.saved: self.access("ld", to, self.frame.saved[RA], self.frame.base)
    else: self.copy(to, RA)
  def barrier(self, line: Any, to: int) -> None:
    """No code; debuggers are told where the code of a line begins."""
    if line is not None: self.section.label(("line", line, len(self.section.labels)))
  def address_of_symbol(self, name: str, to: int) -> None: self.section.address(to, name)
  def thread_address(self, name: str, to: int) -> None: self.section.thread_address(to, name)
  def single(self, bits: int, to: int) -> None: self.float_bits(bits, 32, to)
  def double(self, bits: int, to: int) -> None: self.float_bits(bits, 64, to)
  def float_bits(self, bits: int, width: int, to: int) -> None:
    """Also into an integer register: those take what is passed beyond eight floats."""
    if to < F0: return self.section.number(to, signed(bits, width))
    constants, value = self.section.constants, signed(bits, width)
    if constants is not None and len(load_number(T6, value)) > 1:
      return self.section.access("flw" if width == 32 else "fld", to - F0, T6, constants.constant(value))
    if bits: self.section.number(T6, value)
    self.section.emit("fmv.w.x" if width == 32 else "fmv.d.x", to - F0, T6 if bits else 0)

  pseudos: dict[str, Callable[[Emitter, Any, int], None]] = {
    "li": number, "frame": address_of_array, "la": address_of_symbol, "la.tls": thread_address, "float.s": single,
    "float.d": double, "variable arguments": first_variable, "barrier": barrier, "frame_address": top_of_frame,
    "return_address": return_address}

  # the stack pointer

  def alloca(self, sources: list[UOp], to: int) -> None:
    """So many bytes, rounded up to 16, above the stack arguments of calls."""
    size, = self.read_all(sources)
    self.section.emit("addi", T6, size, 15)
    self.section.emit("andi", T6, T6, -16)
    self.section.emit("sub", SP, SP, T6)
    self.section.emit("addi", to, SP, 8 * self.frame.outgoing)
  def save_stack(self, sources: list[UOp], to: int) -> None: self.section.emit("addi", to, SP, 0)
  def restore_stack(self, sources: list[UOp], to: int) -> None:
    saved, = self.read_all(sources)
    self.section.emit("addi", SP, saved, 0)

  stack_rows: dict[str, Callable[[Emitter, list[UOp], int], None]] = {
    "alloca": alloca, "stack_save": save_stack, "stack_restore": restore_stack}

  # calls and the ends of blocks

  def call(self, u: UOp, results: list[UOp]) -> None:
    target, *arguments = operands(u)
    to = argument_places([a.dtype for a in arguments], Outgoing, u.arg.fixed)
    moves = list(zip(to, map(self.place, arguments)))
    if target.op is not Ops.SYM: moves.append((T1, self.place(target)))
    self.all_moves(moves)
    if target.op is Ops.SYM: self.section.call(target.arg)
    else: self.section.emit("jalr", RA, 0, T1)
    if u in self.places: results = [u]
    kinds = u.arg.results or [r.dtype for r in results]
    sources = argument_places([class_of(dtype) for dtype in kinds], Slot, None)
    numbers = [r.arg[1] if r is not u else 0 for r in results]
    self.all_moves((self.places[r], sources[k]) for r, k in zip(results, numbers))

  def jump(self, u: UOp, following: UOp | None) -> None: self.go(u.src[0], following)
  def go(self, label: UOp, following: UOp | None) -> None:
    label = self.destination(label)
    if label is following: return
    first = self.fn.blocks[label][0]
    if first.op is not Ops.SWITCH or not isinstance(first.arg, str): return self.section.jump(self.names[label])
    self.section.emit("jalr", 0, 0, *self.read_all(operands(first)))               # as short as a jump to it

  def branch(self, u: UOp, following: UOp | None) -> None:
    a, b = self.read_all(operands(u))
    yes, no = map(self.destination, successors([u]))
    if yes is following: self.section.branch(INVERSE[u.arg], a, b, self.names[no])
    else:
      self.section.branch(u.arg, a, b, self.names[yes])
      self.go(no, following)

  def ret(self, u: UOp, following: UOp | None) -> None:
    self.all_moves(zip(result_places(u.src), map(self.place, u.src)))
    self.epilogue()

  def switch(self, u: UOp, following: UOp | None) -> None:
    """Into the table that follows: auipc, add and jalr are ten bytes."""
    index, = self.read_all(operands(u))
    if isinstance(u.arg, str):
      self.section.emit("jalr", 0, 0, index)
      self.section.label(u.arg)
    else:
      self.section.last.extend(ROWS["auipc"].encode(T6, 0))
      self.section.emit("add", T6, T6, index)
      self.section.last.extend(ROWS["jalr"].encode(0, 10 + u.arg, T6))
    self.section.table(self.names[self.destination(label)] for label in successors([u]))

  terminators = {Ops.JUMP: jump, Ops.BRANCH: branch, Ops.SWITCH: switch, Ops.RET: ret}

  def adjust_stack(self, by: int) -> None:
    if not by: return
    if -2048 <= by < 2048: return self.section.emit("addi", SP, SP, by)
    self.section.number(T6, by)
    self.section.emit("add", SP, SP, T6)

  def prologue(self) -> None:
    self.adjust_stack(-self.frame.size)
    for r, offset in self.frame.saved.items(): self.access("sd" if r < F0 else "fsd", r, offset, SP)
    if self.frame.base != SP: self.section.emit("addi", S0, SP, 0)
    for k in self.frame.variable: self.access("sd", A0 + k, self.frame.size - 64 + 8 * k, SP)
    params = parameters(self.fn)
    places = argument_places([p.dtype for p in params], Incoming, None)
    pairs = [(p, source) for p, source in zip(params, places) if p in self.places]
    self.all_moves((self.places[p], source) for p, source in pairs)
    for p, source in pairs:
      if p.dtype is dtypes.float32 and not (isinstance(source, int) and source >= F0): self.box(self.places[p])

  def box(self, place: Place) -> None:
    """A float32 that did not come in a float register: callers leave its upper half open."""
    if isinstance(place, int):
      self.section.emit("fmv.x.w", T6, place - F0)
      self.section.emit("fmv.w.x", place - F0, T6)
    else:
      self.access("flw", FT11, *self.frame.where(place))
      self.store(FT11, place)

  def epilogue(self) -> None:
    if self.frame.base != SP: self.section.emit("addi", SP, S0, 0)
    for r, offset in self.frame.saved.items(): self.access("ld" if r < F0 else "fld", r, offset, SP)
    self.adjust_stack(self.frame.size)
    self.section.emit("jalr", 0, 0, RA)
