"""Segmentation scores against counts by hand and by brute force."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dvsn.metrics.segmentation import (
    BoundaryScore,
    SegmentationScore,
    boundary_f_score,
    confusion_matrix,
    outline,
)


def brute_force(predicted: np.ndarray, target: np.ndarray, classes: int, absent: str) -> float:
    """Mean IoU by counting pixels one class at a time."""
    values = []
    for each in range(classes):
        valid = target != 255
        union = int((((predicted == each) | (target == each)) & valid).sum())
        if union:
            values.append(int(((predicted == each) & (target == each)).sum()) / union)
        elif absent == "zero":
            values.append(0.0)
    return float(np.mean(values))


def test_two_pictures_by_hand() -> None:
    score = SegmentationScore(classes=3)
    score.update(torch.tensor([[[0, 0], [1, 1]]]), torch.tensor([[[0, 1], [1, 255]]]))
    score.update(torch.tensor([[[1, 0], [0, 0]]]), torch.tensor([[[0, 0], [0, 0]]]))
    # true 0: four right, one called 1; true 1: one right, one called 0; class 2 is nowhere
    assert score.confusion.tolist() == [[4, 1, 0], [1, 1, 0], [0, 0, 0]]
    values = score.compute()
    assert float(values["miou"]) == pytest.approx((4 / 6 + 1 / 3) / 2)
    assert float(values["dice"]) == pytest.approx((8 / 10 + 2 / 4) / 2)
    assert float(values["class_accuracy"]) == pytest.approx((4 / 5 + 1 / 2) / 2)
    assert float(values["pixel_accuracy"]) == pytest.approx(5 / 7)
    zero = SegmentationScore(classes=3, absent="zero")
    zero.confusion = score.confusion
    assert float(zero.compute()["miou"]) == pytest.approx((4 / 6 + 1 / 3) / 3)


@pytest.mark.parametrize("absent", ["skip", "zero"])
@pytest.mark.parametrize("seed", range(6))
def test_miou_equals_a_brute_force_count(seed: int, absent: str) -> None:
    random = np.random.default_rng(seed)
    classes = 12
    target = random.integers(0, 8, (3, 31, 47)).astype(np.uint8)  # classes 8..11 are in no label
    predicted = random.integers(0, 10, target.shape).astype(np.uint8)  # 10 and 11 in no prediction either
    target[random.random(target.shape) < 0.2] = 255
    score = SegmentationScore(classes=classes, absent=absent)
    for number in range(3):  # as batches of one, and one matrix over all of them
        score.update(
            torch.from_numpy(predicted[number : number + 1]), torch.from_numpy(target[number : number + 1])
        )
    expected = brute_force(predicted, target, classes, absent)
    assert float(score.compute()["miou"]) == pytest.approx(expected, abs=1e-6)


def test_the_data_set_is_scored_and_not_the_mean_of_its_pictures() -> None:
    score = SegmentationScore(classes=2)
    score.update(torch.zeros(1, 1, 10, dtype=torch.uint8), torch.zeros(1, 1, 10, dtype=torch.uint8))
    score.update(torch.zeros(1, 1, 10, dtype=torch.uint8), torch.ones(1, 1, 10, dtype=torch.uint8))
    assert float(score.compute()["miou"]) == pytest.approx((10 / 20 + 0) / 2)  # by picture: (1 + 0) / 2


def test_nothing_scored_is_zero_and_not_nan() -> None:
    score = SegmentationScore(classes=2)
    score.update(torch.zeros(1, 2, 2, dtype=torch.uint8), torch.full((1, 2, 2), 255, dtype=torch.uint8))
    assert all(float(value) == 0 for value in score.compute().values())


def test_many_pixels_are_counted_exactly() -> None:
    """float32 counts stop at 2 ** 24."""
    score = SegmentationScore(classes=2)
    score.confusion = torch.tensor([[2**24 + 1, 0], [1, 0]])
    score.update(torch.zeros(1, 1, 1, dtype=torch.uint8), torch.zeros(1, 1, 1, dtype=torch.uint8))
    assert score.confusion.tolist() == [[2**24 + 2, 0], [1, 0]]


def test_rows_are_the_truth() -> None:
    matrix = confusion_matrix(torch.tensor([1, 1, 0]), torch.tensor([0, 0, 0]), classes=2)
    assert matrix.tolist() == [[1, 2], [0, 0]]


def test_outlines_need_a_valid_neighbour_of_another_class() -> None:
    ids = np.array([[0, 0, 1, 1, 255]], np.uint8)
    valid = ids != 255
    assert outline((ids == 0) & valid, valid).tolist() == [[False, True, False, False, False]]
    assert outline((ids == 1) & valid, valid).tolist() == [[False, False, True, False, False]]


def test_boundary_score_by_hand() -> None:
    target = np.zeros((20, 20), np.uint8)
    target[:, 10:] = 1
    moved = np.zeros_like(target)
    moved[:, 12:] = 1  # two pixels too far: the outlines are 2 away from the label's
    reach = 2 / np.hypot(20, 20)
    assert boundary_f_score(target, target, tolerance=0.0) == 1.0
    assert boundary_f_score(moved, target, tolerance=reach * 1.001) == 1.0
    assert boundary_f_score(moved, target, tolerance=reach * 0.999) == 0.0
    half = target.copy()
    half[:10] = 0  # the upper half of class 1 is missing: half of its outline, and a new one across
    exact = boundary_f_score(half, target, tolerance=0.0)
    assert exact is not None and 0 < exact < 1
    assert boundary_f_score(target, np.full_like(target, 255)) is None
    assert boundary_f_score(np.ones_like(target), np.ones_like(target)) == 1.0  # no outline anywhere


def test_the_mean_over_pictures() -> None:
    target = torch.zeros(1, 20, 20, dtype=torch.uint8)
    target[..., 10:] = 1
    moved = torch.zeros_like(target)
    moved[..., 15:] = 1
    score = BoundaryScore(classes=2, tolerance=0.0)
    score.update(torch.cat([target, moved]), torch.cat([target, target]))
    score.update(target, torch.full_like(target, 255))  # counts for nothing
    assert float(score.compute()["boundary_f"]) == pytest.approx(0.5)
