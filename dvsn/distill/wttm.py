"""Transformed teacher matching: only the teacher is softened, by a power."""

from __future__ import annotations

from typing import ClassVar

import torch.nn.functional as F

from dvsn.distill.kd import ONE, positive
from dvsn.distill.method import Kind, Method, Side, View
from dvsn.distill.shapes import same_output
from dvsn.types import Batch, Terms


class TransformedTeacher(Method):
    """KL of the teacher's probabilities to the power `exponent`, normalised, and the student's; mean over the batch: `wttm`.

    Zheng and Yang, 2024, arXiv:2402.11148. `weighted` multiplies an item by the sum of the teacher's powers, which is larger
    the softer the teacher (WTTM, weight 45 with exponent 0.1 on CIFAR); without it the loss is TTM.
    """

    reads: ClassVar[tuple[Kind, ...]] = ("classes",)

    def __init__(self, *, student: Side, teacher: Side, exponent: float = 0.1, weighted: bool = True) -> None:
        super().__init__()
        same_output("wttm", student, teacher, least=2, why=ONE)
        self.exponent, self.weighted = positive("wttm.method.exponent", exponent), weighted

    def forward(self, student: View, teacher: View, batch: Batch) -> Terms:
        powers = self.exponent * teacher.output.log_softmax(1)  # log p^g
        guess = student.output.log_softmax(1)
        each = F.kl_div(guess, powers.softmax(1), reduction="none").sum(1)
        if self.weighted:
            each = each * powers.logsumexp(1).exp()
        return {"wttm": each.mean()}
