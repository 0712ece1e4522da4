# rvasm.py: the RISC-V instruction table and what follows from it: printing, encoding, decoding, compressed forms. An
# instruction is a row's name and one number per operand: registers 0..31, immediates as the assembly language writes
# them, offsets in bytes. True afterwards: what GNU as makes of the printed text are the bytes that were encoded.
# (RISC-V Unprivileged ISA, chapter 34: instruction set listings)
from __future__ import annotations
import re, struct
from functools import cached_property
from typing import Callable, NamedTuple, Sequence

X = ("zero ra sp gp tp t0 t1 t2 s0 s1 a0 a1 a2 a3 a4 a5 a6 a7 s2 s3 s4 s5 s6 s7 s8 s9 s10 s11 t3 t4 t5 t6").split()
F = ("ft0 ft1 ft2 ft3 ft4 ft5 ft6 ft7 fs0 fs1 fa0 fa1 fa2 fa3 fa4 fa5 fa6 fa7 fs2 fs3 fs4 fs5 fs6 fs7 fs8 fs9 fs10 "
     "fs11 ft8 ft9 ft10 ft11").split()
ROUNDING = ("rne", "rtz", "rdn", "rup", "rmm", "?", "?", "dyn")
DYNAMIC, TO_ZERO = 7, 1
ORDER = ("", ".rl", ".aq", ".aqrl")

# ---- operands --------------------------------------------------------------------------------------------------------

class Field(NamedTuple):
  """Where an operand's bits stand. slices: (value bit, width, instruction bit). kind: registers x, f and v, registers
  8 to 15 c and g; numbers s (signed), u, h (the upper 20 bits of one); p an offset from here; r a rounding mode, o a
  memory order, i the sets of a fence, m the mask of a vector operation, t the type of a vector."""
  kind: str
  slices: tuple[tuple[int, int, int], ...]
  forbidden: tuple[int, ...] = ()

  @property
  def bits(self) -> int: return sum(((1 << width) - 1) << at for _, width, at in self.slices)
  @property
  def domain(self) -> range:
    """The values that the bits can hold."""
    top = max(low + width for low, width, _ in self.slices)
    step = 1 << min(low for low, _, _ in self.slices)
    if self.kind in "cg": return range(8, 16)
    return range(-1 << (top - 1), 1 << (top - 1), step) if self.kind in "shp" else range(0, 1 << top, step)
  def allows(self, value: int) -> bool: return value in self.domain and value not in self.forbidden

  def encoded(self, name: str) -> str:
    """The Python expression that puts the value called name into an instruction."""
    return " | ".join(f"({name} >> {low} & {(1 << width) - 1}) << {at}" for low, width, at in self.slices)
  def fits(self, name: str) -> str:
    """The Python expression that says whether the instruction can hold the value called name."""
    domain = self.domain
    tests = [f"{domain.start} <= {name} < {domain.stop}"] + [f"{name} != {value}" for value in self.forbidden]
    if domain.step > 1: tests.append(f"not {name} % {domain.step}")
    return " and ".join(tests)

  def decode(self, word: int) -> int:
    value = sum((word >> at & (1 << width) - 1) << low for low, width, at in self.slices)
    if self.kind in "cg": return value & 7 | 8
    return value - 2 * self.domain.stop if self.kind in "shp" and value >= self.domain.stop else value

  def text(self, value: int) -> str:
    if self.kind in "xc": return X[value]
    if self.kind in "fg": return F[value]
    if self.kind == "v": return f"v{value}"
    if self.kind == "r": return ROUNDING[value]
    if self.kind == "m": return "" if value else ", v0.t"
    if self.kind == "t": return vector_type_text(value)
    if self.kind == "i": return "".join(letter for k, letter in enumerate("wroi") if value >> k & 1)[::-1]
    if self.kind == "h": return str(value & 0xfffff)
    return f".{value:+d}" if self.kind == "p" else str(value)

MULTIPLES = ("m1", "m2", "m4", "m8", "?", "mf8", "mf4", "mf2")

def vector_type_text(value: int) -> str:
  """The bits of vtype: how wide an element is, how many registers make a vector, whether the rest is kept."""
  kept = ("ta" if value >> 6 & 1 else "tu", "ma" if value >> 7 else "mu")
  return ", ".join((f"e{8 << (value >> 3 & 7)}", MULTIPLES[value & 7], *kept))

def read_field(text: str) -> Field:
  """From its kind and the manual's notation: 4:1@8 says that bits 4 to 1 of the value stand at instruction bit 8 and
  above, !0 that it is not 0."""
  slices = []
  for high, low, at in re.findall(r"(\d+):?(\d*)@(\d+)", text):
    bottom = int(low or high)
    slices.append((bottom, int(high) - bottom + 1, int(at)))
  reserved = [v for v in range(256) if v & 7 == 4 or v >> 3 & 7 > 3] if text[0] == "t" else []
  return Field(text[0], tuple(slices), (*map(int, re.findall(r"!(\d+)", text)), *reserved))

FIELDS = {name: read_field(text) for name, text in {
  "rd": "x 4:0@7", "rs1": "x 4:0@15", "rs2": "x 4:0@20", "imm": "s 11:0@20", "fd": "f 4:0@7", "fs1": "f 4:0@15",
  "fs2": "f 4:0@20", "fs3": "f 4:0@27", "rm": "r 2:0@12 !5 !6", "zimm": "u 4:0@15", "store": "s 11:5@25 4:0@7",
  "branch": "p 12@31 10:5@25 4:1@8 11@7", "jump": "p 20@31 10:1@21 11@20 19:12@12", "upper": "h 19:0@12",
  "shift": "u 5:0@20", "shiftw": "u 4:0@20", "csr": "u 11:0@20", "order": "o 1:0@25", "pred": "i 3:0@24 !0",
  "succ": "i 3:0@20 !0",
  # vectors
  "vd": "v 4:0@7", "vs1": "v 4:0@15", "vs2": "v 4:0@20", "vs3": "v 4:0@7", "vm": "m 0@25", "vimm": "s 4:0@15",
  "vtype": "t 7:0@20",
  # compressed
  "cd": "x 4:0@7 !0", "cs": "x 4:0@2 !0", "cs0": "x 4:0@2", "cu": "x 4:0@7 !0 !2", "cf": "f 4:0@7", "cfs": "f 4:0@2",
  "c1": "c 2:0@7", "c2": "c 2:0@2", "g2": "g 2:0@2", "c6": "s 5@12 4:0@2", "c6n": "s 5@12 4:0@2 !0",
  "cupper": "h 5@12 4:0@2 !0", "cshift": "u 5@12 4:0@2 !0", "c16": "s 9@12 4@6 6@5 8:7@3 5@2 !0",
  "c4": "u 5:4@11 9:6@7 2@6 3@5 !0", "cw": "u 5:3@10 2@6 6@5", "cdw": "u 5:3@10 7:6@5", "cwsp": "u 5@12 4:2@4 7:6@2",
  "cdsp": "u 5@12 4:3@5 8:6@2", "cswsp": "u 5:2@9 7:6@7", "csdsp": "u 5:3@10 8:6@7",
  "cj": "p 11@12 4@11 9:8@9 10@8 6@7 7@6 3:1@3 5@2", "cb": "p 8@12 4:3@10 7:6@5 2:1@3 5@2"
}.items()}

# ---- the table -------------------------------------------------------------------------------------------------------

# Operands as they are written, then each instruction with the bits that are its own. Those that the operands do not
# fill are compared when decoding.
FAMILIES = """
rd, upper | lui 37, auipc 17
rd, jump | jal 6f
rd, imm(rs1) | jalr 67, lb 3, lh 1003, lw 2003, ld 3003, lbu 4003, lhu 5003, lwu 6003
rs1, rs2, branch | beq 63, bne 1063, blt 4063, bge 5063, bltu 6063, bgeu 7063
rs2, store(rs1) | sb 23, sh 1023, sw 2023, sd 3023
rd, rs1, imm | addi 13, slti 2013, sltiu 3013, xori 4013, ori 6013, andi 7013, addiw 1b
rd, rs1, shift | slli 1013, srli 5013, srai 40005013
rd, rs1, shiftw | slliw 101b, srliw 501b, sraiw 4000501b
rd, rs1, rs2 | add 33, sub 40000033, sll 1033, slt 2033, sltu 3033, xor 4033, srl 5033, sra 40005033, or 6033, and 7033
rd, rs1, rs2 | addw 3b, subw 4000003b, sllw 103b, srlw 503b, sraw 4000503b
pred, succ | fence f
| fence.i 100f, ecall 73, ebreak 100073
rd, rs1, rs2 | mul 2000033, mulh 2001033, mulhsu 2002033, mulhu 2003033
rd, rs1, rs2 | div 2004033, divu 2005033, rem 2006033, remu 2007033
rd, rs1, rs2 | mulw 200003b, divw 200403b, divuw 200503b, remw 200603b, remuw 200703b
rd, csr, rs1 | csrrw 1073, csrrs 2073, csrrc 3073
rd, csr, zimm | csrrwi 5073, csrrsi 6073, csrrci 7073
order rd, (rs1) | lr.w 1000202f, lr.d 1000302f
order rd, rs2, (rs1) | sc.w 1800202f, amoswap.w 800202f, amoadd.w 202f, amoxor.w 2000202f, amoand.w 6000202f
order rd, rs2, (rs1) | amoor.w 4000202f, amomin.w 8000202f, amomax.w a000202f, amominu.w c000202f, amomaxu.w e000202f
order rd, rs2, (rs1) | sc.d 1800302f, amoswap.d 800302f, amoadd.d 302f, amoxor.d 2000302f, amoand.d 6000302f
order rd, rs2, (rs1) | amoor.d 4000302f, amomin.d 8000302f, amomax.d a000302f, amominu.d c000302f, amomaxu.d e000302f
fd, imm(rs1) | flw 2007, fld 3007
fs2, store(rs1) | fsw 2027, fsd 3027
fd, fs1, fs2, fs3, rm | fmadd.s 43, fmsub.s 47, fnmsub.s 4b, fnmadd.s 4f
fd, fs1, fs2, fs3, rm | fmadd.d 2000043, fmsub.d 2000047, fnmsub.d 200004b, fnmadd.d 200004f
fd, fs1, fs2, rm | fadd.s 53, fsub.s 8000053, fmul.s 10000053, fdiv.s 18000053
fd, fs1, fs2, rm | fadd.d 2000053, fsub.d a000053, fmul.d 12000053, fdiv.d 1a000053
fd, fs1, fs2 | fsgnj.s 20000053, fsgnjn.s 20001053, fsgnjx.s 20002053, fmin.s 28000053, fmax.s 28001053
fd, fs1, fs2 | fsgnj.d 22000053, fsgnjn.d 22001053, fsgnjx.d 22002053, fmin.d 2a000053, fmax.d 2a001053
rd, fs1, fs2 | fle.s a0000053, flt.s a0001053, feq.s a0002053, fle.d a2000053, flt.d a2001053, feq.d a2002053
fd, fs1, rm | fsqrt.s 58000053, fsqrt.d 5a000053, fcvt.s.d 40100053
fd, fs1 | fcvt.d.s 42000053
rd, fs1, rm | fcvt.w.s c0000053, fcvt.wu.s c0100053, fcvt.l.s c0200053, fcvt.lu.s c0300053
rd, fs1, rm | fcvt.w.d c2000053, fcvt.wu.d c2100053, fcvt.l.d c2200053, fcvt.lu.d c2300053
fd, rs1, rm | fcvt.s.w d0000053, fcvt.s.wu d0100053, fcvt.s.l d0200053, fcvt.s.lu d0300053
fd, rs1, rm | fcvt.d.l d2200053, fcvt.d.lu d2300053
fd, rs1 | fcvt.d.w d2000053, fcvt.d.wu d2100053, fmv.w.x f0000053, fmv.d.x f2000053
rd, fs1 | fmv.x.w e0000053, fmv.x.d e2000053, fclass.s e0001053, fclass.d e2001053
rd, rs1, rs2 | sh1add 20002033, sh2add 20004033, sh3add 20006033, add.uw 800003b
rd, rs1, rs2 | sh1add.uw 2000203b, sh2add.uw 2000403b, sh3add.uw 2000603b
rd, rs1, shift | slli.uw 800101b, rori 60005013
rd, rs1, shiftw | roriw 6000501b
rd, rs1, rs2 | andn 40007033, orn 40006033, xnor 40004033, min a004033, minu a005033, max a006033, maxu a007033
rd, rs1, rs2 | rol 60001033, ror 60005033, rolw 6000103b, rorw 6000503b
rd, rs1 | clz 60001013, ctz 60101013, cpop 60201013, clzw 6000101b, ctzw 6010101b, cpopw 6020101b
rd, rs1 | sext.b 60401013, sext.h 60501013, zext.h 800403b, rev8 6b805013, orc.b 28705013
vd, vs2, vs1 vm | vadd.vv 57, vsub.vv 8000057, vminu.vv 10000057, vmin.vv 14000057, vmaxu.vv 18000057
vd, vs2, vs1 vm | vmax.vv 1c000057, vand.vv 24000057, vor.vv 28000057, vxor.vv 2c000057, vsll.vv 94000057
vd, vs2, vs1 vm | vsrl.vv a0000057, vsra.vv a4000057, vmseq.vv 60000057, vmsne.vv 64000057, vmsltu.vv 68000057
vd, vs2, vs1 vm | vmslt.vv 6c000057, vmsleu.vv 70000057, vmsle.vv 74000057
vd, vs2, rs1 vm | vadd.vx 4057, vsub.vx 8004057, vminu.vx 10004057, vmin.vx 14004057, vmaxu.vx 18004057
vd, vs2, rs1 vm | vmax.vx 1c004057, vand.vx 24004057, vor.vx 28004057, vxor.vx 2c004057, vsll.vx 94004057
vd, vs2, rs1 vm | vsrl.vx a0004057, vsra.vx a4004057, vmseq.vx 60004057, vmsne.vx 64004057, vmsltu.vx 68004057
vd, vs2, rs1 vm | vmslt.vx 6c004057, vmsleu.vx 70004057, vmsle.vx 74004057, vslidedown.vx 3c004057
vd, vs2, vimm vm | vadd.vi 3057, vand.vi 24003057, vor.vi 28003057, vxor.vi 2c003057, vmseq.vi 60003057
vd, vs2, vimm vm | vmsne.vi 64003057, vmsleu.vi 70003057, vmsle.vi 74003057
vd, vs2, zimm vm | vsll.vi 94003057, vsrl.vi a0003057, vsra.vi a4003057, vslidedown.vi 3c003057
vd, vs2, vs1 vm | vmul.vv 94002057, vdivu.vv 80002057, vdiv.vv 84002057, vremu.vv 88002057, vrem.vv 8c002057
vd, vs2, vs1 vm | vredsum.vs 2057, vredmaxu.vs 18002057, vredmax.vs 1c002057
vd, vs2, vs1 | vmandn.mm 62002057, vmand.mm 66002057, vmor.mm 6a002057, vmxor.mm 6e002057, vmorn.mm 72002057
vd, vs2, vs1 | vmnand.mm 76002057, vmnor.mm 7a002057, vmxnor.mm 7e002057
vd, vs2, vs1 vm | vfadd.vv 1057, vfsub.vv 8001057, vfmin.vv 10001057, vfmax.vv 18001057, vfsgnj.vv 20001057
vd, vs2, vs1 vm | vfsgnjn.vv 24001057, vfsgnjx.vv 28001057, vmfeq.vv 60001057, vmfle.vv 64001057, vmflt.vv 6c001057
vd, vs2, vs1 vm | vmfne.vv 70001057, vfdiv.vv 80001057, vfmul.vv 90001057, vfredusum.vs 4001057, vfredosum.vs c001057
vd, vs2, vs1 vm | vfredmax.vs 1c001057
vd, vs2, fs1 vm | vfadd.vf 5057, vfsub.vf 8005057, vfmin.vf 10005057, vfmax.vf 18005057, vmfeq.vf 60005057
vd, vs2, fs1 vm | vmfle.vf 64005057, vmflt.vf 6c005057, vmfne.vf 70005057, vfdiv.vf 80005057, vfmul.vf 90005057
vd, vs1, vs2 vm | vfmadd.vv a0001057, vfnmadd.vv a4001057, vfmsub.vv a8001057, vfnmsub.vv ac001057, vfmacc.vv b0001057
vd, vs1, vs2 vm | vfnmacc.vv b4001057, vfmsac.vv b8001057, vfnmsac.vv bc001057
vd, fs1, vs2 vm | vfmadd.vf a0005057, vfnmadd.vf a4005057, vfmsub.vf a8005057, vfnmsub.vf ac005057, vfmacc.vf b0005057
vd, fs1, vs2 vm | vfnmacc.vf b4005057, vfmsac.vf b8005057, vfnmsac.vf bc005057
vd, vs2, vs1, v0 | vmerge.vvm 5c000057
vd, vs2, rs1, v0 | vmerge.vxm 5c004057
vd, vs2, fs1, v0 | vfmerge.vfm 5c005057
vd, vs1 | vmv.v.v 5e000057
vd, rs1 | vmv.v.x 5e004057, vmv.s.x 42006057
vd, vimm | vmv.v.i 5e003057
vd, fs1 | vfmv.v.f 5e005057, vfmv.s.f 42005057
rd, vs2 | vmv.x.s 42002057
fd, vs2 | vfmv.f.s 42001057
vd, vs2 | vmv1r.v 9e003057, vmv2r.v 9e00b057
vd vm | vid.v 5008a057
vd, vs2 vm | vfsqrt.v 4c001057, vfcvt.f.xu.v 48011057, vfcvt.f.x.v 48019057, vfcvt.rtz.xu.f.v 48031057
vd, vs2 vm | vfcvt.rtz.x.f.v 48039057
vd, (rs1) vm | vle8.v 7, vle16.v 5007, vle32.v 6007, vle64.v 7007
vs3, (rs1) vm | vse8.v 27, vse16.v 5027, vse32.v 6027, vse64.v 7027
rd, zimm, vtype | vsetivli c0007057
rd, rs1, vtype | vsetvli 7057
"""

# Compressed instructions: operands, own bits, and the instruction that each stands for, then others that mean the same.
COMPRESSED = """
c2, sp, c4 | c.addi4spn 0 | addi c2, 2, c4
g2, cdw(c1) | c.fld 2000 | fld g2, cdw, c1
c2, cw(c1) | c.lw 4000 | lw c2, cw, c1
c2, cdw(c1) | c.ld 6000 | ld c2, cdw, c1
g2, cdw(c1) | c.fsd a000 | fsd g2, cdw, c1
c2, cw(c1) | c.sw c000 | sw c2, cw, c1
c2, cdw(c1) | c.sd e000 | sd c2, cdw, c1
| c.nop 1 | addi 0, 0, 0
cd, c6n | c.addi 1 | addi cd, cd, c6n
cd, c6 | c.addiw 2001 | addiw cd, cd, c6
cd, c6 | c.li 4001 | addi cd, 0, c6
sp, c16 | c.addi16sp 6101 | addi 2, 2, c16
cu, cupper | c.lui 6001 | lui cu, cupper
c1, cshift | c.srli 8001 | srli c1, c1, cshift
c1, cshift | c.srai 8401 | srai c1, c1, cshift
c1, c6 | c.andi 8801 | andi c1, c1, c6
c1, c2 | c.sub 8c01 | sub c1, c1, c2
c1, c2 | c.xor 8c21 | xor c1, c1, c2 | xor c1, c2, c1
c1, c2 | c.or 8c41 | or c1, c1, c2 | or c1, c2, c1
c1, c2 | c.and 8c61 | and c1, c1, c2 | and c1, c2, c1
c1, c2 | c.subw 9c01 | subw c1, c1, c2
c1, c2 | c.addw 9c21 | addw c1, c1, c2 | addw c1, c2, c1
cj | c.j a001 | jal 0, cj
c1, cb | c.beqz c001 | beq c1, 0, cb
c1, cb | c.bnez e001 | bne c1, 0, cb
cd, cshift | c.slli 2 | slli cd, cd, cshift
cf, cdsp(sp) | c.fldsp 2002 | fld cf, cdsp, 2
cd, cwsp(sp) | c.lwsp 4002 | lw cd, cwsp, 2
cd, cdsp(sp) | c.ldsp 6002 | ld cd, cdsp, 2
cd | c.jr 8002 | jalr 0, 0, cd
cd, cs | c.mv 8002 | addi cd, cs, 0 | add cd, 0, cs
| c.ebreak 9002 | ebreak
cd | c.jalr 9002 | jalr 1, 0, cd
cd, cs | c.add 9002 | add cd, cd, cs | add cd, cs, cd
cfs, csdsp(sp) | c.fsdsp a002 | fsd cfs, csdsp, 2
cs0, cswsp(sp) | c.swsp c002 | sw cs0, cswsp, 2
cs0, csdsp(sp) | c.sdsp e002 | sd cs0, csdsp, 2
"""

class Row:
  """One instruction. fields: its operands in the order in which they are written. expands: for a compressed one, the
  row it stands for and that row's operands, each a field's name or a number."""
  def __init__(self, name: str, syntax: str, match: int, expands: tuple[Row, list[str]] | None = None):
    self.name, self.syntax, self.match, self.expands = name, syntax, match, expands
    self.names = [word for word in re.findall(r"\w+", syntax) if word in FIELDS]
    self.fields = [FIELDS[word] for word in self.names]
    self.size = 2 if expands else 4
    self.mask = (1 << 8 * self.size) - 1
    for f in self.fields: self.mask &= ~f.bits
    self.shorter: list[tuple[Row, list[str]]] = []                   # compressed rows that mean the same, with operands

  @cached_property
  def forms(self) -> list[Callable[..., bytes | None]]:
    """What makes it a compressed instruction, if it can."""
    return [row.compressor(meaning) for row, meaning in self.shorter]

  @cached_property
  def encode(self) -> Callable[..., bytes]:
    """encode(*operands) -> bytes. Written out as Python: encoding is what assembling a program spends its time on."""
    parts = [hex(self.match)] + [f.encoded(name) for name, f in zip(self.names, self.fields)]
    checks = " and ".join(f"({f.fits(name)})" for name, f in zip(self.names, self.fields)) or "True"
    arguments = ", ".join(self.names)
    text = f"lambda {arguments}: pack({' | '.join(parts)}) if {checks} else refuse({arguments})"
    return eval(text, {"pack": PACK[self.size], "refuse": self.refuse})

  def refuse(self, *operands: int) -> bytes:
    bad = next(k for k, f in enumerate(self.fields) if not f.allows(operands[k]))
    raise ValueError(f"{self.name} cannot hold {operands[bad]} as {self.names[bad]}")

  def compressor(self, meaning: list[str]) -> Callable[..., bytes | None]:
    """From the operands of an instruction that means the same: this one's bytes, or None if it cannot hold them."""
    checks: list[str] = []
    where: dict[str, str] = {}
    for k, text in enumerate(meaning):
      if text not in FIELDS: checks.append(f"o{k} == {text}")
      elif text in where: checks.append(f"o{k} == {where[text]}")
      else:
        where[text] = f"o{k}"
        checks.append(FIELDS[text].fits(f"o{k}"))
    code = " | ".join([hex(self.match)] + [FIELDS[name].encoded(o) for name, o in where.items()])
    arguments = ", ".join(f"o{k}" for k in range(len(meaning)))
    return eval(f"lambda {arguments}: pack({code}) if {' and '.join(checks) or 'True'} else None", {"pack": PACK[2]})

  def decode(self, word: int) -> tuple[int, ...] | None:
    """The operands, if the word is one of this row."""
    if word & self.mask != self.match: return None
    operands = tuple([f.decode(word) for f in self.fields])
    return operands if all(f.allows(value) for f, value in zip(self.fields, operands)) else None

  def text(self, operands: Sequence[int]) -> str:
    """One line of assembly."""
    named = dict(zip(self.names, operands))
    name = self.name + ORDER[named.pop("order", 0)]
    words = re.sub(r"\w+", lambda m: FIELDS[m[0]].text(named[m[0]]) if m[0] in named else m[0], self.syntax)
    return f"{name} {words.removeprefix('order').strip()}".strip()

PACK = {2: struct.Struct("<H").pack, 4: struct.Struct("<I").pack}

def read_table() -> dict[str, Row]:
  rows: dict[str, Row] = {}
  for line in FAMILIES.strip().split("\n"):
    syntax, members = line.split("|")
    for member in members.split(","):
      name, match = member.split()
      rows[name] = Row(name, syntax.strip(), int(match, 16))
  for line in COMPRESSED.strip().split("\n"):
    syntax, member, *meanings = line.split("|")
    name, match = member.split()
    (whole, *operands), *others = [re.findall(r"[\w.]+", meaning) for meaning in meanings]
    rows[name] = Row(name, syntax.strip(), int(match, 16), (rows[whole], operands))
    for other, *same in [(whole, *operands), *others]: rows[other].shorter.append((rows[name], same))
  return rows

ROWS = read_table()

def rows_by_opcode() -> dict[int, list[Row]]:
  """The rows that a word may belong to, by its low bits."""
  found: dict[int, list[Row]] = {}
  for row in ROWS.values(): found.setdefault(row.match & (0x7f if row.size == 4 else 3), []).append(row)
  return found

BY_OPCODE = rows_by_opcode()

def decode(code: bytes, at: int = 0) -> tuple[Row, tuple[int, ...]]:
  """The instruction at a place in the code. ValueError if no row has it."""
  size = 4 if code[at] & 3 == 3 else 2
  word = int.from_bytes(code[at:at + size], "little")
  for row in BY_OPCODE.get(word & (0x7f if size == 4 else 3), ()):
    operands = row.decode(word)
    if operands is not None: return row, operands
  raise ValueError(f"{word:#x} at {at:#x} is no instruction that the table has")
