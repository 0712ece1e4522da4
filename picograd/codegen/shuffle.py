# shuffle.py: vectors gathered element by element from rows of memory. In and out: a kernel whose VECTOR ranges are
# lanes. After: where such vectors take neighbours of every row, each row is one vector load, and shuffles turn rows
# into columns: the register tile of a transposed copy.   (chapter 3)
from __future__ import annotations
from typing import Hashable
from picograd.dtype import dtypes
from picograd.ops.index import sum_of
from picograd.ops.ops import Ops
from picograd.ops.uop import Table, UOp, toposort

def rows_to_columns(kernel: UOp) -> UOp:
  tiles: dict[Hashable, dict[int, UOp]] = {}   # where lanes lie from one another -> where the first lies -> the vector
  for u in toposort([kernel]):
    if not is_gathered(u): continue
    places = [sum_of(load.src[0].src[1]) for load in u.src]
    start = places[0].constant
    shape = tuple([(frozenset(place.terms.items()), place.constant - start) for place in places])
    tiles.setdefault((u.src[0].src[0].src[0], u.dtype, shape), {})[start] = u
  table: Table = {}
  for columns in tiles.values():
    for tile in neighbours(columns): table.update(zip(tile, transposed(tile)))
  return kernel.substitute(table)

def is_gathered(u: UOp) -> bool:
  """Whether u has a load of one memory in each lane, without gates."""
  if u.op is not Ops.STACK or len(set(u.src)) != len(u.src): return False
  plain = all(s.op is Ops.LOAD and len(s.src) == 1 and len(s.src[0].src) == 2 for s in u.src)
  return plain and len({s.src[0].src[0] for s in u.src}) == 1

def neighbours(columns: dict[int, UOp]) -> list[list[UOp]]:
  """Columns that lie side by side, as many as a power of two, at most as many as they have lanes."""
  tiles, waiting = [], sorted(columns)
  while waiting:
    start, lanes = waiting[0], columns[waiting[0]].dtype.count
    count = lanes
    while count > 1 and not all(start + i in columns for i in range(count)): count //= 2
    tile = [start + i for i in range(count)]
    if count > 1: tiles.append([columns[at] for at in tile])
    waiting = [at for at in waiting if at not in tile]
  return tiles

def transposed(tile: list[UOp]) -> list[UOp]:
  """The columns of a tile from vector loads of its rows. Rows shorter than a column lie side by side in one vector,
  each a block: row k, row k + width, .. in vector k. Then, halving the block, every two vectors exchange halves of
  their blocks."""
  width, lanes = len(tile), tile[0].dtype.count
  loads = [UOp(Ops.LOAD, load.dtype.vec(width), load.src) for load in tile[0].src]
  rows = [side_by_side(loads[k::width]) for k in range(width)]
  step = width // 2
  while step:
    for i in range(width):
      if i & step: continue
      a, b = rows[i], rows[i + step]
      rows[i] = shuffle(a, b, [k if not k & step else lanes + k - step for k in range(lanes)])
      rows[i + step] = shuffle(a, b, [k + step if not k & step else lanes + k for k in range(lanes)])
    step //= 2
  return rows

def side_by_side(parts: list[UOp]) -> UOp:
  while len(parts) > 1: parts = [shuffle(a, b, list(range(2 * a.dtype.count))) for a, b in zip(parts[::2], parts[1::2])]
  return parts[0]

def shuffle(a: UOp, b: UOp, lanes: list[int]) -> UOp:
  """A vector of lanes of a, and of b, whose lanes are counted on from a's."""
  n, dtype = a.dtype.count, a.dtype.scalar
  index = [UOp(Ops.INDEX, dtype, (b if k >= n else a, UOp.const(dtypes.index, k % n))) for k in lanes]
  return UOp(Ops.STACK, dtype.vec(len(lanes)), tuple(index))
