"""The labels of a batch, as the losses that need them want them."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from dvsn.errors import DataError
from dvsn.types import Batch


def labels_of(name: str, batch: Batch, key: str = "target") -> Tensor:
    if key not in batch:
        raise DataError(
            f"distill.{name}: needs the labels, but the batch has no `{key}`. Choose a method that needs none."
        )
    found: Tensor = batch[key]
    return found


def labels_on_grid(target: Tensor, like: Tensor) -> Tensor:
    """Label maps (N, H, W) or (N, 1, H, W) at the height and width of a map, by nearest neighbour: (N, h, w) int64."""
    maps = target.reshape(len(target), 1, *target.shape[-2:]).float()
    return F.interpolate(maps, size=like.shape[-2:], mode="nearest")[:, 0].to(like.device).long()
