# cuda.py: a structured list as CUDA C, one table row per op. In: the list of linearize.py for a target with threads of
# its own. Out: the text of one `extern "C" __global__` function, whose first line says how it is launched:
# `// NAME grid G block B shared S arguments N writes W`: pointers to the first N slots, of which it writes those of W;
# `in turn R` after it: of the G blocks of work at most R are launched for each processor, which take others in turn;
# `early E`: a last argument says whether slots E may be read before earlier kernels end; lines `// map ..` describe the
# tensor maps that a last argument points to. Numbers are as PYTHON defines them: no contraction (told so), no
# undefined overflow but in positions, which bounds have proven to fit. 16-bit floats are their bits; arithmetic on them
# was lowered to float32. Vectors are structs whose lanes have constant indices, so that they live in registers.
from __future__ import annotations
import math, struct
from typing import Any, NamedTuple, Sequence
from picograd.codegen import matrix
from picograd.codegen.grid import is_meeting
from picograd.codegen.ring import IN_ORDER, PRELUDE as RING, Ring, fetched, ring_of, whole
from picograd.codegen.target import Target
from picograd.dtype import DType, dtypes
from picograd.helpers import ceildiv
from picograd.ops.ops import ALU, Ops, Space
from picograd.ops.uop import UOp, shuffled, toposort, without_after

# op -> {kinds of the first operand, of WHERE's second: expression}. {0} {1} {2} are the operands, {u} the result's
# unsigned type, {w} its width in bits.
ROWS: dict[Ops, dict[str, str]] = {
  Ops.ADD: {"iu": "({u}){0} + ({u}){1}", "f": "{0} + {1}", "b": "{0} | {1}"},
  Ops.MUL: {"iu": "({u}){0} * ({u}){1}", "f": "{0} * {1}", "b": "{0} & {1}"},
  Ops.FDIV: {"f": "{0} / {1}"},
  Ops.IDIV: {"iub": "{0} / {1}"},
  Ops.MOD: {"iub": "{0} % {1}"},
  Ops.SQRT: {"f": "sqrt({0})"},
  Ops.EXP2: {"f": "exp2({0})"},
  Ops.LOG2: {"f": "log2({0})"},
  Ops.SIN: {"f": "sin({0})"},
  Ops.MAX: {"fiu": "largest({0}, {1})", "b": "{0} < {1} ? {1} : {0}"},
  Ops.CMPLT: {"iufb": "{0} < {1}"},
  Ops.CMPNE: {"iufb": "{0} != {1}"},
  Ops.AND: {"iub": "{0} & {1}"},
  Ops.OR: {"iub": "{0} | {1}"},
  Ops.XOR: {"iub": "{0} ^ {1}"},
  Ops.SHL: {"iu": "({u}){1} < {w} ? ({u}){0} << {1} : 0"},
  Ops.SHR: {"u": "{1} < {w} ? {0} >> {1} : 0", "i": "({u}){1} < {w} ? {0} >> {1} : {0} >> ({w} - 1)"},
  Ops.WHERE: {"iufb": "{0} ? {1} : {2}"},
  Ops.MULACC: {"f": "fma({0}, {1}, {2})"},
}
EXACT = {Ops.ADD: "{0} + {1}", Ops.MUL: "{0} * {1}", Ops.SHL: "{0} << {1}"}      # of positions, which do not overflow

TYPES = {"bool": "bool", "uint8": "unsigned char", "int8": "signed char", "uint16": "unsigned short", "int16": "short",
         "uint32": "unsigned int", "int32": "int", "uint64": "unsigned long long", "int64": "long long",
         "float16": "unsigned short", "bfloat16": "unsigned short", "float32": "float", "float64": "double"}
CASTS = {("float16", "float32"): "from_float16({0})", ("float32", "float16"): "to_float16({0})",
         ("bfloat16", "float32"): "from_bfloat16({0})", ("float32", "bfloat16"): "to_bfloat16({0})"}
ROUNDED = {"float16": "as_float16({0})", "bfloat16": "as_bfloat16({0})"}         # a float32 rounded, to float32 again
COMBINE = {Ops.ADD: "Plus", Ops.MUL: "Times", Ops.MAX: "Largest"}
RESIDENT = 1024          # threads that a processor should hold at least, for which the compiler leaves registers
FEW_BLOCKS = 32          # that have a processor each on any GPU: they may use all its registers
WIDEST = 16              # bytes of one load or store

PRELUDE = r"""
template<typename T, int N> struct Vec { T v[N]; };
template<int N> struct Word;
template<> struct Word<1> { typedef unsigned char type; };
template<> struct Word<2> { typedef unsigned short type; };
template<> struct Word<4> { typedef unsigned int type; };
template<> struct Word<8> { typedef uint2 type; };
template<> struct Word<16> { typedef uint4 type; };
// A elements at a time, as many as are known to be aligned
template<int A, int N, typename T> __device__ __forceinline__ Vec<T, N> load(const T* p) {
  typedef typename Word<A * sizeof(T)>::type W;
  Vec<T, N> out;
  #pragma unroll
  for (int i = 0; i < N / A; i++) { W w = ((const W*)p)[i]; memcpy(&out.v[i * A], &w, sizeof(W)); }
  return out;
}
template<int A, typename T, int N> __device__ __forceinline__ void store(T* p, Vec<T, N> x) {
  typedef typename Word<A * sizeof(T)>::type W;
  #pragma unroll
  for (int i = 0; i < N / A; i++) { W w; memcpy(&w, &x.v[i * A], sizeof(W)); ((W*)p)[i] = w; }
}
__device__ __forceinline__ float from_float16(unsigned short x) {
  float y; asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x)); return y;
}
__device__ __forceinline__ unsigned short to_float16(float x) {
  unsigned short y; asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y) : "f"(x)); return y;
}
__device__ __forceinline__ float from_bfloat16(unsigned short x) { return __uint_as_float((unsigned int)x << 16); }
__device__ __forceinline__ unsigned short to_bfloat16(float x) {
  unsigned short y; asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y) : "f"(x)); return y;
}
// A float rounded to 16 bits. (Conversions of two numbers at once take a quarter of the time of others.)
__device__ __forceinline__ float as_float16(float x) {
  unsigned int y; asm("cvt.rn.f16x2.f32 %0, 0f00000000, %1;" : "=r"(y) : "f"(x)); return from_float16(y);
}
__device__ __forceinline__ float as_bfloat16(float x) {
  unsigned int y; asm("cvt.rn.bf16x2.f32 %0, %1, 0f00000000;" : "=r"(y) : "f"(x)); return __uint_as_float(y);
}
template<typename To, typename From> __device__ __forceinline__ To same_bits(From x) {
  To y; memcpy(&y, &x, sizeof(To)); return y;
}
template<typename T> __device__ __forceinline__ T largest(T x, T y) { return x < y ? y : x; }
// p ? x : y, of which no maximum or minimum becomes: of three numbers two of which are negated, ptxas 13.0 for sm_90
// forgets one of the signs.
template<typename T> __device__ __forceinline__ T picked(bool p, T x, T y) {
  T z; asm("{.reg .pred p; setp.ne.s32 p, %1, 0; selp.b32 %0, %2, %3, p;}" : "=r"(z) : "r"((int)p), "r"(x), "r"(y));
  return z;
}
__device__ __forceinline__ int largest(int x, int y) { return picked(x < y, y, x); }
__device__ __forceinline__ unsigned int largest(unsigned int x, unsigned int y) { return picked(x < y, y, x); }
__device__ __forceinline__ float largest(float x, float y) {
  float z; asm("max.NaN.f32 %0, %1, %2;" : "=f"(z) : "f"(x), "f"(y)); return z;
}
__device__ __forceinline__ double largest(double x, double y) { return y != y || x < y ? y : x; }
// In a captured program a kernel may be launched while the one before it runs, which says when, and waits for its end.
__device__ __forceinline__ void launch_later_kernels() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}
// Brings memory into the cache in the background. It is no access: what is stored there later is found.
template<typename T> __device__ __forceinline__ void fetch(const T* p, int bytes) {
#if __CUDA_ARCH__ >= 900
  asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" :: "l"(__cvta_generic_to_global(p)), "r"(bytes) : "memory");
#endif
}
__device__ __forceinline__ void wait_for_earlier_kernels() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
// A pointer to global memory that nothing is read from before this: what is only read might be read before the wait.
template<typename T> __device__ __forceinline__ T* now(T* p) {
  size_t place = __cvta_generic_to_global(p);
  asm volatile("" : "+l"(place) :: "memory");
  return (T*)__cvta_global_to_generic(place);
}
struct Plus { template<typename T> static __device__ T of(T x, T y) { return x + y; } };
struct Times { template<typename T> static __device__ T of(T x, T y) { return x * y; } };
struct Largest { template<typename T> static __device__ T of(T x, T y) { return largest(x, y); } };
// x of N threads that are S apart, combined lane by lane; every one of them gets the result. First in each warp, then
// through shared memory.
template<typename F, int S, int N, int THREADS, typename T, int L>
__device__ __forceinline__ Vec<T, L> over_threads(Vec<T, L> x) {
  constexpr int reach = S >= 32 ? 1 : (32 / S < N ? 32 / S : N), parts = N / reach;
  #pragma unroll
  for (int k = 0; k < L; k++)
    #pragma unroll
    for (int o = S; o < S * reach; o *= 2) x.v[k] = F::of(x.v[k], (T)__shfl_xor_sync(~0u, x.v[k], o));
  if constexpr (parts > 1) {
    __shared__ T part[L][parts][THREADS / N];
    int t = threadIdx.x, column = t / (S * N) * S + t % S;
    #pragma unroll
    for (int k = 0; k < L; k++) if (t / S % reach == 0) part[k][t / (S * reach) % parts][column] = x.v[k];
    __syncthreads();
    #pragma unroll
    for (int k = 0; k < L; k++) {
      x.v[k] = part[k][0][column];
      #pragma unroll
      for (int i = 1; i < parts; i++) x.v[k] = F::of(x.v[k], part[k][i][column]);
    }
    __syncthreads();
  }
  return x;
}
template<typename F, int S, int N, int THREADS, typename T> __device__ __forceinline__ T over_threads(T x) {
  return over_threads<F, S, N, THREADS>(Vec<T, 1>{{x}}).v[0];
}
"""

class Listing(NamedTuple):
  """A kernel as a structured list."""
  name: str
  code: list[UOp]
  target: Target

def render(kernel: Listing) -> str:
  """The source of a kernel."""
  ring = ring_of(kernel.code, kernel.target)
  return RingRenderer(kernel, ring).kernel() if ring else Renderer(kernel).kernel()

# ---- numbers ---------------------------------------------------------------------------------------------------------

def scalar_type(dtype: DType) -> str: return TYPES[dtype.name]
def type_of(dtype: DType) -> str:
  return scalar_type(dtype) if dtype.count == 1 else f"Vec<{scalar_type(dtype)}, {dtype.count}>"

def unsigned_type(dtype: DType) -> str:
  """Of at least an int's width: C widens to int what is narrower, and an int must not overflow."""
  return "unsigned long long" if dtype.bits == 64 else "unsigned int"

def constant(dtype: DType, x: Any) -> str:
  """A scalar constant; floats exactly."""
  if dtype.kind == "b": return "true" if x else "false"
  if dtype is dtypes.float16: return f"(unsigned short)0x{int.from_bytes(struct.pack('>e', x), 'big'):04x}"
  if dtype is dtypes.bfloat16: return f"(unsigned short)0x{struct.unpack('<I', struct.pack('<f', x))[0] >> 16:04x}"
  if dtype is dtypes.float32: return float_constant(x, "f") or f"__int_as_float(0x{struct.pack('>f', x).hex()})"
  if dtype is dtypes.float64:
    return float_constant(x, "") or f"__longlong_as_double(0x{struct.pack('>d', x).hex()}ll)"
  if dtype is dtypes.int32 and abs(x) < 1 << 31: return str(x) if x >= 0 else f"({x})"
  return f"({scalar_type(dtype)}){x & 0xffffffffffffffff:#x}ull"

def float_constant(x: float, suffix: str) -> str | None:
  """A finite float as C writes it; negative ones in brackets, since 1.0 - -1.0 needs them."""
  if not math.isfinite(x): return None
  short = repr(x) if abs(x) < 1e6 and x == round(x, 3) else float(x).hex()
  return f"({short}{suffix})" if short.startswith("-") else short + suffix

# ---- positions -------------------------------------------------------------------------------------------------------

def exact_nodes(code: Sequence[UOp]) -> set[UOp]:
  """Integer arithmetic on nothing but loops, threads and constants: positions, which bounds have proven to fit."""
  found: set[UOp] = set()
  for u in code:
    leaf = u.op in (Ops.RANGE, Ops.SPECIAL)
    if leaf or (u.op in ALU and all(s.op is Ops.CONST or s in found for s in u.src)): found.add(u)
  return found

def multiple_of(u: UOp) -> int:
  """A number that divides an integer node's value; 0 divides only 0."""
  if u.op is Ops.CONST: return abs(u.arg)
  if u.op is Ops.ADD: return math.gcd(*map(multiple_of, u.src))
  if u.op is Ops.WHERE: return math.gcd(*map(multiple_of, u.src[1:]))
  if u.op is Ops.MUL: return multiple_of(u.src[0]) * multiple_of(u.src[1])
  if u.op is Ops.CAST and u.src[0].dtype.is_int: return multiple_of(u.src[0])
  if u.op is Ops.SHL and u.src[1].op is Ops.CONST: return multiple_of(u.src[0]) << u.src[1].arg
  return 1

def aligned_lanes(address: UOp, dtype: DType) -> int:
  """How many elements at once may be read or written at a vector's address."""
  most = WIDEST // dtype.scalar.itemsize
  return math.gcd(multiple_of(without_after(address).src[1]), most, dtype.count) or 1

# ---- loads before the meetings of threads ----------------------------------------------------------------------------

def loads_early(code: Sequence[UOp], registers: int) -> list[UOp]:
  """The list where what each block reads for itself does not wait for reductions over threads, as far as registers of
  each thread suffice: the compiler moves no load over a meeting of threads."""
  out: list[UOp] = []
  part: list[UOp] = []
  for u in code:
    part.append(u)
    if u.op not in IN_ORDER: continue
    out += part_loads_early(part, registers)
    part = []
  return out + part

def part_loads_early(part: list[UOp], registers: int) -> list[UOp]:
  """The same for a list with no effect but the last."""
  first = next((k for k, u in enumerate(part) if is_meeting(u)), len(part))
  early, late = set(part[:first]), set(part[first:])
  for u in part[first:]:
    if u.op is not Ops.LOAD or not is_of_a_block(without_after(u.src[0])): continue
    needed = set(toposort([u], early.__contains__)) & late
    registers -= ceildiv(u.dtype.itemsize, 4)
    if registers < 0: break
    if any(map(is_meeting, needed)): continue
    early |= needed
    late -= needed
  return [u for u in part if u in early] + [u for u in part if u in late]

def is_of_a_block(address: UOp) -> bool:
  """Whether each block reads a part of memory of its own."""
  in_memory = without_after(address.src[0]).op is Ops.PARAM
  return in_memory and any(u.op is Ops.SPECIAL and u.arg[0] == "block" for u in toposort(address.src[1:]))

# ---- one kernel ------------------------------------------------------------------------------------------------------

class Renderer:
  """Writes the lines of one kernel; names[u] is how its operands are spelled."""
  def __init__(self, kernel: Listing):
    self.name, code, self.target = kernel
    self.names: dict[UOp, str] = {}
    self.lines: list[str] = []
    self.depth = 1
    self.sizes = {u.arg[0]: u.arg[1] for u in code if u.op is Ops.SPECIAL}
    self.code = self.ordered(code)
    self.exact = exact_nodes(self.code)
    self.written = {self.memory(u.src[0]) for u in self.code if u.op is Ops.STORE}
    self.in_turn = any(u.op is Ops.WMMA and u.arg.bulk for u in self.code)

  def ordered(self, code: Sequence[UOp]) -> Sequence[UOp]: return loads_early(code, self.registers // 8)

  @property
  def passed_on(self) -> set[str]:
    """The pointers to memory through which threads pass values to others: no thread's own stores are all that change
    it."""
    if not any(u.op is Ops.BARRIER for u in self.code): return set()
    read = {self.memory(u.src[0]) for u in self.code if u.op is Ops.LOAD}
    return {f"p{u.arg}" for u in self.written & read if u.op is Ops.PARAM}

  @property
  def grid(self) -> int: return self.sizes.get("block", 1)
  @property
  def threads(self) -> int: return self.sizes.get("thread", 1)
  @property
  def resident(self) -> int: return max(self.threads, RESIDENT if self.grid > FEW_BLOCKS else 1)
  @property
  def registers(self) -> int: return min(matrix.MOST_REGISTERS, matrix.REGISTERS // self.resident)

  def memory(self, address: UOp) -> UOp: return without_after(without_after(address).src[0])

  def kernel(self) -> str:
    for u in self.code: self.write(u)
    tiles = [u.arg for u in self.code if u.op is Ops.WMMA]
    shared = max(map(matrix.shared_bytes, tiles), default=0)
    functions = "".join(map(matrix.device_function, dict.fromkeys(tiles)))
    maps = [line + "\n" for tile in dict.fromkeys(tiles) for line in matrix.tensor_maps(tile)]
    parameters = self.parameters()
    pointers = [*parameters, *[("const TensorMap*", "maps")] * bool(maps)]
    blocks = max(map(matrix.blocks_at_once, tiles), default=self.resident // self.threads)
    head = self.head(shared) + (f" in turn {blocks}" if self.in_turn else "") + "\n"
    bounds = f"__launch_bounds__({self.threads}, {blocks})"
    inner = ", ".join(f"{kind}{'' if name in self.passed_on else ' __restrict__'} {name}" for kind, name in pointers)
    outer = ", ".join(f"{kind} {name}" for kind, name in pointers)
    names = ", ".join(f"now({name})" for _, name in pointers)
    entry = f'extern "C" __global__ void {bounds} {self.name}({outer}) {{\n'
    entry += f"  launch_later_kernels();\n{self.fetches()}  wait_for_earlier_kernels();\n"
    if self.in_turn:
      inner, names = f"int block, Pipeline& pipeline, {inner}", f"block, pipeline, {names}"
      entry += "  Pipeline pipeline = {};\n"
      entry += f"  for (int block = blockIdx.x; block < {self.grid}; block += gridDim.x)\n  "
    body = f"__device__ __forceinline__ void body({inner}) {{\n" + "\n".join(self.lines) + "\n}\n"
    return head + "".join(maps) + PRELUDE + functions + body + entry + f"  body({names});\n}}\n"

  def fetches(self) -> str:
    """Statements that bring into the cache what the first block is about to read, which the others read too, and what
    each block is where there are few of them. The cache knows of later stores: it may be early."""
    if not self.target.bulk_copies or self.in_turn: return ""
    outer = self.lines, self.names
    self.lines, self.names = [], {}
    for piece in fetched(self.code, self.grid <= FEW_BLOCKS):
      self.write_below(piece.first)
      first = "" if self.depends_on_block(piece.first) else " && blockIdx.x == 0"
      source = f"p{piece.memory.arg} + {self.name_of(piece.first)}"
      self.put(f"if (threadIdx.x == 0{first}) fetch({source}, {whole(piece.nbytes)});")
    text = "".join(line + "\n" for line in self.lines)
    self.lines, self.names = outer
    return text

  def depends_on_block(self, u: UOp) -> bool: return any(v.op is Ops.SPECIAL for v in toposort([u]))
  def write_below(self, u: UOp) -> None:
    """What u needs and has no name yet, and u."""
    for v in toposort([u]):
      if v not in self.names: self.write(v)

  def head(self, shared: int) -> str:
    writes = ",".join(str(slot) for slot in sorted(u.arg for u in self.written if u.op is Ops.PARAM))
    return (f"// {self.name} grid {self.grid} block {self.threads} shared {shared} arguments {len(self.parameters())} "
            f"writes {writes}")

  def parameters(self) -> list[tuple[str, str]]:
    """Type and name of each slot's pointer. Slots are different memory; one that is not touched keeps its place."""
    params = {u.arg: u for u in toposort(self.code) if u.op is Ops.PARAM}
    found = []
    for slot in range(1 + max(params, default=-1)):
      u = params.get(slot)
      kind = "const void*" if u is None else f"{'' if u in self.written else 'const '}{scalar_type(u.dtype)}*"
      found.append((kind, f"p{slot}"))
    return found

  def put(self, text: str) -> None: self.lines.append("  " * self.depth + text)
  def fresh(self, u: UOp) -> str: return self.names.setdefault(u, f"v{len(self.names)}")

  def name_of(self, u: UOp) -> str:
    u = without_after(u)
    if u in self.names: return self.names[u]
    if u.op is Ops.CONST: return constant(u.dtype, u.arg)
    if u.op is Ops.PARAM: return f"p{u.arg}"
    if u.op is Ops.STACK: return f"{type_of(u.dtype)}{{{{{', '.join(self.lane(u, k) for k in range(u.dtype.count))}}}}}"
    if u.op is Ops.INDEX: return self.lane(u.src[0], u.src[1].arg) if u.src[0].dtype.count > 1 else self.address(u)
    raise ValueError(f"{self.name}: {u} is used before it is written")

  def lane(self, u: UOp, k: int) -> str:
    """One lane of a value; a scalar is every lane of itself."""
    if u.op is Ops.STACK: return self.name_of(u.src[k]) if u.arg is None else self.lane(*shuffled(u, k))
    return self.name_of(u) if u.dtype.count == 1 else f"{self.name_of(u)}.v[{k}]"

  def address(self, u: UOp) -> str:
    return f"{self.name_of(u.src[0])} + {self.name_of(u.src[1])}"

  def define(self, u: UOp, text: str) -> None: self.put(f"const {type_of(u.dtype)} {self.fresh(u)} = {text};")

  def write(self, u: UOp) -> None:
    if u.op in SILENT: return
    if u.op in self.steps: self.steps[u.op](self, u)
    elif u.op in ALU: self.lanewise(u)
    else: raise ValueError(f"{self.name}: {u.op} of {u.dtype} has no CUDA C")

  def lanewise(self, u: UOp) -> None:
    if u.dtype.count == 1: return self.define(u, f"({type_of(u.dtype)})({self.expression(u, 0)})")
    scalar = scalar_type(u.dtype)
    lanes = [f"({scalar})({self.expression(u, k)})" for k in range(u.dtype.count)]
    self.define(u, "{{" + ", ".join(lanes) + "}}")

  def expression(self, u: UOp, k: int) -> str:
    """One lane of an operation."""
    if is_rounding(u): return ROUNDED[u.src[0].dtype.scalar.name].format(self.lane(u.src[0].src[0], k))
    operands = [self.lane(s, k) for s in u.src]
    if u.op is Ops.CAST: return self.cast(u, operands[0])
    if u.op is Ops.BITCAST: return f"same_bits<{scalar_type(u.dtype)}>({operands[0]})"
    if u in self.exact and u.op in EXACT and u.dtype.kind == "i": return EXACT[u.op].format(*operands)
    if is_extreme(u) and u.dtype.scalar in (dtypes.int32, dtypes.uint32): return "picked({}, {}, {})".format(*operands)
    deciding = u.src[1] if u.op is Ops.WHERE else u.src[0]
    row = next((text for kinds, text in ROWS[u.op].items() if deciding.dtype.kind in kinds), None)
    if row is None: raise ValueError(f"{self.name}: {u.op} of {deciding.dtype} has no CUDA C")
    return row.format(*operands, u=unsigned_type(u.dtype), w=u.dtype.bits)

  def cast(self, u: UOp, operand: str) -> str:
    source, result = u.src[0].dtype.scalar, u.dtype.scalar
    if (source.name, result.name) in CASTS: return CASTS[source.name, result.name].format(operand)
    return f"{operand} != 0" if result.kind == "b" else f"({scalar_type(result)}){operand}"

  def special(self, u: UOp) -> None:
    self.define(u, {"block": "block" if self.in_turn else "blockIdx.x", "thread": "threadIdx.x"}[u.arg[0]])

  def range(self, u: UOp) -> None:
    name, kind = self.fresh(u), type_of(u.dtype)
    self.put(f"for ({kind} {name} = 0; {name} < {self.name_of(u.bound)}; {name}++) {{")
    self.depth += 1

  def end(self, u: UOp) -> None:
    for r in u.src:
      if r.op is not Ops.RANGE: continue
      self.depth -= 1
      self.put("}")

  def buffer(self, u: UOp) -> None:
    if any(v.op is Ops.WMMA and v.src[0] is u for v in self.code) and u.arg.space is Space.LOCAL:
      kind = f"{type_of(u.dtype)}*"
      return self.put(f"{kind} {self.fresh(u)} = ({kind})(raw + (-shared_address(raw) & 1023));")
    where = "__shared__ __align__(16) " if u.arg.space is Space.LOCAL else ""
    self.put(f"{where}{type_of(u.dtype)} {self.fresh(u)}[{u.arg.size}];")

  def load(self, u: UOp) -> None:
    address = without_after(u.src[0])
    gates, memory = address.src[2:], self.memory(u.src[0])
    if u.dtype.count == 1 or memory.dtype is u.dtype:
      text = f"{self.name_of(memory)}[{self.name_of(address.src[1])}]"
      return self.define(u, f"{self.name_of(gates[0])} ? {text} : ({type_of(u.dtype)})0" if gates else text)
    if memory.op is Ops.BUFFER and memory.arg.space is Space.REG: return self.load_registers(u, memory, address)
    if gates and not is_one(gates[0]): return self.load_by_lanes(u, address)
    width = aligned_lanes(address, u.dtype)
    text = f"load<{width}, {u.dtype.count}>({self.address(address)})"
    if not gates: return self.define(u, text)
    zero = "{{" + ", ".join(["0"] * u.dtype.count) + "}}"
    self.put(f"{type_of(u.dtype)} {self.fresh(u)} = {zero};")
    self.put(f"if ({self.lane(gates[0], 0)}) {self.name_of(u)} = {text};")

  def load_registers(self, u: UOp, memory: UOp, address: UOp) -> None:
    """Neighbours in a private array: by constant numbers, so that they stay in registers."""
    first = address.src[1]
    assert first.op is Ops.CONST, f"{self.name}: {u} reads registers at {first}"
    self.define(u, "{{" + ", ".join(f"{self.name_of(memory)}[{first.arg + k}]" for k in range(u.dtype.count)) + "}}")

  def load_by_lanes(self, u: UOp, address: UOp) -> None:
    """All lanes at once where all are wanted."""
    base, gate, zeros = self.address(address), address.src[2], "{{" + ", ".join(["0"] * u.dtype.count) + "}}"
    self.put(f"{type_of(u.dtype)} {self.fresh(u)} = {zeros};")
    whole = f"{self.name_of(u)} = load<{aligned_lanes(address, u.dtype)}, {u.dtype.count}>({base});"
    lanes = [f"if ({self.lane(gate, k)}) {self.name_of(u)}.v[{k}] = ({base})[{k}];" for k in range(u.dtype.count)]
    self.put(f"if ({self.every(gate)}) {whole} else {{ {' '.join(lanes)} }}")

  def every(self, gate: UOp) -> str:
    """That every lane of a gate is true."""
    return " && ".join(dict.fromkeys(self.lane(gate, k) for k in range(gate.dtype.count)))

  def store(self, u: UOp) -> None:
    address, value = without_after(u.src[0]), u.src[1]
    gates, memory = address.src[2:], self.memory(u.src[0])
    if u.arg is Ops.ADD: return self.add_to_memory(address, value)
    guard = f"if ({self.lane(gates[0], 0)}) " if gates else ""
    if value.dtype.count == 1 or memory.dtype is value.dtype:
      return self.put(f"{guard}{self.name_of(memory)}[{self.name_of(address.src[1])}] = {self.name_of(value)};")
    whole = f"store<{aligned_lanes(address, value.dtype)}>({self.address(address)}, {self.name_of(value)});"
    if not gates or is_one(gates[0]): return self.put(guard + whole)
    base, gate = self.address(address), gates[0]
    lanes = [f"if ({self.lane(gate, k)}) ({base})[{k}] = {self.lane(value, k)};" for k in range(value.dtype.count)]
    self.put(f"if ({self.every(gate)}) {whole} else {{ {' '.join(lanes)} }}")

  def add_to_memory(self, address: UOp, value: UOp) -> None:
    """Other threads may add to the same element at the same time."""
    for k in range(value.dtype.count):
      guard = f"if ({self.lane(address.src[2], k)}) " if len(address.src) > 2 else ""
      self.put(f"{guard}atomicAdd({self.address(address)} + {k}, {self.lane(value, k)});")

  def reduce(self, u: UOp) -> None:
    """Over the lanes of a vector, upper half with lower half until one is left; or over threads, for each lane."""
    combine = COMBINE[u.arg[0]]
    if len(u.src) == 1:
      parts = [self.lane(u.src[0], k) for k in range(u.src[0].dtype.count)]
      while len(parts) > 1:
        half = len(parts) // 2
        parts = [f"{combine}::of({a}, {b})" for a, b in zip(parts[:half], parts[half:])]
      return self.define(u, parts[0])
    _, _, stride, size = u.arg
    call = f"over_threads<{combine}, {stride}, {size}, {self.threads}>"
    self.define(u, f"{call}({self.name_of(u.src[0])})")

  def tile(self, u: UOp) -> None:
    results, a, b, row, column = u.src
    if u.arg.bulk: return self.tile_of_blocks(u, [a.src[1], b.src[1], row, column])
    names = map(self.name_of, (results, a, b, row, column))
    self.put(f"{matrix.function_name(u.arg)}({', '.join(names)});")

  def tile_of_blocks(self, u: UOp, corner: list[UOp]) -> None:
    """Where a block's tile begins is a function, so that the copies for the next one can start early; not where loops
    in the block say it."""
    nodes = toposort(corner)
    depends = any(v.op is Ops.RANGE for v in nodes)
    self.put("auto corner = [&](int block) {")
    outer, self.names, self.depth = self.names, self.names if depends else {}, self.depth + 1
    for v in nodes if not depends else []: self.write(v)
    self.put(f"return Corner{{{', '.join(map(self.name_of, corner))}}}; }};")
    self.names, self.depth = outer, self.depth - 1
    next_block = "-1" if depends else f"block + gridDim.x < {self.grid} ? block + gridDim.x : -1"
    results = self.name_of(u.src[0])
    self.put(f"{matrix.function_name(u.arg)}({results}, maps, corner, block, {next_block}, pipeline);")

  def barrier(self, u: UOp) -> None: self.put("__syncthreads();")

  steps = {Ops.SPECIAL: special, Ops.RANGE: range, Ops.END: end, Ops.BUFFER: buffer, Ops.LOAD: load, Ops.STORE: store,
           Ops.REDUCE: reduce, Ops.BARRIER: barrier, Ops.WMMA: tile}

class RingRenderer(Renderer):
  """Of a kernel whose blocks take turns. `work` says for which blocks of all one works next, -1 that there are no more:
  the first ones are its own, the others are taken by who comes first. What a block reads beside its piece is loaded
  during the turn before."""
  def __init__(self, kernel: Listing, ring: Ring):
    self.ring = ring
    pointers = {piece: f"near{k}" for k, piece in enumerate(ring.each)}
    self.near = {without_after(u.src[0]): pointers[piece] for u, piece in ring.pieces.items()}
    super().__init__(kernel)

  def ordered(self, code: Sequence[UOp]) -> Sequence[UOp]: return code
  def address(self, u: UOp) -> str:
    return f"{self.near[u]} + {self.name_of(u.src[1])}" if u in self.near else super().address(u)

  def kernel(self) -> str:
    stages, total = self.ring.stages, self.grid
    pointers = self.parameters()
    slots = [pointers[u.arg] for u in self.ring.slots]
    copied = ", ".join(f"{kind} {name}" for kind, name in slots)
    given = f"base, ready, {', '.join(name for _, name in slots)}"
    inner = ", ".join(f"{kind} __restrict__ {name}" for kind, name in pointers)
    outer = ", ".join(f"{kind} {name}" for kind, name in pointers)
    names = ", ".join(f"now({name})" for _, name in pointers)
    head = self.head(stages * self.ring.stage_bytes + ALIGNED)
    return f"""{head} in turn 1 early {",".join(str(u.arg) for u in self.ring.slots)}
{PRELUDE}{matrix.SHARED_MEMORY}{matrix.BARRIERS}{RING}
__device__ __forceinline__ void copy(int block, int stage, unsigned int base, unsigned int ready, {copied}) {{
{self.copies()}
}}
__device__ __forceinline__ void body(int* work, unsigned int base, unsigned int ready, {inner}) {{
{self.turns(given)}
}}
extern "C" __global__ void __launch_bounds__({self.threads}, 1) {self.name}({outer}, size_t early) {{
  __shared__ __align__(8) unsigned long long barriers[{stages}];
  __shared__ int work[{2 * stages}];
  const unsigned int base = (shared_address(raw) + {ALIGNED - 1}) & ~{ALIGNED - 1}u, ready = shared_address(barriers);
  launch_later_kernels();
{self.fetches()}  if (threadIdx.x == 0) {{
    make_barriers(ready, {stages});
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
    for (int i = 0, block = blockIdx.x; i < {stages}; i++, block += gridDim.x) work[i] = block < {total} ? block : -1;
  }}
  __syncthreads();
  if (!early) wait_for_earlier_kernels();
  if (threadIdx.x == 0) for (int i = 0; i < {stages}; i++) copy(work[i], i, {given});
  wait_for_earlier_kernels();
  body(work, base, ready, {names});
}}
"""

  def copies(self) -> str:
    """The statements that start to copy a block's pieces."""
    self.lines, self.names = [], {self.block: "block"}
    self.put("if (block < 0) return;")
    self.put(f"expect_bytes(ready + stage * 8, {self.ring.stage_bytes});")
    to = f"base + stage * {self.ring.stage_bytes}"
    place = 0
    for piece in self.ring.each:
      self.write_below(piece.first)
      source = f"p{piece.memory.arg} + {self.name_of(piece.first)}"
      self.put(f"copy_piece({to} + {place}, {source}, {piece.nbytes}, ready + stage * 8);")
      place += piece.nbytes
    return "\n".join(self.lines)

  def turns(self, given: str) -> str:
    """The statements that do the work of all blocks that are one's own."""
    stages = self.ring.stages
    self.lines, self.names = [], {}
    for u in self.ring.common: self.write(u)
    self.put(f"const unsigned int first = {stages} * gridDim.x, rest = first < {self.grid} ? {self.grid} - first : 0;")
    self.put("int next = threadIdx.x == 0 && rest > 0 ? take(first, rest) : -1;")
    for k, u in enumerate(self.ring.beside): self.loads_beside(k, u)
    self.put("for (int turn = 0;; turn++) {")
    self.depth += 1
    self.put(f"const int block = work[turn % {2 * stages}], after = work[(turn + 1) % {2 * stages}];")
    self.put(f"const int stage = turn % {stages};")
    self.put("if (block < 0) break;")
    self.names[self.block] = "block"
    for k, u in enumerate(self.ring.beside):
      self.define(u, f"value{k}")
      self.put(f"if (after >= 0) value{k} = beside{k}(after);")
    self.put(f"wait_for(ready + stage * 8, turn / {stages} & 1);")
    self.pieces()
    for u in self.code:
      if u not in self.names: self.write(u)
    self.put(f"if (threadIdx.x == 0) work[(turn + {stages}) % {2 * stages}] = next;")
    self.put("__syncthreads();")
    self.put(f"if (threadIdx.x == 0) {{ copy(next, stage, {given}); if (next >= 0) next = take(first, rest); }}")
    self.depth -= 1
    self.put("}")
    return "\n".join(self.lines)

  @property
  def block(self) -> UOp: return next(u for u in self.code if u.op is Ops.SPECIAL and u.arg[0] == "block")

  def loads_beside(self, k: int, load: UOp) -> None:
    """A function that loads something for a block, and the value for the first one."""
    names, self.depth = self.names, self.depth + 1
    self.put(f"auto beside{k} = [&](int block) {{")
    self.names = {**names, self.block: "block"}
    self.write_below(load)
    self.put(f"return {self.name_of(load)}; }};")
    self.names, self.depth = names, self.depth - 1
    self.put(f"{type_of(load.dtype)} value{k} = beside{k}(work[0]);")

  def pieces(self) -> None:
    """Pointers into the stage, from which the block's pieces are read as if they were where they came from."""
    place = 0
    for k, piece in enumerate(self.ring.each):
      self.write_below(piece.first)
      kind = scalar_type(piece.memory.dtype)
      start = f"raw + (base - shared_address(raw)) + stage * {self.ring.stage_bytes} + {place}"
      self.put(f"const {kind}* near{k} = (const {kind}*)({start}) - {self.name_of(piece.first)};")
      place += piece.nbytes

ALIGNED = 128            # bytes: where stages begin

# What needs no line of its own: an operand's text says it.
SILENT = frozenset({Ops.CONST, Ops.PARAM, Ops.STACK, Ops.INDEX, Ops.AFTER, Ops.SINK})

def is_rounding(u: UOp) -> bool:
  """Whether a CAST to float32 undoes a CAST from it to 16 bits."""
  if u.op is not Ops.CAST or u.src[0].op is not Ops.CAST or u.src[0].dtype.scalar.name not in ROUNDED: return False
  return u.dtype.scalar is u.src[0].src[0].dtype.scalar is dtypes.float32

def is_extreme(u: UOp) -> bool:
  """Whether a WHERE is the larger or the smaller of two values."""
  if u.op is not Ops.WHERE: return False
  condition, *choices = u.src
  if condition.op is Ops.CMPNE and condition.src[0].op is Ops.CMPLT: condition = condition.src[0]
  return condition.op is Ops.CMPLT and set(condition.src) == set(choices)

def is_one(gate: UOp) -> bool:
  """Whether a gate is the same for all lanes."""
  return gate.dtype.count == 1 or (gate.op is Ops.STACK and all(s is gate.src[0] for s in gate.src))
