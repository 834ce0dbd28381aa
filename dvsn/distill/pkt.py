"""Probabilistic knowledge transfer: the neighbourhoods of the batch as probabilities."""

from __future__ import annotations

import torch
from torch import Tensor

from dvsn.distill.gather import gather
from dvsn.distill.method import Method, Side, View
from dvsn.distill.precise import precise
from dvsn.distill.shapes import nothing, summed, tapped, unit
from dvsn.types import Batch, Terms


class ProbabilisticTransfer(Method):
    """Divergence of each item's distribution over the batch by cosine similarity: the term `pkt`.

    Passalis and Tefas, 2018, arXiv:1803.10837: p = (1 + cosine) / 2, each row over its sum, diagonal included; the mean
    over the N^2 entries of p_t log((p_t + e) / (p_s + e)), as in the authors' code: hence weight 30000. Rows are
    divided by their length plus e; a row of zeros has cosine 0 to all and no gradient, where the published code has NaN.

    Widths may differ. `gather` takes the items of all processes; else each takes its own, and the loss changes with their
    number. A batch of one item has no relations: the term is 0.
    """

    relates = True

    def __init__(self, *, student: Side, teacher: Side, epsilon: float = 1e-7, gather: bool = False) -> None:
        super().__init__()
        tapped("pkt", student, teacher)
        self.epsilon, self.gather = epsilon, gather

    @precise
    def forward(self, student: View, teacher: View, batch: Batch) -> Terms:
        terms = []
        for mine, theirs in zip(student.features, teacher.features, strict=True):
            mine, theirs = mine.flatten(1), theirs.flatten(1)
            if self.gather:
                mine, theirs = gather(mine), gather(theirs)
            if len(mine) == 1:
                terms.append(nothing(mine))
                continue
            guess, truth = self.neighbours(mine), self.neighbours(theirs)
            ratio = (truth + self.epsilon) / (guess + self.epsilon)
            total = torch.dot(truth.flatten(), ratio.log().flatten())
            terms.append(total / truth.numel())
        return {"pkt": summed(terms)}

    def neighbours(self, rows: Tensor) -> Tensor:
        """(N, D) -> (N, N), rows of probabilities."""
        rows = unit(rows, added=self.epsilon)
        close = rows @ rows.T + 1  # half of it, but each row is divided by its sum
        return close / close.sum(1, keepdim=True)
