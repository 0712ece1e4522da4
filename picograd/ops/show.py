# show.py: programs as text, in each of their forms: graph, structured list, function of blocks; and what passes change.
# One line per node: `%3 = MUL float32 (4, 4) %1 %2`. Constants stand where they are used. Reads only; changes nothing.
#   show(graph)      sources before users                 show(function)   blocks with their parameters, in order
#   show(list)       indented by the loops around         diff(a, b)       the lines that went (-) and came (+)
from __future__ import annotations
import difflib
from typing import Any, Callable, NamedTuple
from picograd.dtype import dtypes
from picograd.helpers import colour
from picograd.ops.ops import Axis, Buf, MOVEMENT, Ops, TERMINATORS
from picograd.ops.uop import UOp, toposort

class Line(NamedTuple):
  depth: int            # how far it is indented
  before: str           # "%3 = ", or the whole line where it stands for no node
  op: Ops | None = None
  after: str = ""       # dtype, shape, arg and sources

Names = dict[UOp, str]

def show(code: Any) -> str:
  """A listing of a UOp, a list (structured, or the roots of a graph), or anything that has `.blocks`."""
  return "\n".join(text(line, op_text=coloured_op) for line in lines_of(code, {}))

def diff(before: Any, after: Any) -> str:
  """What distinguishes two programs. A node of both has one number, so a line differs only if its node does."""
  names: Names = {}
  old, new = [[text(line, op_text=repr) for line in lines_of(code, names)] for code in (before, after)]
  changes = list(difflib.unified_diff(old, new, lineterm="", n=1))[2:]
  tints = {"+": "green", "-": "red", "@": "cyan"}
  return "\n".join(colour(line, tints[line[0]]) if line[0] in tints else line for line in changes)

# ---- one line --------------------------------------------------------------------------------------------------------

OP_COLOURS = {
  "cyan": MOVEMENT,
  "yellow": {Ops.BUFFER, Ops.PARAM, Ops.INDEX, Ops.LOAD, Ops.FETCH, Ops.STORE, Ops.COPY, Ops.CONTIGUOUS},
  "magenta": {Ops.RANGE, Ops.END, Ops.SPECIAL, Ops.LABEL, Ops.CALL} | TERMINATORS,
  "red": {Ops.REDUCE, Ops.WMMA},
  "grey": {Ops.AFTER, Ops.SINK, Ops.DETACH, Ops.BARRIER},
}
COLOUR_OF = {op: name for name, ops in OP_COLOURS.items() for op in ops}
def coloured_op(op): return colour(repr(op), COLOUR_OF[op]) if op in COLOUR_OF else repr(op)

def text(line: Line, op_text: Callable[[Ops], str]) -> str:
  return "  " * line.depth + line.before + (op_text(line.op) + line.after if line.op is not None else "")

def name_of(u, names):
  """How a node is written as a source. An AFTER that has no line of its own is what it orders."""
  while u.op is Ops.AFTER and u not in names: u = u.src[0]
  if u in names: return names[u]
  if u.op is Ops.CONST: return str(u.arg)
  if u.op is Ops.LABEL: return f"L{u.arg}"
  return number(u, names)
def number(u: UOp, names: Names) -> str: return names.setdefault(u, f"%{len(names)}")

def dtype_text(u):
  if u.dtype is dtypes.void: return ""
  lanes = f"x{u.dtype.count}" if u.dtype.count > 1 else ""
  return f" {u.dtype.name}{lanes}"

def arg_text(u):
  if u.arg is None: return ""
  if isinstance(u.arg, Buf): return f" #{u.arg.id} size={u.arg.size} {u.arg.space.name} {u.arg.device}".rstrip()
  if u.op is Ops.RANGE and isinstance(u.arg[1], Axis): return f" r{u.arg[0]} {u.arg[1].name}"
  if u.op is Ops.REDUCE: return f" {u.arg[0]} {u.arg[1]}" if u.arg[1] else f" {u.arg[0]}"
  return f" {u.arg}"

def line_of(u: UOp, depth: int, names: Names) -> Line:
  sources = "".join(" " + name_of(s, names) for s in u.src)
  shape = f" {u.shape}" if u.shape else ""
  before = "" if u.op in TERMINATORS or u.op is Ops.CONST else f"{number(u, names)} = "
  arg = "" if u.op in MOVEMENT and u.arg == u.shape else arg_text(u)
  return Line(depth, before, u.op, f"{dtype_text(u)}{shape}{arg}{sources}")

# ---- the forms -------------------------------------------------------------------------------------------------------

def lines_of(code, names):
  if hasattr(code, "blocks"): return function_lines(code, names)
  if isinstance(code, UOp): return graph_lines([code], names)
  return list_lines(code, names) if is_complete(code) else graph_lines(code, names)

def is_complete(nodes):
  """Whether the list names every node itself: a structured list, in which only order (AFTER, SINK) has no line."""
  listed = set(nodes)
  return all(s in listed or s.op in (Ops.AFTER, Ops.SINK, Ops.CONST) for u in nodes for s in u.src)

def graph_lines(roots, names):
  listed = [u for u in toposort(roots) if u.op is not Ops.CONST or u in roots]
  return [line_of(u, 0, names) for u in listed]

def list_lines(nodes, names):
  out, depth = [], 0
  for u in nodes:
    if u.op is Ops.END: depth -= sum(s.op is Ops.RANGE for s in u.src)
    if u.op is not Ops.CONST: out.append(line_of(u, max(depth, 0), names))
    if u.op is Ops.RANGE: depth += 1
  return out

def function_lines(function, names):
  """Blocks in order. A pure node that no block lists stands before the first node that needs it."""
  roots = [u for block in function.blocks.values() for u in block]
  parameters: dict[UOp, list[UOp]] = {}
  for u in toposort(roots):
    if u.op is Ops.PHI: parameters.setdefault(u.src[0], []).append(u)
  out = [Line(0, signature(function))]
  known = set(roots)                                        # what has a line, or gets one where a block lists it
  for label, block in function.blocks.items():
    phis = sorted(parameters.get(label, ()), key=lambda p: p.arg)
    inside = ", ".join(name_of(p, names) + dtype_text(p) for p in phis)
    out.append(Line(0, f"{name_of(label, names)}({inside}):"))
    for root in block:
      known.discard(root)
      new = [u for u in toposort([root], stop=known.__contains__) if u not in known]
      known.update(new)
      out.extend(line_of(u, 1, names) for u in new if u.op not in (Ops.LABEL, Ops.PHI, Ops.CONST))
  return out

def signature(function):
  params = ", ".join(dt.name for dt in function.params)
  return f"{function.name}({params}) -> {function.result.name}"
