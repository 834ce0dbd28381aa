"""`python -m dvsn.data COMMAND`: look at a data set before a network does."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dvsn import command_line
from dvsn.config.menu import conf_dir
from dvsn.data_tools import commands

COMMANDS = {
    "init": "look at a folder of your own and write the YAML files that train on it",
    "check": "walk every split and report every fault",
    "show": "draw samples as the network will see them",
    "weights": "count the pixels of each class and weigh the classes",
    "stats": "mean and standard deviation of each channel of the training pictures",
    "faces": "write the faces of the embedded street scenes as a WFLW tree",
    "shard": "write a data set as shards, which stream from a bucket",
}


def with_task(arguments: Sequence[str]) -> list[str]:
    """Also the task that a data set asks for, where none is given: `classification` where it has a class a picture,
    `pix2pix` where it has pairs of pictures, and no classes, people or objects."""
    asked = dict(each.partition("=")[::2] for each in arguments if "=" in each)
    if "task" in asked:
        return list(arguments)
    if "experiment" in asked:
        task = task_of(asked["experiment"], [*own_folders(arguments), Path(conf_dir())])
        return [*arguments, *([f"task={task}"] if task else [])]
    node = data_node(asked.get("data", ""), [*own_folders(arguments), Path(conf_dir())])
    if not node:
        return list(arguments)
    target = (node.get("pair") or {}).get("target")
    if target == "class":
        return [*arguments, "task=classification"]
    classes = int(asked.get("data.classes", node.get("classes") or 0) or 0)
    pictures = (
        not classes and bool(node.get("dataset")) and not node.get("people") and not node.get("objects")
    )
    return [*arguments, *(["task=pix2pix"] if pictures else [])]


def task_of(experiment: str, folders: Sequence[Path]) -> str:
    """The task that an experiment's YAML, or one that it builds on, chooses; "" where none does."""
    import yaml

    files = (folder / "experiment" / f"{experiment}.yaml" for folder in folders)
    file = next((each for each in files if each.is_file()), None)
    try:
        node = {} if file is None else yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return ""
    found = ""
    for each in node.get("defaults", []) if isinstance(node, dict) else []:
        if isinstance(each, str) and each not in ("_self_", experiment):
            found = task_of(each, folders) or found
        elif isinstance(each, dict) and "override /task" in each:
            found = str(each["override /task"])
    return found


def own_folders(arguments: Sequence[str]) -> list[Path]:
    """The folders of --config-dir."""
    found = [each.partition("=")[2] for each in arguments if each.startswith("--config-dir=")]
    found += [after for each, after in itertools.pairwise(arguments) if each in ("--config-dir", "-cd")]
    return [Path(each) for each in found]


def data_node(name: str, folders: Sequence[Path]) -> dict[str, Any]:
    """What the YAML of a data set and those it builds on say together; empty where there is none, or one that is broken."""
    import yaml

    file = next(
        (each for each in (folder / "data" / f"{name}.yaml" for folder in folders) if each.is_file()), None
    )
    try:
        node = {} if file is None else yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    if not isinstance(node, dict):
        return {}
    joined: dict[str, Any] = {}
    for base in node.pop("defaults", []):
        if isinstance(base, str) and base not in ("_self_", name):
            joined |= data_node(base, folders)
    for key, value in node.items():
        below = joined.get(key)
        joined[key] = below | value if isinstance(below, dict) and isinstance(value, dict) else value
    return joined


def main() -> None:
    head = "dvsn data: look at a data set before a network does"
    usage = "python -m dvsn.data COMMAND data=... [option=value ...]"
    name = command_line.asked_for(COMMANDS, head=head, usage=usage)
    if name is not None:
        sys.argv[1:] = with_task(sys.argv[2:])
        commands.main(name)


if __name__ == "__main__":
    main()
