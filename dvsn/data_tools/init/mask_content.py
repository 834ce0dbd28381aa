"""What mask files hold, by their pixels: ids, colours, two brightnesses, or a soft or compressed version of these."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from dvsn.data.files import open_stored
from dvsn.errors import DataError, UserError

RGB = tuple[int, int, int]
MANY = 4096
"""Values of one file beyond which it is a photo rather than a mask, compressed or not; the rarest are forgotten."""


@dataclass
class Content:
    """Pixels by value over many masks. `values` are ids, or colours as one number red << 16 | green << 8 | blue.

    `inner`: pixels whose neighbours are alike, so that the blended ones of soft and compressed edges are none.
    `colours`: they are colours. `lossy`: a file was a JPEG. `palette`: the colour of each id, where files have one.
    `by_file`: the values of each file, in the order of the files.
    """

    colours: bool
    values: Counter[int] = field(default_factory=Counter)
    inner: Counter[int] = field(default_factory=Counter)
    by_file: list[frozenset[int]] = field(default_factory=list)
    palette: dict[int, RGB] | None = None
    lossy: bool = False

    @property
    def total(self) -> int:
        return sum(self.values.values())


@dataclass
class Mask:
    """One file: its mode, format, colours of its palette, and pixels by value."""

    mode: str
    lossy: bool
    palette: dict[int, RGB] | None
    values: Counter[int]
    inner: Counter[int]
    colours: Counter[int] | None = None
    """Of a palette picture, the same as colours."""


def read_content(paths: Sequence[Path]) -> Content:
    """All masks together. Raises `DataError` for one that cannot be read, or for ids and colours in one set."""
    with ThreadPoolExecutor(4) as pool:
        masks = list(pool.map(read_mask, paths))
    coloured = [mask.mode == "RGB" for mask in masks]
    palettes = [mask.palette for mask in masks if mask.palette is not None]
    own_colours = bool(palettes) and not agree(palettes, masks)
    colours = any(coloured) or own_colours
    grey = next((place for place, mask in enumerate(masks) if mask.mode == "L"), None)
    if colours and grey is not None:
        raise DataError(
            f"{paths[grey]}: a mask of ids in one channel, and {paths[coloured.index(True) if any(coloured) else 0]} is one "
            "of colours. Expected one kind of masks; give a folder of one kind alone."
        )
    content = Content(colours, lossy=any(mask.lossy for mask in masks))
    for mask in masks:
        values = mask.colours if colours and mask.colours is not None else mask.values
        content.values.update(values)
        content.inner.update(mask.inner)
        content.by_file.append(frozenset(values))
    if palettes and not colours:
        content.palette = {key: rgb for each in palettes for key, rgb in each.items()}
    return content


def read_mask(path: Path) -> Mask:
    try:
        image = open_stored(path)
    except UserError as error:
        raise DataError(f"{error} It was taken for a mask.") from error
    lossy, palette = image.format == "JPEG", None
    if image.mode == "P":
        ids = np.array(image)
        listed = np.array(image.getpalette("RGB") or [], np.uint8).reshape(-1, 3)
        values = counted(ids)
        palette = {key: tuple(listed[key].tolist()) for key in values if key < len(listed)}
        colours = np.array(image.convert("RGB"))
        return Mask("P", lossy, palette, values, inner(colours, packed(colours)), counted(packed(colours)))
    if image.mode in ("L", "1", "LA") or image.mode.startswith("I"):
        ids = np.array(image.convert("L") if image.mode == "LA" else image)
        ids = ids.astype(np.uint8 if not image.mode.startswith("I") else np.int64)
        return Mask("L", lossy, None, counted(ids), inner(ids, ids))
    colours = np.array(image.convert("RGB"))
    return Mask("RGB", lossy, None, counted(packed(colours)), inner(colours, packed(colours)))


def inner(picture: np.ndarray, values: np.ndarray) -> Counter[int]:
    """`counted` of the pixels whose 3x3 neighbours differ by 12 at most."""
    shown = picture if picture.dtype == np.uint8 else picture.clip(0, 65535).astype(np.uint16)
    kernel = np.ones((3, 3), np.uint8)
    apart = cv2.dilate(shown, kernel).astype(np.int32) - cv2.erode(shown, kernel)
    even = (apart if apart.ndim == 2 else apart.max(axis=2)) <= 12
    return counted(values[even])


def packed(colours: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 -> (H, W) int64."""
    parts = colours.astype(np.int64)
    return parts[..., 0] << 16 | parts[..., 1] << 8 | parts[..., 2]


def unpacked(value: int) -> RGB:
    return value >> 16, value >> 8 & 255, value & 255


def counted(values: np.ndarray) -> Counter[int]:
    """Pixels by value, of the `MANY` most frequent; runs of equal pixels make it quick."""
    flat = values.ravel()
    if not flat.size:
        return Counter()
    starts = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1])
    lengths = np.diff(np.append(starts, flat.size))
    found, place = np.unique(flat[starts], return_inverse=True)
    pixels = np.bincount(place.ravel(), weights=lengths).astype(np.int64)
    order = np.argsort(-pixels, kind="stable")[:MANY]
    return Counter(dict(zip(found[order].tolist(), pixels[order].tolist(), strict=True)))


def agree(palettes: Sequence[dict[int, RGB]], masks: Sequence[Mask]) -> bool:
    """Whether an id has one colour in all files, so that ids mean the same in each; a palette of its own a file does not."""
    known: dict[int, RGB] = {}
    for palette in palettes:
        for key, rgb in palette.items():
            if known.setdefault(key, rgb) != rgb:
                return False
    return all(mask.mode == "P" for mask in masks)


def looks_like_mask(path: Path) -> bool:
    """Whether a picture has few values, as masks have, also where it was compressed: most of its pixels have one of
    40 colours of 16 steps a channel, from black to its brightest, and most neighbours are alike. False where it cannot be
    read."""
    try:
        image = open_stored(path)
        if image.mode == "P" or image.mode.startswith("I") or image.mode == "1":
            return True
        small = image.convert("RGB")
        small.thumbnail((256, 256), Image.Resampling.NEAREST)
        shown = np.array(small).astype(np.int64)
        shown = shown * 255 // max(1, int(shown.max()))  # else the noise of a dark photo were one step
        array = shown >> 4
        values = counted(array[..., 0] << 8 | array[..., 1] << 4 | array[..., 2])
        most = sum(count for _, count in values.most_common(40)) / max(1, values.total())
        across = np.abs(np.diff(shown, axis=1)).sum(axis=2)
        even = float((across <= 6).mean()) if across.size else 1.0
    except (UserError, OSError, ValueError):
        return False
    return most > 0.85 and even > 0.6
