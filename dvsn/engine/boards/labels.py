"""What tells one run from another in a list of many: its name, tags, group and kind of work."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from dvsn.config.flags import command_words
from dvsn.config.folders import made_by_pool
from dvsn.errors import DataError
from dvsn.reading import read_json

Config = dict[str, Any]
LONGEST, LONGEST_TAG = 120, 64  # characters; W&B takes 128 and 64
NAMED = ("task", "network", "data", "experiment", "name")
"""Options that the config's own name stands for."""
BESIDE = ("logger", "hydra", "resume", "resume_force", "run_dir", "callbacks", "sweep", "checkpoint", "debug",
          "max_unpacked", "data.root", "data.workers", "trainer.devices", "trainer.accelerator",
          "trainer.enable_progress_bar", "trainer.log_every_n_steps")  # fmt: skip
"""Options on which nothing that is learned depends."""


@dataclass(frozen=True)
class Labels:
    """`job` is `train` or `evaluate`; `group` the folder of the sweep that the run is a job of, else None."""

    name: str
    tags: tuple[str, ...] = ()
    group: str | None = None
    job: str = "train"


def labels_of(config: Config, *, folder: Path) -> Labels:
    """Of a job of a sweep the name is what differs between the jobs; of any other run the config's name and what the command
    line changed, or the name of the folder where it changed nothing."""
    pooled = made_by_pool(folder)
    tags = tags_of(config)
    if pooled:
        differs = shorter(swept(folder))
        name = ", ".join(differs) or f"{config.get('name')} {folder.name}"
    else:
        differs = shorter([each for each in overrides(command_words()) if not belongs(each, NAMED)])
        name = f"{config.get('name')} {', '.join(differs) or folder.name}"
    return Labels(cut(name, LONGEST), tags, folder.parent.name if pooled else None)


def tags_of(config: Config) -> tuple[str, ...]:
    """Task, network, data set and methods of distillation, as the command line names them, else by their classes."""
    given = dict(each.lstrip("+").split("=", 1) for each in overrides(command_words()))
    task = config.get("task") or {}
    data = config.get("data") or {}
    found = [
        given.get("task") or class_name(task),
        given.get("network") or class_name(task.get("network") or config.get("network")),
        given.get("data")
        or class_name(data.get("dataset") or data.get("people") or data.get("objects") or data),
        *(name for name, node in (config.get("distill") or {}).items() if node is not None),
    ]
    return tuple(dict.fromkeys(cut(each, LONGEST_TAG) for each in found if each))


def class_name(node: Any) -> str:
    """The class of a node in small letters, such as `pidnet`; of a task the name of its file."""
    target = node.get("_target_", "") if isinstance(node, dict) else ""
    module, _, name = str(target).rpartition(".")
    return module.rpartition(".")[2] if module.startswith("dvsn.tasks.") else name.lower()


def overrides(words: Sequence[str]) -> list[str]:
    """The options of a command line that say what is learned."""
    return [each for each in words if "=" in each and not each.startswith("-") and not belongs(each, BESIDE)]


def belongs(override: str, keys: Sequence[str]) -> bool:
    """Whether an override is of one of the keys, or below one."""
    key = override.lstrip("+~").partition("=")[0]
    return any(key == each or key.startswith(f"{each}.") for each in keys)


def swept(folder: Path) -> list[str]:
    """The overrides of a job that are not those of all jobs: its job.json without the words of the sweep's multirun.yaml."""
    shared: set[str] = set()
    with suppress(OSError, ValueError, yaml.YAMLError, KeyError, TypeError):
        text = (folder.parent / "multirun.yaml").read_text(encoding="utf-8")
        shared = set(yaml.safe_load(text)["hydra"]["overrides"]["task"])
    return [each for each in overrides(job_overrides(folder)) if each not in shared]


def job_overrides(folder: Path) -> list[str]:
    """The overrides in job.json; none where it is gone or damaged."""
    try:
        found = read_json(folder / "job.json")["overrides"]
    except (DataError, KeyError, TypeError):
        return []
    return [str(each) for each in found] if isinstance(found, list) else []


def shorter(words: Sequence[str]) -> list[str]:
    """Overrides by the last part of their keys, as `lr=0.1`, where no other has the same."""
    lasts = [each.partition("=")[0].rpartition(".")[2] for each in words]
    return [
        each if lasts.count(last) > 1 else f"{last.lstrip('+~')}={each.partition('=')[2]}"
        for each, last in zip(words, lasts, strict=True)
    ]


def cut(text: str, length: int) -> str:
    """Text of at most `length` characters, on one line."""
    text = re.sub(r"\s+", " ", text).strip()
    return text if len(text) <= length else f"{text[: length - 3]}..."


def command(job: str) -> str:
    """The command line of this process, to paste; `job` is `train` or `evaluate`."""
    return shlex.join(["python", "-m", f"dvsn.{job}", *command_words()])
