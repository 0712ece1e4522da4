# nanogpt.py: a GPT of characters. In: a text. Out: its validation loss and a passage like it. After Karpathy's nanoGPT:
# whose recipes are to reach 1.88 (cpu) and 1.47 (gpu) on tinyshakespeare: docs/training.md has what they reach. The
# cpu recipe is 500 steps longer than nanoGPT's, whose own program ends at 1.92.
# Dimension key: see gpt.py
import picograd as torch
import contextlib, time
import numpy as np
import common, gpt

RECIPES = {
  "cpu": dict(layers=4, heads=4, embd=128, block=64, batch=12, steps=2500, dropout=0.0),
  "gpu": dict(layers=6, heads=6, embd=384, block=256, batch=64, steps=5000, dropout=0.2),
}

def validation_loss(model, tokens, batches, args, precision):
  """Mean over batches that are the same each time."""
  random, total = np.random.default_rng(0), 0.0
  model.eval()
  with torch.no_grad(), precision():
    for _ in range(batches):
      x, y = gpt.batch(tokens, random, args.batch, args.block)
      total += gpt.cross_entropy(model(common.to_device(x, args)), common.to_device(y, args)).item()
  model.train()
  return total / batches

def arguments():
  p = common.parser("A GPT of characters.", steps=None)
  p.add_argument("--data", type=common.existing, required=True)
  p.add_argument("--recipe", choices=RECIPES, default="cpu")
  for name in ("layers", "heads", "embd", "block", "batch"): p.add_argument(f"--{name}", type=int)
  p.add_argument("--dropout", type=float)
  p.add_argument("--lr", type=float, default=1e-3)
  p.add_argument("--warmup", type=int, default=100)
  p.add_argument("--eval-every", type=int, default=250, metavar="N")
  p.add_argument("--eval-batches", type=int, default=20, metavar="N")
  p.add_argument("--bf16", action="store_true", help="autocast to bfloat16")
  p.add_argument("--tf32", action="store_true", help="matrix products of float32 in tf32")
  p.add_argument("--sample", type=int, default=300, metavar="N", help="characters to write at the end")
  args = p.parse_args()
  for name, value in RECIPES[args.recipe].items():
    if getattr(args, name) is None: setattr(args, name, value)
  return args

def main():
  args = arguments()
  text = args.data.read_text()
  characters = sorted(set(text))
  token_of = {c: i for i, c in enumerate(characters)}
  tokens = np.array([token_of[c] for c in text])
  border = int(0.9 * len(tokens))
  common.begin(args)
  if args.tf32: torch.set_float32_matmul_precision("high")
  kind = "cpu" if args.device is None else args.device
  precision = (lambda: torch.autocast(kind, dtype=torch.bfloat16)) if args.bf16 else contextlib.nullcontext
  config = gpt.Config(len(characters), args.block, args.layers, args.heads, args.embd, args.dropout, bias=False)
  model = common.place(gpt.GPT(config), args)
  optimizer = gpt.adamw(model, args.lr, 0.1, (0.9, 0.99))
  share = gpt.warmup_cosine(args.steps, args.warmup, 0.1)
  run = common.Run(args, model, optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, share))
  start = time.time()
  def report(step):
    if not step or not args.eval_batches or step % args.eval_every: return
    loss = validation_loss(model, tokens[border:], args.eval_batches, args, precision)
    print(f"\nstep {step}: validation loss {loss:.4f}, {time.time() - start:.0f} s", flush=True)
  def loss_of(x_BT, y_BT):
    with precision(): return gpt.cross_entropy(model(x_BT), y_BT)
  def draw(random): return gpt.batch(tokens[:border], random, args.batch, args.block)
  run.train(draw, loss_of, clip=1.0, between=report)
  seconds = time.time() - start
  if args.eval_batches:
    print(f"validation loss {validation_loss(model, tokens[border:], args.eval_batches, args, precision):.4f}, "
          f"{seconds:.0f} s for {args.steps} steps")
  model.eval()
  first = [token_of.get("\n", 0)]
  chosen = gpt.generate(model, first, args.sample, 200, 0.8, args.seed, lambda a: common.to_device(a, args))
  print("".join(characters[token] for token in chosen))

if __name__ == "__main__": main()
