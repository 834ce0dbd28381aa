"""What a command line of `dvsn.serve` becomes, and what is said to one that cannot be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dvsn.errors import CheckpointError, ConfigError
from dvsn.serve.options import COMMAND, Settings, is_loopback, parse, read_settings


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("a.onnx", "best.ckpt", "x=y.ckpt", "two words.ckpt"):
        (tmp_path / name).touch()
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "best.ckpt").touch()
    return tmp_path


@pytest.mark.parametrize(
    ("line", "models"),
    [
        ("best.ckpt", {"best": "best.ckpt"}),
        ("sub/best.ckpt a.onnx", {"best": "sub/best.ckpt", "a": "a.onnx"}),
        ("street=a.onnx faces=best.ckpt", {"street": "a.onnx", "faces": "best.ckpt"}),
        ("a.onnx faces=best.ckpt port=0", {"a": "a.onnx", "faces": "best.ckpt"}),
        ("--port 0 street=a.onnx", {"street": "a.onnx"}),
        ("z=x=y.ckpt", {"z": "x=y.ckpt"}),
        ("z=hf://me/net", {"z": "hf://me/net"}),
    ],
)
def test_models_have_names(line: str, models: dict[str, str], folder: Path) -> None:
    found = read_settings(parse(line.split())).models
    assert found == models
    assert list(found) == list(models)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "models: required"),
        (["best.ckpt", "prot=8001"], "8001: no such file.*Nor is 'prot' an option. Did you mean 'port'"),
        (["best.ckpt", "sub/best.ckpt"], "two are called 'best'"),
        (["two words.ckpt"], "cannot be called 'two words'.*Write NAME=two words.ckpt"),
        (["x=y.ckpt"], "cannot be called 'x=y'"),
        (["nothing.onnx"], "nothing.onnx: no such file"),
        (["a.onnx", "batch=0"], "batch: found 0, expected 1 or more"),
        (["a.onnx", "wait=-1"], "wait: found -1"),
        (["a.onnx", "upload=0"], "upload: found 0"),
        (["a.onnx", "port=65536"], "port: found 65536"),
        (["a.onnx", "port=many"], "port: expected"),
        (["a.onnx", "boxes=found.json"], "boxes: found found.json, expected image"),
        (["a.onnx", "category=1"], "category: found 1, expected"),
    ],
)
def test_what_cannot_be_is_said(words: list[str], said: str, folder: Path) -> None:
    with pytest.raises((ConfigError, CheckpointError), match=said):
        read_settings(parse(words))


def test_the_settings_are_the_options(folder: Path) -> None:
    """The defaults of both agree, and milliseconds become seconds."""
    settings = read_settings(parse(["a.onnx"]))
    assert settings == Settings(models={"a": "a.onnx"})
    assert {option.name for option in COMMAND.options} == {*vars(settings), "max_unpacked"}
    assert read_settings(parse(["a.onnx", "wait=50", "names=[Big.Example]"])).wait == pytest.approx(0.05)
    assert read_settings(parse(["a.onnx", "names=[Big.Example]"])).names == ("big.example",)


@pytest.mark.parametrize(
    ("host", "local"),
    [("127.0.0.1", True), ("127.3.2.1", True), ("::1", True), ("[::1]", True), ("LOCALHOST", True), ("0.0.0.0", False),
     ("::", False), ("192.168.0.7", False), ("localhost.evil.com", False)],
)  # fmt: skip
def test_what_others_reach(host: str, local: Any) -> None:
    assert is_loopback(host) is local
