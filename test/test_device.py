# Memory of the host: freed memory serves requests of nearly its size, and does not pile up; values land where asked.
import numpy as np
import pytest
import picograd
from picograd.runtime.device import CHUNK, HostDevice, PAGE, device

@pytest.mark.parametrize("make", [lambda: HostDevice("HOST"), lambda: device("CPU")], ids=["host", "CPU"])
def test_freed_memory_is_used_again(make):
  host = make()
  host.spare.clear()
  for first, second in ((100, 100), (1 << 20, (1 << 20) - 4000), (1_000_003, 1_000_000), (3 << 20, 3 << 20)):
    a = host.allocate(first)
    start = a.ctypes.data
    a[:] = 1
    host.free(a, first)
    b = host.allocate(second)
    assert len(b) == second and b.ctypes.data == start and b.ctypes.data % 64 == 0
    host.free(b, second)
    c = host.allocate(first)
    c[:] = 2                                   # all of it is there again
    assert len(c) == first and c.ctypes.data == start

def test_memory_from_elsewhere_is_not_kept():
  host = HostDevice("HOST")
  host.free(np.zeros(100_001, np.uint8), 100_001)
  assert not any(host.spare.values())

@pytest.mark.parametrize("name", ["cpu", "numpy", "python"])
def test_host_data_of_any_layout(name):
  x = np.arange(24, dtype=np.float32).reshape(4, 6)
  for data in (x.T, x[::2, ::-1], x[1, 2], x > 7, x[:0], x.astype(np.int64)[:, 3]):
    got = picograd.tensor(data, device=name).numpy()
    assert got.dtype == data.dtype and got.shape == data.shape and np.array_equal(got, data)

def test_little_is_wasted():
  host = HostDevice("HOST")
  for n in [*range(1, 300), *np.random.default_rng(0).integers(1 << 16, 1 << 30, 1000).tolist()]:
    assert n <= host.room(n) <= n * 9 / 8

def test_what_waited_longest_goes():
  host = HostDevice("HOST")
  host.spare_limit = 10 << 20
  for n in (4 << 20, 3 << 20, 2 << 20, 1 << 20, 5 << 20):
    host.free(host.allocate(n), n)
  assert host.spare_bytes <= host.spare_limit
  assert [room >> 20 for room, waiting in host.spare.items() if waiting] == [2, 1, 5]
  before = host.spare_bytes
  host.allocate(2 << 20)
  assert host.spare_bytes == before - (2 << 20)

def test_large_memory_begins_with_a_large_page():
  """What malloc gives begins anywhere, and may have been used before, in small pages."""
  used = [np.ones(3 << 20, np.uint8) for _ in range(40)]               # too small for NumPy to ask for large pages
  del used
  for nbytes in (CHUNK // 8 + 1, 6 << 20, CHUNK + 4096):
    memory = device("CPU").fresh(nbytes)
    assert memory.ctypes.data % PAGE == 0 and not memory.any()         # as the system gives it

def test_pieces_of_a_chunk_do_not_overlap():
  host = HostDevice("HOST")
  pieces = [host.allocate(nbytes) for nbytes in (1 << 20, 70_000, 3 << 20, 99_999) * 12]
  for number, piece in enumerate(pieces): piece[:] = number
  assert all((piece == number).all() and piece.ctypes.data % 64 == 0 for number, piece in enumerate(pieces))

@pytest.mark.parametrize("name", ["numpy", "python"])
def test_what_is_made_of_no_memory_lands_on_the_device_that_was_asked_for(name):
  for t in (picograd.arange(6, device=name) * 2, picograd.zeros(6, device=name)):
    assert t.realize().storage.in_memory().device.name == name.upper() and t.device.type == name
  assert (t + picograd.tensor([1.0, 2, 3, 4, 5, 6], device=name)).tolist() == [1, 2, 3, 4, 5, 6]

def test_a_captured_function_computes_where_its_operands_are():
  """Also what depends on no memory: positions of an embedding, and the check that they are inside."""
  weights = picograd.tensor(np.arange(12, dtype=np.float32).reshape(6, 2), device="python")
  rows = picograd.jit(lambda w: w[picograd.arange(3, device="python") * 2] + 1)
  for _ in range(3): assert rows(weights).tolist() == [[1, 2], [5, 6], [9, 10]]
