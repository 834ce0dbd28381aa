"""Skeletons, axes of heads and boxes, drawn in place on uint8 RGB pictures (H, W, 3) of any size."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from dvsn.portable.joints import Joints

Array = np.ndarray[Any, Any]
Colour = tuple[int, int, int]

DARK: Colour = (20, 20, 20)
SHIFT = 4  # OpenCV takes 1/16 pixels
FARTHEST = 1 << 14  # pixels; what lies farther out is drawn as if it were there
HUES = {"left": (0.13, -0.09), "right": (0.50, 0.12), "middle": (0.33, 0.0)}
"""Where each side's hue starts (yellow, cyan, green) and how far it runs from the first pair to the last."""
AXES: tuple[Colour, Colour, Colour] = ((255, 70, 70), (70, 230, 70), (80, 140, 255))
"""Of a head: red to the side, green down, blue to the front."""
NOSTRILS = slice(8, 10)  # of the 14 points of a head
FEW = 17  # keypoints, of a person; lines are thinner where there are more of them in as much room


def draw_skeleton(
    picture: Array,
    points: Array,
    confidence: Array,
    keypoints: Joints,
    *,
    threshold: float = 0.2,
    width: float | None = None,
    dots: bool = True,
    lines: bool = True,
) -> None:
    """One person or face: points (K, 2) in pixels of the picture, confidence (K,).

    Joints above `threshold` are dots, and the skeleton's lines join those that are shown; either may be left out. The
    left side is yellow to red, the right one cyan to blue, the rest green. The line's width follows the person's size
    and the number of keypoints, unless `width` in pixels says it.
    """
    shown = (np.asarray(confidence) > threshold) & np.isfinite(points).all(axis=1)
    if not shown.any():
        return
    places = np.clip(np.asarray(points, np.float64), -FARTHEST, FARTHEST)
    line = width or line_width(places[shown], len(keypoints))
    colours = joint_colours(keypoints)
    limbs = [(one, other) for one, other in keypoints.skeleton if lines and shown[one] and shown[other]]
    thickness, edge = (
        max(1, round(line)),
        round(line / 3),
    )  # small people have no dark edges: they would be all edge
    for one, other in limbs if edge else ():
        _line(picture, places[one], places[other], DARK, thickness + 2 * edge)
    for one, other in limbs:
        _line(picture, places[one], places[other], _limb_colour(keypoints, colours, one, other), thickness)
    for joint in np.flatnonzero(shown) if dots else ():
        if edge:
            _dot(picture, places[joint], 0.9 * line + edge, DARK)
        _dot(picture, places[joint], 0.9 * line, colours[joint])


def line_width(points: Array, count: int = FEW) -> float:
    """Pixels: 1/70 of the longer side of the points' box, within 1.2 and 14; less by the root of `count` above 17."""
    thinner = math.sqrt(max(1, count / FEW))
    return float(np.clip(np.ptp(points, axis=0).max() / 70, 1.2, 14) / thinner)


def draw_axes(picture: Array, centre: Array, angles: Array, length: float) -> None:
    """Where a head looks: its axes from `centre` (2,), `length` pixels long where they lie in the picture's plane.

    `angles`: pitch, yaw, roll in radians, with the signs of `dvsn.geometry.head_angles`. Red goes to the side of the face
    that is on the right of the picture, green down to the chin, blue out of the face to where the nose points, so that of a
    face that looks at the camera it is a dot. Seen from afar: without perspective. Angles that are not numbers draw
    nothing.
    """
    if not np.isfinite(angles).all() or not np.isfinite(centre).all():
        return
    side, down, back = to_rotation(angles).T
    start, length = np.clip(np.asarray(centre, np.float64), -FARTHEST, FARTHEST), min(length, FARTHEST)
    thickness = max(1, round(0.6 + length / 40))
    axes = sorted(
        zip((side, down, -back), AXES, strict=True), key=lambda axis: -axis[0][2]
    )  # the farthest first
    for direction, colour in axes:
        end = start + length * direction[:2]
        if thickness > 2:
            _line(picture, start, end, DARK, thickness + 2)
        _line(picture, start, end, colour, thickness)
        if np.hypot(*direction[:2]) < 0.1:  # it points at the camera
            _dot(picture, end, thickness, colour)


def to_rotation(angles: Sequence[float] | Array) -> Array:
    """Pitch, yaw, roll in radians -> the rotation (3, 3) of camera axes: about x first, then y, then z."""
    (a, b, c), (s, t, u) = np.cos(np.asarray(angles, float)), np.sin(np.asarray(angles, float))
    about_x = np.array([[1, 0, 0], [0, a, -s], [0, s, a]])
    about_y = np.array([[b, 0, t], [0, 1, 0], [-t, 0, b]])
    about_z = np.array([[c, -u, 0], [u, c, 0], [0, 0, 1]])
    rotation: Array = about_z @ about_y @ about_x
    return rotation


def draw_head(picture: Array, points: Array, angles: Array, keypoints: Joints) -> None:
    """The axes of a face of points (K, 2) in pixels, from the nose; half as long as from brow to chin.

    Nothing where the keypoints do not tell how a head is turned (`Joints.head`).
    """
    if not keypoints.head:
        return
    head = np.asarray(points, np.float64)[list(keypoints.head)]
    draw_axes(picture, head[NOSTRILS].mean(axis=0), angles, 0.5 * float(np.ptp(head, axis=0).max()))


def sides(keypoints: Joints) -> list[str]:
    """`left`, `right` or `middle` for each keypoint: by the names of its pair, else the pair's first is the left one."""
    found = ["middle"] * len(keypoints)
    for one, other in keypoints.pairs:
        if "right" in keypoints.names[one].lower() or "left" in keypoints.names[other].lower():
            one, other = other, one
        found[one], found[other] = "left", "right"
    return found


def joint_colours(keypoints: Joints) -> list[Colour]:
    """RGB of each keypoint: a hue for each side, which changes from pair to pair."""
    place = {joint: number for number, pair in enumerate(keypoints.pairs) for joint in pair}
    last = max(1, len(keypoints.pairs) - 1)
    colours = []
    for joint, side in enumerate(sides(keypoints)):
        start, run = HUES[side]
        colours.append(hue_colour(start + run * place.get(joint, 0) / last))
    return colours


def draw_boxes(
    picture: Array,
    boxes: Array,
    labels: Sequence[str] | None = None,
    scores: Sequence[float] | Array | None = None,
    colours: Sequence[Colour] | Array | None = None,
) -> None:
    """Boxes (N, 4) as corners x1, y1, x2, y2 in pixels of the picture, each with a label and a score in percent.

    Without `colours`, equal labels are equal in colour.
    """
    height, width = picture.shape[:2]
    thickness = max(1, round(math.hypot(height, width) / 500))
    names = list(dict.fromkeys(labels or ()))
    for number, box in enumerate(np.asarray(boxes, np.float64).reshape(-1, 4)):
        if not np.isfinite(box).all():
            continue
        label = labels[number] if labels is not None else ""
        if colours is not None:
            red, green, blue = (int(value) for value in colours[number])
            colour = (red, green, blue)
        else:
            colour = hue_colour(0.618034 * (names.index(label) if names else 0) + 0.08)
        x1, y1, x2, y2 = (round(value) for value in np.clip(box, -FARTHEST, FARTHEST).tolist())
        if thickness > 1:
            cv2.rectangle(picture, (x1, y1), (x2, y2), DARK, thickness + 2)
        cv2.rectangle(picture, (x1, y1), (x2, y2), colour, thickness)
        score = "" if scores is None else f"{100 * float(scores[number]):.0f}"
        text = f"{label} {score}".strip()
        if text:
            tag(picture, text, (x1, y1), colour)


def tag(picture: Array, text: str, corner: tuple[int, int], colour: Colour) -> None:
    """A label on its box's upper left corner, moved inside of the picture where it would leave it."""
    left, top, right, bottom = tag_box(picture, text, corner)
    scale, thickness, below = _tag_text(picture, text)[2:]
    cv2.rectangle(picture, (left, top), (right, bottom), colour, cv2.FILLED)
    dark = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2] > 110
    place = (left + 2, bottom - below)
    ink = DARK if dark else (255, 255, 255)
    cv2.putText(picture, text, place, cv2.FONT_HERSHEY_SIMPLEX, scale, ink, thickness, cv2.LINE_AA)


def tag_box(picture: Array, text: str, corner: tuple[int, int]) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of the plate that `tag` draws."""
    height, width = picture.shape[:2]
    wide, high, _, _, below = _tag_text(picture, text)
    left = int(np.clip(corner[0], 0, max(0, width - wide - 4)))
    top = int(np.clip(corner[1] - high - below - 2, 0, max(0, height - high - below - 2)))
    return left, top, left + wide + 3, top + high + below + 1


def _tag_text(picture: Array, text: str) -> tuple[int, int, float, int, int]:
    """Width and height of a tag's text, its scale and thickness, and how far it goes below its line."""
    scale = float(np.clip(math.hypot(*picture.shape[:2]) / 1600, 0.35, 1.6))
    thickness = max(1, round(1.5 * scale))
    (wide, high), below = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, thickness)
    return wide, high, scale, thickness, below


def hue_colour(hue: float) -> Colour:
    red, green, blue = (round(255 * value) for value in colorsys.hsv_to_rgb(hue % 1.0, 0.85, 1.0))
    return red, green, blue


def _limb_colour(keypoints: Joints, colours: list[Colour], one: int, other: int) -> Colour:
    """The mean of a side's two joints; of a side and the middle the side's; green across."""
    side = sides(keypoints)
    if side[one] == side[other]:
        red, green, blue = ((a + b) // 2 for a, b in zip(colours[one], colours[other], strict=True))
        return red, green, blue
    if "middle" in (side[one], side[other]):
        return colours[other if side[one] == "middle" else one]
    return hue_colour(HUES["middle"][0])


def _fixed(point: Array) -> tuple[int, int]:
    return round(float(point[0]) * (1 << SHIFT)), round(float(point[1]) * (1 << SHIFT))


def _line(picture: Array, start: Array, end: Array, colour: Colour, thickness: int) -> None:
    cv2.line(picture, _fixed(start), _fixed(end), colour, thickness, cv2.LINE_AA, SHIFT)


def _dot(picture: Array, centre: Array, radius: float, colour: Colour) -> None:
    size = round(radius * (1 << SHIFT))
    cv2.circle(picture, _fixed(centre), size, colour, cv2.FILLED, cv2.LINE_AA, SHIFT)
