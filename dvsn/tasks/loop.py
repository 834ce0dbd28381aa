"""The part of a task that serves Lightning's loop: memory layout, schedules, logging, the check of losses, metrics."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torchmetrics import MetricCollection

from dvsn.errors import ConfigError
from dvsn.networks.compiling import compile_in_place
from dvsn.optim.schedules import Constant, Schedule
from dvsn.tasks.finite import FiniteGuard
from dvsn.types import Batch, Terms

OptimizerFactory = Callable[..., Optimizer]


class Stages(NamedTuple):
    """How a training is divided for a schedule, in optimiser steps."""

    steps_per_epoch: int
    initial_steps: int = 0
    """Steps of an initial stage with a constant learning rate, after which the schedule begins."""
    initial_factor: float = 1.0
    """The learning rate of the initial stage, as a multiple of the optimiser's."""


class Loop(pl.LightningModule):
    """Base of `Task`: everything that does not depend on what is learned. Metrics are not part of the state dict."""

    def __init__(self, *, optim: OptimizerFactory, schedule: Schedule | None = None) -> None:
        super().__init__()
        self.optim, self.schedule = optim, schedule or Constant()
        self.channels_last = False
        self.finite = FiniteGuard()
        self.latest: dict[str, Tensor] = {}  # the last value of each term, as it is logged
        self.logs_now = True  # whether this step's terms go to the loggers
        self._metrics = (MetricCollection({}),)  # in a tuple: metrics are not part of the task's state

    @property
    def networks(self) -> dict[str, nn.Module]:
        """The trained networks by name: what is compiled, counted and exported."""
        raise NotImplementedError

    # Compilation and memory layout ------------------------------------------------------------------

    def compile_networks(self) -> None:
        """Compile in place: the keys of the state dict stay what they are."""
        for network in self.networks.values():
            compile_in_place(network)

    def to_channels_last(self) -> None:
        """Use the memory layout that convolutions prefer on CPUs and tensor cores, for weights and inputs."""
        self.channels_last = True
        for network in self.networks.values():
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def layout(self, image: Tensor) -> Tensor:
        """`image` in the memory layout of the networks."""
        return image.contiguous(memory_format=torch.channels_last) if self.channels_last else image

    # Schedule ---------------------------------------------------------------------------------------

    @property
    def window_open(self) -> bool:
        """True between the batches of one gradient accumulation, when a checkpoint could not be exact."""
        done = self.trainer.fit_loop.epoch_loop.batch_progress.current.ready
        return done % self.trainer.accumulate_grad_batches != 0 and not self.trainer.is_last_batch

    def window_share(self, batch_idx: int) -> float:
        """What the loss of a batch is multiplied by, so that an accumulation is the mean of its batches.

        Lightning divides each by `accumulate_grad_batches`; the last accumulation of an epoch may hold fewer batches.
        """
        wanted, batches = int(self.trainer.accumulate_grad_batches), int(self.trainer.num_training_batches)
        first = batch_idx - batch_idx % wanted
        return wanted / min(wanted, batches - first)

    def scheduled(self, groups: list[dict[str, Any]]) -> dict[str, Any]:
        """What `configure_optimizers` returns: one optimiser over parameter groups, its schedule moved every step."""
        optimizer = self.optim(groups)
        schedule = {"scheduler": self.attach_schedule(optimizer), "interval": "step"}
        return {"optimizer": optimizer, "lr_scheduler": schedule}

    def attach_schedule(self, optimizer: Optimizer) -> LambdaLR:
        """The schedule on one optimiser, over the optimiser steps that this run will make.

        Raises `ConfigError` for a schedule that needs a run with an end, where the run has none.
        """
        trainer = self.trainer
        trainer.fit_loop.setup_data()  # opens the loaders, which sets num_training_batches
        accumulate = max(trainer.accumulate_grad_batches, getattr(self, "accumulate_grad_batches", 1))
        steps = max(1, -(-int(trainer.num_training_batches) // accumulate))
        ends = [steps * trainer.max_epochs] if trainer.max_epochs and trainer.max_epochs > 0 else []
        ends += [trainer.max_steps] if trainer.max_steps > 0 else []
        if self.schedule.needs_end and not ends:
            raise ConfigError(
                f"schedule: {type(self.schedule).__name__} needs a run with an end. Set trainer.max_epochs or "
                "trainer.max_steps, or schedule=constant."
            )
        stages = self.stages(optimizer, steps)
        return self.schedule.attach(
            optimizer,
            steps_per_epoch=stages.steps_per_epoch,
            total_steps=max(1, min(ends, default=1) - stages.initial_steps),
            initial_steps=stages.initial_steps,
            initial_factor=stages.initial_factor,
        )

    def stages(self, optimizer: Optimizer, steps: int) -> Stages:
        """The stages of a training whose epochs have `steps` optimiser steps."""
        return Stages(steps)

    # Logging and the check of losses ----------------------------------------------------------------

    def setup(self, stage: str) -> None:
        self.latest.clear()  # before a checkpoint is read

    def on_fit_start(self) -> None:
        self.finite.clear()

    def on_train_start(self) -> None:
        """Log an epoch that is shorter than `trainer.log_every_n_steps` at its end, so that every epoch has its losses."""
        batches = self.trainer.num_training_batches
        if 0 < batches < self.trainer.log_every_n_steps:  # type: ignore[attr-defined]
            self.trainer.log_every_n_steps = int(batches)  # type: ignore[attr-defined]

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Decide whether this step logs: when a logger takes the values, and first and last in an epoch.

        Handing a step's losses to Lightning costs milliseconds, so the steps between do without.
        """
        due = self.trainer._logger_connector.should_update_logs  # type: ignore[attr-defined]
        self.logs_now = due or batch_idx == 0 or batch_idx + 1 >= self.trainer.num_training_batches

    def record(self, terms: Terms) -> None:
        """Log each term under its own name and stop the run when one is not finite (`FiniteGuard`)."""
        losses = {name: term.detach().float() for name, term in terms.items()}
        self.latest.update({f"train/{name}": value for name, value in losses.items()})
        if self.logs_now:  # with the terms of earlier steps, such as those that end an accumulation
            self.log_dict(self.latest, prog_bar=True)
        self.finite.watch(self.must_be_finite() | losses, step=self.global_step, epoch=self.current_epoch)

    def must_be_finite(self) -> dict[str, Tensor]:
        """Scalars of this step that must be finite as well, though they are no losses."""
        return {}

    def check_finite(self) -> None:
        """Raise `NotFinite` naming the term and the step of the first bad loss since the last look."""
        self.finite.check()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.check_finite()
        checkpoint["latest"] = {name: float(value) for name, value in self.latest.items()}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """The last terms, which the first batches of an accumulation log again; checkpoints of before 2026-12 have none."""
        self.latest.update(
            {name: torch.tensor(value) for name, value in checkpoint.get("latest", {}).items()}
        )

    # Metrics ----------------------------------------------------------------------------------------

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
        self._close_metrics("test")

    def _close_metrics(self, split: str) -> None:
        """Compute, log and reset: once an epoch."""
        values = {f"{split}/{name}": value for name, value in self.metrics.compute().items()}
        self.metrics.reset()
        self.log_dict(values, prog_bar=split == "val")
