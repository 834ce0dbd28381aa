"""What PIDNet and DDRNet share: the trunk's first stages, layers, heads, pyramids over the coarsest map, fusions.

A detail branch stays at 1/8 of the input, a context branch goes down to 1/64. Names of modules are those of the published
checkpoints. Every resize here is bilinear with `align_corners=False`, to the size of the map that it is joined with; every
average counts the padding as zeros.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dvsn.networks.blocks import conv_bn, conv_bn_relu
from dvsn.networks.initialise import kaiming
from dvsn.networks.residual import BasicBlock, Bottleneck, stack


def resize(x: Tensor, like: Tensor) -> Tensor:
    """(N, C, h, w) -> (N, C, H, W), the size of `like`."""
    return F.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=False)


def pre_activated(inputs: int, outputs: int, kernel: int, groups: int = 1) -> nn.Sequential:
    """Batch norm, ReLU, convolution without bias; the size stays."""
    conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, groups=groups, bias=False)
    return nn.Sequential(nn.BatchNorm2d(inputs), nn.ReLU(inplace=True), conv)


def stem(width: int) -> nn.Sequential:
    """(N, 3, H, W) -> (N, width, H/4, W/4). The only inner convolutions with a bias."""
    return conv_bn_relu(3, width, 3, 2, bias=True).extend(conv_bn_relu(width, width, 3, 2, bias=True))


def twice_down(inputs: int) -> nn.Sequential:
    """(N, inputs, H, W) -> (N, 4 inputs, H/4, W/4): two strided 3x3, batch norm after each, ReLU between."""
    return conv_bn_relu(inputs, 2 * inputs, 3, 2).extend(conv_bn(2 * inputs, 4 * inputs, 3, 2))


def basic_layer(inputs: int, planes: int, count: int, *, stride: int = 1) -> nn.Sequential:
    """`count` basic blocks, the first with the stride. Each ends in a ReLU but the last of two or more."""
    blocks = [BasicBlock(inputs, planes, stride=stride)]
    for index in range(1, count):
        blocks.append(BasicBlock(planes, planes, rectify=index < count - 1))
    return nn.Sequential(*blocks)


def bottleneck_layer(inputs: int, planes: int, count: int, *, stride: int = 1) -> nn.Sequential:
    """`count` bottlenecks that double `planes`, the first with the stride. There is no ReLU after or between them."""
    block = partial(Bottleneck, expansion=2, rectify=False)
    return stack(block, inputs, planes, count, expansion=2, stride=stride)


class Features(NamedTuple):
    """Maps of the two branches, C being the width of the stem."""

    fine: Tensor
    """(N, 2C, H/8, W/8), rectified: where the branches part."""
    middle: Tensor
    """(N, 4C, H/16, W/16), context of the third stage before the detail is added to it, rectified."""
    deep: Tensor
    """(N, 8C, H/32, W/32), the same of the fourth stage."""
    early_detail: Tensor
    """(N, 2C, H/8, W/8), detail after the third stage's exchange, for the auxiliary class head."""
    detail: Tensor
    """(N, 2C, H/8, W/8), detail after the fourth stage's exchange, rectified."""
    context: Tensor
    """(N, 8C, H/32, W/32), context after the fourth stage's exchange, rectified."""


class DualResolution(nn.Module):
    """The stem at 1/4 and the two stages before the branches part: (N, 3, H, W) -> (N, 2 width, H/8, W/8).

    Also the third branch and the ImageNet head, for those forms that have one. `first` and `second` count blocks.
    """

    multiple = 1
    layer3_d: nn.Module
    diff3: nn.Module
    layer4_d: nn.Module
    diff4: nn.Module

    def __init__(self, *, width: int, first: int, second: int) -> None:
        super().__init__()
        self.conv1 = stem(width)
        self.layer1 = basic_layer(width, width, first)
        self.layer2 = basic_layer(width, 2 * width, second, stride=2)

    def parting(self, image: Tensor) -> Tensor:
        """The map from which both branches start, rectified."""
        x = F.relu(self.layer1(self.conv1(image)))  # (N, C, H/4, W/4)
        return F.relu(self.layer2(x))

    def derivative(self, features: Features) -> tuple[Tensor, Tensor]:
        """The third branch, of boundaries, (N, 2C, H/8, W/8): before its last ReLU and behind it."""
        x = self.layer3_d(features.fine)
        x = x + resize(self.diff3(features.middle), like=x)
        x = self.layer4_d(F.relu(x))
        x = x + resize(self.diff4(features.deep), like=x)
        return x, F.relu(x)

    def add_image_head(self, *, width: int, blocks: int, feature_width: int, classes: int) -> None:
        """The head of the ImageNet forms; all weights then start after Kaiming."""
        self.layer5 = bottleneck_layer(8 * width, 8 * width, blocks)
        self.down5 = twice_down(4 * width)
        self.last_layer = conv_bn(16 * width, feature_width, 1)
        self.linear = nn.Linear(feature_width, classes)
        kaiming(self)

    def classify(self, joined: Tensor) -> Tensor:
        """Both branches, added and rectified (N, 16C, H/32, W/32), -> logits (N, classes)."""
        pooled = F.relu(self.last_layer(joined)).mean(dim=(2, 3))
        logits: Tensor = self.linear(pooled)
        return logits


class Head(nn.Module):
    """Batch norm, ReLU, 3x3, batch norm, ReLU, 1x1 with bias: (N, inputs, H, W) -> (N, outputs, H, W)."""

    def __init__(self, inputs: int, width: int, outputs: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(F.relu(self.bn1(x), inplace=True))
        logits: Tensor = self.conv2(F.relu(self.bn2(x), inplace=True))
        return logits


class Pyramid(nn.Module):
    """A map and averages of it over 5x5, 9x9, 17x17 and everything, each as `width` channels.

    The global average is one value per channel: its batch norm needs two images or more in training.
    """

    def __init__(self, inputs: int, width: int, outputs: int) -> None:
        super().__init__()
        self.scale0 = pre_activated(inputs, width, 1)
        for scale, kernel in enumerate((5, 9, 17), start=1):
            pool = nn.AvgPool2d(kernel, stride=(kernel - 1) // 2, padding=(kernel - 1) // 2)
            self.add_module(f"scale{scale}", nn.Sequential(pool, *pre_activated(inputs, width, 1)))
        self.scale4 = nn.Sequential(nn.AdaptiveAvgPool2d(1), *pre_activated(inputs, width, 1))
        self.compression = pre_activated(5 * width, outputs, 1)
        self.shortcut = pre_activated(inputs, outputs, 1)

    def averages(self, x: Tensor) -> list[Tensor]:
        """Four maps (N, width, H, W), from the finest average to the global one."""
        return [resize(getattr(self, f"scale{scale}")(x), like=x) for scale in (1, 2, 3, 4)]

    def join(self, x: Tensor, scales: Sequence[Tensor]) -> Tensor:
        """The compressed scales (5 x width channels together) and the map itself."""
        joined: Tensor = self.compression(torch.cat(list(scales), dim=1)) + self.shortcut(x)
        return joined


class DAPPM(Pyramid):
    """Deep aggregation: each scale is added to the finer one and convolved. (N, inputs, H, W) -> (N, outputs, H, W).

    Pan, Hong, Sun and Jia, 2022, arXiv:2101.06085, section 3.3.
    """

    def __init__(self, inputs: int, width: int, outputs: int) -> None:
        super().__init__(inputs, width, outputs)
        for scale in (1, 2, 3, 4):
            self.add_module(f"process{scale}", pre_activated(width, width, 3))

    def forward(self, x: Tensor) -> Tensor:
        scales = [self.scale0(x)]
        for scale, average in enumerate(self.averages(x), start=1):
            scales.append(getattr(self, f"process{scale}")(average + scales[-1]))
        return self.join(x, scales)


class PAPPM(Pyramid):
    """Parallel aggregation: all scales at once, one grouped convolution. (N, inputs, H, W) -> (N, outputs, H, W).

    Xu, Xiong and Bhattacharyya, 2023, arXiv:2206.02066, section 4.2.
    """

    def __init__(self, inputs: int, width: int, outputs: int) -> None:
        super().__init__(inputs, width, outputs)
        self.scale_process = pre_activated(4 * width, 4 * width, 3, groups=4)

    def forward(self, x: Tensor) -> Tensor:
        finest = self.scale0(x)
        parallel = torch.cat([average + finest for average in self.averages(x)], dim=1)  # (N, 4 width, H, W)
        return self.join(x, [finest, self.scale_process(parallel)])


class LightBag(nn.Module):
    """Boundary-attention fusion by two 1x1 convolutions: three maps (N, inputs, H, W) -> (N, outputs, H, W).

    Where the derivative map sees a boundary the detail counts, elsewhere the context. Xu, Xiong and
    Bhattacharyya, 2023, arXiv:2206.02066, section 4.3. `pre_activate` puts batch norm and ReLU before each
    convolution too, which only DDRNet's ablation does.
    """

    def __init__(self, inputs: int, outputs: int, *, pre_activate: bool = False) -> None:
        super().__init__()
        before = (nn.BatchNorm2d(inputs), nn.ReLU(inplace=True)) if pre_activate else ()
        self.conv_p = nn.Sequential(*before, *conv_bn(inputs, outputs, 1))
        before = (nn.BatchNorm2d(inputs), nn.ReLU(inplace=True)) if pre_activate else ()
        self.conv_i = nn.Sequential(*before, *conv_bn(inputs, outputs, 1))

    def forward(self, detail: Tensor, context: Tensor, derivative: Tensor) -> Tensor:
        edge = torch.sigmoid(derivative)
        fused: Tensor = self.conv_p(detail + (1 - edge) * context) + self.conv_i(context + edge * detail)
        return fused


class Bag(nn.Module):
    """Boundary-attention fusion by one 3x3 convolution: three maps (N, inputs, H, W) -> (N, outputs, H, W).

    Batch norm and ReLU come before the convolution; the paper's text (arXiv:2206.02066, section 4.3) has them
    after it.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = pre_activated(inputs, outputs, 3)

    def forward(self, detail: Tensor, context: Tensor, derivative: Tensor) -> Tensor:
        edge = torch.sigmoid(derivative)
        fused: Tensor = self.conv(edge * detail + (1 - edge) * context)
        return fused
