"""What is found of segmentation, against pixels counted by hand."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from dvsn.analysis.record import Cell
from dvsn.analysis.segmentation import Found, mean_iou, share
from dvsn.metrics.segmentation import SegmentationScore

NAMES = ("road", "<b>car</b>", "sky")
TRUTH = torch.tensor([[0, 0, 0, 0], [1, 1, 255, 255]], dtype=torch.uint8)
ANSWER = torch.tensor([[0, 0, 1, 2], [1, 0, 0, 1]], dtype=torch.uint8)
IOU = {"road": 2 / 5, "car": 1 / 3}  # road: 2 of 4 true and 1 more said; car: 1 of 2 true and 1 more said


def task_of(**more: Any) -> Any:
    score = SegmentationScore(classes=3)
    vocabulary = SimpleNamespace(names=NAMES)
    return SimpleNamespace(classes=3, vocabulary=vocabulary, score=score, listener=None, **more)


def batch_of(*truths: Tensor) -> dict[str, Any]:
    target = torch.stack(truths)[:, None]
    names = [f"p{n}" for n in range(len(truths))]
    image = torch.zeros(len(truths), 3, *truths[0].shape, dtype=torch.uint8)
    return {"image": image, "target": target, "name": names, "index": torch.arange(len(truths))}


def alone(own: Any) -> list[Any]:
    return [own]


def test_a_picture_by_hand() -> None:
    (picture,) = Found(task_of()).look(batch_of(TRUTH), ANSWER[None])
    assert picture.score == pytest.approx((IOU["road"] + IOU["car"]) / 2), "sky is not in the label"
    assert picture.values == {"pixel_accuracy": pytest.approx(3 / 6)}
    assert picture.cells == (Cell(0, 1, 1.0), Cell(0, 2, 1.0), Cell(1, 0, 1.0))
    assert picture.note == (
        "road taken for <b>car</b> (1 pixels); road taken for sky (1); <b>car</b> taken for road (1)"
    ), "names stay what they are; whoever shows them escapes them"


def test_a_label_that_is_void_as_a_whole_has_no_score() -> None:
    void = torch.full((2, 4), 255, dtype=torch.uint8)
    right, wrong = Found(task_of()).look(batch_of(TRUTH, void), torch.stack([TRUTH.clamp(max=2), ANSWER]))
    assert right.score == 1.0 and right.cells == () and right.note == ""
    assert math.isnan(wrong.score) and math.isnan(wrong.values["pixel_accuracy"])
    assert math.isnan(mean_iou(torch.zeros(2, 2))) and math.isnan(share(torch.zeros(2, 2)))


def test_the_whole_split() -> None:
    task = task_of()
    found = Found(task)
    found.look(batch_of(TRUTH), ANSWER[None])
    task.score.update(ANSWER[None], TRUTH[None])
    found.close(alone)
    (matrix,) = found.matrices()
    assert matrix.unit == "pixels" and matrix.rows == NAMES
    assert matrix.counts == ((2.0, 1.0, 1.0), (1.0, 1.0, 0.0), (0.0, 0.0, 0.0))
    (bars,) = found.charts()  # nothing was heard, so no calibration
    assert bars.curves[0].x == NAMES and bars.curves[0].y == pytest.approx((IOU["road"], IOU["car"], 0.0))
    rows = found.tables()["largest confusions"]
    assert rows[0] == {"true": "road", "taken for": NAMES[1], "pixels": 1, "share of the true class": 0.25}


@pytest.mark.parametrize("probabilities", [False, True])
def test_calibration_by_hand(probabilities: bool) -> None:
    """Four pixels: 0.8 right, 0.6 wrong, 0.8 void, 0.8 right."""
    shares = torch.tensor([[0.8, 0.6, 0.1, 0.1], [0.1, 0.3, 0.8, 0.8], [0.1, 0.1, 0.1, 0.1]]).view(1, 3, 1, 4)
    truth = torch.tensor([[0, 1, 255, 1]], dtype=torch.uint8)
    task = task_of()
    found = Found(task)
    found.begin()
    task.listener(shares if probabilities else shares.log() + 5, probabilities)
    found.look(batch_of(truth), shares.argmax(dim=1))
    task.score.update(shares.argmax(dim=1), truth[None])
    found.close(alone)
    assert task.listener is None
    chart = found.charts()[1]
    assert chart.key == "calibration" and chart.diagonal
    right, size = chart.curves
    assert right.x == pytest.approx((0.6, 0.8)) and right.y == pytest.approx((0.0, 1.0))
    assert size.y == pytest.approx((1 / 3, 2 / 3)) and size.name == "of all 3 sampled pixels"
    assert f"error {0.6 / 3 + 0.2 * 2 / 3:.4f}, over 15 bins" in chart.note
    together, road, car = found.curves()
    assert [each.name for each in (together, road, car)] == ["all", "road", NAMES[1]]  # no pixel of the sky
    at = 25  # pixels of a car have 0.3 and 0.8 of it, the road 0.1
    counts = (car.true_positives, car.false_positives, car.true_negatives, car.false_negatives)
    assert [each[at] for each in counts] == [2, 0, 1, 0] and [each[50] for each in counts] == [1, 0, 1, 1]


def test_pixels_are_sampled_evenly_and_always_the_same() -> None:
    task = task_of()
    found = Found(task)
    found.begin()
    scores = torch.randn(1, 3, 400, 700)
    task.listener(scores, False)
    truth = torch.zeros(400, 700, dtype=torch.uint8)
    found.look(batch_of(truth), scores.max(dim=1).indices)
    assert 0.7 * 10_000 < found.sampled <= 10_000
    again = Found(task_of())
    again.scored.hear(scores, False)
    again.look(batch_of(truth), scores.max(dim=1).indices)
    assert torch.equal(found.reliability.sums, again.reliability.sums)


def test_nobody_listens_where_no_picture_is_looked_at() -> None:
    task = task_of()
    Found(task).begin(look=False)
    assert task.listener is None


def painted(ids: Tensor) -> Tensor:
    return ids[:, None].expand(-1, 3, -1, -1)


def test_a_teacher_beside_it() -> None:
    """The teacher is right on one pixel where the student is not, and wrong on one where it is right."""
    taught = ANSWER.clone()
    taught[0, 2], taught[1, 0] = 0, 2
    teacher = SimpleNamespace(predict_ids=lambda image: taught[None])
    task = task_of(
        paint=painted, panels=lambda batch, output: {"photo": batch["image"], "errors": batch["image"]},
        show_input=lambda image: image,
    )  # fmt: skip
    found = Found(task, teacher)
    batch = batch_of(TRUTH)
    (picture,) = found.look(batch, ANSWER[None])
    # road: 3 of 4 true and 1 more said, car: 0 of 2 true and one more said, at a pixel that is void
    assert picture.values["teacher"] == pytest.approx((3 / 5 + 0) / 2)
    assert (picture.values["only_student"], picture.values["only_teacher"]) == pytest.approx((1 / 6, 1 / 6))
    assert picture.values["same_answer"] == pytest.approx(4 / 6)
    task.score.update(ANSWER[None], TRUTH[None])
    found.close(alone)
    rows = {row["class"]: row for row in found.tables()["student and teacher"]}
    assert rows["road"] == {
        "class": "road", "student": 0.5, "teacher": 0.75, "same answer": 0.75, "only the student": 0,
        "only the teacher": 1, "pixels": 4,
    }  # fmt: skip
    assert rows["all"]["only the student"] == 1 and "sky" not in rows
    panels = found.panels(batch, ANSWER[None])
    assert list(panels) == ["photo", "teacher", "right alone: student green, teacher orange"]
    colours = panels["right alone: student green, teacher orange"][0].permute(1, 2, 0)
    assert colours[0, 2].tolist() == [255, 140, 0] and colours[1, 0].tolist() == [0, 190, 0]
    assert colours[0, 3].tolist() == [255, 255, 255] and colours[1, 2].tolist() == [0, 0, 0], (
        "void is not painted"
    )
