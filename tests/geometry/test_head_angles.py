"""Angles of heads: of faces whose pose is known, and where there are none."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from dvsn.geometry.head_angles import MODEL, head_angles, to_angles
from dvsn.portable.draw import to_rotation

HEAD = range(14)


def drawn(angles: tuple[float, float, float], shift: tuple[float, float, float] = (0, 0, 30)) -> np.ndarray:
    """The landmarks (14, 2) of the mean face, turned and moved, by a camera with an angle of view of 60 degrees."""
    turned = MODEL @ to_rotation(angles).T + shift
    return 0.5 + turned[:, :2] / turned[:, 2:] / (2 * np.tan(np.pi / 6))


@pytest.mark.parametrize(
    "angles", list(itertools.product((-0.3, 0.0, 0.4), (-0.6, 0.0, 0.5), (-0.5, 0.0, 0.7)))
)
def test_a_turned_face_has_its_angles(angles: tuple[float, float, float]) -> None:
    found = head_angles(drawn(angles, (1.5, -2.0, 40)), head=HEAD)
    assert found is not None and found.dtype == np.float32
    np.testing.assert_allclose(found, angles, atol=2e-3)


def test_rotations_by_hand() -> None:
    """A roll of 90 degrees takes x to y; a yaw takes z to x; a pitch takes y to z."""
    x, y, z = np.eye(3)
    quarter = np.pi / 2
    np.testing.assert_allclose(to_rotation([0, 0, quarter]) @ x, y, atol=1e-12)
    np.testing.assert_allclose(to_rotation([0, quarter, 0]) @ z, x, atol=1e-12)
    np.testing.assert_allclose(to_rotation([quarter, 0, 0]) @ y, z, atol=1e-12)
    for angles in itertools.product((-1.2, 0.3), (-1.0, 0.8), (-2.0, 1.5)):
        np.testing.assert_allclose(to_angles(to_rotation(angles)), angles, atol=1e-12)


def test_faces_without_angles() -> None:
    points = drawn((0.1, 0.2, 0.3))
    labelled = np.ones(14)
    assert head_angles(points, labelled, head=HEAD) is not None
    labelled[13] = 0
    assert head_angles(points, labelled, head=HEAD) is None
    assert head_angles(np.where(np.arange(14)[:, None] == 3, np.nan, points), head=HEAD) is None
    assert head_angles(np.full((14, 2), 0.5), head=HEAD) is None  # all at one place
