"""Curves of many runs: read, chosen and thinned."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from dvsn.report import curves
from dvsn.report.curves import Curves
from tests.support.hand_made_runs import write_metrics


def test_a_run_that_was_cut_off_keeps_its_whole_lines(tmp_path: Path) -> None:
    write_metrics(tmp_path, "val/top1", 0.5, 30)
    whole = curves.read(tmp_path, "kd")
    assert not whole.notes and whole.columns["val/top1"] == [
        (10.0, pytest.approx(0.5 / 3, abs=1e-6)), (20.0, pytest.approx(1 / 3, abs=1e-6)), (30.0, 0.5)
    ]  # fmt: skip
    text = (tmp_path / "metrics.csv").read_text()
    (tmp_path / "metrics.csv").write_text(text[: text.rindex("0.5") + 1])
    cut = curves.read(tmp_path, "kd")
    assert len(cut.columns["val/top1"]) == 2 and "line 31 was cut off" in cut.notes[0]
    assert "is not there" in curves.read(tmp_path / "none", "kd").notes[0]


def test_the_score_comes_first() -> None:
    one = Curves(
        "a", {"val/miou": [(1, 1)], "train/loss": [(1, 1)], "system/lr": [(1, 1)], "val/dice": [(1, 1)]}
    )
    two = Curves("b", {"val/miou": [(1, 1)], "train/loss": [(1, 1)]})
    assert curves.chosen([one, two], "val/miou") == ["val/miou", "train/loss", "val/dice"]
    assert curves.chosen([two], "val/top1") == ["train/loss", "val/miou"] and curves.chosen([], "x") == []


def test_thinning_keeps_both_ends_and_every_spike() -> None:
    points = [(float(step), math.sin(step / 50)) for step in range(1000)]
    points[617] = (617.0, 9.0)
    points[333] = (333.0, -9.0)
    thin = curves.thinned(points, 40)
    assert len(thin) <= 40 and thin[0] == points[0] and thin[-1] == points[-1] and thin == sorted(thin)
    assert points[617] in thin and points[333] in thin and set(thin) <= set(points)
    assert curves.thinned(points[:40], 40) == points[:40]


def test_five_hundred_runs_stay_within_a_page() -> None:
    assert 500 * 2 * curves.allowance(500, 2) <= curves.POINTS
    assert curves.allowance(1, 1) == curves.MOST and curves.allowance(100_000, 6) == curves.LEAST
