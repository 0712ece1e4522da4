# profile.py: how long kernels took, and how near that is to what the machine can do. In: an event for each launch. Out:
# at DEBUG=2 a line for each and a table when the process ends; with PROFILE=path a trace that chrome://tracing and
# ui.perfetto.dev open. Timing waits for every kernel, so a profiled program is slower than its kernels.   (chapter 3)
from __future__ import annotations
import atexit, functools, importlib, json, sys
from typing import Any, NamedTuple, Sequence
from picograd.helpers import DEBUG, PROFILE, THREADS, cache_get, cache_put, colour, size_text
from picograd.runtime.device import Device

class Event(NamedTuple):
  """One launch."""
  device: str
  name: str
  start: float                                # seconds of time.perf_counter
  seconds: float
  operations: int
  bytes: int                                  # that it had to move at least
  least: float                                # seconds that the machine needs for these; 0: not known

events: list[Event] = []

def is_wanted() -> bool: return DEBUG.value >= 2 or PROFILE.value != ""

def record(where: Device, name: str, start: float, seconds: float, operations: int, nbytes: int) -> None:
  """Keeps an event, and prints it at DEBUG=2."""
  if not events: atexit.register(finish)
  least = least_seconds(where, operations, nbytes)
  event = Event(where.name, name, start, max(seconds, 1e-9), operations, nbytes, least)
  events.append(event)
  if DEBUG >= 2: print(f"{colour(where.name, 'green')} {len(events):5d} {name:40s} {figures([event])}")

# ---- what the machine can do -----------------------------------------------------------------------------------------

def least_seconds(where: Device, operations: int, nbytes: int) -> float:
  """By the roofline: the longer of the arithmetic and the traffic. 0 for a device whose limits are not measured."""
  found = machine_limits(where)
  return found.seconds(operations, nbytes, 0) if found else 0.0

@functools.cache
def machine_limits(where: Device) -> Any:
  """Measured once; for a processor and a number of threads, then read from the disk."""
  if where.name != "CPU": return where.limits()
  limits = importlib.import_module("picograd.runtime.limits")        # it needs llvmlite
  key = where.cache_key(f"limits {THREADS}")
  known = cache_get("limits", key)
  if known: return limits.from_numbers(known)
  measured = limits.measure(int(THREADS), limits.CACHED_SIZES + limits.SIZES)
  cache_put("limits", key, limits.as_numbers(measured))
  return measured

# ---- the table -------------------------------------------------------------------------------------------------------

def figures(group: Sequence[Event]) -> str:
  """Time, rates, and share of the roofline, of launches together."""
  seconds, least = sum(e.seconds for e in group), sum(e.least for e in group)
  operations, nbytes = sum(e.operations for e in group), sum(e.bytes for e in group)
  share = f"{least / seconds:5.0%}" if least else "    -"
  return (f"{seconds * 1e6:10.1f} us {operations / seconds / 1e9:8.2f} GFLOP/s {nbytes / seconds / 1e9:7.2f} GB/s "
          f"{share} of roofline {size_text(nbytes):>10s}")

def table(recorded: Sequence[Event]) -> str:
  """A line for each kernel, the most expensive first, and one for all."""
  groups: dict[str, list[Event]] = {}
  for event in recorded: groups.setdefault(event.name, []).append(event)
  total = sum(e.seconds for e in recorded)
  ordered = sorted(groups.items(), key=lambda item: -sum(e.seconds for e in item[1]))
  lines = [f"{len(group):6d} x {name:40s} {sum(e.seconds for e in group) / total:6.1%} {figures(group)}"
           for name, group in ordered]
  return "\n".join([*lines, f"{len(recorded):6d} launches {' ' * 40} 100% {figures(recorded)}"])

# ---- the trace -------------------------------------------------------------------------------------------------------

def trace(recorded: Sequence[Event]) -> dict[str, Any]:
  """Trace Event Format, complete events: microseconds, one process for each device."""
  devices = sorted({e.device for e in recorded})
  names = [{"ph": "M", "pid": k, "name": "process_name", "args": {"name": name}} for k, name in enumerate(devices)]
  first = min((e.start for e in recorded), default=0.0)
  rows = [{"ph": "X", "pid": devices.index(e.device), "tid": 0, "name": e.name, "ts": (e.start - first) * 1e6,
           "dur": e.seconds * 1e6, "args": {"operations": e.operations, "bytes": e.bytes,
                                            "share of roofline": e.least / e.seconds}} for e in recorded]
  return {"traceEvents": names + rows}

def finish() -> None:
  """At the end of the process."""
  if DEBUG >= 2: print(table(events))
  if not PROFILE.value: return
  try:
    with open(PROFILE.value, "w", encoding="utf-8") as f: json.dump(trace(events), f)
  except OSError as e: print(f"PROFILE={PROFILE.value}: {e.strerror}", file=sys.stderr)
