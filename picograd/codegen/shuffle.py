# shuffle.py: vectors gathered element by element from rows of memory, or scattered over rows. In and out: a kernel, or
# stores, whose VECTOR ranges are lanes. After: where such vectors have neighbours in every row, each row is one vector
# load or store, and shuffles turn rows into columns, or columns into rows: the register tile of a transposed copy, or
# of a product whose lanes go along the outer dimension of its result.   (chapter 3)
from __future__ import annotations
from typing import Callable
from picograd.dtype import dtypes
from picograd.ops.index import sum_of
from picograd.ops.ops import Ops
from picograd.ops.uop import Table, UOp, toposort

Columns = dict[int, UOp]                       # where the first lane lies -> the vector, or its store

def rows_to_columns(kernel: UOp) -> UOp:
  tiles: dict[tuple, Columns] = {}             # (memory, dtype, where lanes lie from one another) -> the columns
  for u in toposort([kernel]):
    if not is_gathered(u): continue
    places = [sum_of(load.src[0].src[1]) for load in u.src]
    start = places[0].constant
    shape = tuple([(frozenset(place.terms.items()), place.constant - start) for place in places])
    tiles.setdefault((u.src[0].src[0].src[0], u.dtype, shape), {})[start] = u
  table: Table = {}
  for (_, dtype, _), columns in tiles.items():
    for tile in neighbours(columns, power_of_two_in(dtype.count)):
      if len(tile) > 1: table.update(zip(tile, transposed(tile)))
  return kernel.substitute(table)

def is_gathered(u: UOp) -> bool:
  """Whether u has a load of one memory in each lane, without gates."""
  if u.op is not Ops.STACK or len(set(u.src)) != len(u.src): return False
  plain = all(s.op is Ops.LOAD and len(s.src) == 1 and len(s.src[0].src) == 2 for s in u.src)
  return plain and len({s.src[0].src[0] for s in u.src}) == 1

def columns_to_rows(stores: list[UOp], addresses: Callable[[UOp], list[UOp]]) -> list[UOp]:
  """Stores of vectors whose lanes lie apart, as stores of rows and of single lanes. addresses: of an INDEX the address
  for each lane."""
  tiles: dict[tuple, Columns] = {}             # (memory, dtype, where lanes lie but for a constant, ..) -> the columns
  out: list[UOp] = []
  for u in stores:
    memory, position, *gates = u.src[0].src
    place = sum_of(position)
    single = u if gates else None                                    # a gate is of one lane: it stays alone
    tiles.setdefault((memory, u.src[1].dtype, frozenset(place.terms.items()), single), {})[place.constant] = u
  for (_, dtype, _, _), columns in tiles.items():
    block = min(power_of_two_in(dtype.count), max(1, BLOCK // dtype.scalar.itemsize))
    for tile in neighbours(columns, block):
      rows = interleaved([u.src[1] for u in tile], block)
      out += [tile[0].with_src((at, row_of(rows, k, block))) for k, at in enumerate(addresses(tile[0].src[0]))]
  return out

BLOCK = 16       # bytes: instructions that interleave two vectors do so in each of their blocks of this length

def interleaved(vectors: list[UOp], block: int) -> list[UOp]:
  """Rows from columns, within each block of the lanes: the first halves of the blocks of two vectors, then the second
  ones, element by element in turn, until elements of all lie side by side. What `exchanged` does takes vectors that say
  which lanes go where: they would occupy registers while the product is computed."""
  n, lanes = len(vectors), vectors[0].dtype.count
  for _ in range(n.bit_length() - 1):
    vectors = [shuffle(a, b, [k - k % block + half + k % block // 2 + k % 2 * lanes for k in range(lanes)])
               for a, b in zip(vectors[:n // 2], vectors[n // 2:]) for half in (0, block // 2)]
  return vectors

def row_of(vectors: list[UOp], k: int, block: int) -> UOp:
  """Row k of what `interleaved` gives; of one vector a lane."""
  n = len(vectors)
  if n == 1: return UOp(Ops.INDEX, vectors[0].dtype.scalar, (vectors[0], UOp.const(dtypes.index, k)))
  vector, start = vectors[k % block * n // block], k - k % block + k % (block // n) * n
  return shuffle(vector, vector, list(range(start, start + n)))

def power_of_two_in(n: int) -> int:
  """The largest that divides n."""
  return n & -n

def neighbours(columns: Columns, most: int) -> list[list[UOp]]:
  """Columns in tiles of those that lie side by side: as many as a power of two, `most` at most and one at least."""
  tiles, waiting = [], sorted(columns)
  while waiting:
    start, count = waiting[0], most
    while count > 1 and not all(start + i in columns for i in range(count)): count //= 2
    tile = [start + i for i in range(count)]
    tiles.append([columns[at] for at in tile])
    waiting = [at for at in waiting if at not in tile]
  return tiles

def transposed(tile: list[UOp]) -> list[UOp]:
  """The columns of a tile from vector loads of its rows. Rows shorter than a column lie side by side in one vector."""
  width = len(tile)
  loads = [UOp(Ops.LOAD, load.dtype.vec(width), load.src) for load in tile[0].src]
  return exchanged([side_by_side(loads[k::width]) for k in range(width)])

def exchanged(vectors: list[UOp]) -> list[UOp]:
  """Columns from rows: of n vectors, vector k has row k, row k + n, .. side by side, each a block of n. Halving the
  block, every two vectors exchange halves of their blocks."""
  rows, width, lanes = list(vectors), len(vectors), vectors[0].dtype.count
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
  return UOp(Ops.STACK, a.dtype.scalar.vec(len(lanes)), (a, b), tuple(lanes))
