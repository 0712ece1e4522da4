# helpers.py: what every layer may use. Flags in one documented table, small functions on sequences, colours, counters
# and a disk cache that is safe under concurrent processes. Imports nothing of picograd.
from __future__ import annotations
import contextlib, functools, gc, hashlib, itertools, operator, os, pickle, sys
from typing import Any, Iterable, Iterator, TypeVar

T = TypeVar("T")

# ---- flags: read once from the environment, changed in a `with Flag.set(n)` block ------------------------------------

class Flag:
  """An integer or string flag. `FLAG.value` reads it, `with FLAG.set(value):` overrides it for a block."""
  table: dict[str, "Flag"] = {}

  def __init__(self, name: str, default: int | str, meaning: str):
    self.name, self.default, self.meaning = name, default, meaning
    text = os.environ.get(name, "")
    self.value: Any = default if text == "" else self.parse(text)
    Flag.table[name] = self

  def parse(self, text: str) -> int | str:
    if isinstance(self.default, str): return text
    try: return int(text)
    except ValueError: raise SystemExit(f"{self.name}={text}: an integer is expected ({self.meaning})") from None

  def __bool__(self) -> bool: return bool(self.value)
  def __int__(self) -> int: return int(self.value)
  def __ge__(self, level: int) -> bool: return int(self.value) >= level
  def __repr__(self) -> str: return f"{self.name}={self.value}"

  @contextlib.contextmanager
  def set(self, value: int | str) -> Iterator[None]:
    before, self.value = self.value, value
    try: yield
    finally: self.value = before

DEBUG = Flag("DEBUG", 0, "1 devices, counts; 2 time per kernel; 3 Opts; 4 source; 5 UOps; 6 flat blocks; 7 registers")
DEVICE = Flag("DEVICE", "CPU", "the device of new tensors: CPU, CUDA, NUMPY, PYTHON or RISCV")
RISCV_ARCH = Flag("RISCV_ARCH", "rv64gc", "what DEVICE=RISCV is: rv64gc, or rv64gcv with vectors")
EAGER = Flag("EAGER", 0, "1 realises every operation at once")
NOOPT = Flag("NOOPT", 0, "1 compiles kernels without any Opt: plain scalar loops")
BEAM = Flag("BEAM", 0, "n searches the Opts of each kernel by timing, the n best of a round going on; 0: no search")
PROFILE = Flag("PROFILE", "", "writes a trace of all kernels to this path, for chrome://tracing or ui.perfetto.dev")
SPEC = Flag("SPEC", 0, "1 verifies the graph after every pass")
DUMP = Flag("DUMP", "", "prints the graph after the pass of this name")
JIT_CHECK = Flag("JIT_CHECK", 0, "1 runs each replayed call again without the recording and compares")
CACHE = Flag("CACHE", 1, "0 ignores the disk cache of compiled kernels")
CACHE_DIR = Flag("CACHE_DIR", "", "where compiled kernels are kept; default: picograd in the user's cache directory")
THREADS = Flag("THREADS", len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1),
               "how many threads a CPU kernel may use, and how many processes may compile")

# ---- sequences -------------------------------------------------------------------------------------------------------

def prod(xs: Iterable[int]) -> int: return functools.reduce(operator.mul, xs, 1)
def dedup(xs: Iterable[T]) -> list[T]: return list(dict.fromkeys(xs))
def ceildiv(a: int, b: int) -> int: return -(-a // b)
def argsort(xs: Iterable[Any]) -> tuple[int, ...]:
  values = list(xs)
  return tuple(sorted(range(len(values)), key=values.__getitem__))

# ---- text ------------------------------------------------------------------------------------------------------------

COLOURS = {"red": 31, "green": 32, "yellow": 33, "blue": 34, "magenta": 35, "cyan": 36, "grey": 90}
def colour(text: str, name: str) -> str:
  """The text in a terminal colour; plain where standard output is no terminal."""
  return f"\033[{COLOURS[name]}m{text}\033[0m" if sys.stdout.isatty() else text

def size_text(n: float) -> str:
  """A byte count in the largest unit that keeps it above one: 1536 -> '1.50 KB'."""
  for unit in ("B", "KB", "MB", "GB"):
    if n < 1024: return f"{n:.2f} {unit}"
    n /= 1024
  return f"{n:.2f} TB"

# ---- memory ----------------------------------------------------------------------------------------------------------

@contextlib.contextmanager
def collector_paused() -> Iterator[None]:
  """Nodes are never cyclic: looking for cycles among the many that a compilation makes takes a quarter of its time."""
  was_on = gc.isenabled()
  gc.disable()
  try: yield
  finally:
    if was_on: gc.enable()

# ---- counters --------------------------------------------------------------------------------------------------------

class Tally:
  """What has run since the process started or since `reset()`. One object: CPython forgets what it knows of a class
  whenever an attribute of it is set."""
  __slots__ = ("kernels", "compiled", "operations", "bytes_moved", "bytes_live", "bytes_peak")
  def __init__(self) -> None:
    self.bytes_live = 0         # bytes of device memory held now
    self.reset()

  def reset(self) -> None:
    self.kernels = 0            # kernels launched
    self.compiled = 0           # kernels compiled, cache hits not counted
    self.operations = 0         # arithmetic operations in launched kernels
    self.bytes_moved = 0        # bytes that launched kernels had to move at least
    self.bytes_peak = self.bytes_live                                  # the most it has been

Counters = Tally()

# ---- disk cache: one file per key, written to a temporary name and renamed, so a reader never sees half a file -------

def cache_path(kind: str, key: bytes) -> str:
  root = CACHE_DIR.value or os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "picograd")
  return os.path.join(root, kind, hashlib.sha256(key).hexdigest())

def cache_get(kind: str, key: bytes) -> Any | None:
  """The value stored under (kind, key), or None. A damaged file counts as absent: each ends with its own digest."""
  if not CACHE: return None
  path = cache_path(kind, key)
  try:
    with open(path, "rb") as f: data = f.read()
  except OSError: return None
  with contextlib.suppress(OSError): os.utime(path)                  # trim() takes what was used longest ago
  body, digest = data[:-32], data[-32:]
  if hashlib.sha256(body).digest() != digest: return None
  return pickle.loads(body)

def cache_put(kind: str, key: bytes, value: T) -> T:
  """Stores value under (kind, key) and returns it. A full or read-only disk is no error: the cache only saves time."""
  if not CACHE: return value
  path, body = cache_path(kind, key), pickle.dumps(value)
  temporary = f"{path}.{os.getpid()}.{next(files_written)}"
  try:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(temporary, "wb") as f: f.write(body + hashlib.sha256(body).digest())
    os.replace(temporary, path)
  except OSError:
    with contextlib.suppress(OSError): os.unlink(temporary)
  if path.endswith("00"): trim(os.path.dirname(path), CACHE_BYTES)   # one file in 256: often enough
  return value

files_written = itertools.count()
CACHE_BYTES = 1 << 30        # of each kind

def trim(directory: str, limit: int) -> None:
  """Removes the files that were used longest ago if all together have more bytes than the limit, until half is left."""
  with contextlib.suppress(OSError):
    files = [(entry.stat(), entry.path) for entry in os.scandir(directory)]
    left = sum(found.st_size for found, _ in files)
    if left <= limit: return
    for found, path in sorted(files, key=lambda file: file[0].st_mtime):
      if left <= limit // 2: return
      os.unlink(path)
      left -= found.st_size
