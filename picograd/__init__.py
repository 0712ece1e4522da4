# picograd: torch's namespace, so that `import picograd as torch` runs a program. Nothing is imported until it is asked
# for: the C compiler uses picograd.ops without NumPy. A name is found by the first table below that lists it.
from __future__ import annotations
import importlib, math, sys, types
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:                        # to a type checker, what is not a module may be anything
  from picograd.tensor import Tensor as Tensor
  tensor: Any
  einsum: Any
  def __getattr__(name: str) -> Any: ...

# module of picograd -> the names it gives to torch's top level
HOMES = {
  "library": """Tensor Size device tensor as_tensor from_dlpack from_numpy full zeros ones empty arange linspace eye
    meshgrid full_like zeros_like ones_like empty_like where matmul cat concat concatenate stack hstack vstack
    broadcast_tensors einsum no_grad inference_mode enable_grad set_grad_enabled is_grad_enabled get_default_dtype
    set_default_dtype result_type is_tensor""",
  "random": """Generator manual_seed initial_seed seed get_rng_state set_rng_state rand randn randint randperm normal
    bernoulli multinomial rand_like randn_like randint_like""",
  "io": "save load",
  "capture": "compile jit",
  "amp": "autocast",
  "common": "get_float32_matmul_precision set_float32_matmul_precision",
}
# Tensor's methods that are also functions of a tensor
METHODS = set("""abs absolute acos add all allclose amax amin any arctan argmax argmin argsort asin atan atan2
  bitwise_and bitwise_left_shift bitwise_not bitwise_or bitwise_right_shift bitwise_xor bmm broadcast_to ceil chunk
  clamp clip clone cos cosh count_nonzero cumprod cumsum detach diag diagonal div divide dot eq equal erf exp exp2
  expm1 flatten flip floor floor_divide fmod frac gather ge gt index_select isclose isfinite isinf isnan le lerp log
  log10 log1p log2 log_softmax logical_and logical_not logical_or logical_xor logsumexp lt masked_fill masked_select
  max maximum mean min minimum mm moveaxis movedim mul multiply mv nan_to_num narrow ne neg nonzero norm numel outer
  permute pow prod ravel reciprocal relu remainder repeat_interleave reshape roll round rsqrt rsub scatter scatter_add
  select sigmoid sign sin sinh softmax sort split sqrt square squeeze std sub subtract sum swapaxes t tan tanh tile
  topk trace transpose tril triu true_divide trunc unbind unflatten unique unsqueeze var""".split())
DTYPES = set("""bool uint8 int8 uint16 int16 uint32 int32 uint64 int64 float16 bfloat16 float32 float64 half float
  double short int long""".split())
CONSTANTS = {"pi": math.pi, "e": math.e, "inf": math.inf, "nan": math.nan, "newaxis": None}
PACKAGES = "amp autograd cuda distributions func linalg nn optim utils".split()

FUNCTIONS = {"dtype", *(name for names in HOMES.values() for name in names.split())}

def method(name: str) -> Any:
  """The function torch.name(x, ..): x.name(..), where x may be a number or carry the keyword `input`."""
  from picograd.library import Tensor, as_tensor
  member = getattr(Tensor, name)
  def function(*args: Any, **kwargs: Any) -> Any:
    first, *rest = (kwargs.pop("input"), *args) if "input" in kwargs else args
    return member(first if isinstance(first, Tensor) else as_tensor(first), *rest, **kwargs)
  function.__name__, function.__doc__ = name, member.__doc__
  return function

def find(name: str) -> Any:
  """What picograd.name means. AttributeError where it means nothing."""
  for home, names in HOMES.items():
    if name not in names.split(): continue
    if home == "library": importlib.import_module("picograd.random")          # gives Tensor normal_, uniform_, ..
    return getattr(importlib.import_module(f"picograd.{home}"), name)
  if name in METHODS: return method(name)
  if name in CONSTANTS: return CONSTANTS[name]
  if name in DTYPES: return getattr(importlib.import_module("picograd.dtype").dtypes, name)
  if name == "dtype": return importlib.import_module("picograd.dtype").DType
  if name in PACKAGES: return importlib.import_module(f"picograd.{name}")
  raise AttributeError(f"module 'picograd' has no attribute {name!r}")

class Namespace(types.ModuleType):
  """This module: names are found when first asked for. The import of picograd/tensor.py must not put the module where
  the function torch.tensor is expected."""
  def __getattr__(self, name: str) -> Any:
    value = find(name)
    self.__dict__[name] = value
    return value
  def __setattr__(self, name: str, value: Any) -> None:
    if name in FUNCTIONS and isinstance(value, types.ModuleType): return
    super().__setattr__(name, value)
  def __dir__(self) -> list[str]:
    listed = [name for names in HOMES.values() for name in names.split()]
    return sorted({*self.__dict__, *listed, *METHODS, *CONSTANTS, *DTYPES, *PACKAGES})

sys.modules[__name__].__class__ = Namespace
