"""Stochastic weight averaging: the plain mean of the epochs by hand, what is validated, a kill, and bad options."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch

from dvsn.config.rules import check_options
from dvsn.engine import trainer as runtime
from dvsn.errors import ConfigError
from dvsn.weights import read_checkpoint
from tests.support.resuming import equal, run
from tests.support.tiny import TINY_CLASSIFICATION, composed

SMALL = [*TINY_CLASSIFICATION, "trainer.max_epochs=4", "checkpoint.every_n_steps=1"]


class Keeps(pl.Callback):
    """The weights at the end of each epoch, and those that are validated after it."""

    def __init__(self) -> None:
        self.ends: list[dict[str, torch.Tensor]] = []
        self.validated: list[dict[str, torch.Tensor]] = []

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if batch_idx + 1 == trainer.num_training_batches:
            self.ends.append({key: value.clone() for key, value in pl_module.state_dict().items()})

    def on_validation_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        self.validated.append({key: value.clone() for key, value in pl_module.state_dict().items()})


def test_the_mean_of_the_epochs_by_hand(nine_blobs: Path, tmp_path: Path) -> None:
    """Of four epochs those from number 2 on: two. Before them the weights themselves are validated and saved."""
    config = composed([*SMALL, f"data.root={nine_blobs}", "swa=2"], tmp_path)
    keeps = Keeps()
    task, trainer = runtime.make_task(config), runtime.build_trainer(config, runtime.make_task(config))
    trainer.callbacks.insert(0, keeps)  # type: ignore[attr-defined]
    trainer.fit(task, runtime.build_data(config))
    saved = read_checkpoint(tmp_path / "checkpoints" / "last.ckpt")
    for key in ("network.conv1.weight", "network.bn1.running_mean", "network.fc.bias"):
        third, fourth = keeps.ends[2][key], keeps.ends[3][key]
        torch.testing.assert_close(saved["state_dict"][key], (third + fourth) / 2)
        torch.testing.assert_close(keeps.validated[3][key], (third + fourth) / 2)
        assert torch.equal(keeps.validated[2][key], third) and torch.equal(
            keeps.validated[1][key], keeps.ends[1][key]
        )
        assert torch.equal(saved["current_model_state"][key], fourth) and not torch.equal(third, fourth)
        torch.testing.assert_close(task.state_dict()[key], saved["state_dict"][key])  # the task at the end


def test_before_its_first_epoch_the_weights_are_saved(nine_blobs: Path, tmp_path: Path) -> None:
    config = composed([*SMALL, f"data.root={nine_blobs}", "swa=3"], tmp_path)
    assert run(config, dies_after=4) is None
    saved = read_checkpoint(tmp_path / "checkpoints" / "last.ckpt")
    assert equal(saved["state_dict"], saved["current_model_state"])


@pytest.mark.parametrize("points", [(4, 4)])
def test_killed_and_resumed_ends_bit_equal(points: tuple[int, ...], nine_blobs: Path, tmp_path: Path) -> None:
    words = [*SMALL, f"data.root={nine_blobs}", "swa=1"]
    unbroken = run(composed(words, tmp_path / "whole"))
    broken = composed(words, tmp_path / "broken")
    for point in points:
        assert run(broken, dies_after=point) is None
    resumed = run(broken)
    assert unbroken is not None and resumed is not None
    for part in ("state_dict", "current_model_state", "averaging_state", "optimizer_states"):
        assert equal(unbroken[part], resumed[part]), part
    assert int(unbroken["averaging_state"]["n_averaged"]) == 3


@pytest.mark.parametrize(
    ("words", "message"),
    [(["swa=4"], "swa: found 4, expected null, or an epoch from 0 on, below trainer.max_epochs"),
     (["swa=-1"], "swa: found -1"),
     (["swa=1", "ema=0.9"], "ema: found 0.9, expected null with swa")],
)  # fmt: skip
def test_bad_options(words: list[str], message: str, tmp_path: Path) -> None:
    config = composed([*SMALL, f"data.root={tmp_path}"], tmp_path)
    for word in words:
        key, _, value = word.partition("=")
        config[key] = float(value) if "." in value else int(value)
    with pytest.raises(ConfigError, match=message):
        check_options(config)
