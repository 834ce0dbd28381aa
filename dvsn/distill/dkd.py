"""Decoupled knowledge distillation: the right class against the rest, and the rest among themselves, apart."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from dvsn.distill.kd import positive, standardised
from dvsn.distill.labels import labels_of
from dvsn.distill.method import Kind, Method, Side, View
from dvsn.distill.shapes import same_output
from dvsn.types import Batch, Terms


class DecoupledDistillation(Method):
    """The terms `dkd_target`, alpha T^2 KL of (p, 1 - p) of the right class, and `dkd_rest`, beta T^2 KL of the other
    classes' softmax; means over the batch.

    Zhao et al., 2022, arXiv:2203.08679. 1 - p comes from the log-sum-exp of the other classes, where the published code
    takes the logarithm of a masked sum and fails on a sure student. With two classes `dkd_rest` would be 0: refused.
    beta is 8 for resnet32x4 and ResNet-50 teachers, 6 for wide ResNets and VGG, 2 for resnet56 and 110; on ImageNet T is 1
    and beta 0.5. `standardise`: as in `kd` (Sun et al., 2024, arXiv:2403.01427).
    """

    reads: ClassVar[tuple[Kind, ...]] = ("classes",)
    needs_classes: ClassVar[bool] = True

    def __init__(
        self,
        *,
        student: Side,
        teacher: Side,
        alpha: float = 1.0,
        beta: float = 8.0,
        temperature: float = 4.0,
        standardise: bool = False,
    ) -> None:
        super().__init__()
        same_output(
            "dkd",
            student,
            teacher,
            least=3,
            why="the wrong class has no others to compare. Choose distill=kd",
        )
        self.alpha, self.beta, self.standardise = alpha, beta, standardise
        self.temperature = positive("dkd.method.temperature", temperature)

    def forward(self, student: View, teacher: View, batch: Batch) -> Terms:
        mine, theirs = student.output, teacher.output
        if self.standardise:
            mine, theirs = standardised(mine), standardised(theirs)
        right = labels_of("dkd", batch)[:, None].long()
        (binary_s, rest_s), (binary_t, rest_t) = (
            parts(logits / self.temperature, right) for logits in (mine, theirs)
        )
        truth = rest_t.exp().scatter(1, right, 0.0)
        target = F.kl_div(binary_s, binary_t.exp(), reduction="batchmean")
        rest = F.kl_div(rest_s, truth, reduction="batchmean")
        square = self.temperature**2
        return {"dkd_target": self.alpha * square * target, "dkd_rest": self.beta * square * rest}


def parts(logits: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """Log probabilities of the right class and of all others together (N, 2), and of each among these (N, K), which has no
    meaning for the right one."""
    outside = logits.scatter(1, right, -torch.inf).logsumexp(1, keepdim=True)
    binary = torch.cat([logits.gather(1, right), outside], dim=1).log_softmax(1)
    return binary, logits - outside
