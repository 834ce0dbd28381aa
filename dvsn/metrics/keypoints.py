"""The score that a data set's keypoints are measured by, by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dvsn.errors import ConfigError
from dvsn.geometry.keypoints import KeypointSet
from dvsn.metrics.coco_evaluator import Evaluator
from dvsn.metrics.keypoint_ap import KeypointAP
from dvsn.metrics.keypoint_score import KeypointScore
from dvsn.metrics.landmarks import NME
from dvsn.metrics.pck import PCK, PCKh, Reference

DIAGONAL = {"box_diagonal": "diagonal"}
"""What the errors of points are relative to where the data set does not say it: the diagonal of the box around them."""


def make_score(
    score: str,
    *,
    keypoints: KeypointSet,
    nms: float = 0.9,
    confident: float = 0.2,
    threshold: float = 0.2,
    reference: Reference = "auto",
    evaluator: Evaluator = "pycocotools",
    normalise: Mapping[str, Any] | None = None,
) -> KeypointScore:
    """The score called `ap`, `pckh`, `pck` or `nme`. `nms`, `confident` and `evaluator` are for AP, `threshold` and
    `reference` for PCK, `normalise` (of the data set) for NME: null is `DIAGONAL`."""
    if score == "ap":
        return KeypointAP(keypoints=keypoints, nms=nms, confident=confident, evaluator=evaluator)
    if score == "pckh":
        return PCKh(keypoints=keypoints)
    if score == "pck":
        return PCK(keypoints=keypoints, threshold=threshold, reference=reference)
    if score == "nme":
        return NME(keypoints=keypoints, normalise=DIAGONAL if normalise is None else normalise)
    raise ConfigError(f"data.facts.score: found '{score}', expected ap, pckh, pck or nme.")
