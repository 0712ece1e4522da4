# Listings of each form of a program, word for word: they are read by people and quoted in docs/ir.md.
from types import SimpleNamespace
from picograd.dtype import dtypes
from picograd.ops.ops import Axis, Buf, Ops, Space
from picograd.ops.show import diff, show
from picograd.ops.uop import UOp

def lines(text): return text.split("\n")
def buffer(number, size): return UOp(Ops.BUFFER, dtypes.float32, (), Buf(number, size, Space.GLOBAL, "CPU"))
def loop(number, bound, axis): return UOp(Ops.RANGE, dtypes.index, (UOp.const(dtypes.index, bound),), (number, axis))
def param(slot): return UOp(Ops.PARAM, dtypes.float32, (), slot)
def label(number): return UOp(Ops.LABEL, dtypes.void, (), number)

def tensor(factor):
  matrix = buffer(1, 16).reshape((4, 4))
  return (matrix * factor).permute((1, 0)).reduce(Ops.ADD, (1,))

def test_a_tensor_graph():
  assert lines(show(tensor(2.0))) == [
    "%0 = BUFFER float32 (16,) #1 size=16 GLOBAL CPU",
    "%1 = RESHAPE float32 (4, 4) %0",
    "%2 = RESHAPE float32 (1, 1) 2.0",
    "%3 = EXPAND float32 (4, 4) %2",
    "%4 = MUL float32 (4, 4) %1 %3",
    "%5 = PERMUTE float32 (4, 4) (1, 0) %4",
    "%6 = REDUCE float32 (4, 1) ADD (1,) %5",
  ]

def test_roots_share_what_they_have_in_common():
  a = buffer(1, 4)
  assert lines(show([a + a, a * a])) == [
    "%0 = BUFFER float32 (4,) #1 size=4 GLOBAL CPU",
    "%1 = ADD float32 (4,) %0 %0",
    "%2 = MUL float32 (4,) %0 %0",
  ]

def test_a_constant_alone_has_its_line():
  assert show(UOp.const(dtypes.int32, 5)) == "CONST int32 5"

def test_a_kernel_graph():
  i, j = loop(0, 4, Axis.LOOP), loop(1, 8, Axis.REDUCE)
  total = UOp(Ops.REDUCE, dtypes.float32, (param(1).index(i * 8 + j).load(), j), (Ops.ADD, ()))
  assert lines(show(UOp.sink(param(0).index(i).store(total).end(i)))) == [
    "%0 = PARAM float32 0",
    "%1 = RANGE index r0 LOOP 4",
    "%2 = INDEX float32 %0 %1",
    "%3 = PARAM float32 1",
    "%4 = MUL index %1 8",
    "%5 = RANGE index r1 REDUCE 8",
    "%6 = ADD index %4 %5",
    "%7 = INDEX float32 %3 %6",
    "%8 = LOAD float32 %7",
    "%9 = REDUCE float32 ADD %8 %5",
    "%10 = STORE %2 %9",
    "%11 = END %10 %1",
    "%12 = SINK %11",
  ]

def test_an_after_of_a_graph_has_a_number_of_its_own():
  i = loop(0, 4, Axis.LOOP)
  assert lines(show(buffer(1, 4).after(i)))[-1] == "%2 = AFTER float32 (4,) %0 %1"

def test_a_list_is_indented_by_its_loops():
  i = loop(0, 4, Axis.LOOP)
  register = UOp(Ops.BUFFER, dtypes.float32.vec(4), (), Buf(9, 1, Space.REG))
  address = register.after(i).index(i.like(0))
  load = address.load()
  store = param(0).index(i).store(load)
  listed = [param(0), register, i, address, load, store.src[0], store, store.end(i)]
  assert lines(show(listed)) == [
    "%0 = PARAM float32 0",
    "%1 = BUFFER float32x4 #9 size=1 REG",
    "%2 = RANGE index r0 LOOP 4",
    "  %3 = INDEX float32x4 %1 0",
    "  %4 = LOAD float32x4 %3",
    "  %5 = INDEX float32 %0 %2",
    "  %6 = STORE %5 %4",
    "%7 = END %6 %2",
  ]

def counting(step):
  """void count(ptr p): for (n = 0; n < 10; n += step) *p = n;"""
  entry, head, out = label(1), label(2), label(3)
  back = label(4)
  n = UOp(Ops.PHI, dtypes.int64, (head,), 0)
  store = UOp(Ops.STORE, dtypes.void, (UOp(Ops.PARAM, dtypes.ptr, (), 0), n, head))
  following = n + step
  blocks = {
    entry: [UOp(Ops.JUMP, dtypes.void, (head, n.like(0)))],
    head: [store, UOp(Ops.BRANCH, dtypes.void, (following < 10, back, out))],
    back: [UOp(Ops.JUMP, dtypes.void, (head, following))],
    out: [UOp(Ops.RET)],
  }
  return SimpleNamespace(name="count", params=[dtypes.ptr], result=dtypes.void, blocks=blocks)

def test_a_function_of_blocks():
  assert lines(show(counting(1))) == [
    "count(ptr) -> void",
    "L1():",
    "  JUMP L2 0",
    "L2(%0 int64):",
    "  %1 = PARAM ptr 0",
    "  %2 = STORE %1 %0 L2",
    "  %3 = ADD int64 %0 1",
    "  %4 = CMPLT bool %3 10",
    "  BRANCH %4 L4 L3",
    "L4():",
    "  JUMP L2 %3",
    "L3():",
    "  RET",
  ]

def test_nodes_that_blocks_list_stand_where_they_are_listed():
  function = counting(1)
  entry, head, back, out = function.blocks
  store, branch = function.blocks[head]
  compare = branch.src[0]
  function.blocks[head] = [compare.src[0], compare, store, branch]
  body = lines(show(function))[4:9]
  assert [line.split()[2] for line in body[:-1]] == ["ADD", "CMPLT", "PARAM", "STORE"]

def test_diff_shows_only_what_changed():
  assert diff(tensor(2.0), tensor(2.0)) == ""
  changed = lines(diff(tensor(2.0), tensor(3.0)))
  assert changed[0].startswith("@@") and changed[1] == " %1 = RESHAPE float32 (4, 4) %0"
  assert changed[2] == "-%2 = RESHAPE float32 (1, 1) 2.0" and changed[7] == "+%7 = RESHAPE float32 (1, 1) 3.0"

def test_diff_of_functions():
  changed = [line for line in lines(diff(counting(1), counting(2))) if line[0] in "+-"]
  assert "-  %3 = ADD int64 %0 1" in changed and "+  %5 = ADD int64 %0 2" in changed

def test_deep_graphs():
  value = buffer(1, 1)
  for _ in range(20_000): value = value + 1.0
  assert lines(show(value))[-1] == "%20001 = ADD float32 (1,) %20000 %1"
