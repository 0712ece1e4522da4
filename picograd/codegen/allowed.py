# allowed.py: refuses Opts that would change what a kernel computes, where steps that have to come one after the other
# would come at the same time. In: kernel and Opts, of rules, of a search or of a user. Out: the Opts.   (chapter 3)
from __future__ import annotations
from typing import Sequence
from picograd.codegen.optimize import AnyOpt, Opt, common_start, stores_of
from picograd.helpers import dedup
from picograd.ops.ops import Axis
from picograd.ops.uop import UOp

BY_WORKERS = (Axis.THREAD, Axis.GLOBAL)        # each has memory of its own for what nests pass to one another
ACROSS_NESTS = (*BY_WORKERS, Axis.BLOCK, Axis.TILE)          # these give a nest loops that others do not have

def allowed(kernel: UOp, opts: Sequence[AnyOpt]) -> Sequence[AnyOpt]:
  """The Opts. ValueError names one whose range must run in order."""
  nests = dedup(loops for _, loops in stores_of(kernel))
  shared = {r.arg[0] for r in common_start(nests)} if len(nests) > 1 else set()
  in_order = {r.arg[0] for loops in nests for r in loops if r.axis is Axis.REDUCE}
  for opt in opts:
    if not isinstance(opt, Opt): continue
    if opt.number in in_order:
      raise ValueError(f"{opt}: a step of r{opt.number} may change what the next one reads")
    is_right = opt.axis in BY_WORKERS if opt.number in shared else opt.axis not in ACROSS_NESTS
    if len(nests) == 1 or is_right: continue
    raise ValueError(f"{opt}: loop nests pass results to one another, so only ranges that they share ({named(shared)}) "
                     f"can be divided among threads, and those in no other way")
  return opts

def named(numbers: set[int]) -> str: return ", ".join(f"r{n}" for n in sorted(numbers)) or "none"
