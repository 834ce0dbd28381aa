"""Weighted soft labels: an item counts the more, the better the teacher knows it than the student."""

from __future__ import annotations

from typing import ClassVar

import torch.nn.functional as F

from dvsn.distill.kd import ONE, divergence, positive
from dvsn.distill.labels import labels_of
from dvsn.distill.method import Kind, Method, Side, View
from dvsn.distill.shapes import same_output
from dvsn.types import Batch, Terms


class WeightedSoftLabels(Method):
    """T^2 KL of the softened classes times 1 - exp(-CE_s / CE_t), mean over the batch: the term `wsld`.

    Zhou et al., 2021, arXiv:2102.00650; CE are the cross entropies of the right class (T = 1), without gradient here.
    Weight 2.5 and T 2 on ImageNet.
    """

    reads: ClassVar[tuple[Kind, ...]] = ("classes",)
    needs_classes: ClassVar[bool] = True

    def __init__(self, *, student: Side, teacher: Side, temperature: float = 2.0) -> None:
        super().__init__()
        same_output("wsld", student, teacher, least=2, why=ONE)
        self.temperature = positive("wsld.method.temperature", temperature)

    def forward(self, student: View, teacher: View, batch: Batch) -> Terms:
        right = labels_of("wsld", batch).long()
        mine, theirs = (
            F.cross_entropy(logits, right, reduction="none")
            for logits in (student.output.detach(), teacher.output)
        )
        weight = -(-mine / (theirs + 1e-7)).expm1()
        return {"wsld": (weight * divergence(student.output, teacher.output, self.temperature)).mean()}
