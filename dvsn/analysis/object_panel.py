"""A picture's detections in the colours of their kinds, with the objects that none has found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np

from dvsn.metrics.detection_errors import IGNORED, KINDS, RIGHT, STATES, Judged
from dvsn.portable.draw import DARK, Colour, draw_boxes, tag, tag_box
from dvsn.portable.legend import draw_legend

NOT_FOUND = "not found"
COLOURS: dict[str, Colour] = {
    RIGHT: (46, 204, 113),
    "wrong class": (214, 112, 255),
    "badly placed": (255, 159, 28),
    "both": (178, 115, 80),
    "double": (255, 236, 61),
    "background": (255, 64, 64),
    IGNORED: (190, 190, 190),
    NOT_FOUND: (64, 196, 255),
}
DASH = 7  # pixels


def draw_errors(
    photo: np.ndarray,
    judged: Judged,
    found: Sequence[Mapping[str, Any]],
    objects: Sequence[Mapping[str, Any]],
    names: Mapping[int, str],
) -> np.ndarray:
    """A copy of a picture (H, W, 3) uint8 with what `judged` says of `found` and `objects`, in COCO's form.

    Boxes of detections have the colours of their kinds; those of objects that none has found are dashed. A legend counts
    the kinds.
    """
    picture = np.array(photo, order="C")
    lost = [corners(objects[place]["bbox"]) for place in judged.numbers[~judged.found]]
    for left, top, right, bottom in lost:
        dashed(picture, (left, top), (right, bottom), COLOURS[NOT_FOUND])
    states = [STATES[number] for number in judged.state]
    rows = [found[place] for place in judged.place]
    boxes = [corners(row["bbox"]) for row in rows]
    colours = [COLOURS[state] for state in states]
    draw_boxes(picture, np.array(boxes, float)[::-1], colours=colours[::-1])  # the best on top
    plates = [
        (f"{names[int(row['category_id'])]} {100 * float(row['score']):.0f}", (box[0], box[1]), colour)
        for row, box, colour in zip(rows, boxes, colours, strict=True)
    ]
    wanted = judged.wanted[~judged.found].tolist()
    plates += [
        (names[label], (box[0], box[3]), COLOURS[NOT_FOUND]) for label, box in zip(wanted, lost, strict=True)
    ]
    draw_plates(picture, plates)
    counts = {state: states.count(state) for state in (RIGHT, *KINDS, IGNORED)} | {NOT_FOUND: len(lost)}
    draw_legend(picture, [(f"{state} ({count})", COLOURS[state]) for state, count in counts.items() if count])
    return picture


def draw_plates(picture: np.ndarray, plates: Sequence[tuple[str, tuple[int, int], Colour]]) -> None:
    """Text at corners of boxes, in place, the first ones first; one that would cover an earlier one is left out."""
    taken: list[tuple[int, int, int, int]] = []
    for text, corner, colour in plates:
        left, top, right, bottom = plate = tag_box(picture, text, corner)
        if not any(left <= e and right >= w and top <= s and bottom >= n for w, n, e, s in taken):
            taken.append(plate)
            tag(picture, text, corner, colour)


def corners(box: Sequence[float]) -> tuple[int, int, int, int]:
    """x, y, width, height -> left, top, right, bottom in whole pixels."""
    x, y, width, height = box
    return round(x), round(y), round(x + width), round(y + height)


def dashed(picture: np.ndarray, low: tuple[int, int], high: tuple[int, int], colour: Colour) -> None:
    """A rectangle of dashes, in place."""
    (left, top), (right, bottom) = low, high
    thickness = max(1, round(np.hypot(*picture.shape[:2]) / 500))
    for start in range(left, right, 2 * DASH):
        for row in (top, bottom):
            stroke(picture, (start, row), (min(start + DASH, right), row), colour, thickness)
    for start in range(top, bottom, 2 * DASH):
        for column in (left, right):
            stroke(picture, (column, start), (column, min(start + DASH, bottom)), colour, thickness)


def stroke(
    picture: np.ndarray, start: tuple[int, int], end: tuple[int, int], colour: Colour, width: int
) -> None:
    if width > 1:
        cv2.line(picture, start, end, DARK, width + 2)
    cv2.line(picture, start, end, colour, width)
