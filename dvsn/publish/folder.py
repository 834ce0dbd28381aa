"""A checkpoint as the folder that the hub holds: recipe, weights, scores, picture and card; written whole or not at all."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import Any

from dvsn.atomic import write_json
from dvsn.config.folders import require_writable
from dvsn.errors import ConfigError
from dvsn.hub.folder import RECIPE, WEIGHTS, write_header, write_weights
from dvsn.hub.resolve import local, read
from dvsn.publish.card import NO_SCORES, card
from dvsn.publish.run import Run, find_run
from dvsn.tasks.recipe import load, read_recipe

log = logging.getLogger("dvsn")


def write_folder(checkpoint: str, folder: Path, *, name: str, licence: str = "") -> Run:
    """Write the folder and give what was found of the run. It is loaded before it gets its name.

    A folder that was written so before is replaced; any other that holds something is refused.
    """
    content = read(checkpoint)
    header = read_recipe(content, checkpoint)
    run = find_run(local(checkpoint), step=content.get("global_step"))
    state = {key: value for key, value in content["state_dict"].items() if not key.startswith("distiller.")}
    root = str((header.get("data") or {}).get("root") or "")
    with replacing_folder(folder) as place:
        write_header(place / RECIPE, without_place(header))
        write_weights(place / WEIGHTS, state)
        task = load(place)
        parameters = sum(each.numel() for each in task.deployable().parameters())
        if run.picture is not None:
            shutil.copyfile(run.picture, place / "picture.png")
        if run.scores:
            write_json(place / "metrics.json", {each.split: scored(each) for each in run.scores})
        names = tuple(map(str, getattr(task, "class_names", ())))
        text = card(header, run, name=name, parameters=parameters, classes=names, licence=licence)
        if PurePath(root).is_absolute():
            text = text.replace(root, PurePath(root).name)
        (place / "README.md").write_text(text, encoding="utf-8")
    tell(run, folder, checkpoint)
    return run


def without_place(header: dict[str, Any]) -> dict[str, Any]:
    """The header with the name of the data set's folder in place of where it lies on this machine."""
    data = header.get("data") or {}
    root = data.get("root")
    if isinstance(root, str) and PurePath(root).is_absolute():
        header = {**header, "data": {**data, "root": PurePath(root).name}}
    return header


def scored(scores: Any) -> dict[str, Any]:
    return {"metrics": scores.metrics, "measured": scores.how}


def tell(run: Run, folder: Path, checkpoint: str) -> None:
    """Say what was written, and what the card lacks."""
    log.info("written %s: %s", folder, ", ".join(sorted(file.name for file in folder.iterdir())))
    for split in run.stale:
        log.warning(
            "the evaluation on %s is of another step of the training, so it is not in the card", split
        )
    if not run.scores:
        log.warning(
            "the card has no scores and says so (%s). Evaluate first: python -m dvsn.evaluate checkpoint=%s",
            NO_SCORES.strip("*"), checkpoint,
        )  # fmt: skip


@contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder beside `folder`, which takes its place at the end and is removed if anything is raised."""
    if folder.exists() and not (folder / RECIPE).is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(
            f"local: {folder} is there already and was not written by this command. Choose another one: local=FOLDER"
        )
    require_writable(folder, option="local")
    folder.parent.mkdir(parents=True, exist_ok=True)
    place = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    older = folder.with_name(f".{folder.name}.{os.getpid()}.old")
    place.mkdir()
    try:
        yield place
        if folder.exists():
            folder.rename(older)
        place.rename(folder)
    finally:
        if older.exists() and not folder.exists():
            older.rename(folder)
        shutil.rmtree(place, ignore_errors=True)
        shutil.rmtree(older, ignore_errors=True)
