# test_tiny.py: the ten lines that say the thing works: a network of one hidden layer learns XOR.
import picograd as torch

def test_learns_xor():
  torch.manual_seed(1)
  x = torch.tensor([[0.0, 0], [0, 1], [1, 0], [1, 1]])
  y = torch.tensor([0, 1, 1, 0])
  model = torch.nn.Sequential(torch.nn.Linear(2, 16), torch.nn.Tanh(), torch.nn.Linear(16, 2))
  optimizer = torch.optim.AdamW(model.parameters(), lr=0.05)
  for _ in range(60):
    optimizer.zero_grad()
    loss = torch.nn.functional.cross_entropy(model(x), y)
    loss.backward()
    optimizer.step()
  assert loss.item() < 0.1 and model(x).argmax(1).tolist() == [0, 1, 1, 0]
