"""Softmax regression representation learning: the student's features must serve the teacher's classifier."""

from __future__ import annotations

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from dvsn.distill.method import Kind, Method, Side, View
from dvsn.distill.precise import precise
from dvsn.distill.shapes import as_map, as_vector, match_size, tapped
from dvsn.errors import ConfigError
from dvsn.types import Batch, Terms


class SoftmaxRegression(Method):
    """The terms `srrl_features`, mean squared error of pooled features, and `srrl_answers`, of the teacher's classifier's
    logits on the student's features against its own.

    Yang et al., 2021, "Knowledge distillation via softmax regression representation learning" (ICLR): behind the
    student a 1x1 convolution, norm and ReLU to the teacher's width, then average pooling. The last tap is taken. The
    teacher's classifier must be linear and is not trained. For dense answers (1x1 convolution) nothing is pooled.
    """

    reads: ClassVar[tuple[Kind, ...]] = ("classes", "pixels")

    def __init__(
        self, *, student: Side, teacher: Side, feature_weight: float = 1.0, answer_weight: float = 1.0
    ) -> None:
        super().__init__()
        mine, theirs = tapped("srrl", student, teacher)[-1]
        self.head = (linear(teacher.head),)  # in a tuple: neither trained nor saved here
        width = None if self.head[0] is None else self.head[0].weight.shape[1]
        if width != theirs[0]:
            raise ConfigError(
                f"distill.srrl: the teacher's head is {type(teacher.head).__name__} with {width} inputs, its tap {theirs}, "
                "expected a linear layer (or a 1x1 convolution) on that tap's channels. Tap the layer in front of the "
                "classifier, or choose a method that needs no head, such as fitnet."
            )
        self.feature_weight, self.answer_weight = feature_weight, answer_weight
        self.connector = nn.Sequential(
            nn.Conv2d(mine[0], theirs[0], 1, bias=False), nn.BatchNorm2d(theirs[0]), nn.ReLU()
        )

    @precise
    def forward(self, student: View, teacher: View, batch: Batch) -> Terms:
        mine, theirs = self.connector(as_map(student.features[-1])), as_map(teacher.features[-1])
        if isinstance(self.head[0], nn.Linear):
            mine, theirs = as_vector(mine), as_vector(theirs)
        else:
            mine, theirs = match_size(mine, theirs)
        answers = F.mse_loss(self.answer(mine), self.answer(theirs))
        return {
            "srrl_features": self.feature_weight * F.mse_loss(mine, theirs),
            "srrl_answers": self.answer_weight * answers,
        }

    def answer(self, feature: Tensor) -> Tensor:
        head = self.head[0]
        assert head is not None
        weight = head.weight.detach().to(feature.dtype)
        bias = None if head.bias is None else head.bias.detach().to(feature.dtype)
        return F.linear(feature, weight, bias) if weight.ndim == 2 else F.conv2d(feature, weight, bias)


def linear(head: nn.Module | None) -> nn.Linear | nn.Conv2d | None:
    """The head, if it is linear in the features of a picture or of a pixel."""
    if isinstance(head, nn.Conv2d) and (head.kernel_size != (1, 1) or head.groups != 1):
        return None
    return head if isinstance(head, nn.Linear | nn.Conv2d) else None
