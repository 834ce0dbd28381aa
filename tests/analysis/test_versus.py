"""Student and teacher, by hand."""

from __future__ import annotations

import pytest
import torch

from dvsn.analysis.record import Picture
from dvsn.analysis.versus import Versus, apart


def test_who_alone_is_right() -> None:
    """Class 0: both, student, teacher, neither (the same), neither (another); class 2: both."""
    truth = torch.tensor([0, 0, 0, 0, 0, 2])
    student = torch.tensor([0, 0, 1, 1, 1, 2])
    teacher = torch.tensor([0, 2, 0, 1, 2, 2])
    found = Versus(3)
    assert found.add(truth, student, teacher) == pytest.approx(
        {"only_student": 1 / 6, "only_teacher": 1 / 6, "same_answer": 3 / 6}
    )
    assert found.counts.tolist() == [[2, 1, 1, 1, 2], [0] * 5, [0, 0, 0, 1, 1]]
    found.close(lambda own: [own, own])  # two processes that saw the same
    rows = found.table(("a", "b", "c"), "pixels")
    assert [row["class"] for row in rows] == ["a", "c", "all"], "b is nowhere"
    assert rows[0] == {
        "class": "a", "student": 2 / 5, "teacher": 2 / 5, "same answer": 2 / 5, "only the student": 2,
        "only the teacher": 2, "pixels": 10,
    }  # fmt: skip
    assert rows[-1]["pixels"] == 12 and rows[-1]["student"] == 3 / 6


def test_nothing_to_compare() -> None:
    empty = torch.zeros(0, dtype=torch.uint8)
    assert set(Versus(2).add(empty, empty, empty).values()) == {0.0}
    assert apart([Picture("a", 0.1)], "miou", "more") == {}


@pytest.mark.parametrize(("better", "who"), [("more", "teacher"), ("less", "student")])
def test_the_pictures_on_which_they_differ_most(better: str, who: str) -> None:
    pictures = [
        Picture("a", 0.1, {"teacher": 0.2}),
        Picture("b", 0.1, {"teacher": 0.9}),
        Picture("same", 0.5, {"teacher": 0.50001}),
        Picture("none", float("nan"), {"teacher": 0.5}),
    ]
    tables = apart(pictures, "miou", better)
    assert list(tables) == [f"pictures on which the {who} is better"]
    rows = tables[f"pictures on which the {who} is better"]
    assert rows[0] == {"picture": "b", "miou of the student": 0.1, "miou of the teacher": 0.9}
    assert [row["picture"] for row in rows] == ["b", "a"]
