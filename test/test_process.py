# Processes that call functions for this one: results, exceptions, those that hang or die, and what a working directory
# may contain.
import os, threading, time
import pytest
from picograd.runtime import process
from picograd.runtime.process import Failed, Process

@pytest.fixture
def other():
  other = Process()
  yield other
  other.close()

def test_a_function_runs_in_another_process_again_and_again(other):
  first = other.call(60, os.getpid)
  assert first != os.getpid() and other.call(60, os.getpid) == first
  assert other.call(60, divmod, 7, 2) == (3, 1)

def test_an_exception_is_told_and_ends_nothing(other):
  with pytest.raises(Failed, match="ZeroDivisionError"): other.call(60, divmod, 1, 0)
  assert other.is_running and other.call(60, divmod, 7, 2) == (3, 1)

@pytest.mark.parametrize("function, arguments, limit", [(os._exit, (3,), 60), (time.sleep, (60,), 0.5)], ids=str)
def test_one_that_dies_or_hangs_is_replaced(other, function, arguments, limit):
  other.call(60, os.getpid)
  with pytest.raises(Failed): other.call(limit, function, *arguments)
  assert not other.is_running and other.call(60, divmod, 7, 2) == (3, 1)

def test_what_cannot_be_sent_is_a_failure(other):
  with pytest.raises(Failed): other.call(60, lambda: 1)
  assert other.call(60, divmod, 7, 2) == (3, 1)

def test_what_it_prints_is_no_answer(other): assert other.call(60, print, "hello") is None

def test_one_that_is_ended_answers_nobody(other):
  other.call(60, os.getpid)
  timer = threading.Timer(0.3, other.end)
  timer.start()
  start = time.perf_counter()
  with pytest.raises(Failed): other.call(60, time.sleep, 60)
  with pytest.raises(Failed): other.call(60, divmod, 7, 2)
  assert time.perf_counter() - start < 50 and not other.is_running

def test_files_in_the_working_directory_are_not_imported(other, tmp_path, monkeypatch):
  (tmp_path / "pickle.py").write_text("raise RuntimeError")
  (tmp_path / "numpy.py").write_text("raise RuntimeError")
  monkeypatch.chdir(tmp_path)
  assert other.call(60, divmod, 7, 2) == (3, 1)

def test_a_program_that_is_not_there_is_a_failure(other, monkeypatch, tmp_path):
  monkeypatch.setattr(process, "COMMAND", [str(tmp_path / "nothing")])
  with pytest.raises(Failed): other.call(60, divmod, 7, 2)
