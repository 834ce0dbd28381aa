"""FitNets: regression of an intermediate feature map of the teacher."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import nn

from dvsn.distill.connector import Regressor
from dvsn.distill.method import Method, Side, Stage, View
from dvsn.distill.shapes import as_map, match_size, require_equal_channels, summed, tapped
from dvsn.errors import ConfigError
from dvsn.types import Batch, Terms


class FitNet(Method):
    """Mean squared error of the teacher's map and the student's after a connector: the term `fitnet`.

    Romero et al., 2015, arXiv:1412.6550. `hint` is the tap compared: its number, `middle` (of three or four stages the
    second, the benchmark's choice) or `all`, summed. The connector is a convolution, batch norm and, if `rectify`, ReLU,
    as in the CRD authors' benchmark; a ReLU cannot reach what is negative in the teacher, so set `rectify: false` for taps
    that are not rectified (wide ResNets, MobileNetV2). `connector: false` compares the maps themselves, of equal channels;
    of two sizes the larger is average-pooled.

    The paper trains in two stages, first the hint alone, then without it; `initial_epochs` above 0 does so. By default
    the hint is a term of one training, as in the benchmark, from which weight 100 comes.
    """

    def __init__(
        self,
        *,
        student: Side,
        teacher: Side,
        hint: int | Literal["middle", "all"] = "middle",
        rectify: bool = True,
        connector: bool = True,
        initial_epochs: int = 0,
    ) -> None:
        super().__init__()
        pairs = tapped("fitnet", student, teacher)
        self.taps = chosen(hint, len(pairs))
        pairs = [pairs[number] for number in self.taps]
        require_equal_channels(
            "fitnet", [] if connector else pairs, "or set distill.fitnet.method.connector=true"
        )
        self.regressors = nn.ModuleList(
            Regressor("fitnet", *pair, rectify=rectify) if connector else nn.Identity() for pair in pairs
        )
        self.stage = Stage(initial_epochs, student=True) if initial_epochs else None

    def initial(self, student: View, teacher: View, batch: Batch) -> Terms:
        errors = []
        for tap, regressor in zip(self.taps, self.regressors, strict=True):
            mine, theirs = regressor(as_map(student.features[tap])), as_map(teacher.features[tap])
            errors.append(F.mse_loss(*match_size(mine, theirs)))
        return {"fitnet": summed(errors)}

    def forward(self, student: View, teacher: View, batch: Batch) -> Terms:
        return {} if self.stage else self.initial(student, teacher, batch)

    def finish_stage(self) -> None:
        self.freeze(self.regressors)


def chosen(hint: int | str, count: int) -> list[int]:
    """The numbers of the taps that are compared."""
    if hint == "all":
        return list(range(count))
    if hint == "middle":
        return [(count - 1) // 2]
    if isinstance(hint, int) and -count <= hint < count:
        return [hint % count]
    raise ConfigError(
        f"distill.fitnet.method.hint: found {hint!r}, expected middle, all or a number below {count}, the count of taps."
    )
