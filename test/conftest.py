# conftest.py: how every test runs. Each pass verifies its result (SPEC=1), and compiled kernels are kept in a directory
# of this run alone, which the workers of pytest-xdist share. Set before picograd is imported: it reads its flags then.
import os, shutil, sys, tempfile
import numpy as np
import pytest

os.environ.setdefault("SPEC", "1")

pytest.register_assert_rewrite("harness")

own_cache = None if "CACHE_DIR" in os.environ else tempfile.mkdtemp(prefix="picograd-test-")
if own_cache is not None: os.environ["CACHE_DIR"] = own_cache      # workers inherit it, and so do subprocesses of tests

def pytest_unconfigure() -> None:
  if own_cache is not None: shutil.rmtree(own_cache, ignore_errors=True)

@pytest.fixture(autouse=True)
def same_numbers(request: pytest.FixtureRequest) -> None:
  """The random numbers of a test do not depend on which tests its process has run before."""
  for name in ("torch", "picograd"):
    if name in sys.modules: sys.modules[name].manual_seed(0)
  if hasattr(request.module, "rng"): request.module.rng = np.random.default_rng(0)
