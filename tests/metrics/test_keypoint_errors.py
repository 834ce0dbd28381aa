"""Errors of single people and keypoints: by hand, and OKS against COCO's evaluator."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from pycocotools.cocoeval import COCOeval

from dvsn.geometry.keypoints import KeypointSet
from dvsn.metrics.keypoint_ap import KeypointAP, as_coco
from dvsn.metrics.keypoint_errors import by_keypoint, nearer, within
from dvsn.metrics.landmarks import NME
from dvsn.metrics.pck import PCK, PCKh
from dvsn.metrics.truths import Truths

NAMES = ("left_hand", "right_hand", "head")
SET = KeypointSet(names=NAMES, sigmas=[0.05, 0.05, 0.1])
PERSON = np.array([[0.0, 0.0], [100.0, 0.0], [50.0, 50.0]])  # a box of 100 x 50


def truths(points: Any, labelled: Any = None, *, coco: Any = None, **changes: Any) -> Truths:
    places = np.array(points, np.float64)
    count = len(places)
    known = np.ones(places.shape[:2], bool) if labelled is None else np.array(labelled, bool)
    fields: dict[str, Any] = {
        "keypoints": places, "labelled": known, "length": np.full(count, 10.0), "score": np.ones(count),
        "box": np.tile([0.0, 0, 100, 50], (count, 1)), "image_id": np.arange(count), "annotation": np.arange(count) + 1,
        "groups": ("",) * count, "attributes": np.zeros((count, 0), bool), "attribute_names": (), "describe": str,
        "coco": lambda: coco, "source": "made up",
    }  # fmt: skip
    return Truths(**fields | changes)


def moved(*by: list[float]) -> np.ndarray:
    return PERSON + np.array(by)


def test_errors_relative_to_the_box_by_hand() -> None:
    score = PCK(keypoints=SET, reference="box")
    score.attach(truths([PERSON, PERSON], [[1, 1, 1], [1, 1, 0]]))
    found = np.stack([moved([3, 4], [0, 0], [0, 30]), moved([np.nan, 0], [0, 10], [0, 5])])
    errors = score.relative(np.array([0, 1]), found)
    np.testing.assert_allclose(errors, [[0.05, 0, 0.3], [np.inf, 0.1, np.nan]])
    np.testing.assert_allclose(score.each(errors), [0.35 / 3, np.inf])
    assert score.right(errors).tolist() == [[True, True, False], [False, True, False]]
    assert score.relative(np.array([1, 0]), found[::-1])[1, 0] == pytest.approx(
        0.05
    )  # by the person's number


def test_people_who_are_not_measured_have_no_errors() -> None:
    score = PCKh(keypoints=SET, unscored=["head"])
    score.attach(truths([PERSON] * 2, length=np.array([np.nan, 20.0])))
    errors = score.relative(np.array([0, 1]), np.stack([PERSON, moved([0, 2], [0, 6], [0, 100])]))
    assert np.isnan(errors[0]).all()
    np.testing.assert_allclose(errors[1], [0.1, 0.3, 5])
    np.testing.assert_allclose(score.each(errors), [np.nan, 0.2])  # without the head, which is not scored


def test_the_mean_of_a_face_is_its_nme() -> None:
    random = np.random.default_rng(0)
    faces = random.uniform(0, 100, (5, 3, 2))
    labelled = random.random((5, 3)) < 0.7
    labelled[0] = True
    labelled[4] = False
    score = NME(keypoints=SET, normalise={"hands": [["left_hand"], ["right_hand"]]})
    score.attach(truths(faces, labelled))
    found = faces + random.normal(0, 5, faces.shape)
    score.update(torch.arange(5), torch.from_numpy(found), torch.ones(5, 3), torch.ones(5, 2))
    index, expected = score.errors()
    each = score.each(score.relative(np.arange(5), found.astype(np.float32).astype(np.float64)))
    np.testing.assert_allclose(each[index], expected, rtol=1e-6)
    assert np.isnan(np.delete(each, index)).all()


def content(count: int = 6) -> dict[str, Any]:
    random = np.random.default_rng(1)
    annotations = []
    for number in range(count):
        flags = np.array([2, 1, number % 2 * 2])
        triples = np.column_stack([random.uniform(0, 80, (3, 2)) * (flags > 0)[:, None], flags])
        annotations.append(
            {"id": number + 1, "image_id": number, "category_id": 1, "bbox": [0, 0, 80, 80], "iscrowd": 0,
             "area": 900.0 + 100 * number, "num_keypoints": int((flags > 0).sum()), "keypoints": triples.ravel().tolist()}
        )  # fmt: skip
    images = [
        {"id": number, "file_name": f"{number}.jpg", "width": 99, "height": 99} for number in range(count)
    ]
    return {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "person"}]}


def test_oks_of_a_person_is_cocos() -> None:
    made = content()
    triples = np.array([each["keypoints"] for each in made["annotations"]]).reshape(-1, 3, 3)
    score = KeypointAP(keypoints=SET)
    score.attach(truths(triples[..., :2], triples[..., 2] > 0, coco=copy.deepcopy(made)))
    found = triples[..., :2] + np.random.default_rng(2).normal(0, 4, triples[..., :2].shape)
    each = score.each(score.relative(np.arange(6), found))
    results = [
        {
            "image_id": n,
            "category_id": 1,
            "keypoints": np.column_stack([points, np.ones(3)]).ravel().tolist(),
            "score": 1.0,
        }
        for n, points in enumerate(found)
    ]
    truth = as_coco(made, made["annotations"])
    evaluator = COCOeval(truth, truth.loadRes(results), "keypoints")
    evaluator.params.kpt_oks_sigmas = np.array(SET.sigmas)
    evaluator._prepare()
    expected = [float(evaluator.computeOks(n, 1)[0, 0]) for n in range(6)]
    assert 0.05 < min(expected) < max(expected) < 0.95
    np.testing.assert_allclose(each, expected, rtol=1e-12)


def test_similarity_and_what_is_right_by_hand() -> None:
    """A similarity of a half: e = 2 sigma sqrt(2 ln 2)."""
    score = KeypointAP(keypoints=SET)
    half = 2 * 0.05 * math.sqrt(2 * math.log(2))
    errors = np.array([[0.99 * half, 1.01 * half, np.nan]])
    assert score.right(errors).tolist() == [[True, False, False]]
    np.testing.assert_allclose(score.similarity(errors)[0, :2], [0.5069, 0.4930], atol=1e-4)


def test_a_detected_box_is_compared_with_the_person_whom_it_shows() -> None:
    """Of two people of a picture the one whose box is most like it; nobody where all are less than half alike."""
    made = content(2)
    made["annotations"][1] |= {"image_id": 0, "bbox": [60, 0, 80, 80]}
    made["annotations"].append({**made["annotations"][1], "id": 9, "bbox": [61, 0, 80, 80], "iscrowd": 1})
    boxes = np.array([[62.0, 0, 80, 80], [5, 0, 80, 80], [200, 0, 80, 80], [0, 0, 80, 80]])
    image_id, nobody = np.array([0, 0, 0, 5]), np.full(4, -1)
    score = KeypointAP(keypoints=SET)
    zeros = np.zeros((4, 3, 2))
    score.attach(truths(zeros, np.zeros((4, 3)), box=boxes, image_id=image_id, annotation=nobody, coco=made))
    compared = score.compared(np.arange(4))
    first, second = (np.array(each["keypoints"]).reshape(3, 3) for each in made["annotations"][:2])
    np.testing.assert_array_equal(compared.points[0], second[:, :2])
    np.testing.assert_array_equal(compared.points[1], first[:, :2])
    assert compared.labelled.tolist() == [[True, True, True], [True, True, False], [False] * 3, [False] * 3]
    np.testing.assert_allclose(compared.length[:2], [math.sqrt(1000), 30])


# Tables --------------------------------------------------------------------------------------------------


def test_by_keypoint_by_hand() -> None:
    column = [0.1, 0.2, 0.3, np.nan, np.inf]
    rows = by_keypoint(np.array([column, [0.5, 0.3, 0.1, np.nan, 0.2], [np.nan] * 5]).T, NAMES)
    assert rows[0] == {
        "keypoint": "left_hand",
        "measured": 4,
        "mean": None,
        "median": 0.2,
        "90 % below": None,
    }
    assert rows[1] == pytest.approx(
        {"keypoint": "right_hand", "measured": 4, "mean": 0.275, "median": 0.2, "90 % below": 0.5}
    )
    assert rows[2] == {"keypoint": "head", "measured": 0, "mean": None, "median": None, "90 % below": None}


def test_within_by_hand() -> None:
    errors = np.array([[0.1, np.nan], [0.3, np.inf]])
    np.testing.assert_allclose(
        within(errors, np.array([0.0, 0.1, 0.2, 0.3, 9.0])), [0, 1 / 3, 1 / 3, 2 / 3, 2 / 3]
    )
    assert np.isnan(within(np.full((2, 2), np.nan), np.array([0.1]))).all()


def test_two_networks_by_hand() -> None:
    own = np.array([[0.1, 0.4], [0.3, np.inf]])
    other = np.array([[0.2, 0.2], [0.3, 0.1]])
    apart = np.array([[0.3, 0.5], [0.1, np.inf]])
    first, second, every = nearer(own, other, apart, ("a", "b"))
    assert first == pytest.approx(
        {
            "keypoint": "a",
            "measured": 2,
            "student": 0.2,
            "teacher": 0.25,
            "apart": 0.2,
            "student nearer": 1,
            "teacher nearer": 0,
        }
    )
    assert (second["measured"], second["teacher nearer"], second["apart"]) == (1, 1, 0.5)
    assert (every["keypoint"], every["measured"], every["student nearer"], every["teacher nearer"]) == (
        "all",
        3,
        1,
        1,
    )
    assert every["apart"] == pytest.approx(0.3)
