"""k-fold cross-validation: each item is held back once, groups stay whole, and a run keeps to its fold."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from dvsn.data.shuffled import fold_of, order
from dvsn.engine import trainer as runtime
from dvsn.errors import ConfigError
from tests.support.coco import write_coco
from tests.support.tiny import (
    TINY_CLASSIFICATION,
    TINY_DETECTION,
    TINY_POSE,
    composed,
    write_blobs,
    write_people,
)


def names(words: list[str], folder: Path, fold: int, split: str, **more: Any) -> list[str]:
    options = [f"data.fold={fold}", *(f"data.{key}={value}" for key, value in more.items())]
    data = runtime.build_data(composed([*words, *options], folder))
    kind = {"task=detection": "objects", "task=pose": "people"}.get(words[0], "dataset")
    data.use(kind)  # type: ignore[arg-type]
    opened = data.open(split)
    return [opened.describe(index) for index in range(len(opened))]


def test_every_item_is_held_back_once(tmp_path: Path) -> None:
    root = write_blobs(tmp_path / "blobs", size=16, train=5, val=1)
    words = [*TINY_CLASSIFICATION, f"data.root={root}"]
    held = [names(words, tmp_path, fold, "val", folds=5) for fold in range(5)]
    assert [len(each) for each in held] == [
        3
    ] * 5  # five of each of three classes: every fold has one of each
    assert all(len({Path(file).parent.name for file in each}) == 3 for each in held)
    everything = sorted(itertools.chain(*held))
    assert len(set(everything)) == 15 and all("/train/" in file for file in everything)
    for fold, each in enumerate(held):
        assert sorted([*names(words, tmp_path, fold, "train", folds=5), *each]) == everything
    assert all("/test/" in file for file in names(words, tmp_path, 0, "test"))
    assert names(words, tmp_path, 0, "val", split_seed=7) != names(words, tmp_path, 0, "val")


@pytest.mark.parametrize("kind", ["people", "objects"])
def test_people_and_objects_have_folds(kind: str, tmp_path: Path) -> None:
    if kind == "people":
        words = [*TINY_POSE, f"data.root={write_people(tmp_path / 'data')}"]
    else:
        words = [
            *TINY_DETECTION,
            "data=coco",
            "data.object_classes=4",
            f"data.root={write_coco(tmp_path / 'data')}",
        ]
    held = [names(words, tmp_path, fold, "val", folds=2) for fold in (0, 1)]
    assert not set(held[0]) & set(held[1]) and sorted(held[0]) == sorted(
        names(words, tmp_path, 1, "train", folds=2)
    )


def test_groups_stay_whole() -> None:
    keys = [f"scene{scene}_{number}.png" for scene in range(4) for number in range(scene + 1)]
    made = order(keys, seed=0, group="prefix")
    parts = [fold_of(made, fold, 4) for fold in range(4)]
    assert sorted(itertools.chain(*(held for _, held in parts))) == list(range(10))
    for rest, held in parts:
        scenes = [{keys[item].partition("_")[0] for item in side} for side in (rest, held)]
        assert held and not scenes[0] & scenes[1] and sorted((*rest, *held)) == list(range(10))
    with pytest.raises(
        ConfigError, match=r"data.folds: found 5, but data.splits.train has 4 .* Set data.folds=4"
    ):
        fold_of(made, 0, 5)


def test_few_items_leave_no_fold_empty() -> None:
    for count, folds in ((3, 3), (4, 3), (5, 4), (7, 3), (11, 10)):
        made = order([f"{number}.png" for number in range(count)], seed=1)
        held = [fold_of(made, fold, folds)[1] for fold in range(folds)]
        assert sorted(itertools.chain(*held)) == list(range(count)) and all(held)
        assert max(map(len, held)) - min(map(len, held)) <= 1


@pytest.mark.parametrize(
    ("fold", "folds", "message"),
    [(5, 5, "data.fold: found 5, expected a number from 0 to 4"), (-1, 5, "data.fold: found -1"),
     (0, 1, "data.folds: found 1, expected 2 or more")],
)  # fmt: skip
def test_an_unknown_fold_is_refused_before_data_is_opened(
    fold: int, folds: int, message: str, tmp_path: Path
) -> None:
    config = composed(
        [*TINY_CLASSIFICATION, f"data.root={tmp_path}/none", f"data.fold={fold}", f"data.folds={folds}"],
        tmp_path,
    )
    with pytest.raises(ConfigError, match=message):
        runtime.build_data(config)
