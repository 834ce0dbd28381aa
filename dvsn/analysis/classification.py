"""What is found of classification: which classes are taken for which; calibration; a teacher beside it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor
from torchmetrics.utilities import dim_zero_cat

from dvsn.analysis import reliability, versus
from dvsn.analysis.analyst import Gather
from dvsn.analysis.confusion import ConfusionAnalyst
from dvsn.analysis.record import Cell, Chart, Picture
from dvsn.analysis.thresholds import ClassScored
from dvsn.metrics.calibration import Reliability
from dvsn.types import Batch


class Scored(ClassScored):
    """By the probability of each class, of every picture."""

    def names(self) -> Sequence[str]:
        found: tuple[str, ...] = self.task.names
        return found

    def look(self, batch: Batch, output: Tensor) -> None:
        self.counts.add(output.float().softmax(dim=1), batch["target"])


class Found(ConfusionAnalyst):
    """The score of a picture is the probability that the network gives its true class.

    Its values: `right`, 1 or 0; `confidence`, the probability of the answer.
    """

    score: str = "true_probability"
    unit: ClassVar[str] = "pictures"
    class_score: ClassVar[str] = "F1"
    scorer: ClassVar[type[ClassScored]] = Scored

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
        self.scored.counts.add(shares, truth)
        mine = shares.gather(1, truth[:, None])[:, 0]
        columns = (each.tolist() for each in (truth, answers, confidence, mine))
        found = []
        for number, (name, true, answer, sure, score) in enumerate(zip(batch["name"], *columns, strict=True)):
            values = {"right": float(true == answer), "confidence": sure}
            if self.teacher is not None:
                taught = batch["teacher"][number].float().softmax(dim=0)
                values[versus.TEACHER] = float(taught[true])
                values |= self.versus.add(truth[number, None], answers[number, None], taught.argmax()[None])
            cells: tuple[Cell, ...] = ()
            note = ""
            if answer != true:
                cells = (Cell(true, answer, 1.0),)
                note = f"{self.classes[true]} taken for {self.classes[answer]} ({sure:.0%})"
            found.append(Picture(name, score, values, cells=cells, note=note))
        return found

    def panels(self, batch: Batch, output: Tensor) -> dict[str, Tensor]:
        found: dict[str, Tensor] = self.task.panels(batch, output)
        if self.teacher is not None:
            found["teacher"] = self.task.panels(batch, batch["teacher"])["prediction"]
        return found

    def close(self, gather: Gather) -> None:
        super().close(gather)
        counts = self.task.class_score
        with counts.sync_context(should_sync=counts.distributed_available_fn()):
            self.take(counts.confmat, counts.table()["f1"])
        error = self.task.metrics["ece"]
        self.reliability = Reliability(error.n_bins)
        with error.sync_context(should_sync=error.distributed_available_fn()):
            self.reliability.add(dim_zero_cat(error.confidences), dim_zero_cat(error.accuracies))

    def charts(self) -> tuple[Chart, ...]:
        found = (*super().charts(), reliability.chart(self.reliability, what=self.unit))
        return (*found, *self.threshold_charts("all pictures"))
