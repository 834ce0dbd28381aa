"""The angles of a head from its landmarks: the pose of a mean face that fits 14 of them.

Angles are pitch, yaw and roll in radians: pitch > 0 looks down, yaw > 0 turns the nose to the left of the picture,
roll > 0 turns the head clockwise in the picture. A mirrored face has the same pitch, and the opposite yaw and roll.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

MODEL = -np.array(
    [
        [6.825897, 6.760612, 4.402142],  # brow on the left of the picture, outer end
        [1.330353, 7.122144, 6.903745],  # and inner end
        [-1.330353, 7.122144, 6.903745],  # brow on the right, inner end
        [-6.825897, 6.760612, 4.402142],  # and outer end
        [5.311432, 5.485328, 3.987654],  # eye on the left, outer corner
        [1.789930, 5.393625, 4.413414],  # and inner corner
        [-1.789930, 5.393625, 4.413414],  # eye on the right, inner corner
        [-5.311432, 5.485328, 3.987654],  # and outer corner
        [2.005628, 1.409845, 6.165652],  # nostril on the left
        [-2.005628, 1.409845, 6.165652],  # nostril on the right
        [2.774015, -2.080775, 5.048531],  # mouth corner on the left
        [-2.774015, -2.080775, 5.048531],  # mouth corner on the right
        [0.0, -3.116408, 6.097667],  # lower lip
        [0.0, -7.415691, 4.070434],  # chin
    ]
)
"""A mean face in the axes of a camera: x to the right of the picture, y down, z away from the viewer."""

SIDE = 256.0  # pixels of the camera's picture; it does not matter


def head_angles(
    points: np.ndarray, labelled: np.ndarray | None = None, *, head: Sequence[int]
) -> np.ndarray | None:
    """Landmarks (L, 2) as fractions of the sides of a square crop -> pitch, yaw, roll (3,) float32 in radians.

    `head`: the numbers of the 14 landmarks of `MODEL` (`KeypointSet.head`). None where one of them is not `labelled`
    (L,), or where no pose in front of the camera fits. Call it after augmentation: a turned crop has another roll.

    The camera sees the crop at an angle of view of 60 degrees. Guo et al., 2019, arXiv:1902.10859, section 3.2 fit 11
    points of a mean face by a rotation alone. Published codes solve as here, with three mistakes, so that their angles
    are no reference:

    - fractions are given to a camera of 256 pixels, so the whole face is one pixel in a corner;
    - the left nostril stands on the right one's side, which shifts yaw by 8 to 10 degrees;
    - the axes are left-handed, which puts the face behind the camera.
    """
    order = list(head)
    places = np.asarray(points, np.float64)[order]
    seen = np.ones(len(points), bool) if labelled is None else np.asarray(labelled) > 0
    if not seen[order].all() or not np.isfinite(places).all() or not np.ptp(places, axis=0).all():
        return None
    focal = SIDE / 2 / np.tan(np.pi / 6)
    camera = np.array([[focal, 0, SIDE / 2], [0, focal, SIDE / 2], [0, 0, 1]])
    try:
        solved, turn, shift = cv2.solvePnP(MODEL, places * SIDE, camera, None)
    except cv2.error:
        return None
    if not solved or not np.isfinite(turn).all() or not shift[2, 0] > 0:
        return None
    return to_angles(cv2.Rodrigues(turn)[0]).astype(np.float32)


def to_angles(rotation: np.ndarray) -> np.ndarray:
    """A rotation (3, 3) of camera axes -> pitch, yaw, roll (3,): about x first, then y, then z."""
    r = rotation
    pitch = np.arctan2(r[2, 1], r[2, 2])
    yaw = np.arctan2(-r[2, 0], np.hypot(r[2, 1], r[2, 2]))
    return np.array([pitch, yaw, np.arctan2(r[1, 0], r[0, 0])])
