"""Scores of keypoints: similarity, NMS and rescoring by hand, AP against the evaluator itself, PCK and PCKh by hand."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from dvsn.data.people import PeopleDataset, PersonRecord
from dvsn.errors import ConfigError, DataError
from dvsn.geometry.keypoints import KeypointSet
from dvsn.metrics.keypoint_ap import AP_NAMES, KeypointAP
from dvsn.metrics.keypoints import make_score
from dvsn.metrics.pck import PCK, PCKh
from dvsn.portable.oks import keypoint_similarity, oks_between, oks_nms, rescore

SAMPLE = Path(os.environ.get("DVSN_DATA", "data")) / "coco_sample"
SIGMAS = [0.026, 0.025, 0.025, 0.035, 0.035, 0.079, 0.079, 0.072, 0.072, 0.062, 0.062, 0.107, 0.107, 0.087, 0.087,
          0.089, 0.089]  # fmt: skip


class People(PeopleDataset):
    """People that are given."""

    def __init__(
        self, records: list[PersonRecord], keypoints: KeypointSet, annotations: dict[str, Any] | None = None
    ) -> None:
        super().__init__(keypoints=keypoints, transform=None, seed=0)
        self.records, self.annotations = records, annotations


def person(points: Any, labelled: Any = None, *, number: int = 0, **more: Any) -> PersonRecord:
    places = np.array(points, np.float32)
    flags = np.ones(len(places), np.uint8) if labelled is None else np.array(labelled, np.uint8)
    return PersonRecord(Path(f"p{number}.jpg"), (0, 0, 1, 1), places, flags, number, **more)


def feed(score: Any, index: list[int], points: Any, confidence: Any = 1.0, extent: Any = 100.0) -> None:
    places = torch.as_tensor(np.array(points, np.float64))
    sure = torch.as_tensor(np.broadcast_to(np.array(confidence, np.float64), places.shape[:2]).copy())
    sides = torch.as_tensor(np.broadcast_to(np.array(extent, np.float64), (len(places), 2)).copy())
    score.update(index=torch.tensor(index), points=places, confidence=sure, extent=sides)


def values(score: Any) -> dict[str, float]:
    return {name: float(value) for name, value in score.compute().items()}


# ---- similarity ------------------------------------------------------------------------------------------


def test_similarity_by_hand() -> None:
    """d = 3, k = 0.2, area 100: exp(-9 / (2 * 100 * 0.04))."""
    found = keypoint_similarity(np.array([[9.0, 0.0]]), np.array([100.0]), [0.1, 0.1])
    np.testing.assert_allclose(found, [[math.exp(-9 / 8), 1.0]], rtol=1e-12)


def test_similarity_between_people_uses_all_keypoints_and_the_mean_area() -> None:
    points = np.array([[[0.0, 0], [10, 0]], [[0, 4], [10, 0]]])
    found = oks_between(points, np.array([100.0, 300.0]), sigmas=[0.05, 0.2])
    expected = (math.exp(-16 / (2 * 200 * 0.1**2)) + 1) / 2
    np.testing.assert_allclose(found, [[1, expected], [expected, 1]], rtol=1e-12)


def test_nms_drops_what_is_like_a_better_one_that_was_kept() -> None:
    """Along a chain A-B-C of neighbours B falls to A, and C stays since B is gone."""
    points = np.array([[[x, 0.0]] for x in (20.0, 10.0, 0.0, 500.0)])  # C, B, A, far away
    score, area, sigmas = np.array([0.7, 0.8, 0.9, 0.1]), np.full(4, 1000.0), [0.5]
    assert oks_between(points, area, sigmas=sigmas)[0, 1] == pytest.approx(math.exp(-100 / 2000))  # 0.951
    assert oks_nms(points, score, area, sigmas=sigmas, threshold=0.9).tolist() == [2, 0, 3]
    assert oks_nms(points, score, area, sigmas=sigmas, threshold=0.96).tolist() == [2, 1, 0, 3]
    assert oks_nms(points[:0], score[:0], area[:0], sigmas=sigmas).tolist() == []
    same = np.zeros((3, 1, 2))
    assert oks_nms(same, np.ones(3), np.ones(3), sigmas=sigmas).tolist() == [0]


def test_nms_with_the_area_of_the_crop_and_not_of_the_box() -> None:
    """The larger area makes the same distance more alike."""
    points, score = np.array([[[0.0, 0]], [[6.0, 0]]]), np.array([0.9, 0.8])
    box, crop = np.full(2, 150.0), np.full(2, 150.0 * 1.25**2 * 1.5)
    assert len(oks_nms(points, score, box, sigmas=[0.5])) == 2
    assert len(oks_nms(points, score, crop, sigmas=[0.5])) == 1


def test_rescoring_by_hand() -> None:
    confidence = np.array([[0.9, 0.5, 0.2], [0.1, 0.2, 0.0]])
    np.testing.assert_allclose(rescore(np.array([0.5, 0.9]), confidence), [0.5 * 0.7, 0.0])


# ---- AP --------------------------------------------------------------------------------------------------


def coco_set(count: int = 17, sigmas: list[float] | None = None) -> KeypointSet:
    return KeypointSet(names=[f"k{number}" for number in range(count)], sigmas=sigmas or SIGMAS[:count])


def invented(count: int = 17) -> dict[str, Any]:
    """Five pictures of three people: some keypoints hidden, one person without any, one crowd."""
    random = np.random.default_rng(0)
    annotations = []
    for number in range(15):
        side, corner = random.uniform(40, 160), random.uniform(0, 300, 2)
        points = corner + random.uniform(0, side, (count, 2))
        flags = random.choice([0, 1, 2], count, p=[0.2, 0.2, 0.6]) * (number != 4)
        triples = np.column_stack([points * (flags > 0)[:, None], flags])
        annotations.append(
            {"id": number + 1, "image_id": number // 3 + 7, "category_id": 1, "bbox": [*corner, side, side],
             "area": side * side * 0.6, "iscrowd": int(number == 9), "num_keypoints": int((flags > 0).sum()),
             "keypoints": triples.ravel().tolist()}
        )  # fmt: skip
    images = [
        {"id": number, "file_name": f"{number}.jpg", "width": 500, "height": 500} for number in range(7, 12)
    ]
    return {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "person"}]}


def with_records(content: dict[str, Any], count: int = 17) -> People:
    records = []
    for each in content["annotations"]:
        triples = np.array(each["keypoints"], np.float32).reshape(count, 3)
        if each["num_keypoints"] and not each["iscrowd"]:
            records.append(
                person(triples[:, :2], triples[:, 2] > 0, number=each["id"], image_id=each["image_id"])
            )
    return People(records, coco_set(count), content)


def noisy(data: People, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points that miss more from person to person, confidences, and the sides of crops."""
    random, people = np.random.default_rng(seed), len(data.records)
    truth = np.array([record.keypoints for record in data.records], np.float64)
    noise = random.standard_normal(truth.shape) * np.linspace(0.5, 12, people)[:, None, None]
    return truth + noise, random.uniform(0.1, 1, truth.shape[:2]), random.uniform(150, 300, (people, 2))


def by_the_evaluator(
    content: dict[str, Any], results: list[dict[str, Any]], sigmas: list[float]
) -> np.ndarray:
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {"info": {}, **copy.deepcopy(content)}
        truth.createIndex()
        evaluator = COCOeval(truth, truth.loadRes(results), "keypoints")
        evaluator.params.kpt_oks_sigmas = np.array(sigmas)
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    return evaluator.stats


def results_by_hand(
    data: People, points: np.ndarray, confidence: np.ndarray, extent: np.ndarray
) -> list[Any]:
    """Rescored and reduced with plain loops, apart from the code under test."""
    kept, rows = [], list(range(len(points)))
    scores = []
    for row in rows:
        sure = [value for value in confidence[row] if value > 0.2]
        scores.append(data.records[row].score * (sum(sure) / len(sure) if sure else 0))
    for row in sorted(rows, key=lambda row: -scores[row]):
        alike = False
        for other in kept:
            if data.records[other].image_id == data.records[row].image_id:
                area = (extent[row].prod() + extent[other].prod()) / 2
                parts = [
                    math.exp(
                        -((points[row, k] - points[other, k]) ** 2).sum() / (2 * area * (2 * sigma) ** 2)
                    )
                    for k, sigma in enumerate(data.keypoints.sigmas)
                ]
                alike |= sum(parts) / len(parts) > 0.9
        if not alike:
            kept.append(row)
    return [
        {"image_id": data.records[row].image_id, "category_id": 1, "score": scores[row],
         "keypoints": np.column_stack([points[row], confidence[row]]).ravel().tolist()}
        for row in kept
    ]  # fmt: skip


@pytest.mark.parametrize("count", [17, 14])
def test_ap_is_the_evaluators_own(count: int, capfd: pytest.CaptureFixture[str]) -> None:
    content = invented(count)
    before, data = copy.deepcopy(content), with_records(content, count)
    points, confidence, extent = noisy(data)
    twin = data.records[2]._replace(score=0.5)  # a second box on a person, which NMS drops
    data.records.append(twin)
    points = np.concatenate([points, points[2:3] + 0.3])
    confidence, extent = np.concatenate([confidence, confidence[2:3]]), np.concatenate([extent, extent[2:3]])
    score = KeypointAP(keypoints=data.keypoints)
    score.attach(data)
    feed(score, list(range(len(points))), points, confidence, extent)
    found = values(score)
    assert list(found) == list(AP_NAMES)
    by_hand = results_by_hand(data, points, confidence, extent)
    assert len(by_hand) == len(points) - 1 == len(score.results())
    expected = by_the_evaluator(content, by_hand, SIGMAS[:count])
    np.testing.assert_allclose(list(found.values()), expected, atol=1e-6)
    assert 0.2 < found["ap"] < 0.95 and found["apm"] != found["apl"]
    assert content == before  # the evaluator writes into its own copy
    assert capfd.readouterr().out == ""


@pytest.mark.skipif(not SAMPLE.is_dir(), reason="needs DVSN_DATA/coco_sample")
def test_ap_on_published_annotations() -> None:
    content = json.loads((SAMPLE / "test_coco.json").read_text())
    data = with_records(content)
    points, confidence, extent = noisy(data)
    score = KeypointAP(keypoints=data.keypoints)
    score.attach(data)
    feed(score, list(range(len(points))), points, confidence, extent)
    expected = by_the_evaluator(content, results_by_hand(data, points, confidence, extent), SIGMAS)
    np.testing.assert_allclose(list(values(score).values()), expected, atol=1e-6)
    assert 0.3 < expected[0] < 0.95
    score.reset()
    feed(score, list(range(len(points))), [record.keypoints for record in data.records])
    assert values(score)["ap"] == pytest.approx(1.0)
    assert all(row["similarity"] == pytest.approx(1.0, abs=1e-6) for row in score.table())


@pytest.mark.parametrize(("side", "left"), [(300.0, 1), (17.0, 2)])
def test_two_boxes_on_one_person_are_told_by_the_area_of_their_crops(side: float, left: int) -> None:
    """3 pixels apart on both axes: alike in crops of 300 x 300 pixels, and different people in crops of 17 x 17."""
    data = with_records(invented())
    data.records.append(data.records[0])
    points = np.stack([data.records[0].keypoints, data.records[0].keypoints + 3])
    score = KeypointAP(keypoints=data.keypoints)
    score.attach(data)
    feed(score, [0, len(data.records) - 1], points, 1.0, side)
    assert len(score.results()) == left


def test_results_are_what_a_server_takes(tmp_path: Path) -> None:
    data = with_records(invented())
    score = KeypointAP(keypoints=data.keypoints)
    score.attach(data)
    feed(score, [0], noisy(data)[0][:1], 0.5)
    (entry,) = json.loads(json.dumps(score.results()))
    assert {key: type(value) for key, value in entry.items()} == {
        "image_id": int, "category_id": int, "keypoints": list, "score": float,
    }  # fmt: skip
    assert len(entry["keypoints"]) == 51 and entry["keypoints"][2::3] == [0.5] * 17
    assert entry["image_id"] == 7 and entry["score"] == pytest.approx(0.5)


def test_the_table_of_ap_counts_people_who_are_not_found() -> None:
    """Of two people the second is predicted far away: half the similarity where both are labelled."""
    content = invented()
    content["annotations"] = content["annotations"][:2]
    data = with_records(content)
    score = KeypointAP(keypoints=data.keypoints)
    score.attach(data)
    feed(score, [0, 1], [data.records[0].keypoints, data.records[1].keypoints + 5000])
    both = data.records[0].labelled.astype(int) + data.records[1].labelled
    for row, n, first in zip(score.table(), both, data.records[0].labelled, strict=True):
        assert row["labelled"] == n
        assert row["similarity"] == (pytest.approx(first / n, abs=1e-6) if n else None)


def test_nothing_predicted_is_nothing_found() -> None:
    data = with_records(invented())
    score = KeypointAP(keypoints=data.keypoints)
    score.attach(data)
    with pytest.warns(UserWarning):
        assert set(values(score).values()) == {0.0}
    assert score.results() == []


def test_ap_says_what_it_lacks() -> None:
    with pytest.raises(ConfigError, match=r"data\.keypoints\.sigmas: none are given"):
        KeypointAP(keypoints=KeypointSet(names=["a"]))
    with pytest.raises(ConfigError, match=r"no annotations in COCO's form"):
        KeypointAP(keypoints=coco_set()).attach(People([], coco_set()))


# ---- PCK and PCKh ----------------------------------------------------------------------------------------

BODY = KeypointSet(names=["left_shoulder", "right_hip", "head"])


def test_pck_by_hand() -> None:
    """Torso 50, so 10 pixels are near enough and 10.1 are not."""
    torso = [[0.0, 0], [30, 40], [100, 100]]
    data = People([person(torso), person(torso, [1, 1, 0], number=1)], BODY)
    score = make_score("pck", keypoints=BODY)
    score.attach(data)
    feed(score, [0, 1], [[[6, 8], [30, 40], [110.1, 100]], [[0, 11], [30, 50], [0, 0]]])
    assert values(score) == {"pck": pytest.approx(3 / 5)}
    assert score.table() == [
        {"keypoint": "left_shoulder", "labelled": 2, "pck": 0.5},
        {"keypoint": "right_hip", "labelled": 2, "pck": 1.0},
        {"keypoint": "head", "labelled": 1, "pck": 0.0},
    ]


def test_people_without_a_torso_are_not_measured_but_named() -> None:
    good, point = [[0.0, 0], [30, 40], [9, 9]], [[5.0, 5], [5, 5], [9, 9]]
    records = [person(good), person(good, [1, 0, 1], number=1), person(point, number=2),
               person(good, [0, 0, 0], number=3)]  # fmt: skip
    score = make_score("pck", keypoints=BODY)
    score.attach(People(records, BODY))
    feed(score, [0, 1, 2, 3], [good] * 4)
    assert values(score) == {"pck": 1.0}
    assert [row["person"] for row in score.left_out()] == ["p1.jpg, annotation 1", "p2.jpg, annotation 2"]
    assert "left_shoulder or right_hip is not labelled" in score.left_out()[0]["reason"]


@pytest.mark.parametrize(("reference", "reach"), [("box", 20.0), ("length", 8.0)])
def test_other_references(reference: Any, reach: float) -> None:
    """The box of the labelled keypoints is 60 x 100; the file says 40."""
    points = [[0.0, 0], [60, 100], [999, 999]]
    data = People([person(points, [1, 1, 0], length=40.0)], BODY)
    for error, expected in ((reach - 0.01, 1.0), (reach + 0.01, 0.0)):
        score = make_score("pck", keypoints=BODY, reference=reference)
        score.attach(data)
        feed(score, [0], [np.add(points, [error, 0])])
        assert values(score) == {"pck": expected}


def test_the_reference_follows_the_keypoints() -> None:
    assert PCK(keypoints=BODY).reference == "torso"
    hand = KeypointSet(names=["thumb", "index"])
    assert PCK(keypoints=hand).reference == "box"
    with pytest.raises(ConfigError, match="no keypoint is called 'left_shoulder'"):
        PCK(keypoints=hand, reference="torso")
    with pytest.raises(ConfigError, match="found 'head', expected auto, torso, box or length"):
        PCK(keypoints=hand, reference="head")  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"p0\.jpg, annotation 0: its file gives no reference length"):
        PCK(keypoints=hand, reference="length").attach(People([person([[0, 0], [1, 1]])], hand))


def test_broken_predictions_are_wrong_and_twice_counts_once() -> None:
    torso = [[0.0, 0], [30, 40], [100, 100]]
    data = People([person(torso, number=number) for number in range(3)], BODY)
    score = make_score("pck", keypoints=BODY)
    score.attach(data)
    feed(score, [1, 0], [torso, np.full((3, 2), np.nan)])
    feed(score, [1], [np.zeros((3, 2)) - 500])  # a sampler's padding
    assert values(score) == {"pck": pytest.approx(3 / 6)} and score.coverage() == (2, 3)


def test_pckh_by_hand() -> None:
    """Errors of 0, 5, 6 and 40 in units of 0.6 x head diagonal = 50: shares 0, 0.1, 0.12 and 0.8."""
    keypoints = KeypointSet(
        names=["right_knee", "left_knee", "pelvis", "head_top"], pairs=[["right_knee", "left_knee"]]
    )
    points = np.array([[0.0, 0], [50, 0], [0, 50], [50, 50]])
    data = People([person(points, length=50.0), person(points, [1, 0, 1, 1], length=50.0)], keypoints)
    score = make_score("pckh", keypoints=keypoints)
    score.attach(data)
    errors = np.array([[0, 40, 99, 5], [5.4, 0, 99, 6.0]])
    feed(score, [0, 1], points + np.stack([errors, 0 * errors], axis=-1))
    found = values(score)  # the pelvis is not in the mean: of 5 keypoints
    assert found == pytest.approx({"pckh": 4 / 5, "pckh_01": 2 / 5, "pckh_011": 3 / 5})
    rows = {row["keypoint"]: row for row in score.table()}
    assert rows["knee"] == {"keypoint": "knee", "labelled": 3, "pckh": 0.5, "pckh_01": 0.25}
    assert rows["pelvis"]["pckh"] == 0.0 and rows["head_top"]["pckh_01"] == 0.5


def test_coordinates_from_one_or_from_zero_give_the_same_pckh() -> None:
    keypoints, random = KeypointSet(names=["a", "b"]), np.random.default_rng(0)
    truth, noise = random.uniform(0, 99, (9, 2, 2)), random.standard_normal((9, 2, 2)) * 5
    found = []
    for shift in (0, 1):
        score = PCKh(keypoints=keypoints)
        score.attach(People([person(each + shift, length=9.0) for each in truth], keypoints))
        feed(score, list(range(9)), truth + noise + shift)
        found.append(values(score))
    assert found[0] == found[1] and 0 < found[0]["pckh"] < 1


def test_an_unknown_score_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"data\.facts\.score: found 'oks', expected ap, pckh, pck or nme"):
        make_score("oks", keypoints=BODY)


# ---- limited runs ----------------------------------------------------------------------------------------


def six(score: str) -> tuple[Any, People]:
    """A score of six people, three each in pictures 7 and 8, and a picture of a crowd and of people without keypoints."""
    content = invented()
    for number, each in enumerate(content["annotations"]):
        if number == 4:
            triples = np.array(content["annotations"][3]["keypoints"]).reshape(17, 3)
            each["keypoints"] = (triples + [60, 0, 0] * (triples[:, 2:] > 0)).ravel().tolist()
            each["num_keypoints"] = 1
        if number >= 6:
            each["iscrowd"] = 1
    data = with_records(content)
    data.records = [record._replace(length=90.0) for record in data.records]
    assert len(data.records) == 6
    options: dict[str, Any] = {"reference": "box"} if score == "pck" else {}
    options |= {"normalise": {"diagonal": "diagonal"}} if score == "nme" else {}
    made = make_score(score, keypoints=data.keypoints, **options)
    made.attach(data)
    return made, data


@pytest.mark.parametrize(
    ("score", "figure", "right"),
    [("ap", "ap", 1.0), ("pck", "pck", 1.0), ("pckh", "pckh", 1.0), ("nme", "nme", 0.0)],
)
@pytest.mark.parametrize("handed", [[0, 1, 2], [0, 2, 5], [4]])
def test_a_limited_run_is_measured_by_whom_it_was_given(
    score: str, figure: str, right: float, handed: list[int]
) -> None:
    """Perfect answers for 3 of 6 people are perfect, of whole pictures and of parts; and the score says 3 of 6."""
    made, data = six(score)
    feed(made, handed, [data.records[number].keypoints for number in handed])
    assert values(made)[figure] == pytest.approx(right, abs=1e-6)
    assert made.coverage() == (len(handed), 6)
    made.table(), made.left_out()


def test_a_limited_run_counts_misses_of_whom_it_was_given() -> None:
    """One of two is missed: half the recall, as of two people alone; all six handed over, with one missed: five sixths."""
    for handed, expected in (([0, 1], 1 / 2), (list(range(6)), 5 / 6)):
        made, data = six("ap")
        points = np.array([data.records[number].keypoints for number in handed]) + 0.0
        points[0] += 5000
        confidence = np.full((len(handed), 1), 0.9)
        confidence[0] = 0.5  # the miss comes last
        feed(made, handed, points, confidence)
        assert values(made)["ar"] == pytest.approx(expected)
        assert values(made)["ap"] == pytest.approx(expected, abs=0.02)


def test_a_limited_run_on_detections_counts_whose_box_is_most_alike() -> None:
    """Detections say not whom they show. The boxes of the first and third person were handed over, and a box of nobody."""
    made, data = six("ap")
    truth = {each["id"]: each for each in data.annotations["annotations"]}  # type: ignore[index]
    points = [record.keypoints for record in data.records]
    numbers = [record.number for record in data.records]
    boxes = [tuple(np.add(truth[number]["bbox"], [2, -2, 3, 3])) for number in numbers]
    data.records = [
        record._replace(number=-1, box=box, labelled=0 * record.labelled)
        for record, box in zip(data.records, boxes, strict=True)
    ]
    made = make_score("ap", keypoints=data.keypoints)
    made.attach(data)
    feed(made, [0, 2], [points[0], points[2]])
    assert sorted(each for each in made.truth().anns if not truth[each]["iscrowd"]) == [
        numbers[0],
        numbers[2],
    ]
    assert values(made)["ap"] == pytest.approx(1.0) and made.coverage() == (2, 6)


def test_nobody_who_can_be_measured_is_no_score() -> None:
    torso = [[0.0, 0], [30, 40], [100, 100]]
    data = People([person(torso), person(torso, [0, 0, 0], number=1)], BODY)
    score = make_score("pck", keypoints=BODY)
    score.attach(data)
    feed(score, [1], [torso])
    assert math.isnan(values(score)["pck"]) and score.coverage() == (1, 2)


# ---- several processes -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["ap", "pck", "pckh"])
def test_two_processes_with_a_padded_sampler_equal_one(kind: str) -> None:
    data = with_records(invented())
    data.records = [record._replace(length=90.0) for record in data.records]
    points, confidence, extent = noisy(data)
    options = {"reference": "box"} if kind == "pck" else {}

    def fed(*shares: list[int]) -> Any:
        score = make_score(kind, keypoints=data.keypoints, **options)  # type: ignore[arg-type]
        score.attach(data)
        for share in shares:
            feed(score, share, points[share], confidence[share], extent[share])
        return score

    everyone = list(range(len(points)))
    whole, parts = fed(everyone), [fed(everyone[::2][:3], everyone[::2][3:]), fed([*everyone[1::2], 0])]

    def gather(state: torch.Tensor, group: Any = None) -> list[torch.Tensor]:
        """What the processes would send: this one's state, and the other's of the same name."""
        name = next(name for name in names if torch.equal(torch.cat(getattr(parts[0], name)), state))
        return [state, torch.cat(getattr(parts[1], name))]

    names = ("index", "points", "confidence", "extent")
    parts[0].dist_sync_fn, parts[0].distributed_available_fn = gather, lambda: True
    assert values(parts[0]) == values(whole)
    assert parts[0].table() == whole.table()
    assert len(parts[0].index) == 2  # its own state again
    if kind == "ap":
        key = lambda row: (row["image_id"], -row["score"])  # noqa: E731
        assert sorted(parts[0].results(), key=key) == sorted(whole.results(), key=key)
