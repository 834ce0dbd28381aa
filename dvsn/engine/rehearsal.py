"""A dry run of the student and its teachers on one training sample, which finds the shapes that methods are
built for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dvsn.data.module import DataModule, collate
from dvsn.distill import taps
from dvsn.distill.method import Facts, Kind, Shape, Side
from dvsn.distill.taps import Probe, Taps
from dvsn.distill.teacher import Teacher
from dvsn.engine.grafting import Names
from dvsn.engine.shown_alike import require_shown_alike
from dvsn.errors import ConfigError
from dvsn.tasks.base import Task
from dvsn.types import Batch


@dataclass
class Rehearsal:
    """A dry run of all networks, in eval mode, without gradient; their norms and random state stay as they were.

    `paths` are the taps of each method in both networks; `student` and `answers`, one a teacher, the shapes of outputs and
    at the taps; `shown` is what teachers see of `batch`.
    """

    task: Task
    teachers: Sequence[Teacher]
    batch: Batch
    shown: Tensor
    facts: Facts
    paths: Names
    student: Probe
    answers: Sequence[Probe]

    def run_student(self) -> Any:
        return self.task.rehearse(self.batch)

    def run_teacher(self) -> Any:
        """The output of the first teacher. Methods on features use no other."""
        return self.teachers[0].ask(self.shown)

    def graft(self, paths: Names) -> None:
        """Look at the student once more, which a method has changed and whose taps are others now."""
        self.paths = paths
        self.student = probe(self.task.student, own_paths(paths), self.run_student)

    def sides(self, name: str, *, joint: bool) -> dict[str, Side]:
        """What a method is built for, with `joint` also how the class layers read its last taps."""
        kind, own, network = self.task.response, self.task.student, self.teachers[0].network
        mine, theirs = self.paths[name]
        result = {
            "student": side(kind, own, self.student, mine),
            "teacher": side(kind, network, self.answers[0], theirs),
        }
        if joint and mine:
            found = (
                taps.joint(own, mine[-1], self.run_student),
                taps.joint(network, theirs[-1], self.run_teacher),
            )
            result = {key: result[key]._replace(joint=each) for key, each in zip(result, found, strict=True)}
        return result


def rehearse(task: Task, teachers: Sequence[Teacher], paths: Names, data: DataModule) -> Rehearsal:
    """Run all networks on the first training sample. Opens the training data."""
    data.prepare_data()  # embedded scenes are drawn on first use; processes wait for the one that draws
    data.setup("fit")
    require_shown_alike(data, teachers)
    batch, facts = sample(data), facts_of(data)
    if "index" not in batch:
        facts = facts._replace(samples=0)
    student = probe(task.student, own_paths(paths), lambda: task.rehearse(batch))
    with taps.undisturbed(task.student):
        task.rehearse(batch)
        shown = task.shown(batch)
    theirs = [path for _, other in paths.values() for path in other]
    answers = [probe(each.network, theirs, lambda each=each: each.ask(shown)) for each in teachers]  # type: ignore[misc]
    unit = getattr(task, "value_range", "signed") == "unit"
    classes = facts.classes or classes_of(task.response, student.output)
    facts = facts._replace(classes=classes, values=(0.0, 1.0) if unit else facts.values)
    return Rehearsal(task, teachers, batch, shown, facts, paths, student, answers)


def own_paths(paths: Names) -> list[str]:
    """The paths that all methods tap in the student."""
    return [path for own, _ in paths.values() for path in own]


def sample(data: DataModule) -> dict[str, Any]:
    """A batch of one training sample, as training will see it."""
    training: Any = data.datasets["train"]
    join = getattr(training, "collate", collate)
    result: dict[str, Any] = join([training[0]])
    return result


def facts_of(data: DataModule) -> Facts:
    """The number of training samples, and the class of each if there is one."""
    training: Any = data.datasets["train"]
    count = min(len(training), data.train_samples or len(training))
    labels = None
    if hasattr(training, "targets"):
        labels = torch.as_tensor(training.targets, dtype=torch.int64).flatten()[:count]
    return Facts(samples=count, classes=data.classes, labels=labels)


def classes_of(kind: Kind, output: Shape) -> int:
    """How many classes an output has; 0 where it has none."""
    return output[0] if kind in ("classes", "pixels") and output else 0


def probe(network: nn.Module, paths: Sequence[str], forward: Any) -> Probe:
    """As `dvsn.distill.taps.probe`, with the config's path in its messages."""
    try:
        return taps.probe(network, Taps(network, paths), forward)
    except ConfigError as error:
        text = str(error)
        raise ConfigError(f"distill: {text}" if text.startswith("taps") else text) from None


def side(kind: Kind, network: nn.Module, seen: Probe, paths: Sequence[str]) -> Side:
    """The shapes, norms and head of one network, student or teacher, that a method is built for."""
    output = () if kind == "objects" else seen.output
    features = tuple(seen.features[path] for path in paths)
    return Side(kind, output, features, taps.norms(network, paths), taps.head(network))


def reached(network: nn.Module, paths: Sequence[str], forward: Any) -> frozenset[str]:
    """The parameters that tapped tensors depend on. Leaves gradients, norms and random state as they are."""
    recorder = Taps(network, paths)
    named = {name: p for name, p in network.named_parameters() if p.requires_grad}
    with taps.undisturbed(network), torch.enable_grad():
        recorder.install()
        try:
            with recorder:
                forward()
            total = torch.stack([value.float().sum() for value in recorder.take().values()]).sum()
        finally:
            recorder.remove()
        gradients = torch.autograd.grad(total, list(named.values()), allow_unused=True)
    return frozenset(name for name, found in zip(named, gradients, strict=True) if found is not None)
