# Distributions against torch: log_prob with gradients, entropy, and the moments of samples.
import numpy as np
import pytest
import picograd

torch = pytest.importorskip("torch")
CASES = {  # name -> (parameters, values)
  "Normal": ({"loc": [[0.5], [1.0]], "scale": [1.0, 2.0]}, [[0.1, 2.0], [3.0, -1.0]]),
  "Uniform": ({"low": [0.0, 1.0], "high": [2.0, 4.0]}, [0.5, 3.5]),
  "Bernoulli": ({"probs": [0.2, 0.7]}, [1.0, 0.0]),
  "Categorical": ({"probs": [[1.0, 2.0, 3.0], [3.0, 1.0, 1.0]]}, [2, 0]),
}

def both(name, parameters):
  made = []
  for module in (picograd, torch):
    tensors = {key: module.tensor(value, requires_grad=True) for key, value in parameters.items()}
    made.append((getattr(module.distributions, name)(**tensors), tensors))
  return made

@pytest.mark.parametrize("name", CASES)
def test_log_prob_and_entropy(name):
  parameters, values = CASES[name]
  (ours, a), (theirs, b) = both(name, parameters)
  out, expected = ours.log_prob(picograd.tensor(values)), theirs.log_prob(torch.tensor(values))
  np.testing.assert_allclose(out.detach().numpy(), expected.detach().numpy(), rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(ours.entropy().detach().numpy(), theirs.entropy().detach().numpy(), rtol=1e-4, atol=1e-5)
  out.sum().backward()
  expected.sum().backward()
  for key in parameters: np.testing.assert_allclose(a[key].grad.numpy(), b[key].grad.numpy(), rtol=1e-3, atol=1e-4)

@pytest.mark.parametrize("name", ["Bernoulli", "Categorical"])
def test_logits(name):
  (ours, _), (theirs, _) = both(name, {"logits": [0.3, -1.0, 2.0]})
  np.testing.assert_allclose(ours.probs.detach().numpy(), theirs.probs.detach().numpy(), rtol=1e-5)
  with pytest.raises(ValueError, match="not both"): getattr(picograd.distributions, name)()

@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("name", ["Bernoulli", "Categorical"])
def test_logits_of_certainty(name, dtype):
  """How near to 0 and 1 a probability may be is the dtype's business."""
  ours, theirs = [getattr(m.distributions, name)(m.tensor([0.0, 1.0], dtype=getattr(m, dtype))).logits
                  for m in (picograd, torch)]
  np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-3, atol=1e-3)

@pytest.mark.parametrize("name", CASES)
def test_samples(name):
  picograd.manual_seed(0)
  (ours, _), (theirs, _) = both(name, CASES[name][0])
  x, y = ours.sample((2000,)), theirs.sample((2000,))
  assert tuple(x.shape) == tuple(y.shape) and not x.requires_grad
  np.testing.assert_allclose(x.float().mean(0).numpy(), y.float().mean(0).numpy(), atol=0.2)
  assert tuple(ours.sample().shape) == tuple(theirs.sample().shape)
