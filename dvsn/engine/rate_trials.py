"""What a learning-rate search needs beside Lightning's: layers' own rates, losses that may explode, a curve that is read."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.utilities.types import LRSchedulerConfig
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from dvsn.tasks.finite import FiniteGuard

Numbers = Sequence[float]
FEWEST = 5
"""Steps that a mean or a slope is taken over, at least."""


class Ramp(LRScheduler):
    """A rate that rises from `low` to `high` in equal ratios over `steps`; each group of parameters has its multiple.

    Unlike Lightning's, which gives all groups one rate: `task.rates` and `task.head_factor` hold in the search too.
    """

    def __init__(self, optimizer: Optimizer, factors: Numbers, low: float, high: float, steps: int) -> None:
        self.factors, self.low, self.high, self.steps = list(factors), low, high, steps
        super().__init__(optimizer)

    @property
    def lr(self) -> list[float]:
        """The rate now."""
        return [self.low * (self.high / self.low) ** (self.last_epoch / max(1, self.steps - 1))]

    def get_lr(self) -> list[float | Tensor]:
        return [self.lr[0] * factor for factor in self.factors]


class Curve(Callback):
    """Writes down the rate and the loss of each optimiser step, and ends the search where the loss explodes.

    Lightning's own callback corrects its running mean as if it were one step older, so that the first losses come out at
    half of what they are, and the search ends too early or too late; it runs beside this one and is not read.
    """

    def __init__(self, ramp: Ramp, diverges: float | None) -> None:
        self.ramp, self.diverges = ramp, diverges
        self.rates: list[float] = []
        self.losses: list[float] = []
        self._rate = math.nan  # of the step that is under way
        self._window: list[float] = []

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if not self._window:
            self._rate = self.ramp.lr[0]

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._window.append(float(outputs["loss"]) if outputs else math.nan)
        if pl_module.window_open:
            return
        self.rates.append(self._rate)
        self.losses.append(sum(self._window))  # each is divided by the batches of its accumulation
        self._window.clear()
        few = self.losses[-FEWEST:]
        start = self.losses[:FEWEST]
        if (
            self.diverges
            and len(self.losses) > FEWEST
            and sum(few) / len(few) > self.diverges * sum(start) / len(start)
        ):
            trainer.should_stop = True


def take_over(trainer: pl.Trainer, factors: Numbers, node: Mapping[str, Any]) -> Curve:
    """Put a ramp with factors in the place of Lightning's, whose search is about to begin, and a curve beside its own."""
    first: Any = trainer.callbacks[0]  # type: ignore[attr-defined]
    first.progress_bar_refresh_rate = 0
    ramp = Ramp(trainer.optimizers[0], factors, node["lowest"], node["highest"], node["steps"])
    trainer.strategy.lr_scheduler_configs = [LRSchedulerConfig(ramp, interval="step")]
    curve = Curve(ramp, node["diverges"])
    trainer.callbacks.append(curve)  # type: ignore[attr-defined]
    return curve


@contextmanager
def factors_of(task: Any, factors: list[float]) -> Iterator[None]:
    """Within it `factors` is filled with the multiples of the optimiser's rate, a group each, when it is built."""
    configure = task.configure_optimizers

    def remembered() -> Any:
        found = configure()
        optimizer: Any = found["optimizer"]
        base = float(optimizer.defaults["lr"])
        factors[:] = [float(group["initial_lr"]) / base for group in optimizer.param_groups]
        return found

    task.configure_optimizers = remembered
    try:
        yield
    finally:
        del task.configure_optimizers


class Lenient(FiniteGuard):
    """Ends the search at a loss that is NaN or infinite, which rates that are too high lead to."""

    def __init__(self, trainer: pl.Trainer) -> None:
        super().__init__()
        self.trainer = trainer

    def watch(self, values: Mapping[str, Tensor], *, step: int, epoch: int) -> None:
        if not all(bool(torch.isfinite(value)) for value in values.values()):
            self.trainer.should_stop = True


def span(rates: Numbers) -> int:
    """Half the steps of a decade of the rate, at least `FEWEST // 2`: what a mean and a slope reach to either side."""
    decades = math.log10(rates[-1] / rates[0])
    return max(FEWEST // 2, round(0.5 * (len(rates) - 1) / decades)) if decades > 0 else FEWEST // 2


def smooth(rates: Numbers, losses: Numbers) -> list[float]:
    """The mean of the losses within a quarter of a decade to either side."""
    reach = max(1, span(rates) // 2)
    return [float(np.mean(losses[max(0, place - reach) : place + reach + 1])) for place in range(len(losses))]


def steepest(rates: Numbers, losses: Numbers) -> float | None:
    """The middle of the decade of rates over which the loss falls fastest, by the line of least squares through its losses.

    Looked for up to the lowest point of the smooth curve. None where no such line falls by more than twice the standard
    error of its slope. Unlike Lightning's suggestion, the slope is over the logarithm of the rate: over the rate itself a
    tiny fall at a tiny rate is the steepest.
    """
    if len(rates) < 2 * FEWEST:
        return None
    reach, places = span(rates), np.log10(np.asarray(rates, float))
    lowest = int(np.argmin(smooth(rates, losses)))
    best: tuple[float, float | None] = (0.0, None)
    for middle in range(reach, min(lowest, len(rates) - 1 - reach) + 1):
        x = places[middle - reach : middle + reach + 1]
        y = np.asarray(losses[middle - reach : middle + reach + 1], float)
        x = x - x.mean()
        slope = float((x * y).sum() / (x * x).sum())
        rest = y - y.mean() - slope * x
        error = math.sqrt(float((rest * rest).sum()) / (len(y) - 2) / float((x * x).sum()))
        if slope < -2 * error and slope < best[0]:
            best = slope, float(rates[middle])
    return best[1]
