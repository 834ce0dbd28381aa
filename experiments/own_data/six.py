"""Six data sets, one a kind, from folder to score and prediction in two commands each: `python six.py FOLDER [NAME...]`.

- `ponds/`: photos and masks in two folders with folders below, 0 and 255 in the masks, no splits.
- `signs/`: a folder a class, three road signs.
- `plans/`: pairs in two folders, the outline of a flat and the flat in colour.
- `shelf/`: one COCO file of boxes around mugs and jars, whose ids begin at 0 and have a gap.
- `runners/`: keypoints of stick figures, one CSV table with left and right in its names.
- `masks/`: carnival masks with seven points each, a `.pts` file beside each picture.

Written into FOLDER: the sets, what the commands wrote, and `transcript.md` with the CPU and wall-clock time of each command.
"""

from __future__ import annotations

import json
import os
import resource
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from numpy.random import Generator, default_rng

MINUTES = 1  # of training, that `data init` plans for
Array = np.ndarray


def ground(rng: Generator, side: int) -> Array:
    """(side, side, 3) uint8: soft spots of dull colours, as a background."""
    spots = rng.integers(60, 150, (side // 12 + 1, side // 12 + 1, 3), dtype=np.uint8)
    return cv2.resize(spots, (side, side), interpolation=cv2.INTER_CUBIC)


def save(path: Path, picture: Array, rng: Generator | None = None) -> None:
    """RGB, with the noise of a camera where `rng` is given."""
    if rng is not None:
        picture = np.clip(picture + rng.normal(0, 7, picture.shape), 0, 255).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), picture[..., ::-1] if picture.ndim == 3 else picture)


def write_ponds(folder: Path, count: int = 60) -> None:
    for number in range(count):
        rng = default_rng([1, number])
        picture, mask = ground(rng, 96), np.zeros((96, 96), np.uint8)
        for _ in range(int(rng.integers(1, 4))):
            middle, axes = tuple(map(int, rng.integers(15, 80, 2))), tuple(map(int, rng.integers(9, 24, 2)))
            cv2.ellipse(mask, middle, axes, float(rng.uniform(0, 180)), 0, 360, 255, -1)
        picture[mask > 0] = picture[mask > 0] // 2 + np.array([10, 50, 90], np.uint8)
        place = f"flight{number % 3}/{number:03d}"
        save(folder / "photos" / f"{place}.jpg", picture, rng)
        save(folder / "masks" / f"{place}.png", mask)


def write_signs(folder: Path, count: int = 40) -> None:
    shapes = {"stop": (8, (200, 30, 40)), "yield": (3, (230, 200, 40)), "parking": (4, (40, 80, 200))}
    for kind, (name, (corners, colour)) in enumerate(shapes.items()):
        for number in range(count):
            rng = default_rng([2, kind, number])
            picture, size, turn = ground(rng, 64), rng.uniform(12, 26), rng.uniform(-0.3, 0.3)
            angles = np.arange(corners) * 2 * np.pi / corners + np.pi / corners + turn
            points = rng.uniform(26, 38, 2) + size * np.stack([np.sin(angles), np.cos(angles)], axis=1)
            tint = np.clip(np.array(colour) + rng.integers(-60, 60, 3), 0, 255).tolist()
            cv2.fillPoly(picture, [points.round().astype(np.int32)], tint, cv2.LINE_AA)
            save(folder / name / f"{number}.jpg", picture, rng)


def write_plans(folder: Path, count: int = 60) -> None:
    floors = [(196, 160, 120), (150, 190, 210), (170, 200, 150)]
    for number in range(count):
        rng = default_rng([3, number])
        outline, flat = np.full((64, 64, 3), 255, np.uint8), np.full((64, 64, 3), 235, np.uint8)
        x, y = map(int, rng.integers(20, 44, 2))
        rooms = [((6, 6), (x, y)), ((x, 6), (57, 57)), ((6, y), (x, 57))]
        for (start, end), floor in zip(rooms, floors, strict=True):
            cv2.rectangle(flat, start, end, floor, -1)
            cv2.rectangle(flat, start, end, (60, 50, 50), 2)
            cv2.rectangle(outline, start, end, (0, 0, 0), 1)
        save(folder / "outline" / f"{number:02d}.png", outline)
        save(folder / "flat" / f"{number:02d}.png", flat)


def write_shelf(folder: Path, count: int = 60) -> None:
    images, annotations = [], []
    for number in range(count):
        rng = default_rng([4, number])
        picture, name = ground(rng, 128), f"{number:03d}.jpg"
        for slot in rng.permutation(4)[: int(rng.integers(1, 4))]:
            jar = bool(rng.random() < 0.5)
            width, height = (
                int(rng.integers(20, 28)),
                int(rng.integers(34, 48) if jar else rng.integers(20, 28)),
            )
            left, top = 4 + 31 * int(slot) + int(rng.integers(0, 3)), int(rng.integers(10, 120 - height))
            colour = (210, 120, 60) if jar else (90, 170, 210)
            cv2.rectangle(picture, (left, top), (left + width - 1, top + height - 1), colour, -1)
            cv2.rectangle(picture, (left, top), (left + width - 1, top + 4), (250, 250, 240), -1)
            annotations.append(
                {"id": len(annotations), "image_id": number, "category_id": 5 if jar else 0,
                 "bbox": [left, top, width, height], "area": width * height, "iscrowd": 0}
            )  # fmt: skip
        images.append({"id": number, "file_name": name, "width": 128, "height": 128})
        save(folder / "images" / name, picture, rng)
    names = [{"id": 0, "name": "mug"}, {"id": 5, "name": "jar"}]
    content = {"images": images, "annotations": annotations, "categories": names}
    (folder / "annotations.json").write_text(json.dumps(content), encoding="utf-8")


def write_runners(folder: Path, count: int = 80) -> None:
    names = ["head", "hip", "left_hand", "right_hand", "left_foot", "right_foot"]
    lines = ["image," + ",".join(f"{name}_x,{name}_y" for name in names)]
    for number in range(count):
        rng = default_rng([5, number])
        picture, size = ground(rng, 96), rng.uniform(0.75, 1.1)
        stand = np.array([[0, -32], [0, 0], [-20, -12], [20, -12], [-13, 30], [13, 30]]) + rng.normal(
            0, 3, (6, 2)
        )
        points = np.array([48, 46]) + rng.normal(0, 4, 2) + size * stand
        neck = points[0] + 0.3 * (points[1] - points[0])
        for end, start, colour in zip(
            points[[1, 2, 3, 4, 5]], [neck, neck, neck, points[1], points[1]],
            [(235, 235, 235), (220, 50, 50), (60, 70, 220), (220, 130, 50), (60, 180, 200)], strict=True,
        ):  # fmt: skip
            cv2.line(
                picture,
                tuple(start.round().astype(int).tolist()),
                tuple(end.round().astype(int).tolist()),
                colour,
                4,
            )
        cv2.circle(
            picture, tuple(points[0].round().astype(int).tolist()), 7, (240, 220, 190), -1, cv2.LINE_AA
        )
        save(folder / "pictures" / f"r{number:02d}.png", picture, rng)
        lines.append(f"r{number:02d}.png," + ",".join(f"{value:.2f}" for value in points.ravel()))
    (folder / "points.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_masks(folder: Path, count: int = 120) -> None:
    shape = np.array([[-30, 0], [-18, -8], [-6, 0], [6, 0], [18, -8], [30, 0], [0, 24]], float)
    for number in range(count):
        rng = default_rng([6, number])
        picture, turn = ground(rng, 112), rng.uniform(-0.3, 0.3)
        rotate = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        points = (
            rng.uniform(48, 64, 2)
            + rng.uniform(0.8, 1.2) * (shape + rng.normal(0, 1, shape.shape)) @ rotate.T
        )
        outline = cv2.convexHull((points + 0.25 * (points - points.mean(axis=0))).round().astype(np.int32))
        cv2.fillPoly(picture, [outline], rng.integers(120, 240, 3).tolist(), cv2.LINE_AA)
        for point, colour in zip(points, np.linspace(0, 255, 7), strict=True):
            cv2.circle(
                picture, tuple(point.round().astype(int).tolist()), 3, (int(colour), 20, 40), -1, cv2.LINE_AA
            )
        save(folder / f"{number:03d}.png", picture, rng)
        rows = "\n".join(f"{x:.3f} {y:.3f}" for x, y in points)
        (folder / f"{number:03d}.pts").write_text(
            f"version: 1\nn_points: 7\n{{\n{rows}\n}}\n", encoding="utf-8"
        )


SETS: dict[str, Callable[[Path], None]] = {
    "ponds": write_ponds, "signs": write_signs, "plans": write_plans,
    "shelf": write_shelf, "runners": write_runners, "masks": write_masks,
}  # fmt: skip
"""How each is drawn."""


def timed(words: list[str], folder: Path) -> tuple[str, float, float]:
    """What a command of dvsn says, its CPU seconds and its wall-clock seconds. Raises where it fails."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", *words],
        cwd=folder,
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "100"},
    )
    after, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic() - start
    if done.returncode:
        raise SystemExit(f"{' '.join(words)}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    work = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return done.stdout + done.stderr, work, wall


def told(words: list[str], folder: Path) -> str:
    """Runs a command and adds what it says, and its times, to the transcript. Returns what it says."""
    said, work, wall = timed(words, folder)
    with (folder / "transcript.md").open("a", encoding="utf-8") as file:
        file.write(f"$ python -m {' '.join(words)}\n{said}[{work:.0f} s of CPU time, {wall:.0f} s]\n\n")
    return said


def advised(said: str) -> list[str]:
    """The words of the line by which `data init` says how to predict."""
    line = next(line for line in said.splitlines() if line.startswith("predict "))
    return shlex.split(line.split(maxsplit=3)[3])


def main() -> None:
    folder, chosen = Path(sys.argv[1]).absolute(), sys.argv[2:] or list(SETS)
    for name in chosen:
        SETS[name](folder / name)
        said = told(["dvsn.data", "init", name, f"name={name}", f"minutes={MINUTES}", "train=true"], folder)
        told([*advised(said), f"output=seen/{name}"], folder)


if __name__ == "__main__":
    main()
