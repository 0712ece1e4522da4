# ffn.py: Bengio's network of 2003 on names, with its loop by hand: no module, no optimiser. In: a file of words. Out:
# the loss on words kept aside. The four lines marked "lazy" are where a library that computes late is often wrong; here
# each means what it means in torch. Dimension key: B examples, T characters before, E embedding, H hidden, V characters
import picograd as torch
import picograd.nn.functional as F
import numpy as np
import common

def contexts(words, T):
  """-> the T characters before each, 0 where there are none (N, T); the character (N,), 0 ends a word"""
  characters = sorted(set("".join(words)))
  token_of = {c: i + 1 for i, c in enumerate(characters)}
  x, y = [], []
  for word in words:
    last = [0] * T
    for token in [*(token_of[c] for c in word), 0]:
      x.append(last)
      y.append(token)
      last = [*last[1:], token]
  return np.array(x), np.array(y), len(characters) + 1

def main():
  p = common.parser("Bengio's network of 2003.", steps=2000)
  p.add_argument("--data", type=common.existing, required=True)
  p.add_argument("--context", type=int, default=3)
  p.add_argument("--embd", type=int, default=10)
  p.add_argument("--hidden", type=int, default=100)
  p.add_argument("--batch", type=int, default=64)
  p.add_argument("--lr", type=float, default=0.1)
  args = p.parse_args()
  words = args.data.read_text().split()
  words = [words[i] for i in np.random.default_rng(42).permutation(len(words))]
  x_BT, y_B, V = contexts(words, args.context)
  border = int(0.9 * len(y_B))
  random = np.random.default_rng(args.seed)
  def normal(*shape, scale): return common.to_device((scale * random.normal(size=shape)).astype(np.float32), args)
  T, E, H = args.context, args.embd, args.hidden
  C_VE, W1, b1_H = normal(V, E, scale=1), normal(T * E, H, scale=(T * E) ** -0.5), normal(H, scale=0.01)
  W2, b2_V = normal(H, V, scale=0.01), normal(V, scale=0.0)
  parameters = [C_VE, W1, b1_H, W2, b2_V]
  for p in parameters: p.requires_grad = True                      # lazy 1: after they were made
  def loss_of(rows):
    emb_BTE = C_VE[common.to_device(x_BT[rows], args)]
    h_BH = emb_BTE.view(len(rows), -1) @ W1
    h_BH += b1_H                                                   # lazy 2: += on what is not a leaf
    h_BH = torch.tanh(h_BH)
    if h_BH.requires_grad: h_BH.retain_grad()                 # lazy 3: after the forward pass has begun
    logits_BV = h_BH @ W2 + b2_V
    return F.cross_entropy(logits_BV, common.to_device(y_B[rows], args)), h_BH
  losses, bar = [], common.progress_bar(0, args)
  for step in range(args.steps):
    loss, h_BH = loss_of(random.integers(0, border, args.batch))
    for p in parameters: p.grad = None
    loss.backward()
    assert h_BH.grad.shape == h_BH.shape
    for p in parameters: p.data += -args.lr * p.grad               # lazy 4: only the loss is read, yet nothing grows
    losses.append(loss.item())
    bar.set_postfix_str(f"loss {losses[-1]:.4f}", refresh=False)
    bar.update(1)
  bar.close()
  common.finish(losses, args)
  with torch.no_grad(): loss, _ = loss_of(np.arange(border, min(border + 5000, len(y_B))))
  print(f"test loss {loss.item():.4f}")

if __name__ == "__main__": main()
