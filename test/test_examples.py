# test_examples.py: the programs in examples/ run with picograd and with torch from equal first weights to equal losses,
# eager and compiled; a run that is killed and resumed has the losses of one that was not.
import json, os, signal, subprocess, sys, time
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
  "nanogpt": ["nanogpt.py", "--data", EXAMPLES.parent / "README.md", "--layers", 1, "--heads", 2, "--embd", 16,
              "--block", 8, "--batch", 4, "--warmup", 5, "--eval-batches", 0, "--sample", 0],
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

@pytest.mark.parametrize("flags", [[], ["--compile"]], ids=["plain", "compiled"])
def test_a_killed_run_resumes_to_the_same_bits(flags, tmp_path):
  flags = [*flags, "--dropout", 0.1]
  whole = losses("nanogpt", tmp_path / "whole.json", *flags)
  checkpoint = tmp_path / "run" / "last.pt"
  keep = [*flags, "--checkpoint", checkpoint, "--checkpoint-every", 1, "--resume", checkpoint]
  process = subprocess.Popen([sys.executable, *command("nanogpt", "--losses", tmp_path / "killed.json", *keep)])
  while not checkpoint.exists() and process.poll() is None: time.sleep(0.01)
  time.sleep(np.random.default_rng().uniform(0, 0.3))
  process.send_signal(signal.SIGKILL)
  process.wait()
  assert checkpoint.exists()
  resumed = losses("nanogpt", tmp_path / "resumed.json", *keep)
  assert len(whole) == STEPS and resumed.tolist() == whole.tolist()
