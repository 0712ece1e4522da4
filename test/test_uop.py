# The node: interning, leaves, construction, reading; and that it does not matter how deep or how old a graph is.
import gc, math, pickle
import pytest
from picograd.dtype import dtypes
from picograd.ops.ops import Axis, Ops, Space
from picograd.ops.uop import UOp, consumers, substitute, toposort

f32, i32 = dtypes.float32, dtypes.int32
def const(value, dtype=f32): return UOp.const(dtype, value)
def leaf(*shape, dtype=f32): return UOp.buffer(dtype, math.prod(shape), "CPU").reshape(shape)

# ---- interning -------------------------------------------------------------------------------------------------------

def test_equal_nodes_are_the_same_object():
  x = leaf(4)
  assert x + x is x + x and const(1.0) is const(1) and x.reshape((2, 2)) is x.reshape((2, 2))
  assert UOp(Ops.ADD, f32, (x, x)) is x + x

def test_what_tells_nodes_apart():
  x, y = leaf(4), leaf(4)
  nodes = [x + y, y + x, x * y, const(1.0), const(1, i32), const(1, dtypes.int64), const(True, dtypes.bool)]
  assert len(set(nodes)) == len(nodes)

def test_a_leaf_is_never_shared():
  assert leaf(4) is not leaf(4) and UOp.register(f32) is not UOp.register(f32)
  assert UOp.range(4, Axis.LOOP) is not UOp.range(4, Axis.LOOP)
  assert UOp.iota(4, i32) is UOp.iota(4, i32)

def test_floats_are_compared_by_their_bits():
  assert const(0.0) is not const(-0.0)
  assert const(math.nan) is const(math.nan)

def test_constants_hold_values_of_their_dtype():
  assert const(300, dtypes.uint8).arg == 44 and const(0.1, dtypes.float16).arg == 0.0999755859375
  assert const(2).arg == 2.0 and type(const(2).arg) is float
  assert type(const(1.0, i32).arg) is int

def test_a_pickled_node_comes_back_as_itself():
  x = (leaf(4) + 1.0).reduce(Ops.ADD, (0,))
  assert pickle.loads(pickle.dumps(x)) is x
  assert pickle.loads(pickle.dumps(const(math.nan))) is const(math.nan)

# ---- construction ----------------------------------------------------------------------------------------------------

def test_dtypes_follow_the_sources():
  x, n = leaf(4), leaf(4, dtype=i32)
  assert (x < x).dtype is dtypes.bool and x.ne(x).dtype is dtypes.bool and (n % 3).dtype is i32
  assert (n < 3).where(x, 0.0).dtype is f32 and x.cast(i32).dtype is i32 and x.cast(f32) is x
  v = const(1.0, f32.vec(4))
  assert v.op is Ops.STACK and v.dtype is f32.vec(4) and (v < v).dtype is dtypes.bool.vec(4)
  assert v.cast(i32).dtype is i32.vec(4)

def test_operators_build_what_they_say():
  x = leaf(4)
  assert (x - x).op is Ops.ADD and (-x).op is Ops.MUL and (2.0 - x).src[0].op is Ops.EXPAND
  assert (x >= x).op is Ops.CMPNE and (x <= x).op is Ops.CMPNE and (x > x).op is Ops.CMPLT
  assert x.eq(x).op is Ops.CMPNE and x.minimum(x).op is Ops.WHERE and (x / x).op is Ops.FDIV
  n = leaf(4, dtype=i32)
  assert [(n // n).op, (n % n).op, (n & n).op, (n | n).op, (n ^ n).op, (n << n).op, (n >> n).op] == \
    [Ops.IDIV, Ops.MOD, Ops.AND, Ops.OR, Ops.XOR, Ops.SHL, Ops.SHR]

def test_a_python_number_takes_the_shape_and_dtype():
  x = leaf(2, 3, dtype=dtypes.float16)
  assert (x + 1).src[1].shape == (2, 3) and (x + 1).src[1].dtype is dtypes.float16

def test_shapes():
  x = leaf(2, 3)
  assert x.permute((1, 0)).shape == (3, 2) and x.reshape((6,)).shape == (6,) and x.pad(((1, 2), (0, 0))).shape == (5, 3)
  assert x.shrink(((0, 1), (1, 3))).shape == (1, 2) and x.flip((0,)).shape == (2, 3)
  assert x.reduce(Ops.MAX, (1,)).shape == (2, 1)
  assert x.reshape((2, 3, 1)).expand((2, 3, 4)).shape == (2, 3, 4) and const(1.0).spread((2, 2)).shape == (2, 2)
  assert UOp.iota(7, i32).shape == (7,) and UOp.register(f32, 3).shape == () and UOp.range(4, Axis.LOOP).shape == ()

def test_moves_that_change_nothing_build_nothing():
  x = leaf(2, 3)
  assert x.reshape((2, 3)) is x and x.expand((2, 3)) is x and x.permute((0, 1)) is x and x.flip(()) is x
  assert x.pad(((0, 0), (0, 0))) is x and x.shrink(((0, 2), (0, 3))) is x and x.reduce(Ops.ADD, ()) is x

@pytest.mark.parametrize("build,words", [
  (lambda x: x + leaf(3, 2), r"\(2, 3\) and \(3, 2\)"),
  (lambda x: x.reshape((4,)), r"cannot reshape \(2, 3\) \(6 elements\) to \(4,\) \(4 elements\)"),
  (lambda x: x.expand((4, 3)), "only dimensions of size 1 stretch"),
  (lambda x: x.permute((0, 0)), "cannot permute"),
  (lambda x: x.pad(((-1, 0), (0, 0))), "cannot pad"),
  (lambda x: x.shrink(((0, 3), (0, 3))), "cannot shrink"),
  (lambda x: x.reduce(Ops.ADD, (2,)), "cannot reduce"),
])
def test_shape_errors_name_the_shapes(build, words):
  before = len(UOp.pool)
  x = leaf(2, 3)
  with pytest.raises(ValueError, match=words): build(x)
  del x
  gc.collect()
  assert len(UOp.pool) <= before + 1                                # a node that could not be built is in no table

# ---- reading ---------------------------------------------------------------------------------------------------------

def test_toposort_lists_sources_first_and_each_node_once():
  x, y = leaf(4), leaf(4)
  root = (x + y) * (x + y) + x
  order = root.toposort()
  assert order[-1] is root and len(order) == len(set(order)) and order == root.toposort()
  assert all(order.index(s) < order.index(u) for u in order for s in u.src)

def test_toposort_of_several_roots_keeps_their_order():
  x, y = leaf(4), leaf(4)
  a, b = x + 1.0, y + 1.0
  order = toposort([b, a])
  assert order.index(b) < order.index(a) and set(order) == set(a.toposort()) | set(b.toposort())

def test_toposort_stops_where_told():
  x = leaf(4)
  middle = x + x
  assert (middle * middle).toposort(stop=lambda u: u is middle) == [middle, middle * middle]

def test_substitute_rebuilds_only_what_changes():
  x, y, z = leaf(4), leaf(4), leaf(4)
  root = (x * y) + (y * y)
  new = root.substitute({x: z})
  assert new is (z * y) + (y * y) and root.substitute({}) is root and root.substitute({z: x}) is root
  assert root.substitute({x: x + y}) is ((x + y) * y) + (y * y)     # the replacement is not entered again
  assert substitute([root, x], {x: z}) == [new, z]

def test_consumers():
  x = leaf(4)
  double, square = x + x, x * x
  table = consumers(toposort([double, square]))
  assert table[x] == [double, square] and table[double] == []

def test_device_is_that_of_the_first_leaf():
  x = leaf(4) * 2.0
  assert x.device == "CPU" and const(1.0).device == ""
  moved = UOp(Ops.COPY, f32, (x,), "NUMPY")
  assert moved.device == (moved + 1.0).device == "NUMPY"

def test_replace():
  x = leaf(4)
  assert (x + x).replace(op=Ops.MUL) is x * x and x.replace() is x
  assert x.replace(arg=x.arg._replace(version=1)) is not x and x.arg.space is Space.GLOBAL

def test_repr_names_ops_and_dtype():
  assert repr(const(1.0) + const(2.0)) == "UOp(ADD, dtypes.float32, CONST, CONST)"
  assert repr(const(1.0)) == "UOp(CONST, dtypes.float32, arg=1.0)"

# ---- depth and life --------------------------------------------------------------------------------------------------

DEPTH = 100_000
def chain(start, depth=DEPTH):
  node = start
  for _ in range(depth): node = UOp(Ops.ADD, node.dtype, (node, start))
  return node

def test_deep_chains_are_walked_without_recursion():
  x, y = leaf(1), leaf(1)
  root = chain(x)
  assert len(root.toposort()) == DEPTH + 1 and root.device == "CPU"
  assert len(consumers(root.toposort())[x]) == DEPTH
  assert root.substitute({x: y}) is chain(y)

def test_deep_chains_are_freed_without_recursion():
  gc.collect()
  before = len(UOp.pool)
  root = chain(leaf(1))
  assert len(UOp.pool) >= before + DEPTH
  del root
  assert len(UOp.pool) <= before

def test_the_pool_does_not_keep_nodes_alive():
  gc.collect()
  before = len(UOp.pool)
  for _ in range(200): (leaf(2, 2) * 2.0 + 3.0).reduce(Ops.ADD, (0,))
  assert len(UOp.pool) <= before + 4

def test_a_node_of_a_shape_error_can_be_built_again():
  x = leaf(4)
  for _ in range(2):
    with pytest.raises(ValueError): x.reshape((5,))
  assert x.reshape((2, 2)).shape == (2, 2)

def test_a_node_made_while_the_collector_runs_stays_the_only_one():
  """The collector clears the weak references to all garbage first and calls finalizers then: one of them may build a
  node that is equal to a dying one. The dying node must not take the new one's place in the pool with it."""
  class Maker:
    made: list[UOp] = []
    def __del__(self): Maker.made.append(UOp.const(dtypes.float32, 123.25) + 1)
  first, second = Maker(), Maker()
  first.cycle, second.cycle = second, first
  first.node = UOp.const(dtypes.float32, 123.25) + 1
  del first, second
  gc.collect()
  assert Maker.made[0] is Maker.made[1] is UOp.const(dtypes.float32, 123.25) + 1

def test_toposort_is_the_recursive_walk():
  """Sources in order, each node once after them; a node that stops is listed but not entered."""
  def recursive(u, stop, done):
    if u not in done:
      for s in () if stop(u) else u.src: recursive(s, stop, done)
      done[u] = None
    return done
  a, b = UOp(Ops.PARAM, dtypes.ptr, (), 0), UOp(Ops.PARAM, dtypes.ptr, (), 1)
  shared = a.alu(Ops.ADD, b)
  graph = shared.alu(Ops.MUL, a).alu(Ops.ADD, b.alu(Ops.MUL, shared).alu(Ops.MUL, b)).alu(Ops.ADD, shared)
  for stop in (lambda u: False, lambda u: u is shared, lambda u: u.op is Ops.MUL):
    found = {}
    for root in (shared, graph, a): recursive(root, stop, found)
    assert toposort([shared, graph, a], stop) == list(found)
