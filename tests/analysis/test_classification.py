"""What is found of classification, by hand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from dvsn.analysis import confusion
from dvsn.analysis.classification import Found
from dvsn.analysis.record import Cell
from dvsn.metrics.calibration import CalibrationError
from dvsn.metrics.classification import ClassScore

SHARES = torch.tensor([[0.7, 0.2, 0.1], [0.5, 0.4, 0.1], [0.05, 0.05, 0.9]])
TRUTH = torch.tensor([0, 1, 1])


def task_of(classes: int = 3) -> Any:
    return SimpleNamespace(
        classes=classes,
        names=tuple(f"c{n}" for n in range(classes)),
        class_score=ClassScore(classes),
        metrics={"ece": CalibrationError(classes, bins=10)},
        panels=lambda batch, output: {"prediction": output},
    )


def batch_of(truth: Tensor) -> dict[str, Any]:
    return {
        "image": torch.zeros(len(truth), 3, 4, 4),
        "target": truth,
        "name": [f"p{n}" for n in range(len(truth))],
    }


def seen(found: Found, shares: Tensor, truth: Tensor) -> list[Any]:
    pictures = found.look(batch_of(truth), shares.log())
    found.task.class_score.update(shares.log(), truth)
    found.task.metrics["ece"].update(shares.log(), truth)
    found.close(lambda own: [own])
    return pictures


def test_pictures_by_hand() -> None:
    right, near, far = seen(Found(task_of()), SHARES, TRUTH)
    assert [each.score for each in (right, near, far)] == pytest.approx([0.7, 0.4, 0.05])
    assert (
        right.cells == ()
        and right.note == ""
        and right.values == {"right": 1.0, "confidence": pytest.approx(0.7)}
    )
    assert near.cells == (Cell(1, 0, 1.0),) and near.note == "c1 taken for c0 (50%)"
    assert far.values["right"] == 0.0 and far.note == "c1 taken for c2 (90%)"


def test_the_whole_split() -> None:
    found = Found(task_of())
    seen(found, SHARES, TRUTH)
    (matrix,) = found.matrices()
    assert matrix.counts == ((1.0, 0.0, 0.0), (1.0, 0.0, 1.0), (0.0, 0.0, 0.0)) and matrix.unit == "pictures"
    bars, calibration, drawn = found.charts()
    assert drawn.key == "precision_recall" and found.curves()
    assert bars.curves[0].x == ("c0", "c1", "c2") and bars.curves[0].y == pytest.approx((2 / 3, 0.0, 0.0))
    assert calibration.curves[0].x == pytest.approx((0.5, 0.7, 0.9))
    assert calibration.curves[0].y == pytest.approx((0.0, 1.0, 0.0))
    assert f"error {(0.5 + 0.3 + 0.9) / 3:.4f}, over 10 bins" in calibration.note
    assert [row["taken for"] for row in found.tables()["largest confusions"]] == ["c0", "c2"]


def test_scores_alone_need_no_look() -> None:
    """With worst=null: the matrix and the diagram are made of what the metrics hold."""
    found = Found(task_of())
    found.task.class_score.update(SHARES.log(), TRUTH)
    found.task.metrics["ece"].update(SHARES.log(), TRUTH)
    found.close(lambda own: [own])
    assert found.matrices()[0].counts[1] == (1.0, 0.0, 1.0) and found.charts()[1].curves[0].x
    assert found.curves() == () and len(found.charts()) == 2


def test_a_teacher_beside_it() -> None:
    """The teacher knows the second picture, and not the first."""
    taught = torch.tensor([[0.3, 0.6, 0.1], [0.1, 0.8, 0.1], [0.05, 0.05, 0.9]])
    found = Found(task_of(), lambda image: taught.log())
    pictures = seen(found, SHARES, TRUTH)
    assert [each.values["teacher"] for each in pictures] == pytest.approx([0.3, 0.8, 0.05])
    assert [each.values["only_student"] for each in pictures] == [1.0, 0.0, 0.0]
    assert [each.values["only_teacher"] for each in pictures] == [0.0, 1.0, 0.0]
    rows = {row["class"]: row for row in found.tables()["student and teacher"]}
    assert (rows["c1"]["only the teacher"], rows["c1"]["teacher"], rows["c1"]["same answer"]) == (1, 0.5, 0.5)
    assert rows["all"]["pictures"] == 3 and "c2" not in rows
    batch = batch_of(TRUTH)
    found.look(batch, SHARES.log())
    assert torch.equal(found.panels(batch, SHARES.log())["teacher"], taught.log())


def test_of_many_classes_the_worst_have_bars(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confusion, "MOST", 2)
    found = Found(task_of())
    seen(found, SHARES, TRUTH)
    assert found.charts()[0].curves[0].x == ("c1", "c2") and "2 of 3 classes" in found.charts()[0].note
