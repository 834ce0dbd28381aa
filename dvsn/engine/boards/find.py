"""Which board a logger is: by the name of its class, so that none is imported that is not used."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dvsn.engine.boards.board import Board
from dvsn.engine.boards.ids import Ids
from dvsn.engine.boards.labels import Labels

BOARDS = {
    "WandbLogger": ("wandb", "WandbBoard"),
    "TensorBoardLogger": ("tensorboard", "TensorBoard"),
    "MLFlowLogger": ("mlflow", "MlflowBoard"),
    "CometLogger": ("comet", "CometBoard"),
}
"""The file and the class of a board by the class of its logger."""


def is_board(node: Any) -> bool:
    """Whether a node of a config builds a logger that shows more than scalars."""
    return isinstance(node, dict) and str(node.get("_target_", "")).rpartition(".")[2] in BOARDS


def find_boards(loggers: Iterable[Any]) -> list[Board]:
    """A board for each logger that is one."""
    found = []
    for logger in loggers:
        file, name = BOARDS.get(type(logger).__name__, ("", ""))
        if file:
            kind: type[Board] = getattr(importlib.import_module(f"dvsn.engine.boards.{file}"), name)
            found.append(kind(logger))
    return found


def name_of(logger: Any) -> str:
    """By what name `loggers.json` has the ids of a logger."""
    return BOARDS[type(logger).__name__][0]


def prepared(node: dict[str, Any], labels: Labels, ids: Ids, *, folder: Path) -> dict[str, Any]:
    """The node of a board's logger with what the config leaves open: its name, its tags, the id of a run that goes on."""
    file, _ = BOARDS[str(node["_target_"]).rpartition(".")[2]]
    module = importlib.import_module(f"dvsn.engine.boards.{file}")
    found: dict[str, Any] = module.prepare(node, labels, ids.get(file, {}), folder=folder)
    return found
