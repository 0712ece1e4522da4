# __main__.py: the command c2r5, which behaves as cc does: reads the command line, compiles each C file, links. Exit
# status 1 and messages as gcc prints them if a program is wrong.
from __future__ import annotations
import gc, os, subprocess, sys, tempfile, threading
from dataclasses import dataclass, field
from functools import partial
from typing import Callable, NoReturn
from . import riscv
from .compile import Host, Settings, compile_module, host_text, platform, preprocess
from .cpp import Options, print_tokens
from .lex import Broken, Diagnostics, Halt

USAGE = """usage: c2r5 [options] file...
  -c -S -E         stop after compiling, with assembly, after preprocessing    -o FILE     where to put the result
  -I DIR -D X[=V] -U X -include FILE -iquote DIR -isystem DIR                  -O0 .. -O3  how much to optimise
  -l LIB -L DIR -static -Wl,..  for the linker                                 -MD -MMD -MF FILE  write dependencies
  -j N             compile N files at once; without N, as many as there are cores
  --host           compile for this machine                                    --run       run the result, with what
  -w               no warnings                                                             follows -- as arguments"""

class Refusal(Exception):
  """The command line is wrong, or a tool that is needed is missing or fails."""

@dataclass
class Command:
  inputs: list[str] = field(default_factory=list)
  output: str | None = None
  stage: str = "link"                                    # E, S, c, link, llvm
  host: bool = False
  run: bool = False
  level: int = 0
  jobs: int = 1                                          # files that are compiled at once
  quiet: bool = False
  debug: bool = False                                    # -g
  dependencies: str | None = None                        # "MD" or "MMD"
  dependency_file: str | None = None
  defines: list[str] = field(default_factory=list)
  included: list[str] = field(default_factory=list)
  quoted: list[str] = field(default_factory=list)
  angled: list[str] = field(default_factory=list)
  system: list[str] = field(default_factory=list)
  linker: list[str] = field(default_factory=list)
  arguments: list[str] = field(default_factory=list)     # of the program that --run runs

  def settings(self) -> Settings:
    options = Options(tuple(self.quoted), tuple(self.angled), tuple(self.system))
    machine = platform("x86_64" if self.host else "riscv64")
    return Settings(machine, self.level, tuple(self.defines), tuple(self.included), options, self.debug)

def define(text: str) -> str:
  name, equals, value = text.partition("=")
  return f"#define {name} {value if equals else '1'}"

WITH_VALUE = {"-o", "-I", "-D", "-U", "-include", "-iquote", "-isystem", "-idirafter", "-l", "-L", "-MF", "-MT", "-MQ",
              "-x", "-Xlinker"}
LONGEST_FIRST = sorted(WITH_VALUE, key=len, reverse=True)
SILENT = ("-W", "-f", "-m", "-std=", "-pedantic", "-ansi", "-pipe", "-p", "-rdynamic", "-MP", "-nostdinc", "-v")

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
  return command

def option(command: Command, word: str, waiting: list[str]) -> bool:
  """Obeys one option; false if there is no such."""
  name = next((w for w in LONGEST_FIRST if word.startswith(w)), None)
  if name is not None:
    value = word[len(name):]
    if not value:
      if not waiting: raise Refusal(f"missing argument to '{name}'")
      value = waiting.pop(0)
    return valued(command, name, value)
  if word in ("-c", "-S", "-E"): command.stage = word[1]
  elif word == "-emit-llvm": command.stage = "llvm"
  elif word == "--host": command.host = True
  elif word == "--run": command.run = True
  elif word == "-w": command.quiet = True
  elif word.startswith("-g"): command.debug = word != "-g0"
  elif word.startswith("-O"): command.level = 2 if word[2:] not in ("0", "1") else int(word[2:])
  elif word in ("-MD", "-MMD", "-M", "-MM"): command.dependencies = word[1:]
  elif word.startswith(("-Wl,", "-static", "-shared", "-no-pie", "-pthread", "-nostd", "-nodefault", "-pie", "-s")):
    command.linker.append(word)
  elif word == "-j": command.jobs = os.cpu_count() or 1
  elif word.startswith("-j") and word[2:].isdigit(): command.jobs = max(1, int(word[2:]))
  else: return word.startswith(SILENT)
  return True

def valued(command: Command, name: str, value: str) -> bool:
  if name == "-o": command.output = value
  elif name == "-D": command.defines.append(define(value))
  elif name == "-U": command.defines.append(f"#undef {value}")
  elif name in ("-l", "-L", "-Xlinker"): command.linker += [name, value] if name == "-Xlinker" else [name + value]
  elif name == "-MF": command.dependency_file = value
  else:
    lists = {"-I": command.angled, "-iquote": command.quoted, "-isystem": command.system, "-idirafter": command.system,
             "-include": command.included}
    if name in lists: lists[name].append(value)
  return True

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

def only_preprocess(command: Command, path: str, diagnostics: Diagnostics) -> None:
  try: tokens, _ = preprocess(path, command.settings(), diagnostics)
  except Halt: return
  write(command.output, print_tokens(tokens).encode("utf-8", "surrogateescape"))

def write_dependencies(command: Command, path: str, target: str, diagnostics: Diagnostics) -> None:
  _, cpp = preprocess(path, command.settings(), diagnostics)
  own = [d for d in cpp.dependencies if command.dependencies == "MD" or cpp.found_in.get(d, 0) < cpp.first_system]
  name = command.dependency_file or os.path.splitext(target)[0] + ".d"
  write(name, (f"{target}: " + " \\\n ".join([path, *own]) + "\n").encode())

def target_of(command: Command, path: str, for_linking: str) -> str:
  """Where the result of compiling a file goes."""
  if command.stage in ("link", "E"): return for_linking
  return command.output or stem(path) + {"S": ".s", "c": ".o", "llvm": ".ll"}[command.stage]

def compile_at_once(command: Command, work: list[tuple[str, str]], diagnostics: Diagnostics) -> bool:
  """Each file in a process of its own. Whether all went well."""
  running: set[int] = set()
  statuses = []
  def wait() -> None:
    pid, status = os.wait()
    running.discard(pid)
    statuses.append(status)
  for path, target in work:
    if len(running) == command.jobs: wait()
    pid = os.fork()
    if not pid: os._exit(guarded(partial(compile_alone, command, path, target, diagnostics)))
    running.add(pid)
  while running: wait()
  return not any(statuses)

def compile_alone(command: Command, path: str, target: str, diagnostics: Diagnostics) -> int:
  compile_file(command, path, target, diagnostics)
  sys.stderr.flush()
  return 1 if diagnostics.errors else 0

def compile_file(command: Command, path: str, target: str, diagnostics: Diagnostics) -> None:
  """Writes the object file, the assembly or the LLVM IR of a C file, unless it has errors."""
  if command.dependencies is not None and command.stage != "link":
    write_dependencies(command, path, target, diagnostics)
  module = compile_module(path, command.settings(), diagnostics)
  if module is None: return
  if not command.host:
    if command.stage == "llvm": raise Refusal("-emit-llvm needs --host")
    if command.stage == "S": return write(target, riscv.assembly(module, command.level).encode())
    if module.assembly or module.source is not None: return assemble(riscv.assembly(module, command.level), target)
    return write(target, riscv.object_code(module, command.level))
  text = host_text(module, command.level)
  if command.stage == "llvm": return write(target, text.encode())
  host = Host(command.level)
  write(target, host.assembly(text).encode() if command.stage == "S" else host.object_code(text))

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
    if not os.path.exists(path): raise Refusal(f"{path}: No such file or directory")
    if os.path.isdir(path): raise Refusal(f"{path}: is a directory")
  if command.output is not None and command.stage != "link" and len(command.inputs) > 1:
    raise Refusal("cannot specify '-o' with '-c', '-S' or '-E' with multiple files")

def link(command: Command, objects: list[str], output: str) -> None:
  linker = "gcc" if command.host else "riscv64-linux-gnu-gcc"
  call_tool([linker, "-o", output, *objects, *command.linker])

def execute(command: Command) -> int:
  check_inputs(command)
  diagnostics = Diagnostics(sys.stderr)
  diagnostics.muted = command.quiet
  with tempfile.TemporaryDirectory(prefix="c2r5-") as folder:
    targets = {path: target_of(command, path, os.path.join(folder, f"{k}.o")) for k, path in enumerate(command.inputs)}
    sources = [path for path in command.inputs if is_c(path)]
    if command.stage == "E":
      for path in sources: only_preprocess(command, path, diagnostics)
    elif command.jobs > 1 and len(sources) > 1:
      if not compile_at_once(command, [(path, targets[path]) for path in sources], diagnostics): return 1
    else:
      for path in sources: compile_file(command, path, targets[path], diagnostics)
    if diagnostics.errors: return 1
    if command.stage != "link": return 0
    objects = [targets[path] if is_c(path) else path for path in command.inputs]
    output = command.output or ("a.out" if not command.run else os.path.join(folder, "a.out"))
    link(command, objects, output)
    if not command.run: return 0
    launcher = [] if command.host else ["qemu-riscv64", "-L", "/usr/riscv64-linux-gnu"]
    return subprocess.run([*launcher, os.path.abspath(output), *command.arguments]).returncode

def run(arguments: list[str]) -> int:
  """Exit status of a command line."""
  if not arguments or arguments[0] in ("-h", "--help"):
    print(USAGE)
    return 0 if arguments else 1
  return guarded(lambda: execute(read_command(arguments)))

def guarded(work: Callable[[], int]) -> int:
  """The exit status of some work; what goes wrong is said in a line."""
  try: return work()
  except Refusal as e:
    print(f"c2r5: error: {e}", file=sys.stderr)
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
