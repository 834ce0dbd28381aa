"""The score that a data set's keypoints are measured by, by name."""

from __future__ import annotations

from dvsn.data.keypoints import KeypointSet
from dvsn.errors import ConfigError
from dvsn.metrics.keypoint_ap import KeypointAP
from dvsn.metrics.keypoint_score import KeypointScore
from dvsn.metrics.pck import PCK, PCKh, Reference


def make_score(
    score: str,
    *,
    keypoints: KeypointSet,
    nms: float = 0.9,
    confident: float = 0.2,
    threshold: float = 0.2,
    reference: Reference = "auto",
) -> KeypointScore:
    """The score called `ap`, `pckh` or `pck`. `nms` and `confident` are for AP, `threshold` and `reference` for PCK."""
    if score == "ap":
        return KeypointAP(keypoints=keypoints, nms=nms, confident=confident)
    if score == "pckh":
        return PCKh(keypoints=keypoints)
    if score == "pck":
        return PCK(keypoints=keypoints, threshold=threshold, reference=reference)
    raise ConfigError(f"data.score: found '{score}', expected ap, pckh or pck.")
