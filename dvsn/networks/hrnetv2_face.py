"""HRNetV2 for faces: one heatmap per landmark, from all four streams."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor

from dvsn.networks.blocks import require_counts, require_image
from dvsn.networks.hrnet import HighResolutionTrunk
from dvsn.networks.hrnetv2 import mix_and_classify
from dvsn.networks.initialise import small_normal


class HRNetV2Face(HighResolutionTrunk):
    """HRNetV2 for facial landmarks, a pose network.

    Input: (N, 3, H, W) normalised RGB, H and W divisible by 32. Output: heatmaps (N, joints, H/4, W/4), no activation.

    Wang et al., 2020, arXiv:1908.07919, section 6; names of modules are the release's. `bn_momentum` 0.01 and
    `align_corners` false are its values. The trunk of an ImageNet file of HRNetV2 fits by name (`weights=`): that line
    enlarges by the nearest neighbour, this one bilinearly, and was published so.
    """

    response: ClassVar[str] = "heatmaps"
    multiple = 32
    stride = 4
    classifier: tuple[str, ...] = ("head.3",)
    map_tap = "head:in"  # all four streams; the last of `taps` is the coarsest alone

    def __init__(self, *, joints: int, width: int = 18, bn_momentum: float = 0.01, **trunk: Any) -> None:
        super().__init__(width=width, bn_momentum=bn_momentum, **trunk)
        require_counts(self, joints=joints)
        self.head = mix_and_classify(sum(self.widths), joints)
        small_normal(self)
        self.set_momentum()

    def forward(self, image: Tensor) -> Tensor:
        require_image(self, image, channels=3, multiple=32, minimum=32)
        heatmaps: Tensor = self.head(self.joined(image))
        return heatmaps
