# einsum.py: sums of products over named dimensions. In: an equation 'bik,bkj->bij' and tensors. Out: one tensor, made
# by permute, reshape, * and sum alone.
from __future__ import annotations
from typing import Sequence
from picograd.tensor import Tensor

GREEK = "".join(map(chr, range(0x391, 0x3aa)))       # names for the dimensions of an ellipsis

def einsum(equation: str, *operands) -> Tensor:
  """Sums of products over named dimensions: 'bik,bkj->bij'. Operands are joined from left to right; a name is summed as
  soon as no later operand and not the output needs it."""
  if isinstance(operands[0], (list, tuple)):
    operands = tuple(operands[0])
  tensors = list(operands)
  names, output = einsum_names(equation.replace(" ", ""), tensors)
  current, labels = einsum_diagonal(tensors[0], names[0])
  current, labels = summed(current, labels, output + "".join(names[1:]))
  for i in range(1, len(tensors)):
    other, more = einsum_diagonal(tensors[i], names[i])
    joined = "".join(dict.fromkeys(labels + more))
    current = einsum_align(current, labels, joined) * einsum_align(other, more, joined)
    later = output + "".join(names[i + 1:])
    labels = joined
    current, labels = summed(current, labels, later)
  return current.permute([labels.index(c) for c in output])

def summed(t: Tensor, names: str, wanted: str) -> tuple[Tensor, str]:
  """The sum over dimensions whose name is not wanted."""
  done = tuple(d for d, c in enumerate(names) if c not in wanted)
  kept = "".join(c for c in names if c in wanted)
  return t.sum(done, dtype=t.dtype) if done else t, kept

def einsum_names(equation: str, tensors: Sequence[Tensor]) -> tuple[list[str], str]:
  """The names of each operand's dimensions and of the output's, '...' replaced by capital Greek letters."""
  inputs, arrow, output = equation.partition("->")
  terms = inputs.split(",")
  if len(terms) != len(tensors):
    raise ValueError(f"einsum '{equation}' names {len(terms)} operands, but {len(tensors)} were given")
  named = [len(term.replace("...", "")) for term in terms]
  hidden = [max(0, t.ndim - n) for t, n in zip(tensors, named)]
  letters = GREEK[:max(hidden)] if "..." in inputs else ""
  names = [term.replace("...", letters[len(letters) - n:]) for term, n in zip(terms, hidden)]
  for term, t in zip(names, tensors):
    if len(term) != t.ndim:
      raise ValueError(f"einsum '{equation}': '{term}' does not fit a tensor of shape {list(t.shape)}")
  if not arrow:
    every = "".join(names)
    once = [c for c in sorted(set(every) - set(letters)) if every.count(c) == 1]
    output = "..." + "".join(once)
  return names, output.replace("...", letters)

def einsum_diagonal(t: Tensor, names: str) -> tuple[Tensor, str]:
  """A dimension named twice is a diagonal."""
  for name in dict.fromkeys(names):
    while names.count(name) > 1:
      first, second = names.index(name), names.rindex(name)
      t = t.diagonal(0, first, second)
      others = [c for d, c in enumerate(names) if d not in (first, second)]
      names = "".join(others) + name
  return t, names

def einsum_align(t: Tensor, names: str, wanted: str) -> Tensor:
  """t with one dimension for each wanted name, of size 1 where it has none."""
  order = [names.index(c) for c in wanted if c in names]
  moved = t.permute(order)
  sizes = iter(moved.shape)
  return moved.reshape([next(sizes) if c in names else 1 for c in wanted])
