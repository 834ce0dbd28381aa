"""Loggers: metrics as a CSV file that survives interruption, and the boards that a config asks for."""

from __future__ import annotations

import csv
import logging
import shutil
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.loggers.logger import Logger
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from dvsn.atomic import replacing
from dvsn.config.build import build
from dvsn.engine.boards.find import is_board, prepared
from dvsn.engine.boards.ids import read_ids
from dvsn.engine.boards.labels import Labels, labels_of
from dvsn.errors import ConfigError
from dvsn.reading import separated

log = logging.getLogger(__name__)


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
        """Take over the rows of an earlier part of this run, up to `step`.

        A line that cannot be read is left out and told; the file as it was is kept beside the new one.
        """
        if not self.path.is_file():
            return
        text = self.path.read_bytes().decode("utf-8", errors="replace")
        header, *lines = text.splitlines() or [""]
        columns, damaged = separated(header, ","), []
        for number, line in enumerate(lines, start=2):
            try:
                row = dict(zip(columns, separated(line, ","), strict=True))
                own = int(row.pop("step"))
                values = {name: float(value) for name, value in row.items() if value != ""}
            except (KeyError, ValueError):
                damaged.append(number)
                continue
            if own < step:
                self._rows[own] = values
        if damaged:
            kept = self.path.with_name("metrics_damaged.csv")
            shutil.copyfile(self.path, kept)
            listed = ", ".join(map(str, damaged[:8])) + (" and more" if len(damaged) > 8 else "")
            log.warning(
                "%s: line %s cannot be read, expected a step and a number or nothing for each column of the first line. The "
                "others go on in the table; the file as it was is %s",
                self.path, listed, kept,
            )  # fmt: skip

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


def build_loggers(config: dict[str, Any], *, labels: Labels | None = None) -> list[Any]:
    """The loggers of the group.

    Those that show more than scalars get a name, tags and the id of a run that goes on where the config leaves them open.
    `labels` are those of an evaluation; None: of the training in the folder `run_dir`.
    """
    nodes = {key: dict(node) for key, node in (config.get("logger") or {}).items() if isinstance(node, dict)}
    folder = Path(config["run_dir"])
    for key, node in nodes.items():
        if is_board(node):
            known = labels or labels_of(config, folder=folder)
            nodes[key] = prepared(node, known, {} if labels else read_ids(folder), folder=folder)
    return build_parts({"logger": nodes}, "logger")


def build_parts(config: dict[str, Any], group: str) -> list[Any]:
    """What the nodes of a group build. One that is null is left out. Raises `ConfigError` for one that names no class."""
    nodes = {name: node for name, node in (config.get(group) or {}).items() if node is not None}
    for name, node in nodes.items():
        if not isinstance(node, dict) or "_target_" not in node:
            raise ConfigError(
                f"{group}.{name}: found {node!r}, expected null, or options with _target_, the name of a class. Choose a "
                f"group that has it, such as {group}={'default' if group == 'callbacks' else 'csv'}"
            )
    return list(build(nodes, path=group).values())


def resume_csv(trainer: pl.Trainer, step: int) -> None:
    """Drop the rows that were logged after the step from which a run continues."""
    for logger in trainer.loggers:
        if isinstance(logger, CsvLogger):
            logger.resume(step)
