"""Skeletons and boxes: on the right pixels, in the right colours, at any size, whatever the points."""

from __future__ import annotations

import numpy as np
import pytest

from dvsn.geometry.keypoints import KeypointSet
from dvsn.portable.draw import (
    AXES,
    draw_axes,
    draw_boxes,
    draw_head,
    draw_skeleton,
    joint_colours,
    line_width,
    sides,
)

NAMES = ["nose", "right_hand", "left_hand"]
SKELETON = [["nose", "left_hand"], ["nose", "right_hand"], ["left_hand", "right_hand"]]


def keypoints(pairs: list[list[str]] | None = None) -> KeypointSet:
    return KeypointSet(names=NAMES, pairs=pairs or [["right_hand", "left_hand"]], skeleton=SKELETON)


def canvas(height: int, width: int) -> np.ndarray:
    return np.full((height, width, 3), 128, np.uint8)


def test_sides_are_known_by_name_and_else_by_place_in_the_pair() -> None:
    assert sides(keypoints()) == ["middle", "right", "left"]
    plain = KeypointSet(names=["a", "b", "c"], pairs=[["c", "b"]])
    assert sides(plain) == ["middle", "right", "left"]
    middle, right, left = joint_colours(keypoints())
    assert left[0] > 200 > left[2]  # warm
    assert right[2] > 200 > right[0]  # cold
    assert middle[1] > max(middle[0], middle[2])


@pytest.mark.parametrize("side", [150, 2000])
def test_limbs_and_joints_lie_where_the_points_are(side: int) -> None:
    picture, points = canvas(side, side), np.array([[0.5, 0.2], [0.2, 0.8], [0.8, 0.8]]) * side
    draw_skeleton(picture, points, np.ones(3), keypoints())
    colours = np.array(joint_colours(keypoints()), int)
    for (x, y), colour in zip(points.round().astype(int), colours, strict=True):
        assert np.abs(picture[y, x] - colour).max() <= 8
    x, y = (points[0] + points[2]) / 2
    assert np.abs(picture[round(y), round(x)].astype(int) - colours[2]).max() <= 40  # the left side's colour
    painted = (picture != 128).any(axis=2)
    assert 0.005 < painted.mean() < 0.2
    assert not painted[:, : side // 10].any() and not painted[: side // 10].any()


def test_what_is_below_the_threshold_or_not_a_number_is_left_out() -> None:
    points = np.array([[75.0, 30], [30, 120], [120, 120]])
    alone, picture = canvas(150, 150), canvas(150, 150)
    draw_skeleton(alone, points, np.array([0.9, 0.2, 0.1]), keypoints(), width=2)
    assert (alone[100:] == 128).all() and (alone[30, 75] != 128).any()
    draw_skeleton(picture, points * [[1], [np.nan], [1]], np.array([0.9, 1.0, 0.1]), keypoints(), width=2)
    np.testing.assert_array_equal(picture, alone)
    draw_skeleton(picture := canvas(9, 9), points, np.zeros(3), keypoints())
    assert (picture == 128).all()


def test_points_far_outside_of_the_picture_do_no_harm() -> None:
    picture = canvas(60, 80)
    draw_skeleton(picture, np.array([[40.0, 30], [1e12, 30], [-1e12, 30]]), np.ones(3), keypoints(), width=3)
    assert (picture[30] != 128).any(axis=1).all()
    assert (picture[:20] == 128).all()


def test_the_line_grows_with_the_person_within_limits() -> None:
    widths = [line_width(np.array([[0.0, 0.0], [1.0, length]])) for length in (5, 210, 99999)]
    assert widths == [1.2, 3.0, 14.0]


def test_boxes_are_drawn_with_labels_that_stay_inside() -> None:
    picture = canvas(200, 300)
    draw_boxes(picture, np.array([[20.0, 50, 90, 150], [250, 0, 299, 40]]), ["car", "person"], [0.5, 0.99])
    assert (
        (picture[100, 20] != 128).any()
        and (picture[150, 50] != 128).any()
        and (picture[100, 90] != 128).any()
    )
    assert (picture[100, 55] == 128).all()
    assert tuple(picture[100, 20]) != tuple(picture[20, 250])  # a colour for each label
    red = canvas(200, 300)
    draw_boxes(red, np.array([[20.0, 50, 90, 150]]), colours=[(255, 0, 0)])
    assert tuple(red[100, 20]) == (255, 0, 0)
    draw_boxes(red, np.zeros((0, 4)))
    draw_boxes(red, np.array([[np.nan, 0, 1, 1]]))


def test_many_keypoints_have_finer_lines_and_dots_and_lines_go_alone() -> None:
    points = np.array([[0.0, 0.0], [1.0, 210.0]])
    assert line_width(points, 17) == line_width(points, 3) == 3.0
    assert line_width(points, 68) == pytest.approx(1.5)
    corners = np.array([[75.0, 30], [30, 120], [120, 120]])
    both, dots, lines = canvas(150, 150), canvas(150, 150), canvas(150, 150)
    draw_skeleton(both, corners, np.ones(3), keypoints(), width=3)
    draw_skeleton(dots, corners, np.ones(3), keypoints(), width=3, lines=False)
    draw_skeleton(lines, corners, np.ones(3), keypoints(), width=3, dots=False)
    assert (dots[75, 52] == 128).all() and (lines[75, 52] != 128).any()  # the middle of a limb
    assert (dots[30, 75] == both[30, 75]).all() and (dots[120, 75] == 128).all()


def axis_end(picture: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    """Where a colour is farthest from the picture's middle, as (x, y) from there; (0, 0) where it is not."""
    rows, columns = np.nonzero((np.abs(picture.astype(int) - colour) < 30).all(axis=2))
    places = np.column_stack([columns, rows]) - 100
    return places[np.argmax((places**2).sum(axis=1))] if len(places) else np.zeros(2, int)


@pytest.mark.parametrize(
    ("degrees", "side", "down", "front"),
    [
        ((0, 0, 0), (80, 0), (0, 80), (0, 0)),
        ((0, 30, 0), (69.3, 0), (0, 80), (-40, 0)),  # the nose to the left of the picture
        ((0, -90, 0), (0, 0), (0, 80), (80, 0)),
        ((30, 0, 0), (80, 0), (0, 69.3), (0, 40)),  # looks down: the nose is lower, the chin nearer
        ((-90, 0, 0), (80, 0), (0, 0), (0, -80)),
        ((0, 0, 90), (0, 80), (-80, 0), (0, 0)),  # clockwise: the chin at the left
        ((0, 30, 90), (0, 69.3), (-80, 0), (0, -40)),  # turned to what is up now
    ],
    ids=str,
)
def test_a_heads_axes_point_where_it_looks(
    degrees: tuple[int, int, int],
    side: tuple[float, float],
    down: tuple[float, float],
    front: tuple[float, float],
) -> None:
    picture = canvas(200, 200)
    draw_axes(picture, np.array([100.0, 100.0]), np.radians(degrees), 80)
    for colour, expected in zip(AXES, (side, down, front), strict=True):
        np.testing.assert_allclose(axis_end(picture, colour), expected, atol=5)


def test_the_nearest_axis_is_on_top_and_what_is_not_known_is_not_drawn() -> None:
    for pitch, row, colour in ((45, 130, AXES[2]), (-135, 70, AXES[1])):  # down and front lie on one line
        picture = canvas(200, 200)
        draw_axes(picture, np.array([100.0, 100.0]), np.radians([pitch, 0, 0]), 80)
        assert tuple(picture[row, 100]) == colour
    blank = canvas(200, 200)
    draw_axes(blank, np.array([100.0, 100.0]), np.full(3, np.nan), 80)
    draw_axes(blank, np.array([np.nan, 100.0]), np.zeros(3), 80)
    draw_head(blank, np.zeros((3, 2)), np.zeros(3), keypoints())
    assert (blank == 128).all()
    draw_axes(blank, np.array([1e9, 1e9]), np.zeros(3), 1e9)


def test_a_face_has_its_axes_on_the_nose() -> None:
    names = [f"p{number}" for number in range(14)]
    face = KeypointSet(names=names, head=names)
    points = np.full((14, 2), 100.0)
    points[8:10], points[13] = [[95.0, 110], [105, 110]], [100, 180]
    picture = canvas(200, 200)
    draw_head(picture, points, np.zeros(3), face)
    end = axis_end(picture, AXES[0])
    np.testing.assert_allclose(end, [40, 10], atol=3)  # half of the 80 from brow to chin
