"""`resume` with other options: applied where the learning does not depend on them, refused with a list, or forced."""

from __future__ import annotations

import logging
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from dvsn.config.compose import renamed_options
from dvsn.engine import devices, resume
from dvsn.engine import trainer as runtime
from dvsn.engine.differences import differences, kept
from dvsn.errors import CheckpointError, ConfigError, UserError
from dvsn.train import train
from dvsn.weights import read_checkpoint
from tests.support.tiny import TINY, composed, write_pairs

BASE = [
    *TINY, "network.norm=none", "discriminator.norm=none", "network.dropout=0", "data.batch_size=2",
    "trainer.limit_val_batches=1", "schedule=linear_decay", "schedule.constant_epochs=1", "schedule.decay_epochs=9",
]  # fmt: skip
RATE = 0.0002


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return write_pairs(tmp_path_factory.mktemp("pairs"), train=6, val=1)


@pytest.fixture(scope="module")
def words(pairs: Path) -> list[str]:
    return [*BASE, f"data.root={pairs}"]


@pytest.fixture(scope="module")
def last(words: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint after one epoch of three batches."""
    folder = tmp_path_factory.mktemp("run")
    train(composed([*words, "trainer.max_epochs=1"], folder))
    return folder / "checkpoints" / "last.ckpt"


@pytest.fixture(scope="module")
def inside(words: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint after two batches of the first epoch."""
    folder = tmp_path_factory.mktemp("inside")
    train(composed([*words, "trainer.max_steps=2"], folder))
    return folder / "checkpoints" / "last.ckpt"


def settled(path: Path, words: list[str], folder: Path) -> resume.Resumption:
    config = composed(words, folder)
    return resume.settle(path, config, runtime.make_task(config))


def weights(path: Path) -> dict[str, Any]:
    state: dict[str, Any] = read_checkpoint(path)["state_dict"]
    return state


def same(one: dict[str, Any], two: dict[str, Any]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)


# Refused ---------------------------------------------------------------------------------------------


REFUSED = {
    "optim.lr=0.1": "optim.lr: 0.0002 there, 0.1 now",
    "optim.betas=[0.9,0.999]": "optim.betas.0: 0.5 there, 0.9 now",
    "schedule.decay_epochs=5": "schedule.decay_epochs: 9 there, 5 now",
    "loss.l1_weight=10": "loss.l1_weight: 100.0 there, 10 now",
    "data.batch_size=3": "data.batch_size: 2 there, 3 now",
    "data.splits.train=val": "data.splits.train: 'train' there, 'val' now",
    "data.splits.val=test": "data.splits.val: 'val' there, 'test' now",
    "data.train_samples=4": "data.train_samples: null there, 4 now",
    "ema=0.9": "ema: null there, 0.9 now",
    "seed=1": "seed: 0 there, 1 now",
    "trainer.precision=bf16-mixed": "trainer.precision: '32-true' there, 'bf16-mixed' now",
    "trainer.accumulate_grad_batches=2": "trainer.accumulate_grad_batches: 1 there, 2 now",
    "trainer.gradient_clip_val=1": "trainer.gradient_clip_val: null there, 1 now",
    "trainer.limit_train_batches=2": "trainer.limit_train_batches: 1.0 there, 2 now",
    "trainer.limit_val_batches=2": "trainer.limit_val_batches: 1 there, 2 now",
    "network.width=8": "network.width: 4 there, 8 now",
    "network.dropout=0.5": "network.dropout: 0 there, 0.5 now",
    "discriminator.layers=2": "discriminator.layers: 1 there, 2 now",
    "task.generator_forwards=2": "task.generator_forwards: 1 there, 2 now",
    "weights=other.ckpt": "weights: null there, 'other.ckpt' now",
    "compile=true": "compile: False there, True now",
    "channels_last=true": "channels_last: False there, True now",
}


@pytest.fixture(autouse=True)
def plain_layout(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same on every machine: `auto` means float32 and the plain memory layout."""
    for module in (devices, runtime):
        monkeypatch.setattr(module, "bf16_choice", lambda *, cuda: devices.Choice(False, "pretended"))


@pytest.fixture(scope="module", autouse=True)
def plain_layout_of_the_first_run() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runtime, "bf16_choice", lambda *, cuda: devices.Choice(False, "pretended"))
        yield


@pytest.mark.parametrize("option", REFUSED)
def test_what_the_learning_depends_on_is_refused(
    option: str, last: Path, words: list[str], tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError) as caught:
        settled(last, [*words, "trainer.max_epochs=2", option], tmp_path)
    lines = str(caught.value).splitlines()
    assert f"  {REFUSED[option]}" in lines, lines
    assert str(last.parent.parent / "config.yaml") in lines[-1] and "resume=null" in lines[-1]
    assert "trainer.max_epochs" not in str(caught.value)


def test_each_option_is_listed_once_by_its_name(last: Path, words: list[str], tmp_path: Path) -> None:
    """`network.width` also stands in the task's node; other networks cannot be forced."""
    other = [*words, "network.width=8", "discriminator.layers=2"]
    with pytest.raises(CheckpointError) as caught:
        settled(last, other, tmp_path)
    listed = [line.strip() for line in str(caught.value).splitlines()[1:-1]]
    assert sorted(listed) == ["discriminator.layers: 1 there, 2 now", "network.width: 4 there, 8 now"]


@pytest.mark.parametrize("option", ["ema=0.9", "optim=sgd"])
def test_what_cannot_be_forced_is_not_advised_and_refused(
    option: str, last: Path, words: list[str], tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError) as caught:
        settled(last, [*words, option], tmp_path)
    assert "resume.force" not in str(caught.value)
    with pytest.raises(
        ConfigError, match=r"cannot be changed within a run.*weights=.*last\.ckpt resume=null"
    ):
        settled(last, [*words, option, "resume_force=[ema,optim]"], tmp_path)


def test_other_weights_are_listed_before_a_trainer_tries(
    last: Path, words: list[str], tmp_path: Path
) -> None:
    more = [*words, "network.width=8", f"resume={last}", "resume_force=[network.width]"]
    with pytest.raises(CheckpointError, match=r"(?s)last\.ckpt: the weights do not fit .* shape: network\."):
        train(composed(more, tmp_path))


def test_a_checkpoint_without_state_of_training_is_refused_with_what_to_do(
    last: Path, words: list[str], tmp_path: Path
) -> None:
    content = read_checkpoint(last)
    del content["loops"]
    folder = tmp_path / "a folder"
    folder.mkdir()
    torch.save(content, folder / "converted.ckpt")
    with pytest.raises(CheckpointError, match="nothing to continue") as caught:
        train(composed([*words, f"resume={folder / 'converted.ckpt'}"], tmp_path / "run"))
    advised = shlex.split(str(caught.value).partition("Start a run from its weights with ")[2])
    result = train(composed([*words, "trainer.max_epochs=1", *advised], tmp_path / "run"))
    assert result["epochs"] == 1


def test_fewer_epochs_than_were_trained(last: Path, words: list[str], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"max_epochs: found 0, with which nothing is trained"):
        settled(last, [*words, "trainer.max_epochs=0"], tmp_path)


# Applied ---------------------------------------------------------------------------------------------


def test_a_longer_run_equals_the_unbroken_one_and_says_so(
    last: Path, words: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    unbroken = [*words, "trainer.max_epochs=2"]
    train(composed(unbroken, tmp_path / "unbroken"))
    with caplog.at_level(logging.INFO, logger="dvsn"):
        train(
            composed(
                [*unbroken, "callbacks=default", "data.workers=1", f"resume={last}"], tmp_path / "longer"
            )
        )
    checkpoints = [tmp_path / name / "checkpoints" / "last.ckpt" for name in ("unbroken", "longer")]
    assert same(*map(weights, checkpoints))
    said = [message for message in caplog.messages if message.startswith("applied")]
    assert "applied     trainer.max_epochs: 1 there, 2 now" in said
    assert "applied     data.workers: 0 there, 1 now" in said


def test_a_longer_run_is_refused_where_the_schedule_depends_on_it(
    pairs: Path, words: list[str], tmp_path: Path
) -> None:
    poly = [word for word in words if not word.startswith("schedule")] + ["schedule=poly"]
    train(composed([*poly, "trainer.max_epochs=2", "trainer.max_steps=6"], tmp_path / "run"))
    path = tmp_path / "run" / "checkpoints" / "last.ckpt"
    with pytest.raises(CheckpointError, match=r"max_epochs: 2 there, 4 now") as caught:
        settled(path, [*poly, "trainer.max_epochs=4", "trainer.max_steps=6"], tmp_path)
    assert "Poly depends on the length of the run" in str(caught.value)


def test_spelling_and_defaults_are_no_difference(last: Path, words: list[str], tmp_path: Path) -> None:
    same_thing = [
        "+optim.amsgrad=false",
        "trainer.precision=32",
        "schedule._target_=dvsn.schedules.LinearDecay",
    ]
    settled(last, [*words, *same_thing], tmp_path)


def test_auto_is_what_the_run_has_had(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that began with bf16 goes on with it on a machine where `auto` would choose float32."""
    auto = [*words, "trainer.precision=auto"]
    for module in (devices, runtime):
        monkeypatch.setattr(module, "bf16_choice", lambda *, cuda: devices.Choice(True, "pretended"))
    train(composed([*auto, "trainer.max_epochs=1"], tmp_path / "run"))
    for module in (devices, runtime):
        monkeypatch.setattr(module, "bf16_choice", lambda *, cuda: devices.Choice(False, "pretended"))
    path = tmp_path / "run" / "checkpoints" / "last.ckpt"
    before = read_checkpoint(path)["dvsn"]["config"]
    result = train(composed([*auto, "trainer.max_epochs=2", f"resume={path}"], tmp_path / "run"))
    assert result["measured"]["precision"] == "32-true", "of pix2pix, whatever it trains in"
    after = read_checkpoint(path)["dvsn"]["config"]
    assert after == {**before, "trainer": {**before["trainer"], "max_epochs": 2}}, (
        "a resumed run writes the same"
    )
    assert (after["trainer"]["precision"], after["channels_last"]) == ("bf16-mixed", True)
    assert read_checkpoint(path)["dvsn"]["ran"] == {"precision": "bf16-mixed", "channels_last": True}
    with pytest.raises(CheckpointError, match=r"trainer\.precision: 'bf16-mixed' there, '32-true' now"):
        settled(path, [*words, "trainer.precision=32-true"], tmp_path)


def test_checkpoints_without_the_config_are_compared_by_recipe_and_data(
    last: Path, words: list[str], tmp_path: Path
) -> None:
    content = read_checkpoint(last)
    del content["dvsn"]["config"], content["dvsn"]["ran"]
    content["dvsn"]["recipe"]["schedule"]["_target_"] = "dvsn.schedules.LinearDecay"  # as it was called then
    torch.save(content, tmp_path / "old.ckpt")
    settled(tmp_path / "old.ckpt", [*words, "trainer.max_epochs=3", "data.workers=1"], tmp_path)
    other = ["optim.lr=0.1", "data.batch_size=1", "network.dropout=0.5"]
    with pytest.raises(CheckpointError) as caught:
        settled(tmp_path / "old.ckpt", [*words, *other], tmp_path)
    listed = {line.strip() for line in str(caught.value).splitlines()[1:-1]}
    assert listed == {
        "optim.lr: 0.0002 there, 0.1 now", "data.batch_size: 2 there, 1 now", "network.dropout: 0 there, 0.5 now"
    }  # fmt: skip


def test_what_the_files_have_told_is_no_difference() -> None:
    """Of an older checkpoint: names of classes that the config leaves to the data set."""
    there = {"data": {"dataset": {"names": ["cat", "dog"]}, "batch_size": 2}}
    now = {"data": {"dataset": {"names": None}, "batch_size": 2}}
    assert differences(there, now, whole=False) == []
    assert len(differences(there, now)) == 1


def test_an_option_that_dvsn_had_not_yet_is_no_difference() -> None:
    """Of Lightning's own options that a config leaves out, the usual value is known."""
    there = {"trainer": {"max_epochs": 2}}
    assert differences(there, {"trainer": {"max_epochs": 2, "fsdp_checkpoint": "whole"}}) == []
    found = differences(there, {"trainer": {"max_epochs": 2, "overfit_batches": 0.5}})
    assert [str(each) for each in found] == ["trainer.overfit_batches: 0.0 there, 0.5 now"]


def test_a_checkpoint_keeps_the_config_without_its_place(words: list[str], tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("one", "two")]
    configs = [kept(composed([*words, "callbacks=default", f"resume={f}.ckpt"], f)) for f in folders]
    assert configs[0] == configs[1] and configs[0]["callbacks"]["pictures"]["folder"] == "${run_dir}/pictures"
    assert configs[0]["optim"]["lr"] == RATE and str(tmp_path) not in str(configs[0])


# Forced ----------------------------------------------------------------------------------------------


def test_the_advice_works_when_pasted(last: Path, words: list[str], tmp_path: Path) -> None:
    changed = [*words, "trainer.max_epochs=2", f"resume={last}", "optim.lr=0.1", "loss.l1_weight=10"]
    with pytest.raises(UserError) as caught:
        train(composed(changed, tmp_path))
    advised = re.search(r"'resume\.force=\[.*?\]'", str(caught.value))
    assert advised is not None
    train(composed([*changed, *renamed_options(shlex.split(advised.group()))], tmp_path))
    recorded = yaml.safe_load((tmp_path / "config.yaml").read_text())
    written = read_checkpoint(tmp_path / "checkpoints" / "last.ckpt")["dvsn"]
    for ran in (recorded["task"], written["recipe"], written["config"]["task"]):
        assert (ran["optim"]["lr"], ran["loss"]["l1_weight"]) == (0.1, 10)


def test_a_forced_rate_is_in_force(last: Path, words: list[str], tmp_path: Path) -> None:
    """Rate 0 trains nothing; another gives the group, its base and the schedule's present value."""
    more = [*words, "trainer.max_epochs=2", f"resume={last}", "resume_force=[optim.lr,optim.betas]"]
    train(composed([*more, "optim.lr=0"], tmp_path / "zero"))
    assert same(weights(last), weights(tmp_path / "zero" / "checkpoints" / "last.ckpt"))
    train(composed([*more, "optim.lr=0.01", "optim.betas=[0.7,0.9]"], tmp_path / "other"))
    content = read_checkpoint(tmp_path / "other" / "checkpoints" / "last.ckpt")
    third_epoch = 1 - (3 + 1 - 1) / (9 + 1)  # the reference's rule, of the epoch that comes next
    for state, schedule in zip(content["optimizer_states"], content["lr_schedulers"], strict=True):
        group = state["param_groups"][0]
        assert group["initial_lr"] == 0.01 and schedule["base_lrs"] == [0.01]
        assert group["lr"] == pytest.approx(0.01 * third_epoch) and schedule["_last_lr"] == [group["lr"]]
        assert list(group["betas"]) == [0.7, 0.9] and schedule["last_epoch"] == 6
        assert state["state"][0]["step"] == 6, "what the optimiser has gathered stays"


def test_a_forced_batch_size_keeps_the_epochs_of_the_schedule(
    last: Path, words: list[str], tmp_path: Path
) -> None:
    """Six steps an epoch in place of three: after two epochs the rate is that of the third, not of a later one."""
    more = [
        *words,
        "trainer.max_epochs=2",
        f"resume={last}",
        "data.batch_size=1",
        "resume_force=[data.batch_size]",
    ]
    train(composed(more, tmp_path))
    content = read_checkpoint(tmp_path / "checkpoints" / "last.ckpt")
    assert content["lr_schedulers"][0]["last_epoch"] == 12
    assert content["optimizer_states"][0]["param_groups"][0]["lr"] == pytest.approx(RATE * 0.7)
    assert content["global_step"] == 3 + 6


def test_other_batches_are_not_forced_inside_an_epoch(inside: Path, words: list[str], tmp_path: Path) -> None:
    more = [*words, "data.batch_size=1", "resume_force=[data]"]
    with pytest.raises(
        ConfigError, match=r"data\.batch_size: 2 there, 1 now, but .* inside an epoch, after 2 batches"
    ):
        settled(inside, more, tmp_path)
    forced = settled(inside, [*words, "optim.lr=0.1", "resume_force=[optim]"], tmp_path).forced
    assert forced == ("optim.lr",)
