# matrix.py: the inner loop of a tile of a contraction as CUDA C. In: a Tile (arg of WMMA). Out: a device function that
# adds up rows x columns products over all of k: operands come through shared memory, several stages ahead of their use;
# who multiplies is the Tile's unit:
#   fma     one multiply-add per element, 8x8 results in each thread's registers (float32)
#   mma     mma.sync of a warp, fed by ldmatrix (sm_80 and later)
#   wgmma   wgmma of four warps, which reads swizzled shared memory by itself (sm_90a)
# The results of the last two go to shared memory, where the stages were: who stores them takes them row by row. They
# are rounded there already where that is all that follows. Copies are bulk tensor copies, started by one thread, where
# the operand is a matrix to them; the block then takes several tiles in turn, and what the next one multiplies first
# comes while the results of the last are stored. Else copies are cp.async of as many bytes as are known to be aligned.
# Outside the operand they read zeros. (PTX ISA 8.x, chapters on mma, wgmma, cp.async and tensor maps; swizzles so that
# no two lanes meet in a bank.)   (chapter 3)
from __future__ import annotations
from picograd.helpers import ceildiv
from picograd.ops.ops import Operand, Tile

SHARED_MEMORY = r"""
extern __shared__ char raw[];
__device__ __forceinline__ unsigned int shared_address(const void* p) {
  return (unsigned int)__cvta_generic_to_shared(p);
}
"""
PRELUDE = SHARED_MEMORY + r"""
// BYTES from global to shared memory in the background; zeros where not inside. Two bytes are copied at once.
template<int BYTES, typename T> __device__ __forceinline__
void copy_async(unsigned int to, const T* from, bool inside) {
  int n = inside ? BYTES : 0;
  if constexpr (BYTES == 16)
    asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" :: "r"(to), "l"(from), "r"(n) : "memory");
  else if constexpr (BYTES >= 4)
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" :: "r"(to), "l"(from), "n"(BYTES), "r"(n) : "memory");
  else {
    unsigned short value = inside ? *(const unsigned short*)from : (unsigned short)0;
    asm volatile("st.shared.b16 [%0], %1;" :: "r"(to), "h"(value) : "memory");
  }
}
__device__ __forceinline__ void copies_end() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template<int N> __device__ __forceinline__ void copies_wait() {
  asm volatile("cp.async.wait_group %0;" :: "n"(N) : "memory");
}
"""

def function_name(tile: Tile) -> str: return f"tile_{tile.unit}"

def by_registers(itemsize: int, a: Operand, b: Operand) -> str:
  """Which operand of a wgmma comes from registers: wgmma itself turns none but 16-bit elements."""
  return "" if itemsize == 2 else "a" if not a.is_along_k else "b" if not b.is_along_k else ""

def results_pitch(columns: int, turned: str) -> int:
  """Elements from one row of results to the next: threads of a warp write to different banks."""
  return columns + (2 if turned == "b" else 8)

def shared_bytes(tile: Tile) -> int:
  """Dynamic shared memory that the tile needs."""
  return 0 if tile.unit == "fma" else room(tile.stages, stage_bytes(tile), results_bytes(tile))

def room(stages: int, stage: int, results: int) -> int:
  """Bytes of stages, later of results, and of a barrier for each stage; room to round the start up to 1024 included."""
  return 1024 + max(stages * stage, results) + 8 * stages

def results_bytes(tile: Tile) -> int: return tile.rows * tile.pitch * RESULT_BYTES[tile.result]
RESULT_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}

def blocks_at_once(tile: Tile) -> int:
  """How many blocks a processor should hold, for which the compiler then leaves registers."""
  if tile.unit == "fma": return 2
  return max(1, min(REGISTERS // (MOST_REGISTERS * tile.threads), SHARED // (shared_bytes(tile) + 1024)))

REGISTERS, MOST_REGISTERS = 1 << 16, 255         # of a processor, and of one thread
SHARED = 228 << 10                               # bytes of a processor's shared memory

def stage_bytes(tile: Tile) -> int: return (tile.rows + tile.columns) * tile.depth * tile.itemsize

def device_function(tile: Tile) -> str:
  return PRELUDE + rounding(tile) + {"fma": fma, "mma": mma, "wgmma": wgmma}[tile.unit](tile)

def tensor_maps(tile: Tile) -> list[str]:
  """What a kernel's launch must describe for bulk copies: slot, type, and for the nearer and the farther dimension the
  length; then the box of one copy."""
  if not tile.bulk: return []
  across = 128 // tile.itemsize
  sides = (tile.a, tile.rows), (tile.b, tile.columns)
  boxes = [(o, (across, rows if o.is_along_k else tile.depth)) for o, rows in sides]
  return [f"// map slot {o.slot} type {tile.dtype} pitch {o.pitch} width {o.width} length {o.length} box {x} {y}"
          for o, (x, y) in boxes]

# ---- staging ---------------------------------------------------------------------------------------------------------

def is_along_k(operand: Operand) -> bool: return operand.is_along_k

def place(tile: Tile, operand: Operand, rows: int) -> str:
  """Where in its stage the element (r, k) of an operand is, in bytes: chunks of 16 bytes are exchanged among rows."""
  chunk = 16 // tile.itemsize
  rest = f" + {f'k % {chunk}' if is_along_k(operand) else f'r % {chunk}'} * {tile.itemsize}"
  if is_along_k(operand):
    width = tile.depth * tile.itemsize
    turned = f"(k / {chunk} ^ r & 7)" if width == 128 else f"(k / {chunk} ^ r >> 1 & 3)"
    return f"r * {width} + {turned} * 16{rest}"
  panel = 128 // tile.itemsize if tile.unit == "wgmma" else rows
  start = f"r / {panel} * {tile.depth * 128} + " if tile.unit == "wgmma" else ""
  return f"{start}k * {panel * tile.itemsize} + (r % {panel} / {chunk} ^ k & 7) * 16{rest}"

def pieces_across(tile: Tile, operand: Operand, rows: int) -> int:
  """How many threads side by side copy neighbours of an operand."""
  return (tile.depth if is_along_k(operand) else rows) // operand.lanes

def piece(tile: Tile, operand: Operand, rows: int) -> str:
  """Which of a stage's elements a thread copies first; others are the same number of rows, or steps of k, apart."""
  down, across = "rk" if is_along_k(operand) else "kr"
  per = pieces_across(tile, operand, rows)
  return f"int {down} = threadIdx.x / {per}, {across} = threadIdx.x % {per} * {operand.lanes};"

def source(tile: Tile, operand: Operand, rows: int, name: str, first: str) -> str:
  """from_NAME: the address of what a thread copies first of all."""
  return f"""  const auto* from_{name} = {name};
  {{ {piece(tile, operand, rows)}
    from_{name} += (long long)({first} + r) * {operand.outer} + (long long)k * {operand.inner}; }}"""

def copy(tile: Tile, operand: Operand, rows: int, name: str, first: str, size: int) -> str:
  """The statements that copy one stage of an operand: every thread some pieces, neighbours side by side. Whether a
  piece is inside is asked only where a tile may be cut off."""
  down = tile.threads // pieces_across(tile, operand, rows)
  count = rows * tile.depth // operand.lanes // tile.threads
  apart, moved = (operand.outer, "r") if is_along_k(operand) else (operand.inner, "k")
  conditions = [f"{first} + r < {size}"] * (size % rows > 0)
  conditions += [f"step * {tile.depth} + k < {tile.k}"] * (tile.k % tile.depth > 0)
  return f"""    {{ const auto* from = from_{name} + (long long)step * {tile.depth * operand.inner};
    {piece(tile, operand, rows)}
    #pragma unroll
    for (int i = 0; i < {count}; i++) {{
      bool inside = {" && ".join(conditions) or "true"};
      copy_async<{operand.lanes * tile.itemsize}>(s{name} + {place(tile, operand, rows)},
        inside ? from + i * {down * apart}ll : {name}, inside);
      {moved} += {down};
    }} }}"""

def staging(tile: Tile) -> str:
  total = tile.rows * tile.depth * tile.itemsize
  return f"""  unsigned int base = (shared_address(raw) + 1023) & ~1023u;
{source(tile, tile.a, tile.rows, "a", "m0")}
{source(tile, tile.b, tile.columns, "b", "n0")}
  auto copy_stage = [&](int step) {{
    unsigned int sa = base + step % {tile.stages} * {stage_bytes(tile)}, sb = sa + {total};
{copy(tile, tile.a, tile.rows, "a", "m0", tile.m)}
{copy(tile, tile.b, tile.columns, "b", "n0", tile.n)}
  }};"""

RESULT_TYPES = {"float32": "float", "float16": "unsigned short", "bfloat16": "unsigned short"}

def store_pair(tile: Tile, place: str, low: str, high: str) -> str:
  """The statement that stores neighbours of a row of results."""
  if tile.result == "float32": return f"*(float2*)({place}) = make_float2({low}, {high});"
  return f"*(unsigned int*)({place}) = rounded_pair({low}, {high});"

def rounding(tile: Tile) -> str:
  """rounded_pair: two results in 16 bits each. Both at once: the assembler makes pairs of conversions of one number
  each, and has moved them above the wait for wgmma, which makes those numbers."""
  if tile.result == "float32": return ""
  return f"""
__device__ __forceinline__ unsigned int rounded_pair(float low, float high) {{
  unsigned int y; asm("cvt.rn.{PTX_TYPES[tile.result]}x2.f32 %0, %1, %2;" : "=r"(y) : "f"(high), "f"(low)); return y;
}}
"""

def signature(tile: Tile) -> str:
  if tile.bulk: return f"""template<typename Function> __device__ __forceinline__
void {function_name(tile)}({RESULT_TYPES[tile.result]}* results, const TensorMap* maps, Function corner,
  int block, int next, Pipeline& pipeline) {{"""
  kind = "float" if tile.itemsize == 4 else "unsigned short"
  results = "float (&d)[64]" if tile.unit == "fma" else f"{RESULT_TYPES[tile.result]}* results"
  return f"""__device__ __forceinline__
void {function_name(tile)}({results}, const {kind}* a, const {kind}* b, int m0, int n0) {{"""

# ---- mma.sync --------------------------------------------------------------------------------------------------------

MMA = r"""
template<bool TURNED> __device__ __forceinline__ void load_matrices(unsigned int (&x)[4], unsigned int from) {
  if constexpr (TURNED)
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
      : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3]) : "r"(from) : "memory");
  else
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
      : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3]) : "r"(from) : "memory");
}
"""
PTX_TYPES = {"bfloat16": "bf16", "float16": "f16", "float32": "tf32"}

def mma(tile: Tile) -> str:
  """Fragments of the next 16 steps of k are loaded while the tensor cores multiply the last ones."""
  wm, wn = tile.warp
  mi, ni, steps, ptx = wm // 16, wn // 8, tile.depth // 16, PTX_TYPES[tile.dtype]
  down = tile.rows // wm
  ka, kb = is_along_k(tile.a), is_along_k(tile.b)
  lane_a = "r = wm + i * 16 + (l & 15), k = step * 16 + (l >> 4) * 8" if ka else \
           "k = step * 16 + (l & 7) + (l >> 4) * 8, r = wm + i * 16 + (l >> 3 & 1) * 8"
  lane_b = "r = wn + j * 16 + (l >> 4) * 8 + (l & 7), k = step * 16 + (l >> 3 & 1) * 8" if kb else \
           "k = step * 16 + (l & 15), r = wn + j * 16 + (l >> 4) * 8"
  turned = {True: "false", False: "true"}
  return MMA + f"""{signature(tile)}
{staging(tile)}
  float d[{mi * ni * 4}];
  int l = threadIdx.x % 32, w = threadIdx.x / 32, wm = w % {down} * {wm}, wn = w / {down} * {wn};
  unsigned int fa[2][{mi}][4], fb[2][{ni // 2}][4];
  auto fragments = [&](int stage, int step, unsigned int (&x)[{mi}][4], unsigned int (&y)[{ni // 2}][4]) {{
    unsigned int sa = base + stage * {stage_bytes(tile)}, sb = sa + {tile.rows * tile.depth * tile.itemsize};
    #pragma unroll
    for (int i = 0; i < {mi}; i++) {{
      int {lane_a}; load_matrices<{turned[ka]}>(x[i], sa + {place(tile, tile.a, tile.rows)}); }}
    #pragma unroll
    for (int j = 0; j < {ni // 2}; j++) {{
      int {lane_b}; load_matrices<{turned[kb]}>(y[j], sb + {place(tile, tile.b, tile.columns)}); }}
  }};
  const int total = {-(-tile.k // tile.depth)};
  #pragma unroll
  for (int i = 0; i < {mi * ni * 4}; i++) d[i] = 0.0f;
  for (int i = 0; i < {tile.stages - 1}; i++) {{ if (i < total) copy_stage(i); copies_end(); }}
  copies_wait<{tile.stages - 2}>();
  __syncthreads();
  fragments(0, 0, fa[0], fb[0]);
  for (int t = 0; t < total; t++) {{
    #pragma unroll
    for (int step = 0; step < {steps}; step++) {{
      if (step == {steps - 1}) {{ copies_wait<{tile.stages - 2}>(); __syncthreads(); }}
      fragments((t + (step == {steps - 1})) % {tile.stages}, (step + 1) % {steps},
        fa[(step + 1) & 1], fb[(step + 1) & 1]);
      if (step == 0) {{ if (t + {tile.stages - 1} < total) copy_stage(t + {tile.stages - 1}); copies_end(); }}
      #pragma unroll
      for (int i = 0; i < {mi}; i++)
        #pragma unroll
        for (int j = 0; j < {ni}; j++) {{
          float* x = d + (i * {ni} + j) * 4;
          unsigned int* p = fa[step & 1][i];
          unsigned int* q = fb[step & 1][j / 2] + j % 2 * 2;
          asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.{ptx}.{ptx}.f32 "
            "{{%0,%1,%2,%3}}, {{%4,%5,%6,%7}}, {{%8,%9}}, {{%0,%1,%2,%3}};"
            : "+f"(x[0]), "+f"(x[1]), "+f"(x[2]), "+f"(x[3])
            : "r"(p[0]), "r"(p[1]), "r"(p[2]), "r"(p[3]), "r"(q[0]), "r"(q[1]));
        }}
    }}
  }}
  copies_wait<0>();
  __syncthreads();
  #pragma unroll
  for (int i = 0; i < {mi}; i++)
    #pragma unroll
    for (int j = 0; j < {ni}; j++)
      #pragma unroll
      for (int h = 0; h < 2; h++) {{
        auto* place = results + (wm + i * 16 + h * 8 + l / 4) * {tile.pitch} + wn + j * 8 + l % 4 * 2;
        float low = d[(i * {ni} + j) * 4 + h * 2], high = d[(i * {ni} + j) * 4 + h * 2 + 1];
        {store_pair(tile, "place", "low", "high")}
      }}
}}
"""

# ---- wgmma -----------------------------------------------------------------------------------------------------------

def wgmma(tile: Tile) -> str:
  """Each warpgroup multiplies its part of one operand with all of the other while copies for later steps are under way.
  That part may come from registers, of which there are two sets: one step's is read while the last one multiplies."""
  turned = by_registers(tile.itemsize, tile.a, tile.b)
  part, whole = tile.warp[::-1] if turned == "b" else tile.warp
  mi, count = part // 64, whole // 2
  start, ready, more, copied, end = bulk_steps(tile) if tile.bulk else thread_steps(tile)
  fragments, products = from_registers(tile, turned, mi, count) if turned else ("", from_memory(tile, mi, count))
  sets = f"unsigned int (&x)[{mi * STEPS * 4}]" if turned else "int"
  by_twos = "t += 2) { multiply_step(t, x[0]); if (t + 1 < total) multiply_step(t + 1, x[1]); }"
  loop = "  for (int t = 0; t < total; " + (by_twos if turned else "t++) multiply_step(t, 0);")
  return f"""{wgmma_instruction(tile, turned, whole)}{TENSOR_MAPS if tile.bulk else ""}{signature(tile)}
{bulk_staging(tile) if tile.bulk else staging(tile)}
  float d[{mi * count}];
{f"  unsigned int x[2][{mi * STEPS * 4}];" if turned else ""}
  const int total = {ceildiv(tile.k, tile.depth)};
  int w = threadIdx.x / 32, l = threadIdx.x % 32;
  auto multiply_step = [&](int t, {sets}) {{
{ready}
    unsigned int sa = base + {slot_of(tile, "t")} * {stage_bytes(tile)};
    unsigned int sb = sa + {tile.rows * tile.depth * tile.itemsize};
{fragments}
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
{products}
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
{more}
    asm volatile("wgmma.wait_group.sync.aligned 1;" ::: "memory");
{copied}
  }};
{start}
{loop}
  asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
{keep(mi * count)}
{end}
  #pragma unroll
  for (int i = 0; i < {mi}; i++)
    #pragma unroll
    for (int j = 0; j < {count // 4}; j++)
      #pragma unroll
      for (int h = 0; h < 2; h++) {{
        int row = w / 4 * {part} + i * 64 + {TURNED_ROW if turned else "w % 4 * 16 + h * 8 + l / 4"};
        int column = j * 8 + l % 4 * 2;
        float low = d[i * {count} + j * 4 + h * 2], high = d[i * {count} + j * 4 + h * 2 + 1];
        {stores_of_two(tile, turned)}
      }}
}}
"""

STEPS = 4                # instructions that take a row of 128 bytes of k
# which 16 rows a warp has: their addresses in swizzled memory are in different banks
TURNED_ROW = "w % 4 / 2 * 32 + (w % 2 * 2 + h + l / 16 * 4) * 4 + l / 4 % 4"

def stores_of_two(tile: Tile, turned: str) -> str:
  """Neighbours of a row of the product; where operands have changed sides, of a column."""
  if turned != "b": return store_pair(tile, f"results + row * {tile.pitch} + column", "low", "high")
  return f"results[column * {tile.pitch} + row] = low; results[(column + 1) * {tile.pitch} + row] = high;"

def descriptor(tile: Tile, operand: Operand) -> int:
  """What describes an operand in shared memory, without its address."""
  return 0x4000004000010000 if operand.is_along_k else 0x4000004000000000 | tile.depth * 8 << 16

def step_bytes(tile: Tile, operand: Operand) -> int:
  """Bytes to what the next instruction takes along k."""
  return 32 if operand.is_along_k else 32 // tile.itemsize * 128

def bytes_of_64_rows(tile: Tile, operand: Operand) -> int:
  return 64 * 128 if operand.is_along_k else 64 * tile.itemsize * tile.depth

def from_memory(tile: Tile, mi: int, count: int) -> str:
  """Products of two operands in shared memory."""
  down, step_a, step_b = bytes_of_64_rows(tile, tile.a), step_bytes(tile, tile.a), step_bytes(tile, tile.b)
  calls = "\n".join(f"    multiply(d + {i * count}, da + {(i * down + k * step_a) >> 4}, db + {(k * step_b) >> 4}, "
                    f"{'t > 0' if k == 0 else '1'});" for k in range(STEPS) for i in range(mi))
  return f"""    sa += w / 4 * {mi * down};
    unsigned long long da = {descriptor(tile, tile.a):#x}ull | (sa & 0x3ffff) >> 4;
    unsigned long long db = {descriptor(tile, tile.b):#x}ull | (sb & 0x3ffff) >> 4;
{calls}"""

def from_registers(tile: Tile, turned: str, mi: int, count: int) -> tuple[str, str]:
  """Statements that load what one step multiplies, and products of that with the other operand."""
  own, other = (tile.a, tile.b) if turned == "a" else (tile.b, tile.a)
  name, rest = ("sa", "sb") if turned == "a" else ("sb", "sa")
  down, step = bytes_of_64_rows(tile, own), step_bytes(tile, other)
  loads = f"""    #pragma unroll
    for (int i = 0; i < {mi * STEPS * 4}; i++) {{
      int h = i & 1, high = i & 2, k = i / 4 % {STEPS} * 8 + high * 2 + l % 4;
      int chunk = (w % 2 * 2 + h + l / 16 * 4) ^ k & 7;
      x[i] = load_word({name} + (w / 4 * {mi} + i / {STEPS * 4}) * {down} + w % 4 / 2 * {tile.depth * 128}
        + k * 128 + chunk * 16 + l / 4 % 4 * 4);
    }}"""
  calls = "\n".join(f"    multiply(d + {i * count}, x + {(i * STEPS + k) * 4}, db + {(k * step) >> 4}, "
                    f"{'t > 0' if k == 0 else '1'});" for k in range(STEPS) for i in range(mi))
  return loads, f"    unsigned long long db = {descriptor(tile, other):#x}ull | ({rest} & 0x3ffff) >> 4;\n{calls}"

# before the loop; before, behind, after the products of a step; after the loop
Steps = tuple[str, str, str, str, str]

def slot_of(tile: Tile, step: str) -> str:
  """Which stage holds a step. The first steps have those that the results, which follow, leave free: there bulk copies
  for the next tile go."""
  return f"({step} + {tile.stages - free_slots(tile)}) % {tile.stages}" if tile.bulk else f"{step} % {tile.stages}"

def free_slots(tile: Tile) -> int:
  """Stages behind the results: one at least is not filled early, as while a tile is multiplied."""
  return max(0, tile.stages - max(1, ceildiv(results_bytes(tile), stage_bytes(tile))))

def thread_steps(tile: Tile) -> Steps:
  """A slot is copied into when every warpgroup has waited for the step before the last that read it: stages - 2 steps
  ahead."""
  ahead = tile.stages - 2
  return (f"""  for (int i = 0; i < {ahead}; i++) {{ if (i < total) copy_stage(i); copies_end(); }}""",
          f"""    copies_wait<{ahead - 1}>();
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
    __syncthreads();""",
          f"""    if (t + {ahead} < total) copy_stage(t + {ahead});
    copies_end();""", "", """  copies_wait<0>();
  __syncthreads();""")

def bulk_steps(tile: Tile) -> Steps:
  """A slot is copied into when every warpgroup has waited for the step that read it: stages - 1 steps ahead. The first
  steps of the block's next tile are copied while the results of this one are stored."""
  ahead, early = tile.stages - 1, min(free_slots(tile), ceildiv(tile.k, tile.depth))
  return (f"""  for (int i = pipeline.filled; i < {ahead}; i++)
    if (threadIdx.x == 0 && i < total) copy_stage(here, i);""",
          f"""    wait_for(ready + {slot_of(tile, "t")} * 8, pipeline.phases >> {slot_of(tile, "t")} & 1);
    pipeline.phases ^= 1u << {slot_of(tile, "t")};""", "",
          f"""    __syncthreads();
    if (threadIdx.x == 0 && t + {ahead} < total) copy_stage(here, t + {ahead});""",
          f"""  __syncthreads();
  pipeline.filled = next < 0 ? 0 : {early};
  for (int i = 0; i < pipeline.filled; i++) if (threadIdx.x == 0) copy_stage(corner(next), i);""")

# A barrier in shared memory for each stage: set up by one thread, told how much will be copied, waited for by all.
BARRIERS = r"""
__device__ __forceinline__ void make_barriers(unsigned int first, int count) {
  for (int i = 0; i < count; i++) asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" :: "r"(first + i * 8));
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}
__device__ __forceinline__ void expect_bytes(unsigned int barrier, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" :: "r"(barrier), "r"(bytes) : "memory");
}
__device__ __forceinline__ void wait_for(unsigned int barrier, unsigned int phase) {
  asm volatile("{ .reg .pred p; AGAIN: mbarrier.try_wait.parity.shared::cta.b64 p, [%0], %1; "
    "@p bra DONE; bra AGAIN; DONE: }"
    :: "r"(barrier), "r"(phase) : "memory");
}
"""
TENSOR_MAPS = BARRIERS + r"""
struct __align__(64) TensorMap { char bytes[128]; };
// Where a tile begins: the first elements of a and b, its first row and column.
struct Corner { int a, b, m0, n0; };
// Of the stages, from one tile of a block to the next: the phase of each one's barrier, whether there are barriers yet,
// how many of the tile's steps are under way.
struct Pipeline { unsigned int phases; bool ready; int filled; };
__device__ __forceinline__ void copy_box(unsigned int to, const TensorMap* map, int x, int y, unsigned int barrier) {
  asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], [%4];"
    :: "r"(to), "l"(map), "r"(x), "r"(y), "r"(barrier) : "memory");
}
"""

def boxes(tile: Tile, operand: Operand, rows: int, number: int) -> str:
  """The copies of one stage of an operand: x and y are where its part begins in the matrix that the map describes."""
  name, first = "ab"[number], ("m0", "n0")[number]
  near, far = f"at.{name} % {operand.pitch}", f"at.{name} / {operand.pitch}"
  if operand.is_along_k:
    return f"    copy_box(s{name}, maps + {number}, {near} + step * {tile.depth}, {far} + at.{first}, bar);"
  across = 128 // tile.itemsize
  return "\n".join(f"    copy_box(s{name} + {j * tile.depth * 128}, maps + {number}, "
                   f"{near} + at.{first} + {j * across}, {far} + step * {tile.depth}, bar);"
                   for j in range(rows // across))

def bulk_staging(tile: Tile) -> str:
  """The first barrier is also where all threads have read the results of the tile before."""
  behind = max(tile.stages * stage_bytes(tile), results_bytes(tile))
  return f"""  unsigned int base = (shared_address(raw) + 1023) & ~1023u, ready = base + {behind};
  if (threadIdx.x == 0 && !pipeline.ready) make_barriers(ready, {tile.stages});
  pipeline.ready = true;
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
  __syncthreads();
  auto copy_stage = [&](Corner at, int step) {{
    unsigned int sa = base + {slot_of(tile, "step")} * {stage_bytes(tile)};
    unsigned int sb = sa + {tile.rows * tile.depth * tile.itemsize};
    unsigned int bar = ready + {slot_of(tile, "step")} * 8;
    expect_bytes(bar, {stage_bytes(tile)});
{boxes(tile, tile.a, tile.rows, 0)}
{boxes(tile, tile.b, tile.columns, 1)}
  }};
  Corner here = corner(block);"""

def keep(count: int) -> str:
  """Statements that no read of a result moves above."""
  groups = [range(at, min(at + 16, count)) for at in range(0, count, 16)]
  named = [", ".join(f'"+f"(d[{i}])' for i in group) for group in groups]
  return "\n".join(f'  asm volatile("" : {names} :: "memory");' for names in named)

def wgmma_instruction(tile: Tile, turned: str, columns: int) -> str:
  ptx, per, count = PTX_TYPES[tile.dtype], 32 // tile.itemsize, columns // 2
  registers = ", ".join(f"%{i}" for i in range(count))
  results = ", ".join(f'"+f"(d[{i}])' for i in range(count))
  own = 4 if turned else 1                                             # operands of the statement that name the first
  first = f"{{%{count}, %{count + 1}, %{count + 2}, %{count + 3}}}" if turned else f"%{count}"
  kind = "unsigned int*" if turned else "unsigned long long"
  values = ", ".join(f'"r"(a[{i}])' for i in range(4)) if turned else '"l"(a)'
  turns = f", {int(not tile.a.is_along_k)}, {int(not tile.b.is_along_k)}" if tile.itemsize == 2 else ""
  return f"""
__device__ __forceinline__ unsigned int load_word(unsigned int from) {{
  unsigned int x; asm volatile("ld.shared.b32 %0, [%1];" : "=r"(x) : "r"(from) : "memory"); return x;
}}
__device__ __forceinline__ void multiply(float* d, {kind} a, unsigned long long b, int add) {{
  asm volatile("{{ .reg .pred p; setp.ne.b32 p, %{count + own + 1}, 0;\\n"
    "wgmma.mma_async.sync.aligned.m64n{columns}k{per}.f32.{ptx}.{ptx} {{{registers}}}, {first}, %{count + own}, "
    "p, 1, 1{turns}; }}"
    : {results} : {values}, "l"(b), "r"(add));
}}
"""

# ---- fma -------------------------------------------------------------------------------------------------------------

def fma(tile: Tile) -> str:
  """Each thread loads its pieces of the next step into registers, multiplies, then stores them to the other buffer."""
  depth, rows, columns = tile.depth, tile.rows, tile.columns
  return f"""{signature(tile)}
  __shared__ __align__(16) float as[2][{depth}][{rows + 4}], bs[2][{depth}][{columns + 4}];
  int t = threadIdx.x, w = t / 32, l = t % 32, tm = (w & 1) * 64 + (l & 7) * 4, tn = (w >> 1) * 32 + (l >> 3) * 4;
{pieces(tile, tile.a, rows, "a", "m0", tile.m)}
{pieces(tile, tile.b, columns, "b", "n0", tile.n)}
  const int total = {-(-tile.k // depth)};
  #pragma unroll
  for (int i = 0; i < 64; i++) d[i] = 0.0f;
  float x[2][8], y[2][8];
  auto operands = [&](int s, int k, float* x, float* y) {{
    *(float4*)x = *(float4*)&as[s][k][tm]; *(float4*)(x + 4) = *(float4*)&as[s][k][tm + 32];
    *(float4*)y = *(float4*)&bs[s][k][tn]; *(float4*)(y + 4) = *(float4*)&bs[s][k][tn + 16];
  }};
  load_a(0); load_b(0); store_a(0); store_b(0);
  __syncthreads();
  operands(0, 0, x[0], y[0]);
  int s = 0;
  for (int step = 0; step < total; step++) {{
    if (step + 1 < total) {{ load_a(step + 1); load_b(step + 1); }}
    #pragma unroll
    for (int k = 0; k < {depth}; k++) {{
      if (k == {depth - 1}) {{
        if (step + 1 < total) {{ store_a(s ^ 1); store_b(s ^ 1); }}
        __syncthreads();
        s ^= 1;
      }}
      operands(s, (k + 1) % {depth}, x[(k + 1) & 1], y[(k + 1) & 1]);
      #pragma unroll
      for (int i = 0; i < 8; i++)
        #pragma unroll
        for (int j = 0; j < 8; j++) d[i * 8 + j] = fmaf(x[k & 1][i], y[k & 1][j], d[i * 8 + j]);
    }}
  }}
}}
"""

def pieces(tile: Tile, operand: Operand, rows: int, name: str, first: str, size: int) -> str:
  """load_NAME(step) and store_NAME(buffer): four neighbours at once, read together where they are aligned."""
  count = rows * tile.depth // (4 * tile.threads)
  across = tile.depth // 4 if is_along_k(operand) else rows // 4
  down, along = "rk" if is_along_k(operand) else "kr"
  at = f"int {down} = x / {across}, {along} = x % {across} * 4;"
  dr, dk = (0, 1) if is_along_k(operand) else (1, 0)
  address = f"(long long)({first} + r) * {operand.outer} + (long long)(k0 + k) * {operand.inner}"
  fits = f"{first} + r < {size} && k0 + k < {tile.k}"
  if operand.lanes == 4: load = f"p[i] = {fits} ? *(const float4*)({name} + {address}) : make_float4(0, 0, 0, 0);"
  else:
    apart = operand.outer * dr + operand.inner * dk
    inside = [f"{first} + r + {dr * c} < {size} && k0 + k + {dk * c} < {tile.k}" for c in range(4)]
    parts = [f"{test} ? {name}[{address} + {c * apart}ll] : 0.0f" for c, test in enumerate(inside)]
    load = f"p[i] = make_float4({', '.join(parts)});"
  store = f"*(float4*)&{name}s[s][k][r] = p[i];" if dr else \
          " ".join(f"{name}s[s][k + {c}][r] = p[i].{'xyzw'[c]};" for c in range(4))
  load, store = load.replace("p[", f"p{name}["), store.replace("p[", f"p{name}[")
  loop = f"for (int i = 0; i < {count}; i++) {{ int x = t + i * {tile.threads}; {at}"
  return f"""  float4 p{name}[{count}];
  auto load_{name} = [&](int step) {{ int k0 = step * {tile.depth};
    #pragma unroll
    {loop} {load} }} }};
  auto store_{name} = [&](int s) {{
    #pragma unroll
    {loop} {store} }} }};"""
