# test_alias.py: who sees what when memory is shared. Random programs of up to 15 statements (views, in-place operations
# on views and bases, detach, data, clone, assignment to slices, masks and index tensors, reads in between) run with
# torch and with picograd; at the end every tensor, its requires_grad and all gradients are the same. A program is text:
# what a failure prints can be pasted into an interpreter. EXAMPLES in the environment says how many there are.
import os, random
import numpy as np
import pytest
import picograd
from picograd.helpers import DEVICE

torch = pytest.importorskip("torch")

EXAMPLES = int(os.environ.get("EXAMPLES", "40"))
FIRST_SEED = int(os.environ.get("FIRST_SEED", "0"))
STATEMENTS = 15
SHAPES = [(6,), (2, 3), (4, 3), (3, 2, 2), (1, 4), ()]

# Expressions of a tensor x; those that share its memory, and those that do not.
VIEWS = ["{x}[1:]", "{x}[::2]", "{x}[:, 1:]", "{x}[:, ::2]", "{x}[0]", "{x}[-1]", "{x}[..., 0]", "{x}[:, None]",
         "{x}.T",
         "{x}.transpose(0, 1)", "{x}.reshape(-1)", "{x}.reshape(2, -1)", "{x}.view(-1)", "{x}.unsqueeze(0)",
         "{x}.squeeze()", "{x}.expand(2, *{x}.shape)", "{x}.detach()", "{x}.data", "{x}.narrow(0, 1, 1)",
         "{x}.split(2)[-1]", "{x}.chunk(2)[0]", "{x}.unbind(0)[-1]", "{x}.flatten()",
         "torch.Tensor.view_as({x}, {x})", "{x}.permute(1, 0)", "{x}.diagonal()", "{x}.to(torch.float32)"]
COPIES = ["{x}.clone()", "{x} * 2", "{x} + {y}", "{x}.flip(0)", "{x}[{index}]", "{x}.sum()", "{x}.sum(0)", "-{x}",
          "{x} * {y}", "torch.cat([{x}, {x}])", "{x}.detach().clone()", "{x}.mean() * {x}", "{x}.relu()",
          "{x}.cumsum(0)",
          "torch.stack([{x}, {x}])", "torch.where({x} > 0, {x}, {y})", "{x}.detach().clone().requires_grad_()",
           "{x}.repeat(2)"]
CHANGES = ["{x}.add_(1)", "{x}.mul_(2)", "{x} += {y}", "{x} *= {y}", "{x} -= 0.5 * {x}", "{x}.zero_()", "{x}.fill_(3)",
           "{x}.copy_({y})", "{x}[0] = 5", "{x}[1:] = 7", "{x}[::2] = {x}[::2] * 2", "{x}[{x} > 0] = -1",
           "{x}[{index}] = 9", "{x}[..., 0] = {y}", "{x}[:] = {y}", "{x}[0] += 1", "{x}[:, 1] *= 3", "{x}[-1] = {y}",
           "{x}[{x} < {y}] = 0", "{x}.T.add_(1)", "{x}.view(-1)[1] = 4", "{x}.data.add_(1)", "{x}.detach().mul_(2)",
           "{x}.data = {y}.data", "{x}.data = {x}.data * 2", "{x}[{index}] += 1", "{x}[1:].zero_()", "{x}.sub_({y})",
           "{x}.clamp_(-1, 1)", "{x}.masked_fill_({x} > 0, 2)", "{x}.add_({y}, alpha=2)", "{x}.relu_()"]
READS = ["{x}.sum().item()", "{x}.tolist()", "({x} + {y}).sum().item()", "{x}.detach().numpy().copy()",
         "({x} * 2).tolist()"]
BLOCKS = ["", "", "", "with torch.no_grad(): "]

def make_program(seed):
  """A random program that torch accepts, as lines of text."""
  choose = random.Random(seed)
  lines, names = [], {"torch": torch}
  def attempt(line):
    try: exec(line, names)
    except (RuntimeError, IndexError, ValueError, TypeError): return False
    lines.append(line)
    return True
  for k in range(choose.choice([1, 2, 2])):
    shape = choose.choice(SHAPES)
    count = int(np.prod(shape))
    values = [choose.randint(-4, 4) / 2 for _ in range(count)]
    flag = choose.choice(["", "", ", requires_grad=True"])
    data = np.array(values).reshape(shape).tolist()
    attempt(f"v{k} = torch.tensor({data}{flag})")
  made, attempts = len(lines), 0
  while len(lines) < STATEMENTS and attempts < 100:
    attempts += 1
    known = [name for name in names if name[0] == "v"]
    x, y = choose.choice(known), choose.choice(known)
    kind = choose.choices(["view", "copy", "change", "read"], [4, 2, 6, 1])[0]
    pattern = choose.choice({"view": VIEWS, "copy": COPIES, "change": CHANGES, "read": READS}[kind])
    if kind == "change" and overlap(names[x], names[y]): pattern = pattern.replace("{y}", "{y}.clone()")
    index = f"torch.tensor({choose.choice([[0], [1, 0], [1], [[1], [0]]])})"
    text = pattern.format(x=x, y=y, index=index)
    block = choose.choice(BLOCKS)
    if kind == "change" and not is_compared(names, x, y, pattern + block): continue
    if kind in ("view", "copy"):
      made += attempt(f"v{made} = {text}")
      if f"v{made - 1}" in names and names[f"v{made - 1}"].numel() > 64: return lines[:-1]
    elif kind == "read": attempt(f"r{len(lines)} = {text}")
    else: attempt(block + text)
    if not all_usable(names): return lines[:-1]
  return lines

def is_compared(names, x, y, pattern):
  """Not where elements of x share memory, which torch refuses for some operations only; nor where a result of recorded
  operations changes unrecorded, which torch's gradient does not notice, and ours takes for constants."""
  x, y = names[x], names[y]
  if any(n > 1 and s == 0 for n, s in zip(x.shape, x.stride())): return False
  if ".data = " in pattern: return x.is_leaf and not x.requires_grad
  aliases = [v for name, v in names.items() if name[0] == "v" and overlap(v, x) and v is not x]
  unrecorded = any(word in pattern for word in ("no_grad", ".data", ".detach")) or not x.requires_grad
  if not unrecorded: return True
  if not x.requires_grad and y.requires_grad and aliases: return False
  return all(not v.requires_grad or (v if v._base is None else v._base).is_leaf for v in [x, *aliases])

def all_usable(names):
  """torch gives up on some views whose base has been overwritten."""
  try: return [v.is_leaf for name, v in names.items() if name[0] == "v"] != []
  except RuntimeError: return False

def overlap(x, y):
  return x.untyped_storage().data_ptr() == y.untyped_storage().data_ptr()

def run_program(lines, module):
  """The values of all names, whether they require grad, and the gradients of all leaves."""
  names = {"torch": module}
  for line in lines: exec(line, names)
  tensors = {name: v for name, v in names.items() if name[0] == "v"}
  grads = gradients(tensors)
  values = {name: np.asarray(v.detach().numpy()) for name, v in tensors.items()}
  reads = {name: np.asarray(v) for name, v in names.items() if name[0] == "r"}
  return values, reads, {name: bool(v.requires_grad) for name, v in tensors.items()}, grads

def gradients(tensors):
  """Of a weighted sum of all tensors; None where a value that is needed was overwritten: our formulas and torch's
  may need different ones."""
  leaves = {name: v for name, v in tensors.items() if v.requires_grad and v.is_leaf}
  for v in leaves.values(): v.grad = None
  try:
    loss = sum((k + 1) * v.sum() for k, v in enumerate(tensors.values()) if v.requires_grad)
    if isinstance(loss, int): return {}
    loss.backward()
    return {name: None if v.grad is None else np.asarray(v.grad.numpy()) for name, v in leaves.items()}
  except RuntimeError as error:
    assert "modified by an inplace operation" in str(error) or "modified inplace" in str(error), error
    return None

def compare(lines):
  text = "\n".join(lines)
  values, reads, flags, grads = run_program(lines, torch)
  try: found_values, found_reads, found_flags, found_grads = run_program(lines, picograd)
  except Exception as error:
    if "cannot write into a tensor expanded" in str(error): return
    raise AssertionError(f"{type(error).__name__}: {error}\n{text}") from error
  assert found_flags == flags, text
  for name, value in {**values, **reads}.items():
    found = found_values[name] if name in values else found_reads[name]
    assert found.shape == value.shape, f"{name}: {found.shape}, not {value.shape}\n{text}"
    assert np.allclose(found, value, rtol=1e-4, atol=1e-4), f"{name}: {found.tolist()}, not {value.tolist()}\n{text}"
  if grads is None or found_grads is None or ".data" in text: return  # torch's .data hides changes from gradients
  for name, grad in grads.items():
    assert name in found_grads, f"{name} is no leaf\n{text}"
    found = found_grads[name]
    assert (grad is None) == (found is None), f"{name}.grad: {found}, not {grad}\n{text}"
    if grad is None: continue
    assert np.allclose(found, grad, rtol=1e-4, atol=1e-3), f"{name}.grad: {found}, not {grad}\n{text}"

@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("device", ["CPU", "NUMPY"])
@pytest.mark.parametrize("part", range(4))
def test_random_programs_share_memory_as_torch_does(device, part):
  with DEVICE.set(device):
    for seed in range(FIRST_SEED + part, FIRST_SEED + EXAMPLES, 4): compare(make_program(seed))
