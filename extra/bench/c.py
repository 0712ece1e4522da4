# c.py: C programs through c2r5 and gcc for RISC-V: executed instructions, counted by QEMU, of each against gcc -O2
# without contraction of floats; the output must be the same.   python -m extra.bench.c [-O2] [NAME..]
from __future__ import annotations
import math, re, subprocess, sys, tempfile
from pathlib import Path

HERE = Path(__file__).parent / "c"
GCC = ["riscv64-linux-gnu-gcc", "-ffp-contract=off", "-static", "-w"]

def executed(program: Path, folder: Path, *arguments: str) -> tuple[int, bytes]:
  """(instructions, output) of a program under qemu."""
  log = folder / "count.log"
  command = ["qemu-riscv64", "-plugin", str(folder / "count.so"), "-d", "plugin", "-D", str(log), str(program)]
  output = subprocess.run([*command, *arguments], check=True, capture_output=True).stdout
  found = re.search(r"executed (\d+)", log.read_text())
  assert found is not None, "the plugin has said nothing"
  return int(found[1]), output

def build_counter(folder: Path) -> None:
  command = ["gcc", "-shared", "-fPIC", "-O1", "-w", str(HERE / "count.c"), "-o", str(folder / "count.so")]
  subprocess.run(command, check=True)

def main(arguments: list[str]) -> None:
  flags = [a for a in arguments if a.startswith("-")] or ["-O2"]
  names = [a for a in arguments if not a.startswith("-")]
  programs = [p for p in sorted(HERE.glob("*.c")) if p.stem != "count" and (not names or p.stem in names)]
  ratios = []
  with tempfile.TemporaryDirectory() as name:
    folder = Path(name)
    build_counter(folder)
    for path in programs:
      subprocess.run([*GCC, "-O2", "-o", folder / "gcc", path, "-lm"], check=True)
      subprocess.run([sys.executable, "-m", "extra.c2r5", *flags, "-static", "-o", folder / "ours", path, "-lm"],
                     check=True)
      (theirs, expected), (ours, output) = [executed(folder / program, folder) for program in ("gcc", "ours")]
      if output != expected: sys.exit(f"{path.stem} prints {output!r}, not {expected!r}")
      ratios.append(ours / theirs)
      print(f"{path.stem:12} {ours:12} {theirs:12} {ratios[-1]:6.2f}", flush=True)
  print(f"{'mean':12} {'':12} {'':12} {math.exp(sum(map(math.log, ratios)) / len(ratios)):6.2f}")

if __name__ == "__main__": main(sys.argv[1:])
