# einsum.py: sums of products over named dimensions. In: an equation 'bik,bkj->bij' and tensors. Out: one tensor, made
# by permute, reshape, * and sum alone.
from __future__ import annotations
from typing import Sequence
from picograd.tensor import Tensor

def einsum(equation: str, *operands) -> Tensor:
  """Sums of products over named dimensions: 'bik,bkj->bij'. Operands are joined from left to right; a name is summed as
  soon as no later operand and not the output needs it."""
  tensors = list(operands[0]) if isinstance(operands[0], (list, tuple)) else list(operands)
  names, output = einsum_names(equation.replace(" ", ""), tensors)
  current, labels = einsum_diagonal(tensors[0], names[0])
  for i in range(1, len(tensors) + 1):
    later = set(output).union(*names[i + 1:])
    other, more = einsum_diagonal(tensors[i], names[i]) if i < len(tensors) else (None, "")
    joined = labels + "".join(c for c in more if c not in labels)
    if other is not None:
      current, labels = einsum_align(current, labels, joined) * einsum_align(other, more, joined), joined
    done = tuple(d for d, c in enumerate(labels) if c not in later)
    if done:
      current, labels = current.sum(done), "".join(c for c in labels if c in later)
  return current.permute([labels.index(c) for c in output])

def einsum_names(equation: str, tensors: Sequence[Tensor]) -> tuple[list[str], str]:
  """The names of each operand's dimensions and of the output's, '...' replaced by capital Greek letters."""
  inputs, arrow, output = equation.partition("->")
  terms = inputs.split(",")
  if len(terms) != len(tensors):
    raise ValueError(f"einsum '{equation}' names {len(terms)} operands, but {len(tensors)} were given")
  hidden = [max(0, t.ndim - len(term.replace("...", ""))) for term, t in zip(terms, tensors)]
  letters = "".join(chr(0x391 + i) for i in range(max(hidden) if "..." in inputs else 0))
  names = [term.replace("...", letters[len(letters) - n:]) for term, n in zip(terms, hidden)]
  for term, t in zip(names, tensors):
    if len(term) != t.ndim:
      raise ValueError(f"einsum '{equation}': '{term}' does not fit a tensor of shape {list(t.shape)}")
  every = "".join(names)
  if not arrow:
    output = "..." + "".join(sorted(c for c in set(every) if every.count(c) == 1 and c not in letters))
  return names, output.replace("...", letters)

def einsum_diagonal(t: Tensor, names: str) -> tuple[Tensor, str]:
  """A dimension named twice is a diagonal."""
  for name in dict.fromkeys(names):
    while names.count(name) > 1:
      first, second = names.index(name), names.rindex(name)
      t = t.diagonal(0, first, second)
      names = "".join(c for d, c in enumerate(names) if d not in (first, second)) + name
  return t, names

def einsum_align(t: Tensor, names: str, wanted: str) -> Tensor:
  """t with one dimension for each wanted name, of size 1 where it has none."""
  order = [names.index(c) for c in wanted if c in names]
  moved = t.permute(order)
  sizes = iter(moved.shape)
  return moved.reshape([next(sizes) if c in names else 1 for c in wanted])
