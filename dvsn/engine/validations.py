"""When a run is validated: after which batch first, a warning if it ends before that, and never within an accumulation."""

from __future__ import annotations

import logging
import math
from typing import Any

import pytorch_lightning as pl

from dvsn.tasks.base import Task

log = logging.getLogger(__name__)


class WholeAccumulations:
    """Lets a validation, or the end of a run, that falls within a gradient accumulation wait for its last batch.

    Between the batches of an accumulation no checkpoint can be exact: gradients are not saved. `best.ckpt` of a validation
    in between would be newer than `last.ckpt`, and a run that goes on from it would lose batches.
    """

    def __init__(self, trainer: pl.Trainer, task: Task, *, validated: bool = False) -> None:
        """`validated`: the run goes on from a checkpoint that was written after a validation which had waited."""
        self.trainer, self.task = trainer, task
        self._waits = self.validated = validated
        self._ends = False
        self._loop = trainer.fit_loop.epoch_loop
        self._due = self._loop._should_check_val_fx
        self._loop._should_check_val_fx = self.validation_is_due  # type: ignore[method-assign]

    def validation_is_due(self, data_fetcher: Any) -> bool:
        """What Lightning's loop asks after each batch, and where it goes on, once or more often."""
        due = self._due(data_fetcher)
        if self.task.window_open:
            self._waits = self._waits or due
            return False
        return due or self._waits

    def validation_ended(self) -> None:
        self.validated = self._waits

    def batch_begins(self) -> None:
        if self.validated:
            self._waits = self.validated = False

    def batch_ended(self) -> None:
        """Take back a wish to stop, such as that of `trainer.max_time`, until the accumulation has ended."""
        if not self.task.window_open:
            self.trainer.should_stop = self.trainer.should_stop or self._ends
        elif self.trainer.should_stop:
            self._ends, self.trainer.should_stop = True, False

    def close(self) -> None:
        self._loop._should_check_val_fx = self._due  # type: ignore[method-assign]


def warn_without(trainer: pl.Trainer, task: Task, *, monitor: str | None) -> None:
    """Say that a run which is about to start will end without a validation, and what to set."""
    kept = "" if monitor is None else f" No best.ckpt is kept, since {monitor} is not measured."
    if not trainer.enable_validation:
        log.warning("No validation: trainer.limit_val_batches=0.%s", kept)
        return
    every, first = trainer.check_val_every_n_epoch, first_validation(trainer)
    batches, last = int(trainer.num_training_batches), last_batch(trainer, task)
    if first <= last:
        return
    if every is not None and last >= batches:
        epochs = max(1, int(last) // batches)
        advice = f"trainer.check_val_every_n_epoch={epochs}"
    else:
        advice = f"trainer.val_check_interval={max(1, int(last) - done(trainer))} trainer.check_val_every_n_epoch=null"
    log.warning(
        "This run ends after batch %d, and its first validation would be after batch %d: it is never validated.%s Set %s",
        int(last), first, kept, advice,
    )  # fmt: skip


def done(trainer: pl.Trainer) -> int:
    """The batches that an earlier part of the run has trained on."""
    return int(trainer.fit_loop.epoch_loop.total_batch_idx) + 1


def first_validation(trainer: pl.Trainer) -> int:
    """The batch of the whole run, counted from 1, after which it is validated next."""
    batches, interval = int(trainer.num_training_batches), int(trainer.val_check_batch or 1)
    every, start = trainer.check_val_every_n_epoch, done(trainer)
    if every is None:
        return (start // interval + 1) * interval
    epoch = start // batches
    while True:
        if (epoch + 1) % every == 0:
            inside = max(0, start - epoch * batches)
            next_one = (inside // interval + 1) * interval
            if next_one <= batches:
                return epoch * batches + next_one
        epoch += 1


def last_batch(trainer: pl.Trainer, task: Task) -> float:
    """The batch of the whole run, counted from 1, after which it ends; infinite where only the time ends it."""
    batches, epochs, steps = int(trainer.num_training_batches), trainer.max_epochs, trainer.max_steps
    by_epochs = math.inf if epochs is None or epochs < 0 else epochs * batches
    if steps < 0:
        return by_epochs
    accumulate = int(getattr(task, "accumulate_grad_batches", trainer.accumulate_grad_batches))
    whole, rest = divmod(steps, -(-batches // accumulate))
    return min(by_epochs, whole * batches + rest * accumulate)
