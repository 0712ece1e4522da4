# The lattice of promotion against torch's, and truncation against NumPy's and torch's conversions.
import itertools, math, pickle
import numpy as np
import pytest
from picograd.dtype import DType, dtypes, pack, promote, to_bfloat16, truncate, unpack

NATIVE = [dt for dt in dtypes.all if dt is not dtypes.bfloat16]
pairs = pytest.mark.parametrize("a,b", list(itertools.product(dtypes.all, repeat=2)), ids=lambda dt: dt.name)
each = pytest.mark.parametrize("dt", dtypes.all, ids=lambda dt: dt.name)
each_int = pytest.mark.parametrize("dt", dtypes.ints, ids=lambda dt: dt.name)

def numpy_type(dt): return np.dtype(dt.name)

# ---- rows ------------------------------------------------------------------------------------------------------------

@each
def test_rows_are_interned(dt):
  assert DType.rows[dt.name] is dt and dt.scalar is dt and dt.vec(1) is dt
  assert dt.vec(4) is dt.vec(4) and dt.vec(4).scalar is dt and dt.vec(4).vec(8) is dt.vec(8)
  assert pickle.loads(pickle.dumps(dt)) is dt and pickle.loads(pickle.dumps(dt.vec(4))) is dt.vec(4)

@pytest.mark.parametrize("dt", NATIVE, ids=lambda dt: dt.name)
def test_sizes_are_numpys(dt):
  assert dt.itemsize == numpy_type(dt).itemsize and dt.vec(4).itemsize == 4 * dt.itemsize
  assert dt.is_floating_point == (numpy_type(dt).kind == "f")

@each_int
def test_bounds_are_numpys(dt): assert (dt.min, dt.max) == (np.iinfo(dt.name).min, np.iinfo(dt.name).max)

def test_bounds_of_the_others():
  assert (dtypes.float32.min, dtypes.float32.max) == (-math.inf, math.inf)
  assert (dtypes.bool.min, dtypes.bool.max) == (False, True)

def test_torchs_other_names():
  assert dtypes.half is dtypes.float16 and dtypes.float is dtypes.float32 and dtypes.double is dtypes.float64
  assert dtypes.short is dtypes.int16 and dtypes.int is dtypes.int32 and dtypes.long is dtypes.int64

# ---- promotion -------------------------------------------------------------------------------------------------------

@pairs
def test_promotion_is_torchs(a, b):
  torch = pytest.importorskip("torch")
  try: expected = torch.promote_types(getattr(torch, a.name), getattr(torch, b.name))
  except RuntimeError: pytest.skip("torch does not promote these")
  assert f"torch.{promote(a, b).name}" == str(expected)

@pairs
def test_promotion_commutes_and_holds_both(a, b):
  both = promote(a, b)
  assert both is promote(b, a) and promote(both, a) is both and promote(both, b) is both
  if a.is_int and b.is_int and both.is_int: assert both.min <= min(a.min, b.min) and both.max >= max(a.max, b.max)

def test_promotion_of_a_dtype_with_itself():
  for dt in dtypes.all: assert promote(dt, dt) is dt and promote(dt, dtypes.bool) is dt

# ---- truncation ------------------------------------------------------------------------------------------------------

NUMBERS = [0, 1, -1, 127, 128, 255, 256, -128, -129, 2**31 - 1, 2**31, 2**32, -2**31 - 1, 2**63 - 1, -2**63]
@each_int
def test_integers_wrap(dt):
  for x in NUMBERS: assert truncate(x, dt) == np.array(x, np.int64).astype(dt.name), x
  assert truncate(2**64 + 3, dt) == 3 and truncate(2**64 - 1, dt) == (dt.max if dt.is_unsigned else -1)

@each_int
def test_floats_become_integers_towards_zero(dt):
  assert truncate(2.9, dt) == 2 and truncate(-0.9, dt) == 0 and truncate(math.nan, dt) == 0
  assert truncate(math.inf, dt) == truncate(1e30, dt) == dt.max
  assert truncate(-math.inf, dt) == truncate(-1e30, dt) == dt.min

REALS = [0.0, -0.0, 1.0, 0.1, -1 / 3, 65504.0, 65519.9, 65520.0, 1e-8, 6e-8, 3e-8, 1e38, 3.5e38, 1e39, -1e39, 1e-45,
         7e-46, 1e-300, math.inf, -math.inf]
@pytest.mark.parametrize("dt", [dtypes.float16, dtypes.float32, dtypes.float64], ids=lambda dt: dt.name)
def test_floats_round_as_numpys(dt):
  with np.errstate(over="ignore"):
    for x in REALS:
      got, expected = truncate(x, dt), float(np.array(x).astype(dt.name))
      assert got == expected and math.copysign(1, got) == math.copysign(1, expected), x
  assert math.isnan(truncate(math.nan, dt))

def test_bfloat16_rounds_as_torchs():
  torch = pytest.importorskip("torch")
  bits = np.random.default_rng(0).integers(0, 2**32, 3000, dtype=np.uint32)
  chosen = np.array([0, -0.0, 1 + 2**-8, 1 + 3 * 2**-8, 3.39e38, 1e-40], np.float32)
  floats = np.concatenate([bits.view(np.float32), chosen])
  expected = torch.from_numpy(floats).to(torch.bfloat16).double().numpy()
  for x, want in zip(floats, expected):
    got = to_bfloat16(float(x))
    assert got == want or math.isnan(got) and math.isnan(want), x

def test_bfloat16_rounds_once():
  """1 + 2**-8 + 2**-30 lies above the middle of two bfloat16; float32 would drop the last bit and round to even."""
  assert truncate(1 + 2**-8 + 2**-30, dtypes.bfloat16) == 1 + 2**-7

@pytest.mark.parametrize("dt", [dtypes.float16, dtypes.bfloat16, dtypes.float32], ids=lambda dt: dt.name)
def test_large_integers_round_once(dt):
  digits = {"float16": 11, "bfloat16": 8, "float32": 24}[dt.name]
  middle = (1 << digits) + 1                                # between two neighbours: to even; one bit more: upwards
  if dt is dtypes.float16: assert truncate(middle, dt) == 1 << digits
  else:
    x = middle << 40
    assert truncate(x, dt) == 1 << digits + 40 and truncate(x + 1, dt) == (1 << digits + 40) + (2 << 40)

@each
def test_truncate_keeps_what_fits(dt):
  for x in (0, 1): assert truncate(truncate(x, dt), dt) == x
  expected = bool if dt is dtypes.bool else float if dt.is_floating_point else int
  assert type(truncate(1, dt)) is expected

@each
def test_unpack_reverses_pack(dt):
  for x in (0, 1, truncate(-2.5, dt)):
    assert len(pack(x, dt)) == dt.itemsize and unpack(pack(x, dt), dt) == x

@pytest.mark.parametrize("dt", dtypes.floats, ids=lambda dt: dt.name)
def test_eps_is_the_first_step_after_one(dt):
  assert truncate(1 + dt.eps, dt) == 1 + dt.eps and truncate(1 + dt.eps / 2, dt) == 1

def test_bool_tests_for_zero():
  assert [truncate(x, dtypes.bool) for x in (0, 2, 0.0, 0.5, -1, math.nan)] == [False, True, False, True, True, True]
