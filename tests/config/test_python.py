"""Arguments of Python as words of a command line, and a caller whose state stays its own."""

from __future__ import annotations

import logging
import math
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser

from dvsn.config import flags, logs
from dvsn.config.compose import initialized
from dvsn.config.menu import conf_dir
from dvsn.config.python import called, spelt, words
from dvsn.errors import ConfigError

VALUES = [
    None, True, False, 0, -3, 1.5, 1e-05, math.inf, "plain", "a b", "it's", 'say "so"', "1e3", "12", "null", "true", "",
    "a=b", "a,b", "[x]", "{y}", "C:\\dir\\", "back\\'slash", "ünï", "x:y", "~", "/data/my set/1.png", [1, "a b", None], [],
    {"train": 1, "val": [0.5]}, {}, [[1, 2], [3]],
]  # fmt: skip


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_values_are_read_back_by_hydra(value: Any) -> None:
    override = OverridesParser.create().parse_override(f"key={spelt(value)}")
    found = override.value()
    assert found == value and type(found) is type(value)


def test_paths_and_numpys_numbers_are_values_too() -> None:
    assert (
        spelt(Path("/data/x.png")) == "/data/x.png"
        and spelt(np.float64(0.5)) == "0.5"
        and spelt((1, 2)) == "[1,2]"
    )
    with pytest.raises(ConfigError, match="lr: found object, expected text, a number"):
        spelt(object(), "lr")


def test_names_become_paths() -> None:
    options = {
        "max_epochs": 3,
        "seed": 1,
        "lr": 0.1,
        "optim": {"weight_decay": 0.0, "a": {"b": 1}},
        "data.height": 64,
    }
    found = words("train", ["task=pose"], {**options, "experiment": "demo"})
    assert found == [
        "task=pose", "trainer.max_epochs=3", "seed=1", "optim.lr=0.1", "optim.weight_decay=0.0", "optim.a.b=1",
        "data.height=64", "experiment=demo",
    ]  # fmt: skip
    assert words("evaluate", [], {"batch_size": 2, "precision": "bf16-mixed"}) == [
        "batch_size=2",
        "trainer.precision=bf16-mixed",
    ]


@pytest.mark.parametrize(
    ("overrides", "options", "message"),
    [
        ([], {"max_epoch": 3}, "max_epoch: train has no such option. Did you mean 'max_epochs'"),
        ([], {"weight_decay": 3}, "weight_decay: train has no such option.*'optim.weight_decay=0.01'"),
        (["-m"], {}, "-m: expected key=value.*Sweeps"),
        (["task"], {}, "task: expected key=value"),
        ([3], {}, "3: expected key=value"),
    ],
)
def test_other_names_are_refused(overrides: list[Any], options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        words("train", overrides, options)


def test_the_callers_state_stays(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DVSN_ALLOW", "mine")
    root, ours = logging.getLogger(), logging.getLogger("dvsn")
    handlers, level, filters, own = list(root.handlers), root.level, list(warnings.filters), ours.level
    with initialized(conf_dir()):
        instance = GlobalHydra.instance().hydra
        with called(["seed=3"]):
            assert flags.command_words() == ["seed=3"]
            GlobalHydra.instance().clear()
            logs.start(tmp_path / "train.log")
            warnings.filterwarnings("ignore", message="something")
            os.environ["DVSN_ALLOW"] = "mine,theirs"
            ours.info("kept")
            assert list(root.handlers) == handlers and root.level == level
        assert GlobalHydra.instance().hydra is instance
    assert list(root.handlers) == handlers and root.level == level and ours.level == own and not ours.handlers
    assert list(warnings.filters) == filters and os.environ["DVSN_ALLOW"] == "mine"
    assert "INFO dvsn: kept" in (tmp_path / "train.log").read_text()


def test_what_stops_a_run_is_an_interrupt() -> None:
    with pytest.raises(KeyboardInterrupt), called([]):
        raise SystemExit(130)
    with pytest.raises(SystemExit), called([]):
        raise SystemExit(143)
