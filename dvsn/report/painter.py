"""Drawing of results: words, lines and dots on a white canvas, and axes that place scores on it."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

Colour = tuple[int, int, int]
BLUE: Colour = (60, 110, 200)
GREY: Colour = (150, 150, 150)
GREEN: Colour = (0, 130, 60)
BLACK: Colour = (30, 30, 30)


class Canvas:
    """A white picture, `pixels` (H, W, 3) uint8 RGB. Points are (x, y) in pixels from the upper left."""

    def __init__(self, height: int, width: int) -> None:
        self.pixels = np.full((height, width, 3), 255, np.uint8)

    def words(self, text: str, left: int, base: int, colour: Colour = BLACK, size: float = 0.45) -> None:
        """Text that begins at `left` and stands on the line `base`."""
        cv2.putText(self.pixels, text, (left, base), cv2.FONT_HERSHEY_SIMPLEX, size, colour, 1, cv2.LINE_AA)

    def line(self, start: tuple[int, int], end: tuple[int, int], colour: Colour, width: int = 1) -> None:
        cv2.line(self.pixels, start, end, colour, width, cv2.LINE_AA)

    def dot(self, centre: tuple[int, int], colour: Colour, radius: int, *, filled: bool) -> None:
        cv2.circle(self.pixels, centre, radius, colour, -1 if filled else 1, cv2.LINE_AA)

    def frame(self, corner: tuple[int, int], opposite: tuple[int, int], colour: Colour) -> None:
        cv2.rectangle(self.pixels, corner, opposite, colour, 1)


class Axis:
    """Places values on a line of `length` pixels that begins at pixel `start`, with a margin at both ends.

    A negative length is an axis that runs upwards.
    """

    def __init__(self, values: Sequence[float], start: int, length: int) -> None:
        low, high = min(values), max(values)
        margin = 0.08 * (high - low) or 0.01 * (abs(high) or 1.0)
        self.low, self.high, self.start, self.length = low - margin, high + margin, start, length

    def __call__(self, value: float) -> int:
        """The pixel of a value."""
        return self.start + round(self.length * (value - self.low) / (self.high - self.low))


def png(pixels: np.ndarray) -> bytes:
    """The file of an RGB picture (H, W, 3) uint8."""
    return bytes(cv2.imencode(".png", pixels[:, :, ::-1])[1].tobytes())
