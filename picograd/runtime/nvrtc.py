# nvrtc.py: NVIDIA's runtime compiler through ctypes. In: CUDA C, an architecture. Out: a cubin. Needs no GPU: the
# library comes with `pip install nvidia-cuda-nvrtc`, or with CUDA. (NVRTC user guide.)   (chapter 3)
from __future__ import annotations
import ctypes, functools, importlib.util, re
from pathlib import Path
from typing import Any

class CompileError(Exception):
  """NVRTC refused a kernel: the message quotes the line of the source."""

NAMES = ("libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so")
PACKAGES = ("nvidia.cu13", "nvidia.cuda_nvrtc")          # where pip puts the library
OPTIONS = ("--fmad=false", "--std=c++17", "--device-int128", "-default-device")

def library_paths() -> list[str]:
  """Where the library may be, pip's packages first."""
  paths: list[str] = []
  for package in PACKAGES:
    try: found = importlib.util.find_spec(package)
    except ImportError: continue
    for root in (found.submodule_search_locations or []) if found else []:
      paths += [str(Path(root) / "lib" / name) for name in NAMES]
  return [p for p in paths if Path(p).exists()] + list(NAMES)

@functools.cache
def library() -> Any:
  for path in library_paths():
    try: return ctypes.CDLL(path)
    except OSError: continue
  raise RuntimeError("DEVICE=CUDA compiles with NVRTC, which is not here: pip install nvidia-cuda-nvrtc")

def check(result: int, doing: str) -> None:
  if result == 0: return
  text = library().nvrtcGetErrorString
  text.restype = ctypes.c_char_p
  raise CompileError(f"NVRTC, {doing}: {text(result).decode()}")

def version() -> tuple[int, int]:
  major, minor = ctypes.c_int(), ctypes.c_int()
  check(library().nvrtcVersion(ctypes.byref(major), ctypes.byref(minor)), "asking its version")
  return major.value, minor.value

def bytes_of(program: ctypes.c_void_p, size: Any, read: Any, doing: str) -> bytes:
  count = ctypes.c_size_t()
  check(size(program, ctypes.byref(count)), doing)
  out = ctypes.create_string_buffer(count.value)
  check(read(program, out), doing)
  return out.raw

def compile_cubin(source: str, arch: str) -> bytes:
  """The machine code of a source for an architecture such as sm_90a. CompileError shows what is wrong and where."""
  lib, program = library(), ctypes.c_void_p()
  check(lib.nvrtcCreateProgram(ctypes.byref(program), source.encode(), b"kernel.cu", 0, None, None), "reading a source")
  try:
    options = [f"--gpu-architecture={arch}", *OPTIONS]
    texts = (ctypes.c_char_p * len(options))(*[o.encode() for o in options])
    result = lib.nvrtcCompileProgram(program, len(options), texts)
    log = bytes_of(program, lib.nvrtcGetProgramLogSize, lib.nvrtcGetProgramLog, "reading its log")
    if result: raise CompileError(complaint(source, log.decode(errors="replace").rstrip("\0")))
    return bytes_of(program, lib.nvrtcGetCUBINSize, lib.nvrtcGetCUBIN, "making a cubin")
  finally: lib.nvrtcDestroyProgram(ctypes.byref(program))

def complaint(source: str, log: str) -> str:
  """The compiler's log, and the first line of the source that it complains about."""
  lines = source.split("\n")
  found = re.search(r"kernel\.cu\((\d+)\): error", log)
  at = int(found.group(1)) if found else 0
  quoted = f"\nline {at}: {lines[at - 1].strip()}" if 0 < at <= len(lines) else ""
  return f"NVRTC refused {lines[0].strip()}\n{log.strip()}{quoted}"
