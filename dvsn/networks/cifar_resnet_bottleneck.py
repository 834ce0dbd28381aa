"""ResNet-50 and deeper for pictures of 32 x 32: ImageNet's four stages behind a stem that keeps the size."""

from __future__ import annotations

from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from dvsn.errors import ConfigError
from dvsn.networks.blocks import require_counts
from dvsn.networks.initialise import kaiming
from dvsn.networks.residual import EXPANSION, Bottleneck, stack
from dvsn.networks.resnet import BASIC, BLOCKS
from dvsn.networks.tapped import Tapped


class CifarBottleneckResNet(Tapped):
    """ResNet of bottlenecks for small pictures.

    Input: (N, 3, H, W) normalised RGB, usually 32 x 32. Output: logits (N, classes).

    He et al., 2016, arXiv:1512.03385, as the benchmark of Tian, Krishnan and Isola (2020, arXiv:1910.10699) has it: the
    stem is one 3x3 convolution without stride and without pooling, and a bottleneck has its stride in the 3x3
    convolution. Keys are the benchmark's.

    Maps at 32 x 32: 64 channels @ 32 from the stem, then 256 @ 32, 512 @ 16, 1024 @ 8 and 2048 @ 4.
    """

    classifier: tuple[str, ...] = ("linear",)
    taps = ("layer1", "layer2", "layer3", "layer4")
    stem_tap, pooled_tap = "relu", "linear:in"

    def __init__(self, *, classes: int, depth: int = 50) -> None:
        super().__init__()
        require_counts(self, classes=classes)
        deep = sorted(set(BLOCKS) - set(BASIC))
        if depth not in deep:
            raise ConfigError(f"CifarBottleneckResNet: depth must be one of {deep}, found {depth!r}.")
        first, second, third, fourth = BLOCKS[depth]
        self.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU()
        layer = partial(stack, CifarBottleneck, expansion=EXPANSION)
        self.layer1 = layer(64, 64, first)
        self.layer2 = layer(EXPANSION * 64, 128, second, stride=2)
        self.layer3 = layer(EXPANSION * 128, 256, third, stride=2)
        self.layer4 = layer(EXPANSION * 256, 512, fourth, stride=2)
        self.linear = nn.Linear(EXPANSION * 512, classes)
        last = [f"{path}.{count - 1}" for path, count in zip(self.taps, BLOCKS[depth], strict=True)]
        self.pre_activation_taps = tuple(f"{path}.relu:in" for path in last)
        self.tap_norms = tuple(f"{path}.bn3" for path in last)
        kaiming(self)

    def features(self, image: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(image)))  # (N, 64, H, W)
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))  # (N, 2048, H/8, W/8)


class CifarBottleneck(Bottleneck):
    """A bottleneck whose last ReLU is a module that can be tapped, with no operation in place, and whose `downsample` has
    the benchmark's name `shortcut`."""

    def __init__(self, inputs: int, planes: int, *, stride: int = 1) -> None:
        super().__init__(inputs, planes, stride=stride)
        self.shortcut = nn.Sequential() if self.downsample is None else self.downsample
        self.downsample = None
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        inner = F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))
        rectified: Tensor = self.relu(self.bn3(self.conv3(inner)) + self.shortcut(x))
        return rectified
