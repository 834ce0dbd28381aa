"""Where each picture stands in the grids of a run: the file `layout.json` beside them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dvsn.atomic import write_json
from dvsn.errors import DataError
from dvsn.reading import MEGABYTE, read_json, shown, to_text, to_whole

Array = np.ndarray[Any, Any]

FILE = "layout.json"
VERSION = 1
EXPECTED = "the places of pictures in a grid, as training writes them"
STEM = re.compile(r"(epoch|step)_(\d+)")
MARGIN, HEADER = 6, 26  # pixels between pictures, and above them


class Box(NamedTuple):
    """A part of a grid in pixels."""

    left: int
    top: int
    width: int
    height: int


class Grid(NamedTuple):
    """A grid of a run as a file."""

    unit: str
    """`epoch` or `step`, of which `number` is one."""
    number: int
    path: Path


@dataclass(frozen=True)
class Layout:
    """The same for all grids of a run from the first one on, `since`."""

    rows: tuple[str, ...]
    """The names of the pictures that a row shows."""
    columns: tuple[str, ...]
    """The titles of the panels."""
    boxes: tuple[tuple[Box, ...], ...]
    """A row of boxes for each row, a box a column."""
    size: tuple[int, int]
    """(height, width) of a grid."""
    since: str = ""
    """The stem of the first grid with this layout, where a resumed run has another one than before; else of the first
    grid."""

    def write(self, folder: Path) -> None:
        """Write `layout.json` into the folder of the grids, at once."""
        content = {
            "version": VERSION, "rows": self.rows, "columns": self.columns, "boxes": self.boxes,
            "size": self.size, "since": self.since,
        }  # fmt: skip
        write_json(folder / FILE, content)

    def cut(self, grid: Array, row: int, column: int) -> Array:
        """One picture of a grid (H, W, 3)."""
        box = self.boxes[row][column]
        return grid[box.top : box.top + box.height, box.left : box.left + box.width]

    def grids(self, folder: Path) -> list[Grid]:
        """The grids of this layout that are there, the earliest first: those of epochs, or of steps where a run was only
        validated within epochs. `latest.png` is none of them."""
        found = []
        for path in folder.glob("*_*.png") if folder.is_dir() else ():
            match = STEM.fullmatch(path.stem)
            if match is not None:
                found.append(Grid(match[1], int(match[2]), path))
        first = STEM.fullmatch(self.since)
        if first is not None:
            found = [each for each in found if each.unit != first[1] or each.number >= int(first[2])]
        epochs = [each for each in found if each.unit == "epoch"]
        return sorted(epochs or found, key=lambda each: each.number)


def place(rows: Sequence[Sequence[Array]], names: Sequence[str], titles: Sequence[str]) -> Layout:
    """The layout of a grid of pictures (H, W, 3): columns as wide as their widest, rows as high as their highest picture."""
    widths = [max(row[column].shape[1] for row in rows) for column in range(len(titles))]
    lefts = [MARGIN + sum(widths[:column]) + MARGIN * column for column in range(len(titles))]
    boxes, top = [], HEADER
    for row in rows:
        boxes.append(
            tuple(
                Box(left, top, picture.shape[1], picture.shape[0])
                for left, picture in zip(lefts, row, strict=True)
            )
        )
        top += max(picture.shape[0] for picture in row) + MARGIN
    size = (top, sum(widths) + MARGIN * (len(widths) + 1))
    return Layout(tuple(names), tuple(titles), tuple(boxes), size)


def read_layout(folder: Path) -> Layout:
    """The layout of a folder of grids. Raises `DataError` for a folder without one, and for a file that is none, naming
    the place in it."""
    path = folder / FILE
    if not path.is_file():
        raise DataError(
            f"{path}: is not there; expected {EXPECTED} since 2026-12. Without it the grids can be shown whole only."
        )
    content = read_json(path, expected=EXPECTED, limit=16 * MEGABYTE)
    if not isinstance(content, dict) or content.get("version") != VERSION:
        found = content.get("version") if isinstance(content, dict) else content
        raise DataError(f"{path}: version: found {shown(found)}, expected {VERSION}.")
    names = {
        key: tuple(to_text(each, f"{path}: {key}[{n}]") for n, each in enumerate(_list(content, key, path)))
        for key in ("rows", "columns")
    }
    boxes, size = _boxes(content, path), _list(content, "size", path)
    if len(boxes) != len(names["rows"]) or {len(row) for row in boxes} != {len(names["columns"])}:
        raise DataError(
            f"{path}: boxes: expected {len(names['rows'])} lists of {len(names['columns'])} boxes, as rows and columns say."
        )
    if len(size) != 2:
        raise DataError(f"{path}: size: found {shown(size)}, expected [HEIGHT, WIDTH].")
    height, width = (to_whole(each, f"{path}: size[{n}]") for n, each in enumerate(size))
    since = content.get("since", "")
    _within(boxes, (height, width), path)
    return Layout(
        names["rows"], names["columns"], boxes, (height, width), since if isinstance(since, str) else ""
    )


def _list(content: dict[str, Any], key: str, path: Path) -> list[Any]:
    found = content.get(key)
    if not isinstance(found, list):
        raise DataError(f"{path}: {key}: found {shown(found)}, expected a list.")
    return found


def _boxes(content: dict[str, Any], path: Path) -> tuple[tuple[Box, ...], ...]:
    rows = []
    for number, row in enumerate(_list(content, "boxes", path)):
        where = f"{path}: boxes[{number}]"
        if not isinstance(row, list) or not all(isinstance(box, list) and len(box) == 4 for box in row):
            raise DataError(
                f"{where}: found {shown(row)}, expected a list of [left, top, width, height], one a column."
            )
        rows.append(tuple(Box(*(to_whole(value, where) for value in box)) for box in row))
    return tuple(rows)


def _within(boxes: tuple[tuple[Box, ...], ...], size: tuple[int, int], path: Path) -> None:
    for number, row in enumerate(boxes):
        for box in row:
            inside = box.left >= 0 and box.top >= 0 and box.width > 0 and box.height > 0
            if not inside or box.top + box.height > size[0] or box.left + box.width > size[1]:
                raise DataError(
                    f"{path}: boxes[{number}]: {list(box)} is not within a grid of {size[0]}x{size[1]} (height x width)."
                )
