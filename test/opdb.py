# opdb.py: torch's own database of operators, run on picograd. In: the name of an operator in op_db and a dtype. Out:
# for each of its sample inputs None where value and gradient agree with torch's, else what differs. Needs torch and
# expecttest, which torch's testing modules import.
#   python test/opdb.py [NAME ..]      prints agreement by operator; without names, of all operators that the API names
from __future__ import annotations
import itertools, sys, warnings
from collections import Counter
from typing import Any, Callable, Iterator, NamedTuple, Sequence
import numpy as np
import torch
from torch.testing._internal.common_methods_invocations import op_db
import picograd

# The operators of op_db that the API's names reach: functions of the module, then of its namespaces.
NAMES = """
  abs add all allclose amax amin any arange argmax argmin argsort as_tensor bernoulli bfloat16 bmm bool cat ceil chunk
  clamp clone contiguous cos cumprod cumsum diag diagonal div dot einsum empty empty_like eq exp expand eye fill flatten
  flip float floor floor_divide full full_like gather ge gt half index_select int isinf isnan item le linspace log log10
  log2 log_softmax logsumexp long lt masked_fill masked_select matmul max maximum mean min minimum movedim mul
  multinomial ne neg new_empty new_full new_ones new_zeros norm normal ones ones_like outer permute pow prod rand_like
  randint randint_like randn randn_like relu remainder repeat reshape roll round rsqrt rsub scatter scatter_add select
  sigmoid sign sin softmax sort split sqrt squeeze stack std sub sum t tan tanh to topk trace transpose tril triu unbind
  unflatten uniform unsqueeze var view where zero_ zeros zeros_like __getitem__ __radd__ __rdiv__ __rmatmul__ __rmod__
  __rmul__ __rpow__ __rsub__ __rand__ __ror__ __rxor__ T index_put true_divide
  linalg.cholesky linalg.det linalg.eig linalg.inv linalg.lstsq linalg.norm linalg.qr linalg.solve linalg.svd
  nn.functional.avg_pool2d nn.functional.batch_norm nn.functional.binary_cross_entropy
  nn.functional.binary_cross_entropy_with_logits nn.functional.conv1d nn.functional.conv2d
  nn.functional.conv_transpose2d nn.functional.cross_entropy nn.functional.dropout nn.functional.elu
  nn.functional.embedding nn.functional.gelu nn.functional.group_norm nn.functional.interpolate
  nn.functional.layer_norm nn.functional.leaky_relu nn.functional.linear nn.functional.max_pool2d nn.functional.mse_loss
  nn.functional.nll_loss nn.functional.one_hot nn.functional.pad nn.functional.relu nn.functional.rms_norm
  nn.functional.scaled_dot_product_attention nn.functional.silu nn.functional.softplus""".split()

RANDOM = frozenset("""bernoulli empty empty_like multinomial new_empty normal rand_like randint randint_like randn
  randn_like uniform nn.functional.dropout""".split())                 # of these shapes and dtypes are compared

OPERATORS = [op for op in op_db if op.name in NAMES]
DTYPES = (torch.float32, torch.int64)
NARROW = (torch.float16, torch.bfloat16)

class Sample(NamedTuple):
  """A call of an operator: with these arguments; gauge: what makes outputs unique before they are compared."""
  arguments: tuple[Any, ...]
  keywords: dict[str, Any]
  gauge: Callable[[Any], Any]

def label(op: Any) -> str: return op.name + (f"/{op.variant_test_name}" if op.variant_test_name else "")

def samples(op: Any, dtype: torch.dtype) -> Iterator[Sample]:
  torch.manual_seed(0)
  np.random.seed(0)
  wants_grad = dtype.is_floating_point and op.supports_autograd
  for s in op.sample_inputs_func(op, "cpu", dtype, wants_grad):          # op.sample_inputs looks at the stack each time
    yield Sample((s.input, *s.args), s.kwargs, s.output_process_fn_grad)

# ---- torch's values as picograd's ------------------------------------------------------------------------------------

LAYOUT = ("layout", "memory_format", "pin_memory")         # keywords that ask for what every tensor of picograd has

def translated(x: Any, leaves: list[Any]) -> Any:
  """x with torch's tensors, dtypes and sizes replaced; new tensors that require grad are added to leaves."""
  if isinstance(x, torch.Tensor):
    data = x.detach().clone()
    array = data.float().numpy() if data.dtype is torch.bfloat16 else data.numpy()
    out = picograd.tensor(array, dtype=translated(x.dtype, []), requires_grad=x.requires_grad)
    if x.requires_grad: leaves.append(out)
    return out
  if isinstance(x, torch.dtype): return getattr(picograd, str(x).removeprefix("torch."))
  if isinstance(x, torch.device): return str(x)
  if isinstance(x, (tuple, list)): return type(x)(translated(e, leaves) for e in x) if not isinstance(x, torch.Size) \
    else tuple(x)
  if isinstance(x, dict): return {k: translated(v, leaves) for k, v in x.items() if k not in LAYOUT}
  return x

def torch_leaves(x: Any) -> list[torch.Tensor]:
  if isinstance(x, torch.Tensor): return [x] if x.requires_grad else []
  if isinstance(x, dict): x = list(x.values())
  return [leaf for e in x for leaf in torch_leaves(e)] if isinstance(x, (tuple, list)) else []

def put_at_indices(x: Any, indices: Any, values: Any, accumulate: bool = False) -> Any:
  if accumulate: raise NotImplementedError("index_put(accumulate=True)")
  out = x.clone()
  out[tuple(indices)] = values
  return out

# operators that op_db calls with arguments in an order of its own, or that are methods which assign
CALLS: dict[str, Callable[..., Any]] = {
  "T": lambda x: x.T,
  "__rdiv__": lambda x, y: y / x,
  "einsum": lambda tensors, equation: picograd.einsum(equation, *tensors),
  "fill": lambda x, value: x.clone().fill_(value),
  "index_put": put_at_indices,
  "linalg.lstsq/grad_oriented": lambda A, B, driver: picograd.linalg.lstsq(A, B, driver=driver)[:2],
  "nn.functional.embedding": lambda weight, index, **k: picograd.nn.functional.embedding(index, weight, **k),
  "normal/in_place": lambda x, *a, **k: x.detach().clone().normal_(*a, **k),
  "to": lambda x, *a, **k: x.to(*a, **k),
  "uniform": lambda x, *a, **k: x.detach().clone().uniform_(*a, **k),
  "where": lambda x, condition, y: picograd.where(condition, x, y),
  "zero_": lambda x: x.clone().zero_(),
}

def function_of(op: Any) -> Callable[..., Any]:
  """picograd's function of the same name; a method where there is none."""
  if label(op) in CALLS: return CALLS[label(op)]
  if op.name in CALLS: return CALLS[op.name]
  home: Any = picograd
  for part in op.name.split("."): home = getattr(home, part, None)
  if home is not None and not isinstance(home, picograd.dtype): return home
  return lambda x, *a, **k: getattr(x, op.name)(*a, **k)

# ---- one sample ------------------------------------------------------------------------------------------------------

def leaves_of(result: Any) -> list[Any]:
  if isinstance(result, (tuple, list)): return [leaf for part in result for leaf in leaves_of(part)]
  return [result]

def array_of(x: Any) -> np.ndarray:
  x = x.detach()
  return np.asarray((x.float() if str(x.dtype).endswith("bfloat16") else x).numpy())

def distance(got: np.ndarray, want: np.ndarray, absolute: float, relative: float) -> str | None:
  """How two arrays differ: None where they agree. absolute is of the largest finite value wanted, if above 1."""
  if got.shape != want.shape: return f"shape {got.shape}, torch's is {want.shape}"
  if want.dtype.kind not in "fc": return None if np.array_equal(got, want) else f"values differ: {first(got, want)}"
  finite = np.abs(want[np.isfinite(want)])
  scale = max(1.0, float(finite.max())) if finite.size else 1.0
  with np.errstate(all="ignore"): near = np.isclose(got, want, relative, absolute * scale, equal_nan=True)
  return None if near.all() else f"values differ: {first(got[~near], want[~near])}"

def first(got: np.ndarray, want: np.ndarray) -> str:
  bad = got != want
  return f"{got[bad].flat[0]} is not {want[bad].flat[0]}" if bad.any() else "?"

# absolute and relative: torch rounds between the steps of some formulas, we round between those of others
BOUNDS = {"float16": (2e-2, 1e-2), "bfloat16": (5e-2, 4e-2)}

def is_random(op: Any, sample: Sample) -> bool:
  return op.name in RANDOM or sample.keywords.get("dropout_p", 0) > 0

def compare_outputs(op: Any, sample: Sample, got: list[Any], want: list[Any]) -> str | None:
  if len(got) != len(want): return f"{len(got)} outputs, torch has {len(want)}"
  for mine, other in zip(got, want):
    if not isinstance(other, torch.Tensor):
      if mine != other and not (mine != mine and other != other): return f"{mine!r}, torch says {other!r}"
      continue
    kind = str(other.dtype).removeprefix("torch.")
    if mine.dtype.name != kind: return f"dtype {mine.dtype.name}, torch's is {kind}"
    if is_random(op, sample):
      if tuple(mine.shape) != tuple(other.shape): return f"shape {tuple(mine.shape)}, not {tuple(other.shape)}"
      continue
    problem = distance(array_of(mine), array_of(other), *BOUNDS.get(kind, (1e-6, 1e-3)))
    if problem: return problem
  return None

def named(op: Any, arguments: Sequence[Any], outputs: list[Any]) -> list[Any]:
  """The outputs; of equal elements topk may name any, so that its indices count as the elements that they name."""
  if op.name != "topk" or not arguments[0].ndim: return outputs
  x, dim = arguments[0], arguments[2] if len(arguments) > 2 else -1
  return [outputs[0], x.gather(dim, outputs[1])]

def differentiable(x: Any) -> bool:
  return hasattr(x, "requires_grad") and bool(x.requires_grad)

def weighted(lib: Any, outputs: list[Any]) -> Any:
  """The sum of all differentiable outputs, each element times a weight of its own."""
  total = None
  for k, out in enumerate(o for o in outputs if differentiable(o)):
    w = np.random.default_rng(k).uniform(0.5, 1.5, tuple(out.shape)).astype(np.float32)
    part = (out * lib.tensor(w, dtype=out.dtype)).sum()
    total = part if total is None else total + part
  return total

def compare(op: Any, sample: Sample) -> str | None:
  """None where picograd agrees with torch on a sample, else what differs."""
  leaves: list[Any] = []
  try:
    mine = translated(sample.arguments, leaves), translated(sample.keywords, leaves)
    want = op(*sample.arguments, **sample.keywords)
    outputs = named(op, sample.arguments, leaves_of(sample.gauge(want)))
    got = named(op, mine[0], leaves_of(sample.gauge(function_of(op)(*mine[0], **mine[1]))))
    problem = compare_outputs(op, sample, got, outputs)
    if problem or is_random(op, sample) or not any(differentiable(o) for o in outputs): return problem
    sources = torch_leaves((sample.arguments, sample.keywords))
    grads = torch.autograd.grad(weighted(torch, outputs), sources, allow_unused=True)
    total = weighted(picograd, got)
    if total is not None: total.backward()
  except Exception as e: return f"{type(e).__name__}: {str(e).splitlines()[0] if str(e) else ''}"[:160]
  for leaf, g in zip(leaves, grads):
    if g is None: continue
    if leaf.grad is None:
      if bool((g != 0).any()): return "a gradient is missing"
      continue
    problem = distance(array_of(leaf.grad), array_of(g), *BOUNDS.get(leaf.dtype.name, (1e-4, 1e-3)))
    if problem: return f"gradient: {problem}"
  return None

# ---- all samples -----------------------------------------------------------------------------------------------------

class Agreement(NamedTuple):
  """Of an operator in a dtype: how many samples there are, and how often each difference was met."""
  count: int
  differences: Counter[str]

def agreement(op: Any, dtype: torch.dtype, few: int | None = None) -> Agreement:
  """few: how many samples are looked at, far apart among the first; None: all."""
  found: Counter[str] = Counter()
  with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    chosen = list(samples(op, dtype) if few is None else itertools.islice(samples(op, dtype), FIRST))
    if few is not None: chosen = chosen[len(chosen) // (2 * few)::max(1, -(-len(chosen) // few))]
    for sample in chosen:
      problem = compare(op, sample)
      if problem: found[problem] += 1
  return Agreement(len(chosen), found)
FIRST = 12                 # samples among which a few are chosen

def chosen(names: list[str], dtypes: Sequence[torch.dtype] = DTYPES) -> list[tuple[Any, torch.dtype]]:
  ops = [op for op in OPERATORS if not names or op.name in names or label(op) in names]
  return [(op, dt) for op in ops for dt in dtypes if op.supports_dtype(dt, "cpu")]

def main(names: list[str]) -> None:
  total = bad = 0
  for op, dtype in chosen(names):
    found = agreement(op, dtype)
    wrong = sum(found.differences.values())
    total, bad = total + found.count, bad + wrong
    kind = str(dtype).removeprefix("torch.")
    print(f"{label(op):<48} {kind:<8} {found.count - wrong:>4} of {found.count}", flush=True)
    for text, count in found.differences.most_common(6): print(f"    {count:>4} x {text}")
  print(f"{total - bad} of {total} samples agree: {100 * (total - bad) / max(total, 1):.1f} %")

if __name__ == "__main__": main(sys.argv[1:])
