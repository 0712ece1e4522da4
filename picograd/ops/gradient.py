# gradient.py: the chain rule as a table over tensor-form nodes, the walk in reverse. In: a root, the
# gradient (or tangents) to start with, the nodes asked for. Out: new nodes of the same form: gradients have gradients.
# Corner cases follow torch: ties of maximum share half and half, ties of amax equally, prod is right with zeros in it.
from __future__ import annotations
import math
from typing import Any, Callable, Container, Iterable, Mapping
from picograd.dtype import dtypes
from picograd.helpers import argsort, prod
from picograd.ops.ops import Ops
from picograd.ops.uop import Table, UOp, fresh, from_memory, toposort, view_of
from picograd.ops.windows import CORRELATION, gradients_of_correlation

# ---- what depends on what --------------------------------------------------------------------------------------------

CONSTANT = frozenset({Ops.DETACH, Ops.BITCAST, Ops.CONST, Ops.BUFFER, Ops.RANGE})       # derivative zero everywhere

def is_constant(u):
  if u.op is Ops.DETACH: return u.arg is None
  return u.op in CONSTANT or u.dtype.kind not in "fv"                                   # void: a STORE under an AFTER

def stores_of(u): return [s for s in u.src[1:] if s.op is Ops.STORE]

def inputs(u: UOp) -> tuple[UOp, ...]:
  """What u is a function of. An assignment AFTER(buffer, STORE(view, value).. ) is one of the value that the first view
  looks at and of each stored value."""
  if u.op is Ops.DETACH: return u.src[1:]
  if u.op is not Ops.AFTER: return u.src
  stores = stores_of(u)
  before = view_of(stores[0].src[0])[0] if stores else u.src[0]
  return (before, *(s.src[1] for s in stores))

def nodes_above(root: UOp, targets: Iterable[UOp]) -> tuple[list[UOp], set[UOp]]:
  """The nodes below root that a derivative may cross, sources first, and those of them that depend on a target."""
  order = toposort((root,), stop=is_constant)
  above = set(targets)
  for u in order:
    if is_constant(u) or u.dtype is dtypes.void: continue
    if any(s in above for s in inputs(u)): above.add(u)
  return order, above

# ---- the table: op -> (node, gradient of the node) -> a gradient for each input, None for none -----------------------

Gradients = tuple["UOp | None", ...]

def wide(dt):
  """The type in which many values of dt are added up."""
  return dtypes.float32 if dt.bits == 16 else dt

def sum_over(x: UOp, axes: tuple[int, ...]) -> UOp:
  return x.cast(wide(x.dtype)).reduce(Ops.ADD, axes).cast(x.dtype)

def keep(condition, x): return condition.where(x, 0)

def cosine(x):
  """cos(x) = sin(pi/2 - x), which decompose.py computes without rounding the difference; cos(pi/2 + y) = -sin(y)."""
  if x.op is Ops.ADD and x.src[0] is x.like(math.pi / 2): return -x.src[1].alu(Ops.SIN)
  return (math.pi / 2 - x).alu(Ops.SIN)

def grad_max(u, g):
  """max(x,y): to the larger; half to each where they are equal; to both where one is NaN."""
  x, y = u.src
  shared = x.eq(y).where(g * 0.5, g)
  return (x < y).where(0, shared), (y < x).where(0, shared)

def grad_reduce(u, g):
  x, (op, axes) = u.src[0], u.arg
  if op is Ops.ADD: return (g.expand(x.shape),)
  if op is Ops.MAX: return (grad_amax(u, g),)
  return (g.expand(x.shape) * product_of_others(x, axes),)

def grad_amax(u, g):
  """The gradient in equal parts to all elements that equal the maximum; NaN to all where the maximum is NaN."""
  x, (_, axes) = from_memory(u.src[0]), u.arg
  largest = x.eq(x.reduce(Ops.MAX, axes).expand(x.shape))
  dt = wide(x.dtype)
  count = largest.cast(dt).reduce(Ops.ADD, axes)
  return (keep(largest, g.cast(dt).expand(x.shape)) / count.expand(x.shape)).cast(x.dtype)

def product_of_others(x, axes):
  """For each element the product of all other elements along the axes, without a division. A binary tree: going up, a
  node is the product of its two children; going down, others(child) = others(parent) * sibling."""
  kept = tuple(d for d in range(len(x.shape)) if d not in axes)
  moved = x.permute(kept + axes)
  rows, n = prod(x.shape[d] for d in kept), prod(x.shape[d] for d in axes)
  size = 1 << max(0, n - 1).bit_length()
  missing = ((0, 0), (0, size - n))
  valid = UOp.const(dtypes.bool, True).spread((rows, n)).pad(missing)
  level = valid.where(moved.reshape((rows, n)).pad(missing), 1)                # (rows, size), ones at the end
  levels = []
  while size > 1:
    size //= 2
    pairs = level.reshape((rows, size, 2))
    levels.append(pairs)
    left, right = (pairs.shrink(((0, rows), (0, size), (side, side + 1))) for side in (0, 1))
    level = (left * right).reshape((rows, size))
  others = level.like(1)                                                       # of the root: an empty product
  for pairs in reversed(levels):
    parent = others.reshape((*pairs.shape[:2], 1)).expand(pairs.shape)
    others = (parent * pairs.flip((2,))).reshape((rows, pairs.shape[1] * 2))
  return others.shrink(((0, rows), (0, n))).reshape(moved.shape).permute(argsort(kept + axes))

def grad_expand(u, g):
  stretched = tuple(d for d, n in enumerate(u.src[0].shape) if n != u.shape[d])
  return (sum_over(g, stretched),)

def grad_pad(u, g):
  kept = tuple((lo, lo + n) for n, (lo, _) in zip(u.src[0].shape, u.arg))
  return (g.shrink(kept),)

def grad_shrink(u, g):
  missing = tuple((lo, n - hi) for n, (lo, hi) in zip(u.src[0].shape, u.arg))
  return (g.pad(missing),)

def look(chain, x):
  """x seen through a chain of movement ops."""
  for move in chain: x = UOp(move.op, x.dtype, (x,), move.arg)
  return x

def written(chain, shape):
  """Which elements of the buffer the chain looks at: ones put where it looks, zeros elsewhere."""
  ones: Any = UOp.const(dtypes.float32, 1).spread(shape)
  for move in reversed(chain): ones = RULES[move.op](move, ones)[0]
  return ones.ne(0)

def grad_after(u, g):
  """A stored value gets the gradient of what it overwrote; the value before, that of what nothing overwrote."""
  to_values = []
  for store in reversed(stores_of(u)):
    view, value = store.src
    chain = view_of(view)[1]
    to_values.append(look(chain, g) if value.dtype.kind == "f" else None)
    g = written(chain, view.shape).where(0, g)
  return (g, *reversed(to_values))

def grad_copy(u, g):
  return (UOp(Ops.COPY, g.dtype, (g,), u.src[0].device or u.arg),)

def grad_softmax(u, g):
  """Of y = softmax(x): y (g - sum(g y))."""
  dt = wide(u.dtype)
  y, g = u.cast(dt), g.cast(dt)
  return (y * (g - (g * y).reduce(Ops.ADD, u.arg[1:]).expand(y.shape))).cast(u.dtype)

def grad_logsumexp(u, g):
  """Of y = log(sum(exp(x))): g exp(x - y)."""
  x, dt = u.src[1], wide(u.dtype)
  y = u.cast(dt)
  infinite = y.eq(math.inf) | y.eq(-math.inf)
  distance = x.cast(dt) - infinite.where(0, y).expand(x.shape)
  return (g.cast(dt).expand(x.shape) * (distance * (1 / math.log(2))).alu(Ops.EXP2)).cast(x.dtype)

def grad_standardised(u, g):
  """Of y = (x - mean(x)) r, r = 1 / deviation(x): r (g - mean(g) - y mean(g y)). What r is computed from is written
  with the signs turned: it is the same number, but a node of its own, so that x to y remains one kernel."""
  axes, x, eps = u.arg[1:], u.src[1], u.src[2]
  count = prod(u.shape[a] for a in axes)
  def mean(v: UOp) -> UOp: return v.reduce(Ops.ADD, axes) / count
  centred = x + mean(-x).expand(x.shape)
  variance = mean(centred * centred)
  r = variance.like(1) / (variance + eps.arg).alu(Ops.SQRT)
  return r.expand(x.shape) * (g - mean(g).expand(x.shape) - u * mean(g * u).expand(x.shape))

def grad_normal(u, g):
  """Of the normal distribution's integral: its density, exp(-x^2/2) / sqrt(2 pi)."""
  x = u.src[1]
  return g * ((x * x * (-0.5 / math.log(2))).alu(Ops.EXP2) * (1 / math.sqrt(2 * math.pi)))

# DETACH(value, x, ..) with (one of these names, axes..) has a derivative by x that follows from the value y or from x.
BY_VALUE: dict[str, Callable[[UOp, UOp], UOp]] = {
  "tanh": lambda y, g: g * (1 - y * y),
  "sigmoid": lambda y, g: g * (y * (1 - y)),
  "softmax": grad_softmax,
  "logsumexp": grad_logsumexp,
  "standardised": grad_standardised,
  "normal": grad_normal,
}

def grad_detach(u, g):
  if u.arg[0] == CORRELATION: return gradients_of_correlation(u, g)
  return (BY_VALUE[u.arg[0]](u, g),)

RULES: dict[Ops, Callable[[UOp, UOp], Gradients]] = {
  Ops.EXP2: lambda u, g: (g * (u * math.log(2)),),                             # 2^x' = 2^x ln 2
  Ops.LOG2: lambda u, g: (g * (1 / math.log(2)) / u.src[0],),                  # log2'(x) = 1 / (x ln 2)
  Ops.SIN: lambda u, g: (g * cosine(u.src[0]),),                               # sin' = cos
  Ops.SQRT: lambda u, g: (g / (u * 2),),                                       # sqrt'(x) = 1 / (2 sqrt(x))
  Ops.CAST: lambda u, g: (g.cast(u.src[0].dtype),),                            # linear; float to float only
  Ops.ADD: lambda u, g: (g, g),                                                # (x+y)' = x' + y'
  Ops.MUL: lambda u, g: tuple([UOp(Ops.MUL, g.dtype, (g, s), u.arg) for s in u.src[::-1]]),      # (xy)' = x'y + xy'
  Ops.FDIV: lambda u, g: (g / u.src[1], -g * (u / u.src[1])),                  # (x/y)' = x'/y - y' (x/y)/y
  Ops.MULACC: lambda u, g: (g * u.src[1], g * u.src[0], g),                    # (xy+z)' = x'y + xy' + z'
  Ops.MAX: grad_max,
  Ops.WHERE: lambda u, g: (None, keep(u.src[0], g), u.src[0].where(0, g)),     # each branch where it is taken
  Ops.REDUCE: grad_reduce,
  Ops.RESHAPE: lambda u, g: (g.reshape(u.src[0].shape),),                      # movement: put it back
  Ops.PERMUTE: lambda u, g: (g.permute(argsort(u.arg)),),
  Ops.FLIP: lambda u, g: (g.flip(u.arg),),
  Ops.EXPAND: grad_expand,                                                     # one element read often: the sum
  Ops.PAD: grad_pad,
  Ops.SHRINK: grad_shrink,
  Ops.CONTIGUOUS: lambda u, g: (g,),
  Ops.DETACH: grad_detach,
  Ops.COPY: grad_copy,
  Ops.AFTER: grad_after,
}

def rule_of(u):
  if u.op not in RULES: raise NotImplementedError(f"{u.op} of {u.dtype} has no derivative: detach() its operand")
  return RULES[u.op]

# ---- the walk --------------------------------------------------------------------------------------------------------

def gradient(root: UOp, seed: UOp, targets: Iterable[UOp], ends: Container[UOp] = ()) -> Table:
  """Reverse mode: for each target that root depends on, the gradient of sum(root * seed), in the target's shape and
  dtype. seed has root's. A target may be below another one, but not below one of the ends. Targets that root does
  not depend on are absent."""
  if (seed.shape, seed.dtype) != (root.shape, root.dtype):
    raise ValueError(f"the gradient of a {root.shape} {root.dtype} cannot start from a {seed.shape} {seed.dtype}")
  wanted = dict.fromkeys(targets)
  order, above = nodes_above(root, wanted)
  grads = {root: seed} if root in above else {}
  for u in reversed(order):
    if u not in grads or is_constant(u) or u in ends: continue
    sources = inputs(u)
    if any(s in above for s in sources):
      for source, g in zip(sources, rule_of(u)(u, grads[u])):
        if g is not None and source in above: grads[source] = grads[source] + g if source in grads else g
    if u not in wanted: del grads[u]                                           # every user has been seen: it is used up
  return {t: grads[t] for t in wanted if t in grads}

def jvp(root: UOp, tangents: Mapping[UOp, UOp]) -> UOp | None:
  """Forward mode: the derivative of root when each key moves by its tangent; None where root depends on no key. A
  gradient is linear in its seed, by the transpose of the matrix wanted here: its own gradient is the matrix again."""
  seed = UOp(Ops.CONTIGUOUS, root.dtype, (root.like(0),), next(fresh))
  total: UOp | None = None
  for key, g in gradient(root, seed, tangents).items():
    part = gradient(g, tangents[key], [seed])[seed]
    total = part if total is None else total + part
  return total
