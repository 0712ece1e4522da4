# checkpoints.py: llamas with random weights, as the files that the C peers read: llama2.c's .bin, and GGUF with float32
# or float16 matrices. In: a row of LLAMAS. Out: a path; a file is written once per directory. Both hold equal weights,
# and every token has a name, so that the readers are content.
from __future__ import annotations
import math, os, struct
from pathlib import Path
from typing import Any, Iterator, NamedTuple
import numpy as np
from llama import Config

HEADER_BYTES = 28        # of a .bin file: seven int32
VOCABULARY = 32000
LLAMAS = {
  "tiny": Config(64, 96, 2, 4, 2, 16, 512, 256, tied=True),                               # for tests
  "15M": Config(288, 768, 6, 6, 6, 48, VOCABULARY, 512, tied=True),                       # llama2.c's stories15M
  "110M": Config(768, 2048, 12, 12, 12, 64, VOCABULARY, 512, tied=True),                  # stories110M
  "1B": Config(2048, 8192, 16, 32, 8, 64, 128256, 512, tied=True),                        # llama 3.2
}

class Weight(NamedTuple):
  gguf: str                                   # name there; {} is the layer
  layers: int
  shape: tuple[int, ...]

def weights_of(c: Config) -> list[Weight]:
  """In llama2.c's order: all layers of one kind lie together."""
  n, q, kv = c.n_layers, c.n_heads * c.head_dim, c.n_kv_heads * c.head_dim
  return [
    Weight("token_embd.weight", 1, (c.vocab_size, c.dim)),
    Weight("blk.{}.attn_norm.weight", n, (c.dim,)),
    Weight("blk.{}.attn_q.weight", n, (q, c.dim)),
    Weight("blk.{}.attn_k.weight", n, (kv, c.dim)),
    Weight("blk.{}.attn_v.weight", n, (kv, c.dim)),
    Weight("blk.{}.attn_output.weight", n, (c.dim, q)),
    Weight("blk.{}.ffn_norm.weight", n, (c.dim,)),
    Weight("blk.{}.ffn_gate.weight", n, (c.hidden_dim, c.dim)),
    Weight("blk.{}.ffn_down.weight", n, (c.dim, c.hidden_dim)),
    Weight("blk.{}.ffn_up.weight", n, (c.hidden_dim, c.dim)),
    Weight("output_norm.weight", 1, (c.dim,)),
  ]

def tensors(c: Config) -> Iterator[tuple[str, np.ndarray]]:
  """Every weight, drawn so that activations keep their size. Matrices hold values that float16 has, too: all precisions
  then compute the same model."""
  random = np.random.default_rng(0)
  for weight in weights_of(c):
    for layer in range(weight.layers):
      values = random.standard_normal(weight.shape, np.float32)
      if len(weight.shape) == 1: values = 1 + values / 10
      else: values = (values / math.sqrt(weight.shape[-1])).astype(np.float16).astype(np.float32)
      yield weight.gguf.format(layer), values

def written(path: Path, write: Any) -> Path:
  """The file at path, written under another name first: an interrupted run leaves no half of it."""
  if path.exists(): return path
  path.parent.mkdir(parents=True, exist_ok=True)
  part = path.with_suffix(".part")
  write(part)
  os.replace(part, path)
  return path

def bin_file(directory: Path, name: str) -> Path:
  """A llama2.c checkpoint: seven integers, the weights, and where older versions kept the angles, zeros."""
  c = LLAMAS[name]
  def write(path: Path) -> None:
    with path.open("wb") as f:
      f.write(struct.pack("<7i", c.dim, c.hidden_dim, c.n_layers, c.n_heads, c.n_kv_heads, c.vocab_size, c.context))
      for _, values in tensors(c): f.write(values.tobytes())
      f.write(bytes(4 * c.context * c.head_dim))
  return written(directory / f"{name}.bin", write)

def gguf_file(directory: Path, name: str, dtype: type[np.floating]) -> Path:
  c = LLAMAS[name]
  def write(path: Path) -> None:
    import gguf
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_context_length(c.context)
    writer.add_embedding_length(c.dim)
    writer.add_block_count(c.n_layers)
    writer.add_feed_forward_length(c.hidden_dim)
    writer.add_head_count(c.n_heads)
    writer.add_head_count_kv(c.n_kv_heads)
    writer.add_layer_norm_rms_eps(c.norm_eps)
    writer.add_rope_dimension_count(c.head_dim)
    writer.add_vocab_size(c.vocab_size)
    add_tokenizer(writer, c.vocab_size)
    for tensor, values in tensors(c): writer.add_tensor(tensor, values.astype(dtype) if values.ndim == 2 else values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
  return written(directory / f"{name}-{np.dtype(dtype).name}.gguf", write)

def add_tokenizer(writer: Any, size: int) -> None:
  """Names that no text contains; only the first three mean anything."""
  writer.add_tokenizer_model("llama")
  writer.add_token_list(["<unk>", "<s>", "</s>", *(f"<token{i}>" for i in range(3, size))])
  writer.add_token_scores([0.0] * size)
  writer.add_token_types([2, 3, 3] + [1] * (size - 3))                                    # unknown, control, normal
  writer.add_bos_token_id(1)
  writer.add_eos_token_id(2)
