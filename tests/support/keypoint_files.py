"""A picture of people in COCO's keypoint format, as `conf/data/keypoints.yaml` reads it, and a data module for it."""

from __future__ import annotations

import copy
import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dvsn.data.module import DataModule
from dvsn.engine import trainer as runtime
from tests.support.tiny import composed

Entry = dict[str, Any]

LABELLED = [10.0, 20.0, 2, 30.0, 40.0, 1, 7.0, 7.0, 0]


def person(number: int, box: list[Any], **changes: Any) -> Entry:
    """An annotation of three keypoints: seen, hidden, not labelled."""
    return {
        "id": number, "image_id": 7, "category_id": 1, "bbox": box, "area": 50.0, "iscrowd": 0,
        "keypoints": LABELLED, "num_keypoints": 2,
    } | changes  # fmt: skip


def write_set(root: Path, *people: Entry, split: str = "val", **changes: Any) -> Path:
    """A picture of 100 x 80 (width x height), and the file that `conf/data/keypoints.yaml` reads."""
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    (root / "images").mkdir(exist_ok=True)
    random = np.random.default_rng(sum(map(ord, split)))
    picture = random.integers(0, 256, (80, 100, 3), dtype=np.uint8)
    Image.fromarray(picture).save(root / "images" / f"{split}.png")
    names = ["nose", "left_eye", "right_eye"]
    content = {
        "images": [{"id": 7, "file_name": f"{split}.png", "width": 100, "height": 80}],
        "annotations": list(people) or [person(1, [5, 10, 30, 40])],
        "categories": [{"id": 1, "name": "person", "keypoints": names}, {"id": 3, "name": "car"}],
    }
    path = root / "annotations" / f"{split}.json"
    path.write_text(json.dumps(content | changes))
    return path


OWN = (
    "data.keypoints.names=[nose,left_eye,right_eye]",
    "data.keypoints.skeleton=[[nose,left_eye],[nose,right_eye]]",
    "data.keypoints.sigmas=[0.026,0.025,0.025]",
)
"""What a set of one's own says of the three keypoints of `write_set`."""


@functools.cache
def compose_once(data: str, *options: str) -> Entry:
    own = OWN if data == "keypoints" else ()
    return composed(["task=pose", f"data={data}", "data.workers=0", *own, *options], Path("runs/test"))


def module(root: Path, *options: str, data: str = "keypoints") -> DataModule:
    config = copy.deepcopy(compose_once(data, *options))
    config["data"]["root"] = str(root)
    made = runtime.build_data(config)
    made.use("people")
    return made
