# test_sz.py: extra/sz.py counts lines of code and tokens as its header says.
import subprocess, sys
import pytest
from extra import sz

SOURCE = '''# a comment
"""A docstring
on two lines."""

import os   # with a comment

def double(x):
  """Another docstring."""
  return (x +
          x)

text = """a string
that is data"""
'''

def test_only_lines_with_code_count():
  assert sz.measure(SOURCE).lines == 6          # import, def, return on two lines, text on two lines

def test_tokens_are_counted_without_layout():
  assert sz.measure("x = f(1, 2)\n").tokens == 8
  assert sz.measure("if x:\n  y = 1  # why\n").tokens == 6

def test_empty_source_has_no_size():
  assert sz.measure("") == sz.Size(0, 0)
  assert sz.measure("# only a comment\n").density == 0.0

def test_core_leaves_out_the_namespaces():
  assert sz.is_core("picograd/ops/uop.py") and sz.is_core("picograd/tensor.py")
  for path in ("picograd/nn/functional.py", "picograd/optim.py", "picograd/random.py", "extra/sz.py", "llama.py"):
    assert not sz.is_core(path)

def test_table_shows_totals_and_change():
  now = {"picograd/a.py": sz.Size(10, 100), "picograd/nn/b.py": sz.Size(5, 50)}
  before = {"picograd/a.py": sz.Size(7, 70), "picograd/old.py": sz.Size(2, 20)}
  lines = {line[:44].strip(): line[44:].split() for line in sz.table(now, before).splitlines()}
  assert lines["picograd/a.py"] == ["10", "10.0", "+3"]
  assert lines["picograd/old.py"] == ["0", "0.0", "-2"]
  assert lines["picograd/ without nn-like namespaces"] == ["10", "10.0", "+1"]
  assert lines["everything"] == ["15", "10.0", "+6"]

def run_sz(*arguments):
  return subprocess.run([sys.executable, "extra/sz.py", *arguments], cwd=sz.ROOT, capture_output=True, text=True)

def test_script_prints_the_table():
  done = run_sz()
  assert done.returncode == 0 and "picograd/ without nn-like namespaces" in done.stdout

def test_unknown_revision_ends_in_one_line():
  if not (sz.ROOT / ".git").exists(): pytest.skip("needs a git checkout")
  done = run_sz("no-such-revision")
  assert done.returncode == 1 and "Traceback" not in done.stderr and "no-such-revision" in done.stderr

def test_head_can_be_compared():
  if not (sz.ROOT / ".git").exists(): pytest.skip("needs a git checkout")
  done = run_sz("HEAD")
  assert done.returncode == 0 and "change" in done.stdout
