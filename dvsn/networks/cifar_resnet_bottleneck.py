"""ResNet-50 and deeper for pictures of 32 x 32: ImageNet's four stages behind a stem that keeps the size."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from dvsn.errors import ConfigError
from dvsn.networks.blocks import require_counts, require_image
from dvsn.networks.initialise import kaiming
from dvsn.networks.residual import EXPANSION
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
        self.layer1 = stage(64, 64, first, stride=1)
        self.layer2 = stage(EXPANSION * 64, 128, second, stride=2)
        self.layer3 = stage(EXPANSION * 128, 256, third, stride=2)
        self.layer4 = stage(EXPANSION * 256, 512, fourth, stride=2)
        self.linear = nn.Linear(EXPANSION * 512, classes)
        last = [f"{path}.{count - 1}" for path, count in zip(self.taps, BLOCKS[depth], strict=True)]
        self.pre_activation_taps = tuple(f"{path}.relu:in" for path in last)
        self.tap_norms = tuple(f"{path}.bn3" for path in last)
        kaiming(self)

    def forward(self, image: Tensor) -> Tensor:
        require_image(self, image, channels=3, multiple=1, minimum=1)
        x = self.relu(self.bn1(self.conv1(image)))  # (N, 64, H, W)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))  # (N, 2048, H/8, W/8)
        logits: Tensor = self.linear(x.mean(dim=(2, 3)))
        return logits


class CifarBottleneck(nn.Module):
    """1x1, 3x3 with the stride, 1x1 around a shortcut: (N, inputs, H, W) -> (N, 4 planes, H/stride, W/stride)."""

    def __init__(self, inputs: int, planes: int, *, stride: int) -> None:
        super().__init__()
        outputs = EXPANSION * planes
        self.conv1 = nn.Conv2d(inputs, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.shortcut.append(nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False))
            self.shortcut.append(nn.BatchNorm2d(outputs))
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        inner = F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))
        rectified: Tensor = self.relu(self.bn3(self.conv3(inner)) + self.shortcut(x))
        return rectified


def stage(inputs: int, planes: int, count: int, *, stride: int) -> nn.Sequential:
    """`count` blocks, the first with the stride: (N, inputs, H, W) -> (N, 4 planes, H/stride, W/stride)."""
    rest = [CifarBottleneck(EXPANSION * planes, planes, stride=1) for _ in range(count - 1)]
    return nn.Sequential(CifarBottleneck(inputs, planes, stride=stride), *rest)
