"""PKD: Pearson correlation of feature maps."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from dvsn.distill.method import Method, Side, View
from dvsn.distill.precise import precise
from dvsn.distill.shapes import match_size, summed, tapped
from dvsn.types import Batch, Terms


class PearsonFeatures(Method):
    """Half the mean squared difference of maps standardised by channel over the batch's pixels, summed over taps: the term
    `pkd`, which is 1 less Pearson's correlation but for the degree of freedom in the deviation.

    Cao et al., 2022, arXiv:2207.02039; 1e-6 is added to the deviation. Weight 6 for two-stage detectors and 10 for one-stage
    ones, at every level of the pyramid. Where widths differ a 1x1 convolution stands behind the student; of two sizes the
    larger is average-pooled.
    """

    def __init__(self, *, student: Side, teacher: Side) -> None:
        super().__init__()
        self.connectors = nn.ModuleList(
            nn.Identity() if mine[0] == theirs[0] else nn.Conv2d(mine[0], theirs[0], 1)
            for mine, theirs in tapped("pkd", student, teacher, maps=True)
        )

    @precise
    def forward(self, student: View, teacher: View, batch: Batch) -> Terms:
        terms = []
        for connector, mine, theirs in zip(self.connectors, student.features, teacher.features, strict=True):
            mine, theirs = match_size(connector(mine), theirs)
            terms.append(0.5 * F.mse_loss(by_channel(mine), by_channel(theirs)))
        return {"pkd": summed(terms)}


def by_channel(feature: Tensor) -> Tensor:
    """(N, C, H, W) of mean 0 and deviation 1 in every channel."""
    apart = feature - feature.mean(dim=(0, 2, 3), keepdim=True)
    return apart / (feature.std(dim=(0, 2, 3), keepdim=True) + 1e-6)
