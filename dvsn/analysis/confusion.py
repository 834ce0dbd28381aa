"""What is taken for what: confusion matrices as they are shown, in tables and in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from dvsn.analysis.record import Cell, Matrix, Picture, Row

MOST = 60
"""Classes of a matrix that is shown; of more, those that are confused most."""
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
        cells = [replace(c, row=self.place(c.row), column=self.place(c.column)) for c in picture.cells]
        return replace(picture, cells=tuple(cell for cell in cells if cell.row != cell.column))

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
