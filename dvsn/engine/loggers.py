"""Metrics as a CSV file that survives interruption."""

from __future__ import annotations

import csv
from argparse import Namespace
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers.logger import Logger
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from dvsn.atomic import replacing


class CsvLogger(Logger):
    """`metrics.csv`: a row a logged step, a column a metric, empty where nothing was logged.

    A resumed run keeps the rows before the place it resumes from and rewrites the rest, so the file reads
    as if the run had never stopped. The file is replaced atomically, at each validation and after `flush_every` rows.
    Columns appear as metrics do.
    """

    def __init__(self, *, folder: str, flush_every: int = 50) -> None:
        super().__init__()
        self.path = Path(folder) / "metrics.csv"
        self.flush_every = flush_every
        self._rows: dict[int, dict[str, float]] = {}
        self._unwritten = 0

    @property
    def name(self) -> str:
        return "csv"

    @property
    def version(self) -> str:
        return ""

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """The resolved config lies beside this file already."""

    def resume(self, step: int) -> None:
        """Take over the rows of an earlier part of this run, up to `step`."""
        if self.path.is_file():
            with self.path.open(newline="") as file:
                for row in csv.DictReader(file):
                    if int(row["step"]) < step:
                        values = {k: float(v) for k, v in row.items() if k != "step" and v != ""}
                        self._rows[int(row["step"])] = values

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        row = self._rows.setdefault(int(step or 0), {})
        row.update({name: float(value) for name, value in metrics.items()})
        self._unwritten += 1
        validated = any(name.startswith("val/") for name in metrics)  # a search waits for these
        if validated or self._unwritten >= self.flush_every:
            self.save()

    @rank_zero_only
    def save(self) -> None:
        if not self._unwritten:
            return
        columns: dict[str, None] = {}
        for row in self._rows.values():
            columns.update(dict.fromkeys(row))
        with replacing(self.path) as temporary, temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, ["step", *columns], restval="")
            writer.writeheader()
            for step in sorted(self._rows):
                writer.writerow(
                    {"step": step, **{name: f"{value:.6g}" for name, value in self._rows[step].items()}}
                )
        self._unwritten = 0

    @rank_zero_only
    def finalize(self, status: str) -> None:
        self.save()
