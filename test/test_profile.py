# test_profile.py: DEBUG=2 prints a line for each kernel with its share of the machine's limits, and a table at the end;
# PROFILE writes a trace that viewers can read.
import json, os, subprocess, sys
import pytest
from picograd.runtime import limits, profile
from picograd.runtime.profile import Event

PROGRAM = """
import picograd
a = picograd.rand(256, 256).realize()
for _ in range(3): (a @ a).realize()
"""
LIMIT = """
from picograd.runtime import profile
print("least", sum(e.least for e in profile.events if "256_256_256" in e.name) * 1e6)
"""

def run(directory, program=PROGRAM, **flags):
  flags = {"CACHE_DIR": str(directory), "THREADS": "1", **flags}
  command = [sys.executable, "-c", program]
  return subprocess.run(command, env=os.environ | flags, capture_output=True, text=True, check=True)

def test_debug_2_prints_lines_and_a_table(tmp_path):
  out = run(tmp_path, PROGRAM + LIMIT, DEBUG="2").stdout
  lines = [line for line in out.splitlines() if "of roofline" in line]
  assert len(lines) >= 6 and "GFLOP/s" in lines[0]
  line = next(line for line in lines if line.lstrip().startswith("3 x reduce_256_256_256"))
  taken, share = float(line.split(" us ")[0].split()[-1]), float(line.split("% of roofline")[0].split()[-1])
  least = float(next(line for line in out.splitlines() if line.startswith("least")).split()[1])
  assert least > 0 and abs(share - 100 * least / taken) < 1          # it may exceed 100 where the limits met other work
  assert lines[-1].lstrip().split()[1] == "launches"
  assert len(list((tmp_path / "limits").iterdir())) == 1             # measured once, and kept

def test_profile_writes_a_trace(tmp_path):
  path = tmp_path / "trace.json"
  assert run(tmp_path, PROFILE=str(path)).stdout == ""
  found = json.loads(path.read_text())["traceEvents"]
  kernels = [event for event in found if event["ph"] == "X"]
  assert sum(event["name"].startswith("reduce_256") for event in kernels) == 3
  assert all(event["dur"] > 0 and event["ts"] >= 0 for event in kernels)
  assert [event["args"]["name"] for event in found if event["ph"] == "M"] == ["CPU"]

def test_a_path_that_cannot_be_written_is_said_so(tmp_path):
  assert "PROFILE=" in run(tmp_path, PROFILE=str(tmp_path / "nowhere" / "trace.json")).stderr

def test_the_table_adds_up():
  events = [Event("CPU", "a", 0.0, 1e-3, 1_000_000, 0, 5e-4), Event("CPU", "b", 0.0, 3e-3, 0, 3_000_000, 3e-3),
            Event("CPU", "a", 0.0, 1e-3, 1_000_000, 0, 5e-4)]
  lines = profile.table(events).splitlines()
  assert [line.split()[2] for line in lines[:2]] == ["b", "a"]       # the most expensive first
  assert "60.0%" in lines[0] and "1.00 GB/s  100% of roofline" in lines[0]
  assert "2 x a" in lines[1] and "1.00 GFLOP/s" in lines[1] and "50% of roofline" in lines[1]

def test_limits_survive_the_disk():
  machine = limits.Limits(1e11, (limits.Bandwidth(1 << 20, 2.0, 3.0), limits.Bandwidth(1 << 26, 1.0, 1.5)))
  assert limits.from_numbers(limits.as_numbers(machine)) == machine

@pytest.mark.parametrize("size", [1 << 17, 1 << 20])
def test_small_sizes_are_measured(size):
  machine = limits.measure(1, (size,))
  assert machine.memory[0].size == size and machine.memory[0].read > 1e8
