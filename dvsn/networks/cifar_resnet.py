"""ResNet for pictures of 32 x 32: three stages of basic blocks, 6n + 2 layers."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from dvsn.errors import ConfigError
from dvsn.networks.blocks import require_counts, require_image
from dvsn.networks.initialise import kaiming
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
        self.layer1 = stage(stem, first, blocks, stride=1)
        self.layer2 = stage(first, second, blocks, stride=2)
        self.layer3 = stage(second, third, blocks, stride=2)
        self.fc = nn.Linear(third, classes)
        last = [f"{path}.{blocks - 1}" for path in self.taps]
        self.pre_activation_taps = tuple(f"{path}.relu:in" for path in last)
        self.tap_norms = tuple(f"{path}.bn2" for path in last)
        kaiming(self)

    def forward(self, image: Tensor) -> Tensor:
        require_image(self, image, channels=3, multiple=1, minimum=1)
        x = self.relu(self.bn1(self.conv1(image)))  # (N, stem, H, W)
        x = self.layer3(self.layer2(self.layer1(x)))  # (N, third, H/4, W/4)
        logits: Tensor = self.fc(x.mean(dim=(2, 3)))
        return logits


class CifarBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut, then ReLU: (N, inputs, H, W) -> (N, outputs, H/stride, W/stride)."""

    def __init__(self, inputs: int, outputs: int, *, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample: nn.Module | None = None
        if stride != 1 or inputs != outputs:
            shortcut = nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(outputs))
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        inner = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        rectified: Tensor = self.relu(inner + (x if self.downsample is None else self.downsample(x)))
        return rectified


def stage(inputs: int, outputs: int, count: int, *, stride: int) -> nn.Sequential:
    """`count` blocks, the first with the stride: (N, inputs, H, W) -> (N, outputs, H/stride, W/stride)."""
    rest = [CifarBlock(outputs, outputs, stride=1) for _ in range(count - 1)]
    return nn.Sequential(CifarBlock(inputs, outputs, stride=stride), *rest)
