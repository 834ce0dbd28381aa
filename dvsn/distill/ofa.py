"""One for all: a classifier on every stage of the student, and a target that stresses the true class."""

from __future__ import annotations

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from dvsn.distill.kd import ONE, positive
from dvsn.distill.labels import labels_of
from dvsn.distill.method import Kind, Method, Side, View
from dvsn.distill.shapes import as_vector, same_output, summed
from dvsn.types import Batch, Terms


class OneForAll(Method):
    """The terms `ofa`, of the answer, and `ofa_stages`, the sum over the student's taps.

    Hao et al., 2023, arXiv:2310.19444: minus sum over classes of ((p_t + 1[right])^exponent - 1[right]) log p_s,
    mean over the batch. Exponents are 1 to 1.5; at 1 the gradient is that of KD with T = 1. Each tapped map is
    averaged, normalised and classified by a linear layer; the paper's projectors have convolutions in front. The
    teacher's taps are not looked at. `temperature` softens both.
    """

    reads: ClassVar[tuple[Kind, ...]] = ("classes",)
    needs_classes: ClassVar[bool] = True

    def __init__(
        self, *, student: Side, teacher: Side, exponent: float = 1.0, temperature: float = 1.0
    ) -> None:
        super().__init__()
        classes = same_output("ofa", student, teacher, least=2, why=ONE)
        self.exponent = positive("ofa.method.exponent", exponent)
        self.temperature = positive("ofa.method.temperature", temperature)
        self.projectors = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(shape[0]), nn.Linear(shape[0], classes)) for shape in student.features
        )

    def forward(self, student: View, teacher: View, batch: Batch) -> Terms:
        right = F.one_hot(labels_of("ofa", batch).long(), student.output.shape[1])
        truth = (teacher.output / self.temperature).softmax(1)
        target = (truth + right).pow(self.exponent) - right
        terms = {"ofa": self.term(student.output, target)}
        stages = [
            self.term(projector(as_vector(feature)), target)
            for projector, feature in zip(self.projectors, student.features, strict=True)
        ]
        return terms | ({"ofa_stages": summed(stages)} if stages else {})

    def term(self, logits: Tensor, target: Tensor) -> Tensor:
        return -(target * (logits / self.temperature).log_softmax(1)).sum(1).mean()
