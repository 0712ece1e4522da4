# codegen: a kernel becomes a program by the passes of this table, in this order. Each pass is a function of its
# arguments; after each the graph is verified (SPEC=1) and may be printed (DUMP=name).   (chapter 3)
from __future__ import annotations
import functools, hashlib
from pathlib import Path
from typing import Any, Callable, NamedTuple
from picograd.codegen.allowed import allowed
from picograd.codegen.border import skip_borders
from picograd.codegen.cuda import Listing
from picograd.codegen.expand import expand
from picograd.codegen.flat import flatten, mem2reg
from picograd.codegen.gpu import choose_gpu_opts
from picograd.codegen.heuristic import choose_opts
from picograd.codegen.linearize import linearize
from picograd.codegen.lower import lower
from picograd.codegen.optimize import Opt, apply_opts, merge_neighbours, split_divided_ranges
from picograd.codegen.overlap import join_copies
from picograd.codegen.place import place
from picograd.codegen.stream import advise_caches
from picograd.codegen.target import Target
from picograd.codegen.unroll import write_out_short_loops, write_out_tiles
from picograd.helpers import DEBUG, DUMP, NOOPT, SPEC
from picograd.ops.show import show
from picograd.ops.spec import verify
from picograd.ops.uop import UOp

@functools.cache
def compiler() -> bytes:
  """A digest of this compiler's sources: whoever edits them finds on the disk nothing that it made before."""
  root = Path(__file__).parent.parent
  files = [root / "dtype.py", *[f for part in ("ops", "codegen", "runtime") for f in sorted((root / part).glob("*.*"))]]
  return hashlib.sha256(b"\0".join(f.read_bytes() for f in files if f.is_file())).digest()

class Job(NamedTuple):
  """What a pass may know besides the graph."""
  name: str
  target: Target
  opts: list[Opt]

class Pass(NamedTuple):
  name: str
  run: Callable[[Any, Job], Any]
  form: str                       # what comes out: the stage of ops/spec.py that it must satisfy

#    name          what it does                                       form after it
STRUCTURED = (
  Pass("optimize",  lambda code, job: apply_opts(code, allowed(code, job.opts)), "kernel"),
  Pass("borders",   lambda code, job: skip_borders(code),             "kernel"),
  Pass("expand",    lambda code, job: expand(code),                   "kernel"),
  Pass("stream",    lambda code, job: advise_caches(code, job.target), "kernel"),
  Pass("lower",     lambda code, job: lower(code, job.target),        "kernel"),
  Pass("linearize", lambda code, job: linearize(code),                "linear"),
)
FLAT = (
  Pass("flatten",   lambda code, job: flatten(job.name, code),        "flat"),
  Pass("mem2reg",   lambda code, job: mem2reg(code),                  "flat"),
  Pass("short",     lambda code, job: write_out_short_loops(code, job.target.written_out),      "flat"),
  Pass("copies",    lambda code, job: join_copies(code),              "flat"),
  Pass("place",     lambda code, job: place(code, abreast=job.target.abreast),                  "placed"),
  Pass("tiles",     lambda code, job: write_out_tiles(code, job.target.written_out),            "placed"),
)
SHOWN = {5: ("optimize",), 6: ("mem2reg", "place")}                   # DEBUG level -> passes whose result it prints

def prepared(kernel: UOp) -> UOp:
  """The kernel that Opts are chosen for and applied to."""
  return merge_neighbours(split_divided_ranges(kernel))

def opts_for(kernel: UOp, target: Target) -> list[Any]:
  """The Opts a kernel is compiled with when nobody says otherwise."""
  if NOOPT: return []
  return choose_gpu_opts(kernel, target) if target.local_bytes else choose_opts(kernel, target)

def compile(name: str, kernel: UOp, target: Target, opts: list[Opt]) -> Any:
  """A kernel in the form that the target's renderer reads: flat blocks, or the structured list."""
  if target.form == "flat": return run_passes(STRUCTURED + FLAT, kernel, Job(name, target, opts))
  return Listing(name, structured(name, kernel, target, opts), target)

def structured(name: str, kernel: UOp, target: Target, opts: list[Opt]) -> list[UOp]:
  """A kernel as the structured list, whatever the target's renderer reads."""
  return run_passes(STRUCTURED, kernel, Job(name, target, opts))

def run_passes(passes: tuple[Pass, ...], code: Any, job: Job) -> Any:
  for step in passes:
    code = step.run(code, job)
    if SPEC: verify(step.form, code)
    if is_shown(step.name): print(f"-- {job.name} after {step.name}\n{show(code)}")
  return code

def is_shown(name: str) -> bool:
  return DUMP.value == name or any(DEBUG >= level and name in names for level, names in SHOWN.items())
