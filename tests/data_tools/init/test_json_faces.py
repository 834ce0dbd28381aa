"""Faces in JSON files, as mmpose has them, and JSON files of no split's name."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from dvsn.data_tools.init import choose, splits
from dvsn.data_tools.init.listing import Listing
from dvsn.errors import DataError
from tests.support.own_data import save


def mmpose_file(path: Path, pictures: list[str], joints: int = 5) -> None:
    """A face a picture, with a centre and a scale."""
    images = [{"id": i, "file_name": name, "width": 64, "height": 64} for i, name in enumerate(pictures, 1)]
    points = np.random.default_rng(0).uniform(20, 44, (len(pictures), joints, 2))
    faces = [
        {"id": i, "image_id": i, "category_id": 1, "bbox": [10, 10, 40, 40], "center": [32.0, 32.0], "scale": 0.2,
         "keypoints": np.insert(points[i - 1], 2, 1, axis=1).ravel().tolist()}
        for i in range(1, len(pictures) + 1)
    ]  # fmt: skip
    content = {
        "images": images,
        "annotations": faces,
        "categories": [{"id": 1, "name": "face", "keypoints": []}],
    }
    path.write_text(json.dumps(content))


def test_faces_in_the_form_of_mmpose(tmp_path: Path) -> None:
    """Landmarks, not a pose; several versions of one file are one, and a split alone is the whole."""
    names = [f"{i}.png" for i in range(1, 9)]
    for name in names:
        save(tmp_path / name, np.zeros((64, 64, 3), np.uint8))
    mmpose_file(tmp_path / "test_faces.json", names)
    mmpose_file(tmp_path / "test_faces_again.json", names)
    found, _, others = choose.choose(Listing.of(tmp_path))
    assert (found.task, found.base, found.counts) == ("landmarks", "face_json", {"test": 8})
    assert found.node["people"]["annotations"] == "{split}_faces.json"
    assert {each.task for each in others} == {"pose", "detection"}
    plan = splits.plan(found.counts, items=found.items)
    assert plan.splits == {"train": "test[:80%]", "val": "test[80%:]", "test": "test[80%:]"}
    assert plan.says[0].startswith(
        "test is the only split, and is taken for the whole: parted by ratio 80/20"
    )


def test_files_of_other_pictures_and_no_split_are_refused(tmp_path: Path) -> None:
    for place, name in enumerate(("one", "two")):
        pictures = [f"{place}{i}.png" for i in range(4)]
        for each in pictures:
            save(tmp_path / each, np.zeros((64, 64, 3), np.uint8))
        mmpose_file(tmp_path / f"{name}.json", pictures)
    with pytest.raises(
        DataError, match=r"2 files of annotations in COCO's format.*Put train and val into their names"
    ):
        choose.choose(Listing.of(tmp_path))
