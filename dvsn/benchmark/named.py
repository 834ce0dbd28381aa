"""What a comparison is about: checkpoints, exported files and networks, each by one word of the command line."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from dvsn.benchmark.measure import randomise
from dvsn.config import menu, python
from dvsn.engine.trainer import make_task
from dvsn.errors import CheckpointError, ConfigError, nearest
from dvsn.hub.names import is_name
from dvsn.hub.resolve import local
from dvsn.portable.engine import Engine, open_engine
from dvsn.tasks.exported import header_of, is_exported
from dvsn.tasks.recipe import build_task, load

OTHERS = (".pt2", ".pte", ".engine", ".tflite", ".pb", ".trt")
"""Endings of files that another runtime asks."""


class Named(NamedTuple):
    """One thing that is measured."""

    name: str
    task: Any
    """In evaluation, on the CPU. Of an exported file the task of its recipe, with random weights."""
    header: Mapping[str, Any]
    """`task`, `recipe` and `data`, as in a checkpoint."""
    path: Path | None = None
    """Of the checkpoint or the file; None of a network by its name."""
    engine: Engine | None = None
    """Of an exported file: its own runtime."""

    @property
    def trained(self) -> bool:
        return self.path is not None


def read_named(word: str, *, seed: int = 0, threads: int | None = None) -> Named:
    """A checkpoint, the folder of a run, a name on the hub, an exported file (.onnx, .xml), or the name of a network of
    `conf/network`, which is drawn with random weights for its task.

    Raises `ConfigError` for a word that is nothing of that, and `CheckpointError` for a file of another origin.
    """
    path = Path(word)
    if not path.exists() and not is_name(word) and not path.suffix and len(path.parts) == 1:
        return drawn(word, seed)
    if is_exported(path):
        return exported(path, threads)
    if path.suffix in OTHERS:
        raise CheckpointError(
            f"{path}: found the ending '{path.suffix}', expected a checkpoint, .onnx or .xml (OpenVINO)."
        )
    task = plain_answers(load(word))
    header = {"task": task.kind, "recipe": task.recipe, "data": task.data_recipe}
    found = local(word)
    return Named(shortened(found), task, header, found)


def shortened(path: Path) -> str:
    """The name of a file; of a checkpoint in the folder of a run that folder's, too."""
    folder = path.parent.parent if path.parent.name == "checkpoints" else None
    return path.name if folder is None else f"{folder.name}/{path.name}"


def exported(path: Path, threads: int | None) -> Named:
    """An exported file, and the task of its manifest."""
    engine = open_engine(path, threads=threads)
    header = header_of(engine)
    task = plain_answers(build_task(header["recipe"], data=header["data"], path=path))
    return Named(path.name, randomise(task), header, path, engine)


def drawn(name: str, seed: int) -> Named:
    """A network of the menu in its task, with the data set that is usual there, whose facts give classes and sizes."""
    choices = menu.choices()["network"]
    if name not in choices:
        raise ConfigError(
            f"files: found {name!r}, which is no file, no folder and no network. {nearest(name, choices)}"
        )
    kind = next(title for title, names in menu.networks_by_task().items() if name in names)
    if kind == "any task":
        raise ConfigError(
            f"files: {name} fits several tasks. Train it, or measure it by network={name} with options of its own."
        )
    words = [f"task={kind.split(', ')[0]}", f"network={name}", f"seed={seed}"]
    task = python.call("train", make_task, words, {})
    return Named(
        name, randomise(plain_answers(task)), {"task": task.kind, "recipe": task.recipe, "data": task.data_recipe}
    )  # fmt: skip


def plain_answers(task: Any) -> Any:
    """The task in evaluation, without dropout at test time: no two of its answers would be the same."""
    if getattr(task, "test_dropout", False):
        task.test_dropout = False
    return task.eval().requires_grad_(False)
