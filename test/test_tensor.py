# test_tensor.py: Tensor against torch, name by name: values, shapes, dtypes, gradients; then what torch defines about
# views, assignment, leaves, errors and printing. On the NUMPY device: what is tested is the graph, not its compilation.
import copy, gc, pickle
import numpy as np
import pytest
import picograd
from picograd.helpers import DEVICE
from picograd.ops.uop import UOp

@pytest.fixture(autouse=True)
def on_numpy():
  with DEVICE.set("NUMPY"): yield

def random(seed, *shape): return np.random.default_rng(seed).uniform(-2, 2, shape).astype(np.float32)
def whole(seed, low, high, *shape): return np.random.default_rng(seed).integers(low, high, shape)

INPUTS = {"x": random(0, 3, 4, 5), "y": random(1, 5), "m": random(2, 4, 6), "k": random(3, 6, 4),
          "p": np.abs(random(4, 3, 5)) + 0.1,
          "i": whole(5, -9, 9, 4, 5), "j": whole(6, 1, 5, 5), "b": random(7, 4, 5) > 0, "s": random(8, 6, 6)}

def run(library, code, gradients):
  """The value of code in which L is the library, and the gradients of the sum of its squares."""
  names = {name: library.tensor(data) for name, data in INPUTS.items()}
  leaves = [t.requires_grad_() for t in names.values() if gradients and t.is_floating_point()]
  scope = {**names, "L": library}
  if "\n" in code or ";" in code:
    exec(code, scope)
    out = scope["out"]
  else: out = eval(code, scope)
  outs = list(out) if isinstance(out, (tuple, list)) else [out]
  smooth = [o for o in outs if o.requires_grad] if gradients else []
  if smooth: sum((o * o).sum() for o in smooth).backward()
  return outs, [t.grad for t in leaves]

def compare(code, gradients=True):
  torch = pytest.importorskip("torch")
  with np.errstate(all="ignore"):
    mine, my_grads = run(picograd, code, gradients)
    theirs, their_grads = run(torch, code, gradients)
  assert len(mine) == len(theirs)
  for a, b in zip(mine, theirs):
    assert tuple(a.shape) == tuple(b.shape) and a.dtype.name == str(b.dtype).removeprefix("torch.")
    np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), atol=1e-6, rtol=1e-3)
  for a, b in zip(my_grads, their_grads):
    if b is None or not b.any(): assert a is None or not a.numpy().any()
    else: np.testing.assert_allclose(a.numpy(), b.numpy(), atol=1e-4, rtol=1e-3)

# ---- name by name ----------------------------------------------------------------------------------------------------

UNARY = """exp exp2 expm1 sin cos tan tanh sigmoid relu abs sign floor ceil round trunc atan sinh cosh erf neg square
  reciprocal""".split()
@pytest.mark.parametrize("name", UNARY)
def test_unary(name): compare(f"L.{name}(x)")
@pytest.mark.parametrize("name", "log log2 log10 log1p sqrt rsqrt".split())
def test_unary_of_positive(name): compare(f"p.{name}()")

@pytest.mark.parametrize("op", "+ - * / // % **".split())
def test_binary(op):
  compare(f"[p {op} p[:1], p {op} 3, 2.5 {op} p, p {op} 0.5]", gradients=op not in ("//", "%"))
  if op != "**": compare(f"[i {op} j, i {op} -j, j {op} 3, 7 {op} j, j {op} 2.5, x {op} y]", gradients=False)

@pytest.mark.parametrize("exponent", [0, 1, 2, 3, -1, -2, 0.5, -0.5, 7, 2.5, -1.5])
def test_power(exponent): compare(f"p ** {exponent}")
def test_power_of_negative(): compare("[x ** 2, x ** 3, x ** -1, i ** 3, i ** j, 2 ** x]")
@pytest.mark.parametrize("op", "== != < <= > >=".split())
def test_comparison(op): compare(f"[i {op} j, i {op} 1, i {op} 0.5, x {op} y]", gradients=False)
@pytest.mark.parametrize("op", "& | ^ << >>".split())
def test_bits(op): compare(f"[j {op} j, j {op} 1]", gradients=False)

REDUCTIONS = "sum mean var std prod max min amax amin argmax argmin any all".split()
@pytest.mark.parametrize("name", REDUCTIONS)
def test_reduction(name):
  compare(f"L.{name}(x)")
  for dim in (0, 1, -1): compare(f"x.{name}(dim={dim})")
  compare(f"x.{name}(-1, keepdim=True)")
  if name in ("sum", "mean", "var", "std", "amax", "amin"): compare(f"x.{name}(dim=(0, 2))")
  if name not in ("mean", "var", "std", "max", "min"): compare(f"[i.{name}(), i.{name}(1)]")

VALUES = [
  "[x.softmax(-1), x.log_softmax(1), x.logsumexp(0), x.logsumexp((0, 1))]",
  "[x.sum(axis=1), x.mean(axis=1, keepdims=True), x.var(1, correction=0), L.var(x, dim=0, unbiased=False)]",
  "[p.norm(), p.norm(1), p.norm(2, 1), p.norm(float('inf')), p.norm(3)]",
  "[x.cumsum(0), x.cumsum(-1), L.cumprod(p, 1), b.cumsum(0), L.ones(700).cumsum(0)]",
  "[L.maximum(x, y), L.minimum(x, y), L.maximum(i, j), L.minimum(i, j), x.clamp(-1, 1), x.clamp(min=0), L.clamp(x, 0)]",
  "[L.where(x > 0, x, y), L.where(x > 0, x, 0.), L.where(y > 0, 1., y), x.where(b, y), x.masked_fill(b, 3)]",
  "[~i, ~b, L.logical_not(i), L.logical_and(i, j), i.bool().sum(), b + b, b * 1.5, b.float().mean()]",
  "[m @ k, k[:, 0] @ k, m @ k[:, 0], x @ s[:5, :4], x.unsqueeze(1) @ x.mT, L.outer(y, y), L.dot(y, y), i @ i.T]",
  "[L.diag(s), L.trace(s), L.diag(y), L.diag(y, 1), L.diag(s, -1)]",
  "[L.einsum('ij,jk->ik', m, k), L.einsum('ii->i', s), L.einsum('ij->', m), L.einsum('...ij,jk', x, s[:5]), "
   "L.einsum('i,j->ij', y, y)]",
  "[x.half().sum(), x.half().softmax(-1).float(), x.double() + x, x.half() * 2.0, i.int() + 2.5, i / 2, "
   "i.int() * L.tensor(2.5)]",
  "[x.view(6, 10), x.reshape(-1), x.permute(2, 0, 1), x.transpose(0, 2), m.T, x.mT, x.flatten(1), x.unflatten(1, "
   "(2, -1)), x.movedim(0, 2)]",
  "[x.unsqueeze(1), x.unsqueeze(-1).squeeze(), y.expand(3, 5), y.repeat(2, 3), L.tile(y, (2,)), "
   "m.repeat_interleave(2, 0)]",
  "[*x.split(2, 1), *x.chunk(3, 2), *x.split([1, 3], 1), *x.unbind(0)]",
  "[L.cat([m, k.T]), L.stack([m, m], 1), L.cat([x, x], -1), L.hstack([m, m]), L.vstack([m, m]), L.cat([y, j]), "
   "L.cat([b, b])]",
  "[L.roll(m, 1, 0), m.roll((1, 2), (0, 1)), m.roll(3), m.flip(0, 1), L.tril(s), s.triu(1), s.tril(-1)]",
  "[L.zeros(2, 3), L.full((2,), 5), L.arange(1, 10, 3), L.arange(0, 1, 0.25), L.linspace(0, 1, 5), L.eye(2, 3), "
   "L.ones_like(i)]",
  "[L.tensor(3), L.tensor([1, 2.]), L.tensor([True]), L.tensor([]), x.new_zeros(2), L.arange(10, 0, -2), "
   "L.full_like(x, 3)]",
  "[x.gather(1, j.abs().reshape(1, 1, 5) % 4), m.gather(0, i[:, :5] % 4), x.index_select(1, j - 1)]",
  "[m.scatter(1, L.tensor([[0, 5], [3, 2]]), k[:2, :2]), m.scatter_add(1, i[:, :2] % 6, k.T[:, :2])]",
  "[*x.sort(), *x.sort(0, descending=True), x.argsort(1), *x.topk(2), *i.flatten().sort(stable=True)]",
  "[i.nonzero(), L.unique(i), i.masked_select(b), x.masked_select(x > 0)]",
]
@pytest.mark.parametrize("code", VALUES)
def test_value(code): compare(code)

INDICES = """0|-1|1:3|:,1|...,0|:,None|None|::2|:,::3|1::2,:,1:|0,1,2|2:1|:,:,None,1|L.tensor([0,2])
:,L.tensor([0,2,2])|L.tensor([0,1]),L.tensor([2,3])|L.tensor([[0,1],[2,0]])
L.tensor([0,1]),:,L.tensor([2,3])|0,L.tensor([1,2])|[0,2]|L.tensor([-1,0])|1:,L.tensor([0,1]),::2
L.tensor(2)|x[:,0,0]>0|x>0|:,L.tensor([True,False,True,False])|0,:,L.tensor([0,1])
L.tensor([0,1]),None,L.tensor([0,1])|L.tensor([],dtype=L.int64)"""
@pytest.mark.parametrize("index", INDICES.replace("\n", "|").split("|"))
def test_index(index): compare(f"x[{index}]")
def test_negative_step():
  x = picograd.tensor(INPUTS["x"])
  np.testing.assert_equal(x[::-1, :, 4:1:-2].numpy(), INPUTS["x"][::-1, :, 4:1:-2])

ASSIGNMENTS = """v[0]=1|v[:,1]=x[:,0]|v[v>0]=0.|v[L.tensor([0,2])]=5|v[L.tensor([0,2])]=x[:2]
v[:,L.tensor([0,3])]=x[:,:2]|v[::2]=7|v+=x|v*=2|v[L.tensor([0,1]),L.tensor([1,2])]=x[0,:2]
v[x[:,0,0]>0]=0|v[0]+=1|v[1].add_(x[0])|v[...,0]*=3|v.clamp_(0)|v[v>100]=x[x>100]|v[v>0]=v[v>0]*2
v.transpose(0,1)[1]=4|v.view(-1)[3:7]=1|v.masked_fill_(x>0,2)|v[-1]=x[:1]|v[1:3,L.tensor([0,1])]=9."""
@pytest.mark.parametrize("statement", ASSIGNMENTS.replace("\n", "|").split("|"))
def test_assignment(statement):
  compare(f"v = x * 1; {statement}; out = v")
  realised = "v.realize() if hasattr(v, 'realize') else v"
  compare(f"v = x * 1; {realised}; w = v[1:]; {statement}; out = [v, w]", gradients=False)

# ---- views and assignment --------------------------------------------------------------------------------------------

def equal(t, values): np.testing.assert_allclose(t.detach().numpy(), values, rtol=1e-6)

def test_view_sees_assignment():
  a = picograd.arange(6.0).reshape(2, 3)
  b = a[0]
  a.add_(1)
  equal(b, [1, 2, 3])
  b.mul_(2)
  equal(a, [[2, 4, 6], [4, 5, 6]])

def test_copy_is_independent():
  a = picograd.tensor([1.0, 2]).realize()
  b = a.clone()
  a += 1
  equal(b, [1, 2])
  b.zero_()
  equal(a, [2, 3])

def test_equal_values_are_independent():
  x = picograd.tensor([1.0, 2])
  y, z = x + 1, x + 1
  y.realize()
  y.add_(1)
  equal(z, [2, 3])
  z.add_(5)
  equal(y, [3, 4])

def test_lazy_reader_keeps_old_value():
  x = picograd.tensor([1.0, 2])
  y = x * 3
  x.mul_(10)
  z = y + x
  x.mul_(10)
  equal(z, [13, 26])
  equal(x, [100, 200])
  equal(y, [3, 6])

def test_assignment_from_itself():
  x = picograd.arange(5.0).realize()
  x[1:] = x[:-1]
  equal(x, [0, 0, 1, 2, 3])
  x.copy_(x.flip(0))
  equal(x, [3, 2, 1, 0, 0])
  x /= x.sum()
  equal(x, np.array([3, 2, 1, 0, 0]) / 6)

def test_expanded_is_not_writable():
  with pytest.raises(RuntimeError, match="clone"): picograd.zeros(1).realize().expand(3).add_(1)

# ---- autograd --------------------------------------------------------------------------------------------------------

def test_leaf_is_not_overwritten():
  p = picograd.tensor([1.0, 2], requires_grad=True)
  with pytest.raises(RuntimeError, match="a leaf Variable that requires grad"): p.add_(1)
  with pytest.raises(RuntimeError, match="a view of a leaf"): p[0] = 1
  with picograd.no_grad(): p.add_(1)
  equal(p, [2, 3])
  assert p.requires_grad and p.is_leaf

def test_grad_adds_up():
  p = picograd.tensor([1.0, 2], requires_grad=True)
  for _ in range(2): (p * p).sum().backward()
  equal(p.grad, [4, 8])

def test_equal_leaves_have_own_gradients():
  a, b = [picograd.ones(2, requires_grad=True) for _ in range(2)]
  (a * b * a).sum().backward()
  equal(a.grad, [2, 2])
  equal(b.grad, [1, 1])

def test_data_can_be_replaced():
  p = picograd.tensor([1.0, 2], requires_grad=True)
  p.data -= 0.5
  equal(p, [0.5, 1.5])
  p.data = picograd.ones(2)
  (p * 3).sum().backward()
  equal(p.grad, [3, 3])

def test_a_leaf_is_no_node_that_another_graph_contains():
  x = picograd.tensor([1.0, 2])
  y, z = x.clone(), x + 1
  del x                                                                # y has the memory for itself now
  y.requires_grad_()
  (y * z).sum().backward()
  equal(y.grad, [2, 3])

def test_leaves_on_one_memory_have_own_gradients():
  a, b = [picograd.tensor([1.0, 2], requires_grad=True) for _ in range(2)]
  a.data = b.data
  (a * 3 + b).sum().backward()
  equal(a.grad, [3, 3])
  equal(b.grad, [1, 1])
  with picograd.no_grad(): b += 1
  equal(a, [2, 3])

def test_assignment_to_non_leaf_is_recorded():
  x = picograd.tensor([1.0, 2])
  x.requires_grad = True
  h = x * 2
  h += 1
  h.retain_grad()
  (h * h).sum().backward()
  equal(x.grad, [12, 20])
  equal(h.grad, [6, 10])
  row, q = picograd.zeros(3), picograd.tensor(2.0, requires_grad=True)
  row[1] = q * 3
  (row * row).sum().backward()
  equal(q.grad, 36)

def test_detach():
  d = picograd.tensor([1.0, 2], requires_grad=True)
  ((d * 2).detach() * d).sum().backward()
  equal(d.grad, [2, 4])

def test_no_grad_as_decorator():
  @picograd.no_grad()
  def double(t): return t * 2
  @picograd.no_grad
  def triple(t): return t * 3
  x = picograd.ones(2, requires_grad=True)
  assert not double(x).requires_grad and not triple(x).requires_grad and (x * 2).requires_grad

def test_inference_mode_false_records():
  with picograd.inference_mode():
    assert not picograd.is_grad_enabled()
    with picograd.inference_mode(False): assert picograd.is_grad_enabled()
    with picograd.enable_grad(): assert picograd.is_grad_enabled()
    assert not picograd.is_grad_enabled()
  assert picograd.is_grad_enabled()

def test_set_grad_enabled():
  """At once, for a block, which may be entered again, and for a function: then the mode outside stays."""
  off = picograd.set_grad_enabled(False)
  assert not picograd.is_grad_enabled()
  for _ in range(2):
    with off: assert not picograd.is_grad_enabled()
    assert picograd.is_grad_enabled()
  @picograd.set_grad_enabled(False)
  def recording(): return picograd.is_grad_enabled()
  assert picograd.is_grad_enabled() and not recording() and picograd.is_grad_enabled()

def test_second_derivative():
  x = picograd.tensor([2.0], requires_grad=True)
  (g,) = picograd.autograd.grad(x ** 3, x, create_graph=True)
  (gg,) = picograd.autograd.grad(g, x)
  equal(g, [12])
  equal(gg, [12])

def test_loop_keeps_the_graph_constant():
  w, x = picograd.ones(4, 4, requires_grad=True), picograd.ones(2, 4)
  state, hidden = picograd.zeros(4, 4), picograd.zeros(2, 4)
  sizes = []
  for _ in range(8):
    w.grad = None
    hidden = ((x @ w) + hidden.detach()).tanh()
    loss = (hidden ** 2).mean()
    loss.backward()
    with picograd.no_grad():
      state.mul_(0.9).add_(w.grad)
      w -= 0.1 * state
    loss.item()
    gc.collect()
    sizes.append(len(UOp.pool))
  assert sizes[3] == sizes[-1]

def test_deep_chain():
  x = picograd.tensor(1.0, requires_grad=True)
  y = x
  for _ in range(20_000): y = y + x
  y.backward()
  assert x.grad.item() == 20_001

OVERWRITTEN = """h = y * 2; h.zero_(); out = h + s[0, :5] * 0 + 1|h = y * 2; h.fill_(3.); out = h
h = y * 2; h.copy_(x[0, 0] * 3); out = h|h = y * 2; h[1] = 0; out = h|h = y * 2; h[...] = x[0, 0]; out = [h, y]"""
@pytest.mark.parametrize("code", OVERWRITTEN.replace("\n", "|").split("|"))
def test_what_is_overwritten_has_a_gradient_of_zero(code):
  torch = pytest.importorskip("torch")
  for gradients in (run(picograd, code, True)[1], run(torch, code, True)[1]):
    assert gradients[1] is not None                                     # y's
  compare(code)

def test_empty_and_zero():
  compare("z = L.zeros(0, 3); out = [z.any(), z.all(), z.any(1), z.all(0), z.bool().any()]", gradients=False)
  compare("z = y * 0; out = [z.norm(), z.norm(1), z.norm(3)]")

def test_many_pieces_are_joined_in_groups():
  pieces = [picograd.tensor([float(i)], requires_grad=True) for i in range(600)]
  with DEVICE.set("CPU"): few = picograd.stack([picograd.tensor([float(i)]) for i in range(40)])
  equal(few[:, 0], np.arange(40))
  whole = picograd.stack(pieces)
  equal(whole[:, 0], np.arange(600))
  (whole * whole).sum().backward()
  equal(pieces[599].grad, [1198])

# ---- errors ----------------------------------------------------------------------------------------------------------

ERRORS = [
  ("L.arange(5)[7]", IndexError, "index 7 is out of bounds for dimension 0 with size 5"),
  ("L.arange(5)[L.tensor([7])]", IndexError, "index 7 is out of bounds for dimension 0 with size 5"),
  ("L.arange(5)[L.tensor([1]) + 8].numpy()", IndexError, "out of bounds"),
  ("L.tensor([1]) // L.tensor([0])", ZeroDivisionError, "zero"),
  ("(L.tensor([1]) % (L.tensor([1]) - 1)).numpy()", ZeroDivisionError, "zero"),
  ("L.ones(3).sum(2)", IndexError, r"\[-1, 0\], but got 2"),
  ("L.ones(2, 3) + L.ones(4)", ValueError, r"\(2, 3\) with \(4,\)"),
  ("L.ones(2, 3) @ L.ones(4)", RuntimeError, r"\[2, 3\] @ \[4\]"),
  ("L.ones(3, 2).T.view(-1)", RuntimeError, "reshape"),
  ("L.ones(2).int().mean()", RuntimeError, "floating point"),
  ("L.tensor([1, 2]).mul_(1.5)", RuntimeError, "can't be cast"),
  ("bool(L.ones(2))", RuntimeError, "ambiguous"),
  ("L.ones(5)[0, 1]", IndexError, "too many indices"),
  ("L.ones(3).view(2, 2)", RuntimeError, "size 3"),
  ("L.ones(2).sum().backward()", RuntimeError, "does not require grad"),
  ("(L.ones(2, requires_grad=True) * 2).backward()", RuntimeError, "scalar"),
  ("L.ones(2, dtype=L.int64).requires_grad_()", RuntimeError, "floating point"),
]
@pytest.mark.parametrize("code,error,words", ERRORS)
def test_error(code, error, words):
  with pytest.raises(error, match=words): eval(code, {"L": picograd})

# ---- printing, copying, the namespace --------------------------------------------------------------------------------

PRINTED = """L.tensor([1., 2.5])|L.arange(12).reshape(3, 4)|L.zeros(2, 2, 2)|L.tensor([1e-5, 1.])|L.tensor(3.)
L.arange(2000)
L.tensor([])|L.tensor([True, False])|L.tensor([float('nan'), 1, -float('inf')])|L.arange(30.) / 7|L.zeros(0, 3)
L.ones(2, requires_grad=True)|L.tensor([1e10, 1.5])|L.tensor([0., 10., 200.])|L.ones(20, 60)|-L.arange(5)"""
@pytest.mark.parametrize("code", PRINTED.replace("\n", "|").split("|"))
def test_prints_as_torch(code):
  torch = pytest.importorskip("torch")
  assert repr(eval(code, {"L": picograd})) == repr(eval(code, {"L": torch}))

def test_copies_stay_leaves():
  p = picograd.ones(3, requires_grad=True)
  for q in (copy.deepcopy(p), pickle.loads(pickle.dumps(p))):
    assert q.requires_grad and q.is_leaf and q is not p
    equal(q, [1, 1, 1])

def test_strides():
  x = picograd.zeros(3, 4)
  assert x.stride() == (4, 1) and x.T.stride() == (1, 4)
  assert x[::2].stride() == (8, 1) and x.T[None].stride() == (4, 1, 4)
  assert not x.T.is_contiguous() and x[:1].is_contiguous() and x.T.contiguous().stride() == (3, 1)

def test_bfloat16():
  x = picograd.tensor([1.0, 3.14159, 1e30], dtype=picograd.bfloat16)
  np.testing.assert_allclose(x.numpy(), [1, 3.140625, 1e30], rtol=4e-3)
  assert (x @ x).dtype is picograd.bfloat16

def test_an_assignment_that_waits_is_run_once():
  """backward() brings the graph up to date; the assignments in it must stay the nodes that realize() will run, also
  while somebody holds the leaves from before they had memory."""
  weight = picograd.nn.Parameter(picograd.ones(4))
  held = weight.uop
  optimizer = picograd.optim.AdamW([weight], lr=0.5)
  for _ in range(4):
    optimizer.zero_grad()
    (weight * weight).sum().backward()
    optimizer.step()
  assert held is not weight.uop
  value, first, second = 1.0, 0.0, 0.0                                 # AdamW by hand, Loshchilov and Hutter 2019
  for step in range(1, 5):
    gradient = 2 * value
    first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient ** 2
    change = (first / (1 - 0.9 ** step)) / ((second / (1 - 0.999 ** step)) ** 0.5 + 1e-8)
    value = value * (1 - 0.5 * 0.01) - 0.5 * change
  np.testing.assert_allclose(weight.detach().numpy(), np.full(4, value), rtol=1e-4)
