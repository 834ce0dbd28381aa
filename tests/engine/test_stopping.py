"""Early stopping: when a run ends by its score, that a kill changes nothing of it, and what the run says."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from dvsn import train
from dvsn.engine.stopping import Stopping, why_ended
from dvsn.errors import ConfigError, UserError
from tests.support.resuming import equal, run
from tests.support.tiny import TINY, composed, write_pairs

WORDS = [
    *[word for word in TINY if word != "callbacks=none"], "callbacks=early_stopping", "callbacks.pictures=null",
    "callbacks.times=null", "data.batch_size=5", "trainer.max_epochs=9", "callbacks.stopping.patience=2",
    "callbacks.stopping.min_delta=1000",
]  # fmt: skip


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("pairs"))


def stopped_at(scores: list[float], **options: Any) -> tuple[int | None, str | None]:
    """The number of the validation after which a run stops, counted from 1, and why."""
    callback = Stopping(monitor="val/x", **options)
    for number, score in enumerate(scores, start=1):
        stop, reason = callback._evaluate_stopping_criteria(torch.tensor(score))
        if stop:
            return number, reason
    return None, None


@pytest.mark.parametrize(
    ("scores", "options", "expected"),
    [
        ([3, 2, 2, 2, 1], {"patience": 2}, 4),  # an equal score is no better
        ([3, 2, 2, 1.5, 1.6, 1.7], {"patience": 2}, 6),  # counting begins anew
        (
            [3, 2.95, 2.91, 2.8],
            {"patience": 3, "min_delta": 0.1},
            None,
        ),  # 2.8 is better than 3 by more than 0.1
        ([3, 2.95, 2.91, 2.8], {"patience": 2, "min_delta": 0.1}, 3),
        ([0.1, 0.3, 0.2, 0.3], {"patience": 2, "mode": "max"}, 4),
        ([0.1, 0.5, 0.6], {"patience": 2, "mode": "max", "goal": 0.5}, 2),
        ([3, 2, 0.5], {"patience": 2, "goal": 1.0}, 3),
        ([3, math.nan], {"patience": 9}, 2),
    ],
)
def test_when_it_stops(scores: list[float], options: dict[str, Any], expected: int | None) -> None:
    assert stopped_at(scores, **options)[0] == expected


def test_why_it_stops() -> None:
    assert stopped_at([2, 3], patience=1)[1] == (
        "val/x was no better than 2 for 1 validation (callbacks.stopping.patience=1)"
    )
    assert stopped_at([2, 1], goal=1.5)[1] == "val/x 1 has reached callbacks.stopping.goal=1.5"


def test_ends_resumes_and_says_why(pairs: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Stopped after three of nine epochs; killed on the way it ends with the same bits."""
    words = [*WORDS, f"data.root={pairs}"]
    unbroken = run(composed(words, tmp_path / "unbroken"))
    broken = composed(words, tmp_path / "broken")
    assert run(broken, dies_after=3) is None
    resumed = run(broken)
    assert unbroken is not None and resumed is not None
    assert unbroken["DataModule"] == {"epoch": 3, "batch": 0}
    for part in ("state_dict", "optimizer_states", "callbacks", "DataModule", "global_step"):
        assert equal(unbroken[part], resumed[part]), part
    with caplog.at_level(logging.INFO, logger="dvsn"):  # it stays where it is
        again = train.train(composed([*words, "resume=auto"], tmp_path / "broken"))
    assert (again["epochs"], again["steps"]) == (3, unbroken["global_step"])
    assert again["ended"].startswith("early: val/") and f"ended       {again['ended']}" in caplog.text
    more = composed([*words, "callbacks.stopping.patience=3"], tmp_path / "broken")
    longer = run(more)  # with more patience it goes on
    assert longer is not None and longer["DataModule"] == {"epoch": 4, "batch": 0}


def test_a_stop_within_an_epoch_is_saved(pairs: Path, tmp_path: Path) -> None:
    words = [*WORDS, f"data.root={pairs}", "data.batch_size=2", "trainer.val_check_interval=2"]
    last = run(composed([*words, "callbacks.stopping.patience=1"], tmp_path))
    assert last is not None and last["DataModule"] == {"epoch": 0, "batch": 4}


def test_what_ends_a_run() -> None:
    def trainer(**values: Any) -> Any:
        usual = {"callbacks": [], "max_epochs": 3, "current_epoch": 1, "max_steps": -1, "global_step": 7}
        return SimpleNamespace(**{**usual, **values})

    assert why_ended(trainer(current_epoch=3)) == "after trainer.max_epochs=3"
    assert why_ended(trainer(max_steps=7)) == "after trainer.max_steps=7"
    assert why_ended(trainer()) == "after trainer.max_time"


def test_bad_options() -> None:
    for option, value in {"patience": 0, "min_delta": -1.0, "mode": "best"}.items():
        with pytest.raises(ConfigError, match=f"callbacks.stopping.{option}: found"):
            Stopping(monitor="val/x", **{option: value})
    with pytest.raises(
        UserError, match=r"callbacks.stopping.monitor: nothing called 'val/x' was logged. Logged: val/y"
    ):
        Stopping(monitor="val/x")._validate_condition_metric({"val/y": torch.tensor(0.0)})
