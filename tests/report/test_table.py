"""The table and the painter of reports, by hand."""

from __future__ import annotations

import csv
from pathlib import Path

import cv2
import numpy as np
import pytest

from dvsn.report.painter import BLUE, Axis, Canvas
from dvsn.report.table import Report, Table


def test_a_table_by_hand() -> None:
    table = Table(
        "scores",
        ["name", "top1"],
        [["kd", "0.5 +- 0.1"], ["none", "-"]],
        left=frozenset((0,)),
        notes=["note"],
    )
    assert table.text() == [
        "scores",
        "  name        top1",
        "  kd    0.5 +- 0.1",
        "  none           -",
        "note",
    ]
    assert table.markdown() == [
        "**scores**",
        "",
        "| name | top1 |",
        "|---|---:|",
        "| kd | 0.5 ± 0.1 |",
        "| none | - |",
    ]
    assert Table("empty", ["a"], []).text() == ["empty", "  a"]


def test_a_report_is_written_in_all_its_forms(tmp_path: Path) -> None:
    picture = np.full((4, 6, 3), (250, 10, 20), np.uint8)
    rows = [{"name": "a, b", "top1": 0.5}, {"name": 'c "d"', "top1": None}]
    report = Report("report", "text\n", "**text**\n", rows, picture)
    assert report.write(tmp_path / "new") == "text\n"
    files = {file.name: file for file in (tmp_path / "new").iterdir()}
    assert sorted(files) == ["report.csv", "report.md", "report.png", "report.txt"]
    with files["report.csv"].open(newline="") as file:
        assert list(csv.DictReader(file)) == [{"name": "a, b", "top1": "0.5"}, {"name": 'c "d"', "top1": ""}]
    assert files["report.md"].read_text() == "**text**\n"
    assert (cv2.imread(str(files["report.png"]))[:, :, ::-1] == picture).all()
    Report("other", "", "").write(tmp_path)
    assert not (tmp_path / "other.png").exists()


@pytest.mark.parametrize(
    ("values", "start", "length", "value", "pixel"),
    [
        ([0.0, 1.0], 100, 116, 0.0, 108),  # a margin of 0.08 at both ends: 1.16 over 116 pixels
        ([0.0, 1.0], 100, 116, 1.0, 208),
        ([0.0, 1.0], 200, -116, 1.0, 92),  # upwards
        ([5.0], 0, 100, 5.0, 50),  # one value stands in the middle
        ([0.0, 0.0], 0, 100, 0.0, 50),
    ],
)
def test_places_on_an_axis(values: list[float], start: int, length: int, value: float, pixel: int) -> None:
    assert Axis(values, start, length)(value) == pixel


def test_a_dot_is_drawn_where_it_is_asked_for() -> None:
    canvas = Canvas(20, 30)
    canvas.dot((21, 8), BLUE, 2, filled=True)
    assert tuple(canvas.pixels[8, 21]) == BLUE
    rows, columns = np.nonzero((canvas.pixels < 250).any(axis=2))
    assert (rows.mean(), columns.mean()) == (8, 21)
