# spec.py: what is legal in each form of a program: its ops, tables of laws for each node, and the laws of the whole.
# verify(form, code) returns, or raises a SpecError that names the form, the node and the law.
#   tensor   a graph, or a list of roots     linear   a list, RANGE .. END nested       placed   a function whose blocks
#   kernel   a graph                         flat     a function: effects in blocks              list every node
from __future__ import annotations
from collections.abc import Set
from itertools import chain
from typing import Any, Callable, Iterator, NamedTuple
from picograd.dtype import DType, dtypes, truncate
from picograd.ops.ops import ALU, Axis, COMPARE, EFFECTS, INFO, MOVEMENT, Ops, Space, TERMINATORS
from picograd.ops.uop import UOp, intern_key, ranges_inside, toposort, without_after

class SpecError(Exception):
  """A pass has made what its form does not allow."""

class Law(NamedTuple):
  ops: Set[Ops]                            # whom it binds
  says: str
  holds: Callable[[UOp], bool]

# ---- words of the laws -----------------------------------------------------------------------------------------------

def type_of(u):
  """The dtype of u as a source. An array of a kernel or of a function stands for its address."""
  return dtypes.ptr if u.op is Ops.BUFFER and u.arg.space is not Space.GLOBAL else u.dtype
def takes(u, *dts): return [type_of(s) for s in u.src] == list(dts)
def all_of(nodes, ops): return all(u.op in ops for u in nodes)
def lanes(u): return u.dtype.count
def is_bool(u): return u.dtype.kind == "b"
def is_mask(u, of): return is_bool(u) and lanes(u) == lanes(of)
def is_value(x, dt):
  return dt.count == 1 and intern_key(Ops.CONST, dt, (), truncate(x, dt)) == intern_key(Ops.CONST, dt, (), x)
def is_shuffle(u):
  known = takes(u, u.src[0].dtype, u.src[0].dtype) and same_element(u.src[0], u)
  return known and len(u.arg) == lanes(u) and set(u.arg) <= set(range(2 * lanes(u.src[0])))
def same_element(a, b): return a.dtype.scalar is b.dtype.scalar

VIEWS = frozenset({Ops.RESHAPE, Ops.PERMUTE, Ops.SHRINK, Ops.FLIP, Ops.DETACH, Ops.AFTER})
def is_place(u):
  """Whether each element of a tensor is one element of a buffer."""
  while u.op in VIEWS: u = u.src[0]
  return u.op is Ops.BUFFER

def is_memory(u): return without_after(u).op in (Ops.PARAM, Ops.BUFFER)
def is_address(u):
  return without_after(u).op is Ops.INDEX and is_memory(without_after(u).src[0])
def is_element(u):
  memory, position, *gates = u.src
  return is_memory(memory) and u.dtype is memory.dtype and position.dtype.is_int and all(map(is_bool, gates))

def is_lane(u):
  vector, lane = u.src
  if vector.op is Ops.CALL: return lane.op is Ops.CONST and vector.arg.results[lane.arg] is u.dtype
  return lanes(vector) > 1 and vector.dtype is u.dtype.vec(lanes(vector)) and lane.op is Ops.CONST

def is_end(u):
  effects = [s for s in u.src if s.op is not Ops.RANGE]
  is_each_once = len(set(u.src)) == len(u.src)              # two equal nests would be one
  return len(effects) > 0 and u.src[:len(effects)] == tuple(effects) and all_of(effects, ORDER) and is_each_once

def is_access(pointer, *gate_and_state):
  """(pointer, state) or (pointer, gate, state) of a function's load or store."""
  *gates, state = gate_and_state
  return type_of(pointer) is dtypes.ptr and is_state(state) and len(gates) <= 1 and all(map(is_bool, gates))

def is_state(u): return u.op is Ops.LABEL or u.op in EFFECTS
def has_values(src): return all(type_of(s) is not dtypes.void for s in src)

# ---- laws of a node --------------------------------------------------------------------------------------------------

ORDER = frozenset({Ops.STORE, Ops.WMMA, Ops.FETCH, Ops.END, Ops.BARRIER, Ops.SINK, Ops.AFTER})      # what comes first
ALL = frozenset(Ops)
OTHER_DTYPE = COMPARE | {Ops.ADD, Ops.WHERE, Ops.CAST, Ops.BITCAST}                 # sources may differ from the result
FLOAT = frozenset({Ops.EXP2, Ops.LOG2, Ops.SIN, Ops.SQRT, Ops.FDIV, Ops.MULACC})
LEAVES = frozenset({Ops.CONST, Ops.PARAM, Ops.BUFFER, Ops.SYM, Ops.LABEL, Ops.PHI}) # have no place in a block
STATEFUL = frozenset({Ops.LOAD, Ops.STORE, Ops.CALL})                               # end with a state, in a function
VOID = TERMINATORS | {Ops.STORE, Ops.WMMA, Ops.END, Ops.SINK, Ops.BARRIER, Ops.LABEL, Ops.FETCH}
PASSING = MOVEMENT | {Ops.CONTIGUOUS, Ops.DETACH, Ops.COPY}

of_all = (
  Law(ALU, "it has as many sources as its op takes", lambda u: len(u.src) == INFO[u.op].arity),
  Law(ALU - OTHER_DTYPE, "its sources have its dtype", lambda u: takes(u, *[u.dtype] * len(u.src))),
  Law({Ops.ADD}, "it adds like to like, or int64 bytes to a pointer",
      lambda u: takes(u, u.dtype, dtypes.int64 if u.dtype is dtypes.ptr else u.dtype)),
  Law(FLOAT, "it computes on floats", lambda u: u.dtype.kind == "f"),
  Law({Ops.IDIV, Ops.MOD, Ops.SHL, Ops.SHR}, "it computes on integers", lambda u: u.dtype.is_int),
  Law({Ops.AND, Ops.OR, Ops.XOR}, "it computes on integers or bools", lambda u: u.dtype.is_int or is_bool(u)),
  Law(COMPARE, "its sources have one dtype, it gives a bool per lane",
      lambda u: type_of(u.src[0]) is type_of(u.src[1]) and is_mask(u, u.src[0])),
  Law({Ops.WHERE}, "its condition has a bool per lane, its branches have its dtype",
      lambda u: takes(u, u.src[0].dtype, u.dtype, u.dtype) and is_mask(u.src[0], u)),
  Law({Ops.CAST}, "it keeps the number of lanes", lambda u: lanes(u) == lanes(u.src[0])),
  Law({Ops.BITCAST}, "it keeps the number of bits", lambda u: u.dtype.itemsize == type_of(u.src[0]).itemsize),
  Law({Ops.CONST}, "its arg is a value of its dtype", lambda u: is_value(u.arg, u.dtype)),
  Law(LEAVES - {Ops.PHI}, "it has no sources", lambda u: not u.src),
  Law(VOID, "it has no value, so its dtype is void", lambda u: u.dtype is dtypes.void),
  Law({Ops.REDUCE}, "it reduces by ADD, MUL or MAX", lambda u: u.arg[0] in (Ops.ADD, Ops.MUL, Ops.MAX)),
  Law({Ops.AFTER}, "it has the dtype of its first source", lambda u: u.dtype is u.src[0].dtype),
  Law({Ops.STACK}, "it has a scalar source per lane, or its arg names lanes of two vectors",
      lambda u: takes(u, *[u.dtype.scalar] * lanes(u)) if u.arg is None else is_shuffle(u)),
)
of_tensors = (                             # shapes need no law: shape.py builds no node whose sources do not fit
  Law(PASSING - {Ops.DETACH} | {Ops.REDUCE}, "it has one source, of its dtype", lambda u: takes(u, u.dtype)),
  Law({Ops.DETACH}, "it has a value, and with a name what that is a function of, of its dtype",
      lambda u: takes(u, *[u.dtype] * (1 if u.arg is None else max(2, len(u.src))))),
  Law({Ops.BUFFER}, "a leaf is in GLOBAL memory", lambda u: u.arg.space is Space.GLOBAL),
  Law({Ops.RANGE}, "it has no arg: it is the tensor 0, 1, .. n-1", lambda u: u.arg is None and takes(u, dtypes.index)),
  Law({Ops.STORE, Ops.AFTER}, "it is about a view of a buffer", lambda u: is_place(u.src[0])),
  Law({Ops.STORE}, "its value has the dtype and the shape of its target",
      lambda u: takes(u, *[u.src[0].dtype] * 2) and u.src[0].shape == u.src[1].shape),
  Law({Ops.AFTER}, "it comes after stores", lambda u: all_of(u.src[1:], {Ops.STORE, Ops.AFTER})),
  Law(ALL - {Ops.CONST}, "index numbers and vectors are for kernels",
      lambda u: u.dtype is not dtypes.index and lanes(u) == 1),
)
of_kernels = (
  Law({Ops.BUFFER}, "memory of its own is LOCAL or REG", lambda u: u.arg.space is not Space.GLOBAL),
  Law({Ops.RANGE, Ops.SPECIAL}, "it is an index or an integer", lambda u: u.dtype.is_int),
  Law({Ops.RANGE}, "it has a bound, a number and an Axis", lambda u: takes(u, u.dtype) and isinstance(u.arg[1], Axis)),
  Law({Ops.INDEX}, "it is an element of memory or a vector's lane", lambda u: is_element(u) or is_lane(u)),
  Law({Ops.LOAD, Ops.STORE, Ops.FETCH}, "it goes to an address", lambda u: is_address(u.src[0])),
  Law({Ops.LOAD}, "it gives what is at its address", lambda u: same_element(u, u.src[0])),
  Law({Ops.STORE}, "its value has the dtype of its target", lambda u: len(u.src) == 2 and same_element(*u.src)),
  Law({Ops.END}, "its sources are effects, then the loops it closes, each once", is_end),
  Law({Ops.LOAD, Ops.AFTER}, "it comes after effects or in loops", lambda u: all_of(u.src[1:], ORDER | {Ops.RANGE})),
  Law({Ops.REDUCE}, "it reduces over loops, threads, or a vector's lanes",
      lambda u: all_of(u.src[1:], {Ops.RANGE, Ops.SPECIAL})),
  Law({Ops.REDUCE}, "it has the dtype that it reduces",
      lambda u: u.dtype is (u.src[0].dtype if u.src[1:] else u.src[0].dtype.scalar)),
)
no_index = Law(ALL, "index numbers are machine integers by now", lambda u: u.dtype.scalar is not dtypes.index)
of_lists = (
  Law({Ops.REDUCE}, "loops are written out: it reduces a vector's lanes, or threads",
      lambda u: all_of(u.src[1:], {Ops.SPECIAL})),
  no_index,
)
of_functions = (
  Law({Ops.INDEX}, "it takes a lane of a vector, or a result of a call that has several", is_lane),
  Law({Ops.REDUCE}, "it reduces a vector's lanes", lambda u: takes(u, u.dtype.vec(lanes(u.src[0])))),
  Law({Ops.LOAD}, "it has a pointer, perhaps a gate, and a state", lambda u: is_access(*u.src)),
  Law({Ops.STORE}, "it has a pointer, a value, perhaps a gate, and a state",
      lambda u: has_values(u.src[1:2]) and is_access(u.src[0], *u.src[2:])),
  Law({Ops.FETCH}, "it has a pointer", lambda u: takes(u, dtypes.ptr)),
  Law({Ops.CALL}, "it has an address, arguments and a state",
      lambda u: type_of(u.src[0]) is dtypes.ptr and has_values(u.src[:-1]) and is_state(u.src[-1])),
  Law({Ops.PHI}, "its source is its block's label", lambda u: takes(u, dtypes.void) and u.src[0].op is Ops.LABEL),
  Law({Ops.JUMP}, "it passes values to a label", lambda u: u.src[0].op is Ops.LABEL and has_values(u.src[1:])),
  Law({Ops.BRANCH}, "it has a bool and two different labels",
      lambda u: len(set(u.src)) == 3 and is_bool(u.src[0]) and all_of(u.src[1:], {Ops.LABEL})),
  Law({Ops.SWITCH}, "it has an int64 and labels",
      lambda u: u.src[0].dtype is dtypes.int64 and len(u.src) > 1 and all_of(u.src[1:], {Ops.LABEL})),
  Law({Ops.RET}, "it returns values", lambda u: has_values(u.src)),
  no_index,
)

# ---- laws of the whole: each yields (node, the law it breaks) --------------------------------------------------------

Violations = Iterator[tuple[UOp, str]]
Blocks = dict[UOp, list[UOp]]

def check_kernel(kernel: UOp) -> Violations:
  """Positions are index numbers or machine integers, not both; every loop is closed."""
  nodes = toposort([kernel])
  positions = [u for u in nodes if u.op in (Ops.RANGE, Ops.SPECIAL)]
  positions += [u.src[1] for u in nodes if u.op is Ops.INDEX]
  numbers = [u for u in positions if u.dtype.scalar is dtypes.index]
  if 0 < len(numbers) < len(positions): yield numbers[0], "it is an index number, other positions are machine integers"
  for r in ranges_inside(kernel)[kernel]: yield r, "no END and no REDUCE closes this loop"

def check_list(code: list[UOp]) -> Violations:
  """Each node once, its sources before it in its loop or in one around it, loops closed from the inside."""
  scopes: list[list[UOp]] = [[]]                            # what each open loop defines, its RANGE first
  listed: set[UOp] = set()
  visible: set[UOp] = set()
  for u in code:
    if u in listed: yield u, "it is listed twice"
    for s in map(without_after, u.src):
      if s not in visible and s.op is not Ops.SINK: yield u, f"{s} is not defined before it, in or around its loop"
    if u.op is Ops.RANGE: scopes.append([])
    closed = [s for s in u.src if s.op is Ops.RANGE] if u.op is Ops.END else []
    for _ in closed:
      if len(scopes) == 1 or scopes[-1][0] not in closed: yield u, "it closes a loop that is not the innermost"
      visible.difference_update(scopes.pop())
    scopes[-1].append(u)
    listed.add(u)
    visible.add(u)
  if len(scopes) > 1: yield scopes[-1][0], "no END closes this loop"

def check_function(code):
  for label, block in code.blocks.items(): yield from check_block(label, block, code.blocks)
  before = predecessors(code.blocks)
  yield from check_edges(code.blocks, before)
  yield from check_definitions(code.blocks, before)

def check_placed(code):
  yield from check_function(code)
  nodes = roots_of(code)
  for u in set(toposort(nodes)) - set(nodes):
    if u.op not in LEAVES: yield u, "no block lists it"

def check_block(label, block, blocks):
  state = label
  if not block or block[-1].op not in TERMINATORS: yield label, "its block does not end in JUMP, BRANCH or RET"
  for u in block:
    if u.op in TERMINATORS and u is not block[-1]: yield u, "it stands in the middle of a block"
    if u.op in STATEFUL and u.src[-1] is not state: yield u, "its state is not the last effect, or label, before it"
    if u.op in EFFECTS: state = u
  for target in targets(block):
    if target not in blocks: yield block[-1], f"there is no block {target}"

def targets(block): return [s for s in block[-1].src if s.op is Ops.LABEL]
def predecessors(blocks):
  before: dict[UOp, list[UOp]] = {label: [] for label in blocks}
  for label, block in blocks.items():
    for target in set(targets(block)): before[target].append(label)
  return before

def check_edges(blocks, before):
  passed: dict[UOp, list[DType]] = {}                       # block -> the dtypes of its parameters
  first = next(iter(blocks))
  if before[first]: yield first, "the first block has a predecessor"
  for block in blocks.values():
    last = block[-1]
    if last.op in (Ops.BRANCH, Ops.SWITCH) and any(len(before[t]) > 1 for t in targets(block)):
      yield last, "a block that it goes to has other predecessors"
    given = [type_of(v) for v in last.src[1:]]
    if last.op is Ops.JUMP and passed.setdefault(last.src[0], given) != given:
      yield last, "another jump to its block passes other values, in number or dtype"
  for u in toposort(chain(*blocks.values())):
    if u.op is not Ops.PHI: continue
    given = passed.get(u.src[0], [])
    if given[u.arg:u.arg + 1] != [u.dtype]: yield u, "the jumps to its block do not pass it"

def dominators(blocks, before):
  """The blocks on every way to a block, itself included, as the bits of an int; a block's number is its position."""
  over = {label: -1 if i else 1 for i, label in enumerate(blocks)}
  known = None
  while known != over:
    known = dict(over)
    for i, label in enumerate(blocks):
      for p in before[label]: over[label] &= over[p] | 1 << i
  everything = (1 << len(blocks)) - 1                       # over a block that cannot be reached
  return {label: bits & everything for label, bits in over.items()}

def operands(u):
  return [s for s in (u.src[:-1] if u.op in STATEFUL else u.src) if s.op is not Ops.LABEL]

def check_definitions(blocks, before):
  """Values are defined on every way to their use. What no block lists stands right below the lowest of its sources."""
  over = dominators(blocks, before)
  number = {label: i for i, label in enumerate(blocks)}
  listed = [(u, (label, i)) for label, block in blocks.items() for i, u in enumerate(block)]
  place = dict(listed)
  def depth(at):
    return (bin(over[at[0]]).count("1"), at[1])
  start = (next(iter(blocks)), -1)
  for u in toposort(place):
    if u in place: continue
    if u.op in STATEFUL: yield u, "no block lists it"
    sources = [place[s] for s in operands(u)]
    place[u] = (u.src[0], -1) if u.op is Ops.PHI else max(sources, key=depth, default=start)
    listed.append((u, place[u]))
  for u, (label, i) in listed:
    for s in operands(u):
      at, j = place[s]
      defined = j <= i if at is label else over[label] >> number[at] & 1
      if not defined: yield u, f"{s} is not defined on every way to it"

# ---- the table of forms ----------------------------------------------------------------------------------------------

class Form(NamedTuple):
  ops: Set[Ops]
  laws: tuple[Law, ...]
  check: Callable[[Any], Violations]

TENSOR = ALU - {Ops.MULACC} | PASSING | {Ops.REDUCE, Ops.CONST, Ops.BUFFER, Ops.RANGE, Ops.STORE, Ops.AFTER, Ops.SINK}
LANES = {Ops.STACK, Ops.INDEX, Ops.REDUCE, Ops.WMMA}
KERNEL = ALU | LANES | ORDER | {Ops.CONST, Ops.PARAM, Ops.BUFFER, Ops.RANGE, Ops.SPECIAL, Ops.LOAD}
FLAT = ALU | LANES | LEAVES | STATEFUL | TERMINATORS | {Ops.INS, Ops.BARRIER, Ops.FETCH}
FORMS = {
  "tensor": Form(TENSOR, of_all + of_tensors, lambda code: iter(())),
  "kernel": Form(KERNEL, of_all + of_kernels, check_kernel),
  "linear": Form(KERNEL, of_all + of_kernels + of_lists, check_list),
  "flat": Form(FLAT, of_all + of_functions, check_function),
  "placed": Form(FLAT, of_all + of_functions, check_placed),
}

def roots_of(code):
  if isinstance(code, UOp): return [code]
  return list(chain(*code.blocks.values())) if hasattr(code, "blocks") else code

def verify(form: str, code: Any) -> None:
  """Returns if code (a UOp, a list, or anything with `.blocks`) is legal in the form, one of FORMS; else SpecError."""
  for u, broken in chain(check_nodes(FORMS[form], code), FORMS[form].check(code)):
    raise SpecError(f"{form} form, {u}: {broken}")

def check_nodes(form: Form, code: Any) -> Violations:
  for u in toposort(roots_of(code)):
    if u.op not in form.ops: yield u, f"there is no {u.op} in this form"
    for law in form.laws:
      if u.op in law.ops and not holds(law, u): yield u, law.says

def holds(law: Law, u: UOp) -> bool:
  try: return law.holds(u)
  except (AttributeError, IndexError, TypeError, ValueError): return False      # not even the parts the law speaks of
