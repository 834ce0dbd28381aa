"""Boxes of objects for FiftyOne; crowd regions have the attribute `iscrowd`. Masks are left out."""

from __future__ import annotations

from typing import Any

from dvsn.analysis.fiftyone.labels import FOUND, TRUTH, Label, detection, detections
from dvsn.types import Batch


def labels(task: Any, batch: Batch, output: list[dict[str, Any]]) -> list[dict[str, Label]]:
    names, rows = task.vocabulary.names, []
    for image, truth, found in zip(batch["image"], batch["target"], output, strict=True):
        sides = (int(image.shape[-2]), int(image.shape[-1]))
        crowd = truth["crowd"].tolist() if "crowd" in truth else [0] * len(truth["labels"])
        there = [
            detection(names[label], box, sides, **({"iscrowd": True} if many else {}))
            for label, box, many in zip(truth["labels"].tolist(), truth["boxes"].tolist(), crowd, strict=True)
        ]
        seen = [
            detection(names[label], box, sides, score)
            for label, box, score in zip(
                found["labels"].tolist(), found["boxes"].tolist(), found["scores"].tolist(), strict=True
            )
        ]
        rows.append({TRUTH: detections(there), FOUND: detections(seen)})
    return rows


def info(task: Any) -> dict[str, Any]:
    return {"default_classes": list(task.vocabulary.names)}
