"""The trunk of every HRNet: parallel streams at 1/4, 1/8, 1/16 and 1/32 that exchange what they know.

Names of modules are those of the published checkpoints, which agree on the trunk and differ in their heads: a
network of the family is a subclass of `HighResolutionTrunk` that adds its head beside the trunk's modules.

In place are only sums and ReLUs of what a batch norm of the same block has just made. What a layer returns is
never written to, so any layer can be tapped.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from dvsn.errors import ConfigError
from dvsn.networks.blocks import require_choice, require_number

Enlarge = Literal["bilinear", "nearest"]


def conv_bn(
    inputs: int, outputs: int, kernel: int, stride: int = 1, *, rectify: bool = True
) -> nn.Sequential:
    """Convolution without bias, batch norm, ReLU if `rectify`: (N, inputs, H, W) -> (N, outputs, H/stride, W/stride)."""
    conv = nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=False)
    layers = [conv, nn.BatchNorm2d(outputs)]
    return nn.Sequential(*layers, nn.ReLU(inplace=True)) if rectify else nn.Sequential(*layers)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions around an identity: (N, width, H, W), size and width stay."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        residual = F.relu(self.bn1(self.conv1(x)), inplace=True)
        residual = self.bn2(self.conv2(residual))
        residual += x
        return F.relu(residual, inplace=True)


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 around a shortcut: (N, inputs, H, W) -> (N, 4 planes, H/stride, W/stride). The 3x3 strides."""

    expansion = 4

    def __init__(self, inputs: int, planes: int, *, stride: int = 1) -> None:
        super().__init__()
        outputs = self.expansion * planes
        self.conv1 = nn.Conv2d(inputs, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        same = inputs == outputs and stride == 1
        self.downsample = None if same else conv_bn(inputs, outputs, 1, stride, rectify=False)

    def forward(self, x: Tensor) -> Tensor:
        residual = F.relu(self.bn1(self.conv1(x)), inplace=True)
        residual = F.relu(self.bn2(self.conv2(residual)), inplace=True)
        residual = self.bn3(self.conv3(residual))
        residual += x if self.downsample is None else self.downsample(x)
        return F.relu(residual, inplace=True)


class Exchange(nn.Module):
    """Every stream through its own blocks, then every new stream is the rectified sum of all old ones.

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
        self.branches = nn.ModuleList(nn.Sequential(*(BasicBlock(c) for _ in range(blocks))) for c in widths)
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
        return conv_bn(widths[source], widths[into], 1, rectify=False)
    keep = [conv_bn(widths[source], widths[source], 3, 2) for _ in range(into - source - 1)]
    return nn.Sequential(*keep, conv_bn(widths[source], widths[into], 3, 2, rectify=False))


def resize(x: Tensor, size: Sequence[int], mode: Enlarge, align_corners: bool | None) -> Tensor:
    """(N, C, h, w) -> (N, C, *size). `align_corners` is None for nearest."""
    return F.interpolate(x, size=tuple(size), mode=mode, align_corners=align_corners)


class HighResolutionTrunk(nn.Module):
    """Streams of `width`, 2, 4 and 8 times `width` channels, none of which ever loses its resolution.

    `streams` maps (N, 3, H, W) normalised RGB of any size to the four maps (N, width 2^r, h, w) at 1/4, 1/8, 1/16
    and 1/32, the finest first, sides rounded up; with `multi_scale=False` to the finest alone, and the last
    exchange has no weights for the rest.

    Sun et al., 2019, arXiv:1902.09212 (pose: V1) and Wang et al., 2020, arXiv:1908.07919 (V2). The published
    lines of code differ where their weights do not tell: segmentation, detection and faces enlarge bilinearly,
    pose and ImageNet classification by the nearest neighbour, with the 1x1 convolution before it in each (the
    paper draws it after). `align_corners` belongs to the bilinear ones and is a matter of the checkpoint.

    `modules` counts the exchanges of stages 2, 3 and 4, `blocks` the basic blocks of a stream in each,
    `bottlenecks` and `bottleneck_width` are stage 1.
    """

    multiple = 1

    def __init__(
        self,
        *,
        width: int,
        bottlenecks: int,
        bottleneck_width: int,
        modules: Sequence[int],
        blocks: int,
        enlarge: Enlarge,
        align_corners: bool,
        multi_scale: bool = True,
    ) -> None:
        super().__init__()
        numbers = {"width": width, "bottlenecks": bottlenecks, "bottleneck_width": bottleneck_width}
        for name, value in (numbers | {"blocks": blocks}).items():
            require_number(self, name, value, least=1)
        if len(modules) != 3 or not all(isinstance(count, int) and count >= 1 for count in modules):
            raise ConfigError(
                f"{type(self).__name__}: modules are the exchanges of stages 2, 3 and 4, "
                f"such as [1, 4, 3], found {modules!r}."
            )
        require_choice(self, "enlarge", enlarge, Enlarge)
        self.align_corners = align_corners
        self.widths = tuple(width * 2**r for r in range(4))
        last = 4 if multi_scale else 1
        self.taps = tuple(f"stage4.{modules[2] - 1}.outputs.{r}" for r in range(last))  # finest first

        self.conv1 = nn.Conv2d(3, 64, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.conv2 = nn.Conv2d(64, 64, 3, stride=2, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(64)
        layer1 = Bottleneck.expansion * bottleneck_width
        inputs = [64] + [layer1] * (bottlenecks - 1)
        self.layer1 = nn.Sequential(*(Bottleneck(channels, bottleneck_width) for channels in inputs))

        def stage(streams: int, count: int, outputs: int) -> nn.Sequential:
            made = [streams] * (count - 1) + [outputs]
            widths = self.widths[:streams]
            return nn.Sequential(*(Exchange(widths, blocks, m, enlarge, align_corners) for m in made))

        w = self.widths
        self.transition1 = nn.ModuleList(
            [conv_bn(layer1, w[0], 3), nn.Sequential(conv_bn(layer1, w[1], 3, 2))]
        )
        self.stage2 = stage(2, modules[0], 2)
        self.transition2 = _new_stream(w[1], w[2], streams=2)
        self.stage3 = stage(3, modules[1], 3)
        self.transition3 = _new_stream(w[2], w[3], streams=3)
        self.stage4 = stage(4, modules[2], last)

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
    return nn.ModuleList([*kept, nn.Sequential(conv_bn(coarsest, width, 3, 2))])


def _step(transition: nn.ModuleList, streams: list[Tensor]) -> list[Tensor]:
    return [step(stream) for step, stream in zip(transition, [*streams, streams[-1]], strict=True)]


def set_momentum(network: nn.Module, momentum: float) -> None:
    """What a training step's statistics weigh in the running ones of every batch norm."""
    require_number(network, "bn_momentum", momentum, least=0.0, most=1.0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = momentum
