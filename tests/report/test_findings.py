"""What an evaluation found as parts of a page: by a small matrix and table, counted by hand."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from dvsn.analysis import record
from dvsn.analysis.record import Chart, Curve, Matrix
from dvsn.report import findings, html
from tests.support.run_folders import CLASSES, COUNTS, write_analysis

MATRIX = Matrix("confusion", "Confusion", CLASSES, CLASSES, COUNTS, unit="pixels")


def held(markup: str) -> dict[str, object]:
    found = re.search(r'<script type="application/json"[^>]*>(.*?)</script>', markup)
    assert found is not None
    content: dict[str, object] = json.loads(found[1])
    return content


def test_confusions_are_what_is_off_the_diagonal() -> None:
    found = findings.confusions(MATRIX)
    assert [(each.row, each.column, each.count, each.share) for each in found] == [
        (1, 2, 40, 0.4), (0, 2, 10, 0.1), (2, 0, 5, 0.05)
    ]  # fmt: skip


def test_classes_are_sorted_by_their_confusion() -> None:
    """Of class 0: 10 + 5, of class 1: 40, of class 2: 40 + 10 + 5."""
    assert findings.by_confusion(MATRIX) == ([2, 1, 0], [2, 1, 0])
    wide = Matrix("m", "m", ("a", "b"), ("a", "b", "nothing"), ((1, 2, 0), (0, 5, 9)))
    assert findings.by_confusion(wide) == ([1, 0], [2, 1, 0])
    assert not findings.is_right(wide, 0, 2) and findings.is_right(wide, 1, 1)


def test_classes_that_are_nowhere_are_left_out() -> None:
    some = Matrix("m", "m", ("a", "gone", "b"), ("a", "gone", "b"), ((1, 0, 2), (0, 0, 0), (0, 0, 0)))
    box, said, *_ = findings.matrix(some, (), {})
    assert held(box)["sorted"] == [[0, 2], [0, 2]] and "Neither there nor predicted: gone." in said
    nothing = Matrix("m", "m", ("a",), ("a",), ((0,),))
    assert findings.absent(nothing) == [] and held(findings.matrix(nothing, (), {})[0])["given"] == [[0], [0]]


def test_of_many_classes_the_most_confused_are_drawn() -> None:
    """Of 300 classes the last is confused most, with the first; without the others the page stays small."""
    names = tuple(f"class {number}" for number in range(300))
    counts = tuple(
        tuple(9.0 if row == column else float(row) if column == 0 else 0.0 for column in range(300))
        for row in range(300)
    )
    said, box, *_ = findings.matrix(Matrix("m", "m", names, names, counts), (), {})
    content = held(box)
    rows, columns = content["sorted"]  # type: ignore[misc]
    assert rows == columns and rows[:3] == [0, 299, 298] and len(rows) == findings.LARGEST
    assert content["counts"]["299-0"] == 299 and "0-299" not in content["counts"]  # type: ignore[index,operator]
    assert content["totals"][299] == 308 and len(box) < 30_000 and "The 200 most confused" in said  # type: ignore[index]


def test_a_matrix_knows_the_pictures_behind_its_cells(tmp_path: Path) -> None:
    analysis = record.read(write_analysis(tmp_path))
    box, head, table = findings.matrix(MATRIX, analysis.pictures, {0: "picture-0"})
    content = held(box)
    assert content["cells"] == {"1-2": [4, [[0, 10.0], [3, 40.0], [2, 30.0], [1, 20.0]]]}, (
        "first what is shown"
    )
    assert content["pictures"] == {
        "0": ["town_0", "picture-0"],
        **{str(n): [f"town_{n}", ""] for n in (1, 2, 3)},
    }
    assert content["sorted"] == [[2, 1, 0], [2, 1, 0]] and content["given"] == [[0, 1, 2], [0, 1, 2]]
    assert (
        "Largest confusions" in head
        and '<a href="#confusion-1-2">&lt;b&gt;person' in table
        and "40.0 %" in table
    )


def test_bars_stand_for_shares_or_for_the_largest_number() -> None:
    text = findings.table(
        [
            {"class": "a", "iou": 0.5, "pixels": 50, "gain": -1.0},
            {"class": "b", "iou": None, "pixels": 200, "gain": 2.0},
        ]
    )
    assert re.findall(r"width:([\d.]+)%", text) == ["50.0", "25.0", "100.0"]
    assert html.NOTHING in text


def test_charts_are_drawn_by_their_kind() -> None:
    line = held(
        findings.chart(
            Chart("a", "A", "x", "y", (Curve("c", (0.0, 0.5), (0.25, None)),), "steps", diagonal=True)
        )
    )
    curve, diagonal = line["data"]  # type: ignore[misc]
    assert curve["line"]["shape"] == "hv" and curve["y"] == [0.25, None]
    assert diagonal["x"] == diagonal["y"] == [0.0, 0.5]
    bars = findings.chart(
        Chart("b", "B", "x", "y", (Curve("c", ("<b>", "d"), (1.0, 2.0)),), "bars", note="<how>")
    )
    (bar,) = held(bars)["data"]  # type: ignore[misc]
    assert bar["type"] == "bar" and bar["x"] == ["&lt;b&gt;", "d"] and "&lt;how&gt;" in bars


def test_pictures_are_shown_by_folder_and_missing_ones_said(tmp_path: Path) -> None:
    path = write_analysis(tmp_path)
    (path.parent / "worst" / "0002_town_1.jpg").unlink()
    shown = findings.pictures(record.read(path), path.parent)
    assert [title for title, _ in shown.galleries] == ["Worst pictures", "Best pictures"]
    assert shown.anchors == {0: "picture-0", 3: "picture-3"}
    assert len(shown.notes) == 1 and "0002_town_1.jpg" in shown.notes[0]
    worst = shown.galleries[0][1]
    assert 'id="picture-0"' in worst and "miou 0.1; accuracy 0.5; &lt;i&gt;person" in worst


def test_a_long_list_keeps_the_worst_and_the_best(tmp_path: Path) -> None:
    analysis = record.read(write_analysis(tmp_path, pictures=findings.LISTED + 50))
    words, table = findings.listing(analysis, {})
    assert "500 of 550 pictures" in words and table.count("<tr>") == 501
    assert ">town_0<" in table and ">town_549<" in table and ">town_420<" not in table
    assert "customdata" in findings.spread_of_scores(analysis)


def test_many_curves_can_be_told_apart_and_their_legend_fits() -> None:
    """The second round of colours is dashed; on a phone twelve long names stand one below the other, 19 pixels each."""
    curves = tuple(Curve(f"a class with a long name {n}", (0.0, 1.0), (0.0, float(n))) for n in range(12))
    title = "A title that is longer than a phone is wide, so it has two lines"
    drawn = str(findings.chart(Chart("k", title, "x", "y", curves)))
    content: Any = held(drawn)
    lines = [(trace["line"]["color"], trace["line"]["dash"]) for trace in content["data"]]
    assert len(set(lines)) == 12 and lines[10] == (lines[0][0], "dash")
    shown = content["layout"]["title"]["text"].split("<br>")
    assert max(map(len, shown)) <= 40 and " ".join(shown) == title
    height = re.search(r"height:\s*(\d+)px", drawn)
    assert height is not None and int(height[1]) >= 340 + 12 * 19


def test_an_axis_of_zeros_does_not_go_below_them() -> None:
    for y in ((0.0, 0.0), (None, None)):
        content: Any = held(str(findings.chart(Chart("k", "t", "x", "y", (Curve("a", (0.0, 1.0), y),)))))
        assert content["layout"]["yaxis"]["range"] == [0, 1]
    content = held(str(findings.chart(Chart("k", "t", "x", "y", (Curve("a", (0.0, 1.0), (0.0, 2.0)),)))))
    assert "range" not in content["layout"]["yaxis"]
