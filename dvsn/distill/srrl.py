"""Softmax regression representation learning: the teacher's classifier, applied to the student's features."""

from __future__ import annotations

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from dvsn.distill.method import Kind, Method, Side, View
from dvsn.distill.shapes import as_map, as_vector, tapped
from dvsn.errors import ConfigError
from dvsn.types import Batch, Terms


class SoftmaxRegression(Method):
    """The terms `srrl_features`, mean squared error of pooled features, and `srrl_answers`, of the teacher's classifier's
    logits on the student's features against those on its own.

    Yang et al., 2021, "Knowledge distillation via softmax regression representation learning" (ICLR): behind the student a
    1x1 convolution, norm and ReLU to the teacher's width, then average pooling. The teacher's last tap must be what its
    classifier, a linear layer, reads; neither is trained. With `pooled` taps the connector stands behind the student's
    vector; a pair of the student's last map and the teacher's vector, [[layer3, "fc:in"]], is the paper's form.
    """

    reads: ClassVar[tuple[Kind, ...]] = ("classes",)
    compares: ClassVar[bool] = False

    def __init__(
        self, *, student: Side, teacher: Side, feature_weight: float = 1.0, answer_weight: float = 1.0
    ) -> None:
        super().__init__()
        mine, theirs = tapped("srrl", student, teacher)[-1]
        head = teacher.head
        if not isinstance(head, nn.Linear) or head.in_features != theirs[0]:
            raise ConfigError(
                f"distill.srrl: the teacher's head is {head} and its tap {theirs}, expected a linear layer on that tap's "
                "channels. Tap what the classifier reads, or choose a method that needs no head, such as fitnet."
            )
        self.head = (head,)  # in a tuple: neither trained nor saved here
        self.feature_weight, self.answer_weight = feature_weight, answer_weight
        self.connector = nn.Sequential(
            nn.Conv2d(mine[0], theirs[0], 1, bias=False), nn.BatchNorm2d(theirs[0]), nn.ReLU()
        )

    def forward(self, student: View, teacher: View, batch: Batch) -> Terms:
        mine = as_vector(self.connector(as_map(student.features[-1])))
        theirs = as_vector(teacher.features[-1])
        return {
            "srrl_features": self.feature_weight * F.mse_loss(mine, theirs),
            "srrl_answers": self.answer_weight * F.mse_loss(self.answer(mine), self.answer(theirs)),
        }

    def answer(self, feature: Tensor) -> Tensor:
        """The teacher's logits, in the precision of the features."""
        weight, bias = self.head[0].weight, self.head[0].bias
        constants = (each if each is None else each.detach().to(feature.dtype) for each in (weight, bias))
        return F.linear(feature, *constants)
