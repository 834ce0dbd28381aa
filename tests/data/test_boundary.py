"""Outlines of label maps, by hand and as the facts state them."""

from __future__ import annotations

import numpy as np
import pytest

from dvsn.data.boundary import boundary_map
from dvsn.errors import ConfigError, DataError


def outlines(picture: str, **options: int) -> list[str]:
    """A map drawn with one digit a pixel, and its outlines drawn with # and a dot."""
    ids = np.array([[int(digit) for digit in row] for row in picture.split()], np.uint8)
    found = boundary_map(ids, **options)
    assert found.dtype == np.uint8 and set(np.unique(found)) <= {0, 1} and found.shape == ids.shape
    return ["".join(".#"[pixel] for pixel in row) for row in found]


HALVES = "\n".join(["000000111111"] * 4)


def test_two_halves_by_hand() -> None:
    """Of the two pixels with the same gradient, columns 5 and 6, one stays; the square adds 1 left and 2 right."""
    assert outlines(HALVES, kernel=1) == [".....#......"] * 4
    assert outlines(HALVES, kernel=2) == [".....##....."] * 4
    assert outlines(HALVES, kernel=3) == ["....###....."] * 4
    assert outlines(HALVES) == ["....####...."] * 4  # 4 is the default


def test_the_square_grows_up_and_left_by_one_and_down_and_right_by_two() -> None:
    ids = np.zeros((15, 15), np.uint8)
    ids[6:9, 6:9] = 9
    thin, thick = boundary_map(ids, kernel=1), boundary_map(ids, kernel=4)
    expected = np.zeros_like(thin)
    for y, x in np.argwhere(thin):
        expected[max(y - 1, 0) : y + 3, max(x - 1, 0) : x + 3] = 1
    assert thin.sum() > 4
    np.testing.assert_array_equal(thick, expected)


def test_an_object_two_pixels_wide_has_an_outline_on_one_side() -> None:
    ids = np.zeros((9, 12), np.uint8)
    ids[:, 5:7] = 3
    columns = np.flatnonzero(boundary_map(ids, kernel=1).any(axis=0))
    assert len(columns) == 1


def test_the_numbers_of_the_classes_matter_only_where_borders_are_close() -> None:
    """Beside a steeper neighbour Canny drops a border: |2 - 1| < 2 - 0 here, and 3 - 1 > 1 - 0 there."""
    assert outlines("\n".join(["00022111"] * 4), kernel=1) == ["..#....."] * 4
    assert outlines("\n".join(["00011333"] * 4), kernel=1) == ["..#.#..."] * 4
    two = np.zeros((6, 8), np.uint8)
    two[:, 4:] = 1
    for value in (2, 18, 255):  # an ignored region has an outline, like any other
        np.testing.assert_array_equal(boundary_map(two * value), boundary_map(two))


def test_the_frame_is_cleared_before_the_square_is_drawn() -> None:
    ids = np.zeros((20, 20), np.uint8)
    ids[:, 6:] = 1  # an outline at column 5 or 6
    column = int(np.flatnonzero(boundary_map(ids, kernel=1).any(axis=0))[0])
    framed = boundary_map(ids, kernel=4, frame=column)  # the outline itself lies inside
    assert framed[10, column - 1 : column + 3].all()
    assert not framed[: column - 1].any() and not framed[-column + 2 :].any()
    assert not boundary_map(ids, kernel=4, frame=column + 1).any()
    assert not boundary_map(ids, frame=10).any() and not boundary_map(ids, frame=500).any()


@pytest.mark.parametrize("value", [0, 7, 255])
def test_a_map_of_one_class_has_none(value: int) -> None:
    assert not boundary_map(np.full((8, 9), value, np.uint8), frame=2).any()


def test_the_label_is_left_as_it_was_and_may_be_a_view() -> None:
    ids = np.random.default_rng(0).integers(0, 3, (30, 40), dtype=np.uint8).repeat(3, axis=1)
    view = ids[::-1, ::-1]
    before = view.copy()
    np.testing.assert_array_equal(boundary_map(view, frame=3), boundary_map(before, frame=3))
    np.testing.assert_array_equal(view, before)


def test_wrong_input_is_answered() -> None:
    ids = np.zeros((8, 8), np.uint8)
    for options in ({"kernel": 0}, {"frame": -1}):
        with pytest.raises(ConfigError, match="kernel of at least 1"):
            boundary_map(ids, **options)
    for wrong in (ids.astype(np.int64), np.zeros((8, 8, 3), np.uint8)):
        with pytest.raises(DataError, match="uint8"):
            boundary_map(wrong)
