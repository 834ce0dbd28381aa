"""What is found of classification: which classes are taken for which; calibration; a teacher beside it."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor
from torchmetrics.utilities import dim_zero_cat

from dvsn.analysis import confusion, reliability, versus
from dvsn.analysis.analyst import Analyst, Gather
from dvsn.analysis.confusion import Confusion
from dvsn.analysis.record import Cell, Chart, Curve, Matrix, Picture, Row
from dvsn.analysis.versus import Versus
from dvsn.metrics.calibration import Reliability
from dvsn.types import Batch

UNIT = "pictures"
BARS = 60
"""Classes of a chart of bars; of more, those with the lowest F1."""


class Found(Analyst):
    """The score of a picture is the probability that the network gives its true class.

    Its values: `right`, 1 or 0; `confidence`, the probability of the answer.
    """

    score: str = "true_probability"
    compares: ClassVar[bool] = True

    def __init__(self, task: Any, teacher: Any = None) -> None:
        super().__init__(task, teacher)
        self._versus = Versus(task.classes)
        self._confusion: Confusion | None = None
        self._f1: list[float] = []
        self.reliability = Reliability()

    @property
    def classes(self) -> tuple[str, ...]:
        names: tuple[str, ...] = self.task.names
        return names

    def look(self, batch: Batch, output: Tensor) -> list[Picture]:
        if self.teacher is not None:
            batch["teacher"] = self.teacher(batch["image"])
        shares = output.float().softmax(dim=1)
        confidence, answers = shares.max(dim=1)
        truth = batch["target"]
        mine = shares.gather(1, truth[:, None])[:, 0]
        found = []
        for number, (name, true, answer) in enumerate(
            zip(batch["name"], truth.tolist(), answers.tolist(), strict=True)
        ):
            sure = float(confidence[number])
            values = {"right": float(true == answer), "confidence": sure}
            if self.teacher is not None:
                taught = batch["teacher"][number].float().softmax(dim=0)
                values[versus.TEACHER] = float(taught[true])
                values |= self._versus.add(truth[number, None], answers[number, None], taught.argmax()[None])
            wrong = answer != true
            found.append(
                Picture(
                    name,
                    float(mine[number]),
                    values,
                    cells=(Cell(true, answer, 1.0),) if wrong else (),
                    note=f"{self.classes[true]} taken for {self.classes[answer]} ({sure:.0%})"
                    if wrong
                    else "",
                )
            )
        return found

    def panels(self, batch: Batch, output: Tensor) -> dict[str, Tensor]:
        found: dict[str, Tensor] = self.task.panels(batch, output)
        if self.teacher is not None:
            found["teacher"] = self.task.panels(batch, batch["teacher"])["prediction"]
        return found

    def close(self, gather: Gather) -> None:
        self._versus.close(gather)
        counts = self.task.class_score
        with counts.sync_context(should_sync=counts.distributed_available_fn()):
            self._confusion = Confusion(counts.confmat, self.classes, unit=UNIT)
            self._f1 = counts.table()["f1"].tolist()
        error = self.task.metrics["ece"]
        self.reliability = Reliability(error.n_bins)
        with error.sync_context(should_sync=error.distributed_available_fn()):
            self.reliability.add(dim_zero_cat(error.confidences), dim_zero_cat(error.accuracies))

    def settle(self, picture: Picture) -> Picture:
        return picture if self._confusion is None else self._confusion.settle(picture)

    def tables(self) -> dict[str, list[Row]]:
        assert self._confusion is not None
        found = {confusion.TABLE: self._confusion.table()}
        if self.teacher is not None:
            found[versus.TABLE] = self._versus.table(self.classes, UNIT)
        return found

    def charts(self) -> tuple[Chart, ...]:
        there = sorted((value, number) for number, value in enumerate(self._f1) if value == value)[:BARS]
        order = sorted(number for _, number in there)
        curve = Curve("F1", tuple(self.classes[n] for n in order), tuple(self._f1[n] for n in order))
        few = len(order) < len(self._f1)
        note = f"The {len(order)} of {len(self._f1)} classes with the lowest F1." if few else ""
        bars = Chart("f1", "F1 by class", "class", "F1", (curve,), kind="bars", note=note)
        return (bars, reliability.chart(self.reliability, what="pictures"))

    def matrices(self) -> tuple[Matrix, ...]:
        assert self._confusion is not None
        return (self._confusion.matrix(title="Which class is taken for which"),)
