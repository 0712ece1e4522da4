# data.py: torch.utils.data: datasets, samplers and a loader that makes batches, in this process or in others.
from __future__ import annotations
import multiprocessing, random
from collections import deque
from concurrent import futures
from typing import Any, Callable, Iterable, Iterator, Mapping, NamedTuple, Sequence
import numpy as np
from picograd.helpers import ceildiv
from picograd.random import Generator, default_generator, manual_seed, randint, randperm
from picograd.library import Tensor, stack, tensor

class Dataset:
  """A sequence of samples: a subclass defines __getitem__ and __len__."""
  def __getitem__(self, index: Any) -> Any: raise NotImplementedError(f"{type(self).__name__} has no __getitem__")
  def __len__(self) -> int: raise NotImplementedError(f"{type(self).__name__} has no __len__")

class TensorDataset(Dataset):
  """Sample i is the tuple of the tensors' rows i."""
  def __init__(self, *tensors: Tensor):
    if any(t.shape[0] != tensors[0].shape[0] for t in tensors): raise ValueError("Size mismatch between tensors")
    self.tensors = tensors
  def __getitem__(self, index: Any) -> tuple[Tensor, ...]: return tuple(t[index] for t in self.tensors)
  def __len__(self) -> int: return self.tensors[0].shape[0]

class Subset(Dataset):
  """The samples of a dataset at some indices."""
  def __init__(self, dataset: Any, indices: Sequence[int]): self.dataset, self.indices = dataset, indices
  def __getitem__(self, index: int) -> Any: return self.dataset[self.indices[index]]
  def __len__(self) -> int: return len(self.indices)

def random_split(dataset: Any, lengths: Sequence[int | float], generator: Generator | None = None) -> list[Subset]:
  """Disjoint random subsets of these lengths, or fractions that sum to 1. ValueError where they do not sum up."""
  sizes = [int(n) for n in lengths]
  if abs(sum(lengths) - 1) < 1e-6 and any(isinstance(n, float) for n in lengths):
    sizes = [int(len(dataset) * fraction) for fraction in lengths]
    for i in range(len(dataset) - sum(sizes)): sizes[i % len(sizes)] += 1
  if sum(sizes) != len(dataset):
    raise ValueError("Sum of input lengths does not equal the length of the input dataset!")
  order = randperm(len(dataset), generator=generator)
  return [Subset(dataset, part.tolist()) for part in order.split(sizes)]

class SequentialSampler:
  """0 .. n-1 in order."""
  def __init__(self, data_source: Any): self.data_source = data_source
  def __iter__(self) -> Iterator[int]: return iter(range(len(self.data_source)))
  def __len__(self) -> int: return len(self.data_source)

class RandomSampler:
  """Indices in random order, with replacement num_samples independent ones."""
  def __init__(self, data_source: Any, replacement: bool = False, num_samples: int | None = None,
               generator: Generator | None = None):
    self.data_source, self.replacement, self.generator = data_source, replacement, generator
    self.num_samples = len(data_source) if num_samples is None else num_samples
  def __iter__(self) -> Iterator[int]:
    n = len(self.data_source)
    if self.replacement:
      yield from randint(0, n, (self.num_samples,), generator=self.generator).tolist()
      return
    for start in range(0, self.num_samples, n):
      yield from randperm(n, generator=self.generator).tolist()[:self.num_samples - start]
  def __len__(self) -> int: return self.num_samples

def default_collate(samples: Sequence[Any]) -> Any:
  """Samples as one batch: tensors are stacked, numbers become a tensor, tuples and dicts are collated part by part."""
  first = samples[0]
  if isinstance(first, Tensor): return stack(list(samples))
  if isinstance(first, (np.ndarray, np.generic)): return tensor(np.stack(list(samples)))
  if isinstance(first, (bool, int, float)): return tensor(list(samples))
  if isinstance(first, Mapping): return {key: default_collate([s[key] for s in samples]) for key in first}
  if isinstance(first, (tuple, list)): return [default_collate(part) for part in zip(*samples)]
  return list(samples)

class DataLoader:
  """Batches of a dataset in the order of a sampler. With num_workers so many processes make batches ahead,
  prefetch_factor each: the batches are the same, and so is their order. pin_memory and persistent_workers are accepted
  without effect."""
  def __init__(self, dataset: Any, batch_size: int = 1, shuffle: bool = False, sampler: Iterable[int] | None = None,
               num_workers: int = 0, collate_fn: Callable[[Sequence[Any]], Any] | None = None, pin_memory: bool = False,
               drop_last: bool = False, generator: Generator | None = None, prefetch_factor: int | None = None,
               worker_init_fn: Callable[[int], None] | None = None, persistent_workers: bool = False):
    if batch_size < 1: raise ValueError(f"batch_size should be a positive integer value, but got {batch_size}")
    if sampler is not None and shuffle: raise ValueError("sampler option is mutually exclusive with shuffle")
    if num_workers < 0: raise ValueError(f"num_workers option should be non-negative, but got {num_workers}")
    ordered = RandomSampler(dataset, generator=generator) if shuffle else SequentialSampler(dataset)
    self.dataset, self.batch_size, self.drop_last, self.collate_fn = dataset, batch_size, drop_last, collate_fn
    self.num_workers, self.prefetch_factor, self.worker_init_fn = num_workers, prefetch_factor or 2, worker_init_fn
    self.sampler: Any = ordered if sampler is None else sampler

  def __len__(self) -> int:
    return len(self.sampler) // self.batch_size if self.drop_last else ceildiv(len(self.sampler), self.batch_size)

  def __iter__(self) -> Iterator[Any]:
    return made_by_workers(self) if self.num_workers else map(self.batch, self.batches())

  def batches(self) -> Iterator[list[int]]:
    """The indices of each batch."""
    indices: list[int] = []
    for i in self.sampler:
      indices.append(i)
      if len(indices) == self.batch_size:
        yield indices
        indices = []
    if indices and not self.drop_last: yield indices

  def batch(self, indices: Sequence[int]) -> Any:
    """The samples at the indices; rows of tensors are taken all at once."""
    if self.collate_fn is None and isinstance(self.dataset, TensorDataset): return list(self.dataset[tensor(indices)])
    samples = [self.dataset[i] for i in indices]
    return default_collate(samples) if self.collate_fn is None else self.collate_fn(samples)

# ---- workers ---------------------------------------------------------------------------------------------------------

class WorkerInfo(NamedTuple):
  """What a worker is: number id of num_workers, with random numbers of its own seed."""
  id: int
  num_workers: int
  seed: int
  dataset: Any

class Worker:
  """The worker that this process is; None in every other process."""
  info: WorkerInfo | None = None
  loader: DataLoader | None = None
def get_worker_info() -> WorkerInfo | None: return Worker.info

def made_by_workers(loader: DataLoader) -> Iterator[Any]:
  """The loader's batches, in order. An error in a worker is raised here. Workers are forked where the system can: the
  dataset need not be pickled then."""
  method = "fork" if "fork" in multiprocessing.get_all_start_methods() else None
  context = multiprocessing.get_context(method)
  seed = default_generator.initial_seed() + default_generator.draws
  pool = futures.ProcessPoolExecutor(loader.num_workers, context, start_worker, (loader, seed, context.Value("i", 0)))
  waiting: deque[futures.Future] = deque()
  try:
    for indices in loader.batches():
      waiting.append(pool.submit(work, indices))
      if len(waiting) > loader.num_workers * loader.prefetch_factor: yield waiting.popleft().result()
    while waiting: yield waiting.popleft().result()
  finally: pool.shutdown(cancel_futures=True)

def start_worker(loader: DataLoader, seed: int, counter: Any) -> None:
  """The first thing that a worker does."""
  with counter.get_lock(): number, counter.value = counter.value, counter.value + 1
  Worker.info, Worker.loader = WorkerInfo(number, loader.num_workers, seed + number, loader.dataset), loader
  manual_seed((seed + number) % (1 << 63))
  random.seed(seed + number)
  if loader.worker_init_fn is not None: loader.worker_init_fn(number)

def work(indices: Sequence[int]) -> Any:
  assert Worker.loader is not None, "only workers work"
  return Worker.loader.batch(indices)
