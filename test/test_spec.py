# What each form allows, and what it refuses with which words. Bad programs are good ones with one thing wrong.
from dataclasses import dataclass
import pytest
from picograd.dtype import dtypes
from picograd.ops.ops import Axis, Buf, Ops, Space
from picograd.ops.spec import SpecError, verify
from picograd.ops.uop import UOp, toposort

f32, i32, i64, index = dtypes.float32, dtypes.int32, dtypes.int64, dtypes.index

def refuses(form, code, words):
  with pytest.raises(SpecError) as error: verify(form, code)
  assert words in str(error.value) and str(error.value).startswith(f"{form} form, ")

def const(value, dtype=f32): return UOp.const(dtype, value)

# ---- tensor ----------------------------------------------------------------------------------------------------------

def leaf(size=4, dtype=f32): return UOp.buffer(dtype, size, "CPU")
x, n = leaf(), leaf(4, i32)

GOOD_TENSORS = [
  (x * 2.0 + x).alu(Ops.EXP2),
  (x < 1.0).where(x, 0.0).reduce(Ops.ADD, (0,)),
  (n // 2 % 3 << 1 >> 1) & 7,
  x.reshape((2, 2)).permute((1, 0)).pad(((1, 1), (0, 0))).flip((0,)).shrink(((0, 2), (0, 1))).expand((2, 5)),
  UOp.iota(4, i32).eq(n).where(x, 0.0).cast(dtypes.float16),
  x.bitcast(i32),
  UOp(Ops.COPY, f32, (x,), "NUMPY"),
  x.after(x.shrink(((0, 2),)).store(x.shrink(((2, 4),)))) + 1.0,
  UOp.sink(x, n),
  [x, n],
]
@pytest.mark.parametrize("graph", GOOD_TENSORS, ids=lambda g: g.op.name if isinstance(g, UOp) else "roots")
def test_good_tensors(graph): verify("tensor", graph)

BAD_TENSORS = {
  "its sources have its dtype": UOp(Ops.MUL, f32, (x, n)),
  "as many sources as its op takes": UOp(Ops.MUL, f32, (x,)),
  "adds like to like": UOp(Ops.ADD, f32, (x, n)),
  "computes on floats": UOp(Ops.SQRT, i32, (n,)),
  "computes on integers": UOp(Ops.IDIV, f32, (x, x)),
  "integers or bools": UOp(Ops.AND, f32, (x, x)),
  "its sources have one dtype": UOp(Ops.CMPLT, dtypes.bool, (x, n)),
  "it gives a bool per lane": UOp(Ops.CMPLT, f32, (x, x)),
  "condition has a bool": UOp(Ops.WHERE, f32, (x, x, x)),
  ", its branches have its dtype": UOp(Ops.WHERE, f32, (x < x, x, n)),
  "keeps the number of bits": UOp(Ops.BITCAST, dtypes.float64, (x,)),
  "its arg is a value of its dtype": UOp(Ops.CONST, dtypes.int8, (), 300),
  "there is no PARAM": UOp(Ops.PARAM, f32, (), 0),
  "there is no MULACC": UOp(Ops.MULACC, f32, (x, x, x)),
  "reduces by ADD, MUL or MAX": UOp(Ops.REDUCE, f32, (x,), (Ops.XOR, (0,))),
  "one source, of its dtype": UOp(Ops.RESHAPE, i32, (x,), (2, 2)),
  "GLOBAL memory": UOp.register(f32),
  "index numbers and vectors": UOp(Ops.CAST, index, (x,)),
  "view of a buffer": x.after((x + 1.0).store(x)),
  "has the dtype and the shape": x.after(x.store(n)),
  "the shape of its target": x.after(x.store(x.shrink(((0, 2),)))),
  "it comes after stores": x.after(n),
  "its dtype is void": UOp(Ops.SINK, f32, (x,)),
}
@pytest.mark.parametrize("words", BAD_TENSORS)
def test_bad_tensors(words): refuses("tensor", BAD_TENSORS[words], words)

def test_a_constant_of_float_dtype_is_a_float():
  refuses("tensor", UOp(Ops.CONST, f32, (), 1), "value of its dtype")
  verify("tensor", const(float("nan")))
  refuses("tensor", UOp(Ops.CONST, f32, (), 0.1), "value of its dtype")          # 0.1 is no float32

# ---- kernel ----------------------------------------------------------------------------------------------------------

def param(slot, dtype=f32): return UOp(Ops.PARAM, dtype, (), slot)
def loop(number, bound, axis=Axis.LOOP, dtype=index):
  return UOp(Ops.RANGE, dtype, (const(bound, dtype),), (number, axis))
i, j = loop(0, 4), loop(1, 8, Axis.REDUCE)
out, data = param(0), param(1)
row = data.index(i * 8 + j).load()
total = UOp(Ops.REDUCE, f32, (row, j), (Ops.ADD, ()))
V4 = f32.vec(4)

def kernel(value=total, target=out.index(i), ends=(i,)): return UOp.sink(target.store(value).end(*ends))

def vector_kernel():
  gates = UOp(Ops.STACK, dtypes.bool.vec(4), tuple((i * 4 + k) < 13 for k in range(4)))
  address = data.index(i * 4, gates)
  wide = UOp(Ops.LOAD, V4, (address,))
  lane = UOp(Ops.INDEX, f32, (wide * wide, const(2, index)))
  lane_sum = UOp(Ops.REDUCE, f32, (wide,), (Ops.ADD, ()))
  return kernel(lane + lane_sum)

def accumulating(dtype=index):
  """A kernel as expand leaves it: a register, a loop that updates it, a load after the loop."""
  i, j, zero = loop(0, 4, dtype=dtype), loop(1, 8, Axis.REDUCE, dtype), const(0, dtype)
  register = UOp(Ops.BUFFER, f32, (), Buf(77, 1, Space.REG))
  start = register.after(i).index(zero).store(const(0.0))
  before = register.after(start, j).index(zero).load()
  update = register.index(zero).store(before + data.index(i * 8 + j).load())
  return UOp.sink(out.index(i).store(register.after(update.end(j)).index(zero).load()).end(i))

GOOD_KERNELS = {
  "reduce": kernel(), "vectors": vector_kernel(), "accumulator": accumulating(), "lowered": accumulating(i64),
  "one element": UOp.sink(out.index(const(0, index)).store(const(1.0))),
}
@pytest.mark.parametrize("name", GOOD_KERNELS)
def test_good_kernels(name): verify("kernel", GOOD_KERNELS[name])

BAD_KERNELS = {
  "there is no RESHAPE": kernel(UOp(Ops.RESHAPE, f32, (total,), ())),
  "LOCAL or REG": kernel(target=x.index(i)),
  "element of memory or a vector's lane": kernel(target=UOp(Ops.INDEX, f32, (out, i.cast(f32)))),
  "goes to an address": kernel(target=out),
  "gives what is at its address": kernel(data.index(i).load().replace(dtype=i32)),
  "its value has the dtype of its target": kernel(total.cast(i32)),
  "effects, then the loops": UOp.sink(UOp(Ops.END, dtypes.void, (i, out.index(i).store(const(1.0))))),
  "after effects or in loops": kernel(data.after(total).index(i).load()),
  "reduces over loops": kernel(total.with_src((row, row))),
  "the dtype that it reduces": kernel(total.with_src((row.cast(i32), j))),
  "scalar source per lane": kernel(total.with_src((UOp(Ops.STACK, V4, (row, row)),))),
  "closes this loop": kernel(ends=()),
  "other positions are machine integers": kernel(data.index(const(0, i32)).load()),
  "a bound, a number and an Axis": kernel(ends=(i, UOp(Ops.RANGE, index, (const(4, index),), (5, 2)))),
}
@pytest.mark.parametrize("words", BAD_KERNELS)
def test_bad_kernels(words): refuses("kernel", BAD_KERNELS[words], words)

# ---- linear ----------------------------------------------------------------------------------------------------------

def listed():
  """The accumulating kernel in order."""
  nodes = [u for u in toposort([accumulating(i64)]) if u.op not in (Ops.AFTER, Ops.SINK)]
  outer, inner = [u for u in nodes if u.op is Ops.RANGE]
  depends = {u: outer in toposort([u]) for u in nodes}
  before = [u for u in nodes if u is not outer and not depends[u] and u is not inner and inner not in toposort([u])]
  inside = [u for u in nodes if u not in before and u is not outer]
  head = [u for u in inside if inner not in toposort([u])]
  body = [u for u in inside if u not in head and u is not inner and u.op is not Ops.END]
  end_inner, end_outer = [u for u in nodes if u.op is Ops.END]
  tail = [u for u in body if end_inner in toposort([u])]
  return before + [outer] + head + [inner] + [u for u in body if u not in tail] + [end_inner] + tail + [end_outer]

def test_good_lists(): verify("linear", listed())
def at(nodes, op): return next(k for k, u in enumerate(nodes) if u.op is op)

def test_bad_lists():
  nodes = listed()
  end = at(nodes, Ops.END)
  refuses("linear", nodes + nodes[:1], "listed twice")
  refuses("linear", nodes[1:], "not defined before it")
  refuses("linear", nodes[:-1], "no END closes this loop")
  outer, inner, store = loop(0, 4, dtype=i64), loop(1, 8, dtype=i64), out.index(const(0, i64)).store(const(1.0))
  bounds = [outer.src[0], inner.src[0]]
  crossed = bounds + toposort([store])[:-1] + [outer, inner, store, store.end(outer), store.end(inner)]
  refuses("linear", crossed, "not the innermost")
  add = next(u for u in nodes[:end] if u.op is Ops.ADD and u.dtype is f32)          # defined in the inner loop
  refuses("linear", nodes[:end + 1] + [add + add] + nodes[end + 1:], "in or around its loop")
  refuses("linear", toposort([kernel()])[:-1], "machine integers by now")
  refuses("linear", [UOp(Ops.REDUCE, f32, (data, loop(0, 4, dtype=i64)), (Ops.ADD, ()))], "written out")

# ---- flat ------------------------------------------------------------------------------------------------------------

@dataclass
class Function:
  blocks: dict

def label(number): return UOp(Ops.LABEL, dtypes.void, (), number)
def jump(target, *values): return UOp(Ops.JUMP, dtypes.void, (target, *values))
def branch(condition, yes, no): return UOp(Ops.BRANCH, dtypes.void, (condition, yes, no))
def ret(*values): return UOp(Ops.RET, dtypes.void, values)
def phi(block, k, dtype=i64): return UOp(Ops.PHI, dtype, (block,), k)
def load(pointer, dtype, state): return UOp(Ops.LOAD, dtype, (pointer, state))
def store(pointer, value, state): return UOp(Ops.STORE, dtypes.void, (pointer, value, state))
ENTRY, HEAD, BACK, OUT = map(label, range(1, 5))
pointer = param(0, dtypes.ptr)
k = phi(HEAD, 0)
place = UOp(Ops.ADD, dtypes.ptr, (pointer, k * 4))
loaded = load(place, f32, HEAD)
stored = store(place, loaded * 2.0, HEAD)
following = k + 1

def doubling(**changes):
  """for (k = 0; k < 10; k++) p[k] *= 2; with blocks replaced by keyword."""
  blocks = {
    "ENTRY": [jump(HEAD, const(0, i64))],
    "HEAD": [loaded, stored, branch(following < 10, BACK, OUT)],
    "BACK": [jump(HEAD, following)],
    "OUT": [ret(following)],
  }
  blocks.update(changes)
  names = {"ENTRY": ENTRY, "HEAD": HEAD, "BACK": BACK, "OUT": OUT}
  return Function({names[name]: block for name, block in blocks.items() if block is not None})

slot = UOp(Ops.BUFFER, i32, (), Buf(88, 1, Space.REG))
call = UOp(Ops.CALL, i32, (UOp(Ops.SYM, dtypes.ptr, (), "f"), slot, const(1, i32), ENTRY), 2)
GOOD_FUNCTIONS = {
  "loop": doubling(),
  "call": Function({ENTRY: [call, store(slot, call, call), ret(call)]}),
  "array's address": Function({ENTRY: [store(slot, (const(1, i64) < 2).where(pointer, slot), ENTRY), ret()]}),
  "gated vectors": Function({ENTRY: [UOp(Ops.LOAD, V4, (pointer, const(1, i64).ne(2).stack(4), ENTRY)), ret()]}),
}
@pytest.mark.parametrize("name", GOOD_FUNCTIONS)
def test_good_functions(name): verify("flat", GOOD_FUNCTIONS[name])

BAD_FUNCTIONS = {
  "does not end in JUMP, BRANCH or RET": doubling(OUT=[]),
  "in the middle of a block": doubling(OUT=[ret(), ret(following)]),
  "there is no block": doubling(OUT=None),
  "the first block has a predecessor": doubling(OUT=[jump(ENTRY)]),
  "has other predecessors": doubling(BACK=[jump(OUT)]),
  "passes other values": doubling(BACK=[jump(HEAD)]),
  "do not pass it": doubling(OUT=[ret(phi(HEAD, 1))]),
  "state is not the last effect": doubling(HEAD=[stored, loaded, branch(following < 10, BACK, OUT)]),
  "no block lists it": doubling(HEAD=[stored, branch(following < 10, BACK, OUT)]),
  "not defined on every way": doubling(ENTRY=[jump(HEAD, following)]),
  "bool and two different labels": doubling(HEAD=[loaded, stored, branch(following < 10, BACK, BACK)]),
  "int64 bytes to a pointer": doubling(OUT=[ret(UOp(Ops.ADD, dtypes.ptr, (pointer, const(1, i32))))]),
  "its source is its block's label": doubling(OUT=[ret(UOp(Ops.PHI, i64, (following,), 0))]),
  "a pointer, perhaps a gate": doubling(OUT=[load(following, f32, OUT), ret()]),
  "a pointer, a value": doubling(OUT=[store(pointer, OUT, OUT), ret()]),
  "an address, arguments and a state": doubling(OUT=[call.with_src((following, OUT)), ret()]),
  "passes values to a label": doubling(BACK=[jump(following)]),
  "there is no RANGE": doubling(OUT=[ret(loop(0, 4, dtype=i64))]),
  "takes a lane of a vector": doubling(OUT=[ret(UOp(Ops.INDEX, f32, (pointer, const(0, i64))))]),
}
@pytest.mark.parametrize("words", BAD_FUNCTIONS)
def test_bad_functions(words): refuses("flat", BAD_FUNCTIONS[words], words)

def test_placed_blocks_list_every_node():
  refuses("placed", doubling(), "no block lists it")
  product = loaded * 2.0
  head = [k * 4, place, loaded, product, stored, following, following < 10, branch(following < 10, BACK, OUT)]
  verify("placed", doubling(HEAD=head))
  refuses("placed", doubling(HEAD=[head[3], *head[:3], *head[4:]]), "not defined on every way")

def test_long_programs():
  value = const(0, i64) + param(1, i64)
  for _ in range(20_000): value = value + 1
  verify("flat", Function({ENTRY: [store(pointer, value, ENTRY), ret()]}))
