"""Flow of solution procedure: Gram matrices between the channels of consecutive stages."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from dvsn.distill.method import Method, Side, Stage, View
from dvsn.distill.shapes import pool_to, summed, tapped
from dvsn.errors import ConfigError
from dvsn.types import Batch, Terms


class SolutionFlow(Method):
    """Mean squared difference of the flow matrices of consecutive taps, summed: the term `fsp`.

    Yim et al., 2017, "A gift from knowledge distillation": of maps a and b at one size, M = (1 / HW) sum over pixels of
    b a^T, (C_b, C_a). Every tap needs equal channels in student and teacher; sizes may differ. Of two consecutive maps the
    larger is pooled, by `max` as in the paper or by `average` as in the CRD authors' benchmark.

    The loss alone trains the student's features for `initial_epochs` and is then dropped, in the paper and the benchmark
    alike, so that `weight` has no effect. `initial_epochs: 0` makes it a term of the main training, to which `weight`
    applies, and `afterwards: true` does so after the initial epochs.
    """

    def __init__(
        self,
        *,
        student: Side,
        teacher: Side,
        pool: Literal["max", "average"] = "max",
        initial_epochs: int = 30,
        afterwards: bool = False,
    ) -> None:
        super().__init__()
        tapped("fsp", student, teacher, maps=True, channels=True, least=2)
        if pool not in ("max", "average"):
            raise ConfigError(f"distill.fsp.method.pool: found {pool!r}, expected max or average.")
        self.pool = pool
        self.stage = Stage(initial_epochs, student=True) if initial_epochs else None
        self.afterwards = afterwards

    def initial(self, student: View, teacher: View, batch: Batch) -> Terms:
        pairs = zip(pairwise(student.features), pairwise(teacher.features), strict=True)
        terms = [F.mse_loss(self.flow(*mine), self.flow(*theirs)) for mine, theirs in pairs]
        return {"fsp": summed(terms)}

    def forward(self, student: View, teacher: View, batch: Batch) -> Terms:
        return self.initial(student, teacher, batch) if self.afterwards or not self.stage else {}

    def flow(self, first: Tensor, second: Tensor) -> Tensor:
        """Maps (N, C_a, H, W) and (N, C_b, H', W') -> (N, C_b, C_a)."""
        size = min(first.shape[-2], second.shape[-2]), min(first.shape[-1], second.shape[-1])
        first, second = (self.pooled(feature, *size).flatten(2) for feature in (first, second))
        return second @ first.mT / first.shape[-1]

    def pooled(self, feature: Tensor, height: int, width: int) -> Tensor:
        if feature.shape[-2:] == (height, width) or self.pool == "average":
            return pool_to(feature, height, width)
        return F.adaptive_max_pool2d(feature, (height, width))
