# python.py: an interpreter of placed Functions: the definition of the flat IR, in Python. A value is a Python number
# (bool, int, float), a vector a tuple of them. Memory is the callers' byte arrays; each has its own range of made-up
# addresses, so that a stray access is an IndexError that names the kernel and the address, never a wrong number.
from __future__ import annotations
import ast, itertools
from typing import Any, Callable, Sequence
import numpy as np
from picograd.codegen.flat import Convention, Function, LEAVES, entry, every_node, incoming, operands, phi
from picograd.codegen.target import PYTHON
from picograd.dtype import DType, dtypes, fused_multiply_add, lookup, pack, truncate, unpack
from picograd.ops.ops import ALU, Buf, COMPARE, INFO, Ops, Space
from picograd.ops.uop import UOp, toposort
from picograd.runtime.device import HostDevice

# ---- a Function as text: a line per node (op, dtype, lanes, source lines, arg), then a line that names the blocks ----

def write_text(functions: Sequence[Function]) -> str:
  """Functions as lines of Python literals. Labels and buffers are renumbered: equal functions give equal text."""
  lines = []
  for fn in functions:
    nodes = toposort([u for label, block in fn.blocks.items() for u in (label, *block)])
    number = {u: k for k, u in enumerate(nodes)}
    renamed = itertools.count()
    lines += [repr(node_row(u, number, renamed)) for u in nodes]
    layout = [[number[u] for u in (label, *block)] for label, block in fn.blocks.items()]
    lines.append(repr(("FUNCTION", fn.name, [dt.name for dt in fn.params], fn.result.name, fn.threads, layout)))
  return "\n".join(lines)

def node_row(u: UOp, number: dict[UOp, int], renamed: "itertools.count[int]") -> tuple:
  arg: Any = u.arg
  if u.op is Ops.LABEL: arg = next(renamed)
  elif u.op is Ops.BUFFER: arg = (next(renamed), u.arg.size, int(u.arg.space))
  elif u.op is Ops.REDUCE: arg = u.arg[0].name
  elif u.op is Ops.CALL: arg = (arg.fixed, [dt.name for dt in arg.results], arg.memory)
  elif isinstance(arg, float): arg = arg.hex()
  return u.op.name, u.dtype.name, u.dtype.count, [number[s] for s in u.src], arg

def read_text(text: str) -> list[Function]:
  """The functions that write_text wrote."""
  functions: list[Function] = []
  nodes: list[UOp] = []
  for line in text.split("\n"):
    row = ast.literal_eval(line)
    if row[0] != "FUNCTION": nodes.append(read_node(row, nodes))
    else:
      _, name, params, result, threads, layout = row
      blocks = {nodes[label]: [nodes[k] for k in block] for label, *block in layout}
      functions.append(Function(name, [lookup(p, 1) for p in params], blocks, lookup(result, 1), threads))
      nodes = []
  return functions

def read_node(row: tuple, nodes: list[UOp]) -> UOp:
  op, dtype, arg = Ops[row[0]], lookup(row[1], row[2]), row[4]
  if op is Ops.BUFFER: arg = Buf(arg[0], arg[1], Space(arg[2]))
  elif op is Ops.REDUCE: arg = (Ops[arg], ())
  elif op is Ops.CALL: arg = Convention(arg[0], tuple([lookup(name, 1) for name in arg[1]]), arg[2])
  elif op is Ops.CONST and dtype.kind == "f": arg = float.fromhex(arg)
  return UOp(op, dtype, tuple([nodes[k] for k in row[3]]), arg)

# ---- what the ops mean on numbers of a dtype -------------------------------------------------------------------------

def shift(op: Ops, x: int, count: int, bits: int) -> int:
  """Arithmetic on signed, logical on unsigned; every count that is not below the width shifts everything out."""
  if not 0 <= count < bits: return 0 if op is Ops.SHL else x >> bits
  return x << count if op is Ops.SHL else x >> count

def meaning(u: UOp) -> Callable[..., Any]:
  """The Python function of an ALU node on scalars: what ops.INFO says, brought back into the node's dtype."""
  op, known = u.op, INFO[u.op].meaning
  dtype = dtypes.uint64 if u.dtype is dtypes.ptr else u.dtype.scalar
  if op is Ops.BITCAST:
    source = u.src[0].dtype.scalar
    return lambda x: unpack(pack(x, source), dtype)
  if op is Ops.MULACC and dtype.kind == "f": return lambda x, y, z: fused_multiply_add(x, y, z, dtype)
  if op in (Ops.SHL, Ops.SHR): return lambda x, count: truncate(shift(op, x, count, dtype.bits), dtype)
  assert known is not None, f"{op} has no meaning on numbers"
  if op in COMPARE or op in (Ops.WHERE, Ops.MAX): return known       # the result is an operand or a bool
  return lambda *values: truncate(known(*values), dtype)

# ---- memory ----------------------------------------------------------------------------------------------------------

SEGMENT = 40          # bits of an address within one array: array k starts at k << SEGMENT

class Memory:
  """Arrays by number. An access outside of one is an IndexError."""
  def __init__(self, name: str):
    self.name = name
    self.arrays: dict[int, memoryview] = {}
    self.numbers = itertools.count(1)

  def add(self, data: Any) -> int:
    """The address of an array's first byte. An empty one still has an element 0, which gated loads read and drop."""
    k = next(self.numbers)
    self.arrays[k] = memoryview(data if len(data) else bytes(16))
    return k << SEGMENT
  def remove(self, address: int) -> None: del self.arrays[address >> SEGMENT]

  def span(self, address: int, nbytes: int) -> memoryview:
    array = self.arrays.get(address >> SEGMENT)
    offset = address & ((1 << SEGMENT) - 1)
    if array is None or offset + nbytes > len(array):
      where = "in no array" if array is None else f"byte {offset} of an array of {len(array)} bytes"
      raise IndexError(f"kernel {self.name}: access of {nbytes} bytes at address {address:#x}, {where}")
    return array[offset:offset + nbytes]
  def read(self, address: int, dtype: DType) -> Any:
    return unpack(self.span(address, dtype.itemsize), dtype)
  def write(self, address: int, dtype: DType, value: Any) -> None:
    self.span(address, dtype.itemsize)[:] = pack(value, dtype)

# ---- running ---------------------------------------------------------------------------------------------------------

Values = list[Any]                     # one place per node of a function
Step = Callable[[Values], None]
Leave = Callable[[Values], "UOp | None"]           # the end of a block: gives the next one, or None after a RET

class Routine:
  """A Function made ready to run: every node has a place in a list of values, every step knows its places."""
  def __init__(self, fn: Function, program: PythonProgram):
    self.fn, self.program, self.memory = fn, program, program.memory
    nodes = toposort([*every_node(fn), *incoming(fn)])
    self.place = {u: k for k, u in enumerate(nodes)}
    self.initial: Values = [None] * (len(nodes) + 1)                 # the last place holds the result
    self.slots = [u for u in nodes if u.op is Ops.BUFFER]
    self.params = [u for u in nodes if u.op is Ops.PARAM]
    for u, k in self.place.items():
      if u.op is Ops.CONST: self.initial[k] = u.arg
      elif u.op is Ops.SYM: self.initial[k] = program.addresses.get(u.arg, 0)
    self.blocks: dict[UOp, tuple[list[Step], Leave]] = {}

  def prepare(self) -> None:
    for label, block in self.fn.blocks.items():
      steps = [self.step(u) for u in block[:-1] if u.op not in LEAVES]
      self.blocks[label] = steps, self.leaves[block[-1].op](self, block[-1])

  def run(self, arguments: Sequence[Any]) -> Any:
    values = self.initial.copy()
    for u in self.params: values[self.place[u]] = arguments[u.arg]
    for u in self.slots:
      nbytes = u.arg.size * u.dtype.itemsize
      values[self.place[u]] = self.memory.add(bytearray(nbytes))
    at: UOp | None = entry(self.fn)
    while at is not None:
      steps, leave = self.blocks[at]
      self.program.count(len(steps))
      for step in steps: step(values)
      at = leave(values)
    for u in self.slots: self.memory.remove(values[self.place[u]])
    return values[-1]

  # one function per op: from the node to what it does with the values

  def step(self, u: UOp) -> Step:
    if u.op in self.makers: return self.makers[u.op](self, u)
    if u.op in ALU: return self.alu(u)
    raise ValueError(f"kernel {self.fn.name}: {u.op} is no flat operation")

  def places(self, u: UOp) -> tuple[int, list[int]]:
    """Where the value of a node goes, and where those of its operands are."""
    return self.place[u], [self.place[s] for s in operands(u)]

  def alu(self, u: UOp) -> Step:
    if u.dtype.count > 1: return self.vector_alu(u)
    function, (to, src) = meaning(u), self.places(u)
    def run(values: Values) -> None: values[to] = function(*[values[a] for a in src])
    return run

  def vector_alu(self, u: UOp) -> Step:
    function, (to, src), count = meaning(u), self.places(u), u.dtype.count
    scalar = [s.dtype.count == 1 for s in u.src]                     # which WHERE's condition may be
    def run(values: Values) -> None:
      columns = [(values[a],) * count if single else values[a] for a, single in zip(src, scalar)]
      values[to] = tuple(map(function, *columns))
    return run

  def stack(self, u: UOp) -> Step:
    to, src = self.places(u)
    def run(values: Values) -> None: values[to] = tuple([values[a] for a in src])
    def shuffle(values: Values) -> None:
      both = values[src[0]] + values[src[1]]
      values[to] = tuple([both[k] for k in u.arg])
    return run if u.arg is None else shuffle

  def lane(self, u: UOp) -> Step:
    to, (vector, k) = self.places(u)
    def run(values: Values) -> None: values[to] = values[vector][values[k]]
    return run

  def reduce(self, u: UOp) -> Step:
    """Upper half with lower half until one lane is left."""
    to, (vector,) = self.places(u)
    function = meaning(UOp(u.arg[0], u.dtype, (UOp.const(u.dtype, 0),) * 2))
    def run(values: Values) -> None:
      lanes = values[vector]
      while len(lanes) > 1:
        half = len(lanes) // 2
        lanes = list(map(function, lanes[:half], lanes[half:]))
      values[to] = lanes[0]
    return run

  def load(self, u: UOp) -> Step:
    """Lane by lane; one whose gate is closed is 0."""
    to, (at, *gate) = self.places(u)
    scalar, size, memory = u.dtype.scalar, u.dtype.scalar.itemsize, self.memory
    is_open, off = (True,) * u.dtype.count, truncate(0, scalar)
    def run(values: Values) -> None:
      address, gates = values[at], values[gate[0]] if gate else is_open
      lanes = [memory.read(address + k * size, scalar) if on else off for k, on in enumerate(gates)]
      values[to] = lanes[0] if len(lanes) == 1 else tuple(lanes)
    return run

  def store(self, u: UOp) -> Step:
    _, (at, source, *gate) = self.places(u)
    dtype, memory = u.src[1].dtype, self.memory
    scalar, size, is_open = dtype.scalar, dtype.scalar.itemsize, (True,) * dtype.count
    def run(values: Values) -> None:
      lanes = values[source] if dtype.count > 1 else (values[source],)
      for k, on in enumerate(values[gate[0]] if gate else is_open):
        if on: memory.write(values[at] + k * size, scalar, lanes[k])
    return run

  def call(self, u: UOp) -> Step:
    callee = u.src[0]
    to, (target, *src) = self.places(u)
    name = callee.arg if callee.op is Ops.SYM else "a function pointer"
    def run(values: Values) -> None:
      routine = self.program.routines.get(values[target])
      if routine is None: raise IndexError(f"kernel {self.fn.name}: call of {name}, which this program does not define")
      values[to] = routine.run([values[a] for a in src])
    return run

  def jump(self, u: UOp) -> Leave:
    label, *passed = u.src
    src = [self.place[s] for s in passed]
    to = [self.place[phi(label, k, s.dtype)] for k, s in enumerate(passed)]
    def run(values: Values) -> UOp:
      together = [values[a] for a in src]                            # all at once: a parameter may be another's value
      for a, value in zip(to, together): values[a] = value
      return label
    return run

  def branch(self, u: UOp) -> Leave:
    condition, yes, no = u.src
    place = self.place[condition]
    return lambda values: yes if values[place] else no

  def switch(self, u: UOp) -> Leave:
    index, *targets = u.src
    place = self.place[index]
    return lambda values: targets[values[place]]

  def ret(self, u: UOp) -> Leave:
    _, src = self.places(u)
    def run(values: Values) -> None:
      for a in src: values[-1] = values[a]
    return run

  makers = {Ops.STACK: stack, Ops.INDEX: lane, Ops.REDUCE: reduce, Ops.LOAD: load, Ops.STORE: store, Ops.CALL: call}
  leaves = {Ops.JUMP: jump, Ops.BRANCH: branch, Ops.SWITCH: switch, Ops.RET: ret}

class PythonProgram:
  """The first function is what a call runs, once per thread; the others are what it calls."""
  step_limit = 1 << 40                 # nodes computed before the program counts as endless

  def __init__(self, name: str, functions: Sequence[Function]):
    self.memory, self.steps, self.name = Memory(name), 0, name
    self.addresses = {fn.name: 16 * (k + 1) for k, fn in enumerate(functions)}
    self.routines = {self.addresses[fn.name]: Routine(fn, self) for fn in functions}
    for routine in self.routines.values(): routine.prepare()
    self.first = next(iter(self.routines.values()))

  def count(self, steps: int) -> None:
    self.steps += steps + 1
    if self.steps > self.step_limit: raise RuntimeError(f"kernel {self.name} did not end after {self.step_limit} steps")

  def run(self, *arguments: Any) -> Any:
    """The result of the first function; arrays among the arguments become pointers."""
    self.steps = 0
    passed = [self.memory.add(a) if isinstance(a, np.ndarray) else a for a in arguments]
    try: return self.first.run(passed)
    finally: self.memory.arrays.clear()

  def __call__(self, memory: list[np.ndarray]) -> None:
    for thread in range(self.first.fn.threads): self.run(*memory, thread)

class PythonDevice(HostDevice):
  target = PYTHON
  def render(self, kernel: Function) -> str: return write_text([kernel])
  def compile(self, source: str) -> bytes: return source.encode()
  def load(self, name: str, binary: bytes) -> PythonProgram:
    return PythonProgram(name, read_text(binary.decode()))
  def cache_key(self, source: str) -> bytes: return source.encode()

def open_device(name: str) -> PythonDevice: return PythonDevice(name)
