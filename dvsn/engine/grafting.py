"""Changes that a method of distillation makes to the student: added layers (grafts), and heads that are
initialised again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from dvsn.config.build import build
from dvsn.distill import taps
from dvsn.distill.distiller import within
from dvsn.distill.joints import FITTING
from dvsn.distill.method import Method
from dvsn.distill.teacher import Teacher
from dvsn.errors import ConfigError, nearest
from dvsn.networks.blocks import class_layers
from dvsn.networks.graft import Graft
from dvsn.seeding import seed_everything
from dvsn.tasks.base import Task
from dvsn.weights import compare

Names = dict[str, tuple[tuple[str, ...], tuple[str, ...]]]
"""Of each method its taps in the student and in the teacher."""
Notes = list[tuple[str, str]]
"""Lines for the log before the run starts: (title, text)."""


def only_one(names: list[str], *, beside: str | None = None) -> str | None:
    """The one method of a run that changes the student, or None. Raises `ConfigError` if there are two."""
    every = [*names, *([beside] if beside and names else [])]
    if len(every) > 1:
        raise ConfigError(
            f"distill: each of {', '.join(every)} changes the student or trains a part of it alone, and a run has one such "
            "method. Leave out the others, or run them one after the other."
        )
    return names[0] if names else None


def graft(
    task: Task, name: str, method: Method, names: Names, rehearse: Callable[[], Any], notes: Notes
) -> Names:
    """Add the layers of `method.change` to the student and check them by a dry run. Returns the taps of all
    methods in the changed student. Raises `ConfigError` for a tap that is no longer there, or a map that the
    class layer does not read."""
    change, student = method.change, task.student
    assert change is not None
    at, head, without = change.node["at"], change.node["head"], change.node.get("without", [])
    for other, (own, _) in names.items():
        lost = [path for path in own if other != name and within(taps.module_path(path), without)]
        if lost:
            raise ConfigError(
                f"distill.{other}.taps: '{lost[0]}' is not in the student that {name} makes, which goes on from '{at}' "
                "through a projector. Tap that or a module before it, or leave out one of the methods."
            )
    before = count(student)
    task.use_graft(change.node)
    if change.head is not None:
        student.get_submodule(head).load_state_dict(change.head.state_dict())
    try:
        joint = taps.joint(student, f"{at}.graft", rehearse)
    except RuntimeError:  # shapes that do not fit
        joint = None
    if joint is None or not joint.pooled:
        raise ConfigError(
            f"distill.{name}.taps: behind '{at}' of {type(student).__name__} the class layer '{head}' reads something else "
            f"than the average over the pixels. Tap its last map, or choose {FITTING}."
        )
    notes.append(("graft", f"{name}: {told(task, change.head, before)}"))
    tap = f"{at}.graft.{change.tap}" if change.tap else f"{at}.graft"
    return {**names, name: ((tap,), names[name][1][-1:])}


def told(task: Task, reused: nn.Module | None, before: int) -> str:
    """A line for the log: the parameters of a graft, and of the shipped student, which had `before` of them."""
    own = next(module for module in task.student.modules() if isinstance(module, Graft))
    words = [f"{count(own):,} parameters behind {own.at}"]
    with taps.undisturbed(task):  # what is shipped is in eval mode
        after = count(task.deployable())
    if reused is not None:
        words.append(f"the teacher's class layer of {count(reused):,}, which is not trained")
    if getattr(own, "without", ()):
        words.append(f"without {', '.join(own.without)}")  # type: ignore[arg-type]
    change = (
        "as before"
        if after == before
        else f"{abs(after - before):,} {'more' if after > before else 'fewer'} than before"
    )
    return f"{', '.join(words)}; the shipped student has {after:,} parameters, {change}"


def renew(
    task: Task,
    name: str,
    method: Method,
    teachers: Sequence[Teacher],
    rehearse: Callable[[], Any],
    ask: Callable[[], Any],
    config: dict[str, Any],
    notes: Notes,
) -> tuple[str, ...]:
    """Load the teacher's weights into the student, except for the head, which is initialised from the run's seed.

    Returns the paths of the head's modules. Raises `ConfigError` where the teacher is not the same network, or sees other
    pictures.
    """
    student, teacher = task.student, teachers[0]
    where, state = f"distill.{name}", teacher.network.state_dict()
    if len(teachers) > 1 or not isinstance(teacher.holder, Task):
        raise ConfigError(
            f"{where}: expected one teacher, the student's own checkpoint of dvsn. Set teacher=stage1.ckpt."
        )
    different = compare(student.state_dict(), state)
    if different:
        raise ConfigError(
            f"{where}: the teacher must be the student as it was trained before, and {teacher.name} is another network "
            f"({len(different)} differences, {different[0]}). Set network and its options as they are in that checkpoint."
        )
    heads = head_paths(student, method.only or (), f"{where}.method.head")
    if config.get("weights"):
        own = student.state_dict()
        changed = [key for key in own if not within(key, heads) and not torch.equal(own[key], state[key])]
        if changed:
            raise ConfigError(
                f"weights: is not the checkpoint that teaches: '{changed[0]}' differs. {name} takes its teacher's trunk: "
                "set teacher alone."
            )
    student.load_state_dict(state)
    with taps.undisturbed(student):
        mine, theirs = taps.first_tensor(rehearse()), taps.first_tensor(ask())
    assert mine is not None and theirs is not None
    if mine.shape != theirs.shape or not torch.allclose(mine, theirs, rtol=1e-4, atol=1e-5):
        raise ConfigError(
            f"{where}: the teacher sees pictures otherwise than the student, by its mean, std, channels or size, and its "
            "trunk would not fit. Set these as they are in its checkpoint, and distillation.size=null."
        )
    seed_everything(int(config["seed"]), rank=0, epoch=0, batch=0, stage=2)
    fresh = build(task.recipe["network"], path="task.network").state_dict()
    student.load_state_dict({key: (fresh if within(key, heads) else state)[key] for key in state})
    trained = sum(p.numel() for key, p in student.named_parameters() if within(key, heads))
    share = f"; {method.share:g} of trainer.max_epochs and of the schedule" if method.share < 1 else ""
    notes.append(
        (
            "head",
            f"{name}: {', '.join(heads)} anew and trained alone, {trained:,} of {count(student):,} parameters; the rest is "
            f"the teacher's, frozen and in eval mode{share}",
        )
    )
    return heads


def head_paths(student: nn.Module, chosen: Sequence[str], where: str) -> tuple[str, ...]:
    """The modules of the head: those chosen, else the network's class layers. Raises `ConfigError` for what
    is not there."""
    modules = dict(student.named_modules())
    paths = tuple(chosen or class_layers(student))
    for path in paths:
        if not path or path not in modules:
            modules.pop("", None)
            raise ConfigError(
                f"{where}: {type(student).__name__} has no module '{path}'. {nearest(path, modules)}"
            )
    if not any(within(key, paths) for key, _ in student.named_parameters()):
        raise ConfigError(
            f"{where}: {type(student).__name__} does not say what its head is, or it has no parameters. Give the paths of "
            f"its modules, such as {where}=[final_layer]."
        )
    return paths


def count(module: nn.Module) -> int:
    """The number of parameters of a module."""
    return sum(parameter.numel() for parameter in module.parameters())
