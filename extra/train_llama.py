#!/usr/bin/env python3
# train_llama.py: trains the small character llama that ships with picograd. In: a text file. Out, in one directory:
# what `llama.py --model DIRECTORY` reads (config.json, vocab.json, model.safetensors in float16), the loss curve
# (loss.csv) and how it came about (training.json). A run that stopped continues with --resume and ends in the same bits
# as one that did not. Shapes: B sequences, T characters of each, V characters in the vocabulary.
from __future__ import annotations
import argparse, csv, json, math, os, sys, time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Sequence
import numpy as np
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import picograd
import picograd.nn.functional as F
from llama import BUNDLED_MODEL, Config, Llama, hf_names, load_model, read_config
from picograd import Tensor, nn, optim
from picograd.io import save_safetensors

HELD_OUT = 0.1           # the last tenth of the text is for validation
HEAD_DIM = 32
DEVIATION = 0.02         # of the first weights; those that add to the residual stream start smaller, as in GPT-2
WEIGHT_DECAY = 0.1       # of matrices; norms have none
BETAS = (0.9, 0.99)
MAX_NORM = 1.0           # of the gradient
LAST_LR = 0.02           # the last learning rate as a share of the highest
EVAL_BATCH = 64          # sequences
EVAL_WINDOWS = 192       # sequences that estimate the validation loss while training

# ---- the text --------------------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Corpus:
  characters: list[str]                  # token -> character
  train: np.ndarray                      # tokens
  validation: np.ndarray

def read_corpus(path: Path) -> Corpus:
  text = path.read_text(encoding="utf-8")
  characters = sorted(set(text))
  token_of = {character: token for token, character in enumerate(characters)}
  tokens = np.array([token_of[character] for character in text])
  border = int(len(tokens) * (1 - HELD_OUT))
  return Corpus(characters, tokens[:border], tokens[border:])

def windows(tokens: np.ndarray, starts: np.ndarray, block: int) -> tuple[Tensor, Tensor]:
  """The sequences that begin at starts, and for each character the one that follows it. -> two of (B, T)"""
  rows = tokens[starts[:, None] + np.arange(block + 1)]
  return picograd.tensor(rows[:, :-1]), picograd.tensor(rows[:, 1:])

# ---- loss ------------------------------------------------------------------------------------------------------------

def loss_of(model: Llama, inputs: Tensor, targets: Tensor) -> Tensor:
  """Mean cross-entropy in nats per character. inputs, targets: (B, T)"""
  logits = model(inputs)                                              # (B, T, V)
  return F.cross_entropy(logits.view(-1, logits.shape[-1]), targets.reshape(-1))

def evaluate(model: Llama, tokens: np.ndarray, starts: np.ndarray, block: int) -> float:
  total = 0.0
  with picograd.no_grad():
    for first in range(0, len(starts), EVAL_BATCH):
      part = starts[first:first + EVAL_BATCH]
      total += loss_of(model, *windows(tokens, part, block)).item() * len(part)
  return total / len(starts)

def all_windows(tokens: np.ndarray, block: int) -> np.ndarray:
  """Starts of the sequences that lie side by side and cover the tokens."""
  starts = np.arange(0, len(tokens) - block, block)
  if len(starts) == 0: raise ValueError(f"{len(tokens)} characters for validation are too few for --block {block}")
  return starts

# ---- the run ---------------------------------------------------------------------------------------------------------

@dataclass
class Run:
  """All that changes from step to step: what a checkpoint holds."""
  model: Llama
  optimizer: optim.AdamW
  random: np.random.Generator            # chooses the sequences
  step: int = 0
  curve: list[tuple[int, float, float]] = field(default_factory=list)   # step, training loss since the last, validation

  def save(self, path: Path) -> None:
    """Never leaves half a checkpoint."""
    state = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(),
             "random": json.dumps(self.random.bit_generator.state), "step": self.step, "curve": self.curve}
    path.parent.mkdir(exist_ok=True)
    temporary = path.with_suffix(".part")
    picograd.save(state, str(temporary))
    os.replace(temporary, path)

  def restore(self, path: Path) -> None:
    state = picograd.load(str(path))
    self.model.load_state_dict(state["model"])
    self.optimizer.load_state_dict(state["optimizer"])
    self.random.bit_generator.state = json.loads(state["random"])
    self.step, self.curve = state["step"], [tuple(row) for row in state["curve"]]

def checkpoint_path(directory: Path) -> Path: return directory / "checkpoints" / "last.pt"       # git ignores it

def begin(args: argparse.Namespace, vocab_size: int) -> Run:
  picograd.manual_seed(args.seed)
  heads = max(1, args.dim // HEAD_DIM)
  hidden = -(-args.dim * 8 // 3 // 8) * 8                             # two thirds of 4 * dim, in whole vectors
  config = Config(args.dim, hidden, args.layers, heads, heads, args.dim // heads, vocab_size, args.block, tied=True)
  model = Llama(config, args.block)
  for name, parameter in model.named_parameters():
    adds = name.endswith(("wo.weight", "w2.weight"))
    deviation = DEVIATION / math.sqrt(2 * args.layers) if adds else DEVIATION
    if parameter.ndim == 2: nn.init.normal_(parameter, std=deviation)
  parameters = list(model.parameters())
  groups: list[dict[str, Any]] = [
    {"params": [p for p in parameters if p.ndim == 2], "weight_decay": WEIGHT_DECAY},
    {"params": [p for p in parameters if p.ndim == 1], "weight_decay": 0.0}]
  return Run(model, optim.AdamW(groups, lr=args.lr, betas=BETAS), np.random.default_rng(args.seed))

def learning_rate(step: int, args: argparse.Namespace) -> float:
  """Rises in a line, then falls as a cosine."""
  if step < args.warmup: return args.lr * (step + 1) / args.warmup
  done = (step - args.warmup) / max(1, args.steps - args.warmup)
  return args.lr * (LAST_LR + (1 - LAST_LR) * 0.5 * (1 + math.cos(math.pi * done)))

def train_step(run: Run, corpus: Corpus, args: argparse.Namespace) -> float:
  starts = run.random.integers(0, len(corpus.train) - args.block, args.batch)
  for group in run.optimizer.param_groups: group["lr"] = learning_rate(run.step, args)
  run.optimizer.zero_grad()
  loss = loss_of(run.model, *windows(corpus.train, starts, args.block))
  loss.backward()
  nn.utils.clip_grad_norm_(run.model.parameters(), MAX_NORM)
  run.optimizer.step()
  run.step += 1
  return loss.item()

def train(run: Run, corpus: Corpus, args: argparse.Namespace) -> None:
  """Steps on to the end or to --pause, with a row of the curve and a checkpoint every --eval-every steps."""
  every_window = all_windows(corpus.validation, args.block)
  few = every_window[np.linspace(0, len(every_window) - 1, min(len(every_window), EVAL_WINDOWS)).astype(int)]
  last = args.steps if args.pause is None else min(args.pause, args.steps)
  bar = progress_bar(run.step, args.steps)
  losses: list[float] = []
  while run.step < last:
    losses.append(train_step(run, corpus, args))
    bar.set_postfix_str(f"loss {losses[-1]:.3f}", refresh=False)
    bar.update(1)
    if run.step % args.eval_every == 0 or run.step == last:
      run.curve.append((run.step, float(np.mean(losses)), evaluate(run.model, corpus.validation, few, args.block)))
      bar.write("step {}: training loss {:.4f}, validation loss {:.4f}".format(*run.curve[-1]))
      losses = []
      run.save(checkpoint_path(args.out))
  bar.close()

class PlainBar:
  """Where tqdm is not installed: the step and the loss on one line that is written over."""
  def __init__(self, step: int, steps: int): self.step, self.steps, self.note, self.start = step, steps, "", time.time()
  def set_postfix_str(self, note: str, refresh: bool) -> None: self.note = note
  def write(self, line: str) -> None: print("\r" + line, flush=True)
  def close(self) -> None: print()
  def update(self, n: int) -> None:
    self.step += n
    print(f"\r{self.step}/{self.steps} {self.note} {time.time() - self.start:.0f} s", end="", flush=True)

def progress_bar(step: int, steps: int) -> Any:
  try: from tqdm import tqdm
  except ImportError: return PlainBar(step, steps)
  return tqdm(initial=step, total=steps, unit="step")

# ---- what is written -------------------------------------------------------------------------------------------------

def hf_config(c: Config) -> dict[str, Any]:
  return {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "dtype": "float16", "hidden_act": "silu",
          "hidden_size": c.dim, "intermediate_size": c.hidden_dim, "num_hidden_layers": c.n_layers,
          "num_attention_heads": c.n_heads, "num_key_value_heads": c.n_kv_heads, "head_dim": c.head_dim,
          "vocab_size": c.vocab_size, "max_position_embeddings": c.context, "rms_norm_eps": c.norm_eps,
          "rope_theta": c.rope_theta, "tie_word_embeddings": c.tied, "bos_token_id": None, "eos_token_id": None}

def hf_tensors(model: Llama) -> dict[str, Tensor]:
  """The model's weights under HF's names, in float16; a weight that holds several of HF's is cut into their rows."""
  c, state = model.config, model.state_dict()
  q_rows, kv_rows = c.n_heads * c.head_dim, c.n_kv_heads * c.head_dim
  tensors = {}
  for ours, theirs in hf_names(c).items():
    weight = state[ours].detach().half()
    parts = [weight] if len(theirs) == 1 else weight.split([q_rows, kv_rows, kv_rows], dim=0)
    for name, part in zip(theirs, parts): tensors[name] = part.contiguous()
  return tensors

def write_model(directory: Path, model: Llama, characters: Sequence[str]) -> None:
  write_json(directory / "config.json", hf_config(model.config))
  write_json(directory / "vocab.json", {character: token for token, character in enumerate(characters)})
  save_safetensors(hf_tensors(model), str(directory / "model.safetensors"))

def write_json(path: Path, content: dict[str, Any]) -> None:
  path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

def write_report(args: argparse.Namespace, run: Run, validation_loss: float) -> None:
  """The loss curve, and the flags and result of the run; where the files lay is nobody's business."""
  with (args.out / "loss.csv").open("w", newline="") as f:
    rows = csv.writer(f, lineterminator="\n")
    rows.writerow(["step", "training_loss", "validation_loss"])
    rows.writerows([step, f"{training:.4f}", f"{validation:.4f}"] for step, training, validation in run.curve)
  flags = {name: getattr(args, name) for name in ("seed", "dim", "layers", "block", "batch", "steps", "warmup", "lr")}
  command = " ".join(f"--{name} {value}" for name, value in flags.items())
  parameters = sum(p.numel() for p in run.model.parameters())
  write_json(args.out / "training.json", {"command": f"python extra/train_llama.py --data {args.data.name} {command}",
                                          "parameters": parameters, "validation_loss": round(validation_loss, 4)})

# ---- the command line ------------------------------------------------------------------------------------------------

def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
  parser = argparse.ArgumentParser(prog="train_llama.py", description="Trains a character-level llama.")
  flag = parser.add_argument
  flag("--data", type=Path, required=True, metavar="PATH", help="the text to learn from")
  flag("--out", type=Path, default=BUNDLED_MODEL, metavar="DIRECTORY", help="default: where the bundled model lies")
  flag("--resume", action="store_true", help="continue from the checkpoint in --out; the other flags must be the same")
  flag("--pause", type=int, metavar="STEP", help="stop after this step, to be resumed")
  flag("--seed", type=int, default=1337)
  flag("--dim", type=int, default=128)
  flag("--layers", type=int, default=4)
  flag("--block", type=int, default=256, help="characters in a sequence, and the model's context; default: 256")
  flag("--batch", type=int, default=4, help="sequences in a step; default: 4")
  flag("--steps", type=int, default=2000)
  flag("--warmup", type=int, default=100, help="steps over which the learning rate rises; default: 100")
  flag("--lr", type=float, default=3e-3, help="the highest learning rate; default: 0.003")
  flag("--eval-every", type=int, default=100, help="steps between checkpoints; default: 100")
  return parser.parse_args(arguments)

def main(arguments: Sequence[str] | None = None) -> None:
  args = parse_arguments(arguments)
  corpus = read_corpus(args.data)
  args.out.mkdir(parents=True, exist_ok=True)
  run = begin(args, len(corpus.characters))
  if args.resume: run.restore(checkpoint_path(args.out))
  try: train(run, corpus, args)
  except KeyboardInterrupt: sys.exit("stopped; continue with --resume")
  if run.step < args.steps: return
  write_model(args.out, run.model, corpus.characters)
  written = load_model(args.out, read_config(args.out), args.block)              # what is judged is what is shipped
  validation_loss = evaluate(written, corpus.validation, all_windows(corpus.validation, args.block), args.block)
  write_report(args, run, validation_loss)
  print(f"validation loss {validation_loss:.4f} nats per character")

if __name__ == "__main__": main()
