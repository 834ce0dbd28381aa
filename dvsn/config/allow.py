"""The allow-list: which classes a config may build, and where. Imports nothing of what it checks."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from dvsn.config.types import found
from dvsn.errors import ConfigError

MAX_DEPTH, MAX_NODES, MAX_TEXT = 40, 50_000, 65_536


TARGET = re.compile(
    r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)+"
)  # ASCII: no letters that only look alike


class Group(NamedTuple):
    """What a config group may build."""

    own: dict[str, tuple[str, ...]]  # module prefix -> base classes, one of which is needed; none: any class
    foreign: tuple[str, ...]  # base classes for packages that the user allowed


MODULE = ("torch.nn.Module",)


GRAFT = ("dvsn.networks.graft.Graft",)


CALLBACK = ("pytorch_lightning.Callback",)


LOGGER = ("pytorch_lightning.loggers.Logger",)


DATASET = ("torch.utils.data.Dataset",)


MIX = ("dvsn.data.mixes.Mix",)


SAMPLER = ("dvsn.data.samplers.Sampler",)


TRANSFORM = ("albumentations.BasicTransform", "albumentations.BaseCompose")


SCHEDULE = ("torch.optim.lr_scheduler.LRScheduler",)


NETWORK = Group({"dvsn.networks.": MODULE, "torchvision.models.": MODULE}, MODULE)


TRAINER = Group({"pytorch_lightning.strategies.": ("pytorch_lightning.strategies.Strategy",)}, ())


GROUPS: dict[str, Group] = {
    "network": NETWORK,
    "discriminator": NETWORK,
    "loss": Group({"dvsn.losses.": MODULE}, MODULE),
    "codec": Group({"dvsn.codecs.": MODULE}, MODULE),
    "distill": Group({"dvsn.distill.": MODULE}, MODULE),
    "graft": Group({"dvsn.networks.graft.": GRAFT}, GRAFT),
    "transform": Group({"albumentations.": TRANSFORM, "dvsn.data.": ()}, TRANSFORM),
    "data": Group(
        {"dvsn.data.": (), "dvsn.geometry.": ()}, ("pytorch_lightning.LightningDataModule", *DATASET)
    ),
    "dataset": Group({"dvsn.data.": DATASET}, DATASET),
    "sampler": Group({"dvsn.data.samplers.": SAMPLER}, SAMPLER),
    "mix": Group({"dvsn.data.mixes.": MIX}, MIX),
    "optim": Group(
        {"torch.optim.": ("torch.optim.Optimizer",), "dvsn.optim.": ("torch.optim.Optimizer",)},
        ("torch.optim.Optimizer",),
    ),
    "schedule": Group({"dvsn.optim.schedules.": (), "torch.optim.lr_scheduler.": SCHEDULE}, SCHEDULE),
    "task": Group(
        {"dvsn.tasks.": ("pytorch_lightning.LightningModule",)}, ("pytorch_lightning.LightningModule",)
    ),
    "trainer": TRAINER,
    "strategy": TRAINER,
    "logger": Group(
        {"dvsn.engine.loggers.": LOGGER, "dvsn.engine.boards.": LOGGER, "pytorch_lightning.loggers.": LOGGER},
        LOGGER,
    ),
    "callbacks": Group(
        dict.fromkeys(
            (
                "dvsn.engine.callbacks.",
                "dvsn.engine.stopping.",
                "dvsn.engine.times.",
                "pytorch_lightning.callbacks.",
            ),
            CALLBACK,
        ),
        CALLBACK,
    ),
    "metrics": Group({"dvsn.metrics.": MODULE, "torchmetrics.": MODULE}, MODULE),
}


@functools.cache
def _installed() -> tuple[str, ...]:
    """Packages that installed distributions declare under the entry point group `dvsn.packages`."""
    import importlib.metadata  # slow, and needed once

    return tuple(sorted({entry.module for entry in importlib.metadata.entry_points(group="dvsn.packages")}))


def allowed(given: str | None = None) -> tuple[str, ...]:
    """Prefixes beyond our own: from the environment (`--allow` goes there) and from installed packages.

    Never from a YAML or a checkpoint, which may be somebody else's. `given` stands for the variable's value.
    """
    names = [
        name.strip() for name in (os.environ.get("DVSN_ALLOW", "") if given is None else given).split(",")
    ]
    for name in names:
        if name and not TARGET.fullmatch(f"{name}.x"):
            raise ConfigError(f"DVSN_ALLOW: found {name!r}, expected names of packages such as my_package")
    return tuple(f"{name}." for name in dict.fromkeys([*names, *_installed()]) if name)


def group_of(path: str) -> Group | None:
    """The group of the nearest enclosing key that names one; `optim_discriminator` counts as `optim`."""
    keys = reversed(path.split("."))
    return next(
        (GROUPS[name] for key in keys for name in (key, key.partition("_")[0]) if name in GROUPS), None
    )


RENAMED = {
    "dvsn.callbacks.": "dvsn.engine.callbacks.",
    "dvsn.data.keypoints.": "dvsn.geometry.keypoints.",
    "dvsn.loggers.": "dvsn.engine.loggers.",
    "dvsn.optim.DistillationOriented": "dvsn.optim.distillation_oriented.DistillationOriented",
    "dvsn.schedules.": "dvsn.optim.schedules.",
}
"""What classes were called in earlier versions, by the start of their names: in checkpoints and in YAML files of users."""


MOVED = ("mean", "std", "class_weights", "boundary_frame", "padding", "score", "normalise")
"""Options of a data set that are in its `facts` today."""

DATA_KEYS = {"root", "splits", "pair", "transform", "input_channels", "output_channels"}
"""What every node of `dvsn.data.module.DataModule` has."""


def renamed(tree: Any, *, depth: int = 0) -> Any:
    """A copy of a plain tree in which each `_target_` has the name that its class has today, and the facts of a data set
    are where they are today.

    What lies deeper than `MAX_DEPTH` stays as it is: `check` refuses it.
    """
    if isinstance(tree, Mapping) and depth <= MAX_DEPTH:
        tree = with_facts(tree) if tree.keys() >= DATA_KEYS else tree
        return {
            key: new_name(value) if key == "_target_" else renamed(value, depth=depth + 1)
            for key, value in tree.items()
        }
    if isinstance(tree, list | tuple) and depth <= MAX_DEPTH:
        return [renamed(value, depth=depth + 1) for value in tree]
    return tree


def with_facts(node: Mapping[Any, Any]) -> Mapping[Any, Any]:
    """The node of a data set whose `facts` hold those that are beside it, as they were in earlier versions."""
    moved = {key: node[key] for key in MOVED if key in node}
    if not moved:
        return node
    facts = {"_target_": "dvsn.data.facts.DataFacts", **(node.get("facts") or {}), **moved}
    return {key: value for key, value in node.items() if key not in MOVED} | {"facts": facts}


REFERENCE = re.compile(rf"\$\{{data\.(?=({'|'.join(MOVED)})[.}}\[])")


def refers_to_facts(tree: Any) -> Any:
    """A copy of a plain tree, not resolved, in which `${data.mean}` of earlier versions is `${data.facts.mean}`."""
    if isinstance(tree, Mapping):
        return {key: refers_to_facts(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [refers_to_facts(value) for value in tree]
    return REFERENCE.sub("${data.facts.", tree) if isinstance(tree, str) else tree


def new_name(target: Any) -> Any:
    """Today's name of a class that was called `target`."""
    old = next((start for start in RENAMED if isinstance(target, str) and target.startswith(start)), None)
    return target if old is None else RENAMED[old] + target.removeprefix(old)


def check(tree: Any, *, path: str = "", extra: Sequence[str] = ()) -> None:
    """Refuses every target outside its group's allow-list. Imports nothing.

    `tree` is plain and resolved (dicts, lists, text, numbers); `path` is where it stands in the config, which
    decides the groups; `extra` are further module prefixes. Raises `ConfigError` with the path.
    """
    prefixes = (*allowed(), *extra)
    pending, seen = [(tree, path, 0)], 0
    while pending:
        node, at, depth = pending.pop()
        seen += 1
        if depth > MAX_DEPTH or seen > MAX_NODES:
            raise ConfigError(
                f"{at}: nested deeper than {MAX_DEPTH} levels or more than {MAX_NODES} values in all"
            )
        if isinstance(node, Mapping):
            _check_keys(node, at, prefixes)
            pending += [(value, join(at, key), depth + 1) for key, value in reversed(list(node.items()))]
        elif isinstance(node, list | tuple):
            pending += [(value, join(at, i), depth + 1) for i, value in reversed(list(enumerate(node)))]
        elif not isinstance(node, str | int | float | None):
            raise ConfigError(f"{at}: found an object of type {type(node).__name__}, expected plain data")
        elif isinstance(node, str) and len(node) > MAX_TEXT:
            raise ConfigError(f"{at}: a text of {len(node)} characters, expected at most {MAX_TEXT}")


def join(path: str, key: object) -> str:
    return f"{path}.{key}" if path else str(key)


def _check_keys(node: Mapping[Any, Any], path: str, prefixes: Sequence[str]) -> None:
    for key in node:
        if not isinstance(key, str | int):
            raise ConfigError(f"{join(path, key)}: a key of type {type(key).__name__}, expected text")
        special = isinstance(key, str) and key.startswith("_") and key.endswith("_")
        if special and key not in ("_target_", "_partial_"):
            raise ConfigError(f"{join(path, key)}: not allowed. The special keys are _target_ and _partial_.")
    if not isinstance(node.get("_partial_", False), bool):
        raise ConfigError(f"{join(path, '_partial_')}: expected true or false, {found(node['_partial_'])}")
    if "_target_" in node:
        _check_target(new_name(node["_target_"]), path, prefixes)
    elif "_partial_" in node:
        raise ConfigError(f"{join(path, '_partial_')}: there is no _target_ beside it")


def _check_target(target: object, path: str, prefixes: Sequence[str]) -> None:
    at = join(path, "_target_")
    if not isinstance(target, str) or not TARGET.fullmatch(target) or "__" in target:
        raise ConfigError(f"{at}: expected the dotted name of a class, {found(target)}")
    group = group_of(path)
    if group is None:
        raise ConfigError(
            f"{at}: nothing is built here, {found(target)}. Groups that build: {', '.join(GROUPS)}."
        )
    if not target.startswith((*group.own, *prefixes)):
        inside = ", ".join(prefix[:-1] for prefix in (*group.own, *prefixes)) or "nothing"
        raise ConfigError(
            f"{at}: {target!r} is not allowed here. Allowed: classes of {inside}. "
            "A package of your own is allowed by --allow NAME or DVSN_ALLOW=NAME."
        )
