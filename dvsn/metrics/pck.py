"""Shares of keypoints that are near enough: PCK, and MPII's PCKh."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from dvsn.errors import ConfigError, DataError
from dvsn.geometry.keypoints import KeypointSet
from dvsn.metrics.keypoint_score import Compared, KeypointScore, Row
from dvsn.metrics.truths import Truths

log = logging.getLogger(__name__)

Reference = Literal["auto", "torso", "box", "length"]


class JointShare(KeypointScore):
    """The base of PCK and PCKh: shares of the labelled keypoints whose error is at most so much of a person's reference."""

    def _prepare(self, truths: Truths) -> None:
        self._reference = self._lengths(truths)
        self._usable = np.isfinite(self._reference) & (self._reference > 0)
        known = truths.labelled.any(axis=1)
        self._lost = np.flatnonzero(~self._usable & known)
        if not len(self._lost):
            return
        first = truths.describe(int(self._lost[0]))
        if not (known & self._usable).any():
            raise DataError(
                f"{first}: {self.reason}, and so with all {len(self._lost)} people, so nothing can be measured. Expected a "
                "reference length of 1 person or more."
            )
        log.info(
            "%d of %d people are not measured, such as %s: %s",
            len(self._lost),
            len(truths),
            first,
            self.reason,
        )

    reason: str
    """Why a person may have no reference."""

    def _lengths(self, truths: Truths) -> np.ndarray:
        """A reference for each person, (R,), in pixels."""
        raise NotImplementedError

    def compared(self, index: np.ndarray) -> Compared:
        labelled = self.truths.labelled[index] & self._usable[index, None]
        return Compared(self.truths.keypoints[index], labelled, self._reference[index])

    def left_out(self) -> list[Row]:
        handed = self.handed_over()
        return [
            {"person": self.truths.describe(int(number)), "reason": self.reason}
            for number in self._lost
            if handed[number]
        ]

    def counts(self, threshold: float) -> tuple[np.ndarray, np.ndarray]:
        """(K,) keypoints that are right, and (K,) all that are labelled, of the people that were handed over and can be
        measured."""
        found = self.answers()
        index = found.index
        distance = np.linalg.norm(found.points - self.truths.keypoints[index], axis=-1)  # (N, K)
        right = distance <= threshold * self._reference[index, None]  # NaN: wrong
        counted = self.truths.labelled[index] & self._usable[index, None]
        return (right & counted).sum(axis=0), counted.sum(axis=0)


class PCK(JointShare):
    """The share of keypoints whose error is at most `threshold` of the person's reference length.

    Yang and Ramanan, 2013 (TPAMI 35:12), over all labelled keypoints of all people; not the mean of the keypoints'
    shares, which `table` has. The reference:

    - `torso`: from the left shoulder to the right hip, as Leeds Sports Poses are measured (Sapp and Taskar, 2013);
      `torso_ends` names the two.
    - `box`: the longer side of the box around the labelled keypoints.
    - `length`: what the data set's file gives.
    - `auto`: torso, or box where the set has no such keypoints.

    People whose reference is unknown or 0 are not measured; `left_out` names them. NaN where nobody can be measured.
    """

    def __init__(
        self,
        *,
        keypoints: KeypointSet,
        threshold: float = 0.2,
        reference: Reference = "auto",
        torso_ends: Sequence[str] = ("left_shoulder", "right_hip"),
    ) -> None:
        super().__init__(keypoints=keypoints)
        if reference not in ("auto", "torso", "box", "length"):
            raise ConfigError(f"metrics.reference: found '{reference}', expected auto, torso, box or length.")
        if reference == "auto":
            reference = "torso" if set(torso_ends) <= set(keypoints.names) else "box"
        self.threshold, self.reference = threshold, reference
        self.ends = [keypoints.number(name) for name in torso_ends] if reference == "torso" else []
        self.reason = {
            "torso": f"{' or '.join(torso_ends)} is not labelled, or both are one point",
            "box": "its labelled keypoints are one point",
            "length": "its file gives no reference length",
        }[reference]
        self.unit = {
            "torso": f"the distance from {' to '.join(torso_ends)}",
            "box": "the longer side of the box around the keypoints",
            "length": "the reference length of the file",
        }[reference]

    def _lengths(self, truths: Truths) -> np.ndarray:
        if self.reference == "length":
            return truths.length
        points, labelled = truths.keypoints, truths.labelled
        if self.reference == "torso":
            one, other = self.ends
            known = labelled[:, one] & labelled[:, other]
            return np.where(known, np.linalg.norm(points[:, one] - points[:, other], axis=-1), np.nan)
        inside = labelled[..., None]
        low = np.where(inside, points, np.inf).min(axis=1)
        high = np.where(inside, points, -np.inf).max(axis=1)
        return (high - low).max(axis=1)

    def compute(self) -> dict[str, Tensor]:
        right, all_ = self.counts(self.threshold)
        return {"pck": share(right.sum(), all_.sum())}

    def table(self) -> list[Row]:
        right, all_ = self.counts(self.threshold)
        return [
            {"keypoint": name, "labelled": int(n), "pck": float(r / n) if n else None}
            for name, r, n in zip(self.keypoints.names, right, all_, strict=True)
        ]


class PCKh(JointShare):
    """MPII's score: PCK with 0.6 of the head box's diagonal as the reference (Andriluka et al., 2014).

    `pckh` at 0.5 and `pckh_01` at 0.1. The published code prints as "Mean@0.1" what is measured at 0.11, which is
    `pckh_011` here. All three are means over keypoints weighted by their counts, without `unscored`.

    MPII's file counts pixels from 1, and the published code therefore adds 1 to predictions. Here the reader takes 1
    from the truth instead, which leaves every distance as it is.
    """

    reason = "its file gives no head size"
    unit = "the head size"
    threshold = 0.5

    def __init__(self, *, keypoints: KeypointSet, unscored: Sequence[str] = ("pelvis", "thorax")) -> None:
        super().__init__(keypoints=keypoints)
        self.scored = np.array([name not in unscored for name in keypoints.names])

    def each(self, errors: np.ndarray) -> np.ndarray:
        """Of the keypoints that are scored."""
        return super().each(errors[:, self.scored])

    def _lengths(self, truths: Truths) -> np.ndarray:
        return truths.length

    def compute(self) -> dict[str, Tensor]:
        values = {}
        for name, threshold in (("pckh", 0.5), ("pckh_01", 0.1), ("pckh_011", 0.11)):
            right, all_ = (each[self.scored].sum() for each in self.counts(threshold))
            values[name] = share(right, all_)
        return values

    def table(self) -> list[Row]:
        """A row for each pair, with the mean of its two sides, and each single keypoint; as papers print them."""
        columns = {name: self.counts(at) for name, at in (("pckh", 0.5), ("pckh_01", 0.1))}
        rows = []
        for name, members in groups(self.keypoints).items():
            labelled = columns["pckh"][1][members]
            shares = {
                key: float((right[members] / labelled).mean()) if labelled.all() else None
                for key, (right, _) in columns.items()
            }
            rows.append({"keypoint": name, "labelled": int(labelled.sum()), **shares})
        return rows


def share(right: int, counted: int) -> Tensor:
    """NaN where nothing was counted."""
    return torch.tensor(float(right / counted) if counted else float("nan"))


def groups(keypoints: KeypointSet) -> dict[str, list[int]]:
    """Numbers of the keypoints by name; the two of a pair under what is left of their names, such as `knee`."""
    found: dict[str, list[int]] = {}
    for number, name in enumerate(keypoints.names):
        paired = keypoints.mirror[number] != number
        stem = name.replace("left", "").replace("right", "").strip("_ ") if paired else name
        found.setdefault(stem, []).append(number)
    return found
