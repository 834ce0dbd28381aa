"""HRNetV2 for segmentation, and its form for ImageNet. The form with OCR is in `dvsn.networks.hrnetv2_ocr`."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, ClassVar

from torch import Tensor, nn

from dvsn.networks.blocks import conv_bn_relu, require_counts, require_image, training_heads
from dvsn.networks.hrnet import Enlarge, HighResolutionTrunk
from dvsn.networks.initialise import kaiming, small_normal
from dvsn.networks.residual import EXPANSION, Bottleneck
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

    response: ClassVar[str] = "pixels"
    stride = 4
    classifier: tuple[str, ...] = ("last_layer.3",)
    training_heads = staticmethod(training_heads(0))

    def __init__(self, *, classes: int, **trunk: Any) -> None:
        super().__init__(**trunk)
        require_counts(self, classes=classes)
        self.last_layer = mix_and_classify(sum(self.widths), classes)
        small_normal(self)
        self.set_momentum()

    def forward(self, image: Tensor, *, heads: bool | None = None) -> SegmentationOutput:
        require_image(self, image, channels=3, multiple=1, minimum=1)
        return SegmentationOutput(self.last_layer(self.joined(image)))


def mix_and_classify(channels: int, classes: int) -> nn.Sequential:
    """(N, channels, h, w) -> logits (N, classes, h, w). Both convolutions have a bias, the first before a norm."""
    return conv_bn_relu(channels, channels, 1, bias=True).append(nn.Conv2d(channels, classes, 1))


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

    response: ClassVar[str] = "classes"
    classifier: tuple[str, ...] = ("linear",)

    def __init__(self, *, classes: int, enlarge: Enlarge = "nearest", **trunk: Any) -> None:
        super().__init__(enlarge=enlarge, **trunk)
        require_counts(self, classes=classes)
        planes = (32, 64, 128, 256)
        wide = [EXPANSION * count for count in planes]
        self.incre_modules = nn.ModuleList(
            nn.Sequential(Bottleneck(channels, count))
            for channels, count in zip(self.widths, planes, strict=True)
        )
        self.downsamp_modules = nn.ModuleList(
            conv_bn_relu(inputs, outputs, 3, 2, bias=True) for inputs, outputs in pairwise(wide)
        )
        self.final_layer = conv_bn_relu(wide[-1], 2048, 1, bias=True)
        self.linear = nn.Linear(2048, classes)
        kaiming(self)
        self.set_momentum()

    def forward(self, image: Tensor) -> Tensor:
        require_image(self, image, channels=3, multiple=1, minimum=1)
        first, *rest = (
            widen(stream) for widen, stream in zip(self.incre_modules, self.streams(image), strict=True)
        )
        for halve, stream in zip(self.downsamp_modules, rest, strict=True):
            first = stream + halve(first)
        logits: Tensor = self.linear(self.final_layer(first).mean(dim=(2, 3)))
        return logits
