"""Points of a sequence of frames made calm: the One-Euro filter, and which face of a frame was which in the last one."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from dvsn.errors import ConfigError

Array = np.ndarray[Any, Any]

SAME = 0.3  # IoU of a face's boxes in two frames that follow each other


class OneEuro:
    """A low-pass filter whose cut-off frequency rises with speed: calm at rest, without lag in motion.

    Casiez, Roussel and Vogel, CHI 2012, doi:10.1145/2207676.2208639, algorithm 1, for each number by itself:

        speed  = smooth((value - last) * rate, cut-off `d_cutoff`)
        value' = smooth(value, cut-off `min_cutoff` + `beta` * |speed|)
        smooth(x, f) = a x + (1 - a) last,  a = 1 / (1 + rate / (2 pi f))

    `last` is the last answer, and the first value is answered as it is. `min_cutoff` and `d_cutoff` are in Hz: lower is
    calmer. `beta` is in cut-off Hz for each unit of speed: higher is faster. Points of people and faces are as fast in
    pixels as they are large, so a speed is divided by `scale`, such as the side of the face's box; the paper has no such
    number (1). A gap between frames lowers the rate, as in the paper's real-time use.
    """

    def __init__(self, *, min_cutoff: float = 1.0, beta: float = 20.0, d_cutoff: float = 1.0) -> None:
        if not min_cutoff > 0 or not d_cutoff > 0 or not beta >= 0 or not math.isfinite(beta):
            raise ConfigError(
                f"min_cutoff, beta: found {min_cutoff} and {beta}; expected a frequency above 0 Hz, and 0 or more."
            )
        self.min_cutoff, self.beta, self.d_cutoff = min_cutoff, beta, d_cutoff
        self.reset()

    def reset(self) -> None:
        """Forget everything: the next values are the first."""
        self.last: Array | None = None
        self.speed: Array | None = None
        self.time = 0.0

    def __call__(self, values: Array, time: float, *, scale: float = 1.0) -> Array:
        """Values of any shape, the same each time, seen at `time` in seconds -> smoothed, float64.

        A value that is not a number is answered as it is, and its filter starts anew.
        """
        values = np.asarray(values, np.float64)
        if self.last is None or self.speed is None:
            self.last, self.speed = values.copy(), np.zeros_like(values)
        else:
            if not time > self.time:
                raise ValueError(f"a frame at {time} s after one at {self.time} s: time must go on")
            rate = 1 / (time - self.time)
            weight = smoothing_weight(np.asarray(self.d_cutoff), rate)
            speed = weight * (values - self.last) * rate / scale + (1 - weight) * self.speed
            weight = smoothing_weight(self.min_cutoff + self.beta * np.abs(speed), rate)
            smooth = self.last + weight * (values - self.last)
            known = np.isfinite(values) & np.isfinite(self.last)
            self.speed = np.where(known, speed, 0.0)
            self.last = np.where(known, smooth, values)
        self.time = time
        return self.last.copy()


def smoothing_weight(cutoff: Array, rate: float) -> Array:
    """What a new value weighs in a low-pass filter of `cutoff` Hz at `rate` frames a second, in (0, 1)."""
    weight: Array = 1 / (1 + rate / (2 * math.pi * cutoff))
    return weight


def matches(boxes: Array, before: Array) -> list[int | None]:
    """For each of the boxes (N, 4) the number of its own among those `before` (M, 4), the most alike first, or None."""
    found: list[int | None] = [None] * len(boxes)
    alike = box_iou(boxes, before)
    while alike.size and alike.max() >= SAME:
        row, column = np.unravel_index(np.argmax(alike), alike.shape)
        found[int(row)] = int(column)
        alike[row], alike[:, column] = -1, -1
    return found


def box_iou(boxes: Array, others: Array) -> Array:
    """Intersection over union of boxes (N, 4) and (M, 4) as x, y, width, height: (N, M)."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum((boxes[:, :2] + boxes[:, 2:])[:, None], (others[:, :2] + others[:, 2:])[None])
    shared = np.clip(high - low, 0, None).prod(axis=2)
    union = boxes[:, 2:].prod(axis=1)[:, None] + others[:, 2:].prod(axis=1)[None] - shared
    ratio: Array = shared / np.maximum(union, 1e-12)
    return ratio
