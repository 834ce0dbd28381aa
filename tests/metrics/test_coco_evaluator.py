"""Both evaluators of COCO's average precision have the same figures: boxes, masks, keypoints, ties, crowds, nothing."""

from __future__ import annotations

import copy
import importlib.util
import sys
from typing import Any

import numpy as np
import pytest
from numpy.random import Generator, default_rng
from pycocotools import mask as rle

from dvsn.errors import ConfigError
from dvsn.metrics.coco_evaluator import evaluated
from dvsn.metrics.detection import DetectionScore

HEIGHT, WIDTH = 60, 80
SIGMAS = (0.026, 0.025, 0.107, 0.05)
KINDS = ("bbox", "segm", "keypoints")
needs_faster = pytest.mark.skipif(
    importlib.util.find_spec("faster_coco_eval") is None, reason="needs pip install 'dvsn[coco]'"
)


def box(rng: Generator, *, whole: bool) -> list[float]:
    found = [*rng.uniform((0, 0), (60, 40)), *rng.uniform(0.5, 20, 2)]
    found[2] *= rng.random() > 0.05  # a box without an area
    return [float(round(value) if whole else value) for value in found]


def with_shape(rng: Generator, kind: str, row: dict[str, Any]) -> dict[str, Any]:
    """With a mask, of which some are empty, or keypoints, of which some are not labelled."""
    x, y, width, height = row["bbox"]
    if kind == "segm":
        mask = np.zeros((HEIGHT, WIDTH), np.uint8, order="F")
        if rng.random() > 0.05:
            mask[int(y) : int(y + height) + 1, int(x) : int(x + width) + 1] = 1
        row["segmentation"] = {"size": [HEIGHT, WIDTH], "counts": rle.encode(mask)["counts"].decode()}
    if kind == "keypoints":
        points = rng.uniform((x, y), (x + width + 1, y + height + 1), (len(SIGMAS), 2))
        seen = rng.integers(0, 3, len(SIGMAS))
        row["keypoints"] = np.column_stack([points, seen]).ravel().tolist()
        row["num_keypoints"] = int((seen > 0).sum())
    return row


def objects(rng: Generator, kind: str, image: int, *, whole: bool) -> list[dict[str, Any]]:
    rows = []
    for _ in range(int(rng.integers(0, 8))):
        row = {"image_id": image, "category_id": 1 if kind == "keypoints" else int(rng.choice([1, 2, 5]))}
        row |= {"bbox": box(rng, whole=whole), "iscrowd": int(rng.random() < 0.15)}
        row["area"] = (
            row["bbox"][2] * row["bbox"][3] * float(rng.choice([1, 100, 200]))
        )  # all of COCO's sizes
        row |= {"ignore": 1} if rng.random() < 0.1 else {}
        rows.append(with_shape(rng, kind, row))
    return rows


def answers(rng: Generator, kind: str, truth: list[dict[str, Any]], image: int, *, whole: bool) -> list[Any]:
    """Some near an object, some anywhere, now and then more than the evaluator takes; `whole`: many of one score."""
    rows = []
    for _ in range(int(rng.integers(0, 12 if rng.random() < 0.9 else 130))):
        row = {"image_id": image, "category_id": 1 if kind == "keypoints" else int(rng.choice([1, 2, 5]))}
        row["bbox"] = box(rng, whole=whole)
        if truth and rng.random() < 0.7:
            near = truth[int(rng.integers(len(truth)))]
            row |= {
                key: copy.deepcopy(near[key]) for key in ("category_id", "bbox", "keypoints") if key in near
            }
        row["score"] = float(rng.choice([0.25, 0.5]) if whole else rng.random())
        row |= {"iscrowd": 0, "area": row["bbox"][2] * row["bbox"][3]}
        rows.append(row if "keypoints" in row else with_shape(rng, kind, row))
    return rows


def case(kind: str, seed: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Contents of two files; of eight cases one has no object, one no detection and one neither."""
    rng, whole = default_rng([seed, len(kind)]), bool(seed % 2)
    images = [{"id": 1 + n, "height": HEIGHT, "width": WIDTH} for n in range(int(rng.integers(1, 5)))]
    truth = [row for each in images for row in objects(rng, kind, each["id"], whole=whole)]
    found = [
        row
        for each in images
        for row in answers(
            rng, kind, [t for t in truth if t["image_id"] == each["id"]], each["id"], whole=whole
        )
    ]
    truth, found = ([] if seed % 8 in (5, 7) else truth), ([] if seed % 8 in (6, 7) else found)
    for rows in (truth, found):
        for number, row in enumerate(rows, 1):
            row["id"] = number
    classes = [{"id": n, "name": str(n)} for n in ([1] if kind == "keypoints" else [1, 2, 5])]
    shared = {"images": images, "categories": classes}
    return {**shared, "annotations": truth}, {**shared, "annotations": found}


@needs_faster
@pytest.mark.parametrize("kind", KINDS)
def test_the_figures_are_those_of_pycocotools(kind: str) -> None:
    sigmas = SIGMAS if kind == "keypoints" else None
    counted = 0
    for seed in range(16):
        files = case(kind, seed)
        plain = evaluated(*copy.deepcopy(files), kind, sigmas=sigmas)
        fast = evaluated(*copy.deepcopy(files), kind, evaluator="faster_coco_eval", sigmas=sigmas)
        np.testing.assert_allclose(fast.stats, plain.stats, atol=1e-12, rtol=0, err_msg=f"case {seed}")
        np.testing.assert_allclose(fast.eval["precision"], plain.eval["precision"], atol=1e-12, rtol=0)
        counted += plain.stats[0] > 0
    assert counted > 6  # not all of them nothing


def test_a_missing_evaluator_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faster_coco_eval", None)
    with pytest.raises(ConfigError, match=r"metrics\.evaluator: .* pip install 'dvsn\[coco\]'"):
        DetectionScore(evaluator="faster_coco_eval")


def test_what_pycocotools_says_of_nothing() -> None:
    """-1 without an object, 0 without a detection."""
    nothing, objects_alone = case("bbox", 7), case("bbox", 6)
    assert set(evaluated(*nothing, "bbox").stats.tolist()) == {-1.0}
    assert evaluated(*objects_alone, "bbox").stats[0] == 0
