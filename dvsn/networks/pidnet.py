"""PIDNet: a segmenter of three branches, for details, context and boundaries."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dvsn.networks.blocks import (
    conv_bn,
    heads_wanted,
    require_choice,
    require_counts,
    require_image,
    require_number,
    training_heads,
)
from dvsn.networks.dual_resolution import (
    DAPPM,
    PAPPM,
    Bag,
    DualResolution,
    Features,
    Head,
    LightBag,
    basic_layer,
    bottleneck_layer,
    resize,
)
from dvsn.networks.initialise import kaiming
from dvsn.networks.residual import BasicBlock
from dvsn.types import SegmentationOutput

Pyramid = Literal["pappm", "dappm"]
Fusion = Literal["light_bag", "bag"]
Derivative = Literal["slim", "wide"]


class Pag(nn.Module):
    """Pixel-attention-guided fusion: detail and context, mixed by how much their projections agree at a place.

    Input: detail (N, channels, H, W) and context (N, channels, h, w). Output: (N, channels, H, W).
    The context's projection is made at its own size and then resized.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.f_x = conv_bn(channels, width, 1)
        self.f_y = conv_bn(channels, width, 1)

    def forward(self, detail: Tensor, context: Tensor) -> Tensor:
        product = self.f_x(detail) * resize(self.f_y(context), like=detail)
        share = torch.sigmoid(product.sum(dim=1, keepdim=True)).to(detail.dtype)  # (N, 1, H, W)
        return (1 - share) * detail + share * resize(context, like=detail)


class Trunk(DualResolution):
    """What the segmenter and the ImageNet classifier share: the stem, the context and the detail branch."""

    rectified_taps = True
    """Whether the head of the detail branch reads a rectified map."""

    def __init__(self, *, width: int = 32, blocks: int = 2, deep_blocks: int = 3) -> None:
        require_number(self, "width", width, least=2)
        require_counts(self, blocks=blocks, deep_blocks=deep_blocks)
        super().__init__(width=width, first=blocks, second=blocks)
        self.width = width
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
        fine = self.parting(image)
        middle = F.relu(self.layer3(fine))
        detail = self.pag3(self.layer3_(fine), self.compression3(middle))
        rectified = F.relu(detail)
        early = rectified if self.rectified_taps else detail
        deep = F.relu(self.layer4(middle))
        detail = self.pag4(self.layer4_(rectified), self.compression4(deep))
        return Features(fine, middle, deep, early, F.relu(detail), context=deep)


class PIDNet(Trunk):
    """Details at 1/8, context down to 1/64, boundaries at 1/8, which weigh detail against context at each place.

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

    response: ClassVar[str] = "pixels"
    taps = ("layer2", "dfm", "layer3", "layer4", "spp")  # finest first
    dense_tap = "dfm"
    align_corners = True  # of resizing the logits to the size of the label, as released
    stride = 8
    training_heads = staticmethod(training_heads(1, boundary=True))

    def __init__(
        self,
        *,
        classes: int,
        pyramid: Pyramid = "pappm",
        pyramid_width: int = 96,
        head_width: int = 128,
        fusion: Fusion = "light_bag",
        derivative: Derivative = "slim",
        rectified_taps: bool = True,
        heads: bool = True,
        **trunk: Any,
    ) -> None:
        super().__init__(**trunk)
        width, self.rectified_taps = self.width, rectified_taps
        require_counts(self, classes=classes, pyramid_width=pyramid_width, head_width=head_width)
        require_choice(self, "pyramid", pyramid, Pyramid)
        require_choice(self, "fusion", fusion, Fusion)
        require_choice(self, "derivative", derivative, Derivative)
        self.layer5 = bottleneck_layer(8 * width, 8 * width, 2, stride=2)
        narrow = width if derivative == "slim" else 2 * width
        self.layer3_d = BasicBlock(2 * width, narrow, rectify=False)
        self.diff3 = conv_bn(4 * width, narrow, 3)
        if derivative == "slim":
            self.layer4_d = bottleneck_layer(narrow, narrow, 1)
        else:
            self.layer4_d = BasicBlock(narrow, 2 * width, rectify=False)
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
        kaiming(self)

    def forward(self, image: Tensor, *, heads: bool | None = None) -> SegmentationOutput:
        features = self.trunk(image)
        outline, rectified = self.derivative(features)
        detail = self.layer5_(features.detail)  # (N, 4C, H/8, W/8)
        context = resize(self.spp(self.layer5(features.context)), like=detail)  # from 1/64
        logits = self.final_layer(self.dfm(detail, context, self.layer5_d(rectified)))
        if not heads_wanted(self, heads):
            return SegmentationOutput(logits)
        boundary = self.seghead_d(rectified if self.rectified_taps else outline)
        return SegmentationOutput(logits, (self.seghead_p(features.early_detail),), boundary)


class PIDNetClassifier(Trunk):
    """The ImageNet form, to pretrain the first two branches: (N, 3, H, W) -> logits (N, classes).

    Its authors released weights of this form but no code. The layers are those of the published weights. How
    they join is assumed to be DDRNet's way (see `dvsn.networks.ddrnet`): `layer5` keeps the size, `down5`
    brings the detail branch to it, and their sum is pooled. The segmenter does not depend on that.
    """

    response: ClassVar[str] = "classes"
    taps = ("layer2", "layer3", "layer4", "layer5")  # finest first
    classifier = ("linear",)

    def __init__(
        self, *, classes: int, context_blocks: int = 2, feature_width: int = 1024, **trunk: Any
    ) -> None:
        super().__init__(**trunk)
        require_counts(self, classes=classes, context_blocks=context_blocks, feature_width=feature_width)
        self.add_image_head(
            width=self.width, blocks=context_blocks, feature_width=feature_width, classes=classes
        )

    def forward(self, image: Tensor) -> Tensor:
        features = self.trunk(image)
        detail = self.layer5_(features.detail)  # (N, 4C, H/8, W/8)
        return self.classify(F.relu(self.layer5(features.context) + self.down5(F.relu(detail))))
