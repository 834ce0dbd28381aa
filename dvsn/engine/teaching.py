"""From a config to a distiller: teachers are loaded, taps probed, methods built for what was found, and all is checked."""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dvsn.config.build import build
from dvsn.config.menu import conf_dir
from dvsn.data.module import DataModule, collate
from dvsn.distill import taps
from dvsn.distill.cache import Answers
from dvsn.distill.distiller import Distiller, Part
from dvsn.distill.method import Facts, Kind, Method, Shape, Side
from dvsn.distill.taps import Probe, Taps
from dvsn.distill.teacher import Teacher
from dvsn.engine.devices import device_count
from dvsn.engine.grafting import Names, Notes, graft, only_one, renew
from dvsn.errors import CheckpointError, ConfigError
from dvsn.seeding import seed_everything
from dvsn.tasks.base import Task
from dvsn.tasks.normalise import Normalise, fit
from dvsn.tasks.recipe import load
from dvsn.weights import read_checkpoint, require_equal

log = logging.getLogger(__name__)
Config = dict[str, Any]


def distil(task: Task, config: Config, data: DataModule) -> None:
    """Give the task a distiller where the config asks for one: `distill` holds its methods by name, `teacher` and
    `distillation` the rest. Opens the training data for one sample, its size and its labels.

    Raises `ConfigError` for a method that does not understand this kind of task, a wrong pair of taps, or two networks that
    a method cannot match; `CheckpointError` for a teacher that does not fit.
    """
    chosen = {name: node for name, node in (config.get("distill") or {}).items() if node is not None}
    if not chosen:
        return
    options = config.get("distillation") or {}
    kinds = {name: method_class(node, name) for name, node in chosen.items()}
    for name, found in kinds.items():
        require_reads(name, found, task.response)
        require_company(name, found, chosen[name], config)
    teachers = read_teachers(task, config.get("teacher"), options)
    data.prepare_data()  # embedded scenes are drawn on first use; processes wait for the one that draws
    data.setup("fit")
    batch, facts = sample(data), facts_of(data)
    if "index" not in batch:
        facts = facts._replace(samples=0)

    student, parts = task.student, {}
    names: Names = {name: paths_of(student, teachers, node, name) for name, node in chosen.items()}
    mine = probe(student, [p for own, _ in names.values() for p in own], lambda: task.rehearse(batch))
    with taps.undisturbed(student):
        task.rehearse(batch)
        shown = task.shown(batch)
    theirs = [
        probe(
            each.network, [p for _, other in names.values() for p in other], lambda each=each: each.ask(shown)
        )  # type: ignore[misc]
        for each in teachers
    ]
    for teacher, seen in zip(teachers, theirs, strict=True):
        require_names(data, teacher)
        require_answer(task.response, mine.output, seen.output, teacher)
    facts = facts._replace(classes=facts.classes or classes_of(task.response, mine.output))
    seed_everything(int(config["seed"]), rank=0, epoch=0, batch=0, stage=3)
    rehearse, ask, notes = (
        functools.partial(task.rehearse, batch),
        functools.partial(teachers[0].ask, shown),
        Notes(),
    )

    def made(name: str) -> Method:
        own, other = names[name]
        sides = {
            "student": side(task.response, student, mine, own),
            "teacher": side(task.response, teachers[0].network, theirs[0], other),
        }
        if kinds[name].grafts and own:
            found = taps.joint(student, own[-1], rehearse), taps.joint(teachers[0].network, other[-1], ask)
            sides = {key: sides[key]._replace(joint=each) for key, each in zip(sides, found, strict=True)}
        return make_method(chosen[name], name, kinds[name], sides, facts)

    methods: dict[str, Method] = {}
    grafting = only_one([name for name, kind in kinds.items() if kind.grafts])
    if grafting is not None:
        methods[grafting] = made(grafting)
        names = graft(task, grafting, methods[grafting], names, rehearse, notes)
        mine = probe(student, [p for own, _ in names.values() for p in own], rehearse)
    methods = {name: methods.get(name) or made(name) for name in chosen}
    alone = only_one([name for name, method in methods.items() if method.only is not None], beside=grafting)
    heads: tuple[str, ...] = ()
    if alone is not None:
        heads = renew(task, alone, methods[alone], teachers, rehearse, ask, config, notes)
    for name, node in chosen.items():
        own, other = names[name]
        stage, learned = methods[name].stage, frozenset[str]()
        if stage is not None and stage.student:
            learned = reached(student, own, rehearse)
        parts[name] = Part(
            weight=float(node["weight"]),
            student=own,
            teacher=other,
            start=node.get("start") or 0,
            end=node.get("end"),
            ramp=node.get("ramp") or 0,
            trained=learned,
        )
    task.use_distiller(
        Distiller(
            kind=task.response,
            student=student,
            teachers=teachers,
            methods=methods,
            parts=parts,
            task_weight=task_weight(chosen, options),
            average=options.get("average") or "probabilities",
            stage_lr=options.get("stage_lr"),
            only=heads,
            notes=notes,
            cache=answers_on_disk(config, data, facts, parts, theirs[0].output),
        ),
        {name: {"weight": part.weight} for name, part in parts.items()},
    )
    if options.get("compile"):
        for teacher in teachers:
            teacher.network.compile()


def describe(distiller: Distiller) -> list[tuple[str, str]]:
    """What a run says of its distillation before it starts: (title, text)."""
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
        known, samples = distiller.cache.count, len(distiller.cache.known)
        lines.append(("cache", f"{distiller.cache.folder}, {known:,} of {samples:,} answers known"))
    lines += distiller.notes
    if distiller.task_weight != 1:
        lines.append(("task weight", f"{distiller.task_weight:g}"))
    if distiller.initial_epochs:
        lines.append(("stages", ", ".join(f"{name} to epoch {end}" for name, end in distiller.stages)))
    return lines


# Methods -------------------------------------------------------------------------------------------------


def method_class(node: Config, name: str) -> type[Method]:
    """The class of a method's node."""
    factory = build(node["method"], path=f"distill.{name}.method")
    found = factory.func if isinstance(factory, functools.partial) else None
    if not (isinstance(found, type) and issubclass(found, Method)):
        raise ConfigError(
            f"distill.{name}.method: expected a class of dvsn.distill.method.Method with _partial_: true."
        )
    return found


def require_reads(name: str, found: type[Method], kind: Kind) -> None:
    """Refuse a method that reads another kind of answer, with those that fit."""
    if found.reads and kind not in found.reads:
        raise ConfigError(
            f"distill.{name}: reads {' or '.join(found.reads)}, and this task answers with {kind}. Methods that fit: "
            f"{', '.join(fitting(kind)) or 'none'}."
        )


def require_company(name: str, found: type[Method], node: Config, config: Config) -> None:
    """Refuse a method of relations for batches of one item, unless it gathers those of several processes."""
    if not found.relates or config["data"].get("batch_size") != 1:
        return
    if not (node["method"].get("gather") and device_count(config["trainer"]) > 1):
        raise ConfigError(
            f"distill.{name}: relates the items of a batch to each other, and data.batch_size is 1: it would teach nothing. "
            "Set data.batch_size to 2 or more, or choose a method of single items such as distill=kd."
        )


def fitting(kind: Kind) -> list[str]:
    """The shipped methods that understand a kind of answer."""
    import yaml

    result = []
    for file in sorted(Path(conf_dir(), "distill").glob("*.yaml")):
        for name, node in (yaml.safe_load(file.read_text(encoding="utf-8")) or {}).items():
            if isinstance(node, dict) and "method" in node:
                reads = method_class(node, name).reads
                result += [file.stem] if not reads or kind in reads else []
    return result


def make_method(node: Config, name: str, kind: type[Method], sides: dict[str, Side], facts: Facts) -> Method:
    """The method of a node for two networks."""
    given: dict[str, Any] = dict(sides)
    if "facts" in inspect.signature(kind).parameters:
        given["facts"] = facts
    try:
        made = build({**node["method"], "_partial_": False}, path=f"distill.{name}.method", **given)
    except ConfigError as error:
        text = str(error)
        raise ConfigError(text if text.startswith("distill") else f"distill.{name}: {text}") from error
    assert isinstance(made, Method)
    return made


def task_weight(chosen: Config, options: Config) -> float:
    """What the task's own loss is multiplied by: `distillation.task_weight`; else what the methods' `task_weight` say, which
    must agree; else 1."""
    if options.get("task_weight") is not None:
        return float(options["task_weight"])
    stated = {
        name: float(node["task_weight"])
        for name, node in chosen.items()
        if node.get("task_weight") is not None
    }
    if len(set(stated.values())) > 1:
        listed = ", ".join(f"{name} {value:g}" for name, value in stated.items())
        raise ConfigError(
            f"distill: the methods want different weights of the task's own loss: {listed}. Set distillation.task_weight=..."
        )
    return next(iter(stated.values()), 1.0)


# The two networks ----------------------------------------------------------------------------------------


def paths_of(
    student: nn.Module, teachers: Sequence[Teacher], node: Config, name: str
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The taps of a method in both networks."""
    wanted = node.get("taps")
    if wanted is not None and len(teachers) > 1:
        raise ConfigError(
            f"distill.{name}.taps: with {len(teachers)} teachers only outputs can be averaged, and this method compares "
            "features. Name one teacher, or a method of outputs such as distill=kd."
        )
    try:
        return taps.pairs(student, teachers[0].network, wanted)
    except ConfigError as error:
        raise ConfigError(f"distill.{name}.{error}") from None


def probe(network: nn.Module, paths: Sequence[str], forward: Any) -> Probe:
    try:
        return taps.probe(network, Taps(network, paths), forward)
    except ConfigError as error:
        text = str(error)
        raise ConfigError(f"distill: {text}" if text.startswith("taps") else text) from None


def side(kind: Kind, network: nn.Module, seen: Probe, paths: Sequence[str]) -> Side:
    output = () if kind == "objects" else seen.output
    features = tuple(seen.features[path] for path in paths)
    return Side(kind, output, features, taps.norms(network, paths), taps.head(network))


def classes_of(kind: Kind, output: Shape) -> int:
    return output[0] if kind in ("classes", "pixels") and output else 0


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


WHAT = {
    "classes": "classes", "pixels": "classes", "heatmaps": "keypoints", "points": "landmarks", "image": "channels",
    "objects": "",
}  # fmt: skip


def require_answer(kind: Kind, student: Shape, teacher: Shape, which: Teacher) -> None:
    """Refuse a teacher that answers about other classes, keypoints or channels."""
    if kind == "objects":
        return
    if len(student) != len(teacher) or student[:1] != teacher[:1]:
        raise ConfigError(
            f"teacher: {which.name} answers with {shape(teacher)}, the student with {shape(student)}; expected as many "
            f"{WHAT[kind]}. Choose a teacher that was trained on the same {WHAT[kind]}."
        )


def require_names(data: DataModule, which: Teacher) -> None:
    """Refuse a teacher that numbers the same classes in another way, where both name them."""
    vocabulary = data.vocabulary
    own = tuple(getattr(data.datasets["train"], "class_names", ())) or (
        vocabulary.names if vocabulary else ()
    )
    others = tuple(getattr(which.holder, "class_names", ()))
    if sorted(own) != sorted(others) or own == others:
        return
    number = next(i for i, pair in enumerate(zip(own, others, strict=True)) if pair[0] != pair[1])
    raise ConfigError(
        f"teacher: {which.name} knows the classes in another order: number {number} is '{others[number]}' there and "
        f"'{own[number]}' here. State the order of the teacher in data.dataset.names."
    )


def shape(of: Shape) -> str:
    return " x ".join(map(str, of)) or "no tensor"


# Teachers ------------------------------------------------------------------------------------------------


def read_teachers(task: Task, given: str | list[str] | None, options: Config) -> list[Teacher]:
    """The teachers of a config: checkpoints of dvsn, or one network of the user's own."""
    size = options.get("size")
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
    return Teacher(teacher, teacher.student, ask, name=f"{type(teacher.student).__name__} of {path}")


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
        path = Path(options["weights"])
        content = read_checkpoint(path)
        state = content.get("state_dict", content)
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
        normalise = _copied(normalise)
    holder = OwnTeacher(network, normalise, size)
    return Teacher(holder, network, holder, name=type(network).__name__)


def _copied(module: nn.Module) -> nn.Module:
    import copy

    return copy.deepcopy(module)


def measure(task: Task, config: Config) -> float | None:
    """The teacher's own score on the validation split, by the run's monitor; None where it cannot be had here: several
    teachers or devices, a network of the user's own, or one that takes crops of another size."""
    from dvsn.engine import trainer as runtime

    name = (config.get("monitor") or {}).get("name")
    assert task.distiller is not None
    holders = [each.holder for each in task.distiller.teachers]
    teacher = holders[0]
    if len(holders) > 1 or not isinstance(teacher, Task) or device_count(config["trainer"]) > 1:
        return None
    if task.teaching_size is not None and teacher.teaching_size != task.teaching_size:
        return None
    before = measured_before(Path(config["run_dir"]), measured_by(config))
    if before is not None:
        return before
    data = runtime.build_data(config)
    teacher.ask_data(data)
    teacher.data_recipe = {**config["data"], **teacher.data_recipe}
    teacher.use_metrics(**config.get("metrics", {}))
    trainer = runtime.build_trainer(
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


MEASURED_BY = ("data", "transform", "metrics", "monitor", "channels_last")
ASKED_BY = ("size", "average", "network", "weights", "mean", "std", "channels")
LOOKED_AT = 8  # items, whether they look the same in every epoch


def measured_by(config: Config) -> str:
    """A digest of what the score of a teacher depends on: its file, the data and how they are evaluated."""
    given = config.get("teacher")
    files = [given] if isinstance(given, str) else list(given or [])
    files += [config["distillation"]["weights"]] if config["distillation"].get("weights") else []
    known: list[Any] = [config.get(key) for key in MEASURED_BY]
    known[0] = {key: value for key, value in config["data"].items() if key != "seed"}
    known += [*(config["distillation"].get(key) for key in ASKED_BY), config["trainer"].get("precision")]
    whole = hashlib.sha256(json.dumps(known, sort_keys=True, default=str).encode())
    for path in files:
        with Path(path).open("rb") as file:
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


def answers_on_disk(
    config: Config, data: DataModule, facts: Facts, parts: dict[str, Part], output: Shape
) -> Answers | None:
    """The cache that `distillation.cache` asks for. Raises `ConfigError` where the same item looks otherwise in another
    epoch, where a method wants more of the teacher than its output, or where items are not numbered."""
    chosen = (config.get("distillation") or {}).get("cache")
    if chosen is None:
        return None
    tapped = [name for name, part in parts.items() if part.teacher]
    if tapped or not output or not facts.samples:
        what = (
            f"{', '.join(tapped)} wants the teacher's features"
            if tapped
            else "this data or task has none to keep"
        )
        raise ConfigError(
            f"distillation.cache: keeps answers alone, and {what}. Set distillation.cache=null."
        )
    training: Any = data.datasets["train"]
    for index in range(min(LOOKED_AT, facts.samples)):
        first, *others = (training[epoch, index]["image"] for epoch in range(4))
        if any(not torch.equal(first, other) for other in others):
            raise ConfigError(
                "distillation.cache: the pictures of an item change from epoch to epoch, and the teacher's answers with "
                "them. Set distillation.cache=null, or views without chance, such as transform=none."
            )
    return Answers(Path(chosen) / measured_by(config)[:16], facts.samples, output)


# The data ------------------------------------------------------------------------------------------------


def sample(data: DataModule) -> dict[str, Any]:
    """A batch of one training sample, as training will see it."""
    training: Any = data.datasets["train"]
    join = getattr(training, "collate", collate)
    result: dict[str, Any] = join([training[0]])
    return result


def facts_of(data: DataModule) -> Facts:
    """How many samples the training has, and the class of each where they have one."""
    training: Any = data.datasets["train"]
    count = min(len(training), data.train_samples or len(training))
    parts = getattr(training, "parts", [training])
    labels = None
    if all(hasattr(part, "targets") for part in parts):
        labels = torch.cat([torch.as_tensor(part.targets, dtype=torch.int64).flatten() for part in parts])[
            :count
        ]
    return Facts(samples=count, classes=data.classes, labels=labels)
