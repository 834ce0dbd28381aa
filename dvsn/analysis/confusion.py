"""What is taken for what: confusion matrices as they are shown, in tables and in words."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from dvsn.analysis import versus
from dvsn.analysis.analyst import Analyst, Gather
from dvsn.analysis.record import Cell, Chart, Curve, Matrix, Picture, PrecisionRecall, Row
from dvsn.analysis.thresholds import ClassScored, threshold_chart
from dvsn.analysis.versus import Versus

MOST = 60
"""Classes of a matrix, or of bars, that are shown; of more, those that are confused most, or have the lowest scores."""
OTHERS = "all others"
TABLE = "largest confusions"


def largest(counts: Tensor, most: int = 5) -> tuple[Cell, ...]:
    """The largest cells off the diagonal of (K, K) counts, the largest first; equal ones in the order of the classes."""
    wrong = counts.clone()
    wrong.fill_diagonal_(0)
    order = torch.argsort(wrong.flatten(), descending=True, stable=True)[:most].tolist()
    columns = counts.shape[1]
    cells = [Cell(place // columns, place % columns, float(wrong.flatten()[place])) for place in order]
    return tuple(each for each in cells if each.count > 0)


def words(cells: Sequence[Cell], names: Sequence[str], unit: str, most: int = 3) -> str:
    """Such as `person taken for rider (812 pixels); wall taken for fence (90)`."""
    told = [
        f"{names[cell.row]} taken for {names[cell.column]} ({cell.count:,.0f}{'' if number else f' {unit}'})"
        for number, cell in enumerate(cells[:most])
    ]
    return "; ".join(told)


class Confusion:
    """A confusion matrix (K, K) of counts by true (row) and predicted (column) class, as it is shown.

    Of more than `MOST` classes it shows those with the most confusions, and one row and column for all others.
    """

    def __init__(self, counts: Tensor, names: Sequence[str], *, unit: str) -> None:
        self.counts, self.names, self.unit = counts.cpu().double(), list(names), unit
        wrong = self.counts.clone()
        wrong.fill_diagonal_(0)
        confused = wrong.sum(dim=0) + wrong.sum(dim=1)
        order = torch.argsort(confused, descending=True, stable=True)
        self.chosen = (
            sorted(order[:MOST].tolist()) if len(self.names) > MOST else list(range(len(self.names)))
        )
        self._place = {number: place for place, number in enumerate(self.chosen)}

    @property
    def whole(self) -> bool:
        return len(self.chosen) == len(self.names)

    def matrix(self, *, title: str, note: str = "") -> Matrix:
        """The matrix as it is shown."""
        names = [self.names[number] for number in self.chosen] + ([] if self.whole else [OTHERS])
        places = torch.tensor([self.place(number) for number in range(len(self.names))])
        shown = torch.zeros(len(names), len(self.names), dtype=torch.float64).index_add_(
            0, places, self.counts
        )
        shown = torch.zeros(len(names), len(names), dtype=torch.float64).index_add_(1, places, shown)
        if not self.whole:
            note = f"{note} The {MOST} classes of {len(self.names)} that are confused most.".strip()
        rows = tuple(tuple(row) for row in shown.tolist())
        return Matrix("confusion", title, tuple(names), tuple(names), rows, unit=self.unit, note=note)

    def place(self, number: int) -> int:
        """The row or column that shows a class."""
        return self._place.get(number, len(self.chosen))

    def settle(self, picture: Picture) -> Picture:
        """The picture with its cells, which hold numbers of classes, in rows and columns as they are shown."""
        if self.whole:
            return picture
        counts: dict[tuple[int, int], float] = defaultdict(float)
        for cell in picture.cells:
            counts[self.place(cell.row), self.place(cell.column)] += cell.count
        cells = [Cell(row, column, count) for (row, column), count in counts.items() if row != column]
        return replace(picture, cells=tuple(sorted(cells, key=lambda cell: -cell.count)))

    def table(self, most: int = 20) -> list[Row]:
        """The largest confusions of all pictures together, with their share of the true class."""
        totals = self.counts.sum(dim=1).tolist()
        return [
            {
                "true": self.names[cell.row],
                "taken for": self.names[cell.column],
                self.unit: int(cell.count),
                "share of the true class": cell.count / totals[cell.row],
            }
            for cell in largest(self.counts, most)
        ]


class ConfusionAnalyst(Analyst):
    """The base of analysts of tasks that give one class to each picture or pixel: what is taken for what, a score by class,
    and a teacher beside it. `close` of a subclass calls `take`."""

    compares: ClassVar[bool] = True
    unit: ClassVar[str]
    """What is counted: `pictures` or `pixels`."""
    class_score: ClassVar[str]
    """The name of the score of a class, such as `IoU`."""
    scorer: ClassVar[type[ClassScored]]
    """Who counts the answers by their probabilities."""
    confusion: Confusion
    by_class: list[float]

    def __init__(self, task: Any, teacher: Any = None) -> None:
        super().__init__(task, teacher)
        self.versus = Versus(task.classes)
        self.scored = self.scorer(task)
        self._curves: tuple[PrecisionRecall, ...] = ()

    def close(self, gather: Gather) -> None:
        self.scored.end()
        self.versus.close(gather)
        self._curves = self.scored.curves(gather)

    def take(self, counts: Tensor, scores: Tensor) -> None:
        """The confusion matrix (K, K) of the whole split, and the score of each class (K,), NaN where it is not defined."""
        self.confusion, self.by_class = Confusion(counts, self.classes, unit=self.unit), scores.tolist()

    def settle(self, picture: Picture) -> Picture:
        return self.confusion.settle(picture)

    def tables(self) -> dict[str, list[Row]]:
        found = {TABLE: self.confusion.table()}
        if self.teacher is not None:
            found[versus.TABLE] = self.versus.table(self.classes, self.unit)
        return found

    def charts(self) -> tuple[Chart, ...]:
        """Bars of the classes that have a score."""
        defined = sorted((value, number) for number, value in enumerate(self.by_class) if value == value)
        shown = sorted(number for _, number in defined[:MOST])
        name = self.class_score
        few = len(shown) < len(defined)
        note = f"The {len(shown)} of {len(defined)} classes with the lowest {name}." if few else ""
        curve = Curve(name, tuple(self.classes[n] for n in shown), tuple(self.by_class[n] for n in shown))
        return (Chart(name.lower(), f"{name} by class", "class", name, (curve,), kind="bars", note=note),)

    def threshold_charts(self, what: str) -> tuple[Chart, ...]:
        """Precision and recall by threshold, where scores were seen."""
        return (threshold_chart(self._curves, what),) if self._curves else ()

    def curves(self) -> tuple[PrecisionRecall, ...]:
        return self._curves

    def matrices(self) -> tuple[Matrix, ...]:
        return (self.confusion.matrix(title="Which class is taken for which"),)
