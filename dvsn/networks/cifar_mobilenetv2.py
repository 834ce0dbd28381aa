"""MobileNetV2 for pictures of 32 x 32: inverted residuals down to 1/16."""

from __future__ import annotations

from torch import Tensor, nn

from dvsn.networks.blocks import conv_bn, require_counts, require_number
from dvsn.networks.initialise import kaiming
from dvsn.networks.tapped import Tapped

STAGES = ((16, 1, 1), (24, 2, 1), (32, 3, 2), (64, 4, 2), (96, 3, 1), (160, 3, 2), (320, 1, 1))
"""Channels at width 1, blocks, and stride of the first."""
POOLED = 1280


class CifarMobileNetV2(Tapped):
    """MobileNetV2 for small pictures.

    Input: (N, 3, H, W) normalised RGB, usually 32 x 32. Output: logits (N, classes).

    Sandler et al., 2018, arXiv:1801.04381, as the benchmark of Tian, Krishnan and Isola (2020, arXiv:1910.10699) has it,
    which takes `expansion` 6 and `width` 0.5: the stem has stride 2, the second stage none, and activations are plain
    ReLU, where the paper has ReLU6; a first stage without expansion keeps its first 1x1 convolution. The pooled vector
    has 1280 channels, more only with a width above 1. Keys are the benchmark's; `classifier` is the class layer itself.

    A stage ends with a linear bottleneck, so its tap has no ReLU and is its own pre-activation. Maps at 32 x 32 and
    width 0.5: 16 channels @ 16 from the stem, then 12 @ 16, 16 @ 8, 48 @ 4 and 160 @ 2.
    """

    taps = ("blocks.1", "blocks.2", "blocks.4", "blocks.6")
    stem_tap, pooled_tap, map_tap = "conv1", "classifier:in", "conv2"
    pre_activation_taps = taps

    def __init__(self, *, classes: int, expansion: int = 6, width: float = 0.5) -> None:
        super().__init__()
        require_counts(self, classes=classes, expansion=expansion)
        require_number(self, "width", width, least=1 / 16)
        stem = int(32 * width)
        pooled = int(POOLED * width) if width > 1 else POOLED
        self.conv1 = nn.Sequential(*conv_bn(3, stem, 3, 2), nn.ReLU())
        self.blocks = nn.ModuleList()
        inputs = stem
        for number, (channels, count, stride) in enumerate(STAGES):
            outputs, factor = int(channels * width), expansion if number else 1
            rest = [InvertedResidual(outputs, outputs, stride=1, expansion=factor) for _ in range(count - 1)]
            first = InvertedResidual(inputs, outputs, stride=stride, expansion=factor)
            self.blocks.append(nn.Sequential(first, *rest))
            inputs = outputs
        self.conv2 = nn.Sequential(*conv_bn(inputs, pooled, 1), nn.ReLU())
        class_layer = nn.Linear(pooled, classes)
        self.classifier = nn.Sequential(class_layer)
        self.tap_norms = tuple(f"{path}.{STAGES[int(path[-1])][1] - 1}.conv.7" for path in self.taps)
        kaiming(self)
        nn.init.normal_(class_layer.weight, std=0.01)
        nn.init.zeros_(class_layer.bias)

    def features(self, image: Tensor) -> Tensor:
        x = self.conv1(image)  # (N, stem, H/2, W/2)
        for stage in self.blocks:
            x = stage(x)
        return self.conv2(x)  # (N, 1280, H/16, W/16)


class InvertedResidual(nn.Module):
    """1x1 to more channels, depthwise 3x3 with the stride, linear 1x1 back; a shortcut where the shape stays."""

    def __init__(self, inputs: int, outputs: int, *, stride: int, expansion: int) -> None:
        super().__init__()
        wide = inputs * expansion
        self.shortcut = stride == 1 and inputs == outputs
        self.conv = nn.Sequential(
            *conv_bn(inputs, wide, 1),
            nn.ReLU(),
            *conv_bn(wide, wide, 3, stride, groups=wide),
            nn.ReLU(),
            *conv_bn(wide, outputs, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        linear: Tensor = self.conv(x)
        return x + linear if self.shortcut else linear
