"""Heatmap codecs: targets by hand, decoding against scalar transcriptions of the formulas, round trips, mirrors."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from dvsn.codecs.heatmaps import HeatmapCodec, blurred_around, moved_right
from dvsn.config.build import build
from dvsn.config.menu import choices
from dvsn.errors import ConfigError
from tests.support.tiny import composed

SIZE = [64, 48]
PRESETS: dict[str, dict[str, Any]] = {
    "msra": {},
    "dark": {"centre": "exact", "window": False, "refine": "dark", "flip_shift": 1},
    "dark_unbiased": {
        "centre": "exact",
        "window": False,
        "refine": "dark",
        "unbiased": True,
        "flip_shift": 0,
    },
    "udp": {"centre": "exact", "refine": "udp", "unbiased": True, "flip_shift": 0},
}


def codec(name: str = "msra", **options: Any) -> HeatmapCodec:
    return HeatmapCodec(**{"size": SIZE, **PRESETS[name], **options})


def encode_one(c: HeatmapCodec, x: float, y: float) -> tuple[np.ndarray, float]:
    maps, weight = c.encode(torch.tensor([[[x, y]]]), torch.ones(1, 1))
    return maps[0, 0].numpy(), float(weight)


def test_a_rounded_gaussian_by_hand() -> None:
    maps, weight = encode_one(codec(), 22.0, 30.0)  # 5.5 and 7.5 map pixels: half goes up
    assert weight == 1 and maps.shape == (16, 12)
    assert maps[8, 6] == 1.0
    assert maps[8, 7] == pytest.approx(math.exp(-1 / 8)) and maps[10, 6] == pytest.approx(math.exp(-4 / 8))
    assert maps[9, 5] == pytest.approx(math.exp(-2 / 8))
    assert maps[8, 0] == pytest.approx(math.exp(-36 / 8))  # the last pixel of the window, 3 sigma away
    assert maps[1, 6] == 0 and maps[2, 6] > 0  # 7 and 6 pixels away


def test_an_exact_gaussian_by_hand() -> None:
    maps, _ = encode_one(codec("dark"), 22.0, 30.0)
    assert maps[8, 5] == pytest.approx(math.exp(-(0.5**2 + 0.5**2) / 8))
    assert maps[0, 0] == pytest.approx(math.exp(-(5.5**2 + 7.5**2) / 8), rel=1e-4)  # no window
    maps, _ = encode_one(codec("udp"), 47.0, 63.0)  # the last pixels of the crop are the last of the map
    assert maps[15, 11] == pytest.approx(1.0)
    assert maps[15, 4] == 0 and maps[15, 5] == pytest.approx(math.exp(-36 / 8), rel=1e-5)


@pytest.mark.parametrize(
    ("x", "y", "weight"),
    [
        (-26.0, 8.0, 1.0),  # -6.5 + 0.5 is -6 -> window ends at 0
        (
            -33.9,
            8.0,
            1.0,
        ),  # int(-7.975) is -7, towards zero: -7 + 6 + 1 = 0 is not below 0, though nothing is painted
        (-34.0, 8.0, 0.0),
        (69.9, 8.0, 1.0),  # int(17.975) = 17: the window starts at 11, the last column
        (70.0, 8.0, 0.0),  # 18 - 6 = 12, the width
        (8.0, 85.9, 1.0),
        (8.0, 86.0, 0.0),
    ],
)
def test_weight_of_points_outside(x: float, y: float, weight: float) -> None:
    maps, found = encode_one(codec(), x, y)
    assert found == weight
    if not weight:
        assert not maps.any()


def test_unlabelled_points_paint_nothing() -> None:
    points = torch.tensor([[[20.0, 20.0], [20.0, 20.0]]])
    maps, weight = codec().encode(points, torch.tensor([[0.0, 1.5]]))
    assert not maps[0, 0].any() and maps[0, 1].max() == 1.0
    assert weight.tolist() == [[0.0, 1.5]]


@pytest.mark.parametrize(("name", "tolerance"), [("msra", 0.5), ("dark", 0.02), ("udp", 0.01)])
def test_round_trip(name: str, tolerance: float) -> None:
    """Rounded Gaussians lose at most half a map pixel; exact ones hardly anything."""
    c = codec(name, size=[160, 128])  # clear of the border, where the blur meets zeros
    generator = torch.Generator().manual_seed(0)
    points = 48 + torch.rand(20, 5, 2, generator=generator) * torch.tensor([32.0, 64.0])
    decoded, confidence = c.decode(c.encode(points, torch.ones(20, 5))[0])
    errors = (decoded - points).abs() / torch.tensor(c.spacing)
    assert float(errors.max()) <= tolerance + 1e-4
    assert float(confidence.min()) > 0.85


def test_integer_points_come_back_exactly() -> None:
    points = torch.tensor([[[16.0, 20.0], [24.0, 40.0], [4.0, 60.0]]])
    for name in ("msra", "dark"):
        c = codec(name, refine="none")
        decoded, confidence = c.decode(c.encode(points, torch.ones(1, 3))[0])
        assert torch.equal(decoded, points) and bool((confidence == 1).all())


def scalar_decode(heat: np.ndarray, c: HeatmapCodec) -> tuple[float, float]:
    """One map, read as the papers' words have it, with OpenCV's blur."""
    h, w = heat.shape
    row, column = divmod(int(heat.argmax()), w)
    if heat.max() <= 0:
        return 0.0, 0.0
    dx = dy = 0.0
    if c.refine == "quarter" and 1 < column < w - 1 and 1 < row < h - 1:
        dx = 0.25 * np.sign(heat[row, column + 1] - heat[row, column - 1])
        dy = 0.25 * np.sign(heat[row + 1, column] - heat[row - 1, column])
    elif c.refine in ("dark", "udp"):
        smooth = cv2.GaussianBlur(
            heat.astype(np.float64), (c.blur, c.blur), 0, borderType=cv2.BORDER_CONSTANT
        )
        step = 2 if c.refine == "dark" else 1
        log = np.log(np.clip(smooth, 1e-10, None) if step == 2 else np.clip(smooth, 1e-3, 50))
        log = np.pad(log, 2, mode="edge")
        y, x = row + 2, column + 2
        gradient = np.array([log[y, x + 1] - log[y, x - 1], log[y + 1, x] - log[y - 1, x]]) / 2
        xx = (log[y, x + step] - 2 * log[y, x] + log[y, x - step]) / step**2
        yy = (log[y + step, x] - 2 * log[y, x] + log[y - step, x]) / step**2
        if step == 2:
            xy = (log[y + 1, x + 1] - log[y - 1, x + 1] - log[y + 1, x - 1] + log[y - 1, x - 1]) / 4
        else:
            xy = 0.5 * (
                log[y + 1, x + 1] + log[y - 1, x - 1] - log[y, x + 1] - log[y, x - 1]
                - log[y + 1, x] - log[y - 1, x] + 2 * log[y, x]
            )  # fmt: skip
        if step == 1 or (1 < column < w - 2 and 1 < row < h - 2):
            dx, dy = -np.linalg.solve(np.array([[xx, xy], [xy, yy]]), gradient)
    sx, sy = c.spacing
    return (column + dx) * sx, (row + dy) * sy


@pytest.mark.parametrize("blur", [5, 11])
@pytest.mark.parametrize("name", PRESETS)
def test_decoding_equals_a_scalar_transcription(name: str, blur: int) -> None:
    c = codec(name, blur=blur)
    random = np.random.default_rng(0)
    maps = np.empty((2, 40, 16, 12), np.float32)
    for heat in maps.reshape(-1, 16, 12):
        places = [random.uniform(-1, side) for side in (12, 16)]
        y, x = np.mgrid[:16, :12]
        heat[:] = np.exp(-((x - places[0]) ** 2 + (y - places[1]) ** 2) / 8) + 0.05 * random.random((16, 12))
    points, confidence = c.decode(torch.from_numpy(maps))
    expected = [[scalar_decode(heat, c) for heat in person] for person in maps]
    np.testing.assert_allclose(points.numpy(), np.array(expected), atol=2e-3)
    np.testing.assert_array_equal(confidence.numpy(), maps.max(axis=(2, 3)))


@pytest.mark.parametrize("name", PRESETS)
def test_maps_without_a_peak(name: str) -> None:
    points, confidence = codec(name).decode(
        torch.stack([torch.zeros(1, 16, 12), torch.full((1, 16, 12), -1.0)])
    )
    assert not points.any() and confidence.flatten().tolist() == [0.0, -1.0]
    flat, _ = codec(name).decode(torch.ones(1, 1, 16, 12))  # a tie: the first, and no parabola
    assert bool(torch.isfinite(flat).all()) and float(flat.abs().max()) < 8


@pytest.mark.parametrize("side", [1, 3, 7, 11, 17])
def test_the_blur_is_opencvs(side: int) -> None:
    heat = np.random.default_rng(0).random((19, 22)).astype(np.float32)
    expected = cv2.GaussianBlur(heat, (side, side), 0, borderType=cv2.BORDER_CONSTANT)
    expected = np.pad(expected, 2, mode="edge")
    for row, column in ((9, 11), (0, 21), (18, 1)):
        place = torch.tensor([column]), torch.tensor([row])
        found = blurred_around(torch.from_numpy(heat)[None], *place, reach=2, side=side)[0].numpy()
        np.testing.assert_allclose(found, expected[row : row + 5, column : column + 5], atol=1e-5)


def test_mirrored_maps_by_hand() -> None:
    mirror = torch.tensor([1, 0])
    direct = torch.zeros(1, 2, 16, 12)
    mirrored = torch.zeros(1, 2, 16, 12)
    mirrored[0, 1, 3, 2] = 1.0  # in the mirror: keypoint 1, column 2; so keypoint 0, column 9, shifted to 10
    joined = codec().join_mirrored(direct, mirrored, mirror)
    assert joined[0, 0, 3, 10] == 0.5 and joined.sum() == 0.5
    assert codec("udp").join_mirrored(direct, mirrored, mirror)[0, 0, 3, 9] == 0.5
    mirrored = torch.arange(12.0).expand(1, 2, 16, 12)
    back = codec().join_mirrored(torch.zeros(1, 2, 16, 12), mirrored, mirror)[0, 0, 0] * 2
    assert back.tolist() == [11, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1]  # column 0 keeps its value


def test_the_presets_are_those_of_conf() -> None:
    assert set(choices()["codec"]) == set(PRESETS)
    for name in PRESETS:
        node = composed(["task=pose", "data=lspet", f"codec={name}"], Path("runs/test"))["codec"]
        made, expected = build({**node, "size": SIZE}, path="codec"), codec(name)
        names = (
            "size",
            "stride",
            "sigma",
            "centre",
            "window",
            "refine",
            "blur",
            "unbiased",
            "offset",
            "flip_shift",
        )
        assert {key: getattr(made, key) for key in names} == {key: getattr(expected, key) for key in names}


def test_shifts_by_hand() -> None:
    """Left, and by fractions: what comes in from outside keeps its value."""
    maps = torch.tensor([[0.0, 4.0, 0.0, 8.0]])
    assert moved_right(maps, 0) is maps
    assert moved_right(maps, 1).tolist() == [[0, 0, 4, 0]] and moved_right(maps, 2).tolist() == [[0, 4, 0, 4]]
    assert moved_right(maps, -1).tolist() == [[4, 0, 8, 8]]
    assert moved_right(maps, 0.25).tolist() == [[0, 3, 1, 6]]
    assert moved_right(maps, -0.5).tolist() == [[2, 2, 4, 8]]


def test_an_offset_by_hand() -> None:
    """Map pixel (5, 7) stands for crop pixel 4 x (5, 7) + 2.5, to write and to read."""
    c = codec(offset=2.5, refine="none")
    maps, _ = encode_one(c, 22.5, 30.5)
    assert maps[7, 5] == 1.0
    assert c.decode(torch.from_numpy(maps)[None, None])[0].tolist() == [[[22.5, 30.5]]]
    assert c.decode(torch.zeros(1, 1, 16, 12))[0].tolist() == [[[2.5, 2.5]]]


@pytest.mark.parametrize("name", ["udp", "dark_unbiased"])
def test_a_mirrored_crop_decodes_to_mirrored_points(name: str) -> None:
    """Unbiased counting needs no shift: x of the mirrored crop is width - 1 - x, in maps as in pixels."""
    c = codec(name)
    points = torch.tensor([[[17.3, 22.9]]])
    flipped = torch.tensor([[[47 - 17.3, 22.9]]])
    one = torch.ones(1, 1)
    joined = c.join_mirrored(c.encode(points, one)[0], c.encode(flipped, one)[0], torch.tensor([0]))
    assert float((c.decode(joined)[0] - points).abs().max()) < 0.05


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"size": [66, 48]}, "codec.size"),
        ({"size": [64]}, "codec.size"),
        ({"sigma": 0.0}, "sigma"),
        ({"blur": 10}, "blur"),
        ({"offset": 48.0}, "offset"),
        ({"flip_shift": 12}, "codec.flip_shift: found 12"),
        ({"flip_shift": -12}, "codec.flip_shift: found -12"),
        ({"centre": "round"}, "rounded"),
        ({"refine": "drak"}, "dark"),
    ],
)
def test_options_without_meaning(options: dict[str, Any], word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        codec(**options)
