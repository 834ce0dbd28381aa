"""The distiller: the methods of a run, their weights over time, their stages, and the teachers."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from dvsn.distill.cache import Answers
from dvsn.distill.method import Kind, Method, View
from dvsn.distill.taps import Taps, first_tensor
from dvsn.distill.teacher import Average, MeanTeacher, Teacher, answer, view
from dvsn.errors import ConfigError
from dvsn.types import Batch, Terms

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Part:
    """One method of the objective.

    `start` and `end` are epochs of the training proper, initial stages not counted: it counts from `start` on and before
    `end` (None: to the end), with its `weight` growing in equal steps over the first `ramp` epochs. `trained` names the
    student's parameters that an initial stage trains: those that the student's taps depend on.
    """

    weight: float
    student: tuple[str, ...] = ()
    teacher: tuple[str, ...] = ()
    start: int = 0
    end: int | None = None
    ramp: int = 0
    trained: frozenset[str] = frozenset()

    def factor(self, epoch: int) -> float:
        """What the weight is multiplied by in an epoch."""
        if epoch < self.start or (self.end is not None and epoch >= self.end):
            return 0.0
        return min(1.0, (epoch - self.start + 1) / self.ramp) if self.ramp else 1.0


class Distiller(nn.Module):
    """Joins the terms of distillation to a task's own.

    Its children are the methods alone: their modules are trained with the student by the same optimiser, saved and resumed
    with the run, and left behind when the student is loaded or shipped. The teachers are no modules (see `Teacher`).

    - Each method's terms are logged under its name, `kd`, or `rkd_distance` where it has several.
    - `task_weight` multiplies the task's own terms; with 0 they are not computed, and labels are not looked at. A run of an
      earlier version, whose checkpoint does not say it, goes on with `earlier_task_weight`.
    - Teacher and student run once a step, whatever the number of methods; the teacher is left out of epochs in which no
      method counts, and for items whose answer is in the `cache`. Everything of the methods happens in float32 with
      autocast off.
    - Methods that ask for an initial stage get theirs one after the other, in the order of the config, before the training
      proper. Between two stages the optimiser forgets its state, and the learning rate starts anew.
    - `only` are the paths of the student's modules that are trained, where a method trains nothing else of it: the rest is
      frozen, in eval mode. `notes`, (title, text), are said before the run starts.
    - With `ema=` the networks are averaged, the methods' modules and memory are not.
    """

    def __init__(
        self,
        *,
        kind: Kind,
        student: nn.Module,
        teachers: Sequence[Teacher],
        methods: Mapping[str, Method],
        parts: Mapping[str, Part],
        task_weight: float = 1.0,
        earlier_task_weight: float | None = None,
        average: Average = "probabilities",
        stage_lr: float | None = None,
        only: Sequence[str] = (),
        notes: Sequence[tuple[str, str]] = (),
        cache: Answers | None = None,
    ) -> None:
        super().__init__()
        self.methods = nn.ModuleDict(methods)
        self.kind, self.average = kind, average
        self.parts, self.task_weight, self.stage_lr = dict(parts), task_weight, stage_lr
        self.earlier_task_weight = task_weight if earlier_task_weight is None else earlier_task_weight
        self.teachers, self.cache = tuple(teachers), cache
        self.only, self.notes = tuple(only), tuple(notes)
        for name, parameter in student.named_parameters() if only else ():
            parameter.requires_grad_(within(name, self.only) and parameter.requires_grad)
        self.taps = Taps(student, [path for part in self.parts.values() for path in part.student])
        for teacher in self.teachers:
            wanted = [path for part in self.parts.values() for path in part.teacher]
            teacher.listen(wanted)
        self.stages: list[tuple[str, int]] = []
        """Of each initial stage the method, and the epoch at which it is over."""
        for name, method in methods.items():
            if method.stage is not None and method.stage.epochs > 0:
                self.stages.append((name, self.initial_epochs + method.stage.epochs))
        self.finished: list[str] = []
        self.epoch = 0
        self._entered: str | None = ""
        self._frozen = [name for name, p in student.named_parameters() if not p.requires_grad]
        self._pending: tuple[Any, ...] | None = None
        self.shares: tuple[list[Tensor], list[Tensor]] | None = None
        """Of the step in progress: the terms of the task and those of distillation, where there are both."""
        self.witness: Tensor | None = None
        """Of the last step: a number that is not finite when the teacher's output is not."""

    # What it is -------------------------------------------------------------------------------------

    @property
    def initial_epochs(self) -> int:
        return self.stages[-1][1] if self.stages else 0

    @property
    def turns(self) -> list[int]:
        """The epochs from which another stage or another method counts, and the first."""
        counted = [self.initial_epochs + part.start for part in self.parts.values()]
        return sorted({0, self.initial_epochs, *counted, *(end for _, end in self.stages)})

    @property
    def share(self) -> float:
        """Of the run's epochs and its schedule's: the smallest that a method asks for."""
        return min((method.share for method in self.each()), default=1.0)

    @property
    def needs_unused_parameters(self) -> bool:
        """Whether some steps leave parameters without gradient, which DDP must be told."""
        partly = any(part.start or part.end is not None for part in self.parts.values())
        unused = any(method.leaves_unused for method in self.each())
        return bool(self.stages) or partly or unused or self.task_weight == 0

    def each(self) -> Iterable[Method]:
        return self.methods.values()  # type: ignore[return-value]

    def method(self, name: str) -> Method:
        found = self.methods[name]
        assert isinstance(found, Method)
        return found

    @property
    def stage(self) -> str | None:
        """The method whose initial stage this epoch belongs to; None in the training proper."""
        return next((name for name, end in self.stages if self.epoch < end), None)

    @property
    def runs_student(self) -> bool:
        """False in an initial stage that trains modules on the teacher's side alone."""
        name = self.stage
        found = None if name is None else self.method(name).stage
        return found is None or found.student

    # A run ------------------------------------------------------------------------------------------

    def begin(self, device: torch.device | str) -> None:
        """Before the first step of a run, new or resumed: teachers to the device, hooks on, what is over is frozen."""
        for teacher in self.teachers:
            teacher.start(device)
        self.taps.install()
        self._entered, self._pending, self.shares, self.witness = "", None, None, None
        for name in self.finished:
            self.method(name).finish_stage()

    def follow(self, average: Any, see: Callable[[Tensor], Tensor]) -> None:
        """Let the teacher that is the student's moving average be this copy of the task; before `begin`. `see` makes the
        network's input of pictures."""
        for teacher in self.teachers:
            if isinstance(teacher, MeanTeacher):
                teacher.follow(average, see)

    def end(self) -> None:
        """After the last step: no hook is left on the student."""
        self.taps.remove()
        for teacher in self.teachers:
            teacher.taps.remove()
        self._pending = self.shares = self.witness = None

    def enter(self, epoch: int, optimizers: Iterable[Optimizer]) -> None:
        """Before each step: change the stage where the epoch asks for it."""
        self.epoch = epoch
        if not (self.stages or self.only) or self.stage == self._entered:
            return
        self._entered = self.stage
        over = [name for name, end in self.stages if epoch >= end and name not in self.finished]
        self.methods.train()
        for name in [*self.finished, *over]:
            self.method(name).finish_stage()
        if over:
            self.finished += over
            for optimizer in optimizers:
                optimizer.state = defaultdict(dict)
                optimizer.zero_grad()
        self.set_modes()
        if not self.stages:
            return
        total = f"epochs {self.initial_epochs} and on"
        if self.stage is not None:
            total = f"initial stage, to epoch {dict(self.stages)[self.stage]} of {self.initial_epochs}"
        log.info("distillation: epoch %d: %s, %s", epoch, self.stage or "training", total)

    def set_modes(self) -> None:
        """Freeze and put into eval mode what this stage does not train."""
        student, name = self.taps.network[0], self.stage
        if name is None:
            student.train()
            for key, parameter in student.named_parameters():
                parameter.requires_grad_(key not in self._frozen)
            for path, module in student.named_modules() if self.only else ():
                module.training = within(path, self.only)
            return
        chosen = self.parts[name].trained if self.runs_student else frozenset()
        student.eval()
        for path, module in student.named_modules():
            own = [f"{path}.{key}" if path else key for key, _ in module.named_parameters(recurse=False)]
            if any(key in chosen for key in own):
                module.training = True
        for key, parameter in student.named_parameters():
            parameter.requires_grad_(key in chosen and key not in self._frozen)

    # A step -----------------------------------------------------------------------------------------

    def join(self, objective: Callable[[], Terms], output: Any, batch: Batch, shown: Tensor) -> Terms:
        """The terms of a step. `output` is the student's answer, recorded within `with distiller.taps`; `objective` gives
        the task's own terms; `shown` are the pictures for the teacher."""
        recorded = self.taps.take() if self.runs_student else {}
        terms: Terms = {}
        stage, epoch = self.stage, self.epoch - self.initial_epochs
        if stage is None and self.task_weight != 0:
            weight = self.task_weight
            terms = {name: term if weight == 1 else term * weight for name, term in objective().items()}
        factors = {name: part.factor(epoch) for name, part in self.parts.items()}
        factors = {stage: 1.0} if stage is not None else {name: f for name, f in factors.items() if f > 0}
        if not factors:
            if not terms:
                raise ConfigError(
                    f"distill: nothing is learned in epoch {epoch}: no method counts and the task's own weight is 0. Change "
                    "start and end of the methods, or distillation.task_weight."
                )
            return terms
        with torch.autocast(shown.device.type, enabled=False):
            mine = first_tensor(output)
            mine = (
                shown.new_empty(0, dtype=torch.float32)
                if mine is None or self.kind == "objects"
                else mine.float()
            )
            seen = {path: value.float() for path, value in recorded.items()}
        theirs, taught = self.ask(shown, batch)
        watched = theirs if theirs.numel() else next(iter(taught.values()), theirs)
        self.witness = watched.abs().amax() if watched.numel() else None
        views, own = {}, len(terms)
        with torch.autocast(shown.device.type, enabled=False):
            for name, factor in factors.items():
                part = self.parts[name]
                paths = part.student if self.runs_student else ()
                views[name] = view(mine, seen, paths), view(theirs, taught, part.teacher)
                method = self.method(name)
                named = (method if stage is None else method.initial)(*views[name], batch)
                scale = part.weight * factor if stage is None else 1.0
                terms |= _named(name, named, scale, terms)
        if stage is None:
            self._pending = views, batch
        each = list(terms.values())
        self.shares = (each[:own], each[own:]) if 0 < own < len(each) else None
        return terms

    def ask(self, shown: Tensor, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """What the teachers answer, or once did, and their taps by path."""

        def now() -> tuple[Tensor, dict[str, Tensor]]:
            return answer(self.teachers, shown, batch, kind=self.kind, average=self.average)

        if self.cache is None:
            return now()
        return self.cache(batch["index"], shown, lambda: now()[0]), {}

    @torch.no_grad()
    def after_backward(self) -> None:
        """Let the methods update what they remember of the step."""
        self.shares = None
        if self._pending is None:
            return
        (views, batch), self._pending = self._pending, None
        for name, (student, teacher) in views.items():
            with torch.autocast(student.output.device.type, enabled=False):
                detached = View(student.output.detach(), tuple(x.detach() for x in student.features))
                self.method(name).after_step(detached, teacher, batch)


def within(path: str, modules: Iterable[str]) -> bool:
    """Whether a path is that of one of the modules, or of something in one."""
    return any(path == each or path.startswith(f"{each}.") for each in modules)


def _named(method: str, terms: Terms, scale: float, taken: Mapping[str, Tensor]) -> Terms:
    """The terms of a method, weighted, under its name: `kd`, or `rkd_distance` and `rkd_angle`."""
    result = {}
    for name, term in terms.items():
        short = name.removeprefix(f"{method}_")
        full = method if len(terms) == 1 or short == method else f"{method}_{short}"
        result[f"distill_{full}" if full in taken else full] = term * scale
    return result
