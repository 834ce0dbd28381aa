"""What every task is: a network, an objective, metrics, and a recipe that can rebuild it."""

from __future__ import annotations

import functools
import math
from collections import deque
from collections.abc import Callable
from typing import Any, ClassVar

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torchmetrics import MetricCollection

from dvsn.config.build import build
from dvsn.distill.distiller import Distiller
from dvsn.distill.method import Kind
from dvsn.errors import ConfigError, UserError
from dvsn.networks.graft import Graft
from dvsn.optim.distillation_oriented import DistillationOriented
from dvsn.optim.schedules import Constant, Schedule
from dvsn.tasks.normalise import fit
from dvsn.types import Batch, Terms
from dvsn.version import VERSION

TEACHER = "teacher"
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

    response: ClassVar[Kind] = "classes"
    """What the main response of its network is, for methods of distillation."""

    def __init__(self, *, optim: OptimizerFactory, schedule: Schedule | None = None) -> None:
        super().__init__()
        self.distiller: Distiller | None = None
        self.distill_recipe: dict[str, Any] = {}
        self.teaching_size: tuple[int, int] | None = None
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

    shows: ClassVar[str] = "pictures"
    """What its answer is, for whoever writes it down: `pictures`, `classes`, `objects`, `people` or `faces`. `dvsn.predict`
    has a file of this name."""

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

    # Distillation -----------------------------------------------------------------------------------

    class_names: tuple[str, ...] = ()
    """The names of the classes in their order, as far as a checkpoint knows them."""

    @property
    def student(self) -> nn.Module:
        """The network that can be taught, and can teach."""
        network = self.networks["network"]
        assert isinstance(network, nn.Module)
        return network

    def see(self, image: Tensor) -> Tensor:
        """What the network sees of uint8 pictures."""
        return self.layout(self.normalise(image))  # type: ignore[operator]

    def teach(self, image: Tensor) -> Any:
        """As a teacher: the network's answer for the pictures that a student is trained on (`shown`), at `teaching_size`."""
        return self.student(self.layout(fit(self.normalise(image), self.teaching_size)))  # type: ignore[operator]

    def shown(self, batch: Batch) -> Tensor:
        """What teachers are shown of a batch that the student was just run on."""
        image: Tensor = batch["image"]
        return image

    def labelled(self, batch: Batch) -> Batch:
        """The batch as methods of distillation get it: labels as the network's answer has them."""
        return batch

    def rehearse(self, batch: Batch) -> Any:
        """The network's answer for a batch outside of training, for a dry run."""
        return self.student(self.see(batch["image"]))

    def objective(self, output: Any, batch: Batch) -> Terms:
        """The task's own named terms for an answer of the network."""
        raise NotImplementedError

    def learn(self, batch: Batch) -> Terms:
        """The terms of a training step: the task's own, and those of distillation if there is any."""
        if self.distiller is None:
            return self.objective(self.student(self.see(batch["image"])), batch)
        output = None
        if self.distiller.runs_student:
            with self.distiller.taps:
                output = self.student(self.see(batch["image"]))
        own = functools.partial(self.objective, output, batch)
        return self.distiller.join(own, output, self.labelled(batch), self.shown(batch))

    def use_distiller(self, distiller: Distiller, recipe: dict[str, Any]) -> None:
        """Train with it. Its modules become part of the task, except that DDP leaves its buffers alone: memory banks are
        kept equal by the methods themselves, and sending them every step would cost more than the step."""
        self.distiller, self.distill_recipe = distiller, recipe
        buffers = [f"distiller.{name}" for name, _ in distiller.named_buffers()]
        self._ddp_params_and_buffers_to_ignore = buffers

    def use_graft(self, node: dict[str, Any]) -> None:
        """Change the student for good: `node`, plain data, becomes layers of it, and part of the recipe."""
        graft = build(node, path="task.graft")
        if not isinstance(graft, Graft):
            raise ConfigError("task.graft: expected a node whose _target_ is a class of dvsn.networks.graft.")
        graft.install(self.student)
        self.recipe = {**self.recipe, "graft": node}

    def with_distiller(self, groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The parameter groups of the student's optimiser, with one for the modules of the methods."""
        extra = [] if self.distiller is None else list(self.distiller.parameters())
        return [*groups, {"params": extra}] if extra else groups

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """One backward pass; two, of the task's terms and of distillation's, for the optimiser that keeps them apart."""
        optimizer = self.trainer.optimizers[0]
        shares = None if self.distiller is None else self.distiller.shares
        if shares is None or not isinstance(optimizer, DistillationOriented):
            return super().backward(loss, *args, **kwargs)
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)
        scale = 1.0 if scaler is None else scaler.scale(loss.new_ones(()))
        optimizer.backward(loss, *shares, scale=scale)

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        if gradient_clip_val and isinstance(optimizer, DistillationOriented):
            optimizer.clip(gradient_clip_val)
        else:
            super().configure_gradient_clipping(optimizer, gradient_clip_val, gradient_clip_algorithm)

    def on_after_backward(self) -> None:
        if self.distiller is not None:
            self.distiller.after_backward()

    def on_train_start(self) -> None:
        if self.distiller is not None:
            self.distiller.begin(self.device)

    def on_train_end(self) -> None:
        if self.distiller is not None:
            self.distiller.end()

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
        for teacher in () if self.distiller is None else self.distiller.teachers:
            teacher.to_channels_last()

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
        initial, factor = 0, 1.0
        if self.distiller is not None and self.distiller.initial_epochs:
            initial = self.distiller.initial_epochs * steps
            if self.distiller.stage_lr is not None:
                factor = self.distiller.stage_lr / optimizer.defaults["lr"]
        return self.schedule.attach(
            optimizer,
            steps_per_epoch=steps if self.distiller is None else max(1, round(steps * self.distiller.share)),
            total_steps=max(1, total - initial),
            initial_steps=initial,
            initial_factor=factor,
        )

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Decide whether this step logs: when a logger takes the values, and first and last in an epoch.

        Handing a step's losses to Lightning costs milliseconds, so the steps between do without.
        """
        if self.distiller is not None:
            self.distiller.enter(self.current_epoch, self.trainer.optimizers)
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
        names = list(terms)
        if self.distiller is not None and self.distiller.witness is not None:
            names, losses = [TEACHER, *names], [self.distiller.witness, *losses]
        if losses[0].device.type == "cuda":
            values = torch.stack(losses)
            host = torch.empty(values.shape, pin_memory=True).copy_(values, non_blocking=True)
            arrived = torch.cuda.Event()
            arrived.record()
            self._unchecked.append((names, host, self.global_step, arrived))
            while self._unchecked and (len(self._unchecked) > 16 or self._unchecked[0][3].query()):
                self._check_one()
        elif not all(math.isfinite(loss) for loss in losses):
            self._unchecked.append((names, torch.stack(losses), self.global_step, None))
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
        if names[0] == TEACHER and not math.isfinite(values[0]):
            raise NotFinite(
                f"step {step} (epoch {self.current_epoch}): the teacher's answer is not finite. The run stops here and the "
                "last good checkpoint is kept. Look at the teacher with `python -m dvsn.evaluate`; in half precision its "
                "activations may be too large: use trainer.precision=32-true or bf16-mixed."
            )
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
        checkpoint["dvsn"] = {
            "format": 1,
            "version": VERSION,
            "task": self.kind,
            "recipe": self.recipe,
            "data": self.data_recipe,
        }
        if self.distiller is not None:
            checkpoint["dvsn"]["distill"] = self.distill_recipe
            checkpoint["dvsn"]["stages_finished"] = list(self.distiller.finished)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if self.distiller is not None:
            self.distiller.finished = list(checkpoint.get("dvsn", {}).get("stages_finished", []))
