"""Picture grids: drawn here, written as files and given to loggers."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from torch import Tensor

from dvsn.atomic import replacing

Array = np.ndarray[Any, Any]
log = logging.getLogger(__name__)

MARGIN, HEADER = 6, 26


class Gallery:
    """Collects the panels of the first samples and publishes them as one grid."""

    def __init__(self, *, folder: Path, count: int = 6, max_side: int = 512) -> None:
        self.folder, self.count, self.max_side = folder, count, max_side
        self.rows: list[list[Array]] = []
        self.titles: list[str] = []
        self.names: list[str] = []

    @property
    def full(self) -> bool:
        return len(self.rows) >= self.count

    def add(self, panels: dict[str, Tensor], *, names: Iterable[str]) -> None:
        """`panels`: uint8 RGB (N, 3, H, W) by column title."""
        self.titles = list(panels)
        columns = [to_array(panel) for panel in panels.values()]
        for row, name in zip(zip(*columns, strict=True), names, strict=True):
            if not self.full:
                self.rows.append([shrink(picture, self.max_side) for picture in row])
                self.names.append(name)

    def publish(
        self, *, stem: str, boards: Iterable[Any], step: int, caption: str, latest: bool = True
    ) -> Path | None:
        """Write `stem`.png and, if wanted, latest.png; give the grid to the boards; start anew."""
        if not self.rows:
            return None
        picture = grid(self.rows, self.titles)
        path = self.folder / f"{stem}.png"
        write_picture(path, picture)
        if latest:
            write_picture(self.folder / "latest.png", picture)
        for board in boards:
            board.picture(
                "val/pictures", picture, step=step, caption=f"{stem}: {caption}; {', '.join(self.names)}"
            )
        self.rows, self.names = [], []
        return path


def to_array(panel: Tensor) -> Array:
    """(N, 3, H, W) uint8 tensor -> (N, H, W, 3) array; ids (N, H, W) stay as they are."""
    array = panel.detach().cpu()
    return (array.permute(0, 2, 3, 1) if array.ndim == 4 else array).numpy()


def shrink(picture: Array, max_side: int) -> Array:
    """A copy no larger than `max_side` on its longer side."""
    factor = max_side / max(picture.shape[:2])
    if factor >= 1:
        return picture.copy()
    size = (max(1, round(picture.shape[1] * factor)), max(1, round(picture.shape[0] * factor)))
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA)


def grid(rows: list[list[Array]], titles: list[str]) -> Array:
    """Rows of RGB pictures with a title above each column, on white."""
    widths = [max(row[column].shape[1] for row in rows) for column in range(len(titles))]
    heights = [max(picture.shape[0] for picture in row) for row in rows]
    canvas = np.full(
        (HEADER + sum(heights) + MARGIN * len(rows), sum(widths) + MARGIN * (len(widths) + 1), 3),
        255,
        np.uint8,
    )
    left = MARGIN
    for column, title in enumerate(titles):
        cv2.putText(
            canvas, title, (left, HEADER - 8), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (40, 40, 40), 1, cv2.LINE_AA
        )
        top = HEADER
        for row, height in zip(rows, heights, strict=True):
            picture = row[column]
            canvas[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
            top += height + MARGIN
        left += widths[column] + MARGIN
    return canvas


def write_picture(path: Path, picture: Array) -> None:
    """An RGB picture, or ids (H, W) below 65536, as a file, atomically; the format is the ending's."""
    stored = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR) if picture.ndim == 3 else picture
    stored = stored.astype(np.uint16) if stored.dtype == np.int32 else stored
    done, data = cv2.imencode(path.suffix, stored)
    if not done:
        raise OSError(f"{path}: the picture could not be encoded as '{path.suffix}'")
    with replacing(path) as temporary:
        temporary.write_bytes(data.tobytes())


def matrix_picture(shares: Array, names: Sequence[str], *, cell: int = 30) -> Array:
    """A matrix of shares in [0, 1] as RGB: white is 0, dark blue 1; NaN is grey. Rows and columns by name.

    Each cell holds its percentage as long as there are at most 40 of them a side.
    """
    side, font = len(names), cv2.FONT_HERSHEY_SIMPLEX
    cell = cell if side <= 40 else max(4, 1200 // side)
    left = 12 + max((cv2.getTextSize(name, font, 0.4, 1)[0][0] for name in names), default=0)
    canvas = np.full((left + side * cell + MARGIN, left + side * cell + MARGIN, 3), 255, np.uint8)
    dark = np.array([8, 48, 107], np.float64)
    for row in range(side):
        for column in range(side):
            share = float(shares[row, column])
            color = 255 + (dark - 255) * share if np.isfinite(share) else np.full(3, 200.0)
            top, start = left + row * cell, left + column * cell
            canvas[top : top + cell - 1, start : start + cell - 1] = color.astype(np.uint8)
            if side <= 40 and np.isfinite(share) and share >= 0.005:
                ink = (255, 255, 255) if share > 0.5 else (40, 40, 40)
                text = f"{100 * share:.0f}"
                width = cv2.getTextSize(text, font, 0.36, 1)[0][0]
                place = (start + (cell - width) // 2, top + cell // 2 + 4)
                cv2.putText(canvas, text, place, font, 0.36, ink, 1, cv2.LINE_AA)
    if cell >= 10:
        turned = np.full((left, side * cell + MARGIN, 3), 255, np.uint8)
        upright = np.rot90(turned, -1).copy()  # (side * cell + MARGIN, left): columns' names, read from below
        for number, name in enumerate(names):
            spot = number * cell + cell // 2 + 4
            cv2.putText(canvas, name, (4, left + spot), font, 0.4, (0, 0, 0), 1, cv2.LINE_AA)
            cv2.putText(upright, name, (6, spot), font, 0.4, (0, 0, 0), 1, cv2.LINE_AA)
        canvas[:left, left:] = np.rot90(upright)
    return canvas
