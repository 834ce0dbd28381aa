"""Picture grids: drawn here, written as files and given to loggers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from dvsn.atomic import replacing
from dvsn.errors import DataError
from dvsn.pictures.layout import HEADER, Layout, place, read_layout

if TYPE_CHECKING:
    from torch import Tensor

Array = np.ndarray[Any, Any]


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
        """Write `stem`.png and, if wanted, latest.png with the layout of both; give the grid to the boards; start anew."""
        if not self.rows:
            return None
        layout = place(self.rows, self.names, self.titles)
        picture = painted(self.rows, layout)
        path = self.folder / f"{stem}.png"
        data = encoded(picture, path)
        write_bytes(path, data)
        if latest:
            write_bytes(self.folder / "latest.png", data)
            keep_layout(layout, self.folder, stem=stem)
        said = f"{stem}: {caption}; {', '.join(self.names)}"
        for board in boards:
            board.picture("val/pictures", picture, caption=said, step=step, file=path)
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
    return painted(rows, place(rows, [""] * len(rows), titles))


def painted(rows: list[list[Array]], layout: Layout) -> Array:
    """The grid of a layout."""
    canvas = np.full((*layout.size, 3), 255, np.uint8)
    for row, boxes in zip(rows, layout.boxes, strict=True):
        for picture, box in zip(row, boxes, strict=True):
            canvas[box.top : box.top + box.height, box.left : box.left + box.width] = picture
    for box, title in zip(layout.boxes[0], layout.columns, strict=True):
        corner = (box.left, HEADER - 8)
        cv2.putText(canvas, title, corner, cv2.FONT_HERSHEY_SIMPLEX, 0.5, (40, 40, 40), 1, cv2.LINE_AA)
    return canvas


def keep_layout(layout: Layout, folder: Path, *, stem: str) -> None:
    """Write the layout beside the grids, unless it stands there; `stem` is the first grid that has it."""
    try:
        there = read_layout(folder)
    except DataError:
        there = None
    if there is None or replace(there, since="") != layout:
        replace(layout, since=stem).write(folder)


def write_picture(path: Path, picture: Array) -> None:
    """An RGB picture, or ids (H, W) below 65536, as a file, atomically; the format is the ending's."""
    write_bytes(path, encoded(picture, path))


def encoded(picture: Array, path: Path) -> bytes:
    """The content of a picture's file, by the ending of its name."""
    picture = picture[..., 0] if picture.ndim == 3 and picture.shape[2] == 1 else picture
    stored = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR) if picture.ndim == 3 else picture
    stored = stored.astype(np.uint16) if stored.dtype == np.int32 else stored
    done, data = cv2.imencode(path.suffix, stored)
    if not done:
        raise OSError(f"{path}: the picture could not be encoded as '{path.suffix}'")
    return data.tobytes()


def write_bytes(path: Path, data: bytes) -> None:
    with replacing(path) as temporary:
        temporary.write_bytes(data)
