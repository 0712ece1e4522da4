# llvmmodule.py: a Module, as a C program is made of, as LLVM IR text: functions as llvmir.py prints them, objects as
# bytes and pointers, and what the linker must know of each name. In: placed functions. Out: one module's text.
from __future__ import annotations
from picograd.dtype import DType

from picograd.codegen.flat import Data, Module
from picograd.codegen.llvmir import Renderer

RETURNS_TWICE = frozenset({"setjmp", "_setjmp", "sigsetjmp", "__sigsetjmp", "vfork"})

class ModuleRenderer(Renderer):
  """Pointers of C programs may be aligned to less than they say."""
  def alignment(self, memory: DType) -> int: return 1
  def declaration(self, name: str, result: str, types: list[str]) -> str:
    twice = " returns_twice" if name in RETURNS_TWICE else ""
    return f'declare {result} @"{name}"({", ".join(types)}){twice}'
  def symbol(self, u) -> str:
    self.called.setdefault(u.arg, "")                                # declared below
    return f'@"{u.arg}"'

def render_module(module: Module) -> str:
  renderers = [ModuleRenderer(fn) for fn in module.functions]
  bodies = [r.function() for r in renderers]
  objects = [data_text(data, module) for data in module.data]
  defined = {fn.name for fn in module.functions} | {data.name for data in module.data}
  defined.update(name for name, _ in module.aliases)
  outside: dict[str, str] = {}
  for r in renderers:
    for name, text in r.called.items(): outside[name] = outside.get(name) or text
  for data in module.data:
    for _, name, _ in data.pieces: outside.setdefault(name, "")
  declared = [declare(name, text, module) for name, text in outside.items() if name not in defined]
  aliases = [f'@"{name}" = {"weak " if name in module.weak else ""}alias i8, ptr @"{target}"'
             for name, target in module.aliases]
  lists = [startup_text(name, functions) for name, functions in
           (("ctors", module.startup), ("dtors", module.shutdown)) if functions]
  assembly = ["module asm " + quoted(text.encode()) for text in module.assembly]
  weak = [body.replace("define ", "define weak ", 1) if fn.name in module.weak else body
          for fn, body in zip(module.functions, bodies)]
  return "\n".join([*assembly, *declared, *objects, *aliases, *lists, *weak, "attributes #0 = { nounwind }\n"])

def declare(name: str, text: str, module: Module) -> str:
  """text: the declaration of a function that is called; of others only the address is needed."""
  if text: return text.replace("declare ", "declare extern_weak ", 1) if name in module.weak else text
  linkage = "extern_weak" if name in module.weak else "external"
  return f'@"{name}" = {linkage} {"thread_local " if name in module.thread_local else ""}global i8'

def data_text(data: Data, module: Module) -> str:
  """The object as a packed structure of byte arrays and pointers."""
  parts, at = [], 0
  def fill(end: int) -> None:
    nonlocal at
    if end <= at: return
    given = data.contents[at:end]
    if given: parts.append((f"[{len(given)} x i8]", "c" + quoted(given)))
    if end - at > len(given): parts.append((f"[{end - at - len(given)} x i8]", "zeroinitializer"))
    at = end
  for offset, name, extra in data.pieces:
    fill(offset)
    parts.append(("ptr", f'getelementptr (i8, ptr @"{name}", i64 {extra})' if extra else f'@"{name}"'))
    at = offset + 8
  fill(data.size)
  types, values = ", ".join(t for t, _ in parts), ", ".join(f"{t} {value}" for t, value in parts)
  linkage = "internal " if data.is_local else "weak " if data.name in module.weak else ""
  words = linkage + ("thread_local " if data.is_thread_local else "") + ("constant" if data.is_constant else "global")
  section = f", section {quoted(data.section.encode())}" if data.section is not None else ""
  return f'@"{data.name}" = {words} <{{ {types} }}> <{{ {values} }}>{section}, align {data.align}'

def quoted(data: bytes) -> str:
  return '"' + "".join(chr(b) if 32 <= b < 127 and b not in b'"\\' else f"\\{b:02X}" for b in data) + '"'

def startup_text(kind: str, functions: tuple[str, ...]) -> str:
  entries = ", ".join(f'{{ i32, ptr, ptr }} {{ i32 65535, ptr @"{name}", ptr null }}' for name in functions)
  return f"@llvm.global_{kind} = appending global [{len(functions)} x {{ i32, ptr, ptr }}] [{entries}]"
