# ring.py: memory that blocks of threads read once, ahead of its use. In: the structured list of a kernel for a GPU.
# Out: its Ring, if each block reads a piece of memory of its own, and all read something in common: rows of a matrix
# that is multiplied by a vector. As many blocks run as there are processors, and take the work of all blocks in turn.
# What is the same for all is computed once. Pieces come through stages of shared memory, by bulk copies (PTX ISA 8.x,
# cp.async.bulk) some pieces ahead; the first start before earlier kernels end, where those do not write what is copied.
# Also: what any kernel asks the cache for while it waits.   (chapter 3)
from __future__ import annotations
from typing import NamedTuple, Sequence
from picograd.codegen.target import Target
from picograd.dtype import dtypes
from picograd.helpers import ceildiv
from picograd.ops.index import Sum, bounds, span, sum_of
from picograd.ops.ops import Ops
from picograd.ops.uop import UOp, memory_of, toposort, without_after

class Piece(NamedTuple):
  """`size` elements of a slot's memory from `first` on, which depends on the block alone."""
  memory: UOp
  first: UOp
  size: int
  @property
  def nbytes(self) -> int: return self.size * self.memory.dtype.itemsize

class Ring(NamedTuple):
  """Who loads which piece, what is the same for all blocks, what else a block loads, how many stages there are."""
  pieces: dict[UOp, Piece]
  common: list[UOp]
  beside: list[UOp]
  stages: int = 1
  @property
  def each(self) -> list[Piece]: return list(dict.fromkeys(self.pieces.values()))
  @property
  def stage_bytes(self) -> int: return sum(piece.nbytes for piece in self.each)
  @property
  def slots(self) -> list[UOp]: return list(dict.fromkeys(piece.memory for piece in self.each))

PIECES = 64 << 10        # bytes that are copied at once: threads meet, and ask for the next ones, so much less often
ROOM = 2 * PIECES        # of stages; two rings in a processor are slower: blocks are not spread evenly then
STAGES = 8               # at most
SMALLEST = 1 << 10       # bytes of a piece under which a copy does not pay
IN_COMMON = 64           # floats that each thread may keep from one block's work to the next
COPIED = 16              # bytes: what is copied in bulk begins and ends at multiples
FETCHED = 1 << 18        # bytes at most that a block asks for before it waits

def ring_of(code: Sequence[UOp], target: Target) -> Ring | None:
  """How a kernel's blocks take turns, if they do."""
  if not target.bulk_copies or any(u.op in (Ops.WMMA, Ops.BARRIER) for u in code): return None
  common = common_part(code)
  ring = Ring(pieces_of(code), common, [])
  if not ring.pieces or 2 * ring.stage_bytes > ROOM: return None
  if not any(u.op is Ops.LOAD for u in common) or kept_floats(code, common) > IN_COMMON: return None
  beside = [u for u in code if u.op is Ops.LOAD and u not in ring.pieces and is_of_the_block(u, code)]
  return ring._replace(beside=beside, stages=min(STAGES, ROOM // ring.stage_bytes))

class Span(NamedTuple):
  """Elements of a slot's memory that loads read: `size` from `low` on, plus `factor` for each of `block`, a node that
  depends on the block alone; None where all blocks read the same."""
  memory: UOp
  block: UOp | None
  factor: int
  low: int
  size: int
  loads: list[UOp]
  @property
  def read(self) -> int:
    """How many elements all threads read."""
    return sum(map(elements, self.loads))
  @property
  def begins_whole(self) -> bool:
    """Whether it begins where bulk copies can."""
    return all(n * self.memory.dtype.itemsize % COPIED == 0 for n in (self.low, self.factor))
  @property
  def piece(self) -> Piece:
    if self.block is None: return Piece(self.memory, UOp.const(dtypes.int32, self.low), self.size)
    start = self.block * self.factor
    return Piece(self.memory, start + start.like(self.low) if self.low else start, self.size)

def spans_of(code: Sequence[UOp]) -> list[Span]:
  """What loads without conditions read of memory, where it lies in one stretch for each block."""
  found: dict[tuple[UOp, UOp | None, int], list[tuple[UOp, Sum]]] = {}
  for u in code:
    if u.op is not Ops.LOAD or memory_of(u).op is not Ops.PARAM: continue
    address = without_after(u.src[0])
    place = sum_of(address.src[1])
    own = [node for node in place.terms if names_in(node) == {"block"}]
    rest = Sum({node: factor for node, factor in place.terms.items() if node not in own}, place.constant)
    if len(own) > 1 or not all(map(is_true, address.src[2:])): continue
    if any(names_in(node) & {"block", "memory"} for node in rest.terms): continue
    block = own[0] if own else None
    found.setdefault((memory_of(u), block, place.terms[block] if block else 0), []).append((u, rest))
  spans = []
  for (memory, block, factor), loads in found.items():
    low = min(span(rest)[0] for _, rest in loads)
    size = max(span(rest)[1] + u.dtype.count for u, rest in loads) - low
    spans.append(Span(memory, block, factor, low, size, [u for u, _ in loads]))
  return spans

def is_true(gate: UOp) -> bool:
  return all(lane.op is Ops.CONST and lane.arg for lane in (gate.src if gate.op is Ops.STACK else (gate,)))

def pieces_of(code: Sequence[UOp]) -> dict[UOp, Piece]:
  """The pieces that blocks read, every element once, by the loads of them."""
  written = {memory_of(u) for u in code if u.op is Ops.STORE}
  own = [s for s in spans_of(code) if s.block is not None and s.begins_whole and s.memory not in written]
  large = [s for s in own if s.read == s.size and SMALLEST <= s.piece.nbytes == whole(s.piece.nbytes)]
  return {u: s.piece for s in large for u in s.loads}

def fetched(code: Sequence[UOp], few_blocks: bool) -> list[Piece]:
  """What other kernels may have pushed out of the cache: what all blocks read and, where there are few blocks, what
  each of them does."""
  found = [s for s in spans_of(code) if s.begins_whole and s.read >= s.size and (few_blocks or s.block is None)]
  pieces = [s.piece for s in found]
  return pieces if sum(piece.nbytes for piece in pieces) <= FETCHED else []

def whole(nbytes: int) -> int: return ceildiv(nbytes, COPIED) * COPIED

def elements(load: UOp) -> int:
  """How many elements the threads of a block read, in all steps of its loops."""
  total = load.dtype.count
  for u in toposort([load.src[0]]):
    if u.op is Ops.RANGE or u.op is Ops.SPECIAL and u.arg[0] == "thread": total *= bounds(u)[1] + 1
  return total

def names_in(u: UOp) -> set[str]:
  """Of "block", "thread", "loop" and "memory", what a position depends on."""
  nodes = toposort([u])
  names = {v.arg[0] for v in nodes if v.op is Ops.SPECIAL}
  if any(v.op is Ops.RANGE for v in nodes): names.add("loop")
  if any(v.op in (Ops.LOAD, Ops.REDUCE) for v in nodes): names.add("memory")
  return names

def common_part(code: Sequence[UOp]) -> list[UOp]:
  """What a thread computes that is the same for all blocks, loads first."""
  written = {memory_of(u) for u in code if u.op is Ops.STORE}
  varies: set[UOp] = set()
  for u in toposort(code):
    own = u.op in IN_ORDER or u.op is Ops.SPECIAL and u.arg[0] == "block"
    if own or u.op is Ops.LOAD and memory_of(u) in written or not varies.isdisjoint(u.src): varies.add(u)
  found = [u for u in code if u not in varies]
  loads = set(toposort([u for u in found if u.op is Ops.LOAD]))
  return [u for u in found if u in loads] + [u for u in found if u not in loads]

IN_ORDER = frozenset({Ops.RANGE, Ops.END, Ops.STORE, Ops.BARRIER, Ops.WMMA})    # what must stay where it stands

def kept_floats(code: Sequence[UOp], common: list[UOp]) -> int:
  """How much of what is the same for all blocks a thread has to keep for them; positions cost little to find again."""
  shared = set(common)
  kept = {s for u in code if u not in shared for s in toposort(u.src, shared.__contains__) if s in shared}
  return sum(u.dtype.count for u in kept if u.dtype.kind == "f" and u.op is not Ops.CONST)

def is_of_the_block(load: UOp, code: Sequence[UOp]) -> bool:
  """Whether a load needs nothing but its block's number: it may come before the block's turn."""
  address = without_after(load.src[0])
  written = {memory_of(u) for u in code if u.op is Ops.STORE}
  alone = len(address.src) == 2 and memory_of(load).op is Ops.PARAM and memory_of(load) not in written
  return alone and "block" in names_in(address.src[1]) <= {"block", "thread"}

PRELUDE = r"""
__device__ unsigned int taken;
// Which of the blocks' work that nobody does first is next; -1: none. Every block asks once in vain, the last leaves 0.
__device__ __forceinline__ int take(unsigned int first, unsigned int rest) {
  unsigned int k = atomicInc(&taken, rest + gridDim.x - 1);
  return k < rest ? int(first + k) : -1;
}
template<typename T> __device__ __forceinline__
void copy_piece(unsigned int to, const T* from, int bytes, unsigned int barrier) {
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];"
    :: "r"(to), "l"(__cvta_generic_to_global(from)), "r"(bytes), "r"(barrier) : "memory");
}
"""
