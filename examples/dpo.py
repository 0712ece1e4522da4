# dpo.py: direct preference optimisation (Rafailov et al. 2023) of the llama that ships with picograd: it learns to
# SHOUT. In: the text that it was trained on. A pair is a passage in capitals, preferred, and as it is written. Out: how
# often the trained model prefers the capitals by more than the model that it began as.
# Dimension key: P pairs, B sequences (2P: preferred first), T characters, C channels, H heads, D of a head
import picograd as torch
import picograd.nn as nn
import picograd.nn.functional as F
import json
from pathlib import Path
import numpy as np
import common, gpt

MODEL = Path(__file__).resolve().parents[1] / "picograd" / "models" / "shakespeare"

class Attention(nn.Module):
  def __init__(self, c):
    super().__init__()
    C, self.heads = c["hidden_size"], c["num_attention_heads"]
    self.q_proj, self.k_proj, self.v_proj, self.o_proj = (nn.Linear(C, C, bias=False) for _ in range(4))
  def forward(self, x_BTC, cos_TD, sin_TD):
    B, T, C = x_BTC.shape
    def heads(layer): return layer(x_BTC).view(B, T, self.heads, C // self.heads).transpose(1, 2)
    def turned(x_BHTD):                                        # rotary positions; halves of D are the pairs
      a, b = x_BHTD.chunk(2, dim=-1)
      return x_BHTD * cos_TD + torch.cat([-b, a], dim=-1) * sin_TD
    q_BHTD, k_BHTD, v_BHTD = turned(heads(self.q_proj)), turned(heads(self.k_proj)), heads(self.v_proj)
    y_BHTD = F.scaled_dot_product_attention(q_BHTD, k_BHTD, v_BHTD, is_causal=True)
    return self.o_proj(y_BHTD.transpose(1, 2).reshape(B, T, C))

class MLP(nn.Module):
  def __init__(self, c):
    super().__init__()
    C, hidden = c["hidden_size"], c["intermediate_size"]
    self.gate_proj, self.up_proj = nn.Linear(C, hidden, bias=False), nn.Linear(C, hidden, bias=False)
    self.down_proj = nn.Linear(hidden, C, bias=False)
  def forward(self, x_BTC): return self.down_proj(F.silu(self.gate_proj(x_BTC)) * self.up_proj(x_BTC))

class Block(nn.Module):
  def __init__(self, c):
    super().__init__()
    C, eps = c["hidden_size"], c["rms_norm_eps"]
    self.input_layernorm, self.post_attention_layernorm = nn.RMSNorm(C, eps=eps), nn.RMSNorm(C, eps=eps)
    self.self_attn, self.mlp = Attention(c), MLP(c)
  def forward(self, x_BTC, cos_TD, sin_TD):
    x_BTC = x_BTC + self.self_attn(self.input_layernorm(x_BTC), cos_TD, sin_TD)
    return x_BTC + self.mlp(self.post_attention_layernorm(x_BTC))

class Llama(nn.Module):
  """Hugging Face's names, so that its files load as they are."""
  def __init__(self, c):
    super().__init__()
    self.config = c
    self.embed_tokens = nn.Embedding(c["vocab_size"], c["hidden_size"])
    self.layers = nn.ModuleList([Block(c) for _ in range(c["num_hidden_layers"])])
    self.norm = nn.RMSNorm(c["hidden_size"], eps=c["rms_norm_eps"])
  def forward(self, idx_BT):
    T, D = idx_BT.shape[1], self.config["head_dim"]
    rates = self.config["rope_theta"] ** (-np.arange(0, D, 2) / D)
    angles = np.outer(np.arange(T), np.concatenate([rates, rates])).astype(np.float32)
    cos_TD, sin_TD = (torch.tensor(f(angles)).to(idx_BT.device) for f in (np.cos, np.sin))
    x_BTC = self.embed_tokens(idx_BT)
    for layer in self.layers: x_BTC = layer(x_BTC, cos_TD, sin_TD)
    return self.norm(x_BTC) @ self.embed_tokens.weight.t()     # (B, T, V)

def load():
  model = Llama(json.loads((MODEL / "config.json").read_text()))
  arrays = gpt.read_safetensors(MODEL / "model.safetensors")
  model.load_state_dict({name.removeprefix("model."): torch.tensor(a.astype(np.float32)) for name, a in arrays.items()
                         if name != "lm_head.weight"})
  return model

def log_probability(model, idx_BT):
  """Of all characters but the first. -> (B,)"""
  logp_BTV = F.log_softmax(model(idx_BT[:, :-1]), dim=-1)
  return logp_BTV.gather(2, idx_BT[:, 1:].unsqueeze(2)).squeeze(2).sum(dim=1)

def margins(model, reference, idx_BT, beta):
  """How much more than the reference the model prefers the first of each pair. -> (P,)"""
  P = idx_BT.shape[0] // 2
  with torch.no_grad(): before_B = log_probability(reference, idx_BT)
  gain_B = log_probability(model, idx_BT) - before_B
  return beta * (gain_B[:P] - gain_B[P:])

def main():
  p = common.parser("Direct preference optimisation of a small llama.", steps=100)
  p.add_argument("--data", type=common.existing, required=True)
  p.add_argument("--pairs", type=int, default=8)
  p.add_argument("--block", type=int, default=48)
  p.add_argument("--lr", type=float, default=1e-4)
  p.add_argument("--beta", type=float, default=0.1)
  args = p.parse_args()
  args.init = "framework"                                      # the weights are the llama's
  token_of = json.loads((MODEL / "vocab.json").read_text())
  text = args.data.read_text()
  plain, loud = (np.array([token_of[c] for c in t]) for t in (text, text.upper()))
  border = int(0.9 * len(text))
  def pairs(random, low, high):
    at_PT = random.integers(low, high - args.block, args.pairs)[:, None] + np.arange(args.block)
    return [np.concatenate([loud[at_PT], plain[at_PT]])]
  common.begin(args)
  reference, model = common.place(load(), args), common.place(load(), args)
  run = common.Run(args, model, torch.optim.AdamW(model.parameters(), lr=args.lr, weight_decay=0.0))
  def loss_of(idx_BT): return -F.logsigmoid(margins(model, reference, idx_BT, args.beta)).mean()
  run.train(lambda random: pairs(random, 0, border), loss_of, clip=1.0)
  idx_BT = common.to_device(pairs(np.random.default_rng(0), border, len(text))[0], args)
  with torch.no_grad(): margin_P = np.asarray(margins(model, reference, idx_BT, args.beta).cpu())
  print(f"preferred: {(margin_P > 0).mean():.2f} of the pairs kept aside, mean margin {margin_P.mean():.3f}")

if __name__ == "__main__": main()
