# ops.py: the operations in four banks, one row each. Nothing here knows about nodes, shapes or devices.
from __future__ import annotations
import enum, math, operator
from typing import Any, Callable, NamedTuple

class Ops(enum.Enum):
  # tensor: all that a user's program is made of
  EXP2, LOG2, SIN, SQRT, CAST, BITCAST = range(0, 6)
  ADD, MUL, FDIV, IDIV, MOD, MAX = range(6, 12)
  CMPLT, CMPNE, AND, OR, XOR, SHL, SHR, WHERE, REDUCE = range(12, 21)
  RESHAPE, PERMUTE, EXPAND, PAD, SHRINK, FLIP = range(21, 27)
  # data: where values live
  CONST, BUFFER, COPY, CONTIGUOUS, DETACH, SINK = range(27, 33)
  # kernel: loops and memory
  PARAM, RANGE, END, INDEX, LOAD, STORE = range(33, 39)
  AFTER, BARRIER, SPECIAL, STACK, WMMA, MULACC, FETCH = range(39, 46)
  # flat: blocks and calls
  LABEL, PHI, JUMP, BRANCH, CALL, RET, SYM, INS, SWITCH = range(46, 55)

  def __repr__(self) -> str: return self.name
  __str__ = __repr__
  __hash__ = object.__hash__            # by identity: enum's own hash is a Python call, and every node hashes its op
  def __lt__(self, other: "Ops") -> bool: return self.value < other.value

class Axis(enum.IntEnum):
  """What a RANGE stands for; the order is the order of nesting, outermost first."""
  THREAD = 0      # one of the threads of a CPU pool
  GLOBAL = 1      # one block of a GPU's grid
  BLOCK = 2       # a serial loop over blocks whose operands fit a cache, outside all other loops
  LOOP = 3        # a serial loop over outputs
  TILE = 4        # the steps of one tile, before they become UPCAST or VECTOR
  LOCAL = 5       # one thread of a GPU's block
  GROUP = 6       # threads of a block that share a reduction
  REDUCE = 7      # a serial loop over a reduction
  STRIP = 8       # outputs that advance together: a loop inside all others, reductions too
  UNROLL = 9      # a reduction written out
  UPCAST = 10     # outputs written out: a register tile
  VECTOR = 11     # lanes of one register

class Space(enum.IntEnum):
  """Where a BUFFER lives."""
  GLOBAL = 0      # device memory
  LOCAL = 1       # shared by a block's threads; on the CPU a scratch array of the kernel
  REG = 2         # private: an accumulator, a C local

class Odds(enum.Enum):
  """arg of a WHERE."""
  RARE = 0        # the condition seldom holds, and what it then takes is long to compute: worth a branch

class Streaming(enum.Enum):
  """arg of a STORE."""
  STORE = 0       # of what nobody reads soon: past the caches

class Fetch(NamedTuple):
  """arg of a LOAD: what lies so many bytes from here will be wanted soon; and, unless 0, what lies `near` sooner."""
  ahead: int
  near: int = 0

class Border(NamedTuple):
  """arg of an INDEX: the memory has this shape, and holds 0 outside of these bounds, low and high in each dimension."""
  shape: tuple[int, ...]
  inner: tuple[tuple[int, int], ...]

class Lifetime(enum.Enum):
  """arg of a STORE to a private array."""
  BEGINS = 0      # a variable that holds no value yet: whatever it held before is gone

ROUGH = "rough"          # arg of a MUL that is summed up: matrix units may round its operands

class Operand(NamedTuple):
  """Of a Tile: the slot; how far apart in memory the neighbours along the tile's side and along k are; how many of the
  nearer ones are known to be aligned together; how many rows of the farther stride its memory has, and how many
  elements of each belong to it."""
  slot: int
  outer: int
  inner: int
  lanes: int
  length: int
  width: int

  @property
  def is_along_k(self) -> bool: return self.inner == 1
  @property
  def pitch(self) -> int: return self.outer if self.is_along_k else self.inner

class Tile(NamedTuple):
  """arg of WMMA: results become a tile's sums over k of a * b. Sources: the results' memory, addresses of the first
  elements of a and b, the tile's first row and first column."""
  unit: str                      # who multiplies: a key of codegen/matrix.py
  bulk: bool                     # operands come by bulk tensor copies, not by threads
  dtype: str                     # of the operands
  itemsize: int
  m: int                         # of the whole contraction
  n: int
  k: int
  rows: int                      # of one tile
  columns: int
  depth: int                     # steps of k in one stage
  stages: int
  warp: tuple[int, int]          # rows and columns of the group of threads that multiplies together
  threads: int
  a: Operand
  b: Operand
  pitch: int                     # elements from one row of results to the next
  result: str                    # dtype of the results

class Buf(NamedTuple):
  """arg of BUFFER. size is in elements (for a C object: of bytes). version counts the assignments that have run."""
  id: int
  size: int
  space: Space = Space.GLOBAL
  device: str = ""
  version: int = 0

# ---- the Python meaning of the pure ops on Python numbers: constant folding and the interpreters share it ------------
# Results are exact in mathematics or rounded as float64; `dtype.truncate` brings them back into the node's dtype.

def exp2(x: float) -> float:
  try: return 2.0 ** x
  except OverflowError: return math.inf
def log2(x: float) -> float:
  if x > 0: return math.log2(x)
  return -math.inf if x == 0 else math.nan
def fdiv(x: float, y: float) -> float:
  if y != 0: return x / y
  return math.nan if x == 0 or x != x else math.copysign(math.inf, x) * math.copysign(1.0, y)
def idiv(x: int, y: int) -> int:
  """C's quotient, rounded towards zero. x/0 is 0: every device defines it so."""
  if y == 0: return 0
  quotient = abs(x) // abs(y)
  return quotient if (x < 0) == (y < 0) else -quotient
def imod(x: int, y: int) -> int:
  """C's remainder, x - idiv(x,y)*y. x%0 is x."""
  return x - idiv(x, y) * y
def maximum(x: Any, y: Any) -> Any:
  """The larger; NaN if either is NaN, as torch.maximum."""
  if x != x: return x
  return y if y != y or y > x else x

class OpInfo(NamedTuple):
  arity: int                                # number of value sources; -1 any
  meaning: Callable[..., Any] | None = None # on Python numbers
  commutative: bool = False

INFO: dict[Ops, OpInfo] = {
  Ops.EXP2: OpInfo(1, exp2),
  Ops.LOG2: OpInfo(1, log2),
  Ops.SIN: OpInfo(1, lambda x: math.sin(x) if math.isfinite(x) else math.nan),
  Ops.SQRT: OpInfo(1, lambda x: math.sqrt(x) if x >= 0 else math.nan),
  Ops.CAST: OpInfo(1, lambda x: x),
  Ops.BITCAST: OpInfo(1),
  Ops.ADD: OpInfo(2, operator.add, commutative=True),
  Ops.MUL: OpInfo(2, operator.mul, commutative=True),
  Ops.FDIV: OpInfo(2, fdiv),
  Ops.IDIV: OpInfo(2, idiv),
  Ops.MOD: OpInfo(2, imod),
  Ops.MAX: OpInfo(2, maximum, commutative=True),
  Ops.CMPLT: OpInfo(2, operator.lt),
  Ops.CMPNE: OpInfo(2, operator.ne, commutative=True),
  Ops.AND: OpInfo(2, operator.and_, commutative=True),
  Ops.OR: OpInfo(2, operator.or_, commutative=True),
  Ops.XOR: OpInfo(2, operator.xor, commutative=True),
  Ops.SHL: OpInfo(2, operator.lshift),
  Ops.SHR: OpInfo(2, operator.rshift),
  Ops.WHERE: OpInfo(3, lambda c, x, y: x if c else y),
  Ops.MULACC: OpInfo(3, lambda x, y, z: x * y + z),
}

UNARY = frozenset({Ops.EXP2, Ops.LOG2, Ops.SIN, Ops.SQRT, Ops.CAST, Ops.BITCAST})
BINARY = frozenset(op for op, info in INFO.items() if info.arity == 2)
COMPARE = frozenset({Ops.CMPLT, Ops.CMPNE})
COMMUTATIVE = frozenset(op for op, info in INFO.items() if info.commutative)
ALU = frozenset(INFO)                                                   # pure: a value from values
MOVEMENT = frozenset({Ops.RESHAPE, Ops.PERMUTE, Ops.EXPAND, Ops.PAD, Ops.SHRINK, Ops.FLIP})
EFFECTS = frozenset({Ops.STORE, Ops.CALL, Ops.BARRIER})
TERMINATORS = frozenset({Ops.JUMP, Ops.BRANCH, Ops.SWITCH, Ops.RET})
TRANSCENDENTAL = frozenset({Ops.EXP2, Ops.LOG2, Ops.SIN})

def identity(op: Ops, dt: Any) -> Any:
  """The element e with op(e, x) = x: what a reduction starts from and what an empty one gives."""
  return {Ops.ADD: 0, Ops.MUL: 1, Ops.MAX: dt.min, Ops.AND: -1 if dt.kind != "b" else True, Ops.OR: 0, Ops.XOR: 0}[op]
