"""Sets of keypoints: numbers for names, the mirror, what is derived from names, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dvsn.errors import ConfigError
from dvsn.geometry.keypoints import HEAD_POINTS, KeypointSet


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


NAMES = ["nose", "left_eye", "right_eye"]


def test_names_become_numbers() -> None:
    found = KeypointSet(
        names=NAMES, pairs=[["left_eye", "right_eye"]], skeleton=[["nose", "left_eye"]], upper_body=["nose"],
        sigmas=[0.1, 0.2, 0.3],
    )  # fmt: skip
    assert len(found) == 3 and found.number("right_eye") == 2
    assert found.mirror.tolist() == [0, 2, 1] and found.skeleton == ((0, 1),) and found.upper_body == (0,)
    assert found.sigmas == (0.1, 0.2, 0.3) and found.joint_weights == () and found.head == ()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pairs": [["nose", "left_eye"], ["left_eye", "right_eye"]]}, r"pairs: left_eye is in two pairs"),
        ({"pairs": [["nose", "nose"]]}, r"pairs: .*two different names"),
        ({"pairs": [["nose", "left_ey"]]}, r"pairs: .*'left_ey'. Did you mean 'left_eye'"),
        ({"pairs": [["nose", "left_eye", "right_eye"]]}, r"pairs: .*two different names"),
        ({"names": ["nose", "nose"]}, r"names: .*each once"),
        ({"sigmas": [0.1, 0.2]}, r"sigmas: found 2 numbers, expected 3"),
        ({"joint_weights": [1, 1, 0]}, r"joint_weights: .*above 0"),
        ({"head": ["nose"]}, rf"head: found 1 points, expected {HEAD_POINTS}"),
    ],
)
def test_what_is_no_set(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=rf"data\.keypoints\.{message}"):
        KeypointSet(**{"names": NAMES, **options})
