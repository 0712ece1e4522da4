# training.py: one step of AdamW for three models, in every library's words (dialects.py): the loss is written once. The
# losses of the first steps are compared with torch in float64, which these rows need.
from __future__ import annotations
import functools, math
from typing import Any, Callable, NamedTuple
import numpy as np
from .dialects import TorchLike, Weights
from .workloads import MILLISECONDS, Array, Task, Workload, remembered

CHECKED_STEPS = 3        # whose losses are compared

class Model(NamedTuple):
  name: str
  shapes: dict[str, tuple[int, ...]]          # of the weights
  loss: Callable[..., Any]                    # (words, weights, inputs, targets) -> a number
  inputs: tuple[int, ...]                     # their shape; images are float, tokens int
  classes: int

# ---- GPT-2 -----------------------------------------------------------------------------------------------------------

class GPT2(NamedTuple):
  layers: int
  heads: int
  width: int
  vocabulary: int
  context: int

  def shapes(self) -> dict[str, tuple[int, ...]]:
    n = self.width
    out: dict[str, tuple[int, ...]] = {"tokens": (self.vocabulary, n), "positions": (self.context, n)}
    for i in range(self.layers):
      for name, rows, columns in (("qkv", 3 * n, n), ("mix", n, n), ("up", 4 * n, n), ("down", n, 4 * n)):
        out |= {f"{i}.{name}": (rows, columns), f"{i}.{name}.bias": (rows,)}
      for name in ("norm1", "norm2"): out |= {f"{i}.{name}": (n,), f"{i}.{name}.bias": (n,)}
    return out | {"norm": (n,), "norm.bias": (n,)}

  def logits(self, o: Any, w: Weights, tokens: Any) -> Any:
    """tokens: (B, T) -> (B, T, vocabulary)"""
    B, T = tokens.shape
    def linear(x: Any, name: str) -> Any: return o.linear(x, w[name], w[name + ".bias"])
    def norm(x: Any, name: str) -> Any: return o.layer_norm(x, w[name], w[name + ".bias"])
    x = o.embedding(w["tokens"], tokens) + w["positions"][:T]     # (B, T, width)
    for i in range(self.layers):
      qkv = linear(norm(x, f"{i}.norm1"), f"{i}.qkv").reshape(B, T, 3, self.heads, -1)
      q, k, v = (o.swap(qkv[:, :, j], 1, 2) for j in range(3))       # (B, H, T, D)
      mixed = o.swap(o.causal(q, k, v), 1, 2).reshape(B, T, self.width)
      x = x + linear(mixed, f"{i}.mix")
      x = x + linear(o.gelu(linear(norm(x, f"{i}.norm2"), f"{i}.up")), f"{i}.down")
    return o.linear(norm(x, "norm"), w["tokens"])

  def loss(self, o: Any, w: Weights, tokens: Any, targets: Any) -> Any:
    return o.cross_entropy(self.logits(o, w, tokens).reshape(-1, self.vocabulary), targets.reshape(-1))

GPT2_124M = GPT2(12, 12, 768, 50257, 1024)

# ---- digits ----------------------------------------------------------------------------------------------------------

PERCEPTRON = {"1": (512, 784), "1.bias": (512,), "2": (512, 512), "2.bias": (512,), "3": (10, 512), "3.bias": (10,)}

def perceptron_loss(o: Any, w: Weights, images: Any, targets: Any) -> Any:
  """images: (B, 784)"""
  x = images
  for name in "12": x = o.relu(o.linear(x, w[name], w[name + ".bias"]))
  return o.cross_entropy(o.linear(x, w["3"], w["3.bias"]), targets)

CONVNET = {"1": (32, 1, 5, 5), "1.bias": (32,), "2": (32, 32, 5, 5), "2.bias": (32,), "3": (64, 32, 3, 3),
           "3.bias": (64,), "4": (64, 64, 3, 3), "4.bias": (64,), "5": (10, 576), "5.bias": (10,)}

def convnet_loss(o: Any, w: Weights, images: Any, targets: Any) -> Any:
  """images: (B, 1, 28, 28)"""
  def conv(x: Any, name: str) -> Any: return o.relu(o.conv2d(x, w[name], w[name + ".bias"]))
  x = o.pool(conv(conv(images, "1"), "2"))                            # (B, 32, 10, 10)
  x = o.pool(conv(conv(x, "3"), "4"))                                 # (B, 64, 3, 3)
  return o.cross_entropy(o.linear(x.reshape(x.shape[0], -1), w["5"], w["5.bias"]), targets)

# ---- the rows --------------------------------------------------------------------------------------------------------

def models(sizes: str) -> list[Model]:
  if sizes == "tiny":
    gpt2, small = GPT2(1, 2, 16, 50, 8), 4
    return [Model("GPT-2 tiny step", gpt2.shapes(), gpt2.loss, (2, 8), 50),
            Model("MLP step", PERCEPTRON, perceptron_loss, (small, 784), 10),
            Model("convnet step", CONVNET, convnet_loss, (small, 1, 28, 28), 10)]
  return [Model("GPT-2 124M step", GPT2_124M.shapes(), GPT2_124M.loss, (4, 64), GPT2_124M.vocabulary),
          Model("MLP step", PERCEPTRON, perceptron_loss, (512, 784), 10),
          Model("convnet step", CONVNET, convnet_loss, (512, 1, 28, 28), 10)]

def initial(shapes: dict[str, tuple[int, ...]]) -> dict[str, Array]:
  random = np.random.default_rng(0)
  out: dict[str, Array] = {}
  for name, shape in shapes.items():
    deviation = min(0.02, 1 / math.sqrt(math.prod(shape[1:])))
    if len(shape) > 1: out[name] = random.standard_normal(shape, np.float32) * np.float32(deviation)
    else: out[name] = np.full(shape, 0 if name.endswith("bias") else 1, np.float32)
  return out

def data(model: Model) -> tuple[Array, Array]:
  random = np.random.default_rng(1)
  if len(model.inputs) == 2 and model.classes > 10:
    return (random.integers(0, model.classes, model.inputs), random.integers(0, model.classes, model.inputs))
  return random.standard_normal(model.inputs, np.float32), random.integers(0, model.classes, model.inputs[0])

def trainer(words: Any, model: Model, jit: Callable[..., Any], kind: type[np.floating]) -> Callable[[], float]:
  """A step on the same batch again and again, which returns its loss."""
  weights = {name: words.tensor(array.astype(kind)) for name, array in initial(model.shapes).items()}
  inputs, targets = data(model)
  inputs = inputs.astype(kind) if inputs.dtype == np.float32 else inputs
  step = words.trainer(model.loss, weights, (words.tensor(inputs), words.tensor(targets)), jit)
  return lambda: float(step().item())

def losses(step: Callable[[], float]) -> Array:
  return np.array([step() for _ in range(CHECKED_STEPS)])

def reference(model: Model) -> Array:
  import torch
  return losses(trainer(TorchLike(torch), model, lambda step: step, np.float64))

def rows(sizes: str) -> list[Workload]:
  def task(model: Model, peer: Any) -> Task | None:
    words = peer.words()
    if words is None: return None
    step = trainer(words, model, peer.jitted, np.float32)
    return Task(step, losses(step), remembered(f"losses {model.name}", lambda: reference(model)))
  return [Workload(model.name, MILLISECONDS, functools.partial(task, model), tolerance=1e-3, turns=2)
          for model in models(sizes)]
