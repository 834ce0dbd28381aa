"""The curves of many runs: what metrics.csv holds, thinned so that hundreds of them fit into one page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dvsn.report.run_metrics import read_metrics

POINTS = 80_000
"""Points of all curves of a page together, about 2 MB."""
LEAST, MOST = 12, 400
"""Points of one curve."""
SHOWN = 6
"""Columns that are shown: the score first, then losses."""


@dataclass
class Curves:
    """The columns of one run over its steps."""

    name: str
    columns: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    """(step, value) by column, by step; values that are not finite are left out."""
    notes: list[str] = field(default_factory=list)
    """What was wrong with the file."""


def read(folder: Path, name: str) -> Curves:
    """The curves of a run. Of a file that is gone or damaged the notes say what was left out."""
    metrics = read_metrics(folder)
    found = Curves(name, notes=metrics.notes)
    for column, series in metrics.series.items():
        points = [
            (float(step), value)
            for step, value in zip(series.steps, series.values, strict=True)
            if math.isfinite(value)
        ]
        if points:
            found.columns[column] = sorted(points, key=lambda point: point[0])
    return found


def chosen(runs: Sequence[Curves], monitor: str) -> list[str]:
    """The columns that are worth showing: the score, then losses and other scores that most runs have."""
    counts: dict[str, int] = {}
    for run in runs:
        for name in run.columns:
            counts[name] = counts.get(name, 0) + 1
    ordered = sorted(
        (name for name in counts if name.startswith(("train/", "val/")) and name != monitor),
        key=lambda name: (-counts[name], not name.startswith("train/"), name),
    )
    return [*([monitor] if monitor in counts else []), *ordered][:SHOWN]


def thinned(points: Sequence[tuple[float, float]], most: int) -> list[tuple[float, float]]:
    """At most `most` of the points: of each stretch its least and its greatest value, so that no spike is lost, and
    both ends."""
    if len(points) <= most:
        return list(points)
    stretches = max(1, (most - 2) // 2)
    inner = points[1:-1]
    found = [points[0]]
    for number in range(stretches):
        part = inner[number * len(inner) // stretches : (number + 1) * len(inner) // stretches]
        if part:
            ends = {min(part, key=lambda point: point[1]), max(part, key=lambda point: point[1])}
            found += sorted(ends)
    return [*found, points[-1]]


def allowance(runs: int, columns: int) -> int:
    """Points of each curve, so that all of them stay within `POINTS`."""
    return max(LEAST, min(MOST, POINTS // max(1, runs * columns)))
