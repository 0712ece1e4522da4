# test_examples.py: the programs in examples/ run with picograd and with torch from equal first weights to equal losses,
# eager and compiled; a run that is killed and resumed has the losses of one that was not.
import functools, json, os, signal, subprocess, sys, time
from pathlib import Path
import numpy as np
import pytest

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
DATA = Path(os.environ.get("PICOGRAD_DATA") or EXAMPLES.parents[1] / "shared" / "data")
NAMES, TEXT = DATA / "names.txt", DATA / "tinyshakespeare.txt"
STEPS = 20
README = EXAMPLES.parent / "README.md"                      # a text that is always there
SMALL_MAKEMORE = ["--data", NAMES, "--layers", 1, "--heads", 2, "--embd", 16, "--embd2", 16, "--batch", 8, "--no-test"]
SMALL_GPT = ["--layers", 1, "--heads", 2, "--embd", 16, "--block", 8, "--batch", 4, "--warmup", 5]
PROGRAMS = {
  "logistic": ["linear.py"], "softmax": ["linear.py", "--classes", 4], "digits": ["digits.py", "--batch", 8],
  "ffn": ["ffn.py", "--data", NAMES, "--hidden", 16, "--batch", 8],
  **{kind: ["makemore.py", *SMALL_MAKEMORE, "--type", kind]
     for kind in ("bigram", "bow", "mlp", "rnn", "gru", "lstm", "transformer")},
  "nanogpt": ["nanogpt.py", "--data", README, *SMALL_GPT, "--eval-batches", 0, "--sample", 0],
  "gpt2": ["gpt2.py", "--data", TEXT, *SMALL_GPT, "--vocab", 128, "--accumulate", 2],
  "dpo": ["dpo.py", "--data", TEXT, "--pairs", 2, "--block", 8],
}
MODES = {"default": ([], {}), "eager": ([], {"EAGER": "1"}), "compiled": (["--compile"], {})}
QUICK = {"logistic", "softmax", "ffn", "bigram", "bow", "mlp", "rnn", "nanogpt", "dpo"}
QUICK_MODES = {"logistic": MODES, "ffn": MODES, "mlp": MODES, "nanogpt": ("default", "compiled")}

def cases():
  """Every program in every mode: with -m examples those too that take long."""
  for program in PROGRAMS:
    for mode in MODES:
      is_quick = program in QUICK and mode in QUICK_MODES.get(program, ("default",))
      yield pytest.param(program, mode, marks=[] if is_quick else pytest.mark.examples, id=f"{program}-{mode}")

def command(program, *flags):
  """The program's command line, and its environment where it runs on torch or on picograd."""
  name, *own = PROGRAMS[program]
  flags = ["--steps", STEPS, "--quiet", "--init", "numpy", *flags]
  return [str(EXAMPLES / name), *map(str, [*own, *flags])]

def skip_without(program):
  if program == "digits": pytest.importorskip("sklearn")
  missing = [path for path in PROGRAMS[program] if isinstance(path, Path) and not path.exists()]
  if missing: pytest.skip(f"{missing[0]} is absent")

def losses(program, path, *flags, start=(), **environment):
  line = [sys.executable, *start, *command(program, "--losses", path, *flags)]
  result = subprocess.run(line, capture_output=True, text=True, env={**os.environ, **environment})
  assert result.returncode == 0, result.stderr
  return np.array(json.loads(path.read_text()))

@functools.cache
def torchs(program, path): return losses(program, path, start=[str(EXAMPLES / "with_torch.py")])

@pytest.mark.parametrize("program,mode", cases())
def test_losses_are_those_of_torch(program, mode, tmp_path, tmp_path_factory):
  pytest.importorskip("torch")
  skip_without(program)
  theirs = torchs(program, tmp_path_factory.getbasetemp() / f"{program}.json")
  flags, environment = MODES[mode]
  ours = losses(program, tmp_path / "picograd.json", *flags, **environment)
  assert len(theirs) == STEPS
  np.testing.assert_allclose(ours, theirs, rtol=1e-3)

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

def test_a_gpt2_of_hugging_faces_gives_its_logits(tmp_path, monkeypatch):
  torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
  save_file = pytest.importorskip("safetensors.torch").save_file
  monkeypatch.syspath_prepend(EXAMPLES)
  import gpt
  import picograd
  sizes = {"vocab_size": 97, "n_positions": 32, "n_embd": 128, "n_layer": 2, "n_head": 2}
  theirs = transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes, bos_token_id=0, eos_token_id=0)).eval()
  weights = {name: t for name, t in theirs.state_dict().items() if name != "lm_head.weight"}       # the head is shared
  save_file(weights, tmp_path / "m.safetensors")
  tokens = np.arange(20)[None] * 5 % 97
  ours = gpt.load_hf(tmp_path / "m.safetensors")(picograd.tensor(tokens))
  np.testing.assert_allclose(ours.detach().numpy(), theirs(torch.tensor(tokens)).logits.detach().numpy(), atol=1e-5)

def test_wrong_files_get_a_sentence(tmp_path):
  (tmp_path / "bad.pt").write_text("no checkpoint")
  for program, flags in (("makemore.py", ["--data", "absent.txt"]), ("linear.py", ["--resume", tmp_path / "bad.pt"])):
    line = [sys.executable, str(EXAMPLES / program), "--steps", "1", "--quiet", *map(str, flags)]
    done = subprocess.run(line, capture_output=True, text=True)
    assert done.returncode and "Traceback" not in done.stderr and str(flags[1]) in done.stderr, done.stderr
