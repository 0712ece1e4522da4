# documentation.py: what Tensor's methods do that are one line, or a row of a table, elsewhere: shapes, errors, corner
# cases. A method of torch's name means what torch's means. `dim` may be negative, and where several dimensions are
# allowed None means all of them; NumPy's spellings axis and keepdims work too.
from __future__ import annotations
from picograd.tensor import Tensor

UNARY = {
  "abs": "|x|; of unsigned integers and bool x itself.", "neg": "-x. RuntimeError for bool.",
  "acos": "The angle in [0, pi] whose cosine is x; NaN outside [-1, 1].",
  "asin": "The angle in [-pi/2, pi/2] whose sine is x; NaN outside [-1, 1].",
  "atan": "The angle in (-pi/2, pi/2) whose tangent is x.",
  "ceil": "The smallest whole number that is not below x; the gradient is 0.",
  "floor": "The largest whole number that is not above x; the gradient is 0.",
  "trunc": "x without its fraction; the gradient is 0.",
  "cos": "The cosine of radians.", "cosh": "(e^x + e^-x) / 2",
  "erf": "2/sqrt(pi) times the integral of exp(-t^2) to x.",
  "exp": "e to the power x", "exp2": "2^x", "expm1": "e^x - 1, exact near 0.",
  "isinf": "Whether x is inf or -inf. bool.",
  "isnan": "Whether x is NaN. bool.", "log": "The natural logarithm: -inf at 0, NaN below.",
  "log10": "The logarithm to base 10: -inf at 0, NaN below.", "log1p": "log(1 + x), exact near 0.",
  "log2": "The logarithm to base 2: -inf at 0, NaN below.", "reciprocal": "1/x",
  "relu": "max(x, 0), with gradient 0 at 0.",
  "rsqrt": "1/sqrt(x): inf at 0, NaN below.", "sigmoid": "1/(1 + e^-x)", "sign": "-1, 0 or 1; the gradient is 0.",
  "sin": "The sine of radians.", "sinh": "(e^x - e^-x) / 2", "sqrt": "The square root: NaN below 0.",
  "tan": "The tangent of radians.", "tanh": "(e^x - e^-x) / (e^x + e^-x)", "bitwise_not": "~x; bool: not x.",
}
BINARY = {
  "mul": "x * y, broadcast.", "floor_divide": "The quotient rounded down. ZeroDivisionError for integers by 0.",
  "remainder": "x - floor(x/y)*y: it has the divisor's sign. ZeroDivisionError for integers by 0.",
  "fmod": "x - trunc(x/y)*y: it has the dividend's sign. ZeroDivisionError for integers by 0.",
  "add": "x + alpha * y, broadcast.", "sub": "x - alpha * y, broadcast. RuntimeError for bool.",
  "div": "x / y, as floats; rounding_mode 'floor' or 'trunc' keeps integers.",
  "maximum": "The larger of x and y, broadcast; NaN if either is. Equal elements share the gradient.",
  "minimum": "The smaller of x and y, broadcast; NaN if either is. Equal elements share the gradient.",
  "pow": "x ** y, broadcast: NaN for negative x and fractional y. RuntimeError for integers to a negative number.",
  "eq": "x == y, broadcast. bool.", "ne": "x != y, broadcast. bool.", "lt": "x < y, broadcast. bool.",
  "gt": "x > y, broadcast. bool.", "le": "x <= y, broadcast. bool.", "ge": "x >= y, broadcast. bool.",
  "bitwise_and": "x & y. RuntimeError for floats.", "bitwise_or": "x | y. RuntimeError for floats.",
  "bitwise_xor": "x ^ y. RuntimeError for floats.", "bitwise_left_shift": "x << y. RuntimeError for floats.",
  "bitwise_right_shift": "x >> y. RuntimeError for floats.",
  "allclose": "Whether |x - y| <= atol + rtol * |y| everywhere. A Python bool.",
  "dot": "(n,) and (n,) -> (): the sum of products. RuntimeError for other ranks.",
  "mm": "(n, k) @ (k, m) -> (n, m)", "mv": "(n, k) @ (k,) -> (n,)", "outer": "(n,) and (m,) -> (n, m), x[i] * y[j].",
  "bmm": "(b, n, k) @ (b, k, m) -> (b, n, m). RuntimeError for other ranks.",
  "matmul": "(.., n, k) @ (.., k, m) -> (.., n, m), the rest broadcast; a vector is a row on the left, a column on the "
            "right. RuntimeError where k differs.",
  "masked_fill": "x with value where mask, which broadcasts, is true.",
  "where": "x where condition holds, else other, broadcast.",
}
REDUCTIONS = {
  "sum": "The sum over dim; of integers and bool as int64, unless dtype says otherwise.",
  "prod": "The product over dim; of integers and bool as int64. The gradient is right where there are zeros.",
  "mean": "The mean over dim. RuntimeError for integers: call float() first.",
  "std": "The square root of var().", "amax": "The largest over dim; equal elements share the gradient.",
  "amin": "The smallest over dim; equal elements share the gradient.",
  "max": "The largest element of all; with dim (values, indices) along it, of equal ones the first; with a tensor "
         "maximum(). RuntimeError for no elements.",
  "min": "The smallest element of all; with dim (values, indices) along it, of equal ones the first; with a tensor "
         "minimum(). RuntimeError for no elements.",
  "argmax": "Where the largest is, int64: along dim, or in the flattened tensor. The first of equal ones, NaN counts "
            "as largest. IndexError for no elements.",
  "argmin": "Where the smallest is, int64: along dim, or in the flattened tensor. IndexError for no elements.",
  "any": "Whether any element over dim is not 0. bool.", "all": "Whether no element over dim is 0. bool.",
  "count_nonzero": "How many elements over dim are not 0. int64.",
  "logsumexp": "log(sum(exp(x))) over dim, without overflow.", "softmax": "exp(x) / sum(exp(x)) along dim.",
  "log_softmax": "x - logsumexp(x) along dim.", "cumsum": "The sums of the first 1, 2, .. elements along dim.",
  "cumprod": "The products of the first 1, 2, .. elements along dim.", "trace": "(n, m) -> (): the diagonal's sum.",
  "sort": "(values, indices) in ascending order along dim; equal elements keep their order, NaN comes last.",
  "argsort": "The indices that sort along dim. int64.",
  "topk": "(values, indices) of the k largest along dim, in descending order. RuntimeError where there are fewer.",
}
MOVEMENT = {
  "reshape": "The same elements in another shape, -1 for what follows from the rest: a view where strides allow it. "
             "RuntimeError where the number of elements differs.",
  "permute": "The dimensions in another order: a view.", "transpose": "Two dimensions exchanged: a view.",
  "T": "The dimensions in reverse order: a view.", "mT": "The last two dimensions exchanged: a view.",
  "t": "A matrix transposed. RuntimeError above two dimensions.", "squeeze": "Without dimensions of size 1: a view.",
  "unsqueeze": "(..) -> (.., 1, ..), the new dimension at dim: a view.",
  "flatten": "The dimensions from start_dim to end_dim as one.", "contiguous": "In row-major order: itself, or a copy.",
  "flip": "The dimensions backwards.", "chunk": "So many parts along dim, the last may be smaller: views.",
  "tril": "The last two dimensions with zeros above the diagonal.",
  "triu": "The last two dimensions with zeros below the diagonal.",
  "masked_select": "The elements where mask is true, in a row; their number has to be known, so this computes.",
  "index_select": "The places along dim that index (n,) names. IndexError outside.",
  "scatter_": "scatter() in place.", "scatter_add_": "scatter_add() in place.",
  "scatter_add": "x with src[.., k, ..] added at [.., index[.., k, ..], ..] along dim.",
}
ABOUT = {
  "requires_grad": "Whether operations on me are recorded. Setting it makes me a leaf.",
  "requires_grad_": "Makes me a leaf whose gradient backward() adds up, or no longer. RuntimeError for integers.",
  "data": "My memory without history. Setting it makes me a view of another tensor's memory.",
  "grad": "The gradient that backward() has added up; None before.",
  "item": "The only element as a Python number. RuntimeError for another number of elements.",
  "tolist": "Nested lists of Python numbers; a number for no dimensions.",
  "type": "In a dtype; without one the name of mine.", "cpu": "On the host.", "cuda": "On a GPU.",
  "size": "shape, or one of its sizes.", "shape": "The sizes of the dimensions: a Size, which is a tuple.",
  "ndim": "How many dimensions there are.", "dim": "How many dimensions there are.",
  "stride": "How many elements lie between neighbours along each dimension, or along one.",
  "dtype": "The type of the elements.", "device": "Where the memory is.", "numel": "How many elements there are.",
  "is_floating_point": "Whether the dtype is a float.", "is_leaf": "Whether I am no result of a recorded operation.",
  "copy_": "My elements become src's, converted and broadcast.", "zero_": "My elements become 0.",
  "fill_": "My elements become value.", "detach_": "I lose my history.", "is_contiguous": "Whether in row-major order.",
}

CASTS = {name: f"As {name}." for name in "bfloat16 bool byte char double float half int long short".split()}

def document() -> None:
  """Gives methods, and their twins that assign, their docstrings."""
  for name, text in {**UNARY, **BINARY, **REDUCTIONS, **MOVEMENT, **ABOUT, **CASTS}.items():
    vars(Tensor)[name].__doc__ = text
    twin = vars(Tensor).get(name + "_")
    if twin is not None and not twin.__doc__: twin.__doc__ = f"{name}() in place. {CANNOT_HOLD}"

CANNOT_HOLD = "RuntimeError where my shape or dtype cannot hold the result."
