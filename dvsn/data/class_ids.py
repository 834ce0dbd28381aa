"""Maps ids or colours of label files to classes; unknown ones raise `DataError`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

from dvsn.errors import ConfigError, DataError
from dvsn.types import IGNORE

RGB = tuple[int, int, int]


class UnknownIds(DataError):
    """A label file holds ids that are not in the table. `counts`: its pixels by such id."""

    counts: Mapping[int, int] = {}


MANY = 16
"""A mask with more unknown ids than this is soft or compressed, and holds no ids."""


class ClassIds:
    """Maps file ids to classes. Raises `DataError` with the file's name for an id that is not in the table.

    - `class_of`: for every id that files may hold its class, or 255 where it is ignored.
    - `ignore_ids`: further ids to ignore; they win over `class_of`.
    - `nearest`: an unknown id is read as the nearest known one, instead of an error.
    - `kind`, `advice`, `soft`: for the message: what the ids are, such as "label ids (0..33)"; what to do; and what to do
      with a mask of many values in between.
    """

    def __init__(
        self,
        class_of: Mapping[int, int],
        *,
        kind: str,
        names: Sequence[str],
        ignore_ids: Iterable[int] = (),
        advice: str = "",
        soft: str = "",
        nearest: bool = False,
    ) -> None:
        ignore_ids = list(ignore_ids)
        for value in ignore_ids:
            if not 0 <= value <= 65535:
                raise ConfigError(f"data.dataset.ignore_ids: found {value}, expected ids of 0 to 65535.")
        self.class_of = {**class_of, **dict.fromkeys(ignore_ids, IGNORE)}
        self.kind, self.names, self.advice, self.soft = kind, tuple(names), advice, soft
        size = max(256, 1 + max(self.class_of, default=0))
        self.table = np.full(size, IGNORE, np.uint8)
        self.fault = np.ones(size, np.uint8)
        for value, each in self.class_of.items():
            self.table[value], self.fault[value] = each, 0
        if nearest:
            known = np.array(sorted(self.class_of))
            closest = known[np.abs(np.arange(size)[:, None] - known).argmin(axis=1)]
            self.table, self.fault = self.table[closest], np.zeros(size, np.uint8)

    def __call__(self, ids: np.ndarray, path: Path) -> np.ndarray:
        """(H, W) ids of any integer type -> (H, W) uint8 classes, 255 where ignored."""
        if ids.dtype == np.uint8:
            wrong = cv2.LUT(ids, self.fault[:256])
            classes = cv2.LUT(ids, self.table[:256])
        else:
            inside = ids.clip(0, len(self.table) - 1)
            wrong, classes = self.fault[inside] | (inside != ids), self.table[inside]
        if wrong.any():
            values, counts = np.unique(ids[wrong.astype(bool)], return_counts=True)
            strangers = dict(zip(values.tolist(), counts.tolist(), strict=True))
            error = UnknownIds(f"{path}: {self._complaint(strangers, deep=ids.dtype != np.uint8)}")
            error.counts = strangers
            raise error
        return classes

    def _complaint(self, strangers: Mapping[int, int], *, deep: bool) -> str:
        if len(strangers) > MANY:
            return (
                f"{sum(strangers.values())} pixels hold {len(strangers)} different ids outside {self.kind}, "
                f"{min(strangers)} to {max(strangers)}: a soft mask, or one that was compressed or interpolated. "
                f"Expected an untouched map of ids. {self.soft}"
            ).rstrip()
        shown = list(strangers)[:5]
        listed = ", ".join(f"{value} on {strangers[value]}" for value in shown)
        hint = " (a 16-bit file: instance ids, or ids scaled by 256?)" if deep else ""
        known = sorted((value, each) for value, each in self.class_of.items() if each != IGNORE)
        ignored = sorted(value for value, each in self.class_of.items() if each == IGNORE)
        return (
            f"{sum(strangers.values())} pixels hold ids outside {self.kind}: {listed}"
            f"{', ...' if len(strangers) > 5 else ''}{hint}. Expected "
            + shorten([f"{value} {self.names[each]}" for value, each in known])
            + (f"; ignored: {shorten([str(value) for value in ignored])}" if ignored else "")
            + f". To ignore them set data.dataset.ignore_ids=[{','.join(map(str, shown))}]."
            + (f" {self.advice}" if self.advice else "")
        )


class ColorIds:
    """Maps colours to ids, by exact match.

    - `id_of`: the id of each RGB colour; `default`: that of all others.
    - `stray`: the share of a picture's pixels that may have another colour. Above it `DataError` is raised: the file was
      compressed, interpolated or belongs to another data set. `advice` ends the message.
    - `nearest`: every colour is read as the nearest known one, by the distance in RGB.
    """

    def __init__(
        self,
        id_of: Mapping[RGB, int],
        *,
        default: int,
        stray: float,
        known: str,
        nearest: bool = False,
        advice: str = "",
    ) -> None:
        if not 0 <= stray < 1:
            raise ConfigError(f"data.dataset.stray: found {stray}, expected a share of 0 to 1.")
        table = sorted((_code(color), each) for color, each in id_of.items())
        self.codes = np.array([code for code, _ in table], np.int32)
        self.ids = np.array([each for _, each in table], np.uint8)
        self.default, self.stray, self.known = default, stray, known
        self.nearest, self.advice = nearest, advice

    def __call__(self, colors: np.ndarray, path: Path) -> np.ndarray:
        """(H, W, 3) uint8 RGB -> (H, W) uint8 ids."""
        red, green, blue = (colors[..., channel].astype(np.int32) for channel in range(3))
        packed = red << 16 | green << 8 | blue  # (H, W)
        place = np.searchsorted(self.codes, packed).clip(max=len(self.codes) - 1)
        stray = self.codes[place] != packed
        if self.nearest:
            ids = self.ids[place]
            values, which = np.unique(packed[stray], return_inverse=True)
            ids[stray] = self._nearest(values)[which]
            return ids
        if (share := stray.mean()) > self.stray:
            values, counts = np.unique(packed[stray], return_counts=True)
            most = int(values[counts.argmax()])
            found = (most >> 16, most >> 8 & 255, most & 255)
            raise DataError(
                f"{path}: {share:.1%} of the pixels ({int(stray.sum())}) have a colour outside {self.known}, most "
                f"of them {found}. Expected an untouched colour map: no JPEG, no interpolation, no other colour "
                f"order. Up to {self.stray:.1%} would be ignored: data.dataset.stray sets that share. {self.advice}".rstrip()
            )
        ids = self.ids[place]
        ids[stray] = self.default
        return ids

    def _nearest(self, values: np.ndarray) -> np.ndarray:
        """The ids of the colours of the table that are nearest to packed colours (N,); of equals the first."""
        best = np.full(len(values), np.iinfo(np.int32).max, np.int32)
        ids = np.full(len(values), self.default, np.uint8)
        for code, each in zip(self.codes.tolist(), self.ids.tolist(), strict=True):
            away = sum(((values >> shift & 255) - (code >> shift & 255)) ** 2 for shift in (16, 8, 0))
            closer = away < best
            best[closer], ids[closer] = away[closer], each
        return ids


def distinct_palette(count: int, *, first: int = 1) -> tuple[RGB, ...]:
    """`count` different colours, those of PASCAL VOC from number `first`; number 0 is black.

    The bits of a number go, three at a time and lowest first, to red, green and blue from the highest bit down
    (Everingham et al., 2010, the development kit's colour map).
    """
    colors = []
    for number in range(first, first + count):
        red = sum((number >> 3 * bit & 1) << (7 - bit) for bit in range(8))
        green = sum((number >> 3 * bit + 1 & 1) << (7 - bit) for bit in range(8))
        blue = sum((number >> 3 * bit + 2 & 1) << (7 - bit) for bit in range(8))
        colors.append((red, green, blue))
    return tuple(colors)


def palette_table(palette: Sequence[Sequence[int]]) -> np.ndarray:
    """(256, 3) uint8 RGB by class id; everything that is no class is black. Read-only."""
    table = np.zeros((256, 3), np.uint8)
    table[: len(palette)] = palette
    table.setflags(write=False)
    return table


def _code(color: Sequence[int]) -> int:
    return color[0] << 16 | color[1] << 8 | color[2]


def shorten(words: list[str]) -> str:
    """A list in words, its middle left out if it is long."""
    return ", ".join(words if len(words) <= 40 else [*words[:5], "...", *words[-3:]])
