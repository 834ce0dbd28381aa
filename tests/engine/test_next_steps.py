"""The lines with which a run is measured, used and continued."""

from __future__ import annotations

import shlex
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from dvsn.engine import console, next_steps
from dvsn.train import train
from tests.support.tiny import TINY, composed, write_pairs


def test_words_mean_the_same_to_a_shell_and_to_hydra() -> None:
    assert next_steps.word("checkpoint", "runs/a-b/best.ckpt") == "checkpoint=runs/a-b/best.ckpt"
    odd = next_steps.word("checkpoint", "my runs/a=b.ckpt")
    assert shlex.split(odd) == ['checkpoint="my runs/a=b.ckpt"']


def test_the_line_that_continues(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = [
        "task=pose", "--config-dir", "my conf", "--allow=own", "resume=null", "hydra.run.dir=x", "trainer.max_epochs=3"
    ]  # fmt: skip
    line = next_steps.line_to_continue(
        tmp_path / "runs" / "a", arguments, changed={"trainer.max_epochs": 6}, forced=True
    )
    assert shlex.split(line) == [
        "python", "-m", "dvsn.train", "task=pose", "--config-dir", "my conf", "--allow=own", "trainer.max_epochs=6",
        "resume.force=[trainer.max_epochs]", "hydra.run.dir=runs/a", "resume=auto",
    ]  # fmt: skip
    assert next_steps.allowed(arguments) == ["--allow=own"]
    assert next_steps.allowed(["a=1", "--allow", "b"]) == ["--allow", "b"]


@pytest.mark.parametrize(
    ("trainer", "wanted"),
    [
        ({"max_steps": -1, "global_step": 9, "max_epochs": 3, "current_epoch": 3}, {"trainer.max_epochs": 6}),
        ({"max_steps": 9, "global_step": 9, "max_epochs": 3, "current_epoch": 2}, {"trainer.max_steps": 18}),
        ({"max_steps": -1, "global_step": 5, "max_epochs": 3, "current_epoch": 1}, {}),
    ],
)
def test_a_run_that_ended_gets_twice_as_long(trainer: dict[str, int], wanted: dict[str, int]) -> None:
    assert next_steps.longer(SimpleNamespace(**trainer)) == wanted


def test_the_end_of_a_run_says_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As the command is given; that each line works, the tests of the README show for such lines."""
    torch.set_num_threads(1)
    monkeypatch.chdir(tmp_path)
    pairs = write_pairs(tmp_path / "pairs", train=2, val=1)
    words = [*TINY, "trainer.max_epochs=1", "--allow=own"]
    monkeypatch.setattr("sys.argv", ["train", *words])
    config: dict[str, Any] = composed([*words[:-1], f"data.root={pairs}"], tmp_path / "runs" / "a")
    with caplog.at_level("INFO", logger="dvsn"):
        train(config)
    said = dict(message.split(maxsplit=1) for message in caplog.messages if len(message.split()) > 1)
    best = "runs/a/checkpoints/best.ckpt"
    assert said["evaluate"] == f"python -m dvsn.evaluate --allow=own checkpoint={best} split=test"
    assert said["predict"] == f"python -m dvsn.predict --allow=own {best} pairs/val/a/000.png"
    assert said["continue"].endswith("--allow=own trainer.max_epochs=2 hydra.run.dir=runs/a resume=auto")
    assert said["last"].startswith("l1 0.") and " of epoch 1, in " in said["last"]


def test_a_person_of_a_picture_has_its_picture_to_predict(tmp_path: Path) -> None:
    """Of a row of a table or an annotation the description says more than the file."""
    picture = tmp_path / "one.png"
    people = SimpleNamespace(
        describe=lambda index: f"{picture}, annotation 1", photos=lambda index: [picture]
    )
    data: Any = SimpleNamespace(datasets={"val": people})
    config: dict[str, Any] = {"data": {}, "task": {"_target_": "dvsn.tasks.pose.Pose"}}
    assert next_steps.picture_to_predict(data, config) is None  # it is not there
    picture.touch()
    assert next_steps.picture_to_predict(data, config) == picture


def test_a_picture_of_two_halves_is_no_picture_to_predict(tmp_path: Path) -> None:
    file = tmp_path / "1.png"
    file.touch()
    for paths, wanted in ((str(file), None), (f"{file} + {tmp_path / '2.png'}", file)):
        data: Any = SimpleNamespace(
            datasets={"val": SimpleNamespace(describe=lambda place, paths=paths: paths)}
        )
        config = {"data": {"pair": {"source": "a"}}, "task": {"_target_": "dvsn.tasks.pix2pix.Pix2Pix"}}
        assert next_steps.picture_to_predict(data, config) == wanted


def test_a_best_score_is_said_where_its_checkpoint_is_gone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "last.ckpt").touch()
    result = {
        "epochs": 5, "steps": 15, "seconds": 1.0, "metrics": {}, "monitor": "val/miou", "best": 0.5, "best_epoch": 1,
        "last": 0.25, "last_epoch": 5, "best_metrics": {}, "times": {}, "classes": [], "ended": None,
    }  # fmt: skip
    with caplog.at_level("INFO"):
        console.report(result, tmp_path, {})
    said = [record.getMessage() for record in caplog.records]
    assert "best        miou 0.5 of epoch 1, whose checkpoint is no longer there" in said
    assert f"last        miou 0.25 of epoch 5, in {tmp_path}/checkpoints/last.ckpt" in said
