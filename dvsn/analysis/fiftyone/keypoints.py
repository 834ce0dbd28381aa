"""Keypoints of people and faces for FiftyOne, in the crops that the network has seen."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dvsn.analysis.fiftyone.labels import FOUND, TRUTH, Label, keypoints
from dvsn.types import Batch

WHO = {"people": "person", "faces": "face"}


def labels(task: Any, batch: Batch, output: Tensor) -> list[dict[str, Label]]:
    """A point without a weight, which nobody has labelled, is NaN."""
    offset = batch["offset"].view(-1, 1, 1) if "offset" in batch else 0.0
    places = (output[..., :2] - offset).float().cpu()
    truth = torch.where(batch["weight"][..., None] > 0, batch["keypoints"] - offset, torch.nan).float().cpu()
    sides = (int(batch["image"].shape[-2]), int(batch["image"].shape[-1]))
    who = WHO.get(task.shows, task.shows)
    return [
        {TRUTH: keypoints(who, there, sides), FOUND: keypoints(who, seen, sides, sure)}
        for there, seen, sure in zip(
            truth.tolist(), places.tolist(), output[..., 2].float().tolist(), strict=True
        )
    ]


def info(task: Any) -> dict[str, Any]:
    known = task.keypoints
    edges = [[int(one), int(other)] for one, other in known.skeleton]
    return {"default_skeleton": {"labels": list(known.names), "edges": edges}}
