"""The people of the scenes in COCO's keypoint format (Lin et al., 2014, arXiv:1405.0312)."""

from __future__ import annotations

from typing import Any

import numpy as np

from dvsn.data.street.people import JOINTS
from dvsn.data.street.scene import Person, Scene

Entry = dict[str, Any]

SMALLEST = 100  # visible pixels of a person whose joints are labelled
FEWEST = 5  # visible joints of such a person

LINES = (
    (16, 14), (14, 12), (17, 15), (15, 13), (12, 13), (6, 12), (7, 13), (6, 7), (6, 8), (7, 9), (8, 10),
    (9, 11), (2, 3), (1, 2), (1, 3), (2, 4), (3, 5), (4, 6), (5, 7),
)  # fmt: skip
"""COCO's skeleton; its format counts joints from 1."""


def describe(scene: Scene, *, image_id: int, file_name: str) -> tuple[Entry, list[Entry]]:
    """A scene's entry in `images`, and those of its people in `annotations`; ids of the latter are still missing."""
    height, width = scene.label_ids.shape
    image = {"id": image_id, "file_name": file_name, "width": width, "height": height}
    return image, [{"image_id": image_id, **annotation(person)} for person in scene.people]


def annotation(person: Person) -> Entry:
    """Box and area are those of the visible pixels. Of people that hardly show no joint is labelled, as in COCO."""
    x0, y0, x1, y1 = person.box
    joints = np.round(person.keypoints.astype(np.float64), 2)
    if person.area < SMALLEST or (joints[:, 2] == 2).sum() < FEWEST:
        joints[:] = 0
    return {
        "category_id": 1,
        "bbox": [x0, y0, x1 - x0, y1 - y0],
        "area": person.area,
        "iscrowd": 0,
        "num_keypoints": int((joints[:, 2] > 0).sum()),
        "keypoints": [number for x, y, v in joints.tolist() for number in (x, y, int(v))],
    }


def coco_file(scenes: list[tuple[Entry, list[Entry]]]) -> Entry:
    """The content of a split's file: annotations are numbered from 1, since 0 means "none" to COCO's evaluator."""
    people = [person for _, found in scenes for person in found]
    return {
        "info": {"description": "dvsn street scenes"},
        "licenses": [],
        "images": [image for image, _ in scenes],
        "annotations": [{"id": number, **person} for number, person in enumerate(people, 1)],
        "categories": [
            {
                "id": 1,
                "name": "person",
                "supercategory": "person",
                "keypoints": list(JOINTS),
                "skeleton": [list(line) for line in LINES],
            }
        ],
    }
