"""Big pictures as tiles: at random places in training, on a grid in evaluation, each read without the rest."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from dvsn.data.dataset import ImageDataset
from dvsn.data.files import highest_deep, read_by
from dvsn.errors import ConfigError, DataError
from dvsn.portable.decode import rule_in_force
from dvsn.portable.tiling import centres, windows
from dvsn.portable.windows import Part, Window, has_rasterio, open_windows, size_by_header
from dvsn.types import IGNORE, Sample

Size = tuple[int, int]
PLACE = 2  # tells the random numbers of a tile's place from those of the transform and of mixes
LOOKED_AT = 4  # rectangles a side, of which the highest value of a big picture is taken


def read_tile(tile: Any, overlap: Any) -> tuple[Size, Size] | None:
    """`data.tile` and `data.tile_overlap` as (H, W) each; None without tiles. Raises `ConfigError`."""
    if tile is None:
        if overlap not in (0, None, [0, 0], (0, 0)):
            raise ConfigError(
                "data.tile_overlap: is that of tiles, and data.tile is null. Set data.tile=[HEIGHT,WIDTH]."
            )
        return None
    sides, inner = _pair(tile, "data.tile", 1), _pair(overlap or 0, "data.tile_overlap", 0)
    if any(2 * each > side for each, side in zip(inner, sides, strict=True)):
        raise ConfigError(
            f"data.tile_overlap: found {list(inner)} with tiles of {list(sides)}; expected half a tile at most."
        )
    return sides, inner


def _pair(value: Any, path: str, least: int) -> Size:
    pair = [value, value] if type(value) is int else value
    if (
        not isinstance(pair, Sequence)
        or len(pair) != 2
        or not all(type(side) is int and side >= least for side in pair)
    ):
        raise ConfigError(
            f"{path}: found {value!r}, expected [HEIGHT, WIDTH], two whole numbers of {least} or more, or one for both."
        )
    return pair[0], pair[1]


class Tiled(ImageDataset):
    """The tiles of `size` (H, W) of the pictures of a data set; a picture that is smaller is one tile, as it is.

    - `overlap` (H, W): how far the tiles of the grid overlap. A pixel counts in the tile whose centre is nearest; in the
      others the label, named `target`, is ignored there, so that each pixel counts once. The last tiles of a side are
      shifted back inside.
    - `random`: an item, which is as often there as its picture has tiles without overlap, lies at a random place of its
      picture, which follows from (seed, epoch, index). Without an epoch (`read`), it lies on the grid.

    All arrays of an item must be read from files of the picture's size by `dvsn.portable.decode`.
    """

    def __init__(
        self,
        whole: ImageDataset,
        *,
        size: Size,
        overlap: Size = (0, 0),
        target: str | None = None,
        random: bool = False,
    ) -> None:
        numbers = [name for name, kind in whole.kinds.items() if kind == "number"]
        if numbers:
            raise ConfigError(
                f"data.tile: '{numbers[0]}' of this data set is a number for a whole picture, which tiles have not. Set "
                "data.tile=null."
            )
        self.kinds, self.palettes = whole.kinds, whole.palettes
        super().__init__(transform=whole.transform, seed=whole.seed)
        self.whole, self.size, self.random, self.target = whole, size, random, target
        self.overlap = (0, 0) if random else overlap
        for name in ("collate", "class_names"):
            if hasattr(whole, name):
                setattr(self, name, getattr(whole, name))
        self.sizes = [self._size_of(number) for number in range(len(whole))]
        counts = [len(self._starts(each, 0)) * len(self._starts(each, 1)) for each in self.sizes]
        self.ends = list(itertools.accumulate(counts))

    @property
    def parts(self) -> list[ImageDataset]:
        """What is read by the same rule."""
        return [self.whole, *getattr(self.whole, "parts", ())]

    def _size_of(self, number: int) -> Size:
        photos = self.whole.photos(number)
        size = size_by_header(photos[0]) if photos else None
        if size is None:
            raise DataError(
                f"{self.whole.describe(number)}: no picture whose size stands in its header, which data.tile needs. Check "
                "the file, or set data.tile=null."
            )
        return size

    def _starts(self, size: Size, axis: int) -> list[int]:
        return windows(size[axis], self.size[axis], self.size[axis] - self.overlap[axis])

    def __len__(self) -> int:
        return self.ends[-1] if self.ends else 0

    def at(self, index: int) -> tuple[int, Window]:
        """The picture of an item, and its place on the grid."""
        number = bisect.bisect_right(self.ends, index)
        inside = index - (self.ends[number - 1] if number else 0)
        size = self.sizes[number]
        rows, columns = self._starts(size, 0), self._starts(size, 1)
        row, column = divmod(inside, len(columns))
        return number, self._window(size, rows[row], columns[column])

    def _window(self, size: Size, top: int, left: int) -> Window:
        return Window(top, left, min(self.size[0], size[0]), min(self.size[1], size[1]))

    def place(self, epoch: int, index: int) -> tuple[int, Window]:
        """The picture of an item, and where its tile lies in this epoch."""
        number, window = self.at(index)
        if not self.random:
            return number, window
        draw = np.random.default_rng([self.seed, epoch, index, PLACE])
        height, width = self.sizes[number]
        top = int(draw.integers(height - window.height + 1))
        return number, window._replace(top=top, left=int(draw.integers(width - window.width + 1)))

    def read(self, index: int) -> Sample:
        return self._read(*self.at(index))

    def read_at(self, epoch: int, index: int) -> Sample:
        return self._read(*self.place(epoch, index))

    def read_label(self, index: int, name: str) -> np.ndarray:
        number, window = self.at(index)
        with self._part(number, window):
            label = self.whole.read_label(number, name)
        return self._counted(number, window, label) if name == self.target else label

    def _read(self, number: int, window: Window) -> Sample:
        with self._part(number, window):
            sample = self.whole.read(number)
        for name in self.kinds:
            if name in sample and sample[name].shape[:2] != (window.height, window.width):
                found = "x".join(map(str, sample[name].shape[:2]))
                raise DataError(
                    f"'{name}' is {found} (height x width) where a tile of {window.height}x{window.width} was read: this "
                    "data set does not read parts of pictures. Set data.tile=null."
                )
        if self.target in sample:
            sample[self.target] = self._counted(number, window, sample[self.target])
        return sample

    def _part(self, number: int, window: Window) -> Any:
        return read_by(replace(rule_in_force(), part=Part(window, self.sizes[number])))

    def _counted(self, number: int, window: Window, label: np.ndarray) -> np.ndarray:
        """The label, ignored where another tile of the grid counts."""
        if self.random:
            return label
        spot = []
        for axis, (start, side) in enumerate(((window.top, window.height), (window.left, window.width))):
            starts = self._starts(self.sizes[number], axis)
            first, last = centres(starts, side, self.sizes[number][axis])[starts.index(start)]
            spot.append(slice(first - start, last - start))
        counted = np.full_like(label, IGNORE)
        counted[tuple(spot)] = label[tuple(spot)]
        return counted

    def describe(self, index: int) -> str:
        return self.whole.describe(self.at(index)[0])

    def photos(self, index: int) -> list[Path]:
        return self.whole.photos(self.at(index)[0])

    def name(self, index: int) -> str:
        number, window = self.at(index)
        return f"{self.whole.name(number)}_{window.top}_{window.left}"

    def highest_deep(self, path: Path) -> int | None:
        """The highest value of a picture with 16 bits a channel; of a large one, in some rectangles of it."""
        size = size_by_header(path)
        limit = (self.rule or rule_in_force()).max_pixels
        if size is None or size[0] * size[1] <= limit or not has_rasterio():
            return highest_deep(path)
        with open_windows(path) as picture:
            height, width = (min(side, 512) for side in size)
            tops, lefts = (
                np.linspace(0, side - part, LOOKED_AT).astype(int).tolist()
                for side, part in ((size[0], height), (size[1], width))
            )
            places = [Window(top, left, height, width) for top in tops for left in lefts]
            return max(int(picture.raw(place).max(initial=0)) for place in places)
