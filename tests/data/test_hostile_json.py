"""Every node of every JSON file that readers take, replaced by every other type: a message or a sound item."""

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dvsn.data.coco_files import read_detections
from dvsn.data.coco_people import CocoPeople
from dvsn.data.face_table import FaceTable
from dvsn.data.mpii import Mpii
from dvsn.data.objects import CocoObjects
from dvsn.errors import UserError
from dvsn.geometry.keypoints import KeypointSet
from dvsn.portable.frame import Frame
from dvsn.predict.person_boxes import from_annotations, picture_ids
from tests.support.coco import rectangle

KEYPOINTS = KeypointSet(names=["nose", "tail"])
WRONG: tuple[Any, ...] = (
    None, True, -1, 10**400, float("nan"), "", "x", [None], {"x": 1}
)  # fmt: skip

PERSON = {
    "id": 1, "image_id": 7, "category_id": 1, "bbox": [1, 2, 5, 4], "area": 20.0, "iscrowd": 0, "num_keypoints": 2,
    "keypoints": [2, 3, 2, 4, 5, 1], "segmentation": rectangle(1, 2, 5, 4), "center": [4, 4], "scale": 0.1, "box_size": 9,
}  # fmt: skip
COCO = {
    "images": [{"id": 7, "file_name": "x.png", "width": 12, "height": 8}],
    "annotations": [PERSON, {**PERSON, "id": 2, "segmentation": {"size": [8, 12], "counts": [5, 91]}}],
    "categories": [{"id": 1, "name": "person", "keypoints": ["nose", "tail"]}],
}
MPII = [{"image": "x.png", "center": [5, 5], "scale": 0.02, "joints": [[1, 2], [3, 4]], "joints_vis": [1, 1],
         "head_box": [[1, 1], [3, 3]]}]  # fmt: skip
DETECTIONS = [{"image_id": 7, "category_id": 1, "bbox": [1, 2, 5, 4], "score": 0.9}]


def places(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of a node and of all below it."""
    yield path
    below = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in below:
        yield from places(value, (*path, key))


def mutants(content: Any) -> Iterator[tuple[str, Any]]:
    """The content with one node replaced, or left out, in every way."""
    for path in places(content):
        for wrong in (*WRONG, "left out"):
            changed: Any = {"root": copy.deepcopy(content)}
            node, key = changed, "root"
            for step in path:
                node, key = node[key], step
            if wrong == "left out" and path and isinstance(node, dict):
                del node[key]
            else:
                node[key] = wrong
            yield f"{path} = {str(wrong)[:40]}", changed["root"]


def objects(root: Path) -> None:
    data = CocoObjects(
        root=str(root), split="train", classes=3, annotations="file.json", images=".", masks=True
    )
    for index in range(len(data)):
        assert data[index]["boxes"].shape[1:] == (4,)
        for each in data.truth(index):  # what COCO's evaluator gets
            assert np.isfinite([*each["bbox"], each["area"]]).all() and each["iscrowd"] in (0, 1)
            assert type(each["id"]) is int and each["category_id"] in data.categories


def people(root: Path) -> None:
    data = CocoPeople(root=str(root), split="train", keypoints=KEYPOINTS, annotations="file.json", images=".")
    assert [data[index]["keypoints"].shape for index in range(len(data))]
    assert data.annotations["annotations"]


def faces(root: Path) -> None:
    data = FaceTable(root=str(root), split="train", keypoints=KEYPOINTS, annotations="file.json", images=".")
    assert all(np.isfinite(data[index]["box"]).all() for index in range(len(data)))


def mpii(root: Path) -> None:
    data = Mpii(root=str(root), split="train", keypoints=KEYPOINTS, annotations="file.json", images=".")
    assert all(np.isfinite(data[index]["box"]).all() for index in range(len(data)))


def detections(root: Path) -> None:
    for each in read_detections(root / "file.json"):
        assert np.isfinite([*each["bbox"], each["score"]]).all() and type(each["image_id"]) is int


def boxes(root: Path) -> None:
    file, source = root / "file.json", root / "x.png"
    number = picture_ids([source], file)[source]
    frame = Frame(np.zeros((8, 12, 3), np.uint8), source.stem, source)
    assert from_annotations(file, None)(frame, number).boxes.shape[1:] == (4,)


READERS: dict[str, tuple[Callable[[Path], None], Any]] = {
    "objects": (objects, COCO), "people": (people, COCO), "faces": (faces, COCO), "mpii": (mpii, MPII),
    "detections": (detections, DETECTIONS), "boxes of predict": (boxes, COCO),
}  # fmt: skip


@pytest.mark.parametrize("name", READERS)
def test_a_node_of_another_type_is_named_or_harmless(name: str, tmp_path: Path) -> None:
    logging.disable(logging.WARNING)  # thousands of them
    read, content = READERS[name]
    Image.new("RGB", (12, 8)).save(tmp_path / "x.png")
    file = tmp_path / "file.json"
    tried, refused = 0, 0
    try:
        for what, mutant in mutants(content):
            file.write_text(json.dumps(mutant))
            tried += 1
            try:
                read(tmp_path)
            except UserError as error:
                refused += 1
                assert str(file) in str(error) or "x.png" in str(error), f"{what}: {error}"
            except Exception as error:  # noqa: BLE001 - the point of this test
                pytest.fail(f"{name}: {what}: {type(error).__name__}: {error}")
    finally:
        logging.disable(logging.NOTSET)
    assert tried >= 100 and refused > tried // 4
