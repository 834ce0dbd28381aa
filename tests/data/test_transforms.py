"""Transforms: labels keep their colours, one draw moves everything, and a draw belongs to its item."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import albumentations as A
import cv2
import numpy as np
import pytest
import torch
import yaml
from torch.utils.data import DataLoader

from dvsn.data.dataset import ImageDataset
from dvsn.data.transforms import Pair, Transform
from dvsn.errors import ConfigError, DataError
from dvsn.portable.memory import instance_edges

KINDS = {"photo": "photo", "label": "label", "instance": "label"}
COLORS = np.array([[0, 0, 0], [128, 64, 128], [70, 130, 180], [220, 20, 60]], np.uint8)


def arrays(height: int = 48, width: int = 64, *, seed: int = 0) -> dict[str, Any]:
    """A label map of blobs, a photo that is a function of it pixel by pixel, and instance ids."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 4, (height // 8, width // 8), np.uint8)
    ids = coarse.repeat(8, 0).repeat(8, 1)
    label = COLORS[ids]
    return {"photo": 255 - label, "label": label, "ids": ids, "instance": ids.astype(np.int32) * 1000}


def sample(**changes: Any) -> dict[str, Any]:
    data = arrays() | {"index": 3, "name": "x", "kinds": KINDS, "palettes": {}}
    data.pop("ids")
    return data | changes


def colors(tensor: torch.Tensor) -> set[tuple[int, ...]]:
    return {tuple(row) for row in torch.unique(tensor.flatten(1), dim=1).T.tolist()}


def test_without_steps_the_tensors_are_the_arrays() -> None:
    out = Transform()(sample(), 0)
    assert set(out) == {"image", "target", "index", "name"} and (out["index"], out["name"]) == (3, "x")
    for key, name in (("image", "label"), ("target", "photo")):
        assert out[key].dtype == torch.uint8 and out[key].is_contiguous()
        np.testing.assert_array_equal(out[key].permute(1, 2, 0).numpy(), arrays()[name])


def test_either_direction_gives_the_same_pair() -> None:
    steps = [A.RandomCrop(24, 32), A.HorizontalFlip(p=0.5), A.RandomBrightnessContrast(p=1)]
    for seed in range(5):
        there = Transform(steps=steps, pair=Pair())(sample(), seed)
        back = Transform(steps=steps, pair=Pair(source="photo", target="label"))(sample(), seed)
        assert torch.equal(there["image"], back["target"]) and torch.equal(there["target"], back["image"])


GEOMETRIC = [
    A.Resize(37, 29, interpolation=2, mask_interpolation=6, area_for_downscale="image"),
    A.Resize(100, 90),
    A.RandomCrop(24, 32),
    A.HorizontalFlip(p=1),
    A.Affine(rotate=(-30, 30), scale=(0.7, 1.3), shear=(-10, 10), p=1),
    A.Perspective(p=1),
    A.RandomResizedCrop((32, 32), p=1),
    A.RandomScale(p=1),
    A.Rotate(p=1),
    A.ElasticTransform(p=1),
    A.GridDistortion(p=1),
    A.PadIfNeeded(100, 100),
    A.SmallestMaxSize(32),
    A.OneOf([A.Transpose(p=1), A.VerticalFlip(p=1)], p=1),
]


@pytest.mark.parametrize("step", GEOMETRIC, ids=lambda step: type(step).__name__)
def test_labels_are_never_interpolated(step: Any) -> None:
    allowed = {tuple(color) for color in COLORS.tolist()}
    for seed in range(3):
        out = Transform(steps=[step])(sample(), seed)
        assert colors(out["image"]) <= allowed  # black, the fill, is among them
        assert out["image"].shape[-2:] == out["target"].shape[-2:]
        ids = Transform(steps=[step])(
            sample(label=arrays()["ids"], palettes={"label": np.pad(COLORS, ((0, 252), (0, 0)))}), seed
        )
        assert torch.equal(ids["image"], out["image"])  # painting after the step is painting before it


@pytest.mark.parametrize(
    "step",
    [
        A.ColorJitter(p=1),
        A.GaussNoise(p=1),
        A.Blur(p=1),
        A.ImageCompression(quality_range=(20, 30), p=1),
        A.ToGray(p=1),
    ],
    ids=lambda step: type(step).__name__,
)
@pytest.mark.parametrize("blend", [False, True])
def test_colour_steps_touch_photos_alone(step: Any, blend: bool) -> None:
    out = Transform(steps=[step], pair=Pair(blend_labels=blend))(sample(), 1)
    np.testing.assert_array_equal(out["image"].permute(1, 2, 0).numpy(), arrays()["label"])
    assert not np.array_equal(out["target"].permute(1, 2, 0).numpy(), arrays()["photo"])


def test_two_photos_get_one_draw() -> None:
    picture = arrays()["photo"]
    data = {"a": picture, "b": picture.copy(), "index": 0, "name": "x", "kinds": {"a": "photo", "b": "photo"}}
    steps = [
        A.RandomCrop(24, 32),
        A.HorizontalFlip(p=0.5),
        A.ColorJitter(p=1),
        A.Affine(rotate=(-30, 30), p=1),
    ]
    out = Transform(steps=steps, pair=Pair(source="a", target="b"))(data, 5)
    assert torch.equal(out["image"], out["target"])


def test_photo_and_label_move_together() -> None:
    steps = [A.RandomCrop(24, 32), A.HorizontalFlip(p=0.5), A.Transpose(p=0.5)]
    for seed in range(10):
        out = Transform(steps=steps)(sample(), seed)
        assert torch.equal(255 - out["image"], out["target"])


def test_blended_labels_are_resized_like_photos() -> None:
    step = A.Resize(17, 23, interpolation=cv2.INTER_LINEAR)
    out = Transform(steps=[step], pair=Pair(blend_labels=True))(sample(), 0)
    expected = cv2.resize(arrays()["label"], (23, 17), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_array_equal(out["image"].permute(1, 2, 0).numpy(), expected)
    table = np.pad(COLORS, ((0, 252), (0, 0)))
    painted = sample(label=arrays()["ids"], palettes={"label": table})
    assert torch.equal(
        Transform(steps=[step], pair=Pair(blend_labels=True))(painted, 0)["image"], out["image"]
    )
    with pytest.raises(ConfigError, match="blend_labels"):
        Transform(steps=[step], pair=Pair(blend_labels=True))(sample(label=arrays()["ids"]), 0)


def test_exact_nearest_takes_the_centre() -> None:
    ids = np.arange(48 * 64, dtype=np.uint8).reshape(48, 64)
    out = Transform(steps=[A.Resize(12, 16, mask_interpolation=6)])(sample(label=ids), 0)
    np.testing.assert_array_equal(out["image"][0].numpy(), ids[2::4, 2::4])


def test_edges_against_brute_force() -> None:
    ids = np.random.default_rng(0).integers(0, 3, (9, 11)).astype(np.int32)
    expected = np.zeros(ids.shape, np.uint8)
    for y in range(9):
        for x in range(11):
            near = [(y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)]
            expected[y, x] = any(0 <= v < 9 and 0 <= u < 11 and ids[v, u] != ids[y, x] for v, u in near)
    np.testing.assert_array_equal(instance_edges(ids), expected)
    assert instance_edges(np.zeros((1, 1), np.int32)).sum() == 0


@pytest.mark.parametrize("scale", [1, 1000, 3 * 65536])
def test_edges_follow_the_geometry(scale: int) -> None:
    """Edges of the moved ids, not moved edges: one pixel a side whatever the resize did."""
    ids = arrays()["ids"]
    data = sample(label=ids, instance=ids.astype(np.int32) * scale)
    out = Transform(steps=[A.Resize(31, 45), A.HorizontalFlip(p=1)], pair=Pair(edges=True))(data, 0)
    assert out["image"].shape == (2, 31, 45) and out["target"].shape == (3, 31, 45)
    np.testing.assert_array_equal(out["image"][1].numpy(), instance_edges(out["image"][0].numpy()))
    assert out["image"][1].max() == 1


# --- random numbers -------------------------------------------------------------------------------


def test_draws_of_different_steps_are_independent() -> None:
    """albumentations' own seeding gives every step the same stream: the flip would follow the crop."""
    ramp = np.zeros((64, 64, 3), np.uint8)
    ramp[..., 0], ramp[..., 1] = np.arange(64)[:, None], np.arange(64)[None]
    transform = Transform(steps=[A.RandomCrop(8, 8), A.HorizontalFlip(p=0.5)])
    tops, flips = [], []
    for seed in range(400):
        out = transform(sample(photo=ramp, label=ramp), seed)["target"]
        tops.append(float(out[0, 0, 0]))
        flips.append(float(out[1, 0, 0] > out[1, 0, -1]))
    assert abs(np.corrcoef(tops, flips)[0, 1]) < 0.2
    assert 0.4 < np.mean(flips) < 0.6 and min(tops) == 0 and max(tops) == 56


class Toy(ImageDataset):
    def __init__(self, **options: Any) -> None:
        self.kinds = KINDS
        super().__init__(**options)

    def __len__(self) -> int:
        return 6

    def describe(self, index: int) -> str:
        return f"{index}.png"

    name = describe

    def read(self, index: int) -> dict[str, Any]:
        data = arrays(seed=index)
        return {name: data[name] for name in KINDS}


def epoch_of(number: int, *, workers: int, seed: int = 0) -> list[torch.Tensor]:
    steps = [A.RandomCrop(16, 16), A.HorizontalFlip(p=0.5), A.ColorJitter(p=1)]
    data = Toy(transform=Transform(steps=steps), seed=seed)
    keys = [[(number, index) for index in pair] for pair in ((5, 0), (1, 2), (4, 3))]
    loader = DataLoader(data, batch_sampler=keys, num_workers=workers)  # type: ignore[arg-type]
    return [torch.cat([batch["image"], batch["target"]]) for batch in loader]


def test_items_do_not_depend_on_workers() -> None:
    expected = epoch_of(1, workers=0)
    for workers in (1, 2):
        assert all(map(torch.equal, expected, epoch_of(1, workers=workers)))
    assert not any(map(torch.equal, expected, epoch_of(2, workers=0)))
    assert not any(map(torch.equal, expected, epoch_of(1, workers=0, seed=1)))


def test_a_transform_survives_pickling() -> None:
    transform = Transform(steps=[A.RandomCrop(16, 16), A.OneOf([A.HorizontalFlip(p=1), A.VerticalFlip(p=1)])])
    expected = transform(sample(), 7)
    again = pickle.loads(pickle.dumps(transform))(sample(), 7)
    assert torch.equal(expected["image"], again["image"]) and torch.equal(expected["target"], again["target"])


def test_one_transform_serves_datasets_of_different_kinds() -> None:
    transform = Transform(steps=[A.Resize(20, 20)], pair=Pair(source="photo", target="label"))
    label = transform(sample(), 0)["target"]
    both = transform(sample(kinds=KINDS | {"label": "photo"}), 0)["target"]
    assert len(colors(label)) <= 4 < len(colors(both))
    assert torch.equal(transform(sample(), 0)["target"], label)


def test_the_arrays_of_a_sample_are_left_alone() -> None:
    data, before = sample(), arrays()
    Transform(steps=[A.HorizontalFlip(p=1), A.ColorJitter(p=1)])(data, 0)
    for name in KINDS:
        np.testing.assert_array_equal(data[name], before[name])


# --- what is refused ------------------------------------------------------------------------------


def test_steps_that_cannot_be() -> None:
    with pytest.raises(ConfigError, match=r"step 1 .*mask_interpolation=1"):
        Transform(steps=[A.HorizontalFlip(), A.Resize(8, 8, mask_interpolation=1)])
    with pytest.raises(ConfigError, match=r"step 0 \(OneOf\).*image_mask"):
        Transform(steps=[A.OneOf([A.Resize(8, 8, area_for_downscale="image_mask")])])
    with pytest.raises(ConfigError, match="found a dict"):
        Transform(steps=[{"_target_": "albumentations.Resize"}])
    with pytest.raises(ConfigError, match=r"'photo' from uint8 into float32.*Normalize"):
        Transform(steps=[A.Normalize()])(sample(), 0)
    with pytest.raises(ConfigError, match="ToTensorV2"):
        Transform(steps=[A.ToTensorV2()])(sample(), 0)


def test_pairs_that_cannot_be() -> None:
    with pytest.raises(ConfigError, match=r"data\.pair\.source: found 'lable'.*'label'"):
        Toy(transform=Transform(pair=Pair(source="lable")))
    with pytest.raises(ConfigError, match=r"data\.pair\.edges.*instances=true"):
        Transform(pair=Pair(edges=True)).check({"photo": "photo", "label": "label"})
    with pytest.raises(DataError, match=r"instance file"):
        Transform(pair=Pair(source="instance"))(sample(), 0)


def test_a_crop_beyond_the_picture_names_the_file_and_both_sizes() -> None:
    data = Toy(transform=Transform(steps=[A.RandomCrop(100, 120)]))
    with pytest.raises(DataError, match=r"^4\.png: .*48x64.*\(100, 120\) vs \(48, 64\).*PadIfNeeded"):
        data[4]


def test_different_sizes_are_refused() -> None:
    """Before the steps: a crop would hide it."""
    with pytest.raises(DataError, match="label is 48x64, photo is 20x64"):
        Transform(steps=[A.RandomCrop(8, 8)])(sample(photo=arrays()["photo"][:20]), 0)


# --- the shipped YAMLs ----------------------------------------------------------------------------

CONF = Path(__file__).parents[2] / "conf" / "transform"


def shipped(name: str, stage: str) -> list[Any]:
    """The steps of a YAML, its references to its own top resolved by hand."""
    tree = yaml.safe_load((CONF / f"{name}.yaml").read_text())

    def build(node: dict[str, Any]) -> Any:
        values = {
            key: tree[value[12:-1]] if isinstance(value, str) and value.startswith("${transform.") else value
            for key, value in node.items()
        }
        return getattr(A, values.pop("_target_").removeprefix("albumentations."))(**values)

    return [build(node) for node in tree[stage]]


@pytest.mark.parametrize(
    "name, size",
    [
        ("jitter_286_256", (256, 256)),
        ("jitter_256x512", (256, 512)),
        ("resize_256", (256, 256)),
        ("resize_256x512", (256, 512)),
        ("post_256x512", (256, 512)),
        ("none", (48, 64)),
    ],
)
def test_shipped_transforms(name: str, size: tuple[int, int]) -> None:
    train, evaluate = (Transform(steps=shipped(name, stage)) for stage in ("train", "eval"))
    for transform in (train, evaluate):
        out = transform(sample(), 1)
        assert out["image"].shape == out["target"].shape == (3, *size)
        assert colors(out["image"]) == {tuple(color) for color in COLORS.tolist()}
    assert torch.equal(evaluate(sample(), 1)["target"], evaluate(sample(), 2)["target"])
    draws = {train(sample(), seed)["target"].numpy().tobytes() for seed in range(4)}
    assert len(draws) == (4 if name.startswith("jitter") else 1)


def test_every_shipped_transform_is_tested() -> None:
    tested = {"jitter_286_256", "jitter_256x512", "resize_256", "resize_256x512", "post_256x512", "none"}
    elsewhere = {
        "segmentation",
        "segmentation_small",
        "segmentation_colour",
        "segmentation_squashed",
        "imagenet_224",
        "cifar",
        "pose",
        "face",
        "detection",
        "detection_colour",
    }  # and in test_conf
    assert {path.stem for path in CONF.glob("*.yaml")} == tested | elsewhere


def test_the_document_resizes_with_opencvs_default() -> None:
    out = Transform(steps=shipped("post_256x512", "train"), pair=Pair(blend_labels=True))(sample(), 0)
    for key, name in (("image", "label"), ("target", "photo")):
        np.testing.assert_array_equal(
            out[key].permute(1, 2, 0).numpy(), cv2.resize(arrays()[name], (512, 256))
        )
