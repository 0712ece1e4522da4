# memory.py: intermediate results -> offsets in one arena. In: kernels in order, and which of their buffers are
# temporary. Out: an offset for each, such that two overlap only if their lifetimes do not, and the size of the arena.
from __future__ import annotations
from typing import Iterable, NamedTuple, Sequence
from picograd.ops.uop import UOp

ALIGNMENT = 256          # bytes: wide enough for every vector unit and for GPU transactions

class Arena(NamedTuple):
  size: int
  offsets: dict[UOp, int]

def lifetimes(uses: Sequence[Iterable[UOp]]) -> dict[UOp, tuple[int, int]]:
  """leaf -> (first, last) position of use, both inclusive."""
  spans: dict[UOp, tuple[int, int]] = {}
  for at, leaves in enumerate(uses):
    for leaf in leaves: spans[leaf] = (spans.get(leaf, (at, at))[0], at)
  return spans

def plan_memory(uses: Sequence[Iterable[UOp]], temporary: set[UOp]) -> Arena:
  """Offsets by greedy best fit, largest first: place each buffer in the smallest gap left by those alive with it."""
  spans = {leaf: span for leaf, span in lifetimes(uses).items() if leaf in temporary}
  placed: list[tuple[int, int, tuple[int, int]]] = []          # (offset, end, lifetime)
  offsets: dict[UOp, int] = {}
  def nbytes(leaf: UOp) -> int:
    return -(-leaf.arg.size * leaf.dtype.itemsize // ALIGNMENT) * ALIGNMENT
  for leaf in sorted(spans, key=nbytes, reverse=True):
    first, last = spans[leaf]
    size = nbytes(leaf)
    best, best_gap, at = None, None, 0
    for offset, end, (begin, finish) in sorted(placed):
      if finish < first or last < begin: continue
      gap = offset - at
      if gap >= size and (best_gap is None or gap < best_gap): best, best_gap = at, gap
      at = max(at, end)
    offsets[leaf] = at if best is None else best
    placed.append((offsets[leaf], offsets[leaf] + size, (first, last)))
  return Arena(max((end for _, end, _ in placed), default=0), offsets)
