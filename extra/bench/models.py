# models.py: the small llama that extra/train_llama.py trains, and the decoding of a 15M one, in picograd by the very
# code of those scripts, and in torch.nn. The reference is the torch model in float64, so both need torch.
# Shapes: B sequences, T tokens, H heads, D dimensions of a head.
from __future__ import annotations
import argparse
from typing import Any
import numpy as np
import torch
from torch import nn
import torch.nn.functional as F
from extra import train_llama
from llama import Config, Llama
import picograd
from .workloads import Array, Task

CHARACTERS = 65
CHECKED_STEPS = 3        # training steps whose losses are compared
STORIES_15M = Config(dim=288, hidden_dim=768, n_layers=6, n_heads=6, n_kv_heads=6, head_dim=48, vocab_size=32000,
                     context=256, tied=True)

# ---- the model in torch, with the names and so the weights of llama.py -----------------------------------------------

class TorchLayer(nn.Module):
  def __init__(self, c: Config):
    super().__init__()
    self.heads = c.n_heads
    self.attention_norm = nn.RMSNorm(c.dim, c.norm_eps)
    self.wqkv = nn.Linear(c.dim, 3 * c.dim, bias=False)
    self.wo = nn.Linear(c.dim, c.dim, bias=False)
    self.ffn_norm = nn.RMSNorm(c.dim, c.norm_eps)
    self.w1 = nn.Linear(c.dim, c.hidden_dim, bias=False)
    self.w2 = nn.Linear(c.hidden_dim, c.dim, bias=False)
    self.w3 = nn.Linear(c.dim, c.hidden_dim, bias=False)

  def rotate(self, x: Any, cos: Any, sin: Any) -> Any:
    first, second = x.chunk(2, dim=-1)                                # (B, H, T, D / 2)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)

  def attend(self, x: Any, start: int, cos: Any, sin: Any, cache: Any) -> Any:
    B, T, dim = x.shape
    heads = self.wqkv(x).view(B, T, 3, self.heads, dim // self.heads).permute(2, 0, 3, 1, 4)
    q, k, v = heads.unbind(0)                                         # (B, H, T, D)
    q, k = self.rotate(q, cos, sin), self.rotate(k, cos, sin)
    if cache is not None:
      end = start + T
      cache[0, :, :, start:end], cache[1, :, :, start:end] = k, v
      k, v = cache[:, :, :, :end].unbind(0)
    mixed = F.scaled_dot_product_attention(q, k, v, is_causal=T > 1)
    return self.wo(mixed.transpose(1, 2).reshape(B, T, dim))

  def forward(self, x: Any, start: int, cos: Any, sin: Any, cache: Any) -> Any:
    x = x + self.attend(self.attention_norm(x), start, cos, sin, cache)
    h = self.ffn_norm(x)
    return x + self.w2(F.silu(self.w1(h)) * self.w3(h))

class TorchLlama(nn.Module):
  def __init__(self, c: Config):
    super().__init__()
    self.embedding = nn.Embedding(c.vocab_size, c.dim)
    self.layers = nn.ModuleList([TorchLayer(c) for _ in range(c.n_layers)])
    self.norm = nn.RMSNorm(c.dim, c.norm_eps)
    frequencies = c.rope_theta ** (-torch.arange(0, c.head_dim, 2, dtype=torch.float64) / c.head_dim)
    angles = torch.outer(torch.arange(c.context, dtype=torch.float64), frequencies)
    self.register_buffer("cos", angles.cos().float(), persistent=False)
    self.register_buffer("sin", angles.sin().float(), persistent=False)

  def forward(self, tokens: Any, start: int = 0, caches: Any = None) -> Any:
    """tokens: (B, T), the first at position start -> logits (B, T, vocabulary)"""
    end = start + tokens.shape[1]
    cos, sin = self.cos[start:end], self.sin[start:end]
    x = self.embedding(tokens)
    for i, layer in enumerate(self.layers): x = layer(x, start, cos, sin, None if caches is None else caches[i])
    return F.linear(self.norm(x), self.embedding.weight)

def torch_copy(model: Llama, c: Config, dtype: Any) -> TorchLlama:
  """A torch model with the weights of a picograd model."""
  copied = TorchLlama(c)
  copied.load_state_dict({name: torch.tensor(value.numpy()) for name, value in model.state_dict().items()})
  return copied.to(dtype)

# ---- training --------------------------------------------------------------------------------------------------------

def training_setup(length: int) -> tuple[argparse.Namespace, train_llama.Corpus, train_llama.Run]:
  """The flags of train_llama.py, random text, and a model; length is the test's way to a smaller one."""
  flags = ["--data", "none"]
  if length < 32: flags += ["--dim", "32", "--layers", "1", "--block", "16"]
  args = train_llama.parse_arguments(flags)
  tokens = np.random.default_rng(1).integers(0, CHARACTERS, 100_000)
  return args, train_llama.Corpus([], tokens, tokens), train_llama.begin(args, CHARACTERS)

class TorchTraining:
  """train_llama.py's step, in torch."""
  def __init__(self, length: int, dtype: Any):
    self.args, self.corpus, run = training_setup(length)
    self.model = torch_copy(run.model, run.model.config, dtype)
    parameters = list(self.model.parameters())
    groups = [{"params": [p for p in parameters if p.ndim == 2], "weight_decay": train_llama.WEIGHT_DECAY},
              {"params": [p for p in parameters if p.ndim == 1], "weight_decay": 0.0}]
    self.optimizer = torch.optim.AdamW(groups, lr=self.args.lr, betas=train_llama.BETAS)
    self.random, self.done = np.random.default_rng(self.args.seed), 0

  def step(self) -> float:
    block = self.args.block
    starts = self.random.integers(0, len(self.corpus.train) - block, self.args.batch)
    rows = torch.from_numpy(self.corpus.train[starts[:, None] + np.arange(block + 1)])
    for group in self.optimizer.param_groups: group["lr"] = train_llama.learning_rate(self.done, self.args)
    self.optimizer.zero_grad()
    logits = self.model(rows[:, :-1])
    loss = F.cross_entropy(logits.reshape(-1, CHARACTERS), rows[:, 1:].reshape(-1))
    loss.backward()
    nn.utils.clip_grad_norm_(self.model.parameters(), train_llama.MAX_NORM)
    self.optimizer.step()
    self.done += 1
    return loss.item()

def reference_losses(length: int) -> Array:
  exact = TorchTraining(length, torch.float64)
  return np.array([exact.step() for _ in range(CHECKED_STEPS)])

def torch_training(length: int) -> Task:
  training = TorchTraining(length, torch.float32)
  losses = np.array([training.step() for _ in range(CHECKED_STEPS)])
  return Task(training.step, losses, reference_losses(length))

def picograd_training(length: int) -> Task:
  args, corpus, run = training_setup(length)
  step = lambda: train_llama.train_step(run, corpus, args)
  losses = np.array([step() for _ in range(CHECKED_STEPS)])
  return Task(step, losses, reference_losses(length))

# ---- decoding --------------------------------------------------------------------------------------------------------

def new_model(room: int) -> Llama:
  picograd.manual_seed(0)
  return Llama(STORIES_15M, room)

def prompt(length: int) -> list[int]:
  return [int(token) for token in np.random.default_rng(2).integers(0, STORIES_15M.vocab_size, length)]

def reference_logits(model: Llama, length: int) -> Array:
  with torch.inference_mode():
    return torch_copy(model, STORIES_15M, torch.float64)(torch.tensor([prompt(length)]))[0].numpy()

def picograd_decoding(length: int) -> Task:
  """A call decodes length tokens, one after the other, each the likeliest after the last; the answer: given tokens."""
  model = new_model(length)
  cache = model.new_cache()
  def call() -> None:
    token = 1
    for position in range(length): token = int(np.argmax(model.predict([token], position, cache)))
  logits = np.stack([model.predict([token], position, cache) for position, token in enumerate(prompt(length))])
  return Task(call, logits, reference_logits(model, length))

def torch_decoding(length: int) -> Task:
  c, source = STORIES_15M, new_model(length)
  model = torch_copy(source, c, torch.float32)
  cache = torch.zeros(c.n_layers, 2, 1, c.n_heads, length, c.head_dim)
  def predict(token: int, position: int) -> Array:
    with torch.inference_mode():
      return model(torch.tensor([[token]]), position, cache)[0, -1].numpy()
  def call() -> None:
    token = 1
    for position in range(length): token = int(np.argmax(predict(token, position)))
  logits = np.stack([predict(token, position) for position, token in enumerate(prompt(length))])
  return Task(call, logits, reference_logits(source, length))
