"""What is derived where a set of keypoints does not say it: mirror pairs of names, and that there are none."""

from __future__ import annotations

import numpy as np
import pytest

from dvsn.geometry.keypoints import KeypointSet


@pytest.mark.parametrize(
    ("names", "mirror"),
    [
        (["nose", "left_eye", "right_eye"], [0, 2, 1]),
        (["LEye", "REye", "kneeRight", "kneeLeft"], [1, 0, 3, 2]),
        (["mouth_right_corner", "chin", "mouth_left_corner"], [2, 1, 0]),
    ],
)
def test_pairs_are_what_left_and_right_in_names_tell(names: list[str], mirror: list[int]) -> None:
    found = KeypointSet(names=names)
    assert found.mirrors and found.mirror.tolist() == mirror


def test_without_pairs_and_sides_nothing_is_known_of_a_mirror() -> None:
    found = KeypointSet(names=["p0", "p1", "bright", "lefty"])
    assert not found.mirrors and not found.pairs
    np.testing.assert_array_equal(found.mirror, range(4))


def test_a_mirror_that_exchanges_none_is_said_or_plain() -> None:
    assert KeypointSet(names=["tip", "end"], pairs=[]).mirrors
    assert KeypointSet(names=["left_tip", "right_tip"], pairs=[]).mirror.tolist() == [0, 1]
    assert KeypointSet(names=["tip"]).mirrors  # alone it can only stay where it is
