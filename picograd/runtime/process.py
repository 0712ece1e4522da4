# process.py: Python processes that call functions for this one. In: a function that can be imported, and arguments, by
# pickle. Out: what it returns. Unlike those of multiprocessing they do not run the user's script again, which so needs
# no guard, and one that is stuck is ended.   (chapter 3)
from __future__ import annotations
import contextlib, os, pickle, select, signal, subprocess, sys
from pathlib import Path
from typing import Any, Callable
from picograd.helpers import Flag

class Failed(Exception):
  """A call has raised an exception, took too long, or its process died or did not start."""

# without the working directory, where a file may have the name of a module
COMMAND = [sys.executable, "-c",
           "import sys; sys.path[:] = filter(None, sys.path); from picograd.runtime import process; process.serve()"]
QUIET = {"BEAM": "0", "DEBUG": "0", "DUMP": "", "PROFILE": ""}

class Process:
  """A process with this one's flags as they are when it starts, which is with a call when none is running."""
  def __init__(self) -> None:
    self.process: subprocess.Popen[bytes] | None = None
    self.is_ended = False

  @property
  def is_running(self) -> bool: return self.process is not None

  def start(self) -> subprocess.Popen[bytes]:
    paths = [str(Path(__file__).resolve().parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
    flags = {name: str(flag.value) for name, flag in Flag.table.items()}
    environment = os.environ | flags | QUIET | {"PYTHONPATH": os.pathsep.join(paths)}
    return subprocess.Popen(COMMAND, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                            stderr=subprocess.DEVNULL, start_new_session=True)

  def call(self, limit: float, function: Callable[..., Any], *arguments: Any) -> Any:
    """function(*arguments), computed there. Failed where there is no result within so many seconds."""
    try:
      self.process = self.process or self.start()
      if self.is_ended: raise EOFError
      assert self.process.stdin is not None and self.process.stdout is not None
      pickle.dump((function, arguments), self.process.stdin)
      self.process.stdin.flush()
      ready, _, _ = select.select([self.process.stdout], [], [], limit)
      if not ready: raise Failed(f"no answer in {limit:.0f} s")
      is_done, value = pickle.load(self.process.stdout)
    except BaseException as e:
      self.close()                            # it is stuck, or has died, or the user wants no more
      if not isinstance(e, Exception) or isinstance(e, Failed): raise
      raise Failed(f"the process died, or could not start: {type(e).__name__}") from None
    if not is_done: raise Failed(value)
    return value

  def end(self) -> None:
    """Ends the process, for good: a call that another thread waits for fails, and so do later ones."""
    self.is_ended = True
    self.kill()

  def kill(self) -> None:
    process = self.process
    if process is None: return
    with contextlib.suppress(ProcessLookupError): os.killpg(process.pid, signal.SIGKILL)

  def close(self) -> None:
    if self.process is None: return
    self.kill()
    self.process.communicate()
    self.process = None

def serve() -> None:
  """Answers calls from standard input until it ends. What LLVM or a driver prints goes to standard error."""
  answers = os.fdopen(os.dup(1), "wb")
  os.dup2(2, 1)
  with contextlib.suppress(EOFError, KeyboardInterrupt):
    while True:
      function, arguments = pickle.load(sys.stdin.buffer)
      try: answer = (True, function(*arguments))
      except Exception as e: answer = (False, f"{type(e).__name__}: {e}")
      pickle.dump(answer, answers)
      answers.flush()
