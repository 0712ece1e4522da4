# test_amp.py: loss scaling: the steps are those without it, as long as nothing overflows.
import math
import pytest
import picograd as torch

def pair():
  torch.manual_seed(0)
  model = torch.nn.Linear(3, 2)
  return model, torch.optim.SGD(model.parameters(), lr=0.1)

def loss_of(model): return (model(torch.ones(4, 3)) ** 2).mean()

def test_scaled_steps_are_the_plain_ones():
  (plain, sgd), (scaled, optimizer) = pair(), pair()
  scaler = torch.amp.GradScaler(init_scale=1024.0, growth_interval=2)
  for i in range(4):
    sgd.zero_grad()
    loss_of(plain).backward()
    torch.nn.utils.clip_grad_norm_(plain.parameters(), 0.5)
    sgd.step()
    optimizer.zero_grad()
    scaler.scale(loss_of(scaled)).backward()
    scaler.unscale_(optimizer)
    torch.nn.utils.clip_grad_norm_(scaled.parameters(), 0.5)
    scaler.step(optimizer)
    scaler.update()
    assert scaler.get_scale() == (1024, 2048, 2048, 4096)[i]
  for p, q in zip(plain.parameters(), scaled.parameters()): assert torch.allclose(p, q, atol=1e-6)

@pytest.mark.parametrize("bad", [math.inf, math.nan])
def test_a_step_that_overflows_is_left_out(bad):
  model, optimizer = pair()
  before = model.weight.tolist()
  scaler = torch.amp.GradScaler(init_scale=8.0)
  scaler.scale(loss_of(model) * bad).backward()
  assert scaler.step(optimizer) is None
  scaler.update()
  assert model.weight.tolist() == before and scaler.get_scale() == 4.0
  other = torch.amp.GradScaler()
  other.load_state_dict(scaler.state_dict())
  assert other.get_scale() == 4.0

def test_small_gradients_of_float16_survive():
  """1e-6 times 1e-3 is below the smallest number of float16."""
  x = torch.tensor([1e-3], dtype=torch.float16, requires_grad=True)
  (x * x * 1e-6).sum().backward()
  assert x.grad.item() == 0
  x.grad = None
  scaler = torch.amp.GradScaler(init_scale=2.0 ** 15)
  optimizer = torch.optim.SGD([x], lr=0.0)
  scaler.scale((x * x * 1e-6).sum()).backward()
  assert abs(x.grad.float().item() / 2.0 ** 15 - 2e-9) < 1e-10
  scaler.step(optimizer)
  with pytest.raises(RuntimeError, match="already"): scaler.unscale_(optimizer)

def test_switched_off_it_does_nothing():
  model, optimizer = pair()
  scaler = torch.amp.GradScaler(enabled=False)
  loss = loss_of(model)
  assert scaler.scale(loss) is loss and scaler.get_scale() == 1.0 and scaler.state_dict() == {}
  loss.backward()
  scaler.step(optimizer)
  scaler.update()
  with pytest.raises(ValueError): torch.amp.GradScaler(growth_factor=1.0)
