# inline.py: calls of small functions become their blocks. In: a Module's functions, after mem2reg, not placed. Out: the
# same functions; where one calls another that is short, or called only once, the callee's blocks stand; so does an
# instruction where one calls the library's sqrt.
from __future__ import annotations
from collections import Counter
from dataclasses import replace
from typing import Callable, Iterable
from picograd.codegen.flat import (Blocks, Builder, Function, STATEFUL, every_node, forward, in_order, new_label,
                                   operands, phi, split_edges)
from picograd.dtype import DType, dtypes
from picograd.ops.ops import EFFECTS, Ops
from picograd.ops.uop import Table, UOp, fresh, substitute

VOID = dtypes.void
SHORT, ONCE, LARGEST = 40, 400, 6000       # nodes of a callee; of one with a single call; of a caller that still grows
ARRAY_BYTES = 1024                         # a callee with more in its frame stays a call

def called_name(u: UOp) -> str | None:
  """The function that a call names."""
  return u.src[0].arg if u.op is Ops.CALL and u.src[0].op is Ops.SYM else None

def calls_of(fn: Function) -> list[UOp]: return [u for block in fn.blocks.values() for u in block if u.op is Ops.CALL]

def callees_first(functions: Iterable[Function]) -> list[Function]:
  """In postorder of the calls."""
  by_name = {fn.name: fn for fn in functions}
  below = {name: [by_name[c] for u in calls_of(fn) if (c := called_name(u)) in by_name] for name, fn in by_name.items()}
  order: dict[str, Function] = {}
  entered: set[str] = set()
  stack = [(fn, False) for fn in by_name.values()]
  while stack:
    fn, done = stack.pop()
    if done: order[fn.name] = fn
    elif fn.name not in entered:
      entered.add(fn.name)
      stack.append((fn, True))
      stack.extend((callee, False) for callee in below[fn.name])
  return list(order.values())

def mentions(functions: Iterable[Function]) -> Counter[str]:
  """How often functions name each symbol, as a callee or otherwise."""
  count: Counter[str] = Counter()
  for fn in functions:
    count.update(name for u in calls_of(fn) if (name := called_name(u)) is not None)
    for u in every_node(fn): count.update(s.arg for s in (operands(u)[1:] if u.op is Ops.CALL else operands(u))
                                          if s.op is Ops.SYM)
  return count

def size_of(fn: Function) -> int: return sum(u.op is not Ops.CONST for u in every_node(fn))

def may_be_inlined(fn: Function) -> bool:
  """Not what looks at its own frame, nor what calls itself, nor what has a table that the program knows."""
  if fn.returns_twice or fn.convention.memory: return False
  if any(block[-1].op is Ops.SWITCH and block[-1].arg is not None for block in fn.blocks.values()): return False
  names = [called_name(u) for u in calls_of(fn)]
  if fn.name in names or any(name is not None and name.startswith("__builtin_") for name in names): return False
  arrays = [u for u in every_node(fn) if u.op is Ops.BUFFER]
  return sum(u.arg.size * u.dtype.itemsize for u in arrays) <= ARRAY_BYTES

def inline_all(functions: list[Function], replaceable: Iterable[str], improve: Callable[[Function], Function]
               ) -> list[Function]:
  """replaceable: names that another object may define differently. improve: what each function goes through once its
  callees are in it."""
  count, fixed = mentions(functions), set(replaceable)
  own = {fn.name for fn in functions}
  bodies = {name: square_root(name, dtype) for name, dtype in ROOTS.items() if name in count and name not in own}
  out: dict[str, Function] = {}
  for fn in callees_first(functions):
    done = improve(inline_calls(fn, bodies) if not fn.returns_twice and size_of(fn) <= LARGEST else improve(fn))
    out[fn.name] = done
    limit = ONCE if fn.is_local and count[fn.name] == 1 else SHORT
    if fn.name not in fixed and may_be_inlined(done) and size_of(done) <= limit: bodies[fn.name] = done
  return [out[fn.name] for fn in functions]

ROOTS = {"sqrt": dtypes.float64, "sqrtf": dtypes.float32}

def square_root(name: str, dtype: DType) -> Function:
  """What C's function does, as far as an instruction can: the library's sets errno where the argument is negative."""
  b = Builder(name, [dtype], dtype)
  x, negative, other = b.param(0), new_label(), new_label()
  b.branch(x < 0, negative, other)
  b.begin(negative)
  b.ret(b.call(name, x, dtype=dtype))
  b.begin(other)
  b.ret(UOp(Ops.SQRT, dtype, (x,)))
  return b.finish()

def fits(call: UOp, fn: Function) -> bool:
  """Whether a call passes and takes what the function's definition says."""
  passed = [a.dtype for a in call.src[1:-1]]
  results = call.arg.results or ((call.dtype,) if call.dtype is not VOID else ())
  return passed == fn.params and (not results or results == results_of(fn))

def results_of(fn: Function) -> tuple[DType, ...]:
  return fn.convention.results or ((fn.result,) if fn.result is not VOID else ())

def inline_calls(fn: Function, bodies: dict[str, Function]) -> Function:
  """Calls of what bodies has become its blocks: what comes before a call jumps to them, they to what comes after it."""
  if not any(called_name(u) in bodies for u in calls_of(fn)): return fn
  blocks: Blocks = {}
  table: Table = {}
  taken: dict[UOp, UOp] = {}                                         # call -> the block after it, whose parameters
  for label, block in fn.blocks.items():                             # are its results
    at, out = label, []
    state: Table = {}                                                # effect -> the state after it, where that is new
    for u in block:
      new = u
      if u.op in STATEFUL or u.op in EFFECTS: new = u.with_src((*u.src[:-1], state.get(u.src[-1], u.src[-1])))
      body = bodies.get(called_name(u) or "")
      if body is None or not fits(u, body):
        if new is not u: table[u] = state[u] = new
        out.append(new)
        continue
      join = new_label()
      copies = copied(body, u.src[1:-1], join)
      blocks[at] = [*out, UOp(Ops.JUMP, VOID, (next(iter(copies)),))]
      blocks.update(copies)
      at, out = join, []
      state[u] = taken[u] = join
      if u.dtype is not VOID: table[u] = phi(join, 0, u.dtype)
    blocks[at] = out
  for u in every_node(fn):
    if u.op is Ops.INDEX and u.src[0] in taken: table[u] = phi(taken[u.src[0]], u.src[1].arg, u.dtype)
  return split_edges(forward(in_order(replace(fn, blocks=blocks)), table))

def copied(fn: Function, arguments: tuple[UOp, ...], join: UOp) -> Blocks:
  """The blocks of a callee for one call, which end by jumping to join."""
  table: Table = {label: new_label() for label in fn.blocks}
  for u in every_node(fn):
    if u.op is Ops.PARAM: table[u] = arguments[u.arg]
    elif u.op is Ops.BUFFER: table[u] = u.replace(arg=u.arg._replace(id=next(fresh)))
  flat = [u for block in fn.blocks.values() for u in block]
  new = dict(zip(flat, substitute(flat, table)))
  def ended(u: UOp) -> UOp: return UOp(Ops.JUMP, VOID, (join, *u.src)) if u.op is Ops.RET else u
  return {table[label]: [ended(new[u]) for u in block] for label, block in fn.blocks.items()}
