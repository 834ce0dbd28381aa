"""The steps of a recipe's evaluation are those of albumentations, bit for bit, on photos and on ids."""

from __future__ import annotations

from typing import Any

import albumentations
import numpy as np
import pytest
from omegaconf import OmegaConf

from dvsn.data.transforms import Pair, Transform
from dvsn.errors import CheckpointError, ConfigError, DataError
from dvsn.portable.resize import make_steps, padded, read_size

RNG = np.random.default_rng(0)
SIDES = ((37, 52), (64, 64), (91, 40), (130, 201))
STEPS: list[dict[str, Any]] = [
    {"_target_": "Resize", "height": 48, "width": 70},
    {"_target_": "Resize", "height": 48, "width": 70, "interpolation": 2, "mask_interpolation": 6},
    {"_target_": "Resize", "height": 48, "width": 70, "interpolation": 2, "area_for_downscale": "image"},
    {"_target_": "Resize", "height": 48, "width": 70, "area_for_downscale": "image"},
    {"_target_": "Resize", "height": 64, "width": 64, "interpolation": 3},
    {"_target_": "SmallestMaxSize", "max_size": 50, "interpolation": 1, "area_for_downscale": "image"},
    {"_target_": "SmallestMaxSize", "max_size": [50]},
    {"_target_": "SmallestMaxSize", "max_size_hw": [40, 60], "interpolation": 2},
    {"_target_": "LongestMaxSize", "max_size": 77, "interpolation": 4},
    {"_target_": "LongestMaxSize", "max_size_hw": [40, 60], "area_for_downscale": "image"},
    {"_target_": "LongestMaxSize", "max_size_hw": [None, 45]},
    {"_target_": "CenterCrop", "height": 31, "width": 36},
    {"_target_": "CenterCrop", "height": 75, "width": 80, "pad_if_needed": True, "fill": 9, "fill_mask": 255},
    {"_target_": "PadIfNeeded", "min_height": 100, "min_width": 101, "fill": 7, "fill_mask": 255},
    {"_target_": "PadIfNeeded", "min_height": 100, "min_width": 100, "fill": [1, 2, 3], "position": "top_left"},
    {"_target_": "PadIfNeeded", "min_height": 100, "min_width": 100, "position": "bottom_right"},
    {"_target_": "PadIfNeeded", "min_height": 100, "min_width": 100, "position": "top_right", "border_mode": 4},
    {"_target_": "PadIfNeeded", "min_height": None, "min_width": None, "pad_height_divisor": 32,
     "pad_width_divisor": 16, "border_mode": 1, "position": "bottom_left"},
]  # fmt: skip


def moved(node: dict[str, Any], picture: np.ndarray, kind: str) -> np.ndarray:
    """By the training side."""
    options = {key: tuple(value) if key == "max_size_hw" else value for key, value in node.items()}
    step = getattr(albumentations, options.pop("_target_"))(**options)
    transform = Transform(steps=[step], pair=Pair(source="input", target="input"))
    sample = {"input": picture, "index": 0, "name": "", "kinds": {"input": kind}, "palettes": {}}
    image = transform(sample, 0)["image"].numpy()
    return image[0] if picture.ndim == 2 else image.transpose(1, 2, 0)


@pytest.mark.parametrize("node", STEPS, ids=lambda node: "_".join(map(str, node.values())))
def test_a_step_is_that_of_albumentations(node: dict[str, Any]) -> None:
    ours = make_steps([node | {"_target_": f"albumentations.{node['_target_']}"}])
    for height, width in SIDES:
        photo = RNG.integers(0, 256, (height, width, 3), np.uint8)
        ids = RNG.integers(0, 19, (height, width), np.uint8)
        for picture, kind in ((photo, "photo"), (photo, "label"), (ids, "label")):
            if (
                isinstance(node.get("fill_mask"), int)
                or not isinstance(node.get("fill"), list)
                or kind == "photo"
            ):
                np.testing.assert_array_equal(ours(picture, kind), moved(node, picture, kind))


@pytest.mark.parametrize("name", ["imagenet_224", "cifar", "resize_256x512", "post_256x512"])
def test_the_recipes_of_the_shipped_transforms_are_known(name: str) -> None:
    from dvsn.config.menu import conf_dir

    conf = OmegaConf.create({"transform": OmegaConf.load(f"{conf_dir()}/transform/{name}.yaml")})
    nodes = OmegaConf.to_container(conf, resolve=True)["transform"]["eval"]  # type: ignore[call-overload,index]
    photo = RNG.integers(0, 256, (300, 410, 3), np.uint8)
    steps = [getattr(albumentations, each["_target_"].rpartition(".")[2])(
        **{key: value for key, value in each.items() if key != "_target_"}) for each in nodes]  # fmt: skip
    sample = {"input": photo, "index": 0, "name": "", "kinds": {"input": "photo"}, "palettes": {}}
    wanted = Transform(steps=steps, pair=Pair(source="input", target="input"))(sample, 0)["image"].numpy()
    np.testing.assert_array_equal(make_steps(nodes)(photo, "photo"), wanted.transpose(1, 2, 0))


@pytest.mark.parametrize(
    ("node", "said"),
    [
        ({"_target_": "albumentations.ColorJitter"}, "albumentations.ColorJitter"),
        ({"_target_": "os.Resize", "height": 1, "width": 1}, "os.Resize"),
        ({"_target_": "albumentations.Resize", "height": 8, "width": 8, "p": 0.5}, "'p'"),
        ({"_target_": "albumentations.Resize", "height": 8, "width": 8, "keep": 1}, "'keep'"),
        ({"_target_": "albumentations.PadIfNeeded", "position": "random"}, "'position'"),
        ("_target_", "_target_"),
    ],
)
def test_another_step_is_refused_by_its_name(node: Any, said: str) -> None:
    with pytest.raises(CheckpointError, match=said):
        make_steps([node], "m.onnx")


def test_sizes_and_borders() -> None:
    assert read_size("256x512") == (256, 512)
    with pytest.raises(ConfigError, match="HEIGHTxWIDTH"):
        read_size("256")
    image = np.arange(6, dtype=np.uint8).reshape(1, 1, 2, 3)
    np.testing.assert_array_equal(
        padded(image, 4)[0, 0], [[0, 1, 2, 2], [3, 4, 5, 5], [3, 4, 5, 5], [3, 4, 5, 5]]
    )
    assert padded(image, 1) is image
    crop = make_steps([{"_target_": "albumentations.CenterCrop", "height": 9, "width": 2}])
    with pytest.raises(DataError, match="smaller than the 9x2"):
        crop(image[0, 0], "label")
