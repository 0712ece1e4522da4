# Flags, and the disk cache: a damaged, half-written, unreadable or concurrently written cache is never more than slow.
import os
import signal
import subprocess
import sys
from pathlib import Path
import pytest
from picograd import helpers
from picograd.helpers import CACHE, CACHE_DIR, Flag, cache_get, cache_path, cache_put, dedup, size_text

ROOT = Path(__file__).resolve().parents[1]
PROGRAM = "import picograd as torch; print((torch.arange(1000).float() * 2 + 1).softmax(0).argmax().item())"

@pytest.fixture
def cache(tmp_path):
  with CACHE_DIR.set(str(tmp_path)), CACHE.set(1): yield tmp_path

def run(code: str, **flags: str) -> "subprocess.Popen[str]":
  environment = {**os.environ, "PYTHONPATH": str(ROOT), "SPEC": "0", **flags}
  return subprocess.Popen([sys.executable, "-c", code], env=environment, text=True, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE)

def finish(process: "subprocess.Popen[str]") -> str:
  out, err = process.communicate(timeout=100)
  assert process.returncode == 0, err
  return out.strip()

def test_what_is_put_can_be_got(cache):
  assert cache_get("kind", b"key") is None
  assert cache_put("kind", b"key", {"a": [1, 2]}) == {"a": [1, 2]}
  assert cache_get("kind", b"key") == {"a": [1, 2]} and cache_get("other", b"key") is None

def test_damaged_files_count_as_absent(cache):
  cache_put("kind", b"key", b"x" * 1000)
  path = Path(cache_path("kind", b"key"))
  whole = path.read_bytes()
  for damaged in (b"", whole[:40], whole[:-1], b"garbage" * 100, whole[:500] + b"y" + whole[501:]):
    path.write_bytes(damaged)
    assert cache_get("kind", b"key") is None
  assert cache_put("kind", b"key", 7) == 7 and cache_get("kind", b"key") == 7

def test_what_was_used_longest_ago_goes_first(cache):
  for i in range(10):
    cache_put("kind", bytes([i]), b"x" * 1000)
    os.utime(cache_path("kind", bytes([i])), (i, i))
  cache_get("kind", bytes([0]))
  helpers.trim(str(cache / "kind"), 100_000)
  assert len(list((cache / "kind").iterdir())) == 10
  helpers.trim(str(cache / "kind"), 9000)
  assert [i for i in range(10) if cache_get("kind", bytes([i])) is not None] == [0, 7, 8, 9]
  helpers.trim(str(cache / "nowhere"), 0)

def test_no_cache(cache):
  with CACHE.set(0):
    assert cache_put("kind", b"key", 1) == 1
    assert cache_get("kind", b"key") is None
  assert not list(cache.rglob("*"))

def test_a_place_that_cannot_be_written_is_no_error(cache):
  blocked = cache / "file"
  blocked.write_text("not a directory")
  with CACHE_DIR.set(str(blocked)):
    assert cache_put("kind", b"key", 1) == 1 and cache_get("kind", b"key") is None

def test_processes_that_compile_at_once_agree(tmp_path):
  processes = [run(PROGRAM, CACHE_DIR=str(tmp_path)) for _ in range(3)]
  assert [finish(p) for p in processes] == ["999"] * 3
  assert [f for f in tmp_path.rglob("*") if f.is_file()]
  assert finish(run(PROGRAM, CACHE_DIR=str(tmp_path))) == "999"

def test_a_killed_writer_leaves_a_usable_cache(tmp_path):
  """A writer that dies before it has renamed its file: its half is never read."""
  code = ("import os, time; os.replace = lambda *a: (print('here', flush=True), time.sleep(100)); " + PROGRAM)
  writer = run(code, CACHE_DIR=str(tmp_path))
  assert writer.stdout is not None and writer.stdout.readline().strip() == "here"
  writer.send_signal(signal.SIGKILL)
  writer.communicate()
  assert finish(run(PROGRAM, CACHE_DIR=str(tmp_path))) == "999"

def test_damaged_kernels_are_compiled_again(tmp_path):
  assert finish(run(PROGRAM, CACHE_DIR=str(tmp_path))) == "999"
  for file in tmp_path.rglob("*"):
    if file.is_file(): file.write_bytes(file.read_bytes()[:100])
  assert finish(run(PROGRAM, CACHE_DIR=str(tmp_path))) == "999"

def test_flags(monkeypatch):
  monkeypatch.setenv("SOME_FLAG", "3")
  flag = Flag("SOME_FLAG", 0, "a test")
  assert flag.value == 3 and flag and flag >= 3
  with flag.set(0): assert not flag
  monkeypatch.setenv("SOME_FLAG", "three")
  with pytest.raises(SystemExit, match="SOME_FLAG=three: an integer is expected"): Flag("SOME_FLAG", 0, "a test")
  del Flag.table["SOME_FLAG"]

def test_small_functions():
  assert dedup([3, 1, 3, 2, 1]) == [3, 1, 2]
  assert helpers.ceildiv(7, 2) == 4 and helpers.prod([]) == 1 and helpers.argsort([3, 1, 2]) == (1, 2, 0)
  assert size_text(1536) == "1.50 KB" and size_text(3) == "3.00 B"
