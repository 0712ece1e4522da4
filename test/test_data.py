# Datasets, samplers and batches.
import numpy as np
import pytest
import picograd
from picograd.utils.data import DataLoader, Dataset, RandomSampler, Subset, TensorDataset, random_split

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
