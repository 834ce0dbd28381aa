"""A report.csv as the source of pictures and page."""

from __future__ import annotations

from pathlib import Path

import pytest

from dvsn.errors import DataError
from dvsn.report import command, kept
from tests.support.hand_made_runs import write_run

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


def test_what_a_report_wrote_is_read_back(tmp_path: Path) -> None:
    for number, (method, seed, score) in enumerate(
        ((None, 0, 0.69), (None, 1, 0.71), ("kd", 0, 0.74), ("kd", 1, 0.76), ("at", 0, float("nan")))
    ):
        write_run(tmp_path, number, method, score, seed=seed)
    command.report(tmp_path)
    before = {name: (tmp_path / name).read_bytes() for name in ("report.csv", "report.txt")}
    (section,) = kept.read(tmp_path / "report.csv")
    assert [(row.method, row.seeds, row.collapsed, row.alone) for row in section.rows] == [
        ("kd", 2, 0, False), ("student alone", 2, 0, True), ("at", 1, 1, False)
    ]  # fmt: skip
    kd = section.rows[0]
    assert kd.last.mean == pytest.approx(0.75) and kd.last.deviation == pytest.approx(0.0141421, abs=1e-6)
    assert kd.comparison is not None and kd.comparison.p == 0.5 and section.teacher == pytest.approx(0.8)
    text = command.report(tmp_path / "report.csv")
    assert "From a kept report.csv" in text and "nothing was tested" not in text
    assert before == {name: (tmp_path / name).read_bytes() for name in before}


def test_the_experiments_are_drawn_from_what_is_kept() -> None:
    """As they were written before there were tests and marks: wttm has collapsed, and nothing else."""
    (section,) = kept.read(EXPERIMENTS / "distill_cifar10" / "report.csv")
    assert len(section.rows) == 25 and [row.method for row in section.rows if row.collapsed] == ["wttm"]
    assert section.alone == pytest.approx(0.4279, abs=1e-4) and section.sign == 1.0
    assert "any gain may be chance" in section.notes[-1]
    (nme,) = kept.read(EXPERIMENTS / "distill_tasks" / "landmarks.csv")
    assert nme.sign == -1.0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not the report.csv of a sweep; it has no column setting, monitor"),
        ("step,train/loss\n1,2\n", "is not the report.csv of a sweep"),
        ("setting,monitor,teacher,method,weight,seeds,last_mean,last_deviation\n", "has no rows"),
        (
            "setting,monitor,teacher,method,weight,seeds,last_mean,last_deviation\n,val/top1,,kd,1,3,high,\n",
            "line 2: last_mean: found 'high', expected a number or nothing",
        ),
        (
            "setting,monitor,teacher,method,weight,seeds,last_mean,last_deviation\n,val/top1,,kd,1,3,0.",
            "line 2: has 7 columns, expected 8",
        ),
        ("setting,monitor\n" + "x" * 200_000 + ",y\n", "line 2: field larger than field limit"),
    ],
)
def test_another_file_is_refused(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "report.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        kept.read(tmp_path / "report.csv")
