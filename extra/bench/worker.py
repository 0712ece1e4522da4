# worker.py: one peer in a process of its own, because thread pools of two libraries disturb each other. In, a line of
# JSON each: ["prepare", workload], ["time", seconds], ["release"]. Out: a line of JSON with the answer. Worker is the
# parent's end of the two pipes.
from __future__ import annotations
import contextlib, ctypes, gc, json, os, select, signal, subprocess, sys, time
from pathlib import Path
from typing import Any, Callable, NamedTuple
import numpy as np
from . import peers, workloads
from .workloads import Task

ROOT = Path(__file__).resolve().parents[2]
THREAD_FLAGS = ("THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
SHORTEST = 2e-4          # seconds that one sample must take; shorter calls are repeated

# What glibc returns to the system when it is freed costs a page fault for each 4 KB when it is needed again, which is
# up to three times the kernel. picograd keeps memory by itself; with these flags every library does.
KEEP_MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(1 << 33), "MALLOC_TOP_PAD_": str(1 << 29)}

class Sample(NamedTuple):
  seconds: float                              # of a call
  kernels: float                              # of these, in kernels; nan where that is not known

def samples(task: Task, clock: Callable[[], float], seconds: float, repeat: int) -> list[Sample]:
  """One after the other, for as long as given and at least one."""
  out: list[Sample] = []
  end = time.perf_counter() + seconds
  while not out or time.perf_counter() < end:
    before, start = clock(), time.perf_counter()
    for _ in range(repeat): result = task.call()
    spent = task.seconds(result) if task.seconds else (time.perf_counter() - start) / repeat
    out.append(Sample(spent, (clock() - before) / repeat))
  return out

IDLE = Task(lambda: None, np.zeros(()), np.zeros(()))

class Session:
  """The answers of a worker."""
  def __init__(self, peer: str, sizes: workloads.Sizes):
    self.peer, self.table = peers.PEERS[peer](), workloads.workloads(sizes)
    self.release()

  def release(self) -> None:
    """Frees the workload's memory, and gives it back: a worker may have computed a reference in float64, too."""
    self.task, self.repeat = IDLE, 1
    gc.collect()
    with contextlib.suppress(AttributeError): ctypes.CDLL(None).malloc_trim(0)

  def prepare(self, name: str) -> dict[str, Any]:
    """Builds, checks and warms a workload: {"seconds": of a call, "kernels": of a call}, {"wrong": text},
    {"error": text} or {}."""
    self.release()
    workload = self.table[name]
    try:
      task = workload.task(self.peer)
      if task is None: return {}
      workloads.check(task, workload.tolerance)
      before = self.peer.launched()
      first = min(samples(task, self.peer.kernel_clock, 0, 1)).seconds
      launched = self.peer.launched() - before
      if first < SHORTEST: first = min(samples(task, self.peer.kernel_clock, SHORTEST, 1)).seconds
    except workloads.WrongResult as e: return {"wrong": str(e)}
    except Exception as e: return {"error": f"{type(e).__name__}: {e}"}        # the other rows are still worth timing
    self.task, self.repeat = task, 1 if task.seconds else max(1, int(SHORTEST / first))
    return {"seconds": first, "kernels": launched}

  def time(self, seconds: float) -> list[Sample] | dict[str, Any]:
    try: return samples(self.task, self.peer.kernel_clock, seconds, self.repeat)
    except Exception as e: return {"error": f"{type(e).__name__}: {e}"}

def serve(peer: str, sizes: str) -> None:
  """Answers until standard input ends. What a library prints goes to standard error."""
  if hasattr(os, "sched_setaffinity"):        # which jax and tinygrad go by
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:int(os.environ["THREADS"])])
  answers = os.fdopen(os.dup(1), "w")
  os.dup2(2, 1)
  session = Session(peer, getattr(workloads, sizes))
  with contextlib.suppress(BrokenPipeError):                         # the parent was interrupted
    for line in sys.stdin:
      command, *arguments = json.loads(line)
      print(json.dumps(getattr(session, command)(*arguments)), file=answers, flush=True)

class TooLong(Exception):
  """A worker did not answer in time, or died."""

class Worker:
  """A worker, started when it is first asked, and again where one took too long."""
  def __init__(self, peer: str, threads: int, sizes: str):
    self.peer, self.threads, self.sizes = peer, threads, sizes
    self.process: subprocess.Popen[str] | None = None

  def start(self) -> subprocess.Popen[str]:
    environment = os.environ | KEEP_MEMORY | {flag: str(self.threads) for flag in THREAD_FLAGS}
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment["PYTHONPATH"] = os.pathsep.join(paths)
    return subprocess.Popen([sys.executable, "-m", "extra.bench.worker", self.peer, self.sizes], env=environment,
                            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True)

  def ask(self, limit: float, *command: Any) -> Any:
    """The answer; TooLong after so many seconds, and the worker is ended."""
    self.process = self.process or self.start()
    assert self.process.stdin is not None and self.process.stdout is not None
    with contextlib.suppress(BrokenPipeError):
      self.process.stdin.write(json.dumps(command) + "\n")
      self.process.stdin.flush()
    ready, _, _ = select.select([self.process.stdout], [], [], limit)
    line = self.process.stdout.readline() if ready else ""
    if line: return json.loads(line)
    self.close()
    raise TooLong("the worker died" if ready else f"took longer than {limit:.0f} s")

  def close(self) -> None:
    if self.process is None: return
    os.killpg(self.process.pid, signal.SIGKILL)                      # and the processes that it has started
    self.process.communicate()
    self.process = None

if __name__ == "__main__": serve(*sys.argv[1:])
