"""Segmentation by windows from file to file, against the same picture in memory."""

from __future__ import annotations

import lzma
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

import dvsn
from dvsn.data.street.scene import draw_scene
from dvsn.engine import trainer as runtime
from dvsn.engine.checkpoint import AtomicCheckpointIO
from dvsn.errors import ConfigError, DataError
from dvsn.portable import headers
from dvsn.predict import command
from dvsn.predict.options import COMMAND
from dvsn.tasks.inference import Inference
from tests.support.six_tasks import write_checkpoint
from tests.support.tiny import TINY_SEGMENTATION, composed

pytestmark = pytest.mark.filterwarnings("ignore:Dataset has no geotransform", "ignore:Use `@` matmul")
OLD = Path(__file__).parents[1] / "old_checkpoints"
SLIDE = [
    "inference.mode=slide",
    "inference.window=[64,96]",
    "inference.stride=[48,80]",
    "inference.blend=ramp",
]
HEIGHT, WIDTH = 150, 210


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    path = tmp_path_factory.mktemp("big") / "segmentation.ckpt"
    path.write_bytes(lzma.decompress((OLD / "segmentation.ckpt.xz").read_bytes()))
    return path


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dvsn.predict.big.BLOCK", 64)


@pytest.fixture(scope="module")
def photo() -> Any:
    return draw_scene(seed=3, index=0, height=HEIGHT, width=WIDTH).photo


@pytest.fixture(scope="module")
def expected(checkpoint: Path, photo: Any) -> Any:
    task: Any = dvsn.load(checkpoint)
    task.inference = Inference("slide", (64, 96), (48, 80), blend="ramp")
    with torch.inference_mode():
        return task(torch.from_numpy(photo.transpose(2, 0, 1).copy())[None])[0].numpy()


def run(*argv: Any) -> command.Outcome:
    return command.run(COMMAND.parse([*map(str, argv), "device=cpu"]))


def write_tiff(path: Path, photo: Any, **options: Any) -> Path:
    rasterio = pytest.importorskip("rasterio")
    profile = {
        "driver": "GTiff", "height": photo.shape[0], "width": photo.shape[1], "count": photo.shape[2], "dtype": photo.dtype,
        "tiled": True, "blockxsize": 64, "blockysize": 32, "compress": "deflate", "photometric": "rgb",
    }  # fmt: skip
    with rasterio.open(path, "w", **(profile | options)) as dataset:
        dataset.write(photo.transpose(2, 0, 1))
    return path


def read_tiff(path: Path) -> Any:
    with pytest.importorskip("rasterio").open(path) as dataset:
        return dataset.read().transpose(1, 2, 0)


@pytest.mark.parametrize("form", ["tiled.tif", "strips.tif", "x.png", "x.jpg"])
def test_the_answer_is_that_of_the_picture_in_memory(
    form: str, checkpoint: Path, photo: Any, expected: Any, tmp_path: Path
) -> None:
    path = tmp_path / form
    if form.endswith("tif"):
        write_tiff(path, photo, **({} if form == "tiled.tif" else {"tiled": False, "blockysize": 7}))
    else:
        pytest.importorskip("rasterio")
        Image.fromarray(photo).save(path, quality=100, subsampling=0)
    outcome = run(
        checkpoint, path, f"output={tmp_path}/out", "write=ids", "big_pixels=0", "batch_size=3", *SLIDE
    )
    found = read_tiff(tmp_path / "out" / f"{path.stem}.tif")[..., 0]
    assert found.shape == (HEIGHT, WIDTH)
    assert (found == expected).mean() > (
        0.9999 if form != "x.jpg" else 0.97
    )  # three at a time; JPEG is lossy
    overview = cv2.imread(str(tmp_path / "out" / f"{path.stem}_overview.png"))
    assert overview.shape == (HEIGHT, WIDTH, 3) and outcome.frames == 1
    assert sorted(each.name for each in outcome.written) == [f"{path.stem}.tif", f"{path.stem}_overview.png"]
    assert {each.name for each in (tmp_path / "out").iterdir()} == {each.name for each in outcome.written}


def test_windows_one_at_a_time_are_equal_to_the_bit(
    checkpoint: Path, photo: Any, expected: Any, tmp_path: Path
) -> None:
    path = write_tiff(tmp_path / "x.tif", photo)
    run(checkpoint, path, f"output={tmp_path}/out", "write=ids", "big_pixels=0", *SLIDE)
    assert np.array_equal(read_tiff(tmp_path / "out" / "x.tif")[..., 0], expected)
    run(checkpoint, path, f"output={tmp_path}/color", "write=color", "big_pixels=0", *SLIDE)
    words = dvsn.load(checkpoint).vocabulary
    palette = np.array(words.palette, np.uint8)
    assert np.array_equal(read_tiff(tmp_path / "color" / "x.tif"), palette[expected])
    run(checkpoint, path, f"output={tmp_path}/over", "write=overlay", "big_pixels=0", *SLIDE)
    over = read_tiff(tmp_path / "over" / "x.tif").astype(int)
    assert np.abs(over - (photo.astype(int) + palette[expected]) / 2).max() <= 1


def test_the_georeference_and_what_holds_nothing_are_kept(
    checkpoint: Path, photo: Any, expected: Any, tmp_path: Path
) -> None:
    rasterio = pytest.importorskip("rasterio")
    from rasterio.transform import from_origin

    empty = photo.clip(1)
    empty[:60, :50] = 0
    place = from_origin(399_960, 5_300_040, 10, 10)
    path = write_tiff(tmp_path / "x.tif", empty, crs="EPSG:32632", transform=place, nodata=0)
    run(checkpoint, path, f"output={tmp_path}/out", "write=ids", "big_pixels=0", *SLIDE)
    with rasterio.open(tmp_path / "out" / "x.tif") as dataset:
        assert dataset.crs.to_epsg() == 32632 and dataset.transform == place and dataset.nodata == 255
        ids = dataset.read(1)
        assert (ids[:60, :50] == 255).all() and (ids[60:] != 255).all() and (ids[:, 50:] != 255).all()
        assert dataset.block_shapes == [(64, 64)] and dataset.colormap(1)[0][3] == 255
    run(checkpoint, path, f"output={tmp_path}/color", "big_pixels=0", *SLIDE)
    with rasterio.open(tmp_path / "color" / "x.tif") as dataset:
        assert dataset.dataset_mask()[50, 20] == 0 and dataset.dataset_mask()[70, 20] == 255
        assert dataset.transform == place and not dataset.read()[:, :60, :50].any()


def test_ground_control_points_are_kept(checkpoint: Path, photo: Any, tmp_path: Path) -> None:
    rasterio = pytest.importorskip("rasterio")
    from rasterio.control import GroundControlPoint

    points = [GroundControlPoint(r, c, 8 + c / 1000, 47 - r / 1000) for r in (0, 149) for c in (0, 209)]
    path = write_tiff(tmp_path / "x.tif", photo)
    with rasterio.open(path, "r+") as dataset:
        dataset.gcps = (points, rasterio.CRS.from_epsg(4326))
    run(checkpoint, path, f"output={tmp_path}/out", "write=ids", "big_pixels=0", *SLIDE)
    with rasterio.open(tmp_path / "out" / "x.tif") as dataset:
        found, system = dataset.gcps
        assert system.to_epsg() == 4326
        assert [(p.row, p.col, p.x, p.y) for p in found] == [(p.row, p.col, p.x, p.y) for p in points]


def test_a_world_file_is_a_place_too(checkpoint: Path, photo: Any, tmp_path: Path) -> None:
    rasterio = pytest.importorskip("rasterio")
    Image.fromarray(photo[:64, :96]).save(tmp_path / "x.png")
    (tmp_path / "x.pgw").write_text("0.5\n0\n0\n-0.5\n1000.25\n1999.75\n")  # the centre of the first pixel
    run(checkpoint, tmp_path / "x.png", f"output={tmp_path}/out", "write=ids", "big_pixels=0", *SLIDE)
    with rasterio.open(tmp_path / "out" / "x.tif") as dataset:
        assert tuple(dataset.transform)[:6] == (0.5, 0.0, 1000.0, 0.0, -0.5, 2000.0)


def test_small_pictures_and_whole_ones_stay_pictures(checkpoint: Path, photo: Any, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "x.png"), photo[..., ::-1])
    outcome = run(checkpoint, tmp_path / "x.png", f"output={tmp_path}/out", "write=ids", *SLIDE)
    assert [each.name for each in outcome.written] == ["x.png"]
    outcome = run(checkpoint, tmp_path / "x.png", f"output={tmp_path}/whole", "write=ids", "big_pixels=0")
    assert [each.name for each in outcome.written] == ["x.png"]


def test_what_is_done_is_kept_and_what_is_broken_is_skipped(
    checkpoint: Path, photo: Any, tmp_path: Path
) -> None:
    good, bad = write_tiff(tmp_path / "good.tif", photo), write_tiff(tmp_path / "bad.tif", photo)
    bad.write_bytes(bad.read_bytes()[:-9000])
    given = (f"output={tmp_path}/out", "write=ids", "big_pixels=0", *SLIDE)
    outcome = run(checkpoint, good, bad, *given)
    assert outcome.frames == 1 and not (tmp_path / "out" / "bad.tif").exists()
    assert "truncated TIFF" in outcome.skipped.messages[0]
    first = (tmp_path / "out" / "good.tif").stat().st_mtime_ns
    write_tiff(tmp_path / "bad.tif", photo)
    outcome = run(checkpoint, good, bad, *given)
    assert outcome.frames == 1 and outcome.kept == 1 and not outcome.skipped.messages
    assert (tmp_path / "out" / "good.tif").stat().st_mtime_ns == first


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (["inference.stride=[65,96]"], ConfigError, r"inference.stride: found \[65, 96\] with windows of \[64, 96\]"),
        (["inference.blend=mean"], ConfigError, "inference.blend: found 'mean'"),
        (["inference.scales=[0.5,1]"], ConfigError, "too large to be read whole. inference.scales, inference.resize"),
        (["size=64x64"], ConfigError, "too large to be read whole. size: .* Set size=keep"),
        (["side_by_side=true"], ConfigError, "side_by_side: is not for pictures that are read by windows"),
        (["inference.mode=whole"], DataError, "Or let it be read by windows: size=keep inference.mode=slide"),
        (["big_pixels=-1"], ConfigError, "big_pixels: found -1"),
    ],
)  # fmt: skip
def test_options_that_do_not_fit_are_named(
    given: list[str], error: type[Exception], message: str, checkpoint: Path, photo: Any, tmp_path: Path
) -> None:
    path = write_tiff(tmp_path / "x.tif", photo)
    names = [each.partition("=")[0] for each in given]
    slide = [each for each in (*SLIDE, "big_pixels=1000") if each.partition("=")[0] not in names]
    with pytest.raises(error, match=message):
        run(checkpoint, path, f"output={tmp_path}/out", "max_pixels=2000", *slide, *given)


def test_a_result_is_never_written_over_a_picture(checkpoint: Path, photo: Any, tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "x.tif", photo)
    with pytest.raises(DataError, match=r"is a picture that is read\. Choose another folder"):
        run(checkpoint, path, f"output={tmp_path}", "big_pixels=0", *SLIDE)


def test_an_overview_is_never_another_result(checkpoint: Path, photo: Any, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    path = write_tiff(tmp_path / "in" / "x.tif", photo)
    other = tmp_path / "x_overview.jpg"
    Image.fromarray(photo[:64, :96]).save(other)
    with pytest.raises(DataError, match=r"x_overview\.png would be the overview of .* of another picture"):
        run(checkpoint, path, other, f"output={tmp_path}/out", "big_pixels=10000", *SLIDE)


def test_without_rasterio_it_is_said_how_to_get_it(
    checkpoint: Path, photo: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dvsn.predict.big.has_rasterio", lambda: False)
    cv2.imwrite(str(tmp_path / "x.png"), photo[..., ::-1])
    with pytest.raises(ConfigError, match=r"too large to be read whole. .*pip install 'dvsn\[geo\]'"):
        run(checkpoint, tmp_path / "x.png", f"output={tmp_path}/o", "big_pixels=0", "max_pixels=2000", *SLIDE)
    outcome = run(checkpoint, tmp_path / "x.png", f"output={tmp_path}/o", "big_pixels=0", *SLIDE)
    assert [each.name for each in outcome.written] == ["x.png"]


def test_other_tasks_have_no_such_option(tmp_path: Path, photo: Any) -> None:
    path = tmp_path / "pose.ckpt"
    path.write_bytes(lzma.decompress((OLD / "pose.ckpt.xz").read_bytes()))
    cv2.imwrite(str(tmp_path / "x.png"), photo)
    with pytest.raises(ConfigError, match="big_pixels: the task 'pose' has no such option"):
        run(path, tmp_path / "x.png", f"output={tmp_path}/out", "big_pixels=5")


@pytest.fixture(scope="module")
def translator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pix2pix of pictures, with random weights, whose sides must divide by 16."""
    path = write_checkpoint("pix2pix", tmp_path_factory.mktemp("pix2pix"))
    content = torch.load(path, weights_only=True)
    for name, weight in content["state_dict"].items():
        if name.startswith("network.") and weight.ndim == 4:
            weight *= 8  # pictures that are no even grey
    torch.save(content, path)
    return path


def test_pix2pix_makes_big_pictures_by_windows(translator: Path, photo: Any, tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "x.tif", photo[:100, :150])
    slide = [
        "inference.mode=slide",
        "inference.window=[64,80]",
        "inference.stride=[48,64]",
        "inference.blend=ramp",
    ]
    run(translator, path, f"output={tmp_path}/memory", "size=keep", *slide)
    expected = cv2.imread(str(tmp_path / "memory" / "x.png"))[..., ::-1]
    outcome = run(translator, path, f"output={tmp_path}/out", "big_pixels=0", "size=keep", *slide)
    found = read_tiff(tmp_path / "out" / "x.tif")
    assert found.shape == (100, 150, 3) and outcome.frames == 1 and found.std() > 10
    assert np.array_equal(found, expected)


def test_other_bands_are_read_by_windows_too(photo: Any, tmp_path: Path) -> None:
    pytest.importorskip("rasterio")
    four = [
        "data.input_channels=4",
        "task.mean=[0.5,0.5,0.5,0.5]",
        "task.std=[0.25,0.25,0.25,0.25]",
        "data.bands.range=[0,4000]",
    ]
    config = composed([*TINY_SEGMENTATION, *four], tmp_path)
    task: Any = runtime.make_task(config).eval()
    state: dict[str, Any] = {"state_dict": task.state_dict()}
    task.on_save_checkpoint(state)
    AtomicCheckpointIO().save_checkpoint(state, tmp_path / "four.ckpt")
    pixels = np.dstack([photo, photo[..., :1]])[:100, :150].astype(np.uint16) * 16
    path = write_tiff(tmp_path / "x.tif", pixels, photometric="minisblack")
    np.save(tmp_path / "y.npy", pixels)
    slide = ["inference.mode=slide", "inference.window=[64,64]", "inference.blend=ramp", "size=keep"]
    run(tmp_path / "four.ckpt", path, f"output={tmp_path}/out", "write=overlay", "big_pixels=0", *slide)
    run(tmp_path / "four.ckpt", path, f"output={tmp_path}/ids", "write=ids", "big_pixels=0", *slide)
    run(tmp_path / "four.ckpt", tmp_path / "y.npy", f"output={tmp_path}/memory", "write=ids", *slide)
    expected = cv2.imread(str(tmp_path / "memory" / "y.png"), -1)
    assert np.array_equal(read_tiff(tmp_path / "ids" / "x.tif")[..., 0], expected)
    over = read_tiff(tmp_path / "out" / "x.tif").astype(int)
    palette = np.array(task.vocabulary.palette)
    shown = np.rint(pixels[..., :3] / 4000 * 255).clip(0, 255)
    assert np.abs(over - (shown + palette[expected]) / 2).max() <= 2


def test_windows_of_pix2pix_must_fit_its_network(translator: Path, photo: Any, tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "x.tif", photo[:100, :150])
    given = (f"output={tmp_path}/out", "big_pixels=0", "size=keep", "inference.mode=slide")
    with pytest.raises(
        ConfigError, match=r"inference.window: found \[50, 96\]; UNet needs sides that 16 divides"
    ):
        run(translator, path, *given, "inference.window=[50,96]")
    with pytest.raises(
        ConfigError, match=r"inference.flip: the task 'pix2pix' has no such option; it has mode"
    ):
        run(translator, path, *given, "inference.window=[64,96]", "inference.flip=true")


def test_a_picture_of_any_size_is_known_by_its_header(tmp_path: Path) -> None:
    header = b"\x00\x00\x00\rIHDR" + (100_000).to_bytes(4, "big") * 2 + b"\x08\x02\x00\x00\x00"
    path = tmp_path / "huge.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + b"\x00" * 4)
    assert headers.size_of(path) == (100_000, 100_000)
