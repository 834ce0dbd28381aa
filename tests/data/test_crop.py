"""Crops of people: the geometry by hand and by point pairs, the augmentation, and mirrors."""

from __future__ import annotations

from typing import Any

import albumentations
import cv2
import numpy as np
import pytest
import torch

from dvsn.data.crop import PersonCrop
from dvsn.errors import ConfigError, DataError
from dvsn.geometry.keypoints import KeypointSet
from dvsn.portable.crop import box_to_extent, crop_matrix, invert, move_points

NAMES = ["nose", "left_hand", "right_hand", "left_foot", "right_foot"]
KEYPOINTS = KeypointSet(
    names=NAMES,
    pairs=[["left_hand", "right_hand"], ["left_foot", "right_foot"]],
    upper_body=["nose", "left_hand", "right_hand"],
)


def sample(seed: int = 0, **changes: Any) -> dict[str, Any]:
    random = np.random.default_rng(seed)
    photo = cv2.resize(random.integers(0, 256, (15, 20, 3), dtype=np.uint8), (200, 150))
    points = random.uniform(40, 110, (5, 2)).astype(np.float32)
    return {
        "photo": photo,
        "box": np.array([35, 30, 90, 100], np.float32),
        "keypoints": points,
        "labelled": np.ones(5, np.uint8),
        "index": 3,
        "name": "x",
        **changes,
    }


def crop(**options: Any) -> PersonCrop:
    made = PersonCrop(**{"size": [64, 48], **options})
    made.keypoints = KEYPOINTS
    return made


def test_the_published_example() -> None:
    centre, extent = box_to_extent((100, 50, 80, 200), 192 / 256, 1.25)
    assert centre.tolist() == [140, 150] and extent.tolist() == [187.5, 250]
    matrix = crop_matrix(centre, extent, (256, 192))
    np.testing.assert_allclose(matrix, [[1.024, 0, -47.36], [0, 1.024, -25.6]])


def test_a_wide_box_grows_in_height() -> None:
    centre, extent = box_to_extent((0, 0, 90, 60), 0.75, 1.0)
    assert centre.tolist() == [45, 30] and extent.tolist() == [90, 120]


@pytest.mark.parametrize("degrees", [0.0, 30.0, -75.0])
def test_the_matrix_equals_three_point_pairs(degrees: float) -> None:
    """The release solves for the map of the centre, the point half a width above it, and their perpendicular."""
    centre, extent, (height, width) = np.array([140.0, 150.0]), np.array([187.5, 250.0]), (256, 192)
    angle = np.deg2rad(degrees)
    up = np.array([np.sin(angle), -np.cos(angle)]) * extent[0] / 2
    # 'up' of the crop points, in the picture, to the left-turned direction
    source = np.array([centre, centre + np.array([-up[0], up[1]]) * [-1, 1], [0, 0]])
    target = np.array([[width / 2, height / 2], [width / 2, height / 2 - width / 2], [0, 0]])

    def third(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        d = a - b
        return b + np.array([-d[1], d[0]])

    source[2], target[2] = third(source[0], source[1]), third(target[0], target[1])
    expected = cv2.getAffineTransform(source.astype(np.float32), target.astype(np.float32))
    turned = crop_matrix(centre, extent, (height, width), rotation_degrees=degrees)
    np.testing.assert_allclose(turned[:, :2], expected[:, :2], atol=1e-5)
    np.testing.assert_allclose(turned[:, 2], expected[:, 2], atol=2e-3)


def test_a_positive_angle_turns_the_content_counter_clockwise() -> None:
    matrix = crop_matrix((50, 50), (100, 100), (100, 100), rotation_degrees=90)
    right = move_points(np.array([70.0, 50.0]), matrix)
    np.testing.assert_allclose(right, [50, 30], atol=1e-9)  # what was right of the centre is above it


def test_unbiased_counts_between_pixel_centres() -> None:
    matrix = crop_matrix((9.5, 9.5), (19, 19), (39, 20), unbiased=True)
    np.testing.assert_allclose(move_points(np.array([[0, 0], [19, 19]]), matrix), [[0, 0], [19, 38]])
    with pytest.raises(AssertionError):
        biased = crop_matrix((9.5, 9.5), (19, 19), (39, 20))
        np.testing.assert_allclose(move_points(np.array([[0, 0], [19, 19]]), biased), [[0, 0], [19, 38]])


def test_invert() -> None:
    matrix = crop_matrix((31, 17), (40, 53), (64, 48), rotation_degrees=20)
    points = np.random.default_rng(0).normal(size=(7, 2)) * 50
    np.testing.assert_allclose(move_points(move_points(points, matrix), invert(matrix)), points, atol=1e-9)


def test_without_augmentation_the_points_sit_on_the_picture() -> None:
    item = crop(padding=1.0)(sample(labelled=np.array([1, 1, 1, 1, 0], np.uint8)), 0)
    assert item["image"].shape == (3, 64, 48) and item["image"].dtype.is_floating_point is False
    centre, extent = box_to_extent((35, 30, 90, 100), 0.75, 1.0)
    matrix = crop_matrix(centre, extent, (64, 48))
    expected = move_points(sample()["keypoints"], matrix)
    np.testing.assert_allclose(item["keypoints"][:4].numpy(), expected[:4], atol=1e-4)
    assert item["keypoints"][4].tolist() == [0, 0] and item["weight"].tolist() == [1, 1, 1, 1, 0]
    back = move_points(item["keypoints"][:4].numpy(), item["inverse"].numpy())
    np.testing.assert_allclose(back, sample()["keypoints"][:4], atol=1e-3)
    assert item["index"] == 3 and item["name"] == "x"
    np.testing.assert_allclose(item["extent"].numpy(), extent, rtol=1e-6)


@pytest.mark.parametrize("unbiased", [False, True])
def test_a_mirror_is_the_crop_of_the_mirrored_picture(unbiased: bool) -> None:
    original = sample()
    mirrored = dict(original)
    mirrored["photo"] = np.ascontiguousarray(original["photo"][:, ::-1])
    points = original["keypoints"].copy()
    points[:, 0] = 199 - points[:, 0]
    mirrored["keypoints"] = points[KEYPOINTS.mirror]
    x, y, width, height = original["box"]
    mirrored["box"] = np.array([199 - x - width, y, width, height], np.float32)
    by_flip = crop(flip=1.0, unbiased=unbiased)(original, 5)
    by_hand = crop(unbiased=unbiased)(mirrored, 5)
    np.testing.assert_allclose(by_flip["keypoints"].numpy(), by_hand["keypoints"].numpy(), atol=1e-4)
    difference = by_flip["image"].numpy().astype(int) - by_hand["image"].numpy()
    assert np.abs(difference).max() <= 4 and np.abs(difference).mean() < 0.5
    back = move_points(by_flip["keypoints"].numpy(), by_flip["inverse"].numpy())
    np.testing.assert_allclose(back, original["keypoints"][KEYPOINTS.mirror], atol=1e-3)


def test_the_same_seed_repeats_and_others_differ() -> None:
    augmented = crop(zoom=0.35, rotation=45.0, flip=0.5, shift=0.1, steps=[albumentations.ColorJitter(p=1.0)])
    first, again = augmented(sample(), 7), augmented(sample(), 7)
    assert all(bool((first[key] == again[key]).all()) for key in ("image", "keypoints"))
    assert not bool((first["image"] == augmented(sample(), 8)["image"]).all())


def test_the_drawn_numbers_follow_the_published_distributions() -> None:
    augmented = crop(zoom=0.35, rotation=45.0)
    _, extent = box_to_extent((35, 30, 90, 100), 0.75, 1.25)
    factors, angles = [], []
    for seed in range(600):
        item = augmented(sample(), seed)
        factors.append(float(item["extent"][0]) / extent[0])
        inverse = item["inverse"].numpy()
        angles.append(np.rad2deg(np.arctan2(inverse[1, 0], inverse[0, 0])))
    assert min(factors) == pytest.approx(0.65, abs=1e-4) and max(factors) == pytest.approx(1.35, abs=1e-4)
    edge = np.mean(np.isclose(factors, 0.65, atol=1e-4) | np.isclose(factors, 1.35, atol=1e-4))
    assert edge == pytest.approx(0.317, abs=0.06)  # of a normal beyond one deviation
    turned = np.abs(angles) > 1e-6
    assert turned.mean() == pytest.approx(0.6, abs=0.06)
    assert np.abs(angles).max() == pytest.approx(90, abs=1e-3)
    assert np.mean(np.abs(np.array(angles)[turned]) > 45) == pytest.approx(0.317, abs=0.07)


def test_half_body_by_hand() -> None:
    keypoints = KeypointSet(names=[f"j{i}" for i in range(10)], upper_body=[f"j{i}" for i in range(5)])
    made = PersonCrop(size=[64, 48], half_body=1.0)
    made.keypoints = keypoints
    points = np.zeros((10, 2), np.float32)
    points[:5] = [[40, 40], [60, 40], [40, 50], [60, 50], [50, 45]]
    points[5:] = [[40, 100], [60, 100], [40, 140], [60, 140], [50, 120]]
    given = sample(keypoints=points, labelled=np.ones(10, np.uint8))
    seen = set()
    counts = {"upper": 0, "lower": 0}
    for seed in range(300):
        item = made(given, seed)
        extent = tuple(np.round(item["extent"].numpy(), 3).tolist())
        seen.add(extent)
        counts["upper" if extent[0] == 30.0 else "lower"] += 1
    # upper: 20 x 10 grows to 20 x 26.67; lower: 20 x 40 grows to 30 x 40; both times 1.5
    assert seen == {(30.0, 40.0), (45.0, 60.0)}
    assert counts["upper"] / 300 == pytest.approx(0.69, abs=0.08)
    few = sample(keypoints=points, labelled=np.array([1] * 8 + [0] * 2, np.uint8))
    assert {tuple(made(few, seed)["extent"].tolist()) for seed in range(5)} == {(112.5, 150.0)} or all(
        float(made(few, seed)["extent"][0]) not in (30.0, 45.0) for seed in range(5)
    )


def test_half_body_without_an_upper_body_is_left_out() -> None:
    plain, made = (PersonCrop(size=[64, 48], half_body=value) for value in (0.0, 1.0))
    plain.keypoints = made.keypoints = KeypointSet(names=[f"j{i}" for i in range(10)])
    points = np.random.default_rng(0).uniform(20, 100, (10, 2)).astype(np.float32)
    given = sample(keypoints=points, labelled=np.ones(10, np.uint8))
    for seed in range(3):
        assert torch.equal(made(dict(given), seed)["inverse"], plain(dict(given), seed)["inverse"])


@pytest.mark.parametrize("pairs", [None, []])
def test_nothing_is_mirrored_where_the_pairs_are_not_known(pairs: list[list[str]] | None) -> None:
    plain, made = (PersonCrop(size=[64, 48], flip=value) for value in (0.0, 1.0))
    count = len(sample()["keypoints"])
    plain.keypoints = made.keypoints = KeypointSet(names=[f"j{i}" for i in range(count)], pairs=pairs)
    same = torch.equal(made(sample(), 0)["image"], plain(sample(), 0)["image"])
    assert same is (pairs is None)


def test_half_body_without_enough_points_keeps_the_box() -> None:
    keypoints = KeypointSet(names=[f"j{i}" for i in range(10)], upper_body=[f"j{i}" for i in range(9)])
    made = PersonCrop(size=[64, 48], half_body=1.0)
    made.keypoints = keypoints
    points = np.full((10, 2), 50, np.float32)  # all in one place: no extent
    item = made(sample(keypoints=points, labelled=np.ones(10, np.uint8)), 0)
    assert bool(np.isfinite(item["keypoints"].numpy()).all())
    np.testing.assert_allclose(
        item["extent"].numpy(), box_to_extent((35, 30, 90, 100), 0.75, 1.25)[1], rtol=1e-6
    )


@pytest.mark.parametrize("box", [(10, 10, 0, 20), (10, 10, -5, 20), (np.nan, 1, 2, 3)])
def test_a_box_without_an_inside(box: tuple[float, ...]) -> None:
    with pytest.raises(DataError, match="expected sides above 0"):
        crop()(sample(box=np.array(box, np.float32)), 0)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"size": [64]}, "size"),
        ({"flip": 1.5}, "flip"),
        ({"padding": 0.0}, "padding"),
        ({"steps": [albumentations.HorizontalFlip()]}, "leave its keypoints behind"),
    ],
)
def test_options_without_meaning(options: dict[str, Any], word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        crop(**options)


def test_dropout_hides_and_stays_in_place() -> None:
    item = crop(steps=[albumentations.CoarseDropout(p=1.0, fill=0)])(sample(), 0)
    assert item["keypoints"].any()


# Keypoint sets ------------------------------------------------------------------------------------------


def test_mirror_is_its_own_inverse() -> None:
    assert KEYPOINTS.mirror.tolist() == [0, 2, 1, 4, 3]
    assert KEYPOINTS.mirror[KEYPOINTS.mirror].tolist() == list(range(5))


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"names": ["a", "a"]}, "each once"),
        ({"pairs": [["nose", "left_hand"], ["nose", "right_hand"]]}, "nose is in two pairs"),
        ({"pairs": [["nose", "nose"]]}, "two different names"),
        ({"pairs": [["nose"]]}, "two different names"),
        ({"pairs": [["left_hand", "right_hnd"]]}, "right_hand"),
        ({"sigmas": [0.1, 0.2]}, "found 2 numbers, expected 5"),
        ({"upper_body": ["knee"]}, "upper_body"),
    ],
)
def test_keypoint_sets_without_meaning(options: dict[str, Any], word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        KeypointSet(**{"names": NAMES, **options})
