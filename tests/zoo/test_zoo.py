"""The zoo: each of its lines is valid, the page says what the file says, and a score is compared as it should be."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from dvsn.convert.options import COMMAND as CONVERT
from dvsn.errors import ConfigError
from dvsn.zoo import __main__ as command
from dvsn.zoo.entries import FILE, entries, find, page
from tests.support.documented import ROOT, Start, start_fixture, words_of  # noqa: F401

SHAPES = {
    tuple(word for word in entry.evaluate if not word.startswith("data.root")): entry
    for entry in entries().values()
    if entry.evaluate
}
"""Lines that measure, one of each kind: those of the same options compose alike."""


def test_the_file_is_complete() -> None:
    names = [name for node in yaml.safe_load(FILE.read_text()) for name in node["files"]]
    assert len(names) == len(set(names)) == len(entries()) >= 55
    for entry in entries().values():
        assert (entry.score is None) == (entry.protocol is None), entry.name
        assert (entry.evaluate is None) == bool(entry.why), entry.name
        assert entry.called in ("published", "here") and entry.of.source and entry.of.licence_from
        assert entry.score is None or 0 < entry.score < 100


def test_every_line_that_converts_is_understood() -> None:
    for entry in entries().values():
        words = words_of(entry.lines()[0])
        options = CONVERT.parse(words[3:])
        assert options["source"] == entry.file and options["output"] == f"{entry.name}.ckpt"


@pytest.mark.parametrize("name", [entry.name for entry in SHAPES.values()])
def test_every_line_that_measures_composes(name: str, start: Start) -> None:
    entry = find(name)
    given = start(words_of(entry.lines()[1]))
    assert given["checkpoint"] == f"{name}.ckpt"
    assert given["data"]["root"].startswith("/data/")


def test_the_page_is_made_from_the_file() -> None:
    text = page()
    assert (ROOT / "docs" / "zoo.md").read_text(encoding="utf-8") == text, "run `make pages`"
    for entry in entries().values():
        for line in entry.lines():
            assert f"    {line}\n" in text
    assert "None of these files was at hand" in text


# The command ------------------------------------------------------------------------------------------------


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    monkeypatch.setattr(sys, "argv", ["zoo", *words])
    command.main()


def test_the_list_and_one_entry(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    run(monkeypatch)
    assert len(capsys.readouterr().out.splitlines()) == len(entries()) + 2
    run(monkeypatch, "show", "pidnet_s_cityscapes")
    said = capsys.readouterr().out
    assert "miou 78.8" in said and "MIT" in said and "never" in said and "PIDNet_S_Cityscapes_val.pt" in said


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["show", "pidnet_s"], "pidnet_s: no such checkpoint. Did you mean 'pidnet_"),
        (["shw"], "Did you mean 'show'"),
        (["verify", "pidnet_s_cityscapes"], "file: required and not given"),
        (["verify", "cyclegan_generator", "file=a.pth"], "cannot be measured: learned without pairs"),
    ],
)
def test_what_is_wrong_is_said(
    words: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        run(monkeypatch, *words)
    assert stop.value.code == 2 and message in capsys.readouterr().err


@pytest.mark.parametrize(("found", "code"), [(0.7895, 0), (0.7849, 1)])
def test_both_lines_run_and_the_score_is_compared(
    found: float,
    code: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    ran: list[list[str]] = []

    def pretend(words: list[str]) -> Any:
        ran.append(words[1:])
        if "dvsn.evaluate" in words:
            folder = Path(next(word for word in words if word.startswith("output=")).partition("=")[2])
            folder.mkdir(parents=True)
            (folder / "metrics.json").write_text(json.dumps({"metrics": {"miou": found}}))
        return type("Done", (), {"returncode": 0})

    monkeypatch.setattr(command.subprocess, "run", pretend)
    words = ["pidnet_s_cityscapes", "file=a.pt", "data.root=/mine", "batch_size=1", f"output={tmp_path}"]
    if code:
        with pytest.raises(SystemExit) as stop:
            run(monkeypatch, "verify", *words)
        assert stop.value.code == code
    else:
        run(monkeypatch, "verify", *words)
    place = tmp_path / "pidnet_s_cityscapes"
    checkpoint = place / "pidnet_s_cityscapes.ckpt"
    assert ran[0] == shlex.split(f"-m dvsn.convert source=a.pt output={checkpoint} heads=false")
    assert ran[1] == shlex.split(
        f"-m dvsn.evaluate checkpoint={checkpoint} data=cityscapes transform=none data.root=/mine batch_size=1 "
        f"output={place / 'evaluation'}"
    )
    record = json.loads((place / "verified.json").read_text())
    assert record["same"] == (code == 0) and record["difference"] == pytest.approx(100 * found - 78.8)
    assert ("NOT the same" in capsys.readouterr().out) == bool(code)


def test_a_failed_conversion_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command.subprocess, "run", lambda words: type("Done", (), {"returncode": 2}))
    with pytest.raises(SystemExit) as stop:
        run(monkeypatch, "verify", "pidnet_s_cityscapes", "file=a.pt")
    assert stop.value.code == 2 and not list(tmp_path.iterdir())


def test_an_unknown_name() -> None:
    with pytest.raises(ConfigError, match="no such checkpoint"):
        find("nothing")
