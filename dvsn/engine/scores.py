"""The scores of a run's validations: the last, and the best with all that was measured with it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Validation:
    """What one validation measured."""

    epoch: int
    """Counted from 1."""
    step: int
    scores: dict[str, float] = field(default_factory=dict)
    """By name, such as val/miou."""
    classes: Rows = field(default_factory=list)
    """A row a class, or a keypoint, with the same columns; empty for a task without."""


class Scores(Callback):
    """Keeps the last and the best validation of this part of a run; nothing of it is in a checkpoint."""

    def __init__(self, *, monitor: str | None = None, mode: str = "min") -> None:
        self.monitor, self.sign = monitor, {"min": 1.0, "max": -1.0}[mode]
        self.last: Validation | None = None
        self.best: Validation | None = None

    def on_validation_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        scores = {
            name: float(value)
            for name, value in trainer.callback_metrics.items()
            if name.startswith("val/") and value.numel() == 1
        }
        self.last = Validation(
            trainer.current_epoch + 1, trainer.global_step, scores, list(pl_module.validated_classes)
        )
        score = scores.get(self.monitor or "", math.nan)
        if math.isfinite(score) and (self.best is None or self._better(score, than=self.best)):
            self.best = self.last

    def _better(self, score: float, *, than: Validation) -> bool:
        assert self.monitor is not None
        return self.sign * score < self.sign * than.scores[self.monitor]

    def best_of(self, step: int | None) -> Validation | None:
        """The best validation if it is the one after `step`; None where that was in an earlier part of the run."""
        return self.best if self.best is not None and self.best.step == step else None
