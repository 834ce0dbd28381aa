"""Class maps for FiftyOne. There 0 is nothing, so the ids of classes begin with 1."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dvsn.analysis.fiftyone.labels import FOUND, TRUTH, Label, segmentation
from dvsn.types import IGNORE, Batch


def labels(task: Any, batch: Batch, output: Tensor) -> list[dict[str, Label]]:
    return [
        {TRUTH: segmentation(shifted(truth)), FOUND: segmentation(shifted(ids))}
        for truth, ids in zip(batch["target"][:, 0], output, strict=True)
    ]


def shifted(ids: Tensor) -> Any:
    """Ids (H, W) one higher, and 0 where they are ignored, as an array of uint8."""
    return torch.where(ids == IGNORE, 0, ids.int() + 1).to(torch.uint8).cpu().numpy()


def info(task: Any) -> dict[str, Any]:
    names = task.vocabulary.names
    return {
        "default_classes": list(names),
        "default_mask_targets": {str(number): name for number, name in enumerate(names, start=1)},
    }
