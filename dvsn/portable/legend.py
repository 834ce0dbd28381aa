"""Text on plates, and legends: colours with their names, readable on any picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

Array = np.ndarray[Any, Any]
Colour = tuple[int, int, int]

FONT = cv2.FONT_HERSHEY_SIMPLEX
PLATE: Colour = (24, 24, 24)
INK: Colour = (245, 245, 245)
SOLID = 0.72  # of a plate, the rest is the picture
LARGEST = 0.45  # of the picture's sides that a legend may take


def text_scale(picture: Array) -> float:
    """The size of text that suits a picture, as OpenCV counts it: 0.35 to 1.6 by its diagonal."""
    return float(np.clip(math.hypot(*picture.shape[:2]) / 1600, 0.35, 1.6))


def draw_legend(picture: Array, entries: Sequence[tuple[str, Colour | None]]) -> bool:
    """Names with their colours on a dark plate in the lower left corner, in place; None is a line without a colour.

    It takes at most 45 % of the picture's height and width: names are cut, and what does not fit is counted in the last
    line. Returns False, and draws nothing, on a picture too small for one line.
    """
    scale = text_scale(picture)
    thickness = max(1, round(1.3 * scale))
    (_, high), below = cv2.getTextSize("Ag", FONT, scale, thickness)
    row, gap = high + below + round(6 * scale), round(8 * scale)
    height, width = picture.shape[:2]
    room = int((LARGEST * height - 2 * gap) // row)
    swatch = high + 2
    widest = int(LARGEST * width) - 4 * gap - swatch
    if not entries or room < 1 or widest < 3 * swatch:
        return False
    shown = list(entries)
    if len(shown) > room:
        kept = max(room - 1, 0)
        shown = [*shown[:kept], (f"and {len(entries) - kept} more", None)]
    lines = [(cut_text(name, widest, scale, thickness), colour) for name, colour in shown]
    wide = max(cv2.getTextSize(name, FONT, scale, thickness)[0][0] for name, _ in lines)
    plate = (3 * gap + swatch + wide, 2 * gap + row * len(lines))
    left, top = gap, height - gap - plate[1]
    _plate(picture, left, top, *plate)
    for number, (name, colour) in enumerate(lines):
        base = top + gap + row * number + high + below // 2
        if colour is not None:
            corner = (left + gap, base - high)
            cv2.rectangle(picture, corner, (corner[0] + swatch, corner[1] + high), colour, cv2.FILLED)
            cv2.rectangle(picture, corner, (corner[0] + swatch, corner[1] + high), INK, 1)
        place = (left + 2 * gap + swatch, base)
        cv2.putText(picture, name, place, FONT, scale, INK, thickness, cv2.LINE_AA)
    return True


def _plate(picture: Array, left: int, top: int, wide: int, high: int) -> None:
    part = picture[max(top, 0) : top + high, max(left, 0) : left + wide]
    part[:] = ((1 - SOLID) * part + SOLID * np.array(PLATE)).astype(np.uint8)


def cut_text(text: str, widest: int, scale: float, thickness: int) -> str:
    """`text`, or as much of its start as `widest` pixels hold, with two dots."""
    if cv2.getTextSize(text, FONT, scale, thickness)[0][0] <= widest:
        return text
    for end in range(len(text) - 1, 0, -1):
        if cv2.getTextSize(text[:end] + "..", FONT, scale, thickness)[0][0] <= widest:
            return text[:end] + ".."
    return text[:1]


def draw_lines(picture: Array, lines: Sequence[str]) -> Array:
    """A copy of the picture (H, W, 3), with lines of text on a plate below it; small ones are enlarged to hold text.

    A picture of less than 192 pixels on its longer side is shown with whole multiples of its pixels.
    """
    height, width = picture.shape[:2]
    factor = max(1, math.ceil(192 / max(height, width)))
    size = (width * factor, height * factor)
    large = cv2.resize(picture, size, interpolation=cv2.INTER_NEAREST) if factor > 1 else picture
    scale = text_scale(large) * 1.15
    thickness = max(1, round(1.3 * scale))
    (_, high), below = cv2.getTextSize("Ag", FONT, scale, thickness)
    row, gap = high + below + round(5 * scale), round(6 * scale)
    strip = np.full((2 * gap + row * len(lines), large.shape[1], 3), PLATE, np.uint8)
    for number, line in enumerate(lines):
        text = cut_text(line, large.shape[1] - 2 * gap, scale, thickness)
        place = (gap, gap + row * number + high)
        cv2.putText(strip, text, place, FONT, scale, INK, thickness, cv2.LINE_AA)
    return np.concatenate([large, strip])
