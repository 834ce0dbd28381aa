"""Where people or faces of a picture are: boxes that a caller gives, or the whole picture; and the pictures' numbers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dvsn.errors import ConfigError
from dvsn.portable.frame import Frame
from dvsn.portable.record import Record

SCORE = 0.5
"""The least score of a box of another prediction, where nobody says otherwise."""


class Boxes(NamedTuple):
    """People of one picture."""

    boxes: np.ndarray
    """(N, 4) x, y, width, height in pixels of the picture."""
    scores: np.ndarray
    """(N,)."""


def whole_picture(frame: Frame, image_id: int = 0) -> Boxes:
    """One person, who fills the picture."""
    height, width = frame.size
    return Boxes(np.array([[0.0, 0.0, width, height]]), np.ones(1))


def given_boxes(given: Any, least: float, category: int | None, *, name: str) -> Boxes:
    """A `Result` with boxes, of which those of the class `name` count; or corners (N, 4), x1, y1, x2, y2, in pixels."""
    scores = None
    if isinstance(given, Record):
        kept = np.ones(len(given), bool)
        if given.labels is not None and (category is not None or name in given.names):
            kept = given.labels == (given.names.index(name) if category is None else category)
        if given.scores is not None:
            kept &= given.scores >= least
            scores = given.scores[kept]
        given = None if given.boxes is None else given.boxes[kept]
    try:
        corners = np.zeros(0) if given is None else np.asarray(given, np.float64)
    except (TypeError, ValueError):
        corners = np.zeros(0)
    if corners.ndim != 2 or corners.shape[1] != 4 or not np.isfinite(corners).all():
        raise ConfigError(
            f"boxes: found {type(given).__name__} of the shape {corners.shape}, expected a file, a loaded detection model, "
            "a Result with boxes, or corners (N, 4): x1, y1, x2, y2 in pixels."
        )
    return Boxes(
        np.hstack([corners[:, :2], corners[:, 2:] - corners[:, :2]]),
        np.ones(len(corners)) if scores is None else scores,
    )


def picture_numbers(sources: Sequence[Path]) -> dict[Path, int]:
    """A number for each picture file: the one that its name ends with, as COCO's own do; else, where two would be the same
    or one has none, its place, from 1."""
    ends = [source.stem.rpartition("_")[2] for source in sources]
    numbers = [int(end) for end in ends if end.isdecimal()]
    if len(set(numbers)) == len(sources):
        return dict(zip(sources, numbers, strict=True))
    return {source: place for place, source in enumerate(sources, start=1)}
