"""Heads and faces of 98 landmarks: the face's frame (x image right, y down, z to the viewer when it looks at
us) in units of half its width.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from dvsn.data.street.canvas import Canvas, piece
from dvsn.data.street.geometry import convex_hull, hull
from dvsn.data.street.light import Color, mix, tint
from dvsn.data.street.walkers import Walker

EARS = np.array(
    [[-1.04, 0.22, 0.05], [1.04, 0.22, 0.05]]
)  # image left, image right of a face that looks at us
FOREHEAD = np.array(
    [[np.cos(a), -0.05 - 1.02 * np.sin(a), 0.75 * np.sin(a) ** 0.5 + 0.35] for a in np.linspace(0, np.pi, 9)]
)


def head_unit(walker: Walker) -> float:
    """Half the width of the face in metres."""
    return 0.043 * min(walker.stature, 1.75) + 0.002


def head_rotation(walker: Walker) -> np.ndarray:
    """(3, 3) from the face's frame (x image right, y down, z to the viewer when it looks at us) to world."""
    pitch, yaw, roll = walker.gaze
    turn = walker.heading - np.pi + yaw  # 0 looks straight at the camera
    cp, sp, cr, sr = np.cos(pitch), np.sin(pitch), np.cos(roll), np.sin(roll)
    tilt = np.array([[1, 0, 0], [0, cp, sp], [0, -sp, cp]])  # nods: positive looks down
    lean = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    ct, st = np.cos(turn), np.sin(turn)
    spin = np.array([[ct, 0, -st], [0, 1, 0], [st, 0, ct]])
    flip = np.diag([1.0, -1.0, -1.0])  # face axes to world axes
    return flip @ spin @ tilt @ lean


def face_model(walker: Walker) -> np.ndarray:
    """The 98 WFLW landmarks in the face's frame, (98, 3), in units of half the face's width."""
    points = np.zeros((98, 3))

    def depth(x: np.ndarray) -> np.ndarray:
        return 1.12 * np.sqrt(np.maximum(0.0, 1 - (x / 1.15) ** 2))

    turn = np.linspace(0, np.pi, 33)
    jaw_x = (
        -np.cos(turn) * (1 - 0.10 * np.sin(turn) ** 2) * np.where(np.abs(np.cos(turn)) < 0.9, walker.jaw, 1.0)
    )
    jaw_x = np.clip(jaw_x, -1, 1)
    jaw_y = 0.02 + 1.5 * np.sin(turn) ** 0.9 * (1 - 0.06 * np.abs(np.cos(turn)))
    points[0:33] = np.stack((jaw_x, jaw_y, 0.85 * depth(jaw_x)), axis=-1)
    brow = -0.36 + walker.brow
    upper = np.array([[-0.80, 0.10], [-0.66, -0.05], [-0.50, -0.10], [-0.33, -0.09], [-0.16, -0.03]])
    lower = np.array([[-0.17, 0.07], [-0.34, 0.02], [-0.50, 0.01], [-0.66, 0.05]])
    left = np.concatenate((upper, lower)) + np.array([0, brow])
    points[33:42, :2] = left
    mirror = left * (-1, 1)
    points[42:51, :2] = mirror[[4, 3, 2, 1, 0, 8, 7, 6, 5]]
    points[33:51, 2] = depth(points[33:51, 0]) + 0.02
    points[51:55] = np.array([[0, 0.0, 1.16], [0, 0.2, 1.26], [0, 0.4, 1.38], [0, 0.58, 1.46]])
    points[55:60] = np.array(
        [[-0.24, 0.70, 1.14], [-0.12, 0.75, 1.22], [0, 0.78, 1.26], [0.12, 0.75, 1.22], [0.24, 0.70, 1.14]]
    )
    open_eye = 0.105
    eye = np.array(
        [
            [-0.215, 0.01],
            [-0.11, -0.8 * open_eye],
            [0, -open_eye],
            [0.11, -0.75 * open_eye],
            [0.2, 0.02],
            [0.11, 0.6 * open_eye],
            [0, 0.75 * open_eye],
            [-0.11, 0.62 * open_eye],
        ]
    )
    points[60:68, :2] = eye + np.array([-0.43, 0.0])
    points[68:76, :2] = (eye * (-1, 1) + np.array([0.43, 0.0]))[[4, 3, 2, 1, 0, 7, 6, 5]]
    points[60:76, 2] = depth(points[60:76, 0]) - 0.06
    points[[96, 97]] = np.array([[-0.43, -0.005, 1.02], [0.43, -0.005, 1.02]])
    corner = -0.07 * walker.smile
    gap = 0.10 * min(1.5, walker.mouth)
    half = 0.36 + 0.04 * walker.smile
    x = np.array([-1, -0.6, -0.25, 0, 0.25, 0.6, 1]) * half
    top = np.array([corner, -0.075, -0.115, -0.09, -0.115, -0.075, corner])
    points[76:83, :2] = np.stack((x, 1.06 + top), axis=-1)
    points[83:88, :2] = np.stack(
        (x[5:0:-1], 1.06 + gap + np.array([0.07, 0.115, 0.13, 0.115, 0.07])), axis=-1
    )
    inner = np.array([-0.86, -0.4, 0, 0.4, 0.86]) * half
    points[88:93, :2] = np.stack((inner, 1.06 + np.array([corner, -0.02, -0.015, -0.02, corner])), axis=-1)
    points[93:96, :2] = np.stack((inner[3:0:-1], 1.06 + gap + np.array([0.02, 0.025, 0.02])), axis=-1)
    points[76:96, 2] = depth(points[76:96, 0]) + 0.06
    points[16, 2] = points[15:18, 2].mean()
    return points


def paint_head(
    canvas: Canvas, walker: Walker, center: np.ndarray, part: int, skin: Color
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Skull, face and features from the 98 landmarks. Returns landmarks (98, 2), ears (2, 2), gaze (3,)."""
    camera, light = canvas.camera, canvas.light
    unit, turn = head_unit(walker), head_rotation(walker)

    def place(points: np.ndarray) -> np.ndarray:
        return camera.project(center + unit * np.asarray(points) @ turn.T)

    points, ears = place(face_model(walker)), place(EARS)
    gaze = turn @ np.array([0.0, 0.0, 1.0])
    size = unit * camera.focal / walker.z
    hair = light.shade(walker.hair)
    bare, covered = piece(part, "skin"), piece(part, "hair")
    crown = place(np.array([[0, -0.35, -0.12]]))[0]
    skull = hull(np.stack((crown, place(np.array([[0, 0.15, -0.2]]))[0])), np.array([1.17, 1.08]) * size, 20)
    if walker.long_hair:
        mane = place(np.array([[-0.45, 1.6, -0.55], [0.45, 1.6, -0.55], [0, 0.2, -0.25]]))
        canvas.capsule(mane, np.array([0.55, 0.55, 1.15]) * size, tint(hair, 0.85), covered)
    canvas.convex(skull, hair, covered)
    show_face = gaze[2] < 0.35
    if walker.long_hair and show_face:
        canvas.capsule(
            place(np.array([[0, 1.0, 0.1], [0, 2.1, -0.1]])),
            (0.5 * size, 0.52 * size),
            tint(skin, 0.82),
            bare,
        )
    for k in (0, 1):
        canvas.dot(ears[k], 0.24 * size, tint(skin, 0.88), bare)
    if not show_face:
        if gaze[2] > 0.6 or walker.long_hair:
            canvas.convex(skull, hair, covered)
            canvas.convex(skull * 0.6 + (crown - (0, 0.3 * size)) * 0.4, tint(hair, 1.25), covered)
        return points, ears, gaze
    outline = np.concatenate((points[0:33], place(FOREHEAD)))
    canvas.convex(convex_hull(outline), skin, bare)
    if size > 2.0 and gaze[2] < 0:
        paint_features(canvas, walker, points, place, bare, skin, size)
    fringe = np.concatenate((place(FOREHEAD), place(FOREHEAD[::-1] * (0.86, 0.78, 1.0) + (0, -0.02, 0.1))))
    canvas.polygon(fringe, hair, covered)
    top = place(np.concatenate((FOREHEAD[2:7] * (1.0, 1.0, 1.0), FOREHEAD[2:7][::-1] * (0.9, 1.28, 0.2))))
    canvas.convex(convex_hull(top), hair, covered)
    return points, ears, gaze


def paint_features(
    canvas: Canvas,
    walker: Walker,
    points: np.ndarray,
    place: Callable[[np.ndarray], np.ndarray],
    part: int,
    skin: Color,
    size: float,
) -> None:
    """Brows, eyes, nose and mouth: polygons through the landmarks themselves."""
    light = canvas.light
    side = slice(0, 17) if light.sun[0] > 0 else slice(16, 33)  # the cheek away from the sun
    middle = points[[51, 57, 16]].mean(axis=0)
    canvas.polygon(
        np.concatenate((points[side], points[side][::-1] * 0.72 + middle * 0.28)), tint(skin, 0.88), part
    )
    canvas.polygon(points[55:60], tint(skin, 0.78), part)
    flank = np.array([0.12 * size if light.sun[0] < 0 else -0.12 * size, 0.0])
    canvas.polygon(
        np.concatenate((points[51:55], points[[57]], points[[54]] + flank)), tint(skin, 0.88), part
    )
    canvas.polygon(np.concatenate((points[51:55], points[54:51:-1] - flank * 0.6)), tint(skin, 1.07), part)
    brow = tint(light.shade(walker.hair), 0.8)
    canvas.polygon(points[33:42], brow, part)
    canvas.polygon(points[42:51], brow, part)
    white, iris, lash = (light.shade(c) for c in ((236, 234, 230), (58, 44, 36), (50, 38, 34)))
    for eye, pupil in ((points[60:68], points[96]), (points[68:76], points[97])):
        canvas.polygon(eye, white, part)
        canvas.dot(pupil, 0.085 * size, iris, part)
        canvas.polygon(np.concatenate((eye[:5], eye[4::-1] - (0, 0.04 * size))), lash, part)
    canvas.polygon(points[76:88], tint(mix(skin, light.shade((176, 74, 72)), 0.62), 0.95), part)
    canvas.polygon(points[88:96], light.shade((70, 26, 28)), part)
