"""A video of the street: `python experiments/video/street_video.py street.mp4 seconds=10 rate=30 size=640x360`.

One scene is drawn large, and a camera walks along it: it sways from side to side, bobs with each step and comes nearer,
so that the street fills the picture and what stands at its sides leaves it. Nothing moves by itself, and there is no
parallax. What is known of the scene goes where the picture goes: `walk` gives it frame by frame, and `truth=FILE` writes
it as COCO annotations, so that a prediction can be measured.
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from dvsn.data.street.scene import Scene, draw_scene
from dvsn.predict.video import VideoWriter

LARGER = 2.0  # the scene's height, as a multiple of the video's
NEARER = 1.6  # how much larger things are at the end


def walk(
    scene: Scene, *, height: int, width: int, count: int, rate: float
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Each frame (H, W, 3), and the map (2, 3) from the scene's pixels to the frame's."""
    high, wide = scene.photo.shape[:2]
    horizon = 0.46 * high
    for number in range(count):
        time = number / rate
        part = number / max(count - 1, 1)
        scale = height / high * (1.1 + (NEARER - 1.1) * part)
        reach = (wide - width / scale) / 2  # how far the camera may look aside
        x = wide / 2 + 0.9 * reach * math.sin(2 * math.pi * time / 8)
        y = horizon + 0.01 * high * math.sin(2 * math.pi * 1.8 * time)
        move = np.array([[scale, 0, width / 2 - scale * x], [0, scale, 0.46 * height - scale * y]])
        frame = cv2.warpAffine(
            scene.photo, move, (width, height), flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REPLICATE
        )
        yield frame, move


def moved(box: Any, move: np.ndarray, height: int, width: int) -> list[float] | None:
    """x, y, width, height of a box (x0, y0, x1, y1) in a frame; None where less than a quarter of it is inside."""
    corners = np.reshape(box, (2, 2)) @ move[:, :2].T + move[:, 2]
    inside = np.clip(corners, 0, [width, height])
    if np.prod(inside[1] - inside[0]) < 0.25 * np.prod(corners[1] - corners[0]):
        return None
    return [*map(float, inside[0]), *map(float, inside[1] - inside[0])]


def write(path: Path, *, seed: int = 3, seconds: float = 10, rate: Fraction = Fraction(30), size: str = "640x360",
          truth: str | None = None) -> int:  # fmt: skip
    """The video, and the annotations if they are wanted. Returns the number of frames."""
    width, height = map(int, size.split("x"))
    scene = draw_scene(seed=seed, index=0, height=round(LARGER * height), width=round(1.25 * LARGER * width))
    count = round(seconds * rate)
    annotations: list[dict[str, Any]] = []
    with VideoWriter(path, rate=rate).opened() as writer:
        for number, (frame, move) in enumerate(
            walk(scene, height=height, width=width, count=count, rate=float(rate))
        ):
            writer(frame, None)
            things = [(1, each) for each in scene.people] + [(3, each) for each in scene.cars]
            for category, thing in things:
                box = moved(thing.box, move, height, width)
                if box is not None:
                    annotations.append({
                        "id": len(annotations) + 1, "image_id": number + 1, "category_id": category, "bbox": box,
                        "area": box[2] * box[3], "iscrowd": 0, "thing": thing.instance_id,
                    })  # fmt: skip
    if truth is not None:
        images = [
            {"id": n + 1, "file_name": f"{path.stem}_{n:06d}", "height": height, "width": width}
            for n in range(count)
        ]
        categories = [{"id": 1, "name": "person"}, {"id": 3, "name": "car"}]
        content = {"images": images, "annotations": annotations, "categories": categories}
        Path(truth).write_text(json.dumps(content), encoding="utf-8")
    return count


if __name__ == "__main__":
    given = dict(each.split("=", 1) for each in sys.argv[2:])
    types = {"seed": int, "seconds": float, "rate": Fraction, "size": str, "truth": str}
    if len(sys.argv) < 2 or not re.search(r"\.mp4$", sys.argv[1]) or not given.keys() <= types.keys():
        raise SystemExit(__doc__)
    options: dict[str, Any] = {key: types[key](value) for key, value in given.items()}
    print(write(Path(sys.argv[1]), **options), "frames in", sys.argv[1])
