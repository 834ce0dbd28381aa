"""How near the answers of a back end are to those of plain eager float32."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from dvsn.export.check import aligned

Array = np.ndarray[Any, Any]


class Agreement(NamedTuple):
    """Of the main output over all pictures: the largest difference, and the share of equal answers in [0, 1]."""

    largest: float
    same: float


class Rule(NamedTuple):
    """When one answer is another's equal."""

    output: str
    words: str
    """What is counted as the same."""
    unit: str
    """Of the largest difference; empty where there is none to speak of."""
    compare: Callable[[Array, Array], tuple[Array, Array]]
    """Two arrays of one shape -> differences, and what is the same."""


def equal(found: Array, expected: Array) -> tuple[Array, Array]:
    return np.zeros(0), found == expected


def near(limit: float) -> Callable[[Array, Array], tuple[Array, Array]]:
    """Numbers that differ by less than `limit`."""

    def compare(found: Array, expected: Array) -> tuple[Array, Array]:
        gap = np.abs(found.astype(np.float64) - expected.astype(np.float64))
        return gap, gap <= limit

    return compare


def near_points(found: Array, expected: Array) -> tuple[Array, Array]:
    """Points (..., 2) less than half a pixel apart."""
    gap = np.linalg.norm(found.astype(np.float64) - expected.astype(np.float64), axis=-1)
    return gap, gap <= 0.5


def near_boxes(found: Array, expected: Array) -> tuple[Array, Array]:
    """Boxes (n, 4) of which no side is more than two pixels apart."""
    gap = np.abs(found.astype(np.float64) - expected.astype(np.float64)).max(axis=-1, initial=0)
    return gap[np.isfinite(gap)], gap <= 2


def same_class(found: Array, expected: Array) -> tuple[Array, Array]:
    """Probabilities (N, K) with one largest."""
    return np.abs(found - expected), found.argmax(axis=-1) == expected.argmax(axis=-1)


RULES = {
    "pixels": Rule("ids", "pixels of one class", "", equal),
    "heatmaps": Rule("points", "points within half a pixel of the crop", "px", near_points),
    "points": Rule("points", "points within half a pixel of the crop", "px", near_points),
    "classes": Rule("probabilities", "pictures of one class", "", same_class),
    "objects": Rule("boxes", "objects of one label within two pixels", "px", near_boxes),
    "image": Rule("picture", "colours within 2 of 255", "", near(2 / 255)),
}
"""By what a task answers with (`Task.response`)."""


def agreement(
    response: str,
    names: Sequence[str],
    found: Sequence[Sequence[Tensor]],
    expected: Sequence[Sequence[Tensor]],
) -> Agreement:
    """Of answers to several pictures; `names` are the outputs in their order. Nothing found where nothing was expected is
    wholly the same."""
    rule = RULES[response]
    place, largest, same, counted = list(names).index(rule.output), 0.0, 0, 0
    for one, other in zip(found, expected, strict=True):
        # of objects the expected ones come first, then those that are found beside them
        have, want = aligned(list(names), list(map(to_cpu, one)), list(map(to_cpu, other)))
        gap, right = rule.compare(have[place], want[place])
        largest = max(largest, float(np.where(np.isnan(gap), np.inf, gap).max(initial=0)))
        same, counted = same + int(right.sum()), counted + right.size
    return Agreement(largest, same / counted if counted else 1.0)


def to_cpu(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu()
