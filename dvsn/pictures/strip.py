"""One picture of a run through its epochs: cut out of the grids, side by side, and as an animation."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from dvsn.atomic import replacing
from dvsn.errors import DataError
from dvsn.pictures.grids import shrink
from dvsn.pictures.layout import FILE, Grid, Layout, read_layout
from dvsn.portable.decode import read_rgb

Array = np.ndarray[Any, Any]
log = logging.getLogger(__name__)

STILL, MOVING = "strip.png", "strip.webp"
FONT, LINE, GAP = 14, 22, 6  # height of letters, of their line, and space between pictures, in pixels
INK = (40, 40, 40)
MOST = 12  # grids of a strip
QUICK = 40_000_000
"""Pixels of grids that a core cuts, and writes as a strip, within about a second."""
SHOWN, HELD = 500, 2000  # milliseconds of a picture of the animation, and of its last


@dataclass(frozen=True)
class Strip:
    """The same picture at several epochs of a run. Pictures are RGB, uint8 (H, W, 3), all of one size."""

    name: str
    """Of the picture."""
    column: str
    """The panel that is shown, such as `prediction`."""
    unit: str
    """What `numbers` count: `epoch` or `step`."""
    numbers: tuple[int, ...]
    """Counted from 1, the earliest first."""
    pictures: tuple[Array, ...]
    """One for each number."""
    fixed: dict[str, Array]
    """The panels that stay as they are, such as the input and the truth, by their titles."""

    def still(self, *, side: int = 256, across: int = 7) -> Array:
        """All of them (H, W, 3), each shrunk to `side` pixels on its longer side: first those that stay, then the numbers,
        in one line if it has `across` pictures at most, else in lines that are about as long."""
        fixed = [titled(shrink(each, side), title) for title, each in self.fixed.items()]
        numbers = [
            titled(shrink(each, side), f"{self.unit} {number}")
            for number, each in zip(self.numbers, self.pictures, strict=True)
        ]
        if len(fixed) + len(numbers) <= across:
            return joined([*fixed, *numbers], axis=1)
        long = -(-len(numbers) // -(-len(numbers) // across))
        lines = [fixed] if fixed else []
        lines += [numbers[first : first + long] for first in range(0, len(numbers), long)]
        return joined([joined(line, axis=1) for line in lines], axis=0)

    def frames(self, *, side: int = 384) -> list[Array]:
        """A picture (H, W, 3) for each number: the panels that stay, and beside them the one of this number."""
        fixed = [titled(shrink(each, side), title) for title, each in self.fixed.items()]
        return [
            joined([*fixed, titled(shrink(each, side), f"{self.unit} {number}")], axis=1)
            for number, each in zip(self.numbers, self.pictures, strict=True)
        ]

    def write(self, folder: Path) -> tuple[Path, Path]:
        """Write strip.png and the animation strip.webp, each at once."""
        still, moving = folder / STILL, folder / MOVING
        with replacing(still) as temporary:
            Image.fromarray(self.still()).save(temporary, format="PNG")
        first, *more = (Image.fromarray(each) for each in same_width(self.frames()))
        with replacing(moving) as temporary:
            first.save(
                temporary,
                format="WEBP",
                save_all=True,
                append_images=more,
                duration=[SHOWN] * len(more) + [HELD],
                loop=0,
                quality=80,
                method=2,
            )
        return still, moving


def strip(folder: Path, *, row: int = 0, column: str | None = None, most: int = MOST) -> Strip:
    """Cut the same picture out of the grids in the `pictures` folder of a run.

    - `row`: which picture, from 0. `column`: the title of a panel; None: the first that changes from the first to the last.
    - `most`: at most so many grids, evenly spread, the first and the last among them.

    A grid that cannot be read, or is of another size, is left out and said. Raises `DataError` where there is no layout, no
    grid, or no such row or column.
    """
    layout = read_layout(folder)
    if not 0 <= row < len(layout.rows):
        raise DataError(
            f"{folder}: row {row}: the grids have {len(layout.rows)} rows, 0 to {len(layout.rows) - 1}."
        )
    if column is not None and column not in layout.columns:
        raise DataError(
            f"{folder}: column '{column}': the grids have {', '.join(layout.columns)}; choose one of them."
        )
    if most < 1:
        raise DataError(f"{folder}: most: found {most}, expected 1 or more.")
    read = [
        (each, picture)
        for each in spread(layout.grids(folder), most)
        if (picture := _read(each, layout)) is not None
    ]
    if not read:
        raise DataError(f"{folder}: holds no grid that layout.json describes, such as epoch_0001.png.")
    shown = [
        [layout.cut(picture, row, number) for number in range(len(layout.columns))] for _, picture in read
    ]
    changes = [not np.array_equal(first, last) for first, last in zip(shown[0], shown[-1], strict=True)]
    chosen = layout.columns.index(column) if column is not None else _changing(changes)
    return Strip(
        name=layout.rows[row],
        column=layout.columns[chosen],
        unit=read[0][0].unit,
        numbers=tuple(each.number for each, _ in read),
        pictures=tuple(panels[chosen].copy() for panels in shown),
        fixed={
            title: shown[-1][number].copy()
            for number, title in enumerate(layout.columns)
            if len(read) > 1 and not changes[number] and number != chosen
        },
    )


def affordable(folder: Path, *, pixels: int = QUICK) -> int:
    """How many grids `strip` may read so that it decodes so many pixels at most; 0 where there is none."""
    if not (folder / FILE).is_file():
        return 0
    layout = read_layout(folder)
    height, width = layout.size
    return min(MOST, len(layout.grids(folder)), pixels // (height * width))


def spread(grids: list[Grid], most: int) -> list[Grid]:
    """At most so many, evenly spread, the first and the last among them; of one, the last."""
    if len(grids) <= most:
        return grids
    if most == 1:
        return grids[-1:]
    return [grids[round(number * (len(grids) - 1) / (most - 1))] for number in range(most)]


def _changing(changes: list[bool]) -> int:
    """The first column that changes; where none does, as in a single grid, the second, which is what a task answers."""
    return changes.index(True) if any(changes) else min(1, len(changes) - 1)


def _read(grid: Grid, layout: Layout) -> Array | None:
    try:
        picture: Array = read_rgb(grid.path)
    except DataError as error:
        log.warning("%s; it is left out of the strip", str(error).rstrip("."))
        return None
    if picture.shape[:2] != layout.size:
        log.warning(
            "%s: %dx%d, but layout.json says %dx%d (height x width); it is left out of the strip",
            grid.path, *picture.shape[:2], *layout.size,
        )  # fmt: skip
        return None
    return picture


# Drawing ---------------------------------------------------------------------------------------------


def titled(picture: Array, title: str) -> Array:
    """A picture with a title above it, on white, as wide as the wider of both."""
    font = ImageFont.load_default(FONT)
    width = max(picture.shape[1], int(np.ceil(font.getlength(title))))
    canvas = Image.new("RGB", (width, LINE + picture.shape[0]), "white")
    ImageDraw.Draw(canvas).text((0, 2), title, fill=INK, font=font)
    canvas.paste(Image.fromarray(picture), (0, LINE))
    return np.asarray(canvas)


def joined(pictures: list[Array], *, axis: int) -> Array:
    """Pictures beside each other (axis 1) or below each other (0) on white, with gaps."""
    other = 1 - axis
    length = sum(each.shape[axis] for each in pictures) + GAP * (len(pictures) - 1)
    breadth = max(each.shape[other] for each in pictures)
    canvas = np.full((length, breadth, 3) if axis == 0 else (breadth, length, 3), 255, np.uint8)
    place = 0
    for each in pictures:
        top, left = (place, 0) if axis == 0 else (0, place)
        canvas[top : top + each.shape[0], left : left + each.shape[1]] = each
        place += each.shape[axis] + GAP
    return canvas


def same_width(frames: list[Array]) -> list[Array]:
    """Frames of one width, filled up with white: a long number may be wider than a small picture."""
    width = max(each.shape[1] for each in frames)
    return [
        np.pad(each, ((0, 0), (0, width - each.shape[1]), (0, 0)), constant_values=255) for each in frames
    ]
