# conftest.py: how every test runs. Each pass verifies its result (SPEC=1), and compiled kernels are kept in a directory
# of this run alone, which the workers of pytest-xdist share. Set before picograd is imported: it reads its flags then.
import os, shutil, tempfile
import pytest

os.environ.setdefault("SPEC", "1")

pytest.register_assert_rewrite("harness")

own_cache = None if "CACHE_DIR" in os.environ else tempfile.mkdtemp(prefix="picograd-test-")
if own_cache is not None: os.environ["CACHE_DIR"] = own_cache      # workers inherit it, and so do subprocesses of tests

def pytest_unconfigure() -> None:
  if own_cache is not None: shutil.rmtree(own_cache, ignore_errors=True)
