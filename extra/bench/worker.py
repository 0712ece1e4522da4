# worker.py: one peer in a process of its own, because thread pools of two libraries disturb each other. In, a line of
# JSON each: ["prepare", workload], ["time", seconds]. Out: a line of JSON with the answer. Worker is the
# parent's end of the two pipes.
from __future__ import annotations
import json, os, subprocess, sys, time
from pathlib import Path
from typing import Any, Callable, NamedTuple
from . import peers, workloads
from .workloads import Call

ROOT = Path(__file__).resolve().parents[2]
THREAD_FLAGS = ("THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
SHORTEST = 2e-4          # seconds that one sample must take; shorter calls are repeated

# What glibc returns to the system when it is freed costs a page fault for each 4 KB when it is needed again, which is
# up to three times the kernel. picograd keeps memory by itself; with these flags every library does.
KEEP_MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(1 << 33), "MALLOC_TOP_PAD_": str(1 << 29)}

class Sample(NamedTuple):
  seconds: float                              # of a call
  kernels: float                              # of these, in kernels; nan where that is not known

def samples(call: Call, clock: Callable[[], float], seconds: float, repeat: int) -> list[Sample]:
  """One after the other, for as long as given and at least one."""
  out: list[Sample] = []
  end = time.perf_counter() + seconds
  while not out or time.perf_counter() < end:
    before, start = clock(), time.perf_counter()
    for _ in range(repeat): call()
    spent = time.perf_counter() - start
    out.append(Sample(spent / repeat, (clock() - before) / repeat))
  return out

class Session:
  """The answers of a worker."""
  def __init__(self, peer: str, sizes: workloads.Sizes):
    self.peer, self.table = peers.PEERS[peer](), workloads.workloads(sizes)
    self.call: Call = lambda: None
    self.repeat = 1

  def prepare(self, name: str) -> dict[str, Any]:
    """Builds, checks and warms a workload: {"seconds": of a call}, {"wrong": text}, {"error": text} or {}."""
    self.call = lambda: None                                          # frees the last workload's memory
    workload = self.table[name]
    try:
      task = workload.task(self.peer)
      if task is None: return {}
      workloads.check(task, workload.tolerance)
      self.call = task.call
      first = min(samples(self.call, self.peer.kernel_clock, SHORTEST, 1)).seconds
    except workloads.WrongResult as e: return {"wrong": str(e)}
    except Exception as e: return {"error": f"{type(e).__name__}: {e}"}        # the other rows are still worth timing
    self.repeat = max(1, int(SHORTEST / first))
    return {"seconds": first}

  def time(self, seconds: float) -> list[Sample]:
    return samples(self.call, self.peer.kernel_clock, seconds, self.repeat)

def serve(peer: str, sizes: str) -> None:
  """Answers until standard input ends. What a library prints goes to standard error."""
  answers = os.fdopen(os.dup(1), "w")
  os.dup2(2, 1)
  session = Session(peer, getattr(workloads, sizes))
  for line in sys.stdin:
    command, *arguments = json.loads(line)
    print(json.dumps(getattr(session, command)(*arguments)), file=answers, flush=True)

class Worker:
  """A running worker. Ask with send and receive, so that several can prepare at once."""
  def __init__(self, peer: str, threads: int, sizes: str):
    self.peer = peer
    environment = os.environ | KEEP_MEMORY | {flag: str(threads) for flag in THREAD_FLAGS}
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment["PYTHONPATH"] = os.pathsep.join(paths)
    self.process = subprocess.Popen([sys.executable, "-m", "extra.bench.worker", peer, sizes], env=environment,
                                    stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

  def send(self, *command: Any) -> None:
    assert self.process.stdin is not None
    self.process.stdin.write(json.dumps(command) + "\n")
    self.process.stdin.flush()

  def receive(self) -> Any:
    assert self.process.stdout is not None
    line = self.process.stdout.readline()
    if not line: raise SystemExit(f"the worker of {self.peer} died; its last words are above")
    return json.loads(line)

  def ask(self, *command: Any) -> Any:
    self.send(*command)
    return self.receive()

  def close(self) -> None:
    self.process.communicate()

if __name__ == "__main__": serve(*sys.argv[1:])
