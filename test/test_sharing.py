# test_sharing.py: memory that NumPy, torch and picograd see at once: a write on one side is seen on the other, results
# are those of the moment at which an operation was asked for, and memory lives exactly as long as somebody needs it.
import copy, gc, importlib.util, pickle, sys, weakref
import numpy as np
import pytest
import picograd
import picograd.nn.functional as F
from picograd.library import sharing
from picograd.runtime.device import device

DTYPES = "bool uint8 int8 int16 int32 int64 float16 float32 float64".split()
torch_only = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is the other side")

@pytest.mark.parametrize("dtype", DTYPES)
def test_numpy_and_picograd_see_the_same_memory(dtype):
  a = np.arange(6).reshape(2, 3).astype(dtype)
  t = picograd.from_dlpack(a)
  assert t.dtype.name == dtype and t.shape == (2, 3) and t.tolist() == a.tolist()
  a[0, 1] = 0
  a[1, 2] = 1
  assert t.tolist() == a.tolist()
  t[1, 0] = 1
  assert a[1, 0] == 1
  b = np.from_dlpack(t)
  assert b.ctypes.data == a.ctypes.data

@pytest.mark.parametrize("dtype", DTYPES)
def test_numpy_sees_a_tensors_memory(dtype):
  t = picograd.arange(6).reshape(2, 3).to(getattr(picograd, dtype))
  b = np.from_dlpack(t)
  assert b.dtype == dtype and b.tolist() == t.tolist()
  t[0, 0] = 1
  assert b[0, 0] == 1
  b[1, 1] = 0
  assert not t[1, 1].item()

@torch_only
@pytest.mark.parametrize("dtype", [*DTYPES, "bfloat16"])
def test_torch_and_picograd_see_the_same_memory(dtype):
  import torch
  a = torch.arange(6).reshape(2, 3).to(getattr(torch, dtype))
  t = picograd.from_dlpack(a)
  assert t.dtype.name == dtype and t.tolist() == a.tolist()
  a[0, 0] = 1
  assert t[0, 0].item() == 1
  t.fill_(1)
  assert a.tolist() == t.tolist()
  t = picograd.arange(6).reshape(2, 3).to(getattr(picograd, dtype))
  a = torch.from_dlpack(t)
  assert a.dtype is getattr(torch, dtype) and a.tolist() == t.tolist()
  a[1] = 1
  assert t.tolist() == a.tolist()
  t.zero_()
  assert not a.any()

VIEWS = {
  "transpose": lambda t: t.T, "rows": lambda t: t[1:3], "columns": lambda t: t[:, 1:], "every second": lambda t: t[::2],
  "one": lambda t: t[2], "expanded": lambda t: t[:1].expand(3, 4), "reshaped": lambda t: t.reshape(2, 8),
  "unsqueezed": lambda t: t.unsqueeze(1), "diagonal": lambda t: t.diagonal(), "steps": lambda t: t[1::2, ::3],
  "scalar": lambda t: t[1, 2], "permuted": lambda t: t.reshape(2, 2, 4).permute(2, 0, 1),
}
@pytest.mark.parametrize("view", VIEWS)
def test_views_are_exported_with_their_strides(view):
  t = picograd.arange(16).reshape(4, 4)
  whole, part = np.from_dlpack(t), VIEWS[view](t)
  seen = np.from_dlpack(part)
  assert seen.shape == tuple(part.shape) and seen.tolist() == part.tolist()
  assert np.shares_memory(whole, seen)
  whole += 100
  assert seen.tolist() == part.tolist() and seen.min() >= 100

@pytest.mark.parametrize("make", [lambda a: a.T, lambda a: a.transpose(2, 0, 1), lambda a: a[1:]])
def test_dense_views_of_numpy_are_shared(make):
  a = np.arange(24.0).reshape(2, 3, 4)
  t = picograd.from_dlpack(make(a))
  a += 1
  assert t.tolist() == make(a).tolist()
  t *= 2
  assert t.tolist() == make(a).tolist()

def test_memory_with_gaps_is_copied_or_refused():
  a = np.arange(12.0).reshape(3, 4)
  for part in (a[:, ::2], a[::-1], a[:, 1:3].T):
    assert picograd.from_dlpack(part).tolist() == part.tolist()
    with pytest.raises(BufferError, match="gaps"): picograd.from_dlpack(part, copy=False)
  assert picograd.from_dlpack(np.zeros((0, 3))).shape == (0, 3)

def test_memory_that_begins_where_kernels_cannot_read_it_is_copied_or_refused(monkeypatch):
  monkeypatch.setattr(type(device(picograd.zeros(1).storage.device)), "alignment", 64)
  raw = np.zeros(128, np.uint8)
  start = -raw.ctypes.data % 64
  whole, part = raw[start:start + 16].view(np.float32), raw[start + 4:start + 20].view(np.float32)
  part[:] = 1, 2, 3, 4
  assert picograd.from_dlpack(whole, copy=False).tolist() == [0, 1, 2, 3]
  t = picograd.from_dlpack(part.reshape(2, 2).T)
  part[:] = 0
  assert t.tolist() == [[1, 3], [2, 4]]
  with pytest.raises(BufferError, match="multiple of 64"): picograd.from_dlpack(part, copy=False)

# ---- results are those of the moment ---------------------------------------------------------------------------------

def test_what_was_asked_for_before_a_write_has_the_values_of_before():
  a = np.ones(3, np.float32)
  t = picograd.from_dlpack(a)
  y, again = t + 1, t.clone()
  a[0] = 5
  assert y.tolist() == [2, 2, 2] and again.tolist() == [1, 1, 1]
  assert (t + 1).tolist() == [6, 2, 2]                                 # the same operation on what is there now
  with picograd.no_grad(): view = t[1:]
  a[1] = 7
  assert view.tolist() == [7, 1] and view.sum().item() == 8

COMPOSED = {
  "gelu": lambda t: F.gelu(t), "silu": lambda t: F.silu(t), "elu": lambda t: F.elu(t), "frac": lambda t: t.frac(),
  "leaky_relu": lambda t: F.leaky_relu(t), "rms_norm": lambda t: F.rms_norm(t, (4,)), "square": lambda t: t.square(),
  "group_norm": lambda t: F.group_norm(t, 2), "norm": lambda t: t.norm(3), "softplus": lambda t: F.softplus(t),
  "bicubic": lambda t: F.interpolate(t.reshape(1, 1, 3, 4), (6, 8), mode="bicubic"), "roll": lambda t: t.roll(1, 0),
  "reflect": lambda t: F.pad(t, (1, 1, 1, 1), mode="reflect"), "topk": lambda t: t.topk(2).values,
  "nan_to_num": lambda t: t.nan_to_num(), "trace": lambda t: t.trace(), "sort": lambda t: t.sort().values,
  "batch_norm": lambda t: F.batch_norm(t, None, None, training=True), "lerp": lambda t: t.lerp(t, t),
  "cross_entropy": lambda t: F.cross_entropy(t, picograd.tensor([0, 2, 1])), "argmax": lambda t: t.argmax(1),
  "attention": lambda t: F.scaled_dot_product_attention(t, t, t), "one_hot": lambda t: F.one_hot(t.abs().long(), 9),
}
@pytest.mark.parametrize("name", COMPOSED)
def test_an_operation_copies_what_others_write_to_once(name, monkeypatch):
  copies = []
  class Counted(sharing.Buffer):
    def __init__(self, *arguments):
      copies.append(arguments)
      super().__init__(*arguments)
  monkeypatch.setattr(sharing, "Buffer", Counted)
  a = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
  t = picograd.from_dlpack(a)
  for _ in range(2):                                                   # the next operation reads what is there then
    copies.clear()
    got = COMPOSED[name](t)
    assert len(copies) == 1
    assert np.array_equal(got.numpy(), COMPOSED[name](picograd.tensor(a)).numpy(), equal_nan=True)
    a += 1

def test_a_copy_serves_until_somebody_writes():
  a = np.array([1, np.nan], np.float32)
  t = picograd.from_dlpack(a)
  before, copy = t + 0, t.clone()
  assert before.uop.src[0] is copy.uop
  copy.fill_(5)                                                        # into the memory that `before` still reads
  assert copy.tolist() == [5, 5] and (t + 0).tolist()[0] == before.tolist()[0] == 1
  t.fill_(7)
  assert (t + 0).tolist() == [7, 7]

def test_a_copy_lives_as_long_as_somebody_needs_it():
  t = picograd.from_dlpack(np.ones((2, 3), np.float32).T)             # a view of what is shared
  y = t + 1
  copy = sharing.copies[t.storage]
  assert copy() is not None and y.sum().item() == 12
  del t, y
  assert copy() is None

def test_an_index_that_changed_is_checked_again():
  i = np.array([0, 1])
  t, x = picograd.from_dlpack(i), picograd.tensor([10, 20])
  assert x[t].tolist() == [10, 20]
  i[1] = 9
  with pytest.raises(IndexError): x[t].tolist()

def test_a_detached_look_at_shared_memory_has_no_gradient():
  p = picograd.nn.Parameter(picograd.tensor([1.0, 2]))
  seen = np.from_dlpack(p.detach())
  y = p.detach().clone().requires_grad_()
  (p * p.detach() * y).sum().backward()
  assert p.grad.tolist() == y.grad.tolist() == [1, 4] and seen.tolist() == [1, 2]

def test_shared_memory_of_a_parameter_and_its_gradient():
  p = picograd.nn.Parameter(picograd.ones(2))
  seen = np.from_dlpack(p.detach())
  (p * p).sum().backward()
  assert p.grad.tolist() == [2, 2]
  picograd.optim.SGD([p], lr=0.5).step()
  assert seen.tolist() == [0, 0] and p.tolist() == [0, 0]
  seen += 3
  p.grad = None
  (p * p).sum().backward()
  assert p.grad.tolist() == [6, 6]

def test_a_captured_function_reads_what_is_there_now():
  a = np.ones(3, np.float32)
  t = picograd.from_dlpack(a)
  f = picograd.compile(lambda x: x * 2)
  for value in (1, 2, 3, 4):
    a[:] = value
    assert f(t).tolist() == [2 * value] * 3

# ---- lifetimes -------------------------------------------------------------------------------------------------------

def test_memory_lives_as_long_as_somebody_sees_it():
  b = np.from_dlpack(picograd.arange(1000) * 2)
  gc.collect()
  [picograd.ones(1000).realize() for _ in range(4)]
  assert b[500] == 1000
  a = np.arange(1000)
  t = picograd.from_dlpack(a)
  alive = weakref.ref(a)
  del a
  gc.collect()
  assert alive() is not None and t[500].item() == 500
  del t
  gc.collect()
  assert alive() is None
  x = picograd.from_dlpack(np.full(1000, 7))
  gc.collect()
  assert x.sum().item() == 7000

def test_capsules_are_used_once_and_freed_if_never_used():
  t = picograd.ones(3).realize()
  before = len(sharing.exported)
  capsule = t.__dlpack__()
  assert len(sharing.exported) == before + 1
  del capsule
  gc.collect()
  assert len(sharing.exported) == before
  capsule = t.__dlpack__(max_version=(1, 0))
  assert picograd.from_dlpack(capsule).tolist() == [1, 1, 1]
  with pytest.raises(BufferError, match="used before"): picograd.from_dlpack(capsule)
  gc.collect()
  assert len(sharing.exported) == before

def test_a_storage_is_its_own_again_when_nobody_looks():
  t = picograd.ones(3).realize()
  b = np.from_dlpack(t)
  assert isinstance(t.storage, sharing.Shared)
  del b
  gc.collect()
  assert not isinstance(t.storage, sharing.Shared)
  t += 1
  assert t.tolist() == [2, 2, 2]

# ---- NumPy's and Python's protocols ----------------------------------------------------------------------------------

def test_a_window_and_its_tensor_may_die_in_one_cycle(monkeypatch):
  complaints = []
  monkeypatch.setattr(sys, "unraisablehook", complaints.append)
  cycle = [sharing.Window(picograd.ones(3))]
  cycle.append(cycle)
  del cycle
  gc.collect()
  assert not complaints

def test_arrays_copy_unless_they_must_not():
  t = picograd.arange(3)
  a = np.asarray(t)
  t += 1
  assert a.tolist() == [0, 1, 2]
  b = t.__array__(copy=False)
  t += 1
  assert b.tolist() == [2, 3, 4]
  with pytest.raises(ValueError, match="copy"): t.__array__(np.float32, copy=False)
  assert np.array(t, dtype=np.float64).dtype == np.float64

def test_buffers():
  t = picograd.arange(3).to(picograd.int32)
  view = memoryview(t) if sys.version_info >= (3, 12) else t.__buffer__(0)
  view[1] = 9
  assert view.format == "i" and t.tolist() == [0, 9, 2]

@pytest.mark.parametrize("call, error", [
  (lambda: picograd.ones(2, requires_grad=True).__dlpack__(), BufferError),
  (lambda: picograd.ones(2).__dlpack__(dl_device=(2, 0)), BufferError),
  (lambda: picograd.from_dlpack(np.zeros(2, np.complex64)), BufferError),
  (lambda: picograd.from_dlpack(3), BufferError),
  (lambda: picograd.ones(2).bfloat16().__array__(copy=False), BufferError),
], ids=["gradient", "device", "complex", "number", "bfloat16"])
def test_what_cannot_be_shared_is_refused(call, error):
  with pytest.raises(error): call()

def test_recorded_changes_of_shared_memory_are_refused():
  t = picograd.from_dlpack(np.ones(2, np.float32))
  with pytest.raises(RuntimeError, match="clone"): t.mul_(picograd.ones(2, requires_grad=True))

# ---- pickling --------------------------------------------------------------------------------------------------------

def test_state_of_modules_is_pickled():
  model = picograd.nn.Sequential(picograd.nn.Linear(3, 4), picograd.nn.BatchNorm1d(4), picograd.nn.Linear(4, 2))
  x = picograd.randn(5, 3)
  model(x)
  optimizer = picograd.optim.AdamW(model.parameters())
  model(x).sum().backward()
  optimizer.step()
  for other in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
    assert (other.eval()(x) == model.eval()(x)).all().item()
    assert all(p.requires_grad for p in other.parameters())
  state = pickle.loads(pickle.dumps({"model": model.state_dict(), "optimizer": optimizer.state_dict()}))
  model.load_state_dict(state["model"])
  optimizer.load_state_dict(state["optimizer"])
  assert (other(x) == model(x)).all().item()

# ---- CUDA ------------------------------------------------------------------------------------------------------------

@torch_only
@pytest.mark.cuda
@pytest.mark.skipif(not picograd.cuda.is_available(), reason="there is no GPU")
def test_torch_and_picograd_see_the_same_memory_of_a_gpu():
  import torch
  a = torch.arange(6.0, device="cuda").reshape(2, 3)
  t = picograd.from_dlpack(a)
  assert t.device.type == "cuda" and t.tolist() == a.tolist()
  y = t * 2
  a += 1
  torch.cuda.synchronize()
  assert y.tolist() == [[0, 2, 4], [6, 8, 10]] and t.tolist() == a.tolist()
  t[1] = 7
  picograd.cuda.synchronize()
  assert a[1].tolist() == [7, 7, 7] and t.__dlpack__(max_version=(1, 0)) is not None
  own = picograd.arange(6, device="cuda").reshape(2, 3).T
  b = torch.from_dlpack(own)
  assert b.device.type == "cuda" and b.tolist() == own.tolist()
  b += 10
  torch.cuda.synchronize()
  assert own.tolist() == b.tolist() and own[0, 0].item() == 10

@torch_only
@pytest.mark.cuda
@pytest.mark.skipif(not picograd.cuda.is_available(), reason="there is no GPU")
def test_a_part_of_a_gpus_memory_may_begin_anywhere():
  import torch
  whole = torch.arange(4097.0, device="cuda")
  torch.cuda.synchronize()
  double = picograd.compile(lambda t: t * 2)
  for part in (whole[1:], whole[4:], whole[3:10]):
    t = picograd.from_dlpack(part)
    for _ in range(3): assert double(t).tolist() == (part * 2).tolist()
