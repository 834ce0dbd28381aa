"""DDRNet: a segmenter of two branches that are added to each other stage by stage; a third, for boundaries, is optional."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor

from dvsn.errors import ConfigError
from dvsn.networks.blocks import conv_bn, heads_wanted, require_counts, require_image
from dvsn.networks.dual_resolution import (
    DAPPM,
    DualResolution,
    Features,
    Head,
    LightBag,
    basic_layer,
    bottleneck_layer,
    resize,
    twice_down,
)
from dvsn.networks.initialise import kaiming
from dvsn.networks.residual import BasicBlock
from dvsn.types import SegmentationOutput


class Trunk(DualResolution):
    """What the segmenter and the ImageNet classifier share: both branches up to their last exchange.

    `split` makes two of the third stage, each with an exchange: `layer3_1` and `layer3_2`.
    """

    def __init__(self, *, width: int = 64, blocks: Sequence[int] = (2, 2, 2, 2), split: bool = False) -> None:
        require_counts(self, width=width)
        if len(blocks) != 4 or any(type(count) is not int or count < 1 for count in blocks):
            raise ConfigError(
                f"{type(self).__name__}: blocks must be four counts of at least 1, found {blocks!r}."
            )
        if split and blocks[2] % 2:
            raise ConfigError(
                f"{type(self).__name__}: split halves the third stage, so blocks[2] must be even, found {blocks[2]}."
            )
        first, second, third, fourth = blocks
        super().__init__(width=width, first=first, second=second)
        self.width = width
        self.thirds = ("3_1", "3_2") if split else ("3",)
        for index, part in enumerate(self.thirds):
            inputs, stride = (2 * width, 2) if index == 0 else (4 * width, 1)
            count = third // len(self.thirds)
            self.add_module(f"layer{part}", basic_layer(inputs, 4 * width, count, stride=stride))
            self.add_module(f"layer{part}_", basic_layer(2 * width, 2 * width, count))
            self.add_module(f"compression{part}", conv_bn(4 * width, 2 * width, 1))
            self.add_module(f"down{part}", conv_bn(2 * width, 4 * width, 3, 2))
        self.layer4 = basic_layer(4 * width, 8 * width, fourth, stride=2)
        self.layer4_ = basic_layer(2 * width, 2 * width, fourth)
        self.compression4 = conv_bn(8 * width, 2 * width, 1)
        self.down4 = twice_down(2 * width)
        self.layer5_ = bottleneck_layer(2 * width, 2 * width, 1)

    def trunk(self, image: Tensor) -> Features:
        require_image(self, image, channels=3, multiple=1, minimum=1)
        fine = self.parting(image)  # (N, 2C, H/8, W/8)
        rectified = fine, fine
        for part in self.thirds:
            context, detail, middle = self.exchange(part, *rectified)
            rectified = F.relu(context), F.relu(detail)
        early = detail
        context, detail, deep = self.exchange("4", *rectified)
        return Features(fine, middle, deep, early, F.relu(detail), F.relu(context))

    def exchange(self, stage: str, context: Tensor, detail: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """A stage of both branches: context and detail after they were added to each other, and the rectified context from
        before, which is what was added to the detail."""
        context = getattr(self, f"layer{stage}")(context)
        detail = getattr(self, f"layer{stage}_")(detail)
        rectified = F.relu(context)
        context = context + getattr(self, f"down{stage}")(F.relu(detail))
        detail = detail + resize(getattr(self, f"compression{stage}")(rectified), like=detail)
        return context, detail, rectified


class DDRNet(Trunk):
    """Details at 1/8, context down to 1/64, added and classified.

    Input: (N, 3, H, W) normalised RGB of any size. Output: `logits` (N, classes, H/8, W/8), sides rounded up;
    in training also `auxiliary`, one map of class logits from the detail branch after the third stage.
    `heads=False` builds the evaluation form, without the heads that are used in training only.

    Pan, Hong, Sun and Jia, 2022, arXiv:2101.06085. The defaults are DDRNet-23. `derivative` adds the branch
    for boundaries and the fusion by it of Xu, Xiong and Bhattacharyya, 2023, arXiv:2206.02066, table 1, and in
    training `boundary` (N, 1, H/8, W/8). Of that form no weights are known; the released definition names a
    fusion that its repository does not hold, and the Light-Bag with leading batch norms is the one that fits.

    Difference: the release needs sides divisible by 8; here maps are resized to the true size of their
    partner, which is the same where the sides divide.
    """

    dense_tap = "final_layer:in"
    response: ClassVar[str] = "pixels"
    align_corners = False  # of resizing the logits to the size of the label, as released
    stride = 8

    def __init__(
        self,
        *,
        classes: int,
        pyramid_width: int = 128,
        head_width: int = 128,
        derivative: bool = False,
        heads: bool = True,
        **trunk: Any,
    ) -> None:
        super().__init__(**trunk)
        require_counts(self, classes=classes, pyramid_width=pyramid_width, head_width=head_width)
        width = self.width
        self.layer5 = bottleneck_layer(8 * width, 8 * width, 1, stride=2)
        self.spp = DAPPM(16 * width, pyramid_width, 4 * width)
        self.has_derivative = derivative
        if derivative:
            self.layer3_d = BasicBlock(2 * width, 2 * width, rectify=False)
            self.layer4_d = BasicBlock(2 * width, 2 * width, rectify=False)
            self.layer5_d = bottleneck_layer(2 * width, 2 * width, 1)
            self.diff3 = conv_bn(4 * width, 2 * width, 3)
            self.diff4 = conv_bn(8 * width, 2 * width, 3)
            self.dfm = LightBag(4 * width, 4 * width, pre_activate=True)
        self.final_layer = Head(4 * width, head_width, classes)
        self.classifier: tuple[str, ...] = ("final_layer.conv2",)
        self.taps = ("layer2", "layer5_", f"layer{self.thirds[-1]}", "layer4", "spp")  # finest first
        self.heads = heads
        if heads:
            self.seghead_extra = Head(2 * width, head_width, classes)
            self.classifier += ("seghead_extra.conv2",)
            if derivative:
                self.seghead_bd = Head(2 * width, width, 1)
        kaiming(self)

    @staticmethod
    def training_heads(*, heads: bool = True, derivative: bool = False, **_: Any) -> tuple[int, bool]:
        """Of a network of these options in training: how many auxiliary heads, and whether one of boundaries."""
        return (1, derivative) if heads else (0, False)

    def forward(self, image: Tensor, *, heads: bool | None = None) -> SegmentationOutput:
        features = self.trunk(image)
        detail = self.layer5_(features.detail)  # (N, 4C, H/8, W/8)
        context = resize(self.spp(self.layer5(features.context)), like=detail)  # from 1/64
        outline: Tensor | None = None
        if self.has_derivative:
            outline, rectified = self.derivative(features)
            logits = self.final_layer(self.dfm(detail, context, self.layer5_d(rectified)))
        else:
            logits = self.final_layer(context + detail)
        if not heads_wanted(self, heads):
            return SegmentationOutput(logits)
        boundary = None if outline is None else self.seghead_bd(outline)
        return SegmentationOutput(logits, (self.seghead_extra(features.early_detail),), boundary)


class DDRNetClassifier(Trunk):
    """The ImageNet form, to pretrain both branches: (N, 3, H, W) -> logits (N, classes).

    Pan, Hong, Sun and Jia, 2022, arXiv:2101.06085. As in the released definition the single bottleneck of
    `layer5` ends in a ReLU here, though it does not in the segmenter.
    """

    response: ClassVar[str] = "classes"
    classifier = ("linear",)

    def __init__(self, *, classes: int, feature_width: int = 2048, **trunk: Any) -> None:
        super().__init__(**trunk)
        require_counts(self, classes=classes, feature_width=feature_width)
        self.taps = ("layer2", f"layer{self.thirds[-1]}", "layer4", "layer5")  # finest first
        self.add_image_head(width=self.width, blocks=1, feature_width=feature_width, classes=classes)

    def forward(self, image: Tensor) -> Tensor:
        features = self.trunk(image)
        detail = F.relu(self.layer5_(features.detail))  # (N, 4C, H/8, W/8)
        context = F.relu(self.layer5(features.context))  # (N, 16C, H/32, W/32)
        return self.classify(F.relu(context + self.down5(detail)))
