"""The moving average of a task's weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import EMAWeightAveraging

DISTILLER = "distiller"


@contextmanager
def apart(task: pl.LightningModule) -> Iterator[None]:
    """Take the distiller out of the task while the context lasts, so that copies of the task and loops over
    its weights leave it out."""
    found = task._modules.pop(DISTILLER, None)
    try:
        if found is not None:
            task.__dict__[DISTILLER] = None  # what a copy has in its place
        yield
    finally:
        if found is not None:
            del task.__dict__[DISTILLER]
            task._modules[DISTILLER] = found


def _apart(event: str) -> Callable[..., None]:
    """Wrap a hook of Lightning's callback: it runs while the distiller is outside the task."""

    def method(
        self: EMAWeightAveraging, trainer: pl.Trainer, task: pl.LightningModule, *rest: Any, **named: Any
    ) -> None:
        with apart(task):
            getattr(EMAWeightAveraging, event)(self, trainer, task, *rest, **named)

    return method


class WeightAverage(EMAWeightAveraging):
    """Lightning's exponential moving average, of what is shipped: modules and memory banks of distillation stay out.

    In a checkpoint `state_dict` holds the average of the networks and the distiller as it is, `current_model_state` the
    networks as they are trained.
    """

    setup = _apart("setup")

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The average may be the teacher; this is before the task's own hook, in which teachers start."""
        super().on_train_start(trainer, pl_module)
        distiller: Any = getattr(pl_module, DISTILLER, None)
        if distiller is not None and self._average_model is not None:
            distiller.follow(self._average_model.module, pl_module.see)

    on_train_batch_end = _apart("on_train_batch_end")
    on_train_epoch_end = _apart("on_train_epoch_end")
    on_train_end = _apart("on_train_end")
    on_validation_epoch_start = _apart("on_validation_epoch_start")
    on_validation_epoch_end = _apart("on_validation_epoch_end")

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        super().on_save_checkpoint(trainer, pl_module, checkpoint)
        current = checkpoint.get("current_model_state", {})
        checkpoint["state_dict"] |= {key: value for key, value in current.items() if of_distiller(key)}

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        averaged = {key: value for key, value in checkpoint["state_dict"].items() if not of_distiller(key)}
        super().on_load_checkpoint(trainer, pl_module, {**checkpoint, "state_dict": averaged})


class EpochAverage(WeightAverage):
    """Stochastic weight averaging: the plain mean of the weights at the ends of epochs, from the epoch `start` on, counted
    from 0 (Izmailov et al., 2018, arXiv:1803.05407).

    The mean, with that of the batch norms' means and variances, is what is validated and saved; before `start` the weights
    themselves are. An epoch is added before its validation. Unlike in the paper the learning rate is that of the run's
    schedule, and statistics of batch norms are not measured again: `python -m dvsn.average` can.
    """

    def __init__(self, *, start: int) -> None:
        super().__init__()
        self.start = start
        self._kwargs = {"avg_fn": None}  # torch's own: the plain mean

    @property
    def begun(self) -> bool:
        return self._average_model is not None and int(self._average_model.n_averaged) > 0

    def on_train_batch_end(  # type: ignore[override]
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        last = batch_idx + 1 >= trainer.num_training_batches
        if last and trainer.current_epoch >= self.start:
            with apart(pl_module):
                assert self._average_model is not None
                self._average_model.update_parameters(pl_module)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # type: ignore[override]
        """Nothing: the epoch was added at its last batch."""

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # type: ignore[override]
        if self.begun:
            super().on_train_end(trainer, pl_module)

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # type: ignore[override]
        if self.begun:
            super().on_validation_epoch_start(trainer, pl_module)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # type: ignore[override]
        if self.begun:
            super().on_validation_epoch_end(trainer, pl_module)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        super().on_save_checkpoint(trainer, pl_module, checkpoint)
        if not self.begun:
            checkpoint["state_dict"] = dict(checkpoint["current_model_state"])


def of_distiller(key: str) -> bool:
    return key.startswith(f"{DISTILLER}.")
