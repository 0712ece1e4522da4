# test_errors.py: what users do wrong gives one sentence in their terms, and the next computation is right.
import pytest
import picograd
from picograd.helpers import DEVICE

def ones(*shape): return picograd.ones(*shape) + picograd.tensor(0.0)
def lazy(*values): return picograd.tensor(list(values)) * 1

ERRORS = [
  ("ones(2, 3) + ones(2, 4)", ValueError, "(2, 3) with (2, 4)"),
  ("ones(2, 3) @ ones(2, 3)", RuntimeError, "[2, 3] @ [2, 3]"),
  ("ones(2, 3).reshape(4, 2)", RuntimeError, "[2, 3]"),
  ("ones(2, 3)[2]", IndexError, "index 2"),
  ("ones(2, 3)[picograd.tensor([0, -3])]", IndexError, "index -3"),
  ("ones(2, 3)[lazy(0, 2)].numpy()", IndexError, "dimension 0 with size 2"),
  ("ones(2, 3)[lazy(0, -3)].numpy()", IndexError, "dimension 0 with size 2"),
  ("ones(2, 3).gather(1, lazy(0, 3).reshape(2, 1)).numpy()", IndexError, "dimension 1 with size 3"),
  ("picograd.tensor([1, 2]) // 0", ZeroDivisionError, "zero"),
  ("picograd.tensor([1, 2]) % picograd.tensor([1, 0])", ZeroDivisionError, "zero"),
  ("(picograd.tensor([1, 2]) // lazy(1, 0)).numpy()", ZeroDivisionError, "zero"),
  ("picograd.tensor([1, 2], requires_grad=True)", RuntimeError, "int64"),
  ("picograd.tensor([1.0], requires_grad=True).add_(1)", RuntimeError, "in-place"),
  ("ones(2).requires_grad_().backward()", RuntimeError, "[2]"),
  ("picograd.tensor([1.0]).to('foo').numpy()", ValueError, "FOO"),
  ("ones(2, 3).flatten(1, 0)", RuntimeError, "start_dim"),
  ("picograd.nn.functional.mse_loss(ones(2), ones(2), reduction='foo')", ValueError, "foo"),
  ("picograd.nn.functional.one_hot(picograd.tensor([3]), 2)", RuntimeError, "num_classes"),
]

@pytest.mark.parametrize("device", ["CPU", "NUMPY"])
@pytest.mark.parametrize("program, kind, mention", ERRORS, ids=[row[0] for row in ERRORS])
def test_one_sentence_and_the_process_goes_on(device, program, kind, mention):
  with DEVICE.set(device):
    with pytest.raises(kind) as caught: eval(program)
    message = str(caught.value)
    assert mention in message and "UOp" not in message and "Ops." not in message and "\n" not in message
    assert (picograd.tensor([1.0, 2.0, 3.0]) * 2).sum().item() == 12
