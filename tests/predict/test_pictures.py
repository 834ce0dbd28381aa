"""A trained checkpoint in use: evaluate, predict, convert, dvsn.load, and as the start of another run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from torchmetrics.functional.image import structural_similarity_index_measure

import dvsn
from dvsn.convert.command import convert
from dvsn.convert.options import COMMAND as CONVERT
from dvsn.engine import trainer as runtime
from dvsn.engine.initial_weights import start_from
from dvsn.engine.resume import find_resume
from dvsn.errors import CheckpointError, ConfigError, DataError
from dvsn.networks.patchgan import PatchGan
from dvsn.networks.unet import UNet
from dvsn.portable.decode import Rule
from dvsn.portable.memory import id_map
from dvsn.predict import command as predict
from dvsn.predict.options import COMMAND
from dvsn.weights import read_checkpoint
from tests.support.distill_stubs import save_teacher
from tests.support.evaluating import evaluated
from tests.support.reference_translation import (
    Published,
    post_unet,
    reference_patchgan,
    reference_unet,
    weights,
)
from tests.support.tiny import TINY, composed, write_pairs

OPTIONS = [
    *TINY, "network.norm=batch", "network.depth=4", "network.dropout_steps=[1,2]", "trainer.max_epochs=1",
    "data.eval_batch_size=2",
]  # fmt: skip


def read(path: Path) -> np.ndarray[Any, Any]:
    picture = cv2.imread(str(path))
    assert picture is not None, path
    return cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("pairs"), train=4, val=3)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, pairs: Path) -> Path:
    """The folder of a tiny run."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("run")
    config = composed([*OPTIONS, f"data.root={pairs}"], folder)
    task = runtime.make_task(config)
    runtime.build_trainer(config, task).fit(task, runtime.build_data(config))
    return folder


@pytest.fixture
def checkpoint(run: Path) -> Path:
    return run / "checkpoints" / "last.ckpt"


# Evaluate --------------------------------------------------------------------------------------------


def by_hand(generated: Path, real: Path) -> dict[str, float]:
    """Means over the written pictures: rounded to 8 bits, so not exact."""
    values: dict[str, list[float]] = {"l1": [], "psnr": [], "ssim": []}
    for path in sorted(real.glob("*.png")):
        a, b = (read(folder / path.name) / 255.0 for folder in (generated, real))
        values["l1"].append(float(np.abs(a - b).mean()))
        values["psnr"].append(float(-10 * np.log10(((a - b) ** 2).mean())))
        x, y = (torch.from_numpy(image).permute(2, 0, 1)[None] for image in (a, b))
        values["ssim"].append(float(structural_similarity_index_measure(x, y, data_range=1.0)))
    return {name: float(np.mean(numbers)) for name, numbers in values.items()}


@pytest.mark.parametrize("split", ["val", "train"])
def test_evaluate_measures_what_it_writes(
    split: str, checkpoint: Path, pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = evaluated(f"checkpoint={checkpoint}", f"split={split}", f"output={tmp_path}", "save_all=true")
    expected = by_hand(tmp_path / "generated", pairs / split / "b")
    assert found["l1"] == pytest.approx(expected["l1"], abs=0.5 / 255)
    assert found["psnr"] == pytest.approx(expected["psnr"], abs=0.05)
    assert found["ssim"] == pytest.approx(expected["ssim"], abs=0.01)
    written = json.loads((tmp_path / "metrics.json").read_text())
    assert written["metrics"] == pytest.approx(found)
    count = len(list((pairs / split / "a").iterdir()))
    assert (written["samples"], written["split"], written["step"]) == (count, split, 4)
    assert written["checkpoint"] == str(checkpoint) and "torch" in written["environment"]["versions"]
    assert len(list((tmp_path / "generated").iterdir())) == count
    grid = read(tmp_path / "grid.png")
    assert grid.shape[0] > count * 16 and grid.shape[1] > 3 * 16
    table = capsys.readouterr().out
    assert "psnr" in table and "last.ckpt" in table


def test_evaluate_writes_beside_the_checkpoint_unless_told(run: Path, checkpoint: Path) -> None:
    first = evaluated(f"checkpoint={checkpoint}", "pictures=1")
    folder = run / "evaluation" / "last_val"
    assert {p.name for p in folder.iterdir()} == {"analysis.json", "metrics.json", "grid.png"}
    again = evaluated(f"checkpoint={checkpoint}", "batch_size=1")
    assert again == pytest.approx(first, rel=1e-5)  # and says the same again


def test_the_test_mode_can_be_chosen(checkpoint: Path, tmp_path: Path) -> None:
    usual = evaluated(f"checkpoint={checkpoint}", f"output={tmp_path}/a", "batch_size=1")
    batch = evaluated(f"checkpoint={checkpoint}", f"output={tmp_path}/b", "batch_size=1", "test_norm=batch")
    dropout = evaluated(
        f"checkpoint={checkpoint}", f"output={tmp_path}/c", "batch_size=1", "test_dropout=true"
    )
    assert len({usual["l1"], batch["l1"], dropout["l1"]}) == 3
    again = evaluated(f"checkpoint={checkpoint}", f"output={tmp_path}/c", "batch_size=1", "test_dropout=true")
    assert dropout == again  # dropout at test time is seeded


def test_another_data_set_can_be_given(checkpoint: Path, tmp_path: Path) -> None:
    other = write_pairs(tmp_path / "other", train=1, val=2, seed=9)
    at_root = evaluated(f"checkpoint={checkpoint}", f"root={other}", f"output={tmp_path}/a")
    options = [
        "data=folders",
        "transform=none",
        f"data.root={other}",
        "data.workers=0",
        "data.eval_batch_size=2",
    ]
    named = evaluated(f"checkpoint={checkpoint}", f"output={tmp_path}/b", *options)
    assert at_root == pytest.approx(named)
    assert json.loads((tmp_path / "a" / "metrics.json").read_text())["samples"] == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["split=validation"], "split: found 'validation', expected train, val or test"),
        (["test_norm=instance"], "test_norm"),
        (["root=nowhere"], "nowhere"),
        (["data=folders", "transform=none", "data.label_classes=5"], "data.input_channels"),
        (["metrics.inception_weights=no.pth"], "metrics.inception_weights: no file at no.pth"),
        (["checkpoint=gone.ckpt"], "gone.ckpt: no such checkpoint"),
    ],
)
def test_evaluate_refuses(options: list[str], message: str, checkpoint: Path, tmp_path: Path) -> None:
    given = [] if "checkpoint=gone.ckpt" in options else [f"checkpoint={checkpoint}"]
    with pytest.raises((ConfigError, DataError, CheckpointError), match=message):
        evaluated(*given, f"output={tmp_path}", *options)


# Predict ---------------------------------------------------------------------------------------------


def predicted(checkpoint: Path, source: Any, output: Path, **options: Any) -> list[Path]:
    argv = [f"checkpoint={checkpoint}", f"input={source}", f"output={output}", "device=cpu"]
    return predict.predict(COMMAND.parse([*argv, *(f"{key}={value}" for key, value in options.items())]))


def write_picture(path: Path, height: int = 16, width: int = 16, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    picture = cv2.resize(random.integers(0, 256, (4, 4, 3), dtype=np.uint8), (width, height))
    assert cv2.imwrite(str(path), picture)
    return path


def answer(checkpoint: Path, picture: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """What the task says to a picture whose sides suit it."""
    with torch.no_grad():
        output = dvsn.load(checkpoint)(torch.from_numpy(picture).permute(2, 0, 1)[None])
    return (output[0].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)


def test_predict_a_file_a_folder_and_a_glob(checkpoint: Path, tmp_path: Path) -> None:
    first, second = (
        write_picture(tmp_path / "in" / "x.png"),
        write_picture(tmp_path / "in" / "deep" / "y.bmp", seed=1),
    )
    write_picture(tmp_path / "in" / "deep" / "z.png", 32, 16, seed=2)
    (tmp_path / "in" / "notes.txt").write_text("no picture")
    one = predicted(checkpoint, first, tmp_path / "one")
    assert one == [tmp_path / "one" / "x.png"]
    assert np.array_equal(read(one[0]), answer(checkpoint, read(first)))
    many = predicted(checkpoint, tmp_path / "in", tmp_path / "many", batch_size=2)
    assert {p.relative_to(tmp_path / "many").as_posix() for p in many} == {
        "x.png",
        "deep/y.png",
        "deep/z.png",
    }
    assert np.array_equal(read(tmp_path / "many" / "x.png"), read(one[0]))
    assert read(tmp_path / "many" / "deep" / "z.png").shape == (32, 16, 3)
    some = predicted(checkpoint, f"{tmp_path}/in/*/*.bmp", tmp_path / "some")
    assert [p.name for p in some] == ["y.png"]
    assert np.array_equal(read(some[0]), answer(checkpoint, read(second)))


def test_a_folder_written_into_itself_is_not_read_again(checkpoint: Path, tmp_path: Path) -> None:
    write_picture(tmp_path / "x.png")
    before = (tmp_path / "x.png").read_bytes()
    for _ in range(2):
        assert len(predicted(checkpoint, tmp_path, tmp_path / "painted")) == 1
    assert (tmp_path / "x.png").read_bytes() == before


@pytest.mark.parametrize(("height", "width"), [(20, 37), (16, 32), (5, 3)])
def test_keep_pads_and_crops_back(height: int, width: int, checkpoint: Path, tmp_path: Path) -> None:
    source = write_picture(tmp_path / "x.png", height, width)
    (written,) = predicted(checkpoint, source, tmp_path / "out", size="keep")
    picture = read(source)
    assert read(written).shape == picture.shape
    below, right = -height % 16, -width % 16
    padded = np.pad(picture, ((0, below), (0, right), (0, 0)), mode="edge")
    assert np.array_equal(read(written), answer(checkpoint, padded)[:height, :width])


def test_pictures_are_looked_at_upright_and_it_is_said(
    checkpoint: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stored = np.random.default_rng(0).integers(0, 256, (16, 32, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    (tmp_path / "in").mkdir()
    Image.fromarray(stored).save(tmp_path / "in" / "x.png", exif=exif)
    Image.fromarray(stored).save(tmp_path / "in" / "y.png")
    with caplog.at_level("INFO"):
        turned, plain = predicted(checkpoint, tmp_path / "in", tmp_path / "out", size="keep")
    assert np.array_equal(read(turned), answer(checkpoint, np.rot90(stored, -1).copy()))
    assert np.array_equal(read(plain), answer(checkpoint, stored))
    (said,) = [message for message in caplog.messages if "upright" in message]
    assert said.startswith("1 of 2 pictures were turned upright") and str(tmp_path / "in" / "x.png") in said
    caplog.clear()
    (as_stored, _) = predicted(checkpoint, tmp_path / "in", tmp_path / "again", size="keep", upright="false")
    assert np.array_equal(read(as_stored), answer(checkpoint, stored))
    assert not [message for message in caplog.messages if "upright" in message]


def test_maps_of_ids_are_looked_at_upright_too(tmp_path: Path) -> None:
    """Each file by its own tag: the label map, and the instances beside it; so is a palette picture in memory."""
    options = [*TINY, "data.label_classes=3", "data.input_channels=4", "data.pair.edges=true"]
    checkpoint = save_teacher(composed(options, tmp_path), tmp_path / "x.ckpt")
    random, exif = np.random.default_rng(0), Image.Exif()
    labels = np.kron(random.integers(0, 3, (2, 4)), np.ones((8, 8))).astype(np.uint8)
    instances = np.kron(random.integers(0, 9, (2, 4)), np.ones((8, 8))).astype(np.int32) + 26000
    for name, turn in (("turned", 6), ("plain", 1), ("mixed", 6)):
        exif[0x0112] = turn
        upright = (lambda x: np.rot90(x, -1)) if name == "plain" else (lambda x: x)
        Image.fromarray(upright(labels).copy()).save(tmp_path / f"{name}_labelIds.png", exif=exif)
        if name == "mixed":  # the instances are upright in their file, and have no tag
            exif[0x0112], upright = 1, lambda x: np.rot90(x, -1)
        Image.fromarray(upright(instances).astype(np.uint16)).save(
            tmp_path / f"{name}_instanceIds.png", exif=exif
        )
    written = {
        name: read(predicted(checkpoint, tmp_path / f"{name}_labelIds.png", tmp_path / name, size="keep")[0])
        for name in ("turned", "plain", "mixed")
    }
    assert written["plain"].shape == (32, 16, 3)
    assert np.array_equal(written["turned"], written["plain"])
    assert np.array_equal(written["mixed"], written["plain"])
    loaded = dvsn.load(checkpoint)
    for each in (tmp_path / "turned_labelIds.png", [tmp_path / "turned_labelIds.png"]):
        (found,) = (
            loaded.predict(each, size="keep")
            if isinstance(each, list)
            else [loaded.predict(each, size="keep")]
        )
        assert np.array_equal(np.asarray(found.picture), written["plain"])


def test_ids_in_memory_are_turned_by_their_tag(tmp_path: Path) -> None:
    ids, exif = np.arange(12, dtype=np.uint8).reshape(3, 4), Image.Exif()
    exif[0x0112] = 8
    Image.fromarray(ids).save(tmp_path / "x.png", exif=exif)
    with Image.open(tmp_path / "x.png") as picture:
        assert np.array_equal(id_map(picture, Rule(upright=True)), np.rot90(ids, 1))
        assert np.array_equal(id_map(picture, Rule()), ids)


def test_a_picture_bomb_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    source = write_picture(tmp_path / "x.png", 40, 30)
    with pytest.raises(DataError, match=r"x.png: a picture of 40x30 .* 1,200 pixels; expected 1,199 at most"):
        predicted(checkpoint, source, tmp_path / "out", max_pixels="1199")


def test_sizes(checkpoint: Path, tmp_path: Path) -> None:
    source = write_picture(tmp_path / "x.png", 40, 30)
    (fixed,) = predicted(checkpoint, source, tmp_path / "fixed", size="32x48")
    assert read(fixed).shape == (32, 48, 3)
    (back,) = predicted(checkpoint, source, tmp_path / "back", size="32x48", original_size="true")
    assert read(back).shape == (40, 30, 3)
    (both,) = predicted(checkpoint, source, tmp_path / "both", size="32x48", side_by_side="true")
    assert read(both).shape[0] > 32 and read(both).shape[1] > 2 * 48
    (all_three,) = predicted(
        checkpoint, source, tmp_path / "all", size="32x48", original_size="true", side_by_side="true"
    )
    assert read(all_three).shape[0] > 40 and read(all_three).shape[1] > 30 + 30


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": "32"}, "size: found '32', expected recipe, keep or HEIGHTxWIDTH"),
        ({"size": "0x16"}, "size: found '0x16'"),
        ({"size": "20x16"}, "x.png: .*20 x 16.*divisible by 16"),
        ({"batch_size": "0"}, "batch_size: found 0"),
        ({"device": "cuda:7"}, "device: .*cuda:7"),
        ({"device": "toaster"}, "device: .*toaster"),
        ({"checkpoint": "gone.ckpt"}, "gone.ckpt: no such checkpoint"),
        ({"sizes": "keep"}, "sizes: unknown option of dvsn predict. Did you mean 'size'"),
    ],
    ids=str,
)
def test_predict_refuses_options(
    options: dict[str, str], message: str, checkpoint: Path, tmp_path: Path
) -> None:
    source = write_picture(tmp_path / "x.png")
    given = {
        "checkpoint": str(checkpoint),
        "input": str(source),
        "output": f"{tmp_path}/out",
        "device": "cpu",
    } | options
    with pytest.raises((ConfigError, DataError, CheckpointError), match=message):
        predict.predict(COMMAND.parse([f"{key}={value}" for key, value in given.items()]))


def test_predict_refuses_pictures(checkpoint: Path, tmp_path: Path) -> None:
    source = write_picture(tmp_path / "a" / "x.png")
    with pytest.raises(DataError, match="nothing found at"):
        predicted(checkpoint, tmp_path / "none", tmp_path / "out")
    with pytest.raises(DataError, match="is the picture itself"):
        predicted(checkpoint, source, tmp_path / "a")
    write_picture(tmp_path / "b" / "x.png")
    with pytest.raises(DataError, match=r"a/x.png and .*b/x.png would both be written"):
        predicted(checkpoint, f"{tmp_path}/?/x.png", tmp_path / "out")
    write_picture(tmp_path / "c" / "x.png")
    write_picture(tmp_path / "c" / "x.jpg")
    with pytest.raises(DataError, match="would both be written"):
        predicted(checkpoint, tmp_path / "c", tmp_path / "out")
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "half.png").write_bytes(source.read_bytes()[:60])
    with pytest.raises(DataError, match=r"half.png"):
        predicted(checkpoint, tmp_path / "d", tmp_path / "out")


# Convert ---------------------------------------------------------------------------------------------


def converted(state: dict[str, torch.Tensor], folder: Path, *options: str) -> Path:
    """The dvsn checkpoint of a published state dict, by way of two files."""
    torch.save(state, folder / "latest_net_G.pth")
    argv = [f"source={folder}/latest_net_G.pth", f"output={folder}/converted.ckpt", *options]
    return convert(CONVERT.parse(argv))


def test_a_converted_generator_gives_the_same_pictures(tmp_path: Path) -> None:
    state = weights(reference_unet(5, "batch", width=4))
    task: Any = dvsn.load(converted(state, tmp_path))
    image = torch.randint(0, 256, (2, 3, 32, 64), dtype=torch.uint8)
    with torch.no_grad():
        expected = Published(state, "batch").reference_unet(image / 127.5 - 1, depth=5)
    assert float(expected.std()) > 0.005
    torch.testing.assert_close(task(image), (expected + 1) / 2, rtol=0, atol=1e-5)
    assert isinstance(task.network, UNet) and task.discriminator is None
    batch = dvsn.load(converted(state, tmp_path, "test_norm=batch"))
    with torch.no_grad():
        expected = Published(state, "batch", train=True).reference_unet(image / 127.5 - 1, depth=5)
    torch.testing.assert_close(batch(image), (expected + 1) / 2, rtol=0, atol=1e-4)


def test_a_converted_post_generator_works_in_the_unit_range(tmp_path: Path) -> None:
    state = weights(post_unet(width=2))
    task = dvsn.load(converted(state, tmp_path))
    image = torch.randint(0, 256, (1, 3, 256, 256), dtype=torch.uint8)
    with torch.no_grad():
        expected = Published(state, "batch").post_unet(image / 255).clamp(0, 1)
    assert float(expected.std()) > 0.005
    torch.testing.assert_close(task(image), expected, rtol=0, atol=1e-5)


def test_a_discriminator_is_converted_beside_its_generator(tmp_path: Path) -> None:
    judge = weights(reference_patchgan(3, "batch", 6, width=4))
    torch.save(judge, tmp_path / "latest_net_D.pth")
    generator = weights(reference_unet(5, "batch", width=4))
    task: Any = dvsn.load(converted(generator, tmp_path, f"discriminator={tmp_path}/latest_net_D.pth"))
    assert isinstance(task.discriminator, PatchGan)
    pair = torch.rand(1, 6, 64, 64) * 2 - 1
    with torch.no_grad():
        expected = Published(judge, "batch").reference_patchgan(pair, layers=3)
        found = task.discriminator(task.discriminator.join(pair[:, :3], pair[:, 3:]))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_what_cannot_be_converted_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    def refused(message: str, source: Any, *options: str) -> None:
        argv = [f"source={source}", f"output={tmp_path}/out.ckpt", *options]
        with pytest.raises((CheckpointError, ConfigError), match=message):
            convert(CONVERT.parse(argv))
        assert not (tmp_path / "out.ckpt").exists()

    refused("is a dvsn checkpoint already", checkpoint)
    refused("gone.pth: no such checkpoint", tmp_path / "gone.pth")
    judge = tmp_path / "latest_net_D.pth"
    torch.save(weights(reference_patchgan(3, "batch", 6, width=4)), judge)
    refused("latest_net_D.pth: is a discriminator", judge)
    state = weights(reference_unet(5, "batch", width=4))
    good = tmp_path / "latest_net_G.pth"
    torch.save(state, good)
    refused("latest_net_G.pth: is a generator, expected a discriminator", good, f"discriminator={good}")
    refused("value_range: ", good, "value_range=sined")
    refused("test_norm: ", good, "test_norm=instance")
    state["model.model.0.weight"] = state["model.model.0.weight"][:, :, :3]
    torch.save(state, good)
    refused("latest_net_G.pth: ", good)
    torch.save({"layer1.weight": torch.zeros(3)}, good)
    refused("latest_net_G.pth: No known release", good)


def test_a_converted_generator_predicts_and_is_evaluated(pairs: Path, tmp_path: Path) -> None:
    path = converted(weights(reference_unet(5, "batch", width=4)), tmp_path)
    source = write_picture(tmp_path / "x.png", 32, 32)
    (written,) = predicted(path, source, tmp_path / "out")
    assert np.array_equal(read(written), answer(path, read(source)))
    with pytest.raises(ConfigError, match=r"converted.ckpt: .*knows no data set\. Add data="):
        evaluated(f"checkpoint={path}", f"output={tmp_path}/e")
    large = write_pairs(tmp_path / "large", train=1, val=1, size=32)
    options = ["data=folders", "transform=none", f"data.root={large}", "data.workers=0"]
    assert set(evaluated(f"checkpoint={path}", f"output={tmp_path}/e", *options)) == {"l1", "psnr", "ssim"}


# Loading and going on --------------------------------------------------------------------------------


def test_load_answers_as_the_run_did(checkpoint: Path, pairs: Path) -> None:
    task = dvsn.load(checkpoint)
    image = torch.from_numpy(read(pairs / "val" / "a" / "000.png")).permute(2, 0, 1)[None]
    first, second = task(image), task(image)
    assert torch.equal(first, second) and first.dtype == torch.float32
    assert float(first.min()) >= 0 and float(first.max()) <= 1
    torch.testing.assert_close(task.deployable()(image), first)


def test_weights_start_a_new_run(run: Path, checkpoint: Path, pairs: Path, tmp_path: Path) -> None:
    config = composed([*OPTIONS, f"data.root={pairs}", f"weights={checkpoint}", "seed=5"], tmp_path)
    task = runtime.make_task(config)
    fresh = {key: value.clone() for key, value in task.state_dict().items()}
    start_from(task, checkpoint)
    expected = read_checkpoint(checkpoint)["state_dict"]
    assert all(torch.equal(value, expected[key]) for key, value in task.state_dict().items())
    assert not all(torch.equal(value, fresh[key]) for key, value in task.state_dict().items())


def test_weights_of_another_network_are_refused(checkpoint: Path, pairs: Path, tmp_path: Path) -> None:
    config = composed([*OPTIONS, f"data.root={pairs}", "network.width=8"], tmp_path)
    with pytest.raises(CheckpointError, match=r"(?s)last.ckpt, network: .* differences:\n  shape: "):
        start_from(runtime.make_task(config), checkpoint)


def test_a_missing_network_starts_anew(checkpoint: Path, pairs: Path, tmp_path: Path) -> None:
    content = read_checkpoint(checkpoint)
    content["state_dict"] = {k: v for k, v in content["state_dict"].items() if k.startswith("network.")}
    torch.save(content, tmp_path / "generator.ckpt")
    task = runtime.make_task(composed([*OPTIONS, f"data.root={pairs}"], tmp_path))
    before = [p.clone() for p in task.networks["discriminator"].parameters()]
    start_from(task, tmp_path / "generator.ckpt")
    assert all(map(torch.equal, before, task.networks["discriminator"].parameters()))
    state = task.networks["network"].state_dict()
    assert all(torch.equal(value, content["state_dict"][f"network.{key}"]) for key, value in state.items())


def test_resume_paths(run: Path, checkpoint: Path, tmp_path: Path) -> None:
    assert find_resume(None, run) is None
    assert find_resume(str(checkpoint), run) == checkpoint
    assert find_resume("auto", run) == checkpoint
    assert find_resume("auto", tmp_path / "new") is None
    with pytest.raises(CheckpointError, match=r"lst.ckpt: no such checkpoint. Did you mean 'last.ckpt'"):
        find_resume(str(checkpoint.with_name("lst.ckpt")), run)
