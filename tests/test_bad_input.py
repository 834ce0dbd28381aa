"""Wrong input through the command itself: exit code 2, one message that says where and what, no traceback."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from dvsn import train
from tests.support.tiny import TINY, write_pairs

Run = Callable[..., str]


@pytest.fixture(autouse=True)
def own_logging() -> Iterator[None]:
    """Hydra's log handlers keep the stream that is captured now."""
    torch.set_num_threads(1)
    root = logging.getLogger()
    before = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = before


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Runs `python -m dvsn.train ...` in this process and answers its one message."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)

    def call(*options: str, tiny: bool = True, code: int = 2) -> str:
        given = [*TINY, "trainer.max_epochs=1", f"data.root={tmp_path}/pairs"] if tiny else []
        keys = {option.partition("=")[0] for option in options}
        given = [option for option in given if option.partition("=")[0] not in keys]
        monkeypatch.setattr(sys, "argv", ["dvsn.train", *given, *options])
        with pytest.raises(SystemExit) as left:
            train.main()
        text = capfd.readouterr().err
        assert left.value.code == code, text
        assert "Traceback" not in text and 'File "' not in text, text
        assert text.count("error: ") == 1, text
        return text[text.index("error: ") :]

    return call


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    return write_pairs(tmp_path / "pairs", train=4, val=2)


def picture(path: Path, height: int, width: int, channels: int = 3) -> None:
    random = np.random.default_rng(0)
    assert cv2.imwrite(str(path), random.integers(0, 256, (height, width, channels), dtype=np.uint8))


# Data ------------------------------------------------------------------------------------------------


def test_a_missing_root(run: Run) -> None:
    message = run("data=cityscapes", "data.root=/nowhere/cityscapes", "transform=none")
    assert "/nowhere/cityscapes" in message and "data.root" in message
    assert "leftImg8bit" in message and "gtFine" in message


def test_a_missing_root_of_pairs(run: Run, tmp_path: Path) -> None:
    message = run(f"data.root={tmp_path}/pears")
    assert f"{tmp_path}/pears" in message and "data.root" in message and "NAME.png" in message


def test_an_unknown_split_folder(run: Run, pairs: Path) -> None:
    message = run("data.splits.val=validation")
    assert "validation" in message and "data.splits" in message


@pytest.mark.parametrize("workers", [0, 1])
def test_a_truncated_picture_is_named(workers: int, run: Run, pairs: Path) -> None:
    file = pairs / "train" / "b" / "002.png"
    file.write_bytes(file.read_bytes()[:-20])
    message = run(f"data.workers={workers}")
    assert str(file) in message and "truncated" in message
    assert "worker" not in message and "Caught" not in message


def test_a_file_that_is_no_picture(run: Run, pairs: Path) -> None:
    file = pairs / "val" / "a" / "001.png"
    file.write_text("<html>404</html>")
    message = run()
    assert str(file) in message and "not a readable picture" in message


def test_an_empty_file(run: Run, pairs: Path) -> None:
    (pairs / "train" / "a" / "000.png").write_bytes(b"")
    message = run()
    assert "000.png" in message and "empty" in message


def test_a_pair_of_two_sizes(run: Run, pairs: Path) -> None:
    picture(pairs / "train" / "a" / "001.png", 16, 24)
    message = run()
    assert "001.png" in message and "16x24" in message and "16x16" in message


def test_a_picture_without_a_partner(run: Run, pairs: Path) -> None:
    (pairs / "train" / "b" / "003.png").unlink()
    message = run()
    assert "003" in message and "only in" in message


def test_sides_that_the_network_cannot_take(run: Run, pairs: Path) -> None:
    for folder in ("a", "b"):
        picture(pairs / "train" / folder / "002.png", 20, 16)
    message = run()
    assert "002" in message and "20 x 16" in message and "divisible by 8" in message


def test_a_batch_of_two_sizes(run: Run, pairs: Path) -> None:
    for folder in ("a", "b"):
        picture(pairs / "train" / folder / "002.png", 32, 16)
    message = run("data.batch_size=4")
    assert "002 is 32x16" in message and "is 16x16" in message and "transform=resize_256" in message


def test_label_ids_out_of_range_name_the_file(run: Run, pairs: Path) -> None:
    for split in ("train", "val"):
        for file in (pairs / split / "a").iterdir():
            cv2.imwrite(str(file), np.full((16, 16), 9 if file.stem == "002" else 1, dtype=np.uint8))
    message = run("data.dataset.a_kind=ids", "data.label_classes=5", "data.input_channels=5")
    assert "9" in message and "expected 0 to 4" in message and "data.label_classes" in message
    assert "002" in message


def test_ids_where_colours_are_expected(run: Run, pairs: Path) -> None:
    message = run("data.dataset.a_kind=ids", "data.label_classes=5", "data.input_channels=5")
    assert "000.png" in message and "label ids in one channel" in message


def test_no_training_picture(run: Run, pairs: Path) -> None:
    for folder in ("a", "b"):
        for file in (pairs / "train" / folder).iterdir():
            file.unlink()
    assert "no picture" in run()


# Options ---------------------------------------------------------------------------------------------


OPTIONS: dict[str, tuple[list[str], list[str]]] = {
    "channels": (
        ["data.input_channels=4"],
        ["000.png: found 3 bands, expected 4 (data.input_channels)", "set data.input_channels=3"],
    ),
    "classes": (["data.label_classes=5"], ["data.input_channels: found 3", "Set data.input_channels=5"]),
    "batch size": (["data.batch_size=0"], ["data.batch_size: found 0"]),
    "monitor": (["monitor.name=val/mIoU"], ["monitor.name", "'val/mIoU'", "val/l1", "val/psnr"]),
    "monitor's mode": (["monitor.mode=best"], ["monitor.mode", "'best'", "min", "max"]),
    "resume": (["resume=runs/gone.ckpt"], ["runs/gone.ckpt", "no such checkpoint"]),
    "weights": (["weights=gone.ckpt"], ["gone.ckpt", "no such checkpoint"]),
    "resume a number": (["resume=5"], ["resume: found 5, expected null or the path of a checkpoint"]),
    "resume a list": (["resume=[a]"], ["resume: found ['a'], expected"]),
    "weights a list": (["weights=[x]"], ["weights: found ['x'], expected"]),
    "force a mapping": (["resume_force={a: 1}"], ["resume_force", "{a: 1}"]),
    "checkpoint a word": (
        ["checkpoint=last.ckpt"],
        ["checkpoint: found 'last.ckpt'", "set resume=last.ckpt"],
    ),
    "trainer null": (["trainer=null"], ["trainer: found null", "Choices of trainer=...: cpu"]),
    "no devices": (["trainer.devices=0"], ["trainer.devices", "found 0"]),
    "devices in words": (["trainer.devices=many"], ["trainer.devices", "'many'"]),
    "accelerator": (["trainer.accelerator=quantum"], ["trainer.accelerator", "'quantum'", "'cpu'"]),
    "precision": (["trainer.precision=8"], ["trainer.precision", "found 8"]),
    "name": (["name=../outside"], ["name: found '../outside'"]),
    "absolute name": (["name=/outside"], ["name: found '/outside'"]),
    "seed": (["seed=-1"], ["seed", "-1"]),
    "seed of words": (["seed=lucky"], ["seed", "'lucky'"]),
    "ema": (["ema=2"], ["ema", "2"]),
    "ema of words": (["ema=yes please"], ["ema", "yes please"]),
    "accumulation": (["trainer.accumulate_grad_batches=0"], ["trainer.accumulate_grad_batches: found 0"]),
    "clipping": (["trainer.gradient_clip_algorithm=hard"], ["gradient_clip_algorithm", "'hard'", "'norm'"]),
    "negative clipping": (["trainer.gradient_clip_val=-1"], ["gradient_clip_val", "-1"]),
    "generator forwards": (["task.generator_forwards=3"], ["task.generator_forwards", "found 3"]),
    "value range": (["task.value_range=bytes"], ["task.value_range", "'bytes'", "'signed'"]),
    "no discriminator": (
        ["task.discriminator=null"],
        ["task.discriminator: found null", "that fit: n_layers, patchgan"],
    ),
    "typo": (["trainer.max_epoch=3"], ["trainer.max_epoch", "max_epochs"]),
    "typo of a group": (["netwrk=unet_256"], ["netwrk", "network"]),
    "typo of an option": (["network=unet_265"], ["network=unet_265", "unet_256"]),
    "type": (["network.width=wide"], ["network.width", "a whole number", "'wide'"]),
    "width": (["network.width=0"], ["width must be at least 1, found 0"]),
    "checkpoint interval": (["checkpoint.every_n_epochs=0"], ["checkpoint.every_n_epochs", "0"]),
    "pictures": (
        ["callbacks=default", "callbacks.pictures.every_n_epochs=0"],
        ["callbacks.pictures.every_n_epochs"],
    ),
    "rates": (["callbacks=default", "callbacks.rates.every_n_steps=0"], ["callbacks.rates.every_n_steps"]),
    "schedule": (["schedule=poly", "schedule.warmup_steps=-5"], ["schedule", "warmup_steps=-5"]),
    "channels_last": (["channels_last=maybe"], ["channels_last", "maybe"]),
    "max_time": (["trainer.max_time=soon"], ["trainer: ", "soon", "DD:HH:MM:SS"]),
    "inception": (["metrics.inception_weights=no.pth"], ["metrics.inception_weights", "no.pth"]),
}


@pytest.mark.parametrize("fault", OPTIONS)
def test_wrong_options(fault: str, run: Run, pairs: Path) -> None:
    options, expected = OPTIONS[fault]
    message = run(*options)
    assert all(part in message for part in expected), message


def test_a_batch_that_does_not_divide_by_the_devices(pairs: Path, tmp_path: Path) -> None:
    from types import SimpleNamespace

    from dvsn.engine import trainer as runtime
    from dvsn.errors import ConfigError
    from tests.support.tiny import composed

    data = runtime.build_data(composed([*TINY, f"data.root={pairs}", "data.batch_size=3"], tmp_path))
    data.trainer = SimpleNamespace(world_size=2)  # type: ignore[assignment]
    with pytest.raises(
        ConfigError,
        match=r"data.batch_size: 3 .* does not divide by 2.* Set data.batch_size=2 .*multiple of 2",
    ):
        data.setup("fit")
    for stage in ("validate", "test"):  # of which nothing depends on the batch of training
        data.setup(stage)


def test_nothing_is_opened_before_the_options_are_right(run: Run, tmp_path: Path) -> None:
    """The data set is missing too, and it is the option that is named."""
    message = run("network.width=wide", "data.root=/nowhere")
    assert "network.width" in message and "/nowhere" not in message
    assert not (tmp_path / "runs").exists()


def test_debug_shows_the_traceback(
    pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        sys, "argv", ["dvsn.train", *TINY, f"data.root={pairs}", "data.batch_size=0", "debug=true"]
    )
    with pytest.raises(SystemExit) as left:
        train.main()
    assert left.value.code == 2 and "Traceback" in capfd.readouterr().err


def test_a_folder_that_cannot_be_written(run: Run, pairs: Path, tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file where the folder of runs should be")
    assert f"{tmp_path / 'runs'} is a file, expected a folder" in run(code=2)
