"""The data set for FiftyOne, against its documented form. FiftyOne itself is not asked."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from dvsn.analysis.fiftyone import classification, detection, keypoints, segmentation
from dvsn.analysis.fiftyone.folder import Folder
from dvsn.analysis.fiftyone.labels import find_labels
from dvsn.engine.fiftyone import FiftyOneFolder
from dvsn.errors import ConfigError
from dvsn.tasks.detection import Detection
from dvsn.tasks.landmarks import Landmarks
from dvsn.tasks.pix2pix import Pix2Pix
from dvsn.tasks.pose import Pose


def read(folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    metadata, samples = (
        json.loads((folder / f"{name}.json").read_text()) for name in ("metadata", "samples")
    )
    return metadata, samples["samples"]


def test_class_maps_begin_with_one() -> None:
    task = SimpleNamespace(vocabulary=SimpleNamespace(names=("road", "car")))
    truth = torch.tensor([[[[0, 1, 255]]]], dtype=torch.uint8)
    (labels,) = segmentation.labels(task, {"target": truth}, torch.tensor([[[1, 1, 0]]], dtype=torch.uint8))
    assert labels["ground_truth"]["mask"].tolist() == [[1, 2, 0]] and labels["predictions"][
        "mask"
    ].tolist() == [[2, 2, 1]]
    assert segmentation.info(task)["default_mask_targets"] == {"1": "road", "2": "car"}


def test_classes_of_pictures() -> None:
    task = SimpleNamespace(names=("a", "b"))
    (labels,) = classification.labels(task, {"target": torch.tensor([0])}, torch.tensor([[0.25, 0.75]]).log())
    assert labels["ground_truth"] == {"_cls": "Classification", "label": "a"}
    assert labels["predictions"] == {
        "_cls": "Classification",
        "label": "b",
        "confidence": pytest.approx(0.75),
    }


def test_boxes_are_shares_of_the_picture() -> None:
    task = SimpleNamespace(vocabulary=SimpleNamespace(names=("background", "car")))
    boxes = torch.tensor([[10.0, 5.0, 30.0, 25.0]])
    truth = {"boxes": boxes, "labels": torch.tensor([1]), "crowd": torch.tensor([1])}
    found = {"boxes": boxes, "labels": torch.tensor([1]), "scores": torch.tensor([0.5])}
    (labels,) = detection.labels(task, {"image": [torch.zeros(3, 50, 100)], "target": [truth]}, [found])
    (there,), (seen,) = labels["ground_truth"]["detections"], labels["predictions"]["detections"]
    assert there == {
        "_cls": "Detection",
        "label": "car",
        "bounding_box": [0.1, 0.1, 0.2, 0.4],
        "iscrowd": True,
    }
    assert seen == {
        "_cls": "Detection",
        "label": "car",
        "bounding_box": [0.1, 0.1, 0.2, 0.4],
        "confidence": 0.5,
    }


def test_points_lie_in_the_middle_of_their_pixels() -> None:
    task = SimpleNamespace(shows="faces", keypoints=SimpleNamespace(names=("a", "b"), skeleton=[(0, 1)]))
    batch = {
        "image": torch.zeros(1, 3, 10, 20), "keypoints": torch.tensor([[[9.5, 4.5], [3.0, 3.0]]]),
        "weight": torch.tensor([[1.0, 0.0]]), "offset": torch.tensor([0.5]),
    }  # fmt: skip
    (labels,) = keypoints.labels(task, batch, torch.tensor([[[10.0, 5.0, 0.9], [0.0, 0.0, 0.1]]]))
    (there,), (seen,) = labels["ground_truth"]["keypoints"], labels["predictions"]["keypoints"]
    assert there["points"][0] == [9.5 / 20, 4.5 / 10] and there["label"] == "face", "pixel (9, 4)"
    assert all(math.isnan(each) for each in there["points"][1]), "nobody has labelled it"
    assert seen["points"][0] == [0.5, 0.5] and seen["confidence"] == pytest.approx([0.9, 0.1])
    assert keypoints.info(task) == {"default_skeleton": {"labels": ["a", "b"], "edges": [[0, 1]]}}


def test_two_processes_write_one_data_set(tmp_path: Path) -> None:
    ranks = [Folder(tmp_path, rank=rank) for rank in range(2)]
    ranks[0].start()
    mask = np.full((4, 6), 3, np.uint8)
    for index in range(5):
        picture = np.full((4, 6, 3), 40 * index, np.uint8)
        label = {"_cls": "Segmentation", "mask": mask}
        ranks[index % 2].add(
            index,
            f"a/{index} é",
            picture,
            {"predictions": label},
            split="val",
            **{"a score": 0.5, "none": math.nan},
        )
    ranks[0].finish(name="mine", info={"default_classes": ["x"]})
    metadata, samples = read(tmp_path)
    assert metadata == {"name": "mine", "media_type": "image", "info": {"default_classes": ["x"]}}
    assert "version" not in metadata, "FiftyOne takes that for its own export"
    assert [each["name"] for each in samples] == [f"a/{index} é" for index in range(5)]
    assert samples[3] == {
        "filepath": "data/0000003_a_3_.jpg", "tags": ["val"], "name": "a/3 é", "a_score": 0.5,
        "predictions": {"_cls": "Segmentation", "mask_path": "fields/predictions/0000003_a_3_.png"},
    }  # fmt: skip
    for each in samples:
        shown = cv2.imread(str(tmp_path / each["filepath"]))
        stored = cv2.imread(str(tmp_path / each["predictions"]["mask_path"]), cv2.IMREAD_UNCHANGED)
        assert shown is not None and stored is not None and np.array_equal(stored, mask)
    (tmp_path / "data" / "mine.jpg").write_bytes(b"x")
    Folder(tmp_path).start()
    left = [each.relative_to(tmp_path).as_posix() for each in tmp_path.rglob("*") if each.is_file()]
    assert left == ["data/mine.jpg"], "an earlier data set is gone, and nothing else"


@pytest.mark.parametrize(
    ("kind", "part"), [(Pose, keypoints), (Landmarks, keypoints), (Detection, detection), (Pix2Pix, None)]
)
def test_labels_are_found_by_the_kind_of_task(kind: Any, part: Any) -> None:
    assert find_labels(kind.__new__(kind)) is part


def test_a_task_without_labels_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match="fiftyone: FiftyOne has no labels for what the task 'pix2pix' answers"
    ):
        FiftyOneFolder(Pix2Pix.__new__(Pix2Pix), folder=tmp_path, name="a", split="val", scores=list)
