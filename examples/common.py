# common.py: what the programs in examples/ share. In: the command line and a program's model, optimiser and step. Out:
# a training run with a progress bar, that can be killed at any step and resumed to the same bits (--checkpoint,
# --resume), and its loss curve (--plot). Runs with torch in picograd's place: see with_torch.py.
import picograd as torch
import argparse, json, math, os
from pathlib import Path
import numpy as np

def parser(description, steps, seed=1337):
  p = argparse.ArgumentParser(description=description)
  p.add_argument("--device", default=None, help="cpu or cuda; default: the framework's own")
  p.add_argument("--seed", type=int, default=seed)
  p.add_argument("--steps", type=int, default=steps)
  p.add_argument("--checkpoint", type=Path, metavar="PATH", help="written every --checkpoint-every steps, and last")
  p.add_argument("--checkpoint-every", type=int, default=100, metavar="N")
  p.add_argument("--resume", type=Path, metavar="PATH", help="a checkpoint to go on from, if it exists")
  p.add_argument("--plot", type=Path, metavar="PNG", help="draw the loss curve (needs matplotlib)")
  p.add_argument("--losses", type=Path, metavar="JSON", help="write the losses of this run, step by step")
  p.add_argument("--init", choices=["framework", "numpy"], default="framework",
                 help="numpy: first weights that are the same in every framework")
  p.add_argument("--compile", action="store_true", help="torch.compile of the whole step")
  p.add_argument("--quiet", action="store_true", help="no progress bar")
  return p

def existing(name):
  """The type of an argument that is a file to read."""
  if not Path(name).is_file(): raise argparse.ArgumentTypeError(f"there is no file {name}")
  return Path(name)

def same_weights(model, seed):
  """Weights that depend on nothing but the seed, their names' order and shapes: uniform, within 1/sqrt(fan in)."""
  random = np.random.default_rng(seed)
  with torch.no_grad():
    for parameter in model.parameters():
      if parameter.ndim < 2: continue                  # biases and norms keep their constants
      bound = 1 / math.sqrt(math.prod(parameter.shape[1:]))
      values = random.uniform(-bound, bound, tuple(parameter.shape)).astype(np.float32)
      parameter.copy_(torch.tensor(values))
    for name, parameter in model.named_parameters():
      if parameter.ndim < 2 and "bias" in name: parameter.zero_()

def begin(args):
  """Call before the model is made: seeds the framework."""
  torch.manual_seed(args.seed)

def place(model, args):
  """The model with its first weights, on its device."""
  if args.init == "numpy": same_weights(model, args.seed)
  return model if args.device is None else model.to(args.device)

def to_device(array, args):
  tensor = torch.tensor(array)
  return tensor if args.device is None else tensor.to(args.device)

class Run:
  """All that changes from step to step."""
  def __init__(self, args, model, optimizer, scheduler=None):
    self.args, self.model, self.optimizer, self.scheduler = args, model, optimizer, scheduler
    self.random = np.random.default_rng(args.seed)     # the order of the data
    self.step, self.losses = 0, []
    if args.resume is not None and args.resume.exists(): self.restore(args.resume)

  def save(self, path):
    """Replaces the file at once: a killed run leaves the last whole checkpoint."""
    state = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(),
             "scheduler": None if self.scheduler is None else self.scheduler.state_dict(),
             "framework_random": torch.get_rng_state(), "random": json.dumps(self.random.bit_generator.state),
             "step": self.step, "losses": self.losses}
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".part")
    torch.save(state, str(temporary))
    os.replace(temporary, path)

  def restore(self, path):
    try: state = torch.load(str(path))
    except Exception as e: raise SystemExit(f"{path} is no checkpoint: {e}") from None
    self.model.load_state_dict(state["model"])
    self.optimizer.load_state_dict(state["optimizer"])
    if self.scheduler is not None: self.scheduler.load_state_dict(state["scheduler"])
    torch.set_rng_state(state["framework_random"])
    self.random.bit_generator.state = json.loads(state["random"])
    self.step, self.losses = state["step"], list(state["losses"])

  def train(self, draw, loss_of, clip=None, accumulate=1, between=None):
    """draw(random) -> the arrays of one batch; loss_of(tensors) -> its loss; between(step): called before each step."""
    args, optimizer, parameters = self.args, self.optimizer, list(self.model.parameters())
    def update(batches):
      optimizer.zero_grad()
      total = 0.0
      for batch in batches:
        loss = loss_of(*batch) / accumulate
        loss.backward()
        total = total + loss.detach()
      if clip is not None: torch.nn.utils.clip_grad_norm_(parameters, clip)
      optimizer.step()
      return total
    if args.compile: update = torch.compile(update)
    bar = progress_bar(self.step, args)
    while self.step < args.steps:
      if between is not None: between(self.step)
      batches = [[to_device(array, args) for array in draw(self.random)] for _ in range(accumulate)]
      total = update(batches)
      if self.scheduler is not None: self.scheduler.step()
      self.step += 1
      self.losses.append(total.item())
      bar.set_postfix_str(f"loss {self.losses[-1]:.4f}", refresh=False)
      bar.update(1)
      ends = self.step == args.steps
      if args.checkpoint is not None and (ends or self.step % args.checkpoint_every == 0): self.save(args.checkpoint)
    bar.close()
    finish(self.losses, args)

def finish(losses, args):
  """Writes what the command line asked for."""
  if args.losses is not None: args.losses.write_text(json.dumps(losses))
  if args.plot is not None: plot(losses, args.plot)

class NoBar:
  def set_postfix_str(self, note, refresh): pass
  def update(self, n): pass
  def close(self): pass

def progress_bar(step, args):
  if args.quiet: return NoBar()
  from tqdm import tqdm
  return tqdm(initial=step, total=args.steps, unit="step")

def plot(losses, path):
  import matplotlib
  matplotlib.use("Agg")
  from matplotlib import pyplot
  figure, axes = pyplot.subplots()
  axes.plot(range(1, len(losses) + 1), losses)
  axes.set_xlabel("step")
  axes.set_ylabel("loss")
  figure.savefig(path)
