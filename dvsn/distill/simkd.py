"""SimKD: the student learns the teacher's last map through a projector, and keeps the teacher's classifier."""

from __future__ import annotations

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from dvsn.distill.joints import require_joint, steps
from dvsn.distill.method import Change, Kind, Method, Side, View
from dvsn.distill.shapes import pool_to, tapped
from dvsn.errors import ConfigError
from dvsn.types import Batch, Terms


class ReusedClassifier(Method):
    """The term `simkd`: mean squared error of the projected map of the student and the teacher's last map.

    Chen et al., 2022, "Knowledge distillation with the reused teacher classifier", arXiv:2203.14001. The student's last map
    goes through `dvsn.networks.graft.Projector`, whose middle has the teacher's width over `factor`, and then through the
    average and the class layer of the teacher, which is copied into the student and not trained. There is no other term:
    labels are not looked at, the student's own class layer is dropped, and with it what stands between its map and that
    layer. The projector and the copied layer are shipped: the run says how many parameters the student then has. Of two maps
    the larger one is averaged to the size of the other; the student's before the projector, also when shipped.

    The teacher's tap must be the map whose average its class layer reads, which is checked: `last_map`. In Wide ResNet this
    is behind the final norm and ReLU, where the CRD authors' benchmark taps the sum before them. Different here: sides must
    divide, where the authors' code pools adaptively.
    """

    reads: ClassVar[tuple[Kind, ...]] = ("classes",)
    grafts: ClassVar[bool] = True

    def __init__(self, *, student: Side, teacher: Side, factor: int = 2) -> None:
        super().__init__()
        mine, theirs = tapped("simkd", student, teacher, maps=True)[-1]
        own, reused = require_joint("simkd", "student", student), require_joint("simkd", "teacher", teacher)
        if not reused.pooled:
            raise ConfigError(
                f"distill.simkd.taps: '{reused.at}' of the teacher is not what its class layer '{reused.head}' reads the "
                "average of, so that layer cannot be reused behind it. Choose the tap last_map, or a teacher without layers "
                "between its last map and its class layer."
            )
        if not isinstance(factor, int) or factor < 1 or theirs[0] % factor:
            raise ConfigError(
                f"distill.simkd.method.factor: found {factor}, expected a whole number that divides the {theirs[0]} "
                "channels of the teacher."
            )
        pool, _ = steps("simkd", mine, theirs)
        self.change = Change(
            node={
                "_target_": "dvsn.networks.graft.Projector",
                "at": own.at,
                "head": own.head,
                "inputs": mine[0],
                "middle": theirs[0] // factor,
                "outputs": theirs[0],
                "classes": reused.layer.out_features,
                "bias": reused.layer.bias is not None,
                "pool": list(pool),
                "without": list(own.between),
            },
            tap="",
            head=reused.layer,
        )

    def forward(self, student: View, teacher: View, batch: Batch) -> Terms:
        mine: Tensor = student.features[-1]
        return {"simkd": F.mse_loss(mine, pool_to(teacher.features[-1], *mine.shape[-2:]))}
