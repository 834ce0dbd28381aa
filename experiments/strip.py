"""The picture of the front page, cut out of the pictures of experiments.

    python experiments/strip.py        # writes experiments/strip.jpg

A cell is named by its row and column in a picture of equal cells, or by its corners in pixels.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

FOLDER = Path(__file__).parent
WIDTH, HEIGHT, GAP, QUALITY = 1600, 210, 6, 88
Array = np.ndarray[Any, Any]


class Cut(NamedTuple):
    """A part of a picture: left, top, right, bottom in pixels."""

    file: str
    corners: tuple[int, int, int, int]


LINES = (
    (
        Cut("demo/painted.jpg", (6, 812, 518, 1068)),
        Cut("demo/painted.jpg", (524, 812, 1036, 1068)),
        Cut("detection_street/test.jpg", (0, 384, 768, 768)),
    ),
    (
        Cut("pidnet_camvid/test.jpg", (294, 674, 584, 891)),
        Cut("pidnet_camvid/test.jpg", (878, 674, 1168, 891)),
        Cut("landmarks_faces68/faces.jpg", (236, 256, 458, 480)),
        Cut("landmarks_faces68/faces.jpg", (926, 714, 1148, 938)),
        Cut("classes_camvid/test.jpg", (192, 228, 384, 456)),
        Cut("classes_camvid/test.jpg", (384, 228, 576, 456)),
        Cut("pose_lspet/people.jpg", (212, 28, 414, 198)),
        Cut("pose_lspet/people.jpg", (1242, 28, 1444, 164)),
    ),
)


def read(cut: Cut) -> Array:
    """A part of a picture, `HEIGHT` pixels high."""
    picture = cv2.imread(str(FOLDER / cut.file))
    if picture is None:
        raise SystemExit(f"error: {FOLDER / cut.file} is not there")
    left, top, right, bottom = cut.corners
    part = picture[top:bottom, left:right]
    width = round(part.shape[1] * HEIGHT / part.shape[0])
    return cv2.resize(part, (width, HEIGHT), interpolation=cv2.INTER_AREA)


def line(cuts: tuple[Cut, ...]) -> Array:
    """Parts beside each other, `WIDTH` pixels wide together."""
    parts = [read(cut) for cut in cuts]
    gap = np.full((HEIGHT, GAP, 3), 255, np.uint8)
    joined = np.hstack([piece for part in parts for piece in (part, gap)][:-1])
    height = round(HEIGHT * WIDTH / joined.shape[1])
    return cv2.resize(joined, (WIDTH, height), interpolation=cv2.INTER_AREA)


def main() -> None:
    gap = np.full((GAP, WIDTH, 3), 255, np.uint8)
    lines = [line(cuts) for cuts in LINES]
    strip = np.vstack([piece for each in lines for piece in (each, gap)][:-1])
    cv2.imwrite(str(FOLDER / "strip.jpg"), strip, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])


if __name__ == "__main__":
    main()
