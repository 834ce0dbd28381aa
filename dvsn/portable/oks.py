"""Object keypoint similarity: how near two sets of keypoints are, relative to the person's size; and what NMS makes of it.

OKS (Ronchi and Perona, 2017, arXiv:1707.05388; the COCO API): the mean over keypoints of exp(-d^2 / (2 s^2 k^2)) with
distance d, area s^2 and k = 2 sigma. It is used in two ways, which differ in whose keypoints count and what the area is:

- a prediction against the truth: the labelled keypoints, and the annotated area;
- two predictions against each other, in NMS: all keypoints, and the mean of the two areas, where the area of a
  prediction is that of its crop (box brought to the crop's ratio and padded), as in HRNet's code (Sun et al., 2019).

That code also has a "soft" NMS, which never writes the reduced scores to its results, so it does nothing but keep 20
people a picture, as the evaluator does anyway. It is left out here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

TINY = float(np.spacing(1))  # added to areas, as the COCO API does


def keypoint_similarity(distance2: Array, area: Array, sigmas: Sequence[float] | Array) -> Array:
    """exp(-d^2 / (2 s^2 k^2)) of squared distances (..., K) and areas that broadcast to (...)."""
    k2 = (2 * np.asarray(sigmas, np.float64)) ** 2
    similarity: Array = np.exp(-distance2 / (2 * (np.asarray(area, np.float64)[..., None] + TINY) * k2))
    return similarity


def oks_between(points: Array, area: Array, *, sigmas: Sequence[float] | Array) -> Array:
    """Predictions (N, K, 2) with the areas (N,) of their crops -> OKS (N, N)."""
    points, area = np.asarray(points, np.float64), np.asarray(area, np.float64)
    distance2 = np.square(points[:, None] - points[None]).sum(axis=-1)  # (N, N, K)
    pair_area = (area[:, None] + area[None]) / 2
    mean: Array = keypoint_similarity(distance2, pair_area, sigmas).mean(axis=-1)
    return mean


def rescore(box_score: Array, confidence: Array, *, above: float = 0.2) -> Array:
    """Scores of people (N,): the box's times the mean of the keypoints' confidences (N, K) above `above`, 0 if none is."""
    confidence = np.asarray(confidence, np.float64)
    sure = confidence > above
    mean: Array = (confidence * sure).sum(axis=1) / np.maximum(sure.sum(axis=1), 1)
    return np.asarray(box_score, np.float64) * mean


def oks_nms(
    points: Array, score: Array, area: Array, *, sigmas: Sequence[float] | Array, threshold: float = 0.9
) -> Array:
    """Numbers of the people (N, K, 2) of one picture that stay, best score first.

    The best is kept and all with an OKS above `threshold` to it are dropped, until none is left. Equal scores keep
    their order.
    """
    similar = oks_between(points, area, sigmas=sigmas) > threshold
    alive = np.ones(len(points), bool)
    kept = []
    for number in np.argsort(-np.asarray(score, np.float64), kind="stable"):
        if alive[number]:
            kept.append(int(number))
            alive &= ~similar[number]
    return np.array(kept, np.int64)
