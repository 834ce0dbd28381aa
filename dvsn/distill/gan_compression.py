"""GAN Compression: a small generator learns the intermediate feature maps of a large one."""

from __future__ import annotations

from typing import ClassVar

import torch.nn.functional as F
from torch import nn

from dvsn.distill.connector import connected
from dvsn.distill.method import Kind, Method, Side, View
from dvsn.distill.shapes import same_output, summed, tapped
from dvsn.types import Batch, Terms


class GeneratorCompression(Method):
    """The terms `gan_compression_features` and, for unpaired data, `gan_compression_output`.

    Li et al., 2020, arXiv:2003.08936: mean squared error of tapped maps through a 1x1 convolution behind the student,
    summed over taps (layers 9, 12, 15 and 18 of the ResNet generator), weight 1, 0.01 for maps. Paired data are learnt
    from the truth by the task's own L1; without pairs the teacher's picture stands for it: `output_weight: 100` (10 for
    maps), L1. The search for a width, and a discriminator that starts from the teacher's, are no part of this.
    """

    reads: ClassVar[tuple[Kind, ...]] = ("image",)
    compares: ClassVar[bool] = False

    def __init__(
        self, *, student: Side, teacher: Side, feature_weight: float = 1.0, output_weight: float = 0.0
    ) -> None:
        super().__init__()
        if output_weight:
            same_output("gan_compression", student, teacher)
        pairs = tapped("gan_compression", student, teacher, maps=True)
        self.feature_weight, self.output_weight = feature_weight, output_weight
        self.adapters = nn.ModuleList(nn.Conv2d(mine[0], theirs[0], 1) for mine, theirs in pairs)

    def forward(self, student: View, teacher: View, batch: Batch) -> Terms:
        errors = [F.mse_loss(*pair) for pair in connected(self.adapters, student, teacher)]
        terms = {"gan_compression_features": self.feature_weight * summed(errors)}
        if self.output_weight:
            terms["gan_compression_output"] = (
                self.output_weight * (student.output - teacher.output).abs().mean()
            )
        return terms
