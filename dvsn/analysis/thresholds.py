"""Precision and recall by the least score that is asked for: who counts, one class a kind of task, and the curves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dvsn.analysis.analyst import Gather, add_up, kind_of_part
from dvsn.analysis.record import Chart, Curve, PrecisionRecall
from dvsn.metrics.thresholds import ThresholdCounts
from dvsn.types import Batch

MOST = 60
"""Classes that have a curve of their own; of more, those with the least average precision."""
DRAWN = 8
"""Classes in a chart, beside all together."""
ALL = "all"
Array = np.ndarray[Any, Any]


class Scored:
    """Counts the answers of a task by their scores, in a validation or an evaluation.

    The file `dvsn/analysis/KIND.py` of a kind of task whose answers have scores has one of this name. It is asked in this
    order: `begin`; `look` for each batch; `end` when the last one is done; `curves` in each process, which gathers.
    """

    def __init__(self, task: Any) -> None:
        self.task = task

    def begin(self) -> None:
        """Forget what was counted."""
        raise NotImplementedError

    def look(self, batch: Batch, output: Any) -> Any:
        """Count the task's `output` for a batch."""
        raise NotImplementedError

    def end(self) -> None:
        """Leave the task as it was."""

    def curves(self, gather: Gather) -> tuple[PrecisionRecall, ...]:
        """Of all classes together and of each, or nothing where no score was seen."""
        raise NotImplementedError


class ClassScored(Scored):
    """Of a task that gives one of K classes to each picture or pixel: each class against all others."""

    def __init__(self, task: Any) -> None:
        super().__init__(task)
        self.counts = ThresholdCounts(task.classes)

    def begin(self) -> None:
        self.counts = ThresholdCounts(self.task.classes)

    def names(self) -> Sequence[str]:
        raise NotImplementedError

    def curves(self, gather: Gather) -> tuple[PrecisionRecall, ...]:
        self.counts.bins = add_up(gather, self.counts.bins)
        negatives, objects = self.counts.bins.sum(dim=-1).numpy()
        right, wrong = (each.numpy() for each in self.counts.positives())
        return curves_of(self.names(), right, wrong, objects, negatives)


def find_scored(task: Any) -> Scored | None:
    """Who counts the scores of a task of this kind; None where its answers have none."""
    part = kind_of_part("dvsn.analysis", task, "Scored")
    return None if part is None else part.Scored(task)  # type: ignore[no-any-return]


def curves_of(
    names: Sequence[str], right: Array, wrong: Array, objects: Array, negatives: Array | None = None
) -> tuple[PrecisionRecall, ...]:
    """True and false positives (K, T), positives (K,) and negatives (K,) -> the curve of all classes together, and of those
    that have positives, the least average precision first. Without `negatives`, as of boxes, true negatives are 0."""
    objects = np.asarray(objects)[:, None]
    spared = np.zeros_like(wrong) if negatives is None else np.asarray(negatives)[:, None] - wrong
    columns = (right, wrong, spared, objects - right)
    known = np.flatnonzero(objects[:, 0]).tolist()
    if not known:
        return ()
    found = [
        PrecisionRecall(name, *(tuple(each[number].tolist()) for each in columns))
        for number, name in zip(known, unique([ALL, *(names[n] for n in known)])[1:], strict=True)
    ]
    found.sort(key=lambda each: each.average_precision)
    together = PrecisionRecall(ALL, *(tuple(each.sum(axis=0).tolist()) for each in columns))
    return (together, *found[:MOST])


def unique(names: Sequence[str]) -> list[str]:
    """Names that all differ: a second one has its place behind it."""
    found: list[str] = []
    for number, name in enumerate(names):
        found.append(f"{name} ({number})" if name in found else name)
    return found


def threshold_chart(curves: Sequence[PrecisionRecall], what: str) -> Chart:
    """Precision by recall of all classes together and of the `DRAWN` with the least average precision."""
    drawn = []
    for each in curves[: DRAWN + 1]:
        points = [
            (recall, precision)
            for recall, precision, answers in zip(
                each.recall, each.precision, np.add(each.true_positives, each.false_positives), strict=True
            )
            if answers
        ][::-1]
        x, y = zip(*points, strict=True) if points else ((), ())
        drawn.append(Curve(f"{each.name}, AP {each.average_precision:.3f}", x, y))
    note = (
        f"Of {what}, each class against all others, at thresholds of its probability from 0 to 1 in steps of 0.01. The "
        "classes with the least average precision come first."
    )
    if len(curves) > len(drawn):
        note += f" {len(drawn) - 1} of the {len(curves) - 1} that the record has."
    return Chart(
        "precision_recall", "Precision and recall by class", "recall", "precision", tuple(drawn), note=note
    )
