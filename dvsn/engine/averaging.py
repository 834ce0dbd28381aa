"""The moving average of a task's weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import EMAWeightAveraging

DISTILLER = "distiller"


class WeightAverage(EMAWeightAveraging):
    """Lightning's exponential moving average, of what is shipped: modules and memory banks of distillation stay out.

    In a checkpoint `state_dict` holds the average of the networks and the distiller as it is, `current_model_state` the
    networks as they are trained.
    """

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        with apart(pl_module):
            super().setup(trainer, pl_module, stage)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *rest: Any) -> None:
        with apart(pl_module):
            super().on_train_batch_end(trainer, pl_module, *rest)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        with apart(pl_module):
            super().on_train_epoch_end(trainer, pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        with apart(pl_module):
            super().on_train_end(trainer, pl_module)

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        with apart(pl_module):
            super().on_validation_epoch_start(trainer, pl_module)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        with apart(pl_module):
            super().on_validation_epoch_end(trainer, pl_module)

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


@contextmanager
def apart(task: pl.LightningModule) -> Iterator[None]:
    """The task without its distiller inside, so that a copy or a walk over its weights passes it by."""
    found = task._modules.pop(DISTILLER, None)
    try:
        if found is not None:
            task.__dict__[DISTILLER] = None  # what a copy has in its place
        yield
    finally:
        if found is not None:
            del task.__dict__[DISTILLER]
            task._modules[DISTILLER] = found
