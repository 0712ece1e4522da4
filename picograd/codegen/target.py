# target.py: what a machine offers, as data. Passes read these fields and nothing else about a device.
from __future__ import annotations
from typing import NamedTuple
from picograd.dtype import DType, dtypes
from picograd.ops.ops import Ops

class Target(NamedTuple):
  name: str                                     # goes into cache keys: two targets with one name make the same code
  form: str = "flat"                            # what the renderer reads: "flat" blocks or the "linear" structured list
  vector_bytes: int = 0                         # width of a SIMD register; 0: scalars only
  registers: int = 16                           # how many of them
  masked_vectors: bool = False                  # loads and stores under a lane mask are one instruction
  loads_fold: bool = False                      # arithmetic takes one operand from memory, which needs no register then
  streams: int = 1                              # rows of memory that are best read side by side
  fetch_bytes: int = 1024                       # how far ahead of its use memory is best asked for
  fetches_rows: bool = False                    # whether it finds out itself what to ask for in long rows side by side
  abreast: int = 1                              # vectors whose long chains of operations should be under way at once
  written_out: int = 1                          # steps of a tile's loop between two branches
  threads: int = 1                              # how many THREAD instances run at once
  local_bytes: int = 0                          # shared memory of a block of GPU threads
  scratch_bytes: int = 0                        # what a kernel may keep in arrays of its own, for each thread
  position: DType = dtypes.int64                # machine integer for index arithmetic
  l1_bytes: int = 0                             # data caches of a core; 0: there is none that code should care about
  l2_bytes: int = 0
  stream_bytes: int = 16 << 20                  # outputs of this size leave all caches before somebody reads them
  missing_ops: frozenset[Ops] = frozenset({Ops.EXP2, Ops.LOG2, Ops.SIN})     # to be decomposed
  missing_dtypes: frozenset[DType] = frozenset()                             # arithmetic done in float32
  casts_by_bits: frozenset[DType] = frozenset({dtypes.bfloat16})             # no instruction converts these
  atomic_adds: frozenset[DType] = frozenset()                                # added to memory by threads at once
  division_traps: bool = False                  # integer division by zero kills the process, or gives anything
  lane_bytes: int = 1                           # the narrowest lane that arithmetic knows
  wide_values: bool = True                      # a value of several registers is split by who renders it
  cheap_ops: int = 8                            # operations that cost no more than storing and loading their result
  row_bytes: int = 1                            # rows of a contraction's operands should begin at multiples of it
  units: int = 1                                # processors that run blocks of threads
  bulk_copies: bool = False                     # a unit of their own copies pieces of memory into shared memory
  matrix: str = ""                              # the unit of a Tile that multiplies 16-bit floats; "": none

  def lanes(self, dtype: DType) -> int:
    """How many elements of dtype one SIMD register holds; 1 without SIMD."""
    return max(1, self.vector_bytes // max(dtype.itemsize, self.lane_bytes))

def text_of(target: Target | None) -> str:
  """The fields, sets in a fixed order: the same in every process."""
  return str([sorted(map(str, field)) if isinstance(field, frozenset) else field for field in target or ()])

SCRATCH = 1 << 17        # bytes of rows: within every second-level cache and every thread's stack
HALF = frozenset({dtypes.float16, dtypes.bfloat16})
PYTHON = Target("python", vector_bytes=16, scratch_bytes=SCRATCH, missing_dtypes=HALF)

RISCV = Target("riscv-rv64gc", registers=32, missing_dtypes=HALF, division_traps=True)
RISCV_V = RISCV._replace(name="riscv-rv64gcv", vector_bytes=32, registers=13, lane_bytes=4,
                         wide_values=False)                                            # groups of two registers

class Vectors(NamedTuple):
  """SIMD registers: bytes of one, how many, whether loads and stores take a lane mask, and arithmetic a load. And how
  cores with such registers read memory best, and whether they look ahead to the next vector's operations: the fields of
  Target, as measured on Zen 1 and on a Xeon with AVX-512."""
  bytes: int
  registers: int
  masked: bool
  loads_fold: bool
  streams: int = 1
  fetch_bytes: int = 1024
  fetches_rows: bool = False
  abreast: int = 1

def llvm_vectors(features: frozenset[str], machine: str) -> Vectors:
  if "avx512f" in features: return Vectors(64, 32, True, True, streams=4, fetches_rows=True)
  if "avx" in features: return Vectors(32, 16, "avx2" in features, True, streams=4, fetch_bytes=256, abreast=4)
  is_arm = machine in ("aarch64", "arm64")
  return Vectors(16, 32 if is_arm else 16, False, not is_arm)

class Caches(NamedTuple):
  """Bytes of a core's data caches."""
  l1: int
  l2: int

USUAL_CACHES = Caches(32 << 10, 512 << 10)

def llvm_target(features: frozenset[str], machine: str, threads: int, caches: Caches = USUAL_CACHES) -> Target:
  """The host as LLVM describes it: `machine` is the triple's first word, features the enabled CPU features."""
  vectors = llvm_vectors(features, machine)
  is_x86 = machine in ("x86_64", "i386", "i686")
  return Target(f"llvm-{machine}-{vectors.bytes}", "flat", *vectors, threads=threads, written_out=4 if is_x86 else 1,
                scratch_bytes=SCRATCH, l1_bytes=caches.l1, l2_bytes=caches.l2, missing_dtypes=HALF,
                division_traps=is_x86)

class Gpu(NamedTuple):
  """What a generation of NVIDIA GPUs offers: the architecture that NVRTC compiles for, shared memory of a block, matrix
  instructions, copies into shared memory by a unit of their own."""
  arch: str
  local_bytes: int
  flops: int                                    # of a processor's matrix unit in one clock, 16-bit floats
  bulk_copies: bool = False
  matrix: str = "mma"                           # "wgmma": whole warpgroups multiply from shared memory

SHARED_ROWS = 32 << 10   # bytes of rows that the nests of a kernel pass on; shared memory is 48 KB for who does not ask

GPUS = {(8, 0): Gpu("sm_80", 163 << 10, 2048), (8, 6): Gpu("sm_86", 99 << 10, 512),
        (8, 9): Gpu("sm_89", 99 << 10, 1024), (9, 0): Gpu("sm_90a", 227 << 10, 4096, True, "wgmma"),
        (10, 0): Gpu("sm_100", 227 << 10, 8192, True)}

def cuda_target(capability: tuple[int, int], units: int) -> Target:
  """A GPU of a compute capability. ValueError lists those known."""
  if capability not in GPUS:
    raise ValueError(f"compute capability {capability} is not in target.GPUS: {', '.join(map(str, GPUS))}")
  gpu = GPUS[capability]
  return Target(f"cuda-{gpu.arch}", "linear", vector_bytes=16, registers=255, local_bytes=gpu.local_bytes,
                scratch_bytes=SHARED_ROWS, position=dtypes.int32, stream_bytes=1 << 62,
                missing_ops=frozenset({Ops.SIN}), missing_dtypes=HALF,
                casts_by_bits=frozenset(), cheap_ops=48, row_bytes=16,
                atomic_adds=frozenset({dtypes.float32, dtypes.int32}), division_traps=True, units=units,
                bulk_copies=gpu.bulk_copies, matrix=gpu.matrix)
