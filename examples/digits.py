# digits.py: a convolutional network reads handwritten digits, scikit-learn's 1,797 of 8x8. Out: the share that is
# read right.
# Dimension key: B pictures, C channels, Y rows, X columns
import picograd as torch
import picograd.nn as nn
import picograd.nn.functional as F
import numpy as np
import common

TRAINED_ON = 1500                        # of the 1,797

class Network(nn.Module):
  def __init__(self):
    super().__init__()
    self.conv1, self.conv2 = nn.Conv2d(1, 16, 3, padding=1), nn.Conv2d(16, 32, 3, padding=1)
    self.hidden, self.head = nn.Linear(32 * 2 * 2, 64), nn.Linear(64, 10)
  def forward(self, x_BCYX):
    x_BCYX = F.max_pool2d(F.relu(self.conv1(x_BCYX)), 2)                          # (B, 16, 4, 4)
    x_BCYX = F.max_pool2d(F.relu(self.conv2(x_BCYX)), 2)                          # (B, 32, 2, 2)
    return self.head(F.relu(self.hidden(x_BCYX.flatten(1))))                      # (B, 10)

def main():
  p = common.parser("A convolutional network reads digits.", steps=500)
  p.add_argument("--batch", type=int, default=64)
  p.add_argument("--lr", type=float, default=2e-3)
  args = p.parse_args()
  from sklearn.datasets import load_digits
  data = load_digits()
  order = np.random.default_rng(0).permutation(len(data.target))
  x_BCYX, y_B = (data.images[order, None] / 16).astype(np.float32), data.target[order].astype(np.int64)
  common.begin(args)
  model = common.place(Network(), args)
  run = common.Run(args, model, torch.optim.Adam(model.parameters(), lr=args.lr))
  def draw(random):
    rows = random.integers(0, TRAINED_ON, args.batch)
    return x_BCYX[rows], y_B[rows]
  run.train(draw, lambda x_BCYX, y_B: F.cross_entropy(model(x_BCYX), y_B))
  with torch.no_grad(): logits = np.asarray(model(common.to_device(x_BCYX[TRAINED_ON:], args)).cpu())
  print(f"accuracy {(logits.argmax(axis=1) == y_B[TRAINED_ON:]).mean():.3f}")

if __name__ == "__main__": main()
