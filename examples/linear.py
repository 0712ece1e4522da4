# linear.py: logistic regression (--classes 2) and softmax regression (more). In: points in the plane, around as many
# centres as there are classes. Out: losses, and the share of points that are on the right side.
# Dimension key: B points, D coordinates, K classes
import picograd as torch
import picograd.nn as nn
import picograd.nn.functional as F
import numpy as np
import common

def points(random, B, K):
  """-> coordinates (B, 2) and classes (B,): normal around K centres on a circle"""
  y_B = random.integers(0, K, B)
  angle_B = 2 * np.pi * y_B / K
  x_BD = 2 * np.stack([np.cos(angle_B), np.sin(angle_B)], axis=1) + 0.7 * random.normal(size=(B, 2))
  return x_BD.astype(np.float32), y_B

def main():
  p = common.parser("Logistic and softmax regression.", steps=200)
  p.add_argument("--classes", type=int, default=2)
  p.add_argument("--batch", type=int, default=64)
  p.add_argument("--lr", type=float, default=0.1)
  args = p.parse_args()
  K = args.classes
  common.begin(args)
  model = common.place(nn.Linear(2, 1 if K == 2 else K), args)
  run = common.Run(args, model, torch.optim.SGD(model.parameters(), lr=args.lr))
  def loss_of(x_BD, y_B):
    logits_BK = model(x_BD)
    if K > 2: return F.cross_entropy(logits_BK, y_B)
    return F.binary_cross_entropy_with_logits(logits_BK[:, 0], y_B.float())
  run.train(lambda random: points(random, args.batch, K), loss_of)
  x_BD, y_B = points(np.random.default_rng(0), 1000, K)
  with torch.no_grad(): logits_BK = np.asarray(model(common.to_device(x_BD, args)).cpu())
  right = ((logits_BK[:, 0] > 0) if K == 2 else logits_BK.argmax(axis=1)) == y_B
  print(f"accuracy {right.mean():.3f}")

if __name__ == "__main__": main()
