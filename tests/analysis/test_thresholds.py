"""Right and wrong answers by the least score that is asked for."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from dvsn.analysis.classification import Scored
from dvsn.analysis.record import PrecisionRecall
from dvsn.analysis.thresholds import ALL, curves_of, find_scored, threshold_chart, unique
from dvsn.metrics.thresholds import THRESHOLDS, ThresholdCounts

SHARES = torch.tensor([[0.7, 0.2, 0.1], [0.5, 0.4, 0.1], [0.05, 0.05, 0.9]])
TRUTH = torch.tensor([0, 1, 1])


def counts_of(curve: PrecisionRecall, at: int) -> tuple[float, ...]:
    columns = (curve.true_positives, curve.false_positives, curve.true_negatives, curve.false_negatives)
    return tuple(each[at] for each in columns)


def scored(names: tuple[str, ...] = ("a", "b", "c")) -> Scored:
    return Scored(SimpleNamespace(classes=3, names=names))


def add_up(*parts: Scored) -> Any:
    """What a process is told by all: its own, and that of the others."""
    return lambda own: [own, *(each.counts.bins for each in parts)]


def test_pictures_by_hand() -> None:
    """At 0.3, `a` is said of the first and the second and right of the first; `b` of the second, and the third is missed."""
    counter = scored()
    counter.look({"target": TRUTH}, SHARES.log())
    together, b, a = counter.curves(lambda own: [own])
    assert [each.name for each in (together, b, a)] == [ALL, "b", "a"]  # no picture of `c`
    assert counts_of(a, 30) == (1, 1, 1, 0) and counts_of(b, 30) == (1, 0, 1, 1)
    assert counts_of(a, 0) == (1, 2, 0, 0)
    assert counts_of(together, 30) == (2, 2, 4, 1), "c is said of the third picture"
    assert a.precision[30] == 0.5 and a.recall[30] == 1.0 and a.precision[99] == 0.0
    # of `b`: 0.5 of the recall at a precision of 1 (0.4), the rest at 1 of 2: at 0.05 the first picture has more
    assert b.average_precision == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert a.average_precision == 1.0


def test_parts_of_several_processes_are_those_of_one() -> None:
    first, second, whole = scored(), scored(), scored()
    first.look({"target": TRUTH[:1]}, SHARES[:1].log())
    second.look({"target": TRUTH[1:]}, SHARES[1:].log())
    whole.look({"target": TRUTH}, SHARES.log())
    assert first.curves(add_up(second)) == whole.curves(lambda own: [own])


def test_counts_are_those_of_tensorboard() -> None:
    """torch's own, which is written for one class and 0 to 1, over random answers."""
    summary = pytest.importorskip("torch.utils.tensorboard.summary")
    generator = torch.Generator().manual_seed(0)
    shares = torch.randn(400, 3, generator=generator).softmax(dim=1)
    truth = torch.randint(0, 3, (400,), generator=generator)
    counts = ThresholdCounts(3)
    counts.add(shares, truth)
    right, wrong = counts.positives()
    for number in range(3):
        expected = summary.compute_curve(
            (truth == number).numpy(), shares[:, number].double().numpy(), num_thresholds=len(THRESHOLDS)
        )
        np.testing.assert_array_equal(right[number], expected[0])
        np.testing.assert_array_equal(wrong[number], expected[1])


@pytest.mark.parametrize(("score", "at"), [(0.29, 29), (0.3, 30), (0.57, 57), (1.0, 100), (0.0, 0)])
def test_a_score_on_a_threshold_is_above_it(score: float, at: int) -> None:
    counts = ThresholdCounts(2)
    counts.add(torch.tensor([[score, 0.5]]), torch.tensor([0]))
    right, _ = counts.positives()
    assert right[0, : at + 1].all() and not right[0, at + 1 :].any()


def test_what_has_no_class_is_left_out_and_nan_is_0() -> None:
    counts = ThresholdCounts(2)
    counts.add(torch.tensor([[0.9, 0.1], [float("nan"), 0.5], [0.5, 0.5]]), torch.tensor([255, 0, -1]))
    right, wrong = counts.positives()
    assert right.sum(dim=1).tolist() == [1, 0] and wrong[:, 0].tolist() == [0, 1]


def test_of_many_classes_the_worst_have_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    from dvsn.analysis import thresholds

    monkeypatch.setattr(thresholds, "MOST", 2)
    monkeypatch.setattr(thresholds, "DRAWN", 1)
    right, wrong = np.array([[4, 1], [4, 4], [4, 2]]), np.zeros((3, 2), int)
    found = curves_of(("x", "y", "z"), right, wrong, np.array([4, 4, 8]))
    assert [each.name for each in found] == [ALL, "z", "x"]
    chart = threshold_chart(found, "3 pictures")
    assert [each.name for each in chart.curves] == [
        "all, AP 0.750",
        "z, AP 0.500",
    ] and "1 of the 2" in chart.note
    assert chart.curves[1].x == (0.25, 0.5) and chart.curves[1].y == (1.0, 1.0)


def test_names_all_differ() -> None:
    assert unique(["all", "car", "all", "car"]) == ["all", "car", "all (2)", "car (3)"]
    assert curves_of((), np.zeros((0, 2)), np.zeros((0, 2)), np.zeros(0)) == ()


def test_tasks_without_scores_have_none() -> None:
    from dvsn.tasks.pix2pix import Pix2Pix

    assert find_scored(object.__new__(Pix2Pix)) is None
