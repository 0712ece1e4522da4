# movement.py: chains of movement ops, pushed from the last element to the first array, equal the same ops in NumPy.
import numpy as np
import pytest
from picograd.dtype import dtypes
from picograd.ops.fold import fold
from picograd.ops.match import rewrite
from picograd.ops.movement import groups, linear, push, strides, unravel
from picograd.ops.ops import MOVEMENT, Ops
from picograd.ops.uop import UOp
from test_index import const, evaluate, loop, points

NUMPY = {
  Ops.RESHAPE: lambda u, a: a.reshape(u.arg), Ops.EXPAND: lambda u, a: np.broadcast_to(a, u.arg),
  Ops.PERMUTE: lambda u, a: a.transpose(u.arg), Ops.PAD: lambda u, a: np.pad(a, u.arg),
  Ops.SHRINK: lambda u, a: a[tuple(slice(lo, hi) for lo, hi in u.arg)], Ops.FLIP: lambda u, a: np.flip(a, u.arg),
}

def random_shape(rng, size):
  """A random factorisation of size, with ones."""
  shape = []
  while size > 1:
    shape.append(int(rng.choice([f for f in range(2, size + 1) if size % f == 0])))
    size //= shape[-1]
  for _ in range(rng.integers(0, 2)): shape.insert(int(rng.integers(0, len(shape) + 1)), 1)
  return tuple(shape)

def random_move(rng, x):
  """x moved once, at random."""
  rank = len(x.shape)
  op = rng.choice(sorted(MOVEMENT))
  if op is Ops.RESHAPE: return x.reshape(random_shape(rng, int(np.prod(x.shape))))
  if op is Ops.PERMUTE: return x.permute(tuple(int(a) for a in rng.permutation(rank)))
  if op is Ops.EXPAND: return x.expand(tuple(int(rng.integers(1, 4)) if n == 1 else n for n in x.shape))
  if op is Ops.FLIP: return x.flip(tuple(d for d in range(rank) if rng.integers(2)))
  if op is Ops.PAD: return x.pad(tuple((int(rng.integers(0, 2)), int(rng.integers(0, 2))) for _ in x.shape))
  low = [int(rng.integers(0, n)) for n in x.shape]
  return x.shrink(tuple((a, int(rng.integers(a + 1, n + 1))) for a, n in zip(low, x.shape)))

def chain(u):
  """The movement nodes from u down to its leaf."""
  out = []
  while u.op in MOVEMENT:
    out.append(u)
    u = u.src[0]
  return out

def moved_by_numpy(u, size):
  array = np.arange(1, size + 1)
  for node in reversed(chain(u)): array = NUMPY[node.op](node, array)
  return array

def moved_by_push(u):
  """Element by element: 0 where a PAD put it, else 1 + its place in the leaf."""
  ranges = tuple(loop(n) for n in u.shape)
  table = points(ranges)
  position, exists = ranges, np.ones(int(np.prod(u.shape)), bool)
  for node in chain(u):
    position, valid = push(node, position)
    if valid is not None: exists = exists & np.broadcast_to(evaluate(valid, table), exists.shape).astype(bool)
  place = np.broadcast_to(evaluate(position[0], table), exists.shape)
  return np.where(exists, place + 1, 0).reshape(u.shape)

@pytest.mark.parametrize("seed", range(200))
def test_a_chain_of_moves_equals_numpy(seed):
  rng = np.random.default_rng(seed)
  shape = tuple(int(n) for n in rng.integers(1, 5, rng.integers(1, 4)))
  leaf = UOp.buffer(dtypes.float32, int(np.prod(shape)), "CPU")
  u = leaf.reshape(shape)
  for _ in range(rng.integers(1, 6)):
    moved = random_move(rng, u)
    if np.prod(moved.shape) <= 1000: u = moved
  expected = moved_by_numpy(u, leaf.shape[0])
  np.testing.assert_array_equal(moved_by_push(u), expected)
  np.testing.assert_array_equal(moved_by_numpy(rewrite(u, fold), leaf.shape[0]), expected)

def test_dimensions_of_different_groups_do_not_mix():
  assert groups((2, 3, 4), (6, 1, 2, 2)) == [([0, 1], [0]), ([2], [2, 3])]
  i, j = loop(6), loop(35)
  leaf = UOp.buffer(dtypes.float32, 210, "CPU").reshape((2, 3, 5, 7))
  position, valid = push(leaf.reshape((6, 35)), (i, j))
  assert valid is None
  assert [i in p.toposort() for p in position] == [True, True, False, False]

@pytest.mark.parametrize("shape", [(240,), (24, 10), (2, 2, 60), (8, 3, 10), (3, 80), (5, 48)], ids=str)
def test_a_reshape_and_its_inverse_leave_the_position(shape):
  ranges = position = (loop(4), loop(6), loop(10))
  leaf = UOp.buffer(dtypes.float32, 240, "CPU").reshape((4, 6, 10))
  for node in chain(leaf.reshape(shape).reshape((4, 6, 10)))[:2]: position, _ = push(node, position)
  assert position == ranges

def test_pad_is_valid_inside_only():
  i = loop(6)
  padded = UOp.buffer(dtypes.float32, 3, "CPU").pad(((1, 2),))
  position, valid = push(padded, (i,))
  assert list(evaluate(valid, points([i]))) == [False, True, True, True, False, False]
  r = loop(3)
  assert push(padded, (r + 1,)) == ((r,), None)

def test_stretched_and_empty_dimensions_are_at_zero():
  leaf = UOp.buffer(dtypes.float32, 1, "CPU")
  assert push(leaf.expand((5,)), (loop(5),)) == ((const(0),), None)
  empty = UOp(Ops.RESHAPE, dtypes.float32, (UOp.buffer(dtypes.float32, 0, "CPU").reshape((0, 3)),), (3, 0))
  assert push(empty, (const(0), const(0))) == ((const(0), const(0)), None)

def test_linear_and_unravel():
  assert strides((2, 3, 4)) == (12, 4, 1)
  assert strides(()) == ()
  ranges = (loop(2), loop(3), loop(4))
  table = points(ranges)
  np.testing.assert_array_equal(evaluate(linear(ranges, (2, 3, 4)), table), np.arange(24))
  for p, r in zip(unravel(linear(ranges, (2, 3, 4)), (2, 3, 4)), ranges):
    np.testing.assert_array_equal(evaluate(p, table), table[r])
