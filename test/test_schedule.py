# How many kernels a program becomes. Each number here is a promise: more kernels mean more trips to memory.
import numpy as np
import pytest
import llama
import picograd as torch
import picograd.nn.functional as F
from picograd.helpers import Counters, DEVICE
from picograd.runtime.plan import binaries
from picograd.runtime.realize import realize

pytestmark = pytest.mark.skipif(DEVICE.value == "NUMPY", reason="the graph interpreter has no kernels")

def kernels(make, *inputs) -> int:
  """How many kernels make(*inputs) launches; the inputs exist before."""
  for x in inputs: x.realize()
  Counters.reset()
  result = make(*inputs)
  for t in result if isinstance(result, (list, tuple)) else [result]: t.realize()
  return Counters.kernels

def leaf(*shape): return torch.rand(*shape).realize()

def test_elementwise_chain():
  assert kernels(lambda a, b, c: (a * b + c).relu(), leaf(64, 64), leaf(64, 64), leaf(64, 64)) == 1
def test_softmax(): assert kernels(lambda x: x.softmax(-1), leaf(32, 100)) == 1
def test_softmax_of_columns(): assert kernels(lambda x: x.softmax(0), leaf(32, 100)) == 1
def test_log_softmax(): assert kernels(lambda x: F.log_softmax(x, dim=-1), leaf(32, 100)) == 1
def test_layernorm():
  assert kernels(lambda x, w, b: F.layer_norm(x, (100,), w, b), leaf(32, 100), leaf(100), leaf(100)) == 1
def test_rmsnorm(): assert kernels(lambda x, w: F.rms_norm(x, (100,), w), leaf(32, 100), leaf(100)) == 1
def test_cross_entropy():
  target = torch.tensor(np.arange(32) % 10)
  assert kernels(lambda x: F.cross_entropy(x, target), leaf(32, 10)) <= 2
def test_matmul_relu_sum(): assert kernels(lambda a, b: (a @ b).relu().sum(), leaf(64, 64), leaf(64, 64)) == 2
def test_matmul_epilogue():
  assert kernels(lambda a, b, c: (a @ b + c).relu() * 2, leaf(64, 64), leaf(64, 64), leaf(64)) == 1
def test_two_layers(): assert kernels(lambda x, v, w: (x @ v).relu() @ w, leaf(32, 64), leaf(64, 64), leaf(64, 64)) == 2
def test_embedding_is_a_load():
  rows = torch.tensor([3, 1, 4, 1, 5])
  assert kernels(lambda w: w[rows] * 2, leaf(64, 64)) == 1
def test_a_view_costs_nothing(): assert kernels(lambda x: x.reshape(8, 8).T[1:3], leaf(64)) == 0

def test_two_matrix_products_of_one_expression():
  """Registers hold the tile of one product: of many rows the other is a kernel of its own; one row needs no tile."""
  gate = lambda x, v, w: F.silu(x @ v) * (x @ w)
  assert kernels(gate, leaf(32, 64), leaf(64, 128), leaf(64, 128)) == 2
  assert kernels(gate, leaf(1, 64), leaf(64, 128), leaf(64, 128)) == 1

def test_a_big_reduction_is_not_repeated():
  """A sum over everything that everything needs is a kernel of its own: no thread waits for one that sums alone."""
  assert kernels(lambda x: x - x.sum(), leaf(1024, 1024)) == 2

def test_gated_linear_unit_shares_a_kernel():
  assert kernels(lambda x, v, w: F.silu(x @ v) * (x @ w), leaf(1, 64), leaf(64, 128), leaf(64, 128)) == 1

def test_adamw_is_one_kernel_a_parameter():
  parameters = [torch.nn.Parameter(leaf(16, 8 + i)) for i in range(10)]
  optimizer = torch.optim.AdamW(parameters, lr=1e-3)
  for step in range(2):
    for p in parameters: p.grad = leaf(*p.shape)
    Counters.reset()
    optimizer.step()
    parameters[0].realize()
    if step: assert Counters.kernels <= 10

def decode_kernels(layers: int) -> int:
  """Kernels of one token through a llama with a key-value cache, once the cache has been used."""
  config = llama.Config(dim=64, hidden_dim=128, n_layers=layers, n_heads=4, n_kv_heads=2, head_dim=16, vocab_size=32,
                        context=32, tied=True)
  model = llama.Llama(config, 32)
  cache = model.new_cache()
  for position in range(3):
    Counters.reset()
    model.predict([7], position, cache)
  return Counters.kernels

def test_a_decoder_layer_is_five_kernels():
  """Norm and qkv; rotation, the cache's stores and attention, head by head; wo; norm, w1 and w3; w2."""
  assert decode_kernels(3) - decode_kernels(2) <= 5
def test_the_kernels_around_the_layers_are_six():
  """Of a recorded pass: four, and the checks that the token and the position lie in their tables."""
  assert decode_kernels(3) - 3 * 5 <= 6

def test_attention_is_one_kernel():
  def attention(q, k, v): return (q @ k.transpose(-1, -2)).softmax(-1) @ v
  assert kernels(attention, leaf(2, 4, 1, 16), leaf(2, 4, 64, 16), leaf(2, 4, 64, 16)) == 1
  assert kernels(attention, leaf(2, 4, 24, 16), leaf(2, 4, 24, 16), leaf(2, 4, 24, 16)) == 1

def test_attention_passes_rows_on_in_the_order_of_the_next_matmul():
  """What transpose(1, 2) gives is stored, not what it is given: the heads of a position lie side by side."""
  def attention(q, k, v, w):
    mixed = ((q @ k.transpose(-1, -2)).softmax(-1) @ v).transpose(1, 2)
    return mixed.reshape(2, 24, 64) @ w
  assert kernels(attention, *[leaf(2, 4, 24, 16) for _ in range(3)], leaf(64, 64)) == 2

def test_a_gradient_through_tanh_reads_its_value():
  x = torch.nn.Parameter(leaf(64, 64))
  y = x.tanh()
  y.sum().backward()
  Counters.reset()
  x.grad.realize()
  assert Counters.kernels <= 2

def test_an_embedding_gradient_adds_rows_in_place():
  weight, rows = torch.nn.Parameter(leaf(500, 16)), torch.tensor([3, 1, 4, 1, 5])
  loss = (weight[rows] * leaf(5, 16)).sum()
  Counters.reset()
  loss.backward()
  weight.grad.realize()
  assert Counters.kernels == 2 and Counters.operations < 500 * 5

def test_an_assignment_to_a_row_writes_no_other():
  x, row = leaf(500, 64), torch.tensor([7])
  Counters.reset()
  x[row] = leaf(1, 64)
  x.realize()
  assert Counters.bytes_moved < 4 * 500 * 64 * 2

def test_equal_layers_are_one_kernel():
  """Structure decides: the second layer's kernels are the first's."""
  w = [leaf(48, 48) for _ in range(4)]
  x = leaf(8, 48)
  Counters.reset()
  for weight in w: x = (x @ weight).relu()
  x.realize()
  names = {binary.name for binary in binaries.values() if "_8_48_48_" in binary.name}
  assert Counters.kernels == 4 and len(names) <= 1
  assert realize([x.uop])
