"""A run as its boards see it: begun with its config, ended with its best score, its files and where they come from."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from dvsn.engine.boards.board import Board, Config, File
from dvsn.engine.boards.find import find_boards, name_of
from dvsn.engine.boards.ids import ids_of, read_ids, write_ids
from dvsn.engine.boards.labels import command, labels_of

log = logging.getLogger("dvsn")
EXPORTED = (".onnx", ".xml", ".pt2", ".pte", ".safetensors")
"""Endings of what `python -m dvsn.export` writes."""


def begin(loggers: Iterable[Any], config: Config) -> None:
    """Give the boards the config, and keep their ids."""
    folder = Path(config["run_dir"])
    for board in find_boards(loggers):
        board.begin(config, labels_of(config, folder=folder))
        keep(board, folder)


def keep(board: Board, folder: Path) -> None:
    """Write the id of a board's run into the folder."""
    found = board.identity
    if found is not None:
        ids, name = read_ids(folder), name_of(board.logger)
        write_ids(folder, {**ids, name: {**ids.get(name, {}), **found}})


def finish(loggers: Iterable[Any], config: Config, *, result: Mapping[str, Any], folder: Path) -> None:
    """Give the boards the best score and, where `logger.artifact` asks for it, the best checkpoint and what was exported."""
    boards = find_boards(loggers)
    wanted = bool((config.get("logger") or {}).get("artifact"))
    files = kept_files(config, result, folder) if boards and wanted else []
    for board in boards:
        if result.get("monitor") and result.get("best") is not None:
            board.summary({f"best/{result['monitor']}": result["best"]})
        for file in files:
            board.file(renamed(file, board))
        board.end()


def kept_files(config: Config, result: Mapping[str, Any], folder: Path) -> list[File]:
    """The best checkpoint, and the exported files that lie beside it."""
    place = folder / "checkpoints"
    best = place / "best.ckpt"
    if not best.is_file():  # a folder in parts is as large as the network: it is not uploaded
        return []
    about = origin(config, result, folder)
    files = [File(best, "checkpoint", "model", about, teachers(config))]
    for path in sorted(place.iterdir()):
        if path.suffix in EXPORTED and path.name != "last.safetensors":
            files.append(File(path, f"{path.stem}-{path.suffix[1:]}", "export", about, ("checkpoint",)))
    return files


def origin(config: Config, result: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Where a checkpoint comes from: run, data set, teacher, score, command."""
    data, distillation = config.get("data") or {}, config.get("distillation") or {}
    return {
        "run": str(folder),
        "command": command("train"),
        "data": {
            "root": data.get("root"),
            "dataset": (data.get("dataset") or {}).get("_target_"),
            "classes": data.get("classes"),
        },
        "teacher": config.get("teacher"),
        "methods": [name for name, node in (config.get("distill") or {}).items() if node is not None],
        "teacher_network": (distillation.get("network") or {}).get("_target_"),
        **{key: result.get(key) for key in ("monitor", "best", "best_epoch", "best_step", "teacher_score")},
    }


def teachers(config: Config) -> tuple[str, ...]:
    """The artifacts of teachers that were trained by dvsn and logged to W&B: their runs are named in their folders, or in
    their checkpoints."""
    given = config.get("teacher")
    names = []
    for each in given if isinstance(given, list) else [given]:
        path = Path(str(each))
        if each is None or not path.is_file():
            continue
        found = ids_of(path).get("wandb")
        if found:
            names.append(artifact_name(found))
    return tuple(names)


def artifact_name(found: Mapping[str, Any], name: str = "checkpoint") -> str:
    """The artifact of a run, by its id in `loggers.json`, as W&B finds it."""
    place = "/".join(str(found[key]) for key in ("entity", "project") if found.get(key))
    return f"{place}/{name}-{found['id']}:best".lstrip("/")


def renamed(file: File, board: Board) -> File:
    """A file under a name with the id of its run, which W&B asks to be unique in a project."""
    found = board.identity or {}
    own = f"{file.name}-{found['id']}" if found.get("id") else file.name
    uses = tuple(artifact_name(found) if each == "checkpoint" and found else each for each in file.uses)
    return File(file.path, own, file.kind, file.about, uses)
