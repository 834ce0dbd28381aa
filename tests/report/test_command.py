"""The report of a sweep by hand-made runs, and sweeps that are repeated."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import cv2
import pytest

from dvsn.errors import ConfigError, DataError
from dvsn.report import command as report
from dvsn.report import ranking, runs
from dvsn.sweep import job
from tests.support.hand_made_runs import write_run


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    write_run(tmp_path, 0, None, 0.69, seed=0)
    write_run(tmp_path, 1, None, 0.71, seed=1)
    write_run(tmp_path, 2, "kd", 0.74, seed=0)
    write_run(tmp_path, 3, "kd", 0.76, seed=1)
    write_run(tmp_path, 4, "at", 0.68)
    (tmp_path / "5").mkdir()
    (tmp_path / "5" / "config.yaml").write_text("seed: 0")
    return tmp_path


def test_the_table_by_hand(sweep: Path) -> None:
    """Alone 0.70, kd 0.75: gains 0.05 of the 0.10 to the teacher."""
    text = report.report(sweep)
    rows = list(csv.DictReader((sweep / "report.csv").open()))
    assert [row["method"] for row in rows] == ["kd", runs.ALONE, "at"]
    kd, alone, at = rows
    assert kd["seeds"] == "2" and float(kd["last_mean"]) == pytest.approx(0.75)
    assert float(kd["last_deviation"]) == pytest.approx(0.0141421, abs=1e-6) and at["last_deviation"] == ""
    assert float(kd["best_mean"]) == pytest.approx(0.76) and float(kd["gain"]) == pytest.approx(0.05)
    assert float(kd["gap_closed"]) == pytest.approx(0.5) and float(at["gap_closed"]) == pytest.approx(-0.2)
    assert alone["gain"] == "" and kd["weight"] == "0.5" and float(kd["epoch_seconds"]) == 2
    assert "0.7500 +- 0.0141" in text and "+0.0500" in text and "50 %" in text and "teacher 0.8000" in text
    assert (
        "1 run without a result, still running, killed or failed: 5." in text
        and (sweep / "report.txt").read_text() == text
    )
    assert "| kd | 0.5 | 2 | 0.7500 ± 0.0141 |" in (sweep / "report.md").read_text()
    assert kd["pairs"] == "2" and float(kd["p"]) == 0.5 and kd["verdict"] == "may be chance"
    assert at["pairs"] == "1" and at["p"] == "" and at["verdict"] == "may be chance"
    assert "2 pairs of seeds p cannot be below 0.5" in text
    picture = cv2.imread(str(sweep / "report.png"))
    assert picture.shape[2] == 3 and 0 < (picture < 250).mean() < 0.3


def test_less_may_be_better_and_the_teacher_may_be_told(tmp_path: Path) -> None:
    write_run(tmp_path, 0, None, 4.0, mode="min")
    write_run(tmp_path, 1, "kd", 3.0, mode="min")
    (section,) = ranking.sections(runs.read_runs(tmp_path).runs, teacher=2.0)
    assert [row.method for row in section.rows] == ["kd", runs.ALONE]
    assert section.rows[0].gain == 1.0 and section.rows[0].share == 0.5


def test_other_students_have_a_table_of_their_own(sweep: Path) -> None:
    write_run(sweep, 6, "kd", 0.9, network={"depth": 20})
    write_run(sweep, 7, "kd", 0.8, teacher="u.ckpt")
    found = ranking.sections(runs.read_runs(sweep).runs)
    titles = {section.title: [row.method for row in section.rows] for section in found}
    assert titles == {
        'network.depth=8, teacher="t.ckpt"': ["kd", runs.ALONE, "at"],
        'network.depth=20, teacher="t.ckpt"': ["kd"],
        'network.depth=8, teacher="u.ckpt"': ["kd", runs.ALONE],
    }


def test_options_set_rows_apart_and_nulls_do_not(tmp_path: Path) -> None:
    write_run(tmp_path, 0, None, 0.70)
    for number, beta, score in ((1, 8.0, 0.72), (2, 2.0, 0.76), (3, 2.0, 0.74)):
        node = {"weight": 0.5, "method": {"alpha": 1.0, "beta": beta}}
        more = {"distillation": {"size": None, "measure": False} if number == 3 else {"size": None}}
        write_run(tmp_path, number, "dkd", score, seed=number, distill={"dkd": node}, **more)
    (section,) = ranking.sections(runs.read_runs(tmp_path).runs)
    assert [(row.method, row.seeds) for row in section.rows] == [
        ("dkd beta=2.0", 2), ("dkd beta=8.0", 1), (runs.ALONE, 1)
    ]  # fmt: skip
    assert section.rows[0].gain == pytest.approx(0.05)


@pytest.mark.parametrize(
    ("config", "result"),
    [
        ("task: 3\nmonitor: val/miou\n", '{"metrics": {}}'),
        ("monitor: {name: x}\n", '{"metrics": 3}'),
        ("monitor: {name: x}\n", '{"metrics": {"x": "high"}}'),
        ("monitor: {name: x}\n", "[1]"),
        ("[1, 2]\n", "{}"),
        ("monitor: {name: x}\nseed: many\n", '{"metrics": {"x": 1.0}}'),
        ("monitor: {name: x}\ndistill: {kd: 3}\n", '{"metrics": {"x": 1.0}}'),
        ("monitor: {name: x}\n", '{"metrics": {"y": 1.0}}'),
    ],
)
def test_a_damaged_run_is_named_and_the_others_are_reported(config: str, result: str, tmp_path: Path) -> None:
    write_run(tmp_path, 0, "kd", 0.7)
    damaged = tmp_path / "1"
    damaged.mkdir()
    (damaged / "config.yaml").write_text(config)
    (damaged / "result.json").write_text(result)
    found = runs.read_runs(tmp_path)
    assert [run.method for run in found.runs] == ["kd"]
    (note,) = found.notes
    assert re.match(rf"^{re.escape(str(damaged))}: its config.yaml or result.json is not as", note)


def test_a_sweep_of_damaged_runs(tmp_path: Path) -> None:
    for number in range(2):
        (write_run(tmp_path, number, "kd", 0.7) / "result.json").write_text("{")
    with pytest.raises(
        DataError, match=r"no run below it can be read: .*0/result\.json: not a JSON file .* and 1 more"
    ):
        report.report(tmp_path)
    with pytest.raises(ConfigError, match="teacher, latency: are for the report of a sweep"):
        report.report(tmp_path / "0", teacher=0.5)


def test_nothing_to_report_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        report.report(tmp_path / "none")
    with pytest.raises(DataError, match="no finished run below it"):
        report.report(tmp_path)


def test_a_job_of_an_earlier_sweep_is_found_by_its_overrides(tmp_path: Path) -> None:
    for number, overrides in ((0, ["distill=kd", "seed=0"]), (3, ["distill=at", "seed=0"])):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "job.json").write_text(json.dumps({"overrides": overrides}))
    find = job.find_place
    assert (
        find(tmp_path, 5, ["seed=0", "distill=at", "sweep.skip_finished=true", "hydra.sweep.dir=x"]).name
        == "3"
    )
    assert find(tmp_path, 0, ["seed=1", "distill=at"]).name == "1"  # 0 is taken, by another job
    assert find(tmp_path, 7, ["seed=1", "distill=at"]).name == "7"
