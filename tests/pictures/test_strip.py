"""The layout of a run's grids, and one picture of them through the epochs."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from dvsn.errors import DataError
from dvsn.pictures.grids import Gallery, write_picture
from dvsn.pictures.layout import HEADER, MARGIN, read_layout
from dvsn.pictures.strip import affordable, spread, strip

EPOCHS = 5


def panel(value: int, height: int = 12, width: int = 20) -> torch.Tensor:
    """Two pictures (2, 3, H, W), the second brighter by 1."""
    return torch.stack([torch.full((3, height, width), value + more, dtype=torch.uint8) for more in (0, 1)])


def publish(folder: Path, epoch: int, *, unit: str = "epoch", names: tuple[str, str] = ("first", "second"),
            height: int = 12) -> None:  # fmt: skip
    gallery = Gallery(folder=folder, count=2)
    columns = {
        "photo": panel(10, height),
        "prediction": panel(100 + 10 * (epoch % 10), height),
        "label": panel(50, height),
    }
    gallery.add(columns, names=names)
    gallery.publish(stem=f"{unit}_{epoch:04d}", boards=(), step=epoch, caption="")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The grids of five epochs."""
    folder = tmp_path_factory.mktemp("pictures")
    for epoch in range(1, EPOCHS + 1):
        publish(folder, epoch)
    return folder


def test_the_layout_by_hand(folder: Path) -> None:
    content = json.loads((folder / "layout.json").read_text())
    assert (content["version"], content["rows"]) == (1, ["first", "second"])
    assert content["columns"] == ["photo", "prediction", "label"]
    second = HEADER + 12 + MARGIN
    lefts = [MARGIN, 2 * MARGIN + 20, 3 * MARGIN + 40]
    assert content["boxes"] == [[[left, top, 20, 12] for left in lefts] for top in (HEADER, second)]
    assert content["size"] == [HEADER + 2 * (12 + MARGIN), 3 * 20 + 4 * MARGIN]
    with Image.open(folder / "latest.png") as picture:
        assert content["size"] == [picture.height, picture.width]


def test_the_same_picture_of_every_epoch(folder: Path) -> None:
    found = strip(folder, row=1)
    assert (found.name, found.column, found.unit) == ("second", "prediction", "epoch")
    assert found.numbers == (1, 2, 3, 4, 5)
    for epoch, picture in zip(found.numbers, found.pictures, strict=True):
        assert picture.shape == (12, 20, 3) and (picture == 100 + 10 * epoch + 1).all()
    assert list(found.fixed) == ["photo", "label"] and (found.fixed["label"] == 51).all()


def test_a_column_and_a_number_are_chosen(folder: Path) -> None:
    found = strip(folder, column="label", most=3)
    assert found.numbers == (1, 3, 5) and all((picture == 50).all() for picture in found.pictures)
    assert list(found.fixed) == ["photo"], "what changes is no fixed panel"
    assert strip(folder, most=1).numbers == (5,)
    assert spread(list(range(100)), 4) == [0, 33, 66, 99]  # type: ignore[arg-type]


def test_how_many_grids_are_quick(folder: Path, tmp_path: Path) -> None:
    one = (HEADER + 2 * (12 + MARGIN)) * (3 * 20 + 4 * MARGIN)
    assert [affordable(folder, pixels=number * one) for number in (0, 3, 99)] == [0, 3, EPOCHS]
    assert affordable(tmp_path) == 0


def test_what_is_written(folder: Path, tmp_path: Path) -> None:
    still, moving = strip(folder).write(tmp_path)
    with Image.open(still) as picture:
        array = np.asarray(picture.convert("RGB"))
    values = set(np.unique(array).tolist())
    assert {10, 50, *(100 + 10 * epoch for epoch in range(1, EPOCHS + 1))} <= values, "every panel is on it"
    with Image.open(moving) as animation:
        assert (animation.format, animation.n_frames, animation.info["loop"]) == ("WEBP", EPOCHS, 0)  # type: ignore[attr-defined]
        durations = []
        for number in range(EPOCHS):
            animation.seek(number)
            animation.load()
            durations.append(animation.info["duration"])
    assert durations == [500] * (EPOCHS - 1) + [2000]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["strip.png", "strip.webp"]


def test_a_long_strip_goes_on_in_lines(folder: Path) -> None:
    found = strip(folder)  # two fixed panels and five epochs
    wide, narrow = found.still(across=7), found.still(across=4)  # lines of two, three and two
    assert narrow.shape[1] < 0.5 * wide.shape[1] and narrow.shape[0] > 2.8 * wide.shape[0]
    assert found.still(side=10).shape[0] < wide.shape[0], "shrunk"


def test_one_grid_shows_what_the_task_answers(tmp_path: Path) -> None:
    publish(tmp_path, 1)
    found = strip(tmp_path)
    assert (found.column, found.numbers, found.fixed) == ("prediction", (1,), {})
    found.write(tmp_path)
    assert strip(tmp_path).numbers == (1,), "strip.png is no grid"


def test_steps_where_there_are_no_epochs(tmp_path: Path) -> None:
    for step in (40, 80):
        publish(tmp_path, step - 39, unit="step")
    assert (strip(tmp_path).unit, strip(tmp_path).numbers) == ("step", (1, 41))
    publish(tmp_path, 2)
    assert strip(tmp_path).unit == "epoch"


def test_a_resumed_run_with_other_rows_is_not_mixed_up(tmp_path: Path) -> None:
    publish(tmp_path, 1)
    publish(tmp_path, 2)
    assert read_layout(tmp_path).since == "epoch_0001"
    publish(tmp_path, 3, names=("first", "third"))
    publish(tmp_path, 4, names=("first", "third"))
    assert read_layout(tmp_path).since == "epoch_0003"
    assert strip(tmp_path).numbers == (3, 4)


def test_damaged_and_foreign_grids_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for epoch in (1, 2, 3):
        publish(tmp_path, epoch)
    (tmp_path / "epoch_0001.png").write_bytes(b"no picture")
    write_picture(tmp_path / "epoch_0002.png", np.zeros((5, 5, 3), np.uint8))
    with caplog.at_level(logging.WARNING):
        assert strip(tmp_path).numbers == (3,)
    assert len(caplog.messages) == 2 and "5x5, but layout.json says 62x84" in caplog.messages[1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, "version: found 2, expected 1"),
        ({"rows": "first"}, "rows: found 'first', expected a list"),
        ({"columns": ["photo"]}, "boxes: expected 2 lists of 1 boxes"),
        ({"boxes": [[[0, 0, 5]] * 3] * 2}, r"boxes\[0\]: found .*expected a list of \[left, top"),
        (
            {"boxes": [[[0, 0, 500, 5]] * 3] * 2},
            r"boxes\[0\]: \[0, 0, 500, 5\] is not within a grid of 62x84",
        ),
        ({"size": [62]}, r"size: found \[62\], expected \[HEIGHT, WIDTH\]"),
        ({"size": [62, "wide"]}, r"size\[1\]: found 'wide'"),
    ],
)
def test_a_layout_that_is_none(change: dict[str, Any], message: str, folder: Path, tmp_path: Path) -> None:
    content = json.loads((folder / "layout.json").read_text())
    (tmp_path / "layout.json").write_text(json.dumps(content | change))
    with pytest.raises(DataError, match=message):
        read_layout(tmp_path)


def test_what_cannot_be_cut_is_said(folder: Path, tmp_path: Path) -> None:
    for options, message in (
        ({"row": 2}, "row 2: the grids have 2 rows"),
        ({"column": "truth"}, "column 'truth': the grids have photo, prediction, label"),
        ({"most": 0}, "most: found 0"),
    ):
        with pytest.raises(DataError, match=message):
            strip(folder, **options)  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"layout.json: is not there"):
        strip(tmp_path)
    (tmp_path / "layout.json").write_bytes((folder / "layout.json").read_bytes())
    with pytest.raises(DataError, match="holds no grid"):
        strip(tmp_path)
