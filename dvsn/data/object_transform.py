"""Augmentation of pictures with objects: a mirror that takes boxes and masks along, and steps that recolour."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch

from dvsn.data.transforms import Transform
from dvsn.errors import ConfigError
from dvsn.types import Sample


class DetectionTransform:
    """A sample of objects -> tensors; torchvision's detectors resize and normalise themselves.

    In: `photo`, `boxes`, `labels`, `crowd`, `area`, perhaps `masks` and `stuff`, as `ObjectDataset` gives them. Out: `image`
    uint8 (3, H, W) and `target`, a dict of `boxes` (n, 4) float32, `labels` (n,) int64, `crowd` (n,) uint8, `area` (n,)
    float32 and perhaps `masks` (n, H, W) and `stuff` (H, W) uint8; `index`, `name`.

    `flip` is the probability of a mirror: an edge at x goes to W - x. `steps` are albumentations that recolour. All
    that is random follows from the item's seed.
    """

    treats: ClassVar[str] = "objects"

    def __init__(self, *, flip: float = 0.0, steps: Sequence[Any] = ()) -> None:
        if not 0 <= flip <= 1:
            raise ConfigError(f"transform.train.flip: found {flip}, expected a probability from 0 to 1.")
        self.flip = flip
        self.recolour = Transform(steps=steps)
        self.recolour.forbid_moves()

    def __call__(self, sample: Sample, item_seed: int) -> Sample:
        random = np.random.default_rng(item_seed)
        photo, boxes = sample["photo"], sample["boxes"]
        planes: dict[str, np.ndarray] = {key: sample[key] for key in ("masks", "stuff") if key in sample}
        if self.flip and random.random() < self.flip:
            width = photo.shape[1]
            photo = photo[:, ::-1]
            boxes = np.stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], axis=1)
            planes = {key: plane[..., ::-1].copy() for key, plane in planes.items()}
        photo = self.recolour.photo(np.ascontiguousarray(photo), item_seed)
        kept = {key: sample[key] for key in ("labels", "crowd", "area")}
        target = {"boxes": boxes, **kept, **planes}
        return {
            "image": torch.from_numpy(np.ascontiguousarray(photo.transpose(2, 0, 1))),
            "target": {key: torch.from_numpy(np.ascontiguousarray(value)) for key, value in target.items()},
            "index": sample["index"],
            "name": sample["name"],
        }
