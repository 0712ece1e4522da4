# test_gradient.py: each rule against central differences in float64 and against torch.autograd.
import math
import numpy as np
import pytest
import picograd
from picograd.dtype import dtypes
from picograd.ops.gradient import gradient, jvp
from picograd.ops.ops import Ops
from picograd.ops.uop import UOp, toposort
from graph_eval import evaluate

torch = pytest.importorskip("torch")

def leaf(shape, dtype=dtypes.float64):
  return UOp.buffer(dtype, math.prod(shape), "CPU").reshape(shape)

def sample(shape, seed=0, low=-2.0, high=2.0):
  return np.random.default_rng(seed).uniform(low, high, shape)

def total(u): return u.reshape((math.prod(u.shape),)).reduce(Ops.ADD, (0,)).reshape(()) if u.shape else u

def weighted(u):
  """A scalar with a different weight for each element, so that a permuted gradient is seen."""
  n = math.prod(u.shape)
  weights = (UOp.iota(n, u.dtype) * 0.37 + 0.5).reshape(u.shape)
  return total(u * weights)

def slope_along(node, feed, x, direction, step=1e-6):
  """The central difference of a scalar node when x moves along direction."""
  high, low = (evaluate(node, {**feed, x: feed[x] + t * direction}) for t in (step, -step))
  return (high - low) / (2 * step)

def check_differences(build, values, tolerance=1e-6):
  """First and second derivatives of weighted(build) by each leaf, in reverse and in forward mode."""
  leaves = [leaf(v.shape) for v in values]
  root = weighted(build(*leaves))
  feed = dict(zip(leaves, values))
  grads = gradient(root, root.like(1), leaves)
  for x, v in feed.items():
    if x not in grads: continue
    direction = sample(v.shape, 7)
    difference = slope_along(root, feed, x, direction)
    got = evaluate(grads[x], feed)
    assert got.shape == v.shape
    assert np.allclose((got * direction).sum(), difference, rtol=tolerance, atol=tolerance)
    tangent = leaf(v.shape)
    forward = jvp(root, {x: tangent})
    pushed = evaluate(forward, {**feed, tangent: direction})
    assert np.allclose(pushed, difference, rtol=tolerance, atol=tolerance)
    first = weighted(grads[x])
    second = gradient(first, first.like(1), [x])
    change = slope_along(first, feed, x, direction)
    expected = (evaluate(second[x], feed) * direction).sum() if x in second else 0.0
    assert np.allclose(expected, change, rtol=1e-5, atol=1e-5)

UNARY = {
  "exp2": lambda x: x.alu(Ops.EXP2), "log2": lambda x: (x * x + 0.1).alu(Ops.LOG2), "sin": lambda x: x.alu(Ops.SIN),
  "sqrt": lambda x: (x * x + 0.1).alu(Ops.SQRT), "reciprocal": lambda x: x.like(1) / (x * x + 0.5),
  "reshape": lambda x: x.reshape((4, 3)) * x.reshape((4, 3)), "permute": lambda x: (x * x).permute((1, 0)),
  "expand": lambda x: (x * x).reshape((3, 1, 4)).expand((3, 5, 4)), "pad": lambda x: (x * x).pad(((1, 2), (0, 3))),
  "shrink": lambda x: (x * x).shrink(((1, 3), (0, 2))), "flip": lambda x: (x * x).flip((1,)),
  "sum": lambda x: (x * x).reduce(Ops.ADD, (1,)),
  "amax": lambda x: (x * x).reduce(Ops.MAX, (0,)),
  "prod": lambda x: x.reduce(Ops.MUL, (1,)), "prod all": lambda x: x.reduce(Ops.MUL, (0, 1)),
  "where": lambda x: (x < 0.3).where(x * x, x * 3.0),
  "contiguous": lambda x: UOp(Ops.CONTIGUOUS, x.dtype, (x * x,), 12345),
  "mulacc": lambda x: x.alu(Ops.MULACC, x, x), "cast": lambda x: (x * x).cast(dtypes.float64),
}

@pytest.mark.parametrize("name", UNARY)
def test_unary_differences(name):
  check_differences(UNARY[name], [sample((3, 4))])

def matmul(x, y):
  rows, columns = x.reshape((3, 1, 4)).expand((3, 3, 4)), y.reshape((1, 3, 4)).expand((3, 3, 4))
  return (rows * columns).reduce(Ops.ADD, (2,))

BINARY = {
  "add": lambda x, y: x + y, "mul": lambda x, y: x * y, "div": lambda x, y: x / (y * y + 0.5),
  "max": lambda x, y: (x * x).maximum(y),
  "matmul": matmul,
}

@pytest.mark.parametrize("name", BINARY)
def test_binary_differences(name):
  check_differences(BINARY[name], [sample((3, 4), 1), sample((3, 4), 2)])

def check_torch(build, torch_build, *values):
  """The gradients of weighted sums are torch's, bit for bit up to rounding."""
  leaves = [leaf(v.shape) for v in values]
  root = build(*leaves)
  tensors = [torch.tensor(v, requires_grad=True) for v in values]
  result = torch_build(*tensors)
  weights = torch.arange(result.numel(), dtype=result.dtype).reshape(result.shape) * 0.37 + 0.5
  (result * weights).sum().backward()
  grads = gradient(weighted(root), UOp.const(dtypes.float64, 1), leaves)
  for x, t in zip(leaves, tensors):
    got = evaluate(grads[x], dict(zip(leaves, values)))
    assert np.allclose(got, t.grad.numpy(), equal_nan=True), (got, t.grad)

TIES = np.array([[1., 2., 2., 0.], [3., 3., 3., 3.], [-1., -1., -2., -1.]])

def test_ties_of_maximum_share():
  check_torch(lambda x, y: x.maximum(y), torch.maximum, TIES, np.roll(TIES, 1, 1))

def test_maximum_of_nan():
  check_torch(lambda x, y: x.maximum(y), torch.maximum, np.array([1., math.nan, 2.]), np.array([math.nan, 1., 3.]))

def test_ties_of_amax_share():
  check_torch(lambda x: x.reduce(Ops.MAX, (1,)), lambda x: x.amax(1, keepdim=True), TIES)
  check_torch(lambda x: x.reduce(Ops.MAX, (0, 1)), lambda x: x.amax((0, 1), keepdim=True), TIES)

ROWS = [[1., 2., 3., 4., 5.], [1., 0., 3., 4., 5.], [0., 2., 0., 4., 5.], [0., 0., 0., 0., 0.]]

@pytest.mark.parametrize("row", ROWS)
def test_product_with_zeros(row):
  values = np.array([row, [2., 1., 1., 1., 1.]])
  check_torch(lambda x: x.reduce(Ops.MUL, (1,)), lambda x: x.prod(1, keepdim=True), values)
  check_torch(lambda x: x.reduce(Ops.MUL, (0, 1)), lambda x: x.prod().reshape(1, 1), values)

def test_hessian_of_product_with_a_zero():
  values = np.array([3., 0., 5.])
  x = leaf((3,))
  first = gradient(x.reduce(Ops.MUL, (0,)), UOp.const(x.dtype, 1).spread((1,)), [x])[x]
  hessian = torch.autograd.functional.hessian(lambda t: t.prod(), torch.tensor(values)).numpy()
  for i in range(3):
    component = first.shrink(((i, i + 1),))
    row = gradient(component, component.like(1), [x])[x]
    assert np.allclose(evaluate(row, {x: values}), hessian[i])

def test_square_root_and_quotient_at_zero():
  check_torch(lambda x: x.alu(Ops.SQRT), torch.sqrt, np.array([0., 4.]))
  check_torch(lambda x, y: x / y, torch.div, np.array([1., 0.]), np.array([2., 5.]))

def test_second_derivative_of_sine_has_no_shift():
  x = leaf(())
  first = gradient(x.alu(Ops.SIN), x.like(1), [x])[x]
  second = gradient(first, x.like(1), [x])[x]
  assert evaluate(second, {x: np.array(100.0)}) == pytest.approx(-math.sin(100.0), rel=1e-14)

# ---- what stops a gradient, and where targets may be -----------------------------------------------------------------

def test_absent_where_nothing_flows():
  x, y = leaf((3,)), leaf((3,))
  root = total(UOp(Ops.DETACH, x.dtype, (x,)) + x.cast(dtypes.int32).cast(x.dtype) + (x < 0).cast(x.dtype))
  assert gradient(root, root.like(1), [x, y]) == {}
  assert jvp(root, {x: x.like(1)}) is None

def test_bitcast_and_condition_stop():
  x = leaf((3,))
  root = total(x.bitcast(dtypes.int64).bitcast(dtypes.float64) + (x < 1.0).where(x.like(2), x.like(3)))
  assert gradient(root, root.like(1), [x]) == {}

def test_interior_target_with_a_leaf_below_it():
  x = leaf((3,))
  middle = x * x
  root = total(middle * middle + middle)
  grads = gradient(root, root.like(1), [middle, x])
  values = np.array([1., 2., 3.])
  assert np.allclose(evaluate(grads[middle], {x: values}), 2 * values**2 + 1)
  assert np.allclose(evaluate(grads[x], {x: values}), 4 * values**3 + 2 * values)

def test_nothing_is_built_below_the_lowest_target():
  x = leaf((3,))
  middle = x * x
  root = total(middle * 3.0)
  assert list(gradient(root, root.like(1), [middle])) == [middle]

def test_root_is_a_target():
  x = leaf(())
  assert gradient(x, x.like(5), [x]) == {x: x.like(5)}

def test_leaf_used_twice():
  x = leaf((2,))
  root = total(x + x)
  assert np.array_equal(evaluate(gradient(root, root.like(1), [x])[x], {x: np.ones(2)}), [2., 2.])

def test_seed_of_another_shape_is_refused():
  x = leaf((2,))
  with pytest.raises(ValueError, match="cannot start"): gradient(x, UOp.const(x.dtype, 1), [x])

def test_copy_goes_back():
  x = leaf((2,))
  root = UOp(Ops.COPY, x.dtype, (x,), "CUDA")
  grads = gradient(root, root.like(1), [x])
  assert grads[x].op is Ops.COPY and grads[x].arg == "CPU"

# ---- assignment ------------------------------------------------------------------------------------------------------

def assign(base, view, value): return base.after(view(base).store(value))

def test_assignment_gives_the_view_of_the_gradient():
  buffer = UOp.buffer(dtypes.float64, 6, "CPU")
  x = leaf((2,))
  view = lambda b: b.reshape((2, 3)).shrink(((0, 2), (1, 2))).reshape((2,))
  root = weighted(assign(buffer, view, x * x))
  values = {buffer: np.arange(6.0), x: np.array([2., 3.])}
  weights = np.arange(6) * 0.37 + 0.5
  assert np.allclose(evaluate(gradient(root, root.like(1), [x])[x], values), 2 * values[x] * weights[[1, 4]])

def test_later_assignment_takes_what_it_overwrites():
  buffer = UOp.buffer(dtypes.float64, 4, "CPU")
  x, y = leaf((4,)), leaf((2,))
  first = assign(buffer, lambda b: b, x * x)
  second = assign(first, lambda b: b.shrink(((1, 3),)), y * 3.0)
  root = weighted(second * second)
  values = {buffer: np.zeros(4), x: np.array([1., 2., 3., 4.]), y: np.array([5., 6.])}
  grads = gradient(root, root.like(1), [x, y])
  a, b = torch.tensor(values[x], requires_grad=True), torch.tensor(values[y], requires_grad=True)
  t = a * a
  t[1:3] = b * 3.0
  (t * t * (torch.arange(4) * 0.37 + 0.5).double()).sum().backward()
  assert np.allclose(evaluate(grads[x], values), a.grad.numpy())
  assert np.allclose(evaluate(grads[y], values), b.grad.numpy())
  direction = leaf((4,))
  moved = jvp(root, {x: direction})
  assert np.allclose(evaluate(moved, {**values, direction: np.ones(4)}), a.grad.sum().item())

# ---- dtypes ----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("dtype", dtypes.floats)
def test_every_float_dtype_keeps_its_dtype(dtype):
  x = leaf((4,), dtype)
  exp = x.alu(Ops.EXP2) + x.alu(Ops.SIN) + (x * x + 1.0).alu(Ops.SQRT) + (x * x + 1.0).alu(Ops.LOG2) + x.maximum(0.0)
  largest = x.reduce(Ops.MAX, (0,)).expand((4,)) + x.reduce(Ops.MUL, (0,)).expand((4,))
  root = total((exp * largest / (x * x + 2.0)).cast(dtypes.float32))
  grads = gradient(root, root.like(1), [x])
  assert (grads[x].dtype, grads[x].shape) == (dtype, (4,))
  second = gradient(total(grads[x]), UOp.const(dtype, 1), [x])
  assert second[x].dtype is dtype

def test_half_amax_with_many_ties():
  """A float16 cannot count beyond 2048: the count is kept in float32."""
  x = leaf((5000,), dtypes.float16)
  root = x.reduce(Ops.MAX, (0,))
  got = evaluate(gradient(root, root.like(1), [x])[x], {x: np.ones(5000, np.float16)})
  assert got.dtype == np.float16 and np.allclose(got, 1 / 5000, rtol=1e-2)

# ---- size ------------------------------------------------------------------------------------------------------------

def test_chain_of_a_hundred_thousand():
  x = leaf(())
  u = x
  for _ in range(100_000): u = u * 1.0 + 0.0
  grads = gradient(u, u.like(1), [x])
  assert len(toposort([grads[x]])) < 300_000
  del u, grads

def test_the_gradient_of_attention_is_right_where_some_of_its_loops_are_written_out():
  rng = np.random.default_rng(0)
  data = [rng.standard_normal((2, 3, 4)).astype(np.float32) for _ in range(4)]
  def gradients(lib):
    q, k, v = [lib.tensor(x).requires_grad_(True) for x in data[:3]]
    (lib.nn.functional.scaled_dot_product_attention(q, k, v) * lib.tensor(data[3])).sum().backward()
    return [x.grad.numpy() for x in (q, k, v)]
  torch = pytest.importorskip("torch")
  for got, want in zip(gradients(picograd), gradients(torch)):
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-6)

@pytest.mark.parametrize("times", [1, 2, 3])
def test_rows_taken_from_a_sum_of_equal_terms(times):
  """Each term's gradient is the same sum over places, which is added up in place as often as it is there."""
  x = picograd.tensor(sample((6, 40)), requires_grad=True)
  places, seed = [3, 1, 3, 39], sample((6, 4), 1)
  sum([x] * (times - 1), start=x).index_select(1, picograd.tensor(places)).backward(picograd.tensor(seed))
  want = np.zeros((6, 40))
  np.add.at(want, (slice(None), places), times * seed)
  np.testing.assert_allclose(x.grad.numpy(), want, rtol=1e-12)
