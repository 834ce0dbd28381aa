"""What runs beside the training: checkpoints, interruption, stateless random numbers, pictures, rates."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import Tensor
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer

from dvsn.engine.boards.find import find_boards
from dvsn.engine.run_folder import peak_memory
from dvsn.errors import ConfigError, DataError
from dvsn.pictures.grids import Gallery, to_array, write_picture
from dvsn.pictures.strip import affordable, strip
from dvsn.seeding import seed_everything

log = logging.getLogger(__name__)


class StatelessRandom(Callback):
    """Every batch draws from its own stream, a function of (seed, rank, epoch, batch, stage).

    So no random state has to be saved, a resumed run draws what the unbroken run drew, and validation
    never moves the numbers of training.
    """

    def __init__(self, *, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self._draw(trainer, trainer.current_epoch, batch_idx, 0)

    def on_validation_batch_start(
        self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self._draw(trainer, 0, batch_idx, 1)

    on_test_batch_start = on_validation_batch_start

    def _draw(self, trainer: pl.Trainer, epoch: int, batch: int, stage: int) -> None:
        seed_everything(self.seed, rank=trainer.global_rank, epoch=epoch, batch=batch, stage=stage)


class PictureGrid(Callback):
    """After each validation, a grid of its first pictures: a row a sample, a column a panel of the task.

    It is written to `folder` as `epoch_0007.png` (or `step_...` inside an epoch) and `latest.png`, with the places of
    its pictures in `layout.json`, and sent to every logger that takes pictures. At the end of training `strip.png` and
    `strip.webp` show the first of them through the epochs.
    """

    def __init__(self, *, folder: str, count: int = 6, every_n_epochs: int = 1, max_side: int = 512) -> None:
        for option, value in {"count": count, "every_n_epochs": every_n_epochs, "max_side": max_side}.items():
            if value < 1:
                raise ConfigError(f"callbacks.pictures.{option}: found {value}, expected 1 or more.")
        self.gallery = Gallery(folder=Path(folder), count=count, max_side=max_side)
        self.every_n_epochs = every_n_epochs

    def _wanted(self, trainer: pl.Trainer) -> bool:
        due = (trainer.current_epoch + 1) % self.every_n_epochs == 0
        return trainer.is_global_zero and not trainer.sanity_checking and (due or trainer.state.fn != "fit")

    def on_validation_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, *_: Any
    ) -> None:
        if self._wanted(trainer) and not self.gallery.full and outputs is not None:
            self.gallery.add(pl_module.panels(batch, outputs), names=batch["name"])

    def on_validation_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Not `on_validation_epoch_end`, which callbacks hear before the task has logged its metrics."""
        if self._wanted(trainer):
            scores = {
                name: float(value)
                for name, value in trainer.callback_metrics.items()
                if name.startswith("val/")
            }
            step = trainer.fit_loop.epoch_loop._batches_that_stepped  # where Lightning logs the metrics
            inside = getattr(trainer.datamodule, "position", (0, 0))[1] > 0  # type: ignore[attr-defined]
            self.gallery.publish(
                stem=f"step_{step:07d}" if inside else f"epoch_{trainer.current_epoch + 1:04d}",
                boards=find_boards(trainer.loggers),
                step=step,
                caption=", ".join(
                    f"{name.removeprefix('val/')} {value:.4g}" for name, value in scores.items()
                ),
            )

    def on_fit_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        if not trainer.is_global_zero:
            return
        try:
            most = affordable(self.gallery.folder)
            if most > 1:
                strip(self.gallery.folder, most=most).write(self.gallery.folder)
        except (DataError, OSError) as error:  # the run is done, and the pictures are there
            log.warning("%s. strip.png is not written.", str(error).rstrip("."))


class Rates(Callback):
    """Logs images per second, the learning rate, and the most memory so far: of the GPU, or of the process without its
    workers."""

    def __init__(self, *, every_n_steps: int = 50) -> None:
        if every_n_steps < 1:
            raise ConfigError(f"callbacks.rates.every_n_steps: found {every_n_steps}, expected 1 or more.")
        self.every_n_steps = every_n_steps
        self._since, self._images = 0.0, 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Here too: an epoch that is resumed in its middle does not start."""
        self._since, self._images = time.perf_counter(), 0

    on_train_epoch_start = on_train_start

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._images += len(batch["index"])
        if (batch_idx + 1) % self.every_n_steps and batch_idx + 1 < trainer.num_training_batches:
            return
        on_gpu = pl_module.device.type == "cuda"
        if on_gpu:
            torch.cuda.synchronize()
        pl_module.log("system/memory_gib", peak_memory(on_gpu=on_gpu) / 2**30, batch_size=1)
        rate = self._images / max(1e-9, time.perf_counter() - self._since) * trainer.world_size
        pl_module.log("system/images_per_second", rate, batch_size=1)
        for optimizer, label in zip(trainer.optimizers, pl_module.optimizer_names, strict=True):
            pl_module.log(f"system/lr_{label}", optimizer.param_groups[0]["lr"], batch_size=1)
        self._since, self._images = time.perf_counter(), 0


class GradientNorm(Callback):
    """Logs `system/gradient_norm`, the length of the gradient of all weights before it is clipped, where losses are logged.
    A task with several optimisers logs one for each: `system/gradient_norm_discriminator`.

    It is of the accumulated gradient, joined over processes, and without float16's scale. Where steps are logged between
    two of an optimiser, the value is that of the one before.
    """

    def __init__(self) -> None:
        self._owed = False  # a step was logged within an accumulation: the norm at its end is wanted
        self._norms: dict[str, Tensor] = {}

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self._owed = False
        self._norms.clear()

    def on_before_optimizer_step(self, trainer: pl.Trainer, pl_module: Any, optimizer: Optimizer) -> None:
        """Before the task's own hook, and Lightning, clip."""
        if not (pl_module.logs_now or self._owed):
            return
        gradients = [
            p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None
        ]
        if not gradients:
            return
        norm = length(gradients)
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        if scaler is not None and getattr(optimizer, "_step_supports_amp_scaling", False):
            norm = norm / scaler.get_scale()  # a fused optimiser takes the scale away itself, in its step
        number = next(n for n, each in enumerate(trainer.optimizers) if each is optimizer)
        names = pl_module.optimizer_names
        self._norms["system/gradient_norm" + (f"_{names[number]}" if len(names) > 1 else "")] = norm

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if pl_module.logs_now and self._norms:
            pl_module.log_dict(self._norms, batch_size=1)
        self._owed = pl_module.window_open and (self._owed or pl_module.logs_now)


def length(gradients: Sequence[Tensor]) -> Tensor:
    """The length of all gradients together, of which some may be shared out over the processes (DTensor)."""
    shared = [each for each in gradients if hasattr(each, "full_tensor")]
    if not shared:
        return get_total_norm(gradients)
    whole = [each for each in gradients if not hasattr(each, "full_tensor")]
    norms = [get_total_norm(shared).full_tensor(), *([get_total_norm(whole)] if whole else [])]  # type: ignore[attr-defined]
    return torch.stack(norms).norm()


@dataclass
class Range:
    """The smallest and the largest of whole numbers above 0 that were added."""

    low: int = sys.maxsize
    high: int = 0

    def add(self, value: int) -> None:
        self.low, self.high = min(self.low, value), max(self.high, value)


class PictureFiles(Callback):
    """While testing: one grid of the first pictures, each generated picture as a file when asked, and what was seen:
    how many samples, and the sides of their pictures."""

    def __init__(self, *, folder: Path, count: int, save_all: bool) -> None:
        self.folder, self.save_all = folder, save_all
        self.gallery = Gallery(folder=folder, count=count)
        self.samples = 0
        self.heights, self.widths = Range(), Range()

    def on_test_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, *_: Any
    ) -> None:
        self.samples += len(batch["name"])
        for image in batch["image"]:
            self.heights.add(image.shape[-2])
            self.widths.add(image.shape[-1])
        wanted = trainer.is_global_zero and not self.gallery.full
        if not wanted and not self.save_all:
            return
        panels = pl_module.panels(batch, outputs)
        if wanted:
            self.gallery.add(panels, names=batch["name"])
        if self.save_all:
            for folder, results in pl_module.results(batch, outputs).items():
                for name, picture in zip(batch["name"], to_array(results), strict=True):
                    write_picture(self.folder / folder / f"{name}.png", picture)

    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        seen = torch.tensor(self.samples, device=trainer.strategy.root_device)
        self.samples = int(trainer.strategy.reduce(seen, reduce_op="sum"))
        for sides in (self.heights, self.widths):
            ends = torch.tensor([-sides.low, sides.high], device=trainer.strategy.root_device)
            low, high = trainer.strategy.reduce(ends, reduce_op="max").tolist()  # type: ignore[union-attr]
            sides.low, sides.high = -int(low), int(high)
        if trainer.is_global_zero:
            self.gallery.publish(stem="grid", boards=(), step=0, caption="", latest=False)
