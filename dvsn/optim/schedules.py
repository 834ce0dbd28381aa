"""Learning-rate schedules: the factor on the base rate, as a function of the optimiser step.

A schedule counts optimiser steps, not batches, so gradient accumulation does not change it. The factor depends on the
step alone, so a resumed run continues exactly.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from dvsn.errors import ConfigError


class Schedule:
    """The base: a constant factor of one after a linear warm-up.

    `warmup_steps` steps rise linearly from `warmup_factor` to what the schedule says at that step.
    """

    def __init__(self, *, warmup_steps: int = 0, warmup_factor: float = 0.001) -> None:
        if warmup_steps < 0 or not 0 <= warmup_factor <= 1:
            raise ConfigError(
                f"schedule: found warmup_steps={warmup_steps}, warmup_factor={warmup_factor}; expected at least 0, "
                "and between 0 and 1."
            )
        self.warmup_steps, self.warmup_factor = warmup_steps, warmup_factor

    needs_end: ClassVar[bool] = False
    """Whether the rule depends on how long the run is, so that an endless run cannot use it."""

    def factor(self, step: int, *, steps_per_epoch: int, total_steps: int) -> float:
        """The factor of optimiser step `step`, counted from 0, without warm-up."""
        return 1.0

    def attach(
        self,
        optimizer: Optimizer,
        *,
        steps_per_epoch: int,
        total_steps: int,
        initial_steps: int = 0,
        initial_factor: float = 1.0,
    ) -> LambdaLR:
        """A torch scheduler that is to be stepped after every optimiser step.

        The first `initial_steps` have a constant factor of their own, and the schedule starts after them.
        """
        rule = self._rule(steps_per_epoch=steps_per_epoch, total_steps=total_steps)
        if not initial_steps:
            return LambdaLR(optimizer, rule)
        return LambdaLR(
            optimizer, lambda step: rule(step - initial_steps) if step >= initial_steps else initial_factor
        )

    def _rule(self, *, steps_per_epoch: int, total_steps: int) -> Callable[[int], float]:
        def rule(step: int) -> float:
            factor = self.factor(step, steps_per_epoch=steps_per_epoch, total_steps=total_steps)
            if step < self.warmup_steps:
                progress = step / self.warmup_steps
                factor *= self.warmup_factor + (1 - self.warmup_factor) * progress
            return factor

        return rule


class Constant(Schedule):
    """The base rate throughout."""


class LinearDecay(Schedule):
    """Constant for `constant_epochs`, then linearly down over `decay_epochs`, changing once an epoch.

    The rule of the PyTorch reference of pix2pix: epoch k, counted from 1, has the factor
    1 - max(0, k + 1 - constant) / (decay + 1). So the first reduction comes in the last constant epoch,
    and the last of all epochs trains with exactly zero.
    """

    def __init__(self, *, constant_epochs: int = 100, decay_epochs: int = 100, **warmup: Any) -> None:
        super().__init__(**warmup)
        if constant_epochs < 0 or decay_epochs < 0:
            raise ConfigError("schedule: constant_epochs and decay_epochs must be 0 or more.")
        self.constant_epochs, self.decay_epochs = constant_epochs, decay_epochs

    def factor(self, step: int, *, steps_per_epoch: int, total_steps: int) -> float:
        epoch = step // steps_per_epoch + 1
        return max(0.0, 1 - max(0, epoch + 1 - self.constant_epochs) / (self.decay_epochs + 1))


class Poly(Schedule):
    """(1 - step / total) ** power: the schedule of most segmentation papers (Chen et al., 2017, arXiv:1706.05587)."""

    needs_end = True

    def __init__(self, *, power: float = 0.9, **warmup: Any) -> None:
        super().__init__(**warmup)
        self.power = power

    def factor(self, step: int, *, steps_per_epoch: int, total_steps: int) -> float:
        return float(max(0.0, 1 - step / total_steps) ** self.power)


class Cosine(Schedule):
    """Half a cosine from one to `final_factor`, by step (Loshchilov and Hutter, 2017, arXiv:1608.03983).

    The half period spans the steps after the warm-up. No restarts.
    """

    needs_end = True

    def __init__(self, *, final_factor: float = 0.0, **warmup: Any) -> None:
        super().__init__(**warmup)
        self.final_factor = final_factor

    def factor(self, step: int, *, steps_per_epoch: int, total_steps: int) -> float:
        span = max(1, total_steps - self.warmup_steps)
        progress = min(1.0, max(0, step - self.warmup_steps) / span)
        return self.final_factor + (1 - self.final_factor) * 0.5 * (1 + math.cos(math.pi * progress))


class Step(Schedule):
    """Times `gamma` at each of the `milestones`, counted in epochs."""

    def __init__(self, *, milestones: list[int], gamma: float = 0.1, **warmup: Any) -> None:
        super().__init__(**warmup)
        self.milestones, self.gamma = sorted(milestones), gamma

    def factor(self, step: int, *, steps_per_epoch: int, total_steps: int) -> float:
        epoch = step // steps_per_epoch
        return float(self.gamma ** sum(epoch >= milestone for milestone in self.milestones))
