"""Frozen layers and rates by pattern: what learns and how fast, norms that stand still, resumed runs."""

from __future__ import annotations

import functools
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from dvsn.engine import trainer as runtime
from dvsn.engine.resume import settle
from dvsn.errors import CheckpointError, ConfigError
from dvsn.tasks.parameters import freeze, frozen_norms, named_by, parameter_groups
from dvsn.weights import read_checkpoint
from tests.support.resuming import equal, run
from tests.support.tiny import TINY_CLASSIFICATION, composed

SGD = functools.partial(torch.optim.SGD, lr=0.1)
SMALL = [*TINY_CLASSIFICATION, "trainer.max_epochs=2", "checkpoint.every_n_steps=1"]


def network() -> nn.Module:
    def block() -> nn.Sequential:
        return nn.Sequential(OrderedDict(conv=nn.Conv2d(2, 2, 1), norm=nn.BatchNorm2d(2)))

    return nn.Sequential(OrderedDict(stem=block(), layer1=block(), layer2=block(), fc=nn.Linear(2, 3)))


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("stem", {"stem.conv.weight", "stem.conv.bias", "stem.norm.weight", "stem.norm.bias"}),
        ("layer?.norm", {f"layer{n}.norm.{part}" for n in (1, 2) for part in ("weight", "bias")}),
        ("layer[2]*.bias", {"layer2.conv.bias", "layer2.norm.bias"}),
        ("fc.bias", {"fc.bias"}),
    ],
)
def test_what_a_pattern_names(pattern: str, expected: set[str]) -> None:
    assert named_by(network(), pattern, option="task.freeze") == expected


def test_a_pattern_that_names_nothing_is_refused() -> None:
    with pytest.raises(
        ConfigError,
        match=r"task.freeze: the network has no module or parameter 'layr1'. Did you mean 'layer1'",
    ):
        freeze(network(), ["stem", "layr1"])


def test_groups_by_hand() -> None:
    """stem is frozen; layer1 learns at 0.1, fc at ten times 0.5 of it; of two patterns for layer2 the last counts."""
    made = network()
    freeze(made, ["stem"])
    groups = parameter_groups(
        made,
        SGD,
        heads=["fc"],
        factor=10.0,
        decay_norms=False,
        rates={"layer*": 1.0, "layer2": 0.25, "fc": 0.5},
    )
    found = [
        (group.get("lr", 0.1), group.get("weight_decay"), [tuple(p.shape) for p in group["params"]])
        for group in groups
    ]
    assert found == [
        (0.1, None, [(2, 2, 1, 1)]), (0.1, 0.0, [(2,)] * 3),
        (0.025, None, [(2, 2, 1, 1)]), (0.025, 0.0, [(2,)] * 3),
        (0.5, None, [(3, 2)]), (0.5, 0.0, [(3,)]),
    ]  # fmt: skip
    assert [made.stem.norm] == frozen_norms(made, ["stem"])
    assert len(frozen_norms(made, ["*"])) == 3 and frozen_norms(made, ["fc"]) == []


@pytest.mark.parametrize("rate", [0, -1.0, float("nan"), True])
def test_a_rate_that_is_none_is_refused(rate: Any) -> None:
    with pytest.raises(ConfigError, match=r"task.rates.fc: found .*, expected a factor above 0"):
        parameter_groups(network(), SGD, rates={"fc": rate})


def test_nothing_left_to_train_is_refused() -> None:
    made = network()
    freeze(made, ["*"])
    with pytest.raises(ConfigError, match=r"task.freeze: nothing is left to train"):
        parameter_groups(made, SGD)


def test_a_run_leaves_the_frozen_alone_and_resumes(nine_blobs: Path, tmp_path: Path) -> None:
    """Weights and statistics of what is frozen are those of the start; killed it ends with the same bits."""
    words = [
        *SMALL,
        f"data.root={nine_blobs}",
        "task.freeze=[conv1,bn1,'layer1*']",
        "task.rates={layer2: 0.5}",
    ]
    config = composed(words, tmp_path / "whole")
    before = {key: value.clone() for key, value in runtime.make_task(config).state_dict().items()}
    unbroken = run(config)
    broken = composed(words, tmp_path / "broken")
    assert run(broken, dies_after=4) is None
    resumed = run(broken)
    assert unbroken is not None and resumed is not None
    for part in ("state_dict", "optimizer_states", "lr_schedulers"):
        assert equal(unbroken[part], resumed[part]), part
    frozen = ("network.conv1.", "network.bn1.", "network.layer1.")
    for key, value in unbroken["state_dict"].items():
        if value.is_floating_point() and "normalise" not in key:
            assert torch.equal(value, before[key]) == key.startswith(frozen), key
    rates = {group["initial_lr"] for group in unbroken["optimizer_states"][0]["param_groups"]}
    assert rates == {0.1, 0.05}


@pytest.mark.parametrize("force", [False, True])
def test_a_resumed_run_cannot_change_it(force: bool, nine_blobs: Path, tmp_path: Path) -> None:
    words = [*SMALL, f"data.root={nine_blobs}", "trainer.max_epochs=1"]
    first = composed([*words, "task.freeze=[conv1]"], tmp_path / "run")
    assert run(first) is not None
    other = composed([*words, "task.freeze=[conv1,bn1]"], tmp_path / "run")
    other["resume_force"] = ["task.freeze"] if force else []
    with pytest.raises((CheckpointError, ConfigError), match=r"task.freeze") as error:
        settle(tmp_path / "run" / "checkpoints" / "last.ckpt", other, runtime.make_task(other))
    assert ("cannot be changed within a run" in str(error.value)) == force
    assert "resume.force='[task.freeze]'" not in str(error.value)
    assert read_checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt")["dvsn"]["recipe"]["freeze"] == [
        "conv1"
    ]
