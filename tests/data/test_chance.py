"""Whether a transform is random is asked of its options; every shipped one against what it does in many epochs."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import albumentations
import numpy as np
import pytest

from dvsn.config.build import build
from dvsn.config.menu import conf_dir
from dvsn.data.augment import RandomScale
from dvsn.data.chance import FIXED, random_part
from dvsn.data.crop import PersonCrop
from dvsn.data.face_crop import FaceCrop
from dvsn.data.object_transform import DetectionTransform
from tests.support.tiny import composed

FLIP = albumentations.HorizontalFlip


@pytest.mark.parametrize(
    ("transform", "expected"),
    [
        ([], ""),
        ([albumentations.Resize(4, 4), FLIP(p=1.0), albumentations.RandomCrop(2, 2, p=0.0)], ""),
        ([albumentations.ColorJitter(p=0.001)], "ColorJitter with p=0.001"),
        ([FLIP(p=0.5)], "HorizontalFlip with p=0.5"),
        ([albumentations.RandomCrop(2, 2)], "RandomCrop"),
        ([albumentations.GaussianBlur(p=1.0)], "GaussianBlur"),
        ([albumentations.PadIfNeeded(4, 4)], ""),
        ([albumentations.PadIfNeeded(4, 4, position="random")], "PadIfNeeded"),
        ([albumentations.CenterCrop(4, 4, pad_if_needed=True, pad_position="random")], "CenterCrop"),
        ([albumentations.SmallestMaxSize(max_size=[4, 6])], "SmallestMaxSize"),
        ([albumentations.SmallestMaxSize(max_size=4)], ""),
        ([albumentations.OneOf([FLIP(p=1.0)], p=1.0)], "OneOf"),
        (
            [albumentations.Sequential([FLIP(p=1.0), albumentations.ToGray(p=0.1)], p=1.0)],
            "ToGray with p=0.1",
        ),
        ([RandomScale(low=0.5, high=0.5)], ""),
        ([RandomScale(low=0.5, high=0.75)], "RandomScale with low=0.5, high=0.75"),
        ([RandomScale(low=0.5, high=0.5, aspect=0.1)], "RandomScale with low=0.5, high=0.5"),
        (PersonCrop(size=[8, 8]), ""),
        (PersonCrop(size=[8, 8], flip=1.0), ""),
        (PersonCrop(size=[8, 8], half_body=0.1), "PersonCrop with half_body=0.1"),
        (PersonCrop(size=[8, 8], rotation=5.0), "PersonCrop with rotation=5"),
        (FaceCrop(size=[8, 8], occlusion=0.01), "FaceCrop with occlusion=0.01"),
        (FaceCrop(size=[8, 8], steps=[albumentations.ToGray(p=0.05)]), "ToGray with p=0.05"),
        (DetectionTransform(flip=0.5), "DetectionTransform with flip=0.5"),
        (DetectionTransform(flip=0.0), ""),
        (object(), "object"),
    ],
    ids=itertools.count(),
)
def test_random_parts(transform: Any, expected: str) -> None:
    assert random_part(transform) == expected


@pytest.mark.parametrize("name", sorted(FIXED - {"MirrorWithSwaps", "Crop", "FromFloat"}))
def test_steps_that_are_called_fixed_are(name: str) -> None:
    """Sixteen seeds, one picture."""
    sizes: dict[str, Any] = {
        "CenterCrop": {"height": 8, "width": 8}, "Resize": {"height": 8, "width": 8}, "LongestMaxSize": {"max_size": 8},
        "SmallestMaxSize": {"max_size": 8}, "PadIfNeeded": {"min_height": 24, "min_width": 24}, "Pad": {"padding": 3},
    }  # fmt: skip
    picture = np.random.default_rng(0).integers(0, 256, (16, 12, 3), dtype=np.uint8)
    step = getattr(albumentations, name)(**sizes.get(name, {}), p=1.0)
    found = []
    for seed in range(16):
        pipeline = albumentations.Compose([step], seed=seed)
        given = picture[..., 0] if name == "ToRGB" else picture
        found.append(pipeline(image=given)["image"])
    assert all(np.array_equal(each, found[0]) for each in found)
    assert random_part([step]) == ""


@pytest.mark.parametrize(
    "file", sorted(Path(conf_dir(), "transform").glob("[a-z]*.yaml")), ids=lambda file: file.stem
)
def test_every_transform_of_ours(file: Path) -> None:
    """None is random in evaluation, and few in training are not."""
    task = {"pose": "pose", "face": "landmarks", "dete": "detection"}.get(file.stem[:4], "segmentation")
    config = composed([f"task={task}", f"transform={file.stem}"], Path("x"))
    transform = build(config["data"]["transform"], path="data.transform")
    assert random_part(transform["eval"]) == ""
    fixed = file.stem in ("none", "post_256x512", "resize_256", "resize_256x512")
    assert bool(random_part(transform["train"])) is not fixed
