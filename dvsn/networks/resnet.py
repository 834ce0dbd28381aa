"""ResNet under torchvision's names: a trunk down to 1/32, and the ImageNet classifier on it."""

from __future__ import annotations

from functools import partial
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from dvsn.errors import ConfigError
from dvsn.networks.blocks import require_counts, require_image
from dvsn.networks.initialise import kaiming
from dvsn.networks.residual import EXPANSION, residual_layer

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
BASIC = (18, 34)  # basic blocks; deeper ones have bottlenecks


class ResNet(nn.Module):
    """The trunk of a ResNet: `features` maps (N, 3, H, W) normalised RGB to (N, `feature_width`, H/32, W/32).

    He et al., 2016, arXiv:1512.03385, with the stride in the 3x3 convolution of a bottleneck, where the paper has it in
    the first 1x1. Sides are rounded up.
    """

    multiple = 1
    taps = ("layer1", "layer2", "layer3", "layer4")  # at 1/4, 1/8, 1/16 and 1/32

    def __init__(self, *, depth: int) -> None:
        super().__init__()
        if depth not in BLOCKS:
            raise ConfigError(
                f"{type(self).__name__}: depth must be one of {sorted(BLOCKS)}, found {depth!r}."
            )
        wider = 1 if depth in BASIC else EXPANSION
        layer = partial(residual_layer, expansion=wider)
        first, second, third, fourth = BLOCKS[depth]
        self.feature_width = wider * 512
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = layer(64, 64, first, stride=1)
        self.layer2 = layer(wider * 64, 128, second, stride=2)
        self.layer3 = layer(wider * 128, 256, third, stride=2)
        self.layer4 = layer(wider * 256, 512, fourth, stride=2)
        kaiming(self)

    def features(self, image: Tensor) -> Tensor:
        x = self.maxpool(F.relu(self.bn1(self.conv1(image)), inplace=True))  # (N, 64, H/4, W/4)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return x


class ResNetClassifier(ResNet):
    """ResNet for ImageNet, from whose checkpoints `weights=` starts what has the same trunk.

    Input: (N, 3, H, W) normalised RGB of any size. Output: logits (N, classes).
    """

    response: ClassVar[str] = "classes"
    classifier: tuple[str, ...] = ("fc",)

    def __init__(self, *, classes: int, depth: int = 50) -> None:
        super().__init__(depth=depth)
        require_counts(self, classes=classes)
        self.fc = nn.Linear(self.feature_width, classes)

    def forward(self, image: Tensor) -> Tensor:
        require_image(self, image, channels=3, multiple=1, minimum=1)
        logits: Tensor = self.fc(self.features(image).mean(dim=(2, 3)))
        return logits
