# ladder.py: one matrix product, Opt by Opt: `python -m extra.bench ladder`. The list is the one that the compiler
# chooses; its beginnings are compiled, checked against the whole, and timed in turns. Every rung says what it is worth.
from __future__ import annotations
from typing import Any, Sequence
import picograd
from picograd import codegen
from picograd.codegen.schedule import schedule
from picograd.runtime.beam import Bench, Failed
from picograd.runtime.device import device
from .workloads import GFLOPS

SIZE = 1024
ROUNDS = 5
HEADER = ("Opt", "GFLOP/s", "times the one before")

def product(n: int) -> tuple[Any, tuple[int, ...]]:
  """The kernel of an n x n product, ready for Opts, and the elements of its buffers."""
  a, b = (picograd.zeros(n, n).contiguous().realize() for _ in "ab")
  kernel = schedule([(a @ b).uop], "CPU", device("CPU").target or codegen.Target("plain")).kernels[-1]
  return codegen.prepared(kernel.ast), tuple([leaf.arg.size for leaf in kernel.buffers])

def rungs(bench: Bench, opts: Sequence[Any]) -> list[list[Any]]:
  """The beginnings of a list that are schedules of their own. Some Opts are only worth something with the next."""
  found = []
  for length in range(len(opts) + 1):
    try: bench.check(list(opts[:length]))
    except Failed: raise
    except Exception: continue
    found.append(list(opts[:length]))
  return found

def rows(n: int) -> list[list[str]]:
  """opt, GFLOP/s, gain"""
  kernel, sizes = product(n)
  target = device("CPU").target
  assert target is not None
  opts: list[Any] = [*codegen.opts_for(kernel, target)]
  bench = Bench("CPU", kernel, sizes, opts)
  steps = rungs(bench, opts)
  seconds = [min(times) for times in zip(*[[bench.time(step) for step in steps] for _ in range(ROUNDS)])]
  out, before = [], 0
  for k, (step, best) in enumerate(zip(steps, seconds)):
    name = " ".join(map(repr, step[before:])) or "plain loops"
    gain = f"{seconds[k - 1] / best:.2f}" if k else "-"
    out.append([name, f"{GFLOPS.figure(2 * n ** 3, best):.1f}", gain])
    before = len(step)
  return out
