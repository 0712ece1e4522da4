# Loop nests that share their outer loops and pass rows on; stores to computed places. Against NumPy in float64.
import numpy as np
import pytest
import picograd as torch
from picograd.codegen import opts_for, prepared
from picograd.codegen.optimize import Opt
from picograd.codegen.rows import row_of
from picograd.codegen.schedule import schedule
from picograd.codegen.target import llvm_target
from picograd.dtype import dtypes
from picograd.ops.ops import Axis, Ops
from picograd.ops.uop import UOp

def loop(n: int) -> UOp: return UOp.range(n, Axis.LOOP)
def memory() -> UOp: return UOp(Ops.PARAM, dtypes.float32, (), 0)

def test_rows_are_apart():
  h, d = loop(4), loop(16)
  row = row_of(memory().index(h * 16 + d), (h,))
  assert row is not None and row.strides == (16,) and row.size == 16 and row.place is d
  assert row_of(memory().index(h * 8 + d), (h,)) is None                          # they overlap
  assert row_of(memory().index(d), (h,)) is None                                  # every step reads the same
  assert row_of(memory().index(h * 16 + d + 8), (h,)) is None                    # the end of one, the start of the next
  other = row_of(memory().index(h * 16 + d + 64), (h,))
  assert other is not None and other.base == 64 and other.place is d

def test_a_gate_bounds_a_row():
  h, d = loop(4), loop(16)
  at = UOp(Ops.PARAM, dtypes.int64, (), 1).index(UOp.const(dtypes.index, 0)).load().cast(dtypes.index)
  gate = (UOp.const(dtypes.index, -1) < at) & (at < UOp.const(dtypes.index, 32))
  assert row_of(memory().index(h * 512 + at * 16 + d), (h,)) is None
  row = row_of(memory().index(h * 512 + at * 16 + d, gate), (h,))
  assert row is not None and row.size == 512

def attention(q, k, v, mask):
  scores = q @ k.swapaxes(-1, -2) / np.sqrt(q.shape[-1]) + mask
  weights = np.exp(scores - scores.max(-1, keepdims=True))
  return weights / weights.sum(-1, keepdims=True) @ v

@pytest.mark.parametrize("shape", [(2, 3, 1, 10, 8), (2, 2, 10, 10, 16), (1, 5, 7, 13, 11)])
def test_attention(shape):
  B, H, T, L, D = shape
  rng = np.random.default_rng(0)
  q, k, v = (rng.normal(size=(B, H, n, D)).astype(np.float32) for n in (T, L, L))
  mask = np.where(np.arange(L) > np.arange(T)[:, None] + L - T, -np.inf, 0).astype(np.float32)
  scores = torch.tensor(q) @ torch.tensor(k).transpose(-1, -2) / D ** 0.5 + torch.tensor(mask)
  got = (scores.softmax(-1) @ torch.tensor(v)).numpy()
  np.testing.assert_allclose(got, attention(*(x.astype(np.float64) for x in (q, k, v)), mask), atol=1e-5)

@pytest.mark.parametrize("L, threads", [(8, 1), (64, 2)])
def test_threads_share_heads(L, threads):
  """What a step reads of its own rows is not computed again by every thread."""
  q, k, v = (torch.randn(1, 6, n, 48).realize() for n in (1, L, L))
  target = llvm_target(frozenset({"avx", "avx2", "avx512f"}), "x86_64", 2)
  mixed = (q @ k.transpose(-1, -2) / 48 ** 0.5).softmax(-1) @ v
  kernel, = schedule([mixed.uop], "CPU", target).kernels
  chosen = opts_for(prepared(kernel.ast), target)
  assert [o.amount for o in chosen if isinstance(o, Opt) and o.axis is Axis.THREAD] == [threads] * (threads > 1)

def test_what_is_added_to_places_counts_each_time():
  rng = np.random.default_rng(0)
  weight, values = rng.normal(size=(40, 6)).astype(np.float32), rng.normal(size=(90, 6)).astype(np.float32)
  rows = rng.integers(0, 40, 90)
  want = weight.astype(np.float64)
  np.add.at(want, rows, values)
  x, at = torch.tensor(weight.T.copy()), torch.tensor(np.tile(rows, (6, 1)))
  np.testing.assert_allclose(x.scatter_add(1, at, torch.tensor(values.T.copy())).numpy(), want.T, rtol=1e-5)
  x.scatter_add_(1, at, torch.tensor(values.T.copy()))
  np.testing.assert_allclose(x.numpy(), want.T, rtol=1e-5)

def test_a_value_that_reads_what_it_is_added_to():
  x = torch.tensor(np.arange(40, dtype=np.float32).reshape(2, 20))
  at = torch.tensor([[1, 1, 19], [0, 0, 0]])
  want = np.arange(40).reshape(2, 20).astype(np.float64)
  for row, places in enumerate(at.numpy()): np.add.at(want[row], places, want[row, places].copy())
  x.scatter_add_(1, at, x.gather(1, at))
  np.testing.assert_array_equal(x.numpy(), want)

def test_places_outside_of_a_row_touch_nothing():
  x = torch.zeros(20, 4).contiguous()
  with pytest.raises(IndexError): x[torch.tensor([20])] = 1
  x[torch.tensor([-1])] = torch.ones(1, 4)
  np.testing.assert_array_equal(x.numpy(), np.eye(20)[19][:, None] * np.ones((1, 4)))
