"""The still pictures of a sweep: read from the SVG, whose text is text."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dvsn.report import sweep_plot
from dvsn.report.ranking import sections
from dvsn.report.runs import read_runs
from tests.support.hand_made_runs import write_run


def texts(svg: bytes) -> list[str]:
    return re.findall(r"<text[^>]*>([^<]*)</text>", svg.decode())


def test_names_axes_lines_and_collapsed_runs_are_drawn(tmp_path: Path) -> None:
    for number, (method, seed, score) in enumerate(
        (("kd", 0, 0.74), ("kd", 1, 0.76), (None, 0, 0.69), (None, 1, 0.71), ("at <b>$x$", 0, float("nan")))
    ):
        write_run(tmp_path, number, method, score, seed=seed, result={"epoch_seconds": 1.0 + number})
    made = sections(read_runs(tmp_path).runs)
    found = sweep_plot.pictures(made)
    assert sorted(found) == ["report.png", "report.svg", "report_cost.png", "report_cost.svg"]
    shown = texts(found["report.svg"])
    assert shown[0] != "" and {"kd, 0.5", "student alone", "at &lt;b&gt;$x$, 0.5", "alone", "teacher"} <= set(
        shown
    )
    assert "val/top1 (share, 0 to 1), last epoch" in shown and "collapsed: no finite score" in shown
    assert "0.7500 ± 0.0141" in shown
    costs = texts(found["report_cost.svg"])
    assert "training time, seconds an epoch" in costs and "green: the Pareto front; 1 rows unknown" in costs
    assert "kd" in costs


def test_equal_costs_are_not_drawn_and_many_rows_are_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep_plot, "MOST_ROWS", 2)
    for number in range(5):
        write_run(
            tmp_path, number, "kd", 0.5 + number / 1000, distill={"kd": {"weight": number, "method": {}}}
        )
    found = sweep_plot.pictures(sections(read_runs(tmp_path).runs))
    assert sorted(found) == ["report.png", "report.svg"]
    shown = texts(found["report.svg"])
    assert "val/top1 (share, 0 to 1), last epoch; 3 further rows are in the table" in shown
    assert "kd, 4" in shown and "kd, 2" not in shown  # the best are there
