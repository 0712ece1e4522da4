# test_layers.py: imports of picograd point down the list of layers: every import statement of every file, those inside
# functions too, is an edge that the table below must allow, and every file must be listed.
import ast
from pathlib import Path
import pytest

ROOT = Path(__file__).resolve().parent.parent

# module -> what it may import, besides helpers and dtype. Whoever may import a module may import what lies below it.
LAYERS = {
  "helpers": (),
  "dtype": (),
  "ops": (),
  "ops.ops": (),
  "ops.shape": ("ops.ops",),
  "ops.uop": ("ops.shape",),
  "ops.match": ("ops.uop",),
  "ops.spec": ("ops.match",),
  "ops.fold": ("ops.match",),
  "ops.index": ("ops.fold",),
  "ops.collapse": ("ops.index",),
  "ops.movement": ("ops.index",),
  "ops.windows": ("ops.uop",),
  "ops.gradient": ("ops.match", "ops.windows"),
  "ops.decompose": ("ops.fold",),
  "ops.show": ("ops.uop",),
  "codegen.target": ("ops.ops",),
  "codegen.rangeify": ("codegen.target", "ops.movement"),
  "codegen.partial": ("codegen.target", "ops.uop"),
  "codegen.turned": ("codegen.target", "ops.movement"),
  "codegen.places": ("codegen.rangeify", "codegen.target", "ops.collapse"),
  "codegen.rows": ("codegen.rangeify", "codegen.target"),
  "codegen.schedule": ("codegen.partial", "codegen.turned", "codegen.places", "codegen.rows"),
  "codegen.memory": ("ops.uop",),
  "codegen.optimize": ("ops.index", "codegen.target"),
  "codegen.allowed": ("codegen.optimize",),
  "codegen.tiling": ("codegen.optimize",),
  "codegen.heuristic": ("codegen.tiling",),
  "codegen.matrix": ("ops.ops",),
  "codegen.tiles": ("codegen.heuristic", "codegen.matrix"),
  "codegen.grid": ("codegen.optimize",),
  "codegen.ring": ("codegen.grid", "codegen.target"),
  "codegen.gpu": ("codegen.heuristic", "codegen.tiles", "codegen.ring"),
  "codegen.shuffle": ("ops.index",),
  "codegen.border": ("codegen.optimize",),
  "codegen.expand": ("codegen.optimize", "codegen.grid", "codegen.shuffle", "ops.movement"),
  "codegen.stream": ("codegen.optimize", "codegen.target"),
  "codegen.lower": ("ops.decompose", "codegen.grid", "codegen.target"),
  "codegen.linearize": ("ops.index",),
  "codegen.flat": ("ops.match",),
  "codegen.place": ("codegen.flat",),
  "codegen.unroll": ("codegen.flat",),
  "codegen.overlap": ("codegen.unroll",),
  "codegen.flatopt": ("codegen.flat", "ops.fold"),
  "codegen.inline": ("codegen.flat",),
  "codegen.memopt": ("codegen.flatopt",),
  "codegen.cuda": ("codegen.grid", "codegen.matrix", "codegen.ring", "codegen.target", "ops.uop"),
  "codegen.llvmir": ("codegen.place",),
  "codegen.llvmmodule": ("codegen.llvmir",),                     # C programs
  "codegen.rvasm": (),
  "codegen.rvobject": ("codegen.rvasm",),
  "codegen.regalloc": ("codegen.place",),
  "codegen.rvvalue": ("ops.uop",),
  "codegen.rvv": ("codegen.rvvalue", "codegen.flat"),
  "codegen.rvlegal": ("codegen.rvvalue", "codegen.flat"),
  "codegen.rvrules": ("codegen.rvvalue",),
  "codegen.rvselect": ("codegen.rvrules", "codegen.rvobject", "codegen.rvv", "ops.decompose"),
  "codegen.rvabi": ("codegen.regalloc", "codegen.rvobject", "codegen.rvvalue"),
  "codegen.rvemit": ("codegen.rvabi", "codegen.rvrules", "codegen.rvv"),
  "codegen.riscv": ("codegen.rvemit", "codegen.rvselect", "codegen.rvlegal", "codegen.flatopt"),
  "codegen": ("codegen.*", "ops.spec", "ops.show"),
  "runtime": (),
  "runtime.device": ("codegen.target", "ops.uop"),                # BUFFER leaf -> its memory
  "runtime.cpu": ("runtime.device", "codegen.llvmir"),
  "runtime.nvrtc": (),
  "runtime.cuda": ("runtime.device", "runtime.nvrtc", "codegen.cuda"),
  "runtime.riscv": ("runtime.device", "codegen.riscv"),
  "runtime.python": ("runtime.device", "codegen.place"),          # interprets flat blocks
  "runtime.numpy": ("runtime.device", "ops.uop"),                 # interprets the tensor graph
  "runtime.collective": ("runtime.device",),
  "runtime.process": (),
  "runtime.beam": ("runtime.device", "runtime.numpy", "runtime.process", "codegen"),   # numpy: 16-bit floats
  "runtime.limits": (),
  "runtime.profile": ("runtime.device",),
  "runtime.plan": ("codegen", "runtime.device", "runtime.process"),
  "runtime.realize": ("runtime.plan", "runtime.profile"),
  "runtime.jit": ("runtime.realize",),
  "common": (),
  "arithmetic": ("ops.uop",),
  "storage": ("ops.uop", "runtime.realize"),
  "indexing": ("arithmetic", "storage"),
  "tensor": ("ops.*", "runtime.jit", "arithmetic", "storage", "indexing", "common"),
}

# torch-shaped namespaces on top of Tensor: a module or a package each; they may use each other
NAMESPACES = ("library", "nn", "optim", "random", "io", "utils", "linalg", "distributions", "func", "cuda", "autograd",
              "capture", "amp", "dynamo")

ALWAYS = ("helpers", "dtype")
ORDER = list(LAYERS)

def is_namespace(module: str) -> bool: return module.split(".")[0] in NAMESPACES

def matches(module: str, allowed: str) -> bool:
  """Whether module is what an entry of the table names; 'codegen.*' names every module of a package."""
  return module.startswith(allowed[:-1]) if allowed.endswith(".*") else module == allowed

def reachable(module: str) -> set[str]:
  """Every listed module that lies below a module."""
  below: set[str] = set()
  todo = [m for m in ORDER if any(matches(m, allowed) for allowed in LAYERS[module]) and m != module]
  while todo:
    m = todo.pop()
    if m in below: continue
    below.add(m)
    todo += [n for n in ORDER if any(matches(n, allowed) for allowed in LAYERS[m]) and n != m]
  return below

def may_import(importer: str, imported: str) -> bool:
  if importer == "__init__": return True                          # picograd/__init__.py gathers the user's names
  if imported in ALWAYS: return importer != "helpers"
  if is_namespace(importer): return is_namespace(imported) or imported == "tensor" or imported in reachable("tensor")
  return imported in reachable(importer)

# ---- reading imports -------------------------------------------------------------------------------------------------

def module_name(path: Path) -> str:
  """picograd/ops/uop.py -> ops.uop; a package is named without __init__; picograd/__init__.py is __init__."""
  parts = path.relative_to(ROOT / "picograd").with_suffix("").parts
  if parts[-1] == "__init__" and len(parts) > 1: parts = parts[:-1]
  return ".".join(parts)

def is_module(dotted: str) -> bool:
  base = ROOT.joinpath(*dotted.split("."))
  return base.with_suffix(".py").exists() or (base / "__init__.py").exists()

def absolute(node: ast.ImportFrom, package: str) -> str:
  """The dotted name that a `from .. import` statement names inside a package."""
  if node.level == 0: return node.module or ""
  parts = package.split(".")
  kept = parts[:len(parts) - node.level + 1]
  return ".".join(kept + ([node.module] if node.module else []))

def imported_names(source: str, package: str) -> list[tuple[str, int]]:
  """Every module of picograd that a source text imports, as (dotted name, line)."""
  out = []
  for node in ast.walk(ast.parse(source)):
    if isinstance(node, ast.Import):
      out += [(alias.name, node.lineno) for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
      base = absolute(node, package)
      names = [f"{base}.{alias.name}" for alias in node.names]
      out += [(name if is_module(name) else base, node.lineno) for name in names]
  return [(name, line) for name, line in out if name.split(".")[0] == "picograd"]

FILES = sorted((ROOT / "picograd").rglob("*.py"))

@pytest.mark.parametrize("path", FILES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_imports_point_down(path):
  name = module_name(path)
  listed = name == "__init__" or name in LAYERS or is_namespace(name)
  assert listed, f"{path.relative_to(ROOT)} is not in the layer table"
  package = ".".join(path.relative_to(ROOT).parts[:-1])
  wrong = []
  for dotted, line in imported_names(path.read_text(encoding="utf-8"), package):
    imported = dotted.removeprefix("picograd").removeprefix(".") or "__init__"
    if not may_import(name, imported): wrong.append(f"{path.relative_to(ROOT)}:{line} imports picograd.{imported}")
  assert not wrong, "the layer table does not allow: " + "; ".join(wrong)

def test_the_table_points_down():
  for module, allowed in LAYERS.items():
    for other in allowed:
      if not other.endswith(".*"): assert ORDER.index(other) < ORDER.index(module), f"{module} may not import {other}"
    assert module not in reachable(module)

def test_edges_are_found_inside_functions_and_in_relative_form():
  source = "def f():\n  from picograd.tensor import Tensor\n  from ..ops import uop\n  import picograd.dtype as d\n"
  found = {name for name, line in imported_names(source, "picograd.codegen")}
  assert {"picograd.ops.uop", "picograd.dtype"} < found and any("tensor" in name for name in found)

def test_upward_edges_are_refused():
  assert not may_import("codegen.expand", "tensor") and not may_import("ops.fold", "ops.index")
  assert not may_import("helpers", "dtype") and not may_import("tensor", "nn")
  assert may_import("nn.functional", "tensor") and may_import("ops.index", "ops.uop")
