"""Crops of CamVid as a folder a class: `python make.py CAMVID FOLDER SIDE`.

A crop is a square around one connected area of a car, a sign, a pedestrian or a bicyclist in the labels, with a sixth of its
side as a margin, resized to SIDE pixels. CamVid's own splits stay.
"""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np

CLASSES = {6: "sign", 8: "car", 9: "pedestrian", 10: "bicyclist"}
"""Ids of SegNet's labels."""
MOST = 400
"""The most crops of a class in a split, the first of evenly spaced pictures."""
Box = tuple[int, int, int, int]


def objects(labels: np.ndarray, number: int) -> list[Box]:
    """Left, top, width and height of areas that fill two fifths of their box and are not tiny."""
    _, _, found, _ = cv2.connectedComponentsWithStats((labels == number).astype(np.uint8))
    return [
        (int(x), int(y), int(width), int(height))
        for x, y, width, height, area in found[1:]
        if min(width, height) >= 14 and max(width, height) >= 24 and area >= 0.4 * width * height
    ]


def crop(photo: np.ndarray, box: Box, pixels: int) -> np.ndarray:
    """The square around a box, moved into the photo, `pixels` wide."""
    x, y, width, height = box
    side = min(round(4 / 3 * max(width, height)), *photo.shape[:2])
    left = min(max(x + width // 2 - side // 2, 0), photo.shape[1] - side)
    top = min(max(y + height // 2 - side // 2, 0), photo.shape[0] - side)
    part = photo[top : top + side, left : left + side]
    return cv2.resize(
        part, (pixels, pixels), interpolation=cv2.INTER_AREA if side > pixels else cv2.INTER_CUBIC
    )


def write(source: Path, target: Path, split: str, pixels: int) -> dict[str, int]:
    """Writes the crops of a split and returns how many there are of each class."""
    counts = dict.fromkeys(CLASSES.values(), 0)
    photos = sorted((source / split).glob("*.jpg"))
    for start in range(4):  # every fourth picture first: neighbours show the same
        for path in photos[start::4]:
            photo = cv2.imread(str(path))
            labels = cv2.imread(str(source / f"{split}annot" / f"{path.stem}.png"), cv2.IMREAD_GRAYSCALE)
            for number, name in CLASSES.items():
                for place, box in enumerate(objects(labels, number)):
                    if counts[name] < MOST:
                        counts[name] += 1
                        file = target / split / name / f"{path.stem}_{place}.png"
                        file.parent.mkdir(parents=True, exist_ok=True)
                        cv2.imwrite(str(file), crop(photo, box, pixels))
    return counts


def main() -> None:
    source, target, pixels = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    for split in ("train", "val", "test"):
        print(split, write(source, target, split, pixels))


if __name__ == "__main__":
    main()
