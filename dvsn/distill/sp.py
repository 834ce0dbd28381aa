"""Similarity preserving: the similarity matrix of the items of a batch."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from dvsn.distill.gather import rows
from dvsn.distill.method import Method, Side, View
from dvsn.distill.shapes import nothing, summed, tapped, unit
from dvsn.types import Batch, Terms


class SimilarityPreserving(Method):
    """Mean squared difference of the batch's similarities, summed over taps: the term `sp`.

    Tung and Mori, 2019, arXiv:1907.09682: G = F F^T of flattened features, each row over its length;
    ||G_t - G_s||_F^2 / N^2. The paper allows several taps, its benchmark takes the last maps. Shapes may differ freely.

    `gather` compares the items of all processes; else each process compares its own, and the loss changes with their
    number. A batch of one item has no relations: the term is 0.
    """

    relates = True

    def __init__(self, *, student: Side, teacher: Side, gather: bool = False) -> None:
        super().__init__()
        tapped("sp", student, teacher)
        self.gather = gather

    def forward(self, student: View, teacher: View, batch: Batch) -> Terms:
        terms = [
            nothing(mine) if len(mine) == 1 else F.mse_loss(similarity(mine), similarity(theirs))
            for mine, theirs in rows(student, teacher, everywhere=self.gather)
        ]
        return {"sp": summed(terms)}


def similarity(items: Tensor) -> Tensor:
    """(N, D) -> (N, N), each row of unit length."""
    return unit(items @ items.T)
