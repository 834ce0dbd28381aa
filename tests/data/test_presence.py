"""Before training: classes that no label holds, splits in which nothing counts, and the range of 16-bit pictures."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import cv2
import numpy as np
import pytest

from dvsn.data.module import DataModule, measure_depth
from dvsn.data.presence import Seen, labels_of, look_for_classes
from dvsn.engine import trainer as runtime
from dvsn.errors import ConfigError, DataError
from tests.support.coco import content_of, save, write_coco
from tests.support.tiny import TINY_POSE, composed, write_pairs, write_people, write_scenes

MASKS = ["task=segmentation", "data=segmentation", "data.workers=0"]
SCENES = [*MASKS, "data.dataset.names=[left,right,rest]", "data.dataset.palette=null", "data.classes=3"]


def module(root: Path, *options: str) -> DataModule:
    config = composed([*options, f"data.root={root}"], root)
    data = runtime.build_data(config)
    if "task=detection" in options:
        data.use("objects")
    return data


def write_masks(root: Path, *, train: int = 4, val: int = 2, object_id: int = 255) -> Path:
    """Photos of noise, and masks of 0 and `object_id`."""
    random = np.random.default_rng(0)
    for split, count in (("train", train), ("val", val), ("test", val)):
        for folder in ("images", "labels"):
            (root / split / folder).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            photo = random.integers(0, 256, (16, 16, 3), np.uint8)
            mask = np.zeros((16, 16), np.uint8)
            mask[:4] = object_id
            cv2.imwrite(str(root / split / "images" / f"{split}{index}.png"), photo)
            cv2.imwrite(str(root / split / "labels" / f"{split}{index}.png"), mask)
    return root


# Classes ---------------------------------------------------------------------------------------------


def test_masks_of_0_and_255_under_the_default_names_are_refused(tmp_path: Path) -> None:
    write_masks(tmp_path)
    with pytest.raises(DataError, match=r"neither train nor val has 1 object, in 6 labels") as error:
        module(tmp_path, *MASKS).setup("fit")
    message = str(error.value)
    assert "25.0 % of the pixels are ignored" in message and "data.check_classes=warn" in message
    advice = "data.dataset.id_map={0: 0, 255: 1}"
    assert f"'{advice}'" in message
    data = module(tmp_path, *MASKS, advice)  # as the message has it
    data.setup("fit")
    assert set(np.unique(data.datasets["train"].read_label(0, "label"))) == {0, 1}


def test_a_class_nowhere_may_be_meant(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_masks(tmp_path)
    with caplog.at_level(logging.WARNING):
        module(tmp_path, *MASKS, "data.check_classes=warn").setup("fit")
    assert any("neither train nor val has 1 object" in message for message in caplog.messages)
    caplog.clear()
    module(tmp_path, *MASKS, "data.check_classes=skip").setup("fit")
    assert not caplog.messages
    with pytest.raises(
        ConfigError, match=r"data.check_classes: expected one of 'refuse', 'warn', 'skip', found 'no'"
    ):
        module(tmp_path, *MASKS, "data.check_classes=no")


def test_a_class_in_one_split_is_warned_of_by_name(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_scenes(tmp_path)
    for path in sorted((tmp_path / "val" / "labels").iterdir()):
        ids = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        cv2.imwrite(str(path), np.where(ids == 1, 0, ids))
    with caplog.at_level(logging.WARNING):
        module(tmp_path, *SCENES).setup("fit")
    assert [message.partition(": ")[2] for message in caplog.messages] == [
        "not in val, so not in its score: 1 right"
    ]
    (tmp_path / "other").mkdir()
    (tmp_path / "train").rename(tmp_path / "other" / "val")
    (tmp_path / "val").rename(tmp_path / "other" / "train")
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        module(tmp_path / "other", *SCENES).setup("fit")
    assert "in val, but never in train, so nobody can learn it: 1 right" in caplog.messages[0]


def test_a_split_that_is_ignored_everywhere_is_refused(tmp_path: Path) -> None:
    write_scenes(tmp_path)
    for path in sorted((tmp_path / "val" / "labels").iterdir()):
        cv2.imwrite(str(path), np.full((64, 64), 255, np.uint8))
    with pytest.raises(DataError, match=r"no pixel of the split 'val' belongs to a class.*3 labels"):
        module(tmp_path, *SCENES).setup("fit")


class Labels:
    """Labels without photos, that count how often they are read."""

    def __init__(self, ids: list[int]) -> None:
        self.ids, self.read = ids, 0

    def __len__(self) -> int:
        return len(self.ids)

    def ruled(self) -> Any:
        import contextlib

        return contextlib.nullcontext()

    def read_label(self, index: int, _: str) -> np.ndarray:
        self.read += 1
        return np.full((2, 2), self.ids[index], np.uint8)


def test_labels_are_read_until_every_class_was_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dvsn.data.presence.LOOKED_AT", 20)
    common, rare = Labels([number % 2 for number in range(1000)]), Labels([0, 1] * 5)
    seen = [Seen(each, "label", 2) for each in (common, rare)]  # type: ignore[arg-type]
    look_for_classes(*seen)
    assert common.read < 20 and rare.read <= 10 and seen[0].found.all()
    late = Labels([0] * 999 + [2])  # one of a thousand has class 2, and none has class 1
    seen = [Seen(each, "label", 3) for each in (late, Labels([0] * 50))]  # type: ignore[arg-type]
    look_for_classes(*seen)
    assert late.read == 1000 and seen[0].complete and seen[0].found.tolist() == [True, False, True]


# Objects ---------------------------------------------------------------------------------------------

OBJECTS = ["task=detection", "data=coco", "data.object_classes=4", "data.workers=0"]


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("how", ["crowds", "none", "outside"])
def test_a_split_in_which_no_object_counts_is_refused(tmp_path: Path, split: str, how: str) -> None:
    write_coco(tmp_path)
    content = content_of(6 if split == "train" else 3, seed=int(split == "val"))
    for each in content["annotations"]:
        each |= {"iscrowd": "1"} if how == "crowds" else {"bbox": [500, 0, 5, 5]}
    content["annotations"] = [] if how == "none" else content["annotations"]
    file = save(tmp_path, content, split)
    if (split, how) == ("val", "outside"):  # COCO's evaluator counts them
        module(tmp_path, *OBJECTS).setup("fit")
        return
    with pytest.raises(DataError, match=rf"the split '{split}' has no object that can be") as error:
        module(tmp_path, *OBJECTS).setup("fit")
    assert str(file) in str(error.value)


def test_files_of_objects_are_not_all_opened_to_look_for_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dvsn.data.presence.LOOKED_AT", 10)
    opened: list[int] = []

    def truth(index: int) -> list[dict[str, int]]:
        opened.append(index)
        return [{"category_id": 1, "iscrowd": 0}]

    data: Any = MagicMock(categories={1: "red", 2: "blue"}, in_memory=False, truth=truth)
    data.__len__.return_value = 1000
    assert labels_of(data, trained=False) == ({1}, False) and len(opened) == 10
    data.in_memory = True
    assert labels_of(data, trained=False) == ({1}, True) and len(opened) == 1010
    data.categories = {1: "red"}
    assert labels_of(data, trained=False) == ({1}, True) and len(opened) == 1011


def test_a_crowd_written_as_text_counts_as_what_it_says(tmp_path: Path) -> None:
    write_coco(tmp_path)
    content = content_of(3, seed=1)
    for each in content["annotations"]:
        each["iscrowd"] = str(each["iscrowd"])
    save(tmp_path, content, "val")
    data = module(tmp_path, *OBJECTS)
    data.setup("fit")
    flags = [each["iscrowd"] for index in range(3) for each in data.datasets["val"].truth(index)]  # type: ignore[attr-defined]
    assert sorted(flags) == [0, 0, 0, 0, 1]


# 16 bits ---------------------------------------------------------------------------------------------


def write_deep(root: Path, highest: int) -> Path:
    """Pairs of 16-bit pictures that use 0 to `highest`."""
    write_pairs(root, train=4, val=2)
    for path in sorted(root.rglob("*.png")):
        ramp = np.linspace(0, highest, 256).astype(np.uint16).reshape(16, 16)
        assert cv2.imwrite(str(path), ramp)
    return root


@pytest.mark.parametrize(
    ("highest", "top"), [(4095, 4095), (3000, 4095), (1023, 1023), (200, 255), (65535, 65535)]
)
def test_the_range_of_16_bits_is_measured_once_and_kept(tmp_path: Path, highest: int, top: int) -> None:
    data = module(
        write_deep(tmp_path, highest), "task=pix2pix", "data=folders", "transform=none", "data.workers=0"
    )
    task = SimpleNamespace(data_recipe={"root": "here"})
    data.trainer = SimpleNamespace(world_size=1, lightning_module=task)  # type: ignore[assignment]
    data.setup("fit")
    assert task.data_recipe == {"root": "here", "deep_range": [0, top]}
    for split in ("train", "val"):
        picture = data.datasets[split].read(0)  # by itself it has no rule
        sample = data.datasets[split][0]
        assert int(sample["image"].max()) == highest * 256 // (top + 1)
        assert int(picture["a"].max()) == highest >> 8


@pytest.mark.parametrize(("folder", "split"), [("a", "train"), ("b", "train"), ("b", "val")])
def test_a_few_pictures_of_16_bits_are_found(tmp_path: Path, folder: str, split: str) -> None:
    """In either half of the pairs, in either split, one among forty."""
    write_pairs(tmp_path, train=40, val=40)
    deep = np.full((16, 16, 3), 4000, np.uint16)
    assert cv2.imwrite(str(tmp_path / split / folder / "017.png"), deep)
    data = module(tmp_path, "task=pix2pix", "data=folders", "transform=none", "data.workers=0")
    data.setup("fit")
    assert data.rule.deep_range == (0, 4095)
    pictures = [data.datasets[split][17][key] for key in ("image", "target")]
    assert [int(each.min()) == int(each.max()) == 4000 >> 4 for each in pictures].count(True) == 1


def test_halves_of_far_different_ranges_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = write_deep(tmp_path, 65535)
    for path in sorted(root.rglob("a/*.png")):
        assert cv2.imwrite(str(path), np.full((16, 16), 3000, np.uint16))
    data = module(root, "task=pix2pix", "data=folders", "transform=none", "data.workers=0")
    with caplog.at_level(logging.INFO, logger="dvsn"):
        data.setup("fit")
    assert data.rule.deep_range == (0, 65535)
    (said,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert re.search(r"/a/00.\.png use 0 to 4095, others such as \S*/b/00.\.png 0 to 65535", said)


def test_a_stated_range_is_not_measured(tmp_path: Path) -> None:
    options = ("task=pix2pix", "data=folders", "transform=none", "data.workers=0", "data.deep_range=[0,1000]")
    data = module(write_deep(tmp_path, 500), *options)
    data.setup("fit")
    assert data.rule.deep_range == (0, 1000)
    assert int(data.datasets["train"][0]["image"].max()) == 128  # 500 * 255 / 1000, rounded


def test_pictures_of_8_bits_have_no_range(tmp_path: Path) -> None:
    data = module(write_pairs(tmp_path, train=2, val=1), "task=pix2pix", "data=folders", "transform=none")
    data.setup("fit")
    assert data.rule.deep_range is None and measure_depth(data.datasets["train"]) is None


def test_the_limit_of_pixels_reaches_the_reader(tmp_path: Path) -> None:
    data = module(write_pairs(tmp_path, train=2, val=1), "task=pix2pix", "data=folders", "transform=none",
                  "data.max_pixels=255")  # fmt: skip
    with pytest.raises(DataError, match=r"a picture of 16x16 .* 256 pixels; expected 255 at most"):
        data.open("train")


# Keypoints -------------------------------------------------------------------------------------------


def without(root: Path, split: str, *joints: str) -> None:
    """Take the labels of joints from the table of a split."""
    rows = [line.split(",") for line in (root / f"{split}.csv").read_text().splitlines()]
    for row in rows[1:]:
        for number, name in enumerate(rows[0]):
            if name.rpartition("_")[0] in joints:
                row[number] = "0"
    (root / f"{split}.csv").write_text("\n".join(map(",".join, rows)) + "\n")


@pytest.mark.parametrize(
    ("splits", "said"),
    [
        (("train", "val"), "neither train nor val has 3 tail, among 16 people or faces"),
        (("train",), "in val, but never in train, so nobody can learn it: 3 tail"),
        (("val",), "not in val, so not in its score: 3 tail"),
        ((), None),
    ],
)
def test_keypoints_that_nobody_has_are_named(
    splits: tuple[str, ...], said: str | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_people(tmp_path)
    for split in splits:
        without(tmp_path, split, "tail")
    data = module(tmp_path, *TINY_POSE)
    data.use("people")
    with caplog.at_level(logging.INFO, logger="dvsn"):
        data.setup("fit")
    found = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert found == ([] if said is None else [f"{tmp_path}: {said}"])


@pytest.mark.parametrize(("split", "what"), [("train", "learnt"), ("val", "measured")])
def test_a_split_without_a_labelled_keypoint_is_refused(split: str, what: str, tmp_path: Path) -> None:
    write_people(tmp_path)
    without(tmp_path, split, "nose", "left_hand", "right_hand", "tail")
    data = module(tmp_path, *TINY_POSE)
    data.use("people")
    with pytest.raises(DataError, match=rf"the split '{split}' has no labelled keypoint, .* be {what}"):
        data.setup("fit")
