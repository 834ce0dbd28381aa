"""HRNetV2 for classes: all four streams, brought to the finest, answer for every pixel, or for the image.

OCR, which lets a pixel ask what its class looks like in this image, is in `dvsn.networks.hrnetv2_ocr`.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from dvsn.networks.blocks import require_image, require_number
from dvsn.networks.hrnet import (
    Bottleneck,
    Enlarge,
    HighResolutionTrunk,
    resize,
    set_momentum,
)
from dvsn.types import SegmentationOutput


class HRNetV2(HighResolutionTrunk):
    """HRNetV2 for segmentation.

    Input: (N, 3, H, W) normalised RGB of any size. Output: `logits` (N, classes, H/4, W/4), sides rounded up.
    There is no head for training only, so `heads` in `forward` changes nothing.

    Wang et al., 2020, arXiv:1908.07919, and Sun et al., 2019, arXiv:1904.04514. `align_corners` holds for every
    enlargement inside and for that of the logits outside. The release ships W48 with False on Cityscapes, LIP
    and PASCAL-Context with 59 classes, True on COCO-Stuff and ADE20K; the small ones come from an older line of
    its code, which knows False only and a `bn_momentum` of 0.01 instead of 0.1. On PASCAL-Context and COCO-Stuff
    all of `last_layer` learns ten times faster, not just `classifier`.
    """

    stride = 4
    classifier: tuple[str, ...] = ("last_layer.3",)

    def __init__(
        self,
        *,
        classes: int,
        width: int = 48,
        bottlenecks: int = 4,
        bottleneck_width: int = 64,
        modules: Sequence[int] = (1, 4, 3),
        blocks: int = 4,
        enlarge: Enlarge = "bilinear",
        align_corners: bool = False,
        bn_momentum: float = 0.1,
    ) -> None:
        super().__init__(
            width=width,
            bottlenecks=bottlenecks,
            bottleneck_width=bottleneck_width,
            modules=modules,
            blocks=blocks,
            enlarge=enlarge,
            align_corners=align_corners,
        )
        require_number(self, "classes", classes, least=1)
        self.last_layer = mix_and_classify(sum(self.widths), classes)
        initialise(self)
        set_momentum(self, bn_momentum)

    def forward(self, image: Tensor, *, heads: bool | None = None) -> SegmentationOutput:
        require_image(self, image, channels=3, multiple=1, minimum=1)
        features = join(self.streams(image), align_corners=self.align_corners)
        return SegmentationOutput(self.last_layer(features))


def mix_and_classify(channels: int, classes: int) -> nn.Sequential:
    """(N, channels, h, w) -> logits (N, classes, h, w). Both convolutions have a bias, the first before a norm."""
    return nn.Sequential(
        nn.Conv2d(channels, channels, 1),
        nn.BatchNorm2d(channels),
        nn.ReLU(inplace=True),
        nn.Conv2d(channels, classes, 1),
    )


def join(streams: Sequence[Tensor], *, align_corners: bool) -> Tensor:
    """All streams at the finest's size, finest first: (N, the sum of their channels, h, w). Always bilinear."""
    size = streams[0].shape[-2:]
    coarse = [resize(stream, size, "bilinear", align_corners) for stream in streams[1:]]
    return torch.cat([streams[0], *coarse], dim=1)


def initialise(network: nn.Module) -> None:
    """The release's start without ImageNet weights: N(0, 0.001) for each kernel; biases as the framework has them."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, std=0.001)


class HRNetClassifier(HighResolutionTrunk):
    """HRNet-C, the ImageNet form: its trunk's weights fit `HRNetV2` and `HRNetV2OCR`.

    Input: (N, 3, H, W) normalised RGB of any size. Output: logits (N, classes).

    Sun et al., 2019, arXiv:1904.04514: a bottleneck widens each stream to 128, 256, 512 and 1024 channels, the
    finest is halved and added to the next until one is left, which is widened to 2048 channels and averaged.
    The release's description halves to 256 channels each time, its code to those of the next stream. This line
    of its code enlarges by the nearest neighbour: a segmenter that starts from these weights and enlarges
    bilinearly does not compute the same streams, and was published so. The last layer, `linear`, is published
    as `classifier`, which here names the class layers of every network.
    """

    classifier: tuple[str, ...] = ("linear",)

    def __init__(
        self,
        *,
        classes: int,
        width: int = 48,
        bottlenecks: int = 4,
        bottleneck_width: int = 64,
        modules: Sequence[int] = (1, 4, 3),
        blocks: int = 4,
        enlarge: Enlarge = "nearest",
        align_corners: bool = False,
        bn_momentum: float = 0.1,
    ) -> None:
        super().__init__(
            width=width,
            bottlenecks=bottlenecks,
            bottleneck_width=bottleneck_width,
            modules=modules,
            blocks=blocks,
            enlarge=enlarge,
            align_corners=align_corners,
        )
        require_number(self, "classes", classes, least=1)
        planes = (32, 64, 128, 256)
        wide = [Bottleneck.expansion * count for count in planes]
        self.incre_modules = nn.ModuleList(
            nn.Sequential(Bottleneck(channels, count))
            for channels, count in zip(self.widths, planes, strict=True)
        )
        self.downsamp_modules = nn.ModuleList(
            biased(inputs, outputs, 3, 2) for inputs, outputs in pairwise(wide)
        )
        self.final_layer = biased(wide[-1], 2048, 1, 1)
        self.linear = nn.Linear(2048, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        set_momentum(self, bn_momentum)

    def forward(self, image: Tensor) -> Tensor:
        require_image(self, image, channels=3, multiple=1, minimum=1)
        first, *rest = (
            widen(stream) for widen, stream in zip(self.incre_modules, self.streams(image), strict=True)
        )
        for halve, stream in zip(self.downsamp_modules, rest, strict=True):
            first = stream + halve(first)
        logits: Tensor = self.linear(self.final_layer(first).mean(dim=(2, 3)))
        return logits


def biased(inputs: int, outputs: int, kernel: int, stride: int) -> nn.Sequential:
    """Convolution with a bias, batch norm, ReLU: (N, inputs, H, W) -> (N, outputs, H/stride, W/stride)."""
    conv = nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))
