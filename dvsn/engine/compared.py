"""The teacher that an evaluation sets beside the task that it measures."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import yaml

from dvsn.errors import CheckpointError, ConfigError
from dvsn.hub.names import is_name
from dvsn.reading import read_text
from dvsn.tasks.base import Task
from dvsn.tasks.exported import open_task

log = logging.getLogger("dvsn")
AUTO = "auto"


def find_teacher(given: str | None, path: Path) -> str | None:
    """The file of the teacher: as given, or with `auto` the one that the run of the checkpoint `path` names in its
    config.yaml, if that file is there."""
    if given != AUTO:
        return given
    config = path.parent.parent / "config.yaml"
    if is_name(path) or not config.is_file():
        log.info("teacher: auto finds none, since %s lies in no folder of a run (no config.yaml)", path)
        return None
    named = taught_by(config)
    if isinstance(named, list) and len(named) > 1:
        raise ConfigError(
            f"teacher: {config} names {len(named)} teachers, expected one. Set teacher= to one of them, such as {named[0]}"
        )
    found = named[0] if isinstance(named, list) and named else named
    if not isinstance(found, str) or is_name(found) or not Path(found).is_file():
        why = "names none" if found is None else f"names {found}, which is not there"
        log.info("teacher: auto finds none, since %s %s", config, why)
        return None
    return found


def taught_by(config: Path) -> Any:
    """What config.yaml of a run has as `teacher`."""
    text = read_text(config)
    try:
        content = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{config}: cannot be read as YAML: {str(error).splitlines()[0]}") from error
    return content.get("teacher") if isinstance(content, dict) else None


def load_teacher(path: str, task: Task) -> Task:
    """The teacher of a task's kind, which answers about as many classes in the same order. Raises `CheckpointError`."""
    teacher = open_task(path)
    if teacher.kind != task.kind:
        raise CheckpointError(
            f"teacher: {path} is a checkpoint of the task '{teacher.kind}', expected '{task.kind}'."
        )
    own, theirs = (getattr(each, "classes", None) for each in (task, teacher))
    if own != theirs:
        raise CheckpointError(
            f"teacher: {path} knows {theirs} classes, the checkpoint {own}; expected as many."
        )
    names, others = (tuple(getattr(each, "class_names", ())) for each in (task, teacher))
    if names and others and names != others:
        number = next(i for i, pair in enumerate(zip(names, others, strict=True)) if pair[0] != pair[1])
        raise CheckpointError(
            f"teacher: {path} calls class {number} '{others[number]}', the checkpoint '{names[number]}'; expected the "
            "same classes in the same order."
        )
    return teacher
