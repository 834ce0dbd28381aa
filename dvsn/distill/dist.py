"""DIST: match the relations of classes within an item and of items within a class, not the probabilities."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from dvsn.distill.gather import gather
from dvsn.distill.kd import positive
from dvsn.distill.method import Kind, Method, Side, View
from dvsn.distill.shapes import nothing, on_grid, same_output
from dvsn.types import Batch, Terms


class Correlated(Method):
    """The terms `dist_inter`, beta T^2 (1 - mean correlation of rows), and `dist_intra`, gamma T^2 (1 - mean
    correlation of columns), of the softened probabilities, Pearson's.

    Huang et al., 2022, arXiv:2205.10536; e = 1e-8 is added to the product of lengths. T 1 and a total weight of 2 on
    ImageNet, T 4 on CIFAR in later comparisons, T 1 for segmentation, where every pixel of the batch is a row; a
    teacher of another size is resized to the student's grid.

    `gather` correlates columns over the items of all processes; else each process takes its own, and the loss changes
    with their number. A batch of one item has no columns to correlate: `dist_intra` is 0.
    """

    reads: ClassVar[tuple[Kind, ...]] = ("classes", "pixels")

    def __init__(
        self,
        *,
        student: Side,
        teacher: Side,
        beta: float = 1.0,
        gamma: float = 1.0,
        temperature: float = 4.0,
        gather: bool = False,
    ) -> None:
        super().__init__()
        why = "all correlations within an item are 1 or -1, without a gradient. Choose distill=kd, or pixel_kd for pixels"
        same_output(
            "dist", student, teacher, least=3 if beta else 2, why=f"{why}, or set distill.dist.method.beta=0"
        )
        self.beta, self.gamma, self.gather = beta, gamma, gather
        self.temperature = positive("dist.method.temperature", temperature)

    def forward(self, student: View, teacher: View, batch: Batch) -> Terms:
        logits = teacher.output if teacher.output.ndim == 2 else on_grid(teacher.output, student.output)
        mine, theirs = (rows((each / self.temperature).softmax(1)) for each in (student.output, logits))
        square = self.temperature**2
        inter = 1 - correlation(mine, theirs).mean()
        if self.gather:
            mine, theirs = gather(mine), gather(theirs)
        intra = nothing(mine) if len(mine) == 1 else 1 - correlation(mine.T, theirs.T).mean()
        return {"dist_inter": self.beta * square * inter, "dist_intra": self.gamma * square * intra}


def rows(probabilities: Tensor) -> Tensor:
    """(N, K) as it is, (N, K, h, w) as (N h w, K)."""
    return probabilities if probabilities.ndim == 2 else probabilities.movedim(1, -1).flatten(0, 2)


def correlation(a: Tensor, b: Tensor) -> Tensor:
    """Of each row with its like."""
    a, b = a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True)
    return (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1) + 1e-8)
