"""The true people or faces that scores of keypoints measure by."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np


class Truths(NamedTuple):
    """The R people or faces of a data set, by their numbers from 0. Points and boxes in pixels of the picture."""

    keypoints: np.ndarray
    """(R, K, 2) float64; anything where not labelled, and for detections."""
    labelled: np.ndarray
    """(R, K) bool."""
    length: np.ndarray
    """(R,) a reference length that the file gives, such as MPII's head size; NaN where it gives none."""
    box: np.ndarray
    """(R, 4) x, y, width, height of the box that the crop is made of."""
    score: np.ndarray
    """(R,) of the box; 1 where it is the truth."""
    image_id: np.ndarray
    """(R,) int64, of COCO's form."""
    annotation: np.ndarray
    """(R,) int64, the id of the annotation; -1 for a detection."""
    groups: tuple[str, ...]
    """R names of parts of the data set, such as 300-W's `challenge`; empty where it has one part."""
    attributes: np.ndarray
    """(R, A) bool."""
    attribute_names: tuple[str, ...]
    describe: Callable[[int], str]
    """Where a person is, in words: the picture, and the annotation."""
    coco: Callable[[], Mapping[str, Any] | None]
    """The annotations in COCO's form, read when a score asks for them; None where there are none. An annotation's `number`,
    if it has one, is its id in the file, which `annotation` names."""
    source: str
    """The reader's name, for messages."""

    def __len__(self) -> int:
        return len(self.keypoints)


class HasTruths(Protocol):
    """A data set of people or faces."""

    def truths(self) -> Truths: ...
