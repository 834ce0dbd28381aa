"""Build the distiller of a config: load the teachers, find shapes in a dry run, build the methods for them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from dvsn.data.chance import random_part
from dvsn.data.module import DataModule
from dvsn.distill.cache import Answers
from dvsn.distill.distiller import Distiller, Part
from dvsn.distill.method import Method
from dvsn.engine.deploying import deploy
from dvsn.engine.devices import device_count
from dvsn.engine.grafting import Notes, graft, only_one, renew
from dvsn.engine.methods import (
    make_method,
    method_class,
    paths_of,
    require_company,
    require_reads,
    task_weight,
)
from dvsn.engine.rehearsal import Rehearsal, reached, rehearse
from dvsn.engine.teachers import measured_by, read_teachers, require_alike, unlike_answer, unlike_names
from dvsn.errors import ConfigError
from dvsn.seeding import seed_everything
from dvsn.tasks.base import Task

Config = dict[str, Any]

LOOKED_AT = 8  # items, whether they look the same in every epoch


def distil(task: Task, config: Config, data: DataModule, ran: Sequence[str] | None = None) -> None:
    """Give the task a distiller where the config asks for one: `distill` holds its methods by name, `teacher` and
    `distillation` the rest; `ran` are the forms of the teachers in the run that is continued. Opens the training data for
    one sample, its size and its labels.

    Raises `ConfigError` for a method that does not understand this kind of task, a wrong pair of taps, or two networks that
    a method cannot match; `CheckpointError` for a teacher that does not fit.
    """
    chosen = {name: node for name, node in (config.get("distill") or {}).items() if node is not None}
    if not chosen:
        return
    options = config.get("distillation") or {}
    kinds = fitting_classes(task, chosen, config)
    require_labels(kinds, task, data)
    teachers = read_teachers(task, config.get("teacher"), options)
    paths = {name: paths_of(task.student, teachers, node, name) for name, node in chosen.items()}
    found = rehearse(task, teachers, paths, data)
    compared = any(kind.reads and kind.compares for kind in kinds.values())
    for teacher, answer in zip(teachers, found.answers, strict=True):
        shapes = found.student.output, answer.output
        teacher.alike = not unlike_answer(task, *shapes, teacher) and not unlike_names(data, teacher)
        if compared:
            require_alike(task, data, *shapes, teacher)
    seed_everything(int(config["seed"]), rank=0, epoch=0, batch=0, stage=3)
    built = build_methods(found, chosen, kinds, config)
    changing = [name for name, each in built.methods.items() if kinds[name].grafts or each.only is not None]
    if changing and any(teacher.moves for teacher in teachers):
        raise ConfigError(
            f"distill: {changing[0]} changes the student, or trains a part of it alone, after the teacher, and teacher=ema "
            "is the student itself. Choose another method, such as kd or pixel_kd."
        )
    parts = {name: part_of(found, name, node, built.methods[name]) for name, node in chosen.items()}
    tapped = [path for part in parts.values() for path in part.teacher]
    size = max(1, data.batch_size // device_count(config["trainer"]))
    forms = deploy(teachers, tapped, found.shown, config, batch_size=size, ran=ran)
    distiller = Distiller(
        kind=task.response,
        student=task.student,
        teachers=teachers,
        methods=built.methods,
        parts=parts,
        task_weight=task_weight(chosen, options),
        earlier_task_weight=task_weight(chosen, options, in_company=True),
        average=options.get("average") or "probabilities",
        stage_lr=options.get("stage_lr"),
        only=built.heads,
        notes=[*forms, *built.notes],
        cache=answers_on_disk(config, data, found, parts),
    )
    task.use_distiller(distiller, {name: {"weight": part.weight} for name, part in parts.items()})
    if options.get("compile"):
        for teacher in teachers:
            if not teacher.moves:
                teacher.compile()


def fitting_classes(task: Task, chosen: Config, config: Config) -> dict[str, type[Method]]:
    """The classes of the chosen methods, all of which understand this task and its batches."""
    kinds = {name: method_class(node, name) for name, node in chosen.items()}
    for name, kind in kinds.items():
        require_reads(name, kind, task.response)
        require_company(name, kind, chosen[name], config)
    return kinds


def require_labels(kinds: dict[str, type[Method]], task: Task, data: DataModule) -> None:
    """Refuse methods that read the class of each picture where pictures have none."""
    needing = [name for name, kind in kinds.items() if kind.needs_classes]
    if needing and data.has_unlabelled and task.response == "classes":
        raise ConfigError(
            f"distill: {', '.join(needing)} reads the class of each picture, and data.more has some without. Choose a "
            "method that reads none, such as kd or at."
        )


class Built(NamedTuple):
    """The methods of a run, in the order of the config, and what they did to the student."""

    methods: dict[str, Method]
    heads: tuple[str, ...]
    """The paths of its modules that are trained alone, where a method asks for that."""
    notes: Notes


def build_methods(found: Rehearsal, chosen: Config, kinds: dict[str, type[Method]], config: Config) -> Built:
    """The method that grafts comes first, for the others are built for the student as it is afterwards."""

    def made(name: str) -> Method:
        kind = kinds[name]
        return make_method(chosen[name], name, kind, found.sides(name, joint=kind.grafts), found.facts)

    methods: dict[str, Method] = {}
    notes: Notes = []
    task, grafting = found.task, only_one([name for name, kind in kinds.items() if kind.grafts])
    if grafting is not None:
        methods[grafting] = made(grafting)
        found.graft(graft(task, grafting, methods[grafting], found.paths, found.run_student, notes))
    methods = {name: methods.get(name) or made(name) for name in chosen}
    alone = only_one([name for name, method in methods.items() if method.only is not None], beside=grafting)
    heads: tuple[str, ...] = ()
    if alone is not None:
        run = found.run_student, found.run_teacher
        heads = renew(task, alone, methods[alone], found.teachers, *run, config, notes)
    return Built(methods, heads, notes)


def part_of(found: Rehearsal, name: str, node: Config, method: Method) -> Part:
    """The weight of a method in the objective, and the epochs in which it counts."""
    own, other = found.paths[name]
    staged = method.stage is not None and method.stage.student
    return Part(
        weight=float(node["weight"]),
        student=own,
        teacher=other,
        start=node.get("start") or 0,
        end=node.get("end"),
        ramp=node.get("ramp") or 0,
        trained=reached(found.task.student, own, found.run_student) if staged else frozenset(),
    )


def answers_on_disk(
    config: Config, data: DataModule, found: Rehearsal, parts: dict[str, Part]
) -> Answers | None:
    """The cache that `distillation.cache` asks for. Raises `ConfigError` where the same item looks otherwise in
    another epoch, where a method wants more of the teacher than its output, or where items are not numbered."""
    chosen = (config.get("distillation") or {}).get("cache")
    if chosen is None:
        return None
    output, samples = found.answers[0].output, found.facts.samples
    tapped = [name for name, part in parts.items() if part.teacher]
    if tapped or not output or not samples:
        what = (
            f"{', '.join(tapped)} wants the teacher's features"
            if tapped
            else "this data or task has none to keep"
        )
        raise ConfigError(
            f"distillation.cache: keeps answers alone, and {what}. Set distillation.cache=null."
        )
    if any(teacher.moves for teacher in found.teachers):
        raise ConfigError(
            "distillation.cache: the student's moving average answers otherwise in every step. Set distillation.cache=null."
        )
    if not all(getattr(teacher.holder, "answers_alone", True) for teacher in found.teachers):
        raise ConfigError(
            "distillation.cache: the teacher answers with dropout or by the statistics of a batch, as it is tested, so that "
            "its answers differ from step to step. Set distillation.cache=null."
        )
    drawn = "" if data.mix is None else type(data.mix).__name__
    drawn = drawn or random_part(data.steps["train"]) or random_items(data, samples)
    if drawn:
        raise ConfigError(
            f"distillation.cache: the pictures of an item change from epoch to epoch by {drawn}, and the teacher's answers "
            "with them. Set distillation.cache=null, or a training transform without random steps, such as transform=none."
        )
    forms = "".join(f"_{teacher.engine}" for teacher in found.teachers if teacher.engine != "eager")
    return Answers(Path(chosen) / f"{measured_by(config, answers=True)[:16]}{forms}", samples, output)


def random_items(data: DataModule, samples: int) -> str:
    """Whether a data set of the user's own is random by itself, by a look at some items in four epochs."""
    training: Any = data.datasets["train"]
    for index in range(min(LOOKED_AT, samples)):
        first, *others = (training[epoch, index]["image"] for epoch in range(4))
        if any(not torch.equal(first, other) for other in others):
            return type(training).__name__
    return ""


def describe(distiller: Distiller) -> list[tuple[str, str]]:
    """Lines about the distillation for the log, before training starts: (title, text)."""
    lines = [
        ("teacher", f"{each.name}, {sum(p.numel() for p in each.network.parameters()):,} parameters")
        for each in distiller.teachers
    ]
    for name, part in distiller.parts.items():
        own = sum(p.numel() for p in distiller.method(name).parameters())
        pairs = ", ".join(f"{a} <- {b}" for a, b in zip(part.student, part.teacher, strict=True))
        words = [f"{name}, weight {part.weight:g}", pairs or "output", f"{own:,} parameters" if own else ""]
        lines.append(("distill", "; ".join(filter(None, words))))
        if remark := distiller.method(name).remark:
            lines.append(("distill", f"{name}: {remark}"))
    if distiller.cache is not None:
        known, samples = distiller.cache.count, len(distiller.cache.pictures)
        lines.append(("cache", f"{distiller.cache.folder}, {known:,} of {samples:,} answers known"))
    lines += distiller.notes
    if distiller.task_weight != 1:
        lines.append(("task weight", f"{distiller.task_weight:g}"))
    if distiller.initial_epochs:
        lines.append(("stages", ", ".join(f"{name} to epoch {end}" for name, end in distiller.stages)))
    return lines
