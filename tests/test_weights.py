"""A file of weights is read as data: numpy's numbers beside it, what it is packed in, and bombs."""

from __future__ import annotations

import importlib
import os
import pickle
import re
import struct
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import dvsn
from dvsn.convert.rules import choice
from dvsn.errors import CheckpointError, ConfigError
from dvsn.reading import unpacking
from dvsn.weights import AVERAGED, CONTAINERS, Found, find_weights, read_checkpoint, require_bounded

STATE = {"layer.weight": torch.arange(6.0).view(2, 3)}


def save(path: Path, content: Any, **options: Any) -> Path:
    torch.save(content, path, **options)
    return path


@pytest.mark.parametrize("old", [False, True], ids=["zip", "before 1.6"])
def test_numbers_of_numpy_beside_the_weights(tmp_path: Path, old: bool) -> None:
    beside = {
        "best": np.float64(0.7651), "acc": np.float32(0.5), "half": np.float16(1.5), "epoch": np.int64(-240),
        "done": np.bool_(True), "small": np.uint8(7),
    }  # fmt: skip
    path = save(tmp_path / "x.pth", {"state_dict": STATE, **beside}, _use_new_zipfile_serialization=not old)
    content = read_checkpoint(path)
    assert torch.equal(content["state_dict"]["layer.weight"], STATE["layer.weight"])
    for key, value in beside.items():
        assert content[key] == value and type(content[key]) in (float, int, bool), key


class Other:
    """A number as a machine of the other byte order writes it."""

    def __reduce__(self) -> Any:
        return np.float64(1).__reduce__()[0], (np.dtype(">f8"), struct.pack(">d", 2.5))


def test_numbers_of_another_byte_order(tmp_path: Path) -> None:
    assert read_checkpoint(save(tmp_path / "x.pth", {"state_dict": STATE, "best": Other()}))["best"] == 2.5


def test_arrays_of_numpy_beside_the_weights(tmp_path: Path) -> None:
    content = read_checkpoint(
        save(tmp_path / "x.pth", {"state_dict": STATE, "confusion": np.zeros((19, 19))})
    )
    assert content["confusion"].shape == (19, 19) and content["state_dict"].keys() == STATE.keys()


def test_names_of_numpy_do_not_open_the_door(tmp_path: Path) -> None:
    class Harmful:
        def __reduce__(self) -> Any:
            return np.load, (str(tmp_path / "none"),)

    class Scalar:
        def __reduce__(self) -> Any:
            return np.float64(1).__reduce__()[0], (np.dtype("O"), "anything")

    for harm in (Harmful(), Scalar()):
        path = save(tmp_path / "x.pth", {"state_dict": STATE, "x": harm}, pickle_module=pickle)
        with pytest.raises(CheckpointError, match=r"x.pth: refused|x.pth: not a readable"):
            read_checkpoint(path)


@pytest.mark.parametrize("name", [*CONTAINERS, *AVERAGED])
def test_every_container_is_opened(name: str) -> None:
    assert find_weights({"epoch": 3, name: STATE}) == Found(STATE, name)
    assert find_weights({name: {"state_dict": STATE}}).state is STATE


def test_weights_side_by_side_are_told_and_chosen() -> None:
    averaged = {"layer.weight": torch.zeros(2, 3)}
    found = find_weights({"model": STATE, "model_ema": averaged, "optimizer": {"state": {}}})
    assert found == Found(STATE, "model", ("model_ema",))
    assert choice(found) == (
        "The weights under 'model' were taken; the file also holds 'model_ema' (a running average of the weights), which "
        "container=model_ema takes."
    )
    assert find_weights({"model": STATE, "model_ema": averaged}, "model_ema").state is averaged
    with pytest.raises(CheckpointError, match=r"no weights under 'model_emma'. Did you mean 'model_ema'"):
        find_weights({"model": STATE, "model_ema": averaged}, "model_emma")


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, bomb = save(tmp_path / "x.ckpt", {"state_dict": STATE}), tmp_path / "bomb.ckpt"
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as packed:
        for part in source.infolist():
            packed.writestr(part.filename, source.read(part))
        packed.writestr("x/data/9", bytes(80 << 20))
    monkeypatch.setattr(zipfile.ZipFile, "testzip", lambda _: pytest.fail("was unpacked"))
    with pytest.raises(
        CheckpointError, match=r"bomb.ckpt: [\d,]+ bytes that unpack to [\d,]+; expected 16 times"
    ) as refused:
        read_checkpoint(bomb)
    advice = re.search(r"set (max_unpacked)=(\d+)$", str(refused.value))
    assert advice is not None
    with zipfile.ZipFile(bomb) as archive, unpacking({advice[1]: int(advice[2])}):
        require_bounded(archive, bomb)
    with (
        zipfile.ZipFile(bomb) as archive,
        unpacking({advice[1]: int(advice[2]) - 1}),
        pytest.raises(CheckpointError, match=r"expected [\d,]+ at most \(max_unpacked\)"),
    ):
        require_bounded(archive, bomb)


COMMANDS = {
    "train": ["resume=x.ckpt", "task=classification", "data=cifar10", "network=resnet8x4"],
    "train weights": ["weights=x.ckpt", "task=classification", "data=imagefolder", "network=resnet8x4"],
    "tune": ["weights=x.ckpt", "task=classification", "data=imagefolder", "network=resnet8x4"],
    "evaluate": ["checkpoint=x.ckpt"],
    "average": ["x.ckpt", "y.ckpt"],
    "benchmark": ["checkpoint=x.ckpt"],
    "convert": ["x.ckpt", "y.ckpt"],
    "predict": ["x.ckpt", "x.png"],
    "export": ["x.ckpt"],
    "serve": ["x.ckpt", "port=0"],
    "hub": ["push", "x.ckpt", "local=here"],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_the_bound(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A plain file of some hundred bytes is more than one byte; and a bound that is no number is refused."""
    monkeypatch.chdir(tmp_path)
    save(Path("x.ckpt"), {"state_dict": STATE})
    Image.new("RGB", (4, 4)).save("x.png")
    words = COMMANDS[name]
    module = name.split()[0]
    found = importlib.import_module(
        f"dvsn.{module}.__main__"
        if module not in ("train", "tune", "evaluate", "average")
        else f"dvsn.{module}"
    )
    for bound, message in (
        ("1", r"x.ckpt: [\d,]+ bytes that unpack to [\d,]+; expected 1 at most \(max_unpacked\)"),
        ("much", "max_unpacked: found 'much', expected a number of bytes above 0"),
    ):
        monkeypatch.setattr(sys, "argv", ["dvsn", *words, f"max_unpacked={bound}"])
        with pytest.raises(SystemExit) as stop:
            found.main()
        assert stop.value.code == 2 and re.search(message, capsys.readouterr().err)


def test_load_has_the_bound_too(tmp_path: Path) -> None:
    path = save(tmp_path / "x.ckpt", {"state_dict": STATE})
    with pytest.raises(CheckpointError, match=r"expected 1 at most \(max_unpacked\)"):
        dvsn.load(path, max_unpacked=1)
    with pytest.raises(ConfigError, match="max_unpacked: found 0"):
        dvsn.load(path, max_unpacked=0)
    assert read_checkpoint(path).keys() == {"state_dict"}  # the bound is that of one call


def test_a_packed_checkpoint_of_its_usual_size_is_read(tmp_path: Path) -> None:
    path, packed_file = save(tmp_path / "x.ckpt", {"state_dict": STATE}), tmp_path / "packed.ckpt"
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(packed_file, "w", zipfile.ZIP_DEFLATED) as packed:
        for part in source.infolist():
            packed.writestr(part.filename, source.read(part))
    try:
        content = read_checkpoint(packed_file)
    except CheckpointError as error:  # torch may not read packed parts, but then it says so
        assert "packed.ckpt" in str(error)
    else:
        assert torch.equal(content["state_dict"]["layer.weight"], STATE["layer.weight"])


def test_a_pipe_and_a_folder_are_no_checkpoint(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.ckpt")
    for path, message in (
        (tmp_path / "pipe.ckpt", "is a pipe or a device"),
        (tmp_path, "is a folder without a checkpoint"),
    ):
        with pytest.raises(CheckpointError, match=message):
            read_checkpoint(path)
