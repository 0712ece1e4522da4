# index.py: random expressions have the same value at each point before and after, inside their bounds; known forms come
# out in their simplest shape; one-hot sums become loads and give the same numbers.
import itertools
import sys
import numpy as np
import pytest
from picograd.dtype import dtypes, truncate
from picograd.ops.collapse import collapse_onehot
from picograd.ops.index import bounds, simplify_index
from picograd.ops.match import rewrite
from picograd.ops.ops import Axis, INFO, Ops
from picograd.ops.uop import UOp

def points(ranges):
  """Each combination of values of the ranges: a table from node to array."""
  values = list(itertools.product(*(range(bounds(r)[1] + 1) for r in ranges)))
  columns = np.array(values, dtype=object).reshape(len(values), len(ranges))
  return {r: columns[:, k] for k, r in enumerate(ranges)}

def evaluate(u, table):
  """The value of an integer or bool node at the points of a table, in Python's integers brought into each dtype."""
  done = dict(table)
  for node in u.toposort(stop=done.__contains__):
    if node in done: continue
    if node.op is Ops.CONST: value = np.array(node.arg, dtype=object)
    else:
      meaning = np.frompyfunc(lambda *a, node=node: truncate(INFO[node.op].meaning(*a), node.dtype), len(node.src), 1)
      value = meaning(*(done[s] for s in node.src))
    done[node] = np.asarray(value)
  return done[u]

def loop(n): return UOp.range(n, Axis.LOOP)
def const(n): return UOp.const(dtypes.index, n)
def truth(value): return UOp.const(dtypes.bool, value)
def simplified(u): return rewrite(u, simplify_index)

# ---- random expressions ----------------------------------------------------------------------------------------------

def random_index(rng, leaves, depth):
  """A random index expression; a divisor is a positive constant, operands may be negative."""
  if depth == 0 or rng.random() < 0.15:
    return leaves[rng.integers(len(leaves))] if rng.random() < 0.8 else const(int(rng.integers(-5, 13)))
  x = random_index(rng, leaves, depth - 1)
  c = int(rng.choice([1, 2, 3, 4, 6, 8, 12]))
  kind = rng.integers(10)
  if kind < 3: return x + random_index(rng, leaves, depth - 1)
  if kind == 3: return x * int(rng.choice([-2, -1, 2, 3, 4, 6, 12]))
  if kind < 6: return x // c
  if kind < 8: return x % c
  y = random_index(rng, leaves, depth - 1)
  return x.maximum(y) if kind == 8 else random_condition(rng, leaves, depth - 1).where(x, y)

def random_condition(rng, leaves, depth):
  a, b = random_index(rng, leaves, depth), random_index(rng, leaves, max(0, depth - 2))
  kind = rng.integers(6)
  if kind < 2 or depth == 0: return a < b
  if kind == 2: return a.ne(b)
  if kind == 3: return a.eq(b)
  if kind == 4: return (a < b).not_()
  return random_condition(rng, leaves, depth - 1) & (a < b)

def random_layout(rng, leaves, depth):
  """Quotients and remainders of a row-major place, as reshapes make them."""
  place = const(0)
  for r in leaves: place = place * r.bound.arg + r
  for _ in range(depth):
    c, d = int(rng.choice([2, 3, 4, 6, 8])), int(rng.choice([2, 3, 4, 6, 8]))
    place = [place // c, place % (c * d), place // c * c + place % c, place // c % d * c + place % c, place + d,
             place // c * d + place % c][rng.integers(6)]
  return place

def check_same(u, ranges):
  """u and its simplified form are equal at every point and inside their bounds; simplifying again changes nothing."""
  after = simplified(u)
  table = points(ranges)
  size = len(table[ranges[0]])
  expected = np.broadcast_to(evaluate(u, table), size)
  np.testing.assert_array_equal(np.broadcast_to(evaluate(after, table), size), expected)
  for node in (u, after):
    low, high = bounds(node)
    assert low <= min(expected) and max(expected) <= high
  assert simplified(after) is after

@pytest.mark.parametrize("make", [random_index, random_condition, random_layout])
@pytest.mark.parametrize("seed", range(4))
def test_random_expressions_keep_their_value(make, seed):
  rng = np.random.default_rng(seed)
  for _ in range(100):
    leaves = [loop(int(n)) for n in rng.choice([1, 2, 3, 4, 5, 6, 8], rng.integers(1, 4))]
    check_same(make(rng, leaves, int(rng.integers(1, 5))), leaves)

def random_machine(rng, leaves, depth):
  """An integer expression of a narrow dtype that may wrap."""
  if depth == 0: return leaves[rng.integers(len(leaves))]
  x, y = random_machine(rng, leaves, depth - 1), random_machine(rng, leaves, depth - 1)
  kind = rng.integers(6)
  if kind < 2: return x + y
  if kind == 2: return x * int(rng.integers(-3, 60))
  if kind == 3: return x // int(rng.integers(1, 5))
  if kind == 4: return (x < y).where(x, y + 3)
  return x.maximum(y) % int(rng.integers(1, 5))

@pytest.mark.parametrize("dtype", [dtypes.int8, dtypes.uint8, dtypes.int32], ids=str)
def test_machine_integers_that_wrap_keep_their_value(dtype):
  rng = np.random.default_rng(0)
  for _ in range(80):
    ranges = [loop(int(n)) for n in rng.choice([2, 3, 5, 40], 2)]
    u = random_machine(rng, [r.cast(dtype) for r in ranges], int(rng.integers(1, 4)))
    check_same(u, ranges)
    check_same(u.cast(dtypes.index) + ranges[0], ranges)

# ---- known forms -----------------------------------------------------------------------------------------------------

def test_quotients_and_remainders():
  i, j, k = loop(5), loop(3), loop(4)
  place = i * 12 + j * 4 + k
  assert simplified(place // 12) is i
  assert simplified(place // 4 % 3) is j
  assert simplified(place % 12 // 4) is j
  assert simplified(place % 4) is k
  assert simplified(place // 5 * 5 + place % 5) is simplified(place)
  assert simplified(loop(100) // 4 % 6 // 2).op is Ops.MOD
  assert simplified((i * 6 + j * 2) // 4) is simplified((i * 3 + j) // 2)
  r = loop(80)
  assert simplified(r // 2 // 2) is r // 4

def test_sums():
  i, j = loop(5), loop(3)
  assert simplified(i + j) is simplified(j + i)
  assert simplified(j * 2 + j * 3) is j * 5
  assert simplified(i + 3 + j + 4) is i + j + 7
  assert simplified(i + j - i) is j

def test_scaled_recombination():
  r = loop(97)
  assert simplified(r // 12 * 12 + r // 4 % 3 * 4 + r % 4) is r
  assert simplified((r // 4 % 3) * 20 + (r % 4) * 5) is r % 12 * 5

def test_comparisons():
  i, j = loop(5), loop(3)
  assert simplified(i * 3 + j < 6) is (i < 2)
  assert simplified(i + 3 < 5) is (i < 2)
  assert simplified((i < 3).not_()) is (const(2) < i)
  assert simplified(i < 5) is truth(True)
  assert simplified((i * 2).ne(j * 4 + 1)) is truth(True)
  assert simplified(i // 2 < 2) is (i < 4)
  assert simplified((i < 3) & (i < 2) & (j < 2)) is (i < 2) & (j < 2)
  assert simplified((i < 2) & (const(1) < i)) is truth(False)

def test_a_symbolic_bound_bounds_its_range():
  n = loop(9) + 1
  r = UOp.range(n, Axis.LOOP)
  assert bounds(r) == (0, 8)
  assert simplified(r < n) is truth(True)

def test_casts_to_machine_integers_and_back():
  i, j = loop(5), loop(3)
  wide = i.cast(dtypes.int32) * 3 + j.cast(dtypes.int32)
  assert simplified(wide.cast(dtypes.index) // 3) is i
  assert simplified(i.cast(dtypes.int32).cast(dtypes.int64).cast(dtypes.index)) is i
  assert simplified(i.cast(dtypes.int32) < j.cast(dtypes.int32)) is (i < j)
  narrow = loop(300).cast(dtypes.int8).cast(dtypes.index)
  assert simplified(narrow) is narrow

def test_outer_ranges_stand_first():
  outer, inner = loop(7), UOp.range(9, Axis.REDUCE)
  assert simplified(inner + outer * 9 + 2).src[0] is outer * 9 + inner

def test_long_chains_need_no_recursion():
  u, r = loop(3), loop(2)
  for _ in range(20_000): u = (u + 1).maximum(r)
  assert bounds(u) == (20_000, 20_002)
  assert simplified(u).op is Ops.ADD

def calls_to_simplify(places: int, salt: int) -> int:
  """Calls of Python functions that it takes to rewrite so many places of new nodes."""
  i, j, k = loop(64), loop(48), loop(32)
  nodes = []
  for n in range(1, places):
    place = i * (1536 + n) + j * 32 + k + n + salt
    nodes.append(place // 32 % 48 + place % 32 * (n + 7) + (place < n * 100).where(i, j))
  root, calls = UOp.sink(*nodes), 0
  assert len(root.toposort()) > 12 * places
  def count(frame, event, arg):
    nonlocal calls
    calls += event == "call"
  sys.setprofile(count)
  try: rewrite(root, simplify_index)
  finally: sys.setprofile(None)
  return calls

def test_twice_as_many_nodes_take_about_twice_as_long():
  """By what is called, which does not depend on the machine."""
  few, many = calls_to_simplify(80, 100_000), calls_to_simplify(160, 200_000)
  assert few < many < 2.5 * few and many < 600_000, (few, many)

# ---- reductions that look something up or count ----------------------------------------------------------------------

def reduce_loop(n): return UOp.range(n, Axis.REDUCE)
def total(value, *ranges): return UOp(Ops.REDUCE, value.dtype, (value, *ranges), (Ops.ADD, ()))
def param(slot, dtype): return UOp(Ops.PARAM, dtype, (), slot)
def collapsed(u): return rewrite(u, simplify_index + collapse_onehot)

def run(u, loops, memory):
  """The value of a kernel node for values of its loops; touching memory out of bounds is an IndexError."""
  if u in loops: return loops[u]
  if u.op is Ops.CONST: return u.arg
  if u.op is Ops.REDUCE:
    counts = [range(run(r.bound, loops, memory)) for r in u.src[1:]]
    values = [run(u.src[0], {**loops, **dict(zip(u.src[1:], at))}, memory) for at in itertools.product(*counts)]
    return truncate(sum(values), u.dtype)
  if u.op is Ops.LOAD:
    array, position, *gate = u.src[0].src
    if gate and not run(gate[0], loops, memory): return 0
    place = run(position, loops, memory)
    if not 0 <= place < len(memory[array]): raise IndexError(f"{place} of {len(memory[array])}")
    return memory[array][place].item()
  if u.op is Ops.WHERE:                                            # both branches run: each load must be in bounds
    c, yes, no = (run(s, loops, memory) for s in u.src)
    return yes if c else no
  return truncate(INFO[u.op].meaning(*(run(s, loops, memory) for s in u.src)), u.dtype)

def check_collapse(u, loops, memory):
  """Fewer reductions, the same numbers."""
  after = collapsed(u)
  for at in itertools.product(*(range(r.bound.arg) for r in loops)):
    table = dict(zip(loops, at))
    assert run(after, table, memory) == run(u, table, memory), at
  return [node for node in after.toposort() if node.op is Ops.REDUCE]

ROWS, COLUMNS = 7, 3
INDICES = np.array([0, 6, 2, -1, 7, 3, 3], np.int64)                # two are out of range: their sum is 0
WEIGHTS = np.arange(1, ROWS * COLUMNS + 1, dtype=np.float32)

def gather(make_condition, make_value=lambda w, x: x):
  """sum over r of where(condition(r, idx[i]), value(w[r, j]), 0), its loops and its memory."""
  i, j, r = loop(len(INDICES)), loop(COLUMNS), reduce_loop(ROWS)
  weights, indices = param(0, dtypes.float32), param(1, dtypes.int64)
  w, x = weights.index(r * COLUMNS + j).load(), indices.index(i).load()
  u = total(make_value(make_condition(r, x, i), w), r)
  return u, [i, j], {weights: WEIGHTS, indices: INDICES}

GATHERS = {
  "embedding": lambda c, w: c.where(w, 0),
  "swapped branches": lambda c, w: c.not_().where(w.like(0), w),
  "scaled": lambda c, w: c.where(w, 0) * 3,
  "by a mask": lambda c, w: c.where(c.where(w * w, 0), 0) * w.like(2),
  "cast": lambda c, w: c.where(w, 0).cast(dtypes.float64),
  "count of matches": lambda c, w: c.cast(dtypes.float32),
}
CONDITIONS = {
  "r == x": lambda r, x, i: r.cast(dtypes.int64).eq(x),
  "x == r": lambda r, x, i: x.eq(r.cast(dtypes.int64)),
  "r + 2 == x": lambda r, x, i: (r.cast(dtypes.int64) + 2).eq(x),
  "2 - r == x": lambda r, x, i: (r.cast(dtypes.int64) * -1 + 2).eq(x),
  "2r == x": lambda r, x, i: (r.cast(dtypes.int64) * 2).eq(x),
  "r == x and i < 3": lambda r, x, i: r.cast(dtypes.int32).cast(dtypes.int64).eq(x) & (i < 3),
  "r == x and r < 3": lambda r, x, i: r.cast(dtypes.int64).eq(x) & (r < 3),
  "not (r != x or i < 3)": lambda r, x, i: (r.cast(dtypes.int64).ne(x) | (i < 3)).not_(),
  "r == i": lambda r, x, i: r.eq(i),
  "r == i + 4": lambda r, x, i: r.cast(dtypes.int32).eq(i.cast(dtypes.int32) + 4),
}

@pytest.mark.parametrize("value", GATHERS)
@pytest.mark.parametrize("condition", CONDITIONS)
def test_a_one_hot_sum_is_a_load(condition, value):
  assert check_collapse(*gather(CONDITIONS[condition], GATHERS[value])) == []

def test_a_load_that_is_always_in_bounds_has_no_gate():
  i, r = loop(5), reduce_loop(7)
  weights = param(0, dtypes.float32)
  assert collapsed(total(r.eq(i + 1).where(weights.index(r).load(), 0), r)) is weights.index(i + 1).load()

def test_a_gated_load_needs_no_where():
  i, r = loop(5), reduce_loop(7)
  weights, indices = param(0, dtypes.float32), param(1, dtypes.int64)
  x = indices.index(i).load()
  after = collapsed(total(r.cast(dtypes.int64).eq(x).where(weights.index(r).load(), 0), r))
  assert after.op is Ops.LOAD and len(after.src[0].src) == 3
  assert simplified((x < 3).where(after, 0)).op is Ops.WHERE

def test_two_indices_collapse_one_after_the_other():
  i, j, r, s = loop(2), loop(3), reduce_loop(2), reduce_loop(3)
  weights = param(0, dtypes.int32)
  u = total((r.eq(i) & s.eq(j)).where(weights.index(r * 3 + s).load(), 0), r, s)
  assert collapsed(u) is weights.index(i * 3 + j).load()

def test_what_is_no_lookup_stays():
  i, r = loop(4), reduce_loop(4)
  weights = param(0, dtypes.float32)
  w = weights.index(r).load()
  for u in [total((r * r).eq(i).where(w, 0), r), total(r.ne(i).where(w, 0), r), total((r < i).where(w, 0), r),
            total(r.eq(i).where(w, 1), r), total(r.eq(i).where(w, 0) * w, r),
            UOp(Ops.REDUCE, dtypes.float32, (r.eq(i).where(w, 0), r), (Ops.MAX, ()))]:
    assert check_collapse_stays(u, r)

def check_collapse_stays(u, r): return any(node.op is Ops.REDUCE and r in node.src for node in collapsed(u).toposort())
