"""What an evaluation of a detector finds: scores, notes and cells of pictures, tables, curves and the panel of errors."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dvsn.analysis.analyst import find_analyst
from dvsn.analysis.detection import Found, Scored
from dvsn.analysis.object_panel import COLOURS, NOT_FOUND
from dvsn.analysis.precision_curves import by_class
from dvsn.analysis.record import Cell
from dvsn.errors import ConfigError
from dvsn.metrics.detection import DetectionScore
from dvsn.metrics.detection_errors import RIGHT
from dvsn.tasks.detection import Detection

CAR, BUS = 1, 2
SIZE = (60, 120)
Row = dict[str, Any]


class Pictures:
    """Pictures with objects, as `ObjectDataset` tells them."""

    categories = {CAR: "car", BUS: "bus"}  # noqa: RUF012

    def __init__(self, *truth: list[tuple[int, list[float]]]) -> None:
        self.given = truth
        self.image_ids = [100 + number for number in range(len(truth))]

    def size(self, index: int) -> tuple[int, int]:
        return SIZE

    def truth(self, index: int) -> list[Row]:
        return [
            {"id": n, "bbox": box, "category_id": label, "area": box[2] * box[3], "iscrowd": 0}
            for n, (label, box) in enumerate(self.given[index])
        ]


def answer(*given: tuple[int, list[float], float]) -> dict[str, Tensor]:
    """Of boxes x, y, width, height."""
    boxes = torch.tensor([[x, y, x + w, y + h] for _, (x, y, w, h), _ in given], dtype=torch.float32).reshape(
        -1, 4
    )
    labels = torch.tensor([label for label, _, _ in given], dtype=torch.int64)
    return {"boxes": boxes, "labels": labels, "scores": torch.tensor([score for _, _, score in given])}


def task_of(data: Pictures, shown: float = 0.5) -> Any:
    score = DetectionScore()
    score.attach(data)
    return SimpleNamespace(kind="detection", score=score, shown_from=shown, panels=lambda *_: {})


def batch_of(*numbers: int) -> Row:
    image = [torch.zeros(3, *SIZE, dtype=torch.uint8) for _ in numbers]
    return {"index": torch.tensor(numbers), "name": [f"p{n}" for n in numbers], "image": image}


class Teacher:
    """Gives the answers that it was given."""

    network = SimpleNamespace(classes=3)

    def __init__(self, answers: Sequence[Any]) -> None:
        self.answers = answers

    def __call__(self, image: Sequence[Tensor]) -> Sequence[Any]:
        return self.answers[: len(image)]


TRUTH: tuple[list[tuple[int, list[float]]], ...] = (
    [(CAR, [0, 0, 20, 20]), (BUS, [40, 0, 20, 20])],
    [(CAR, [0, 0, 20, 20]), (CAR, [80, 0, 20, 20])],
)
ANSWERS = (
    answer((CAR, [0, 0, 20, 20], 0.9), (CAR, [40, 0, 20, 20], 0.75), (BUS, [100, 30, 10, 10], 0.25)),
    answer((CAR, [10, 0, 20, 20], 0.75), (99, [80, 0, 20, 20], 0.9)),
)
"""A car, and a bus that is taken for a car; below the threshold a bus of nothing. A car badly placed, and a class that the
data set does not know."""


@pytest.fixture
def analyst() -> Found:
    found = Found(task_of(Pictures(*TRUTH)))
    found.task.score.update([0, 1], ANSWERS)
    return found


def mean(values: Sequence[float | None]) -> float:
    return float(np.mean([value for value in values if value is not None]))


def alone(own: Any) -> list[Any]:
    return [own]


def test_it_is_found_by_the_kind_of_the_task() -> None:
    assert find_analyst(SimpleNamespace()) is not Found
    task = object.__new__(Detection)
    assert find_analyst(task) is Found


def test_pictures_by_hand(analyst: Found) -> None:
    first, second = analyst.look(batch_of(0, 1), ANSWERS)
    assert first.score == pytest.approx(2 / (2 + 2))  # one right of two detections, one of two objects
    assert first.values == {"right": 1, "wrong": 1, "not found": 1}
    assert [(each.row, each.column, each.count) for each in first.cells] == [(1, 0, 1)]
    assert first.note == "bus taken for car"
    assert second.score == 0.0
    assert second.values == {"right": 0, "wrong": 1, "not found": 2}
    assert sorted((each.row, each.column, each.count) for each in second.cells) == [(0, 2, 2), (2, 0, 1)]
    assert second.note == "badly placed: car; missed: car"


def test_detections_are_counted_by_score(analyst: Found) -> None:
    """Cars: one right at 0.9, and at 0.75 one that is a bus and one badly placed; 3 objects. A bus of nothing at 0.25."""
    analyst.look(batch_of(0, 1), ANSWERS)
    analyst.close(alone)
    together, bus, car = analyst.curves()
    assert (together.name, bus.name, car.name) == ("all", "bus", "car")
    for curve, at, counts in (
        (car, 75, (1, 2, 0, 2)), (car, 76, (1, 0, 0, 2)), (car, 91, (0, 0, 0, 3)), (bus, 25, (0, 1, 0, 1)),
        (bus, 26, (0, 0, 0, 1)), (together, 0, (1, 3, 0, 3)),
    ):  # fmt: skip
        columns = (curve.true_positives, curve.false_positives, curve.true_negatives, curve.false_negatives)
        assert tuple(each[at] for each in columns) == counts
    assert car.average_precision == pytest.approx(1 / 3) and bus.average_precision == 0
    scored = Scored(analyst.task)  # as a training asks
    assert scored.curves(alone) == ()
    scored.look(batch_of(0, 1), ANSWERS)
    assert scored.curves(alone) == (together, bus, car)
    scored.begin()
    assert scored.curves(alone) == ()


def test_tables_and_matrix_by_hand(analyst: Found) -> None:
    analyst.look(batch_of(0, 1), ANSWERS)
    analyst.close(alone)
    car, bus = analyst.tables()["classes"]
    assert (car["class"], car["objects"], car["right"], car["wrong"], car["not found"]) == ("car", 3, 1, 2, 2)
    assert (car["precision"], car["recall"], car["f1"]) == pytest.approx((1 / 3, 1 / 3, 1 / 3))
    assert (bus["right"], bus["wrong"], bus["not found"], bus["precision"]) == (0, 0, 1, None)
    assert "ap50" in car
    errors = {row["kind"]: row for row in analyst.tables()["kinds of errors"]}
    counts = {kind: (row["errors"], row["of any score"]) for kind, row in errors.items()}
    assert counts == {"wrong class": (1, 1), "badly placed": (1, 1), "both": (0, 0), "double": (0, 0),
                      "background": (0, 1), "missed": (1, 1)}  # fmt: skip
    assert errors["missed"]["share"] == pytest.approx(1 / 3)
    (matrix,) = analyst.matrices()
    assert matrix.rows == matrix.columns == ("car", "bus", "background")
    assert matrix.counts == ((1, 0, 2), (1, 0, 0), (1, 0, 0))
    base = float(analyst.task.score.compute()["map50"])
    assert base == pytest.approx(34 / 101 / 2)  # of car 1 of 3 at precision 1, of bus none
    assert errors["wrong class"]["ap50 gained"] == pytest.approx((34 / 101 + 1) / 2 - base)
    assert errors["badly placed"]["ap50 gained"] == pytest.approx((34 + 33 * 2 / 3) / 101 / 2 - base)


def test_of_many_classes_those_that_are_confused_most_have_rows(
    analyst: Found, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cars are, four times; cells of pictures follow the matrix."""
    monkeypatch.setattr("dvsn.analysis.confusion.MOST", 1)
    first, second = analyst.look(batch_of(0, 1), ANSWERS)
    analyst.close(alone)
    (matrix,) = analyst.matrices()
    assert matrix.rows == matrix.columns == ("car", "all others")
    assert matrix.counts == ((1, 2), (2, 0))
    assert analyst.settle(first).cells == (Cell(1, 0, 1),)
    assert analyst.settle(second).cells == (Cell(0, 1, 2), Cell(1, 0, 1))


def test_curves_are_cocos(analyst: Found) -> None:
    analyst.look(batch_of(0, 1), ANSWERS)
    analyst.close(alone)
    charts = {chart.key: chart for chart in analyst.charts()}
    figures = analyst.task.score.compute()
    at_half, ten = charts["precision_recall_50"], charts["precision_recall"]
    assert mean(at_half.curves[0].y) == pytest.approx(float(figures["map50"]))
    assert mean(ten.curves[0].y) == pytest.approx(float(figures["map"]))
    assert [curve.name for curve in at_half.curves] == ["all, AP 0.168", "bus, AP 0.000", "car, AP 0.337"]
    (overlap,) = charts["ap_by_overlap"].curves
    assert mean(overlap.y) == pytest.approx(float(figures["map"]))
    assert overlap.y[0] == pytest.approx(float(figures["map50"]))
    assert [len(chart.curves[0].x) for chart in (at_half, charts["errors"], charts["mending"])] == [101, 6, 6]
    f1 = next(curve for curve in charts["confidence"].curves if curve.name == "f1")
    assert f1.y[50] == pytest.approx(2 / (3 + 4))
    assert f1.y[80] == pytest.approx(2 / (1 + 4))


def test_a_teacher_by_hand(analyst: Found) -> None:
    """The teacher finds the bus and the second car of the second picture; the student alone the first car."""
    theirs = (
        answer((BUS, [40, 0, 20, 20], 0.9)),
        answer((CAR, [80, 0, 20, 20], 0.9), (CAR, [0, 0, 20, 20], 0.25)),
    )
    analyst.task.network = SimpleNamespace(classes=3)
    beside = Found(analyst.task, Teacher(theirs))
    pictures = beside.look(batch_of(0, 1), ANSWERS)
    beside.close(alone)
    assert [each.values["teacher"] for each in pictures] == pytest.approx([2 / 3, 2 / 3])
    car, bus, every = beside.tables()["student and teacher"]
    assert (car["class"], car["objects"], car["only the student"], car["only the teacher"]) == (
        "car",
        3,
        1,
        1,
    )
    assert (bus["student"], bus["teacher"]) == (0, 1)
    assert (every["student"], every["teacher"], every["objects"]) == (0.25, 0.5, 4)
    batch = batch_of(0)
    beside.look(batch, ANSWERS[:1])
    beside.teacher = "is asked once"
    assert list(beside.panels(batch, ANSWERS[:1])) == ["errors", "errors of the teacher"]
    with pytest.raises(ConfigError, match="knows 4 classes, the checkpoint 3"):
        Found(analyst.task, SimpleNamespace(network=SimpleNamespace(classes=4)))


def test_two_processes_are_put_together(analyst: Found) -> None:
    """A picture that both have seen, as a sampler that pads gives it, counts once."""
    other = Found(analyst.task)
    other.look(batch_of(1), ANSWERS[1:])
    analyst.look(batch_of(0, 1), ANSWERS)
    analyst.close(lambda own: [own, other.judged])
    assert analyst.matrices()[0].counts == ((1, 0, 2), (1, 0, 0), (1, 0, 0))


def test_without_a_look_there_are_the_curves_that_the_score_knows_anyway(analyst: Found) -> None:
    analyst.close(alone)
    assert [chart.key for chart in analyst.charts()] == [
        "precision_recall_50",
        "precision_recall",
        "ap_by_overlap",
    ]
    assert analyst.tables() == {}
    assert analyst.matrices() == ()


def test_a_split_without_objects_has_no_curves() -> None:
    analyst = Found(task_of(Pictures([])))
    analyst.task.score.update([0], [answer()])
    assert analyst.look(batch_of(0), [answer()])[0].score == 1.0
    analyst.close(alone)
    charts = {chart.key: chart for chart in analyst.charts()}
    assert charts["precision_recall"].curves == ()
    assert set(charts["ap_by_overlap"].curves[0].y) == {None}
    assert all(row["ap50 gained"] is None for row in analyst.tables()["kinds of errors"])


def test_many_classes_are_shown_by_the_worst_and_the_best() -> None:
    curves = np.tile(np.linspace(0, 1, 30), (101, 1))
    curves[:, 4] = -1  # no object
    drawn, note = by_class(curves, [f"c{n:02d}" for n in range(1, 31)])
    names = [curve.name.partition(",")[0] for curve in drawn]
    assert names == ["all", *(f"c{n:02d}" for n in (1, 2, 3, 4, 6, 7, 25, 26, 27, 28, 29, 30))]
    assert "Of 29 classes the 6 worst and the 6 best" in note


def test_the_panel_has_the_colours_of_the_kinds(analyst: Found) -> None:
    batch = batch_of(0)
    analyst.look(batch, ANSWERS[:1])
    panel = analyst.panels(batch, ANSWERS[:1])["errors"]
    assert panel.shape == (1, 3, *SIZE)
    at = [tuple(panel[0, :, 20, x].tolist()) for x in (4, 44)]  # on the lower edges
    assert at == [COLOURS[RIGHT], COLOURS["wrong class"]]
    assert not batch["image"][0].any()
    analyst.look(batch_of(1), ANSWERS[1:])
    second = analyst.panels(batch_of(1), ANSWERS[1:])["errors"][0]
    edge = {tuple(second[:, 20, x].tolist()) for x in range(80, 101)}
    assert COLOURS[NOT_FOUND] in edge
    assert (0, 0, 0) in edge  # dashed
