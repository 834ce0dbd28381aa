"""HRNetV2p: the four streams of HRNet as a feature pyramid, the backbone of torchvision's detectors."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from dvsn.errors import ConfigError
from dvsn.networks.blocks import require_image
from dvsn.networks.hrnet import HighResolutionTrunk
from dvsn.networks.initialise import kaiming

LEVELS = 5


class HRNetV2p(HighResolutionTrunk):
    """HRNetV2p for Faster R-CNN and Mask R-CNN (`first_stride=4`) or FCOS (`first_stride=8`) of torchvision.

    Input: (N, 3, H, W) normalised RGB, H and W at least 64; the levels have exactly their strides where both
    divide by `multiple`. Output: five maps "0" to "4", (N, 256, H/s, W/s), s = first_stride times 1, 2, 4, 8, 16.

    Wang et al., 2020, arXiv:1908.07919, section 3.3: all streams at the finest's size are reduced to 256 channels by
    a 1x1 convolution, averaged over squares of 1, 2, 4, 8 and 16, and each map goes through a 3x3 convolution of its
    own, which FCOS has halve its map. Neither has a norm or a ReLU. The start is that of detectors, not the
    N(0, 0.001) of the family's other heads: He et al. for the trunk, uniform with gain 1 for the pyramid, whose
    scale no norm corrects.
    """

    out_channels = 256

    def __init__(
        self, *, width: int = 32, bn_momentum: float = 0.01, first_stride: int = 4, **trunk: Any
    ) -> None:
        super().__init__(width=width, bn_momentum=bn_momentum, **trunk)
        if first_stride not in (4, 8):
            raise ConfigError(f"HRNetV2p: first_stride must be 4 or 8, found {first_stride!r}.")
        self.multiple = first_stride * 2 ** (LEVELS - 1)
        self.reduction_conv = nn.Conv2d(sum(self.widths), self.out_channels, 1)
        self.fpn_convs = nn.ModuleList(
            nn.Conv2d(self.out_channels, self.out_channels, 3, stride=first_stride // 4, padding=1)
            for _ in range(LEVELS)
        )
        kaiming(self)
        for convolution in (self.reduction_conv, *self.fpn_convs):
            nn.init.kaiming_uniform_(convolution.weight, a=1)
            nn.init.zeros_(convolution.bias)
        self.set_momentum()

    def forward(self, image: Tensor) -> OrderedDict[str, Tensor]:
        require_image(self, image, channels=3, multiple=1, minimum=64)
        reduced = self.reduction_conv(self.joined(image))  # (N, 256, H/4, W/4)
        pooled = [F.avg_pool2d(reduced, 2**level) if level else reduced for level in range(LEVELS)]
        maps = [smooth(x) for smooth, x in zip(self.fpn_convs, pooled, strict=True)]
        return OrderedDict((str(level), x) for level, x in enumerate(maps))
