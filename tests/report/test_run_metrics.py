"""metrics.csv as series: what can be read of it, and what is said of the rest."""

from __future__ import annotations

from pathlib import Path

import pytest

from dvsn.report.run_metrics import Metrics, parse, read_metrics, thinned

NAN = float("nan")
HEAD = "step,train/main,epoch,val/miou\n"


def read(text: str) -> Metrics:
    return parse(text, Path("metrics.csv"))


def test_series_by_step_and_epoch() -> None:
    found = read(HEAD + "4,2.5,0,\n9,2,0,0.25\n14,1.5,1,\n19,1,1,0.5\n24,0.5,2,\n")
    assert found.series["train/main"].values == [2.5, 2, 1.5, 1, 0.5] and not found.notes
    assert found.steps_per_epoch == 10 and found.axis == "epoch"
    assert found.places(found.series["val/miou"]) == [1, 2]
    assert found.places(found.series["train/main"]) == [0.5, 1, 1.5, 2, 2.5]
    assert found.names("val/") == ["val/miou"]


def test_before_the_first_epoch_has_ended_steps_are_counted() -> None:
    found = read(HEAD + "4,2.5,0,\n9,2,0,\n")
    assert found.axis == "step" and found.places(found.series["train/main"]) == [4, 9]
    assert found.names("val/") == []


@pytest.mark.parametrize(
    ("text", "said", "left"),
    [
        (HEAD + "4,2.5,0,\n9,2,0,0.2", "line 3 was cut off", 1),
        (HEAD + "4,2.5,0,\n9,2\n14,1,0,\n", "line 3: not a step", 2),
        (HEAD + "4,2.5,0,\n9,two,0,\n14,1,0,\n", "line 3: not a step", 2),
        (HEAD + "4,2.5,0,\nx,2,0,\n", "line 3: not a step", 1),
        (HEAD + "4,nan,0,\n9,inf,0,\n14,1,0,\n", "train/main is not finite in 2 rows, first at step 4", 3),
        ("", "is empty", 0),
        ("a,b\n1,2\n", "no column named step", 0),
        (HEAD, "", 0),
    ],
)
def test_what_is_damaged_is_left_out_and_said(text: str, said: str, left: int) -> None:
    found = read(text)
    assert said in " ".join(found.notes) and bool(said) == bool(found.notes)
    assert (
        len(found.series.get("train/main", found.series.get("", read("step,a\n").series["a"])).values) == left
    )


def test_a_file_that_is_gone_or_no_text_is_said(tmp_path: Path) -> None:
    assert "is not there" in read_metrics(tmp_path).notes[0]
    (tmp_path / "metrics.csv").write_bytes(b"\xff\xfe\xff")
    assert "left out" in read_metrics(tmp_path).notes[0]


def test_a_long_curve_is_drawn_by_the_means_of_neighbours() -> None:
    assert thinned([1, 2, 3, 4, 5], [1, 3, NAN, 5, 7], most=3) == ([2, 4, 5], [2, 5, 7])
    assert thinned([1, 2], [NAN, 1], most=3) == ([1, 2], [None, 1])
