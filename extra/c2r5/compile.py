# compile.py: one C file -> a Module, and a Module -> object code for the machine we run on. In: a path and Settings.
# Out: preprocessed tokens, a Module, LLVM IR, assembly or an object file. Messages go to the Diagnostics; errors stop
# before code is made.
from __future__ import annotations
import glob, os
from typing import Any, NamedTuple
from picograd.codegen.flat import Function, Module, mem2reg, without_beginnings
from picograd.codegen.llvmmodule import render_module
from picograd.codegen.place import place
from .cpp import Options, Preprocessor, Tokens, read_text
from .ctype import Machine, RISCV64, X86_64
from .lex import Diagnostics, Failure, Halt, SourceFile, doing
from .parse import Definition, Parser
from .unit import UnitLowering

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "include")
BUILTINS = os.path.join(HERE, "builtins.h")               # what every program may use without including anything

class Platform(NamedTuple):
  """A machine, and where its system's headers are."""
  machine: Machine
  headers: tuple[str, ...]

def newest(pattern: str) -> list[str]:
  """The directory of the newest gcc: headers that only compilers have."""
  return sorted(glob.glob(pattern), key=lambda path: (len(path), path))[-1:]

def platform(name: str) -> Platform:
  if name == "riscv64":
    own = newest("/usr/lib/gcc-cross/riscv64-linux-gnu/*/include")
    return Platform(RISCV64, (HERE, *own, "/usr/riscv64-linux-gnu/include"))
  return Platform(X86_64, (HERE, "/usr/local/include", *newest("/usr/lib/gcc/x86_64-linux-gnu/*/include"),
                           "/usr/include/x86_64-linux-gnu", "/usr/include"))

class Settings(NamedTuple):
  """What the command line says of compiling. defines: lines of #define and #undef. included: files of -include."""
  platform: Platform
  level: int = 0
  defines: tuple[str, ...] = ()
  included: tuple[str, ...] = ()
  include: Options = Options()
  lines: bool = False                        # -g: code says which line it belongs to

def preprocess(path: str, settings: Settings, diagnostics: Diagnostics) -> tuple[Tokens, Preprocessor]:
  """The tokens of a file, those of our builtins before it; the preprocessor knows what was included."""
  options = settings.include._replace(system=(*settings.include.system, *settings.platform.headers))
  cpp = Preprocessor(diagnostics, options)
  own = [os.path.join(HERE, name) for name in ("common.h", settings.platform.machine.name + ".h")]
  files = [cpp.load(path, True, None) for path in (*own, BUILTINS)]
  cpp.builtins = {t.text for t in files[-1].tokens}
  optimizing = ["#define __OPTIMIZE__ 1"] if settings.level else []
  files.append(SourceFile("<command-line>", "\n".join([*optimizing, *settings.defines]) + "\n", True))
  asked = "".join(f'#include "{name}"\n' for name in settings.included)
  files.append(SourceFile("<command-line>", asked))
  files.append(SourceFile(path, read_text(path)))
  return cpp.run(files), cpp

def compile_module(path: str, settings: Settings, diagnostics: Diagnostics) -> Module | None:
  """The Module of a file, or None if it has errors."""
  try: tokens, _ = preprocess(path, settings, diagnostics)
  except Halt: return None
  return compile_tokens(path, tokens, settings, diagnostics)

def compile_tokens(path: str, tokens: Tokens, settings: Settings, diagnostics: Diagnostics) -> Module | None:
  definitions: list[Definition] = []
  machine = settings.platform.machine
  parser = Parser(tokens, machine, diagnostics, definitions.append)
  try:
    if not diagnostics.errors:
      with doing(lambda: f"reading {parser.token.where}"): unit = parser.file()
    if diagnostics.errors: return None
    module = UnitLowering(unit, definitions, machine, diagnostics, settings.lines).lower()
  except Failure as e: diagnostics.error(e.token, e.message)
  except Halt: return None
  if diagnostics.errors: return None
  return module._replace(source=path) if settings.lines else module

def optimized(fn: Function, level: int) -> Function:
  """The function with its variables in registers, where the level asks for it and setjmp allows."""
  return place(mem2reg(fn) if level and not fn.returns_twice else without_beginnings(fn))

# ---- the machine we run on -------------------------------------------------------------------------------------------

def host_text(module: Module, level: int) -> str:
  return render_module(module._replace(functions=[optimized(fn, level) for fn in module.functions]))

class Host:
  """LLVM for this machine."""
  def __init__(self, level: int):
    import llvmlite.binding as llvm
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    self.llvm: Any = llvm
    self.level = level
    target = llvm.Target.from_triple(llvm.get_process_triple())
    self.machine = target.create_target_machine(opt=level, reloc="pic", codemodel="small")

  def parsed(self, text: str) -> Any:
    module = self.llvm.parse_assembly(text)
    module.triple, module.data_layout = self.llvm.get_process_triple(), str(self.machine.target_data)
    if self.level:
      options = self.llvm.create_pipeline_tuning_options(speed_level=self.level)
      builder = self.llvm.create_pass_builder(self.machine, options)
      builder.getModulePassManager().run(module, builder)
    return module
  def object_code(self, text: str) -> bytes: return self.machine.emit_object(self.parsed(text))
  def assembly(self, text: str) -> str: return self.machine.emit_assembly(self.parsed(text))
