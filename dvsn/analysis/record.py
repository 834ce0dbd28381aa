"""What an evaluation found beside its scores, as one record of plain data: the file `analysis.json`.

Whoever shows it (a report, a logger) needs to know nothing of the task: each task says what it found in tables, charts,
matrices and pictures. Paths are relative to the folder of the file.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from dvsn.atomic import write_json
from dvsn.errors import DataError
from dvsn.reading import entries, read_json, shown, to_number, to_text, to_whole

FILE = "analysis.json"
VERSION = 1
KINDS = ("line", "bars", "steps")
Row = dict[str, "str | int | float | None"]


@dataclass(frozen=True)
class Curve:
    """One line, or one row of bars, of a chart. Of bars, `x` holds the names of the bars."""

    name: str
    x: tuple[float | str, ...]
    y: tuple[float | None, ...]


@dataclass(frozen=True)
class Chart:
    """Curves over the same axes."""

    key: str
    """A file stem, such as `calibration`."""
    title: str
    x: str
    """The name of the axis, with its unit."""
    y: str
    curves: tuple[Curve, ...]
    kind: str = "line"
    """`line`, `steps` or `bars`."""
    diagonal: bool = False
    """Whether y = x is drawn for comparison, as in a reliability diagram."""
    note: str = ""
    """A sentence below the chart: how it is to be read."""


@dataclass(frozen=True)
class Matrix:
    """Counts by true class (row) and predicted class (column)."""

    key: str
    title: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    counts: tuple[tuple[float, ...], ...]
    unit: str = "pictures"
    note: str = ""


@dataclass(frozen=True)
class PrecisionRecall:
    """Answers of one class by the least score that is asked for, at evenly spaced thresholds from 0 to 1; all (T,)."""

    name: str
    true_positives: tuple[float, ...]
    false_positives: tuple[float, ...]
    true_negatives: tuple[float, ...]
    """0 where there is no such thing, as of boxes."""
    false_negatives: tuple[float, ...]

    @property
    def precision(self) -> tuple[float, ...]:
        """0 where there is no answer, as TensorBoard has it."""
        return tuple(
            right / (right + wrong) if right + wrong else 0.0
            for right, wrong in zip(self.true_positives, self.false_positives, strict=True)
        )

    @property
    def recall(self) -> tuple[float, ...]:
        return tuple(
            right / (right + missed) if right + missed else 0.0
            for right, missed in zip(self.true_positives, self.false_negatives, strict=True)
        )

    @property
    def average_precision(self) -> float:
        """The sum of the precisions, each by what the recall gains from the next higher threshold to its own."""
        recall = (*self.recall, 0.0)
        return sum((recall[place] - recall[place + 1]) * each for place, each in enumerate(self.precision))


@dataclass(frozen=True)
class Cell:
    """How much of a picture lies in one cell of the first matrix, off its diagonal."""

    row: int
    column: int
    count: float


@dataclass(frozen=True)
class Picture:
    """One picture of the split, with its scores."""

    name: str
    score: float
    values: dict[str, float] = field(default_factory=dict)
    """Further scores by name, such as the teacher's."""
    file: str | None = None
    """The side-by-side picture, such as `worst/0001_NAME.jpg`; None where it was not kept."""
    cells: tuple[Cell, ...] = ()
    """The largest first."""
    note: str = ""
    """In words, such as `person taken for rider (812 pixels)`."""


@dataclass(frozen=True)
class Analysis:
    """All of it."""

    task: str
    checkpoint: str
    split: str
    samples: int
    score: str
    """The name of the pictures' score, such as `miou`."""
    better: str
    """`more` or `less`."""
    classes: tuple[str, ...] = ()
    tables: dict[str, list[Row]] = field(default_factory=dict)
    """Rows with the same columns, by title."""
    charts: tuple[Chart, ...] = ()
    matrices: tuple[Matrix, ...] = ()
    pictures: tuple[Picture, ...] = ()
    """The worst first."""
    curves: tuple[PrecisionRecall, ...] = ()
    """Of all classes together, and of each."""

    def write(self, folder: Path) -> Path:
        """Write the record as `analysis.json` into `folder`, at once. Numbers that are not finite are written as null."""
        path = folder / FILE
        write_json(path, {"version": VERSION, **plain(asdict(self))})
        return path


def plain(value: Any) -> Any:
    """A value as JSON has it: lists for tuples, None for numbers that are not finite."""
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def read(path: Path) -> Analysis:
    """The record in a file. Raises `DataError` for a file that is none, naming the place in it."""
    content = read_json(path, expected="what python -m dvsn.evaluate writes")
    if not isinstance(content, dict):
        raise DataError(
            f"{path}: found {shown(content)}, expected an object, as python -m dvsn.evaluate writes it."
        )
    if content.get("version") != VERSION:
        raise DataError(
            f"{path}: version: found {shown(content.get('version'))}, expected {VERSION}. Evaluate the checkpoint again."
        )
    better = content.get("better")
    if better not in ("more", "less"):
        raise DataError(f"{path}: better: found {shown(better)}, expected more or less.")
    tables = content.get("tables")
    if not isinstance(tables, dict):
        raise DataError(
            f"{path}: tables: found {shown(tables)}, expected an object, a list of rows by title."
        )
    return Analysis(
        **{key: to_text(content.get(key), f"{path}: {key}") for key in ("task", "checkpoint", "split", "score")},
        samples=to_whole(content.get("samples"), f"{path}: samples"),
        better=better,
        classes=_names(content, "classes", str(path)),
        tables={title: entries(tables, title, path, what="a row") for title in tables},
        charts=tuple(_chart(each, f"{path}: charts[{n}]") for n, each in enumerate(entries(content, "charts", path))),
        matrices=tuple(
            _matrix(each, f"{path}: matrices[{n}]") for n, each in enumerate(entries(content, "matrices", path))
        ),
        pictures=tuple(
            _picture(each, f"{path}: pictures[{n}]", path) for n, each in enumerate(entries(content, "pictures", path))
        ),
        curves=tuple(
            _curve(each, f"{path}: curves[{n}]")
            for n, each in enumerate(entries({"curves": content.get("curves", [])}, "curves", path))
        ),
    )  # fmt: skip


def _list(node: Mapping[str, Any], key: str, where: str) -> list[Any]:
    found = node.get(key)
    if not isinstance(found, list):
        raise DataError(f"{where}: {key}: found {shown(found)}, expected a list.")
    return found


def _names(node: Mapping[str, Any], key: str, where: str) -> tuple[str, ...]:
    return tuple(to_text(each, f"{where}: {key}[{n}]") for n, each in enumerate(_list(node, key, where)))


def _numbers(node: Mapping[str, Any], key: str, where: str) -> tuple[float | None, ...]:
    return tuple(
        None if each is None else to_number(each, f"{where}: {key}[{n}]")
        for n, each in enumerate(_list(node, key, where))
    )


def _text(node: Mapping[str, Any], key: str, where: str) -> str:
    """Text that may be empty or absent."""
    found = node.get(key, "")
    if not isinstance(found, str):
        raise DataError(f"{where}: {key}: found {shown(found)}, expected text.")
    return found


def _chart(node: Mapping[str, Any], where: str) -> Chart:
    kind = node.get("kind", "line")
    if kind not in KINDS:
        raise DataError(f"{where}: kind: found {shown(kind)}, expected {', '.join(KINDS)}.")
    curves = []
    for number, each in enumerate(_list(node, "curves", where)):
        place = f"{where}: curves[{number}]"
        if not isinstance(each, dict):
            raise DataError(f"{place}: found {shown(each)}, expected a curve.")
        x = _names(each, "x", place) if kind == "bars" else _numbers(each, "x", place)
        y = _numbers(each, "y", place)
        if len(x) != len(y) or None in x:
            raise DataError(
                f"{place}: {len(x)} values in x and {len(y)} in y, expected as many, and all of x."
            )
        curves.append(Curve(_text(each, "name", place), x, y))  # type: ignore[arg-type]
    named = {key: to_text(node.get(key), f"{where}: {key}") for key in ("key", "title", "x", "y")}
    return Chart(
        **named, curves=tuple(curves), kind=kind, diagonal=node.get("diagonal") is True, note=_text(node, "note", where)
    )  # fmt: skip


def _matrix(node: Mapping[str, Any], where: str) -> Matrix:
    rows, columns = _names(node, "rows", where), _names(node, "columns", where)
    counts = _list(node, "counts", where)
    if len(counts) != len(rows) or any(
        not isinstance(each, list) or len(each) != len(columns) for each in counts
    ):
        raise DataError(f"{where}: counts: expected {len(rows)} lists of {len(columns)} numbers.")
    return Matrix(
        key=to_text(node.get("key"), f"{where}: key"),
        title=to_text(node.get("title"), f"{where}: title"),
        rows=rows,
        columns=columns,
        counts=tuple(tuple(to_number(each, f"{where}: counts") for each in row) for row in counts),
        unit=_text(node, "unit", where),
        note=_text(node, "note", where),
    )


def _curve(node: Mapping[str, Any], where: str) -> PrecisionRecall:
    keys = ("true_positives", "false_positives", "true_negatives", "false_negatives")
    counts = [
        tuple(to_number(each, f"{where}: {key}[{n}]") for n, each in enumerate(_list(node, key, where))) for key in keys
    ]  # fmt: skip
    if len({len(each) for each in counts}) > 1 or len(counts[0]) < 2:
        raise DataError(
            f"{where}: found {', '.join(f'{len(each)} {key}' for key, each in zip(keys, counts, strict=True))}, expected as "
            "many of each, 2 or more."
        )
    return PrecisionRecall(to_text(node.get("name"), f"{where}: name"), *counts)


def _picture(node: Mapping[str, Any], where: str, path: Path) -> Picture:
    values = node.get("values", {})
    if not isinstance(values, dict):
        raise DataError(f"{where}: values: found {shown(values)}, expected numbers by name.")
    file = node.get("file")
    if file is not None and (not isinstance(file, str) or not _below(path.parent, file)):
        raise DataError(f"{where}: file: found {shown(file)}, expected a file below {path.parent}.")
    cells = []
    for number, each in enumerate(entries({"cells": node.get("cells", [])}, "cells", path)):
        place = f"{where}: cells[{number}]"
        row, column = (to_whole(each.get(key), f"{place}: {key}") for key in ("row", "column"))
        cells.append(Cell(row, column, to_number(each.get("count"), f"{place}: count")))
    return Picture(
        name=to_text(node.get("name"), f"{where}: name"),
        score=to_number(node.get("score"), f"{where}: score"),
        values={name: to_number(each, f"{where}: values: {name}") for name, each in values.items() if each is not None},
        file=file,
        cells=tuple(cells),
        note=_text(node, "note", where),
    )  # fmt: skip


def _below(folder: Path, file: str) -> bool:
    return "\0" not in file and (folder / file).resolve().is_relative_to(folder.resolve())
