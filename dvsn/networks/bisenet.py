"""BiSeNet: context from a ResNet-18, detail from a few wide convolutions, joined by channel attention.

Here are V1 and, with the third branch of PIDNet, V1 + ADB + Bag; V2 is in `dvsn.networks.bisenetv2`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dvsn.networks.blocks import (
    at_least_float32,
    conv_bn,
    heads_wanted,
    require_counts,
    require_image,
    training_heads,
)
from dvsn.networks.dual_resolution import LightBag, resize
from dvsn.networks.initialise import kaiming
from dvsn.networks.residual import BasicBlock, Bottleneck, residual_layer
from dvsn.types import SegmentationOutput


class TwoPaths(nn.Module):
    """What both versions of BiSeNet share: logits as large as the image, and auxiliary heads.

    With `upsample=False` each head stops before its bilinear enlargement. `heads=False` builds the network without the
    heads that are used in training only.
    """

    response: ClassVar[str] = "pixels"
    multiple = 1
    align_corners = False

    def __init__(self, *, classes: int, heads: bool, upsample: bool) -> None:
        super().__init__()
        require_counts(self, classes=classes)
        self.heads, self.upsample = heads, upsample
        self.stride = 1 if upsample else 8

    def enlarge(self, logits: Tensor, image: Tensor) -> Tensor:
        """Logits as large as the image, float32 also under autocast; untouched unless `upsample`."""
        return resize(at_least_float32(logits), like=image) if self.upsample else logits

    def outputs(
        self, image: Tensor, logits: Tensor, maps: Mapping[str, Tensor], *, heads: bool | None
    ) -> SegmentationOutput:
        """The answer: `logits`, and, where wanted, those of auxiliary heads by name, each from its map."""
        logits = self.enlarge(logits, image)
        if not heads_wanted(self, heads):
            return SegmentationOutput(logits)
        auxiliary = [getattr(self, name)(x) for name, x in maps.items()]
        return SegmentationOutput(logits, tuple(self.enlarge(x, image) for x in auxiliary))


class BiSeNet(TwoPaths):
    """BiSeNet V1 on ResNet-18.

    Input: (N, 3, H, W) normalised RGB; no map has an odd side if H and W divide by 32. Output: `logits`
    (N, classes, H, W); `auxiliary` from the context at 1/8 and at 1/16, in that order and as large. With
    `upsample=False` each head stops before its bilinear enlargement: main and first auxiliary logits are
    (N, classes, H/8, W/8), the second (N, classes, H/16, W/16).

    Yu et al., 2018, arXiv:1808.00897, with the names and numbers of the widely used re-implementation, whose
    auxiliary heads read the refined context, enlarged once, instead of the trunk. The paper prints 49.0 M
    parameters; this network has 13.3 M. Maps of an odd side are enlarged to their partner's size, where the
    re-implementation doubles them and fails. Without ImageNet weights the trunk starts as the rest does.
    """

    taps = ("sp", "ffm", "cp.resnet.layer3", "cp.resnet.layer4")  # at 1/8, 1/8, 1/16 and 1/32
    dense_tap = "ffm"
    training_heads = staticmethod(training_heads(2))

    def __init__(self, *, classes: int, heads: bool = True, upsample: bool = True) -> None:
        super().__init__(classes=classes, heads=heads, upsample=upsample)
        self.cp: nn.Module = ContextPath(mode="nearest")
        self.sp = SpatialPath()
        self.ffm = Fusion(256)
        self.conv_out = Head(256, 256, classes)
        self.classifier: tuple[str, ...] = ("conv_out.conv_out",)
        if heads:  # published under the sizes that their sources have before they are doubled
            self.conv_out16 = Head(128, 64, classes)
            self.conv_out32 = Head(128, 64, classes)
            self.classifier += ("conv_out16.conv_out", "conv_out32.conv_out")
        kaiming(self, mode="fan_in", slope=1, zero_biases=True)  # gain 1

    def forward(self, image: Tensor, *, heads: bool | None = None) -> SegmentationOutput:
        require_image(self, image, channels=3, multiple=1, minimum=1)
        context8, context16 = self.cp(image)
        both = torch.cat([self.sp(image), context8], dim=1)  # (N, 256, H/8, W/8)
        return self.decode(image, both, context8, context16, heads)

    def decode(
        self, image: Tensor, both: Tensor, context8: Tensor, context16: Tensor, heads: bool | None
    ) -> SegmentationOutput:
        """The heads' answers, from `both` paths (N, 256, H/8, W/8) and the context at 1/8 and 1/16."""
        maps = {"conv_out16": context8, "conv_out32": context16}
        return self.outputs(image, self.conv_out(self.ffm(both)), maps, heads=heads)


class BiSeNetDerivative(BiSeNet):
    """BiSeNet V1 with an auxiliary derivative branch (ADB) and boundary-attention-guided fusion (Bag).

    Input, `logits` and `auxiliary` as `BiSeNet`; in training also `boundary` (N, 1, H, W), of which
    `upsample=False` leaves (N, 1, H/8, W/8). At inference too, the derivative branch weighs the spatial path
    against the context, per place and channel.

    Xu, Xiong and Bhattacharyya, 2023, arXiv:2206.02066, table 1: 76.7 mIoU on Cityscapes instead of 75.4.
    As in their code, the fusion is the light one, the context is doubled bilinearly, and the boundary head
    reads the branch behind a ReLU (which acted in place there). The authors' order is auxiliary 1/8 and 1/16,
    main, boundary.
    """

    training_heads = staticmethod(training_heads(2, boundary=True))

    def __init__(self, *, classes: int, heads: bool = True, upsample: bool = True) -> None:
        super().__init__(classes=classes, heads=heads, upsample=upsample)
        self.cp = DerivativeContextPath()  # in place of the plain one
        self.dfm = LightBag(128, 256)
        if heads:
            self.conv_outd = Head(64, 64, 1)
        kaiming(self, mode="fan_in", slope=1, zero_biases=True)  # gain 1

    def forward(self, image: Tensor, *, heads: bool | None = None) -> SegmentationOutput:
        require_image(self, image, channels=3, multiple=1, minimum=1)
        context8, context16, outline, derivative = self.cp(image)
        both = self.dfm(self.sp(image), context8, derivative)  # (N, 256, H/8, W/8)
        output = self.decode(image, both, context8, context16, heads)
        if not output.auxiliary:
            return output
        boundary = self.enlarge(self.conv_outd(outline), image)
        return SegmentationOutput(output.logits, output.auxiliary, boundary)


class ContextPath(nn.Module):
    """The trunk, refined from coarse to fine: (N, 3, H, W) -> (N, 128, H/8, W/8) and (N, 128, H/16, W/16).

    `mode` is how a map is doubled.
    """

    def __init__(self, *, mode: Literal["nearest", "bilinear"]) -> None:
        super().__init__()
        self.mode = mode
        self.resnet = ResNet18()
        self.arm16 = AttentionRefinement(256)
        self.arm32 = AttentionRefinement(512)
        self.conv_head32 = ConvNormReLU(128, 128)
        self.conv_head16 = ConvNormReLU(128, 128)
        self.conv_avg = ConvNormReLU(512, 128, kernel=1)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        return self.refine(*self.resnet(image))

    def refine(self, trunk8: Tensor, trunk16: Tensor, trunk32: Tensor) -> tuple[Tensor, Tensor]:
        """Context at 1/8 and 1/16, each from the level below it."""
        at32 = self.arm32(trunk32) + self.conv_avg(global_mean(trunk32))  # (N, 128, H/32, W/32)
        context16 = self.conv_head32(F.interpolate(at32, size=trunk16.shape[-2:], mode=self.mode))
        at16 = self.arm16(trunk16) + context16  # (N, 128, H/16, W/16)
        context8 = self.conv_head16(F.interpolate(at16, size=trunk8.shape[-2:], mode=self.mode))
        return context8, context16


class DerivativeContextPath(ContextPath):
    """The context path, and beside it the derivative branch at 1/8, which reads the trunk's differences.

    Adds to the context the rectified map of the boundary head (N, 64, H/8, W/8) and that of the fusion
    (N, 128, H/8, W/8).
    """

    def __init__(self) -> None:
        super().__init__(mode="bilinear")
        self.diff3 = conv_bn(256, 64, 3)
        self.diff4 = conv_bn(512, 64, 3)
        self.convD1 = BasicBlock(128, 64, rectify=False)
        self.convD2 = BasicBlock(64, 64, rectify=False)
        self.convD3 = Bottleneck(64, 64, expansion=2, rectify=False)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        trunk8, trunk16, trunk32 = self.resnet(image)
        outline = F.relu(self.convD1(trunk8) + resize(self.diff3(trunk16), like=trunk8))
        outline = F.relu(self.convD2(outline) + resize(self.diff4(trunk32), like=trunk8))  # (N, 64, H/8, W/8)
        return *self.refine(trunk8, trunk16, trunk32), outline, self.convD3(outline)


class ResNet18(nn.Module):
    """He et al., 2016, arXiv:1512.03385, without its classifier and under torchvision's names.

    (N, 3, H, W) -> (N, 128, H/8, W/8), (N, 256, H/16, W/16), (N, 512, H/32, W/32).
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = residual_layer(64, 64, 2)
        self.layer2 = residual_layer(64, 128, 2, stride=2)
        self.layer3 = residual_layer(128, 256, 2, stride=2)
        self.layer4 = residual_layer(256, 512, 2, stride=2)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = self.maxpool(F.relu(self.bn1(self.conv1(image)), inplace=True))  # (N, 64, H/4, W/4)
        trunk8 = self.layer2(self.layer1(x))
        trunk16 = self.layer3(trunk8)
        return trunk8, trunk16, self.layer4(trunk16)


class ResNet18Classifier(nn.Module):
    """ResNet-18 for ImageNet, its trunk under the name that BiSeNet V1 has for it, so that `weights=` finds it.

    Input: (N, 3, H, W) normalised RGB. Output: logits (N, classes).
    """

    response: ClassVar[str] = "classes"
    taps = ("cp.resnet.layer2", "cp.resnet.layer3", "cp.resnet.layer4")
    multiple = 1
    classifier = ("fc",)

    def __init__(self, *, classes: int) -> None:
        super().__init__()
        require_counts(self, classes=classes)
        self.cp = nn.ModuleDict({"resnet": ResNet18()})
        self.fc = nn.Linear(512, classes)
        kaiming(self, mode="fan_in", slope=1, zero_biases=True)  # gain 1

    def forward(self, image: Tensor) -> Tensor:
        require_image(self, image, channels=3, multiple=1, minimum=1)
        *_, trunk32 = self.cp["resnet"](image)
        logits: Tensor = self.fc(global_mean(trunk32).flatten(1))
        return logits


class SpatialPath(nn.Module):
    """Three strided convolutions and a 1x1: (N, 3, H, W) -> (N, 128, H/8, W/8)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = ConvNormReLU(3, 64, kernel=7, stride=2)
        self.conv2 = ConvNormReLU(64, 64, stride=2)
        self.conv3 = ConvNormReLU(64, 64, stride=2)
        self.conv_out = ConvNormReLU(64, 128, kernel=1)

    def forward(self, image: Tensor) -> Tensor:
        return self.conv_out(self.conv3(self.conv2(self.conv1(image))))


class AttentionRefinement(nn.Module):
    """A 3x3 convolution, times a gate per channel from its global mean: (N, C, h, w) -> (N, 128, h, w)."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.conv = ConvNormReLU(inputs, 128)
        self.conv_atten = nn.Conv2d(128, 128, 1, bias=False)
        self.bn_atten = nn.BatchNorm2d(128)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return x * torch.sigmoid(self.bn_atten(self.conv_atten(global_mean(x))))


class Fusion(nn.Module):
    """A 1x1 convolution of both paths, plus its output times a gate per channel from its global mean.

    Keeps (N, C, h, w). The paper puts a second convolution and a ReLU before the gate, the code does not.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.convblk = ConvNormReLU(channels, channels, kernel=1)
        self.conv = nn.Conv2d(channels, channels, 1, bias=False)
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        x = self.convblk(x)
        return x + x * torch.sigmoid(self.bn(self.conv(global_mean(x))))


class Head(nn.Module):
    """3x3 convolution and class convolution: (N, C, h, w) -> (N, classes, h, w)."""

    def __init__(self, inputs: int, middle: int, classes: int) -> None:
        super().__init__()
        self.conv = ConvNormReLU(inputs, middle)
        self.conv_out = nn.Conv2d(middle, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv_out(self.conv(x))


class ConvNormReLU(nn.Module):
    """Convolution without bias, batch norm, ReLU: (N, inputs, H, W) -> (N, outputs, H/stride, W/stride)."""

    def __init__(self, inputs: int, outputs: int, *, kernel: int = 3, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)), inplace=True)


def global_mean(x: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, C, 1, 1)."""
    return x.mean(dim=(2, 3), keepdim=True)
