"""A data set of objects of one's own in COCO's form: `python make.py FOLDER`.

420 pictures of 96x128 with discs, bars and tents that cover each other: `images/{train,val,test}/` and
`annotations/{train,val,test}.json`, 300, 20 and 100, each object with its box and its mask as a run length.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.random import Generator, default_rng
from PIL import Image
from pycocotools import mask as rle

NAMES = ("disc", "bar", "tent")
TINTS = ((95, 10, -50), (-50, 80, 20), (-50, -20, 110))
COUNTS = {"train": 300, "val": 20, "test": 100}
HEIGHT, WIDTH = 96, 128
SMALLEST = 40
"""Pixels of an object that are seen; what shows fewer is not drawn."""


def shape(rng: Generator, kind: int) -> np.ndarray:
    """(H, W) bool."""
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    size = int(rng.integers(6, 20))
    x, y = int(rng.integers(4, WIDTH - 4)), int(rng.integers(4, HEIGHT - 4))
    if kind == 0:
        cv2.circle(mask, (x, y), size, 1, -1)
    elif kind == 1:
        box = cv2.boxPoints(((x, y), (2.4 * size, 0.8 * size), float(rng.uniform(0, 180))))
        cv2.fillPoly(mask, [box.astype(np.int32)], 1)
    else:
        cv2.fillPoly(mask, [np.array([[x, y - size], [x - size, y + size], [x + size, y + size]])], 1)
    return mask > 0


def scene(rng: Generator) -> tuple[np.ndarray, list[tuple[int, np.ndarray]]]:
    """A picture (H, W, 3) uint8, and of each object its kind and what is seen of it (H, W) bool."""
    spots = rng.integers(70, 150, (HEIGHT // 10 + 1, WIDTH // 10 + 1, 3), dtype=np.uint8)
    picture = cv2.resize(spots, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC).astype(float)
    objects: list[tuple[int, np.ndarray]] = []
    for kind in rng.integers(0, len(NAMES), int(rng.integers(0, 7))):
        mask = shape(rng, int(kind))
        left = [seen & ~mask for _, seen in objects]
        if min([mask.sum(), *(each.sum() for each in left)]) < SMALLEST:
            continue
        objects = [(old, seen) for (old, _), seen in zip(objects, left, strict=True)] + [(int(kind), mask)]
        shade = rng.normal(0, 15, 3)
        picture[mask] = picture[mask] * 0.6 + 50 + np.array(TINTS[kind]) + shade
    return np.clip(picture + rng.normal(0, 10, picture.shape), 0, 255).astype(np.uint8), objects


def annotation(number: int, picture: int, kind: int, mask: np.ndarray) -> dict[str, Any]:
    coded = rle.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {
        "id": number,
        "image_id": picture,
        "category_id": kind + 1,
        "bbox": [float(value) for value in rle.toBbox(coded)],
        "area": float(mask.sum()),
        "iscrowd": 0,
        "segmentation": {"size": [HEIGHT, WIDTH], "counts": coded["counts"].decode()},
    }


def write(root: Path) -> None:
    (root / "annotations").mkdir(parents=True)
    for place, (split, count) in enumerate(COUNTS.items()):
        (root / "images" / split).mkdir(parents=True)
        pictures, found = [], []
        for number in range(1, count + 1):
            picture, objects = scene(default_rng([place, number]))
            name = f"{split}_{number:03d}.png"
            Image.fromarray(picture).save(root / "images" / split / name)
            pictures.append({"id": number, "file_name": name, "height": HEIGHT, "width": WIDTH})
            for kind, mask in objects:
                found.append(annotation(len(found) + 1, number, kind, mask))
        table = {
            "images": pictures,
            "annotations": found,
            "categories": [{"id": 1 + kind, "name": name} for kind, name in enumerate(NAMES)],
        }
        (root / "annotations" / f"{split}.json").write_text(json.dumps(table))


if __name__ == "__main__":
    write(Path(sys.argv[1]))
