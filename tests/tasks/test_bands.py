"""Pictures of one, four and more bands through checks, statistics, training, evaluation, prediction and export."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hydra import compose
from omegaconf import OmegaConf
from PIL import Image

import dvsn
from dvsn.config.compose import initialized
from dvsn.config.menu import conf_dir
from dvsn.data.transforms import refuse_colour_steps
from dvsn.data_tools import show, stats
from dvsn.data_tools.check import check
from dvsn.engine import trainer as runtime
from dvsn.engine.initial_weights import compare_normalisation, start_from
from dvsn.errors import ConfigError, DataError
from dvsn.export.__main__ import COMMAND as EXPORT
from dvsn.export.__main__ import export
from dvsn.portable.model import Model
from dvsn.predict import command as predict
from dvsn.predict.options import COMMAND as PREDICT
from dvsn.weights import read_checkpoint
from tests.support.evaluating import evaluated
from tests.support.tiny import TINY, TINY_CLASSIFICATION, TINY_SEGMENTATION, composed, write_scenes

Array = np.ndarray[Any, Any]
FOUR = ["data.input_channels=4", "task.mean=[0.5,0.5,0.5,0.5]", "task.std=[0.25,0.25,0.25,0.25]"]


def write_four(root: Path) -> Path:
    """Scenes whose pictures are arrays of four bands of 16 bits, up to 4000; the fourth tells the classes."""
    write_scenes(root, train=4, val=2)
    for path in sorted(root.glob("*/images/*.png")):
        ids = np.array(Image.open(path.parent.parent / "labels" / path.name))
        rgb = np.array(Image.open(path)).astype(np.uint16) * 12
        np.save(path.with_suffix(".npy"), np.dstack([rgb, 1000 + 1000 * ids.astype(np.uint16)]))
        path.unlink()
    return root


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_four(tmp_path_factory.mktemp("four"))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, scenes: Path) -> Path:
    """The checkpoint of a tiny segmenter, whose ranges were measured."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("run")
    options = [
        *TINY_SEGMENTATION,
        f"data.root={scenes}",
        *FOUR,
        "data.bands.shown=[4,2,1]",
        "trainer.max_epochs=1",
    ]
    config = composed(options, folder)
    task = runtime.make_task(config)
    runtime.build_trainer(config, task).fit(task, runtime.build_data(config))
    return folder / "checkpoints" / "last.ckpt"


def first_kernels(task: Any) -> torch.Tensor:
    """Of the one convolution that reads the picture."""
    (path,) = task.network.image_layers
    found: torch.Tensor = task.network.get_submodule(path).weight
    return found


def tool(name: str, root: Path, *options: str) -> dict[str, Any]:
    own = ["task=segmentation", "data=segmentation", "data.dataset.names=[left,right,rest]", "data.classes=3"]
    with initialized(conf_dir()):
        overrides = [*own, f"data.root={root}", "data.input_channels=4", "name=test", "run_dir=.", *options]
        if name != "data_show":
            overrides.append("workers=0")
        config: Any = OmegaConf.to_container(compose(name, overrides=overrides), resolve=True)
    return config


# Before training -----------------------------------------------------------------------------------------


def test_statistics_by_hand(scenes: Path) -> None:
    found = stats.count(tool("data_stats", scenes, "data.bands.range=[0,4080]"))
    arrays = np.stack([np.load(path) for path in sorted((scenes / "train" / "images").iterdir())])
    bytes_ = np.rint(arrays / 16).clip(0, 255).reshape(-1, 4) / 255
    assert found["mean"] == pytest.approx(bytes_.mean(axis=0), abs=1e-3)  # a half is rounded in float32
    assert found["std"] == pytest.approx(bytes_.std(axis=0), abs=1e-3)
    assert (found["channels"], found["pictures"], found["range"]) == (4, 4, None)
    measured = stats.count(tool("data_stats", scenes, "data.bands.percentiles=[0,100]"))
    assert measured["range"][3] == [1000, 3000]
    lines = stats.options(measured)
    assert lines[0] == "data.input_channels=4" and lines[3].startswith("data.bands.range=[[")


def test_statistics_of_rgb(tmp_path: Path) -> None:
    write_scenes(tmp_path, train=2, val=1)
    found = stats.count(tool("data_stats", tmp_path, "data.input_channels=3"))
    whole = np.stack([np.array(Image.open(path)) for path in (tmp_path / "train" / "images").iterdir()]) / 255
    assert found["mean"] == pytest.approx(whole.mean(axis=(0, 1, 2)), abs=1e-6)
    assert found["std"] == pytest.approx(whole.std(axis=(0, 1, 2)), abs=1e-6)
    one = stats.count(tool("data_stats", tmp_path, "data.input_channels=1"))
    assert one["mean"] == pytest.approx([(whole @ [0.299, 0.587, 0.114]).mean()], abs=2e-3)


def test_a_check_names_every_file_of_other_bands_and_with_nan(tmp_path: Path) -> None:
    write_four(tmp_path)
    assert not check(tool("data_check", tmp_path)).faults
    folder = tmp_path / "train" / "images"
    np.save(folder / "train1.npy", np.load(folder / "train1.npy")[..., :3])
    holed = np.load(folder / "train2.npy").astype(np.float32)
    holed[0, 0, 0] = np.nan
    np.save(folder / "train2.npy", holed)
    np.save(folder / "train3.npy", np.load(folder / "train3.npy").astype(np.int64))
    faults = check(tool("data_check", tmp_path)).faults
    said = {Path(each.files[0].split(" + ")[0]).name: each.message for each in faults}
    assert "found 3 bands, expected 4" in said["train1.npy"]
    assert "1 of 16,384 values are not finite" in said["train2.npy"]
    assert "numbers of int64" in said["train3.npy"]
    assert len(faults) == 3
    config = composed([*TINY_SEGMENTATION, f"data.root={tmp_path}", *FOUR], tmp_path / "run")
    with pytest.raises(DataError, match=r"train1\.npy: found 3 bands"):
        runtime.build_data(config).setup("fit")  # before a step


def test_samples_are_drawn_by_the_bands_that_are_shown(scenes: Path, tmp_path: Path) -> None:
    options = ["count=1", f"output={tmp_path}", "augment=false", "split=val", "data.bands.shown=[4]"]
    drawn = np.array(Image.open(show.draw(tool("data_show", scenes, *options))))
    assert drawn.ndim == 3
    box = drawn[40:90, 10:60]
    assert (box.max(axis=2) == box.min(axis=2)).all()  # grey


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["data.input_channels=4"], "task.mean: has 3 numbers, and pictures have 4 channels"),
        ([*FOUR, "data.bands.take=[1,2]"], "data.bands.take: names 2 bands"),
        ([*FOUR, "transform=segmentation_colour"], "ColorJitter cannot treat pictures of 4 channels"),
    ],
)
def test_options_that_do_not_fit_are_refused_before_training(
    options: list[str], message: str, scenes: Path, tmp_path: Path
) -> None:
    config = composed([*TINY_SEGMENTATION, f"data.root={scenes}", *options], tmp_path)
    with pytest.raises(ConfigError, match=message):
        runtime.make_task(config)
        runtime.build_data(config).setup("fit")


def test_tasks_and_sets_of_rgb_refuse_bands(tmp_path: Path) -> None:
    pose = composed(["task=pose", "data=street", "data.input_channels=4"], tmp_path)
    with pytest.raises(ConfigError, match="a task that reads keypoints reads RGB alone"):
        runtime.build_data(pose).use("people")
    cifar = composed(["task=classification", "data=cifar10", "data.input_channels=4"], tmp_path)
    with pytest.raises(ConfigError, match="reads RGB alone"):
        runtime.build_data(cifar).read("train")


def test_each_colour_step_is_tried() -> None:
    import albumentations

    kept = [albumentations.RandomBrightnessContrast(p=0.1), albumentations.HorizontalFlip(p=0.5)]
    refuse_colour_steps(kept, 6)
    refuse_colour_steps([*kept, albumentations.ColorJitter(p=0.5)], 1)
    inside = albumentations.OneOf(
        [albumentations.GaussianBlur(p=1), albumentations.HueSaturationValue(p=1)], p=0.3
    )
    with pytest.raises(ConfigError, match="HueSaturationValue cannot treat pictures of 6 channels"):
        refuse_colour_steps([*kept, inside], 6)


# The whole way -------------------------------------------------------------------------------------------


def test_ranges_are_measured_and_kept(run: Path, scenes: Path) -> None:
    header = read_checkpoint(run)["dvsn"]
    arrays = np.stack([np.load(path) for path in sorted((scenes / "train" / "images").iterdir())]).reshape(
        -1, 4
    )
    expected = np.percentile(arrays, [1, 99], axis=0).T
    assert np.allclose(header["data"]["bands"]["range"], expected)
    task: Any = dvsn.load(run)
    assert task.input_channels == 4 and first_kernels(task).shape[1] == 4


@pytest.mark.slow
def test_evaluation_reads_as_training_did(run: Path, scenes: Path, tmp_path: Path) -> None:
    known = evaluated(f"checkpoint={run}", f"output={tmp_path}/a", "save_all=true")
    named = [
        "data=segmentation",
        f"data.root={scenes}",
        "data.dataset.names=[left,right,rest]",
        "data.classes=3",
    ]
    again = evaluated(
        f"checkpoint={run}", f"output={tmp_path}/b", *named, "data.input_channels=4", "data.workers=0"
    )
    assert known == pytest.approx(again)
    assert Image.open(tmp_path / "a" / "color" / "val0.png").mode == "RGB"


def test_prediction_by_path_and_by_array(run: Path, scenes: Path, tmp_path: Path) -> None:
    folder = scenes / "val" / "images"
    predict.run(PREDICT.parse([str(run), str(folder), f"output={tmp_path}/made", "device=cpu", "write=ids"]))
    task = dvsn.load(run)
    low, high = np.array(read_checkpoint(run)["dvsn"]["data"]["bands"]["range"]).T
    for path in sorted(folder.iterdir()):
        found, array = task.predict(path), np.load(path)
        assert np.array_equal(np.array(Image.open(tmp_path / "made" / f"{path.stem}.png")), found.ids)
        assert np.array_equal(task.predict(array).ids, found.ids)
        planes = torch.tensor(array.transpose(2, 0, 1).astype(np.float32))
        assert np.array_equal(task.predict(planes).ids, found.ids)
        expected = np.rint(((array - low) * (255 / (high - low))).clip(0, 255))
        assert np.abs(found.frame.picture - expected).max() <= 1
        drawn = np.asarray(found.plot(legend=False, tint=0.0, outlines=False))
        assert np.array_equal(drawn, found.frame.picture[..., [3, 1, 0]])
    with pytest.raises(DataError, match=r"expected \(H, W, 4\)"):
        task.predict(np.zeros((64, 64, 3), np.uint8))


@pytest.mark.slow
def test_the_exported_file_answers_as_the_checkpoint(run: Path, scenes: Path, tmp_path: Path) -> None:
    folder = scenes / "val" / "images"
    file = export(EXPORT.parse([str(run), f"output={tmp_path}/four.onnx", f"pictures={folder}"]))
    model, task = Model(file, threads=1), dvsn.load(run)
    about = model.engine.manifest
    assert about["input"]["colours"] == "bands" and about["input"]["shape"][1] == 4
    for path in sorted(folder.iterdir()):
        ours, theirs = model(path), task.predict(path)
        assert ours.ids is not None and (ours.ids == theirs.ids).mean() > 0.99
        assert np.array_equal(model(np.load(path)).ids, ours.ids)
        assert np.array_equal(ours.frame.picture, theirs.frame.picture)
        drawn = np.asarray(ours.plot(legend=False, tint=0.0, outlines=False))
        assert np.array_equal(drawn, ours.frame.picture[..., [3, 1, 0]])


def test_weights_of_rgb_start_four_bands(run: Path, scenes: Path, tmp_path: Path, caplog: Any) -> None:
    options = [*TINY_SEGMENTATION, f"data.root={scenes}"]
    rgb = runtime.make_task(composed(options, tmp_path))
    torch.save(saved(rgb), tmp_path / "rgb.ckpt")
    four: Any = runtime.make_task(composed([*options, *FOUR, "seed=5"], tmp_path))
    with caplog.at_level(logging.INFO):
        start_from(four, tmp_path / "rgb.ckpt")
    kernels = dict(rgb.named_parameters())[f"network.{four.network.image_layers[0]}.weight"]
    expected = kernels.mean(dim=1, keepdim=True).repeat(1, 4, 1, 1) * 0.75
    torch.testing.assert_close(first_kernels(four), expected)
    others = {
        key: value for key, value in four.state_dict().items() if value.shape == rgb.state_dict()[key].shape
    }
    assert len(others) == len(four.state_dict()) - 1
    assert all(torch.equal(value, rgb.state_dict()[key]) for key, value in others.items())


@pytest.mark.parametrize("channels", [3, 4])
def test_published_weights_advise_their_mean_to_rgb_alone(
    channels: int, caplog: pytest.LogCaptureFixture
) -> None:
    expects = SimpleNamespace(mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.2))
    normalise = SimpleNamespace(mean=torch.full((channels,), 0.5), std=torch.full((channels,), 0.25))
    task: Any = SimpleNamespace(normalise=normalise)
    network: Any = SimpleNamespace(expects=expects)
    compare_normalisation(task, network, "a.pth")
    assert ("task.mean=[0.5,0.4,0.3]" in caplog.text) == (channels == 3)


ONE = [
    "data.input_channels=1", "data.bands.take=[1]", "data.dataset.photos=depth", "task.mean=[0.5]", "task.std=[0.3]",
]  # fmt: skip
BESIDE = [*FOUR, "data.bands.photos=images", "data.bands.beside=depth"]


@pytest.mark.parametrize(
    "options", [BESIDE, pytest.param(ONE, marks=pytest.mark.slow)], ids=["beside", "alone"]
)
def test_depth_of_floats_alone_and_beside_colours(options: list[str], tmp_path: Path) -> None:
    write_scenes(tmp_path, train=4, val=2)
    for path in sorted(tmp_path.glob("*/images/*.png")):
        ids = np.array(Image.open(path.parent.parent / "labels" / path.name))
        (path.parent.parent / "depth").mkdir(exist_ok=True)
        Image.fromarray((1.5 + ids).astype(np.float32)).save(
            path.parent.parent / "depth" / f"{path.stem}.tif"
        )
    given = [*TINY_SEGMENTATION, f"data.root={tmp_path}", "trainer.max_epochs=1", *options]
    config = composed(given, tmp_path / "run")
    task: Any = runtime.make_task(config)
    data = runtime.build_data(config)
    runtime.build_trainer(config, task).fit(task, data)
    ranges = task.data_recipe["bands"]["range"]
    assert ranges[-1] == [1.5, 3.5] and ranges[:-1] == [[0, 255]] * (len(ranges) - 1)
    sample = data.datasets["val"][0]
    assert sample["image"].shape == (len(ranges), 64, 64)
    ids = sample["target"][0].numpy()
    assert np.array_equal(sample["image"][-1].numpy(), np.array([0, 128, 255], np.uint8)[ids])
    if options is ONE:
        checkpoint = tmp_path / "run" / "checkpoints" / "last.ckpt"
        assert 0 <= evaluated(f"checkpoint={checkpoint}", f"output={tmp_path}/scores")["miou"] <= 1


@pytest.mark.slow
def test_classes_of_pictures_of_five_bands(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for split, count in (("train", 3), ("val", 1)):
        for number, name in enumerate(("one", "two", "three")):
            folder = tmp_path / "set" / split / name
            folder.mkdir(parents=True)
            for index in range(count):
                picture = random.integers(0, 50, (16, 16, 5), dtype=np.uint8)
                picture[..., 4] += np.uint8(60 * number)
                np.save(folder / f"{index}.npy", picture)
    options = [*TINY_CLASSIFICATION, "data=imagefolder", f"data.root={tmp_path / 'set'}", "data.input_channels=5",
               "task.mean=[0.1,0.1,0.1,0.1,0.3]", "task.std=[0.1,0.1,0.1,0.1,0.3]", "trainer.max_epochs=2"]  # fmt: skip
    config = composed(options, tmp_path)
    task: Any = runtime.make_task(config)
    runtime.build_trainer(config, task).fit(task, runtime.build_data(config))
    checkpoint = tmp_path / "checkpoints" / "last.ckpt"
    assert 0 <= evaluated(f"checkpoint={checkpoint}", f"output={tmp_path}/scores")["top1"] <= 1
    picture = tmp_path / "set" / "val" / "two" / "0.npy"
    theirs = dvsn.load(checkpoint).predict(picture)
    model = Model(export(EXPORT.parse([str(checkpoint), f"output={tmp_path}/five.onnx"])), threads=1)
    ours = model(picture)
    assert [each.name for each in ours.classes] == [each.name for each in theirs.classes]
    assert [each.score for each in ours.classes] == pytest.approx(
        [each.score for each in theirs.classes], abs=1e-4
    )
    assert theirs.plot().mode == "RGB"


def test_a_source_of_four_bands_is_painted_grey(scenes: Path, tmp_path: Path) -> None:
    for split in ("train", "val"):
        (tmp_path / split / "b").mkdir(parents=True)
        (tmp_path / split / "a").symlink_to(scenes / split / "images")
        for path in (scenes / split / "labels").iterdir():
            Image.fromarray(np.array(Image.open(path)) * np.uint8(100)).save(
                tmp_path / split / "b" / path.name
            )
    options = [
        *TINY,
        f"data.root={tmp_path}",
        "data.input_channels=4",
        "data.output_channels=1",
        "trainer.max_steps=1",
    ]
    config = composed(options, tmp_path / "run")
    task: Any = runtime.make_task(config)
    data = runtime.build_data(config)
    runtime.build_trainer(config, task).fit(task, data)
    sample = data.datasets["val"][0]
    assert sample["image"].shape == (4, 64, 64) and sample["target"].shape == (1, 64, 64)
    assert sample["target"].unique().tolist() == [0, 100, 200]
    source = sorted((scenes / "val" / "images").iterdir())[0]
    assert dvsn.load(tmp_path / "run" / "checkpoints" / "last.ckpt").predict(source).picture.shape == (64, 64)


def test_classes_by_the_brightness_of_colours(nine_blobs: Path, tmp_path: Path) -> None:
    options = [*TINY_CLASSIFICATION, "data=imagefolder", f"data.root={nine_blobs}", "data.input_channels=1",
               "task.mean=[0.4]", "task.std=[0.2]", "trainer.max_steps=1"]  # fmt: skip
    task: Any = runtime.make_task(composed(options, tmp_path)).eval()
    data = runtime.build_data(composed(options, tmp_path))
    sample = data.open("val")[0]
    path = data.open("val").photos(0)[0]
    grey = np.asarray(Image.open(path).convert("L")).astype(int)
    assert sample["image"].shape == (1, *grey.shape) and np.abs(sample["image"][0].numpy() - grey).max() <= 1
    with torch.no_grad():
        expected = task(sample["image"][None]).softmax(dim=1)[0].sort(descending=True).values.tolist()
    torch.save(saved(task), tmp_path / "grey.ckpt")
    found = dvsn.load(tmp_path / "grey.ckpt").predict(path)
    assert [each.score for each in found.classes] == pytest.approx(expected, abs=1e-5)


def saved(task: Any) -> dict[str, Any]:
    """What a checkpoint holds."""
    content: dict[str, Any] = {"state_dict": task.state_dict()}
    task.on_save_checkpoint(content)
    return content
