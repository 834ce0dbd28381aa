"""How far a classifier's confidence is from its accuracy."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from dvsn.errors import ConfigError


class CalibrationError(Metric):
    """Expected calibration error: |accuracy - confidence| of each bin of confidence, weighted by its pictures.

    Guo et al., 2017, arXiv:1706.04599, eq. 3, with bins (a, b] of equal width. `update` takes logits (N, K) and
    classes (N,).

    Differences from torchmetrics' measure: three sums a bin are kept instead of every confidence; the input is always
    logits; a confidence of exactly 1 falls into the last bin.
    """

    full_state_update = False
    higher_is_better = False
    sums: Tensor

    def __init__(self, *, bins: int = 15, **options: Any) -> None:
        super().__init__(**options)
        if bins < 1:
            raise ConfigError(f"metrics.calibration_bins: found {bins}, expected 1 or more.")
        self.bins = bins
        self.add_state("sums", torch.zeros(3, bins), dist_reduce_fx="sum")

    def update(self, logits: Tensor, target: Tensor) -> None:
        confidence, predicted = logits.float().softmax(dim=1).max(dim=1)
        inner = torch.linspace(0, 1, self.bins + 1, device=logits.device)[1:-1]
        number = torch.bucketize(confidence, inner)
        rows = torch.stack([torch.ones_like(confidence), confidence, (predicted == target).float()])
        self.sums += torch.zeros_like(self.sums).index_add_(1, number, rows)

    def compute(self) -> Tensor:
        pictures, confidence, right = self.sums
        return (right - confidence).abs().sum() / pictures.sum().clamp(min=1)
