# Kernels in the linear form, written by hand: what linearize.py will hand to flat.py and cuda.py.
from __future__ import annotations
from picograd.codegen.flat import Function, flatten, mem2reg
from picograd.codegen.place import place
from picograd.dtype import dtypes
from picograd.ops.ops import Axis, Ops
from picograd.ops.uop import UOp, fresh, toposort

f32, i64 = dtypes.float32, dtypes.int64

def param(slot, dtype=f32): return UOp(Ops.PARAM, dtype, (), slot)
def integer(n): return UOp.const(i64, n)
def loop(bound, axis=Axis.LOOP):
  return UOp(Ops.RANGE, i64, (bound if isinstance(bound, UOp) else integer(bound),), (next(fresh), axis))
def thread(n): return UOp(Ops.SPECIAL, i64, (), ("thread", n))
def load(index, *after, dtype=None): return UOp(Ops.LOAD, dtype or index.dtype, (index, *after))
def lane_numbers(n): return UOp(Ops.STACK, i64.vec(n), tuple(integer(k) for k in range(n)))

class Listing:
  """A linear list under construction: what is added is listed after its sources, once."""
  def __init__(self): self.nodes, self.seen = [], set()
  def add(self, u):
    for node in toposort((u,), stop=self.seen.__contains__):
      if node not in self.seen: self.nodes.append(node)
      self.seen.add(node)
    return u

def add_kernel(n):
  """out[i] = a[i] + b[i]"""
  out, a, b = param(0), param(1), param(2)
  i = loop(n)
  return toposort((out.index(i).store(load(a.index(i)) + load(b.index(i))).end(i),))

def masked_add_kernel(n, lanes=16):
  """out[i] = a[i] + b[i] in vectors, the last one under a mask"""
  out, a, b = param(0), param(1), param(2)
  i = loop(-(-n // lanes))
  start = i * lanes
  gate = (start.stack(lanes) + lane_numbers(lanes)) < integer(n).stack(lanes)
  x, y = (load(p.index(start, gate), dtype=f32.vec(lanes)) for p in (a, b))
  return toposort((out.index(start, gate).store(x + y).end(i),))

def row_sum_kernel(rows, columns):
  """out[r] = sum over c of a[r, c], 4 lanes at a time"""
  lst, out, a = Listing(), param(0), param(1)
  r, c = loop(rows), loop(columns // 4, Axis.REDUCE)
  total = UOp.register(f32.vec(4))
  lst.add(r)
  start = lst.add(total.index(integer(0)).store(UOp.const(f32.vec(4), 0)))
  lst.add(c)
  x = load(a.index(r * columns + c * 4), dtype=f32.vec(4))
  inside = total.after(start).index(integer(0))
  step = lst.add(inside.store(load(inside) + x).end(c))
  final = load(total.after(step).index(integer(0)))
  lst.add(out.index(r).store(UOp(Ops.REDUCE, f32, (final,), (Ops.ADD, ()))).end(r))
  return lst.nodes

def matmul_kernel(m, n, k, rows=4, lanes=16):
  """c[m, n] = a[m, k] @ b[k, n] in tiles of `rows` accumulators of `lanes` lanes"""
  lst, c, a, b = Listing(), param(0), param(1), param(2)
  vector = f32.vec(lanes)
  i, j, kk = loop(m // rows), loop(n // lanes), loop(k, Axis.REDUCE)
  tile = UOp.register(vector, rows)
  for r in (i, j): lst.add(r)
  start = [lst.add(tile.index(integer(y)).store(UOp.const(vector, 0))) for y in range(rows)]
  lst.add(kk)
  right = lst.add(load(b.index(kk * n + j * lanes), dtype=vector))
  steps = []
  for y in range(rows):
    left = load(a.index((i * rows + y) * k + kk)).stack(lanes)
    place = tile.after(*start).index(integer(y))
    steps.append(lst.add(place.store(UOp(Ops.MULACC, vector, (left, right, load(place))))))
  end = lst.add(UOp(Ops.END, dtypes.void, (*steps, kk)))
  stores = []
  for y in range(rows):
    value = load(tile.after(end).index(integer(y)))
    stores.append(lst.add(c.index((i * rows + y) * n + j * lanes).store(value)))
  lst.add(UOp(Ops.END, dtypes.void, (*stores, j, i)))
  return lst.nodes

def scalar_matmul_kernel(m, n, k, side=4):
  """c[m, n] = a[m, k] @ b[k, n] in square tiles of scalar accumulators"""
  lst, c, a, b = Listing(), param(0), param(1), param(2)
  i, j, kk = loop(m // side), loop(n // side), loop(k, Axis.REDUCE)
  tile = UOp.register(f32, side * side)
  for r in (i, j): lst.add(r)
  squares = [(y, x) for y in range(side) for x in range(side)]
  start = [lst.add(tile.index(integer(y * side + x)).store(UOp.const(f32, 0))) for y, x in squares]
  lst.add(kk)
  left = [load(a.index((i * side + y) * k + kk)) for y in range(side)]
  right = [load(b.index(kk * n + j * side + x)) for x in range(side)]
  places = [tile.after(*start).index(integer(y * side + x)) for y, x in squares]
  steps = [lst.add(p.store(UOp(Ops.MULACC, f32, (left[y], right[x], load(p))))) for p, (y, x) in zip(places, squares)]
  end = lst.add(UOp(Ops.END, dtypes.void, (*steps, kk)))
  sums = [load(tile.after(end).index(integer(y * side + x))) for y, x in squares]
  stores = [lst.add(c.index((i * side + y) * n + j * side + x).store(value)) for value, (y, x) in zip(sums, squares)]
  lst.add(UOp(Ops.END, dtypes.void, (*stores, j, i)))
  return lst.nodes

def shift_kernel(n):
  """out[i] = a[i - 1] with 0 before the first; only even i are written"""
  out, a = param(0), param(1)
  i = loop(n)
  x = load(a.index(i + -1, integer(0) < i))
  return toposort((out.index(i, (i % 2).ne(1)).store(x).end(i),))

def triangle_kernel(n):
  """out[i] = sum of a[j] for j < i: the inner bound is a value that starts at 0"""
  lst, out, a = Listing(), param(0), param(1)
  i = lst.add(loop(n))
  total = UOp.register(f32)
  start = lst.add(total.index(integer(0)).store(UOp.const(f32, 0)))
  j = lst.add(loop(i, Axis.REDUCE))
  inside = total.after(start).index(integer(0))
  end = lst.add(inside.store(load(inside) + load(a.index(j))).end(j))
  lst.add(out.index(i).store(load(total.after(end).index(integer(0)))).end(i))
  return lst.nodes

def thread_kernel(n, threads):
  """out[i] = i + 100*thread, each thread its own part"""
  lst, out, t = Listing(), param(0, i64), thread(threads)
  i = loop(n // threads)
  lst.add(out.index(t * (n // threads) + i).store(i + t * 100).end(i))
  return lst.nodes

def scratch_kernel(n):
  """out[i] = a[n-1-i] through a scratch array"""
  from picograd.ops.ops import Buf, Space
  lst, out, a = Listing(), param(0), param(1)
  scratch = UOp(Ops.BUFFER, f32, (), Buf(next(fresh), n, Space.LOCAL))
  i, j = loop(n), loop(n)
  end = lst.add(scratch.index(i).store(load(a.index(i))).end(i))
  filled = scratch.after(end)
  lst.add(out.index(j).store(load(filled.index(integer(n - 1) - j))).end(j))
  return lst.nodes

def flat(name: str, linear) -> Function:
  """What the pass table does from linear to placed blocks."""
  return place(mem2reg(flatten(name, linear)))
