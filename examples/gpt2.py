# gpt2.py: GPT-2. `--weights model.safetensors` loads Hugging Face's; without, a new one of --layers, --embd, .. begins.
# --steps trains it on a file's tokens (--data: uint16 on end, or a .txt, whose bytes are the tokens); --generate goes
# on after --prompt. Dimension key: see gpt.py
import picograd as torch
import contextlib
import numpy as np
import common, gpt

def arguments():
  p = common.parser("GPT-2: load, train, generate.", steps=0)
  p.add_argument("--weights", type=common.existing, metavar="SAFETENSORS")
  p.add_argument("--data", type=common.existing)
  p.add_argument("--vocab", type=int, default=50257)
  for name, value in (("layers", 12), ("heads", 12), ("embd", 768), ("block", 1024), ("batch", 4)):
    p.add_argument(f"--{name}", type=int, default=value)
  p.add_argument("--accumulate", type=int, default=1, metavar="N", help="batches whose gradients make one step")
  p.add_argument("--lr", type=float, default=6e-4)
  p.add_argument("--warmup", type=int, default=100)
  p.add_argument("--bf16", action="store_true", help="autocast to bfloat16")
  p.add_argument("--tf32", action="store_true", help="matrix products of float32 in tf32")
  p.add_argument("--prompt", type=lambda s: [int(t) for t in s.split(",")], default=[50256], help="tokens: 15496,11")
  p.add_argument("--generate", type=int, default=0, metavar="N")
  p.add_argument("--top-k", type=int, default=50)
  p.add_argument("--temperature", type=float, default=1.0)
  return p.parse_args()

def train(model, args):
  tokens = np.fromfile(args.data, np.uint8 if args.data.suffix == ".txt" else np.uint16)
  if tokens.max() >= model.config.vocab:
    raise SystemExit(f"{args.data} has a token {tokens.max()}, the model knows {model.config.vocab}: see --vocab")
  kind = "cpu" if args.device is None else args.device
  precision = (lambda: torch.autocast(kind, dtype=torch.bfloat16)) if args.bf16 else contextlib.nullcontext
  optimizer = gpt.adamw(model, args.lr, 0.1, (0.9, 0.95))
  share = gpt.warmup_cosine(args.steps, args.warmup, 0.1)
  run = common.Run(args, model, optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, share))
  def loss_of(x_BT, y_BT):
    with precision(): return gpt.cross_entropy(model(x_BT), y_BT)
  block = min(args.block, model.config.context)
  run.train(lambda random: gpt.batch(tokens, random, args.batch, block), loss_of, clip=1.0, accumulate=args.accumulate)

def main():
  args = arguments()
  common.begin(args)
  if args.tf32: torch.set_float32_matmul_precision("high")
  if args.weights is not None: model = gpt.load_hf(args.weights)
  else: model = gpt.GPT(gpt.Config(args.vocab, args.block, args.layers, args.heads, args.embd))
  model = common.place(model, args)
  if args.steps: train(model, args)
  if args.generate:
    put = lambda array: common.to_device(array, args)
    prompt = [min(token, model.config.vocab - 1) for token in args.prompt]
    print(*gpt.generate(model, prompt, args.generate, args.top_k, args.temperature, args.seed, put))

if __name__ == "__main__": main()
