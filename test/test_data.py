# Datasets, samplers and batches.
import numpy as np
import pytest
import picograd
from picograd.utils.data import DataLoader, Dataset, RandomSampler, Subset, TensorDataset, get_worker_info
from picograd.utils.data import random_split

class Squares(Dataset):
  """Sample i is (i, {"square": i*i, "name": its digits})."""
  def __len__(self): return 7
  def __getitem__(self, i): return picograd.tensor(float(i)), {"square": i * i, "name": str(i)}

def pairs(n): return TensorDataset(picograd.arange(n).float(), picograd.arange(n) * 2)

def test_tensor_batches_in_order():
  batches = list(DataLoader(pairs(7), batch_size=3))
  assert [x.tolist() for x, _ in batches] == [[0, 1, 2], [3, 4, 5], [6]]
  assert batches[0][1].tolist() == [0, 2, 4] and len(DataLoader(pairs(7), 3)) == 3
  assert len(DataLoader(pairs(7), 3, drop_last=True)) == len(list(DataLoader(pairs(7), 3, drop_last=True))) == 2

def test_shuffle_sees_every_sample_in_a_new_order():
  loader = DataLoader(pairs(20), batch_size=6, shuffle=True, generator=picograd.Generator().manual_seed(1))
  epochs = [sum((x.tolist() for x, _ in loader), []) for _ in range(2)]
  assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(20)) and epochs[0] != epochs[1]
  assert all((y == x * 2).all().item() for x, y in loader)

def test_samples_are_collated_by_part():
  x, parts = next(iter(DataLoader(Squares(), batch_size=3)))
  assert x.tolist() == [0, 1, 2] and parts["square"].tolist() == [0, 1, 4] and parts["name"] == ["0", "1", "2"]
  assert next(iter(DataLoader(Squares(), 2, collate_fn=len))) == 2
  rows = [np.full(2, i, np.float32) for i in range(4)]
  assert next(iter(DataLoader(rows, 2))).tolist() == [[0, 0], [1, 1]]

def test_random_split():
  parts = random_split(pairs(10), [0.75, 0.25], picograd.Generator().manual_seed(0))
  assert [len(p) for p in parts] == [8, 2] and isinstance(parts[0], Subset)
  assert sorted(p[i][0].item() for p in parts for i in range(len(p))) == list(range(10))
  assert [len(p) for p in random_split(range(10), [3, 7])] == [3, 7]
  with pytest.raises(ValueError, match="does not equal the length"): random_split(range(10), [3, 6])

def test_random_sampler():
  assert len(list(RandomSampler(range(3), num_samples=8))) == 8
  drawn = list(RandomSampler(range(3), replacement=True, num_samples=50))
  assert set(drawn) == {0, 1, 2} and len(drawn) == 50

def test_errors():
  with pytest.raises(ValueError, match="Size mismatch"): TensorDataset(picograd.ones(2), picograd.ones(3))
  with pytest.raises(ValueError, match="positive"): DataLoader(pairs(3), 0)
  with pytest.raises(ValueError, match="mutually exclusive"): DataLoader(pairs(3), sampler=[0], shuffle=True)

class Pairs(Dataset):
  def __len__(self): return 10
  def __getitem__(self, i):
    if i == 99: raise KeyError("no such sample")
    return picograd.tensor([i, i * i]), i

def parts(loader): return [(x.tolist(), y.tolist()) for x, y in loader]

def test_workers_make_the_same_batches_in_the_same_order():
  picograd.manual_seed(0)
  alone = parts(DataLoader(Pairs(), batch_size=3))
  assert parts(DataLoader(Pairs(), batch_size=3, num_workers=2)) == alone
  ordered = [parts(DataLoader(Pairs(), batch_size=4, shuffle=True, num_workers=n, drop_last=True,
                                   generator=picograd.Generator().manual_seed(5))) for n in (0, 2)]
  assert ordered[0] == ordered[1] and len(ordered[0]) == 2

def who(samples): return get_worker_info().id, picograd.rand(2).tolist()

def test_workers_know_who_they_are_and_draw_differently():
  told = list(DataLoader(Pairs(), num_workers=2, collate_fn=who))
  by_worker = {}
  for number, numbers in told: by_worker.setdefault(number, []).append(numbers)
  draws = [n for each in by_worker.values() for n in each]
  assert set(by_worker) <= {0, 1} and len({tuple(d) for d in draws}) == len(draws)
  assert get_worker_info() is None

def test_an_error_in_a_worker_is_raised_here():
  loader = DataLoader(Pairs(), sampler=[1, 99, 2], num_workers=1)
  batches = iter(loader)
  assert next(batches)[1].tolist() == [1]
  with pytest.raises(KeyError, match="no such sample"): list(batches)
  stopped = iter(DataLoader(Pairs(), num_workers=2))
  next(stopped)
  stopped.close()                                                      # workers end with it
