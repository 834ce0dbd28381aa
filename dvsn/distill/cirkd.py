"""Cross-image relational distillation: how the pixels of one picture resemble those of the others."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from dvsn.distill.gather import gather
from dvsn.distill.kd import positive
from dvsn.distill.method import Method, Side, View
from dvsn.distill.precise import precise
from dvsn.distill.shapes import match_size, tapped, unit
from dvsn.types import Batch, Terms


class CrossImageRelations(Method):
    """KL of each pixel's softmax of cosines over T with the pixels of every picture of the batch: the term `cirkd`.

    Yang et al., 2022, arXiv:2204.06986: pixels averaged 2x2 (`pool`), one distribution for each pair of a pixel
    and a picture, its own included; mean over all of them, summed over taps. Weight 1, beside `pixel_kd`. The paper's
    memory of pixels and regions of earlier batches (weight 0.1) is left out, and any head can be tapped, since nothing
    here looks at the response. Widths may differ; of two sizes the larger is average-pooled.

    The similarities take the square of (pictures x pixels) numbers. `gather` relates the pictures of all processes; else
    each process relates its own, and the loss changes with their number. A single picture relates to itself.
    """

    def __init__(
        self, *, student: Side, teacher: Side, temperature: float = 0.1, pool: int = 2, gather: bool = False
    ) -> None:
        super().__init__()
        tapped("cirkd", student, teacher, maps=True)
        self.temperature = positive("cirkd.method.temperature", temperature)
        self.pool, self.gather = int(positive("cirkd.method.pool", pool)), gather

    @precise
    def forward(self, student: View, teacher: View, batch: Batch) -> Terms:
        terms = []
        for mine, theirs in zip(student.features, teacher.features, strict=True):
            mine, theirs = (self.pixels(each) for each in match_size(mine, theirs))
            if self.gather:
                mine, theirs = gather(mine), gather(theirs)
            terms.append(self.relations(mine, theirs))
        return {"cirkd": torch.stack(terms).sum()}

    def pixels(self, feature: Tensor) -> Tensor:
        """(N, C, h, w) -> (N, P, C), a unit vector a pixel."""
        pooled = F.avg_pool2d(feature, self.pool, ceil_mode=True) if self.pool > 1 else feature
        return unit(pooled.flatten(2).mT)

    def relations(self, mine: Tensor, theirs: Tensor) -> Tensor:
        """Of unit pixels (N, P, C_s) and (N, P, C_t), one picture at a time against all."""
        count, pixels, _ = mine.shape
        total = mine.new_zeros(())
        for a, b in zip(mine, theirs, strict=True):
            guess = (mine @ a.T / self.temperature).log_softmax(
                1
            )  # (N, P', P): over the pixels P' of each picture
            truth = (theirs @ b.T / self.temperature).softmax(1)
            total = total + F.kl_div(guess, truth, reduction="sum")
        return total / (count * count * pixels)
