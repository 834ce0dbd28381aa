"""Variational information distillation: the teacher's features as a Gaussian that the student predicts."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dvsn.distill.method import Method, Side, View
from dvsn.distill.shapes import as_map, match_size, summed, tapped
from dvsn.errors import ConfigError
from dvsn.types import Batch, Terms


class VariationalInformation(Method):
    """The negative log likelihood of the teacher's maps, summed over taps: the term `vid`. It can be negative.

    Ahn et al., 2019, arXiv:1904.05835: the mean of 0.5 ((mu - t)^2 / var + log var), mu from the student by three 1x1
    convolutions, var one trained number a teacher channel, softplus(a) + `epsilon`, `variance` at the start. Of two sizes
    the larger is average-pooled. The paper has a term of the logits too; none is here, as in the CRD authors' benchmark.
    """

    def __init__(self, *, student: Side, teacher: Side, variance: float = 5.0, epsilon: float = 1e-5) -> None:
        super().__init__()
        if not variance > epsilon > 0:
            raise ConfigError(
                f"distill.vid.method: expected variance > epsilon > 0, found {variance}, {epsilon}."
            )
        pairs = tapped("vid", student, teacher)
        self.taps = nn.ModuleList(Gaussian(mine[0], theirs[0], variance, epsilon) for mine, theirs in pairs)

    def forward(self, student: View, teacher: View, batch: Batch) -> Terms:
        features = zip(self.taps, student.features, teacher.features, strict=True)
        return {"vid": summed([tap(as_map(mine), as_map(theirs)) for tap, mine, theirs in features])}


class Gaussian(nn.Module):
    """Of one tap. Maps (N, C_s, H, W) and (N, C_t, H', W')."""

    def __init__(self, student: int, teacher: int, variance: float, epsilon: float) -> None:
        super().__init__()
        self.epsilon = epsilon
        self.regressor = nn.Sequential(
            nn.Conv2d(student, teacher, 1, bias=False),
            nn.ReLU(),
            nn.Conv2d(teacher, teacher, 1, bias=False),
            nn.ReLU(),
            nn.Conv2d(teacher, teacher, 1, bias=False),
        )
        self.log_scale = nn.Parameter(torch.full((teacher,), math.log(math.expm1(variance - epsilon))))

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        student, teacher = match_size(student, teacher)
        errors = (self.regressor(student) - teacher).square().mean(dim=(0, 2, 3))  # (C_t,)
        variance = F.softplus(self.log_scale, threshold=40) + self.epsilon
        return 0.5 * (errors / variance + variance.log()).mean()
