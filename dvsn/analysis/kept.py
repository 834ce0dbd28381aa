"""The worst, the best and the most confused pictures of a split, of which only so many are in memory, as files of JPEG."""

from __future__ import annotations

import heapq
import math
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from dvsn.analysis.analyst import Gather
from dvsn.analysis.record import Cell, Picture
from dvsn.pictures.grids import Array, grid, shrink, to_array, write_bytes

FOLDERS = ("worst", "best", "confused")
CELLS, EACH = 400, 3
"""Kinds of confusions of which pictures are kept, where there are more those that come first; and pictures of each."""
SIDE = 640  # pixels of the longer side of a panel
SMALLEST = 192  # a panel smaller than half of this is enlarged
WIDE = 2.0  # the width of a sheet of panels over its height
QUALITY = 90
LONGEST = 80  # characters of a name in a file's name


@dataclass(frozen=True)
class Seen:
    """A picture of the split: its place in the data set, and what was found of it."""

    index: int
    picture: Picture


class Kept:
    """The drawings of the `count` worst and the `count` best pictures that this process has seen so far, and of each kind of
    confusion those of the pictures with most of it.

    `better` is `more` or `less`. Pictures of equal score come in the order of the data set, so that several processes
    keep what one would, up to `CELLS` kinds of confusions. A picture without a score (NaN) is never kept.
    """

    def __init__(self, count: int, better: str) -> None:
        self.count, self.sign = count, 1.0 if better == "more" else -1.0
        self._worst: list[tuple[float, int]] = []  # heaps: at the top what goes next
        self._best: list[tuple[float, int]] = []
        self._confused: dict[tuple[int, int], list[tuple[float, float, int]]] = {}  # a heap a cell
        self.drawn: dict[int, bytes] = {}

    def quality(self, score: float) -> float:
        return self.sign * score

    def offer(self, index: int, score: float, draw: Callable[[], bytes], cells: Sequence[Cell] = ()) -> None:
        """Draw and keep a picture if it is among the worst or the best, or has most of one of its confusions."""
        if math.isnan(score) or not self.count:
            return
        quality, taken = self.quality(score), False
        for heap, entry in ((self._worst, (-quality, -index)), (self._best, (quality, index))):
            if len(heap) < self.count:
                heapq.heappush(heap, entry)
                taken = True
            else:
                taken |= heapq.heappushpop(heap, entry) != entry
        for cell in cells:
            taken |= self._take(cell, -quality, -index)
        if not taken:
            return
        if index not in self.drawn:
            self.drawn[index] = draw()
        heaps: list[list[Any]] = [self._worst, self._best, *self._confused.values()]
        held = {abs(entry[-1]) for heap in heaps for entry in heap}
        for each in self.drawn.keys() - held:
            del self.drawn[each]

    def _take(self, cell: Cell, badness: float, index: int) -> bool:
        """Whether a picture is among those with most of a confusion; of equal ones, the worse."""
        place, own = (cell.row, cell.column), (cell.count, badness, index)
        if place not in self._confused and len(self._confused) >= CELLS:
            return False
        heap = self._confused.setdefault(place, [])
        if len(heap) < EACH:
            heapq.heappush(heap, own)
            return True
        return heapq.heappushpop(heap, own) != own

    def choose(self, seen: list[Seen]) -> dict[int, str]:
        """The file of each picture to keep, by its index; `seen` is the whole split, the worst first.

        A split of fewer pictures than twice the count is halved, so that no picture is kept twice.
        """
        scored = [each for each in seen if not math.isnan(each.picture.score)]
        worst = scored[: min(self.count, math.ceil(len(scored) / 2))]
        best = scored[::-1][: min(self.count, len(scored) // 2)]
        kept = {each.index for each in (*worst, *best)}
        confused = [each for each in most_confused(scored, self.count) if each.index not in kept][
            : 2 * self.count
        ]
        return {
            each.index: f"{folder}/{number:04d}_{file_name(each.picture.name)}.jpg"
            for folder, part in zip(FOLDERS, (worst, best, confused), strict=True)
            for number, each in enumerate(part, start=1)
        }

    def collect(self, wanted: dict[int, str], gather: Gather) -> dict[str, bytes]:
        """The drawings of all processes that are wanted, by their file."""
        own = {file: self.drawn[index] for index, file in wanted.items() if index in self.drawn}
        return {file: content for part in gather(own) for file, content in part.items()}


def most_confused(seen: list[Seen], count: int) -> list[Seen]:
    """Of the `count` largest confusions of all pictures together those with most of each, none twice: first one of each,
    then the second ones, and so on. `seen` are the worst first."""
    cells: dict[tuple[int, int], list[tuple[float, Seen]]] = defaultdict(list)
    for each in seen:
        for cell in each.picture.cells:
            cells[cell.row, cell.column].append((cell.count, each))
    order = sorted(cells, key=lambda place: (-sum(count for count, _ in cells[place]), place))[:count]
    ranked = [sorted(cells[place], key=lambda pair: -pair[0])[:EACH] for place in order]
    chosen = [found[rank][1] for rank in range(EACH) for found in ranked if rank < len(found)]
    return list({each.index: each for each in chosen}.values())


def by_score(seen: list[Seen], kept: Kept) -> list[Seen]:
    """The worst first, those without a score last; equal ones in the order of the data set."""

    def key(each: Seen) -> tuple[bool, float, int]:
        missing = math.isnan(each.picture.score)
        return missing, 0.0 if missing else kept.quality(each.picture.score), each.index

    return sorted(seen, key=key)


def draw(panels: dict[str, Any]) -> bytes:
    """Panels (1, 3, H, W) by title, side by side on white and in several rows where they are many, as a JPEG."""
    pictures = [fitted(to_array(panel)[0]) for panel in panels.values()]
    height, width = pictures[0].shape[:2]
    count, titles = len(pictures), list(panels)

    def off(columns: int) -> float:
        """How far the sheet is from WIDE times as wide as high."""
        return abs(math.log(columns * width / (math.ceil(count / columns) * height) / WIDE))

    columns = min(range(1, count + 1), key=lambda each: (off(each), each))
    rows = [grid([pictures[at : at + columns]], titles[at : at + columns]) for at in range(0, count, columns)]
    widest = max(row.shape[1] for row in rows)
    sheet = np.concatenate(
        [np.pad(row, ((0, 0), (0, widest - row.shape[1]), (0, 0)), constant_values=255) for row in rows]
    )
    done, data = cv2.imencode(
        ".jpg", cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, QUALITY]
    )
    if not done:
        raise OSError(f"a picture of {sheet.shape[1]}x{sheet.shape[0]} pixels could not be encoded as JPEG")
    return data.tobytes()


def fitted(picture: Array) -> Array:
    """A panel of at most SIDE pixels; a very small one is enlarged by a whole number, so that its title fits above it."""
    factor = SMALLEST // max(picture.shape[:2])
    if factor < 2:
        return shrink(picture, SIDE)
    return cv2.resize(picture, None, fx=factor, fy=factor, interpolation=cv2.INTER_NEAREST)


def file_name(name: str) -> str:
    """A picture's name as a part of a file's name: other characters than letters, digits, `.`, `_` and `-` become `_`."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", name)[-LONGEST:].lstrip(".") or "picture"


def write_drawings(folder: Path, drawings: dict[str, bytes]) -> None:
    for file, content in drawings.items():
        write_bytes(folder / file, content)


def clear(folder: Path, files: tuple[str, ...]) -> None:
    """Remove what an earlier evaluation has kept in a folder: `files` and the drawings; nothing else."""
    for each in [folder / name for name in files]:
        each.unlink(missing_ok=True)
    for name in FOLDERS:
        for each in (folder / name).glob("[0-9][0-9][0-9][0-9]_*.jpg"):
            each.unlink(missing_ok=True)
        if (folder / name).is_dir() and not any((folder / name).iterdir()):
            (folder / name).rmdir()
