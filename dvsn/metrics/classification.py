"""Scores of each class of a classifier, from one confusion matrix."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torchmetrics.classification import MulticlassConfusionMatrix


class ClassScore(MulticlassConfusionMatrix):
    """torchmetrics' confusion matrix, `confmat` (K, K): a row a true class, a column a predicted one; and its table.

    `update` takes logits (N, K) and classes (N,).
    """

    confmat: Tensor

    def __init__(self, classes: int, **options: Any) -> None:
        super().__init__(classes, validate_args=False, **options)

    def table(self) -> dict[str, Tensor]:
        """`precision`, `recall` and `f1` of each class, (K,) float64; NaN where not defined: of a class that is never said,
        has no pictures, or neither. torchmetrics says 0 there."""
        matrix = self.confmat.double()
        right, truth, answer = matrix.diagonal(), matrix.sum(dim=1), matrix.sum(dim=0)
        return {"precision": right / answer, "recall": right / truth, "f1": 2 * right / (truth + answer)}
