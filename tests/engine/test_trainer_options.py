"""Options of Lightning's trainer: each works, or is refused with what to use instead, which works when pasted."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch

from dvsn.config.rules import TRAINER_OPTIONS, TRAINER_REFUSED, check_options
from dvsn.engine import trainer as runtime
from dvsn.engine.callbacks import PictureGrid
from dvsn.engine.faults import of_options
from dvsn.errors import ConfigError, UserError
from dvsn.train import train
from tests.support.tiny import TINY, composed, write_pairs


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    torch.set_num_threads(1)
    pairs = write_pairs(tmp_path_factory.mktemp("pairs"), train=5, val=2)
    return [*TINY, f"data.root={pairs}", "trainer.max_epochs=2"]


def advised(text: str) -> list[str]:
    """The options that a message says to set."""
    return re.findall(r"\b[a-z_]+(?:\.[a-z_0-9]+)*=[^\s,;]+", text.partition("Set ")[2].partition(" or ")[0])


def test_every_option_of_lightning_is_known() -> None:
    options = set(inspect.signature(pl.Trainer).parameters) - {"self", "enable_autolog_hparams"}
    assert options == set(TRAINER_OPTIONS) - {"process_timeout", *runtime.OWN_OPTIONS}


@pytest.mark.parametrize("option", TRAINER_REFUSED)
def test_what_would_do_nothing_is_refused_and_the_advice_works(
    option: str, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    neutral, _ = TRAINER_REFUSED[option]
    value = "false" if neutral is True else "x" if neutral is None else "2"
    with pytest.raises(ConfigError, match=rf"^trainer\.{option}: found ") as caught:
        train(composed([*words, f"+trainer.{option}={value}"], tmp_path))
    pasted = [each for each in advised(str(caught.value)) if not each.startswith("hydra.")]
    if not pasted:
        return
    if "logger=wandb" in pasted:  # is tried without its service
        composed([*words, *pasted], tmp_path)
        return
    result = train(composed([*words, *pasted], tmp_path))
    assert result["epochs"] == 2
    if option == "overfit_batches":
        assert result["steps"] == 2 * 5 and "val/l1" in result["metrics"]


def test_the_allowed_value_of_each_is_left_out(words: list[str], tmp_path: Path) -> None:
    given = [
        f"+trainer.{key}={str(value).lower() if value is not None else 'null'}"
        for key, (value, _) in TRAINER_REFUSED.items()
    ]
    config = composed([*words, *given], tmp_path)
    runtime.build_trainer(config, runtime.make_task(config))


WITHOUT_MEANING = [
    "trainer.check_val_every_n_epoch=0", "trainer.val_check_interval=0", "trainer.limit_train_batches=0",
    "trainer.fast_dev_run=-1", "trainer.max_time=5",
    "trainer.process_timeout=0", "trainer.strategy=deepspeed", "trainer.strategy=ddp_spawn",
]  # fmt: skip


@pytest.mark.parametrize("option", WITHOUT_MEANING)
def test_values_without_a_meaning(option: str, words: list[str], tmp_path: Path) -> None:
    name, _, value = option.partition("=")
    with pytest.raises(ConfigError, match=rf"^{re.escape(name)}: found '?{re.escape(value)}'?, expected "):
        train(composed([*words, option], tmp_path))


COUNTED = {
    "trainer.val_check_interval=100": r"val_check_interval: found 100, but an epoch has 5 batches",
    "trainer.limit_train_batches=0.01": r"limit_train_batches: found 0\.01, which of 5 batches is none",
    "trainer.limit_val_batches=0.01": r"limit_val_batches: found 0\.01, which of 2 batches is none",
}


@pytest.mark.parametrize("option", COUNTED)
def test_what_is_known_when_batches_are_counted(option: str, words: list[str], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=COUNTED[option]) as caught:
        train(composed([*words, option], tmp_path))
    pasted = advised(str(caught.value))
    assert pasted and train(composed([*words, option, *pasted], tmp_path))["epochs"] == 2


@pytest.mark.parametrize("advice", ["optim.fused=false", "trainer.precision=32-true"])
def test_a_fused_optimiser_is_not_clipped_under_mixed_precision(
    advice: str, words: list[str], tmp_path: Path
) -> None:
    """Lightning would say so in the first step; the advice is tried."""
    given = [*words, "optim.fused=true", "trainer.gradient_clip_val=1", "trainer.precision=bf16-mixed"]
    with pytest.raises(
        ConfigError, match=r"^optim\.fused: found true with trainer\.gradient_clip_val=1"
    ) as caught:
        train(composed(given, tmp_path))
    assert advice in str(caught.value)
    kept = [word for word in given if word.partition("=")[0] != advice.partition("=")[0]]
    assert train(composed([*kept, advice, "trainer.max_epochs=1"], tmp_path))["epochs"] == 1


def test_validation_across_epochs(words: list[str], tmp_path: Path) -> None:
    across = ["trainer.val_check_interval=7", "trainer.check_val_every_n_epoch=null"]
    assert "val/l1" in train(composed([*words, *across], tmp_path))["metrics"]


NEVER = {
    "trainer.max_steps=3": "trainer.val_check_interval=3 trainer.check_val_every_n_epoch=null",
    "trainer.max_steps=8 trainer.check_val_every_n_epoch=2": "trainer.check_val_every_n_epoch=1",
    "trainer.max_steps=3 trainer.accumulate_grad_batches=2 trainer.check_val_every_n_epoch=2":
    "trainer.check_val_every_n_epoch=1",
    "trainer.val_check_interval=11 trainer.check_val_every_n_epoch=null": "trainer.val_check_interval=10 "
    "trainer.check_val_every_n_epoch=null",
    "trainer.limit_val_batches=0": "",
}  # fmt: skip


@pytest.mark.parametrize("given", NEVER)
def test_a_run_that_is_never_validated_says_so(
    given: str, words: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Two epochs of five batches; what is advised is validated."""
    first = train(composed([*words, *given.split()], tmp_path / "never"))
    assert first["best"] is None and not list(tmp_path.glob("never/checkpoints/best.ckpt"))
    assert "No best.ckpt is kept, since val/l1 is not measured." in caplog.text
    assert caplog.text.partition(" Set ")[2].partition("\n")[0] == NEVER[given]
    if NEVER[given]:
        caplog.clear()
        mended = [word for word in given.split() if word.partition("=")[0] not in NEVER[given]]
        assert train(composed([*words, *mended, *NEVER[given].split()], tmp_path / "mended"))["best"]
        assert caplog.text == ""


@pytest.mark.parametrize(
    "given",
    ["trainer.max_steps=5", "trainer.max_steps=10 trainer.check_val_every_n_epoch=2", "trainer.val_check_interval=5",
     "trainer.val_check_interval=10 trainer.check_val_every_n_epoch=null",
     "trainer.max_steps=2 trainer.val_check_interval=2", "trainer.max_steps=3 trainer.accumulate_grad_batches=2"],
)  # fmt: skip
def test_a_run_that_is_just_long_enough_says_nothing(
    given: str, words: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert train(composed([*words, *given.split()], tmp_path))["best"] and caplog.text == ""


def test_a_resumed_run_counts_from_where_it_goes_on(
    words: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train(composed([*words, "trainer.max_steps=7"], tmp_path))
    again = [*words, f"resume={tmp_path}/checkpoints/last.ckpt"]
    caplog.clear()
    train(composed([*again, "trainer.max_steps=9"], tmp_path / "again"))
    assert "ends after batch 9, and its first validation would be after batch 10" in caplog.text
    caplog.clear()
    train(composed([*again, "trainer.max_steps=10"], tmp_path / "more"))
    assert "first validation" not in caplog.text


TOO_SHORT = {
    "trainer.max_epochs=0": r"trainer\.max_epochs: found 0, with which nothing is trained",
    "trainer.max_steps=0": r"trainer\.max_steps: found 0, with which nothing is trained",
    "trainer.check_val_every_n_epoch=3": r"found 3, and the run has 2 epochs, so it would never be validated",
}


@pytest.mark.parametrize("unit", ["epochs", "steps"])
def test_a_run_that_is_shorter_than_its_least_length_is_refused(
    unit: str, words: list[str], tmp_path: Path
) -> None:
    given = [*words, f"trainer.max_{unit}=3", f"+trainer.min_{unit}=4"]
    with pytest.raises(
        ConfigError, match=rf"^trainer\.min_{unit}: found 4, but the run ends after 3"
    ) as caught:
        check_options(composed(given, tmp_path))
    for pasted in advised(str(caught.value)):
        check_options(composed([*given, pasted], tmp_path))


@pytest.mark.parametrize("option", TOO_SHORT)
def test_a_run_of_no_length_is_refused_before_it_starts(
    option: str, words: list[str], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=TOO_SHORT[option]) as caught:
        train(composed([*words, option], tmp_path))
    for pasted in advised(str(caught.value)):
        assert train(composed([*words, option, pasted], tmp_path))["best"]
    train(composed([*words, option, "trainer=fast_dev_run", "trainer.accelerator=cpu"], tmp_path / "quick"))


@pytest.mark.parametrize(
    ("quick", "batches"), [("trainer=fast_dev_run", 3), ("trainer.fast_dev_run=true", 1)]
)
def test_a_quick_run_is_one_epoch_whatever_an_experiment_says(
    quick: str, batches: int, words: list[str], tmp_path: Path
) -> None:
    fixed = [word for word in words if not word.startswith("trainer=")]
    given = [
        "trainer.max_epochs=3",
        "trainer.limit_train_batches=1.0",
        "logger=csv",
        "trainer.accelerator=cpu",
    ]
    result = train(composed([*fixed, quick, *given], tmp_path))
    assert (result["epochs"], result["steps"]) == (1, batches)
    assert (tmp_path / "metrics.csv").is_file() and (tmp_path / "checkpoints" / "last.ckpt").is_file()


def test_the_demo_is_quick_too(tmp_path: Path) -> None:
    """`experiment=demo` sets its epochs, and validates after some of them."""
    config = composed(["experiment=demo", "trainer=fast_dev_run"], tmp_path)
    trainer = runtime.build_trainer(config, runtime.make_task(config))
    assert (trainer.max_epochs, trainer.limit_train_batches, trainer.limit_val_batches) == (1, 3, 3)


# Callbacks and loggers -------------------------------------------------------------------------------


def test_a_callback_that_is_null_is_left_out(words: list[str], tmp_path: Path) -> None:
    config = composed([*words, "callbacks=default", "callbacks.pictures=null"], tmp_path)
    trainer = runtime.build_trainer(config, runtime.make_task(config))
    assert not any(isinstance(each, PictureGrid) for each in trainer.callbacks)  # type: ignore[attr-defined]
    train(config)


@pytest.mark.parametrize("group", ["callbacks", "logger"])
def test_options_without_a_class_are_refused(group: str, words: list[str], tmp_path: Path) -> None:
    config = composed([*words, f"+{group}.pictures.count=3"], tmp_path)
    with pytest.raises(
        ConfigError, match=rf"{group}\.pictures: .* expected null, or options with _target_"
    ) as caught:
        train(config)
    pasted = str(caught.value).rpartition(" ")[2]
    composed([*words, pasted], tmp_path)


def test_a_callback_that_fails_is_named(words: list[str], tmp_path: Path) -> None:
    stopping = "+callbacks.stop={_target_: pytorch_lightning.callbacks.EarlyStopping, monitor: val/mIoU}"
    with pytest.raises(UserError, match=r"^callbacks\.stop: EarlyStopping failed: .*val/mIoU") as caught:
        train(composed([*words, stopping], tmp_path))
    (left_out,) = re.findall(r"callbacks\.stop=null", str(caught.value))
    train(composed([*words, stopping, left_out], tmp_path))


def test_an_error_outside_of_callbacks_stays_what_it_is(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise KeyError("a fault of dvsn")

    config = composed([*words, "callbacks=default"], tmp_path)
    monkeypatch.setattr("dvsn.tasks.pix2pix.Pix2Pix.training_step", broken)
    with pytest.raises(KeyError, match="a fault of dvsn"):
        train(config)


def test_a_logger_whose_package_is_missing(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lightning_fabric.loggers import tensorboard

    monkeypatch.setattr(tensorboard, "_TENSORBOARD_AVAILABLE", False)
    monkeypatch.setattr(tensorboard, "_TENSORBOARDX_AVAILABLE", False)
    with pytest.raises(
        ConfigError, match=r"logger\.tensorboard: TensorBoardLogger needs a package that is missing"
    ) as caught:
        train(composed([*words, "logger=tensorboard"], tmp_path))
    assert "pip install" in str(caught.value)


def test_a_run_without_an_end_in_epochs(words: list[str], tmp_path: Path) -> None:
    """Lightning opens no loader to count its steps, and the number of batches is not known."""
    result = train(composed([*words, "trainer.max_epochs=-1", "trainer.max_steps=2"], tmp_path))
    assert result["steps"] == 2


@pytest.mark.parametrize("precision", ["16-true", "bf16-true", "64-true", "64", "transformer-engine"])
def test_precisions_that_no_task_works_in(precision: str, words: list[str], tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=rf"trainer\.precision: found {precision}, .* Set trainer\.precision=32-true"
    ):
        train(composed([*words, f"trainer.precision={precision}"], tmp_path))


@pytest.mark.parametrize(("devices", "batch", "fits"), [("3", 4, False), ("[0,1]", 3, False), ("2", 4, True)])
def test_a_batch_that_does_not_divide_is_refused_before_a_process_starts(
    devices: str, batch: int, fits: bool, words: list[str], tmp_path: Path
) -> None:
    config = composed([*words, f"trainer.devices={devices}", f"data.batch_size={batch}"], tmp_path)
    if fits:
        check_options(config)
        return
    with pytest.raises(
        ConfigError, match=rf"data\.batch_size: {batch} is the total .* Set data\.batch_size="
    ):
        check_options(config)


def test_more_processes_than_pictures_are_told() -> None:
    """By the words in which Lightning says it, which are looked for in Lightning itself."""
    words = "within local rank has zero length"
    assert words in inspect.getsource(pl.utilities.data)
    found = of_options(
        RuntimeError(f"`DataLoader` {words}. Please make sure that it returns at least 1 batch.")
    )
    assert isinstance(found, ConfigError) and "Set trainer.devices=1" in str(found)
