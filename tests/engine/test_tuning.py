"""The search for a learning rate and a batch size: what it reads from a curve, what ends it, and that it leaves no trace."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import nn

from dvsn.config.menu import conf_dir
from dvsn.engine import batch_trials, tuning
from dvsn.engine.batch_trials import Trial, fastest
from dvsn.engine.rate_trials import Ramp, smooth, span, steepest
from dvsn.errors import ConfigError
from tests.support.resuming import equal, run
from tests.support.tiny import (
    TINY,
    TINY_CLASSIFICATION,
    TINY_POSE,
    TINY_SEGMENTATION,
    composed,
    write_blobs,
    write_pairs,
    write_people,
    write_scenes,
)

USUAL = yaml.safe_load(Path(conf_dir(), "tune.yaml").read_text(encoding="utf-8"))["tune"]


def config(words: list[str], folder: Path, **options: Any) -> dict[str, Any]:
    """The config of a search."""
    return {**composed(words, folder), "tune": {**USUAL, "output": str(folder / "found"), **options}}


# The curve --------------------------------------------------------------------------------------------------


def falling(centre: float, *, noise: float = 0.0, steps: int = 120) -> tuple[list[float], list[float]]:
    """A loss that falls by 1 over about a decade around a rate, and rises past the rate of 1."""
    rates = np.logspace(-5, 1, steps)
    x = np.log10(rates)
    losses = 2.0 - 1 / (1 + np.exp(-6 * (x - math.log10(centre)))) + np.where(x > 0, 5 * x, 0)
    return rates.tolist(), (losses + noise * np.random.default_rng(0).normal(size=steps)).tolist()


@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_the_steepest_fall_is_found(noise: float) -> None:
    found = steepest(*falling(3e-3, noise=noise))
    assert found is not None and 2e-3 < found < 5e-3


def test_noise_is_no_fall() -> None:
    rates, _ = falling(3e-3)
    flat = 2 + 0.1 * np.random.default_rng(3).normal(size=len(rates))
    assert steepest(rates, np.sort(flat).tolist()) is None  # rises
    assert steepest(rates, [2.0] * len(rates)) is None
    assert steepest(rates[:8], [2.0] * 8) is None  # too few to read


def test_means_of_a_curve_by_hand() -> None:
    rates = [10 ** (number / 4) for number in range(9)]  # two decades, four steps each
    assert span(rates) == 2
    assert smooth(rates, [0, 3, 6, 0, 0, 0, 0, 0, 9])[:3] == [1.5, 3, 3]


def test_layers_keep_their_multiples() -> None:
    first, second = (nn.Parameter(torch.zeros(1)) for _ in range(2))
    optimizer = torch.optim.SGD([{"params": [first]}, {"params": [second], "lr": 0.05}], lr=0.5)
    ramp = Ramp(optimizer, [1.0, 0.1], 1e-4, 1e-2, 3)
    rates = []
    for _ in range(3):
        rates.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        ramp.step()
    np.testing.assert_allclose(rates, [[1e-4, 1e-5], [1e-3, 1e-4], [1e-2, 1e-3]])


# Searches ---------------------------------------------------------------------------------------------------


@pytest.fixture
def words(nine_blobs: Path) -> list[str]:
    return [*TINY_CLASSIFICATION, f"data.root={nine_blobs}"]


def test_both_of_a_classifier(words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nine pictures: batches of 2, 4 and 8 leave one over, of which a batch norm has no variance. How fast they are, which
    depends on what else the machine does, does not end it here."""
    monkeypatch.setattr(batch_trials._Search, "_require_gain", lambda _: None)
    within = tmp_path / "here"
    within.mkdir()
    found = tuning.tune(config(words, within, find="both", steps=30, lowest=1e-3, trial_steps=2))
    batch, rate = found["batch_size"], found["lr"]
    assert [each["batch_size"] for each in batch["trials"]] == [2, 4, 8]
    assert batch["ended"] == "an epoch has 9 samples"
    assert batch["drop_last"] and "data.drop_last=true" in found["options"]
    assert rate["batch_size"] == batch["suggested"]
    assert len(rate["rates"]) == len(rate["losses"]) <= 30 and rate["rates"][0] == pytest.approx(1e-3)
    np.testing.assert_allclose(rate["rates"][1] / rate["rates"][0], 1e4 ** (1 / 29))
    assert json.loads((within / "found" / "tune.json").read_text()) == found
    files = sorted(path.relative_to(within).as_posix() for path in within.rglob("*") if path.is_file())
    assert files == ["found/tune.json", "found/tune_batch_size.png", "found/tune_lr.png"]


def test_it_is_repeatable_and_changes_no_training(words: list[str], tmp_path: Path) -> None:
    short = [*words, "trainer.max_epochs=1"]
    before = run(composed(short, tmp_path / "before"))
    curves = [tuning.find_rate(config(short, tmp_path, steps=20, highest=0.1)) for _ in range(2)]
    after = run(composed(short, tmp_path / "after"))
    assert curves[0]["losses"] == curves[1]["losses"]
    assert before is not None and after is not None
    for part in ("state_dict", "optimizer_states", "DataModule"):
        assert equal(before[part], after[part]), part


def test_a_loss_that_explodes_ends_it(words: list[str], tmp_path: Path) -> None:
    found = tuning.find_rate(config(words, tmp_path, steps=40, lowest=1.0, highest=1e12))
    assert len(found["rates"]) < 40 and all(map(math.isfinite, found["losses"]))


@pytest.mark.slow
def test_accumulated_batches_are_one_step(words: list[str], tmp_path: Path) -> None:
    """Three batches an epoch, two of which are accumulated: an epoch has two steps."""
    alone = tuning.find_rate(config(words, tmp_path, steps=20, highest=2e-5))
    joined = tuning.find_rate(
        config([*words, "trainer.accumulate_grad_batches=2"], tmp_path, steps=20, highest=2e-5)
    )
    assert len(alone["losses"]) == len(joined["losses"]) == 20
    expected = (alone["losses"][0] + alone["losses"][1]) / 2  # the rate is too small to change anything
    assert joined["losses"][0] == pytest.approx(expected, rel=1e-2)


@pytest.mark.slow
def test_pix2pix_has_a_batch_size_and_no_rate(tmp_path: Path) -> None:
    words = [*TINY, f"data.root={write_pairs(tmp_path / 'pairs', train=5)}"]
    with pytest.raises(ConfigError, match=r"task=pix2pix trains two networks.*tune\.find=batch_size"):
        tuning.tune(config(words, tmp_path, find="lr"))
    found = tuning.tune(config(words, tmp_path, find="batch_size", first=1, trial_steps=2))
    assert [each["batch_size"] for each in found["batch_size"]["trials"]] == [1, 2, 4]


@pytest.mark.slow
def test_a_batch_norm_that_sees_one_value(tmp_path: Path) -> None:
    """The last maps of pictures of 4 x 4 are 1 x 1."""
    words = [*TINY_CLASSIFICATION, f"data.root={write_blobs(tmp_path / 'tiny', size=4, train=2, val=1)}"]
    with pytest.raises(ConfigError, match="batch norm"):
        tuning.tune(config(words, tmp_path, find="batch_size", first=1))


def failing(at: int) -> Callable[[Any, str], Any]:
    """The preparation of a search in which batches of `at` do not fit."""
    prepare = tuning.prepare

    def prepared(node: Any, folder: str) -> Any:
        found = prepare(node, folder)
        step = found.task.training_step

        def limited(batch: Any, batch_idx: int) -> Any:
            if len(batch["index"]) >= at:
                raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
            return step(batch, batch_idx)

        found.task.training_step = limited  # type: ignore[method-assign]
        return found

    return prepared


def test_memory_that_is_exhausted(words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "prepare", failing(4))
    found = tuning.tune(config(words, tmp_path, find="batch_size", trial_steps=2))["batch_size"]
    assert [each["batch_size"] for each in found["trials"]] == [2] and found["suggested"] == 2
    assert found["ended"] == "the memory of the device is exhausted"


def test_memory_into_which_not_even_one_item_fits(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuning, "prepare", failing(1))
    with pytest.raises(ConfigError, match=r"tune\.first: no step with 2 .* is exhausted\. Nor with fewer"):
        tuning.tune(config(words, tmp_path, find="batch_size", trial_steps=2))


def test_memory_that_would_be_exhausted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a CPU: 1 GiB with 8 items, 0.2 before, makes 0.8 more with 16."""
    trainer: Any = SimpleNamespace(strategy=SimpleNamespace(root_device=torch.device("cpu")))
    search = batch_trials._Search(trainer, SimpleNamespace(), USUAL, [Trial(8, 5.0, 1.0)])  # type: ignore[arg-type]
    search.before = 2**30 * 0.2  # type: ignore[assignment]
    monkeypatch.setattr(batch_trials, "free_memory", lambda: 2**30 * 1.01)
    search._require_memory(16)
    monkeypatch.setattr(batch_trials, "free_memory", lambda: 2**30 * 0.99)
    with pytest.raises(batch_trials._Ended, match=r"16 would take about 0\.8 GiB more"):
        search._require_memory(16)


def test_the_fastest_and_the_gain() -> None:
    trials = [Trial(2, 50, 1), Trial(4, 96, 1), Trial(8, 100, 1), Trial(16, 99, 1)]
    assert fastest(trials, 0.05).batch_size == 4
    trainer: Any = SimpleNamespace(strategy=SimpleNamespace(root_device=torch.device("cpu")))
    batch_trials._Search(trainer, SimpleNamespace(), USUAL, trials[:3])._require_gain()  # type: ignore[arg-type]
    with pytest.raises(batch_trials._Ended, match="no more than 5% faster"):
        batch_trials._Search(trainer, SimpleNamespace(), USUAL, trials)._require_gain()  # type: ignore[arg-type]


def test_a_method_with_an_initial_stage(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def staged(task: Any, *_: Any) -> None:
        task.distiller = SimpleNamespace(initial_epochs=1, teachers=())

    monkeypatch.setattr(tuning.teaching, "distil", staged)
    with pytest.raises(ConfigError, match="initial stage"):
        tuning.find_rate(config(words, tmp_path))


@pytest.mark.parametrize(
    ("options", "more", "message"),
    [
        ({"find": "rate"}, {}, "tune.find: "),
        ({"lowest": 1.0, "highest": 0.5}, {}, "tune.highest: "),
        ({"steps": 5}, {}, "tune.steps: "),
        ({"first": 8, "most": 4}, {}, "tune.most: "),
        ({"first": None}, {}, "tune.first: "),
        ({"diverges": 0.5}, {}, "tune.diverges: "),
        ({}, {"resume": "auto"}, "resume: "),
        ({}, {"trainer": {"devices": 2, "accelerator": "cpu"}}, "trainer.devices: found 2"),
    ],
)
def test_what_is_refused(options: dict[str, Any], more: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{message}"):
        tuning.check({"tune": {**USUAL, "output": "x", **options}, "trainer": {"devices": 1}, **more})


@pytest.mark.slow
@pytest.mark.parametrize(("words", "write"), [(TINY_SEGMENTATION, write_scenes), (TINY_POSE, write_people)])
def test_other_tasks(words: list[str], write: Callable[[Path], Path], tmp_path: Path) -> None:
    found = tuning.tune(
        config(
            [*words, f"data.root={write(tmp_path / 'data')}"], tmp_path, find="both", steps=20, trial_steps=2
        )
    )
    assert found["batch_size"]["trials"] and len(found["lr"]["losses"]) > 5
