# library: what torch offers on top of the core tensor, composed of its methods and of the ops of the first bank. Each
# file is a subject; its functions take tensors. Importing this package makes them methods: the tables below say which.
from __future__ import annotations
from picograd.common import either_spelling, enable_grad, get_default_dtype, inference_mode, is_grad_enabled, no_grad
from picograd.common import set_default_dtype, set_grad_enabled, Size, device
from picograd.dtype import dtypes
from picograd.helpers import EAGER
from picograd.library import copying, creation, documentation, eager, elementwise, formulas, joining, matrices
from picograd.library import movement, printing, reductions, selecting, sharing, sorting
from picograd.library.creation import empty, empty_like, eye, from_numpy, full_like, linspace, meshgrid, ones_like
from picograd.library.creation import zeros_like
from picograd.library.einsum import einsum
from picograd.library.joining import broadcast_tensors, cat, hstack, stack, vstack
from picograd.library.sharing import from_dlpack
from picograd.tensor import Extremes, Tensor, arange, as_tensor, define, full, in_place, matmul, of_floats, of_one, ones
from picograd.tensor import result_type, tensor, where, zeros

concat = concatenate = cat
def is_tensor(x: object) -> bool: return isinstance(x, Tensor)

__all__ = [
  "Extremes", "Size", "Tensor", "arange", "as_tensor", "broadcast_tensors", "cat", "concat", "concatenate", "device",
  "einsum", "empty", "empty_like", "enable_grad", "eye", "from_dlpack", "from_numpy", "full", "full_like",
  "get_default_dtype", "hstack", "inference_mode", "is_grad_enabled", "is_tensor", "linspace", "matmul", "meshgrid",
  "no_grad", "ones", "ones_like", "result_type", "set_default_dtype", "set_grad_enabled", "stack", "tensor", "vstack",
  "where", "zeros", "zeros_like"]

# subject -> the functions in it that are methods too
METHODS = {
  copying: "__deepcopy__ __reduce__",
  creation: "cpu cuda element_size new_empty new_full new_ones new_tensor new_zeros pin_memory type_as",
  elementwise: """addcdiv addcmul allclose atan2 clamp equal frac isclose isfinite lerp logical_and logical_not
    logical_or logical_xor nan_to_num round rsub sign square""",
  joining: "chunk roll split",
  matrices: "bmm diag diagonal dot mm mv outer trace tril triu",
  movement: """broadcast_to expand_as movedim pad ravel repeat repeat_interleave reshape_as t tile unflatten unfold
    view_as""",
  printing: "__repr__",
  reductions: "count_nonzero cumprod cumsum log_softmax logsumexp norm softmax std var",
  selecting: """gather gather_at index_add_ index_copy_ index_select masked_select nonzero put_at scatter scatter_
    scatter_add scatter_add_ unique""",
  sharing: "__array__ __buffer__ __dlpack__ __dlpack_device__",
  sorting: "argsort sort topk",
}
# formulas of one number: of floats (integers count as floats), and of any dtype
OF_FLOATS = """acos asin atan cos cosh erf exp exp2 expm1 log log10 log1p log2 reciprocal rsqrt sigmoid sin sinh sqrt
  tan tanh""".split()
OF_ANY = {"isinf": formulas.is_inf, "relu": formulas.relu}
CASTS = {
  "bfloat16": "bfloat16", "bool": "bool", "byte": "uint8", "char": "int8", "double": "float64", "float": "float32",
  "half": "float16", "int": "int32", "long": "int64", "short": "int16"}
# other name -> method
ALIASES = {
  "absolute": "abs", "arctan": "atan", "clip": "clamp", "divide": "div", "moveaxis": "movedim", "multiply": "mul",
  "ndimension": "dim", "nelement": "numel", "subtract": "sub", "swapaxes": "transpose", "swapdims": "transpose",
  "true_divide": "div"}
# methods that exist with a trailing underscore too, which assigns
IN_PLACE = """abs add addcdiv addcmul ceil clamp div exp floor floor_divide lerp log logical_not masked_fill mul neg pow
  reciprocal relu remainder round rsqrt sigmoid sqrt sub tanh tril triu""".split()
TWO_SPELLINGS = """all amax amin any argmax argmin argsort count_nonzero cumprod cumsum gather index_select log_softmax
  logsumexp max mean min norm prod roll scatter softmax sort std sum topk var""".split()

def to_dtype(name: str): return lambda self: self.cast(getattr(dtypes, name))

def define_methods() -> None:
  """Gives Tensor what the tables say."""
  for subject, names in METHODS.items():
    for name in names.split(): setattr(Tensor, name, getattr(subject, name))
  for name in OF_FLOATS: define(name, of_floats(getattr(formulas, name)))
  for name, formula in OF_ANY.items(): define(name, of_one(formula))
  for name, dtype in CASTS.items(): define(name, to_dtype(dtype))
  for name, method in ALIASES.items(): setattr(Tensor, name, getattr(Tensor, method))
  for name in IN_PLACE: define(name + "_", in_place(getattr(Tensor, name)))
  for name in TWO_SPELLINGS: setattr(Tensor, name, either_spelling(getattr(Tensor, name)))
  setattr(Tensor, "is_cuda", property(creation.is_cuda))

define_methods()
documentation.document()
if EAGER: eager.make_eager()
