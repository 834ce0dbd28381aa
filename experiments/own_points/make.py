"""Three data sets of one's own, as somebody might bring them: `python make.py FOLDER`.

- `workbench/`: 160 pictures of bolts, nuts and washers, with YOLO's text files and a classes.txt, without splits.
- `scissors/`: 200 pictures of one or two scissors of five keypoints, a COCO file a split, named as Roboflow names them.
- `owls/`: 300 pictures of an owl's face each, nine numbered points in one CSV table, without splits.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np

Array = np.ndarray
Colour = tuple[int, ...]


class Painter:
    """Pictures and chance."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)

    def background(self, height: int, width: int) -> Array:
        """(H, W, 3) uint8: one colour, spots and noise."""
        base = self.random.integers(60, 200, 3)
        noise = self.random.normal(0, 12, (height, width, 1))
        spots = cv2.resize(self.random.normal(0, 18, (6, 8, 3)).astype(np.float32), (width, height))
        return np.clip(base + noise + spots, 0, 255).astype(np.uint8)

    def colour(self, low: int, high: int) -> Colour:
        return tuple(int(value) for value in self.random.integers(low, high, 3))


def whole(point: Array) -> tuple[int, int]:
    return round(float(point[0])), round(float(point[1]))


# Boxes -----------------------------------------------------------------------------------------------


def workbench(painter: Painter, root: Path, count: int = 160) -> None:
    """Lines of YOLO beside pictures of 240 x 320."""
    (root / "images").mkdir(parents=True, exist_ok=True)
    (root / "labels").mkdir(exist_ok=True)
    (root / "classes.txt").write_text("bolt\nnut\nwasher\n")
    random, (height, width) = painter.random, (240, 320)
    for number in range(count):
        picture, lines, taken = painter.background(height, width), [], []
        for _ in range(random.integers(1, 6)):
            kind, size = int(random.integers(0, 3)), int(random.integers(16, 34))
            for _ in range(20):
                x, y = int(random.integers(40, width - 40)), int(random.integers(40, height - 40))
                if all((x - a) ** 2 + (y - b) ** 2 > 60**2 for a, b in taken):
                    break
            else:
                continue
            taken.append((x, y))
            mask = part(painter, picture, kind, size, (x, y))
            ys, xs = np.nonzero(mask)
            left, right, top, bottom = xs.min(), xs.max() + 1, ys.min(), ys.max() + 1
            box = (
                (left + right) / 2 / width,
                (top + bottom) / 2 / height,
                (right - left) / width,
                (bottom - top) / height,
            )
            lines.append(f"{kind} " + " ".join(f"{value:.6f}" for value in box))
        cv2.imwrite(str(root / "images" / f"{number:03d}.jpg"), picture)
        (root / "labels" / f"{number:03d}.txt").write_text("\n".join(lines))


def part(painter: Painter, picture: Array, kind: int, size: int, at: tuple[int, int]) -> Array:
    """Draws a bolt, a nut or a washer; (H, W) uint8, 1 where it lies."""
    colour, (x, y), random = painter.colour(150, 255), at, painter.random
    dark = tuple(int(value * 0.45) for value in colour)
    mask = np.zeros(picture.shape[:2], np.uint8)
    if kind == 0:
        angle = random.uniform(0, math.pi)
        along = size * np.array([math.cos(angle), math.sin(angle)])
        start, end = (np.array([x, y]) + sign * along for sign in (-1, 1))
        ends = [(int(point[0]), int(point[1])) for point in (start, end)]
        for canvas, shaft, head in ((picture, colour, dark), (mask, (1,), (1,))):
            cv2.line(canvas, *ends, shaft, max(4, size // 4))
            cv2.circle(canvas, ends[1], size // 3, head, -1)
    elif kind == 1:
        turn = random.uniform(0, 1)
        corners = [turn + side * math.pi / 3 for side in range(6)]
        outline = np.array(
            [[x + size * 0.7 * math.cos(a), y + size * 0.7 * math.sin(a)] for a in corners]
        ).astype(int)
        cv2.fillPoly(picture, [outline], colour)
        cv2.circle(picture, at, size // 4, dark, -1)
        cv2.fillPoly(mask, [outline], 1)
    else:
        for canvas, ring in ((picture, colour), (mask, (1,))):
            cv2.circle(canvas, at, int(size * 0.7), ring, max(3, size // 5))
    return mask


# Keypoints -------------------------------------------------------------------------------------------

NAMES = ("pivot", "left_tip", "right_tip", "left_ring", "right_ring")


def scissors(painter: Painter, root: Path, train: int = 160, valid: int = 40) -> None:
    """A file in COCO's format beside the pictures of each split, of 240 x 240."""
    random, side = painter.random, 240
    category = {
        "id": 40,
        "name": "scissors",
        "keypoints": list(NAMES),
        "skeleton": [[2, 1], [3, 1], [1, 4], [1, 5]],
    }
    for split, count in (("train", train), ("valid", valid)):
        (root / split).mkdir(parents=True, exist_ok=True)
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for number in range(count):
            picture, name = painter.background(side, side), f"{split}_{number:03d}.jpg"
            images.append({"id": number, "file_name": name, "width": side, "height": side})
            for _ in range(1 + int(random.random() < 0.3)):
                points, size = pair_of_scissors(painter, picture)
                low = np.clip(points.min(axis=0) - size * 0.3, 0, side)
                high = np.clip(points.max(axis=0) + size * 0.3, 0, side)
                triples = [value for x, y in points for value in (round(float(x), 1), round(float(y), 1), 2)]
                annotations.append({
                    "id": len(annotations) + 1, "image_id": number, "category_id": 40, "iscrowd": 0,
                    "bbox": [*low.round(1).tolist(), *(high - low).round(1).tolist()], "area": float((high - low).prod()),
                    "num_keypoints": 5, "keypoints": triples,
                })  # fmt: skip
            cv2.imwrite(str(root / split / name), picture)
        content = {"images": images, "annotations": annotations, "categories": [category]}
        (root / split / "_annotations.coco.json").write_text(json.dumps(content))


def pair_of_scissors(painter: Painter, picture: Array) -> tuple[Array, float]:
    """Draws one; its points (5, 2) in the order of `NAMES`, and its size."""
    random = painter.random
    pivot = np.array([random.uniform(80, 160), random.uniform(80, 160)])
    turn, gap, size = random.uniform(-0.6, 0.6), random.uniform(0.15, 0.5), random.uniform(32, 55)

    def at(angle: float, length: float) -> Array:
        return pivot + length * size * np.array([math.sin(angle), -math.cos(angle)])

    tips = [at(turn - gap, 1.3), at(turn + gap, 1.3)]
    rings = [at(turn + math.pi + gap, 1), at(turn + math.pi - gap, 1)]  # each on its own side
    steel, grip = painter.colour(170, 255), painter.colour(0, 120)
    cv2.line(picture, whole(tips[0]), whole(rings[1]), steel, 5)
    cv2.line(picture, whole(tips[1]), whole(rings[0]), tuple(int(value * 0.8) for value in steel), 5)
    for ring in rings:
        cv2.circle(picture, whole(ring), int(size * 0.28), grip, 4)
    cv2.circle(picture, whole(pivot), 4, (20, 20, 20), -1)
    return np.array([pivot, *tips, *rings]), size


# Points ----------------------------------------------------------------------------------------------

OWL = np.array([[-0.45, -0.2], [-0.25, -0.2], [0.25, -0.2], [0.45, -0.2], [0, 0.15], [0, 0.4], [-0.6, -0.75],
                [0.6, -0.75], [0, 0.85]])  # fmt: skip
"""Corners of the eyes from left to right, beak above and below, ears, chin."""


def owls(painter: Painter, root: Path, count: int = 300) -> None:
    """One table for all pictures, which are of different sizes."""
    (root / "pics").mkdir(parents=True, exist_ok=True)
    random, rows = painter.random, ["file," + ",".join(f"x{point},y{point}" for point in range(len(OWL)))]
    for number in range(count):
        side = int(random.integers(110, 150))
        picture = painter.background(side, side)
        size, turn = random.uniform(0.33, 0.42) * side, random.normal(0, 0.15)
        centre = np.array([side / 2, side / 2]) + random.normal(0, 4, 2)
        shape = OWL * [random.uniform(0.85, 1.15), random.uniform(0.9, 1.1)] + random.normal(
            0, 0.015, OWL.shape
        )
        rotate = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]]).T
        points = shape @ rotate * size + centre
        body, eye = painter.colour(60, 160), painter.colour(180, 255)
        cv2.ellipse(
            picture, whole(centre), (int(size * 0.75), int(size * 0.9)), math.degrees(turn), 0, 360, body, -1
        )
        for ear in (6, 7):
            corners = [
                points[ear],
                *((shape[ear] * part) @ rotate * size + centre for part in ([0.35, 0.75], [0.95, 0.5])),
            ]
            cv2.fillPoly(picture, [np.array(corners).astype(int)], body)
        for one, other in ((0, 1), (2, 3)):
            middle, radius = (
                (points[one] + points[other]) / 2,
                np.linalg.norm(points[one] - points[other]) / 2,
            )
            cv2.circle(picture, whole(middle), int(radius), eye, -1)
            cv2.circle(picture, whole(middle), 3, (10, 10, 10), -1)
        beak = [points[4] + [-size * 0.1, 0], points[4] + [size * 0.1, 0], points[5]]
        cv2.fillPoly(picture, [np.array(beak).astype(int)], (40, 160, 230))
        cv2.imwrite(str(root / "pics" / f"owl{number:03d}.png"), picture)
        rows.append(f"owl{number:03d}.png," + ",".join(f"{value:.2f}" for value in points.ravel()))
    (root / "points.csv").write_text("\n".join(rows) + "\n")


def main() -> None:
    root, painter = Path(sys.argv[1]), Painter(7)
    workbench(painter, root / "workbench")
    scissors(painter, root / "scissors")
    owls(painter, root / "owls")


if __name__ == "__main__":
    main()
