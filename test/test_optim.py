# Optimizers and schedulers against torch: the parameters after each step, the rates, and what state dicts carry over.
import numpy as np
import pytest
import picograd
from picograd import optim
from picograd.helpers import Counters

torch = pytest.importorskip("torch")
rng = np.random.default_rng(0)

OPTIMIZERS = {
  "sgd": lambda o, p: o.SGD(p, lr=0.1),
  "momentum": lambda o, p: o.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.01, dampening=0.1),
  "nesterov": lambda o, p: o.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
  "adam": lambda o, p: o.Adam(p, lr=0.01, weight_decay=0.1),
  "adamw": lambda o, p: o.AdamW(p, lr=0.01),
  "groups": lambda o, p: o.AdamW([{"params": p[:1], "weight_decay": 0.0}, {"params": p[1:], "lr": 0.1}], lr=0.01,
                                 betas=(0.8, 0.9)),
}

def parameters(arrays):
  return [picograd.tensor(a, requires_grad=True) for a in arrays], [torch.tensor(a, requires_grad=True) for a in arrays]

def train(params, optimizer, slopes):
  optimizer.zero_grad()
  loss = sum((p * p * s).sum() for p, s in zip(params, slopes))
  loss.backward()
  optimizer.step()

def steps(optimizers, params, count):
  """Trains both sides on the same losses and compares the parameters after each step."""
  for _ in range(count):
    slopes = [rng.normal(size=p.shape).astype(np.float32) for p in params[0]]
    train(params[0], optimizers[0], [picograd.tensor(s) for s in slopes])
    train(params[1], optimizers[1], [torch.tensor(s) for s in slopes])
    for a, b in zip(*params): np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), atol=1e-5, rtol=1e-4)

@pytest.mark.parametrize("name", OPTIMIZERS)
def test_steps_equal_torch(name):
  params = parameters([rng.normal(size=(3, 4)).astype(np.float32), rng.normal(size=5).astype(np.float32)])
  optimizers = OPTIMIZERS[name](optim, params[0]), OPTIMIZERS[name](torch.optim, params[1])
  schedulers = [o.lr_scheduler.CosineAnnealingLR(x, 5) for o, x in zip((optim, torch.optim), optimizers)]
  for _ in range(3):
    steps(optimizers, params, 2)
    for s in schedulers: s.step()

@pytest.mark.parametrize("name", ["momentum", "adamw"])
def test_state_dict_resumes(name):
  params = parameters([rng.normal(size=(3, 4)).astype(np.float32)])
  optimizers = OPTIMIZERS[name](optim, params[0]), OPTIMIZERS[name](torch.optim, params[1])
  steps(optimizers, params, 2)
  saved = optimizers[0].state_dict()
  assert saved["param_groups"][0]["params"] == [0] and saved["state"][0]["step"] == 2
  copies = [p.detach().clone().requires_grad_() for p in params[0]]
  resumed = OPTIMIZERS[name](optim, copies)
  resumed.load_state_dict(saved)
  steps((resumed, optimizers[1]), (copies, params[1]), 2)

def test_muon():
  if not hasattr(torch.optim, "Muon"): pytest.skip("this torch has no Muon")
  for shape in ((4, 6), (6, 4)):
    params = parameters([rng.normal(size=shape).astype(np.float32)])
    optimizers = optim.Muon(params[0], lr=0.1), torch.optim.Muon(params[1], lr=0.1)
    for _ in range(3):
      slope = rng.normal(size=shape).astype(np.float32)
      train(params[0], optimizers[0], [picograd.tensor(slope)])
      train(params[1], optimizers[1], [torch.tensor(slope)])
    ours, theirs = params[0][0].detach().numpy(), params[1][0].detach().numpy()
    np.testing.assert_allclose(ours, theirs, atol=0.02)                                   # torch computes in bfloat16
  with pytest.raises(ValueError, match="only supports 2D"): optim.Muon([picograd.ones(3)])

def test_lamb():
  p, slope = rng.normal(size=5), rng.normal(size=5)
  ours = picograd.tensor(p.astype(np.float32), requires_grad=True)
  optimizer = optim.LAMB([ours], lr=0.1, weight_decay=0.01)
  m = v = np.zeros(5)
  for t in range(1, 4):
    train([ours], optimizer, [picograd.tensor(slope.astype(np.float32))])
    g = 2 * p * slope
    m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
    r = m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.999**t)) + 1e-6) + 0.01 * p
    p = p - 0.1 * np.linalg.norm(p) / np.linalg.norm(r) * r
    np.testing.assert_allclose(ours.detach().numpy(), p, rtol=1e-3, atol=1e-5)

def test_parameter_without_gradient_stays():
  a, b = picograd.ones(2, requires_grad=True), picograd.ones(2, requires_grad=True)
  optimizer = optim.AdamW([a, b], lr=0.1)
  a.sum().backward()
  optimizer.step()
  assert np.array_equal(b.detach().numpy(), [1, 1]) and b not in optimizer.state
  assert not np.array_equal(a.detach().numpy(), [1, 1])

def test_a_later_step_compiles_nothing():
  p = picograd.ones(8, requires_grad=True)
  optimizer = optim.AdamW([p], lr=0.1)
  compiled = []
  for step in range(6):
    optimizer.param_groups[0]["lr"] = 0.1 / (step + 1)
    train([p], optimizer, [picograd.ones(8)])
    p.detach().numpy()
    compiled.append(Counters.compiled)
  assert compiled[5] == compiled[3]

def test_unread_steps_do_not_pile_up():
  p = picograd.ones(8, requires_grad=True)
  optimizer = optim.AdamW([p], lr=0.1)
  sizes = []
  for _ in range(6):
    train([p], optimizer, [picograd.ones(8)])
    sizes.append(len(p.storage.uop.toposort()))
  assert max(sizes[3:]) <= max(sizes[:3])
  expected = torch.ones(8, requires_grad=True)
  reference = torch.optim.AdamW([expected], lr=0.1)
  for _ in range(6): train([expected], reference, [torch.ones(8)])
  np.testing.assert_allclose(p.detach().numpy(), expected.detach().numpy(), rtol=1e-5)

def test_closure_and_zero_grad():
  p = picograd.ones(2, requires_grad=True)
  optimizer = optim.SGD([p], lr=0.5)
  def closure():
    optimizer.zero_grad()
    loss = (p * p).sum()
    loss.backward()
    return loss
  assert optimizer.step(closure).item() == 2.0 and np.array_equal(p.detach().numpy(), [0, 0])
  optimizer.zero_grad(set_to_none=False)
  assert np.array_equal(p.grad.numpy(), [0, 0])

def test_errors():
  p = picograd.ones(2, requires_grad=True)
  with pytest.raises(ValueError, match="empty parameter list"): optim.SGD([])
  with pytest.raises(ValueError, match="Invalid learning rate: -1"): optim.SGD([p], lr=-1)
  with pytest.raises(ValueError, match="beta parameter at index 1: 2"): optim.Adam([p], betas=(0.9, 2))
  with pytest.raises(ValueError, match="Nesterov momentum requires"): optim.SGD([p], nesterov=True)
  with pytest.raises(TypeError, match="unexpected keyword argument 'beta'"): optim.AdamW([p], fused=True, beta=1)
  with pytest.raises(ValueError, match="non-leaf"): optim.SGD([p * 2])
  with pytest.raises(TypeError, match="one of the params is int"): optim.SGD([3])
  with pytest.raises(ValueError, match="more than one parameter group"): optim.SGD([{"params": [p]}, {"params": [p]}])

SCHEDULERS = {
  "lambda": lambda m, o: m.LambdaLR(o, lambda step: 0.9**step),
  "step": lambda m, o: m.StepLR(o, 3),
  "linear": lambda m, o: m.LinearLR(o, 0.2, total_iters=4),
  "cosine": lambda m, o: m.CosineAnnealingLR(o, 4, eta_min=0.01),
  "cycle": lambda m, o: m.OneCycleLR(o, 0.5, epochs=3, steps_per_epoch=4),
  "phases": lambda m, o: m.OneCycleLR(o, 0.5, total_steps=12, three_phase=True, anneal_strategy="linear"),
}

@pytest.mark.parametrize("name", SCHEDULERS)
def test_rates_equal_torch(name):
  ours = optim.SGD([picograd.ones(1)], lr=0.1, momentum=0.9)
  theirs = torch.optim.SGD([torch.ones(1)], lr=0.1, momentum=0.9)
  a, b = SCHEDULERS[name](optim.lr_scheduler, ours), SCHEDULERS[name](torch.optim.lr_scheduler, theirs)
  for _ in range(11):
    assert a.get_last_lr() == pytest.approx(b.get_last_lr())
    assert ours.param_groups[0]["momentum"] == pytest.approx(theirs.param_groups[0]["momentum"])
    theirs.step(), a.step(), b.step()

def test_cycle_ends():
  schedule = optim.lr_scheduler.OneCycleLR(optim.AdamW([picograd.ones(1)]), 0.5, total_steps=3)
  for _ in range(3): schedule.step()
  with pytest.raises(ValueError, match="total steps is 3"): schedule.step()
