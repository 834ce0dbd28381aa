"""The methods of distillation of a run: their classes, whether they fit the task and its data, and their weights."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from dvsn.config.build import build
from dvsn.config.menu import conf_dir
from dvsn.distill import taps
from dvsn.distill.method import Facts, Kind, Method, Side
from dvsn.distill.teacher import Teacher
from dvsn.engine.devices import device_count
from dvsn.errors import ConfigError

Config = dict[str, Any]


def method_class(node: Config, name: str) -> type[Method]:
    """The class that the node of a method names."""
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


def fitting(kind: Kind) -> list[str]:
    """The shipped methods for a kind of answer, such as pixels."""
    import yaml

    result = []
    for file in sorted(Path(conf_dir(), "distill").glob("*.yaml")):
        for name, node in (yaml.safe_load(file.read_text(encoding="utf-8")) or {}).items():
            if isinstance(node, dict) and "method" in node:
                reads = method_class(node, name).reads
                result += [file.stem] if not reads or kind in reads else []
    return result


def require_company(name: str, found: type[Method], node: Config, config: Config) -> None:
    """Refuse a method that compares samples of a batch where the batch has one sample, unless it gathers the
    batches of several processes."""
    if not found.relates or config["data"].get("batch_size") != 1:
        return
    if not (node["method"].get("gather") and device_count(config["trainer"]) > 1):
        raise ConfigError(
            f"distill.{name}: relates the items of a batch to each other, and data.batch_size is 1: it would teach nothing. "
            "Set data.batch_size to 2 or more, or choose a method of single items such as distill=kd."
        )


def make_method(node: Config, name: str, kind: type[Method], sides: dict[str, Side], facts: Facts) -> Method:
    """Build the method of a node for a student and a teacher."""
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


def task_weight(chosen: Config, options: Config, *, in_company: bool = False) -> float:
    """What the task's own loss is multiplied by: `distillation.task_weight`; else the `task_weight` of a method
    that is alone, for published weights hold for that; else 1. A method that states 0 takes the place of the
    labels, also beside others. `in_company`: as earlier versions had it, where what a method states counted
    beside others too."""
    if options.get("task_weight") is not None:
        return float(options["task_weight"])
    stated = [float(node["task_weight"]) for node in chosen.values() if node.get("task_weight") is not None]
    counts = stated and (in_company or len(chosen) == 1)
    return 0.0 if 0 in stated else stated[0] if counts else 1.0


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
