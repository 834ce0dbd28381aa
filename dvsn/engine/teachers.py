"""The teachers of a run: checkpoints of dvsn or a network of the user's own; whether they fit, and their own
score."""

from __future__ import annotations

import copy
import hashlib
import json
import logging
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from dvsn.config.build import build
from dvsn.data.module import DataModule
from dvsn.distill.method import Shape
from dvsn.distill.teacher import MeanTeacher, Teacher
from dvsn.engine.devices import device_count
from dvsn.engine.trainer import build_data, build_trainer, measure_by
from dvsn.errors import CheckpointError, ConfigError
from dvsn.hub.resolve import files_of, read
from dvsn.tasks.base import Task
from dvsn.tasks.items import VIEWED
from dvsn.tasks.normalise import Normalise, fit
from dvsn.tasks.recipe import load
from dvsn.weights import find_weights, require_equal

log = logging.getLogger(__name__)
Config = dict[str, Any]
AVERAGE = "ema"
"""The word for `teacher` that means the student's moving average."""


def read_teachers(task: Task, given: str | list[str] | None, options: Config) -> list[Teacher]:
    """The teachers of a config: checkpoints of dvsn, one network of the user's own, or the student's moving average."""
    size = options.get("size")
    if given == AVERAGE:
        return [mean_teacher(task, size)]
    if options.get("network") is not None:
        return [own_teacher(task, options, size)]
    return [
        checkpoint_teacher(task, str(path), size)
        for path in ([given] if isinstance(given, str) else given or [])
    ]


def checkpoint_teacher(task: Task, path: str, size: list[int] | None) -> Teacher:
    """A task's network as it was trained, with its own normalisation, channel order and input size."""
    teacher = load(path)
    if teacher.kind != task.kind:
        raise CheckpointError(
            f"teacher: {path} is a checkpoint of the task '{teacher.kind}', expected '{task.kind}'."
        )
    if size is not None:
        teacher.teaching_size = (size[0], size[1])
    ask = teacher.teach
    if teacher.response != task.response:  # another form of the same task, which may translate
        ask = getattr(teacher, f"teach_{task.response}", ask)
    name = f"{type(teacher.student).__name__} of {path}"
    return Teacher(teacher, teacher.student, ask, name=name, translate=task.translate_from(teacher))


def mean_teacher(task: Task, size: list[int] | None) -> Teacher:
    """The student's own moving average, which is a copy of it until the training starts."""
    if task.kind not in VIEWED:
        raise ConfigError(f"teacher: ema is for {' and '.join(VIEWED)}, found task={task.kind}.")
    if size is not None:
        raise ConfigError(
            f"distillation.size: found {size} with teacher=ema, which sees what the student sees. Set distillation.size=null"
        )
    twin = copy.deepcopy(task)
    return MeanTeacher(
        twin, twin.student, twin.teach, name=f"the moving average of {type(twin.student).__name__}"
    )


class OwnTeacher(nn.Module):
    """A user's network and what it sees: uint8 RGB pictures, normalised and of its size."""

    def __init__(self, network: nn.Module, normalise: nn.Module, size: list[int] | None) -> None:
        super().__init__()
        self.network, self.normalise, self.size = network, normalise, size

    def forward(self, image: Tensor) -> Any:
        return self.network(fit(self.normalise(image), self.size))


def own_teacher(task: Task, options: Config, size: list[int] | None) -> Teacher:
    network = build(options["network"], path="distillation.network")
    if options.get("weights"):
        path = options["weights"]
        content = read(path)
        state = find_weights(content).state
        require_equal(network.state_dict(), state, f"distillation.weights: {path}")
        network.load_state_dict(state, strict=True)
    else:
        log.warning("distillation.weights: not given, so the teacher has the weights that its class gives it")
    normalise = getattr(task, "normalise", None) or getattr(task, "encoder", None)
    if normalise is None:
        raise ConfigError(
            f"distillation.network: a teacher of the task '{task.kind}' must be a checkpoint of dvsn. Set teacher=..."
        )
    given = {key: options[key] for key in ("mean", "std", "channels") if options.get(key) is not None}
    if given and isinstance(normalise, Normalise):
        own = {
            "mean": normalise.mean.flatten().tolist(),
            "std": normalise.std.flatten().tolist(),
            "channels": normalise.channels,
        }
        normalise = Normalise(**{**own, **given})
    else:
        normalise = copy.deepcopy(normalise)
    holder = OwnTeacher(network, normalise, size)
    return Teacher(holder, network, holder, name=type(network).__name__)


# Whether they answer about the same ------------------------------------------------------------------------------


WHAT = {
    "classes": "classes", "pixels": "classes", "heatmaps": "keypoints", "points": "landmarks", "image": "channels",
    "objects": "",
}  # fmt: skip


def require_alike(task: Task, data: DataModule, student: Shape, teacher: Shape, which: Teacher) -> None:
    """Refuse a teacher that answers about other classes, keypoints or channels, given the shapes of both answers."""
    found = unlike_answer(task, student, teacher, which) or unlike_names(data, which)
    if found:
        raise ConfigError(f"teacher: {which.name} {found}")


def unlike_answer(task: Task, student: Shape, teacher: Shape, which: Teacher) -> str:
    """How the output of a teacher differs from the student's, and what to do about it; empty if both are alike."""
    what = WHAT[task.response]
    if task.response == "objects":
        mine, theirs = (getattr(each, "classes", None) for each in (task.student, which.network))
        return "" if mine == theirs else f"finds objects of {theirs} classes, the student of {mine}."
    if len(student) == len(teacher) and student[:1] == teacher[:1]:
        return ""
    return (
        f"answers with {shape(teacher)}, the student with {shape(student)}; expected as many {what}. Choose a teacher that "
        f"was trained on the same {what}, or a method of features alone, such as distill=at."
    )


def unlike_names(data: DataModule, which: Teacher) -> str:
    """The classes or keypoints that teacher and student number differently, where both name them; empty if there
    are none."""
    what, option, own, others = names_of(data, which)
    if sorted(own) != sorted(others) or own == others:
        return ""
    number = next(i for i, pair in enumerate(zip(own, others, strict=True)) if pair[0] != pair[1])
    return (
        f"knows the {what} in another order: number {number} is '{others[number]}' there and '{own[number]}' here. State "
        f"the order of the teacher in {option}."
    )


def names_of(data: DataModule, which: Teacher) -> tuple[str, str, tuple[str, ...], tuple[str, ...]]:
    """What is named, by which option, and the names by number of the student's data and of a teacher's; empty where they are
    not known."""
    known: Any = getattr(which.holder, "data_recipe", {})
    if data.wanted == "people":
        own = () if data.keypoints is None else data.keypoints.names
        others = tuple((known.get("keypoints") or {}).get("names") or ())
        return "keypoints", "data.keypoints.names", own, others
    own = tuple(getattr(data.datasets["train"], "class_names", ()))
    own = own or (data.vocabulary.names if data.vocabulary else ())
    if data.wanted == "objects":
        found: Any = which.holder.vocabulary if known.get("objects") else None
        return "classes", "data.objects.names", own, () if found is None else tuple(found.names)
    listed: Any = getattr(which.holder, "class_names", ())
    return "classes", "data.dataset.names", own, tuple(listed)


def shape(of: Shape) -> str:
    return " x ".join(map(str, of)) or "no tensor"


# Their own score -------------------------------------------------------------------------------------------------

MEASURED_BY = ("data", "transform", "metrics", "monitor", "channels_last")
ASKED_BY = ("size", "average", "network", "weights", "mean", "std", "channels")
LEARNED_BY = (
    "network",
    "discriminator",
    "loss",
    "optim",
    "optim_discriminator",
    "schedule",
    "rates",
    "freeze",
)
"""Of the student's task what its teacher's answers do not depend on; the rest says what they are brought into."""


def measure(task: Task, config: Config) -> float | None:
    """The score on the validation split, by the run's monitor, of what the teacher teaches: at the size that it
    is shown, and of one view. In float32, as published; teachers of classes teach in the run's precision, which
    moves their answers by rounding alone, all others in float32 too.

    None where it cannot be had here: several teachers or devices, a network of the user's own, one that takes crops of
    another size, or one that answers about other classes.
    """
    name = (config.get("monitor") or {}).get("name")
    assert task.distiller is not None
    holders = [each.holder for each in task.distiller.teachers]
    teacher = holders[0]
    if len(holders) > 1 or not isinstance(teacher, Task) or device_count(config["trainer"]) > 1:
        return None
    if not task.distiller.teachers[0].alike or task.distiller.teachers[0].moves:
        return None
    if task.teaching_size is not None and teacher.teaching_size != task.teaching_size:
        return None
    before = measured_before(Path(config["run_dir"]), measured_by(config))
    if before is not None:
        return before
    data = build_data(config)
    _warn_of_batches(teacher, data)
    teacher.ask_data(data)
    teacher.data_recipe = {**config["data"], **teacher.data_recipe}
    measure_by(teacher, config.get("metrics") or {})
    teacher.evaluate_as_taught(task)
    trainer = build_trainer(
        {
            **config,
            "trainer": {**config["trainer"], "precision": "32-true"},
            "compile": False,
            "callbacks": None,
            "distill": {},
        },
        teacher,
        fitting=False,
    )
    trainer.validate(teacher, data, verbose=False)
    score = trainer.callback_metrics.get(str(name))
    return None if score is None else float(score)


def _warn_of_batches(teacher: Task, data: DataModule) -> None:
    """A generator that is tested with the statistics of a batch answers otherwise in a batch of another size."""
    taught, measured = data.batch_size, data.eval_batch_size
    if (
        getattr(teacher, "test_norm", "running") == "batch"
        and not teacher.answers_alone
        and taught != measured
    ):
        log.warning(
            "teacher: is tested with the statistics of each batch. It teaches in batches of %d and is measured in batches "
            "of %d, so its score is not quite that of what it teaches. Set data.eval_batch_size=%d",
            taught, measured, taught,
        )  # fmt: skip


def measured_by(config: Config, *, answers: bool = False) -> str:
    """A digest of what the score of a teacher depends on: its file, the data and how they are evaluated; with `answers` of
    what its answers depend on as the student gets them."""
    given = config.get("teacher")
    files = [given] if isinstance(given, str) else list(given or [])
    files += [config["distillation"]["weights"]] if config["distillation"].get("weights") else []
    known: list[Any] = [config.get(key) for key in MEASURED_BY]
    known[0] = {key: value for key, value in config["data"].items() if key != "seed"}
    if answers:
        known.append({key: value for key, value in config["task"].items() if key not in LEARNED_BY})
    known += [*(config["distillation"].get(key) for key in ASKED_BY), config["trainer"].get("precision")]
    whole = hashlib.sha256(json.dumps(known, sort_keys=True, default=str).encode())
    for path in [part for each in files for part in files_of(each)]:
        with path.open("rb") as file:
            whole.update(hashlib.file_digest(file, "sha256").digest())
    return whole.hexdigest()


def measured_before(folder: Path, key: str) -> float | None:
    """The score of the same teacher in the result of another job of the sweep that this run belongs to."""
    if not (folder / "job.json").is_file():
        return None
    for file in sorted(folder.parent.glob("*/result.json")):
        try:
            result = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if result.get("teacher_measured_by") == key and result.get("teacher_score") is not None:
            return float(result["teacher_score"])
    return None
