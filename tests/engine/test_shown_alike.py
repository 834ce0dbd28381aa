"""A teacher is shown what it was trained on; what it answered once is not given for other pictures."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import yaml

from dvsn.distill.cache import digest
from dvsn.engine.shown_alike import listed, require_shown_alike
from dvsn.errors import ConfigError
from dvsn.portable.bands import make_bands
from tests.support.distill_stubs import Soft, node, prepare, save_teacher
from tests.support.tiny import TINY, TINY_POSE, composed, write_pairs, write_people

pytestmark = pytest.mark.usefixtures("stubs")


@pytest.fixture(scope="module")
def fields(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pairs whose sources have four bands, values up to 2550."""
    root = write_pairs(tmp_path_factory.mktemp("fields"), train=1, val=1)
    for file in root.rglob("a/*.png"):
        photo = cv2.imread(str(file)).astype(np.uint16)
        np.save(file.with_suffix(".npy"), np.dstack([photo, 255 - photo[..., :1]]) * 10)
        file.unlink()
    return root


def four(root: Path, folder: Path, *, count: int = 4, **bands: Any) -> dict[str, Any]:
    config = composed([*TINY, f"data.root={root}", f"data.input_channels={count}"], folder)
    config["data"]["bands"] |= bands
    return config


def test_other_bands_and_ranges_than_the_teachers_are_refused(fields: Path, tmp_path: Path) -> None:
    teacher = save_teacher(four(fields, tmp_path, range=[0, 2550]), tmp_path / "teacher.ckpt")

    def start(**options: Any) -> Any:
        config = four(fields, tmp_path, **options)
        return prepare(config | {"teacher": str(teacher), "distill": {"soft": node(Soft)}})

    start(range=[0, 2550], take=[1, 2, 3, 4])
    wanted: list[list[int]] = [[0, 2550]] * 4
    start(range=wanted)
    range_advice = re.escape(f"data.bands.range={wanted}".replace(" ", ""))
    taken: dict[str, Any] = {"range": [0, 2550], "take": [4, 3, 2, 1]}
    for options, advice in (
        (taken, r"bands \[1,2,3,4\], .* \[4,3,2,1\]\. Set data\.bands\.take=null"),
        ({"range": [0, 255]}, range_advice),
        ({}, range_advice),  # measured: from 1 to 99 % of the values
        ({"count": 3, "take": [1, 2, 3]}, r"sees 4 channels, .* set data\.input_channels=4"),
    ):
        with pytest.raises(ConfigError, match=advice):
            start(**options)


def test_ranges_are_told_to_the_last_digit() -> None:
    assert listed([[0.0, 1234567.0], (0.5, 1234568.0)]) == "[[0,1234567],[0.5,1234568]]"


@pytest.mark.parametrize("theirs", [{}, {"take": [4]}, {"range": [0, 100]}])
@pytest.mark.parametrize("own", [{}, {"take": [2]}, {"range": [0, 100]}])
def test_one_channel_is_brightness_or_a_band_and_the_advice_makes_them_alike(
    theirs: dict[str, Any], own: dict[str, Any]
) -> None:
    """What is advised is set, and the teacher is accepted."""
    recipe = {"input_channels": 1, "bands": theirs}
    teachers: Any = [
        SimpleNamespace(name="t", moves=False, holder=SimpleNamespace(data_recipe=recipe | {"dataset": {}}))
    ]

    def refusal(options: dict[str, Any]) -> str:
        rule = SimpleNamespace(bands=make_bands(options, 1), deep_range=None)
        data: Any = SimpleNamespace(rule=rule, input_channels=1, label_classes=None)
        try:
            require_shown_alike(data, teachers)
        except ConfigError as error:
            return str(error)
        return ""

    said = refusal(own)
    assert bool(said) == (theirs != own)
    advised = dict(re.findall(r"data\.bands\.(\w+)=(null|[\[\]\d,]+\])", said))
    assert not refusal(own | {name: yaml.safe_load(value) for name, value in advised.items()}), said


@pytest.mark.parametrize("bands", [True, False])
def test_a_range_that_was_measured_for_a_teacher_is_kept(bands: bool, fields: Path, tmp_path: Path) -> None:
    """Methods are built before there is a trainer, and open the data first."""
    if bands:
        config = four(fields, tmp_path)
    else:
        root = write_pairs(tmp_path / "deep", train=2, val=1)
        for file in root.rglob("*.png"):
            cv2.imwrite(str(file), cv2.imread(str(file)).astype(np.uint16) * 10)
        config = composed([*TINY, f"data.root={root}"], tmp_path)
    teacher = save_teacher(config, tmp_path / "teacher.ckpt")
    task, data = prepare(config | {"teacher": str(teacher), "distill": {"soft": node(Soft)}})
    data.trainer = SimpleNamespace(world_size=1, lightning_module=task)
    data.setup("fit")
    if bands:
        kept = task.data_recipe["bands"]["range"]
        assert len(kept) == 4 and all(0 < low < high < 2550 for low, high in kept)
    else:
        assert task.data_recipe["deep_range"] == [0, 4095]


def test_keypoints_in_another_order_are_refused(tmp_path: Path) -> None:
    root = write_people(tmp_path / "people", train=2, val=1)
    usual = [*TINY_POSE, f"data.root={root}"]
    teacher = save_teacher(composed(usual, tmp_path), tmp_path / "teacher.ckpt")
    turned = ["data.keypoints.names=[tail,left_hand,right_hand,nose]", "data.people.extra_columns=true"]
    config = composed([*usual, *turned], tmp_path)
    with pytest.raises(
        ConfigError,
        match=r"keypoints in another order: number 0 is 'nose' there and 'tail' here.* data\.keypoints\.names\.",
    ):
        prepare(config | {"teacher": str(teacher), "distill": {"soft": node(Soft)}})


# Answers on disk --------------------------------------------------------------------------------------------------


def test_answers_on_disk_are_those_of_the_pictures_and_the_range(tmp_path: Path) -> None:
    """A file that is written again, one that is added in front of the others, and a student of another range."""
    root = write_pairs(tmp_path / "pairs", train=3, val=1)
    teacher = save_teacher(composed([*TINY, f"data.root={root}"], tmp_path), tmp_path / "teacher.ckpt")

    def wrong(*more: str) -> float:
        config = composed(
            [*TINY, f"data.root={root}", f"distillation.cache={tmp_path / 'kept'}", *more], tmp_path
        )
        task, data = prepare(config | {"teacher": str(teacher), "distill": {"soft": node(Soft)}})
        task.distiller.begin("cpu")
        items = [data.datasets["train"][number] for number in range(3)]
        batch = {"index": torch.tensor([item["index"] for item in items])}
        shown = torch.stack([item["image"] for item in items])
        found = [task.distiller.ask(shown, batch)[0] for _ in range(2)]  # the second time from the disk
        right = task.distiller.teachers[0](shown, batch)[0]
        return max(float((each - right).abs().max()) for each in found)

    assert wrong() == 0
    assert wrong("task.value_range=unit") == 0
    for folder in ("a", "b"):
        shutil.copy(root / "val" / folder / "000.png", root / "train" / folder / "001.png")
    assert wrong() == 0
    for folder in ("a", "b"):
        shutil.copy(root / "val" / folder / "000.png", root / "train" / folder / "0000.png")
    assert wrong() == 0


def test_a_digest_tells_pictures_apart() -> None:
    """One byte, two pixels exchanged, and shapes whose bytes are no whole words; equal pictures have equal ones."""
    one = torch.randint(0, 256, (1, 3, 5, 7), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    other, turned = one.clone(), one.clone()
    other[0, 2, 4, 6] ^= 1
    turned[..., :2] = one[..., :2].flip(-1)
    found = digest(torch.cat([one, other, turned, one, torch.zeros_like(one)])).tolist()
    assert len(set(found)) == 4 and found[0] == found[3] and 0 not in found
    assert digest(one.float()).tolist() != found[:1]
