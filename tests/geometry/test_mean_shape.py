"""Which points a mirror exchanges, found in shapes alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml

from dvsn.config.menu import conf_dir
from dvsn.geometry.mean_shape import mean_shape, mirror_pairs

FACE = np.array([[-2.0, -1], [2, -1], [0, 0], [-1, 1], [1, 1], [0, 2]])


def turned(shape: np.ndarray, count: int = 40, noise: float = 0.02) -> np.ndarray:
    """Copies that are turned by some degrees, scaled, moved and disturbed."""
    random = np.random.default_rng(0)
    angles = np.radians(random.normal(0, 10, count))
    turns = np.array([[np.cos(angles), -np.sin(angles)], [np.sin(angles), np.cos(angles)]]).transpose(2, 1, 0)
    shapes = shape[None] @ turns * random.uniform(20, 60, (count, 1, 1)) + random.uniform(
        0, 500, (count, 1, 2)
    )
    return np.asarray(shapes + noise * 40 * random.standard_normal(shapes.shape))


def test_the_mean_is_the_shape() -> None:
    wanted = FACE - FACE.mean(axis=0)
    np.testing.assert_allclose(mean_shape(turned(FACE, noise=0)), wanted / np.linalg.norm(wanted), atol=0.05)


def test_pairs_of_a_face_the_right_one_of_the_picture_first() -> None:
    assert mirror_pairs(turned(FACE)) == [(1, 0), (4, 3)]


def test_a_shape_that_is_not_its_mirror_image_has_none() -> None:
    crooked = np.array([[0.0, 0], [1, 0], [2, 0.5], [3, 2], [3.2, 4]])
    assert mirror_pairs(turned(crooked)) is None
    assert mirror_pairs(turned(FACE, count=3)) is None  # too few tell


@pytest.mark.parametrize("name", ["_points68", "_points98"])
def test_pairs_of_known_sets_are_found_again(name: str) -> None:
    """A half of a face with its mirror image, in the order of the shipped set."""
    node = yaml.safe_load(Path(conf_dir(), "data", f"{name}.yaml").read_text())["keypoints"]
    random, count = np.random.default_rng(1), len(node["names"])
    shape = np.stack([np.zeros(count), random.uniform(-3, 3, count)], axis=1)
    pairs = [(int(a[1:]), int(b[1:])) for a, b in node["pairs"]]
    for one, other in pairs:
        shape[one] = random.uniform((0.2, -3), (3, 3))
        shape[other] = shape[one] * [-1, 1]
    assert {frozenset(pair) for pair in mirror_pairs(turned(shape, noise=0.001)) or []} == set(
        map(frozenset, pairs)
    )
