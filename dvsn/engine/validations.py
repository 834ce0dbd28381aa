"""When a run will be validated first, counted in batches, and a warning if it ends before that."""

from __future__ import annotations

import logging
import math

import pytorch_lightning as pl

from dvsn.tasks.base import Task

log = logging.getLogger(__name__)


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
