"""Attention transfer: spatial attention maps of student and teacher, compared."""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from dvsn.distill.method import Method, Side, View
from dvsn.distill.shapes import match_size, require_positions, summed, tapped, unit
from dvsn.errors import ConfigError
from dvsn.types import Batch, Terms


class AttentionTransfer(Method):
    """The distance of unit attention maps, summed over taps: the term `at`.

    Zagoruyko and Komodakis, 2017, arXiv:1612.03928: the mean over channels of |f|^power, flattened, over its length.
    `distance`: `squared` is the mean over pixels and batch of the squared difference, as in the authors' code and the CRD
    authors' benchmark, to which weight 1000 belongs; `norm` is eq. 2 of the paper, the length of the difference, its mean
    over the batch, with weights of beta / 2. `absolute: false` leaves the sign to odd powers, as in the benchmark.

    Channels may differ; of two sizes the larger is average-pooled first.
    """

    def __init__(
        self,
        *,
        student: Side,
        teacher: Side,
        power: float = 2.0,
        distance: Literal["squared", "norm"] = "squared",
        absolute: bool = True,
    ) -> None:
        super().__init__()
        require_positions("at", tapped("at", student, teacher, maps=True))
        if not power >= 1 or distance not in ("squared", "norm"):
            raise ConfigError(
                f"distill.at.method: expected power >= 1 and distance squared or norm, found {power}, {distance!r}."
            )
        self.power, self.distance, self.absolute = power, distance, absolute

    def forward(self, student: View, teacher: View, batch: Batch) -> Terms:
        terms = []
        for mine, theirs in zip(student.features, teacher.features, strict=True):
            mine, theirs = match_size(mine, theirs)
            mine, theirs = self.attention(mine), self.attention(theirs)  # (N, H*W)
            squared = self.distance == "squared"
            terms.append(F.mse_loss(mine, theirs) if squared else (mine - theirs).norm(dim=1).mean())
        return {"at": summed(terms)}

    def attention(self, feature: Tensor) -> Tensor:
        """(N, C, H, W) -> one unit vector an item, (N, H*W)."""
        if self.power == 2:
            return unit(energy(feature).flatten(1))  # a mean or a sum is the same for a unit vector
        signed = feature.abs() if self.absolute else feature
        return unit(signed.pow(self.power).mean(dim=1).flatten(1))


class Energy(torch.autograd.Function):
    """The sum of squares over channels. The gradient is one product; by way of pow and mean it takes three passes."""

    @staticmethod
    def forward(context: Any, feature: Tensor) -> Tensor:
        context.save_for_backward(feature)
        return feature.square().sum(dim=1)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Tensor:
        (feature,) = context.saved_tensors
        return feature * (2 * gradients[0])[:, None]


def energy(feature: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, H, W)."""
    result: Tensor = Energy.apply(feature)
    return result
