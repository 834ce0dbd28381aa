"""Candidates made of the teacher or of another network: pruned, with a smaller input, or from the teacher's layers."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dvsn.atomic import replacing
from dvsn.benchmark import compare
from dvsn.compress.candidates import Menu, own_words
from dvsn.compress.finish import CONFIG
from dvsn.compress.pruning import prune
from dvsn.compress.question import Question, listed
from dvsn.config import python
from dvsn.engine.checkpoint import AtomicCheckpointIO
from dvsn.engine.initial_weights import fitting_of
from dvsn.errors import ConfigError
from dvsn.export.graph import example
from dvsn.networks.shrunk import Shrunk

log = logging.getLogger("dvsn")
SHRINKS = ("pixels", "classes")
"""Answers that a smaller input leaves in their place: pixels are resized to the label, classes have none."""
SHARE = 1 / 3
"""Of the tensors of a student: where so many have the name and the shape of the teacher's, its layers are a start."""


def derive(question: Question) -> tuple[Question, dict[str, str]]:
    """The question whose candidates are all options of dvsn.train: those with words of their own become networks in
    `conf/network` of the folder. Returns it, and why some cannot be made. Raises `ConfigError` where none is left."""
    candidates, out = dict(question.menu.candidates), dict[str, str]()
    conf = question.folder / "conf"
    for name, words in question.menu.candidates.items():
        own, rest = own_words(words)
        if not own:
            continue
        try:
            node, start = made(question, name, own, rest)
        except ConfigError as error:
            out[name] = str(error)
            log.info("left out  %s: %s", name, error)
            del candidates[name]
            continue
        (conf / "network").mkdir(parents=True, exist_ok=True)
        write_yaml(conf / "network" / f"compress_{name}.yaml", node)
        others = [word for word in rest if not word.startswith("network")]
        weights = [] if start is None else [f"weights={python.spelt(start)}"]
        candidates[name] = [f"network=compress_{name}", *others, *weights]
    if not candidates:
        raise ConfigError(f"candidates: none can be made: {'; '.join(f'{k}: {v}' for k, v in out.items())}")
    menu = Menu(question.menu.task, candidates, question.menu.methods)
    return replace(question, menu=menu, conf=conf if conf.is_dir() else None), out


def write_yaml(path: Path, node: Any) -> None:
    import yaml

    with replacing(path) as temporary:
        text = yaml.safe_dump(plain(node), sort_keys=False, default_flow_style=None, width=120)
        temporary.write_text(text, encoding="utf-8")


def plain(value: Any) -> Any:
    """Without what YAML has no word for: tuples are lists."""
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    return [plain(each) for each in value] if isinstance(value, list | tuple) else value


def made(
    question: Question, name: str, own: Mapping[str, Any], rest: Sequence[str]
) -> tuple[dict[str, Any], Path | None]:
    """The node of a candidate's network, and the checkpoint that it starts from. Raises `ConfigError`."""
    teacher = question.named.task
    start: Path | None = None
    if own.get("network") == "teacher":
        require_teacher(question)
        node, start = dict(teacher.recipe["network"]), question.teacher.absolute()
    else:
        words = [f"task={question.menu.task}", *rest, *question.words]
        node = question.composed(words, lambda config: config["task"]["network"])
    if "pruned" in own:
        image = input_of(question)
        found = prune(teacher.network, node, image, own["pruned"])
        node, start = found.node, question.folder / "starts" / f"{name}.ckpt"
        if not start.is_file():
            save(teacher, {**teacher.recipe, "network": node}, found.state, start)
    if "input" in own:
        response = str(teacher.response)
        if response not in SHRINKS:
            raise ConfigError(
                f"input: answers of {response} have places in what the network sees. Give transform.size=[...] instead"
            )
        node = {"_target_": f"{Shrunk.__module__}.{Shrunk.__name__}", "network": node, "factor": own["input"]}
    return node, start


def require_teacher(question: Question) -> None:
    """Raises `ConfigError` where the teacher's own network is no candidate."""
    teacher = question.named.task
    if teacher.kind != question.menu.task:
        raise ConfigError(
            f"network: the teacher is of {teacher.kind}, and students are of {question.menu.task}"
        )
    if teacher.recipe.get("graft") is not None:
        raise ConfigError("network: the teacher has layers that a method of distillation has added")


def input_of(question: Question) -> Tensor:
    """A drawn picture as the teacher's network takes it."""
    config = {**CONFIG, "batch": 1}
    subject = compare.Subject(question.named, config, torch.device("cpu"))
    shown = example(question.named.task, 1, subject.shape.example)
    encoder = getattr(question.named.task, "encoder", None)
    shape = shown.shape if encoder is None else encoder(shown).shape
    return torch.rand(tuple(shape), generator=torch.Generator().manual_seed(0))


def save(task: Any, recipe: Mapping[str, Any], state: Mapping[str, Tensor], path: Path) -> None:
    """A checkpoint of the task's network alone, from which a training starts by `weights`."""
    content: dict[str, Any] = {}
    task.on_save_checkpoint(content)
    content["dvsn"] = {**content["dvsn"], "recipe": dict(recipe)}
    name = next(name for name, network in task.networks.items() if network is task.network)
    content["state_dict"] = {f"{name}.{key}": value.detach().clone() for key, value in state.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    AtomicCheckpointIO().save_checkpoint(content, path)


def starts(question: Question, tasks: Mapping[str, Any]) -> dict[str, Path]:
    """By candidate a checkpoint of random weights in which those of the teacher stand, wherever a tensor has the name and
    the shape of one of the teacher's; of candidates where enough do. `tasks` have random weights."""
    wanted = listed(question.options["starts"]) or ["random", "teacher"]
    if "teacher" not in wanted:
        return {}
    theirs = question.named.task.network.state_dict()
    found = {}
    for name, task in tasks.items():
        if any(word.startswith("weights=") for word in [*question.menu.candidates[name], *question.words]):
            continue
        own = task.network.state_dict()
        shared = fitting_of(theirs, own)
        if len(shared) < SHARE * len(own):
            continue
        path = question.folder / "starts" / f"{name}.ckpt"
        if not path.is_file():
            save(task, task.recipe, {**own, **shared}, path)
        log.info("start  %s: %d of %d tensors are the teacher's", name, len(shared), len(own))
        found[name] = path
    return found
