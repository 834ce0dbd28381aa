"""Activation boundaries: whether each neuron is active, not how strongly."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dvsn.distill.connector import Regressor
from dvsn.distill.kd import positive
from dvsn.distill.method import Method, Side, Stage, View
from dvsn.distill.shapes import as_map, tapped
from dvsn.types import Batch, Terms


class ActivationBoundaries(Method):
    """Squared hinge on the sign of each of the teacher's neurons before its activation: the term `ab`.

    Heo et al., 2019, arXiv:1811.03233: relu(margin - sign s)^2, sign +1 where the teacher's value is above 0, else -1,
    summed over neurons, over the batch; tap i of n weighs 2^(i - n + 1), the last one 1, and the whole `scale`, 3 / 1000
    with the authors. Where shapes differ a connector, convolution and batch norm, stands behind the student.

    The loss alone trains the connectors and the student's features for `initial_epochs` and is then dropped, in the paper
    and in the CRD authors' benchmark alike, so that `weight` has no effect. `initial_epochs: 0` makes it a term of the main
    training, to which `weight` applies, and `afterwards: true` does so after the initial epochs, connectors frozen.
    """

    def __init__(
        self,
        *,
        student: Side,
        teacher: Side,
        margin: float = 1.0,
        scale: float = 0.003,
        initial_epochs: int = 30,
        afterwards: bool = False,
    ) -> None:
        super().__init__()
        self.margin, self.scale = positive("ab.method.margin", margin), scale
        self.connectors = nn.ModuleList(
            nn.Sequential() if mine == theirs else Regressor("ab", mine, theirs, rectify=False)
            for mine, theirs in tapped("ab", student, teacher)
        )
        self.stage = Stage(initial_epochs, student=True) if initial_epochs else None
        self.afterwards = afterwards

    def initial(self, student: View, teacher: View, batch: Batch) -> Terms:
        total = student.features[-1].new_zeros(())
        last = len(self.connectors) - 1
        for number, connector in enumerate(self.connectors):
            mine, theirs = connector(student.features[number]), teacher.features[number]
            theirs = theirs if mine.ndim == theirs.ndim else as_map(theirs)
            total = total + 2.0 ** (number - last) * boundary(mine, theirs, self.margin) / len(mine)
        return {"ab": self.scale * total}

    def forward(self, student: View, teacher: View, batch: Batch) -> Terms:
        return self.initial(student, teacher, batch) if self.afterwards or not self.stage else {}

    def finish_stage(self) -> None:
        self.freeze(self.connectors)


def boundary(student: Tensor, teacher: Tensor, margin: float) -> Tensor:
    """The sum over all neurons of relu(margin - sign s)^2: the squared distance to the nearest value beyond the margin."""
    with torch.no_grad():
        target = torch.where(teacher > 0, student.clamp_min(margin), student.clamp_max(-margin))
    return F.mse_loss(student, target, reduction="sum")
