"""Tiles of big pictures, against crops of the whole ones."""

from __future__ import annotations

import lzma
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torchmetrics.classification import MulticlassConfusionMatrix

import dvsn
from dvsn.config.build import build
from dvsn.data.aligned import Aligned
from dvsn.data.dataset import ImageDataset
from dvsn.data.files import read_by, read_labels, read_rgb
from dvsn.data.module import TrainBatches
from dvsn.data.segmentation_folders import SegmentationFolders
from dvsn.data.tiles import Tiled, read_tile
from dvsn.engine.records import measured_line
from dvsn.engine.results import how_measured
from dvsn.errors import ConfigError, DataError
from dvsn.portable import decode
from dvsn.portable.bands import make_bands
from dvsn.portable.decode import Rule
from dvsn.portable.windows import Part, Window
from dvsn.tasks.inference import Inference
from tests.support.tiny import TINY_SEGMENTATION, composed

OLD = Path(__file__).parents[1] / "old_checkpoints"
NAMES = ["left", "right", "rest"]
SIZES = [(90, 130), (64, 64), (40, 150)]
pytestmark = pytest.mark.filterwarnings("ignore:Dataset has no geotransform", "ignore:Use `@` matmul")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three pictures of noise, each with random ids; 255 here and there."""
    place = tmp_path_factory.mktemp("tiles")
    draw = np.random.default_rng(5)
    for split in ("train", "val"):
        for folder in ("images", "labels"):
            (place / split / folder).mkdir(parents=True)
        for number, (height, width) in enumerate(SIZES):
            photo = draw.integers(0, 256, (height, width, 3), dtype=np.uint8)
            ids = draw.integers(0, 3, (height, width), dtype=np.uint8)
            ids[3:5, 4:9] = 255
            cv2.imwrite(str(place / split / "images" / f"{number}.png"), photo)
            cv2.imwrite(str(place / split / "labels" / f"{number}.png"), ids)
    return place


@pytest.fixture(scope="module")
def whole(root: Path) -> ImageDataset:
    return SegmentationFolders(root=str(root), split="train", names=NAMES, seed=7)


def test_training_tiles_lie_anywhere_and_follow_from_seed_epoch_and_index(whole: ImageDataset) -> None:
    tiles = Tiled(whole, size=(64, 48), target="label", random=True)
    assert len(tiles) == 2 * 3 + 1 * 2 + 1 * 4  # 90x130, 64x64, 40x150
    assert [tiles.at(index)[0] for index in range(len(tiles))] == [0] * 6 + [1] * 2 + [2] * 4
    places = set()
    for epoch in range(100):
        for index in range(len(tiles)):
            number, window = tiles.place(epoch, index)
            assert (number, window) == Tiled(whole, size=(64, 48), random=True).place(epoch, index)
            height, width = SIZES[number]
            assert (window.height, window.width) == (min(64, height), 48)
            assert 0 <= window.top <= height - window.height and 0 <= window.left <= width - window.width
            places.add((number, window.top, window.left))
    assert {top for number, top, _ in places if number == 0} == set(range(90 - 64 + 1))
    assert {left for number, _, left in places if number == 0} == set(range(130 - 48 + 1))


def test_an_item_is_that_part_of_its_picture(whole: ImageDataset) -> None:
    tiles = Tiled(whole, size=(64, 48), random=True)
    for index in range(len(tiles)):
        number, (top, left, height, width) = tiles.place(3, index)
        sample, picture = tiles[3, index], whole[number]
        spot = (slice(top, top + height), slice(left, left + width))
        assert np.array_equal(sample["photo"], picture["photo"][spot])
        assert np.array_equal(sample["label"], picture["label"][spot])
        assert sample["index"] == index
    names = [tiles.name(index) for index in range(len(tiles))]
    assert len(set(names)) == len(names) and names[0] == "0_0_0"


@pytest.mark.parametrize("overlap", [(0, 0), (16, 10), (32, 24)])
def test_each_pixel_of_the_grid_counts_once(overlap: tuple[int, int], whole: ImageDataset) -> None:
    tiles = Tiled(whole, size=(64, 48), overlap=overlap, target="label")
    found = [np.full(size, 255, np.uint8) for size in SIZES]
    for index in range(len(tiles)):
        number, (top, left, height, width) = tiles.at(index)
        label = tiles[index]["label"]
        assert np.array_equal(label, tiles.read_label(index, "label"))
        spot = found[number][top : top + height, left : left + width]
        counted = label != 255
        assert (spot[counted] == 255).all()
        spot[counted] = label[counted]
    for number, ids in enumerate(found):
        assert np.array_equal(ids, whole[number]["label"])


def test_the_confusion_of_tiles_is_that_of_the_picture_by_nearest_centres(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    path = tmp_path / "segmentation.ckpt"
    path.write_bytes(lzma.decompress((OLD / "segmentation.ckpt.xz").read_bytes()))
    task: Any = dvsn.load(path)
    names = list(task.vocabulary.names)
    draw = np.random.default_rng(0)
    for folder in ("images", "labels"):
        (tmp_path / "val" / folder).mkdir(parents=True)
    photo = cv2.resize(draw.integers(0, 256, (20, 30, 3), dtype=np.uint8), (190, 150))
    cv2.imwrite(str(tmp_path / "val" / "images" / "a.png"), photo)
    ids = draw.integers(0, len(names), (150, 190), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / "val" / "labels" / "a.png"), ids)
    one = SegmentationFolders(root=str(tmp_path), split="val", names=names)
    tiles = Tiled(one, size=(64, 96), overlap=(16, 32), target="label")

    def confusion(found: torch.Tensor, truth: Any) -> torch.Tensor:
        metric = MulticlassConfusionMatrix(len(names), ignore_index=255)
        return metric(found, torch.from_numpy(truth)[None].long())

    def batch(picture: Any) -> torch.Tensor:
        return torch.from_numpy(picture.transpose(2, 0, 1).copy())[None]

    task.inference = Inference("slide", (64, 96), (48, 64), blend="centre")
    with torch.inference_mode():
        expected = confusion(task(batch(read_rgb(tmp_path / "val" / "images" / "a.png"))), ids)
        task.inference = Inference()
        samples = [tiles[index] for index in range(len(tiles))]
        found = sum(confusion(task(batch(each["photo"])), each["label"]) for each in samples)
    assert expected.sum() == 150 * 190 and len(tiles) == 3 * 3
    assert torch.equal(torch.as_tensor(found), expected)


def test_a_data_module_trains_on_random_tiles_and_measures_the_grid(root: Path, tmp_path: Path) -> None:
    options = ["data.tile=[64,48]", "data.tile_overlap=[8,8]", f"data.root={root}"]
    config = composed([*TINY_SEGMENTATION, *options], tmp_path)
    data = build(config["data"], path="data")
    data.setup("fit")
    train, val = data.datasets["train"], data.datasets["val"]
    assert isinstance(train, Tiled) and train.random and train.overlap == (0, 0) and len(train) == 12
    assert isinstance(val, Tiled) and not val.random and val.overlap == (8, 8)
    assert train[1, 0]["image"].shape == (3, 64, 64) and val[0]["image"].shape == (3, 64, 48)
    again = build(config["data"], path="data")
    again.setup("fit")
    batches = TrainBatches(size=len(train), batch_size=4, seed=0)
    batches.epoch, batches.start = 2, 1  # as a resumed run
    for epoch, index in [key for keys in batches for key in keys]:
        one, other = train[epoch, index], again.datasets["train"][epoch, index]
        assert torch.equal(one["image"], other["image"]) and torch.equal(one["target"], other["target"])
    assert not torch.equal(train[1, 0]["image"], train[2, 0]["image"])


def test_further_sets_are_read_as_tiles_too(root: Path, tmp_path: Path) -> None:
    more = f"data.more=[{{root: '{root}'}}, {{root: '{root}/val/images', unlabelled: true}}]"
    config = composed([*TINY_SEGMENTATION, "data.tile=[64,48]", f"data.root={root}", more], tmp_path)
    data = build(config["data"], path="data")
    data.setup("fit")
    train = data.datasets["train"]
    assert data.ratios is not None and data.ratios.counts == [12, 12, 12]
    for index in (0, 12, 24):
        part, place = train.at(index)
        assert isinstance(part, Tiled) and part.random and place == 0
        for epoch in (1, 2):
            _, (top, left, height, width) = part.place(epoch, 0)
            with train.ruled():
                photo = train.read_at(epoch, index)["photo"]
            assert np.array_equal(photo, part.whole.read(0)["photo"][top : top + height, left : left + width])


def test_a_score_says_that_it_is_of_tiles() -> None:
    tiles = {"tile": [64, 48], "tile_overlap": 8}
    task: Any = SimpleNamespace(measures_in_float32=True, inference=Inference(), data_recipe=tiles)
    measured = how_measured(task, "32-true")
    assert measured["tile"] == {"size": [64, 48], "overlap": 8}
    assert "tiles of pictures" in measured_line(measured)
    task.data_recipe = {"tile": None}
    assert "tile" not in how_measured(task, "32-true")


@pytest.mark.parametrize(
    ("tile", "overlap", "message"),
    [
        ([64], 0, r"data.tile: found \[64\], expected \[HEIGHT, WIDTH\]"),
        (0, 0, "data.tile: found 0"),
        ("64x64", 0, "data.tile: found '64x64'"),
        (
            64,
            33,
            r"data.tile_overlap: found \[33, 33\] with tiles of \[64, 64\]; expected half a tile at most",
        ),
        (64, -1, "data.tile_overlap: found -1"),
        (None, 8, "data.tile_overlap: is that of tiles, and data.tile is null"),
    ],
)
def test_tiles_that_make_no_sense_are_named(tile: Any, overlap: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_tile(tile, overlap)
    assert read_tile(None, 0) is None and read_tile(64, [8, 4]) == ((64, 64), (8, 4))


def test_a_label_of_another_size_is_named(root: Path, tmp_path: Path) -> None:
    for folder in ("images", "labels"):
        (tmp_path / "train" / folder).mkdir(parents=True)
    cv2.imwrite(str(tmp_path / "train" / "images" / "a.png"), np.zeros((80, 80, 3), np.uint8))
    cv2.imwrite(str(tmp_path / "train" / "labels" / "a.png"), np.zeros((80, 81), np.uint8))
    tiles = Tiled(SegmentationFolders(root=str(tmp_path), split="train", names=NAMES), size=(32, 32))
    with pytest.raises(DataError, match=r"labels/a.png: is 80x81 .* and what belongs to it is 80x80"):
        tiles[0]


def test_data_sets_that_read_no_parts_are_refused(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    cv2.imwrite(str(tmp_path / "train" / "a.png"), np.zeros((40, 80, 3), np.uint8))
    tiles = Tiled(Aligned(root=str(tmp_path), split="train", narrow=True), size=(32, 32))
    with pytest.raises(DataError, match=r"where a tile of 32x32 was read: this data set does not read parts"):
        tiles[0]
    tiles.whole.kinds["label"] = "number"
    with pytest.raises(ConfigError, match=r"data\.tile: 'label' of this data set is a number"):
        Tiled(tiles.whole, size=(32, 32))


# Files ---------------------------------------------------------------------------------------------------


def write(path: Path, bands: Any, **options: Any) -> Path:
    rasterio = pytest.importorskip("rasterio")
    colormap = options.pop("colormap", None)
    profile = {
        "driver": "GTiff", "height": bands.shape[1], "width": bands.shape[2], "count": len(bands), "dtype": bands.dtype,
        "tiled": True, "blockxsize": 32, "blockysize": 32, "compress": "deflate",
    }  # fmt: skip
    with rasterio.open(path, "w", **(profile | options)) as dataset:
        if colormap:
            dataset.write_colormap(1, colormap)
        dataset.write(bands)
    return path


FORMS: dict[str, tuple[int, Any, dict[str, Any]]] = {
    "rgb": (3, np.uint8, {"photometric": "rgb"}),
    "rgba": (4, np.uint8, {"photometric": "rgb", "alpha": "yes"}),
    "grey": (1, np.uint8, {}),
    "white is zero": (1, np.uint8, {"photometric": "miniswhite"}),
    "strips": (3, np.uint8, {"photometric": "rgb", "tiled": False, "blockysize": 5}),
    "planes": (3, np.uint8, {"photometric": "rgb", "interleave": "band"}),
    "lzw": (3, np.uint8, {"photometric": "rgb", "compress": "lzw", "predictor": 2}),
    "deep grey": (1, np.uint16, {}),
    "deep": (3, np.uint16, {"photometric": "rgb"}),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_part_of_a_tiff_is_that_of_the_whole(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bands, kind, options = FORMS[form]
    draw = np.random.default_rng(1)
    pixels = draw.integers(0, 256 if kind == np.uint8 else 4096, (bands, 70, 90)).astype(kind)
    path = write(tmp_path / "a.tif", pixels, **options)
    window = Window(13, 21, 40, 50)
    with read_by(Rule(deep_range=(0, 4095))):
        whole = read_rgb(path)
    monkeypatch.setattr(decode, "_read_bytes", lambda path: pytest.fail("decoded as a whole"))
    with read_by(Rule(deep_range=(0, 4095), part=Part(window, (70, 90)))):
        part = read_rgb(path)
    assert part.dtype == np.uint8 and np.array_equal(part, whole[13:53, 21:71])
    if bands == 3 and kind == np.uint8:
        assert np.array_equal(whole, pixels.transpose(1, 2, 0))


@pytest.mark.parametrize("colormap", [None, {0: (0, 0, 0, 255), 1: (250, 10, 20, 255), 2: (9, 8, 7, 255)}])
def test_ids_keep_their_numbers(colormap: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = np.random.default_rng(1).integers(0, 3, (1, 70, 90), dtype=np.uint8)
    path = write(tmp_path / "a.tif", ids, colormap=colormap)
    whole, colours = read_labels(path), read_rgb(path)
    monkeypatch.setattr(decode, "_read_bytes", lambda path: pytest.fail("decoded as a whole"))
    with read_by(Rule(part=Part(Window(10, 20, 30, 40), (70, 90)))):
        assert np.array_equal(read_labels(path), whole[10:40, 20:60])
        assert np.array_equal(read_rgb(path), colours[10:40, 20:60])
    assert np.array_equal(whole, ids[0])


@pytest.mark.parametrize("kind", [np.uint16, np.float32])
def test_a_part_of_other_bands_is_that_of_the_whole(
    kind: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("images", "depth"):
        (tmp_path / folder).mkdir()
    draw = np.random.default_rng(1)
    pixels, depth = (
        draw.integers(0, 4096, (4, 70, 90)).astype(kind),
        draw.integers(0, 256, (1, 70, 90), dtype=np.uint8),
    )
    path = write(tmp_path / "images" / "a.tif", pixels)
    write(tmp_path / "depth" / "a.tif", depth)
    options = {
        "take": [4, 2],
        "range": [[0, 4000], [100, 3000], [0, 255]],
        "beside": "depth",
        "photos": "images",
    }
    bands = make_bands(options, 3)
    monkeypatch.setattr(decode, "_read_bytes", lambda path: pytest.fail("decoded as a whole"))
    with read_by(Rule(bands=bands, part=Part(Window(13, 21, 40, 50), (70, 90)))):
        part = read_rgb(path)
    scaled = (pixels[[3, 1], 13:53, 21:71] - np.array([0, 100]).reshape(2, 1, 1)) / np.array(
        [4000, 2900]
    ).reshape(2, 1, 1)
    expected = np.concatenate([np.rint(scaled.clip(0, 1) * 255), depth[:, 13:53, 21:71]])
    assert part.shape == (40, 50, 3) and np.abs(part.transpose(2, 0, 1) - expected).max() <= 1
    assert np.array_equal(part[..., 2], depth[0, 13:53, 21:71])
    write(tmp_path / "depth" / "a.tif", depth[:, :60])
    with (
        read_by(Rule(bands=bands, part=Part(Window(0, 0, 8, 8), (70, 90)))),
        pytest.raises(DataError, match=r"depth/a.tif: is \(60, 90\)"),
    ):
        read_rgb(path)


def test_broken_and_foreign_files_are_named(tmp_path: Path) -> None:
    pytest.importorskip("rasterio")
    part = Part(Window(0, 0, 20, 20), (70, 90))

    def refused(path: Path, message: str, **rule: Any) -> None:
        with read_by(Rule(part=part, **rule)), pytest.raises(DataError, match=message):
            read_rgb(path)

    noise = np.random.default_rng(1).integers(0, 256, (3, 70, 90), dtype=np.uint8)
    path = write(tmp_path / "cut.tif", noise)
    path.write_bytes(path.read_bytes()[:-3000])
    refused(path, r"cut.tif: truncated TIFF \([\d,]+ bytes, its pixels reach to")
    (tmp_path / "text.tif").write_text("<VRTDataset/>" + " " * 200)
    refused(tmp_path / "text.tif", "only TIFF, PNG and JPEG are read by windows")
    refused(
        write(tmp_path / "floats.tif", noise.astype(np.float32)),
        "a picture of float32; expected 8 or 16 bits",
    )
    refused(
        write(tmp_path / "four.tif", noise[[0, 1, 2, 0, 1]]), "a picture of 5 bands .*expected grey or RGB"
    )
    cv2.imwrite(str(tmp_path / "a.png"), noise.transpose(1, 2, 0))
    whole = (tmp_path / "a.png").read_bytes()
    (tmp_path / "b.png").write_bytes(whole[:-2000])
    refused(tmp_path / "b.png", "b.png: truncated PNG", max_pixels=100)
    (tmp_path / "c.png").write_bytes(whole[:28] + b"\x01" + whole[29:])
    refused(tmp_path / "c.png", "an interlaced PNG, which can only be decoded as a whole", max_pixels=100)
    huge = (100_000).to_bytes(4, "big")
    (tmp_path / "huge.png").write_bytes(whole[:16] + huge + huge + whole[24:])
    with pytest.raises(
        DataError, match=r"a picture of 100000x100000 .*10,000,000,000 pixels; expected 200,000,000"
    ):
        read_rgb(tmp_path / "huge.png")


def test_a_tiff_in_one_large_block_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.tif", np.zeros((3, 70, 90), np.uint8), tiled=False, blockysize=70)
    monkeypatch.setattr("dvsn.portable.windows.BLOCK", 10_000)
    with (
        read_by(Rule(part=Part(Window(0, 0, 20, 20), (70, 90)))),
        pytest.raises(
            DataError, match=r"is stored in blocks of 70x90 .*18,900 bytes, .* Write it as a tiled TIFF"
        ),
    ):
        read_rgb(path)
