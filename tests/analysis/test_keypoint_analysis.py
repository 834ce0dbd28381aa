"""What an evaluation of poses and landmarks finds: scores and notes of people, tables, curves, panels; a teacher."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dvsn.analysis.analyst import find_analyst
from dvsn.analysis.keypoints import Found, answer_of
from dvsn.analysis.point_panel import BETWEEN, FOUND, SIDE, TRUTH, draw_panels, enlarged
from dvsn.codecs.heatmaps import HeatmapCodec
from dvsn.errors import CheckpointError, ConfigError
from dvsn.geometry.keypoints import KeypointSet
from dvsn.metrics.keypoint_ap import KeypointAP
from dvsn.metrics.landmarks import NME
from dvsn.metrics.pck import PCK
from dvsn.metrics.truths import Truths
from dvsn.tasks.landmarks import HeatmapLandmarks, Landmarks
from dvsn.tasks.pose import Pose

SET = KeypointSet(names=["left_hand", "right_hand", "head"], sigmas=[0.05, 0.05, 0.1])
PERSON = np.array([[0.0, 0.0], [100.0, 0.0], [50.0, 50.0]])  # a box of 100 x 50


def truths(points: Any, labelled: Any, coco: Any = None, groups: tuple[str, ...] = ()) -> Truths:
    count = len(points)
    return Truths(
        keypoints=np.array(points, float), labelled=np.array(labelled, bool), length=np.full(count, 100.0),
        box=np.tile([0.0, 0, 100, 50], (count, 1)), score=np.ones(count), image_id=np.arange(count),
        annotation=np.arange(count) + 1, groups=groups or ("",) * count, attributes=np.zeros((count, 0), bool),
        attribute_names=(), describe=str, coco=lambda: coco, source="made up",
    )  # fmt: skip


def coco_of(points: Any, labelled: Any) -> dict[str, Any]:
    annotations = [
        {"id": n + 1, "image_id": n, "category_id": 1, "bbox": [0, 0, 100, 50], "iscrowd": 0, "area": 2500.0,
         "num_keypoints": int(np.sum(known)), "keypoints": np.column_stack([each, 2 * np.array(known)]).ravel().tolist()}
        for n, (each, known) in enumerate(zip(points, labelled, strict=True))
    ]  # fmt: skip
    images = [{"id": n, "file_name": f"{n}.jpg", "width": 200, "height": 200} for n in range(len(points))]
    return {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "person"}]}


POINTS, LABELLED = [PERSON, PERSON + 50, PERSON], [[1, 1, 1], [1, 1, 0], [0, 0, 0]]
ANSWERS = np.stack(
    [
        PERSON + np.array([[3, 4], [0, 30], [0, -40]]),
        (PERSON + 50)[[1, 0, 2]],  # left for right
        PERSON,
    ]
)


def task_of(kind: str) -> Any:
    if kind == "ap":
        score: Any = KeypointAP(keypoints=SET)
        score.attach(truths(POINTS, LABELLED, coco_of(POINTS, LABELLED)))
    elif kind == "nme":
        score = NME(keypoints=SET, normalise={"hands": [["left_hand"], ["right_hand"]]})
        score.attach(truths(POINTS, LABELLED, groups=("easy", "hard", "hard")))
    else:
        score = PCK(keypoints=SET, reference="box", threshold=0.2)
        score.attach(truths(POINTS, LABELLED))
    return SimpleNamespace(
        kind="pose",
        score=score,
        keypoints=SET,
        in_picture=lambda batch, answer: answer[..., :2],
        panels=lambda *_: {},
    )


def batch_of(*numbers: int) -> dict[str, Any]:
    return {
        "index": torch.tensor(numbers),
        "name": [f"p{n}" for n in numbers],
        "image": torch.zeros(len(numbers), 3, 8, 8),
    }


def output_of(points: Any) -> Tensor:
    return torch.from_numpy(np.concatenate([points, np.ones((*np.shape(points)[:2], 1))], axis=2))


def alone(own: Any) -> list[Any]:
    return [own]


def closed(kind: str, teacher: Any = None) -> tuple[Found, list[Any]]:
    """An analyst that has seen all people."""
    found = Found(task_of(kind), teacher)
    pictures = found.look(batch_of(0, 1, 2), output_of(ANSWERS))
    places = torch.from_numpy(ANSWERS)
    found.task.score.update(torch.arange(3), places, torch.ones(3, 3), torch.full((3, 2), 100.0))
    found.close(alone)
    return found, pictures


@pytest.mark.parametrize("kind", [Pose, Landmarks, HeatmapLandmarks])
def test_one_analyst_is_found_for_all_of_them(kind: Any) -> None:
    assert find_analyst(object.__new__(kind)) is Found


def test_people_by_pck_by_hand() -> None:
    found, (first, second, third) = closed("pck")
    assert (found.score, found.better) == ("error", "less")
    assert first.score == pytest.approx((0.05 + 0.3 + 0.4) / 3)
    assert first.values == {"keypoints right": pytest.approx(1 / 3)}
    assert first.note == "head 0.40, right_hand 0.30"
    assert second.score == pytest.approx(1.0)
    assert second.note == "left_hand 1.00, right_hand 1.00; on the other side: left_hand, right_hand"
    assert np.isnan(third.score)
    assert third.values == {}
    rows = found.tables()["error by keypoint"]
    assert [row["measured"] for row in rows] == [2, 2, 1]
    assert [row["right"] for row in rows] == [0.5, 0.0, 0.0]
    assert [row["on the other side"] for row in rows] == [1, 1, 0]
    assert rows[0]["mean"] == pytest.approx((0.05 + 1) / 2)


def test_one_hand_on_the_other_side() -> None:
    """Both hands are found where the right one is: the left one is on the other side, the right one is right."""
    _, crossed = Found(task_of("pck")).measure(np.array([0]), PERSON[None][:, [1, 1, 2]])
    assert crossed.tolist() == [[True, False, False]]


def test_people_by_oks() -> None:
    found, (first, second, _) = closed("ap")
    assert (found.score, found.better) == ("oks", "more")
    errors = np.array([5, 30, 40]) / 50  # the root of the area
    parts = np.exp(-np.square(errors) / (2 * (2 * np.array(SET.sigmas)) ** 2))
    assert first.score == pytest.approx(parts.mean(), rel=1e-6)
    assert first.values["error"] == pytest.approx(errors.mean())
    assert second.values["keypoints right"] == 0.0
    charts = {chart.key: chart for chart in found.charts()}
    values = found.task.score.compute()
    (curve,) = charts["ap_by_oks"].curves
    mean = sum(value or 0.0 for value in curve.y) / len(curve.y)
    assert mean == pytest.approx(float(values["ap"]))
    assert curve.y[0] == pytest.approx(float(values["ap50"]))
    assert [len(each.x) for each in charts["precision_recall"].curves] == [101] * 3


def test_faces_by_nme() -> None:
    found, (first, *_) = closed("nme")
    assert found.score == "nme"
    assert first.score == pytest.approx(0.25)
    assert "on the other side" not in first.note  # points of a face are near those of its other side
    ced = next(chart for chart in found.charts() if chart.key == "ced")
    assert [curve.name for curve in ced.curves] == ["all (2)", "easy (1)", "hard (1)"]
    assert "100.0 % above it" in ced.note
    assert "Mean 0.6250" in ced.note
    assert "hands distance" in ced.x


def test_distances_by_hand() -> None:
    found, _ = closed("pck")
    chart = next(each for each in found.charts() if each.key == "distance")
    assert [curve.name for curve in chart.curves] == ["all", "hand", "head"]
    every = chart.curves[0]
    at = dict(zip(every.x, every.y, strict=True))
    assert (at[0.04], at[0.056], at[0.304], at[0.4]) == pytest.approx((0, 0.2, 0.4, 0.6))  # of five


def test_broken_answers_are_the_worst_and_finite() -> None:
    found = Found(task_of("pck"))
    broken = np.full((1, 3, 2), np.nan)
    (picture,) = found.look(batch_of(0), output_of(broken))
    assert 1000 < picture.score < np.inf


# A teacher -----------------------------------------------------------------------------------------------


def test_a_teacher_by_hand() -> None:
    """The teacher is right about the first person and 10 pixels off with the second."""
    theirs = np.stack([PERSON, PERSON + 50 + [0, 10], PERSON])
    teacher = Teacher(output_of(theirs))
    found, (first, second, third) = closed("pck", teacher)
    assert (first.values["teacher"], second.values["teacher"]) == pytest.approx((0.0, 0.1))
    assert "teacher" not in third.values
    rows = {row["keypoint"]: row for row in found.tables()["student and teacher"]}
    assert rows["left_hand"]["student"] == pytest.approx(0.525)
    assert rows["left_hand"]["teacher"] == pytest.approx(0.05)
    assert rows["left_hand"]["apart"] == pytest.approx((0.05 + np.hypot(1.0, 0.1)) / 2)
    assert (rows["all"]["student nearer"], rows["all"]["teacher nearer"]) == (0, 5)
    chart = next(each for each in found.charts() if each.key == "teacher")
    assert [curve.name for curve in chart.curves] == ["student", "teacher", "apart"]
    assert "the teacher in 5" in chart.note


def test_a_teacher_with_other_keypoints_is_refused() -> None:
    teacher = SimpleNamespace(keypoints=KeypointSet(names=["a", "b"]))
    with pytest.raises(ConfigError, match="answers with 2 keypoints, the checkpoint with 3"):
        Found(task_of("pck"), teacher)


class Teacher:
    """Answers with what it was given."""

    teaching_size, response, keypoints = None, "heatmaps", SET

    def __init__(self, answer: Tensor) -> None:
        self.answer = answer

    def __call__(self, image: Tensor, offset: Tensor | None) -> Tensor:
        return self.answer


class Spotter:
    """Finds the middle of what is bright in crops of its own size. One that answers with `points` counts from the crop's
    corner, as `FaceCrop` does: half a crop pixel more, half a picture pixel less."""

    def __init__(self, size: tuple[int, int], response: str, side: float) -> None:
        self.teaching_size, self.response = size, response
        self.shift = (1 - size[1] / side) / 2 if response == "points" else 0.0

    def __call__(self, image: Tensor, offset: Tensor | None) -> Tensor:
        assert image.shape[-2:] == self.teaching_size
        light = image[:, 0].double()
        total = light.sum(dim=(1, 2))
        x = (light.sum(dim=1) * torch.arange(light.shape[2])).sum(dim=1) / total
        y = (light.sum(dim=2) * torch.arange(light.shape[1])).sum(dim=1) / total
        return torch.stack([x + self.shift, y + self.shift, torch.ones_like(x)], dim=-1)[:, None].float()


@pytest.mark.parametrize("size", [(40, 40), (80, 80), (24, 24), (60, 30)])
@pytest.mark.parametrize("response", ["heatmaps", "points"])
def test_a_teachers_points_come_back_into_the_students_crop(size: tuple[int, int], response: str) -> None:
    rows, columns = torch.meshgrid(torch.arange(40.0), torch.arange(40.0), indexing="ij")
    blob = 255 * torch.exp(-((columns - 17.3) ** 2 + (rows - 22.6) ** 2) / 32)
    side = 90.0
    own = (1 - 40 / side) / 2
    batch = {
        "image": blob.round().to(torch.uint8).expand(1, 3, 40, 40),
        "extent": torch.full((1, 2), side),
        "offset": torch.tensor([own]),
    }
    points = answer_of(Spotter(size, response, side), batch)
    np.testing.assert_allclose(points[0, 0], [17.3 + own, 22.6 + own, 1], atol=0.05)


# Panels --------------------------------------------------------------------------------------------------


def crop(offset: float = 0.0) -> dict[str, Any]:
    return {
        "image": torch.full((1, 3, 64, 48), 100, dtype=torch.uint8),
        "keypoints": torch.tensor([[[10.0, 20.0], [40.0, 20.0], [24.0, 50.0]]]) + offset,
        "weight": torch.ones(1, 3),
        "offset": torch.tensor([offset]),
    }


def test_an_enlarged_crop_keeps_points_where_they_are_drawn() -> None:
    """The pixel 10 of 48 has its middle at 10.5 / 48 of the width."""
    batch = crop(0.25)
    large, answer = enlarged(batch, torch.cat([batch["keypoints"], torch.ones(1, 3, 1)], dim=-1), 7.0)
    assert large["image"].shape == (1, 3, 448, 336)
    drawn = large["keypoints"][0, 0] - 0.25
    np.testing.assert_allclose(drawn, [10.5 * 7 - 0.5, 20.5 * 7 - 0.5], rtol=1e-6)
    torch.testing.assert_close(answer[..., :2], large["keypoints"])
    torch.testing.assert_close(batch["keypoints"], crop(0.25)["keypoints"])


def test_the_panels_show_truth_and_answer_and_maps() -> None:
    codec = HeatmapCodec(size=[64, 48], stride=4, offset=2.5)
    maps = torch.zeros(1, 3, 16, 12)
    maps[0, 1, 8, 6] = 0.5  # 6 * 4 + 2.5 across, 8 * 4 + 2.5 down
    seen: list[Any] = []

    def show(large: Any, _: Any) -> dict[str, Any]:
        seen.append(large)
        return {"photo": large["image"]}

    task = SimpleNamespace(codec=codec, maps=lambda image: maps, panels=show)
    batch, output = crop(), torch.tensor([[[20.0, 20.0, 1], [40.0, 20.0, 1], [30.0, 50.0, 1]]])
    panels = draw_panels(task, batch, output, np.array([True, True, False]))
    assert list(panels) == ["photo", "green truth, red found", "heatmaps, largest 0.50"]
    assert seen[0]["image"].shape == (1, 3, SIDE, SIDE * 3 // 4)
    picture = panels["green truth, red found"][0].permute(1, 2, 0).numpy()

    def at(x: float, y: float) -> tuple[int, ...]:
        return tuple(picture[round((y + 0.5) * 7 - 0.5), round((x + 0.5) * 7 - 0.5)].tolist())

    assert (at(10, 20), at(20, 20), at(15, 20)) == (TRUTH, FOUND, BETWEEN)
    assert at(40, 20) == FOUND
    assert at(24, 50) == at(30, 50) == (60, 60, 60)  # not measured
    warm = panels["heatmaps, largest 0.50"][0].float()
    place = (warm[0] - warm[2] > 20).nonzero().float().mean(dim=0)
    np.testing.assert_allclose(place, [(34.5 + 0.5) * 7 - 0.5, (26.5 + 0.5) * 7 - 0.5], atol=0.5)


def test_an_exported_file_has_no_maps_to_show() -> None:
    def refuse(image: Tensor) -> Tensor:
        raise CheckpointError("an exported file answers with points")

    task = SimpleNamespace(maps=refuse, panels=lambda *_: {})
    panels = draw_panels(task, crop(), torch.zeros(1, 3, 3), np.ones(3, bool))
    assert list(panels) == ["green truth, red found"]
