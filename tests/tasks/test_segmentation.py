"""The segmentation task from files to scores: samples, a step, starting weights, resume, evaluate, predict."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import albumentations
import cv2
import numpy as np
import pytest
import torch
from hydra import compose
from omegaconf import OmegaConf
from torch import nn

import dvsn
from dvsn.config.compose import initialized
from dvsn.config.menu import conf_dir
from dvsn.data.augment import MirrorWithSwaps, RandomScale, mirrored
from dvsn.data.boundary import boundary_map
from dvsn.data.transforms import Pair, Transform
from dvsn.engine import trainer as runtime
from dvsn.engine.checkpoint import AtomicCheckpointIO
from dvsn.engine.initial_weights import start_from
from dvsn.errors import CheckpointError, ConfigError
from dvsn.evaluate import evaluate
from dvsn.portable.overlay import borders
from dvsn.predict import command as predict
from dvsn.predict.options import COMMAND
from dvsn.tasks.painted_score import PaintedScore, ids_of_colors
from dvsn.tasks.parameters import parameter_groups
from dvsn.tasks.segmentation import Segmentation, Segmenter
from dvsn.weights import read_checkpoint
from tests.support.resuming import equal
from tests.support.resuming import run as train_until
from tests.support.tiny import TINY, TINY_SEGMENTATION, composed, write_scenes


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scenes(tmp_path_factory.mktemp("scenes"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, scenes: Path) -> Path:
    """The checkpoint of a tiny run of two epochs."""
    folder = tmp_path_factory.mktemp("run")
    options = [*TINY_SEGMENTATION, f"data.root={scenes}", "trainer.max_epochs=2"]
    assert train_until(composed(options, folder)) is not None
    return folder / "checkpoints" / "last.ckpt"


def sample(ids: np.ndarray[Any, Any]) -> dict[str, Any]:
    photo = np.repeat(ids[..., None], 3, axis=2)
    kinds = {"photo": "photo", "label": "label"}
    return {"photo": photo, "label": ids, "index": 0, "name": "x", "kinds": kinds, "palettes": {}}


# Samples ---------------------------------------------------------------------------------------------


def test_scales_are_the_published_ones_and_the_longer_side_follows_the_base() -> None:
    step = RandomScale(base=200, low=0.5, high=2.1, step=0.1)
    step.set_random_seed(0)
    widths = set()
    for _ in range(400):
        size = step.get_params_dependent_on_data({"shape": (50, 100, 3)}, {})["size"]
        assert size[1] == 2 * size[0]
        widths.add(size[1])
    assert widths == {100 + 20 * k for k in range(17)}  # 17 values, as randint(0, 16) gives


def test_photo_and_label_shrink_alike() -> None:
    ids = np.zeros((40, 60), np.uint8)
    ids[:, 30:] = 200
    steps = [RandomScale(low=0.5, high=0.5)]
    result = Transform(steps=steps, pair=Pair(source="photo", target="label"))(sample(ids), 1)
    assert result["image"].shape == (3, 20, 30) and result["target"].shape == (1, 20, 30)
    assert set(result["target"].unique().tolist()) == {0, 200}  # nearest: no mixture
    assert torch.equal(result["image"][0], result["target"][0])  # this edge lies between two blocks


@pytest.mark.parametrize(
    "options", [{"low": 0.0}, {"low": 2.0, "high": 1.0}, {"aspect": 1.0}, {"step": -1.0}]
)
def test_meaningless_scales_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="RandomScale"):
        RandomScale(**options)  # type: ignore[arg-type]


def test_outlines_move_with_the_label_and_padding_has_none() -> None:
    ids = np.zeros((24, 24), np.uint8)
    ids[8:16, 6:12] = 3
    steps = [
        albumentations.HorizontalFlip(p=1.0),
        albumentations.PadIfNeeded(32, 32, position="top_left", fill=0, fill_mask=255),
    ]
    options = {"kernel": 3, "frame": 0}
    transform = Transform(steps=steps, pair=Pair(source="photo", target="label"), outlines=options)
    result = transform(sample(ids), 5)
    expected = np.zeros((32, 32), np.uint8)
    expected[:24, :24] = boundary_map(ids, **options)[:, ::-1]
    assert result["boundary"].dtype == torch.uint8 and expected.any()
    np.testing.assert_array_equal(result["boundary"][0].numpy(), expected)
    assert bool((result["target"][0, 24:] == 255).all()) and bool((result["image"][:, 24:] == 0).all())


def test_a_mirror_exchanges_left_and_right() -> None:
    ids = np.array([[14, 14, 3], [15, 0, 255]], np.uint8)
    steps = [albumentations.HorizontalFlip(p=1.0)]
    pair = Pair(source="photo", target="label")
    result = Transform(steps=steps, pair=pair, swaps=[(14, 15)])(sample(ids), 0)
    assert result["target"][0].tolist() == [[3, 15, 15], [255, 0, 14]]
    assert result["image"][0].tolist() == [[3, 14, 14], [255, 0, 15]]  # the photo is only mirrored
    plain = Transform(steps=steps, pair=pair)(sample(ids), 0)
    assert plain["target"][0].tolist() == [[3, 14, 14], [255, 0, 15]]


def test_outlines_are_not_taken_for_classes_by_the_mirror() -> None:
    ids = np.zeros((16, 16), np.uint8)
    ids[:, 8:] = 1
    pair, options = Pair(source="photo", target="label"), {"kernel": 2, "frame": 0}
    steps = [albumentations.HorizontalFlip(p=1.0)]
    result = Transform(steps=steps, pair=pair, swaps=[(0, 1)], outlines=options)(sample(ids), 0)
    np.testing.assert_array_equal(result["boundary"][0].numpy(), boundary_map(ids, **options)[:, ::-1])


def test_nested_flips_are_exchanged_and_other_mirrors_refused() -> None:
    step = albumentations.OneOf([albumentations.HorizontalFlip(p=1.0)], p=1.0)
    assert isinstance(mirrored(step, [(0, 1)]).transforms[0], MirrorWithSwaps)
    with pytest.raises(ConfigError, match="HorizontalFlip"):
        Transform(steps=[albumentations.D4(p=1.0)], swaps=[(0, 1)])


def test_splits_can_be_joined(scenes: Path, tmp_path: Path) -> None:
    config = composed([*TINY_SEGMENTATION, f"data.root={scenes}", "data.splits.train=train+val"], tmp_path)
    data = runtime.build_data(config).open("train")
    assert len(data) == 9
    assert [data[i]["name"] for i in (0, 5, 6, 8, -1)] == ["train0", "train5", "val0", "val2", "val2"]
    assert data[7]["index"] == 7 and "val1.png" in data.describe(7)


def test_the_number_of_classes_is_checked_before_a_file_is_opened(tmp_path: Path) -> None:
    config = composed([*TINY_SEGMENTATION, "data.classes=4"], tmp_path)
    with pytest.raises(ConfigError, match=r"data.classes: found 4, .* has 3 classes .*left, right, rest"):
        runtime.build_data(config)


# A step ----------------------------------------------------------------------------------------------


def make(tmp_path: Path, *more: str) -> Segmentation:
    task = runtime.make_task(composed([*TINY_SEGMENTATION, *more], tmp_path))
    assert isinstance(task, Segmentation)
    return task


def batch_of(count: int = 2) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (count, 3, 64, 64), dtype=torch.uint8, generator=generator)
    target = torch.randint(0, 3, (count, 1, 64, 64), dtype=torch.uint8, generator=generator)
    return {"image": image, "target": target, "index": torch.arange(count), "name": ["a", "b"][:count]}


def test_the_objective_is_the_loss_on_normalised_pictures(tmp_path: Path) -> None:
    task, batch = make(tmp_path), batch_of()
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    image = (batch["image"].double() / 255 - mean.view(1, 3, 1, 1)) / std.view(1, 3, 1, 1)
    torch.testing.assert_close(task.normalise(batch["image"]).double(), image, rtol=0, atol=1e-6)
    task.train()
    output = task.network(image.float())
    outlines = torch.stack([torch.from_numpy(boundary_map(ids[0].numpy())) for ids in batch["target"]])
    expected = task.loss(output, batch["target"][:, 0], outlines)
    found = task.objective(output, batch)  # draws the outlines itself
    assert set(found) == {"auxiliary", "boundary", "main", "main_at_boundary"} == set(expected)
    for name in expected:
        torch.testing.assert_close(found[name], expected[name])
    torch.testing.assert_close(task.objective(output, batch | {"boundary": outlines[:, None]}), found)


def test_align_corners_comes_from_the_network(tmp_path: Path) -> None:
    assert make(tmp_path).loss.align_corners is True
    assert make(tmp_path, "loss.align_corners=false").loss.align_corners is False
    slim = ["network=ddrnet_23_slim", "~network.head_width", "~network.pyramid_width", "loss=ddrnet"]
    options = [o for o in TINY_SEGMENTATION if not o.startswith(("network.", "loss."))]
    task = runtime.make_task(composed([*options, slim[0], slim[3], "network.width=4"], tmp_path))
    assert isinstance(task, Segmentation) and task.loss.align_corners is False and not task.align_corners


def test_parameter_groups_cover_every_weight_once() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1))
    optim = functools.partial(torch.optim.SGD, lr=0.1, weight_decay=0.01)
    groups = optim(parameter_groups(network, optim, heads=["2"], factor=10.0, decay_norms=False)).param_groups
    by_parameter = {id(p): group for group in groups for p in group["params"]}
    assert len(by_parameter) == len(list(network.parameters()))
    found = {name: (by_parameter[id(p)]["lr"], by_parameter[id(p)]["weight_decay"])
             for name, p in network.named_parameters()}  # fmt: skip
    assert found["0.weight"] == (0.1, 0.01) and found["0.bias"] == (0.1, 0.0)
    assert found["1.weight"] == found["1.bias"] == (0.1, 0.0)
    assert found["2.weight"] == (1.0, 0.01) and found["2.bias"] == (1.0, 0.0)
    plain = parameter_groups(network, optim, heads=["2"])
    assert len(plain) == 1 and len(plain[0]["params"]) == 6
    with pytest.raises(ConfigError, match=r"task.head_modules: the network has no module '3'"):
        parameter_groups(network, optim, heads=["3"])


@pytest.mark.parametrize(
    ("options", "found"),
    [(["data.batch_size=1"], "every batch"), (["data.batch_size=5"], "the last batch of an epoch")],
)
def test_one_picture_a_device_is_refused_with_the_reason(
    scenes: Path, tmp_path: Path, options: list[str], found: str
) -> None:
    config = composed([*TINY_SEGMENTATION, f"data.root={scenes}", *options], tmp_path)  # six pictures
    with pytest.raises(
        ConfigError, match=rf"{found} gives 1 item a device, of which the batch norm .network.layer5"
    ):
        train_until(config)
    if found != "every batch":
        assert train_until(composed(
            [*TINY_SEGMENTATION, f"data.root={scenes}", *options, "data.drop_last=true", "trainer.max_epochs=1"],
            tmp_path,
        ))  # fmt: skip


def test_it_learns(trained: Path, scenes: Path, tmp_path: Path) -> None:
    options = [option for option in TINY_SEGMENTATION if not option.startswith("loss.")]
    options += [f"data.root={scenes}", "loss=cross_entropy", "network.heads=false", "network.width=8", "optim=adamw",
                "optim.lr=0.01", "trainer.max_epochs=20", "transform.low=0.8", "transform.high=1.2"]  # fmt: skip
    config = composed(options, tmp_path)
    task = runtime.make_task(config)
    data = runtime.build_data(config)
    task.ask_data(data)
    trainer = runtime.build_trainer(config, task)
    trainer.fit(task, data)
    assert float(trainer.callback_metrics["val/pixel_accuracy"]) > 0.75, trainer.callback_metrics
    assert float(trainer.callback_metrics["val/miou"]) > 0.5, trainer.callback_metrics


VARIANTS = {
    "plain": [],
    "ema and accumulation": ["ema=0.9", "trainer.accumulate_grad_batches=2", "checkpoint.every_n_steps=1"],
    "inside the epoch": ["checkpoint.every_n_steps=1", "trainer.gradient_clip_val=0.5"],
}


@pytest.mark.parametrize(
    "variant", [pytest.param(each, marks=pytest.mark.slow if each == "plain" else ()) for each in VARIANTS]
)
def test_killed_twice_ends_bit_equal(scenes: Path, tmp_path: Path, variant: str) -> None:
    options = [*TINY_SEGMENTATION, f"data.root={scenes}", "trainer.max_epochs=2", *VARIANTS[variant]]
    whole = train_until(composed(options, tmp_path / "whole"))
    for step in (2, 2):
        train_until(composed(options, tmp_path / "killed"), dies_after=step)
    resumed = train_until(composed(options, tmp_path / "killed"))
    assert whole is not None and resumed is not None
    assert equal(whole["state_dict"], resumed["state_dict"])
    assert equal(whole["optimizer_states"], resumed["optimizer_states"])
    assert whole["global_step"] == resumed["global_step"] == (4 if "accumulation" in variant else 6)


# Starting from other weights -------------------------------------------------------------------------


def changed(trained: Path, tmp_path: Path, *more: str, **edit: Any) -> tuple[Segmentation, Path]:
    """A new task, and the trained checkpoint with its header or weights edited."""
    content = read_checkpoint(trained)
    content["dvsn"] |= edit.pop("header", {})
    content["state_dict"] |= edit.pop("weights", {})
    for key in edit.pop("without", []):
        del content["state_dict"][key]
    path = tmp_path / "start.ckpt"
    AtomicCheckpointIO().save_checkpoint(content, path)
    return make(tmp_path, *more), path


def test_the_class_layers_start_anew_when_the_classes_differ(trained: Path, tmp_path: Path) -> None:
    more = ["data.classes=2", "data.dataset.names=[a,b]"]
    task, path = changed(trained, tmp_path, *more)
    before = {k: v.clone() for k, v in task.network.state_dict().items()}
    start_from(task, path)
    stored = {k.removeprefix("network."): v for k, v in read_checkpoint(trained)["state_dict"].items()}
    for key, value in task.network.state_dict().items():
        if value.shape == stored[key].shape:
            assert torch.equal(value, stored[key]), key
        else:
            assert key.startswith(task.network.classifier) and torch.equal(value, before[key]), key
    assert (
        sum(value.shape != stored[key].shape for key, value in before.items()) == 4
    )  # two heads, weight and bias


def test_other_differences_are_refused(trained: Path, tmp_path: Path) -> None:
    task, path = changed(trained, tmp_path, without=["network.conv1.0.weight"])
    with pytest.raises(CheckpointError, match=r"missing: conv1\.0\.weight"):
        start_from(task, path)
    task, path = changed(trained, tmp_path, weights={"network.conv1.9.weight": torch.zeros(2)})
    with pytest.raises(CheckpointError, match=r"unexpected: conv1\.9\.weight"):
        start_from(task, path)


def test_another_task_gives_what_fits_and_must_give_enough(trained: Path, tmp_path: Path) -> None:
    header = {"task": "classification"}
    task, path = changed(trained, tmp_path, header=header, without=["network.final_layer.conv2.weight"])
    start_from(task, path)
    stored = read_checkpoint(trained)["state_dict"]
    assert torch.equal(task.network.state_dict()["conv1.0.weight"], stored["network.conv1.0.weight"])
    few = [key for key in stored if not key.startswith("network.conv1.")]
    task, path = changed(trained, tmp_path, header=header, without=few)
    with pytest.raises(CheckpointError, match="same family"):
        start_from(task, path)


# In use ----------------------------------------------------------------------------------------------


def evaluated(*overrides: str) -> dict[str, float]:
    with initialized(conf_dir()):
        config = compose("evaluate", overrides=list(overrides))
    plain = OmegaConf.to_container(config, resolve=True)
    assert isinstance(plain, dict)
    options = {str(key): value for key, value in plain.items()}
    options["trainer"] |= {"accelerator": "cpu", "enable_progress_bar": False}
    return evaluate(options)


def read(path: Path) -> np.ndarray[Any, Any]:
    picture = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert picture is not None, path
    return picture


def test_evaluate_counts_what_it_writes(
    trained: Path, scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values = evaluated(f"checkpoint={trained}", f"output={tmp_path}", "save_all=true", "split=test",
                       "metrics.boundary_score=true")  # fmt: skip
    intersection, union = np.zeros(3), np.zeros(3)
    for file in sorted((tmp_path / "ids").iterdir()):
        predicted, truth = read(file), read(scenes / "test" / "labels" / file.name)
        assert predicted.shape == (64, 64)
        for each in range(3):
            intersection[each] += ((predicted == each) & (truth == each)).sum()
            union[each] += ((predicted == each) | (truth == each)).sum()
    assert values["miou"] == pytest.approx(np.mean(intersection[union > 0] / union[union > 0]), abs=1e-6)
    assert 0 <= values["boundary_f"] <= 1
    written = json.loads((tmp_path / "metrics.json").read_text())
    assert [row["class"] for row in written["details"]["classes"]] == ["left", "right", "rest"]
    assert sum(row["pixels"] for row in written["details"]["classes"]) == 3 * 64 * 64
    assert read(tmp_path / "confusion.png").ndim == 3 and read(tmp_path / "grid.png").ndim == 3
    assert len(list((tmp_path / "color").iterdir())) == 3
    assert "right" in capsys.readouterr().out


def test_evaluate_takes_another_inference(trained: Path, tmp_path: Path) -> None:
    output = f"output={tmp_path}"
    plain = evaluated(f"checkpoint={trained}", output)
    views = evaluated(f"checkpoint={trained}", output, "inference.scales=[0.5,1,1.5]", "inference.flip=true")
    tiles = evaluated(f"checkpoint={trained}", output, "inference.mode=slide", "inference.window=[64,64]")
    assert views["pixel_accuracy"] != plain["pixel_accuracy"]
    assert tiles["miou"] == pytest.approx(plain["miou"])  # one window is the whole picture


def test_data_given_to_evaluate_is_read_as_the_task_wants(
    trained: Path, scenes: Path, tmp_path: Path
) -> None:
    options = ["data=segmentation", "transform=none", f"data.root={scenes}", "data.dataset.names=[left,right,rest]",
               "data.dataset.palette=null", "data.classes=3", "data.workers=0"]  # fmt: skip
    output = f"output={tmp_path}"
    assert evaluated(f"checkpoint={trained}", output, *options) == evaluated(f"checkpoint={trained}", output)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("metrics.lpips_weights=x", "metrics.lpips_weights: the task 'segmentation' has no such option"),
        ("inference.mode=tiles", "^inference.mode: found 'tiles'"),
        ("test_norm=batch", "test_norm: the task 'segmentation'"),
    ],
)
def test_options_of_other_tasks_are_refused(trained: Path, tmp_path: Path, option: str, message: str) -> None:
    with pytest.raises((ConfigError, CheckpointError), match=message):
        evaluated(f"checkpoint={trained}", f"output={tmp_path}", option)


def predicted(trained: Path, source: Path, output: Path, **options: Any) -> list[Path]:
    given = {option.name: option.default for option in COMMAND.options}
    return predict.predict(given | {"checkpoint": trained, "input": source, "output": output} | options)


def test_predict_writes_colours_ids_and_overlays(trained: Path, tmp_path: Path) -> None:
    photo = np.random.default_rng(0).integers(0, 256, (75, 101, 3), dtype=np.uint8)  # any size
    (tmp_path / "in").mkdir()
    cv2.imwrite(str(tmp_path / "in" / "a.png"), photo)
    task = dvsn.load(trained)
    image = torch.from_numpy(cv2.cvtColor(photo, cv2.COLOR_BGR2RGB)).permute(2, 0, 1)[None]
    expected = task(image)[0].numpy()
    results = {kind: read(predicted(trained, tmp_path / "in", tmp_path / kind, write=kind)[0])
               for kind in ("ids", "color", "overlay")}  # fmt: skip
    np.testing.assert_array_equal(results["ids"], expected)
    palette = np.array(task.vocabulary.palette, np.uint8)[:, ::-1]
    np.testing.assert_array_equal(results["color"], palette[expected])
    blend = (photo.astype(float) + palette[expected]) / 2
    plain = ~borders(expected)
    plain[30:, :50] = False  # the legend
    assert plain.sum() > 1000 and np.abs(results["overlay"] - blend)[plain].max() <= 0.5
    with pytest.raises(ConfigError, match="no other numbering"):
        predicted(trained, tmp_path / "in", tmp_path / "x", write="submission")
    with pytest.raises(
        ConfigError, match=r"write: the task 'segmentation' has no 'idx'\. Did you mean 'ids'"
    ):
        predicted(trained, tmp_path / "in", tmp_path / "x", write="idx")


def test_a_submission_holds_the_ids_of_the_files(tmp_path: Path) -> None:
    options = [option for option in TINY_SEGMENTATION if not option.startswith("data")]
    task: Any = runtime.make_task(composed([*options[:1], "data=cityscapes", *options[1:]], tmp_path))
    ids = torch.arange(19, dtype=torch.uint8).view(1, 1, 19)
    label_ids = [7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33]
    assert task._as(ids, "submission", ids).flatten().tolist() == label_ids


def test_what_is_shipped_answers_as_the_task_does(trained: Path) -> None:
    task: Any = dvsn.load(trained)
    image = batch_of()["image"]
    shipped = task.deployable()
    assert torch.equal(shipped(image), task(image)) and shipped(image).dtype == torch.uint8
    logits = Segmenter(task.normalise, task.network, align_corners=True, answer="logits")(image)
    assert logits.shape == (2, 3, 64, 64) and torch.equal(logits.argmax(1).to(torch.uint8), task(image))


# FCN score -------------------------------------------------------------------------------------------


def test_colours_become_the_classes_of_the_palette() -> None:
    palette = torch.tensor([[128, 64, 128], [0, 0, 142]], dtype=torch.uint8)
    colors = torch.tensor([[128, 64, 128], [0, 0, 142], [0, 0, 0], [142, 0, 0]], dtype=torch.uint8)
    assert ids_of_colors(colors.T.reshape(1, 3, 1, 4), palette).flatten().tolist() == [0, 1, 255, 255]


def test_painted_photos_are_scored_by_a_segmentation_checkpoint(trained: Path, scenes: Path) -> None:
    score = PaintedScore(str(trained))
    photo = torch.from_numpy(read(scenes / "val" / "images" / "val0.png")[..., ::-1].copy()).permute(2, 0, 1)[
        None
    ]
    ids = score.task(photo)  # paint the map as the segmenter sees the photo: a perfect score
    score.update(photo.float() / 255, score.task.paint(ids))
    assert float(score.compute()["pixel_accuracy"]) == 1.0
    score.update(photo.float() / 255, score.task.paint((ids + 1) % 3))
    assert float(score.compute()["pixel_accuracy"]) == 0.5
    assert not any(key.startswith("_task") for key in score.state_dict())


def test_the_fcn_score_wants_a_segmenter(tmp_path: Path, scenes: Path, trained: Path) -> None:
    options = [
        *TINY,
        "data.dataset.a=labels",
        "data.dataset.b=images",
        f"data.root={scenes}",
        "network.width=4",
    ]
    task = runtime.make_task(composed(options, tmp_path))
    checkpoint: dict[str, Any] = {"state_dict": task.state_dict()}
    task.on_save_checkpoint(checkpoint)
    AtomicCheckpointIO().save_checkpoint(checkpoint, tmp_path / "pix2pix.ckpt")
    with pytest.raises(CheckpointError, match=r"pix2pix.ckpt: is a checkpoint of the task 'pix2pix'"):
        evaluated(f"checkpoint={tmp_path}/pix2pix.ckpt", f"metrics.segmenter={tmp_path}/pix2pix.ckpt")
    values = evaluated(f"checkpoint={tmp_path}/pix2pix.ckpt", f"metrics.segmenter={trained}",
                       f"output={tmp_path}/out")  # fmt: skip
    assert {"fcn_pixel_accuracy", "fcn_class_accuracy", "fcn_class_iou", "psnr"} <= set(values)


# The plain command --------------------------------------------------------------------------------------


def test_the_plain_command_is_the_published_recipe(tmp_path: Path) -> None:
    node = composed(["task=segmentation", "network=pidnet_s", "data=cityscapes"], tmp_path)
    recipe = composed(["experiment=pidnet_s_cityscapes"], tmp_path)
    for key in ("network", "loss", "transform", "optim", "schedule", "task"):
        assert node[key] == recipe[key], key
    assert node["trainer"]["max_epochs"] == recipe["trainer"]["max_epochs"] == 484
    assert node["data"] == recipe["data"] and node["data"]["batch_size"] == 12
    assert node["loss"]["class_weights"] == "cityscapes" and node["loss"]["terms"]["boundary"]["frame"] == 6
    assert {name: term["weight"] for name, term in node["loss"]["terms"].items()} == {
        "auxiliary": 0.4, "boundary": 20.0, "main": 1.0, "main_at_boundary": 1.0,
    }  # fmt: skip


def test_a_checkpoint_does_not_need_its_class_weights_file(tmp_path: Path) -> None:
    from dvsn.engine.trainer import keep_class_weights

    file = tmp_path / "weights.json"
    file.write_text(json.dumps({"method": "enet", "weights": [1, 2, 3], "classes": ["a", "b", "c"]}))
    config = composed([*TINY_SEGMENTATION, f"loss.class_weights={file}"], tmp_path)
    keep_class_weights(config)
    file.unlink()
    assert config["task"]["loss"]["class_weights"] == [1.0, 2.0, 3.0]
    task: Any = runtime.make_task(config)
    assert task.loss.class_weights.tolist() == [1.0, 2.0, 3.0]
