"""What people call the folders and endings of photos, and of what belongs to them."""

from __future__ import annotations

import re

from dvsn.data.object_masks import MASK_WORDS, says_mask

PHOTOS = {
    "images", "image", "imgs", "img", "photos", "photo", "pictures", "picture", "jpegimages", "rgb", "input", "inputs",
    "originals", "original", "raw", "x", "frames", "sat", "leftimg8bit", "source", "sources", "tiles", "data",
}  # fmt: skip
MASKS = MASK_WORDS
"""Words for photos, and for what says the class of each pixel of one, in lower case."""

DRAWINGS = {
    "edges", "edge", "sketch", "sketches", "contours", "contour", "lines", "lineart", "drawing", "drawings", "drawn",
    "canny", "hed", "outlines", "outline", "depth", "normals",
}  # fmt: skip
"""Words for pictures of few values that are no classes."""

_WORD = re.compile(r"[^a-z0-9]+")


def words(name: str) -> set[str]:
    """The words of a name in lower case, and the whole: `train_masks` has `train`, `masks`, `train_masks`."""
    low = name.lower()
    return {low, *(word for word in _WORD.split(low) if word)}


def is_mask(name: str) -> bool:
    return says_mask(name)


def is_photo(name: str) -> bool:
    return bool(words(name) & PHOTOS)


def is_drawing(name: str) -> bool:
    return bool(words(name) & DRAWINGS)


def is_part(name: str) -> bool:
    """Whether a folder of this name holds one side of pairs rather than a class."""
    return is_mask(name) or is_photo(name) or is_drawing(name)
