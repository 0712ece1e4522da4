# gpu_llama.py: llamas of the usual shapes with random bfloat16 weights that choose token after token without the host:
# picograd's is llama.py's own, torch's is the same network under torch.compile with CUDA graphs.
from __future__ import annotations
from typing import Any, Callable
from llama import Config, Llama
from picograd import nn

ROOM = 320               # positions in the cache, all of which every pass looks at
SHAPES = {"1B": Config(2048, 8192, 16, 32, 8, 64, 128256, 131072, tied=True, rope_theta=500000.0),
          "8B": Config(4096, 14336, 32, 32, 8, 128, 128256, 131072, tied=False, rope_theta=500000.0)}

def greedy(pg: Any, name: str) -> Callable[[], Any]:
  """A function that makes the next token."""
  model = Llama(SHAPES[name], ROOM)
  for module in model.modules():
    if isinstance(module, (nn.Linear, nn.Embedding)): module.bfloat16()
  cache, last = model.new_cache(), pg.tensor([0])
  def step(token: Any, position: Any) -> Any:
    logits = model.logits_after(last, token, position, ROOM, cache)[:, 0]
    return logits.argmax(-1, keepdim=True), (position + 1) % ROOM
  run, state = pg.jit(step), [pg.tensor([[3]]), pg.tensor([0])]
  def next_token() -> Any:
    with pg.no_grad(): state[:] = run(*state)
    return state[0]
  return next_token

def greedy_torch(torch: Any, name: str) -> Callable[[], Any]:
  c, F = SHAPES[name], torch.nn.functional
  def weight(*shape: int) -> Any: return (torch.randn(*shape, device="cuda") * 0.02).bfloat16()
  q = (c.n_heads + 2 * c.n_kv_heads) * c.head_dim
  layers = [{"qkv": weight(q, c.dim), "wo": weight(c.dim, c.n_heads * c.head_dim), "w1": weight(c.hidden_dim, c.dim),
             "w3": weight(c.hidden_dim, c.dim), "w2": weight(c.dim, c.hidden_dim), "n1": weight(c.dim),
             "n2": weight(c.dim), "k": weight(1, c.n_kv_heads, ROOM, c.head_dim),
             "v": weight(1, c.n_kv_heads, ROOM, c.head_dim)} for _ in range(c.n_layers)]
  embedding, norm = weight(c.vocab_size, c.dim), weight(c.dim)
  head = embedding if c.tied else weight(c.vocab_size, c.dim)
  every = torch.arange(ROOM, device="cuda")
  angles = torch.outer(every.float(), c.rope_theta ** (-torch.arange(0, c.head_dim, 2, device="cuda") / c.head_dim))
  cos, sin = angles.cos(), angles.sin()
  for tensor in (embedding, norm, head, every, cos, sin, *(x for w in layers for x in w.values())):
    torch._dynamo.mark_static_address(tensor)                # a CUDA graph need not copy it, and may write it
  def rotate(x: Any, at: Any) -> Any:
    a, b = x.float().chunk(2, -1)
    return torch.cat([a * cos[at] - b * sin[at], b * cos[at] + a * sin[at]], -1).to(x.dtype)
  def step(token: Any, at: Any) -> Any:
    x, mask = F.embedding(token, embedding), (every <= at)[None, None, None]
    for w in layers:
      h = F.linear(F.rms_norm(x, (c.dim,), w["n1"], 1e-5), w["qkv"]).view(1, 1, -1, c.head_dim).transpose(1, 2)
      query, key, value = h.split([c.n_heads, c.n_kv_heads, c.n_kv_heads], 1)
      query, key = rotate(query, at), rotate(key, at)
      w["k"].index_copy_(2, at, key)
      w["v"].index_copy_(2, at, value)
      mixed = F.scaled_dot_product_attention(query, w["k"], w["v"], attn_mask=mask, enable_gqa=True)
      x = x + F.linear(mixed.transpose(1, 2).reshape(1, 1, -1), w["wo"])
      h = F.rms_norm(x, (c.dim,), w["n2"], 1e-5)
      x = x + F.linear(F.silu(F.linear(h, w["w1"])) * F.linear(h, w["w3"]), w["w2"])
    logits = F.linear(F.rms_norm(x[:, -1], (c.dim,), norm, 1e-5), head)
    return logits.argmax(-1, keepdim=True), (at + 1) % ROOM
  run = torch.compile(step, mode="reduce-overhead", fullgraph=True)
  state = [torch.tensor([[3]], device="cuda"), torch.tensor([0], device="cuda")]
  def next_token() -> Any:
    with torch.inference_mode():
      torch.compiler.cudagraph_mark_step_begin()
      state[:] = [found.clone() for found in run(*state)]
    return state[0]
  return next_token
