"""What is taken for what, by hand."""

from __future__ import annotations

import torch

from dvsn.analysis.confusion import MOST, OTHERS, Confusion, largest, words
from dvsn.analysis.record import Cell, Picture

NAMES = ("road", "car", "sky")
COUNTS = torch.tensor([[5, 2, 0], [7, 9, 2], [0, 0, 4]])


def test_the_largest_cells_off_the_diagonal() -> None:
    cells = largest(COUNTS, 2)
    assert cells == (Cell(1, 0, 7.0), Cell(0, 1, 2.0)), "equal ones in the order of the classes"
    assert len(largest(COUNTS)) == 3 and largest(torch.eye(3)) == ()
    assert words(cells, NAMES, "pixels") == "car taken for road (7 pixels); road taken for car (2)"
    assert words((), NAMES, "pixels") == ""


def test_the_matrix_and_its_table() -> None:
    found = Confusion(COUNTS, NAMES, unit="pixels")
    shown = found.matrix(title="t")
    assert shown.rows == shown.columns == NAMES and shown.unit == "pixels" and not shown.note
    assert shown.counts == ((5.0, 2.0, 0.0), (7.0, 9.0, 2.0), (0.0, 0.0, 4.0))
    assert found.table(1) == [
        {"true": "car", "taken for": "road", "pixels": 7, "share of the true class": 7 / 18}
    ]
    picture = Picture("a", 0.5, cells=(Cell(1, 0, 7.0),))
    assert found.settle(picture) == picture


def test_many_classes_are_folded_into_one_row() -> None:
    """Of 100 classes each is taken for the next one n times: the last 60 are confused most."""
    classes = 100
    counts = torch.zeros(classes, classes, dtype=torch.int64)
    counts.fill_diagonal_(1)
    for number in range(classes - 1):
        counts[number, number + 1] = number
    found = Confusion(counts, [f"c{n}" for n in range(classes)], unit="pictures")
    shown = found.matrix(title="t")
    assert len(shown.rows) == MOST + 1 and shown.rows[-1] == OTHERS and shown.rows[0] == "c40"
    assert sum(map(sum, shown.counts)) == counts.sum()
    assert shown.counts[-1][0] == 39, "c39, one of the others, for c40"
    assert shown.counts[-1][-1] == 40 + sum(range(39))
    assert f"The {MOST} classes of 100" in shown.note
    settled = found.settle(Picture("a", 0.0, cells=(Cell(39, 40, 3.0), Cell(1, 2, 2.0), Cell(98, 99, 1.0))))
    assert settled.cells == (Cell(MOST, 0, 3.0), Cell(58, 59, 1.0)), "what lies among the others has no cell"
    folded = found.settle(Picture("a", 0.0, cells=(Cell(98, 99, 4.0), Cell(39, 40, 3.0), Cell(38, 40, 2.0))))
    assert folded.cells == (Cell(MOST, 0, 5.0), Cell(58, 59, 4.0)), "a cell counts a picture once"
