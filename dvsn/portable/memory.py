"""Pictures of a caller's memory: of Pillow, or arrays; and what makes ids a network's input."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageOps

from dvsn.errors import DataError
from dvsn.portable.decode import Rule, to_eight_bits

Array = np.ndarray[Any, Any]

CHANNELS = (1, 3, 4)
NEARLY = 1e-3  # by how much a float picture may leave [0, 1]


def photo(picture: Any, rule: Rule, *, bgr: bool = False) -> Array:
    """A picture of Pillow or an array -> RGB (H, W, 3) uint8: grey becomes RGB, alpha is dropped, floats in [0, 1] and 16
    bits become 8. `bgr`: an array is blue, green, red. Raises `DataError` for what is no picture."""
    if isinstance(picture, Image.Image):
        picture = _by_its_tag(picture, rule)
        if not picture.mode.startswith("I"):
            return np.array(picture.convert("RGB"))
    array = np.asarray(picture)
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] not in CHANNELS or not array.size:
        turned = array.ndim == 3 and array.shape[0] in CHANNELS
        advice = " Channels come last in an array: use picture.transpose(1, 2, 0)." if turned else ""
        raise DataError(
            f"predict: found {in_words(array)}, expected RGB (H, W, 3), RGBA or grey (H, W).{advice}"
        )
    eight = _eight_bits(array, rule)
    if eight.shape[2] == 1:
        return np.repeat(eight, 3, axis=2)
    return eight[..., 2::-1] if bgr else eight[..., :3]


def _by_its_tag(picture: Image.Image, rule: Rule) -> Image.Image:
    """Upright, where the rule asks for that."""
    return ImageOps.exif_transpose(picture) if rule.upright else picture


def id_map(picture: Any, rule: Rule) -> Array:
    """A palette picture or an array -> class ids (H, W), uint8 or int32. Raises `DataError` for anything else."""
    if isinstance(picture, Image.Image):
        picture = _by_its_tag(picture, rule)
    array = np.asarray(picture)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    if array.ndim != 2 or array.dtype.kind not in "ui":
        raise DataError(
            f"predict: found {in_words(array)}; this task paints from class ids: expected whole numbers (H, W), such as a "
            "palette picture or the ids of a segmentation."
        )
    if array.size and (array.min() < 0 or array.max() > 65535):
        raise DataError(f"predict: found ids from {array.min()} to {array.max()}, expected 0 to 65535.")
    return array if array.dtype == np.uint8 else array.astype(np.int32)


def in_words(array: Array) -> str:
    return f"an array of the shape {tuple(array.shape)} of {array.dtype}"


def _eight_bits(array: Array, rule: Rule) -> Array:
    if array.dtype == np.uint8:
        return array
    if array.dtype == np.uint16 or (array.dtype == np.int32 and array.min() >= 0 and array.max() <= 65535):
        return to_eight_bits(array.astype(np.uint16), rule.deep_range)
    if array.dtype.kind != "f":
        raise DataError(
            f"predict: found numbers of {array.dtype}, expected uint8, uint16, or float in [0, 1]: of 0 to 255 use "
            "picture.astype('uint8')."
        )
    if not np.isfinite(array).all():
        raise DataError("predict: found floats that are not finite (NaN or infinite), expected [0, 1].")
    low, high = float(array.min()), float(array.max())
    if not (low >= -NEARLY and high <= 1 + NEARLY):
        raise DataError(
            f"predict: found floats from {low:g} to {high:g}, expected [0, 1]. Divide by 255, or give uint8; pictures are "
            "normalised by the task itself."
        )
    return np.round(np.clip(array, 0, 1) * 255).astype(np.uint8)


def brightness(photo: Array) -> Array:
    """RGB (H, W, 3) -> (H, W) uint8, 0.299 R + 0.587 G + 0.114 B (ITU-R BT.601), as Pillow's mode L and the authors of
    pix2pix have it; of three equal channels the channel itself. A picture of one channel stays."""
    if photo.ndim == 3 and photo.shape[2] == 3:
        return cv2.cvtColor(np.ascontiguousarray(photo), cv2.COLOR_RGB2GRAY)
    return photo


# Ids as an input ---------------------------------------------------------------------------------------


def check_ids(ids: Array, classes: int) -> None:
    """Raise `DataError` with the value and its count when an id is not below `classes`."""
    if ids.ndim == 2 and int(ids.max(initial=0)) >= classes:
        worst = int(ids.max())
        raise DataError(
            f"label ids: found {worst} on {int((ids == worst).sum())} pixels, expected 0 to {classes - 1}. Map or "
            "clean the labels, or set data.label_classes (and data.input_channels) to what the files hold."
        )


def to_bytes(ids: Array) -> Array:
    """Ids or pictures as uint8. Raises `DataError` for ids above 255."""
    if ids.dtype != np.uint8:
        if ids.min() < 0 or ids.max() > 255:
            raise DataError(
                f"ids from {ids.min()} to {ids.max()}, expected 0..255: is this an instance file?"
            )
        ids = ids.astype(np.uint8)
    return ids


def instance_edges(instance: Array) -> Array:
    """(H, W) ids -> (H, W) uint8, 1 where a pixel differs from one of its four neighbours."""
    edges = np.zeros(instance.shape, np.uint8)
    across, down = instance[:, 1:] != instance[:, :-1], instance[1:] != instance[:-1]
    edges[:, 1:] |= across
    edges[:, :-1] |= across
    edges[1:] |= down
    edges[:-1] |= down
    return edges
