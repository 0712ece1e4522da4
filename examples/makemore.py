# makemore.py: makes more words like those of a file: --type bigram|bow|mlp|rnn|gru|lstm|transformer.
# In: a file with a word on each line. Out: the losses on words kept aside, and new words. After Karpathy's makemore.
# Dimension key: B words, T characters of each, C channels, H heads, D channels of a head, V characters, E embedding
import picograd as torch
import picograd.nn as nn
import picograd.nn.functional as F
import numpy as np
import common

class Bigram(nn.Module):
  """The next character by the last: a table of logits."""
  def __init__(self, args, V, T):
    super().__init__()
    self.logits = nn.Embedding(V, V)
  def forward(self, idx_BT): return self.logits(idx_BT)                           # (B, T, V)

class BoW(nn.Module):
  """The mean of all characters so far, then an MLP."""
  def __init__(self, args, V, T):
    super().__init__()
    C, self.T = args.embd, T
    self.token, self.position = nn.Embedding(V, C), nn.Embedding(T, C)
    self.up, self.down, self.head = nn.Linear(C, args.embd2), nn.Linear(args.embd2, C), nn.Linear(C, V)
  def forward(self, idx_BT):
    T = idx_BT.shape[1]
    x_BTC = self.token(idx_BT) + self.position(torch.arange(T, device=idx_BT.device))
    lower_TT = torch.tril(torch.ones(T, T, device=idx_BT.device))
    mean_TT = lower_TT / lower_TT.sum(dim=1, keepdim=True)
    x_BTC = x_BTC + mean_TT @ x_BTC
    return self.head(x_BTC + self.down(torch.tanh(self.up(x_BTC))))

class MLP(nn.Module):
  """Bengio 2003: the embeddings of the last T characters side by side, one hidden layer. V: no character."""
  def __init__(self, args, V, T):
    super().__init__()
    self.T, self.V = T, V
    self.token = nn.Embedding(V + 1, args.embd)
    self.up, self.down = nn.Linear(T * args.embd, args.embd2), nn.Linear(args.embd2, V)
  def forward(self, idx_BT):
    B, T = idx_BT.shape
    padded_BP = F.pad(idx_BT, (self.T - 1, 0), value=self.V)
    embs = [self.token(padded_BP[:, self.T - 1 - k:self.T - 1 - k + T]) for k in range(self.T)]
    x_BTE = torch.cat(embs, dim=-1)
    return self.down(torch.tanh(self.up(x_BTE)))

class Recurrent(nn.Module):
  def __init__(self, args, V, T):
    super().__init__()
    layer = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}[args.type]
    self.token = nn.Embedding(V, args.embd)
    self.cell = layer(args.embd, args.embd2, batch_first=True)
    self.head = nn.Linear(args.embd2, V)
  def forward(self, idx_BT):
    x_BTC, _ = self.cell(self.token(idx_BT))
    return self.head(x_BTC)

class Block(nn.Module):
  def __init__(self, C, H):
    super().__init__()
    self.H = H
    self.ln1, self.ln2 = nn.LayerNorm(C), nn.LayerNorm(C)
    self.qkv, self.out = nn.Linear(C, 3 * C), nn.Linear(C, C)
    self.up, self.down = nn.Linear(C, 4 * C), nn.Linear(4 * C, C)
  def forward(self, x_BTC):
    B, T, C = x_BTC.shape
    q_BTC, k_BTC, v_BTC = self.qkv(self.ln1(x_BTC)).split(C, dim=2)
    q_BHTD, k_BHTD, v_BHTD = (t.view(B, T, self.H, C // self.H).transpose(1, 2) for t in (q_BTC, k_BTC, v_BTC))
    y_BHTD = F.scaled_dot_product_attention(q_BHTD, k_BHTD, v_BHTD, is_causal=True)
    x_BTC = x_BTC + self.out(y_BHTD.transpose(1, 2).reshape(B, T, C))
    return x_BTC + self.down(F.gelu(self.up(self.ln2(x_BTC)), approximate="tanh"))

class Transformer(nn.Module):
  def __init__(self, args, V, T):
    super().__init__()
    C = args.embd
    self.token, self.position = nn.Embedding(V, C), nn.Embedding(T, C)
    self.blocks = nn.ModuleList([Block(C, args.heads) for _ in range(args.layers)])
    self.norm, self.head = nn.LayerNorm(C), nn.Linear(C, V, bias=False)
  def forward(self, idx_BT):
    x_BTC = self.token(idx_BT) + self.position(torch.arange(idx_BT.shape[1], device=idx_BT.device))
    for block in self.blocks: x_BTC = block(x_BTC)
    return self.head(self.norm(x_BTC))

MODELS = {"bigram": Bigram, "bow": BoW, "mlp": MLP, "rnn": Recurrent, "gru": Recurrent, "lstm": Recurrent,
          "transformer": Transformer}

def encode(words):
  """Token 0 begins and ends a word. -> inputs (N, T) and targets (N, T), -1 where there is none, and the characters"""
  characters = sorted(set("".join(words)))
  token_of = {c: i + 1 for i, c in enumerate(characters)}
  T = max(map(len, words)) + 1
  x, y = np.zeros((len(words), T), np.int64), np.full((len(words), T), -1, np.int64)
  for i, word in enumerate(words):
    tokens = [token_of[c] for c in word]
    x[i, 1:1 + len(word)] = tokens
    y[i, :len(word) + 1] = [*tokens, 0]
  return x, y, characters

def cross_entropy(logits_BTV, targets_BT):
  return F.cross_entropy(logits_BTV.reshape(-1, logits_BTV.shape[-1]), targets_BT.reshape(-1), ignore_index=-1)

def evaluate(model, x, y, args):
  """Mean loss of a character, over batches that cover all words."""
  total = count = 0
  with torch.no_grad():
    for i in range(0, len(x), 100):
      n = int((y[i:i + 100] >= 0).sum())
      logits_BTV = model(common.to_device(x[i:i + 100], args))
      total += cross_entropy(logits_BTV, common.to_device(y[i:i + 100], args)).item() * n
      count += n
  return total / count

def sample(model, characters, T, args, count=10):
  random = np.random.default_rng(args.seed)
  tokens_BT = np.zeros((count, T), np.int64)
  with torch.no_grad():
    for t in range(T - 1):
      logits_BTV = np.asarray(model(common.to_device(tokens_BT, args)).cpu())
      logits_BV = logits_BTV[:, t].astype(np.float64)
      noise_BV = random.gumbel(size=logits_BV.shape)                              # the largest is a sample of softmax
      tokens_BT[:, t + 1] = (logits_BV + noise_BV).argmax(axis=1)
  for row in tokens_BT[:, 1:]:
    end = int(np.argmin(row)) if (row == 0).any() else len(row)
    yield "".join(characters[token - 1] for token in row[:end])

def main():
  p = common.parser("Makes more words like those of a file.", steps=5000, seed=3407)
  p.add_argument("--data", type=common.existing, required=True)
  p.add_argument("--type", choices=MODELS, default="transformer")
  p.add_argument("--layers", type=int, default=4)
  p.add_argument("--heads", type=int, default=4)
  p.add_argument("--embd", type=int, default=64)
  p.add_argument("--embd2", type=int, default=64)
  p.add_argument("--batch", type=int, default=32)
  p.add_argument("--lr", type=float, default=5e-4)
  p.add_argument("--no-test", action="store_true", help="do not evaluate at the end")
  args = p.parse_args()
  words = args.data.read_text().split()
  x, y, characters = encode([words[i] for i in np.random.default_rng(42).permutation(len(words))])
  border = len(words) - min(1000, len(words) // 10)
  common.begin(args)
  model = common.place(MODELS[args.type](args, len(characters) + 1, x.shape[1]), args)
  optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr, weight_decay=0.01, betas=(0.9, 0.99), eps=1e-8)
  run = common.Run(args, model, optimizer)
  def draw(random):
    rows = random.integers(0, border, args.batch)
    return x[rows], y[rows]
  run.train(draw, lambda x_BT, y_BT: cross_entropy(model(x_BT), y_BT))
  if not args.no_test:
    print(f"test loss {evaluate(model, x[border:], y[border:], args):.4f}")
    print(*sample(model, characters, x.shape[1], args), sep="\n")

if __name__ == "__main__": main()
