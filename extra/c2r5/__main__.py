# __main__.py: the command c2r5, which behaves as cc does: reads the command line, compiles each C file, links. Exit
# status 1 and messages as gcc prints them if a program is wrong.
from __future__ import annotations
import gc, os, subprocess, sys, tempfile, threading
from dataclasses import dataclass, field
from functools import partial
from typing import Callable, NoReturn
from picograd.codegen.flat import Module
from . import riscv
from .compile import BUILTINS, Host, Settings, compile_tokens, host_text, platform, preprocess
from .cpp import Options, Preprocessor, print_tokens
from .lex import Broken, Diagnostics, Halt

USAGE = """usage: c2r5 [options] file...
  -c -S -E         stop after compiling, with assembly, after preprocessing    -o FILE     where to put the result
  -I DIR -D X[=V] -U X -include FILE -iquote DIR -isystem DIR -nostdinc        -O0 .. -O3  how much to optimise
  -l LIB -L DIR -static -Wl,..  for the linker     -M -MM -MD -MMD -MP -MF FILE -MT NAME   write rules for make
  -std=c11, gnu99 ..   -g   tell debuggers lines   -fsyntax-only  only messages            -Werror  none is harmless
  -j N             compile N files at once; without N, as many as there are cores
  --host           compile for this machine                                    --run       run the result, with what
  -w               no warnings                                                             follows -- as arguments"""

class Refusal(Exception):
  """The command line is wrong, or a tool that is needed is missing or fails."""

@dataclass
class Command:
  inputs: list[str] = field(default_factory=list)
  output: str | None = None
  stage: str = "link"                                    # E, S, c, link, llvm, syntax
  host: bool = False
  run: bool = False
  level: int = 0
  jobs: int = 1                                          # files that are compiled at once
  quiet: bool = False
  strict: bool = False                                   # -Werror
  wraps: bool = False                                    # -fwrapv
  debug: bool = False                                    # -g
  searched: bool = True                                  # system headers; not with -nostdinc
  standard: str = "gnu17"
  language: str = "c"                                    # -x: taken for granted
  dependencies: str | None = None                        # "M", "MM", "MD" or "MMD"
  dependency_file: str | None = None
  dependency_target: str | None = None
  phony: bool = False                                    # -MP: headers are targets, so that they may go
  defines: list[str] = field(default_factory=list)
  included: list[str] = field(default_factory=list)
  quoted: list[str] = field(default_factory=list)
  angled: list[str] = field(default_factory=list)
  system: list[str] = field(default_factory=list)
  after: list[str] = field(default_factory=list)         # -idirafter
  linker: list[str] = field(default_factory=list)
  arguments: list[str] = field(default_factory=list)     # of the program that --run runs

  def settings(self) -> Settings:
    target = platform("x86_64" if self.host else "riscv64")
    headers = (*self.system, *(target.headers if self.searched else ()), *self.after)
    defines = (*standard_macros(self.standard), *self.defines)
    options = Options(tuple(self.quoted), tuple(self.angled))
    return Settings(target._replace(headers=headers), self.level, defines, tuple(self.included), options, self.debug)

VERSIONS = {"90": "", "89": "", "99": "199901L", "9x": "199901L", "11": "201112L", "1x": "201112L", "17": "201710L",
            "18": "201710L", "2x": "202000L", "23": "202311L"}

def standard_macros(standard: str) -> list[str]:
  """What -std= says to programs. We read the same language whatever its name."""
  name, year = standard[:-2], standard[-2:]
  if name not in ("c", "gnu", "iso9899:19", "iso9899:20") or year not in VERSIONS:
    raise Refusal(f"unrecognized command-line option '-std={standard}'")
  version = VERSIONS[year]
  return ([f"#define __STDC_VERSION__ {version}"] if version else ["#undef __STDC_VERSION__"]) + (
          ["#define __STRICT_ANSI__ 1", "#undef linux", "#undef unix"] if name != "gnu" else [])

def define(text: str) -> str:
  name, equals, value = text.partition("=")
  return f"#define {name} {value if equals else '1'}"

# option -> the field of Command that it sets, and to what
FLAGS: dict[str, tuple[str, object]] = {
  "-c": ("stage", "c"), "-S": ("stage", "S"), "-E": ("stage", "E"), "-emit-llvm": ("stage", "llvm"),
  "-fsyntax-only": ("stage", "syntax"), "-w": ("quiet", True), "-Werror": ("strict", True), "--host": ("host", True),
  "-fwrapv": ("wraps", True), "-fno-strict-overflow": ("wraps", True),
  "--run": ("run", True), "-nostdinc": ("searched", False), "-ansi": ("standard", "c90"), "-MP": ("phony", True),
  **{f"-{word}": ("dependencies", word) for word in ("M", "MM", "MD", "MMD")}, "-j": ("jobs", os.cpu_count() or 1)}
# option with a value -> the field that it sets, or the list that it is added to
VALUES = {"-o": "output", "-MF": "dependency_file", "-MT": "dependency_target", "-MQ": "dependency_target",
          "-std=": "standard", "-x": "language", "-I": "angled", "-iquote": "quoted", "-isystem": "system",
          "-idirafter": "after", "-include": "included", "-D": "defines", "-U": "defines",
          **dict.fromkeys(("-l", "-L", "-T", "-u", "-z", "-Xlinker"), "linker")}
LONGEST_FIRST = sorted(VALUES, key=len, reverse=True)
LINKER = ("-Wl,", "-static", "-shared", "-no-pie", "-pthread", "-nostd", "-nodefault", "-pie", "-rdynamic")
SILENT = ("-W", "-f", "-m", "-pedantic", "-pipe", "-p", "-P", "-v")

def read_command(arguments: list[str]) -> Command:
  command = Command()
  waiting = list(arguments)
  while waiting:
    word = waiting.pop(0)
    if word == "--":
      command.arguments = waiting
      break
    if not word.startswith("-") or word == "-": command.inputs.append(word)
    elif not option(command, word, waiting): raise Refusal(f"unrecognized command-line option '{word}'")
  if command.dependencies in ("M", "MM"): command.stage = "M"
  return command

def option(command: Command, word: str, waiting: list[str]) -> bool:
  """Obeys one option; false if there is no such."""
  name = next((w for w in LONGEST_FIRST if word.startswith(w)), None)
  if word in FLAGS: setattr(command, *FLAGS[word])
  elif word.startswith("-O"): command.level = {"0": 0, "": 1, "1": 1, "g": 1}.get(word[2:], 2)
  elif word.startswith("-g"): command.debug = word != "-g0"
  elif word == "-s" or word.startswith(LINKER): command.linker.append(word)
  elif word.startswith("-j") and word[2:].isdigit(): command.jobs = max(1, int(word[2:]))
  elif name is not None:
    value = word[len(name):]
    if not value and not waiting: raise Refusal(f"missing argument to '{name}'")
    valued(command, name, value or waiting.pop(0))
  else: return word.startswith(SILENT)
  return True

def valued(command: Command, name: str, value: str) -> None:
  field = VALUES[name]
  if name == "-D": value = define(value)
  elif name == "-U": value = f"#undef {value}"
  elif field == "linker": value = name + value
  known = getattr(command, field)
  if isinstance(known, list): known.append(value)
  else: setattr(command, field, value)

# ---- compiling -------------------------------------------------------------------------------------------------------

def write(path: str | None, data: bytes) -> None:
  if path is None or path == "-":
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()
    return
  try:
    with open(path, "wb") as f: f.write(data)
  except OSError as e: raise Refusal(f"cannot write {path}: {e.strerror}") from None

def stem(path: str) -> str: return os.path.splitext(os.path.basename(path))[0]

def write_dependencies(command: Command, path: str, cpp: Preprocessor) -> None:
  """A rule of make: what has to be made again when one of the files changes."""
  own = [d for d in cpp.dependencies if command.dependencies in ("M", "MD")
         or cpp.found_in.get(d, 0) < cpp.first_system]
  output = command.output if command.stage not in ("E", "M") else None
  target = command.dependency_target or output or stem(path) + ".o"
  text = f"{escaped(target)}: " + " \\\n ".join(map(escaped, [path, *own])) + "\n"
  if command.phony: text += "".join(f"{escaped(d)}:\n" for d in own)
  write(command.dependency_file or dependency_file(command, path), text.encode())

def escaped(path: str) -> str: return path.replace("$", "$$").replace(" ", "\\ ")

def dependency_file(command: Command, path: str) -> str | None:
  """Where the rule goes if nobody says so: beside the output."""
  if command.stage == "M": return command.output
  if command.output is not None and len(command.inputs) == 1: return os.path.splitext(command.output)[0] + ".d"
  return f"{command.output or 'a'}-{stem(path)}.d" if command.stage == "link" else stem(path) + ".d"

def target_of(command: Command, path: str, for_linking: str) -> str:
  """Where the result of compiling a file goes."""
  if command.stage in ("link", "E", "M", "syntax"): return for_linking
  return command.output or stem(path) + {"S": ".s", "c": ".o", "llvm": ".ll"}[command.stage]

def compile_all(command: Command, work: list[tuple[str, str]], diagnostics: Diagnostics) -> bool:
  """Whether all went well. Where several files are compiled at once, each has a process of its own."""
  statuses = []
  if command.jobs == 1 or len(work) == 1: return not any([compile_one(command, *pair, diagnostics) for pair in work])
  for k, (path, target) in enumerate(work):
    if k >= command.jobs: statuses.append(os.wait()[1])
    if not os.fork(): os._exit(guarded(partial(compile_one, command, path, target, diagnostics)))
  statuses += [os.wait()[1] for _ in work[:command.jobs]]
  return not any(statuses)

def compile_one(command: Command, path: str, target: str, diagnostics: Diagnostics) -> int:
  compile_file(command, path, target, diagnostics)
  sys.stderr.flush()
  return 1 if diagnostics.errors else 0

def compile_file(command: Command, path: str, target: str, diagnostics: Diagnostics) -> None:
  """Writes what the stage asks for of a C file, unless it has errors."""
  settings = command.settings()
  try: tokens, cpp = preprocess(path, settings, diagnostics)
  except Halt: return
  if command.dependencies is not None: write_dependencies(command, path, cpp)
  if command.stage == "E":
    shown = [t for t in tokens if t.file.name != BUILTINS]
    write(command.output, print_tokens(shown).encode("utf-8", "surrogateescape"))
  if command.stage in ("E", "M") or diagnostics.errors: return
  module = compile_tokens(path, tokens, settings, diagnostics)
  if module is None or command.stage == "syntax": return
  if not command.host: return write_riscv(command, module._replace(wraps=command.wraps), target)
  text = host_text(module, command.level)
  if command.stage == "llvm": return write(target, text.encode())
  host = Host(command.level)
  write(target, host.assembly(text).encode() if command.stage == "S" else host.object_code(text))

def write_riscv(command: Command, module: Module, target: str) -> None:
  if command.stage == "llvm": raise Refusal("-emit-llvm needs --host")
  if command.stage == "S": write(target, riscv.assembly(module, command.level).encode())
  elif module.assembly or module.source is not None: assemble(riscv.assembly(module, command.level), target)
  else: write(target, riscv.object_code(module, command.level))

def assemble(text: str, target: str) -> None:
  """By GNU as: only it knows what assembly a program brings along."""
  call_tool(["riscv64-linux-gnu-as", "-march=rv64gc", "-o", target, "-"], text)

def call_tool(command: list[str], text: str | None = None) -> None:
  try: done = subprocess.run(command, input=text, encoding="utf-8")
  except FileNotFoundError: raise Refusal(f"{command[0]} is needed: install gcc and binutils") from None
  if done.returncode: raise Refusal(f"{command[0]} failed")

def is_c(path: str) -> bool: return path.endswith((".c", ".i", ".h")) or path == "-"

def check_inputs(command: Command) -> None:
  if not command.inputs: raise Refusal("no input files")
  for path in command.inputs:
    if path != "-" and not os.path.exists(path): raise Refusal(f"{path}: No such file or directory")
    if os.path.isdir(path): raise Refusal(f"{path}: is a directory")
  if command.output is not None and command.stage != "link" and len(command.inputs) > 1:
    raise Refusal("cannot specify '-o' with '-c', '-S' or '-E' with multiple files")

def gcc(command: Command) -> str: return "gcc" if command.host else "riscv64-linux-gnu-gcc"

def execute(command: Command) -> int:
  check_inputs(command)
  diagnostics = Diagnostics(sys.stderr)
  diagnostics.muted, diagnostics.strict = command.quiet, command.strict
  with tempfile.TemporaryDirectory(prefix="c2r5-") as folder:
    targets = {path: target_of(command, path, os.path.join(folder, f"{k}.o")) for k, path in enumerate(command.inputs)}
    if not compile_all(command, [(path, targets[path]) for path in command.inputs if is_c(path)], diagnostics): return 1
    if command.stage == "c":
      for path in command.inputs:
        if path.endswith((".s", ".S")): call_tool([gcc(command), "-c", path, "-o", targets[path]])
    if command.stage != "link": return 0
    objects = [targets[path] if is_c(path) else path for path in command.inputs]
    output = command.output or ("a.out" if not command.run else os.path.join(folder, "a.out"))
    call_tool([gcc(command), "-o", output, *objects, *command.linker])
    if not command.run: return 0
    launcher = [] if command.host else ["qemu-riscv64", "-L", "/usr/riscv64-linux-gnu"]
    return subprocess.run([*launcher, os.path.abspath(output), *command.arguments]).returncode

ANSWERS = {"-h": USAGE, "--help": USAGE, "--version": "c2r5, a C compiler for riscv64-linux-gnu",
           "-dumpmachine": "riscv64-linux-gnu"}

def run(arguments: list[str]) -> int:
  """Exit status of a command line."""
  if not arguments or arguments[0] in ANSWERS:
    print(ANSWERS.get("".join(arguments[:1]), USAGE))
    return 0 if arguments else 1
  return guarded(lambda: execute(read_command(arguments)))

def guarded(work: Callable[[], int]) -> int:
  """The exit status of some work; what goes wrong is said in a line."""
  try: return work()
  except Refusal as e: print(f"c2r5: error: {e}", file=sys.stderr)
  except Halt: pass
  except Broken as e: print(f"c2r5: internal error: {e}", file=sys.stderr)
  except Exception as e: print(f"c2r5: internal error: {type(e).__name__}: {e}", file=sys.stderr)
  return 1

def main() -> NoReturn:
  """Runs in a thread with a large stack: trees are as deep as programs nest."""
  gc.disable()
  sys.setrecursionlimit(400_000)
  threading.stack_size(512 << 20)
  status = [1]
  def work() -> None: status[0] = run(sys.argv[1:])
  thread = threading.Thread(target=work)
  thread.start()
  thread.join()
  sys.exit(status[0])

if __name__ == "__main__": main()
