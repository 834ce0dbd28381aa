"""Labels in the form of FiftyOne's JSON: what is there and what was found, of one picture.

The file `dvsn/analysis/fiftyone/KIND.py`, where KIND is the task's `kind` or that of the task it is made from, has two
functions: `labels(task, batch, output)` gives a dictionary of labels by field for each picture of a batch, and
`info(task)` what FiftyOne keeps of the whole data set. All positions are shares of the picture's sides.

The form is that of `fiftyone.types.FiftyOneDataset` without a version, see
https://docs.voxel51.com/user_guide/import_datasets.html#fiftyonedataset.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import Any

from dvsn.analysis.analyst import kind_of_part

Label = dict[str, Any]
TRUTH, FOUND = "ground_truth", "predictions"
"""The fields of a sample."""


def find_labels(task: Any) -> ModuleType | None:
    """The file of a task's kind; None where there is none."""
    return kind_of_part("dvsn.analysis.fiftyone", task, "labels")


def classification(name: str, confidence: float | None = None) -> Label:
    return {"_cls": "Classification", "label": name} | _sure(confidence)


def segmentation(mask: Any) -> Label:
    """`mask` (H, W) uint8; 0 is nothing. It is written as a file, whose path takes its place."""
    return {"_cls": "Segmentation", "mask": mask}


def detection(
    name: str, box: Sequence[float], sides: tuple[int, int], confidence: float | None = None, **more: Any
) -> Label:
    """`box` x1, y1, x2, y2 in pixels of a picture with these sides (H, W)."""
    left, top, right, bottom = box
    height, width = sides
    place = [left / width, top / height, (right - left) / width, (bottom - top) / height]
    return {"_cls": "Detection", "label": name, "bounding_box": place} | _sure(confidence) | more


def detections(found: list[Label]) -> Label:
    return {"_cls": "Detections", "detections": found}


def keypoints(
    name: str,
    points: Sequence[Sequence[float]],
    sides: tuple[int, int],
    confidence: Sequence[float] | None = None,
) -> Label:
    """`points` x, y in pixels whose centres are whole numbers; NaN where a point is not labelled."""
    height, width = sides
    places = [[(x + 0.5) / width, (y + 0.5) / height] for x, y in points]
    sure = {} if confidence is None else {"confidence": [float(each) for each in confidence]}
    return {"_cls": "Keypoints", "keypoints": [{"_cls": "Keypoint", "label": name, "points": places} | sure]}


def _sure(confidence: float | None) -> Label:
    return {} if confidence is None else {"confidence": float(confidence)}
