"""What every task is: a network, an objective, metrics, and a recipe that can rebuild it."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torchmetrics import MetricCollection

from dvsn.errors import ConfigError, UserError
from dvsn.schedules import Constant, Schedule
from dvsn.types import Batch, Terms

OptimizerFactory = Callable[..., Optimizer]
Unchecked = tuple[list[str], Tensor, int, Any]


class NotFinite(UserError):
    """A loss became NaN or infinite."""


class Task(pl.LightningModule):
    """The base of all tasks.

    A task owns its networks, says how a batch becomes an objective (`objective`), how an output becomes
    pictures (`panels`), and what is shipped (`deployable`). `recipe` is the task's own config as plain
    data; the checkpoint carries it, so that `dvsn.load` needs nothing else.

    `gradient_clip_val` and `accumulate_grad_batches` are read here only by tasks that optimise by hand.
    """

    kind: ClassVar[str] = "task"
    """The word that names the task in messages and checkpoints."""

    needs_unused_parameters: ClassVar[bool] = False
    """True when a backward pass leaves parameters without gradient, which DDP must be told."""

    optimizer_names: ClassVar[tuple[str, ...]] = ("network",)
    """The name of each optimiser of `configure_optimizers`, for the log."""

    def __init__(self, *, optim: OptimizerFactory, schedule: Schedule | None = None) -> None:
        super().__init__()
        self.optim, self.schedule = optim, schedule or Constant()
        self.recipe: dict[str, Any] = {}
        self.data_recipe: dict[str, Any] = {}
        self.channels_last = False
        self._metrics = (MetricCollection({}),)  # in a tuple: metrics are not part of the task's state
        self._unchecked: deque[Unchecked] = deque()
        self._latest: dict[str, Tensor] = {}
        self._logging = True
        self.test_details: dict[str, list[dict[str, Any]]] = {}
        self.test_pictures: dict[str, Any] = {}
        self.test_files: dict[str, Any] = {}

    # What a task says of itself ---------------------------------------------------------------------

    @property
    def networks(self) -> dict[str, nn.Module]:
        """The trained networks by name: what is compiled, counted and exported."""
        raise NotImplementedError

    def panels(self, batch: Batch, output: Tensor) -> dict[str, Tensor]:
        """Pictures of a batch by column title: uint8 RGB (N, 3, H, W), all of one size."""
        raise NotImplementedError

    answers: ClassVar[tuple[str, ...]] = ()
    """What `answer` can make of a picture, the usual first."""

    def answer(self, image: Tensor, kind: str) -> Tensor:
        """uint8 inputs (N, C, H, W) -> uint8 pictures (N, 3, H, W), or ids (N, H, W), of one of `answers`."""
        raise NotImplementedError

    def predict_files(
        self, items: list[tuple[Path, Path]], options: dict[str, Any], device: str
    ) -> list[Path]:
        """The work of `dvsn.predict`: each (picture, where its result goes) by the command's options; the files written."""
        from dvsn.predict_pictures import predict_files

        return predict_files(self, items, options, device)

    def results(self, batch: Batch, output: Tensor) -> dict[str, Tensor]:
        """What evaluation writes a file of when all results are wanted, by folder: as `answer` returns it."""
        return {}

    def details(self) -> dict[str, list[dict[str, Any]]]:
        """Tables behind the scores of a test, by title: a list of rows, each with the same columns."""
        return {}

    def detail_pictures(self) -> dict[str, Any]:
        """Pictures behind the scores of a test, by file stem: uint8 RGB arrays (H, W, 3)."""
        return {}

    def files(self) -> dict[str, Any]:
        """What a test gives to others, such as a results file that a server takes: content by file name. A name that
        ends with .csv has a list of rows, each with the same columns; any other file is JSON."""
        return {}

    def adapt_data(self, node: dict[str, Any]) -> dict[str, Any]:
        """A data node from the command line as this task wants it, such as which picture is the target."""
        return node

    input_classes: int = 0
    """K when the input is a map of ids below K, 0 when it is a picture."""

    def show_input(self, image: Tensor) -> Tensor:
        """The input (N, C, H, W) as an RGB picture (N, 3, H, W)."""
        return image[:, :3] if image.shape[1] >= 3 else image[:, :1].expand(-1, 3, -1, -1)

    def check_sides(self, batch: Batch) -> None:
        """Raise `DataError` when the network cannot take pictures of this size."""

    def deployable(self) -> nn.Module:
        """The network as it is shipped: normalisation included, training parts left out, eval mode."""
        raise NotImplementedError

    @property
    def window_open(self) -> bool:
        """True between the batches of one gradient accumulation, when a checkpoint could not be exact."""
        done = self.trainer.fit_loop.epoch_loop.batch_progress.current.ready
        return done % self.trainer.accumulate_grad_batches != 0 and not self.trainer.is_last_batch

    def ask_data(self, data: Any) -> None:
        """Tell the data module what batches must hold beside pictures, before it opens anything."""

    # Shared machinery -------------------------------------------------------------------------------

    def compile_networks(self) -> None:
        """Compile in place: the keys of the state dict stay what they are."""
        for network in self.networks.values():
            network.compile()

    def to_channels_last(self) -> None:
        """Use the memory layout that convolutions prefer on CPUs and tensor cores, for weights and inputs."""
        self.channels_last = True
        for network in self.networks.values():
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def layout(self, image: Tensor) -> Tensor:
        """`image` in the memory layout of the networks."""
        return image.contiguous(memory_format=torch.channels_last) if self.channels_last else image

    def attach_schedule(self, optimizer: Optimizer) -> LambdaLR:
        """The schedule on one optimiser, over the optimiser steps that this run will make."""
        trainer = self.trainer
        _ = trainer.estimated_stepping_batches  # opens the loaders, which sets num_training_batches
        accumulate = max(trainer.accumulate_grad_batches, getattr(self, "accumulate_grad_batches", 1))
        steps = max(1, -(-int(trainer.num_training_batches) // accumulate))
        ends = [steps * trainer.max_epochs] if trainer.max_epochs and trainer.max_epochs > 0 else []
        ends += [trainer.max_steps] if trainer.max_steps > 0 else []
        if self.schedule.needs_end and not ends:
            raise ConfigError(
                f"schedule: {type(self.schedule).__name__} needs a run with an end. Set trainer.max_epochs or "
                "trainer.max_steps, or schedule=constant."
            )
        total = min(ends, default=1)
        return self.schedule.attach(optimizer, steps_per_epoch=steps, total_steps=max(1, total))

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Decide whether this step logs: when a logger takes the values, and first and last in an epoch.

        Handing a step's losses to Lightning costs milliseconds, so the steps between do without.
        """
        due = self.trainer._logger_connector.should_update_logs  # type: ignore[attr-defined]
        self._logging = due or batch_idx == 0 or batch_idx + 1 >= self.trainer.num_training_batches

    def record(self, terms: Terms) -> None:
        """Log each term under its own name and stop the run when one is not finite.

        On a CPU the values are looked at here; on a GPU once they have arrived, some steps later and
        before anything is saved, so that the device is never waited for.
        """
        losses = [term.detach().float() for term in terms.values()]
        self._latest.update({f"train/{name}": value for name, value in zip(terms, losses, strict=True)})
        if self._logging:  # what an accumulation has last closed with goes with it
            self.log_dict(self._latest, prog_bar=True)
        if losses[0].device.type == "cuda":
            values = torch.stack(losses)
            host = torch.empty(values.shape, pin_memory=True).copy_(values, non_blocking=True)
            arrived = torch.cuda.Event()
            arrived.record()
            self._unchecked.append((list(terms), host, self.global_step, arrived))
            while self._unchecked and (len(self._unchecked) > 16 or self._unchecked[0][3].query()):
                self._check_one()
        elif not all(math.isfinite(loss) for loss in losses):
            self._unchecked.append((list(terms), torch.stack(losses), self.global_step, None))
            self.check_finite()

    def check_finite(self) -> None:
        """Raise `NotFinite` naming the term and the step of the first bad loss since the last look."""
        while self._unchecked:
            self._check_one()

    def _check_one(self) -> None:
        names, values, step, arrived = self._unchecked.popleft()
        if arrived is not None:
            arrived.synchronize()
        if bool(torch.isfinite(values).all()):
            return
        numbers = zip(names, values.tolist(), strict=True)
        bad = ", ".join(f"{name} = {value:g}" for name, value in numbers if not math.isfinite(value))
        raise NotFinite(
            f"step {step} (epoch {self.current_epoch}): the loss is not finite: {bad}. "
            "The run stops here and the last good checkpoint is kept. Lower optim.lr, set "
            "trainer.gradient_clip_val, or use trainer.precision=32-true."
        )

    def on_fit_start(self) -> None:
        self._unchecked.clear()
        self._latest.clear()

    @property
    def metrics(self) -> MetricCollection:
        return self._metrics[0]

    def use_metrics(self, **options: Any) -> None:
        """Replace the metrics by those that need more than the task, such as the weights of FID's network."""
        raise NotImplementedError

    def on_validation_start(self) -> None:
        self.metrics.to(self.device)

    def on_test_start(self) -> None:
        self.metrics.to(self.device)

    def on_validation_epoch_end(self) -> None:
        self._close_metrics("val")

    def on_test_epoch_end(self) -> None:
        self.test_details, self.test_pictures = self.details(), self.detail_pictures()
        self.test_files = self.files()
        self._close_metrics("test")

    def _close_metrics(self, split: str) -> None:
        values = {f"{split}/{name}": value for name, value in self.metrics.compute().items()}
        self.metrics.reset()
        self.log_dict(values, prog_bar=split == "val")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.check_finite()
        from dvsn import __version__

        checkpoint["dvsn"] = {
            "format": 1,
            "version": __version__,
            "task": self.kind,
            "recipe": self.recipe,
            "data": self.data_recipe,
        }
