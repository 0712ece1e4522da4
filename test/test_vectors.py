# Vector code for processors that are not this one: what LLVM makes of kernels for AVX2 and for NEON computes in whole
# registers, and calls nobody for it.
import re
from typing import NamedTuple
import pytest
from graphs import matmul, softmax2
from picograd import codegen
from picograd.codegen import llvmir
from picograd.codegen.heuristic import choose_opts
from picograd.codegen.schedule import schedule
from picograd.codegen.target import llvm_target
from picograd.dtype import dtypes
from picograd.library import formulas
from picograd.ops.ops import Ops
from picograd.ops.uop import UOp

llvm = pytest.importorskip("llvmlite.binding")

class Machine(NamedTuple):
  triple: str
  cpu: str
  features: frozenset[str]
  vector: str                                 # operands of instructions on whole registers
  scalar: str                                 # arithmetic on one number
  call: str

MACHINES = {
  "avx2": Machine("x86_64-unknown-linux-gnu", "x86-64-v3", frozenset({"avx", "avx2", "fma"}), r"%ymm",
                  r"\tv(add|sub|mul|div|max|min|sqrt|fn?m\w+)s[sd]\t", r"\tcall"),
  "neon": Machine("aarch64-unknown-linux-gnu", "neoverse-n1", frozenset(), r"v\d+\.(4s|16b)",
                  r"\tf(add|sub|mul|div|max|min|sqrt|n?madd|n?msub)\t[sd]\d", r"\tbl\t"),
}

def assembly(u: UOp, machine: Machine) -> str:
  """The last kernel of u for a machine."""
  llvm.initialize_all_targets()
  llvm.initialize_all_asmprinters()
  target = llvm_target(machine.features, machine.triple.split("-")[0], 1)
  ast = codegen.prepared(schedule([u], "CPU", target).kernels[-1].ast)
  module = llvm.parse_assembly(llvmir.render(codegen.compile("k", ast, target, choose_opts(ast, target))))
  compiler = llvm.Target.from_triple(machine.triple).create_target_machine(cpu=machine.cpu, opt=2)
  module.triple, module.data_layout = machine.triple, str(compiler.target_data)
  text = compiler.emit_assembly(module)
  return text[text.index("\nk:"):text.index("\nk_entry:")]

X = UOp.buffer(dtypes.float32, 64 * 4096, "CPU").reshape((64, 4096))
MAPS = {name: getattr(formulas, name) for name in "exp exp2 log sin cos tanh sigmoid erf sqrt".split()}
REDUCTIONS = {"softmax": softmax2, "product": lambda x: matmul(x, x.permute((1, 0))),
              "sum": lambda x: x.reduce(Ops.ADD, (1,)), "sum down": lambda x: x.reduce(Ops.ADD, (0,)),
              "maximum": lambda x: x.reduce(Ops.MAX, (1,))}

@pytest.mark.parametrize("machine", MACHINES.values(), ids=MACHINES)
@pytest.mark.parametrize("name", MAPS)
def test_functions(name, machine):
  code = assembly(MAPS[name](X), machine)
  assert re.search(machine.vector, code) and not re.search(machine.call, code)
  assert not re.search(machine.scalar, code), re.search(machine.scalar, code)

LOOP = re.compile(r"\n(\.L\w+):((?:(?!\n\.L).)*?\t(?:j\w+|b\.\w+)\t\1\n)", re.S)      # a block that jumps to itself

@pytest.mark.parametrize("machine", MACHINES.values(), ids=MACHINES)
@pytest.mark.parametrize("name", REDUCTIONS)
def test_reductions(name, machine):
  """The end of a reduction is one number; its loops are not."""
  code = assembly(REDUCTIONS[name](X), machine)
  loops = "".join(loop for _, loop in LOOP.findall(code))
  assert re.search(machine.vector, loops) and not re.search(machine.scalar, loops)
  assert not re.search(machine.call, code)
