"""Classes of pictures for FiftyOne."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from dvsn.analysis.fiftyone.labels import FOUND, TRUTH, Label, classification
from dvsn.types import Batch


def labels(task: Any, batch: Batch, output: Tensor) -> list[dict[str, Label]]:
    names = task.names
    shares, answers = output.float().softmax(dim=1).max(dim=1)
    return [
        {TRUTH: classification(names[true]), FOUND: classification(names[answer], share)}
        for true, answer, share in zip(
            batch["target"].tolist(), answers.tolist(), shares.tolist(), strict=True
        )
    ]


def info(task: Any) -> dict[str, Any]:
    return {"default_classes": list(task.names)}
