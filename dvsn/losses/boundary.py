"""Binary cross entropy of the boundary head, balanced between the few outline pixels and the rest."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from dvsn.errors import ConfigError
from dvsn.losses.segmentation import Term


class BoundaryCrossEntropy(Term):
    """Binary cross entropy of the boundary head, outline and rest weighing the same in sum.

    Of the whole batch, with P outline pixels and R others: outline pixels weigh R / (P + R), others
    P / (P + R), and the mean runs over all P + R. So it is small: at most half of an unweighted mean, which is
    why the paper's `weight` is 20. Ignored pixels take part. Without any outline it is zero, with a gradient
    of zero. Xu, Xiong and Bhattacharyya, 2023, arXiv:2206.02066, l1.

    `kernel` and `frame` say how the data pipeline draws the outlines: `dvsn.data.boundary`. Published: 4, with
    a frame of 6 for Cityscapes and 0 for CamVid.
    """

    def __init__(self, *, weight: float = 20.0, kernel: int = 4, frame: int = 0) -> None:
        super().__init__(weight=weight, head="boundary")
        if kernel < 1 or frame < 0:
            raise ConfigError(
                f"BoundaryCrossEntropy: found kernel={kernel} and frame={frame}, expected a kernel of at least 1 "
                "and a frame of at least 0 pixels."
            )
        self.boundary_options = {"kernel": kernel, "frame": frame}

    def forward(self, logits: Tensor, boundary: Tensor) -> Tensor:
        """`logits` (N, 1, H, W) float, `boundary` (N, 1, H, W) in {0, 1}; other values weigh nothing."""
        outline, rest = boundary == 1, boundary == 0
        count = outline.count_nonzero()
        share = count / (count + rest.count_nonzero()).clamp(min=1).to(logits)  # of the outlines
        weights = torch.where(outline, 1 - share, share) * (outline | rest)
        return F.binary_cross_entropy_with_logits(logits, outline.to(logits), weights)
