"""Checks that a config writes only into the folder of the run or the working directory.

A YAML file of somebody else shall write nothing elsewhere, links followed; the command line may say more. Loggers and
callbacks have their places in options of many names (`save_dir`, `dirpath`, `filename`, `exclude_batches_path`), and some
expand `~` and variables or take addresses of remote disks. So every text of theirs is looked at as if it were a path.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dvsn.config.folders import at_home, check_place
from dvsn.config.partners import class_of
from dvsn.errors import ConfigError

Node = Mapping[str, Any]
PARTS = ("logger", "callbacks")
"""Groups whose classes write."""
FOLDERS = ("distillation.cache", "output", "tune.output")
"""Options that are folders which are written."""
WORDS = ("_target_", "monitor")
"""Options of loggers and callbacks that are never a path: val/miou is a name."""
SCHEME = re.compile(r"^[A-Za-z][\w+.-]+(::|:(?=/))")
ROOTS = ("logger", "callbacks", "distillation", "data", "output", "root", "search")
"""Where options lie that say where is written, of those that a sweep may set."""


def check_outputs(tree: Node, line: Node, *, run: str) -> None:
    """Refuses places outside of the folder of the run and the working directory that the command line does not name.

    `tree` is resolved, `line` the values of the command line by key, `run` the folder of the run. Raises `ConfigError`.
    """
    for group in PARTS:
        for name, node in (tree.get(group) or {}).items():
            _check_part(node, f"{group}.{name}", line, run)
    for path in FOLDERS:
        folder = _below(tree, path)
        if isinstance(folder, str):
            _check(path, folder, line, run)
    check_drawn(tree.get("data"), _spelt(line, "data.root") or _spelt(line, "root"))


def check_drawn(data: Any, spelt: Any = None) -> None:
    """Refuses a data set that would be drawn outside of the working directory and of $DVSN_DATA. One that is there is read,
    wherever it is. `data` is its node."""
    stamp = getattr(class_of(data, "data"), "draws", None)
    root = data.get("root") if isinstance(data, Mapping) else None
    if stamp is None or not isinstance(root, str):
        return
    place = at_home(root, option="data.root")
    if (place / stamp).is_file():
        return
    given = os.environ.get("DVSN_DATA")
    spelt = str(at_home(spelt, option="data.root")) if isinstance(spelt, str) else None
    check_place("data.root", str(place), spelt=spelt, inside=[given] if given else [])


def check_swept(params: Node, line: Node) -> None:
    """The same for values that a YAML file's `hydra.sweeper.params` gives to the jobs of a sweep, whose command lines they
    become."""
    own = _spelt(line, "hydra.sweeper.params") or {}
    for key, values in params.items():
        if (
            key in own
            or f"hydra.sweeper.params.{key}" in line
            or key.lstrip("+~").partition(".")[0] not in ROOTS
        ):
            continue
        for text in re.split(r"[,\[\]{}()'\"\s]+|(?<=\w):(?!/)", str(values)):
            _check(f"hydra.sweeper.params.{key}", text, {}, ".")


def _check_part(node: Any, path: str, line: Node, run: str) -> None:
    """A logger or a callback: each of its texts, and those of which one is a folder for another."""
    texts = list(_texts(node, path))
    for at, text in texts:
        _check(at, text, line, run)
    for _, folder in texts:
        for at, text in texts if Path(folder).is_dir() else ():
            if _spelt(line, at) != text:
                check_place(at, str(Path(folder, text)), inside=[run])


def _texts(node: Any, path: str) -> Iterator[tuple[str, str]]:
    """Texts at any depth that may be paths, with where they stand."""
    if isinstance(node, str) and node and path.rpartition(".")[2] not in WORDS:
        yield path, node
    pairs = node.items() if isinstance(node, Mapping) else enumerate(node) if isinstance(node, list) else ()
    for key, value in pairs:
        yield from _texts(value, f"{path}.{key}")


def _check(path: str, text: str, line: Node, run: str) -> None:
    spelt = _spelt(line, path)
    if spelt == text:
        return
    place = os.path.expandvars(text)
    place = str(at_home(place, option=path)) if place.startswith("~") else place
    remote = SCHEME.match(place)
    if remote and not place.startswith(("http://", "https://")):
        raise ConfigError(
            f"{path}: {text} is an address outside of the working directory. Give it on the command line: {path}={text}"
        )
    if not remote and ("/" in place or ".." in place or Path(place).is_symlink()):
        check_place(path, place, spelt=spelt, inside=[run])
        if ".." in Path(place).parts:
            raise ConfigError(
                f"{path}: {text} leads out of the folder that it stands in. Give it on the command line: {path}={text}"
            )


def _spelt(line: Node, path: str) -> Any:
    """What the command line has for an option, also within a mapping; None where it does not name it."""
    for key, value in reversed(list(line.items())):
        if path == key:
            return value
        if path.startswith(f"{key}.") and isinstance(value, Mapping):
            return _below(value, path.removeprefix(f"{key}."))
    return None


def _below(node: Any, path: str) -> Any:
    for key in path.split("."):
        if isinstance(node, list) and key.isdecimal() and int(key) < len(node):
            node = node[int(key)]
        else:
            node = node.get(key) if isinstance(node, Mapping) else None
    return node
