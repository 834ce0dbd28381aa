"""Checks that the parts of a run fit each other, by their class attributes. Nothing is built, and no data is opened.

A class says what it is for in class attributes; one that says nothing is let through:

- a task or a network: `response`, the kind of its answer (`dvsn.distill.method.Kind`);
- a task: `trains_with`, the parts that may be null in a task that is only used;
- a loss, a codec or a discriminator: `reads`, the kinds of answer that it understands;
- a network of segmentation: `training_heads(**options)`, how many auxiliary heads it has in training, and whether one of
  boundaries;
- a task: `samples`, the reader that it wants of a data set (`dataset`, `people` or `objects`), and `targets`, the kinds of
  array that it can learn; a reader of pictures: `gives`, the kind of each of its arrays;
- a transform that is an object: `treats`, which is what the task `shows` (`people`, `faces` or `objects`).
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from dvsn.config.allow import check, renamed
from dvsn.config.build import locate, options_of
from dvsn.config.menu import choices, conf_dir, listed
from dvsn.errors import ConfigError

PARTS = ("network", "discriminator", "loss", "codec")
"""The groups whose choice is a part of the task."""
BASE = "dvsn.tasks.base"
"""The module of the base of all tasks: what it and its own bases have are defaults, which no task has said."""
REFERENCE = re.compile(r"\$\{([\w.]+)\}")
LOWER = ("nme",)
HIGHER = ("ap", "pck", "pckh")
"""Scores of keypoints, by which of two values is the better one."""

Node = Mapping[str, Any]
Fits = Callable[[Node], bool]


class Run(NamedTuple):
    """The parts of a resolved config that are compared."""

    tree: Node
    task: type
    name: str
    """Of the task, as in `task=NAME`."""


def check_partners(tree: Node) -> None:
    """Refuse parts that do not fit the task or each other, with those that do. Raises `ConfigError`.

    In a tree that is not resolved, references to whole nodes are followed.
    """
    tree = {key: followed(tree, value) for key, value in tree.items()}
    for group in ("task", "data"):
        if isinstance(tree.get(group), Mapping):
            tree[group] = {key: followed(tree, value) for key, value in tree[group].items()}
    for group in ("task", "data", "trainer"):
        if tree.get(group) is None and group in choices():
            raise ConfigError(
                f"{group}: found null, and a training needs one. {listed(group, choices()[group])}"
            )
    node = tree.get("task")
    if not isinstance(node, Mapping) or "_target_" not in node:
        return
    task = class_of(node, "task")
    assert task is not None
    run = Run(tree, task, str(said(task, "kind") or task.__name__))
    _check_parts(run)
    _check_heads(run)
    if isinstance(tree.get("data"), Mapping):
        _check_reader(run, tree["data"])
        _check_transform(run, tree["data"])
        _check_direction(run)


def said(kind: type | None, name: str) -> Any:
    """A class attribute, or None where the class has not said it."""
    for owner in () if kind is None else kind.__mro__:
        if owner.__module__ == BASE:
            return None
        if name in vars(owner):
            return getattr(kind, name)
    return None


def class_of(node: Any, path: str) -> type | None:
    """The class of a node; None where there is none."""
    if not isinstance(node, Mapping) or "_target_" not in node:
        return None
    target = renamed(node)["_target_"]
    check({"_target_": target}, path=path)
    return locate(target, path)


def followed(tree: Node, value: Any) -> Any:
    """Resolve `${a.b}` in a value, or in the values of a node; return anything else as it is."""
    if isinstance(value, str) and (found := REFERENCE.fullmatch(value)):
        at: Any = tree
        for key in found[1].split("."):
            at = at.get(key) if isinstance(at, Mapping) else None
        return at
    return value


# What fits, found in conf/ ------------------------------------------------------------------------------


@functools.cache
def shipped(group: str) -> dict[str, Node]:
    """The shipped choices of a group by name: their YAML files over those that they inherit from, not resolved."""
    return {name: _read(Path(conf_dir(), group), name) for name in choices().get(group, [])}


def _read(folder: Path, name: str) -> dict[str, Any]:
    import yaml

    own = yaml.safe_load((folder / f"{name}.yaml").read_text(encoding="utf-8")) or {}
    result: dict[str, Any] = {}
    for parent in own.pop("defaults", []):
        if isinstance(parent, str) and parent != "_self_" and not parent.startswith("override "):
            result = _over(result, _read(folder, parent))
    return _over(result, own)


def _over(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    both = {
        key: _over(below[key], value)
        if isinstance(below.get(key), dict) and isinstance(value, dict)
        else value
        for key, value in above.items()
    }
    return below | both


def fitting(group: str, fits: Fits, rest: str = "") -> str:
    """A sentence that lists the shipped choices of a group that fit; `rest` is further advice at its end."""
    names = [name for name, node in shipped(group).items() if fits(node)]
    return listed(group, names, rest=rest, which=" that fit")


# Network, loss, codec, discriminator --------------------------------------------------------------------


def _suits(run: Run, part: str, node: Any) -> bool:
    """Whether a part understands, or gives, the kind of answer that the task has."""
    response, kind = said(run.task, "response"), class_of(node, part)
    answers, reads = said(kind, "response"), said(kind, "reads")
    if response is None or (answers is None and reads is None):
        return True
    return bool(answers == response if part == "network" else response in (reads or ()))


def _check_parts(run: Run) -> None:
    for part in PARTS:
        chosen, used = run.tree.get(part), run.tree["task"].get(part)
        by_hand = used is None and chosen is not None and part in run.tree["task"]
        if not _names_class(used) and _needs(run.task, part):
            raise ConfigError(
                f"{'task.' if by_hand else ''}{part}: {_without_class(used)}, and task={run.name} needs one. "
                f"{_those_that_suit(run, part)}"
            )
        if by_hand:
            continue
        kind = class_of(used, part)
        if kind is not None and not _suits(run, part, used):
            answers, reads = said(kind, "response"), said(kind, "reads")
            does = (
                f"answers with {answers}"
                if part == "network"
                else f"is for {' or '.join(reads or ('nothing',))}"
            )
            raise ConfigError(
                f"{part}: {kind.__name__} {does}, and task={run.name} is about {said(run.task, 'response')}. "
                f"{_those_that_suit(run, part)}"
            )
        idle = class_of(chosen, part)
        if idle is not None and part not in run.tree["task"] and not _holds(run.tree["task"], chosen):
            raise ConfigError(
                f"{part}: task={run.name} takes none, so {idle.__name__} would do nothing. Leave out {part}=..., or set "
                f"{part}=null."
            )


def _those_that_suit(run: Run, part: str) -> str:
    loss = run.tree["task"].get("loss")

    def fits(node: Node) -> bool:
        return _suits(run, part, node) and (part != "network" or not _missing_heads(node, loss))

    return fitting(part, fits)


def _needs(task: type, part: str) -> bool:
    """Whether a task has an option that takes an object of a class, and nothing else, at least in training."""
    options = options_of(task)
    option = None if options is None else options.named.get(part)
    return option is not None and (isinstance(option.hint, type) or part in (said(task, "trains_with") or ()))


def _without_class(node: Any) -> str:
    """What was found in place of a node with `_target_`, in words."""
    return f"found {json.dumps(node)[:80]} without _target_" if isinstance(node, Mapping) else "found null"


def _names_class(node: Any) -> bool:
    return node is not None and not (isinstance(node, Mapping) and "_target_" not in node)


def _holds(node: Any, wanted: Any) -> bool:
    """Whether a node is, or contains, another."""
    if node == wanted:
        return True
    inside = node.values() if isinstance(node, Mapping) else node if isinstance(node, list | tuple) else ()
    return any(_holds(each, wanted) for each in inside)


# The heads of segmentation ------------------------------------------------------------------------------


def _missing_heads(network: Any, loss: Any) -> dict[str, str]:
    """The terms of a loss that read a head which the network does not have in training, and that head."""
    heads = said(class_of(network, "network"), "training_heads")
    terms = loss.get("terms") if isinstance(loss, Mapping) else None
    if heads is None or not isinstance(terms, Mapping):
        return {}
    auxiliary, boundary = heads(**{key: value for key, value in network.items() if not key.startswith("_")})
    missing = {}
    for name, term in terms.items():
        if not isinstance(term, Mapping):
            continue
        head = "boundary" if term.get("boundary_threshold") is not None else _head(term)
        least = head + 1 if type(head) is int else int(head == "auxiliary")
        if least > auxiliary or (head == "boundary" and not boundary):
            missing[name] = f"auxiliary head {head}" if type(head) is int else f"the {head} head"
    return missing


def _head(term: Node) -> Any:
    """The head that a term reads; a class without such an option is of the boundary head."""
    kind = class_of(term, "loss.terms")
    options = options_of(kind) if kind is not None else None
    option = options.named.get("head") if options is not None else None
    return term.get("head", "boundary" if option is None else option.default)


def _check_heads(run: Run) -> None:
    network, loss = run.tree["task"].get("network"), run.tree["task"].get("loss")
    missing = _missing_heads(network, loss)
    if not missing:
        return
    kind = class_of(network, "network")
    assert kind is not None
    name, head = next(iter(missing.items()))
    off = " with network.heads=false" if network.get("heads") is False else ""
    without = " ".join(f"loss.terms.{each}=null" for each in missing)
    rest = f", or {without}" if len(missing) < len(loss["terms"]) else ""

    def fits(node: Node) -> bool:
        return _suits(run, "loss", node) and not _missing_heads(network, node)

    raise ConfigError(
        f"loss.terms.{name}: reads {head}, which {kind.__name__}{off} does not have in training. "
        f"{fitting('loss', fits, rest)}"
    )


# Data and transform -------------------------------------------------------------------------------------


def _reads(run: Run, data: Node) -> bool:
    """Whether a data set has the samples that the task wants, and among them something that it can learn."""
    samples, targets = said(run.task, "samples"), said(run.task, "targets")
    reader = data.get(samples) if samples else None
    if samples and not (isinstance(reader, Mapping) and "_target_" in reader):
        return False
    gives = said(class_of(reader, "data.dataset"), "gives") if samples == "dataset" else None
    if gives is None or targets is None:
        return True
    learnt = [name for name, kind in gives.items() if kind in targets]
    shown = [name for name, kind in gives.items() if kind != "number"]
    return any(target != source for target in learnt for source in shown)


def _learnable(run: Run, data: Node) -> bool:
    """Also measured by a score that the run's monitor takes the right way round."""
    score = (data.get("facts") or {}).get("score", "pck")
    return _reads(run, data) and (said(run.task, "samples") != "people" or _wrong_mode(run, score) is None)


def _check_reader(run: Run, data: Node) -> None:
    samples, targets = said(run.task, "samples"), said(run.task, "targets")
    sentence = functools.partial(fitting, "data", functools.partial(_learnable, run))
    if not _reads(run, data):
        words = {"dataset": "pictures with a target", "people": "keypoints", "objects": "boxes"}.get(
            samples, samples
        )
        wanted = f"{words} ({' or '.join(targets)})" if targets else words
        raise ConfigError(
            f"data: task={run.name} learns from {wanted}, which this data set does not give. {sentence()}"
        )
    gives = said(class_of(data.get("dataset"), "data.dataset"), "gives") if samples == "dataset" else None
    wanted = (data.get("pair") or {}).get("target")
    if gives is not None and targets is not None and gives.get(wanted, targets[0]) not in targets:
        good = [name for name, kind in gives.items() if kind in targets]
        raise ConfigError(
            f"data.pair.target: '{wanted}' is a {gives[wanted]}, and task={run.name} learns a {' or a '.join(targets)}. Set "
            f"data.pair.target={good[0]}. {sentence()}"
        )


def _treated(run: Run, node: Node) -> bool:
    """Whether a transform treats what the task reads."""
    steps, samples = node.get("eval"), said(run.task, "samples")
    treats = said(class_of(steps, "transform"), "treats")
    if treats is not None:
        return bool(samples is None or treats == said(run.task, "shows"))
    return samples in (None, "dataset") or not isinstance(steps, list | type(None))


def _check_transform(run: Run, data: Node) -> None:
    transform = data.get("transform")
    if isinstance(transform, Mapping):
        transform = {key: followed(run.tree, value) for key, value in transform.items()}
    if isinstance(transform, Mapping) and not _treated(run, transform):
        treats = said(class_of(transform.get("eval"), "transform"), "treats") or "whole pictures"
        shows = "whole pictures" if said(run.task, "samples") == "dataset" else said(run.task, "shows")
        raise ConfigError(
            f"transform: is for {treats}, and task={run.name} is trained on {shows}. "
            f"{fitting('transform', functools.partial(_treated, run))}"
        )


def _wrong_mode(run: Run, score: str) -> str | None:
    """The mode that `monitor` should have for a score of keypoints; None where it has it, or watches something else."""
    monitor = run.tree.get("monitor") or {}
    watched = str(monitor.get("name", "")).removeprefix("val/")
    right = "min" if score in LOWER else "max" if score in HIGHER else None
    known = watched in (*LOWER, *HIGHER)
    return right if known and right is not None and monitor.get("mode") != right else None


def _check_direction(run: Run) -> None:
    monitor = run.tree.get("monitor") or {}
    watched = str(monitor.get("name", "")).removeprefix("val/")
    if said(run.task, "samples") == "people" and (right := _wrong_mode(run, watched)) is not None:
        raise ConfigError(
            f"monitor.mode: found {monitor.get('mode')}, but {monitor['name']}, by which this data set is measured, is "
            f"better where it is {'lower' if right == 'min' else 'higher'}: the worst checkpoint would be kept as the best. "
            f"Set monitor.mode={right}. {fitting('data', functools.partial(_learnable, run))}"
        )
