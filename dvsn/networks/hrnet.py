"""The trunk of every HRNet: parallel streams at 1/4, 1/8, 1/16 and 1/32 that are added to each other again and again.

Names of modules are those of the published checkpoints, which agree on the trunk and differ in their heads: a
network of the family is a subclass of `HighResolutionTrunk` that states its own defaults and adds its head.

In place are only sums and ReLUs of what a batch norm of the same block has just made. What a layer returns is
never written to, so any layer can be tapped.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dvsn.errors import ConfigError
from dvsn.networks.blocks import conv_bn, conv_bn_relu, require_choice, require_counts, require_number
from dvsn.networks.residual import EXPANSION, BasicBlock, Bottleneck

Enlarge = Literal["bilinear", "nearest"]


class Exchange(nn.Module):
    """Each stream goes through its own blocks; then each new stream is the rectified sum of all old ones.

    Stream r is (N, widths[r], h, w) at 1/2^r of stream 0. Into a finer stream goes 1x1, batch norm and then the
    enlargement, to the true size of that stream; into a coarser one 3x3 convolutions of stride 2, which keep
    the width until the last, and of which all but the last are rectified. `outputs` new streams are made, the
    finest first. Their ReLUs are modules, so that a stream can be tapped: `outputs.<r>`.
    """

    def __init__(
        self, widths: Sequence[int], blocks: int, outputs: int, enlarge: Enlarge, align_corners: bool
    ) -> None:
        super().__init__()
        self.enlarge = enlarge
        self.align_corners = align_corners if enlarge == "bilinear" else None
        self.branches = nn.ModuleList(
            nn.Sequential(*(BasicBlock(width, width) for _ in range(blocks))) for width in widths
        )
        self.fuse_layers = nn.ModuleList(
            nn.ModuleList(_path(widths, source, into) for source in range(len(widths)))
            for into in range(outputs)
        )
        self.outputs = nn.ModuleList(nn.ReLU(inplace=True) for _ in range(outputs))

    def forward(self, streams: list[Tensor]) -> list[Tensor]:
        streams = [branch(stream) for branch, stream in zip(self.branches, streams, strict=True)]
        fused = []
        for into, (paths, rectify) in enumerate(zip(self.fuse_layers, self.outputs, strict=True)):
            assert isinstance(paths, nn.ModuleList)
            terms = [path(stream) for path, stream in zip(paths, streams, strict=True)]
            size = streams[into].shape[-2:]
            total = terms[0]
            for source, term in enumerate(terms[1:], start=1):
                finer = source > into
                total = total + (resize(term, size, self.enlarge, self.align_corners) if finer else term)
            fused.append(rectify(total))
        return fused


def _path(widths: Sequence[int], source: int, into: int) -> nn.Module:
    """The convolutions from stream `source` to stream `into`; an enlargement is not among them."""
    if source == into:
        return nn.Identity()
    if source > into:
        return conv_bn(widths[source], widths[into], 1)
    keep = [conv_bn_relu(widths[source], widths[source], 3, 2) for _ in range(into - source - 1)]
    return nn.Sequential(*keep, conv_bn(widths[source], widths[into], 3, 2))


def resize(x: Tensor, size: Sequence[int], mode: Enlarge, align_corners: bool | None) -> Tensor:
    """(N, C, h, w) -> (N, C, *size). `align_corners` is None for nearest."""
    return F.interpolate(x, size=tuple(size), mode=mode, align_corners=align_corners)


class HighResolutionTrunk(nn.Module):
    """Four streams of `width`, 2, 4 and 8 times `width` channels, each of one resolution from begin to end.

    `streams`: (N, 3, H, W) normalised RGB of any size -> four maps (N, width 2^r, h, w) at 1/4, 1/8, 1/16 and 1/32, the
    finest first, sides rounded up; the finest alone where `multi_scale` is false. `joined`: -> all four at the finest's
    size, (N, 15 width, h, w).

    Options of all networks of the family. A network states those whose published value differs, and passes on the rest:

    - `bottlenecks`, `bottleneck_width`: number and inner width of the blocks of stage 1;
    - `modules`: the exchanges of stages 2, 3 and 4; `blocks`: the basic blocks of a stream in each exchange;
    - `enlarge`: how a stream grows to the size of a finer one, after its 1x1 convolution (the paper draws it before):
      bilinear for segmentation, detection and faces, nearest for pose and ImageNet;
    - `align_corners`: of bilinear enlargement; which one a published file was trained with cannot be seen in its weights;
    - `bn_momentum`: see `set_momentum`, which a network calls when it has its head.

    Sun et al., 2019, arXiv:1902.09212 (pose: V1) and Wang et al., 2020, arXiv:1908.07919 (V2).
    """

    multiple = 1
    multi_scale: ClassVar[bool] = True
    """False: the last exchange makes the finest stream alone, and has no weights for the others."""

    def __init__(
        self,
        *,
        width: int = 48,
        bottlenecks: int = 4,
        bottleneck_width: int = 64,
        modules: Sequence[int] = (1, 4, 3),
        blocks: int = 4,
        enlarge: Enlarge = "bilinear",
        align_corners: bool = False,
        bn_momentum: float = 0.1,
    ) -> None:
        super().__init__()
        require_counts(
            self, width=width, bottlenecks=bottlenecks, bottleneck_width=bottleneck_width, blocks=blocks
        )
        if len(modules) != 3 or not all(isinstance(count, int) and count >= 1 for count in modules):
            raise ConfigError(
                f"{type(self).__name__}: modules are the exchanges of stages 2, 3 and 4, "
                f"such as [1, 4, 3], found {modules!r}."
            )
        require_choice(self, "enlarge", enlarge, Enlarge)
        self.align_corners, self.bn_momentum = align_corners, bn_momentum
        self.widths = tuple(width * 2**r for r in range(4))
        last = 4 if self.multi_scale else 1
        self.taps = tuple(f"stage4.{modules[2] - 1}.outputs.{r}" for r in range(last))  # finest first

        self.conv1 = nn.Conv2d(3, 64, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.conv2 = nn.Conv2d(64, 64, 3, stride=2, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(64)
        layer1 = EXPANSION * bottleneck_width
        inputs = [64] + [layer1] * (bottlenecks - 1)
        self.layer1 = nn.Sequential(*(Bottleneck(channels, bottleneck_width) for channels in inputs))

        def stage(streams: int, count: int, outputs: int) -> nn.Sequential:
            made = [streams] * (count - 1) + [outputs]
            widths = self.widths[:streams]
            return nn.Sequential(*(Exchange(widths, blocks, m, enlarge, align_corners) for m in made))

        w = self.widths
        self.transition1 = nn.ModuleList(
            [conv_bn_relu(layer1, w[0], 3), nn.Sequential(conv_bn_relu(layer1, w[1], 3, 2))]
        )
        self.stage2 = stage(2, modules[0], 2)
        self.transition2 = _new_stream(w[1], w[2], streams=2)
        self.stage3 = stage(3, modules[1], 3)
        self.transition3 = _new_stream(w[2], w[3], streams=3)
        self.stage4 = stage(4, modules[2], last)

    def set_momentum(self) -> None:
        """`bn_momentum` for every batch norm, those of the head too: what a step's statistics weigh in the running ones."""
        require_number(self, "bn_momentum", self.bn_momentum, least=0.0, most=1.0)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = self.bn_momentum

    def joined(self, image: Tensor) -> Tensor:
        """(N, 3, H, W) -> all streams at the finest's size, finest first: (N, 15 width, h, w). Always bilinear."""
        finest, *coarse = self.streams(image)
        size = finest.shape[-2:]
        enlarged = [resize(stream, size, "bilinear", self.align_corners) for stream in coarse]
        return torch.cat([finest, *enlarged], dim=1)

    def streams(self, image: Tensor) -> list[Tensor]:
        x = F.relu(self.bn1(self.conv1(image)), inplace=True)  # (N, 64, H/2, W/2)
        x = F.relu(self.bn2(self.conv2(x)), inplace=True)  # (N, 64, H/4, W/4)
        x = self.layer1(x)
        streams: list[Tensor] = self.stage2([step(x) for step in self.transition1])
        streams = self.stage3(_step(self.transition2, streams))
        streams = self.stage4(_step(self.transition3, streams))
        return streams


def _new_stream(coarsest: int, width: int, *, streams: int) -> nn.ModuleList:
    """The old `streams` stay as they are, a new one of half the size comes from the coarsest of them."""
    kept = [nn.Identity() for _ in range(streams)]
    return nn.ModuleList([*kept, nn.Sequential(conv_bn_relu(coarsest, width, 3, 2))])


def _step(transition: nn.ModuleList, streams: list[Tensor]) -> list[Tensor]:
    return [step(stream) for step, stream in zip(transition, [*streams, streams[-1]], strict=True)]
