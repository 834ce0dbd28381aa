"""Kinds of errors of a detector: hand-computed pictures, the average precision against COCO's, and what mending gives."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dvsn.metrics.detection import evaluate
from dvsn.metrics.detection_errors import (
    BACKGROUND,
    KINDS,
    MISSED,
    RIGHT,
    STATES,
    average_precision,
    by_confidence,
    confusion,
    judge,
    mean_precision,
)

CAR, BUS = 1, 3
Row = dict[str, Any]


def objects(*given: tuple[int, list[float]], crowd: int = 0) -> list[Row]:
    return [{"bbox": box, "category_id": label, "iscrowd": crowd} for label, box in given]


def found(*given: tuple[int, list[float], float]) -> list[Row]:
    return [{"bbox": box, "category_id": label, "score": score} for label, box, score in given]


def states(judged: Any) -> list[str]:
    return [STATES[number] for number in judged.state]


# Boxes of 10 x 10. One moved right by d overlaps by (10 - d) / (10 + d): 2 -> 0.667, 5 -> 0.333, 9 -> 0.053.
CARS = objects((CAR, [0, 0, 10, 10]))


@pytest.mark.parametrize(
    ("label", "left", "state"),
    [
        (CAR, 0, RIGHT),
        (CAR, 2, RIGHT),
        (CAR, 5, "badly placed"),
        (CAR, 9, "background"),
        (BUS, 2, "wrong class"),
        (BUS, 5, "both"),
        (BUS, 9, "background"),
    ],
)
def test_one_detection_by_hand(label: int, left: float, state: str) -> None:
    judged = judge(found((label, [left, 0, 10, 10], 0.9)), CARS)
    assert states(judged) == [state]
    assert judged.found.tolist() == [state == RIGHT]
    assert judged.missed.tolist() == [
        state in ("both", "background")
    ]  # the others say that they have seen it
    assert judged.f1 == float(state == RIGHT)


def test_the_best_scored_takes_the_object_and_the_other_is_double() -> None:
    """The order of the file does not matter; the worse one is double although it lies better."""
    judged = judge(found((CAR, [0, 0, 10, 10], 0.3), (CAR, [2, 0, 10, 10], 0.8)), CARS)
    assert judged.place.tolist() == [1, 0]
    assert states(judged) == [RIGHT, "double"]
    assert judged.f1 == pytest.approx(2 / 3)


def test_a_second_object_is_found_by_what_would_be_double() -> None:
    two = objects((CAR, [0, 0, 10, 10]), (CAR, [1, 0, 10, 10]))
    judged = judge(found((CAR, [0, 0, 10, 10], 0.8), (CAR, [0, 0, 10, 10], 0.7)), two)
    assert states(judged) == [RIGHT, RIGHT]
    assert judged.found.all()


def test_badly_placed_goes_before_wrong_class() -> None:
    """A car near a car and on a bus: TIDE asks for the own class first."""
    both = objects((CAR, [0, 0, 10, 10]), (BUS, [5, 0, 10, 10]))
    judged = judge(found((CAR, [5, 0, 10, 10], 0.9)), both)
    assert states(judged) == ["badly placed"]
    assert judged.missed.tolist() == [False, True]


def test_detections_in_a_crowd_are_ignored_and_the_crowd_is_not_wanted() -> None:
    crowd = objects((CAR, [0, 0, 100, 100]), crowd=1)
    judged = judge(found((CAR, [40, 40, 10, 10], 0.9), (BUS, [40, 40, 10, 10], 0.8)), crowd)
    assert states(judged) == ["ignored", "background"]
    assert len(judged.wanted) == 0
    assert judged.pairs.tolist() == [[BACKGROUND, BUS]]


def test_an_empty_picture_is_right_and_a_picture_without_detections_is_not() -> None:
    assert judge([], []).f1 == 1.0
    nothing = judge([], CARS)
    assert nothing.f1 == 0.0
    assert nothing.missed.tolist() == [True]
    assert nothing.pairs.tolist() == [[CAR, BACKGROUND]]
    assert states(judge(found((CAR, [0, 0, 9, 9], 0.5)), [])) == ["background"]


def test_a_threshold_leaves_out_what_is_below_it() -> None:
    detections = found((CAR, [0, 0, 10, 10], 0.5), (BUS, [50, 50, 10, 10], 0.49))
    judged = judge(detections, CARS, least=0.5)
    assert (judged.count(RIGHT), judged.wrong, judged.f1) == (1, 0, 1.0)


def test_only_the_best_hundred_of_a_class_count_as_cocos_do() -> None:
    boxes = [(CAR, [20.0 * n, 50.0, 10.0, 10.0], 0.9) for n in range(100)]
    judged = judge(found(*boxes, (CAR, [0, 0, 10, 10], 0.5), (BUS, [0, 0, 10, 10], 0.4)), CARS)
    assert len(judged.state) == 101
    assert not judged.found.any()


# The matrix ----------------------------------------------------------------------------------------------


def test_confusion_by_hand() -> None:
    """A car found, a car taken for a bus, a bus not found, a bus in the background, a double."""
    wanted = objects((CAR, [0, 0, 10, 10]), (CAR, [30, 0, 10, 10]), (BUS, [60, 0, 10, 10]))
    detections = found(
        (CAR, [0, 0, 10, 10], 0.9),
        (CAR, [1, 0, 10, 10], 0.8),
        (BUS, [31, 0, 10, 10], 0.7),
        (BUS, [90, 0, 10, 10], 0.6),
    )
    judged = judge(detections, wanted)
    assert states(judged) == [RIGHT, "double", "wrong class", "background"]
    expected = [[1, 1, 0], [0, 0, 1], [1, 1, 0]]  # rows: car, bus, background
    assert confusion([judged], [CAR, BUS]).tolist() == expected
    assert confusion([judged, judged], [CAR, BUS]).tolist() == (2 * np.array(expected)).tolist()
    assert judged.missed.tolist() == [False, False, True]
    assert judged.f1 == pytest.approx(2 / (4 + 3))


def test_what_remains_is_paired_by_overlap_and_not_by_score() -> None:
    """Two buses on one car: the one that lies better is the one it was taken for."""
    detections = found((BUS, [2, 0, 10, 10], 0.9), (BUS, [0, 0, 10, 10], 0.2))
    judged = judge(detections, CARS)
    assert sorted(judged.pairs.tolist()) == [[BACKGROUND, BUS], [CAR, BUS]]
    assert judged.mended.tolist() == [0, -1]  # the better scored would find it


# All together --------------------------------------------------------------------------------------------


def test_average_precision_by_hand() -> None:
    """Right, wrong, right of two: precision 1 up to a recall of 0.5, then 2/3: 51 and 50 of the 101 places."""
    value = average_precision(np.array([0.9, 0.8, 0.7]), np.array([True, False, True]), 2)
    assert value == pytest.approx((51 + 50 * 2 / 3) / 101)
    assert average_precision(np.zeros(0), np.zeros(0, bool), 3) == 0.0
    assert average_precision(np.array([0.5]), np.array([True]), 2) == pytest.approx(51 / 101)


def test_mending_by_hand() -> None:
    """Two cars, one found by the best; a bus, which the second says is a car; a detection of nothing; a car nobody saw."""
    wanted = objects((CAR, [0, 0, 10, 10]), (CAR, [30, 0, 10, 10]), (BUS, [60, 0, 10, 10]))
    detections = found(
        (CAR, [90, 0, 10, 10], 0.95),  # background
        (CAR, [0, 0, 10, 10], 0.9),
        (CAR, [60, 0, 10, 10], 0.8),  # wrong class
    )
    pictures = [judge(detections, wanted)]
    half = 51 / 101  # of the recalls lie at 0.5 or below
    assert mean_precision(pictures, [CAR, BUS]) == pytest.approx(half / 2 / 2)
    assert mean_precision(pictures, [CAR, BUS], "background") == pytest.approx(half / 2)
    assert mean_precision(pictures, [CAR, BUS], "wrong class") == pytest.approx((half / 2 + 1) / 2)
    assert mean_precision(pictures, [CAR, BUS], MISSED) == pytest.approx(
        0.5 / 2
    )  # one car counts, at precision 1/2
    assert mean_precision(pictures, [CAR, BUS], "double") == pytest.approx(half / 2 / 2)


def test_a_badly_placed_one_is_moved_once() -> None:
    """Two near one car: mended, the better is right and the other is gone."""
    detections = found((CAR, [5, 0, 10, 10], 0.9), (CAR, [6, 0, 10, 10], 0.8))
    pictures = [judge(detections, CARS)]
    assert states(pictures[0]) == ["badly placed", "badly placed"]
    assert mean_precision(pictures, [CAR]) == 0.0
    assert mean_precision(pictures, [CAR], "badly placed") == 1.0


def test_without_objects_there_is_no_precision() -> None:
    assert np.isnan(mean_precision([], [CAR]))
    assert np.isnan(mean_precision([judge(found((CAR, [0, 0, 9, 9], 0.5)), [])], [CAR]))


def invented(seed: int, pictures: int = 12) -> tuple[Row, list[Row]]:
    """Pictures with objects of three classes, a few of them crowds, and detections that are off, double or of nothing."""
    random = np.random.default_rng(seed)
    truth: Row = {
        "images": [],
        "annotations": [],
        "categories": [{"id": n, "name": str(n)} for n in (1, 2, 3)],
    }
    results: list[Row] = []
    for image in range(1, pictures + 1):
        truth["images"].append({"id": image, "height": 100, "width": 100})
        for _ in range(int(random.integers(0, 6))):
            box, label = [*random.uniform(0, 60, 2), *random.uniform(10, 40, 2)], int(random.integers(1, 4))
            truth["annotations"].append(
                {"id": len(truth["annotations"]) + 1, "image_id": image, "bbox": box, "category_id": label,
                 "iscrowd": int(random.random() < 0.15), "area": box[2] * box[3]}
            )  # fmt: skip
            for _ in range(int(random.integers(0, 4))):
                moved = np.array(box) + random.normal(0, random.choice([0, 2, 6]), 4)
                results.append(
                    {"image_id": image, "bbox": np.maximum(moved, 3).tolist(), "score": float(random.integers(1, 40)) / 40,
                     "category_id": label if random.random() < 0.7 else int(random.integers(1, 4))}
                )  # fmt: skip
    return truth, sorted(results, key=lambda each: -each["score"])


@pytest.mark.parametrize("seed", range(4))
def test_matches_and_precision_are_those_of_cocos_evaluator(seed: int) -> None:
    truth, results = invented(seed)
    pictures = []
    for image in truth["images"]:
        own = [
            [row for row in rows if row["image_id"] == image["id"]]
            for rows in (results, truth["annotations"])
        ]
        pictures.append(judge(*own))
    reference = evaluate(truth, results, "bbox")
    assert mean_precision(pictures, [1, 2, 3]) == pytest.approx(reference.stats[1], abs=1e-12)
    right = ignored = 0
    for each in reference.evalImgs:
        if each is not None and each["aRng"] == reference.params.areaRng[0]:
            right += int(((each["dtMatches"][0] > 0) & ~each["dtIgnore"][0]).sum())
            ignored += int(each["dtIgnore"][0].sum())
    assert right > 10
    assert ignored > 0
    assert sum(each.count(RIGHT) for each in pictures) == right
    assert sum(each.count("ignored") for each in pictures) == ignored
    counts = confusion(pictures, [1, 2, 3])
    assert np.trace(counts) == right
    objects_of = [
        sum(a["category_id"] == n and not a["iscrowd"] for a in truth["annotations"]) for n in (1, 2, 3)
    ]
    assert counts[:3].sum(axis=1).tolist() == objects_of
    assert counts[:, :3].sum() == len(results) - ignored


def test_by_confidence_is_what_judging_at_each_threshold_gives() -> None:
    truth, results = invented(7)
    images = [
        [[row for row in rows if row["image_id"] == image["id"]] for rows in (results, truth["annotations"])]
        for image in truth["images"]
    ]
    at = np.array([0.0, 0.25, 0.5, 0.9])
    swept = by_confidence([judge(*each) for each in images], [1, 2, 3], at)
    for number, least in enumerate(at):
        pictures = [judge(*each, least=least) for each in images]
        right, wrong = sum(each.count(RIGHT) for each in pictures), sum(each.wrong for each in pictures)
        wanted = sum(len(each.wanted) for each in pictures)
        assert swept["precision"][number] == pytest.approx(right / (right + wrong))
        assert swept["recall"][number] == pytest.approx(right / wanted)
        assert swept["f1"][number] == pytest.approx(2 * right / (right + wrong + wanted))
    assert np.isnan(by_confidence([], [1, 2, 3], at)["recall"]).all()


def test_each_kind_is_mended_for_the_better() -> None:
    truth, results = invented(3)
    pictures = [
        judge(
            *(
                [row for row in rows if row["image_id"] == image["id"]]
                for rows in (results, truth["annotations"])
            )
        )
        for image in truth["images"]
    ]
    base = mean_precision(pictures, [1, 2, 3])
    for kind in (*KINDS, MISSED):
        assert mean_precision(pictures, [1, 2, 3], kind) >= base
