"""Tversky, boundary and RMI losses, by hand and against independent forms; test_segmentation.py has what holds of all."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dvsn.errors import ConfigError
from dvsn.losses.overlap import Dice, Tversky
from dvsn.losses.region import BoundaryDistance, RegionMutualInformation, signed_distance
from tests.losses.test_segmentation import case, certain, labels, value


def test_tversky_by_hand() -> None:
    """Class 0: TP 0.5 + 0.25, FP 0.25, FN 0.5 + 0.75; class 1: TP 0.75, FP 1.25, FN 0.25; the last pixel is ignored."""
    logits, target = certain(0.5, 0.25, 0.25, 0.9), labels(0, 0, 1, 255)
    expected = [
        1 - (0.75 + 1) / (0.75 + 0.3 * 0.25 + 0.7 * 1.25 + 1),
        1 - (0.75 + 1) / (0.75 + 0.3 * 1.25 + 0.7 * 0.25 + 1),
    ]
    assert value(Tversky(), logits, target).item() == pytest.approx(sum(expected) / 2)
    squares = sum(each**2 for each in expected) / 2
    assert value(Tversky(gamma=2.0), logits, target).item() == pytest.approx(squares)


def test_a_miss_weighs_beta() -> None:
    """Only class 0 occurs: TP 0.75, FP 0, FN 1.25. Of both classes, class 1 has FP 1.25 and nothing else."""
    logits, target = certain(0.5, 0.25), labels(0, 0)
    of_0 = 1 - (0.75 + 1) / (0.75 + 0.9 * 1.25 + 1)
    assert value(Tversky(alpha=0.2, beta=0.9), logits, target).item() == pytest.approx(of_0)
    of_1 = 1 - 1 / (0.2 * 1.25 + 1)
    found = value(Tversky(alpha=0.2, beta=0.9, classes="all"), logits, target).item()
    assert found == pytest.approx((of_0 + of_1) / 2)


def test_tversky_with_halves_is_dice() -> None:
    """2 (TP + s) / (2 TP + FP + FN + 2 s)."""
    logits, target = case(4)
    half = value(Tversky(alpha=0.5, beta=0.5, smooth=0.5), logits, target)
    torch.testing.assert_close(half, value(Dice(smooth=1.0), logits, target))


def test_signed_distances_by_hand() -> None:
    inside = np.array([[0, 0, 1, 1, 1], [0, 0, 1, 1, 1], [0, 0, 1, 1, 1]], bool)
    assert signed_distance(inside)[1].tolist() == [2, 1, 0, -1, -2]
    corner = np.zeros((3, 3), bool)
    corner[0, 0] = True
    assert signed_distance(corner)[2, 2] == pytest.approx(math.sqrt(8))
    assert not signed_distance(np.ones((2, 2), bool)).any()


def test_boundary_by_hand() -> None:
    """Four pixels 0 0 1 1 in a row: class 0 has the distances -1 0 1 2, class 1 2 1 0 -1, with p of class 0 as given."""
    p = (0.9, 0.5, 0.25, 0.0 + 1e-9)
    of_0 = (-1 * p[0] + 0 * p[1] + 1 * p[2] + 2 * p[3]) / 4
    of_1 = (2 * (1 - p[0]) + 1 * (1 - p[1]) + 0 - 1 * (1 - p[3])) / 4
    found = value(BoundaryDistance(), certain(*p), labels(0, 0, 1, 1)).item()
    assert found == pytest.approx((of_0 + of_1) / 2, abs=1e-7)
    ignored = value(
        BoundaryDistance(), certain(*p), labels(0, 0, 1, 255)
    ).item()  # class 1 is one pixel: 2 1 0 (1)
    of_0, of_1 = (-1 * p[0] + 0 + 1 * p[2]) / 3, (2 * (1 - p[0]) + 1 * (1 - p[1])) / 3
    assert ignored == pytest.approx((of_0 + of_1) / 2, abs=1e-7)


def test_boundary_is_least_for_the_truth() -> None:
    target = torch.zeros(1, 8, 8, dtype=torch.long)
    target[:, 2:6, 3:7] = 1
    sure = 20.0 * F.one_hot(target, 2).movedim(-1, 1).double()
    assert value(BoundaryDistance(), sure, target) < value(BoundaryDistance(), 0 * sure, target)
    assert value(BoundaryDistance(), 0 * sure, target) < value(BoundaryDistance(), -sure, target)


def rmi_by_loops(logits: Tensor, target: Tensor, radius: int) -> float:
    """The formula with numpy, square by square."""
    total = 0.0
    for number, ids in enumerate(target.numpy()):
        for each in range(logits.shape[1]):
            p = np.where(ids == 255, 0, 1 / (1 + np.exp(-logits[number, each].numpy()))) + 1e-6
            y = (ids == each).astype(float)
            height, width = (side - radius + 1 for side in ids.shape)
            squares = [(i, j) for i in range(height) for j in range(width)]
            vectors = [
                np.array([m[i : i + radius, j : j + radius].ravel() for i, j in squares]).T for m in (y, p)
            ]
            y, p = (v - v.mean(axis=1, keepdims=True) for v in vectors)
            unit = 5e-4 * np.eye(radius**2)
            left = y @ y.T - y @ p.T @ np.linalg.inv(p @ p.T + unit) @ p @ y.T + unit
            total += 0.5 * math.log(np.linalg.det(left)) / radius**2 / len(target)
    return total


@pytest.mark.parametrize("radius", [1, 2, 3])
def test_rmi_is_the_formula(radius: int) -> None:
    logits, target = case(5, classes=3)
    found = value(RegionMutualInformation(radius=radius, pool=1), logits, target).item()
    assert found == pytest.approx(rmi_by_loops(logits, target, radius))


def test_rmi_of_one_number_by_hand() -> None:
    """Squares of one pixel, class 0 of two pixels 1 0 with sigmoids a, b: the sums of the centred are 1/2, (a-b)^2/2 and
    (a-b)/2; class 1 is the mirror image."""
    a, b = 0.8, 0.4
    logits = torch.tensor(
        [[[[math.log(4), math.log(2 / 3)]], [[math.log(2 / 3), math.log(4)]]]], dtype=torch.float64
    )
    left = 0.5 - ((a - b) / 2) ** 2 / ((a - b) ** 2 / 2 + 5e-4) + 5e-4
    found = value(RegionMutualInformation(radius=1, pool=1), logits, labels(0, 1)).item()
    assert found == pytest.approx(2 * 0.5 * math.log(left))


def test_rmi_pools_first() -> None:
    logits, target = case(6, size=(1, 12, 12), ignored=0.0)
    term, flat = RegionMutualInformation(pool=3, radius=2), RegionMutualInformation(pool=1, radius=2)
    small = F.avg_pool2d(logits.sigmoid(), 3, 3, padding=1)
    pooled = term._vectors(logits.sigmoid())
    torch.testing.assert_close(pooled, flat._vectors(small))
    assert torch.isfinite(value(term, logits, target))
    with pytest.raises(
        ConfigError, match="labels become 1x1 by pool=3, and a square of radius=2 does not fit"
    ):
        value(term, logits[..., :2, :2], target[..., :2, :2])


def test_rmi_is_lower_for_better_answers() -> None:
    _, target = case(7, ignored=0.0)
    truth = F.one_hot(target, 4).movedim(-1, 1).double() * 2 - 1
    noise = torch.randn(truth.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    worse, better = (
        value(RegionMutualInformation(pool=1), share * truth + noise, target) for share in (0.0, 6.0)
    )
    assert better < worse


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (Tversky, {"alpha": -1.0}, "Tversky: alpha must be finite and at least 0"),
        (Tversky, {"alpha": 0.0, "beta": 0.0}, "alpha and beta are both 0"),
        (Tversky, {"gamma": 0.0}, "Tversky: gamma must be"),
        (Tversky, {"classes": "some"}, "unknown classes='some'"),
        (RegionMutualInformation, {"radius": 0}, "radius must be at least 1"),
        (RegionMutualInformation, {"pool": 0}, "pool must be at least 1"),
    ],
)
def test_bad_options(make: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make(**options)
