"""What the networks of several branches share: residual blocks, heads, pyramids over the coarsest map, fusions.

The words are PIDNet's and DDRNet's: a detail branch stays at 1/8 of the input, a context branch goes down to
1/64. Names of modules are those of the published checkpoints. Every resize here is bilinear with
`align_corners=False`, to the true size of the map that it meets; every average counts the padding as zeros.

In place are only sums and ReLUs of what a batch norm of the same block has just made. What a layer returns is
never written to, so any layer can be tapped.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def resize(x: Tensor, like: Tensor) -> Tensor:
    """(N, C, h, w) -> (N, C, H, W), the size of `like`."""
    return F.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=False)


def conv_bn(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """Convolution without bias, batch norm: (N, inputs, H, W) -> (N, outputs, H/stride, W/stride)."""
    conv = nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs))


def pre_activated(inputs: int, outputs: int, kernel: int, groups: int = 1) -> nn.Sequential:
    """Batch norm, ReLU, convolution without bias; the size stays."""
    conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, groups=groups, bias=False)
    return nn.Sequential(nn.BatchNorm2d(inputs), nn.ReLU(inplace=True), conv)


def stem(width: int) -> nn.Sequential:
    """(N, 3, H, W) -> (N, width, H/4, W/4). The only inner convolutions with a bias."""
    return nn.Sequential(
        nn.Conv2d(3, width, 3, stride=2, padding=1),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
        nn.Conv2d(width, width, 3, stride=2, padding=1),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
    )


def twice_down(inputs: int) -> nn.Sequential:
    """(N, inputs, H, W) -> (N, 4 inputs, H/4, W/4): two strided 3x3, batch norm after each, ReLU between."""
    return nn.Sequential(
        *conv_bn(inputs, 2 * inputs, 3, 2), nn.ReLU(inplace=True), *conv_bn(2 * inputs, 4 * inputs, 3, 2)
    )


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut: (N, inputs, H, W) -> (N, planes, H/stride, W/stride)."""

    expansion = 1

    def __init__(self, inputs: int, planes: int, *, stride: int = 1, rectify: bool = False) -> None:
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
    """1x1, 3x3, 1x1 and a shortcut, without a final ReLU: (N, inputs, H, W) -> (N, 2 planes, H/stride, W/stride)."""

    expansion = 2

    def __init__(self, inputs: int, planes: int, *, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, 2 * planes, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(2 * planes)
        self.downsample = shortcut(inputs, 2 * planes, stride)

    def forward(self, x: Tensor) -> Tensor:
        residual = F.relu(self.bn1(self.conv1(x)), inplace=True)
        residual = F.relu(self.bn2(self.conv2(residual)), inplace=True)
        residual = self.bn3(self.conv3(residual))
        residual += x if self.downsample is None else self.downsample(x)
        return residual


def shortcut(inputs: int, outputs: int, stride: int) -> nn.Sequential | None:
    """None where the input itself can be added."""
    return None if inputs == outputs and stride == 1 else conv_bn(inputs, outputs, 1, stride)


def basic_layer(inputs: int, planes: int, count: int, *, stride: int = 1) -> nn.Sequential:
    """`count` basic blocks, the first with the stride. Each ends in a ReLU but the last of two or more."""
    blocks = [BasicBlock(inputs, planes, stride=stride, rectify=True)]
    for index in range(1, count):
        blocks.append(BasicBlock(planes, planes, rectify=index < count - 1))
    return nn.Sequential(*blocks)


def bottleneck_layer(inputs: int, planes: int, count: int, *, stride: int = 1) -> nn.Sequential:
    """`count` bottlenecks, the first with the stride. No ReLU after any of them, so none in between either."""
    blocks = [Bottleneck(inputs, planes, stride=stride)]
    blocks += [Bottleneck(2 * planes, planes) for _ in range(1, count)]
    return nn.Sequential(*blocks)


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
    """Deep aggregation: each scale refines what the finer one found. (N, inputs, H, W) -> (N, outputs, H, W).

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

    Where the derivative map sees a boundary the detail is trusted, elsewhere the context. Xu, Xiong and
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


def initialise(network: nn.Module) -> None:
    """Convolutions normal after Kaiming, fan out, for ReLU; batch norms 1 and 0; biases as the framework has them."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
