# __main__.py: `python -m extra.bench cpu`: times picograd beside every other library that is installed, in turns, and
# prints a Markdown table. The figures are of the fastest call, because whatever else the machine does only ever slows
# one down; the medians say how quiet it was. Exit status 1 if any result was wrong.
from __future__ import annotations
import argparse, fnmatch, math, os, statistics, sys, time
from typing import Any, NamedTuple, Sequence
from . import limits, workloads
from .peers import OURS, SLOW_TO_START, installed
from .worker import Sample, Worker
from .workloads import Workload

ROUNDS = 6
HEADER = ("workload", "unit", "picograd", "median", "kernels only", "best other", "figure", "ratio", "of the limit")

class Measured(NamedTuple):
  """One workload at one number of threads."""
  workload: Workload
  samples: dict[str, list[Sample]]            # peer -> all of them
  troubles: list[str]                         # what went wrong, a line each

# ---- measuring -------------------------------------------------------------------------------------------------------

def measure(workload: Workload, workers: list[Worker], seconds: float) -> Measured:
  """Prepares the workload everywhere at once, then lets the peers take turns. Slow peers get fewer turns."""
  for worker in workers: worker.send("prepare", workload.name)
  answers = [(worker, worker.receive()) for worker in workers]
  troubles = [f"{worker.peer}, {workload.name}: {kind}: {text}" for worker, answer in answers
              for kind, text in answer.items() if kind != "seconds"]
  ready = [(worker, answer["seconds"]) for worker, answer in answers if "seconds" in answer]
  found: dict[str, list[Sample]] = {worker.peer: [] for worker, _ in ready}
  for turn in range(ROUNDS):
    for worker, once in ready:
      if turn >= max(2, seconds / once / len(ready)): continue
      found[worker.peer] += [Sample(*s) for s in worker.ask("time", seconds / ROUNDS / len(ready))]
  return Measured(workload, found, troubles)

# ---- the table -------------------------------------------------------------------------------------------------------

def short(x: float) -> str:
  """Three digits that count."""
  return f"{x:.0f}" if abs(x) >= 100 else f"{x:.{max(0, 2 - math.floor(math.log10(abs(x) or 1)))}f}"

def row(m: Measured, machine: limits.Limits) -> list[str]:
  w = m.workload
  def figure(seconds: float | None) -> str: return short(w.unit.figure(w.work, seconds)) if seconds else "-"
  best = {peer: min(samples).seconds for peer, samples in m.samples.items()}
  ours = best.pop(OURS, None)
  median = statistics.median([s.seconds for s in m.samples[OURS]]) if ours else None
  kernels = min([s.kernels for s in m.samples[OURS]]) if ours else None
  other = min(best, key=lambda peer: best[peer], default=None)
  cells = [w.name, w.unit.name, figure(ours), figure(median)]
  cells += [figure(kernels), other or "-", figure(best[other] if other else None)]
  cells.append(f"{best[other] / ours:.2f}" if ours and other else "-")
  least = machine.seconds(w.flops, w.read, w.written)
  cells.append(f"{least / ours:.0%}" if ours and least else "-")
  return cells

def table(rows: Sequence[Sequence[str]]) -> str:
  """Markdown, readable as it stands: numbers to the right."""
  lines = [HEADER, *rows]
  widths = [max(len(line[i]) for line in lines) for i in range(len(HEADER))]
  left = (0, 1, 5)
  def text(line: Sequence[str]) -> str:
    cells = [line[i].ljust(n) if i in left else line[i].rjust(n) for i, n in enumerate(widths)]
    return "| " + " | ".join(cells) + " |"
  rule = "|" + "|".join(["-" * (n + 2) if i in left else "-" * (n + 1) + ":" for i, n in enumerate(widths)]) + "|"
  return "\n".join([text(HEADER), rule, *map(text, rows)])

def describe(machine: limits.Limits, threads: int, load: float) -> str:
  memory = "; ".join(f"over {m.size >> 20} MiB it reads {m.read / 1e9:.1f} GB/s and copies {m.copy / 1e9:.1f}"
                     for m in machine.memory)
  plural = "thread" if threads == 1 else "threads"
  return (f"{threads} {plural}: the machine does {machine.fma / 1e9:.0f} GFLOP/s of multiply-adds; {memory}. "
          f"Load while it ran: up to {load:.1f}; far above the number of threads, the ratios mean little.")

# ---- the command line ------------------------------------------------------------------------------------------------

def run(threads: int, names: list[str], peers: list[str], sizes: str, seconds: float) -> tuple[str, list[str]]:
  """The text for one number of threads, and what went wrong."""
  rows = workloads.workloads(getattr(workloads, sizes))
  machine = limits.measure(threads)
  workers = [Worker(peer, threads, sizes) for peer in peers]
  measured: list[Measured] = []
  load = 0.0                                  # processes that wanted a core, the highest mean over a minute
  for name in names:
    measured.append(measure(rows[name], workers, seconds))
    machine = limits.best_of(machine, limits.measure(threads)) if len(measured) % 4 == 0 else machine
    load = max(load, os.getloadavg()[0])
    print("  ".join(row(measured[-1], machine)), file=sys.stderr, flush=True)
  for worker in workers: worker.close()
  troubles = [line for m in measured for line in m.troubles]
  return describe(machine, threads, load) + "\n\n" + table([row(m, machine) for m in measured]), troubles

def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
  parser = argparse.ArgumentParser(prog="python -m extra.bench", description="Times picograd beside other libraries.")
  flag = parser.add_argument
  flag("device", choices=["cpu"])
  flag("--threads", default="1,2", help="numbers of threads to run with; default: 1,2")
  flag("--only", default="*", metavar="PATTERN", help="workloads whose name contains this; * and ? match anything")
  flag("--peers", metavar="NAMES", help="default: all that are installed")
  flag("--seconds", type=float, default=1.5, help="of calls for each workload, all peers together; default: 1.5")
  flag("--sizes", choices=["full", "quick", "tiny"], default="full")
  flag("--compile", action="store_true", help="time torch.compile too, which takes long to start")
  return parser.parse_args(arguments)

def main(arguments: Sequence[str] | None = None) -> Any:
  args = parse_arguments(arguments)
  peers = args.peers.split(",") if args.peers else [p for p in installed() if args.compile or p not in SLOW_TO_START]
  unknown = [peer for peer in peers if peer not in installed()]
  if unknown: sys.exit(f"{', '.join(unknown)}: not installed; there are {', '.join(installed())}")
  sizes = args.sizes.upper()
  every: list[str] = list(workloads.workloads(getattr(workloads, sizes)))
  names = [name for name in every if fnmatch.fnmatch(name.lower(), f"*{args.only.lower()}*")]
  if not names: sys.exit(f"--only {args.only}: no such workload; there are {', '.join(every)}")
  start, troubles = time.perf_counter(), []
  for threads in map(int, args.threads.split(",")):
    text, wrong = run(threads, names, peers, sizes, args.seconds)
    print(text + "\n", flush=True)
    troubles += wrong
  print(f"{time.perf_counter() - start:.0f} s in all", file=sys.stderr)
  if troubles: sys.exit("\n".join(troubles))

if __name__ == "__main__": main()
