"""A picture with lines of text below it, as a card of one size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

Array = np.ndarray[Any, Any]

THUMBNAIL, LINE = 192, 20
GREY = (60, 60, 60)


def card(picture: Array, lines: Sequence[tuple[str, tuple[int, int, int]]]) -> Array:
    """(H, W, 3) uint8 RGB -> the same fitted into a white square, with lines of text below it."""
    height, width = picture.shape[:2]
    factor = THUMBNAIL / max(height, width)
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    how = cv2.INTER_AREA if factor < 1 else cv2.INTER_NEAREST
    canvas = np.full((THUMBNAIL + LINE * len(lines), THUMBNAIL, 3), 255, np.uint8)
    top, left = (THUMBNAIL - size[1]) // 2, (THUMBNAIL - size[0]) // 2
    canvas[top : top + size[1], left : left + size[0]] = cv2.resize(picture, size, interpolation=how)
    for number, (text, colour) in enumerate(lines, start=1):
        place = (2, THUMBNAIL + LINE * number - 6)
        cv2.putText(canvas, text[:26], place, cv2.FONT_HERSHEY_SIMPLEX, 0.42, colour, 1, cv2.LINE_AA)
    return canvas
