"""A small COCO tree of coloured rectangles: its annotations, its pictures, its run lengths."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np

HEIGHT, WIDTH = 48, 64


SAMPLE = Path(os.environ.get("DVSN_DATA", "data")) / "coco_sample"


def rectangle(x: int, y: int, w: int, h: int) -> list[list[float]]:
    """COCO's polygon of a box."""
    return [[x, y, x + w, y, x + w, y + h, x, y + h]]


def column_runs(mask: np.ndarray) -> dict[str, Any]:
    """COCO's uncompressed run lengths, by hand: columns first, zeros first."""
    flat = mask.T.flatten()
    starts = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff([0, *starts.tolist(), len(flat)]).tolist()
    return {"size": list(mask.shape), "counts": [0, *runs] if flat[0] else runs}


def content_of(count: int, seed: int = 0) -> dict[str, Any]:
    """Pictures of up to three rectangles: 1 red, 3 blue. The last picture is empty; the first has a crowd too."""
    random = np.random.default_rng(seed)
    content: dict[str, Any] = {
        "images": [
            {"id": 10 + i, "file_name": f"{10 + i:012d}.png", "height": HEIGHT, "width": WIDTH}
            for i in range(count)
        ],
        "annotations": [],
        "categories": [{"id": 1, "name": "red"}, {"id": 3, "name": "blue"}],
    }
    for i in range(count - 1):
        for part in range(2):
            w, h = (int(side) for side in random.integers(10, 24, 2))
            x, y = 32 * part + int(random.integers(0, 32 - w)), int(random.integers(0, HEIGHT - h))
            content["annotations"].append(
                {
                    "id": 100 + len(content["annotations"]), "image_id": 10 + i, "category_id": 1 + 2 * part,
                    "bbox": [x, y, w, h], "area": w * h, "iscrowd": 0, "segmentation": rectangle(x, y, w, h),
                }
            )  # fmt: skip
    crowd = np.zeros((HEIGHT, WIDTH), np.uint8)
    crowd[40:48, 2:9] = 1
    content["annotations"].append(
        {
            "id": 7, "image_id": 10, "category_id": 1, "bbox": [2, 40, 7, 8], "area": 56, "iscrowd": 1,
            "segmentation": column_runs(crowd),
        }
    )  # fmt: skip
    return content


def write_coco(root: Path, *, train: int = 6, val: int = 3) -> Path:
    """A COCO tree of coloured rectangles on grey."""
    for number, (split, count) in enumerate((("train", train), ("val", val))):
        content = content_of(count, seed=number)
        save(root, content, split)
        folder = root / "images" / f"{split}2017"
        folder.mkdir(parents=True, exist_ok=True)
        for image in content["images"]:
            picture = np.full((HEIGHT, WIDTH, 3), 120, np.uint8)
            for each in content["annotations"]:
                if each["image_id"] == image["id"] and not each["iscrowd"]:
                    x, y, w, h = each["bbox"]
                    picture[y : y + h, x : x + w] = (
                        (40, 40, 220) if each["category_id"] == 1 else (220, 60, 40)
                    )  # BGR
            cv2.imwrite(str(folder / image["file_name"]), picture)
    return root


def save(root: Path, content: Any, split: str = "train") -> Path:
    file = root / "annotations" / f"instances_{split}2017.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))
    return file
