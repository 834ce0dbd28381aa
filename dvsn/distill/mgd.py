"""Masked generative distillation: the teacher's map is reconstructed from a masked map of the student."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from dvsn.distill.connector import connected, width_connectors
from dvsn.distill.method import Method, Side, View
from dvsn.distill.shapes import summed, tapped
from dvsn.errors import ConfigError
from dvsn.types import Batch, Terms


class MaskedGeneration(Method):
    """Squared error of the rebuilt map, summed over an item's numbers, mean over the batch, summed over taps: the term
    `mgd`.

    Yang et al., 2022, arXiv:2205.01529. The student's map, through a 1x1 convolution where widths differ, loses
    `masked` of its positions (`mask: spatial`) or channels (`mask: channel`), at random in each step; 3x3 convolution,
    ReLU and 3x3 convolution rebuild the teacher's. Weight 2e-5 and 0.65 of positions for detection, 2e-5 and 0.75 for
    segmentation, 7e-5 for classification. Of two sizes the larger is average-pooled.
    """

    def __init__(
        self,
        *,
        student: Side,
        teacher: Side,
        masked: float = 0.65,
        mask: Literal["spatial", "channel"] = "spatial",
    ) -> None:
        super().__init__()
        if not 0 <= masked < 1 or mask not in ("spatial", "channel"):
            raise ConfigError(
                f"distill.mgd.method: expected masked in [0, 1) and mask spatial or channel, found {masked}, {mask!r}."
            )
        pairs = tapped("mgd", student, teacher, maps=True)
        self.masked, self.mask = masked, mask
        self.aligns = width_connectors(pairs)
        self.generations = nn.ModuleList(generation(theirs[0]) for _, theirs in pairs)

    def forward(self, student: View, teacher: View, batch: Batch) -> Terms:
        terms = []
        pairs = connected(self.aligns, student, teacher)
        for generate, (mine, theirs) in zip(self.generations, pairs, strict=True):
            error = generate(mine * self.kept(mine)) - theirs
            terms.append(error.square().sum() / len(mine))
        return {"mgd": summed(terms)}

    def kept(self, feature: Tensor) -> Tensor:
        """1 where the map is seen, (N, 1, H, W) or (N, C, 1, 1)."""
        count, channels, height, width = feature.shape
        shape = (count, 1, height, width) if self.mask == "spatial" else (count, channels, 1, 1)
        return (torch.rand(shape, device=feature.device) >= self.masked).to(feature.dtype)


def generation(channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU(), nn.Conv2d(channels, channels, 3, padding=1)
    )
