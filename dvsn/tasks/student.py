"""Distillation in a task: training as a student, and answering as a teacher."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from dvsn.distill.distiller import Distiller
from dvsn.distill.method import Kind
from dvsn.optim.distillation_oriented import DistillationOriented
from dvsn.optim.schedules import Schedule
from dvsn.tasks.batch_norm import require_statistics
from dvsn.tasks.finite import TEACHER
from dvsn.tasks.items import item_losses
from dvsn.tasks.loop import Loop, OptimizerFactory, Stages
from dvsn.tasks.normalise import fit
from dvsn.types import Batch, Terms

Translate = Callable[[Tensor, Batch], Tensor]
"""A teacher's answer for a batch -> the same in the coordinates of the student's."""


class Student(Loop):
    """Base of `Task`: without a distiller, plain training on the task's own terms.

    A task whose student is trained on something else than `batch["image"]`, or whose labels do not have the form of the
    network's answer, overrides `shown`, `labelled` or `rehearse`.
    """

    response: ClassVar[Kind] = "classes"
    """What the main response of the network is, for methods of distillation."""

    tells_items: ClassVar[bool] = True
    """Whether the loss of each sample can be told from the answer for its batch."""

    class_names: tuple[str, ...] = ()
    """The names of the classes in their order, as far as a checkpoint knows them."""

    def __init__(self, *, optim: OptimizerFactory, schedule: Schedule | None = None) -> None:
        super().__init__(optim=optim, schedule=schedule)
        self.distiller: Distiller | None = None
        self.distill_recipe: dict[str, Any] = {}
        self.teaching_size: tuple[int, int] | None = None
        self.evaluated_as_taught = False
        self.in_step = False  # within a training step, not a trial of one

    # The network and what it is given ---------------------------------------------------------------

    @property
    def student(self) -> nn.Module:
        """The network that can be taught, and can teach."""
        network = self.networks["network"]
        assert isinstance(network, nn.Module)
        return network

    def see(self, image: Tensor) -> Tensor:
        """The network's input for uint8 pictures: normalised, in its memory layout."""
        return self.layout(self.normalise(image))  # type: ignore[operator]

    def teach(self, image: Tensor) -> Any:
        """As a teacher: the network's answer for the pictures that a student is trained on (`shown`), resized to
        `teaching_size` (H, W)."""
        return self.student(self.layout(fit(self.normalise(image), self.teaching_size)))  # type: ignore[operator]

    def translate_from(self, teacher: Student) -> Translate | None:
        """How the answers of a teacher come into the coordinates of this task's own; None where they are in them."""
        return None

    @property
    def answers_alone(self) -> bool:
        """Whether, as a teacher, it gives a picture the same answer in every batch and every epoch."""
        return True

    def evaluate_as_taught(self, student: Student) -> None:
        """From now on validation measures what `teach` answers: at the student's size, without mirrored or resized views."""
        self.evaluated_as_taught = True

    def shown(self, batch: Batch) -> Tensor:
        """What teachers are given of a batch that the student was just run on: the weak view, where there are two."""
        image: Tensor = batch["weak"] if "weak" in batch else batch["image"]
        return image

    def labelled(self, batch: Batch) -> Batch:
        """The batch as methods of distillation get it: labels in the form of the network's answer."""
        return batch

    def rehearse(self, batch: Batch) -> Any:
        """The network's answer for a batch outside of training, from which the shapes at the taps are read."""
        return self.student(self.see(batch["image"]))

    # Terms ------------------------------------------------------------------------------------------

    def objective(self, output: Any, batch: Batch) -> Terms:
        """The task's own named terms for an answer of the network."""
        raise NotImplementedError

    def learn(self, batch: Batch) -> Terms:
        """The terms of a training step: the task's own, and those of distillation if there is any."""
        if self.distiller is None:
            output = self.student(self.see(batch["image"]))
            self.tell_items(output, batch)
            return self.objective(output, batch)
        output = None
        if self.distiller.runs_student:
            with self.distiller.taps:
                output = self.student(self.see(batch["image"]))
            self.tell_items(output, batch)
        own = functools.partial(self.objective, output, batch)
        return self.distiller.join(own, output, self.labelled(batch), self.shown(batch))

    def tell_items(self, output: Any, batch: Batch) -> None:
        """Tell the sampler of the data, if it asks, the task's own loss of each sample, of all processes."""
        sampler = getattr(self.trainer.datamodule, "sampler", None) if self.in_step else None  # type: ignore[attr-defined]
        if sampler is None or not sampler.reads_losses:
            return
        losses, items = item_losses(self.objective, output, batch), batch["index"]
        if self.trainer.world_size > 1:
            losses, items = (self.all_gather(each).flatten() for each in (losses, items))  # type: ignore[union-attr]
        sampler.observe(items.tolist(), losses.tolist())

    def must_be_finite(self) -> dict[str, Tensor]:
        """Also a number that is finite only if the teacher's answer is."""
        witness = None if self.distiller is None else self.distiller.witness
        return super().must_be_finite() if witness is None else {TEACHER: witness, **super().must_be_finite()}

    # The distiller in training ----------------------------------------------------------------------

    def use_distiller(self, distiller: Distiller, recipe: dict[str, Any]) -> None:
        """Train with it. Its modules become part of the task, except that DDP leaves its buffers alone: memory banks are
        kept equal by the methods themselves, and sending them every step would cost more than the step."""
        self.distiller, self.distill_recipe = distiller, recipe
        buffers = [f"distiller.{name}" for name, _ in distiller.named_buffers()]
        self._ddp_params_and_buffers_to_ignore = buffers

    def with_distiller(self, groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The parameter groups of the student's optimiser, with one for the modules of the methods."""
        extra = [] if self.distiller is None else list(self.distiller.parameters())
        return [*groups, {"params": extra}] if extra else groups

    def scheduled(self, groups: list[dict[str, Any]]) -> dict[str, Any]:
        return super().scheduled(self.with_distiller(groups))

    def stages(self, optimizer: Optimizer, steps: int) -> Stages:
        """Also the initial stage of the methods, and the share of the batches that an epoch trains the student on."""
        if self.distiller is None:
            return super().stages(optimizer, steps)
        share, factor = max(1, round(steps * self.distiller.share)), 1.0
        if self.distiller.initial_epochs and self.distiller.stage_lr is not None:
            factor = self.distiller.stage_lr / optimizer.defaults["lr"]
        return Stages(share, self.distiller.initial_epochs * steps, factor)

    def to_channels_last(self) -> None:
        super().to_channels_last()
        for teacher in () if self.distiller is None else self.distiller.teachers:
            teacher.to_channels_last()

    def training_step(self, batch: Batch, batch_idx: int) -> Any:
        """Learn from a batch: the sum of the terms of `learn`, each logged under its own name."""
        self.in_step = True
        terms = self.learn(batch)
        self.in_step = False
        self.record(terms)
        return torch.stack(list(terms.values())).sum() * self.window_share(batch_idx)

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

    def on_train_start(self) -> None:
        super().on_train_start()
        if self.distiller is not None:
            self.distiller.begin(self.device)
        require_statistics(self)

    def try_step(self, batch: Batch) -> None:
        """The forward passes of a training step; with a distiller, of each part of the training in which others count."""
        if self.distiller is None:
            self.learn(batch)
            return
        for epoch in self.distiller.turns:
            self.distiller.epoch = epoch
            if self.distiller.stages or self.distiller.only:
                self.distiller.set_modes()
            self.learn(batch)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        if self.distiller is not None:
            self.distiller.enter(self.current_epoch, self.trainer.optimizers)
        super().on_train_batch_start(batch, batch_idx)

    def on_after_backward(self) -> None:
        if self.distiller is not None:
            self.distiller.after_backward()

    def on_train_end(self) -> None:
        if self.distiller is not None:
            self.distiller.end()

    # Checkpoints ------------------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        if self.distiller is not None:
            own = {
                "distill": self.distill_recipe,
                "stages_finished": list(self.distiller.finished),
                "task_weight": self.distiller.task_weight,
            }
            checkpoint.setdefault("dvsn", {}).update(own)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        if self.distiller is not None:
            header = checkpoint.get("dvsn", {})
            self.distiller.finished = list(header.get("stages_finished", []))
            if "task_weight" not in header:  # of an earlier version
                self.distiller.task_weight = self.distiller.earlier_task_weight
