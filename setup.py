# setup.py: what pip installs. The wheel holds the package picograd with its bundled models and the module llama, whose
# `main` is the console script picograd-llama; and the C compiler in extra/c2r5 as the package c2r5, whose `main` is the
# console script c2r5. The rest of extra/ is tools of the repository and is not installed.
from pathlib import Path
from setuptools import find_packages, setup

llama = ["tokenizers", "safetensors", "jinja2", "tqdm"]
test = ["pytest", "pytest-xdist", "hypothesis", "ruff", "mypy", "expecttest",
        "nvidia-cuda-nvrtc; sys_platform == 'linux'"]

setup(
  name="picograd",
  version="0.1.0",
  description="A small deep learning framework with PyTorch's names and a compiler you can read",
  long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
  long_description_content_type="text/markdown",
  license="MIT",
  license_files=["LICENSE"],
  python_requires=">=3.10",
  packages=[*find_packages(include=["picograd", "picograd.*"]), "c2r5"],
  package_dir={"c2r5": "extra/c2r5"},
  package_data={"picograd": ["py.typed", "runtime/*.ll", "models/*", "models/**/*"], "c2r5": ["include/*.h"]},
  py_modules=["llama"],
  install_requires=["numpy", "llvmlite>=0.45"],
  extras_require={
    "cuda": ["pycuda", "nvidia-cuda-nvrtc", "cuda-bindings"],
    "riscv": ["unicorn"],
    "llama": llama,
    "examples": ["tqdm", "matplotlib", "scikit-learn"],
    "test": test + llama,
    "bench": ["torch", "tinygrad", "tqdm"],
  },
  entry_points={"console_scripts": ["picograd-llama = llama:main", "c2r5 = c2r5.__main__:main"],
                "torch_dynamo_backends": ["picograd = picograd.dynamo:compile_graph"]},
)
