# The NUMPY device: every op in every dtype against NumPy expressions written out here, order of assignments, and what
# must never be materialised.
import tracemalloc
import numpy as np
import pytest
from picograd.dtype import dtypes, to_bfloat16
from picograd.ops.ops import Ops
from picograd.ops.uop import UOp
from picograd.runtime.device import numpy_dtype
from picograd.runtime.numpy import open_device

DEVICE = open_device("NUMPY")

class Memory:
  """BUFFER leaves and their arrays."""
  def __init__(self): self.arrays = {}

  def leaf(self, array, dtype=None):
    array = np.asarray(array)
    dtype = dtype or getattr(dtypes, array.dtype.name)
    leaf = UOp.buffer(dtype, array.size, "NUMPY")
    self.arrays[leaf] = np.array(array.reshape(-1), numpy_dtype(dtype))
    return leaf.reshape(array.shape)

  def run(self, *roots): return DEVICE.run(list(roots), self.arrays.__getitem__)

def bits(values): return np.array([np.float32(to_bfloat16(float(v))).view(np.uint32) >> 16 for v in values], np.uint16)
def floats(packed): return (packed.astype(np.uint32) << 16).view(np.float32)

def check(build, *inputs, expected, dtype=None):
  memory = Memory()
  (got,) = memory.run(build(*[memory.leaf(x, dtype) for x in inputs]))
  expected = np.asarray(expected)
  assert got.dtype == expected.dtype and got.shape == expected.shape
  np.testing.assert_array_equal(got, expected)

def samples(dt, n=64):
  rng = np.random.default_rng(n)
  if dt is dtypes.bool: return rng.integers(0, 2, n).astype(bool)
  if dt.is_int: return rng.integers(dt.min, dt.max, n, dtype=numpy_dtype(dt), endpoint=True)
  return (rng.standard_normal(n) * 3).astype(numpy_dtype(dt))

NATIVE = [dt for dt in dtypes.all if dt is not dtypes.bfloat16]
NATIVE_FLOATS = [dtypes.float16, dtypes.float32, dtypes.float64]
name = dict(ids=lambda x: getattr(x, "name", str(x)))

# ---- elementwise -----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("dt", NATIVE, **name)
@pytest.mark.parametrize("op,function", [(Ops.ADD, np.add), (Ops.MUL, np.multiply), (Ops.MAX, np.maximum),
                                         (Ops.CMPLT, np.less), (Ops.CMPNE, np.not_equal)], **name)
def test_binary(op, function, dt):
  x = samples(dt)
  y = x[::-1].copy()
  with np.errstate(all="ignore"): check(lambda a, b: a.alu(op, b), x, y, expected=function(x, y))

@pytest.mark.parametrize("dt", (dtypes.bool,) + dtypes.ints, **name)
@pytest.mark.parametrize("op,function", [(Ops.AND, np.bitwise_and), (Ops.OR, np.bitwise_or),
                                         (Ops.XOR, np.bitwise_xor)], **name)
def test_bitwise(op, function, dt):
  x = samples(dt)
  check(lambda a, b: a.alu(op, b), x, x[::-1].copy(), expected=function(x, x[::-1]))

@pytest.mark.parametrize("dt", dtypes.ints, **name)
def test_shifts(dt):
  x = samples(dt)
  counts = (np.arange(64) % dt.bits).astype(x.dtype)
  check(lambda a, b: a << b, x, counts, expected=np.left_shift(x, counts))
  check(lambda a, b: a >> b, x, counts, expected=np.array([int(v) >> int(c) for v, c in zip(x, counts)], x.dtype))

@pytest.mark.parametrize("dt", dtypes.ints, **name)
def test_division_truncates_and_by_zero_is_defined(dt):
  x = np.concatenate([samples(dt), np.array([7, 7, dt.min, dt.min], numpy_dtype(dt))])
  y = np.concatenate([samples(dt)[::-1] // 8, np.array([0, 2, 1, dt.max], numpy_dtype(dt))]).astype(x.dtype)
  q = np.array([0 if b == 0 else abs(int(a)) // abs(int(b)) * (1 if (a < 0) == (b < 0) else -1) for a, b in zip(x, y)])
  r = np.array([int(a) - int(i) * int(b) for a, b, i in zip(x, y, q)])
  check(lambda a, b: a // b, x, y, expected=q.astype(x.dtype))
  check(lambda a, b: a % b, x, y, expected=r.astype(x.dtype))

def test_smallest_by_minus_one_wraps():
  x, y = np.array([-2**31], np.int32), np.array([-1], np.int32)
  check(lambda a, b: a // b, x, y, expected=x)
  check(lambda a, b: a % b, x, y, expected=np.zeros(1, np.int32))

@pytest.mark.parametrize("dt", NATIVE_FLOATS, **name)
@pytest.mark.parametrize("op,function", [(Ops.EXP2, np.exp2), (Ops.LOG2, np.log2), (Ops.SIN, np.sin),
                                         (Ops.SQRT, np.sqrt)], **name)
def test_unary(op, function, dt):
  special = [0.0, -0.0, np.inf, -np.inf, np.nan, -1.0, 200.0]
  x = np.concatenate([samples(dt), np.array(special, numpy_dtype(dt))])
  with np.errstate(all="ignore"): check(lambda a: a.alu(op), x, expected=function(x.astype(np.float64)).astype(x.dtype))

@pytest.mark.parametrize("dt", NATIVE_FLOATS, **name)
def test_division(dt):
  x = np.concatenate([samples(dt), np.array([1, -1, 0, np.nan], numpy_dtype(dt))])
  y = np.concatenate([samples(dt)[::-1], np.array([0, 0, 0, 0], numpy_dtype(dt))])
  with np.errstate(all="ignore"): check(lambda a, b: a / b, x, y, expected=x / y)

def test_maximum_propagates_nan():
  x, y = np.array([np.nan, 1, np.nan], np.float32), np.array([1, np.nan, np.nan], np.float32)
  check(lambda a, b: a.maximum(b), x, y, expected=np.full(3, np.nan, np.float32))
  check(lambda a: a.reduce(Ops.MAX, (0,)), x, expected=np.full(1, np.nan, np.float32))

def test_where_and_not():
  condition, x, y = np.array([True, False]), np.array([1, 2], np.int8), np.array([3, 4], np.int8)
  check(lambda c, a, b: c.where(a, b), condition, x, y, expected=np.where(condition, x, y))
  check(lambda c: c.not_(), condition, expected=~condition)

# ---- bfloat16 --------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("op,function", [(Ops.ADD, np.add), (Ops.MUL, np.multiply), (Ops.FDIV, np.true_divide)], **name)
def test_bfloat16_rounds_after_each_op(op, function):
  x, y = bits(samples(dtypes.float32)), bits(samples(dtypes.float32)[::-1])
  exact = function(floats(x).astype(np.float64), floats(y).astype(np.float64))
  check(lambda a, b: a.alu(op, b), x, y, expected=bits(exact), dtype=dtypes.bfloat16)

def test_bfloat16_special_values():
  values = floats(np.array([0x7f80, 0xff80, 0x7fc0, 0x0000, 0x8000, 0x0001, 0x7f7f], np.uint16))
  check(lambda a: a * 1.0, bits(values), expected=bits(values), dtype=dtypes.bfloat16)
  check(lambda a: a.cast(dtypes.float32), bits(values), expected=values, dtype=dtypes.bfloat16)
  check(lambda a: a + a, bits([3.38e38]), expected=bits([np.inf]), dtype=dtypes.bfloat16)

def test_bfloat16_sum_and_product_accumulate_in_float32():
  ones = np.ones(1000, np.float32)
  check(lambda a: a.reduce(Ops.ADD, (0,)), bits(ones), expected=bits([1000]), dtype=dtypes.bfloat16)
  check(lambda a: a.reduce(Ops.ADD, (0,)), ones.astype(np.float16) * 3, expected=np.full(1, 3000, np.float16))

# ---- casts -----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("source", NATIVE, **name)
@pytest.mark.parametrize("target", NATIVE, **name)
def test_cast(source, target):
  x = samples(source)
  if source.is_floating_point and target.is_unsigned: x = np.abs(x)
  with np.errstate(all="ignore"): check(lambda a: a.cast(target), x, expected=x.astype(numpy_dtype(target)))

@pytest.mark.parametrize("target", dtypes.ints, **name)
@pytest.mark.parametrize("source", [np.float32, np.float64])
def test_float_to_int_saturates(source, target):
  x = np.array([np.inf, 1e30, -np.inf, -1e30, np.nan, 1.9, float(target.min)], source)
  expected = [target.max, target.max, target.min, target.min, 0, 1, target.min]
  check(lambda a: a.cast(target), x, expected=np.array(expected, numpy_dtype(target)))

def test_bitcast():
  x = samples(dtypes.float32)
  check(lambda a: a.bitcast(dtypes.int32), x, expected=x.view(np.int32))
  check(lambda a: a.bitcast(dtypes.uint16), bits(x), expected=bits(x), dtype=dtypes.bfloat16)
  check(lambda a: a.bitcast(dtypes.bfloat16), bits(x), expected=bits(x))

# ---- leaves, movement, reductions ------------------------------------------------------------------------------------

def test_constants_and_iota():
  half = UOp.const(dtypes.float16, 0.1).spread((2, 3))
  count = UOp.iota(5, dtypes.int32)
  scalar = UOp.const(dtypes.bfloat16, 1.0)
  got = Memory().run(half, count, scalar)
  np.testing.assert_array_equal(got[0], np.full((2, 3), 0.1, np.float16))
  np.testing.assert_array_equal(got[1], np.arange(5, dtype=np.int32))
  assert got[2].dtype == np.uint16 and got[2].shape == () and got[2] == 0x3f80

MOVES = {
  "reshape": (lambda a: a.reshape((4, 6)), lambda x: x.reshape(4, 6)),
  "permute": (lambda a: a.permute((2, 0, 1)), lambda x: x.transpose(2, 0, 1)),
  "expand": (lambda a: a.reshape((2, 1, 3, 4)).expand((2, 5, 3, 4)), lambda x: np.stack([x] * 5, 1)),
  "pad": (lambda a: a.pad(((1, 0), (0, 2), (0, 0))), lambda x: np.pad(x, ((1, 0), (0, 2), (0, 0)))),
  "shrink": (lambda a: a.shrink(((0, 1), (1, 3), (2, 2))), lambda x: x[:1, 1:3, 2:2]),
  "flip": (lambda a: a.flip((0, 2)), lambda x: x[::-1, :, ::-1]),
}
@pytest.mark.parametrize("dt", NATIVE, **name)
@pytest.mark.parametrize("move", MOVES)
def test_movement(move, dt):
  build, function = MOVES[move]
  x = samples(dt, 24).reshape(2, 3, 4)
  check(build, x, expected=function(x))

@pytest.mark.parametrize("axes", [(0,), (1,), (2,), (0, 2), (0, 1, 2)])
@pytest.mark.parametrize("dt", NATIVE, **name)
def test_reduce(dt, axes):
  x = samples(dt, 24).reshape(2, 3, 4)
  wide = np.float32 if dt is dtypes.float16 else x.dtype
  for op, function in ((Ops.ADD, np.add), (Ops.MUL, np.multiply), (Ops.MAX, np.maximum)):
    with np.errstate(all="ignore"): expected = function.reduce(x, axis=axes, keepdims=True, dtype=wide).astype(x.dtype)
    check(lambda a, op=op: a.reduce(op, axes), x, expected=expected)

def test_empty_reductions_give_the_identity():
  empty = np.zeros((0, 2), np.float32)
  check(lambda a: a.reduce(Ops.ADD, (0,)), empty, expected=np.zeros((1, 2), np.float32))
  check(lambda a: a.reduce(Ops.MAX, (0,)), empty, expected=np.full((1, 2), -np.inf, np.float32))
  check(lambda a: a.reduce(Ops.MAX, (0,)), empty.astype(np.int8), expected=np.full((1, 2), -128, np.int8))

# ---- contractions and gathers ----------------------------------------------------------------------------------------

def matmul(a, b):
  """(.., m, k) @ (.., k, n) in tensor form."""
  *batch, m, k = a.shape
  n = b.shape[-1]
  lead = len(batch)
  left = a.reshape((*batch, m, 1, k)).expand((*batch, m, n, k))
  right = b.permute((*range(lead), lead + 1, lead)).reshape((*batch, 1, n, k)).expand((*batch, m, n, k))
  return (left * right).reduce(Ops.ADD, (lead + 2,)).reshape((*batch, m, n))

@pytest.mark.parametrize("dt", NATIVE, **name)
def test_matmul(dt):
  x, y = samples(dt, 60).reshape(2, 5, 6), samples(dt, 36).reshape(2, 6, 3)
  memory = Memory()
  (got,) = memory.run(matmul(memory.leaf(x), memory.leaf(y)))
  assert got.dtype == x.dtype
  with np.errstate(all="ignore"):
    expected = np.matmul(x.astype(np.float64), y.astype(np.float64)) if dt.is_floating_point else np.matmul(x, y)
  if dt.is_floating_point: np.testing.assert_allclose(got, expected, rtol=2e-3 if dt.bits == 16 else 1e-4, atol=1e-3)
  else: np.testing.assert_array_equal(got, expected)

@pytest.mark.parametrize("axes", [(0,), (1,), (2,), (1, 2), (0, 1, 2)])
@pytest.mark.parametrize("left,right", [((3, 4, 1), (1, 4, 5)), ((3, 1, 1), (1, 4, 5)), ((1, 4, 1), (1, 4, 1)),
                                        ((3, 1, 5), (3, 1, 1))])
def test_contraction_of_any_expanded_operands(left, right, axes):
  x, y = [samples(dtypes.int32, int(np.prod(shape))).reshape(shape) for shape in (left, right)]
  product = np.broadcast_to(x, (3, 4, 5)) * np.broadcast_to(y, (3, 4, 5))
  expected = np.add.reduce(product, axis=axes, keepdims=True, dtype=np.int32)
  check(lambda a, b: (a.expand((3, 4, 5)) * b.expand((3, 4, 5))).reduce(Ops.ADD, axes), x, y, expected=expected)

def test_matmul_never_makes_the_product():
  memory = Memory()
  x = np.ones((512, 512), np.float32)
  root = matmul(memory.leaf(x).cast(dtypes.float64), memory.leaf(x).cast(dtypes.float64) * 2)
  tracemalloc.start()
  (got,) = memory.run(root)
  peak = tracemalloc.get_traced_memory()[1]
  tracemalloc.stop()
  assert (got == 1024).all() and peak < 64 << 20                  # the product alone would be 1 GB

def test_cast_of_expanded_operands_is_a_contraction_too():
  memory = Memory()
  x = np.ones((512, 512), np.float32)
  wide = memory.leaf(x).reshape((512, 1, 512)).expand((512, 512, 512)).cast(dtypes.float64)
  other = memory.leaf(x).reshape((1, 512, 512)).expand((512, 512, 512)).cast(dtypes.float64)
  tracemalloc.start()
  (got,) = memory.run((wide * other).reduce(Ops.ADD, (2,)))
  peak = tracemalloc.get_traced_memory()[1]
  tracemalloc.stop()
  assert (got == 512).all() and peak < 64 << 20

def one_hot_gather(table, index):
  n, d = table.shape
  t = index.shape[0]
  iota = UOp.iota(n, index.dtype).reshape((1, n, 1)).expand((t, n, d))
  hot = iota.eq(index.reshape((t, 1, 1)).expand((t, n, d)))
  return hot.where(table.reshape((1, n, d)).expand((t, n, d)), 0).reduce(Ops.ADD, (1,)).reshape((t, d))

def test_gather_reads_only_what_it_needs():
  table = samples(dtypes.float32, 4000 * 64).reshape(4000, 64)
  table[5] = np.nan
  index = np.array([3, 3999, -1, 4000, 0] * 40, np.int32)
  expected = np.where(((index >= 0) & (index < 4000))[:, None], table[np.clip(index, 0, 3999)], np.float32(0))
  tracemalloc.start()
  check(one_hot_gather, table, index, expected=expected)
  peak = tracemalloc.get_traced_memory()[1]
  tracemalloc.stop()
  assert peak < 16 << 20

def test_masked_sum_keeps_infinities_that_the_mask_hides():
  mask = np.array([[True, False, True]] * 2)
  x = np.array([1, np.inf, 2], np.float32)
  def build(m, v): return m.where(v.reshape((1, 3)).expand((2, 3)), 0).reduce(Ops.ADD, (1,))
  check(build, mask, x, expected=np.full((2, 1), 3, np.float32))
  check(build, mask, x[::-1].copy(), expected=np.full((2, 1), 3, np.float32))
  check(build, ~mask, x, expected=np.full((2, 1), np.inf, np.float32))

def test_scatter_is_the_gradient_of_a_gather():
  index, g = np.array([2, 0, 2], np.int64), samples(dtypes.float32, 12).reshape(3, 4)
  def build(i, v):
    iota = UOp.iota(5, dtypes.int64).reshape((5, 1, 1)).expand((5, 4, 3))
    hot = iota.eq(i.reshape((1, 1, 3)).expand((5, 4, 3)))
    return hot.where(v.permute((1, 0)).reshape((1, 4, 3)).expand((5, 4, 3)), 0).reduce(Ops.ADD, (2,)).reshape((5, 4))
  expected = np.zeros((5, 4), np.float32)
  np.add.at(expected, index, g)
  check(build, index, g, expected=expected)

# ---- assignment ------------------------------------------------------------------------------------------------------

def assign(leaf, view, value): return leaf.after(view.store(value))

def test_store_into_a_view():
  memory = Memory()
  leaf = memory.leaf(np.zeros(12, np.float32))
  row = leaf.reshape((3, 4)).shrink(((1, 2), (0, 4)))
  (got,) = memory.run(assign(leaf, row, UOp.const(dtypes.float32, 7).spread((1, 4))))
  expected = np.zeros((3, 4), np.float32)
  expected[1] = 7
  np.testing.assert_array_equal(got.reshape(3, 4), expected)
  np.testing.assert_array_equal(memory.arrays[leaf].reshape(3, 4), expected)

def test_store_into_a_view_that_numpy_would_copy():
  memory = Memory()
  leaf = memory.leaf(np.zeros(6, np.float32))
  turned = leaf.reshape((2, 3)).permute((1, 0)).reshape((6,))
  memory.run(assign(leaf, turned, UOp.iota(6, dtypes.float32)))
  np.testing.assert_array_equal(memory.arrays[leaf], [0, 2, 4, 1, 3, 5])

def test_value_that_overlaps_its_target():
  memory = Memory()
  leaf = memory.leaf(np.arange(5, dtype=np.int32))
  memory.run(assign(leaf, leaf.shrink(((1, 5),)), leaf.shrink(((0, 4),))))
  np.testing.assert_array_equal(memory.arrays[leaf], [0, 0, 1, 2, 3])

def test_value_that_overlaps_a_target_that_is_no_view():
  memory = Memory()
  leaf = memory.leaf(np.arange(6, dtype=np.int32))
  memory.run(assign(leaf, leaf.reshape((2, 3)).permute((1, 0)).reshape((6,)), leaf))
  np.testing.assert_array_equal(memory.arrays[leaf], [0, 2, 4, 1, 3, 5])

def test_old_content_is_read_before_the_store():
  memory = Memory()
  leaf = memory.leaf(np.ones(3, np.float32))
  new = assign(leaf, leaf, leaf + 1.0)
  got = memory.run(new, leaf, leaf * 10.0, new + leaf, new * 100.0, leaf.flip((0,)))
  for value, expected in zip(got, (2, 1, 10, 3, 200, 1)): np.testing.assert_array_equal(value, [expected] * 3)

def test_two_stores_that_read_each_others_old_content():
  memory = Memory()
  a, b = memory.leaf(np.full(2, 1, np.int32)), memory.leaf(np.full(2, 2, np.int32))
  got = memory.run(assign(a, a, b), assign(b, b, a))
  np.testing.assert_array_equal(got, [[2, 2], [1, 1]])

def test_a_reader_of_old_content_above_another_store():
  memory = Memory()
  a, b = memory.leaf(np.full(2, 1, np.int32)), memory.leaf(np.full(2, 2, np.int32))
  new_a, new_b = assign(a, a, a * 10), assign(b, b, b * 10)
  got = memory.run(new_a + b, new_b + a)
  np.testing.assert_array_equal(got, [[12, 12], [21, 21]])

def test_chained_stores():
  memory = Memory()
  leaf = memory.leaf(np.zeros(3, np.int32))
  first = assign(leaf, leaf.shrink(((0, 1),)), UOp.const(dtypes.int32, 1).spread((1,)))
  second = assign(first, first.shrink(((1, 2),)), first.shrink(((0, 1),)) + 1)
  got = memory.run(first, second)
  np.testing.assert_array_equal(got, [[1, 0, 0], [1, 2, 0]])

def test_bfloat16_store():
  memory = Memory()
  leaf = memory.leaf(bits([1, 2, 3]), dtypes.bfloat16)
  memory.run(assign(leaf, leaf, leaf * 3.0))
  np.testing.assert_array_equal(memory.arrays[leaf], bits([3, 6, 9]))

# ---- the rest --------------------------------------------------------------------------------------------------------

def test_copies_pass_their_value():
  x = samples(dtypes.float32)
  check(lambda a: UOp(Ops.COPY, a.dtype, (a,), "NUMPY"), x, expected=x)
  check(lambda a: UOp(Ops.CONTIGUOUS, a.dtype, (a,)), x, expected=x)
  check(lambda a: UOp(Ops.DETACH, a.dtype, (a,)), x, expected=x)

def test_intermediates_are_freed():
  memory = Memory()
  value = memory.leaf(np.ones(1 << 20, np.float32))
  for _ in range(50): value = value + 1.0
  tracemalloc.start()
  (got,) = memory.run(value)
  peak = tracemalloc.get_traced_memory()[1]
  tracemalloc.stop()
  assert got[0] == 51 and peak < 5 * (4 << 20)

def test_a_long_chain():
  memory = Memory()
  value = memory.leaf(np.zeros(1, np.int32))
  for _ in range(20_000): value = value + 1
  assert memory.run(value)[0][0] == 20_000

def test_an_op_without_meaning_is_named():
  with pytest.raises(NotImplementedError, match="BARRIER"): Memory().run(UOp(Ops.BARRIER, dtypes.void))
