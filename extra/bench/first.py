# first.py: the first call of one kind in this process, for one peer: `python -m extra.bench.first PEER KIND`. Prints
# the seconds that it took until the result was in memory; imports, inputs and weights come before.
from __future__ import annotations
import sys, time
from typing import Any, Callable
import numpy as np
from . import peers, training, workloads

def matmul(peer: peers.Peer) -> Callable[[], Any]:
  e = workloads.matmul("matmul 1024", 1024, 1024, 1024)
  arrays = e.arrays()
  def call() -> Any:
    bound = peer.bind(e, arrays)
    return bound and peer.array(bound())
  return call

def decode(peer: peers.Peer) -> Callable[[], Any]:
  model = peer.llama("110M", "fp32")
  return lambda: model.predict([1], 0)

def gpt2(peer: peers.Peer) -> Callable[[], Any]:
  """Forward, B=1 T=64."""
  model = training.GPT2_124M
  words = peer.words()
  weights = {name: words.tensor(array) for name, array in training.initial(model.shapes()).items()}
  tokens = words.tensor(np.random.default_rng(0).integers(0, model.vocabulary, (1, 64)))
  run = peer.jitted(lambda tokens: model.logits(words, weights, tokens))
  return lambda: peer.array(run(tokens))

KINDS = {"matmul": matmul, "decode": decode, "gpt2": gpt2}

if __name__ == "__main__":
  call = KINDS[sys.argv[2]](peers.PEERS[sys.argv[1]]())
  start = time.perf_counter()
  call()
  print(time.perf_counter() - start)
