"""COCO's run lengths of masks, and pictures as text, in numpy and OpenCV alone."""

from __future__ import annotations

import base64
from typing import Any

import cv2
import numpy as np

from dvsn.errors import DataError

Array = np.ndarray[Any, Any]
Code = dict[str, Any]
"""A mask in COCO's compressed form: `size` [H, W] and `counts`, an ASCII text (`str`)."""

BITS, MORE, SIGN, FIRST = 5, 0x20, 0x10, 48  # of the text: 5 bits a letter, lowest first


def encode_mask(mask: Array) -> Code:
    """A mask (H, W), true inside -> its run lengths, down the columns, the first of what lies outside."""
    flat = np.asarray(mask, bool).ravel(order="F")
    changes = np.flatnonzero(np.diff(flat, prepend=False, append=not flat[-1] if flat.size else True))
    counts = np.diff(changes, prepend=0).tolist()
    return {"size": [int(side) for side in np.shape(mask)], "counts": _to_text(counts)}


def decode_mask(code: Code) -> Array:
    """The mask (H, W) bool of run lengths. Raises `DataError` where they do not fill it."""
    height, width = (int(side) for side in code["size"])
    text = code["counts"]
    counts = _from_text(text.decode("ascii") if isinstance(text, bytes) else str(text))
    if sum(counts) != height * width or min(counts, default=0) < 0:
        raise DataError(
            f"segmentation: the run lengths cover {sum(counts):,} pixels, expected {height} x {width}."
        )
    inside = np.arange(len(counts)) % 2 == 1
    return np.repeat(inside, counts).reshape((height, width), order="F")


def _to_text(counts: list[int]) -> str:
    """The COCO API's text: from the third on each count less the one before the last, 5 bits a letter."""
    letters = []
    for place, count in enumerate(counts):
        rest = count - counts[place - 2] if place > 2 else count
        more = True
        while more:
            bits = rest & (MORE - 1)
            rest >>= BITS
            more = rest != (-1 if bits & SIGN else 0)
            letters.append(chr(FIRST + (bits | MORE if more else bits)))
    return "".join(letters)


def _from_text(text: str) -> list[int]:
    counts: list[int] = []
    value, shift = 0, 0
    for letter in text:
        bits = ord(letter) - FIRST
        value |= (bits & (MORE - 1)) << shift
        shift += BITS
        if not bits & MORE:
            value -= (1 << shift) if bits & SIGN else 0
            counts.append(value + counts[-2] if len(counts) > 2 else value)
            value, shift = 0, 0
    return counts


def picture_text(picture: Array) -> str:
    """A uint8 or uint16 picture, RGB (H, W, 3) or ids (H, W), as a PNG in base64."""
    stored = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR) if picture.ndim == 3 else picture
    done, data = cv2.imencode(".png", stored)
    if not done:
        raise OSError("a picture could not be encoded as PNG")
    return base64.b64encode(data.tobytes()).decode("ascii")


def text_picture(text: str) -> Array:
    """What `picture_text` was given. Raises `DataError` for a text that is no PNG in base64."""
    try:
        data = np.frombuffer(base64.b64decode(text, validate=True), np.uint8)
        picture = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
    except (ValueError, cv2.error) as error:
        raise DataError("a picture of a result: expected a PNG in base64.") from error
    if picture is None:
        raise DataError("a picture of a result: expected a PNG in base64.")
    return cv2.cvtColor(picture, cv2.COLOR_BGR2RGB) if picture.ndim == 3 else picture
