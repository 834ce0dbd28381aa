"""Shards as a data module: an order in which few of them are open, and what comes next is fetched ahead."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from dvsn.data.dataset import ImageDataset, Joined
from dvsn.data.mixes import SampleMix
from dvsn.data.module import DataModule, EvalBatches, Key, TrainBatches, log
from dvsn.data.sharded import Sharded
from dvsn.errors import ConfigError
from dvsn.shards.cache import Ahead
from dvsn.shards.index import File
from dvsn.shards.order import order, visits
from dvsn.shards.source import CACHE_MB, Lost, Source


class ShardsModule(DataModule):
    """A `DataModule` over shards, which `python -m dvsn.data shard` has written.

    - `cache`, `cache_mb`, `lost`, `verify`: see `dvsn.shards.source.Source`.
    - `window_mb`: MiB of shards among whose samples an epoch's order chooses at a time (`dvsn.shards.order`).
    - `prefetch_mb`: MiB of shards that are fetched before they are wanted; 0: none.

    The order of an epoch follows from (seed, epoch, processes). A run that is resumed with another number of processes ends
    the epoch in the order that it began with.
    """

    def __init__(
        self,
        *,
        cache: str | None = None,
        cache_mb: int = CACHE_MB,
        window_mb: int = 256,
        prefetch_mb: int = 256,
        lost: Lost = "refuse",
        verify: bool = False,
        **options: Any,
    ) -> None:
        for name, value, least in (("window_mb", window_mb, 1), ("prefetch_mb", prefetch_mb, 0)):
            if type(value) is not int or value < least:
                raise ConfigError(
                    f"data.{name}: found {value!r}, expected a whole number of MiB, {least} or more."
                )
        self.source = Source(options["root"], cache=cache, cache_mb=cache_mb, lost=lost, verify=verify)
        for kind in ("dataset", "people"):
            if callable(options.get(kind)):
                options[kind] = functools.partial(options[kind], source=self.source)
        super().__init__(**options)
        self.window, self.prefetch = window_mb << 20, prefetch_mb << 20
        self.aheads: list[Ahead] = []
        self.began: Key | None = None  # an epoch, and the number of processes that it began with

    def setup(self, stage: str) -> None:
        super().setup(stage)
        if self.source.cache is None:
            return
        processes = getattr(self.trainer, "num_devices", 1) if self.trainer else 1
        bytes_of = [bytes_of_shards(each) for each in self.datasets.values()]
        largest = max((int(each.max(initial=0)) for each in bytes_of), default=0)
        least = processes * (max(self.window, largest) + self.prefetch) + largest
        everything = sum(int(each.sum()) for each in bytes_of)
        if self.source.cache_bytes < min(least, everything):
            raise ConfigError(
                f"data.cache_mb: found {self.source.cache_bytes >> 20}, and {processes} processes on this machine with "
                f"data.window_mb={self.window >> 20}, data.prefetch_mb={self.prefetch >> 20} and shards of up to "
                f"{largest >> 20} MiB would fetch the same shards again and again. Set data.cache_mb={(least >> 20) + 1} or "
                "more, or smaller ones of the others."
            )
        random = {
            "sampler": self.sampler is not None,
            "mix": isinstance(self.mix, SampleMix),
            "data.more": bool(self.more),
        }
        if stage == "fit" and any(random.values()) and self.source.cache_bytes < everything:
            log.warning(
                "%s: chooses among all shards at random, and data.cache_mb=%d holds a part of their %d MiB: shards are "
                "fetched again and again", ", ".join(name for name in random if random[name]),
                self.source.cache_bytes >> 20, everything >> 20,
            )  # fmt: skip

    def teardown(self, stage: str) -> None:
        for each in self.aheads:
            each.close()
        self.aheads.clear()
        super().teardown(stage)

    def _train_batches(self, chosen: Callable[[int], np.ndarray] | None, **options: Any) -> TrainBatches:
        shards = shards_of(self.datasets["train"])
        if shards is None:
            return super()._train_batches(chosen, **options)
        if chosen is None:
            chosen = functools.partial(self._order, shards[: options["size"]])
        batches = ShardBatches(order=chosen, **options)
        batches.coming = self._coming("train", shards)
        return batches

    def _order(self, shards: np.ndarray, epoch: int) -> np.ndarray:
        assert self.trainer is not None
        world = self.trainer.world_size
        if self._world is not None and self._world[0] == epoch:
            world = self._world[1]
        self.began = epoch, world
        sizes = bytes_of_shards(self.datasets["train"])
        return order(shards, sizes, seed=self.seed, epoch=epoch, world=world, window=self.window)

    _world: Key | None = None
    """Of a resumed run: an epoch, and the number of processes by whose order it goes on."""

    def _eval_batches(self, split: str, **options: Any) -> EvalBatches:
        batches, shards = ShardEvalBatches(**options), shards_of(self.datasets[split])
        if shards is not None:
            batches.coming = self._coming(split, shards)
        return batches

    def _coming(self, split: str, shards: np.ndarray) -> Coming | None:
        if self.source.cache is None or not self.prefetch:
            return None
        self.aheads.append(Ahead(self.source.cache, self.source.storage, self.prefetch))
        return Coming(self.aheads[-1], shards, shard_files(self.datasets[split]))

    def state_dict(self) -> dict[str, Any]:
        found, epoch = super().state_dict(), self.position[0]
        return {**found, "world": self.began[1]} if self.began and self.began[0] == epoch else found

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        if "world" in state:
            self._world = int(state["epoch"]), int(state["world"])


class Coming(NamedTuple):
    """Which shards the samples of a data set are read from, and who fetches them ahead."""

    ahead: Ahead
    shard_of: np.ndarray
    files: list[File]
    """By the number in `shard_of`."""

    def told(self, samples: np.ndarray, batches: Iterator[list[Key]]) -> Iterator[list[Key]]:
        """The batches of these samples (n,), which are read in this order, and `ahead` told of where they are."""
        self.ahead.tell([(place, self.files[shard]) for place, shard in visits(self.shard_of[samples])])
        place = -1
        for batch in batches:
            place += len(batch)
            self.ahead.at(place)
            yield batch


class ShardBatches(TrainBatches):
    """`TrainBatches` that say which shards come next."""

    coming: Coming | None = None

    def batches(self, epoch: int, order: np.ndarray, first: int) -> Iterator[list[Key]]:
        found = super().batches(epoch, order, first)
        own = order[first * self.batch_size :][self.rank :: self.world]
        return found if self.coming is None else self.coming.told(own, found)


class ShardEvalBatches(EvalBatches):
    """`EvalBatches` likewise."""

    coming: Coming | None = None

    def __iter__(self) -> Iterator[list[Key]]:
        found = super().__iter__()
        return found if self.coming is None else self.coming.told(np.asarray(self.indices, int), found)


def parts_of(dataset: ImageDataset) -> list[tuple[Sharded, Any]] | None:
    """The sharded data sets that one is made of, with the items of each; None where it has others."""
    if isinstance(dataset, Sharded):
        return [(dataset, range(len(dataset)))]
    if not isinstance(dataset, Joined) or not all(isinstance(part, Sharded) for part in dataset.parts):
        return None
    return list(zip(dataset.parts, dataset.places, strict=True))  # type: ignore[arg-type]


def shards_of(dataset: ImageDataset) -> np.ndarray | None:
    """(N,) the shard of each sample, numbered through all parts; None where others are among them."""
    parts = parts_of(dataset)
    if parts is None or len({part.opened.storage.url for part, _ in parts}) > 1:
        return None
    first, found = 0, []
    for part, places in parts:
        found.append(part.shard_of[np.asarray(places, int)] + first)
        first += len(part.opened.split.shards)
    return np.concatenate(found).astype(np.int64)


def shard_files(dataset: ImageDataset) -> list[File]:
    """The shards by the numbers of `shards_of`."""
    return [file for part, _ in parts_of(dataset) or () for file in part.opened.split.shards]


def bytes_of_shards(dataset: ImageDataset) -> np.ndarray:
    return np.array([file.bytes for file in shard_files(dataset)], np.int64)
