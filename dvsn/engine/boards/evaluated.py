"""An evaluation on the boards: scores, tables, plots and pictures, as a run of its own beside that of the training."""

from __future__ import annotations

from pathlib import Path

from dvsn.analysis.record import FILE, read
from dvsn.config.flags import command_words
from dvsn.engine.boards.board import Board, Config
from dvsn.engine.boards.find import find_boards, is_board
from dvsn.engine.boards.ids import Ids, ids_of
from dvsn.engine.boards.labels import LONGEST, NAMED, Labels, belongs, class_name, cut, overrides, shorter
from dvsn.engine.loggers import build_loggers
from dvsn.hub.names import is_name
from dvsn.portable.decode import read_rgb
from dvsn.tasks.base import Task

OWN = (*NAMED, "checkpoint", "split", "output", "root", "batch_size", "workers", "save_all", "worst", "fiftyone",
       "trainer")  # fmt: skip
"""Options that the name of an evaluation has already, or on which its scores do not depend."""


def show_on_boards(
    config: Config, about: Config, values: dict[str, float], task: Task, output: Path, *, since: float
) -> None:
    """Show what an evaluation has found on the boards of `logger=...`, if there are any.

    `about` is the head of metrics.json, `values` are the scores, `output` is its folder. The record analysis.json is taken
    if it was written after `since`, in seconds since 1970; without it the task's own tables and pictures.
    """
    own = {"save_dir": str(output), "offline_directory": str(output)}
    nodes = {
        key: {**node, **{name: place for name, place in own.items() if name in node}}
        for key, node in (config.get("logger") or {}).items()
        if is_board(node)
    }
    if not nodes:
        return
    path = Path(about["checkpoint"])
    trained = trained_by(path)
    labels = labels_of(path, about["split"], task, trained)
    loggers = build_loggers({"run_dir": str(output), "logger": nodes}, labels=labels)
    step = int(about["step"] or 0)
    told = {key: about[key] for key in ("checkpoint", "split", "samples", "measured")}
    for board in find_boards(loggers):
        board.begin({**told, "trained_by": trained}, labels)
        board.logger.log_metrics(
            {f"{about['split']}/{name}": value for name, value in values.items()}, step=step
        )
        show(board, output, task, split=about["split"], step=step, since=since)
        board.end()


def show(board: Board, output: Path, task: Task, *, split: str, step: int, since: float) -> None:
    """Tables, plots, and the grid of pictures."""
    record = output / FILE
    if record.is_file() and record.stat().st_mtime >= since - 1:
        board.analysis(read(record), output, step=step)
    else:
        for title, rows in task.test_details.items():
            board.rows(f"{split}/{title}", rows, step=step)
        for name, picture in task.test_pictures.items():
            board.picture(f"{split}/{name}", picture, caption=name, step=step)
    grid = output / "grid.png"
    if grid.is_file():
        board.picture(
            f"{split}/pictures",
            read_rgb(grid),
            caption="the first pictures of the split",
            step=step,
            file=grid,
        )


def trained_by(path: Path) -> Ids:
    """By which ids the loggers know the run that wrote a checkpoint."""
    if is_name(path) or path.suffix != ".ckpt":
        return {}
    return ids_of(path)


def labels_of(path: Path, split: str, task: Task, trained: Ids) -> Labels:
    """Named by run and checkpoint, split, and the options of the measurement; in the group of the training."""
    differs = shorter([each for each in overrides(command_words()) if not belongs(each, OWN)])
    run = path.parent.parent.name if path.parent.name == "checkpoints" else path.parent.name
    name = " ".join([f"{run}/{path.name} on {split}", ", ".join(differs)])
    data = task.data_recipe.get("dataset") or task.data_recipe
    tags = [task.kind, class_name(task.recipe.get("network")), class_name(data)]
    group = trained.get("wandb", {}).get("group")
    return Labels(cut(name, LONGEST), tuple(dict.fromkeys(each for each in tags if each)), group, "evaluate")
