# test_examples.py: the programs in examples/ run with picograd and with torch from equal first weights to equal losses,
# eager and compiled.
import json, os, subprocess, sys
from pathlib import Path
import numpy as np
import pytest

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
DATA = Path(os.environ.get("PICOGRAD_DATA") or EXAMPLES.parents[1] / "shared" / "data")
NAMES, TEXT = DATA / "names.txt", DATA / "tinyshakespeare.txt"
STEPS = 20
SMALL_MAKEMORE = ["--data", NAMES, "--layers", 1, "--heads", 2, "--embd", 16, "--embd2", 16, "--batch", 8, "--no-test"]
PROGRAMS = {
  "logistic": ["linear.py"], "softmax": ["linear.py", "--classes", 4],
  "ffn": ["ffn.py", "--data", NAMES, "--hidden", 16, "--batch", 8],
  **{kind: ["makemore.py", *SMALL_MAKEMORE, "--type", kind]
     for kind in ("bigram", "bow", "mlp", "rnn")},
  "dpo": ["dpo.py", "--data", TEXT, "--pairs", 2, "--block", 8],
}
EAGER = {"logistic", "ffn", "bigram", "mlp"}                # the interpreter of one op at a time is slower

def command(program, *flags):
  """The program's command line, and its environment where it runs on torch or on picograd."""
  name, *own = PROGRAMS[program]
  flags = ["--steps", STEPS, "--quiet", "--init", "numpy", *flags]
  return [str(EXAMPLES / name), *map(str, [*own, *flags])]

def skip_without(program):
  missing = [path for path in PROGRAMS[program] if isinstance(path, Path) and not path.exists()]
  if missing: pytest.skip(f"{missing[0]} is absent")

def losses(program, path, *flags, start=(), **environment):
  line = [sys.executable, *start, *command(program, "--losses", path, *flags)]
  result = subprocess.run(line, capture_output=True, text=True, env={**os.environ, **environment})
  assert result.returncode == 0, result.stderr
  return np.array(json.loads(path.read_text()))

def runs(program):
  yield "default", [], {}
  if program in EAGER: yield "eager", [], {"EAGER": "1"}

@pytest.mark.parametrize("program", PROGRAMS)
def test_losses_are_those_of_torch(program, tmp_path):
  pytest.importorskip("torch")
  skip_without(program)
  theirs = losses(program, tmp_path / "torch.json", start=[str(EXAMPLES / "with_torch.py")])
  assert len(theirs) == STEPS
  for name, flags, environment in runs(program):
    ours = losses(program, tmp_path / f"{name}.json", *flags, **environment)
    np.testing.assert_allclose(ours, theirs, rtol=1e-3, err_msg=name)
