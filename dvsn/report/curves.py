"""The curves of many runs: what metrics.csv holds, thinned so that hundreds of them fit into one page."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dvsn.errors import DataError
from dvsn.reading import read_text

FILE = "metrics.csv"
LIMIT = 256 << 20
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
    note: str = ""
    """What was wrong with the file."""


def read(folder: Path, name: str) -> Curves:
    """The curves of a run. A file that is gone, or damaged, leaves a note; of a line that was cut off the rest counts."""
    found = Curves(name)
    try:
        text = read_text(folder / FILE, expected="the metrics of a run", limit=LIMIT)
    except DataError as error:
        found.note = str(error)
        return found
    cut = not text.endswith("\n")
    reader = csv.reader(io.StringIO(text, newline=""))
    try:
        rows = [row for row in reader if row]
    except csv.Error as error:
        found.note = f"{folder / FILE}: line {reader.line_num}: {error}; its curves were left out."
        return found
    if not rows or "step" not in rows[0]:
        found.note = f"{folder / FILE}: has no column step; its curves were left out."
        return found
    if cut and len(rows) > 1:
        rows.pop()  # its last number may be a part of one
        found.note = f"{folder / FILE}: its last line was cut off and is left out."
    odd = fill(found, rows)
    if odd:
        found.note = f"{folder / FILE}: {odd} values are no numbers and were left out."
    return found


def fill(curves: Curves, rows: Sequence[Sequence[str]]) -> int:
    """Take the rows below a heading; returns how many values were no numbers."""
    names, odd = rows[0], 0
    at = names.index("step")
    for row in rows[1:]:
        step = to_float(row[at]) if at < len(row) else None
        if step is None:
            odd += 1
            continue
        for place, text in enumerate(row[: len(names)]):
            if place == at or text == "":
                continue
            value = to_float(text)
            if value is None:
                odd += 1
            elif math.isfinite(value):
                curves.columns.setdefault(names[place], []).append((step, value))
    for points in curves.columns.values():
        points.sort(key=lambda point: point[0])
    return odd


def to_float(text: str) -> float | None:
    """None for what is no number. `nan` and `inf` are numbers here: a loss may be."""
    try:
        return float(text)
    except ValueError:
        return None


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
