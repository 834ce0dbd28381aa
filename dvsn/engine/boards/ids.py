"""`loggers.json` in the folder of a run: by which ids its loggers know it.

So a run that is continued goes on in the same run of W&B, MLflow or Comet, without a network too.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dvsn.atomic import write_json
from dvsn.config.folders import made_by_pool
from dvsn.errors import CheckpointError, DataError
from dvsn.reading import read_json
from dvsn.weights import read_checkpoint

FILE = "loggers.json"
Ids = dict[str, dict[str, Any]]


def read_ids(folder: Path) -> Ids:
    """By the name of the logger (`wandb`, `mlflow`, `comet`); empty where there is no file, or none that can be read."""
    if not (folder / FILE).is_file():
        return {}
    try:
        content = read_json(folder / FILE, expected="what a run writes")
    except DataError:
        return {}
    return plain_ids(content)


def plain_ids(content: Any) -> Ids:
    """What is of the right form: a text `id`, and further texts beside it."""
    found = content if isinstance(content, dict) else {}
    return {
        str(name): {key: value for key, value in each.items() if isinstance(value, str)}
        for name, each in found.items()
        if isinstance(each, dict) and isinstance(each.get("id"), str) and each["id"]
    }


def write_ids(folder: Path, ids: Ids) -> None:
    write_json(folder / FILE, ids)


def keep_ids(folder: Path, checkpoint: Path | None, *, again: bool) -> None:
    """Take over the ids of an earlier part of a run, which may have another folder, from it or from its checkpoint; of a run
    that does not go on (`again`), forget what lies in its folder. Jobs of a sweep that all go on from one checkpoint are
    runs of their own.
    """
    if (folder / FILE).is_file():
        if checkpoint is None and not again:
            (folder / FILE).unlink()
        return
    if checkpoint is None or made_by_pool(folder):
        return
    ids = ids_of(checkpoint)
    if ids:
        write_ids(folder, ids)


def ids_of(checkpoint: Path) -> Ids:
    """The ids of the run that wrote a checkpoint: those in the run's folder, else those that the checkpoint holds."""
    return read_ids(checkpoint.parent.parent) or ids_in(checkpoint)


def ids_in(checkpoint: Path) -> Ids:
    """The ids that a checkpoint holds."""
    try:
        content = read_checkpoint(checkpoint, verify=False)
    except CheckpointError:
        return {}
    header = content.get("dvsn")
    return plain_ids(header.get("loggers") if isinstance(header, dict) else None)
