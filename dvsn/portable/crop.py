"""From the box of a person or a face to the crop that the network sees, and back: geometry, in numpy and OpenCV alone.

A crop has a centre and an extent (width, height) in pixels of the picture, before it is resized and turned. Two
ways of counting pixels are in use, and weights are trained for one of them:

- `unbiased=False`: the box's centre goes to width / 2, and the zoom is crop width over extent width, on both axes.
  Published HRNet, SimpleBaseline and DARK weights want it (Sun et al., 2019, arXiv:1902.09212).
- `unbiased=True`: lengths are counted between pixel centres, as UDP does (Huang et al., 2020, arXiv:1911.07524): the
  centre goes to (width - 1) / 2 and each axis zooms by (side - 1) over extent. UDP's published code turns the other
  way round for the same sign of the angle; angles are drawn symmetrically, so nothing is lost.

A face is cut out as a square of whole pixels and resized; its points count from the crop's corner or between centres, see
`from_corner`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np

from dvsn.errors import DataError
from dvsn.geometry.head_angles import head_angles


def box_to_extent(
    box: Sequence[float] | np.ndarray, ratio: float, padding: float
) -> tuple[np.ndarray, np.ndarray]:
    """A box (x, y, width, height) -> centre (2,) and extent (2,), float64.

    The shorter side grows until width / height is `ratio`, then both are multiplied by `padding`.
    """
    x, y, width, height = (float(value) for value in box)
    centre = np.array([x + width / 2, y + height / 2])
    if width > ratio * height:
        height = width / ratio
    else:
        width = height * ratio
    return centre, np.array([width, height]) * padding


def crop_matrix(
    centre: Sequence[float] | np.ndarray,
    extent: Sequence[float] | np.ndarray,
    size: Sequence[int],
    *,
    rotation_degrees: float = 0.0,
    unbiased: bool = False,
) -> np.ndarray:
    """The (2, 3) float64 matrix from pixels of the picture to pixels of a crop of `size` (H, W).

    A positive rotation turns the content of the picture counter-clockwise.
    """
    height, width = size
    cos, sin = math.cos(math.radians(rotation_degrees)), math.sin(math.radians(rotation_degrees))
    rotate = np.array([[cos, sin], [-sin, cos]])
    if unbiased:
        zoom = np.array([(width - 1) / extent[0], (height - 1) / extent[1]])
        middle = np.array([(width - 1) / 2, (height - 1) / 2])
    else:
        zoom = np.full(2, width / extent[0])
        middle = np.array([width / 2, height / 2])
    linear = zoom[:, None] * rotate
    return np.column_stack([linear, middle - linear @ np.asarray(centre, np.float64)])


def invert(matrix: np.ndarray) -> np.ndarray:
    """The inverse of a (2, 3) map."""
    linear = np.linalg.inv(matrix[:, :2])
    return np.column_stack([linear, -linear @ matrix[:, 2]])


def move_points(points: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Points (..., 2) through a (2, 3) matrix."""
    moved: np.ndarray = points @ matrix[:, :2].T + matrix[:, 2]
    return moved


def person_frame(
    box: Sequence[float] | np.ndarray, size: Sequence[int], padding: float
) -> tuple[np.ndarray, np.ndarray]:
    """Centre and extent (width, height) of the crop of a box (x, y, width, height), for a network of `size` (H, W).

    Raises `DataError` for a box without an inside.
    """
    if not np.isfinite(box).all() or min(box[2], box[3]) <= 0:
        raise DataError(
            f"the box is {np.round(np.asarray(box, float), 2).tolist()} (x, y, width, height), expected sides above 0."
        )
    return box_to_extent(box, size[1] / size[0], padding)


# Faces -------------------------------------------------------------------------------------------------


def face_corners(box: Sequence[float] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The corners of a box (x, y, width, height). Raises `DataError` for one without an inside."""
    x, y, width, height = (float(value) for value in box)
    if not np.isfinite([x, y, width, height]).all() or min(width, height) <= 0:
        raise DataError(
            f"the box is {[round(value, 2) for value in (x, y, width, height)]} (x, y, width, height), expected "
            "sides above 0."
        )
    return np.array([x, y]), np.array([x + width, y + height])


def face_square(low: np.ndarray, high: np.ndarray, padding: float) -> tuple[np.ndarray, int]:
    """The upper left corner (2,), whole pixels, and the side of the square around what lies from `low` to `high`."""
    low, high = np.floor(low), np.floor(high)
    sides = high - low + 1
    side = max(1, int(padding * sides.max()))
    corner: np.ndarray = np.trunc(low + sides / 2).astype(int) - side // 2
    return corner, side


def square_matrix(
    corner: np.ndarray, side: float, size: Sequence[int], *, rotation_degrees: float = 0.0
) -> np.ndarray:
    """(2, 3) from picture to the crop of a square, both counted from the corners of their first pixels."""
    return crop_matrix(corner + side / 2, [side, side], size, rotation_degrees=rotation_degrees)


def cut_square(photo: np.ndarray, corner: np.ndarray, side: int, size: tuple[int, int]) -> np.ndarray:
    """The square of a picture, resized to `size` (H, W)."""
    return cv2.resize(cut(photo, corner, side), size[::-1], interpolation=cv2.INTER_LINEAR)


def between_centres(areas: np.ndarray) -> np.ndarray:
    """A (2, 3) map that counts from the corners of the first pixels, made to count from their centres."""
    return np.column_stack([areas[:, :2], areas[:, 2] + areas[:, :2] @ [0.5, 0.5] - 0.5])


def from_corner(size: float, side: float) -> float:
    """What `FaceCrop` adds to the pixel in which a point is drawn, to count it from the corner of a crop of `size` pixels a
    side, made of `side` pixels of the picture: half a crop pixel, minus half a picture pixel. In crop pixels."""
    return (1 - size / side) / 2


def cut(photo: np.ndarray, corner: np.ndarray, side: int) -> np.ndarray:
    """The square (side, side, 3) of a picture, black where it has none."""
    height, width = photo.shape[:2]
    (left, top), (right, bottom) = np.maximum(corner, 0), np.minimum(corner + side, (width, height))
    if (right - left, bottom - top) == (side, side):
        return photo[top:bottom, left:right]
    square = np.zeros((side, side, 3), np.uint8)
    if left < right and top < bottom:
        square[top - corner[1] : bottom - corner[1], left - corner[0] : right - corner[0]] = photo[
            top:bottom, left:right
        ]
    return square


def head_degrees(
    points: np.ndarray, inverse: np.ndarray, size: Sequence[int], *, centred: bool, head: Sequence[int]
) -> list[float]:
    """Pitch, yaw and roll in degrees of points (K, 2) in the picture, NaN where they are not known; `inverse` (2, 3) is the
    map to it from the crop of `size` (H, W). As in training they count from the crop's corner, also where the crop is
    `centred`. For `head` see `dvsn.geometry.head_angles`."""
    height, width = size
    inverse = np.asarray(inverse, np.float64)
    places = move_points(points, invert(inverse))
    if centred:
        places = places + from_corner(width, width * inverse[0, 0])
    angles = head_angles(places / [width, height], head=head)
    return [float("nan")] * 3 if angles is None else [float(angle) for angle in np.degrees(angles)]
