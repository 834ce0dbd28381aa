"""How far a classifier's confidence is from its accuracy."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics.classification import MulticlassCalibrationError

from dvsn.errors import ConfigError

BINS = 15
BELOW_ONE = 1 - 2**-24
"""The largest float32 below 1."""


class CalibrationError(MulticlassCalibrationError):
    """Expected calibration error, by torchmetrics: |accuracy - confidence| of each bin of confidence, by its share.

    Guo et al., 2017, arXiv:1706.04599, eq. 3, with bins [a, b) of equal width. `update` takes logits (N, K) and classes
    (N,).

    Differences from torchmetrics' class: the input is always logits, of which that class would take a batch for
    probabilities where they all lie in [0, 1]; and a confidence of exactly 1, which saturated networks give often, belongs
    to the last bin as in the paper, where that class has a bin of its own for it.
    """

    def __init__(self, classes: int, *, bins: int = BINS, **options: Any) -> None:
        if bins < 1:
            raise ConfigError(f"metrics.calibration_bins: found {bins}, expected 1 or more.")
        super().__init__(classes, n_bins=bins, norm="l1", validate_args=False, **options)

    def update(self, logits: Tensor, target: Tensor) -> None:  # type: ignore[override]
        super().update(logits.float().softmax(dim=1).clamp(max=BELOW_ONE), target)


class Reliability:
    """The bins of a reliability diagram: how many answers each holds, their mean confidence, and the share that is right.

    Bins [a, b) of equal width, the last one with 1. `sums` (3, bins) float64: answers, confidence, right answers.
    """

    def __init__(self, bins: int = BINS) -> None:
        self.bins = bins
        self.sums = torch.zeros(3, bins, dtype=torch.float64)

    def add(self, confidence: Tensor, right: Tensor) -> None:
        """`confidence` in [0, 1] and whether the answer is right, both (N,)."""
        inner = torch.linspace(0, 1, self.bins + 1, device=confidence.device)[1:-1]
        number = torch.bucketize(confidence, inner, right=True)
        rows = torch.stack([torch.ones_like(confidence), confidence, right.to(confidence.dtype)]).double()
        self.sums += (
            torch.zeros(3, self.bins, dtype=torch.float64, device=rows.device)
            .index_add_(1, number, rows)
            .cpu()
        )

    def points(self) -> list[tuple[float, float, float]]:
        """Of each bin that holds answers: the mean confidence, the accuracy, and its share of all answers."""
        total = max(1.0, float(self.sums[0].sum()))
        return [(confidence / count, right / count, count / total)
                for count, confidence, right in self.sums.T.tolist() if count]  # fmt: skip

    def error(self) -> float:
        """The expected calibration error of these bins; NaN without answers."""
        count, confidence, right = self.sums
        return float((right - confidence).abs().sum() / count.sum())
