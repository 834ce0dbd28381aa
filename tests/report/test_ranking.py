"""Sections, rows and collapsed runs, by hand-made runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from dvsn.report.collapsed import why_collapsed
from dvsn.report.ranking import limits, sections, unit
from dvsn.report.runs import Found, natural, read_runs
from dvsn.report.sweep_table import report
from tests.support.hand_made_runs import write_run


def test_without_distillation_the_settings_are_compared(tmp_path: Path) -> None:
    """Four runs of two networks: rows by what tells the jobs apart, whatever their seeds."""
    for number, (name, seed, score) in enumerate(
        (("unet", 0, 0.5), ("unet", 1, 0.6), ("hrnet", 0, 0.7), ("hrnet", 1, 0.72))
    ):
        words = [f"network={name}", "task=segmentation", f"seed={seed}", f"data.seed={seed}"]
        write_run(
            tmp_path, number, None, score, seed=seed, network={"name": name}, teacher=None, overrides=words
        )
    (section,) = sections(read_runs(tmp_path).runs)
    assert [(row.method, row.seeds, row.alone) for row in section.rows] == [
        ("network=hrnet", 2, False), ("network=unet", 2, False)
    ]  # fmt: skip
    assert section.reference == "network=hrnet" and section.alone is None
    tested = section.rows[1].comparison
    assert tested is not None and tested.pairs == 2 and tested.difference == pytest.approx(-0.16)
    text = report([section], Found()).text
    assert "Compared with network=hrnet, 1 of 1 rows differs by what may be chance" in text
    assert (
        "First and second (network=hrnet; network=unet) differ by 0.1600; 2 pairs of seeds, p = 0.5" in text
    )


def test_folds_are_runs_of_one_row_and_pair_by_seed_and_fold(tmp_path: Path) -> None:
    """Two rates, each with two folds of seed 0 and one of seed 1; an older run without folds is another setting."""
    turns = ((0, 0, 0.5), (0, 1, 0.7), (1, 0, 0.6))
    for place, (rate, gain) in enumerate(((0.1, 0.0), (0.2, 0.1))):
        for number, (seed, fold, score) in enumerate(turns):
            words = [f"optim.lr={rate}", f"seed={seed}", f"data.fold={fold}"]
            write_run(
                tmp_path, f"{place}_{number}", None, score + gain, seed=seed, optim={"lr": rate}, teacher=None,
                data={"root": "r", "seed": seed, "fold": fold, "folds": 2}, overrides=words,
            )  # fmt: skip
    (section,) = sections(read_runs(tmp_path).runs)
    assert [(row.method, row.seeds, row.last.mean) for row in section.rows] == [
        ("optim.lr=0.2", 3, pytest.approx(0.7)), ("optim.lr=0.1", 3, pytest.approx(0.6))
    ]  # fmt: skip
    tested = section.rows[1].comparison
    assert tested is not None and tested.pairs == 3 and tested.difference == pytest.approx(-0.1)
    assert sorted(dot.name for dot in section.rows[0].dots) == [
        "seed 0, fold 0",
        "seed 0, fold 1",
        "seed 1, fold 0",
    ]
    write_run(
        tmp_path,
        "old",
        None,
        0.5,
        optim={"lr": 0.2},
        teacher=None,
        data={"root": "r", "fold": None, "folds": 5},
    )
    assert len(sections(read_runs(tmp_path).runs)) == 2
    old = next(run for run in read_runs(tmp_path).runs if run.fold is None)
    assert old.setting["data"] == {"root": "r"}  # as it was before there were folds


def test_runs_without_a_job_are_named_by_their_options(tmp_path: Path) -> None:
    for number, rate in enumerate((0.1, 0.2)):
        write_run(tmp_path, number, None, 0.5 + rate, optim={"lr": rate}, teacher=None)
    (section,) = sections(read_runs(tmp_path).runs)
    assert [row.method for row in section.rows] == ["optim.lr=0.2", "optim.lr=0.1"]
    write_run(tmp_path, 2, None, 0.9, optim={"lr": 0.2}, teacher=None, loss={"a": 1, "b": 2, "c": 3, "d": 4})
    (section,) = sections(read_runs(tmp_path).runs)
    assert (
        section.rows[0].method == "optim.lr=0.2 loss.a=1 loss.b=2 and 2 more"
        or "more" in section.rows[0].method
    )


def test_tasks_scores_and_data_have_sections_of_their_own(tmp_path: Path) -> None:
    write_run(tmp_path, 0, None, 0.7, name="first")
    write_run(tmp_path, 1, None, 0.1, monitor="val/nme", mode="min", name="second")
    write_run(tmp_path, 2, None, 0.6, data={"root": "other", "seed": 3}, name="third")
    write_run(tmp_path, 3, None, 0.5, task={"_target_": "dvsn.tasks.pose.Pose"}, name="fourth")
    found = sections(read_runs(tmp_path).runs)
    assert [(each.monitor, each.task, each.title, each.sign) for each in found] == [
        ("val/top1", "", "", 1.0), ("val/nme", "", "", -1.0), ("val/top1", "", 'data.root="other"', 1.0),
        ("val/top1", "Pose", "", 1.0),
    ]  # fmt: skip
    assert len({each.arena for each in found}) == 4
    assert [each.rows[0].method for each in found] == ["first", "second", "third", "fourth"]


def test_collapsed_runs_are_marked_and_said(tmp_path: Path) -> None:
    for number, (method, seed, score) in enumerate(
        (("kd", 0, 0.70), ("kd", 1, float("nan")), ("at", 0, 0.10), ("at", 1, 0.71), ("sp", 0, float("inf")),
         (None, 0, 0.69), (None, 1, 0.71))
    ):  # fmt: skip
        write_run(tmp_path, number, method, score, seed=seed, data={"classes": 10})
    (section,) = sections(read_runs(tmp_path).runs)
    rows = {row.method: row for row in section.rows}
    assert {name: row.collapsed for name, row in rows.items()} == {
        "kd": 1,
        "at": 1,
        "sp": 1,
        "student alone": 0,
    }
    assert rows["kd"].last.mean == 0.70 and rows["kd"].seeds == 2  # the mean of what is finite
    assert rows["at"].last.mean == pytest.approx(0.405)  # a finite one counts
    assert section.rows[-1].method == "sp" and rows["sp"].last.mean is None and rows["sp"].gain is None
    text = report([section], Found()).text
    assert "1 of 2 collapsed" in text and "at, 0.5, seed 0: no better than guessing, 0.1" in text
    assert "kd, 0.5, seed 1: no finite score" in text


def test_a_student_alone_is_judged_in_each_of_its_sections(tmp_path: Path) -> None:
    """0.5 is far below five scores of 0.7, and in the middle of five of 0.5."""
    write_run(tmp_path, 0, None, 0.5)
    for number in range(10):
        score, teacher = (0.7, "t.ckpt") if number < 5 else (0.5, "u.ckpt")
        write_run(tmp_path, 1 + number, "kd", score, seed=number, teacher=teacher)
    high, low = sections(read_runs(tmp_path).runs)
    said = [[run.collapsed for row in each.rows if row.alone for run in row.runs] for each in (high, low)]
    assert said == [["29 deviations from the median 0.7"], [""]]


def test_what_counts_as_collapsed() -> None:
    """Median 0.70; absolute deviations 0.02, 0.01, 0, 0.01, 0.02, so that five deviations are 5 * 1.4826 * 0.01."""
    known = [0.68, 0.69, 0.70, 0.71, 0.72]
    assert not why_collapsed(0.70 - 0.074, known, sign=1.0)
    assert why_collapsed(0.70 - 0.0742, known, sign=1.0) == "5 deviations from the median 0.7"
    assert not why_collapsed(0.9, known, sign=1.0)  # far on the good side
    assert not why_collapsed(0.0, known[:4], sign=1.0)  # four are too few to judge by
    assert why_collapsed(0.9, [-each for each in known], sign=-1.0)  # less is better
    assert not why_collapsed(
        0.68, [0.7] * 6, sign=1.0
    )  # equal scores: one percent of the median counts as usual
    assert why_collapsed(0.66, [0.7] * 6, sign=1.0)
    assert why_collapsed(None, [], sign=1.0) == "no finite score"
    assert why_collapsed(0.109, [], sign=1.0, chance=0.1) and not why_collapsed(
        0.111, [], sign=1.0, chance=0.1
    )


def test_the_axis_leaves_collapsed_runs_out(tmp_path: Path) -> None:
    for number, score in enumerate((0.70, 0.71, 0.72, 0.70, 0.71, 0.10)):
        write_run(tmp_path, number, "kd" if number < 5 else "at", score, seed=number)
    (section,) = sections(read_runs(tmp_path).runs)
    low, high = limits(section, section.rows)
    assert 0.68 < low < 0.70 and 0.8 < high < 0.81  # the teacher has 0.8


def test_names_of_units_and_of_folders() -> None:
    assert unit("val/psnr") == "dB" and unit("val/miou") == "share, 0 to 1" and unit("val/own") == ""
    assert sorted(["run/10", "run/9", "run/a"], key=natural) == ["run/9", "run/10", "run/a"]


def test_the_best_of_each_setting_comes_first(tmp_path: Path) -> None:
    for number, (rate, method, score) in enumerate(
        ((0.1, None, 0.5), (0.1, "kd", 0.6), (0.2, None, 0.7), (0.2, "kd", 0.65), (0.3, "kd", float("nan")))
    ):
        write_run(tmp_path, number, method, score, optim={"lr": rate})
    made = sections(read_runs(tmp_path).runs)
    text = report(made, Found()).text
    assert [line.split() for line in text.splitlines()[:4]] == [
        ["The", "best", "row", "of", "each", "of", "3", "settings", "by", "val/top1"],
        ["setting", "best", "row", "seeds", "last", "gain", "verdict"],
        ["optim.lr=0.2", "student", "alone", "1", "0.7000", "-", "-"],
        ["optim.lr=0.1", "kd,", "0.5", "1", "0.6000", "+0.1000", "may", "be", "chance"],
    ]
    assert "nothing can be tested" in text
