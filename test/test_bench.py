# test_bench.py: every workload of the bench gives right answers and a figure, a wrong answer is caught, and the table
# is Markdown with a row for each workload.
import subprocess, sys
from pathlib import Path
import numpy as np
import pytest
from extra.bench import __main__ as bench, llamas, workloads
from extra.bench.peers import Numpy, Picograd
from picograd.runtime import limits
from extra.bench.worker import Sample, Session, TooLong, Worker

ROOT = Path(__file__).resolve().parent.parent
MACHINE = limits.Limits(1e11, (limits.Bandwidth(1 << 26, 1e10, 1e10),))
EXPRESSIONS = [row.name for row in workloads.overhead() + workloads.elementwise(workloads.TINY)
               + workloads.over_rows(workloads.TINY) + workloads.matmuls(workloads.TINY)]

@pytest.mark.parametrize("name", EXPRESSIONS)
def test_picograd_answers_right_and_is_timed(name):
  session = Session("picograd", workloads.TINY)
  assert session.prepare(name)["seconds"] > 0
  assert all(sample.seconds > 0 for sample in session.time(0.001))
  eager = Session("picograd, no jit", workloads.TINY)
  assert eager.prepare(name)["seconds"] > 0
  assert all(sample.seconds > sample.kernels > 0 for sample in eager.time(0.001))

@pytest.mark.parametrize("name", ["decode tiny, fp32", "prefill tiny, fp32", "GPT-2 tiny step", "MLP step",
                                  "convnet step"])
def test_models_agree_with_float64(name, tmp_path, monkeypatch):
  pytest.importorskip("torch")
  monkeypatch.setenv("BENCH_DIR", str(tmp_path))
  workload = workloads.workloads(workloads.TINY)[name]
  workloads.check(workload.task(Picograd()), workload.tolerance)

def test_a_wrong_result_is_an_error(monkeypatch):
  monkeypatch.setattr(Numpy, "array", lambda self, result: result + 1e-3)
  answer = Session("numpy", workloads.TINY).prepare("exp")
  assert "is off by" in answer["wrong"]

@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_one_element_that_is_no_number_is_wrong(bad):
  reference = np.ones(4)
  answer = np.array([1, 1, 1, bad], np.float32)
  with pytest.raises(workloads.WrongResult): workloads.check(workloads.Task(lambda: None, answer, reference), 1e-3)

def test_a_wrong_shape_is_wrong():
  with pytest.raises(workloads.WrongResult, match="shape"):
    workloads.check(workloads.Task(lambda: None, np.ones((1, 4)), np.ones(4)), 1e-3)

def test_the_row_of_a_workload():
  workload = workloads.matmul("matmul 100", 100, 100, 100).workload()
  ours = [Sample(2e-4, np.nan), Sample(1e-4, np.nan), Sample(4e-4, np.nan)]
  samples = {"picograd": ours, "numpy": [Sample(3e-4, np.nan)], "torch": [Sample(2e-4, np.nan)]}
  samples |= {"tinygrad": [Sample(1e-3, np.nan)], "picograd, no jit": [Sample(6e-5, 5e-5)]}
  row = bench.row(bench.Measured(workload, [samples], {}, []), MACHINE)
  assert row == ["matmul 100", "GFLOP/s", "20.0", "10.0", "40.0", "torch", "10.0", "2.00", "2.00", "10.0x", "20%"]
  lines = bench.table(bench.HEADER, [row]).splitlines()
  assert len(lines) == 3 and len({len(line) for line in lines}) == 1 and len({line.count("|") for line in lines}) == 1

def test_a_workload_that_nobody_can_do_has_an_empty_row():
  workload = workloads.workloads(workloads.TINY)["import"]
  assert bench.row(bench.Measured(workload, [], {}, []), MACHINE)[2:] == ["-"] * 9

def test_rounds_are_compared_each_for_itself():
  """One lucky call of a peer decides nothing, and neither do rounds in which it had no turn."""
  def turn(seconds): return [Sample(seconds * 2, np.nan), Sample(seconds, np.nan)]
  workload = workloads.workloads(workloads.TINY)["exp"]
  slow = {"picograd": turn(4), "numpy": turn(5), "torch": turn(9)}
  rounds = [slow, {"picograd": turn(4), "numpy": turn(3), "torch": turn(9)}, slow, {"picograd": turn(1)}]
  assert bench.in_rounds(bench.Measured(workload, rounds, {}, [])) == 1.25
  assert bench.in_rounds(bench.Measured(workload, [{"numpy": turn(1)}, {"picograd": turn(1)}], {}, [])) is None

def test_every_peers_figure_and_kernels():
  workload = workloads.matmul("matmul 100", 100, 100, 100).workload()
  samples = {"picograd": [Sample(1e-4, 5e-5)], "jax": [Sample(2e-4, np.nan)]}
  header, rows = bench.peer_rows([bench.Measured(workload, [samples], {"picograd": 1}, [])])
  assert header == ["workload", "unit", "picograd", "jax", "kernels, picograd"]
  assert rows == [["matmul 100", "GFLOP/s", "20.0", "10.0", "1"]]

def test_the_limit_is_the_slower_of_arithmetic_and_memory():
  assert MACHINE.seconds(1e11, 4, 4) == 1
  assert MACHINE.seconds(0, 3e10, 1e10) == pytest.approx(4)

def test_the_machine_is_measured():
  measured = limits.measure(1)
  assert measured.fma > 1e9 and all(m.read > 1e8 and m.copy > 1e8 for m in measured.memory)

def test_the_command_prints_a_table():
  done = subprocess.run([sys.executable, "-m", "extra.bench", "cpu", "--sizes", "tiny", "--threads", "2", "--seconds",
                         "0.01", "--only", "10x10", "--peers", "picograd,numpy"],
                        cwd=ROOT, capture_output=True, text=True)
  assert done.returncode == 0, done.stderr
  assert done.stdout.count("\n| 10x10") == 4 and " numpy " in done.stdout

def test_a_peer_that_takes_too_long_is_ended_and_starts_again():
  worker = Worker("numpy", 1, "TINY")
  with pytest.raises(TooLong, match="longer"): worker.ask(1e-3, "prepare", "exp")
  assert worker.ask(60, "prepare", "exp")["seconds"] > 0
  worker.close()

class Dying(Worker):
  """Prepares, then dies in its first turn."""
  def ask(self, limit, *command):
    if command[0] == "time": raise TooLong("the worker died")
    return {"seconds": 1e-3, "kernels": 1}

@pytest.mark.parametrize("name", ["exp", "import"])                  # of several turns, and of one
def test_a_peer_that_dies_while_it_is_timed_is_named(name):
  found = bench.measure(workloads.workloads(workloads.TINY)[name], [Dying("numpy", 1, "TINY")], 0.01, 1)
  assert not found.samples() and found.troubles == [f"numpy, {name}: error: the worker died"]

class Scripted(Worker):
  """Its calls take as long as the list says, the last time again and again."""
  def __init__(self, peer, *seconds):
    super().__init__(peer, 1, "TINY")
    self.times, self.turns = list(seconds), 0

  def ask(self, limit, *command):
    if command[0] != "time": return {"seconds": 1e-3, "kernels": 1}
    self.turns += 1
    return [(self.times.pop(0) if len(self.times) > 1 else self.times[0], 0)]

def test_those_near_the_fastest_take_turns_until_no_figure_improves():
  workload = workloads.workloads(workloads.TINY)["exp"]
  late = Scripted("numpy", *[1.0] * (workload.turns + 3), 0.8, 0.795)          # the last is no improvement that counts
  workers = [late, Scripted("torch", 1.1), Scripted("jax", 2.0)]
  found = bench.measure(workload, workers, 1, 1, settle=60)
  assert bench.best(found) == {"numpy": 0.795, "torch": 1.1, "jax": 2.0}
  assert [worker.turns - workload.turns for worker in workers] == [4 + bench.CALM, 4 + bench.CALM, 0]

def test_one_that_dies_while_the_others_settle_keeps_what_it_has_shown():
  class Mortal(Scripted):
    def ask(self, limit, *command):
      if self.turns > workload.turns: raise TooLong("the worker died")
      return super().ask(limit, *command)
  workload = workloads.workloads(workloads.TINY)["exp"]
  workers = [Mortal("numpy", 1.0), Scripted("torch", 1.1), Scripted("jax", 1.2)]
  found = bench.measure(workload, workers, 1, 1, settle=60)
  assert bench.best(found)["numpy"] == 1.0 and found.troubles == ["numpy, exp: error: the worker died"]

def test_an_exception_while_a_call_is_timed_is_an_answer():
  session = Session("numpy", workloads.TINY)
  session.task = session.task._replace(call=lambda: 1 / 0)
  assert session.time(0.001) == {"error": "ZeroDivisionError: division by zero"}

def test_tables_in_a_page_are_replaced(tmp_path):
  page = tmp_path / "page.md"
  page.write_text("before\n<!-- bench 1 threads -->\nold\n<!-- end -->\nafter\n<!-- end -->\n")
  bench.replace_part(page, "1 threads", "new \\1")
  assert page.read_text() == "before\n<!-- bench 1 threads -->\nnew \\1\n<!-- end -->\nafter\n<!-- end -->\n"

def test_a_checkpoint_is_what_llama_py_reads(tmp_path, monkeypatch):
  """The float64 reference, which knows nothing of llama.py, and llama.py agree."""
  monkeypatch.setenv("BENCH_DIR", str(tmp_path))
  given = llamas.prompt("tiny", 5)
  answer = llamas.PicogradModel("tiny", "fp32").predict(given, 0)
  assert np.abs(answer - llamas.reference("tiny", given)[-1]).max() < 1e-4
