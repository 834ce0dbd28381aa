"""Overhaul of feature distillation: features before the ReLU, by a partial squared distance with a margin."""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dvsn.distill.method import Method, Side, View
from dvsn.distill.shapes import as_map, match_size, summed, tapped
from dvsn.errors import ConfigError
from dvsn.types import Batch, Terms

Margin = Literal["auto", "norm", "batch"]


class FeatureOverhaul(Method):
    """Partial squared error to the teacher's clipped features: the term `ofd`.

    Heo et al., 2019, arXiv:1904.01866: t' = max(t, margin of the channel), (s - t')^2 unless s <= t' <= 0, summed over
    channels and pixels, mean over the batch; tap i of n over 2^(n - i - 1); the whole over `scale`: 1000 on CIFAR, 10000 on
    ImageNet, 100000 for segmentation. s comes through a 1x1 convolution and batch norm.

    `margin`: `norm` is the paper's closed form, the mean of what is below zero behind the teacher's batch norm; `batch` is
    the mean of the channel's negative values in the batch, 0 if it has none; `auto` takes the first where the network
    names the norm in front of a tap, else the second. `reduction: mean` averages over all numbers instead of summing over an
    item's: a tutorial's form, with `scale: 1` and one tap.

    The teacher stays in eval mode, unlike in the authors' code. Of two sizes the larger is average-pooled.
    """

    def __init__(
        self,
        *,
        student: Side,
        teacher: Side,
        margin: Margin = "auto",
        reduction: Literal["sum", "mean"] = "sum",
        scale: float = 1000.0,
    ) -> None:
        super().__init__()
        if margin not in ("auto", "norm", "batch") or reduction not in ("sum", "mean") or not scale > 0:
            raise ConfigError(
                "distill.ofd.method: expected margin auto, norm or batch, reduction sum or mean, scale above 0, found "
                f"{margin!r}, {reduction!r}, {scale}."
            )
        pairs = tapped("ofd", student, teacher)
        self.reduction, self.scale = reduction, scale
        self.connectors = nn.ModuleList(connector(mine[0], theirs[0]) for mine, theirs in pairs)
        norms = teacher.norms or (None,) * len(pairs)
        for number, norm in enumerate(norms):
            if margin == "norm" and norm is None:
                raise ConfigError(
                    f"distill.ofd.method.margin: norm, but the batch norm in front of the teacher's tap {number} is not "
                    "known. Set auto or batch."
                )
            values = None if norm is None or margin == "batch" else norm_margin(norm)
            if values is not None and len(values) != pairs[number][1][0]:
                raise ConfigError(
                    f"distill.ofd: the teacher's tap {number} is {pairs[number][1]}, but the norm in front of it has "
                    f"{len(values)} channels. Set method.margin to batch."
                )
            self.register_buffer(f"margin_{number}", values, persistent=False)

    def forward(self, student: View, teacher: View, batch: Batch) -> Terms:
        terms, last = [], len(self.connectors) - 1
        for number, layers in enumerate(self.connectors):
            mine, theirs = match_size(
                layers(as_map(student.features[number])), as_map(teacher.features[number])
            )
            margin = getattr(self, f"margin_{number}")
            margin = batch_margin(theirs) if margin is None else margin.to(theirs.dtype)
            value = partial(mine, torch.maximum(theirs, margin[:, None, None]))
            value = value / (mine.numel() if self.reduction == "mean" else len(mine))
            terms.append(value * 2.0 ** (number - last))
        return {"ofd": summed(terms) / self.scale}


def partial(student: Tensor, teacher: Tensor) -> Tensor:
    """The sum of the squared errors that count. Where none does, the student is its own target."""
    with torch.no_grad():
        target = torch.where((teacher <= 0) & (student <= teacher), student, teacher)
    return F.mse_loss(student, target, reduction="sum")


def batch_margin(feature: Tensor) -> Tensor:
    """(N, C, H, W) -> (C,): the mean of the negative values."""
    count = (feature < 0).sum(dim=(0, 2, 3))
    return feature.clamp_max(0).sum(dim=(0, 2, 3)) / (count + 1e-6)


def norm_margin(norm: nn.BatchNorm2d) -> Tensor:
    """(C,) float64: the mean of a normal variable (bias, |weight|) below zero; -3 |weight| where 0.1 % or less is there."""
    channels = norm.num_features
    weight = torch.ones(channels) if norm.weight is None else norm.weight.detach()
    bias = torch.zeros(channels) if norm.bias is None else norm.bias.detach()
    deviation, mean = weight.double().cpu().abs(), bias.double().cpu()
    ratio = mean / deviation.clamp_min(1e-12)
    density = (-0.5 * ratio.square()).exp() / math.sqrt(2 * math.pi)
    below = torch.special.ndtr(-ratio)
    return torch.where(below > 0.001, mean - deviation * density / below.clamp_min(1e-12), -3 * deviation)


def connector(student: int, teacher: int) -> nn.Sequential:
    conv = nn.Conv2d(student, teacher, 1, bias=False)
    nn.init.normal_(conv.weight, std=math.sqrt(2 / teacher))
    return nn.Sequential(conv, nn.BatchNorm2d(teacher))
