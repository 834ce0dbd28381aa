"""What is found of segmentation: which classes are taken for which, by picture too; calibration; a teacher beside it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from dvsn.analysis import confusion, reliability, versus
from dvsn.analysis.analyst import Gather, add_up
from dvsn.analysis.confusion import ConfusionAnalyst
from dvsn.analysis.record import Chart, Picture
from dvsn.analysis.thresholds import ClassScored
from dvsn.metrics.calibration import Reliability
from dvsn.metrics.segmentation import by_class, confusion_matrix
from dvsn.types import IGNORE, Batch

SAMPLED = 10_000
"""Pixels of a picture, at most, whose probabilities are looked at."""
BOTH_WRONG, STUDENT_RIGHT, TEACHER_RIGHT = (255, 255, 255), (0, 190, 0), (255, 140, 0)


class Scored(ClassScored):
    """By the probabilities of every n-th row and column of each picture; an exported file tells classes alone."""

    def __init__(self, task: Any) -> None:
        super().__init__(task)
        self._heard: list[tuple[Tensor, int]] = []

    def names(self) -> Sequence[str]:
        found: tuple[str, ...] = self.task.vocabulary.names
        return found

    def begin(self) -> None:
        super().begin()
        self._heard.clear()
        self.task.listener = self.hear

    def hear(self, scores: Tensor, probabilities: bool) -> None:
        """Keep the probabilities (K, h, w) of some pixels, of `scores` (1, K, H, W): logits, or probabilities."""
        step = max(1, math.ceil(math.sqrt(scores.shape[-2] * scores.shape[-1] / SAMPLED)))
        some = scores[0, :, step // 2 :: step, step // 2 :: step].float()
        self._heard.append((some if probabilities else some.softmax(dim=0), step))

    def look(self, batch: Batch, output: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Also returns, of each picture that was heard, probabilities (K, P) and classes (P,) of its labelled pixels."""
        heard, self._heard = self._heard, []
        found = []
        for (shares, step), truth in zip(heard, batch["target"][:, 0] if heard else (), strict=True):
            some = truth[step // 2 :: step, step // 2 :: step]
            known = some != IGNORE
            found.append((shares[:, known], some[known]))
            self.counts.add(found[-1][0].T, found[-1][1])
        return found

    def end(self) -> None:
        self.task.listener = None


class Found(ConfusionAnalyst):
    """The score of a picture is its own mIoU: the mean, over the classes in its label, of the IoU in this picture.

    Of its values `pixel_accuracy` is the share of labelled pixels that are right. Classes that are found where the label has
    none of them cost the classes in whose place they are. Pixels labelled 255 do not count.
    """

    score: str = "miou"
    unit: ClassVar[str] = "pixels"
    class_score: ClassVar[str] = "IoU"
    scorer: ClassVar[type[ClassScored]] = Scored

    def __init__(self, task: Any, teacher: Any = None) -> None:
        super().__init__(task, teacher)
        self.reliability = Reliability()
        self.sampled = 0

    @property
    def classes(self) -> tuple[str, ...]:
        names: tuple[str, ...] = self.task.vocabulary.names
        return names

    def begin(self, *, look: bool = True) -> None:
        if look:
            self.scored.begin()

    def look(self, batch: Batch, output: Tensor) -> list[Picture]:
        for shares, truth in self.scored.look(batch, output):
            confidence, ids = shares.max(dim=0)
            self.reliability.add(confidence, ids == truth)
            self.sampled += len(truth)
        if self.teacher is not None:
            batch["teacher"] = self.teacher.predict_ids(batch["image"])
        return [self._picture(batch, output, number) for number in range(len(output))]

    def _picture(self, batch: Batch, output: Tensor, number: int) -> Picture:
        truth, ids = batch["target"][number, 0], output[number]
        counts = confusion_matrix(ids, truth, classes=self.task.classes).cpu()
        cells = confusion.largest(counts)
        values = {"pixel_accuracy": share(counts)}
        if self.teacher is not None:
            taught, known = batch["teacher"][number], truth != IGNORE
            values[versus.TEACHER] = mean_iou(
                confusion_matrix(taught, truth, classes=self.task.classes).cpu()
            )
            values |= self.versus.add(truth[known], ids[known], taught[known])
        note = confusion.words(cells, self.classes, self.unit)
        return Picture(batch["name"][number], mean_iou(counts), values, cells=cells, note=note)

    def panels(self, batch: Batch, output: Tensor) -> dict[str, Tensor]:
        found: dict[str, Tensor] = self.task.panels(batch, output)
        if self.teacher is None:
            return found
        truth, taught = batch["target"][:, 0], batch["teacher"]
        faded = (self.task.show_input(batch["image"]).float() * 0.4).to(torch.uint8)
        for own, other, colour in (
            (False, False, BOTH_WRONG), (True, False, STUDENT_RIGHT), (False, True, TEACHER_RIGHT),
        ):  # fmt: skip
            mask = ((output == truth) == own) & ((taught == truth) == other) & (truth != IGNORE)
            paint = torch.tensor(colour, dtype=torch.uint8, device=faded.device).view(1, 3, 1, 1)
            faded = torch.where(mask.unsqueeze(1), paint, faded)
        found.pop("errors", None)
        return found | {
            "teacher": self.task.paint(taught),
            "right alone: student green, teacher orange": faded,
        }

    def close(self, gather: Gather) -> None:
        super().close(gather)
        self.reliability.sums = add_up(gather, self.reliability.sums)
        self.sampled = int(add_up(gather, torch.tensor(self.sampled)))
        score = self.task.score
        with score.sync_context(should_sync=score.distributed_available_fn()):
            self.take(score.confusion, score.table()["iou"])

    def charts(self) -> tuple[Chart, ...]:
        found = super().charts()
        if not self.sampled:
            return found
        what = f"{self.sampled:,} sampled pixels"
        return (*found, reliability.chart(self.reliability, what=what), *self.threshold_charts(what))


def mean_iou(counts: Tensor) -> float:
    """Of (K, K) counts: the mean over the classes that the label holds; NaN where it holds none."""
    return float(by_class(counts)["iou"][counts.sum(dim=1) > 0].mean())


def share(counts: Tensor) -> float:
    """Of (K, K) counts: the share on the diagonal; NaN where nothing is counted."""
    return float(counts.diagonal().sum() / counts.sum())
