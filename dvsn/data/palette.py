"""Colours for classes that have none of their own."""

from __future__ import annotations

import numpy as np


def spread_colours(classes: int) -> tuple[tuple[int, int, int], ...]:
    """One RGB colour a class, far from its neighbours' (golden-angle steps of hue)."""
    hues = (np.arange(classes) * 0.618034) % 1.0
    phases = hues[:, None] * 2 * np.pi + np.array([0.0, 2.0, 4.0])
    colours = (127.5 + 110 * np.sin(phases)).astype(np.uint8)
    return tuple((int(red), int(green), int(blue)) for red, green, blue in colours)
