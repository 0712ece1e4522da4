# Offsets in the arena: alive together means apart.
import random
from picograd.codegen.memory import ALIGNMENT, lifetimes, plan_memory
from picograd.dtype import dtypes
from picograd.ops.uop import UOp

def test_overlapping_lifetimes_do_not_overlap_in_memory():
  generator = random.Random(0)
  for _ in range(50):
    leaves = [UOp.buffer(dtypes.float32, generator.randrange(1, 500), "CPU") for _ in range(12)]
    uses = [generator.sample(leaves, 3) for _ in range(20)]
    arena = plan_memory(uses, set(leaves))
    spans = lifetimes(uses)
    for a in spans:
      assert arena.offsets[a] % ALIGNMENT == 0 and arena.offsets[a] + a.arg.size * 4 <= arena.size
      for b in spans:
        if a is b or spans[a][1] < spans[b][0] or spans[b][1] < spans[a][0]: continue
        a_end, b_end = (arena.offsets[leaf] + leaf.arg.size * 4 for leaf in (a, b))
        assert a_end <= arena.offsets[b] or b_end <= arena.offsets[a]

def test_a_chain_needs_two_slots():
  leaves = [UOp.buffer(dtypes.float32, 1024, "CPU") for _ in range(10)]
  uses = [[a, b] for a, b in zip(leaves, leaves[1:])]
  assert plan_memory(uses, set(leaves)).size == 2 * 4096

def test_only_temporaries_are_placed():
  a, b = (UOp.buffer(dtypes.float32, 8, "CPU") for _ in range(2))
  assert set(plan_memory([[a, b]], {b}).offsets) == {b}
