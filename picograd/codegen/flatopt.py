# flatopt.py: what makes flat functions faster and is not about one machine. Each pass takes a Function after mem2reg,
# not placed, and gives one that computes the same.
from __future__ import annotations
from dataclasses import replace
from typing import NamedTuple
from picograd.codegen.flat import (STATEFUL, Flow, Function, every_node, forward, homes, in_order, phi, prune,
                                   split_edges)
from picograd.dtype import dtypes
from picograd.helpers import dedup
from picograd.ops.fold import fold_alu
from picograd.ops.match import rewrite
from picograd.ops.ops import TERMINATORS, Ops
from picograd.ops.uop import Table, UOp, consumers

# ---- constants and identities ----------------------------------------------------------------------------------------

def simplify(fn: Function) -> Function:
  """Constants are computed, identities applied, branches decided, until nothing changes."""
  while True:
    listed = [u for block in fn.blocks.values() for u in block]
    new = dict(zip(listed, rewrite(UOp.sink(*listed), fold_alu).src))
    blocks = {label: dedup(decided(new[u]) for u in block) for label, block in fn.blocks.items()}
    fn = prune(in_order(replace(fn, blocks=blocks)))
    if fn.blocks == blocks: return fn                                # what is folded needs no second look

def decided(u: UOp) -> UOp:
  """A branch whose condition is known as a jump."""
  if u.op not in (Ops.BRANCH, Ops.SWITCH) or u.src[0].op is not Ops.CONST or u.arg is not None: return u
  k = u.src[0].arg if u.op is Ops.SWITCH else 0 if u.src[0].arg else 1
  return UOp(Ops.JUMP, dtypes.void, (u.src[1 + k],)) if 0 <= k < len(u.src) - 1 else u

# ---- strength reduction ----------------------------------------------------------------------------------------------

class Counted(NamedTuple):
  """A loop that is entered by one jump and goes round by another. variables: parameter, as an int64 -> (first value,
  step)."""
  head: UOp
  enter: UOp                               # the blocks that jump to the head
  back: UOp
  variables: dict[UOp, tuple[UOp, int]]

class Pointer(NamedTuple):
  """An address that each round of a loop adds to: base + scale*variable."""
  base: UOp
  variable: UOp
  scale: int

def reduce_strength(fn: Function) -> Function:
  """base + scale*i, in a loop over i, becomes a parameter of the loop that grows by scale each round. Where i is then
  only counted, a pointer is compared in its stead."""
  flow = Flow(fn)
  if not flow.head: return fn
  fn = outer_terms_first(fn, flow)
  loops = [loop for head in dedup(flow.head.values()) if (loop := counted_loop(fn, flow, head)) is not None]
  owner = {variable: loop for loop in loops for variable in loop.variables}
  pointers = [(u, pointer) for u in every_node(fn) if (pointer := pointer_of(u, owner)) is not None]
  if not pointers: return fn
  home, found = homes(fn, flow), {}
  for u, pointer in pointers:
    head = owner[pointer.variable].head
    if home[pointer.base] is not head and flow.dominates(home[pointer.base], head): found[u] = pointer
  return add_parameters(fn, flow, owner, found) if found else fn

def counted_loop(fn: Function, flow: Flow, head: UOp) -> Counted | None:
  inside = [p for p in flow.before[head] if flow.dominates(head, p)]
  outside = [p for p in flow.before[head] if p not in inside]
  if len(inside) != 1 or len(outside) != 1: return None
  first, again = fn.blocks[outside[0]][-1].src[1:], fn.blocks[inside[0]][-1].src[1:]
  variables = {}
  for k, (start, following) in enumerate(zip(first, again)):
    p = phi(head, k, start.dtype)
    if following.op is not Ops.ADD or following.src[0] is not p or following.src[1].op is not Ops.CONST: continue
    step = following.src[1].arg
    if p.dtype is dtypes.int64: variables[p] = start, step
    elif p.dtype is dtypes.uint64 or never_wraps(fn, p) or stays_small(fn, flow, inside[0], start, following, step):
      variables[p.cast(dtypes.int64)] = simplified(start.cast(dtypes.int64)), step
  return Counted(head, outside[0], inside[0], variables)

def never_wraps(fn: Function, u: UOp) -> bool: return fn.is_lenient and u.dtype is dtypes.int32

def stays_small(fn: Function, flow: Flow, back: UOp, start: UOp, following: UOp, step: int) -> bool:
  """Whether a counter of 32 bits never wraps: it begins with a number and goes on while i + 1 < bound."""
  tests = [fn.blocks[p][-1] for p in flow.before[back]]
  if start.op is not Ops.CONST or step != 1 or len(tests) != 1 or tests[0].op is not Ops.BRANCH: return False
  condition, yes, _ = tests[0].src
  return following.dtype.bits == 32 and yes is back and condition.op is Ops.CMPLT and condition.src[0] is following

def simplified(u: UOp) -> UOp: return rewrite(u, fold_alu)
def counter_of(variable: UOp) -> UOp: return variable.src[0] if variable.op is Ops.CAST else variable

def pointer_of(u: UOp, owner: dict[UOp, Counted]) -> Pointer | None:
  if u.op is not Ops.ADD or u.dtype is not dtypes.ptr: return None
  base, offset = u.src
  if offset in owner: return Pointer(base, offset, 1)
  if offset.op not in (Ops.MUL, Ops.SHL): return None
  if offset.src[0] not in owner or offset.src[1].op is not Ops.CONST: return None
  factor = offset.src[1].arg
  return Pointer(base, offset.src[0], factor if offset.op is Ops.MUL else 1 << factor)

def add_parameters(fn: Function, flow: Flow, owner: dict[UOp, Counted], found: dict[UOp, Pointer]) -> Function:
  blocks = {label: list(block) for label, block in fn.blocks.items()}
  table: Table = {}
  made: dict[UOp, UOp] = {}                                          # variable -> a pointer to compare instead
  for u, (base, variable, scale) in found.items():
    loop = owner[variable]
    start, step = loop.variables[variable]
    enter, back = blocks[loop.enter], blocks[loop.back]
    table[u] = phi(loop.head, len(enter[-1].src) - 1, dtypes.ptr)
    from_base = start.op is Ops.CONST and start.arg == 0 and base.dtype is dtypes.ptr         # an array's dtype is not
    first = base if from_base else moved(base, simplified(start * scale))
    enter[-1] = enter[-1].with_src((*enter[-1].src, first))
    back[-1] = back[-1].with_src((*back[-1].src, moved(table[u], step * scale)))
    if scale > 0: made.setdefault(variable, u)
  table.update(compared_pointers(fn, flow, owner, found, table, made))
  return prune(forward(replace(fn, blocks=blocks), table))

def moved(pointer: UOp, offset: "UOp | int") -> UOp:
  by = UOp.const(dtypes.int64, offset) if isinstance(offset, int) else offset
  return UOp(Ops.ADD, dtypes.ptr, (pointer, by))

def compared_pointers(fn: Function, flow: Flow, owner: dict[UOp, Counted], found: dict[UOp, Pointer], table: Table,
                      made: dict[UOp, UOp]) -> Table:
  """i + 1 < bound -> pointer + scale != end, and i - 1 >= bound likewise, for variables that nothing but the loop and
  its pointers use, where the first value is within the bound: then the variable meets what is next to the last."""
  users = consumers(every_node(fn))
  home = homes(fn, flow)
  out: Table = {}
  for variable, u in made.items():
    loop = owner[variable]
    start, step = loop.variables[variable]
    counter = counter_of(variable)
    following = counter + step
    tests = [s for s in users.get(following, ()) if s.op is Ops.CMPLT and s.src[0] is following]
    if abs(step) != 1 or len(tests) != 1: continue
    test, bound = tests[0], tests[0].src[1]
    counts = {following, fn.blocks[loop.back][-1], fn.blocks[loop.enter][-1], test}
    others = [s for s in users[counter] + users[following] if s not in counts and not only_for(s, found, users)]
    if others or home[bound] is loop.head or not flow.dominates(home[bound], loop.head): continue
    base, _, scale = found[u]
    following_pointer = moved(table[u], step * scale)
    if step == 1 and is_below(fn, flow, loop, start, bound):
      last = simplified(bound.cast(dtypes.int64) * scale)
      out[test] = following_pointer.ne(moved(base, last))
    negated = test.ne(True)
    if step == -1 and users[test] == [negated] and is_number(start) and is_number(bound) and start.arg >= bound.arg:
      out[negated] = following_pointer.ne(moved(base, (bound.arg - 1) * scale))
  return out

def is_number(u: UOp) -> bool: return u.op is Ops.CONST

def is_below(fn: Function, flow: Flow, loop: Counted, start: UOp, bound: UOp) -> bool:
  """Whether a loop is entered with a start below the bound: both are numbers, or a branch on the way asked."""
  if is_number(start) and is_number(bound): return start.arg < bound.arg
  before = flow.before[loop.enter]
  test = fn.blocks[before[0]][-1] if len(before) == 1 else None
  if test is None or test.op is not Ops.BRANCH or test.src[1] is not loop.enter or test.src[0].op is not Ops.CMPLT:
    return False
  asked, limit = test.src[0].src
  return limit is bound and simplified(asked.cast(dtypes.int64)) is start

def only_for(u: UOp, found: dict[UOp, Pointer], users: dict[UOp, list[UOp]]) -> bool:
  """Whether u is used for nothing but pointers that became parameters."""
  waiting = [u]
  while waiting:
    u = waiting.pop()
    if u in found: continue
    if u.op not in (Ops.MUL, Ops.SHL, Ops.CAST) or not users.get(u): return False
    waiting += users[u]
  return True

# ---- addresses -------------------------------------------------------------------------------------------------------

def constants_last(fn: Function) -> Function:
  """Loads and stores take the constants of addresses."""
  table = {u: new for u in every_node(fn) if (new := constant_last(fn, u)) is not u}
  return simplify(forward(fn, table)) if table else fn

def constant_last(fn: Function, u: UOp) -> UOp:
  """p + (x + c)*k = (p + x*k) + c*k"""
  if u.op is not Ops.ADD or u.dtype is not dtypes.ptr: return u
  base, offset = u.src
  if offset.op is Ops.CONST:
    inner = constant_last(fn, base)
    return u if inner is base else u.with_src((inner, offset))
  rest, constant = split_constant(fn, offset)
  return moved(moved(base, rest), constant) if constant else u

def split_constant(fn: Function, u: UOp) -> tuple[UOp, int]:
  """(x, c) with u = x + c, of 64 bits."""
  if u.op in (Ops.MUL, Ops.SHL) and u.src[1].op is Ops.CONST:
    rest, constant = split_constant(fn, u.src[0])
    return u.with_src((rest, u.src[1])), constant * (u.src[1].arg if u.op is Ops.MUL else 1 << u.src[1].arg)
  inner = u.src[0] if u.op is Ops.CAST and never_wraps(fn, u.src[0]) else u
  if inner.op is not Ops.ADD or inner.src[1].op is not Ops.CONST: return u, 0
  return inner.src[0].cast(dtypes.int64), inner.src[1].arg

def outer_terms_first(fn: Function, flow: Flow) -> Function:
  """(p + inner) + outer = (p + outer) + inner: what changes in outer loops alone is added there."""
  home, nodes = homes(fn, flow), every_node(fn)
  users = consumers(nodes)
  def depth(u: UOp) -> int: return flow.depth[home[u]] if u in home else 0
  table: Table = {}
  for u in nodes:
    if u.op is not Ops.ADD or u.dtype is not dtypes.ptr or u.src[1].op is Ops.CONST: continue
    first, outer = u.src
    if first.op is not Ops.ADD or first.src[1].op is Ops.CONST or len(users[first]) > 1: continue
    base, inner = first.src
    if depth(outer) < depth(inner) and depth(base) < depth(inner): table[u] = moved(moved(base, outer), inner)
  return outer_terms_first(forward(fn, table), flow) if table else fn

# ---- branches that are decided where a jump comes from ---------------------------------------------------------------

def thread_jumps(fn: Function) -> Function:
  """A jump to a block that does nothing but ask about what is passed, where that is a number, goes where the answer
  leads."""
  users = consumers(every_node(fn))
  askers = {label: block[0] for label, block in fn.blocks.items()
            if block[0].op is Ops.BRANCH and not is_read_elsewhere(label, block[0], users)}
  blocks = dict(fn.blocks)
  for label, block in fn.blocks.items():
    jump = block[-1]
    if jump.op is not Ops.JUMP or jump.src[0] not in askers: continue
    target = answer(jump, askers[jump.src[0]])
    if target is not None: blocks[label] = [*block[:-1], UOp(Ops.JUMP, dtypes.void, (target,))]
  return fn if blocks == fn.blocks else prune(split_edges(in_order(replace(fn, blocks=blocks))))

def answer(jump: UOp, branch: UOp) -> UOp | None:
  """Where a branch leads that a jump passes its parameters to."""
  label, *values = jump.src
  if all(v.op is not Ops.CONST for v in values): return None
  condition = simplified(branch.src[0].substitute({phi(label, k, v.dtype): v for k, v in enumerate(values)}))
  return branch.src[1 if condition.arg else 2] if condition.op is Ops.CONST else None

def is_read_elsewhere(label: UOp, branch: UOp, users: dict[UOp, list[UOp]]) -> bool:
  """Whether more than a block's branch depends on its parameters."""
  waiting = [u for u in users.get(label, ()) if u.op is Ops.PHI]
  while waiting:
    u = waiting.pop()
    if u.op in STATEFUL | TERMINATORS and u is not branch: return True
    if u is not branch: waiting += users[u]
  return False
