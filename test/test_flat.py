# Blocks: kernels and goto-shaped programs keep their meaning through mem2reg, placement and the simplification of
# control flow.
import random
import numpy as np, pytest
from picograd.codegen.flat import Builder, Flow, flatten, mem2reg, new_label, operands, predecessors
from picograd.codegen.flat import split_sum, successors
from picograd.codegen.place import place
from picograd.dtype import dtypes
from picograd.ops.ops import Ops
from picograd.ops.uop import UOp, toposort
from picograd.runtime.python import PythonProgram, read_text, write_text
import linear_kernels as kernels

i32, i64, f32 = dtypes.int32, dtypes.int64, dtypes.float32
def number(n, dtype=i32): return UOp.const(dtype, n)

def check(fn):
  """What the head of flat.py promises, and that every block of a placed function defines before it uses."""
  flow, before = Flow(fn), predecessors(fn)
  first = next(iter(fn.blocks))
  assert not before[first]
  where = {u: label for label, block in fn.blocks.items() for u in block}
  for label, block in fn.blocks.items():
    assert block[-1].op in (Ops.JUMP, Ops.BRANCH, Ops.RET) and len(set(block)) == len(block)
    if block[-1].op is Ops.BRANCH: assert all(len(before[s]) == 1 for s in successors(block))
    state, seen = label, set()
    for u in block:
      if u.op in (Ops.LOAD, Ops.STORE, Ops.CALL): assert u.src[-1] is state
      if u.op in (Ops.STORE, Ops.CALL): state = u
      for s in operands(u):
        home = s.src[0] if s.op is Ops.PHI else where.get(s)
        if home is not None: assert flow.dominates(home, label) and (home is not label or s.op is Ops.PHI or s in seen)
      seen.add(u)
  return fn

def run(*functions, arguments=()): return PythonProgram("test", [check(place(f)) for f in functions]).run(*arguments)

def ops_of(fn): return [u.op for block in fn.blocks.values() for u in block]

def test_a_local_variable_becomes_a_block_parameter():
  b = Builder("sum", [i32], i32)
  i, total = b.var(i32), b.var(i32)
  head, body, out = new_label(), new_label(), new_label()
  b.set(i, number(0))
  b.set(total, number(0))
  b.start(head)
  b.branch(b.get(i) < b.param(0), body, out)
  b.start(body)
  b.set(total, b.get(total) + b.get(i))
  b.set(i, b.get(i) + 1)
  b.jump(head)
  b.start(out)
  b.ret(b.get(total))
  fn = b.finish()
  assert run(fn, arguments=(10,)) == 45
  promoted = mem2reg(fn)
  assert Ops.LOAD not in ops_of(promoted) and Ops.STORE not in ops_of(promoted)
  assert run(promoted, arguments=(10,)) == 45

def test_a_slot_whose_address_escapes_stays_in_memory():
  setter = Builder("setter", [dtypes.ptr])
  setter.store(setter.param(0), number(5))
  b = Builder("main", [], i32)
  x = b.var(i32)
  b.set(x, number(1))
  b.call("setter", UOp(Ops.ADD, dtypes.ptr, (x, number(0, i64))))
  b.ret(b.get(x))
  assert run(mem2reg(b.finish()), setter.finish()) == 5

def test_a_variable_read_before_it_is_written_holds_zero():
  b = Builder("main", [], i32)
  b.ret(b.get(b.var(i32)))
  assert run(mem2reg(b.finish())) == 0

def test_swapped_variables():
  """Two parameters that exchange their values at every turn need one parallel move."""
  b = Builder("main", [], i32)
  x, y, n = b.var(i32), b.var(i32), b.var(i32)
  head, out = new_label(), new_label()
  for v, c in ((x, 1), (y, 2), (n, 0)): b.set(v, number(c))
  b.start(head)
  old = b.get(x)
  b.set(x, b.get(y))
  b.set(y, old)
  b.set(n, b.get(n) + 1)
  b.branch(b.get(n) < number(3), head, out)
  b.start(out)
  b.ret(b.get(x) * 10 + b.get(y))
  assert run(mem2reg(b.finish())) == 21

def test_recursion_and_calls():
  b = Builder("fib", [i32], i32)
  small, large = new_label(), new_label()
  n = b.param(0)
  b.branch(n < number(2), small, large)
  b.start(small)
  b.ret(n)
  b.start(large)
  b.ret(b.call("fib", n + -1, dtype=i32) + b.call("fib", n + -2, dtype=i32))
  assert run(mem2reg(b.finish()), arguments=(12,)) == 144

def test_endless_loops_are_stopped():
  b = Builder("main", [])
  head = new_label()
  b.start(head)
  b.jump(head)
  program = PythonProgram("main", [place(mem2reg(b.finish()))])
  program.step_limit = 1000
  with pytest.raises(RuntimeError, match="kernel main did not end"): program.run()

def test_out_of_bounds_is_an_error():
  fn = kernels.flat("add", kernels.add_kernel(5))
  with pytest.raises(IndexError, match="kernel add.*16 bytes"):
    PythonProgram("add", [fn])([np.zeros(n * 4, np.uint8) for n in (5, 4, 5)])

def test_loops_are_rotated():
  fn = mem2reg(flatten("add", kernels.add_kernel(100)))
  flow = Flow(fn)
  heads = list(set(flow.head.values()))
  assert len(heads) == 1 and fn.blocks[heads[0]][-1].op is Ops.BRANCH

def test_a_range_of_one_turn_is_no_loop():
  fn = kernels.flat("add", kernels.add_kernel(1))
  assert len(fn.blocks) == 1

def test_constants_of_addresses_are_added_last():
  i, j = UOp(Ops.PARAM, i64, (), 8), UOp(Ops.PARAM, i64, (), 9)
  terms, constant = split_sum((i * 3 + 5) * 4 + (j << 2) + i + -7)
  assert (terms, constant) == ({i: 13, j: 4}, 13)
  fn = mem2reg(flatten("matmul", kernels.matmul_kernel(8, 32, 12)))
  loads = [u.src[0] for block in fn.blocks.values() for u in block if u.op is Ops.LOAD and u.dtype is f32]
  bases = {p.src[0] if p.src[1].op is Ops.CONST else p for p in loads}
  assert len(loads) == 4 and len(bases) == 1

def test_invariant_nodes_leave_loops():
  fn = kernels.flat("matmul", kernels.matmul_kernel(8, 32, 12))
  flow = Flow(fn)
  inner = [u for label, block in fn.blocks.items() if flow.depth[label] == 3 for u in block]
  assert [u.op for u in inner].count(Ops.MUL) == 2                    # kk*4 and kk*128: all else is outside
  assert check(fn)

def test_accumulators_of_a_tile_are_values():
  fn = kernels.flat("matmul", kernels.matmul_kernel(8, 32, 12))
  assert not [u for u in toposort([u for block in fn.blocks.values() for u in block]) if u.op is Ops.BUFFER]

def test_functions_travel_as_text():
  fn = kernels.flat("matmul", kernels.matmul_kernel(8, 32, 12))
  text = write_text([fn])
  again, = read_text(text)
  assert write_text([again]) == text and (again.name, again.params, again.threads) == (fn.name, fn.params, fn.threads)

def test_long_functions():
  """Ten thousand blocks and a state chain of a hundred thousand stores, in time and without recursion."""
  b = Builder("long", [dtypes.ptr, i32])
  x = b.var(i32)
  for k in range(2000):
    yes, join = new_label(), new_label()
    b.branch(b.get(x) < number(k), yes, join)
    b.start(yes)
    b.set(x, b.get(x) + k)
    b.start(join)
  for k in range(20000): b.store(b.param(0), b.get(x) + k)
  fn = mem2reg(b.finish())
  assert len(check(place(fn)).blocks) > 2000

# ---- random programs -------------------------------------------------------------------------------------------------

class RandomProgram:
  """A main function with loops, branches, gotos, memory, calls of a helper, over variables of several dtypes."""
  dtypes = (i32, i32, i64, dtypes.uint8, f32, dtypes.uint32, dtypes.bool)

  def __init__(self, seed):
    self.random = random.Random(seed)
    self.b = Builder("main", [dtypes.ptr, i64])
    self.variables = [self.b.var(dt) for dt in self.dtypes for _ in range(2)]
    self.pair = self.b.var(i64, 2)
    self.second = UOp(Ops.ADD, dtypes.ptr, (self.pair, number(8, i64)))
    for half in (self.pair, self.second): self.b.store(half, number(8, i64))
    for v in self.variables: self.b.set(v, number(self.random.randrange(-5, 100), v.dtype))
    self.statements(3, 5)
    offset = 0
    for v in self.variables:
      self.b.store(self.out(offset), self.b.get(v))
      offset += 8
    self.functions = [self.b.finish(), self.helper()]

  def out(self, offset): return UOp(Ops.ADD, dtypes.ptr, (self.b.param(0), number(offset, i64)))
  def helper(self):
    h = Builder("helper", [i32, f32], i32)
    yes, no = new_label(), new_label()
    h.branch(h.param(0) < number(3), yes, no)
    h.start(yes)
    h.ret(h.param(1).cast(i32) + h.param(0))
    h.start(no)
    h.ret(h.param(0) * 3)
    return h.finish()

  def leaf(self, dtype):
    fitting = [v for v in self.variables if v.dtype is dtype]
    if self.random.random() < 0.7: return self.b.get(self.random.choice(fitting))
    return number(self.random.randrange(0, 9), dtype)

  def value(self, dtype, depth=2):
    if depth == 0: return self.leaf(dtype)
    def below(dt=dtype): return self.value(dt, depth - 1)
    if dtype is dtypes.bool:
      other = self.random.choice((i32, f32, i64, dtypes.uint32))
      return below(other).alu(self.random.choice((Ops.CMPLT, Ops.CMPNE)), below(other))
    choice = self.random.randrange(8)
    if choice < 3: return below().alu(self.random.choice((Ops.ADD, Ops.MUL, Ops.MAX)), below())
    if choice == 3: return below(dtypes.bool).where(below(), below())
    if choice == 4: return below(self.random.choice(self.dtypes)).cast(dtype)
    if choice == 5: return UOp(Ops.MULACC, dtype, (below(), below(), below()))
    if dtype is f32: return below() / number(self.random.choice((3, 7)), f32)
    if choice == 6: return below().alu(self.random.choice((Ops.AND, Ops.OR, Ops.XOR, Ops.SHL, Ops.SHR)), below())
    return below().alu(self.random.choice((Ops.IDIV, Ops.MOD)), number(self.random.choice((1, 3, 10)), dtype))

  def statements(self, depth, count):
    for _ in range(count): self.random.choice(self.kinds if depth else self.kinds[:4])(self, depth)

  def assign(self, depth):
    v = self.random.choice(self.variables)
    self.b.set(v, self.value(v.dtype))
  def store(self, depth):
    dtype = self.random.choice(self.dtypes)
    self.b.store(self.out(self.random.randrange(128, 160, 8)), self.value(dtype))
  def reload(self, depth):
    v = self.random.choice([v for v in self.variables if v.dtype is i32])
    self.b.set(v, self.b.load(self.out(self.random.randrange(128, 160, 8)), i32))
  def call(self, depth):
    v = self.random.choice([v for v in self.variables if v.dtype is i32])
    self.b.set(v, self.b.call("helper", self.value(i32), self.value(f32), dtype=i32))
  def halves(self, depth):
    self.b.store(self.second, self.b.load(self.pair, i64) + self.value(i64))
    self.b.store(self.pair, self.b.load(self.second, i64))
    self.b.set(self.variables[4], self.b.load(self.pair, i64))
  def choose(self, depth):
    yes, no, join = new_label(), new_label(), new_label()
    self.b.branch(self.value(dtypes.bool), yes, no)
    self.b.start(yes)
    self.statements(depth - 1, 2)
    if self.random.random() < 0.8: self.b.jump(join)                  # else it falls into the other arm
    self.b.start(no)
    self.statements(depth - 1, 2)
    self.b.start(join)
  def repeat(self, depth):
    """A loop with a random test and a counter, which may leave it in the middle or start over early."""
    counter, head, go_on, out = self.b.var(i32), new_label(), new_label(), new_label()
    self.b.set(counter, number(0))
    self.b.start(head)
    self.b.set(counter, self.b.get(counter) + 1)
    self.statements(depth - 1, 2)
    self.b.branch((self.b.get(counter) < number(self.random.randrange(1, 5))) & self.value(dtypes.bool), go_on, out)
    self.b.start(go_on)
    self.statements(depth - 1, 1)
    self.b.branch(self.value(dtypes.bool) & (self.b.get(counter) < number(6)), head, out)
    self.b.start(out)
  def skip(self, depth):
    """goto into the middle of a loop, which then has two entries."""
    inside, head, out, turns = new_label(), new_label(), new_label(), self.b.var(i32)
    self.b.set(turns, number(0))
    self.b.branch(self.value(dtypes.bool), inside, head)
    self.b.start(head)
    self.statements(depth - 1, 1)
    self.b.start(inside)
    self.statements(depth - 1, 1)
    self.b.set(turns, self.b.get(turns) + 1)
    self.b.branch(self.b.get(turns) < number(3), head, out)
    self.b.start(out)
  kinds = [assign, store, reload, call, halves, choose, repeat, skip]

def forms(functions):
  """The functions as they are, and promoted."""
  return {"memory": functions, "mem2reg": [mem2reg(f) for f in functions]}

def python_result(functions):
  out = np.zeros(256, np.uint8)
  run(*functions, arguments=(out, 0))
  return out

def cpu_result(functions):
  pytest.importorskip("llvmlite")
  from picograd.codegen.llvmir import render
  from picograd.runtime.device import device
  cpu, out = device("CPU"), np.zeros(256, np.uint8)
  main, *helpers = [place(f) for f in functions]
  cpu.load("main", cpu.compile(render(main, helpers)))([out])
  return out

def without_nan_payload(out):
  floats = out.view(np.float32)
  return np.where(floats != floats, np.float32(np.nan), floats).view(np.uint32)

@pytest.mark.parametrize("seed", range(30))
def test_random_programs(seed):
  results = {}
  for name, functions in forms(RandomProgram(seed).functions).items():
    results[f"PYTHON {name}"] = python_result(functions)
    results[f"CPU {name}"] = cpu_result(functions)
  expected = without_nan_payload(results["PYTHON memory"])
  for name, out in results.items(): np.testing.assert_array_equal(without_nan_payload(out), expected, err_msg=name)
