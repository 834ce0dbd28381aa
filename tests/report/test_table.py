"""The tables and files of reports, by hand."""

from __future__ import annotations

import csv
from pathlib import Path

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


def test_names_are_no_markup() -> None:
    table = Table("a|b", ["name"], [["<b>x</b> | `y`"], ["two\nlines"]])
    assert table.markdown()[0] == r"**a\|b**"
    assert table.markdown()[-2:] == [r"| \<b\>x\</b\> \| \`y\` |", "| two lines |"]


def test_a_report_is_written_in_all_its_forms(tmp_path: Path) -> None:
    rows = [{"name": "a, b", "top1": 0.5}, {"name": 'c "d"', "top1": None}]
    report = Report("report", "text\n", "**text**\n", rows, {"report.png": b"picture"})
    assert report.write(tmp_path / "new") == "text\n"
    files = {file.name: file for file in (tmp_path / "new").iterdir()}
    assert sorted(files) == ["report.csv", "report.md", "report.png", "report.txt"]
    with files["report.csv"].open(newline="") as file:
        assert list(csv.DictReader(file)) == [{"name": "a, b", "top1": "0.5"}, {"name": 'c "d"', "top1": ""}]
    assert files["report.md"].read_text() == "**text**\n" and files["report.png"].read_bytes() == b"picture"
