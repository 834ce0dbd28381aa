"""The base of the scores of keypoints.

- `attach` gives the true people, before an evaluation.
- `update` takes predictions by the number of their person, in pixels of the picture.
- `compute` gives the figures, in [0, 1], and `table` a row for each keypoint.

Scored are the people that were given to `update`, each once; `coverage` counts them. `compute`, `coverage`, `table`,
`left_out` and `results` gather from all processes, so all processes must call them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from dvsn.geometry.keypoints import KeypointSet
from dvsn.metrics.truths import HasTruths, Truths

Row = dict[str, Any]


@dataclass(frozen=True)
class Answers:
    """Predictions, one a person, in the order of the data set."""

    index: np.ndarray
    """(N,) numbers of the people, ascending, each once."""
    points: np.ndarray
    """(N, K, 2) pixels of the picture."""
    confidence: np.ndarray
    """(N, K)."""
    extent: np.ndarray
    """(N, 2) width and height of the crop, in pixels of the picture."""


class Compared(NamedTuple):
    """What N answers are compared with."""

    points: np.ndarray
    """(N, K, 2) pixels of the picture."""
    labelled: np.ndarray
    """(N, K) bool; none of those who cannot be measured."""
    length: np.ndarray
    """(N,) what errors are relative to, in pixels of the picture; anything where nothing is labelled."""


class KeypointScore(Metric):
    """A metric that collects predictions, and gathers them from all processes."""

    full_state_update = False
    higher_is_better = True
    person_score: ClassVar[str] = "error"
    """The name of the score of one person, as `each` gives it."""
    person_better: ClassVar[str] = "less"
    """`more` or `less`."""
    unit: str
    """What errors are relative to, in words."""
    threshold: float
    """The largest error, relative to that, with which a keypoint is right."""
    index: list[Tensor]
    points: list[Tensor]
    confidence: list[Tensor]
    extent: list[Tensor]

    def __init__(self, *, keypoints: KeypointSet) -> None:
        super().__init__()
        self.keypoints = keypoints
        self._source: Truths | HasTruths | None = None
        for name in ("index", "points", "confidence", "extent"):
            self.add_state(name, [], dist_reduce_fx="cat")

    @property
    def truths(self) -> Truths:
        assert self._source is not None, "attach a data set first"
        return self._truths

    def attach(self, source: Truths | HasTruths) -> None:
        """Set the people, or the data set of them, that the numbers of `update` refer to. Raises where they lack what the
        score needs."""
        if source is not self._source:
            truths = source if isinstance(source, Truths) else source.truths()
            self._prepare(truths)
            self._truths, self._source = truths, source

    def _prepare(self, truths: Truths) -> None:
        raise NotImplementedError

    def compared(self, index: np.ndarray) -> Compared:
        """What answers about the people of these numbers (N,) are compared with."""
        raise NotImplementedError

    def relative(self, index: np.ndarray, points: np.ndarray) -> np.ndarray:
        """Errors (N, K) of answers (N, K, 2) about the people of these numbers (N,), relative to each one's length: NaN
        where not labelled or not measured, infinity where an answer is not finite."""
        truth = self.compared(index)
        with np.errstate(invalid="ignore", divide="ignore"):
            errors = np.linalg.norm(points - truth.points, axis=-1) / truth.length[:, None]
        errors = np.where(np.isfinite(points).all(axis=-1), errors, np.inf)
        return np.where(truth.labelled, errors, np.nan)

    def each(self, errors: np.ndarray) -> np.ndarray:
        """The score of each person (N,), of its errors (N, K) as `relative` gives them: here their mean. NaN of none."""
        known = ~np.isnan(errors)
        total, count = np.where(known, errors, 0).sum(axis=1), known.sum(axis=1)
        return np.where(count > 0, total / np.maximum(count, 1), np.nan)

    def right(self, errors: np.ndarray) -> np.ndarray:
        """Which keypoints (N, K) are right, of their errors as `relative` gives them."""
        return errors <= self.threshold

    @property
    def right_words(self) -> str:
        """When a keypoint is right."""
        return f"within {self.threshold:g} of {self.unit}"

    def coverage(self) -> tuple[int, int]:
        """How many people were handed over, and of how many."""
        return len(self.answers().index), len(self.truths)

    def handed_over(self) -> np.ndarray:
        """(R,) bool."""
        return np.isin(np.arange(len(self.truths)), self.answers().index)

    def update(self, index: Tensor, points: Tensor, confidence: Tensor, extent: Tensor) -> None:
        """index (N,), points (N, K, 2) in pixels of the picture, confidence (N, K), extent (N, 2) of the crops."""
        self.index.append(index.detach().long())
        self.points.append(points.detach().float())
        self.confidence.append(confidence.detach().float())
        self.extent.append(extent.detach().float())

    def compute(self) -> dict[str, Tensor]:
        raise NotImplementedError

    def table(self) -> list[Row]:
        """A row for each keypoint, or each group of them."""
        raise NotImplementedError

    def left_out(self) -> list[Row]:
        """People that were handed over and that the score cannot measure, each with the reason."""
        return []

    def answers(self) -> Answers:
        """The predictions of all processes."""
        alone = self._is_synced or not self.distributed_available_fn()
        with self.sync_context(self.dist_sync_fn, should_sync=not alone, should_unsync=not alone):
            if isinstance(self.index, list) and not self.index:
                count = len(self.keypoints)
                shapes: list[tuple[int, ...]] = [(0, count, 2), (0, count), (0, 2)]
                return Answers(np.zeros(0, np.int64), *(np.zeros(shape) for shape in shapes))
            index = dim_zero_cat(self.index).cpu().numpy()
            rest = [
                dim_zero_cat(state).cpu().double().numpy()
                for state in (self.points, self.confidence, self.extent)
            ]
        index, first = np.unique(index, return_index=True)
        return Answers(index, *(state[first] for state in rest))
