# dialects.py: the few operations that the models here are made of (llamas.py, training.py), in the words of each
# library: a model is written once, and each library runs it as its users would. Shapes: B sequences, H heads, T
# tokens, D dimensions of a head.
from __future__ import annotations
import functools
from typing import Any, Callable, Sequence
import numpy as np

Weights = dict[str, Any]

class TorchLike:
  """Of torch, and of picograd."""
  def __init__(self, library: Any):
    self.library, self.F = library, library.nn.functional
    self.linear, self.embedding = self.F.linear, lambda weight, tokens: self.F.embedding(tokens, weight)
    self.relu, self.silu, self.conv2d = self.F.relu, self.F.silu, self.F.conv2d
    self.cross_entropy, self.cat = self.F.cross_entropy, library.cat

  def tensor(self, array: np.ndarray) -> Any:
    """Copies; torch keeps an array that it may."""
    return self.library.tensor(array)
  def gelu(self, x: Any) -> Any: return self.F.gelu(x, approximate="tanh")
  def pool(self, x: Any) -> Any: return self.F.max_pool2d(x, 2)
  def layer_norm(self, x: Any, weight: Any, bias: Any) -> Any:
    return self.F.layer_norm(x, (x.shape[-1],), weight, bias, 1e-5)
  def rms_norm(self, x: Any, weight: Any) -> Any: return self.F.rms_norm(x, (x.shape[-1],), weight, 1e-5)

  def swap(self, x: Any, a: int, b: int) -> Any: return x.transpose(a, b)
  def causal(self, q: Any, k: Any, v: Any) -> Any:
    """(B, H, T, D) each"""
    return self.F.scaled_dot_product_attention(q, k, v, is_causal=True)
  def masked(self, q: Any, k: Any, v: Any, mask: Any) -> Any:
    """q: (H, T, D); k, v: (KV, L, D); mask: (T, L), where to look"""
    return self.F.scaled_dot_product_attention(q[None], k[None], v[None], attn_mask=mask, enable_gqa=True)[0]
  def stored(self, cache: Any, start: Any, new: Any) -> Any:
    """cache (2, KV, L, D) with new (2, KV, T, D) at positions start and on; where a library can, in place"""
    cache[:, :, start:start + new.shape[2]] = new
    return cache
  def positions(self, start: int, count: int) -> Any: return self.library.arange(start, start + count)

  def trainer(self, loss: Callable[..., Any], weights: Weights, inputs: Sequence[Any], jit: Callable[..., Any]) -> Any:
    """A function that does one step of AdamW and returns the loss."""
    parameters = list(weights.values())
    for p in parameters: p.requires_grad_(True)
    optimizer = self.library.optim.AdamW(parameters, lr=1e-3)
    def step() -> Any:
      optimizer.zero_grad()
      found = loss(self, weights, *inputs)
      found.backward()
      optimizer.step()
      return found.detach()
    return jit(step)

class TinygradWords:
  def __init__(self) -> None:
    import tinygrad
    import tinygrad.nn.optim
    self.tinygrad, self.Tensor = tinygrad, tinygrad.Tensor
    self.AdamW = tinygrad.nn.optim.AdamW
    self.relu, self.silu, self.gelu = self.Tensor.relu, self.Tensor.silu, self.Tensor.gelu
    self.conv2d, self.pool, self.causal = self.Tensor.conv2d, self.Tensor.max_pool2d, functools.partial(
      self.Tensor.scaled_dot_product_attention, is_causal=True)

  def tensor(self, array: np.ndarray) -> Any: return self.Tensor(np.ascontiguousarray(array)).contiguous().realize()
  def linear(self, x: Any, weight: Any, bias: Any = None) -> Any: return x.linear(weight.T, bias)
  def embedding(self, weight: Any, tokens: Any) -> Any: return weight[tokens]
  def swap(self, x: Any, a: int, b: int) -> Any: return x.transpose(a, b)
  def cat(self, xs: Sequence[Any], dim: int) -> Any: return xs[0].cat(*xs[1:], dim=dim)
  def layer_norm(self, x: Any, weight: Any, bias: Any) -> Any: return x.layernorm(eps=1e-5) * weight + bias
  def rms_norm(self, x: Any, weight: Any) -> Any: return x * (x.square().mean(-1, keepdim=True) + 1e-5).rsqrt() * weight
  def cross_entropy(self, logits: Any, targets: Any) -> Any: return logits.sparse_categorical_crossentropy(targets)
  def masked(self, q: Any, k: Any, v: Any, mask: Any) -> Any:
    return q[None].scaled_dot_product_attention(k[None], v[None], attn_mask=mask, enable_gqa=True)[0]
  def stored(self, cache: Any, start: Any, new: Any) -> Any:
    store = cache[:, :, start:start + new.shape[2]].uop.store(new.uop)
    return self.Tensor(cache.uop.after(store))
  def positions(self, start: Any, count: int) -> Any: return self.Tensor.arange(count) + start

  def trainer(self, loss: Callable[..., Any], weights: Weights, inputs: Sequence[Any], jit: Callable[..., Any]) -> Any:
    optimizer = self.AdamW(list(weights.values()), lr=1e-3, weight_decay=0.01)
    def step() -> Any:
      with self.tinygrad.helpers.Context(TRAINING=1):
        optimizer.zero_grad()
        found = loss(self, weights, *inputs).backward()
        return found.realize(*optimizer.schedule_step())
    return jit(step)

class JaxWords:
  def __init__(self) -> None:
    import jax
    self.jax, self.n = jax, jax.numpy
    self.relu, self.silu, self.gelu = jax.nn.relu, jax.nn.silu, jax.nn.gelu            # gelu by tanh is jax's default

  def tensor(self, array: np.ndarray) -> Any: return self.n.asarray(array)
  def linear(self, x: Any, weight: Any, bias: Any = None) -> Any:
    return x @ weight.T if bias is None else x @ weight.T + bias
  def embedding(self, weight: Any, tokens: Any) -> Any: return weight[tokens]
  def swap(self, x: Any, a: int, b: int) -> Any: return x.swapaxes(a, b)
  def cat(self, xs: Sequence[Any], dim: int) -> Any: return self.n.concatenate(xs, dim)
  def layer_norm(self, x: Any, weight: Any, bias: Any) -> Any:
    return self.jax.nn.standardize(x, epsilon=1e-5) * weight + bias
  def rms_norm(self, x: Any, weight: Any) -> Any:
    return x * self.jax.lax.rsqrt((x * x).mean(-1, keepdims=True) + 1e-5) * weight
  def conv2d(self, x: Any, weight: Any, bias: Any) -> Any:
    return self.jax.lax.conv_general_dilated(x, weight, (1, 1), "VALID") + bias[:, None, None]
  def pool(self, x: Any) -> Any:
    return self.jax.lax.reduce_window(x, -np.inf, self.jax.lax.max, (1, 1, 2, 2), (1, 1, 2, 2), "VALID")
  def cross_entropy(self, logits: Any, targets: Any) -> Any:
    return -self.n.take_along_axis(self.jax.nn.log_softmax(logits), targets[:, None], 1).mean()
  def causal(self, q: Any, k: Any, v: Any) -> Any:
    mask = self.n.tril(self.n.ones((q.shape[2], q.shape[2]), bool))
    return self.attend(q, k, v, mask)
  def masked(self, q: Any, k: Any, v: Any, mask: Any) -> Any:
    group = q.shape[0] // k.shape[0]
    return self.attend(q, self.n.repeat(k, group, 0), self.n.repeat(v, group, 0), mask)
  def attend(self, q: Any, k: Any, v: Any, mask: Any) -> Any:
    scores = self.n.where(mask, q @ k.swapaxes(-1, -2) / np.sqrt(q.shape[-1]).astype(np.float32), -np.inf)
    return self.jax.nn.softmax(scores) @ v
  def stored(self, cache: Any, start: Any, new: Any) -> Any:
    return self.jax.lax.dynamic_update_slice(cache, new, (0, 0, start, 0))
  def positions(self, start: Any, count: int) -> Any: return start + self.n.arange(count)

  def trainer(self, loss: Callable[..., Any], weights: Weights, inputs: Sequence[Any], jit: Callable[..., Any]) -> Any:
    n, tree = self.n, self.jax.tree.map
    def update(w: Weights, m: Weights, v: Weights, t: Any) -> Any:
      found, g = self.jax.value_and_grad(lambda w: loss(self, w, *inputs))(w)
      m, v = tree(lambda m, g: 0.9 * m + 0.1 * g, m, g), tree(lambda v, g: 0.999 * v + 0.001 * g * g, v, g)
      a, b = 1 - 0.9 ** t, 1 - 0.999 ** t
      w = tree(lambda w, m, v: w * (1 - 1e-5) - 1e-3 * (m / a) / (n.sqrt(v / b) + 1e-8), w, m, v)
      return found, w, m, v, t + 1
    compiled = self.jax.jit(update, donate_argnums=(0, 1, 2))
    state = [weights, tree(n.zeros_like, weights), tree(n.zeros_like, weights), n.float32(1)]
    def step() -> Any:
      found, *state[:] = compiled(*state)
      return found.block_until_ready()
    return step
