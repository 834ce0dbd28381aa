"""last.ckpt and best.ckpt: what a run says of its best score."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from dvsn.engine.checkpoint import remove_leftovers
from dvsn.engine.saving import Checkpoints
from dvsn.tasks.loop import Loop
from dvsn.train import train
from dvsn.weights import read_checkpoint
from tests.support.tiny import TINY, composed, write_pairs

SCORES = [0.2, 0.9, 0.5, 0.7]


@pytest.fixture
def words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A run whose score is `SCORES` by epoch."""
    torch.set_num_threads(1)
    closing = Loop._close_metrics

    def close(self: Any, split: str) -> None:
        closing(self, split)
        self.log(f"{split}/made", SCORES[self.current_epoch])

    monkeypatch.setattr(Loop, "_close_metrics", close)
    pairs = write_pairs(tmp_path / "pairs", train=2, val=1)
    return [*TINY, f"data.root={pairs}", "monitor.name=val/made", "monitor.mode=max"]


def test_the_best_score_and_its_epoch_are_said_at_the_end(
    words: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="dvsn"):
        train(composed([*words, "trainer.max_epochs=3"], tmp_path / "run"))
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert (result["best"], result["best_epoch"], result["best_step"]) == (pytest.approx(0.9), 2, 4)
    assert result["metrics"]["val/made"] == pytest.approx(0.5), "the last one"
    best = tmp_path / "run" / "checkpoints" / "best.ckpt"
    assert f"best        made 0.9 of epoch 2, in {best}" in caplog.messages
    assert read_checkpoint(best)["epoch"] == 1, "as Lightning counts, from 0"


def test_a_resumed_run_knows_the_best_of_its_earlier_part(words: list[str], tmp_path: Path) -> None:
    train(composed([*words, "trainer.max_epochs=3"], tmp_path / "run"))
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    result = train(composed([*words, "trainer.max_epochs=4", f"resume={last}"], tmp_path / "run"))
    assert (result["best"], result["best_epoch"]) == (pytest.approx(0.9), 2)


def test_checkpoints_that_do_not_say_the_epoch_are_read() -> None:
    saved = Checkpoints(folder=".", monitor="val/l1")
    saved.load_state_dict({"best": 0.5, "monitor": "val/l1"})
    assert (saved.best, saved.best_epoch) == (0.5, None)
    saved = Checkpoints(folder=".", monitor="val/psnr")
    saved.load_state_dict({"best": 0.5, "monitor": "val/l1"})
    assert saved.best is None


def test_what_killed_processes_left_is_removed(tmp_path: Path) -> None:
    """Of processes that run, and of other files, nothing is touched."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    left = tmp_path / f".last.ckpt.{ended.pid}.tmp"
    others = [
        f".best.ckpt.{os.getppid()}.tmp",
        f".last.ckpt.{os.getpid()}.tmp",
        ".last.ckpt.x.tmp",
        "last.ckpt",
    ]
    for path in (left, *(tmp_path / name for name in others)):
        path.write_bytes(b"half of a checkpoint")
    remove_leftovers(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(others)


def test_a_run_begins_with_a_clean_folder(words: list[str], tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    (tmp_path / "run" / "checkpoints" / f".last.ckpt.{ended.pid}.tmp").write_bytes(b"half")
    train(composed([*words, "trainer.max_epochs=1"], tmp_path / "run"))
    assert sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir()) == [
        "best.ckpt",
        "last.ckpt",
    ]
