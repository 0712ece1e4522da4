#!/usr/bin/env python3
# llama.py: the llama 2 and 3 language models on picograd, in one file: config and weights from disk, the network,
# tokenizers, sampling, the command line. In: a llama2.c .bin or an HF directory (config.json, model.safetensors), and
# a prompt. Out: the text on standard output as it is made, tokens/s on standard error. With no flags: the model that
# ships with picograd. Shapes: B sequences, T positions of this pass, L positions in the cache.
from __future__ import annotations
import argparse, contextlib, io, itertools, json, math, os, signal, struct, sys, time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Iterator, NamedTuple, NoReturn
import numpy as np
import picograd
import picograd.nn.functional as F
from picograd import Tensor, nn
from picograd.helpers import DEVICE
from picograd.io import load_safetensors

BUNDLED_MODEL = Path(picograd.__file__).parent / "models" / "shakespeare"
BUNDLED_PROMPT = "ROMEO:"
HEADER_BYTES = 28        # of a llama2.c checkpoint: seven int32
CACHE_STEP = 64          # cache lengths are multiples of it, so that few different shapes are ever compiled
PRECISIONS = {"float32": picograd.float32, "float16": picograd.float16, "bfloat16": picograd.bfloat16}

# ---- the network -----------------------------------------------------------------------------------------------------

LLAMA3_SCALING = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")

@dataclass(frozen=True)
class Config:
  dim: int
  hidden_dim: int
  n_layers: int
  n_heads: int
  n_kv_heads: int                             # each is shared by n_heads / n_kv_heads query heads
  head_dim: int
  vocab_size: int
  context: int                                # positions the model can tell apart
  tied: bool                                  # the output head is the transposed embedding
  norm_eps: float = 1e-5
  rope_theta: float = 10000.0
  rope_scaling: dict[str, float] | None = None    # llama 3.1: its LLAMA3_SCALING numbers
  stop_tokens: tuple[int, ...] = ()

  def check(self, path: Path) -> Config:
    """Itself, or a ValueError that says which sizes, read from path, cannot belong to one model."""
    for name in ("dim", "hidden_dim", "n_layers", "n_heads", "n_kv_heads", "head_dim", "vocab_size", "context"):
      size = getattr(self, name)
      if size <= 0: raise ValueError(f"{path}: the model's {name} is {size}, not a positive number")
    if self.n_heads % self.n_kv_heads:
      raise ValueError(f"{path}: {self.n_heads} query heads cannot share {self.n_kv_heads} key heads evenly")
    if self.head_dim % 2: raise ValueError(f"{path}: rotary embedding needs an even head size, not {self.head_dim}")
    return self

def rotary_frequencies(c: Config) -> np.ndarray:
  """How fast pair i turns, in radians per position. Llama 3.1 slows the pairs whose wavelength exceeds the context that
  the model was first trained with, by `factor`, with a linear passage between the two regimes. -> (head_dim / 2,)"""
  frequencies = c.rope_theta ** (-np.arange(0, c.head_dim, 2) / c.head_dim)
  if c.rope_scaling is None: return frequencies
  low, high = c.rope_scaling["low_freq_factor"], c.rope_scaling["high_freq_factor"]
  turns = c.rope_scaling["original_max_position_embeddings"] * frequencies / (2 * math.pi)   # within the first context
  kept = np.clip((turns - low) / (high - low), 0, 1)                # 1: fast enough to stay, 0: fully slowed
  return frequencies * (kept + (1 - kept) / c.rope_scaling["factor"])

Cache = tuple[Tensor, Tensor]                 # the keys and the values of a layer: (B, n_kv_heads, L, head_dim)

class Pass(NamedTuple):
  """What all layers share in one pass over T tokens."""
  positions: Tensor | slice                   # T of them
  cos: Tensor                                 # (T, head_dim / 2): each position's angles
  sin: Tensor
  future: Tensor                              # (T, L): position l comes after position t, which may not see it

def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
  """Turns each pair (x[i], x[i + D/2]) by its position's angle. x: (.., T, D); cos, sin: (T, D / 2)."""
  first, second = x.chunk(2, dim=-1)
  return picograd.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)

class Linear(nn.Linear):
  """The weights may be stored in half precision: they are widened as they are read."""
  def forward(self, x: Tensor) -> Tensor: return F.linear(x, self.weight.to(x.dtype))

class Layer(nn.Module):
  """Attention, then a gated feed-forward network, each on the normalised sum so far and added to it."""
  def __init__(self, c: Config):
    super().__init__()
    self.config = c
    self.attention_norm = nn.RMSNorm(c.dim, eps=c.norm_eps)
    self.wqkv = Linear(c.dim, (c.n_heads + 2 * c.n_kv_heads) * c.head_dim, bias=False)
    self.wo = Linear(c.n_heads * c.head_dim, c.dim, bias=False)
    self.ffn_norm = nn.RMSNorm(c.dim, eps=c.norm_eps)
    self.w1 = Linear(c.dim, c.hidden_dim, bias=False)
    self.w2 = Linear(c.hidden_dim, c.dim, bias=False)
    self.w3 = Linear(c.dim, c.hidden_dim, bias=False)

  def attend(self, x: Tensor, now: Pass, cache: Cache | None) -> Tensor:
    c = self.config
    B, T, _ = x.shape
    heads = self.wqkv(x).view(B, T, c.n_heads + 2 * c.n_kv_heads, c.head_dim).transpose(1, 2)
    q, k, v = heads.split([c.n_heads, c.n_kv_heads, c.n_kv_heads], dim=1)         # (B, .., T, head_dim)
    q = q.view(B, c.n_kv_heads, c.n_heads // c.n_kv_heads, T, c.head_dim)         # the heads of a group share k and v
    q, k = rotate(q, now.cos, now.sin), rotate(k, now.cos, now.sin)
    if cache is not None:
      keys, values = cache
      keys[:, :, now.positions], values[:, :, now.positions] = k, v
      L = now.future.shape[1]
      k, v = keys[:, :, :L], values[:, :, :L]                                     # (B, n_kv_heads, L, head_dim)
    scores = q @ k.unsqueeze(2).transpose(3, 4) * c.head_dim**-0.5                # (B, n_kv_heads, group, T, L)
    weights = scores.masked_fill(now.future, -math.inf).softmax(dim=-1)
    mixed = weights @ v.unsqueeze(2)                                              # (B, n_kv_heads, group, T, head_dim)
    return self.wo(mixed.permute(0, 3, 1, 2, 4).contiguous().view(B, T, c.n_heads * c.head_dim))

  def feed_forward(self, x: Tensor) -> Tensor:
    return self.w2(F.silu(self.w1(x)) * self.w3(x))                   # (B, T, hidden_dim) -> (B, T, dim)

  def forward(self, x: Tensor, now: Pass, cache: Cache | None) -> Tensor:
    x = x + self.attend(self.attention_norm(x), now, cache)
    return x + self.feed_forward(self.ffn_norm(x))                    # (B, T, dim)

class Llama(nn.Module):
  """Tokens to the logits of the token that follows each. The position of one new token is data, not part of the
  program: such passes are the same few graphs, whatever the position. `room` is how many positions there are."""
  def __init__(self, c: Config, room: int):
    super().__init__()
    self.config, self.room = c, room
    self.embedding = nn.Embedding(c.vocab_size, c.dim)
    self.layers = nn.ModuleList([Layer(c) for _ in range(c.n_layers)])
    self.norm = nn.RMSNorm(c.dim, eps=c.norm_eps)
    if not c.tied: self.output = Linear(c.dim, c.vocab_size, bias=False)
    angles = np.outer(np.arange(room), rotary_frequencies(c))         # (room, head_dim / 2)
    self.cos = picograd.tensor(np.cos(angles).astype(np.float32))
    self.sin = picograd.tensor(np.sin(angles).astype(np.float32))
    self.step, self.one_step = picograd.jit(self.logits_after), picograd.jit(self.logits_after_one)

  def new_cache(self) -> list[Cache]:
    """Space for the keys and values of one sequence, which passes fill in place. They are data, not the formula
    `zeros`, so that there is memory to assign to from the first pass on."""
    empty: np.ndarray = np.zeros((1, self.config.n_kv_heads, self.room, self.config.head_dim), np.float32)
    return [(picograd.tensor(empty), picograd.tensor(empty)) for _ in self.layers]

  def hidden(self, tokens: Tensor, positions: Tensor | slice, seen: int, cache: list[Cache] | None) -> Tensor:
    """tokens: (B, T), at T positions, which see those of the first `seen` that are not later -> (B, T, dim)"""
    at = picograd.arange(positions.start, positions.stop) if isinstance(positions, slice) else positions      # (T,)
    now = Pass(positions, self.cos[positions], self.sin[positions], picograd.arange(seen) > at.unsqueeze(1))
    x = self.embedding(tokens).to(self.norm.weight.dtype)             # (B, T, dim)
    for i, layer in enumerate(self.layers):
      x = layer(x, now, None if cache is None else cache[i])
    return self.norm(x)

  def head(self, x: Tensor) -> Tensor:
    """x: (B, T, dim) -> (B, T, vocab_size)"""
    return F.linear(x, self.embedding.weight.to(x.dtype)) if self.config.tied else self.output(x)

  def forward(self, tokens: Tensor) -> Tensor:
    """Logits after every token of whole sequences. tokens: (B, T) -> (B, T, vocab_size)"""
    T = tokens.shape[1]
    return self.head(self.hidden(tokens, slice(0, T), T, None))

  def logits_after(self, last: Tensor | None, tokens: Tensor, positions: Tensor | slice, seen: int,
                   cache: list[Cache]) -> Tensor:
    """Logits after the token of number `last`, (1,), or the only one. tokens: (B, T), at T positions
    -> (B, 1, vocab_size)"""
    x = self.hidden(tokens, positions, seen, cache)
    return self.head(x if last is None else x[:, last])

  def logits_after_one(self, given: Tensor, seen: int, cache: list[Cache]) -> Tensor:
    """given: (2,), a token and its position. -> (1, 1, vocab_size)"""
    return self.logits_after(None, given[:1].unsqueeze(0), given[1:], seen, cache)

  def predict(self, tokens: list[int], start: int, cache: list[Cache]) -> np.ndarray:
    """Logits after the last of the tokens, the first of which stands at position start. So that few shapes are ever
    compiled, a pass has a power of two of tokens and looks at a power of two of positions: what it writes for tokens
    that are none is overwritten before a later pass may see it. -> (vocab_size,)"""
    T = min(power_of_two(len(tokens)), self.room - start)
    seen = min(max(power_of_two(start + T), CACHE_STEP), self.room)
    with picograd.no_grad():
      if T == 1: return self.one_step(picograd.tensor(np.array([*tokens, start])), seen, cache).numpy()[0, 0]
      padded = picograd.tensor(np.array([tokens + [0] * (T - len(tokens))]))
      last = picograd.tensor(np.array([len(tokens) - 1]))
      return self.step(last, padded, slice(start, start + T), seen, cache).numpy()[0, 0]

def power_of_two(n: int) -> int:
  """The least that is not below n."""
  return 1 << (n - 1).bit_length()

# ---- config and weights from disk ------------------------------------------------------------------------------------

def read_config(path: Path) -> Config:
  """The sizes of the model at path: a llama2.c checkpoint (.bin), an HF directory, or a .safetensors file in one."""
  if not path.exists(): raise ValueError(f"{path}: no such file or directory")
  return read_bin_config(path) if path.suffix == ".bin" else read_hf_config(directory_of(path) / "config.json")

def directory_of(path: Path) -> Path: return path if path.is_dir() else path.parent

def read_bin_config(path: Path) -> Config:
  """The header of a llama2.c checkpoint: dim, hidden, layers, heads, kv heads, vocabulary (negative: the output head is
  a matrix of its own), context."""
  with path.open("rb") as f: header = f.read(HEADER_BYTES)
  if len(header) < HEADER_BYTES: raise ValueError(f"{path}: {len(header)} bytes are too few for a llama2.c header")
  dim, hidden_dim, n_layers, n_heads, n_kv_heads, vocab_size, context = struct.unpack("<7i", header)
  if n_heads <= 0 or dim % n_heads: raise ValueError(f"{path}: is no llama2.c checkpoint: dim {dim}, {n_heads} heads")
  return Config(dim, hidden_dim, n_layers, n_heads, n_kv_heads, dim // n_heads, abs(vocab_size), context,
                tied=vocab_size > 0, stop_tokens=(BOS,)).check(path)

def read_bin_tensors(path: Path, c: Config) -> dict[str, Tensor]:
  """The tensors of a llama2.c checkpoint under HF's names. All are float32, in this order: name, how many, shape."""
  layers, q_dim, kv_dim = c.n_layers, c.n_heads * c.head_dim, c.n_kv_heads * c.head_dim
  rows = [
    ("model.embed_tokens", 1, (c.vocab_size, c.dim)),
    ("model.layers.{}.input_layernorm", layers, (c.dim,)),
    ("model.layers.{}.self_attn.q_proj", layers, (q_dim, c.dim)),
    ("model.layers.{}.self_attn.k_proj", layers, (kv_dim, c.dim)),
    ("model.layers.{}.self_attn.v_proj", layers, (kv_dim, c.dim)),
    ("model.layers.{}.self_attn.o_proj", layers, (c.dim, q_dim)),
    ("model.layers.{}.post_attention_layernorm", layers, (c.dim,)),
    ("model.layers.{}.mlp.gate_proj", layers, (c.hidden_dim, c.dim)),
    ("model.layers.{}.mlp.down_proj", layers, (c.dim, c.hidden_dim)),
    ("model.layers.{}.mlp.up_proj", layers, (c.hidden_dim, c.dim)),
    ("model.norm", 1, (c.dim,)),
    ("rotary.{}", 2, (c.context, c.head_dim // 2)),               # cos and sin, which Llama computes itself
    ("lm_head", 0 if c.tied else 1, (c.vocab_size, c.dim)),
  ]
  needed = HEADER_BYTES + 4 * sum(count * math.prod(shape) for _, count, shape in rows)
  present = path.stat().st_size
  if present < needed: raise ValueError(f"{path}: is truncated: it has {present} bytes of {needed}")
  tensors, at = {}, HEADER_BYTES
  for name, count, shape in rows:
    for i in range(count):
      weight = np.fromfile(path, "<f4", math.prod(shape), offset=at).reshape(shape)
      if name.endswith(("q_proj", "k_proj")): weight = pairs_to_halves(weight, c.head_dim)
      tensors[name.format(i) + ".weight"] = picograd.tensor(weight)
      at += weight.nbytes
  return tensors

def pairs_to_halves(weight: np.ndarray, head_dim: int) -> np.ndarray:
  """The rows of a projection, reordered in each head: what rotate() would find at 2i and 2i + 1 is put where it looks,
  at i and i + head_dim / 2. weight: (heads * head_dim, dim)"""
  return weight.reshape(-1, head_dim // 2, 2, weight.shape[1]).swapaxes(1, 2).reshape(weight.shape)

def read_hf_config(path: Path) -> Config:
  """config.json as transformers writes it, before and since its version 5."""
  fields = read_json(path)
  try:
    kind, rotary = fields["model_type"], fields.get("rope_parameters") or fields.get("rope_scaling") or {}
    scaling = rotary.get("rope_type", rotary.get("type", "default"))
    if kind != "llama": raise ValueError(f"{path}: a model of type 'llama' is expected, not {kind!r}")
    if scaling not in ("default", "llama3"): raise ValueError(f"{path}: rotary scaling {scaling!r} is not supported")
    dim, heads, stops = int(fields["hidden_size"]), int(fields["num_attention_heads"]), fields.get("eos_token_id")
    return Config(
      dim=dim,
      hidden_dim=int(fields["intermediate_size"]),
      n_layers=int(fields["num_hidden_layers"]),
      n_heads=heads,
      n_kv_heads=int(fields.get("num_key_value_heads") or heads),
      head_dim=int(fields.get("head_dim") or dim // heads),
      vocab_size=int(fields["vocab_size"]),
      context=int(fields["max_position_embeddings"]),
      tied=bool(fields.get("tie_word_embeddings", False)),
      norm_eps=float(fields.get("rms_norm_eps", 1e-6)),
      rope_theta=float(rotary.get("rope_theta") or fields.get("rope_theta") or 10000.0),
      rope_scaling={name: float(rotary[name]) for name in LLAMA3_SCALING} if scaling == "llama3" else None,
      stop_tokens=tuple(stops) if isinstance(stops, list) else () if stops is None else (stops,)).check(path)
  except KeyError as error: raise ValueError(f"{path}: the field {error} is missing") from None
  except (TypeError, AttributeError, ZeroDivisionError) as error:
    raise ValueError(f"{path}: a field has a wrong value: {error}") from None

# Our tensor of layer i -> HF's, whose rows it holds one below the other.
HF_LAYER = {
  "attention_norm": ("input_layernorm",),
  "wqkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
  "wo": ("self_attn.o_proj",),
  "ffn_norm": ("post_attention_layernorm",),
  "w1": ("mlp.gate_proj",),
  "w2": ("mlp.down_proj",),
  "w3": ("mlp.up_proj",),
}

def hf_names(c: Config) -> dict[str, list[str]]:
  """For each tensor of Llama's state_dict, the HF tensors whose rows it holds."""
  names = {"embedding.weight": ["model.embed_tokens.weight"], "norm.weight": ["model.norm.weight"]}
  if not c.tied: names["output.weight"] = ["lm_head.weight"]
  for i in range(c.n_layers):
    for ours, theirs in HF_LAYER.items():
      names[f"layers.{i}.{ours}.weight"] = [f"model.layers.{i}.{name}.weight" for name in theirs]
  return names

def read_hf_tensors(path: Path) -> dict[str, Tensor]:
  """The tensors of one .safetensors file, or of the files that a directory's model.safetensors.index.json lists."""
  index, files = path / "model.safetensors.index.json", [path / "model.safetensors" if path.is_dir() else path]
  if index.exists(): files = [path / str(name) for name in sorted(set(read_json(index).get("weight_map", {}).values()))]
  tensors: dict[str, Tensor] = {}
  for file in files: tensors |= load_safetensors(str(file))
  return tensors

def read_json(path: Path) -> dict[str, Any]:
  try: content = json.loads(path.read_text(encoding="utf-8"))
  except ValueError as error: raise ValueError(f"{path}: no valid JSON: {error}") from None
  if not isinstance(content, dict): raise ValueError(f"{path}: a JSON object is expected")
  return content

def load_model(path: Path, c: Config, room: int, precision: str = "float32") -> Llama:
  """The model at path with room for so many positions. It computes in float32; its matrices are kept in this
  precision."""
  found = read_bin_tensors(path, c) if path.suffix == ".bin" else read_hf_tensors(path)
  model, state = Llama(c, room), {}
  shapes = {name: tuple(parameter.shape) for name, parameter in model.state_dict().items()}
  for ours, theirs in hf_names(c).items():
    missing = [name for name in theirs if name not in found]
    if missing: raise ValueError(f"{path}: the tensor {missing[0]} is missing")
    parts = [found[name].float() for name in theirs]
    state[ours] = parts[0] if len(parts) == 1 else picograd.cat(parts, dim=0)
    if tuple(state[ours].shape) != shapes[ours]:
      raise ValueError(f"{path}: {' + '.join(theirs)} is {tuple(state[ours].shape)}, the config says {shapes[ours]}")
  model.load_state_dict(state, assign=True)
  for module in model.modules():
    if isinstance(module, (nn.Linear, nn.Embedding)): module.to(PRECISIONS[precision])
  for parameter in model.parameters(): parameter.realize()
  return model

# ---- tokenizers: encode(text) gives a prompt's tokens, decode(tokens) the text of all of them ------------------------

BOS = 1                  # what llama 2's vocabulary begins and ends every text with

class PieceTokenizer:
  """llama2.c's tokenizer.bin: the longest piece's length, then for each piece its score, length and bytes. Encoding
  starts from characters, else the bytes of one, and merges the neighbours that form the piece of the best score."""
  def __init__(self, path: Path, vocab_size: int):
    data, at = path.read_bytes(), 4
    self.pieces: list[bytes] = []
    self.scores: list[float] = []
    try:
      while len(self.pieces) < vocab_size:
        score, length = struct.unpack_from("<fi", data, at)
        self.pieces += struct.unpack_from(f"<{length}s", data, at + 8)
        self.scores.append(score)
        at += 8 + length
    except struct.error:
      raise ValueError(f"{path}: is no tokenizer of {vocab_size} tokens: it ends in token {len(self.pieces)}") from None
    self.ids = {piece: i for i, piece in enumerate(self.pieces)}

  def encode(self, text: str) -> list[int]:
    tokens: list[int] = []
    for character in " " + text if text else "":
      piece = character.encode()
      known = [piece] if piece in self.ids else [b"<0x%02X>" % byte for byte in piece]
      if known[0] not in self.ids: raise ValueError(f"the tokenizer knows neither {character!r} nor its bytes")
      tokens += [self.ids[piece] for piece in known]
    while True:
      pairs = [self.ids.get(self.pieces[a] + self.pieces[b]) for a, b in zip(tokens, tokens[1:])]
      merges = [(self.scores[merged], -i, merged) for i, merged in enumerate(pairs) if merged is not None]
      if not merges: return [BOS, *tokens]
      _, i, merged = max(merges)                          # the leftmost of the best
      tokens[-i:2 - i] = [merged]

  def decode(self, tokens: list[int]) -> str:
    text = b"".join(self.text_of(token) for token in tokens if token != BOS)
    return text.removeprefix(b" ").decode(errors="replace")

  def text_of(self, token: int) -> bytes:
    piece = self.pieces[token]
    is_byte = len(piece) == 6 and piece.startswith(b"<0x") and piece.endswith(b">")
    return bytes.fromhex(piece[3:5].decode()) if is_byte else piece

class CharacterTokenizer:
  """vocab.json of the bundled model: an object from each character to its token, in the order of the tokens."""
  def __init__(self, path: Path, vocab_size: int):
    self.ids = read_json(path)
    self.characters = list(self.ids)
    if list(self.ids.values()) != list(range(vocab_size)):
      raise ValueError(f"{path}: is no vocabulary of {vocab_size} characters in the order of their tokens")

  def encode(self, text: str) -> list[int]:
    unknown = [character for character in text if character not in self.ids]
    if unknown: raise ValueError(f"the model has no token for {unknown[0]!r} of the prompt")
    return [self.ids[character] for character in text or "\n"]

  def decode(self, tokens: list[int]) -> str: return "".join(self.characters[token] for token in tokens)

class HFTokenizer:
  """tokenizer.json, read by the `tokenizers` library."""
  def __init__(self, path: Path, vocab_size: int):
    try: import tokenizers
    except ImportError: raise ValueError(f"{path}: needs the tokenizers library: pip install tokenizers") from None
    try: self.tokenizer = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error: raise ValueError(f"{path}: {error}") from None      # the library raises Exception itself
    if self.tokenizer.get_vocab_size() > vocab_size:
      raise ValueError(f"{path}: has {self.tokenizer.get_vocab_size()} tokens, the model {vocab_size}")

  def encode(self, text: str) -> list[int]:
    tokens = self.tokenizer.encode(text).ids
    if not tokens: raise ValueError("this tokenizer makes no token of an empty prompt: give --prompt")
    return tokens

  def decode(self, tokens: list[int]) -> str: return self.tokenizer.decode(tokens)

Tokenizer = PieceTokenizer | CharacterTokenizer | HFTokenizer

def read_tokenizer(path: Path | None, model: Path, vocab_size: int) -> Tokenizer:
  """The tokenizer at path, or where none is given, the one that lies next to the model."""
  if path is None:
    beside = [directory_of(model) / name for name in ("tokenizer.json", "vocab.json", "tokenizer.bin")]
    path = next((candidate for candidate in beside if candidate.exists()), None)
    if path is None: raise ValueError(f"no tokenizer lies next to {model}: give --tokenizer")
  if path.suffix == ".bin": return PieceTokenizer(path, vocab_size)
  return CharacterTokenizer(path, vocab_size) if path.name == "vocab.json" else HFTokenizer(path, vocab_size)

# ---- sampling --------------------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Sampler:
  """Chooses a token by its logits, the same ones for the same seed."""
  temperature: float                     # 0: always the likeliest
  top_k: int | None                      # only the k likeliest
  top_p: float                           # only the likeliest whose probabilities sum to p
  random: np.random.Generator

  def choose(self, logits: np.ndarray) -> int:
    """logits: (vocab_size,)"""
    if self.temperature == 0: return int(logits.argmax())
    order = np.argsort(-logits, kind="stable")[:self.top_k]                # likeliest first
    scaled = logits[order].astype(np.float64) / self.temperature
    p = np.exp(scaled - scaled[0])
    p /= p.sum()
    kept = np.cumsum(p) - p < self.top_p                                   # what comes before is not enough yet
    return int(self.random.choice(order[kept], p=p[kept] / p[kept].sum()))

# ---- the command line ------------------------------------------------------------------------------------------------

@dataclass
class Meter:
  """Tokens and seconds of the two phases."""
  prompt_tokens: int = 0
  prompt_seconds: float = 0.0
  tokens: int = 0
  seconds: float = 0.0

  def __str__(self) -> str:
    prompt, rest = self.prompt_tokens / max(self.prompt_seconds, 1e-9), self.tokens / max(self.seconds, 1e-9)
    return (f"prompt: {self.prompt_tokens} tokens, {prompt:.1f} tokens/s; "
            f"generation: {self.tokens} tokens, {rest:.1f} tokens/s")

def generate(model: Llama, prompt: list[int], positions: int, sampler: Sampler, meter: Meter) -> Iterator[list[int]]:
  """The prompt's tokens, then again with each token that follows, until one that stops the text or until `positions`
  have been run. The last token needs no run of its own."""
  yield prompt
  tokens, cache = list(prompt), model.new_cache()
  start = time.perf_counter()
  logits = model.predict(tokens, 0, cache)
  meter.prompt_tokens, meter.prompt_seconds = len(tokens), time.perf_counter() - start
  start = time.perf_counter()
  while len(tokens) <= positions:
    token = sampler.choose(logits)
    if token in model.config.stop_tokens: return
    tokens.append(token)
    yield tokens
    if len(tokens) <= positions: logits = model.predict([token], len(tokens) - 1, cache)
    meter.tokens, meter.seconds = meter.tokens + 1, time.perf_counter() - start

def stream(growing: Iterator[list[int]], decode: Callable[[list[int]], str]) -> None:
  """Prints the text of tokens as they grow, and a newline in any case. An unfinished character waits for its bytes."""
  text = printed = ""
  try:
    for tokens in growing:
      text = decode(tokens)
      ready = text.rstrip("\ufffd")
      print(ready[len(printed):], end="", flush=True)
      printed = ready
  finally: print(text[len(printed):], flush=True)

class Parser(argparse.ArgumentParser):
  def error(self, message: str) -> NoReturn: fail(message)

def fail(cause: object) -> NoReturn: sys.exit(f"llama.py: {cause}")

def number(kind: type, fits: Callable[[Any], bool], wanted: str) -> Callable[[str], Any]:
  """A reader of flag values: the text as a number of this kind, if it fits."""
  def read(text: str) -> Any:
    try: value = kind(text)
    except ValueError: raise argparse.ArgumentTypeError(f"{text!r} is not {wanted}") from None
    if not fits(value): raise argparse.ArgumentTypeError(f"{text} is not {wanted}")
    return value
  return read

COUNT = number(int, lambda n: n > 0, "a positive integer")
SEED = number(int, lambda n: n >= 0, "an integer from 0 up")
TEMPERATURE = number(float, lambda t: 0 <= t < math.inf, "a number from 0 up")
SHARE = number(float, lambda p: 0 < p <= 1, "a number above 0 and at most 1")

def parse_arguments() -> argparse.Namespace:
  parser = Parser(prog="llama.py", description="A llama language model continues a text.")
  flag = parser.add_argument
  flag("--model", type=Path, default=BUNDLED_MODEL, metavar="PATH",
       help="a llama2.c .bin file, or a directory with config.json and model.safetensors; default: the bundled model")
  flag("--tokenizer", type=Path, metavar="PATH",
       help="a tokenizer.json, vocab.json or llama2.c tokenizer .bin; default: the one next to the model")
  flag("--prompt", metavar="TEXT",
       help=f"the text to continue; default: {BUNDLED_PROMPT!r} for the bundled model, empty for others")
  flag("--steps", type=COUNT, default=256, metavar="N",
       help="positions to run, those of the prompt included, at most the model's context; default: 256")
  flag("--temperature", type=TEMPERATURE, default=0.8, metavar="T",
       help="above 1 flattens the choice, below 1 sharpens it, 0 takes the likeliest token; default: 0.8")
  flag("--top-k", type=COUNT, metavar="K", help="choose among the K likeliest tokens; default: all")
  flag("--top-p", type=SHARE, default=0.95, metavar="P",
       help="choose among the likeliest tokens that together have probability P; default: 0.95")
  flag("--weights", choices=PRECISIONS, default="float32", metavar="P",
       help="the precision in which matrices are kept: float32, float16 or bfloat16; default: float32")
  flag("--seed", type=SEED, metavar="S", help="of the choices; default: a new one each time")
  flag("--device", type=str.upper, default=DEVICE.value, metavar="D", help=f"default: {DEVICE.value}")
  args = parser.parse_args()
  if args.prompt is None: args.prompt = BUNDLED_PROMPT if args.model == BUNDLED_MODEL else ""
  if args.seed is None: args.seed = int.from_bytes(os.urandom(4), "little")
  return args

def prepare(args: argparse.Namespace) -> tuple[Llama, Tokenizer, list[int], int]:
  """The model with just enough room, the tokenizer, the prompt's tokens, and how many positions to run."""
  config = read_config(args.model)
  tokenizer = read_tokenizer(args.tokenizer, args.model, config.vocab_size)
  try: prompt = tokenizer.encode(args.prompt)
  except UnicodeEncodeError: raise ValueError("the prompt is no valid UTF-8") from None
  positions = min(args.steps, config.context)
  if len(prompt) > config.context:
    raise ValueError(f"the prompt has {len(prompt)} tokens, the model's context holds {config.context}")
  if len(prompt) > positions: raise ValueError(f"the prompt has {len(prompt)} tokens, more than --steps {positions}")
  room = min(config.context, -(-positions // CACHE_STEP) * CACHE_STEP)
  return load_model(args.model, config, room, args.weights), tokenizer, prompt, positions

@contextlib.contextmanager
def interrupts() -> Iterator[list[int]]:
  """A list to which the first Ctrl-C adds. An exception might come while memory is freed, where Python prints it and
  goes on; the second Ctrl-C is one."""
  seen: list[int] = []
  def note(number: int, frame: Any) -> None:
    seen.append(number)
    signal.signal(number, signal.default_int_handler)
  before = signal.signal(signal.SIGINT, note)
  try: yield seen
  finally: signal.signal(signal.SIGINT, before)

def run(args: argparse.Namespace) -> int:
  """The program's exit status."""
  try: model, tokenizer, prompt, positions = prepare(args)
  except OSError as error: fail(f"{error.filename}: {error.strerror}")
  except ValueError as error: fail(error)
  sampler = Sampler(args.temperature, args.top_k, args.top_p, np.random.default_rng(args.seed))
  meter, status = Meter(), 0
  try:
    with interrupts() as seen:
      tokens = generate(model, prompt, positions, sampler, meter)
      stream(itertools.takewhile(lambda token: not seen, tokens), tokenizer.decode)
      if seen: status = 130                               # what a shell reports for a program that SIGINT ended
  except KeyboardInterrupt: status = 130
  except BrokenPipeError: os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())    # as in llama.py | head
  except OSError as error: fail(f"cannot write the text: {error.strerror}")               # a full disk
  print(f"{meter} (seed {args.seed})", file=sys.stderr)
  return status

def main() -> None:
  args = parse_arguments()
  if isinstance(sys.stdout, io.TextIOWrapper): sys.stdout.reconfigure(encoding="utf-8")        # in any locale
  with DEVICE.set(args.device): sys.exit(run(args))

if __name__ == "__main__": main()
