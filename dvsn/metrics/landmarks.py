"""The mean error of landmarks, relative to a length of the face, and what is made of it: NME, FR, AUC, CED."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dvsn.data.people import PeopleDataset
from dvsn.errors import ConfigError, DataError
from dvsn.geometry.keypoints import KeypointSet
from dvsn.metrics.ced import area_under_curve, cumulative, draw_curves, failure_rate
from dvsn.metrics.keypoint_score import KeypointScore, Row

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
    `left_out` names it. Unlike shares of joints, an error is known of predicted faces only, so faces that were
    never predicted are not measured either; `table` counts those that were.
    """

    higher_is_better = False

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
        if isinstance(what, str) or len(what) != 2 or any(isinstance(g, str) or not len(g) for g in what):
            raise ConfigError(
                f"data.facts.normalise.{name}: found {what!r}, expected {', '.join(WORDS)}, or two lists of keypoints."
            )
        one, other = ([self.keypoints.number(point) for point in group] for group in what)
        return one, other

    # What is measured ---------------------------------------------------------------------------------------

    def _prepare(self, dataset: PeopleDataset) -> None:
        records = dataset.records
        self._truth = np.array([each.keypoints for each in records], np.float64)  # (R, K, 2)
        self._labelled = np.array([each.labelled for each in records]) > 0
        given = np.array([each.length for each in records], np.float64)
        self._length = {name: self._measure(what, given) for name, what in self.lengths.items()}
        known = self._labelled.any(axis=1)
        self._usable = {
            name: known & np.isfinite(length) & (length > 0) for name, length in self._length.items()
        }
        self._lost = [
            {"face": dataset.describe(int(number)), "length": name, "reason": self._reason(name)}
            for name in self.lengths
            for number in np.flatnonzero(~self._usable[name] & known)
        ] + [
            {"face": dataset.describe(int(number)), "length": "any", "reason": UNLABELLED}
            for number in np.flatnonzero(~known)
        ]
        if not self._usable[self.main].any():
            raise DataError(
                f"{self._lost[0]['face']}: {self._lost[0]['reason']}, and so with all {len(records)} faces, so nothing can "
                "be measured. Expected a length of 1 face or more; see data.facts.normalise."
            )
        if self._lost:
            log.info("%d of %d faces are not measured, such as %s: %s", (~self._usable[self.main]).sum(),
                     len(records), self._lost[0]["face"], self._lost[0]["reason"])  # fmt: skip
        self._subsets = subsets(dataset)

    def _measure(self, what: str | tuple[list[int], list[int]], given: np.ndarray) -> np.ndarray:
        """A length for each record, (R,); NaN where it is unknown."""
        if what == "length":
            return given
        if isinstance(what, str):
            inside = self._labelled[..., None]
            low = np.where(inside, self._truth, np.inf).min(axis=1)
            sides = np.where(inside, self._truth, -np.inf).max(axis=1) - low  # (R, 2)
            return np.hypot(*sides.T) if what == "diagonal" else np.sqrt(sides[:, 0] * sides[:, 1])
        one, other = what
        apart = np.linalg.norm(self._truth[:, one].mean(axis=1) - self._truth[:, other].mean(axis=1), axis=-1)
        return np.where(self._labelled[:, one + other].all(axis=1), apart, np.nan)

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
        return self._lost

    def errors(self, length: str | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Numbers of the measured faces (N,), and their errors (N,), relative to the length of this name.

        A prediction that is not finite has the error infinity.
        """
        found, name = self.answers(), length or self.main
        keep = self._usable[name][found.index]
        index, labelled = found.index[keep], self._labelled[found.index[keep]]
        distance = np.linalg.norm(found.points[keep] - self._truth[index], axis=-1)  # (N, K)
        mean = np.where(labelled, distance, 0).sum(axis=1) / labelled.sum(axis=1)
        return index, np.nan_to_num(mean / self._length[name][index], nan=np.inf, posinf=np.inf)

    # What is told -------------------------------------------------------------------------------------------

    def compute(self) -> dict[str, Tensor]:
        figures = self._figures(self.errors()[1])
        figures |= {f"nme_{name}": _mean(self.errors(name)[1]) for name in self.lengths if name != self.main}
        return {name: torch.tensor(value) for name, value in figures.items()}

    def _figures(self, errors: np.ndarray) -> dict[str, float]:
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
                **{key: _known(v) for key, v in self._figures(errors).items()},
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
            {"index": int(index[n]), "face": self.dataset.describe(int(index[n])), "nme": float(errors[n])}
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

    def curve_picture(self, *, limit: float = 0.15) -> np.ndarray:
        """The same curves drawn, uint8 RGB (H, W, 3)."""
        return draw_curves(self.by_subset(), limit=limit)


def subsets(dataset: PeopleDataset) -> dict[str, np.ndarray]:
    """Which records (R,) belong to each part of a data set, where it has several, and have each attribute."""
    groups = np.array([each.group for each in dataset.records])
    names = [name for name in dict.fromkeys(groups.tolist()) if name]
    found = {name: groups == name for name in names} if len(set(groups.tolist())) > 1 else {}
    count = len(dataset.attribute_names)
    flags = [np.zeros(count) if each.attributes is None else each.attributes for each in dataset.records]
    return found | {name: np.array(flags)[:, n] > 0 for n, name in enumerate(dataset.attribute_names)}


def _mean(errors: np.ndarray) -> float:
    return float(errors.mean()) if len(errors) else float("nan")


def _known(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
