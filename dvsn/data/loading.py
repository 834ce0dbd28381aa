"""How long batches take: to make, in a worker or without one, and to wait for."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

Join = Callable[[list[Any]], Any]


class Work(NamedTuple):
    """What the makers of batches have done so far, all together."""

    batches: float = 0.0
    seconds: float = 0.0
    processor_seconds: float = 0.0

    def since(self, earlier: Work) -> Work:
        """What was done after `earlier`."""
        return Work(*(now - before for now, before in zip(self, earlier, strict=True)))


class Clocked(Dataset[Any]):
    """A data set whose batches are made under a clock: its samples are read and, by `collate`, joined.

    The sums lie in memory that all workers share. What it costs to hand a batch over to the main process is not in them.
    """

    def __init__(self, dataset: Any, join: Join, *, workers: int) -> None:
        self.dataset, self.join = dataset, join
        self._sums = torch.zeros(max(1, workers), len(Work._fields), dtype=torch.float64)  # a row a worker
        if workers:
            self._sums.share_memory_()
        self._began = 0.0, 0.0

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: Any) -> Any:
        return self.dataset[key]

    def __getitems__(self, keys: Sequence[Any]) -> list[Any]:
        """The samples of one batch, as torch asks for them."""
        self._began = time.perf_counter(), time.process_time()
        return [self.dataset[key] for key in keys]

    def collate(self, samples: list[Any]) -> Any:
        """The samples as a batch."""
        batch = self.join(samples)
        seconds, processor = self._began
        spent = Work(1.0, time.perf_counter() - seconds, time.process_time() - processor)
        worker = get_worker_info()
        self._sums[0 if worker is None else worker.id] += torch.tensor(spent, dtype=torch.float64)
        return batch

    def work(self) -> Work:
        return Work(*self._sums.sum(dim=0).tolist())


class Loader(DataLoader[Any]):
    """A DataLoader that knows how long it was waited for, and what its workers have done. `dataset` is `Clocked`."""

    waited = 0.0
    """Seconds that whoever iterates has waited for batches."""

    def __iter__(self) -> Any:
        began = time.perf_counter()
        batches = super().__iter__()
        self.waited += time.perf_counter() - began
        return Waiting(self, batches)

    @property
    def work(self) -> Work:
        found: Work = self.dataset.work()  # type: ignore[attr-defined]
        return found


class Waiting(Iterator[Any]):
    """The batches of a loader; the time of each wait is added to it."""

    def __init__(self, loader: Loader, batches: Iterator[Any]) -> None:
        self.loader, self.batches = loader, batches

    def __next__(self) -> Any:
        began = time.perf_counter()
        try:
            return next(self.batches)
        finally:
            self.loader.waited += time.perf_counter() - began
