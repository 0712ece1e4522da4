# with_torch.py: runs one of these programs with torch in picograd's place:
# `python with_torch.py makemore.py --steps 20`.
import runpy, sys
import torch

def main():
  for name in ["", ".nn", ".nn.functional", ".optim", ".optim.lr_scheduler"]:
    __import__("torch" + name)
    sys.modules["picograd" + name] = sys.modules["torch" + name]
  torch.set_num_threads(1)
  del sys.argv[0]
  runpy.run_path(sys.argv[0], run_name="__main__")

if __name__ == "__main__": main()
