"""BiSeNet V2: a wide, shallow branch for detail and a narrow, deep one for context, each gating the other."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dvsn.networks.bisenet import ConvNormReLU, TwoPaths, global_mean
from dvsn.networks.blocks import conv_bn, conv_bn_relu, require_image, require_number, training_heads
from dvsn.networks.initialise import kaiming
from dvsn.types import SegmentationOutput

EXPANSION = 6  # of the depth-wise convolutions


class BiSeNetV2(TwoPaths):
    """A detail branch at 1/8 and a semantic branch down to 1/32, joined by bilateral guided aggregation.

    Input: (N, 3, H, W) normalised RGB; sides that divide by 32 need no odd-sized map. Output: `logits`
    (N, classes, H, W); `auxiliary` from the semantic maps at 1/4, 1/8, 1/16 and 1/32, in that order and as
    large. With `upsample=False` each head stops before its bilinear enlargement, so that the main logits are
    (N, classes, H/8, W/8) and the auxiliary ones at 1/2, 1/4, 1/8 and 1/16.

    Yu et al., 2021, arXiv:2004.02147, with the names and numbers of the widely used re-implementation. The
    paper prints 21.15 G multiply-adds at 512x1024, this network has 24.60 G. The branches always agree in
    size: maps of an odd side are enlarged to their partner's size, not by a factor.
    """

    taps = ("detail", "bga", "segment.S4", "segment.S5_5")  # at 1/8, 1/8, 1/16 and 1/32
    dense_tap = "bga"
    training_heads = staticmethod(training_heads(4))

    def __init__(
        self, *, classes: int, heads: bool = True, upsample: bool = True, dropout: float = 0.1
    ) -> None:
        super().__init__(classes=classes, heads=heads, upsample=upsample)
        require_number(self, "dropout", dropout, least=0.0, most=1.0)
        self.detail = DetailBranch()
        self.segment = SemanticBranch()
        self.bga = Aggregation()
        self.head = Head(128, 1024, classes, dropout)
        self.classifier: tuple[str, ...] = ("head.conv_out.1",)
        if heads:
            self.aux2 = AuxiliaryHead(16, classes, dropout, stride=4)
            self.aux3 = AuxiliaryHead(32, classes, dropout, stride=8)
            self.aux4 = AuxiliaryHead(64, classes, dropout, stride=16)
            self.aux5_4 = AuxiliaryHead(128, classes, dropout, stride=32)
            self.classifier += tuple(f"{name}.conv_out.1" for name in ("aux2", "aux3", "aux4", "aux5_4"))
        kaiming(self, zero_biases=True)

    def forward(self, image: Tensor, *, heads: bool | None = None) -> SegmentationOutput:
        require_image(self, image, channels=3, multiple=1, minimum=1)
        s2, s3, s4, s5, context = self.segment(image)  # at 1/4, 1/8, 1/16, 1/32, 1/32
        joined = self.bga(self.detail(image), context)  # (N, 128, H/8, W/8)
        maps = {"aux2": s2, "aux3": s3, "aux4": s4, "aux5_4": s5}
        return self.outputs(image, self.head(joined), maps, heads=heads)


class DetailBranch(nn.Module):
    """Eight plain convolutions: (N, 3, H, W) -> (N, 128, H/8, W/8)."""

    def __init__(self) -> None:
        super().__init__()
        self.S1 = nn.Sequential(ConvNormReLU(3, 64, stride=2), ConvNormReLU(64, 64))
        self.S2 = nn.Sequential(ConvNormReLU(64, 64, stride=2), ConvNormReLU(64, 64), ConvNormReLU(64, 64))
        self.S3 = nn.Sequential(
            ConvNormReLU(64, 128, stride=2), ConvNormReLU(128, 128), ConvNormReLU(128, 128)
        )

    def forward(self, image: Tensor) -> Tensor:
        return self.S3(self.S2(self.S1(image)))


class SemanticBranch(nn.Module):
    """Stem and gather-expansion layers: (N, 3, H, W) -> maps at 1/4, 1/8, 1/16, 1/32, and of the last its context."""

    def __init__(self) -> None:
        super().__init__()
        self.S1S2 = Stem()
        self.S3 = nn.Sequential(GatherExpansionDown(16, 32), GatherExpansion(32))
        self.S4 = nn.Sequential(GatherExpansionDown(32, 64), GatherExpansion(64))
        self.S5_4 = nn.Sequential(GatherExpansionDown(64, 128), *(GatherExpansion(128) for _ in range(3)))
        self.S5_5 = ContextEmbedding(128)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        s2 = self.S1S2(image)  # (N, 16, H/4, W/4)
        s3 = self.S3(s2)  # (N, 32, H/8, W/8)
        s4 = self.S4(s3)  # (N, 64, H/16, W/16)
        s5 = self.S5_4(s4)  # (N, 128, H/32, W/32)
        return s2, s3, s4, s5, self.S5_5(s5)


class Stem(nn.Module):
    """Two ways to halve, a convolution and a pooling, side by side: (N, 3, H, W) -> (N, 16, H/4, W/4)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = ConvNormReLU(3, 16, stride=2)
        self.left = nn.Sequential(ConvNormReLU(16, 8, kernel=1), ConvNormReLU(8, 16, stride=2))
        self.right = nn.MaxPool2d(3, stride=2, padding=1)
        self.fuse = ConvNormReLU(32, 16)

    def forward(self, image: Tensor) -> Tensor:
        half = self.conv(image)  # (N, 16, H/2, W/2)
        return self.fuse(torch.cat([self.left(half), self.right(half)], dim=1))


class GatherExpansion(nn.Module):
    """Gather with 3x3, expand depth-wise, project; plus identity. Keeps (N, C, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        middle = EXPANSION * channels
        self.conv1 = ConvNormReLU(channels, channels)
        self.dwconv = conv_bn(channels, middle, 3, groups=channels).append(nn.ReLU(inplace=True))
        self.conv2 = residual_end(middle, channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv2(self.dwconv(self.conv1(x))) + x)


class GatherExpansionDown(nn.Module):
    """A gather-expansion layer of stride 2, with two depth-wise convolutions: (N, C, H, W) -> (N, outputs, H/2, W/2)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        middle = EXPANSION * inputs
        self.conv1 = ConvNormReLU(inputs, inputs)
        self.dwconv1 = conv_bn(inputs, middle, 3, 2, groups=inputs)
        self.dwconv2 = conv_bn(middle, middle, 3, groups=middle).append(nn.ReLU(inplace=True))
        self.conv2 = residual_end(middle, outputs)
        self.shortcut = conv_bn(inputs, inputs, 3, 2, groups=inputs).extend(conv_bn(inputs, outputs, 1))

    def forward(self, x: Tensor) -> Tensor:
        inner = self.dwconv2(self.dwconv1(self.conv1(x)))  # (N, 6C, H/2, W/2)
        return F.relu(self.conv2(inner) + self.shortcut(x))


class ContextEmbedding(nn.Module):
    """Adds the projected global mean to each place; keeps (N, C, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(channels)  # of the mean, with no convolution before it to fold into
        self.conv_gap = ConvNormReLU(channels, channels, kernel=1)
        self.conv_last = ConvNormReLU(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv_last(x + self.conv_gap(self.bn(global_mean(x))))


class Aggregation(nn.Module):
    """Bilateral guided aggregation: each branch, at both sizes, is gated by the other.

    Detail (N, 128, H/8, W/8) and semantic map (N, 128, H/32, W/32) -> (N, 128, H/8, W/8).
    """

    def __init__(self) -> None:
        super().__init__()
        self.left1 = nn.Sequential(*conv_bn(128, 128, 3, groups=128), nn.Conv2d(128, 128, 1, bias=False))
        self.left2 = conv_bn(128, 128, 3, 2).append(nn.AvgPool2d(3, stride=2, padding=1))
        self.right1 = conv_bn(128, 128, 3)
        self.right2 = nn.Sequential(*conv_bn(128, 128, 3, groups=128), nn.Conv2d(128, 128, 1, bias=False))
        self.conv = conv_bn_relu(128, 128, 3)

    def forward(self, detail: Tensor, semantic: Tensor) -> Tensor:
        size = detail.shape[-2:]
        gate = torch.sigmoid(F.interpolate(self.right1(semantic), size=size, mode="nearest"))
        fine = self.left1(detail) * gate  # (N, 128, H/8, W/8)
        coarse = self.left2(detail) * torch.sigmoid(self.right2(semantic))  # (N, 128, H/32, W/32)
        return self.conv(fine + F.interpolate(coarse, size=size, mode="nearest"))


class Head(nn.Module):
    """3x3 convolution, dropout, class convolution: (N, C, h, w) -> (N, classes, h, w)."""

    def __init__(self, inputs: int, middle: int, classes: int, dropout: float) -> None:
        super().__init__()
        self.conv = ConvNormReLU(inputs, middle)
        self.drop = nn.Dropout(dropout)
        self.conv_out = nn.Sequential(nn.Identity(), nn.Conv2d(middle, classes, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.conv_out(self.drop(self.conv(x)))


class AuxiliaryHead(nn.Module):
    """A head that doubles the map and gives it stride x stride channels: (N, C, h, w) -> (N, classes, 2h, 2w)."""

    def __init__(self, inputs: int, classes: int, dropout: float, *, stride: int) -> None:
        super().__init__()
        self.conv = ConvNormReLU(inputs, 128)
        self.drop = nn.Dropout(dropout)
        grow = nn.Sequential(nn.Upsample(scale_factor=2, mode="nearest"), ConvNormReLU(128, stride**2))
        self.conv_out = nn.Sequential(grow, nn.Conv2d(stride**2, classes, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.conv_out(self.drop(self.conv(x)))


def residual_end(inputs: int, outputs: int) -> nn.Sequential:
    """1x1 convolution and a norm that starts at zero, so that its block starts as its shortcut."""
    layers = conv_bn(inputs, outputs, 1)
    nn.init.zeros_(layers[1].weight)  # type: ignore[arg-type]
    return layers
