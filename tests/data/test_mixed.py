"""Several data sets as one training split: ratios, equal classes, and runs that are resumed exactly."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dvsn.data.mixed import Ratios, read_sources
from dvsn.data.module import DataModule
from dvsn.engine import trainer as runtime
from dvsn.errors import ConfigError
from tests.support.resuming import equal, run
from tests.support.tiny import TINY_CLASSIFICATION, composed, write_blobs


def test_what_an_epoch_holds_by_hand() -> None:
    """4 and 10 items at a ratio of a half: 4 and 2 an epoch, and all of the 10 in five epochs."""
    made = Ratios([4, 10], [0.5])
    assert made.counts == [4, 2] and made.length == 6
    orders = [made.order(epoch, 7) for epoch in range(5)]
    assert all(sorted(order[order < 4]) == [0, 1, 2, 3] for order in orders)
    assert sorted(np.concatenate([order[order >= 4] for order in orders])) == list(range(4, 14))
    again = Ratios([4, 10], [0.5])
    assert np.array_equal(again.order(3, 7), orders[3])  # of the epoch and the seed alone
    assert not np.array_equal(again.order(3, 8), orders[3])


def test_a_small_set_comes_several_times() -> None:
    made = Ratios([8, 3, 5], [1.0, None])
    assert made.counts == [8, 8, 5]
    found = np.concatenate([made.order(epoch, 0) for epoch in range(3)])
    assert np.bincount(found, minlength=16)[8:11].tolist() == [8, 8, 8]  # 24 of 3 items
    assert np.bincount(found, minlength=16)[11:].tolist() == [3] * 5


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five more pictures of each of the three classes."""
    return write_blobs(tmp_path_factory.mktemp("other"), size=16, train=5, val=1)


def words(nine_blobs: Path, entry: str, *more: str) -> list[str]:
    return [*TINY_CLASSIFICATION, f"data.root={nine_blobs}", f"data.more=[{{{entry}}}]", *more]


def opened(line: list[str], tmp_path: Path) -> DataModule:
    data = runtime.build_data(composed(line, tmp_path))
    data.setup("fit")
    return data


def test_two_folders(nine_blobs: Path, other: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="dvsn")
    data = opened(words(nine_blobs, f"root: '{other}', ratio: 0.5"), tmp_path)
    assert f"an epoch has 9 of {nine_blobs}, 4 of {other}" in caplog.text
    train: Any = data.datasets["train"]
    assert len(train) == 24 and len(data.datasets["val"]) == 3  # validation is of the first
    assert np.bincount(train.targets).tolist() == [8, 8, 8]
    assert train.photos(9)[0].is_relative_to(other) and train.photos(8)[0].is_relative_to(nine_blobs)


def test_a_killed_run_ends_with_the_same_bits(nine_blobs: Path, other: Path, tmp_path: Path) -> None:
    line = words(
        nine_blobs,
        f"root: '{other}', ratio: 0.5",
        "trainer.max_epochs=3",
        "checkpoint.every_n_steps=1",
        "data.batch_size=4",
    )
    unbroken = run(composed(line, tmp_path / "unbroken"))
    assert run(composed(line, tmp_path / "broken"), dies_after=5) is None
    resumed = run(composed(line, tmp_path / "broken"))
    assert unbroken is not None and resumed is not None
    assert unbroken["global_step"] == 3 * 4  # 13 samples in batches of 4
    for part in ("state_dict", "optimizer_states", "DataModule", "global_step"):
        assert equal(unbroken[part], resumed[part]), part


def test_other_classes_are_refused(nine_blobs: Path, tmp_path: Path) -> None:
    root = write_blobs(tmp_path / "cats", size=16, train=1, val=1)
    for split in ("train", "val", "test"):
        (root / split / "red").rename(root / split / "cat")
    with pytest.raises(ConfigError, match=r"data\.more: .*cats has other classes than data\.root: 'cat'"):
        opened(words(nine_blobs, f"root: '{root}'"), tmp_path)
    for split in ("train", "val", "test"):
        shutil.rmtree(root / split / "cat")
    with pytest.raises(ConfigError, match=r"data\.more: .*cats has other classes than data\.root: no 'red'"):
        opened(words(nine_blobs, f"root: '{root}'"), tmp_path)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["sampler=class_balanced"], "data.more: a sampler chooses"),
        (["data.train_samples=3"], "data.train_samples: found 3 with data.more"),
    ],
)
def test_two_choices_are_refused(
    nine_blobs: Path, other: Path, tmp_path: Path, more: list[str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        opened(words(nine_blobs, f"root: '{other}', ratio: 0.5", *more), tmp_path)


@pytest.mark.slow
def test_without_ratios_a_sampler_sees_all(nine_blobs: Path, other: Path, tmp_path: Path) -> None:
    data = opened(words(nine_blobs, f"root: '{other}'", "sampler=class_balanced"), tmp_path)
    assert data.sampler is not None and data.ratios is not None and data.ratios.length == 24


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"ratio": 1.0}, r"data\.more\.0: found .*expected a mapping with a root"),
        ({"root": "x", "share": 1}, r"data\.more\.0\.share: unknown key"),
        ({"root": "x", "ratio": 0}, r"data\.more\.0\.ratio: found 0, expected a number above 0"),
        ({"root": "x", "ratio": True}, r"data\.more\.0\.ratio: found True"),
        ({"root": "x", "options": {"namez": 1}}, r"data\.more\.0\.options\.namez: .*Did you mean 'names'"),
        ({"root": "x", "reader": {"a": 1}}, r"data\.more\.0\.reader: expected a node"),
    ],
)
def test_entries_are_checked(nine_blobs: Path, tmp_path: Path, entry: dict[str, Any], message: str) -> None:
    data = runtime.build_data(composed([*TINY_CLASSIFICATION, f"data.root={nine_blobs}"], tmp_path))
    with pytest.raises(ConfigError, match=message):
        read_sources([entry], data.readers["dataset"], split="train", kind="dataset")
