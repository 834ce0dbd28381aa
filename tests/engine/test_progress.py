"""The line that shows how far a run is, and the line an epoch in the log."""

from __future__ import annotations

import csv
import io
import logging
import math
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from dvsn.engine import progress, trainer
from dvsn.engine.progress_line import Position, clock, line, named, shortened, spoken
from dvsn.engine.screens import Notebook, Terminal, above, find_screen
from dvsn.train import train
from tests.support.tiny import TINY, composed, write_pairs

LOSSES = {"discriminator_real": 0.313, "discriminator_fake": 0.28, "gan": 0.4012, "l1": 9.214}
POSITION = Position("epoch 3/10", done=123, total=200, rate=38.2, left=12.0, run_left=225.0)


@pytest.mark.parametrize("width", [200, 100, 99, 80, 60, 40, 20])
def test_the_line_fits(width: int) -> None:
    text = line(POSITION, LOSSES, width)
    assert len(text) <= width and text.startswith("epoch 3/10")


def test_what_the_line_says() -> None:
    wide = line(POSITION, LOSSES, 200)
    bar = "━" * 12 + "╌" * 8  # 123 of 200 are 12.3 of 20
    assert wide == (
        f"epoch 3/10  {bar}  123/200  38/s  0:12, run 3:45 left  "
        "discriminator_real 0.313  discriminator_fake 0.280  gan 0.401  l1 9.21"
    )
    assert line(POSITION, LOSSES, 100) == (
        "epoch 3/10  123/200  38/s  0:12, run 3:45 left  disc_real 0.313  disc_fake 0.280  gan 0.401  l1 9.21"
    )
    assert line(POSITION, {}, 60, plain=True) == "epoch 3/10  ######----  123/200  38/s  0:12, run 3:45 left"
    endless = Position("epoch 1", done=7, total=None, rate=None, left=None, run_left=None)
    assert line(endless, {}, 100) == "epoch 1  7"


def test_numbers_and_times() -> None:
    found = [spoken(value) for value in (0.01234, 1.2, 12.34, 123.4, 12345.6, 0.0, math.nan)]
    assert found == ["0.0123", "1.20", "12.3", "123", "12346", "0.00", "nan"]
    times = [clock(seconds) for seconds in (0, 7.4, 750, 11040, 187800)]
    assert times == ["0:00", "0:07", "12:30", "3:04:00", "2 d 04:10"]
    assert shortened("discriminator_real", 4) == "disc_real" and shortened("l1", 3) == "l1"
    assert named({"gan": 0.5}) == ["gan 0.500"]


def test_messages_stand_above_the_line() -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        terminal = Terminal(stream)
        with above(terminal):
            terminal.show("half way")
            root.warning("look")
        root.warning("later")
    finally:
        root.removeHandler(handler)
    assert stream.getvalue() == "\rhalf way\x1b[K\r" + "\r\x1b[K\r" + "look\n" + "later\n"


class Recorder:
    """A screen that keeps what it was shown."""

    plain = False

    def __init__(self) -> None:
        self.lines: list[str] = []

    def width(self) -> int:
        return 100

    def show(self, text: str) -> None:
        self.lines.append(text)

    def clear(self) -> None:
        pass


@pytest.fixture
def run(tmp_path: Path) -> dict[str, Any]:
    torch.set_num_threads(1)
    pairs = write_pairs(tmp_path / "pairs", train=4, val=2)
    words = [each for each in TINY if not each.startswith("trainer.enable_progress_bar")]
    more = ["trainer.max_epochs=3", "trainer.check_val_every_n_epoch=2", "trainer.log_every_n_steps=1"]
    return composed([*words, f"data.root={pairs}", *more], tmp_path / "run")


def test_a_run_on_a_screen(run: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Recorder()
    monkeypatch.setattr(trainer, "find_screen", lambda: screen)
    monkeypatch.setattr(progress, "REFRESH", 0.0)
    train(run)
    ends = [each for each in screen.lines if each.startswith("epoch") and "4/4" in each]
    assert len(ends) == 3 and ends[0].startswith("epoch 1/3  ") and "l1 " in ends[0] and "run 0:0" in ends[0]
    assert [each for each in screen.lines if each.startswith("epoch 2/3, validation") and "2/2" in each]
    assert not [each for each in screen.lines if "epoch 1/3, validation" in each]
    assert max(map(len, screen.lines)) <= 100


def test_a_line_an_epoch_without_a_screen(
    run: dict[str, Any], caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with caplog.at_level(logging.INFO, logger="dvsn"):
        result = train(run)
    lines = [message for message in caplog.messages if message.startswith("epoch ")]
    assert [each.split("  ")[0] for each in lines] == ["epoch 1/3", "epoch 2/3", "epoch 3/3"]
    assert [", ssim " in each for each in lines] == [False, True, False], "scores where they were measured"
    assert f"val l1 {spoken(result['metrics']['val/l1'])}, " in lines[1], "the monitor first"
    assert [each.endswith(" left") for each in lines] == [True, True, False]
    assert "\r" not in "".join(capfd.readouterr())


def test_losses_are_means_over_the_epoch(
    run: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    table = {"_target_": "dvsn.engine.loggers.CsvLogger", "folder": str(tmp_path)}
    with caplog.at_level(logging.INFO, logger="dvsn"):
        train(run | {"logger": {"csv": table}})
    first = next(message for message in caplog.messages if message.startswith("epoch 1"))
    rows = list(csv.DictReader((tmp_path / "metrics.csv").open()))
    mean = sum(float(row["train/l1"]) for row in rows[:4]) / 4
    assert f" l1 {spoken(mean)} " in first


def test_a_notebook_shows_one_output_that_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """With stand-ins for IPython's functions, as a kernel has them."""
    shown: list[tuple[str, Any]] = []

    class Handle:
        def update(self, content: Any, *, raw: bool) -> None:
            shown.append(("update", content["text/plain"]))

    def display(content: Any, *, raw: bool, display_id: bool) -> Handle:
        shown.append(("display", content["text/plain"]))
        return Handle()

    shell = SimpleNamespace(kernel=object())
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    monkeypatch.setitem(sys.modules, "IPython.display", SimpleNamespace(display=display))
    screen = find_screen()
    assert isinstance(screen, Notebook)
    screen.clear()
    screen.show("one")
    screen.show("two")
    screen.clear()
    assert shown == [("display", "one"), ("update", "two"), ("update", "")]


def test_where_progress_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "IPython", raising=False)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert find_screen() is None, "a file or a pipe"
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert isinstance(find_screen(), Terminal)
    monkeypatch.setenv("TERM", "dumb")
    assert find_screen() is None
