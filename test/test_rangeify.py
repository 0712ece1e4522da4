# What is cut, what is read twice, in which order loops nest.
import numpy as np
from graphs import close, leaf, matmul, random, softmax2, softmax2_numpy, total, value
from picograd.codegen.schedule import PLAIN
from picograd.codegen.rangeify import Plan, is_contraction, rangeify
from picograd.ops.ops import Ops
from picograd.ops.uop import UOp, toposort

def stores(*roots: UOp) -> Plan: return rangeify(list(roots), "CPU", PLAIN)

def test_no_movement_is_left():
  x = leaf(random(4, 6))
  plan = stores(x.permute((1, 0)).pad(((1, 0), (0, 2))).flip((0,)) * 2)
  ops = {u.op for s in plan.stores for u in toposort([s.value, s.address])}
  assert not ops & {Ops.RESHAPE, Ops.PERMUTE, Ops.EXPAND, Ops.PAD, Ops.SHRINK, Ops.FLIP, Ops.BUFFER}

def test_agreeing_readers_share_one_store():
  x = leaf(random(4, 6))
  y = x * 3 + 1
  assert len(stores(y * 2 + y).stores) == 1

def test_a_matmul_read_twice_is_stored_once():
  a, b = leaf(random(8, 8)), leaf(random(8, 8, seed=1))
  c = matmul(a, b)
  assert len(stores(c + c.permute((1, 0))).stores) == 2

def test_contraction_is_recognised():
  a, b = leaf(random(8, 8)), leaf(random(8, 8, seed=1))
  product = matmul(a, b).src[0]
  assert is_contraction(product)
  assert not is_contraction(total(a * b, 1)) and not is_contraction(total(a, 1))

def test_loops_over_rows_come_first():
  """A reduction over axis 0 depends on the columns: their loop must enclose the others."""
  x = leaf(random(5, 7))
  plan = stores(x - x.reduce(Ops.MAX, (0,)).expand((5, 7)))
  store, = plan.stores
  assert [r.bound.arg for r in store.ranges] == [7, 5] and [r.bound.arg for r in store.dims] == [5, 7]

def test_rows_and_columns_do_not_nest():
  x = leaf(random(5, 7))
  centred = x - total(x, 1).expand((5, 7)) - total(x, 0).expand((5, 7))
  assert len(stores(centred).stores) == 2
  array = value(x).astype(np.float64)
  close(value(centred), array - array.sum(1, keepdims=True) - array.sum(0, keepdims=True))

def test_epilogue_of_a_reduction_is_stored_before_the_next():
  """sum(relu(a@b)): the relu goes with the matmul, not with the sum."""
  a, b = leaf(random(8, 8)), leaf(random(8, 8, seed=1))
  first, second = stores(total(matmul(a, b).maximum(0), 0, 1)).stores
  assert [any(u.op is Ops.MAX for u in toposort([s.value])) for s in (first, second)] == [True, False]

def test_softmax_of_rows_and_columns():
  x = random(6, 10)
  close(value(softmax2(leaf(x))), softmax2_numpy(x))
  close(value(softmax2(leaf(x).permute((1, 0)))), softmax2_numpy(x.T))

def test_gather_through_padding_reads_nothing_outside():
  x = random(3, 4)
  padded = leaf(x).pad(((2, 1), (0, 3)))
  close(value(padded.alu(Ops.EXP2)), np.exp2(np.pad(x, ((2, 1), (0, 3))).astype(np.float64)))
