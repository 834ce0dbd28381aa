"""The first operation on the device: bytes become the numbers that a network was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dvsn.errors import ConfigError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Normalise(nn.Module):
    """uint8 RGB (N, 3, H, W), or as many channels as `mean` and `std` have numbers -> float32, (value /
    255 - mean) / std. Training, teachers, prediction and export share it.

    `channels="bgr"` turns the channels around first, for networks that were trained on what OpenCV reads; `mean` and
    `std` are then of blue, green, red in this order.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        *,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        channels: Literal["rgb", "bgr"] = "rgb",
    ) -> None:
        super().__init__()
        if channels not in ("rgb", "bgr"):
            raise ConfigError(f"task.channels: found {channels!r}, expected rgb or bgr.")
        self.channels = channels
        if len(mean) != len(std) or not all(value > 0 for value in std):
            raise ConfigError(
                f"task.mean, task.std: found {list(mean)} and {list(std)}, expected as many numbers in both, all of "
                "std above 0; of pictures in [0, 1]."
            )
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1), persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        wanted = self.mean.shape[1]
        if wanted not in (1, image.shape[1]):
            raise ConfigError(
                f"task.mean: has {wanted} numbers, and a picture has {image.shape[1]} channels. `python -m dvsn.data stats` "
                "with the same data=... computes task.mean and task.std of your pictures."
            )
        image = image.flip(1) if self.channels == "bgr" else image
        return (image.float() / 255 - self.mean) / self.std


def fit(image: Tensor, size: Sequence[int] | None) -> Tensor:
    """Float pictures (N, C, H, W) at another size (H, W), bilinear with antialiasing; as they are where `size` is None."""
    if size is None or tuple(image.shape[-2:]) == tuple(size):
        return image
    return F.interpolate(image, size=tuple(size), mode="bilinear", align_corners=False, antialias=True)
