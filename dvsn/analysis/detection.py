"""Detection: the F1 of each picture, precision and recall by class, the kinds of errors and what they cost, and confusion
with the background."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dvsn.analysis.analyst import Analyst, Gather
from dvsn.analysis.object_panel import draw_errors
from dvsn.analysis.record import Cell, Chart, Curve, Matrix, Picture, Row
from dvsn.metrics.detection import coco_results
from dvsn.metrics.detection_errors import (
    BACKGROUND,
    KINDS,
    MATCHED,
    MISSED,
    NEAR,
    RECALLS,
    RIGHT,
    STATES,
    Judged,
    by_confidence,
    confusion,
    judge,
    mean_precision,
)
from dvsn.types import Batch

CURVES = 12  # of a chart of classes, beside their mean
OVERLAPS = np.linspace(0.5, 0.95, 10)
CONFIDENCES = np.linspace(0, 1, 101)
MEANINGS = {
    "wrong class": f"IoU of {MATCHED} or more with an object of another class",
    "badly placed": f"IoU of {NEAR} to {MATCHED} with an object of its class",
    "both": f"IoU of {NEAR} to {MATCHED} with an object of another class",
    "double": "of an object that a better scored detection has found",
    "background": f"IoU of {NEAR} or less with every object",
    MISSED: "an object that no detection has found, and none of a wrong class or badly placed would",
}
TITLES = {"": "boxes", "mask_": "masks"}


class Found(Analyst):
    """Scores a picture by F1: twice the right detections over detections and objects, of the detections with a score of
    `task.shown` or more; 1 where there is neither detection nor object. What is right, and the kinds of errors:
    `dvsn.metrics.detection_errors`."""

    score = "f1"

    def __init__(self, task: Any, teacher: Any = None) -> None:
        super().__init__(task, teacher)
        self.least: float = task.shown_from
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
        for index, name, found in zip(batch["index"].tolist(), batch["name"], output, strict=True):
            results, objects = self.rows_of(index, found)
            shown = judge(results, objects, least=self.least)
            self.judged[index] = judge(results, objects), shown
            pictures.append(self.picture(name, shown))
        return pictures

    def rows_of(self, index: int, found: dict[str, Tensor]) -> tuple[list[Row], list[Row]]:
        """What was found in a picture, of the classes of the data set, and its objects, both in COCO's form."""
        data = self.task.score.dataset
        boxes = {key: found[key].detach().cpu().double() for key in ("boxes", "scores", "labels")}
        boxes["labels"] = boxes["labels"].long()
        results = coco_results(boxes, index)
        return [each for each in results if each["category_id"] in data.categories], data.truth(index)

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
        index = int(batch["index"][0])
        results, objects = self.rows_of(index, output[0])
        judged = judge(results, objects, least=self.least)
        photo = batch["image"][0].permute(1, 2, 0).cpu().numpy()
        drawn = draw_errors(photo, judged, results, objects, self.categories)
        return {**super().panels(batch, output), "errors": torch.from_numpy(drawn).permute(2, 0, 1)[None]}

    def close(self, gather: Gather) -> None:
        self.task.score.compute()  # gathers, and is not repeated
        parts = gather(self.judged)
        together = {index: judged for part in parts for index, judged in part.items()}
        self.judged = dict(sorted(together.items()))

    # What was found --------------------------------------------------------------------------------------

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
        return {"classes": rows, "kinds of errors": self.errors()}

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
        charts: list[Chart] = []
        for prefix, precision in self.task.score.curves.items():
            charts += self.precision_charts(prefix, precision)
        charts.append(self.by_overlap())
        return (*charts, *(self.error_charts() if self.judged else ()))

    def precision_charts(self, prefix: str, precision: np.ndarray) -> list[Chart]:
        """Of COCO's precision (T, R, K): at the lowest overlap, and the mean of all."""
        title = TITLES[prefix]
        made = []
        for key, what, curves in (
            ("precision_recall_50", "IoU 0.5", precision[0]),
            ("precision_recall", "mean over IoU 0.5 to 0.95", precision.mean(axis=0)),
        ):
            drawn, note = self.class_curves(curves)
            made.append(
                Chart(
                    f"{prefix}{key}",
                    f"Precision and recall of {title}, {what}",
                    "recall",
                    "precision",
                    drawn,
                    note=note,
                )
            )
        return made

    def class_curves(self, curves: np.ndarray) -> tuple[tuple[Curve, ...], str]:
        """(R, K) precision by recall -> the mean of the classes and the classes, those of the least average precision first;
        and what the chart is to be read as."""
        known = np.flatnonzero((curves > -1).all(axis=0))
        if not len(known):
            return (), "No object of any class."
        names, recalls = self.classes, tuple(RECALLS.round(2).tolist())
        order = known[np.argsort(curves[:, known].mean(axis=0), kind="stable")]
        chosen = order if len(order) <= CURVES else order[[*range(CURVES // 2), *range(-CURVES // 2, 0)]]
        mean = curves[:, known].mean(axis=1)
        drawn = [Curve(f"all, AP {mean.mean():.3f}", recalls, tuple(mean.tolist()))]
        drawn += [
            Curve(f"{names[n]}, AP {curves[:, n].mean():.3f}", recalls, tuple(curves[:, n].tolist()))
            for n in chosen
        ]
        note = "The area below a curve is its average precision; the least one first."
        if len(order) > len(chosen):
            note += f" Of {len(order)} classes the {CURVES // 2} worst and the {CURVES // 2} best; the table has all."
        return tuple(drawn), note

    def by_overlap(self) -> Chart:
        curves = []
        for prefix, precision in self.task.score.curves.items():
            known = (precision > -1).all(axis=(0, 1))
            values = (
                precision[:, :, known].mean(axis=(1, 2)).tolist() if known.any() else [None] * len(OVERLAPS)
            )
            curves.append(Curve(TITLES[prefix], tuple(OVERLAPS.round(2).tolist()), tuple(values)))
        return Chart(
            "ap_by_overlap", "Average precision by overlap", "IoU from which a detection is right", "AP", tuple(curves),
            note="COCO's AP is the mean of the ten. A steep fall: objects are found, and badly placed.",
        )  # fmt: skip

    def error_charts(self) -> tuple[Chart, ...]:
        rows = self.errors()
        kinds = tuple(str(row["kind"]) for row in rows)
        swept = by_confidence(self.everything, CONFIDENCES)
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
        names = (*self.classes, "background")
        counts = confusion(self.shown, list(self.categories)).astype(float)
        return (
            Matrix(
                "confusion", "Confusion", names, names, tuple(tuple(row) for row in counts.tolist()), "objects",
                f"Rows are what is there, columns what was found. {self.from_on} Right ones are matched as COCO does at an "
                f"IoU of {MATCHED}; what remains is paired by overlap from {MATCHED} on, whatever its class. The column "
                "background: objects not found; the row: detections of nothing, double or badly placed ones.",
            ),
        )  # fmt: skip


def share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def times(count: int) -> str:
    return f" ({count})" if count > 1 else ""


def listed(names: Any) -> str:
    return ", ".join(f"{name}{times(count)}" for name, count in Counter(names).most_common())
