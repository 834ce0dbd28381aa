"""Detection: the F1 of each picture, precision and recall by class, the kinds of errors and what they cost, and confusion
with the background."""

from __future__ import annotations

import functools
from collections import Counter
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dvsn.analysis.analyst import Analyst, Gather
from dvsn.analysis.confusion import Confusion
from dvsn.analysis.object_panel import draw_errors
from dvsn.analysis.precision_curves import precision_charts
from dvsn.analysis.record import Cell, Chart, Curve, Matrix, Picture, PrecisionRecall, Row
from dvsn.analysis.thresholds import Scored as Scores
from dvsn.analysis.thresholds import curves_of
from dvsn.analysis.versus import TABLE, TEACHER
from dvsn.errors import ConfigError
from dvsn.metrics.detection import coco_results
from dvsn.metrics.detection_errors import (
    BACKGROUND,
    KINDS,
    MATCHED,
    MISSED,
    NEAR,
    RIGHT,
    STATES,
    Judged,
    by_confidence,
    confusion,
    counts_by_score,
    judge,
    mean_precision,
)
from dvsn.types import Batch

CONFIDENCES = np.linspace(0, 1, 101)
MEANINGS = {
    "wrong class": f"IoU of {MATCHED} or more with an object of another class",
    "badly placed": f"IoU of {NEAR} to {MATCHED} with an object of its class",
    "both": f"IoU of {NEAR} to {MATCHED} with an object of another class",
    "double": f"IoU of {MATCHED} or more with an object of its class that a better scored one has found",
    "background": f"IoU of {NEAR} or less with every object",
    MISSED: "an object that no detection has found, and none of a wrong class or badly placed would",
}


BOXES = ("boxes", "scores", "labels")


class Scored(Scores):
    """Boxes of each class by their scores, right at an IoU of `MATCHED`; they are judged when the curves are asked for."""

    def __init__(self, task: Any) -> None:
        super().__init__(task)
        self._found: dict[int, dict[str, Tensor]] = {}

    def begin(self) -> None:
        self._found.clear()

    def look(self, batch: Batch, output: Any) -> None:
        for index, found in zip(torch.as_tensor(batch["index"]).tolist(), output, strict=True):
            self._found[index] = {key: found[key].detach().cpu() for key in BOXES}

    def curves(self, gather: Gather) -> tuple[PrecisionRecall, ...]:
        if not any(gather(bool(self._found))):
            return ()
        data = self.task.score.dataset
        judged = {index: judge(*rows_of(data, index, found)) for index, found in self._found.items()}
        together = {index: each for part in gather(judged) for index, each in part.items()}
        return judged_curves(list(together.values()), data.categories)


class Found(Analyst):
    """Scores a picture by F1: twice the right detections over detections and objects, of the detections with a score of
    `task.shown` or more; 1 where there is neither detection nor object. What is right, and the kinds of errors:
    `dvsn.metrics.detection_errors`."""

    score = "f1"
    compares = True

    def __init__(self, task: Any, teacher: Any = None) -> None:
        super().__init__(task, teacher)
        if teacher is not None and teacher.network.classes != task.network.classes:
            raise ConfigError(
                f"teacher: knows {teacher.network.classes} classes, the checkpoint {task.network.classes}; expected as many."
            )
        self.least: float = task.shown_from
        self.taught: dict[int, Judged] = {}
        """The teacher's detections of a picture that are shown, by its number."""
        self.judged: dict[int, tuple[Judged, Judged]] = {}
        """By the picture's number: with all its detections, and with those that are shown."""

    @property
    def categories(self) -> dict[int, str]:
        found: dict[int, str] = self.task.score.dataset.categories
        return found

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(self.categories.values())

    def look(self, batch: Batch, output: Any) -> list[Picture]:
        pictures = []
        answers = [None] * len(output)
        if self.teacher is not None:
            answers = batch["teacher"] = self.teacher(batch["image"])
        rows = zip(batch["index"].tolist(), batch["name"], output, answers, strict=True)
        for index, name, found, theirs in rows:
            results, objects = rows_of(self.task.score.dataset, index, found)
            shown = judge(results, objects, least=self.least)
            self.judged[index] = judge(results, objects), shown
            picture = self.picture(name, shown)
            if theirs is not None:
                self.taught[index] = judge(*rows_of(self.task.score.dataset, index, theirs), least=self.least)
                picture.values[TEACHER] = self.taught[index].f1
            pictures.append(picture)
        return pictures

    def picture(self, name: str, judged: Judged) -> Picture:
        order = {label: number for number, label in enumerate([*self.categories, BACKGROUND])}
        pairs = Counter((order[true], order[found]) for true, found in judged.pairs.tolist() if true != found)
        return Picture(
            name,
            judged.f1,
            {"right": judged.count(RIGHT), "wrong": judged.wrong, "not found": int((~judged.found).sum())},
            cells=tuple(Cell(row, column, count) for (row, column), count in pairs.most_common()),
            note=self.words(judged),
        )

    def words(self, judged: Judged) -> str:
        """The errors of a picture, such as `car taken for bus; background: car (2); missed: person`."""
        names, parts = self.categories, []
        wrong = [
            (names[int(true)], names[int(found)])
            for true, found in judged.pairs.tolist()
            if BACKGROUND not in (true, found) and true != found
        ]
        parts += [f"{true} taken for {found}{times(n)}" for (true, found), n in Counter(wrong).most_common()]
        for kind in KINDS[1:]:
            labels = judged.labels[judged.state == STATES.index(kind)]
            parts += [f"{kind}: {listed(names[int(label)] for label in labels)}"] if len(labels) else []
        missed = judged.wanted[judged.missed]
        parts += [f"{MISSED}: {listed(names[int(label)] for label in missed)}"] if len(missed) else []
        return "; ".join(parts)

    def panels(self, batch: Batch, output: Any) -> dict[str, Tensor]:
        """Also `errors`: the detections in the colours of their kinds, and the objects that none has found."""
        found = super().panels(batch, output)
        index, photo = int(batch["index"][0]), batch["image"][0].permute(1, 2, 0).cpu().numpy()
        answers = {"errors": (output[0], self.judged[index][1])}
        if self.teacher is not None:
            answers["errors of the teacher"] = batch["teacher"][0], self.taught[index]
        for title, (answer, judged) in answers.items():
            results, objects = rows_of(self.task.score.dataset, index, answer)
            drawn = draw_errors(photo, judged, results, objects, self.categories)
            found[title] = torch.from_numpy(drawn).permute(2, 0, 1)[None]
        return found

    def close(self, gather: Gather) -> None:
        self.task.score.compute()  # gathers, and is not repeated
        together = {index: judged for part in gather(self.judged) for index, judged in part.items()}
        self.judged = dict(sorted(together.items()))
        counts = confusion(self.shown, list(self.categories))
        self.confusion = Confusion(torch.from_numpy(counts), (*self.classes, "background"), unit="objects")
        self.taught = {index: judged for part in gather(self.taught) for index, judged in part.items()}

    # What was found --------------------------------------------------------------------------------------

    def settle(self, picture: Picture) -> Picture:
        return self.confusion.settle(picture)

    @property
    def everything(self) -> list[Judged]:
        return [each for each, _ in self.judged.values()]

    @property
    def shown(self) -> list[Judged]:
        return [each for _, each in self.judged.values()]

    @property
    def from_on(self) -> str:
        return f"Detections with a score of {self.least:g} or more (task.shown)."

    def tables(self) -> dict[str, list[Row]]:
        if not self.judged:
            return {}
        counts = {label: [0, 0, 0] for label in self.categories}
        for judged in self.shown:
            hits = judged.state == STATES.index(RIGHT)
            wrong = ~hits & (judged.state != STATES.index("ignored"))
            for place, labels in enumerate(
                (judged.labels[hits], judged.labels[wrong], judged.wanted[~judged.found])
            ):
                for label in labels.tolist():
                    counts[label][place] += 1
        rows = []
        for row, (right, wrong, lost) in zip(self.task.score.rows, counts.values(), strict=True):
            precision, recall = share(right, right + wrong), share(right, right + lost)
            f1 = share(2 * right, 2 * right + wrong + lost)
            rows.append(
                {**row, "right": right, "wrong": wrong, "not found": lost,
                 "precision": precision, "recall": recall, "f1": f1}
            )  # fmt: skip
        tables = {"classes": rows, "kinds of errors": self.errors}
        return tables | ({TABLE: self.beside()} if self.taught else {})

    def beside(self) -> list[Row]:
        """A row a class that is there, and one of all: the shares of its objects that each finds, and who alone does."""
        counts = {label: np.zeros(4, np.int64) for label in self.categories}
        for index, (_, own) in self.judged.items():
            case = 2 * own.found + self.taught[index].found
            for label in np.unique(own.wanted).tolist():
                counts[label] += np.bincount(case[own.wanted == label], minlength=4)
        rows: list[Row] = []
        for name, each in (*zip(self.classes, counts.values(), strict=True), ("all", sum(counts.values()))):
            neither, teacher, student, both = np.asarray(each).tolist()
            if total := neither + teacher + student + both:
                rows.append(
                    {"class": name, "student": (student + both) / total, "teacher": (teacher + both) / total,
                     "only the student": student, "only the teacher": teacher, "objects": total}
                )  # fmt: skip
        return rows

    @functools.cached_property
    def errors(self) -> list[Row]:
        """A row a kind: its errors and their share, those of detections of any score, and the AP50 that mending these would
        add."""
        labels, every = list(self.categories), self.everything
        base = mean_precision(every, labels)
        counts = {kind: sum(each.count(kind) for each in self.shown) for kind in KINDS}
        counts[MISSED] = sum(int(each.missed.sum()) for each in self.shown)
        total = sum(counts.values())
        ever = {kind: sum(each.count(kind) for each in every) for kind in KINDS}
        ever[MISSED] = sum(int(each.missed.sum()) for each in every)
        rows: list[Row] = []
        for kind, count in counts.items():
            gain = mean_precision(every, labels, kind) - base
            rows.append(
                {"kind": kind, "errors": count, "share": share(count, total), "of any score": ever[kind],
                 "ap50 gained": None if np.isnan(gain) else gain, "meaning": MEANINGS[kind]}
            )  # fmt: skip
        return rows

    def charts(self) -> tuple[Chart, ...]:
        known = precision_charts(self.task.score.curves, self.classes)
        return (*known, *(self.error_charts() if self.judged else ()))

    def curves(self) -> tuple[PrecisionRecall, ...]:
        return judged_curves(self.everything, self.categories)

    def error_charts(self) -> tuple[Chart, ...]:
        rows = self.errors
        kinds = tuple(str(row["kind"]) for row in rows)
        swept = by_confidence(self.everything, list(self.categories), CONFIDENCES)
        at = tuple(CONFIDENCES.round(2).tolist())
        f1 = swept["f1"]
        best = int(np.nanargmax(f1)) if np.isfinite(f1).any() else 0
        return (
            Chart(
                "errors", "Kinds of errors", "kind", "errors",
                (Curve("errors", kinds, tuple(row["errors"] for row in rows)),), "bars",  # type: ignore[misc]
                note=f"{self.from_on} Kinds after TIDE (arXiv:2008.08115); the table says what they mean.",
            ),
            Chart(
                "mending", "What the errors cost", "kind", "AP50 that would be gained",
                (Curve("AP50", kinds, tuple(row["ap50 gained"] for row in rows)),), "bars",  # type: ignore[misc]
                note="Each kind mended alone, in the detections of every score. The gains do not add up.",
            ),
            Chart(
                "confidence", "Which score to ask for", "least score", "share",
                tuple(Curve(name, at, tuple(values.tolist())) for name, values in swept.items()),
                note=f"All classes together, at an IoU of {MATCHED}. F1 is best, {f1[best]:.3f}, from {at[best]:.2f} on; "
                f"shown is what has {self.least:g} (task.shown).",
            ),
        )  # fmt: skip

    def matrices(self) -> tuple[Matrix, ...]:
        if not self.judged:
            return ()
        note = (
            f"Rows are what is there, columns what was found. {self.from_on} Right ones are matched as COCO does at an "
            f"IoU of {MATCHED}; what remains is paired by overlap from {MATCHED} on, whatever its class. The column "
            "background: objects not found; the row: detections of nothing, double or badly placed ones."
        )
        return (self.confusion.matrix(title="Confusion", note=note),)


def rows_of(data: Any, index: int, found: dict[str, Tensor]) -> tuple[list[Row], list[Row]]:
    """What was found in a picture, of the classes of the data set, and its objects, both in COCO's form."""
    boxes = {key: found[key].detach().cpu().double() for key in BOXES}
    boxes["labels"] = boxes["labels"].long()
    results = coco_results(boxes, index)
    return [each for each in results if each["category_id"] in data.categories], data.truth(index)


def judged_curves(judged: list[Judged], categories: dict[int, str]) -> tuple[PrecisionRecall, ...]:
    """Precision and recall by the least score of all classes together and of each."""
    right, wrong, objects = counts_by_score(judged, list(categories), CONFIDENCES)
    return curves_of(tuple(categories.values()), right, wrong, objects)


def share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def times(count: int) -> str:
    return f" ({count})" if count > 1 else ""


def listed(names: Any) -> str:
    return ", ".join(f"{name}{times(count)}" for name, count in Counter(names).most_common())
