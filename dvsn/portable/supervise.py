"""Results as records of the library supervision, where it is installed."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np

from dvsn.errors import ConfigError
from dvsn.portable.record import Record

Array = np.ndarray[Any, Any]


def to_supervision(result: Record) -> Any:
    """See `Result.to_supervision`."""
    try:
        import supervision
    except ImportError as error:
        raise ConfigError(
            "to_supervision: the library supervision is not installed. Run: pip install supervision"
        ) from error
    if result.classes is not None:
        numbers = np.array([each.number for each in result.classes], int)
        scores = np.array([each.score for each in result.classes])
        return supervision.Classifications(class_id=numbers, confidence=scores)
    found = result.keypoints if result.keypoints is not None else result.points
    if found is not None:
        if not len(found):
            return supervision.KeyPoints.empty()
        return _keypoints(supervision, result, found)
    if result.labels is not None:
        return _detections(supervision, result)
    if result.ids is not None:
        return _regions(supervision, result)
    raise ConfigError(
        f"to_supervision: supervision has no record for the answer of {result.kind}. Use .picture."
    )


def _keypoints(supervision: Any, result: Record, found: Array) -> Any:
    """People or faces; their scores too where this version of the library keeps them."""
    confidence = found[..., 2].astype(np.float32)
    known = inspect.signature(supervision.KeyPoints).parameters
    given: dict[str, Any] = {"confidence": confidence}
    if "keypoint_confidence" in known:  # from 0.27 on
        scores = None if result.scores is None else result.scores.astype(np.float32)
        given = {"keypoint_confidence": confidence, "detection_confidence": scores}
    names = np.array([result.names[0] if result.names else result.kind] * len(found))
    return supervision.KeyPoints(
        xy=found[..., :2].astype(np.float32),
        class_id=np.zeros(len(found), int),
        data={"class_name": names},
        **given,
    )


def _detections(supervision: Any, result: Record) -> Any:
    """Objects with their boxes, masks, scores and names."""
    assert result.boxes is not None and result.labels is not None
    if not len(result):
        return supervision.Detections.empty()
    return supervision.Detections(
        xyxy=result.boxes.astype(np.float32),
        mask=result.masks,
        confidence=result.scores,
        class_id=result.labels.astype(int),
        tracker_id=result.track_ids,
        data={"class_name": np.array([result.names[label] for label in result.labels.tolist()])},
    )


def _regions(supervision: Any, result: Record) -> Any:
    """The pixels of each class that is there, with the box around them."""
    assert result.ids is not None
    labels = [label for label in np.unique(result.ids).tolist() if label < len(result.names)]
    if not labels:
        return supervision.Detections.empty()
    masks = np.array([result.ids == label for label in labels])
    boxes = []
    for mask in masks:
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        boxes.append([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
    return supervision.Detections(
        xyxy=np.array(boxes, np.float32),
        mask=masks,
        class_id=np.array(labels, int),
        data={"class_name": np.array([result.names[label] for label in labels])},
    )
