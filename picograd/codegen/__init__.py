# codegen: a kernel becomes a program by the passes of this table, in this order. Each pass is a function of its arguments;
# after each the graph is verified (SPEC=1) and may be printed (DUMP=name).   (chapter 3)
from __future__ import annotations
from typing import Any, Callable, NamedTuple
from picograd.codegen.expand import expand
from picograd.codegen.flat import flatten, mem2reg
from picograd.codegen.heuristic import choose_opts
from picograd.codegen.linearize import linearize
from picograd.codegen.lower import lower
from picograd.codegen.optimize import Opt, apply_opts, split_divided_ranges
from picograd.codegen.place import place
from picograd.codegen.target import Target
from picograd.helpers import DEBUG, DUMP, NOOPT, SPEC
from picograd.ops.show import show
from picograd.ops.spec import verify
from picograd.ops.uop import UOp

class Pass(NamedTuple):
  name: str
  run: Callable[[Any, "Job"], Any]
  form: str                       # what comes out: the stage of ops/spec.py that it must satisfy

class Job(NamedTuple):
  """What a pass may know besides the graph."""
  name: str
  target: Target
  opts: list[Opt]

#    name          what it does                                                                     form after it
STRUCTURED = (
  Pass("optimize",  lambda kernel, job: apply_opts(kernel, job.opts),                               "kernel"),
  Pass("expand",    lambda kernel, job: expand(kernel),                                             "kernel"),
  Pass("lower",     lambda kernel, job: lower(kernel, job.target),                                  "kernel"),
  Pass("linearize", lambda kernel, job: linearize(kernel),                                          "linear"),
)
FLAT = (
  Pass("flatten",   lambda code, job: flatten(job.name, code),                                      "flat"),
  Pass("mem2reg",   lambda code, job: mem2reg(code),                                                "flat"),
  Pass("place",     lambda code, job: place(code),                                                  "placed"),
)

def prepared(kernel: UOp) -> UOp:
  """The kernel that Opts are chosen for and applied to."""
  return split_divided_ranges(kernel)

def opts_for(kernel: UOp, target: Target) -> list[Opt]:
  """The Opts a kernel is compiled with when nobody says otherwise."""
  return [] if NOOPT else choose_opts(kernel, target)

def compile(name: str, kernel: UOp, target: Target, opts: list[Opt]) -> Any:
  """A kernel in the form that the target's renderer reads: flat blocks, or the structured list."""
  job, code = Job(name, target, opts), kernel
  for step in STRUCTURED + (FLAT if target.form == "flat" else ()):
    code = step.run(code, job)
    if SPEC: verify(step.form, code)
    if DUMP.value == step.name or (DEBUG >= 6 and step.name in ("mem2reg", "place")): print(f"-- {name} after {step.name}\n{show(code)}")
  return code
