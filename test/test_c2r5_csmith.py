# test_c2r5_csmith.py: random programs that Debian's csmith writes give the same checksum as with gcc: on this machine,
# and on RISC-V under qemu. CSMITH=n in the environment asks for n seeds instead of three.
import os, shutil, subprocess, sys
from pathlib import Path
import pytest

ROOT = Path(__file__).resolve().parent.parent
INCLUDE = "-I/usr/include/csmith"
TARGETS = {"host": (["--host"], []),
           "riscv": (["-static"], ["qemu-riscv64"])}                   # csmith's checksums are the same on both
pytestmark = [pytest.mark.slow, pytest.mark.skipif(None in (shutil.which("csmith"), shutil.which("gcc")),
                                                   reason="needs csmith and gcc")]

def output(command):
  return subprocess.run(command, capture_output=True, timeout=30, check=True).stdout

@pytest.mark.parametrize("seed", range(1, 1 + int(os.environ.get("CSMITH", 3))))
def test_same_checksum_as_gcc(seed, tmp_path):
  source = tmp_path / "t.c"
  generate = ["csmith", "--seed", str(seed), "-o", str(source)]
  subprocess.run(generate, check=True, cwd=tmp_path, stdout=subprocess.DEVNULL)       # it leaves platform.info there
  subprocess.run(["gcc", "-w", INCLUDE, str(source), "-o", str(tmp_path / "gcc")], check=True)
  try: expected = output([str(tmp_path / "gcc")])
  except subprocess.TimeoutExpired: pytest.skip("the program does not end")
  for flags, launcher in TARGETS.values():
    if any(shutil.which(tool) is None for tool in launcher): continue
    for level in ("-O0", "-O2"):
      options = [*flags, level, "-w", INCLUDE, str(source), "-o", str(tmp_path / "p")]
      subprocess.run([sys.executable, "-m", "extra.c2r5", *options], check=True, cwd=ROOT)
      assert output([*launcher, str(tmp_path / "p")]) == expected, f"seed {seed}, {flags}, {level}"
