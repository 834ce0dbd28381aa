"""HRNet for keypoints: one heatmap per joint, from the finest stream alone."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor, nn

from dvsn.networks.blocks import require_counts, require_image
from dvsn.networks.hrnet import Enlarge, HighResolutionTrunk
from dvsn.networks.initialise import small_normal


class PoseHRNet(HighResolutionTrunk):
    """HRNetV1 for top-down pose.

    Input: (N, 3, H, W) normalised RGB, H and W divisible by 32. Output: heatmaps (N, joints, H/4, W/4), no activation.

    Sun et al., 2019, arXiv:1902.09212. Of the last exchange only the finest stream is made. The paper draws the
    paths to a finer stream as bilinear enlargement and then a 1x1 convolution; the release, and so its weights,
    has the convolution first and the nearest neighbour (`enlarge`). `align_corners` belongs to bilinear ones.
    """

    response: ClassVar[str] = "heatmaps"
    multiple = 32
    multi_scale = False
    stride = 4
    classifier: tuple[str, ...] = ("final_layer",)

    def __init__(self, *, joints: int, width: int = 32, enlarge: Enlarge = "nearest", **trunk: Any) -> None:
        super().__init__(width=width, enlarge=enlarge, **trunk)
        require_counts(self, joints=joints)
        self.final_layer = nn.Conv2d(width, joints, 1)
        small_normal(self, zero_biases=True)
        self.set_momentum()

    def forward(self, image: Tensor) -> Tensor:
        require_image(self, image, channels=3, multiple=32, minimum=32)
        (finest,) = self.streams(image)
        heatmaps: Tensor = self.final_layer(finest)
        return heatmaps
