"""Which samples an epoch holds, and in which order: weighted, balanced by class, repeated, hard ones more often.

A sampler tells the order of an epoch from (seed, epoch), from what the labels hold, and, where it learns from the losses,
from those of the epochs before. So runs repeat, and a resumed run sees what the unbroken one saw.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch

from dvsn.data.dataset import ImageDataset
from dvsn.data.holdings import Holdings
from dvsn.errors import CheckpointError, ConfigError, nearest

log = logging.getLogger("dvsn")
Numbers = np.ndarray


class Sampler:
    """Base of all samplers. `samples`: how many an epoch has; null: as many as the training split."""

    reads_losses: ClassVar[bool] = False
    """Whether it must be told the loss of each sample."""

    def __init__(self, *, samples: int | None = None) -> None:
        if samples is not None and samples < 1:
            raise ConfigError(f"sampler.samples: found {samples}, expected 1 or more, or null.")
        self.samples = samples
        self.size = 0

    def prepare(self, dataset: ImageDataset, size: int, holdings: Holdings) -> None:
        """Look at the first `size` items of the training split; `holdings` tells which classes they hold. Raises
        `ConfigError` where the data set does not have what is asked for."""
        self.size = size

    @property
    def length(self) -> int:
        """The samples of an epoch."""
        return self.samples or self.size

    def order(self, epoch: int, seed: int) -> Numbers:
        """The items of an epoch (length,) in their order."""
        raise NotImplementedError

    def observe(self, items: Sequence[int], losses: Sequence[float]) -> None:
        """The losses of a batch, of all processes."""

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from the state of a checkpoint."""


def draw(seed: int, epoch: int) -> np.random.Generator:
    return np.random.default_rng([seed, epoch])


def by_chance(random: np.random.Generator, shares: Numbers, count: int) -> Numbers:
    """`count` items with replacement, each with its share (N,) of the chance."""
    return random.choice(len(shares), size=count, p=shares / shares.sum())


class Weighted(Sampler):
    """Items drawn with replacement, with a chance in proportion to a weight.

    `weights` names classes, each with its weight, 1 for those that are not named. An item has the highest weight of the
    classes that it holds; one that holds none has 1.
    """

    def __init__(self, *, weights: dict[str, float] | None = None, samples: int | None = None) -> None:
        super().__init__(samples=samples)
        weights = weights or {}
        for name, weight in weights.items():
            if not (isinstance(weight, int | float) and math.isfinite(weight) and weight >= 0):
                raise ConfigError(f"sampler.weights.{name}: found {weight!r}, expected a number, 0 or more.")
        self.weights = dict(weights)
        self.shares: Numbers = np.zeros(0)

    def prepare(self, dataset: ImageDataset, size: int, holdings: Holdings) -> None:
        super().prepare(dataset, size, holdings)
        if not self.weights:
            raise ConfigError(
                f"sampler.weights: not given. Set 'sampler.weights={{{holdings.names[0]}: 2}}' or others of "
                f"{', '.join(holdings.names[:8])}."
            )
        for name in self.weights:
            if str(name) not in holdings.names:
                raise ConfigError(
                    f"sampler.weights.{name}: the data set has no such class. {nearest(str(name), holdings.names)}"
                )
        weight = np.ones(len(holdings.names))
        for name, value in self.weights.items():
            weight[holdings.names.index(str(name))] = value
        held = holdings.table(size)
        best = np.where(held, weight, -1.0).max(axis=1, initial=-1.0)
        self.shares = np.where(best < 0, 1.0, best)
        if not self.shares.any():
            raise ConfigError("sampler.weights: every sample of the training split has the weight 0.")

    def order(self, epoch: int, seed: int) -> Numbers:
        return by_chance(draw(seed, epoch), self.shares, self.length)


class ClassBalanced(Sampler):
    """Class-aware sampling: every class equally often, and of a class every item equally often (Shen, Lin and Huang, 2016,
    arXiv:1512.05830, section 3.2).

    A list of the classes and a list of each class's items are shuffled and gone through, and shuffled anew at their ends.
    An item that holds several classes is in the lists of all of them; one that holds none is not drawn.
    """

    def __init__(self, *, samples: int | None = None) -> None:
        super().__init__(samples=samples)
        self.members: list[Numbers] = []

    def prepare(self, dataset: ImageDataset, size: int, holdings: Holdings) -> None:
        super().prepare(dataset, size, holdings)
        held = holdings.table(size)
        self.members = [items for items in map(np.flatnonzero, held.T) if len(items)]
        if not self.members:
            raise ConfigError("sampler: no sample of the training split holds a class to balance.")

    def order(self, epoch: int, seed: int) -> Numbers:
        random, kinds = draw(seed, epoch), len(self.members)
        classes = cycled(random, np.arange(kinds), self.length)
        found = np.empty(self.length, np.int64)
        for kind, items in enumerate(self.members):
            places = np.flatnonzero(classes == kind)
            found[places] = cycled(random, items, len(places))
        return found


def cycled(random: np.random.Generator, items: Numbers, count: int) -> Numbers:
    """`count` of the items: all of them in a random order, again and again."""
    rounds = [random.permutation(items) for _ in range(-(-count // len(items)))]
    return np.concatenate([*rounds, items[:0]])[:count]


class RepeatFactor(Sampler):
    """Repeat factor sampling: items that hold a rare class come several times an epoch (Gupta, Dollar and Girshick, 2019,
    LVIS, arXiv:1908.03195, section 4.2 and appendix B).

    With f(c) the share of the items that hold the class c, r(c) = max(1, sqrt(threshold / f(c))), and an item is repeated
    by the highest r of its classes; the fraction of it is rounded up or down by chance in each epoch. Unlike there every
    epoch has as many samples, the sum of the factors (or `samples`): what chance has left over is cut off or drawn again.
    """

    def __init__(self, *, threshold: float = 0.001, samples: int | None = None) -> None:
        super().__init__(samples=samples)
        if not 0 < threshold <= 1:
            raise ConfigError(f"sampler.threshold: found {threshold}, expected a share above 0, up to 1.")
        self.threshold = threshold
        self.factors: Numbers = np.zeros(0)

    def prepare(self, dataset: ImageDataset, size: int, holdings: Holdings) -> None:
        super().prepare(dataset, size, holdings)
        held = holdings.table(size)
        share = held.mean(axis=0)
        rarity = np.sqrt(self.threshold / np.where(share > 0, share, 1.0))
        self.factors = np.where(held, rarity, 1.0).max(axis=1, initial=1.0)

    @property
    def length(self) -> int:
        return self.samples or round(float(self.factors.sum()))

    def order(self, epoch: int, seed: int) -> Numbers:
        random, found = draw(seed, epoch), np.empty(0, np.int64)
        while len(found) < self.length:
            whole = np.floor(self.factors)
            counts = whole + (random.random(self.size) < self.factors - whole)
            repeated = np.repeat(np.arange(self.size), counts.astype(np.int64))
            found = np.concatenate([found, random.permutation(repeated)])
        return found[: self.length]


class Hard(Sampler):
    """Hard examples by their last loss: online batch selection (Loshchilov and Hutter, 2016, arXiv:1511.06343, eq. 3).

    Items are ranked by the loss that they had when they were trained on last, the highest first, and drawn with replacement;
    the chance falls exponentially with the rank, so that the first is `pressure` times as likely as the last. Items that had
    no turn yet come first. Unlike there the ranks are those of the epoch's start, and the pressure stays the same.

    The first `uniform_epochs` are plain permutations, in which every item gets its loss.
    """

    reads_losses: ClassVar[bool] = True

    def __init__(
        self, *, pressure: float = 100.0, uniform_epochs: int = 1, samples: int | None = None
    ) -> None:
        super().__init__(samples=samples)
        if not (math.isfinite(pressure) and pressure >= 1):
            raise ConfigError(f"sampler.pressure: found {pressure}, expected 1 or more.")
        if uniform_epochs < 0:
            raise ConfigError(f"sampler.uniform_epochs: found {uniform_epochs}, expected 0 or more.")
        self.pressure, self.uniform_epochs = float(pressure), uniform_epochs
        self.latest = np.zeros(0, np.float32)  # the last loss of each item; infinite before its first turn
        self.ranked_by = np.zeros(0, np.float32)  # the same when the current epoch began
        self.epoch = -1  # the epoch that `ranked_by` is of

    def prepare(self, dataset: ImageDataset, size: int, holdings: Holdings) -> None:
        super().prepare(dataset, size, holdings)
        if len(self.latest) != size:
            self.latest = np.full(size, np.inf, np.float32)
            self.ranked_by, self.epoch = self.latest.copy(), -1

    def order(self, epoch: int, seed: int) -> Numbers:
        if epoch != self.epoch:
            self.ranked_by, self.epoch = self.latest.copy(), epoch
        random = draw(seed, epoch)
        if epoch < self.uniform_epochs:
            return cycled(random, np.arange(self.size), self.length)
        ranked = np.argsort(-self.ranked_by, kind="stable")
        chances = np.exp(-np.log(self.pressure) * np.arange(self.size) / self.size)
        return ranked[by_chance(random, chances, self.length)]

    def observe(self, items: Sequence[int], losses: Sequence[float]) -> None:
        self.latest[np.asarray(items, np.int64)] = np.asarray(losses, np.float32)

    def state_dict(self) -> dict[str, Any]:
        tables = {"latest": self.latest, "ranked_by": self.ranked_by}
        return {
            "epoch": self.epoch,
            **{name: torch.from_numpy(table.copy()) for name, table in tables.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if self.size and len(state["latest"]) != self.size:
            raise CheckpointError(
                f"resume: the checkpoint has the losses of {len(state['latest'])} samples, the training split has "
                f"{self.size}. Train on the data of the run that is resumed."
            )
        self.epoch = int(state["epoch"])
        self.latest, self.ranked_by = (state[name].numpy().copy() for name in ("latest", "ranked_by"))
