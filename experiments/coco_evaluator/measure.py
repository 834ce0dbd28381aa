"""CPU seconds of COCO's average precision by both evaluators, in turns, on made-up detections: `python measure.py`."""

from __future__ import annotations

import copy
import time
from typing import Any, get_args

import numpy as np
from numpy.random import Generator, default_rng
from pycocotools import mask as rle

from dvsn.metrics.coco_evaluator import Evaluator, evaluated

HEIGHT, WIDTH, JOINTS, TURNS = 480, 640, 17, 3
SIZES = {"bbox": (1500, 60, 80), "segm": (600, 60, 80), "keypoints": (1500, 20, 1)}
"""Pictures, detections a picture and classes."""


def shaped(rng: Generator, kind: str, row: dict[str, Any]) -> dict[str, Any]:
    x, y, width, height = row["bbox"]
    row |= {"iscrowd": 0, "area": width * height}
    if kind == "segm":
        mask = np.zeros((HEIGHT, WIDTH), np.uint8, order="F")
        mask[int(y) : int(y + height) + 1, int(x) : int(x + width) + 1] = 1
        row["segmentation"] = {"size": [HEIGHT, WIDTH], "counts": rle.encode(mask)["counts"].decode()}
    if kind == "keypoints":
        points = rng.uniform((x, y), (x + width, y + height), (JOINTS, 2))
        row["keypoints"] = np.column_stack([points, np.full(JOINTS, 2)]).ravel().tolist()
        row["num_keypoints"] = JOINTS
    return row


def files(kind: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """1 to 15 objects a picture; every detection lies near one of them."""
    rng = default_rng(0)
    count, detections, classes = SIZES[kind]
    shared = {
        "images": [{"id": n, "height": HEIGHT, "width": WIDTH} for n in range(1, count + 1)],
        "categories": [{"id": n, "name": str(n)} for n in range(1, classes + 1)],
    }
    truth: list[dict[str, Any]] = []
    found: list[dict[str, Any]] = []
    for image in range(1, count + 1):
        mine = []
        for _ in range(int(rng.integers(1, 16))):
            box = [*rng.uniform((0, 0), (500, 350)), *rng.uniform(5, 120, 2)]
            row = {"image_id": image, "category_id": int(rng.integers(classes)) + 1, "bbox": box}
            mine.append(shaped(rng, kind, row))
        for _ in range(detections):
            near = mine[int(rng.integers(len(mine)))]
            box = [max(0.0, float(value + rng.normal(0, 4))) for value in near["bbox"]]
            row = {"image_id": image, "category_id": near["category_id"], "bbox": box, "score": rng.random()}
            row = shaped(rng, kind, row)
            if kind == "keypoints":
                row["keypoints"] = (np.array(near["keypoints"]) + rng.normal(0, 3, 3 * JOINTS)).tolist()
            found.append(row)
        truth += mine
    for rows in (truth, found):
        for number, row in enumerate(rows, 1):
            row["id"] = number
    return {**shared, "annotations": truth}, {**shared, "annotations": found}


def main() -> None:
    for kind in SIZES:
        made = files(kind)
        sigmas = np.full(JOINTS, 0.05) if kind == "keypoints" else None
        seconds: dict[str, list[float]] = {name: [] for name in get_args(Evaluator)}
        figures = {}
        for _ in range(TURNS):
            for name in get_args(Evaluator):
                copied = copy.deepcopy(made)
                start = time.process_time()
                figures[name] = evaluated(*copied, kind, evaluator=name, sigmas=sigmas).stats
                seconds[name].append(time.process_time() - start)
        plain, fast = seconds.values()
        apart = np.abs(np.subtract(*figures.values())).max()
        shown = {name: [round(each, 2) for each in values] for name, values in seconds.items()}
        ratios = [round(a / b, 1) for a, b in zip(plain, fast, strict=True)]
        print(
            kind, len(made[1]["annotations"]), shown, "ratios", ratios, "figures differ by", apart, flush=True
        )


if __name__ == "__main__":
    main()
