"""The pictures of a run through its epochs: a film of its grids, and a strip of one picture, both as files and embedded."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dvsn.atomic import replacing
from dvsn.errors import DataError
from dvsn.pictures.grids import shrink
from dvsn.pictures.layout import Grid
from dvsn.pictures.strip import MOVING, STILL, joined, same_width, spread, strip, titled
from dvsn.portable.decode import read_rgb
from dvsn.report import html
from dvsn.report.html import Encoded

Array = np.ndarray[Any, Any]
GRID = re.compile(r"(epoch|step)_(\d+)\.png")
FRAMES = 12
FILM_BYTES, PICTURES_BYTES = 1_300_000, 1_700_000
"""Of the files of a page: with plotly's script and in base64 they stay below 10 MB."""
RUNGS = ((1200, 82), (960, 78), (800, 74), (640, 68), (480, 62), (360, 55), (240, 45))
"""(pixels of the longer side, quality) of pictures, until they fit."""


@dataclass(frozen=True)
class Film:
    """The grids of a run by epoch."""

    frames: list[tuple[str, Encoded]]
    notes: list[str]
    all_of_them: int
    """How many grids there are, of which so many are shown."""


def grids(folder: Path) -> list[Grid]:
    """The grids of fixed pictures that validations left, the earliest first."""
    found = []
    for path in folder.iterdir() if folder.is_dir() else ():
        match = GRID.fullmatch(path.name)
        if match is not None:
            found.append(Grid(match[1], int(match[2]), path))
    epochs = [each for each in found if each.unit == "epoch"]
    return sorted(epochs or found, key=lambda each: each.number)


def film(folder: Path, *, most: int = FRAMES, limit: int = FILM_BYTES) -> Film:
    """At most so many grids of a run, evenly spread, as WebP of `limit` bytes together."""
    every = grids(folder)
    frames, notes = fitted(
        [(f"{each.unit} {each.number}", each.path) for each in spread(every, most)], limit=limit, largest=1200
    )
    return Film(frames, notes, len(every))


def fitted(
    pictures: Sequence[tuple[str, Path]], *, limit: int, largest: int = 960
) -> tuple[list[tuple[str, Encoded]], list[str]]:
    """Named pictures as WebP, all by one side and quality, of `limit` bytes together; as notes those that cannot be read."""
    notes: list[str] = []
    held: list[tuple[str, Array]] = []
    for name, path in pictures:
        try:
            held.append((name, shrink(read_rgb(path), largest)))
        except DataError as error:
            notes.append(str(error))
    found: list[tuple[str, Encoded]] = []
    for side, quality in (rung for rung in RUNGS if rung[0] <= largest):
        if _too_much(held, side, quality, limit):
            continue
        found = [(name, html.encode(each, max_side=side, quality=quality)) for name, each in held]
        if sum(len(each.data) for _, each in found) <= limit:
            return found, notes
    if not found:
        side, quality = RUNGS[-1]
        found = [(name, html.encode(each, max_side=side, quality=quality)) for name, each in held]
    while found and sum(len(each.data) for _, each in found) > limit:
        found.pop()
    if len(found) < len(held):
        notes.append(f"{len(held) - len(found)} pictures are left out: the page would be too large.")
    return found, notes


def _too_much(held: Sequence[tuple[str, Array]], side: int, quality: int, limit: int) -> bool:
    """Whether a few of many pictures say already that all of them will not fit."""
    sample = held[:: max(1, len(held) // 4)][:4]
    if len(held) < 8:
        return False
    size = sum(len(html.encode(each, max_side=side, quality=quality).data) for _, each in sample)
    return size / len(sample) * len(held) > 1.15 * limit


# The strip -------------------------------------------------------------------------------------------------


def write_strip(pictures: Path, folder: Path) -> tuple[Path | None, str]:
    """Write strip.png and strip.webp: one picture by layout.json, else the whole grid. The still one, and what it shows."""
    try:
        cut = strip(pictures, most=FRAMES)
    except DataError:
        return _whole(pictures, folder)
    if len(cut.pictures) < 2:
        return None, ""
    still, _ = cut.write(folder)
    return still, f"{cut.name}: {cut.column} by {cut.unit}"


def _whole(pictures: Path, folder: Path) -> tuple[Path | None, str]:
    """The strip of a run without a layout, by its whole grids."""
    frames: list[tuple[str, Array]] = []
    for each in spread(grids(pictures), 6):
        try:
            frames.append((f"{each.unit} {each.number}", read_rgb(each.path)))
        except DataError:
            continue
    if len(frames) < 2:
        return None, ""
    small = [titled(shrink(picture, 480), title) for title, picture in frames]
    lines = [joined(small[first : first + 3], axis=1) for first in range(0, len(small), 3)]
    _write(folder / STILL, lambda path: Image.fromarray(joined(lines, axis=0)).save(path, format="PNG"))
    moving = [
        Image.fromarray(each) for each in _same_size([titled(shrink(p, 900), title) for title, p in frames])
    ]
    _write(
        folder / MOVING,
        lambda path: moving[0].save(
            path, format="WEBP", save_all=True, append_images=moving[1:], duration=700, loop=0, quality=75, method=2
        ),
    )  # fmt: skip
    return folder / STILL, "the grid of fixed pictures"


def _same_size(frames: list[Array]) -> list[Array]:
    height = max(each.shape[0] for each in frames)
    wide = same_width(frames)
    return [np.pad(each, ((0, height - each.shape[0]), (0, 0), (0, 0)), constant_values=255) for each in wide]


def _write(path: Path, save: Callable[[Path], None]) -> None:
    with replacing(path) as temporary:
        save(temporary)
