"""Probabilistic knowledge transfer: similarities within a batch as conditional probabilities."""

from __future__ import annotations

import torch
from torch import Tensor

from dvsn.distill.gather import rows
from dvsn.distill.method import Method, Side, View
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

    def forward(self, student: View, teacher: View, batch: Batch) -> Terms:
        terms = [
            nothing(mine) if len(mine) == 1 else self.term(mine, theirs)
            for mine, theirs in rows(student, teacher, everywhere=self.gather)
        ]
        return {"pkt": summed(terms)}

    def term(self, mine: Tensor, theirs: Tensor) -> Tensor:
        """Of features (N, D_s) and (N, D_t)."""
        guess, truth = self.neighbours(mine), self.neighbours(theirs)
        ratio = (truth + self.epsilon) / (guess + self.epsilon)
        return torch.dot(truth.flatten(), ratio.log().flatten()) / truth.numel()

    def neighbours(self, items: Tensor) -> Tensor:
        """(N, D) -> (N, N), rows of probabilities."""
        items = unit(items, added=self.epsilon)
        close = items @ items.T + 1  # half of it, but each row is divided by its sum
        return close / close.sum(1, keepdim=True)
