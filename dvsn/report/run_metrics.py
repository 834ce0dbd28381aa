"""`metrics.csv` of a run as series over its steps and epochs. What cannot be read is left out, and said."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

from dvsn.errors import DataError
from dvsn.reading import MEGABYTE, read_text, separated

FILE = "metrics.csv"
LIMIT = 512 * MEGABYTE
MOST = 1500
"""Points of a drawn curve."""


@dataclass
class Series:
    """The values of one column at the steps where it was logged, in the order of the file."""

    steps: list[int] = field(default_factory=list)
    epochs: list[int | None] = field(default_factory=list)
    """Counted from 0, as in the file."""
    values: list[float] = field(default_factory=list)
    """May hold NaN and infinity, as they were logged."""

    @property
    def finite(self) -> list[float]:
        return [value for value in self.values if math.isfinite(value)]

    @property
    def last(self) -> float | None:
        return self.values[-1] if self.values else None


@dataclass
class Metrics:
    """All columns of a run, and what was wrong with the file."""

    series: dict[str, Series] = field(default_factory=dict)
    steps_per_epoch: float | None = None
    """None where no epoch has ended."""
    notes: list[str] = field(default_factory=list)

    def places(self, series: Series) -> list[float]:
        """Where values stand on the axis: epochs that have passed, with their fractions; steps where no epoch has ended."""
        if self.steps_per_epoch is None:
            return [float(step) for step in series.steps]
        return [round((step + 1) / self.steps_per_epoch, 4) for step in series.steps]

    @property
    def axis(self) -> str:
        return "step" if self.steps_per_epoch is None else "epoch"

    def names(self, prefix: str) -> list[str]:
        """The columns that begin so and hold anything, in the order of the file."""
        return [name for name, each in self.series.items() if name.startswith(prefix) and each.values]


def read_metrics(folder: Path) -> Metrics:
    """The metrics of a run folder. Never raises for a damaged file: its notes say what was left out."""
    path = folder / FILE
    if not path.exists():
        return Metrics(
            notes=[f"{path}: is not there: nothing was logged before the run ended, or it was removed."]
        )
    try:
        text = read_text(path, expected="the metrics of a run", limit=LIMIT)
    except DataError as error:
        return Metrics(notes=[f"{error} The curves are left out."])
    return parse(text, path)


def parse(text: str, path: Path) -> Metrics:
    """The table in a text, which `path` names in notes."""
    found = Metrics()
    lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    if not lines:
        found.notes.append(f"{path}: is empty.")
        return found
    names = separated(lines[0][1], ",")
    if "step" not in names:
        found.notes.append(f"{path}: line 1: has no column named step; the curves are left out.")
        return found
    if not text.endswith("\n") and len(lines) > 1:  # its last number may be a part of one
        found.notes.append(f"{path}: line {lines[-1][0]} was cut off; it is left out.")
        lines.pop()
    found.series = {name: Series() for name in names if name not in ("step", "epoch")}
    damaged = [number for number, line in lines[1:] if not _add(found, names, separated(line, ","))]
    if damaged:
        listed = ", ".join(map(str, damaged[:8])) + (" and more" if len(damaged) > 8 else "")
        found.notes.append(
            f"{path}: line {listed}: not a step and a number or nothing for each column; left out."
        )
    found.steps_per_epoch = _steps_per_epoch(found)
    found.notes += _odd(found, path)
    return found


def _add(metrics: Metrics, names: list[str], cells: list[str]) -> bool:
    """Add a row to the series; whether it could be read."""
    if len(cells) != len(names):
        return False
    row = dict(zip(names, cells, strict=True))
    try:
        step = int(float(row.pop("step")))
        epoch_text = row.pop("epoch", "")
        epoch = int(float(epoch_text)) if epoch_text else None
        values = {name: float(cell) for name, cell in row.items() if cell != ""}
    except (ValueError, OverflowError):
        return False
    for name, value in values.items():
        series = metrics.series[name]
        series.steps.append(step)
        series.epochs.append(epoch)
        series.values.append(value)
    return True


def _steps_per_epoch(metrics: Metrics) -> float | None:
    """Steps of an epoch, from the last epoch that has ended: another one began, or was validated."""
    last: dict[int, int] = {}
    ended: set[int] = set()
    for name, series in metrics.series.items():
        for step, epoch in zip(series.steps, series.epochs, strict=True):
            if epoch is not None:
                last[epoch] = max(step, last.get(epoch, -1))
                if name.startswith("val/"):
                    ended.add(epoch)
    if not last:
        return None
    ended |= {epoch for epoch in last if epoch < max(last)}
    if not ended:
        return None
    epoch = max(ended)
    return (last[epoch] + 1) / (epoch + 1) if last[epoch] >= 0 and epoch >= 0 else None


def _odd(metrics: Metrics, path: Path) -> list[str]:
    notes = []
    for name, series in metrics.series.items():
        wrong = [
            step for step, value in zip(series.steps, series.values, strict=True) if not math.isfinite(value)
        ]
        if wrong:
            notes.append(f"{path}: {name} is not finite in {len(wrong)} rows, first at step {wrong[0]}.")
    return notes


def thinned(x: list[float], y: list[float], most: int = MOST) -> tuple[list[float], list[float | None]]:
    """A curve of at most `most` points: neighbours are averaged. What is not finite becomes None, a gap."""
    width = math.ceil(len(x) / most) if len(x) > most else 1
    places, values = [], []
    for first in range(0, len(x), width):
        part = [value for value in y[first : first + width] if math.isfinite(value)]
        places.append(x[min(first + width, len(x)) - 1])
        values.append(float(f"{sum(part) / len(part):.6g}") if part else None)
    return places, values
