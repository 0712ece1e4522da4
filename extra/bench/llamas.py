# llamas.py: one llama with random weights (checkpoints.py) in every library, as an object with predict(tokens, start)
# -> logits after the last token. picograd's is llama.py's own; torch, jax and tinygrad run `llama` below in their words
# (dialects.py); llama2.c and llama.cpp are called through their C interfaces. The reference is NumPy in float64.
from __future__ import annotations
import ctypes, functools, os
from typing import Any, Callable
import numpy as np
from llama import Config, load_model, pairs_to_halves
from .checkpoints import HEADER_BYTES, LLAMAS, bin_file, gguf_file, weights_of
from .dialects import JaxWords, TinygradWords, TorchLike, Weights
from .workloads import Array, directory

ROOM = 320               # positions in the cache: a prompt of 256, and some more
TOLERANCE = {"fp32": 5e-4, "fp16": 2e-2}

def prompt(name: str, length: int) -> list[int]:
  return [int(token) for token in np.random.default_rng(2).integers(3, LLAMAS[name].vocab_size, length)]

def matrix_elements(name: str) -> int:
  """Of the matrices that every token is multiplied with."""
  return sum(w.layers * w.shape[0] * w.shape[1] for w in weights_of(LLAMAS[name]) if len(w.shape) == 2)

def flops(name: str) -> int: return 2 * (matrix_elements(name) - LLAMAS[name].vocab_size * LLAMAS[name].dim)
def bytes_read(name: str, dtype: str) -> int: return matrix_elements(name) * (2 if dtype == "fp16" else 4)

def mapped(name: str) -> dict[str, Array]:
  """The weights under their GGUF names, read from the .bin file as they are needed."""
  c = LLAMAS[name]
  path, at = bin_file(directory(), name), HEADER_BYTES
  out: dict[str, Array] = {}
  for weight in weights_of(c):
    for layer in range(weight.layers):
      found: Array = np.memmap(path, np.float32, "c", at, weight.shape)
      out[weight.gguf.format(layer)] = found
      at += found.nbytes
  return out

# ---- the reference ---------------------------------------------------------------------------------------------------

def rms_norm(x: Array, weight: Array) -> Array:
  return x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-5) * weight

def rotated(x: Array, angles: Array) -> Array:
  """Pairs of neighbours turned by their angles. x: (T, H, D), angles: (T, D / 2)"""
  turned = (x[..., 0::2] + 1j * x[..., 1::2]) * np.exp(1j * angles)[:, None]
  return np.stack([turned.real, turned.imag], -1).reshape(x.shape)

def reference(name: str, tokens: list[int]) -> Array:
  """Logits after every token, in float64: (T, vocabulary)"""
  c, T = LLAMAS[name], len(tokens)
  w = mapped(name)
  def times(x: Array, weight: str) -> Array: return x @ w[weight].T.astype(np.float64)
  angles = np.outer(np.arange(T), c.rope_theta ** (-np.arange(0, c.head_dim, 2) / c.head_dim))
  future = np.triu(np.full((T, T), -np.inf), 1)
  x: Array = w["token_embd.weight"][tokens].astype(np.float64)
  for i in range(c.n_layers):
    part = f"blk.{i}.{{}}.weight".format
    h = rms_norm(x, w[part("attn_norm")])
    q, k, v = (times(h, part(f"attn_{kind}")).reshape(T, -1, c.head_dim) for kind in "qkv")
    q, k = rotated(q, angles), rotated(k, angles)
    k, v = (np.repeat(values, c.n_heads // c.n_kv_heads, 1) for values in (k, v))
    scores = np.einsum("thd,lhd->htl", q, k) / np.sqrt(c.head_dim) + future
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    x = x + times(np.einsum("htl,lhd->thd", weights, v).reshape(T, -1), part("attn_output"))
    h = rms_norm(x, w[part("ffn_norm")])
    gate = times(h, part("ffn_gate"))
    x = x + times(gate / (1 + np.exp(-gate)) * times(h, part("ffn_up")), part("ffn_down"))
  return times(rms_norm(x, w["output_norm.weight"]), "token_embd.weight")

# ---- in the words of torch, jax or tinygrad --------------------------------------------------------------------------

def llama(o: Any, w: Weights, c: Config, tokens: Any, start: Any, caches: list[Any]) -> tuple[Any, list[Any]]:
  """tokens: (T,), at positions start and on -> logits after the last (vocabulary,), and the caches with them"""
  T, heads, kv = tokens.shape[0], c.n_heads, c.n_kv_heads
  at, out = o.positions(start, T), []
  cos, sin = w["cos"][at][:, None], w["sin"][at][:, None]            # (T, 1, D / 2)
  mask = w["every"][None] <= at[:, None]                             # (T, L)
  x = o.embedding(w["embedding"], tokens)                            # (T, dim)
  for i in range(c.n_layers):
    qkv = o.linear(o.rms_norm(x, w[f"{i}.attn_norm"]), w[f"{i}.qkv"]).reshape(T, heads + 2 * kv, c.head_dim)
    first, second = qkv[:, :heads + kv, :c.head_dim // 2], qkv[:, :heads + kv, c.head_dim // 2:]
    turned = o.cat([first * cos - second * sin, second * cos + first * sin], -1)
    keys_values = o.cat([turned[:, heads:], qkv[:, heads + kv:]], 1).reshape(T, 2, kv, c.head_dim)
    cache = o.stored(caches[i], start, o.swap(o.swap(keys_values, 0, 1), 1, 2))      # (2, KV, L, D)
    mixed = o.masked(o.swap(turned[:, :heads], 0, 1), cache[0], cache[1], mask)       # (H, T, D)
    x = x + o.linear(o.swap(mixed, 0, 1).reshape(T, heads * c.head_dim), w[f"{i}.attn_output"])
    h = o.rms_norm(x, w[f"{i}.ffn_norm"])
    x = x + o.linear(o.silu(o.linear(h, w[f"{i}.ffn_gate"])) * o.linear(h, w[f"{i}.ffn_up"]), w[f"{i}.ffn_down"])
    out.append(cache)
  return o.linear(o.rms_norm(x[-1], w["output_norm"]), w["embedding"]), out

def library_weights(name: str, convert: Callable[[Array], Any]) -> Weights:
  """Matrices of one input stacked, the halves of a head where the model looks for them."""
  c, found, w = LLAMAS[name], mapped(name), {}
  for i in range(c.n_layers):
    q, k, v = (found[f"blk.{i}.attn_{kind}.weight"] for kind in "qkv")
    w[f"{i}.qkv"] = convert(np.concatenate([pairs_to_halves(q, c.head_dim), pairs_to_halves(k, c.head_dim), v]))
    for kind in ("attn_norm", "attn_output", "ffn_norm", "ffn_gate", "ffn_up", "ffn_down"):
      w[f"{i}.{kind}"] = convert(found[f"blk.{i}.{kind}.weight"])
  w["embedding"], w["output_norm"] = convert(found["token_embd.weight"]), convert(found["output_norm.weight"])
  angles: Array = np.outer(np.arange(ROOM), c.rope_theta ** (-np.arange(0, c.head_dim, 2) / c.head_dim))
  w["cos"], w["sin"] = (convert(f(angles).astype(np.float32)) for f in (np.cos, np.sin))
  return w

def empty_caches(c: Config) -> list[Array]:
  return [np.zeros((2, c.n_kv_heads, ROOM, c.head_dim), np.float32) for _ in range(c.n_layers)]

class TorchModel:
  """Eager, or compiled where the caller hands over torch.compile."""
  def __init__(self, name: str, dtype: str, compile: Callable[..., Any]):
    import torch
    self.torch, self.c = torch, LLAMAS[name]
    kind = torch.float16 if dtype == "fp16" else torch.float32
    convert = lambda array: torch.from_numpy(array).to(kind)
    self.w = library_weights(name, convert) | {"every": torch.arange(ROOM)}
    self.caches = [convert(cache) for cache in empty_caches(self.c)]
    self.run = compile(functools.partial(llama, TorchLike(torch), self.w, self.c))

  def predict(self, tokens: list[int], start: int) -> Array:
    with self.torch.inference_mode(): return self.run(self.torch.tensor(tokens), start, self.caches)[0].float().numpy()

class JaxModel:
  def __init__(self, name: str):
    import jax
    self.c, o = LLAMAS[name], JaxWords()
    self.w = library_weights(name, o.tensor) | {"every": o.n.arange(ROOM)}
    self.caches = [o.tensor(cache) for cache in empty_caches(self.c)]
    self.run = jax.jit(lambda w, tokens, start, caches: llama(o, w, self.c, tokens, start, caches), donate_argnums=3)

  def predict(self, tokens: list[int], start: int) -> Array:
    logits, self.caches = self.run(self.w, np.array(tokens, np.int32), np.int32(start), self.caches)
    return np.asarray(logits)

class TinygradModel:
  def __init__(self, name: str):
    import tinygrad
    self.tinygrad, self.c, o = tinygrad, LLAMAS[name], TinygradWords()
    self.w = library_weights(name, o.tensor) | {"every": tinygrad.Tensor.arange(ROOM).contiguous().realize()}
    self.caches = [o.tensor(cache) for cache in empty_caches(self.c)]
    self.start = tinygrad.UOp.variable("start", 0, ROOM - 1)
    run = lambda tokens, start: llama(o, self.w, self.c, tokens, start, self.caches)[0].realize()
    self.run = functools.cache(lambda length: tinygrad.TinyJit(run))                  # a jit knows one shape

  def predict(self, tokens: list[int], start: int) -> Array:
    data = self.tinygrad.Tensor(np.array(tokens, np.int32)).realize()
    at = self.start.bind(start) if len(tokens) == 1 else 0           # a prompt begins a text
    return self.run(len(tokens))(data, at).numpy()

# ---- the others ------------------------------------------------------------------------------------------------------

class PicogradModel:
  """llama.py's, with its matrices in the wanted precision."""
  def __init__(self, name: str, dtype: str):
    precision = {"fp32": "float32", "fp16": "float16"}[dtype]
    self.model = load_model(bin_file(directory(), name), LLAMAS[name], ROOM, precision)
    self.cache = self.model.new_cache()
  def predict(self, tokens: list[int], start: int) -> Array: return self.model.predict(tokens, start, self.cache)

class Llama2C:
  """run.c as a library: gcc -Ofast -march=native -fopenmp -fPIC -shared -DTESTING -o llama2c.so run.c -lm"""
  def __init__(self, name: str):
    self.size, self.library = LLAMAS[name].vocab_size, ctypes.CDLL(os.environ["LLAMA2C"])
    self.transformer = ctypes.create_string_buffer(4096)             # room for its struct
    self.library.build_transformer(self.transformer, str(bin_file(directory(), name)).encode())
    self.library.forward.restype = ctypes.POINTER(ctypes.c_float)
  def predict(self, tokens: list[int], start: int) -> Array:
    for position, token in enumerate(tokens, start): logits = self.library.forward(self.transformer, token, position)
    return np.ctypeslib.as_array(logits, (self.size,)).copy()

class LlamaCpp:
  """Its context is as long as the others' caches; what it keeps of earlier positions is in the weights' precision."""
  def __init__(self, name: str, dtype: str):
    import llama_cpp as c
    self.c, self.size = c, LLAMAS[name].vocab_size
    silence = c.llama_log_callback(lambda level, text, data: None)
    c.llama_log_set(silence, ctypes.c_void_p())
    self.silence = silence
    path = gguf_file(directory(), name, np.float16 if dtype == "fp16" else np.float32)
    self.model = c.llama_model_load_from_file(str(path).encode(), c.llama_model_default_params())
    if not self.model: raise RuntimeError(f"llama.cpp cannot load {path}")
    params = c.llama_context_default_params()
    params.n_ctx = params.n_batch = params.n_ubatch = ROOM
    params.n_threads = params.n_threads_batch = int(os.environ["THREADS"])
    params.flash_attn_type = c.LLAMA_FLASH_ATTN_TYPE_DISABLED        # which rounds to float16
    params.type_k = params.type_v = 1 if dtype == "fp16" else 0      # GGML_TYPE_F16, GGML_TYPE_F32
    self.context = c.llama_init_from_model(self.model, params)

  def predict(self, tokens: list[int], start: int) -> Array:
    self.c.llama_memory_seq_rm(self.c.llama_get_memory(self.context), 0, start, -1)
    given = (self.c.llama_token * len(tokens))(*tokens)              # which the batch points to
    batch = self.c.llama_batch_get_one(given, len(tokens))
    if self.c.llama_decode(self.context, batch): raise RuntimeError("llama_decode failed")
    return np.ctypeslib.as_array(self.c.llama_get_logits_ith(self.context, -1), (self.size,)).copy()
