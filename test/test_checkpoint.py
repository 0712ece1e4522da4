# test_checkpoint.py: recomputation gives the same gradients from less memory.
import picograd as torch
from picograd.helpers import EAGER, Counters
from picograd.storage import realize
from picograd.utils.checkpoint import checkpoint, checkpoint_sequential

class Block(torch.nn.Module):
  def __init__(self, n):
    super().__init__()
    self.up, self.down, self.drop = torch.nn.Linear(n, 4 * n), torch.nn.Linear(4 * n, n), torch.nn.Dropout(0.1)
  def forward(self, x): return x + self.drop(self.down(torch.nn.functional.gelu(self.up(x))))

def gradients(run):
  """Of a stack of blocks that run(blocks, x) calls: the values, and the bytes needed besides."""
  torch.manual_seed(0)
  blocks = torch.nn.ModuleList([Block(16) for _ in range(4)])
  x = torch.randn(512, 16)
  realize([t.storage for t in (x, *blocks.parameters())])
  torch.manual_seed(1)
  run(blocks, x).square().mean().backward()
  before = Counters.bytes_peak = Counters.bytes_live
  realize([p.grad.storage for p in blocks.parameters()])
  return [p.grad.tolist() for p in blocks.parameters()], Counters.bytes_peak - before

def plain(blocks, x):
  for block in blocks: x = block(x)
  return x
def recomputed(blocks, x):
  for block in blocks: x = checkpoint(block, x, use_reentrant=False)
  return x

def test_gradients_are_the_same_and_memory_is_less():
  (want, much), (got, less) = gradients(plain), gradients(recomputed)
  assert got == want and (EAGER or less < 0.85 * much)                 # each operation is kept as it is made

def test_segments():
  want, _ = gradients(plain)
  assert gradients(lambda blocks, x: checkpoint_sequential(list(blocks), 2, x))[0] == want

def test_trees_numbers_and_no_gradient():
  x = torch.ones(2, requires_grad=True)
  out = checkpoint(lambda x, k: {"twice": x * 2 * k, "k": k}, x, 3)
  out["twice"].sum().backward()
  assert out["k"] == 3 and x.grad.tolist() == [6, 6]
  with torch.no_grad(): assert checkpoint(lambda x: x * 2, x).tolist() == [2, 2]
