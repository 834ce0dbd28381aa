"""PKD: Pearson correlation of feature maps."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from dvsn.distill.connector import connected, width_connectors
from dvsn.distill.method import Method, Side, View
from dvsn.distill.shapes import summed, tapped
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
        self.connectors = width_connectors(tapped("pkd", student, teacher, maps=True))

    def forward(self, student: View, teacher: View, batch: Batch) -> Terms:
        pairs = connected(self.connectors, student, teacher)
        terms = [0.5 * F.mse_loss(by_channel(mine), by_channel(theirs)) for mine, theirs in pairs]
        return {"pkd": summed(terms)}


def by_channel(feature: Tensor) -> Tensor:
    """(N, C, H, W) of mean 0 and deviation 1 in every channel."""
    apart = feature - feature.mean(dim=(0, 2, 3), keepdim=True)
    return apart / (feature.std(dim=(0, 2, 3), keepdim=True) + 1e-6)
