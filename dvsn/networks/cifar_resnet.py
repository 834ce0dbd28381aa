"""ResNet for pictures of 32 x 32: three stages of basic blocks, 6n + 2 layers."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from dvsn.errors import ConfigError
from dvsn.networks.blocks import require_counts
from dvsn.networks.initialise import kaiming
from dvsn.networks.residual import BasicBlock, stack
from dvsn.networks.tapped import Tapped


class CifarResNet(Tapped):
    """ResNet of basic blocks for small pictures.

    Input: (N, 3, H, W) normalised RGB, usually 32 x 32. Output: logits (N, classes).

    He et al., 2016, arXiv:1512.03385, section 4.2, as the benchmark of Tian, Krishnan and Isola (2020, arXiv:1910.10699)
    has it: `widths` of the stem and the three stages (its resnet8x4 has 32, 64, 128, 256), and where a block changes
    the shape, a 1x1 convolution with batch norm on the shortcut; the paper pads with zeros. Keys are the benchmark's.
    Known difference: the last map is averaged whole, so that other sizes than 32 work.

    Maps at 32 x 32: the stem and the first stage 32, then 16 and 8.
    """

    classifier: tuple[str, ...] = ("fc",)
    taps = ("layer1", "layer2", "layer3")
    stem_tap, pooled_tap = "relu", "fc:in"

    def __init__(self, *, classes: int, depth: int = 20, widths: Sequence[int] = (16, 16, 32, 64)) -> None:
        super().__init__()
        require_counts(self, classes=classes)
        if depth < 8 or depth % 6 != 2:
            raise ConfigError(
                f"CifarResNet: depth must be 6n + 2, such as 8, 20, 32, 56 or 110; found {depth!r}."
            )
        if len(widths) != 4 or any(width < 1 for width in widths):
            raise ConfigError(f"CifarResNet: widths must be four numbers of 1 or more, found {widths!r}.")
        blocks = depth // 6
        stem, first, second, third = widths
        self.conv1 = nn.Conv2d(3, stem, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(stem)
        self.relu = nn.ReLU()
        self.layer1 = stack(CifarBlock, stem, first, blocks)
        self.layer2 = stack(CifarBlock, first, second, blocks, stride=2)
        self.layer3 = stack(CifarBlock, second, third, blocks, stride=2)
        self.fc = nn.Linear(third, classes)
        last = [f"{path}.{blocks - 1}" for path in self.taps]
        self.pre_activation_taps = tuple(f"{path}.relu:in" for path in last)
        self.tap_norms = tuple(f"{path}.bn2" for path in last)
        kaiming(self)

    def features(self, image: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(image)))  # (N, stem, H, W)
        return self.layer3(self.layer2(self.layer1(x)))  # (N, third, H/4, W/4)


class CifarBlock(BasicBlock):
    """A basic block whose last ReLU is a module that can be tapped, with no operation in place."""

    def __init__(self, inputs: int, outputs: int, *, stride: int = 1) -> None:
        super().__init__(inputs, outputs, stride=stride)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        inner = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        rectified: Tensor = self.relu(inner + (x if self.downsample is None else self.downsample(x)))
        return rectified
