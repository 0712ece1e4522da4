# flatopt.py, inline.py, memopt.py: random programs with loops and calls compute the same after these passes, and the
# passes find what they are for.
import functools
from dataclasses import replace
from unittest import mock
import numpy as np
import pytest
from picograd.codegen import memopt
from picograd.codegen.flat import Builder, Flow, every_node, incoming, mem2reg, new_label
from picograd.codegen.flatopt import constants_last, reduce_strength, simplify, thread_jumps
from picograd.codegen.inline import calls_of, inline_all
from picograd.codegen.memopt import Sizes, improve_memory
from picograd.codegen.place import place, separate_cases
from picograd.dtype import dtypes
from picograd.ops.ops import Ops
from picograd.ops.spec import verify
from picograd.ops.uop import UOp
from picograd.runtime.python import PythonProgram
from test_riscv_fuzz import make_program, numbers_of

SIZES = Sizes({"x": 8, "y": 16})                                            # of objects that tests name
i32, i64, ptr = dtypes.int32, dtypes.int64, dtypes.ptr

def improve(fn): return simplify(improve_memory(simplify(fn), SIZES))
def listed(fn, op): return [u for block in fn.blocks.values() for u in block if u.op is op]

@pytest.mark.parametrize("seed", range(2000, 2060))
def test_random_programs_compute_the_same(seed):
  functions = make_program(numbers_of(seed))
  want = PythonProgram("f", [place(fn) for fn in functions]).run(12345, -7)
  better = inline_all(functions, (), improve)
  for fn in better: verify("flat", fn)
  assert PythonProgram("f", [place(fn) for fn in better]).run(12345, -7) == want

def test_a_call_becomes_the_callee():
  square = Builder("square", [i64], i64)
  square.ret(square.param(0) * square.param(0))
  b = Builder("f", [i64], i64)
  b.ret(b.call("square", b.param(0), dtype=i64) + b.call("square", b.param(0) + 1, dtype=i64))
  fn, _ = inline_all([b.finish(), square.finish()], (), improve)
  assert not calls_of(fn) and PythonProgram("f", [place(fn)]).run(3) == 25

def test_what_another_object_may_replace_stays_a_call():
  b, one = Builder("f", [], i64), Builder("one", [], i64)
  one.ret(UOp.const(i64, 1))
  b.ret(b.call("one", dtype=i64))
  fn, _ = inline_all([b.finish(), one.finish()], ("one",), improve)
  assert len(calls_of(fn)) == 1

def at(base, offset): return UOp(Ops.ADD, ptr, (base, UOp.const(i64, offset)))

def test_a_load_of_what_was_stored_is_no_load():
  b = Builder("f", [ptr, ptr], i64)
  b.store(at(b.param(0), 8), UOp.const(i64, 7))
  b.store(at(b.param(0), 16), UOp.const(i64, 8))
  first = b.load(at(b.param(0), 8), i64)
  b.store(b.param(1), first)                                         # may be the same place
  b.ret(b.load(at(b.param(0), 8), i64) + first)
  assert len(listed(improve(b.finish()), Ops.LOAD)) == 1

def test_a_call_that_gets_an_array_may_change_it():
  b = Builder("f", [], i64)
  given, kept = b.var(i64, 4), b.var(i64, 4)
  for array in (given, kept): b.store(array, UOp.const(i64, 7))
  offset = b.call("g", given, UOp(Ops.ADD, ptr, (kept, UOp.const(i64, 8))).cast(i64) * 0, dtype=i64)
  b.ret(b.load(given, i64) + b.load(kept, i64) + offset)
  loads = listed(improve(b.finish()), Ops.LOAD)
  assert [u.src[0] for u in loads] == [given]

def test_the_number_of_terms_of_a_sum_costs_no_squares():
  """Of integers, as nothing but a pointer can lead to memory."""
  b = Builder("f", [i32], i32)
  b.ret(functools.reduce(lambda total, k: total + (b.param(0) ^ k), range(5000), b.param(0)))
  with mock.patch.object(memopt, "address_of", side_effect=AssertionError): improve_memory(b.finish(), SIZES)

def test_a_load_where_ways_join_is_what_was_known_on_each():
  """if (c) p[i = 1] = 5; else p[i = 2] = 6; k = p[i]; do k += p[i]; while (k < 50);"""
  b = Builder("f", [ptr, i64], i64)
  at_i, k, yes, no, join, head, out = b.var(i64), b.var(i64), *[new_label() for _ in range(5)]
  b.branch(b.param(1) < 7, yes, no)
  for label, i in ((yes, 1), (no, 2)):
    b.begin(label)
    b.set(at_i, UOp.const(i64, i))
    b.store(UOp(Ops.ADD, ptr, (b.param(0), b.get(at_i) * 8)), UOp.const(i64, i + 4))
    b.jump(join)
  b.begin(join)
  first = b.load(UOp(Ops.ADD, ptr, (b.param(0), b.get(at_i) * 8)), i64)
  b.set(k, first)
  b.start(head)
  b.set(k, b.get(k) + b.load(UOp(Ops.ADD, ptr, (b.param(0), b.get(at_i) * 8)), i64))
  b.branch(b.get(k) < 50, head, out)
  b.begin(out)
  b.ret(b.get(k))
  fn = improve(mem2reg(b.finish()))
  assert not listed(fn, Ops.LOAD)
  for given, want in ((3, 50), (9, 54)):
    assert PythonProgram("f", [place(fn)]).run(np.zeros(32, np.uint8), given) == want

def test_what_a_loop_changes_after_its_start_is_read_again():
  """first = p[0]; do { p[0] = p[1]; p[1] = 0; total += p[0]; } while (p[0]): the value at the start of a round is no
  value at its end."""
  b = Builder("f", [ptr], i64)
  total, head, more, out = b.var(i64), new_label(), new_label(), new_label()
  b.set(total, b.load(b.param(0), i64))
  b.start(head)
  b.set(total, b.get(total) + b.load(b.param(0), i64) * 10)
  b.store(at(b.param(0), 8 * 2), b.load(at(b.param(0), 8), i64))
  b.call("g", b.param(0))
  b.start(more)
  b.branch(b.load(b.param(0), i64).ne(0), head, out)
  b.begin(out)
  b.ret(b.get(total))
  g = Builder("g", [ptr], dtypes.void)
  g.store(g.param(0), g.load(g.param(0), i64) + -1)
  functions = [improve(mem2reg(b.finish())), g.finish()]
  assert PythonProgram("f", [place(fn) for fn in functions]).run(np.array([3, 0, 0], np.int64).view(np.uint8)) == 63

@pytest.mark.parametrize("calls, asks, is_hoisted", [(False, False, True), (True, False, False), (False, True, False)])
def test_a_load_that_a_round_may_not_reach_stays_in_its_loop(calls, asks, is_hoisted):
  """for (;;) { g(); if (k > 5) total += array[i]; k++; }: g may end the program, and k be 5 for ever"""
  b = Builder("f", [i64], i64)
  array, total, k, head, then, after = b.var(i64, 4), b.var(i64), b.var(i64), *[new_label() for _ in range(3)]
  place = UOp(Ops.ADD, ptr, (array, b.param(0) * 8))
  b.set(total, UOp.const(i64, 0))
  b.set(k, UOp.const(i64, 0))
  b.start(head)
  if calls: b.call("g")
  if asks: b.branch(5 < b.get(k), then, after)
  b.start(then)
  b.set(total, b.get(total) + b.load(place, i64))
  b.start(after)
  b.set(k, b.get(k) + 1)
  b.store(b.param(0).cast(ptr), b.get(total))
  b.jump(head)
  fn = improve(mem2reg(b.finish()))
  assert any(u.op is Ops.LOAD for u in next(iter(fn.blocks.values()))) is is_hoisted

@pytest.mark.parametrize("offset, there", [(8, False), (-12, False), (0, True), (-8, True)])
def test_a_place_beyond_what_an_object_could_hold_is_not_in_it(offset, there):
  b = Builder("f", [ptr], i64)
  x = UOp(Ops.SYM, ptr, (), "x")                                     # has eight bytes
  first = b.load(x, i64)
  b.store(at(b.param(0), offset), UOp.const(i64, 3))
  b.ret(first + b.load(x, i64))
  assert len(listed(improve(b.finish()), Ops.LOAD)) == 1 + there

@pytest.mark.parametrize("k, there", [(2, True), (1, False)])
def test_fields_of_structures_in_an_array_are_apart(k, there):
  """load p[i].first; p[j].second = 3, or j's first; load p[i].first"""
  b = Builder("f", [ptr, i64, i64], i64)
  def field(i, offset): return at(UOp(Ops.ADD, ptr, (b.param(0), b.param(i) * 24)), offset)
  first = b.load(field(1, 8), i64)
  b.store(field(2, 8 * k), UOp.const(i64, 3))
  b.ret(first + b.load(field(1, 8), i64))
  assert len(listed(improve(b.finish()), Ops.LOAD)) == 2 - there

@pytest.mark.parametrize("is_read", [False, True])
def test_a_jump_to_a_question_whose_answer_is_known_goes_on(is_read):
  """yes = p < 5 ? p < 3 : 0; return yes ? 7 : 8, or 8 + yes"""
  b = Builder("f", [i64], i64)
  yes, labels = b.var(i64), [new_label() for _ in range(5)]
  small, large, join, then, otherwise = labels
  b.branch(b.param(0) < 5, small, large)
  for label, value in ((small, (b.param(0) < 3).cast(i64)), (large, UOp.const(i64, 0))):
    b.begin(label)
    b.set(yes, value)
    b.jump(join)
  b.begin(join)
  b.branch(b.get(yes).ne(0), then, otherwise)
  b.begin(then)
  b.ret(UOp.const(i64, 7))
  b.begin(otherwise)
  b.ret(b.get(yes) + 8 if is_read else UOp.const(i64, 8))
  before = simplify(mem2reg(b.finish()))
  fn = thread_jumps(before)
  verify("flat", fn)
  for given, want in ((2, 7), (4, 8), (9, 8)): assert PythonProgram("f", [place(fn)]).run(given) == want
  assert (fn is before) is is_read

@pytest.mark.parametrize("always", [True, False])
def test_what_both_sides_of_a_branch_need_only_at_times_is_not_computed_before(always):
  b = Builder("f", [i64, i64], i64)
  product = b.param(0) * b.param(1)
  sides = [new_label(), new_label()]
  b.branch(b.param(0) < 5, *sides)
  for k, label in enumerate(sides):
    b.begin(label)
    rare, often = new_label(), new_label()
    if not always:
      b.branch(b.param(1) < k, rare, often)
      b.begin(often)
      b.ret(UOp.const(i64, k))
      b.begin(rare)
    b.ret(product + k)
  fn = b.finish()
  first, *_ = place(separate_cases(fn, Flow(fn))).blocks.values()
  assert any(u.op is Ops.MUL for u in first) is always

@pytest.mark.parametrize("is_known", [True, False])
@pytest.mark.parametrize("step, start, want", [(1, 0, 21), (1, 2, 18), (1, 5, 6), (-1, 7, 36), (-1, 0, 1)])
def test_a_counter_that_only_finds_places_is_a_pointer(step, start, want, is_known):
  """i = start; if (i < bound) do total += p[i]; while (++i < bound), or while (--i >= 0); p[i] = i + 1, bound = 6"""
  b = Builder("f", [ptr, i32], i64)
  total, i, enter, head, out = b.var(i64), b.var(i32), new_label(), new_label(), new_label()
  bound = UOp.const(i32, 6) if is_known else b.param(1)
  b.set(total, UOp.const(i64, 0))
  b.set(i, UOp.const(i32, start))
  b.branch(b.get(i) < bound if step > 0 else (b.param(1) < 0).ne(True), enter, out)
  b.start(enter)
  b.start(head)
  b.set(total, b.get(total) + b.load(UOp(Ops.ADD, ptr, (b.param(0), b.get(i).cast(i64) * 8)), i64))
  b.set(i, b.get(i) + step)
  b.branch(b.get(i) < bound if step > 0 else (b.get(i) < 0).ne(True), head, out)
  b.begin(out)
  b.ret(b.get(total))
  fn = reduce_strength(replace(simplify(mem2reg(b.finish())), is_lenient=True))
  memory = np.arange(1, 11, dtype=np.int64).view(np.uint8)
  assert PythonProgram("f", [place(fn)]).run(memory, 6) == want
  assert not [p for p in incoming(fn) if p.dtype is i32]

@pytest.mark.parametrize("is_lenient", [True, False])
def test_constants_of_places_stand_last_where_counters_never_overflow(is_lenient):
  b = Builder("f", [ptr, i32], i64)
  address = UOp(Ops.ADD, ptr, (b.param(0), (b.param(1) + 1).cast(i64) * 8))
  b.ret(b.load(address, i64))
  load, = listed(constants_last(replace(b.finish(), is_lenient=is_lenient)), Ops.LOAD)
  assert (load.src[0].src[1] is UOp.const(i64, 8)) is is_lenient

@pytest.mark.parametrize("own", [True, False])
def test_a_square_root_is_an_instruction_unless_the_program_has_its_own(own):
  b, other = Builder("f", [dtypes.float64], dtypes.float64), Builder("sqrt", [dtypes.float64], dtypes.float64)
  b.ret(b.call("sqrt", b.param(0), dtype=dtypes.float64))
  other.ret(other.call("g", other.param(0), other.param(0), dtype=dtypes.float64))
  fn, *_ = inline_all([b.finish(), other.finish()][:1 + own], ("sqrt",), improve)
  roots = [u for u in every_node(fn) if u.op is Ops.SQRT]
  assert len(roots) == (not own) and len(calls_of(fn)) == 1          # for negative numbers, or the program's

@pytest.mark.parametrize("between, stays", [("nothing", 1), ("load", 2), ("call", 2), ("other", 1), ("branch", 1)])
def test_a_store_before_another_to_the_same_place(between, stays):
  b = Builder("f", [ptr], i64)
  x, end, rest = UOp(Ops.SYM, ptr, (), "x"), new_label(), new_label()
  b.store(x, UOp.const(i64, 3))
  value = b.load(b.param(0), i64) if between in ("load", "branch") else UOp.const(i64, 0)
  if between == "call": b.call("g")
  if between == "other": value = b.load(UOp(Ops.SYM, ptr, (), "y"), i64)
  if between == "branch":
    b = Builder("f", [ptr], i64)
    b.store(x, UOp.const(i64, 3))
    b.branch(b.param(0).cast(i64) < 9, end, rest)
    for label in (end, rest):
      b.begin(label)
      b.store(x, UOp.const(i64, 4))
      b.ret(value.like(0))
    stays = 2
  else:
    b.store(x, UOp.const(i64, 4))
    b.ret(value)
  assert len(listed(improve(b.finish()), Ops.STORE)) == stays

@pytest.mark.parametrize("other, stays", [("x", False), ("y", True)])
def test_a_load_leaves_a_loop_where_nothing_changes_it(other, stays):
  """for (i = 0; i < 9; i++) { total += x; *other = i; }"""
  b = Builder("f", [], i32)
  x, store_to = UOp(Ops.SYM, ptr, (), "x"), UOp(Ops.SYM, ptr, (), other)
  total, i, head, out = b.var(i32), b.var(i32), new_label(), new_label()
  b.set(total, UOp.const(i32, 0))
  b.set(i, UOp.const(i32, 0))
  b.start(head)
  b.set(total, b.get(total) + b.load(x, i32))
  b.store(store_to, b.get(i))
  b.set(i, b.get(i) + 1)
  b.branch(b.get(i) < 9, head, out)
  b.begin(out)
  b.ret(b.get(total))
  fn = improve(mem2reg(b.finish()))
  load, = listed(fn, Ops.LOAD)
  assert (load in next(iter(fn.blocks.values()))) is stays
