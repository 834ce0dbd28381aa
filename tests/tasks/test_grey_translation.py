"""Image translation of one channel: trained, measured, asked, exported; published files of one channel in use."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

import dvsn
from dvsn.convert.command import convert
from dvsn.convert.options import COMMAND as CONVERT
from dvsn.data.transforms import Pair, Transform
from dvsn.engine import trainer as runtime
from dvsn.errors import DataError
from dvsn.export.__main__ import COMMAND as EXPORT
from dvsn.export.__main__ import export
from dvsn.portable.memory import brightness
from dvsn.portable.model import Model
from dvsn.predict import command as predict
from dvsn.predict.options import COMMAND as PREDICT
from tests.support.evaluating import evaluated
from tests.support.reference_translation import Published, reference_unet, weights
from tests.support.tiny import TINY, composed, write_pairs

DIRECTIONS = [(1, 1), (1, 3), (3, 1)]


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("pairs"), train=4, val=2)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, pairs: Path) -> dict[tuple[int, int], Path]:
    """A checkpoint of each direction, after two steps."""
    torch.set_num_threads(1)
    found = {}
    for channels in DIRECTIONS:
        folder = tmp_path_factory.mktemp("run")
        options = [f"data.input_channels={channels[0]}", f"data.output_channels={channels[1]}"]
        config = composed(
            [*TINY, f"data.root={pairs}", "data.batch_size=2", "trainer.max_epochs=1", *options], folder
        )
        task = runtime.make_task(config)
        runtime.build_trainer(config, task).fit(task, runtime.build_data(config))
        found[channels] = folder / "checkpoints" / "last.ckpt"
    return found


def grey(path: Path) -> np.ndarray[Any, Any]:
    """Pillow's own brightness, (H, W)."""
    return np.asarray(Image.open(path).convert("L"))


def test_brightness_is_pillows(pairs: Path) -> None:
    for path in sorted((pairs / "train" / "a").iterdir()):
        rgb = np.asarray(Image.open(path).convert("RGB"))
        assert np.abs(brightness(rgb).astype(int) - grey(path)).max() <= 1  # another rounding
    same = np.arange(256, dtype=np.uint8).reshape(16, 16)
    assert np.array_equal(brightness(np.stack([same] * 3, axis=-1)), same)


def test_photos_become_grey_before_any_step_and_labels_do_not() -> None:
    import albumentations

    random = np.random.default_rng(0)
    photo, label = random.integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    kinds = {"photo": "photo", "label": "label"}
    sample = {"photo": photo, "label": label, "index": 0, "name": "one", "kinds": kinds}
    steps = [
        albumentations.Resize(height=4, width=4, mask_interpolation=0),
        albumentations.HorizontalFlip(p=1),
    ]
    pair = Pair(source="photo", target="label")
    made = Transform(steps=steps, pair=pair, grey=["photo", "label"])(sample, 0)
    expected = cv2.resize(cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY), (4, 4))[:, ::-1]
    assert np.array_equal(made["image"].numpy()[0], expected)
    assert made["target"].shape == (3, 4, 4)


@pytest.mark.parametrize("channels", DIRECTIONS)
def test_evaluation_measures_the_grey_pictures(
    channels: tuple[int, int], runs: dict[tuple[int, int], Path], pairs: Path, tmp_path: Path
) -> None:
    found = evaluated(f"checkpoint={runs[channels]}", f"output={tmp_path}", "save_all=true")
    task: Any = dvsn.load(runs[channels])
    errors = []
    for path in sorted((pairs / "val" / "a").iterdir()):
        source = grey(path)[None] if channels[0] == 1 else np.asarray(Image.open(path)).transpose(2, 0, 1)
        real = pairs / "val" / "b" / path.name
        wanted = grey(real)[None] if channels[1] == 1 else np.asarray(Image.open(real)).transpose(2, 0, 1)
        made = task(torch.tensor(source)[None])
        assert made.shape == (1, channels[1], 16, 16)
        errors.append(float((made[0] - torch.tensor(wanted) / 255).abs().mean()))
        written = Image.open(tmp_path / "generated" / path.name)
        assert written.mode == ("L" if channels[1] == 1 else "RGB")
    assert found["l1"] == pytest.approx(np.mean(errors), abs=1 / 255)
    assert Image.open(tmp_path / "grid.png").mode == "RGB"


def test_prediction_writes_grey_pictures(
    runs: dict[tuple[int, int], Path], pairs: Path, tmp_path: Path
) -> None:
    folder, task = pairs / "val" / "a", dvsn.load(runs[1, 1])
    predict.run(PREDICT.parse([str(runs[1, 1]), str(folder), f"output={tmp_path}/made", "device=cpu"]))
    for path in sorted(folder.iterdir()):
        found = task.predict(path)
        assert found.picture is not None and found.picture.shape == (16, 16)
        written = Image.open(tmp_path / "made" / path.name)
        assert written.mode == "L" and np.array_equal(np.asarray(written), found.picture)
        assert found.plot().mode == "RGB"
        assert np.array_equal(type(found).from_json(found.to_json()).picture, found.picture)


@pytest.mark.slow
@pytest.mark.parametrize("channels", DIRECTIONS)
def test_the_exported_file_answers_as_the_checkpoint(
    channels: tuple[int, int], runs: dict[tuple[int, int], Path], pairs: Path, tmp_path: Path
) -> None:
    folder = pairs / "val" / "a"
    file = export(EXPORT.parse([str(runs[channels]), f"output={tmp_path}/made.onnx", f"pictures={folder}"]))
    model, task = Model(file, threads=1), dvsn.load(runs[channels])
    assert model.engine.manifest["input"]["colours"] == ("grey" if channels[0] == 1 else "RGB")
    for path in sorted(folder.iterdir()):
        ours, theirs = model(path), task.predict(path)
        assert ours.picture is not None and theirs.picture is not None
        assert ours.picture.shape == ((16, 16) if channels[1] == 1 else (16, 16, 3))
        assert np.abs(ours.picture.astype(int) - theirs.picture).max() <= 1


def test_a_published_generator_of_one_channel_is_used(pairs: Path, tmp_path: Path) -> None:
    state = weights(reference_unet(5, "batch", width=4, inputs=1, outputs=1))
    torch.save(state, tmp_path / "latest_net_G.pth")
    argv = [f"source={tmp_path}/latest_net_G.pth", f"output={tmp_path}/one.ckpt"]
    checkpoint = convert(CONVERT.parse(argv))
    random = np.random.default_rng(1)
    picture = random.integers(0, 256, (32, 64, 3), dtype=np.uint8)
    Image.fromarray(picture).save(tmp_path / "one.png")
    task: Any = dvsn.load(checkpoint)
    found = task.predict(tmp_path / "one.png").picture
    image = torch.tensor(np.asarray(Image.fromarray(picture).convert("L")))[None, None]
    with torch.no_grad():
        expected = Published(state, "batch").reference_unet(image / 127.5 - 1, depth=5)
    assert np.abs(found.astype(int) - ((expected[0, 0] + 1) * 127.5).numpy()).max() < 2
    options = ["data=folders", "transform=resize_256", f"data.root={pairs}", "data.workers=0"]
    scores = evaluated(f"checkpoint={checkpoint}", f"output={tmp_path}/scores", *options)
    assert 0 < scores["l1"] < 1  # the data set is read as the network wants it, without a further option


def test_colour_labels_are_not_made_grey_in_silence(pairs: Path, tmp_path: Path) -> None:
    options = ["data.dataset.a_kind=label", "data.input_channels=1"]
    config = composed([*TINY, f"data.root={pairs}", *options], tmp_path)
    with pytest.raises(DataError, match="'image' has 3 channels, expected 1"):
        runtime.build_data(config).setup("fit")
