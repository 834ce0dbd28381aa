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


def of_distiller(key: str) -> bool:
    return key.startswith(f"{DISTILLER}.")
