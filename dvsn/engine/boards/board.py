"""What the rest of dvsn knows of a logger: one small interface over Lightning's own loggers, which log the scalars."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import yaml

from dvsn.analysis.record import Analysis, Chart, Matrix, PrecisionRecall, Row
from dvsn.engine.boards.labels import Labels
from dvsn.errors import ConfigError
from dvsn.pictures.layers import Layers

Array = np.ndarray[Any, Any]
Config = dict[str, Any]


@dataclass(frozen=True)
class Shown:
    """One of the fixed validation pictures after an epoch: its layers where the task has any, else its panels by title."""

    name: str
    panels: dict[str, Array]
    layers: Layers | None = None


@dataclass(frozen=True)
class File:
    """A file that is kept with a run, and where it comes from."""

    path: Path
    name: str
    """Such as `checkpoint`; letters, digits, `-`, `_` and `.`."""
    kind: str
    """`model` of a checkpoint, `export` of a file that runs elsewhere."""
    about: Mapping[str, Any]
    """Plain data: score, data set, teacher, run."""
    uses: tuple[str, ...] = ()
    """Artifacts it was made from, by their names in W&B."""


class Board:
    """A logger that shows more than scalars. `logger` is Lightning's.

    What a logger has no form for it leaves out: a method that is not overridden does nothing.
    """

    has_curves: ClassVar[bool] = False
    """Whether `precision_recall` does something, so that a training counts for it."""

    def __init__(self, logger: Any) -> None:
        self.logger = logger

    def begin(self, config: Config, labels: Labels) -> None:
        """The resolved config, once, when the run starts or goes on."""

    def picture(self, key: str, picture: Array, *, caption: str, step: int, file: Path | None = None) -> None:
        """An RGB picture (H, W, 3) uint8 under a name such as `val/pictures`. `file`: where it lies as a PNG already, for
        encoding a large one takes a second."""

    def fixed(self, shown: Sequence[Shown], *, epoch: int, step: int) -> None:
        """The fixed validation pictures after an epoch, counted from 1."""

    def rows(self, key: str, rows: Sequence[Row], *, step: int) -> None:
        """A table of rows with the same columns."""

    def chart(self, chart: Chart, *, step: int) -> None:
        """Curves or bars."""

    def matrix(self, matrix: Matrix, *, step: int) -> None:
        """Counts by true and predicted class."""

    def precision_recall(self, curve: PrecisionRecall, *, step: int) -> None:
        """Right and wrong answers of a class by threshold."""

    def file(self, file: File) -> None:
        """Keep a file with the run."""

    def summary(self, values: Mapping[str, Any]) -> None:
        """What the run is judged by, such as `best/val/miou`."""

    def end(self, *, failed: bool = False) -> None:
        """The run has ended: all that waits is written."""

    @property
    def identity(self) -> dict[str, Any] | None:
        """What finds the run again, as plain data with the key `id`; None where a logger has no ids."""
        return None

    def pictures(self, found: Analysis, folder: Path, *, step: int) -> None:
        """The pictures of a record that were kept as files below `folder`, with their scores."""

    def analysis(self, found: Analysis, folder: Path, *, step: int) -> None:
        """What an evaluation has found beside its scores; `folder` is that of the record."""
        for title, rows in found.tables.items():
            self.rows(f"{found.split}/{title}", rows, step=step)
        for chart in found.charts:
            self.chart(chart, step=step)
        for matrix in found.matrices:
            self.matrix(matrix, step=step)
        for curve in found.curves:
            self.precision_recall(curve, step=step)
        self.pictures(found, folder, step=step)


def require_installed(module: str, *, logger: str) -> None:
    """Raise `ConfigError` where the package of a logger is missing."""
    if importlib.util.find_spec(module) is None:
        package = module.replace("_", "-")
        raise ConfigError(
            f"logger.{logger}: the package {package} is missing. Run: pip install 'dvsn[{logger}]'"
        )


def matrix_rows(matrix: Matrix) -> list[Row]:
    """A matrix as a table: a row a true class, a column a predicted one."""
    return [
        {"true": name, **dict(zip(matrix.columns, counts, strict=True))}
        for name, counts in zip(matrix.rows, matrix.counts, strict=True)
    ]


def as_yaml(config: Config) -> str:
    """A resolved config as it stands in config.yaml."""
    return yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
