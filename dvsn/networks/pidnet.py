"""PIDNet: a segmenter of three branches, for details, context and boundaries."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dvsn.networks.blocks import require_choice, require_image, require_number
from dvsn.networks.dual_resolution import (
    DAPPM,
    PAPPM,
    Bag,
    BasicBlock,
    Head,
    LightBag,
    basic_layer,
    bottleneck_layer,
    conv_bn,
    initialise,
    resize,
    stem,
    twice_down,
)
from dvsn.types import SegmentationOutput

Pyramid = Literal["pappm", "dappm"]
Fusion = Literal["light_bag", "bag"]
Derivative = Literal["slim", "wide"]


class Pag(nn.Module):
    """Pixel-attention-guided fusion: the detail map takes from the context where the two agree.

    Input: detail (N, channels, H, W) and context (N, channels, h, w). Output: (N, channels, H, W).
    The context's projection is made at its own size and then resized.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.f_x = conv_bn(channels, width, 1)
        self.f_y = conv_bn(channels, width, 1)

    def forward(self, detail: Tensor, context: Tensor) -> Tensor:
        product = self.f_x(detail) * resize(self.f_y(context), like=detail)
        trust = torch.sigmoid(product.sum(dim=1, keepdim=True)).to(detail.dtype)  # (N, 1, H, W)
        return (1 - trust) * detail + trust * resize(context, like=detail)


class Features(NamedTuple):
    """Maps of the first two branches, C being the width of the stem."""

    fine: Tensor
    """(N, 2C, H/8, W/8), rectified: where the branches part."""
    middle: Tensor
    """(N, 4C, H/16, W/16), context, rectified."""
    deep: Tensor
    """(N, 8C, H/32, W/32), context, rectified."""
    early_detail: Tensor
    """(N, 2C, H/8, W/8), detail after the first exchange, for the auxiliary class head."""
    detail: Tensor
    """(N, 2C, H/8, W/8), detail after the second exchange."""


class Trunk(nn.Module):
    """What the segmenter and the ImageNet classifier share: the stem, the context and the detail branch."""

    multiple = 1

    def __init__(self, *, width: int, blocks: int, deep_blocks: int, rectified_taps: bool = True) -> None:
        super().__init__()
        require_number(self, "width", width, least=2)
        require_number(self, "blocks", blocks, least=1)
        require_number(self, "deep_blocks", deep_blocks, least=1)
        self.rectified_taps = rectified_taps
        self.conv1 = stem(width)
        self.layer1 = basic_layer(width, width, blocks)
        self.layer2 = basic_layer(width, 2 * width, blocks, stride=2)
        self.layer3 = basic_layer(2 * width, 4 * width, deep_blocks, stride=2)
        self.layer4 = basic_layer(4 * width, 8 * width, deep_blocks, stride=2)
        self.compression3 = conv_bn(4 * width, 2 * width, 1)
        self.compression4 = conv_bn(8 * width, 2 * width, 1)
        self.pag3 = Pag(2 * width, width)
        self.pag4 = Pag(2 * width, width)
        self.layer3_ = basic_layer(2 * width, 2 * width, blocks)
        self.layer4_ = basic_layer(2 * width, 2 * width, blocks)
        self.layer5_ = bottleneck_layer(2 * width, 2 * width, 1)

    def trunk(self, image: Tensor) -> Features:
        require_image(self, image, channels=3, multiple=1, minimum=1)
        fine = F.relu(self.layer1(self.conv1(image)))  # (N, C, H/4, W/4)
        fine = F.relu(self.layer2(fine))
        middle = F.relu(self.layer3(fine))
        detail = self.pag3(self.layer3_(fine), self.compression3(middle))
        rectified = F.relu(detail)
        early = rectified if self.rectified_taps else detail
        deep = F.relu(self.layer4(middle))
        detail = self.pag4(self.layer4_(rectified), self.compression4(deep))
        return Features(fine, middle, deep, early, detail)


class PIDNet(Trunk):
    """Details at 1/8, context down to 1/64, boundaries at 1/8; the boundaries decide whom to trust where.

    Input: (N, 3, H, W) normalised RGB of any size. Output: `logits` (N, classes, H/8, W/8), sides rounded up;
    in training also `auxiliary`, one map of class logits from the detail branch, and `boundary`
    (N, 1, H/8, W/8). `heads=False` builds the evaluation form, without the two heads used in training only.

    Xu, Xiong and Bhattacharyya, 2023, arXiv:2206.02066. The defaults are PIDNet-S as released. `blocks` and
    `deep_blocks` are the paper's m and n, `width` its C, `derivative` the width of the third branch.

    Differences: the paper prints figures of n = 4 for PIDNet-M, whose released code and weights have n = 3.
    The release feeds its auxiliary heads a rectified map, because a ReLU in place reaches it first; so do we,
    unless `rectified_taps=False` (the form of mmsegmentation). The release needs sides divisible by 8; here
    maps are resized to the true size of their partner, which is the same where the sides divide.
    """

    taps = ("layer2", "dfm", "layer3", "layer4", "spp")  # finest first
    align_corners = True  # of resizing the logits to the size of the label, as released
    stride = 8
    minimum_batch = 2  # a device, in training: the pyramid normalises one value a channel

    def __init__(
        self,
        *,
        classes: int,
        width: int = 32,
        blocks: int = 2,
        deep_blocks: int = 3,
        pyramid: Pyramid = "pappm",
        pyramid_width: int = 96,
        head_width: int = 128,
        fusion: Fusion = "light_bag",
        derivative: Derivative = "slim",
        rectified_taps: bool = True,
        heads: bool = True,
    ) -> None:
        super().__init__(width=width, blocks=blocks, deep_blocks=deep_blocks, rectified_taps=rectified_taps)
        require_number(self, "classes", classes, least=1)
        require_number(self, "pyramid_width", pyramid_width, least=1)
        require_number(self, "head_width", head_width, least=1)
        require_choice(self, "pyramid", pyramid, Pyramid)
        require_choice(self, "fusion", fusion, Fusion)
        require_choice(self, "derivative", derivative, Derivative)
        self.layer5 = bottleneck_layer(8 * width, 8 * width, 2, stride=2)
        narrow = width if derivative == "slim" else 2 * width
        self.layer3_d = BasicBlock(2 * width, narrow)
        self.diff3 = conv_bn(4 * width, narrow, 3)
        self.layer4_d: nn.Module
        if derivative == "slim":
            self.layer4_d = bottleneck_layer(narrow, narrow, 1)
        else:
            self.layer4_d = BasicBlock(narrow, 2 * width)
        self.diff4 = conv_bn(8 * width, 2 * width, 3)
        self.layer5_d = bottleneck_layer(2 * width, 2 * width, 1)
        self.spp = (PAPPM if pyramid == "pappm" else DAPPM)(16 * width, pyramid_width, 4 * width)
        self.dfm = (LightBag if fusion == "light_bag" else Bag)(4 * width, 4 * width)
        self.final_layer = Head(4 * width, head_width, classes)
        self.classifier: tuple[str, ...] = ("final_layer.conv2",)
        self.heads = heads
        if heads:
            self.seghead_p = Head(2 * width, head_width, classes)
            self.seghead_d = Head(2 * width, width, 1)
            self.classifier += ("seghead_p.conv2",)
        initialise(self)

    def forward(self, image: Tensor, *, heads: bool | None = None) -> SegmentationOutput:
        features = self.trunk(image)
        outline, derivative = self.derivative(features)
        detail = self.layer5_(F.relu(features.detail))  # (N, 4C, H/8, W/8)
        context = resize(self.spp(self.layer5(features.deep)), like=detail)  # from 1/64
        logits = self.final_layer(self.dfm(detail, context, derivative))
        if not (self.heads and (self.training if heads is None else heads)):
            return SegmentationOutput(logits)
        return SegmentationOutput(logits, (self.seghead_p(features.early_detail),), self.seghead_d(outline))

    def derivative(self, features: Features) -> tuple[Tensor, Tensor]:
        """The third branch: what the boundary head sees (N, 2C, H/8, W/8), and its last map (N, 4C, H/8, W/8)."""
        x = self.layer3_d(features.fine)
        x = x + resize(self.diff3(features.middle), like=x)
        x = self.layer4_d(F.relu(x))
        x = x + resize(self.diff4(features.deep), like=x)
        rectified = F.relu(x)
        return rectified if self.rectified_taps else x, self.layer5_d(rectified)


class PIDNetClassifier(Trunk):
    """The ImageNet form, to pretrain the first two branches: (N, 3, H, W) -> logits (N, classes).

    Its authors released weights of this form but no code. The layers are those of the published weights. How
    they join is assumed to be DDRNet's way (see `dvsn.networks.ddrnet`): `layer5` keeps the size, `down5`
    brings the detail branch to it, and their sum is pooled. The segmenter does not depend on that.
    """

    taps = ("layer2", "layer3", "layer4", "layer5")  # finest first
    classifier = ("linear",)

    def __init__(
        self,
        *,
        classes: int,
        width: int = 32,
        blocks: int = 2,
        deep_blocks: int = 3,
        context_blocks: int = 2,
        feature_width: int = 1024,
    ) -> None:
        super().__init__(width=width, blocks=blocks, deep_blocks=deep_blocks)
        require_number(self, "classes", classes, least=1)
        require_number(self, "context_blocks", context_blocks, least=1)
        require_number(self, "feature_width", feature_width, least=1)
        self.layer5 = bottleneck_layer(8 * width, 8 * width, context_blocks)
        self.down5 = twice_down(4 * width)
        self.last_layer = conv_bn(16 * width, feature_width, 1)
        self.linear = nn.Linear(feature_width, classes)
        initialise(self)

    def forward(self, image: Tensor) -> Tensor:
        features = self.trunk(image)
        detail = self.layer5_(F.relu(features.detail))  # (N, 4C, H/8, W/8)
        joined = F.relu(self.layer5(features.deep) + self.down5(F.relu(detail)))  # (N, 16C, H/32, W/32)
        pooled = F.relu(self.last_layer(joined)).mean(dim=(2, 3))
        logits: Tensor = self.linear(pooled)
        return logits
