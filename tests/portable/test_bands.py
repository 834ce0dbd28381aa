"""Pictures of any number of bands: what is read of each kind of file, the ranges, and what is refused."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from PIL import Image

from dvsn.config.menu import conf_dir
from dvsn.data.module import DataModule, measure_ranges
from dvsn.errors import ConfigError, DataError
from dvsn.portable import headers
from dvsn.portable.band_files import read_numbers
from dvsn.portable.bands import (
    OPTIONS,
    Bands,
    as_rgb,
    bands_of,
    from_memory,
    measured,
    scaled,
    shown_bands,
    spread,
)
from dvsn.portable.decode import Rule, make_rule, read_by, read_grey, read_rgb

Array = np.ndarray[Any, Any]
LIMIT = 10_000


def drawn(channels: int, kind: type = np.uint8, *, seed: int = 0) -> Array:
    top = {np.uint8: 256, np.uint16: 65536, np.float32: 1000}[kind]
    return np.random.default_rng(seed).integers(0, top, (6, 9, channels)).astype(kind)


def write(path: Path, picture: Array) -> Path:
    """By the ending: .npy as it is, .png with OpenCV, .tif a page for each band with Pillow."""
    if path.suffix == ".npy":
        np.save(path, picture)
    elif path.suffix == ".png":
        order = [2, 1, 0, 3][: picture.shape[2]] if picture.shape[2] > 1 else [0]
        cv2.imwrite(str(path), picture[..., order])
    else:
        first, *others = [Image.fromarray(picture[..., band]) for band in range(picture.shape[2])]
        first.save(path, save_all=True, append_images=others)
    return path


def numbers(path: Path, **options: Any) -> Array:
    (found,) = read_numbers(path, path.read_bytes(), Bands(**options), LIMIT)
    return found


@pytest.mark.parametrize(
    ("name", "channels", "kind"),
    [
        ("a.npy", 1, np.uint8), ("a.npy", 6, np.uint16), ("a.npy", 4, np.float32),
        ("a.png", 1, np.uint8), ("a.png", 3, np.uint8), ("a.png", 4, np.uint8),
        ("a.png", 1, np.uint16), ("a.png", 3, np.uint16), ("a.png", 4, np.uint16),
        ("a.tif", 1, np.uint8), ("a.tif", 5, np.uint8), ("a.tif", 2, np.uint16), ("a.tif", 3, np.float32),
    ],
)  # fmt: skip
def test_numbers_are_read_as_they_are_stored(name: str, channels: int, kind: type, tmp_path: Path) -> None:
    picture = drawn(channels, kind)
    found = numbers(write(tmp_path / name, picture), count=channels)
    assert found.dtype == kind
    assert np.array_equal(found, picture)


@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize(("channels", "kind"), [(4, np.uint8), (6, np.uint16), (3, np.float32)])
def test_a_tiff_of_several_bands_a_page(planar: str, channels: int, kind: type, tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile", reason="pip install 'dvsn[bands]'")
    picture = drawn(channels, kind)
    stored = picture if planar == "contig" else picture.transpose(2, 0, 1)
    options = {"planarconfig": planar, "photometric": "minisblack", "compression": "zlib"}
    tifffile.imwrite(tmp_path / "a.tif", stored, **options)
    assert np.array_equal(numbers(tmp_path / "a.tif", count=channels), picture)


def test_a_tiff_that_needs_a_library_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(drawn(4), "RGBA").save(tmp_path / "a.tif")
    monkeypatch.setitem(__import__("sys").modules, "tifffile", None)
    with pytest.raises(
        ConfigError, match=r"a\.tif: a TIFF of several bands a page .* pip install 'dvsn\[bands\]'"
    ):
        numbers(tmp_path / "a.tif", count=4)


def test_grey_with_alpha_has_two_bands(tmp_path: Path) -> None:
    picture = drawn(2)
    Image.fromarray(picture, "LA").save(tmp_path / "a.png")
    assert np.array_equal(numbers(tmp_path / "a.png", count=2), picture)


def test_ranges_by_hand() -> None:
    values = np.array([[[-5.0, 0.0], [0.0, 50.0], [5.0, 100.0], [10.0, 200.0], [99.0, 101.0]]], np.float32)
    found = scaled(values, [(0.0, 10.0), (0.0, 200.0)])
    assert found[0].tolist() == [
        [0, 0],
        [0, 64],
        [128, 128],
        [255, 255],
        [255, 129],
    ]  # 127.5 to the even number
    same = drawn(2)
    assert scaled(same, [(0.0, 255.0)] * 2) is same


def test_ranges_are_measured_between_percentiles() -> None:
    ramp = np.arange(1001, dtype=np.float32).reshape(7, 143, 1)
    bands = Bands(2, percentiles=(10.0, 90.0))
    found = measured([[np.concatenate([ramp, -ramp], axis=2)]], bands)
    assert found.ranges == ((100.0, 900.0), (-900.0, -100.0))
    flat = np.full((4, 4, 1), 7, np.uint16)
    assert measured([[flat]], Bands(1)).ranges == ((7.0, 8.0),)
    both = measured([[drawn(3), ramp[:, :9]]], Bands(4))
    assert both.ranges is not None and both.ranges[:3] == ((0.0, 255.0),) * 3


def test_a_file_may_have_more_bands_than_are_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """How many bytes it may have is the same for training as for the ranges that are measured before."""
    picture = np.random.default_rng(0).normal(size=(30, 40, 12))  # 8 bytes a number
    path = write(tmp_path / "a.npy", picture)
    rule = Rule(max_pixels=30 * 40, bands=Bands(1, take=(12,)))
    monkeypatch.setattr(headers, "AROUND", 1000)
    dataset: Any = type("OnePhoto", (), {"__len__": lambda _: 1, "banded_photo": lambda _, __: path})()
    known = measure_ranges(dataset, rule)
    with read_by(known):
        assert read_rgb(path).shape == (30, 40, 1)
    with pytest.raises(DataError, match=r"a\.npy: 115,328 bytes, expected a picture of 77,800 bytes"):
        measure_ranges(dataset, Rule(max_pixels=800, bands=rule.bands))


def test_pixels_are_thinned_once() -> None:
    numbers = np.arange(500 * 777 * 2, dtype=np.float32).reshape(500, 777, 2)
    some = spread(numbers)
    assert len(some) == -(-500 * 777 // 3) and np.array_equal(some[1], numbers[0, 3])
    assert np.array_equal(spread(some[None]), some)


def test_bands_are_taken_and_become_bytes(tmp_path: Path) -> None:
    picture = drawn(5, np.uint16)
    path = write(tmp_path / "a.npy", picture)
    data = {"input_channels": 2, "bands": {"take": [4, 1], "range": [[0, 65535], [0, 1000]]}}
    with read_by(make_rule(bands=bands_of(data))):
        found = read_rgb(path)
    assert found.dtype == np.uint8
    assert np.array_equal(found[..., 0], np.rint(picture[..., 3] / 257))
    assert np.array_equal(found[..., 1], np.rint(picture[..., 0].clip(0, 1000) * 0.255))
    assert np.array_equal(from_memory(picture, bands_of(data) or Bands(2)), found)


def test_a_second_file_comes_behind(tmp_path: Path) -> None:
    for folder in ("images", "depth"):
        (tmp_path / "train" / folder / "deep").mkdir(parents=True)
    colours, depth = drawn(3), drawn(1, np.float32)
    path = write(tmp_path / "train" / "images" / "deep" / "a_rgb.png", colours)
    write(tmp_path / "train" / "depth" / "deep" / "a_z.npy", depth)
    names = {"photos": "images", "beside": "depth", "photo_ending": "_rgb", "beside_ending": "_z"}
    data = {"input_channels": 4, "bands": {**names, "range": [[0, 255]] * 3 + [[0, 1000]]}}
    with read_by(make_rule(bands=bands_of(data))):
        found = read_rgb(path)
        assert np.array_equal(found[..., :3], colours)
        assert np.array_equal(found[..., 3], np.rint(depth[..., 0] * 0.255))
        write(tmp_path / "train" / "depth" / "deep" / "a_z.npy", depth[:3])
        with pytest.raises(DataError, match=r"a_rgb\.png is 6x9, .*a_z\.npy is 3x9"):
            read_rgb(path)
        (tmp_path / "train" / "depth" / "deep" / "a_z.npy").unlink()
        with pytest.raises(DataError, match=r"a_rgb\.png: .*a_z\.\* with its further bands"):
            read_rgb(path)
        with pytest.raises(DataError, match="no folder 'images'"):
            read_rgb(write(tmp_path / "b.png", colours))


def test_files_that_are_refused(tmp_path: Path) -> None:
    whole = write(tmp_path / "whole.npy", drawn(4))

    def refused(message: str, path: Path, **options: Any) -> None:
        with (
            pytest.raises((DataError, ConfigError), match=message),
            read_by(Rule(bands=Bands(**{"count": 4, **options}))),
        ):
            read_rgb(path)

    refused(r"whole\.npy: found 4 bands, expected 3 \(data\.input_channels\)", whole, count=3)
    refused("data.bands.take asks for number 7", whole, count=1, take=(7,))
    floats = drawn(4, np.float32)
    refused("numbers of float32, which become 8 bits by a range", write(tmp_path / "floats.npy", floats))
    floats[2, 3, 1] = np.nan
    refused(r"nan\.npy: 1 of 216 values are not finite", write(tmp_path / "nan.npy", floats))
    refused(
        "numbers of int64, expected one of uint8", write(tmp_path / "long.npy", drawn(4).astype(np.int64))
    )
    objects = tmp_path / "objects.npy"
    np.save(objects, np.array([{}, {}], object), allow_pickle=True)
    refused(r"objects\.npy: numbers of object", objects)
    refused("an array of the shape", write(tmp_path / "flat.npy", np.zeros(7, np.uint8)))
    cut = tmp_path / "cut.npy"
    cut.write_bytes(whole.read_bytes()[:-20])
    refused(r"cut\.npy: not a whole \.npy file", cut)
    large = write(tmp_path / "large.npy", np.zeros((200, 200, 4), np.uint8))
    with read_by(Rule(max_pixels=LIMIT, bands=Bands(4))), pytest.raises(DataError, match="200x200"):
        read_rgb(large)
    half = write(tmp_path / "half.png", drawn(4))
    half.write_bytes(half.read_bytes()[:-30])
    refused(r"half\.png: not a whole picture", half)
    pages = tmp_path / "pages.tif"
    Image.fromarray(drawn(1)[..., 0]).save(pages, save_all=True, append_images=[Image.new("L", (3, 3))])
    refused(r"pages\.tif: its pages differ", pages, count=2)


def test_a_mask_beside_bands_is_read_as_grey(tmp_path: Path) -> None:
    mask = drawn(1)
    path = write(tmp_path / "mask.png", mask)
    with read_by(Rule(bands=Bands(4))):
        assert np.array_equal(read_grey(path), mask[..., 0])


def test_without_bands_an_array_is_no_picture_and_a_float_picture_says_how(tmp_path: Path) -> None:
    Image.fromarray(drawn(1, np.float32)[..., 0]).save(tmp_path / "a.tif")
    with pytest.raises(DataError, match=r"data\.bands\.take=\[1\]"):
        read_rgb(tmp_path / "a.tif")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"input_channels": 0, "bands": {}}, "data.input_channels: found 0"),
        ({"input_channels": 4, "bands": {"took": [1]}}, "data.bands.took: unknown key"),
        ({"input_channels": 4, "bands": {"take": [0, 1, 2, 3]}}, "data.bands.take: found"),
        ({"input_channels": 4, "bands": {"take": [1, 2]}}, "names 2 bands, and data.input_channels is 4"),
        ({"input_channels": 4, "bands": {"range": [5, 5]}}, "data.bands.range"),
        ({"input_channels": 4, "bands": {"range": [[0, 1], [0, 2]]}}, "found 2 pairs"),
        ({"input_channels": 4, "bands": {"percentiles": [99, 1]}}, "data.bands.percentiles"),
        ({"input_channels": 4, "bands": {"shown": [1, 2, 5]}}, "data.bands.shown"),
        ({"input_channels": 4, "bands": {"beside": "depth"}}, "expected both"),
        ({"input_channels": 4, "bands": {"beside": "../depth", "photos": "images"}}, "data.bands.beside"),
    ],
)
def test_options_that_are_refused(data: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        bands_of(data)


def test_rgb_and_grey_are_read_as_ever() -> None:
    assert bands_of({"input_channels": 3, "bands": {"shown": None}}) is None
    assert bands_of({"input_channels": 1}) is None
    assert bands_of({"input_channels": 35, "label_classes": 34}) is None
    with pytest.raises(ConfigError, match=r"data\.deep_range"):
        make_rule(deep_range=[0, 4095], bands=Bands(4))


def test_what_pictures_of_bands_show() -> None:
    assert [shown_bands(each) for each in (1, 2, 3, 7)] == [(0, 0, 0), (0, 0, 0), (0, 1, 2), (0, 1, 2)]
    assert shown_bands(7, [4, 3, 2]) == (3, 2, 1) and shown_bands(4, [4]) == (3, 3, 3)
    picture = drawn(4)
    assert np.array_equal(as_rgb(picture, Bands(4, shown=(4, 1, 2))), picture[..., [3, 0, 1]])


def test_the_options_of_the_yaml_are_those_of_the_code() -> None:
    """Else a run that began before there were bands could not be resumed: what it lacks counts as the default."""
    file = Path(conf_dir()) / "data" / "_base.yaml"
    assert yaml.safe_load(file.read_text(encoding="utf-8"))["bands"] == OPTIONS
    assert inspect.signature(DataModule).parameters["bands"].default == OPTIONS
