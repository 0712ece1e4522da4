# llvmir.py: a placed Function as LLVM IR text, one table row per op. Out: a module with the function, and for a kernel
# an entry `NAME_entry(ptr %table, i64 %thread)` that reads the pointers from a table; its attribute "threads" says how
# many threads run it. Numbers are as PYTHON defines them: no fast-math flags, no poison, no trap that the program did
# not ask for. bool is i1 in registers and a byte in memory; bfloat16 is its 16 bits, since arithmetic on it was lowered
# to float32. The text depends on the graph alone, never on ids: equal kernels share a cache entry.
from __future__ import annotations
import itertools, math, struct
from dataclasses import replace
from typing import Sequence
from picograd.dtype import DType, dtypes
from picograd.helpers import ceildiv
from picograd.ops.ops import Fetch, Ops, Space, Streaming
from picograd.ops.uop import Table, UOp, toposort
from picograd.codegen.flat import Convention, Function, entry, every_node, incoming

# op -> {kinds of the first operand, of WHERE's second: instructions}. {d} is the result, {d}a and {d}b are temporaries,
# {0} {1} {2} the operands, {t} the result's type, {s} the first operand's, {b} bool with as many lanes, {m} how
# intrinsics spell {t}, {n} NaN.
ROWS: dict[Ops, dict[str, str]] = {
  Ops.ADD: {"iu": "{d} = add {t} {0}, {1}", "f": "{d} = fadd {t} {0}, {1}", "b": "{d} = or {t} {0}, {1}",
            "p": "{d} = getelementptr i8, ptr {0}, i64 {1}"},
  Ops.MUL: {"iu": "{d} = mul {t} {0}, {1}", "f": "{d} = fmul {t} {0}, {1}", "b": "{d} = and {t} {0}, {1}"},
  Ops.FDIV: {"f": "{d} = fdiv {t} {0}, {1}"},
  Ops.IDIV: {"i": "{d} = sdiv {t} {0}, {1}", "ub": "{d} = udiv {t} {0}, {1}"},
  Ops.MOD: {"i": "{d} = srem {t} {0}, {1}", "ub": "{d} = urem {t} {0}, {1}"},
  Ops.SQRT: {"f": "{d} = call {t} @llvm.sqrt.{m}({t} {0})"},
  # the first if they are equal, NaN if either is: x86 makes max, compare, blend of it
  Ops.MAX: {"f": "{d}a = fcmp ogt {t} {1}, {0}\n{d}b = select {b} {d}a, {t} {1}, {t} {0}\n"
                 "{d}c = fcmp uno {t} {1}, {1}\n{d} = select {b} {d}c, {t} {n}, {t} {d}b",
            "i": "{d}a = icmp sgt {t} {0}, {1}\n{d} = select {b} {d}a, {t} {0}, {t} {1}",
            "u": "{d}a = icmp ugt {t} {0}, {1}\n{d} = select {b} {d}a, {t} {0}, {t} {1}", "b": "{d} = or {t} {0}, {1}"},
  Ops.CMPLT: {"f": "{d} = fcmp olt {s} {0}, {1}", "i": "{d} = icmp slt {s} {0}, {1}",
              "ubp": "{d} = icmp ult {s} {0}, {1}"},
  Ops.CMPNE: {"f": "{d} = fcmp une {s} {0}, {1}", "iubp": "{d} = icmp ne {s} {0}, {1}"},
  Ops.AND: {"iub": "{d} = and {t} {0}, {1}"},
  Ops.OR: {"iub": "{d} = or {t} {0}, {1}"},
  Ops.XOR: {"iub": "{d} = xor {t} {0}, {1}"},
  Ops.WHERE: {"iufbp": "{d} = select {s} {0}, {t} {1}, {t} {2}"},
  Ops.MULACC: {"f": "{d} = call {t} @llvm.fma.{m}({t} {0}, {t} {1}, {t} {2})",
               "iu": "{d}a = mul {t} {0}, {1}\n{d} = add {t} {d}a, {2}"},
}
SHIFTS = {("i", Ops.SHR): "ashr", ("u", Ops.SHR): "lshr", ("i", Ops.SHL): "shl", ("u", Ops.SHL): "shl"}

# ---- types and constants ---------------------------------------------------------------------------------------------

SCALARS = {"float16": "half", "bfloat16": "i16", "float32": "float", "float64": "double",
           "float80": "x86_fp80",
           "bool": "i1", "ptr": "ptr", "void": "void"}
FLOAT_SUFFIX = {"float80": "f80", "float16": "f16", "float32": "f32", "float64": "f64"}

def type_of(dtype: DType) -> str:
  scalar = SCALARS.get(dtype.name) or f"i{dtype.bits}"
  return scalar if dtype.count == 1 else f"<{dtype.count} x {scalar}>"
def stored(dtype: DType) -> DType:
  """The dtype in memory: a bool takes a byte."""
  return dtypes.uint8.vec(dtype.count) if dtype.kind == "b" else dtype
def suffix(dtype: DType) -> str:
  """How the names of intrinsics spell a type."""
  scalar = FLOAT_SUFFIX.get(dtype.name) or f"i{16 if dtype.name == 'bfloat16' else dtype.bits}"
  return scalar if dtype.count == 1 else f"v{dtype.count}{scalar}"

def constant(dtype: DType, value: object) -> str:
  """A scalar constant; floats exactly, as bits."""
  assert isinstance(value, (bool, int, float)), f"{value} is no number"
  if dtype.kind == "b": return "true" if value else "false"
  if dtype.kind == "p": return "null" if value == 0 else f"inttoptr (i64 {int(value)} to ptr)"
  if dtype.kind != "f": return str(int(value))
  if dtype is dtypes.float80: return x87_text(value)
  if dtype is dtypes.float16: return f"0xH{int.from_bytes(struct.pack('>e', value), 'big'):04X}"
  if dtype is dtypes.bfloat16: return str(struct.unpack("<I", struct.pack("<f", value))[0] >> 16)
  return f"0x{struct.unpack('<Q', struct.pack('<d', value))[0]:016X}"

def x87_text(value: float) -> str:
  """An 80 bit number: sign, exponent and all 64 digits. A float64 that is denormal is normal here."""
  sign = 1 if math.copysign(1.0, value) < 0 else 0
  if value == 0 or not math.isfinite(value): exponent, digits = (0, 0) if value == 0 else (0x7fff, 2 + (value != value))
  else:
    fraction, power = math.frexp(abs(value))
    exponent, digits = power + 16382, int(fraction * 2 ** 53)
  shift = 62 if exponent == 0x7fff else 11
  return f"0xK{sign << 15 | exponent:04X}{digits << shift:016X}"

def is_constant(u: UOp) -> bool:
  return u.op is Ops.CONST or (u.op is Ops.STACK and all(s.op is Ops.CONST for s in u.src))

def constant_text(u: UOp) -> str:
  if u.op is Ops.CONST: return constant(u.dtype, u.arg)
  scalar = u.dtype.scalar
  if all(s is u.src[0] for s in u.src): return f"splat ({type_of(scalar)} {constant(scalar, u.src[0].arg)})"
  return "<" + ", ".join(f"{type_of(scalar)} {constant(scalar, s.arg)}" for s in u.src) + ">"

def keeps_bits(u: UOp) -> bool:
  """Casts between types that are one type to LLVM: the result is the operand."""
  if u.op is Ops.BITCAST: return type_of(u.src[0].dtype) == type_of(u.dtype)
  return u.op is Ops.CAST and not cast_lines(u.src[0].dtype, u.dtype)

def empty_edges(fn: Function) -> Table:
  """Blocks that only pass from a BRANCH on to a join -> the block of that BRANCH. LLVM's phis can name the BRANCH's
  edge itself, unless both edges lead to the same join."""
  out: Table = {}
  for label, block in fn.blocks.items():
    if block[-1].op is not Ops.BRANCH: continue
    ends = {t: fn.blocks[t][0] for t in block[-1].src[1:]}
    passing = {t: jump.src[0] for t, jump in ends.items() if jump.op is Ops.JUMP}
    if len(set(passing.values())) == len(passing): out.update((t, label) for t in passing)
  return out

# ---- one function ----------------------------------------------------------------------------------------------------

class Renderer:
  """Writes the lines of one function; names[u] is how its operands are spelled."""
  def __init__(self, fn: Function):
    self.fn = fn
    self.names: dict[UOp, str] = {label: f"%L{i}" for i, label in enumerate(fn.blocks)}
    self.lines: list[str] = []
    self.called: dict[str, str] = {}                                 # function -> its declaration
    self.values = 0
    self.through = empty_edges(fn)

  def name(self, u: UOp) -> str:
    """The operand text of a value; a phi may ask for it before its definition is written."""
    while keeps_bits(u): u = u.src[0]
    known = self.names.get(u)
    if known is not None: return known
    if is_constant(u): text = constant_text(u)
    elif u.op is Ops.PARAM: text = f"%p{u.arg}"
    elif u.op is Ops.SYM: text = self.symbol(u)
    else:
      text = f"%v{self.values}"
      self.values += 1
    self.names[u] = text
    return text

  def typed(self, u: UOp) -> str: return f"{'ptr' if u.op is Ops.BUFFER else type_of(u.dtype)} {self.name(u)}"

  def symbol(self, u: UOp) -> str:
    self.called.setdefault(u.arg, f'@"{u.arg}" = external global i8')
    return f'@"{u.arg}"'

  def function(self) -> str:
    passed = incoming(self.fn)
    jumps: dict[UOp, list[tuple[UOp, UOp]]] = {}                     # block -> (JUMP, the block it ends)
    params: dict[UOp, list[UOp]] = {}
    for label, block in self.fn.blocks.items():
      if block[-1].op is Ops.JUMP: jumps.setdefault(block[-1].src[0], []).append((block[-1], label))
    for p in passed: params.setdefault(p.src[0], []).append(p)
    first = entry(self.fn)
    for label, block in self.fn.blocks.items():
      if label in self.through: continue
      self.lines.append(f"{self.names[label][1:]}:")
      if label is first: self.allocate_slots()
      for p in params.get(label, ()):
        sources = ", ".join(f"[ {self.name(jump.src[1 + p.arg])}, {self.names[self.through.get(at, at)]} ]"
                            for jump, at in jumps[label])
        self.lines.append(f"  {self.name(p)} = phi {type_of(p.dtype)} {sources}")
      for u in block: self.write(u)
    return self.header() + " {\n" + "\n".join(self.lines) + "\n}\n"

  def header(self) -> str:
    fn = self.fn
    arguments = [f"{t} %p{i}" for i, t in enumerate(argument_types(fn.params, fn.convention))]
    if scratch_offsets(fn)[1]: arguments.append("ptr %scratch")
    if fn.convention.fixed is not None: arguments.append("...")
    linkage = "internal " if fn.is_local else ""
    return f'define {linkage}{result_type(fn.result, fn.convention)} @"{fn.name}"({", ".join(arguments)}) #0'

  def alignment(self, memory: DType) -> int:
    """What may be said of the address of a load or store."""
    return memory.scalar.itemsize


  def allocate_slots(self) -> None:
    for u, offset in scratch_offsets(self.fn)[0].items():
      self.lines.append(f"  {self.name(u)} = getelementptr i8, ptr %scratch, i64 {offset}")
    for u in every_node(self.fn):
      if u.op is not Ops.BUFFER or u.arg.space is Space.LOCAL: continue
      nbytes = u.arg.size * u.dtype.itemsize
      align = 64 if nbytes >= 64 else 16
      self.lines.append(f"  {self.name(u)} = alloca [{nbytes} x i8], align {align}")

  def put(self, text: str) -> None: self.lines.extend("  " + line for line in text.split("\n"))

  def write(self, u: UOp) -> None:
    if is_constant(u) or keeps_bits(u): return
    if u.op in self.steps: self.steps[u.op](self, u)
    elif u.op in ROWS: self.row(u)
    else: raise ValueError(f"{self.fn.name}: {u.op} of {u.dtype} has no LLVM instruction")

  def row(self, u: UOp) -> None:
    """An op that the table spells out."""
    values = u.src
    deciding = values[1] if u.op is Ops.WHERE else values[0]
    kind = "p" if deciding.op is Ops.BUFFER or deciding.op is Ops.SYM else deciding.dtype.kind
    template = next((text for kinds, text in ROWS[u.op].items() if kind in kinds), None)
    if template is None: raise ValueError(f"{self.fn.name}: {u.op} of {deciding.dtype} has no LLVM instruction")
    texts = [self.name(s) for s in values]
    names = dict(d=self.name(u), t=type_of(u.dtype), s=type_of(values[0].dtype), m=suffix(u.dtype))
    if u.op is Ops.MAX and kind == "f": names["n"] = constant_text(UOp.const(u.dtype, math.nan))
    self.put(template.format(*texts, **names, b=type_of(dtypes.bool.vec(u.dtype.count))))

  def shift(self, u: UOp) -> None:
    """A count that is not below the width shifts everything out; LLVM leaves it open, so it is tested unless
    constant."""
    x, count = u.src
    d, t, name = self.name(u), type_of(u.dtype), SHIFTS[u.dtype.kind, u.op]
    lanes = count.src if count.op is Ops.STACK else (count,)
    if all(s.op is Ops.CONST and 0 <= s.arg < u.dtype.bits for s in lanes):
      return self.put(f"{d} = {name} {t} {self.name(x)}, {self.name(count)}")
    last = constant_text(UOp.const(u.dtype, u.dtype.bits - 1))
    b, n = type_of(dtypes.bool.vec(u.dtype.count)), self.name(count)
    self.put(f"{d}a = icmp ugt {t} {n}, {last}\n{d}b = select {b} {d}a, {t} {last}, {t} {n}")
    if name == "ashr": return self.put(f"{d} = ashr {t} {self.name(x)}, {d}b")
    self.put(f"{d}c = {name} {t} {self.name(x)}, {d}b\n{d} = select {b} {d}a, {t} zeroinitializer, {t} {d}c")

  def cast(self, u: UOp) -> None:
    source = u.src[0]
    lines = "{d} = bitcast {s} {0} to {t}" if u.op is Ops.BITCAST else cast_lines(source.dtype, u.dtype)
    self.put(lines.format(self.name(source), d=self.name(u), s=type_of(source.dtype), t=type_of(u.dtype)))

  def stack(self, u: UOp) -> None:
    """A vector from scalars: a splat is one insert and one shuffle, else there is an insert per lane."""
    d, t = self.name(u), type_of(u.dtype)
    if u.arg is not None:
      a, b = u.src
      lanes = ", ".join(f"i32 {k}" for k in u.arg)
      return self.put(f"{d} = shufflevector {self.typed(a)}, {self.typed(b)}, <{u.dtype.count} x i32> <{lanes}>")
    if all(s is u.src[0] for s in u.src):
      return self.put(f"{d}a = insertelement {t} poison, {self.typed(u.src[0])}, i64 0\n"
                      f"{d} = shufflevector {t} {d}a, {t} poison, <{u.dtype.count} x i32> zeroinitializer")
    before = "poison"
    for i, s in enumerate(u.src):
      after = d if i == len(u.src) - 1 else f"{d}_{i}"
      self.put(f"{after} = insertelement {t} {before}, {self.typed(s)}, i64 {i}")
      before = after

  def lane(self, u: UOp) -> None:
    vector, k = u.src
    if vector.op is Ops.CALL:
      t = result_type(vector.dtype, vector.arg)
      return self.put(f"{self.name(u)} = extractvalue {t} {self.name(vector)}, {k.arg}")
    self.put(f"{self.name(u)} = extractelement {self.typed(vector)}, i64 {k.arg}")

  def reduce(self, u: UOp) -> None:
    """The lanes of a vector, upper half with lower half until one is left: the same tree on every device."""
    value, op = u.src[0], u.arg[0]
    if u.dtype is dtypes.bool and op in (Ops.MAX, Ops.OR): return self.any_lane(u)
    while value.dtype.count > 1:
      n, half = value.dtype.count, value.dtype.count // 2
      assert n == 2 * half, f"{self.fn.name}: lanes of {u.src[0].dtype} cannot be halved"
      t, text, parts = type_of(value.dtype), self.name(value), []
      for start in (0, half):
        lanes = ", ".join(f"i32 {start + i}" for i in range(half))
        parts.append(UOp(Ops.INS, value.dtype.vec(half), (value,), ("half", start, op)))   # one for each reduction
        name = self.name(parts[-1])
        if half > 1: self.put(f"{name} = shufflevector {t} {text}, {t} poison, <{half} x i32> <{lanes}>")
        else: self.put(f"{name} = extractelement {t} {text}, i64 {start}")
      value = parts[0].alu(op, parts[1])
      if half == 1: self.names[value] = self.name(u)
      self.row(value)

  def any_lane(self, u: UOp) -> None:
    """Whether some lane holds: every machine can test a mask whole."""
    t, n = f"i{u.src[0].dtype.count}", self.name(u)
    self.put(f"{n}a = bitcast {self.typed(u.src[0])} to {t}\n{n} = icmp ne {t} {n}a, 0")

  def load(self, u: UOp) -> None:
    """A bool is read as a byte and compared with 0; lanes whose gate is closed read 0."""
    pointer, *gates, _ = u.src
    memory, at = stored(u.dtype), f"ptr {self.name(pointer)}"
    t, align = type_of(memory), self.alignment(memory)
    d = self.name(u)
    if isinstance(u.arg, Fetch): self.fetch(u.arg, at, d)
    to = d if memory is u.dtype else f"{d}a"
    if gates:
      rest = f"i32 {align}, {self.typed(gates[0])}, {t} zeroinitializer"
      self.put(f"{to} = call {t} @llvm.masked.load.{suffix(memory)}.p0({at}, {rest})")
    else: self.put(f"{to} = load{volatile(u)} {t}, {at}, align {align}")
    if to != d: self.put(cast_lines(memory, u.dtype).format(to, d=d, s=t))

  def fetch(self, wanted: Fetch, at: str, d: str) -> None:
    """Into the second cache: the first is full of what is wanted now. Into the first what is near."""
    for name, distance, locality in [(f"{d}p", wanted.ahead, 2), (f"{d}q", wanted.near, 3)]:
      if not distance: continue
      self.put(f"{name} = getelementptr i8, {at}, i64 {distance}")
      self.prefetch(name, locality)

  def fetch_panel(self, u: UOp) -> None: self.prefetch(self.name(u.src[0]), 2)
  def prefetch(self, pointer: str, locality: int) -> None:
    self.put(f"call void @llvm.prefetch.p0(ptr {pointer}, i32 0, i32 {locality}, i32 1)")

  def store(self, u: UOp) -> None:
    pointer, value, *gates, _ = u.src
    memory, at, text = stored(value.dtype), f"ptr {self.name(pointer)}", self.typed(value)
    t, align = type_of(memory), self.alignment(memory)
    if memory is not value.dtype:
      self.put(f"{self.name(u)} = zext {text} to {t}")
      text = f"{t} {self.name(u)}"
    if gates:
      rest = f"{at}, i32 {align}, {self.typed(gates[0])}"
      self.put(f"call void @llvm.masked.store.{suffix(memory)}.p0({text}, {rest})")
    elif self.is_streamed(u): self.put(f"store {text}, {at}, align {memory.itemsize}, !nontemporal !0")
    else: self.put(f"store{volatile(u)} {text}, {at}, align {align}")

  def is_streamed(self, u: UOp) -> bool: return u.arg is Streaming.STORE

  def call(self, u: UOp) -> None:
    callee, *arguments, _ = u.src
    if callee.op is Ops.SYM and callee.arg in BUILTINS: return self.builtin(u, BUILTINS[callee.arg])
    given = [dtypes.ptr if s.op is Ops.BUFFER else s.dtype for s in arguments]
    types, result = argument_types(given, u.arg), result_type(u.dtype, u.arg)
    fixed, signature = types, result
    if u.arg.fixed is not None:
      fixed = [*types[:u.arg.fixed], "..."]
      plain = [*map(type_of, given[:u.arg.fixed]), "..."]             # a function's type has no attributes
      signature = f"{result} ({', '.join(plain)})"
    if callee.op is Ops.SYM: self.called[callee.arg] = self.declaration(callee.arg, result, fixed)
    passed = ", ".join(f"{t} {self.name(s)}" for t, s in zip(types, arguments))
    to = "" if result == "void" else f"{self.name(u)} = "
    self.put(f"{to}call {signature} {self.name(callee)}({passed})")

  def declaration(self, name: str, result: str, types: list[str]) -> str:
    return f'declare {result} @"{name}"({", ".join(types)}) nonlazybind'             # as in runtime/pool.ll

  def builtin(self, u: UOp, template: str) -> None:
    values = [self.name(s) for s in u.src[1:-1]]
    self.put(template.format(*values, d=self.name(u) if "{d}" in template else ""))

  def barrier(self, u: UOp) -> None: self.put('call void asm sideeffect "", "~{memory}"()')

  def jump(self, u: UOp) -> None: self.put(f"br label {self.names[u.src[0]]}")
  def branch(self, u: UOp) -> None:
    condition, *targets = u.src
    yes, no = (self.names[self.fn.blocks[t][-1].src[0] if t in self.through else t] for t in targets)
    self.put(f"br i1 {self.name(condition)}, label {yes}, label {no}")
  def switch(self, u: UOp) -> None:
    index, *targets = u.src
    cases = " ".join(f"i64 {k}, label {self.names[t]}" for k, t in enumerate(targets))
    self.put(f"switch i64 {self.name(index)}, label {self.names[targets[0]]} [ {cases} ]")
  def ret(self, u: UOp) -> None:
    """What went past the caches arrives before anybody is told that the kernel has ended."""
    if any(map(self.is_streamed, streamed(self.fn))): self.put("fence seq_cst")
    if len(u.src) < 2: return self.put(f"ret {self.typed(u.src[0]) if u.src else 'void'}")
    t, whole = "{ " + ", ".join(type_of(s.dtype) for s in u.src) + " }", "poison"
    for k, s in enumerate(u.src):
      self.put(f"{self.name(u)}_{k} = insertvalue {t} {whole}, {self.typed(s)}, {k}")
      whole = f"{self.name(u)}_{k}"
    self.put(f"ret {t} {whole}")

  steps = {Ops.SHL: shift, Ops.SHR: shift, Ops.CAST: cast, Ops.BITCAST: cast, Ops.STACK: stack, Ops.INDEX: lane,
           Ops.REDUCE: reduce, Ops.LOAD: load, Ops.FETCH: fetch_panel, Ops.STORE: store, Ops.CALL: call, Ops.JUMP: jump,
           Ops.BRANCH: branch, Ops.SWITCH: switch, Ops.BARRIER: barrier, Ops.RET: ret}

# calls that are instructions (docs/ir.md). {d} is the result, {0} the first argument
BUILTINS = {
  "__builtin_va_start": "call void @llvm.va_start.p0(ptr {0})",
  "__builtin_alloca": "{d} = alloca i8, i64 {0}, align 16",
  "__builtin_stack_save": "{d} = call ptr @llvm.stacksave.p0()",
  "__builtin_stack_restore": "call void @llvm.stackrestore.p0(ptr {0})",
  "__builtin_frame_address": "{d} = call ptr @llvm.frameaddress.p0(i32 {0})",
  "__builtin_return_address": "{d} = call ptr @llvm.returnaddress(i32 {0})"}

def volatile(u: UOp) -> str: return " volatile" if isinstance(u.arg, int) else ""

def argument_types(params: Sequence[DType], convention: Convention) -> list[str]:
  """The types of arguments; one that goes on the stack is the address of what is copied there."""
  types = [type_of(dt) for dt in params]
  for k, nbytes, align in convention.memory: types[k] = f"ptr byval([{nbytes} x i8]) align {align}"
  return types

def result_type(dtype: DType, convention: Convention) -> str:
  if not convention.results: return type_of(dtype)
  return "{ " + ", ".join(map(type_of, convention.results)) + " }"

# ---- casts -----------------------------------------------------------------------------------------------------------

def cast_lines(source: DType, to: DType) -> str:
  """The instructions of a cast; empty where the bits stay as they are. float16 comes from float32 alone: other casts
  to it were lowered, because LLVM would call a library that may not be there."""
  a, b = source.kind, to.kind
  if b == "b" and a == "f": return "{d} = fcmp une {s} {0}, zeroinitializer"
  if b == "b" and a != "b": return "{d} = icmp ne {s} {0}, zeroinitializer"
  if b == "p": return "" if a == "p" else "{d} = inttoptr {s} {0} to ptr"
  if a == "p": return "{d} = ptrtoint ptr {0} to {t}"
  if b == "f" and a != "f": return "{d} = sitofp {s} {0} to {t}" if a == "i" else "{d} = uitofp {s} {0} to {t}"
  if a == "f" and b != "f": return float_to_int_lines(source, to)
  if source.bits == to.bits: return ""
  narrow, widen = ("fptrunc", "fpext") if a == "f" else ("trunc", "sext" if a == "i" else "zext")
  return f"{{d}} = {narrow if source.bits > to.bits else widen} {{s}} {{0}} to {{t}}"

def float_to_int_lines(source: DType, to: DType) -> str:
  """Towards zero; out of range gives the nearest in range, NaN gives 0. llvm.fptosi.sat means the same, lane by
  lane."""
  if source.bits == 16:                                              # the limits are no numbers of float16
    single = dtypes.float32.vec(source.count)
    return f"{{d}}m = fpext {{s}} {{0}} to {type_of(single)}\n" + clamp_lines("{d}m", single, to)
  return clamp_lines("{0}", source, to)

def clamp_lines(value: str, source: DType, to: DType) -> str:
  s, b = type_of(source), type_of(dtypes.bool.vec(to.count))
  def text(dtype: DType, number: float) -> str: return constant_text(UOp.const(dtype, number))
  low, limit = text(source, float(to.min)), text(source, float(to.max + 1))
  convert = "fptosi" if to.kind == "i" else "fptoui"
  lines = (f"{{d}}a = fcmp ogt {s} {value}, {low}\n{{d}}b = select {b} {{d}}a, {s} {value}, {s} {low}\n"  # NaN too
           f"{{d}}c = {convert} {s} {{d}}b to {{t}}\n{{d}}e = fcmp oge {s} {value}, {limit}\n")
  chosen = f"select {b} {{d}}e, {{t}} {text(to, to.max)}, {{t}} {{d}}c"
  if to.kind == "u": return lines + "{d} = " + chosen
  return lines + (f"{{d}}f = {chosen}\n{{d}}g = fcmp ord {s} {value}, {value}\n"
                  f"{{d}} = select {b} {{d}}g, {{t}} {{d}}f, {{t}} {text(to, 0)}")

# ---- a module --------------------------------------------------------------------------------------------------------

SCRATCH_ALIGNMENT = 128          # bytes: two cache lines, which some processors fetch together

def scratch_offsets(fn: Function) -> tuple[dict[UOp, int], int]:
  """Where each LOCAL array of a kernel lies in a thread's scratch memory, and how many bytes of it there are."""
  arrays = [u for u in every_node(fn) if u.op is Ops.BUFFER and u.arg.space is Space.LOCAL]
  sizes = [ceildiv(u.arg.size * u.dtype.itemsize, SCRATCH_ALIGNMENT) * SCRATCH_ALIGNMENT for u in arrays]
  ends = [0, *itertools.accumulate(sizes)]
  return dict(zip(arrays, ends)), ends[-1]

ATTRIBUTES = 'attributes #0 = { nounwind "prefer-vector-width"="512" "no-trapping-math"="true" }\n!0 = !{i32 1}\n'

def render(fn: Function, helpers: Sequence[Function] = ()) -> str:
  """The text of a module: fn, the functions it calls, declarations of all other names, and fn's entry if it is a
  kernel."""
  renderers = [Renderer(f) for f in (fn, *helpers)]
  if is_kernel(fn) and streamed(fn): renderers.append(Anywhere(replace(fn, name=fn.name + ANYWHERE)))
  bodies = [r.function() for r in renderers]
  defined = {f.name for f in (fn, *helpers)}
  outside = {name: text for r in renderers for name, text in r.called.items() if name not in defined}
  return "\n".join([*outside.values(), *bodies, *([entry_text(fn)] if is_kernel(fn) else []), ATTRIBUTES])

def streamed(fn: Function) -> list[UOp]:
  """The stores past the caches."""
  return [u for block in fn.blocks.values() for u in block if u.arg is Streaming.STORE]

ANYWHERE = "_anywhere"
class Anywhere(Renderer):
  """The function for memory that begins anywhere, as others may share it: stores past the caches are of aligned
  vectors alone."""
  def is_streamed(self, u: UOp) -> bool: return False

def is_kernel(fn: Function) -> bool:
  """Pointers and a thread number, no result."""
  kinds = [dt.kind for dt in fn.params]
  return fn.result is dtypes.void and kinds == ["p"] * (len(kinds) - 1) + ["i"]

def entry_text(fn: Function) -> str:
  """NAME_entry(ptr %table, i64 %thread): calls the kernel with pointers from the table. The first is that of the
  scratch memory, if the kernel has any: of it each thread has its part. Behind those it reads there may be more."""
  n, scratch = len(fn.params) - 1, scratch_offsets(fn)[1]
  names = ["%scratch"] * (scratch > 0) + [f"%p{i}" for i in range(n)]
  loads = "".join(f"  %a{i} = getelementptr ptr, ptr %table, i64 {i}\n  {name} = load ptr, ptr %a{i}, align 8\n"
                  for i, name in enumerate(names))
  if scratch: loads += f"  %o = mul i64 %thread, {scratch}\n  %s = getelementptr i8, ptr %scratch, i64 %o\n"
  arguments = ", ".join([*(f"ptr %p{i}" for i in range(n)), "i64 %thread", *(["ptr %s"] if scratch else [])])
  calls = [f'  tail call void @"{fn.name}{suffix}"({arguments})\n  ret void\n' for suffix in ("", ANYWHERE)]
  body = f"{alignment_test(fn)}ALIGNED:\n{calls[0]}ANYWHERE:\n{calls[1]}" if streamed(fn) else calls[0]
  return (f'define void @"{fn.name}_entry"(ptr %table, i64 %thread) #0 "threads"="{fn.threads}" "scratch"="{scratch}"'
          f' {{\n{loads}{body}}}\n')

def alignment_test(fn: Function) -> str:
  """Whether the memory that is written past the caches begins at a multiple of the vectors."""
  written = sorted({u.arg for store in streamed(fn) for u in toposort([store.src[0]])
                    if u.op is Ops.PARAM and u.dtype is dtypes.ptr})
  lines = "".join(f"  %i{k} = ptrtoint ptr %p{k} to i64\n" for k in written)
  together = f"%i{written[0]}"
  for k in written[1:]:
    lines += f"  %m{k} = or i64 {together}, %i{k}\n"
    together = f"%m{k}"
  vector = max(store.src[1].dtype.itemsize for store in streamed(fn))
  return (f"{lines}  %r = and i64 {together}, {vector - 1}\n  %whole = icmp eq i64 %r, 0\n"
          "  br i1 %whole, label %ALIGNED, label %ANYWHERE\n")
