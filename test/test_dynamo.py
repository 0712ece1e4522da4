# test_dynamo.py: torch.compile(model, backend=picograd's): forward graphs of torch run here.
import importlib.util, warnings
import pytest

if importlib.util.find_spec("torch") is None: pytest.skip("torch traces the graphs", allow_module_level=True)
import torch
from picograd.dynamo import compile_graph

class Attention(torch.nn.Module):
  def __init__(self):
    super().__init__()
    self.table, self.norm = torch.nn.Embedding(20, 16), torch.nn.LayerNorm(16)
    self.qkv, self.head = torch.nn.Linear(16, 48), torch.nn.Linear(16, 20)
  def forward(self, i):
    x = self.norm(self.table(i))                                       # (B, T, C)
    q, k, v = self.qkv(x).view(*x.shape[:2], 3, 4, 4).permute(2, 0, 3, 1, 4)
    y = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    y = torch.nn.functional.gelu(x + y.transpose(1, 2).reshape(x.shape))
    return torch.softmax(self.head(y), -1), x.mean()

def convnet():
  return torch.nn.Sequential(
    torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.BatchNorm2d(8), torch.nn.ReLU(), torch.nn.MaxPool2d(2),
    torch.nn.Flatten(), torch.nn.Linear(128, 5), torch.nn.Softmax(-1))

CASES = {"attention": (Attention, lambda: torch.randint(0, 20, (2, 7))),
         "convnet": (convnet, lambda: torch.randn(2, 3, 8, 8))}

@pytest.mark.parametrize("name", CASES)
def test_a_forward_graph_runs_here(name):
  torch.manual_seed(0)
  make, data = CASES[name]
  model = make().eval()
  compiled = torch.compile(model, backend=compile_graph, fullgraph=True)
  with torch.no_grad(), warnings.catch_warnings():
    warnings.simplefilter("error", UserWarning)                        # nothing is left to torch
    for _ in range(3):
      x = data()
      torch.testing.assert_close(compiled(x), model(x), rtol=1e-4, atol=1e-5)
      next(model.parameters()).mul_(1.1)                               # weights are read, not copied

def test_what_cannot_run_here_is_torchs_and_said_so():
  x = torch.randn(4)
  with pytest.warns(UserWarning, match="fft"):
    spectrum = torch.compile(lambda x: torch.fft.fft(x).real, backend=compile_graph)(x)
  torch.testing.assert_close(spectrum, torch.fft.fft(x).real)
  layer = torch.nn.Linear(4, 2)
  with pytest.warns(UserWarning, match="gradient"): torch.compile(layer, backend=compile_graph)(x).sum().backward()
  assert layer.weight.grad is not None
