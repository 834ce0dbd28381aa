"""The mean error of landmarks, relative to a length of the face, and what is made of it: NME, FR, AUC, CED."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dvsn.errors import ConfigError, DataError
from dvsn.geometry.keypoints import KeypointSet
from dvsn.metrics.ced import area_under_curve, cumulative, failure_rate
from dvsn.metrics.keypoint_score import Compared, KeypointScore, Row
from dvsn.metrics.truths import Truths

log = logging.getLogger(__name__)

WORDS = {
    "diagonal": "the diagonal of the box around its labelled points",
    "area": "the square root of the area of that box",
    "length": "what its file gives",
}
UNLABELLED = "no point is labelled"


class NME(KeypointScore):
    """Normalised mean error: a face's mean distance of its labelled points to the truth, over a length of that face.

    `normalise` names the lengths in use. Each is either two groups of points, such as `[[p60], [p72]]`: the distance
    of the means of the two; or `diagonal` or `area` (its root) of the box around the labelled points; or `length`, what
    the data set's file gives. The first one makes `nme` and everything else; others give `nme_NAME`.

    Of all measured faces: `nme`, their mean (not the mean over all points, which differs where some are not labelled);
    `fr_08` and `fr_10`, the share of faces whose error is above 0.08 and 0.10 (`thresholds`); `auc_08` and `auc_10`, the
    area under the curve of cumulative errors up to there (see `dvsn.metrics.ced`). All are shares, not percent.

    A face whose length is 0 or unknown, as with coinciding eye corners, or without a labelled point, is not measured:
    `left_out` names it; `table` counts those that are.
    """

    higher_is_better = False
    person_score = "nme"

    def __init__(
        self,
        *,
        keypoints: KeypointSet,
        normalise: Mapping[str, Any],
        thresholds: Sequence[float] = (0.08, 0.10),
    ) -> None:
        super().__init__(keypoints=keypoints)
        if not normalise:
            raise ConfigError(
                "data.facts.normalise: not given, but data.facts.score=nme needs the length that errors are relative to, "
                "such as {inter_ocular: [[left_eye], [right_eye]]}, or {box_diagonal: diagonal}."
            )
        if not thresholds or not all(threshold > 0 for threshold in thresholds):
            raise ConfigError(f"metrics.thresholds: found {list(thresholds)}, expected numbers above 0.")
        self.lengths = {name: self._points(name, what) for name, what in normalise.items()}
        self.main = next(iter(self.lengths))
        self.thresholds = tuple(thresholds)

    def _points(self, name: str, what: Any) -> str | tuple[list[int], list[int]]:
        if isinstance(what, str) and what in WORDS:
            return what
        groups = what if isinstance(what, list | tuple) else ()
        if len(groups) != 2 or not all(isinstance(group, list | tuple) and group for group in groups):
            raise ConfigError(
                f"data.facts.normalise.{name}: found {what!r}, expected {', '.join(WORDS)}, or two lists of keypoints."
            )
        one, other = ([self.keypoints.number(point) for point in group] for group in groups)
        return one, other

    # What is measured ---------------------------------------------------------------------------------------

    def _prepare(self, truths: Truths) -> None:
        self._known = np.asarray(truths.labelled.any(axis=1))
        self._length = {name: measure(truths, what) for name, what in self.lengths.items()}
        self._usable = {
            name: self._known & np.isfinite(length) & (length > 0) for name, length in self._length.items()
        }
        self._subsets = subsets(truths)
        lost = np.flatnonzero(~self._usable[self.main])
        if not len(lost):
            return
        number = int(lost[0])
        reason = self._reason(self.main) if self._known[number] else UNLABELLED
        if len(lost) == len(truths):
            raise DataError(
                f"{truths.describe(number)}: {reason}, and so with all {len(lost)} faces, so nothing can be measured. "
                "Expected a length of 1 face or more; see data.facts.normalise."
            )
        log.info("%d of %d faces are not measured, such as %s: %s",
                 len(lost), len(truths), truths.describe(number), reason)  # fmt: skip

    def _reason(self, name: str) -> str:
        what = self.lengths[name]
        if isinstance(what, str):
            return f"{WORDS[what]} is not above 0"
        first, second = (
            ", ".join(self.keypoints.names[number] for number in group[:3])
            + (", ..." if len(group) > 3 else "")
            for group in what
        )
        return f"{first} and {second} are one point, or not labelled"

    def left_out(self) -> list[Row]:
        """By length, then those without a labelled point."""
        handed, describe = self.handed_over(), self.truths.describe
        lost = [
            (name, self._reason(name), handed & self._known & ~usable)
            for name, usable in self._usable.items()
        ]
        return [
            {"face": describe(int(number)), "length": name, "reason": reason}
            for name, reason, which in [*lost, ("any", UNLABELLED, handed & ~self._known)]
            for number in np.flatnonzero(which)
        ]

    @property
    def unit(self) -> str:  # type: ignore[override]
        what = self.lengths[self.main]
        return WORDS[what] if isinstance(what, str) else f"the {self.main.replace('_', '-')} distance"

    @property
    def threshold(self) -> float:  # type: ignore[override]
        return max(self.thresholds)

    def compared(self, index: np.ndarray) -> Compared:
        labelled = self.truths.labelled[index] & self._usable[self.main][index, None]
        return Compared(self.truths.keypoints[index], labelled, self._length[self.main][index])

    def errors(self, length: str | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Numbers of the measured faces (N,), and their errors (N,), relative to the length of this name.

        A prediction that is not finite has the error infinity.
        """
        found, name = self.answers(), length or self.main
        keep = self._usable[name][found.index]
        index, labelled = found.index[keep], self.truths.labelled[found.index[keep]]
        distance = np.linalg.norm(found.points[keep] - self.truths.keypoints[index], axis=-1)  # (N, K)
        mean = np.where(labelled, distance, 0).sum(axis=1) / labelled.sum(axis=1)
        return index, np.nan_to_num(mean / self._length[name][index], nan=np.inf, posinf=np.inf)

    # What is told -------------------------------------------------------------------------------------------

    def compute(self) -> dict[str, Tensor]:
        figures = self.figures(self.errors()[1])
        figures |= {f"nme_{name}": _mean(self.errors(name)[1]) for name in self.lengths if name != self.main}
        return {name: torch.tensor(value) for name, value in figures.items()}

    def figures(self, errors: np.ndarray) -> dict[str, float]:
        """`nme`, and at each threshold failure rate and area, `fr_08`, `auc_08`, ..., of errors (N,)."""
        figures = {"nme": _mean(errors)}
        for threshold in self.thresholds:
            tag = f"{round(100 * threshold):02d}"
            figures[f"fr_{tag}"] = failure_rate(errors, threshold)
            figures[f"auc_{tag}"] = area_under_curve(errors, threshold)
        return figures

    def table(self) -> list[Row]:
        """A row for all measured faces, one for each part of the data set, and one for each attribute, which overlap."""
        return [
            {
                "faces": name,
                "count": len(errors),
                **{key: _known(v) for key, v in self.figures(errors).items()},
            }
            for name, errors in self.by_subset().items()
        ]

    def by_subset(self) -> dict[str, np.ndarray]:
        """The errors of all measured faces, and of each part of the data set and each attribute."""
        index, errors = self.errors()
        return {"all": errors} | {name: errors[member[index]] for name, member in self._subsets.items()}

    def per_face(self) -> list[Row]:
        """A row for each measured face, worst first: its number in the data set, what it is, its error."""
        index, errors = self.errors()
        return [
            {"index": int(index[n]), "face": self.truths.describe(int(index[n])), "nme": float(errors[n])}
            for n in np.argsort(-errors, kind="stable")
        ]

    def curve(self, *, limit: float = 0.2, step: float = 0.001) -> list[Row]:
        """Rows of a CSV file: an error, and for all faces and each subset the share with at most that error."""
        at = np.arange(round(limit / step) + 1) * step
        shares = {name: cumulative(errors, at + 1e-12) for name, errors in self.by_subset().items()}
        return [
            {"nme": round(float(error), 6)} | {name: _known(share[n]) for name, share in shares.items()}
            for n, error in enumerate(at)
        ]


def measure(truths: Truths, what: str | tuple[list[int], list[int]]) -> np.ndarray:
    """A length of each face, (R,), as `NME` names them; NaN where it is unknown."""
    if what == "length":
        return truths.length
    points, labelled = truths.keypoints, truths.labelled
    if isinstance(what, str):
        inside = labelled[..., None]
        low = np.where(inside, points, np.inf).min(axis=1)
        sides = np.where(inside, points, -np.inf).max(axis=1) - low  # (R, 2)
        return np.hypot(*sides.T) if what == "diagonal" else np.sqrt(sides[:, 0] * sides[:, 1])
    one, other = what
    apart = np.linalg.norm(points[:, one].mean(axis=1) - points[:, other].mean(axis=1), axis=-1)
    return np.where(labelled[:, one + other].all(axis=1), apart, np.nan)


def subsets(truths: Truths) -> dict[str, np.ndarray]:
    """Which faces (R,) belong to each part of a data set, where it has several, and have each attribute."""
    groups = np.array(truths.groups)
    names = [name for name in dict.fromkeys(truths.groups) if name]
    found = {name: groups == name for name in names} if len(set(truths.groups)) > 1 else {}
    return found | {name: truths.attributes[:, n] for n, name in enumerate(truths.attribute_names)}


def _mean(errors: np.ndarray) -> float:
    return float(errors.mean()) if len(errors) else float("nan")


def _known(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
