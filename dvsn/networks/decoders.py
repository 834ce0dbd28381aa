"""Decoders: from an encoder's maps, finest first and of strides that double, to one map at the finest's size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dvsn.errors import UserError
from dvsn.networks.blocks import Norm, conv_bn_relu, make_norm, require_counts

Kind = Literal["fpn", "unet", "upernet"]
BINS = (1, 2, 3, 6)
"""The grids of the pyramid pooling, cells a side."""
NARROWEST = 16
"""Channels that a U-Net's decoder keeps."""


def enlarge(x: Tensor, *, like: Tensor) -> Tensor:
    """Bilinear, to the size of another map, corners not aligned."""
    if x.shape[-2:] == like.shape[-2:]:
        return x
    return F.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=False)


class FPNDecoder(nn.Module):
    """A feature pyramid, whose levels are brought to the finest's size and added.

    Input: maps (N, widths[i], H/2^i, W/2^i). Output: (N, channels, H, W).

    The semantic branch of Kirillov et al., 2019, arXiv:1901.02446, section 3.1, on a pyramid of Lin et al.,
    2017, arXiv:1612.03144: a level goes up by 3x3 convolution, norm, ReLU and bilinear doubling, once for
    each step between it and the finest, which has a convolution without doubling. They have 256 channels of
    the pyramid and 128 of the branch, and a group norm; here both have `channels`, and the norm is a batch
    norm.
    """

    def __init__(self, widths: Sequence[int], channels: int) -> None:
        super().__init__()
        require_counts(self, channels=channels)
        self.width = channels
        self.laterals = nn.ModuleList(nn.Conv2d(width, channels, 1) for width in widths)
        self.branches = nn.ModuleList(
            nn.Sequential(*(conv_bn_relu(channels, channels, 3) for _ in range(max(level, 1))))
            for level in range(len(widths))
        )

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        levels = [lateral(x) for lateral, x in zip(self.laterals, maps, strict=True)]
        for place in reversed(range(len(levels) - 1)):
            above = F.interpolate(levels[place + 1], size=levels[place].shape[-2:], mode="nearest")
            levels[place] = levels[place] + above
        total: Tensor = self.branches[0](levels[0])
        for place in range(1, len(levels)):
            x = levels[place]
            for step, branch in enumerate(self.branches[place].children()):
                x = enlarge(branch(x), like=levels[place - 1 - step])
            total = total + x
        return total


class UNetDecoder(nn.Module):
    """Steps up, each with the encoder's map of that size beside it.

    Input: maps (N, widths[i], H/2^i, W/2^i). Output: (N, `width`, H, W). A step enlarges by the nearest
    neighbour to the size of the next finer map, joins that map, and has two 3x3 convolutions, each with norm
    and ReLU. The first, innermost step has `channels`, each further one half, at least 16; `dropout` acts
    behind the first `dropped` steps.

    Ronneberger et al., 2015, arXiv:1505.04597, who crop instead of padding and have transposed convolutions;
    this form is that of the field's libraries of encoders.
    """

    def __init__(
        self,
        widths: Sequence[int],
        channels: int,
        *,
        norm: Norm = "batch",
        dropout: float = 0.0,
        dropped: int = 0,
    ) -> None:
        super().__init__()
        require_counts(self, channels=channels)
        inputs = widths[-1]
        self.steps = nn.ModuleList()
        for step, skip in enumerate(reversed(widths[:-1])):
            outputs = max(channels // 2**step, min(NARROWEST, channels))
            rate = dropout if step < dropped else 0.0
            self.steps.append(pair(inputs + skip, outputs, norm, rate))
            inputs = outputs
        self.width = inputs

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        *skips, x = maps
        for step in self.steps:
            skip = skips.pop()
            x = step(torch.cat([F.interpolate(x, size=skip.shape[-2:], mode="nearest"), skip], dim=1))
        return x


def pair(inputs: int, outputs: int, norm: Norm = "batch", dropout: float = 0.0) -> nn.Sequential:
    """Twice 3x3 convolution, norm, ReLU: (N, inputs, H, W) -> (N, outputs, H, W)."""
    layers: list[nn.Module] = []
    for channels in (inputs, outputs):
        convolution = nn.Conv2d(channels, outputs, 3, padding=1, bias=norm != "batch")
        layers += [convolution, make_norm(norm, outputs), nn.ReLU()]
    return nn.Sequential(*layers, *([nn.Dropout(dropout)] if dropout > 0 else []))


class UPerDecoder(nn.Module):
    """Pyramid pooling on the coarsest map, a feature pyramid over it, all levels joined and mixed: UPerNet.

    Input: maps (N, widths[i], H/2^i, W/2^i). Output: (N, channels, H, W). In training a batch of two or more.

    Xiao et al., 2018, arXiv:1807.10221, its path to the pixels' classes alone. Light: `channels` is small
    where the paper has 512, which makes the convolutions between levels the cost of the network.
    """

    def __init__(self, widths: Sequence[int], channels: int) -> None:
        super().__init__()
        require_counts(self, channels=channels)
        self.width = channels
        self.pools = nn.ModuleList(conv_bn_relu(widths[-1], channels, 1) for _ in BINS)
        self.bottleneck = conv_bn_relu(widths[-1] + len(BINS) * channels, channels, 3)
        self.laterals = nn.ModuleList(conv_bn_relu(width, channels, 1) for width in widths[:-1])
        self.smooth = nn.ModuleList(conv_bn_relu(channels, channels, 3) for _ in widths[:-1])
        self.fuse = conv_bn_relu(len(widths) * channels, channels, 3)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        require_batch(self, maps[-1])
        levels = [lateral(x) for lateral, x in zip(self.laterals, maps[:-1], strict=True)]
        levels.append(self.pooled(maps[-1]))
        for place in reversed(range(len(levels) - 1)):
            levels[place] = levels[place] + enlarge(levels[place + 1], like=levels[place])
        smoothed = [smooth(x) for smooth, x in zip(self.smooth, levels[:-1], strict=True)]
        joined = [enlarge(x, like=levels[0]) for x in (*smoothed, levels[-1])]
        mixed: Tensor = self.fuse(torch.cat(joined, dim=1))
        return mixed

    def pooled(self, x: Tensor) -> Tensor:
        cells = [
            enlarge(mix(F.adaptive_avg_pool2d(x, bins)), like=x)
            for bins, mix in zip(BINS, self.pools, strict=True)
        ]
        mixed: Tensor = self.bottleneck(torch.cat([x, *cells], dim=1))
        return mixed


def require_batch(owner: nn.Module, x: Tensor) -> None:
    """Refuse a single picture in training: a norm behind the pooling of a whole picture would see one value a channel."""
    if owner.training and len(x) == 1:
        raise UserError(
            f"{type(owner).__name__}: found a batch of one picture in training, and the norm behind its pooling needs "
            "two or more. Set data.batch_size=2 or more and data.drop_last=true."
        )


DECODERS: dict[str, type[FPNDecoder] | type[UNetDecoder] | type[UPerDecoder]] = {
    "fpn": FPNDecoder, "unet": UNetDecoder, "upernet": UPerDecoder,
}  # fmt: skip
