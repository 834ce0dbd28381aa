"""What a run says at its end: tables of its scores and classes, and where its time went."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from dvsn.engine.scores import Scores
from dvsn.engine.summary import class_table, score_table, time_line
from dvsn.train import train
from tests.support.tiny import TINY_SEGMENTATION, composed, write_scenes

RESULT: dict[str, Any] = {
    "monitor": "val/miou", "best": 0.6123, "best_epoch": 34, "last_epoch": 40,
    "metrics": {"train/loss": 1.0, "val/dice": 0.7, "val/miou": 0.59},
    "best_metrics": {"val/dice": 0.7211, "val/miou": 0.6123},
}  # fmt: skip


def test_scores_stand_beside_each_other() -> None:
    assert score_table(RESULT) == [
        "          best      last",
        "      epoch 34  epoch 40",
        "miou    0.6123      0.59",
        "dice    0.7211       0.7",
    ]


def test_of_an_earlier_part_of_the_run_only_the_score_is_known() -> None:
    assert score_table({**RESULT, "best_metrics": None})[2:] == [
        "miou    0.6123      0.59",
        "dice         -       0.7",
    ]


def test_without_a_monitor_or_a_validation() -> None:
    nothing = {"monitor": None, "best": None, "best_epoch": None, "best_metrics": None}
    assert score_table({**RESULT, **nothing}) == [
        "          last",
        "      epoch 40",
        "dice       0.7",
        "miou      0.59",
    ]
    assert score_table({**RESULT, **nothing, "metrics": {"train/loss": 1.0}}) == []


ROWS = [
    {"class": "sky", "iou": 0.9, "accuracy": 0.95, "pixels": 12000},
    {"class": "pole", "iou": None, "accuracy": None, "pixels": 0},
]


def test_few_classes_are_listed() -> None:
    best = [{**row, "iou": 0.91234} for row in ROWS[:1]]
    assert class_table({"best": best, "last": ROWS}) == [
        "class  iou best  iou last  pixels",
        "sky      0.9123       0.9  12,000",
        "pole          -         -       0",
    ]
    assert class_table({"best": None, "last": ROWS})[0] == "class  iou last  pixels"
    keypoints = [{"keypoint": "knee", "labelled": 3, "pck": 0.5}]
    assert class_table({"best": None, "last": keypoints}) == [
        "keypoint  pck last  labelled",
        "knee           0.5         3",
    ]


def test_precision_alone_says_little() -> None:
    rows = [{"class": "cat", "precision": 0.5, "recall": 1.0, "f1": 0.667, "pictures": 2}]
    assert class_table({"best": None, "last": rows}) == [
        "class  f1 last  pictures",
        "cat      0.667         2",
    ]


def test_many_classes_and_none_are_not() -> None:
    many = [{**ROWS[0], "class": str(number)} for number in range(21)]
    assert len(class_table({"best": None, "last": many[:20]})) == 21
    for classes in (
        {"best": None, "last": many},
        {"best": None, "last": []},
        {"best": None, "last": None},
        None,
    ):
        assert class_table(classes) == []
    assert class_table({"best": None, "last": [{"class": "sky", "pixels": 1}]}) == [], (
        "nothing that is a score"
    )


def test_times_in_a_line() -> None:
    times = {"data": 38.0, "forward": 100.0, "backward": 200.0, "validation": 60.0, "rest": 2.0}
    assert time_line(times) == "data 10%, forward 25%, backward 50%, validation 15%, rest 0% of 6:40"
    assert time_line(None) == "" and time_line(dict.fromkeys(times, 0.0)) == ""


# The best and the last validation ----------------------------------------------------------------------


def validate(scores: Scores, step: int, value: float, *, sanity: bool = False) -> None:
    trainer: Any = SimpleNamespace(
        sanity_checking=sanity, state=SimpleNamespace(fn="fit"), current_epoch=step // 10, global_step=step,
        callback_metrics={"val/miou": torch.tensor(value), "val/dice": torch.tensor(0.5), "train/loss": torch.tensor(9.0)},
    )  # fmt: skip
    task: Any = SimpleNamespace(validated_classes=[{"class": "sky", "iou": value}])
    scores.on_validation_end(trainer, task)


@pytest.mark.parametrize(("mode", "best"), [("max", 0.75), ("min", 0.25)])
def test_the_best_by_its_mode(mode: str, best: float) -> None:
    scores = Scores(monitor="val/miou", mode=mode)
    for step, value in (
        (5, float("nan")),
        (10, 0.5),
        (20, 0.75),
        (30, 0.25),
        (40, 0.75),
        (50, 0.5),
        (60, float("nan")),
    ):
        validate(scores, step, value)
    validate(scores, 70, 99.0, sanity=True)
    assert scores.best is not None and scores.last is not None
    assert (scores.best.scores, scores.best.classes) == (
        {"val/miou": best, "val/dice": 0.5},
        [{"class": "sky", "iou": best}],
    )
    assert (scores.best.step, scores.last.step, scores.last.epoch) == (20 if mode == "max" else 30, 60, 7)
    assert scores.best_of(scores.best.step) is scores.best and scores.best_of(10) is None
    assert scores.state_dict() == {}, "nothing for a checkpoint"


def test_a_run_without_a_monitor_has_a_last_score() -> None:
    scores = Scores()
    validate(scores, 10, 0.5)
    assert scores.best is None and scores.last is not None and scores.best_of(None) is None


# A run -------------------------------------------------------------------------------------------------


def test_a_run_tells_and_keeps_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    torch.set_num_threads(1)
    scenes = write_scenes(tmp_path / "scenes", train=4, val=3)
    options = [
        *TINY_SEGMENTATION, f"data.root={scenes}", "data.batch_size=2", "callbacks=default", "logger=csv",
        "trainer.max_epochs=2", "trainer.gradient_clip_val=0.001", "trainer.log_every_n_steps=1",
    ]  # fmt: skip
    with caplog.at_level(logging.INFO, logger="dvsn"):
        train(composed(options, tmp_path / "run"))
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    times = result["times"]
    assert list(times) == ["data", "forward", "backward", "validation", "rest"] and all(times.values())
    assert sum(times.values()) <= result["seconds"] + 0.1
    rows = result["classes"]["last"]
    assert rows == result["classes"]["best"] or result["best_epoch"] == 1
    found = [row["iou"] for row in rows if row["iou"] is not None]
    assert sum(found) / len(found) == pytest.approx(result["metrics"]["val/miou"], abs=1e-6)
    assert result["best_metrics"][result["monitor"]] == result["best"]
    text = "\n".join(caplog.messages)
    assert f"\n{rows[0]['class']}" in text and "times       data " in text
    assert any(message.split()[:1] == ["miou"] and len(message.split()) == 3 for message in caplog.messages)
    table = (tmp_path / "run" / "metrics.csv").read_text().splitlines()
    place = table[0].split(",").index("system/gradient_norm")
    norms = [float(line.split(",")[place]) for line in table[1:]]
    assert len(norms) == 4 and min(norms) > 0.001, "before it is clipped"
