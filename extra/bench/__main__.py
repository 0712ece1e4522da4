# __main__.py: `python -m extra.bench cpu`: times picograd beside every other library that is installed, in turns, and
# prints Markdown tables. The figures are of the fastest call, because whatever else the machine does only ever slows
# one down; the medians say how quiet it was. Exit status 1 if any result was wrong.
from __future__ import annotations
import argparse, datetime, fnmatch, importlib.metadata, json, math, os, platform, re, statistics, sys, tempfile, time
from pathlib import Path
from typing import Any, NamedTuple, Sequence
from picograd.runtime import limits
from . import workloads
from .peers import NO_RIVALS, OURS, SLOW_TO_START, installed
from .worker import Sample, TooLong, Worker
from .workloads import Workload

HEADER = ("workload", "unit", "picograd", "median", "kernels only", "best other", "figure", "ratio", "in rounds",
          "tinygrad", "of the limit")
TINYGRAD, WITHOUT_JIT = "tinygrad", "picograd, no jit"
PAUSE = 0.15             # seconds before each turn with several threads: those of the last peer stop waiting actively
NEAR, SETTLED, CALM = 1.5, 0.99, 5            # see Turns.settle

class Measured(NamedTuple):
  """One workload at one number of threads."""
  workload: Workload
  rounds: list[dict[str, list[Sample]]]       # peer -> the samples of its turn
  kernels: dict[str, int]                     # peer -> launched in a call, where that is known
  troubles: list[str]                         # what went wrong, a line each

  def samples(self) -> dict[str, list[Sample]]:
    """peer -> all of them, in order"""
    peers = dict.fromkeys(peer for turns in self.rounds for peer in turns)
    return {peer: [s for turns in self.rounds for s in turns.get(peer, ())] for peer in peers}

# ---- measuring -------------------------------------------------------------------------------------------------------

class Turns:
  """The turns that peers take at one workload. once: peer -> seconds of a call, of each that can take a turn."""
  def __init__(self, workload: Workload, limit: float):
    self.found, self.limit = Measured(workload, [], {}, []), limit
    self.once: dict[str, float] = {}

  def ask(self, worker: Worker, *command: Any) -> Any:
    """The answer; what went wrong is noted."""
    try: answer = worker.ask(self.limit, *command)
    except TooLong as e: answer = {"error": str(e)}
    for kind in {"wrong", "error"}.intersection(answer if isinstance(answer, dict) else ()):
      self.found.troubles.append(f"{worker.peer}, {self.found.workload.name}: {kind}: {answer[kind]}")
    return answer

  def prepare(self, worker: Worker) -> None:
    answer = self.ask(worker, "prepare", self.found.workload.name)
    if "seconds" not in answer: return
    self.once[worker.peer] = answer["seconds"]
    if answer["kernels"]: self.found.kernels[worker.peer] = answer["kernels"]

  def round(self, workers: Sequence[Worker], share: float) -> None:
    """A turn of `share` seconds for each of those that can."""
    self.found.rounds.append({})
    for worker in workers: self.turn(worker, share)

  def turn(self, worker: Worker, share: float) -> None:
    """A turn in the last round. Who fails has no more."""
    if worker.peer not in self.once: return
    time.sleep(PAUSE if worker.threads > 1 else 0)
    answer = self.ask(worker, "time", share)
    if isinstance(answer, list): self.found.rounds[-1][worker.peer] = [Sample(*s) for s in answer]
    else: self.once.pop(worker.peer)

  def settle(self, workers: list[Worker], share: float, seconds: float) -> None:
    """More rounds for whoever is NEAR the fastest, for so many seconds at most, until CALM of them have passed in which
    nobody's fastest call was SETTLED times the one before: on a machine that others use, too, a few calls tell who was
    lucky."""
    end, calm = time.perf_counter() + seconds, 0
    while calm < CALM and time.perf_counter() < end:
      before = {peer: fastest for peer, fastest in best(self.found).items() if peer in self.once}
      near = [w for w in workers if before.get(w.peer, math.inf) < NEAR * min(before.values(), default=0)]
      if len(near) < 2: break
      self.round(near, share)
      now = best(self.found)
      calm = 0 if any(now[w.peer] < SETTLED * before[w.peer] for w in near) else calm + 1

def measure(workload: Workload, workers: list[Worker], seconds: float, limit: float, settle: float = 0) -> Measured:
  """Prepares the workload in one peer after the other, then lets them take turns; slow peers get fewer. Where there is
  one turn, each takes it before the next peer prepares."""
  turns, share = Turns(workload, limit), seconds / workload.turns / len(workers)
  if workload.turns == 1: turns.found.rounds.append({})
  for worker in workers:
    turns.prepare(worker)
    if workload.turns == 1:
      turns.turn(worker, share)
      if worker.peer in turns.once: turns.ask(worker, "release")
  if workload.turns == 1: return turns.found
  def most(worker: Worker) -> float:
    return max(2, seconds / turns.once.get(worker.peer, math.inf) / len(turns.once or "-"))
  for k in range(workload.turns): turns.round([worker for worker in workers if k < most(worker)], share)
  if workload.turns > 2: turns.settle(workers, share, settle)
  return turns.found

# ---- the tables ------------------------------------------------------------------------------------------------------

def short(x: float) -> str:
  """Three digits that count."""
  return f"{x:.0f}" if abs(x) >= 100 else f"{x:.{max(0, 2 - math.floor(math.log10(abs(x) or 1)))}f}"

def best(m: Measured) -> dict[str, float]:
  """peer -> seconds of its fastest call"""
  return {peer: min(samples).seconds for peer, samples in m.samples().items()}

def in_rounds(m: Measured) -> float | None:
  """How much faster than the best other peer: for each the median, over the rounds that both took part in, of its
  fastest call in the round over ours. What slows a machine down for a while slows the peers of a round alike."""
  ratios: dict[str, list[float]] = {}
  for turns in m.rounds:
    for peer in turns.keys() - NO_RIVALS if OURS in turns else ():
      ratios.setdefault(peer, []).append(min(turns[peer]).seconds / min(turns[OURS]).seconds)
  return min(map(statistics.median, ratios.values()), default=None)

def figure(w: Workload, seconds: float | None) -> str:
  return short(w.unit.figure(w.work, seconds)) if seconds else "-"

def row(m: Measured, machine: limits.Limits) -> list[str]:
  w, fastest, samples = m.workload, best(m), m.samples()
  ours, tinygrad = fastest.get(OURS), fastest.get(TINYGRAD)
  median = statistics.median([s.seconds for s in samples[OURS]]) if ours else None
  kernels = min([s.kernels for s in samples.get(WITHOUT_JIT, ())], default=None)
  rivals = {peer: seconds for peer, seconds in fastest.items() if peer not in NO_RIVALS}
  other = min(rivals, key=lambda peer: rivals[peer], default=None)
  cells = [w.name, w.unit.name, figure(w, ours), figure(w, median)]
  cells += [figure(w, kernels), other or "-", figure(w, rivals[other] if other else None)]
  cells.append(f"{rivals[other] / ours:.2f}" if ours and other else "-")
  beside = in_rounds(m)
  cells.append(f"{beside:.2f}" if beside else "-")
  cells.append(f"{short(tinygrad / ours)}x" if ours and tinygrad else "-")
  least = machine.seconds(w.flops, w.read, w.written)
  cells.append(f"{least / ours:.0%}" if ours and least else "-")
  return cells

def peer_rows(measured: Sequence[Measured]) -> tuple[list[str], list[list[str]]]:
  """Every peer's figure, and how many kernels a call launches: the header and the rows."""
  peers = list(dict.fromkeys(peer for m in measured for peer in m.samples()))
  counted = [peer for peer in peers if any(peer in m.kernels for m in measured)]
  header = ["workload", "unit", *peers, *(f"kernels, {peer}" for peer in counted)]
  rows = []
  for m in measured:
    fastest = best(m)
    figures = [figure(m.workload, fastest.get(peer)) for peer in peers]
    rows.append([m.workload.name, m.workload.unit.name, *figures, *(str(m.kernels.get(p, "-")) for p in counted)])
  return header, rows

def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
  """Markdown, readable as it stands: numbers to the right."""
  lines = [header, *rows]
  widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
  left = [i for i, name in enumerate(header) if name in ("workload", "unit", "best other", "peer", "Opt")]
  def text(line: Sequence[str]) -> str:
    cells = [line[i].ljust(n) if i in left else line[i].rjust(n) for i, n in enumerate(widths)]
    return "| " + " | ".join(cells) + " |"
  rule = "|" + "|".join(["-" * (n + 2) if i in left else "-" * (n + 1) + ":" for i, n in enumerate(widths)]) + "|"
  return "\n".join([text(header), rule, *map(text, rows)])

def describe(machine: limits.Limits, threads: int, load: float) -> str:
  memory = "; ".join(f"over {m.size >> 20} MiB it reads {m.read / 1e9:.1f} GB/s and copies {m.copy / 1e9:.1f}"
                     for m in machine.memory)
  plural = "thread" if threads == 1 else "threads"
  return (f"{threads} {plural}: the machine does {machine.fma / 1e9:.0f} GFLOP/s of multiply-adds; {memory}. "
          f"Load while it ran: up to {load:.1f}; far above the number of threads, the ratios mean little.")

def conditions(peers: Sequence[str]) -> str:
  """When, where and beside what."""
  known = {p.metadata["Name"].lower(): p.version for p in importlib.metadata.distributions()}
  versions = [f"{peer} {known[peer]}" for peer in peers if peer in known]
  info = Path("/proc/cpuinfo")
  model = re.search(r"model name\s*: (.*)", info.read_text()) if info.exists() else None
  lanes = limits.Loops().lanes
  return (f"{datetime.date.today()}, {model[1] if model else platform.machine()}, vectors of {lanes} floats, "
          f"{os.cpu_count()} cores; {', '.join(versions)}.")

def as_data(m: Measured, threads: int) -> dict[str, Any]:
  return {"workload": m.workload.name, "threads": threads, "unit": m.workload.unit.name, "work": m.workload.work,
          "rounds": [{peer: [s.seconds for s in turn] for peer, turn in turns.items()} for turns in m.rounds],
          "kernels": m.kernels}

def replace_part(path: Path, name: str, text: str) -> None:
  """What stands between `<!-- bench NAME -->` and `<!-- end -->` in a Markdown file."""
  page, pattern = path.read_text(), rf"(<!-- bench {re.escape(name)} -->\n).*?(<!-- end -->)"
  if not re.search(pattern, page, re.S): sys.exit(f"{path}: has no line <!-- bench {name} -->")
  path.write_text(re.sub(pattern, lambda found: f"{found[1]}{text}\n{found[2]}", page, count=1, flags=re.S))

# ---- the command line ------------------------------------------------------------------------------------------------

def run(threads: int, names: list[str], args: argparse.Namespace, data: list[Any]) -> tuple[str, list[str]]:
  """The text for one number of threads, and what went wrong."""
  rows = workloads.workloads(getattr(workloads, args.sizes.upper()))
  machine = limits.measure(threads)
  workers = [Worker(peer, threads, args.sizes.upper()) for peer in args.peers]
  measured: list[Measured] = []
  load = 0.0                                  # processes that wanted a core, the highest mean over a minute
  for name in names:
    measured.append(measure(rows[name], workers, args.seconds, args.limit, args.settle))
    machine = limits.best_of(machine, limits.measure(threads)) if len(measured) % 4 == 0 else machine
    load = max(load, os.getloadavg()[0])
    print("  ".join(row(measured[-1], machine)), file=sys.stderr, flush=True)
  for worker in workers: worker.close()
  data += [as_data(m, threads) for m in measured]
  first = table(HEADER, [row(m, machine) for m in measured])
  text = f"{conditions(args.peers)} {describe(machine, threads, load)}\n\n{first}"
  return text + "\n\n" + table(*peer_rows(measured)), [line for m in measured for line in m.troubles]

def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
  parser = argparse.ArgumentParser(prog="python -m extra.bench", description="Times picograd beside other libraries. "
    "LLAMA2C=PATH adds llama2.c: its run.c, made with gcc -Ofast -march=native -fopenmp -fPIC -shared -DTESTING.")
  flag = parser.add_argument
  flag("device", choices=["cpu", "cuda", "ladder"],
       help="cuda: beside torch on one GPU; ladder: one matmul, Opt by Opt")
  flag("--threads", default="1,2", help="numbers of threads to run with; default: 1,2")
  flag("--only", default="*", metavar="PATTERNS",
       help="workloads whose name contains one of these, apart by ';'; * and ? match anything")
  flag("--peers", metavar="NAMES", help="default: all that are installed")
  flag("--seconds", type=float, default=1.5, help="of calls for each workload, all peers together; default: 1.5")
  flag("--settle", type=float, default=5, metavar="SECONDS",
       help="how long at most those near the fastest take further turns, until no figure improves; default: 5")
  flag("--limit", type=float, default=120, help="seconds in which a peer must prepare a workload; default: 120")
  flag("--sizes", choices=["full", "quick", "tiny"], default="full")
  flag("--compile", action="store_true", help="time torch.compile too, which takes long to start")
  flag("--json", type=Path, metavar="PATH", help="write every sample there")
  flag("--page", type=Path, metavar="PATH", help="replace the tables in this page: docs/performance.md")
  return parser.parse_args(arguments)

def chosen(args: argparse.Namespace) -> list[str]:
  """The names of the workloads to run; args.peers becomes a list."""
  there = [peer for peer in installed() if args.compile or peer not in SLOW_TO_START]
  args.peers = args.peers.split(",") if args.peers else there
  unknown = [peer for peer in args.peers if peer not in installed()]
  if unknown: sys.exit(f"{', '.join(unknown)}: not installed; there are {', '.join(installed())}")
  every: list[str] = list(workloads.workloads(getattr(workloads, args.sizes.upper())))
  patterns = [f"*{pattern.lower()}*" for pattern in args.only.split(";")]
  names = [name for name in every if any(fnmatch.fnmatch(name.lower(), pattern) for pattern in patterns)]
  if not names: sys.exit(f"--only {args.only}: no such workload; there are {', '.join(every)}")
  return names

def compare(args: argparse.Namespace) -> list[str]:
  names, start = chosen(args), time.perf_counter()
  troubles: list[str] = []
  data: list[dict[str, Any]] = []
  for threads in map(int, args.threads.split(",")):
    text, wrong = run(threads, names, args, data)
    print(text + "\n", flush=True)
    if args.page: replace_part(args.page, f"{threads} threads", text)
    troubles += wrong
  if args.json: args.json.write_text(json.dumps(data))
  print(f"{time.perf_counter() - start:.0f} s in all", file=sys.stderr)
  return troubles

def climb(args: argparse.Namespace) -> None:
  from . import ladder
  text = table(ladder.HEADER, ladder.rows(64 if args.sizes == "tiny" else ladder.SIZE))
  print(text)
  if args.page: replace_part(args.page, "ladder", text)

def on_gpu(args: argparse.Namespace) -> None:
  from . import gpu
  import torch
  versions = f"{datetime.date.today()}, {torch.cuda.get_device_name()}, torch {torch.__version__}."
  text = f"{versions}\n\n{table(gpu.HEADER, gpu.rows())}"
  print(text)
  if args.page: replace_part(args.page, "cuda", text)

def main(arguments: Sequence[str] | None = None) -> Any:
  args = parse_arguments(arguments)
  if args.device == "ladder": return climb(args)
  if args.device == "cuda": return on_gpu(args)
  with tempfile.TemporaryDirectory() as directory:
    os.environ.setdefault("BENCH_DIR", directory)
    troubles = compare(args)
  if troubles: sys.exit("\n".join(troubles))

if __name__ == "__main__": main()
