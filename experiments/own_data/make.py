"""Three data sets of one's own, as somebody might bring them: `python make.py FOLDER`.

- `parts/`: 60 photos with masks of colours in one folder, 001.jpg and 001_mask.png, without splits. Discs, bars and tents.
- `fruit/`: 150 pictures in train/ and valid/, a folder a class: apple, banana, grape.
- `windows/`: 80 pictures side by side, a sketch of a front and the front, without splits; `sketches/`: three new sketches.
"""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
from numpy.random import Generator, default_rng
from PIL import Image

COLOURS = np.array([[0, 0, 0], [220, 20, 60], [0, 160, 60], [40, 60, 255]], np.uint8)
TINTS = ((0, 0, 0), (95, 10, -50), (-50, 80, 20), (-50, -20, 110))


def texture(rng: Generator, height: int, width: int) -> np.ndarray:
    """(H, W, 3) float: soft spots of dull colours."""
    spots = rng.integers(70, 150, (height // 10 + 1, width // 10 + 1, 3), dtype=np.uint8)
    return cv2.resize(spots, (width, height), interpolation=cv2.INTER_CUBIC).astype(float)


def finished(rng: Generator, picture: np.ndarray) -> np.ndarray:
    """uint8, with the noise of a camera."""
    return np.clip(picture + rng.normal(0, 8, picture.shape), 0, 255).astype(np.uint8)


def part(rng: Generator, kind: int, height: int, width: int) -> np.ndarray:
    """(H, W) bool: a disc, a bar or a tent."""
    mask = np.zeros((height, width), np.uint8)
    size = int(rng.integers(10, 24))
    x, y = int(rng.integers(size, width - size)), int(rng.integers(size, height - size))
    if kind == 1:
        cv2.circle(mask, (x, y), size, 1, -1)
    elif kind == 2:
        box = cv2.boxPoints(((x, y), (2.4 * size, 0.8 * size), float(rng.uniform(0, 180))))
        cv2.fillPoly(mask, [box.astype(np.int32)], 1)
    else:
        cv2.fillPoly(mask, [np.array([[x, y - size], [x - size, y + size], [x + size, y + size]])], 1)
    return mask > 0


def write_parts(folder: Path, count: int = 60, height: int = 120, width: int = 160) -> None:
    folder.mkdir(parents=True)
    for number in range(count):
        rng = default_rng([1, number])
        ground = texture(rng, height, width)
        picture, ids = ground.copy(), np.zeros((height, width), np.uint8)
        for kind in rng.permutation([1, 1, 2, 2, 3, 3]):
            mask = part(rng, kind, height, width)
            picture[mask], ids[mask] = ground[mask] + TINTS[kind], kind
        Image.fromarray(finished(rng, picture)).save(folder / f"{number:03d}.jpg", quality=90)
        Image.fromarray(COLOURS[ids]).save(folder / f"{number:03d}_mask.png")


def fruit(rng: Generator, kind: str, side: int = 96) -> np.ndarray:
    picture = texture(rng, side, side)
    x, y, size = (int(rng.integers(*ends)) for ends in ((34, 62), (34, 62), (16, 28)))
    if kind == "apple":
        colour = (200, int(rng.integers(20, 120)), 40)
        cv2.circle(picture, (x, y), size, colour, -1)
        cv2.line(picture, (x, y - size), (x + 4, y - size - 10), (70, 45, 20), 3)
    elif kind == "banana":
        angle, start = float(rng.uniform(0, 360)), float(rng.uniform(0, 60))
        cv2.ellipse(picture, (x, y), (size + 8, size), angle, start, start + 150, (225, 200, 50), 11)
    else:
        for _ in range(14):
            dx, dy = rng.normal(0, size / 2.2, 2)
            cv2.circle(picture, (int(x + dx), int(y + dy)), 6, (90, int(rng.integers(20, 70)), 130), -1)
    return finished(rng, picture)


def write_fruit(folder: Path, count: int = 50) -> None:
    for place, kind in enumerate(("apple", "banana", "grape")):
        for number in range(count):
            split = "train" if number < count * 4 // 5 else "valid"
            target = folder / split / kind / f"{kind}_{number:02d}.jpg"
            target.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(fruit(default_rng([2, place, number]), kind)).save(target, quality=90)


def front(rng: Generator, side: int = 128) -> tuple[np.ndarray, np.ndarray]:
    """A sketch in flat colours, and the front of a house that it stands for."""
    sketch = np.full((side, side, 3), (0, 0, 160), np.uint8)
    house = np.linspace([150, 190, 235], [215, 230, 245], side)[:, None].repeat(side, axis=1)
    roof, left, right = int(rng.integers(20, 40)), int(rng.integers(4, 18)), side - int(rng.integers(4, 18))
    cv2.rectangle(sketch, (left, roof), (right, side), (200, 60, 0), -1)
    wall = texture(rng, side, side)[roof:, left : right + 1] * 0.25 + np.array([150, 105, 85])
    wall[::6] *= 0.85  # rows of bricks
    house[roof:, left : right + 1] = wall
    step = int(rng.integers(24, 34))
    for y in range(roof + 10, side - 24, step):
        for x in range(left + 8, right - 18, step):
            cv2.rectangle(sketch, (x, y), (x + 12, y + 16), (0, 180, 255), -1)
            cv2.rectangle(house, (x - 1, y - 1), (x + 13, y + 17), (235, 235, 230), -1)
            cv2.rectangle(house, (x + 1, y + 1), (x + 11, y + 15), (45, 60, 85), -1)
            cv2.line(house, (x + 6, y), (x + 6, y + 16), (235, 235, 230), 2)
    return sketch, finished(rng, house)


def write_windows(folder: Path, count: int = 80) -> None:
    folder.mkdir(parents=True)
    for number in range(count):
        pair = front(default_rng([3, number]))
        Image.fromarray(np.concatenate(pair, axis=1)).save(folder / f"{number:03d}.jpg", quality=95)
    sketches = folder.parent / "sketches"
    sketches.mkdir()
    for number in range(3):
        Image.fromarray(front(default_rng([4, number]))[0]).save(sketches / f"{number}.png")


def main() -> None:
    folder = Path(sys.argv[1])
    write_parts(folder / "parts")
    write_fruit(folder / "fruit")
    write_windows(folder / "windows")


if __name__ == "__main__":
    main()
