"""The analysis of an evaluation: `analysis.json`, `pictures.csv`, and the worst, the best and the most confused pictures."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback

from dvsn.analysis import kept as drawings
from dvsn.analysis.analyst import Analyst, Gather, Plain, find_analyst, one
from dvsn.analysis.kept import Kept, Seen, by_score
from dvsn.analysis.record import FILE, Analysis, Picture, Row
from dvsn.analysis.versus import apart
from dvsn.atomic import write_csv
from dvsn.errors import ConfigError

log = logging.getLogger("dvsn")
TABLE = "pictures.csv"
LISTED = 20_000
"""Pictures in analysis.json; of a larger split its worst and its best half of so many. pictures.csv has all."""


class Analysing(Callback):
    """Watches a test through the task's analyst.

    `worst` is how many of the worst and of the best pictures are kept; None: no picture is looked at, and the record holds
    the tables and matrices that the task's metrics know anyway. `teacher` is a task that is asked about the same pictures.
    """

    def __init__(self, task: Any, *, folder: Path, worst: int | None, teacher: Any = None) -> None:
        self.analyst: Analyst = find_analyst(task)(task, teacher)
        self.folder, self.worst, self.teacher = folder, worst, teacher
        if teacher is not None and not self.analyst.compares:
            raise ConfigError(
                f"teacher: the analysis of the task '{task.kind}' does not compare with a teacher. Set teacher=null."
            )
        if worst is not None and isinstance(self.analyst, Plain):
            log.warning(
                "worst: the task '%s' has no analysis of its own (dvsn/analysis/%s.py), so each picture is asked about "
                "once more and scored by the task's first metric; a metric that reads the data set gives no scores",
                task.kind, task.kind,
            )  # fmt: skip
        self.kept = Kept(worst or 0, self.analyst.better)
        self.seen: list[Seen] = []
        self.latest: list[Picture] = []  # those of the last batch
        self.drawings: dict[str, bytes] = {}

    def on_test_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        if trainer.is_global_zero:
            drawings.clear(self.folder, (FILE, TABLE))
        if self.teacher is not None:
            self.teacher.to(pl_module.device).eval()

    def on_test_epoch_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self.analyst.begin(look=self.worst is not None)  # here the task's metrics are ready

    def on_test_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, *_: Any
    ) -> None:
        if self.worst is None:
            return
        pictures = self.latest = self.analyst.look(batch, outputs)
        for number, (index, picture) in enumerate(zip(batch["index"], pictures, strict=True)):
            self.seen.append(Seen(int(index), picture))

            def draw(number: int = number) -> bytes:
                return drawings.draw(self.analyst.panels(one(batch, number), one(outputs, number)))

            self.kept.offer(int(index), picture.score, draw, picture.cells)

    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Before the task's own hook, which resets its metrics."""
        gather = gathering(trainer)
        self.analyst.close(gather)
        self.seen = by_score([each for part in gather(self.seen) for each in part], self.kept)
        files = self.kept.choose(self.seen)
        self.drawings = self.kept.collect(files, gather)
        files = {index: file for index, file in files.items() if file in self.drawings}
        self.seen = [
            replace(each, picture=replace(each.picture, file=files[each.index]))
            if each.index in files
            else each
            for each in self.seen
        ]

    def write(self, about: dict[str, Any], details: dict[str, list[Row]]) -> None:
        """Write everything into the folder; `about` is what metrics.json says of the measurement, `details` its tables."""
        found = self.analyst
        drawings.write_drawings(self.folder, self.drawings)
        pictures = [found.settle(each.picture) for each in self.seen]
        if self.worst is not None:
            write_csv(self.folder / TABLE, rows_of(pictures, found.score))
        Analysis(
            task=found.task.kind,
            checkpoint=about["checkpoint"],
            split=about["split"],
            samples=about["samples"],
            score=found.score,
            better=found.better,
            classes=found.classes,
            tables={**details, **found.tables(), **apart(pictures, found.score, found.better)},
            charts=found.charts(),
            matrices=found.matrices(),
            pictures=listed([each for each in pictures if each.score == each.score]),
            curves=found.curves(),
        ).write(self.folder)
        for name in (FILE, *([TABLE] if self.worst is not None else [])):
            log.info("%s", self.folder / name)
        for name in drawings.FOLDERS:
            if any(file.startswith(f"{name}/") for file in self.drawings):
                log.info("%s", self.folder / name)


def gathering(trainer: pl.Trainer) -> Gather:
    """How an object of each process comes to all."""

    def gather(own: Any) -> list[Any]:
        if trainer.world_size == 1:
            return [own]
        found: list[Any] = [None] * trainer.world_size
        torch.distributed.all_gather_object(found, own)
        return found

    return gather


def rows_of(pictures: list[Picture], score: str) -> list[dict[str, Any]]:
    """A row a picture, with the same columns: its scores, and None where one of them is not defined."""
    columns = sorted({name for each in pictures for name in each.values})

    def defined(value: float | None) -> float | None:
        return None if value is None or value != value else value

    return [
        {"name": each.name, score: defined(each.score)}
        | {name: defined(each.values.get(name)) for name in columns if name != score}
        | {"file": each.file, "note": each.note}
        for each in pictures
    ]


def listed(pictures: list[Picture], most: int = LISTED) -> tuple[Picture, ...]:
    """Of `pictures`, the worst first, so many that the record stays small."""
    if len(pictures) <= most:
        return tuple(pictures)
    return (*pictures[: most - most // 2], *pictures[len(pictures) - most // 2 :])
