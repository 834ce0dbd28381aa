"""The callback that gives boards what Lightning does not: layers of the fixed validation pictures, confusion matrix and
precision-recall curves of the last validation; and the checkpoint the ids of the runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

from dvsn.analysis.record import Matrix
from dvsn.analysis.thresholds import Scored, find_scored
from dvsn.engine.analysing import gathering
from dvsn.engine.boards.board import Board, Shown
from dvsn.engine.boards.find import find_boards
from dvsn.engine.boards.ids import read_ids
from dvsn.engine.callbacks import PictureGrid
from dvsn.pictures.layers import Layers


class ShowOnBoards(Callback):
    """Works on the pictures of `PictureGrid`, and stands before it, which empties its gallery."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.boards: list[Board] | None = None
        self.layers: list[Layers] = []
        self.matrices: tuple[Matrix, ...] = ()
        self.scored: Scored | None = None  # where a board has a form for its curves

    def setup(self, trainer: pl.Trainer, pl_module: Any, stage: str) -> None:
        if stage == "fit" and any(each.has_curves for each in self.find(trainer)):
            self.scored = find_scored(pl_module)

    def find(self, trainer: pl.Trainer) -> list[Board]:
        if self.boards is None:
            self.boards = find_boards(trainer.loggers)
        return self.boards

    def grid(self, trainer: pl.Trainer) -> PictureGrid | None:
        """The callback of the pictures, where this validation shows any."""
        found = [each for each in trainer.callbacks if isinstance(each, PictureGrid)]  # type: ignore[attr-defined]
        return found[0] if found and found[0]._wanted(trainer) and self.find(trainer) else None

    def on_validation_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self.layers = []
        if self.scored is not None:
            self.scored.begin()

    def on_validation_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, *_: Any
    ) -> None:
        if self.scored is not None and outputs is not None and not trainer.sanity_checking:
            self.scored.look(batch, outputs)
        grid = self.grid(trainer)
        if grid is None or outputs is None:
            return
        missing = grid.gallery.count - len(self.layers)
        if missing > 0:
            found = pl_module.layers(batch, outputs)[:missing]
            self.layers += [each.within(grid.gallery.max_side) for each in found]

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Callbacks hear this before the task, which then resets its metrics. Every process counts."""
        if self.scored is not None:
            self.scored.end()
        if not trainer.sanity_checking and trainer.state.fn == "fit":
            self.matrices = pl_module.matrices()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        grid = self.grid(trainer)
        if grid is None or not grid.gallery.rows:
            return
        gallery = grid.gallery
        layers: Sequence[Layers | None] = self.layers or [None] * len(gallery.rows)
        shown = [
            Shown(name, dict(zip(gallery.titles, row, strict=True)), each)
            for name, row, each in zip(gallery.names, gallery.rows, layers, strict=True)
        ]
        for board in self.find(trainer):
            board.fixed(shown, epoch=trainer.current_epoch + 1, step=step_of(trainer))

    def on_train_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Every process has its part of the curves."""
        curves = () if self.scored is None else self.scored.curves(gathering(trainer))
        if trainer.is_global_zero:
            for board in self.find(trainer):
                for matrix in self.matrices:
                    board.matrix(matrix, step=step_of(trainer))
                for curve in curves:
                    board.precision_recall(curve, step=step_of(trainer))

    def on_exception(self, trainer: pl.Trainer, pl_module: Any, exception: BaseException) -> None:
        """A run that is stopped or fails is closed, so that it can go on, or another begin, in this process."""
        if trainer.is_global_zero:
            for board in self.find(trainer):
                board.end(failed=True)

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        ids = read_ids(self.folder)
        if ids:
            checkpoint.setdefault("dvsn", {})["loggers"] = ids


def step_of(trainer: pl.Trainer) -> int:
    """Where Lightning logs the metrics of a validation."""
    return int(trainer.fit_loop.epoch_loop._batches_that_stepped)
