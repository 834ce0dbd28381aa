"""Crops of faces: the published cut to the bit, points where they are drawn, mirrors, occlusion, refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from dvsn.config.build import build
from dvsn.data.face_crop import FaceCrop, occlude
from dvsn.errors import ConfigError, DataError
from dvsn.geometry.head_angles import MODEL
from dvsn.geometry.keypoints import KeypointSet
from dvsn.portable.crop import cut, move_points
from dvsn.portable.draw import to_rotation
from tests.support.tiny import composed

KEYPOINTS = KeypointSet(names=["chin", "left", "right", "nose"], pairs=[["left", "right"]])
POINTS = np.array([[60.2, 88.7], [81.5, 50.3], [42.9, 47.1], [61.0, 66.6]], np.float32)


def sample(seed: int = 0, **changes: Any) -> dict[str, Any]:
    random = np.random.default_rng(seed)
    return {
        "photo": random.integers(0, 256, (110, 130, 3), dtype=np.uint8),
        "box": np.array([40, 40, 50, 55], np.float32),
        "keypoints": POINTS.copy(),
        "labelled": np.ones(4, np.uint8),
        "index": 3,
        "name": "x",
        **changes,
    }


def crop(**options: Any) -> FaceCrop:
    made = FaceCrop(**{"size": [112, 112], **options})
    made.keypoints = KEYPOINTS
    return made


def published(photo: np.ndarray, points: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """The release's test crop, written from the sheet: pad the whole picture, slice, resize; fractions of the side."""
    low, high = np.floor(points.min(axis=0)).astype(int), np.floor(points.max(axis=0)).astype(int)
    width, height = high - low + 1
    x, y, side = int(low[0] + width / 2), int(low[1] + height / 2), int(1.2 * max(width, height))
    left, top = x - side // 2, y - side // 2
    border = 400
    padded = cv2.copyMakeBorder(photo, border, border, border, border, cv2.BORDER_CONSTANT, value=0)
    square = padded[top + border : top + border + side, left + border : left + border + side]
    return cv2.resize(square, (size, size)), (points - (left, top)) / side


@pytest.mark.parametrize("move", [(0, 0), (-40, -45), (50, 30)])
def test_without_augmentation_it_is_the_published_crop(move: tuple[int, int]) -> None:
    """Inside of the picture, and over its corners."""
    points = POINTS + np.array(move, np.float32)
    item = crop()(sample(keypoints=points), 0)
    picture, fractions = published(sample()["photo"], points.astype(np.float64), 112)
    assert np.array_equal(item["image"].permute(1, 2, 0).numpy(), picture)
    np.testing.assert_allclose(item["keypoints"].numpy() / 112, fractions, atol=1e-5)
    np.testing.assert_allclose(
        move_points(item["keypoints"].numpy(), item["inverse"].numpy()), points, atol=1e-3
    )
    assert (item["index"], item["name"]) == (3, "x") and item["weight"].tolist() == [1, 1, 1, 1]


def test_the_frame_by_hand() -> None:
    """x 42..81, y 47..88: 40 x 42 pixels, centre (62, 68), side int(50.4), corner 25 before the centre."""
    corner, side = crop().frame(sample())
    assert (corner.tolist(), side) == ([37, 43], 50)
    assert crop()(sample(), 0)["extent"].tolist() == [50, 50]
    # x 40..90, y 40..95: 51 x 56, centre (65, 68), side int(67.2)
    corner, side = crop(box="rectangle").frame(sample())
    assert (corner.tolist(), side) == ([32, 35], 67)


def test_the_points_make_no_crop_of_a_rectangle() -> None:
    hidden = sample(labelled=np.zeros(4, np.uint8))
    item = crop(box="rectangle", zoom=0.1, occlusion=1.0)(hidden, 0)
    assert not item["keypoints"].any() and not item["weight"].any()
    with pytest.raises(DataError, match=r"no point is labelled.*rectangle"):
        crop()(hidden, 0)


@pytest.mark.parametrize("options", [{}, {"zoom": 0.1, "rotation": 30.0, "shift": 0.05}])
@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_centred_points_lie_on_what_they_mark(options: dict[str, float], flip: float) -> None:
    """A bright disc at each point is found again at its keypoint, mirrored to the other one of its pair."""
    for number, point in enumerate(POINTS):
        photo = np.zeros((110, 130, 3), np.uint8)
        cv2.circle(
            photo,
            tuple(np.rint(point * 16).astype(int).tolist()),
            3 * 16,
            (255, 255, 255),
            -1,
            cv2.LINE_AA,
            4,
        )
        item = crop(centred=True, padding=2.0, flip=flip, **options)(sample(photo=photo), 5)
        rows, columns = np.mgrid[:112, :112]
        weight = item["image"][0].numpy().astype(float)
        found = np.array([(weight * columns).sum(), (weight * rows).sum()]) / weight.sum()
        expected = item["keypoints"].numpy()[int(KEYPOINTS.mirror[number]) if flip else number]
        np.testing.assert_allclose(found, expected, atol=0.2)


def test_points_from_the_corner_differ_by_half_pixels() -> None:
    """Crop pixels are 50 / 112 of a picture's: the centre of one is at half of it, counted from the corner. So it is
    of mirrored and of turned crops."""
    from_corner, centred = (crop(centred=value)(sample(), 0)["keypoints"] for value in (False, True))
    np.testing.assert_allclose((centred - from_corner).numpy(), (112 / 50 - 1) / 2, atol=1e-4)
    for seed, options in enumerate(
        [{"flip": 1.0}, {"rotation": 170.0}, {"rotation": 90.0, "zoom": 0.3, "flip": 1.0}]
    ):
        one, other = (
            crop(centred=value, box="rectangle", **options)(sample(), seed) for value in (False, True)
        )
        shift = (112 / one["extent"][0].item() - 1) / 2
        np.testing.assert_allclose((other["keypoints"] - one["keypoints"]).numpy(), shift, atol=1e-4)


@pytest.mark.parametrize("centred", [False, True])
def test_a_mirror_is_the_crop_of_the_mirrored_picture(centred: bool) -> None:
    """x becomes 111 - x; counted from the corner 112 - x - u, u being a picture pixel: 112 / 50 crop pixels."""
    one, mirrored = (crop(centred=centred, flip=value)(sample(), 0) for value in (0.0, 1.0))
    assert np.array_equal(mirrored["image"].numpy(), one["image"].numpy()[..., ::-1])
    width = 111 if centred else 112 - 112 / 50
    expected = one["keypoints"].numpy()[[0, 2, 1, 3]] * [-1, 1] + [width, 0]
    np.testing.assert_allclose(mirrored["keypoints"].numpy(), expected, atol=1e-3)
    back = move_points(mirrored["keypoints"].numpy(), mirrored["inverse"].numpy())
    np.testing.assert_allclose(back, POINTS[[0, 2, 1, 3]], atol=1e-3)


def test_a_mirror_moves_the_labels_along() -> None:
    item = crop(box="rectangle", flip=1.0)(sample(labelled=np.array([1, 1, 0, 1], np.uint8)), 0)
    assert item["weight"].tolist() == [1, 0, 1, 1] and item["keypoints"][1].tolist() == [0, 0]


def test_the_augmented_warp_agrees_with_the_cut() -> None:
    """With hardly any zoom both ways of making a crop give the same one, up to OpenCV's rounding of coordinates."""
    photo = cv2.GaussianBlur(sample()["photo"], (0, 0), 3)
    warped, plain = (crop(zoom=zoom)(sample(photo=photo), 0) for zoom in (1e-6, 0.0))
    assert np.abs(warped["image"].numpy().astype(int) - plain["image"].numpy()).max() <= 2
    np.testing.assert_allclose(warped["keypoints"].numpy(), plain["keypoints"].numpy(), atol=1e-3)


def test_ranges_of_the_augmentation() -> None:
    made = crop(zoom=0.2, shift=0.1, rotation=30.0, padding=2.0)
    items = [made(sample(), seed) for seed in range(200)]
    sides = np.array([item["extent"][0].item() for item in items]) / 84  # int(2 x 42)
    assert 0.8 <= sides.min() < 0.83 and 1.17 < sides.max() <= 1.2
    turned = [np.degrees(np.arctan2(i["inverse"][1, 0].item(), i["inverse"][0, 0].item())) for i in items]
    assert -30 <= min(turned) < -27 and 27 < max(turned) <= 30
    middles = np.array(  # pixel 55.5 of the crop, counted from its corner: 56 - u / 2
        [
            move_points(np.full(2, 56 - 56 / item["extent"][0].item()), item["inverse"].numpy())
            for item in items
        ]
    )
    moved = (middles - (61.5, 67.5)) / 84  # the corner lies 42 before the centre
    assert np.abs(moved).max() <= 0.1 and (np.ptp(moved, axis=0) > 0.18).all()
    assert all(bool(((item["keypoints"] >= 0) & (item["keypoints"] <= 112)).all()) for item in items)


def test_points_stay_inside_where_they_can() -> None:
    made = crop(zoom=0.15, shift=0.1, rotation=30.0)
    items = [made(sample(), seed) for seed in range(200)]
    inside = [bool(((item["keypoints"] >= 0) & (item["keypoints"] <= 112)).all()) for item in items]
    assert np.mean(inside) > 0.99


def test_one_seed_one_crop() -> None:
    made = crop(zoom=0.2, rotation=20.0, flip=0.5, occlusion=0.5)
    one, again, other = made(sample(), 1), made(sample(), 1), made(sample(), 2)
    assert np.array_equal(one["image"], again["image"]) and not np.array_equal(one["image"], other["image"])


def test_occlusion_hides_its_share_of_the_face_and_nothing_else() -> None:
    points = np.array([[20.0, 30.0], [90.0, 100.0]])
    colours, wide = set(), []
    for seed in range(60):
        picture = np.full((112, 112, 3), 44, np.uint8)
        occlude(picture, points, 0.2, np.random.default_rng(seed))
        hidden = (picture != 44).any(axis=-1)
        rows, columns = np.flatnonzero(hidden.any(axis=1)), np.flatnonzero(hidden.any(axis=0))
        sides = np.ptp(rows) + 1, np.ptp(columns) + 1
        assert abs(sides[0] * sides[1] / 70**2 - 0.2) < 0.02
        assert rows.min() >= 30 and rows.max() < 100 and columns.min() >= 20 and columns.max() < 90
        colours.add(len(np.unique(picture[hidden], axis=0)) == 1)
        wide.append(sides[1] / sides[0])
    assert colours == {True, False} and min(wide) < 0.65 and max(wide) > 1.5
    untouched = np.zeros((112, 112, 3), np.uint8)
    occlude(untouched, points[:1], 0.2, np.random.default_rng(0))
    assert not untouched.any()


def test_occlusion_is_drawn_with_its_probability_and_the_points_stay() -> None:
    plain = crop()(sample(), 0)
    items = [crop(occlusion=0.3)(sample(), seed) for seed in range(200)]
    share = np.mean([not np.array_equal(item["image"], plain["image"]) for item in items])
    assert 0.2 < share < 0.4 and all(np.array_equal(i["keypoints"], plain["keypoints"]) for i in items)


def test_attributes_travel_along() -> None:
    flags = crop(flip=1.0)(sample(attributes=np.array([1, 0, 1], np.uint8)), 0)["attributes"]
    assert flags.tolist() == [1, 0, 1] and flags.dtype.is_floating_point
    assert "attributes" not in crop()(sample(), 0)


def test_cut_outside_of_the_picture_is_black() -> None:
    photo = sample()["photo"]
    assert not cut(photo, np.array([500, 500]), 20).any() and cut(photo, np.array([-5, 3]), 20).shape == (
        20,
        20,
        3,
    )
    assert np.array_equal(cut(photo, np.array([-5, 3]), 20)[:, 5:], photo[3:23, :15])
    assert not cut(photo, np.array([-5, 3]), 20)[:, :5].any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": [112, 96]}, r"transform.size: found \[112, 96\].*squares"),
        ({"box": "face"}, "points"),
        ({"flip": 2.0}, "transform.train.flip: found 2.0"),
        ({"zoom": 1.0}, "zoom=1.0"),
        ({"occluded": 0.0}, "occluded=0.0"),
    ],
)
def test_wrong_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        crop(**options)


@pytest.mark.parametrize("box", [[5, 5, 0, 9], [5, 5, 9, -1], [np.nan, 5, 9, 9]])
def test_a_rectangle_without_an_inside_is_refused(box: list[float]) -> None:
    with pytest.raises(DataError, match="expected sides above 0"):
        crop(box="rectangle")(sample(box=np.array(box)), 0)


def face68(seed: int = 0) -> tuple[KeypointSet, np.ndarray]:
    """The 68 points, and the mean face seen by the camera of a crop of 67 pixels at (32, 35); other points at random."""
    node = composed(["task=landmarks", "data=faces68"], Path("runs/test"))["data"]["keypoints"]
    keypoints = build(node, path="data.keypoints")
    points = np.random.default_rng(seed).uniform(35, 80, (68, 2))
    turned = MODEL @ to_rotation([0.1, 0.25, -0.15]).T + [0, 0, 24]
    focal = 67 / 2 / np.tan(np.pi / 6)
    points[list(keypoints.head)] = focal * turned[:, :2] / turned[:, 2:] + [32 + 33.5, 35 + 33.5]
    return keypoints, points.astype(np.float32)


def test_angles_are_those_of_the_points_in_the_crop() -> None:
    """Turning the crop by some degrees adds them to the roll, and a mirrored crop has the mirrored angles."""
    keypoints, points = face68()
    given = sample(keypoints=points, labelled=np.ones(68, np.uint8))

    def angles(seed: int = 0, **options: Any) -> np.ndarray:
        made = FaceCrop(size=[112, 112], box="rectangle", **options)
        made.keypoints = keypoints
        return made(given, seed)["angles"].numpy()

    plain = angles()
    np.testing.assert_allclose(
        plain, [0.1, 0.25, -0.15], atol=0.08
    )  # another camera than the face was drawn by
    np.testing.assert_allclose(angles(flip=1.0), plain * [1, -1, -1], atol=2e-3)
    made = FaceCrop(size=[112, 112], box="rectangle", rotation=40.0)
    made.keypoints = keypoints
    for seed in range(8):
        item = made(given, seed)
        across = item["inverse"].numpy()[:, 0]  # where the crop's x axis points in the picture
        assert abs(item["angles"][2] - plain[2] + np.arctan2(across[1], across[0])) < 0.03
    given["labelled"][8] = 0  # the chin
    assert np.isnan(angles()).all()
    assert "angles" not in crop()(sample(), 0)  # a set that does not tell


def test_rotation_with_a_probability() -> None:
    """Of 200 crops about 6 in 10 are turned, by up to 30 degrees; the others not at all."""
    made = crop(box="rectangle", rotation=30.0, rotated=0.6)
    across = np.array([made(sample(), seed)["inverse"].numpy()[:, 0] for seed in range(200)])
    angles = np.degrees(np.arctan2(across[:, 1], across[:, 0]))
    turned = np.abs(angles) > 1e-3
    assert 100 < turned.sum() < 140 and 25 < np.abs(angles).max() <= 30
    assert np.abs(angles[turned]).mean() == pytest.approx(15, abs=3)
