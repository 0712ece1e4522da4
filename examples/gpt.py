# gpt.py: GPT-2's network, for gpt2.py and nanogpt.py. In: tokens. Out: logits of the token that follows each.
# Dimension key: B sequences, T tokens of each, C channels, H heads, D channels of a head, V tokens of the vocabulary
import picograd as torch
import picograd.nn as nn
import picograd.nn.functional as F
import json, math
from dataclasses import dataclass
import numpy as np

@dataclass(frozen=True)
class Config:
  vocab: int = 50257
  context: int = 1024
  layers: int = 12
  heads: int = 12
  embd: int = 768
  dropout: float = 0.0
  bias: bool = True

class Attention(nn.Module):
  def __init__(self, c):
    super().__init__()
    self.heads, self.dropout = c.heads, c.dropout
    self.c_attn, self.c_proj = nn.Linear(c.embd, 3 * c.embd, bias=c.bias), nn.Linear(c.embd, c.embd, bias=c.bias)
  def forward(self, x_BTC):
    B, T, C = x_BTC.shape
    heads = (t.view(B, T, self.heads, C // self.heads).transpose(1, 2) for t in self.c_attn(x_BTC).split(C, dim=2))
    q_BHTD, k_BHTD, v_BHTD = heads
    p = self.dropout if self.training else 0.0
    y_BHTD = F.scaled_dot_product_attention(q_BHTD, k_BHTD, v_BHTD, dropout_p=p, is_causal=True)
    y_BTC = y_BHTD.transpose(1, 2).reshape(B, T, C)
    return F.dropout(self.c_proj(y_BTC), self.dropout, self.training)

class MLP(nn.Module):
  def __init__(self, c):
    super().__init__()
    self.dropout = c.dropout
    self.c_fc, self.c_proj = nn.Linear(c.embd, 4 * c.embd, bias=c.bias), nn.Linear(4 * c.embd, c.embd, bias=c.bias)
  def forward(self, x_BTC):
    y_BTC = self.c_proj(F.gelu(self.c_fc(x_BTC), approximate="tanh"))
    return F.dropout(y_BTC, self.dropout, self.training)

class Block(nn.Module):
  def __init__(self, c):
    super().__init__()
    self.ln_1, self.attn = nn.LayerNorm(c.embd, bias=c.bias), Attention(c)
    self.ln_2, self.mlp = nn.LayerNorm(c.embd, bias=c.bias), MLP(c)
  def forward(self, x_BTC):
    x_BTC = x_BTC + self.attn(self.ln_1(x_BTC))
    return x_BTC + self.mlp(self.ln_2(x_BTC))

class GPT(nn.Module):
  def __init__(self, c):
    super().__init__()
    self.config = c
    self.wte, self.wpe = nn.Embedding(c.vocab, c.embd), nn.Embedding(c.context, c.embd)
    self.h = nn.ModuleList([Block(c) for _ in range(c.layers)])
    self.ln_f = nn.LayerNorm(c.embd, bias=c.bias)
    self.lm_head = nn.Linear(c.embd, c.vocab, bias=False)
    self.lm_head.weight = self.wte.weight
    for name, parameter in self.named_parameters():
      adds = name.endswith("c_proj.weight")                    # to the residual stream
      if parameter.ndim == 2: nn.init.normal_(parameter, std=0.02 / math.sqrt(2 * c.layers) if adds else 0.02)
      elif name.endswith("bias"): nn.init.zeros_(parameter)

  def forward(self, idx_BT):
    x_BTC = self.wte(idx_BT) + self.wpe(torch.arange(idx_BT.shape[1], device=idx_BT.device))
    x_BTC = F.dropout(x_BTC, self.config.dropout, self.training)
    for block in self.h: x_BTC = block(x_BTC)
    return self.lm_head(self.ln_f(x_BTC))                      # (B, T, V)

def cross_entropy(logits_BTV, targets_BT):
  return F.cross_entropy(logits_BTV.float().view(-1, logits_BTV.shape[-1]), targets_BT.reshape(-1))

def adamw(model, lr, decay, betas):
  """Matrices decay, norms and biases do not."""
  parameters = list(model.parameters())
  groups = [{"params": [p for p in parameters if p.ndim >= 2], "weight_decay": decay},
            {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0}]
  return torch.optim.AdamW(groups, lr=lr, betas=betas)

def warmup_cosine(steps, warmup, last):
  """The share of the highest learning rate at a step: a line up, then a cosine down to `last`."""
  def share(step):
    if step < warmup: return (step + 1) / (warmup + 1)
    done = min(1.0, (step - warmup) / max(1, steps - warmup))
    return last + (1 - last) * 0.5 * (1 + math.cos(math.pi * done))
  return share

def batch(tokens, random, B, T):
  """-> inputs and targets, (B, T) each"""
  starts = random.integers(0, len(tokens) - T, B)
  rows = np.asarray(tokens)[starts[:, None] + np.arange(T + 1)]
  return rows[:, :-1].astype(np.int64), rows[:, 1:].astype(np.int64)

def generate(model, tokens, count, top_k, temperature, seed, put):
  """tokens: list of int. Yields `count` more, each among the top_k likeliest. put: array -> tensor on the device."""
  random, T = np.random.default_rng(seed), model.config.context
  for _ in range(count):
    last = tokens[-T:]
    idx_BT = np.zeros((1, T), np.int64)                        # one shape, so that one program serves all lengths
    idx_BT[0, :len(last)] = last
    with torch.no_grad(): logits_V = model(put(idx_BT))[0, len(last) - 1].float()
    top_K, which_K = torch.topk(logits_V, min(top_k, logits_V.shape[0]))
    p_K = np.asarray(torch.softmax(top_K / temperature, dim=-1).cpu()).astype(np.float64)
    tokens = [*tokens, int(np.asarray(which_K.cpu())[random.choice(len(p_K), p=p_K / p_K.sum())])]
    yield tokens[-1]

def read_safetensors(path):
  """name -> array. float32 and float16 only: what GPT-2's files hold."""
  with open(path, "rb") as f:
    header = json.loads(f.read(int.from_bytes(f.read(8), "little")))
    data = np.frombuffer(f.read(), np.uint8)
  header.pop("__metadata__", None)
  kinds = {"F32": np.float32, "F16": np.float16, "U8": np.uint8, "BOOL": np.bool_}
  return {name: data[slice(*row["data_offsets"])].view(kinds[row["dtype"]]).reshape(row["shape"])
          for name, row in header.items()}

def load_hf(path, heads=None):
  """A GPT from Hugging Face's file of GPT-2's weights, which keeps the matrices of linear layers transposed."""
  arrays = {name.removeprefix("transformer."): a for name, a in read_safetensors(path).items()}
  (vocab, embd), context = arrays["wte.weight"].shape, arrays["wpe.weight"].shape[0]
  layers = 1 + max(int(name.split(".")[1]) for name in arrays if name.startswith("h."))
  model = GPT(Config(vocab, context, layers, heads or embd // 64, embd))
  state = {}
  for name in model.state_dict():
    array = arrays["wte.weight" if name == "lm_head.weight" else name].astype(np.float32)
    transposed = array.ndim == 2 and name.startswith("h.")
    state[name] = torch.tensor(np.ascontiguousarray(array.T if transposed else array))
  model.load_state_dict(state)
  return model
