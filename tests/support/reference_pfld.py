"""PFLD written from its table and from what is known of the published code: keys with shapes, and answers of a raw state."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.support.reference_hrnet import Reference, Shapes, conv, norm, pair

BLOCKS = {
    "conv3_1": (64, 64, 2), "block3_2": (64, 64, 2), "block3_3": (64, 64, 2), "block3_4": (64, 64, 2),
    "block3_5": (64, 64, 2), "conv4_1": (64, 128, 2), "conv5_1": (128, 128, 4), "block5_2": (128, 128, 4),
    "block5_3": (128, 128, 4), "block5_4": (128, 128, 4), "block5_5": (128, 128, 4), "block5_6": (128, 128, 4),
    "conv6_1": (128, 16, 2),
}  # fmt: skip
"""Inputs, outputs and expansion; those called conv have no shortcut."""


def backbone_keys(landmarks: int = 98, width: float = 1.0, side: int = 7, *, flatten: bool = False) -> Shapes:
    w = {channels: int(channels * width) for channels in (16, 32, 64, 128)}
    shapes = (
        conv("conv1", w[64], 3, 3) | norm("bn1", w[64]) | conv("conv2", w[64], w[64], 3) | norm("bn2", w[64])
    )
    for key, (inputs, outputs, expansion) in BLOCKS.items():
        wide = expansion * w[inputs]
        for place, (a, b, kernel) in {
            0: (wide, w[inputs], 1),
            3: (wide, 1, 3),
            6: (w[outputs], wide, 1),
        }.items():
            shapes |= conv(f"{key}.conv.{place}", a, b, kernel) | norm(f"{key}.conv.{place + 1}", a)
    shapes |= (
        pair("conv7", w[32], w[16], 3) | conv("conv8", w[128], w[32], side, bias=True) | norm("bn8", w[128])
    )
    joined = w[16] * (4 * side**2 if flatten else 1) + w[32] * (side**2 if flatten else 1) + w[128]
    return shapes | {"fc.weight": [2 * landmarks, joined], "fc.bias": [2 * landmarks]}


def auxiliary_keys(width: float = 1.0, side: int = 7) -> Shapes:
    shapes = pair("conv1", 128, int(64 * width), 3) | pair("conv2", 128, 128, 3)
    shapes |= pair("conv3", 32, 128, 3) | pair("conv4", 128, 32, side)
    return shapes | {"fc1.weight": [32, 128], "fc1.bias": [32], "fc2.weight": [3, 32], "fc2.bias": [3]}


def pfld_keys(landmarks: int = 98, width: float = 1.0, side: int = 7) -> Shapes:
    """Both networks, as one flat dict."""
    shapes = {f"pfld_backbone.{k}": v for k, v in backbone_keys(landmarks, width, side).items()}
    return shapes | {f"auxiliarynet.{k}": v for k, v in auxiliary_keys(width, side).items()}


class PFLDReference(Reference):
    """Reads the flat dict."""

    shortcuts = tuple(key for key in BLOCKS if key.startswith("block"))

    def __init__(self, state: Mapping[str, Tensor], **options: Any) -> None:
        super().__init__({k.removeprefix("pfld_backbone."): v for k, v in state.items()}, **options)

    def conv(self, x: Tensor, key: str, stride: int = 1, padding: int | None = None) -> Tensor:
        weight, bias = self.state[f"{key}.weight"], self.state.get(f"{key}.bias")
        padding = weight.shape[-1] // 2 if padding is None else padding
        return F.conv2d(x, weight, bias, stride, padding, groups=x.shape[1] // weight.shape[1])

    def step(
        self, x: Tensor, conv_key: str, norm_key: str, stride: int = 1, padding: int | None = None
    ) -> Tensor:
        return F.relu(self.norm(self.conv(x, conv_key, stride, padding), norm_key))

    def inverted(self, x: Tensor, key: str) -> Tensor:
        y = self.step(x, f"{key}.conv.0", f"{key}.conv.1")
        y = self.step(y, f"{key}.conv.3", f"{key}.conv.4", 2 if key in ("conv3_1", "conv4_1") else 1)
        y = self.norm(self.conv(y, f"{key}.conv.6"), f"{key}.conv.7")
        return x + y if key in self.shortcuts else y

    def linear(self, x: Tensor, key: str) -> Tensor:
        return x @ self.state[f"{key}.weight"].T + self.state[f"{key}.bias"]

    def pfld(self, image: Tensor, *, flatten: bool = False) -> tuple[Tensor, Tensor]:
        """The numbers x0, y0, x1, y1, ... and the angles."""
        x = self.step(image, "conv1", "bn1", 2)
        x = early = self.step(x, "conv2", "bn2")
        for key in BLOCKS:
            x = self.inverted(x, key)
            early = x if key == "block3_5" else early
        first = x
        second = self.step(first, "conv7.0", "conv7.1", 2)
        third = F.relu(self.conv(second, "conv8", padding=0))[:, :, 0, 0]
        scales = [m.reshape(len(m), -1) if flatten else m.mean(3).mean(2) for m in (first, second)]
        return self.linear(torch.cat([*scales, third], dim=1), "fc"), self.angles(early)

    def angles(self, x: Tensor) -> Tensor:
        a = "auxiliarynet"
        for n, stride, padding in ((1, 2, 1), (2, 1, 1), (3, 2, 1), (4, 1, 1)):
            x = self.step(x, f"{a}.conv{n}.0", f"{a}.conv{n}.1", stride, padding)
        x = F.max_pool2d(x, 3)[:, :, 0, 0]
        return self.linear(self.linear(x, f"{a}.fc1"), f"{a}.fc2")
