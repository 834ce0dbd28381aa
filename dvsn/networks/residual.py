"""Residual blocks of ResNets and of the networks that are built of them.

In place are only sums and ReLUs of what a batch norm of the same block has just made. What a layer returns is never
written to, so any layer can be tapped. Names of modules are those of the published checkpoints.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from dvsn.networks.blocks import conv_bn

EXPANSION = 4
"""Output channels of a ResNet's bottleneck, as a multiple of its inner width."""


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut: (N, inputs, H, W) -> (N, planes, H/stride, W/stride).

    He et al., 2016, arXiv:1512.03385. `rectify`: end in a ReLU.
    """

    def __init__(self, inputs: int, planes: int, *, stride: int = 1, rectify: bool = True) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, planes, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.downsample = shortcut(inputs, planes, stride)
        self.rectify = rectify

    def forward(self, x: Tensor) -> Tensor:
        residual = F.relu(self.bn1(self.conv1(x)), inplace=True)
        residual = self.bn2(self.conv2(residual))
        residual += x if self.downsample is None else self.downsample(x)
        return F.relu(residual, inplace=True) if self.rectify else residual


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 and a shortcut: (N, inputs, H, W) -> (N, expansion planes, H/stride, W/stride).

    He et al., 2016, arXiv:1512.03385, with the stride in the 3x3 convolution. `rectify`: end in a ReLU.
    """

    def __init__(
        self, inputs: int, planes: int, *, stride: int = 1, expansion: int = EXPANSION, rectify: bool = True
    ) -> None:
        super().__init__()
        outputs = expansion * planes
        self.conv1 = nn.Conv2d(inputs, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.downsample = shortcut(inputs, outputs, stride)
        self.rectify = rectify

    def forward(self, x: Tensor) -> Tensor:
        residual = F.relu(self.bn1(self.conv1(x)), inplace=True)
        residual = F.relu(self.bn2(self.conv2(residual)), inplace=True)
        residual = self.bn3(self.conv3(residual))
        residual += x if self.downsample is None else self.downsample(x)
        return F.relu(residual, inplace=True) if self.rectify else residual


def shortcut(inputs: int, outputs: int, stride: int) -> nn.Sequential | None:
    """The 1x1 convolution beside a block; None where the input itself can be added."""
    return None if inputs == outputs and stride == 1 else conv_bn(inputs, outputs, 1, stride)


def residual_layer(
    inputs: int, planes: int, count: int, *, expansion: int = 1, stride: int = 1
) -> nn.Sequential:
    """`stack` of basic blocks, or of bottlenecks where `expansion` is not 1."""
    block = BasicBlock if expansion == 1 else partial(Bottleneck, expansion=expansion)
    return stack(block, inputs, planes, count, expansion=expansion, stride=stride)


def stack(
    block: Callable[..., nn.Module],
    inputs: int,
    planes: int,
    count: int,
    *,
    expansion: int = 1,
    stride: int = 1,
) -> nn.Sequential:
    """`count` blocks, the first with the stride: (N, inputs, H, W) -> (N, expansion planes, H/stride, W/stride).

    `block(inputs, planes, stride=...)` makes one with `expansion` times `planes` outputs.
    """
    rest = [block(expansion * planes, planes) for _ in range(count - 1)]
    return nn.Sequential(block(inputs, planes, stride=stride), *rest)
